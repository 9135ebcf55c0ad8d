/* head.c: logits, sampled labels and their gradient. The head is read again for each batch, 4096 rows at a time, never held whole. */
#include "quantizer/head.h"

#include "kernels/ops.h"
#include "quantizer/product.h"
#include "quantizer/transform.h"

enum { VOCABULARY_ROWS = 4096 };

/* Walks the head; backward: df += logits W, else logits = f W^T. */
static gboolean walk_head (const QzSource *source, EngWorkers *workers, const float *f, guint n, float *logits, float *df, GError **error)
{
  guint head = qz_source_head (source);
  const QzMatrix *m = &source->matrices[head];
  g_autofree float *w = g_new (float, (gsize) VOCABULARY_ROWS * m->cols);
  for (guint row0 = 0; row0 < m->rows; row0 += VOCABULARY_ROWS) {
    guint rows = MIN (VOCABULARY_ROWS, m->rows - row0);
    if (!qz_source_read_range (source, head, row0, row0 + rows, workers, w, error))
      return FALSE;
    if (df == NULL)
      qz_product (workers, false, true, n, rows, m->cols, f, m->cols, w, m->cols, 0, logits + row0, m->rows);
    else
      qz_product (workers, false, false, n, m->cols, rows, logits + row0, m->rows, w, m->cols, row0 > 0, df, m->cols);
  }
  return TRUE;
}

gboolean qz_head_logits (const QzSource *source, EngWorkers *workers, const float *f, guint n, float *logits, GError **error)
{
  return walk_head (source, workers, f, n, logits, NULL, error);
}

typedef struct {
  float *logits;
  guint n, n_vocab;
  guint64 seed;
  double *probability, *row_fisher;
} Softmax;

/* One unit is one state: logits become p - onehot (label). */
static void softmax_work (gpointer data, guint begin, guint end, guint worker)
{
  const Softmax *s = data;
  for (guint i = begin; i < end; i++) {
    float *p = s->logits + (gsize) i * s->n_vocab;
    xb_softmax (p, s->n_vocab);
    guint64 state = s->seed + i;
    double u = qz_random_unit (&state), sum = 0;
    guint label = s->n_vocab;
    for (guint v = 0; v < s->n_vocab; v++) {
      sum += p[v];
      if (sum > u) {
        label = v;
        break;
      }
    }
    /* Rounding may leave the sum a little under u: then the likeliest token. */
    p[label < s->n_vocab ? label : xb_argmax (p, s->n_vocab)] -= 1;
  }
}

enum { COLUMNS_PER_UNIT = 1024 };

/* One unit is a stretch of the vocabulary, summed over states in order. p comes back from p - onehot: 1 was taken only where negative. */
static void sum_work (gpointer data, guint begin, guint end, guint worker)
{
  const Softmax *s = data;
  guint v0 = begin * COLUMNS_PER_UNIT, v1 = MIN (end * COLUMNS_PER_UNIT, s->n_vocab);
  for (guint i = 0; i < s->n; i++) {
    const float *d = s->logits + (gsize) i * s->n_vocab;
    for (guint v = v0; v < v1; v++) {
      double p = d[v] < 0 ? d[v] + 1.0 : d[v];
      s->probability[v] += p;
      s->row_fisher[v] += p * (1 - p);
    }
  }
}

gboolean qz_head_backward (const QzSource *source, EngWorkers *workers, const float *f, guint n, guint64 seed, float *logits, float *df,
                           double *probability, double *row_fisher, GError **error)
{
  Softmax s = { logits, n, source->traits.n_vocab, seed, probability, row_fisher };
  if (!walk_head (source, workers, f, n, logits, NULL, error))
    return FALSE;
  eng_workers_run (workers, softmax_work, &s, n, 1);
  eng_workers_run (workers, sum_work, &s, (s.n_vocab + COLUMNS_PER_UNIT - 1) / COLUMNS_PER_UNIT, 1);
  return walk_head (source, workers, NULL, n, logits, df, error);
}
