/* test_folders.c: a checkpoint that another program quantized, as its owner uses it: imported, asked, carried to another machine in an archive, fitted, and
 * made a GGUF of standard types. What it should answer is what a model of plain floats with the same weights does. */
#include "tests/fixtures/program.h"
#include "tests/fixtures/quantized_folder.h"
#include "tests/fixtures/scratch.h"

#include <glib/gstdio.h>
#include <string.h>

typedef struct {
  const char *format;
  QuantShape shape;
} Case;

#define SHAPE .embd = 128, .ff = 256, .heads = 4, .kv_heads = 4, .head_dim = 32, .vocab = 384
static const Case cases[] = {
  { "GPTQ4-act-order", { SHAPE } }, { "AWQ", { SHAPE } }, { "EXL2", { SHAPE } }, { "EXL3-3-mul1", { SHAPE, .packs_head = TRUE } }, { "EXL3-3-experts", { SHAPE } },
  { "bitsandbytes-nf4-nested", { SHAPE } },
  { "EXL3-5", { .embd = 144, .ff = 272, .heads = 3, .kv_heads = 1, .head_dim = 48, .vocab = 267, .packs_head = TRUE } }, /* filled up */
};

static const char *home (void)
{
  static char *path;
  return path ? path : (path = scratch_path ("home"));
}

static const char *text_file (void)
{
  static char *path;
  if (!path) {
    g_autofree char *text = scratch_text (1200);
    path = scratch_path ("text.txt");
    scratch_write (path, text, strlen (text));
  }
  return path;
}

static char *made_folder (const char *name)
{
  char *path = scratch_path (name);
  g_assert_cmpint (g_mkdir (path, 0755), ==, 0);
  return path;
}

static char *string_of (const ProgramRun *run, const char *member)
{
  return g_strdup (json_object_get_string_member (program_object (run), member));
}

/* How far the answers of `model` are from those of the floats. */
static double divergence (const char *model, const char *floats)
{
  g_autoptr (ProgramRun) run = program_run (home (), "eval", model, "--text", text_file (), "--context", "128", "--chunks", "4", "--activations", "32", "--reference", floats,
                                            "--json", NULL);
  JsonObject *kl = json_object_get_object_member (program_object (run), "kl_divergence");
  return json_object_get_double_member (kl, "mean");
}

static void test_archive (const char *name, const char *ending)
{
  g_autoptr (ProgramRun) show = program_run (home (), "show", name, "--json", NULL);
  g_autofree char *file = g_strconcat (name, ending, NULL), *path = scratch_path (file), *where = g_strconcat (path, "-home", NULL);
  g_autoptr (ProgramRun) out = program_run (home (), "export", name, path, "--json", NULL);
  program_object (out);
  g_autoptr (ProgramRun) back = program_run (where, "import", path, "--json", NULL);
  g_autofree char *sha256 = string_of (show, "sha256"), *called = string_of (back, "name"), *same = string_of (back, "sha256");
  g_assert_cmpstr (called, ==, name);
  g_assert_cmpstr (same, ==, sha256);
  g_autoptr (ProgramRun) verify = program_run (where, "verify", name, "--json", NULL);
  program_object (verify);
}

static void test_plain (const char *name, const char *floats, double most)
{
  g_autofree char *file = g_strconcat (name, ".gguf", NULL), *path = scratch_path (file);
  g_autoptr (ProgramRun) run = program_run (home (), "export", name, path, "--format", "gguf", "--size", "4M", "--json", NULL);
  program_object (run);
  g_autoptr (GBytes) bytes = scratch_read (path);
  g_assert_null (memmem (g_bytes_get_data (bytes, NULL), g_bytes_get_size (bytes), ".xbit", 5));
  double kl = divergence (path, floats);
  g_test_message ("%s: %.2g", path, kl);
  g_assert_cmpfloat (kl, <, most);
}

/* Of a fit of more bits than the source has: what was quantized is as it was, with its pipelines, and only the floats are encoded. */
static void test_kept (const char *fit)
{
  g_autofree char *path = scratch_path ("report.html");
  g_autoptr (ProgramRun) run = program_run (home (), "show", fit, "--report", path, "--json", NULL);
  program_object (run);
  g_autoptr (GBytes) bytes = scratch_read (path);
  g_autofree char *page = g_strndup (g_bytes_get_data (bytes, NULL), g_bytes_get_size (bytes));
  g_autoptr (GRegex) regex = g_regex_new ("<p>([0-9]+) of ([0-9]+) matrices are as the original has them", 0, 0, NULL);
  g_autoptr (GMatchInfo) told = NULL;
  g_assert_true (g_regex_match (regex, page, 0, &told));
  g_autofree char *first = g_match_info_fetch (told, 1), *second = g_match_info_fetch (told, 2);
  guint kept = (guint) g_ascii_strtoull (first, NULL, 10), all = (guint) g_ascii_strtoull (second, NULL, 10);
  g_test_message ("%s: %u of %u matrices kept", fit, kept, all);
  g_assert_cmpuint (kept, >=, 14);
  g_assert_cmpuint (all - kept, <=, 2); /* embedding and head */
}

static void test_case (gconstpointer data)
{
  static const char *const endings[] = { ".tar.zst", ".zip", ".tar" };
  const Case *c = data;
  const QuantFormat *f = quant_format_find (c->format);
  QuantOracle oracle;
  g_autofree char *plain_name = g_strconcat (c->format, "-floats", NULL), *folder = made_folder (c->format), *plain = made_folder (plain_name);
  g_autofree char *fit = g_strconcat (c->format, "-fit", NULL);
  quant_oracle_init (&oracle);
  quant_folders_write (f, &c->shape, folder, plain, &oracle, NULL, NULL);
  quant_oracle_clear (&oracle);
  quant_tokenizer_write (folder, c->shape.vocab);
  quant_tokenizer_write (plain, c->shape.vocab);
  const char *const folders[] = { folder, plain };
  for (guint i = 0; i < G_N_ELEMENTS (folders); i++) {
    g_autoptr (ProgramRun) import = program_run (home (), "import", folders[i], "--json", NULL);
    program_object (import);
  }
  double exact = divergence (c->format, plain_name);
  g_assert_cmpfloat (exact, <, 1e-6);
  test_archive (c->format, endings[(c - cases) % G_N_ELEMENTS (endings)]);
  g_autoptr (ProgramRun) made = program_run (home (), "fit", c->format, "--bpw", "7", "-o", fit, "--calibration", text_file (), "--json", NULL);
  double bits = json_object_get_double_member (program_object (made), "source_bits");
  gboolean is_filled = c->shape.embd % 128 != 0; /* of which more is stored than counts */
  g_assert_true (bits > 2 && (bits < 5 || is_filled));
  double fitted = divergence (fit, plain_name);
  g_test_message ("%s: exactly %.2g, fitted to 7 bits %.2g", c->format, exact, fitted);
  g_assert_cmpfloat (fitted, <, 2e-3);
  g_assert_cmpfloat (fitted, >, exact);
  if (!g_str_has_prefix (c->format, "bitsandbytes") && !is_filled) /* its 16 levels are no X-bit table's: it is computed with as F16 */
    test_kept (fit);
  test_plain (c->format, plain_name, 1e-5);
  test_plain (fit, plain_name, 1e-5); /* of the model that it was made of */
}

int main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  for (guint i = 0; i < G_N_ELEMENTS (cases); i++) {
    g_autofree char *name = g_strconcat ("/folders/", cases[i].format, NULL);
    g_test_add_data_func (name, &cases[i], test_case);
  }
  int status = g_test_run ();
  scratch_clean ();
  return status;
}
