/* hf_scaled.c: small floats with scales: FP8 with scales of blocks, rows or all; bitsandbytes' tables of 16. */
#include "engine/checkpoint/hf_quantized.h"

#include "engine/error.h"
#include "engine/json_reader.h"

#include <string.h>

/* ---- FP8 ------------------------------------------------------------------------------------------------------------------------ */

typedef struct {
  EngPacked packed;
  const EngStTensor *weight, *scale;
  guint rows, cols, block_rows, block_cols, scale_cols;
} Scaled;

static void scaled_read_rows (const EngPacked *packed, guint64 row0, guint64 n, float *out)
{
  const Scaled *s = (const Scaled *) packed;
  for (guint64 row = row0; row < row0 + n; row++, out += s->cols) {
    eng_st_read (s->weight, row * s->cols, s->cols, out);
    for (guint block = 0; block < s->scale_cols; block++) {
      float scale;
      eng_st_read (s->scale, row / s->block_rows * s->scale_cols + block, 1, &scale);
      for (guint64 i = (guint64) block * s->block_cols; i < MIN ((guint64) (block + 1) * s->block_cols, s->cols); i++)
        out[i] *= scale;
    }
  }
}

static void scaled_drop (const EngPacked *packed)
{
  eng_st_drop (((const Scaled *) packed)->weight);
}

static void free_plain (EngPacked *packed)
{
  g_free (packed);
}

static const EngPackedClass scaled_class = { "FP8", scaled_read_rows, NULL, scaled_drop, free_plain };

EngPacked *hf_scaled_open (const Hf *hf, const char *module, guint *rows, guint *cols, GError **error)
{
  const EngStTensor *weight = hf_part (hf, module, "weight"), *blocks = hf_part (hf, module, "weight_scale_inv");
  const EngStTensor *scale = blocks ? blocks : hf_part (hf, module, "weight_scale");
  if (weight->n_dims != 2 || weight->type == ENG_ST_OTHER || weight->dims[0] < 1 || weight->dims[1] < 1 || weight->dims[0] > G_MAXINT32 / 64 || weight->dims[1] > G_MAXINT32 / 64
      || scale->type > ENG_ST_BF16)
    return hf_refuse (hf, module, "is stored with scales in a way that Valise does not know; choose another file", error);
  Scaled s = { .packed = { .class = &scaled_class, .number_type = ENG_TYPE_F16, .loss = ENG_LOSS_HALF }, .weight = weight, .scale = scale, .rows = (guint) weight->dims[0],
               .cols = (guint) weight->dims[1] };
  guint64 count = scale->dims[0] * scale->dims[1] * scale->dims[2] * scale->dims[3];
  s.block_rows = count == s.rows ? 1 : s.rows;
  s.block_cols = s.cols;
  if (blocks && count != 1) {
    JsonArray *size = hf_array (hf->quantization, "weight_block_size");
    gint64 height = size && json_array_get_length (size) == 2 ? json_array_get_int_element (size, 0) : 128;
    gint64 width = size && json_array_get_length (size) == 2 ? json_array_get_int_element (size, 1) : 128;
    s.block_rows = (guint) CLAMP (height, 1, G_MAXINT32);
    s.block_cols = (guint) CLAMP (width, 1, G_MAXINT32);
  }
  s.scale_cols = (s.cols - 1) / s.block_cols + 1;
  if (count != (guint64) s.scale_cols * ((s.rows - 1) / s.block_rows + 1))
    return hf_refuse (hf, module, "has scales of another shape than its settings say; the files are damaged", error);
  *rows = s.rows;
  *cols = s.cols;
  return g_memdup2 (&s, sizeof s);
}

/* ---- bitsandbytes' 4 bits ------------------------------------------------------------------------------------------------------------ */

typedef struct {
  EngPacked packed;
  EngPackedClass class;
  const EngStTensor *codes, *absmax, *nested;
  guint rows, cols, block, nested_block;
  float table[16], nested_table[256], offset;
} Fp4;

static float block_peak (const Fp4 *f, guint64 block)
{
  float peak, scale;
  if (!f->nested) {
    eng_st_read (f->absmax, block, 1, &peak);
    return peak;
  }
  eng_st_read (f->nested, block / f->nested_block, 1, &scale);
  return (float) ((double) f->nested_table[f->absmax->data[block]] * scale + f->offset);
}

/* Blocks run on from row to row; the first of two codes is in the upper half of a byte. */
static void fp4_read_rows (const EngPacked *packed, guint64 row0, guint64 n, float *out)
{
  const Fp4 *f = (const Fp4 *) packed;
  float peak = 0;
  for (guint64 i = row0 * f->cols, end = i + n * f->cols, first = i; i < end; i++) {
    if (i == first || i % f->block == 0)
      peak = block_peak (f, i / f->block);
    *out++ = f->table[f->codes->data[i / 2] >> (i % 2 ? 0 : 4) & 15] * peak;
  }
}

static void fp4_drop (const EngPacked *packed)
{
  eng_st_drop (((const Fp4 *) packed)->codes);
}

static gboolean read_state (const Hf *hf, const char *module, Fp4 *f, const char **kind)
{
  static const char *const kinds[] = { "nf4", "fp4" };
  for (guint i = 0; i < G_N_ELEMENTS (kinds); i++) {
    g_autofree char *part = g_strconcat ("weight.quant_state.bitsandbytes__", kinds[i], NULL);
    const EngStTensor *state = hf_part (hf, module, part);
    if (!state || state->type != ENG_ST_U8 || state->bytes > 1 << 16)
      continue;
    g_autoptr (JsonNode) node = eng_json_parse ((const char *) state->data, state->bytes, NULL);
    if (!node || !JSON_NODE_HOLDS_OBJECT (node))
      return FALSE;
    JsonObject *object = json_node_get_object (node);
    JsonArray *shape = hf_array (object, "shape");
    if (!shape || json_array_get_length (shape) != 2)
      return FALSE;
    gint64 rows = json_array_get_int_element (shape, 0), cols = json_array_get_int_element (shape, 1), block = hf_int (object, "blocksize", 64);
    gint64 nested = hf_int (object, "nested_blocksize", 256);
    f->offset = (float) hf_float (object, "nested_offset", 0);
    *kind = kinds[i];
    if (rows < 1 || cols < 1 || rows > G_MAXINT32 / 64 || cols > G_MAXINT32 / 64 || block < 1 || block > 1 << 20 || nested < 1 || nested > 1 << 20)
      return FALSE;
    f->rows = (guint) rows;
    f->cols = (guint) cols;
    f->block = (guint) block;
    f->nested_block = (guint) nested;
    return TRUE;
  }
  return FALSE;
}

static gboolean counts (const EngStTensor *t, guint64 n)
{
  return t && t->type != ENG_ST_OTHER && t->dims[0] * t->dims[1] * t->dims[2] * t->dims[3] == n;
}

EngPacked *hf_fp4_open (const Hf *hf, const char *module, guint *rows, guint *cols, GError **error)
{
  const char *kind = "nf4";
  Fp4 f = { .codes = hf_part (hf, module, "weight"), .absmax = hf_part (hf, module, "weight.absmax"), .nested = hf_part (hf, module, "weight.nested_absmax") };
  const EngStTensor *table = hf_part (hf, module, "weight.quant_map"), *nested_table = hf_part (hf, module, "weight.nested_quant_map");
  if (!read_state (hf, module, &f, &kind))
    return hf_refuse (hf, module, "is stored as bytes of a kind that Valise does not know, or its description is damaged", error);
  guint64 n = (guint64) f.rows * f.cols, blocks = (n - 1) / f.block + 1;
  if (!counts (f.codes, (n + 1) / 2) || !counts (f.absmax, blocks) || !counts (table, 16)
      || (f.nested ? f.absmax->type != ENG_ST_U8 || !counts (nested_table, 256) || !counts (f.nested, (blocks - 1) / f.nested_block + 1) : f.absmax->type > ENG_ST_BF16))
    return hf_refuse (hf, module, "has codes or scales of another size than its shape; the files are damaged", error);
  eng_st_read (table, 0, 16, f.table);
  if (f.nested)
    eng_st_read (nested_table, 0, 256, f.nested_table);
  *rows = f.rows;
  *cols = f.cols;
  Fp4 *made = g_memdup2 (&f, sizeof f);
  made->class = (EngPackedClass) { strcmp (kind, "nf4") == 0 ? "bitsandbytes NF4" : "bitsandbytes FP4", fp4_read_rows, NULL, fp4_drop, free_plain };
  made->packed = (EngPacked) { .class = &made->class, .number_type = ENG_TYPE_F16, .loss = ENG_LOSS_HALF };
  return &made->packed;
}
