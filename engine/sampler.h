/* sampler.h: from logits to a token. Deterministic for a seed. One thread at a time. */
#ifndef ENG_SAMPLER_H
#define ENG_SAMPLER_H

#include <glib.h>

typedef struct {
  float temperature;      /* 0: greedy */
  int top_k;              /* 0: off */
  float top_p;            /* 1: off */
  float min_p;            /* 0: off */
  float repeat_penalty;   /* 1: off */
  int repeat_last_n;      /* tokens looked back, 64 */
  guint64 seed;
} EngSamplerOptions;

#define ENG_SAMPLER_DEFAULTS { 0.7f, 40, 0.95f, 0.05f, 1.0f, 64, 0 }

typedef struct EngSampler EngSampler;
EngSampler *eng_sampler_new (const EngSamplerOptions *options, guint n_vocab);
void eng_sampler_free (EngSampler *sampler);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (EngSampler, eng_sampler_free)
/* Penalty, then top-k, top-p and min-p on the probabilities at temperature 1, then temperature, then one draw. Overwrites
 * logits[n_vocab]: NaN becomes impossible, infinities the ends of the finite range. recent: the last tokens, newest last.
 * -1 when no logit is a number: the model is damaged. */
int eng_sampler_sample (EngSampler *sampler, float *logits, const gint32 *recent, guint n_recent);

#endif
