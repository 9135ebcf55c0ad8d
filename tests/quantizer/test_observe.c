/* test_observe.c: what is observed against other computations of the same: logits from numpy, moments from the engine's decoder, and the
 * loss that moments and Fisher information predict against the divergence of a model that was really changed. */
#include "engine/session.h"
#include "kernels/ops.h"
#include "quantizer/head.h"
#include "quantizer/observe.h"
#include "quantizer/transform.h"
#include "tests/fixtures/tiny_model.h"

#include <glib/gstdio.h>
#include <math.h>
#include <string.h>

static QzSource *open_source (const char *path)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (EngGguf) gguf = eng_gguf_open (path, &error);
  g_assert_no_error (error);
  QzSource *source = qz_source_new (gguf, &error);
  g_assert_no_error (error);
  return source;
}

static gboolean ignore_moments (gpointer data, guint input, guint factor, QzMoments *h, GError **error)
{
  return TRUE;
}

/* Final hidden states of n_sequences x n_tokens, as the observation leaves them of held-out sequences. */
static float *run_source (const QzSource *source, EngWorkers *workers, const gint32 *tokens, guint n_sequences, guint n_tokens)
{
  QzObservation observation;
  g_autoptr (GError) error = NULL;
  g_autofree gint32 *all = g_new (gint32, (n_sequences + 1) * n_tokens);
  memcpy (all, tokens, sizeof (gint32) * n_tokens);
  memcpy (all + n_tokens, tokens, sizeof (gint32) * n_sequences * n_tokens);
  QzCalibration calibration = { .n_tokens = n_tokens, .n_sequences = 1, .n_held = n_sequences, .tokens = all };
  qz_observe (source, &calibration, &(QzObserver) { .moments = ignore_moments, .backward_tokens = 1 }, workers, &observation, NULL, &error);
  g_assert_no_error (error);
  float *f = g_steal_pointer (&observation.held_hidden);
  qz_observation_clear (&observation);
  return f;
}

static float *logits_of (const QzSource *source, EngWorkers *workers, const gint32 *tokens, guint n_sequences, guint n_tokens)
{
  guint n = n_sequences * n_tokens;
  g_autofree float *f = run_source (source, workers, tokens, n_sequences, n_tokens);
  float *logits = g_new (float, n * source->traits.n_vocab);
  g_assert_true (qz_head_logits (source, workers, f, n, logits, NULL));
  return logits;
}

/* Divergence, its gradient and the rows' slopes against double precision and finite differences. */
static void test_distil (void)
{
  enum { N = 6 };
  TinyModel model = TINY_MODEL_DEFAULTS;
  g_autofree char *path = tiny_model_path ("distil.gguf");
  tiny_model_write (&model, path);
  g_autoptr (QzSource) source = open_source (path);
  EngWorkers *workers = eng_workers_new (2);
  guint embd = source->traits.n_embd, n_vocab = source->traits.n_vocab;
  g_autofree float *f = g_new (float, N * embd), *taught = g_new (float, N * embd), *df = g_new (float, N * embd), *spare = g_new (float, N * embd);
  g_autofree float *a = g_new (float, N * n_vocab), *b = g_new (float, N * n_vocab), *scratch = g_new (float, 2 * N * n_vocab);
  g_autofree float *slope = g_new0 (float, n_vocab), *unused = g_new0 (float, n_vocab);
  g_autofree double *expected = g_new0 (double, n_vocab);
  double kl[N], moved[2][N];
  for (guint i = 0; i < N * embd; i++) {
    f[i] = sinf (0.7f * i) * 2;
    taught[i] = f[i] + 0.3f * cosf (1.3f * i);
  }
  g_assert_true (qz_head_distil (source, source, workers, f, taught, N, scratch, slope, kl, df, NULL));
  g_assert_true (qz_head_logits (source, workers, taught, N, a, NULL) && qz_head_logits (source, workers, f, N, b, NULL));
  for (guint i = 0; i < N; i++) {
    const float *p = a + i * n_vocab, *q = b + i * n_vocab;
    double log_p = xb_log_sum_exp (p, n_vocab), log_q = xb_log_sum_exp (q, n_vocab), sum = 0;
    for (guint v = 0; v < n_vocab; v++) {
      sum += exp (p[v] - log_p) * (p[v] - log_p - q[v] + log_q);
      expected[v] += (exp (q[v] - log_q) - exp (p[v] - log_p)) * q[v]; /* neither bias nor cap: the logit is the output */
    }
    g_assert_cmpfloat (sum, >, 1e-3);
    g_assert_cmpfloat (fabs (kl[i] - sum), <=, 1e-4 * sum + 1e-6);
  }
  for (guint v = 0; v < n_vocab; v++)
    g_assert_cmpfloat (fabs (slope[v] - expected[v]), <=, 1e-3f);
  for (guint j = 0; j < embd; j += 7) {
    for (guint side = 0; side < 2; side++) {
      g_autofree float *near = g_memdup2 (f, sizeof (float) * N * embd);
      for (guint i = 0; i < N; i++)
        near[i * embd + j] += side ? 0.02f : -0.02f;
      g_assert_true (qz_head_distil (source, source, workers, near, taught, N, scratch, unused, moved[side], spare, NULL));
    }
    for (guint i = 0; i < N; i++)
      g_assert_cmpfloat (fabs ((moved[1][i] - moved[0][i]) / 0.04 - df[i * embd + j]), <=, 0.02 * fabsf (df[i * embd + j]) + 2e-3);
  }
  eng_workers_free (workers);
  g_unlink (path);
}

/* Gradients by random signs: their mean square is that of drawn labels, W^T (diag (p) - p p^T) W, and no state's is many times it. */
static void test_drawn_gradients (void)
{
  enum { DRAWS = 6000, N = 2 };
  TinyModel model = TINY_MODEL_DEFAULTS;
  g_autofree char *path = tiny_model_path ("drawn.gguf");
  tiny_model_write (&model, path);
  g_autoptr (QzSource) source = open_source (path);
  EngWorkers *workers = eng_workers_new (1);
  guint embd = source->traits.n_embd, n_vocab = source->traits.n_vocab;
  g_autofree float *f = g_new (float, N * embd), *df = g_new (float, N * embd), *logits = g_new (float, N * n_vocab);
  g_autofree float *w = g_new (float, n_vocab * embd);
  g_autofree double *probability = g_new0 (double, n_vocab), *fisher = g_new0 (double, n_vocab), *found = g_new0 (double, N * embd * embd);
  g_assert_true (qz_source_read_rows (source, qz_source_head (source), 0, n_vocab, w, NULL));
  for (guint j = 0; j < embd; j++) {
    f[j] = sinf (0.7f * j);
    f[embd + j] = 6 * sinf (0.7f * j); /* surer of itself */
  }
  double most[N] = { 0 };
  for (guint k = 0; k < DRAWS; k++) {
    QzLabels labels = { .seed = (guint64) k << 20, .probability = probability, .row_fisher = fisher };
    g_assert_true (qz_head_backward (source, workers, f, N, &labels, logits, df, NULL));
    for (guint s = 0; s < N; s++) {
      const float *d = df + s * embd;
      double square = 0;
      for (guint i = 0; i < embd; i++) {
        square += d[i] * d[i];
        for (guint j = 0; j < embd; j++)
          found[(s * embd + i) * embd + j] += d[i] * d[j] / DRAWS;
      }
      most[s] = MAX (most[s], square);
    }
  }
  g_assert_true (qz_head_logits (source, workers, f, N, logits, NULL));
  for (guint s = 0; s < N; s++) {
    float *p = logits + s * n_vocab;
    g_autofree double *mean = g_new0 (double, embd);
    double missed = 0, all = 0, trace = 0;
    xb_softmax (p, n_vocab);
    for (guint v = 0; v < n_vocab; v++)
      for (guint j = 0; j < embd; j++)
        mean[j] += p[v] * w[v * embd + j];
    for (guint i = 0; i < embd; i++)
      for (guint j = 0; j < embd; j++) {
        double expected = -mean[i] * mean[j];
        for (guint v = 0; v < n_vocab; v++)
          expected += p[v] * w[v * embd + i] * w[v * embd + j];
        missed += pow (found[(s * embd + i) * embd + j] - expected, 2);
        all += expected * expected;
        trace += i == j ? expected : 0;
      }
    g_test_message ("state %u: missed by %g of it, largest square %g of the mean", s, sqrt (missed / all), most[s] / trace);
    g_assert_cmpfloat (sqrt (missed / all), <=, 0.15);
    g_assert_cmpfloat (most[s], <=, 16 * trace);
  }
  eng_workers_free (workers);
  g_unlink (path);
}

static void test_logits (void)
{
  enum { N = 12 };
  TinyModel model = TINY_MODEL_DEFAULTS;
  g_autofree char *path = tiny_model_path ("logits.gguf");
  g_autofree char *file = g_test_build_filename (G_TEST_DIST, "fixtures", "tiny_llama_logits.bin", NULL);
  g_autofree char *data = NULL;
  gsize size;
  gint32 tokens[N];
  for (guint i = 0; i < N; i++)
    tokens[i] = (37 * i + 5) % TINY_VOCAB;
  tiny_model_write (&model, path);
  g_assert_true (g_file_get_contents (file, &data, &size, NULL));
  g_assert_cmpuint (size, ==, N * TINY_VOCAB * sizeof (float));
  g_autoptr (QzSource) source = open_source (path);
  EngWorkers *workers = eng_workers_new (2);
  g_autofree float *logits = logits_of (source, workers, tokens, 1, N);
  const float *expected = (const float *) (gpointer) data;
  for (guint i = 0; i < N * TINY_VOCAB; i++)
    g_assert_cmpfloat (fabsf (logits[i] - expected[i]), <=, 1e-3f);

  /* Whatever the order of the hidden channels. */
  g_autofree guint32 *order = g_new (guint32, model.n_ff);
  for (guint j = 0; j < model.n_ff; j++)
    order[j] = (j * 5 + 3) % model.n_ff;
  for (guint u = 0; u < source->n_units; u++)
    g_assert_true (qz_source_set_order (source, u, 0, order));
  g_autofree float *reordered = logits_of (source, workers, tokens, 1, N);
  for (guint i = 0; i < N * TINY_VOCAB; i++)
    g_assert_cmpfloat (fabsf (reordered[i] - expected[i]), <=, 1e-3f);
  g_autofree float *row = g_new (float, model.n_embd), *moved = g_new (float, model.n_embd);
  g_autoptr (QzSource) untouched = open_source (path);
  guint gate = qz_source_find (source, 1, QZ_ROLE_GATE);
  g_assert_true (qz_source_read_rows (source, gate, 7, 8, moved, NULL));
  g_assert_true (qz_source_read_rows (untouched, gate, order[7], order[7] + 1, row, NULL));
  g_assert_cmpmem (row, sizeof (float) * model.n_embd, moved, sizeof (float) * model.n_embd);
  order[0] = order[1];
  g_assert_false (qz_source_set_order (source, 0, 0, order));
  eng_workers_free (workers);
}

/* ---- moments ------------------------------------------------------------------------------------------------------------ */

enum { SEQUENCES = 3, TOKENS = 20, LEARN = 2 };

typedef struct {
  const QzSource *source;
  float **moments; /* [n_inputs] */
  double **engine;
} Moments;

static gboolean keep_moments (gpointer data, guint input, guint factor, QzMoments *h, GError **error)
{
  Moments *m = data;
  guint cols = m->source->inputs[input].cols;
  g_assert_cmpuint (factor, ==, m->source->inputs[input].first_factor);
  g_assert_null (m->moments[input]);
  g_assert_cmpuint (qz_moments_n_blocks (h), ==, 1);
  m->moments[input] = g_memdup2 (h->h, sizeof (float) * cols * cols);
  return TRUE;
}

static void observe_engine (gpointer data, const EngMatrix *matrix, const float *x, gsize ldx, guint n)
{
  Moments *m = data;
  for (guint i = 0; i < m->source->n_matrices; i++) {
    const QzMatrix *source = &m->source->matrices[i];
    /* Of matrices that share an input, the first. */
    if (!g_str_equal (source->name, matrix->name) || (i > 0 && m->source->matrices[i - 1].input == source->input))
      continue;
    for (guint k = 0; k < n; k++)
      for (guint a = 0; a < source->cols; a++)
        for (guint b = a; b < source->cols; b++)
          m->engine[source->input][a * source->cols + b] += (double) x[k * ldx + a] * x[k * ldx + b] / (LEARN * TOKENS);
  }
}

static QzCalibration calibration_of (gint32 *tokens)
{
  for (guint i = 0; i < SEQUENCES * TOKENS; i++)
    tokens[i] = (i * i * 7 + 3 * i + 11) % TINY_VOCAB;
  return (QzCalibration){ .n_tokens = TOKENS, .n_sequences = LEARN, .n_held = SEQUENCES - LEARN, .tokens = tokens };
}

static void test_moments (void)
{
  TinyModel model = TINY_MODEL_DEFAULTS;
  g_autofree char *path = tiny_model_path ("moments.gguf");
  gint32 tokens[SEQUENCES * TOKENS];
  QzCalibration calibration = calibration_of (tokens);
  QzObservation observation;
  g_autoptr (GError) error = NULL;
  model.untied = TRUE;
  tiny_model_write (&model, path);
  g_autoptr (QzSource) source = open_source (path);
  EngWorkers *workers = eng_workers_new (2);
  Moments m = { source, g_new0 (float *, source->n_inputs), g_new0 (double *, source->n_inputs) };
  for (guint i = 0; i < source->n_inputs; i++)
    m.engine[i] = g_new0 (double, source->inputs[i].cols * source->inputs[i].cols);
  qz_observe (source, &calibration, &(QzObserver) { .seed = 1, .moments = keep_moments, .data = &m }, workers, &observation, NULL, &error);
  g_assert_no_error (error);

  g_autoptr (EngModel) engine = eng_model_open (path, &error);
  g_assert_no_error (error);
  EngSessionOptions options = { .n_ctx = TOKENS, .batch = TOKENS, .kv_bits = 16, .activation_bits = 32 };
  g_autoptr (EngSession) session = eng_session_new (engine, workers, &options, &error);
  g_assert_no_error (error);
  eng_session_set_observer (session, observe_engine, &m);
  for (guint s = 0; s < LEARN; s++) {
    eng_session_truncate (session, 0);
    g_assert_true (eng_session_eval (session, tokens + s * TOKENS, TOKENS, TRUE, NULL, &error));
  }
  /* Input 0 is the embedding's: gradients, which the engine does not compute. The KV cache is f16: hence the tolerance. */
  for (guint i = 1; i < source->n_inputs; i++) {
    guint cols = source->inputs[i].cols;
    double largest = 0;
    for (guint a = 0; a < cols; a++)
      largest = MAX (largest, m.engine[i][a * cols + a]);
    g_assert_cmpfloat (largest, >, 0);
    for (guint a = 0; a < cols; a++)
      for (guint b = a; b < cols; b++)
        g_assert_cmpfloat (fabs (m.moments[i][a * cols + b] - m.engine[i][a * cols + b]), <=, 2e-3 * largest);
  }
  /* The held-out states are those of the whole model. */
  g_autofree float *f = run_source (source, workers, tokens + LEARN * TOKENS, 1, TOKENS);
  for (guint i = 0; i < TOKENS * source->traits.n_embd; i++)
    g_assert_cmpfloat (fabsf (f[i] - observation.held_hidden[i]), <=, 1e-3f);
  qz_observation_clear (&observation);
  for (guint i = 0; i < source->n_inputs; i++) {
    g_free (m.moments[i]);
    g_free (m.engine[i]);
  }
  g_free (m.moments);
  g_free (m.engine);
  eng_workers_free (workers);
}

/* Moments of wide inputs come in blocks, the very numbers of the whole where a block has them. */
typedef struct {
  const QzSource *source;
  float **whole; /* [n_inputs] */
  guint n_blocks;
} Blocks;

static gboolean compare_blocks (gpointer data, guint input, guint factor, QzMoments *h, GError **error)
{
  Blocks *b = data;
  guint cols = b->source->inputs[input].cols;
  g_assert_cmpuint (h->n, ==, cols);
  if (b->whole[input] == NULL) {
    b->whole[input] = g_memdup2 (h->h, sizeof (float) * cols * cols);
    return TRUE;
  }
  for (guint i = 0; i < qz_moments_n_blocks (h); i++, b->n_blocks++) {
    guint begin, size;
    const float *block = qz_moments_at (h, i, &begin, &size);
    for (guint r = 0; r < size; r++)
      for (guint c = r; c < size; c++)
        g_assert_cmpfloat (block[r * size + c], ==, b->whole[input][(begin + r) * cols + begin + c]);
  }
  return TRUE;
}

static void test_moment_blocks (void)
{
  TinyModel model = TINY_MODEL_DEFAULTS;
  g_autofree char *path = tiny_model_path ("wide.gguf");
  gint32 tokens[SEQUENCES * TOKENS];
  QzCalibration calibration = calibration_of (tokens);
  QzObservation observation;
  model.n_ff = 360; /* wider than 200: blocks of 256 and 104 */
  tiny_model_write (&model, path);
  g_autoptr (QzSource) source = open_source (path);
  EngWorkers *workers = eng_workers_new (2);
  Blocks b = { source, g_new0 (float *, source->n_inputs), 0 };
  for (guint widest = 400; widest >= 200; widest -= 200) {
    g_assert_true (qz_observe (source, &calibration, &(QzObserver) { .memory = &(QzMemory) { TOKENS, 64, widest, 0 }, .moments = compare_blocks, .data = &b }, workers, &observation,
                               NULL, NULL));
    qz_observation_clear (&observation);
  }
  g_assert_cmpuint (b.n_blocks, ==, source->n_inputs + model.n_layers);
  for (guint i = 0; i < source->n_inputs; i++)
    g_free (b.whole[i]);
  g_free (b.whole);
  eng_workers_free (workers);
}

/* ---- prediction --------------------------------------------------------------------------------------------------------- */

enum { MANY = 24, LONG = 32 };

typedef struct {
  const QzSource *source; /* of the unchanged model */
  const char *changed;
  double amount;
  const double *direction; /* [rows]: all rows change alike, by so much each; NULL: each for itself */
  guint64 seed;
} Change;

/* The unchanged weights, and noise on one matrix. */
static void changed_row (gpointer data, const char *name, guint row, float *out, guint cols)
{
  const Change *c = data;
  for (guint m = 0; m < c->source->n_matrices; m++) {
    if (!g_str_equal (c->source->matrices[m].name, name))
      continue;
    g_assert_true (qz_source_read_rows (c->source, m, row, row + 1, out, NULL));
    guint64 state = c->seed + (c->direction != NULL ? 0 : row * 1000);
    double amount = c->direction != NULL ? c->amount * c->direction[row] : c->amount;
    for (guint j = 0; j < cols && g_str_equal (name, c->changed); j++)
      out[j] += amount * (qz_random_unit (&state) - 0.5);
  }
}

static double mean_divergence (const float *p, const float *q, guint n, guint n_vocab)
{
  double sum = 0;
  for (guint i = 0; i < n; i++) {
    double log_p = xb_log_sum_exp (p + i * n_vocab, n_vocab), log_q = xb_log_sum_exp (q + i * n_vocab, n_vocab);
    for (guint v = 0; v < n_vocab; v++)
      sum += exp (p[i * n_vocab + v] - log_p) * ((p[i * n_vocab + v] - log_p) - (q[i * n_vocab + v] - log_q));
  }
  return sum / n;
}

/* 1/2 sum of row's Fisher x e H e^T. */
static double predicted (const QzSource *source, const QzObservation *o, float *const *moments, guint matrix, const Change *change)
{
  const QzMatrix *m = &source->matrices[matrix];
  g_autofree float *before = g_new (float, m->cols);
  g_autofree float *after = g_new (float, m->cols);
  const float *h = moments[m->input];
  double loss = 0;
  for (guint r = 0; r < m->rows; r++) {
    g_assert_true (qz_source_read_rows (source, matrix, r, r + 1, before, NULL));
    changed_row ((gpointer) change, m->name, r, after, m->cols);
    double sum = 0;
    for (guint a = 0; a < m->cols; a++)
      for (guint b = a; b < m->cols; b++)
        sum += (a == b ? 1 : 2) * (after[a] - before[a]) * h[a * m->cols + b] * (after[b] - before[b]);
    loss += 0.5 * o->row_fisher[matrix][r] * sum;
  }
  return loss;
}

/* The measured divergence of the change, in nats per token. */
static double measured (const TinyModel *model, Change *change, EngWorkers *workers, const gint32 *tokens, const float *logits)
{
  TinyModel changed = *model;
  changed.row = changed_row;
  changed.data = change;
  g_autofree char *path = tiny_model_path ("changed.gguf");
  tiny_model_write (&changed, path);
  g_autoptr (QzSource) source = open_source (path);
  g_autofree float *q = logits_of (source, workers, tokens, MANY, LONG);
  return mean_divergence (logits, q, MANY * LONG, TINY_VOCAB);
}

/* The tiny model observed on random tokens. */
typedef struct {
  TinyModel model;
  QzSource *source;
  EngWorkers *workers;
  gint32 *tokens;
  QzCalibration calibration;
  QzObservation observation;
  Moments moments;
  float **gradients; /* [n_matrices] the whole of E g g^T, or its blocks' places in it */
  float *logits;
} Observed;

static gboolean keep_everything (gpointer data, guint input, guint factor, QzMoments *h, GError **error)
{
  Observed *o = data;
  return keep_moments (&o->moments, input, factor, h, error);
}

static gboolean keep_gradients (gpointer data, guint matrix, guint row0, guint n, float *g, GError **error)
{
  Observed *o = data;
  guint rows = o->source->matrices[matrix].rows;
  if (o->gradients[matrix] == NULL)
    o->gradients[matrix] = g_new0 (float, rows * rows);
  for (guint i = 0; i < n; i++)
    for (guint j = i; j < n; j++)
      o->gradients[matrix][(row0 + i) * rows + row0 + j] = g[i * n + j];
  return TRUE;
}

static void observe_random (Observed *o, guint64 seed, guint widest, guint block)
{
  g_autofree char *path = tiny_model_path ("float.gguf");
  g_autoptr (GError) error = NULL;
  guint64 state = 5;
  *o = (Observed){ .model = TINY_MODEL_DEFAULTS, .workers = eng_workers_new (2), .tokens = g_new (gint32, (MANY + 1) * LONG) };
  for (guint i = 0; i < (MANY + 1) * LONG; i++)
    o->tokens[i] = qz_random_next (&state) % TINY_VOCAB;
  o->calibration = (QzCalibration){ .n_tokens = LONG, .n_sequences = MANY, .n_held = 1, .tokens = o->tokens };
  o->model.untied = TRUE;
  tiny_model_write (&o->model, path);
  o->source = open_source (path);
  o->moments = (Moments){ o->source, g_new0 (float *, o->source->n_inputs), NULL };
  o->gradients = g_new0 (float *, o->source->n_matrices);
  QzObserver observer = { .seed = seed, .moments = keep_everything, .gradients = keep_gradients, .gradients_widest = widest, .gradients_block = block,
                          .data = o };
  qz_observe (o->source, &o->calibration, &observer, o->workers, &o->observation, NULL, &error);
  g_assert_no_error (error);
  o->logits = logits_of (o->source, o->workers, o->tokens, MANY, LONG);
}

static void observed_clear (Observed *o)
{
  for (guint i = 0; i < o->source->n_inputs; i++)
    g_free (o->moments.moments[i]);
  for (guint m = 0; m < o->source->n_matrices; m++)
    g_free (o->gradients[m]);
  g_free (o->moments.moments);
  g_free (o->gradients);
  g_free (o->tokens);
  g_free (o->logits);
  qz_observation_clear (&o->observation);
  qz_source_free (o->source);
  eng_workers_free (o->workers);
}

static void test_prediction (void)
{
  Observed o;
  observe_random (&o, 9, 1000, 0);
  /* Every matrix of both layers, and the head; the embedding's weights are smoothed on purpose. */
  for (guint matrix = 1; matrix < o.source->n_matrices; matrix++) {
    Change change = { o.source, o.source->matrices[matrix].name, 0.02 };
    double found = measured (&o.model, &change, o.workers, o.tokens, o.logits);
    double expected = predicted (o.source, &o.observation, o.moments.moments, matrix, &change);
    g_test_message ("%s: measured %g, predicted %g, ratio %.2f", change.changed, found, expected, found / expected);
    g_assert_cmpfloat (found, >, 0.5 * expected);
    /* A value's error reaches many tokens alike, and they add up. */
    g_assert_cmpfloat (found, <, 3 * expected);
  }
  observed_clear (&o);
}

/* G x, of which the upper triangle is given. */
static void multiply_symmetric (const float *g, guint n, const double *x, double *y)
{
  for (guint i = 0; i < n; i++) {
    y[i] = 0;
    for (guint j = 0; j < n; j++)
      y[i] += g[MIN (i, j) * n + MAX (i, j)] * x[j];
  }
}

/* Errors that rows share along the direction that matters most, by the gradients of other labels, cost more than rows taken one by one say, and
 * E g g^T says how much. */
static void test_shared_errors (void)
{
  Observed o, other;
  double miss_together = 0, miss_apart = 0;
  observe_random (&o, 9, 1000, 0);
  observe_random (&other, 10, 1000, 0);
  for (guint matrix = 1; matrix + 1 < o.source->n_matrices; matrix++) {
    const QzMatrix *m = &o.source->matrices[matrix];
    const float *g = o.gradients[matrix];
    g_autofree double *u = g_new (double, m->rows), *gu = g_new (double, m->rows);
    for (guint i = 0; i < m->rows; i++) {
      u[i] = 1 + (i & 1);
      /* Sums of the same numbers in other blocks. */
      g_assert_cmpfloat (fabs (g[i * m->rows + i] - o.observation.row_fisher[matrix][i]), <=, 1e-5 * o.observation.row_fisher[matrix][i]);
    }
    for (guint k = 0; k < 50; k++) {
      double norm = 0;
      multiply_symmetric (other.gradients[matrix], m->rows, u, gu);
      for (guint i = 0; i < m->rows; i++)
        norm += gu[i] * gu[i];
      for (guint i = 0; i < m->rows; i++)
        u[i] = gu[i] / sqrt (norm);
    }
    double along = 0, one_by_one = 0;
    multiply_symmetric (g, m->rows, u, gu);
    for (guint i = 0; i < m->rows; i++) {
      along += u[i] * gu[i];
      one_by_one += u[i] * u[i] * o.observation.row_fisher[matrix][i];
    }
    double found = 0, apart = 0;
    for (guint k = 0; k < 4; k++) {
      Change change = { o.source, m->name, 0.1, u, k };
      found += measured (&o.model, &change, o.workers, o.tokens, o.logits);
      apart += predicted (o.source, &o.observation, o.moments.moments, matrix, &change);
    }
    double expected = apart * along / one_by_one;
    g_test_message ("%s: measured %g, predicted %g, rows apart %g", m->name, found, expected, apart);
    g_assert_cmpfloat (found, >, 0.5 * expected);
    g_assert_cmpfloat (found, <, 3 * expected);
    miss_together += fabs (log (found / expected));
    miss_apart += fabs (log (found / apart));
  }
  g_assert_cmpfloat (miss_together, <, 0.5 * miss_apart);
  observed_clear (&o);
  observed_clear (&other);
}

/* In blocks: the very numbers of the whole, where a block has them. */
static void test_blocks (void)
{
  Observed whole, blocks;
  observe_random (&whole, 9, 1000, 0);
  observe_random (&blocks, 9, 80, 40);
  for (guint matrix = 1; matrix + 1 < whole.source->n_matrices; matrix++) {
    guint rows = whole.source->matrices[matrix].rows, block = rows <= 80 ? rows : 40;
    for (guint i = 0; i < rows; i++)
      for (guint j = i; j < rows; j++)
        g_assert_cmpfloat (blocks.gradients[matrix][i * rows + j], ==, i / block == j / block ? whole.gradients[matrix][i * rows + j] : 0);
  }
  observed_clear (&whole);
  observed_clear (&blocks);
}

int main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/observe/logits-equal-numpy", test_logits);
  g_test_add_func ("/observe/another-models-distribution", test_distil);
  g_test_add_func ("/observe/drawn-gradients", test_drawn_gradients);
  g_test_add_func ("/observe/moments-equal-the-engine", test_moments);
  g_test_add_func ("/observe/wide-inputs-in-blocks", test_moment_blocks);
  g_test_add_func ("/observe/predicts-the-divergence", test_prediction);
  g_test_add_func ("/observe/predicts-errors-that-rows-share", test_shared_errors);
  g_test_add_func ("/observe/blocks-of-gradients-are-those-of-the-whole", test_blocks);
  int status = g_test_run ();
  tiny_model_clean ();
  return status;
}
