/* transform.c: makes input pipelines and carries moments and weights through them with the kernels' own routines, so that what is
 * analysed is what the engine will compute. */
#include "quantizer/transform.h"

#include "engine/error.h"

#include <math.h>
#include <string.h>

guint64 qz_random_next (guint64 *state)
{
  guint64 z = *state += G_GUINT64_CONSTANT (0x9e3779b97f4a7c15);
  z = (z ^ (z >> 30)) * G_GUINT64_CONSTANT (0xbf58476d1ce4e5b9);
  z = (z ^ (z >> 27)) * G_GUINT64_CONSTANT (0x94d049bb133111eb);
  return z ^ (z >> 31);
}

double qz_random_unit (guint64 *state)
{
  return (qz_random_next (state) >> 11) * 0x1p-53;
}

static QzTransform *transform_alloc (guint cols, gsize bytes)
{
  QzTransform *transform = g_new0 (QzTransform, 1);
  transform->cols = cols;
  transform->bytes = bytes;
  transform->blob = g_aligned_alloc0 (1, (bytes + XB_ALIGN - 1) / XB_ALIGN * XB_ALIGN, XB_ALIGN);
  return transform;
}

/* Takes the diagonal from floats. */
static QzTransform *transform_of_layout (xb_input_layout *layout, const float *diagonal, GError **error)
{
  g_autofree guint16 *halves = NULL;
  if (diagonal != NULL) {
    halves = g_new (guint16, layout->cols);
    xb_f32_to_f16 (diagonal, halves, layout->cols);
    layout->diagonal = halves;
  }
  xb_error why = NULL;
  gsize bytes = xb_input_bytes (layout, &why);
  QzTransform *transform = bytes > 0 ? transform_alloc (layout->cols, bytes) : NULL;
  if (transform != NULL)
    why = xb_input_init (transform->blob, bytes, layout);
  if (transform != NULL && why == NULL)
    transform->input = xb_input_open (transform->blob, bytes, &why);
  if (why != NULL) {
    g_set_error (error, ENG_ERROR, ENG_ERROR_UNSUPPORTED, "matrices of %u columns cannot be fitted: %s", layout->cols, why);
    g_clear_pointer (&transform, qz_transform_free);
  }
  return transform;
}

QzTransform *qz_transform_hadamard (guint cols, guint block, guint64 seed, const float *diagonal, GError **error)
{
  g_autofree guint8 *signs = g_new0 (guint8, (cols + 7) / 8);
  guint64 state = seed;
  for (guint i = 0; i < cols; i++)
    if (qz_random_next (&state) >> 63)
      signs[i / 8] |= 1 << i % 8;
  xb_input_layout layout = { .cols = cols, .block = block, .signs = signs };
  return transform_of_layout (&layout, diagonal, error);
}

QzTransform *qz_transform_plain (guint cols, const guint32 *permutation, const float *diagonal, GError **error)
{
  xb_input_layout layout = { .cols = cols, .permutation = permutation };
  return transform_of_layout (&layout, diagonal, error);
}

QzTransform *qz_transform_new (guint cols, guint64 seed, const float *diagonal, GError **error)
{
  return qz_transform_hadamard (cols, QZ_HADAMARD_BLOCK, seed, diagonal, error);
}

QzTransform *qz_transform_new_from_bytes (guint cols, const void *data, gsize size)
{
  QzTransform *transform = transform_alloc (cols, size);
  xb_error why = NULL;
  memcpy (transform->blob, data, size);
  transform->input = xb_input_open (transform->blob, size, &why);
  if (transform->input == NULL || xb_input_get_layout (transform->input)->cols != cols) {
    qz_transform_free (transform);
    return NULL;
  }
  return transform;
}

void qz_transform_free (QzTransform *transform)
{
  if (transform == NULL)
    return;
  if (transform->input != NULL)
    xb_input_free (transform->input);
  g_aligned_free (transform->blob);
  g_free (transform);
}

static int compare_floats (gconstpointer a, gconstpointer b)
{
  float x = *(const float *) a, y = *(const float *) b;
  return (x > y) - (x < y);
}

void qz_transform_balance (guint cols, const double *moments, const double *weights, float *diagonal)
{
  for (guint j = 0; j < cols; j++)
    diagonal[j] = moments[j] > 0 && weights[j] > 0 ? pow (weights[j] / moments[j], 0.25) : 0;
  g_autofree float *sorted = g_memdup2 (diagonal, sizeof (float) * cols);
  qsort (sorted, cols, sizeof (float), compare_floats);
  float median = sorted[cols / 2];
  for (guint j = 0; j < cols; j++)
    diagonal[j] = median > 0 ? CLAMP (diagonal[j] / median, 0.25f, 4.0f) : 1.0f;
}

typedef struct {
  const QzTransform *transform;
  guint begin, n;
  float *h;
  float *scratch; /* [workers][2][cols], zero before and after the n columns */
} Moments;

static void moments_work (gpointer data, guint begin, guint end, guint worker)
{
  const Moments *m = data;
  guint cols = m->transform->cols;
  float *in = m->scratch + (gsize) 2 * worker * cols, *out = in + cols;
  for (guint i = begin; i < end; i++) {
    float *row = m->h + (gsize) i * m->n;
    memcpy (in + m->begin, row, sizeof (float) * m->n);
    xb_input_apply (m->transform->input, in, out);
    memcpy (row, out + m->begin, sizeof (float) * m->n);
  }
}

static void mirror (float *h, guint n)
{
  for (guint i = 0; i < n; i++)
    for (guint j = 0; j < i; j++)
      h[(gsize) i * n + j] = h[(gsize) j * n + i];
}

static void transpose (float *h, guint n)
{
  for (guint i = 0; i < n; i++)
    for (guint j = 0; j < i; j++) {
      float value = h[(gsize) i * n + j];
      h[(gsize) i * n + j] = h[(gsize) j * n + i];
      h[(gsize) j * n + i] = value;
    }
}

void qz_transform_moments (const QzTransform *transform, EngWorkers *workers, guint begin, guint n, float *h)
{
  g_autofree float *scratch = g_new0 (float, (gsize) 2 * eng_workers_count (workers) * transform->cols);
  Moments m = { transform, begin, n, h, scratch };
  mirror (h, n);
  eng_workers_run (workers, moments_work, &m, n, 16);
  transpose (h, n);
  eng_workers_run (workers, moments_work, &m, n, 16);
  mirror (h, n); /* exactly symmetric again */
}

void qz_transform_rows (const QzTransform *transform, float *rows, guint n, float *scratch)
{
  for (guint i = 0; i < n; i++) {
    float *row = rows + (gsize) i * transform->cols;
    xb_input_transform_row (transform->input, row, scratch);
    memcpy (row, scratch, sizeof (float) * transform->cols);
  }
}
