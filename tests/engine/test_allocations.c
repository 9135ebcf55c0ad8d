/* test_allocations.c: nothing is allocated per token: the C library's own functions are counted while a text is generated. */
#include "engine/draft.h"
#include "engine/sampler.h"
#include "tests/fixtures/allocations.h"
#include "tests/fixtures/tiny_model.h"

static EngSession *open_session (EngWorkers *workers, int kv_bits, int activation_bits)
{
  TinyModel tiny = TINY_MODEL_DEFAULTS;
  tiny.depth = 4;
  tiny.hadamard = 32;
  g_autofree char *path = tiny_model_path ("allocations.gguf");
  g_autoptr (GError) error = NULL;
  tiny_model_write (&tiny, path);
  g_autoptr (EngModel) model = eng_model_open (path, &error);
  g_assert_no_error (error);
  EngSessionOptions options = { .n_ctx = 320, .kv_bits = kv_bits, .activation_bits = activation_bits, .n_drafted = 8 };
  EngSession *session = eng_session_new (model, workers, &options, &error);
  g_assert_no_error (error);
  return session;
}

/* Allocations while n tokens are drawn, computed and turned into text. */
static guint count (EngSession *session, EngSampler *sampler, EngDetokenizer *detokenizer, guint n)
{
  guint before = n_allocations;
  for (guint i = 0; i < n; i++) {
    gint32 token = eng_sampler_sample (sampler, eng_session_logits (session), eng_session_tokens (session), eng_session_n_past (session));
    g_assert_nonnull (eng_detokenizer_push (detokenizer, token));
    g_assert_true (eng_session_eval (session, &token, 1, FALSE, NULL, NULL));
  }
  return n_allocations - before;
}

static void check (EngWorkers *workers, int kv_bits, int activation_bits, gboolean drafts)
{
  EngSamplerOptions sampling = { .temperature = 1, .top_k = 40, .top_p = 0.95f, .min_p = 0.05f, .repeat_penalty = 1.1f, .repeat_last_n = 64, .seed = 3 };
  g_autoptr (EngSession) session = open_session (workers, kv_bits, activation_bits);
  g_autoptr (EngSampler) sampler = eng_sampler_new (&sampling, TINY_VOCAB);
  EngDetokenizer *detokenizer = eng_detokenizer_new (eng_model_tokenizer (eng_session_model (session)));
  gint32 prompt[64];
  for (guint i = 0; i < 64; i++)
    prompt[i] = 10 + i % 8;
  if (drafts) {
    EngDraft *draft = eng_draft_new_lookup (8);
    eng_draft_set_always (draft);
    eng_session_set_draft (session, draft);
  }
  g_assert_true (eng_session_eval (session, prompt, 64, FALSE, NULL, NULL));
  count (session, sampler, detokenizer, 8);
  g_assert_cmpuint (count (session, sampler, detokenizer, 200), ==, 0);
  eng_detokenizer_free (detokenizer);
}

static void test_tokens (void)
{
  g_autoptr (EngWorkers) workers = eng_workers_new (2);
  guint before = n_allocations;
  g_free (g_malloc (1000));
  if (!COUNTS_ALLOCATIONS) {
    g_test_skip ("allocations cannot be counted in this build");
    return;
  }
  g_assert_cmpuint (n_allocations, >, before);
  for (int bits = 16; bits >= 4; bits /= 2)
    check (workers, bits, 8, FALSE);
  check (workers, 16, 32, FALSE);
  check (workers, 16, 8, TRUE);
}

int main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/allocations/none-per-token", test_tokens);
  int result = g_test_run ();
  tiny_model_clean ();
  return result;
}
