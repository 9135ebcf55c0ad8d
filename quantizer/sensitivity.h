/* sensitivity.h: how much each cell of each matrix would cost at each depth, and the division into cells that suits a matrix. */
#ifndef QZ_SENSITIVITY_H
#define QZ_SENSITIVITY_H

#include "quantizer/analysis.h"

typedef struct {
  const QzSource *source;
  const QzAnalysis *analysis; /* pipelines, pivots, factors and the Fisher weights of rows are there */
  float *const *noise;        /* [n_inputs][2][cols] mean square of what rounding an input to 8 bits adds: behind the pipeline, and without one */
} QzSensitivities;

/* Chooses a shape for every matrix and fills the curves. */
QzCurves *qz_sensitivity_curves (const QzSensitivities *s, EngWorkers *workers, EngProgress progress, gpointer data, double from, double to,
                                 GCancellable *cancellable, GError **error);

#endif
