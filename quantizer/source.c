/* source.c: finds the matrices of a llama-family checkpoint, checks that nothing in the file is left over, and reads rows. */
#include "quantizer/source.h"

#include "engine/error.h"

#include <stdio.h>
#include <string.h>

static const struct {
  const char *suffix;
  guint input;
} layer_matrices[QZ_LAYER_MATRICES] = {
  { "attn_q.weight", 0 },   { "attn_k.weight", 0 }, { "attn_v.weight", 0 },   { "attn_output.weight", 1 },
  { "ffn_gate.weight", 2 }, { "ffn_up.weight", 2 }, { "ffn_down.weight", 3 },
};

guint qz_source_layer_matrix (guint layer, QzRole role)
{
  return 1 + layer * QZ_LAYER_MATRICES + (role - QZ_ROLE_Q);
}

guint qz_source_layer_input (guint layer)
{
  return 1 + layer * QZ_LAYER_INPUTS;
}

guint qz_source_head (const QzSource *source)
{
  return source->traits.tied_head ? 0 : source->n_matrices - 1;
}

static gboolean add_matrix (QzSource *source, guint m, const char *name, QzRole role, guint layer, guint rows, guint cols, guint input,
                            GError **error)
{
  const EngTensor *tensor = eng_gguf_find_tensor (source->gguf, name);
  const char *path = eng_gguf_path (source->gguf);
  if (tensor == NULL) {
    g_set_error (error, ENG_ERROR, ENG_ERROR_FORMAT, "%s has no tensor %s, so the model is not complete: download it again", path, name);
    return FALSE;
  }
  if (!eng_tensor_is_readable (tensor)) {
    g_set_error (error, ENG_ERROR, ENG_ERROR_UNSUPPORTED, "the tensor %s of %s has type %s, which cannot be fitted: choose another file of this model",
                 name, path, eng_tensor_type_name (tensor));
    return FALSE;
  }
  if (tensor->n_dims != 2 || tensor->dims[0] != cols || tensor->dims[1] != rows) {
    g_set_error (error, ENG_ERROR, ENG_ERROR_FORMAT, "the tensor %s of %s is %" G_GUINT64_FORMAT " x %" G_GUINT64_FORMAT ", but its metadata says %u x %u",
                 name, path, tensor->dims[1], tensor->dims[0], rows, cols);
    return FALSE;
  }
  source->matrices[m] = (QzMatrix){ tensor->name, tensor, role, layer, rows, cols, input };
  source->input_cols[input] = cols;
  return TRUE;
}

static gboolean is_known_vector (const char *name)
{
  static const char *const suffixes[] = { "attn_norm.weight", "ffn_norm.weight", "attn_q.bias", "attn_k.bias", "attn_v.bias" };
  guint layer;
  int used = 0;
  if (g_str_equal (name, "output_norm.weight") || g_str_equal (name, "rope_freqs.weight"))
    return TRUE;
  if (sscanf (name, "blk.%u.%n", &layer, &used) != 1 || used == 0)
    return FALSE;
  for (guint i = 0; i < G_N_ELEMENTS (suffixes); i++)
    if (g_str_equal (name + used, suffixes[i]))
      return TRUE;
  return FALSE;
}

/* A matrix that no product of the graph uses would be lost without a word: refuse it instead. */
static gboolean check_nothing_left (const QzSource *source, GError **error)
{
  g_autoptr (GHashTable) known = g_hash_table_new (g_str_hash, g_str_equal);
  for (guint m = 0; m < source->n_matrices; m++)
    g_hash_table_add (known, (gpointer) source->matrices[m].name);
  for (guint i = 0; i < eng_gguf_n_tensors (source->gguf); i++) {
    const char *name = eng_gguf_tensor (source->gguf, i)->name;
    if (!g_hash_table_contains (known, name) && !is_known_vector (name)) {
      g_set_error (error, ENG_ERROR, ENG_ERROR_UNSUPPORTED, "the tensor %s of %s has no place in the graph of %s models, so it cannot be fitted",
                   name, eng_gguf_path (source->gguf), source->traits.architecture);
      return FALSE;
    }
  }
  return TRUE;
}

QzSource *qz_source_new (EngGguf *gguf, GError **error)
{
  if (eng_gguf_has (gguf, "valise.version")) {
    g_set_error (error, ENG_ERROR, ENG_ERROR_ARGUMENT, "%s is a fit already: fit the model it was made from instead", eng_gguf_path (gguf));
    return NULL;
  }
  g_autoptr (QzSource) source = g_new0 (QzSource, 1);
  source->gguf = eng_gguf_ref (gguf);
  if (!eng_traits_read (&source->traits, gguf, error))
    return NULL;
  const EngTraits *t = &source->traits;
  const char *beyond = eng_traits_beyond_llama (t);
  if (beyond != NULL) {
    g_set_error (error, ENG_ERROR, ENG_ERROR_UNSUPPORTED,
                 "%s is of architecture %s, whose decoder has %s: Valise can chat with it, but not fit it yet", eng_gguf_path (gguf), t->architecture,
                 beyond);
    return NULL;
  }
  guint q_rows = t->n_heads * t->head_dim, kv_rows = t->n_kv_heads * t->head_dim;
  const guint rows[QZ_LAYER_MATRICES] = { q_rows, kv_rows, kv_rows, t->n_embd, t->n_ff, t->n_ff, t->n_embd };
  const guint cols[QZ_LAYER_MATRICES] = { t->n_embd, t->n_embd, t->n_embd, q_rows, t->n_embd, t->n_embd, t->n_ff };
  source->n_matrices = 1 + t->n_layers * QZ_LAYER_MATRICES + (t->tied_head ? 0 : 1);
  source->n_inputs = 1 + t->n_layers * QZ_LAYER_INPUTS + (t->tied_head ? 0 : 1);
  source->matrices = g_new0 (QzMatrix, source->n_matrices);
  source->input_cols = g_new0 (guint, source->n_inputs);
  source->ffn_order = g_new0 (guint32 *, t->n_layers);

  if (!add_matrix (source, 0, "token_embd.weight", QZ_ROLE_EMBEDDING, 0, t->n_vocab, t->n_embd, 0, error))
    return NULL;
  for (guint l = 0; l < t->n_layers; l++)
    for (guint i = 0; i < QZ_LAYER_MATRICES; i++) {
      g_autofree char *name = g_strdup_printf ("blk.%u.%s", l, layer_matrices[i].suffix);
      if (!add_matrix (source, qz_source_layer_matrix (l, QZ_ROLE_Q) + i, name, QZ_ROLE_Q + i, l, rows[i], cols[i],
                       qz_source_layer_input (l) + layer_matrices[i].input, error))
        return NULL;
    }
  if (!t->tied_head
      && !add_matrix (source, source->n_matrices - 1, "output.weight", QZ_ROLE_HEAD, 0, t->n_vocab, t->n_embd, source->n_inputs - 1, error))
    return NULL;
  if (!check_nothing_left (source, error))
    return NULL;
  return g_steal_pointer (&source);
}

void qz_source_free (QzSource *source)
{
  if (source == NULL)
    return;
  eng_gguf_unref (source->gguf);
  g_free (source->matrices);
  g_free (source->input_cols);
  for (guint l = 0; source->ffn_order != NULL && l < source->traits.n_layers; l++)
    g_free (source->ffn_order[l]);
  g_free (source->ffn_order);
  g_free (source);
}

gboolean qz_source_set_ffn_order (QzSource *source, guint layer, const guint32 *order)
{
  guint n = source->traits.n_ff;
  g_autofree guint8 *seen = g_malloc0 (n);
  for (guint i = 0; i < n; i++) {
    if (order[i] >= n || seen[order[i]])
      return FALSE;
    seen[order[i]] = TRUE;
  }
  g_free (source->ffn_order[layer]);
  source->ffn_order[layer] = g_memdup2 (order, sizeof (guint32) * n);
  return TRUE;
}

/* x * 0 is 0 for every number, and NaN for an infinity or NaN. */
static gboolean all_finite (const float *x, gsize n)
{
  float sum = 0;
  for (gsize i = 0; i < n; i++)
    sum += x[i] * 0.0f;
  return sum == 0;
}

static void reorder_columns (const guint32 *order, float *rows, guint n, guint cols)
{
  g_autofree float *row = g_new (float, cols);
  for (guint r = 0; r < n; r++, rows += cols) {
    memcpy (row, rows, sizeof (float) * cols);
    for (guint j = 0; j < cols; j++)
      rows[j] = row[order[j]];
  }
}

gboolean qz_source_read_rows (const QzSource *source, guint matrix, guint row0, guint row1, float *out, GError **error)
{
  const QzMatrix *m = &source->matrices[matrix];
  gsize n = (gsize) (row1 - row0) * m->cols;
  gboolean of_ffn = m->role == QZ_ROLE_GATE || m->role == QZ_ROLE_UP || m->role == QZ_ROLE_DOWN;
  const guint32 *order = of_ffn ? source->ffn_order[m->layer] : NULL;
  if (order != NULL && m->role != QZ_ROLE_DOWN)
    for (guint r = row0; r < row1; r++)
      eng_tensor_read_rows (m->tensor, order[r], 1, out + (gsize) (r - row0) * m->cols);
  else
    eng_tensor_read_rows (m->tensor, row0, row1 - row0, out);
  if (order != NULL && m->role == QZ_ROLE_DOWN)
    reorder_columns (order, out, row1 - row0, m->cols);
  if (!all_finite (out, n)) {
    g_set_error (error, ENG_ERROR, ENG_ERROR_FORMAT, "the tensor %s of %s holds a weight that is not a finite number: download the model again", m->name,
                 eng_gguf_path (source->gguf));
    return FALSE;
  }
  return TRUE;
}

typedef struct {
  const QzSource *source;
  guint matrix, row0, row1;
  float *out;
  GError *error; /* the first one; under `lock` */
  GMutex lock;
} ReadWork;

enum { READ_ROWS = 64 };

static void read_work (gpointer data, guint begin, guint end, guint worker)
{
  ReadWork *work = data;
  const QzMatrix *m = &work->source->matrices[work->matrix];
  guint row0 = work->row0 + begin * READ_ROWS, row1 = MIN (work->row0 + end * READ_ROWS, work->row1);
  GError *error = NULL;
  if (!qz_source_read_rows (work->source, work->matrix, row0, row1, work->out + (gsize) (row0 - work->row0) * m->cols, &error)) {
    g_mutex_lock (&work->lock);
    if (work->error == NULL)
      work->error = g_steal_pointer (&error);
    g_mutex_unlock (&work->lock);
    g_clear_error (&error);
  }
}

gboolean qz_source_read_matrix (const QzSource *source, guint matrix, EngWorkers *workers, float *out, GError **error)
{
  return qz_source_read_range (source, matrix, 0, source->matrices[matrix].rows, workers, out, error);
}

gboolean qz_source_read_range (const QzSource *source, guint matrix, guint row0, guint row1, EngWorkers *workers, float *out, GError **error)
{
  ReadWork work = { source, matrix, row0, row1, out, NULL, { 0 } };
  g_mutex_init (&work.lock);
  eng_workers_run (workers, read_work, &work, (row1 - row0 + READ_ROWS - 1) / READ_ROWS, 1);
  g_mutex_clear (&work.lock);
  if (work.error != NULL) {
    g_propagate_error (error, work.error);
    return FALSE;
  }
  return TRUE;
}

gboolean qz_source_read_vector (const QzSource *source, const char *name, guint n, float *out, GError **error)
{
  const EngTensor *tensor = eng_gguf_find_tensor (source->gguf, name);
  const char *path = eng_gguf_path (source->gguf);
  if (tensor == NULL || !eng_tensor_is_readable (tensor) || tensor->dims[0] != n || tensor->n_dims != 1) {
    g_set_error (error, ENG_ERROR, ENG_ERROR_FORMAT, "%s should hold a vector %s of %u floating-point values", path, name, n);
    return FALSE;
  }
  eng_tensor_read_rows (tensor, 0, 1, out);
  if (!all_finite (out, n)) {
    g_set_error (error, ENG_ERROR, ENG_ERROR_FORMAT, "the tensor %s of %s holds a value that is not a finite number: download the model again", name, path);
    return FALSE;
  }
  return TRUE;
}
