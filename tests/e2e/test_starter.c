/* test_starter.c: the promise on a real model: the starter's wheel ($VALISE_STARTER) imported, fitted to a budget of RAM, and asked. */
#include "tests/fixtures/program.h"
#include "tests/fixtures/sanitized.h"
#include "tests/fixtures/scratch.h"

#include <glib/gstdio.h>
#include <math.h>
#include <string.h>

#define BUDGET "150M"
#define BUDGET_BYTES 150000000
#define QUESTION "What is the capital of France"

#define MEASURES_MEMORY (!IS_SANITIZED) /* a sanitizer's own memory is counted with ours */

static char *home;

static gint64 int_of (JsonObject *object, const char *member)
{
  return json_object_get_int_member (object, member);
}

static void test_import (void)
{
  g_autoptr (ProgramRun) run = program_run (home, "import", g_getenv ("VALISE_STARTER"), "--name", "starter", "--json", NULL);
  JsonObject *object = program_object (run);
  g_assert_cmpstr (json_object_get_string_member (object, "architecture"), ==, "llama");
  g_assert_cmpint (int_of (object, "parameters"), ==, 134515008);
  g_assert_cmpstr (json_object_get_string_member (object, "license"), ==, "apache-2.0");
  /* Again: it is there already. */
  g_autoptr (ProgramRun) again = program_run (home, "import", g_getenv ("VALISE_STARTER"), "--json", NULL);
  g_assert_true (json_object_equal (program_object (again), object));
}

/* A checkpoint can be asked as it is: packed once, then mapped. */
static void test_unfitted (void)
{
  g_autofree char *cache = g_build_filename (home, "cache", NULL);
  for (guint i = 0; i < 2; i++) {
    g_autoptr (ProgramRun) run = program_run (home, "chat", "starter", "--prompt", QUESTION, "--temp", "0", "--max-tokens", "24", "--context", "512",
                                              "--json", NULL);
    g_assert_nonnull (strstr (json_object_get_string_member (program_object (run), "text"), "Paris"));
    g_assert_cmpuint (scratch_count (cache), ==, 1);
  }
}

static void test_fit (void)
{
  g_autoptr (ProgramRun) plan = program_run (home, "plan", "starter", "--ram", BUDGET, "--context", "512", "--json", NULL);
  JsonObject *before = program_object (plan);
  g_assert_cmpint (int_of (before, "total_bytes"), <=, BUDGET_BYTES);
  /* A part of the usual text: the budget is what is held here, the last of the quality elsewhere. */
  g_autofree char *text = g_test_build_filename (G_TEST_DIST, "..", "data", "calibration", "prose.txt", NULL);
  g_autoptr (ProgramRun) fit
    = program_run (home, "fit", "starter", "--ram", BUDGET, "--context", "512", "--calibration", text, "-o", "fitted", "--json", NULL);
  JsonObject *object = program_object (fit);
  GStatBuf info;
  g_assert_cmpint (g_stat (json_object_get_string_member (object, "path"), &info), ==, 0);
  g_assert_cmpint (info.st_size, ==, int_of (object, "bytes"));
  g_assert_cmpint (int_of (object, "total_bytes"), <=, BUDGET_BYTES);
  g_assert_cmpfloat (json_object_get_double_member (object, "kl_divergence"), <, 0.02);
  g_test_message ("fitted in %.0f s, %" G_GINT64_FORMAT " bytes, %.3f bpw, KL divergence %.4f, peak %" G_GINT64_FORMAT " bytes",
                  json_object_get_double_member (object, "seconds"), int_of (object, "bytes"), json_object_get_double_member (object, "bpw"),
                  json_object_get_double_member (object, "kl_divergence"), int_of (object, "peak_rss_bytes"));
  g_autoptr (ProgramRun) after = program_run (home, "plan", "starter", "--ram", BUDGET, "--context", "512", "--json", NULL);
  g_assert_false (json_object_get_boolean_member (program_object (after), "is_estimate"));
  g_assert_cmpint (ABS (int_of (program_object (after), "total_bytes") - int_of (object, "total_bytes")), <, 65536);
}

/* A size between those of encoded and kept matrices. One hidden channel of the starter is thousands of times as loud as the others for the first token: the row
 * scales of that matrix, which stays in its order, have to have room for it. */
static void test_promise (void)
{
  g_autofree char *text = g_test_build_filename (G_TEST_DIST, "..", "data", "calibration", "prose.txt", NULL);
  g_autoptr (ProgramRun) fit = program_run (home, "fit", "starter", "--size", "80M", "--calibration", text, "-o", "eighty", "--json", NULL);
  JsonObject *object = program_object (fit);
  double expected = json_object_get_double_member (object, "expected_kl"), measured = json_object_get_double_member (object, "kl_divergence");
  g_test_message ("80 MB: expected %.4f, measured %.4f", expected, measured);
  g_assert_cmpfloat (measured, <, 1.25 * expected);
  g_assert_cmpfloat (measured, <, 0.04);
}

/* Sense, and within the budget also when the context is full. */
static void test_chat (void)
{
  g_autoptr (ProgramRun) run = program_run (home, "chat", "fitted", "--prompt", QUESTION, "--temp", "0", "--max-tokens", "24", "--json", NULL);
  g_assert_nonnull (strstr (json_object_get_string_member (program_object (run), "text"), "Paris"));
  g_assert_cmpint (int_of (program_object (run), "peak_rss_bytes"), <=, MEASURES_MEMORY ? BUDGET_BYTES : G_MAXINT64);
  g_autoptr (GString) long_prompt = g_string_new ("Continue this list for as long as you can:");
  for (guint i = 0; i < 88; i++)
    g_string_append_printf (long_prompt, " %u apples,", i);
  g_autoptr (ProgramRun) full = program_run (home, "chat", "fitted", "--prompt", long_prompt->str, "--seed", "1", "--json", NULL);
  JsonObject *object = program_object (full);
  g_assert_cmpint (int_of (object, "prompt_tokens"), >, 400);
  /* The last token is shown, but needs no place any more. */
  g_assert_cmpint (int_of (object, "prompt_tokens") + int_of (object, "generated_tokens"), <=, 512 + 1);
  g_assert_cmpint (int_of (object, "peak_rss_bytes"), <=, MEASURES_MEMORY ? BUDGET_BYTES : G_MAXINT64);
  g_test_message ("%" G_GINT64_FORMAT " + %" G_GINT64_FORMAT " tokens: peak %" G_GINT64_FORMAT " bytes", int_of (object, "prompt_tokens"),
                  int_of (object, "generated_tokens"), int_of (object, "peak_rss_bytes"));
}

int main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  const char *wheel = g_getenv ("VALISE_STARTER");
  if (!wheel || !g_file_test (wheel, G_FILE_TEST_IS_REGULAR)) {
    g_print ("1..0 # SKIP VALISE_STARTER does not name the starter model's wheel\n");
    return 0;
  }
  home = scratch_path ("home");
  g_test_add_func ("/starter/1-import", test_import);
  g_test_add_func ("/starter/2-chat-unfitted", test_unfitted);
  g_test_add_func ("/starter/3-fit-to-a-budget", test_fit);
  g_test_add_func ("/starter/4-chat-within-the-budget", test_chat);
  g_test_add_func ("/starter/5-promise-of-a-size", test_promise);
  int status = g_test_run ();
  g_free (home);
  scratch_clean ();
  return status;
}
