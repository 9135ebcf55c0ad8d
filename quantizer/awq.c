/* awq.c: a grid of powers, each judged by what rounding really leaves of a sample. */
#include "quantizer/awq.h"

#include "quantizer/codebook.h"
#include "quantizer/product.h"
#include "quantizer/shape.h"

#include <math.h>
#include <string.h>

enum { SAMPLE_ROWS = 48 /* of each matrix */, POWERS = 20 };

typedef struct {
  guint n, cols;
  float *rows;      /* [cols][n] a row to a lane */
  float *scaled;    /* [cols][n] */
  float *error;     /* [n][cols] in front of the scales: what meets the moments */
  float *carried;   /* [n][cols] */
  float *search;    /* [7 n] */
  guint8 *codes;    /* [n] */
} Trial;

static gboolean read_sample (const QzSource *source, guint input, Trial *t, GError **error)
{
  g_autofree float *row = g_new (float, t->cols);
  guint at = 0;
  for (guint m = 0; m < source->n_matrices; m++) {
    guint rows = source->matrices[m].rows, n = MIN (rows, SAMPLE_ROWS);
    for (guint i = 0; source->matrices[m].input == input && i < n; i++, at++) {
      guint r = (guint) ((guint64) (2 * i + 1) * rows / (2 * n));
      if (!qz_source_read_rows (source, m, r, r + 1, row, error))
        return FALSE;
      for (guint j = 0; j < t->cols; j++)
        t->rows[(gsize) j * t->n + at] = row[j];
    }
  }
  return TRUE;
}

/* error = (q (W / d) - W / d) d for the diagonal d. */
static void round_sample (Trial *t, const QzCodebook *book, const float *diagonal)
{
  guint n = t->n;
  float *scale = t->search + 5 * n, *values = t->search + 6 * n, alike[QZ_PANEL_COLS];
  for (guint j = 0; j < QZ_PANEL_COLS; j++)
    alike[j] = 1;
  for (guint j = 0; j < t->cols; j++)
    for (guint i = 0; i < n; i++)
      t->scaled[(gsize) j * n + i] = t->rows[(gsize) j * n + i] / diagonal[j];
  for (guint j0 = 0; j0 < t->cols; j0 += QZ_PANEL_COLS) {
    guint j1 = MIN (j0 + QZ_PANEL_COLS, t->cols);
    qz_codebook_search (book, n, j1 - j0, t->scaled + (gsize) j0 * n, n, alike, NULL, scale, t->search);
    for (guint j = j0; j < j1; j++) {
      const float *x = t->scaled + (gsize) j * n;
      qz_codebook_quantize (book, n, x, scale, t->codes, values);
      for (guint i = 0; i < n; i++)
        t->error[(gsize) i * t->cols + j] = (values[i] - x[i]) * diagonal[j];
    }
  }
}

/* Sum of e H e^T; both triangles of the blocks. */
static double loss_of (const Trial *t, const QzMoments *h, EngWorkers *workers)
{
  double loss = 0;
  for (guint b = 0; b < qz_moments_n_blocks (h); b++) {
    guint begin, size;
    const float *block = qz_moments_at (h, b, &begin, &size);
    qz_product (workers, false, false, t->n, size, size, t->error + begin, t->cols, block, size, 0, t->carried, size);
    for (guint i = 0; i < t->n; i++)
      for (guint j = 0; j < size; j++)
        loss += (double) t->carried[(gsize) i * size + j] * t->error[(gsize) i * t->cols + begin + j];
  }
  return loss;
}

/* (root mean square)^-power about 1, within what halves and outliers bear. */
static void diagonal_of_power (const double *moments, guint cols, double power, float *diagonal)
{
  double sum = 0;
  guint n = 0;
  for (guint j = 0; j < cols; j++)
    if (moments[j] > 0) {
      sum += 0.5 * log (moments[j]);
      n++;
    }
  double middle = n > 0 ? sum / n : 0;
  for (guint j = 0; j < cols; j++) {
    double away = moments[j] > 0 ? 0.5 * log (moments[j]) - middle : 0;
    float d = CLAMP (exp (-power * away), 1.0 / 1024, 1024.0);
    diagonal[j] = qz_round_half (d); /* as it is stored */
  }
}

static void mirror (QzMoments *h)
{
  for (guint b = 0; b < qz_moments_n_blocks (h); b++) {
    guint begin, size;
    float *block = qz_moments_at (h, b, &begin, &size);
    for (guint i = 0; i < size; i++)
      for (guint j = 0; j < i; j++)
        block[(gsize) i * size + j] = block[(gsize) j * size + i];
  }
}

gboolean qz_awq_scales (const QzSource *source, guint input, QzMoments *h, guint bits, EngWorkers *workers, float *diagonal, GError **error)
{
  Trial t = { .cols = h->n };
  for (guint m = 0; m < source->n_matrices; m++)
    t.n += source->matrices[m].input == input ? MIN (source->matrices[m].rows, SAMPLE_ROWS) : 0;
  gsize floats = (gsize) t.n * t.cols;
  g_autofree double *moments = g_new (double, t.cols);
  g_autofree float *candidate = g_new (float, t.cols);
  g_autofree float *memory = g_new (float, 4 * floats + 7 * t.n);
  g_autofree guint8 *codes = g_malloc (t.n);
  t.rows = memory;
  t.scaled = memory + floats;
  t.error = memory + 2 * floats;
  t.carried = memory + 3 * floats;
  t.search = memory + 4 * floats;
  t.codes = codes;
  if (!read_sample (source, input, &t, error))
    return FALSE;
  qz_moments_diagonal (h, moments);
  mirror (h);
  double best = INFINITY;
  for (guint k = 0; k < POWERS; k++) {
    diagonal_of_power (moments, t.cols, k / (double) POWERS, candidate);
    round_sample (&t, qz_codebook (QZ_CODES_UNIFORM, bits), candidate);
    double loss = loss_of (&t, h, workers);
    if (loss < best) {
      best = loss;
      memcpy (diagonal, candidate, sizeof (float) * t.cols);
    }
  }
  return TRUE;
}
