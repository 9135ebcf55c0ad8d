/* layer.h: one decoder layer in f32, as EngTraits describes it, in two halves: attention and feed-forward. Each half goes forward from the
 * residual stream to what it adds to it, and backward to the stream's gradient; matrix products are shared out to the workers.
 *
 *   y = output (attend (q, k, v (norm (x))))      x += scale norm (y)       norms, biases, scales, caps, windows and rope where the
 *   y = down (activation (gate) * up (norm (x)))  x += scale norm (y)       traits have them; parallel: both halves read the same x
 *
 * A batch is n rows of the stream; for attention whole sequences of n_tokens, one after the other, each attending to itself alone. */
#ifndef QZ_LAYER_H
#define QZ_LAYER_H

#include "quantizer/layer_ops.h"
#include "quantizer/source.h"

/* ---- weights (layer_weights.c): row-major [rows][cols] as in the file, one half's at a time ------------------------------ */

typedef struct {
  guint layer;
  QzNorm attn_norm, attn_post_norm, ffn_norm, ffn_post_norm;
  QzNorm attn_sub_norm, ffn_sub_norm;     /* of what output and down multiply, where traits.sub_norm */
  const float *q_norm, *k_norm;           /* as traits.qk_norm says */
  const float *sinks;                     /* [n_heads] or NULL */
  QzNorm q_a_norm, kv_a_norm;             /* of latent vectors */
  const float *qkv_bias, *output_bias, *gate_up_bias, *down_bias; /* or NULL */
  const float *router;                    /* [n_experts][n_embd] or NULL */
  const float *router_bias, *expert_correction; /* [n_experts] or NULL */
  const float *shared_gate;               /* [n_embd] or NULL */
  float *qkv, *output;                    /* [qkv_rows][n_embd], [n_embd][out_rows] */
  float *q_b, *kv_b;                      /* latent attention: [n_heads * (key + n_rot)][latent_query] or NULL, [n_heads * (key + value)][latent] */
  float *gate_up, *down;                  /* [n_gate_up][n_embd], [n_embd][n_ff] of one unit, or of one expert */
  guint n_ff, n_gate_up;                  /* gate's rows above up's, or up's alone */
  GPtrArray *vectors;                     /* owned: all but the matrices */
  float *matrices;
} QzLayerWeights;

/* Floats of the larger half. */
gsize qz_layer_weights_floats (const QzSource *source);
gboolean qz_layer_weights_init (QzLayerWeights *weights, const QzSource *source, GError **error);
void qz_layer_weights_clear (QzLayerWeights *weights);
/* The norms, biases and router of a layer: all that is no matrix, but for the feed-forward unit's biases. */
gboolean qz_layer_weights_read_vectors (QzLayerWeights *weights, const QzSource *source, guint layer, GError **error);
/* Attention's matrices. */
gboolean qz_layer_weights_read_attention (QzLayerWeights *weights, const QzSource *source, guint layer, EngWorkers *workers, GError **error);
/* The matrices of one expert of a unit (of the only one: 0) of the same layer, and its biases; they take the place of attention's. */
gboolean qz_layer_weights_read_unit (QzLayerWeights *weights, const QzSource *source, guint unit, guint expert, EngWorkers *workers, GError **error);

/* ---- the pass ------------------------------------------------------------------------------------------------------------ */

/* What is computed for the n rows of a batch; the halves share their room. */
typedef struct {
  const EngTraits *traits;
  EngWorkers *workers;
  gboolean attends_again; /* on the way back attended is wanted as well */
  guint max_rows, n_tokens;
  guint q_rows, k_rows, v_rows, qkv_rows, out_rows; /* queries, keys, values of all heads; outputs of the first products; what the heads gather */
  float *slopes;   /* [n_heads] of traits.alibi, or NULL */
  float *in;       /* [n][n_embd] after the norm: what the half's first products multiply */
  float *qkv;      /* [n][q + k + v] their outputs, clamped where the family does that; latent: [n][q_a or q, latent, n_rot] */
  float *turned;   /* [n][q + k] queries and keys, normed, turned and scaled */
  /* Latent attention only: latent vectors, normed; queries; keys' and values' projections of each head. */
  float *latent_q, *latent, *queries, *kv; /* [n][latent_query], [n][latent], [n][q], [n][n_heads * (latent_key + latent_value)] */
  float *d_latent_q, *d_latent, *d_turned, *d_queries, *d_kv, *d_meeting; /* d_meeting [n][n_heads * latent]: what keys' projections would give */
  float *attended; /* [n][out_rows] input of the output product */
  float *gate_up;  /* [n][n_gate_up] */
  float *hidden;   /* [n][n_ff] input of down */
  float *unnormed; /* [n][out_rows or n_ff] attended or hidden before their norm, where traits.sub_norm */
  float *y;        /* [n][n_embd] output of the half's last product */
  /* Gradients of the loss with respect to the same; d_y is the caller's to fill. */
  float *d_in, *d_qkv, *d_attended, *d_gate_up, *d_hidden, *d_y;
  float *cos_sin, *cos_sin_local; /* [n_tokens][n_rot / 2][2] */
  float *scratch;                 /* [workers][scratch_floats] */
  gsize scratch_floats;
  float *memory;
} QzLayerPass;

/* Columns of qkv. */
guint qz_layer_qkv_rows (const EngTraits *traits);
/* Floats for batches of max_rows, backward: with gradients. */
gsize qz_layer_pass_floats (const EngTraits *traits, guint n_workers, guint max_rows, guint n_tokens, gboolean backward);
/* rope_factors [n_rot / 2] or NULL, as eng_model_rope_factors. */
void qz_layer_pass_init (QzLayerPass *pass, const EngTraits *traits, EngWorkers *workers, const float *rope_factors, guint max_rows, guint n_tokens,
                         gboolean backward);
void qz_layer_pass_clear (QzLayerPass *pass);

/* out = norm (x), x and out [n][n_embd]; a copy where the family's halves read the stream as it is. */
void qz_half_norm (const QzLayerPass *pass, const QzNorm *norm, guint n, const float *x, float *out);
/* d_x += the gradient of that; x as it was. */
void qz_half_norm_backward (const QzLayerPass *pass, const QzNorm *norm, guint n, const float *x, const float *d_in, float *d_x);
/* x += scale norm (y), [n][n_embd]: y is what a half's last product gives. */
void qz_branch_add (const QzLayerPass *pass, const QzNorm *post_norm, guint n, const float *y, float *x);
/* d_y = the gradient at y from that at the sum, d_x. */
void qz_branch_backward (const QzLayerPass *pass, const QzNorm *post_norm, guint n, const float *y, const float *d_x, float *d_y);

/* From the stream x [n][n_embd] to in and qkv. */
void qz_attention_products (QzLayerPass *pass, const QzLayerWeights *weights, guint n, const float *x);
/* From qkv to turned, attended and y. */
void qz_attention_finish (QzLayerPass *pass, const QzLayerWeights *weights, guint n);
/* From d_y, with qkv as it was, to d_attended and d_qkv; adds to d_x, the gradient of the stream. */
void qz_attention_backward (QzLayerPass *pass, const QzLayerWeights *weights, guint n, const float *x, float *d_x);

/* The norm that the feed-forward half reads the stream through. */
const QzNorm *qz_feed_forward_norm (const EngTraits *traits, const QzLayerWeights *weights);
/* From in to gate_up. */
void qz_unit_products (QzLayerPass *pass, const QzLayerWeights *weights, guint n);
/* From gate_up to hidden; and to y. */
void qz_unit_activate (QzLayerPass *pass, const QzLayerWeights *weights, guint n);
void qz_unit_finish (QzLayerPass *pass, const QzLayerWeights *weights, guint n);
/* From d_y and gate_up to d_hidden, d_gate_up and d_in. A mixture adds y by a weight: with weights [n], d_y is without them, d_weights [n] =
 * their gradients, and hidden = the unit's (it is recomputed); NULL both: 1. */
void qz_unit_backward (QzLayerPass *pass, const QzLayerWeights *weights, guint n, const float *expert_weights, float *d_expert_weights);

/* ---- latent attention (latent.c) ----------------------------------------------------------------------------------------- */

/* From qkv to the latent vectors, queries and projections, and turned. */
void qz_latent_expand (QzLayerPass *pass, const QzLayerWeights *weights, guint n);
/* From d_turned and the values' columns of d_kv to the rest of d_kv, d_queries and d_qkv. */
void qz_latent_backward (QzLayerPass *pass, const QzLayerWeights *weights, guint n);

/* ---- for both files ------------------------------------------------------------------------------------------------------ */

/* The angles of a token's position in the batch, or NULL where the layer has no rope. */
const float *qz_pass_angles (const QzLayerPass *pass, guint layer, guint token);
/* out [n][rows] = in w^T + bias, w [rows][cols], bias or NULL. */
void qz_pass_multiply (const QzLayerPass *pass, guint n, guint rows, guint cols, const float *in, const float *w, const float *bias, float *out);
/* d_in [n][cols] = d_out w: the gradient at the input of that. */
void qz_pass_multiply_backward (const QzLayerPass *pass, guint n, guint rows, guint cols, const float *d_out, const float *w, float *d_in);

#endif
