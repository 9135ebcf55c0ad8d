/* gemm_avx512bf16.c: the dense product of factors rounded to bfloat16, where one instruction multiplies two of them in each lane and adds them to an f32. A
 * packed unit is two steps along k, the first in the low half. */
#include <immintrin.h>
#include <string.h>

#include "kernels/table.h"

enum { MR = 12, NR = 32, LANES = 16 };

typedef uint32_t gemm_unit;

/* Two rows of numbers, side by side. */
static inline __m512i pairs (__m512 first, __m512 second)
{
  const __m512i low = _mm512_cvtepu16_epi32 ((__m256i) _mm512_cvtneps_pbh (first)), high = _mm512_cvtepu16_epi32 ((__m256i) _mm512_cvtneps_pbh (second));
  return _mm512_or_si512 (low, _mm512_slli_epi32 (high, 16));
}

/* n numbers, n <= 32, as 16 units; zeros behind them. */
static inline __m512i units_of (const float *x, uint32_t n)
{
  const uint32_t there = (uint32_t) ((1ull << n) - 1);
  const __m512 low = _mm512_maskz_loadu_ps ((__mmask16) there, x), high = _mm512_maskz_loadu_ps ((__mmask16) (there >> LANES), x + LANES);
  return (__m512i) _mm512_cvtne2ps_pbh (high, low);
}

/* A sliver of `width` rows or columns of which n are there, each with its numbers along k beside each other in memory. */
static void pack_lines (gemm_unit *out, uint32_t width, const float *x, size_t ldx, uint32_t n, uint32_t kc)
{
  gemm_unit block[NR][LANES];
  memset (block, 0, sizeof block);
  for (uint32_t k = 0; k < kc; k += 2 * LANES, out += LANES * width) {
    const uint32_t m = kc - k < 2 * LANES ? kc - k : 2 * LANES, units = (m + 1) / 2;
    for (uint32_t i = 0; i < n; i++)
      _mm512_storeu_si512 (block[i], units_of (x + i * ldx + k, m));
    for (uint32_t u = 0; u < units; u++)
      for (uint32_t i = 0; i < width; i++)
        out[u * width + i] = block[i][u];
  }
}

/* The same where the lines are beside each other. */
static void pack_steps (gemm_unit *out, uint32_t width, const float *x, size_t ldx, uint32_t n, uint32_t kc)
{
  for (uint32_t k = 0; k < kc; k += 2, out += width)
    for (uint32_t i = 0; i < width; i += LANES) {
      const __mmask16 there = (__mmask16) (n > i ? n - i >= LANES ? 0xffff : (1u << (n - i)) - 1 : 0);
      const __mmask16 inside = (__mmask16) (width - i >= LANES ? 0xffff : (1u << (width - i)) - 1), second = k + 1 < kc ? there : 0;
      const float *at = x + k * ldx + i;
      _mm512_mask_storeu_epi32 (out + i, inside, pairs (_mm512_maskz_loadu_ps (there, at), _mm512_maskz_loadu_ps (second, at + (second != 0 ? ldx : 0))));
    }
}

static void pack_a (gemm_unit *out, bool transpose, const float *a, size_t lda, uint32_t row, uint32_t rows, uint32_t k0, uint32_t kc)
{
  for (uint32_t r = 0; r < rows; r += MR, out += (size_t) (kc + 1) / 2 * MR) {
    const uint32_t n = rows - r < MR ? rows - r : MR;
    if (transpose)
      pack_steps (out, MR, a + (size_t) k0 * lda + row + r, lda, n, kc);
    else
      pack_lines (out, MR, a + (size_t) (row + r) * lda + k0, lda, n, kc);
  }
}

static void pack_b (gemm_unit *out, bool transpose, const float *b, size_t ldb, uint32_t col, uint32_t cols, uint32_t k0, uint32_t kc)
{
  for (uint32_t c = 0; c < cols; c += NR, out += (size_t) (kc + 1) / 2 * NR) {
    const uint32_t n = cols - c < NR ? cols - c : NR;
    if (transpose)
      pack_lines (out, NR, b + (size_t) (col + c) * ldb + k0, ldb, n, kc);
    else
      pack_steps (out, NR, b + (size_t) k0 * ldb + col + c, ldb, n, kc);
  }
}

/* acc[MR][NR] = sliver of A times sliver of B. */
static void micro (const gemm_unit *a, const gemm_unit *b, uint32_t units, float *acc)
{
  __m512 c[MR][2];
  for (int i = 0; i < MR; i++)
    c[i][0] = c[i][1] = _mm512_setzero_ps ();
  for (uint32_t u = 0; u < units; u++) {
    const __m512bh b0 = (__m512bh) _mm512_load_si512 (b), b1 = (__m512bh) _mm512_load_si512 (b + LANES);
#pragma GCC unroll 12
    for (int i = 0; i < MR; i++) {
      const __m512bh s = (__m512bh) _mm512_set1_epi32 ((int) a[i]);
      c[i][0] = _mm512_dpbf16_ps (c[i][0], b0, s);
      c[i][1] = _mm512_dpbf16_ps (c[i][1], b1, s);
    }
    a += MR;
    b += NR;
  }
  for (int i = 0; i < MR; i++) {
    _mm512_store_ps (acc + i * NR, c[i][0]);
    _mm512_store_ps (acc + i * NR + LANES, c[i][1]);
  }
}

#define GEMM gemm_bf16
#define GEMM_STEPS 2
#include "kernels/gemm_tmpl.h"

void xb_ops_add_avx512bf16 (xb_ops_table *t)
{
  t->gemm_bf16 = gemm_bf16;
}
