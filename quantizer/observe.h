/* observe.h: runs the float model over the calibration tokens once, layer by layer, forward then backward, and hands over what the
 * rest of the pipeline needs to know about each input and each matrix. */
#ifndef QZ_OBSERVE_H
#define QZ_OBSERVE_H

#include "quantizer/calibration.h"

typedef struct {
  float **row_fisher;   /* [n_matrices][rows]: E g^2 of each output, per token; of the vocabulary's rows see observe.c */
  guint n_matrices;
  float *held_hidden;   /* [n_held * n_tokens][n_embd] final hidden states of the held-out sequences, after the output norm */
} QzObservation;

/* Called once per input with its second moments E x x^T: h [cols][cols], upper triangle, free to be overwritten. */
typedef gboolean (*QzMomentsFunc) (gpointer data, guint input, float *h, GError **error);

/* progress runs from `from` to `to`. */
gboolean qz_observe (const QzSource *source, const QzCalibration *calibration, guint64 seed, EngWorkers *workers, QzMomentsFunc moments,
                     gpointer moments_data, QzObservation *observation, EngProgress progress, gpointer progress_data, double from, double to,
                     GCancellable *cancellable, GError **error);
void qz_observation_clear (QzObservation *observation);

#endif
