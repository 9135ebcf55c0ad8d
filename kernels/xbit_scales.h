/* xbit_scales.h: scales and offsets of a band as f32, expanded by the conversion the including source is compiled for. */
#ifndef XB_SCALES_H
#define XB_SCALES_H

#include <string.h>

#include "kernels/vec.h"
#include "kernels/xbit_layout.h"

/* 2^(n - 128), in the bits of an f32; below 2^-126 they are no exponent any more. */
static inline float scale_e8m0 (uint8_t n)
{
  const uint32_t bits = n < 2 ? 0x00200000u << n : (uint32_t) (n - 1) << 23;
  float f;
  memcpy (&f, &bits, 4);
  return f;
}

/* The halves of 4 bits of group g, whose pair stands at `pair`. */
static inline vf halves_to_f32 (const uint8_t *pair, uint32_t g)
{
  return __builtin_convertvector (v_from_i8 (pair) >> (int) (g % 2 * 4) & 15, vf);
}

static inline uint32_t super_of (const xb_layout *l, uint32_t g)
{
  return (l->n_panels == 1 ? g * l->group : xb_layout_group_start (l, g)) / XB_SUPER_COLS;
}

/* Groups g0 .. g0+n-1 of the kinds that are a product of two numbers. */
static inline void expand_supers (const xb_layout *l, uint32_t n_groups, const uint8_t *part, uint32_t g0, uint32_t n, float *out)
{
  const uint16_t *supers = (const uint16_t *) (const void *) (part + xb_scale_part (l, n_groups));
  const int is_odd = l->scale_kind == XB_SCALE_GROUP_ODD;
  float super[16] __attribute__ ((aligned (64))) = { 0 };
  uint32_t loaded = UINT32_MAX;
  for (uint32_t g = g0; g < g0 + n; g++, out += 16) {
    const uint32_t s = super_of (l, g);
    if (s != loaded)
      half_to_f32 (supers + (size_t) s * 16, super, 16);
    loaded = s;
    if (is_odd)
      for (uint32_t r = 0; r < 16; r += XB_VL)
        v_store (out + r, v_load (super + r) * (halves_to_f32 (part + g / 2 * 16 + r, g) * v_set (2) + v_set (1)));
    else
      for (uint32_t r = 0; r < 16; r += XB_VL)
        v_store (out + r, v_load (super + r) * __builtin_convertvector (v_from_i8 (part + g * 16 + r), vf));
  }
}

static inline void expand_squares (const xb_layout *l, uint32_t n_groups, const uint8_t *part, uint32_t g0, uint32_t n, float *out)
{
  const uint16_t *supers = (const uint16_t *) (const void *) (part + xb_scale_part (l, n_groups));
  for (uint32_t g = g0; g < g0 + n; g++, out += 16)
    for (uint32_t r = 0; r < 16; r += XB_VL) {
      const vf root = (halves_to_f32 (part + g / 2 * 16 + r, g) + v_set (1)) * v_set (0.0625f);
      v_store (out + r, v_set (half_to (supers[g])) * (root * root));
    }
}

/* Unsigned 8-bit floats of 4 exponent and 3 mantissa bits: shifted to their place in an f32 they are 2^120 too small. */
static inline void expand_e4m3 (const xb_layout *l, uint32_t n_groups, const uint8_t *part, uint32_t g0, uint32_t n, float *out)
{
  float super[16] __attribute__ ((aligned (64)));
  memcpy (super, part + xb_scale_part (l, n_groups), sizeof super);
  for (uint32_t g = g0; g < g0 + n; g++, out += 16)
    for (uint32_t r = 0; r < 16; r += XB_VL) {
      const vi bits = (v_from_i8 (part + g * 16 + r) & 127) << 20;
      v_store (out + r, v_load (super + r) * ((vf) bits * v_set (0x1p120f)));
    }
}

static inline void expand_part (const xb_layout *l, uint32_t n_groups, const uint8_t *part, uint32_t g0, uint32_t n, float *out)
{
  switch (l->scale_kind) {
  case XB_SCALE_ROW_F16: case XB_SCALE_GROUP_F16:
    half_to_f32 ((const uint16_t *) (const void *) part + (size_t) g0 * 16, out, (size_t) n * 16);
    break;
  case XB_SCALE_ROW_F32: case XB_SCALE_GROUP_F32:
    memcpy (out, part + (size_t) g0 * 64, (size_t) n * 64);
    break;
  case XB_SCALE_GROUP_E8M0:
    for (size_t i = 0; i < (size_t) n * 16; i++)
      out[i] = scale_e8m0 (part[(size_t) g0 * 16 + i]);
    break;
  case XB_SCALE_GROUP_E4M3:
    expand_e4m3 (l, n_groups, part, g0, n, out);
    break;
  case XB_SCALE_GROUP_SQUARE:
    expand_squares (l, n_groups, part, g0, n, out);
    break;
  default:
    expand_supers (l, n_groups, part, g0, n, out);
  }
}

static inline const uint8_t *band_scales (const xb_matrix *m, uint32_t band)
{
  return xb_band (m, band) + m->tile_bytes[m->band_stripe[band]];
}

/* Offsets as they are stored: m or z; 0 where the matrix has none. */
static inline void stored_offsets (const xb_matrix *m, uint32_t band, uint32_t g0, uint32_t n, float *offset)
{
  const xb_layout *l = &m->layout;
  const uint8_t *part = band_scales (m, band) + xb_offset_begin (l, m->n_groups);
  if (l->has_offset == XB_OFFSET_STORED)
    expand_part (l, m->n_groups, part, g0, n, offset);
  else
    for (size_t i = 0; i < (size_t) n * 16; i++)
      offset[i] = l->has_offset ? (float) part[(size_t) g0 * 16 + i] : 0;
}

/* Groups g0 .. g0+n-1 (all of one panel) of a band as f32 [n][16], so that w = scale u + offset; offset may be NULL. */
static inline void expand_scales (const xb_matrix *m, uint32_t band, uint32_t g0, uint32_t n, float *scale, float *offset)
{
  expand_part (&m->layout, m->n_groups, band_scales (m, band), g0, n, scale);
  if (!offset)
    return;
  stored_offsets (m, band, g0, n, offset);
  if (m->layout.has_offset == XB_OFFSET_ZERO)
    for (size_t i = 0; i < (size_t) n * 16; i++)
      offset[i] *= -scale[i];
}

#endif
