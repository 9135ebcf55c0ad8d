/* source.h: a checkpoint as the quantizer sees it: its weight matrices in graph order, and which of them share an input.
 * Matrices: 0 the embedding, then seven per layer (q k v output gate up down), then the head where it is not tied.
 * Inputs: 0 of the embedding, then four per layer (attention, attention output, feed-forward, down), then the untied head's. */
#ifndef QZ_SOURCE_H
#define QZ_SOURCE_H

#include "engine/model.h"
#include "engine/workers.h"

typedef enum {
  QZ_ROLE_EMBEDDING,
  QZ_ROLE_Q,
  QZ_ROLE_K,
  QZ_ROLE_V,
  QZ_ROLE_OUTPUT,
  QZ_ROLE_GATE,
  QZ_ROLE_UP,
  QZ_ROLE_DOWN,
  QZ_ROLE_HEAD
} QzRole;

enum { QZ_LAYER_MATRICES = 7, QZ_LAYER_INPUTS = 4 };

typedef struct {
  const char *name;
  const EngTensor *tensor;
  QzRole role;
  guint layer;
  guint rows, cols;
  guint input; /* number of the input it multiplies */
} QzMatrix;

typedef struct {
  EngGguf *gguf;
  EngTraits traits;
  guint n_matrices, n_inputs;
  QzMatrix *matrices;
  guint *input_cols;   /* [n_inputs] */
  guint32 **ffn_order; /* [n_layers]: NULL, or the order in which the layer's hidden channels are read, [n_ff] */
} QzSource;

/* Refuses, by name, what the graph has no place for. */
QzSource *qz_source_new (EngGguf *gguf, GError **error);
void qz_source_free (QzSource *source);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (QzSource, qz_source_free)

/* The hidden channels of a feed-forward unit (rows of gate and up, columns of down) may stand in any order: from now on they are read in
 * this one. FALSE if it is not a permutation. Not while others read. */
gboolean qz_source_set_ffn_order (QzSource *source, guint layer, const guint32 *order);

/* Matrix number of a role in a layer; first input of a layer. */
guint qz_source_layer_matrix (guint layer, QzRole role);
guint qz_source_layer_input (guint layer);
/* The matrix that makes the logits: the embedding where tied. */
guint qz_source_head (const QzSource *source);

/* Rows row0..row1-1 as f32, out [row1-row0][cols]. Any thread. FALSE when a weight is not a finite number. */
gboolean qz_source_read_rows (const QzSource *source, guint matrix, guint row0, guint row1, float *out, GError **error);
/* The same, and the whole matrix, rows shared out to the workers. */
gboolean qz_source_read_range (const QzSource *source, guint matrix, guint row0, guint row1, EngWorkers *workers, float *out, GError **error);
gboolean qz_source_read_matrix (const QzSource *source, guint matrix, EngWorkers *workers, float *out, GError **error);
/* A vector of n values (norm gains, biases). */
gboolean qz_source_read_vector (const QzSource *source, const char *name, guint n, float *out, GError **error);

#endif
