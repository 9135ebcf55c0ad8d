/* sensitivity.h: how much each cell of each matrix would cost at each depth, and the division into cells that suits a matrix. */
#ifndef QZ_SENSITIVITY_H
#define QZ_SENSITIVITY_H

#include "quantizer/curves.h"
#include "quantizer/transform.h"

typedef struct {
  const QzSource *source;
  QzTransform *const *transforms; /* [n_inputs] */
  float *const *pivots;           /* [n_factors][cols] of factor.h */
  float *const *row_fisher;       /* [n_matrices][rows] */
  float *const *noise;            /* [n_inputs][2][cols] mean square of what rounding an input to 8 bits adds: behind the pipeline, and without one */
  gboolean has_trellis;           /* else uniform steps in groups of 128 columns */
} QzSensitivities;

/* Chooses a shape for every matrix and fills the curves. */
QzCurves *qz_sensitivity_curves (const QzSensitivities *s, EngWorkers *workers, EngProgress progress, gpointer data, double from, double to,
                                 GCancellable *cancellable, GError **error);

#endif
