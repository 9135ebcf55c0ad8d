/* sampling.c: --temp and its kin. What a person asks for goes before what the model's makers advise, and that before Valise's own. */
#include "app/cli/cli.h"

#include "engine/sampler_preset.h"

#define NOT_GIVEN (-1e300)

enum { TEMP, TOP_K, TOP_P, MIN_P, REPEAT, LAST_N, FREQUENCY, PRESENCE, DRY, DRY_BASE, DRY_LENGTH, SIGMA, TYPICAL, XTC, XTC_FROM, DYNAMIC, MIROSTAT, TAU, ETA, N_OPTIONS };

static const struct { const char *name, *text, *argument; double low, high; } options[N_OPTIONS] = {
  [TEMP] = { "temp", "Temperature, 0: always the likeliest token (else the model's, or 0.7)", "X", 0, 100 },
  [TOP_K] = { "top-k", "Choose among the k likeliest, 0: all (else the model's, or 40)", "K", 0, G_MAXINT32 },
  [TOP_P] = { "top-p", "Choose among the likeliest that add up to p (else the model's, or 0.95)", "P", 1e-6, 1 },
  [MIN_P] = { "min-p", "Leave out what is less than p times as likely as the likeliest (else the model's, or 0.05)", "P", 0, 1 },
  [REPEAT] = { "repeat-penalty", "Above 1: says the same less often (else the model's, or 1)", "X", 1e-3, 100 },
  [LAST_N] = { "repeat-last-n", "Tokens that penalties look back (else 64)", "N", 0, G_MAXINT32 },
  [FREQUENCY] = { "frequency-penalty", "Taken from a token for each time it was said (else 0)", "X", -100, 100 },
  [PRESENCE] = { "presence-penalty", "Taken from a token that was said (else 0)", "X", -100, 100 },
  [DRY] = { "dry-multiplier", "Above 0: don't repeat sequences, with this force (else 0)", "X", 0, 100 },
  [DRY_BASE] = { "dry-base", "How much each further token of a repetition weighs (else 1.75)", "X", 1, 100 },
  [DRY_LENGTH] = { "dry-allowed-length", "Tokens that may be repeated for nothing (else 2)", "N", 1, 65536 },
  [SIGMA] = { "top-n-sigma", "Keep logits within so many standard deviations of the largest (else all)", "X", 0, 1000 },
  [TYPICAL] = { "typical-p", "Choose among the most typical that add up to p (else all)", "P", 1e-6, 1 },
  [XTC] = { "xtc-probability", "How often the likeliest but one are left out (else 0)", "P", 0, 1 },
  [XTC_FROM] = { "xtc-threshold", "From which probability on (else 0.1)", "P", 0, 1 },
  [DYNAMIC] = { "dynatemp-range", "Temperature moves by so much with the entropy (else 0)", "X", 0, 100 },
  [MIROSTAT] = { "mirostat", "1 or 2: hold the surprise of tokens instead of cutting (else 0)", "V", 0, 2 },
  [TAU] = { "mirostat-tau", "At so many bits (else 5)", "X", 1e-3, 100 },
  [ETA] = { "mirostat-eta", "How fast it follows (else 0.1)", "X", 1e-6, 1 },
};

static double given[N_OPTIONS];

GOptionEntry *cli_sampling_entries (const GOptionEntry *own)
{
  guint n = 0;
  while (own[n].long_name)
    n++;
  GOptionEntry *entries = g_new0 (GOptionEntry, n + N_OPTIONS + 1);
  for (guint i = 0; i < n; i++)
    entries[i] = own[i];
  for (guint i = 0; i < N_OPTIONS; i++) {
    given[i] = NOT_GIVEN;
    entries[n + i] = (GOptionEntry) { options[i].name, 0, 0, G_OPTION_ARG_DOUBLE, &given[i], options[i].text, options[i].argument };
  }
  return entries;
}

gboolean cli_sampling_check (void)
{
  for (guint i = 0; i < N_OPTIONS; i++)
    if (given[i] != NOT_GIVEN && !(given[i] >= options[i].low && given[i] <= options[i].high)) {
      cli_usage ("--%s %g is out of range: %g to %g", options[i].name, given[i], options[i].low, options[i].high);
      return FALSE;
    }
  return TRUE;
}

void cli_sampling_read (const EngGguf *gguf, EngSamplerOptions *o)
{
  float *const floats[N_OPTIONS] = {
    [TEMP] = &o->temperature, [TOP_P] = &o->top_p, [MIN_P] = &o->min_p, [REPEAT] = &o->repeat_penalty, [FREQUENCY] = &o->frequency_penalty, [PRESENCE] = &o->presence_penalty,
    [DRY] = &o->dry_multiplier, [DRY_BASE] = &o->dry_base, [SIGMA] = &o->top_n_sigma, [TYPICAL] = &o->typical_p, [XTC] = &o->xtc_probability, [XTC_FROM] = &o->xtc_threshold,
    [DYNAMIC] = &o->dynamic_range, [TAU] = &o->mirostat_tau, [ETA] = &o->mirostat_eta };
  *o = (EngSamplerOptions) ENG_SAMPLER_DEFAULTS;
  o->xtc_threshold = 0.1f;
  eng_sampler_preset (gguf, o);
  for (guint i = 0; i < N_OPTIONS; i++)
    if (given[i] != NOT_GIVEN && floats[i])
      *floats[i] = (float) given[i];
  o->top_k = given[TOP_K] != NOT_GIVEN ? (int) given[TOP_K] : o->top_k;
  o->repeat_last_n = given[LAST_N] != NOT_GIVEN ? (int) given[LAST_N] : o->repeat_last_n;
  o->dry_allowed_length = given[DRY_LENGTH] != NOT_GIVEN ? (guint) given[DRY_LENGTH] : 0;
  o->mirostat = given[MIROSTAT] != NOT_GIVEN ? (int) given[MIROSTAT] : o->mirostat;
}
