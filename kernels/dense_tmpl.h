/* dense_tmpl.h: raw row-major products and the blocked f32 product, one source compiled per instruction set.
 *
 * gemm packs a block of op(B) (k x columns) into slivers of 2 vectors and a block of op(A) (rows x k) into slivers of MR rows, both in the
 * order the inner loop reads them, so that it runs from the caches with MR x 2 vector accumulators (Goto & van de Geijn 2008). */
#include <string.h>

#include "kernels/table.h"
#include "kernels/vec.h"

#if XB_VL == 16
#define MR 12
#else
#define MR 6
#endif
#define NR (2 * XB_VL)
enum { KC = 256, MC = 96, NC = 384 }; /* packed: 480 KiB, on the stack of the thread */

static void pack_a (float *out, bool transpose, const float *a, size_t lda, uint32_t row, uint32_t rows, uint32_t k0, uint32_t kc)
{
  for (uint32_t r = 0; r < rows; r += MR) {
    uint32_t n = rows - r < MR ? rows - r : MR;
    for (uint32_t k = 0; k < kc; k++) {
      for (uint32_t i = 0; i < n; i++)
        out[i] = transpose ? a[(size_t) (k0 + k) * lda + row + r + i] : a[(size_t) (row + r + i) * lda + k0 + k];
      for (uint32_t i = n; i < MR; i++)
        out[i] = 0;
      out += MR;
    }
  }
}

static void pack_b (float *out, bool transpose, const float *b, size_t ldb, uint32_t col, uint32_t cols, uint32_t k0, uint32_t kc)
{
  for (uint32_t c = 0; c < cols; c += NR) {
    uint32_t n = cols - c < NR ? cols - c : NR;
    if (transpose) {
      for (uint32_t k = 0; k < kc; k += 16) { /* a cache line of each row, so that what is written stays in the first cache */
        uint32_t m = kc - k < 16 ? kc - k : 16;
        for (uint32_t i = 0; i < n; i++) {
          const float *from = b + (size_t) (col + c + i) * ldb + k0 + k;
          for (uint32_t j = 0; j < m; j++)
            out[(size_t) (k + j) * NR + i] = from[j];
        }
      }
    } else if (n == NR) {
      for (uint32_t k = 0; k < kc; k++)
        memcpy (out + (size_t) k * NR, b + (size_t) (k0 + k) * ldb + col + c, NR * sizeof (float));
    } else {
      for (uint32_t k = 0; k < kc; k++)
        memcpy (out + (size_t) k * NR, b + (size_t) (k0 + k) * ldb + col + c, n * sizeof (float));
    }
    for (uint32_t k = 0; k < kc && n < NR; k++)
      memset (out + (size_t) k * NR + n, 0, (NR - n) * sizeof (float));
    out += (size_t) kc * NR;
  }
}

/* acc[MR][NR] = sliver of A times sliver of B. */
static void micro (const float *a, const float *b, uint32_t kc, float *acc)
{
  vf c[MR][2];
  for (int i = 0; i < MR; i++)
    c[i][0] = c[i][1] = v_set (0);
  for (uint32_t k = 0; k < kc; k++) {
    vf b0 = v_load (b), b1 = v_load (b + XB_VL);
#pragma GCC unroll 12
    for (int i = 0; i < MR; i++) {
      vf s = v_set (a[i]);
      c[i][0] += s * b0;
      c[i][1] += s * b1;
    }
    a += MR;
    b += NR;
  }
  for (int i = 0; i < MR; i++) {
    v_store (acc + i * NR, c[i][0]);
    v_store (acc + i * NR + XB_VL, c[i][1]);
  }
}

static void put_tile (const float *acc, uint32_t rows, uint32_t cols, bool is_first, float beta, float *c, size_t ldc)
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

static void gemm (bool transpose_a, bool transpose_b, uint32_t row0, uint32_t row1, uint32_t n, uint32_t k, const float *a, size_t lda,
                  const float *b, size_t ldb, float beta, float *c, size_t ldc)
{
  float packed_b[KC * NC] __attribute__ ((aligned (64))), packed_a[KC * MC] __attribute__ ((aligned (64)));
  float acc[MR * NR] __attribute__ ((aligned (64)));
  for (uint32_t col = 0; col < n; col += NC) {
    uint32_t nc = n - col < NC ? n - col : NC;
    for (uint32_t k0 = 0; k0 < k || k0 == 0; k0 += KC) {
      uint32_t kc = k - k0 < KC ? k - k0 : KC;
      pack_b (packed_b, transpose_b, b, ldb, col, nc, k0, kc);
      for (uint32_t row = row0; row < row1; row += MC) {
        uint32_t mc = row1 - row < MC ? row1 - row : MC;
        pack_a (packed_a, transpose_a, a, lda, row, mc, k0, kc);
        for (uint32_t j = 0; j < nc; j += NR)
          for (uint32_t i = 0; i < mc; i += MR) {
            micro (packed_a + (size_t) i * kc, packed_b + (size_t) j * kc, kc, acc);
            put_tile (acc, mc - i < MR ? mc - i : MR, nc - j < NR ? nc - j : NR, k0 == 0, beta, c + (size_t) (row + i) * ldc + col + j, ldc);
          }
      }
    }
  }
}

static void bf16_to_f32 (const uint16_t *h, float *out, size_t n)
{
  for (size_t i = 0; i < n; i++) {
    uint32_t bits = (uint32_t) h[i] << 16;
    memcpy (out + i, &bits, 4);
  }
}

static void raw_to_f32 (xb_raw_type type, const void *w, float *out, size_t n)
{
  switch (type) {
  case XB_RAW_F32: memcpy (out, w, n * sizeof (float)); break;
  case XB_RAW_F16: half_to_f32 (w, out, n); break;
  case XB_RAW_BF16: bf16_to_f32 (w, out, n); break;
  }
}

static float dot_row (const float *a, const float *b, uint32_t n)
{
  vf acc[4] = { v_set (0), v_set (0), v_set (0), v_set (0) };
  uint32_t i = 0;
  for (; i + 4 * XB_VL <= n; i += 4 * XB_VL)
    for (int u = 0; u < 4; u++)
      acc[u] += v_load (a + i + u * XB_VL) * v_load (b + i + u * XB_VL);
  for (; i + XB_VL <= n; i += XB_VL)
    acc[0] += v_load (a + i) * v_load (b + i);
  float sum = v_sum ((acc[0] + acc[1]) + (acc[2] + acc[3]));
  for (; i < n; i++)
    sum += a[i] * b[i];
  return sum;
}

static void raw_matmul (xb_raw_type type, const void *w, uint32_t cols, const float *x, size_t ldx, uint32_t n, float *y, size_t ldy,
                        uint32_t row0, uint32_t row1)
{
  enum { ROWS = 32, PIECE = 512 };
  size_t size = type == XB_RAW_F32 ? 4 : 2;
  const uint8_t *bytes = w;
  if (n < 4) { /* bound by memory: convert a piece of a row and use it at once */
    for (uint32_t row = row0; row < row1; row++) {
      float sum[3] = { 0 }, piece[PIECE];
      for (uint32_t at = 0; at < cols; at += PIECE) {
        uint32_t m = cols - at < PIECE ? cols - at : PIECE;
        raw_to_f32 (type, bytes + ((size_t) row * cols + at) * size, piece, m);
        for (uint32_t i = 0; i < n; i++)
          sum[i] += dot_row (x + i * ldx + at, piece, m);
      }
      for (uint32_t i = 0; i < n; i++)
        y[i * ldy + row] = sum[i];
    }
    return;
  }
  float block[ROWS * PIECE];
  for (uint32_t row = row0; row < row1; row += ROWS) {
    uint32_t rows = row1 - row < ROWS ? row1 - row : ROWS;
    for (uint32_t at = 0; at < cols; at += PIECE) {
      uint32_t m = cols - at < PIECE ? cols - at : PIECE;
      for (uint32_t i = 0; i < rows; i++)
        raw_to_f32 (type, bytes + ((size_t) (row + i) * cols + at) * size, block + (size_t) i * m, m);
      gemm (false, true, 0, n, rows, m, x + at, ldx, block, m, at > 0, y + row, ldy);
    }
  }
}
