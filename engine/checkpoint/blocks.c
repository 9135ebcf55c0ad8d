/* blocks.c: where the codes, scales and offsets of each ggml block lie. */
#include "engine/checkpoint/blocks.h"
#include "engine/checkpoint/gguf.h"
#include "kernels/xbit.h"

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
    b->multiplier[g] = (gint8) ((int) (low | high << 4) - 32);
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
    b->multiplier[g + 4] = (gint8) ((p[g + 8] & 15) | p[g] >> 6 << 4);
    b->offset_multiplier[g + 4] = (gint8) (p[g + 8] >> 4 | p[g + 4] >> 6 << 4);
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
    b->multiplier[g] = (gint8) ((int) (low | high << 4) - 32);
    nibbles (p + 8 + g * 16, b->code + g * 32);
  }
}

static const struct {
  EngBlockKind kind;
  void (*split) (const guint8 *, EngBlock *);
} kinds[] = {
  [ENG_TYPE_Q4_0] = { { .depth = 4, .zero = 8, .group = 32 }, split_q4_0 },
  [ENG_TYPE_Q4_1] = { { .depth = 4, .group = 32, .has_offset = TRUE }, split_q4_1 },
  [ENG_TYPE_Q5_0] = { { .depth = 5, .zero = 16, .group = 32 }, split_q5_0 },
  [ENG_TYPE_Q5_1] = { { .depth = 5, .group = 32, .has_offset = TRUE }, split_q5_1 },
  [ENG_TYPE_Q8_0] = { { .depth = 8, .zero = 128, .group = 32 }, split_q8_0 },
  [ENG_TYPE_Q2_K] = { { .depth = 2, .group = 16, .has_offset = TRUE, .has_super = TRUE }, split_q2_k },
  [ENG_TYPE_Q3_K] = { { .depth = 3, .zero = 4, .group = 16, .has_super = TRUE }, split_q3_k },
  [ENG_TYPE_Q4_K] = { { .depth = 4, .group = 32, .has_offset = TRUE, .has_super = TRUE }, split_q4_k },
  [ENG_TYPE_Q5_K] = { { .depth = 5, .group = 32, .has_offset = TRUE, .has_super = TRUE }, split_q5_k },
  [ENG_TYPE_Q6_K] = { { .depth = 6, .zero = 32, .group = 16, .has_super = TRUE }, split_q6_k },
  [ENG_TYPE_IQ4_NL] = { { .depth = 4, .group = 32, .table = iq4_values }, split_q4_0 },
  [ENG_TYPE_IQ4_XS] = { { .depth = 4, .group = 32, .has_super = TRUE, .table = iq4_values }, split_iq4_xs },
};

const EngBlockKind *eng_block_kind (guint type)
{
  return type < G_N_ELEMENTS (kinds) && kinds[type].split ? &kinds[type].kind : NULL;
}

void eng_block_split (guint type, const guint8 *data, EngBlock *block)
{
  kinds[type].split (data, block);
}
