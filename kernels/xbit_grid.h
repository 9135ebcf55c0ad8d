/* xbit_grid.h: tiles of grid cells: packed, unpacked, and made into the bytes that any product multiplies. The 32 columns of a tile are four
 * octets; an index stands for an octet or half of one. A tile holds the low eight bits of its indices, bytes [8 / dim halves][4 octets][16 rows];
 * each higher bit of them as masks of 16 rows in the same order; then the signs (1 = minus): for the rows' first and second eight, for each
 * octet, four bytes for its first four columns, bit = row; then as many of its last four, or three, the eighth being the parity of the others. */
#ifndef XB_GRID_H
#define XB_GRID_H

#include "kernels/xbit_bytes.h"
#include "kernels/xbit_layout.h"

/* Place of a row's vector v among the indices of a tile. */
static inline uint32_t grid_place (const xb_grid *g, uint32_t row, uint32_t v)
{
  const uint32_t halves = 8u / g->dim;
  return (v % halves * 4 + v / halves) * 16 + row;
}

static inline uint32_t grid_index (const xb_grid *g, const uint8_t *tile, uint32_t row, uint32_t v)
{
  const uint32_t n = 512 / g->dim, at = grid_place (g, row, v);
  uint32_t index = tile[at];
  for (uint32_t k = 0; k + 8 < g->index_bits; k++)
    index |= (uint32_t) (tile[n + k * (n / 8) + at / 8] >> (at % 8) & 1) << (8 + k);
  return index;
}

/* The signs of a tile, [2 eights of rows][4 octets][2 halves], a byte a column, bit = row. */
static inline void grid_signs (const xb_grid *g, const uint8_t *tile, uint32_t signs[16])
{
  const uint8_t *from = tile + 64u * g->index_bits / g->dim;
  for (uint32_t i = 0; i < 8; i++) {
    uint32_t first = 0, second = 0;
    if (g->sign_bits) {
      memcpy (&first, from + i * 4, 4);
      if (g->sign_bits == 8) {
        memcpy (&second, from + 32 + i * 4, 4);
      } else { /* three bytes, and one that nobody asked for: never beyond the tile */
        memcpy (&second, from + 31 + i * 3, 4);
        second >>= 8;
        uint32_t parity = first ^ second;
        parity ^= parity >> 16;
        second |= (parity ^ parity >> 8) << 24;
      }
    }
    signs[i * 2] = first;
    signs[i * 2 + 1] = second;
  }
}

static inline void pack_grid_tile (const xb_grid *g, uint8_t *tile, const uint8_t *codes, size_t stride)
{
  const uint32_t n = 512 / g->dim;
  uint8_t *signs = tile + 64u * g->index_bits / g->dim;
  for (uint32_t row = 0; row < 16; row++)
    for (uint32_t v = 0; v < 32 / g->dim; v++) {
      const uint8_t *from = codes + row * stride + v * g->dim;
      const uint32_t index = (from[0] & 127u) | (from[1] & 127u) << 7, at = grid_place (g, row, v);
      tile[at] = (uint8_t) index;
      for (uint32_t k = 0; k + 8 < g->index_bits; k++)
        tile[n + k * (n / 8) + at / 8] |= (uint8_t) ((index >> (8 + k) & 1) << (at % 8));
    }
  for (uint32_t row = 0; row < 16 && g->sign_bits; row++)
    for (uint32_t c = 0; c < 32; c++) {
      const uint32_t octet = row / 8 * 4 + c / 8, second = g->sign_bits == 8 ? 4 : 3;
      if (c % 8 < g->sign_bits)
        signs[c % 8 < 4 ? octet * 4 + c % 4 : 32 + octet * second + c % 4] |= (uint8_t) ((codes[row * stride + c] >> 7) << (row % 8));
    }
}

static inline void unpack_grid_tile (const xb_grid *g, const uint8_t *tile, uint8_t *codes, size_t stride)
{
  uint32_t signs[16];
  grid_signs (g, tile, signs);
  for (uint32_t row = 0; row < 16; row++)
    for (uint32_t c = 0; c < 32; c++) {
      const uint32_t place = c % g->dim, index = grid_index (g, tile, row, c / g->dim);
      const uint32_t minus = signs[(row / 8 * 4 + c / 8) * 2 + c % 8 / 4] >> (c % 4 * 8 + row % 8) & 1;
      codes[row * stride + c] = (uint8_t) ((place == 0 ? index & 127 : place == 1 ? index >> 7 : 0) | minus << 7);
    }
}

/* Indices and signs of one tile, for grid_part. */
typedef struct {
  uint16_t index[128]; /* in the tile's own order */
  uint32_t signs[16];
} grid_tile;

typedef uint16_t eight_words __attribute__ ((vector_size (16), aligned (2), may_alias));

static inline eight_words eight_from_u8 (const uint8_t *p)
{
#if defined __SSE4_1__
  return (eight_words) _mm_cvtepu8_epi16 (_mm_loadl_epi64 ((const void *) p));
#elif defined __aarch64__
  return (eight_words) vmovl_u8 (vld1_u8 (p));
#else
  eight_words v = { 0 };
  for (int i = 0; i < 8; i++)
    v[i] = p[i];
  return v;
#endif
}

static inline __attribute__ ((always_inline)) void grid_open (grid_tile *t, const xb_grid *g, const uint8_t *tile, const int dim)
{
  const uint32_t n = 512u / (uint32_t) dim;
  const eight_words bits = { 1, 2, 4, 8, 16, 32, 64, 128 };
  for (uint32_t i = 0; i < n; i += 8) {
    eight_words index = eight_from_u8 (tile + i);
    for (uint32_t k = 0; k + 8 < g->index_bits; k++) {
      const eight_words mask = bits & tile[n + k * (n / 8) + i / 8];
      index |= (eight_words) (mask == bits) & (uint16_t) (256u << k);
    }
    *(eight_words *) (t->index + i) = index;
  }
  grid_signs (g, tile, t->signs);
}

typedef uint32_t grid_words __attribute__ ((vector_size (XB_VL * 4)));
typedef uint32_t four_words __attribute__ ((vector_size (16)));
typedef uint64_t two_octets __attribute__ ((vector_size (16)));

static inline uint64_t grid_octet (const int8_t *values, uint32_t index)
{
  uint64_t octet;
  memcpy (&octet, values + index * 8u, 8);
  return octet;
}

static inline uint32_t grid_half (const int8_t *values, uint32_t index)
{
  uint32_t half;
  memcpy (&half, values + index * 4u, 4);
  return half;
}

static inline grid_words join_words (const four_words *w)
{
#if XB_VL == 4
  return w[0];
#elif XB_VL == 8
  return __builtin_shufflevector (w[0], w[1], 0, 1, 2, 3, 4, 5, 6, 7);
#else
  typedef uint32_t half_words __attribute__ ((vector_size (32)));
  const half_words a = __builtin_shufflevector (w[0], w[1], 0, 1, 2, 3, 4, 5, 6, 7), b = __builtin_shufflevector (w[2], w[3], 0, 1, 2, 3, 4, 5, 6, 7);
  return __builtin_shufflevector (a, b, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
#endif
}

/* The values of XB_VL rows of an octet, its first and its last four columns; kept in registers from the look-up on. */
static inline __attribute__ ((always_inline)) void grid_look_up (grid_words found[2], const uint16_t *index, const int8_t *values, const int dim)
{
  four_words part[2][XB_VL / 4];
#pragma GCC unroll 4
  for (int i = 0; i < XB_VL / 4; i++) {
    const uint16_t *at = index + i * 4;
    if (dim == 8) {
      const two_octets a = { grid_octet (values, at[0]), grid_octet (values, at[1]) }, b = { grid_octet (values, at[2]), grid_octet (values, at[3]) };
      part[0][i] = __builtin_shufflevector ((four_words) a, (four_words) b, 0, 2, 4, 6);
      part[1][i] = __builtin_shufflevector ((four_words) a, (four_words) b, 1, 3, 5, 7);
    } else {
      part[0][i] = (four_words) { grid_half (values, at[0]), grid_half (values, at[1]), grid_half (values, at[2]), grid_half (values, at[3]) };
      at += 64;
      part[1][i] = (four_words) { grid_half (values, at[0]), grid_half (values, at[1]), grid_half (values, at[2]), grid_half (values, at[3]) };
    }
  }
  found[0] = join_words (part[0]);
  found[1] = join_words (part[1]);
}

/* The codes of XB_VL rows of a tile, values + 128. */
static inline __attribute__ ((always_inline)) void grid_part (xi codes[8], const grid_tile *t, const int8_t *values, const int dim, const int has_signs, int part)
{
  const uint32_t row0 = (uint32_t) part * XB_VL;
#if XB_VL == 16
  const grid_words bits = { 1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128 }, upper = { 0, 0, 0, 0, 0, 0, 0, 0, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u };
#elif XB_VL == 8
  const grid_words bits = { 1, 2, 4, 8, 16, 32, 64, 128 };
#else
  const grid_words bits = row0 % 8 ? (grid_words) { 16, 32, 64, 128 } : (grid_words) { 1, 2, 4, 8 };
#endif
  const xi select = (xi) (bits * 0x01010101u);
#pragma GCC unroll 4
  for (uint32_t octet = 0; octet < 4; octet++) {
    grid_words found[2];
    grid_look_up (found, t->index + octet * 16 + row0, values, dim);
#pragma GCC unroll 2
    for (uint32_t half = 0; half < 2; half++) {
      xi v = (xi) found[half];
      if (has_signs) {
        const uint32_t *signs = t->signs + octet * 2 + half;
        grid_words minus = (grid_words) { 0 } + signs[row0 / 8 * 8];
#if XB_VL == 16
        minus = (minus & ~upper) | (((grid_words) { 0 } + signs[8]) & upper);
#endif
        const xi mask = (xi) (((xi) minus & select) == select);
        v = (v ^ mask) - mask;
      }
      codes[octet * 2 + half] = v ^ xi_set (128);
    }
  }
}

/* The tile as one of depth 8 whose codes are the values + 128. */
static inline void expand_grid_tile (const xb_grid *g, const int8_t *values, const uint8_t *tile, uint8_t out[512])
{
  grid_tile t;
  xi codes[8];
  grid_open (&t, g, tile, g->dim);
  for (int part = 0; part < 16 / XB_VL; part++) {
    grid_part (codes, &t, values, g->dim, 1, part);
    for (int q = 0; q < 8; q++)
      xi_store (out + q * 64 + part * XB_VL * 4, codes[q]);
  }
}

#endif
