/* xbit_neon_dotprod.c: the vocabulary of NEON with dot products (ARMv8.2): SDOT adds four signed products to each of 4 rows. */
#include <arm_neon.h>

#define XB_VL 4
#define XB_SUFFIX neon_dotprod
#include "kernels/xbit_bytes.h"
#define XI_SHUFFLE(table, codes) ((xi) vqtbl1q_u8 ((uint8x16_t) (table), (uint8x16_t) (codes)))
#define XI_SIGNED 1
#define XI_TOGETHER 4

#define QUAD(lane) acc[i] = (vi) vdotq_laneq_s32 ((int32x4_t) acc[i], (int8x16_t) codes[q + lane], v, lane)

static inline __attribute__ ((always_inline)) void dot (vi *acc, const xi codes[8], const int8_t *const *x, const int n, const int depth, const int is_signed,
                                                        const int q0, const int q1)
{
#pragma GCC unroll 2
  for (int q = q0; q < q1; q += 4)
#pragma GCC unroll 4
    for (int i = 0; i < n; i++) {
      const int8x16_t v = vld1q_s8 (x[i] + q * 4);
      QUAD (0);
      QUAD (1);
      QUAD (2);
      QUAD (3);
    }
}

#include "kernels/xbit_product_tmpl.h"
