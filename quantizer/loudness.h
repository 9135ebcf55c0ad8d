/* loudness.h: how loud what packing does to an input's matrices is in one token beside the mean over all. Fisher information takes the gradient at an output and
 * the errors there as if they had nothing to do with each other; but the first token of a text is often a hundred times as loud, or as sensitive, as all others,
 * and hardly both. With each token's gradient squared weighed by this, that is made up for: what is expected of a loss is the mean over tokens of the product of
 * the two, not the product of their means. */
#ifndef QZ_LOUDNESS_H
#define QZ_LOUDNESS_H

#include "quantizer/transform.h"

enum { QZ_ERROR_ROWS = 16 };

/* Some rows of errors such as compensation leaves them, white in e F (factor.h), errors [QZ_ERROR_ROWS][cols] f16: columns begin..begin+size-1, which are
 * factored together, f [size][size]. Block after block, and then once all are there qz_loudness_finish takes them before the pipeline. */
void qz_loudness_learn (const QzTransform *transform, guint64 seed, guint begin, guint size, const float *f, guint16 *errors);
void qz_loudness_finish (const QzTransform *transform, guint16 *errors);
/* weights [n]: the mean square of what such rows make of x [n][ldx], as the source has it, over its mean over the text, which is the sum of the pivots [cols]. */
void qz_loudness_weigh (EngWorkers *workers, guint cols, const guint16 *errors, const float *pivots, guint n, const float *x, gsize ldx, float *weights);

#endif
