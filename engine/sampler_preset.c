/* sampler_preset.c: general.sampling.*, where it is within reason. */
#include "engine/sampler_preset.h"

gboolean eng_sampler_preset (const EngGguf *gguf, EngSamplerOptions *o)
{
  const struct { const char *key; double low, high; float *value; } floats[] = {
    { "general.sampling.temp", 0, 100, &o->temperature }, { "general.sampling.top_p", 0, 1, &o->top_p }, { "general.sampling.min_p", 0, 1, &o->min_p },
    { "general.sampling.penalty_repeat", 0.01, 100, &o->repeat_penalty } };
  gboolean any = FALSE;
  for (gsize i = 0; i < G_N_ELEMENTS (floats); i++) {
    double value = eng_gguf_get_float (gguf, floats[i].key, -1);
    if (!(value >= floats[i].low && value <= floats[i].high))
      continue;
    *floats[i].value = (float) value;
    any = TRUE;
  }
  gint64 top_k = eng_gguf_get_int (gguf, "general.sampling.top_k", -1);
  if (top_k < 0 || top_k > G_MAXINT32)
    return any;
  o->top_k = (int) top_k;
  return TRUE;
}
