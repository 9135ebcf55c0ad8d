/* trellis.h: codes of the trellis codebook (kernels/xbit.h, XB_TRELLIS and XB_TRELLIS16) for 16 rows of weights, with the error of each column carried into those
 * after it. Method: trellis-coded quantization (Marcellin & Fischer 1990) with the bitshift trellis of QTIP (Tseng et al. 2024); our codebook is a
 * sum of small tables, fitted to the unit Gaussian (tests/bench/trellis_tables.c). */
#ifndef QZ_TRELLIS_H
#define QZ_TRELLIS_H

#include "kernels/trellis.h"

#include <glib.h>

enum { QZ_CHAIN_ROWS = 16 };

typedef struct {
  const gint8 (*tables)[16]; /* [xb_trellis_tables (depth)] */
  float unit_scale;          /* scale for weights of unit variance */
  float unit_error;          /* mean square error then */
  const float *errors;       /* [QZ_N_DEVIATIONS] mean square error of weights of deviation 2^(QZ_LEAST_OCTAVES + i / QZ_DEVIATION_STEPS), by the same scale */
  xb_trellis search;
} QzTrellis;

enum { QZ_DEVIATION_STEPS = 16 /* an octave */, QZ_LEAST_OCTAVES = -2, QZ_MOST_OCTAVES = 6, QZ_N_DEVIATIONS = (QZ_MOST_OCTAVES - QZ_LEAST_OCTAVES) * QZ_DEVIATION_STEPS + 1 };

/* Of XB_TRELLIS or XB_TRELLIS16, a depth that there is (xb_trellis_has); immutable, made once. */
const QzTrellis *qz_trellis (xb_codebook codebook, guint depth);

/* Columns of a cell that share their scales; arrays [n_cols][ld] hold a column after the other, of which the first n_rows are there. */
typedef struct {
  guint n_rows, n_cols; /* at most QZ_CHAIN_ROWS and the chain's */
  guint ahead;          /* 1: a column of the next segment follows in target and pivots, and is looked at before the last decisions; else 0 */
  gsize ld;
  const float *weight;     /* the weights w themselves */
  float *target;           /* w and what earlier columns' errors add to it: completed here, column by column, also of the one ahead */
  const float *scale;      /* [n_rows] */
  const float *importance; /* [n_rows] of squared errors; NULL: all alike */
  const float *pivots;     /* [n_cols] likewise */
  const float *factor;     /* F (factor.h) from the first row and column on; NULL: no compensation */
  gsize ld_factor;
} QzSegment;

/* The chain of 16 rows of a cell, segment after segment. Not shared between threads. */
typedef struct QzChain QzChain;
QzChain *qz_chain_new (guint most_cols);
void qz_chain_free (QzChain *chain);
/* Goes on from where an earlier one ended (qz_chain_end); 0: the beginning of a cell. */
void qz_chain_begin (QzChain *chain, const QzTrellis *trellis, guint end);
guint qz_chain_end (const QzChain *chain);
/* codes, values [n_cols][QZ_CHAIN_ROWS]: codes also of rows that are not there, the values that w is replaced by. */
void qz_chain_encode (QzChain *chain, const QzSegment *segment, guint8 *codes, float *values);

#endif
