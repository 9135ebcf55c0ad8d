/* test_encode.c: the factor against numpy, and what is packed against what was promised: losses, depths, shapes of every kind. */
#include "kernels/dense.h"
#include "quantizer/codebook.h"
#include "quantizer/encode.h"
#include "quantizer/factor.h"
#include "quantizer/loudness.h"
#include "quantizer/product.h"
#include "quantizer/shape.h"
#include "quantizer/transform.h"

#include <math.h>
#include <string.h>

static float normal (guint64 *state)
{
  double u = qz_random_unit (state) + 1e-12, v = qz_random_unit (state);
  return sqrt (-2 * log (u)) * cos (2 * G_PI * v);
}

static void test_factor (void)
{
  enum { N = 70 };
  g_autofree char *path = g_test_build_filename (G_TEST_DIST, "fixtures", "gptq_factor.bin", NULL);
  g_autofree char *data = NULL;
  gsize size;
  g_autoptr (GError) error = NULL;
  g_file_get_contents (path, &data, &size, &error);
  g_assert_no_error (error);
  g_assert_cmpuint (size, ==, (2 * N * N + N) * sizeof (float));
  const float *h = (const float *) (gpointer) data, *expected = h + N * N, *pivots = expected + N * N;
  EngWorkers *workers = eng_workers_new (2);
  g_autofree float *f = g_memdup2 (h, sizeof (float) * N * N);
  float ours[N];
  g_assert_true (qz_factor (workers, f, N, 0.01, ours));
  for (guint i = 0; i < N; i++) {
    g_assert_cmpfloat (fabs (ours[i] - pivots[i]), <=, 1e-4 * pivots[i]);
    for (guint j = 0; j < N; j++)
      g_assert_cmpfloat (fabs (f[i * N + j] - expected[i * N + j]), <=, 1e-4 * (1 + fabs (expected[i * N + j])));
  }
  eng_workers_free (workers);
}

/* Moments of fewer samples than columns are singular; damping makes them usable. Of zeros nothing matters. */
static void test_singular (void)
{
  enum { N = 130 };
  EngWorkers *workers = eng_workers_new (1);
  g_autofree float *h = g_new0 (float, N * N);
  float pivots[N];
  for (guint i = 0; i < N; i++)
    for (guint j = 0; j < N; j++)
      h[i * N + j] = (1 + i % 3) * (1 + j % 3);
  g_assert_true (qz_factor (workers, h, N, 0.01, pivots));
  for (guint i = 0; i < N; i++)
    g_assert_true (isfinite (pivots[i]) && pivots[i] > 0);
  memset (h, 0, sizeof (float) * N * N);
  g_assert_true (qz_factor (workers, h, N, 0.01, pivots));
  g_assert_true (h[0] == 1 && h[1] == 0 && pivots[0] == 0);
  h[0] = NAN;
  g_assert_false (qz_factor (workers, h, N, 0.01, pivots));
  eng_workers_free (workers);
}

typedef struct {
  guint rows, cols;
  guint8 kind, group;
  float *w, *h, *factor, *pivots;
  guint8 *depths;
  QzShape shape;
  EngWorkers *workers;
} Case;

/* Inputs that are strongly correlated, as those of a language model are. */
static void case_init (Case *c, guint rows, guint cols, guint8 kind, guint8 group)
{
  guint64 state = 11;
  guint samples = 3 * cols;
  *c = (Case){ rows, cols, kind, group };
  c->workers = eng_workers_new (1);
  c->shape = (QzShape){ rows, cols, kind, group };
  c->w = g_new (float, rows * cols);
  for (guint i = 0; i < rows * cols; i++)
    c->w[i] = 0.05f * normal (&state);
  g_autofree float *x = g_new (float, samples * cols);
  for (guint s = 0; s < samples; s++) {
    float shared[4] = { normal (&state), normal (&state), normal (&state), normal (&state) };
    for (guint j = 0; j < cols; j++)
      x[s * cols + j] = normal (&state) + 1.5f * shared[j % 4] + shared[j * 7 % 4] * (j % 5) * 0.3f;
  }
  c->h = g_new0 (float, cols * cols);
  xb_gemm (true, false, 0, cols, cols, samples, x, cols, x, cols, 0, c->h, cols);
  c->factor = g_memdup2 (c->h, sizeof (float) * cols * cols);
  c->pivots = g_new (float, cols);
  g_assert_true (qz_factor (c->workers, c->factor, cols, 1e-4, c->pivots));
  guint n_cells = qz_shape_n_cells (&c->shape);
  c->depths = g_malloc (n_cells);
}

static void case_clear (Case *c)
{
  g_free (c->w);
  g_free (c->h);
  g_free (c->factor);
  g_free (c->pivots);
  g_free (c->depths);
  eng_workers_free (c->workers);
}

typedef enum { ROUNDED, COMPENSATED } How;

/* Encodes everything; returns e H e^T over all rows, and checks what was promised on the way. */
static double encode (Case *c, How how)
{
  QzLayout layout;
  xb_error why = NULL;
  qz_layout_init (&layout, &c->shape, 0, c->depths);
  gsize size = xb_layout_bytes (&layout.layout, &why);
  g_assert_cmpstr (why, ==, NULL);
  QzLayout empty;
  qz_layout_init (&empty, &c->shape, 0, NULL);
  gsize counted = xb_layout_bytes (&empty.layout, &why);
  for (guint i = 0; i < qz_shape_n_cells (&c->shape); i++)
    counted += (gsize) c->depths[i] * qz_shape_unit_bytes (&c->shape, i);
  g_assert_cmpuint (size, ==, counted);
  g_assert_cmpuint (size % XB_ALIGN, ==, 0);
  qz_layout_clear (&empty);

  guint8 *blob = g_aligned_alloc (1, size, XB_ALIGN);
  g_assert_cmpstr (xb_matrix_init (blob, size, &layout.layout), ==, NULL);
  QzEncoder encoder = { &layout.layout, c->factor, c->pivots, .plain = how == ROUNDED };
  QzEncodeScratch *scratch = qz_encode_scratch_new (&encoder, 2 * QZ_STRIPE_ROWS);
  g_autofree double *losses = g_new (double, c->rows);
  for (guint row0 = 0; row0 < c->rows; row0 += 2 * QZ_STRIPE_ROWS) {
    guint n = MIN (2 * QZ_STRIPE_ROWS, c->rows - row0);
    g_assert_cmpstr (qz_encode_rows (&encoder, scratch, row0, n, c->w + row0 * c->cols, blob, size, losses + row0), ==, NULL);
  }
  qz_encode_scratch_free (scratch);

  xb_matrix *matrix = xb_matrix_open (blob, size, &why);
  g_assert_cmpstr (why, ==, NULL);
  const xb_layout *stored = xb_matrix_layout (matrix);
  for (guint i = 0; i < qz_shape_n_cells (&c->shape); i++)
    g_assert_cmpuint (stored->cells[i].depth, ==, c->depths[i]);
  g_autofree float *e = g_new (float, c->rows * c->cols);
  g_autofree float *eh = g_new (float, c->rows * c->cols);
  xb_dequantize_rows (matrix, 0, c->rows, e);
  for (guint i = 0; i < c->rows * c->cols; i++)
    e[i] = c->w[i] - e[i];
  xb_gemm (false, false, 0, c->rows, c->cols, c->cols, e, c->cols, c->h, c->cols, 0, eh, c->cols);
  double total = 0, trace = 0;
  for (guint j = 0; j < c->cols; j++)
    trace += c->h[j * c->cols + j];
  for (guint i = 0; i < c->rows; i++) {
    double sum = 0;
    for (guint j = 0; j < c->cols; j++) {
      sum += (double) e[i * c->cols + j] * eh[i * c->cols + j];
      /* The factor is that of the damped moments. */
      sum += 1e-4 * trace / c->cols * e[i * c->cols + j] * e[i * c->cols + j];
    }
    g_assert_cmpfloat (fabs (sum - losses[i]), <=, 0.01 * sum + 1e-9);
    total += sum;
  }
  xb_matrix_free (matrix);
  g_aligned_free (blob);
  qz_layout_clear (&layout);
  return total;
}

static const struct {
  guint rows, cols;
  guint8 kind, group;
} shapes[] = {
  { 128, 256, XB_SCALE_ROW_F16, 0 },    { 200, 200, XB_SCALE_ROW_F16, 0 },     { 128, 256, XB_SCALE_GROUP_I8, 64 },
  { 72, 576, XB_SCALE_GROUP_I8, 128 },  { 200, 200, XB_SCALE_GROUP_I8, 64 },   { 33, 328, XB_SCALE_GROUP_F16, 128 },
  { 17, 96, XB_SCALE_GROUP_F16, 32 },
};

/* The loss the encoder reports is that of the bytes it packed; cells of every depth stand side by side. */
static void test_promise (void)
{
  for (guint s = 0; s < G_N_ELEMENTS (shapes); s++) {
    Case c;
    case_init (&c, shapes[s].rows, shapes[s].cols, shapes[s].kind, shapes[s].group);
    for (guint shift = 0; shift < 9; shift += 4) {
      for (guint i = 0; i < qz_shape_n_cells (&c.shape); i++)
        c.depths[i] = (i * 5 + shift) % 9;
      for (c.shape.codes = QZ_CODES_TRELLIS; c.shape.codes <= QZ_CODES_TRELLIS16; c.shape.codes++) {
        encode (&c, COMPENSATED);
        encode (&c, ROUNDED);
      }
    }
    case_clear (&c);
  }
}

static void test_compensation (void)
{
  for (guint s = 0; s < 4; s++)
    for (guint depth = 2; depth <= 6; depth++) {
      Case c;
      case_init (&c, shapes[s].rows, shapes[s].cols, shapes[s].kind, shapes[s].group);
      memset (c.depths, depth, qz_shape_n_cells (&c.shape));
      double rounded = encode (&c, ROUNDED), compensated = encode (&c, COMPENSATED);
      g_test_message ("%u x %u, kind %u, %u bits: %g rounded, %g compensated", c.rows, c.cols, c.kind, depth, rounded, compensated);
      g_assert_cmpfloat (compensated, <, 0.6 * rounded);
      case_clear (&c);
    }
}

/* One weight of a row is 80 times the rest, in a channel that is 30 times as loud: what the Hadamard makes of them. Such a row loses little more than the others. */
static void test_loud_weight (void)
{
  enum { ROWS = 128 /* of which the last 64 are at depth 0 */, COLS = 1536, ROW = 21, FIRST = 64, BLOCK = QZ_HADAMARD_BLOCK };
  Case c;
  case_init (&c, ROWS, COLS, XB_SCALE_ROW_F16, 0);
  for (guint i = FIRST; i < FIRST + BLOCK; i++)
    for (guint j = FIRST; j < FIRST + BLOCK; j++)
      c.h[i * COLS + j] += (i % 3 ? 1 : -1) * (j % 3 ? 1 : -1) * 900 * c.h[0] / BLOCK;
  memcpy (c.factor, c.h, sizeof (float) * COLS * COLS);
  g_assert_true (qz_factor (c.workers, c.factor, COLS, 1e-4, c.pivots));
  float *w = c.w;
  memset (w + ROWS / 2 * COLS, 0, sizeof (float) * ROWS / 2 * COLS);
  c.depths[1] = 0;
  g_autofree float *loud = g_memdup2 (w, sizeof (float) * ROWS * COLS);
  for (guint j = FIRST; j < FIRST + BLOCK; j++)
    loud[ROW * COLS + j] += (j % 3 ? 1 : -1) * 80 * 0.05f / sqrtf (BLOCK);
  for (guint depth = 2; depth <= 5; depth++) {
    c.depths[0] = depth;
    double bell_shaped = encode (&c, COMPENSATED);
    c.w = loud;
    double with_loud = encode (&c, COMPENSATED);
    c.w = w;
    g_test_message ("%u bits: %g with bell-shaped weights, %g with a loud one", depth, bell_shaped, with_loud);
    g_assert_cmpfloat (with_loud, <, 2 * bell_shaped);
  }
  case_clear (&c);
}

/* The promise behind every curve: the error of a Gaussian at each depth is that of the books, or less, as 512 numbers have short tails. */
static void test_codebooks (void)
{
  enum { ROWS = 64, COLS = 512 };
  guint64 state = 3;
  g_autofree float *x = g_new (float, ROWS * COLS);
  g_autofree float *weight = g_new (float, COLS);
  g_autofree float *scratch = g_new (float, 5 * ROWS);
  float scale[ROWS], values[ROWS];
  guint8 codes[ROWS];
  for (guint i = 0; i < ROWS * COLS; i++)
    x[i] = normal (&state);
  for (guint j = 0; j < COLS; j++)
    weight[j] = 1;
  for (guint depth = 1; depth <= 8; depth++) {
    const QzCodebook *book = qz_codebook (QZ_CODES_UNIFORM, depth);
    double error = 0;
    qz_codebook_search (book, ROWS, COLS, x, ROWS, weight, NULL, scale, scratch);
    for (guint j = 0; j < COLS; j++) {
      qz_codebook_quantize (book, ROWS, x + j * ROWS, scale, codes, values);
      for (guint i = 0; i < ROWS; i++) {
        g_assert_cmpuint (codes[i], <, book->n_levels);
        error += (x[j * ROWS + i] - values[i]) * (x[j * ROWS + i] - values[i]);
      }
    }
    error /= ROWS * COLS;
    g_test_message ("%u bits: %g, expected %g", depth, error, book->unit_error);
    g_assert_cmpfloat (error, <, 1.06 * book->unit_error);
    g_assert_cmpfloat (error, >, 0.6 * book->unit_error);
  }
}

/* On a Gaussian each trellis reaches the error it is known for, and its codes mean what the X-bit matrix says they mean, from one segment to the next. */
static void test_trellis (void)
{
  enum { COLS = 4096, SEGMENT = 64, ROWS = QZ_CHAIN_ROWS };
  g_autofree float *x = g_new (float, COLS * ROWS);
  g_autofree float *values = g_new (float, COLS * ROWS);
  g_autofree guint8 *codes = g_malloc (COLS * ROWS);
  QzChain *chain = qz_chain_new (SEGMENT);
  for (guint kind = 2; kind < 2 * (XB_TRELLIS_DEPTH + 1); kind++) {
    xb_codebook codebook = kind % 2 ? XB_TRELLIS16 : XB_TRELLIS;
    guint depth = kind / 2, word_bits = xb_word_bits (codebook);
    if (!xb_trellis_has (codebook, depth))
      continue;
    const QzTrellis *t = qz_trellis (codebook, depth);
    float scale[ROWS], pivots[SEGMENT + 1];
    guint64 state = 5;
    double error = 0, energy = 0;
    for (guint i = 0; i < ROWS; i++)
      scale[i] = t->unit_scale;
    for (guint i = 0; i <= SEGMENT; i++)
      pivots[i] = 1;
    for (guint i = 0; i < COLS * ROWS; i++)
      x[i] = normal (&state);
    guint end = 0, word = 0;
    for (guint j = 0; j < COLS; j += SEGMENT) {
      QzSegment segment = { .n_rows = ROWS, .n_cols = SEGMENT, .ahead = j + SEGMENT < COLS, .ld = ROWS, .weight = x + j * ROWS, .target = x + j * ROWS, .scale = scale, .pivots = pivots };
      qz_chain_begin (chain, t, end);
      qz_chain_encode (chain, &segment, codes + j * ROWS, values + j * ROWS);
      end = qz_chain_end (chain);
    }
    for (guint i = 0; i < COLS * ROWS; i++) {
      guint at = i / ROWS * ROWS + xb_chain_row (i % ROWS);
      word = (word << depth | codes[at]) % (1u << word_bits);
      g_assert_cmpfloat_with_epsilon (values[at], xb_trellis_word (word_bits, depth, t->tables, word) * t->unit_scale, 1e-6);
      error += (x[at] - values[at]) * (x[at] - values[at]);
      energy += x[at] * x[at];
    }
    g_test_message ("%u bits, words of %u: %g, known for %g", depth, word_bits, error / energy, t->unit_error);
    g_assert_cmpfloat (error / energy, <, 1.08 * t->unit_error);
  }
  qz_chain_free (chain);
}

/* By a scale that is made for others, weights of 2^-1.5 to 2^2.5 times their deviation lose what each trellis has stored for it. */
static void test_deviations (void)
{
  enum { COLS = 512, SEGMENT = 64, ROWS = QZ_CHAIN_ROWS };
  g_autofree float *x = g_new (float, COLS * ROWS);
  g_autofree float *values = g_new (float, COLS * ROWS);
  g_autofree guint8 *codes = g_malloc (COLS * ROWS);
  QzChain *chain = qz_chain_new (SEGMENT);
  for (guint depth = 1; depth <= XB_TRELLIS_DEPTH; depth++)
    for (guint i = QZ_DEVIATION_STEPS / 2; i <= QZ_DEVIATION_STEPS * 9 / 2; i += QZ_DEVIATION_STEPS / 4) {
      const QzTrellis *t = qz_trellis (XB_TRELLIS, depth);
      float scale[ROWS], pivots[SEGMENT + 1], deviation = exp2f (QZ_LEAST_OCTAVES + (float) i / QZ_DEVIATION_STEPS);
      guint64 state = 6;
      guint end = 0;
      double error = 0;
      for (guint r = 0; r < ROWS; r++)
        scale[r] = t->unit_scale;
      for (guint j = 0; j <= SEGMENT; j++)
        pivots[j] = 1;
      for (guint k = 0; k < COLS * ROWS; k++)
        x[k] = deviation * normal (&state);
      for (guint j = 0; j < COLS; j += SEGMENT) {
        QzSegment segment = { .n_rows = ROWS, .n_cols = SEGMENT, .ahead = j + SEGMENT < COLS, .ld = ROWS, .weight = x + j * ROWS, .target = x + j * ROWS, .scale = scale, .pivots = pivots };
        qz_chain_begin (chain, t, end);
        qz_chain_encode (chain, &segment, codes + j * ROWS, values + j * ROWS);
        end = qz_chain_end (chain);
      }
      for (guint k = 0; k < COLS * ROWS; k++)
        error += (x[k] - values[k]) * (x[k] - values[k]) / (COLS * ROWS);
      g_test_message ("%u bits, deviation %.3f: %g, known for %g", depth, deviation, error, t->errors[i]);
      g_assert_cmpfloat (fabs (error - t->errors[i]), <, 0.4 * t->errors[i]);
    }
  qz_chain_free (chain);
}

/* A row of blocks that are not alike is given the scale that loses less than that of its variance would; one of like blocks about that one. */
static void test_scale_of_blocks (void)
{
  enum { COLS = 1024, LOUD = 64 };
  g_autofree float *x = g_new (float, COLS);
  g_autofree float *weight = g_new (float, COLS);
  float scale, scratch[5];
  for (guint loud = 0; loud < 2; loud++) {
    guint64 state = 8;
    for (guint j = 0; j < COLS; j++) {
      weight[j] = 1;
      x[j] = normal (&state) * (loud && j < LOUD ? 10 : 1);
    }
    double square = 0;
    for (guint j = 0; j < COLS; j++)
      square += x[j] * x[j] / COLS;
    const QzCodebook *book = qz_codebook (QZ_CODES_TRELLIS, 4);
    qz_codebook_search (book, 1, COLS, x, 1, weight, NULL, &scale, scratch);
    float by_variance = qz_codebook_first_scale (book, square);
    g_test_message ("%s: %g, by its variance %g", loud ? "one loud block" : "like blocks", scale, by_variance);
    g_assert_cmpfloat (scale, >, loud ? 2 * by_variance : 0.9 * by_variance);
    g_assert_cmpfloat (scale, <, loud ? 4.5 * by_variance : 1.2 * by_variance);
  }
}

/* Rows that are not there, and rows of scale 0, cost nothing and disturb nothing. */
static void test_ragged_chain (void)
{
  guint64 state = 9;
  float x[2 * 5], scale[5], values[2 * QZ_CHAIN_ROWS];
  const float pivots[] = { 0, 0 };
  guint8 codes[2 * QZ_CHAIN_ROWS];
  QzChain *chain = qz_chain_new (2);
  for (guint kind = 2; kind < 2 * (XB_TRELLIS_DEPTH + 1); kind++) {
    xb_codebook codebook = kind % 2 ? XB_TRELLIS16 : XB_TRELLIS;
    guint depth = kind / 2;
    if (!xb_trellis_has (codebook, depth))
      continue;
    const QzTrellis *t = qz_trellis (codebook, depth);
    for (guint i = 0; i < 10; i++)
      x[i] = normal (&state);
    for (guint i = 0; i < 5; i++)
      scale[i] = i == 2 ? 0 : t->unit_scale;
    QzSegment segment = { .n_rows = 5, .n_cols = 2, .ld = 5, .weight = x, .target = x, .scale = scale, .pivots = pivots };
    qz_chain_begin (chain, t, 0);
    qz_chain_encode (chain, &segment, codes, values);
    for (guint i = 0; i < 2 * QZ_CHAIN_ROWS; i++) {
      g_assert_cmpuint (codes[i], <, 1u << depth);
      g_assert_true (isfinite (values[i]));
      g_assert_true (i % 16 < 5 || values[i] == 0);
      g_assert_true (i % 16 != 2 || values[i] == 0);
    }
  }
  qz_chain_free (chain);
}

/* ---- loudness ------------------------------------------------------------------------------------------------------------ */

/* e F is what was drawn. */
static void test_solve (void)
{
  enum { ROWS = 3, COLS = 150 };
  guint64 state = 4;
  g_autofree float *f = g_new0 (float, COLS * COLS), *drawn = g_new (float, ROWS * COLS);
  for (guint i = 0; i < COLS; i++) {
    f[i * COLS + i] = 1;
    for (guint j = i + 1; j < COLS; j++)
      f[i * COLS + j] = 0.1f * normal (&state);
  }
  for (guint i = 0; i < ROWS * COLS; i++)
    drawn[i] = normal (&state);
  g_autofree float *e = g_memdup2 (drawn, sizeof (float) * ROWS * COLS);
  qz_factor_solve (f, ROWS, COLS, e);
  for (guint i = 0; i < ROWS; i++)
    for (guint j = 0; j < COLS; j++) {
      double back = 0;
      for (guint k = 0; k <= j; k++)
        back += (double) e[i * COLS + k] * f[k * COLS + j];
      g_assert_cmpfloat (fabs (back - drawn[i * COLS + j]), <=, 1e-4);
    }
}

/* Tokens of very different loudness whose channels go together. */
static float *draw_tokens (guint n, guint cols)
{
  enum { DIRECTIONS = 20 };
  guint64 state = 11;
  g_autofree float *directions = g_new (float, DIRECTIONS * cols);
  float *x = g_new (float, (gsize) n * cols);
  for (guint i = 0; i < DIRECTIONS * cols; i++)
    directions[i] = normal (&state);
  for (guint i = 0; i < n; i++) {
    float loud = exp (normal (&state)), *row = x + (gsize) i * cols;
    for (guint j = 0; j < cols; j++)
      row[j] = loud * 0.3f * normal (&state);
    for (guint d = 0; d < DIRECTIONS; d++) {
      float much = loud * normal (&state);
      for (guint j = 0; j < cols; j++)
        row[j] += much * directions[d * cols + j];
    }
  }
  return x;
}

/* |F^-1 x|^2 over the sum of the pivots, x behind the pipeline. */
static double exact_loudness (const float *f, const float *pivots, const float *x, guint cols)
{
  g_autofree double *y = g_new (double, cols);
  double square = 0, sum = 0;
  for (guint j = cols; j-- > 0;) {
    y[j] = x[j];
    for (guint k = j + 1; k < cols; k++)
      y[j] -= f[j * cols + k] * y[k];
    square += y[j] * y[j];
    sum += pivots[j];
  }
  return square / sum;
}

static void test_loudness (void)
{
  enum { N = 600, COLS = 192, DRAWS = 60 };
  g_autoptr (GError) error = NULL;
  EngWorkers *workers = eng_workers_new (2);
  float diagonal[COLS], pivots[COLS], weights[N], behind[COLS];
  double mean_weights[N] = { 0 };
  for (guint j = 0; j < COLS; j++)
    diagonal[j] = 0.5 + j % 3;
  QzTransform *transform = qz_transform_new (COLS, 3, diagonal, &error);
  g_assert_no_error (error);
  g_autofree float *x = draw_tokens (N, COLS), *f = g_new0 (float, COLS * COLS);
  qz_product_exact (workers, true, false, COLS, COLS, N, x, COLS, x, COLS, 0, f, COLS);
  for (guint i = 0; i < COLS * COLS; i++)
    f[i] /= N;
  qz_transform_moments (transform, workers, 0, COLS, f);
  g_assert_true (qz_factor (workers, f, COLS, 1e-6, pivots));
  g_autofree guint16 *errors = g_new (guint16, QZ_ERROR_ROWS * COLS);
  for (guint seed = 0; seed < DRAWS; seed++) {
    double mean = 0;
    qz_loudness_learn (transform, seed, 0, COLS, f, errors);
    qz_loudness_finish (transform, errors);
    qz_loudness_weigh (workers, COLS, errors, pivots, N, x, COLS, weights);
    for (guint i = 0; i < N; i++) {
      mean += weights[i] / N;
      mean_weights[i] += weights[i] / DRAWS;
    }
    g_assert_cmpfloat (fabs (mean - 1), <=, 0.02); /* whatever is drawn */
  }
  for (guint i = 0; i < N; i++) {
    xb_input_apply (transform->input, x + i * COLS, behind);
    double exact = exact_loudness (f, pivots, behind, COLS);
    g_assert_cmpfloat (fabs (mean_weights[i] - exact), <=, 0.3 * exact);
  }
  qz_transform_free (transform);
  eng_workers_free (workers);
}

int main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/factor/equals-gptq", test_factor);
  g_test_add_func ("/factor/singular-moments", test_singular);
  g_test_add_func ("/factor/solve", test_solve);
  g_test_add_func ("/loudness/of-tokens", test_loudness);
  g_test_add_func ("/codebook/error-of-a-gaussian", test_codebooks);
  g_test_add_func ("/trellis/error-of-a-gaussian", test_trellis);
  g_test_add_func ("/trellis/other-deviations", test_deviations);
  g_test_add_func ("/trellis/scale-of-unlike-blocks", test_scale_of_blocks);
  g_test_add_func ("/trellis/ragged-chain", test_ragged_chain);
  g_test_add_func ("/encode/loss-is-that-of-the-bytes", test_promise);
  g_test_add_func ("/encode/compensation-beats-rounding", test_compensation);
  g_test_add_func ("/encode/loud-weight", test_loud_weight);
  return g_test_run ();
}
