/* xbit_neon.c: the vocabulary of NEON as every 64-bit ARM has it: a quad is four registers of 4 rows; products of bytes are added in 16 bits. */
#include <arm_neon.h>

#define XB_VL 4
#define XB_SUFFIX neon
#include "kernels/xbit_bytes.h"
#define XI_SHUFFLE(table, codes) ((xi) vqtbl1q_u8 ((uint8x16_t) (table), (uint8x16_t) (codes)))
#define XI_SIGNED 1
#define XI_TOGETHER 2

static inline __attribute__ ((always_inline)) void dot (vi *acc, const xi codes[8], const int8_t *const *x, const int n, const int depth, const int is_signed,
                                                        const int q0, const int q1)
{
  /* 127 (2^depth - 1) quads <= 32767, and 127 128 quads where codes are signed */
  const int most = is_signed || depth >= 7 ? 2 : depth == 6 ? 4 : 8, together = most < q1 - q0 ? most : q1 - q0;
#pragma GCC unroll 8
  for (int q = q0; q < q1; q += together) {
    int16x8_t low[XI_TOGETHER], high[XI_TOGETHER];
#pragma GCC unroll 8
    for (int j = q; j < q + together; j++) {
      const int8x16_t w = (int8x16_t) codes[j];
#pragma GCC unroll 2
      for (int i = 0; i < n; i++) {
        const int8x16_t v = (int8x16_t) vi_set (four (x[i] + j * 4));
        low[i] = j == q ? vmull_s8 (vget_low_s8 (w), vget_low_s8 (v)) : vmlal_s8 (low[i], vget_low_s8 (w), vget_low_s8 (v));
        high[i] = j == q ? vmull_high_s8 (w, v) : vmlal_high_s8 (high[i], w, v);
      }
    }
#pragma GCC unroll 2
    for (int i = 0; i < n; i++)
      acc[i] += (vi) vpaddq_s32 (vpaddlq_s16 (low[i]), vpaddlq_s16 (high[i]));
  }
}

#include "kernels/xbit_product_tmpl.h"
