/* sampler.h: from logits to a token. Deterministic for a seed. One thread at a time. */
#ifndef ENG_SAMPLER_H
#define ENG_SAMPLER_H

#include <glib.h>

typedef struct {
  gint32 token;
  float bias; /* added to its logit; -INFINITY: never */
} EngLogitBias;

/* What is zero is off, but for temperature, top_p and repeat_penalty. */
typedef struct {
  float temperature;      /* 0: greedy */
  int top_k;              /* 0: off */
  float top_p;            /* 1: off */
  float min_p;            /* 0: off */
  float repeat_penalty;   /* 1: off */
  int repeat_last_n;      /* tokens looked back, 64 */
  guint64 seed;
  float frequency_penalty, presence_penalty; /* for each time, and for the first time, within repeat_last_n */
  float dry_multiplier;     /* don't repeat yourself: a token that would prolong a repetition of n tokens loses multiplier * base^(n - allowed) */
  float dry_base;           /* 0: 1.75 */
  guint dry_allowed_length; /* 0: 2 */
  guint dry_last_n;         /* 0: 64, at most 65536 */
  const guint8 *dry_breakers; /* [n_vocab], not 0: a repetition does not reach over this token; NULL: none. Kept by the caller */
  float top_n_sigma;        /* logits below the largest less so many standard deviations go */
  float typical_p;          /* also 1: off */
  float xtc_probability, xtc_threshold; /* so often, all but the least likely of those above the threshold go */
  float dynamic_range;      /* temperature moves by so much either way with the candidates' entropy ... */
  float dynamic_exponent;   /* ... to this power, 0: 1 */
  int mirostat;             /* 1 or 2: instead of everything between logit bias and the draw, but for temperature */
  float mirostat_tau, mirostat_eta; /* 0: 5, 0.1 */
  const EngLogitBias *biases; /* kept by the caller */
  guint n_biases;
} EngSamplerOptions;

#define ENG_SAMPLER_DEFAULTS { 0.7f, 40, 0.95f, 0.05f, 1.0f, 64, 0 }

typedef struct EngSampler EngSampler;
EngSampler *eng_sampler_new (const EngSamplerOptions *options, guint n_vocab);
void eng_sampler_free (EngSampler *sampler);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (EngSampler, eng_sampler_free)
/* Biases, penalties, DRY, top-n-sigma, top-k, typical, top-p, min-p, XTC, then temperature, then one draw: llama.cpp's order and meaning,
 * each on the probabilities at temperature 1 of what is left. Overwrites
 * logits[n_vocab]: NaN becomes impossible, infinities the ends of the finite range. recent: the last tokens, newest last.
 * -1 when no logit is a number: the model is damaged. */
int eng_sampler_sample (EngSampler *sampler, float *logits, const gint32 *recent, guint n_recent);

#endif
