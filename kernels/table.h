/* table.h: the function table cpu.c fills once: the generic entries first, then those of each better instruction set over them. */
#ifndef XB_TABLE_H
#define XB_TABLE_H

#include <stdbool.h>

#include "kernels/cpu.h"
#include "kernels/ops.h"
#include "kernels/trellis.h"
#include "kernels/xbit.h"

typedef struct {
  void (*rms_norm) (const float *x, const float *gain, float *out, uint32_t n, float eps);
  void (*layer_norm) (const float *x, const float *gain, const float *bias, float *out, uint32_t n, float eps);
  void (*rope_pairs) (float *x, const float *cos_sin, uint32_t n_rot);
  void (*rope_halves) (float *x, const float *cos_sin, uint32_t n_rot);
  void (*silu_mul) (const float *gate, const float *up, float *out, size_t n);
  void (*gelu_mul) (const float *gate, const float *up, float *out, size_t n);
  void (*add) (float *x, const float *y, size_t n);
  void (*scale) (float *x, float s, size_t n);
  float (*softmax) (float *x, size_t n);
  float (*log_sum_exp) (const float *x, size_t n);
  uint32_t (*argmax) (const float *x, size_t n);
  void (*hadamard) (float *x, size_t n, uint32_t block);
  void (*kv_store) (void *page, uint32_t slot, const float *x, uint32_t page_tokens, uint32_t head_dim, int bits);
  void (*kv_load) (const void *page, uint32_t slot, float *x, uint32_t page_tokens, uint32_t head_dim, int bits);
  void (*attend_tokens) (const xb_attention *a, const float *q, size_t ldq, size_t ldt, uint32_t n_q, uint32_t n_tokens, float *out, size_t ldo,
                         size_t ldot);
  void (*raw_matmul) (xb_raw_type type, const void *w, uint32_t cols, const float *x, size_t ldx, uint32_t n, float *y, size_t ldy, uint32_t row0,
                      uint32_t row1);
  void (*raw_to_f32) (xb_raw_type type, const void *w, float *out, size_t n);
  void (*f32_to_f16) (const float *x, uint16_t *out, size_t n);
  void (*gemm) (bool transpose_a, bool transpose_b, uint32_t row0, uint32_t row1, uint32_t n, uint32_t k, const float *a, size_t lda, const float *b,
                size_t ldb, float beta, float *c, size_t ldc);
  void (*gemm_bf16) (bool transpose_a, bool transpose_b, uint32_t row0, uint32_t row1, uint32_t n, uint32_t k, const float *a, size_t lda, const float *b,
                     size_t ldb, float beta, float *c, size_t ldc);
  void (*trellis_extend) (const xb_trellis *trellis, uint16_t *cost, const float *x, const float *weight, uint32_t n, uint8_t *back);
} xb_ops_table;

typedef struct {
  void (*acts_quantize) (xb_acts *acts, uint32_t i, const float *x, int bits);
  void (*matvec) (const xb_matrix *matrix, const xb_acts *acts, float *y, uint32_t row0, uint32_t row1);
  void (*matmul) (const xb_matrix *matrix, const xb_acts *acts, float *y, size_t ldy, uint32_t row0, uint32_t row1);
  void (*matmul_f32) (const xb_matrix *matrix, const float *x, size_t ldx, uint32_t n, float *y, size_t ldy, uint32_t row0, uint32_t row1);
  /* A tile of a trellis cell as bytes [8 quads][16 rows][4], biased by 128; before one that is not the cell's first lies the one to its left. */
  void (*trellis_tile) (const uint8_t *tile, uint32_t codebook, uint32_t depth, const int8_t (*tables)[16], bool is_first, uint8_t *out);
  /* A tile of an EXL3 cell as floats [32 columns][16 rows]. */
  void (*exl3_tile) (const uint8_t *tile, uint32_t depth, uint32_t function, float *w);
} xb_product_table;

typedef struct {
  xb_ops_table ops;
  xb_product_table product;
} xb_table;

const xb_table *xb_table_get (void);

void xb_ops_init_generic (xb_ops_table *t);
void xb_ops_init_avx2 (xb_ops_table *t);
void xb_ops_init_avx512 (xb_ops_table *t);
void xb_ops_add_avx512bf16 (xb_ops_table *t); /* over those of a set that has AVX-512 */
void xb_product_init_scalar (xb_product_table *t);
void xb_product_init_sse41 (xb_product_table *t);
void xb_product_init_avx2 (xb_product_table *t);
void xb_product_init_avxvnni (xb_product_table *t);
void xb_product_init_avxvnni_evex (xb_product_table *t);
void xb_product_init_avx512bw (xb_product_table *t);
void xb_product_init_avx512vnni (xb_product_table *t);
void xb_product_init_avx512vbmi (xb_product_table *t);
void xb_product_init_neon (xb_product_table *t);
void xb_product_init_neon_dotprod (xb_product_table *t);
void xb_product_init_neon_i8mm (xb_product_table *t);

#endif
