/* xbit_maddubs.h: the dot product of the sets that have vpmaddubsw and no VNNI. It adds pairs of unsigned x signed products in 16 bits, which
 * saturate: depths up to 7 stay unsigned and as many quads are summed in 16 bits as their largest code allows; depth 8 and tables are signed,
 * their size multiplied with x to which their sign has moved. The including file defines MADDUBS, MADD_WORDS, MAGNITUDE (|w|, 128 for
 * -128) and MOVE_SIGN (x, w). */
#define XI_SIGNED 1
#define XI_TOGETHER 2

typedef int16_t words __attribute__ ((vector_size (XB_VL * 4)));

static inline __attribute__ ((always_inline)) void dot (vi *acc, const xi codes[8], const int8_t *const *x, const int n, const int depth, const int is_signed,
                                                        const int q0, const int q1)
{
  /* 127 (2^depth - 1) 2 quads <= 32767 */
  const int most = is_signed || depth >= 7 ? 1 : depth == 6 ? 2 : depth == 5 ? 4 : 8, together = most < q1 - q0 ? most : q1 - q0;
  const words zero = { 0 }, ones = zero + 1;
#pragma GCC unroll 8
  for (int q = q0; q < q1; q += together) {
    words sum[XI_TOGETHER];
#pragma GCC unroll 8
    for (int j = q; j < q + together; j++) {
      const xi size = is_signed ? (xi) MAGNITUDE (codes[j]) : codes[j];
#pragma GCC unroll 2
      for (int i = 0; i < n; i++) {
        const vi v = vi_set (four (x[i] + j * 4));
        const words pairs = (words) MADDUBS (size, is_signed ? (vi) MOVE_SIGN (v, codes[j]) : v);
        sum[i] = j == q ? pairs : sum[i] + pairs;
      }
    }
#pragma GCC unroll 2
    for (int i = 0; i < n; i++)
      acc[i] += (vi) MADD_WORDS (sum[i], ones);
  }
}
