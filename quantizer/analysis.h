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
  guint n_inputs, n_matrices, n_layers;
  guint *input_cols;
  guint32 **ffn_order;      /* [n_layers][n_ff], as in source.h */
  QzTransform **transforms; /* [n_inputs] */
  float **pivots;           /* [n_inputs][cols] */
  float **row_fisher;       /* [n_matrices][rows] */
  QzStore *factors;         /* F of every input, f16, above the diagonal, row by row */
  QzCurves *curves;
  /* Held-out text and the source's final hidden states on it. */
  guint held_sequences, held_tokens, n_embd;
  gint32 *held;             /* [held_sequences][held_tokens] */
  guint16 *held_hidden;     /* [held_sequences * held_tokens][n_embd] f16 */
};

/* Arrays for `source`, empty. */
QzAnalysis *qz_analysis_alloc (const QzSource *source);
/* A digest of names, types, shapes and a sample of every tensor's bytes. */
char *qz_fingerprint (const EngGguf *gguf);
guint64 qz_analysis_factor_bytes (const QzAnalysis *analysis, guint input);
guint64 qz_analysis_factor_offset (const QzAnalysis *analysis, guint input);
/* f [cols][cols], zeros below the diagonal, 1 on it. */
gboolean qz_analysis_write_factor (QzAnalysis *analysis, guint input, const float *f, GError **error);
gboolean qz_analysis_read_factor (const QzAnalysis *analysis, guint input, float *f, GError **error);

#endif
