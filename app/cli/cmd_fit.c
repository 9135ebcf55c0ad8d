/* cmd_fit.c: plan and fit: the same target options, before and after the work. */
#include "app/cli/cli.h"

#include <math.h>
#include <stdio.h>

typedef struct {
  char *ram, *size, *memory;
  double bpw;
  int bits, context, kv, threads;
  gboolean window;
  char *output, *calibration, *quality, *method, *allocation; /* fit */
  gint64 seed;
} TargetOptions;

#define TARGET_ENTRIES(o) \
  { "ram", 'r', 0, G_OPTION_ARG_FILENAME, &(o)->ram, "RAM for everything a chat needs, as 96M, 1.5G or 900MiB", "SIZE" }, \
  { "size", 's', 0, G_OPTION_ARG_FILENAME, &(o)->size, "Size of the file", "SIZE" }, \
  { "bpw", 'b', 0, G_OPTION_ARG_DOUBLE, &(o)->bpw, "Bits per weight, all stored bits counted", "BITS" }, \
  { "bits", 0, 0, G_OPTION_ARG_INT, &(o)->bits, "The same bits for every weight, 1 to 8, instead of sharing them out", "BITS" }, \
  { "context", 'c', 0, G_OPTION_ARG_INT, &(o)->context, "Tokens of context (else 4096, or the model's own if less)", "TOKENS" }, \
  { "kv", 0, 0, G_OPTION_ARG_INT, &(o)->kv, "Bits of the KV cache: 16 (default), 8 or 4", "BITS" }, \
  { "memory", 'm', 0, G_OPTION_ARG_FILENAME, &(o)->memory, "Memory that making the fit may take (else as is best)", "SIZE" }, \
  { "quality", 'q', 0, G_OPTION_ARG_STRING, &(o)->quality, "usual (default), or best: closer to the model, in five to ten times the time", "NAME" }, \
  { "window", 0, 0, G_OPTION_ARG_NONE, &(o)->window, "The chat is to run in the window, which takes more memory than the terminal", NULL }, \
  { "threads", 't', 0, G_OPTION_ARG_INT, &(o)->threads, "Threads (else one per core)", "N" }

static void target_options_clear (TargetOptions *options)
{
  g_free (options->ram);
  g_free (options->size);
  g_free (options->memory);
  g_free (options->output);
  g_free (options->calibration);
  g_free (options->quality);
  g_free (options->method);
  g_free (options->allocation);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC (TargetOptions, target_options_clear)

/* CLI_OK, or CLI_USAGE with the line printed. */
static int read_target (const TargetOptions *options, ValiseTarget *target)
{
  g_autoptr (GError) error = NULL;
  *target = (ValiseTarget) { .bpw = isnan (options->bpw) ? 0 : options->bpw, .program_base_bytes = valise_program_base_bytes (options->window) };
  if ((options->ram != NULL) + (options->size != NULL) + !isnan (options->bpw) + (options->bits != 0) != 1)
    return cli_usage ("say how large in exactly one way, --ram, --size, --bpw or --bits");
  if ((options->ram && !valise_size_parse (options->ram, &target->ram_bytes, &error))
      || (options->size && !valise_size_parse (options->size, &target->size_bytes, &error))
      || (options->memory && !valise_size_parse (options->memory, &target->memory_bytes, &error)))
    return cli_usage ("%s", error->message);
  if (!isnan (options->bpw) && !(options->bpw > 0 && options->bpw <= 32))
    return cli_usage ("--bpw %g is not between 0 and 32", options->bpw);
  if (options->bits < 0 || options->bits > 8)
    return cli_usage ("--bits %d is not between 1 and 8", options->bits);
  if (options->quality && !g_str_equal (options->quality, "usual") && !g_str_equal (options->quality, "best"))
    return cli_usage ("--quality %s is not usual or best", options->quality);
  if (options->method && !qz_method_from_name (options->method, &target->method))
    return cli_usage ("--method %s is not xbit, rtn, gptq, awq, quarot, spinquant or hadamard", options->method);
  if (target->method != QZ_METHOD_XBIT && !options->bits)
    return cli_usage ("--method %s gives all weights the same bits: say how many with --bits", options->method);
  static const char *const allocations[] = { [QZ_ALLOCATE_CELLS] = "cells", [QZ_ALLOCATE_MATRICES] = "matrices", [QZ_ALLOCATE_NONE] = "none", NULL };
  if (options->allocation && !g_strv_contains (allocations, options->allocation))
    return cli_usage ("--allocation %s is not cells, matrices or none", options->allocation);
  target->allocation = QZ_ALLOCATE_CELLS;
  while (options->allocation && !g_str_equal (options->allocation, allocations[target->allocation]))
    target->allocation++;
  if (options->allocation && options->bits && target->allocation != QZ_ALLOCATE_NONE)
    return cli_usage ("--allocation %s shares bits out, --bits gives every weight the same: leave one out", options->allocation);
  if (target->allocation == QZ_ALLOCATE_NONE && (!options->bits || target->method != QZ_METHOD_XBIT))
    return cli_usage ("--allocation none shares no bits out: say with --bits how many each weight has, without --method");
  if (options->seed < 0)
    return cli_usage ("--seed %" G_GINT64_FORMAT " is negative", options->seed);
  if (options->context < 0)
    return cli_usage ("--context %d is not a number of tokens", options->context);
  if (options->kv != 16 && options->kv != 8 && options->kv != 4)
    return cli_usage ("--kv %d is not 16, 8 or 4", options->kv);
  if (options->threads < 0 || options->threads > 1024)
    return cli_usage ("--threads %d is not a number of threads", options->threads);
  target->bits = (guint) options->bits;
  target->quality = options->quality && g_str_equal (options->quality, "best") ? QZ_QUALITY_BEST : QZ_QUALITY_USUAL;
  target->seed = (guint64) options->seed;
  target->context = (guint) options->context;
  target->kv_bits = options->kv;
  target->threads = (guint) options->threads;
  return CLI_OK;
}

static void print_part (const char *name, guint64 bytes)
{
  g_autofree char *text = valise_size_format (bytes);
  printf ("  %-9s %9s\n", name, text);
}

static void print_plan (const ValisePlan *plan)
{
  print_part ("weights", plan->memory.weights_bytes);
  print_part ("KV cache", plan->memory.kv_bytes);
  print_part ("scratch", plan->memory.scratch_bytes);
  print_part ("program", plan->memory.program_bytes);
  print_part ("total", plan->memory.total_bytes);
  printf ("%.2f bits per weight; expected: KL divergence %.4f, %.0f%% of next words unchanged, about %.0f tokens/s here%s\n", plan->bpw,
          plan->expected_kl, 100 * plan->expected_top1, plan->expected_tokens_per_second,
          plan->is_estimate ? "\n(an estimate from shapes alone: a fit analyses the model first)" : "");
}

static void print_fit_memory (FILE *to, const ValisePlan *plan)
{
  g_autofree char *memory = valise_size_format (plan->fit_memory_bytes);
  fprintf (to, "Making the fit takes up to %s of memory.\n", memory);
}

/* A person who refits a quantized model should know what the figures are relative to. */
static void print_source (const ValisePlan *plan, const char *name)
{
  if (plan->source_bits > 0)
    fprintf (stderr, "Warning: %s is quantized already (%.1f bits per weight): losses are stated against it, what it lost before is not counted.\n", name,
             plan->source_bits);
}

int cli_plan (int argc, char **argv)
{
  g_auto (TargetOptions) options = { .bpw = NAN, .kv = 16 };
  const GOptionEntry entries[] = { TARGET_ENTRIES (&options), { NULL } };
  ValiseTarget target;
  ValisePlan plan;
  if (!cli_parse (entries, 1, 1, &argc, &argv) || read_target (&options, &target) != CLI_OK)
    return CLI_USAGE;
  g_autoptr (GError) error = NULL;
  g_autoptr (ValiseLibrary) library = valise_library_open (NULL, &error);
  g_autoptr (ValiseModel) model = library ? valise_library_find_model (library, argv[1], &error) : NULL;
  if (!model || !valise_library_plan (library, model, &target, &plan, &error))
    return cli_fail (error);
  if (cli_json)
    return cli_print_object (valise_plan_to_json (&plan));
  print_source (&plan, argv[1]);
  print_plan (&plan);
  print_fit_memory (stdout, &plan);
  return CLI_OK;
}

int cli_fit (int argc, char **argv)
{
  g_auto (TargetOptions) options = { .bpw = NAN, .kv = 16 };
  const GOptionEntry entries[]
    = { TARGET_ENTRIES (&options),
        { "output", 'o', 0, G_OPTION_ARG_FILENAME, &options.output, "Its name in the library, or a FILE.gguf outside it", "NAME" },
        { "calibration", 0, 0, G_OPTION_ARG_FILENAME, &options.calibration, "Text to observe the model on, or self: what it writes itself (else one that comes with Valise)", "FILE" },
        { "method", 0, 0, G_OPTION_ARG_STRING, &options.method, "xbit (default), or one to compare with: rtn, gptq, awq, quarot, spinquant, hadamard; these take --bits", "NAME" },
        { "allocation", 0, 0, G_OPTION_ARG_STRING, &options.allocation, "Bits are shared out among cells (default) or, to compare, matrices or none", "NAME" },
        { "seed", 0, 0, G_OPTION_ARG_INT64, &options.seed, "Of all that is drawn (else 0)", "N" },
        { NULL } };
  ValiseTarget target;
  ValisePlan plan;
  QzResult result;
  if (!cli_parse (entries, 1, 1, &argc, &argv) || read_target (&options, &target) != CLI_OK)
    return CLI_USAGE;
  g_autoptr (GError) error = NULL;
  g_autoptr (ValiseLibrary) library = valise_library_open (NULL, &error);
  g_autoptr (ValiseModel) model = library ? valise_library_find_model (library, argv[1], &error) : NULL;
  if (!model || !valise_library_plan (library, model, &target, &plan, &error))
    return cli_fail (error);
  if (!cli_json) {
    print_source (&plan, argv[1]);
    print_fit_memory (stderr, &plan);
  }
  g_autoptr (ValiseModel) fit = valise_library_fit (library, model, &target, options.output, options.calibration, &plan, &result, cli_progress, NULL,
                                                    cli_cancellable (), &error);
  if (!fit)
    return cli_fail (error);
  if (cli_json) {
    JsonObject *object = valise_plan_to_json (&plan);
    json_object_set_string_member (object, "name", valise_model_get_name (fit));
    json_object_set_string_member (object, "path", valise_model_get_path (fit));
    json_object_set_int_member (object, "bytes", (gint64) valise_model_get_bytes (fit));
    valise_json_set_number (object, "kl_divergence", result.kl_divergence);
    valise_json_set_number (object, "top1_agreement", result.top1_agreement);
    valise_json_set_number (object, "seconds", result.seconds);
    json_object_set_int_member (object, "peak_rss_bytes", (gint64) eng_memory_peak_rss ());
    return cli_print_object (object);
  }
  cli_progress_end ();
  printf ("Made %s in %.0f s:\n", valise_model_get_name (fit), result.seconds);
  print_plan (&plan);
  printf ("measured: KL divergence %.4f, %.0f%% of next words unchanged\n%s\n", result.kl_divergence, 100 * result.top1_agreement,
          valise_model_get_path (fit));
  return CLI_OK;
}
