/* tune.h: once all matrices are packed, each of their rows grows or shrinks a little so that the whole model comes closer to the one it was made from: what
 * rounding did to one row, others can make up for. Only scales change, codes and sizes stay as they are. Towards the float model's distribution, by its
 * gradient, as in end-to-end tuning of what stays in float (Tseng et al. 2024, QuIP#, section 5; Chen et al. 2024, EfficientQAT, section 3.3). */
#ifndef QZ_TUNE_H
#define QZ_TUNE_H

#include "kernels/xbit.h"
#include "quantizer/analysis.h"
#include "quantizer/source.h"
#include "quantizer/work.h"

enum { QZ_TUNE_SEQUENCES = 2 /* of a step */, QZ_TUNE_HEAD_ROWS = 64 /* states whose logits are in memory at once */ };

/* A model's matrices as they were packed, hidden channels in the order in which they were read then. */
typedef struct {
  xb_matrix **matrices; /* [n_matrices]; NULL: it is as in the model */
  float **growth;       /* [n_matrices][rows] what each row is multiplied by */
} QzPacked;

typedef struct {
  const QzSource *source;   /* the model */
  const QzAnalysis *analysis;
  QzPacked *packed;         /* growth: 1 of every row; what they should be multiplied by */
  guint n_steps;
  double expected_kl;       /* of the packed matrices as they are */
  QzWork *work;             /* goes on from its state, and saves one now and then; or NULL */
  EngProgress progress;     /* runs from `from` to `to`; or NULL */
  gpointer data;
  double from, to;
} QzTuning;

gboolean qz_tune (const QzTuning *tuning, EngWorkers *workers, GCancellable *cancellable, GError **error);

#endif
