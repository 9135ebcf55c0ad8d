/* test_gguf_writer.c: a written file is there whole or not at all: killed, out of room, incomplete or abandoned. */
#include "engine/checkpoint/gguf.h"
#include "engine/error.h"

#include <glib/gstdio.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

enum { ROWS = 4096 };
static const guint64 dims[] = { 256, ROWS };
static char *folder, *path;

static guint files_in_folder (void)
{
  guint n = 0;
  g_autoptr (GDir) dir = g_dir_open (folder, 0, NULL);
  while (g_dir_read_name (dir))
    n++;
  return n;
}

static void clean_folder (void)
{
  g_autoptr (GDir) dir = g_dir_open (folder, 0, NULL);
  for (const char *name; (name = g_dir_read_name (dir));) {
    g_autofree char *file = g_build_filename (folder, name, NULL);
    g_unlink (file);
  }
}

static EngGgufWriter *writer_with_tensors (void)
{
  EngGgufWriter *writer = eng_gguf_writer_new (64);
  eng_gguf_writer_set_string (writer, "name", "Grüße");
  eng_gguf_writer_set_u32 (writer, "u32", 7);
  eng_gguf_writer_set_u64 (writer, "u64", G_MAXINT64);
  eng_gguf_writer_set_f32 (writer, "f32", 0.5f);
  eng_gguf_writer_set_f64 (writer, "f64", 0.1);
  eng_gguf_writer_set_bool (writer, "bool", TRUE);
  eng_gguf_writer_set_u32 (writer, "u32", 8);
  eng_gguf_writer_add_tensor (writer, "odd", ENG_TYPE_I8, 1, (const guint64[]) { 3 });
  eng_gguf_writer_add_tensor (writer, "matrix", ENG_TYPE_F32, 2, dims);
  return writer;
}

static gboolean write_rows (EngGgufWriter *writer, guint rows, GError **error)
{
  float row[256];
  for (guint r = 0; r < rows; r++) {
    for (guint i = 0; i < 256; i++)
      row[i] = (float) (r + i);
    if (!eng_gguf_writer_write (writer, 1, r * sizeof row, row, sizeof row, error))
      return FALSE;
  }
  return TRUE;
}

static void test_round_trip (void)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (EngGgufWriter) writer = writer_with_tensors ();
  g_assert_true (eng_gguf_writer_begin (writer, path, &error));
  g_assert_false (g_file_test (path, G_FILE_TEST_EXISTS));
  g_assert_true (write_rows (writer, ROWS, &error));
  g_assert_true (eng_gguf_writer_write (writer, 0, 1, "bc", 2, &error));
  g_assert_true (eng_gguf_writer_write (writer, 0, 0, "a", 1, &error));
  g_assert_true (eng_gguf_writer_finish (writer, &error));
  g_assert_no_error (error);
  g_assert_cmpuint (files_in_folder (), ==, 1);
  g_autoptr (EngGguf) gguf = eng_gguf_open (path, &error);
  g_assert_no_error (error);
  g_assert_cmpuint (eng_gguf_file_bytes (gguf), ==, eng_gguf_writer_file_bytes (writer));
  g_assert_cmpstr (eng_gguf_get_string (gguf, "name", ""), ==, "Grüße");
  g_assert_cmpint (eng_gguf_get_int (gguf, "u32", 0), ==, 7);
  g_assert_cmpint (eng_gguf_get_int (gguf, "u64", 0), ==, G_MAXINT64);
  g_assert_cmpfloat (eng_gguf_get_float (gguf, "f32", 0), ==, 0.5);
  g_assert_cmpfloat (eng_gguf_get_float (gguf, "f64", 0), ==, 0.1);
  g_assert_true (eng_gguf_get_bool (gguf, "bool", FALSE));
  g_assert_cmpmem (eng_gguf_tensor (gguf, 0)->data, 3, "abc", 3);
  const float *matrix = (const float *) eng_gguf_find_tensor (gguf, "matrix")->data;
  g_assert_cmpuint ((guintptr) matrix % 64, ==, 0);
  for (guint i = 0; i < ROWS * 256; i++)
    if (matrix[i] != (float) (i / 256 + i % 256))
      g_error ("weight %u is %g", i, (double) matrix[i]);
}

static void test_incomplete_is_refused (void)
{
  g_autoptr (GError) error = NULL;
  EngGgufWriter *writer = writer_with_tensors ();
  g_assert_true (eng_gguf_writer_begin (writer, path, &error));
  g_assert_true (write_rows (writer, ROWS - 1, &error));
  g_assert_true (eng_gguf_writer_write (writer, 0, 0, "abc", 3, &error));
  g_assert_false (eng_gguf_writer_finish (writer, &error));
  g_assert_error (error, ENG_ERROR, ENG_ERROR_ARGUMENT);
  g_assert_nonnull (strstr (error->message, "matrix"));
  eng_gguf_writer_free (writer);
  g_assert_cmpuint (files_in_folder (), ==, 0);
}

static void test_two_writers (void)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (EngGgufWriter) first = writer_with_tensors (), second = writer_with_tensors ();
  g_assert_true (eng_gguf_writer_begin (first, path, &error));
  g_assert_false (eng_gguf_writer_begin (second, path, &error));
  g_assert_error (error, ENG_ERROR, ENG_ERROR_IO);
  g_assert_nonnull (strstr (error->message, path));
  g_clear_error (&error);
  g_clear_pointer (&second, eng_gguf_writer_free); /* and leaves the first one's temporary alone */
  g_assert_true (eng_gguf_writer_write (first, 0, 0, "abc", 3, &error));
  g_assert_true (write_rows (first, ROWS, &error));
  g_assert_true (eng_gguf_writer_finish (first, &error));
  g_assert_true (g_file_test (path, G_FILE_TEST_EXISTS));
}

/* Kills a writer after `rows` rows; what was there before must still be there, whole. */
static void kill_writer_after (guint rows)
{
  pid_t child = fork ();
  g_assert_cmpint (child, >=, 0);
  if (child == 0) {
    EngGgufWriter *writer = writer_with_tensors ();
    if (!eng_gguf_writer_begin (writer, path, NULL) || !write_rows (writer, rows, NULL))
      _exit (1);
    raise (SIGKILL);
  }
  int status;
  g_assert_cmpint (waitpid (child, &status, 0), ==, child);
  g_assert_true (WIFSIGNALED (status) && WTERMSIG (status) == SIGKILL);
}

static void test_killed_leaves_no_file (void)
{
  for (guint rows = 0; rows <= ROWS; rows += ROWS / 4) {
    kill_writer_after (rows);
    g_assert_false (g_file_test (path, G_FILE_TEST_EXISTS));
    g_assert_cmpuint (files_in_folder (), ==, 1); /* the temporary, recognisable */
    g_autoptr (GDir) dir = g_dir_open (folder, 0, NULL);
    const char *name = g_dir_read_name (dir);
    g_assert_true (g_str_has_prefix (name, ".model.gguf.valise-") && g_str_has_suffix (name, ".tmp"));
    clean_folder ();
  }
}

static void test_next_writer_sweeps (void)
{
  g_autoptr (GError) error = NULL;
  kill_writer_after (3);
  kill_writer_after (ROWS);
  g_assert_cmpuint (files_in_folder (), ==, 1); /* the second swept the first one's */
  g_autoptr (EngGgufWriter) writer = writer_with_tensors ();
  g_assert_true (eng_gguf_writer_begin (writer, path, &error));
  g_assert_true (eng_gguf_writer_write (writer, 0, 0, "abc", 3, &error) && write_rows (writer, ROWS, &error));
  g_assert_true (eng_gguf_writer_finish (writer, &error));
  g_assert_cmpuint (files_in_folder (), ==, 1);
  g_assert_true (g_file_test (path, G_FILE_TEST_EXISTS));
}

static void test_killed_keeps_the_old_file (void)
{
  g_assert_true (g_file_set_contents (path, "what was there", -1, NULL));
  kill_writer_after (ROWS);
  g_autofree char *content = NULL;
  g_assert_true (g_file_get_contents (path, &content, NULL, NULL));
  g_assert_cmpstr (content, ==, "what was there");
}

/* A limit on the size of files stands for a full disk: the same calls fail. */
static void test_no_room (void)
{
  struct rlimit old, small;
  g_assert_cmpint (getrlimit (RLIMIT_FSIZE, &old), ==, 0);
  signal (SIGXFSZ, SIG_IGN);
  g_autoptr (EngGgufWriter) whole = writer_with_tensors ();
  guint64 bytes = eng_gguf_writer_file_bytes (whole);
  for (guint64 limit = 0; limit < bytes; limit += bytes / 5) {
    g_autoptr (GError) error = NULL;
    small = (struct rlimit) { .rlim_cur = limit, .rlim_max = old.rlim_max };
    g_assert_cmpint (setrlimit (RLIMIT_FSIZE, &small), ==, 0);
    EngGgufWriter *writer = writer_with_tensors ();
    gboolean ok = eng_gguf_writer_begin (writer, path, &error) && eng_gguf_writer_write (writer, 0, 0, "abc", 3, &error)
                  && write_rows (writer, ROWS, &error) && eng_gguf_writer_finish (writer, &error);
    eng_gguf_writer_free (writer);
    setrlimit (RLIMIT_FSIZE, &old);
    g_assert_false (ok);
    g_assert_error (error, ENG_ERROR, ENG_ERROR_IO);
    g_assert_nonnull (strstr (error->message, path));
    g_assert_nonnull (strstr (error->message, "free some space"));
    g_assert_cmpuint (files_in_folder (), ==, 0);
  }
}

static void test_too_large_for_the_disk (void)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (EngGgufWriter) writer = eng_gguf_writer_new (64);
  eng_gguf_writer_add_tensor (writer, "huge", ENG_TYPE_I8, 1, (const guint64[]) { (guint64) 1 << 61 });
  g_assert_false (eng_gguf_writer_begin (writer, path, &error));
  g_assert_error (error, ENG_ERROR, ENG_ERROR_IO);
  g_assert_nonnull (strstr (error->message, "are free there"));
  g_assert_cmpuint (files_in_folder (), ==, 0);
}

static void test_no_folder (void)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (EngGgufWriter) writer = writer_with_tensors ();
  g_autofree char *elsewhere = g_build_filename (folder, "absent", "model.gguf", NULL);
  g_assert_false (eng_gguf_writer_begin (writer, elsewhere, &error));
  g_assert_error (error, ENG_ERROR, ENG_ERROR_IO);
  g_assert_nonnull (strstr (error->message, elsewhere));
}

/* Each test begins with an empty folder. */
static void run (gconstpointer test)
{
  clean_folder ();
  (*(void (*const *) (void)) test) ();
}

static const struct {
  const char *name;
  void (*test) (void);
} tests[] = {
  { "/gguf-writer/what-is-written-is-read", test_round_trip },
  { "/gguf-writer/incomplete-is-refused", test_incomplete_is_refused },
  { "/gguf-writer/two-writers-do-not-mix", test_two_writers },
  { "/gguf-writer/killed-leaves-no-file", test_killed_leaves_no_file },
  { "/gguf-writer/next-writer-sweeps-what-killed-ones-left", test_next_writer_sweeps },
  { "/gguf-writer/killed-keeps-the-old-file", test_killed_keeps_the_old_file },
  { "/gguf-writer/no-room-is-one-sentence-and-leaves-nothing", test_no_room },
  { "/gguf-writer/too-large-for-the-disk-is-said-ahead", test_too_large_for_the_disk },
  { "/gguf-writer/no-folder-is-named", test_no_folder },
};

int main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  folder = g_dir_make_tmp ("valise-writer-XXXXXX", NULL);
  path = g_build_filename (folder, "model.gguf", NULL);
  for (gsize i = 0; i < G_N_ELEMENTS (tests); i++)
    g_test_add_data_func (tests[i].name, &tests[i].test, run);
  int result = g_test_run ();
  clean_folder ();
  g_rmdir (folder);
  g_free (path);
  g_free (folder);
  return result;
}
