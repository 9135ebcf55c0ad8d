/* trellis.c: tables, and the search for the codes of a chain. */
#include "quantizer/trellis.h"

#include <math.h>
#include <string.h>

/* Of a weight of unit variance, the error that counts the most there is; from three quarters of it on the search hardly tells errors apart, below it has whole numbers for them. */
static const float most_error[XB_TRELLIS_DEPTH + 1] = { 0, 12, 3.5f, 3, 1.5f, 0.6f, 0.3f };

/* The least of a weight's share in the cost, of the largest: below, its own errors would be rounded away. */
static const float least_share = 1.0f / 32;

/* Tables for weights of unit variance over `unit`, the best of many seeds of tests/bench/trellis_tables.c (250 rounds, 60 chains where nothing else is said; of
 * words of 16 bits 160 rounds, 24 chains), and the mean squared error it measured. */
static const struct {
  float unit, error;
  gint8 tables[3][16];
} made[2][XB_TRELLIS_DEPTH] = { {
  { 0.01705f, 0.27894f, /* 1 bit, seed 5, 60 rounds, 12 chains */
    { { 12, 39, -34, -6, 4, 20, 17, -8, 13, -39, 23, -28, -29, -41, 23, 24 },
      { 27, -60, -53, 43, 16, -27, 3, 87, -60, 27, 64, -53, -25, 30, -44, 36 } } },
  { 0.02098f, 0.07309f, /* 2 bits, seed 6 */
    { { 2, 42, -2, 33, 37, 6, 15, 48, -21, 13, -15, 24, -5, 34, -11, 23 },
      { 25, 24, -43, -47, -7, -74, 60, -12, -67, -1, -4, 72, -30, -31, -105, 23 } } },
  { 0.02492f, 0.01944f, /* 3 bits, seed 15 */
    { { -17, 3, 38, 20, -1, -48, 18, -22, 29, 9, -11, -33, 12, -8, 72, 41 },
      { -21, 20, 6, -74, 54, -3, -34, 38, 17, -43, 32, 5, -53, -16, -7, -26 } } },
  { 0.02685f, 0.00515f, /* 4 bits, seed 10 */
    { { -11, 22, 16, -1, 5, -9, 68, -29, 40, -19, -20, 9, -3, 19, -62, 26 },
      { -6, -48, -25, -31, -12, 25, -38, -63, 5, 58, 44, -17, -1, 33, 11, 18 } } },
  { 0.03066f, 0.00144f, /* 5 bits, seed 11 */
    { { 1, -23, -54, 13, 32, -3, 3, -3, 22, 5, 30, -21, 14, 2, 23, 7 },
      { -18, 29, -11, 22, 41, -16, -17, -5, 2, -12, 22, 9, -46, 18, -27, -7 },
      { -10, -18, 54, 5, 20, -51, 13, -14, -29, -7, -23, 1, 9, -36, 27, -3 } } },
  { 0.03285f, 0.00041f, /* 6 bits, seed 11 */
    { { -4, -25, -39, 8, 42, -6, 10, 1, 20, 3, 13, -18, 15, -1, 22, 5 },
      { -17, 27, -7, 22, 37, 1, -13, -10, -2, -13, 16, 12, -48, 12, -23, -5 },
      { -11, -17, 42, 5, 13, -39, 18, -15, -23, -7, -19, -1, 1, -31, 25, -3 } } },
}, {
  { 0 }, /* words of 16 bits */
  { 0.02244f, 0.06965f, /* 2 bits, seed 3 */
    { { -28, 17, -17, 75, 46, -2, -5, 24, 43, -59, 36, 2, 10, 35, 42, 0 },
      { 51, 2, -15, -34, -48, 25, -39, -11, 9, -27, -64, -63, -26, -15, 36, 3 } } },
  { 0.02511f, 0.01768f, /* 3 bits, seed 6 */
    { { -26, 67, -5, 20, 48, -58, 26, 5, -33, 12, -10, 36, -42, -3, 12, -18 },
      { -9, 55, -26, -11, -9, 13, 22, -20, -35, 34, 2, 20, -7, 6, -68, -8 } } },
  { 0.02649f, 0.00468f, /* 4 bits, seed 3 */
    { { -23, 24, -35, 62, 32, -5, -13, 7, 38, -60, 13, 4, 26, 46, 16, 0 },
      { 64, 0, -13, -21, -65, 11, -49, 7, 22, -5, -35, -32, -27, -17, 17, -8 } } },
  { 0.03050f, 0.00128f, /* 5 bits, seed 6 */
    { { -15, 50, 11, 12, 38, -43, 26, 26, -20, 2, 1, 18, -26, -6, 5, -4 },
      { 5, 34, -30, -7, -1, 6, 15, 3, -25, 15, 2, 9, -25, -4, -60, 1 },
      { 11, 1, 5, -3, 12, -12, -8, -4, 40, -23, 17, 4, -20, 21, -15, 15 } } },
} };

/* Mean squared error of the words of 12 bits, by the scale of unit deviation, of weights of deviation 2^(-1.5), 2^(-1.25) ... 2^2.5 (/trellis/other-deviations measures it). */
enum { MEASURED_STEPS = 4, MEASURED = 17, FIRST_MEASURED = -6 };
static const float measured[XB_TRELLIS_DEPTH][MEASURED] = {
  { 0.13672f, 0.13784f, 0.14172f, 0.15071f, 0.16973f, 0.20677f, 0.27798f, 0.41197f, 0.65563f, 1.07568f, 1.75906f, 2.83438f, 4.50666f, 7.02188f, 10.7788f, 16.3156f, 24.3856f },
  { 0.03342f, 0.03491f, 0.03719f, 0.04041f, 0.04580f, 0.05496f, 0.07259f, 0.11156f, 0.20268f, 0.41168f, 0.85451f, 1.65052f, 3.01085f, 5.16019f, 8.41429f, 13.3286f, 20.5988f },
  { 0.00913f, 0.00954f, 0.01007f, 0.01090f, 0.01231f, 0.01466f, 0.01899f, 0.03011f, 0.06219f, 0.16097f, 0.41628f, 1.01201f, 2.13381f, 4.06695f, 7.06827f, 11.6912f, 18.6333f },
  { 0.00254f, 0.00264f, 0.00279f, 0.00298f, 0.00331f, 0.00393f, 0.00502f, 0.00789f, 0.01893f, 0.06384f, 0.23507f, 0.69269f, 1.61630f, 3.30726f, 6.00147f, 10.2784f, 16.7962f },
  { 0.00063f, 0.00066f, 0.00070f, 0.00077f, 0.00087f, 0.00103f, 0.00138f, 0.00227f, 0.00816f, 0.05079f, 0.23924f, 0.74137f, 1.76393f, 3.49195f, 6.22870f, 10.4877f, 16.8633f },
  { 0.00015f, 0.00016f, 0.00017f, 0.00019f, 0.00022f, 0.00027f, 0.00037f, 0.00133f, 0.01093f, 0.08081f, 0.31393f, 0.87671f, 1.91876f, 3.69905f, 6.53511f, 10.8606f, 17.5053f },
};

static QzTrellis trellises[2][XB_TRELLIS_DEPTH + 1];
static float errors[XB_TRELLIS_DEPTH + 1][QZ_N_DEVIATIONS];

/* In logarithms between what was measured; below it the same, above it as the square. */
static void fill_errors (guint depth)
{
  for (guint i = 0; i < QZ_N_DEVIATIONS; i++) {
    double octaves = QZ_LEAST_OCTAVES + (double) i / QZ_DEVIATION_STEPS, at = octaves * MEASURED_STEPS - FIRST_MEASURED;
    double inside = CLAMP (at, 0, MEASURED - 1), beyond = MAX (0, at - (MEASURED - 1)) / MEASURED_STEPS;
    guint k = MIN ((guint) inside, MEASURED - 2);
    errors[depth][i] = exp2 (log2 (measured[depth - 1][k]) * (k + 1 - inside) + log2 (measured[depth - 1][k + 1]) * (inside - k) + 2 * beyond);
  }
}

const QzTrellis *qz_trellis (xb_codebook codebook, guint depth)
{
  static gsize done = 0;
  if (g_once_init_enter (&done)) {
    for (guint d = 1; d <= XB_TRELLIS_DEPTH; d++)
      fill_errors (d);
    for (guint kind = 0; kind < 2; kind++)
      for (guint d = 1; d <= XB_TRELLIS_DEPTH; d++)
        if (xb_trellis_has (kind ? XB_TRELLIS16 : XB_TRELLIS, d)) {
          trellises[kind][d] = (QzTrellis){ .tables = made[kind][d - 1].tables, .unit_scale = made[kind][d - 1].unit, .unit_error = made[kind][d - 1].error, .errors = errors[d] };
          xb_trellis_init (&trellises[kind][d].search, xb_word_bits (kind ? XB_TRELLIS16 : XB_TRELLIS), d, made[kind][d - 1].tables);
        }
    g_once_init_leave (&done, 1);
  }
  return &trellises[codebook == XB_TRELLIS16][depth];
}

struct QzChain {
  const QzTrellis *t;
  guint most_cols, n_states, state; /* where the chain ends so far */
  guint16 cost[XB_MOST_STATES];
  float inverse[QZ_CHAIN_ROWS], row_share[QZ_CHAIN_ROWS], most_pivot;
  guint16 *words; /* [most_cols + 1][16 places] as the best path has them now */
  float *error;   /* [most_cols][16 rows] of the columns that have words */
  float *base;    /* [most_cols + 1][16 rows] targets before any of these */
  float *factor;  /* [most_cols + 1][most_cols] of each column, what earlier ones add to it */
  guint8 *back;   /* [(most_cols + 1) * 16 steps][n_states] */
  gsize back_size;
};

QzChain *qz_chain_new (guint most_cols)
{
  QzChain *c = g_new0 (QzChain, 1);
  c->most_cols = most_cols;
  c->words = g_new (guint16, (gsize) (most_cols + 1) * QZ_CHAIN_ROWS);
  c->error = g_new (float, (gsize) most_cols * QZ_CHAIN_ROWS);
  c->base = g_new0 (float, (gsize) (most_cols + 1) * QZ_CHAIN_ROWS);
  c->factor = g_new (float, (gsize) (most_cols + 1) * most_cols);
  return c;
}

void qz_chain_free (QzChain *c)
{
  if (c == NULL)
    return;
  g_free (c->words);
  g_free (c->error);
  g_free (c->base);
  g_free (c->factor);
  g_free (c->back);
  g_free (c);
}

guint qz_chain_end (const QzChain *c)
{
  return c->state;
}

void qz_chain_begin (QzChain *c, const QzTrellis *t, guint end)
{
  c->t = t;
  c->n_states = xb_trellis_states (&t->search);
  c->state = end;
  gsize size = (gsize) (c->most_cols + 1) * QZ_CHAIN_ROWS * c->n_states;
  if (size > c->back_size) {
    g_free (c->back);
    c->back = g_malloc (size);
    c->back_size = size;
  }
}

static void begin_segment (QzChain *c, const QzSegment *s)
{
  float most_row = 0;
  c->most_pivot = 0;
  memset (c->row_share, 0, sizeof c->row_share);
  memset (c->inverse, 0, sizeof c->inverse);
  for (guint r = 0; r < s->n_rows; r++) {
    c->inverse[r] = s->scale[r] != 0 ? 1 / s->scale[r] : 0;
    c->row_share[r] = s->scale[r] * s->scale[r] * (s->importance != NULL ? s->importance[r] : 1);
    most_row = MAX (most_row, c->row_share[r]);
  }
  for (guint r = 0; r < s->n_rows; r++)
    c->row_share[r] = most_row > 0 ? c->row_share[r] / most_row : 1;
  for (guint j = 0; j < s->n_cols + s->ahead; j++)
    c->most_pivot = MAX (c->most_pivot, s->pivots[j]);
  for (guint j = 0; s->factor != NULL && j < s->n_cols + s->ahead; j++) {
    for (guint k = 0; k < j; k++)
      c->factor[(gsize) j * c->most_cols + k] = s->factor[k * s->ld_factor + j];
    memcpy (c->base + j * QZ_CHAIN_ROWS, s->target + j * s->ld, sizeof (float) * s->n_rows);
  }
  for (guint state = 0; state < c->n_states; state++)
    c->cost[state] = state == c->state ? 0 : XB_COST_BARRED;
}

/* Extends the paths by a column. */
static void extend (QzChain *c, const QzSegment *s, guint j)
{
  const QzTrellis *t = c->t;
  float x[QZ_CHAIN_ROWS], weight[QZ_CHAIN_ROWS], share = c->most_pivot > 0 ? s->pivots[j] / c->most_pivot : 1;
  float most = xb_trellis_most_cost (&t->search) * t->unit_scale * t->unit_scale / most_error[t->search.depth];
  for (guint i = 0; i < QZ_CHAIN_ROWS; i++) {
    guint r = xb_chain_row (i);
    gboolean is_there = r < s->n_rows;
    x[i] = is_there ? CLAMP (s->target[j * s->ld + r] * c->inverse[r], -128.0f, 127.0f) : 0;
    weight[i] = is_there ? most * MAX (share * c->row_share[r], least_share) : 0;
  }
  xb_trellis_extend (&t->search, c->cost, x, weight, QZ_CHAIN_ROWS, c->back + (gsize) j * QZ_CHAIN_ROWS * c->n_states);
}

/* The words of all columns up to j on the best path so far, of which those up to `known` have words of an earlier one: where the two meet they are one from
 * there on back. Returns the first column whose words may have changed. */
static guint trace (QzChain *c, guint known, guint j)
{
  guint16 least = G_MAXUINT16;
  guint state = 0;
  for (guint i = 0; i < c->n_states; i++)
    least = MIN (least, c->cost[i]);
  while (c->cost[state] != least)
    state++;
  for (guint i = (j + 1) * QZ_CHAIN_ROWS; i-- > 0;) {
    guint16 word = xb_trellis_trace (&c->t->search, c->back + (gsize) i * c->n_states, state);
    if (i < known * QZ_CHAIN_ROWS && c->words[i] == word)
      return i / QZ_CHAIN_ROWS;
    c->words[i] = word;
    state = word >> c->t->search.depth;
  }
  return 0;
}

/* The errors of column j, as the words have it now. */
static void settle (QzChain *c, const QzSegment *s, guint j)
{
  float *error = c->error + j * QZ_CHAIN_ROWS;
  for (guint i = 0; i < QZ_CHAIN_ROWS; i++) {
    guint r = xb_chain_row (i);
    float value = xb_trellis_value_of (&c->t->search, c->words[j * QZ_CHAIN_ROWS + i]);
    error[r] = r < s->n_rows ? s->weight[j * s->ld + r] - value * s->scale[r] : 0;
  }
}

/* The target of column j, with the errors of all before it as they are by now. */
static void complete (QzChain *c, const QzSegment *s, guint j)
{
  float sum[QZ_CHAIN_ROWS];
  memcpy (sum, c->base + j * QZ_CHAIN_ROWS, sizeof sum);
  for (guint k = 0; k < j; k++) {
    float f = c->factor[(gsize) j * c->most_cols + k];
    const float *error = c->error + k * QZ_CHAIN_ROWS;
    for (guint r = 0; r < QZ_CHAIN_ROWS; r++)
      sum[r] += f * error[r];
  }
  memcpy (s->target + j * s->ld, sum, sizeof (float) * s->n_rows);
}

void qz_chain_encode (QzChain *c, const QzSegment *s, guint8 *codes, float *values)
{
  guint seen = s->n_cols + s->ahead;
  begin_segment (c, s);
  for (guint j = 0; j < seen; j++) {
    if (s->factor != NULL && j > 0) {
      for (guint k = trace (c, j - 1, j - 1); k < j; k++)
        settle (c, s, k);
      complete (c, s, j);
    }
    extend (c, s, j);
  }
  trace (c, s->factor != NULL ? seen - 1 : 0, seen - 1);
  c->state = c->words[s->n_cols * QZ_CHAIN_ROWS - 1] & (c->n_states - 1);
  for (guint j = 0; j < seen; j++) {
    if (s->factor != NULL && j > 0)
      complete (c, s, j); /* errors of columns that are done are then what they are */
    for (guint i = 0; j < s->n_cols && i < QZ_CHAIN_ROWS; i++) {
      guint r = xb_chain_row (i), word = c->words[j * QZ_CHAIN_ROWS + i];
      codes[j * QZ_CHAIN_ROWS + r] = word & ((1u << c->t->search.depth) - 1);
      values[j * QZ_CHAIN_ROWS + r] = r < s->n_rows ? xb_trellis_value_of (&c->t->search, word) * s->scale[r] : 0;
    }
    if (s->factor != NULL && j < s->n_cols)
      settle (c, s, j);
  }
}
