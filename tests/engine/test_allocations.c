/* test_allocations.c: nothing is allocated per token: the C library's own functions are counted while a text is generated. */
#include "engine/batch.h"
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

/* ---- answers ---------------------------------------------------------------------------------------------------------------- */

enum { MARKS = 8, BETWEEN = 24 /* tokens */ };

typedef struct {
  GMutex mutex;
  GCond cond;
  guint n_texts, n_marks, marks[MARKS]; /* allocations when so many texts had been given */
  gboolean done;
} Heard;

/* Texts of whole characters: about as many as tokens. */
static void hear (EngTextKind kind, const char *text, gpointer data)
{
  Heard *heard = data;
  if (heard->n_texts++ % BETWEEN == 0 && heard->n_marks < MARKS)
    heard->marks[heard->n_marks++] = n_allocations;
}

static void end (const EngBatchStats *stats, const GError *error, gpointer data)
{
  Heard *heard = data;
  g_assert_no_error (error);
  g_mutex_lock (&heard->mutex);
  heard->done = TRUE;
  g_cond_signal (&heard->cond);
  g_mutex_unlock (&heard->mutex);
}

/* Allocations from the first text's to the last mark's, of an answer that a batch writes alone: everything but HTTP is in them. */
static guint count_answer (EngModel *model, EngWorkers *workers, const EngAnswerOptions *options)
{
  EngSessionOptions session = { .n_ctx = 320, .n_sessions = 2, .batch = 32 };
  g_autoptr (EngBatch) batch = eng_batch_new (model, workers, &session, 2, NULL);
  g_autoptr (GArray) prompt = g_array_new (FALSE, FALSE, sizeof (gint32));
  Heard heard = { 0 };
  g_mutex_init (&heard.mutex);
  g_cond_init (&heard.cond);
  for (gint32 i = 0; i < 40; i++) {
    gint32 token = 20 + i;
    g_array_append_val (prompt, token);
  }
  EngTicket *ticket = eng_batch_ask (batch, prompt, options, hear, end, &heard, NULL);
  g_mutex_lock (&heard.mutex);
  while (!heard.done)
    g_cond_wait (&heard.cond, &heard.mutex);
  g_mutex_unlock (&heard.mutex);
  eng_ticket_unref (ticket);
  g_mutex_clear (&heard.mutex);
  g_cond_clear (&heard.cond);
  g_assert_cmpuint (heard.n_marks, >, 3);
  return heard.marks[heard.n_marks - 1] - heard.marks[1];
}

/* A whole answer's way: sampler with every step on, grammar, stops, text out of tokens, reasoning and calls looked for. */
static void test_answers (void)
{
  if (!COUNTS_ALLOCATIONS) {
    g_test_skip ("allocations cannot be counted in this build");
    return;
  }
  static const EngLogitBias endless[] = { { TINY_IM_END, -G_MAXFLOAT }, { TINY_BOS, -G_MAXFLOAT }, { TINY_IM_START, -G_MAXFLOAT } };
  static const char *const stops[] = { "never written", NULL };
  TinyModel tiny = TINY_MODEL_DEFAULTS;
  g_autofree char *path = tiny_model_path ("answers.gguf");
  tiny_model_write (&tiny, path);
  g_autoptr (GError) error = NULL;
  g_autoptr (EngModel) model = eng_model_open (path, &error);
  g_assert_no_error (error);
  g_autoptr (EngWorkers) workers = eng_workers_new (2);
  g_autoptr (EngGrammar) letters = eng_grammar_new ("root ::= [a-z ]+", &error);
  g_assert_no_error (error);
  g_autoptr (JsonNode) tools = json_from_string ("[{\"type\": \"function\", \"function\": {\"name\": \"f\"}}]", NULL);
  EngAnswerOptions plain = { .sampling = { 1, 40, 0.95f, 0.02f, 1.1f, 64, 5 } }, all;
  plain.sampling.biases = endless;
  plain.sampling.n_biases = G_N_ELEMENTS (endless);
  all = plain;
  all.sampling.frequency_penalty = all.sampling.presence_penalty = 0.1f;
  all.sampling.dry_multiplier = 0.5f;
  all.sampling.top_n_sigma = 3;
  all.sampling.typical_p = 0.98f;
  all.sampling.xtc_probability = 0.5f;
  all.sampling.xtc_threshold = 0.1f;
  all.sampling.dynamic_range = 0.3f;
  g_assert_cmpuint (count_answer (model, workers, &plain), ==, 0);
  g_assert_cmpuint (count_answer (model, workers, &all), ==, 0);
  for (int version = 1; version <= 2; version++) {
    EngAnswerOptions mirostat = plain;
    mirostat.sampling.mirostat = version;
    g_assert_cmpuint (count_answer (model, workers, &mirostat), ==, 0);
  }
  all.stops = stops;
  all.tools = json_node_get_array (tools);
  g_assert_cmpuint (count_answer (model, workers, &all), ==, 0);
  plain.grammar = letters;
  g_assert_cmpuint (count_answer (model, workers, &plain), ==, 0);
}

int main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/allocations/none-per-token", test_tokens);
  g_test_add_func ("/allocations/none-per-token-of-an-answer", test_answers);
  int result = g_test_run ();
  tiny_model_clean ();
  return result;
}
