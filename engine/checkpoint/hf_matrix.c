/* hf_matrix.c: float arrays as matrices, and matrices put together of several: experts, halves of fused ones, rows in another order. */
#include "engine/checkpoint/hf.h"

#include <string.h>

/* ---- floats ------------------------------------------------------------------------------------------------------------------ */

typedef struct {
  EngPacked packed;
  const EngStTensor *tensor;
  guint64 cols;
} Floats;

static void floats_read_rows (const EngPacked *packed, guint64 row0, guint64 n, float *out)
{
  const Floats *f = (const Floats *) packed;
  eng_st_read (f->tensor, row0 * f->cols, n * f->cols, out);
}

static void floats_drop (const EngPacked *packed)
{
  eng_st_drop (((const Floats *) packed)->tensor);
}

static void free_plain (EngPacked *packed)
{
  g_free (packed);
}

static const EngPackedClass floats_class = { "floats", floats_read_rows, NULL, floats_drop, free_plain };

/* The smallest type that holds every number. */
static guint number_type (const EngStTensor *tensor)
{
  switch (tensor->type) {
  case ENG_ST_F16: case ENG_ST_F8_E4M3: case ENG_ST_F8_E5M2: case ENG_ST_I8: case ENG_ST_U8: case ENG_ST_BOOL: return ENG_TYPE_F16;
  case ENG_ST_BF16: return ENG_TYPE_BF16;
  default: return ENG_TYPE_F32;
  }
}

EngPacked *hf_floats_open (const EngStTensor *tensor)
{
  Floats *f = g_new0 (Floats, 1);
  f->packed = (EngPacked) { .class = &floats_class, .number_type = number_type (tensor) };
  f->tensor = tensor;
  f->cols = tensor->dims[MAX (tensor->n_dims, 1) - 1];
  return &f->packed;
}

/* ---- the other way round ------------------------------------------------------------------------------------------------------ */

typedef struct {
  EngPacked packed;
  const EngStTensor *tensor; /* [experts][cols][all] */
  guint64 cols, all;
  guint first, step, rows;   /* of each expert's the rows that are wanted */
} Turned;

static void turned_read_rows (const EngPacked *packed, guint64 row0, guint64 n, float *out)
{
  const Turned *f = (const Turned *) packed;
  for (guint64 done = 0; done < n;) {
    guint64 expert = (row0 + done) / f->rows, row = (row0 + done) % f->rows, run = MIN (MIN (n - done, f->rows - row), 256);
    guint64 span = (run - 1) * f->step + 1;
    g_autofree float *line = g_new (float, span);
    for (guint64 col = 0; col < f->cols; col++) {
      eng_st_read (f->tensor, (expert * f->cols + col) * f->all + f->first + row * f->step, span, line);
      for (guint64 i = 0; i < run; i++)
        out[(done + i) * f->cols + col] = line[i * f->step];
    }
    done += run;
  }
}

static void turned_drop (const EngPacked *packed)
{
  eng_st_drop (((const Turned *) packed)->tensor);
}

static const EngPackedClass turned_class = { "floats", turned_read_rows, NULL, turned_drop, free_plain };

EngPacked *hf_turned_open (const EngStTensor *tensor, guint first, guint step, guint rows)
{
  Turned *f = g_new0 (Turned, 1);
  f->packed = (EngPacked) { .class = &turned_class, .number_type = number_type (tensor) };
  f->tensor = tensor;
  f->cols = tensor->dims[tensor->n_dims - 2];
  f->all = tensor->dims[tensor->n_dims - 1];
  f->first = first;
  f->step = step;
  f->rows = rows;
  return &f->packed;
}

/* ---- several --------------------------------------------------------------------------------------------------------------------- */

typedef struct {
  EngPacked packed;
  GPtrArray *parts;    /* EngPacked, of part_rows rows each */
  guint part_rows, cols;
  guint band_rows;     /* of a part's layout, which may be filled up */
  guint32 *order;      /* row -> row of all parts together; NULL: the same */
  xb_layout layout;
  guint32 stripe_end;
  xb_input_layout input, output; /* of parts that have their own: one behind the other */
  guint16 *diagonals;
  EngPackedClass class;
} Joined;

static guint64 source_row (const Joined *j, guint64 row)
{
  return j->order ? j->order[row] : row;
}

static void joined_read_rows (const EngPacked *packed, guint64 row0, guint64 n, float *out)
{
  const Joined *j = (const Joined *) packed;
  for (guint64 i = 0; i < n;) {
    guint64 from = source_row (j, row0 + i), run = 1;
    while (i + run < n && source_row (j, row0 + i + run) == from + run && (from + run) % j->part_rows != 0)
      run++;
    const EngPacked *part = j->parts->pdata[from / j->part_rows];
    part->class->read_rows (part, from % j->part_rows, run, out + i * j->cols);
    i += run;
  }
}

typedef struct {
  guint groups, supers;
  gsize stride;
} Sizes;

static Sizes sizes_of (const xb_layout *l)
{
  guint groups = xb_layout_groups (l);
  return (Sizes) { groups, MAX ((l->cols + 255) / 256, groups), (gsize) (l->cols + 31) / 32 * 32 };
}

/* Row `from` of one band to row `to` of another. */
static void copy_row (const xb_layout *l, const EngBand *source, guint from, EngBand *out, guint to)
{
  Sizes s = sizes_of (l);
  memcpy (out->codes + to * s.stride, source->codes + from * s.stride, s.stride);
  for (guint g = 0; g < s.groups; g++) {
    out->scale[g * XB_TILE_ROWS + to] = source->scale[g * XB_TILE_ROWS + from];
    out->offset[g * XB_TILE_ROWS + to] = source->offset[g * XB_TILE_ROWS + from];
  }
  if (l->scale_kind == XB_SCALE_GROUP_SQUARE) { /* a group's, of all rows */
    memcpy (out->super, source->super, s.groups * sizeof (float));
    return;
  }
  for (guint g = 0; g < s.supers; g++) {
    out->super[g * XB_TILE_ROWS + to] = source->super[g * XB_TILE_ROWS + from];
    out->super_offset[g * XB_TILE_ROWS + to] = source->super_offset[g * XB_TILE_ROWS + from];
  }
}

static void joined_fill_band (const EngPacked *packed, guint band, EngBand *out)
{
  const Joined *j = (const Joined *) packed;
  if (!j->order && j->band_rows % XB_TILE_ROWS == 0) {
    guint bands = j->band_rows / XB_TILE_ROWS;
    const EngPacked *part = j->parts->pdata[band / bands];
    part->class->fill_band (part, band % bands, out);
    return;
  }
  Sizes s = sizes_of (&j->layout);
  gsize floats = (gsize) XB_TILE_ROWS * 2 * (s.groups + s.supers), filled = G_MAXSIZE;
  g_autofree guint8 *codes = g_malloc (XB_TILE_ROWS * s.stride);
  g_autofree float *numbers = g_new (float, floats);
  EngBand source = { codes, numbers, numbers + s.groups * XB_TILE_ROWS, numbers + 2 * s.groups * XB_TILE_ROWS,
                     numbers + (2 * s.groups + s.supers) * XB_TILE_ROWS };
  for (guint row = 0; row < XB_TILE_ROWS && band * XB_TILE_ROWS + row < j->layout.rows; row++) {
    guint64 from = source_row (j, band * XB_TILE_ROWS + row);
    const EngPacked *part = j->parts->pdata[from / j->part_rows];
    guint inside = (guint) (from % j->part_rows);
    gsize key = from / j->part_rows << 32 | inside / XB_TILE_ROWS;
    if (key != filled) {
      memset (codes, 0, XB_TILE_ROWS * s.stride);
      memset (numbers, 0, floats * sizeof (float));
      part->class->fill_band (part, inside / XB_TILE_ROWS, &source);
    }
    filled = key;
    copy_row (&j->layout, &source, inside % XB_TILE_ROWS, out, row);
  }
}

static void joined_drop (const EngPacked *packed)
{
  const Joined *j = (const Joined *) packed;
  for (guint i = 0; i < j->parts->len; i++) {
    const EngPacked *part = j->parts->pdata[i];
    if (part->class->drop)
      part->class->drop (part);
  }
}

static void joined_free (EngPacked *packed)
{
  Joined *j = (Joined *) packed;
  g_ptr_array_unref (j->parts);
  g_free (j->order);
  g_free (j->diagonals);
  g_free (j);
}

static gboolean same_cells (const xb_layout *a, const xb_layout *b)
{
  return a->cols == b->cols && a->group == b->group && a->scale_kind == b->scale_kind && a->has_offset == b->has_offset && a->n_stripes == 1
         && b->n_stripes == 1 && a->n_panels == b->n_panels && a->n_tables == b->n_tables && a->n_grids == 0 && b->n_grids == 0
         && memcmp (a->panel_end, b->panel_end, a->n_panels * sizeof *a->panel_end) == 0
         && memcmp (a->cells, b->cells, a->n_panels * sizeof *a->cells) == 0
         && (a->n_tables == 0 || memcmp (a->tables, b->tables, a->n_tables * sizeof *a->tables) == 0);
}

static gboolean same_input (const xb_input_layout *a, const xb_input_layout *b)
{
  if (!a || !b)
    return a == b;
  return a->cols == b->cols && a->block == b->block && !a->permutation == !b->permutation && !a->diagonal == !b->diagonal && !a->signs == !b->signs
         && (!a->permutation || memcmp (a->permutation, b->permutation, a->cols * sizeof *a->permutation) == 0)
         && (!a->diagonal || memcmp (a->diagonal, b->diagonal, a->cols * sizeof *a->diagonal) == 0)
         && (!a->signs || memcmp (a->signs, b->signs, (a->cols + 7) / 8) == 0);
}

void hf_keep_numbers (EngPacked *packed)
{
  if (!packed->output)
    return;
  packed->layout = NULL;
  packed->input = packed->output = NULL;
  packed->number_type = ENG_TYPE_F16;
  packed->loss = ENG_LOSS_HALF;
}

/* Whether both pipelines of each part are but a diagonal and a transform whose blocks end where the part does, and the cells of all are alike. */
static gboolean keep_pipelines (GPtrArray *parts)
{
  const EngPacked *first = parts->pdata[0];
  for (guint i = 0; i < parts->len; i++) {
    const EngPacked *part = parts->pdata[i];
    const xb_input_layout *const pipelines[] = { part->input, part->output };
    for (guint k = 0; k < 2; k++)
      if (!part->layout || !pipelines[k] || pipelines[k]->permutation || pipelines[k]->signs || !pipelines[k]->diagonal || pipelines[k]->block == 0
          || pipelines[k]->cols % pipelines[k]->block != 0 || pipelines[k]->block != (k == 0 ? first->input : first->output)->block)
        return FALSE;
    if (!same_cells (part->layout, first->layout) || part->layout->rows != first->layout->rows)
      return FALSE;
  }
  return (guint64) parts->len * MAX (first->layout->rows, first->layout->cols) <= 1u << 28;
}

static void join_pipelines (Joined *j)
{
  const EngPacked *first = j->parts->pdata[0];
  gsize n = j->parts->len, cols = first->layout->cols, rows = j->band_rows;
  guint16 *in = j->diagonals = g_new (guint16, n * (cols + rows)), *out = in + n * cols;
  for (guint i = 0; i < n; i++) {
    const EngPacked *part = j->parts->pdata[i];
    memcpy (in + i * cols, part->input->diagonal, cols * sizeof *in);
    memcpy (out + i * rows, part->output->diagonal, rows * sizeof *out);
  }
  j->input = (xb_input_layout) { .cols = (guint32) (n * cols), .block = first->input->block, .diagonal = in };
  j->output = (xb_input_layout) { .cols = (guint32) (n * rows), .block = first->output->block, .diagonal = out };
  j->packed.input = &j->input;
  j->packed.output = &j->output;
}

EngPacked *hf_join (GPtrArray *parts, guint part_rows, guint cols, guint32 *order, guint n_rows, const char **why)
{
  Joined *j = g_new0 (Joined, 1);
  gboolean keep = !order && keep_pipelines (parts);
  for (guint i = 0; i < parts->len && !keep; i++)
    hf_keep_numbers (parts->pdata[i]);
  const EngPacked *first = parts->pdata[0];
  j->parts = parts;
  j->part_rows = part_rows;
  j->cols = cols;
  j->order = order;
  j->class = (EngPackedClass) { first->class->method, joined_read_rows, joined_fill_band, joined_drop, joined_free };
  j->packed = (EngPacked) { .class = &j->class, .number_type = first->number_type, .input = first->input, .loss = first->loss };
  gboolean fits = TRUE;
  for (guint i = 1; i < parts->len; i++) {
    const EngPacked *part = parts->pdata[i];
    fits = fits && !part->layout == !first->layout && (!part->layout || (same_cells (part->layout, first->layout) && (keep || same_input (part->input, first->input))));
    j->packed.loss = MAX (j->packed.loss, part->loss);
    if (part->number_type != first->number_type)
      j->packed.number_type = ENG_TYPE_F32;
  }
  if (!fits) {
    *why = "its experts are quantized each in its own way, which one matrix cannot hold";
    joined_free (&j->packed);
    return NULL;
  }
  if (first->layout) {
    j->band_rows = first->layout->rows;
    j->layout = *first->layout;
    j->layout.rows = j->stripe_end = order ? n_rows : parts->len * j->band_rows;
    j->layout.stripe_end = &j->stripe_end;
    j->packed.layout = &j->layout;
  }
  if (keep)
    join_pipelines (j);
  return &j->packed;
}
