/* rotate.c: the same model with its stream, and the values of its heads, in other coordinates. With n the normed stream without the norm's gain g, W the
 * weights of a product and R the rotation: W (g . n) = (W g R) (R^T n), and what is added to the stream, R^T y = (R^T W) x. */
#include "quantizer/spin.h"

#include "engine/error.h"
#include "kernels/ops.h"
#include "quantizer/layer.h"
#include "quantizer/product.h"
#include "quantizer/rotation.h"

#include <string.h>

enum { ALIGNMENT = 64, ROWS_AT_ONCE = 2048 };

static const char rotation_name[] = "stream_rotation.weight";

typedef struct {
  const QzSource *source;
  const QzRotations *rotations;
  const EngTraits *traits;
  EngWorkers *workers;
  GCancellable *cancellable;
  guint type;
  EngGgufWriter *writer;
  QzLayerWeights weights; /* the vectors of one layer */
  guint layer;            /* ... of this one, or QZ_NONE */
} Rotator;

static gboolean refuse (const QzSource *source, const char *why, GError **error)
{
  g_set_error (error, ENG_ERROR, ENG_ERROR_UNSUPPORTED, "%s cannot be rotated: %s; hadamard rotates what each product takes instead",
               eng_gguf_path (source->gguf), why);
  return FALSE;
}

gboolean qz_rotate_check (const QzSource *source, GError **error)
{
  const EngTraits *t = &source->traits;
  if (source->rotation != NULL)
    return refuse (source, "it is rotated already", error);
  if (t->layer_norm)
    return refuse (source, "its norms take the mean of the stream away, which is another one in other coordinates", error);
  if (t->post_norm || t->no_pre_norm)
    return refuse (source, "what its layers add to the stream is normed with a gain for each channel, which cannot be folded into weights", error);
  for (guint l = 0; l < t->n_layers; l++) {
    g_autofree char *attention = g_strdup_printf ("blk.%u.attn_norm.bias", l), *fed = g_strdup_printf ("blk.%u.ffn_norm.bias", l);
    if (eng_gguf_find_tensor (source->gguf, attention) != NULL || eng_gguf_find_tensor (source->gguf, fed) != NULL)
      return refuse (source, "its norms have biases", error);
  }
  return TRUE;
}

/* ---- weights ------------------------------------------------------------------------------------------------------------- */

/* The gain that the products of this input are normed with, which goes into them; NULL: not of the stream, or 1. */
static const float *gain_of (const Rotator *r, const QzMatrix *m)
{
  const QzLayer *layer = &r->source->layers[m->layer];
  const QzNorm *norm = m->input == layer->attn_input ? &r->weights.attn_norm : qz_feed_forward_norm (r->traits, &r->weights);
  return norm->gain;
}

static gboolean reads_stream (const Rotator *r, const QzMatrix *m)
{
  if (m->role == QZ_ROLE_EMBEDDING || m->role == QZ_ROLE_HEAD)
    return FALSE;
  return m->input == r->source->layers[m->layer].attn_input || m->input == r->source->layers[m->layer].ffn_input;
}

/* rows [n][n_embd] of what multiplies the normed stream, in place; spare as large. */
static void rotate_readers (const Rotator *r, const float *gain, guint n, float *rows, float *spare)
{
  guint embd = r->traits->n_embd;
  for (gsize i = 0; gain != NULL && i < (gsize) n * embd; i++)
    rows[i] *= gain[i % embd];
  qz_rotate_rows (r->workers, FALSE, n, embd, rows, r->rotations->stream, spare);
  memcpy (rows, spare, sizeof (float) * n * embd);
}

/* w [n_embd][cols] of what is added to the stream, in place: R^T w. */
static void rotate_writers (const Rotator *r, guint cols, float *w, float *spare)
{
  guint embd = r->traits->n_embd;
  qz_product_exact (r->workers, true, false, embd, cols, embd, r->rotations->stream, embd, w, cols, 0, spare, cols);
  memcpy (w, spare, sizeof (float) * embd * cols);
}

/* w [n_heads * value_dim][cols], the rows of each head's values, in place: R2^T of each. */
static void rotate_values (const Rotator *r, guint layer, guint n_heads, guint cols, float *w, float *spare)
{
  guint dim = r->traits->value_dim;
  if (r->rotations->heads == NULL)
    return;
  const float *rotation = r->rotations->heads + (gsize) layer * dim * dim;
  for (guint h = 0; h < n_heads; h++)
    qz_product_exact (r->workers, true, false, dim, cols, dim, rotation, dim, w + (gsize) h * dim * cols, cols, 0, spare + (gsize) h * dim * cols, cols);
  memcpy (w, spare, sizeof (float) * n_heads * dim * cols);
}

/* Rows of values among those of a matrix, or a bias, of queries, keys and values. */
static guint first_value (const Rotator *r, gboolean fused)
{
  return fused ? (r->traits->n_heads + r->traits->n_kv_heads) * r->traits->head_dim : 0;
}

/* n rows of matrix m: an expert's of those that write into the stream, all of what holds values. */
static void rotate_matrix (const Rotator *r, const QzMatrix *m, guint n, float *rows, float *spare)
{
  const EngTraits *t = r->traits;
  if (reads_stream (r, m))
    rotate_readers (r, gain_of (r, m), n, rows, spare);
  if (m->role == QZ_ROLE_V || m->role == QZ_ROLE_QKV)
    rotate_values (r, m->layer, t->n_kv_heads, m->cols, rows + (gsize) first_value (r, m->role == QZ_ROLE_QKV) * m->cols, spare);
  if (m->role == QZ_ROLE_OUTPUT && r->rotations->heads != NULL) {
    qz_rotate_rows (r->workers, FALSE, n * t->n_heads, t->value_dim, rows, r->rotations->heads + (gsize) m->layer * t->value_dim * t->value_dim, spare);
    memcpy (rows, spare, sizeof (float) * n * m->cols);
  }
  if (m->role == QZ_ROLE_OUTPUT || m->role == QZ_ROLE_DOWN)
    rotate_writers (r, m->cols, rows, spare);
}

/* How many of its rows are rotated together. */
static guint rows_together (const Rotator *r, const QzMatrix *m)
{
  if (m->role == QZ_ROLE_OUTPUT || m->role == QZ_ROLE_DOWN)
    return r->traits->n_embd;
  return m->role == QZ_ROLE_V || m->role == QZ_ROLE_QKV ? m->rows : MIN (m->rows, ROWS_AT_ONCE);
}

static gboolean write_floats (const Rotator *r, guint number, guint type, gsize at, gsize n, const float *x, GError **error)
{
  if (type == ENG_TYPE_F32)
    return eng_gguf_writer_write (r->writer, number, at * sizeof (float), x, n * sizeof (float), error);
  g_autofree guint16 *halves = g_new (guint16, n);
  xb_f32_to_f16 (x, halves, n);
  return eng_gguf_writer_write (r->writer, number, at * sizeof (guint16), halves, n * sizeof (guint16), error);
}

static gboolean write_matrix (const Rotator *r, guint number, guint matrix, GError **error)
{
  const QzMatrix *m = &r->source->matrices[matrix];
  guint together = rows_together (r, m), n;
  g_autofree float *rows = g_new (float, (gsize) together * m->cols), *spare = g_new (float, (gsize) together * m->cols);
  for (guint row = 0; row < m->rows; row += n) {
    n = MIN (together, m->rows - row);
    if (g_cancellable_is_cancelled (r->cancellable)) {
      g_set_error (error, ENG_ERROR, ENG_ERROR_CANCELLED, "it was cancelled; nothing was written");
      return FALSE;
    }
    if (!qz_source_read_range (r->source, matrix, row, row + n, r->workers, rows, error))
      return FALSE;
    rotate_matrix (r, m, n, rows, spare);
    if (!write_floats (r, number, r->type, (gsize) row * m->cols, (gsize) n * m->cols, rows, error))
      return FALSE;
  }
  eng_gguf_drop_tensor (r->source->gguf, m->tensor);
  return TRUE;
}

/* ---- vectors ------------------------------------------------------------------------------------------------------------- */

/* x [n] of blk.LAYER.NAME. */
static void rotate_vector (const Rotator *r, const char *name, gsize n, float *x)
{
  static const char *const gains[] = { "attn_norm.weight", "attn_norm_2.weight", "ffn_norm.weight", "post_attention_norm.weight", NULL };
  static const char *const readers[] = { "ffn_gate_inp.weight", "ffn_gate_inp_shexp.weight", NULL };
  static const char *const writers[] = { "attn_output.bias", "ffn_down.bias", "ffn_down_exps.bias", NULL };
  guint embd = r->traits->n_embd;
  g_autofree float *spare = g_new (float, n);
  if (g_strv_contains (gains, name)) {
    for (gsize i = 0; i < n; i++)
      x[i] = 1;
  } else if (g_strv_contains (readers, name)) {
    rotate_readers (r, qz_feed_forward_norm (r->traits, &r->weights)->gain, n / embd, x, spare);
  } else if (g_strv_contains (writers, name)) {
    qz_rotate_rows (r->workers, FALSE, n / embd, embd, x, r->rotations->stream, spare);
    memcpy (x, spare, sizeof (float) * n);
  } else if (g_str_equal (name, "attn_v.bias") || g_str_equal (name, "attn_qkv.bias")) {
    rotate_values (r, r->layer, r->traits->n_kv_heads, 1, x + first_value (r, g_str_equal (name, "attn_qkv.bias")), spare);
  }
}

static gboolean write_vector (const Rotator *r, guint number, const EngTensor *tensor, GError **error)
{
  gsize n = (gsize) tensor->dims[0] * eng_tensor_n_rows (tensor);
  g_autofree float *x = g_new (float, n);
  if (!qz_source_read_vector (r->source, tensor, x, error))
    return FALSE;
  if (g_str_has_prefix (tensor->name, "blk."))
    rotate_vector (r, strchr (tensor->name + 4, '.') + 1, n, x);
  return write_floats (r, number, ENG_TYPE_F32, 0, n, x, error);
}

/* ---- the file ------------------------------------------------------------------------------------------------------------ */

/* The layer's vectors, for its gains. */
static gboolean enter_layer (Rotator *r, const EngTensor *tensor, GError **error)
{
  guint layer = g_str_has_prefix (tensor->name, "blk.") ? (guint) g_ascii_strtoull (tensor->name + 4, NULL, 10) : QZ_NONE;
  if (layer == QZ_NONE || layer == r->layer)
    return TRUE;
  r->layer = layer;
  return qz_layer_weights_read_vectors (&r->weights, r->source, layer, error);
}

static gboolean write_tensors (Rotator *r, const guint *numbers, guint rotation, const char *path, GError **error)
{
  EngGguf *gguf = r->source->gguf;
  guint64 embd = r->traits->n_embd;
  if (!eng_gguf_writer_begin (r->writer, path, error))
    return FALSE;
  for (guint i = 0; i < eng_gguf_n_tensors (gguf); i++) {
    const EngTensor *tensor = eng_gguf_tensor (gguf, i);
    guint m = qz_source_matrix_of (r->source, tensor);
    if (numbers[i] != QZ_NONE
        && (!enter_layer (r, tensor, error) || !(m != QZ_NONE ? write_matrix (r, numbers[i], m, error) : write_vector (r, numbers[i], tensor, error))))
      return FALSE;
  }
  return write_floats (r, rotation, ENG_TYPE_F32, 0, embd * embd, r->rotations->stream, error) && eng_gguf_writer_finish (r->writer, error);
}

gboolean qz_rotate_write (const QzSource *source, const QzRotations *rotations, guint type, const char *path, EngWorkers *workers, GCancellable *cancellable,
                          GError **error)
{
  EngGguf *gguf = source->gguf;
  guint n = eng_gguf_n_tensors (gguf);
  const guint64 square[] = { source->traits.n_embd, source->traits.n_embd };
  g_autoptr (EngGgufWriter) writer = eng_gguf_writer_new (ALIGNMENT);
  g_autofree guint *numbers = g_new (guint, n);
  Rotator r = { source, rotations, &source->traits, workers, cancellable, type, writer, { 0 }, QZ_NONE };
  if (!qz_rotate_check (source, error) || !qz_layer_weights_init (&r.weights, source, error))
    return FALSE;
  eng_gguf_writer_copy_metadata (writer, gguf);
  for (guint i = 0; i < n; i++) {
    const EngTensor *tensor = eng_gguf_tensor (gguf, i);
    guint as = qz_source_matrix_of (source, tensor) != QZ_NONE ? type : ENG_TYPE_F32;
    numbers[i] = qz_source_is_beyond (source, tensor->name) ? QZ_NONE : eng_gguf_writer_add_tensor (writer, tensor->name, as, tensor->n_dims, tensor->dims);
  }
  guint rotation = eng_gguf_writer_add_tensor (writer, rotation_name, ENG_TYPE_F32, 2, square);
  gboolean ok = write_tensors (&r, numbers, rotation, path, error);
  qz_layer_weights_clear (&r.weights);
  return ok;
}
