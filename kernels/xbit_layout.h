/* xbit_layout.h: where everything lies in an X-bit blob; what the products and the packer share. */
#ifndef XB_LAYOUT_H
#define XB_LAYOUT_H

#include "kernels/xbit.h"

enum { XB_SUPER_COLS = 256 };

struct xb_matrix {
  xb_layout layout;
  const uint8_t *data;
  size_t size;
  uint32_t n_groups;          /* in a row */
  uint32_t *panel_group;      /* [n_panels + 1] first group of each panel (0 with one scale per row) */
  uint64_t *stripe_offset;    /* [n_stripes] first band of each stripe */
  uint64_t *band_bytes;       /* [n_stripes] */
  uint64_t *tile_bytes;       /* [n_stripes] all tiles of a band: where its scales begin */
  uint32_t *band_stripe;      /* [bands] */
  uint8_t *grid_columns;      /* [grid_bytes] each grid's values + 128 as [dim][2^index_bits] */
};

static inline size_t xb_pad64 (size_t n)
{
  return (n + 63) / 64 * 64;
}

static inline uint32_t xb_bands (const xb_layout *l)
{
  return (l->rows + 15) / 16;
}

static inline uint32_t xb_cols_padded (uint32_t cols)
{
  return (cols + 31) / 32 * 32;
}

static inline uint32_t xb_panel_begin (const xb_layout *l, uint32_t panel)
{
  return panel ? l->panel_end[panel - 1] : 0;
}

/* Tiles of one panel. */
static inline uint32_t xb_panel_tiles (const xb_layout *l, uint32_t panel)
{
  return (l->panel_end[panel] - xb_panel_begin (l, panel) + 31) / 32;
}

static inline bool xb_scale_per_row (const xb_layout *l)
{
  return l->scale_kind == XB_SCALE_ROW_F16 || l->scale_kind == XB_SCALE_ROW_F32;
}

static inline uint32_t xb_panel_groups (const xb_layout *l, uint32_t panel)
{
  uint32_t width = l->panel_end[panel] - xb_panel_begin (l, panel);
  return xb_scale_per_row (l) ? 1 : (width + l->group - 1) / l->group;
}

/* One plane set of the scales of a band (or of its offsets): groups, then the super scales of the kinds that are products. */
static inline size_t xb_scale_part (const xb_layout *l, uint32_t n_groups)
{
  switch (l->scale_kind) {
  case XB_SCALE_ROW_F16: case XB_SCALE_ROW_F32: return 64;
  case XB_SCALE_GROUP_F16: return xb_pad64 ((size_t) n_groups * 32);
  case XB_SCALE_GROUP_F32: return (size_t) n_groups * 64;
  case XB_SCALE_GROUP_ODD: case XB_SCALE_GROUP_SQUARE: return xb_pad64 ((size_t) (n_groups + 1) / 2 * 16);
  default: return xb_pad64 ((size_t) n_groups * 16);
  }
}

/* Super scales in a row: per 256 columns, per row or per group (of the band). */
static inline uint32_t xb_supers (const xb_layout *l, uint32_t n_groups)
{
  switch (l->scale_kind) {
  case XB_SCALE_GROUP_I8: case XB_SCALE_GROUP_ODD: return (l->cols + XB_SUPER_COLS - 1) / XB_SUPER_COLS;
  case XB_SCALE_GROUP_E4M3: return 1;
  case XB_SCALE_GROUP_SQUARE: return n_groups;
  default: return 0;
  }
}

static inline size_t xb_super_part (const xb_layout *l, uint32_t n_groups)
{
  const size_t supers = xb_supers (l, n_groups);
  return xb_pad64 (supers * (l->scale_kind == XB_SCALE_GROUP_E4M3 ? 64 : l->scale_kind == XB_SCALE_GROUP_SQUARE ? 2 : 32));
}

/* Where the offsets of a band begin, counted from its scales, and all of its scales and offsets. */
static inline size_t xb_offset_begin (const xb_layout *l, uint32_t n_groups)
{
  return xb_scale_part (l, n_groups) + xb_super_part (l, n_groups);
}

static inline size_t xb_scale_bytes (const xb_layout *l, uint32_t n_groups)
{
  const size_t scales = xb_offset_begin (l, n_groups);
  return l->has_offset == XB_OFFSET_ZERO ? scales + xb_pad64 ((size_t) n_groups * 16) : scales * (l->has_offset ? 2 : 1);
}

static inline uint32_t xb_grid_tile_bytes (const xb_grid *g)
{
  return 64u * g->index_bits / g->dim + 8u * g->sign_bits;
}

/* What the scales of a grid cell are multiplied with. */
static inline float xb_grid_factor (const xb_cell *cell)
{
  return 1.0f / (float) (1u << cell->z2);
}

static inline uint32_t xb_tile_bytes (const xb_layout *l, const xb_cell *cell)
{
  return cell->depth && cell->codebook == XB_GRID ? xb_grid_tile_bytes (&l->grids[cell->table]) : cell->depth * 64u;
}

/* Bytes of the tiles of one cell in a band. */
static inline size_t xb_cell_bytes (const xb_layout *l, uint32_t stripe, uint32_t panel)
{
  return xb_pad64 ((size_t) xb_panel_tiles (l, panel) * xb_tile_bytes (l, &l->cells[(size_t) stripe * l->n_panels + panel]));
}

/* Bytes of tiles before `panel` in a band of `stripe`. */
static inline size_t xb_tiles_before (const xb_layout *l, uint32_t stripe, uint32_t panel)
{
  size_t bytes = 0;
  for (uint32_t p = 0; p < panel; p++)
    bytes += xb_cell_bytes (l, stripe, p);
  return bytes;
}

static inline const uint8_t *xb_band (const xb_matrix *m, uint32_t band)
{
  uint32_t s = m->band_stripe[band], first = s ? m->layout.stripe_end[s - 1] / 16 : 0;
  return m->data + m->stripe_offset[s] + (uint64_t) (band - first) * m->band_bytes[s];
}

/* Layout of a blob that xb_matrix_init made (not of an untrusted one), its pointers into the blob; returns its stripe offsets, or NULL. */
const uint64_t *xb_blob_layout (const void *data, size_t size, xb_layout *layout);

/* Code of row r, column c of one tile of depth b. */
static inline uint32_t xb_tile_code (const uint8_t *tile, uint32_t depth, uint32_t r, uint32_t c)
{
  uint32_t quad = c / 4, at = r * 4 + c % 4, code = 0;
  if (depth == 8)
    return tile[quad * 64 + at];
  if (depth & 4) {
    code = tile[(quad % 4) * 64 + at] >> (quad / 4 * 4) & 15;
    tile += 4 * 64;
  }
  if (depth & 2) {
    code = code << 2 | (tile[(quad % 2) * 64 + at] >> (quad / 2 * 2) & 3);
    tile += 2 * 64;
  }
  if (depth & 1)
    code = code << 1 | (tile[at] >> quad & 1);
  return code;
}

/* Value of row r, column c of one tile of a trellis cell; before a tile that is not the cell's first lies the one to its left. */
static inline int32_t xb_trellis_value (const uint8_t *tile, uint32_t word_bits, uint32_t depth, const int8_t (*tables)[16], bool is_first, uint32_t r,
                                        uint32_t c)
{
  uint32_t place = (c + 1) * 16 + xb_chain_place (r), word = 0; /* counted from the column before the tile */
  for (uint32_t bit = 0; bit < word_bits; bit += depth, place--)
    if (place >= 16)
      word |= xb_tile_code (tile, depth, xb_chain_row (place % 16), place / 16 - 1) << bit;
    else if (!is_first)
      word |= xb_tile_code (tile - depth * 64, depth, xb_chain_row (place), 31) << bit;
  return xb_trellis_word (word_bits, depth, tables, word & ((1u << word_bits) - 1));
}

#endif
