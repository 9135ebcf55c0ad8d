/* codebook.h: the values a code of each depth can take, and the search for the scale that suits a group of weights.
 * Uniform from 7 bits up; below, a trellis (trellis.h) for the bell-shaped weights that the Hadamard transform leaves. */
#ifndef QZ_CODEBOOK_H
#define QZ_CODEBOOK_H

#include "kernels/xbit.h"
#include "quantizer/trellis.h"

#include <glib.h>

/* Those of the trellises of depth 1 to 6, in this order, in every matrix. */
enum { QZ_N_TABLES = 4 * 2 + 2 * 3 };

typedef struct {
  guint depth, n_levels;
  const QzTrellis *trellis; /* or NULL: uniform */
  float unit_scale; /* scale for weights of unit variance */
  float unit_error; /* mean square error then */
  xb_cell cell;
} QzCodebook;

/* What a matrix's codes are at each depth. */
typedef enum {
  QZ_CODES_TRELLIS,  /* trellises of 12 bits to 6 bits of depth, uniform above */
  QZ_CODES_UNIFORM,
  QZ_CODES_TRELLIS16 /* trellises of 16 bits where there are any: less error, by a far longer search */
} QzCodes;

/* Depth 0..8; immutable, made once. */
const QzCodebook *qz_codebook (QzCodes codes, guint depth);
/* The one that a cell was made with. */
const QzCodebook *qz_codebook_of_cell (const xb_cell *cell);
/* [QZ_N_TABLES] */
const gint8 (*qz_codebook_tables (QzCodes codes))[16];

/* Uniform: x[n], each with its scale: the codes, and the values they stand for. */
void qz_codebook_quantize (const QzCodebook *book, guint n, const float *x, const float *scale, guint8 *codes, float *values);

/* For n rows at once, x [columns][ldx] with a row to a lane: the scale of each row, from those that `super` can express (scale = integer
 * -128..127 times super[row]; NULL: any f16), that minimises sum_j weight[j] (x_j - q (x_j))^2; of a trellis the
 * one that gives its weights the variance it was made for, or, of more than 128 columns, the one by which blocks of 64 of them, taken as bell-shaped, would lose least.
 * scratch [5 n]. */
void qz_codebook_search (const QzCodebook *book, guint n, guint columns, const float *x, gsize ldx, const float *weight, const float *super,
                         float *scale, float *scratch);
/* Scale for a weighted mean square, before any search. */
float qz_codebook_first_scale (const QzCodebook *book, float mean_square);
/* The f16 next to x. */
float qz_round_half (float x);

#endif
