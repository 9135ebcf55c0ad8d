/* ops.c: the public names of ops.h, dense.h and the raw part of xbit.h, each through the table. */
#include "kernels/ops.h"
#include "kernels/dense.h"
#include "kernels/half.h"
#include "kernels/table.h"

void xb_rms_norm (const float *x, const float *gain, float *out, uint32_t n, float eps)
{
  xb_table_get ()->ops.rms_norm (x, gain, out, n, eps);
}

void xb_layer_norm (const float *x, const float *gain, const float *bias, float *out, uint32_t n, float eps)
{
  xb_table_get ()->ops.layer_norm (x, gain, bias, out, n, eps);
}

void xb_rope_pairs (float *x, const float *cos_sin, uint32_t n_rot)
{
  xb_table_get ()->ops.rope_pairs (x, cos_sin, n_rot);
}

void xb_rope_halves (float *x, const float *cos_sin, uint32_t n_rot)
{
  xb_table_get ()->ops.rope_halves (x, cos_sin, n_rot);
}

void xb_silu_mul (const float *gate, const float *up, float *out, size_t n)
{
  xb_table_get ()->ops.silu_mul (gate, up, out, n);
}

void xb_gelu_mul (const float *gate, const float *up, float *out, size_t n)
{
  xb_table_get ()->ops.gelu_mul (gate, up, out, n);
}

void xb_add (float *x, const float *y, size_t n)
{
  xb_table_get ()->ops.add (x, y, n);
}

void xb_scale (float *x, float s, size_t n)
{
  xb_table_get ()->ops.scale (x, s, n);
}

float xb_softmax (float *x, size_t n)
{
  return xb_table_get ()->ops.softmax (x, n);
}

float xb_log_sum_exp (const float *x, size_t n)
{
  return xb_table_get ()->ops.log_sum_exp (x, n);
}

uint32_t xb_argmax (const float *x, size_t n)
{
  return xb_table_get ()->ops.argmax (x, n);
}

void xb_hadamard (float *x, size_t n, uint32_t block)
{
  if (block > 1)
    xb_table_get ()->ops.hadamard (x, n, block);
}

size_t xb_kv_page_bytes (uint32_t page_tokens, uint32_t head_dim, int bits)
{
  size_t codes = (size_t) page_tokens * head_dim * (uint32_t) bits / 8;
  return bits == 16 ? codes : codes + (size_t) page_tokens * (head_dim / 32) * sizeof (uint16_t);
}

void xb_kv_store (void *page, uint32_t slot, const float *x, uint32_t page_tokens, uint32_t head_dim, int bits)
{
  xb_table_get ()->ops.kv_store (page, slot, x, page_tokens, head_dim, bits);
}

void xb_kv_load (const void *page, uint32_t slot, float *x, uint32_t page_tokens, uint32_t head_dim, int bits)
{
  xb_table_get ()->ops.kv_load (page, slot, x, page_tokens, head_dim, bits);
}

void xb_attend (const xb_attention *a, const float *q, size_t ldq, size_t ldt, uint32_t n_q, uint32_t n_tokens, float *out, size_t ldo,
                size_t ldot)
{
  xb_table_get ()->ops.attend_tokens (a, q, ldq, ldt, n_q, n_tokens, out, ldo, ldot);
}

void xb_raw_matmul (xb_raw_type type, const void *w, uint32_t cols, const float *x, size_t ldx, uint32_t n, float *y, size_t ldy, uint32_t row0,
                    uint32_t row1)
{
  xb_table_get ()->ops.raw_matmul (type, w, cols, x, ldx, n, y, ldy, row0, row1);
}

void xb_raw_to_f32 (xb_raw_type type, const void *w, float *out, size_t n)
{
  xb_table_get ()->ops.raw_to_f32 (type, w, out, n);
}

void xb_f32_to_f16 (const float *x, uint16_t *out, size_t n)
{
  xb_table_get ()->ops.f32_to_f16 (x, out, n);
}

void xb_gemm (bool transpose_a, bool transpose_b, uint32_t row0, uint32_t row1, uint32_t n, uint32_t k, const float *a, size_t lda, const float *b,
              size_t ldb, float beta, float *c, size_t ldc)
{
  xb_table_get ()->ops.gemm (transpose_a, transpose_b, row0, row1, n, k, a, lda, b, ldb, beta, c, ldc);
}

void xb_gemm_bf16 (bool transpose_a, bool transpose_b, uint32_t row0, uint32_t row1, uint32_t n, uint32_t k, const float *a, size_t lda, const float *b,
                   size_t ldb, float beta, float *c, size_t ldc)
{
  xb_table_get ()->ops.gemm_bf16 (transpose_a, transpose_b, row0, row1, n, k, a, lda, b, ldb, beta, c, ldc);
}

float xb_half_to_float (uint16_t h)
{
  return half_to (h);
}

uint16_t xb_float_to_half (float f)
{
  return half_from (f);
}
