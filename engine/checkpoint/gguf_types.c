/* gguf_types.c: ggml's tensor types: sizes, and dequantization in ggml's own order of operations. */
#include "engine/checkpoint/blocks.h"
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
  { 20, { "IQ4_NL", 32, 18, FALSE, TRUE } }, { 21, { "IQ3_S", 256, 110, FALSE, FALSE } }, { 22, { "IQ2_S", 256, 82, FALSE, FALSE } },
  { 23, { "IQ4_XS", 256, 136, FALSE, TRUE } }, { 24, { "I8", 1, 1, FALSE, FALSE } },      { 25, { "I16", 1, 2, FALSE, FALSE } },
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

/* out[n] of a group: the code's value first, then one product, then the offset, as every one of ggml's types does it. */
static void combine (const EngBlockKind *kind, const guint8 *code, float scale, float offset, float *out, guint n)
{
  if (kind->table)
    for (guint i = 0; i < n; i++)
      out[i] = scale * (float) kind->table[code[i] & 15];
  else if (kind->has_offset)
    for (guint i = 0; i < n; i++)
      out[i] = scale * (float) code[i] + offset;
  else
    for (guint i = 0; i < n; i++)
      out[i] = scale * (float) (code[i] - kind->zero);
}

static void dequantize_block (guint type, const EngBlockKind *kind, guint block, const guint8 *data, float *out)
{
  EngBlock b = { .m = 0 };
  eng_block_split (type, data, &b);
  for (guint g = 0; g < block / kind->group; g++) {
    float scale = kind->has_super ? b.d * (float) b.multiplier[g] : b.d;
    float offset = kind->has_super ? b.m * (float) b.offset_multiplier[g] : b.m;
    combine (kind, b.code + g * kind->group, scale, offset, out + g * kind->group, kind->group);
  }
}

void eng_type_dequantize (guint type, const void *data, float *out, gsize n)
{
  const EngTypeTraits *of = eng_type_traits (type);
  const EngBlockKind *kind = eng_block_kind (type);
  g_return_if_fail (of && of->readable && n % of->block == 0);
  if (!kind) {
    xb_raw_to_f32 (type == ENG_TYPE_F32 ? XB_RAW_F32 : type == ENG_TYPE_F16 ? XB_RAW_F16 : XB_RAW_BF16, data, out, n);
    return;
  }
  const guint8 *p = data;
  for (gsize i = 0; i < n; i += of->block, p += of->block_bytes)
    dequantize_block (type, kind, of->block, p, out + i);
}
