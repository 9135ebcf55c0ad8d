/* encode.c: LDLQ over columns. Rows lie side by side in memory (a column of the batch is contiguous), so that every step is a loop
 * over rows; what earlier blocks of columns add to a block is one float product. */
#include "quantizer/encode.h"

#include "kernels/dense.h"
#include "quantizer/codebook.h"
#include "quantizer/shape.h"

#include <string.h>

/* Columns compensated together: a panel, and so a whole number of groups. */
enum { BLOCK = QZ_PANEL_COLS, SUPER_COLS = 256 };

struct QzEncodeScratch {
  guint n, cols, cols_padded, n_groups, n_supers;
  float *error;    /* [n][cols] w - q, all earlier columns */
  float *carried;  /* [n][BLOCK] what they add to the block */
  float *target;   /* [BLOCK][n] */
  float *delta;    /* [BLOCK][n] w - q within the block */
  float *weight;   /* [BLOCK][n] w */
  guint8 *code;    /* [n] of one column */
  float *value;    /* [n] */
  float *scale;    /* [n_groups][n] */
  float *super;    /* [n_supers][n] */
  float *search;   /* [5 n] */
  guint8 *quad_code;  /* [4][n] of the four columns that trellises encode together */
  float *quad_value;  /* [4][n] */
  guint8 *codes;   /* [n][cols_padded] */
  float *memory;
};

QzEncodeScratch *qz_encode_scratch_new (const QzEncoder *encoder, guint n_rows)
{
  const xb_layout *layout = encoder->layout;
  QzEncodeScratch *s = g_new0 (QzEncodeScratch, 1);
  gsize n = (n_rows + XB_TILE_ROWS - 1) / XB_TILE_ROWS * XB_TILE_ROWS;
  s->n = n;
  s->cols = layout->cols;
  s->cols_padded = (layout->cols + XB_TILE_COLS - 1) / XB_TILE_COLS * XB_TILE_COLS;
  s->n_groups = xb_layout_groups (layout);
  s->n_supers = (layout->cols + SUPER_COLS - 1) / SUPER_COLS;
  struct {
    float **where;
    gsize floats;
  } parts[] = {
    { &s->error, n * s->cols }, { &s->carried, n * BLOCK }, { &s->target, n * BLOCK },   { &s->delta, n * BLOCK },     { &s->weight, n * BLOCK },
    { &s->value, n },           { &s->scale, n * s->n_groups }, { &s->super, n * s->n_supers }, { &s->search, 5 * n },
    { &s->quad_value, QZ_TRELLIS_COLS * n },
  };
  gsize total = 0;
  for (guint i = 0; i < G_N_ELEMENTS (parts); i++)
    total += parts[i].floats;
  s->memory = g_new (float, total);
  total = 0;
  for (guint i = 0; i < G_N_ELEMENTS (parts); i++) {
    *parts[i].where = s->memory + total;
    total += parts[i].floats;
  }
  s->code = g_malloc (n);
  s->quad_code = g_malloc (QZ_TRELLIS_COLS * n);
  s->codes = g_malloc (n * s->cols_padded);
  return s;
}

void qz_encode_scratch_free (QzEncodeScratch *s)
{
  if (s == NULL)
    return;
  g_free (s->memory);
  g_free (s->code);
  g_free (s->quad_code);
  g_free (s->codes);
  g_free (s);
}

typedef struct {
  const QzEncoder *encoder;
  QzEncodeScratch *s;
  guint row0, n;
  const float *w;
} Batch;

/* Stripes of the batch, and the codebook of a stripe at a column. */
static guint n_stripes_of (const Batch *b)
{
  return (b->n + QZ_STRIPE_ROWS - 1) / QZ_STRIPE_ROWS;
}

static const QzCodebook *book_at (const Batch *b, guint stripe, guint panel)
{
  const xb_layout *layout = b->encoder->layout;
  return qz_codebook (layout->cells[(gsize) (b->row0 / QZ_STRIPE_ROWS + stripe) * layout->n_panels + panel].depth);
}

static guint panel_of (const xb_layout *layout, guint col)
{
  guint panel = 0;
  while (layout->panel_end[panel] <= col)
    panel++;
  return panel;
}

/* One f16 scale for each whole row, from its weights before any compensation. */
static void choose_row_scales (Batch *b)
{
  QzEncodeScratch *s = b->s;
  guint cols = s->cols;
  g_autofree float *columns = g_new (float, (gsize) cols * QZ_STRIPE_ROWS);
  for (guint stripe = 0; stripe < n_stripes_of (b); stripe++) {
    guint r0 = stripe * QZ_STRIPE_ROWS, n = MIN (QZ_STRIPE_ROWS, b->n - r0);
    for (guint i = 0; i < n; i++)
      for (guint j = 0; j < cols; j++)
        columns[(gsize) j * n + i] = b->w[(gsize) (r0 + i) * cols + j];
    qz_codebook_search (book_at (b, stripe, 0), n, cols, columns, n, b->encoder->pivots, NULL, s->scale + r0, s->search);
  }
}

/* The f16 that the integer scales of the next 256 columns multiply: large enough for each of their groups. */
static void choose_supers (Batch *b, guint super)
{
  QzEncodeScratch *s = b->s;
  const xb_layout *layout = b->encoder->layout;
  const float *pivots = b->encoder->pivots;
  guint col0 = super * SUPER_COLS, col1 = MIN (col0 + SUPER_COLS, s->cols);
  float *out = s->super + (gsize) super * s->n;
  memset (out, 0, sizeof (float) * b->n);
  for (guint g0 = col0; g0 < col1;) {
    guint panel = panel_of (layout, g0);
    guint g1 = MIN (MIN (g0 + layout->group, layout->panel_end[panel]), col1);
    float sum = 0;
    for (guint j = g0; j < g1; j++)
      sum += pivots[j];
    for (guint i = 0; i < b->n; i++) {
      const float *row = b->w + (gsize) i * s->cols;
      float square = 0;
      for (guint j = g0; j < g1; j++)
        square += pivots[j] * row[j] * row[j];
      float first = qz_codebook_first_scale (book_at (b, i / QZ_STRIPE_ROWS, panel), sum > 0 ? square / sum : 0);
      out[i] = MAX (out[i], first);
    }
    g0 = g1;
  }
  /* Room for what compensation adds to the group and for the wider scales of the search. */
  for (guint i = 0; i < b->n; i++) {
    float half = qz_round_half (out[i] * 1.4f / 127);
    out[i] = half > 0 || out[i] == 0 ? half : 0x1p-24f;
  }
}

static void choose_group_scales (Batch *b, guint group, guint col0, guint col1, guint block0)
{
  QzEncodeScratch *s = b->s;
  const xb_layout *layout = b->encoder->layout;
  const float *super = layout->scale_kind == XB_SCALE_GROUP_I8 ? s->super + (gsize) (col0 / SUPER_COLS) * s->n : NULL;
  guint panel = panel_of (layout, col0);
  for (guint stripe = 0; stripe < n_stripes_of (b); stripe++) {
    guint r0 = stripe * QZ_STRIPE_ROWS, n = MIN (QZ_STRIPE_ROWS, b->n - r0);
    qz_codebook_search (book_at (b, stripe, panel), n, col1 - col0, s->target + (gsize) (col0 - block0) * s->n + r0, s->n, b->encoder->pivots + col0,
                        super != NULL ? super + r0 : NULL, s->scale + (gsize) group * s->n + r0, s->search);
  }
}

/* target = w + what the errors of all earlier blocks add. */
static void begin_block (Batch *b, guint col0, guint col1)
{
  QzEncodeScratch *s = b->s;
  const float *factor = b->encoder->factor;
  guint cols = s->cols, width = col1 - col0;
  if (col0 > 0 && factor != NULL)
    xb_gemm (false, false, 0, b->n, width, col0, s->error, cols, factor + col0, cols, 0, s->carried, BLOCK);
  else
    memset (s->carried, 0, sizeof (float) * b->n * BLOCK);
  for (guint j = 0; j < width; j++)
    for (guint i = 0; i < b->n; i++) {
      float w = b->w[(gsize) i * cols + col0 + j];
      s->weight[(gsize) j * s->n + i] = w;
      s->target[(gsize) j * s->n + i] = w + s->carried[(gsize) i * BLOCK + j];
    }
}

/* Rows of one stripe whose codes are of a trellis: columns j to j + 3 at once, 16 rows at a time. */
static void quantize_quad (Batch *b, const QzCodebook *book, guint stripe, guint j, guint col0, const float *scale)
{
  QzEncodeScratch *s = b->s;
  const QzEncoder *e = b->encoder;
  guint8 codes[QZ_TRELLIS_COLS][QZ_TRELLIS_ROWS];
  float values[QZ_TRELLIS_COLS][QZ_TRELLIS_ROWS];
  for (guint r0 = stripe * QZ_STRIPE_ROWS; r0 < MIN ((stripe + 1) * QZ_STRIPE_ROWS, b->n); r0 += QZ_TRELLIS_ROWS) {
    gsize at = (gsize) (j - col0) * s->n + r0;
    QzQuad quad = { .n_rows = MIN (QZ_TRELLIS_ROWS, b->n - r0), .n_cols = MIN (QZ_TRELLIS_COLS, s->cols - j), .ld = s->n,
                    .weight = s->weight + at, .target = s->target + at, .scale = scale + r0,
                    .importance = e->importance != NULL ? e->importance + b->row0 + r0 : NULL, .pivots = e->pivots + j,
                    .factor = e->factor != NULL ? e->factor + (gsize) j * s->cols + j : NULL, .ld_factor = s->cols };
    qz_trellis_encode (book->trellis, &quad, codes, values);
    for (guint k = 0; k < QZ_TRELLIS_COLS; k++)
      for (guint r = 0; r < QZ_TRELLIS_ROWS; r++) {
        s->quad_code[k * s->n + r0 + r] = codes[k][r];
        s->quad_value[k * s->n + r0 + r] = values[k][r];
        s->codes[(gsize) (r0 + r) * s->cols_padded + j + k] = codes[k][r];
      }
  }
}

static void quantize_block (Batch *b, guint col0, guint col1, double *loss)
{
  QzEncodeScratch *s = b->s;
  const QzEncoder *e = b->encoder;
  const xb_layout *layout = e->layout;
  guint n = b->n, group = 0;
  if (layout->scale_kind != XB_SCALE_ROW_F16)
    while (group + 1 < s->n_groups && xb_layout_group_start (layout, group + 1) <= col0)
      group++;
  guint next_group = col0;
  for (guint j = col0; j < col1; j++) {
    if (layout->scale_kind != XB_SCALE_ROW_F16 && j == next_group) {
      group += j > col0;
      next_group = group + 1 < s->n_groups ? xb_layout_group_start (layout, group + 1) : s->cols;
      choose_group_scales (b, group, j, MIN (next_group, col1), col0);
    }
    guint panel = panel_of (layout, j);
    float *target = s->target + (gsize) (j - col0) * s->n, *delta = s->delta + (gsize) (j - col0) * s->n;
    const float *weight = s->weight + (gsize) (j - col0) * s->n, *scale = s->scale + (gsize) group * s->n;
    for (guint stripe = 0; stripe < n_stripes_of (b); stripe++) {
      guint r0 = stripe * QZ_STRIPE_ROWS, rows = MIN (QZ_STRIPE_ROWS, n - r0), in_quad = j % QZ_TRELLIS_COLS;
      const QzCodebook *book = book_at (b, stripe, panel);
      if (book->trellis == NULL) {
        qz_codebook_quantize (book, rows, target + r0, scale + r0, s->code + r0, s->value + r0);
        continue;
      }
      if (in_quad == 0)
        quantize_quad (b, book, stripe, j, col0, scale);
      memcpy (s->code + r0, s->quad_code + in_quad * s->n + r0, rows);
      memcpy (s->value + r0, s->quad_value + in_quad * s->n + r0, sizeof (float) * rows);
    }
    for (guint i = 0; i < n; i++) {
      float missed = target[i] - s->value[i];
      loss[i] += (double) e->pivots[j] * missed * missed;
      delta[i] = weight[i] - s->value[i];
      s->codes[(gsize) i * s->cols_padded + j] = s->code[i];
    }
    if (e->factor == NULL)
      continue;
    const float *f = e->factor + (gsize) j * s->cols;
    for (guint k = j + 1; k < col1; k++) {
      float *later = s->target + (gsize) (k - col0) * s->n, fk = f[k];
      for (guint i = 0; i < n; i++)
        later[i] += fk * delta[i];
    }
  }
  for (guint i = 0; i < n; i++)
    for (guint j = col0; j < col1; j++)
      s->error[(gsize) i * s->cols + j] = s->delta[(gsize) (j - col0) * s->n + i];
}

/* Scales of 16 rows in the order the packer takes; integers where they multiply a super scale. */
static xb_error pack_bands (const Batch *b, void *blob, gsize size)
{
  const QzEncodeScratch *s = b->s;
  const xb_layout *layout = b->encoder->layout;
  gboolean integers = layout->scale_kind == XB_SCALE_GROUP_I8;
  g_autofree float *scale = g_new0 (float, (gsize) s->n_groups * XB_TILE_ROWS);
  g_autofree float *super = g_new0 (float, (gsize) s->n_supers * XB_TILE_ROWS);
  for (guint r0 = 0; r0 < b->n; r0 += XB_TILE_ROWS) {
    guint rows = MIN (XB_TILE_ROWS, b->n - r0);
    for (guint u = 0; integers && u < s->n_supers; u++)
      for (guint i = 0; i < rows; i++)
        super[u * XB_TILE_ROWS + i] = s->super[(gsize) u * s->n + r0 + i];
    for (guint g = 0; g < s->n_groups; g++) {
      guint u = integers ? xb_layout_group_start (layout, g) / SUPER_COLS : 0;
      for (guint i = 0; i < XB_TILE_ROWS; i++) {
        float value = i < rows ? s->scale[(gsize) g * s->n + r0 + i] : 0;
        if (integers && value != 0)
          value = (float) (int) (value / super[u * XB_TILE_ROWS + i] + 0.5f);
        scale[g * XB_TILE_ROWS + i] = value;
      }
    }
    xb_error why = xb_pack_band (blob, size, (b->row0 + r0) / XB_TILE_ROWS, s->codes + (gsize) r0 * s->cols_padded, scale, NULL,
                                 integers ? super : NULL, NULL);
    if (why != NULL)
      return why;
  }
  return NULL;
}

xb_error qz_encode_rows (const QzEncoder *encoder, QzEncodeScratch *scratch, guint row0, guint n_rows, const float *w, void *blob, gsize size,
                         double *loss)
{
  Batch b = { encoder, scratch, row0, n_rows, w };
  const xb_layout *layout = encoder->layout;
  memset (scratch->codes, 0, (gsize) scratch->n * scratch->cols_padded);
  memset (loss, 0, sizeof (double) * n_rows);
  if (layout->scale_kind == XB_SCALE_ROW_F16)
    choose_row_scales (&b);
  for (guint col0 = 0; col0 < layout->cols; col0 += BLOCK) {
    guint col1 = MIN (col0 + BLOCK, layout->cols);
    if (layout->scale_kind == XB_SCALE_GROUP_I8 && col0 % SUPER_COLS == 0)
      choose_supers (&b, col0 / SUPER_COLS);
    begin_block (&b, col0, col1);
    quantize_block (&b, col0, col1, loss);
  }
  return pack_bands (&b, blob, size);
}
