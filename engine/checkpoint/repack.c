/* repack.c: a checkpoint of block-quantized types as an X-bit file that holds the very same numbers, one matrix at a time. */
#include "engine/model.h"

#include <string.h>

#include "engine/error.h"

/* How a type lies in an X-bit matrix: depth, zero point in half steps, group, kind of scale, offsets. */
typedef struct {
  guint type, depth, z2, group;
  xb_scale_kind scale_kind;
  gboolean has_offset;
} Recipe;

static const Recipe recipes[] = {
  { ENG_TYPE_Q4_0, 4, 16, 32, XB_SCALE_GROUP_F16, FALSE }, { ENG_TYPE_Q4_1, 4, 0, 32, XB_SCALE_GROUP_F16, TRUE },
  { ENG_TYPE_Q5_0, 5, 32, 32, XB_SCALE_GROUP_F16, FALSE }, { ENG_TYPE_Q5_1, 5, 0, 32, XB_SCALE_GROUP_F16, TRUE },
  { ENG_TYPE_Q8_0, 8, 256, 32, XB_SCALE_GROUP_F16, FALSE }, { ENG_TYPE_Q2_K, 2, 0, 16, XB_SCALE_GROUP_I8, TRUE },
  { ENG_TYPE_Q3_K, 3, 8, 16, XB_SCALE_GROUP_I8, FALSE },   { ENG_TYPE_Q4_K, 4, 0, 32, XB_SCALE_GROUP_I8, TRUE },
  { ENG_TYPE_Q5_K, 5, 0, 32, XB_SCALE_GROUP_I8, TRUE },    { ENG_TYPE_Q6_K, 6, 64, 16, XB_SCALE_GROUP_I8, FALSE },
};

static const Recipe *find_recipe (guint type)
{
  for (gsize i = 0; i < G_N_ELEMENTS (recipes); i++)
    if (recipes[i].type == type)
      return &recipes[i];
  return NULL;
}

gboolean eng_gguf_is_computable (const EngGguf *gguf)
{
  for (guint i = 0; i < eng_gguf_n_tensors (gguf); i++) {
    const EngTensor *t = eng_gguf_tensor (gguf, i);
    if (!eng_type_traits (t->type)->is_float && t->type != ENG_TYPE_I8)
      return FALSE;
  }
  return TRUE;
}

/* One row's block `b` as codes and scale multipliers, written into column r of the band's [group][16] arrays. */
typedef struct {
  guint8 *codes;            /* of row r, at the block's first column */
  float *scale, *offset;    /* of row r, at the block's first group; stride 16 */
  float *super, *super_offset;
} Block;

static float half_at (const guint8 *p)
{
  return xb_half_to_float ((guint16) (p[0] | p[1] << 8));
}

static void nibbles (guint8 *codes, const guint8 *packed)
{
  for (int i = 0; i < 16; i++) {
    codes[i] = packed[i] & 15;
    codes[i + 16] = packed[i] >> 4;
  }
}

static void fifth_bits (guint8 *codes, const guint8 *packed)
{
  for (int i = 0; i < 32; i++)
    codes[i] |= (guint8) ((packed[i / 8] >> (i % 8) & 1) << 4);
}

static void take_k_scale (const guint8 *s, int g, float *scale, float *min)
{
  *scale = (float) (g < 4 ? s[g] & 63 : (s[g + 4] & 15) | (s[g - 4] >> 6) << 4);
  *min = (float) (g < 4 ? s[g + 4] & 63 : (s[g + 4] >> 4) | (s[g] >> 6) << 4);
}

static void take_small_block (guint type, const guint8 *p, const Block *b)
{
  *b->scale = half_at (p);
  switch (type) {
  case ENG_TYPE_Q4_0: nibbles (b->codes, p + 2); break;
  case ENG_TYPE_Q4_1:
    *b->offset = half_at (p + 2);
    nibbles (b->codes, p + 4);
    break;
  case ENG_TYPE_Q5_0:
    nibbles (b->codes, p + 6);
    fifth_bits (b->codes, p + 2);
    break;
  case ENG_TYPE_Q5_1:
    *b->offset = half_at (p + 2);
    nibbles (b->codes, p + 8);
    fifth_bits (b->codes, p + 4);
    break;
  default: /* Q8_0 */
    for (int i = 0; i < 32; i++)
      b->codes[i] = (guint8) (p[2 + i] ^ 0x80);
    break;
  }
}

static void take_k_block (guint type, const guint8 *p, const Block *b)
{
  switch (type) {
  case ENG_TYPE_Q2_K:
    *b->super = half_at (p + 80);
    *b->super_offset = -half_at (p + 82);
    for (int i = 0; i < 256; i++)
      b->codes[i] = p[16 + i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2) & 3;
    for (int g = 0; g < 16; g++) {
      b->scale[g * 16] = (float) (p[g] & 15);
      b->offset[g * 16] = (float) (p[g] >> 4);
    }
    break;
  case ENG_TYPE_Q3_K:
    *b->super = half_at (p + 108);
    for (int i = 0; i < 256; i++)
      b->codes[i] = (guint8) ((p[32 + i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2) & 3) | (p[i % 32] >> (i / 32) & 1) << 2);
    for (int g = 0; g < 16; g++)
      b->scale[g * 16] = (float) (((g < 8 ? p[96 + g] & 15 : p[88 + g] >> 4) | (p[104 + g % 4] >> (g / 4 * 2) & 3) << 4) - 32);
    break;
  case ENG_TYPE_Q4_K:
  case ENG_TYPE_Q5_K: {
    const guint8 *low = p + (type == ENG_TYPE_Q4_K ? 16 : 48), *high = p + 16;
    *b->super = half_at (p);
    *b->super_offset = -half_at (p + 2);
    for (int g = 0; g < 8; g++) {
      take_k_scale (p + 4, g, b->scale + g * 16, b->offset + g * 16);
      for (int i = 0; i < 32; i++) {
        guint8 code = low[g / 2 * 32 + i] >> (g % 2 * 4) & 15;
        b->codes[g * 32 + i] = type == ENG_TYPE_Q5_K ? (guint8) (code | (high[i] >> g & 1) << 4) : code;
      }
    }
    break;
  }
  default: /* Q6_K */
    *b->super = half_at (p + 208);
    for (int i = 0; i < 256; i++) {
      int half = i / 128, quarter = i % 128 / 32, l = i % 32;
      b->codes[i] = (guint8) ((p[half * 64 + (quarter & 1) * 32 + l] >> (quarter / 2 * 4) & 15)
                              | (p[128 + half * 32 + l] >> (quarter * 2) & 3) << 4);
    }
    for (int g = 0; g < 16; g++)
      b->scale[g * 16] = (float) (gint8) p[192 + g];
    break;
  }
}

typedef struct {
  guint32 rows, cols, stripe_end, panel_end;
  xb_cell cell;
  xb_layout layout;
} Shape;

static void describe (Shape *s, const EngTensor *t, const Recipe *r)
{
  s->rows = (guint32) t->dims[1];
  s->cols = (guint32) t->dims[0];
  s->stripe_end = s->rows;
  s->panel_end = s->cols;
  s->cell = (xb_cell) { .depth = (guint8) r->depth, .codebook = XB_UNIFORM, .z2 = (guint16) r->z2 };
  s->layout = (xb_layout) {
    .rows = s->rows, .cols = s->cols, .group = r->group, .scale_kind = (guint8) r->scale_kind, .has_offset = (guint8) r->has_offset,
    .n_stripes = 1, .n_panels = 1, .stripe_end = &s->stripe_end, .panel_end = &s->panel_end, .cells = &s->cell,
  };
}

/* The matrix as a blob of `size` bytes. */
static guint8 *pack_matrix (const EngTensor *t, const Recipe *recipe, const Shape *s, gsize size)
{
  const EngTypeTraits *traits = eng_type_traits (t->type);
  guint8 *blob = g_aligned_alloc (size, 1, XB_ALIGN);
  guint padded = (s->cols + 31) / 32 * 32, n_groups = xb_layout_groups (&s->layout), n_super = (s->cols + 255) / 256;
  gsize row_bytes = (gsize) s->cols / traits->block * traits->block_bytes;
  guint per_block = traits->block / recipe->group;
  g_autofree guint8 *codes = g_malloc0 ((gsize) padded * 16);
  g_autofree float *scales = g_new0 (float, (gsize) (n_groups + n_super) * 32);
  float *scale = scales, *offset = scale + n_groups * 16, *super = offset + n_groups * 16, *super_offset = super + n_super * 16;
  xb_error error = xb_matrix_init (blob, size, &s->layout);
  for (guint band = 0; band * 16 < s->rows && !error; band++) {
    for (guint r = 0; r < 16 && band * 16 + r < s->rows; r++) {
      const guint8 *p = t->data + (band * 16 + r) * row_bytes;
      for (guint b = 0; b < s->cols / traits->block; b++, p += traits->block_bytes) {
        Block block = { codes + (gsize) r * padded + b * traits->block, scale + b * per_block * 16 + r, offset + b * per_block * 16 + r,
                        super + b * 16 + r, super_offset + b * 16 + r };
        if (recipe->scale_kind == XB_SCALE_GROUP_I8)
          take_k_block (t->type, p, &block);
        else
          take_small_block (t->type, p, &block);
      }
    }
    if ((band + 1) * 16 > s->rows) /* rows that are padding */
      for (guint r = s->rows % 16; r < 16; r++)
        for (guint i = 0; i < (n_groups + n_super) * 2; i++)
          scales[i * 16 + r] = 0;
    error = xb_pack_band (blob, size, band, codes, scale, offset, super, super_offset);
  }
  if (error) {
    g_critical ("%s: %s", t->name, error);
    g_aligned_free (blob);
    return NULL;
  }
  return blob;
}

static gboolean is_packed (const EngTensor *t)
{
  return t->n_dims >= 2 && !eng_type_traits (t->type)->is_float && t->type != ENG_TYPE_I8;
}

static gboolean refuse (const EngGguf *source, const EngTensor *t, const char *why, GError **error)
{
  g_set_error (error, ENG_ERROR, ENG_ERROR_UNSUPPORTED, "%s: tensor %s %s; choose another file of this model", eng_gguf_path (source), t->name, why);
  return FALSE;
}

static gboolean declare (EngGgufWriter *writer, const EngGguf *source, const EngTensor *t, GError **error)
{
  if (!is_packed (t)) {
    eng_gguf_writer_add_tensor (writer, t->name, t->type, t->n_dims, t->dims);
    return TRUE;
  }
  const Recipe *recipe = find_recipe (t->type);
  g_autofree char *why = g_strdup_printf ("is of type %s, which cannot be computed on yet", eng_type_traits (t->type)->name);
  if (!recipe)
    return refuse (source, t, why, error);
  if (t->n_dims != 2 || t->dims[0] > G_MAXINT32 || t->dims[1] > G_MAXINT32)
    return refuse (source, t, "is no matrix", error);
  Shape shape;
  describe (&shape, t, recipe);
  xb_error wrong;
  guint64 size = xb_layout_bytes (&shape.layout, &wrong);
  if (!size)
    return refuse (source, t, wrong, error);
  g_autofree char *name = g_strconcat (t->name, ".xbit", NULL);
  eng_gguf_writer_add_tensor (writer, name, ENG_TYPE_I8, 1, &size);
  return TRUE;
}

static gboolean write_tensor (EngGgufWriter *writer, guint i, const EngTensor *t, GError **error)
{
  if (!is_packed (t))
    return eng_gguf_writer_write (writer, i, 0, t->data, t->bytes, error);
  Shape shape;
  const Recipe *recipe = find_recipe (t->type);
  describe (&shape, t, recipe);
  gsize size = xb_layout_bytes (&shape.layout, NULL);
  guint8 *blob = pack_matrix (t, recipe, &shape, size);
  gboolean ok = blob && eng_gguf_writer_write (writer, i, 0, blob, size, error);
  g_aligned_free (blob);
  return ok;
}

gboolean eng_repack (EngGguf *source, const char *path, EngProgress progress, gpointer data, GCancellable *cancellable, GError **error)
{
  g_autoptr (EngGgufWriter) writer = eng_gguf_writer_new (XB_ALIGN);
  eng_gguf_writer_set_u32 (writer, "valise.version", ENG_FILE_VERSION);
  eng_gguf_writer_copy_metadata (writer, source);
  guint n = eng_gguf_n_tensors (source);
  for (guint i = 0; i < n; i++)
    if (!declare (writer, source, eng_gguf_tensor (source, i), error))
      return FALSE;
  if (!eng_gguf_writer_begin (writer, path, error))
    return FALSE;
  for (guint i = 0; i < n; i++) {
    const EngTensor *t = eng_gguf_tensor (source, i);
    if (g_cancellable_is_cancelled (cancellable)) {
      g_set_error (error, ENG_ERROR, ENG_ERROR_CANCELLED, "Packing %s was cancelled", eng_gguf_path (source));
      return FALSE;
    }
    if (progress)
      progress ((double) i / n, "Packing for this computer", data);
    if (!write_tensor (writer, i, t, error))
      return FALSE;
    eng_gguf_drop_tensor (source, t);
  }
  return eng_gguf_writer_finish (writer, error);
}
