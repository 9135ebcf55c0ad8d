/* hf_ints.c: integer codes with scales and zero points as rows of f32 and as X-bit bands of the very same numbers. */
#include "engine/checkpoint/hf_ints.h"

#include <string.h>

typedef struct {
  EngPacked packed;
  EngPackedClass class;
  HfInts d;
  guint n_groups;       /* of the file */
  guint stored_group;   /* of the X-bit matrix: divides the file's */
  gboolean per_row;
  guint32 *order;       /* place -> column, so that groups follow each other; NULL: they do */
  guint32 *group_at;    /* column -> group; NULL: column / group */
  xb_layout layout;
  xb_input_layout input;
  xb_cell cell;
  guint32 stripe_end, panel_end;
} Ints;

/* ---- reading single numbers --------------------------------------------------------------------------------------------------- */

static guint32 word_at (const EngStTensor *t, guint64 i)
{
  guint32 word;
  memcpy (&word, t->data + i * 4, 4);
  return GUINT32_FROM_LE (word);
}

/* `bits` bits from bit `at` on of words `stride` apart; bits beyond the last word that is there belong to no code. */
static guint stream_at (const EngStTensor *t, guint64 first, guint64 stride, guint64 at, guint bits)
{
  guint64 word = at / 32;
  guint shift = at % 32;
  guint64 both = word_at (t, first + word * stride);
  if (shift + bits > 32)
    both |= (guint64) word_at (t, first + (word + 1) * stride) << 32;
  return (guint) (both >> shift) & ((1u << bits) - 1);
}

/* AWQ: row 8 k + order[i] is in bits 4 i of word k. */
static guint awq_shift (guint row)
{
  return (row % 2 * 4 + row % 8 / 2) * 4;
}

static guint code_at (const HfInts *d, guint row, guint col)
{
  switch (d->packing) {
  case HF_INTS_COLUMNS: return stream_at (d->codes, row, d->rows, (guint64) col * d->bits, d->bits);
  case HF_INTS_AWQ: return word_at (d->codes, (guint64) col * (d->rows / 8) + row / 8) >> awq_shift (row) & 15;
  case HF_INTS_ROWS: {
    guint per_word = 32 / d->bits;
    return word_at (d->codes, (guint64) row * ((d->cols + per_word - 1) / per_word) + col / per_word) >> (col % per_word * d->bits) & ((1u << d->bits) - 1);
  }
  case HF_INTS_QUARTERS: return d->codes->data[(guint64) (row % (d->rows / 4)) * d->cols + col] >> (row / (d->rows / 4) * 2) & 3;
  default: return d->codes->data[(guint64) row * d->cols + col] ^ 128u;
  }
}

static int zero_at (const Ints *ints, guint row, guint group)
{
  const HfInts *d = &ints->d;
  switch (d->zeros_packing) {
  case HF_ZEROS_STREAM: {
    guint64 words = (guint64) d->rows * d->bits / 32;
    return ((int) stream_at (d->zeros, group * words, 1, (guint64) row * d->bits, d->bits) + d->zero_more) & ((1 << d->bits) - 1);
  }
  case HF_ZEROS_AWQ: return (int) (word_at (d->zeros, (guint64) group * (d->rows / 8) + row / 8) >> awq_shift (row) & 15);
  case HF_ZEROS_ROWS: {
    guint per_word = 32 / d->bits;
    return (int) (word_at (d->zeros, (guint64) (row / per_word) * ints->n_groups + group) >> (row % per_word * d->bits) & ((1u << d->bits) - 1));
  }
  case HF_ZEROS_BYTES: return (gint8) d->zeros->data[(guint64) row * ints->n_groups + group] + d->zero_more;
  default: return d->zero;
  }
}

static double scale_at (const Ints *ints, guint row, guint group)
{
  const HfInts *d = &ints->d;
  float scale;
  eng_st_read (d->scales, d->one_scale ? 0 : d->scales_by_group ? (guint64) group * d->rows + row : (guint64) row * ints->n_groups + group, 1, &scale);
  return (d->divides ? 1 / (double) scale : (double) scale) / d->divisor;
}

static guint group_of (const Ints *ints, guint col)
{
  return ints->group_at ? ints->group_at[col] : col / ints->d.group;
}

/* ---- as rows and as bands ------------------------------------------------------------------------------------------------------ */

static void read_rows (const EngPacked *packed, guint64 row0, guint64 n, float *out)
{
  const Ints *ints = (const Ints *) packed;
  g_autofree double *scales = g_new (double, ints->n_groups);
  g_autofree int *zeros = g_new (int, ints->n_groups);
  for (guint64 i = 0; i < n; i++, out += ints->d.cols) {
    guint row = (guint) (row0 + i);
    for (guint g = 0; g < ints->n_groups; g++) {
      scales[g] = scale_at (ints, row, g);
      zeros[g] = zero_at (ints, row, g);
    }
    for (guint col = 0; col < ints->d.cols; col++) {
      guint g = group_of (ints, col);
      out[col] = (float) (scales[g] * ((int) code_at (&ints->d, row, col) - zeros[g]));
    }
  }
}

static void fill_band (const EngPacked *packed, guint band, EngBand *out)
{
  const Ints *ints = (const Ints *) packed;
  const HfInts *d = &ints->d;
  gsize stride = (gsize) (d->cols + 31) / 32 * 32;
  guint n = MIN ((guint) XB_TILE_ROWS, d->rows - band * XB_TILE_ROWS), stored = ints->per_row ? 1 : (d->cols + ints->stored_group - 1) / ints->stored_group;
  for (guint place = 0; place < d->cols; place++) /* a word of the file holds many rows: this way round it is read but once */
    for (guint r = 0; r < n; r++)
      out->codes[r * stride + place] = (guint8) code_at (d, band * XB_TILE_ROWS + r, ints->order ? ints->order[place] : place);
  for (guint g = 0; g < stored; g++) {
    guint first = ints->per_row ? 0 : g * ints->stored_group, group = group_of (ints, ints->order ? ints->order[first] : first);
    for (guint r = 0; r < n; r++) {
      out->scale[g * XB_TILE_ROWS + r] = (float) scale_at (ints, band * XB_TILE_ROWS + r, group);
      if (ints->layout.has_offset)
        out->offset[g * XB_TILE_ROWS + r] = (float) zero_at (ints, band * XB_TILE_ROWS + r, group);
    }
  }
}

static void drop (const EngPacked *packed)
{
  const HfInts *d = &((const Ints *) packed)->d;
  eng_st_drop (d->codes);
  eng_st_drop (d->scales);
  if (d->zeros)
    eng_st_drop (d->zeros);
}

static void free_ints (EngPacked *packed)
{
  Ints *ints = (Ints *) packed;
  g_free (ints->order);
  g_free (ints->group_at);
  g_free (ints);
}

/* ---- opening --------------------------------------------------------------------------------------------------------------------- */

static gboolean has_shape (const EngStTensor *t, EngStType type, guint64 rows, guint64 cols)
{
  return t && t->type == type && t->n_dims == 2 && t->dims[0] == rows && t->dims[1] == cols;
}

static const char *check_arrays (const Ints *ints)
{
  const HfInts *d = &ints->d;
  guint per_word = 32 / d->bits, g = ints->n_groups;
  gboolean codes = FALSE, zeros = TRUE, scales;
  switch (d->packing) {
  case HF_INTS_COLUMNS: codes = (guint64) d->cols * d->bits % 32 == 0 && has_shape (d->codes, ENG_ST_I32, (guint64) d->cols * d->bits / 32, d->rows); break;
  case HF_INTS_AWQ: codes = d->rows % 8 == 0 && has_shape (d->codes, ENG_ST_I32, d->cols, d->rows / 8); break;
  case HF_INTS_ROWS: codes = has_shape (d->codes, ENG_ST_I32, d->rows, (d->cols + per_word - 1) / per_word); break;
  case HF_INTS_QUARTERS: codes = d->rows % 4 == 0 && has_shape (d->codes, ENG_ST_U8, d->rows / 4, d->cols); break;
  default: codes = has_shape (d->codes, ENG_ST_I8, d->rows, d->cols); break;
  }
  switch (d->zeros_packing) {
  case HF_ZEROS_STREAM: zeros = (guint64) d->rows * d->bits % 32 == 0 && has_shape (d->zeros, ENG_ST_I32, g, (guint64) d->rows * d->bits / 32); break;
  case HF_ZEROS_AWQ: zeros = has_shape (d->zeros, ENG_ST_I32, g, d->rows / 8); break;
  case HF_ZEROS_ROWS: zeros = has_shape (d->zeros, ENG_ST_I32, (d->rows + per_word - 1) / per_word, g); break;
  case HF_ZEROS_BYTES: zeros = has_shape (d->zeros, ENG_ST_I8, d->rows, g); break;
  default: break;
  }
  guint64 count = d->scales ? d->scales->dims[0] * d->scales->dims[1] * d->scales->dims[2] * d->scales->dims[3] : 0;
  scales = d->scales && (d->scales->type <= ENG_ST_BF16) && count == (d->one_scale ? 1 : (guint64) g * d->rows);
  return codes && zeros && scales ? NULL : "has codes, scales or zero points of another shape than its settings say; the files are damaged";
}

/* Groups in the order of the columns' importance (desc_act): the columns sorted by group, those of a group in their own order. */
static const char *sort_columns (Ints *ints)
{
  const HfInts *d = &ints->d;
  if (!d->group_of || ints->per_row)
    return NULL;
  if (d->group_of->type != ENG_ST_I32 || d->group_of->dims[0] != d->cols || d->group_of->n_dims != 1)
    return "has a list of groups of another length than its columns; the files are damaged";
  gboolean sorted = TRUE;
  g_autofree guint32 *next = g_new0 (guint32, ints->n_groups + 1);
  ints->group_at = g_new (guint32, d->cols);
  for (guint i = 0; i < d->cols; i++) {
    ints->group_at[i] = word_at (d->group_of, i);
    if (ints->group_at[i] >= ints->n_groups)
      return "names a group that it does not have; the files are damaged";
    sorted = sorted && ints->group_at[i] == i / d->group;
    next[ints->group_at[i] + 1]++;
  }
  if (sorted) {
    g_clear_pointer (&ints->group_at, g_free);
    return NULL;
  }
  for (guint g = 0; g < ints->n_groups; g++) {
    if (next[g + 1] != MIN (d->group, d->cols - MIN (d->cols, g * d->group)))
      return "has groups of different sizes, which is not known to Valise";
    next[g + 1] += next[g];
  }
  ints->order = g_new (guint32, d->cols);
  for (guint i = 0; i < d->cols; i++)
    ints->order[next[ints->group_at[i]]++] = i;
  ints->input = (xb_input_layout) { .cols = d->cols, .permutation = ints->order };
  ints->packed.input = &ints->input;
  return NULL;
}

static const char *choose_layout (Ints *ints)
{
  const HfInts *d = &ints->d;
  gboolean is_half = TRUE, one_zero = TRUE;
  int least = G_MAXINT, most = G_MININT;
  for (guint row = 0; row < d->rows; row++)
    for (guint g = 0; g < ints->n_groups; g++) {
      float scale = (float) scale_at (ints, row, g);
      int zero = zero_at (ints, row, g);
      is_half = is_half && xb_round_scale (scale) == scale;
      least = MIN (least, zero);
      most = MAX (most, zero);
    }
  one_zero = least == most;
  if (least < 0 || most > 255)
    return "has zero points beyond its codes; the files are damaged";
  guint group = 256;
  while (!ints->per_row && group > 16 && d->group % group != 0)
    group /= 2;
  if (!ints->per_row && d->group % group != 0)
    return "has groups whose size is no multiple of 16";
  ints->stored_group = group;
  ints->stripe_end = d->rows;
  ints->panel_end = d->cols;
  ints->cell = (xb_cell) { .depth = (guint8) d->bits, .codebook = XB_UNIFORM, .z2 = one_zero ? (guint16) (least * 2) : 0 };
  ints->layout = (xb_layout) {
    .rows = d->rows, .cols = d->cols, .group = group,
    .scale_kind = ints->per_row ? (is_half ? XB_SCALE_ROW_F16 : XB_SCALE_ROW_F32) : (is_half ? XB_SCALE_GROUP_F16 : XB_SCALE_GROUP_F32),
    .has_offset = one_zero ? XB_OFFSET_NONE : XB_OFFSET_ZERO, .n_stripes = 1, .n_panels = 1,
    .stripe_end = &ints->stripe_end, .panel_end = &ints->panel_end, .cells = &ints->cell,
  };
  ints->packed.layout = &ints->layout;
  return NULL;
}

EngPacked *hf_ints_open (const HfInts *d, const char **why)
{
  if (d->rows == 0 || d->cols == 0 || d->rows > G_MAXINT32 / 64 || d->cols > G_MAXINT32 / 64 || d->group == 0) {
    *why = "has an impossible shape; the files are damaged";
    return NULL;
  }
  Ints *ints = g_new0 (Ints, 1);
  ints->class = (EngPackedClass) { d->method, read_rows, fill_band, drop, free_ints };
  ints->packed.class = &ints->class;
  ints->packed.loss = d->divisor != 1 || d->divides ? ENG_LOSS_STEP : ENG_LOSS_NONE;
  ints->d = *d;
  ints->d.group = MIN (d->group, d->cols);
  ints->per_row = ints->d.group == d->cols;
  ints->n_groups = (d->cols + ints->d.group - 1) / ints->d.group;
  *why = check_arrays (ints);
  if (!*why)
    *why = sort_columns (ints);
  if (!*why)
    *why = choose_layout (ints);
  if (!*why)
    return &ints->packed;
  free_ints (&ints->packed);
  return NULL;
}
