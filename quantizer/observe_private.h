/* observe_private.h: the state of an observation, for its own files: the way there (observe_forward.c), the way back (observe_backward.c)
 * and the vocabulary at both ends (vocabulary.c). */
#ifndef QZ_OBSERVE_PRIVATE_H
#define QZ_OBSERVE_PRIVATE_H

#include "quantizer/layer.h"
#include "quantizer/observe.h"
#include "quantizer/spill.h"

/* What is kept of each layer for the way back. */
typedef enum {
  QZ_KEEP_STREAM,   /* the layer's input */
  QZ_KEEP_MIDDLE,   /* the stream between the halves */
  QZ_KEEP_ATTENDED, /* what the halves' last products give, where it is normed */
  QZ_KEEP_FED,
  QZ_KEEP_QKV,      /* what the halves' first products give, so that they need not be computed again */
  QZ_KEEP_GATE_UP,
  QZ_N_KEEP
} QzKeep;

typedef struct {
  const QzSource *source;
  const EngTraits *traits;
  const QzCalibration *calibration;
  const QzObserver *to;
  EngWorkers *workers;
  QzObservation *out;
  GCancellable *cancellable;

  guint batch_rows, head_rows;   /* a whole number of sequences; states whose logits are in memory at once */
  guint widest;
  gsize n_learn, n_all, n_back;  /* rows of the stream: those learned from, with those held out after them; the first ones make the way back */
  float *x;                      /* [n_all][n_embd] the stream */
  float *base;                   /* [n_all][n_embd] as it was before attention, where both halves read that */
  float *added;                  /* [n_all][n_embd] what a mixture adds */
  float *gathered;               /* [batch_rows][n_embd] rows of one expert */
  EngChoice *choices;             /* [n_all][n_experts_used] */
  float *dx;                     /* [n_back][n_embd] gradient of the stream */
  float *d_base;                 /* [n_back][n_embd] ... through the feed-forward half, where both halves read the same */
  float *d_in, *d_y, *stream;    /* [n_back][n_embd], mixtures only: gradients of their input and output, and what they read */
  float *worths;                 /* [n_back][n_experts] of the router */
  QzStore *kept;
  guint keep_cols[QZ_N_KEEP];    /* 0: not kept */
  double *probability, *head_fisher; /* [n_vocab] sums over the backward tokens */
  QzMoments head_moments;        /* of what the head multiplies */
  QzLayerWeights weights;
  QzLayerPass pass;
} QzObserving;

/* All that a pass works in, from source, calibration, out, head_rows, batch_rows and the numbers of rows; the store of what is kept, and the weights, are the
 * caller's to open. Everything is cleared. */
void qz_observing_allocate (QzObserving *o);
void qz_observing_clear (QzObserving *o);
/* The factors of rope for sequences of the calibration's length, as the engine would take them; NULL where there are none. */
gboolean qz_observing_rope_factors (const QzObserving *o, float **factors, GError **error);
/* Reports, and FALSE when cancelled. */
gboolean qz_observing_step (QzObserving *o, double fraction, const char *what, GError **error);
/* Rows of the batch that begins at `row`: none spans the border between those learned from and those held out. */
guint qz_observing_batch (const QzObserving *o, gsize row);
/* Rows row..row+n-1 of what is kept, those of them that make the way back. Nothing where it is not kept. */
gboolean qz_observing_keep (QzObserving *o, guint layer, QzKeep what, gsize row, guint n, const float *x, GError **error);
gboolean qz_observing_kept (const QzObserving *o, guint layer, QzKeep what, gsize row, guint n, float *x, GError **error);
/* Scales sums over `count` tokens and hands them over. */
gboolean qz_observing_hand_over (QzObserving *o, guint input, guint factor, QzMoments *h, gsize count, GError **error);
/* The stream that the feed-forward half reads. */
const float *qz_observing_middle (const QzObserving *o);
/* Scores of the router for n rows of what it reads, turned into worths [n][n_experts], and each row's choices. */
void qz_observing_route (const QzObserving *o, guint n, const float *in, float *worths, EngChoice *choices);
/* Rows of a shared unit's output count by a gate of their own: weight [n] = logistic (gate . in). */
void qz_shared_weights (const QzObserving *o, guint n, const float *in, float *weight);

gboolean qz_observe_forward (QzObserving *o, guint layer, GError **error);
gboolean qz_observe_backward (QzObserving *o, guint layer, GError **error);
/* x = rows of the embedding, in the layers' coordinates. */
gboolean qz_observe_embed (QzObserving *o, GError **error);
/* The end of the stream: held-out states, the head's moments (an untied head's are handed over, a tied one's kept for later), and dx at the end
 * of the last layer. */
gboolean qz_observe_head (QzObserving *o, GError **error);
/* For whoever turns around otherwise: x out of the layers' coordinates, for the head; and dx at the head's norm into them. */
void qz_observe_leave (QzObserving *o);
void qz_observe_return (QzObserving *o);
gboolean qz_observe_vocabulary (QzObserving *o, GError **error);
/* slope [n_vocab] += g y of the rows that were looked up, from dx at the beginning of the stream, which becomes that of the embedding's rows. */
gboolean qz_observe_embed_slopes (QzObserving *o, float *slope, GError **error);

#endif
