/* xbit_vnni.h: the dot product of the sets whose vpdpbusd adds four unsigned x signed products to each lane. The including file defines
 * DPBUSD (acc, codes, x). */
#define XI_SIGNED 0

static inline __attribute__ ((always_inline)) void dot (vi *acc, const xi codes[8], const int8_t *const *x, const int n, const int depth, const int is_signed,
                                                        const int q0, const int q1)
{
  if (n == 1) { /* two sums hide the latency */
    vi other = vi_set (0);
#pragma GCC unroll 4
    for (int q = q0; q < q1; q += 2) {
      acc[0] = (vi) DPBUSD (acc[0], codes[q], vi_set (four (x[0] + q * 4)));
      other = (vi) DPBUSD (other, codes[q + 1], vi_set (four (x[0] + q * 4 + 4)));
    }
    acc[0] += other;
    return;
  }
#pragma GCC unroll 8
  for (int q = q0; q < q1; q++)
#pragma GCC unroll 4
    for (int i = 0; i < n; i++)
      acc[i] = (vi) DPBUSD (acc[i], codes[q], vi_set (four (x[i] + q * 4)));
}
