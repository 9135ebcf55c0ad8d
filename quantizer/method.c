/* method.c: what sets the methods apart. */
#include "quantizer/method.h"

static const QzMethodTraits methods[QZ_N_METHODS] = {
  [QZ_METHOD_XBIT] = { "xbit", QZ_FRONT_BALANCED, .compensates = TRUE, .has_trellis = TRUE, .orders_channels = TRUE },
  [QZ_METHOD_RTN] = { "rtn", QZ_FRONT_NOTHING },
  [QZ_METHOD_GPTQ] = { "gptq", QZ_FRONT_BY_MOMENT, .compensates = TRUE },
  [QZ_METHOD_AWQ] = { "awq", QZ_FRONT_SCALES },
  [QZ_METHOD_QUAROT] = { "quarot", QZ_FRONT_FOLDED, .compensates = TRUE },
  [QZ_METHOD_SPINQUANT] = { "spinquant", QZ_FRONT_FOLDED, .compensates = TRUE },
  [QZ_METHOD_HADAMARD] = { "hadamard", QZ_FRONT_HADAMARD, .compensates = TRUE },
};

const QzMethodTraits *qz_method_traits (QzMethod method)
{
  return &methods[method];
}

const char *qz_method_name (QzMethod method)
{
  return methods[method].name;
}

gboolean qz_method_folds_rotations (QzMethod method)
{
  return methods[method].front == QZ_FRONT_FOLDED;
}

gboolean qz_method_from_name (const char *name, QzMethod *method)
{
  for (*method = 0; *method < QZ_N_METHODS; ++*method)
    if (g_str_equal (methods[*method].name, name))
      return TRUE;
  return FALSE;
}
