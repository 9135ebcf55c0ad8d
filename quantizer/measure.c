/* measure.c: logits of the source from its stored final states, logits of the fit from a session of the engine. */
#include "quantizer/measure.h"

#include "engine/error.h"
#include "engine/session.h"
#include "kernels/ops.h"
#include "quantizer/head.h"

#include <math.h>

double qz_divergence (const float *p, const float *q, guint n)
{
  double log_p = xb_log_sum_exp (p, n), log_q = xb_log_sum_exp (q, n), sum = 0;
  for (guint v = 0; v < n; v++) {
    double lp = p[v] - log_p;
    sum += exp (lp) * (lp - (q[v] - log_q));
  }
  return MAX (sum, 0);
}

typedef struct {
  EngSession *session;
  const float *logits; /* of the source, [n][n_vocab] */
  guint n_vocab, begin;
  double *kl;          /* [n] */
  guint8 *agree;
} Comparison;

static void compare_work (gpointer data, guint begin, guint end, guint worker)
{
  Comparison *c = data;
  for (guint i = begin; i < end; i++) {
    const float *p = c->logits + (gsize) i * c->n_vocab, *q = eng_session_logits_at (c->session, c->begin + i);
    c->kl[i] = qz_divergence (p, q, c->n_vocab);
    c->agree[i] = xb_argmax (p, c->n_vocab) == xb_argmax (q, c->n_vocab);
  }
}

gboolean qz_measure (const QzSource *source, const QzAnalysis *a, const char *path, EngWorkers *workers, double *kl, double *top1,
                     EngProgress progress, gpointer data, double from, double to, GCancellable *cancellable, GError **error)
{
  guint n_vocab = source->traits.n_vocab, tokens = a->held_tokens, begin = tokens / 2, scored = tokens - begin;
  g_autoptr (EngModel) model = eng_model_open (path, error);
  if (model == NULL)
    return FALSE;
  EngSessionOptions options = { .n_ctx = tokens, .batch = tokens, .kv_bits = 16, .activation_bits = 8 };
  g_autoptr (EngSession) session = eng_session_new (model, workers, &options, error);
  if (session == NULL)
    return FALSE;
  g_autofree float *hidden = g_new (float, (gsize) scored * a->n_embd);
  g_autofree float *logits = g_new (float, (gsize) scored * n_vocab);
  g_autofree double *kls = g_new (double, scored);
  g_autofree guint8 *agree = g_malloc (scored);
  double sum = 0, agreed = 0;
  for (guint s = 0; s < a->held_sequences; s++) {
    eng_session_truncate (session, 0);
    if (!eng_session_eval (session, a->held + (gsize) s * tokens, tokens, TRUE, cancellable, error))
      return FALSE;
    xb_raw_to_f32 (XB_RAW_F16, a->held_hidden + ((gsize) s * tokens + begin) * a->n_embd, hidden, (gsize) scored * a->n_embd);
    if (!qz_head_logits (source, workers, hidden, scored, logits, error))
      return FALSE;
    Comparison comparison = { session, logits, n_vocab, begin, kls, agree };
    eng_workers_run (workers, compare_work, &comparison, scored, 1);
    for (guint i = 0; i < scored; i++) {
      sum += kls[i];
      agreed += agree[i];
    }
    if (progress != NULL)
      progress (from + (to - from) * (s + 1) / a->held_sequences, "Measuring the result", data);
  }
  *kl = sum / ((double) scored * a->held_sequences);
  *top1 = agreed / ((double) scored * a->held_sequences);
  return TRUE;
}
