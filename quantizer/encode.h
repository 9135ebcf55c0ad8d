/* encode.h: rows of a transformed matrix to codes and scales, each column's rounding error carried into the columns after it. */
#ifndef QZ_ENCODE_H
#define QZ_ENCODE_H

#include "kernels/xbit.h"

#include <glib.h>

typedef struct {
  const xb_layout *layout;
  const float *factor; /* [cols][cols] F of factor.h; NULL: no compensation, plain rounding */
  const float *pivots; /* [cols] */
  const float *importance; /* [rows] of a row's squared error; NULL: all alike */
  gboolean plain;      /* round to nearest: codes and scales are chosen as if all columns were alike and alone; the loss is what it is */
} QzEncoder;

/* Memory for one thread's encoding of up to n rows. */
typedef struct QzEncodeScratch QzEncodeScratch;
QzEncodeScratch *qz_encode_scratch_new (const QzEncoder *encoder, guint n_rows);
void qz_encode_scratch_free (QzEncodeScratch *scratch);

/* Rows row0..row0+n_rows-1 (row0 a multiple of 64, n_rows that of `scratch` or less), w [n_rows][cols] transformed. Packs them
 * into blob[size] (made by xb_matrix_init) and sets loss[n_rows] to e H e^T of each row. Any thread, disjoint rows. */
xb_error qz_encode_rows (const QzEncoder *encoder, QzEncodeScratch *scratch, guint row0, guint n_rows, const float *w, void *blob, gsize size,
                         double *loss);

#endif
