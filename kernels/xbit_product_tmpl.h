/* xbit_product_tmpl.h: the SIMD products, one source per instruction set. The including file defines the vocabulary:
 *   xi, XI_HALVES                      a vector of codes; how many make a quad of 64 codes (1: 512 bits, 2: 256)
 *   xi_load, xi_store, xi_and, xi_or, xi_xor, XI_LEFT, XI_RIGHT (16-bit shifts by a constant), xi_set, xi_lookup (16-entry table)
 *   XI_TABLE_FLIP                      what turns a looked-up byte into the table's entry + 128
 *   xacc                               int32 lanes, one per row of the half; XACC_START (depth, codebook, sum of x): where it begins, so
 *                                      that a product of signed codes ends at sum u x as well
 *   QUADS_DOT (acc, codes[8], q[32], depth, codebook, q0, q1): acc += sum over quads q0..q1-1 of codes . x, one half
 *   xf, xf_load, xf_store, xf_set, xf_add, xf_fma (a, b, c), xf_mul, xf_from (xacc)
 * Every function below is instantiated with depth, codebook and the group-16 flag as constants. */
#include "kernels/xbit_product.h"

#define ALWAYS static inline __attribute__ ((always_inline))

enum { HALF_ROWS = 16 / XI_HALVES };

/* The codes of half `h` of a tile, as bytes u (a table's entries biased by 128 where the product wants that). */
ALWAYS void decode (xi codes[8], const uint8_t *tile, const int depth, const int codebook, const xi *table, int h)
{
  const uint8_t *line = tile + h * (64 / XI_HALVES);
  if (depth == 8) {
    for (int q = 0; q < 8; q++)
      codes[q] = xi_load (line + q * 64);
    return;
  }
  const int low = depth & 3; /* bits below the 4-bit plane */
  for (int q = 0; q < 8; q++)
    codes[q] = xi_set (0);
  if (depth & 4) {
    const xi mask = xi_set ((char) (15 << low));
    for (int i = 0; i < 4; i++) {
      xi v = xi_load (line + i * 64);
      codes[i] = xi_and (low ? XI_LEFT (v, low) : v, mask);
      codes[i + 4] = xi_and (XI_RIGHT (v, 4 - low), mask);
    }
    line += 4 * 64;
  }
  if (depth & 2) {
    const int shift = depth & 1;
    const xi mask = xi_set ((char) (3 << shift));
    for (int i = 0; i < 2; i++) {
      xi v = xi_load (line + i * 64);
      codes[i] = xi_or (codes[i], xi_and (shift ? XI_LEFT (v, shift) : v, mask));
      codes[i + 2] = xi_or (codes[i + 2], xi_and (XI_RIGHT (v, 2 - shift), mask));
      codes[i + 4] = xi_or (codes[i + 4], xi_and (XI_RIGHT (v, 4 - shift), mask));
      codes[i + 6] = xi_or (codes[i + 6], xi_and (XI_RIGHT (v, 6 - shift), mask));
    }
    line += 2 * 64;
  }
  if (depth & 1) {
    const xi mask = xi_set (1);
    xi v = xi_load (line);
    codes[0] = xi_or (codes[0], xi_and (v, mask));
    codes[1] = xi_or (codes[1], xi_and (XI_RIGHT (v, 1), mask));
    codes[2] = xi_or (codes[2], xi_and (XI_RIGHT (v, 2), mask));
    codes[3] = xi_or (codes[3], xi_and (XI_RIGHT (v, 3), mask));
    codes[4] = xi_or (codes[4], xi_and (XI_RIGHT (v, 4), mask));
    codes[5] = xi_or (codes[5], xi_and (XI_RIGHT (v, 5), mask));
    codes[6] = xi_or (codes[6], xi_and (XI_RIGHT (v, 6), mask));
    codes[7] = xi_or (codes[7], xi_and (XI_RIGHT (v, 7), mask));
  }
  if (codebook == XB_TABLE)
    for (int q = 0; q < 8; q++)
      codes[q] = xi_lookup (*table, codes[q]);
}

/* acc += scale * (xs * sum u x) + zero * (xs * sum x), one tile, one vector of activations. */
ALWAYS void multiply (const xi codes[8], const int depth, const int codebook, const int split, const int8_t *x, const int16_t *sum,
                      float xs, const float *sums, const xf *scale, const xf *zero, xf *acc)
{
  if (split) {
    xacc lo = XACC_START (depth, codebook, sum[0]), hi = XACC_START (depth, codebook, sum[1]);
    QUADS_DOT (lo, codes, x, depth, codebook, 0, 4);
    QUADS_DOT (hi, codes, x, depth, codebook, 4, 8);
    *acc = xf_fma (xf_mul (xf_from (lo), xf_set (xs)), scale[0], *acc);
    *acc = xf_fma (zero[0], xf_set (sums[0]), *acc);
    *acc = xf_fma (xf_mul (xf_from (hi), xf_set (xs)), scale[1], *acc);
    *acc = xf_fma (zero[1], xf_set (sums[1]), *acc);
    return;
  }
  xacc total = XACC_START (depth, codebook, sum[0] + sum[1]);
  QUADS_DOT (total, codes, x, depth, codebook, 0, 8);
  *acc = xf_fma (xf_mul (xf_from (total), xf_set (xs)), scale[0], *acc);
  *acc = xf_fma (zero[0], xf_set (sums[0]), *acc);
}

/* The place of one tile among the scales: its group, counted without a division. */
typedef struct {
  uint32_t group, left;
} place;

ALWAYS void next_tile (place *p, uint32_t per_group, const int split)
{
  if (split)
    p->group += 2;
  else if (--p->left == 0) {
    p->group++;
    p->left = per_group;
  }
}

/* n vectors by one run of tiles: each tile is decoded once and used for all of them. */
ALWAYS void cells_many (const run *r, const xb_acts *acts, uint32_t i0, uint32_t n, float *acc, const int depth, const int codebook, const int split)
{
  const uint32_t row_tiles = acts->cols_padded / 32, stride = split ? 2 : 1;
  const float *all_sums = split ? acts->sum16 : acts->sum32;
  const xi table = codebook == XB_TABLE ? xi_table (r->table) : xi_set (0);
  place at = { 0, r->per_group };
  for (uint32_t t = 0; t < r->n_tiles; t++, next_tile (&at, r->per_group, split)) {
    const size_t first = (size_t) i0 * row_tiles + r->tile0 + t;
    for (int h = 0; h < XI_HALVES; h++) {
      xi codes[8];
      decode (codes, r->tiles + (size_t) t * depth * 64, depth, codebook, &table, h);
      const float *s = r->scale + at.group * 16 + h * HALF_ROWS, *z = r->zero + at.group * 16 + h * HALF_ROWS;
      const xf scale[2] = { xf_load (s), xf_load (split ? s + 16 : s) }, zero[2] = { xf_load (z), xf_load (split ? z + 16 : z) };
      float *out = acc + h * HALF_ROWS;
      for (uint32_t i = 0; i < n; i++) {
        const size_t tile = first + (size_t) i * row_tiles;
        xf y = xf_load (out + i * 16);
        multiply (codes, depth, codebook, split, acts->q + tile * 32, acts->sum + tile * 2, acts->scale[tile], all_sums + tile * stride, scale, zero, &y);
        xf_store (out + i * 16, y);
      }
    }
  }
}

/* The same for the first vector alone: the sum stays in registers, even and odd tiles apart. */
ALWAYS void cells_one (const run *r, const xb_acts *acts, float *acc, const int depth, const int codebook, const int split)
{
  const uint32_t stride = split ? 2 : 1;
  const float *all_sums = split ? acts->sum16 : acts->sum32;
  const xi table = codebook == XB_TABLE ? xi_table (r->table) : xi_set (0);
  xf y[XI_HALVES][2];
  for (int h = 0; h < XI_HALVES; h++) {
    y[h][0] = xf_load (acc + h * HALF_ROWS);
    y[h][1] = xf_set (0);
  }
  place at = { 0, r->per_group };
  for (uint32_t t = 0; t < r->n_tiles; t++, next_tile (&at, r->per_group, split)) {
    const size_t tile = r->tile0 + t;
    const uint8_t *ahead = r->ahead + (size_t) t * r->ahead_step;
    for (int line = 0; line <= depth; line++)
      __builtin_prefetch (ahead + line * 64, 0, 2); /* into L2: the first level has too few buffers for misses */
    for (int h = 0; h < XI_HALVES; h++) {
      xi codes[8];
      decode (codes, r->tiles + (size_t) t * depth * 64, depth, codebook, &table, h);
      const float *s = r->scale + at.group * 16 + h * HALF_ROWS, *z = r->zero + at.group * 16 + h * HALF_ROWS;
      const xf scale[2] = { xf_load (s), xf_load (split ? s + 16 : s) }, zero[2] = { xf_load (z), xf_load (split ? z + 16 : z) };
      multiply (codes, depth, codebook, split, acts->q + tile * 32, acts->sum + tile * 2, acts->scale[tile], all_sums + tile * stride, scale, zero, &y[h][0]);
    }
    for (int h = 0; h < XI_HALVES; h++) {
      xf swap = y[h][0];
      y[h][0] = y[h][1];
      y[h][1] = swap;
    }
  }
  for (int h = 0; h < XI_HALVES; h++)
    xf_store (acc + h * HALF_ROWS, xf_add (y[h][0], y[h][1]));
}

#define CELLS(name, depth, codebook)                                                                      \
  static void name (const run *r, const void *acts, uint32_t i0, uint32_t n, float *acc)                  \
  {                                                                                                       \
    if (r->per_group)                                                                                     \
      cells_many (r, acts, i0, n, acc, depth, codebook, 0);                                               \
    else                                                                                                  \
      cells_many (r, acts, i0, n, acc, depth, codebook, 1);                                               \
  }                                                                                                       \
  static void name##_one (const run *r, const void *acts, uint32_t i0, uint32_t n, float *acc)            \
  {                                                                                                       \
    if (r->per_group)                                                                                     \
      cells_one (r, acts, acc, depth, codebook, 0);                                                       \
    else                                                                                                  \
      cells_one (r, acts, acc, depth, codebook, 1);                                                       \
  }

CELLS (uniform1, 1, XB_UNIFORM)
CELLS (uniform2, 2, XB_UNIFORM)
CELLS (uniform3, 3, XB_UNIFORM)
CELLS (uniform4, 4, XB_UNIFORM)
CELLS (uniform5, 5, XB_UNIFORM)
CELLS (uniform6, 6, XB_UNIFORM)
CELLS (uniform7, 7, XB_UNIFORM)
CELLS (uniform8, 8, XB_UNIFORM)
CELLS (table1, 1, XB_TABLE)
CELLS (table2, 2, XB_TABLE)
CELLS (table3, 3, XB_TABLE)
CELLS (table4, 4, XB_TABLE)

static const run_function many[2][9] = { { NULL, uniform1, uniform2, uniform3, uniform4, uniform5, uniform6, uniform7, uniform8 },
                                         { NULL, table1, table2, table3, table4 } };
static const run_function one[2][9] = {
  { NULL, uniform1_one, uniform2_one, uniform3_one, uniform4_one, uniform5_one, uniform6_one, uniform7_one, uniform8_one },
  { NULL, table1_one, table2_one, table3_one, table4_one }
};

static void run_many (const run *r, const void *acts, uint32_t i0, uint32_t n, float *acc)
{
  many[r->codebook][r->depth](r, acts, i0, n, acc);
}

static void run_one (const run *r, const void *acts, uint32_t i0, uint32_t n, float *acc)
{
  one[r->codebook][r->depth](r, acts, i0, n, acc);
}

static void matvec (const xb_matrix *m, const xb_acts *acts, float *y, uint32_t row0, uint32_t row1)
{
  walk_matvec (m, acts, y, row0, row1, run_one);
}

static void matmul (const xb_matrix *m, const xb_acts *acts, float *y, size_t ldy, uint32_t row0, uint32_t row1)
{
  walk_matmul (m, acts, acts->n, y, ldy, row0, row1, run_many);
}

/* The codes of a tile as bytes [8 quads][16 rows][4], tables looked up and biased by 128. */
#define DECODE(d, codebook) decode (codes, tile, d, codebook, &table, h); break
static void tile_bytes (const run *r, uint32_t t, uint8_t *out)
{
  const uint8_t *tile = r->tiles + (size_t) t * r->depth * 64;
  const xi table = r->table ? xi_table (r->table) : xi_set (0), flip = xi_set ((char) (r->table ? XI_TABLE_FLIP : 0));
  for (int h = 0; h < XI_HALVES; h++) {
    xi codes[8];
    switch (r->depth | (r->table ? 16 : 0)) {
    case 1: DECODE (1, XB_UNIFORM);
    case 2: DECODE (2, XB_UNIFORM);
    case 3: DECODE (3, XB_UNIFORM);
    case 4: DECODE (4, XB_UNIFORM);
    case 5: DECODE (5, XB_UNIFORM);
    case 6: DECODE (6, XB_UNIFORM);
    case 7: DECODE (7, XB_UNIFORM);
    case 17: DECODE (1, XB_TABLE);
    case 18: DECODE (2, XB_TABLE);
    case 19: DECODE (3, XB_TABLE);
    case 20: DECODE (4, XB_TABLE);
    default: DECODE (8, XB_UNIFORM);
    }
    for (int q = 0; q < 8; q++)
      xi_store (out + q * 64 + h * (64 / XI_HALVES), xi_xor (codes[q], flip));
  }
}
#undef DECODE

#include "kernels/xbit_f32_tmpl.h"
