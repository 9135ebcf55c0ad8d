/* model.h: a model file opened for computing: traits of the architecture, weights mapped (never copied), tokenizer, template. */
#ifndef ENG_MODEL_H
#define ENG_MODEL_H

#include "engine/checkpoint/gguf.h"
#include "engine/grammar/matcher.h"
#include "engine/jinja/chat_template.h"
#include "engine/tokenizer/tokenizer.h"
#include "kernels/xbit.h"

/* Newest `valise.version` this engine reads, and the one eng_repack and the quantizer write. */
#define ENG_FILE_VERSION 1

enum { ENG_MAX_LAYERS = 1024, ENG_MAX_FILLED = 128 /* block of a pipeline up to which a matrix may be filled up */ };

typedef enum {
  ENG_ACTIVATION_SILU,
  ENG_ACTIVATION_GELU_TANH,
  ENG_ACTIVATION_GELU,
  ENG_ACTIVATION_RELU_SQUARED,
  ENG_ACTIVATION_CLAMPED /* gpt-oss: gate sigmoid (1.702 gate) (up + 1), both within 7 */
} EngActivation;
typedef enum {
  ENG_EXPERT_SOFTMAX,
  ENG_EXPERT_SIGMOID,        /* scores one by one */
  ENG_EXPERT_SOFTMAX_CHOSEN  /* of the chosen ones' scores */
} EngExpertScore;
typedef enum {
  ENG_QK_NORM_NONE,
  ENG_QK_NORM_HEAD,  /* each head with the same gain */
  ENG_QK_NORM_HEADS, /* each head with its own gain */
  ENG_QK_NORM_WIDTH  /* all heads together */
} EngQkNorm;

/* One described decoder. Everything the graph needs to know about a family is here, read from metadata and the presence of tensors.
 * What is zero is as in Llama. */
typedef struct {
  char architecture[32];
  guint n_layers, n_embd, n_ff, n_heads, n_kv_heads, head_dim, n_rot, n_vocab, n_ctx_train;
  guint value_dim;          /* of a head's values; head_dim is of its keys */
  /* Multi-head latent attention (DeepSeek-AI 2024, section 2.1): keys and values are one latent vector, which all heads share, and a turned
   * part of the key behind it. The heads' own projections of keys go to the queries, those of values to the results. */
  guint latent;             /* width of the latent vector, value_dim as well; 0: plain attention */
  guint latent_query;       /* rank of the queries' projection, 0: it is whole */
  guint latent_key, latent_value; /* of a head: what of a query is not turned, and its values */
  float norm_eps, rope_theta;
  float rope_scale;         /* positions are multiplied by it: 1 / the scaling's factor */
  gboolean rope_halves;     /* NeoX layout; else pairs */
  gboolean tied_head;
  gboolean qkv_bias;
  guint n_merges;           /* of the vocabulary: what its tables take depends on them */
  guint64 n_parameters;
  guint64 file_bytes;
  gboolean raw;             /* every matrix is of plain numbers: what goes into products is not prepared for them */
  guint n_ctx_planned;      /* the session a fit's budget was reckoned for: its context, 0 when nothing is said ... */
  int kv_bits_planned;      /* ... and the depth of its KV cache */

  gboolean layer_norm;      /* instead of RMS norms */
  gboolean no_pre_norm;     /* the halves of a layer read the residual stream as it is */
  gboolean post_norm;       /* what they add to it is normed */
  gboolean parallel;        /* both halves read the layer's input */
  gboolean shared_norm;     /* parallel, and normed once for both */
  gboolean fused_qkv, fused_gate_up;
  gboolean plain_norm;      /* norms have no gains */
  gboolean sub_norm;        /* what the output and down matrices take is normed */
  gboolean late_qk_norm;    /* after rope */
  gboolean learned_positions; /* a vector for each position is added to the embedding: not beyond n_ctx_train */
  gboolean pictures;        /* the model sees pictures as well: this is its text part */
  float alibi;              /* scores fall with distance: exponent of the last head's slope; 0: they do not */
  float qkv_clamp;          /* queries, keys and values stay within it; 0: they need not */
  gboolean ungated;         /* activation (up) instead of activation (gate) * up */
  EngActivation activation;
  EngQkNorm qk_norm;
  float embedding_scale, residual_scale, logit_scale; /* 0: none */
  float attention_scale;    /* 0: 1 / sqrt (head_dim) */
  float attention_soft_cap, logit_soft_cap; /* 0: none */
  guint window;             /* positions a windowed layer sees, its own included */
  guint32 windowed[ENG_MAX_LAYERS / 32];
  guint32 unturned[ENG_MAX_LAYERS / 32]; /* layers without rope */
  float rope_theta_local;   /* of windowed layers, whose positions are not scaled; 0: as the others */
  float rope_magnitude;     /* sines and cosines are multiplied by it; 0: 1 */
  gboolean yarn_unrounded;  /* the ramp's ends may lie between two pairs */
  float rope_ntk;           /* a context beyond the trained one stretches theta with this factor (dynamic NTK); 0: it does not */
  float temperature_scale;  /* queries grow by 1 + scale ln (1 + floor (position / rope_n_ctx)); 0: they do not */
  float yarn_mix, yarn_fast, yarn_slow; /* (Peng et al. 2023, YaRN, section 3.2); mix 0: none */
  guint n_experts, n_experts_used; /* 0: one feed-forward unit a layer; else n_ff is an expert's ... */
  guint n_ff_shared;        /* ... and this the width of one that every token goes through, 0: none */
  EngExpertScore expert_score;
  gboolean expert_norm;     /* the chosen ones' weights sum to 1 */
  float expert_scale;       /* 0: 1 */
  guint n_expert_groups, n_expert_groups_used; /* experts are chosen within the best groups; 0: of all */
  guint n_dense_lead;       /* so many layers come before those with experts: one unit ... */
  guint n_ff_dense;         /* ... of this width */
  guint rope_n_ctx;         /* the context that rope was first trained for: beyond it, long factors */
} EngTraits;

static inline gboolean eng_traits_windowed (const EngTraits *traits, guint layer)
{
  return traits->window > 0 && traits->windowed[layer / 32] >> layer % 32 & 1;
}

static inline gboolean eng_traits_has_experts (const EngTraits *traits, guint layer)
{
  return traits->n_experts > 0 && layer >= traits->n_dense_lead;
}

static inline gboolean eng_traits_turned (const EngTraits *traits, guint layer)
{
  return !(traits->unturned[layer / 32] >> layer % 32 & 1);
}

/* A weight matrix as the decoder sees it: either packed or raw, with the pipelines in front of it and behind. */
typedef struct {
  const char *name;         /* "blk.0.attn_q.weight" (no ".xbit") */
  guint rows, cols;
  guint stored_rows, stored_cols; /* of the packed one, which may be filled up (of experts: each) to whole blocks of the pipelines; else the same */
  const xb_matrix *xbit;    /* or NULL */
  xb_raw_type raw_type;     /* when xbit is NULL */
  const void *raw;
  const xb_input *input;    /* or NULL; equal pointers share one prepared x. n_experts times as wide as stored_cols: each expert has its own part */
  const xb_input *output;   /* whose inverse is behind (xb_input_restore), or NULL; not of a matrix of which single rows are read */
  guint64 bytes;            /* stored */
} EngMatrix;

/* A norm: [n] of its width, or NULL. */
typedef struct {
  const float *gain, *bias;
} EngNorm;

typedef struct {
  EngMatrix attn_q, attn_k, attn_v, attn_output, ffn_gate, ffn_up, ffn_down;
  EngMatrix attn_qkv; /* fused_qkv: instead of the three; fused_gate_up: ffn_up holds the gate's rows first */
  EngMatrix router, gate_experts, up_experts, down_experts; /* n_experts: [n_experts * rows][cols], beside the three of the shared unit */
  const float *router_bias, *gate_experts_bias, *up_experts_bias, *down_experts_bias; /* or NULL */
  const float *expert_correction; /* [n_experts] added to the scores by which experts are chosen, not to their weights; or NULL */
  const float *shared_gate; /* [n_embd] scores the shared unit, or NULL */
  /* latent: q_a and q_b instead of attn_q where latent_query; kv_a [latent + n_rot][n_embd]; k_b [n_heads * latent][latent_key] and v_b
   * [n_heads * latent_value][latent], or both in kv_b [n_heads * (latent_key + latent_value)][latent], the keys' half not transposed. */
  EngMatrix q_a, q_b, kv_a, k_b, v_b, kv_b;
  const float *q_a_norm, *kv_a_norm;
  const float *sinks;       /* [n_heads] a score that takes weight and gives nothing, or NULL */
  EngNorm attn_norm, ffn_norm, attn_post_norm, ffn_post_norm;
  EngNorm attn_sub_norm, ffn_sub_norm; /* traits.sub_norm */
  const float *q_norm, *k_norm;          /* as traits.qk_norm says */
  const float *q_bias, *k_bias, *v_bias; /* or NULL */
  const float *qkv_bias, *output_bias, *gate_bias, *up_bias, *down_bias;
} EngLayer;

typedef struct EngModel EngModel; /* reference counted, immutable: any thread */

/* Opens a file that can be computed on as it is: an X-bit file, or a GGUF whose matrices are F32/F16/BF16. For others
 * use eng_repack first; ENG_ERROR_UNSUPPORTED with a sentence otherwise. */
EngModel *eng_model_open (const char *path, GError **error);
/* The same of a file that is open already. */
EngModel *eng_model_new (EngGguf *gguf, GError **error);
EngModel *eng_model_ref (EngModel *model);
void eng_model_unref (EngModel *model);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (EngModel, eng_model_unref)

const EngTraits *eng_model_traits (const EngModel *model);
EngGguf *eng_model_gguf (const EngModel *model);
const EngTokenizer *eng_model_tokenizer (const EngModel *model);
/* Made when first asked for, 12 bytes for each different beginning of a token. marks: control tokens that divide an answer (segments.h) are text as well. */
const EngTokenBytes *eng_model_token_bytes (EngModel *model, gboolean marks);
const EngChatTemplate *eng_model_template (const EngModel *model, GError **error); /* ChatML when the file has none */
const char *eng_gguf_chat_template (const EngGguf *gguf); /* its text, the same rule */
const EngLayer *eng_model_layer (const EngModel *model, guint i);
const EngMatrix *eng_model_embedding (const EngModel *model);
const EngMatrix *eng_model_head (const EngModel *model); /* == embedding when tied */
const EngNorm *eng_model_output_norm (const EngModel *model);
const EngNorm *eng_model_embedding_norm (const EngModel *model); /* NULL: the embedding is not normed */
/* [n_embd][n_embd] orthogonal: between the layers a row x of the stream is x times it (SpinQuant's R1, Liu et al. 2024, folded into their weights); NULL: as it is. */
const float *eng_model_rotation (const EngModel *model);
const EngMatrix *eng_model_positions (const EngModel *model); /* [n_ctx_train][n_embd], or NULL */
const float *eng_model_head_bias (const EngModel *model); /* [n_vocab] or NULL */
/* [n_rot / 2] what the angle of each rotated pair is divided by, or NULL: Llama 3's rope_freqs, or the short or long factors for a
 * context of n_ctx. */
const float *eng_model_rope_factors (const EngModel *model, guint n_ctx);
/* All matrices in file order, for walking: layers' seven each, then embedding, then head if untied. */
guint eng_model_n_matrices (const EngModel *model);
const EngMatrix *eng_model_matrix (const EngModel *model, guint i);

/* Reads the traits from metadata alone (no weights touched); refuses an unknown architecture by name. */
gboolean eng_traits_read (EngTraits *traits, const EngGguf *gguf, GError **error);

/* Whether eng_model_open can take the file without repacking. */
gboolean eng_gguf_is_computable (const EngGguf *gguf);
/* Writes an X-bit file that holds the very same numbers: quantized matrices as cells (docs/formats.md), float matrices as they are, integers and
 * F64 as F32. Streams; drops source pages behind it. progress may be NULL. */
typedef void (*EngProgress) (double fraction, const char *what, gpointer data);
gboolean eng_repack (EngGguf *source, const char *path, EngProgress progress, gpointer data, GCancellable *cancellable, GError **error);

#endif
