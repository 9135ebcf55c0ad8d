/* xbit_exl3.h: tiles of EXL3 cells, one code at a time: where it lies, and what 16 bits of the sequence stand for.
 *
 * The 256 codes of 16 rows x 16 columns are one ring of bits in the order of xb_exl3_row and xb_exl3_column, the highest bit of a code first; a weight's state is its own
 * code's bits and those before, 16 in all. A tile holds two such rings, of its left and its right 16 columns, in words of 32 bits (first bit highest): line k
 * of 64 bytes is word k of each eighth (32 codes, `depth` words) of the left ring, then of the right one. So a state lies in one line, or in the same lane of
 * two, whatever the row. */
#ifndef XB_EXL3_H
#define XB_EXL3_H

#include <string.h>

#include "kernels/xbit_layout.h"

static inline size_t exl3_word_at (uint32_t k, uint32_t ring, uint32_t eighth)
{
  return k * 64 + (ring * 8 + eighth) * 4;
}

static inline uint32_t exl3_word (const uint8_t *tile, uint32_t k, uint32_t ring, uint32_t eighth)
{
  uint32_t word;
  memcpy (&word, tile + exl3_word_at (k, ring, eighth), 4);
  return word;
}

static inline uint32_t exl3_place (uint32_t r, uint32_t c)
{
  return r % 8 * 32 + c % 8 / 2 * 8 + r / 8 * 4 + c / 8 * 2 + c % 2;
}

/* The 16 bits that end with those of row r, column c of a tile. */
static inline uint32_t exl3_state (const uint8_t *tile, uint32_t depth, uint32_t r, uint32_t c)
{
  const uint32_t t = exl3_place (r, c % 16), eighth = t / 32, ring = c / 16, last = t % 32 * depth + depth - 1, k = last / 32;
  const uint32_t before = k ? exl3_word (tile, k - 1, ring, eighth) : exl3_word (tile, depth - 1, ring, (eighth + 7) % 8);
  return (uint32_t) (((uint64_t) before << 32 | exl3_word (tile, k, ring, eighth)) >> (31 - last % 32)) & 0xffff;
}

static inline void pack_exl3_tile (uint8_t *tile, uint32_t depth, const uint8_t *codes, size_t stride)
{
  for (uint32_t ring = 0; ring < 2; ring++, codes += 16)
    for (uint32_t eighth = 0; eighth < 8; eighth++) {
      uint64_t bits = 0;
      for (uint32_t t = eighth * 32, there = 0, k = 0; k < depth; t++) {
        bits = bits << depth | (codes[xb_exl3_row (t) * stride + xb_exl3_column (t)] & ((1u << depth) - 1));
        there += depth;
        if (there >= 32) {
          const uint32_t word = (uint32_t) (bits >> (there - 32));
          memcpy (tile + exl3_word_at (k++, ring, eighth), &word, 4);
          there -= 32;
        }
      }
    }
}

static inline void unpack_exl3_tile (const uint8_t *tile, uint32_t depth, uint8_t *codes, size_t stride)
{
  for (uint32_t r = 0; r < 16; r++)
    for (uint32_t c = 0; c < 32; c++)
      codes[r * stride + c] = (uint8_t) (exl3_state (tile, depth, r, c) & ((1u << depth) - 1));
}

#endif
