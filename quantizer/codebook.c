/* codebook.c: codebooks and scale search, written so that the compiler turns every loop over rows into vectors. */
#include "quantizer/codebook.h"

#include <math.h>
#include <string.h>

/* Upper half of the Lloyd-Max levels of the unit Gaussian (Max 1960, table I), and the best uniform steps (table II, extended). */
static const float lloyd_max[QZ_N_TABLES][8] = {
  { 0.4528f, 1.510f },
  { 0.2451f, 0.7560f, 1.344f, 2.152f },
  { 0.1284f, 0.3881f, 0.6568f, 0.9424f, 1.256f, 1.618f, 2.069f, 2.733f },
};
static const float uniform_step[XB_MAX_DEPTH + 1] = { 0, 1.596f, 0.9957f, 0.5860f, 0.3352f, 0.1881f, 0.1041f, 0.0569f, 0.0308f };
static const float unit_error[XB_MAX_DEPTH + 1] = { 1, 0.3634f, 0.1175f, 0.03454f, 0.009497f, 0.003490f, 0.001040f, 0.0003043f, 0.0000877f };

enum { FIRST_TABLE = 2, LAST_TABLE = 4 };

static QzCodebook books[XB_MAX_DEPTH + 1];
static gint8 tables[QZ_N_TABLES][16];

static void make_table (QzCodebook *book)
{
  guint half = book->n_levels / 2, t = book->depth - FIRST_TABLE;
  const float *upper = lloyd_max[t];
  book->kind = XB_TABLE;
  book->table = t;
  book->unit_scale = upper[half - 1] / 127;
  for (guint i = 0; i < half; i++) {
    gint8 entry = lrintf (upper[i] / book->unit_scale);
    book->entries[half + i] = entry;
    book->entries[half - 1 - i] = -entry;
  }
  for (guint i = 0; i < book->n_levels; i++)
    book->level[i] = book->entries[i];
  for (guint i = 0; i + 1 < book->n_levels; i++)
    book->middle[i] = (book->level[i] + book->level[i + 1]) / 2;
  memcpy (tables[t], book->entries, sizeof tables[t]);
}

static void make_books (void)
{
  for (guint depth = 0; depth <= XB_MAX_DEPTH; depth++) {
    QzCodebook *book = &books[depth];
    book->depth = depth;
    book->n_levels = 1u << depth;
    book->unit_error = unit_error[depth];
    if (depth >= FIRST_TABLE && depth <= LAST_TABLE) {
      make_table (book);
    } else {
      book->kind = XB_UNIFORM;
      book->z2 = book->n_levels - 1;
      book->unit_scale = uniform_step[depth];
    }
  }
}

const QzCodebook *qz_codebook (guint depth)
{
  static gsize made = 0;
  if (g_once_init_enter (&made)) {
    make_books ();
    g_once_init_leave (&made, 1);
  }
  return &books[depth];
}

const gint8 (*qz_codebook_tables (void))[16]
{
  qz_codebook (0);
  return (const gint8 (*)[16]) tables;
}

xb_cell qz_codebook_cell (guint depth)
{
  const QzCodebook *book = qz_codebook (depth);
  return (xb_cell){ .depth = depth, .codebook = book->kind, .z2 = book->z2, .table = book->table };
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
  if (book->kind == XB_TABLE) {
    for (guint i = 0; i < n; i++) {
      float v = x[i] * inverse_of (scale[i]);
      gint32 code = 0;
      for (guint k = 0; k + 1 < book->n_levels; k++)
        code += v > book->middle[k];
      codes[i] = code;
      values[i] = scale[i] * book->level[code];
    }
    return;
  }
  float half = book->n_levels * 0.5f, zero = book->z2 * 0.5f, top = book->n_levels - 1;
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
  float half = book->n_levels * 0.5f, zero = book->z2 * 0.5f, top = book->n_levels - 1;
  for (guint i = 0; i < n; i++) {
    float v = x[i] * inverse[i] + half;
    v = v > 0 ? v : 0;
    gint32 code = v < top ? v : top;
    float e = x[i] - scale[i] * ((float) code - zero);
    error[i] += weight * e * e;
  }
}

static void add_table_error (const QzCodebook *book, guint n, const float *x, const float *scale, const float *inverse, float weight, float *error)
{
  guint half = book->n_levels / 2;
  float step[8], border[8];
  for (guint k = 1; k < half; k++) {
    step[k] = book->level[half + k] - book->level[half + k - 1];
    border[k] = book->middle[half + k - 1];
  }
  /* The tables are symmetric: the magnitude alone decides the error. */
  for (guint i = 0; i < n; i++) {
    float v = fabsf (x[i] * inverse[i]), level = book->level[half];
    for (guint k = 1; k < half; k++)
      level += v > border[k] ? step[k] : 0.0f;
    float e = (v - level) * scale[i];
    error[i] += weight * e * e;
  }
}

void qz_codebook_search (const QzCodebook *book, guint n, guint columns, const float *x, gsize ldx, const float *weight, const float *super,
                         float *scale, float *scratch)
{
  static const float factors[] = { 0.70f, 0.78f, 0.85f, 0.90f, 0.95f, 1.0f, 1.05f, 1.10f, 1.16f, 1.24f, 1.34f };
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
  for (guint f = 0; f < G_N_ELEMENTS (factors); f++) {
    for (guint i = 0; i < n; i++) {
      float s = first[i] * factors[f];
      if (super != NULL)
        s = super[i] > 0 ? super[i] * MIN (rintf (s / super[i]), 127.0f) : 0;
      else
        s = qz_round_half (s);
      try[i] = s;
      inverse[i] = inverse_of (s);
      error[i] = 0;
    }
    for (guint j = 0; j < columns; j++)
      if (book->kind == XB_TABLE)
        add_table_error (book, n, x + j * ldx, try, inverse, weight[j], error);
      else
        add_uniform_error (book, n, x + j * ldx, try, inverse, weight[j], error);
    for (guint i = 0; i < n; i++)
      if (error[i] < best[i]) {
        best[i] = error[i];
        scale[i] = try[i];
      }
  }
}
