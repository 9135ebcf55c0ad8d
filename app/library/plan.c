/* plan.c: from a budget to what a chat will need and how good and fast it will be, before anything is loaded. */
#include "app/library/library-private.h"
#include "engine/checkpoint/checkpoint.h"

#include <math.h>

#define DEFAULT_CONTEXT 4096
/* Resident size of each program with its library open and no model (docs/library.md); tests/e2e holds the terminal's to it. */
#define TERMINAL_BASE_BYTES (G_GUINT64_CONSTANT (12) << 20)
#define WINDOW_BASE_BYTES (G_GUINT64_CONSTANT (112) << 20)
#define NAMES_BYTES 1024 /* what a fit's file says of itself at most (its name, its source's, the licence), which the curves know nothing of */
#define ROUND_BYTES 100000 /* a smallest budget is named in tenths of a megabyte, rounded up */

static gboolean check_target (const ValiseTarget *target, GError **error);
static gboolean too_small (guint64 asked, guint n_ctx, guint64 smallest, GError **error);

guint64 valise_program_base_bytes (gboolean window)
{
  return window ? WINDOW_BASE_BYTES : TERMINAL_BASE_BYTES;
}

gboolean valise_session_options (const EngTraits *traits, guint context, int kv_bits, EngSessionOptions *options, GError **error)
{
  guint usual = traits->n_ctx_planned ? traits->n_ctx_planned : MIN (DEFAULT_CONTEXT, traits->n_ctx_train);
  int depth = traits->kv_bits_planned ? traits->kv_bits_planned : 16;
  *options = (EngSessionOptions) { .n_ctx = context ? context : usual, .kv_bits = kv_bits ? kv_bits : depth };
  if (options->n_ctx > traits->n_ctx_train) {
    g_set_error (error, VALISE_ERROR, VALISE_ERROR_ARGUMENT, "this model knows a context of %u tokens at most, not %u: choose a shorter one",
                 traits->n_ctx_train, options->n_ctx);
    return FALSE;
  }
  if (options->kv_bits != 16 && options->kv_bits != 8 && options->kv_bits != 4) {
    g_set_error (error, VALISE_ERROR, VALISE_ERROR_ARGUMENT, "the KV cache holds 16, 8 or 4 bits per value, not %d", options->kv_bits);
    return FALSE;
  }
  return TRUE;
}

QzCurves *valise_library_get_curves (ValiseLibrary *library, ValiseModel *model, GError **error)
{
  if (valise_model_get_kind (model) == VALISE_MODEL_FIT) {
    g_set_error (error, VALISE_ERROR, VALISE_ERROR_ARGUMENT, "%s is a fit already: fit the model it was made from%s%s", valise_model_get_name (model),
                 *valise_model_get_source (model) ? ", " : "", valise_model_get_source (model));
    return NULL;
  }
  valise_bandwidth_prepare (library);
  g_autoptr (EngGguf) gguf = eng_checkpoint_open (valise_model_get_path (model), error);
  g_autofree char *key = gguf ? valise_model_content_key (model, error) : NULL;
  if (!key)
    return NULL;
  g_autofree char *saved = valise_library_find_analysis (library, key);
  g_autoptr (GError) local = NULL;
  QzCurves *curves = saved ? qz_curves_load (gguf, saved, &local) : NULL;
  /* Curves of an older version are as good as none: the plan says it is an estimate, and the next fit analyses again. */
  return curves ? curves : qz_curves_estimate (gguf, error);
}

gboolean valise_plan_with_curves (QzCurves *curves, const EngTraits *traits, const ValiseTarget *target, ValisePlan *plan, GError **error)
{
  EngSessionOptions options;
  if (!check_target (target, error) || !valise_session_options (traits, target->context, target->kv_bits, &options, error))
    return FALSE;
  *plan = (ValisePlan) { .is_estimate = qz_curves_is_estimate (curves) };
  guint64 least = qz_curves_min_bytes (curves) + NAMES_BYTES;
  eng_memory_plan (&plan->memory, traits, least, &options, target->threads, target->program_base_bytes);
  guint64 around = plan->memory.total_bytes - least; /* everything but the weights */
  plan->smallest_ram_bytes = (plan->memory.total_bytes + ROUND_BYTES - 1) / ROUND_BYTES * ROUND_BYTES;
  if (target->ram_bytes) {
    if (target->ram_bytes < around + least)
      return too_small (target->ram_bytes, options.n_ctx, plan->smallest_ram_bytes, error);
    plan->file_target_bytes = target->ram_bytes - around;
  } else if (target->size_bytes) {
    plan->file_target_bytes = target->size_bytes;
  } else if (!target->bits) {
    plan->file_target_bytes = qz_curves_bytes_for_bpw (curves, target->bpw);
  }
  if (!target->bits && plan->file_target_bytes < least)
    return too_small (plan->file_target_bytes, 0, (least + ROUND_BYTES - 1) / ROUND_BYTES * ROUND_BYTES, error);
  QzPreview preview;
  if (target->bits) {
    qz_curves_preview_uniform (curves, target->bits, &preview);
    plan->file_target_bytes = preview.file_bytes + NAMES_BYTES;
  } else {
    qz_curves_preview (curves, plan->file_target_bytes, &preview);
  }
  eng_memory_plan (&plan->memory, traits, preview.file_bytes, &options, target->threads, target->program_base_bytes);
  plan->bpw = preview.bpw;
  plan->expected_kl = qz_expected_kl (preview.expected_kl, target->quality);
  plan->expected_top1 = qz_expected_top1 (plan->expected_kl);
  /* Every weight and, on average, half the cache is read for a token. */
  plan->expected_tokens_per_second = valise_bandwidth_get () / (double) (preview.file_bytes + plan->memory.kv_bytes / 2);
  return TRUE;
}

gboolean valise_library_plan (ValiseLibrary *library, ValiseModel *model, const ValiseTarget *target, ValisePlan *plan, GError **error)
{
  EngTraits traits;
  g_autoptr (QzCurves) curves = valise_library_get_curves (library, model, error);
  g_autoptr (EngGguf) gguf = curves ? eng_checkpoint_open (valise_model_get_path (model), error) : NULL;
  const QzOptions options = { .memory_bytes = target->memory_bytes, .quality = target->quality, .method = target->method };
  if (!gguf || !eng_traits_read (&traits, gguf, error) || !valise_plan_with_curves (curves, &traits, target, plan, error)
      || !qz_fit_memory (gguf, &options, target->threads, &plan->fit_memory_bytes, error))
    return FALSE;
  plan->source_bits = qz_source_bits (gguf);
  return TRUE;
}

JsonObject *valise_plan_to_json (const ValisePlan *plan)
{
  JsonObject *object = json_object_new ();
  json_object_set_int_member (object, "weights_bytes", (gint64) plan->memory.weights_bytes);
  json_object_set_int_member (object, "kv_bytes", (gint64) plan->memory.kv_bytes);
  json_object_set_int_member (object, "scratch_bytes", (gint64) plan->memory.scratch_bytes);
  json_object_set_int_member (object, "program_bytes", (gint64) plan->memory.program_bytes);
  json_object_set_int_member (object, "total_bytes", (gint64) plan->memory.total_bytes);
  json_object_set_int_member (object, "smallest_ram_bytes", (gint64) plan->smallest_ram_bytes);
  json_object_set_int_member (object, "fit_memory_bytes", (gint64) plan->fit_memory_bytes);
  valise_json_set_number (object, "bpw", plan->bpw);
  valise_json_set_number (object, "expected_kl", plan->expected_kl);
  valise_json_set_number (object, "expected_top1", plan->expected_top1);
  valise_json_set_number (object, "expected_tokens_per_second", plan->expected_tokens_per_second);
  valise_json_set_number (object, "source_bits", plan->source_bits);
  json_object_set_boolean_member (object, "is_estimate", plan->is_estimate);
  return object;
}

/* ---- helpers ---- */

static gboolean check_target (const ValiseTarget *target, GError **error)
{
  if ((target->ram_bytes != 0) + (target->size_bytes != 0) + (target->bpw != 0) + (target->bits != 0) != 1) {
    g_set_error (error, VALISE_ERROR, VALISE_ERROR_ARGUMENT,
                 "say how large the model may be in exactly one way: RAM, file size, bits per weight, or the same bits for every weight");
    return FALSE;
  }
  if (target->bpw != 0 && !(target->bpw > 0 && target->bpw <= 32)) {
    g_set_error (error, VALISE_ERROR, VALISE_ERROR_ARGUMENT, "%g is not a number of bits per weight: choose one between 1 and 8", target->bpw);
    return FALSE;
  }
  if (target->bits > 8) {
    g_set_error (error, VALISE_ERROR, VALISE_ERROR_ARGUMENT, "weights have 1 to 8 bits, not %u", target->bits);
    return FALSE;
  }
  if (target->method != QZ_METHOD_XBIT && !target->bits) {
    g_set_error (error, VALISE_ERROR, VALISE_ERROR_ARGUMENT, "%s gives all weights the same bits: say how many with --bits", qz_method_name (target->method));
    return FALSE;
  }
  return TRUE;
}

/* n_ctx 0: it is the file's size that was asked for. */
static gboolean too_small (guint64 asked, guint n_ctx, guint64 smallest, GError **error)
{
  g_autofree char *have = valise_size_format (asked);
  g_autofree char *what = n_ctx ? g_strdup_printf ("of RAM is too small for this model with a context of %u tokens", n_ctx)
                                : g_strdup ("is too small for a file of this model");
  g_set_error (error, VALISE_ERROR, VALISE_ERROR_TOO_SMALL, "%s %s: the smallest possible is %.1fM", have, what, (double) smallest / 1e6);
  return FALSE;
}
