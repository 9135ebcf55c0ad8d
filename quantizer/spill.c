/* spill.c: a row is its scale, a power of two, and the values over it as f16. */
#include "quantizer/spill.h"

#include "kernels/xbit.h"

#include <math.h>
#include <string.h>

enum { ROWS_PER_UNIT = 64, LARGEST = 8 /* exponent of the largest value over its scale */ };

gsize qz_spill_row_bytes (guint cols)
{
  return sizeof (float) + ((gsize) cols + 1) / 2 * 2 * sizeof (guint16);
}

typedef struct {
  QzStore *store;
  guint64 offset;
  const float *in;
  float *out;
  gsize n;
  guint cols;
  GError *error; /* the first one; under `lock` */
  GMutex lock;
} Spill;

static void row_to_bytes (const float *x, guint cols, guint8 *bytes, float *scratch)
{
  float largest = 0, scale = 1;
  for (guint j = 0; j < cols; j++)
    largest = MAX (largest, fabsf (x[j]));
  if (largest > 0 && isfinite (largest)) {
    int exponent;
    frexpf (largest, &exponent);
    scale = ldexpf (1, CLAMP (exponent - LARGEST, -126, 126));
  }
  for (guint j = 0; j < cols; j++)
    scratch[j] = x[j] / scale;
  memcpy (bytes, &scale, sizeof scale);
  xb_f32_to_f16 (scratch, (guint16 *) (gpointer) (bytes + sizeof scale), cols);
}

static void row_from_bytes (const guint8 *bytes, guint cols, float *x)
{
  float scale;
  memcpy (&scale, bytes, sizeof scale);
  xb_raw_to_f32 (XB_RAW_F16, bytes + sizeof scale, x, cols);
  for (guint j = 0; j < cols; j++)
    x[j] *= scale;
}

static void spill_work (gpointer data, guint begin, guint end, guint worker)
{
  Spill *s = data;
  gsize row_bytes = qz_spill_row_bytes (s->cols);
  g_autofree guint8 *bytes = g_malloc0 (row_bytes * ROWS_PER_UNIT);
  g_autofree float *scratch = g_new (float, s->cols);
  for (guint unit = begin; unit < end; unit++) {
    gsize row0 = (gsize) unit * ROWS_PER_UNIT, rows = MIN (ROWS_PER_UNIT, s->n - row0);
    guint64 offset = s->offset + row0 * row_bytes;
    GError *error = NULL;
    for (gsize i = 0; s->in != NULL && i < rows; i++)
      row_to_bytes (s->in + (row0 + i) * s->cols, s->cols, bytes + i * row_bytes, scratch);
    gboolean ok = s->in != NULL ? qz_store_write (s->store, offset, bytes, rows * row_bytes, &error)
                                : qz_store_read (s->store, offset, bytes, rows * row_bytes, &error);
    for (gsize i = 0; ok && s->in == NULL && i < rows; i++)
      row_from_bytes (bytes + i * row_bytes, s->cols, s->out + (row0 + i) * s->cols);
    if (!ok) {
      g_mutex_lock (&s->lock);
      if (s->error == NULL)
        s->error = g_steal_pointer (&error);
      g_mutex_unlock (&s->lock);
      g_clear_error (&error);
    }
  }
}

static gboolean run (Spill *s, EngWorkers *workers, GError **error)
{
  g_mutex_init (&s->lock);
  eng_workers_run (workers, spill_work, s, (s->n + ROWS_PER_UNIT - 1) / ROWS_PER_UNIT, 1);
  g_mutex_clear (&s->lock);
  if (s->error == NULL)
    return TRUE;
  g_propagate_error (error, s->error);
  return FALSE;
}

gboolean qz_spill (QzStore *store, guint64 offset, EngWorkers *workers, const float *x, gsize n, guint cols, GError **error)
{
  return run (&(Spill){ .store = store, .offset = offset, .in = x, .n = n, .cols = cols }, workers, error);
}

gboolean qz_unspill (const QzStore *store, guint64 offset, EngWorkers *workers, float *x, gsize n, guint cols, GError **error)
{
  return run (&(Spill){ .store = (QzStore *) store, .offset = offset, .out = x, .n = n, .cols = cols }, workers, error);
}
