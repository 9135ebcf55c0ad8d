/* test_memory.c: a checkpoint larger than what fitting it may take in memory: stated before, kept to, under a limit that the system enforces. */
#include "tests/fixtures/program.h"
#include "tests/fixtures/sanitized.h"
#include "tests/fixtures/scratch.h"
#include "tests/fixtures/tiny_model.h"

#include <glib/gstdio.h>
#include <string.h>

/* Stacks of threads, and what the allocator and libraries set aside without touching it. */
#define UNTOUCHED_BYTES 100000000

static char *home, *source, *text;
static guint64 source_bytes;

static void make_source (void)
{
  static const TinyModel large
    = { .n_layers = 24, .n_embd = 256, .n_ff = 1152, .n_heads = 4, .n_kv_heads = 2, .head_dim = 64, .architecture = "llama" };
  g_autofree char *words = scratch_text (1200);
  GStatBuf status;
  home = scratch_path ("home");
  source = scratch_path ("large.gguf");
  text = scratch_path ("words.txt");
  scratch_write (text, words, strlen (words));
  tiny_model_write (&large, source);
  g_assert_cmpint (g_stat (source, &status), ==, 0);
  source_bytes = (guint64) status.st_size;
}

static guint64 stated (const char *memory)
{
  g_autoptr (ProgramRun) run = program_run (home, "plan", source, "--bpw", "2", "--memory", memory, "--threads", "2", "--json", NULL);
  return (guint64) json_object_get_int_member (program_object (run), "fit_memory_bytes");
}

static void test_kept_to (void)
{
  if (IS_SANITIZED) {
    g_test_skip ("a sanitizer takes memory of its own");
    return;
  }
  g_autofree char *out = scratch_path ("fit.gguf");
  guint64 wide = stated ("1G"), narrow = stated ("100M");
  g_test_message ("a checkpoint of %.1f MB: %.1f MB of memory are stated, %.1f within 100", source_bytes / 1e6, wide / 1e6, narrow / 1e6);
  g_assert_cmpuint (narrow, <=, 100000000);
  g_assert_cmpuint (narrow, <, wide);
  g_assert_cmpuint (narrow, <, source_bytes);
  g_autoptr (ProgramRun) run = program_run_within (home, narrow + UNTOUCHED_BYTES, "fit", source, "--bpw", "6", "--memory", "100M", "--threads", "2",
                                                   "--calibration", text, "-o", out, "--json", NULL);
  JsonObject *fit = program_object (run);
  guint64 peak = (guint64) json_object_get_int_member (fit, "peak_rss_bytes"), bytes = (guint64) json_object_get_int_member (fit, "bytes");
  g_test_message ("%.1f MB at most, the fit's %.1f mapped among them", peak / 1e6, bytes / 1e6);
  g_assert_cmpint (ABS (json_object_get_int_member (fit, "fit_memory_bytes") - (gint64) narrow), <, 4000000); /* the plan is another process */
  g_assert_cmpuint (peak, <=, narrow);
}

/* Too little is refused at once, with what would do. */
static void test_too_little (void)
{
  g_autofree char *out = scratch_path ("never.gguf");
  g_autoptr (ProgramRun) run = program_run (home, "fit", source, "--bpw", "2", "--memory", "20M", "--calibration", text, "-o", out, NULL);
  g_assert_cmpint (run->status, ==, 1);
  const char *least = strstr (run->err, "at least ");
  g_assert_nonnull (least);
  g_auto (GStrv) words = g_strsplit (least + strlen ("at least "), " ", 2);
  g_assert_false (g_file_test (out, G_FILE_TEST_EXISTS));
  g_autoptr (ProgramRun) again = program_run (home, "plan", source, "--bpw", "2", "--memory", words[0], "--json", NULL);
  program_object (again);
}

int main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  make_source ();
  g_test_add_func ("/memory/stated-and-kept-to", test_kept_to);
  g_test_add_func ("/memory/too-little-names-the-least", test_too_little);
  int status = g_test_run ();
  tiny_model_clean ();
  scratch_clean ();
  g_free (home);
  g_free (source);
  g_free (text);
  return status;
}
