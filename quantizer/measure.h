/* measure.h: the finished file, opened and run by the engine as a chat would, held against the source on held-out text. */
#ifndef QZ_MEASURE_H
#define QZ_MEASURE_H

#include "quantizer/analysis.h"

/* Mean KL (source || fit) in nats per token and the share of equal likeliest tokens, over the second half of each held-out sequence. */
gboolean qz_measure (const QzSource *source, const QzAnalysis *analysis, const char *path, EngWorkers *workers, double *kl, double *top1,
                     EngProgress progress, gpointer data, double from, double to, GCancellable *cancellable, GError **error);
/* KL (p || q) of two rows of n logits, in nats. */
double qz_divergence (const float *p, const float *q, guint n);

#endif
