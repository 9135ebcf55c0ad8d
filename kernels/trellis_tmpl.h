/* trellis_tmpl.h: the Viterbi step, one source per instruction set (ops_isa.h). Costs are 16 bits, so that a register holds twice as many as of floats. */
#include "kernels/table.h"
#include "kernels/trellis.h"
#include "kernels/vec.h"

#if defined __SSE2__
#include <immintrin.h>
#endif

enum { TRELLIS_LANES = 2 * XB_VL };

typedef uint16_t vcost __attribute__ ((vector_size (TRELLIS_LANES * 2)));
typedef uint16_t vcost_unaligned __attribute__ ((vector_size (TRELLIS_LANES * 2), aligned (2), may_alias));
typedef int16_t vmiss __attribute__ ((vector_size (TRELLIS_LANES * 2)));
typedef uint32_t vcost_wide __attribute__ ((vector_size (TRELLIS_LANES * 4)));
typedef uint8_t vcost_bytes __attribute__ ((vector_size (TRELLIS_LANES)));

/* Where `other` is less, best becomes it and which becomes `mark`. */
static inline __attribute__ ((always_inline)) void take_less (vcost *best, vcost *which, const vcost other, const vcost mark)
{
#if XB_VL == 16 && defined __AVX512BW__
  const __mmask32 less = _mm512_cmplt_epu16_mask ((__m512i) other, (__m512i) *best);
  *which = (vcost) _mm512_mask_mov_epi16 ((__m512i) *which, less, (__m512i) mark);
  *best = (vcost) _mm512_min_epu16 ((__m512i) *best, (__m512i) other);
#elif XB_VL == 8 && defined __AVX2__
  const __m256i least = _mm256_min_epu16 ((__m256i) *best, (__m256i) other);
  *which = (vcost) _mm256_blendv_epi8 ((__m256i) mark, (__m256i) *which, _mm256_cmpeq_epi16 (least, (__m256i) *best));
  *best = (vcost) least;
#else
  const vcost less = (vcost) (other < *best);
  *best = (other & less) | (*best & ~less);
  *which = (less & mark) | (*which & ~less);
#endif
}

static inline __attribute__ ((always_inline)) vcost lesser (const vcost a, const vcost b)
{
#if XB_VL == 16 && defined __AVX512BW__
  return (vcost) _mm512_min_epu16 ((__m512i) a, (__m512i) b);
#elif XB_VL == 8 && defined __AVX2__
  return (vcost) _mm256_min_epu16 ((__m256i) a, (__m256i) b);
#elif XB_VL == 4 && defined __SSE2__
  return a - (vcost) _mm_subs_epu16 ((__m128i) a, (__m128i) b);
#else
  const vcost less = (vcost) (a < b);
  return (a & less) | (b & ~less);
#endif
}

/* TRELLIS_LANES states follow from so many >> depth; each of those is repeated 2^depth times. */
static inline __attribute__ ((always_inline)) vcost trellis_repeat (const uint16_t *cost, const uint32_t depth)
{
  if (TRELLIS_LANES >> depth <= 1)
    return (vcost) { 0 } + *cost;
#define REPEATED(l, k) ((l) >> k)
#if XB_VL == 8 && defined __AVX2__
#define BYTES(l, k) (char) (2 * ((l) >> k)), (char) (2 * ((l) >> k) + 1)
#define REPEAT(k) (vcost) _mm256_shuffle_epi8 (from, _mm256_setr_epi8 (XB_LANES (BYTES, k), XB_LANES (UPPER_BYTES, k)))
#define UPPER_BYTES(l, k) BYTES (l + 8, k)
  __m256i from;
  int64_t four;
  int32_t two;
  switch (depth) {
  case 1: from = _mm256_broadcastsi128_si256 (_mm_loadu_si128 ((const __m128i *) cost)); return REPEAT (1);
  case 2: memcpy (&four, cost, sizeof four); from = _mm256_set1_epi64x (four); return REPEAT (2);
  default: memcpy (&two, cost, sizeof two); from = _mm256_set1_epi32 (two); return REPEAT (3);
  }
#undef BYTES
#undef UPPER_BYTES
#else
#define UPPER(l, k) REPEATED (l + XB_VL, k)
#define REPEAT(k) __builtin_shufflevector (v, v, XB_LANES (REPEATED, k), XB_LANES (UPPER, k))
  const vcost v = *(const vcost_unaligned *) cost;
  switch (depth) {
  case 1: return REPEAT (1);
  case 2: return REPEAT (2);
  case 3: return REPEAT (3);
  default: return REPEAT (4);
  }
#undef UPPER
#endif
#undef REPEAT
#undef REPEATED
}

static inline __attribute__ ((always_inline)) vcost sum_at_most (const vcost a, const vcost b)
{
#if XB_VL == 16 && defined __AVX512BW__
  return (vcost) _mm512_adds_epu16 ((__m512i) a, (__m512i) b);
#elif XB_VL == 8 && defined __AVX2__
  return (vcost) _mm256_adds_epu16 ((__m256i) a, (__m256i) b);
#elif XB_VL == 4 && defined __SSE2__
  return (vcost) _mm_adds_epu16 ((__m128i) a, (__m128i) b);
#else
  const vcost sum = a + b;
  return sum | (vcost) (sum < a);
#endif
}

/* a b / 65536 */
static inline __attribute__ ((always_inline)) vcost product_high (const vcost a, const vcost b)
{
#if XB_VL == 16 && defined __AVX512BW__
  return (vcost) _mm512_mulhi_epu16 ((__m512i) a, (__m512i) b);
#elif XB_VL == 8 && defined __AVX2__
  return (vcost) _mm256_mulhi_epu16 ((__m256i) a, (__m256i) b);
#elif XB_VL == 4 && defined __SSE2__
  return (vcost) _mm_mulhi_epu16 ((__m128i) a, (__m128i) b);
#else
  return __builtin_convertvector (__builtin_convertvector (a, vcost_wide) * __builtin_convertvector (b, vcost_wide) >> 16, vcost);
#endif
}

static inline __attribute__ ((always_inline)) vcost size_of (const vmiss a)
{
#if XB_VL == 16 && defined __AVX512BW__
  return (vcost) _mm512_abs_epi16 ((__m512i) a);
#elif XB_VL == 8 && defined __AVX2__
  return (vcost) _mm256_abs_epi16 ((__m256i) a);
#else
  const vmiss is_negative = a < 0;
  return (vcost) ((a ^ is_negative) - is_negative);
#endif
}

/* What each value costs (trellis.h). */
static inline void trellis_errors (const xb_trellis *t, float x, float weight, uint16_t *error)
{
  const xb_trellis_count count = xb_trellis_counting (t, x, weight);
  const uint16_t counted_bits = (uint16_t) ~xb_trellis_marks (t);
  const vcost zero = { 0 }, most = zero + count.most_miss, factor = zero + count.factor, beyond = zero + count.beyond;
  for (uint32_t i = 0; i < t->n_groups * XB_WORD_GROUP; i += TRELLIS_LANES) {
    const vcost miss = size_of (*(const vmiss *) (t->values + i) - count.x), counted = lesser (miss, most), root = product_high (counted << count.shift, factor);
    *(vcost *) (error + i) = (product_high (root, root) + product_high (miss - counted, beyond)) & counted_bits;
  }
}

/* Numbers below 256, as bytes: of one register, and of two where the instruction set takes them together. */
static inline __attribute__ ((always_inline)) void store_bytes (uint8_t *to, const vcost which[XB_WORD_GROUP / TRELLIS_LANES])
{
#if XB_VL == 8 && defined __AVX2__
  _mm256_storeu_si256 ((__m256i *) to, _mm256_permute4x64_epi64 (_mm256_packus_epi16 ((__m256i) which[0], (__m256i) which[1]), 0xd8));
#else
  for (uint32_t i = 0; i < XB_WORD_GROUP / TRELLIS_LANES; i++) {
    const vcost_bytes bytes = __builtin_convertvector (which[i], vcost_bytes);
    memcpy (to + i * TRELLIS_LANES, &bytes, sizeof bytes);
  }
#endif
}

/* The best word into each state. */
static inline __attribute__ ((always_inline)) void trellis_step (const xb_trellis *t, const uint16_t *before, uint16_t *after, const uint16_t *error, uint8_t *back,
                                                                 const uint32_t word_bits, const uint32_t depth)
{
  const uint32_t states = 1u << (word_bits - depth), above = states >> depth;
  const uint16_t marks = depth <= XB_MARKED_DEPTH ? (uint16_t) ((1u << depth) - 1) : 0;
  const vcost zero = { 0 };
  for (uint32_t first = 0; first < states; first += XB_WORD_GROUP) {
    const uint16_t *place = t->place + first / XB_WORD_GROUP;
    vcost which[XB_WORD_GROUP / TRELLIS_LANES];
    for (uint32_t i = 0; i < XB_WORD_GROUP / TRELLIS_LANES; i++) {
      const uint32_t n = first + i * TRELLIS_LANES;
      vcost best = zero, from = zero;
      for (uint32_t oldest = 0; oldest < 1u << depth; oldest++) {
        const vcost other = sum_at_most (trellis_repeat (before + oldest * above + (n >> depth), depth),
                                         *(const vcost *) (error + place[oldest * (states / XB_WORD_GROUP)] + i * TRELLIS_LANES));
        if (oldest == 0)
          best = other;
        else if (marks)
          best = lesser (best, other);
        else
          take_less (&best, &from, other, zero + (uint16_t) oldest);
      }
      if (marks) { /* the upper bits of a state are the oldest code of the words that come next */
        from = best & marks;
        best = (best ^ from) | (uint16_t) (first / above);
      }
      *(vcost *) (after + n) = best;
      which[i] = from;
    }
    store_bytes (back + first, which);
  }
}

/* Takes the least of all costs from each. */
static inline void trellis_lower (uint16_t *cost, uint32_t states, uint16_t marks)
{
  vcost least = *(const vcost *) cost;
  for (uint32_t n = TRELLIS_LANES; n < states; n += TRELLIS_LANES)
    least = lesser (least, *(const vcost *) (cost + n));
  uint16_t smallest = UINT16_MAX;
  for (int i = 0; i < TRELLIS_LANES; i++)
    smallest = least[i] < smallest ? least[i] : smallest;
  for (uint32_t n = 0; n < states; n += TRELLIS_LANES)
    *(vcost *) (cost + n) -= (uint16_t) (smallest & ~marks);
}

static void trellis_extend (const xb_trellis *t, uint16_t *cost, const float *x, const float *weight, uint32_t n, uint8_t *back)
{
  uint16_t work[2][XB_MOST_STATES + TRELLIS_LANES] __attribute__ ((aligned (64))), error[XB_VALUE_GROUPS * XB_WORD_GROUP] __attribute__ ((aligned (64)));
  const uint32_t states = xb_trellis_states (t);
  const uint16_t marks = xb_trellis_marks (t);
  for (uint32_t s = 0; s < states; s++)
    work[0][s] = marks ? (uint16_t) ((cost[s] & ~marks) | s >> (t->word_bits - 2 * t->depth)) : cost[s];
  for (uint32_t i = 0; i < n; i++, back += states) {
    uint16_t *before = work[i % 2], *after = work[(i + 1) % 2];
    if (i % XB_TRELLIS_LOWERED == 0)
      trellis_lower (before, states, marks);
    trellis_errors (t, x[i], weight[i], error);
    switch (t->word_bits * 8 + t->depth) {
    case XB_WORD_BITS * 8 + 1: trellis_step (t, before, after, error, back, XB_WORD_BITS, 1); break;
    case XB_WORD_BITS * 8 + 2: trellis_step (t, before, after, error, back, XB_WORD_BITS, 2); break;
    case XB_WORD_BITS * 8 + 3: trellis_step (t, before, after, error, back, XB_WORD_BITS, 3); break;
    case XB_WORD_BITS * 8 + 4: trellis_step (t, before, after, error, back, XB_WORD_BITS, 4); break;
    case XB_WORD_BITS * 8 + 5: trellis_step (t, before, after, error, back, XB_WORD_BITS, 5); break;
    case XB_WORD_BITS * 8 + 6: trellis_step (t, before, after, error, back, XB_WORD_BITS, 6); break;
    case XB_MOST_WORD_BITS * 8 + 2: trellis_step (t, before, after, error, back, XB_MOST_WORD_BITS, 2); break;
    case XB_MOST_WORD_BITS * 8 + 3: trellis_step (t, before, after, error, back, XB_MOST_WORD_BITS, 3); break;
    case XB_MOST_WORD_BITS * 8 + 4: trellis_step (t, before, after, error, back, XB_MOST_WORD_BITS, 4); break;
    default: trellis_step (t, before, after, error, back, XB_MOST_WORD_BITS, 5); break;
    }
  }
  for (uint32_t s = 0; s < states; s++)
    cost[s] = work[n % 2][s] & (uint16_t) ~marks;
}
