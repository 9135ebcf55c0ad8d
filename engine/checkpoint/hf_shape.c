/* hf_shape.c: how large a matrix of the model is, whatever is stored of it. */
#include "engine/checkpoint/hf.h"

#include <string.h>

void hf_shape (const Hf *hf, const char *name, guint *rows, guint *cols)
{
  const EngTraits *t = &hf->traits;
  const char *dot = g_str_has_prefix (name, "blk.") ? strchr (name + 4, '.') : NULL, *part = dot ? dot + 1 : name;
  guint embd = t->n_embd, q = t->n_heads * t->head_dim, k = t->n_kv_heads * t->head_dim, v = t->n_kv_heads * t->value_dim, attended = t->n_heads * t->value_dim;
  guint ff = t->n_experts > 0 ? t->n_ff_dense : t->n_ff, rank = (guint) CLAMP (hf_int (hf->config, "q_lora_rank", 0), 0, 1 << 20);
  if (t->latent > 0) {
    q = t->n_heads * (t->latent_key + t->n_rot);
    attended = t->n_heads * t->latent_value;
  }
  const struct {
    const char *part;
    guint rows, cols;
  } shapes[] = {
    { "output", t->n_vocab, embd },
    { "attn_q", q, embd }, { "attn_k", k, embd }, { "attn_v", v, embd }, { "attn_output", embd, attended },
    { "attn_q_a", rank, embd }, { "attn_q_b", q, rank }, { "attn_kv_a_mqa", t->head_dim, embd },
    { "attn_kv_b", t->n_heads * (t->latent_key + t->latent_value), t->latent },
    { "ffn_gate", ff, embd }, { "ffn_up", ff * (t->fused_gate_up ? 2 : 1), embd }, { "ffn_down", embd, ff },
    { "ffn_gate_exps", t->n_ff, embd }, { "ffn_up_exps", t->n_ff, embd }, { "ffn_down_exps", embd, t->n_ff },
    { "ffn_gate_shexp", t->n_ff_shared, embd }, { "ffn_up_shexp", t->n_ff_shared, embd }, { "ffn_down_shexp", embd, t->n_ff_shared },
  };
  *rows = *cols = 0;
  for (guint i = 0; i < G_N_ELEMENTS (shapes); i++)
    if (strcmp (shapes[i].part, part) == 0) {
      *rows = shapes[i].rows;
      *cols = shapes[i].cols;
    }
}
