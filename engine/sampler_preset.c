/* sampler_preset.c: general.sampling.*, where it is within reason. */
#include "engine/sampler_preset.h"

gboolean eng_sampler_preset (const EngGguf *gguf, EngSamplerOptions *o)
{
  const struct { const char *key; double low, high; float *value; } floats[] = {
    { "general.sampling.temp", 0, 100, &o->temperature }, { "general.sampling.top_p", 0, 1, &o->top_p }, { "general.sampling.min_p", 0, 1, &o->min_p },
    { "general.sampling.penalty_repeat", 0.01, 100, &o->repeat_penalty }, { "general.sampling.xtc_probability", 0, 1, &o->xtc_probability },
    { "general.sampling.xtc_threshold", 0, 1, &o->xtc_threshold }, { "general.sampling.mirostat_tau", 0, 100, &o->mirostat_tau },
    { "general.sampling.mirostat_eta", 0, 1, &o->mirostat_eta } };
  const struct { const char *key; gint64 high; int *value; } ints[] = {
    { "general.sampling.top_k", G_MAXINT32, &o->top_k }, { "general.sampling.penalty_last_n", G_MAXINT32, &o->repeat_last_n }, { "general.sampling.mirostat", 2, &o->mirostat } };
  gboolean any = FALSE;
  for (gsize i = 0; i < G_N_ELEMENTS (floats); i++) {
    double value = eng_gguf_get_float (gguf, floats[i].key, -1);
    if (!(value >= floats[i].low && value <= floats[i].high))
      continue;
    *floats[i].value = (float) value;
    any = TRUE;
  }
  for (gsize i = 0; i < G_N_ELEMENTS (ints); i++) {
    gint64 value = eng_gguf_get_int (gguf, ints[i].key, -1);
    if (value < 0 || value > ints[i].high)
      continue;
    *ints[i].value = (int) value;
    any = TRUE;
  }
  return any;
}
