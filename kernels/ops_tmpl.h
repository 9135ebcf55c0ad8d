/* ops_tmpl.h: norms, rope, activations, softmax, Hadamard, KV and attention, one source compiled per instruction set. The including file
 * defines XB_VL (float lanes) and XB_SUFFIX; the vectors are the compiler's own (gcc and clang vector extensions). */
#include <math.h>
#include <string.h>

#include "kernels/half.h"
#include "kernels/lines.h"
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

enum { KV_GROUP = 32, KV_GROUP_VECS = KV_GROUP / XB_VL };

/* The header of a group of 5 or 4 bits: a step (f16 without a sign, 4 bits of its fraction) and, in 7 bits, where the middle of the codes lies, in quarters of
 * a step. The largest code is `top`. */
static inline float kv_step (uint16_t header)
{
  return half_to ((uint16_t) (header >> 7 << 6));
}

static inline float kv_base (uint16_t header, int top)
{
  return kv_step (header) * ((float) (header & 127) / 4 - 16 - (float) top / 2);
}

/* A step that clips the outermost a little errs least, for normal values in a group of this size. */
static inline uint16_t kv_header (const float *x, int top)
{
  vf low = v_load (x), high = low;
  for (int i = XB_VL; i < KV_GROUP; i += XB_VL) {
    low = v_min (low, v_load (x + i));
    high = v_max (high, v_load (x + i));
  }
  float most = v_largest (high), least = -v_largest (-low), middle = (most + least) / 2, step = (most - least) / ((float) top + 0.4f);
  step = fabsf (middle) / 15 > step ? fabsf (middle) / 15 : step;
  uint16_t header = (uint16_t) ((half_from (step) + 32) >> 6 << 7);
  float rounded = kv_step (header), quarters = rounded > 0 ? rintf (middle / rounded * 4) : 0;
  return (uint16_t) (header | (uint16_t) ((quarters > 63 ? 63 : quarters < -64 ? -64 : (int) quarters) + 64));
}

/* Codes [KV_GROUP] of x. */
static inline void kv_codes (const float *x, uint16_t header, int top, uint8_t *codes)
{
  float step = kv_step (header), inverse = step > 0 ? 1 / step : 0, base = kv_base (header, top);
  for (int i = 0; i < KV_GROUP; i += XB_VL) {
    vf code = (v_load (x + i) - v_set (base)) * v_set (inverse) + v_set (0.5f);
    vi whole = __builtin_convertvector (v_min (v_max (code, v_set (0)), v_set ((float) top)), vi);
    for (int l = 0; l < XB_VL; l++)
      codes[i + l] = (uint8_t) whole[l];
  }
}

static inline void kv_store_symmetric (const float *x, uint8_t *codes, uint16_t *scale)
{
  float peak = 0;
  for (uint32_t i = 0; i < KV_GROUP; i++)
    peak = fabsf (x[i]) > peak ? fabsf (x[i]) : peak;
  *scale = half_from (peak / 127);
  float s = half_to (*scale), inverse = s > 0 ? 1 / s : 0;
  for (uint32_t i = 0; i < KV_GROUP; i++) {
    int q = (int) lrintf (x[i] * inverse);
    codes[i] = (uint8_t) (q > 127 ? 127 : q < -127 ? -127 : q);
  }
}

static void kv_store (void *page, uint32_t slot, const float *x, uint32_t page_tokens, uint32_t head_dim, int bits)
{
  if (bits == 16) {
    f32_to_f16 (x, (uint16_t *) page + (size_t) slot * head_dim, head_dim);
    return;
  }
  uint32_t n_groups = head_dim / KV_GROUP, group_bytes = KV_GROUP / 8 * (uint32_t) bits;
  uint8_t *group = (uint8_t *) page + (size_t) slot * n_groups * group_bytes;
  uint16_t *headers = (uint16_t *) (void *) ((uint8_t *) page + (size_t) page_tokens * n_groups * group_bytes) + (size_t) slot * n_groups;
  for (uint32_t g = 0; g < n_groups; g++, group += group_bytes, x += KV_GROUP) {
    if (bits == 8) {
      kv_store_symmetric (x, group, &headers[g]);
      continue;
    }
    uint8_t codes[KV_GROUP];
    int top = bits == 5 ? 31 : 15;
    headers[g] = kv_header (x, top);
    kv_codes (x, headers[g], top, codes);
    for (int i = 0; i < KV_GROUP / 2; i++)
      group[i] = (uint8_t) ((codes[2 * i] & 15) | codes[2 * i + 1] << 4);
    for (int i = 0; bits == 5 && i < KV_GROUP / 8; i++) {
      uint8_t fifth = 0;
      for (int j = 0; j < 8; j++)
        fifth |= (uint8_t) (codes[8 * i + j] >> 4 << j);
      group[KV_GROUP / 2 + i] = fifth;
    }
  }
}

typedef uint8_t bytes16 __attribute__ ((vector_size (16)));

static inline void kv_load_symmetric (const uint8_t *codes, float s, float *x)
{
  for (int i = 0; i < KV_GROUP; i++)
    x[i] = (float) (int8_t) codes[i] * s;
}

/* A group of 5 or 4 bits. */
static inline void kv_load_group (const uint8_t *group, uint16_t header, int bits, float *x)
{
  bytes16 pairs, halves[2];
  uint8_t apart[KV_GROUP];
  float step = kv_step (header), base = kv_base (header, bits == 5 ? 31 : 15);
  memcpy (&pairs, group, 16);
  bytes16 low = pairs & 15, high = pairs >> 4;
  halves[0] = __builtin_shufflevector (low, high, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
  halves[1] = __builtin_shufflevector (low, high, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
  if (bits == 5) {
    const bytes16 bit = { 1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128 };
    bytes16 fifths = { group[16], group[17], group[18], group[19] };
    bytes16 first = __builtin_shufflevector (fifths, fifths, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1);
    bytes16 second = __builtin_shufflevector (fifths, fifths, 2, 2, 2, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3);
    halves[0] |= (bytes16) ((first & bit) != 0) & 16;
    halves[1] |= (bytes16) ((second & bit) != 0) & 16;
  }
  memcpy (apart, halves, KV_GROUP);
  for (int i = 0; i < KV_GROUP; i++)
    x[i] = (float) apart[i] * step + base;
}

/* The first `first` values of a row. */
static void kv_load_first (const void *page, uint32_t slot, float *x, uint32_t page_tokens, uint32_t head_dim, uint32_t first, int bits)
{
  if (bits == 16) {
    half_to_f32 ((const uint16_t *) page + (size_t) slot * head_dim, x, first);
    return;
  }
  uint32_t n_groups = head_dim / KV_GROUP, group_bytes = KV_GROUP / 8 * (uint32_t) bits;
  const uint8_t *group = (const uint8_t *) page + (size_t) slot * n_groups * group_bytes;
  const uint16_t *headers = (const uint16_t *) (const void *) ((const uint8_t *) page + (size_t) page_tokens * n_groups * group_bytes) + (size_t) slot * n_groups;
  for (uint32_t g = 0; g < first / KV_GROUP; g++, group += group_bytes, x += KV_GROUP) {
    if (bits == 8)
      kv_load_symmetric (group, half_to (headers[g]), x);
    else if (bits == 5)
      kv_load_group (group, headers[g], 5, x);
    else
      kv_load_group (group, headers[g], 4, x);
  }
}

static void kv_load (const void *page, uint32_t slot, float *x, uint32_t page_tokens, uint32_t head_dim, int bits)
{
  kv_load_first (page, slot, x, page_tokens, head_dim, head_dim, bits);
}

#include "kernels/attention_tmpl.h"
