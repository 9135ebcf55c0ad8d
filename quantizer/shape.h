/* shape.h: how a matrix is divided into cells and groups, before any depth is chosen; and the X-bit layout once they are. */
#ifndef QZ_SHAPE_H
#define QZ_SHAPE_H

#include "quantizer/codebook.h"

enum { QZ_STRIPE_ROWS = 64, QZ_PANEL_COLS = 128 };

typedef struct {
  guint rows, cols;
  guint8 scale_kind; /* xb_scale_kind */
  guint8 group;      /* columns per scale; 0 for one scale per row */
  guint8 codes;      /* QzCodes */
} QzShape;

/* Panels divide a row only where its scales do. */
guint qz_shape_n_stripes (const QzShape *shape);
guint qz_shape_n_panels (const QzShape *shape);
guint qz_shape_n_cells (const QzShape *shape);
/* Bytes one bit of depth costs in a cell; cells are numbered stripe by stripe. */
guint32 qz_shape_unit_bytes (const QzShape *shape, guint cell);
/* Bits per weight the scales cost. */
double qz_shape_scale_bits (const QzShape *shape);

/* Owns its arrays. depths [n_cells]; NULL: 0 everywhere. */
typedef struct {
  xb_layout layout;
  guint32 *stripe_end, *panel_end;
  xb_cell *cells;
} QzLayout;

void qz_layout_init (QzLayout *layout, const QzShape *shape, guint32 input_id, const guint8 *depths);
void qz_layout_clear (QzLayout *layout);

#endif
