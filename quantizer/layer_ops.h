/* layer_ops.h: the operations of a decoder layer that are no matrix product, in f32: each a plain function for one thread, its backward
 * next to it. Gradients are of a scalar loss; `d_x` stands for that with respect to x. What a family's decoder does is in EngTraits. */
#ifndef QZ_LAYER_OPS_H
#define QZ_LAYER_OPS_H

#include "engine/route.h"

/* RMS norm (Zhang & Sennrich 2019), or layer norm (Ba et al. 2016) where centred. gain and bias [cols] may be NULL. */
typedef struct {
  const float *gain, *bias;
  gboolean centred;
  float eps;
} QzNorm;

/* y = norm (x), x and y [n][cols]; y may be x. */
void qz_norm (const QzNorm *norm, const float *x, guint n, guint cols, float *y);
/* d_x += its gradient; x, d_y, d_x [n][cols]. */
void qz_norm_backward (const QzNorm *norm, const float *x, const float *d_y, guint n, guint cols, float *d_x);

/* y = the norm of n_heads queries or keys of one token, x and y [n_heads * head_dim], as traits.qk_norm says. */
void qz_head_norm (const EngTraits *t, const float *gain, guint n_heads, const float *x, float *y);
/* d_x += */
void qz_head_norm_backward (const EngTraits *t, const float *gain, guint n_heads, const float *x, const float *d_y, float *d_x);

/* Rotary embedding (Su et al. 2021) in place on n_heads of one token, x [n_heads * head_dim], cos_sin [n_rot / 2][2] of its position. The
 * gradient is turned by the same angles the other way: inverse. */
void qz_rope (const EngTraits *t, const float *cos_sin, guint n_heads, gboolean inverse, float *x);

/* x [n] stays within -limit..limit; the gradient of what had to be held back is 0, x being clamped by then. */
void qz_clamp (float *x, gsize n, float limit);
void qz_clamp_backward (const float *x, gsize n, float limit, float *d_x);

/* One head's attention over one sequence (Vaswani et al. 2017): token i sees the last `window` tokens up to itself. */
typedef struct {
  guint n, head_dim, value_dim, window; /* n tokens; window at least 1, n or more: all */
  float scale, soft_cap; /* scores are cap tanh (scale q.k / cap); 0: scale q.k; */
  float slope;           /* less slope for each position between the two (Press et al. 2021, ALiBi) */
  const float *sink;     /* one more score, whose value is nothing (Xiao et al. 2023), or NULL */
} QzAttend;

/* Floats of scratch that both need. */
gsize qz_attend_scratch (const QzAttend *a);
/* out = softmax (scores) v; q and k are head_dim, v and out value_dim of each of n rows that lie ld_q, ld_k, ld_v and ld_out apart. */
void qz_attend (const QzAttend *a, const float *q, gsize ld_q, const float *k, gsize ld_k, const float *v, gsize ld_v, float *scratch, float *out,
                gsize ld_out);
/* Where the gradients go, rows ld apart. latent [n][n_latent], ld_latent apart, or NULL: what the scores would be taken against if keys were a
 * linear map of it that went to the queries instead; d_latent is the gradient at the queries then. */
typedef struct {
  float *d_q, *d_k, *d_v;
  gsize ld_q, ld_k, ld_v;
  const float *latent;
  guint n_latent;
  gsize ld_latent, ld_d_latent;
  float *d_latent;
} QzAttendGradient;

/* d_q = , d_latent = , d_k += and d_v += from d_out. */
void qz_attend_backward (const QzAttend *a, const float *q, gsize ld_q, const float *k, gsize ld_k, const float *v, gsize ld_v, const float *d_out,
                         gsize ld_out, float *scratch, const QzAttendGradient *to);

/* out = activation (gate) * up, all [n]; up NULL: activation (gate). */
void qz_activate (EngActivation activation, const float *gate, const float *up, gsize n, float *out);
/* d_gate = and d_up = from d_out; d_gate may be d_out. */
void qz_activate_backward (EngActivation activation, const float *gate, const float *up, const float *d_out, gsize n, float *d_gate, float *d_up);

/* d_scores [n_experts] = from d_weight [n_experts_used]; worths as eng_route left them. */
void qz_route_backward (const EngTraits *t, const float *worths, const EngChoice *choices, const float *d_weight, float *d_scores);

#endif
