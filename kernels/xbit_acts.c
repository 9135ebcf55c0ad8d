/* xbit_acts.c: quantized activations: their memory, and the scalar reference of their making. */
#include <math.h>
#include <string.h>

#include "kernels/table.h"
#include "kernels/xbit_layout.h"

typedef struct {
  size_t q, scale, sum, sum16, sum32, total;
} places;

static places place (uint32_t cols, uint32_t n)
{
  size_t padded = xb_cols_padded (cols), tiles = padded / 32;
  places p = { 0 };
  p.scale = p.q + xb_pad64 (padded * n);
  p.sum = p.scale + xb_pad64 (tiles * n * sizeof (float));
  p.sum16 = p.sum + xb_pad64 (tiles * 2 * n * sizeof (int16_t));
  p.sum32 = p.sum16 + xb_pad64 (tiles * 2 * n * sizeof (float));
  p.total = p.sum32 + xb_pad64 (tiles * n * sizeof (float));
  return p;
}

size_t xb_acts_bytes (uint32_t cols, uint32_t n)
{
  return place (cols, n).total;
}

void xb_acts_init (xb_acts *acts, void *memory, uint32_t cols, uint32_t n)
{
  places p = place (cols, n);
  uint8_t *base = memory;
  *acts = (xb_acts) {
    .cols = cols, .cols_padded = xb_cols_padded (cols), .n = n,
    .q = (int8_t *) base + p.q,
    .scale = (float *) (void *) (base + p.scale),
    .sum = (int16_t *) (void *) (base + p.sum),
    .sum16 = (float *) (void *) (base + p.sum16),
    .sum32 = (float *) (void *) (base + p.sum32),
  };
}

xb_acts xb_acts_from (const xb_acts *acts, uint32_t i0, uint32_t n)
{
  const size_t tiles = acts->cols_padded / 32;
  return (xb_acts) {
    .cols = acts->cols, .cols_padded = acts->cols_padded, .n = n,
    .q = acts->q + i0 * tiles * 32,
    .scale = acts->scale + i0 * tiles,
    .sum = acts->sum + i0 * tiles * 2,
    .sum16 = acts->sum16 + i0 * tiles * 2,
    .sum32 = acts->sum32 + i0 * tiles,
  };
}

void xb_acts_quantize (xb_acts *acts, uint32_t i, const float *x, int bits)
{
  xb_table_get ()->product.acts_quantize (acts, i, x, bits);
}
