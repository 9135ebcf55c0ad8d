/* ggml_encode.c: floats as ggml's standard block types: the grid of each group by least squares, then the codes that are nearest on the grid as it is
 * stored. */
#include "quantizer/ggml_encode.h"

#include "engine/checkpoint/blocks.h"
#include "kernels/xbit.h"

#include <math.h>
#include <string.h>

enum { SUPER = 256, N_CANDIDATES = 15 };

static guint16 half (float x)
{
  guint16 out;
  xb_f32_to_f16 (&x, &out, 1);
  return out;
}

static void put_half (guint8 *out, guint16 bits)
{
  out[0] = (guint8) bits;
  out[1] = (guint8) (bits >> 8);
}

/* The nearest f16, at most the largest there is, beyond which nothing could be read. */
static float store_half (guint8 *out, float x)
{
  guint16 bits = half (CLAMP (x, -XB_MOST_HALF, XB_MOST_HALF));
  put_half (out, bits);
  return xb_half_to_float (bits);
}

/* The same for a scale: where f16 is coarse (below 2^-14) rather the next one up than one with which the largest weights could not be reached. */
static float store_scale (guint8 *out, float x)
{
  guint16 bits = half (CLAMP (x, -XB_MOST_HALF, XB_MOST_HALF));
  if (fabsf (xb_half_to_float (bits)) < fabsf (x) * (1 - 0x1p-10f) && (bits & 0x7fff) < 0x400)
    bits++;
  put_half (out, bits);
  return xb_half_to_float (bits);
}

static int nearest (float x, int low, int high)
{
  return x <= (float) low ? low : x >= (float) high ? high : (int) rintf (x);
}

static float inverse (float x)
{
  return x != 0 ? 1 / x : 0;
}

/* ---- grids of a group ------------------------------------------------------------------------------------------------------------- */

static float extreme_of (const float *x, guint n)
{
  float extreme = 0;
  for (guint i = 0; i < n; i++)
    extreme = fabsf (x[i]) > fabsf (extreme) ? x[i] : extreme;
  return extreme;
}

/* Of codes q with these sums, xq / qq is the best scale, and takes xq^2 / qq from the squared error: kept, where no codes before took more. */
static void keep_better (double xq, double qq, double *gain, float *scale)
{
  if (qq > 0 && xq * xq > *gain * qq) {
    *gain = xq * xq / qq;
    *scale = (float) (xq / qq);
  }
}

/* The scale s with which s * q, q from low to high, comes nearest to x. The largest weight lands near low or high; each candidate's codes give the
 * best scale for them. */
static float fit_symmetric (const float *x, guint n, int low, int high)
{
  float extreme = extreme_of (x, n), best = 0;
  double gain = 0;
  if (extreme == 0)
    return 0;
  for (int k = 0; k < N_CANDIDATES; k++) {
    float to = (float) low - 0.1f * (float) (k - N_CANDIDATES / 2), inv = to / extreme;
    double xq = 0, qq = 0;
    for (guint i = 0; i < n; i++) {
      int q = nearest (x[i] * inv, low, high);
      xq += (double) x[i] * q;
      qq += (double) q * q;
    }
    keep_better (xq, qq, &gain, &best);
  }
  return best;
}

/* Scale and offset with which s * q + m, q from 0 to high, comes nearest to x; is_low: m may not be above 0. */
static void fit_affine (const float *x, guint n, int high, gboolean is_low, float *scale, float *offset)
{
  float least = x[0], most = x[0];
  double sum_x = 0, best = INFINITY;
  for (guint i = 0; i < n; i++) {
    least = MIN (least, x[i]);
    most = MAX (most, x[i]);
    sum_x += x[i];
  }
  if (is_low)
    least = MIN (least, 0);
  *scale = 0;
  *offset = least;
  if (most <= least)
    return;
  for (int k = 0; k < N_CANDIDATES; k++) {
    float inv = ((float) high + 0.1f * (float) (k - N_CANDIDATES / 3)) / (most - least);
    double q_sum = 0, qq = 0, xq = 0, error = 0;
    for (guint i = 0; i < n; i++) {
      int q = nearest ((x[i] - least) * inv, 0, high);
      q_sum += q;
      qq += (double) q * q;
      xq += (double) x[i] * q;
    }
    double det = n * qq - q_sum * q_sum, s = 0, m = 0;
    if (det > 0) {
      s = (n * xq - q_sum * sum_x) / det;
      m = (sum_x - s * q_sum) / n;
    }
    if (is_low && (det <= 0 || m > 0) && qq > 0) { /* all codes the same: no offset is the best one */
      s = xq / qq;
      m = 0;
    }
    if (s <= 0)
      continue;
    for (guint i = 0; i < n; i++) {
      double e = x[i] - (s * nearest ((float) ((x[i] - m) / s), 0, high) + m);
      error += e * e;
    }
    if (error < best) {
      best = error;
      *scale = (float) s;
      *offset = (float) m;
    }
  }
}

/* The place of the table's value that is nearest to x. */
static guint nearest_value (const gint8 *table, float x)
{
  guint low = 0, high = 15;
  while (high - low > 1) {
    guint middle = (low + high) / 2;
    if (x < (float) table[middle])
      high = middle;
    else
      low = middle;
  }
  return x - (float) table[low] < (float) table[high] - x ? low : high;
}

/* The scale of a table that is not the same on both sides: either end of it may be the largest weight's. */
static float fit_table (const float *x, guint n, const gint8 *table)
{
  float extreme = extreme_of (x, n), best = 0;
  double gain = 0;
  if (extreme == 0)
    return 0;
  for (int k = 0; k < 2 * N_CANDIDATES; k++) {
    float inv = ((float) table[k % 2 * 15] * (1 + 0.02f * (float) (k / 2 - N_CANDIDATES / 2))) / extreme;
    double xq = 0, qq = 0;
    for (guint i = 0; i < n; i++) {
      int q = table[nearest_value (table, x[i] * inv)];
      xq += (double) x[i] * q;
      qq += (double) q * q;
    }
    keep_better (xq, qq, &gain, &best);
  }
  return best;
}

/* ---- blocks of 32 -------------------------------------------------------------------------------------------------------------------- */

/* Codes of 4 bits: the first 16 weights' in the lower halves. */
static void put_nibbles (guint8 *out, const guint8 *codes)
{
  for (guint i = 0; i < 16; i++)
    out[i] = (guint8) ((codes[i] & 15) | (codes[i + 16] & 15) << 4);
}

/* Q4_0, Q5_0: s * (q - 2^(bits-1)); Q4_1, Q5_1: s * q + m. The fifth bits stand apart, a word. */
static void encode_32 (const float *x, guint bits, gboolean has_offset, guint8 *out)
{
  guint8 codes[32];
  int high = (1 << bits) - 1, middle = has_offset ? 0 : 1 << (bits - 1);
  float s, m = 0;
  guint32 fifth = 0;
  if (has_offset) {
    fit_affine (x, 32, high, FALSE, &s, &m);
    s = store_scale (out, s);
    m = store_half (out + 2, m);
  } else {
    s = store_scale (out, fit_symmetric (x, 32, -middle, middle - 1));
  }
  float inv = inverse (s);
  for (guint i = 0; i < 32; i++) {
    codes[i] = (guint8) (nearest ((x[i] - m) * inv, -middle, high - middle) + middle);
    fifth |= (guint32) (codes[i] >> 4) << i;
  }
  out += has_offset ? 4 : 2;
  if (bits == 5) {
    for (guint i = 0; i < 4; i++)
      *out++ = (guint8) (fifth >> (8 * i));
  }
  put_nibbles (out, codes);
}

/* d, codes[16] */
static void encode_iq4_nl (const float *x, guint8 *out)
{
  const gint8 *table = eng_block_kind (ENG_TYPE_IQ4_NL)->table;
  guint8 codes[32];
  float inv = inverse (store_scale (out, fit_table (x, 32, table)));
  for (guint i = 0; i < 32; i++)
    codes[i] = (guint8) nearest_value (table, x[i] * inv);
  put_nibbles (out + 2, codes);
}

static void encode_q8_0 (const float *x, guint8 *out)
{
  float extreme = 0;
  for (guint i = 0; i < 32; i++)
    extreme = MAX (extreme, fabsf (x[i]));
  float inv = inverse (store_scale (out, extreme / 127));
  for (guint i = 0; i < 32; i++)
    out[2 + i] = (guint8) nearest (x[i] * inv, -127, 127);
}

/* ---- K types: 256 weights, groups of 16 or 32 whose scales are integers times an f16 --------------------------------------------- */

/* Scales of n groups as integers from low to high times what is returned. */
static float share_scale (guint8 *out, const float *scales, guint n, int low, int high, int *integers)
{
  float super = store_scale (out, fit_symmetric (scales, n, low, high));
  for (guint g = 0; g < n; g++)
    integers[g] = nearest (scales[g] * inverse (super), low, high);
  return super;
}

/* Scales and offsets that are positive: the largest is the largest integer. */
static float share_positive (guint8 *out, const float *scales, guint n, int high, int *integers)
{
  float most = 0;
  for (guint g = 0; g < n; g++)
    most = MAX (most, scales[g]);
  float super = store_scale (out, most / (float) high);
  for (guint g = 0; g < n; g++)
    integers[g] = nearest (scales[g] * inverse (super), 0, high);
  return super;
}

/* s * q - m of groups: their codes for scales as they are stored. */
static void affine_codes (const float *x, guint group, int high, const int *scales, const int *offsets, float super, float super_offset, guint8 *codes)
{
  for (guint i = 0; i < SUPER; i++) {
    float s = super * (float) scales[i / group], m = super_offset * (float) offsets[i / group];
    codes[i] = (guint8) nearest ((x[i] + m) * inverse (s), 0, high);
  }
}

static void symmetric_codes (const float *x, guint group, int middle, const int *scales, float super, guint8 *codes)
{
  for (guint i = 0; i < SUPER; i++)
    codes[i] = (guint8) (nearest (x[i] * inverse (super * (float) scales[i / group]), -middle, middle - 1) + middle);
}

static void fit_groups (const float *x, guint group, int high, float *scales, float *offsets)
{
  for (guint g = 0; g < SUPER / group; g++) {
    fit_affine (x + g * group, group, high, TRUE, &scales[g], &offsets[g]);
    offsets[g] = -offsets[g];
  }
}

/* Two bits of each code, four codes to a byte: those 32 apart, in either half. */
static void put_pairs (guint8 *out, const guint8 *codes)
{
  for (guint i = 0; i < SUPER / 4; i++) {
    const guint8 *c = codes + i / 32 * 128 + i % 32;
    out[i] = (guint8) ((c[0] & 3) | (c[32] & 3) << 2 | (c[64] & 3) << 4 | (c[96] & 3) << 6);
  }
}

/* scales[16] (scale and offset of 4 bits), codes[64], d, dmin */
static void encode_q2_k (const float *x, guint8 *out)
{
  float scales[16], offsets[16];
  int s[16], m[16];
  guint8 codes[SUPER];
  fit_groups (x, 16, 3, scales, offsets);
  float d = share_positive (out + 80, scales, 16, 15, s), dmin = share_positive (out + 82, offsets, 16, 15, m);
  affine_codes (x, 16, 3, s, m, d, dmin, codes);
  for (guint g = 0; g < 16; g++)
    out[g] = (guint8) (s[g] | m[g] << 4);
  put_pairs (out + 16, codes);
}

/* third bits[32], codes[64], scales[12] (6 bits, less 32), d */
static void encode_q3_k (const float *x, guint8 *out)
{
  float scales[16];
  int s[16];
  guint8 codes[SUPER];
  memset (out, 0, 110);
  for (guint g = 0; g < 16; g++)
    scales[g] = fit_symmetric (x + g * 16, 16, -4, 3);
  float d = share_scale (out + 108, scales, 16, -32, 31, s);
  symmetric_codes (x, 16, 4, s, d, codes);
  for (guint i = 0; i < SUPER; i++)
    out[i % 32] |= (guint8) (codes[i] >> 2 << (i / 32));
  put_pairs (out + 32, codes);
  for (guint g = 0; g < 16; g++) {
    guint n = (guint) (s[g] + 32);
    out[96 + g % 8] |= (guint8) ((n & 15) << (g / 8 * 4));
    out[104 + g % 4] |= (guint8) (n >> 4 << (g / 4 * 2));
  }
}

/* Eight scales and offsets of 6 bits in 12 bytes: the first four whole, of the others the upper two bits beside those. */
static void put_sixes (guint8 *out, const int *s, const int *m)
{
  for (guint g = 0; g < 4; g++) {
    out[g] = (guint8) (s[g] | s[g + 4] >> 4 << 6);
    out[g + 4] = (guint8) (m[g] | m[g + 4] >> 4 << 6);
    out[g + 8] = (guint8) ((s[g + 4] & 15) | (m[g + 4] & 15) << 4);
  }
}

/* d, dmin, scales[12], (fifth bits[32],) codes[128] */
static void encode_q45_k (const float *x, guint bits, guint8 *out)
{
  float scales[8], offsets[8];
  int s[8], m[8];
  guint8 codes[SUPER];
  fit_groups (x, 32, (1 << bits) - 1, scales, offsets);
  float d = share_positive (out, scales, 8, 63, s), dmin = share_positive (out + 2, offsets, 8, 63, m);
  affine_codes (x, 32, (1 << bits) - 1, s, m, d, dmin, codes);
  put_sixes (out + 4, s, m);
  guint8 *fifth = out + 16, *fours = out + (bits == 5 ? 48 : 16);
  if (bits == 5)
    memset (fifth, 0, 32);
  for (guint i = 0; i < SUPER && bits == 5; i++)
    fifth[i % 32] |= (guint8) (codes[i] >> 4 << (i / 32));
  for (guint i = 0; i < SUPER / 2; i++) {
    const guint8 *c = codes + i / 32 * 64 + i % 32;
    fours[i] = (guint8) ((c[0] & 15) | (c[32] & 15) << 4);
  }
}

/* lower bits[128], upper bits[64], scales[16], d */
static void encode_q6_k (const float *x, guint8 *out)
{
  float scales[16];
  int s[16];
  guint8 codes[SUPER], upper[SUPER];
  for (guint g = 0; g < 16; g++)
    scales[g] = fit_symmetric (x + g * 16, 16, -32, 31);
  float d = share_scale (out + 208, scales, 16, -128, 127, s);
  symmetric_codes (x, 16, 32, s, d, codes);
  for (guint i = 0; i < SUPER / 2; i++) {
    const guint8 *c = codes + i / 64 * 128 + i % 64;
    out[i] = (guint8) ((c[0] & 15) | (c[64] & 15) << 4);
  }
  for (guint i = 0; i < SUPER; i++)
    upper[i] = codes[i] >> 4;
  put_pairs (out + 128, upper);
  for (guint g = 0; g < 16; g++)
    out[192 + g] = (guint8) (gint8) s[g];
}

/* d, upper 2 bits of the scales (6 bits, less 32), their lower 4 bits, codes[128] */
static void encode_iq4_xs (const float *x, guint8 *out)
{
  const gint8 *table = eng_block_kind (ENG_TYPE_IQ4_XS)->table;
  float scales[8];
  int s[8];
  guint8 codes[32];
  memset (out, 0, 8);
  for (guint g = 0; g < 8; g++)
    scales[g] = fit_table (x + g * 32, 32, table);
  float d = share_scale (out, scales, 8, -32, 31, s);
  for (guint g = 0; g < 8; g++) {
    float inv = inverse (d * (float) s[g]);
    guint n = (guint) (s[g] + 32);
    for (guint i = 0; i < 32; i++)
      codes[i] = (guint8) nearest_value (table, x[g * 32 + i] * inv);
    out[2 + g / 4] |= (guint8) (n >> 4 << (g % 4 * 2));
    out[4 + g / 2] |= (guint8) ((n & 15) << (g % 2 * 4));
    put_nibbles (out + 8 + g * 16, codes);
  }
}

/* ---- any ---------------------------------------------------------------------------------------------------------------------------- */

gboolean qz_ggml_can_encode (guint type)
{
  switch (type) {
  case ENG_TYPE_F32: case ENG_TYPE_F16: case ENG_TYPE_BF16: case ENG_TYPE_Q4_0: case ENG_TYPE_Q4_1: case ENG_TYPE_Q5_0: case ENG_TYPE_Q5_1:
  case ENG_TYPE_Q8_0: case ENG_TYPE_Q2_K: case ENG_TYPE_Q3_K: case ENG_TYPE_Q4_K: case ENG_TYPE_Q5_K: case ENG_TYPE_Q6_K:
  case ENG_TYPE_IQ4_NL: case ENG_TYPE_IQ4_XS: return TRUE;
  default: return FALSE;
  }
}

static void encode_block (guint type, const float *x, guint8 *out)
{
  guint32 bits;
  switch (type) {
  case ENG_TYPE_F32: memcpy (out, x, sizeof *x); break;
  case ENG_TYPE_F16: put_half (out, half (*x)); break;
  case ENG_TYPE_BF16: /* to the nearest, ties to even */
    memcpy (&bits, x, sizeof bits);
    put_half (out, (guint16) ((bits + 0x7fff + (bits >> 16 & 1)) >> 16));
    break;
  case ENG_TYPE_Q4_0: encode_32 (x, 4, FALSE, out); break;
  case ENG_TYPE_Q4_1: encode_32 (x, 4, TRUE, out); break;
  case ENG_TYPE_Q5_0: encode_32 (x, 5, FALSE, out); break;
  case ENG_TYPE_Q5_1: encode_32 (x, 5, TRUE, out); break;
  case ENG_TYPE_Q8_0: encode_q8_0 (x, out); break;
  case ENG_TYPE_Q2_K: encode_q2_k (x, out); break;
  case ENG_TYPE_Q3_K: encode_q3_k (x, out); break;
  case ENG_TYPE_Q4_K: encode_q45_k (x, 4, out); break;
  case ENG_TYPE_Q5_K: encode_q45_k (x, 5, out); break;
  case ENG_TYPE_Q6_K: encode_q6_k (x, out); break;
  case ENG_TYPE_IQ4_NL: encode_iq4_nl (x, out); break;
  case ENG_TYPE_IQ4_XS: encode_iq4_xs (x, out); break;
  default: g_assert_not_reached ();
  }
}

void qz_ggml_encode (guint type, const float *x, gsize n, guint8 *out)
{
  const EngTypeTraits *t = eng_type_traits (type);
  for (gsize i = 0; i < n; i += t->block, out += t->block_bytes)
    encode_block (type, x + i, out);
}
