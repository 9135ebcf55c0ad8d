/* ops_tmpl.h: norms, rope, activations, softmax, Hadamard, KV and attention, one source compiled per instruction set. The including file
 * defines XB_VL (float lanes) and XB_SUFFIX; the vectors are the compiler's own (gcc and clang vector extensions). */
#include <math.h>
#include <string.h>

#include "kernels/half.h"
#include "kernels/table.h"
#include "kernels/vec.h"

static void rms_norm (const float *x, const float *gain, float *out, uint32_t n, float eps)
{
  vf acc = v_set (0);
  float sum = 0;
  uint32_t i = 0;
  for (; i + XB_VL <= n; i += XB_VL)
    acc += v_load (x + i) * v_load (x + i);
  sum = v_sum (acc);
  for (; i < n; i++)
    sum += x[i] * x[i];
  float scale = 1.0f / sqrtf (sum / (float) n + eps);
  for (i = 0; i + XB_VL <= n; i += XB_VL) {
    vf v = v_load (x + i) * v_set (scale);
    v_store (out + i, gain ? v * v_load (gain + i) : v);
  }
  for (; i < n; i++)
    out[i] = x[i] * scale * (gain ? gain[i] : 1.0f);
}

static void layer_norm (const float *x, const float *gain, const float *bias, float *out, uint32_t n, float eps)
{
  double sum = 0, square = 0;
  for (uint32_t i = 0; i < n; i++)
    sum += (double) x[i];
  float mean = (float) (sum / n);
  for (uint32_t i = 0; i < n; i++)
    square += (double) (x[i] - mean) * (double) (x[i] - mean);
  float scale = 1.0f / sqrtf ((float) (square / n) + eps);
  for (uint32_t i = 0; i < n; i++)
    out[i] = (x[i] - mean) * scale;
  /* Loops of their own: inside one, a compiler may read what is not there under a mask, and emulators do not always honour it. */
  for (uint32_t i = 0; gain && i < n; i++)
    out[i] *= gain[i];
  for (uint32_t i = 0; bias && i < n; i++)
    out[i] += bias[i];
}

static void rope_pairs (float *x, const float *cos_sin, uint32_t n_rot)
{
  for (uint32_t i = 0; i < n_rot / 2; i++) {
    float a = x[2 * i], b = x[2 * i + 1], c = cos_sin[2 * i], s = cos_sin[2 * i + 1];
    x[2 * i] = a * c - b * s;
    x[2 * i + 1] = a * s + b * c;
  }
}

static void rope_halves (float *x, const float *cos_sin, uint32_t n_rot)
{
  uint32_t half = n_rot / 2;
  for (uint32_t i = 0; i < half; i++) {
    float a = x[i], b = x[i + half], c = cos_sin[2 * i], s = cos_sin[2 * i + 1];
    x[i] = a * c - b * s;
    x[i + half] = a * s + b * c;
  }
}

static void silu_mul (const float *gate, const float *up, float *out, size_t n)
{
  size_t i = 0;
  for (; i + XB_VL <= n; i += XB_VL) {
    vf g = v_load (gate + i);
    v_store (out + i, g / (v_set (1) + v_exp (-g)) * v_load (up + i));
  }
  for (; i < n; i++)
    out[i] = gate[i] / (1.0f + s_exp (-gate[i])) * up[i];
}

/* tanh form: x sigmoid (2 sqrt(2/pi) (x + 0.044715 x^3)) */
static void gelu_mul (const float *gate, const float *up, float *out, size_t n)
{
  const float a = 1.5957691216057308f, b = 0.044715f;
  size_t i = 0;
  for (; i + XB_VL <= n; i += XB_VL) {
    vf g = v_load (gate + i), u = v_set (a) * (g + v_set (b) * g * g * g);
    v_store (out + i, g / (v_set (1) + v_exp (-u)) * v_load (up + i));
  }
  for (; i < n; i++) {
    float g = gate[i];
    out[i] = g / (1.0f + s_exp (-(a * (g + b * g * g * g)))) * up[i];
  }
}

static void add (float *x, const float *y, size_t n)
{
  for (size_t i = 0; i < n; i++)
    x[i] += y[i];
}

static void scale (float *x, float s, size_t n)
{
  for (size_t i = 0; i < n; i++)
    x[i] *= s;
}

static float largest (const float *x, size_t n)
{
  size_t i = 0;
  float best = -INFINITY;
  if (n >= XB_VL) {
    vf m = v_load (x);
    for (i = XB_VL; i + XB_VL <= n; i += XB_VL)
      m = v_max (m, v_load (x + i));
    best = v_largest (m);
  }
  for (const float *last = x + n, *p = x + i; p < last; p++)
    best = *p > best ? *p : best;
  return best;
}

static float log_sum_exp (const float *x, size_t n)
{
  float max = largest (x, n);
  if (!(max > -INFINITY))
    return max;
  double sum = 0;
  size_t i = 0;
  for (; i + XB_VL <= n; i += XB_VL)
    sum += (double) v_sum (v_exp (v_load (x + i) - v_set (max)));
  for (; i < n; i++)
    sum += (double) s_exp (x[i] - max);
  return max + (float) log (sum);
}

static float softmax (float *x, size_t n)
{
  float max = largest (x, n);
  double sum = 0;
  size_t i = 0;
  for (; i + XB_VL <= n; i += XB_VL) {
    vf e = v_exp (v_load (x + i) - v_set (max));
    v_store (x + i, e);
    sum += (double) v_sum (e);
  }
  for (; i < n; i++) {
    x[i] = s_exp (x[i] - max);
    sum += (double) x[i];
  }
  scale (x, (float) (1.0 / sum), n);
  return max + (float) log (sum);
}

static uint32_t argmax (const float *x, size_t n)
{
  float max = largest (x, n);
  for (size_t i = 0; i < n; i++)
    if (x[i] == max)
      return (uint32_t) i;
  return 0;
}

static void hadamard_block (float *x, uint32_t block)
{
  uint32_t h = 1;
  if (block >= XB_VL) {
    for (uint32_t i = 0; i < block; i += XB_VL)
      v_store (x + i, v_hadamard (v_load (x + i)));
    h = XB_VL;
  }
  for (; h < block; h *= 2)
    for (uint32_t i = 0; i < block; i += 2 * h)
      if (h >= XB_VL) {
        for (uint32_t j = i; j < i + h; j += XB_VL) {
          vf a = v_load (x + j), b = v_load (x + j + h);
          v_store (x + j, a + b);
          v_store (x + j + h, a - b);
        }
      } else {
        for (uint32_t j = i; j < i + h; j++) {
          float a = x[j], b = x[j + h];
          x[j] = a + b;
          x[j + h] = a - b;
        }
      }
  scale (x, 1.0f / sqrtf ((float) block), block);
}

static void hadamard (float *x, size_t n, uint32_t block)
{
  for (size_t i = 0; i + block <= n; i += block)
    hadamard_block (x + i, block);
}

/* ---- KV pages -------------------------------------------------------------------------------------------------------------------- */

static void kv_store (void *page, uint32_t slot, const float *x, uint32_t page_tokens, uint32_t head_dim, int bits)
{
  uint8_t *bytes = page;
  if (bits == 16) {
    f32_to_f16 (x, (uint16_t *) page + (size_t) slot * head_dim, head_dim);
    return;
  }
  uint8_t *codes = bytes + (size_t) slot * head_dim * (uint32_t) bits / 8;
  uint16_t *scales = (uint16_t *) (void *) (bytes + (size_t) page_tokens * head_dim * (uint32_t) bits / 8) + (size_t) slot * ((head_dim + 31) / 32);
  for (uint32_t g = 0; g < head_dim; g += 32) {
    uint32_t n = head_dim - g < 32 ? head_dim - g : 32;
    float peak = 0;
    for (uint32_t i = 0; i < n; i++)
      peak = fabsf (x[g + i]) > peak ? fabsf (x[g + i]) : peak;
    uint16_t half = half_from (peak / (bits == 8 ? 127.0f : 7.5f));
    float s = half_to (half), inverse = s > 0 ? 1.0f / s : 0;
    scales[g / 32] = half;
    for (uint32_t i = 0; i < n; i++) {
      int low = bits == 8 ? -127 : 0, high = bits == 8 ? 127 : 15, q = (int) lrintf (x[g + i] * inverse + (bits == 8 ? 0 : 7.5f));
      q = q > high ? high : q < low ? low : q;
      if (bits == 8)
        codes[g + i] = (uint8_t) q;
      else if (i % 2 == 0)
        codes[(g + i) / 2] = (uint8_t) q;
      else
        codes[(g + i) / 2] |= (uint8_t) (q << 4);
    }
  }
}

typedef uint8_t bytes16 __attribute__ ((vector_size (16)));

/* 32 codes of 8 or 4 bits times their scale: a fixed number, so that compilers make vectors of it. */
static inline void load_codes8 (const uint8_t *codes, float s, float *x)
{
  for (int i = 0; i < 32; i++)
    x[i] = (float) (int8_t) codes[i] * s;
}

static inline void load_codes4 (const uint8_t *codes, float s, float *x)
{
  bytes16 pairs, halves[2];
  int8_t apart[32];
  memcpy (&pairs, codes, 16);
  bytes16 low = 2 * (pairs & 15) - 15, high = 2 * (pairs >> 4) - 15;
  halves[0] = __builtin_shufflevector (low, high, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
  halves[1] = __builtin_shufflevector (low, high, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
  memcpy (apart, halves, 32);
  for (int i = 0; i < 32; i++)
    x[i] = (float) apart[i] * (s / 2);
}

/* The first n values of a row. */
static void kv_load_first (const void *page, uint32_t slot, float *x, uint32_t page_tokens, uint32_t head_dim, uint32_t first, int bits)
{
  const uint8_t *bytes = page;
  if (bits == 16) {
    half_to_f32 ((const uint16_t *) page + (size_t) slot * head_dim, x, first);
    return;
  }
  const uint8_t *codes = bytes + (size_t) slot * head_dim * (uint32_t) bits / 8;
  const uint16_t *scales = (const uint16_t *) (const void *) (bytes + (size_t) page_tokens * head_dim * (uint32_t) bits / 8)
                           + (size_t) slot * ((head_dim + 31) / 32);
  for (uint32_t g = 0; g < first; g += 32) {
    uint32_t n = first - g < 32 ? first - g : 32;
    float s = half_to (scales[g / 32]);
    if (n == 32 && bits == 8)
      load_codes8 (codes + g, s, x + g);
    else if (n == 32)
      load_codes4 (codes + g / 2, s, x + g);
    else if (bits == 8)
      for (uint32_t i = 0; i < n; i++)
        x[g + i] = (float) (int8_t) codes[g + i] * s;
    else
      for (uint32_t i = 0; i < n / 2; i++) {
        x[g + 2 * i] = ((float) (codes[g / 2 + i] & 15) - 7.5f) * s;
        x[g + 2 * i + 1] = ((float) (codes[g / 2 + i] >> 4) - 7.5f) * s;
      }
  }
}

static void kv_load (const void *page, uint32_t slot, float *x, uint32_t page_tokens, uint32_t head_dim, int bits)
{
  kv_load_first (page, slot, x, page_tokens, head_dim, head_dim, bits);
}

#include "kernels/attention_tmpl.h"
