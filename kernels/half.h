/* half.h: IEEE half precision, one value at a time, for the sources that are compiled per instruction set. */
#ifndef XB_HALF_H
#define XB_HALF_H

#include <stdint.h>
#include <string.h>

static inline float half_to (uint16_t h)
{
  uint32_t sign = (uint32_t) (h & 0x8000) << 16, exponent = h >> 10 & 31, fraction = h & 1023, bits;
  float f;
  if (exponent == 0) { /* zero or subnormal: fraction 2^-24 */
    f = (float) fraction * 0x1p-24f;
    return sign ? -f : f;
  }
  bits = exponent == 31 ? sign | 0x7f800000 | fraction << 13 : sign | (exponent + 112) << 23 | fraction << 13;
  memcpy (&f, &bits, 4);
  return f;
}

/* Round to nearest, ties to even. */
static inline uint16_t half_from (float f)
{
  uint32_t bits;
  memcpy (&bits, &f, 4);
  uint16_t sign = (uint16_t) (bits >> 16 & 0x8000);
  bits &= 0x7fffffff;
  if (bits > 0x7f800000)
    return (uint16_t) (sign | 0x7e00);
  if (bits >= 0x477ff000) /* rounds to 2^16 or more */
    return (uint16_t) (sign | 0x7c00);
  if (bits < 0x38800000) { /* subnormal: units of 2^-24 */
    float magnitude;
    memcpy (&magnitude, &bits, 4);
    magnitude += 0.5f; /* the addition rounds to 2^-24, the last place of 0.5 */
    uint32_t rounded;
    memcpy (&rounded, &magnitude, 4);
    return (uint16_t) (sign | (rounded - 0x3f000000));
  }
  bits += 0xfff + (bits >> 13 & 1);
  return (uint16_t) (sign | ((bits - 0x38000000) >> 13));
}

#endif
