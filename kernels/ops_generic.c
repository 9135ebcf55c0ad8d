/* ops_generic.c: ops, raw and dense products, compiled with this instruction set's flags. */
#define XB_VL 4
#define XB_SUFFIX generic
#include "kernels/ops_isa.h"
