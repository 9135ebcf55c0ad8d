/* rounding.h: what rounding activations to 4 bits, in groups of 32 with a step for each as the products take them (kernels/xbit_acts_tmpl.h), is expected to
 * cost the model along some axes, and how that changes as the axes turn. */
#ifndef QZ_ROUNDING_H
#define QZ_ROUNDING_H

#include "engine/workers.h"

/* A rounding error is even over a step of p / 7, p the largest of its group, and independent of the others'; with g the gradient of the log-loss of labels
 * drawn from the model's own distribution (true Fisher information), the model's divergence rises by 1/2 sum_i g_i^2 p^2 / (12 . 49), in nats.
 *
 * x, g [n][cols]: activations and gradients at them, each stretch of `axes` columns of which is turned by r [axes][axes]: x r. Returns the sum over the n
 * rows; slope [axes][axes] += its derivative with respect to a when r becomes r (1 + a). x and g are overwritten; scratch [2][n][cols]. */
double qz_rounding_cost (EngWorkers *workers, guint n, guint cols, guint axes, const float *r, float *x, float *g, float *scratch, float *slope);

#endif
