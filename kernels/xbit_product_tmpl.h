/* xbit_product_tmpl.h: the SIMD products, one source per instruction set. Bytes and floats are the compiler's own vectors; the including file
 * defines the rest of the vocabulary:
 *   XB_SUFFIX, XB_VL                   the name of the set; 32-bit lanes of its registers: 16 / XB_VL registers ("parts") make a quad of 64 codes
 *   XI_SIGNED                          1: depth 8, tables and grids reach the product as u - 128, because it multiplies no 8-bit unsigned codes
 *   XI_SHUFFLE (bytes, places)         byte by byte, the one at that place (0 to 15) of the same 16
 *   XI_LOOKUP (table, codes)           optional: the same of a table that is repeated every 16 bytes, and XI_NIBBLE (codes): what it needs of a byte's low 4 bits
 *   XI_PERMUTE (bytes, places)         optional: byte by byte, the one at that place of all 64
 *   XI_GRID (grid)                     optional: functions of its own for grids of that shape (xi_grid_functions), or NULL
 *   dot (acc, codes, x, n, depth, is_signed, q0, q1): acc[i] += sum over quads q0..q1-1 of codes . x[i], for n vectors x (1, or XI_TOGETHER)
 *   XI_TOGETHER                        vectors that dot takes at once in the product with many
 *   XI_ARRANGE (codes)                 optional: another order of a tile's codes for the product with many
 * Every function below is instantiated with depth, codebook and the group-16 flag as constants. */
#include "kernels/xbit_grid.h"
#include "kernels/xbit_product.h"

#ifndef XI_LOOKUP
#define XI_LOOKUP(table, codes) XI_SHUFFLE (table, codes)
#define XI_NIBBLE(codes) ((codes) & xi_set (15))
#endif

#ifndef ALWAYS
#define ALWAYS static inline __attribute__ ((always_inline))
#define UNROLL _Pragma ("GCC unroll 8")
#endif

enum { PARTS = 16 / XB_VL, PART_BYTES = 4 * XB_VL };

/* The codes of one part of a tile, as bytes u (or u - 128, XI_SIGNED). */
ALWAYS void decode (xi codes[8], const uint8_t *tile, const int depth, const int codebook, const xi table, int part)
{
  const uint8_t *line = tile + part * PART_BYTES;
  if (depth == 8) {
    UNROLL for (int q = 0; q < 8; q++)
      codes[q] = XI_SIGNED ? xi_load (line + q * 64) ^ xi_set (128) : xi_load (line + q * 64);
    return;
  }
  const int low = depth & 3; /* bits below the 4-bit plane */
  UNROLL for (int q = 0; q < 8; q++)
    codes[q] = xi_set (0);
  if (depth & 4) {
    const xi mask = xi_set ((uint8_t) (15 << low));
    UNROLL for (int i = 0; i < 4; i++) {
      const xi v = xi_load (line + i * 64);
      codes[i] = (low ? xi_left (v, low) : v) & mask;
      codes[i + 4] = xi_right (v, 4 - low) & mask;
    }
    line += 4 * 64;
  }
  if (depth & 2) {
    const int shift = depth & 1;
    const xi mask = xi_set ((uint8_t) (3 << shift));
    UNROLL for (int i = 0; i < 2; i++) {
      const xi v = xi_load (line + i * 64);
      codes[i] |= (shift ? xi_left (v, shift) : v) & mask;
      codes[i + 2] |= xi_right (v, 2 - shift) & mask;
      codes[i + 4] |= xi_right (v, 4 - shift) & mask;
      codes[i + 6] |= xi_right (v, 6 - shift) & mask;
    }
    line += 2 * 64;
  }
  if (depth & 1) {
    const xi v = xi_load (line);
    codes[0] |= v & xi_set (1);
    UNROLL for (int q = 1; q < 8; q++)
      codes[q] |= xi_right (v, q) & xi_set (1);
  }
  if (codebook == XB_TABLE)
    UNROLL for (int q = 0; q < 8; q++)
      codes[q] = XI_LOOKUP (table, codes[q]);
}

/* One part of a tile of a grid that grid_open has looked at. */
ALWAYS void decode_grid (xi codes[8], const run *r, const grid_tile *open, const int dim, int part)
{
  if (r->grid->sign_bits)
    grid_part (codes, open, r->values, dim, 1, part);
  else
    grid_part (codes, open, r->values, dim, 0, part);
  for (int q = 0; q < 8 && XI_SIGNED; q++)
    codes[q] ^= xi_set (128);
}

/* A table of the matrix, biased by 128 where codes are unsigned. */
ALWAYS xi load_table (const int8_t *table, const int bias)
{
  return xi_repeat16 (table) ^ xi_set (bias ? 128 : 0);
}

#include "kernels/xbit_trellis_tmpl.h"

/* y[i] += scale (xs sum u x) + zero (xs sum x) for one part of one tile and the n vectors from `first` on, whose tiles are `step` apart. */
ALWAYS void multiply (const xi codes[8], const int depth, const int codebook, const int split, const int n, const xb_acts *acts, size_t first, size_t step,
                      const vf scale[2], const vf zero[2], vf *y)
{
  const int is_signed = XI_SIGNED && (depth == 8 || codebook != XB_UNIFORM), pieces = split ? 2 : 1, quads = 8 / pieces;
  const int8_t *x[XI_TOGETHER];
  UNROLL for (int i = 0; i < n; i++)
    x[i] = acts->q + (first + (size_t) i * step) * 32;
  UNROLL for (int p = 0; p < pieces; p++) {
    vi acc[XI_TOGETHER];
    UNROLL for (int i = 0; i < n; i++) {
      const int16_t *sum = acts->sum + (first + (size_t) i * step) * 2;
      acc[i] = vi_set (!is_signed ? 0 : 128 * (split ? sum[p] : sum[0] + sum[1]));
    }
    dot (acc, codes, x, n, depth, is_signed, p * quads, (p + 1) * quads);
    UNROLL for (int i = 0; i < n; i++) {
      const size_t at = first + (size_t) i * step;
      y[i] = __builtin_convertvector (acc[i], vf) * v_set (acts->scale[at]) * scale[p] + y[i];
      y[i] = zero[p] * v_set (split ? acts->sum16[at * 2 + (size_t) p] : acts->sum32[at]) + y[i];
    }
  }
}

/* 16 stored scales or offsets of group g of a run, one part of them. */
ALWAYS vf stored_scale (const run *r, const uint8_t *stored, const uint16_t *super, uint32_t g, int part)
{
  if (r->layout->scale_kind != XB_SCALE_GROUP_I8)
    return v_half ((const uint16_t *) (const void *) stored + g * 16 + (uint32_t) part * XB_VL);
  const uint32_t s = (r->tile0 * 32 + g * r->layout->group) / XB_SUPER_COLS;
  return __builtin_convertvector (v_from_i8 (stored + g * 16 + (uint32_t) part * XB_VL), vf) * v_half (super + s * 16 + (uint32_t) part * XB_VL);
}

ALWAYS void scales_of_group (const run *r, uint32_t g, vf scale[PARTS], vf zero[PARTS])
{
  UNROLL for (int part = 0; part < PARTS; part++) {
    if (r->scale) {
      scale[part] = v_aligned (r->scale + g * 16 + (uint32_t) part * XB_VL);
      zero[part] = v_aligned (r->zero + g * 16 + (uint32_t) part * XB_VL);
      continue;
    }
    scale[part] = stored_scale (r, r->stored, r->super, g, part);
    zero[part] = r->stored_offset ? stored_scale (r, r->stored_offset, r->super_offset, g, part) : scale[part] * v_set (-r->z);
  }
}

/* Grids and trellises become tiles of depth 8 first where their weights are wanted as floats. */
static void trellis_tile (const uint8_t *tile, uint32_t codebook, uint32_t depth, const int8_t (*tables)[16], bool is_first, uint8_t *out);

static void expand_tile (const run *r, uint32_t t, uint8_t expanded[512])
{
  const uint8_t *tile = r->tiles + (size_t) t * r->tile_bytes;
  if (r->codebook == XB_GRID)
    expand_grid_tile (r->grid, r->values, tile, expanded);
  else
    trellis_tile (tile, r->codebook, r->depth, r->tables, r->is_first && t == 0, expanded);
}

/* `n` vectors from tile `at` on, whose tiles are `step` apart, by one part of a tile, their sums in memory. */
ALWAYS void multiply_many (const xi codes[8], const int depth, const int codebook, const int split, uint32_t n, const xb_acts *acts, size_t at, size_t step,
                           const vf scale[2], const vf zero[2], float *sums)
{
  for (uint32_t i = 0; i < n;) {
    vf y[XI_TOGETHER];
    const uint32_t left = n - i, some = left < XI_TOGETHER ? 1 : XI_TOGETHER;
    UNROLL for (uint32_t k = 0; k < XI_TOGETHER; k++)
      y[k] = v_aligned (sums + (i + (k < some ? k : 0)) * 16);
#ifndef XI_ARRANGE /* a set whose codes are arranged multiplies the last vector as often as it must */
    if (some == 1)
      multiply (codes, depth, codebook, split, 1, acts, at + i * step, 0, scale, zero, y);
    else
#endif
      multiply (codes, depth, codebook, split, XI_TOGETHER, acts, at + i * step, some == 1 ? 0 : step, scale, zero, y);
    UNROLL for (uint32_t k = 0; k < XI_TOGETHER; k++)
      if (k < some)
        v_store (sums + (i + k) * 16, y[k]);
    i += some;
  }
}

/* The codes of one part of a tile; a trellis has its own already. */
ALWAYS void part_codes (xi codes[8], const run *r, const uint8_t *tile, const grid_tile *open, const xi table, const int depth, const int codebook, int part)
{
  if (codebook == XB_GRID)
    decode_grid (codes, r, open, depth, part);
  else if (!xb_is_trellis (codebook))
    decode (codes, tile, depth, codebook, table, part);
}

/* Vectors i0 .. i0 + n - 1 by one run of tiles (a grid's depth is its dim): each tile is decoded once and used for all of them. The sums of one vector alone stay
 * in registers, those of even and odd tiles apart where there are enough, for the latency. */
ALWAYS void cells (const run *r, const xb_acts *acts, uint32_t i0, uint32_t n, float *acc, const int depth, const int codebook, const int split,
                   const int alone)
{
  const int lines = codebook == XB_GRID ? 4 : depth + 1; /* a tile, and its share of the scales */
  const size_t row_tiles = acts->cols_padded / 32;
  const xi table = codebook == XB_TABLE ? load_table (r->tables[0], !XI_SIGNED) : xi_set (0);
  trellis t;
  if (xb_is_trellis (codebook))
    begin_trellis (&t, r->tables, depth);
  if (xb_is_trellis (codebook) && !r->is_first)
    enter_trellis (&t, r->tiles - depth * 64, depth);
  vf even[PARTS], odd[PARTS], scale[2][PARTS], zero[2][PARTS];
  UNROLL for (int part = 0; part < PARTS; part++) {
    even[part] = v_aligned (acc + part * XB_VL);
    odd[part] = v_set (0);
  }
  uint32_t group = 0;
  const uint8_t *tile = r->tiles, *ahead = r->ahead;
  for (size_t i = r->tile0, end = i + r->n_tiles; i < end;) {
    const size_t last = split ? i + 1 : i + r->per_group < end ? i + r->per_group : end;
    scales_of_group (r, group++, scale[0], zero[0]);
    if (split && group < r->n_groups)
      scales_of_group (r, group++, scale[1], zero[1]);
    else if (split) /* the row ends in the middle of a tile */
      UNROLL for (int part = 0; part < PARTS; part++)
        scale[1][part] = zero[1][part] = v_set (0);
    for (; i < last; i++, ahead += r->ahead_step) {
      grid_tile grid;
      xi values[PARTS][8];
      UNROLL for (int line = 0; line < lines; line++)
        __builtin_prefetch (ahead + line * 64, 0, 2); /* into L2: the first level has too few buffers for misses */
      if (codebook == XB_GRID)
        grid_open (&grid, r->grid, tile, depth);
      if (xb_is_trellis (codebook))
        trellis_values (&t, tile, values, depth, codebook);
      /* Many vectors take all registers for one part: the scales of the other wait in memory. */
      if (alone)
        UNROLL for (int part = 0; part < PARTS; part++) {
          const vf scales[2] = { scale[0][part], scale[split][part] }, zeros[2] = { zero[0][part], zero[split][part] };
          part_codes (values[part], r, tile, &grid, table, depth, codebook, part);
          multiply (values[part], depth, codebook, split, 1, acts, i, 0, scales, zeros, &even[part]);
        }
      else
        for (int part = 0; part < PARTS; part++) {
          const vf scales[2] = { scale[0][part], scale[split][part] }, zeros[2] = { zero[0][part], zero[split][part] };
          part_codes (values[part], r, tile, &grid, table, depth, codebook, part);
#ifdef XI_ARRANGE
          XI_ARRANGE (values[part]);
#endif
          multiply_many (values[part], depth, codebook, split, n, acts, i0 * row_tiles + i, row_tiles, scales, zeros, acc + part * XB_VL);
        }
      tile += codebook == XB_GRID ? r->tile_bytes : depth * 64u;
      if (alone && PARTS < 4)
        UNROLL for (int part = 0; part < PARTS; part++) {
          const vf swap = even[part];
          even[part] = odd[part];
          odd[part] = swap;
        }
    }
  }
  UNROLL for (int part = 0; alone && part < PARTS; part++)
    v_store (acc + part * XB_VL, even[part] + odd[part]);
}

/* 16 stored multipliers as floats, one part of them. */
ALWAYS vf multipliers (const uint8_t *stored, int part)
{
  return __builtin_convertvector (v_from_i8 (stored + (uint32_t) part * XB_VL), vf);
}

/* One vector by a run of uniform cells with groups of 16 and stored multipliers, as the K types have them: what 256 columns give is summed up by their multipliers alone, and
 * then multiplied with the scale that these have in common. */
ALWAYS void cells_of_16 (const run *r, const xb_acts *acts, float *acc, const int depth, const int has_offset)
{
  const vf z = v_set (r->z);
  const uint8_t *tile = r->tiles, *ahead = r->ahead, *stored = r->stored, *offset = r->stored_offset, *stored_end = r->stored + (size_t) r->n_groups * 16;
  vf y[PARTS];
  UNROLL for (int part = 0; part < PARTS; part++)
    y[part] = v_aligned (acc + part * XB_VL);
  for (size_t i = r->tile0, end = i + r->n_tiles; i < end;) {
    const size_t super = i / 8, next = (super + 1) * 8, last = next < end ? next : end;
    vf sum[PARTS][2], low[PARTS];
    UNROLL for (int part = 0; part < PARTS; part++)
      sum[part][0] = sum[part][1] = low[part] = v_set (0);
    for (; i < last; i++, tile += depth * 64, ahead += r->ahead_step, stored += 32) {
      const int8_t *x = acts->q + i * 32;
      const int is_whole = stored + 16 < stored_end; /* else the row ends in the middle of the tile */
      UNROLL for (int line = 0; line < depth + 1; line++)
        __builtin_prefetch (ahead + line * 64, 0, 2);
      UNROLL for (int part = 0; part < PARTS; part++) {
        xi codes[8];
        decode (codes, tile, depth, XB_UNIFORM, xi_set (0), part);
        UNROLL for (int p = 0; p < 2; p++) {
          vi product = vi_set (0);
          dot (&product, codes, &x, 1, depth, 0, p * 4, p * 4 + 4);
          const vf total = v_set (acts->sum16[i * 2 + (size_t) p]), many = is_whole || p == 0 ? multipliers (stored + p * 16, part) : v_set (0);
          const vf exact = __builtin_convertvector (product, vf) * v_set (acts->scale[i]);
          sum[part][p] += (has_offset ? exact : exact - z * total) * many;
          if (has_offset && (is_whole || p == 0))
            low[part] += multipliers (offset + p * 16, part) * total;
        }
      }
      offset += has_offset ? 32 : 0;
    }
    UNROLL for (int part = 0; part < PARTS; part++) {
      y[part] = (sum[part][0] + sum[part][1]) * v_half (r->super + super * 16 + (size_t) part * XB_VL) + y[part];
      if (has_offset)
        y[part] = low[part] * v_half (r->super_offset + super * 16 + (size_t) part * XB_VL) + y[part];
    }
  }
  UNROLL for (int part = 0; part < PARTS; part++)
    v_store (acc + part * XB_VL, y[part]);
}

/* Whether cells_of_16 is for such a run: the depths that the K types have. */
ALWAYS int is_of_16 (const run *r, const int depth, const int codebook, const int alone)
{
  return alone && codebook == XB_UNIFORM && (depth == 2 || depth == 3 || depth == 6) && !r->per_group && r->stored && r->layout->scale_kind == XB_SCALE_GROUP_I8;
}

#define RUN(name, depth, codebook, alone)                                                \
  static void name (const run *r, const void *acts, uint32_t i0, uint32_t n, float *acc) \
  {                                                                                      \
    if (is_of_16 (r, depth, codebook, alone) && r->stored_offset)                        \
      cells_of_16 (r, acts, acc, depth, 1);                                              \
    else if (is_of_16 (r, depth, codebook, alone))                                       \
      cells_of_16 (r, acts, acc, depth, 0);                                              \
    else if (r->per_group || xb_is_trellis (codebook))                                   \
      cells (r, acts, i0, n, acc, depth, codebook, 0, alone);                            \
    else                                                                                 \
      cells (r, acts, i0, n, acc, depth, codebook, !xb_is_trellis (codebook), alone);    \
  }
#define RUNS(name, depth, codebook) RUN (name##_one, depth, codebook, 1) RUN (name, depth, codebook, 0)
#define UNIFORM(depth) RUNS (uniform##depth, depth, XB_UNIFORM)
#define TABLE(depth) RUNS (table##depth, depth, XB_TABLE)
#define TRELLIS(depth) RUNS (trellis##depth, depth, XB_TRELLIS)
#define TRELLIS16(depth) RUNS (trellis16_##depth, depth, XB_TRELLIS16)
UNIFORM (1) UNIFORM (2) UNIFORM (3) UNIFORM (4) UNIFORM (5) UNIFORM (6) UNIFORM (7) UNIFORM (8)
TABLE (1) TABLE (2) TABLE (3) TABLE (4)
TRELLIS (1) TRELLIS (2) TRELLIS (3) TRELLIS (4) TRELLIS (5) TRELLIS (6)
TRELLIS16 (2) TRELLIS16 (3) TRELLIS16 (4) TRELLIS16 (5)
RUNS (grid4, 4, XB_GRID) RUNS (grid8, 8, XB_GRID)

#define UNIFORMS(end) { NULL, uniform1##end, uniform2##end, uniform3##end, uniform4##end, uniform5##end, uniform6##end, uniform7##end, uniform8##end }
#define TABLES(end) { NULL, table1##end, table2##end, table3##end, table4##end }
#define TRELLISES(end) { NULL, trellis1##end, trellis2##end, trellis3##end, trellis4##end, trellis5##end, trellis6##end }
#define TRELLISES16(end) { NULL, NULL, trellis16_2##end, trellis16_3##end, trellis16_4##end, trellis16_5##end }
#define FUNCTIONS(end) \
  { [XB_UNIFORM] = UNIFORMS (end), [XB_TABLE] = TABLES (end), [XB_GRID] = { [4] = grid4##end, [8] = grid8##end }, [XB_TRELLIS] = TRELLISES (end), \
    [XB_TRELLIS16] = TRELLISES16 (end) }
static const run_function functions[2][XB_TRELLIS16 + 1][XB_MAX_DEPTH + 1] = { FUNCTIONS (), FUNCTIONS (_one) };

static void run_exl3_acts (const run *r, const xb_acts *acts, uint32_t i0, uint32_t n, float *acc);

static void run_vectors (const run *r, const void *acts, uint32_t i0, uint32_t n, float *acc)
{
  if (r->codebook == XB_EXL3) {
    run_exl3_acts (r, acts, i0, n, acc);
    return;
  }
#ifdef XI_GRID
  const xi_grid_functions *grid = r->grid ? XI_GRID (r->grid) : NULL;
  if (grid) {
    (n == 1 ? grid->one : grid->many) (r, acts, i0, n, acc);
    return;
  }
#endif
  functions[n == 1][r->codebook][r->grid ? r->grid->dim : r->depth](r, acts, i0, n, acc);
}

static void matvec (const xb_matrix *m, const xb_acts *acts, float *y, uint32_t row0, uint32_t row1)
{
  walk_acts (m, acts, 1, y, 0, row0, row1, run_vectors);
}

static void matmul (const xb_matrix *m, const xb_acts *acts, float *y, size_t ldy, uint32_t row0, uint32_t row1)
{
  walk_acts (m, acts, acts->n, y, ldy, row0, row1, run_vectors);
}

/* A tile of a trellis cell as bytes [8 quads][16 rows][4], biased by 128. */
#define EXPAND(codebook, d)                           \
  case codebook * 16 + d:                             \
    begin_trellis (&t, tables, d);                    \
    if (!is_first)                                    \
      enter_trellis (&t, tile - d * 64, d);           \
    trellis_values (&t, tile, values, d, codebook);   \
    break
static void trellis_tile (const uint8_t *tile, uint32_t codebook, uint32_t depth, const int8_t (*tables)[16], bool is_first, uint8_t *out)
{
  trellis t;
  xi values[PARTS][8];
  switch (codebook * 16 + depth) {
    EXPAND (XB_TRELLIS16, 2);
    EXPAND (XB_TRELLIS16, 3);
    EXPAND (XB_TRELLIS16, 4);
    EXPAND (XB_TRELLIS16, 5);
    EXPAND (XB_TRELLIS, 1);
    EXPAND (XB_TRELLIS, 2);
    EXPAND (XB_TRELLIS, 3);
    EXPAND (XB_TRELLIS, 4);
    EXPAND (XB_TRELLIS, 5);
  default:
    EXPAND (XB_TRELLIS, 6);
  }
  for (int part = 0; part < PARTS; part++)
    for (int q = 0; q < 8; q++)
      xi_store (out + q * 64 + part * PART_BYTES, values[part][q] ^ xi_set (XI_SIGNED ? 128 : 0));
}
#undef EXPAND

/* The codes of a tile as such bytes; those of tables, grids and trellises biased by 128. */
#define DECODE(d, codebook) decode (codes, tile, d, codebook, table, part); break
static void tile_bytes (const run *r, uint32_t t, uint8_t *out)
{
  const uint8_t *tile = r->tiles + (size_t) t * r->tile_bytes;
  if (r->codebook >= XB_GRID) {
    expand_tile (r, t, out);
    return;
  }
  const xi flip = xi_set (XI_SIGNED && (r->depth == 8 || r->codebook != XB_UNIFORM) ? 128 : 0), table = r->tables ? load_table (r->tables[0], !XI_SIGNED) : xi_set (0);
  for (int part = 0; part < PARTS; part++) {
    xi codes[8];
    switch (r->depth | (r->tables ? 16 : 0)) {
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
      xi_store (out + q * 64 + part * PART_BYTES, codes[q] ^ flip);
  }
}
#undef DECODE

#include "kernels/xbit_acts_tmpl.h"
#include "kernels/xbit_exl3_tmpl.h"
#define XI_EXL3_ONE exl3_one
#include "kernels/xbit_f32_tmpl.h"

void XB_JOIN (xb_product_init_, XB_SUFFIX) (xb_product_table *t)
{
  *t = (xb_product_table) { .acts_quantize = acts_quantize, .matvec = matvec, .matmul = matmul, .matmul_f32 = matmul_f32,
                            .trellis_tile = trellis_tile, .exl3_tile = exl3_tile };
}
