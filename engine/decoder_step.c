/* decoder_step.c: one step of a pass: residual, norm or activation, the pipelines in front, then the products and what is behind them. */
#include "engine/activation.h"
#include "engine/decoder_private.h"

#include <string.h>

float *eng_decoder_worker_row (EngDecoder *d, guint worker)
{
  return (float *)(d->memory + d->layout.rows + worker * d->layout.row_bytes);
}

/* ---- inputs of products -------------------------------------------------------------------------------------------------- */

/* A matrix that is filled up has zeros behind x. */
static void apply_input (const EngDecoder *d, const EngPrepared *p, const float *x, float *out)
{
  if (p->cols > d->cols) {
    memcpy (out, x, d->cols * sizeof (float));
    memset (out + d->cols, 0, (p->cols - d->cols) * sizeof (float));
    x = out;
  }
  if (xb_input_get_layout (p->input)->cols == p->cols)
    xb_input_apply (p->input, x, out);
  else
    xb_input_apply_columns (p->input, x, out, p->begin, p->begin + p->cols);
}

static void prepare_token (EngDecoder *d, guint i, guint worker)
{
  const float *x = d->x + (gsize)i * d->ldx;
  for (guint j = 0; j < d->n_prepared; j++) {
    EngPrepared *p = &d->prepared[j];
    if (d->activation_bits == 32) {
      apply_input (d, p, x, p->f32 + (gsize)i * p->cols);
      continue;
    }
    float *turned = eng_decoder_worker_row (d, worker);
    if (p->input != NULL)
      apply_input (d, p, x, turned);
    xb_acts_quantize (&p->acts, i, p->input != NULL ? turned : x, d->activation_bits);
  }
}

void eng_decoder_apply_norm (const EngTraits *t, const EngNorm *norm, const float *x, float *out, guint n)
{
  if (t->layer_norm)
    xb_layer_norm (x, norm->gain, norm->bias, out, n, t->norm_eps);
  else
    xb_rms_norm (x, norm->gain, out, n, t->norm_eps);
}

static void add_to_hidden (EngDecoder *d, guint i)
{
  const EngTraits *t = d->traits;
  float *added = d->added + (gsize)i * t->n_embd;
  if (d->added_norm != NULL)
    eng_decoder_apply_norm (t, d->added_norm, added, added, t->n_embd);
  if (t->residual_scale > 0)
    xb_scale (added, t->residual_scale, t->n_embd);
  xb_add (d->hidden + (gsize)i * t->n_embd, added, t->n_embd);
}

/* Between two products, token by token: residual and norm, or activation, then the inputs of what follows. */
static void prepare_tokens (gpointer data, guint begin, guint end, guint worker)
{
  EngDecoder *d = data;
  const EngTraits *t = d->traits;
  for (guint i = begin; i < end; i++) {
    gsize at = (gsize)i * t->n_embd, ff = i * d->ldx;
    if (d->added != NULL && !d->add_late)
      add_to_hidden (d, i);
    if (d->norm != NULL)
      eng_decoder_apply_norm (t, d->norm, d->hidden + at, d->normed + at, t->n_embd);
    if (d->added != NULL && d->add_late)
      add_to_hidden (d, i);
    if (d->activate)
      eng_activate (t->activation, d->gate + ff, t->ungated ? NULL : d->up + ff, d->cols);
    if (d->sub_norm != NULL) {
      float *x = (float *)d->x + ff;
      eng_decoder_apply_norm (t, d->sub_norm, x, x, d->cols);
    }
    prepare_token (d, i, worker);
  }
}

/* The rows of one of n experts that share a matrix. */
static EngProduct *add_rows (EngDecoder *d, const EngMatrix *matrix, guint expert, guint n_experts, const float *bias, float *y, gsize ldy)
{
  guint rows = matrix->rows / n_experts, stored_rows = matrix->stored_rows / n_experts;
  EngProduct *product = &d->products[d->n_products++];
  *product = (EngProduct){ .matrix = matrix, .bias = bias, .y = y, .ldy = ldy, .first_row = expert * stored_rows, .rows = rows, .stored_rows = stored_rows };
  product->unit_rows = matrix->output != NULL ? MAX (XB_TILE_ROWS, xb_input_get_layout (matrix->output)->block) : XB_TILE_ROWS;
  product->n_units = (rows + product->unit_rows - 1) / product->unit_rows;
  if (matrix->xbit == NULL || (d->activation_bits == 32 && matrix->input == NULL))
    return product;
  guint j = 0, cols = matrix->stored_cols, begin = matrix->input != NULL && xb_input_get_layout (matrix->input)->cols > cols ? expert * cols : 0;
  while (j < d->n_prepared && (d->prepared[j].input != matrix->input || d->prepared[j].begin != begin))
    j++;
  if (j == d->n_prepared) {
    guint8 *memory = d->memory + d->layout.prepared[d->n_prepared++];
    d->prepared[j] = (EngPrepared){ .input = matrix->input, .begin = begin, .cols = cols, .f32 = (float *)memory };
    if (d->activation_bits != 32)
      xb_acts_init (&d->prepared[j].acts, memory, cols, d->n);
  }
  product->prepared = &d->prepared[j];
  return product;
}

EngProduct *eng_step_add (EngDecoder *d, const EngMatrix *matrix, const float *bias, float *y, gsize ldy)
{
  return add_rows (d, matrix, 0, 1, bias, y, ldy > 0 ? ldy : matrix->rows);
}

EngProduct *eng_step_add_expert (EngDecoder *d, const EngMatrix *matrix, const float *bias, guint expert, guint n_experts, float *y)
{
  guint rows = matrix->rows / n_experts;
  return add_rows (d, matrix, expert, n_experts, bias != NULL ? bias + (gsize)expert * rows : NULL, y, rows);
}

/* ---- products ------------------------------------------------------------------------------------------------------------ */

/* Rows row0 .. row1 - 1 of tokens i0 .. i0 + n - 1, to y [n][ldy], which begins with row0. */
static void multiply_packed (const EngDecoder *d, const EngProduct *product, guint i0, guint n, guint row0, guint row1, float *y, gsize ldy)
{
  const EngMatrix *m = product->matrix;
  const EngPrepared *p = product->prepared;
  guint first = product->first_row;
  float *packed_y = y - first - row0; /* a packed matrix numbers its results from its own first row */
  if (d->activation_bits == 32) {
    gsize ldx = p != NULL ? p->cols : d->ldx;
    xb_matmul_f32 (m->xbit, (p != NULL ? p->f32 : d->x) + i0 * ldx, ldx, n, packed_y, ldy, first + row0, first + row1);
  } else {
    xb_acts acts = xb_acts_from (&p->acts, i0, n);
    if (n == 1)
      xb_matvec (m->xbit, &acts, packed_y, first + row0, first + row1);
    else
      xb_matmul (m->xbit, &acts, packed_y, ldy, first + row0, first + row1);
  }
  for (guint i = 0; m->output != NULL && i < n; i++)
    xb_input_restore (m->output, y + i * ldy, first + row0, first + row1);
}

/* The last block of rows of a matrix that is filled up: token by token, for its results have no room for what is left out. */
static void multiply_last (EngDecoder *d, const EngProduct *product, guint row0, guint worker)
{
  float *block = eng_decoder_worker_row (d, worker);
  for (guint i = 0; i < d->n; i++) {
    multiply_packed (d, product, i, 1, row0, product->stored_rows, block, 0);
    memcpy (product->y + i * product->ldy + row0, block, (product->rows - row0) * sizeof (float));
  }
}

/* Rows row0 .. row1 - 1 of the product. */
static void multiply_rows (EngDecoder *d, const EngProduct *product, guint row0, guint row1, guint worker)
{
  const EngMatrix *m = product->matrix;
  const EngTraits *t = d->traits;
  guint n = d->n, end = product->stored_rows > product->rows ? MIN (row1, product->rows / product->unit_rows * product->unit_rows) : row1;
  if (m->xbit == NULL) {
    const guint8 *raw = (const guint8 *)m->raw + (gsize)product->first_row * m->cols * (m->raw_type == XB_RAW_F32 ? 4 : 2);
    xb_raw_matmul (m->raw_type, raw, m->cols, d->x, d->ldx, n, product->y, product->ldy, row0, row1);
  } else if (row0 < end) {
    multiply_packed (d, product, 0, n, row0, end, product->y + row0, product->ldy);
  }
  if (end < row1)
    multiply_last (d, product, MAX (row0, end), worker);
  for (guint i = 0; product->bias != NULL && i < n; i++)
    xb_add (product->y + i * product->ldy + row0, product->bias + row0, row1 - row0);
  for (guint i = 0; product->is_logits && (t->logit_scale > 0 || t->logit_soft_cap > 0) && i < n; i++)
    eng_cap (product->y + i * product->ldy + row0, t->logit_scale > 0 ? t->logit_scale : 1, t->logit_soft_cap, row1 - row0);
}

/* Units are those of all products, one after the other. */
static void multiply_units (gpointer data, guint begin, guint end, guint worker)
{
  EngDecoder *d = data;
  guint first = 0;
  for (guint j = 0; j < d->n_products; j++) {
    const EngProduct *product = &d->products[j];
    guint b = MAX (begin, first), e = MIN (end, first + product->n_units);
    if (b < e)
      multiply_rows (d, product, (b - first) * product->unit_rows, MIN ((e - first) * product->unit_rows, product->rows), worker);
    first += product->n_units;
  }
}

/* ---- a step -------------------------------------------------------------------------------------------------------------- */

void eng_step_begin (EngDecoder *d, const float *x, guint cols, gsize ldx)
{
  d->x = x;
  d->cols = cols;
  d->ldx = ldx;
  d->added = NULL;
  d->added_norm = d->norm = d->sub_norm = NULL;
  d->add_late = d->activate = FALSE;
  d->n_products = d->n_prepared = 0;
}

void eng_step_prepare (EngDecoder *d)
{
  eng_workers_run (d->workers, prepare_tokens, d, d->n, 1);
}

void eng_step_run (EngDecoder *d, const EngWatch *watch)
{
  guint n_units = 0, grain = 2;
  eng_step_prepare (d);
  for (guint j = 0; j < d->n_products; j++) {
    n_units += d->products[j].n_units;
    grain = d->products[j].unit_rows > XB_TILE_ROWS ? 1 : grain;
    if (watch->function != NULL)
      watch->function (watch->data, d->products[j].matrix, d->x, d->ldx, d->n);
  }
  eng_workers_run (d->workers, multiply_units, d, n_units, grain);
}

