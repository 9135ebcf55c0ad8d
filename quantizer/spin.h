/* spin.h: rotations of the residual stream (R1) and of each layer's values (R2) that leave the model as it is but round better, as in SpinQuant (Liu et al.
 * 2024): folded into the weights, learned by descent on the Stiefel manifold (rotation.h) from random Hadamards. The paper goes down the network's loss with
 * rounded activations, straight through the rounding; here it is the second-order estimate of that (rounding.h), summed over what the products in the layers
 * multiply, whose slope hardly depends on chance. Weights are exact meanwhile, which is how the paper prepares for error compensation. */
#ifndef QZ_SPIN_H
#define QZ_SPIN_H

#include "quantizer/calibration.h"
#include "quantizer/memory.h"
#include "quantizer/source.h"
#include "quantizer/work.h"

typedef struct {
  float *stream;  /* [n_embd][n_embd]; a row x of the stream becomes x stream */
  float *heads;   /* [n_layers][value_dim][value_dim], the same of a head's values; NULL: these stay as they are */
} QzRotations;

/* Random signs and Hadamards of the seed (qz_rotation_init). */
void qz_rotations_init (QzRotations *rotations, const EngTraits *traits, guint64 seed);
void qz_rotations_clear (QzRotations *rotations);

typedef struct {
  const QzSource *source;
  const QzCalibration *calibration; /* held-out sequences are not looked at */
  guint64 seed;           /* of the labels that gradients are of */
  guint n_steps;          /* 0: as many as usual */
  const QzMemory *memory; /* NULL: as is best */
  QzWork *work;           /* goes on from its state, and saves one now and then; or NULL */
  EngProgress progress;   /* from 0 to `to`; or NULL */
  gpointer data;
  double to;
} QzSpin;

/* rotations: initialized; then what was learned, of the heads from there on, of the stream from Hadamards within groups of axes that are as loud for what they
 * matter. costs [n_steps]: what rounding is expected to cost at each step, in nats per token, by the layers
 * and rows of it (they are taken in turn), 0 of steps that were done before; or NULL. The same at any number of threads. */
gboolean qz_spin (const QzSpin *spin, QzRotations *rotations, double *costs, EngWorkers *workers, GCancellable *cancellable, GError **error);
guint qz_spin_steps (const QzSpin *spin);
/* Whether the values of a head can be rotated: nothing stands between them and the output matrix but the attention. */
gboolean qz_rotates_heads (const EngTraits *traits);
/* Floats that learning holds beside an observation. */
double qz_spin_floats (const QzSource *source);

/* ---- the rotated model (rotate.c) ---------------------------------------------------------------------------------------- */

/* Refuses, in one sentence, a decoder that does not stay the same when its stream is rotated. */
gboolean qz_rotate_check (const QzSource *source, GError **error);
/* Writes a GGUF of the same model between whose layers the stream is rotated: gains of norms and rotations folded into the weights around them, and
 * stream_rotation.weight for both ends of the stream, so that a tied head stays tied. Matrices are of `type`, F16 or F32. A row of a matrix at a time, but for
 * those that write into the stream, one of which is in memory twice. */
gboolean qz_rotate_write (const QzSource *source, const QzRotations *rotations, guint type, const char *path, EngWorkers *workers, GCancellable *cancellable,
                          GError **error);

#endif
