/* shape.c: stripes of 64 rows, panels of 128 columns. */
#include "quantizer/shape.h"

guint qz_shape_n_stripes (const QzShape *shape)
{
  return (shape->rows + QZ_STRIPE_ROWS - 1) / QZ_STRIPE_ROWS;
}

guint qz_shape_n_panels (const QzShape *shape)
{
  return shape->group == 0 ? 1 : (shape->cols + QZ_PANEL_COLS - 1) / QZ_PANEL_COLS;
}

guint qz_shape_n_cells (const QzShape *shape)
{
  return qz_shape_n_stripes (shape) * qz_shape_n_panels (shape);
}

static guint tiles (guint begin, guint end, guint tile)
{
  return (end - begin + tile - 1) / tile;
}

guint32 qz_shape_unit_bytes (const QzShape *shape, guint cell)
{
  guint n_panels = qz_shape_n_panels (shape), stripe = cell / n_panels, panel = cell % n_panels;
  guint row0 = stripe * QZ_STRIPE_ROWS, col0 = panel * QZ_PANEL_COLS;
  guint col1 = n_panels == 1 ? shape->cols : MIN (col0 + QZ_PANEL_COLS, shape->cols);
  return tiles (row0, MIN (row0 + QZ_STRIPE_ROWS, shape->rows), XB_TILE_ROWS) * tiles (col0, col1, XB_TILE_COLS) * XB_TILE_ROWS * XB_TILE_COLS / 8;
}

double qz_shape_scale_bits (const QzShape *shape)
{
  switch (shape->scale_kind) {
  case XB_SCALE_ROW_F16:
    return 16.0 / shape->cols;
  case XB_SCALE_GROUP_F16:
    return 16.0 * ((shape->cols + shape->group - 1) / shape->group) / shape->cols;
  default:
    return (8.0 * ((shape->cols + shape->group - 1) / shape->group) + 16.0 * ((shape->cols + 255) / 256)) / shape->cols;
  }
}

void qz_layout_init (QzLayout *layout, const QzShape *shape, guint32 input_id, const guint8 *depths)
{
  guint n_stripes = qz_shape_n_stripes (shape), n_panels = qz_shape_n_panels (shape);
  *layout = (QzLayout){ 0 };
  layout->stripe_end = g_new (guint32, n_stripes);
  layout->panel_end = g_new (guint32, n_panels);
  layout->cells = g_new (xb_cell, (gsize) n_stripes * n_panels);
  for (guint s = 0; s < n_stripes; s++)
    layout->stripe_end[s] = MIN ((s + 1) * QZ_STRIPE_ROWS, shape->rows);
  for (guint p = 0; p < n_panels; p++)
    layout->panel_end[p] = p + 1 == n_panels ? shape->cols : (p + 1) * QZ_PANEL_COLS;
  for (guint c = 0; c < n_stripes * n_panels; c++)
    layout->cells[c] = qz_codebook (shape->codes, depths != NULL ? depths[c] : 0)->cell;
  layout->layout = (xb_layout){ .rows = shape->rows, .cols = shape->cols, .group = shape->group, .scale_kind = shape->scale_kind,
                                .input_id = input_id, .n_stripes = n_stripes, .n_panels = n_panels, .n_tables = shape->codes == QZ_CODES_UNIFORM ? 0 : QZ_N_TABLES,
                                .stripe_end = layout->stripe_end, .panel_end = layout->panel_end, .cells = layout->cells,
                                .tables = qz_codebook_tables (shape->codes) };
}

void qz_layout_clear (QzLayout *layout)
{
  g_free (layout->stripe_end);
  g_free (layout->panel_end);
  g_free (layout->cells);
  *layout = (QzLayout){ 0 };
}
