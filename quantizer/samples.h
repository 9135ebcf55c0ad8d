/* samples.h: calibration text in the model's own words. */
#ifndef QZ_SAMPLES_H
#define QZ_SAMPLES_H

#include "engine/model.h"
#include "engine/workers.h"
#include "quantizer/fit.h"

/* As much text as an analysis with these options takes, that the model draws at temperature 1 in samples as long as a calibration sequence, from
 * its beginning token and from the beginning of a conversation in turn. The same text for options->seed. UTF-8, free with g_free. */
char *qz_calibration_samples (EngModel *model, EngWorkers *workers, const QzOptions *options, EngProgress progress, gpointer data,
                              GCancellable *cancellable, GError **error);

#endif
