/* test_fits.c: plans and fits of the tiny model in a library: what was planned is what is made, never above the budget. */
#include "app/library/library.h"
#include "engine/error.h"
#include "tests/fixtures/scratch.h"
#include "tests/fixtures/tiny_model.h"

#include <glib/gstdio.h>
#include <fcntl.h>
#include <math.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>
#include <utime.h>

#define BASE_BYTES 1000000 /* of a program, made up: the sums are looked at, not this process */

typedef struct {
  ValiseLibrary *library;
  ValiseModel *model;
  char *text; /* a short calibration text: the bundled one takes its time */
} Case;

static void case_init (Case *c)
{
  static guint n;
  const TinyModel tiny = TINY_MODEL_DEFAULTS;
  g_autoptr (GError) error = NULL;
  g_autofree char *name = g_strdup_printf ("library-%u", n++), *home = scratch_path (name), *source = scratch_path ("tiny.gguf");
  g_autofree char *words = scratch_text (20000);
  tiny_model_write (&tiny, source);
  c->text = scratch_path ("words.txt");
  scratch_write (c->text, words, strlen (words));
  c->library = valise_library_open (home, &error);
  c->model = valise_library_import (c->library, source, NULL, NULL, NULL, NULL, &error);
  g_assert_no_error (error);
}

static void case_clear (Case *c)
{
  g_object_unref (c->library);
  g_object_unref (c->model);
  g_free (c->text);
}

static guint entries (Case *c, const char *name)
{
  g_autofree char *folder = g_build_filename (valise_library_get_home (c->library), name, NULL);
  return scratch_count (folder);
}

static ValiseModel *fit (Case *c, const ValiseTarget *target, const char *output, ValisePlan *plan, QzResult *result)
{
  g_autoptr (GError) error = NULL;
  ValiseModel *made = valise_library_fit (c->library, c->model, target, output, c->text, plan, result, NULL, NULL, NULL, &error);
  g_assert_no_error (error);
  g_assert_nonnull (made);
  return made;
}

/* The least RAM that a plan agrees to. */
static guint64 least_ram (Case *c, ValiseTarget target)
{
  guint64 low = 1, high = 100000000;
  while (low < high) {
    ValisePlan plan;
    target.ram_bytes = low + (high - low) / 2;
    if (valise_library_plan (c->library, c->model, &target, &plan, NULL))
      high = target.ram_bytes;
    else
      low = target.ram_bytes + 1;
  }
  return low;
}

/* Budgets from the smallest up, odd ones among them: the total is never above, and little of it is left over. */
static void test_budgets (void)
{
  Case c;
  case_init (&c);
  g_autoptr (GError) error = NULL;
  g_assert_true (valise_library_analyse (c.library, c.model, c.text, NULL, NULL, NULL, &error));
  g_assert_no_error (error);
  g_assert_cmpuint (entries (&c, "analysis"), ==, 1);
  ValiseTarget target = { .ram_bytes = 10000000, .program_base_bytes = BASE_BYTES };
  ValisePlan plan;
  g_assert_true (valise_library_plan (c.library, c.model, &target, &plan, &error));
  guint64 around = plan.memory.total_bytes - plan.memory.weights_bytes, most = plan.memory.weights_bytes;
  g_autoptr (QzCurves) curves = valise_library_get_curves (c.library, c.model, &error);
  g_assert_false (qz_curves_is_estimate (curves));
  guint64 least = least_ram (&c, target) - around;
  double before = INFINITY;
  for (guint i = 0; i <= 5; i++) {
    QzResult result;
    g_autofree char *name = g_strdup_printf ("fit %u", i);
    target.ram_bytes = around + least + (most - least) * i / 5 + i * 37;
    ValisePlan planned;
    g_assert_true (valise_library_plan (c.library, c.model, &target, &planned, &error));
    g_autoptr (ValiseModel) made = fit (&c, &target, name, &plan, &result);
    guint64 bytes = valise_model_get_bytes (made);
    g_assert_cmpuint (around + bytes, <=, target.ram_bytes);
    g_assert_cmpuint (plan.memory.total_bytes, ==, around + bytes);
    g_assert_cmpuint (plan.memory.weights_bytes, ==, bytes);
    g_assert_cmpuint (result.file_bytes, ==, bytes);
    g_assert_cmpuint (ABS ((gint64) plan.memory.total_bytes - (gint64) planned.memory.total_bytes), <, 4096);
    g_assert_cmpuint (plan.memory.kv_bytes, ==, planned.memory.kv_bytes);
    g_assert_cmpuint (plan.smallest_ram_bytes, ==, planned.smallest_ram_bytes);
    g_assert_cmpfloat (planned.expected_kl, <=, before);
    before = planned.expected_kl;
    g_assert_cmpint (valise_model_get_kind (made), ==, VALISE_MODEL_FIT);
    g_assert_cmpint (valise_model_get_parent (made), ==, valise_model_get_id (c.model));
    g_assert_cmpstr (valise_model_get_source (made), ==, "tiny");
    g_assert_cmpfloat (valise_model_get_kl (made), ==, result.kl_divergence);
    g_assert_true (valise_library_verify (c.library, made, NULL, NULL, NULL, &error));
    g_assert_no_error (error);
  }
  g_assert_cmpuint (entries (&c, "analysis"), ==, 1); /* one serves every budget */
  g_assert_cmpuint (entries (&c, "tmp"), ==, 0);
  case_clear (&c);
}

/* One byte below the smallest is refused with the smallest, which then works. */
static void test_smallest (void)
{
  Case c;
  case_init (&c);
  ValiseTarget target = { .ram_bytes = 1, .program_base_bytes = BASE_BYTES };
  ValisePlan plan;
  g_autoptr (GError) error = NULL;
  g_assert_false (valise_library_plan (c.library, c.model, &target, &plan, &error));
  g_assert_error (error, VALISE_ERROR, VALISE_ERROR_TOO_SMALL);
  const char *named = strstr (error->message, "the smallest possible is ");
  g_assert_nonnull (named);
  g_assert_true (valise_size_parse (named + strlen ("the smallest possible is "), &target.ram_bytes, NULL));
  g_assert_cmpuint (target.ram_bytes, ==, plan.smallest_ram_bytes);
  g_clear_error (&error);
  g_assert_true (valise_library_plan (c.library, c.model, &target, &plan, &error));
  g_assert_no_error (error);
  target.ram_bytes = least_ram (&c, target) - 1;
  g_assert_cmpuint (target.ram_bytes, <, plan.smallest_ram_bytes);
  g_assert_cmpuint (target.ram_bytes + 100000, >, plan.smallest_ram_bytes);
  /* A fit is refused before any work. */
  g_assert_null (valise_library_fit (c.library, c.model, &target, NULL, c.text, NULL, NULL, NULL, NULL, NULL, &error));
  g_assert_error (error, VALISE_ERROR, VALISE_ERROR_TOO_SMALL);
  g_assert_cmpuint (entries (&c, "analysis"), ==, 0);
  /* A file size likewise. */
  target = (ValiseTarget) { .size_bytes = 1000, .program_base_bytes = BASE_BYTES };
  g_clear_error (&error);
  g_assert_false (valise_library_plan (c.library, c.model, &target, &plan, &error));
  g_assert_error (error, VALISE_ERROR, VALISE_ERROR_TOO_SMALL);
  case_clear (&c);
}

static void test_bad_targets (void)
{
  Case c;
  case_init (&c);
  const ValiseTarget targets[] = {
    { 0 },
    { .ram_bytes = 20000000, .bpw = 4 },
    { .size_bytes = 100000, .bpw = 4 },
    { .ram_bytes = 20000000, .size_bytes = 100000 },
    { .bpw = -1 },
    { .bpw = NAN },
    { .bpw = INFINITY },
    { .bpw = 4, .context = 257 },
    { .bpw = 4, .context = G_MAXUINT },
    { .bpw = 4, .kv_bits = 7 },
    { .bpw = 4, .kv_bits = -8 },
  };
  for (guint i = 0; i < G_N_ELEMENTS (targets); i++) {
    g_autoptr (GError) error = NULL;
    ValisePlan plan;
    g_test_message ("target %u", i);
    g_assert_false (valise_library_plan (c.library, c.model, &targets[i], &plan, &error));
    g_assert_error (error, VALISE_ERROR, VALISE_ERROR_ARGUMENT);
  }
  /* More than can be used is met with all there is. */
  const ValiseTarget much = { .ram_bytes = G_MAXINT64, .program_base_bytes = BASE_BYTES };
  ValisePlan plan;
  g_assert_true (valise_library_plan (c.library, c.model, &much, &plan, NULL));
  g_assert_cmpuint (plan.memory.total_bytes, <, 10000000);
  case_clear (&c);
}

/* The fit opens as it was planned; it can be neither fitted again nor overwritten by one. */
static void test_remembers_its_chat (void)
{
  Case c;
  case_init (&c);
  g_autoptr (GError) error = NULL;
  const ValiseTarget target = { .ram_bytes = 4000000, .context = 96, .kv_bits = 8, .program_base_bytes = BASE_BYTES };
  g_autoptr (ValiseModel) made = fit (&c, &target, NULL, NULL, NULL);
  g_autoptr (EngModel) model = valise_library_open_model (c.library, made, NULL, NULL, NULL, &error);
  g_assert_no_error (error);
  EngSessionOptions options;
  g_assert_true (valise_session_options (eng_model_traits (model), 0, 0, &options, &error));
  g_assert_cmpuint (options.n_ctx, ==, 96);
  g_assert_cmpint (options.kv_bits, ==, 8);
  g_assert_true (valise_session_options (eng_model_traits (model), 200, 16, &options, &error));
  g_assert_cmpuint (options.n_ctx, ==, 200);
  /* The same again is there already. */
  g_autoptr (ValiseModel) again = fit (&c, &target, NULL, NULL, NULL);
  g_assert_cmpint (valise_model_get_id (again), ==, valise_model_get_id (made));
  g_assert_null (valise_library_fit (c.library, made, &target, NULL, c.text, NULL, NULL, NULL, NULL, NULL, &error));
  g_assert_error (error, VALISE_ERROR, VALISE_ERROR_ARGUMENT);
  g_clear_error (&error);
  g_assert_null (valise_library_fit (c.library, c.model, &target, "tiny", c.text, NULL, NULL, NULL, NULL, NULL, &error));
  g_assert_error (error, VALISE_ERROR, VALISE_ERROR_EXISTS);
  g_clear_error (&error);
  g_assert_null (valise_library_fit (c.library, c.model, &target, valise_model_get_path (c.model), c.text, NULL, NULL, NULL, NULL, NULL, &error));
  g_assert_error (error, VALISE_ERROR, VALISE_ERROR_ARGUMENT);
  g_clear_error (&error);
  g_assert_true (valise_library_verify (c.library, c.model, NULL, NULL, NULL, &error));
  case_clear (&c);
}

typedef struct {
  Case *c;
  guint calls;
} Remover;

static void remove_meanwhile (double fraction, const char *what, gpointer data)
{
  Remover *remover = data;
  g_assert_true (fraction >= 0 && fraction <= 1);
  if (remover->calls++ == 0)
    g_assert_true (valise_library_remove (remover->c->library, remover->c->model, NULL, NULL));
}

/* The checkpoint may go while it is fitted: the fit stays, without a parent, and nothing of the checkpoint does. */
static void test_checkpoint_removed (void)
{
  Case c;
  case_init (&c);
  Remover remover = { &c, 0 };
  g_autoptr (GError) error = NULL;
  const ValiseTarget target = { .bpw = 4 };
  g_autoptr (ValiseModel) made
    = valise_library_fit (c.library, c.model, &target, "orphan", c.text, NULL, NULL, remove_meanwhile, &remover, NULL, &error);
  g_assert_no_error (error);
  g_assert_cmpuint (remover.calls, >, 1);
  g_autoptr (GPtrArray) models = valise_library_list_models (c.library, &error);
  g_assert_cmpuint (models->len, ==, 1);
  g_assert_cmpstr (valise_model_get_name (models->pdata[0]), ==, "orphan");
  g_assert_cmpint (valise_model_get_parent (models->pdata[0]), ==, 0);
  g_assert_true (valise_library_verify (c.library, made, NULL, NULL, NULL, &error));
  g_autofree char *home = g_strdup (valise_library_get_home (c.library));
  g_clear_object (&c.library);
  c.library = valise_library_open (home, &error);
  g_assert_cmpuint (entries (&c, "objects"), ==, 1);
  g_assert_cmpuint (entries (&c, "analysis"), ==, 0);
  g_assert_cmpuint (entries (&c, "tmp"), ==, 0);
  case_clear (&c);
}

static void test_bad_calibration (void)
{
  Case c;
  case_init (&c);
  g_autofree char *bytes = scratch_path ("bytes.txt"), *empty = scratch_path ("empty.txt"), *nothing = scratch_path ("no such file");
  scratch_write (bytes, "\xff\xfe\x00word", 7);
  scratch_write (empty, "", 0);
  const char *const texts[] = { bytes, empty, nothing };
  for (guint i = 0; i < G_N_ELEMENTS (texts); i++) {
    g_autoptr (GError) error = NULL;
    g_assert_false (valise_library_analyse (c.library, c.model, texts[i], NULL, NULL, NULL, &error));
    g_assert_nonnull (error);
    g_test_message ("%s", error->message);
    g_assert_cmpuint (entries (&c, "analysis"), ==, 0);
    g_assert_cmpuint (entries (&c, "tmp"), ==, 0);
  }
  case_clear (&c);
}

/* A saved analysis that has lost bytes is made again, not trusted. */
static void test_damaged_analysis (void)
{
  Case c;
  case_init (&c);
  const ValiseTarget target = { .bpw = 4, .program_base_bytes = BASE_BYTES };
  ValisePlan plan;
  g_autoptr (ValiseModel) first = fit (&c, &target, "first", NULL, NULL);
  g_autofree char *folder = g_build_filename (valise_library_get_home (c.library), "analysis", NULL);
  g_autoptr (GDir) dir = g_dir_open (folder, 0, NULL);
  g_autofree char *path = g_build_filename (folder, g_dir_read_name (dir), NULL);
  g_autoptr (GBytes) whole = scratch_read (path);
  for (guint i = 0; i < 3; i++) {
    g_autoptr (GError) error = NULL;
    g_autofree guint8 *bad = g_memdup2 (g_bytes_get_data (whole, NULL), g_bytes_get_size (whole));
    bad[i == 0 ? 3 : 100 + i] ^= 8;
    scratch_write (path, bad, i == 2 ? g_bytes_get_size (whole) / 2 : g_bytes_get_size (whole));
    g_assert_true (valise_library_plan (c.library, c.model, &target, &plan, &error)); /* from an estimate, then */
    g_autofree char *name = g_strdup_printf ("again %u", i);
    g_autoptr (ValiseModel) again = fit (&c, &target, name, &plan, NULL);
    g_assert_false (plan.is_estimate);
    g_assert_cmpuint (valise_model_get_bytes (again), ==, valise_model_get_bytes (first));
  }
  case_clear (&c);
}

/* The sum of `pattern`'s numbers in the page. */
static double sum_of (const char *page, const char *pattern, guint *n)
{
  double sum = 0;
  g_autoptr (GRegex) regex = g_regex_new (pattern, 0, 0, NULL);
  g_autoptr (GMatchInfo) match = NULL;
  *n = 0;
  for (g_regex_match (regex, page, 0, &match); g_match_info_matches (match); g_match_info_next (match, NULL), ++*n) {
    g_autofree char *number = g_match_info_fetch (match, 1);
    sum += g_ascii_strtod (number, NULL);
  }
  return sum;
}

/* On what the model writes itself; it is written once for all sizes. */
static void test_self (void)
{
  Case c;
  case_init (&c);
  g_free (c.text);
  c.text = g_strdup (VALISE_CALIBRATION_SELF);
  QzResult coarse, fine;
  const ValiseTarget small = { .bpw = 3, .program_base_bytes = BASE_BYTES }, large = { .bpw = 7, .program_base_bytes = BASE_BYTES };
  g_autoptr (ValiseModel) first = fit (&c, &small, "on itself", NULL, &coarse);
  g_assert_cmpuint (entries (&c, "analysis"), ==, 1);
  g_autoptr (ValiseModel) second = fit (&c, &large, "on itself again", NULL, &fine);
  g_assert_cmpuint (entries (&c, "analysis"), ==, 1);
  g_assert_cmpuint (valise_model_get_bytes (first), <, valise_model_get_bytes (second));
  g_assert_cmpfloat (fine.kl_divergence, <, 0.5 * coarse.kl_divergence);
  case_clear (&c);
}

/* The page says what the file holds: every matrix, shares that sum to the whole, what was promised and measured; and asks for nothing from outside. */
static void test_report (void)
{
  Case c;
  case_init (&c);
  const ValiseTarget target = { .bpw = 4, .program_base_bytes = BASE_BYTES };
  QzResult result;
  g_autoptr (GError) error = NULL;
  g_autoptr (ValiseModel) made = fit (&c, &target, "a <fit> & more", NULL, &result);
  g_autofree char *path = scratch_path ("report.html");
  g_assert_true (valise_model_write_report (made, path, &error));
  g_assert_no_error (error);
  g_autoptr (GBytes) bytes = scratch_read (path);
  g_autofree char *page = g_strndup (g_bytes_get_data (bytes, NULL), g_bytes_get_size (bytes));
  guint n_matrices = 1 + 7 * 2, n;
  double shares = sum_of (page, ">([0-9.]+) %<span", &n);
  g_assert_cmpuint (n, ==, 8 + 8 + 1); /* of bytes and of loss of each component, and of the rest's bytes */
  g_assert_cmpfloat (ABS (shares - 200), <, 1);
  double losses = sum_of (page, "<td>([0-9.]+) %</td>", &n);
  g_assert_cmpuint (n, ==, n_matrices);
  g_assert_cmpfloat (ABS (losses - 100), <, 0.1);
  sum_of (page, "<svg role=\"img\"[^>]*aria-label=\"([0-9.]+) bits on average", &n);
  g_assert_cmpuint (n, ==, n_matrices);
  double weights = sum_of (page, "([0-9.]+) % of the weights", &n);
  g_assert_cmpfloat (ABS (weights - 100), <, 0.5);
  g_autofree char *measured = g_strdup_printf ("<dd>%.4f</dd>", result.kl_divergence);
  g_assert_nonnull (strstr (page, measured));
  g_assert_nonnull (strstr (page, "a &lt;fit&gt; &amp; more"));
  g_assert_nonnull (strstr (page, "prefers-color-scheme:dark"));
  g_assert_null (strstr (page, "http"));
  g_assert_null (strstr (page, "<script"));
  g_assert_null (strstr (page, "not recorded"));
  g_assert_false (valise_model_write_report (c.model, path, &error));
  g_assert_error (error, VALISE_ERROR, VALISE_ERROR_ARGUMENT);
  g_clear_error (&error);
  g_autofree char *nowhere = scratch_path ("no folder/report.html");
  g_assert_false (valise_model_write_report (made, nowhere, &error));
  g_assert_nonnull (strstr (error->message, "no folder"));
  case_clear (&c);
}

static void touch (const char *path, guint days)
{
  gint64 then = g_get_real_time () / G_USEC_PER_SEC - days * G_GINT64_CONSTANT (24 * 3600);
  struct utimbuf times = { (time_t) then, (time_t) then };
  scratch_write (path, "half done", 9);
  g_assert_cmpint (g_utime (path, &times), ==, 0);
}

/* What an ended work left behind waits for a month; what somebody works on, and what is done, stays. */
static void test_left_behind (void)
{
  Case c;
  case_init (&c);
  g_autoptr (GError) error = NULL;
  g_assert_true (valise_library_analyse (c.library, c.model, c.text, NULL, NULL, NULL, &error));
  g_assert_no_error (error);
  g_autofree char *folder = g_build_filename (valise_library_get_home (c.library), "analysis", NULL), *home = g_strdup (valise_library_get_home (c.library));
  g_autoptr (GDir) dir = g_dir_open (folder, 0, NULL);
  g_autofree char *analysis = g_build_filename (folder, g_dir_read_name (dir), NULL);
  static const char *const works[] = { "old.analysis", "new.analysis", "held.analysis.fit", "mixed.analysis" };
  for (guint i = 0; i < G_N_ELEMENTS (works); i++)
    for (guint k = 0; k < 3; k++) {
      static const char *const ends[] = { "state", "packed", "lock" };
      g_autofree char *path = g_strdup_printf ("%.*s-%s.%s", (int) (strlen (folder) + 1 + 64), analysis, works[i], ends[k]);
      touch (path, i == 1 || (i == 3 && k == 1) ? 29 : 31);
    }
  g_autofree char *lock = g_strdup_printf ("%.*s-held.analysis.fit.lock", (int) (strlen (folder) + 1 + 64), analysis);
  int held = g_open (lock, O_RDWR | O_CLOEXEC, 0);
  g_assert_cmpint (flock (held, LOCK_EX), ==, 0);
  touch (analysis, 400);
  g_assert_cmpuint (scratch_count (folder), ==, 13);
  g_autoptr (ValiseLibrary) again = valise_library_open (home, &error);
  g_assert_nonnull (again);
  g_assert_cmpuint (scratch_count (folder), ==, 10);
  g_assert_true (g_file_test (analysis, G_FILE_TEST_EXISTS));
  g_assert_true (g_file_test (lock, G_FILE_TEST_EXISTS));
  close (held);
  g_autoptr (ValiseLibrary) later = valise_library_open (home, &error);
  g_assert_nonnull (later);
  g_assert_cmpuint (scratch_count (folder), ==, 7);
  case_clear (&c);
}

/* Of a model that is quantized already, with more bytes than it has: all of it is kept, and the page says so. */
static void test_report_of_kept (void)
{
  Case c;
  case_init (&c);
  g_autoptr (GError) error = NULL;
  g_autofree char *path = g_test_build_filename (G_TEST_DIST, "fixtures", "experts_q8_0.gguf", NULL), *written = scratch_path ("kept.html");
  g_object_unref (c.model);
  c.model = valise_library_import (c.library, path, NULL, NULL, NULL, NULL, &error);
  g_assert_no_error (error);
  const ValiseTarget target = { .size_bytes = 10000000, .program_base_bytes = BASE_BYTES };
  ValisePlan plan;
  QzResult result;
  g_autoptr (ValiseModel) made = fit (&c, &target, "as it was", &plan, &result);
  g_assert_cmpfloat (plan.source_bits, >, 8);
  g_assert_cmpuint (result.file_bytes, <, 100000);
  g_assert_cmpfloat (result.kl_divergence, <, 0.01);
  g_assert_true (valise_model_write_report (made, written, &error));
  g_assert_no_error (error);
  g_autoptr (GBytes) bytes = scratch_read (written);
  g_autofree char *page = g_strndup (g_bytes_get_data (bytes, NULL), g_bytes_get_size (bytes));
  guint n;
  double kept = sum_of (page, "<p>([0-9]+) of [0-9]+ matrices are as the original has them", &n), all = sum_of (page, "<p>[0-9]+ of ([0-9]+) matrices are as", &n);
  g_assert_cmpfloat (kept, ==, 14);
  g_assert_cmpfloat (all, ==, 16); /* two are floats in the file */
  sum_of (page, "<td>(none): as it was</td>", &n);
  g_assert_cmpfloat (n, ==, kept);
  case_clear (&c);
}

int main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_autofree char *cache = scratch_path ("cache");
  g_setenv ("XDG_CACHE_HOME", cache, TRUE); /* where an analysis puts what does not fit in memory */
  g_test_add_func ("/fits/never-above-the-budget", test_budgets);
  g_test_add_func ("/fits/names-the-smallest", test_smallest);
  g_test_add_func ("/fits/bad-targets", test_bad_targets);
  g_test_add_func ("/fits/remembers-its-chat", test_remembers_its_chat);
  g_test_add_func ("/fits/checkpoint-removed-meanwhile", test_checkpoint_removed);
  g_test_add_func ("/fits/bad-calibration", test_bad_calibration);
  g_test_add_func ("/fits/damaged-analysis", test_damaged_analysis);
  g_test_add_func ("/fits/observed-on-its-own-words", test_self);
  g_test_add_func ("/fits/report", test_report);
  g_test_add_func ("/fits/report-of-what-is-kept", test_report_of_kept);
  g_test_add_func ("/fits/left-behind-for-a-month", test_left_behind);
  int status = g_test_run ();
  scratch_clean ();
  return status;
}
