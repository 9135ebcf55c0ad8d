/* packed_blocks.c: ggml's block types as X-bit matrices of the very same numbers: one cell, the blocks' codes and scales. */
#include "engine/checkpoint/blocks.h"
#include "engine/checkpoint/packed.h"

#include <string.h>

enum { SUPER_COLS = 256 };

typedef struct {
  EngPacked packed;
  const EngTensor *tensor;
  float tensor_scale;
  /* The layout points at these. */
  xb_layout layout;
  xb_cell cell;
  xb_grid grid;
  guint32 stripe_end, panel_end;
  gint8 table[1][16];
} Blocks;

static void read_rows (const EngPacked *packed, guint64 row0, guint64 n, float *out)
{
  const Blocks *blocks = (const Blocks *) packed;
  eng_tensor_read_rows (blocks->tensor, row0, n, out);
  for (guint64 i = 0; i < n * blocks->tensor->dims[0] && blocks->tensor_scale != 1; i++)
    out[i] *= blocks->tensor_scale;
}

static void fill_row (const Blocks *blocks, guint row, const guint8 *source, EngBand *out)
{
  const EngTensor *tensor = blocks->tensor;
  const EngTypeTraits *traits = eng_type_traits (tensor->type);
  const EngBlockKind *kind = eng_block_kind (tensor->type);
  guint cols = blocks->layout.cols, groups = traits->block / kind->group;
  gboolean is_float = kind->scale_kind == XB_SCALE_GROUP_F16;
  gsize stride = (gsize) (cols + 31) / 32 * 32;
  EngBlock b = { .m = 0 };
  for (guint col = 0; col < cols; col += traits->block, source += traits->block_bytes) {
    eng_block_split (tensor->type, source, &b);
    memcpy (out->codes + row * stride + col, b.code, traits->block);
    for (guint g = 0; g < groups; g++) {
      gsize at = (gsize) (col / kind->group + g) * XB_TILE_ROWS + row;
      out->scale[at] = is_float ? b.d : (float) b.multiplier[g];
      if (kind->has_offset)
        out->offset[at] = is_float ? b.m : (float) b.offset_multiplier[g];
    }
    if (kind->scale_kind == XB_SCALE_GROUP_E4M3)
      out->super[row] = b.d * blocks->tensor_scale;
    else if (kind->scale_kind == XB_SCALE_GROUP_I8 || kind->scale_kind == XB_SCALE_GROUP_ODD)
      out->super[(gsize) (col / SUPER_COLS) * XB_TILE_ROWS + row] = b.d;
    if (kind->scale_kind == XB_SCALE_GROUP_I8 && kind->has_offset)
      out->super_offset[(gsize) (col / SUPER_COLS) * XB_TILE_ROWS + row] = b.m;
  }
}

static void fill_band (const EngPacked *packed, guint band, EngBand *out)
{
  const Blocks *blocks = (const Blocks *) packed;
  g_autoptr (GByteArray) swapped = g_byte_array_new ();
  for (guint row = 0; row < XB_TILE_ROWS && band * XB_TILE_ROWS + row < blocks->layout.rows; row++)
    fill_row (blocks, row, eng_tensor_row_bytes (blocks->tensor, band * XB_TILE_ROWS + row, swapped), out);
}

static void free_blocks (EngPacked *packed)
{
  g_free (packed);
}

static const EngPackedClass blocks_class = { "blocks", read_rows, fill_band, NULL, free_blocks };

EngPacked *eng_packed_from_blocks (const EngTensor *tensor, float tensor_scale, const char **why)
{
  const EngBlockKind *kind = eng_block_kind (tensor->type);
  if (tensor->dims[0] > G_MAXINT32 || tensor->dims[1] > G_MAXINT32 || tensor->dims[2] > G_MAXINT32 / tensor->dims[1]) {
    *why = "it has more rows or columns than a matrix can have";
    return NULL;
  }
  Blocks *blocks = g_new0 (Blocks, 1);
  blocks->packed = (EngPacked) { .class = &blocks_class, .layout = &blocks->layout };
  blocks->tensor = tensor;
  blocks->tensor_scale = tensor_scale;
  blocks->stripe_end = (guint32) (tensor->dims[1] * tensor->dims[2]);
  blocks->panel_end = (guint32) tensor->dims[0];
  blocks->cell = (xb_cell) { .depth = kind->depth, .codebook = kind->grid ? XB_GRID : kind->table ? XB_TABLE : XB_UNIFORM,
                             .z2 = kind->grid ? kind->shift : kind->zero2 };
  if (kind->table)
    memcpy (blocks->table[0], kind->table, sizeof blocks->table[0]);
  blocks->layout = (xb_layout) {
    .rows = blocks->stripe_end, .cols = blocks->panel_end, .group = kind->group, .scale_kind = kind->scale_kind,
    .has_offset = kind->has_offset ? XB_OFFSET_STORED : XB_OFFSET_NONE, .n_stripes = 1, .n_panels = 1, .n_tables = kind->table != NULL,
    .stripe_end = &blocks->stripe_end, .panel_end = &blocks->panel_end, .cells = &blocks->cell, .tables = (const int8_t (*)[16]) blocks->table,
  };
  if (kind->grid) {
    blocks->grid = *eng_grid_shape (kind->grid);
    blocks->layout.n_grids = 1;
    blocks->layout.grids = &blocks->grid;
    blocks->layout.grid_bytes = (guint32) blocks->grid.dim << blocks->grid.index_bits;
    blocks->layout.grid_values = eng_grid_values (kind->grid);
  }
  return &blocks->packed;
}

void eng_packed_free (EngPacked *packed)
{
  if (packed)
    packed->class->free (packed);
}
