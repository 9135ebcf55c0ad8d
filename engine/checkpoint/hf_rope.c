/* hf_rope.c: how config.json says that queries and keys are turned, told as GGUF's keys and tensors of factors. */
#include "engine/checkpoint/hf.h"

#include "engine/error.h"

#include <math.h>
#include <string.h>

/* transformers 5 keeps everything in rope_parameters, older ones apart; Gemma 3 and OLMo 3 have two sets. */
static double rope_number (const Hf *hf, const char *name, double fallback)
{
  const char *const places[] = { "rope_parameters", "rope_parameters.full_attention", "rope_scaling" };
  for (guint i = 0; i < G_N_ELEMENTS (places); i++) {
    g_autofree char *full = g_strconcat (places[i], ".", name, NULL);
    double value = hf_float (hf->config, full, NAN);
    if (!isnan (value))
      return value;
  }
  return hf_float (hf->config, name, fallback);
}

/* "mrope" turns text as the plain kind does; a stretch that is given as alpha stretches theta alone (Hunyuan). */
static const char *rope_kind (const Hf *hf)
{
  const char *const places[] = { "rope_parameters.rope_type", "rope_parameters.full_attention.rope_type", "rope_scaling.rope_type", "rope_scaling.type" };
  const char *kind = NULL;
  for (guint i = 0; i < G_N_ELEMENTS (places) && !kind; i++)
    kind = hf_string (hf->config, places[i], NULL);
  if (!kind || strcmp (kind, "mrope") == 0 || (strcmp (kind, "dynamic") == 0 && rope_number (hf, "alpha", 0) > 0))
    return "default";
  return kind;
}

static double theta_of (const Hf *hf)
{
  double theta = rope_number (hf, "rope_theta", hf_float (hf->config, "rotary_emb_base", 10000)) * hf_float (hf->config, "rope_ratio", 1);
  double alpha = rope_number (hf, "alpha", 0);
  return alpha > 0 && hf->head_dim > 2 ? theta * pow (alpha, hf->head_dim / (hf->head_dim - 2.0)) : theta;
}

guint hf_n_rot (const Hf *hf)
{
  double part = rope_number (hf, "partial_rotary_factor", hf_float (hf->config, "rotary_pct", strcmp (hf->family->model_type, "chatglm") == 0 ? 0.5 : 1));
  guint n = (guint) (hf->head_dim * CLAMP (part, 0, 1));
  return n - n % 2;
}

/* What YaRN multiplies sines and cosines by: GGUF has it as a factor beside the plain one; of latent attention alone. */
static void write_yarn (const Hf *hf, EngGgufWriter *w, double factor)
{
  double mscale = rope_number (hf, "mscale", 0), all = rope_number (hf, "mscale_all_dim", 0), log_factor = factor > 1 ? log (factor) : 0;
  double plain = 0.1 * log_factor + 1, ratio = mscale != 0 && all != 0 ? (0.1 * mscale * log_factor + 1) / (0.1 * all * log_factor + 1) : plain;
  double magnitude = rope_number (hf, "attention_factor", ratio);
  if (strcmp (hf->family->architecture, "deepseek2") == 0 && all > 0) {
    hf_set_float (w, hf, "rope.scaling.attn_factor", magnitude);
    hf_set_float (w, hf, "rope.scaling.yarn_log_multiplier", 0.1 * all);
  } else {
    hf_set_float (w, hf, "rope.scaling.attn_factor", magnitude / plain);
  }
  hf_set_float (w, hf, "rope.scaling.yarn_beta_fast", rope_number (hf, "beta_fast", 32));
  hf_set_float (w, hf, "rope.scaling.yarn_beta_slow", rope_number (hf, "beta_slow", 1));
}

gboolean hf_write_rope (const Hf *hf, EngGgufWriter *w, GError **error)
{
  const char *kind = rope_kind (hf), *const known[] = { "default", "linear", "dynamic", "yarn", "llama3", "longrope", "su" };
  gboolean is_known = FALSE;
  for (guint i = 0; i < G_N_ELEMENTS (known); i++)
    is_known |= strcmp (kind, known[i]) == 0;
  if (!is_known) {
    g_set_error (error, ENG_ERROR, ENG_ERROR_UNSUPPORTED, "%s/config.json: rope of the kind \"%.40s\" is not known to Valise", hf->folder, kind);
    return FALSE;
  }
  gint64 context = hf_int (hf->config, "max_position_embeddings", 2048);
  double factor = rope_number (hf, "factor", 1), original = rope_number (hf, "original_max_position_embeddings", 0);
  gint64 first = original > 0 ? (gint64) MIN (original, 0x1p30) : context;
  hf_set_int (w, hf, "rope.dimension_count", hf_n_rot (hf));
  hf_set_float (w, hf, "rope.freq_base", theta_of (hf));
  double local = hf_float (hf->config, "rope_parameters.sliding_attention.rope_theta", hf_float (hf->config, "rope_local_base_freq", NAN));
  if (!isnan (local))
    hf_set_float (w, hf, "rope.freq_base_swa", local);
  if (hf->family->flags & HF_HALVES || !hf_bool (hf->config, "rope_interleave", TRUE))
    eng_gguf_writer_set_bool (w, "valise.rope.halves", TRUE);
  double temperature = rope_number (hf, "llama_4_scaling_beta", 0);
  if (temperature > 0)
    hf_set_float (w, hf, "attention.temperature_scale", temperature);
  if (strcmp (kind, "linear") == 0 || strcmp (kind, "yarn") == 0 || strcmp (kind, "dynamic") == 0) {
    hf_set_string (w, hf, "rope.scaling.type", kind);
    hf_set_float (w, hf, "rope.scaling.factor", factor);
  }
  if (strcmp (kind, "yarn") == 0) {
    hf_set_int (w, hf, "rope.scaling.original_context_length", first);
    write_yarn (hf, w, factor);
  } else if (strcmp (kind, "longrope") == 0 || strcmp (kind, "su") == 0) {
    double stretch = original > 0 ? (double) context / original : 1;
    double attention = rope_number (hf, "attention_factor", stretch > 1 ? sqrt (1 + log (stretch) / log (original)) : 1);
    hf_set_string (w, hf, "rope.scaling.type", "longrope");
    hf_set_int (w, hf, "rope.scaling.original_context_length", first);
    hf_set_float (w, hf, "rope.scaling.attn_factor", attention);
  }
  return TRUE;
}

static float *long_factors (const Hf *hf, const char *which, guint pairs)
{
  g_autofree char *newer = g_strconcat ("rope_parameters.", which, NULL), *older = g_strconcat ("rope_scaling.", which, NULL);
  JsonArray *list = hf_array (hf->config, newer) ? hf_array (hf->config, newer) : hf_array (hf->config, older);
  if (!list || json_array_get_length (list) != pairs)
    return NULL;
  float *factors = g_new (float, pairs + 1);
  for (guint i = 0; i < pairs; i++) {
    JsonNode *node = json_array_get_element (list, i);
    factors[i] = JSON_NODE_HOLDS_VALUE (node) ? (float) json_node_get_double (node) : 0; /* of no number 0, which is refused where it is used */
  }
  return factors;
}

float *hf_rope_factors (const Hf *hf, const char *tensor, guint *n)
{
  const char *kind = rope_kind (hf);
  guint pairs = *n = hf_n_rot (hf) / 2;
  if (strcmp (tensor, "rope_freqs.weight") != 0)
    return strcmp (kind, "longrope") == 0 || strcmp (kind, "su") == 0
             ? long_factors (hf, strcmp (tensor, "rope_factors_long.weight") == 0 ? "long_factor" : "short_factor", pairs)
             : NULL;
  if (strcmp (kind, "llama3") != 0)
    return NULL;
  double factor = rope_number (hf, "factor", 8), low = rope_number (hf, "low_freq_factor", 1), high = rope_number (hf, "high_freq_factor", 4);
  double original = rope_number (hf, "original_max_position_embeddings", 8192), theta = theta_of (hf);
  float *factors = g_new (float, pairs + 1);
  for (guint i = 0; i < pairs; i++) {
    double turns = original * pow (theta, -2.0 * i / (2.0 * pairs)) / (2 * G_PI), smooth = (turns - low) / (high - low);
    factors[i] = (float) (turns < low ? factor : turns > high ? 1 : 1 / ((1 - smooth) / factor + smooth));
  }
  return factors;
}
