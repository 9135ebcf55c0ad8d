/* xbit_avx2.c: the vocabulary of AVX2: a quad is two registers of 8 rows. vpmaddubsw adds pairs of products in 16 bits, which saturate:
 * depths up to 7 stay unsigned and as many quads are summed in 16 bits as their largest code allows; depth 8 and tables are signed,
 * their size multiplied with x to which their sign has moved. */
#include <immintrin.h>
#include <math.h>

#define XI_HALVES 2
typedef __m256i xi, xacc;
typedef __m256 xf;
#define xi_load(p) _mm256_load_si256 ((const __m256i *) (const void *) (p))
#define xi_store(p, v) _mm256_store_si256 ((__m256i *) (void *) (p), v)
#define xi_xor(a, b) _mm256_xor_si256 (a, b)
#define XI_TABLE_FLIP 0x80
#define xi_and(a, b) _mm256_and_si256 (a, b)
#define xi_or(a, b) _mm256_or_si256 (a, b)
#define xi_set(c) _mm256_set1_epi8 (c)
#define XI_LEFT(v, n) _mm256_slli_epi16 (v, n)
#define XI_RIGHT(v, n) _mm256_srli_epi16 (v, n)
#define xi_lookup(table, codes) _mm256_shuffle_epi8 (table, codes)
#define xi_table(t) _mm256_broadcastsi128_si256 (_mm_loadu_si128 ((const __m128i *) (const void *) (t)))
/* Signed codes are 128 less than u. */
#define XI_SIGNED(depth, codebook) ((depth) == 8 || (codebook) == 1)
#define XACC_START(depth, codebook, sum) _mm256_set1_epi32 (XI_SIGNED (depth, codebook) ? 128 * (sum) : 0)
#define xf_load(p) _mm256_load_ps (p)
#define xf_store(p, v) _mm256_store_ps (p, v)
#define xf_set(f) _mm256_set1_ps (f)
#define xf_add(a, b) _mm256_add_ps (a, b)
#define xf_fma(a, b, c) _mm256_fmadd_ps (a, b, c)
#define xf_mul(a, b) _mm256_mul_ps (a, b)
#define xf_from(a) _mm256_cvtepi32_ps (a)

#define QUADS_DOT(acc, codes, x, depth, codebook, q0, q1) dot (&(acc), codes, x, depth, codebook, q0, q1)

static inline __attribute__ ((always_inline)) void dot (__m256i *acc, const __m256i codes[8], const signed char *x, const int depth, const int codebook, int q0,
                                                        int q1)
{
  /* 127 (2^depth - 1) 2 quads <= 32767 */
  const int is_signed = XI_SIGNED (depth, codebook), together = is_signed || depth == 7 ? 1 : depth == 6 ? 2 : depth == 5 ? 4 : 8;
  const __m256i ones = _mm256_set1_epi16 (1);
  for (int q = q0; q < q1; q += together) {
    __m256i sum = _mm256_setzero_si256 ();
    for (int j = q; j < q + together && j < q1; j++) {
      int word;
      __builtin_memcpy (&word, x + j * 4, 4);
      const __m256i v = _mm256_set1_epi32 (word);
      __m256i pairs;
      if (is_signed) {
        const __m256i w = depth == 8 ? _mm256_xor_si256 (codes[j], _mm256_set1_epi8 (-128)) : codes[j];
        pairs = _mm256_maddubs_epi16 (_mm256_abs_epi8 (w), _mm256_sign_epi8 (v, w)); /* |-128| is 128 there */
      } else
        pairs = _mm256_maddubs_epi16 (codes[j], v);
      sum = together == 1 ? pairs : _mm256_add_epi16 (sum, pairs);
    }
    *acc = _mm256_add_epi32 (*acc, _mm256_madd_epi16 (sum, ones));
  }
}

#define XB_VL 8
#include "kernels/xbit_product_tmpl.h"

static void acts_quantize (xb_acts *acts, uint32_t i, const float *x, int bits)
{
  int8_t *q = acts->q + (size_t) i * acts->cols_padded;
  const float limit = bits == 4 ? 7.0f : 127.0f;
  for (uint32_t t = 0; t < acts->cols_padded / 32; t++) {
    const size_t tile = (size_t) i * (acts->cols_padded / 32) + t;
    float local[32] = { 0 };
    const float *from = x + t * 32;
    if (acts->cols - t * 32 < 32) {
      memcpy (local, from, (acts->cols - t * 32) * sizeof (float));
      from = local;
    }
    const __m256 clear = _mm256_castsi256_ps (_mm256_set1_epi32 (0x7fffffff));
    __m256 v[4], most = _mm256_setzero_ps ();
    for (int j = 0; j < 4; j++) {
      v[j] = _mm256_loadu_ps (from + j * 8);
      most = _mm256_max_ps (most, _mm256_and_ps (v[j], clear));
    }
    __m128 m = _mm_max_ps (_mm256_castps256_ps128 (most), _mm256_extractf128_ps (most, 1));
    m = _mm_max_ps (m, _mm_movehl_ps (m, m));
    m = _mm_max_ss (m, _mm_movehdup_ps (m));
    const float peak = _mm_cvtss_f32 (m), scale = peak / limit, inverse = peak > LEAST_PEAK ? limit / peak : 0;
    __m256i w[4];
    for (int j = 0; j < 4; j++)
      w[j] = _mm256_cvtps_epi32 (_mm256_mul_ps (v[j], _mm256_set1_ps (inverse)));
    const __m256i low = _mm256_packs_epi32 (w[0], w[1]), high = _mm256_packs_epi32 (w[2], w[3]), bytes = _mm256_packs_epi16 (low, high);
    _mm256_storeu_si256 ((__m256i *) (void *) (q + t * 32), _mm256_permutevar8x32_epi32 (bytes, _mm256_setr_epi32 (0, 4, 1, 5, 2, 6, 3, 7)));
    int sums[2];
    for (int h = 0; h < 2; h++) {
      const __m256i pair = _mm256_add_epi32 (w[h * 2], w[h * 2 + 1]);
      __m128i s = _mm_add_epi32 (_mm256_castsi256_si128 (pair), _mm256_extracti128_si256 (pair, 1));
      s = _mm_add_epi32 (s, _mm_shuffle_epi32 (s, 0x4e));
      s = _mm_add_epi32 (s, _mm_shuffle_epi32 (s, 0xb1));
      sums[h] = _mm_cvtsi128_si32 (s);
    }
    acts->scale[tile] = scale;
    for (int h = 0; h < 2; h++) {
      acts->sum[tile * 2 + (size_t) h] = (int16_t) sums[h];
      acts->sum16[tile * 2 + (size_t) h] = scale * (float) sums[h];
    }
    acts->sum32[tile] = scale * (float) (sums[0] + sums[1]);
  }
}

void xb_product_init_avx2 (xb_product_table *t)
{
  *t = (xb_product_table) { .acts_quantize = acts_quantize, .matvec = matvec, .matmul = matmul, .matmul_f32 = matmul_f32 };
}
