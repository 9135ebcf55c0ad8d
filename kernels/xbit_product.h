/* xbit_product.h: the walk over bands, panels and groups that every instruction set's products share. A run is a stretch of tiles of one
 * cell with its scales expanded: w = scale u + zero. What multiplies it is a run_function. The including file defines XB_VL. */
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
  uint32_t depth, codebook, n_tables, tile_bytes;
  uint32_t tile0, n_tiles;  /* in the whole row, of this run */
  uint32_t per_group;       /* tiles per group; 0: two groups in a tile (group 16) */
  const float *scale, *zero; /* [groups][16] */
  const uint8_t *ahead;     /* what one vector's product will need soon, and how far that moves with each tile */
  uint32_t ahead_step;
} run;

/* acc[n][16] += run times vectors i0 .. i0+n-1 of what the function knows as its vectors */
typedef void (*run_function) (const run *r, const void *vectors, uint32_t i0, uint32_t n, float *acc);

/* Calls f for each stretch of at most GROUP_CHUNK groups of one band. */
static void walk_band (const xb_matrix *m, uint32_t band, const void *vectors, uint32_t i0, uint32_t n, float *acc, run_function f)
{
  const xb_layout *l = &m->layout;
  uint32_t stripe = m->band_stripe[band];
  const uint8_t *tiles = xb_band (m, band);
  /* A band's scales lie behind its tiles: spreading them over the tiles keeps the asked-for bytes one steady stream through all bands. */
  const uint32_t scale_step = (uint32_t) (m->band_bytes[stripe] - m->tile_bytes[stripe]) / (xb_cols_padded (l->cols) / 32);
  float scale[GROUP_CHUNK * 16] __attribute__ ((aligned (64))), zero[GROUP_CHUNK * 16] __attribute__ ((aligned (64)));
  for (uint32_t p = 0; p < l->n_panels; p++) {
    const xb_cell *cell = &l->cells[(size_t) stripe * l->n_panels + p];
    uint32_t n_tiles = xb_panel_tiles (l, p), n_groups = xb_panel_groups (l, p);
    if (cell->depth == 0)
      continue;
    run r = { .tables = cell->codebook == XB_TABLE || cell->codebook == XB_TRELLIS ? l->tables + cell->table : NULL, .depth = cell->depth,
              .codebook = cell->codebook, .n_tables = cell->codebook == XB_TRELLIS ? cell->z2 : 1, .tile_bytes = xb_tile_bytes (l, cell) };
    if (cell->codebook == XB_GRID) {
      r.grid = &l->grids[cell->table];
      r.values = l->grid_values + r.grid->offset;
      r.columns = m->grid_columns + r.grid->offset;
    }
    uint32_t step = xb_scale_per_row (l) ? n_tiles : l->group / 32;
    float z = cell->codebook != XB_UNIFORM ? 128.0f : (float) cell->z2 * 0.5f;
    for (uint32_t g = 0; g < n_groups; g += GROUP_CHUNK) {
      uint32_t count = n_groups - g < GROUP_CHUNK ? n_groups - g : GROUP_CHUNK;
      uint32_t first = step ? g * step : g / 2, last = step ? (g + count) * step : (g + count + 1) / 2;
      last = last < n_tiles ? last : n_tiles;
      expand_scales (m, band, m->panel_group[p] + g, count, scale, l->has_offset ? zero : NULL);
      for (uint32_t i = 0; i < count * 16 && cell->codebook == XB_GRID; i++)
        scale[i] *= xb_grid_factor (cell);
      if (!l->has_offset)
        for (uint32_t i = 0; i < count * 16; i++)
          zero[i] = -z * scale[i];
      if (!step && count % 2 && count < GROUP_CHUNK) { /* the row ends in the middle of a tile */
        memset (scale + count * 16, 0, 16 * sizeof (float));
        memset (zero + count * 16, 0, 16 * sizeof (float));
      }
      r.tiles = tiles + (size_t) first * r.tile_bytes;
      r.tile0 = xb_panel_begin (l, p) / 32 + first;
      r.n_tiles = last - first;
      r.ahead = r.tiles + AHEAD_BYTES + (size_t) r.tile0 * scale_step;
      r.ahead_step = r.tile_bytes + scale_step;
      r.per_group = step;
      r.scale = scale;
      r.zero = zero;
      f (&r, vectors, i0, n, acc);
    }
    tiles += xb_cell_bytes (l, stripe, p);
  }
}

static void walk_matvec (const xb_matrix *m, const xb_acts *acts, float *y, uint32_t row0, uint32_t row1, run_function f)
{
  for (uint32_t row = row0; row < row1; row += 16) {
    float acc[16] __attribute__ ((aligned (64))) = { 0 };
    walk_band (m, row / 16, acts, 0, 1, acc, f);
    memcpy (y + row, acc, (row1 - row < 16 ? row1 - row : 16) * sizeof (float));
  }
}

static void walk_matmul (const xb_matrix *m, const void *vectors, uint32_t n_vectors, float *y, size_t ldy, uint32_t row0, uint32_t row1,
                         run_function f)
{
  float acc[VECTOR_BLOCK * 16] __attribute__ ((aligned (64)));
  for (uint32_t i0 = 0; i0 < n_vectors; i0 += VECTOR_BLOCK) {
    uint32_t n = n_vectors - i0 < VECTOR_BLOCK ? n_vectors - i0 : VECTOR_BLOCK;
    for (uint32_t row = row0; row < row1; row += 16) {
      memset (acc, 0, n * 16 * sizeof (float));
      walk_band (m, row / 16, vectors, i0, n, acc, f);
      for (uint32_t i = 0; i < n; i++)
        memcpy (y + (i0 + i) * ldy + row, acc + i * 16, (row1 - row < 16 ? row1 - row : 16) * sizeof (float));
    }
  }
}
