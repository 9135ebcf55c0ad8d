/* test_evaluate.c: the protocol, recomputed token by token; and the reference model against llama-perplexity's figure. */
#include "engine/error.h"
#include "engine/evaluate.h"
#include "tests/fixtures/tiny_model.h"

#include <math.h>
#include <string.h>

enum { N_CTX = 16, N_CHUNKS = 3 };

static EngWorkers *workers;

static EngModel *open_model (const TinyModel *tiny, const char *name)
{
  g_autofree char *path = tiny_model_path (name);
  g_autoptr (GError) error = NULL;
  tiny_model_write (tiny, path);
  EngModel *model = eng_model_open (path, &error);
  g_assert_no_error (error);
  return model;
}

/* 3 chunks and a remainder that is dropped: no letter of it merges, so a byte is a token. */
static char *make_text (void)
{
  char *text = g_new0 (char, N_CTX *N_CHUNKS + 6);
  for (guint i = 0; i < N_CTX * N_CHUNKS + 5; i++)
    text[i] = "abcfgjkmpqsuvxyz"[i * i % 31 % 16];
  return text;
}

/* By the definition: positions 8 .. 14 of each chunk of 16 predict the token after them; fresh context per chunk. */
static double slow_ppl (EngModel *model, const char *text)
{
  g_autoptr (GArray) tokens = g_array_new (FALSE, FALSE, sizeof (gint32));
  EngSessionOptions options = { .n_ctx = N_CTX, .kv_bits = 16, .activation_bits = 32 };
  double nll = 0;
  eng_tokenizer_encode (eng_model_tokenizer (model), text, -1, ENG_TOKENIZE_PLAIN, tokens);
  g_assert_cmpuint (tokens->len, ==, N_CTX * N_CHUNKS + 5);
  for (guint chunk = 0; chunk < N_CHUNKS; chunk++) {
    g_autoptr (EngSession) session = eng_session_new (model, workers, &options, NULL);
    gint32 *t = &g_array_index (tokens, gint32, chunk * N_CTX);
    for (guint i = 0; i < N_CTX - 1; i++) {
      g_assert_true (eng_session_eval (session, t + i, 1, FALSE, NULL, NULL));
      const float *logits = eng_session_logits (session);
      double sum = 0;
      for (guint j = 0; j < TINY_VOCAB; j++)
        sum += exp (logits[j]);
      if (i >= N_CTX / 2)
        nll += log (sum) - logits[t[i + 1]];
    }
  }
  return exp (nll / (N_CHUNKS * (N_CTX / 2 - 1)));
}

static void test_protocol (void)
{
  TinyModel tiny = TINY_MODEL_DEFAULTS;
  g_autoptr (EngModel) model = open_model (&tiny, "model.gguf");
  g_autofree char *text = make_text ();
  g_autoptr (GError) error = NULL;
  EngEvaluation result;
  g_assert_true (eng_evaluate (model, NULL, workers, text, strlen (text), N_CTX, 0, 32, 16, &result, NULL, NULL, NULL, &error));
  g_assert_cmpuint (result.tokens, ==, N_CHUNKS * (N_CTX / 2 - 1));
  g_assert_false (result.has_reference);
  g_assert_cmpfloat_with_epsilon (result.ppl, slow_ppl (model, text), result.ppl * 1e-4);
  g_assert_true (eng_evaluate (model, NULL, workers, text, strlen (text), N_CTX, 2, 32, 16, &result, NULL, NULL, NULL, &error));
  g_assert_cmpuint (result.tokens, ==, 2 * (N_CTX / 2 - 1));
}

static void test_divergence (void)
{
  TinyModel tiny = TINY_MODEL_DEFAULTS;
  g_autoptr (EngModel) reference = open_model (&tiny, "reference.gguf");
  g_autofree char *text = make_text ();
  EngEvaluation same, eight, three;
  g_assert_true (
      eng_evaluate (reference, reference, workers, text, strlen (text), N_CTX, 0, 32, 16, &same, NULL, NULL, NULL, NULL));
  g_assert_true (same.has_reference);
  g_assert_cmpfloat (fabs (same.kl_mean), <, 1e-12);
  g_assert_cmpfloat (same.top1_agreement, ==, 1);
  tiny.depth = 8;
  g_autoptr (EngModel) model8 = open_model (&tiny, "eight.gguf");
  tiny.depth = 3;
  g_autoptr (EngModel) model3 = open_model (&tiny, "three.gguf");
  g_assert_true (eng_evaluate (model8, reference, workers, text, strlen (text), N_CTX, 0, 8, 16, &eight, NULL, NULL, NULL, NULL));
  g_assert_true (eng_evaluate (model3, reference, workers, text, strlen (text), N_CTX, 0, 8, 16, &three, NULL, NULL, NULL, NULL));
  g_assert_cmpfloat (eight.kl_mean, >, 0);
  g_assert_cmpfloat (three.kl_mean, >, 10 * eight.kl_mean);
  g_assert_cmpfloat (three.kl_p99, >=, three.kl_mean);
  g_assert_cmpfloat (three.kl_max, >=, three.kl_p99);
  g_assert_cmpfloat (three.top1_agreement, <, 1);
}

static void test_refusals (void)
{
  TinyModel tiny = TINY_MODEL_DEFAULTS;
  g_autoptr (EngModel) model = open_model (&tiny, "refusals.gguf");
  g_autoptr (GError) text_error = NULL, chunk_error = NULL, cancel_error = NULL;
  g_autoptr (GCancellable) cancellable = g_cancellable_new ();
  EngEvaluation result;
  g_assert_false (eng_evaluate (model, NULL, workers, "abc", 3, N_CTX, 0, 32, 16, &result, NULL, NULL, NULL, &text_error));
  g_assert_error (text_error, ENG_ERROR, ENG_ERROR_ARGUMENT);
  g_assert_false (eng_evaluate (model, NULL, workers, "abcabcabc", 9, 2, 0, 32, 16, &result, NULL, NULL, NULL, &chunk_error));
  g_assert_error (chunk_error, ENG_ERROR, ENG_ERROR_ARGUMENT);
  g_cancellable_cancel (cancellable);
  g_assert_false (
      eng_evaluate (model, NULL, workers, "abcabcabcabc", 12, 4, 0, 32, 16, &result, NULL, NULL, cancellable, &cancel_error));
  g_assert_error (cancel_error, ENG_ERROR, ENG_ERROR_CANCELLED);
}

/* llama-perplexity on the same file, text and chunks (-c 512 --chunks 3) says 31.0731; only for the files that figure is of. */
static void test_reference (void)
{
  const char *model_path = g_getenv ("VALISE_REFERENCE"), *text_path = g_getenv ("VALISE_TEXT");
  g_autofree char *text = NULL;
  g_autoptr (GError) error = NULL;
  gsize length;
  if (model_path == NULL || text_path == NULL) {
    g_test_skip ("VALISE_REFERENCE and VALISE_TEXT do not name the float reference and the evaluation text");
    return;
  }
  g_autoptr (EngModel) model = eng_model_open (model_path, &error);
  g_assert_no_error (error);
  g_file_get_contents (text_path, &text, &length, &error);
  g_assert_no_error (error);
  if (eng_gguf_file_bytes (eng_model_gguf (model)) != 270885920 || length != 1287656) {
    g_test_skip ("VALISE_REFERENCE or VALISE_TEXT is not the file that the peer's figure is of");
    return;
  }
  EngEvaluation result;
  g_assert_true (eng_evaluate (model, NULL, workers, text, length, 512, 3, 32, 16, &result, NULL, NULL, NULL, &error));
  g_assert_cmpuint (result.tokens, ==, 3 * 255);
  g_assert_cmpfloat_with_epsilon (result.ppl, 31.0731, 31.0731 * 0.005);
}

int main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  workers = eng_workers_new (2);
  g_test_add_func ("/evaluate/scores-the-second-half", test_protocol);
  g_test_add_func ("/evaluate/divergence-grows-with-the-error", test_divergence);
  g_test_add_func ("/evaluate/refuses-what-cannot-be-scored", test_refusals);
  g_test_add_func ("/evaluate/reference-equals-the-peer", test_reference);
  int result = g_test_run ();
  eng_workers_free (workers);
  tiny_model_clean ();
  return result;
}
