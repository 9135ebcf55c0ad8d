/* transform.h: the input pipeline put in front of each group of matrices that share an input: a balancing diagonal and a block Hadamard with
 * random signs (QuIP, Chee et al. 2023; QuaRot, Ashkboos et al. 2024), which spreads outlying channels over their block. */
#ifndef QZ_TRANSFORM_H
#define QZ_TRANSFORM_H

#include "engine/workers.h"
#include "kernels/xbit.h"

typedef struct {
  guint cols;
  gsize bytes;
  void *blob;      /* as stored in the file, 64-byte aligned */
  xb_input *input; /* a view of the blob */
} QzTransform;

enum { QZ_HADAMARD_BLOCK = 64 };

/* diagonal [cols]: multiplies the input (rounded to f16 here), or NULL. */
QzTransform *qz_transform_new (guint cols, guint64 seed, const float *diagonal, GError **error);
/* The same with blocks of `block`, a power of two; and without any: columns in another order (permutation [cols]) or a diagonal, or neither. */
QzTransform *qz_transform_hadamard (guint cols, guint block, guint64 seed, const float *diagonal, GError **error);
QzTransform *qz_transform_plain (guint cols, const guint32 *permutation, const float *diagonal, GError **error);
/* From stored bytes; NULL if they are not a pipeline of `cols` columns. */
QzTransform *qz_transform_new_from_bytes (guint cols, const void *data, gsize size);
void qz_transform_free (QzTransform *transform);

/* The balancing diagonal: with moments[j] = E x_j^2 and weights[j] the mean square of the weights' column, (weights / moments)^(1/4),
 * kept within two powers of two of its median. */
void qz_transform_balance (guint cols, const double *moments, const double *weights, float *diagonal);

/* H becomes T H T^T, h [n][n] of the columns from `begin` on, a whole number of the transform's blocks or all that are left: the upper triangle
 * on entry, the whole on return. */
void qz_transform_moments (const QzTransform *transform, EngWorkers *workers, guint begin, guint n, float *h);
/* n rows of W to rows of W', in place; scratch [cols]. */
void qz_transform_rows (const QzTransform *transform, float *rows, guint n, float *scratch);

/* A stream of random numbers that is the same everywhere (SplitMix64, Steele et al. 2014). */
guint64 qz_random_next (guint64 *state);
double qz_random_unit (guint64 *state); /* [0, 1) */

#endif
