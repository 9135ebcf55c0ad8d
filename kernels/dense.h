/* dense.h: f32 matrix products for the quantizer's float forward and backward pass. Same rules as xbit.h. */
#ifndef VALISE_DENSE_H
#define VALISE_DENSE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* C[row0..row1-1][0..n-1] = beta C + op(A) op(B), op(A) m x k, op(B) k x n, all row-major with leading dimensions lda, ldb, ldc.
 * transpose_a: A is stored k x m. transpose_b: B is stored n x k. Rows of C are divided between callers (threads). */
void xb_gemm (bool transpose_a, bool transpose_b, uint32_t row0, uint32_t row1, uint32_t n, uint32_t k, const float *a, size_t lda,
              const float *b, size_t ldb, float beta, float *c, size_t ldc);
/* The same, of factors that may be rounded to bfloat16 (8 bits of precision) where the CPU multiplies those faster; the sums are f32 all the same. */
void xb_gemm_bf16 (bool transpose_a, bool transpose_b, uint32_t row0, uint32_t row1, uint32_t n, uint32_t k, const float *a, size_t lda,
                   const float *b, size_t ldb, float beta, float *c, size_t ldc);

#endif
