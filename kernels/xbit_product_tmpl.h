/* xbit_product_tmpl.h: the SIMD products, one source per instruction set. Bytes and floats are the compiler's own vectors; the including file
 * defines the rest of the vocabulary:
 *   XB_SUFFIX, XB_VL                   the name of the set; 32-bit lanes of its registers: 16 / XB_VL registers ("parts") make a quad of 64 codes
 *   XI_SIGNED                          1: depth 8, tables and grids reach the product as u - 128, because it multiplies no 8-bit unsigned codes
 *   XI_LOOKUP (table, codes)           a 16-entry table in each 16 bytes, looked up byte by byte
 *   dot (acc, codes, x, n, depth, is_signed, q0, q1): acc[i] += sum over quads q0..q1-1 of codes . x[i], for n vectors x (1, or XI_TOGETHER)
 *   XI_TOGETHER                        vectors that dot takes at once in the product with many
 *   XI_ARRANGE (codes)                 optional: another order of a tile's codes for the product with many
 * Every function below is instantiated with depth, codebook and the group-16 flag as constants. */
#include "kernels/xbit_grid.h"
#include "kernels/xbit_product.h"

#define ALWAYS static inline __attribute__ ((always_inline))
#define UNROLL _Pragma ("GCC unroll 8")

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

/* A table of the matrix in every 16 bytes, biased by 128 where codes are unsigned. */
ALWAYS xi load_table (const int8_t *table, const int bias)
{
  uint8_t repeated[PART_BYTES] __attribute__ ((aligned (64)));
  for (int i = 0; i < PART_BYTES; i++)
    repeated[i] = (uint8_t) (table ? table[i % 16] : 0) ^ (bias ? 128 : 0);
  return xi_load (repeated);
}

/* A trellis sums up n tables, of which the first carries the bias; one that is not there adds nothing. */
ALWAYS void load_tables (const run *r, xi tables[XB_TRELLIS_TABLES], const int n)
{
  UNROLL for (int k = 0; k < n; k++)
    tables[k] = load_table (r->tables && (uint32_t) k < r->n_tables ? r->tables[k] : NULL, k == 0 && !XI_SIGNED);
}

typedef uint32_t xi_lanes __attribute__ ((vector_size (PART_BYTES)));

/* Part `part` of the ring of a quad's codes, which before its first part goes on with the column before in each row: the byte below. */
ALWAYS xi_lanes ring_part (const xi codes[PARTS], int part)
{
  const xi_lanes v = (xi_lanes) codes[part >= 0 ? part : part + PARTS];
  return part >= 0 ? v : v << 8 | v >> 24;
}

/* The lanes k before those of `v`, `before` being in front of it. */
ALWAYS xi_lanes lanes_back (xi_lanes before, xi_lanes v, const int k)
{
#if XB_VL == 16
#define BACK(k) \
  __builtin_shufflevector (before, v, 16 - k, 17 - k, 18 - k, 19 - k, 20 - k, 21 - k, 22 - k, 23 - k, 24 - k, 25 - k, 26 - k, 27 - k, 28 - k, 29 - k, \
                           30 - k, 31 - k)
#elif XB_VL == 8
#define BACK(k) __builtin_shufflevector (before, v, 8 - k, 9 - k, 10 - k, 11 - k, 12 - k, 13 - k, 14 - k, 15 - k)
#else
#define BACK(k) __builtin_shufflevector (before, v, 4 - k, 5 - k, 6 - k, 7 - k)
#endif
  switch (k) {
  case 1: return BACK (1);
  case 2: return BACK (2);
  case 3: return BACK (3);
#if XB_VL > 4
  case 4: return BACK (4);
#endif
#if XB_VL > 8
  case 6: return BACK (6);
  case 8: return BACK (8);
  case 12: return BACK (12);
#elif XB_VL > 4
  case 6: return BACK (6);
#endif
  default: return v;
  }
#undef BACK
}

/* One part of the codes k places back in the ring: k is 1, 2, 3, 4, 6, 8 or 12. */
ALWAYS xi ring_back (const xi codes[PARTS], int part, const int k)
{
  const int from = part - k / XB_VL;
  return (xi) lanes_back (k % XB_VL ? ring_part (codes, from - 1) : ring_part (codes, from), ring_part (codes, from), k % XB_VL);
}

/* What a tile of a trellis cell with n tables stands for. */
ALWAYS void decode_trellis (xi values[PARTS][8], const uint8_t *tile, const int depth, const xi tables[XB_TRELLIS_TABLES], const int n)
{
  const int step = depth == 1 ? 4 : depth == 2 ? 2 : 1;
  UNROLL for (int part = 0; part < PARTS; part++)
    decode (values[part], tile, depth, XB_UNIFORM, tables[0], part);
  UNROLL for (int q = 0; q < 8; q++) {
    xi index[PARTS], wider[PARTS];
    UNROLL for (int part = 0; part < PARTS; part++)
      index[part] = values[part][q];
    UNROLL for (int width = 1; width < step; width *= 2) {
      UNROLL for (int part = 0; part < PARTS; part++)
        wider[part] = index[part] | xi_left (ring_back (index, part, width), depth * width);
      UNROLL for (int part = 0; part < PARTS; part++)
        index[part] = wider[part];
    }
    UNROLL for (int part = 0; part < PARTS; part++) {
      xi sum = XI_LOOKUP (tables[0], index[part]);
      UNROLL for (int k = 1; k < n; k++)
        sum += XI_LOOKUP (tables[k], ring_back (index, part, k * step));
      values[part][q] = sum;
    }
  }
}

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

/* The scales of one tile: those of its group, counted without a division. */
typedef struct {
  const float *scale, *zero;
  uint32_t left; /* tiles of the group from here on */
} place;

ALWAYS void next_tile (place *p, uint32_t per_group, const int split)
{
  const int step = split ? 32 : --p->left == 0 ? 16 : 0;
  p->scale += step;
  p->zero += step;
  if (!split && step)
    p->left = per_group;
}

ALWAYS void group_scales (const place *p, int part, const int split, vf scale[2], vf zero[2])
{
  for (int i = 0; i < (split ? 2 : 1); i++) {
    scale[i] = v_aligned (p->scale + part * XB_VL + i * 16);
    zero[i] = v_aligned (p->zero + part * XB_VL + i * 16);
  }
}

typedef void (*ring_decoder) (xi values[PARTS][8], const uint8_t *tile, const xi tables[XB_TRELLIS_TABLES]);

/* n vectors by one run of tiles: each tile is decoded once and used for all of them. */
ALWAYS void cells_many (const run *r, const xb_acts *acts, uint32_t i0, uint32_t n, float *acc, const int depth, const int codebook, const int n_tables, const ring_decoder decode_ring, const int split)
{
  const size_t row_tiles = acts->cols_padded / 32;
  xi tables[XB_TRELLIS_TABLES], ring[PARTS][8];
  load_tables (r, tables, codebook == XB_GRID ? 1 : n_tables); /* a grid has one number there, the weights of an index */
  place at = { r->scale, r->zero, r->per_group };
  for (uint32_t t = 0; t < r->n_tiles; t++, next_tile (&at, r->per_group, split)) {
    const size_t first = i0 * row_tiles + r->tile0 + t;
    const uint8_t *tile = r->tiles + (size_t) t * (codebook == XB_GRID ? r->tile_bytes : depth * 64u);
    grid_tile grid;
    if (codebook == XB_GRID)
      grid_open (&grid, r->grid, tile, n_tables);
    if (codebook == XB_TRELLIS)
      decode_ring (ring, tile, tables);
    for (int part = 0; part < PARTS; part++) {
      vf scale[2], zero[2];
      group_scales (&at, part, split, scale, zero);
      float *out = acc + part * XB_VL;
      xi codes[8];
      if (codebook == XB_TRELLIS)
        memcpy (codes, ring[part], sizeof codes);
      else if (codebook == XB_GRID)
        decode_grid (codes, r, &grid, n_tables, part);
      else
        decode (codes, tile, depth, codebook, tables[0], part);
#ifdef XI_ARRANGE
      XI_ARRANGE (codes);
#endif
      uint32_t i = 0;
      for (; i + XI_TOGETHER <= n; i += XI_TOGETHER) {
        vf y[XI_TOGETHER];
        UNROLL for (int k = 0; k < XI_TOGETHER; k++)
          y[k] = v_aligned (out + (i + (uint32_t) k) * 16);
        multiply (codes, depth, codebook, split, XI_TOGETHER, acts, first + i * row_tiles, row_tiles, scale, zero, y);
        UNROLL for (int k = 0; k < XI_TOGETHER; k++)
          v_store (out + (i + (uint32_t) k) * 16, y[k]);
      }
      for (; i < n; i++) {
        vf y[XI_TOGETHER];
        UNROLL for (int k = 0; k < XI_TOGETHER; k++) /* a set whose codes are arranged multiplies the last vector as often as it must */
          y[k] = v_aligned (out + i * 16);
#ifdef XI_ARRANGE
        multiply (codes, depth, codebook, split, XI_TOGETHER, acts, first + i * row_tiles, 0, scale, zero, y);
#else
        multiply (codes, depth, codebook, split, 1, acts, first + i * row_tiles, 0, scale, zero, y);
#endif
        v_store (out + i * 16, y[0]);
      }
    }
  }
}

/* The same for the first vector alone: the sum stays in registers; with few parts even and odd tiles apart, for the latency. */
ALWAYS void cells_one (const run *r, const xb_acts *acts, float *acc, const int depth, const int codebook, const int n_tables, const ring_decoder decode_ring, const int split)
{
  const int lines = codebook == XB_GRID ? 4 : depth + 1; /* a tile, and its share of the scales */
  xi tables[XB_TRELLIS_TABLES], ring[PARTS][8];
  load_tables (r, tables, codebook == XB_GRID ? 1 : n_tables); /* a grid has one number there, the weights of an index */
  vf even[PARTS], odd[PARTS];
  UNROLL for (int part = 0; part < PARTS; part++) {
    even[part] = v_aligned (acc + part * XB_VL);
    odd[part] = v_set (0);
  }
  place at = { r->scale, r->zero, r->per_group };
  const uint8_t *tile = r->tiles, *ahead = r->ahead;
  for (size_t t = r->tile0, end = t + r->n_tiles; t < end; t++, ahead += r->ahead_step) {
    const uint8_t *from = tile;
    grid_tile grid;
    if (codebook == XB_GRID)
      grid_open (&grid, r->grid, tile, n_tables);
    tile += codebook == XB_GRID ? r->tile_bytes : depth * 64u;
    UNROLL for (int line = 0; line < lines; line++)
      __builtin_prefetch (ahead + line * 64, 0, 2); /* into L2: the first level has too few buffers for misses */
    if (codebook == XB_TRELLIS)
      decode_ring (ring, from, tables);
    UNROLL for (int part = 0; part < PARTS; part++) {
      xi codes[8];
      if (codebook == XB_TRELLIS)
        memcpy (codes, ring[part], sizeof codes);
      else if (codebook == XB_GRID)
        decode_grid (codes, r, &grid, n_tables, part);
      else
        decode (codes, from, depth, codebook, tables[0], part);
      vf scale[2], zero[2];
      group_scales (&at, part, split, scale, zero);
      multiply (codes, depth, codebook, split, 1, acts, t, 0, scale, zero, &even[part]);
    }
    next_tile (&at, r->per_group, split);
    if (PARTS < 4)
      UNROLL for (int part = 0; part < PARTS; part++) {
        const vf swap = even[part];
        even[part] = odd[part];
        odd[part] = swap;
      }
  }
  UNROLL for (int part = 0; part < PARTS; part++)
    v_store (acc + part * XB_VL, even[part] + odd[part]);
}

#define CELLS(name, depth, codebook, n_tables, decode_ring)                                    \
  static void name (const run *r, const void *acts, uint32_t i0, uint32_t n, float *acc)       \
  {                                                                                            \
    if (r->per_group)                                                                          \
      cells_many (r, acts, i0, n, acc, depth, codebook, n_tables, decode_ring, 0);             \
    else                                                                                       \
      cells_many (r, acts, i0, n, acc, depth, codebook, n_tables, decode_ring, 1);             \
  }                                                                                            \
  static void name##_one (const run *r, const void *acts, uint32_t i0, uint32_t n, float *acc) \
  {                                                                                            \
    if (r->per_group)                                                                          \
      cells_one (r, acts, acc, depth, codebook, n_tables, decode_ring, 0);                     \
    else                                                                                       \
      cells_one (r, acts, acc, depth, codebook, n_tables, decode_ring, 1);                     \
  }

#define UNIFORM(depth) CELLS (uniform##depth, depth, XB_UNIFORM, 1, NULL)
#define TABLE(depth) CELLS (table##depth, depth, XB_TABLE, 1, NULL)
#define GRID(dim) CELLS (grid##dim, 8, XB_GRID, dim, NULL)
/* The decoder of a trellis is large and shared by its products. */
#define TRELLIS(n, depth)                                                                                                                             \
  static __attribute__ ((noinline)) void ring##n##_##depth (xi values[PARTS][8], const uint8_t *tile, const xi tables[XB_TRELLIS_TABLES]) \
  {                                                                                                                                       \
    decode_trellis (values, tile, depth, tables, n);                                                                                      \
  }                                                                                                                                       \
  CELLS (trellis##n##_##depth, depth, XB_TRELLIS, n, ring##n##_##depth)
UNIFORM (1) UNIFORM (2) UNIFORM (3) UNIFORM (4) UNIFORM (5) UNIFORM (6) UNIFORM (7) UNIFORM (8)
TABLE (1) TABLE (2) TABLE (3) TABLE (4)
GRID (4) GRID (8)
TRELLIS (2, 1) TRELLIS (2, 2) TRELLIS (2, 3) TRELLIS (2, 4)
TRELLIS (3, 1) TRELLIS (3, 2) TRELLIS (3, 3) TRELLIS (3, 4)
TRELLIS (4, 1) TRELLIS (4, 2) TRELLIS (4, 3) TRELLIS (4, 4)

enum { BOOKS = 6 }; /* the codebooks, and trellises of 3 and 4 tables behind those of 2 */
#define DEPTHS4(name, end) NULL, name##1##end, name##2##end, name##3##end, name##4##end
#define FUNCTIONS(end)                                                                                                              \
  {                                                                                                                                 \
    [XB_UNIFORM] = { DEPTHS4 (uniform, end), uniform5##end, uniform6##end, uniform7##end, uniform8##end },                          \
    [XB_TABLE] = { DEPTHS4 (table, end) }, [XB_GRID] = { [4] = grid4##end, [8] = grid8##end },                         \
    [XB_TRELLIS] = { DEPTHS4 (trellis2_, end) }, [XB_TRELLIS + 1] = { DEPTHS4 (trellis3_, end) }, [XB_TRELLIS + 2] = { DEPTHS4 (trellis4_, end) } \
  }
static const run_function many[BOOKS][9] = FUNCTIONS (), one[BOOKS][9] = FUNCTIONS (_one);

static inline uint32_t book_of (const run *r)
{
  return r->codebook == XB_TRELLIS ? XB_TRELLIS + r->n_tables - 2 : r->codebook;
}

static void run_many (const run *r, const void *acts, uint32_t i0, uint32_t n, float *acc)
{
  many[book_of (r)][r->grid ? r->grid->dim : r->depth](r, acts, i0, n, acc);
}

static void run_one (const run *r, const void *acts, uint32_t i0, uint32_t n, float *acc)
{
  one[book_of (r)][r->grid ? r->grid->dim : r->depth](r, acts, i0, n, acc);
}

static void matvec (const xb_matrix *m, const xb_acts *acts, float *y, uint32_t row0, uint32_t row1)
{
  walk_matvec (m, acts, y, row0, row1, run_one);
}

static void matmul (const xb_matrix *m, const xb_acts *acts, float *y, size_t ldy, uint32_t row0, uint32_t row1)
{
  walk_matmul (m, acts, acts->n, y, ldy, row0, row1, run_many);
}

/* The codes of a tile as bytes [8 quads][16 rows][4]; what tables and trellises yield is biased by 128. */
#define DECODE(d, codebook) decode (codes[part], tile, d, codebook, tables[0], part); break
static void tile_bytes (const run *r, uint32_t t, uint8_t *out)
{
  const uint8_t *tile = r->tiles + (size_t) t * r->tile_bytes;
  if (r->grid) {
    expand_grid_tile (r->grid, r->values, tile, out);
    return;
  }
  const xi flip = xi_set (XI_SIGNED && (r->depth == 8 || r->codebook != XB_UNIFORM) ? 128 : 0);
  xi codes[PARTS][8], tables[XB_TRELLIS_TABLES];
  load_tables (r, tables, XB_TRELLIS_TABLES);
  for (int part = 0; part < PARTS && r->codebook != XB_TRELLIS; part++)
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
  if (r->codebook == XB_TRELLIS) {
    static const ring_decoder decoders[3][4] = { { ring2_1, ring2_2, ring2_3, ring2_4 }, { ring3_1, ring3_2, ring3_3, ring3_4 },
                                                 { ring4_1, ring4_2, ring4_3, ring4_4 } };
    decoders[r->n_tables - 2][r->depth - 1](codes, tile, tables);
  }
  for (int part = 0; part < PARTS; part++)
    for (int q = 0; q < 8; q++)
      xi_store (out + q * 64 + part * PART_BYTES, codes[part][q] ^ flip);
}
#undef DECODE

#include "kernels/xbit_acts_tmpl.h"
#include "kernels/xbit_f32_tmpl.h"

void XB_JOIN (xb_product_init_, XB_SUFFIX) (xb_product_table *t)
{
  *t = (xb_product_table) { .acts_quantize = acts_quantize, .matvec = matvec, .matmul = matmul, .matmul_f32 = matmul_f32, .one = run_one, .many = run_many };
}
