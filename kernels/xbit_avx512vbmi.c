/* xbit_avx512vbmi.c: the vocabulary of AVX-512 with VNNI and VBMI: bytes go anywhere in a register at once, and a look-up sees the low bits of its index only, so
 * that trellises need no masks. Grids of up to 1024 entries are looked up in registers: vpermi2b reads 64 of 128 bytes, so each of the eight columns of an
 * octet is a handful of them; a register of a column holds its four octets of a tile (lanes) in 16 rows. */
#include <immintrin.h>

#define XB_VL 16
#include "kernels/xbit_bytes.h"
#include "kernels/xbit_product.h"

#define ALWAYS static inline __attribute__ ((always_inline))
#define UNROLL _Pragma ("GCC unroll 8")

/* 2^bits entries of a column at 64 indices: their low eight bits as bytes, each higher one as a mask. */
ALWAYS __m512i look_up (const uint8_t *column, __m512i low, const __mmask64 high[2], const int bits)
{
  __m512i found[8];
  const int pairs = 1 << (bits - 7);
  UNROLL for (int i = 0; i < 8; i++)
    if (i < pairs)
      found[i] = _mm512_permutex2var_epi8 (_mm512_loadu_si512 (column + i * 128), low, _mm512_loadu_si512 (column + i * 128 + 64));
  UNROLL for (int k = 0; k < bits - 7; k++) {
    const __mmask64 upper = k == 0 ? _mm512_movepi8_mask (low) : high[k - 1];
    UNROLL for (int i = 0; i < 4; i++)
      if (i < pairs >> (k + 1))
        found[i] = _mm512_mask_blend_epi8 (upper, found[i * 2], found[i * 2 + 1]);
  }
  return found[0];
}

/* The signs' words, [2 eights of rows][4 octets], of an octet's first and last four columns. */
ALWAYS void load_signs (const uint8_t *signs, const int sign_bits, __m256i half[2])
{
  half[0] = _mm256_loadu_si256 ((const void *) signs);
  if (sign_bits == 8) {
    half[1] = _mm256_loadu_si256 ((const void *) (signs + 32));
    return;
  }
  const __m256i spread = _mm256_setr_epi8 (0, 1, 2, 0, 3, 4, 5, 0, 6, 7, 8, 0, 9, 10, 11, 0, 12, 13, 14, 0, 15, 16, 17, 0, 18, 19, 20, 0, 21, 22, 23, 0);
  half[1] = _mm256_maskz_permutexvar_epi8 (0x77777777, spread, _mm256_maskz_loadu_epi8 (0xffffff, signs + 32));
  __m256i parity = _mm256_xor_si256 (half[0], half[1]);
  parity = _mm256_xor_si256 (parity, _mm256_srli_epi32 (parity, 16));
  parity = _mm256_xor_si256 (parity, _mm256_srli_epi32 (parity, 8));
  half[1] = _mm256_or_si256 (half[1], _mm256_slli_epi32 (parity, 24));
}

/* The codes + 128 of a tile: part[half][j] holds rows 4j .. 4j+3 of the four octets (lanes), four columns to a row. */
ALWAYS void open_tile (__m512i part[2][4], const run *r, const uint8_t *tile, const int dim, const int bits, const int sign_bits)
{
  const int lines = 8 / dim;
  __m512i low[2];
  __mmask64 high[2][2];
  UNROLL for (int l = 0; l < lines; l++) {
    low[l] = _mm512_loadu_si512 (tile + l * 64);
    UNROLL for (int k = 0; k < bits - 8; k++)
      memcpy (&high[l][k], tile + lines * 64 + (k * lines + l) * 8, 8);
  }
  UNROLL for (int half = 0; half < 2; half++) {
    __m512i column[4];
    UNROLL for (int c = 0; c < 4; c++) {
      const int place = half * 4 + c, line = place / dim;
      column[c] = look_up (r->columns + ((size_t) (place % dim) << bits), low[line], high[line], bits);
    }
    const __m512i a = _mm512_unpacklo_epi8 (column[0], column[1]), b = _mm512_unpackhi_epi8 (column[0], column[1]);
    const __m512i c = _mm512_unpacklo_epi8 (column[2], column[3]), d = _mm512_unpackhi_epi8 (column[2], column[3]);
    part[half][0] = _mm512_unpacklo_epi16 (a, c);
    part[half][1] = _mm512_unpackhi_epi16 (a, c);
    part[half][2] = _mm512_unpacklo_epi16 (b, d);
    part[half][3] = _mm512_unpackhi_epi16 (b, d);
  }
  if (!sign_bits)
    return;
  __m256i words[2];
  load_signs (tile + lines * bits * 8, sign_bits, words);
  const __m512i octets = _mm512_setr_epi32 (0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3), four_on = _mm512_set1_epi32 (4);
  const __m512i rows = _mm512_broadcast_i32x4 (_mm_setr_epi32 (0x01010101, 0x02020202, 0x04040404, 0x08080808)), zero = _mm512_setzero_si512 ();
  UNROLL for (int half = 0; half < 2; half++)
    UNROLL for (int j = 0; j < 4; j++) {
      const __m512i at = j < 2 ? octets : _mm512_add_epi32 (octets, four_on);
      const __m512i spread = _mm512_permutexvar_epi32 (at, _mm512_castsi256_si512 (words[half]));
      const __mmask64 minus = _mm512_test_epi8_mask (spread, j % 2 ? _mm512_slli_epi32 (rows, 4) : rows);
      part[half][j] = _mm512_mask_sub_epi8 (part[half][j], minus, zero, part[half][j]);
    }
}

/* Lanes summed up: of the first two octets and of the last two, 16 rows each. */
ALWAYS void sum_lanes (const __m512i acc[4], __m512i sum[2])
{
  const __m512i a = _mm512_add_epi32 (_mm512_shuffle_i32x4 (acc[0], acc[1], 0x88), _mm512_shuffle_i32x4 (acc[0], acc[1], 0xdd));
  const __m512i b = _mm512_add_epi32 (_mm512_shuffle_i32x4 (acc[2], acc[3], 0x88), _mm512_shuffle_i32x4 (acc[2], acc[3], 0xdd));
  sum[0] = _mm512_shuffle_i32x4 (a, b, 0x88);
  sum[1] = _mm512_shuffle_i32x4 (a, b, 0xdd);
}

/* y += scale (xs sum u x) + zero (xs sum x) for tile `t` of the row and the vector whose first tile is `first`. */
ALWAYS __m512 multiply_grid (__m512i part[2][4], const run *r, const xb_acts *acts, size_t first, uint32_t t, __m512 y, const int split)
{
  const size_t at = first + r->tile0 + t;
  const __m512i x = _mm512_castsi256_si512 (_mm256_loadu_si256 ((const void *) (acts->q + at * 32)));
  const __m512i octets = _mm512_setr_epi32 (0, 0, 0, 0, 2, 2, 2, 2, 4, 4, 4, 4, 6, 6, 6, 6);
  const __m512i x0 = _mm512_permutexvar_epi32 (octets, x), x1 = _mm512_permutexvar_epi32 (_mm512_add_epi32 (octets, _mm512_set1_epi32 (1)), x);
  __m512i acc[4], sum[2];
  UNROLL for (int j = 0; j < 4; j++)
    acc[j] = _mm512_dpbusd_epi32 (_mm512_dpbusd_epi32 (_mm512_setzero_si512 (), part[0][j], x0), part[1][j], x1);
  sum_lanes (acc, sum);
  const size_t group = split ? t * 2 : t / r->per_group;
  if (!split)
    sum[0] = _mm512_add_epi32 (sum[0], sum[1]);
  for (int i = 0; i < (split ? 2 : 1); i++) {
    const __m512 scale = _mm512_mul_ps (_mm512_set1_ps (acts->scale[at]), _mm512_load_ps (r->scale + (group + (size_t) i) * 16));
    const float total = split ? acts->sum16[at * 2 + (size_t) i] : acts->sum32[at];
    y = _mm512_fmadd_ps (_mm512_cvtepi32_ps (sum[i]), scale, y);
    y = _mm512_fmadd_ps (_mm512_load_ps (r->zero + (group + (size_t) i) * 16), _mm512_set1_ps (total), y);
  }
  return y;
}

ALWAYS void grid_many (const run *r, const xb_acts *acts, uint32_t i0, uint32_t n, float *acc, const int dim, const int bits, const int sign_bits,
                   const int split)
{
  const size_t row_tiles = acts->cols_padded / 32;
  const uint8_t *ahead = r->ahead;
  for (uint32_t t = 0; t < r->n_tiles; t++, ahead += r->ahead_step) {
    __m512i part[2][4];
    UNROLL for (int line = 0; line < 4; line++)
      __builtin_prefetch (ahead + line * 64, 0, 2);
    open_tile (part, r, r->tiles + (size_t) t * r->tile_bytes, dim, bits, sign_bits);
    for (uint32_t i = 0; i < n; i++)
      _mm512_storeu_ps (acc + i * 16, multiply_grid (part, r, acts, (i0 + i) * row_tiles, t, _mm512_loadu_ps (acc + i * 16), split));
  }
}

/* One vector alone: each lane is scaled by itself, and lanes are summed up only at the end. */
ALWAYS void grid_one (const run *r, const xb_acts *acts, float *acc, const int dim, const int bits, const int sign_bits, const int split)
{
  const __m512i octets = _mm512_setr_epi32 (0, 0, 0, 0, 2, 2, 2, 2, 4, 4, 4, 4, 6, 6, 6, 6), next = _mm512_add_epi32 (octets, _mm512_set1_epi32 (1));
  const float *scale = r->scale, *zero = r->zero;
  const uint8_t *tile = r->tiles, *ahead = r->ahead;
  __m512 y[4], rest = _mm512_setzero_ps ();
  UNROLL for (int j = 0; j < 4; j++)
    y[j] = _mm512_setzero_ps ();
  uint32_t left = r->per_group;
  for (size_t at = r->tile0, end = at + r->n_tiles; at < end; at++, tile += r->tile_bytes, ahead += r->ahead_step) {
    __m512i part[2][4];
    UNROLL for (int line = 0; line < 4; line++)
      __builtin_prefetch (ahead + line * 64, 0, 2);
    open_tile (part, r, tile, dim, bits, sign_bits);
    const __m512i x = _mm512_castsi256_si512 (_mm256_loadu_si256 ((const void *) (acts->q + at * 32)));
    const __m512i x0 = _mm512_permutexvar_epi32 (octets, x), x1 = _mm512_permutexvar_epi32 (next, x);
    const __m512 xs = _mm512_set1_ps (acts->scale[at]);
    UNROLL for (int j = 0; j < 4; j++) {
      const __m512i sum = _mm512_dpbusd_epi32 (_mm512_dpbusd_epi32 (_mm512_setzero_si512 (), part[0][j], x0), part[1][j], x1);
      __m512 s = _mm512_broadcast_f32x4 (_mm_load_ps (scale + j * 4));
      if (split)
        s = _mm512_mask_broadcast_f32x4 (s, 0xff00, _mm_load_ps (scale + 16 + j * 4));
      y[j] = _mm512_fmadd_ps (_mm512_cvtepi32_ps (sum), _mm512_mul_ps (xs, s), y[j]);
    }
    if (split) {
      rest = _mm512_fmadd_ps (_mm512_load_ps (zero), _mm512_set1_ps (acts->sum16[at * 2]), rest);
      rest = _mm512_fmadd_ps (_mm512_load_ps (zero + 16), _mm512_set1_ps (acts->sum16[at * 2 + 1]), rest);
    } else {
      rest = _mm512_fmadd_ps (_mm512_load_ps (zero), _mm512_set1_ps (acts->sum32[at]), rest);
    }
    const int step = split ? 32 : --left == 0 ? 16 : 0;
    scale += step;
    zero += step;
    if (!split && step)
      left = r->per_group;
  }
  const __m512 a = _mm512_add_ps (_mm512_shuffle_f32x4 (y[0], y[1], 0x88), _mm512_shuffle_f32x4 (y[0], y[1], 0xdd));
  const __m512 b = _mm512_add_ps (_mm512_shuffle_f32x4 (y[2], y[3], 0x88), _mm512_shuffle_f32x4 (y[2], y[3], 0xdd));
  rest = _mm512_add_ps (rest, _mm512_add_ps (_mm512_shuffle_f32x4 (a, b, 0x88), _mm512_shuffle_f32x4 (a, b, 0xdd)));
  _mm512_storeu_ps (acc, _mm512_add_ps (_mm512_loadu_ps (acc), rest));
}

typedef struct {
  uint8_t dim, index_bits, sign_bits;
  run_function one, many;
} xi_grid_functions;

#define SHAPES(f) f (8, 8, 7) f (8, 9, 7) f (8, 10, 8) f (4, 8, 7) f (4, 9, 8)
#define GRID(dim, bits, sign_bits)                                                                                             \
  static void grid_##dim##_##bits##_##sign_bits (const run *r, const void *acts, uint32_t i0, uint32_t n, float *acc)          \
  {                                                                                                                            \
    if (r->per_group)                                                                                                          \
      grid_many (r, acts, i0, n, acc, dim, bits, sign_bits, 0);                                                                \
    else                                                                                                                       \
      grid_many (r, acts, i0, n, acc, dim, bits, sign_bits, 1);                                                                \
  }                                                                                                                            \
  static void grid_##dim##_##bits##_##sign_bits##_one (const run *r, const void *acts, uint32_t i0, uint32_t n, float *acc)    \
  {                                                                                                                            \
    if (r->per_group)                                                                                                          \
      grid_one (r, acts, acc, dim, bits, sign_bits, 0);                                                                        \
    else                                                                                                                       \
      grid_one (r, acts, acc, dim, bits, sign_bits, 1);                                                                        \
  }
SHAPES (GRID)

static const xi_grid_functions *find_grid (const xb_grid *grid)
{
#define SHAPE(d, b, s) { d, b, s, grid_##d##_##b##_##s##_one, grid_##d##_##b##_##s },
  static const xi_grid_functions shapes[] = { SHAPES (SHAPE) };
  for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
    if (shapes[i].dim == grid->dim && shapes[i].index_bits == grid->index_bits && shapes[i].sign_bits == grid->sign_bits)
      return &shapes[i];
  return NULL;
}

#define XB_SUFFIX avx512vbmi
#define XI_SHUFFLE(bytes, places) ((xi) _mm512_shuffle_epi8 ((__m512i) (bytes), (__m512i) (places)))
#define XI_PERMUTE(bytes, places) ((xi) _mm512_permutexvar_epi8 ((__m512i) (places), (__m512i) (bytes)))
#define XI_LOOKUP(table, codes) XI_PERMUTE (table, codes)
#define XI_NIBBLE(codes) (codes)
#define XI_GRID(grid) find_grid (grid)
#define DPBUSD(acc, codes, x) _mm512_dpbusd_epi32 ((__m512i) (acc), (__m512i) (codes), (__m512i) (x))
#define XI_TOGETHER 2
#include "kernels/xbit_vnni.h"
#include "kernels/xbit_product_tmpl.h"
