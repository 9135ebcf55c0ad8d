/* ops_avx2.c: ops, raw and dense products, compiled with this instruction set's flags. */
#define XB_VL 8
#define XB_SUFFIX avx2
#include "kernels/ops_isa.h"
