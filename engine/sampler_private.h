/* sampler_private.h: what the sampler's files share. */
#ifndef ENG_SAMPLER_PRIVATE_H
#define ENG_SAMPLER_PRIVATE_H

#include "engine/sampler.h"

typedef struct {
  float logit;
  gint32 token;
} EngCandidate;

struct EngSampler {
  EngSamplerOptions options; /* what 0 stands for filled in */
  guint n_vocab;
  guint64 random[4];
  float mirostat_mu;        /* the surprise that is let through, in bits */
  guint8 *seen;             /* one bit per token: already met in this call */
  guint *repeats;           /* [dry_last_n], DRY only */
  EngCandidate *candidates; /* [n_vocab] those that may be drawn; while being cut, a heap with the largest logit on top */
  EngCandidate *chosen;     /* [n_vocab] those that left the heap, falling */
};

/* sampler.c */
double eng_sampler_uniform (EngSampler *sampler);
guint eng_sampler_keep_best (EngSampler *sampler, guint n, guint limit); /* moves the best of candidates[n] to their front, falling */
guint eng_sampler_draw (EngSampler *sampler, guint n, float temperature);

/* sampler_logits.c: biases, penalties and DRY. */
void eng_sampler_adjust (EngSampler *sampler, float *logits, const gint32 *recent, guint n_recent);

/* sampler_cuts.c: each leaves the first of `candidates` that remain and returns their number. */
guint eng_sampler_cut_sigma (EngSampler *sampler, guint n, const float *logits, float max);
guint eng_sampler_cut_typical (EngSampler *sampler, guint n, float *max); /* *max: of those that remain */
guint eng_sampler_cut_top (EngSampler *sampler, guint n);
float eng_sampler_temperature (const EngSampler *sampler, guint n);
int eng_sampler_mirostat (EngSampler *sampler, guint n); /* the token */

#endif
