/* trellis_tmpl.h: the Viterbi step, one source per instruction set (ops_isa.h). Costs are 16 bits, so that a register holds twice as many as of floats. */
#include "kernels/table.h"
#include "kernels/trellis.h"
#include "kernels/vec.h"

enum { TRELLIS_LANES = 2 * XB_VL };

typedef uint16_t vcost __attribute__ ((vector_size (TRELLIS_LANES * 2)));
typedef uint16_t vcost_unaligned __attribute__ ((vector_size (TRELLIS_LANES * 2), aligned (2), may_alias));
typedef uint16_t vcost_half __attribute__ ((vector_size (XB_VL * 2)));
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

/* TRELLIS_LANES states follow from so many >> depth; each of those is repeated 2^depth times. */
static inline __attribute__ ((always_inline)) vcost trellis_repeat (const uint16_t *cost, const uint32_t depth)
{
  const vcost zero = { 0 };
  if (TRELLIS_LANES >> depth <= 1)
    return zero + *cost;
  const vcost v = *(const vcost_unaligned *) cost;
#if XB_VL == 16
#define REPEAT(k) \
  __builtin_shufflevector (v, v, 0, 1 >> k, 2 >> k, 3 >> k, 4 >> k, 5 >> k, 6 >> k, 7 >> k, 8 >> k, 9 >> k, 10 >> k, 11 >> k, 12 >> k, 13 >> k, 14 >> k, \
                           15 >> k, 16 >> k, 17 >> k, 18 >> k, 19 >> k, 20 >> k, 21 >> k, 22 >> k, 23 >> k, 24 >> k, 25 >> k, 26 >> k, 27 >> k, 28 >> k, \
                           29 >> k, 30 >> k, 31 >> k)
#elif XB_VL == 8
#define REPEAT(k) \
  __builtin_shufflevector (v, v, 0, 1 >> k, 2 >> k, 3 >> k, 4 >> k, 5 >> k, 6 >> k, 7 >> k, 8 >> k, 9 >> k, 10 >> k, 11 >> k, 12 >> k, 13 >> k, 14 >> k, \
                           15 >> k)
#else
#define REPEAT(k) __builtin_shufflevector (v, v, 0, 1 >> k, 2 >> k, 3 >> k, 4 >> k, 5 >> k, 6 >> k, 7 >> k)
#endif
  switch (depth) {
  case 1: return REPEAT (1);
  case 2: return REPEAT (2);
  case 3: return REPEAT (3);
  default: return REPEAT (4);
  }
#undef REPEAT
}

/* Numbers from 0 on, as 16 bits; above those, the largest. */
static inline vcost narrow (vi low, vi high)
{
#if XB_VL == 16 && defined __AVX512BW__
  const __m512i halves = _mm512_packus_epi32 ((__m512i) low, (__m512i) high);
  return (vcost) _mm512_permutexvar_epi64 (_mm512_setr_epi64 (0, 2, 4, 6, 1, 3, 5, 7), halves);
#elif XB_VL == 8 && defined __AVX2__
  return (vcost) _mm256_permute4x64_epi64 (_mm256_packus_epi32 ((__m256i) low, (__m256i) high), 0xd8);
#else
  const vi most = UINT16_MAX - (vi) { 0 }, low_over = low > most, high_over = high > most;
  const vcost_half halves[2] = { __builtin_convertvector (low | low_over, vcost_half), __builtin_convertvector (high | high_over, vcost_half) };
  vcost all;
  memcpy (&all, halves, sizeof all);
  return all;
#endif
}

/* What each value costs, less the least of all paths so far. */
static inline void trellis_errors (const xb_trellis *t, float x, float weight, uint16_t least, uint16_t *error)
{
  const vf knee = v_set (xb_trellis_knee (t));
  const vcost zero = { 0 }, most = zero + (uint16_t) xb_trellis_most_cost (t);
  for (uint32_t i = 0; i < t->n_groups * XB_WORD_GROUP; i += TRELLIS_LANES) {
    vi counted[2];
    for (int half = 0; half < 2; half++) {
      const vf miss = v_set (x) - v_load (&t->values[0][0] + i + half * XB_VL), square = v_set (weight) * miss * miss;
      counted[half] = __builtin_convertvector (v_min (square, square * v_set (1.0f / 64) + knee), vi);
    }
    vcost e = most, unused = zero;
    take_less (&e, &unused, narrow (counted[0], counted[1]), zero);
    *(vcost *) (error + i) = e - least;
  }
}

/* The best word into each state; returns the least cost of all. */
static inline __attribute__ ((always_inline)) uint16_t trellis_step (const xb_trellis *t, const uint16_t *before, uint16_t *after, const uint16_t *error, uint8_t *back,
                                                                     const uint32_t word_bits, const uint32_t depth)
{
  const uint32_t states = 1u << (word_bits - depth), above = states >> depth;
  const vcost zero = { 0 };
  vcost least = zero - 1, unused = zero;
  for (uint32_t n = 0; n < states; n += TRELLIS_LANES) {
    vcost best = { 0 }, which = { 0 };
    for (uint32_t oldest = 0; oldest < 1u << depth; oldest++) {
      const uint32_t word = oldest * states + n;
      const vcost other = trellis_repeat (before + oldest * above + (n >> depth), depth)
                          + *(const vcost_unaligned *) (error + t->group[word / XB_WORD_GROUP] * XB_WORD_GROUP + word % XB_WORD_GROUP);
      if (oldest == 0)
        best = other;
      else
        take_less (&best, &which, other, zero + (uint16_t) oldest);
    }
    *(vcost_unaligned *) (after + n) = best;
    take_less (&least, &unused, best, zero);
    const vcost_bytes bytes = __builtin_convertvector (which, vcost_bytes);
    memcpy (back + n, &bytes, sizeof bytes);
  }
  uint16_t smallest = UINT16_MAX;
  for (int i = 0; i < TRELLIS_LANES; i++)
    smallest = least[i] < smallest ? least[i] : smallest;
  return smallest;
}

static void trellis_extend (const xb_trellis *t, uint16_t *cost, const float *x, const float *weight, uint32_t n, uint8_t *back)
{
  uint16_t work[2][XB_MOST_STATES + TRELLIS_LANES], error[XB_VALUE_GROUPS * XB_WORD_GROUP] __attribute__ ((aligned (64))), least = 0;
  const uint32_t states = xb_trellis_states (t);
  memcpy (work[0], cost, states * sizeof *cost);
  for (uint32_t i = 0; i < n; i++, back += states) {
    const uint16_t *before = work[i % 2];
    uint16_t *after = work[(i + 1) % 2];
    trellis_errors (t, x[i], weight[i], least, error);
    switch (t->word_bits * 8 + t->depth) {
    case XB_WORD_BITS * 8 + 1: least = trellis_step (t, before, after, error, back, XB_WORD_BITS, 1); break;
    case XB_WORD_BITS * 8 + 2: least = trellis_step (t, before, after, error, back, XB_WORD_BITS, 2); break;
    case XB_WORD_BITS * 8 + 3: least = trellis_step (t, before, after, error, back, XB_WORD_BITS, 3); break;
    case XB_WORD_BITS * 8 + 4: least = trellis_step (t, before, after, error, back, XB_WORD_BITS, 4); break;
    case XB_WORD_BITS * 8 + 5: least = trellis_step (t, before, after, error, back, XB_WORD_BITS, 5); break;
    case XB_WORD_BITS * 8 + 6: least = trellis_step (t, before, after, error, back, XB_WORD_BITS, 6); break;
    case XB_MOST_WORD_BITS * 8 + 2: least = trellis_step (t, before, after, error, back, XB_MOST_WORD_BITS, 2); break;
    case XB_MOST_WORD_BITS * 8 + 3: least = trellis_step (t, before, after, error, back, XB_MOST_WORD_BITS, 3); break;
    case XB_MOST_WORD_BITS * 8 + 4: least = trellis_step (t, before, after, error, back, XB_MOST_WORD_BITS, 4); break;
    default: least = trellis_step (t, before, after, error, back, XB_MOST_WORD_BITS, 5); break;
    }
  }
  memcpy (cost, work[n % 2], states * sizeof *cost);
}
