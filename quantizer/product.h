/* product.h: a float matrix product shared out to the workers by rows of the result, so that the sums do not depend on their number. */
#ifndef QZ_PRODUCT_H
#define QZ_PRODUCT_H

#include "engine/workers.h"

#include <stdbool.h>

/* C (m x n) = beta C + op(A) op(B), as xb_gemm. */
void qz_product (EngWorkers *workers, bool transpose_a, bool transpose_b, guint m, guint n, guint k, const float *a, gsize lda, const float *b,
                 gsize ldb, float beta, float *c, gsize ldc);
/* The same with all factors in f32: for weights and rotations, which are no statistic. */
void qz_product_exact (EngWorkers *workers, bool transpose_a, bool transpose_b, guint m, guint n, guint k, const float *a, gsize lda, const float *b,
                       gsize ldb, float beta, float *c, gsize ldc);
/* The upper triangle of C (m x m) += X^T X, x [n][ldx]. What lies below the diagonal is undefined. */
void qz_product_gram (EngWorkers *workers, guint m, guint n, const float *x, gsize ldx, float *c, gsize ldc);

#endif
