/* evaluate.h: perplexity and KL divergence by the protocol of llama-perplexity: chunks of n_ctx, second half scored. */
#ifndef ENG_EVALUATE_H
#define ENG_EVALUATE_H

#include "engine/session.h"

typedef struct {
  guint64 tokens;           /* scored positions */
  double ppl;
  gboolean has_reference;
  double kl_mean, kl_p99, kl_max; /* nats, KL(reference || model) */
  double top1_agreement;    /* 0..1 */
} EngEvaluation;

/* chunks 0: all. reference may be NULL. activation_bits as in EngSessionOptions (0: 8; the reference is always exact). */
gboolean eng_evaluate (EngModel *model, EngModel *reference, EngWorkers *workers, const char *text, gsize length, guint n_ctx, guint chunks,
                       int activation_bits, int kv_bits, EngEvaluation *result, EngProgress progress, gpointer data, GCancellable *cancellable,
                       GError **error);

/* The log of the sum of all exp (x[i]), in double precision; argmax: the place of the largest. */
double eng_log_sum_exp (const float *x, guint n, guint argmax);

#endif
