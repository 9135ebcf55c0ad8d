/* exl2.c: EXL2: columns in the order of their importance, in groups of 2 to 8 bits; scales are squares of 4 bits times a number per group. Layout:
 * the exllamav2 project's q_matrix and pack_tensor. */
#include "engine/checkpoint/hf_quantized.h"

#include <string.h>

enum { MAX_GROUPS = 1 << 14, MAX_PANELS = 8 };

typedef struct {
  guint bits, first, n, word; /* columns from `first` on, their codes from row `word` of q_weight on */
} Group;

typedef struct {
  EngPacked packed;
  const EngStTensor *codes, *scales, *peaks;
  Group *groups;
  guint n_groups, stored_group;
  guint32 *order;             /* place -> column, or NULL */
  xb_layout layout;
  xb_input_layout input;
  xb_cell cells[MAX_PANELS];
  guint32 stripe_end, panel_end[MAX_PANELS];
} Exl2;

static guint32 word_at (const EngStTensor *t, guint64 i)
{
  guint32 word;
  memcpy (&word, t->data + i * 4, 4);
  return GUINT32_FROM_LE (word);
}

/* Code of a place in a group: a stream of bits down each row of the matrix. */
static guint code_at (const Exl2 *e, const Group *g, guint row, guint place)
{
  guint64 at = (guint64) place * g->bits, width = e->layout.rows, word = (g->word + at / 32) * width + row;
  guint shift = at % 32;
  guint64 both = word_at (e->codes, word);
  if (shift + g->bits > 32)
    both |= (guint64) word_at (e->codes, word + width) << 32;
  return (guint) (both >> shift) & ((1u << g->bits) - 1);
}

static guint root_at (const Exl2 *e, guint group, guint row)
{
  return word_at (e->scales, (guint64) group * (e->layout.rows / 8) + row / 8) >> (row % 8 * 4) & 15;
}

static float peak_at (const Exl2 *e, guint group)
{
  float peak;
  eng_st_read (e->peaks, group, 1, &peak);
  return peak;
}

static void read_rows (const EngPacked *packed, guint64 row0, guint64 n, float *out)
{
  const Exl2 *e = (const Exl2 *) packed;
  for (guint64 i = 0; i < n; i++, out += e->layout.cols)
    for (guint g = 0; g < e->n_groups; g++) {
      const Group *group = &e->groups[g];
      guint root = root_at (e, g, (guint) (row0 + i)) + 1;
      double scale = (double) peak_at (e, g) * (root * root) / 256;
      for (guint k = 0; k < group->n; k++) {
        guint place = group->first + k;
        out[e->order ? e->order[place] : place] = (float) (scale * ((int) code_at (e, group, (guint) (row0 + i), k) - (1 << (group->bits - 1))));
      }
    }
}

static void fill_band (const EngPacked *packed, guint band, EngBand *out)
{
  const Exl2 *e = (const Exl2 *) packed;
  gsize stride = (gsize) (e->layout.cols + 31) / 32 * 32;
  guint n = MIN ((guint) XB_TILE_ROWS, e->layout.rows - band * XB_TILE_ROWS);
  for (guint g = 0, stored = 0; g < e->n_groups; g++) {
    const Group *group = &e->groups[g];
    for (guint k = 0; k < group->n; k++)
      for (guint r = 0; r < n; r++)
        out->codes[r * stride + group->first + k] = (guint8) code_at (e, group, band * XB_TILE_ROWS + r, k);
    for (guint k = 0; k < group->n; k += e->stored_group, stored++) {
      out->super[stored] = peak_at (e, g);
      for (guint r = 0; r < n; r++)
        out->scale[stored * XB_TILE_ROWS + r] = (float) root_at (e, g, band * XB_TILE_ROWS + r);
    }
  }
}

static void drop (const EngPacked *packed)
{
  eng_st_drop (((const Exl2 *) packed)->codes);
}

static void free_exl2 (EngPacked *packed)
{
  Exl2 *e = (Exl2 *) packed;
  g_free (e->groups);
  g_free (e->order);
  g_free (e);
}

static const EngPackedClass exl2_class = { "EXL2", read_rows, fill_band, drop, free_exl2 };

static gint64 int_at (const EngStTensor *t, guint64 i)
{
  gint16 i16;
  if (t->type == ENG_ST_I16) {
    memcpy (&i16, t->data + i * 2, 2);
    return i16 & 0xffff; /* written as unsigned by some */
  }
  return (gint32) word_at (t, i);
}

static gboolean is_list (const EngStTensor *t, guint64 n)
{
  return t && (t->type == ENG_ST_I16 || t->type == ENG_ST_I32) && t->n_dims == 1 && t->dims[0] == n;
}

/* Groups follow each other, each of whole words; `cols` is known from the permutation. */
static const char *read_groups (Exl2 *e, const EngStTensor *list, guint cols)
{
  guint64 words = e->codes->dims[0];
  e->groups = g_new0 (Group, e->n_groups);
  for (guint g = 0, first = 0; g < e->n_groups; g++) {
    Group *group = &e->groups[g];
    gint64 bits = int_at (list, g * 2), word = int_at (list, g * 2 + 1), end = g + 1 < e->n_groups ? int_at (list, g * 2 + 3) : (gint64) words;
    if ((bits != 2 && bits != 3 && bits != 4 && bits != 5 && bits != 6 && bits != 8) || word < 0 || end <= word || (guint64) end > words || end - word > 1 << 16)
      return "has a group of bits that make no sense; the files are damaged";
    *group = (Group) { (guint) bits, first, (guint) ((end - word) * 32 / bits), (guint) word };
    if (g + 1 == e->n_groups)
      group->n = cols > first ? MIN (group->n, cols - first) : 0;
    first += group->n;
    if (group->n == 0 || first > cols || (guint64) group->n * (guint) bits > (guint64) (end - word) * 32 || (g + 1 == e->n_groups && first != cols))
      return "has groups that do not make up its columns; the files are damaged";
  }
  return NULL;
}

static const char *choose_layout (Exl2 *e, guint rows, guint cols)
{
  guint panels = 0;
  e->stored_group = 128;
  for (guint g = 0; g < e->n_groups; g++) {
    while (e->stored_group > 16 && e->groups[g].n % e->stored_group != 0 && g + 1 < e->n_groups)
      e->stored_group /= 2;
    if (g + 1 < e->n_groups && e->groups[g].n % e->stored_group != 0)
      return "has groups whose size is no multiple of 16";
    if (panels > 0 && e->cells[panels - 1].depth == e->groups[g].bits) {
      e->panel_end[panels - 1] += e->groups[g].n;
      continue;
    }
    if (panels == MAX_PANELS || e->groups[g].first % 32 != 0)
      return "mixes its bits in a way that Valise does not know";
    e->cells[panels] = (xb_cell) { .depth = (guint8) e->groups[g].bits, .codebook = XB_UNIFORM, .z2 = (guint16) (1u << e->groups[g].bits) };
    e->panel_end[panels++] = e->groups[g].first + e->groups[g].n;
  }
  e->stripe_end = rows;
  e->layout = (xb_layout) { .rows = rows, .cols = cols, .group = e->stored_group, .scale_kind = XB_SCALE_GROUP_SQUARE, .n_stripes = 1, .n_panels = panels,
                            .stripe_end = &e->stripe_end, .panel_end = e->panel_end, .cells = e->cells };
  return NULL;
}

/* The file says where each column went (q_invperm), or where each place comes from (q_perm). */
static const char *read_order (Exl2 *e, const EngStTensor *inverse, const EngStTensor *order, guint cols)
{
  g_autofree guint8 *seen = g_malloc0 (cols);
  e->order = g_new (guint32, cols);
  for (guint i = 0; i < cols; i++) {
    gint64 to = int_at (inverse ? inverse : order, i);
    if (to < 0 || to >= cols || seen[to])
      return "has an order of columns that names one twice; the files are damaged";
    seen[to] = 1;
    if (inverse)
      e->order[to] = i;
    else
      e->order[i] = (guint32) to;
  }
  e->input = (xb_input_layout) { .cols = cols, .permutation = e->order };
  return NULL;
}

EngPacked *hf_exl2_open (const Hf *hf, const char *module, guint *rows, guint *cols, GError **error)
{
  const EngStTensor *codes = hf_part (hf, module, "q_weight"), *list = hf_part (hf, module, "q_groups"), *inverse = hf_part (hf, module, "q_invperm");
  const EngStTensor *scales = hf_part (hf, module, "q_scale"), *peaks = hf_part (hf, module, "q_scale_max"), *order = hf_part (hf, module, "q_perm");
  const EngStTensor *either = inverse ? inverse : order;
  if (!codes || codes->type != ENG_ST_I32 || codes->n_dims != 2 || codes->dims[0] < 1 || codes->dims[0] > 1 << 20 || codes->dims[1] < 8 || codes->dims[1] % 8 != 0
      || codes->dims[1] > 1 << 24 || !either || either->n_dims != 1 || either->dims[0] < 1 || either->dims[0] > 1 << 20 || !is_list (either, either->dims[0]) || !scales
      || scales->n_dims != 2 || scales->type != ENG_ST_I32 || scales->dims[0] < 1 || scales->dims[0] > MAX_GROUPS || scales->dims[1] != codes->dims[1] / 8
      || !is_list (list, scales->dims[0] * 2) || !peaks || peaks->type > ENG_ST_BF16 || peaks->n_dims != 1 || peaks->dims[0] != scales->dims[0])
    return hf_refuse (hf, module, "has EXL2 parts that do not fit together; the files are damaged", error);
  Exl2 *e = g_new0 (Exl2, 1);
  *rows = (guint) codes->dims[1];
  *cols = (guint) either->dims[0];
  e->codes = codes;
  e->scales = scales;
  e->peaks = peaks;
  e->n_groups = (guint) scales->dims[0];
  const char *why = read_groups (e, list, *cols);
  if (!why)
    why = choose_layout (e, *rows, *cols);
  if (!why)
    why = read_order (e, inverse, order, *cols);
  e->packed = (EngPacked) { .class = &exl2_class, .layout = &e->layout, .input = &e->input, .loss = ENG_LOSS_STEP };
  if (!why)
    return &e->packed;
  free_exl2 (&e->packed);
  return hf_refuse (hf, module, why, error);
}
