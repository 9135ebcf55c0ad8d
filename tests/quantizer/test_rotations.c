/* test_rotations.c: rotations stay orthogonal and go downhill, the model stays the same in other coordinates, and what is learned is worth it. */
#include "engine/error.h"
#include "engine/session.h"
#include "quantizer/observe.h"
#include "quantizer/rotation.h"
#include "quantizer/rounding.h"
#include "quantizer/spin.h"
#include "quantizer/transform.h"
#include "tests/fixtures/tiny_model.h"

#include <math.h>
#include <string.h>

static EngWorkers *workers;

static double from_orthogonal (guint n, const float *r)
{
  double worst = 0;
  for (guint i = 0; i < n; i++)
    for (guint j = 0; j < n; j++) {
      double sum = 0;
      for (guint k = 0; k < n; k++)
        sum += (double) r[i * n + k] * r[j * n + k];
      worst = MAX (worst, fabs (sum - (i == j)));
    }
  return worst;
}

static float *random_floats (gsize n, guint64 seed)
{
  float *out = g_new (float, n);
  for (gsize i = 0; i < n; i++)
    out[i] = 2 * qz_random_unit (&seed) - 1;
  return out;
}

static void test_begin (void)
{
  static const guint sizes[] = { 1, 7, 32, 80, 96, 576 };
  for (guint k = 0; k < G_N_ELEMENTS (sizes); k++) {
    guint n = sizes[k];
    g_autofree float *r = g_new (float, n * n), *other = g_new (float, n * n);
    qz_rotation_init (n, 3, r);
    qz_rotation_init (n, 4, other);
    g_assert_cmpfloat (from_orthogonal (n, r), <, 1e-6);
    for (guint i = 0; i < n * n; i++)
      g_assert_cmpfloat (r[i] * r[i] * n, <, 2.0001);
    g_assert_true (n == 1 || memcmp (r, other, sizeof (float) * n * n) != 0);
  }
}

/* Each axis lies in the group that its place in the order says, evenly. */
static void test_begin_grouped (void)
{
  enum { N = 80, GROUP_AXES = 64 };
  guint32 order[N];
  float r[N * N];
  for (guint k = 0; k < N; k++)
    order[k] = (k * 33 + 7) % N;
  qz_rotation_init_grouped (N, order, 3, r);
  g_assert_cmpfloat (from_orthogonal (N, r), <, 1e-6);
  for (guint k = 0; k < N; k++)
    for (guint j = 0; j < N; j++) {
      guint size = k < GROUP_AXES ? GROUP_AXES : N - GROUP_AXES;
      g_assert_cmpfloat_with_epsilon (fabs (r[order[k] * N + j]), k / GROUP_AXES == j / GROUP_AXES ? 1 / sqrt (size) : 0, 1e-6);
    }
}

/* x a = b for each of n right sides, in double: elimination with pivots. */
static void solve (guint n, double *a, double *b)
{
  for (guint c = 0; c < n; c++) {
    guint pivot = c;
    for (guint i = c; i < n; i++)
      pivot = fabs (a[i * n + c]) > fabs (a[pivot * n + c]) ? i : pivot;
    for (guint j = 0; j < n; j++) {
      double t = a[c * n + j], u = b[c * n + j];
      a[c * n + j] = a[pivot * n + j];
      b[c * n + j] = b[pivot * n + j];
      a[pivot * n + j] = t;
      b[pivot * n + j] = u;
    }
    for (guint i = 0; i < n; i++) {
      double f = i == c ? 0 : a[i * n + c] / a[c * n + c];
      for (guint j = 0; j < n; j++) {
        a[i * n + j] -= f * a[c * n + j];
        b[i * n + j] -= f * b[c * n + j];
      }
    }
  }
  for (guint i = 0; i < n * n; i++)
    b[i] /= a[i / n * n + i / n];
}

/* The first step, which goes as far for every pair of axes, against the transform itself: r (1 - a / 2)^-1 (1 + a / 2). */
static void test_cayley (void)
{
  enum { N = 24 };
  const double turn = 0.2;
  g_autofree float *slope = random_floats (N * N, 5), *kept = g_memdup2 (slope, sizeof (float) * N * N);
  float r[N * N], begun[N * N], mean[N * N] = { 0 }, square[N * N] = { 0 };
  double a[N * N], minus[N * N], plus[N * N];
  qz_rotation_init (N, 1, r);
  memcpy (begun, r, sizeof r);
  QzRotation rotation = { N, r, mean, square };
  qz_rotation_step (&rotation, workers, 0, turn, slope);
  for (guint i = 0; i < N * N; i++) {
    float mirrored = kept[i % N * N + i / N];
    a[i] = ((mirrored > kept[i]) - (mirrored < kept[i])) * turn / sqrt (N);
    minus[i] = (i % N == i / N) - a[i] / 2;
    plus[i] = (i % N == i / N) + a[i] / 2;
  }
  solve (N, minus, plus);
  for (guint i = 0; i < N; i++)
    for (guint j = 0; j < N; j++) {
      double sum = 0;
      for (guint k = 0; k < N; k++)
        sum += begun[i * N + k] * plus[k * N + j];
      g_assert_cmpfloat (fabs (sum - r[i * N + j]), <, 2e-6);
    }
}

/* Towards another rotation: |r - to|^2 / 2, whose slope is -r^T to. */
static void test_descent (void)
{
  enum { N = 48, STEPS = 120 };
  g_autofree float *r = g_new (float, N * N), *to = g_new (float, N * N), *slope = random_floats (N * N, 9);
  g_autofree float *moments = g_new0 (float, 4 * N * N);
  double before = INFINITY;
  qz_rotation_init (N, 1, r);
  memcpy (to, r, sizeof (float) * N * N);
  qz_rotation_step (&(QzRotation){ N, to, moments, moments + N * N }, workers, 0, 0.8, slope);
  QzRotation rotation = { N, r, moments + 2 * N * N, moments + 3 * N * N };
  for (guint step = 0; step < STEPS; step++) {
    double loss = 0;
    for (guint i = 0; i < N * N; i++)
      loss += (r[i] - to[i]) * (r[i] - to[i]) / 2;
    if (step % 40 == 0) {
      g_assert_cmpfloat (loss, <, 0.5 * before);
      before = loss;
    }
    for (guint i = 0; i < N; i++)
      for (guint j = 0; j < N; j++) {
        slope[i * N + j] = 0;
        for (guint k = 0; k < N; k++)
          slope[i * N + j] -= r[k * N + i] * to[k * N + j];
      }
    qz_rotation_step (&rotation, workers, step, 0.05 * (1 - step / (double) STEPS), slope);
    g_assert_cmpfloat (from_orthogonal (N, r), <, 1e-6);
  }
}

/* Also where products are wide enough that statistics would be rounded. */
static void test_wide (void)
{
  enum { N = 272 };
  g_autofree float *r = g_new (float, N * N), *begun = g_new (float, N * N), *moments = g_new0 (float, 2 * N * N), *slope = random_floats (N * N, 4);
  g_autofree float *back = g_new (float, N * N);
  qz_rotation_init (N, 1, begun);
  memcpy (r, begun, sizeof (float) * N * N);
  qz_rotation_step (&(QzRotation){ N, r, moments, moments + N * N }, workers, 0, 0.3, slope);
  g_assert_cmpfloat (from_orthogonal (N, r), <, 1e-6);
  qz_rotate_rows (workers, FALSE, N, N, begun, r, slope);
  qz_rotate_rows (workers, TRUE, N, N, slope, r, back);
  for (guint i = 0; i < N * N; i++)
    g_assert_cmpfloat_with_epsilon (back[i], begun[i], 1e-6);
}

/* ---- what rounding costs ------------------------------------------------------------------------------------------------- */

enum { COLS = 96, AXES = 48, TOKENS = 5, GROUP = 32 };

static void turn_in_double (const double *r, const float *x, double *out)
{
  for (guint at = 0; at < COLS; at += AXES)
    for (guint j = 0; j < AXES; j++) {
      out[at + j] = 0;
      for (guint i = 0; i < AXES; i++)
        out[at + j] += x[at + i] * r[i * AXES + j];
    }
}

/* Groups of 32 lie across the stretches that are turned. */
static double cost_in_double (const double *r, const float *x, const float *g)
{
  double cost = 0, v[COLS], d[COLS];
  for (guint t = 0; t < TOKENS; t++) {
    turn_in_double (r, x + t * COLS, v);
    turn_in_double (r, g + t * COLS, d);
    for (guint at = 0; at < COLS; at += GROUP) {
      double peak = 0, squares = 0;
      for (guint j = at; j < at + GROUP; j++) {
        peak = MAX (peak, fabs (v[j]));
        squares += d[j] * d[j];
      }
      cost += 0.5 * squares * (peak / 7) * (peak / 7) / 12;
    }
  }
  return cost;
}

static void test_cost (void)
{
  g_autofree float *x = random_floats (TOKENS * COLS, 1), *g = random_floats (TOKENS * COLS, 2), *r = g_new (float, AXES * AXES);
  g_autofree float *scratch = g_new (float, 4 * TOKENS * COLS), *slope = g_new0 (float, AXES * AXES);
  double settled[AXES * AXES], turned[AXES * AXES], largest = 0;
  qz_rotation_init (AXES, 7, r);
  memcpy (scratch, x, sizeof (float) * TOKENS * COLS);
  memcpy (scratch + TOKENS * COLS, g, sizeof (float) * TOKENS * COLS);
  double cost = qz_rounding_cost (workers, TOKENS, COLS, AXES, r, scratch, scratch + TOKENS * COLS, scratch + 2 * TOKENS * COLS, slope);
  for (guint i = 0; i < AXES * AXES; i++) {
    settled[i] = r[i];
    largest = MAX (largest, fabs (slope[i] - slope[i % AXES * AXES + i / AXES]));
  }
  g_assert_cmpfloat_with_epsilon (cost, cost_in_double (settled, x, g), 1e-5 * cost);
  for (guint k = 0; k < 40; k++) {
    guint a = (k * 13 + 1) % AXES, b = (k * 29 + 5) % AXES;
    double costs[2];
    for (guint side = 0; a != b && side < 2; side++) { /* axes a and b turn by an angle to either side */
      double angle = side == 0 ? -1e-5 : 1e-5;
      memcpy (turned, settled, sizeof turned);
      for (guint i = 0; i < AXES; i++) {
        turned[i * AXES + a] = cos (angle) * settled[i * AXES + a] - sin (angle) * settled[i * AXES + b];
        turned[i * AXES + b] = sin (angle) * settled[i * AXES + a] + cos (angle) * settled[i * AXES + b];
      }
      costs[side] = cost_in_double (turned, x, g);
    }
    if (a != b)
      g_assert_cmpfloat (fabs ((costs[1] - costs[0]) / 2e-5 - (slope[a * AXES + b] - slope[b * AXES + a])), <, 1e-3 * largest);
  }
}

/* The estimate against rounding itself: the sum of (g . e)^2 / 2 over many random directions of g, each group's errors as they really are. */
static void test_cost_is_real (void)
{
  enum { N = 4000, DIM = 64 };
  g_autofree float *x = g_new (float, N * DIM), *g = random_floats (N * DIM, 2), *scratch = g_new (float, 2 * N * DIM), *slope = g_new0 (float, DIM * DIM);
  float r[DIM * DIM] = { 0 };
  guint64 state = 5;
  double real = 0;
  for (guint i = 0; i < N * DIM; i++) {
    x[i] = 0;
    for (guint k = 0; k < 12; k++)
      x[i] += qz_random_unit (&state) - 0.5;
  }
  for (guint i = 0; i < DIM; i++)
    r[i * DIM + i] = 1;
  for (guint t = 0; t < N; t++)
    for (guint at = 0; at < DIM; at += GROUP) {
      const float *v = x + t * DIM + at, *d = g + t * DIM + at;
      double peak = 0, sum = 0;
      for (guint j = 0; j < GROUP; j++)
        peak = MAX (peak, fabs (v[j]));
      for (guint j = 0; j < GROUP; j++)
        sum += d[j] * (peak / 7 * rint (v[j] / peak * 7) - v[j]);
      real += sum * sum / 2;
    }
  double cost = qz_rounding_cost (workers, N, DIM, DIM, r, x, g, scratch, slope);
  g_test_message ("expected %.4f, real %.4f", cost, real);
  g_assert_cmpfloat (fabs (cost / real - 1), <, 0.08);
}

/* ---- the rotated model --------------------------------------------------------------------------------------------------- */

static double worst_error (const float *a, const float *b, gsize n)
{
  double worst = 0, largest = 0;
  for (gsize i = 0; i < n; i++) {
    worst = MAX (worst, fabs ((double) a[i] - b[i]));
    largest = MAX (largest, fabs (a[i]));
  }
  return worst / largest;
}

/* Final states of the float pass. */
static float *states_of (const QzSource *source, guint n, const gint32 *tokens)
{
  g_autoptr (GError) error = NULL;
  g_autofree gint32 *twice = g_new (gint32, 2 * n);
  memcpy (twice, tokens, sizeof (gint32) * n);
  memcpy (twice + n, tokens, sizeof (gint32) * n);
  QzCalibration calibration = { .n_tokens = n, .n_sequences = 1, .n_held = 1, .tokens = twice };
  QzObservation observation;
  qz_observe (source, &calibration, &(QzObserver) { 0 }, workers, &observation, NULL, &error);
  g_assert_no_error (error);
  float *states = g_steal_pointer (&observation.held_hidden);
  qz_observation_clear (&observation);
  return states;
}

static float *logits_of (EngGguf *gguf, guint n, const gint32 *tokens)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (EngModel) model = eng_model_new (gguf, &error);
  g_assert_no_error (error);
  EngSessionOptions options = { .n_ctx = n, .batch = n, .activation_bits = 32, .kv_bits = 16 };
  g_autoptr (EngSession) session = eng_session_new (model, workers, &options, &error);
  g_assert_no_error (error);
  g_assert_true (eng_session_eval (session, tokens, n, TRUE, NULL, &error));
  return g_memdup2 (eng_session_logits_at (session, 0), sizeof (float) * n * eng_model_traits (model)->n_vocab);
}

/* The float pass gives the same states to the precision of f32, and the engine the same logits but for its cache, whose values are rounded in other
 * coordinates. */
static void test_same_model (gconstpointer name)
{
  enum { N = 32 };
  g_autofree char *file = g_strconcat (name, ".gguf", NULL), *path = g_test_build_filename (G_TEST_DIST, "fixtures", "decoders", file, NULL);
  g_autofree char *rotated_path = tiny_model_path ("rotated.gguf");
  g_autoptr (GError) error = NULL;
  gint32 tokens[N];
  QzRotations rotations;
  g_autoptr (EngGguf) gguf = eng_gguf_open (path, &error);
  g_autoptr (QzSource) source = qz_source_new (gguf, &error);
  g_assert_no_error (error);
  for (guint i = 0; i < N; i++)
    tokens[i] = (i * i * 7 + 3 * i) % source->traits.n_vocab;
  qz_rotations_init (&rotations, &source->traits, 11);
  g_assert_true (qz_rotate_write (source, &rotations, ENG_TYPE_F32, rotated_path, workers, NULL, &error));
  g_assert_no_error (error);
  g_autoptr (EngGguf) rotated_gguf = eng_gguf_open (rotated_path, &error);
  g_autoptr (QzSource) rotated = qz_source_new (rotated_gguf, &error);
  g_assert_no_error (error);
  g_assert_false (qz_rotate_check (rotated, NULL));
  g_autofree float *states = states_of (source, N, tokens), *rotated_states = states_of (rotated, N, tokens);
  g_autofree float *logits = logits_of (gguf, N, tokens), *rotated_logits = logits_of (rotated_gguf, N, tokens);
  double of_pass = worst_error (states, rotated_states, (gsize) N * source->traits.n_embd);
  double of_engine = worst_error (logits, rotated_logits, (gsize) N * source->traits.n_vocab);
  g_test_message ("%s: states within %.2g, the engine's logits within %.2g of the largest", (const char *) name, of_pass, of_engine);
  if (of_pass > 2e-5 || of_engine > 5e-3)
    g_test_fail_printf ("%s: states differ by %g, the engine's logits by %g of the largest", (const char *) name, of_pass, of_engine);
  qz_rotations_clear (&rotations);
}

static void test_refused (gconstpointer name)
{
  g_autofree char *file = g_strconcat (name, ".gguf", NULL), *path = g_test_build_filename (G_TEST_DIST, "fixtures", "decoders", file, NULL);
  g_autofree char *rotated_path = tiny_model_path ("refused.gguf");
  g_autoptr (GError) error = NULL;
  g_autoptr (EngGguf) gguf = eng_gguf_open (path, &error);
  g_assert_no_error (error);
  g_assert_false (qz_fold_rotations (gguf, &(QzOptions){ .method = QZ_METHOD_SPINQUANT }, rotated_path, workers, NULL, NULL, NULL, &error));
  g_assert_error (error, ENG_ERROR, ENG_ERROR_UNSUPPORTED);
  g_assert_nonnull (strstr (error->message, "cannot be rotated: "));
  g_assert_false (g_file_test (rotated_path, G_FILE_TEST_EXISTS));
}

/* ---- learning ------------------------------------------------------------------------------------------------------------ */

static void test_learning (void)
{
  enum { STEPS = 96, SEQUENCES = 4, ROUND = 2 * SEQUENCES, N = 64 };
  g_autofree char *path = tiny_model_path ("learned.gguf");
  g_autoptr (GError) error = NULL;
  TinyModel model = TINY_MODEL_DEFAULTS;
  model.row = tiny_outlying_row;
  tiny_model_write (&model, path);
  g_autoptr (EngGguf) gguf = eng_gguf_open (path, &error);
  g_autoptr (QzSource) source = qz_source_new (gguf, &error);
  g_assert_no_error (error);
  gint32 tokens[(SEQUENCES + 1) * N];
  for (guint i = 0; i < G_N_ELEMENTS (tokens); i++)
    tokens[i] = (i * i * 7 + 3 * i) % source->traits.n_vocab;
  QzCalibration calibration = { .n_tokens = N, .n_sequences = SEQUENCES, .n_held = 1, .tokens = tokens };
  QzSpin spin = { .source = source, .calibration = &calibration, .n_steps = STEPS };
  QzRotations learned[2];
  double costs[STEPS], first = 0, last = 0;
  for (guint k = 0; k < 2; k++) {
    EngWorkers *some = eng_workers_new (k == 0 ? 1 : 3);
    qz_rotations_init (&learned[k], &source->traits, 2);
    g_assert_true (qz_spin (&spin, &learned[k], costs, some, NULL, &error));
    eng_workers_free (some);
  }
  for (guint i = 0; i < ROUND; i++) {
    first += costs[i] / ROUND;
    last += costs[STEPS - ROUND + i] / ROUND;
  }
  g_test_message ("expected cost of rounding: %.4f nats at first, %.4f at last", first, last);
  g_assert_cmpfloat (last, <, 0.8 * first);
  guint embd = source->traits.n_embd, dim = source->traits.value_dim;
  g_assert_cmpmem (learned[0].stream, sizeof (float) * embd * embd, learned[1].stream, sizeof (float) * embd * embd);
  g_assert_cmpmem (learned[0].heads, sizeof (float) * dim * dim * source->traits.n_layers, learned[1].heads,
                   sizeof (float) * dim * dim * source->traits.n_layers);
  g_assert_cmpfloat (from_orthogonal (embd, learned[0].stream), <, 1e-6);
  for (guint l = 0; l < source->traits.n_layers; l++)
    g_assert_cmpfloat (from_orthogonal (dim, learned[0].heads + l * dim * dim), <, 1e-6);
  qz_rotations_clear (&learned[0]);
  qz_rotations_clear (&learned[1]);
}

int main (int argc, char **argv)
{
  static const char *const same[] = { "llama", "qwen2", "phi3", "granite", "mixtral", "qwen2moe", "deepseek2", "deepseek3", "gpt_oss", "bitnet", "hunyuan_moe", "gemma" };
  static const char *const refused[] = { "gemma3", "olmo2", "gpt2", "falcon", "phi2" };
  g_test_init (&argc, &argv, NULL);
  workers = eng_workers_new (2);
  g_test_add_func ("/rotations/begin-orthogonal-and-even", test_begin);
  g_test_add_func ("/rotations/begin-in-groups", test_begin_grouped);
  g_test_add_func ("/rotations/step-is-cayleys", test_cayley);
  g_test_add_func ("/rotations/descend-and-stay-orthogonal", test_descent);
  g_test_add_func ("/rotations/wide-ones-as-exact", test_wide);
  g_test_add_func ("/rotations/cost-of-rounding-and-its-slope", test_cost);
  g_test_add_func ("/rotations/cost-is-what-rounding-does", test_cost_is_real);
  for (guint i = 0; i < G_N_ELEMENTS (same); i++) {
    g_autofree char *test = g_strconcat ("/rotations/same-model/", same[i], NULL);
    g_test_add_data_func (test, same[i], test_same_model);
  }
  for (guint i = 0; i < G_N_ELEMENTS (refused); i++) {
    g_autofree char *test = g_strconcat ("/rotations/refused/", refused[i], NULL);
    g_test_add_data_func (test, refused[i], test_refused);
  }
  g_test_add_func ("/rotations/learning-lowers-the-divergence", test_learning);
  int status = g_test_run ();
  eng_workers_free (workers);
  tiny_model_clean ();
  return status;
}
