/* test_observe.c: what is observed against other computations of the same: logits from numpy, moments from the engine's decoder, and the
 * loss that moments and Fisher information predict against the divergence of a model that was really changed. */
#include "engine/session.h"
#include "kernels/ops.h"
#include "quantizer/head.h"
#include "quantizer/layer.h"
#include "quantizer/observe.h"
#include "quantizer/product.h"
#include "quantizer/transform.h"
#include "tests/fixtures/tiny_model.h"

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

/* Final hidden states of n_sequences x n_tokens. */
static float *run_source (const QzSource *source, EngWorkers *workers, const gint32 *tokens, guint n_sequences, guint n_tokens)
{
  const EngTraits *t = &source->traits;
  guint n = n_sequences * n_tokens;
  g_autofree float *x = g_new (float, n * t->n_embd);
  g_autofree float *gain = g_new (float, t->n_embd);
  float *f = g_new (float, n * t->n_embd);
  QzLayerWeights weights;
  QzLayerPass pass;
  g_assert_true (qz_layer_weights_init (&weights, source, NULL));
  qz_layer_pass_init (&pass, t, &weights, n_sequences, n_tokens, FALSE);
  for (guint i = 0; i < n; i++)
    g_assert_true (qz_source_read_rows (source, 0, tokens[i], tokens[i] + 1, x + i * t->n_embd, NULL));
  for (guint l = 0; l < t->n_layers; l++) {
    g_assert_true (qz_layer_weights_read (&weights, source, l, workers, NULL));
    qz_layer_forward (t, &weights, &pass, workers, x);
  }
  g_assert_true (qz_source_read_vector (source, "output_norm.weight", t->n_embd, gain, NULL));
  qz_norm_forward (workers, x, gain, t->norm_eps, n, t->n_embd, f);
  qz_layer_weights_clear (&weights);
  qz_layer_pass_clear (&pass);
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
  for (guint l = 0; l < model.n_layers; l++)
    g_assert_true (qz_source_set_ffn_order (source, l, order));
  g_autofree float *reordered = logits_of (source, workers, tokens, 1, N);
  for (guint i = 0; i < N * TINY_VOCAB; i++)
    g_assert_cmpfloat (fabsf (reordered[i] - expected[i]), <=, 1e-3f);
  g_autofree float *row = g_new (float, model.n_embd), *moved = g_new (float, model.n_embd);
  g_autoptr (QzSource) untouched = open_source (path);
  guint gate = qz_source_layer_matrix (1, QZ_ROLE_GATE);
  g_assert_true (qz_source_read_rows (source, gate, 7, 8, moved, NULL));
  g_assert_true (qz_source_read_rows (untouched, gate, order[7], order[7] + 1, row, NULL));
  g_assert_cmpmem (row, sizeof (float) * model.n_embd, moved, sizeof (float) * model.n_embd);
  order[0] = order[1];
  g_assert_false (qz_source_set_ffn_order (source, 0, order));
  eng_workers_free (workers);
}

/* ---- moments ------------------------------------------------------------------------------------------------------------ */

enum { SEQUENCES = 3, TOKENS = 20, LEARN = 2 };

typedef struct {
  const QzSource *source;
  float **moments; /* [n_inputs] */
  double **engine;
} Moments;

static gboolean keep_moments (gpointer data, guint input, float *h, GError **error)
{
  Moments *m = data;
  guint cols = m->source->input_cols[input];
  g_assert_null (m->moments[input]);
  m->moments[input] = g_memdup2 (h, sizeof (float) * cols * cols);
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
    m.engine[i] = g_new0 (double, source->input_cols[i] * source->input_cols[i]);
  qz_observe (source, &calibration, 1, workers, keep_moments, &m, &observation, NULL, NULL, 0, 1, NULL, &error);
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
    guint cols = source->input_cols[i];
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

/* ---- prediction --------------------------------------------------------------------------------------------------------- */

enum { MANY = 24, LONG = 32 };

typedef struct {
  const QzSource *source; /* of the unchanged model */
  const char *changed;
  double amount;
} Change;

/* The unchanged weights, and noise on one matrix. */
static void changed_row (gpointer data, const char *name, guint row, float *out, guint cols)
{
  const Change *c = data;
  for (guint m = 0; m < c->source->n_matrices; m++) {
    if (!g_str_equal (c->source->matrices[m].name, name))
      continue;
    g_assert_true (qz_source_read_rows (c->source, m, row, row + 1, out, NULL));
    guint64 state = row * 1000;
    for (guint j = 0; j < cols && g_str_equal (name, c->changed); j++)
      out[j] += c->amount * (qz_random_unit (&state) - 0.5);
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

static void test_prediction (void)
{
  TinyModel model = TINY_MODEL_DEFAULTS;
  g_autofree char *path = tiny_model_path ("float.gguf");
  g_autoptr (GError) error = NULL;
  g_autofree gint32 *tokens = g_new (gint32, (MANY + 1) * LONG);
  guint64 state = 5;
  for (guint i = 0; i < (MANY + 1) * LONG; i++)
    tokens[i] = qz_random_next (&state) % TINY_VOCAB;
  QzCalibration calibration = { .n_tokens = LONG, .n_sequences = MANY, .n_held = 1, .tokens = tokens };
  model.untied = TRUE;
  tiny_model_write (&model, path);
  g_autoptr (QzSource) source = open_source (path);
  EngWorkers *workers = eng_workers_new (2);
  Moments m = { source, g_new0 (float *, source->n_inputs), NULL };
  QzObservation observation;
  qz_observe (source, &calibration, 9, workers, keep_moments, &m, &observation, NULL, NULL, 0, 1, NULL, &error);
  g_assert_no_error (error);
  g_autofree float *p = logits_of (source, workers, tokens, MANY, LONG);
  /* Every matrix of both layers, and the head; the embedding's weights are smoothed on purpose. */
  for (guint matrix = 1; matrix < source->n_matrices; matrix++) {
    Change change = { source, source->matrices[matrix].name, 0.02 };
    TinyModel changed = model;
    changed.row = changed_row;
    changed.data = &change;
    g_autofree char *other = tiny_model_path ("changed.gguf");
    tiny_model_write (&changed, other);
    g_autoptr (QzSource) source_changed = open_source (other);
    g_autofree float *q = logits_of (source_changed, workers, tokens, MANY, LONG);
    double measured = mean_divergence (p, q, MANY * LONG, TINY_VOCAB), expected = predicted (source, &observation, m.moments, matrix, &change);
    g_test_message ("%s: measured %g, predicted %g, ratio %.2f", change.changed, measured, expected, measured / expected);
    g_assert_cmpfloat (measured, >, 0.5 * expected);
    /* A value's error reaches many tokens alike, and they add up. */
    g_assert_cmpfloat (measured, <, 3 * expected);
  }
  for (guint i = 0; i < source->n_inputs; i++)
    g_free (m.moments[i]);
  g_free (m.moments);
  qz_observation_clear (&observation);
  eng_workers_free (workers);
}

int main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/observe/logits-equal-numpy", test_logits);
  g_test_add_func ("/observe/moments-equal-the-engine", test_moments);
  g_test_add_func ("/observe/predicts-the-divergence", test_prediction);
  int status = g_test_run ();
  tiny_model_clean ();
  return status;
}
