/* engine_bench.c: the engine on a real file: load and first token, prompt and generation speed, peak memory against the plan.
 *     engine_bench MODEL [prompt tokens 512] [generate 128] [threads 0] [context 1024] [kv bits 16] [rounds 3] [activation bits 8]
 */
#include "engine/memory_plan.h"
#include "engine/sampler.h"
#include "kernels/cpu.h"
#include "kernels/ops.h"
#include "tests/bench/arguments.h"

#include <stdio.h>
#include <stdlib.h>

static void eval (EngSession *session, const gint32 *tokens, guint n)
{
  g_autoptr (GError) error = NULL;
  if (!eng_session_eval (session, tokens, n, FALSE, NULL, &error)) {
    fprintf (stderr, "engine_bench: %s\n", error->message);
    exit (1);
  }
}

/* Tokens per second of n tokens from an empty session: in one call, or one by one. */
static double measure (EngSession *session, guint n, gboolean one_by_one)
{
  guint n_vocab = eng_model_traits (eng_session_model (session))->n_vocab;
  g_autofree gint32 *tokens = g_new (gint32, n);
  for (guint i = 0; i < n; i++)
    tokens[i] = (i * 7919u + 11) % n_vocab;
  eng_session_truncate (session, 0);
  gint64 start = g_get_monotonic_time ();
  if (one_by_one)
    for (guint i = 0; i < n; i++)
      eval (session, tokens + i, 1);
  else
    eval (session, tokens, n);
  return n * 1e6 / MAX (1, g_get_monotonic_time () - start);
}

int main (int argc, char **argv)
{
  guint n_prompt = argument (argc, argv, 2, 512), n_generate = argument (argc, argv, 3, 128),
        n_threads = argument (argc, argv, 4, 0);
  EngSessionOptions options = { .n_ctx = argument (argc, argv, 5, 1024),
                                .kv_bits = argument (argc, argv, 6, 16),
                                .activation_bits = argument (argc, argv, 8, 8) };
  guint rounds = argument (argc, argv, 7, 3);
  g_autoptr (GError) error = NULL;
  const char *problem = xb_cpu_init ();
  if (argc < 2 || problem != NULL) {
    fprintf (stderr, "engine_bench: %s\n", argc < 2 ? "give a model file" : problem);
    return 2;
  }
  guint64 base = eng_memory_rss ();
  gint64 start = g_get_monotonic_time ();
  g_autoptr (EngModel) model = eng_model_open (argv[1], &error);
  g_autoptr (EngWorkers) workers = eng_workers_new (n_threads);
  g_autoptr (EngSession) session = model != NULL ? eng_session_new (model, workers, &options, &error) : NULL;
  if (session == NULL) {
    fprintf (stderr, "engine_bench: %s\n", error->message);
    return 1;
  }
  gint64 loaded = g_get_monotonic_time ();
  measure (session, 16, FALSE);
  gint64 first = g_get_monotonic_time ();
  printf ("load %.0f ms, first token of a prompt of 16 after %.0f ms, %u threads, %s\n", (loaded - start) / 1e3,
          (first - start) / 1e3, eng_workers_count (workers), xb_isa_name (xb_cpu_selected ()));

  double prompt = 0, generate = 0;
  for (guint i = 0; i < rounds; i++) {
    double p = n_prompt > 0 ? measure (session, MIN (n_prompt, options.n_ctx), FALSE) : 0;
    double g = n_generate > 0 ? measure (session, MIN (n_generate, options.n_ctx), TRUE) : 0;
    prompt = MAX (prompt, p);
    generate = MAX (generate, g);
  }
  printf ("prompt %u: %.1f tokens/s, generate %u: %.1f tokens/s (best of %u)\n", n_prompt, prompt, n_generate, generate, rounds);

  /* As a chat does: every weight and position, a word read and a token drawn. */
  EngMemoryPlan plan;
  EngSamplerOptions sampling = ENG_SAMPLER_DEFAULTS;
  const EngTraits *traits = eng_model_traits (model);
  g_autoptr (EngSampler) sampler = eng_sampler_new (&sampling, traits->n_vocab);
  g_autoptr (GArray) words = g_array_new (FALSE, FALSE, sizeof (gint32));
  eng_tokenizer_encode (eng_model_tokenizer (model), "The quick brown fox.", 20, ENG_TOKENIZE_PLAIN, words);
  measure (session, options.n_ctx, FALSE);
  eng_sampler_sample (sampler, eng_session_logits (session), eng_session_tokens (session), eng_session_n_past (session));
  eng_memory_plan (&plan, eng_model_traits (model), 0, &options, eng_workers_count (workers), base);
  guint64 peak = eng_memory_peak_rss ();
  printf ("context of %u filled: peak %.2f MB, planned %.2f (weights %.2f, kv %.2f, scratch %.2f, program %.2f of which base "
          "%.2f): peak / plan %.3f\n",
          options.n_ctx, peak / 1e6, plan.total_bytes / 1e6, plan.weights_bytes / 1e6, plan.kv_bytes / 1e6,
          plan.scratch_bytes / 1e6, plan.program_bytes / 1e6, base / 1e6, (double)peak / plan.total_bytes);
  return 0;
}
