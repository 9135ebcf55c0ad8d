/* vec.h: the float vocabulary of the sources compiled per instruction set: XB_VL lanes of the compiler's own vectors, an exponential, and
 * half precision through the instruction where there is one. */
#ifndef XB_VEC_H
#define XB_VEC_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#if defined __F16C__ || defined __AVX512F__ || defined __SSE4_1__
#include <immintrin.h>
#elif defined __aarch64__
#include <arm_neon.h>
#endif

#include "kernels/half.h"

#define XB_JOIN2(a, b) a##b
#define XB_JOIN(a, b) XB_JOIN2 (a, b)

typedef float vf __attribute__ ((vector_size (XB_VL * 4)));
typedef float vf_unaligned __attribute__ ((vector_size (XB_VL * 4), aligned (4), may_alias));
typedef int32_t vi __attribute__ ((vector_size (XB_VL * 4)));

static inline vf v_load (const float *p)
{
  return *(const vf_unaligned *) p;
}

static inline void v_store (float *p, vf v)
{
  *(vf_unaligned *) p = v;
}

static inline vf v_set (float f)
{
  vf zero = { 0 };
  return zero + f;
}

/* b where either is no number. */
static inline vf v_max (vf a, vf b)
{
#if XB_VL == 16 && defined __AVX512F__
  return _mm512_max_ps (a, b);
#elif XB_VL == 8 && defined __AVX2__
  return _mm256_max_ps (a, b);
#else
  vi greater = a > b;
  return (vf) (((vi) a & greater) | ((vi) b & ~greater));
#endif
}

static inline vf v_min (vf a, vf b)
{
#if XB_VL == 16 && defined __AVX512F__
  return _mm512_min_ps (a, b);
#elif XB_VL == 8 && defined __AVX2__
  return _mm256_min_ps (a, b);
#else
  vi less = a < b;
  return (vf) (((vi) a & less) | ((vi) b & ~less));
#endif
}

/* Every lane l of F (l, k), for shuffles. */
#if XB_VL == 16
#define XB_LANES(F, k) F (0, k), F (1, k), F (2, k), F (3, k), F (4, k), F (5, k), F (6, k), F (7, k), F (8, k), F (9, k), F (10, k), F (11, k), \
                       F (12, k), F (13, k), F (14, k), F (15, k)
#elif XB_VL == 8
#define XB_LANES(F, k) F (0, k), F (1, k), F (2, k), F (3, k), F (4, k), F (5, k), F (6, k), F (7, k)
#else
#define XB_LANES(F, k) F (0, k), F (1, k), F (2, k), F (3, k)
#endif
#define XB_ACROSS(l, k) ((l ^ k) % XB_VL)
#define v_swap(v, k) __builtin_shufflevector (v, v, XB_LANES (XB_ACROSS, k))

/* Lane l of v[i] becomes lane i of v[l]: pairs that differ in one bit of i exchange the halves of their lanes that differ in it. */
#define XB_FIRST(l, k) ((l & k) ? XB_VL + l - k : l)
#define XB_SECOND(l, k) ((l & k) ? XB_VL + l : l + k)
#define XB_EXCHANGE(k) \
  _Pragma ("GCC unroll 16") for (int i = 0; i < XB_VL; i++) if ((i & k) == 0) \
  { \
    vf a = v[i], b = v[i + k]; \
    v[i] = __builtin_shufflevector (a, b, XB_LANES (XB_FIRST, k)); \
    v[i + k] = __builtin_shufflevector (a, b, XB_LANES (XB_SECOND, k)); \
  }

static inline void v_transpose (vf *v)
{
  XB_EXCHANGE (1)
  XB_EXCHANGE (2)
#if XB_VL >= 8
  XB_EXCHANGE (4)
#endif
#if XB_VL >= 16
  XB_EXCHANGE (8)
#endif
}

/* The sum of all lanes. */
#define V_SUM(name, vector, number) \
  static inline number name (vector v) \
  { \
    if (XB_VL >= 16) \
      v += v_swap (v, 8); \
    if (XB_VL >= 8) \
      v += v_swap (v, 4); \
    v += v_swap (v, 2); \
    v += v_swap (v, 1); \
    return v[0]; \
  }
V_SUM (v_sum, vf, float)
V_SUM (vi_sum, vi, int32_t)

static inline float v_largest (vf v)
{
#if XB_VL >= 16
  v = v_max (v, v_swap (v, 8));
#endif
#if XB_VL >= 8
  v = v_max (v, v_swap (v, 4));
#endif
  v = v_max (v, v_swap (v, 2));
  v = v_max (v, v_swap (v, 1));
  return v[0];
}

/* exp: 2^n times a polynomial (Cephes' expf) of the remainder, below 2 units in the last place; 0 below -87.3, e^88 at most. */
#define XB_EXP_LOW -87.33654f
#define XB_EXP_HIGH 88.0f

static inline vf v_exp (vf x)
{
  vi keep = x >= v_set (XB_EXP_LOW);
  vf clamped = v_min (v_max (x, v_set (XB_EXP_LOW)), v_set (XB_EXP_HIGH));
  vf shifted = clamped * v_set (1.44269504088896341f) + v_set (12582912.0f);
  vi n = (vi) shifted - (vi) v_set (12582912.0f);
  vf rounded = shifted - v_set (12582912.0f);
  vf r = clamped - rounded * v_set (0.693359375f) + rounded * v_set (2.12194440e-4f);
  vf p = v_set (1.9875691500e-4f);
  p = p * r + v_set (1.3981999507e-3f);
  p = p * r + v_set (8.3334519073e-3f);
  p = p * r + v_set (4.1665795894e-2f);
  p = p * r + v_set (1.6666665459e-1f);
  p = p * r + v_set (5.0000001201e-1f);
  p = p * r * r + r + v_set (1.0f);
  return (vf) ((vi) (p * (vf) ((n + 127) << 23)) & keep);
}

static inline float s_exp (float x)
{
  return v_exp (v_set (x))[0];
}

#if XB_VL == 16
#define XB_XOR(v, k) \
  __builtin_shufflevector (v, v, 0 ^ k, 1 ^ k, 2 ^ k, 3 ^ k, 4 ^ k, 5 ^ k, 6 ^ k, 7 ^ k, 8 ^ k, 9 ^ k, 10 ^ k, 11 ^ k, 12 ^ k, 13 ^ k, 14 ^ k, 15 ^ k)
#elif XB_VL == 8
#define XB_XOR(v, k) __builtin_shufflevector (v, v, 0 ^ k, 1 ^ k, 2 ^ k, 3 ^ k, 4 ^ k, 5 ^ k, 6 ^ k, 7 ^ k)
#else
#define XB_XOR(v, k) __builtin_shufflevector (v, v, 0 ^ k, 1 ^ k, 2 ^ k, 3 ^ k)
#endif

static inline vf v_sign (int k)
{
  vf s = { 0 };
  for (int i = 0; i < XB_VL; i++)
    s[i] = i & k ? -1.0f : 1.0f;
  return s;
}

/* The unnormalised Hadamard transform of one vector's lanes: a lane without the bit gets a + b, one with it a - b. */
static inline vf v_hadamard (vf v)
{
  v = v * v_sign (1) + XB_XOR (v, 1);
  v = v * v_sign (2) + XB_XOR (v, 2);
#if XB_VL >= 8
  v = v * v_sign (4) + XB_XOR (v, 4);
#endif
#if XB_VL >= 16
  v = v * v_sign (8) + XB_XOR (v, 8);
#endif
  return v;
}

/* XB_VL bytes as numbers of 32 bits. (Compilers widen their own vectors of bytes one by one.) */
static inline vi v_from_i8 (const void *p)
{
#if XB_VL == 16 && defined __AVX512F__
  return (vi) _mm512_cvtepi8_epi32 (_mm_loadu_si128 (p));
#elif XB_VL == 8 && defined __AVX2__
  return (vi) _mm256_cvtepi8_epi32 (_mm_loadl_epi64 (p));
#elif XB_VL == 4 && defined __SSE4_1__
  return (vi) _mm_cvtepi8_epi32 (_mm_loadu_si32 (p));
#elif XB_VL == 4 && defined __aarch64__
  return (vi) vmovl_s16 (vget_low_s16 (vmovl_s8 (vreinterpret_s8_u32 (vld1_dup_u32 (p)))));
#else
  vi v = { 0 };
  for (int i = 0; i < XB_VL; i++)
    v[i] = ((const int8_t *) p)[i];
  return v;
#endif
}

/* XB_VL halves, of finite numbers. */
static inline vf v_half (const uint16_t *h)
{
#if XB_VL == 16 && defined __AVX512F__
  return (vf) _mm512_cvtph_ps (_mm256_loadu_si256 ((const __m256i *) (const void *) h));
#elif XB_VL == 8 && defined __F16C__
  return (vf) _mm256_cvtph_ps (_mm_loadu_si128 ((const __m128i *) (const void *) h));
#elif XB_VL == 4 && defined __aarch64__
  return (vf) vcvt_f32_f16 (vreinterpret_f16_u16 (vld1_u16 (h)));
#else /* their bits lie in a float's but for the exponent's bias of 112 */
  typedef uint16_t halves __attribute__ ((vector_size (XB_VL * 2)));
  halves v;
  memcpy (&v, h, sizeof v);
  const vi bits = __builtin_convertvector (v, vi), size = (bits & 0x7fff) << 13;
  return (vf) ((vi) ((vf) size * v_set (0x1p112f)) | (bits & 0x8000) << 16);
#endif
}

static inline void half_to_f32 (const uint16_t *h, float *out, size_t n)
{
  size_t i = 0;
#if defined __AVX512F__
  for (; i + 16 <= n; i += 16)
    _mm512_storeu_ps (out + i, _mm512_cvtph_ps (_mm256_loadu_si256 ((const __m256i *) (const void *) (h + i))));
#endif
#if defined __F16C__
  for (; i + 8 <= n; i += 8)
    _mm256_storeu_ps (out + i, _mm256_cvtph_ps (_mm_loadu_si128 ((const __m128i *) (const void *) (h + i))));
#endif
#if defined __aarch64__
  for (const size_t whole = n / 4 * 4; i < whole; i += 4)
    vst1q_f32 (out + i, vcvt_f32_f16 (vreinterpret_f16_u16 (vld1_u16 (h + i))));
#endif
  for (; i < n; i++)
    out[i] = half_to (h[i]);
}

static inline void f32_to_f16 (const float *x, uint16_t *out, size_t n)
{
  size_t i = 0;
#if defined __F16C__
  for (; i + 8 <= n; i += 8)
    _mm_storeu_si128 ((__m128i *) (void *) (out + i), _mm256_cvtps_ph (_mm256_loadu_ps (x + i), _MM_FROUND_TO_NEAREST_INT));
#endif
#if defined __aarch64__
  for (const size_t whole = n / 4 * 4; i < whole; i += 4)
    vst1_u16 (out + i, vreinterpret_u16_f16 (vcvt_f16_f32 (vld1q_f32 (x + i))));
#endif
  for (; i < n; i++)
    out[i] = half_from (x[i]);
}

#endif
