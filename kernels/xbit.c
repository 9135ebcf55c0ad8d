/* xbit.c: packing and unpacking of bands, rows as f32, and the public names of the products. */
#include "kernels/xbit.h"

#include <string.h>

#include "kernels/half.h"
#include "kernels/table.h"

#define XB_VL 4
#include "kernels/xbit_exl3.h"
#include "kernels/xbit_grid.h"
#include "kernels/xbit_scales.h"

static void pack_tile (uint8_t *tile, uint32_t depth, const uint8_t *codes, size_t stride)
{
  for (uint32_t r = 0; r < 16; r++)
    for (uint32_t c = 0; c < 32; c++) {
      uint32_t quad = c / 4, at = r * 4 + c % 4, code = codes[r * stride + c], shift = depth;
      uint8_t *plane = tile;
      if (depth == 8) {
        plane[quad * 64 + at] = (uint8_t) code;
        continue;
      }
      if (depth & 4) {
        shift -= 4;
        plane[(quad % 4) * 64 + at] |= (uint8_t) ((code >> shift & 15) << (quad / 4 * 4));
        plane += 4 * 64;
      }
      if (depth & 2) {
        shift -= 2;
        plane[(quad % 2) * 64 + at] |= (uint8_t) ((code >> shift & 3) << (quad / 2 * 2));
        plane += 2 * 64;
      }
      if (depth & 1)
        plane[at] |= (uint8_t) ((code & 1) << quad);
    }
}

static void put_half (uint8_t *out, size_t i, float f)
{
  uint16_t h = half_from (f);
  memcpy (out + i * 2, &h, 2);
}

static void pack_scale (uint8_t kind, uint8_t *out, size_t i, float scale)
{
  switch (kind) {
  case XB_SCALE_ROW_F16: case XB_SCALE_GROUP_F16: put_half (out, i, scale); break;
  case XB_SCALE_ROW_F32: case XB_SCALE_GROUP_F32: memcpy (out + i * 4, &scale, 4); break;
  case XB_SCALE_GROUP_I8: out[i] = (uint8_t) (int8_t) scale; break;
  case XB_SCALE_GROUP_E8M0: case XB_SCALE_GROUP_E4M3: out[i] = (uint8_t) scale; break;
  default: { /* two groups to a byte */
    const uint32_t shift = i / 16 % 2 * 4;
    uint8_t *byte = out + i / 32 * 16 + i % 16;
    *byte = (uint8_t) ((*byte & ~(15u << shift)) | (uint32_t) scale << shift);
  }
  }
}

/* One half of a band's scales: [group][16], then the super scales. */
static void pack_scales (const xb_layout *l, uint32_t n_groups, uint8_t *out, const float *scale, const float *super)
{
  for (size_t i = 0; i < (size_t) n_groups * 16; i++)
    pack_scale (l->scale_kind, out, i, scale[i]);
  out += xb_scale_part (l, n_groups);
  const size_t supers = (size_t) xb_supers (l, n_groups) * (l->scale_kind == XB_SCALE_GROUP_SQUARE ? 1 : 16);
  for (size_t i = 0; i < supers; i++)
    if (l->scale_kind == XB_SCALE_GROUP_E4M3)
      memcpy (out + i * 4, &super[i], 4);
    else
      put_half (out, i, super[i]);
}

/* Everything xb_pack_band needs of a blob that xb_matrix_init made. */
static uint8_t *find_band (uint8_t *data, const xb_layout *l, const uint64_t *stripe_offset, uint32_t n_groups, uint32_t band, uint32_t *stripe)
{
  uint32_t s = 0;
  while (l->stripe_end[s] <= band * 16)
    s++;
  size_t tiles = xb_tiles_before (l, s, l->n_panels);
  size_t bytes = tiles + xb_scale_bytes (l, n_groups);
  *stripe = s;
  return data + stripe_offset[s] + (band - (s ? l->stripe_end[s - 1] : 0) / 16) * bytes;
}

xb_error xb_pack_band (void *data, size_t size, uint32_t band, const uint8_t *codes, const float *scale, const float *offset, const float *super,
                       const float *super_offset)
{
  xb_layout l;
  const uint64_t *stripe_offset = xb_blob_layout (data, size, &l);
  if (!stripe_offset || band >= xb_bands (&l))
    return "a band is packed into something that is no X-bit matrix";
  uint32_t stripe, n_groups = xb_layout_groups (&l);
  uint8_t *out = find_band (data, &l, stripe_offset, n_groups, band, &stripe);
  size_t stride = xb_cols_padded (l.cols);
  for (uint32_t p = 0; p < l.n_panels; p++) {
    const xb_cell *cell = &l.cells[(size_t) stripe * l.n_panels + p];
    uint32_t depth = cell->depth, begin = xb_panel_begin (&l, p), bytes = xb_tile_bytes (&l, cell);
    memset (out, 0, xb_cell_bytes (&l, stripe, p));
    for (uint32_t t = 0; t < xb_panel_tiles (&l, p) && depth; t++)
      if (cell->codebook == XB_GRID)
        pack_grid_tile (&l.grids[cell->table], out + (size_t) t * bytes, codes + begin + t * 32, stride);
      else if (cell->codebook == XB_EXL3)
        pack_exl3_tile (out + (size_t) t * bytes, depth, codes + begin + t * 32, stride);
      else
        pack_tile (out + (size_t) t * bytes, depth, codes + begin + t * 32, stride);
    out += xb_cell_bytes (&l, stripe, p);
  }
  pack_scales (&l, n_groups, out, scale, super);
  out += xb_offset_begin (&l, n_groups);
  if (l.has_offset == XB_OFFSET_STORED)
    pack_scales (&l, n_groups, out, offset, super_offset);
  for (size_t i = 0; i < (size_t) n_groups * 16 && l.has_offset == XB_OFFSET_ZERO; i++)
    out[i] = (uint8_t) offset[i];
  return NULL;
}

xb_error xb_scale_rows (void *data, size_t size, uint32_t row0, uint32_t row1, const float *factor)
{
  xb_layout l;
  const uint64_t *stripe_offset = xb_blob_layout (data, size, &l);
  if (!stripe_offset || row0 % 16 != 0 || row1 > l.rows)
    return "rows of something that is no X-bit matrix are scaled";
  if (l.scale_kind > XB_SCALE_GROUP_I8 || l.has_offset)
    return "rows of a matrix without scales of 16 bits, or with offsets, are scaled";
  uint32_t n_groups = xb_layout_groups (&l), n_halves = l.scale_kind == XB_SCALE_GROUP_I8 ? xb_supers (&l, n_groups) : n_groups;
  for (uint32_t row = row0; row < row1; row += 16) {
    uint32_t stripe;
    uint8_t *scale = find_band (data, &l, stripe_offset, n_groups, row / 16, &stripe) + xb_tiles_before (&l, stripe, l.n_panels);
    scale += l.scale_kind == XB_SCALE_GROUP_I8 ? xb_scale_part (&l, n_groups) : 0;
    for (uint32_t g = 0; g < n_halves; g++)
      for (uint32_t r = 0; r < 16 && row + r < row1; r++) {
        uint16_t half;
        memcpy (&half, scale + (g * 16 + r) * 2, 2);
        put_half (scale, g * 16 + r, xb_half_to_float (half) * factor[row + r - row0]);
      }
  }
  return NULL;
}

void xb_unpack_band (const xb_matrix *m, uint32_t band, uint8_t *codes, float *scale, float *offset)
{
  const xb_layout *l = &m->layout;
  const uint8_t *tile = xb_band (m, band);
  uint32_t stripe = m->band_stripe[band];
  size_t stride = xb_cols_padded (l->cols);
  memset (codes, 0, stride * 16);
  for (uint32_t p = 0; p < l->n_panels; p++) {
    const xb_cell *cell = &l->cells[(size_t) stripe * l->n_panels + p];
    uint32_t begin = xb_panel_begin (l, p), bytes = xb_tile_bytes (l, cell);
    for (uint32_t t = 0; t < xb_panel_tiles (l, p) && cell->depth; t++) {
      uint8_t *out = codes + begin + t * 32;
      if (cell->codebook == XB_GRID)
        unpack_grid_tile (&l->grids[cell->table], tile + (size_t) t * bytes, out, stride);
      else if (cell->codebook == XB_EXL3)
        unpack_exl3_tile (tile + (size_t) t * bytes, cell->depth, out, stride);
      else
        for (uint32_t r = 0; r < 16; r++)
          for (uint32_t c = 0; c < 32; c++)
            out[r * stride + c] = (uint8_t) xb_tile_code (tile + (size_t) t * bytes, cell->depth, r, c);
    }
    tile += xb_cell_bytes (l, stripe, p);
  }
  expand_scales (m, band, 0, m->n_groups, scale, NULL);
  if (offset)
    stored_offsets (m, band, 0, m->n_groups, offset);
}

/* Each table is looked up with four bits: of code 0, the newest, and some before it, mixed with older ones by exclusive or. Words of 16 bits have longer mixtures. */
int32_t xb_trellis_word (uint32_t word_bits, uint32_t depth, const int8_t (*tables)[16], uint32_t w)
{
  const bool is_long = word_bits > XB_WORD_BITS;
  uint32_t index[3] = { 0 };
  switch (depth) {
  case 1: /* codes 0 to 3, 8 to 11 */
  case 2: /* codes 0 and 1, 2 and 3, 4 and 5, 6 and 7 */
    index[0] = is_long ? w ^ w >> 8 : w;
    index[1] = is_long ? w ^ w >> 4 ^ w >> 12 : w ^ w >> 8;
    break;
  case 3: /* the upper two bits of codes 0 and 1, of 2 and 3, of 4; the lowest bits of codes 0 to 3, of 4 and 5 */
    index[0] = (w >> 1 & 3) | (w >> 4 & 3) << 2;
    index[1] = (w & 1) | (w >> 3 & 1) << 1 | (w >> 6 & 1) << 2 | (w >> 9 & 1) << 3;
    index[1] ^= (w >> 7 & 3) | (w >> 10 & 3) << 2;
    if (is_long) {
      index[0] ^= w >> 13 & 3;
      index[1] ^= (w >> 12 & 1) | (w >> 15 & 1) << 1;
    }
    break;
  case 4: /* codes 0, 1, 2, 3 */
    index[0] = is_long ? w ^ w >> 8 : w;
    index[1] = is_long ? w ^ w >> 4 ^ w >> 12 : w ^ w >> 4 ^ w >> 8;
    break;
  case 5: /* the upper and the lower four bits of code 0; the upper four of code 1 mixed with the lower two of code 2; the upper four of code 2 */
    index[0] = is_long ? w >> 1 ^ w >> 11 : w >> 1;
    index[1] = w;
    index[2] = w >> 6 ^ (w >> 10 & 3);
    break;
  default: /* the upper four bits of code 0, the lower two of codes 0 and 1, the upper four of code 1 */
    index[0] = w >> 2;
    index[1] = (w & 3) | (w >> 6 & 3) << 2;
    index[2] = w >> 8;
  }
  uint32_t sum = 0;
  for (uint32_t k = 0; k < xb_trellis_tables (depth); k++)
    sum += (uint32_t) tables[k][index[k] & 15];
  return (int8_t) (uint8_t) sum;
}

static float sum_of_halves (uint32_t x)
{
  x = (x & 0x8fff8fffu) ^ 0x3b603b60u;
  return xb_round_scale (half_to ((uint16_t) x) + half_to ((uint16_t) (x >> 16)));
}

float xb_exl3_value (xb_exl3_function function, uint32_t bits)
{
  switch (function) {
  case XB_EXL3_3INST: return sum_of_halves (bits * 89226354u + 64248484u);
  case XB_EXL3_MCG: return sum_of_halves (bits * 0xcbac1fedu);
  default: {
    const uint32_t x = bits * 0x83dcd12du, sum = (x & 255) + (x >> 8 & 255) + (x >> 16 & 255) + (x >> 24);
    return xb_round_scale ((float) (1024 + sum) * half_to (0x1eee) + half_to (0xc931)); /* exact before it is rounded */
  }
  }
}

typedef uint8_t four_bytes __attribute__ ((vector_size (4)));
typedef float four_floats __attribute__ ((vector_size (16)));

/* Rows r0..r1-1 of a tile's values, biased by 128, of which `width` columns are there. */
static void dequantize_values (const uint8_t *expanded, uint32_t r0, uint32_t r1, uint32_t width, const float *scale, float *out, size_t stride)
{
  for (uint32_t r = r0; r < r1; r++, out += stride) {
    four_floats row[8];
    for (uint32_t quad = 0; quad < 8; quad++) {
      four_bytes bytes;
      memcpy (&bytes, expanded + quad * 64 + r * 4, sizeof bytes);
      row[quad] = scale[r] * (__builtin_convertvector (bytes, four_floats) - 128);
    }
    memcpy (out, row, width * sizeof *out);
  }
}

/* Rows r0..r1-1 of a tile's floats [32][16]. */
static void scale_floats (const float *w, uint32_t r0, uint32_t r1, uint32_t width, const float *scale, float *out, size_t stride)
{
  for (uint32_t r = r0; r < r1; r++, out += stride)
    for (uint32_t c = 0; c < width; c++)
      out[c] = scale[r] * w[c * 16 + r];
}

static void dequantize_band (const xb_matrix *m, uint32_t band, uint32_t r0, uint32_t r1, float *out)
{
  const xb_layout *l = &m->layout;
  const uint8_t *tile = xb_band (m, band);
  uint32_t stripe = m->band_stripe[band];
  float scale[16], offset[16], value[256];
  uint8_t expanded[512] __attribute__ ((aligned (64)));
  float floats[512] __attribute__ ((aligned (64)));
  for (uint32_t p = 0; p < l->n_panels; p++) {
    const xb_cell *cell = &l->cells[(size_t) stripe * l->n_panels + p];
    uint32_t begin = xb_panel_begin (l, p), end = l->panel_end[p], depth = cell->depth;
    uint32_t width = xb_scale_per_row (l) ? end - begin : l->group, group = UINT32_MAX;
    if (depth == 0) {
      for (uint32_t r = r0; r < r1; r++)
        memset (out + (size_t) (r - r0) * l->cols + begin, 0, (end - begin) * sizeof (float));
      continue;
    }
    for (uint32_t u = 0; u < 256 && cell->codebook <= XB_GRID; u++)
      value[u] = cell->codebook == XB_TABLE ? (float) l->tables[cell->table][u % 16] : (float) u - (cell->codebook == XB_GRID ? 128 : (float) cell->z2 * 0.5f);
    for (uint32_t c = begin; c < end; c++) {
      uint32_t g = m->panel_group[p] + (c - begin) / width;
      if (g != group) {
        expand_scales (m, band, g, 1, scale, NULL);
        stored_offsets (m, band, g, 1, offset);
        for (uint32_t r = 0; r < 16 && cell->codebook == XB_GRID; r++)
          scale[r] *= xb_grid_factor (cell);
        group = g;
      }
      const uint8_t *at = tile + (size_t) ((c - begin) / 32) * xb_tile_bytes (l, cell);
      if (xb_is_trellis (cell->codebook)) { /* a group is whole tiles, or what is left of the panel */
        const uint32_t there = end - c < 32 ? end - c : 32;
        xb_table_get ()->product.trellis_tile (at, cell->codebook, cell->depth, l->tables + cell->table, c == begin, expanded);
        dequantize_values (expanded, r0, r1, there, scale, out + c, l->cols);
        c += there - 1;
        continue;
      }
      if (cell->codebook == XB_EXL3) {
        const uint32_t there = end - c < 32 ? end - c : 32;
        xb_table_get ()->product.exl3_tile (at, cell->depth, cell->z2, floats);
        scale_floats (floats, r0, r1, there, scale, out + c, l->cols);
        c += there - 1;
        continue;
      }
      if (cell->codebook == XB_GRID) {
        if ((c - begin) % 32 == 0)
          expand_grid_tile (&l->grids[cell->table], l->grid_values + l->grids[cell->table].offset, at, expanded);
        at = expanded;
        depth = 8;
      }
      for (uint32_t r = r0; r < r1; r++) {
        float v = value[xb_tile_code (at, depth, r, (c - begin) % 32)];
        v = scale[r] * (l->has_offset == XB_OFFSET_ZERO ? v - offset[r] : v);
        out[(size_t) (r - r0) * l->cols + c] = l->has_offset == XB_OFFSET_STORED ? v + offset[r] : v;
      }
    }
    tile += xb_cell_bytes (l, stripe, p);
  }
}

void xb_dequantize_rows (const xb_matrix *m, uint32_t row0, uint32_t row1, float *out)
{
  for (uint32_t row = row0; row < row1;) {
    uint32_t band = row / 16, end = (band + 1) * 16 < row1 ? (band + 1) * 16 : row1;
    dequantize_band (m, band, row % 16, end - band * 16, out);
    out += (size_t) (end - row) * m->layout.cols;
    row = end;
  }
}

void xb_matvec (const xb_matrix *m, const xb_acts *acts, float *y, uint32_t row0, uint32_t row1)
{
  xb_table_get ()->product.matvec (m, acts, y, row0, row1);
}

void xb_matmul (const xb_matrix *m, const xb_acts *acts, float *y, size_t ldy, uint32_t row0, uint32_t row1)
{
  if (acts->n == 1)
    xb_table_get ()->product.matvec (m, acts, y, row0, row1);
  else
    xb_table_get ()->product.matmul (m, acts, y, ldy, row0, row1);
}

void xb_matmul_f32 (const xb_matrix *m, const float *x, size_t ldx, uint32_t n, float *y, size_t ldy, uint32_t row0, uint32_t row1)
{
  xb_table_get ()->product.matmul_f32 (m, x, ldx, n, y, ldy, row0, row1);
}
