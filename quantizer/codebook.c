/* codebook.c: codebooks and scale search, written so that the compiler turns every loop over rows into vectors. */
#include "quantizer/codebook.h"

#include <math.h>
#include <string.h>

/* The best uniform steps for the unit Gaussian (Max 1960, table II, extended), and their errors. */
static const float uniform_step[XB_MAX_DEPTH + 1] = { 0, 1.596f, 0.9957f, 0.5860f, 0.3352f, 0.1881f, 0.1041f, 0.0569f, 0.0308f };
static const float uniform_error[XB_MAX_DEPTH + 1] = { 1, 0.3634f, 0.1188f, 0.03744f, 0.01154f, 0.003495f, 0.001041f, 0.0003043f, 0.0000877f };

static QzCodebook books[QZ_CODES_TRELLIS16 + 1][XB_MAX_DEPTH + 1];
static gint8 tables[QZ_CODES_TRELLIS16 + 1][QZ_N_TABLES][16];

static void make_trellis_book (QzCodes codes, guint depth, guint first_table)
{
  xb_codebook kind = codes == QZ_CODES_TRELLIS16 && xb_trellis_has (XB_TRELLIS16, depth) ? XB_TRELLIS16 : XB_TRELLIS;
  QzCodebook *book = &books[codes][depth];
  book->trellis = qz_trellis (kind, depth);
  book->unit_scale = book->trellis->unit_scale;
  book->unit_error = book->trellis->unit_error;
  book->cell = (xb_cell){ .depth = depth, .codebook = kind, .table = first_table };
  memcpy (tables[codes][first_table], book->trellis->tables, sizeof tables[0][0] * xb_trellis_tables (depth));
}

static void make_books (void)
{
  guint table = 0;
  for (guint depth = 0; depth <= XB_MAX_DEPTH; depth++) {
    for (QzCodes codes = 0; codes <= QZ_CODES_TRELLIS16; codes++)
      books[codes][depth] = (QzCodebook){ .depth = depth, .n_levels = 1u << depth, .unit_error = uniform_error[depth], .unit_scale = uniform_step[depth],
                                          .cell = { .depth = depth, .codebook = XB_UNIFORM, .z2 = (1u << depth) - 1 } };
    if (depth > 0 && depth <= XB_TRELLIS_DEPTH) {
      make_trellis_book (QZ_CODES_TRELLIS, depth, table);
      make_trellis_book (QZ_CODES_TRELLIS16, depth, table);
      table += xb_trellis_tables (depth);
    }
  }
  g_assert (table == QZ_N_TABLES);
}

static void need_books (void)
{
  static gsize made = 0;
  if (g_once_init_enter (&made)) {
    make_books ();
    g_once_init_leave (&made, 1);
  }
}

const QzCodebook *qz_codebook (QzCodes codes, guint depth)
{
  need_books ();
  return &books[codes][depth];
}

const QzCodebook *qz_codebook_of_cell (const xb_cell *cell)
{
  return qz_codebook (cell->codebook == XB_UNIFORM ? QZ_CODES_UNIFORM : cell->codebook == XB_TRELLIS16 ? QZ_CODES_TRELLIS16 : QZ_CODES_TRELLIS, cell->depth);
}

const gint8 (*qz_codebook_tables (QzCodes codes))[16]
{
  need_books ();
  return (const gint8 (*)[16]) tables[codes];
}

float qz_round_half (float x)
{
  return xb_half_to_float (xb_float_to_half (x));
}

float qz_codebook_first_scale (const QzCodebook *book, float mean_square)
{
  return book->unit_scale * sqrtf (mean_square);
}

static inline float inverse_of (float scale)
{
  return scale != 0 ? 1.0f / scale : 0.0f;
}

void qz_codebook_quantize (const QzCodebook *book, guint n, const float *x, const float *scale, guint8 *codes, float *values)
{
  if (book->depth == 0) {
    memset (codes, 0, n);
    memset (values, 0, sizeof (float) * n);
    return;
  }
  float half = book->n_levels * 0.5f, zero = book->cell.z2 * 0.5f, top = book->n_levels - 1;
  for (guint i = 0; i < n; i++) {
    float v = x[i] * inverse_of (scale[i]) + half;
    v = v > 0 ? v : 0;
    gint32 code = v < top ? v : top;
    codes[i] = code;
    values[i] = scale[i] * ((float) code - zero);
  }
}

/* error[row] += weight (x - q (x))^2 of one column. */
static void add_uniform_error (const QzCodebook *book, guint n, const float *x, const float *scale, const float *inverse, float weight, float *error)
{
  float half = book->n_levels * 0.5f, zero = book->cell.z2 * 0.5f, top = book->n_levels - 1;
  for (guint i = 0; i < n; i++) {
    float v = x[i] * inverse[i] + half;
    v = v > 0 ? v : 0;
    gint32 code = v < top ? v : top;
    float e = x[i] - scale[i] * ((float) code - zero);
    error[i] += weight * e * e;
  }
}

/* The scale next to s that can be stored. */
static inline float expressible (float s, const float *super)
{
  if (super == NULL)
    return qz_round_half (s);
  return *super > 0 ? *super * MIN (rintf (s / *super), 127.0f) : 0;
}

/* ---- the scale of a trellis ---------------------------------------------------------------------------------------------- */

/* Blocks of so many weights have an energy each; factors are eighths of an octave. */
enum { BLOCK_COLS = 64, FEW_BLOCKS = 2 /* a group's: their energies say too little */, FACTORS = 8, LEAST_FACTOR = -2, MOST_FACTOR = 16 };

/* A row of several blocks: mean [n_blocks][n] is the mean square of each, weight [n_blocks] how much they count; first: the scale that would give the whole row
 * its variance. That one, or the one wider or narrower for which blocks of their deviations lose least together. */
static float scale_for_blocks (const QzTrellis *t, guint n_blocks, const float *mean, gsize n, const float *weight, float first, gint *at)
{
  float least = INFINITY, best = first;
  if (!(first > 0))
    return first;
  for (guint b = 0; b < n_blocks; b++) {
    float octaves = 0.5f * log2f (mean[b * n] * t->unit_scale * t->unit_scale / (first * first) + 0x1p-40f);
    at[b] = (gint) rintf ((octaves - QZ_LEAST_OCTAVES) * QZ_DEVIATION_STEPS);
  }
  for (gint f = LEAST_FACTOR; f <= MOST_FACTOR; f++) {
    float error = 0, factor = exp2f ((float) f / FACTORS);
    for (guint b = 0; b < n_blocks; b++)
      error += weight[b] * t->errors[CLAMP (at[b] - f * (QZ_DEVIATION_STEPS / FACTORS), 0, QZ_N_DEVIATIONS - 1)];
    error *= factor * factor;
    if (error < least) {
      least = error;
      best = first * factor;
    }
  }
  return best;
}

static void search_trellis (const QzTrellis *t, guint n, guint columns, const float *x, gsize ldx, const float *weight, const float *super, const float *first, float *scale)
{
  guint n_blocks = (columns + BLOCK_COLS - 1) / BLOCK_COLS;
  g_autofree float *mean = g_new0 (float, (gsize) n_blocks * n), *sum = g_new0 (float, n_blocks);
  g_autofree gint *at = g_new (gint, n_blocks);
  for (guint j = 0; j < columns; j++) {
    float *m = mean + (gsize) (j / BLOCK_COLS) * n;
    sum[j / BLOCK_COLS] += weight[j];
    for (guint i = 0; i < n; i++)
      m[i] += weight[j] * x[j * ldx + i] * x[j * ldx + i];
  }
  for (guint b = 0; b < n_blocks; b++)
    for (guint i = 0; i < n; i++)
      mean[b * n + i] = sum[b] > 0 ? mean[b * n + i] / sum[b] : 0;
  for (guint i = 0; i < n; i++)
    scale[i] = expressible (n_blocks > FEW_BLOCKS ? scale_for_blocks (t, n_blocks, mean + i, n, sum, first[i], at) : first[i], super != NULL ? &super[i] : NULL);
}

void qz_codebook_search (const QzCodebook *book, guint n, guint columns, const float *x, gsize ldx, const float *weight, const float *super,
                         float *scale, float *scratch)
{
  static const float factors[] = { 0.70f, 0.78f, 0.85f, 0.90f, 0.95f, 1.0f, 1.05f, 1.10f, 1.16f, 1.24f, 1.34f,
                                   1.5f,  1.8f,  2.3f,  3.0f,  4.0f }; /* the wide ones for rows with outliers */
  float *first = scratch, *try = scratch + n, *inverse = scratch + 2 * n, *error = scratch + 3 * n, *best = scratch + 4 * n;
  float sum = 0;
  memset (first, 0, sizeof (float) * n);
  for (guint j = 0; j < columns; j++) {
    sum += weight[j];
    for (guint i = 0; i < n; i++)
      first[i] += weight[j] * x[j * ldx + i] * x[j * ldx + i];
  }
  for (guint i = 0; i < n; i++) {
    first[i] = qz_codebook_first_scale (book, sum > 0 ? first[i] / sum : 0);
    best[i] = INFINITY;
    scale[i] = 0;
  }
  if (book->depth == 0)
    return;
  if (book->trellis != NULL) {
    search_trellis (book->trellis, n, columns, x, ldx, weight, super, first, scale);
    return;
  }
  for (guint f = 0; f < G_N_ELEMENTS (factors); f++) {
    for (guint i = 0; i < n; i++) {
      float s = expressible (first[i] * factors[f], super != NULL ? &super[i] : NULL);
      try[i] = s;
      inverse[i] = inverse_of (s);
      error[i] = 0;
    }
    for (guint j = 0; j < columns; j++)
      add_uniform_error (book, n, x + j * ldx, try, inverse, weight[j], error);
    for (guint i = 0; i < n; i++)
      if (error[i] < best[i]) {
        best[i] = error[i];
        scale[i] = try[i];
      }
  }
}
