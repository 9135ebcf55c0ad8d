/* test_resume.c: analyses and fits that are killed, really, and asked for again: they go on, and the file is the one that an undisturbed run makes. */
#include "engine/error.h"
#include "quantizer/fit.h"
#include "quantizer/journal.h"
#include "quantizer/work.h"
#include "tests/fixtures/same_file.h"
#include "tests/fixtures/scratch.h"
#include "tests/fixtures/tiny_model.h"

#include <glib/gstdio.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

typedef struct {
  char *source, *text, *work, *out;
} Case;

/* Seen by parent and children. */
typedef struct {
  guint reports, die_at; /* 0: live */
  gboolean is_fit;
  QzQuality quality;
} Shared;

static Shared *shared;

static void case_init (Case *c, const TinyModel *model)
{
  static guint n;
  g_autofree char *source = g_strdup_printf ("source-%u.gguf", n), *work = g_strdup_printf ("work-%u", n), *out = g_strdup_printf ("fit-%u.gguf", n);
  n++;
  c->source = tiny_model_path (source);
  c->work = tiny_model_path (work);
  c->out = tiny_model_path (out);
  c->text = scratch_text (6000);
  tiny_model_write (model, c->source);
}

static void case_clear (Case *c)
{
  g_free (c->source);
  g_free (c->text);
  g_free (c->work);
  g_free (c->out);
}

static void report (double fraction, const char *what, gpointer data)
{
  if (++shared->reports == shared->die_at)
    kill (getpid (), SIGKILL);
}

/* Analysis and fit as a program does them, in this process. */
static void make (const Case *c, const char *work, const char *out)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (EngGguf) gguf = eng_gguf_open (c->source, &error);
  g_assert_no_error (error);
  g_autoptr (EngWorkers) workers = eng_workers_new (2);
  QzOptions options = { .calibration = c->text, .calibration_length = strlen (c->text), .tokens = 1024, .seed = 3, .work = work };
  QzResult result;
  g_autoptr (QzAnalysis) analysis = qz_analyse (gguf, &options, workers, shared->is_fit ? NULL : report, NULL, NULL, &error);
  g_assert_no_error (error);
  QzTarget target = { .bytes = qz_curves_bytes_for_bpw (qz_analysis_curves (analysis), 4), .quality = shared->quality, .work = work };
  qz_fit (gguf, analysis, &target, out, workers, &result, shared->is_fit ? report : NULL, NULL, NULL, &error);
  g_assert_no_error (error);
}

/* The same in a child, which dies at its n-th report or after so many milliseconds; 0: neither. TRUE when it was through before. */
static gboolean make_in_child (const Case *c, guint die_at, guint die_after_ms)
{
  int status;
  shared->reports = 0;
  shared->die_at = die_at;
  pid_t child = fork ();
  g_assert_cmpint (child, >=, 0);
  if (child == 0) {
    make (c, c->work, c->out);
    _exit (0);
  }
  if (die_after_ms > 0) {
    g_usleep (die_after_ms * 1000);
    kill (child, SIGKILL);
  }
  g_assert_cmpint (waitpid (child, &status, 0), ==, child);
  if (WIFSIGNALED (status))
    g_assert_cmpint (WTERMSIG (status), ==, SIGKILL);
  else
    g_assert_cmpint (WEXITSTATUS (status), ==, 0);
  return WIFEXITED (status);
}

static const TinyModel plain = TINY_MODEL_DEFAULTS;
static const TinyModel untied = { .n_layers = 3, .n_embd = 64, .n_ff = 96, .n_heads = 4, .n_kv_heads = 2, .head_dim = 32, .architecture = "llama", .untied = TRUE };

/* Killed at its n-th report, n growing from run to run: the run that gets through has had less to do than the whole. */
static void test_analysis (gconstpointer model)
{
  Case c;
  case_init (&c, model);
  g_autofree char *whole = g_strconcat (c.out, ".whole", NULL);
  *shared = (Shared){ 0 };
  make (&c, NULL, whole);
  guint all = shared->reports, at = 5;
  g_assert_false (make_in_child (&c, at, 0));
  while (!make_in_child (&c, ++at, 0))
    g_assert_false (g_file_test (c.out, G_FILE_TEST_EXISTS));
  g_test_message ("%u reports in all, %u in the last of %u runs", all, shared->reports, at - 4);
  g_assert_cmpuint (shared->reports, <, all);
  g_assert_cmpuint (at, <=, all);
  assert_same_file (c.out, whole);
  case_clear (&c);
}

static void test_fit (void)
{
  Case c;
  case_init (&c, &plain);
  g_autofree char *whole = g_strconcat (c.out, ".whole", NULL), *packed = g_strconcat (c.work, ".packed", NULL);
  *shared = (Shared){ .is_fit = TRUE };
  make (&c, NULL, whole);
  gsize before = 0;
  for (guint at = 1; !make_in_child (&c, at, 0); at += 3) {
    GStatBuf status;
    g_assert_false (g_file_test (c.out, G_FILE_TEST_EXISTS));
    g_assert_cmpint (g_stat (packed, &status), ==, 0);
    g_assert_cmpuint (status.st_size, >=, before); /* nothing is packed twice */
    before = status.st_size;
  }
  assert_same_file (c.out, whole);
  case_clear (&c);
}

/* A fit that is tuned as well: the last runs have nothing to pack any more, and go on between two steps. */
static void test_tuned_fit (void)
{
  Case c;
  case_init (&c, &plain);
  g_autofree char *whole = g_strconcat (c.out, ".whole", NULL), *usual = g_strconcat (c.out, ".usual", NULL);
  *shared = (Shared){ .is_fit = TRUE };
  make (&c, NULL, usual);
  *shared = (Shared){ .is_fit = TRUE, .quality = QZ_QUALITY_BEST };
  make (&c, NULL, whole);
  g_assert_false (same_file (usual, whole));
  guint all = shared->reports, last = 0;
  for (guint at = 2; !make_in_child (&c, at, 0); at += 2, last = shared->reports)
    g_assert_false (g_file_test (c.out, G_FILE_TEST_EXISTS));
  g_test_message ("%u reports in all, %u before the last run", all, last);
  assert_same_file (c.out, whole);
  case_clear (&c);
}

/* At moments that nobody chose. */
static void test_any_moment (void)
{
  Case c;
  case_init (&c, &untied);
  g_autofree char *whole = g_strconcat (c.out, ".whole", NULL);
  *shared = (Shared){ 0 };
  make (&c, NULL, whole);
  guint ms = 7, runs = 1;
  while (!make_in_child (&c, 0, ms)) {
    ms += 11 + ms / 4;
    runs++;
  }
  g_test_message ("%u runs, the last of %u ms", runs, ms);
  assert_same_file (c.out, whole);
  case_clear (&c);
}

/* What was kept for something else, or is damaged, is not taken up; and is gone when told. */
static void test_other_work (void)
{
  Case c;
  case_init (&c, &plain);
  g_autofree char *whole = g_strconcat (c.out, ".whole", NULL), *state = g_strconcat (c.work, ".state", NULL);
  *shared = (Shared){ 0 };
  make (&c, NULL, whole);
  for (guint damage = 0; damage < 3; damage++) {
    g_autofree char *data = NULL, *text = g_strdup (c.text);
    gsize size;
    if (damage == 0)
      c.text[100] ^= 1;
    g_assert_false (make_in_child (&c, 12, 0));
    strcpy (c.text, text);
    g_assert_true (g_file_get_contents (state, &data, &size, NULL));
    data[damage == 1 ? size - 40 : 20] ^= 4;
    if (damage > 0)
      g_assert_true (g_file_set_contents (state, data, damage == 2 ? size / 2 : size, NULL));
    g_assert_true (make_in_child (&c, 0, 0));
    assert_same_file (c.out, whole);
    g_unlink (c.out);
  }
  qz_work_remove (c.work);
  static const char *const suffixes[] = { "state", "state.new", "kept", "factors", "packed", "lock" };
  for (guint i = 0; i < G_N_ELEMENTS (suffixes); i++) {
    g_autofree char *path = g_strconcat (c.work, ".", suffixes[i], NULL);
    g_assert_false (g_file_test (path, G_FILE_TEST_EXISTS));
  }
  case_clear (&c);
}

/* Two at once: one keeps, the other works without. */
static void test_two_processes (void)
{
  g_autoptr (GError) error = NULL;
  g_autofree char *prefix = tiny_model_path ("held");
  gsize size;
  g_autoptr (QzWork) first = qz_work_open (prefix, "key", &error), second = qz_work_open (prefix, "key", &error);
  g_assert_no_error (error);
  g_assert_true (qz_work_is_due (first));
  g_assert_false (qz_work_is_due (second));
  g_assert_true (qz_work_save (first, &(QzSpan) { "12345", 5 }, 1, &error));
  g_assert_true (qz_work_save (second, &(QzSpan) { "67", 2 }, 1, &error));
  g_clear_pointer (&first, qz_work_free);
  g_autoptr (QzWork) third = qz_work_open (prefix, "key", &error);
  g_assert_cmpmem (qz_work_state (third, &size), size, "12345", 5);
  g_clear_pointer (&third, qz_work_free);
  g_autoptr (QzWork) other = qz_work_open (prefix, "another key", &error);
  g_assert_null (qz_work_state (other, &size));
}

static void test_journal (void)
{
  g_autofree char *prefix = tiny_model_path ("journal"), *path = g_strconcat (prefix, ".packed", NULL), *data = NULL;
  char blob[300], found[300];
  double loss;
  gsize size;
  QzJournal *journal = qz_journal_open (prefix, "key");
  for (guint m = 0; m < 3; m++) {
    memset (blob, 'a' + m, sizeof blob);
    qz_journal_add (journal, m, blob, 100 * (m + 1), m + 0.5);
  }
  g_autoptr (QzJournal) held = qz_journal_open (prefix, "key");
  g_assert_false (qz_journal_find (held, 1, found, 200, &loss));
  qz_journal_free (journal);
  g_assert_true (g_file_get_contents (path, &data, &size, NULL));
  /* Whole; the last record torn; a blob damaged; of another key. */
  for (guint i = 0; i < 4; i++) {
    g_autofree char *changed = g_memdup2 (data, size);
    changed[size - 301 - 88 - 50] ^= i == 2; /* in the second blob */
    g_assert_true (g_file_set_contents (path, changed, i == 1 ? size - 1 : size, NULL));
    journal = qz_journal_open (prefix, i == 3 ? "another" : "key");
    g_assert_cmpint (qz_journal_find (journal, 0, found, 100, &loss), ==, i != 3);
    g_assert_cmpint (qz_journal_find (journal, 1, found, 200, &loss), ==, i < 2);
    g_assert_false (qz_journal_find (journal, 2, found, 299, &loss));
    g_assert_cmpint (qz_journal_find (journal, 2, found, 300, &loss), ==, i != 1 && i != 3);
    if (i == 1) { /* goes on after what is whole */
      qz_journal_add (journal, 2, data + size - 300, 300, 2.5);
      qz_journal_free (journal);
      journal = qz_journal_open (prefix, "key");
      g_assert_true (qz_journal_find (journal, 2, found, 300, &loss));
      g_assert_cmpfloat (loss, ==, 2.5);
      g_assert_cmpint (found[299], ==, 'c');
    }
    qz_journal_free (journal);
  }
}

int main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  shared = mmap (NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  g_test_add_data_func ("/resume/analysis-killed-at-reports/tied", &plain, test_analysis);
  g_test_add_data_func ("/resume/analysis-killed-at-reports/untied", &untied, test_analysis);
  g_test_add_func ("/resume/fit-killed-at-reports", test_fit);
  g_test_add_func ("/resume/tuned-fit-killed-at-reports", test_tuned_fit);
  g_test_add_func ("/resume/killed-at-any-moment", test_any_moment);
  g_test_add_func ("/resume/takes-up-nothing-else", test_other_work);
  g_test_add_func ("/resume/one-process-keeps", test_two_processes);
  g_test_add_func ("/resume/journal", test_journal);
  int status = g_test_run ();
  tiny_model_clean ();
  scratch_clean ();
  return status;
}
