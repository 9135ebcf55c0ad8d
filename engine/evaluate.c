/* evaluate.c: perplexity, KL divergence and top-1 agreement over chunks of a text. Sums are f64, in the order of the text, so that
 * the number of threads does not show. */
#include "engine/evaluate.h"
#include "engine/error.h"
#include "kernels/ops.h"

#include <math.h>
#include <stdlib.h>

enum { BATCH = 128 };

typedef struct {
  double nll, kl;
  gboolean agrees;
} Score;

typedef struct {
  EngSession *model, *reference; /* reference may be NULL */
  EngWorkers *workers;
  guint n_vocab;
  const gint32 *next; /* the token that follows each row of logits */
  Score *scores;      /* of each row */
} Scorer;

double eng_log_sum_exp (const float *x, guint n, guint argmax)
{
  double sum = 0, max = x[argmax];
  for (guint i = 0; i < n; i++)
    sum += exp (x[i] - max);
  return max + log (sum);
}

static void score_rows (gpointer data, guint begin, guint end, guint worker)
{
  Scorer *s = data;
  for (guint row = begin; row < end; row++) {
    const float *q = eng_session_logits_at (s->model, row);
    guint q_best = xb_argmax (q, s->n_vocab);
    double q_norm = eng_log_sum_exp (q, s->n_vocab, q_best);
    Score *score = &s->scores[row];
    *score = (Score){ .nll = q_norm - q[s->next[row]] };
    if (s->reference == NULL)
      continue;
    const float *p = eng_session_logits_at (s->reference, row);
    guint p_best = xb_argmax (p, s->n_vocab);
    double p_norm = eng_log_sum_exp (p, s->n_vocab, p_best);
    for (guint i = 0; i < s->n_vocab; i++) {
      double log_p = p[i] - p_norm;
      score->kl += exp (log_p) * (log_p - (q[i] - q_norm));
    }
    score->agrees = p_best == q_best;
  }
}

/* Evaluates one chunk and scores its second half: rows first .. n_ctx - 2 predict the token after them. */
static gboolean score_chunk (Scorer *s, const gint32 *tokens, guint n_ctx, Score *scores, GCancellable *cancellable, GError **error)
{
  EngSession *sessions[] = { s->model, s->reference };
  guint first = n_ctx / 2, n_sessions = s->reference != NULL ? 2 : 1;
  for (guint i = 0; i < n_sessions; i++) {
    eng_session_truncate (sessions[i], 0);
    if (!eng_session_eval (sessions[i], tokens, first, FALSE, cancellable, error))
      return FALSE;
  }
  for (guint at = first, n; at < n_ctx - 1; at += n) {
    n = MIN (n_ctx - 1 - at, BATCH);
    for (guint i = 0; i < n_sessions; i++)
      if (!eng_session_eval (sessions[i], tokens + at, n, TRUE, cancellable, error))
        return FALSE;
    s->next = tokens + at + 1;
    s->scores = scores + (at - first);
    eng_workers_run (s->workers, score_rows, s, n, 1);
  }
  return TRUE;
}

static int compare_doubles (const void *a, const void *b)
{
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static gboolean summarise (const Score *scores, guint n, gboolean has_reference, EngEvaluation *result, GError **error)
{
  g_autofree double *kl = g_new (double, n);
  double nll = 0, kl_sum = 0;
  guint agree = 0;
  for (guint i = 0; i < n; i++) {
    nll += scores[i].nll;
    kl_sum += kl[i] = scores[i].kl;
    agree += scores[i].agrees;
  }
  if (!isfinite (nll) || !isfinite (kl_sum)) {
    g_set_error_literal (error, ENG_ERROR, ENG_ERROR_FORMAT,
                         "the model computes no numbers: its file is damaged, download it again");
    return FALSE;
  }
  *result = (EngEvaluation){ .tokens = n, .ppl = exp (nll / n), .has_reference = has_reference };
  if (has_reference) {
    qsort (kl, n, sizeof *kl, compare_doubles);
    result->kl_mean = kl_sum / n;
    result->kl_p99 = kl[(guint)(0.99 * (n - 1) + 0.5)];
    result->kl_max = kl[n - 1];
    result->top1_agreement = (double)agree / n;
  }
  return TRUE;
}

gboolean eng_evaluate (EngModel *model, EngModel *reference, EngWorkers *workers, const char *text, gsize length, guint n_ctx,
                       guint chunks, int activation_bits, int kv_bits, EngEvaluation *result, EngProgress progress, gpointer data,
                       GCancellable *cancellable, GError **error)
{
  const EngTokenizer *tokenizer = eng_model_tokenizer (model);
  guint n_vocab = eng_model_traits (model)->n_vocab;
  if (n_ctx < 4) {
    g_set_error (error, ENG_ERROR, ENG_ERROR_ARGUMENT, "chunks of %u tokens cannot be scored: choose 4 or more", n_ctx);
    return FALSE;
  }
  if (reference != NULL && eng_model_traits (reference)->n_vocab != n_vocab) {
    g_set_error (error, ENG_ERROR, ENG_ERROR_ARGUMENT, "the model has %u tokens and its reference %u: they cannot be compared",
                 n_vocab, eng_model_traits (reference)->n_vocab);
    return FALSE;
  }
  g_autoptr (GArray) tokens = g_array_new (FALSE, FALSE, sizeof (gint32));
  eng_tokenizer_encode_whole (tokenizer, text, (gssize) length, tokens);
  guint available = tokens->len / n_ctx, n_chunks = chunks > 0 ? MIN (chunks, available) : available,
        per_chunk = n_ctx - 1 - n_ctx / 2;
  if (n_chunks == 0) {
    g_set_error (error, ENG_ERROR, ENG_ERROR_ARGUMENT, "the text has %u tokens, less than one chunk of %u: choose a longer text",
                 tokens->len, n_ctx);
    return FALSE;
  }
  EngSessionOptions options = { .n_ctx = n_ctx, .batch = BATCH, .kv_bits = kv_bits, .activation_bits = activation_bits };
  EngSessionOptions exact = { .n_ctx = n_ctx, .batch = BATCH, .kv_bits = 16, .activation_bits = 32 };
  g_autoptr (EngSession) session = eng_session_new (model, workers, &options, error);
  g_autoptr (EngSession) reference_session
      = session != NULL && reference != NULL ? eng_session_new (reference, workers, &exact, error) : NULL;
  if (session == NULL || (reference != NULL && reference_session == NULL))
    return FALSE;

  g_autofree Score *scores = g_new (Score, (gsize)n_chunks * per_chunk);
  Scorer scorer = { .model = session, .reference = reference_session, .workers = workers, .n_vocab = n_vocab };
  for (guint i = 0; i < n_chunks; i++) {
    gint32 *chunk = &g_array_index (tokens, gint32, (gsize)i * n_ctx);
    if (eng_tokenizer_bos (tokenizer) >= 0 && eng_tokenizer_adds_bos (tokenizer))
      chunk[0] = eng_tokenizer_bos (tokenizer);
    if (progress != NULL)
      progress ((double)i / n_chunks, "Evaluating", data);
    if (!score_chunk (&scorer, chunk, n_ctx, scores + (gsize)i * per_chunk, cancellable, error))
      return FALSE;
  }
  if (!summarise (scores, n_chunks * per_chunk, reference != NULL, result, error))
    return FALSE;
  if (progress != NULL)
    progress (1, "Evaluating", data);
  return TRUE;
}
