/* loudness.c: a few random rows say as much of a token as all rows of all its matrices would, but for a third of its loudness, which the many tokens average out. */
#include "quantizer/loudness.h"

#include "quantizer/factor.h"
#include "quantizer/product.h"

void qz_loudness_learn (const QzTransform *transform, guint64 seed, guint begin, guint size, const float *f, guint16 *errors)
{
  guint64 state = seed + ((guint64) begin << 32);
  g_autofree float *rows = g_new (float, (gsize) QZ_ERROR_ROWS * size);
  for (gsize i = 0; i < (gsize) QZ_ERROR_ROWS * size; i++)
    rows[i] = qz_random_next (&state) >> 63 ? 1 : -1;
  qz_factor_solve (f, QZ_ERROR_ROWS, size, rows);
  for (guint i = 0; i < QZ_ERROR_ROWS; i++)
    xb_f32_to_f16 (rows + (gsize) i * size, errors + (gsize) i * transform->cols + begin, size);
}

void qz_loudness_finish (const QzTransform *transform, guint16 *errors)
{
  guint cols = transform->cols;
  g_autofree float *stored = g_new (float, cols), *row = g_new (float, cols);
  for (guint i = 0; i < QZ_ERROR_ROWS; i++, errors += cols) {
    xb_raw_to_f32 (XB_RAW_F16, errors, stored, cols);
    xb_input_restore_row (transform->input, stored, row);
    xb_f32_to_f16 (row, errors, cols);
  }
}

void qz_loudness_weigh (EngWorkers *workers, guint cols, const guint16 *errors, const float *pivots, guint n, const float *x, gsize ldx, float *weights)
{
  g_autofree float *rows = g_new (float, (gsize) QZ_ERROR_ROWS * cols), *out = g_new (float, (gsize) n * QZ_ERROR_ROWS);
  double mean = 0;
  for (guint j = 0; j < cols; j++)
    mean += pivots[j];
  xb_raw_to_f32 (XB_RAW_F16, errors, rows, (gsize) QZ_ERROR_ROWS * cols);
  qz_product_exact (workers, false, true, n, QZ_ERROR_ROWS, cols, x, ldx, rows, cols, 0, out, QZ_ERROR_ROWS);
  for (guint i = 0; i < n; i++) {
    double square = 0;
    for (guint k = 0; k < QZ_ERROR_ROWS; k++)
      square += (double) out[i * QZ_ERROR_ROWS + k] * out[i * QZ_ERROR_ROWS + k] / QZ_ERROR_ROWS;
    weights[i] = mean > 0 ? square / mean : 1;
  }
}
