/* hf_names.c: where each module of a transformers model stands in GGUF's names. */
#include "engine/checkpoint/hf.h"

#include <stdio.h>
#include <string.h>

/* Outside of the layers. */
static const char *const outside[][2] = {
  { "embed_tokens", "token_embd" }, { "embed_in", "token_embd" }, { "word_embeddings", "token_embd" }, { "embedding.word_embeddings", "token_embd" },
  { "wte", "token_embd" }, { "tok_embeddings", "token_embd" }, { "word_embeddings_layernorm", "token_embd_norm" }, { "wpe", "position_embd" },
  { "norm", "output_norm" }, { "final_layernorm", "output_norm" }, { "final_layer_norm", "output_norm" }, { "encoder.final_layernorm", "output_norm" },
  { "ln_f", "output_norm" }, { "norm_f", "output_norm" }, { "lm_head", "output" }, { "embed_out", "output" }, { "output_layer", "output" }, { "output", "output" },
};

/* In a layer. */
static const char *const inside[][2] = {
  { "self_attn.q_proj", "attn_q" }, { "self_attn.k_proj", "attn_k" }, { "self_attn.v_proj", "attn_v" }, { "self_attn.o_proj", "attn_output" },
  { "attn.attention.q_proj", "attn_q" }, { "attn.attention.k_proj", "attn_k" }, { "attn.attention.v_proj", "attn_v" },
  { "attn.attention.out_proj", "attn_output" }, { "attention.wo", "attn_output" },
  { "self_attn.dense", "attn_output" }, { "attention.dense", "attn_output" }, { "self_attention.dense", "attn_output" },
  { "attn.c_proj", "attn_output" }, { "attn.out_proj", "attn_output" },
  { "self_attn.qkv_proj", "attn_qkv" }, { "attention.query_key_value", "attn_qkv" }, { "self_attention.query_key_value", "attn_qkv" },
  { "attn.c_attn", "attn_qkv" }, { "attn.Wqkv", "attn_qkv" }, { "attention.wqkv", "attn_qkv" },
  { "self_attn.q_norm", "attn_q_norm" }, { "self_attn.k_norm", "attn_k_norm" }, { "self_attn.q_layernorm", "attn_q_norm" },
  { "self_attn.k_layernorm", "attn_k_norm" }, { "self_attn.query_layernorm", "attn_q_norm" }, { "self_attn.key_layernorm", "attn_k_norm" },
  { "self_attn.q_a_proj", "attn_q_a" }, { "self_attn.q_a_layernorm", "attn_q_a_norm" }, { "self_attn.q_b_proj", "attn_q_b" },
  { "self_attn.kv_a_proj_with_mqa", "attn_kv_a_mqa" }, { "self_attn.kv_a_layernorm", "attn_kv_a_norm" }, { "self_attn.kv_b_proj", "attn_kv_b" },
  { "self_attn.attn_sub_norm", "attn_sub_norm" }, { "mlp.ffn_sub_norm", "ffn_sub_norm" }, { "self_attn.sinks", "attn_sinks" },
  { "mlp.gate_proj", "ffn_gate" }, { "feed_forward.w1", "ffn_gate" }, { "mlp.c_fc_0", "ffn_gate" },
  { "mlp.up_proj", "ffn_up" }, { "mlp.gate_up_proj", "ffn_up" }, { "mlp.dense_h_to_4h", "ffn_up" }, { "mlp.fc1", "ffn_up" }, { "mlp.c_fc", "ffn_up" },
  { "mlp.c_fc_1", "ffn_up" }, { "ffn.up_proj", "ffn_up" }, { "feed_forward.w3", "ffn_up" },
  { "mlp.down_proj", "ffn_down" }, { "mlp.dense_4h_to_h", "ffn_down" }, { "mlp.fc2", "ffn_down" }, { "mlp.c_proj", "ffn_down" },
  { "ffn.down_proj", "ffn_down" }, { "feed_forward.w2", "ffn_down" },
  { "input_layernorm", "attn_norm" }, { "ln_1", "attn_norm" }, { "norm_1", "attn_norm" }, { "attention_norm", "attn_norm" }, { "ln_mlp", "attn_norm" },
  { "ln_attn", "attn_norm_2" }, { "ln_2", "ffn_norm" }, { "norm_2", "ffn_norm" }, { "ffn_norm", "ffn_norm" }, { "pre_feedforward_layernorm", "ffn_norm" },
  { "post_self_attn_layernorm", "post_attention_norm" }, { "post_mlp_layernorm", "post_ffw_norm" }, { "post_feedforward_layernorm", "post_ffw_norm" },
  { "mlp.gate", "ffn_gate_inp" }, { "mlp.gate.wg", "ffn_gate_inp" }, { "mlp.router", "ffn_gate_inp" }, { "block_sparse_moe.gate", "ffn_gate_inp" },
  { "block_sparse_moe.router.layer", "ffn_gate_inp" }, { "mlp.shared_expert_gate", "ffn_gate_inp_shexp" },
  { "mlp.gate.e_score_correction_bias", "exp_probs_b" }, { "mlp.moe_statics.e_score_correction_bias", "exp_probs_b" },
};

/* Of one expert, of the unit that every token goes through, and of all experts in one tensor. */
static const char *const units[][2] = {
  { "gate_proj", "ffn_gate" }, { "up_proj", "ffn_up" }, { "down_proj", "ffn_down" }, { "w1", "ffn_gate" }, { "w3", "ffn_up" }, { "w2", "ffn_down" },
};
static const char *const shared[] = { "mlp.shared_expert.", "mlp.shared_experts.", "mlp.shared_mlp." };
static const char *const fused[][2] = {
  { "mlp.experts.gate_up_proj", "ffn_gate_exps" }, { "mlp.experts.down_proj", "ffn_down_exps" },
  { "block_sparse_moe.input_linear", "ffn_gate_exps" }, { "block_sparse_moe.output_linear", "ffn_down_exps" },
};

/* Parameters that are no module's weight or bias, and what hangs on to the name of experts in one tensor. */
static const char *const bare[] = { "sinks", "e_score_correction_bias", "gate_up_proj", "down_proj" };
static const char *const hanging[] = { "bias", "blocks", "scales" };

/* Constants that some programs save along, and the parts of a model that see pictures. */
static const char *const ignored[] = { "rotary_emb", "rotary_pos_emb", "vision_tower.", "multi_modal_projector.", "visual.", "vision_model.", "mlp.rotary" };
static const char *const masks[] = { ".attn.bias", ".attn.masked_bias", ".attention.bias", ".attention.masked_bias" };

static const char *look_up (const char *const (*table)[2], guint n, const char *name)
{
  for (guint i = 0; i < n; i++)
    if (strcmp (table[i][0], name) == 0)
      return table[i][1];
  return NULL;
}

static const char *without_prefix (const char *module)
{
  static const char *const prefixes[] = { "language_model.model.", "language_model.", "model.language_model.", "model.", "transformer.", "gpt_neox." };
  for (guint i = 0; i < G_N_ELEMENTS (prefixes); i++)
    if (g_str_has_prefix (module, prefixes[i]))
      return module + strlen (prefixes[i]);
  return module;
}

static gboolean put (HfPlace *place, HfPart part, guint layer, const char *name)
{
  place->part = part;
  g_snprintf (place->name, sizeof place->name, "blk.%u.%s", layer, name);
  place->is_norm = strstr (name, "norm") != NULL;
  return TRUE;
}

/* Layers behind the decoder's own only guess tokens ahead (DeepSeek V3, GLM-4.5). */
static gboolean is_guessing_layer (const Hf *hf, guint layer)
{
  return layer >= hf->n_layers && (gint64) layer < hf->n_layers + hf_int (hf->config, "num_nextn_predict_layers", 0);
}

static gboolean put_expert (HfPlace *place, HfPart part, guint layer, const char *rest, const char *ending)
{
  const char *name = look_up (units, G_N_ELEMENTS (units), rest);
  g_autofree char *full = name ? g_strconcat (name, ending, NULL) : NULL;
  return full && put (place, part, layer, full);
}

static gboolean place_in_layer (const Hf *hf, guint layer, const char *rest, HfPlace *place)
{
  int used = 0;
  char kind[32];
  const char *name;
  if (is_guessing_layer (hf, layer))
    return TRUE;
  if (layer >= hf->n_layers)
    return FALSE;
  if ((sscanf (rest, "mlp.experts.%5u.%n", &place->index, &used) == 1 || sscanf (rest, "block_sparse_moe.experts.%5u.%n", &place->index, &used) == 1)
      && used > 0)
    return put_expert (place, HF_EXPERT, layer, rest + used, "_exps");
  for (guint i = 0; i < G_N_ELEMENTS (shared); i++)
    if (g_str_has_prefix (rest, shared[i]))
      return put_expert (place, HF_PLAIN, layer, rest + strlen (shared[i]), "_shexp");
  if (sscanf (rest, "self_attn.%31[a-z_].norms.%5u%n", kind, &place->index, &used) == 2 && rest[used] == '\0')
    return put (place, HF_HEAD_NORM, layer, kind[0] == 'q' ? "attn_q_norm" : "attn_k_norm");
  if ((name = look_up (fused, G_N_ELEMENTS (fused), rest)))
    return put (place, strcmp (name, "ffn_gate_exps") == 0 ? HF_GATE_UP_EXPERTS : HF_EXPERTS, layer, name);
  /* The same name is the feed-forward's norm in some families and the attention's own in others. */
  if (strcmp (rest, "post_attention_layernorm") == 0)
    return put (place, HF_PLAIN, layer, hf->family->flags & HF_SANDWICH ? "post_attention_norm" : "ffn_norm");
  name = look_up (inside, G_N_ELEMENTS (inside), rest);
  return name != NULL && put (place, strcmp (name, "attn_qkv") == 0 ? HF_QKV : strcmp (name, "exp_probs_b") == 0 ? HF_BIAS : HF_PLAIN, layer, name);
}

gboolean hf_place (const Hf *hf, const char *module, HfPlace *place)
{
  static const char *const layers[] = { "layers.%5u.%n", "h.%5u.%n", "blocks.%5u.%n", "encoder.layers.%5u.%n" };
  const char *rest = without_prefix (module);
  *place = (HfPlace) { .part = HF_IGNORED };
  for (guint i = 0; i < G_N_ELEMENTS (layers); i++) {
    guint layer = 0;
    int used = 0;
    if (sscanf (rest, layers[i], &layer, &used) == 1 && used > 0)
      return place_in_layer (hf, layer, rest + used, place);
  }
  const char *name = look_up (outside, G_N_ELEMENTS (outside), rest);
  if (!name)
    return FALSE;
  place->part = HF_PLAIN;
  place->is_norm = strstr (name, "norm") != NULL;
  g_strlcpy (place->name, name, sizeof place->name);
  return TRUE;
}

/* ---- tensors ---------------------------------------------------------------------------------------------------------------------- */

gboolean hf_is_left_out (const Hf *hf, const char *tensor)
{
  for (guint i = 0; i < G_N_ELEMENTS (ignored); i++)
    if (strstr (tensor, ignored[i]))
      return TRUE;
  for (guint i = 0; i < G_N_ELEMENTS (masks); i++)
    if (g_str_has_suffix (tensor, masks[i]))
      return TRUE;
  guint layer = 0;
  return sscanf (without_prefix (tensor), "layers.%5u.", &layer) == 1 && is_guessing_layer (hf, layer);
}

static gboolean is_one_of (const char *const *table, guint n, const char *name)
{
  for (guint i = 0; i < n; i++)
    if (strcmp (table[i], name) == 0)
      return TRUE;
  return FALSE;
}

char *hf_split_name (const char *tensor, const char **part)
{
  const char *more = strstr (tensor, ".weight."); /* bitsandbytes hangs more parts on to the weight's name */
  if (more) {
    *part = strrchr (tensor, '.') + 1;
    return g_strndup (tensor, (gsize) (more - tensor));
  }
  const char *dot = strrchr (tensor, '.'), *last = dot ? dot + 1 : tensor, *line = strrchr (last, '_');
  if (is_one_of (bare, G_N_ELEMENTS (bare), last)) {
    *part = "weight";
    return g_strdup (tensor);
  }
  g_autofree char *stem = line ? g_strndup (last, (gsize) (line - last)) : NULL;
  if (stem && is_one_of (bare, G_N_ELEMENTS (bare), stem) && is_one_of (hanging, G_N_ELEMENTS (hanging), line + 1)) {
    *part = line + 1;
    return g_strndup (tensor, (gsize) (line - tensor));
  }
  *part = dot ? last : "weight";
  return dot ? g_strndup (tensor, (gsize) (dot - tensor)) : g_strdup (tensor);
}

const EngStTensor *hf_part (const Hf *hf, const char *module, const char *part)
{
  g_autofree char *name = g_strconcat (module, ".", part, NULL), *hung = g_strconcat (module, "_", part, NULL);
  const EngStTensor *t = eng_safetensors_find (hf->st, name);
  if (!t && strcmp (part, "weight") == 0)
    t = eng_safetensors_find (hf->st, module);
  return t ? t : eng_safetensors_find (hf->st, hung);
}
