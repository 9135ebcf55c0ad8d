/* test_pool.c: sessions that share a decoder and pages: what they compute is what each would alone. */
#include "engine/error.h"
#include "engine/memory_plan.h"
#include "engine/pool.h"
#include "tests/fixtures/allocations.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { N_VOCAB = 128, PAGE = 32 };

static EngWorkers *workers;

static EngModel *open_model (const char *name)
{
  g_autofree char *file = g_strconcat (name, ".gguf", NULL), *path = g_test_build_filename (G_TEST_DIST, "fixtures", "decoders", file, NULL);
  g_autoptr (GError) error = NULL;
  EngModel *model = eng_model_open (path, &error);
  g_assert_no_error (error);
  return model;
}

static EngPool *open_pool (EngModel *model, EngSessionOptions options)
{
  g_autoptr (GError) error = NULL;
  options.activation_bits = 32;
  EngPool *pool = eng_pool_new (model, workers, &options, &error);
  g_assert_no_error (error);
  return pool;
}

static EngSession *open_session (EngPool *pool)
{
  g_autoptr (GError) error = NULL;
  EngSession *session = eng_pool_open (pool, 0, &error);
  g_assert_no_error (error);
  return session;
}

/* Token i of text `which`: the texts agree up to 50. */
static gint32 token_at (guint which, guint i)
{
  return (gint32)((i < 50 ? 37 * i + 5 : 37 * i + 5 + 11 * which) % 120);
}

static const gint32 *text (guint which)
{
  static gint32 texts[8][512];
  for (guint i = 0; i < 512; i++)
    texts[which][i] = token_at (which, i);
  return texts[which];
}

static void eval (EngSession *session, const gint32 *tokens, guint n)
{
  g_autoptr (GError) error = NULL;
  g_assert_true (eng_session_eval (session, tokens, n, FALSE, NULL, &error));
  g_assert_no_error (error);
}

/* Logits after the first n tokens of a text, computed alone in one batch. */
static float *alone (EngModel *model, guint which, guint n)
{
  g_autoptr (GError) error = NULL;
  EngSessionOptions options = { .n_ctx = 512, .activation_bits = 32 };
  g_autoptr (EngSession) session = eng_session_new (model, workers, &options, &error);
  g_assert_no_error (error);
  eval (session, text (which), n);
  return g_memdup2 (eng_session_logits (session), N_VOCAB * sizeof (float));
}

static void expect_logits (const float *a, const float *b)
{
  for (guint i = 0; i < N_VOCAB; i++)
    g_assert_cmpfloat (fabsf (a[i] - b[i]), <, 1e-3f);
}

static void expect_text (EngModel *model, EngSession *session, guint which)
{
  g_autofree float *expected = alone (model, which, eng_session_n_past (session));
  expect_logits (eng_session_logits (session), expected);
}

/* Three sessions at different places, one of them with a stretch of its prompt, pass after pass. */
static void test_together (gconstpointer name)
{
  g_autoptr (EngModel) model = open_model (name);
  g_autoptr (EngPool) pool = open_pool (model, (EngSessionOptions){ .n_ctx = 512, .n_sessions = 3, .batch = 40 });
  g_autoptr (EngSession) a = open_session (pool), b = open_session (pool), c = open_session (pool);
  g_autoptr (GError) error = NULL;
  eval (a, text (0), 3);
  eval (b, text (1), 61);
  for (guint step = 0; step < 8; step++) {
    EngPart parts[] = { { a, text (0) + 3 + step, 1, ENG_LOGITS_LAST },
                        { c, text (2) + 9 * step, 9, step % 3 == 0 ? ENG_LOGITS_ALL : step % 3 == 1 ? ENG_LOGITS_NONE : ENG_LOGITS_LAST },
                        { b, text (1) + 61 + 2 * step, 2, ENG_LOGITS_LAST } };
    g_assert_true (eng_pool_eval (pool, parts, 3, NULL, &error));
    g_assert_no_error (error);
    expect_text (model, a, 0);
    expect_text (model, b, 1);
    if (step % 3 != 1)
      expect_text (model, c, 2);
    if (step == 3) {
      g_autofree float *middle = alone (model, 2, 27 + 4);
      expect_logits (eng_session_logits_at (c, 3), middle);
    }
  }
  g_assert_cmpuint (eng_session_n_past (c), ==, 72);
  g_assert_cmpint (eng_session_tokens (b)[76], ==, token_at (1, 76));
}

/* 50 tokens are held once, two sessions part within a page, and neither writes into the other's. */
static void test_prefix (gconstpointer name)
{
  g_autoptr (EngModel) model = open_model (name);
  g_autoptr (EngPool) pool = open_pool (model, (EngSessionOptions){ .n_ctx = 256, .n_sessions = 3 });
  guint all = eng_pool_n_free (pool);
  g_autoptr (EngSession) a = open_session (pool), b = open_session (pool), c = open_session (pool);
  g_assert_cmpuint (eng_session_prepare (a, text (0), 100), ==, 0);
  eval (a, text (0), 100);
  g_assert_cmpuint (eng_pool_n_free (pool), ==, all - 4 * PAGE);
  g_assert_cmpuint (eng_session_prepare (b, text (1), 70), ==, 50);
  g_assert_cmpuint (eng_pool_n_free (pool), ==, all - 4 * PAGE);
  eval (b, text (1) + 50, 20);
  g_assert_cmpuint (eng_pool_n_free (pool), ==, all - 6 * PAGE);
  expect_text (model, b, 1);
  eval (a, text (0) + 100, 1);
  expect_text (model, a, 0);
  g_assert_cmpuint (eng_session_prepare (c, text (0), 90), ==, 90);
  eng_session_truncate (a, 40);
  eval (a, text (3) + 40, 30);
  expect_text (model, a, 3);
  eval (c, text (0) + 90, 5);
  expect_text (model, c, 0);
  eval (b, text (1) + 70, 5);
  expect_text (model, b, 1);
}

/* What a session leaves behind is there for the next that begins alike, until its pages are needed. */
static void test_remembered (void)
{
  g_autoptr (EngModel) model = open_model ("qwen2");
  g_autoptr (EngPool) pool = open_pool (model, (EngSessionOptions){ .n_ctx = 256, .n_sessions = 2 });
  guint all = eng_pool_n_free (pool);
  EngSession *a = open_session (pool), *short_one = open_session (pool);
  eval (short_one, text (0), 40); /* a first turn of few words */
  eng_session_free (short_one);
  g_assert_cmpuint (eng_session_prepare (a, text (0), 120), ==, 40);
  eval (a, text (0) + 40, 80);
  eng_session_free (a);
  g_assert_cmpuint (eng_pool_n_free (pool), ==, all);
  g_autoptr (EngSession) b = open_session (pool);
  g_assert_cmpuint (eng_session_prepare (b, text (0), 130), ==, 120);
  eval (b, text (0) + 120, 10);
  expect_text (model, b, 0);
  /* Another chat, and back to the first. */
  g_assert_cmpuint (eng_session_prepare (b, text (1), 100), ==, 50);
  eval (b, text (1) + 50, 50);
  expect_text (model, b, 1);
  g_assert_cmpuint (eng_session_prepare (b, text (0), 200), ==, 130);
  eval (b, text (0) + 130, 70);
  expect_text (model, b, 0);
  /* All pages for one: what was remembered goes. */
  eng_session_truncate (b, 0);
  eval (b, text (5), 256);
  g_autoptr (EngSession) c = open_session (pool);
  g_assert_cmpuint (eng_session_prepare (c, text (1), 100), ==, 50);
}

static void test_single_session_remembers (void)
{
  g_autoptr (EngModel) model = open_model ("llama");
  EngSessionOptions options = { .n_ctx = 256, .activation_bits = 32 };
  g_autoptr (EngSession) session = eng_session_new (model, workers, &options, NULL);
  eval (session, text (0), 110);
  g_assert_cmpuint (eng_session_prepare (session, text (1) + 60, 100), ==, 0);
  eval (session, text (1) + 60, 100);
  g_assert_cmpuint (eng_session_prepare (session, text (0), 120), ==, 110);
  eval (session, text (0) + 110, 10);
  expect_text (model, session, 0);
}

static void test_full (void)
{
  g_autoptr (EngModel) model = open_model ("llama");
  g_autoptr (EngPool) pool = open_pool (model, (EngSessionOptions){ .n_ctx = 128, .n_sessions = 2 });
  g_autoptr (EngSession) a = open_session (pool);
  EngSession *b = open_session (pool);
  g_autoptr (GError) busy = NULL, full = NULL, twice = NULL, wide = NULL;
  g_assert_null (eng_pool_open (pool, 0, &busy));
  g_assert_error (busy, ENG_ERROR, ENG_ERROR_BUSY);
  eval (a, text (0), 100);
  eval (b, text (1), 30);
  EngPart parts[] = { { a, text (0) + 100, 1, ENG_LOGITS_LAST }, { b, text (1) + 30, 10, ENG_LOGITS_LAST } };
  g_assert_false (eng_pool_eval (pool, parts, 2, NULL, &full));
  g_assert_error (full, ENG_ERROR, ENG_ERROR_MEMORY);
  g_assert_cmpuint (eng_session_n_past (a), ==, 100);
  eval (a, text (0) + 100, 1);
  expect_text (model, a, 0);
  eval (b, text (1) + 30, 2);
  expect_text (model, b, 1);
  parts[1].session = a;
  g_assert_false (eng_pool_eval (pool, parts, 2, NULL, &twice));
  g_assert_error (twice, ENG_ERROR, ENG_ERROR_ARGUMENT);
  parts[0].n = 129;
  g_assert_false (eng_pool_eval (pool, parts, 1, NULL, &wide));
  eng_session_free (b);
  g_assert_cmpuint (eng_pool_n_free (pool), ==, PAGE);
  eval (a, text (0) + 101, 27);
  expect_text (model, a, 0);
}

/* Layers with a window keep what two windows and a batch take; going back further than that computes again, and nobody sees it. */
static void test_window (gconstpointer name)
{
  g_autoptr (EngModel) model = open_model (name);
  EngSessionOptions options = { .n_ctx = 512, .batch = 16, .activation_bits = 32, .kv_bits = 16 }, short_one = { .n_ctx = 64, .batch = 16, .kv_bits = 16 };
  EngMemoryPlan plan, shorter;
  eng_memory_plan (&plan, eng_model_traits (model), 0, &options, 2, 0);
  eng_memory_plan (&shorter, eng_model_traits (model), 0, &short_one, 2, 0);
  g_assert_cmpuint (plan.kv_bytes, <, shorter.kv_bytes * (g_str_equal (name, "mistral") ? 2 : 5));
  g_autoptr (EngSession) session = eng_session_new (model, workers, &options, NULL);
  const guint backs[] = { 1, 5, 40, 150, 199 };
  for (guint i = 0; i < G_N_ELEMENTS (backs); i++) {
    g_autofree float *expected = alone (model, 4, 200);
    eng_session_truncate (session, 200 - backs[i]);
    eval (session, text (4) + eng_session_n_past (session), 200 - eng_session_n_past (session));
    g_assert_cmpuint (eng_session_n_past (session), ==, 200);
    expect_logits (eng_session_logits (session), expected);
    for (guint j = 200; j < 230; j++)
      eval (session, text (4) + j, 1);
    expect_text (model, session, 4);
    g_autoptr (GCancellable) cancelled = g_cancellable_new ();
    g_cancellable_cancel (cancelled);
    g_assert_false (eng_session_eval (session, text (4) + 230, 100, FALSE, cancelled, NULL));
    eval (session, text (4) + 230, 1);
    expect_text (model, session, 4);
    eng_session_truncate (session, 200);
  }
}

/* ---- allocations --------------------------------------------------------------------------------------------------------- */

static void test_allocations (void)
{
  if (!COUNTS_ALLOCATIONS) {
    g_test_skip ("the sanitizer allocates");
    return;
  }
  const char *names[] = { "llama", "gemma3", "qwen3moe", "deepseek3" };
  for (guint i = 0; i < G_N_ELEMENTS (names); i++) {
    g_autoptr (EngModel) model = open_model (names[i]);
    g_autoptr (EngPool) pool = open_pool (model, (EngSessionOptions){ .n_ctx = 640, .n_sessions = 2, .batch = 64 });
    g_autoptr (EngSession) a = open_session (pool), b = open_session (pool);
    eval (a, text (0), 10);
    guint before = n_allocations;
    g_free (g_malloc (10));
    g_assert_cmpuint (n_allocations, ==, before + 1); /* the counter counts */
    before = n_allocations;
    for (guint j = 10; j < 200; j++) {
      EngPart parts[] = { { a, text (0) + j, 1, ENG_LOGITS_LAST }, { b, text (1) + j, 1, ENG_LOGITS_LAST } };
      g_assert_true (eng_pool_eval (pool, parts, 2, NULL, NULL));
      g_assert_true (eng_session_eval (a, text (0) + j, 1, FALSE, NULL, NULL));
    }
    g_assert_cmpuint (n_allocations, ==, before);
  }
}

int main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  workers = eng_workers_new (2);
  g_test_add_data_func ("/pool/together-as-each-alone", "llama", test_together);
  g_test_add_data_func ("/pool/together-with-windows", "gemma3", test_together);
  g_test_add_data_func ("/pool/together-with-experts", "qwen3moe", test_together);
  g_test_add_data_func ("/pool/fused-together", "phi3", test_together);
  g_test_add_data_func ("/pool/latent-together", "deepseek3", test_together);
  g_test_add_data_func ("/pool/sinks-and-windows-together", "gpt_oss", test_together);
  g_test_add_data_func ("/pool/slopes-together", "bloom", test_together);
  g_test_add_data_func ("/pool/prefix-is-held-once", "llama", test_prefix);
  g_test_add_data_func ("/pool/prefix-with-windows", "gemma3", test_prefix);
  g_test_add_func ("/pool/ended-sessions-are-remembered", test_remembered);
  g_test_add_func ("/pool/a-single-session-remembers", test_single_session_remembers);
  g_test_add_func ("/pool/full-leaves-all-as-before", test_full);
  g_test_add_data_func ("/pool/windows-keep-their-window", "mistral", test_window);
  g_test_add_data_func ("/pool/windows-among-others", "gemma3", test_window);
  g_test_add_func ("/pool/nothing-is-allocated-per-token", test_allocations);
  int result = g_test_run ();
  eng_workers_free (workers);
  return result;
}
