/* kept.c: what the engine makes of a tensor when a quantized checkpoint is loaded for the first time. */
#include "quantizer/kept.h"

#include "engine/checkpoint/packing.h"
#include "engine/error.h"

/* FALSE: there is no such form. */
static gboolean open_form (const QzSource *source, guint matrix, EngPacking *packing)
{
  const QzMatrix *m = &source->matrices[matrix];
  if (!eng_tensor_is_packable (source->gguf, m->tensor) || !eng_packing_open (packing, source->gguf, m->tensor, NULL))
    return FALSE;
  const EngPacked *packed = packing->packed;
  if (packed->input == NULL && packed->output == NULL && packing->layout.rows == m->rows && packing->layout.cols == m->cols)
    return TRUE;
  eng_packing_clear (packing);
  return FALSE;
}

static double mean_depth (const xb_layout *layout)
{
  double bits = 0;
  for (guint s = 0, row = 0; s < layout->n_stripes; row = layout->stripe_end[s++])
    for (guint p = 0, col = 0; p < layout->n_panels; col = layout->panel_end[p++])
      bits += (double) layout->cells[s * layout->n_panels + p].depth * (layout->stripe_end[s] - row) * (layout->panel_end[p] - col);
  return bits / layout->rows / layout->cols;
}

QzKept qz_kept_form (const QzSource *source, guint matrix)
{
  EngPacking packing;
  QzKept kept = { 0 };
  if (!open_form (source, matrix, &packing))
    return kept;
  xb_error why = NULL;
  kept = (QzKept){ xb_layout_bytes (&packing.layout, &why), mean_depth (&packing.layout) };
  eng_packing_clear (&packing);
  return kept;
}

gboolean qz_kept_pack (const QzSource *source, guint matrix, void *blob, GError **error)
{
  const QzMatrix *m = &source->matrices[matrix];
  EngPacking packing;
  xb_error why = "it is not quantized";
  if (open_form (source, matrix, &packing)) {
    why = eng_packing_write (&packing, blob, 0, (m->rows + XB_TILE_ROWS - 1) / XB_TILE_ROWS);
    eng_packing_clear (&packing);
  }
  if (why != NULL)
    g_set_error (error, ENG_ERROR, ENG_ERROR_UNSUPPORTED, "the tensor %s of %s cannot be kept as it is: %s", m->name, eng_gguf_path (source->gguf), why);
  return why == NULL;
}

gboolean qz_kept_unit (const QzSource *source, guint unit)
{
  const QzUnit *u = &source->units[unit];
  return (u->gate != QZ_NONE && qz_kept_form (source, u->gate).bytes > 0) || qz_kept_form (source, u->up).bytes > 0 || qz_kept_form (source, u->down).bytes > 0;
}
