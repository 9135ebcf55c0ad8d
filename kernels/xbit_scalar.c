/* xbit_scalar.c: the reference products, plain C: the integer is sum u x of a tile (or half tile), exactly. */
#include <math.h>

#define XB_VL 4
#include "kernels/xbit_exl3.h"
#include "kernels/xbit_grid.h"
#include "kernels/xbit_product.h"

static void acts_quantize (xb_acts *acts, uint32_t i, const float *x, int bits)
{
  int8_t *q = acts->q + (size_t) i * acts->cols_padded;
  float limit = bits == 4 ? 7.0f : 127.0f;
  for (uint32_t t = 0; t < acts->cols_padded / 32; t++) {
    size_t tile = (size_t) i * (acts->cols_padded / 32) + t;
    uint32_t begin = t * 32, n = acts->cols - begin < 32 ? acts->cols - begin : 32;
    float peak = 0;
    for (uint32_t c = 0; c < n; c++)
      peak = fabsf (x[begin + c]) > peak ? fabsf (x[begin + c]) : peak;
    float scale = peak / limit, inverse = peak > LEAST_PEAK ? limit / peak : 0;
    int32_t sums[2] = { 0, 0 };
    for (uint32_t c = 0; c < 32; c++) {
      int v = c < n ? (int) lrintf (x[begin + c] * inverse) : 0;
      q[begin + c] = (int8_t) v;
      sums[c / 16] += v;
    }
    acts->scale[tile] = scale;
    for (int h = 0; h < 2; h++) {
      acts->sum[tile * 2 + h] = (int16_t) sums[h];
      acts->sum16[tile * 2 + h] = scale * (float) sums[h];
    }
    acts->sum32[tile] = scale * (float) (sums[0] + sums[1]);
  }
}

/* What tables, trellises and grids yield is biased by 128, so that every code is an unsigned byte u. */
static int32_t code_at (const uint8_t *tile, const run *r, uint32_t row, uint32_t c)
{
  uint32_t u = xb_tile_code (tile, r->codebook >= XB_GRID ? 8 : r->depth, row, c);
  return r->codebook == XB_TABLE ? r->tables[0][u] + 128 : (int32_t) u;
}

static int32_t product (const uint8_t *tile, const run *r, const int8_t *x, uint32_t row, uint32_t begin, uint32_t end)
{
  int32_t sum = 0;
  for (uint32_t c = begin; c < end; c++)
    sum += code_at (tile, r, row, c) * x[c];
  return sum;
}

static void trellis_tile (const uint8_t *tile, uint32_t codebook, uint32_t depth, const int8_t (*tables)[16], bool is_first, uint8_t *out)
{
  for (uint32_t row = 0; row < 16; row++)
    for (uint32_t c = 0; c < 32; c++)
      out[c / 4 * 64 + row * 4 + c % 4] = (uint8_t) (xb_trellis_value (tile, xb_word_bits (codebook), depth, tables, is_first, row, c) + 128);
}

/* Tile t of a run, that of a grid or trellis as one of depth 8. */
static const uint8_t *expand_tile (const run *r, uint32_t t, uint8_t expanded[512])
{
  const uint8_t *tile = r->tiles + (size_t) t * r->tile_bytes;
  if (r->codebook < XB_GRID)
    return tile;
  if (r->codebook == XB_GRID)
    expand_grid_tile (r->grid, r->values, tile, expanded);
  else
    trellis_tile (tile, r->codebook, r->depth, r->tables, r->is_first && t == 0, expanded);
  return expanded;
}

static void exl3_tile (const uint8_t *tile, uint32_t depth, uint32_t function, float *w)
{
  for (uint32_t c = 0; c < 32; c++)
    for (uint32_t row = 0; row < 16; row++)
      w[c * 16 + row] = xb_exl3_value ((xb_exl3_function) function, exl3_state (tile, depth, row, c));
}

static void run_exl3_acts (const run *r, const xb_acts *acts, uint32_t i0, uint32_t n, float *acc);

static void cells (const run *r, const void *vectors, uint32_t i0, uint32_t n, float *acc)
{
  const xb_acts *acts = vectors;
  uint32_t row_tiles = acts->cols_padded / 32;
  if (r->codebook == XB_EXL3) {
    run_exl3_acts (r, acts, i0, n, acc);
    return;
  }
  for (uint32_t t = 0; t < r->n_tiles; t++) {
    uint8_t expanded[512] __attribute__ ((aligned (64)));
    const uint8_t *tile = expand_tile (r, t, expanded);
    for (uint32_t i = 0; i < n; i++) {
      size_t at = (size_t) (i0 + i) * row_tiles + r->tile0 + t;
      const int8_t *x = acts->q + at * 32;
      for (uint32_t row = 0; row < 16; row++) {
        if (r->per_group) {
          size_t g = (size_t) (t / r->per_group) * 16 + row;
          acc[i * 16 + row] += acts->scale[at] * (float) product (tile, r, x, row, 0, 32) * r->scale[g] + acts->sum32[at] * r->zero[g];
          continue;
        }
        for (uint32_t h = 0; h < 2; h++) {
          size_t g = (size_t) (t * 2 + h) * 16 + row;
          acc[i * 16 + row] += acts->scale[at] * (float) product (tile, r, x, row, h * 16, h * 16 + 16) * r->scale[g] + acts->sum16[at * 2 + h] * r->zero[g];
        }
      }
    }
  }
}

static void matvec (const xb_matrix *m, const xb_acts *acts, float *y, uint32_t row0, uint32_t row1)
{
  walk_vectors (m, acts, 1, y, 0, row0, row1, false, cells);
}

static void matmul (const xb_matrix *m, const xb_acts *acts, float *y, size_t ldy, uint32_t row0, uint32_t row1)
{
  walk_vectors (m, acts, acts->n, y, ldy, row0, row1, false, cells);
}

static void tile_bytes (const run *r, uint32_t t, uint8_t *out)
{
  uint8_t expanded[512] __attribute__ ((aligned (64)));
  const uint8_t *tile = expand_tile (r, t, expanded);
  for (uint32_t row = 0; row < 16; row++)
    for (uint32_t c = 0; c < 32; c++)
      out[c / 4 * 64 + row * 4 + c % 4] = (uint8_t) code_at (tile, r, row, c);
}

#include "kernels/xbit_f32_tmpl.h"

void xb_product_init_scalar (xb_product_table *t)
{
  *t = (xb_product_table) { .acts_quantize = acts_quantize, .matvec = matvec, .matmul = matmul, .matmul_f32 = matmul_f32, .trellis_tile = trellis_tile,
                            .exl3_tile = exl3_tile };
}
