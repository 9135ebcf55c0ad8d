/* xbit_neon_i8mm.c: the vocabulary of NEON with 8-bit matrix products (ARMv8.6). One vector is multiplied by USDOT. With many, neighbouring quads
 * are zipped, so that USMMLA multiplies two rows of eight columns with two vectors at once. */
#include <arm_neon.h>

#define XB_VL 4
#define XB_SUFFIX neon_i8mm
#include "kernels/xbit_bytes.h"
#define XI_SHUFFLE(table, codes) ((xi) vqtbl1q_u8 ((uint8x16_t) (table), (uint8x16_t) (codes)))
#define XI_SIGNED 0
#define XI_TOGETHER 2
#define XI_ARRANGE(codes) zip (codes)

/* codes[2p], codes[2p+1]: columns 8p .. 8p+7 of rows 0 and 1, and of rows 2 and 3. */
static inline __attribute__ ((always_inline)) void zip (xi codes[8])
{
#pragma GCC unroll 4
  for (int q = 0; q < 8; q += 2) {
    const uint32x4_t even = (uint32x4_t) codes[q], odd = (uint32x4_t) codes[q + 1];
    codes[q] = (xi) vzip1q_u32 (even, odd);
    codes[q + 1] = (xi) vzip2q_u32 (even, odd);
  }
}

#define QUAD(lane) acc[0] = (vi) vusdotq_laneq_s32 ((int32x4_t) acc[0], (uint8x16_t) codes[q + lane], v, lane)

static inline __attribute__ ((always_inline)) void dot (vi *acc, const xi codes[8], const int8_t *const *x, const int n, const int depth, const int is_signed,
                                                        const int q0, const int q1)
{
  if (n == 1) {
#pragma GCC unroll 2
    for (int q = q0; q < q1; q += 4) {
      const int8x16_t v = vld1q_s8 (x[0] + q * 4);
      QUAD (0);
      QUAD (1);
      QUAD (2);
      QUAD (3);
    }
    return;
  }
  int32x4_t low = vdupq_n_s32 (0), high = vdupq_n_s32 (0); /* row 0 with both vectors, row 1 with both; rows 2 and 3 */
#pragma GCC unroll 2
  for (int q = q0; q < q1; q += 4) {
    const int64x2_t a = (int64x2_t) vld1q_s8 (x[0] + q * 4), b = (int64x2_t) vld1q_s8 (x[1] + q * 4);
    const int8x16_t left = (int8x16_t) vzip1q_s64 (a, b), right = (int8x16_t) vzip2q_s64 (a, b);
    low = vusmmlaq_s32 (low, (uint8x16_t) codes[q], left);
    high = vusmmlaq_s32 (high, (uint8x16_t) codes[q + 1], left);
    low = vusmmlaq_s32 (low, (uint8x16_t) codes[q + 2], right);
    high = vusmmlaq_s32 (high, (uint8x16_t) codes[q + 3], right);
  }
  acc[0] += (vi) vuzp1q_s32 (low, high);
  acc[1] += (vi) vuzp2q_s32 (low, high);
}

#include "kernels/xbit_product_tmpl.h"
