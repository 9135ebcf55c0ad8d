/* gemm_tmpl.h: the blocks of a dense product, whatever its packed factors are (Goto & van de Geijn 2008).
 *
 * A block of op(B) (k x columns) is packed into slivers of NR columns and a block of op(A) (rows x k) into slivers of MR rows, both in the order the inner
 * loop reads them, so that it runs from the caches with MR x NR sums in registers. Who includes this names its function GEMM, the type gemm_unit of what is
 * packed, how many steps along k one holds (GEMM_STEPS), and has MR, NR, pack_a, pack_b and micro. */
enum { KC = 256, MC = 96, NC = 384 }; /* units; packed: 480 KiB, on the stack of the thread */

static inline void put_tile (const float *acc, uint32_t rows, uint32_t cols, bool is_first, float beta, float *c, size_t ldc)
{
  for (uint32_t i = 0; i < rows; i++) {
    float *out = c + i * ldc;
    const float *from = acc + i * NR;
    if (!is_first)
      for (uint32_t j = 0; j < cols; j++)
        out[j] += from[j];
    else if (beta == 0)
      memcpy (out, from, cols * sizeof (float));
    else
      for (uint32_t j = 0; j < cols; j++)
        out[j] = beta * out[j] + from[j];
  }
}

static void GEMM (bool transpose_a, bool transpose_b, uint32_t row0, uint32_t row1, uint32_t n, uint32_t k, const float *a, size_t lda,
                  const float *b, size_t ldb, float beta, float *c, size_t ldc)
{
  enum { STEPS = KC * GEMM_STEPS };
  gemm_unit packed_b[KC * NC] __attribute__ ((aligned (64))), packed_a[KC * MC] __attribute__ ((aligned (64)));
  float acc[MR * NR] __attribute__ ((aligned (64)));
  for (uint32_t col = 0; col < n; col += NC) {
    uint32_t nc = n - col < NC ? n - col : NC;
    for (uint32_t k0 = 0; k0 < k || k0 == 0; k0 += STEPS) {
      uint32_t kc = k - k0 < STEPS ? k - k0 : STEPS, units = (kc + GEMM_STEPS - 1) / GEMM_STEPS;
      pack_b (packed_b, transpose_b, b, ldb, col, nc, k0, kc);
      for (uint32_t row = row0; row < row1; row += MC) {
        uint32_t mc = row1 - row < MC ? row1 - row : MC;
        pack_a (packed_a, transpose_a, a, lda, row, mc, k0, kc);
        for (uint32_t j = 0; j < nc; j += NR)
          for (uint32_t i = 0; i < mc; i += MR) {
            micro (packed_a + (size_t) i * units, packed_b + (size_t) j * units, units, acc);
            float *out = c + (size_t) (row + i) * ldc + col + j;
            if (mc - i >= MR && nc - j >= NR)
              put_tile (acc, MR, NR, k0 == 0, beta, out, ldc);
            else
              put_tile (acc, mc - i < MR ? mc - i : MR, nc - j < NR ? nc - j : NR, k0 == 0, beta, out, ldc);
          }
      }
    }
  }
}
