/* test_memory.c: the plan against what a session, and a whole program, really takes. */
#include "engine/memory_plan.h"
#include "engine/sampler.h"
#include "kernels/cpu.h"
#include "tests/fixtures/sanitized.h"
#include "tests/fixtures/tiny_model.h"
#include "tests/fixtures/wide_model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *self;

/* A model whose KV and scratch (tens of MB) dwarf the noise of a test program. */
static void test_plan_is_kept (void)
{
  TinyModel tiny = TINY_MODEL_DEFAULTS;
  tiny.n_heads = tiny.n_kv_heads = 16;
  tiny.head_dim = 64;
  tiny.n_ff = 1024;
  tiny.depth = 4;
  g_autofree char *path = tiny_model_path ("memory.gguf");
  g_autoptr (GError) error = NULL;
  tiny_model_write (&tiny, path);
  g_autoptr (EngModel) model = eng_model_open (path, &error);
  g_assert_no_error (error);
  g_autoptr (EngWorkers) workers = eng_workers_new (2);
  g_autofree gint32 *tokens = g_new0 (gint32, 1024);
  for (int bits = 16; bits >= 4; bits /= 2) {
    EngSessionOptions options = { .n_ctx = 1024, .batch = 256, .kv_bits = bits };
    EngMemoryPlan plan;
    eng_memory_plan (&plan, eng_model_traits (model), 0, &options, 2, 0);
    g_assert_cmpuint (plan.total_bytes, ==, plan.weights_bytes + plan.kv_bytes + plan.scratch_bytes + plan.program_bytes);
    guint64 before = eng_memory_rss ();
    g_autoptr (EngSession) session = eng_session_new (model, workers, &options, &error);
    g_assert_no_error (error);
    guint64 created = eng_memory_rss () - before;
    g_assert_true (eng_session_eval (session, tokens, 512, FALSE, NULL, &error));
    guint64 half = eng_memory_rss () - before;
    g_assert_true (eng_session_eval (session, tokens, 512, FALSE, NULL, &error));
    guint64 full = eng_memory_rss () - before, planned = plan.kv_bytes + plan.scratch_bytes;
    g_test_message ("KV of %d bits: created %.2f MB, half %.2f, full %.2f, planned %.2f", bits, created / 1e6, half / 1e6,
                    full / 1e6, planned / 1e6);
    /* Touched only as the context fills; full, within 5% and a megabyte for the weights read on the way. */
    g_assert_cmpuint (created, <, planned / 4);
    g_assert_cmpuint (full - half, >, plan.kv_bytes / 3);
    g_assert_cmpuint (full, <, planned + planned / 20 + plan.weights_bytes + 1000000);
    g_assert_cmpuint (full + planned / 20 + 1000000, >, planned);
  }
}

static void test_plan_grows (void)
{
  EngTraits traits = { .n_layers = 30,
                       .n_embd = 576,
                       .n_ff = 1536,
                       .n_heads = 9,
                       .n_kv_heads = 3,
                       .head_dim = 64,
                       .value_dim = 64,
                       .n_rot = 64,
                       .n_vocab = 49152,
                       .file_bytes = 90000000 };
  EngSessionOptions small = { .n_ctx = 1024, .kv_bits = 16 }, large = { .n_ctx = 2048, .kv_bits = 16 },
                    eight = { .n_ctx = 1024, .kv_bits = 8 };
  EngMemoryPlan a, b, c, d;
  eng_memory_plan (&a, &traits, 0, &small, 2, 5000000);
  eng_memory_plan (&b, &traits, 0, &large, 2, 5000000);
  eng_memory_plan (&c, &traits, 0, &eight, 2, 5000000);
  eng_memory_plan (&d, &traits, 80000000, &small, 2, 6000000);
  g_assert_cmpuint (a.weights_bytes, ==, 90000000);
  g_assert_cmpuint (a.kv_bytes, >=, 1024 * 30 * 3 * 64 * 2 * 2);
  g_assert_cmpuint (b.kv_bytes, >, a.kv_bytes * 19 / 10);
  g_assert_cmpuint (c.kv_bytes, <, a.kv_bytes * 6 / 10);
  g_assert_cmpuint (a.total_bytes - d.total_bytes, ==, 9000000);
  g_assert_cmpuint (a.total_bytes, <, 160000000);
}

/* ---- a program of its own ------------------------------------------------------------------------------------------------ */

/* Every page is read, as it would be in the course of time: of the embedding a prompt reads the rows of its tokens only. */
static guint read_all (const EngGguf *gguf)
{
  guint sum = 0;
  for (guint i = 0; i < eng_gguf_n_tensors (gguf); i++)
    for (guint64 at = 0; at < eng_gguf_tensor (gguf, i)->bytes; at += 4096)
      sum += eng_gguf_tensor (gguf, i)->data[at];
  return sum;
}

/* What a chat does, in this process: the model opened, a prompt that fills the context, the last few tokens drawn again. Prints the resident size before and
 * the peak. One thread: the others would wait for a share of the machine. */
static int chat_alone (const char *path, guint n_ctx, int bits)
{
  EngSamplerOptions sampling = { .temperature = 1, .top_p = 0.95f, .repeat_penalty = 1 }; /* of the whole vocabulary */
  EngSessionOptions options = { .n_ctx = n_ctx, .kv_bits = bits };
  guint64 base = eng_memory_rss ();
  g_autoptr (EngModel) model = eng_model_open (path, NULL);
  g_autoptr (EngWorkers) workers = eng_workers_new (1);
  g_autoptr (EngSession) session = model != NULL ? eng_session_new (model, workers, &options, NULL) : NULL;
  if (session == NULL)
    return 1;
  guint n_vocab = eng_model_traits (model)->n_vocab, prompt = n_ctx - 8;
  g_autoptr (EngSampler) sampler = eng_sampler_new (&sampling, n_vocab);
  g_autoptr (GArray) words = g_array_new (FALSE, FALSE, sizeof (gint32));
  eng_tokenizer_encode (eng_model_tokenizer (model), "The quick brown fox.", 20, ENG_TOKENIZE_PLAIN, words);
  g_autofree gint32 *tokens = g_new (gint32, n_ctx);
  for (guint i = 0; i < n_ctx; i++)
    tokens[i] = (gint32)((i * 7919u + 11) % n_vocab);
  if (!eng_session_eval (session, tokens, n_ctx, FALSE, NULL, NULL))
    return 1;
  eng_session_truncate (session, prompt);
  for (guint i = prompt; i < n_ctx; i++) {
    tokens[i] = eng_sampler_sample (sampler, eng_session_logits (session), eng_session_tokens (session), i);
    if (tokens[i] < 0 || !eng_session_eval (session, tokens + i, 1, FALSE, NULL, NULL))
      return 1;
  }
  volatile guint sum = read_all (eng_model_gguf (model));
  (void) sum;
  printf ("%" G_GUINT64_FORMAT " %" G_GUINT64_FORMAT "\n", base, eng_memory_peak_rss ());
  return 0;
}

/* The plan, made from the header alone, is never below the peak and at most 3% above it. */
static void check_program (const char *path, const char *name, guint n_ctx, int bits)
{
  g_autoptr (EngGguf) gguf = eng_gguf_open (path, NULL);
  EngTraits traits;
  EngMemoryPlan plan;
  g_assert_true (eng_traits_read (&traits, gguf, NULL));
  n_ctx = traits.learned_positions ? MIN (n_ctx, traits.n_ctx_train) : n_ctx;
  EngSessionOptions options = { .n_ctx = n_ctx, .kv_bits = bits };
  g_autofree char *n = g_strdup_printf ("%u", n_ctx), *depth = g_strdup_printf ("%d", bits), *answer = NULL;
  const char *argv[] = { self, "--chat-alone", path, n, depth, NULL };
  int status;
  g_assert_true (g_spawn_sync (NULL, (char **)argv, NULL, G_SPAWN_DEFAULT, NULL, NULL, &answer, NULL, &status, NULL));
  if (status != 0)
    g_error ("%s, %u tokens, %d bits: the chat failed", name, n_ctx, bits);
  char *end;
  guint64 base = g_ascii_strtoull (answer, &end, 10), peak = g_ascii_strtoull (end, NULL, 10);
  eng_memory_plan (&plan, &traits, 0, &options, 1, base);
  g_test_message ("%s, %u tokens, %d bits: peak %.3f MB, planned %.3f, %.2f%%", name, n_ctx, bits, peak / 1e6, plan.total_bytes / 1e6,
                  100.0 * plan.total_bytes / peak - 100);
  if (plan.total_bytes < peak || plan.total_bytes > peak + peak * 3 / 100)
    g_test_fail_printf ("%s, %u tokens, %d bits: planned %" G_GUINT64_FORMAT ", measured %" G_GUINT64_FORMAT, name, n_ctx, bits, plan.total_bytes, peak);
}

/* Each decoder of the fixtures, as wide as heads need to be for every depth and with the vocabulary of a real model. */
static void test_architectures (void)
{
  enum { FACTOR = 8, N_VOCAB = 49152 };
  const guint contexts[] = { 64, 512 };
  g_autofree char *folder = g_test_build_filename (G_TEST_DIST, "fixtures", "decoders", NULL), *path = tiny_model_path ("wide.gguf");
  g_autoptr (GDir) dir = g_dir_open (folder, 0, NULL);
  if (IS_SANITIZED) {
    g_test_skip ("a sanitizer takes memory of its own");
    return;
  }
  for (const char *file; (file = g_dir_read_name (dir)) != NULL;) {
    g_autofree char *fixture = g_build_filename (folder, file, NULL);
    if (!g_str_has_suffix (file, ".gguf"))
      continue;
    wide_model_write (fixture, FACTOR, N_VOCAB, path);
    for (guint i = 0; i < G_N_ELEMENTS (contexts); i++)
      for (int bits = 16; bits >= 4; bits /= 2)
        check_program (path, file, contexts[i], bits);
  }
}

/* A packed model, whose cache is most of it. */
static void test_depths (void)
{
  TinyModel tiny = TINY_MODEL_DEFAULTS;
  tiny.n_layers = 16;
  tiny.n_embd = 256;
  tiny.n_heads = tiny.n_kv_heads = 16;
  tiny.head_dim = 64;
  tiny.n_ff = 1024;
  tiny.depth = 4;
  g_autofree char *path = tiny_model_path ("program.gguf");
  if (IS_SANITIZED) {
    g_test_skip ("a sanitizer takes memory of its own");
    return;
  }
  tiny_model_write (&tiny, path);
  for (int bits = 16; bits >= 4; bits /= 2)
    check_program (path, "packed", 1024, bits);
}

static void test_machine (void)
{
  guint64 total, available;
  eng_memory_machine (&total, &available);
  g_assert_cmpuint (total, >, 1000000);
  g_assert_cmpuint (available, <=, total);
  g_assert_cmpuint (available, >, 0);
  g_assert_cmpuint (eng_memory_rss (), >, 100000);
  g_assert_cmpuint (eng_memory_peak_rss (), >=, eng_memory_rss ());
}

int main (int argc, char **argv)
{
  self = argv[0];
  if (argc == 5 && g_str_equal (argv[1], "--chat-alone"))
    return xb_cpu_init () != NULL || chat_alone (argv[2], (guint)atoi (argv[3]), atoi (argv[4]));
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/memory/plan-is-what-a-session-takes", test_plan_is_kept);
  g_test_add_func ("/memory/plan-follows-the-options", test_plan_grows);
  g_test_add_func ("/memory/plan-holds-for-every-architecture", test_architectures);
  g_test_add_func ("/memory/plan-holds-for-every-depth", test_depths);
  g_test_add_func ("/memory/machine-is-measured", test_machine);
  int result = g_test_run ();
  tiny_model_clean ();
  return result;
}
