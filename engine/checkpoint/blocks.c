/* blocks.c: where the codes, scales and offsets of each ggml block lie. */
#include "engine/checkpoint/blocks.h"
#include "engine/checkpoint/gguf.h"

#include <math.h>
#include <string.h>

/* Twice the values of MXFP4's and NVFP4's codes, floats of a sign, two exponent bits and one of mantissa. */
static const gint8 fp4_values[16] = { 0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12 };

/* The values of IQ4_NL's and IQ4_XS's codes. */
static const gint8 iq4_values[16] = { -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113 };

static float half_at (const guint8 *p)
{
  return xb_half_to_float ((guint16) (p[0] | p[1] << 8));
}

/* Sixteen bytes: weights 0-15 in the low halves, 16-31 in the high ones. */
static void nibbles (const guint8 *p, guint8 *code)
{
  for (guint i = 0; i < 16; i++) {
    code[i] = p[i] & 15;
    code[i + 16] = p[i] >> 4;
  }
}

/* The fifth bits: a little-endian word, weight i's at bit i. */
static void fifth_bits (const guint8 *p, guint8 *code)
{
  for (guint i = 0; i < 32; i++)
    code[i] |= (p[i / 8] >> i % 8 & 1) << 4;
}

static void split_q4_0 (const guint8 *p, EngBlock *b)
{
  b->d = half_at (p);
  nibbles (p + 2, b->code);
}

static void split_q4_1 (const guint8 *p, EngBlock *b)
{
  b->d = half_at (p);
  b->m = half_at (p + 2);
  nibbles (p + 4, b->code);
}

static void split_q5_0 (const guint8 *p, EngBlock *b)
{
  b->d = half_at (p);
  nibbles (p + 6, b->code);
  fifth_bits (p + 2, b->code);
}

static void split_q5_1 (const guint8 *p, EngBlock *b)
{
  b->d = half_at (p);
  b->m = half_at (p + 2);
  nibbles (p + 8, b->code);
  fifth_bits (p + 4, b->code);
}

static void split_q8_0 (const guint8 *p, EngBlock *b)
{
  b->d = half_at (p);
  for (guint i = 0; i < 32; i++)
    b->code[i] = p[2 + i] ^ 128;
}

/* Two-bit codes of Q2_K and Q3_K: 32 bytes hold 128 weights, 32 to a bit pair. */
static void bit_pairs (const guint8 *p, guint8 *code)
{
  for (guint i = 0; i < 256; i++)
    code[i] = p[i / 128 * 32 + i % 32] >> i % 128 / 32 * 2 & 3;
}

static void split_q2_k (const guint8 *p, EngBlock *b)
{
  b->d = half_at (p + 80);
  b->m = -half_at (p + 82);
  for (guint g = 0; g < 16; g++) {
    b->multiplier[g] = p[g] & 15;
    b->offset_multiplier[g] = p[g] >> 4;
  }
  bit_pairs (p + 16, b->code);
}

static void split_q3_k (const guint8 *p, EngBlock *b)
{
  const guint8 *scales = p + 96;
  b->d = half_at (p + 108);
  for (guint g = 0; g < 16; g++) {
    guint low = g < 8 ? scales[g] & 15 : scales[g - 8] >> 4;
    guint high = scales[8 + g % 4] >> g / 4 * 2 & 3;
    b->multiplier[g] = (gint16) ((int) (low | high << 4) - 32);
  }
  bit_pairs (p + 32, b->code);
  for (guint i = 0; i < 256; i++)
    b->code[i] |= (p[i % 32] >> i / 32 & 1) << 2;
}

/* Eight 6-bit scales and offsets in 12 bytes, shared by Q4_K and Q5_K. */
static void six_bit_scales (const guint8 *p, EngBlock *b)
{
  for (guint g = 0; g < 4; g++) {
    b->multiplier[g] = p[g] & 63;
    b->offset_multiplier[g] = p[g + 4] & 63;
    b->multiplier[g + 4] = (gint16) ((p[g + 8] & 15) | p[g] >> 6 << 4);
    b->offset_multiplier[g + 4] = (guint8) (p[g + 8] >> 4 | p[g + 4] >> 6 << 4);
  }
}

/* 128 bytes: 64 weights to each 32 bytes, low halves first. */
static void nibbles_of_64 (const guint8 *p, guint8 *code)
{
  for (guint i = 0; i < 256; i++)
    code[i] = p[i / 64 * 32 + i % 32] >> i % 64 / 32 * 4 & 15;
}

static void split_q4_k (const guint8 *p, EngBlock *b)
{
  b->d = half_at (p);
  b->m = -half_at (p + 2);
  six_bit_scales (p + 4, b);
  nibbles_of_64 (p + 16, b->code);
}

static void split_q5_k (const guint8 *p, EngBlock *b)
{
  b->d = half_at (p);
  b->m = -half_at (p + 2);
  six_bit_scales (p + 4, b);
  nibbles_of_64 (p + 48, b->code);
  for (guint i = 0; i < 256; i++)
    b->code[i] |= (p[16 + i % 32] >> i / 32 & 1) << 4;
}

static void split_q6_k (const guint8 *p, EngBlock *b)
{
  b->d = half_at (p + 208);
  for (guint g = 0; g < 16; g++)
    b->multiplier[g] = (gint8) p[192 + g];
  for (guint i = 0; i < 256; i++) {
    guint low = p[i / 128 * 64 + i % 64] >> i % 128 / 64 * 4 & 15;
    guint high = p[128 + i / 128 * 32 + i % 32] >> i % 128 / 32 * 2 & 3;
    b->code[i] = (guint8) (low | high << 4);
  }
}

static void split_iq4_xs (const guint8 *p, EngBlock *b)
{
  b->d = half_at (p);
  for (guint g = 0; g < 8; g++) {
    guint low = p[4 + g / 2] >> g % 2 * 4 & 15, high = p[2 + g / 4] >> g % 4 * 2 & 3;
    b->multiplier[g] = (gint16) ((int) (low | high << 4) - 32);
    nibbles (p + 8 + g * 16, b->code + g * 32);
  }
}

static void split_q1_0 (const guint8 *p, EngBlock *b)
{
  b->d = half_at (p) * 2;
  for (guint i = 0; i < 128; i++)
    b->code[i] = p[2 + i / 8] >> i % 8 & 1;
}

static void split_q2_0 (const guint8 *p, EngBlock *b)
{
  b->d = half_at (p);
  for (guint i = 0; i < 64; i++)
    b->code[i] = p[2 + i / 4] >> i % 4 * 2 & 3;
}

static void split_tq2_0 (const guint8 *p, EngBlock *b)
{
  b->d = half_at (p + 64);
  bit_pairs (p, b->code);
}

/* `count` digits of base 3 of each of `n` bytes, which hold them as a fraction of 256: the first digits of all bytes stand first. */
static void digits (const guint8 *p, guint n, guint count, guint8 *code)
{
  for (guint i = 0; i < n; i++) {
    guint8 rest = p[i];
    for (guint k = 0; k < count; k++, rest = (guint8) (rest * 3))
      code[k * n + i] = (guint8) (rest * 3 >> 8);
  }
}

static void split_tq1_0 (const guint8 *p, EngBlock *b)
{
  b->d = half_at (p + 52);
  digits (p, 32, 5, b->code);
  digits (p + 32, 16, 5, b->code + 160);
  digits (p + 48, 4, 4, b->code + 240);
}

static void split_mxfp4 (const guint8 *p, EngBlock *b)
{
  b->multiplier[0] = p[0];
  nibbles (p + 1, b->code);
}

static void split_nvfp4 (const guint8 *p, EngBlock *b)
{
  b->d = 0.5f;
  for (guint g = 0; g < 4; g++) {
    b->multiplier[g] = (p[g] & 127) == 127 ? 0 : p[g] & 127; /* no number counts as none */
    for (guint i = 0; i < 16; i++)
      b->code[g * 16 + i] = p[4 + g * 8 + i % 8] >> i / 8 * 4 & 15;
  }
}

/* ---- grids ------------------------------------------------------------------------------------------------------------------- */

static guint32 word_at (const guint8 *p)
{
  return (guint32) p[0] | (guint32) p[1] << 8 | (guint32) p[2] << 16 | (guint32) p[3] << 24;
}

/* Seven signs, the eighth making the number of minus signs even. */
static guint8 even_signs (guint seven)
{
  seven &= 127;
  return (guint8) (seven | (guint) __builtin_parity (seven) << 7);
}

/* A vector of n weights: its index, and signs (bit = weight, 1 = minus). */
static void put_vector (guint8 *code, guint n, guint index, guint signs)
{
  for (guint i = 0; i < n; i++)
    code[i] = (guint8) ((i == 0 ? index & 127 : i == 1 ? index >> 7 : 0) | (signs >> i & 1) << 7);
}

static void split_iq2_xxs (const guint8 *p, EngBlock *b)
{
  b->d = half_at (p);
  for (guint g = 0; g < 8; g++) {
    const guint8 *index = p + 2 + g * 8;
    guint32 word = word_at (index + 4);
    b->multiplier[g] = (gint16) (word >> 28);
    for (guint v = 0; v < 4; v++)
      put_vector (b->code + g * 32 + v * 8, 8, index[v], even_signs (word >> v * 7));
  }
}

static void split_iq2_xs (const guint8 *p, EngBlock *b)
{
  b->d = half_at (p);
  for (guint g = 0; g < 16; g++)
    b->multiplier[g] = p[66 + g / 2] >> g % 2 * 4 & 15;
  for (guint v = 0; v < 32; v++) {
    guint word = p[2 + v * 2] | (guint) p[3 + v * 2] << 8;
    put_vector (b->code + v * 8, 8, word & 511, even_signs (word >> 9));
  }
}

static void split_iq2_s (const guint8 *p, EngBlock *b)
{
  b->d = half_at (p);
  for (guint g = 0; g < 16; g++)
    b->multiplier[g] = p[74 + g / 2] >> g % 2 * 4 & 15;
  for (guint v = 0; v < 32; v++)
    put_vector (b->code + v * 8, 8, p[2 + v] | (guint) (p[66 + v / 4] >> v % 4 * 2 & 3) << 8, p[34 + v]);
}

static void split_iq3_xxs (const guint8 *p, EngBlock *b)
{
  b->d = half_at (p);
  for (guint g = 0; g < 8; g++) {
    guint32 word = word_at (p + 66 + g * 4);
    b->multiplier[g] = (gint16) (word >> 28);
    for (guint v = 0; v < 8; v++)
      put_vector (b->code + g * 32 + v * 4, 4, p[2 + g * 8 + v], even_signs (word >> v / 2 * 7) >> v % 2 * 4);
  }
}

static void split_iq3_s (const guint8 *p, EngBlock *b)
{
  b->d = half_at (p);
  for (guint g = 0; g < 8; g++)
    b->multiplier[g] = p[106 + g / 2] >> g % 2 * 4 & 15;
  for (guint v = 0; v < 64; v++)
    put_vector (b->code + v * 4, 4, p[2 + v] | (guint) (p[66 + v / 8] >> v % 8 & 1) << 8, (guint) p[74 + v / 2] >> v % 2 * 4);
}

static void split_iq1_s (const guint8 *p, EngBlock *b)
{
  b->d = half_at (p);
  for (guint g = 0; g < 8; g++) {
    guint high = p[34 + g * 2] | (guint) p[35 + g * 2] << 8;
    b->multiplier[g] = high >> 12 & 7;
    for (guint v = 0; v < 4; v++)
      put_vector (b->code + g * 32 + v * 8, 8, p[2 + g * 4 + v] | (high >> v * 3 & 7) << 8 | high >> 15 << 11, 0);
  }
}

static void split_iq1_m (const guint8 *p, EngBlock *b)
{
  const guint8 *scales = p + 48;
  guint8 d[2] = { (guint8) (scales[1] >> 4 | (scales[3] & 0xf0)), (guint8) (scales[5] >> 4 | (scales[7] & 0xf0)) };
  b->d = half_at (d);
  for (guint g = 0; g < 16; g++)
    b->multiplier[g] = (scales[g / 4 * 2] | scales[g / 4 * 2 + 1] << 8) >> g % 4 * 3 & 7;
  for (guint v = 0; v < 32; v++) {
    guint high = p[32 + v / 2] >> v % 2 * 4 & 15;
    put_vector (b->code + v * 8, 8, p[v] | (high & 7) << 8 | high >> 3 << 11, 0);
  }
}

static const struct {
  EngBlockKind kind;
  void (*split) (const guint8 *, EngBlock *);
} kinds[] = {
#define F16 .scale_kind = XB_SCALE_GROUP_F16
#define I8 .scale_kind = XB_SCALE_GROUP_I8
#define ODD .scale_kind = XB_SCALE_GROUP_ODD
  [ENG_TYPE_Q1_0] = { { .depth = 1, .zero2 = 1, .group = 128, F16 }, split_q1_0 },
  [ENG_TYPE_Q2_0] = { { .depth = 2, .zero2 = 2, .group = 64, F16 }, split_q2_0 },
  [ENG_TYPE_TQ1_0] = { { .depth = 2, .zero2 = 2, .group = 256, F16 }, split_tq1_0 },
  [ENG_TYPE_TQ2_0] = { { .depth = 2, .zero2 = 2, .group = 256, F16 }, split_tq2_0 },
  [ENG_TYPE_Q4_0] = { { .depth = 4, .zero2 = 16, .group = 32, F16 }, split_q4_0 },
  [ENG_TYPE_Q4_1] = { { .depth = 4, .group = 32, .has_offset = TRUE, F16 }, split_q4_1 },
  [ENG_TYPE_Q5_0] = { { .depth = 5, .zero2 = 32, .group = 32, F16 }, split_q5_0 },
  [ENG_TYPE_Q5_1] = { { .depth = 5, .group = 32, .has_offset = TRUE, F16 }, split_q5_1 },
  [ENG_TYPE_Q8_0] = { { .depth = 8, .zero2 = 256, .group = 32, F16 }, split_q8_0 },
  [ENG_TYPE_Q2_K] = { { .depth = 2, .group = 16, .has_offset = TRUE, I8 }, split_q2_k },
  [ENG_TYPE_Q3_K] = { { .depth = 3, .zero2 = 8, .group = 16, I8 }, split_q3_k },
  [ENG_TYPE_Q4_K] = { { .depth = 4, .group = 32, .has_offset = TRUE, I8 }, split_q4_k },
  [ENG_TYPE_Q5_K] = { { .depth = 5, .group = 32, .has_offset = TRUE, I8 }, split_q5_k },
  [ENG_TYPE_Q6_K] = { { .depth = 6, .zero2 = 64, .group = 16, I8 }, split_q6_k },
  [ENG_TYPE_IQ4_NL] = { { .depth = 4, .group = 32, .table = iq4_values, F16 }, split_q4_0 },
  [ENG_TYPE_IQ4_XS] = { { .depth = 4, .group = 32, .table = iq4_values, I8 }, split_iq4_xs },
  [ENG_TYPE_MXFP4] = { { .depth = 4, .group = 32, .table = fp4_values, .scale_kind = XB_SCALE_GROUP_E8M0 }, split_mxfp4 },
  [ENG_TYPE_NVFP4] = { { .depth = 4, .group = 16, .table = fp4_values, .scale_kind = XB_SCALE_GROUP_E4M3 }, split_nvfp4 },
  [ENG_TYPE_IQ2_XXS] = { { .depth = 2, .group = 32, .grid = ENG_GRID_IQ2_XXS, .shift = 3, ODD }, split_iq2_xxs },
  [ENG_TYPE_IQ2_XS] = { { .depth = 2, .group = 16, .grid = ENG_GRID_IQ2_XS, .shift = 3, ODD }, split_iq2_xs },
  [ENG_TYPE_IQ2_S] = { { .depth = 3, .group = 16, .grid = ENG_GRID_IQ2_S, .shift = 3, ODD }, split_iq2_s },
  [ENG_TYPE_IQ3_XXS] = { { .depth = 3, .group = 32, .grid = ENG_GRID_IQ3_XXS, .shift = 2, ODD }, split_iq3_xxs },
  [ENG_TYPE_IQ3_S] = { { .depth = 4, .group = 32, .grid = ENG_GRID_IQ3_S, ODD }, split_iq3_s },
  [ENG_TYPE_IQ1_S] = { { .depth = 2, .group = 32, .grid = ENG_GRID_IQ1, .shift = 3, ODD }, split_iq1_s },
  [ENG_TYPE_IQ1_M] = { { .depth = 2, .group = 16, .grid = ENG_GRID_IQ1, .shift = 3, ODD }, split_iq1_m },
};

const EngBlockKind *eng_block_kind (guint type)
{
  return type < G_N_ELEMENTS (kinds) && kinds[type].split ? &kinds[type].kind : NULL;
}

void eng_block_split (guint type, const guint8 *data, EngBlock *block)
{
  kinds[type].split (data, block);
}

float eng_block_scale (const EngBlockKind *kind, const EngBlock *b, guint g)
{
  int n = b->multiplier[g];
  switch (kind->scale_kind) {
  case XB_SCALE_GROUP_I8: return b->d * (float) n;
  case XB_SCALE_GROUP_ODD: return b->d * (float) (2 * n + 1);
  case XB_SCALE_GROUP_E8M0: return ldexpf (1, n - 128);
  case XB_SCALE_GROUP_E4M3: return b->d * ldexpf ((float) (n < 8 ? n : 8 + n % 8), MAX (n / 8, 1) - 10);
  default: return b->d;
  }
}

/* The value of each code before its scale; exact in f32. */
static void code_values (const EngBlockKind *kind, const guint8 *code, float *out, guint n)
{
  if (kind->grid) {
    const gint8 *values = eng_grid_values (kind->grid);
    guint dim = eng_grid_shape (kind->grid)->dim;
    float factor = 1.0f / (float) (1 << kind->shift);
    for (guint i = 0; i < n; i += dim, code += dim)
      for (guint k = 0; k < dim; k++)
        out[i + k] = (code[k] & 128 ? -factor : factor) * (float) values[((code[0] & 127u) | (code[1] & 127u) << 7) * dim + k];
  } else if (kind->table) {
    for (guint i = 0; i < n; i++)
      out[i] = (float) kind->table[code[i] & 15];
  } else {
    for (guint i = 0; i < n; i++)
      out[i] = (float) code[i] - (float) kind->zero2 * 0.5f;
  }
}

void eng_block_weights (const EngBlockKind *kind, const EngBlock *b, guint n, float *out)
{
  code_values (kind, b->code, out, n);
  for (guint g = 0; g * kind->group < n; g++, out += kind->group) {
    float scale = eng_block_scale (kind, b, g);
    float offset = kind->scale_kind == XB_SCALE_GROUP_I8 ? b->m * (float) b->offset_multiplier[g] : b->m;
    for (guint i = 0; i < kind->group; i++)
      out[i] = kind->has_offset ? scale * out[i] + offset : scale * out[i];
  }
}
