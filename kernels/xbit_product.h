/* xbit_product.h: the walk over bands, panels and groups that every instruction set's products share. A run is a stretch of tiles of one
 * cell with its scales expanded: w = scale u + zero. What multiplies it is a run_function. The including file defines XB_VL. */
#ifndef XB_PRODUCT_H
#define XB_PRODUCT_H

#include <string.h>

#include "kernels/table.h"
#include "kernels/xbit_scales.h"

/* One vector's product waits for memory alone; hardware prefetchers stop at each page, so it asks for bytes this far ahead itself. */
enum { GROUP_CHUNK = 32, VECTOR_BLOCK = 64, AHEAD_BYTES = 16384 };

/* 32 activations none of which is larger are 0: the inverse of their scale would not be finite. */
#define LEAST_PEAK 1e-30f

typedef struct xb_run {
  const uint8_t *tiles;
  const int8_t (*tables)[16]; /* of a table or trellis cell, else NULL */
  const xb_grid *grid;      /* of a grid cell, and its values */
  const int8_t *values;
  const uint8_t *columns;   /* the same column by column, + 128: [dim][2^index_bits] */
  uint32_t depth, codebook, tile_bytes;
  float z, factor;          /* zero point; what the scales of a grid are multiplied with */
  uint32_t function;        /* of an EXL3 cell */
  uint32_t tile0, n_tiles;  /* in the whole row, of this run */
  bool is_first;            /* it begins where its cell does */
  uint32_t per_group;       /* tiles per group; 0: two groups in a tile (group 16) */
  const float *scale, *zero; /* [groups][16]: w = scale u + zero. NULL where they are left as they are stored: */
  const xb_layout *layout;
  const uint8_t *stored, *stored_offset;       /* [groups][16] */
  const uint16_t *super, *super_offset;        /* [256 columns][16] of the whole row */
  uint32_t n_groups;
  const uint8_t *ahead;     /* what will be needed soon, and how far that moves with each tile */
  uint32_t ahead_step;
} run;

/* Vectors as floats: those that are, or where `acts` is there the numbers that those stand for. */
typedef struct {
  const float *x;
  size_t ldx;
  uint32_t cols;
  const xb_acts *acts;
} float_vectors;

/* What tile t of a row meets of vector i, 32 numbers; beyond the last column they are 0. */
static inline const float *tile_inputs (const float_vectors *in, uint32_t i, uint32_t t, float local[32])
{
  if (in->acts) {
    const size_t at = (size_t) i * (in->acts->cols_padded / 32) + t;
    const vf scale = v_set (in->acts->scale[at]);
    for (uint32_t c = 0; c < 32; c += XB_VL)
      v_store (local + c, __builtin_convertvector (v_from_i8 (in->acts->q + at * 32 + c), vf) * scale);
    return local;
  }
  const float *x = in->x + i * in->ldx + t * 32;
  const uint32_t there = in->cols - t * 32;
  if (there >= 32)
    return x;
  memset (local, 0, 32 * sizeof (float));
  memcpy (local, x, there * sizeof (float));
  return local;
}

/* acc[n][16] += run times vectors i0 .. i0+n-1 of what the function knows as its vectors */
typedef void (*run_function) (const run *r, const void *vectors, uint32_t i0, uint32_t n, float *acc);

/* One band, its panels one after the other. */
typedef struct {
  const xb_matrix *m;
  uint32_t band, stripe, panel;
  const uint8_t *tiles; /* of this panel */
  uint32_t scale_step;
} band_walk;

static inline band_walk walk_begin (const xb_matrix *m, uint32_t band)
{
  uint32_t stripe = m->band_stripe[band];
  /* A band's scales lie behind its tiles: spreading them over the tiles keeps the asked-for bytes one steady stream through all bands. */
  return (band_walk) { m, band, stripe, 0, xb_band (m, band),
                       (uint32_t) (m->band_bytes[stripe] - m->tile_bytes[stripe]) / (xb_cols_padded (m->layout.cols) / 32) };
}

/* What there is of a panel; false where it is all 0. */
static inline bool walk_panel (const band_walk *w, run *r)
{
  const xb_layout *l = &w->m->layout;
  const xb_cell *cell = &l->cells[(size_t) w->stripe * l->n_panels + w->panel];
  if (cell->depth == 0)
    return false;
  *r = (run) { .tiles = w->tiles, .tables = cell->codebook == XB_TABLE || xb_is_trellis (cell->codebook) ? l->tables + cell->table : NULL, .depth = cell->depth,
               .codebook = cell->codebook, .tile_bytes = xb_tile_bytes (l, cell), .z = cell->codebook != XB_UNIFORM ? 128.0f : (float) cell->z2 * 0.5f, .function = cell->z2,
               .tile0 = xb_panel_begin (l, w->panel) / 32, .n_tiles = xb_panel_tiles (l, w->panel), .is_first = true, .n_groups = xb_panel_groups (l, w->panel), .layout = l };
  r->per_group = xb_scale_per_row (l) ? r->n_tiles : l->group / 32;
  r->ahead = r->tiles + AHEAD_BYTES + (size_t) r->tile0 * w->scale_step;
  r->ahead_step = r->tile_bytes + w->scale_step;
  if (cell->codebook == XB_GRID) {
    r->grid = &l->grids[cell->table];
    r->factor = xb_grid_factor (cell);
    r->values = l->grid_values + r->grid->offset;
    r->columns = w->m->grid_columns + r->grid->offset;
  }
  return true;
}

static inline void walk_next (band_walk *w)
{
  w->tiles += xb_cell_bytes (&w->m->layout, w->stripe, w->panel++);
}

/* The kinds of scales that a product reads as they are stored. */
static inline bool reads_stored (const xb_layout *l)
{
  return l->scale_kind <= XB_SCALE_GROUP_I8 && l->has_offset != XB_OFFSET_ZERO && l->n_grids == 0;
}

/* Calls f for each panel of one band, its scales left as they are stored. */
static inline void walk_stored (const xb_matrix *m, uint32_t band, const void *vectors, uint32_t i0, uint32_t n, float *acc, run_function f)
{
  const xb_layout *l = &m->layout;
  const size_t entry = l->scale_kind == XB_SCALE_GROUP_I8 ? 16 : 32, part = xb_scale_part (l, m->n_groups);
  const uint8_t *scales = band_scales (m, band), *offsets = scales + xb_offset_begin (l, m->n_groups);
  run r;
  for (band_walk w = walk_begin (m, band); w.panel < l->n_panels; walk_next (&w))
    if (walk_panel (&w, &r)) {
      r.stored = scales + m->panel_group[w.panel] * entry;
      r.super = (const uint16_t *) (const void *) (scales + part);
      if (l->has_offset) {
        r.stored_offset = offsets + m->panel_group[w.panel] * entry;
        r.super_offset = (const uint16_t *) (const void *) (offsets + part);
      }
      f (&r, vectors, i0, n, acc);
    }
}

/* Calls f for each stretch of at most GROUP_CHUNK groups of one band, its scales expanded. */
static void walk_expanded (const xb_matrix *m, uint32_t band, const void *vectors, uint32_t i0, uint32_t n, float *acc, run_function f)
{
  const xb_layout *l = &m->layout;
  float scale[GROUP_CHUNK * 16] __attribute__ ((aligned (64))), zero[GROUP_CHUNK * 16] __attribute__ ((aligned (64)));
  run whole;
  for (band_walk w = walk_begin (m, band); w.panel < l->n_panels; walk_next (&w)) {
    if (!walk_panel (&w, &whole))
      continue;
    const uint32_t step = whole.per_group;
    for (uint32_t g = 0; g < whole.n_groups; g += GROUP_CHUNK) {
      uint32_t count = whole.n_groups - g < GROUP_CHUNK ? whole.n_groups - g : GROUP_CHUNK;
      uint32_t first = step ? g * step : g / 2, last = step ? (g + count) * step : (g + count + 1) / 2;
      last = last < whole.n_tiles ? last : whole.n_tiles;
      expand_scales (m, band, m->panel_group[w.panel] + g, count, scale, l->has_offset ? zero : NULL);
      for (uint32_t i = 0; i < count * 16 && whole.grid; i++)
        scale[i] *= whole.factor;
      for (uint32_t i = 0; !l->has_offset && i < count * 16; i++)
        zero[i] = -whole.z * scale[i];
      if (!step && count % 2 && count < GROUP_CHUNK) { /* the row ends in the middle of a tile */
        memset (scale + count * 16, 0, 16 * sizeof (float));
        memset (zero + count * 16, 0, 16 * sizeof (float));
      }
      run r = whole;
      r.tiles += (size_t) first * r.tile_bytes;
      r.tile0 += first;
      r.is_first = first == 0;
      r.n_tiles = last - first;
      r.n_groups = count;
      r.scale = scale;
      r.zero = zero;
      f (&r, vectors, i0, n, acc);
    }
  }
}

/* Scales lie behind a band's tiles. Where these are long, asking for everything in the order in which it lies comes too late for the first of them: those of
 * the next band. */
static inline void ask_for_scales (const xb_matrix *m, uint32_t band)
{
  const uint32_t stripe = m->band_stripe[band];
  const uint8_t *scales = band_scales (m, band) + m->band_bytes[stripe];
  for (size_t i = 0, bytes = m->band_bytes[stripe] - m->tile_bytes[stripe]; i < bytes && m->tile_bytes[stripe] > AHEAD_BYTES / 2; i += 64)
    __builtin_prefetch (scales + i, 0, 2);
}

static inline void walk_vectors (const xb_matrix *m, const void *vectors, uint32_t n_vectors, float *y, size_t ldy, uint32_t row0, uint32_t row1, bool is_stored,
                                 run_function f)
{
  float acc[VECTOR_BLOCK * 16] __attribute__ ((aligned (64)));
  for (uint32_t i0 = 0; i0 < n_vectors; i0 += VECTOR_BLOCK) {
    uint32_t n = n_vectors - i0 < VECTOR_BLOCK ? n_vectors - i0 : VECTOR_BLOCK;
    for (uint32_t row = row0; row < row1; row += 16) {
      memset (acc, 0, n * 16 * sizeof (float));
      if (n_vectors == 1)
        ask_for_scales (m, row / 16);
      if (is_stored)
        walk_stored (m, row / 16, vectors, i0, n, acc, f);
      else
        walk_expanded (m, row / 16, vectors, i0, n, acc, f);
      for (uint32_t i = 0; i < n; i++)
        memcpy (y + (i0 + i) * ldy + row, acc + i * 16, (row1 - row < 16 ? row1 - row : 16) * sizeof (float));
    }
  }
}

static inline void walk_acts (const xb_matrix *m, const xb_acts *acts, uint32_t n_vectors, float *y, size_t ldy, uint32_t row0, uint32_t row1, run_function f)
{
  walk_vectors (m, acts, n_vectors, y, ldy, row0, row1, reads_stored (&m->layout), f);
}

#endif
