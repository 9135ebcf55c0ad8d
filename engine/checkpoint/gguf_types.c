/* gguf_types.c: ggml's tensor types: sizes, and dequantization in ggml's own order of operations. */
#include <string.h>

#include "engine/checkpoint/gguf.h"
#include "kernels/xbit.h"

static const struct {
  guint type;
  EngTypeTraits traits;
} types[] = {
  { 0, { "F32", 1, 4, TRUE, TRUE } },         { 1, { "F16", 1, 2, TRUE, TRUE } },          { 2, { "Q4_0", 32, 18, FALSE, TRUE } },
  { 3, { "Q4_1", 32, 20, FALSE, TRUE } },     { 6, { "Q5_0", 32, 22, FALSE, TRUE } },      { 7, { "Q5_1", 32, 24, FALSE, TRUE } },
  { 8, { "Q8_0", 32, 34, FALSE, TRUE } },     { 9, { "Q8_1", 32, 36, FALSE, FALSE } },     { 10, { "Q2_K", 256, 84, FALSE, TRUE } },
  { 11, { "Q3_K", 256, 110, FALSE, TRUE } },  { 12, { "Q4_K", 256, 144, FALSE, TRUE } },   { 13, { "Q5_K", 256, 176, FALSE, TRUE } },
  { 14, { "Q6_K", 256, 210, FALSE, TRUE } },  { 15, { "Q8_K", 256, 292, FALSE, FALSE } },  { 16, { "IQ2_XXS", 256, 66, FALSE, FALSE } },
  { 17, { "IQ2_XS", 256, 74, FALSE, FALSE } }, { 18, { "IQ3_XXS", 256, 98, FALSE, FALSE } }, { 19, { "IQ1_S", 256, 50, FALSE, FALSE } },
  { 20, { "IQ4_NL", 32, 18, FALSE, FALSE } }, { 21, { "IQ3_S", 256, 110, FALSE, FALSE } }, { 22, { "IQ2_S", 256, 82, FALSE, FALSE } },
  { 23, { "IQ4_XS", 256, 136, FALSE, FALSE } }, { 24, { "I8", 1, 1, FALSE, FALSE } },      { 25, { "I16", 1, 2, FALSE, FALSE } },
  { 26, { "I32", 1, 4, FALSE, FALSE } },      { 27, { "I64", 1, 8, FALSE, FALSE } },       { 28, { "F64", 1, 8, FALSE, FALSE } },
  { 29, { "IQ1_M", 256, 56, FALSE, FALSE } }, { 30, { "BF16", 1, 2, TRUE, TRUE } },        { 34, { "TQ1_0", 256, 54, FALSE, FALSE } },
  { 35, { "TQ2_0", 256, 66, FALSE, FALSE } }, { 39, { "MXFP4", 32, 17, FALSE, FALSE } },
};

const EngTypeTraits *eng_type_traits (guint type)
{
  for (gsize i = 0; i < G_N_ELEMENTS (types); i++)
    if (types[i].type == type)
      return &types[i].traits;
  return NULL;
}

static float half_at (const guint8 *p)
{
  return xb_half_to_float ((guint16) (p[0] | p[1] << 8));
}

static void q4_0 (const guint8 *b, float *out)
{
  float d = half_at (b);
  for (int i = 0; i < 16; i++) {
    out[i] = (float) ((b[2 + i] & 15) - 8) * d;
    out[i + 16] = (float) ((b[2 + i] >> 4) - 8) * d;
  }
}

static void q4_1 (const guint8 *b, float *out)
{
  float d = half_at (b), m = half_at (b + 2);
  for (int i = 0; i < 16; i++) {
    out[i] = (float) (b[4 + i] & 15) * d + m;
    out[i + 16] = (float) (b[4 + i] >> 4) * d + m;
  }
}

/* The fifth bits lie in one 32-bit word, weight i's at bit i. */
static guint32 word_at (const guint8 *p)
{
  return (guint32) p[0] | (guint32) p[1] << 8 | (guint32) p[2] << 16 | (guint32) p[3] << 24;
}

static void q5_0 (const guint8 *b, float *out)
{
  float d = half_at (b);
  guint32 high = word_at (b + 2);
  for (int i = 0; i < 16; i++) {
    out[i] = (float) ((int) ((b[6 + i] & 15) | (high >> i & 1) << 4) - 16) * d;
    out[i + 16] = (float) ((int) ((b[6 + i] >> 4) | (high >> (i + 16) & 1) << 4) - 16) * d;
  }
}

static void q5_1 (const guint8 *b, float *out)
{
  float d = half_at (b), m = half_at (b + 2);
  guint32 high = word_at (b + 4);
  for (int i = 0; i < 16; i++) {
    out[i] = (float) ((b[8 + i] & 15) | (high >> i & 1) << 4) * d + m;
    out[i + 16] = (float) ((b[8 + i] >> 4) | (high >> (i + 16) & 1) << 4) * d + m;
  }
}

static void q8_0 (const guint8 *b, float *out)
{
  float d = half_at (b);
  for (int i = 0; i < 32; i++)
    out[i] = (float) (gint8) b[2 + i] * d;
}

static void q2_k (const guint8 *b, float *out)
{
  const guint8 *scales = b, *codes = b + 16;
  float d = half_at (b + 80), dmin = half_at (b + 82);
  for (int i = 0; i < 256; i++) {
    guint8 sc = scales[i / 16];
    int code = codes[i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2) & 3;
    float scale = d * (float) (sc & 15), offset = dmin * (float) (sc >> 4);
    out[i] = scale * (float) code - offset;
  }
}

static void q3_k (const guint8 *b, float *out)
{
  const guint8 *high = b, *codes = b + 32, *packed = b + 96;
  float d = half_at (b + 108);
  for (int i = 0; i < 256; i++) {
    int g = i / 16;
    int low4 = g < 8 ? packed[g] & 15 : packed[g - 8] >> 4;
    int scale = (low4 | (packed[8 + g % 4] >> (g / 4 * 2) & 3) << 4) - 32;
    int code = codes[i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2) & 3;
    if (!(high[i % 32] >> (i / 32) & 1))
      code -= 4;
    out[i] = d * (float) scale * (float) code;
  }
}

/* Eight 6-bit scales and minimums in 12 bytes, shared by Q4_K and Q5_K. */
static void k_scale (const guint8 *s, int g, int *scale, int *min)
{
  if (g < 4) {
    *scale = s[g] & 63;
    *min = s[g + 4] & 63;
  } else {
    *scale = (s[g + 4] & 15) | (s[g - 4] >> 6) << 4;
    *min = (s[g + 4] >> 4) | (s[g] >> 6) << 4;
  }
}

static void q4_k (const guint8 *b, float *out)
{
  float d = half_at (b), dmin = half_at (b + 2);
  for (int g = 0; g < 8; g++) {
    int scale, min;
    k_scale (b + 4, g, &scale, &min);
    float s = d * (float) scale, m = dmin * (float) min;
    const guint8 *codes = b + 16 + g / 2 * 32;
    for (int i = 0; i < 32; i++)
      out[g * 32 + i] = s * (float) (g & 1 ? codes[i] >> 4 : codes[i] & 15) - m;
  }
}

static void q5_k (const guint8 *b, float *out)
{
  float d = half_at (b), dmin = half_at (b + 2);
  for (int g = 0; g < 8; g++) {
    int scale, min;
    k_scale (b + 4, g, &scale, &min);
    float s = d * (float) scale, m = dmin * (float) min;
    const guint8 *high = b + 16, *codes = b + 48 + g / 2 * 32;
    for (int i = 0; i < 32; i++)
      out[g * 32 + i] = s * (float) ((g & 1 ? codes[i] >> 4 : codes[i] & 15) + (high[i] >> g & 1) * 16) - m;
  }
}

static void q6_k (const guint8 *b, float *out)
{
  const guint8 *low = b, *high = b + 128;
  const gint8 *scales = (const gint8 *) (b + 192);
  float d = half_at (b + 208);
  for (int i = 0; i < 256; i++) {
    int half = i / 128, in = i % 128, quarter = in / 32, l = in % 32;
    int nibble = low[half * 64 + (quarter & 1) * 32 + l] >> (quarter / 2 * 4) & 15;
    int code = (nibble | (high[half * 32 + l] >> (quarter * 2) & 3) << 4) - 32;
    out[i] = d * (float) scales[i / 16] * (float) code;
  }
}

void eng_type_dequantize (guint type, const void *data, float *out, gsize n)
{
  const EngTypeTraits *traits = eng_type_traits (type);
  g_return_if_fail (traits && traits->readable && n % traits->block == 0);
  const guint8 *p = data;
  void (*block) (const guint8 *, float *) = NULL;
  switch (type) {
  case ENG_TYPE_F32: xb_raw_to_f32 (XB_RAW_F32, data, out, n); return;
  case ENG_TYPE_F16: xb_raw_to_f32 (XB_RAW_F16, data, out, n); return;
  case ENG_TYPE_BF16: xb_raw_to_f32 (XB_RAW_BF16, data, out, n); return;
  case ENG_TYPE_Q4_0: block = q4_0; break;
  case ENG_TYPE_Q4_1: block = q4_1; break;
  case ENG_TYPE_Q5_0: block = q5_0; break;
  case ENG_TYPE_Q5_1: block = q5_1; break;
  case ENG_TYPE_Q8_0: block = q8_0; break;
  case ENG_TYPE_Q2_K: block = q2_k; break;
  case ENG_TYPE_Q3_K: block = q3_k; break;
  case ENG_TYPE_Q4_K: block = q4_k; break;
  case ENG_TYPE_Q5_K: block = q5_k; break;
  case ENG_TYPE_Q6_K: block = q6_k; break;
  default: g_return_if_reached ();
  }
  for (gsize i = 0; i < n; i += traits->block, p += traits->block_bytes)
    block (p, out + i);
}
