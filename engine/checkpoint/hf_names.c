/* hf_names.c: where each module of a transformers model stands in GGUF's names. */
#include "engine/checkpoint/hf.h"

#include <stdio.h>
#include <string.h>

/* Outside of the layers. */
static const char *const outside[][2] = {
  { "embed_tokens", "token_embd" }, { "norm", "output_norm" }, { "lm_head", "output" }, { "final_layernorm", "output_norm" },
  { "embed_in", "token_embd" }, { "final_layer_norm", "output_norm" }, { "embed_out", "output" }, { "word_embeddings", "token_embd" },
  { "ln_f", "output_norm" },
};

/* In a layer. */
static const char *const inside[][2] = {
  { "self_attn.q_proj", "attn_q" }, { "self_attn.k_proj", "attn_k" }, { "self_attn.v_proj", "attn_v" }, { "self_attn.o_proj", "attn_output" },
  { "self_attn.qkv_proj", "attn_qkv" }, { "self_attn.dense", "attn_output" },
  { "self_attn.q_norm", "attn_q_norm" }, { "self_attn.k_norm", "attn_k_norm" },
  { "self_attn.q_layernorm", "attn_q_norm" }, { "self_attn.k_layernorm", "attn_k_norm" },
  { "attention.query_key_value", "attn_qkv" }, { "attention.dense", "attn_output" },
  { "self_attention.query_key_value", "attn_qkv" }, { "self_attention.dense", "attn_output" },
  { "mlp.dense_h_to_4h", "ffn_up" }, { "mlp.dense_4h_to_h", "ffn_down" }, { "mlp.fc1", "ffn_up" }, { "mlp.fc2", "ffn_down" },
  { "mlp.c_fc", "ffn_up" }, { "mlp.c_proj", "ffn_down" },
  { "mlp.gate_proj", "ffn_gate" }, { "mlp.up_proj", "ffn_up" }, { "mlp.down_proj", "ffn_down" }, { "mlp.gate_up_proj", "ffn_up" },
  { "post_self_attn_layernorm", "post_attention_norm" }, { "post_mlp_layernorm", "post_ffw_norm" },
  { "pre_feedforward_layernorm", "ffn_norm" }, { "post_feedforward_layernorm", "post_ffw_norm" },
  { "input_layernorm", "attn_norm" }, { "ln_attn", "attn_norm_2" }, { "ln_mlp", "attn_norm" },
  { "mlp.gate", "ffn_gate_inp" }, { "block_sparse_moe.gate", "ffn_gate_inp" }, { "block_sparse_moe.router.layer", "ffn_gate_inp" },
  { "mlp.shared_expert.gate_proj", "ffn_gate_shexp" }, { "mlp.shared_expert.up_proj", "ffn_up_shexp" },
  { "mlp.shared_expert.down_proj", "ffn_down_shexp" }, { "mlp.shared_expert_gate", "ffn_gate_inp_shexp" },
  { "block_sparse_moe.output_linear", "ffn_down_exps" },
};

/* Of one expert. */
static const char *const experts[][2] = {
  { "gate_proj", "ffn_gate_exps" }, { "up_proj", "ffn_up_exps" }, { "down_proj", "ffn_down_exps" },
  { "w1", "ffn_gate_exps" }, { "w3", "ffn_up_exps" }, { "w2", "ffn_down_exps" },
};

/* Constants that some programs save along, and the parts of a model that see pictures. */
static const char *const ignored[] = { "rotary_emb", "vision_tower.", "multi_modal_projector.", "visual.", "vision_model.", "mlp.rotary" };

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

static gboolean place_in_layer (const Hf *hf, guint layer, const char *rest, HfPlace *place)
{
  int used = 0;
  char kind[32];
  const char *name;
  if (layer >= hf->n_layers)
    return FALSE;
  if ((sscanf (rest, "mlp.experts.%5u.%n", &place->index, &used) == 1 || sscanf (rest, "block_sparse_moe.experts.%5u.%n", &place->index, &used) == 1)
      && used > 0)
    return (name = look_up (experts, G_N_ELEMENTS (experts), rest + used)) != NULL && put (place, HF_EXPERT, layer, name);
  if (sscanf (rest, "self_attn.%31[a-z_].norms.%5u%n", kind, &place->index, &used) == 2 && rest[used] == '\0')
    return put (place, HF_HEAD_NORM, layer, kind[0] == 'q' ? "attn_q_norm" : "attn_k_norm");
  if (strcmp (rest, "block_sparse_moe.input_linear") == 0)
    return put (place, HF_GATE_UP_EXPERTS, layer, "ffn_gate_exps");
  /* The same name is the feed-forward's norm in some families and the attention's own in others. */
  if (strcmp (rest, "post_attention_layernorm") == 0)
    return put (place, HF_PLAIN, layer, hf->family->flags & HF_SANDWICH ? "post_attention_norm" : "ffn_norm");
  name = look_up (inside, G_N_ELEMENTS (inside), rest);
  return name != NULL && put (place, strcmp (name, "attn_qkv") == 0 ? HF_QKV : HF_PLAIN, layer, name);
}

gboolean hf_place (const Hf *hf, const char *module, HfPlace *place)
{
  const char *rest = without_prefix (module);
  guint layer = 0;
  int used = 0;
  *place = (HfPlace) { .part = HF_IGNORED };
  for (guint i = 0; i < G_N_ELEMENTS (ignored); i++)
    if (strstr (module, ignored[i]))
      return TRUE;
  if ((sscanf (rest, "layers.%5u.%n", &layer, &used) == 1 || sscanf (rest, "h.%5u.%n", &layer, &used) == 1) && used > 0)
    return place_in_layer (hf, layer, rest + used, place);
  const char *name = look_up (outside, G_N_ELEMENTS (outside), rest);
  if (!name)
    return FALSE;
  place->part = HF_PLAIN;
  place->is_norm = strstr (name, "norm") != NULL;
  g_strlcpy (place->name, name, sizeof place->name);
  return TRUE;
}
