/* observe.h: runs the float model over the calibration tokens once, layer by layer, forward then backward, and hands over what the
 * rest of the pipeline needs to know about each input and each matrix. */
#ifndef QZ_OBSERVE_H
#define QZ_OBSERVE_H

#include "quantizer/calibration.h"
#include "quantizer/layer_ops.h"
#include "quantizer/memory.h"
#include "quantizer/moments.h"
#include "quantizer/work.h"

typedef struct {
  float **row_fisher;   /* [n_matrices][rows]: E g^2 of each output, per token, or of its loudness times g^2; of the vocabulary's rows see vocabulary.c. NULL: not asked
                         * for */
  float **row_slope;    /* [n_matrices][rows]: sum of g y over tokens, y being an output without its bias: how the loss changes as the row grows. Rows
                         * whose outputs the pass does not compute keep 0. NULL: not asked for */
  guint n_matrices;
  float *held_hidden;   /* [n_held * n_tokens][n_embd] final hidden states of the held-out sequences, after the output norm */
} QzObservation;

/* Called once for each factor of each input (QzInput) with the second moments E x x^T of the tokens that it is of; free to be overwritten. An
 * input's moments over all tokens come first; an expert's own come only where it saw as many tokens as there are columns. */
typedef gboolean (*QzMomentsFunc) (gpointer data, guint input, guint factor, QzMoments *h, GError **error);
/* Called with the second moments E g g^T of the gradients at a matrix's outputs: g [rows][rows], upper triangle, of the rows from row0 on,
 * free to be overwritten. Its diagonal is row_fisher. Of every matrix in a layer, the last layer's first and after all moments of inputs;
 * not of the embedding and the head, whose rows' gradients hardly meet. */
typedef gboolean (*QzGradientsFunc) (gpointer data, guint matrix, guint row0, guint rows, float *g, GError **error);
/* Called on the way back, after all moments, with what an input's matrices multiply, x [n][ld]: weights [n] = how much louder than over the whole text the errors of
 * packed matrices are in what they make of it, squared. Not of experts. */
typedef void (*QzLoudnessFunc) (gpointer data, guint input, guint n, const float *x, gsize ld, float *weights);
/* Called once for each unit, or expert of a unit, before anything that depends on the order of its hidden channels is handed over, with
 * moments [n_ff] = E h_j^2 of some tokens: the moment to call qz_source_set_order. */
typedef void (*QzOrderFunc) (gpointer data, guint unit, guint expert, const double *moments);
/* Called with the final hidden states, after the output norm, of the tokens that are learned from: f [n][n_embd] of tokens row.. */
typedef gboolean (*QzStatesFunc) (gpointer data, gsize row, guint n, const float *f, GError **error);
/* What the caller has made of all it was handed so far, for the state (work.h), and taken back: FALSE if it cannot be. */
typedef GBytes *(*QzSaveFunc) (gpointer data);
typedef gboolean (*QzRestoreFunc) (gpointer data, GBytes *saved);

/* Called on the way back with what products in a layer multiply and the gradient there, x and g [n] rows from `row` on, which come in order: the stream before
 * its norm, or what the heads have gathered, whose norm is NULL. */
typedef enum { QZ_PLACE_ATTENTION, QZ_PLACE_FEED_FORWARD, QZ_PLACE_HEADS, QZ_N_PLACES } QzPlace;
typedef gboolean (*QzInputsFunc) (gpointer data, guint layer, QzPlace place, gsize row, guint n, const QzNorm *norm, const float *x, const float *g, GError **error);

typedef struct {
  guint64 seed;           /* of the gradients that are drawn */
  const gint32 *labels;   /* of whose log-loss they are instead: [n_sequences][n_tokens] of the calibration; NULL */
  guint backward_tokens;  /* that make the way back, 0: all */
  const QzMemory *memory; /* how batches and moments are cut; NULL: as is best */
  gboolean slopes;        /* are asked for: of the matrices in layers */
  QzMomentsFunc moments;  /* or NULL */
  QzOrderFunc order;      /* or NULL */
  QzLoudnessFunc loudness; /* or NULL: all tokens are alike */
  QzGradientsFunc gradients; /* or NULL */
  QzStatesFunc states;       /* or NULL */
  QzInputsFunc inputs;       /* or NULL */
  guint gradients_widest; /* matrices of more rows than this ... */
  guint gradients_block;  /* ... are handed over in blocks of so many */
  QzWork *work;           /* goes on from its state, and saves one now and then; or NULL */
  QzSaveFunc save;
  QzRestoreFunc restore;
  gpointer data;          /* of all of them */
  EngProgress progress;   /* runs from `from` to `to`; or NULL */
  gpointer progress_data;
  double from, to;
} QzObserver;

/* The sequences that make the way back with so many tokens (0: all), and all, counted. */
void qz_observe_tokens (const QzCalibration *calibration, guint backward_tokens, QzTokens *tokens);

gboolean qz_observe (const QzSource *source, const QzCalibration *calibration, const QzObserver *observer, EngWorkers *workers,
                     QzObservation *observation, GCancellable *cancellable, GError **error);
void qz_observation_clear (QzObservation *observation);

#endif
