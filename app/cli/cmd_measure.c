/* cmd_measure.c: eval (how good) and bench (how fast). */
#include "app/cli/cli.h"
#include "engine/choices.h"
#include "engine/evaluate.h"
#include "kernels/cpu.h"

#include <math.h>
#include <stdio.h>

#define REPETITIONS 3
#define ENOUGH_US (20 * G_USEC_PER_SEC) /* a slow model is not measured three times */

static EngModel *open_model (ValiseLibrary *library, const char *name, guint64 *bytes, GError **error)
{
  g_autoptr (ValiseModel) row = valise_library_find_model (library, name, error);
  if (row && bytes)
    *bytes = valise_model_get_bytes (row);
  return row ? valise_library_open_model (library, row, cli_progress, NULL, cli_cancellable (), error) : NULL;
}

/* ---- eval ---- */

static int print_evaluation (const EngEvaluation *evaluation)
{
  if (!cli_json) {
    cli_progress_end ();
    printf ("Perplexity     %.4f over %" G_GUINT64_FORMAT " tokens\n", evaluation->ppl, evaluation->tokens);
    if (evaluation->has_reference)
      printf ("KL divergence  mean %.5f, 99%% below %.4f, worst %.4f\nSame choice    %.2f%% of next tokens\n", evaluation->kl_mean,
              evaluation->kl_p99, evaluation->kl_max, 100 * evaluation->top1_agreement);
    return CLI_OK;
  }
  JsonObject *object = json_object_new ();
  json_object_set_int_member (object, "tokens", (gint64) evaluation->tokens);
  valise_json_set_number (object, "ppl", evaluation->ppl);
  if (evaluation->has_reference) {
    JsonObject *kl = json_object_new ();
    valise_json_set_number (kl, "mean", evaluation->kl_mean);
    valise_json_set_number (kl, "p99", evaluation->kl_p99);
    valise_json_set_number (kl, "max", evaluation->kl_max);
    json_object_set_object_member (object, "kl_divergence", kl);
    valise_json_set_number (object, "top1_agreement", evaluation->top1_agreement);
  } else {
    json_object_set_null_member (object, "kl_divergence");
    json_object_set_null_member (object, "top1_agreement");
  }
  return cli_print_object (object);
}

static int print_choices (const EngChoices *choices)
{
  if (!cli_json) {
    cli_progress_end ();
    printf ("Right answers  %.2f%% of %u questions\n", 100 * choices->accuracy, choices->questions);
    if (choices->has_reference)
      printf ("Reference      %.2f%%: %+.2f points (95%%: %+.2f to %+.2f), %u gained, %u lost\n", 100 * choices->reference_accuracy, 100 * choices->change,
              100 * choices->low, 100 * choices->high, choices->gained, choices->lost);
    return CLI_OK;
  }
  JsonObject *object = json_object_new ();
  json_object_set_int_member (object, "questions", choices->questions);
  valise_json_set_number (object, "accuracy", choices->accuracy);
  if (choices->has_reference) {
    JsonObject *change = json_object_new ();
    valise_json_set_number (change, "mean", choices->change);
    valise_json_set_number (change, "low", choices->low);
    valise_json_set_number (change, "high", choices->high);
    json_object_set_int_member (change, "gained", choices->gained);
    json_object_set_int_member (change, "lost", choices->lost);
    valise_json_set_number (object, "reference_accuracy", choices->reference_accuracy);
    json_object_set_object_member (object, "change", change);
  } else {
    json_object_set_null_member (object, "reference_accuracy");
    json_object_set_null_member (object, "change");
  }
  return cli_print_object (object);
}

int cli_eval (int argc, char **argv)
{
  g_autofree char *text_path = NULL, *choices_path = NULL, *reference_name = NULL;
  int context = 512, chunks = 0, questions = 0, threads = 0, kv = 16, activations = 8;
  const GOptionEntry entries[] = {
    { "text", 0, 0, G_OPTION_ARG_FILENAME, &text_path, "The text to predict", "FILE" },
    { "context", 'c', 0, G_OPTION_ARG_INT, &context, "Tokens of a chunk (else 512)", "TOKENS" },
    { "chunks", 0, 0, G_OPTION_ARG_INT, &chunks, "Use the first N chunks (else all)", "N" },
    { "choices", 0, 0, G_OPTION_ARG_FILENAME, &choices_path, "Instead of a text: questions to choose the answers of", "FILE" },
    { "questions", 0, 0, G_OPTION_ARG_INT, &questions, "Ask the first N questions (else all)", "N" },
    { "reference", 0, 0, G_OPTION_ARG_FILENAME, &reference_name, "The model whose predictions are to be kept", "MODEL" },
    { "kv", 0, 0, G_OPTION_ARG_INT, &kv, "Bits of the KV cache: 16 (default), 8 or 4", "BITS" },
    { "activations", 0, 0, G_OPTION_ARG_INT, &activations, "Bits of activations: 8 (default), 4, or 32 for exact", "BITS" },
    { "threads", 't', 0, G_OPTION_ARG_INT, &threads, "Threads (else one per core)", "N" },
    { NULL },
  };
  if (!cli_parse (entries, 1, 1, &argc, &argv))
    return CLI_USAGE;
  const char *path = text_path ? text_path : choices_path;
  if (!path || (text_path && choices_path))
    return cli_usage (path ? "--text and --choices are measured one at a time" : "--text FILE or --choices FILE is missing");
  if (context < 4 || chunks < 0 || questions < 0 || threads < 0 || threads > 1024)
    return cli_usage ("--context is at least 4, and --chunks, --questions and --threads are not negative");
  if ((kv != 16 && kv != 8 && kv != 4) || (activations != 8 && activations != 4 && activations != 32))
    return cli_usage ("--kv is 16, 8 or 4, and --activations 32, 8 or 4");
  g_autoptr (GError) error = NULL;
  g_autoptr (GMappedFile) text = g_mapped_file_new (path, FALSE, &error);
  if (!text) {
    g_clear_error (&error);
    g_set_error (&error, VALISE_ERROR, VALISE_ERROR_NOT_FOUND, "the text %s cannot be read: name a text file", path);
    return cli_fail (error);
  }
  g_autoptr (ValiseLibrary) library = valise_library_open (NULL, &error);
  g_autoptr (EngModel) model = library ? open_model (library, argv[1], NULL, &error) : NULL;
  g_autoptr (EngModel) reference = model && reference_name ? open_model (library, reference_name, NULL, &error) : NULL;
  if (!model || (reference_name && !reference))
    return cli_fail (error);
  g_autoptr (EngWorkers) workers = eng_workers_new ((guint) threads);
  const char *contents = g_mapped_file_get_contents (text) ? g_mapped_file_get_contents (text) : "";
  if (choices_path) {
    EngChoices result;
    if (!eng_evaluate_choices (model, reference, workers, contents, g_mapped_file_get_length (text), (guint) questions, activations, kv, &result, cli_progress, NULL,
                               cli_cancellable (), &error))
      return cli_fail (error);
    return print_choices (&result);
  }
  EngEvaluation evaluation;
  if (!eng_evaluate (model, reference, workers, contents, g_mapped_file_get_length (text), (guint) context, (guint) chunks, activations, kv, &evaluation, cli_progress, NULL, cli_cancellable (), &error))
    return cli_fail (error);
  return print_evaluation (&evaluation);
}

/* ---- bench ---- */

typedef struct {
  guint prompt_tokens, generate, threads;
  double prompt_rate, generate_rate;
  double load_ms, first_token_ms;
  guint64 weight_bytes;
} Bench;

static gint32 likeliest (const float *logits, guint n)
{
  guint best = 0;
  for (guint i = 1; i < n; i++)
    if (logits[i] > logits[best])
      best = i;
  return (gint32) best;
}

/* Evaluates n tokens after `past`; the tokens themselves do not matter for the time. */
static gboolean time_prompt (EngSession *session, guint n, gint64 *us, GError **error)
{
  guint n_vocab = eng_model_traits (eng_session_model (session))->n_vocab;
  g_autofree gint32 *tokens = g_new (gint32, n);
  for (guint i = 0; i < n; i++)
    tokens[i] = (gint32) ((i * 7919u + 13u) % n_vocab);
  eng_session_truncate (session, 0);
  gint64 begin = g_get_monotonic_time ();
  gboolean done = eng_session_eval (session, tokens, n, FALSE, cli_cancellable (), error);
  *us = g_get_monotonic_time () - begin;
  return done;
}

static gboolean time_generation (EngSession *session, guint n, gint64 *us, GError **error)
{
  guint n_vocab = eng_model_traits (eng_session_model (session))->n_vocab;
  gint32 token = 1 % (gint32) n_vocab;
  eng_session_truncate (session, 0);
  gint64 begin = g_get_monotonic_time ();
  for (guint i = 0; i < n; i++) {
    if (!eng_session_eval (session, &token, 1, FALSE, cli_cancellable (), error))
      return FALSE;
    token = likeliest (eng_session_logits (session), n_vocab);
  }
  *us = g_get_monotonic_time () - begin;
  return TRUE;
}

/* From nothing to the first token of an answer, as a person meets it. */
static EngSession *time_start (ValiseLibrary *library, const char *name, EngWorkers *workers, Bench *bench, GError **error)
{
  gint64 us, begin = g_get_monotonic_time ();
  g_autoptr (EngModel) model = open_model (library, name, &bench->weight_bytes, error);
  EngSessionOptions options;
  if (!model || !valise_session_options (eng_model_traits (model), MAX (bench->prompt_tokens, bench->generate) + 1, 16, &options, error))
    return NULL;
  g_autoptr (EngSession) session = eng_session_new (model, workers, &options, error);
  bench->load_ms = (double) (g_get_monotonic_time () - begin) / 1e3;
  const guint hello = 32; /* tokens of a short question in its template */
  if (!session || !time_prompt (session, MIN (hello, options.n_ctx), &us, error))
    return NULL;
  likeliest (eng_session_logits (session), eng_model_traits (model)->n_vocab);
  bench->first_token_ms = (double) (g_get_monotonic_time () - begin) / 1e3;
  return g_steal_pointer (&session);
}

static gboolean run_bench (EngSession *session, Bench *bench, GError **error)
{
  gint64 us, begin = g_get_monotonic_time ();
  for (int i = 0; i < REPETITIONS && (i == 0 || g_get_monotonic_time () - begin < ENOUGH_US); i++) {
    cli_progress ((double) i / REPETITIONS, "measuring", NULL);
    if (!time_prompt (session, bench->prompt_tokens, &us, error))
      return FALSE;
    bench->prompt_rate = MAX (bench->prompt_rate, cli_rate (bench->prompt_tokens, us));
    if (!time_generation (session, bench->generate, &us, error))
      return FALSE;
    bench->generate_rate = MAX (bench->generate_rate, cli_rate (bench->generate, us));
  }
  return TRUE;
}

static int print_bench (const Bench *bench)
{
  if (!cli_json) {
    cli_progress_end ();
    g_autofree char *weights = valise_size_format (bench->weight_bytes), *peak = valise_size_format (eng_memory_peak_rss ());
    printf ("Prompt       %.1f tokens/s (%u tokens)\nGeneration   %.1f tokens/s (%u tokens)\n", bench->prompt_rate, bench->prompt_tokens,
            bench->generate_rate, bench->generate);
    printf ("Loading      %.0f ms, first token after %.0f ms\nWeights      %s, peak memory %s\n", bench->load_ms, bench->first_token_ms, weights,
            peak);
    printf ("On           the processor, %s, %u threads; the best of %d runs\n", xb_isa_name (xb_cpu_selected ()), bench->threads, REPETITIONS);
    return CLI_OK;
  }
  JsonObject *object = json_object_new ();
  valise_json_set_number (object, "prompt_tokens_per_second", bench->prompt_rate);
  valise_json_set_number (object, "generated_tokens_per_second", bench->generate_rate);
  valise_json_set_number (object, "load_ms", bench->load_ms);
  valise_json_set_number (object, "first_token_ms", bench->first_token_ms);
  json_object_set_int_member (object, "weight_bytes", (gint64) bench->weight_bytes);
  json_object_set_int_member (object, "peak_rss_bytes", (gint64) eng_memory_peak_rss ());
  json_object_set_string_member (object, "backend", "cpu");
  json_object_set_string_member (object, "isa", xb_isa_name (xb_cpu_selected ()));
  json_object_set_int_member (object, "threads", bench->threads);
  return cli_print_object (object);
}

int cli_bench (int argc, char **argv)
{
  int prompt = 512, generate = 128, threads = 0;
  const GOptionEntry entries[] = {
    { "prompt-tokens", 'p', 0, G_OPTION_ARG_INT, &prompt, "Tokens of the prompt (else 512)", "N" },
    { "generate", 'n', 0, G_OPTION_ARG_INT, &generate, "Tokens to generate (else 128)", "N" },
    { "threads", 't', 0, G_OPTION_ARG_INT, &threads, "Threads (else one per core)", "N" },
    { NULL },
  };
  if (!cli_parse (entries, 1, 1, &argc, &argv))
    return CLI_USAGE;
  if (prompt < 1 || generate < 1 || prompt > 1 << 24 || generate > 1 << 24 || threads < 0 || threads > 1024)
    return cli_usage ("--prompt-tokens and --generate are at least 1, --threads is not negative");
  g_autoptr (GError) error = NULL;
  g_autoptr (ValiseLibrary) library = valise_library_open (NULL, &error);
  if (!library)
    return cli_fail (error);
  g_autoptr (EngWorkers) workers = eng_workers_new ((guint) threads);
  Bench bench = { .prompt_tokens = (guint) prompt, .generate = (guint) generate, .threads = eng_workers_count (workers) };
  g_autoptr (EngSession) session = time_start (library, argv[1], workers, &bench, &error);
  if (!session || !run_bench (session, &bench, &error))
    return cli_fail (error);
  return print_bench (&bench);
}
