/* hf_microscaled.c: 4-bit floats with a small scale to each few of them: MXFP4 as gpt-oss and compressed-tensors store it, NVFP4. */
#include "engine/checkpoint/hf_quantized.h"

#include <math.h>

static const gint8 fp4_values[1][16] = { { 0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12 } };

enum { MX_GROUP = 32, NV_GROUP = 16 };

typedef struct {
  EngPacked packed;
  const EngStTensor *codes, *scales; /* two codes to a byte, the first one in the lower half; a byte to a group */
  guint group;
  double global; /* NVFP4: what everything is divided by */
  xb_layout layout;
  xb_cell cell;
  guint32 stripe_end, panel_end;
} Fp4;

static guint code_at (const Fp4 *f, guint64 row, guint col)
{
  return f->codes->data[row * (f->layout.cols / 2) + col / 2] >> (col % 2 * 4) & 15;
}

static void fill_codes (const Fp4 *f, guint band, EngBand *out)
{
  guint cols = f->layout.cols, groups = cols / f->group;
  for (guint r = 0; r < XB_TILE_ROWS && band * XB_TILE_ROWS + r < f->layout.rows; r++) {
    guint64 row = (guint64) band * XB_TILE_ROWS + r;
    for (guint col = 0; col < cols; col++)
      out->codes[(gsize) r * ((cols + 31) / 32 * 32) + col] = (guint8) code_at (f, row, col);
    for (guint g = 0; g < groups; g++)
      out->scale[g * XB_TILE_ROWS + r] = f->scales->data[row * groups + g];
  }
}

static void drop (const EngPacked *packed)
{
  eng_st_drop (((const Fp4 *) packed)->codes);
}

static void free_plain (EngPacked *packed)
{
  g_free (packed);
}

static EngPacked *open_fp4 (const EngPackedClass *class, const EngStTensor *codes, const EngStTensor *scales, guint rows, guint cols, guint group, xb_scale_kind kind)
{
  Fp4 *f = g_new0 (Fp4, 1);
  f->packed = (EngPacked) { .class = class, .layout = &f->layout };
  f->codes = codes;
  f->scales = scales;
  f->group = group;
  f->stripe_end = rows;
  f->panel_end = cols;
  f->cell = (xb_cell) { .depth = 4, .codebook = XB_TABLE };
  f->layout = (xb_layout) { .rows = rows, .cols = cols, .group = group, .scale_kind = kind, .n_stripes = 1, .n_panels = 1, .n_tables = 1,
                            .stripe_end = &f->stripe_end, .panel_end = &f->panel_end, .cells = &f->cell, .tables = fp4_values };
  return &f->packed;
}

/* ---- MXFP4 -------------------------------------------------------------------------------------------------------------------------- */

static void mx_read_rows (const EngPacked *packed, guint64 row0, guint64 n, float *out)
{
  const Fp4 *f = (const Fp4 *) packed;
  guint groups = f->layout.cols / MX_GROUP;
  for (guint64 row = row0; row < row0 + n; row++)
    for (guint col = 0; col < f->layout.cols; col++) /* values are doubled, scales 2^(n - 127) */
      *out++ = ldexpf (fp4_values[0][code_at (f, row, col)], f->scales->data[row * groups + col / MX_GROUP] - 128);
}

static void mx_fill_band (const EngPacked *packed, guint band, EngBand *out)
{
  fill_codes ((const Fp4 *) packed, band, out);
}

static const EngPackedClass mx_class = { "MXFP4", mx_read_rows, mx_fill_band, drop, free_plain };

static guint64 count_of (const EngStTensor *t)
{
  return t->dims[0] * t->dims[1] * t->dims[2] * t->dims[3];
}

EngPacked *hf_mxfp4_open (const Hf *hf, const char *module, guint *rows, guint *cols, GError **error)
{
  const EngStTensor *codes = hf_part (hf, module, "blocks"), *scales = hf_part (hf, module, "scales");
  guint64 n_rows = 0, bytes = 0; /* of codes to a row */
  if (codes && codes->n_dims == 4) { /* [experts][rows][groups][16] */
    n_rows = codes->dims[0] <= 4096 ? codes->dims[0] * MIN (codes->dims[1], 1 << 20) : 0;
    bytes = codes->dims[3] == MX_GROUP / 2 ? codes->dims[2] * (MX_GROUP / 2) : 0;
  } else if (!codes && (codes = hf_part (hf, module, "weight_packed")) && codes->n_dims == 2) {
    scales = hf_part (hf, module, "weight_scale");
    n_rows = codes->dims[0];
    bytes = codes->dims[1];
  }
  if (!codes || !scales || codes->type != ENG_ST_U8 || scales->type != ENG_ST_U8 || n_rows < 1 || bytes < 1 || n_rows > G_MAXINT32 / 64 || bytes > G_MAXINT32 / 128
      || bytes % (MX_GROUP / 2) != 0 || count_of (codes) != n_rows * bytes || count_of (scales) != n_rows * (bytes / (MX_GROUP / 2)))
    return hf_refuse (hf, module, "is packed as MXFP4 in a way that Valise does not know, or its scales are damaged; choose another file", error);
  *rows = (guint) n_rows;
  *cols = (guint) bytes * 2;
  return open_fp4 (&mx_class, codes, scales, *rows, *cols, MX_GROUP, XB_SCALE_GROUP_E8M0);
}

/* ---- NVFP4 -------------------------------------------------------------------------------------------------------------------------- */

static void nv_read_rows (const EngPacked *packed, guint64 row0, guint64 n, float *out)
{
  const Fp4 *f = (const Fp4 *) packed;
  for (guint64 row = row0; row < row0 + n; row++)
    for (guint col = 0; col < f->layout.cols; col++) {
      float scale;
      eng_st_read (f->scales, row * (f->layout.cols / NV_GROUP) + col / NV_GROUP, 1, &scale);
      *out++ = (float) ((double) fp4_values[0][code_at (f, row, col)] * 0.5 * (double) scale / f->global);
    }
}

static void nv_fill_band (const EngPacked *packed, guint band, EngBand *out)
{
  const Fp4 *f = (const Fp4 *) packed;
  fill_codes (f, band, out);
  for (guint i = 0; i < f->layout.cols / NV_GROUP * XB_TILE_ROWS; i++)
    out->scale[i] = (float) ((guint) out->scale[i] & 127); /* a scale's sign counts for nothing */
  for (guint r = 0; r < XB_TILE_ROWS && band * XB_TILE_ROWS + r < f->layout.rows; r++)
    out->super[r] = (float) (0.5 / f->global);
}

static const EngPackedClass nv_class = { "NVFP4", nv_read_rows, nv_fill_band, drop, free_plain };

EngPacked *hf_nvfp4_open (const Hf *hf, const char *module, guint *rows, guint *cols, GError **error)
{
  const EngStTensor *codes = hf_part (hf, module, "weight_packed"), *scales = hf_part (hf, module, "weight_scale");
  float global = eng_st_scalar (hf_part (hf, module, "weight_global_scale"), 0);
  if (!codes || codes->n_dims != 2 || codes->dims[0] < 1 || codes->dims[0] > G_MAXINT32 / 64 || codes->dims[1] < 8 || codes->dims[1] > G_MAXINT32 / 128 || !scales
      || scales->type != ENG_ST_F8_E4M3 || codes->dims[1] % 8 != 0 || scales->dims[0] != codes->dims[0] || scales->dims[1] != codes->dims[1] / 8
      || scales->bytes != scales->dims[0] * scales->dims[1] || !(global > 0))
    return hf_refuse (hf, module, "is packed in a way that Valise does not know, or its scales are damaged; choose another file", error);
  *rows = (guint) codes->dims[0];
  *cols = (guint) codes->dims[1] * 2;
  EngPacked *packed = open_fp4 (&nv_class, codes, scales, *rows, *cols, NV_GROUP, XB_SCALE_GROUP_E4M3);
  ((Fp4 *) packed)->global = (double) global;
  packed->loss = ENG_LOSS_STEP;
  return packed;
}
