/* source_read.c: rows and vectors of a checkpoint as f32, hidden channels of feed-forward units in the order they were given. */
#include "quantizer/source.h"

#include "engine/error.h"

#include <string.h>

enum { READ_ROWS = 64 /* shared out at a time */ };

/* x * 0 is 0 for every number, and NaN for an infinity or NaN. */
static gboolean all_finite (const float *x, gsize n)
{
  float sum = 0;
  for (gsize i = 0; i < n; i++)
    sum += x[i] * 0.0f;
  return sum == 0;
}

static gboolean check_finite (const QzSource *source, const EngTensor *tensor, const float *x, gsize n, GError **error)
{
  if (all_finite (x, n))
    return TRUE;
  g_set_error (error, ENG_ERROR, ENG_ERROR_FORMAT, "the tensor %s of %s holds a value that is not a finite number: download the model again",
               tensor->name, eng_gguf_path (source->gguf));
  return FALSE;
}

/* The order of the hidden channels that row r of a matrix has for columns, or whose rows it is one of; NULL: none, or as they are. */
static const guint32 *order_at (const QzSource *source, const QzMatrix *m, guint r)
{
  if (m->unit == QZ_NONE || source->units[m->unit].order == NULL)
    return NULL;
  const QzUnit *unit = &source->units[m->unit];
  return unit->order + (gsize) (r / (m->rows / unit->n_experts)) * unit->n_ff;
}

/* Where the row that is read as r lies. */
static guint stored_row (const QzSource *source, const QzMatrix *m, guint r)
{
  const guint32 *order = m->role == QZ_ROLE_DOWN ? NULL : order_at (source, m, r);
  if (order == NULL)
    return r;
  guint n_ff = source->units[m->unit].n_ff;
  return r / n_ff * n_ff + order[r % n_ff];
}

static void reorder_columns (const guint32 *order, float *row, guint cols, float *scratch)
{
  memcpy (scratch, row, sizeof (float) * cols);
  for (guint j = 0; j < cols; j++)
    row[j] = scratch[order[j]];
}

gboolean qz_source_read_rows (const QzSource *source, guint matrix, guint row0, guint row1, float *out, GError **error)
{
  const QzMatrix *m = &source->matrices[matrix];
  if (source->rows != NULL)
    return source->rows (source->rows_data, matrix, row0, row1, out, error);
  gboolean ordered = m->unit != QZ_NONE && source->units[m->unit].order != NULL;
  if (!ordered || m->role == QZ_ROLE_DOWN) {
    eng_tensor_read_rows (m->tensor, row0, row1 - row0, out);
  } else {
    for (guint r = row0; r < row1; r++)
      eng_tensor_read_rows (m->tensor, stored_row (source, m, r), 1, out + (gsize) (r - row0) * m->cols);
  }
  if (ordered && m->role == QZ_ROLE_DOWN) {
    g_autofree float *scratch = g_new (float, m->cols);
    for (guint r = row0; r < row1; r++)
      reorder_columns (order_at (source, m, r), out + (gsize) (r - row0) * m->cols, m->cols, scratch);
  }
  return check_finite (source, m->tensor, out, (gsize) (row1 - row0) * m->cols, error);
}

typedef struct {
  const QzSource *source;
  guint matrix, row0, row1;
  float *out;
  GError *error; /* the first one; under `lock` */
  GMutex lock;
} ReadWork;

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

/* The unit whose hidden channels a vector has a value for each of, or NULL. */
static const QzUnit *unit_of_vector (const QzSource *source, const char *name)
{
  static const char *const plain[] = { "ffn_gate.bias", "ffn_up.bias", "ffn_sub_norm.weight", "ffn_sub_norm.bias" };
  static const char *const experts[] = { "ffn_gate_exps.bias", "ffn_up_exps.bias" };
  if (!g_str_has_prefix (name, "blk."))
    return NULL;
  guint64 layer = g_ascii_strtoull (name + 4, NULL, 10);
  const char *suffix = strchr (name + 4, '.');
  for (guint u = 0; suffix != NULL && u < source->n_units; u++) {
    const QzUnit *unit = &source->units[u];
    const char *const *names = unit->is_mixture ? experts : plain;
    for (guint i = 0; unit->layer == layer && i < (unit->is_mixture ? G_N_ELEMENTS (experts) : G_N_ELEMENTS (plain)); i++)
      if (g_str_equal (suffix + 1, names[i]))
        return unit;
  }
  return NULL;
}

gboolean qz_source_read_vector (const QzSource *source, const EngTensor *tensor, float *out, GError **error)
{
  gsize n = (gsize) tensor->dims[0] * eng_tensor_n_rows (tensor);
  if (!eng_tensor_is_readable (tensor)) {
    g_set_error (error, ENG_ERROR, ENG_ERROR_UNSUPPORTED, "the tensor %s of %s has type %s, which cannot be read: choose another file of this model",
                 tensor->name, eng_gguf_path (source->gguf), eng_tensor_type_name (tensor));
    return FALSE;
  }
  eng_tensor_read_rows (tensor, 0, eng_tensor_n_rows (tensor), out);
  const QzUnit *unit = unit_of_vector (source, tensor->name);
  if (unit != NULL && unit->order != NULL && n % ((gsize) unit->n_experts * unit->n_ff) == 0) {
    g_autofree float *scratch = g_new (float, unit->n_ff);
    for (gsize at = 0; at < n; at += unit->n_ff)
      reorder_columns (unit->order + at / (n / unit->n_experts) * unit->n_ff, out + at, unit->n_ff, scratch);
  }
  return check_finite (source, tensor, out, n, error);
}
