/* batch_bench.c: tokens per second of 1, 2, 4 and 8 answers written at once out of one pool, in turn, best of several rounds.
 *     batch_bench MODEL [tokens of each answer 64] [threads 0] [rounds 5]
 */
#include "engine/batch.h"
#include "kernels/cpu.h"
#include "tests/bench/arguments.h"

#include <stdio.h>
#include <stdlib.h>

enum { MOST = 8, PROMPT = 16 };
static const guint counts[] = { 1, 2, 4, 8 };

/* Answers that are not over yet, and when the first token of all and the last one came. */
typedef struct {
  GMutex mutex;
  GCond cond;
  guint left, n_tokens;
} Running;

static void on_text (EngTextKind kind, const char *text, gpointer data)
{
}

static void on_done (const EngBatchStats *stats, const GError *error, gpointer data)
{
  Running *running = data;
  g_mutex_lock (&running->mutex);
  running->n_tokens += stats->generated_tokens;
  if (error != NULL)
    fprintf (stderr, "batch_bench: %s\n", error->message);
  if (--running->left == 0)
    g_cond_signal (&running->cond);
  g_mutex_unlock (&running->mutex);
}

/* Nothing ends an answer but its length. */
static GArray *ends_of (EngModel *model)
{
  GArray *biases = g_array_new (FALSE, FALSE, sizeof (EngLogitBias));
  for (guint i = 0; i < eng_model_traits (model)->n_vocab; i++)
    if (eng_tokenizer_is_end (eng_model_tokenizer (model), (gint32) i)) {
      EngLogitBias bias = { (gint32) i, -G_MAXFLOAT };
      g_array_append_val (biases, bias);
    }
  return biases;
}

static double tokens_per_second (EngBatch *batch, EngModel *model, const GArray *ends, guint n, guint n_tokens)
{
  Running running = { .left = n };
  EngTicket *tickets[MOST];
  EngAnswerOptions options = { .sampling = ENG_SAMPLER_DEFAULTS, .max_tokens = n_tokens };
  options.sampling.biases = (const EngLogitBias *) (gpointer) ends->data;
  options.sampling.n_biases = ends->len;
  g_mutex_init (&running.mutex);
  g_cond_init (&running.cond);
  gint64 start = g_get_monotonic_time ();
  for (guint i = 0; i < n; i++) {
    g_autoptr (GError) error = NULL;
    g_autoptr (GArray) prompt = g_array_new (FALSE, FALSE, sizeof (gint32));
    for (guint k = 0; k < PROMPT; k++) {
      gint32 token = (gint32) ((k * 7919 + i * 104729 + 11) % eng_model_traits (model)->n_vocab);
      g_array_append_val (prompt, token);
    }
    tickets[i] = eng_batch_ask (batch, prompt, &options, on_text, on_done, &running, &error);
    if (tickets[i] == NULL) {
      fprintf (stderr, "batch_bench: %s\n", error->message);
      exit (1);
    }
  }
  g_mutex_lock (&running.mutex);
  while (running.left > 0)
    g_cond_wait (&running.cond, &running.mutex);
  g_mutex_unlock (&running.mutex);
  double seconds = (double) (g_get_monotonic_time () - start) * 1e-6;
  for (guint i = 0; i < n; i++)
    eng_ticket_unref (tickets[i]);
  g_mutex_clear (&running.mutex);
  g_cond_clear (&running.cond);
  return running.n_tokens / seconds;
}

int main (int argc, char **argv)
{
  guint n_tokens = argument (argc, argv, 2, 64), rounds = argument (argc, argv, 4, 5);
  g_autoptr (GError) error = NULL;
  const char *problem = xb_cpu_init ();
  if (argc < 2 || problem != NULL) {
    fprintf (stderr, "batch_bench: %s\n", argc < 2 ? "give a model file" : problem);
    return 2;
  }
  EngSessionOptions options = { .n_ctx = PROMPT + n_tokens + 8, .n_sessions = MOST, .kv_bits = 16 };
  g_autoptr (EngModel) model = eng_model_open (argv[1], &error);
  EngWorkers *workers = eng_workers_new (argument (argc, argv, 3, 0));
  EngBatch *batch = model != NULL ? eng_batch_new (model, workers, &options, MOST, &error) : NULL;
  if (batch == NULL) {
    fprintf (stderr, "batch_bench: %s\n", error->message);
    return 1;
  }
  g_autoptr (GArray) ends = ends_of (model);
  double best[G_N_ELEMENTS (counts)] = { 0 };
  for (guint round = 0; round < rounds; round++)
    for (guint i = 0; i < G_N_ELEMENTS (counts); i++)
      best[i] = MAX (best[i], tokens_per_second (batch, model, ends, counts[i], n_tokens));
  for (guint i = 0; i < G_N_ELEMENTS (counts); i++)
    printf ("%u at once: %.1f tokens/s, %.2f x one\n", counts[i], best[i], best[i] / best[0]);
  eng_batch_free (batch);
  eng_workers_free (workers);
  return 0;
}
