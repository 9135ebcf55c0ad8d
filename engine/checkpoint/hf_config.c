/* hf_config.c: config.json told as GGUF's keys: a row for each family, a row for each number. */
#include "engine/checkpoint/hf.h"

#include "engine/error.h"
#include "engine/families.h"

#include <math.h>
#include <string.h>

static const HfFamily families[] = {
  { "llama", "llama", HF_HALVES | HF_WINDOW },
  { "mistral", "llama", HF_HALVES | HF_WINDOW },
  { "mixtral", "llama", HF_HALVES | HF_WINDOW },
  { "internlm3", "llama", HF_HALVES },
  { "ministral3", "mistral3", HF_HALVES },
  { "qwen2", "qwen2", 0 },
  { "qwen3", "qwen3", 0 },
  { "qwen2_moe", "qwen2moe", 0 },
  { "qwen3_moe", "qwen3moe", 0 },
  { "qwen2_vl", "qwen2vl", 0 },
  { "qwen2_vl_text", "qwen2vl", 0 },
  { "qwen2_5_vl", "qwen2vl", 0 },
  { "qwen2_5_vl_text", "qwen2vl", 0 },
  { "qwen3_vl_text", "qwen3vl", 0 },
  { "qwen3_vl_moe_text", "qwen3vlmoe", 0 },
  { "gemma", "gemma", HF_GAINS_LESS_ONE },
  { "gemma2", "gemma2", HF_GAINS_LESS_ONE | HF_SANDWICH | HF_WINDOW },
  { "gemma3_text", "gemma3", HF_GAINS_LESS_ONE | HF_SANDWICH | HF_WINDOW },
  { "phi", "phi2", HF_LAYER_NORM },
  { "phi3", "phi3", HF_WINDOW },
  { "gpt_oss", "gpt-oss", HF_SANDWICH | HF_WINDOW | HF_EXPERTS_TURNED | HF_EXPERTS_MIXED },
  { "deepseek_v2", "deepseek2", 0 },
  { "deepseek_v3", "deepseek2", HF_SIGMOID },
  { "kimi_k2", "deepseek2", HF_SIGMOID },
  { "granite", "granite", HF_HALVES },
  { "granitemoe", "granitemoe", HF_HALVES },
  { "minicpm", "minicpm", HF_HALVES },
  { "olmo", "olmo", HF_HALVES | HF_LAYER_NORM },
  { "olmo2", "olmo2", HF_SANDWICH },
  { "olmo3", "olmo2", HF_SANDWICH | HF_WINDOW },
  { "olmoe", "olmoe", 0 },
  { "smollm3", "smollm3", HF_HALVES },
  { "stablelm", "stablelm", HF_LAYER_NORM },
  { "gpt_neox", "gptneox", HF_LAYER_NORM | HF_QKV_BY_HEAD },
  { "falcon", "falcon", HF_LAYER_NORM | HF_QKV_BY_GROUP },
  { "gpt2", "gpt2", HF_LAYER_NORM | HF_TURNED },
  { "gpt_bigcode", "starcoder", HF_LAYER_NORM },
  { "starcoder2", "starcoder2", HF_LAYER_NORM | HF_WINDOW },
  { "bloom", "bloom", HF_LAYER_NORM | HF_QKV_BY_HEAD },
  { "mpt", "mpt", HF_LAYER_NORM },
  { "cohere", "command-r", HF_LAYER_NORM },
  { "cohere2", "cohere2", HF_LAYER_NORM | HF_WINDOW },
  { "chatglm", "chatglm", 0 },
  { "glm", "chatglm", 0 },
  { "glm4", "glm4", 0 },
  { "glm4_moe", "glm4moe", HF_SANDWICH },
  { "dots1", "dots1", 0 },
  { "bitnet", "bitnet-b1.58", 0 },
  { "exaone", "exaone", 0 },
  { "exaone4", "exaone4", HF_SANDWICH | HF_WINDOW },
  { "ernie4_5", "ernie4_5", 0 },
  { "ernie4_5_moe", "ernie4_5-moe", 0 },
  { "hunyuan_v1_dense", "hunyuan-dense", 0 },
  { "hunyuan_v1_moe", "hunyuan-moe", 0 },
  { "seed_oss", "seed_oss", HF_SANDWICH },
  { "internlm2", "internlm2", HF_HALVES | HF_QKV_BY_GROUP },
  { "xverse", "xverse", HF_HALVES },
  { "orion", "orion", HF_LAYER_NORM },
  { "arcee", "arcee", HF_HALVES },
  { "nemotron", "nemotron", HF_LAYER_NORM | HF_GAINS_LESS_ONE },
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

/* A list of equal numbers, one for each layer, is that number. */
static JsonNode *number_at (JsonObject *object, const char *name)
{
  JsonNode *node = find (object, name);
  JsonArray *list = node && JSON_NODE_HOLDS_ARRAY (node) ? json_node_get_array (node) : NULL;
  for (guint i = 0; list && i < json_array_get_length (list); i++)
    if (!is_number (json_array_get_element (list, i)) || json_array_get_double_element (list, i) != json_array_get_double_element (list, 0))
      return NULL;
  if (list && json_array_get_length (list) > 0)
    node = json_array_get_element (list, 0);
  return is_number (node) ? node : NULL;
}

gint64 hf_int (JsonObject *object, const char *name, gint64 fallback)
{
  JsonNode *node = number_at (object, name);
  double number = node ? json_node_get_double (node) : NAN;
  return number > -0x1p62 && number < 0x1p62 ? (gint64) number : fallback;
}

double hf_float (JsonObject *object, const char *name, double fallback)
{
  JsonNode *node = number_at (object, name);
  return node ? json_node_get_double (node) : fallback;
}

double hf_number (JsonObject *object, const char *const *names)
{
  double value = NAN;
  for (guint i = 0; names[i] && isnan (value); i++)
    value = hf_float (object, names[i], NAN);
  return value;
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

void hf_set_int (EngGgufWriter *w, const Hf *hf, const char *key, gint64 value)
{
  g_autofree char *full = g_strconcat (hf->family->architecture, ".", key, NULL);
  eng_gguf_writer_set_u32 (w, full, (guint32) CLAMP (value, 0, G_MAXUINT32));
}

void hf_set_float (EngGgufWriter *w, const Hf *hf, const char *key, double value)
{
  g_autofree char *full = g_strconcat (hf->family->architecture, ".", key, NULL);
  eng_gguf_writer_set_f32 (w, full, (float) value);
}

void hf_set_string (EngGgufWriter *w, const Hf *hf, const char *key, const char *value)
{
  g_autofree char *full = g_strconcat (hf->family->architecture, ".", key, NULL);
  eng_gguf_writer_set_string (w, full, value);
}

static void set_bool (EngGgufWriter *w, const Hf *hf, const char *key, gboolean value)
{
  g_autofree char *full = g_strconcat (hf->family->architecture, ".", key, NULL);
  eng_gguf_writer_set_bool (w, full, value);
}

/* ---- the plain keys ------------------------------------------------------------------------------------------------------------ */

static const char *const layers_names[] = { "num_hidden_layers", "n_layer", "n_layers", "num_layers", NULL };
static const char *const embd_names[] = { "hidden_size", "n_embd", "d_model", NULL };
static const char *const heads_names[] = { "num_attention_heads", "n_head", "n_heads", NULL };
static const char *const kv_names[] = { "num_key_value_heads", "multi_query_group_num", "attn_config.kv_n_heads", NULL };
static const char *const expert_names[] = { "num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts", NULL };
static const char *const expert_ff_names[] = { "moe_intermediate_size", "intermediate_size", NULL };
static const char *const epsilon_names[] = { "rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon", "norm_epsilon", "norm_eps", "layernorm_epsilon", NULL };

/* One number of config.json under the first name that is there. */
static const struct {
  const char *key, *names[5];
  gboolean is_float;
} numbers[] = {
  { "feed_forward_length", { "intermediate_size", "ffn_hidden_size", "n_inner" } },
  { "context_length", { "max_position_embeddings", "n_positions", "max_seq_len", "seq_length" } },
  { "vocab_size", { "vocab_size", "padded_vocab_size" } },
  { "attn_logit_softcapping", { "attn_logit_softcapping" }, TRUE },
  { "final_logit_softcapping", { "final_logit_softcapping" }, TRUE },
  { "embedding_scale", { "embedding_multiplier", "scale_emb" }, TRUE },
  { "residual_scale", { "residual_multiplier" }, TRUE },
  { "attention.scale", { "attention_multiplier" }, TRUE },
  { "logit_scale", { "logits_scaling", "logit_scale" }, TRUE },
  { "attention.clamp_kqv", { "clip_qkv", "attn_config.clip_qkv" }, TRUE },
  { "expert_used_count", { "num_experts_per_tok", "moe_k", "moe_topk" } },
  { "expert_feed_forward_length", { "moe_intermediate_size" } },
  { "expert_shared_feed_forward_length", { "shared_expert_intermediate_size" } },
  { "expert_shared_count", { "n_shared_experts", "moe_num_shared_experts" } },
  { "expert_weights_scale", { "routed_scaling_factor" }, TRUE },
  { "leading_dense_block_count", { "first_k_dense_replace", "moe_layer_start_index" } },
  { "interleave_moe_layer_step", { "moe_layer_interval" } },
};

static void write_numbers (const Hf *hf, EngGgufWriter *w)
{
  for (guint i = 0; i < G_N_ELEMENTS (numbers); i++) {
    double value = hf_number (hf->config, numbers[i].names);
    if (isnan (value))
      continue;
    if (numbers[i].is_float)
      hf_set_float (w, hf, numbers[i].key, value);
    else
      hf_set_int (w, hf, numbers[i].key, value > -0x1p62 && value < 0x1p62 ? (gint64) value : 0);
  }
}

/* ---- windows, experts and the rest ------------------------------------------------------------------------------------------------- */

/* Which layers see a window, told layer by layer, or by the period after which one sees everything. */
static gboolean write_window (const Hf *hf, EngGgufWriter *w, GError **error)
{
  gint64 window = hf_int (hf->config, "sliding_window", 0), period = hf_int (hf->config, "sliding_window_pattern", hf_int (hf->config, "_sliding_window_pattern", 0));
  JsonArray *types = hf_array (hf->config, "layer_types");
  gint32 windowed[1024] = { 0 };
  guint n = 0;
  for (guint i = 0; types && i < hf->n_layers && i < json_array_get_length (types); i++)
    n += (guint) (windowed[i] = g_strcmp0 (json_array_get_string_element (types, i), "sliding_attention") == 0);
  gboolean is_used = hf_bool (hf->config, "use_sliding_window", (hf->family->flags & HF_WINDOW) != 0) && (!types || n > 0)
                     && hf_int (hf->config, "max_window_layers", 0) < hf->n_layers;
  if (window <= 0 || !is_used)
    return TRUE;
  if (!(hf->family->flags & HF_WINDOW)) {
    g_set_error (error, ENG_ERROR, ENG_ERROR_UNSUPPORTED, "%s is a %s model some of whose layers see a window, which Valise knows without only", hf->folder,
                 hf->family->model_type);
    return FALSE;
  }
  hf_set_int (w, hf, "attention.sliding_window", window);
  if (types && json_array_get_length (types) >= hf->n_layers) {
    g_autofree char *key = g_strconcat (hf->family->architecture, ".attention.sliding_window_pattern", NULL);
    eng_gguf_writer_set_i32s (w, key, windowed, hf->n_layers);
  } else if (period > 0) {
    hf_set_int (w, hf, "attention.sliding_window_pattern", period);
  }
  return TRUE;
}

static void write_experts (const Hf *hf, EngGgufWriter *w)
{
  double experts = hf_number (hf->config, expert_names);
  if (!(experts > 1))
    return;
  hf_set_int (w, hf, "expert_count", (gint64) MIN (experts, 1 << 20));
  if (hf->family->flags & HF_SIGMOID || g_strcmp0 (hf_string (hf->config, "scoring_func", NULL), "sigmoid") == 0)
    hf_set_int (w, hf, "expert_gating_func", 2);
  if (json_object_has_member (hf->config, "norm_topk_prob"))
    set_bool (w, hf, "expert_weights_norm", hf_bool (hf->config, "norm_topk_prob", FALSE));
  /* The best groups only where it says so: DeepSeek V2's smaller members choose among all. */
  if (strcmp (hf_string (hf->config, "topk_method", "groups"), "greedy") != 0 && hf_int (hf->config, "n_group", 1) > 1) {
    hf_set_int (w, hf, "expert_group_count", hf_int (hf->config, "n_group", 1));
    hf_set_int (w, hf, "expert_group_used_count", hf_int (hf->config, "topk_group", 1));
  }
  if (strcmp (hf->family->architecture, "hunyuan-moe") == 0)
    hf_set_int (w, hf, "expert_shared_feed_forward_length", hf_int (hf->config, "num_shared_expert", 1) * (gint64) hf_number (hf->config, expert_ff_names));
  if (strcmp (hf->family->architecture, "gpt-oss") == 0 || strcmp (hf->family->architecture, "hunyuan-moe") == 0)
    hf_set_int (w, hf, "expert_feed_forward_length", (gint64) hf_number (hf->config, expert_ff_names));
}

/* What is reckoned from several numbers. */
static void write_scales (const Hf *hf, EngGgufWriter *w, double embd)
{
  double depth = hf_float (hf->config, "scale_depth", NAN), base = hf_float (hf->config, "dim_model_base", NAN), width = hf_float (hf->config, "query_pre_attn_scalar", NAN);
  double alibi = hf_float (hf->config, "attn_config.alibi_bias_max", NAN), epsilon = hf_number (hf->config, epsilon_names);
  if (!isnan (depth))
    hf_set_float (w, hf, "residual_scale", depth / sqrt (hf->n_layers));
  if (base > 0)
    hf_set_float (w, hf, "logit_scale", embd / base);
  if (width > 0)
    hf_set_float (w, hf, "attention.scale", 1 / sqrt (width));
  if (!isnan (alibi) && hf_bool (hf->config, "attn_config.alibi", FALSE))
    hf_set_float (w, hf, "attention.max_alibi_bias", alibi);
  if (!isnan (epsilon))
    hf_set_float (w, hf, hf->family->flags & HF_LAYER_NORM ? "attention.layer_norm_epsilon" : "attention.layer_norm_rms_epsilon", epsilon);
  if (json_object_has_member (hf->config, "use_parallel_residual"))
    set_bool (w, hf, "use_parallel_residual", hf_bool (hf->config, "use_parallel_residual", TRUE));
}

/* A feed-forward unit whose width is not told is four times as wide as the stream, or as many times as MPT says. */
static void write_width (const Hf *hf, EngGgufWriter *w, double embd)
{
  if (isnan (hf_number (hf->config, (const char *const[]) { "intermediate_size", "ffn_hidden_size", "n_inner", NULL })))
    hf_set_int (w, hf, "feed_forward_length", (gint64) (embd * CLAMP (hf_float (hf->config, "expansion_ratio", 4), 1, 64)));
}

/* ---- shape ------------------------------------------------------------------------------------------------------------------------ */

static gint64 kv_heads (const Hf *hf, gint64 heads)
{
  double said = hf_number (hf->config, kv_names);
  if (json_object_has_member (hf->config, "new_decoder_architecture")) { /* Falcon */
    if (hf_bool (hf->config, "new_decoder_architecture", FALSE))
      return hf_int (hf->config, "num_kv_heads", heads);
    return hf_bool (hf->config, "multi_query", TRUE) ? 1 : heads;
  }
  if (hf->family->flags & HF_QKV_BY_HEAD)
    return heads;
  if (json_object_has_member (hf->config, "multi_query")) /* StarCoder */
    return hf_bool (hf->config, "multi_query", TRUE) ? 1 : heads;
  return isnan (said) ? heads : (gint64) CLAMP (said, 0, 1 << 20);
}

/* Latent attention: the heads' keys are wider by what is turned. */
static gboolean write_latent (const Hf *hf, EngGgufWriter *w, GError **error)
{
  gint64 latent = hf_int (hf->config, "kv_lora_rank", 0), query = hf_int (hf->config, "q_lora_rank", 0), key = hf_int (hf->config, "qk_nope_head_dim", 0);
  gint64 turned = hf_int (hf->config, "qk_rope_head_dim", 0), value = hf_int (hf->config, "v_head_dim", 0);
  if (latent < 1 || latent > 1 << 16 || query < 0 || query > 1 << 20 || key < 1 || key > 4096 || turned < 1 || turned > 4096 || value < 1 || value > 4096) {
    g_set_error (error, ENG_ERROR, ENG_ERROR_FORMAT, "%s/config.json does not say how wide its latent attention is (kv_lora_rank, qk_nope_head_dim, qk_rope_head_dim, "
                 "v_head_dim); download it again", hf->folder);
    return FALSE;
  }
  hf_set_int (w, hf, "attention.kv_lora_rank", latent);
  if (query > 0)
    hf_set_int (w, hf, "attention.q_lora_rank", query);
  hf_set_int (w, hf, "attention.key_length", key + turned);
  hf_set_int (w, hf, "attention.value_length", value);
  return TRUE;
}

static gboolean write_shape (Hf *hf, EngGgufWriter *w, double *embd, GError **error)
{
  double width = hf_number (hf->config, embd_names), n_heads = hf_number (hf->config, heads_names), layers = hf_number (hf->config, layers_names);
  if (!(width >= 1) || !(width <= 1 << 20) || !(n_heads >= 1) || !(n_heads <= 4096) || !(layers >= 1) || !(layers <= 1024)) {
    g_set_error (error, ENG_ERROR, ENG_ERROR_FORMAT, "%s/config.json does not say how wide and deep the model is (hidden_size, num_attention_heads, "
                 "num_hidden_layers); download it again", hf->folder);
    return FALSE;
  }
  gboolean latent = strcmp (hf->family->architecture, "deepseek2") == 0;
  gint64 heads = (gint64) n_heads, kv = kv_heads (hf, heads), dim = hf_int (hf->config, latent ? "qk_rope_head_dim" : "head_dim", (gint64) width / heads);
  if (!latent)
    dim = hf_int (hf->config, "kv_channels", dim);
  if (kv < 1 || kv > heads || heads % kv != 0 || dim < 1 || dim > 512) {
    g_set_error (error, ENG_ERROR, ENG_ERROR_FORMAT, "%s/config.json: %" G_GINT64_FORMAT " key and value heads, or heads of %" G_GINT64_FORMAT ", make no sense; "
                 "download it again", hf->folder, kv, dim);
    return FALSE;
  }
  hf->n_embd = (guint) width;
  hf->n_layers = (guint) layers;
  hf->n_heads = (guint) heads;
  hf->n_kv_heads = (guint) kv;
  hf->head_dim = (guint) dim;
  *embd = (double) (gint64) width;
  hf_set_int (w, hf, "block_count", (gint64) layers);
  hf_set_int (w, hf, "embedding_length", (gint64) width);
  hf_set_int (w, hf, "attention.head_count", heads);
  hf_set_int (w, hf, "attention.head_count_kv", kv);
  if (latent)
    return write_latent (hf, w, error);
  hf_set_int (w, hf, "attention.key_length", dim);
  hf_set_int (w, hf, "attention.value_length", dim);
  return TRUE;
}

/* ---- what would be another model ------------------------------------------------------------------------------------------------------ */

static gboolean refuse (const Hf *hf, const char *what, GError **error)
{
  g_set_error (error, ENG_ERROR, ENG_ERROR_UNSUPPORTED, "%s is a %s model %s, which Valise does not know", hf->folder, hf->family->model_type, what);
  return FALSE;
}

static gboolean is_known_activation (const Hf *hf)
{
  static const char *const names[] = { "hidden_activation", "hidden_act", "activation_function", "activation" };
  const EngFamily *family = eng_family_find (hf->family->architecture);
  const char *said = NULL;
  for (guint i = 0; i < G_N_ELEMENTS (names) && !said; i++)
    said = hf_string (hf->config, names[i], NULL);
  if (!said)
    return TRUE;
  switch (family->activation) {
  case ENG_ACTIVATION_GELU: case ENG_ACTIVATION_GELU_TANH: return strstr (said, "gelu") != NULL;
  case ENG_ACTIVATION_RELU_SQUARED: return strcmp (said, "relu2") == 0 || strcmp (said, "relu_squared") == 0;
  default: return strcmp (said, "silu") == 0 || strncmp (said, "swi", 3) == 0;
  }
}

/* Where a family's members differ in what no key tells. */
static gboolean check_members (const Hf *hf, GError **error)
{
  JsonArray *turned = hf_array (hf->config, "no_rope_layers"); /* SmolLM3: a 1 for each layer with rope */
  for (guint i = 0; turned && i < json_array_get_length (turned); i++)
    if ((hf_int (hf->config, "no_rope_layer_interval", 4) != 4 && i == 0)
        || (is_number (json_array_get_element (turned, i)) && json_array_get_double_element (turned, i) != ((i + 1) % 4 != 0)))
      return refuse (hf, "whose layers without rope are not every fourth one", error);
  if (!is_known_activation (hf))
    return refuse (hf, "with another activation than its family's", error);
  if (hf_bool (hf->config, "alibi", FALSE) && strcmp (hf->family->architecture, "falcon") == 0)
    return refuse (hf, "whose scores fall with distance", error);
  if (hf_bool (hf->config, "apply_residual_connection_post_layernorm", FALSE))
    return refuse (hf, "whose residual stream is normed", error);
  if (hf_bool (hf->config, "scale_attn_by_inverse_layer_idx", FALSE) || !hf_bool (hf->config, "scale_attn_weights", TRUE))
    return refuse (hf, "with scores scaled otherwise", error);
  if (json_object_has_member (hf->config, "parallel_attn") && !hf_bool (hf->config, "parallel_attn", TRUE))
    return refuse (hf, "whose halves of a layer follow each other", error);
  if (strcmp (hf->family->model_type, "gpt_bigcode") == 0 && !hf_bool (hf->config, "multi_query", TRUE))
    return refuse (hf, "with keys and values of each head", error);
  gint64 end = hf_int (hf->config, "moe_layer_end_index", hf->n_layers - 1);
  if (end >= 0 && end != hf->n_layers - 1)
    return refuse (hf, "whose last layers are without experts", error);
  return TRUE;
}

gboolean hf_write_keys (Hf *hf, EngGgufWriter *w, GError **error)
{
  g_autofree char *base = g_path_get_basename (hf->folder);
  double embd;
  eng_gguf_writer_set_string (w, "general.architecture", hf->family->architecture);
  eng_gguf_writer_set_string (w, "general.name", base);
  if (!write_shape (hf, w, &embd, error) || !check_members (hf, error))
    return FALSE;
  write_numbers (hf, w);
  write_width (hf, w, embd);
  write_experts (hf, w);
  write_scales (hf, w, embd);
  return write_window (hf, w, error) && hf_write_rope (hf, w, error);
}
