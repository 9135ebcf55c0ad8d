/* trellis.h: the search for the codes of a trellis cell (Viterbi 1967; the codebook: xbit.h, XB_TRELLIS). Same rules as ops.h. */
#ifndef VALISE_TRELLIS_H
#define VALISE_TRELLIS_H

#include <stdint.h>

#include "kernels/xbit.h"

/* The values of all words of one depth, in the order of the words. Words that differ above their lowest 5 bits often share their values: those of 32
 * neighbours are stored once, and there are at most XB_VALUE_GROUPS such. A state is a word without its oldest code: its lowest word_bits - depth bits. */
enum { XB_WORD_GROUP = 32, XB_WORD_GROUPS = (1 << XB_MOST_WORD_BITS) / XB_WORD_GROUP, XB_VALUE_GROUPS = 256, XB_VALUE_ONE = 128, XB_COST_BARRED = UINT16_MAX,
       XB_MOST_STATES = 1 << (XB_MOST_WORD_BITS - 2) /* of words of 16 bits, which hold 2 bits at least; those of 12 have fewer */ };
typedef struct {
  uint32_t word_bits, depth, n_groups;
  uint16_t place[XB_WORD_GROUPS];                  /* of the values of words 32 i to 32 i + 31 */
  int16_t values[XB_VALUE_GROUPS * XB_WORD_GROUP] /* [n_groups * XB_WORD_GROUP], times XB_VALUE_ONE */
    __attribute__ ((aligned (64)));
} xb_trellis;

/* From the value of every word [1 << word_bits], from -128 to 127, kept to 1 / XB_VALUE_ONE; or from tables. */
void xb_trellis_set (xb_trellis *trellis, uint32_t word_bits, uint32_t depth, const float *values);
void xb_trellis_init (xb_trellis *trellis, uint32_t word_bits, uint32_t depth, const int8_t (*tables)[16]);

/* Value of a word; number of states; how many more codes than the newest a word has. */
static inline float xb_trellis_value_of (const xb_trellis *t, uint32_t word)
{
  return (float) t->values[t->place[word / XB_WORD_GROUP] + word % XB_WORD_GROUP] / XB_VALUE_ONE;
}

static inline uint32_t xb_trellis_states (const xb_trellis *t)
{
  return 1u << (t->word_bits - t->depth);
}

static inline uint32_t xb_trellis_steps (const xb_trellis *t)
{
  return (t->word_bits - 1) / t->depth;
}

/* The most that one error may count: within so many steps the best path is anywhere, and costs are lowered every XB_TRELLIS_LOWERED weights. */
enum { XB_TRELLIS_LOWERED = 4 };
static inline uint32_t xb_trellis_most_cost (const xb_trellis *t)
{
  return 65000 / (xb_trellis_steps (t) + XB_TRELLIS_LOWERED);
}

/* Costs of up to XB_MARKED_DEPTH bits a weight are counted without as many of their lowest bits, in which the search carries where a path came from: the least of
 * several paths then says so at once. Those bits. */
enum { XB_MARKED_DEPTH = 2 };
static inline uint16_t xb_trellis_marks (const xb_trellis *t)
{
  return t->depth <= XB_MARKED_DEPTH ? (uint16_t) ((1u << t->depth) - 1) : 0;
}

/* The word that led to `state`: back is what xb_trellis_extend wrote at that step. Its upper bits, word >> depth, are the state before. */
static inline uint32_t xb_trellis_trace (const xb_trellis *t, const uint8_t *back, uint32_t state)
{
  return (uint32_t) back[state] << (t->word_bits - t->depth) | state;
}

/* What an error counts: weight (x - value)^2 up to three quarters of xb_trellis_most_cost; from there on it grows so slowly with |x - value| that outliers still find the nearest. In whole numbers,
 * down to the marks, each product cut off to 16 bits: with m = |128 x - 128 value|, k = min (m, most_miss) and r = (k << shift) factor / 65536, r^2 / 65536 + (m - k) beyond / 65536. */
typedef struct {
  int16_t x;
  uint16_t most_miss, shift, factor, beyond;
} xb_trellis_count;
xb_trellis_count xb_trellis_counting (const xb_trellis *trellis, float x, float weight);

/* Extends the best path into each state by n weights. cost [states], in place: the sum of its errors, of which the least of all costs was taken
 * before every XB_TRELLIS_LOWERED-th weight, the first included. Before the first it is 0, or XB_COST_BARRED where no path may begin. x: from -128 to 127. back [n][states]: the oldest code of the best word. */
void xb_trellis_extend (const xb_trellis *trellis, uint16_t *cost, const float *x, const float *weight, uint32_t n, uint8_t *back);

#endif
