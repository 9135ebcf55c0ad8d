/* test_fit.c: from a checkpoint to a file of a given size, on the tiny model: every size kept to, nothing left behind when it goes wrong. */
#include "engine/error.h"
#include "engine/session.h"
#include "quantizer/fit.h"
#include "quantizer/plain.h"
#include "tests/fixtures/same_file.h"
#include "tests/fixtures/tiny_model.h"

#include <glib/gstdio.h>
#include <math.h>
#include <string.h>

typedef struct {
  char *path;
  EngGguf *gguf;
  EngWorkers *workers;
  char *text;
  QzOptions options;
} Case;

static char *some_text (gsize length)
{
  static const char *const words[] = { "hello ", "world ", "the ", "theld in", "llo", "or wo", "rld, ", "\n", "he said; ", "in the world " };
  GString *text = g_string_new (NULL);
  for (guint i = 0; text->len < length; i++)
    g_string_append (text, words[(i * i * 7 + i / 3) % G_N_ELEMENTS (words)]);
  return g_string_free (text, FALSE);
}

static void case_init (Case *c, const TinyModel *model, guint n_threads)
{
  g_autoptr (GError) error = NULL;
  c->path = tiny_model_path ("source.gguf");
  tiny_model_write (model, c->path);
  c->gguf = eng_gguf_open (c->path, &error);
  g_assert_no_error (error);
  c->workers = eng_workers_new (n_threads);
  c->text = some_text (6000);
  c->options = (QzOptions){ .calibration = c->text, .calibration_length = strlen (c->text), .tokens = 1024, .seed = 3 };
}

static void case_clear (Case *c)
{
  g_free (c->path);
  eng_gguf_unref (c->gguf);
  eng_workers_free (c->workers);
  g_free (c->text);
}

static QzAnalysis *analyse (Case *c)
{
  g_autoptr (GError) error = NULL;
  QzAnalysis *analysis = qz_analyse (c->gguf, &c->options, c->workers, NULL, NULL, NULL, &error);
  g_assert_no_error (error);
  g_assert_nonnull (analysis);
  return analysis;
}

static guint64 size_of (const char *path)
{
  GStatBuf status;
  g_assert_cmpint (g_stat (path, &status), ==, 0);
  return status.st_size;
}

/* Every size from the least to the most is kept to and used, the larger the better. */
static void test_sizes (gconstpointer data)
{
  TinyModel model = TINY_MODEL_DEFAULTS;
  Case c;
  model.untied = GPOINTER_TO_UINT (data);
  case_init (&c, &model, 2);
  g_autoptr (QzAnalysis) analysis = analyse (&c);
  QzCurves *curves = qz_analysis_curves (analysis);
  g_assert_false (qz_curves_is_estimate (curves));
  guint64 least = qz_curves_min_bytes (curves), most = qz_curves_max_bytes (curves);
  g_autofree char *out = tiny_model_path ("fit.gguf");
  double first = 0, last = 0;
  for (guint i = 0; i <= 8; i++) {
    g_autoptr (GError) error = NULL;
    QzResult result;
    QzPreview preview;
    guint64 target = least + (most - least) * i / 8 + (i > 0 && i < 8 ? 333 : 0);
    gboolean ok = qz_fit (c.gguf, analysis, &(QzTarget) { .bytes = target }, out, c.workers, &result, NULL, NULL, NULL, &error);
    g_assert_no_error (error);
    g_assert_true (ok);
    qz_curves_preview (curves, target, &preview);
    g_assert_cmpuint (result.file_bytes, ==, size_of (out));
    g_assert_cmpuint (result.file_bytes, <=, target);
    g_assert_cmpuint (preview.file_bytes, <=, result.file_bytes);
    g_assert_cmpuint (target - result.file_bytes, <, 4096);
    g_assert_true (result.kl_divergence >= 0 && result.top1_agreement >= 0 && result.top1_agreement <= 1);
    g_test_message ("%" G_GUINT64_FORMAT " bytes, %.2f bpw: expected %g, measured %g, same %.2f", result.file_bytes, result.bpw, result.expected_kl,
                    result.kl_divergence, result.top1_agreement);
    first = i == 0 ? result.kl_divergence : first;
    last = result.kl_divergence;
    g_autoptr (EngGguf) written = eng_gguf_open (out, &error);
    g_assert_no_error (error);
    g_assert_cmpint (eng_gguf_get_int (written, "valise.version", 0), ==, 1);
    g_assert_cmpstr (eng_gguf_get_string (written, "general.name", ""), ==, "tiny");
    g_assert_cmpuint (eng_gguf_array_length (written, "tokenizer.ggml.tokens", NULL), ==, TINY_VOCAB);
    g_assert_cmpint (eng_gguf_get_int (written, "valise.fit.target_bytes", 0), ==, (gint64) target);
  }
  g_assert_cmpfloat (last, <, 0.02);
  g_assert_cmpfloat (last, <, 0.2 * first);
  case_clear (&c);
}

static void test_too_small (void)
{
  TinyModel model = TINY_MODEL_DEFAULTS;
  Case c;
  case_init (&c, &model, 1);
  g_autoptr (QzAnalysis) analysis = analyse (&c);
  guint64 least = qz_curves_min_bytes (qz_analysis_curves (analysis));
  g_autofree char *out = tiny_model_path ("small.gguf");
  g_autofree char *named = g_strdup_printf ("%" G_GUINT64_FORMAT " bytes", least);
  const guint64 targets[] = { 0, 1, least / 2, least - 1 };
  for (guint i = 0; i < G_N_ELEMENTS (targets); i++) {
    g_autoptr (GError) error = NULL;
    QzResult result;
    g_assert_false (qz_fit (c.gguf, analysis, &(QzTarget) { .bytes = targets[i] }, out, c.workers, &result, NULL, NULL, NULL, &error));
    g_assert_error (error, ENG_ERROR, ENG_ERROR_MEMORY);
    g_assert_nonnull (strstr (error->message, named));
    g_assert_false (g_file_test (out, G_FILE_TEST_EXISTS));
  }
  case_clear (&c);
}

/* More metadata takes its bytes from the weights, never from the promise. */
static void test_metadata (void)
{
  TinyModel model = TINY_MODEL_DEFAULTS;
  Case c;
  case_init (&c, &model, 1);
  g_autoptr (QzAnalysis) analysis = analyse (&c);
  g_autofree char *out = tiny_model_path ("metadata.gguf");
  g_autofree char *story = g_strnfill (5000, 'x');
  const char *const metadata[] = { "general.name", "Another name", "valise.story", story, NULL };
  guint64 target = qz_curves_bytes_for_bpw (qz_analysis_curves (analysis), 5);
  g_autoptr (GError) error = NULL;
  QzResult result;
  g_assert_true (qz_fit (c.gguf, analysis, &(QzTarget) { .bytes = target, .n_ctx = 48, .kv_bits = 8, .metadata = metadata }, out, c.workers, &result, NULL, NULL, NULL, &error));
  g_assert_no_error (error);
  g_assert_cmpuint (size_of (out), <=, target);
  g_autoptr (EngGguf) written = eng_gguf_open (out, &error);
  g_assert_cmpstr (eng_gguf_get_string (written, "general.name", ""), ==, "Another name");
  g_assert_cmpstr (eng_gguf_get_string (written, "valise.story", ""), ==, story);
  /* The session it was planned for goes with the file. */
  EngTraits traits;
  g_assert_true (eng_traits_read (&traits, written, &error));
  g_assert_cmpuint (traits.n_ctx_planned, ==, 48);
  g_assert_cmpint (traits.kv_bits_planned, ==, 8);
  case_clear (&c);
}

static void fit_to (Case *c, const QzAnalysis *analysis, const char *path)
{
  g_autoptr (GError) error = NULL;
  QzResult result;
  qz_fit (c->gguf, analysis, &(QzTarget) { .bytes = qz_curves_bytes_for_bpw (qz_analysis_curves (analysis), 4) }, path, c->workers, &result, NULL, NULL, NULL, &error);
  g_assert_no_error (error);
}

/* With one depth everywhere a trellis shares errors out among its rows by what they matter: told that all matter alike, it loses more in as many bytes. */
static void test_rows_alike (void)
{
  TinyModel model = TINY_MODEL_DEFAULTS;
  Case c;
  case_init (&c, &model, 2);
  g_autoptr (QzAnalysis) analysis = analyse (&c);
  g_autofree char *out = tiny_model_path ("alike.gguf");
  QzResult results[2];
  for (guint i = 0; i < 2; i++) {
    g_autoptr (GError) error = NULL;
    qz_fit (c.gguf, analysis, &(QzTarget) { .bits = 3, .allocation = i ? QZ_ALLOCATE_NONE : QZ_ALLOCATE_CELLS }, out, c.workers, &results[i], NULL, NULL, NULL, &error);
    g_assert_no_error (error);
  }
  g_test_message ("expected %g, rows alike %g", results[0].expected_kl, results[1].expected_kl);
  g_assert_cmpuint (results[0].file_bytes, ==, results[1].file_bytes);
  g_assert_cmpfloat (results[1].expected_kl, >, 1.05 * results[0].expected_kl);
  case_clear (&c);
}

/* One seed, one file: whatever the number of threads, and through the analysis file. */
static void test_same_file (void)
{
  TinyModel model = TINY_MODEL_DEFAULTS;
  g_autofree char *first = tiny_model_path ("first.gguf"), *second = tiny_model_path ("second.gguf"), *third = tiny_model_path ("third.gguf");
  g_autofree char *saved = tiny_model_path ("analysis");
  g_autoptr (GError) error = NULL;
  Case c;
  case_init (&c, &model, 1);
  g_autoptr (QzAnalysis) analysis = analyse (&c);
  fit_to (&c, analysis, first);
  g_assert_true (qz_analysis_save (analysis, saved, &error));
  g_assert_no_error (error);
  g_autoptr (QzAnalysis) loaded = qz_analysis_load (c.gguf, saved, &error);
  g_assert_no_error (error);
  fit_to (&c, loaded, second);
  assert_same_file (first, second);
  g_autoptr (QzCurves) curves = qz_curves_load (c.gguf, saved, &error);
  g_assert_no_error (error);
  QzPreview a, b;
  qz_curves_preview (curves, 60000, &a);
  qz_curves_preview (qz_analysis_curves (analysis), 60000, &b);
  g_assert_cmpmem (&a, sizeof a, &b, sizeof b);
  case_clear (&c);

  case_init (&c, &model, 3);
  g_autoptr (QzAnalysis) threaded = analyse (&c);
  fit_to (&c, threaded, third);
  assert_same_file (first, third);
  case_clear (&c);
}

static void test_damaged_analysis (void)
{
  TinyModel model = TINY_MODEL_DEFAULTS;
  g_autofree char *saved = tiny_model_path ("analysis"), *other_path = tiny_model_path ("other.gguf");
  g_autofree char *data = NULL;
  gsize size;
  Case c;
  case_init (&c, &model, 1);
  g_autoptr (QzAnalysis) analysis = analyse (&c);
  g_assert_true (qz_analysis_save (analysis, saved, NULL));
  g_assert_true (g_file_get_contents (saved, &data, &size, NULL));
  const gsize cuts[] = { 0, 7, 63, 64, 100, size / 4, size - 1 };
  for (guint i = 0; i < G_N_ELEMENTS (cuts); i++) {
    g_autoptr (GError) error = NULL;
    g_assert_true (g_file_set_contents (saved, data, cuts[i], NULL));
    g_assert_null (qz_analysis_load (c.gguf, saved, &error));
    g_assert_nonnull (error);
    g_assert_null (qz_curves_load (c.gguf, saved, NULL));
  }
  for (guint i = 0; i < 200; i++) {
    g_autofree char *bad = g_memdup2 (data, size);
    g_autoptr (QzAnalysis) loaded = NULL;
    bad[(i * 997) % 8192] ^= 1 << i % 8;
    g_assert_true (g_file_set_contents (saved, bad, size, NULL));
    loaded = qz_analysis_load (c.gguf, saved, NULL);
    g_assert_null (loaded);
  }
  /* Of another model. */
  model.n_layers = 1;
  tiny_model_write (&model, other_path);
  g_autoptr (GError) error = NULL;
  g_autoptr (EngGguf) other = eng_gguf_open (other_path, &error);
  g_assert_true (g_file_set_contents (saved, data, size, NULL));
  g_assert_null (qz_analysis_load (other, saved, &error));
  g_assert_error (error, ENG_ERROR, ENG_ERROR_FORMAT);
  QzResult result;
  g_clear_error (&error);
  g_assert_false (qz_fit (other, analysis, &(QzTarget) { .bytes = 1 << 30 }, saved, c.workers, &result, NULL, NULL, NULL, &error));
  g_assert_error (error, ENG_ERROR, ENG_ERROR_ARGUMENT);
  case_clear (&c);
}

typedef struct {
  GCancellable *cancellable;
  guint calls, cancel_at;
} Cancel;

static void cancel_later (double fraction, const char *what, gpointer data)
{
  Cancel *cancel = data;
  g_assert_cmpfloat (fraction, >=, 0);
  g_assert_cmpfloat (fraction, <=, 1.0001);
  g_assert_nonnull (what);
  if (cancel->calls++ == cancel->cancel_at)
    g_cancellable_cancel (cancel->cancellable);
}

static guint files_in (const char *folder)
{
  g_autoptr (GDir) dir = g_dir_open (folder, 0, NULL);
  guint n = 0;
  while (dir != NULL && g_dir_read_name (dir) != NULL)
    n++;
  return n;
}

/* Cancelled at every report in turn, until the work is through: each time an error, and no file more than before. */
static void test_cancel (void)
{
  TinyModel model = TINY_MODEL_DEFAULTS;
  Case c;
  model.n_layers = 1;
  case_init (&c, &model, 1);
  g_autoptr (QzAnalysis) analysis = analyse (&c);
  g_autofree char *folder = tiny_model_path ("cancelled"), *out = g_build_filename (folder, "fit.gguf", NULL);
  g_assert_cmpint (g_mkdir_with_parents (folder, 0700), ==, 0);
  guint64 target = qz_curves_bytes_for_bpw (qz_analysis_curves (analysis), 4);
  gboolean through = FALSE;
  for (guint at = 0; !through; at++) {
    g_autoptr (GCancellable) cancellable = g_cancellable_new ();
    g_autoptr (GError) error = NULL;
    Cancel cancel = { cancellable, 0, at };
    QzResult result;
    g_assert_cmpuint (at, <, 1000);
    through = qz_fit (c.gguf, analysis, &(QzTarget) { .bytes = target }, out, c.workers, &result, cancel_later, &cancel, cancellable, &error);
    if (!through) {
      g_assert_error (error, ENG_ERROR, ENG_ERROR_CANCELLED);
      g_assert_cmpuint (files_in (folder), ==, 0);
    }
  }
  g_assert_cmpuint (files_in (folder), ==, 1);
  g_unlink (out);
  g_rmdir (folder);
  through = FALSE;
  for (guint at = 0; !through; at += 3) {
    g_autoptr (GCancellable) cancellable = g_cancellable_new ();
    g_autoptr (GError) error = NULL;
    Cancel cancel = { cancellable, 0, at };
    g_assert_cmpuint (at, <, 1000);
    g_autoptr (QzAnalysis) again = qz_analyse (c.gguf, &c.options, c.workers, cancel_later, &cancel, cancellable, &error);
    through = again != NULL;
    if (!through)
      g_assert_error (error, ENG_ERROR, ENG_ERROR_CANCELLED);
  }
  case_clear (&c);
}

static void test_bad_text (void)
{
  TinyModel model = TINY_MODEL_DEFAULTS;
  Case c;
  case_init (&c, &model, 1);
  const char *const texts[] = { "", "too short", "caf\xe9 is not UTF-8, whatever follows it, and however long the text may be that follows" };
  const char *const words[] = { "tokens", "tokens", "UTF-8" };
  for (guint i = 0; i < G_N_ELEMENTS (texts); i++) {
    g_autoptr (GError) error = NULL;
    QzOptions options = { .calibration = texts[i], .calibration_length = strlen (texts[i]) };
    g_assert_null (qz_analyse (c.gguf, &options, c.workers, NULL, NULL, NULL, &error));
    g_assert_error (error, ENG_ERROR, ENG_ERROR_ARGUMENT);
    g_assert_nonnull (strstr (error->message, words[i]));
    g_assert_null (strchr (error->message, '\n'));
  }
  case_clear (&c);
}

static void broken_row (gpointer data, const char *name, guint row, float *out, guint cols)
{
  for (guint i = 0; i < cols; i++)
    out[i] = 0.1f * sinf (row * 31 + i * 7 + strlen (name));
  if (g_str_equal (name, data) && row == 5)
    out[3] = row % 2 ? NAN : INFINITY;
}

static void test_broken_weights (void)
{
  static const char *const names[] = { "blk.1.ffn_down.weight", "blk.0.attn_k.weight", "token_embd.weight" };
  for (guint i = 0; i < G_N_ELEMENTS (names); i++) {
    TinyModel model = TINY_MODEL_DEFAULTS;
    g_autoptr (GError) error = NULL;
    Case c;
    model.row = broken_row;
    model.data = (gpointer) names[i];
    case_init (&c, &model, 2);
    g_assert_null (qz_analyse (c.gguf, &c.options, c.workers, NULL, NULL, NULL, &error));
    g_assert_error (error, ENG_ERROR, ENG_ERROR_FORMAT);
    g_assert_nonnull (strstr (error->message, names[i]));
    case_clear (&c);
  }
}

/* A whole matrix of zeros costs nothing and breaks nothing. */
static void zero_row (gpointer data, const char *name, guint row, float *out, guint cols)
{
  for (guint i = 0; i < cols; i++)
    out[i] = g_str_equal (name, data) ? 0 : 0.1f * sinf (row * 31 + i * 7 + strlen (name));
}

static void test_zero_matrix (void)
{
  static const char *const names[] = { "blk.1.ffn_up.weight", "blk.0.attn_v.weight" };
  for (guint i = 0; i < G_N_ELEMENTS (names); i++) {
    TinyModel model = TINY_MODEL_DEFAULTS;
    g_autofree char *out = tiny_model_path ("zeros.gguf");
    Case c;
    model.row = zero_row;
    model.data = (gpointer) names[i];
    case_init (&c, &model, 1);
    g_autoptr (QzAnalysis) analysis = analyse (&c);
    QzCurves *curves = qz_analysis_curves (analysis);
    g_autofree float *depths = g_new (float, qz_curves_n_matrices (curves));
    qz_curves_depths (curves, qz_curves_max_bytes (curves), depths);
    for (guint m = 0; m < qz_curves_n_matrices (curves); m++)
      if (g_str_equal (qz_curves_matrix_name (curves, m), names[i]))
        g_assert_cmpfloat (depths[m], ==, 0); /* however much room there is */
    fit_to (&c, analysis, out);
    case_clear (&c);
  }
}

/* Feed-forward units of one channel, and of a number that is a multiple of nothing: matrices of one row and of one column. */
static void test_odd_widths (void)
{
  static const guint widths[] = { 1, 2, 37, 131 };
  for (guint i = 0; i < G_N_ELEMENTS (widths); i++) {
    TinyModel model = TINY_MODEL_DEFAULTS;
    g_autofree char *out = tiny_model_path ("odd.gguf");
    g_autoptr (GError) error = NULL;
    Case c;
    model.n_layers = 1;
    model.n_ff = widths[i];
    case_init (&c, &model, 2);
    g_autoptr (QzAnalysis) analysis = analyse (&c);
    QzResult result;
    g_assert_true (qz_fit (c.gguf, analysis, &(QzTarget) { .bytes = qz_curves_max_bytes (qz_analysis_curves (analysis)) }, out, c.workers, &result, NULL, NULL,
                           NULL, &error));
    g_assert_no_error (error);
    g_assert_cmpfloat (result.kl_divergence, <, 0.02);
    case_clear (&c);
  }
}

static void test_estimate (void)
{
  TinyModel model = TINY_MODEL_DEFAULTS;
  g_autoptr (GError) error = NULL;
  Case c;
  case_init (&c, &model, 1);
  g_autoptr (QzCurves) estimate = qz_curves_estimate (c.gguf, &error);
  g_assert_no_error (error);
  g_assert_true (qz_curves_is_estimate (estimate));
  guint n = qz_curves_n_matrices (estimate);
  g_assert_cmpuint (n, ==, 1 + 7 * model.n_layers);
  g_assert_cmpstr (qz_curves_matrix_name (estimate, 0), ==, "token_embd.weight");
  g_autofree float *depths = g_new (float, n);
  QzPreview before = { .expected_kl = INFINITY };
  for (guint64 target = qz_curves_min_bytes (estimate); target <= qz_curves_max_bytes (estimate); target += 5000) {
    QzPreview preview;
    qz_curves_preview (estimate, target, &preview);
    g_assert_cmpuint (preview.file_bytes, <=, target);
    g_assert_cmpfloat (preview.expected_kl, <=, before.expected_kl);
    g_assert_cmpfloat (preview.expected_top1, >=, before.expected_top1);
    before = preview;
    qz_curves_depths (estimate, target, depths);
    for (guint m = 0; m < n; m++)
      g_assert_true (depths[m] >= 1 && depths[m] <= 8);
  }
  /* The estimate's sizes are near those of the analysis. */
  g_autoptr (QzAnalysis) analysis = analyse (&c);
  QzCurves *curves = qz_analysis_curves (analysis);
  g_assert_cmpfloat (fabs ((double) qz_curves_min_bytes (estimate) / qz_curves_min_bytes (curves) - 1), <, 0.1);
  g_assert_cmpfloat (fabs ((double) qz_curves_max_bytes (estimate) / qz_curves_max_bytes (curves) - 1), <, 0.1);
  case_clear (&c);
}

static void test_fit_of_fit (void)
{
  TinyModel model = TINY_MODEL_DEFAULTS;
  g_autofree char *out = tiny_model_path ("again.gguf");
  g_autoptr (GError) error = NULL;
  Case c;
  case_init (&c, &model, 1);
  g_autoptr (QzAnalysis) analysis = analyse (&c);
  fit_to (&c, analysis, out);
  g_autoptr (EngGguf) written = eng_gguf_open (out, &error);
  g_assert_null (qz_analyse (written, &c.options, c.workers, NULL, NULL, NULL, &error));
  g_assert_error (error, ENG_ERROR, ENG_ERROR_ARGUMENT);
  case_clear (&c);
}

static void test_unknown_tensor (void)
{
  TinyModel model = TINY_MODEL_DEFAULTS;
  g_autofree char *path = tiny_model_path ("missing.gguf");
  model.leave_out = "blk.1.ffn_gate.weight";
  tiny_model_write (&model, path);
  g_autoptr (GError) error = NULL;
  g_autoptr (EngGguf) gguf = eng_gguf_open (path, &error);
  g_assert_no_error (error);
  EngWorkers *workers = eng_workers_new (1);
  g_assert_null (qz_analyse (gguf, NULL, workers, NULL, NULL, NULL, &error));
  g_assert_error (error, ENG_ERROR, ENG_ERROR_FORMAT);
  g_assert_nonnull (strstr (error->message, "blk.1.ffn_gate.weight"));
  eng_workers_free (workers);
}

/* A real model, with less calibration than usual to keep the test short. */
static void test_reference (void)
{
  const char *path = g_getenv ("VALISE_REFERENCE");
  if (path == NULL) {
    g_test_skip ("VALISE_REFERENCE does not name a float model");
    return;
  }
  g_autoptr (GError) error = NULL;
  g_autoptr (EngGguf) gguf = eng_gguf_open (path, &error);
  g_assert_no_error (error);
  EngWorkers *workers = eng_workers_new (0);
  QzOptions options = { .tokens = 3072 };
  g_autoptr (QzAnalysis) analysis = qz_analyse (gguf, &options, workers, NULL, NULL, NULL, &error);
  g_assert_no_error (error);
  g_autofree char *out = tiny_model_path ("reference.gguf");
  guint64 target = eng_gguf_file_bytes (gguf) / 3;
  QzResult result;
  g_assert_true (qz_fit (gguf, analysis, &(QzTarget) { .bytes = target }, out, workers, &result, NULL, NULL, NULL, &error));
  g_assert_no_error (error);
  g_test_message ("%" G_GUINT64_FORMAT " bytes, %.3f bpw: expected %.4f, measured %.4f, same %.3f, %.1f s", result.file_bytes, result.bpw,
                  result.expected_kl, result.kl_divergence, result.top1_agreement, result.seconds);
  g_assert_cmpuint (size_of (out), <=, target);
  g_assert_cmpuint (size_of (out), >, target - 4096);
  g_assert_cmpfloat (result.kl_divergence, <, 0.10);
  g_assert_cmpfloat (result.top1_agreement, >, 0.80);

  /* Few bits leave much to make up for. */
  QzResult usual, tuned;
  QzTarget few = { .bytes = qz_curves_bytes_for_bpw (qz_analysis_curves (analysis), 2.2) };
  g_assert_true (qz_fit (gguf, analysis, &few, out, workers, &usual, NULL, NULL, NULL, &error));
  few.quality = QZ_QUALITY_BEST;
  g_assert_true (qz_fit (gguf, analysis, &few, out, workers, &tuned, NULL, NULL, NULL, &error));
  g_test_message ("at 2.2 bits: %.4f, tuned on so little %.4f", usual.kl_divergence, tuned.kl_divergence);
  g_assert_cmpuint (tuned.file_bytes, ==, usual.file_bytes);
  g_assert_cmpfloat (tuned.kl_divergence, <, 0.97 * usual.kl_divergence);
  eng_workers_free (workers);
}

/* Q8_0 is 34 bytes for 32 weights; floats are not quantized. */
static void test_source_bits (void)
{
  g_autoptr (GError) error = NULL;
  TinyModel model = TINY_MODEL_DEFAULTS;
  g_autofree char *floats = tiny_model_path ("floats.gguf"), *eights = g_test_build_filename (G_TEST_DIST, "fixtures", "experts_q8_0.gguf", NULL);
  tiny_model_write (&model, floats);
  g_autoptr (EngGguf) f = eng_gguf_open (floats, &error);
  g_autoptr (EngGguf) q = eng_gguf_open (eights, &error);
  g_assert_no_error (error);
  g_assert_cmpfloat (qz_source_bits (f), ==, 0);
  g_assert_cmpfloat_with_epsilon (qz_source_bits (q), 8.5, 1e-9);
}

/* Matrices of a fit that are, to the byte, what a first loading makes of the source's. */
static guint count_kept (EngGguf *fit, EngGguf *loaded, guint *n_matrices)
{
  guint kept = 0;
  *n_matrices = 0;
  for (guint i = 0; i < eng_gguf_n_tensors (fit); i++) {
    const EngTensor *tensor = eng_gguf_tensor (fit, i), *own = eng_gguf_find_tensor (loaded, tensor->name);
    if (!g_str_has_suffix (tensor->name, ".xbit") || own == NULL)
      continue; /* floats in the source have no such form */
    ++*n_matrices;
    kept += tensor->bytes == own->bytes && memcmp (tensor->data, own->data, tensor->bytes) == 0;
  }
  return kept;
}

/* Of a checkpoint that is quantized already: no matrix takes more bytes than as it is, and the largest fit is all of it, exactly. */
static void fit_quantized (const char *path)
{
  g_autoptr (GError) error = NULL;
  EngWorkers *workers = eng_workers_new (2);
  g_autofree char *text = some_text (6000), *out = tiny_model_path ("fit.gguf"), *whole = tiny_model_path ("loaded.gguf");
  g_autoptr (EngGguf) source = eng_gguf_open (path, &error);
  g_assert_no_error (error);
  g_assert_true (eng_repack (source, whole, NULL, NULL, NULL, &error));
  g_autoptr (EngGguf) loaded = eng_gguf_open (whole, &error);
  QzOptions options = { .calibration = text, .calibration_length = strlen (text), .tokens = 1024, .seed = 3 };
  g_autoptr (QzAnalysis) analysis = qz_analyse (source, &options, workers, NULL, NULL, NULL, &error);
  g_assert_no_error (error);
  QzCurves *curves = qz_analysis_curves (analysis);
  guint64 least = qz_curves_min_bytes (curves), most = qz_curves_max_bytes (curves);
  guint some = 0, n = 0, kept = 0;
  for (guint i = 0; i <= 10; i++) {
    QzResult result;
    QzTarget target = { .bytes = least + (most - least) * i / 8, .quality = i == 7 ? QZ_QUALITY_BEST : QZ_QUALITY_USUAL };
    g_assert_true (qz_fit (source, analysis, &target, out, workers, &result, NULL, NULL, NULL, &error));
    g_assert_no_error (error);
    g_assert_cmpuint (size_of (out), ==, result.file_bytes);
    g_assert_cmpuint (result.file_bytes, <=, MIN (target.bytes, most));
    g_autoptr (EngGguf) made = eng_gguf_open (out, &error);
    g_assert_no_error (error);
    kept = count_kept (made, loaded, &n);
    some += kept > 0 && kept < n;
    g_test_message ("%" G_GUINT64_FORMAT " bytes: %u of %u kept, expected %g, measured %g", result.file_bytes, kept, n, result.expected_kl, result.kl_divergence);
    g_assert_true (i < 8 || (kept == n && result.file_bytes == most && result.kl_divergence < 0.01));
  }
  g_assert_cmpuint (some, >, 0);
  eng_workers_free (workers);
}

static void test_kept (void)
{
  g_autoptr (GError) error = NULL;
  TinyModel model = TINY_MODEL_DEFAULTS;
  g_autofree char *floats = tiny_model_path ("floats.gguf"), *plain = tiny_model_path ("plain.gguf");
  tiny_model_write (&model, floats);
  g_autoptr (EngGguf) source = eng_gguf_open (floats, &error);
  g_autoptr (QzCurves) curves = qz_curves_estimate (source, &error);
  g_assert_no_error (error);
  EngWorkers *workers = eng_workers_new (1);
  g_assert_true (qz_plain_export (source, plain, curves, eng_gguf_file_bytes (source) / 3, workers, NULL, NULL, NULL, &error));
  g_assert_no_error (error);
  fit_quantized (plain);
  eng_workers_free (workers);
}

static void test_kept_experts (void)
{
  g_autofree char *path = g_test_build_filename (G_TEST_DIST, "fixtures", "experts_q8_0.gguf", NULL);
  fit_quantized (path);
}

int main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_data_func ("/fit/keeps-every-size/tied", GUINT_TO_POINTER (FALSE), test_sizes);
  g_test_add_data_func ("/fit/keeps-every-size/untied", GUINT_TO_POINTER (TRUE), test_sizes);
  g_test_add_func ("/fit/names-the-smallest-size", test_too_small);
  g_test_add_func ("/fit/metadata-counts", test_metadata);
  g_test_add_func ("/fit/rows-alike", test_rows_alike);
  g_test_add_func ("/fit/same-file-for-a-seed", test_same_file);
  g_test_add_func ("/fit/refuses-a-damaged-analysis", test_damaged_analysis);
  g_test_add_func ("/fit/cancel-leaves-nothing", test_cancel);
  g_test_add_func ("/fit/refuses-bad-text", test_bad_text);
  g_test_add_func ("/fit/names-broken-weights", test_broken_weights);
  g_test_add_func ("/fit/zero-matrices", test_zero_matrix);
  g_test_add_func ("/fit/odd-widths", test_odd_widths);
  g_test_add_func ("/fit/estimate-without-analysis", test_estimate);
  g_test_add_func ("/fit/refuses-a-fit", test_fit_of_fit);
  g_test_add_func ("/fit/names-a-missing-tensor", test_unknown_tensor);
  g_test_add_func ("/fit/bits-of-a-quantized-source", test_source_bits);
  g_test_add_func ("/fit/keeps-what-is-quantized/plain", test_kept);
  g_test_add_func ("/fit/keeps-what-is-quantized/experts", test_kept_experts);
  g_test_add_func ("/fit/real-model-at-a-third", test_reference);
  int status = g_test_run ();
  tiny_model_clean ();
  return status;
}
