/* dense_tmpl.h: raw row-major products and the blocked f32 product (gemm_tmpl.h), one source compiled per instruction set. */
#include <string.h>

#include "kernels/lines.h"
#include "kernels/table.h"
#include "kernels/vec.h"

#if XB_VL == 16
#define MR 12
#else
#define MR 6
#endif
#define NR (2 * XB_VL)

/* The slivers of pack_lines where lines are beside each other: some steps of all slivers in turn, so that no more lines of the cache and pages are in hand than stay there. */
static inline __attribute__ ((always_inline)) void pack_steps (float *out, const uint32_t width, const float *x, size_t ldx, uint32_t lines, uint32_t kc)
{
  enum { STEPS = 16 };
  for (uint32_t k0 = 0; k0 < kc; k0 += STEPS) {
    const uint32_t k1 = kc - k0 < STEPS ? kc : k0 + STEPS;
    for (uint32_t at = 0; at < lines; at += width) {
      float *to = out + (size_t) at * kc + k0 * width;
      const float *from = x + k0 * ldx + at;
      const uint32_t n = lines - at < width ? lines - at : width;
      if (n == width)
        for (uint32_t k = k0; k < k1; k++, to += width, from += ldx)
          memcpy (to, from, width * sizeof (float));
      else
        for (uint32_t k = k0; k < k1; k++, to += width, from += ldx)
          for (uint32_t i = 0; i < width; i++)
            to[i] = i < n ? from[i] : 0;
    }
  }
}

static void pack_a (float *out, bool transpose, const float *a, size_t lda, uint32_t row, uint32_t rows, uint32_t k0, uint32_t kc)
{
  if (transpose)
    pack_steps (out, MR, a + (size_t) k0 * lda + row, lda, rows, kc);
  else
    pack_lines (out, MR, a + (size_t) row * lda + k0, lda, rows, kc);
}

static void pack_b (float *out, bool transpose, const float *b, size_t ldb, uint32_t col, uint32_t cols, uint32_t k0, uint32_t kc)
{
  if (transpose)
    pack_lines (out, NR, b + (size_t) col * ldb + k0, ldb, cols, kc);
  else
    pack_steps (out, NR, b + (size_t) k0 * ldb + col, ldb, cols, kc);
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

#define GEMM gemm
#define GEMM_STEPS 1
typedef float gemm_unit;
#include "kernels/gemm_tmpl.h"

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
