/* kept.c: what the engine makes of a tensor when a quantized checkpoint is loaded for the first time. */
#include "quantizer/kept.h"

#include "engine/checkpoint/packing.h"
#include "engine/error.h"

enum { ENTRY_BYTES = 64 /* of a pipeline in a file's table of tensors, and what it is rounded up to */ };

/* FALSE: there is no such form. */
static gboolean open_form (const QzSource *source, guint matrix, EngPacking *packing)
{
  const QzMatrix *m = &source->matrices[matrix];
  if (!eng_tensor_is_packable (source->gguf, m->tensor) || !eng_packing_open (packing, source->gguf, m->tensor, NULL))
    return FALSE;
  if (packing->layout.rows == m->rows && packing->layout.cols == m->cols)
    return TRUE;
  eng_packing_clear (packing);
  return FALSE;
}

static const xb_input_layout *pipeline_of (const EngPacking *packing, QzSide side)
{
  return side == QZ_SIDE_INPUT ? packing->packed->input : packing->packed->output;
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
  xb_error why = NULL;
  if (!open_form (source, matrix, &packing))
    return kept;
  kept.size.matrix = kept.bytes = xb_layout_bytes (&packing.layout, &why);
  kept.size.kept = TRUE;
  kept.depth = mean_depth (&packing.layout);
  for (QzSide side = 0; side < QZ_N_SIDES; side++) {
    const xb_input_layout *pipeline = pipeline_of (&packing, side);
    guint64 bytes = pipeline != NULL ? xb_input_bytes (pipeline, &why) : 0;
    kept.size.pipelines[side] = bytes;
    kept.bytes += bytes > 0 ? (bytes + XB_ALIGN - 1) / XB_ALIGN * XB_ALIGN + ENTRY_BYTES : 0;
  }
  eng_packing_clear (&packing);
  return why == NULL ? kept : (QzKept){ 0 };
}

static gboolean refuse (const QzSource *source, guint matrix, xb_error why, GError **error)
{
  if (why != NULL)
    g_set_error (error, ENG_ERROR, ENG_ERROR_UNSUPPORTED, "the tensor %s of %s cannot be kept as it is: %s", source->matrices[matrix].name,
                 eng_gguf_path (source->gguf), why);
  return why == NULL;
}

gboolean qz_kept_pack (const QzSource *source, guint matrix, const guint ids[QZ_N_SIDES], void *blob, GError **error)
{
  EngPacking packing;
  xb_error why = "it is not quantized";
  if (open_form (source, matrix, &packing)) {
    packing.layout.input_id = ids[QZ_SIDE_INPUT];
    packing.layout.output_id = ids[QZ_SIDE_OUTPUT];
    why = eng_packing_write (&packing, blob, 0, (packing.layout.rows + XB_TILE_ROWS - 1) / XB_TILE_ROWS);
    eng_packing_clear (&packing);
  }
  return refuse (source, matrix, why, error);
}

gboolean qz_kept_pipeline (const QzSource *source, guint matrix, QzSide side, void *blob, GError **error)
{
  EngPacking packing;
  xb_error why = "it is not quantized";
  if (open_form (source, matrix, &packing)) {
    const xb_input_layout *pipeline = pipeline_of (&packing, side);
    why = xb_input_init (blob, xb_input_bytes (pipeline, &why), pipeline);
    eng_packing_clear (&packing);
  }
  return refuse (source, matrix, why, error);
}

gboolean qz_kept_unit (const QzSource *source, guint unit)
{
  const QzUnit *u = &source->units[unit];
  return (u->gate != QZ_NONE && qz_kept_form (source, u->gate).bytes > 0) || qz_kept_form (source, u->up).bytes > 0 || qz_kept_form (source, u->down).bytes > 0;
}
