/* trellis.h: codes of the trellis codebook (kernels/xbit.h, XB_TRELLIS) for the weights of a quad, 16 rows of 4 columns, with the error
 * of each column carried into those after it. Method: trellis-coded quantization (Marcellin & Fischer 1990) with the bitshift trellis and
 * tail-biting of QTIP (Tseng et al. 2024); our codebook is a sum of small tables, fitted to the unit Gaussian (tests/bench/trellis_tables.c). */
#ifndef QZ_TRELLIS_H
#define QZ_TRELLIS_H

#include "kernels/trellis.h"
#include "kernels/xbit.h"

#include <glib.h>

enum { QZ_TRELLIS_ROWS = 16, QZ_TRELLIS_COLS = 4, QZ_TRELLIS_LEAST_DEPTH = 1, QZ_TRELLIS_MOST_DEPTH = 4, QZ_TRELLIS_MOST_BITS = 9 };

typedef struct {
  guint depth, n_tables;
  gint8 tables[4][16];
  float unit_scale; /* scale for weights of unit variance */
  float unit_error; /* mean square error then */
  float values[1 << QZ_TRELLIS_MOST_BITS]; /* of each state */
  xb_trellis search;
} QzTrellis;

/* Depth 1 to 4; immutable, made once. */
const QzTrellis *qz_trellis (guint depth);

/* A quad; arrays [4][ld] hold a column after the other, of which the first n_rows and n_cols are there. */
typedef struct {
  guint n_rows, n_cols;
  gsize ld;
  const float *weight;     /* the weights w themselves */
  const float *target;     /* w and what earlier columns' errors add to it */
  const float *scale;      /* [n_rows] */
  const float *importance; /* [n_rows] of squared errors; NULL: all alike */
  const float *pivots;     /* [n_cols] likewise */
  const float *factor;     /* F (factor.h) from the quad's first row and column on; NULL: no compensation */
  gsize ld_factor;
} QzQuad;

/* codes, values [4][16]: codes also of what is not there, values w would be replaced by. */
void qz_trellis_encode (const QzTrellis *trellis, const QzQuad *quad, guint8 codes[QZ_TRELLIS_COLS][QZ_TRELLIS_ROWS],
                        float values[QZ_TRELLIS_COLS][QZ_TRELLIS_ROWS]);

#endif
