/* rotation.h: orthogonal matrices, and steps among them: descent on the Stiefel manifold by the Cayley transform (Li et al. 2020, "Efficient Riemannian
 * optimization on the Stiefel manifold via the Cayley transform"), as SpinQuant learns its rotations (Liu et al. 2024); with moments as Adam has them
 * (Kingma & Ba 2015), one for each pair of axes, for a few axes with outliers have slopes so steep that all others would stand still. */
#ifndef QZ_ROTATION_H
#define QZ_ROTATION_H

#include "engine/workers.h"

/* r [n][n] = random signs in front of an orthogonal matrix whose entries are all about as large: the Hadamard matrix of the largest power of two that
 * divides n, times a cosine transform of the rest. */
void qz_rotation_init (guint n, guint64 seed, float *r);

/* The same within groups of 64 axes (the last as many as are left), which hold the axes of x by falling order [n]: r takes axis order[k] into group k / 64. */
void qz_rotation_init_grouped (guint n, const guint32 *order, guint64 seed, float *r);

/* Where a descent is. */
typedef struct {
  guint n;
  float *r;            /* [n][n] */
  float *mean, *square; /* [n][n] the slopes' moments, 0 to begin with */
} QzRotation;

/* Step number `step` from 0 on. slope [n][n]: the derivative of the loss with respect to a when r becomes r (1 + a), whose skew part counts; it is overwritten.
 * turn: how far an axis turns, in radians, if every pair's slopes agree. r stays orthogonal to the precision of its numbers. */
void qz_rotation_step (QzRotation *rotation, EngWorkers *workers, guint step, double turn, float *slope);

/* out [rows][n] = x r, or x r^T. */
void qz_rotate_rows (EngWorkers *workers, gboolean back, guint rows, guint n, const float *x, const float *r, float *out);

#endif
