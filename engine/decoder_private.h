/* decoder_private.h: the state of a pass and its steps: inputs are prepared token by token, then bands of rows multiplied. Only the
 * decoder's own files include it. */
#ifndef ENG_DECODER_PRIVATE_H
#define ENG_DECODER_PRIVATE_H

#include "engine/decoder.h"
#include "engine/route.h"

enum { ENG_MAX_PRODUCTS = 3 };

/* An input as one or more products take it: after the pipeline, quantized or f32. */
typedef struct {
  const xb_input *input;
  guint begin; /* of its columns the first: 0 but where experts have their own */
  guint cols;  /* what the products take: x, and zeros behind it */
  xb_acts acts;
  float *f32; /* the exact path, [n][cols] of these */
} EngPrepared;

typedef struct {
  const EngMatrix *matrix;
  EngPrepared *prepared; /* NULL: raw, takes x itself */
  const float *bias;  /* or NULL */
  float *y;           /* [n][ldy] */
  gsize ldy;
  gboolean is_logits;
  guint first_row, rows; /* of the matrix: one expert's, else all; first_row is counted as they are stored */
  guint stored_rows;     /* what is stored for these */
  guint unit_rows, n_units; /* shared out among the workers: a band, or all rows that the pipeline behind mixes */
} EngProduct;

/* A token of the pass. */
typedef struct {
  guint32 slice, position;
} EngPlace;

/* Consecutive tokens of one slice whose attention is one call. */
typedef struct {
  guint32 first, n;
} EngAttentionUnit;

struct EngDecoder {
  EngModel *model;
  const EngTraits *traits;
  EngWorkers *workers;
  EngScratchLayout layout;
  guint8 *memory;
  int activation_bits;
  float *q_a, *q_whole, *values, *slopes;
  float *balance; /* [n_layers][head_dim] in memory, by which keys are multiplied, and queries divided, before the cache rounds them; or NULL */
  float *hidden, *normed, *branch, *router, *gathered, *mixed, *q, *attended, *k, *v, *gate, *up, *cos_sin, *cos_sin_local, *logits;
  EngChoice *choices;
  float *many_logits; /* one row a token, mapped when all logits are first wanted */
  gsize many_logits_bytes;
  float *last_logits;    /* of the last pass that made any */
  double *rope_frequency, *rope_frequency_local; /* [n_rot / 2] radians per position */

  /* The step being run; set by the caller before the workers start, read by all. */
  EngSlice *slices;
  guint n_slices;
  EngPlace *places;            /* [n] */
  EngAttentionUnit *units;
  guint n_units;
  guint n, layer;
  const float *x;        /* [n][ldx], cols of them inputs of the products */
  gsize ldx;
  float *added;          /* [n][n_embd] goes to the hidden state, or NULL; */
  const EngNorm *added_norm; /* normed by this first, or NULL; */
  gboolean add_late;     /* not before the norm but after it */
  const EngNorm *norm;   /* normed = norm (hidden), or NULL */
  gboolean activate;     /* the gate's activation before the products */
  const EngNorm *sub_norm; /* of x, in place, or NULL */
  guint cols;
  EngProduct products[ENG_MAX_PRODUCTS];
  guint n_products;
  EngPrepared prepared[ENG_MAX_PRODUCTS];
  guint n_prepared;
};

/* Who is shown the inputs of the products. */
typedef struct {
  EngObserver function;
  gpointer data;
} EngWatch;

/* Starts a step whose products read x [n][ldx], cols of each row. */
void eng_step_begin (EngDecoder *d, const float *x, guint cols, gsize ldx);
/* y is [n][ldy]; ldy 0: the matrix's rows. */
EngProduct *eng_step_add (EngDecoder *d, const EngMatrix *matrix, const float *bias, float *y, gsize ldy);
/* Rows of one expert out of n_experts that share the matrix. */
EngProduct *eng_step_add_expert (EngDecoder *d, const EngMatrix *matrix, const float *bias, guint expert, guint n_experts, float *y);
void eng_step_prepare (EngDecoder *d);
void eng_step_run (EngDecoder *d, const EngWatch *watch);
/* A row of the widest input that belongs to one worker. */
float *eng_decoder_worker_row (EngDecoder *d, guint worker);

void eng_decoder_apply_norm (const EngTraits *traits, const EngNorm *norm, const float *x, float *out, guint n);
/* Row `row` of a matrix, before any pipeline; stored [cols] may be written to. */
void eng_matrix_row (const EngMatrix *matrix, guint row, float *out, float *stored);

/* decoder_attention.c: from the step that has begun to the attended; then the step that takes it, so that tokens may be left out between. */
void eng_decoder_run_attention (EngDecoder *d, const EngLayer *layer, const EngWatch *watch);
void eng_decoder_begin_output (EngDecoder *d, const EngLayer *layer);

/* decoder_experts.c: a layer's experts in place of one feed-forward unit: from normed, into normed. */
void eng_decoder_run_experts (EngDecoder *d, const EngLayer *layer, const EngWatch *watch);

#endif
