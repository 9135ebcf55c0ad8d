/* trellis.h: the search for the codes of a trellis cell (Viterbi 1967; the codebook: xbit.h, XB_TRELLIS). Same rules as ops.h. */
#ifndef VALISE_TRELLIS_H
#define VALISE_TRELLIS_H

#include <stdint.h>

#include "kernels/xbit.h"

/* The values of all words of one depth, in the order of the words. Words that differ above their lowest 5 bits often share their values: those of 32
 * neighbours are stored once, and there are at most XB_VALUE_GROUPS such. A state is a word without its oldest code: its lowest word_bits - depth bits. */
enum { XB_WORD_GROUP = 32, XB_WORD_GROUPS = (1 << XB_MOST_WORD_BITS) / XB_WORD_GROUP, XB_VALUE_GROUPS = 256, XB_COST_BARRED = 30000,
       XB_MOST_STATES = 1 << (XB_MOST_WORD_BITS - 2) /* of words of 16 bits, which hold 2 bits at least; those of 12 have fewer */ };
typedef struct {
  uint32_t word_bits, depth, n_groups;
  uint8_t group[XB_WORD_GROUPS];                /* of words 32 i to 32 i + 31 */
  float values[XB_VALUE_GROUPS][XB_WORD_GROUP]; /* [n_groups] */
} xb_trellis;

/* From the value of every word [1 << word_bits], or from tables. */
void xb_trellis_set (xb_trellis *trellis, uint32_t word_bits, uint32_t depth, const float *values);
void xb_trellis_init (xb_trellis *trellis, uint32_t word_bits, uint32_t depth, const int8_t (*tables)[16]);

/* Value of a word; number of states; the most that one error may count. */
static inline float xb_trellis_value_of (const xb_trellis *t, uint32_t word)
{
  return t->values[t->group[word / XB_WORD_GROUP]][word % XB_WORD_GROUP];
}

static inline uint32_t xb_trellis_states (const xb_trellis *t)
{
  return 1u << (t->word_bits - t->depth);
}

static inline uint32_t xb_trellis_most_cost (const xb_trellis *t)
{
  return 24000 / ((t->word_bits - 1) / t->depth);
}

/* The word that led to `state`: back is what xb_trellis_extend wrote at that step. Its upper bits, word >> depth, are the state before. */
static inline uint32_t xb_trellis_trace (const xb_trellis *t, const uint8_t *back, uint32_t state)
{
  return (uint32_t) back[state] << (t->word_bits - t->depth) | state;
}

/* What an error counts: weight (x - value)^2, rounded down; what is beyond three quarters of the most is divided by 64, so that outliers still find
 * the nearest. */
static inline float xb_trellis_knee (const xb_trellis *t)
{
  return 0.75f * (float) xb_trellis_most_cost (t);
}

/* Extends the best path into each state by n weights. cost [states], in place: the sum of its errors, counted from the least before the last weight. Before the first it is 0, or XB_COST_BARRED where no path may begin:
 * such a path is worse than any other after as many weights as a word has codes. back [n][states]: the oldest code of the best word. */
void xb_trellis_extend (const xb_trellis *trellis, uint16_t *cost, const float *x, const float *weight, uint32_t n, uint8_t *back);

#endif
