/* xbit_grid.h: tiles of grid cells: packed, unpacked, and made into a tile of depth 8 that any product multiplies. A tile holds the low eight bits of
 * its indices, [32 / dim][16 rows] bytes; each higher bit of them as [32 / dim] masks of 16 rows; then the signs, either as a plane of one bit (byte
 * row * 4 + column, bit = quad) or, with seven to eight weights, its three columns and the even bits of the fourth. */
#ifndef XB_GRID_H
#define XB_GRID_H

#include "kernels/xbit_bytes.h"
#include "kernels/xbit_layout.h"

static inline uint32_t grid_index (const xb_grid *g, const uint8_t *tile, uint32_t row, uint32_t vector)
{
  const uint32_t n = 512 / g->dim, at = vector * 16 + row;
  uint32_t index = tile[at];
  for (uint32_t k = 0; k + 8 < g->index_bits; k++)
    index |= (uint32_t) (tile[n + k * (n / 8) + at / 8] >> (at % 8) & 1) << (8 + k);
  return index;
}

/* The plane of signs of a tile, [16][4] bytes. */
static inline void grid_signs (const xb_grid *g, const uint8_t *tile, uint8_t plane[64])
{
  const uint8_t *signs = tile + 64u * g->index_bits / g->dim;
  if (g->sign_bits == 8)
    memcpy (plane, signs, 64);
  else if (g->sign_bits == 0)
    memset (plane, 0, 64);
  else
    for (uint32_t row = 0; row < 16; row++) {
      const uint32_t four = signs[48 + row / 2] >> (row % 2 * 4) & 15;
      const uint32_t even = (four & 1) | (four & 2) << 1 | (four & 4) << 2 | (four & 8) << 3;
      const uint32_t all = signs[row * 3] ^ signs[row * 3 + 1] ^ signs[row * 3 + 2] ^ even;
      memcpy (plane + row * 4, signs + row * 3, 3);
      plane[row * 4 + 3] = (uint8_t) (even | ((all ^ all >> 1) & 0x55) << 1);
    }
}

static inline void pack_grid_tile (const xb_grid *g, uint8_t *tile, const uint8_t *codes, size_t stride)
{
  const uint32_t n = 512 / g->dim;
  uint8_t *signs = tile + 64u * g->index_bits / g->dim;
  for (uint32_t row = 0; row < 16; row++)
    for (uint32_t v = 0; v < 32 / g->dim; v++) {
      const uint8_t *from = codes + row * stride + v * g->dim;
      const uint32_t index = (from[0] & 127u) | (from[1] & 127u) << 7, at = v * 16 + row;
      tile[at] = (uint8_t) index;
      for (uint32_t k = 0; k + 8 < g->index_bits; k++)
        tile[n + k * (n / 8) + at / 8] |= (uint8_t) ((index >> (8 + k) & 1) << (at % 8));
    }
  for (uint32_t row = 0; row < 16 && g->sign_bits; row++)
    for (uint32_t c = 0; c < 32; c++) {
      const uint32_t minus = codes[row * stride + c] >> 7, quad = c / 4;
      if (g->sign_bits == 8)
        signs[row * 4 + c % 4] |= (uint8_t) (minus << quad);
      else if (c % 4 < 3)
        signs[row * 3 + c % 4] |= (uint8_t) (minus << quad);
      else if (quad % 2 == 0)
        signs[48 + row / 2] |= (uint8_t) (minus << (row % 2 * 4 + quad / 2));
    }
}

static inline void unpack_grid_tile (const xb_grid *g, const uint8_t *tile, uint8_t *codes, size_t stride)
{
  uint8_t plane[64];
  grid_signs (g, tile, plane);
  for (uint32_t row = 0; row < 16; row++)
    for (uint32_t c = 0; c < 32; c++) {
      const uint32_t place = c % g->dim, index = grid_index (g, tile, row, c / g->dim);
      codes[row * stride + c] = (uint8_t) ((place == 0 ? index & 127 : place == 1 ? index >> 7 : 0) | (plane[row * 4 + c % 4] >> (c / 4) & 1) << 7);
    }
}

/* The tile as one of depth 8 whose codes are the values + 128. */
static inline void expand_grid_tile (const xb_grid *g, const int8_t *values, const uint8_t *tile, uint8_t out[512])
{
  const uint32_t n = 512 / g->dim, planes = g->index_bits - 8u;
  uint8_t signs[64] __attribute__ ((aligned (64)));
  for (uint32_t v = 0; v < 32 / g->dim; v++) {
    uint16_t index[16];
    for (uint32_t row = 0; row < 16; row++)
      index[row] = tile[v * 16 + row];
    for (uint32_t k = 0; k < planes; k++) {
      uint16_t mask;
      memcpy (&mask, tile + n + k * (n / 8) + v * 2, 2);
      for (uint32_t row = 0; row < 16; row++)
        index[row] |= (uint16_t) ((mask >> row & 1) << (8 + k));
    }
    if (g->dim == 4)
      for (uint32_t row = 0; row < 16; row++)
        memcpy (out + v * 64 + row * 4, values + index[row] * 4u, 4);
    else
      for (uint32_t row = 0; row < 16; row++) {
        memcpy (out + v * 128 + row * 4, values + index[row] * 8u, 4);
        memcpy (out + v * 128 + 64 + row * 4, values + index[row] * 8u + 4, 4);
      }
  }
  grid_signs (g, tile, signs);
  for (uint32_t at = 0; at < 64; at += sizeof (xi)) {
    const xi plane = xi_load (signs + at);
    for (int q = 0; q < 8; q++) {
      const xi minus = xi_set (0) - (xi_right (plane, q) & xi_set (1));
      xi_store (out + q * 64 + at, ((xi_load (out + q * 64 + at) ^ minus) - minus) ^ xi_set (128));
    }
  }
}

#endif
