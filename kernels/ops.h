/* ops.h: the rest of a decoder's time: norms, rope, activations, softmax, attention over paged KV. Same rules as xbit.h:
 * any thread, disjoint outputs, chosen at run time from the table cpu.h fills; the scalar version of each is the reference. */
#ifndef VALISE_OPS_H
#define VALISE_OPS_H

#include <stddef.h>
#include <stdint.h>

/* out[n] = x / sqrt(mean(x^2) + eps) * gain (gain may be NULL). out may be x. (Zhang & Sennrich 2019) */
void xb_rms_norm (const float *x, const float *gain, float *out, uint32_t n, float eps);
/* Layer norm with gain and bias (either may be NULL). */
void xb_layer_norm (const float *x, const float *gain, const float *bias, float *out, uint32_t n, float eps);

/* Rotary embedding in place on one head x[head_dim]: rotates the first n_rot values. cos_sin is [n_rot/2][2] for this position.
 * pairs: neighbours (2i, 2i+1), as GGUF's llama layout; halves: (i, i + n_rot/2), NeoX layout. (Su et al. 2021) */
void xb_rope_pairs (float *x, const float *cos_sin, uint32_t n_rot);
void xb_rope_halves (float *x, const float *cos_sin, uint32_t n_rot);

/* out = silu(gate) * up, gelu(gate) * up (tanh form); out may be gate. */
void xb_silu_mul (const float *gate, const float *up, float *out, size_t n);
void xb_gelu_mul (const float *gate, const float *up, float *out, size_t n);
/* x += y; x *= s. */
void xb_add (float *x, const float *y, size_t n);
void xb_scale (float *x, float s, size_t n);
/* In place, numerically stable; returns the log of the normaliser (max + log sum exp). */
float xb_softmax (float *x, size_t n);
float xb_log_sum_exp (const float *x, size_t n);
/* Index of the largest value, the first on ties. */
uint32_t xb_argmax (const float *x, size_t n);

/* In-place orthonormal Walsh-Hadamard transform of each block of x[n] (block a power of two dividing n). */
void xb_hadamard (float *x, size_t n, uint32_t block);

/* ---- KV cache in pages --------------------------------------------------------------------------------------------------
 * A page holds the keys (or values) of `page_tokens` consecutive positions of one layer and one KV head:
 * bits 16: f16 [page_tokens][head_dim]; bits 8 and 4: codes [page_tokens][head_dim*bits/8], then f16 scales
 * [page_tokens][head_dim/32] (symmetric; 4-bit codes biased by 8, low nibble first). xb_kv_page_bytes gives the size. */
size_t xb_kv_page_bytes (uint32_t page_tokens, uint32_t head_dim, int bits);
void xb_kv_store (void *page, uint32_t slot, const float *x, uint32_t page_tokens, uint32_t head_dim, int bits);
void xb_kv_load (const void *page, uint32_t slot, float *x, uint32_t page_tokens, uint32_t head_dim, int bits);

typedef struct {
  const void *const *k_pages; /* [ceil(n_kv / page_tokens)] */
  const void *const *v_pages;
  uint32_t page_tokens, head_dim;
  int k_bits, v_bits;      /* 16, 8, 4 */
  uint32_t kv_begin;       /* first visible position (sliding window), else 0 */
  uint32_t kv_end;         /* one past the last visible position */
  float scale;             /* multiplies q.k, usually 1/sqrt(head_dim) */
  float soft_cap;          /* 0: none; else logits = cap tanh(logits / cap) */
} xb_attention;

/* One pass with online softmax (Milakov & Gimelshein 2018) for the n_q query heads that share this KV head, of n_tokens consecutive
 * tokens: out[i*ldt + h*ldq .. +head_dim] from q at the same place; token i sees kv_begin .. kv_end + i - 1. Many tokens in one call are
 * much cheaper than one by one. head_dim <= 512. */
void xb_attend (const xb_attention *a, const float *q, size_t ldq, uint32_t n_q, size_t ldt, uint32_t n_tokens, float *out);

#endif
