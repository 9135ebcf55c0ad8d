/* xbit_avx512vnni.c: the vocabulary of AVX-512 with VNNI: a quad is one register, vpdpbusd adds it to 16 rows at once. */
#include <immintrin.h>
#include <math.h>

#define XI_HALVES 1
typedef __m512i xi, xacc;
typedef __m512 xf;
#define xi_load(p) _mm512_load_si512 (p)
#define xi_store(p, v) _mm512_store_si512 (p, v)
#define xi_xor(a, b) _mm512_xor_si512 (a, b)
#define XI_TABLE_FLIP 0
#define xi_and(a, b) _mm512_and_si512 (a, b)
#define xi_or(a, b) _mm512_or_si512 (a, b)
#define xi_set(c) _mm512_set1_epi8 (c)
#define XI_LEFT(v, n) _mm512_slli_epi16 (v, n)
#define XI_RIGHT(v, n) _mm512_srli_epi16 (v, n)
#define xi_lookup(table, codes) _mm512_shuffle_epi8 (table, codes)
/* vpdpbusd wants unsigned codes: the table is biased by 128, which `zero` takes back. */
#define xi_table(t) _mm512_xor_si512 (_mm512_broadcast_i32x4 (_mm_loadu_si128 ((const __m128i *) (const void *) (t))), _mm512_set1_epi8 (-128))
#define XACC_START(depth, codebook, sum) _mm512_setzero_si512 ()
#define xf_load(p) _mm512_load_ps (p)
#define xf_store(p, v) _mm512_store_ps (p, v)
#define xf_set(f) _mm512_set1_ps (f)
#define xf_add(a, b) _mm512_add_ps (a, b)
#define xf_fma(a, b, c) _mm512_fmadd_ps (a, b, c)
#define xf_mul(a, b) _mm512_mul_ps (a, b)
#define xf_from(a) _mm512_cvtepi32_ps (a)

#define QUADS_DOT(acc, codes, x, depth, codebook, q0, q1) dot (&(acc), codes, x, q0, q1)

static inline __attribute__ ((always_inline)) void dot (__m512i *acc, const __m512i codes[8], const signed char *x, int q0, int q1)
{
  __m512i even = *acc, odd = _mm512_setzero_si512 ();
  for (int q = q0; q < q1; q += 2) {
    int a, b;
    __builtin_memcpy (&a, x + q * 4, 4);
    __builtin_memcpy (&b, x + q * 4 + 4, 4);
    even = _mm512_dpbusd_epi32 (even, codes[q], _mm512_set1_epi32 (a));
    odd = _mm512_dpbusd_epi32 (odd, codes[q + 1], _mm512_set1_epi32 (b));
  }
  *acc = _mm512_add_epi32 (even, odd);
}

#define XB_VL 16
#include "kernels/xbit_product_tmpl.h"

/* 32 columns at a time: peak, scale, round to nearest even, sums. */
static void acts_quantize (xb_acts *acts, uint32_t i, const float *x, int bits)
{
  int8_t *q = acts->q + (size_t) i * acts->cols_padded;
  const float limit = bits == 4 ? 7.0f : 127.0f;
  for (uint32_t t = 0; t < acts->cols_padded / 32; t++) {
    const size_t tile = (size_t) i * (acts->cols_padded / 32) + t;
    const uint32_t n = acts->cols - t * 32 < 32 ? acts->cols - t * 32 : 32;
    const __mmask16 m0 = (__mmask16) (n >= 16 ? 0xffff : (1u << n) - 1), m1 = (__mmask16) (n >= 32 ? 0xffff : n > 16 ? (1u << (n - 16)) - 1 : 0);
    const __m512 a = _mm512_maskz_loadu_ps (m0, x + t * 32), b = _mm512_maskz_loadu_ps (m1, x + t * 32 + 16);
    const float peak = _mm512_reduce_max_ps (_mm512_max_ps (_mm512_abs_ps (a), _mm512_abs_ps (b)));
    const float scale = peak / limit, inverse = peak > LEAST_PEAK ? limit / peak : 0;
    const __m512i qa = _mm512_cvtps_epi32 (_mm512_mul_ps (a, _mm512_set1_ps (inverse))), qb = _mm512_cvtps_epi32 (_mm512_mul_ps (b, _mm512_set1_ps (inverse)));
    _mm_storeu_si128 ((__m128i *) (void *) (q + t * 32), _mm512_cvtepi32_epi8 (qa));
    _mm_storeu_si128 ((__m128i *) (void *) (q + t * 32 + 16), _mm512_cvtepi32_epi8 (qb));
    const int sums[2] = { _mm512_reduce_add_epi32 (qa), _mm512_reduce_add_epi32 (qb) };
    acts->scale[tile] = scale;
    for (int h = 0; h < 2; h++) {
      acts->sum[tile * 2 + (size_t) h] = (int16_t) sums[h];
      acts->sum16[tile * 2 + (size_t) h] = scale * (float) sums[h];
    }
    acts->sum32[tile] = scale * (float) (sums[0] + sums[1]);
  }
}

void xb_product_init_avx512vnni (xb_product_table *t)
{
  *t = (xb_product_table) { .acts_quantize = acts_quantize, .matvec = matvec, .matmul = matmul, .matmul_f32 = matmul_f32 };
}
