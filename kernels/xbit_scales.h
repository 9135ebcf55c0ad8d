/* xbit_scales.h: scales and offsets of a band as f32, expanded by the conversion the including source is compiled for. */
#ifndef XB_SCALES_H
#define XB_SCALES_H

#include <string.h>

#include "kernels/vec.h"
#include "kernels/xbit_layout.h"

static inline void expand_part (const xb_layout *l, uint32_t n_groups, const uint8_t *part, uint32_t g0, uint32_t n, float *out)
{
  const uint16_t *halves = (const uint16_t *) (const void *) part;
  if (l->scale_kind != XB_SCALE_GROUP_I8) {
    half_to_f32 (halves + (size_t) g0 * 16, out, (size_t) n * 16);
    return;
  }
  const uint16_t *supers = (const uint16_t *) (const void *) (part + xb_scale_part (l, n_groups));
  float super[16];
  uint32_t loaded = UINT32_MAX;
  for (uint32_t g = g0; g < g0 + n; g++, out += 16) {
    uint32_t s = (l->n_panels == 1 ? g * l->group : xb_layout_group_start (l, g)) / XB_SUPER_COLS;
    if (s != loaded)
      half_to_f32 (supers + (size_t) s * 16, super, 16);
    loaded = s;
    for (int r = 0; r < 16; r++)
      out[r] = super[r] * (float) (int8_t) part[(size_t) g * 16 + (size_t) r];
  }
}

/* Groups g0 .. g0+n-1 (all of one panel) of a band as f32 [n][16]; offset may be NULL (and is 0 where the matrix has none). */
static inline void expand_scales (const xb_matrix *m, uint32_t band, uint32_t g0, uint32_t n, float *scale, float *offset)
{
  const xb_layout *l = &m->layout;
  const uint8_t *part = xb_band (m, band) + m->tile_bytes[m->band_stripe[band]];
  expand_part (l, m->n_groups, part, g0, n, scale);
  if (offset && l->has_offset)
    expand_part (l, m->n_groups, part + xb_scale_part (l, m->n_groups) + xb_super_part (l), g0, n, offset);
  else if (offset)
    memset (offset, 0, (size_t) n * 16 * sizeof (float));
}

#endif
