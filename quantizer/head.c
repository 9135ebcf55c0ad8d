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

static void finish_work (gpointer data, guint begin, guint end, guint worker)
{
  const Finish *f = data;
  for (guint i = begin; i < end; i++) {
    float *row = f->logits + (gsize) i * f->n_vocab;
    if (f->bias != NULL)
      xb_add (row, f->bias, f->n_vocab);
    if (f->traits->logit_scale > 0 || f->traits->logit_soft_cap > 0)
      eng_cap (row, logit_scale (f->traits), f->traits->logit_soft_cap, f->n_vocab);
  }
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

gboolean qz_head_logits (const QzSource *source, EngWorkers *workers, const float *f, guint n, float *logits, GError **error)
{
  Walk walk;
  GError *local = NULL;
  g_autofree float *bias = NULL;
  if (!read_bias (source, &bias, error))
    return FALSE;
  walk_begin (&walk, source, workers);
  guint cols = walk.matrix->cols, n_vocab = walk.matrix->rows;
  while (walk_next (&walk, &local))
    qz_product (workers, false, true, n, walk.rows, cols, f, cols, walk.w, cols, 0, logits + walk.row0, n_vocab);
  g_free (walk.w);
  if (local != NULL) {
    g_propagate_error (error, local);
    return FALSE;
  }
  eng_workers_run (workers, finish_work, &(Finish){ &source->traits, bias, logits, n_vocab }, n, 1);
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

static guint draw (const float *p, guint n, guint64 seed)
{
  guint64 state = seed;
  double u = qz_random_unit (&state), sum = 0;
  for (guint v = 0; v < n; v++) {
    sum += p[v];
    if (sum > u)
      return v;
  }
  return xb_argmax (p, n); /* rounding may leave the sum a little under u */
}

/* One unit is one state: logits become p - onehot (label). */
static void softmax_work (gpointer data, guint begin, guint end, guint worker)
{
  const Softmax *s = data;
  for (guint i = begin; i < end; i++) {
    float *p = s->logits + (gsize) i * s->n_vocab;
    s->log_sum[i] = xb_softmax (p, s->n_vocab);
    p[s->labels->labels != NULL ? (guint) s->labels->labels[i] : draw (p, s->n_vocab, s->labels->seed + i)] -= 1;
  }
}

enum { COLUMNS_PER_UNIT = 1024 };

/* One unit is a stretch of the vocabulary, summed over states in order. p comes back from p - onehot: 1 was taken only where negative. What
 * is left in the logits is the gradient at the product: times the scale s and, with c = logit / cap, 1 - c^2. */
static void gradient_work (gpointer data, guint begin, guint end, guint worker)
{
  const Softmax *s = data;
  guint v0 = begin * COLUMNS_PER_UNIT, v1 = MIN (end * COLUMNS_PER_UNIT, s->n_vocab);
  float cap = s->traits->logit_soft_cap, scale = logit_scale (s->traits);
  for (guint i = 0; i < s->n; i++) {
    float *d = s->logits + (gsize) i * s->n_vocab;
    for (guint v = v0; v < v1; v++) {
      double p = d[v] < 0 ? d[v] + 1.0 : d[v], slope = scale;
      if (cap > 0 && p > 0) {
        double c = (log (p) + s->log_sum[i]) / cap;
        slope *= MAX (0, 1 - c * c);
      }
      s->labels->probability[v] += p;
      s->labels->row_fisher[v] += p * (1 - p) * slope * slope;
      d[v] *= slope;
    }
  }
}

gboolean qz_head_backward (const QzSource *source, EngWorkers *workers, const float *f, guint n, const QzLabels *labels, float *logits, float *df,
                           GError **error)
{
  Walk walk;
  GError *local = NULL;
  g_autofree float *log_sum = g_new (float, n);
  Softmax s = { &source->traits, labels, logits, log_sum, n, source->traits.n_vocab };
  if (!qz_head_logits (source, workers, f, n, logits, error))
    return FALSE;
  eng_workers_run (workers, softmax_work, &s, n, 1);
  eng_workers_run (workers, gradient_work, &s, (s.n_vocab + COLUMNS_PER_UNIT - 1) / COLUMNS_PER_UNIT, 1);
  walk_begin (&walk, source, workers);
  guint cols = walk.matrix->cols;
  while (walk_next (&walk, &local))
    qz_product (workers, false, false, n, cols, walk.rows, logits + walk.row0, s.n_vocab, walk.w, cols, walk.row0 > 0, df, cols);
  g_free (walk.w);
  if (local == NULL)
    return TRUE;
  g_propagate_error (error, local);
  return FALSE;
}
