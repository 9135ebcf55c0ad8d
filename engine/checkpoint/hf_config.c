/* hf_config.c: config.json told as GGUF's keys: a row for each family, a row for each number. */
#include "engine/checkpoint/hf.h"

#include "engine/error.h"

#include <math.h>
#include <string.h>

static const HfFamily families[] = {
  { "llama", "llama", HF_HALVES | HF_WINDOW },
  { "mistral", "llama", HF_HALVES | HF_WINDOW },
  { "mixtral", "llama", HF_HALVES | HF_WINDOW },
  { "qwen2", "qwen2", 0 },
  { "qwen3", "qwen3", 0 },
  { "qwen2_moe", "qwen2moe", 0 },
  { "qwen3_moe", "qwen3moe", 0 },
  { "gemma", "gemma", HF_GAINS_LESS_ONE },
  { "gemma2", "gemma2", HF_GAINS_LESS_ONE | HF_SANDWICH | HF_WINDOW },
  { "gemma3_text", "gemma3", HF_GAINS_LESS_ONE | HF_SANDWICH | HF_WINDOW },
  { "phi", "phi2", HF_LAYER_NORM },
  { "phi3", "phi3", HF_WINDOW },
  { "granite", "granite", HF_HALVES | HF_LOGITS_SCALING },
  { "granitemoe", "granitemoe", HF_HALVES | HF_LOGITS_SCALING },
  { "olmo2", "olmo2", HF_SANDWICH },
  { "olmoe", "olmoe", 0 },
  { "smollm3", "smollm3", HF_HALVES },
  { "stablelm", "stablelm", HF_LAYER_NORM },
  { "gpt_neox", "gptneox", HF_LAYER_NORM | HF_QKV_BY_HEAD },
  { "falcon", "falcon", HF_LAYER_NORM | HF_QKV_BY_GROUP },
  { "starcoder2", "starcoder2", HF_LAYER_NORM | HF_WINDOW },
  { "cohere", "command-r", HF_LAYER_NORM },
  { "glm4", "glm4", 0 },
};

const HfFamily *hf_family_find (const char *model_type)
{
  for (guint i = 0; i < G_N_ELEMENTS (families); i++)
    if (strcmp (families[i].model_type, model_type) == 0)
      return &families[i];
  return NULL;
}

/* ---- values ------------------------------------------------------------------------------------------------------------------ */

static JsonNode *find (JsonObject *object, const char *name)
{
  const char *dot = strchr (name, '.');
  g_autofree char *first = dot ? g_strndup (name, (gsize) (dot - name)) : g_strdup (name);
  JsonNode *node = object ? json_object_get_member (object, first) : NULL;
  if (!node || !dot)
    return node;
  return JSON_NODE_HOLDS_OBJECT (node) ? find (json_node_get_object (node), dot + 1) : NULL;
}

static gboolean is_number (JsonNode *node)
{
  return node && JSON_NODE_HOLDS_VALUE (node) && (json_node_get_value_type (node) == G_TYPE_INT64 || json_node_get_value_type (node) == G_TYPE_DOUBLE);
}

gint64 hf_int (JsonObject *object, const char *name, gint64 fallback)
{
  JsonNode *node = find (object, name);
  if (!is_number (node))
    return fallback;
  double number = json_node_get_double (node);
  return number > -0x1p62 && number < 0x1p62 ? (gint64) number : fallback;
}

double hf_float (JsonObject *object, const char *name, double fallback)
{
  JsonNode *node = find (object, name);
  return is_number (node) ? json_node_get_double (node) : fallback;
}

gboolean hf_bool (JsonObject *object, const char *name, gboolean fallback)
{
  JsonNode *node = find (object, name);
  return node && JSON_NODE_HOLDS_VALUE (node) && json_node_get_value_type (node) == G_TYPE_BOOLEAN ? json_node_get_boolean (node) : fallback;
}

const char *hf_string (JsonObject *object, const char *name, const char *fallback)
{
  JsonNode *node = find (object, name);
  return node && JSON_NODE_HOLDS_VALUE (node) && json_node_get_value_type (node) == G_TYPE_STRING ? json_node_get_string (node) : fallback;
}

JsonArray *hf_array (JsonObject *object, const char *name)
{
  JsonNode *node = find (object, name);
  return node && JSON_NODE_HOLDS_ARRAY (node) ? json_node_get_array (node) : NULL;
}

/* ---- the plain keys ------------------------------------------------------------------------------------------------------------ */

/* One number of config.json under the first name that is there. */
static const struct {
  const char *key, *names[4];
  gboolean is_float;
} numbers[] = {
  { "block_count", { "num_hidden_layers", "n_layer" } },
  { "embedding_length", { "hidden_size", "n_embd" } },
  { "feed_forward_length", { "intermediate_size", "ffn_hidden_size", "n_inner" } },
  { "attention.head_count", { "num_attention_heads", "n_head" } },
  { "context_length", { "max_position_embeddings", "n_positions" } },
  { "expert_used_count", { "num_experts_per_tok" } },
  { "attn_logit_softcapping", { "attn_logit_softcapping" }, TRUE },
  { "final_logit_softcapping", { "final_logit_softcapping" }, TRUE },
  { "embedding_scale", { "embedding_multiplier" }, TRUE },
  { "residual_scale", { "residual_multiplier" }, TRUE },
  { "attention.scale", { "attention_multiplier" }, TRUE },
  { "expert_feed_forward_length", { "moe_intermediate_size" } },
  { "expert_shared_feed_forward_length", { "shared_expert_intermediate_size" } },
  { "vocab_size", { "vocab_size" } },
};

static void set_int (EngGgufWriter *w, const Hf *hf, const char *suffix, gint64 value)
{
  g_autofree char *key = g_strconcat (hf->family->architecture, ".", suffix, NULL);
  eng_gguf_writer_set_u32 (w, key, (guint32) CLAMP (value, 0, G_MAXUINT32));
}

static void set_float (EngGgufWriter *w, const Hf *hf, const char *suffix, double value)
{
  g_autofree char *key = g_strconcat (hf->family->architecture, ".", suffix, NULL);
  eng_gguf_writer_set_f32 (w, key, (float) value);
}

static void write_numbers (const Hf *hf, EngGgufWriter *w)
{
  for (guint i = 0; i < G_N_ELEMENTS (numbers); i++)
    for (guint k = 0; k < G_N_ELEMENTS (numbers[i].names) && numbers[i].names[k]; k++) {
      double value = hf_float (hf->config, numbers[i].names[k], NAN);
      if (isnan (value))
        continue;
      if (numbers[i].is_float)
        set_float (w, hf, numbers[i].key, value);
      else
        set_int (w, hf, numbers[i].key, hf_int (hf->config, numbers[i].names[k], 0));
      break;
    }
}

/* ---- rope ------------------------------------------------------------------------------------------------------------------------ */

/* transformers 5 keeps everything in rope_parameters, older ones apart; Gemma 3 has two sets. */
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

static const char *rope_kind (const Hf *hf)
{
  const char *const places[] = { "rope_parameters.rope_type", "rope_parameters.full_attention.rope_type", "rope_scaling.rope_type", "rope_scaling.type" };
  for (guint i = 0; i < G_N_ELEMENTS (places); i++) {
    const char *kind = hf_string (hf->config, places[i], NULL);
    if (kind)
      return kind;
  }
  return "default";
}

static guint n_rot_of (const Hf *hf)
{
  double part = rope_number (hf, "partial_rotary_factor", hf_float (hf->config, "rotary_pct", 1));
  guint n = (guint) (hf->head_dim * CLAMP (part, 0, 1));
  return n - n % 2;
}

static gboolean write_rope (const Hf *hf, EngGgufWriter *w, GError **error)
{
  const char *kind = rope_kind (hf), *const known[] = { "default", "linear", "yarn", "llama3", "longrope", "su" };
  gboolean is_known = FALSE;
  for (guint i = 0; i < G_N_ELEMENTS (known); i++)
    is_known |= strcmp (kind, known[i]) == 0;
  if (!is_known) {
    g_set_error (error, ENG_ERROR, ENG_ERROR_UNSUPPORTED, "%s/config.json: rope of the kind \"%.40s\" is not known to Valise", hf->folder, kind);
    return FALSE;
  }
  gint64 context = hf_int (hf->config, "max_position_embeddings", 2048);
  double factor = rope_number (hf, "factor", 1), original = rope_number (hf, "original_max_position_embeddings", 0);
  set_int (w, hf, "rope.dimension_count", n_rot_of (hf));
  set_float (w, hf, "rope.freq_base", rope_number (hf, "rope_theta", hf_float (hf->config, "rotary_emb_base", 10000)));
  double local = hf_float (hf->config, "rope_parameters.sliding_attention.rope_theta", hf_float (hf->config, "rope_local_base_freq", NAN));
  if (!isnan (local))
    set_float (w, hf, "rope.freq_base_swa", local);
  if (hf->family->flags & HF_HALVES)
    eng_gguf_writer_set_bool (w, "valise.rope.halves", TRUE);
  g_autofree char *key = g_strconcat (hf->family->architecture, ".rope.scaling.type", NULL);
  if (strcmp (kind, "linear") == 0 || strcmp (kind, "yarn") == 0) {
    eng_gguf_writer_set_string (w, key, kind);
    set_float (w, hf, "rope.scaling.factor", factor);
    if (strcmp (kind, "yarn") == 0) {
      set_int (w, hf, "rope.scaling.original_context_length", original > 0 ? (gint64) original : context);
      set_float (w, hf, "rope.scaling.yarn_beta_fast", rope_number (hf, "beta_fast", 32));
      set_float (w, hf, "rope.scaling.yarn_beta_slow", rope_number (hf, "beta_slow", 1));
    }
  } else if (strcmp (kind, "longrope") == 0 || strcmp (kind, "su") == 0) {
    double stretch = original > 0 ? (double) context / original : 1;
    double attention = rope_number (hf, "attention_factor", stretch > 1 ? sqrt (1 + log (stretch) / log (original)) : 1);
    eng_gguf_writer_set_string (w, key, "longrope");
    set_int (w, hf, "rope.scaling.original_context_length", original > 0 ? (gint64) original : context);
    set_float (w, hf, "rope.scaling.attn_factor", attention);
  }
  return TRUE;
}

float *hf_rope_factors (const Hf *hf, const char *tensor, guint *n)
{
  const char *kind = rope_kind (hf);
  guint pairs = n_rot_of (hf) / 2;
  *n = pairs;
  if (strcmp (tensor, "rope_freqs.weight") == 0) {
    if (strcmp (kind, "llama3") != 0)
      return NULL;
    double factor = rope_number (hf, "factor", 8), low = rope_number (hf, "low_freq_factor", 1), high = rope_number (hf, "high_freq_factor", 4);
    double original = rope_number (hf, "original_max_position_embeddings", 8192), theta = rope_number (hf, "rope_theta", 10000);
    float *factors = g_new (float, pairs + 1);
    for (guint i = 0; i < pairs; i++) {
      double turns = original * pow (theta, -2.0 * i / (2.0 * pairs)) / (2 * G_PI), smooth = (turns - low) / (high - low);
      factors[i] = (float) (turns < low ? factor : turns > high ? 1 : 1 / ((1 - smooth) / factor + smooth));
    }
    return factors;
  }
  const char *which = strcmp (tensor, "rope_factors_long.weight") == 0 ? "long_factor" : "short_factor";
  g_autofree char *newer = g_strconcat ("rope_parameters.", which, NULL), *older = g_strconcat ("rope_scaling.", which, NULL);
  JsonArray *list = hf_array (hf->config, newer) ? hf_array (hf->config, newer) : hf_array (hf->config, older);
  if ((strcmp (kind, "longrope") != 0 && strcmp (kind, "su") != 0) || !list || json_array_get_length (list) != pairs)
    return NULL;
  float *factors = g_new (float, pairs + 1);
  for (guint i = 0; i < pairs; i++)
    factors[i] = is_number (json_array_get_element (list, i)) ? (float) json_array_get_double_element (list, i) : 0;
  return factors;
}

/* ---- windows, experts and the rest ------------------------------------------------------------------------------------------------- */

static void write_window (const Hf *hf, EngGgufWriter *w)
{
  gint64 window = hf_int (hf->config, "sliding_window", 0);
  if (window <= 0 || !(hf->family->flags & HF_WINDOW) || !hf_bool (hf->config, "use_sliding_window", TRUE))
    return;
  set_int (w, hf, "attention.sliding_window", window);
  /* Every so many layers the last one sees everything; a list of layers that does not repeat so is told layer by layer by newer files only. */
  JsonArray *types = hf_array (hf->config, "layer_types");
  gint64 period = hf_int (hf->config, "sliding_window_pattern", 0);
  for (guint i = 0; types && period == 0 && i < json_array_get_length (types); i++)
    if (g_strcmp0 (json_array_get_string_element (types, i), "full_attention") == 0)
      period = i + 1;
  if (period > 0)
    set_int (w, hf, "attention.sliding_window_pattern", period);
}

gboolean hf_write_keys (Hf *hf, EngGgufWriter *w, GError **error)
{
  gint64 embd = hf_int (hf->config, "hidden_size", 0), heads = hf_int (hf->config, "num_attention_heads", 0), layers = hf_int (hf->config, "num_hidden_layers", 0);
  if (embd < 1 || embd > 1 << 20 || heads < 1 || heads > 4096 || layers < 1 || layers > 1024) {
    g_set_error (error, ENG_ERROR, ENG_ERROR_FORMAT, "%s/config.json does not say how wide and deep the model is (hidden_size, num_attention_heads, "
                 "num_hidden_layers); download it again", hf->folder);
    return FALSE;
  }
  gint64 kv = hf->family->flags & HF_QKV_BY_HEAD ? heads : hf_int (hf->config, "num_key_value_heads", heads), dim = hf_int (hf->config, "head_dim", embd / heads);
  if (hf->family->flags & HF_QKV_BY_GROUP)
    kv = hf_bool (hf->config, "new_decoder_architecture", FALSE) ? hf_int (hf->config, "num_kv_heads", heads)
         : hf_bool (hf->config, "multi_query", TRUE)             ? 1
                                                                 : heads;
  if (kv < 1 || kv > heads || heads % kv != 0 || dim < 1 || dim > 512) {
    g_set_error (error, ENG_ERROR, ENG_ERROR_FORMAT, "%s/config.json: %" G_GINT64_FORMAT " key and value heads, or heads of %" G_GINT64_FORMAT ", make no sense; "
                 "download it again", hf->folder, kv, dim);
    return FALSE;
  }
  hf->n_layers = (guint) layers;
  hf->n_heads = (guint) heads;
  hf->n_kv_heads = (guint) kv;
  hf->head_dim = (guint) dim;
  eng_gguf_writer_set_string (w, "general.architecture", hf->family->architecture);
  g_autofree char *base = g_path_get_basename (hf->folder);
  eng_gguf_writer_set_string (w, "general.name", base);
  if (hf->family->flags & HF_QKV_BY_GROUP && !json_object_has_member (hf->config, "ffn_hidden_size"))
    set_int (w, hf, "feed_forward_length", embd * 4);
  write_numbers (hf, w);
  set_int (w, hf, "attention.head_count_kv", kv);
  set_int (w, hf, "attention.key_length", dim);
  set_int (w, hf, "attention.value_length", dim);
  gint64 experts = hf_int (hf->config, "num_local_experts", hf_int (hf->config, "num_experts", 0));
  if (experts > 0)
    set_int (w, hf, "expert_count", experts);
  const char *const epsilons[] = { "rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon", "norm_epsilon" };
  for (guint i = 0; i < G_N_ELEMENTS (epsilons); i++)
    if (json_object_has_member (hf->config, epsilons[i]))
      set_float (w, hf, hf->family->flags & HF_LAYER_NORM ? "attention.layer_norm_epsilon" : "attention.layer_norm_rms_epsilon",
                 hf_float (hf->config, epsilons[i], 1e-5));
  double logits = hf_float (hf->config, hf->family->flags & HF_LOGITS_SCALING ? "logits_scaling" : "logit_scale", NAN);
  if (!isnan (logits))
    set_float (w, hf, "logit_scale", logits);
  if (json_object_has_member (hf->config, "use_parallel_residual")) {
    g_autofree char *key = g_strconcat (hf->family->architecture, ".use_parallel_residual", NULL);
    eng_gguf_writer_set_bool (w, key, hf_bool (hf->config, "use_parallel_residual", TRUE));
  }
  write_window (hf, w);
  return write_rope (hf, w, error);
}
