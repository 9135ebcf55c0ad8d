/* gguf_types.c: ggml's tensor types: sizes, and dequantization in ggml's own order of operations. */
#include "engine/checkpoint/blocks.h"
#include "engine/checkpoint/packed.h"

#include <string.h>

static const struct {
  guint type;
  EngTypeTraits traits;
} types[] = {
  { 0, { "F32", 1, 4, TRUE, TRUE } },         { 1, { "F16", 1, 2, TRUE, TRUE } },          { 2, { "Q4_0", 32, 18, FALSE, TRUE } },
  { 3, { "Q4_1", 32, 20, FALSE, TRUE } },     { 6, { "Q5_0", 32, 22, FALSE, TRUE } },      { 7, { "Q5_1", 32, 24, FALSE, TRUE } },
  { 8, { "Q8_0", 32, 34, FALSE, TRUE } },     { 9, { "Q8_1", 32, 36, FALSE, FALSE } },     { 10, { "Q2_K", 256, 84, FALSE, TRUE } },
  { 11, { "Q3_K", 256, 110, FALSE, TRUE } },  { 12, { "Q4_K", 256, 144, FALSE, TRUE } },   { 13, { "Q5_K", 256, 176, FALSE, TRUE } },
  { 14, { "Q6_K", 256, 210, FALSE, TRUE } },  { 15, { "Q8_K", 256, 292, FALSE, FALSE } },  { 16, { "IQ2_XXS", 256, 66, FALSE, TRUE } },
  { 17, { "IQ2_XS", 256, 74, FALSE, TRUE } }, { 18, { "IQ3_XXS", 256, 98, FALSE, TRUE } }, { 19, { "IQ1_S", 256, 50, FALSE, TRUE } },
  { 20, { "IQ4_NL", 32, 18, FALSE, TRUE } },  { 21, { "IQ3_S", 256, 110, FALSE, TRUE } },  { 22, { "IQ2_S", 256, 82, FALSE, TRUE } },
  { 23, { "IQ4_XS", 256, 136, FALSE, TRUE } }, { 24, { "I8", 1, 1, FALSE, TRUE } },        { 25, { "I16", 1, 2, FALSE, TRUE } },
  { 26, { "I32", 1, 4, FALSE, TRUE } },       { 27, { "I64", 1, 8, FALSE, TRUE } },        { 28, { "F64", 1, 8, FALSE, TRUE } },
  { 29, { "IQ1_M", 256, 56, FALSE, TRUE } },  { 30, { "BF16", 1, 2, TRUE, TRUE } },        { 34, { "TQ1_0", 256, 54, FALSE, TRUE } },
  { 35, { "TQ2_0", 256, 66, FALSE, TRUE } },  { 39, { "MXFP4", 32, 17, FALSE, TRUE } },    { 40, { "NVFP4", 64, 36, FALSE, TRUE } },
  { 41, { "Q1_0", 128, 18, FALSE, TRUE } },   { 42, { "Q2_0", 64, 18, FALSE, TRUE } },
};

const EngTypeTraits *eng_type_traits (guint type)
{
  for (gsize i = 0; i < G_N_ELEMENTS (types); i++)
    if (types[i].type == type)
      return &types[i].traits;
  return NULL;
}

/* Numbers of the types that are no blocks. */
static void read_numbers (guint type, const guint8 *p, float *out, gsize n)
{
  for (gsize i = 0; i < n; i++) {
    gint16 i16;
    gint32 i32;
    gint64 i64;
    double f64;
    switch (type) {
    case ENG_TYPE_I8: out[i] = (gint8) p[i]; break;
    case ENG_TYPE_I16: memcpy (&i16, p + i * 2, 2); out[i] = i16; break;
    case ENG_TYPE_I32: memcpy (&i32, p + i * 4, 4); out[i] = (float) i32; break;
    case ENG_TYPE_I64: memcpy (&i64, p + i * 8, 8); out[i] = (float) i64; break;
    default: memcpy (&f64, p + i * 8, 8); out[i] = (float) f64; break;
    }
  }
}

void eng_type_dequantize (guint type, const void *data, float *out, gsize n)
{
  const EngTypeTraits *of = eng_type_traits (type);
  const EngBlockKind *kind = eng_block_kind (type);
  g_return_if_fail (of && of->readable && n % of->block == 0);
  if (of->is_float) {
    xb_raw_to_f32 (type == ENG_TYPE_F32 ? XB_RAW_F32 : type == ENG_TYPE_F16 ? XB_RAW_F16 : XB_RAW_BF16, data, out, n);
    return;
  }
  if (!kind) {
    read_numbers (type, data, out, n);
    return;
  }
  EngBlock b = { .m = 0 };
  const guint8 *p = data;
  for (gsize i = 0; i < n; i += of->block, p += of->block_bytes) {
    eng_block_split (type, p, &b);
    eng_block_weights (kind, &b, of->block, out + i);
  }
}

/* ---- big-endian files ------------------------------------------------------------------------------------------------------------ */

/* Where a block holds 16-bit numbers (the others are bytes): `count` of them from byte `at` on. */
static const struct {
  guint8 type, at, count;
} words[] = {
  { ENG_TYPE_Q4_0, 0, 1 },     { ENG_TYPE_Q4_1, 0, 2 },    { ENG_TYPE_Q5_0, 0, 1 },   { ENG_TYPE_Q5_1, 0, 2 },    { ENG_TYPE_Q8_0, 0, 1 },
  { ENG_TYPE_Q2_K, 80, 2 },    { ENG_TYPE_Q3_K, 108, 1 },  { ENG_TYPE_Q4_K, 0, 2 },   { ENG_TYPE_Q5_K, 0, 2 },    { ENG_TYPE_Q6_K, 208, 1 },
  { ENG_TYPE_IQ2_XXS, 0, 33 }, { ENG_TYPE_IQ2_XS, 0, 33 }, { ENG_TYPE_IQ2_S, 0, 1 },  { ENG_TYPE_IQ3_XXS, 0, 1 }, { ENG_TYPE_IQ3_S, 0, 1 },
  { ENG_TYPE_IQ1_S, 0, 1 },    { ENG_TYPE_IQ1_S, 34, 8 },  { ENG_TYPE_IQ4_NL, 0, 1 }, { ENG_TYPE_IQ4_XS, 0, 2 },  { ENG_TYPE_TQ1_0, 52, 1 },
  { ENG_TYPE_TQ2_0, 64, 1 },   { ENG_TYPE_Q1_0, 0, 1 },    { ENG_TYPE_Q2_0, 0, 1 },
};

void eng_type_swap (guint type, guint8 *data, gsize bytes)
{
  const EngTypeTraits *of = eng_type_traits (type);
  guint width = of->block == 1 ? of->block_bytes : 2;
  for (gsize at = 0; at < bytes; at += of->block == 1 ? width : of->block_bytes)
    for (gsize i = 0; i < (of->block == 1 ? 1 : G_N_ELEMENTS (words)); i++) {
      guint begin = of->block == 1 ? 0 : words[i].at, count = of->block == 1 ? 1 : words[i].type == type ? words[i].count : 0;
      for (guint8 *p = data + at + begin; count > 0; count--, p += width)
        for (guint k = 0; k < width / 2; k++) {
          guint8 byte = p[k];
          p[k] = p[width - 1 - k];
          p[width - 1 - k] = byte;
        }
    }
}

/* ---- tensors ------------------------------------------------------------------------------------------------------------------- */

guint64 eng_tensor_n_rows (const EngTensor *tensor)
{
  return tensor->dims[1] * tensor->dims[2] * tensor->dims[3];
}

gboolean eng_tensor_is_readable (const EngTensor *tensor)
{
  const EngTypeTraits *traits = eng_type_traits (tensor->type);
  return tensor->packed || (traits && traits->readable);
}

const char *eng_tensor_type_name (const EngTensor *tensor)
{
  const EngTypeTraits *traits = eng_type_traits (tensor->type);
  return tensor->packed ? tensor->packed->class->method : traits ? traits->name : "an unknown type";
}

const guint8 *eng_tensor_row_bytes (const EngTensor *tensor, guint64 row, GByteArray *swapped)
{
  const EngTypeTraits *traits = eng_type_traits (tensor->type);
  gsize bytes = tensor->dims[0] / traits->block * traits->block_bytes;
  const guint8 *data = tensor->data + row * bytes;
  if (!tensor->swapped)
    return data;
  g_byte_array_set_size (swapped, (guint) bytes);
  memcpy (swapped->data, data, bytes);
  eng_type_swap (tensor->type, swapped->data, bytes);
  return swapped->data;
}

void eng_tensor_read_rows (const EngTensor *tensor, guint64 row0, guint64 n, float *out)
{
  if (tensor->packed) {
    tensor->packed->class->read_rows (tensor->packed, row0, n, out);
    return;
  }
  if (!tensor->swapped) {
    eng_type_dequantize (tensor->type, eng_tensor_row_bytes (tensor, row0, NULL), out, n * tensor->dims[0]);
    return;
  }
  g_autoptr (GByteArray) swapped = g_byte_array_new ();
  for (guint64 i = 0; i < n; i++)
    eng_type_dequantize (tensor->type, eng_tensor_row_bytes (tensor, row0 + i, swapped), out + i * tensor->dims[0], tensor->dims[0]);
}
