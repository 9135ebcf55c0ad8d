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
 * bits 16: f16 [page_tokens][head_dim]. bits 8, 5 and 4 (head_dim a multiple of 32): groups of 32 codes [page_tokens][head_dim / 32][4 * bits bytes], then 16
 * bits for each [page_tokens][head_dim / 32]. 8: signed codes and their f16 scale. 5 and 4: unsigned codes (4 bits each, low nibble first; of 5 the fifth bits
 * follow), and step and middle of the range that they divide: what lies to one side of zero is coded as well as what lies around it. */
size_t xb_kv_page_bytes (uint32_t page_tokens, uint32_t head_dim, int bits);
void xb_kv_store (void *page, uint32_t slot, const float *x, uint32_t page_tokens, uint32_t head_dim, int bits);
void xb_kv_load (const void *page, uint32_t slot, float *x, uint32_t page_tokens, uint32_t head_dim, int bits);

typedef struct {
  const void *const *blocks; /* [ceil(positions / page_tokens)] what holds the pages of these positions; those nobody sees may be NULL */
  size_t k_offset, v_offset; /* where in a block the page of keys, and of values, begins */
  size_t reference_offset;   /* where an f16 [key_dim] lies that is added to the keys of the block, in the first block to the first key alone; 0: none */
  uint32_t page_tokens;
  uint32_t key_dim;          /* of queries and keys, at most XB_MAX_KEY */
  uint32_t value_dim;        /* of results: the first so many of a stored value, <= key_dim */
  uint32_t value_width;      /* of a stored value, which may be the key itself */
  int key_bits, value_bits;  /* 16, 8, 5, 4 */
  uint32_t kv_end;           /* one past the last position that the first token sees */
  uint32_t window;           /* positions a token sees, its own included; 0: all */
  float scale;               /* multiplies q.k, usually 1/sqrt(key_dim) */
  float soft_cap;            /* 0: none; else logits = cap tanh(logits / cap) */
  const float *sinks;        /* [n_q] a score of each head that takes weight and gives nothing (Xiao et al. 2023), or NULL */
  const float *first_keys;   /* [key_dim] where there is a reference: added to the keys of the first block but the first of them; or NULL */
  const float *slopes;       /* [n_q] subtracted from a score for each position of distance (Press et al. 2021, ALiBi), or NULL */
} xb_attention;

enum { XB_MAX_KEY = 576 };

/* One pass with online softmax (Milakov & Gimelshein 2018) for the n_q query heads that share this KV head, of n_tokens consecutive
 * tokens: row h of token i is q + i*ldt + h*ldq and becomes out + i*ldot + h*ldo; token i sees positions below kv_end + i. Many tokens
 * in one call are much cheaper than one by one. */
void xb_attend (const xb_attention *a, const float *q, size_t ldq, size_t ldt, uint32_t n_q, uint32_t n_tokens, float *out, size_t ldo,
                size_t ldot);

#endif
