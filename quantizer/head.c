/* head.c: logits, labels and their gradient. The head is read again for each batch, some rows at a time, never held whole. */
#include "quantizer/head.h"

#include "engine/activation.h"
#include "engine/error.h"
#include "kernels/ops.h"
#include "quantizer/product.h"
#include "quantizer/transform.h"

#include <math.h>
#include <string.h>

enum { VOCABULARY_ROWS = 4096 };

gboolean qz_stream_norm_read (const QzSource *source, const char *name, QzNorm *norm, float **memory, GError **error)
{
  const EngTraits *t = &source->traits;
  g_autofree char *gain_name = g_strconcat (name, ".weight", NULL), *bias_name = g_strconcat (name, ".bias", NULL);
  const EngTensor *tensors[2] = { eng_gguf_find_tensor (source->gguf, gain_name), eng_gguf_find_tensor (source->gguf, bias_name) };
  *memory = g_new0 (float, 2 * t->n_embd);
  *norm = (QzNorm){ tensors[0] != NULL ? *memory : NULL, tensors[1] != NULL ? *memory + t->n_embd : NULL, t->layer_norm, t->norm_eps };
  for (guint i = 0; i < 2; i++) {
    gboolean ok = tensors[i] == NULL || (tensors[i]->dims[0] == t->n_embd && tensors[i]->n_dims == 1);
    if (!ok)
      g_set_error (error, ENG_ERROR, ENG_ERROR_FORMAT, "the tensor %s of %s has not %u values: download the model again", tensors[i]->name,
                   eng_gguf_path (source->gguf), t->n_embd);
    if (!ok || (tensors[i] != NULL && !qz_source_read_vector (source, tensors[i], *memory + i * t->n_embd, error))) {
      g_clear_pointer (memory, g_free);
      return FALSE;
    }
  }
  return TRUE;
}

/* The head's rows as f32, in turn. */
typedef struct {
  const QzSource *source;
  EngWorkers *workers;
  const QzMatrix *matrix;
  guint number, row0, rows;
  float *w; /* [VOCABULARY_ROWS][cols] */
} Walk;

static void walk_begin (Walk *walk, const QzSource *source, EngWorkers *workers)
{
  guint head = qz_source_head (source);
  *walk = (Walk){ source, workers, &source->matrices[head], head };
  walk->w = g_new (float, (gsize) MIN (VOCABULARY_ROWS, walk->matrix->rows) * walk->matrix->cols);
}

/* FALSE at the end, or with *error set. */
static gboolean walk_next (Walk *walk, GError **error)
{
  const QzMatrix *m = walk->matrix;
  eng_gguf_drop_rows (walk->source->gguf, m->tensor, walk->row0, walk->rows);
  walk->row0 += walk->rows;
  walk->rows = MIN (VOCABULARY_ROWS, m->rows - walk->row0);
  return walk->rows > 0 && qz_source_read_range (walk->source, walk->number, walk->row0, walk->row0 + walk->rows, walk->workers, walk->w, error);
}

static float logit_scale (const EngTraits *t)
{
  return t->logit_scale > 0 ? t->logit_scale : 1;
}

typedef struct {
  const EngTraits *traits;
  const float *bias; /* or NULL */
  float *logits;
  guint n_vocab;
} Finish;

/* A row of products becomes one of logits. */
static void finish_row (const Finish *f, float *row)
{
  if (f->bias != NULL)
    xb_add (row, f->bias, f->n_vocab);
  if (f->traits->logit_scale > 0 || f->traits->logit_soft_cap > 0)
    eng_cap (row, logit_scale (f->traits), f->traits->logit_soft_cap, f->n_vocab);
}

static void finish_work (gpointer data, guint begin, guint end, guint worker)
{
  const Finish *f = data;
  for (guint i = begin; i < end; i++)
    finish_row (f, f->logits + (gsize) i * f->n_vocab);
}

static gboolean read_bias (const QzSource *source, float **bias, GError **error)
{
  const EngTensor *tensor = eng_gguf_find_tensor (source->gguf, "output.bias");
  *bias = NULL;
  if (tensor == NULL)
    return TRUE;
  if (tensor->dims[0] != source->traits.n_vocab || tensor->n_dims != 1) {
    g_set_error (error, ENG_ERROR, ENG_ERROR_FORMAT, "the tensor output.bias of %s has not a value for each token: download it again",
                 eng_gguf_path (source->gguf));
    return FALSE;
  }
  *bias = g_new (float, source->traits.n_vocab);
  return qz_source_read_vector (source, tensor, *bias, error);
}

/* The products out [n][n_vocab] of in [n][n_embd]; or, backward, the gradients out [n][n_embd] from those at the products, in [n][n_vocab]. */
static gboolean multiply (const QzSource *source, EngWorkers *workers, gboolean backward, const float *in, guint n, float *out, GError **error)
{
  Walk walk;
  GError *local = NULL;
  walk_begin (&walk, source, workers);
  guint cols = walk.matrix->cols, n_vocab = walk.matrix->rows;
  while (walk_next (&walk, &local))
    if (backward)
      qz_product (workers, false, false, n, cols, walk.rows, in + walk.row0, n_vocab, walk.w, cols, walk.row0 > 0, out, cols);
    else
      qz_product (workers, false, true, n, walk.rows, cols, in, cols, walk.w, cols, 0, out + walk.row0, n_vocab);
  g_free (walk.w);
  if (local != NULL)
    g_propagate_error (error, local);
  return local == NULL;
}

gboolean qz_head_logits (const QzSource *source, EngWorkers *workers, const float *f, guint n, float *logits, GError **error)
{
  g_autofree float *bias = NULL;
  if (!read_bias (source, &bias, error) || !multiply (source, workers, FALSE, f, n, logits, error))
    return FALSE;
  eng_workers_run (workers, finish_work, &(Finish){ &source->traits, bias, logits, source->traits.n_vocab }, n, 1);
  return TRUE;
}

/* ---- backward ------------------------------------------------------------------------------------------------------------ */

typedef struct {
  const EngTraits *traits;
  const QzLabels *labels;
  float *logits;
  float *log_sum; /* [n] */
  guint n, n_vocab;
} Softmax;

/* One unit is one state: logits become p. */
static void softmax_work (gpointer data, guint begin, guint end, guint worker)
{
  const Softmax *s = data;
  for (guint i = begin; i < end; i++)
    s->log_sum[i] = xb_softmax (s->logits + (gsize) i * s->n_vocab, s->n_vocab);
}

/* Of the gradient at the logit, that at the product: times the scale s and, with c = logit / cap, 1 - c^2. */
static double slope_at (const Softmax *s, guint i, double p)
{
  double cap = s->traits->logit_soft_cap, scale = logit_scale (s->traits);
  double c = cap > 0 && p > 0 ? (log (p) + s->log_sum[i]) / cap : 0;
  return scale * MAX (0, 1 - c * c);
}

enum { COLUMNS_PER_UNIT = 1024 };

/* One unit is a stretch of the vocabulary, summed over states in order. */
static void sum_work (gpointer data, guint begin, guint end, guint worker)
{
  const Softmax *s = data;
  guint v0 = begin * COLUMNS_PER_UNIT, v1 = MIN (end * COLUMNS_PER_UNIT, s->n_vocab);
  for (guint i = 0; i < s->n; i++) {
    const float *p = s->logits + (gsize) i * s->n_vocab;
    for (guint v = v0; v < v1; v++) {
      double slope = slope_at (s, i, p[v]);
      s->labels->probability[v] += p[v];
      s->labels->row_fisher[v] += p[v] * (1.0 - p[v]) * slope * slope;
    }
  }
}

/* p becomes e sqrt (p) - p sum e sqrt (p), e random signs: E d d^T = diag (p) - p p^T, as of p - onehot (label), but no state's square hangs on one unlikely label. */
static void sketch (float *p, guint n, guint64 seed)
{
  guint64 state = seed, signs = 0;
  double sum = 0;
  for (guint v = 0; v < n; v++) {
    signs = v % 64 == 0 ? qz_random_next (&state) : signs >> 1;
    p[v] = signs & 1 ? -sqrtf (p[v]) : sqrtf (p[v]);
    sum += p[v];
  }
  for (guint v = 0; v < n; v++)
    p[v] -= p[v] * p[v] * (float) sum;
}

/* One unit is one state: p becomes the gradient at the products. */
static void gradient_work (gpointer data, guint begin, guint end, guint worker)
{
  const Softmax *s = data;
  const EngTraits *t = s->traits;
  g_autofree float *slope = t->logit_soft_cap > 0 ? g_new (float, s->n_vocab) : NULL;
  for (guint i = begin; i < end; i++) {
    float *d = s->logits + (gsize) i * s->n_vocab;
    for (guint v = 0; slope != NULL && v < s->n_vocab; v++)
      slope[v] = slope_at (s, i, d[v]);
    if (s->labels->labels != NULL)
      d[s->labels->labels[i]] -= 1;
    else
      sketch (d, s->n_vocab, s->labels->seed + i);
    for (guint v = 0; slope != NULL && v < s->n_vocab; v++)
      d[v] *= slope[v];
    if (slope == NULL && t->logit_scale > 0)
      xb_scale (d, t->logit_scale, s->n_vocab);
  }
}

gboolean qz_head_backward (const QzSource *source, EngWorkers *workers, const float *f, guint n, const QzLabels *labels, float *logits, float *df,
                           GError **error)
{
  g_autofree float *log_sum = g_new (float, n);
  Softmax s = { &source->traits, labels, logits, log_sum, n, source->traits.n_vocab };
  if (!qz_head_logits (source, workers, f, n, logits, error))
    return FALSE;
  eng_workers_run (workers, softmax_work, &s, n, 1);
  eng_workers_run (workers, sum_work, &s, (s.n_vocab + COLUMNS_PER_UNIT - 1) / COLUMNS_PER_UNIT, 1);
  eng_workers_run (workers, gradient_work, &s, n, 1);
  return multiply (source, workers, TRUE, logits, n, df, error);
}

/* ---- towards another model's distribution -------------------------------------------------------------------------------- */

typedef struct {
  Finish finish;         /* of the student */
  const float *products; /* [n][n_vocab] the student's */
  float *d;              /* [n][n_vocab] the teacher's logits, and then the gradient at the products */
  float *rows;           /* [workers][2][n_vocab] */
  double *kl;            /* [n] or NULL */
  float *slope;          /* [n_vocab] */
  guint n;
} Distil;

/* One unit is one state. KL (p || q) = sum p (a - b) - log sum e^a + log sum e^b of logits a and b; its gradient at b is q - p. */
static void distil_work (gpointer data, guint begin, guint end, guint worker)
{
  const Distil *s = data;
  const EngTraits *t = s->finish.traits;
  guint n_vocab = s->finish.n_vocab;
  float cap = t->logit_soft_cap, scale = logit_scale (t), *p = s->rows + (gsize) 2 * worker * n_vocab, *q = p + n_vocab;
  for (guint i = begin; i < end; i++) {
    float *d = s->d + (gsize) i * n_vocab;
    double sum = 0;
    memcpy (p, d, sizeof (float) * n_vocab);
    double log_p = xb_softmax (p, n_vocab);
    memcpy (q, s->products + (gsize) i * n_vocab, sizeof (float) * n_vocab);
    finish_row (&s->finish, q);
    for (guint v = 0; v < n_vocab; v++) {
      float b = q[v], slope = cap > 0 ? scale * MAX (0, 1 - b / cap * (b / cap)) : scale;
      sum += p[v] * (d[v] - b);
      d[v] = slope;
    }
    double log_q = xb_softmax (q, n_vocab);
    if (s->kl != NULL)
      s->kl[i] = MAX (0, sum - log_p + log_q);
    for (guint v = 0; v < n_vocab; v++)
      d[v] *= q[v] - p[v];
  }
}

/* One unit is a stretch of the vocabulary, summed over states in order. */
static void distil_slope_work (gpointer data, guint begin, guint end, guint worker)
{
  const Distil *s = data;
  guint v0 = begin * COLUMNS_PER_UNIT, v1 = MIN (end * COLUMNS_PER_UNIT, s->finish.n_vocab);
  for (guint i = 0; i < s->n; i++) {
    const float *d = s->d + (gsize) i * s->finish.n_vocab, *y = s->products + (gsize) i * s->finish.n_vocab;
    for (guint v = v0; v < v1; v++)
      s->slope[v] += d[v] * y[v];
  }
}

gboolean qz_head_distil (const QzSource *student, const QzSource *teacher, EngWorkers *workers, const float *f, const float *taught, guint n, float *scratch,
                         float *slope, double *kl, float *df, GError **error)
{
  guint n_vocab = student->traits.n_vocab;
  float *products = scratch + (gsize) n * n_vocab;
  g_autofree float *bias = NULL, *rows = g_new (float, (gsize) 2 * eng_workers_count (workers) * n_vocab);
  if (!read_bias (student, &bias, error) || !qz_head_logits (teacher, workers, taught, n, scratch, error)
      || !multiply (student, workers, FALSE, f, n, products, error))
    return FALSE;
  Distil s = { { &student->traits, bias, NULL, n_vocab }, products, scratch, rows, kl, slope, n };
  eng_workers_run (workers, distil_work, &s, n, 1);
  eng_workers_run (workers, distil_slope_work, &s, (n_vocab + COLUMNS_PER_UNIT - 1) / COLUMNS_PER_UNIT, 1);
  return multiply (student, workers, TRUE, scratch, n, df, error);
}
