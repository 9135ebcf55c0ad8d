/* analysis.h: what is behind QzAnalysis (fit.h). */
#ifndef QZ_ANALYSIS_H
#define QZ_ANALYSIS_H

#include "quantizer/curves.h"
#include "quantizer/store.h"
#include "quantizer/transform.h"

struct QzAnalysis {
  char *fingerprint; /* of the source */
  char *calibration; /* its id */
  guint64 seed;
  QzMethod method;
  guint n_inputs, n_factors, n_matrices, n_units;
  guint widest;             /* columns that are factored together (moments.h) */
  guint *factor_cols;       /* [n_factors] */
  guint *order_lengths;     /* [n_units] n_experts * n_ff */
  guint32 **order;          /* [n_units][order_lengths], as in source.h */
  QzTransform **transforms; /* [n_inputs] */
  float **pivots;           /* [n_factors][cols]; NULL: of an expert without moments of its own */
  float **row_fisher;       /* [n_matrices][rows] */
  QzStore *factors;         /* F of every factor, f16, block by block, above the diagonal, row by row ... */
  guint64 *offsets;         /* [n_factors] ... from here on */
  guint64 factor_end;       /* where the last one ends */
  QzCurves *curves;
  /* The text that was learned from, whose final states lie behind one another among the factors. */
  guint n_learned;          /* sequences of held_tokens */
  gint32 *learned;          /* [n_learned][held_tokens] */
  guint64 states_offset;    /* of states (spill.h) [n_learned * held_tokens][n_embd] */
  /* Held-out text and the source's final hidden states on it. */
  guint held_sequences, held_tokens, n_embd;
  gint32 *held;             /* [held_sequences][held_tokens] */
  guint16 *held_hidden;     /* [held_sequences * held_tokens][n_embd] f16 */
};

/* Arrays for `source`, empty. */
QzAnalysis *qz_analysis_alloc (const QzSource *source);
/* A digest of names, types, shapes and a sample of every tensor's bytes. */
char *qz_fingerprint (const EngGguf *gguf);
/* 0 of one that there is not. */
guint64 qz_analysis_factor_bytes (const QzAnalysis *analysis, guint factor);
/* The order of a unit's channels is that of the analysis from now on. */
gboolean qz_analysis_apply_order (const QzAnalysis *analysis, QzSource *source);
/* The factor that rows row0.. of a matrix are compensated by: their expert's, or where it has none, or they are of several, that of all. */
guint qz_analysis_factor_of (const QzSource *source, float *const *pivots, guint matrix, guint row0, guint rows);
/* f [cols][cols], zeros below the diagonal and between blocks, 1 on it. */
gboolean qz_analysis_read_factor (const QzAnalysis *analysis, guint factor, float *f, GError **error);
/* x [n][n_embd] = the source's final hidden states, after the output norm, of tokens row.. of the learned text. */
gboolean qz_analysis_read_states (const QzAnalysis *analysis, EngWorkers *workers, gsize row, gsize n, float *x, GError **error);

#endif
