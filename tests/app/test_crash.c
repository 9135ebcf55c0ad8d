/* test_crash.c: the program killed at every moment, and a disk that is full at every size: afterwards the library opens, all it lists is
 * whole, nothing half-made is left, and the same again goes through. */
#include "app/library/library.h"
#include "tests/fixtures/program.h"
#include "tests/fixtures/scratch.h"
#include "tests/fixtures/tiny_model.h"

#include <glib/gstdio.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>

#define SILENT (G_SUBPROCESS_FLAGS_STDOUT_SILENCE | G_SUBPROCESS_FLAGS_STDERR_SILENCE)

static const char *tiny (void)
{
  static char *path;
  const TinyModel model = TINY_MODEL_DEFAULTS;
  if (!path) {
    path = scratch_path ("tiny.gguf");
    tiny_model_write (&model, path);
  }
  return path;
}

static const char *words (void)
{
  static char *path;
  if (!path) {
    g_autofree char *text = scratch_text (20000);
    path = scratch_path ("words.txt");
    scratch_write (path, text, strlen (text));
  }
  return path;
}

static guint entries (const char *home, const char *name)
{
  g_autofree char *folder = g_build_filename (home, name, NULL);
  return scratch_count (folder);
}

/* Opens the library as the next program would. Returns how many models it has. */
static guint expect_sound (const char *home)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (ValiseLibrary) library = valise_library_open (home, &error);
  g_assert_no_error (error);
  g_autoptr (GPtrArray) models = valise_library_list_models (library, &error);
  g_assert_no_error (error);
  for (guint i = 0; i < models->len; i++) {
    g_assert_true (valise_library_verify (library, models->pdata[i], NULL, NULL, NULL, &error));
    g_assert_no_error (error);
  }
  g_assert_cmpuint (entries (home, "objects"), ==, models->len);
  g_assert_cmpuint (entries (home, "tmp"), ==, 0);
  return models->len;
}

static void forget (const char *home, const char *name)
{
  g_autoptr (ValiseLibrary) library = valise_library_open (home, NULL);
  g_autoptr (ValiseModel) model = valise_library_find_model (library, name, NULL);
  g_assert_true (valise_library_remove (library, model, NULL, NULL));
}

/* Lets it run for that long. TRUE when it was killed, FALSE when it had ended, well, by itself. */
static gboolean kill_after (GSubprocess *process, gint64 us)
{
  g_usleep ((gulong) us);
  g_subprocess_force_exit (process);
  g_assert_true (g_subprocess_wait (process, NULL, NULL));
  if (g_subprocess_get_if_signaled (process)) {
    g_assert_cmpint (g_subprocess_get_term_sig (process), ==, SIGKILL);
    return TRUE;
  }
  g_assert_cmpint (g_subprocess_get_exit_status (process), ==, 0);
  return FALSE;
}

/* Later and later until it came through a few times. */
static void test_killed_import (gconstpointer data)
{
  const char *kind = data;
  g_autofree char *name = g_strdup_printf ("killed-%s", kind), *home = scratch_path (name), *source = scratch_path (kind);
  g_autoptr (GBytes) model = scratch_read (tiny ());
  const ScratchEntry entry = { .name = "tiny.gguf", .data = g_bytes_get_data (model, NULL), .size = g_bytes_get_size (model) };
  if (g_str_has_suffix (kind, ".gguf"))
    scratch_write (source, entry.data, entry.size);
  else
    scratch_archive (source, &entry, 1);
  guint killed = 0, through = 0, kept = 0;
  for (guint i = 0; i < 400 && through < 5; i++) {
    g_autoptr (GSubprocess) process = program_start (home, SILENT, "import", source, "--name", "tiny", "--json", NULL);
    gboolean ended = !kill_after (process, 300 + 250 * i);
    guint n = expect_sound (home);
    g_assert_cmpuint (n, <=, 1);
    g_assert_true (!ended || n == 1);
    killed += !ended;
    through += ended;
    kept += n;
    if (n)
      forget (home, "tiny");
  }
  g_test_message ("killed %u times, of which %u had it in already", killed, kept - through);
  g_assert_cmpuint (killed, >, 3);
  g_autoptr (ProgramRun) last = program_run (home, "import", source, "--name", "tiny", "--json", NULL);
  program_object (last);
  g_assert_cmpuint (expect_sound (home), ==, 1);
}

static void test_killed_fit (void)
{
  g_autofree char *home = scratch_path ("killed-fit"), *analysis = g_build_filename (home, "analysis", NULL);
  g_autoptr (ProgramRun) import = program_run (home, "import", tiny (), "--json", NULL);
  program_object (import);
  guint killed = 0, through = 0;
  for (guint i = 0; i < 80 && through < 5; i++) {
    if (i % 3 == 0) {
      g_autoptr (GDir) dir = g_dir_open (analysis, 0, NULL);
      for (const char *name; (name = g_dir_read_name (dir));) {
        g_autofree char *path = g_build_filename (analysis, name, NULL);
        g_unlink (path);
      }
    }
    g_autoptr (GSubprocess) process
      = program_start (home, SILENT, "fit", "tiny", "--bpw", "4", "-o", "fitted", "--calibration", words (), "--json", NULL);
    gboolean ended = !kill_after (process, 2000 + 12000 * i);
    guint n = expect_sound (home);
    g_assert_cmpuint (n, <=, 2);
    g_assert_true (!ended || n == 2);
    killed += !ended;
    through += ended;
    if (n == 2)
      forget (home, "fitted");
  }
  g_test_message ("killed %u times", killed);
  g_assert_cmpuint (killed, >, 3);
  g_autoptr (ProgramRun) last
    = program_run (home, "fit", "tiny", "--bpw", "4", "-o", "fitted", "--calibration", words (), "--json", NULL);
  program_object (last);
  g_assert_cmpuint (expect_sound (home), ==, 2);
}

static void test_killed_export (void)
{
  g_autofree char *home = scratch_path ("killed-export"), *folder = scratch_path ("exports"), *file = g_build_filename (folder, "tiny.gguf", NULL);
  g_autofree char *expected = scratch_sha256 (tiny ());
  g_assert_cmpint (g_mkdir (folder, 0755), ==, 0);
  g_autoptr (ProgramRun) import = program_run (home, "import", tiny (), "--json", NULL);
  program_object (import);
  guint through = 0;
  for (guint i = 0; i < 200 && through < 5; i++) {
    g_autoptr (GSubprocess) process = program_start (home, SILENT, "export", "tiny", file, NULL);
    through += !kill_after (process, 300 + 250 * i);
    guint n = scratch_count (folder);
    g_assert_cmpuint (n, <=, 1);
    if (n == 0)
      continue;
    g_autofree char *sha256 = scratch_sha256 (file);
    g_assert_cmpstr (sha256, ==, expected);
    g_unlink (file);
  }
  g_assert_cmpuint (through, >, 0);
  g_assert_cmpuint (expect_sound (home), ==, 1);
}

/* The interrupt key is no crash: the program tidies up itself and says so by its exit status. */
static void test_interrupted (void)
{
  g_autofree char *home = scratch_path ("interrupted");
  static const int signals[] = { SIGINT, SIGTERM };
  g_autoptr (ProgramRun) import = program_run (home, "import", tiny (), "--json", NULL);
  program_object (import);
  guint interrupted = 0;
  for (guint i = 0; i < 60 && interrupted < 12; i++) {
    g_autoptr (GSubprocess) process
      = program_start (home, SILENT, "fit", "tiny", "--bpw", "4", "-o", "fitted", "--json", NULL);
    g_usleep (5000 + 25000 * i);
    g_subprocess_send_signal (process, signals[i % 2]);
    g_assert_true (g_subprocess_wait (process, NULL, NULL));
    if (g_subprocess_get_if_signaled (process)) /* before it had begun to listen */
      continue;
    int status = g_subprocess_get_exit_status (process);
    g_assert_true (status == 130 || status == 0);
    interrupted += status == 130;
    g_assert_cmpuint (entries (home, "tmp"), ==, 0); /* without any sweep */
    g_assert_cmpuint (expect_sound (home), ==, status == 0 ? 2 : 1);
    if (status == 0)
      forget (home, "fitted");
  }
  g_test_message ("interrupted %u times", interrupted);
  g_assert_cmpuint (interrupted, >, 0);
}

/* What a program of before left behind, whatever it was, goes; what a living one works on stays. */
static void test_sweep (void)
{
  g_autofree char *home = scratch_path ("sweep");
  g_autoptr (ProgramRun) import = program_run (home, "import", tiny (), "--json", NULL);
  program_object (import);
  static const char *const leftovers[] = { "tmp/dead/model.gguf", "tmp/dead/.owner", "tmp/no-owner/part", "tmp/file", "objects/0123.gguf",
                                           "objects/0123456789/a-00001-of-00002.gguf", "cache/0123.xbit.gguf", "analysis/0123-bundled.analysis" };
  for (guint i = 0; i < G_N_ELEMENTS (leftovers); i++) {
    g_autofree char *path = g_build_filename (home, leftovers[i], NULL);
    scratch_write (path, "left over", 9);
  }
  g_assert_cmpuint (expect_sound (home), ==, 1);
  g_assert_cmpuint (entries (home, "cache"), ==, 0);
  g_assert_cmpuint (entries (home, "analysis"), ==, 0);
}

/* ---- full disks ---- */

static void expect_told (const ProgramRun *run)
{
  g_assert_cmpint (run->status, ==, 1);
  g_assert_cmpstr (run->out, ==, "");
  const char *line = strstr (run->err, "valise: ");
  g_assert_nonnull (line);
  if (!strstr (line, "free some space"))
    g_test_message ("%s", line);
  g_assert_nonnull (strstr (line, "free some space"));
}

/* A limit on every file's size is met wherever something is written: the database, its log, the model, the analysis, the fit. */
static void test_limited (void)
{
  guint refused = 0, through = 0;
  for (guint64 bytes = 0; bytes < 600000 && through < 3; bytes += bytes < 8192 ? 1024 : 24 << 10) {
    g_autofree char *name = g_strdup_printf ("limited-%u", (guint) bytes), *home = scratch_path (name);
    g_autoptr (ProgramRun) import = program_run_limited (home, bytes, "import", tiny (), "--json", NULL);
    if (import->status == 0) {
      through++;
      g_assert_cmpuint (expect_sound (home), ==, 1);
    } else {
      refused++;
      expect_told (import);
      g_assert_cmpuint (expect_sound (home), ==, 0);
      g_autoptr (ProgramRun) again = program_run (home, "import", tiny (), "--json", NULL);
      program_object (again);
    }
  }
  g_assert_cmpuint (refused, >, 5);
  g_assert_cmpuint (through, >, 0);
}

static void test_limited_fit (void)
{
  g_autofree char *home = scratch_path ("limited-fit"), *outside = scratch_path ("limited.gguf"), *exported = scratch_path ("limited-export.gguf");
  g_autoptr (ProgramRun) import = program_run (home, "import", tiny (), "--json", NULL);
  program_object (import);
  g_autoptr (ProgramRun) export = program_run_limited (home, 200000, "export", "tiny", exported, NULL);
  expect_told (export);
  g_assert_false (g_file_test (exported, G_FILE_TEST_EXISTS));
  guint refused = 0;
  for (guint64 bytes = 40000; bytes <= 600000; bytes += 80000) {
    g_autoptr (ProgramRun) fit
      = program_run_limited (home, bytes, "fit", "tiny", "--bpw", "6", "-o", "fitted", "--calibration", words (), "--json", NULL);
    if (fit->status != 0) {
      refused++;
      expect_told (fit);
      g_assert_cmpuint (expect_sound (home), ==, 1);
    } else {
      g_assert_cmpuint (expect_sound (home), ==, 2);
      forget (home, "fitted");
    }
  }
  g_assert_cmpuint (refused, >, 0);
  g_autoptr (ProgramRun) before = program_run (home, "fit", "tiny", "--bpw", "6", "-o", "fitted", "--calibration", words (), "--json", NULL);
  program_object (before);
  g_autoptr (ProgramRun) file = program_run_limited (home, 40000, "fit", "tiny", "--bpw", "6", "-o", outside, "--calibration", words (), NULL);
  expect_told (file);
  g_assert_false (g_file_test (outside, G_FILE_TEST_EXISTS));
  g_autofree char *folder = g_path_get_dirname (outside);
  g_autoptr (GDir) dir = g_dir_open (folder, 0, NULL);
  for (const char *name; (name = g_dir_read_name (dir));)
    g_assert_false (g_str_has_suffix (name, ".tmp"));
}

/* A real file system without room, where one can be mounted without being root. */
static void test_full_disk (void)
{
  g_autofree char *home = scratch_path ("full-disk");
  static const char script[] = "set -e\n"
                               "mount -t tmpfs -o size=\"$2\" none \"$1\" || exit 77\n"
                               "status=0; VALISE_HOME=\"$1/home\" \"$VALISE_PROGRAM\" import \"$3\" --json || status=$?\n"
                               "[ \"$status\" = 0 ] || { find \"$1/home/objects\" \"$1/home/tmp\" -type f 2> /dev/null; }\n"
                               "exit $status";
  static const char *const sizes[] = { "4k", "16k", "64k", "128k", "256k", "1m", "16m", "17m", "64m" };
  g_assert_cmpint (g_mkdir (home, 0700), ==, 0);
  guint refused = 0;
  for (guint i = 0; i < G_N_ELEMENTS (sizes); i++) {
    const char *command[] = { "unshare", "--user", "--map-root-user", "--mount", "/bin/sh", "-c", script, "sh", home, sizes[i], tiny (), NULL };
    g_autoptr (GError) error = NULL;
    g_autofree char *out = NULL, *err = NULL;
    int status = 0;
    if (!g_spawn_sync (NULL, (char **) command, NULL, G_SPAWN_SEARCH_PATH, NULL, NULL, &out, &err, &status, &error)
        || !WIFEXITED (status) || WEXITSTATUS (status) == 77 || strstr (err, "unshare:")) {
      g_test_skip ("no file system can be mounted here");
      return;
    }
    const ProgramRun run = { .status = WEXITSTATUS (status), .out = out, .err = err };
    g_test_message ("%s: %d %s", sizes[i], run.status, run.err);
    if (run.status == 0)
      continue;
    refused++;
    expect_told (&run);
  }
  g_assert_cmpuint (refused, >=, 6);
  g_assert_cmpuint (refused, <, G_N_ELEMENTS (sizes));
}

int main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_data_func ("/crash/killed/import-gguf", "killed.gguf", test_killed_import);
  g_test_add_data_func ("/crash/killed/import-zip", "killed.zip", test_killed_import);
  g_test_add_func ("/crash/killed/fit", test_killed_fit);
  g_test_add_func ("/crash/killed/export", test_killed_export);
  g_test_add_func ("/crash/interrupted", test_interrupted);
  g_test_add_func ("/crash/leftovers-are-swept", test_sweep);
  g_test_add_func ("/crash/file-limit/import", test_limited);
  g_test_add_func ("/crash/file-limit/fit", test_limited_fit);
  g_test_add_func ("/crash/full-disk", test_full_disk);
  int status = g_test_run ();
  scratch_clean ();
  return status;
}
