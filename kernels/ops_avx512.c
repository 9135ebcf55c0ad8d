/* ops_avx512.c: ops, raw and dense products, compiled with this instruction set's flags. */
#define XB_VL 16
#define XB_SUFFIX avx512
#include "kernels/ops_isa.h"
