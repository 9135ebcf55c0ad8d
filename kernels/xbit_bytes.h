/* xbit_bytes.h: registers of codes as the compiler's own vectors, XB_VL * 4 bytes each; part of every vocabulary of xbit_product_tmpl.h. */
#ifndef XB_BYTES_H
#define XB_BYTES_H

#include "kernels/vec.h"

typedef uint8_t xi __attribute__ ((vector_size (XB_VL * 4)));
typedef uint8_t xi_memory __attribute__ ((vector_size (XB_VL * 4), may_alias));
typedef uint16_t xi_words __attribute__ ((vector_size (XB_VL * 4)));

static inline xi xi_load (const uint8_t *p)
{
  return *(const xi_memory *) (const void *) p;
}

static inline void xi_store (uint8_t *p, xi v)
{
  *(xi_memory *) (void *) p = v;
}

static inline xi xi_set (uint8_t byte)
{
  const xi zero = { 0 };
  return zero + byte;
}

/* 16 bytes in every 16 bytes. */
static inline xi xi_repeat16 (const void *bytes)
{
#if XB_VL == 16
  return (xi) _mm512_broadcast_i32x4 (_mm_loadu_si128 ((const __m128i *) bytes));
#elif XB_VL == 8
  return (xi) _mm256_broadcastsi128_si256 (_mm_loadu_si128 ((const __m128i *) bytes));
#else
  return xi_load (bytes);
#endif
}

/* Shifts move bits between neighbouring bytes as 16-bit shifts do: what uses them masks those away. */
static inline xi xi_left (xi v, int n)
{
  return (xi) ((xi_words) v << n);
}

static inline xi xi_right (xi v, int n)
{
  return (xi) ((xi_words) v >> n);
}

static inline vi vi_set (int32_t value)
{
  const vi zero = { 0 };
  return zero + value;
}

typedef float vf_aligned __attribute__ ((vector_size (XB_VL * 4), may_alias));

static inline vf v_aligned (const float *p)
{
  return *(const vf_aligned *) (const void *) p;
}

/* Four activations, as the 32 bits every lane is multiplied with. */
static inline int32_t four (const int8_t *x)
{
  int32_t word;
  memcpy (&word, x, 4);
  return word;
}

#endif
