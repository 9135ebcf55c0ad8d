/* test_first_light.c: the whole way through the built command on a tiny model: import, plan, fit, chat, measure, export, remove. */
#include "tests/fixtures/program.h"
#include "tests/fixtures/sanitized.h"
#include "tests/fixtures/scratch.h"
#include "tests/fixtures/tiny_model.h"

#include <glib/gstdio.h>
#include <math.h>
#include <string.h>
#include <sys/stat.h>

#define MODEL_MEMBERS "name:s kind:s architecture:s parameters:i bytes:i bpw:d license:s source:s path:s sha256:s"
#define PLAN_MEMBERS \
  "weights_bytes:i kv_bytes:i scratch_bytes:i program_bytes:i total_bytes:i bpw:d expected_kl:d expected_top1:d expected_tokens_per_second:d"

static guint64 size_of (const char *path)
{
  GStatBuf info;
  g_assert_cmpint (g_stat (path, &info), ==, 0);
  return (guint64) info.st_size;
}

static const char *string_of (JsonObject *object, const char *member)
{
  return json_object_get_string_member (object, member);
}

static gint64 int_of (JsonObject *object, const char *member)
{
  return json_object_get_int_member (object, member);
}

static double number_of (JsonObject *object, const char *member)
{
  return json_object_get_double_member (object, member);
}

/* The checkpoint, written once. */
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

/* A library with the checkpoint "tiny" and the fit "small" of it in 90,000 bytes. */
static const char *home (void)
{
  static char *path;
  if (path)
    return path;
  path = scratch_path ("home");
  g_autoptr (ProgramRun) import = program_run (path, "import", tiny (), "--json", NULL);
  program_object (import);
  g_autoptr (ProgramRun) fit = program_run (path, "fit", "tiny", "--size", "90K", "-o", "small", "--json", NULL);
  program_object (fit);
  return path;
}

static const char *text_file (void)
{
  static char *path;
  if (!path) {
    g_autofree char *text = scratch_text (4000);
    path = scratch_path ("text.txt");
    scratch_write (path, text, strlen (text));
  }
  return path;
}

/* ---- what there is ---- */

static void test_hardware (void)
{
  g_autoptr (ProgramRun) run = program_run (home (), "hardware", "--json", NULL);
  JsonObject *object = program_object (run);
  program_expect_members (object, "cpu:o ram:o gpus:a selected_backend:s");
  JsonObject *cpu = json_object_get_object_member (object, "cpu"), *ram = json_object_get_object_member (object, "ram");
  program_expect_members (cpu, "model:s cores:i isa:a selected:s");
  program_expect_members (ram, "total_bytes:i available_bytes:i");
  g_assert_cmpint (int_of (cpu, "cores"), >=, 1);
  g_assert_cmpint (int_of (ram, "total_bytes"), >=, int_of (ram, "available_bytes"));
  g_assert_cmpint (int_of (ram, "available_bytes"), >, 0);
  JsonArray *isa = json_object_get_array_member (cpu, "isa");
  gboolean listed = FALSE;
  for (guint i = 0; i < json_array_get_length (isa); i++)
    listed = listed || g_str_equal (json_array_get_string_element (isa, i), string_of (cpu, "selected"));
  g_assert_true (listed);
}

static void expect_tiny (JsonObject *object)
{
  const guint matrices = 272 * 64 + 2 * (128 * 64 + 2 * 64 * 64 + 64 * 128 + 3 * 96 * 64), norms = 64 * (2 * 2 + 1);
  g_autofree char *sha256 = scratch_sha256 (tiny ());
  program_expect_members (object, MODEL_MEMBERS);
  g_assert_cmpstr (string_of (object, "kind"), ==, "checkpoint");
  g_assert_cmpstr (string_of (object, "architecture"), ==, "llama");
  g_assert_cmpint (int_of (object, "parameters"), ==, matrices + norms);
  g_assert_cmpint (int_of (object, "bytes"), ==, (gint64) size_of (tiny ()));
  g_assert_cmpfloat (number_of (object, "bpw"), ==, 32);
  g_assert_cmpstr (string_of (object, "sha256"), ==, sha256);
  g_autofree char *kept = scratch_sha256 (string_of (object, "path"));
  g_assert_cmpstr (kept, ==, sha256);
}

/* The same model from everything it may come in: every import is the same content under a name of its own. */
static void test_import (gconstpointer data)
{
  const char *kind = data;
  g_autofree char *where = scratch_path ("import-home"), *source = scratch_path (kind), *name = g_strdup_printf ("from %s", kind);
  g_autoptr (GBytes) model = scratch_read (tiny ());
  gsize size;
  const guint8 *bytes = g_bytes_get_data (model, &size);
  static const char metadata[] = "Metadata-Version: 2.1\nName: tiny\nLicense: Apache-2.0\n\nText about License: none\n";
  const ScratchEntry entries[] = { { .name = "tiny/" },
                                   { .name = "tiny/README.md", .data = "read me", .size = 7 },
                                   { .name = "tiny/models/tiny.gguf", .data = bytes, .size = size },
                                   { .name = "tiny-1.dist-info/METADATA", .data = metadata, .size = strlen (metadata) } };
  gboolean archive = !g_str_equal (kind, "file") && !g_str_equal (kind, "folder");
  if (archive) {
    scratch_archive (source, entries, G_N_ELEMENTS (entries));
  } else {
    g_autofree char *file = g_str_equal (kind, "folder") ? g_build_filename (source, "deeper", "tiny.gguf", NULL) : g_strdup (source);
    scratch_write (file, bytes, size);
  }
  g_autoptr (ProgramRun) run = program_run (where, "import", source, "--name", name, "--json", NULL);
  JsonObject *object = program_object (run);
  program_expect_members (object, "name:s architecture:s parameters:i bytes:i license:s sha256:s");
  expect_tiny (object);
  g_assert_cmpstr (string_of (object, "name"), ==, name);
  g_assert_cmpstr (string_of (object, "source"), ==, source);
  g_assert_cmpstr (string_of (object, "license"), ==, archive ? "Apache-2.0" : "");
  /* Shown to people as well, and as it is in the list. */
  g_autoptr (ProgramRun) show = program_run (where, "show", name, "--json", NULL);
  g_assert_cmpstr (string_of (program_object (show), "weights"), ==, "GGUF, mostly F32");
  JsonObject *made = json_object_get_object_member (program_object (show), "quantization");
  program_expect_members (made, "format:s method:s bits:d ordered:b kept:s");
  g_assert_cmpfloat (number_of (made, "bits"), ==, 32);
  g_assert_cmpstr (string_of (made, "kept"), ==, "computed with as F32");
  json_object_remove_member (program_object (show), "weights");
  json_object_remove_member (program_object (show), "quantization");
  json_object_remove_member (program_object (show), "pictures");
  g_assert_true (json_node_equal (show->json, run->json));
  g_autofree char *temporaries = g_build_filename (where, "tmp", NULL);
  g_assert_cmpuint (scratch_count (temporaries), ==, 0);
}

static void test_list (void)
{
  g_autofree char *empty = scratch_path ("empty-home");
  g_autoptr (ProgramRun) none = program_run (empty, "list", "--json", NULL);
  g_assert_cmpuint (json_array_get_length (program_array (none)), ==, 0);
  g_autoptr (ProgramRun) run = program_run (home (), "list", "--json", NULL);
  JsonArray *array = program_array (run);
  g_assert_cmpuint (json_array_get_length (array), ==, 2);
  expect_tiny (json_array_get_object_element (array, 0));
  JsonObject *small = json_array_get_object_element (array, 1);
  program_expect_members (small, MODEL_MEMBERS " kl_divergence:d");
  g_assert_cmpstr (string_of (small, "name"), ==, "small");
  g_assert_cmpstr (string_of (small, "kind"), ==, "fit");
  g_assert_cmpstr (string_of (small, "source"), ==, "tiny");
  g_assert_cmpint (int_of (small, "bytes"), ==, (gint64) size_of (string_of (small, "path")));
  g_autoptr (ProgramRun) show = program_run (home (), "show", "SMALL", "--json", NULL); /* names do not differ by their case alone */
  JsonObject *shown = program_object (show);
  g_assert_true (g_str_has_prefix (string_of (shown, "weights"), "GGUF, X-bit, ")); /* for which the file is opened: not in a list */
  g_assert_true (g_str_has_prefix (string_of (json_object_get_object_member (shown, "quantization"), "kept"), "fitted by Valise from tiny to "));
  json_object_remove_member (shown, "weights");
  json_object_remove_member (shown, "quantization");
  json_object_remove_member (shown, "pictures");
  g_assert_true (json_object_equal (shown, small));
  g_autoptr (ProgramRun) words = program_run (home (), "list", NULL);
  g_assert_cmpint (words->status, ==, 0);
  g_assert_nonnull (strstr (words->out, "\n  small"));
  /* A file outside the library can be shown too. */
  g_autoptr (ProgramRun) outside = program_run (home (), "show", tiny (), "--json", NULL);
  program_expect_members (program_object (outside), MODEL_MEMBERS);
}

/* ---- plan and fit ---- */

static void expect_plan (JsonObject *plan)
{
  program_expect_members (plan, PLAN_MEMBERS);
  g_assert_cmpint (int_of (plan, "weights_bytes") + int_of (plan, "kv_bytes") + int_of (plan, "scratch_bytes") + int_of (plan, "program_bytes"), ==,
                   int_of (plan, "total_bytes"));
  g_assert_cmpfloat (number_of (plan, "bpw"), >, 0);
  g_assert_cmpfloat (number_of (plan, "expected_kl"), >=, 0);
  g_assert_cmpfloat (number_of (plan, "expected_top1"), <=, 1);
  g_assert_cmpfloat (number_of (plan, "expected_top1"), >=, 0);
  g_assert_cmpfloat (number_of (plan, "expected_tokens_per_second"), >, 0);
}

/* Every way to say how large is kept to, before the analysis (an estimate) and after it. */
static void test_plan (void)
{
  g_autofree char *fresh = scratch_path ("plan-home");
  const char *homes[] = { fresh, home () };
  for (guint i = 0; i < G_N_ELEMENTS (homes); i++) {
    const char *model = i == 0 ? tiny () : "tiny";
    g_autoptr (ProgramRun) bits = program_run (homes[i], "plan", model, "--bpw", "4", "--json", NULL);
    expect_plan (program_object (bits));
    g_assert_cmpfloat (fabs (number_of (program_object (bits), "bpw") - 4), <, 0.1);
    g_assert_true (json_object_get_boolean_member (program_object (bits), "is_estimate") == (i == 0));
    g_autoptr (ProgramRun) size = program_run (homes[i], "plan", model, "--size", "80K", "--json", NULL);
    expect_plan (program_object (size));
    g_assert_cmpint (int_of (program_object (size), "weights_bytes"), <=, 80000);
    g_assert_cmpint (int_of (program_object (size), "weights_bytes"), >, 75000);
    g_assert_cmpint (int_of (program_object (size), "weights_bytes"), >, int_of (program_object (bits), "weights_bytes"));
    g_assert_cmpfloat (number_of (program_object (size), "expected_kl"), <, number_of (program_object (bits), "expected_kl"));
    g_autofree char *budget = g_strdup_printf ("%" G_GINT64_FORMAT, int_of (program_object (size), "total_bytes"));
    g_autoptr (ProgramRun) ram = program_run (homes[i], "plan", model, "--ram", budget, "--json", NULL);
    expect_plan (program_object (ram));
    g_assert_cmpint (int_of (program_object (ram), "total_bytes"), <=, int_of (program_object (size), "total_bytes"));
    g_assert_cmpint (int_of (program_object (ram), "weights_bytes"), >=, int_of (program_object (size), "weights_bytes") - 5000);
  }
}

/* What a chat needs besides the weights follows context, KV depth and the program. */
static void test_plan_parts (void)
{
  g_autoptr (ProgramRun) whole = program_run (home (), "plan", "tiny", "--bpw", "4", "--context", "256", "--json", NULL);
  g_autoptr (ProgramRun) half = program_run (home (), "plan", "tiny", "--bpw", "4", "--context", "128", "--json", NULL);
  g_autoptr (ProgramRun) narrow = program_run (home (), "plan", "tiny", "--bpw", "4", "--context", "256", "--kv", "8", "--json", NULL);
  g_autoptr (ProgramRun) narrower = program_run (home (), "plan", "tiny", "--bpw", "4", "--context", "256", "--kv", "4", "--json", NULL);
  g_autoptr (ProgramRun) window = program_run (home (), "plan", "tiny", "--bpw", "4", "--window", "--json", NULL);
  gint64 kv = int_of (program_object (whole), "kv_bytes");
  g_assert_cmpint (int_of (program_object (half), "kv_bytes"), <, kv);
  g_assert_cmpint (int_of (program_object (narrow), "kv_bytes"), <, kv);
  g_assert_cmpint (int_of (program_object (narrower), "kv_bytes"), <, int_of (program_object (narrow), "kv_bytes"));
  g_assert_cmpint (int_of (program_object (window), "program_bytes"), >, int_of (program_object (whole), "program_bytes"));
}

/* The smallest that can be is named, and is what it says: one less is refused, it is not. */
static void test_too_small (void)
{
  g_autoptr (ProgramRun) run = program_run (home (), "plan", "tiny", "--ram", "1M", "--json", NULL);
  program_expect_failure (run, 1, "the smallest possible is ");
  const char *named = strstr (run->err, "the smallest possible is ") + strlen ("the smallest possible is ");
  g_autofree char *smallest = g_strndup (named, strcspn (named, "\n"));
  g_autoptr (ProgramRun) met = program_run (home (), "plan", "tiny", "--ram", smallest, "--json", NULL);
  expect_plan (program_object (met));
  g_assert_cmpint (int_of (program_object (met), "smallest_ram_bytes"), >=, int_of (program_object (met), "total_bytes") - 5000);
  g_autoptr (ProgramRun) file = program_run (home (), "plan", "tiny", "--size", "1K", "--json", NULL);
  program_expect_failure (file, 1, "the smallest possible is ");
  g_autoptr (ProgramRun) fit = program_run (home (), "fit", "tiny", "--ram", "1M", "--json", NULL);
  program_expect_failure (fit, 1, "the smallest possible is ");
}

/* A fit is what its plan said; it is in the list, whole, and never above the budget. */
static void test_fit (void)
{
  g_autoptr (ProgramRun) plan = program_run (home (), "plan", "tiny", "--size", "100K", "--context", "128", "--kv", "8", "--json", NULL);
  g_autoptr (ProgramRun) fit
    = program_run (home (), "fit", "tiny", "--size", "100K", "--context", "128", "--kv", "8", "-o", "hundred", "--json", NULL);
  JsonObject *object = program_object (fit);
  expect_plan (object);
  program_expect_members (object, "name:s path:s bytes:i kl_divergence:d seconds:d peak_rss_bytes:i");
  g_assert_cmpstr (string_of (object, "name"), ==, "hundred");
  g_assert_cmpint (int_of (object, "bytes"), ==, (gint64) size_of (string_of (object, "path")));
  g_assert_cmpint (int_of (object, "weights_bytes"), ==, int_of (object, "bytes"));
  g_assert_cmpint (int_of (object, "bytes"), <=, 100000);
  g_assert_cmpint (ABS (int_of (object, "bytes") - int_of (program_object (plan), "weights_bytes")), <, 4096);
  g_assert_cmpfloat (fabs (number_of (object, "bpw") - number_of (program_object (plan), "bpw")), <, 0.2);
  const char *same[] = { "kv_bytes", "scratch_bytes", "program_bytes" };
  for (guint i = 0; i < G_N_ELEMENTS (same); i++)
    g_assert_cmpint (int_of (object, same[i]), ==, int_of (program_object (plan), same[i]));
  g_assert_cmpfloat (number_of (object, "seconds"), >, 0);
  g_assert_cmpint (int_of (object, "peak_rss_bytes"), >, 1000000);
  g_assert_cmpfloat (number_of (object, "kl_divergence"), >=, 0);
  g_autoptr (ProgramRun) show = program_run (home (), "show", "hundred", "--json", NULL);
  g_assert_cmpfloat (number_of (program_object (show), "kl_divergence"), ==, number_of (object, "kl_divergence"));
  g_autoptr (ProgramRun) taken = program_run (home (), "fit", "tiny", "--size", "100K", "-o", "Hundred", "--json", NULL);
  program_expect_failure (taken, 1, "there already is a model named \"Hundred\"");
  g_autoptr (ProgramRun) again = program_run (home (), "fit", "hundred", "--size", "90K", "--json", NULL);
  program_expect_failure (again, 1, "is a fit already: fit the model it was made from, tiny");
  g_autoptr (ProgramRun) remove = program_run (home (), "remove", "hundred", "--json", NULL);
  program_object (remove);
}

/* A fit to a file is outside the library and there to chat with. */
static void test_fit_to_file (void)
{
  g_autofree char *path = scratch_path ("outside.gguf"), *text = scratch_path ("calibration.txt");
  g_autofree char *calibration = scratch_text (20000);
  scratch_write (text, calibration, strlen (calibration));
  g_autoptr (ProgramRun) fit = program_run (home (), "fit", tiny (), "--bpw", "5", "-q", "best", "-o", path, "--calibration", text, "--json", NULL);
  JsonObject *object = program_object (fit);
  g_assert_cmpstr (string_of (object, "path"), ==, path);
  g_assert_cmpint (int_of (object, "bytes"), ==, (gint64) size_of (path));
  g_autoptr (ProgramRun) list = program_run (home (), "list", "--json", NULL);
  g_assert_cmpuint (json_array_get_length (program_array (list)), ==, 2);
  g_autoptr (ProgramRun) chat = program_run (home (), "chat", path, "--prompt", "hello", "--max-tokens", "3", "--json", NULL);
  program_object (chat);
  g_autoptr (ProgramRun) nowhere = program_run (home (), "fit", tiny (), "--bpw", "5", "-o", "/nowhere/x.gguf", NULL);
  program_expect_failure (nowhere, 1, "there is no folder /nowhere");
}

/* ---- chat and measures ---- */

#define MEASURES_MEMORY (!IS_SANITIZED) /* a sanitizer's own memory is counted with ours */

#define CHAT_MEMBERS \
  "text:s prompt_tokens:i generated_tokens:i prompt_tokens_per_second:d generated_tokens_per_second:d peak_rss_bytes:i finish_reason:s"

static char *chat_text (const char *seed, const char *temperature)
{
  g_autoptr (ProgramRun) run = program_run (home (), "chat", "small", "--prompt", "hello world", "--system", "the", "--max-tokens", "24", "--seed", seed,
                                            "--temp", temperature, "--context", "200", "--json", NULL);
  JsonObject *object = program_object (run);
  program_expect_members (object, CHAT_MEMBERS);
  g_assert_cmpint (int_of (object, "generated_tokens"), <=, 24);
  g_assert_true (g_str_equal (string_of (object, "finish_reason"), "length") || g_str_equal (string_of (object, "finish_reason"), "stop"));
  return g_strdup (string_of (object, "text"));
}

static void test_chat (void)
{
  g_autofree char *first = chat_text ("7", "1"), *same = chat_text ("7", "1"), *other = chat_text ("8", "1");
  g_assert_cmpstr (first, ==, same);
  g_assert_cmpstr (first, !=, other);
  g_autofree char *cold = chat_text ("7", "0"), *colder = chat_text ("8", "0");
  g_assert_cmpstr (cold, ==, colder);
  /* Without --json the answer alone is on stdout. */
  g_autoptr (ProgramRun) words = program_run (home (), "chat", "small", "--prompt", "hello world", "--system", "the", "--max-tokens", "24", "--seed",
                                              "7", "--temp", "1", "--context", "200", NULL);
  g_autofree char *line = g_strconcat (first, "\n", NULL);
  g_assert_cmpint (words->status, ==, 0);
  if (g_utf8_validate (words->out, -1, NULL))
    g_assert_cmpstr (words->out, ==, line);
  /* The prompt may come through a pipe. */
  g_autoptr (ProgramRun) piped = program_run_input (home (), "hello world\n", "chat", "small", "--system", "the", "--max-tokens", "24", "--seed", "7",
                                                    "--temp", "1", "--context", "200", "--json", NULL);
  g_assert_cmpstr (string_of (program_object (piped), "text"), ==, first);
}

/* Noise in the form that was asked for. */
static void test_chat_grammar (void)
{
  g_autofree char *grammar = scratch_path ("yes-or-no.gbnf"), *schema = scratch_path ("schema.json"), *wrong = scratch_path ("wrong.gbnf"), *odd = scratch_path ("odd.json");
  static const char gbnf[] = "root ::= \"yes\" | \"no\" # nothing else\n", broken[] = "root ::= \"yes\"\nother ::= (\n", unknown[] = "{\"properties\":{\"a\":{\"not\":{}}}}";
  static const char json_schema[] = "{\"type\":\"object\",\"properties\":{\"size\":{\"type\":\"integer\",\"minimum\":3,\"maximum\":40},\"kind\":{\"enum\":[\"a\",\"b\"]}},"
                                    "\"required\":[\"size\",\"kind\"],\"additionalProperties\":false}";
  scratch_write (grammar, gbnf, strlen (gbnf));
  scratch_write (schema, json_schema, strlen (json_schema));
  scratch_write (wrong, broken, strlen (broken));
  scratch_write (odd, unknown, strlen (unknown));
  g_autoptr (ProgramRun) word = program_run (home (), "chat", "small", "--prompt", "hello", "--grammar", grammar, "--seed", "3", NULL);
  g_assert_cmpint (word->status, ==, 0);
  g_assert_true (g_str_equal (word->out, "yes\n") || g_str_equal (word->out, "no\n"));
  g_autoptr (ProgramRun) run = program_run (home (), "chat", "small", "--prompt", "hello", "--json-schema", schema, "--seed", "3", "--json", NULL);
  g_assert_cmpstr (string_of (program_object (run), "finish_reason"), ==, "stop");
  g_autoptr (JsonNode) answer = json_from_string (string_of (program_object (run), "text"), NULL);
  g_assert_nonnull (answer);
  gint64 size = int_of (json_node_get_object (answer), "size");
  g_assert_true (size >= 3 && size <= 40);
  g_assert_cmpuint (strlen (string_of (json_node_get_object (answer), "kind")), ==, 1);
  g_autoptr (ProgramRun) bad = program_run (home (), "chat", "small", "--prompt", "x", "--grammar", wrong, NULL);
  program_expect_failure (bad, 1, "wrong.gbnf: the grammar's line 3: ");
  g_autoptr (ProgramRun) refused = program_run (home (), "chat", "small", "--prompt", "x", "--json-schema", odd, NULL);
  program_expect_failure (refused, 1, "odd.json: the schema at #/properties/a: not cannot be obeyed");
  g_autoptr (ProgramRun) no_json = program_run (home (), "chat", "small", "--prompt", "x", "--json-schema", grammar, NULL);
  program_expect_failure (no_json, 1, "yes-or-no.gbnf is no JSON");
  g_autoptr (ProgramRun) both = program_run (home (), "chat", "small", "--prompt", "x", "--json-schema", schema, "--grammar", grammar, NULL);
  program_expect_failure (both, 2, "--json-schema");
}

/* A conversation over several runs is the one of a single run, and nothing of it is read twice. */
static void test_chat_session (void)
{
  g_autofree char *file = scratch_path ("kept.session"), *schema = scratch_path ("no.session");
#define TURN "--temp", "0", "--max-tokens", "12", "--context", "200"
  g_autoptr (ProgramRun) whole = program_run_input (home (), "hello world\nthe\n", "chat", "small", TURN, NULL);
  g_assert_cmpint (whole->status, ==, 0);
  g_autoptr (ProgramRun) first = program_run (home (), "chat", "small", "--session", file, "--prompt", "hello world", TURN, "--json", NULL);
  g_assert_cmpint (int_of (program_object (first), "reused_tokens"), ==, 0);
  g_autoptr (ProgramRun) second = program_run (home (), "chat", "small", "--session", file, "--prompt", "the", TURN, "--json", NULL);
  gint64 reused = int_of (program_object (second), "reused_tokens");
  g_assert_cmpint (reused, >=, int_of (program_object (first), "prompt_tokens"));
  g_assert_cmpint (reused, <, int_of (program_object (second), "prompt_tokens"));
  g_autofree char *expected = g_strconcat (string_of (program_object (first), "text"), "\n", string_of (program_object (second), "text"), "\n", NULL);
  if (g_utf8_validate (whole->out, -1, NULL))
    g_assert_cmpstr (whole->out, ==, expected);
  /* It is of this model, this context and its own system prompt; what is refused is left alone. */
  guint64 bytes = size_of (file);
  g_autoptr (ProgramRun) other = program_run (home (), "chat", "tiny", "--session", file, "--prompt", "the", TURN, NULL);
  program_expect_failure (other, 1, "another model");
  g_autoptr (ProgramRun) narrow = program_run (home (), "chat", "small", "--session", file, "--prompt", "the", "--context", "16", NULL);
  program_expect_failure (narrow, 1, "longer");
  g_autoptr (ProgramRun) shallow = program_run (home (), "chat", "small", "--session", file, "--prompt", "the", "--context", "200", "--kv", "8", NULL);
  program_expect_failure (shallow, 1, "another depth");
  g_autoptr (ProgramRun) begun = program_run (home (), "chat", "small", "--session", file, "--prompt", "the", "--system", "x", TURN, NULL);
  program_expect_failure (begun, 1, "leave out --system");
  scratch_write (schema, "no session", 10);
  g_autoptr (ProgramRun) none = program_run (home (), "chat", "small", "--session", schema, "--prompt", "the", TURN, NULL);
  program_expect_failure (none, 1, "no saved session");
  g_assert_cmpuint (size_of (file), ==, bytes);
  g_autoptr (ProgramRun) nowhere = program_run (home (), "chat", "small", "--session", "/nowhere/x.session", "--prompt", "the", TURN, NULL);
  g_assert_cmpint (nowhere->status, ==, 1);
#undef TURN
}

/* Whoever guesses ahead, the answer is the same. */
/* A model that sees pictures too says that it does not here. */
static void test_chat_pictures (void)
{
  g_autofree char *sees = g_test_build_filename (G_TEST_DIST, "fixtures", "decoders", "qwen2vl.gguf", NULL);
  g_autoptr (ProgramRun) chat = program_run (home (), "chat", sees, "--prompt", "x", "--max-tokens", "1", NULL), plain = program_run (home (), "chat", "small", "--prompt", "x", "--max-tokens", "1", NULL);
  g_assert_cmpint (chat->status, ==, 0);
  g_assert_nonnull (strstr (chat->err, "its text part only"));
  g_assert_null (strstr (plain->err, "pictures"));
  g_autoptr (ProgramRun) import = program_run (home (), "import", sees, "--name", "seeing", "--json", NULL), show = program_run (home (), "show", "seeing", NULL);
  program_object (import);
  g_assert_nonnull (strstr (show->out, "Pictures    not seen"));
  g_autoptr (ProgramRun) json = program_run (home (), "show", "seeing", "--json", NULL), other = program_run (home (), "show", "small", "--json", NULL);
  g_assert_true (json_object_get_boolean_member (program_object (json), "pictures"));
  g_assert_false (json_object_get_boolean_member (program_object (other), "pictures"));
  g_autoptr (ProgramRun) remove = program_run (home (), "remove", "seeing", NULL);
  g_assert_cmpint (remove->status, ==, 0);
}

static void test_chat_draft (void)
{
  g_autofree char *alone = chat_text ("7", "0");
  const char *const drafts[] = { "ngram", "small" };
  for (guint i = 0; i < G_N_ELEMENTS (drafts); i++) {
    g_autoptr (ProgramRun) run = program_run (home (), "chat", "small", "--prompt", "hello world", "--system", "the", "--max-tokens", "24", "--seed", "7",
                                              "--temp", "0", "--context", "200", "--draft", drafts[i], "--json", NULL);
    JsonObject *object = program_object (run);
    g_assert_cmpstr (string_of (object, "text"), ==, alone);
    g_assert_cmpint (int_of (object, "accepted_tokens"), <=, int_of (object, "guessed_tokens"));
  }
  g_autoptr (ProgramRun) none = program_run (home (), "chat", "small", "--prompt", "hello", "--draft", "nobody", NULL);
  g_assert_cmpint (none->status, ==, 1);
  g_assert_nonnull (strstr (none->err, "nobody"));
}

/* Lines through a pipe are turns of one conversation. */
static void test_conversation (void)
{
  g_autoptr (ProgramRun) run = program_run_input (home (), "hello\n\n/memory\nthe world\n/clear\nhello\n/quit\nnever asked\n", "chat", "small",
                                                  "--max-tokens", "4", "--temp", "0", NULL);
  g_assert_cmpint (run->status, ==, 0);
  g_assert_nonnull (strstr (run->err, "A new conversation."));
  g_assert_nonnull (strstr (run->err, "tokens of context."));
  g_assert_null (strstr (run->err, "never asked"));
  /* The same first question after /clear has the same answer. */
  g_autoptr (ProgramRun) once = program_run_input (home (), "hello\n", "chat", "small", "--max-tokens", "4", "--temp", "0", NULL);
  g_assert_true (g_str_has_prefix (run->out, once->out));
  g_assert_true (g_str_has_suffix (run->out, once->out));
  g_assert_cmpuint (run->out_length, >, 2 * once->out_length);
  g_autoptr (ProgramRun) nothing = program_run (home (), "chat", "small", "--json", NULL);
  program_expect_failure (nothing, 1, "there is no prompt");
}

/* A model removed under a conversation serves it to its end. */
static void test_removed_meanwhile (void)
{
  g_autofree char *where = scratch_path ("busy-home");
  g_autoptr (GError) error = NULL;
  g_autoptr (ProgramRun) import = program_run (where, "import", tiny (), "--json", NULL);
  program_object (import);
  g_autoptr (GSubprocess) chat
    = program_start (where, G_SUBPROCESS_FLAGS_STDIN_PIPE | G_SUBPROCESS_FLAGS_STDOUT_PIPE | G_SUBPROCESS_FLAGS_STDERR_SILENCE, "chat", "tiny",
                     "--max-tokens", "5", "--temp", "0", NULL);
  GOutputStream *in = g_subprocess_get_stdin_pipe (chat);
  GInputStream *out = g_subprocess_get_stdout_pipe (chat);
  g_assert_true (g_output_stream_write_all (in, "hello\n", 6, NULL, NULL, &error));
  char first[1];
  g_assert_cmpint (g_input_stream_read (out, first, 1, NULL, &error), ==, 1); /* it answers */
  g_autoptr (ProgramRun) remove = program_run (where, "remove", "tiny", "--json", NULL);
  program_object (remove);
  g_autofree char *objects = g_build_filename (where, "objects", NULL);
  g_assert_cmpuint (scratch_count (objects), ==, 0);
  g_assert_true (g_output_stream_write_all (in, "world\n/clear\nhello\n", 19, NULL, NULL, &error));
  g_assert_true (g_output_stream_close (in, NULL, &error));
  gsize more;
  g_autofree char *rest = g_malloc (1 << 16);
  g_assert_true (g_input_stream_read_all (out, rest, 1 << 16, &more, NULL, &error));
  g_assert_cmpuint (more, >, 2);
  g_assert_true (g_subprocess_wait (chat, NULL, &error));
  g_assert_true (g_subprocess_get_if_exited (chat));
  g_assert_cmpint (g_subprocess_get_exit_status (chat), ==, 0);
  g_autoptr (ProgramRun) gone = program_run (where, "chat", "tiny", "--prompt", "x", NULL);
  program_expect_failure (gone, 1, "there is no model named \"tiny\"");
}

/* The prompt counts the tokens that its rendered form has. */
static void test_render_and_tokenize (void)
{
  g_autofree char *messages = scratch_path ("messages.json"), *context = scratch_path ("context.json"), *jinja = scratch_path ("template.jinja");
  static const char list[] = "[{\"role\": \"user\", \"content\": \"hello the world <|im_end|>\"}]";
  static const char object[] = "{\"messages\": [{\"role\": \"user\", \"content\": \"hi\"}], \"tools\": [1, 2], \"bos_token\": \"B\"}";
  static const char source[] = "{{ bos_token }}{% for m in messages %}{{ m.role }}={{ m.content }};{% endfor %}{{ tools | length if tools }}";
  scratch_write (messages, list, strlen (list));
  scratch_write (context, object, strlen (object));
  scratch_write (jinja, source, strlen (source));
  g_autoptr (ProgramRun) render = program_run (home (), "render", "small", "--messages", messages, NULL);
  g_assert_cmpint (render->status, ==, 0);
  g_assert_cmpstr (render->out, ==, "<|im_start|>user\nhello the world <|im_end|><|im_end|>\n<|im_start|>assistant\n");
  g_autoptr (ProgramRun) bare = program_run (home (), "render", "small", "--messages", messages, "--no-generation-prompt", "--json", NULL);
  g_assert_cmpstr (string_of (program_object (bare), "prompt"), ==, "<|im_start|>user\nhello the world <|im_end|><|im_end|>\n");
  g_autoptr (ProgramRun) own = program_run (home (), "render", "--template", jinja, "--messages", context, "--json", NULL);
  g_assert_cmpstr (string_of (program_object (own), "prompt"), ==, "Buser=hi;2");
  g_autoptr (ProgramRun) filled = program_run (home (), "render", "small", "--template", jinja, "--messages", messages, "--json", NULL);
  g_assert_cmpstr (string_of (program_object (filled), "prompt"), ==, "<|endoftext|>user=hello the world <|im_end|>;");

  g_autoptr (ProgramRun) plain = program_run (home (), "tokenize", "small", "--text", "hello world<|im_end|>", "--json", NULL);
  g_autoptr (ProgramRun) special = program_run (home (), "tokenize", "small", "--text", "hello world<|im_end|>", "--special", "--json", NULL);
  JsonArray *spelled = json_object_get_array_member (program_object (plain), "tokens");
  JsonArray *recognised = json_object_get_array_member (program_object (special), "tokens");
  g_assert_cmpuint (json_array_get_length (recognised), ==, 3); /* hello, world, the control token; no BOS */
  g_assert_cmpuint (json_array_get_length (spelled), ==, 2 + strlen ("<|im_end|>"));
  g_autoptr (GString) joined = g_string_new (NULL);
  for (guint i = 0; i < json_array_get_length (spelled); i++) {
    JsonObject *token = json_array_get_object_element (spelled, i);
    program_expect_members (token, "id:i text:s");
    g_assert_cmpint (int_of (token, "id"), >, TINY_IM_END);
    g_string_append (joined, string_of (token, "text"));
  }
  g_assert_cmpstr (joined->str, ==, "hello world<|im_end|>");
  g_assert_cmpint (int_of (json_array_get_object_element (recognised, 2), "id"), ==, TINY_IM_END);

  g_autoptr (ProgramRun) prompt = program_run (home (), "tokenize", "small", "--text", "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n",
                                               "--special", "--json", NULL);
  g_autoptr (ProgramRun) chat = program_run (home (), "chat", "small", "--prompt", "hello", "--max-tokens", "1", "--json", NULL);
  g_assert_cmpint (int_of (program_object (chat), "prompt_tokens"), ==,
                   json_array_get_length (json_object_get_array_member (program_object (prompt), "tokens")));
}

static void test_eval (void)
{
  g_autoptr (ProgramRun) alone = program_run (home (), "eval", "tiny", "--text", text_file (), "--context", "64", "--chunks", "4", "--json", NULL);
  JsonObject *object = program_object (alone);
  program_expect_members (object, "tokens:i ppl:d");
  g_assert_cmpint (int_of (object, "tokens"), ==, 4 * 31); /* positions 32..62 predict 33..63 */
  g_assert_cmpfloat (number_of (object, "ppl"), >, 1);
  g_assert_true (json_object_get_null_member (object, "kl_divergence"));
  g_autoptr (ProgramRun) run = program_run (home (), "eval", "small", "--text", text_file (), "--context", "64", "--chunks", "4", "--reference", "tiny",
                                            "--json", NULL);
  object = program_object (run);
  program_expect_members (object, "tokens:i ppl:d kl_divergence:o top1_agreement:d");
  JsonObject *kl = json_object_get_object_member (object, "kl_divergence");
  program_expect_members (kl, "mean:d p99:d max:d");
  g_assert_cmpfloat (number_of (kl, "mean"), >, 0);
  g_assert_cmpfloat (number_of (kl, "p99"), <=, number_of (kl, "max"));
  g_assert_cmpfloat (number_of (kl, "mean"), <=, number_of (kl, "max"));
  g_assert_cmpfloat (number_of (object, "top1_agreement"), <=, 1);
  g_autoptr (ProgramRun) same = program_run (home (), "eval", "tiny", "--text", text_file (), "--context", "64", "--chunks", "4", "--reference", "tiny",
                                             "--json", NULL);
  object = program_object (same);
  g_assert_cmpfloat (number_of (json_object_get_object_member (object, "kl_divergence"), "max"), <, 1e-6);
  g_assert_cmpfloat (number_of (object, "top1_agreement"), ==, 1);
  g_autoptr (ProgramRun) longer = program_run (home (), "eval", "tiny", "--text", text_file (), "--context", "4096", "--json", NULL);
  program_expect_failure (longer, 1, "4096");
  g_autofree char *asked = scratch_path ("questions.jsonl");
  g_assert_true (g_file_set_contents (asked, "{\"question\":\"a\",\"choices\":[\"b\",\"c\"],\"answer\":1}\n", -1, NULL));
  g_autoptr (ProgramRun) choices = program_run (home (), "eval", "tiny", "--choices", asked, "--reference", "tiny", "--activations", "32", "--json", NULL);
  object = program_object (choices);
  program_expect_members (object, "questions:i accuracy:d reference_accuracy:d change:o");
  g_assert_cmpfloat (number_of (object, "accuracy"), ==, number_of (object, "reference_accuracy"));
  g_autoptr (ProgramRun) none = program_run (home (), "eval", "tiny", "--choices", text_file (), NULL);
  program_expect_failure (none, 1, "is no question");
}

static void test_bench (void)
{
  g_autoptr (ProgramRun) run
    = program_run (home (), "bench", "small", "--prompt-tokens", "64", "--generate", "16", "--threads", "2", "--json", NULL);
  JsonObject *object = program_object (run);
  program_expect_members (object, "prompt_tokens_per_second:d generated_tokens_per_second:d load_ms:d first_token_ms:d weight_bytes:i "
                                  "peak_rss_bytes:i backend:s isa:s threads:i");
  g_autoptr (ProgramRun) show = program_run (home (), "show", "small", "--json", NULL);
  g_assert_cmpint (int_of (object, "weight_bytes"), ==, int_of (program_object (show), "bytes"));
  g_assert_cmpint (int_of (object, "threads"), ==, 2);
  g_assert_cmpstr (string_of (object, "backend"), ==, "cpu");
  g_assert_cmpfloat (number_of (object, "first_token_ms"), >=, number_of (object, "load_ms"));
  /* What the plan says of program, cache and scratch holds for a model that is next to nothing. */
  g_autoptr (ProgramRun) plan = program_run (home (), "plan", "tiny", "--size", "90K", "--context", "65", "--threads", "2", "--json", NULL);
  g_test_message ("peak %" G_GINT64_FORMAT " of a planned %" G_GINT64_FORMAT, int_of (object, "peak_rss_bytes"),
                  int_of (program_object (plan), "total_bytes"));
  if (MEASURES_MEMORY)
    g_assert_cmpint (int_of (object, "peak_rss_bytes"), <=, int_of (program_object (plan), "total_bytes"));
  g_autoptr (ProgramRun) far = program_run (home (), "bench", "small", "--prompt-tokens", "100000", "--json", NULL);
  program_expect_failure (far, 1, "a context of 256 tokens at most");
}

/* ---- out of the library ---- */

static void test_export (void)
{
  g_autofree char *path = scratch_path ("exported.gguf"), *folder = scratch_path ("exports");
  g_autoptr (ProgramRun) run = program_run (home (), "export", "tiny", path, "--json", NULL);
  JsonObject *object = program_object (run);
  program_expect_members (object, "name:s path:s bytes:i");
  g_assert_cmpstr (string_of (object, "path"), ==, path);
  g_autofree char *sha256 = scratch_sha256 (path), *original = scratch_sha256 (tiny ());
  g_assert_cmpstr (sha256, ==, original);
  g_autoptr (ProgramRun) twice = program_run (home (), "export", "tiny", path, NULL);
  program_expect_failure (twice, 1, "is there already");
  g_assert_cmpint (g_mkdir (folder, 0755), ==, 0);
  g_autoptr (ProgramRun) into = program_run (home (), "export", "tiny", "-o", folder, "--json", NULL);
  g_assert_true (g_str_has_suffix (string_of (program_object (into), "path"), "/exports/tiny.gguf"));
  g_assert_cmpuint (scratch_count (folder), ==, 1);
  g_autoptr (ProgramRun) nowhere = program_run (home (), "export", "tiny", "/nowhere/at/all.gguf", NULL);
  program_expect_failure (nowhere, 1, "there is no folder /nowhere/at");
}

/* A fit, too: what comes out is the model it was made of, in types that have nothing of Valise. */
static void test_export_plain (void)
{
  static const char *const names[] = { "tiny", "small" };
  for (guint i = 0; i < G_N_ELEMENTS (names); i++) {
    g_autofree char *file = g_strconcat ("plain-", names[i], ".gguf", NULL), *path = scratch_path (file);
    g_autoptr (ProgramRun) few = program_run (home (), "export", names[i], "--format", "gguf", "--size", "10K", "-o", path, NULL);
    program_expect_failure (few, 1, "needs at least");
    g_assert_false (g_file_test (path, G_FILE_TEST_EXISTS));
    g_autoptr (ProgramRun) run = program_run (home (), "export", names[i], "--format", "gguf", "--size", "120K", "-o", path, "--json", NULL);
    JsonObject *object = program_object (run);
    program_expect_members (object, "name:s path:s bytes:i");
    g_assert_cmpint (int_of (object, "bytes"), <=, 120000);
    g_autoptr (ProgramRun) show = program_run (home (), "show", path, "--json", NULL);
    g_assert_cmpstr (string_of (program_object (show), "kind"), ==, "checkpoint");
    g_autoptr (ProgramRun) chat = program_run (home (), "chat", path, "--prompt", "x", "--max-tokens", "4", NULL);
    g_assert_cmpint (chat->status, ==, 0);
    g_autoptr (ProgramRun) twice = program_run (home (), "export", names[i], "--format", "gguf", "-o", path, NULL);
    program_expect_failure (twice, 1, "is there already");
  }
}

static void test_verify_and_remove (void)
{
  g_autofree char *where = scratch_path ("verify-home");
  g_autoptr (ProgramRun) import = program_run (where, "import", tiny (), "--json", NULL);
  const char *path = string_of (program_object (import), "path");
  g_autoptr (ProgramRun) intact = program_run (where, "verify", "tiny", "--json", NULL);
  JsonObject *object = program_object (intact);
  program_expect_members (object, "name:s path:s sha256:s intact:b");
  g_assert_true (json_object_get_boolean_member (object, "intact"));

  g_autoptr (GBytes) model = scratch_read (path);
  g_autofree guint8 *damaged = g_memdup2 (g_bytes_get_data (model, NULL), g_bytes_get_size (model));
  damaged[g_bytes_get_size (model) - 100] ^= 1;
  scratch_write (path, damaged, g_bytes_get_size (model));
  g_autoptr (ProgramRun) told = program_run (where, "verify", "tiny", "--json", NULL);
  g_assert_cmpint (told->status, ==, 1);
  g_assert_nonnull (strstr (told->err, "valise: tiny is damaged: "));
  object = json_node_get_object (told->json);
  g_assert_false (json_object_get_boolean_member (object, "intact"));
  program_expect_members (object, "problem:s");
  /* Importing it again heals it. */
  g_autoptr (ProgramRun) heal = program_run (where, "import", tiny (), "--json", NULL);
  program_object (heal);
  g_autoptr (ProgramRun) healed = program_run (where, "verify", "tiny", "--json", NULL);
  program_object (healed);

  g_autoptr (ProgramRun) remove = program_run (where, "remove", "tiny", "--json", NULL);
  object = program_object (remove);
  program_expect_members (object, "name:s removed:b freed_bytes:i");
  g_assert_cmpint (int_of (object, "freed_bytes"), ==, (gint64) size_of (tiny ()));
  g_assert_false (g_file_test (path, G_FILE_TEST_EXISTS));
  g_autoptr (ProgramRun) gone = program_run (where, "remove", "tiny", "--json", NULL);
  program_expect_failure (gone, 1, "there is no model named \"tiny\"");
  g_autoptr (ProgramRun) outside = program_run (where, "remove", tiny (), "--json", NULL);
  program_expect_failure (outside, 1, "is not in the library");
  g_assert_true (g_file_test (tiny (), G_FILE_TEST_EXISTS));
}

/* ---- what is wrong is said ---- */

static void test_usage (void)
{
  static const char *const lines[][6] = {
    { "nonsense" },
    { "import" },
    { "import", "a", "b" },
    { "list", "x" },
    { "list", "--nonsense" },
    { "plan", "tiny" },
    { "plan", "tiny", "--ram", "1G", "--bpw", "4" },
    { "plan", "tiny", "--ram", "much" },
    { "plan", "tiny", "--ram", "-1G" },
    { "plan", "tiny", "--size", "1e9" },
    { "plan", "tiny", "--bpw", "0" },
    { "plan", "tiny", "--bpw", "nan" },
    { "plan", "tiny", "--bpw=4", "--kv=5" },
    { "plan", "tiny", "--bpw=4", "--context=-5" },
    { "plan", "tiny", "--bpw=4", "--context=99999999999" },
    { "fit", "tiny" },
    { "fit", "tiny", "--bpw=4", "--threads=-1" },
    { "fit", "tiny", "--bpw=4", "--quality=good" },
    { "chat" },
    { "chat", "small", "--prompt=x", "--seed=one" },
    { "chat", "small", "--prompt=x", "--temp=-1" },
    { "chat", "small", "--prompt=x", "--temp=nan" },
    { "chat", "small", "--prompt=x", "--top-p=2" },
    { "chat", "small", "--prompt=\xff\xfe" },
    { "eval", "tiny" },
    { "eval", "tiny", "--text=x", "--context=1" },
    { "eval", "tiny", "--text=x", "--activations=7" },
    { "eval", "tiny", "--text=x", "--choices=y" },
    { "eval", "tiny", "--choices=y", "--questions=-1" },
    { "bench", "tiny", "--generate=0" },
    { "tokenize", "tiny" },
    { "tokenize", "tiny", "--text=\xff\xfe" },
    { "render", "tiny" },
    { "render", "--messages=x" },
    { "export", "tiny", "a.gguf", "-o", "b.gguf" },
    { "export", "tiny", "--format", "exl2" },
    { "export", "tiny", "--size", "1M" },
  };
  for (guint i = 0; i < G_N_ELEMENTS (lines); i++) {
    const char *const *a = lines[i];
    g_test_message ("line %u: valise %s", i, a[0]);
    g_autoptr (ProgramRun) run = program_run (home (), a[0], a[1], a[2], a[3], a[4], a[5], NULL);
    program_expect_failure (run, 2, "--help");
  }
  g_autoptr (ProgramRun) nothing = program_run (home (), NULL);
  g_assert_cmpint (nothing->status, ==, 2);
  g_assert_cmpstr (nothing->out, ==, "");
}

static void test_failures (void)
{
  g_autofree char *nothing = scratch_path ("nothing.gguf"), *folder = scratch_path ("a folder"), *words = scratch_path ("words.json");
  g_assert_cmpint (g_mkdir (folder, 0755), ==, 0);
  scratch_write (words, "{ not json", 10);
  const struct {
    const char *arguments[6];
    const char *part;
  } cases[] = {
    { { "show", "nobody" }, "there is no model named \"nobody\"" },
    { { "show", nothing }, "there is no model named" },
    { { "show", folder }, "is a folder: import it first" },
    { { "chat", "nobody", "--prompt", "x" }, "there is no model named" },
    { { "import", nothing }, "cannot open" },
    { { "import", folder }, "there is no .gguf model in" },
    { { "import", words }, "is neither a GGUF file nor an archive" },
    { { "import", "/dev/null" }, "is not a file" },
    { { "import", tiny (), "--name", "a/b" }, "cannot be a model's name" },
    { { "import", tiny (), "--name", "" }, "cannot be a model's name" },
    { { "import", tiny (), "--name", "\xff" }, "cannot be a model's name" },
    { { "import", tiny (), "--name", "small" }, "there already is a model named \"small\"" },
    { { "chat", "small", "--prompt", "x", "--context", "1000" }, "a context of 256 tokens at most, not 1000" },
    { { "plan", "tiny", "--bpw", "4", "--context", "1000" }, "a context of 256 tokens at most, not 1000" },
    { { "eval", "small", "--text", nothing }, "cannot be read" },
    { { "fit", "tiny", "--bpw", "4", "--calibration", nothing }, "cannot be read" },
    { { "render", "small", "--messages", words }, "does not hold a JSON list" },
    { { "render", "small", "--messages", nothing }, "does not hold a JSON list" },
    { { "render", "--template", nothing, "--messages", words }, "cannot be read" },
  };
  for (guint i = 0; i < G_N_ELEMENTS (cases); i++) {
    const char *const *a = cases[i].arguments;
    g_test_message ("case %u: valise %s", i, a[0]);
    g_autoptr (ProgramRun) run = program_run (home (), a[0], a[1], a[2], a[3], a[4], a[5], NULL);
    program_expect_failure (run, 1, cases[i].part);
  }
}

static void test_sizes (void)
{
  static const struct {
    const char *text;
    gint64 bytes;
  } sizes[] = { { "96M", 96000000 }, { "1.5G", 1500000000 }, { "900MiB", 943718400 }, { "20000000", 20000000 } };
  for (guint i = 0; i < G_N_ELEMENTS (sizes); i++) {
    g_autoptr (ProgramRun) run = program_run (home (), "plan", "tiny", "--ram", sizes[i].text, "--json", NULL);
    expect_plan (program_object (run));
    g_assert_cmpint (int_of (program_object (run), "total_bytes"), <=, sizes[i].bytes);
  }
}

/* Output that cannot be written is an error, whatever its form. */
static void test_full_output (void)
{
  static const char *const commands[] = { "list > /dev/full", "list --json > /dev/full", "show small > /dev/full", "hardware > /dev/full",
                                          "--help > /dev/full", "chat small --prompt x --max-tokens 3 > /dev/full", "list >&-", "list --json >&- <&-" };
  for (guint i = 0; i < G_N_ELEMENTS (commands); i++) {
    g_autofree char *line = g_strdup_printf ("VALISE_HOME='%s' '%s' %s", home (), g_getenv ("VALISE_PROGRAM"), commands[i]);
    const char *shell[] = { "/bin/sh", "-c", line, NULL };
    g_autoptr (GError) error = NULL;
    g_autofree char *err = NULL;
    int status;
    g_assert_true (g_spawn_sync (NULL, (char **) shell, NULL, G_SPAWN_STDOUT_TO_DEV_NULL, NULL, NULL, NULL, &err, &status, &error));
    g_assert_no_error (error);
    g_test_message ("%s: %s", commands[i], err);
    g_assert_true (WIFEXITED (status) && WEXITSTATUS (status) == 1);
    g_assert_nonnull (strstr (err, "valise: stdout cannot be written"));
  }
}

int main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  static const char *const kinds[] = { "file", "folder", "tiny.zip", "tiny.whl", "tiny.tar", "tiny.tar.gz", "tiny.tar.bz2", "tiny.tar.xz", "tiny.tar.zst" };
  for (guint i = 0; i < G_N_ELEMENTS (kinds); i++) {
    g_autofree char *name = g_strconcat ("/first-light/import/", kinds[i], NULL);
    g_test_add_data_func (name, kinds[i], test_import);
  }
  g_test_add_func ("/first-light/hardware", test_hardware);
  g_test_add_func ("/first-light/list-and-show", test_list);
  g_test_add_func ("/first-light/plan-keeps-to-every-target", test_plan);
  g_test_add_func ("/first-light/plan-counts-all-parts", test_plan_parts);
  g_test_add_func ("/first-light/names-the-smallest-budget", test_too_small);
  g_test_add_func ("/first-light/fit-is-what-was-planned", test_fit);
  g_test_add_func ("/first-light/fit-to-a-file", test_fit_to_file);
  g_test_add_func ("/first-light/chat-repeats-for-a-seed", test_chat);
  g_test_add_func ("/first-light/chat-obeys-a-grammar-or-a-schema", test_chat_grammar);
  g_test_add_func ("/first-light/pictures-are-said", test_chat_pictures);
  g_test_add_func ("/first-light/chat-goes-on-where-it-was", test_chat_session);
  g_test_add_func ("/first-light/chat-with-guesses-answers-the-same", test_chat_draft);
  g_test_add_func ("/first-light/conversation", test_conversation);
  g_test_add_func ("/first-light/removed-meanwhile", test_removed_meanwhile);
  g_test_add_func ("/first-light/render-and-tokenize", test_render_and_tokenize);
  g_test_add_func ("/first-light/eval", test_eval);
  g_test_add_func ("/first-light/bench", test_bench);
  g_test_add_func ("/first-light/export", test_export);
  g_test_add_func ("/first-light/export-for-other-programs", test_export_plain);
  g_test_add_func ("/first-light/verify-and-remove", test_verify_and_remove);
  g_test_add_func ("/first-light/usage-errors", test_usage);
  g_test_add_func ("/first-light/failures", test_failures);
  g_test_add_func ("/first-light/sizes", test_sizes);
  g_test_add_func ("/first-light/full-output", test_full_output);
  int status = g_test_run ();
  scratch_clean ();
  return status;
}
