/* product.c: dense products over the workers. */
#include "quantizer/product.h"

#include "kernels/dense.h"

/* Every unit packs B anew, so units are large; they are alike, two or more for each worker. */
enum { TILE_ROWS = 12, LEAST_ROWS = 48, MOST_ROWS = 480, GRAM_ROWS = 128, LEAST_ROUNDED = 1 << 24 };

typedef void Gemm (bool transpose_a, bool transpose_b, uint32_t row0, uint32_t row1, uint32_t n, uint32_t k, const float *a, size_t lda, const float *b,
                   size_t ldb, float beta, float *c, size_t ldc);

typedef struct {
  bool transpose_a, transpose_b;
  guint m, n, k, rows_per_unit;
  const float *a, *b;
  gsize lda, ldb, ldc;
  float beta;
  float *c;
  Gemm *gemm;
} Product;

/* Rounded factors cost a statistic nothing that its sampling has not cost already, but small products nothing at all. */
static Gemm *gemm_of (guint64 m, guint64 n, guint64 k)
{
  return m * n * k < LEAST_ROUNDED ? xb_gemm : xb_gemm_bf16;
}

static void product_work (gpointer data, guint begin, guint end, guint worker)
{
  const Product *p = data;
  p->gemm (p->transpose_a, p->transpose_b, begin * p->rows_per_unit, MIN (end * p->rows_per_unit, p->m), p->n, p->k, p->a, p->lda, p->b, p->ldb, p->beta,
           p->c, p->ldc);
}

static void multiply (Gemm *gemm, EngWorkers *workers, bool transpose_a, bool transpose_b, guint m, guint n, guint k, const float *a, gsize lda, const float *b,
                      gsize ldb, float beta, float *c, gsize ldc)
{
  guint shares = 2 * eng_workers_count (workers), rounds = (m + shares * MOST_ROWS - 1) / (shares * MOST_ROWS), share = (m + shares * rounds - 1) / (shares * rounds);
  guint rows = MAX ((share + TILE_ROWS - 1) / TILE_ROWS * TILE_ROWS, LEAST_ROWS);
  Product p = { transpose_a, transpose_b, m, n, k, rows, a, b, lda, ldb, ldc, beta, c, gemm };
  eng_workers_run (workers, product_work, &p, (m + rows - 1) / rows, 1);
}

void qz_product (EngWorkers *workers, bool transpose_a, bool transpose_b, guint m, guint n, guint k, const float *a, gsize lda, const float *b,
                 gsize ldb, float beta, float *c, gsize ldc)
{
  multiply (gemm_of (m, n, k), workers, transpose_a, transpose_b, m, n, k, a, lda, b, ldb, beta, c, ldc);
}

void qz_product_exact (EngWorkers *workers, bool transpose_a, bool transpose_b, guint m, guint n, guint k, const float *a, gsize lda, const float *b,
                       gsize ldb, float beta, float *c, gsize ldc)
{
  multiply (xb_gemm, workers, transpose_a, transpose_b, m, n, k, a, lda, b, ldb, beta, c, ldc);
}

static void gram_work (gpointer data, guint begin, guint end, guint worker)
{
  const Product *p = data;
  for (guint unit = begin; unit < end; unit++) {
    guint row0 = unit * GRAM_ROWS, row1 = MIN (row0 + GRAM_ROWS, p->m);
    p->gemm (true, false, 0, row1 - row0, p->m - row0, p->k, p->a + row0, p->lda, p->a + row0, p->lda, 1.0f, p->c + row0 * p->ldc + row0, p->ldc);
  }
}

void qz_product_gram (EngWorkers *workers, guint m, guint n, const float *x, gsize ldx, float *c, gsize ldc)
{
  Product p = { .m = m, .k = n, .a = x, .lda = ldx, .c = c, .ldc = ldc, .gemm = gemm_of (m, m, n) };
  eng_workers_run (workers, gram_work, &p, (m + GRAM_ROWS - 1) / GRAM_ROWS, 1);
}
