/* repack.c: a quantized GGUF written again as an X-bit file that holds the very same numbers, one matrix at a time. */
#include <string.h>

#include "engine/checkpoint/blocks.h"
#include "engine/error.h"
#include "engine/model.h"

enum { BANDS_AT_ONCE = 64, SUPER_COLS = 256, COPY_BYTES = 4 << 20 };

typedef struct {
  EngGguf *source;
  EngGgufWriter *writer;
  EngProgress progress;
  gpointer data;
  GCancellable *cancellable;
  guint64 done, total;  /* bytes of the source */
} Repack;

/* One cell for the whole matrix. The layout points into the struct: it is filled in place and not copied. */
typedef struct {
  xb_layout layout;
  xb_cell cell;
  guint32 stripe_end, panel_end;
  gint8 table[1][16];
} OneCell;

/* A quantized matrix: what repacking is for. Vectors, stacks of matrices (no decoder here computes with them) and floats stay. */
static gboolean wants_packing (const EngTensor *tensor)
{
  const EngTypeTraits *traits = eng_type_traits (tensor->type);
  return tensor->n_dims >= 2 && tensor->dims[3] == 1 && !traits->is_float && traits->block > 1;
}

gboolean eng_gguf_is_computable (const EngGguf *gguf)
{
  for (guint i = 0; i < eng_gguf_n_tensors (gguf); i++)
    if (wants_packing (eng_gguf_tensor (gguf, i)))
      return FALSE;
  return TRUE;
}

static gboolean fail (const Repack *r, const EngTensor *tensor, const char *why, GError **error)
{
  g_set_error (error, ENG_ERROR, ENG_ERROR_UNSUPPORTED, "%s: tensor %s cannot be packed: %s", eng_gguf_path (r->source), tensor->name, why);
  return FALSE;
}

static void describe (OneCell *one, const EngTensor *tensor)
{
  const EngBlockKind *kind = eng_block_kind (tensor->type);
  *one = (OneCell) { .stripe_end = (guint32) (tensor->dims[1] * tensor->dims[2]), .panel_end = (guint32) tensor->dims[0] };
  one->cell = (xb_cell) { .depth = kind->depth, .codebook = kind->table ? XB_TABLE : XB_UNIFORM, .z2 = (guint16) (kind->zero * 2) };
  if (kind->table)
    memcpy (one->table[0], kind->table, sizeof one->table[0]);
  one->layout = (xb_layout) {
    .rows = one->stripe_end, .cols = one->panel_end, .group = kind->group,
    .scale_kind = kind->has_super ? XB_SCALE_GROUP_I8 : XB_SCALE_GROUP_F16, .has_offset = kind->has_offset,
    .n_stripes = 1, .n_panels = 1, .n_tables = kind->table != NULL,
    .stripe_end = &one->stripe_end, .panel_end = &one->panel_end, .cells = &one->cell, .tables = (const int8_t (*)[16]) one->table,
  };
}

static gboolean report (Repack *r, const EngTensor *tensor, guint64 bytes, GError **error)
{
  r->done += bytes;
  if (r->progress)
    r->progress (r->total ? (double) r->done / (double) r->total : 1, tensor->name, r->data);
  if (g_cancellable_is_cancelled (r->cancellable)) {
    g_set_error (error, ENG_ERROR, ENG_ERROR_CANCELLED, "%s: packing was stopped", eng_gguf_path (r->source));
    return FALSE;
  }
  return TRUE;
}

/* ---- declaring --------------------------------------------------------------------------------------------------------------- */

static gboolean declare_packed (Repack *r, const EngTensor *tensor, GError **error)
{
  const EngTypeTraits *traits = eng_type_traits (tensor->type);
  if (!eng_block_kind (tensor->type)) {
    g_set_error (error, ENG_ERROR, ENG_ERROR_UNSUPPORTED, "%s: tensor %s is stored as %s, which this version cannot compute with; choose a file of "
                 "another type, Q4_K for example", eng_gguf_path (r->source), tensor->name, traits->name);
    return FALSE;
  }
  if (tensor->dims[0] > G_MAXINT32 || tensor->dims[1] > G_MAXINT32 || tensor->dims[2] > G_MAXINT32 / tensor->dims[1])
    return fail (r, tensor, "it has more rows or columns than a matrix can have", error);
  /* Experts stand one behind the other in one matrix, and each has to begin a band. */
  if (tensor->dims[2] > 1 && tensor->dims[1] % XB_TILE_ROWS != 0)
    return fail (r, tensor, "its experts' rows are no multiple of 16", error);
  OneCell one;
  xb_error why = NULL;
  describe (&one, tensor);
  guint64 bytes = xb_layout_bytes (&one.layout, &why);
  if (bytes == 0)
    return fail (r, tensor, why, error);
  g_autofree char *name = g_strconcat (tensor->name, ".xbit", NULL);
  if (eng_gguf_find_tensor (r->source, name))
    return fail (r, tensor, "the file holds a packed copy of it as well", error);
  eng_gguf_writer_add_tensor (r->writer, name, ENG_TYPE_I8, 1, &bytes);
  return TRUE;
}

static gboolean declare (Repack *r, GError **error)
{
  eng_gguf_writer_set_u32 (r->writer, "valise.version", ENG_FILE_VERSION);
  eng_gguf_writer_copy_metadata (r->writer, r->source);
  for (guint i = 0; i < eng_gguf_n_tensors (r->source); i++) {
    const EngTensor *tensor = eng_gguf_tensor (r->source, i);
    r->total += tensor->bytes;
    if (!wants_packing (tensor))
      eng_gguf_writer_add_tensor (r->writer, tensor->name, tensor->type, tensor->n_dims, tensor->dims);
    else if (!declare_packed (r, tensor, error))
      return FALSE;
  }
  return TRUE;
}

/* ---- writing ----------------------------------------------------------------------------------------------------------------- */

static gboolean copy_tensor (Repack *r, guint i, const EngTensor *tensor, GError **error)
{
  for (guint64 at = 0; at < tensor->bytes; at += COPY_BYTES) {
    gsize size = (gsize) MIN ((guint64) COPY_BYTES, tensor->bytes - at);
    if (!eng_gguf_writer_write (r->writer, i, at, tensor->data + at, size, error) || !report (r, tensor, size, error))
      return FALSE;
  }
  return TRUE;
}

/* The codes and scales of one band, as xb_pack_band takes them. */
typedef struct {
  guint8 *codes;                                /* [16][cols] */
  float *scale, *offset, *super, *super_offset; /* [groups][16], the supers [cols / 256][16] */
} Band;

static void band_alloc (Band *band, guint cols, guint group)
{
  gsize groups = (gsize) (cols / group) * XB_TILE_ROWS, supers = (gsize) ((cols + SUPER_COLS - 1) / SUPER_COLS) * XB_TILE_ROWS;
  band->codes = g_malloc ((gsize) cols * XB_TILE_ROWS);
  band->scale = g_new (float, groups * 2 + supers * 2);
  band->offset = band->scale + groups;
  band->super = band->offset + groups;
  band->super_offset = band->super + supers;
}

static void band_clear (Band *band)
{
  g_free (band->codes);
  g_free (band->scale);
}

/* Row `row` of the band from the blocks of a source row. */
static void band_fill (Band *band, guint row, const EngTensor *tensor, const guint8 *source)
{
  const EngTypeTraits *traits = eng_type_traits (tensor->type);
  const EngBlockKind *kind = eng_block_kind (tensor->type);
  guint cols = (guint) tensor->dims[0], groups = traits->block / kind->group;
  EngBlock b = { .m = 0 };
  for (guint col = 0; col < cols; col += traits->block, source += traits->block_bytes) {
    eng_block_split (tensor->type, source, &b);
    memcpy (band->codes + (gsize) row * cols + col, b.code, traits->block);
    for (guint g = 0; g < groups; g++) {
      gsize at = (gsize) (col / kind->group + g) * XB_TILE_ROWS + row;
      band->scale[at] = kind->has_super ? (float) b.multiplier[g] : b.d;
      band->offset[at] = kind->has_super ? (float) b.offset_multiplier[g] : b.m;
    }
    if (kind->has_super) {
      gsize at = (gsize) (col / SUPER_COLS) * XB_TILE_ROWS + row;
      band->super[at] = b.d;
      band->super_offset[at] = b.m;
    }
  }
}

/* A last band that is not whole: rows that are not there hold zeros. */
static void band_zero (Band *band, guint cols, guint group)
{
  gsize groups = (gsize) (cols / group) * XB_TILE_ROWS, supers = (gsize) ((cols + SUPER_COLS - 1) / SUPER_COLS) * XB_TILE_ROWS;
  memset (band->codes, 0, (gsize) cols * XB_TILE_ROWS);
  memset (band->scale, 0, (groups + supers) * 2 * sizeof (float));
}

static gboolean pack_tensor (Repack *r, guint i, const EngTensor *tensor, GError **error)
{
  OneCell one;
  xb_error why = NULL;
  describe (&one, tensor);
  guint rows = one.layout.rows, cols = one.layout.cols;
  const EngBlockKind *kind = eng_block_kind (tensor->type);
  guint64 row_bytes = tensor->bytes / rows;
  gsize size = xb_layout_bytes (&one.layout, &why);
  g_autofree void *memory = g_try_malloc (size + XB_ALIGN);
  if (!memory) {
    g_set_error (error, ENG_ERROR, ENG_ERROR_MEMORY, "%s: packing tensor %s needs %" G_GSIZE_FORMAT " bytes of memory, which are not free; close other "
                 "programs and try again", eng_gguf_path (r->source), tensor->name, size);
    return FALSE;
  }
  guint8 *blob = (guint8 *) (((guintptr) memory + XB_ALIGN - 1) / XB_ALIGN * XB_ALIGN);
  why = xb_matrix_init (blob, size, &one.layout);
  Band band;
  band_alloc (&band, cols, kind->group);
  gboolean ok = TRUE;
  for (guint row0 = 0; row0 < rows && ok && !why; row0 += XB_TILE_ROWS) {
    guint n = MIN (rows - row0, (guint) XB_TILE_ROWS);
    if (n < XB_TILE_ROWS)
      band_zero (&band, cols, kind->group);
    for (guint row = 0; row < n; row++)
      band_fill (&band, row, tensor, tensor->data + (row0 + row) * row_bytes);
    why = xb_pack_band (blob, size, row0 / XB_TILE_ROWS, band.codes, band.scale, kind->has_offset ? band.offset : NULL,
                        kind->has_super ? band.super : NULL, kind->has_super && kind->has_offset ? band.super_offset : NULL);
    if (row0 / XB_TILE_ROWS % BANDS_AT_ONCE == BANDS_AT_ONCE - 1)
      ok = report (r, tensor, row_bytes * XB_TILE_ROWS * BANDS_AT_ONCE, error);
  }
  band_clear (&band);
  if (why)
    return fail (r, tensor, why, error);
  guint64 unreported = tensor->bytes - rows / (XB_TILE_ROWS * BANDS_AT_ONCE) * (row_bytes * XB_TILE_ROWS * BANDS_AT_ONCE);
  return ok && eng_gguf_writer_write (r->writer, i, 0, blob, size, error) && report (r, tensor, unreported, error);
}

gboolean eng_repack (EngGguf *source, const char *path, EngProgress progress, gpointer data, GCancellable *cancellable, GError **error)
{
  g_autoptr (EngGgufWriter) writer = eng_gguf_writer_new (XB_ALIGN);
  Repack r = { .source = source, .writer = writer, .progress = progress, .data = data, .cancellable = cancellable };
  if (!declare (&r, error) || !eng_gguf_writer_begin (writer, path, error))
    return FALSE;
  for (guint i = 0; i < eng_gguf_n_tensors (source); i++) {
    const EngTensor *tensor = eng_gguf_tensor (source, i);
    gboolean ok = wants_packing (tensor) ? pack_tensor (&r, i, tensor, error) : copy_tensor (&r, i, tensor, error);
    eng_gguf_drop_tensor (source, tensor);
    if (!ok)
      return FALSE;
  }
  return eng_gguf_writer_finish (writer, error);
}
