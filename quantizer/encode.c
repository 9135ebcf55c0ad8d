/* encode.c: LDLQ over columns. Rows lie side by side in memory (a column of the batch is contiguous), so that every step is a loop
 * over rows; what earlier blocks of columns add to a block is one float product. */
#include "quantizer/encode.h"

#include "kernels/dense.h"
#include "quantizer/codebook.h"
#include "quantizer/shape.h"

#include <string.h>

/* Columns compensated together: a panel, and so a whole number of groups; one more is looked at before the last decisions. */
enum { BLOCK = QZ_PANEL_COLS, BLOCK_AHEAD = BLOCK + 1, SUPER_COLS = 256 };

struct QzEncodeScratch {
  guint n, cols, cols_padded, n_groups, n_supers;
  float *error;    /* [n][cols] w - q, all earlier columns */
  float *carried;  /* [n][BLOCK_AHEAD] what they add to the block */
  float *target;   /* [BLOCK_AHEAD][n] */
  float *weight;   /* [BLOCK_AHEAD][n] w */
  guint8 *code;    /* [BLOCK][16 rows] of one band */
  float *value;    /* [BLOCK][16 rows] */
  float *scale;    /* [n_groups][n] */
  float *super;    /* [n_supers][n] */
  float *search;   /* [5 n] */
  float *alike;    /* [cols] ones */
  QzChain *chain;
  guint *chain_end; /* [bands] where each band's chain is */
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
    { &s->error, n * s->cols }, { &s->carried, n * BLOCK_AHEAD }, { &s->target, n * BLOCK_AHEAD }, { &s->weight, n * BLOCK_AHEAD },
    { &s->value, BLOCK * QZ_CHAIN_ROWS }, { &s->alike, s->cols }, { &s->scale, n * s->n_groups }, { &s->super, n * s->n_supers }, { &s->search, 5 * n },
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
  for (guint j = 0; j < s->cols; j++)
    s->alike[j] = 1;
  s->code = g_malloc (BLOCK * QZ_CHAIN_ROWS);
  s->chain = qz_chain_new (BLOCK);
  s->chain_end = g_new0 (guint, n / QZ_CHAIN_ROWS);
  s->codes = g_malloc (n * s->cols_padded);
  return s;
}

void qz_encode_scratch_free (QzEncodeScratch *s)
{
  if (s == NULL)
    return;
  g_free (s->memory);
  g_free (s->code);
  qz_chain_free (s->chain);
  g_free (s->chain_end);
  g_free (s->codes);
  g_free (s);
}

typedef struct {
  const QzEncoder *encoder;
  QzEncodeScratch *s;
  guint row0, n;
  const float *w;
  const float *factor, *pivots; /* what choices look at: the encoder's, or none and all alike */
} Batch;

/* Stripes of the batch, and the codebook of a stripe at a column. */
static guint n_stripes_of (const Batch *b)
{
  return (b->n + QZ_STRIPE_ROWS - 1) / QZ_STRIPE_ROWS;
}

static const QzCodebook *book_at (const Batch *b, guint stripe, guint panel)
{
  const xb_layout *layout = b->encoder->layout;
  return qz_codebook_of_cell (&layout->cells[(gsize) (b->row0 / QZ_STRIPE_ROWS + stripe) * layout->n_panels + panel]);
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
    qz_codebook_search (book_at (b, stripe, 0), n, cols, columns, n, b->pivots, NULL, s->scale + r0, s->search);
  }
}

/* The f16 that the integer scales of the next 256 columns multiply: large enough for each of their groups. */
static void choose_supers (Batch *b, guint super)
{
  QzEncodeScratch *s = b->s;
  const xb_layout *layout = b->encoder->layout;
  const float *pivots = b->pivots;
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

/* Scales of a group for the rows of one band, from what is to be rounded by now. */
static void choose_group_scales (Batch *b, guint r0, guint n, guint group, guint col0, guint col1, guint block0)
{
  QzEncodeScratch *s = b->s;
  const xb_layout *layout = b->encoder->layout;
  const float *super = layout->scale_kind == XB_SCALE_GROUP_I8 ? s->super + (gsize) (col0 / SUPER_COLS) * s->n + r0 : NULL;
  qz_codebook_search (book_at (b, r0 / QZ_STRIPE_ROWS, panel_of (layout, col0)), n, col1 - col0, s->target + (gsize) (col0 - block0) * s->n + r0, s->n,
                      b->pivots + col0, super, s->scale + (gsize) group * s->n + r0, s->search);
}

/* target = w + what the errors of all earlier blocks add, of the block and the column ahead. */
static void begin_block (Batch *b, guint col0, guint col1)
{
  QzEncodeScratch *s = b->s;
  const float *factor = b->factor;
  guint cols = s->cols, width = MIN (col1 + 1, cols) - col0;
  if (col0 > 0 && factor != NULL)
    xb_gemm (false, false, 0, b->n, width, col0, s->error, cols, factor + col0, cols, 0, s->carried, BLOCK_AHEAD);
  else
    memset (s->carried, 0, sizeof (float) * b->n * BLOCK_AHEAD);
  for (guint j = 0; j < width; j++)
    for (guint i = 0; i < b->n; i++) {
      float w = b->w[(gsize) i * cols + col0 + j];
      s->weight[(gsize) j * s->n + i] = w;
      s->target[(gsize) j * s->n + i] = w + s->carried[(gsize) i * BLOCK_AHEAD + j];
    }
}

/* Rounds the columns of a group one by one, carrying the error of each into those after it in the group. */
static void quantize_columns (Batch *b, const QzCodebook *book, const QzSegment *g, guint8 *codes, float *values)
{
  for (guint j = 0; j < g->n_cols; j++) {
    const float *target = g->target + j * g->ld, *weight = g->weight + j * g->ld;
    float *value = values + j * QZ_CHAIN_ROWS, delta[QZ_CHAIN_ROWS] = { 0 };
    qz_codebook_quantize (book, g->n_rows, target, g->scale, codes + j * QZ_CHAIN_ROWS, value);
    for (guint r = 0; r < g->n_rows; r++)
      delta[r] = weight[r] - value[r];
    for (guint k = j + 1; g->factor != NULL && k < g->n_cols; k++)
      for (guint r = 0; r < g->n_rows; r++)
        g->target[k * g->ld + r] += g->factor[j * g->ld_factor + k] * delta[r];
  }
}

/* What a group that is done leaves: losses, codes, and errors for the rest of the block (the column ahead has them already) and for the blocks after it. */
static void finish_group (Batch *b, const QzSegment *g, guint r0, guint col0, guint block0, guint block1, double *loss)
{
  QzEncodeScratch *s = b->s;
  for (guint j = 0; j < g->n_cols; j++) {
    const float *value = s->value + j * QZ_CHAIN_ROWS;
    float delta[QZ_CHAIN_ROWS] = { 0 };
    for (guint r = 0; r < g->n_rows; r++) {
      float missed = g->target[j * g->ld + r] - value[r];
      loss[r0 + r] += (double) b->pivots[col0 + j] * missed * missed;
      delta[r] = g->weight[j * g->ld + r] - value[r];
      s->error[(gsize) (r0 + r) * s->cols + col0 + j] = delta[r];
    }
    for (guint r = 0; r < QZ_CHAIN_ROWS && r0 + r < s->n; r++)
      s->codes[(gsize) (r0 + r) * s->cols_padded + col0 + j] = s->code[j * QZ_CHAIN_ROWS + r];
    for (guint k = col0 + g->n_cols + g->ahead; b->factor != NULL && k < block1; k++) {
      float f = b->factor[(gsize) (col0 + j) * s->cols + k], *later = s->target + (gsize) (k - block0) * s->n + r0;
      for (guint r = 0; r < g->n_rows; r++)
        later[r] += f * delta[r];
    }
  }
}

/* Columns col0..col1-1 of the 16 rows from r0 on, which lie in one panel. */
static void quantize_band (Batch *b, guint r0, guint col0, guint col1, double *loss)
{
  QzEncodeScratch *s = b->s;
  const QzEncoder *e = b->encoder;
  const xb_layout *layout = e->layout;
  gboolean per_row = layout->scale_kind == XB_SCALE_ROW_F16;
  guint group = 0, n = MIN (QZ_CHAIN_ROWS, b->n - r0), panel = panel_of (layout, col0), last = layout->panel_end[panel];
  const QzCodebook *book = book_at (b, r0 / QZ_STRIPE_ROWS, panel);
  while (!per_row && group + 1 < s->n_groups && xb_layout_group_start (layout, group + 1) <= col0)
    group++;
  guint *chain_end = &s->chain_end[r0 / QZ_CHAIN_ROWS];
  if (col0 == (panel > 0 ? layout->panel_end[panel - 1] : 0))
    *chain_end = 0;
  if (book->trellis != NULL)
    qz_chain_begin (s->chain, book->trellis, *chain_end);
  for (guint g0 = col0; g0 < col1; group++) {
    guint g1 = per_row ? col1 : MIN (col1, group + 1 < s->n_groups ? xb_layout_group_start (layout, group + 1) : s->cols);
    if (!per_row)
      choose_group_scales (b, r0, n, group, g0, g1, col0);
    gsize at = (gsize) (g0 - col0) * s->n + r0;
    QzSegment segment = { .n_rows = n, .n_cols = g1 - g0, .ahead = book->trellis != NULL && g1 < last, .ld = s->n, .weight = s->weight + at, .target = s->target + at,
                          .scale = s->scale + (gsize) (per_row ? 0 : group) * s->n + r0,
                          .importance = e->importance != NULL ? e->importance + b->row0 + r0 : NULL, .pivots = b->pivots + g0,
                          .factor = b->factor != NULL ? b->factor + (gsize) g0 * s->cols + g0 : NULL, .ld_factor = s->cols };
    memset (s->code, 0, (gsize) segment.n_cols * QZ_CHAIN_ROWS);
    if (book->trellis != NULL)
      qz_chain_encode (s->chain, &segment, s->code, s->value);
    else
      quantize_columns (b, book, &segment, s->code, s->value);
    finish_group (b, &segment, r0, g0, col0, MIN (col1 + 1, s->cols), loss);
    g0 = g1;
  }
  *chain_end = qz_chain_end (s->chain);
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

/* loss [n]: of errors that nobody compensated, e H e^T = sum of V_jj^2 (e F)_j^2. */
static void weigh_errors (const Batch *b, double *loss)
{
  const QzEncoder *e = b->encoder;
  QzEncodeScratch *s = b->s;
  memset (loss, 0, sizeof (double) * b->n);
  for (guint col0 = 0; col0 < s->cols; col0 += BLOCK) {
    guint col1 = MIN (col0 + BLOCK, s->cols);
    xb_gemm (false, false, 0, b->n, col1 - col0, col1, s->error, s->cols, e->factor + col0, s->cols, 0, s->carried, BLOCK_AHEAD);
    for (guint i = 0; i < b->n; i++)
      for (guint j = col0; j < col1; j++) {
        float carried = s->carried[(gsize) i * BLOCK_AHEAD + j - col0];
        loss[i] += (double) e->pivots[j] * carried * carried;
      }
  }
}

/* Codes of the bands that are marked (NULL: all), and what their rows lose. */
static void quantize_bands (Batch *b, const gboolean *marked, double *loss)
{
  const xb_layout *layout = b->encoder->layout;
  for (guint i = 0; i < b->n; i++)
    if (marked == NULL || marked[i / QZ_CHAIN_ROWS])
      loss[i] = 0;
  for (guint col0 = 0; col0 < layout->cols; col0 += BLOCK) {
    guint col1 = MIN (col0 + BLOCK, layout->cols);
    if (layout->scale_kind == XB_SCALE_GROUP_I8 && col0 % SUPER_COLS == 0)
      choose_supers (b, col0 / SUPER_COLS);
    begin_block (b, col0, col1);
    for (guint r0 = 0; r0 < b->n; r0 += QZ_CHAIN_ROWS)
      if (marked == NULL || marked[r0 / QZ_CHAIN_ROWS])
        quantize_band (b, r0, col0, col1, loss);
  }
}

/* ---- rows whose scale is too small --------------------------------------------------------------------------------------- */

static double importance_of (const Batch *b, guint i)
{
  return b->encoder->importance != NULL ? b->encoder->importance[b->row0 + i] : 1;
}

/* What row i, of bell-shaped weights, would lose by its scale. */
static double usual_loss (const Batch *b, guint i, double pivots)
{
  const QzCodebook *book = book_at (b, i / QZ_STRIPE_ROWS, 0);
  double deviation = book->depth > 0 ? b->s->scale[i] / book->unit_scale : 0;
  return deviation * deviation * book->unit_error * pivots;
}

static const float widen_by = 1.5f;

/* Once more, and it can still be stored. */
static gboolean can_widen (float scale)
{
  return scale > 0 && scale * widen_by < XB_MOST_HALF;
}

/* A row has the scale of bell-shaped weights. Where the Hadamard spread one loud weight over its block, the weights of that block are all at the end of the codes'
 * range, and what they leave adds up to a thousand times what the row would lose. Rows that lose many times that, and enough to be seen in what the batch
 * loses, get wider scales for as long as they lose less by them. */
static void widen_scales (Batch *b, double *loss)
{
  static const double many = 3, seen = 0.05;
  QzEncodeScratch *s = b->s;
  guint n_bands = s->n / QZ_CHAIN_ROWS;
  double pivots = 0, usual = 0;
  for (guint j = 0; j < s->cols; j++)
    pivots += b->pivots[j];
  for (guint i = 0; i < b->n; i++)
    usual += importance_of (b, i) * usual_loss (b, i, pivots);
  g_autofree gboolean *open = g_new (gboolean, b->n), *marked = g_new (gboolean, n_bands), *stale = g_new0 (gboolean, n_bands);
  g_autofree float *narrow = g_new (float, b->n);   /* of rows that are open, the scale before; */
  g_autofree double *before = g_new (double, b->n); /* and the loss by it */
  gboolean any = TRUE, any_stale = FALSE;
  for (guint i = 0; i < b->n; i++) {
    double mine = usual_loss (b, i, pivots);
    open[i] = loss[i] > many * mine && importance_of (b, i) * (loss[i] - mine) > seen * usual;
  }
  while (any) {
    any = FALSE;
    memset (marked, 0, sizeof (gboolean) * n_bands);
    for (guint i = 0; i < b->n; i++) {
      open[i] = open[i] && can_widen (s->scale[i]);
      if (!open[i])
        continue;
      narrow[i] = s->scale[i];
      before[i] = loss[i];
      s->scale[i] = qz_round_half (narrow[i] * widen_by);
      marked[i / QZ_CHAIN_ROWS] = any = TRUE;
    }
    if (any)
      quantize_bands (b, marked, loss);
    for (guint i = 0; i < b->n; i++)
      if (open[i] && !(loss[i] < before[i])) {
        open[i] = FALSE;
        s->scale[i] = narrow[i];
        stale[i / QZ_CHAIN_ROWS] = any_stale = TRUE;
      }
  }
  if (any_stale)
    quantize_bands (b, stale, loss);
}

xb_error qz_encode_rows (const QzEncoder *encoder, QzEncodeScratch *scratch, guint row0, guint n_rows, const float *w, void *blob, gsize size,
                         double *loss)
{
  Batch b = { encoder, scratch, row0, n_rows, w, encoder->plain ? NULL : encoder->factor, encoder->plain ? scratch->alike : encoder->pivots };
  gboolean by_row = encoder->layout->scale_kind == XB_SCALE_ROW_F16;
  memset (scratch->codes, 0, (gsize) scratch->n * scratch->cols_padded);
  if (by_row)
    choose_row_scales (&b);
  quantize_bands (&b, NULL, loss);
  if (by_row && !encoder->plain)
    widen_scales (&b, loss);
  if (encoder->plain)
    weigh_errors (&b, loss);
  return pack_bands (&b, blob, size);
}
