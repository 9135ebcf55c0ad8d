/* trellis.h: the search for the codes of a trellis cell (Viterbi 1967; the codebook: xbit.h, XB_TRELLIS). Same rules as ops.h. */
#ifndef VALISE_TRELLIS_H
#define VALISE_TRELLIS_H

#include <stdint.h>

/* A state is the last `bits` bits of the codes, the newest lowest; 2 * depth <= bits <= 12, and bits - depth >= 4. */
typedef struct {
  uint32_t depth, bits;
  const float *values; /* [1 << bits] what each state stands for */
} xb_trellis;

/* Extends the best path into each state by n weights: cost [1 << bits], in place, is the sum of weight[i] (x[i] - value)^2 along it; back
 * [n][1 << (bits - depth)]: for the low bits of the state before, its best high `depth` bits. */
void xb_trellis_extend (const xb_trellis *trellis, float *cost, const float *x, const float *weight, uint32_t n, uint8_t *back);

#endif
