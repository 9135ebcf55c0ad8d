/* samples.h: calibration text in the model's own words. */
#ifndef QZ_SAMPLES_H
#define QZ_SAMPLES_H

#include "engine/model.h"
#include "engine/workers.h"

/* About `tokens` tokens (0: as many as an analysis takes) that the model draws at temperature 1, in samples as long as a calibration sequence, from
 * its beginning token and from the beginning of a conversation in turn. The same text for a seed. UTF-8, free with g_free. */
char *qz_calibration_samples (EngModel *model, EngWorkers *workers, guint64 seed, guint tokens, EngProgress progress, gpointer data, GCancellable *cancellable,
                              GError **error);

#endif
