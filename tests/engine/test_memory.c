/* test_memory.c: the plan against what a session really takes. */
#include "engine/memory_plan.h"
#include "tests/fixtures/tiny_model.h"

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
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/memory/plan-is-what-a-session-takes", test_plan_is_kept);
  g_test_add_func ("/memory/plan-follows-the-options", test_plan_grows);
  g_test_add_func ("/memory/machine-is-measured", test_machine);
  int result = g_test_run ();
  tiny_model_clean ();
  return result;
}
