/* lines.h: lines of numbers side by side, as dense products and attention read them; for the sources compiled per instruction set. */
#ifndef XB_LINES_H
#define XB_LINES_H

#include "kernels/vec.h"

/* Slivers of `width` lines, of which `lines` in all are there, the rest zeros; sliver after sliver, in each the lines' numbers at k beside each other. Here a line's
 * numbers are beside each other in memory. */
static inline __attribute__ ((always_inline)) void pack_lines (float *out, const uint32_t width, const float *x, size_t ldx, uint32_t lines, uint32_t kc)
{
  for (uint32_t at = 0; at < lines; at += width, x += width * ldx, out += (size_t) kc * width) {
    const uint32_t n = lines - at < width ? lines - at : width;
    uint32_t k = 0;
    for (; k + XB_VL <= kc; k += XB_VL)
      for (uint32_t i = 0; i < width; i += XB_VL) {
        vf r[XB_VL];
#pragma GCC unroll 16
        for (uint32_t u = 0; u < XB_VL; u++)
          r[u] = i + u < n ? v_load (x + (i + u) * ldx + k) : v_set (0);
        v_transpose (r);
#pragma GCC unroll 16
        for (uint32_t u = 0; u < XB_VL; u++)
          memcpy (out + (k + u) * width + i, &r[u], (width - i < XB_VL ? width - i : XB_VL) * sizeof (float));
      }
    for (; k < kc; k++)
      for (uint32_t i = 0; i < width; i++)
        out[k * width + i] = i < n ? x[i * ldx + k] : 0;
  }
}

#endif
