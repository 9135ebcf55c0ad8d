/* xbit.h: the X-bit matrix, the one packed representation of quantized weights, and its products.
 *
 * y = W x, W of `rows` outputs by `cols` inputs. The matrix is divided into stripes (bands of rows) and panels (bands of
 * columns); each cell (stripe x panel) has its own depth, 0 to 8 bits per code, and codebook. Codes lie in tiles of
 * 16 rows x 32 columns, b cache lines (64 b bytes) for depth b, stored as bit planes of 4, 2 and 1 bits (3 = 2+1, 5 = 4+1,
 * 6 = 4+2, 7 = 4+2+1, 8 raw). A quad is 16 rows x 4 columns = 64 codes, byte r*4+c. In the 4-bit plane line i holds quad i
 * low and quad i+4 high; in the 2-bit plane line i holds quads i, i+2, i+4, i+6 from the low bits up; in the 1-bit plane bit
 * j of the one line is quad j. The planes of a tile follow each other, widest (most significant code bits) first.
 *
 * In memory: header, directory (stripe ends, panel ends, cells, tables, stripe offsets), then for each band of 16 rows its
 * tiles from left to right, then its scales [group][16 rows], then its offsets [group][16 rows] where the matrix has them.
 * All integers little-endian. Ragged edges are padded (codes 0 with scale 0), x is padded with 0.
 *
 * Kernels know no threads, no files and no GLib: every function here may be called from any thread, on disjoint outputs.
 */
#ifndef VALISE_XBIT_H
#define VALISE_XBIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum {
  XB_TILE_ROWS = 16,
  XB_TILE_COLS = 32,
  XB_MAX_DEPTH = 8,
  XB_ALIGN = 64
};

typedef enum {
  XB_UNIFORM = 0, /* w = s (u - z), z = z2 / 2 */
  XB_TABLE = 1,   /* w = s table[u], 2^depth int8 entries, depth <= 4 */
  XB_GRID = 2,    /* w = s v, v from a stored table of 4 or 8 values, perhaps with signs (xb_grid): IQ1..IQ3 */
  XB_TRELLIS = 4, /* w = s v, depth <= 6: a bitshift trellis (Tseng et al. 2024, QTIP) whose states are summed up from small tables, so that
                   * it decodes by byte lookups: xb_trellis_word says what v a word of 12 bits stands for. A word is the code itself (lowest)
                   * and those before it in the chain of its 16 rows: xb_chain_place */
  XB_TRELLIS16 = 6, /* the same with words of 16 bits, depth 2 to 5: 5 to 11 % less error for sixteen times the search */
  XB_EXL3 = 5     /* w = s v, v a function (xb_exl3_function) of the code's bits and those before it, 16 in all, in a ring of 16 rows x 16 columns: the
                   * trellis of EXL3, as it is published. A float, so that products are f32's; one scale per row */
} xb_codebook;

/* What 16 bits stand for in EXL3. */
typedef enum {
  XB_EXL3_3INST = 0, /* its default: the sum of two f16 made of a multiply-add's bits (QTIP, section 3.1) */
  XB_EXL3_MCG = 1,   /* the same of a product alone */
  XB_EXL3_MUL1 = 2,  /* the sum of a product's bytes */
  XB_N_EXL3_FUNCTIONS
} xb_exl3_function;

typedef enum {
  XB_SCALE_ROW_F16 = 0,   /* one f16 per row */
  XB_SCALE_GROUP_F16 = 1, /* one f16 per row and group of columns */
  XB_SCALE_GROUP_I8 = 2,  /* i8 per row and group, times f16 per row and 256 columns (K types) */
  XB_SCALE_GROUP_ODD = 3, /* 2 n + 1, n of 4 bits, per row and group, times f16 per row and 256 columns (IQ1..IQ3) */
  XB_SCALE_GROUP_E8M0 = 4,   /* 2^(n - 128), n of 8 bits, per row and group (MXFP4) */
  XB_SCALE_GROUP_E4M3 = 5,   /* 8-bit float per row and group, times f32 per row (NVFP4) */
  XB_SCALE_GROUP_SQUARE = 6, /* ((n + 1) / 16)^2, n of 4 bits, per row and group, times f16 per group (EXL2) */
  XB_SCALE_ROW_F32 = 7,
  XB_SCALE_GROUP_F32 = 8,
  XB_N_SCALE_KINDS
} xb_scale_kind;

typedef enum {
  XB_OFFSET_NONE = 0,
  XB_OFFSET_STORED = 1, /* w = s u + m, m of the scale's kind (the first three kinds) */
  XB_OFFSET_ZERO = 2    /* w = s (u - z), z an integer from 0 to 255 per row and group (GPTQ, AWQ) */
} xb_offset_kind;

/* One stripe x panel of the depth map. */
typedef struct {
  uint8_t depth;    /* bits per code, 0: the whole cell is 0; grid: bits per weight, rounded up */
  uint8_t codebook; /* xb_codebook */
  uint16_t z2;      /* uniform: zero point in half steps; 2^depth - 1 is the symmetric one. grid: w = s v / 2^z2. EXL3: its function. else 0 */
  uint32_t table;   /* table, trellis, grid: index of the (first) one among the matrix's tables or grids */
} xb_cell;

/* A grid: `dim` neighbouring weights of a row are one of 2^index_bits stored rows of values, each weight with its sign. A tile of a grid cell is
 * 64 index_bits / dim + 8 sign_bits bytes (kernels/xbit_grid.h); a cell's tiles are padded to 64 bytes together. */
typedef struct {
  uint8_t dim;        /* 4 or 8 */
  uint8_t index_bits; /* 8 to 12 */
  uint8_t sign_bits;  /* to 8 weights: 8; 7, the last one making the number of minus signs even; 0: none */
  uint8_t zero[5];
  uint64_t offset;    /* of int8 [2^index_bits][dim], -127 to 127, in the matrix's grid values */
} xb_grid;

/* Everything that decides the size and place of every byte of a matrix. Plain data, pointers owned by the caller. */
typedef struct {
  uint32_t rows, cols;
  uint32_t group;       /* columns per scale: 16, 32, 64, 128 or 256; ignored where rows have one scale */
  uint8_t scale_kind;   /* xb_scale_kind */
  uint8_t has_offset;   /* xb_offset_kind; z2 must be 0 where there is one */
  uint32_t input_id;    /* 0: x is used as it is; else 1 + number of the input pipeline (xb_input) in front */
  uint32_t output_id;   /* 0: y is used as it is; else 1 + number of the pipeline of `rows` columns whose inverse (xb_input_restore) is behind */
  uint32_t n_stripes, n_panels, n_tables;
  const uint32_t *stripe_end; /* [n_stripes] rows, ascending, multiples of 16 but the last = rows */
  const uint32_t *panel_end;  /* [n_panels] columns, ascending, multiples of 32 but the last = cols */
  const xb_cell *cells;       /* [n_stripes][n_panels] */
  const int8_t (*tables)[16]; /* [n_tables] */
  uint32_t n_grids, grid_bytes;
  const xb_grid *grids;       /* [n_grids] */
  const int8_t *grid_values;  /* [grid_bytes] */
} xb_layout;

/* A validated view of a packed matrix. Borrows the bytes it was opened on; they must stay mapped and 64-byte aligned. */
typedef struct xb_matrix xb_matrix;

/* All errors are a constant sentence; NULL is success. */
typedef const char *xb_error;

/* Exact size in bytes of a matrix of this layout, 0 if the layout is invalid (and *error says why). */
size_t xb_layout_bytes (const xb_layout *layout, xb_error *error);

/* Writes header and directory of `layout` into data[size] (size = xb_layout_bytes) and zeroes the rest. */
xb_error xb_matrix_init (void *data, size_t size, const xb_layout *layout);
/* The same piece by piece, for a matrix that is written as it is made: size and bytes of what comes before the bands (a valid layout). Bands of a
 * stripe have one size, whatever the number of rows, and hold the same bytes in a matrix of fewer rows. */
size_t xb_layout_directory_bytes (const xb_layout *layout);
void xb_layout_write_directory (void *data, const xb_layout *layout);

/* Checks every length, offset and count of an untrusted blob. Never reads beyond data[size]. NULL on error. */
xb_matrix *xb_matrix_open (const void *data, size_t size, xb_error *error);
void xb_matrix_free (xb_matrix *matrix);
const xb_layout *xb_matrix_layout (const xb_matrix *matrix);
size_t xb_matrix_size (const xb_matrix *matrix);

/* Packs one band: rows band*16 .. +15 of a blob made by xb_matrix_init. `codes` is [16][cols_padded] (cols rounded up to 32),
 * `scale` (and `offset`, when has_offset) is [n_groups][16] f32, rounded here to the stored kind: callers that need to know
 * what is stored use xb_round_scale first. For XB_SCALE_GROUP_I8, `super` is [ceil(cols/256)][16] (scale) and `super_offset`
 * likewise, and scale/offset are the integer multipliers -128..127. Of the kinds ODD, E8M0, E4M3 and SQUARE `scale` holds n (E4M3: the float's
 * bits) as a number; `super` is as with I8 for ODD, [16] rows for E4M3 and [n_groups] for SQUARE. With XB_OFFSET_ZERO `offset` is z.
 * Groups are numbered panel by panel, depth-0 cells too.
 * In a grid cell the top bit of a weight's code is its sign (1 = minus), and the low seven bits of the first and second code of `dim`
 * are the low seven and the high bits of their index. */
xb_error xb_pack_band (void *data, size_t size, uint32_t band, const uint8_t *codes, const float *scale, const float *offset,
                       const float *super, const float *super_offset);
/* A scale as the file will hold it: rounded to f16. */
float xb_round_scale (float scale);
/* Multiplies row row0 + i of a packed matrix by factor[i], as closely as its scales' halves allow: the kinds whose scales are halves, alone or times an
 * integer (the first three), without offsets. row0 a multiple of 16. */
xb_error xb_scale_rows (void *data, size_t size, uint32_t row0, uint32_t row1, const float *factor);
/* Number of groups in a row (all panels); column where group g begins. */
uint32_t xb_layout_groups (const xb_layout *layout);
uint32_t xb_layout_group_start (const xb_layout *layout, uint32_t group);

/* ---- the trellis codebooks: words of 12 or 16 bits, the newest code lowest ---------------------------------------------------- */

enum { XB_WORD_BITS = 12, XB_TRELLIS_DEPTH = 6 /* the most */, XB_MOST_WORD_BITS = 16 };

static inline bool xb_is_trellis (uint32_t codebook)
{
  return codebook == XB_TRELLIS || codebook == XB_TRELLIS16;
}

static inline bool xb_trellis_has (uint32_t codebook, uint32_t depth)
{
  return codebook == XB_TRELLIS16 ? depth >= 2 && depth <= 5 : depth <= XB_TRELLIS_DEPTH;
}

static inline uint32_t xb_word_bits (uint32_t codebook)
{
  return codebook == XB_TRELLIS16 ? XB_MOST_WORD_BITS : XB_WORD_BITS;
}

/* The codes of a cell's 16 rows are one chain, column after column and in each the rows 0, 4, 8, 12, 1, 5, ... 15: place of row r of 16 in its
 * column. Before the first column of a cell all codes are 0. */
static inline uint32_t xb_chain_place (uint32_t r)
{
  return r % 4 * 4 + r / 4;
}

static inline uint32_t xb_chain_row (uint32_t place)
{
  return place % 4 * 4 + place / 4;
}

/* Entries of 16 that a trellis of that depth adds up: it has so many tables, one after the other. */
static inline uint32_t xb_trellis_tables (uint32_t depth)
{
  return depth > 4 ? 3 : 2;
}

/* The value of a word of word_bits bits, added up modulo 256. */
int32_t xb_trellis_word (uint32_t word_bits, uint32_t depth, const int8_t (*tables)[16], uint32_t word);

/* ---- the codebook of EXL3 -------------------------------------------------------------------------------------------------- */

/* Row and column (of 16 each) of a place in their ring of 256 codes: the order of tensor cores. */
static inline uint32_t xb_exl3_row (uint32_t place)
{
  return place / 32 + place / 4 % 2 * 8;
}

static inline uint32_t xb_exl3_column (uint32_t place)
{
  return place / 8 % 4 * 2 + place % 2 + place / 2 % 2 * 8;
}

/* What 16 bits stand for, an f16's number: the bits before a code, highest first, and the code. */
float xb_exl3_value (xb_exl3_function function, uint32_t bits);

/* Inverse of pack. codes [16][cols_padded]; weights of rows row0..row1-1 as f32, out [row1-row0][cols]. */
void xb_unpack_band (const xb_matrix *matrix, uint32_t band, uint8_t *codes, float *scale, float *offset);
void xb_dequantize_rows (const xb_matrix *matrix, uint32_t row0, uint32_t row1, float *out);

/* ---- activations ------------------------------------------------------------------------------------------------------ */

/* A8: n vectors of `cols` quantized to -127..127, an f32 scale per 32 columns and int16 sums per 16; the sums times the scale, per 16 and
 * per 32, are what offsets and zero points are multiplied with. One allocation: xb_acts_bytes says how much (a multiple of 64),
 * xb_acts_init lays it out over `memory` (64-byte aligned). */
typedef struct {
  uint32_t cols, cols_padded, n;
  int8_t *q;    /* [n][cols_padded] */
  float *scale; /* [n][cols_padded / 32] */
  int16_t *sum; /* [n][cols_padded / 16] */
  float *sum16; /* [n][cols_padded / 16] */
  float *sum32; /* [n][cols_padded / 32] */
} xb_acts;

size_t xb_acts_bytes (uint32_t cols, uint32_t n);
void xb_acts_init (xb_acts *acts, void *memory, uint32_t cols, uint32_t n);
/* Vectors i0 .. i0 + n - 1 of others, in the same memory. */
xb_acts xb_acts_from (const xb_acts *acts, uint32_t i0, uint32_t n);
/* Quantizes vector i from x[cols]. bits = 8 (-127..127) or 4 (-7..7). */
void xb_acts_quantize (xb_acts *acts, uint32_t i, const float *x, int bits);

/* ---- products: rows row0..row1-1 (row0 a multiple of 16), y[i*ldy + row] for vector i ----------------------------------- */

void xb_matvec (const xb_matrix *matrix, const xb_acts *acts, float *y, uint32_t row0, uint32_t row1);
void xb_matmul (const xb_matrix *matrix, const xb_acts *acts, float *y, size_t ldy, uint32_t row0, uint32_t row1);
/* A16: exact f32 activations x [n][ldx]. */
void xb_matmul_f32 (const xb_matrix *matrix, const float *x, size_t ldx, uint32_t n, float *y, size_t ldy, uint32_t row0,
                    uint32_t row1);

/* raw: row-major float matrices. */
typedef enum { XB_RAW_F32 = 0, XB_RAW_F16 = 1, XB_RAW_BF16 = 2 } xb_raw_type;
void xb_raw_matmul (xb_raw_type type, const void *w, uint32_t cols, const float *x, size_t ldx, uint32_t n, float *y, size_t ldy,
                    uint32_t row0, uint32_t row1);
void xb_raw_to_f32 (xb_raw_type type, const void *w, float *out, size_t n);
void xb_f32_to_f16 (const float *x, uint16_t *out, size_t n);
float xb_half_to_float (uint16_t h);
uint16_t xb_float_to_half (float f);
#define XB_MOST_HALF 65504.0f /* the largest that f16 holds */

/* ---- input pipeline: permute, scale, block Hadamard with signs ---------------------------------------------------------- */

/* out = H_block (sign * diagonal * x[permutation]), H orthonormal, block a power of two (0: no transform); columns beyond the
 * last whole block are transformed in the largest powers of two that fit. All parts optional. Stored as a blob of its own. */
typedef struct {
  uint32_t cols;
  uint32_t block;              /* Hadamard block, 0: none */
  const uint32_t *permutation; /* [cols] or NULL: out column i reads x[permutation[i]] */
  const uint16_t *diagonal;    /* [cols] f16 or NULL, applied after the permutation */
  const uint8_t *signs;        /* [(cols+7)/8] bits or NULL, 1 = minus, applied before the Hadamard */
} xb_input_layout;
typedef struct xb_input xb_input;

size_t xb_input_bytes (const xb_input_layout *layout, xb_error *error);
xb_error xb_input_init (void *data, size_t size, const xb_input_layout *layout);
xb_input *xb_input_open (const void *data, size_t size, xb_error *error);
void xb_input_free (xb_input *input);
const xb_input_layout *xb_input_get_layout (const xb_input *input);
/* out[cols] from x[cols]; out may be x only when there is no permutation. */
void xb_input_apply (const xb_input *input, const float *x, float *out);
/* Columns begin .. end - 1 alone, which x and out begin with. The pipeline has no permutation; begin is a multiple of its block, end too or its last. */
void xb_input_apply_columns (const xb_input *input, const float *x, float *out, uint32_t begin, uint32_t end);
/* A row of W' (stored) back to a row of W (as before the pipeline): w = (H^-1 w') * sign * diagonal, un-permuted. */
void xb_input_restore_row (const xb_input *input, const float *stored, float *out);
/* The same of columns begin .. end - 1 alone, as in xb_input_apply_columns, in place. */
void xb_input_restore (const xb_input *input, float *x, uint32_t begin, uint32_t end);
/* A row of W to W' = what is to be quantized, so that W' apply(x) = W x: the diagonal is divided out. */
void xb_input_transform_row (const xb_input *input, const float *row, float *out);

#ifdef __cplusplus
}
#endif
#endif
