/* source.h: a checkpoint as the quantizer sees it: its weight matrices in graph order, which of them share an input, and which hidden
 * channels of a feed-forward unit may stand in any order.
 * Matrices: the embedding, then layer by layer q k v (or all three in one), output, and of each unit gate up (or both in one) down; last
 * the head where it is not tied. The experts of a mixture are one unit whose matrices stand one below the other. Routers, norms and biases
 * are no matrices: they stay in floating point. */
#ifndef QZ_SOURCE_H
#define QZ_SOURCE_H

#include "engine/model.h"
#include "engine/workers.h"

typedef enum {
  QZ_ROLE_EMBEDDING,
  QZ_ROLE_Q,
  QZ_ROLE_K,
  QZ_ROLE_V,
  QZ_ROLE_QKV, /* the three, one below the other */
  /* Latent attention: down to the queries' and the keys' and values' latent vectors, and up from them. */
  QZ_ROLE_Q_A,
  QZ_ROLE_KV_A,
  QZ_ROLE_Q_B,
  QZ_ROLE_KV_B, /* keys' and values' rows of each head; or apart: */
  QZ_ROLE_K_B,  /* from queries to what meets the latent vector, head by head */
  QZ_ROLE_V_B,
  QZ_ROLE_OUTPUT,
  QZ_ROLE_GATE,
  QZ_ROLE_UP,
  QZ_ROLE_GATE_UP, /* gate's rows above up's */
  QZ_ROLE_DOWN,
  QZ_ROLE_HEAD
} QzRole;

enum { QZ_NONE = G_MAXUINT };

typedef struct {
  const char *name;
  const EngTensor *tensor;
  QzRole role;
  guint layer;
  guint rows, cols; /* rows of all experts */
  guint input;      /* number of the input it multiplies */
  guint unit;       /* number of the feed-forward unit it belongs to, or QZ_NONE */
} QzMatrix;

/* What one or more matrices multiply, after one pipeline. Its second moments are factored once over all tokens and, where a mixture's experts
 * see some tokens each, once for each expert: factors first_factor, and first_factor + 1 + expert. */
typedef struct {
  guint cols;
  guint n_experts; /* 0: every token goes to all its matrices */
  guint first_factor;
} QzInput;

typedef struct {
  guint layer, n_ff;
  guint n_experts;         /* 1: every token goes through */
  gboolean is_mixture;     /* also with one expert: tokens are routed */
  guint gate, up, down;    /* matrices; gate QZ_NONE: there is none, or it is in up */
  guint input, down_input;
  guint32 *order;          /* [n_experts][n_ff] the order in which hidden channels are read, or NULL: as they are */
} QzUnit;

typedef struct {
  guint qkv[3], n_qkv, output; /* matrices; of latent attention those that read the stream */
  guint q_b, kv_b, k_b, v_b;   /* of latent attention, else QZ_NONE */
  guint attn_input, output_input, ffn_input;
  guint q_b_input, latent_input, k_b_input; /* QZ_NONE where there is none */
  guint units[2], n_units;     /* a mixture first, then what every token goes through beside it */
} QzLayer;

/* Rows row0..row1-1 of a matrix, out [row1-row0][cols], hidden channels in the order that is set; any thread, but one matrix at a time. */
typedef gboolean (*QzRowsFunc) (gpointer data, guint matrix, guint row0, guint row1, float *out, GError **error);

typedef struct {
  EngGguf *gguf;
  QzRowsFunc rows; /* where matrices come from instead; NULL: from gguf. Not while others read */
  gpointer rows_data;
  EngTraits traits;
  guint n_matrices, n_inputs, n_factors, n_units;
  QzMatrix *matrices;
  QzInput *inputs;
  QzUnit *units;
  QzLayer *layers; /* [n_layers] */
  float *rotation;   /* [n_embd][n_embd] between the layers the stream x is x rotation (rotate.h); NULL: as it is */
  GHashTable *bound; /* names of all tensors that have a place */
} QzSource;

/* Refuses, by name, what the graph has no place for. */
QzSource *qz_source_new (EngGguf *gguf, GError **error);
void qz_source_free (QzSource *source);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (QzSource, qz_source_free)

/* The hidden channels of a unit (rows of gate and up and their biases, columns of down) may stand in any order: from now on they are read in
 * this one, [n_ff] of one expert. FALSE if it is not a permutation. Not while others read. */
gboolean qz_source_set_order (QzSource *source, guint unit, guint expert, const guint32 *order);

/* The matrix that makes the logits: the embedding where tied. */
guint qz_source_head (const QzSource *source);
/* The first matrix of a layer with this role, or QZ_NONE. */
guint qz_source_find (const QzSource *source, guint layer, QzRole role);
/* The matrix that a tensor is, or QZ_NONE. */
guint qz_source_matrix_of (const QzSource *source, const EngTensor *tensor);
/* Whether a tensor is of a layer behind the decoder's own, which is not computed. */
gboolean qz_source_is_beyond (const QzSource *source, const char *name);
/* Rows of one expert; all of them where there is no mixture. */
guint qz_source_expert_rows (const QzSource *source, guint matrix);

/* ---- reading (source_read.c). FALSE when a weight is not a finite number, naming the tensor. ----------------------------- */

/* Rows row0..row1-1 as f32, out [row1-row0][cols]. Any thread. */
gboolean qz_source_read_rows (const QzSource *source, guint matrix, guint row0, guint row1, float *out, GError **error);
/* The same, rows shared out to the workers. */
gboolean qz_source_read_range (const QzSource *source, guint matrix, guint row0, guint row1, EngWorkers *workers, float *out, GError **error);
/* A tensor that is no matrix, whole: norm gains, biases, routers. */
gboolean qz_source_read_vector (const QzSource *source, const EngTensor *tensor, float *out, GError **error);

#endif
