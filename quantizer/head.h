/* head.h: from hidden states to the vocabulary and back, a stretch of the vocabulary at a time. */
#ifndef QZ_HEAD_H
#define QZ_HEAD_H

#include "quantizer/source.h"

/* logits [n][n_vocab] of final hidden states f [n][n_embd] (after the output norm). */
gboolean qz_head_logits (const QzSource *source, EngWorkers *workers, const float *f, guint n, float *logits, GError **error);

/* For n hidden states: probability[v] += sum of p_v, row_fisher[v] += sum of p_v (1 - p_v), and df [n][n_embd] = the gradient of the
 * log-loss of one label per state drawn from the model's own distribution (so that its square is the true Fisher information).
 * logits [n][n_vocab] is scratch. */
gboolean qz_head_backward (const QzSource *source, EngWorkers *workers, const float *f, guint n, guint64 seed, float *logits, float *df,
                           double *probability, double *row_fisher, GError **error);

#endif
