/* traits.c: what a file's metadata says about its decoder, checked. A family is a row of a table (families.c), not a file. */
#include "engine/error.h"
#include "engine/families.h"
#include "engine/model.h"
#include "kernels/ops.h"

#include <math.h>
#include <string.h>

/* ---- reading checked values ---------------------------------------------------------------------------------------------- */

typedef struct {
  const EngGguf *gguf;
  const char *prefix;
  GError **error;
} Reader;

static gboolean read_count (const Reader *reader, const char *suffix, gint64 fallback, guint max, guint *value)
{
  g_autofree char *key = g_strconcat (reader->prefix, ".", suffix, NULL);
  if (!eng_gguf_has (reader->gguf, key) && fallback == 0) {
    g_set_error (reader->error, ENG_ERROR, ENG_ERROR_FORMAT, "%s has no %s: the file is incomplete, download it again",
                 eng_gguf_path (reader->gguf), key);
    return FALSE;
  }
  EngKvType kind;
  gsize length = eng_gguf_array_length (reader->gguf, key, &kind);
  gint64 n = length > 0 ? eng_gguf_array_int (reader->gguf, key, 0) : eng_gguf_get_int (reader->gguf, key, fallback);
  for (gsize i = 1; i < length; i++)
    if (eng_gguf_array_int (reader->gguf, key, i) != n) {
      g_set_error (reader->error, ENG_ERROR, ENG_ERROR_UNSUPPORTED,
                   "%s: %s differs from layer to layer, which Valise does not know yet", eng_gguf_path (reader->gguf), key);
      return FALSE;
    }
  if (n < 1 || n > max) {
    g_set_error (reader->error, ENG_ERROR, ENG_ERROR_FORMAT,
                 "%s: %s is %" G_GINT64_FORMAT ", but must be 1 to %u: the file is damaged", eng_gguf_path (reader->gguf), key, n,
                 max);
    return FALSE;
  }
  *value = n;
  return TRUE;
}

static gboolean read_positive (const Reader *reader, const char *suffix, double fallback, float *value)
{
  g_autofree char *key = g_strconcat (reader->prefix, ".", suffix, NULL);
  *value = eng_gguf_get_float (reader->gguf, key, fallback);
  if (*value > 0 && *value < 1e30f)
    return TRUE;
  g_set_error (reader->error, ENG_ERROR, ENG_ERROR_FORMAT, "%s: %s is %g, but must be a positive number: the file is damaged",
               eng_gguf_path (reader->gguf), key, *value);
  return FALSE;
}

/* A multiplier that need not be there: 0 then. */
static gboolean read_optional (const Reader *reader, const char *suffix, float *value)
{
  g_autofree char *key = g_strconcat (reader->prefix, ".", suffix, NULL);
  *value = 0;
  return !eng_gguf_has (reader->gguf, key) || eng_gguf_get_float (reader->gguf, key, 0) == 0
         || read_positive (reader, suffix, 0, value);
}

static gboolean has_tensor (const EngGguf *gguf, const char *name)
{
  g_autofree char *packed = g_strconcat (name, ".xbit", NULL);
  return eng_gguf_find_tensor (gguf, name) != NULL || eng_gguf_find_tensor (gguf, packed) != NULL;
}

/* ---- rope ---------------------------------------------------------------------------------------------------------------- */

/* What YaRN multiplies sines and cosines by; where log_multiplier is given, the larger heads' scale already holds a part of it. */
static float yarn_magnitude (float factor, float log_multiplier)
{
  float plain = factor <= 1 ? 1 : 0.1f * logf (factor) + 1;
  return log_multiplier == 0 ? plain : plain / (factor <= 1 ? 1 : 0.1f * log_multiplier * logf (factor) + 1);
}

/* Llama 3's own scaling arrives as a tensor of factors, not as a kind; so do longrope's. */
static gboolean read_rope (const Reader *reader, const EngFamily *family, EngTraits *t)
{
  g_autofree char *type_key = g_strconcat (reader->prefix, ".rope.scaling.type", NULL);
  const char *type = eng_gguf_get_string (reader->gguf, type_key, "linear");
  gboolean yarn = strcmp (type, "yarn") == 0, ntk = strcmp (type, "dynamic") == 0, scaled = yarn || strcmp (type, "linear") == 0;
  float factor, attention_factor, log_multiplier;
  if (!scaled && !ntk && strcmp (type, "none") != 0 && strcmp (type, "longrope") != 0) {
    g_set_error (reader->error, ENG_ERROR, ENG_ERROR_UNSUPPORTED,
                 "%s: rope scaling \"%s\" is not known to Valise (none, linear, dynamic, yarn and longrope are)", eng_gguf_path (reader->gguf), type);
    return FALSE;
  }
  if (!read_positive (reader, "rope.freq_base", 10000, &t->rope_theta) || !read_optional (reader, "rope.scaling.factor", &factor)
      || (factor == 0 && !read_optional (reader, "rope.scale_linear", &factor))
      || !read_positive (reader, "rope.scaling.attn_factor", 1, &attention_factor)
      || !read_optional (reader, "rope.scaling.yarn_log_multiplier", &log_multiplier)
      || !read_count (reader, "rope.scaling.original_context_length", t->n_ctx_train, G_MAXINT, &t->rope_n_ctx))
    return FALSE;
  t->rope_halves = (family->flags & ENG_FAMILY_ROPE_HALVES) != 0 || eng_gguf_get_bool (reader->gguf, "valise.rope.halves", FALSE);
  factor = factor == 0 ? 1 : factor;
  t->rope_scale = scaled ? 1 / factor : 1;
  t->rope_ntk = ntk ? factor : 0;
  t->rope_magnitude = attention_factor;
  t->yarn_unrounded = (family->flags & ENG_FAMILY_YARN_UNROUNDED) != 0;
  if (t->latent > 0 && log_multiplier > 0) {
    /* The file holds a tenth of the multiplier; sines and cosines stay as they are, and scores grow by its square. */
    float magnitude = factor <= 1 ? 1 : 1 + log_multiplier * logf (factor);
    t->attention_scale = magnitude * magnitude / sqrtf (t->latent_key + t->n_rot);
  } else if (yarn) {
    t->rope_magnitude *= yarn_magnitude (factor, log_multiplier);
  }
  if (yarn
      && (!read_positive (reader, "rope.scaling.yarn_ext_factor", 1, &t->yarn_mix)
          || !read_positive (reader, "rope.scaling.yarn_beta_fast", 32, &t->yarn_fast)
          || !read_positive (reader, "rope.scaling.yarn_beta_slow", 1, &t->yarn_slow)))
    return FALSE;
  if (family->flags & ENG_FAMILY_NO_ROPE)
    memset (t->unturned, 0xff, sizeof t->unturned);
  for (guint i = 0; family->rope_period > 0 && i < t->n_layers; i++)
    if ((i + 1) % family->rope_period == 0)
      t->unturned[i / 32] |= 1u << i % 32;
  return TRUE;
}

/* Which layers see a window only: a list of booleans, or every layer but the last of each period. */
static gboolean read_window (const Reader *reader, const EngFamily *family, EngTraits *t)
{
  g_autofree char *window_key = g_strconcat (reader->prefix, ".attention.sliding_window", NULL);
  g_autofree char *pattern_key = g_strconcat (reader->prefix, ".attention.sliding_window_pattern", NULL);
  gint64 window = eng_gguf_get_int (reader->gguf, window_key, family->window);
  gint64 period = eng_gguf_get_int (reader->gguf, pattern_key, family->window_period);
  if (window <= 0 || family->window_period == 0)
    return TRUE;
  EngKvType kind;
  gsize listed = eng_gguf_array_length (reader->gguf, pattern_key, &kind);
  if (listed > 0 && listed < t->n_layers) {
    g_set_error (reader->error, ENG_ERROR, ENG_ERROR_FORMAT, "%s: %s lists %" G_GSIZE_FORMAT " of %u layers: the file is damaged",
                 eng_gguf_path (reader->gguf), pattern_key, listed, t->n_layers);
    return FALSE;
  }
  t->window = (guint)MIN (window, G_MAXINT);
  for (guint i = 0; i < t->n_layers; i++)
    if (listed > 0 ? eng_gguf_array_int (reader->gguf, pattern_key, i) != 0 : period <= 1 || i % period < period - 1)
      t->windowed[i / 32] |= 1u << i % 32;
  for (guint i = 0; (family->flags & ENG_FAMILY_WINDOWS_TURN) != 0 && i < G_N_ELEMENTS (t->unturned); i++)
    t->unturned[i] = ~t->windowed[i];
  if ((family->flags & ENG_FAMILY_LOCAL_ROPE) == 0)
    return TRUE;
  return read_positive (reader, "rope.freq_base_swa", family->local_theta > 0 ? family->local_theta : t->rope_theta, &t->rope_theta_local);
}

/* ---- experts ------------------------------------------------------------------------------------------------------------- */

/* How experts are scored and chosen. */
static gboolean read_choice (const Reader *reader, const EngFamily *family, EngTraits *t)
{
  g_autofree char *score_key = g_strconcat (reader->prefix, ".expert_gating_func", NULL);
  g_autofree char *norm_key = g_strconcat (reader->prefix, ".expert_weights_norm", NULL);
  g_autofree char *groups_key = g_strconcat (reader->prefix, ".expert_group_count", NULL);
  g_autofree char *step_key = g_strconcat (reader->prefix, ".interleave_moe_layer_step", NULL);
  gint64 score = eng_gguf_get_int (reader->gguf, score_key, 0), step = eng_gguf_get_int (reader->gguf, step_key, 1);
  const char *fault = score < 0 || score > 3 ? score_key : step != 1 ? step_key : NULL;
  if (fault != NULL) {
    g_set_error (reader->error, ENG_ERROR, ENG_ERROR_UNSUPPORTED, "%s: %s is %" G_GINT64_FORMAT ", which Valise does not know", eng_gguf_path (reader->gguf),
                 fault, fault == score_key ? score : step);
    return FALSE;
  }
  t->expert_score = score == 0 ? family->expert_score : (EngExpertScore)(score - 1);
  t->expert_norm = eng_gguf_get_bool (reader->gguf, norm_key, (family->flags & ENG_FAMILY_MOE_PLAIN) == 0 && t->expert_score != ENG_EXPERT_SOFTMAX_CHOSEN);
  if (!read_optional (reader, "expert_weights_scale", &t->expert_scale))
    return FALSE;
  return eng_gguf_get_int (reader->gguf, groups_key, 0) <= 1
         || (read_count (reader, "expert_group_count", 0, t->n_experts, &t->n_expert_groups)
             && read_count (reader, "expert_group_used_count", 0, t->n_expert_groups, &t->n_expert_groups_used));
}

/* n_ff, and the experts if there are any. */
static gboolean read_experts (const Reader *reader, const EngFamily *family, EngTraits *t)
{
  g_autofree char *count_key = g_strconcat (reader->prefix, ".expert_count", NULL);
  g_autofree char *width_key = g_strconcat (reader->prefix, ".expert_feed_forward_length", NULL);
  g_autofree char *shared_key = g_strconcat (reader->prefix, ".expert_shared_feed_forward_length", NULL);
  g_autofree char *shared_count_key = g_strconcat (reader->prefix, ".expert_shared_count", NULL);
  g_autofree char *lead_key = g_strconcat (reader->prefix, ".leading_dense_block_count", NULL);
  if (eng_gguf_get_int (reader->gguf, count_key, 0) <= 0)
    return read_count (reader, "feed_forward_length", 0, 1 << 22, &t->n_ff);
  if ((family->flags & ENG_FAMILY_MOE) == 0) {
    g_set_error (reader->error, ENG_ERROR, ENG_ERROR_UNSUPPORTED, "%s is a mixture of experts of architecture \"%s\", which Valise knows without experts only",
                 eng_gguf_path (reader->gguf), family->name);
    return FALSE;
  }
  const char *width = eng_gguf_has (reader->gguf, width_key) ? "expert_feed_forward_length" : "feed_forward_length";
  gint64 lead = eng_gguf_get_int (reader->gguf, lead_key, 0), n_shared = eng_gguf_get_int (reader->gguf, shared_count_key, 0);
  t->n_dense_lead = (guint)CLAMP (lead, 0, t->n_layers);
  if (!read_count (reader, width, 0, 1 << 22, &t->n_ff) || !read_count (reader, "expert_count", 0, 4096, &t->n_experts)
      || !read_count (reader, "expert_used_count", 0, t->n_experts, &t->n_experts_used) || !read_choice (reader, family, t)
      || (t->n_dense_lead > 0 && !read_count (reader, "feed_forward_length", 0, 1 << 22, &t->n_ff_dense)))
    return FALSE;
  if (eng_gguf_get_int (reader->gguf, shared_key, 0) > 0)
    return read_count (reader, "expert_shared_feed_forward_length", 0, 1 << 22, &t->n_ff_shared);
  t->n_ff_shared = (guint)CLAMP (n_shared, 0, (1 << 22) / t->n_ff) * t->n_ff;
  return TRUE;
}

/* ---- latent attention ---------------------------------------------------------------------------------------------------- */

/* Newer files speak of one key and value head as wide as the latent vector, older ones of the heads that it stands for. */
static gboolean read_latent (const Reader *reader, const EngFamily *family, EngTraits *t)
{
  g_autofree char *key = g_strconcat (reader->prefix, ".attention.key_length_mla", NULL);
  gboolean newer = eng_gguf_has (reader->gguf, key);
  guint key_length, value_length;
  if ((family->flags & ENG_FAMILY_LATENT) == 0)
    return TRUE;
  if (!read_count (reader, "attention.kv_lora_rank", 0, XB_MAX_KEY, &t->latent)
      || !read_count (reader, newer ? "attention.key_length_mla" : "attention.key_length", 0, 4096, &key_length)
      || !read_count (reader, newer ? "attention.value_length_mla" : "attention.value_length", 0, 4096, &value_length)
      || !read_count (reader, "rope.dimension_count", 0, 4096, &t->n_rot)
      || (has_tensor (reader->gguf, "blk.0.attn_q_a.weight") && !read_count (reader, "attention.q_lora_rank", 0, 1 << 20, &t->latent_query)))
    return FALSE;
  if (t->n_rot >= key_length || t->latent + t->n_rot > XB_MAX_KEY) {
    g_set_error (reader->error, ENG_ERROR, ENG_ERROR_UNSUPPORTED, "%s: a latent vector of %u with keys of %u, %u of them turned, is not known to Valise",
                 eng_gguf_path (reader->gguf), t->latent, key_length, t->n_rot);
    return FALSE;
  }
  t->latent_key = key_length - t->n_rot;
  t->latent_value = value_length;
  t->n_kv_heads = 1;
  t->head_dim = t->latent + t->n_rot;
  t->value_dim = t->latent;
  t->attention_scale = 1 / sqrtf (key_length);
  return TRUE;
}

/* ---- the rest ------------------------------------------------------------------------------------------------------------ */

static EngQkNorm qk_norm_of (const EngGguf *gguf, const EngTraits *t)
{
  const EngTensor *norm = eng_gguf_find_tensor (gguf, "blk.0.attn_q_norm.weight");
  if (norm == NULL)
    return ENG_QK_NORM_NONE;
  return norm->n_dims >= 2 && norm->dims[1] > 1 ? ENG_QK_NORM_HEADS : norm->dims[0] == t->head_dim ? ENG_QK_NORM_HEAD : ENG_QK_NORM_WIDTH;
}

/* What follows from the family and the tensors that are there. */
static void read_shape (const EngGguf *gguf, const EngFamily *family, EngTraits *t)
{
  guint flags = family->flags;
  g_autofree char *parallel_key = g_strconcat (family->name, ".use_parallel_residual", NULL);
  t->plain_norm = (flags & ENG_FAMILY_PLAIN_NORM) != 0;
  gboolean has_ffn_norm = t->plain_norm || has_tensor (gguf, flags & ENG_FAMILY_FFN_NORM_AFTER ? "blk.0.post_attention_norm.weight" : "blk.0.ffn_norm.weight");
  gboolean has_second = has_tensor (gguf, "blk.0.attn_norm_2.weight");
  t->layer_norm = (flags & ENG_FAMILY_LAYER_NORM) != 0;
  t->no_pre_norm = (flags & ENG_FAMILY_NO_PRE_NORM) != 0;
  t->post_norm = (flags & ENG_FAMILY_POST_NORM) != 0;
  t->ungated = (flags & ENG_FAMILY_UNGATED) != 0;
  t->fused_gate_up = (flags & ENG_FAMILY_FUSED_UP) != 0 && !has_tensor (gguf, "blk.0.ffn_gate.weight");
  t->late_qk_norm = (flags & ENG_FAMILY_LATE_QK_NORM) != 0;
  t->pictures = (flags & ENG_FAMILY_PICTURES) != 0 || eng_gguf_get_bool (gguf, "valise.pictures", FALSE);
  t->sub_norm = has_tensor (gguf, "blk.0.attn_sub_norm.weight");
  t->learned_positions = has_tensor (gguf, "position_embd.weight");
  t->activation = family->activation;
  t->qkv_bias = (flags & ENG_FAMILY_QKV_BIAS) != 0 || has_tensor (gguf, "blk.0.attn_q.bias");
  t->fused_qkv = has_tensor (gguf, "blk.0.attn_qkv.weight");
  t->qk_norm = qk_norm_of (gguf, t);
  /* StableLM's 12B is parallel and says so only by having one norm. */
  t->parallel = flags & ENG_FAMILY_PARALLEL ? eng_gguf_get_bool (gguf, parallel_key, TRUE)
                                            : t->layer_norm && !t->ungated && !has_ffn_norm;
  t->shared_norm = t->parallel && !has_ffn_norm && !has_second;
  t->tied_head = !has_tensor (gguf, "output.weight");
  if (flags & ENG_FAMILY_SCALED_EMBEDDING)
    t->embedding_scale = sqrtf (t->n_embd);
  if (family->wide_layers == t->n_layers)
    t->attention_scale = 1 / sqrtf ((float)t->n_embd / t->n_heads);
}

static gboolean read_scales (const Reader *reader, const EngFamily *family, EngTraits *t)
{
  float embedding, attention;
  if (!read_optional (reader, "embedding_scale", &embedding) || !read_optional (reader, "residual_scale", &t->residual_scale)
      || !read_optional (reader, "logit_scale", &t->logit_scale) || !read_optional (reader, "attention.scale", &attention)
      || !read_optional (reader, "attn_logit_softcapping", &t->attention_soft_cap)
      || !read_optional (reader, "final_logit_softcapping", &t->logit_soft_cap) || !read_optional (reader, "attention.clamp_kqv", &t->qkv_clamp)
      || !read_optional (reader, "attention.temperature_scale", &t->temperature_scale)
      || !read_optional (reader, "attention.max_alibi_bias", &t->alibi)
      || ((family->flags & ENG_FAMILY_SCALES_GIVEN) != 0
          && (!read_positive (reader, "embedding_scale", 0, &embedding) || !read_positive (reader, "residual_scale", 0, &t->residual_scale)
              || !read_positive (reader, "logit_scale", 0, &t->logit_scale))))
    return FALSE;
  t->alibi = t->alibi > 0 ? t->alibi : family->alibi;
  if (t->logit_scale > 0 && (family->flags & ENG_FAMILY_LOGIT_DIVISOR) != 0)
    t->logit_scale = 1 / t->logit_scale;
  t->embedding_scale = embedding > 0 ? embedding : t->embedding_scale;
  t->attention_scale = attention > 0 ? attention : t->attention_scale;
  return TRUE;
}

static gboolean read_vocabulary (const Reader *reader, EngTraits *traits)
{
  EngKvType kind;
  gsize n = eng_gguf_array_length (reader->gguf, "tokenizer.ggml.tokens", &kind);
  traits->n_merges = (guint)MIN (eng_gguf_array_length (reader->gguf, "tokenizer.ggml.merges", &kind), G_MAXINT);
  if (n == 0)
    return read_count (reader, "vocab_size", 0, 1 << 24, &traits->n_vocab);
  if (n > 1 << 24) {
    g_set_error (reader->error, ENG_ERROR, ENG_ERROR_FORMAT,
                 "%s: a vocabulary of %" G_GSIZE_FORMAT " tokens is beyond reason: the file is damaged",
                 eng_gguf_path (reader->gguf), n);
    return FALSE;
  }
  traits->n_vocab = n;
  return TRUE;
}

static gboolean is_raw (const EngGguf *gguf)
{
  for (guint i = 0; i < eng_gguf_n_tensors (gguf); i++) {
    guint type = eng_gguf_tensor (gguf, i)->type;
    if (type != ENG_TYPE_F32 && type != ENG_TYPE_F16 && type != ENG_TYPE_BF16)
      return FALSE;
  }
  return TRUE;
}

/* Only a suggestion: what makes no sense is as good as unsaid. */
static void read_planned_session (const EngGguf *gguf, EngTraits *traits)
{
  gint64 n_ctx = eng_gguf_get_int (gguf, "valise.fit.context", 0), kv_bits = eng_gguf_get_int (gguf, "valise.fit.kv_bits", 0);
  if (n_ctx < 1 || n_ctx > traits->n_ctx_train || (kv_bits != 16 && kv_bits != 8 && kv_bits != 4))
    return;
  traits->n_ctx_planned = (guint) n_ctx;
  traits->kv_bits_planned = (int) kv_bits;
}

static gboolean check_consistency (const Reader *reader, const EngTraits *t)
{
  g_autofree char *fault = NULL;
  if (t->n_heads % t->n_kv_heads != 0)
    fault = g_strdup_printf ("%u heads cannot share %u key and value heads evenly", t->n_heads, t->n_kv_heads);
  else if (t->n_rot > t->head_dim || t->n_rot % 2 != 0)
    fault = g_strdup_printf ("rope turns %u values of a head of %u", t->n_rot, t->head_dim);
  if (fault == NULL)
    return TRUE;
  g_set_error (reader->error, ENG_ERROR, ENG_ERROR_FORMAT, "%s: %s: the file is damaged", eng_gguf_path (reader->gguf), fault);
  return FALSE;
}

static guint64 count_parameters (const EngTraits *t)
{
  guint64 embd = t->n_embd, q = (guint64)t->n_heads * t->head_dim, kv = (guint64)t->n_kv_heads * (t->head_dim + t->value_dim);
  guint64 units = t->ungated ? 2 : 3, values = (guint64)t->n_heads * (t->latent > 0 ? t->latent_value : t->value_dim);
  guint64 attention = embd * (q + kv + values) + (t->qkv_bias ? q + kv : 0);
  if (t->latent > 0) {
    guint64 keys = (guint64)t->n_heads * (t->latent_key + t->n_rot);
    attention = (t->latent_query > 0 ? t->latent_query * (embd + keys) : embd * keys) + embd * (t->head_dim + values)
                + t->latent * ((guint64)t->n_heads * t->latent_key + values);
  }
  guint64 dense = units * embd * (t->n_experts > 0 ? t->n_ff_dense : t->n_ff);
  guint64 mixture = units * embd * ((guint64)t->n_ff * t->n_experts + t->n_ff_shared) + embd * t->n_experts;
  guint64 n_mixtures = t->n_experts > 0 ? t->n_layers - t->n_dense_lead : 0;
  return t->n_vocab * embd * (t->tied_head ? 1 : 2) + t->n_layers * (attention + 2 * embd) + n_mixtures * mixture + (t->n_layers - n_mixtures) * dense + embd
         + (t->learned_positions ? t->n_ctx_train * embd : 0);
}

/* What a file says of layers behind the decoder's own, which only guess tokens ahead, is left aside. */
static void leave_out_guessing_layers (const Reader *reader, EngTraits *t)
{
  g_autofree char *key = g_strconcat (reader->prefix, ".nextn_predict_layers", NULL);
  gint64 n = eng_gguf_get_int (reader->gguf, key, 0);
  if (n > 0 && n < t->n_layers)
    t->n_layers -= (guint)n;
}

gboolean eng_traits_read (EngTraits *traits, const EngGguf *gguf, GError **error)
{
  const char *name = eng_gguf_get_string (gguf, "general.architecture", NULL);
  if (name == NULL) {
    g_set_error (error, ENG_ERROR, ENG_ERROR_FORMAT,
                 "%s does not say which architecture it is (general.architecture): it is no language model", eng_gguf_path (gguf));
    return FALSE;
  }
  const EngFamily *family = eng_family_find (name);
  if (family == NULL) {
    g_autofree char *why = eng_family_refusal (name);
    g_set_error (error, ENG_ERROR, ENG_ERROR_UNSUPPORTED, "%s %s", eng_gguf_path (gguf), why);
    return FALSE;
  }
  gint64 version = eng_gguf_get_int (gguf, "valise.version", 0);
  if (version > ENG_FILE_VERSION) {
    g_set_error (error, ENG_ERROR, ENG_ERROR_UNSUPPORTED,
                 "%s was written by a newer Valise (file version %" G_GINT64_FORMAT ", this one reads up to %d): update Valise",
                 eng_gguf_path (gguf), version, ENG_FILE_VERSION);
    return FALSE;
  }

  Reader reader = { gguf, family->name, error };
  EngTraits t = { .file_bytes = eng_gguf_file_bytes (gguf) };
  const char *epsilon = family->flags & ENG_FAMILY_LAYER_NORM ? "attention.layer_norm_epsilon" : "attention.layer_norm_rms_epsilon";
  g_strlcpy (t.architecture, family->name, sizeof t.architecture);
  if (!read_count (&reader, "block_count", 0, ENG_MAX_LAYERS, &t.n_layers) || !read_count (&reader, "embedding_length", 0, 1 << 20, &t.n_embd))
    return FALSE;
  leave_out_guessing_layers (&reader, &t);
  if (!read_experts (&reader, family, &t)
      || !read_count (&reader, "attention.head_count", 0, 4096, &t.n_heads)
      || !read_count (&reader, "attention.head_count_kv", t.n_heads, 4096, &t.n_kv_heads)
      || !read_count (&reader, "attention.key_length", MAX (1, t.n_embd / t.n_heads), XB_MAX_KEY, &t.head_dim)
      || !read_count (&reader, "attention.value_length", t.head_dim, t.head_dim, &t.value_dim)
      || !read_count (&reader, "rope.dimension_count", t.head_dim, 4096, &t.n_rot)
      || !read_count (&reader, "context_length", 2048, G_MAXINT, &t.n_ctx_train)
      || !read_latent (&reader, family, &t) || !read_positive (&reader, epsilon, 1e-5, &t.norm_eps) || !read_rope (&reader, family, &t) || !read_window (&reader, family, &t)
      || !read_vocabulary (&reader, &t) || !check_consistency (&reader, &t))
    return FALSE;
  read_shape (gguf, family, &t);
  if (!read_scales (&reader, family, &t))
    return FALSE;
  t.n_parameters = count_parameters (&t);
  t.raw = is_raw (gguf);
  read_planned_session (gguf, &t);
  *traits = t;
  return TRUE;
}
