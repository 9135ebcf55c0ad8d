/* layer.h: one decoder layer of the llama family in f32: forward, and backward to its input, keeping what the quantizer measures.
 * A batch is n = n_sequences * n_tokens rows, the sequences one after the other, each attending to itself alone. */
#ifndef QZ_LAYER_H
#define QZ_LAYER_H

#include "quantizer/source.h"

/* All row-major [rows][cols] as in the file. */
typedef struct {
  float *q, *k, *v, *output, *gate, *up, *down;
  float *attn_norm, *ffn_norm;
  float *q_bias, *k_bias, *v_bias; /* or NULL */
  float *rope_factors;             /* [n_rot / 2] what each angle is divided by, or NULL; the same in every layer */
  float *memory;
} QzLayerWeights;

gboolean qz_layer_weights_init (QzLayerWeights *weights, const QzSource *source, GError **error);
gboolean qz_layer_weights_read (QzLayerWeights *weights, const QzSource *source, guint layer, EngWorkers *workers, GError **error);
void qz_layer_weights_clear (QzLayerWeights *weights);

/* What a forward pass leaves for the moments and for the backward pass. */
typedef struct {
  guint max_sequences, n_sequences, n_tokens, n;
  float *attn_in;     /* [n][n_embd] after the first norm: input of q, k, v */
  float *q, *k, *v;   /* after RoPE */
  float *probability; /* [n_sequences][n_heads][n_tokens][n_tokens] */
  float *attn_out;    /* [n][n_heads * head_dim] input of output */
  float *middle;      /* [n][n_embd] residual stream between the halves */
  float *ffn_in;      /* [n][n_embd] */
  float *gate, *up;   /* [n][n_ff] */
  float *down_in;     /* [n][n_ff] */
  /* Gradients of the loss with respect to the outputs y of the products; filled by the backward pass. */
  float *d_q, *d_k, *d_v, *d_gate, *d_up, *d_middle, *d_attn_out, *d_in;
  float *cos_sin; /* [n_tokens][n_rot/2][2] */
  gsize memory_floats;
  float *memory;
} QzLayerPass;

/* backward: room for gradients too. */
void qz_layer_pass_init (QzLayerPass *pass, const EngTraits *traits, const QzLayerWeights *weights, guint n_sequences, guint n_tokens,
                         gboolean backward);
/* For fewer sequences, up to those it was made for. */
void qz_layer_pass_resize (QzLayerPass *pass, guint n_sequences);
void qz_layer_pass_clear (QzLayerPass *pass);

/* x [n][n_embd] in place. */
void qz_layer_forward (const EngTraits *traits, const QzLayerWeights *weights, QzLayerPass *pass, EngWorkers *workers, float *x);
/* x: the layer's input, for which qz_layer_forward has just run on a copy; dx [n][n_embd]: gradient with respect to the layer's
 * output (also that of down and, through d_middle, of the attention's output product), replaced by that of its input. */
void qz_layer_backward (const EngTraits *traits, const QzLayerWeights *weights, QzLayerPass *pass, EngWorkers *workers, const float *x, float *dx);

/* y = x / rms (x) * gain for n rows of `cols`; and dx += its gradient (dx may hold that of a parallel path). */
void qz_norm_forward (EngWorkers *workers, const float *x, const float *gain, float eps, guint n, guint cols, float *y);
void qz_norm_backward (EngWorkers *workers, const float *x, const float *gain, float eps, guint n, guint cols, const float *dy, float *dx);

#endif
