/* awq.h: activation-aware scales (Lin et al. 2024, AWQ, section 3.2): columns that large inputs meet are made larger before rounding. */
#ifndef QZ_AWQ_H
#define QZ_AWQ_H

#include "quantizer/moments.h"
#include "quantizer/source.h"

/* diagonal [cols] that multiplies the input: the root mean square of each channel to a power between 0 and -0.95, the one at which rounding a sample
 * of the rows of all matrices of `input` to `bits` leaves the least error e H e^T. h: E x x^T of the input, upper triangle; the lower one is
 * filled in. */
gboolean qz_awq_scales (const QzSource *source, guint input, QzMoments *h, guint bits, EngWorkers *workers, float *diagonal, GError **error);

#endif
