/* packing.c: the codes and scales of a band of 16 rows, as their reader gives them, go into the X-bit matrix as they are. */
#include "engine/checkpoint/packing.h"

#include "engine/checkpoint/blocks.h"
#include "engine/error.h"

#include <string.h>

/* ---- what can be packed --------------------------------------------------------------------------------------------------- */

/* "NAME" when `name` is NAME and then `ending`; free with g_free. */
static char *without_ending (const char *name, const char *ending)
{
  return g_str_has_suffix (name, ending) ? g_strndup (name, strlen (name) - strlen (ending)) : NULL;
}

/* The second scale of an NVFP4 matrix is a tensor of one number beside it. */
static const EngTensor *second_scale (const EngGguf *gguf, const EngTensor *tensor)
{
  g_autofree char *stem = tensor->type == ENG_TYPE_NVFP4 ? without_ending (tensor->name, ".weight") : NULL;
  g_autofree char *name = stem ? g_strconcat (stem, ".scale", NULL) : NULL;
  const EngTensor *scale = name ? eng_gguf_find_tensor (gguf, name) : NULL;
  return scale && scale->dims[0] == 1 && eng_tensor_n_rows (scale) == 1 && scale->type == ENG_TYPE_F32 ? scale : NULL;
}

gboolean eng_tensor_is_folded (const EngGguf *gguf, const EngTensor *tensor)
{
  static const char *const endings[] = { ".scale", ".input_scale" };
  for (guint i = 0; i < G_N_ELEMENTS (endings); i++) {
    g_autofree char *stem = without_ending (tensor->name, endings[i]), *name = stem ? g_strconcat (stem, ".weight", NULL) : NULL;
    const EngTensor *matrix = name ? eng_gguf_find_tensor (gguf, name) : NULL;
    if (matrix && matrix->type == ENG_TYPE_NVFP4 && (i == 1 || second_scale (gguf, matrix)))
      return TRUE;
  }
  return FALSE;
}

gboolean eng_tensor_is_packable (const EngGguf *gguf, const EngTensor *tensor)
{
  const EngTypeTraits *traits = eng_type_traits (tensor->type);
  if (tensor->packed)
    return tensor->packed->layout != NULL;
  return tensor->n_dims >= 2 && !traits->is_float && traits->block > 1 && !eng_tensor_is_folded (gguf, tensor);
}

/* ---- one matrix ------------------------------------------------------------------------------------------------------------ */

static const char *open_blocks (EngPacking *packing, const EngGguf *gguf, const EngTensor *tensor)
{
  const char *why = NULL;
  /* Experts stand one behind the other in one matrix, and each has to begin a band. */
  if (tensor->dims[3] > 1 || (tensor->dims[2] > 1 && tensor->dims[1] % XB_TILE_ROWS != 0))
    return "its experts' rows are no multiple of 16";
  const EngTensor *scale = second_scale (gguf, tensor);
  float factor = 1;
  if (scale)
    eng_tensor_read_rows (scale, 0, 1, &factor);
  packing->packed = packing->owned = eng_packed_from_blocks (tensor, factor, &why);
  return why;
}

gboolean eng_packing_open (EngPacking *packing, const EngGguf *gguf, const EngTensor *tensor, GError **error)
{
  *packing = (EngPacking) { .packed = tensor->packed };
  if (!tensor->packed && !eng_block_kind (tensor->type)) {
    g_set_error (error, ENG_ERROR, ENG_ERROR_UNSUPPORTED, "%s: tensor %s is stored as %s, which is no type for a model's weights; choose another file",
                 eng_gguf_path (gguf), tensor->name, eng_tensor_type_name (tensor));
    return FALSE;
  }
  const char *why = tensor->packed ? NULL : open_blocks (packing, gguf, tensor);
  if (why) {
    g_set_error (error, ENG_ERROR, ENG_ERROR_UNSUPPORTED, "%s: tensor %s cannot be packed: %s", eng_gguf_path (gguf), tensor->name, why);
    return FALSE;
  }
  packing->layout = *packing->packed->layout;
  return TRUE;
}

void eng_packing_clear (EngPacking *packing)
{
  eng_packed_free (packing->owned);
  *packing = (EngPacking) { 0 };
}

xb_error eng_packing_write (const EngPacking *packing, guint8 *blob, guint band, guint n_bands)
{
  xb_layout part = packing->layout;
  guint32 rows = MIN (part.rows - band * XB_TILE_ROWS, n_bands * XB_TILE_ROWS);
  part.rows = rows;
  part.stripe_end = &rows;
  xb_error why = NULL;
  gsize size = xb_layout_bytes (&part, &why);
  why = size ? xb_matrix_init (blob, size, &part) : why;
  gsize groups = xb_layout_groups (&part), supers = MAX ((part.cols + 255) / 256, groups);
  gsize n_codes = (gsize) XB_TILE_ROWS * ((part.cols + 31) / 32 * 32), n_floats = XB_TILE_ROWS * (groups * 2 + supers * 2);
  g_autofree guint8 *codes = g_malloc (n_codes);
  g_autofree float *floats = g_new (float, n_floats);
  EngBand in = { codes, floats, floats + groups * XB_TILE_ROWS, floats + 2 * groups * XB_TILE_ROWS, floats + (2 * groups + supers) * XB_TILE_ROWS };
  for (guint i = 0; i * XB_TILE_ROWS < rows && !why; i++) {
    memset (codes, 0, n_codes);
    memset (floats, 0, n_floats * sizeof (float));
    packing->packed->class->fill_band (packing->packed, band + i, &in);
    why = xb_pack_band (blob, size, i, in.codes, in.scale, in.offset, in.super, in.super_offset);
  }
  return why;
}
