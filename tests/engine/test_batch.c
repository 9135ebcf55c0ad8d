/* test_batch.c: many answers at once: each says what it says alone, in the order in which they came, and whatever happens each ends exactly once. */
#include "engine/batch.h"
#include "engine/error.h"
#include "engine/generate.h"
#include "tests/fixtures/tiny_model.h"

#include <string.h>

static EngModel *model;
static EngWorkers *workers;

typedef struct {
  GMutex mutex;
  GCond cond;
  GString *text;
  guint n_done;
  const char *finish_reason;
  EngBatchStats stats;
  GError *error;
  guint place; /* among those that have ended */
  guint *n_ended;
  gboolean slow;  /* each text takes a while: an answer that others must wait for */
} Asked;

static void asked_init (Asked *asked, guint *n_ended)
{
  *asked = (Asked){ .text = g_string_new (NULL), .n_ended = n_ended };
  g_mutex_init (&asked->mutex);
  g_cond_init (&asked->cond);
}

static void asked_clear (Asked *asked)
{
  g_string_free (asked->text, TRUE);
  g_clear_error (&asked->error);
  g_mutex_clear (&asked->mutex);
  g_cond_clear (&asked->cond);
}

static void on_text (EngTextKind kind, const char *text, gpointer data)
{
  Asked *asked = data;
  g_mutex_lock (&asked->mutex);
  g_string_append (asked->text, text);
  g_cond_signal (&asked->cond);
  g_mutex_unlock (&asked->mutex);
  if (asked->slow)
    g_usleep (2000);
}

static void on_done (const EngBatchStats *stats, const GError *error, gpointer data)
{
  Asked *asked = data;
  g_mutex_lock (&asked->mutex);
  asked->n_done++;
  asked->stats = *stats;
  asked->finish_reason = stats->finish_reason;
  asked->error = error != NULL ? g_error_copy (error) : NULL;
  asked->place = asked->n_ended != NULL ? (*asked->n_ended)++ : 0; /* only the batch's thread is here */
  g_cond_signal (&asked->cond);
  g_mutex_unlock (&asked->mutex);
}

static void wait_for_end (Asked *asked)
{
  g_mutex_lock (&asked->mutex);
  while (asked->n_done == 0)
    g_cond_wait (&asked->cond, &asked->mutex);
  g_mutex_unlock (&asked->mutex);
}

static void wait_for_text (Asked *asked)
{
  g_mutex_lock (&asked->mutex);
  while (asked->text->len == 0 && asked->n_done == 0)
    g_cond_wait (&asked->cond, &asked->mutex);
  g_mutex_unlock (&asked->mutex);
}

static EngBatch *open_batch (guint n_ctx, guint n_sessions, guint n_waiting)
{
  g_autoptr (GError) error = NULL;
  EngSessionOptions options = { .kv_bits = 16 };
  options.n_ctx = n_ctx;
  options.n_sessions = n_sessions;
  options.batch = 32;
  EngBatch *batch = eng_batch_new (model, workers, &options, n_waiting, &error);
  g_assert_no_error (error);
  return batch;
}

/* `n` letters that depend on which, and one that all begin with. */
static GArray *prompt_of (guint which, guint n)
{
  GArray *tokens = g_array_new (FALSE, FALSE, sizeof (gint32));
  for (guint i = 0; i < n; i++) {
    gint32 token = (gint32) (20 + (i < 10 ? i : (i * (which + 3)) % 90));
    g_array_append_val (tokens, token);
  }
  return tokens;
}

/* No token ends the turn, so that only max_tokens or the context do. */
static const EngLogitBias endless[] = { { TINY_IM_END, -G_MAXFLOAT }, { TINY_BOS, -G_MAXFLOAT }, { TINY_IM_START, -G_MAXFLOAT } };

static EngAnswerOptions options_of (guint which, guint max_tokens)
{
  EngAnswerOptions options = { .sampling = ENG_SAMPLER_DEFAULTS, .max_tokens = max_tokens };
  options.sampling.seed = which + 1;
  options.sampling.temperature = 1;
  options.sampling.biases = endless;
  options.sampling.n_biases = G_N_ELEMENTS (endless);
  return options;
}

static EngTicket *ask (EngBatch *batch, Asked *asked, guint which, guint n_prompt, guint max_tokens, GError **error)
{
  g_autoptr (GArray) prompt = prompt_of (which, n_prompt);
  EngAnswerOptions options = options_of (which, max_tokens);
  return eng_batch_ask (batch, prompt, &options, on_text, on_done, asked, error);
}

/* What a session of its own makes of the same. */
static char *alone (guint which, guint n_prompt, guint max_tokens)
{
  g_autoptr (GError) error = NULL;
  EngSessionOptions session_options = { .kv_bits = 16 };
  session_options.n_ctx = 128;
  session_options.batch = 32;
  g_autoptr (EngWorkers) one = eng_workers_new (1); /* the others are the batch's */
  g_autoptr (EngSession) session = eng_session_new (model, one, &session_options, &error);
  g_autoptr (GArray) prompt = prompt_of (which, n_prompt);
  EngAnswerOptions options = options_of (which, max_tokens);
  Asked asked;
  asked_init (&asked, NULL);
  g_autoptr (EngAnswer) answer = eng_answer_new (model, &options, on_text, &asked);
  gint32 token;
  g_assert_true (eng_session_eval (session, (const gint32 *) (gpointer) prompt->data, prompt->len, FALSE, NULL, &error));
  while (eng_answer_next (answer, session, &token, &error))
    g_assert_true (eng_session_eval (session, &token, 1, FALSE, NULL, &error));
  g_assert_no_error (error);
  eng_answer_end (answer);
  char *text = g_strdup (asked.text->str);
  asked_clear (&asked);
  return text;
}

enum { MANY = 9 };

/* More than there are places, with prompts shorter and longer than a pass, several times over: the second time their prompts are known. */
static void test_together (void)
{
  g_autoptr (EngBatch) batch = open_batch (128, 3, MANY);
  for (guint round = 0; round < 2; round++) {
    Asked asked[MANY];
    guint n_ended = 0;
    for (guint i = 0; i < MANY; i++) {
      g_autoptr (GError) error = NULL;
      asked_init (&asked[i], &n_ended);
      eng_ticket_unref (ask (batch, &asked[i], i, 5 + 9 * i, 10 + i, &error));
      g_assert_no_error (error);
    }
    for (guint i = 0; i < MANY; i++) {
      wait_for_end (&asked[i]);
      g_autofree char *expected = alone (i, 5 + 9 * i, 10 + i);
      g_assert_no_error (asked[i].error);
      g_assert_cmpuint (asked[i].n_done, ==, 1);
      g_assert_cmpstr (asked[i].text->str, ==, expected);
      g_assert_cmpstr (asked[i].finish_reason, ==, "length");
      g_assert_cmpuint (asked[i].stats.prompt_tokens, ==, 5 + 9 * i);
      g_assert_cmpuint (asked[i].stats.generated_tokens, ==, 10 + i);
      g_assert_cmpuint (asked[i].stats.reused_tokens, <, 5 + 9 * i);
      asked_clear (&asked[i]);
    }
  }
}

/* One at a time: who came first is answered first. */
static void test_order (void)
{
  g_autoptr (EngBatch) batch = open_batch (96, 1, MANY);
  Asked asked[MANY];
  guint n_ended = 0;
  for (guint i = 0; i < MANY; i++) {
    asked_init (&asked[i], &n_ended);
    g_autoptr (EngTicket) ticket = ask (batch, &asked[i], i, 12, 4, NULL);
    g_assert_nonnull (ticket);
  }
  for (guint i = 0; i < MANY; i++)
    wait_for_end (&asked[i]);
  for (guint i = 0; i < MANY; i++) {
    g_assert_cmpuint (asked[i].place, ==, i);
    asked_clear (&asked[i]);
  }
}

/* What is being written and what waits ends as cancelled, and its place is another's. */
static void test_cancel (void)
{
  g_autoptr (EngBatch) batch = open_batch (128, 1, 4);
  Asked writing, waiting, next;
  asked_init (&writing, NULL);
  asked_init (&waiting, NULL);
  asked_init (&next, NULL);
  writing.slow = TRUE;
  g_autoptr (EngTicket) first = ask (batch, &writing, 0, 8, 0, NULL), second = ask (batch, &waiting, 1, 8, 0, NULL);
  eng_ticket_unref (ask (batch, &next, 2, 8, 3, NULL));
  wait_for_text (&writing);
  eng_ticket_cancel (second);
  eng_ticket_cancel (first);
  wait_for_end (&writing);
  wait_for_end (&waiting);
  wait_for_end (&next);
  g_assert_cmpstr (writing.finish_reason, ==, "cancelled");
  g_assert_cmpstr (waiting.finish_reason, ==, "cancelled");
  g_assert_cmpuint (waiting.stats.generated_tokens, ==, 0);
  g_assert_cmpstr (next.finish_reason, ==, "length");
  eng_ticket_cancel (first); /* long over: nothing happens */
  asked_clear (&writing);
  asked_clear (&waiting);
  asked_clear (&next);
}

static void test_refuses (void)
{
  g_autoptr (EngBatch) batch = open_batch (64, 1, 1);
  g_autoptr (GError) empty = NULL, large = NULL, busy = NULL;
  Asked writing, waiting, refused;
  asked_init (&writing, NULL);
  asked_init (&waiting, NULL);
  asked_init (&refused, NULL);
  g_assert_null (ask (batch, &refused, 0, 0, 1, &empty));
  g_assert_error (empty, ENG_ERROR, ENG_ERROR_ARGUMENT);
  g_assert_null (ask (batch, &refused, 0, 64, 1, &large));
  g_assert_error (large, ENG_ERROR, ENG_ERROR_MEMORY);
  writing.slow = TRUE;
  g_autoptr (EngTicket) first = ask (batch, &writing, 0, 8, 0, NULL);
  wait_for_text (&writing); /* so that the queue is empty */
  g_autoptr (EngTicket) second = ask (batch, &waiting, 1, 8, 0, NULL);
  g_autoptr (EngTicket) third = NULL;
  for (guint i = 0; i < 1000 && busy == NULL; i++) { /* the thread has the queue in its hands for a moment, now and then */
    g_clear_pointer (&third, eng_ticket_unref);
    third = ask (batch, &refused, 2, 8, 1, &busy);
  }
  g_assert_error (busy, ENG_ERROR, ENG_ERROR_BUSY);
  eng_ticket_cancel (first);
  eng_ticket_cancel (second);
  wait_for_end (&writing);
  wait_for_end (&waiting);
  g_clear_pointer (&batch, eng_batch_free);
  asked_clear (&writing);
  asked_clear (&waiting);
  asked_clear (&refused);
}

/* Closed in the middle: every answer ends, once, as cancelled. */
static void test_close (void)
{
  Asked asked[MANY];
  EngBatch *batch = open_batch (128, 3, MANY);
  for (guint i = 0; i < MANY; i++) {
    asked_init (&asked[i], NULL);
    asked[i].slow = TRUE;
    g_autoptr (EngTicket) ticket = ask (batch, &asked[i], i, 8, 0, NULL);
    g_assert_nonnull (ticket);
  }
  wait_for_text (&asked[0]);
  eng_batch_free (batch);
  for (guint i = 0; i < MANY; i++) {
    g_assert_cmpuint (asked[i].n_done, ==, 1);
    g_assert_cmpstr (asked[i].finish_reason, ==, "cancelled");
    asked_clear (&asked[i]);
  }
}

/* An answer that cannot go on tells why and leaves the others alone: a grammar of letters that the vocabulary lacks. */
static void test_failure (void)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (EngBatch) batch = open_batch (128, 2, 4);
  g_autoptr (EngGrammar) grammar = eng_grammar_new ("root ::= \"a\" <impossible>", NULL);
  g_assert_null (grammar);
  grammar = eng_grammar_new ("root ::= \"a\" [b-c] \"d\"", &error);
  g_assert_no_error (error);
  Asked held, other;
  asked_init (&held, NULL);
  asked_init (&other, NULL);
  EngAnswerOptions options = options_of (0, 0);
  options.grammar = grammar;
  g_autoptr (GArray) prompt = prompt_of (0, 8);
  eng_ticket_unref (eng_batch_ask (batch, prompt, &options, on_text, on_done, &held, &error));
  eng_ticket_unref (ask (batch, &other, 3, 8, 12, &error));
  g_assert_no_error (error);
  wait_for_end (&held);
  wait_for_end (&other);
  g_autofree char *expected = alone (3, 8, 12);
  g_assert_true (g_str_equal (held.text->str, "abd") || g_str_equal (held.text->str, "acd"));
  g_assert_cmpstr (held.finish_reason, ==, "stop");
  g_assert_cmpstr (other.text->str, ==, expected);
  asked_clear (&held);
  asked_clear (&other);
}

int main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_autoptr (GError) error = NULL;
  g_autofree char *path = tiny_model_path ("batch.gguf");
  const TinyModel tiny = TINY_MODEL_DEFAULTS;
  tiny_model_write (&tiny, path);
  model = eng_model_open (path, &error);
  g_assert_no_error (error);
  workers = eng_workers_new (2);
  g_test_add_func ("/batch/each-says-what-it-says-alone", test_together);
  g_test_add_func ("/batch/first-come-first-served", test_order);
  g_test_add_func ("/batch/cancel-frees-the-place", test_cancel);
  g_test_add_func ("/batch/refuses-with-a-sentence", test_refuses);
  g_test_add_func ("/batch/closing-ends-every-answer-once", test_close);
  g_test_add_func ("/batch/a-grammar-holds-one-and-not-the-others", test_failure);
  int status = g_test_run ();
  eng_workers_free (workers);
  eng_model_unref (model);
  tiny_model_clean ();
  return status;
}
