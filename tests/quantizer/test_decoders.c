/* test_decoders.c: the float pass on every kind of decoder: forward against the transformers package and the engine, backward against torch
 * (tests/fixtures/make_decoders.py and make_gradients.py). */
#include "engine/session.h"
#include "kernels/ops.h"
#include "quantizer/analysis.h"
#include "quantizer/head.h"
#include "quantizer/observe.h"

#include <glib/gstdio.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { EVERY = 4 /* steps whose logits are in the fixture */ };

typedef struct {
  QzSource *source;
  guint n_prompt, n_steps, n_vocab, n;
  const gint32 *tokens; /* [n] */
  const float *logits;  /* [n_steps / EVERY][n_vocab] from the prompt's last token on */
  char *bytes;
} Fixture;

static EngWorkers *workers;

static char *path_of (const char *name, const char *suffix)
{
  g_autofree char *file = g_strconcat (name, suffix, NULL);
  return g_test_build_filename (G_TEST_DIST, "fixtures", "decoders", file, NULL);
}

static void fixture_init (Fixture *f, const char *name)
{
  g_autofree char *model = path_of (name, ".gguf"), *answer = path_of (name, ".bin");
  g_autoptr (GError) error = NULL;
  g_autoptr (EngGguf) gguf = eng_gguf_open (model, &error);
  g_assert_no_error (error);
  f->source = qz_source_new (gguf, &error);
  g_assert_no_error (error);
  g_file_get_contents (answer, &f->bytes, NULL, &error);
  g_assert_no_error (error);
  memcpy (&f->n_prompt, f->bytes, 12);
  f->n = f->n_prompt + f->n_steps;
  f->tokens = (const gint32 *) (gpointer) (f->bytes + 12);
  f->logits = (const float *) (f->tokens + f->n);
}

static void fixture_clear (Fixture *f)
{
  qz_source_free (f->source);
  g_free (f->bytes);
}

/* ---- what torch says ---------------------------------------------------------------------------------------------------- */

/* The arrays of one model in decoder_gradients.bin by name. */
static GHashTable *read_torch (const char *name)
{
  g_autofree char *path = g_test_build_filename (G_TEST_DIST, "fixtures", "decoder_gradients.bin", NULL);
  g_autofree char *bytes = NULL;
  gsize size;
  GHashTable *found = g_hash_table_new_full (g_str_hash, g_str_equal, g_free, g_free);
  g_assert_true (g_file_get_contents (path, &bytes, &size, NULL));
  for (const char *p = bytes; p < bytes + size;) {
    char model[64], tensor[64];
    guint n, rows;
    g_assert_cmpint (sscanf (p, "%63s %u", model, &n), ==, 2);
    p = strchr (p, '\n') + 1;
    for (guint i = 0; i < n; i++) {
      g_assert_cmpint (sscanf (p, "%63s %u", tensor, &rows), ==, 2);
      p = strchr (p, '\n') + 1;
      if (g_str_equal (model, name))
        g_hash_table_insert (found, g_strdup (tensor), g_memdup2 (p, sizeof (float) * rows));
      p += sizeof (float) * rows;
    }
  }
  return found;
}

static gint32 label_of (const Fixture *f, guint i)
{
  return (37 * i + 11) % f->n_vocab;
}

/* The fixture's tokens twice, to learn from and held out, with the labels. */
typedef struct {
  gint32 *tokens, *labels;
  QzCalibration calibration;
} Labelled;

static void labelled_init (Labelled *l, const Fixture *f)
{
  l->tokens = g_new (gint32, 2 * f->n);
  l->labels = g_new (gint32, f->n);
  for (guint i = 0; i < f->n; i++) {
    l->tokens[i] = l->tokens[f->n + i] = f->tokens[i];
    l->labels[i] = label_of (f, i);
  }
  l->calibration = (QzCalibration){ .n_tokens = f->n, .n_sequences = 1, .n_held = 1, .tokens = l->tokens };
}

static void labelled_clear (Labelled *l)
{
  g_free (l->tokens);
  g_free (l->labels);
}

/* ---- forward ------------------------------------------------------------------------------------------------------------- */

static gboolean ignore_moments (gpointer data, guint input, guint factor, QzMoments *h, GError **error)
{
  return TRUE;
}

static double worst_error (const float *a, const float *b, guint n)
{
  double worst = 0;
  for (guint i = 0; i < n; i++)
    worst = MAX (worst, fabs ((double) a[i] - b[i]));
  return worst;
}

/* Logits of the fixture's tokens, held out beside some others. */
static float *logits_of (const Fixture *f)
{
  g_autoptr (GError) error = NULL;
  g_autofree gint32 *tokens = g_new (gint32, 2 * f->n);
  for (guint i = 0; i < f->n; i++) {
    tokens[i] = (i * 29 + 5) % f->n_vocab;
    tokens[f->n + i] = f->tokens[i];
  }
  QzCalibration calibration = { .n_tokens = f->n, .n_sequences = 1, .n_held = 1, .tokens = tokens };
  QzObservation observation;
  qz_observe (f->source, &calibration, &(QzObserver) { .moments = ignore_moments }, workers, &observation, NULL, &error);
  g_assert_no_error (error);
  float *logits = g_new (float, (gsize) f->n * f->n_vocab);
  g_assert_true (qz_head_logits (f->source, workers, observation.held_hidden, f->n, logits, &error));
  qz_observation_clear (&observation);
  return logits;
}

/* The log-loss of labels within rounding of torch's. The engine, and the answer of the fixture, round keys and values to f16: hence the other
 * tolerance. */
static void test_logits (gconstpointer name)
{
  Fixture f;
  g_autoptr (GError) error = NULL;
  g_autoptr (GHashTable) torch = read_torch (name);
  double worst = 0, worst_loss = 0;
  fixture_init (&f, name);
  g_autofree float *logits = logits_of (&f);
  const float *loss = g_hash_table_lookup (torch, "loss");
  for (guint i = 0; i < f.n; i++) {
    const float *row = logits + (gsize) i * f.n_vocab;
    worst_loss = MAX (worst_loss, fabs (xb_log_sum_exp (row, f.n_vocab) - row[label_of (&f, i)] - loss[i]));
  }
  /* The angles of dynamic scaling depend on the context, and that of the fixture is longer. */
  for (guint i = 0; !g_str_equal (name, "dynamic") && i < f.n_steps; i += EVERY)
    worst = MAX (worst, worst_error (logits + (gsize) (f.n_prompt - 1 + i) * f.n_vocab, f.logits + (gsize) (i / EVERY) * f.n_vocab, f.n_vocab));
  g_autoptr (EngModel) model = eng_model_new (f.source->gguf, &error);
  g_assert_no_error (error);
  EngSessionOptions options = { .n_ctx = f.n, .batch = f.n, .activation_bits = 32 };
  g_autoptr (EngSession) session = eng_session_new (model, workers, &options, &error);
  g_assert_true (eng_session_eval (session, f.tokens, f.n, TRUE, NULL, &error));
  double from_engine = worst_error (logits, eng_session_logits_at (session, 0), f.n * f.n_vocab);
  g_test_message ("%s: loss within %.2g of torch, logits %.2g of the fixture, %.2g of the engine", (const char *) name, worst_loss, worst, from_engine);
  if (worst_loss > 2e-5 || worst > 1e-2 || from_engine > 1e-2)
    g_test_fail_printf ("%s: losses differ by %g from torch, logits by %g from the fixture and %g from the engine", (const char *) name, worst_loss, worst,
                        from_engine);
  fixture_clear (&f);
}

/* The fixture's tokens, once to learn from and once held out; tokens to be freed. */
static QzCalibration learned_and_held (const Fixture *f)
{
  gint32 *tokens = g_new (gint32, 2 * f->n);
  memcpy (tokens, f->tokens, sizeof (gint32) * f->n);
  memcpy (tokens + f->n, f->tokens, sizeof (gint32) * f->n);
  return (QzCalibration){ .n_tokens = f->n, .n_sequences = 1, .n_held = 1, .tokens = tokens };
}

typedef struct {
  const QzSource *source;
  QzMoments *ours;     /* [n_factors] */
  double **engine;     /* [n_factors][cols][cols] */
  guint *counts;       /* [n_factors] */
  guint *calls;        /* [n_matrices] */
} Moments;

static gboolean keep_moments (gpointer data, guint input, guint factor, QzMoments *h, GError **error)
{
  Moments *m = data;
  g_assert_null (m->ours[factor].h);
  m->ours[factor] = *h;
  m->ours[factor].h = g_memdup2 (h->h, sizeof (float) * qz_moments_floats (h->n, h->block));
  return TRUE;
}

static void add_products (Moments *m, guint factor, guint cols, const float *x, gsize ldx, guint n)
{
  m->counts[factor] += n;
  for (guint k = 0; k < n; k++)
    for (guint a = 0; a < cols; a++)
      for (guint b = a; b < cols; b++)
        m->engine[factor][a * cols + b] += (double) x[k * ldx + a] * x[k * ldx + b];
}

/* The first of the matrices that share an input counts. Experts are computed one after the other, those that nobody chose left out. */
static void observe_engine (gpointer data, const EngMatrix *matrix, const float *x, gsize ldx, guint n)
{
  Moments *m = data;
  for (guint i = 1; i < m->source->n_matrices; i++) {
    const QzMatrix *ours = &m->source->matrices[i];
    if (!g_str_equal (ours->name, matrix->name))
      continue;
    guint factor = m->source->inputs[ours->input].first_factor;
    gboolean is_mixture = ours->unit != QZ_NONE && m->source->units[ours->unit].is_mixture, is_first = m->source->matrices[i - 1].input != ours->input;
    if (is_first && (!is_mixture || ours->role == QZ_ROLE_DOWN))
      add_products (m, factor, ours->cols, x, ldx, n);
    if (is_first && is_mixture)
      add_products (m, factor + 1 + m->calls[i]++, ours->cols, x, ldx, n);
  }
}

static void test_moments (gconstpointer name)
{
  Fixture f;
  g_autoptr (GError) error = NULL;
  QzObservation observation;
  fixture_init (&f, name);
  guint n_factors = f.source->n_factors, n_own = 0;
  QzCalibration calibration = learned_and_held (&f);
  Moments m = { f.source, g_new0 (QzMoments, n_factors), g_new0 (double *, n_factors), g_new0 (guint, n_factors), g_new0 (guint, f.source->n_matrices) };
  for (guint i = 0; i < f.source->n_inputs; i++)
    for (guint k = 0; k <= f.source->inputs[i].n_experts; k++)
      m.engine[f.source->inputs[i].first_factor + k] = g_new0 (double, f.source->inputs[i].cols * f.source->inputs[i].cols);
  qz_observe (f.source, &calibration, &(QzObserver) { .moments = keep_moments, .data = &m }, workers, &observation, NULL, &error);
  g_assert_no_error (error);
  qz_observation_clear (&observation);
  g_autoptr (EngModel) model = eng_model_new (f.source->gguf, &error);
  EngSessionOptions options = { .n_ctx = f.n, .batch = f.n, .activation_bits = 32 };
  g_autoptr (EngSession) session = eng_session_new (model, workers, &options, &error);
  eng_session_set_observer (session, observe_engine, &m);
  g_assert_true (eng_session_eval (session, f.tokens, f.n, TRUE, NULL, &error));
  /* Input 0 is the embedding's: gradients, which the engine does not compute. */
  for (guint i = 1; i < f.source->n_inputs; i++)
    for (guint k = 0; k <= f.source->inputs[i].n_experts; k++) {
      const QzInput *input = &f.source->inputs[i];
      guint factor = input->first_factor + k, cols = input->cols;
      const float *ours = m.ours[factor].h;
      double largest = 0, worst = 0;
      if (k > 0 && m.counts[input->first_factor + input->n_experts] == 0)
        continue; /* not every expert was chosen: which is which cannot be told */
      if (k > 0)
        g_assert_true ((ours != NULL) == (m.counts[factor] >= cols));
      n_own += k > 0 && ours != NULL;
      for (guint a = 0; ours != NULL && m.counts[factor] > 0 && a < cols; a++)
        for (guint b = a; b < cols; b++) {
          largest = MAX (largest, ours[a * cols + b]);
          worst = MAX (worst, fabs (ours[a * cols + b] - m.engine[factor][a * cols + b] / m.counts[factor]));
        }
      g_assert_cmpfloat (worst, <=, 5e-3 * largest);
    }
  g_assert_true (!g_str_equal (name, "mixtral") || n_own >= 4);
  for (guint k = 0; k < n_factors; k++) {
    qz_moments_clear (&m.ours[k]);
    g_free (m.engine[k]);
  }
  g_free (m.ours);
  g_free (m.engine);
  g_free (m.counts);
  g_free (m.calls);
  g_free (calibration.tokens);
  fixture_clear (&f);
}

typedef struct {
  const QzSource *source;
  double **seen;    /* [n_inputs][cols] sums of squares, or NULL */
  double **moments; /* [n_inputs][cols] means of squares */
  guint *counts;    /* [n_inputs] */
} Weighed;

static gboolean keep_diagonal (gpointer data, guint input, guint factor, QzMoments *h, GError **error)
{
  Weighed *w = data;
  if (factor != w->source->inputs[input].first_factor)
    return TRUE;
  w->moments[input] = g_new (double, h->n);
  qz_moments_diagonal (h, w->moments[input]);
  return TRUE;
}

static void weigh_twice (gpointer data, guint input, guint n, const float *x, gsize ld, float *weights)
{
  Weighed *w = data;
  guint cols = w->source->inputs[input].cols;
  if (w->seen[input] == NULL)
    w->seen[input] = g_new0 (double, cols);
  for (guint i = 0; i < n; i++)
    for (guint j = 0; j < cols; j++)
      w->seen[input][j] += (double) x[i * ld + j] * x[i * ld + j];
  for (guint i = 0; i < n; i++)
    weights[i] = 2;
  w->counts[input] += n;
}

/* Whether every token goes through a matrix whose input the way back has as it is. */
static gboolean is_weighed (const QzSource *source, guint m)
{
  const QzMatrix *x = &source->matrices[m];
  return x->role != QZ_ROLE_EMBEDDING && x->role != QZ_ROLE_HEAD && x->role != QZ_ROLE_K_B && (x->unit == QZ_NONE || !source->units[x->unit].is_mixture)
         && !(source->traits.sub_norm && x->role == QZ_ROLE_OUTPUT);
}

/* What tokens are weighed by on the way back is what the moments are of; and the weights are those of the gradients. */
static void test_loudness (gconstpointer name)
{
  Fixture f;
  g_autoptr (GError) error = NULL;
  QzObservation plain, observation;
  fixture_init (&f, name);
  guint n_inputs = f.source->n_inputs, n_weighed = 0;
  QzCalibration calibration = learned_and_held (&f);
  Weighed w = { f.source, g_new0 (double *, n_inputs), g_new0 (double *, n_inputs), g_new0 (guint, n_inputs) };
  qz_observe (f.source, &calibration, &(QzObserver) { .seed = 1, .moments = ignore_moments }, workers, &plain, NULL, &error);
  g_assert_no_error (error);
  qz_observe (f.source, &calibration, &(QzObserver) { .seed = 1, .moments = keep_diagonal, .loudness = weigh_twice, .data = &w }, workers, &observation, NULL, &error);
  g_assert_no_error (error);
  for (guint m = 0; m < f.source->n_matrices; m++) {
    const QzMatrix *x = &f.source->matrices[m];
    gboolean weighed = is_weighed (f.source, m);
    for (guint r = 0; r < x->rows; r++)
      g_assert_cmpfloat (observation.row_fisher[m][r], ==, (weighed ? 2 : 1) * plain.row_fisher[m][r]);
    n_weighed += weighed;
    if (!weighed)
      continue;
    double largest = 0;
    g_assert_nonnull (w.seen[x->input]);
    for (guint j = 0; j < x->cols; j++)
      largest = MAX (largest, w.moments[x->input][j]);
    for (guint j = 0; j < x->cols; j++)
      g_assert_cmpfloat (fabs (w.seen[x->input][j] / w.counts[x->input] - w.moments[x->input][j]), <=, 5e-3 * largest);
  }
  g_assert_cmpuint (n_weighed, >=, 2 * f.source->traits.n_layers);
  qz_observation_clear (&plain);
  qz_observation_clear (&observation);
  for (guint i = 0; i < n_inputs; i++) {
    g_free (w.seen[i]);
    g_free (w.moments[i]);
  }
  g_free (w.seen);
  g_free (w.moments);
  g_free (w.counts);
  g_free (calibration.tokens);
  fixture_clear (&f);
}

/* What one sequence holds changes nothing in another, and no token sees a later one. */
static void test_causal (gconstpointer name)
{
  enum { N = 40, CHANGED = 25 };
  Fixture f;
  g_autoptr (GError) error = NULL;
  QzObservation observations[2];
  gint32 tokens[3 * N];
  fixture_init (&f, name);
  gsize embd = f.source->traits.n_embd;
  for (guint i = 0; i < 3 * N; i++)
    tokens[i] = (i * i * 7 + 3 * i) % f.n_vocab;
  QzCalibration calibration = { .n_tokens = N, .n_sequences = 1, .n_held = 2, .tokens = tokens };
  for (guint k = 0; k < 2; k++) {
    tokens[N + CHANGED] += k;
    qz_observe (f.source, &calibration, &(QzObserver) { .moments = ignore_moments }, workers, &observations[k], NULL, &error);
    g_assert_no_error (error);
  }
  const float *a = observations[0].held_hidden, *b = observations[1].held_hidden;
  g_assert_cmpmem (a, CHANGED * embd * sizeof (float), b, CHANGED * embd * sizeof (float));
  g_assert_cmpmem (a + N * embd, N * embd * sizeof (float), b + N * embd, N * embd * sizeof (float));
  g_assert_cmpfloat (a[CHANGED * embd], !=, b[CHANGED * embd]);
  g_assert_cmpfloat (a[(CHANGED + 1) * embd], !=, b[(CHANGED + 1) * embd]);
  qz_observation_clear (&observations[0]);
  qz_observation_clear (&observations[1]);
  fixture_clear (&f);
}

/* ---- slopes -------------------------------------------------------------------------------------------------------------- */

/* The log-loss of the labels in a copy of the model whose row of a matrix is multiplied by a factor. */
static double loss_of_grown (const Fixture *f, const char *name, guint matrix, guint row, float factor)
{
  g_autofree char *model = path_of (name, ".gguf"), *copy = g_test_build_filename (G_TEST_BUILT, "grown.gguf", NULL), *bytes = NULL;
  g_autoptr (GError) error = NULL;
  gsize size;
  const QzMatrix *m = &f->source->matrices[matrix];
  g_assert_true (g_file_get_contents (model, &bytes, &size, NULL));
  gsize row_bytes = m->tensor->bytes / m->rows;
  char *found = memmem (bytes, size, m->tensor->data + row * row_bytes, row_bytes);
  g_assert_nonnull (found);
  g_assert_cmpuint (m->tensor->type, ==, ENG_TYPE_F16);
  for (guint j = 0; j < m->cols; j++) {
    guint16 w;
    memcpy (&w, found + j * sizeof w, sizeof w);
    w = xb_float_to_half (xb_half_to_float (w) * factor);
    memcpy (found + j * sizeof w, &w, sizeof w);
  }
  g_assert_true (g_file_set_contents (copy, bytes, size, NULL));
  g_autoptr (EngGguf) gguf = eng_gguf_open (copy, &error);
  g_assert_no_error (error);
  Fixture grown = *f;
  grown.source = qz_source_new (gguf, &error);
  g_assert_no_error (error);
  g_autofree float *logits = logits_of (&grown);
  double loss = 0;
  for (guint i = 0; i < f->n; i++)
    loss += xb_log_sum_exp (logits + (gsize) i * f->n_vocab, f->n_vocab) - logits[(gsize) i * f->n_vocab + label_of (f, i)];
  qz_source_free (grown.source);
  g_unlink (copy);
  return loss;
}

/* The row of each matrix that matters most: what the loss really does when it grows. */
static void test_slopes (gconstpointer name)
{
  enum { SPARSE = 8 /* every so many matrices */ };
  Fixture f;
  g_autoptr (GError) error = NULL;
  QzObservation observation;
  fixture_init (&f, name);
  Labelled text;
  labelled_init (&text, &f);
  qz_observe (f.source, &text.calibration, &(QzObserver) { .labels = text.labels, .slopes = TRUE }, workers, &observation, NULL, &error);
  g_assert_no_error (error);
  for (guint m = 1; m < f.source->n_matrices; m += SPARSE) {
    const QzMatrix *matrix = &f.source->matrices[m];
    /* Much more than the half floats of the file are rounded, but tokens should stay with their experts. */
    const float *slope = observation.row_slope[m], step = f.source->traits.n_experts > 0 ? 0.01f : 0.02f;
    guint row = 0;
    for (guint r = 0; r < matrix->rows; r++)
      row = fabsf (slope[r]) > fabsf (slope[row]) ? r : row;
    if (matrix->role == QZ_ROLE_HEAD || matrix->role == QZ_ROLE_K_B)
      continue;
    double less = loss_of_grown (&f, name, m, row, 1 - step), as_is = loss_of_grown (&f, name, m, row, 1), more = loss_of_grown (&f, name, m, row, 1 + step);
    double really = (more - less) / (2 * step), off = fabs (slope[row] - really);
    /* A token may go to another expert on one side. */
    if (f.source->traits.n_experts > 0)
      off = MIN (off, 0.3 * MIN (fabs (slope[row] - (more - as_is) / step), fabs (slope[row] - (as_is - less) / step)));
    if (!(off <= 0.06 * MAX (fabs (really), fabs (slope[row])) + 2e-3))
      g_test_fail_printf ("%s: the slope of row %u of %s is %g, and should be %g", (const char *) name, row, matrix->name, slope[row], really);
  }
  labelled_clear (&text);
  qz_observation_clear (&observation);
  fixture_clear (&f);
}

/* ---- backward ------------------------------------------------------------------------------------------------------------ */

/* data: [n_embd] the diagonal of the embedding's moments. */
static gboolean keep_look_up (gpointer data, guint input, guint factor, QzMoments *h, GError **error)
{
  if (input == 0)
    qz_moments_diagonal (h, data);
  return TRUE;
}

/* The worst error of a row, over the mean of them all. */
static double compare (const double *ours, const float *torch, guint n)
{
  double mean = 0, worst = 0;
  for (guint i = 0; i < n; i++)
    mean += torch[i] / n;
  for (guint i = 0; i < n; i++)
    worst = MAX (worst, fabs (ours[i] - torch[i]) / (mean + torch[i]));
  return worst;
}

static void test_gradients (gconstpointer name)
{
  Fixture f;
  g_autoptr (GError) error = NULL;
  g_autoptr (GHashTable) torch = read_torch (name);
  QzObservation observation;
  fixture_init (&f, name);
  Labelled text;
  labelled_init (&text, &f);
  g_autofree double *look_up = g_new0 (double, f.source->traits.n_embd);
  QzObserver observer = { .moments = keep_look_up, .labels = text.labels, .data = look_up };
  qz_observe (f.source, &text.calibration, &observer, workers, &observation, NULL, &error);
  g_assert_no_error (error);
  /* A value at the border of a clamp may be rounded across it while it waits on disk. */
  double worst = 0, allowed = f.source->traits.qkv_clamp > 0 ? 5e-2 : 5e-3;
  guint compared = 0;
  for (guint m = 1; m < f.source->n_matrices; m++) {
    const QzMatrix *matrix = &f.source->matrices[m];
    if (matrix->role == QZ_ROLE_HEAD) /* its rows have the expectation over labels, not the labels' own */
      continue;
    const float *expected = g_hash_table_lookup (torch, matrix->name);
    g_assert_nonnull (expected);
    g_autofree double *ours = g_new (double, matrix->rows);
    for (guint r = 0; r < matrix->rows; r++)
      ours[r] = (double) observation.row_fisher[m][r] * f.n;
    double off = compare (ours, expected, matrix->rows);
    if (off > allowed)
      g_test_fail_printf ("%s: gradients at %s differ by %.3g", (const char *) name, matrix->name, off);
    worst = MAX (worst, off);
    compared++;
  }
  g_assert_cmpuint (compared + 2, ==, g_hash_table_size (torch));
  if (!f.source->traits.tied_head) {
    for (guint j = 0; j < f.source->traits.n_embd; j++)
      look_up[j] *= f.n;
    double off = compare (look_up, g_hash_table_lookup (torch, "token_embd.weight"), f.source->traits.n_embd);
    if (off > 5e-3)
      g_test_fail_printf ("%s: gradients at the embedding differ by %.3g", (const char *) name, off);
  }
  g_test_message ("%s: squared gradients within %.2g", (const char *) name, worst);
  labelled_clear (&text);
  qz_observation_clear (&observation);
  fixture_clear (&f);
}

/* ---- fits ---------------------------------------------------------------------------------------------------------------- */

static char *some_text (gsize length)
{
  static const char *const words[] = { "the rain ", "in an old house, ", "of the ", "heron ", "is ", "on and on; ", "a market ", "\n", "for bread " };
  GString *text = g_string_new (NULL);
  for (guint i = 0; text->len < length; i++)
    g_string_append (text, words[(i * i * 7 + i / 3) % G_N_ELEMENTS (words)]);
  return g_string_free (text, FALSE);
}

static EngSession *open_session (const char *path, guint n, int activation_bits)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (EngModel) model = eng_model_open (path, &error);
  g_assert_no_error (error);
  EngSessionOptions options = { .n_ctx = n, .batch = n, .activation_bits = activation_bits };
  EngSession *session = eng_session_new (model, workers, &options, &error);
  g_assert_no_error (error);
  return session;
}

/* Mean KL of the engine on two files, on what the analysis held out, second half of each sequence. */
static double engine_divergence (const QzAnalysis *a, const char *source, const char *fit)
{
  guint n = a->held_tokens;
  g_autoptr (EngSession) p = open_session (source, n, 32), q = open_session (fit, n, 8);
  guint n_vocab = eng_model_traits (eng_session_model (p))->n_vocab;
  double sum = 0;
  for (guint s = 0; s < a->held_sequences; s++) {
    eng_session_truncate (p, 0);
    eng_session_truncate (q, 0);
    g_assert_true (eng_session_eval (p, a->held + s * n, n, TRUE, NULL, NULL) && eng_session_eval (q, a->held + s * n, n, TRUE, NULL, NULL));
    for (guint i = n / 2; i < n; i++) {
      const float *x = eng_session_logits_at (p, i), *y = eng_session_logits_at (q, i);
      double log_x = xb_log_sum_exp (x, n_vocab), log_y = xb_log_sum_exp (y, n_vocab);
      for (guint v = 0; v < n_vocab; v++)
        sum += exp (x[v] - log_x) * (x[v] - log_x - y[v] + log_y);
    }
  }
  return sum / ((n - n / 2) * a->held_sequences);
}

/* Three sizes: each kept to, the larger the better, measured as the engine measures it, and it answers. */
static void test_fit (gconstpointer name)
{
  g_autofree char *path = path_of (name, ".gguf"), *text = some_text (6000), *folder = g_dir_make_tmp ("valise-fits-XXXXXX", NULL);
  g_autofree char *out = g_build_filename (folder, "fit.gguf", NULL);
  g_autoptr (GError) error = NULL;
  g_autoptr (EngGguf) gguf = eng_gguf_open (path, &error);
  g_assert_no_error (error);
  QzOptions options = { .calibration = text, .calibration_length = strlen (text), .tokens = 1024, .seed = 3 };
  g_autoptr (QzAnalysis) a = qz_analyse (gguf, &options, workers, NULL, NULL, NULL, &error);
  g_assert_no_error (error);
  g_autofree char *routed_key = g_strconcat (eng_gguf_get_string (gguf, "general.architecture", ""), ".expert_count", NULL);
  guint64 least = qz_curves_min_bytes (a->curves), most = qz_curves_max_bytes (a->curves);
  double before = INFINITY, smallest = 0;
  for (guint i = 0; i < 3; i++) {
    QzResult result;
    QzTarget target = { .bytes = least + (most - least) * i / 2 };
    g_assert_true (qz_fit (gguf, a, &target, out, workers, &result, NULL, NULL, NULL, &error));
    double found = engine_divergence (a, path, out);
    g_test_message ("%s, %" G_GUINT64_FORMAT " bytes: measured %.4f, by the engine %.4f, expected %.4f", (const char *) name, result.file_bytes,
                    result.kl_divergence, found, result.expected_kl);
    g_assert_cmpuint (result.file_bytes, <=, target.bytes);
    g_assert_cmpfloat (result.kl_divergence, <, before);
    /* A token at the border between two experts may go to the other one where the cache is rounded. */
    gboolean routed = eng_gguf_has (gguf, routed_key);
    g_assert_cmpfloat (fabs (result.kl_divergence - found), <=, (routed ? 0.2 : 0.02) * found + (routed ? 1e-3 : 1e-4));
    before = result.kl_divergence;
    smallest = i == 0 ? before : smallest;
  }
  /* Tuned, the smallest keeps its size and is what is measured. */
  QzResult tuned;
  g_assert_true (qz_fit (gguf, a, &(QzTarget){ .bytes = least, .quality = QZ_QUALITY_BEST }, out, workers, &tuned, NULL, NULL, NULL, &error));
  double found = engine_divergence (a, path, out);
  g_test_message ("%s, tuned: measured %.4f, by the engine %.4f, not tuned %.4f", (const char *) name, tuned.kl_divergence, found, smallest);
  g_assert_cmpuint (tuned.file_bytes, <=, least);
  g_assert_cmpfloat (tuned.kl_divergence, <, 1.02 * smallest);
  g_autoptr (EngSession) session = open_session (out, 64, 8);
  gint32 token = 1;
  for (guint i = 0; i < 32; i++) {
    g_assert_true (eng_session_eval (session, &token, 1, FALSE, NULL, &error));
    token = xb_argmax (eng_session_logits (session), eng_model_traits (eng_session_model (session))->n_vocab);
  }
  g_assert_cmpint (g_unlink (out), ==, 0);
  g_assert_cmpint (g_rmdir (folder), ==, 0);
}

/* Those that cannot are refused in one sentence. */
static gboolean can_be_fitted (const char *folder, const char *file)
{
  g_autofree char *path = g_build_filename (folder, file, NULL);
  g_autoptr (GError) error = NULL;
  g_autoptr (EngGguf) gguf = eng_gguf_open (path, NULL);
  g_autoptr (QzSource) source = qz_source_new (gguf, &error);
  g_assert_true (source != NULL || strstr (error->message, "not fit it yet") != NULL);
  return source != NULL;
}

int main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  workers = eng_workers_new (2);
  g_autofree char *folder = g_test_build_filename (G_TEST_DIST, "fixtures", "decoders", NULL);
  g_autoptr (GDir) dir = g_dir_open (folder, 0, NULL);
  g_autoptr (GPtrArray) names = g_ptr_array_new_with_free_func (g_free);
  for (const char *file; (file = g_dir_read_name (dir)) != NULL;)
    if (g_str_has_suffix (file, ".gguf") && can_be_fitted (folder, file)) {
      char *name = g_strndup (file, strlen (file) - strlen (".gguf"));
      g_autofree char *logits = g_strconcat ("/decoders/", name, "/logits", NULL), *gradients = g_strconcat ("/decoders/", name, "/gradients", NULL);
      g_autofree char *fit = g_strconcat ("/decoders/", name, "/fit", NULL);
      g_ptr_array_add (names, name);
      g_test_add_data_func (logits, name, test_logits);
      g_test_add_data_func (gradients, name, test_gradients);
      g_autofree char *moments = g_strconcat ("/decoders/", name, "/moments", NULL);
      g_test_add_data_func (moments, name, test_moments);
      g_autofree char *loudness = g_strconcat ("/decoders/", name, "/loudness", NULL);
      g_test_add_data_func (loudness, name, test_loudness);
      g_autofree char *slopes = g_strconcat ("/decoders/", name, "/slopes", NULL);
      g_test_add_data_func (slopes, name, test_slopes);
      g_test_add_data_func (fit, name, test_fit);
    }
  g_assert_cmpuint (names->len, >=, 60);
  g_test_add_data_func ("/decoders/causal-and-apart/llama", "llama", test_causal);
  g_test_add_data_func ("/decoders/causal-and-apart/gemma2", "gemma2", test_causal);
  g_test_add_data_func ("/decoders/causal-and-apart/mixtral", "mixtral", test_causal);
  int result = g_test_run ();
  eng_workers_free (workers);
  return result;
}
