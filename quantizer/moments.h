/* moments.h: sums of x x^T over many vectors x, whole, or where they are wide in blocks along the diagonal. */
#ifndef QZ_MOMENTS_H
#define QZ_MOMENTS_H

#include "engine/workers.h"

/* All zero: of nothing, and nothing is added. */
typedef struct {
  guint n;     /* of a vector */
  guint block; /* of a block, the last one may be smaller; n: one block */
  float *h;    /* blocks one behind the other, each [size][size], upper triangle */
} QzMoments;

/* The width of blocks for vectors of n where none may be wider than `widest`: even, and a multiple of 128. */
guint qz_moments_block (guint n, guint widest);
gsize qz_moments_floats (guint n, guint block);
/* All zero. */
void qz_moments_init (QzMoments *moments, guint n, guint block);
void qz_moments_clear (QzMoments *moments);
/* += x^T x of x [rows][ldx]. */
void qz_moments_add (QzMoments *moments, EngWorkers *workers, const float *x, gsize ldx, guint rows);
void qz_moments_scale (QzMoments *moments, double factor);
guint qz_moments_n_blocks (const QzMoments *moments);
/* Block i: begins at *begin, has *size. */
float *qz_moments_at (const QzMoments *moments, guint i, guint *begin, guint *size);
/* diagonal [n] */
void qz_moments_diagonal (const QzMoments *moments, double *diagonal);

#endif
