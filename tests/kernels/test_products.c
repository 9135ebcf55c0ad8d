/* test_products.c: every product of X-bit matrices, on each instruction set this CPU has, against plain loops in double precision over the
 * codes and scales that were packed; ragged shapes, mixed cells, every kind of scale, extreme codes and activations. */
#include <glib.h>
#include <math.h>
#include <string.h>

#include "kernels/cpu.h"
#include "kernels/table.h"
#include "kernels/xbit.h"

#include "guarded.h"
#include "sets.h"

/* One product: codes of a depth and codebook, or of a grid, or (MIXED) another in every cell. */
enum { GRIDS = 6, UNIFORM1 = 0, TABLE1 = 8, GRID0 = 12, TRELLIS1 = GRID0 + GRIDS, LONG2 = TRELLIS1 + 6, EXL3 = LONG2 + 4, MIXED = EXL3 + 24, N_KINDS };

/* dim, bits of an index, bits of signs: the shapes of IQ2_XXS, IQ2_XS, IQ2_S, IQ3_XXS, IQ3_S and IQ1_M. */
static const guint8 grid_shapes[GRIDS][3] = { { 8, 8, 7 }, { 8, 9, 7 }, { 8, 10, 8 }, { 4, 8, 7 }, { 4, 9, 8 }, { 8, 12, 0 } };

static char *kind_name (int kind)
{
  if (kind < GRID0)
    return g_strdup_printf ("%s%d", kind < TABLE1 ? "uniform" : "table", 1 + (kind < TABLE1 ? kind - UNIFORM1 : kind - TABLE1));
  if (kind == MIXED)
    return g_strdup_printf ("mixed");
  if (kind >= EXL3)
    return g_strdup_printf ("exl3-%d-%s", (kind - EXL3) / 3 + 1, ((const char *[]) { "3inst", "mcg", "mul1" })[(kind - EXL3) % 3]);
  if (kind >= LONG2)
    return g_strdup_printf ("trellis16-%d", kind - LONG2 + 2);
  if (kind >= TRELLIS1)
    return g_strdup_printf ("trellis%d", kind - TRELLIS1 + 1);
  const guint8 *g = grid_shapes[kind - GRID0];
  return g_strdup_printf ("grid-%u-values-%u+%u-bits", g[0], g[1], g[2]);
}

static guint least_group (int kind)
{
  return kind >= TRELLIS1 && kind < EXL3 ? 32 : 16;
}

static gboolean is_exl3 (int kind)
{
  return kind >= EXL3 && kind < MIXED;
}

typedef struct {
  guint rows, cols, group, n_vectors;
  int scale_kind;
  int has_offset; /* xb_offset_kind */
  gboolean is_extreme;
  int kind, bits; /* of activations: 8 or 4 */
} Case;

/* A matrix packed from numbers the test keeps. */
typedef struct {
  xb_layout layout;
  guint32 stripe_end[8], panel_end[8];
  xb_cell cells[64];
  gint8 tables[5][16];
  xb_grid grids[GRIDS];
  gint8 *grid_values;
  guint8 *blob;
  gsize size;
  double *weights;        /* [rows][cols], from codes and scales, never from the blob */
  double *terms;          /* [rows][cols] size of the terms a weight is made of: a product's rounding is relative to these */
  xb_matrix *matrix;
} Packed;

static gboolean is_per_row (const Case *c)
{
  return c->scale_kind == XB_SCALE_ROW_F16 || c->scale_kind == XB_SCALE_ROW_F32;
}

static guint split (guint32 *end, guint n, guint unit, guint pieces)
{
  guint count = 0, units = (n + unit - 1) / unit;
  for (guint i = 1; i <= pieces; i++) {
    guint at = i == pieces ? n : MIN (n, units * i / pieces * unit);
    if (at > (count ? end[count - 1] : 0))
      end[count++] = at;
  }
  return count;
}

static void make_layout (Packed *p, const Case *c, GRand *rand)
{
  gboolean mixed = c->kind == MIXED;
  guint32 grid_bytes = 0;
  for (guint i = 0; i < GRIDS; i++) {
    const guint8 *shape = grid_shapes[i];
    p->grids[i] = (xb_grid) { .dim = shape[0], .index_bits = shape[1], .sign_bits = shape[2], .offset = grid_bytes };
    grid_bytes += (guint32) shape[0] << shape[1];
  }
  p->grid_values = g_new (gint8, grid_bytes);
  for (guint i = 0; i < grid_bytes; i++)
    p->grid_values[i] = (gint8) (c->is_extreme ? (i % 2 ? 127 : -127) : g_rand_int_range (rand, -127, 128));
  p->layout = (xb_layout) {
    .rows = c->rows, .cols = c->cols, .group = c->group, .scale_kind = (guint8) c->scale_kind, .has_offset = (guint8) c->has_offset,
    .stripe_end = p->stripe_end, .panel_end = p->panel_end, .cells = p->cells, .tables = (const gint8 (*)[16]) p->tables, .n_tables = 5,
    .n_grids = c->has_offset ? 0 : GRIDS, .grid_bytes = c->has_offset ? 0 : grid_bytes, .grids = p->grids, .grid_values = p->grid_values,
  };
  p->layout.n_stripes = split (p->stripe_end, c->rows, 16, mixed ? 3 : 1);
  p->layout.n_panels = split (p->panel_end, c->cols, MAX (c->group, 32), mixed ? 3 : 1);
  for (guint i = 0; i < p->layout.n_stripes * p->layout.n_panels; i++) {
    int kind = mixed ? g_rand_int_range (rand, 0, c->has_offset ? TABLE1 : is_per_row (c) ? MIXED : c->group == 16 ? TRELLIS1 : EXL3) : c->kind;
    if (mixed && g_rand_int_range (rand, 0, 8) == 0)
      p->cells[i] = (xb_cell) { .depth = 0 };
    else if (kind >= EXL3)
      p->cells[i] = (xb_cell) { .depth = (guint8) ((kind - EXL3) / 3 + 1), .codebook = XB_EXL3, .z2 = (guint16) ((kind - EXL3) % 3) };
    else if (kind >= LONG2)
      p->cells[i] = (xb_cell) { .depth = (guint8) (kind - LONG2 + 2), .codebook = XB_TRELLIS16, .table = i % 2 };
    else if (kind >= TRELLIS1)
      p->cells[i] = (xb_cell) { .depth = (guint8) (kind - TRELLIS1 + 1), .codebook = XB_TRELLIS, .table = i % 2 };
    else if (kind >= GRID0) {
      const guint8 *shape = grid_shapes[kind - GRID0];
      guint bytes = 64u * shape[1] / shape[0] + 8u * shape[2];
      p->cells[i] = (xb_cell) { .depth = (guint8) ((bytes + 63) / 64), .codebook = XB_GRID, .table = (guint32) (kind - GRID0), .z2 = (guint16) (c->group / 32 % 4) };
    } else if (kind >= TABLE1)
      p->cells[i] = (xb_cell) { .depth = (guint8) (kind - TABLE1 + 1), .codebook = XB_TABLE, .table = i % 2 };
    else
      p->cells[i] = (xb_cell) { .depth = (guint8) (kind + 1), .z2 = (guint16) (c->has_offset ? 0 : (2u << kind) - (g_rand_boolean (rand) ? 1 : 0)) };
  }
  for (guint i = 0; i < 80; i++)
    p->tables[i / 16][i % 16] = (gint8) (c->is_extreme ? (i % 2 ? 127 : -128) : g_rand_int_range (rand, -128, 128));
}

/* Bits from..to of the code `back` places before row r, column col in the chain of a cell that begins at column `begin`; 0 before that. */
static guint chain_bits (const guint8 *codes, gsize stride, guint begin, guint r, guint col, guint back, guint from, guint to)
{
  static const guint order[16] = { 0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15 };
  guint at = 0;
  while (order[at] != r)
    at++;
  guint place = (col - begin) * 16 + at;
  return place < back ? 0 : codes[order[(place - back) % 16] * stride + begin + (place - back) / 16] >> from & ((2u << (to - from)) - 1);
}

/* What the code of row r, column col of a trellis cell stands for, as docs/formats.md says; codes of the 16 rows [16][stride]. */
static double trellis_value (const Packed *p, const xb_cell *cell, const guint8 *codes, gsize stride, guint begin, guint r, guint col)
{
#define BITS(back, from, to) chain_bits (codes, stride, begin, r, col, back, from, to)
#define FOUR(back) (BITS (back, 0, 0) | BITS (back + 1, 0, 0) << 1 | BITS (back + 2, 0, 0) << 2 | BITS (back + 3, 0, 0) << 3)
#define TWO(back) (BITS (back, 0, 1) + 4 * BITS (back + 1, 0, 1))
  guint i[3] = { 0 }, n = 2;
  switch (cell->codebook == XB_TRELLIS16 ? 16 + cell->depth : cell->depth) {
  case 16 + 2:
    i[0] = TWO (0) ^ TWO (4);
    i[1] = TWO (0) ^ TWO (2) ^ TWO (6);
    break;
  case 16 + 3:
    i[0] = (BITS (0, 1, 2) + 4 * BITS (1, 1, 2)) ^ BITS (4, 1, 2);
    i[1] = FOUR (0) ^ (BITS (2, 1, 2) + 4 * BITS (3, 1, 2)) ^ (BITS (4, 0, 0) + 2 * BITS (5, 0, 0));
    break;
  case 16 + 4:
    i[0] = BITS (0, 0, 3) ^ BITS (2, 0, 3);
    i[1] = BITS (0, 0, 3) ^ BITS (1, 0, 3) ^ BITS (3, 0, 3);
    break;
  case 16 + 5:
    i[0] = BITS (0, 1, 4) ^ BITS (2, 1, 4);
    i[1] = BITS (0, 0, 3);
    i[2] = BITS (1, 1, 4) ^ BITS (2, 0, 1);
    n = 3;
    break;
  case 1:
    i[0] = FOUR (0);
    i[1] = FOUR (0) ^ FOUR (8);
    break;
  case 2:
    i[0] = TWO (0);
    i[1] = TWO (0) ^ TWO (4);
    break;
  case 3:
    i[0] = BITS (0, 1, 2) + 4 * BITS (1, 1, 2);
    i[1] = FOUR (0) ^ (BITS (2, 1, 2) + 4 * BITS (3, 1, 2));
    break;
  case 4:
    i[0] = BITS (0, 0, 3);
    i[1] = i[0] ^ BITS (1, 0, 3) ^ BITS (2, 0, 3);
    break;
  case 5:
    i[0] = BITS (0, 1, 4);
    i[1] = BITS (0, 0, 3);
    i[2] = BITS (1, 1, 4) ^ BITS (2, 0, 1);
    n = 3;
    break;
  default:
    i[0] = BITS (0, 2, 5);
    i[1] = BITS (0, 0, 1) + 4 * BITS (1, 0, 1);
    i[2] = BITS (1, 2, 5);
    n = 3;
  }
  int sum = 0;
  for (guint k = 0; k < n; k++)
    sum += p->tables[cell->table + k][i[k]];
  return (gint8) (guint8) (sum & 255);
#undef BITS
#undef FOUR
#undef TWO
}

static double half (guint bits)
{
  return ldexp ((bits & 1023) + (bits >> 10 & 31 ? 1024 : 0), (int) MAX (bits >> 10 & 31, 1) - 25) * (bits >> 15 ? -1 : 1);
}

/* The nearest number of 11 bits, ties to even. */
static double round_to_11_bits (double x)
{
  int exponent;
  frexp (x, &exponent);
  return ldexp (nearbyint (ldexp (x, 11 - exponent)), exponent - 11);
}

/* What the code of row r, column col of an EXL3 cell stands for: its 16 bits end with the code in the ring of 16 x 16 codes, lane after lane of a tensor
 * core's fragment. */
static double exl3_value (const xb_cell *cell, const guint8 *codes, gsize stride, guint begin, guint r, guint col)
{
  static const guint64 factors[3] = { 89226354, 0xcbac1fed, 0x83dcd12d };
  guint first = begin + (col - begin) / 16 * 16, at = 0, state = 0, n = 0;
  guint8 ring[256];
  for (guint t = 0; t < 256; t++) {
    guint lane = t / 8, column = lane % 4 * 2 + t % 2 + t / 2 % 2 * 8, row = lane / 4 + t / 4 % 2 * 8;
    ring[t] = codes[row * stride + first + column];
    at = row == r && first + column == col ? t : at;
  }
  for (guint t = at; n < 16; t = (t + 255) % 256)
    for (guint bit = 0; bit < cell->depth && n < 16; bit++)
      state |= (ring[t] >> bit & 1u) << n++;
  guint64 product = state * factors[cell->z2] + (cell->z2 == 0 ? 64248484u : 0u);
  guint32 x = (guint32) product;
  if (cell->z2 == 2)
    return round_to_11_bits ((1024 + (x & 255) + (x >> 8 & 255) + (x >> 16 & 255) + (x >> 24)) * half (0x1eee) + half (0xc931));
  x = (x & 0x8fff8fff) ^ 0x3b603b60;
  return round_to_11_bits (half (x & 0xffff) + half (x >> 16));
}

/* The codes of 16 rows x cols of a cell in codes[16][stride], the first row and column being row0 and col0 of the matrix; v[16][stride]: what they mean. */
static void fill_codes (const Packed *p, const xb_cell *cell, gboolean is_extreme, guint n_rows, guint begin, guint end, gsize stride, guint8 *codes, double *v,
                        GRand *rand)
{
  if (cell->depth && cell->codebook == XB_GRID)
    end = (end + 7) / 8 * 8; /* whole indices, and signs whose number is even */
  for (guint r = 0; r < n_rows; r++) {
    guint index = 0, minuses = 0;
    for (guint col = begin; col < end; col++) {
      guint8 *code = &codes[r * stride + col];
      if (cell->depth && cell->codebook == XB_GRID) {
        const xb_grid *g = &p->grids[cell->table];
        guint place = (col - begin) % g->dim, minus = g->sign_bits && (is_extreme || g_rand_boolean (rand));
        if (place == 0)
          index = is_extreme ? (1u << g->index_bits) - 1 : (guint) g_rand_int_range (rand, 0, 1 << g->index_bits);
        if ((col - begin) % 8 == 0)
          minuses = 0;
        if (g->sign_bits == 7 && (col - begin) % 8 == 7)
          minus = minuses & 1;
        minuses += minus;
        *code = (guint8) ((place == 0 ? index & 127 : place == 1 ? index >> 7 : 0) | minus << 7);
        v[r * stride + col] = ldexp (p->grid_values[g->offset + index * g->dim + place] * (minus ? -1 : 1), -cell->z2);
      } else {
        guint top = (1u << cell->depth) - 1;
        *code = (guint8) (is_extreme ? top : (guint) g_rand_int_range (rand, 0, (gint) top + 1));
        v[r * stride + col] = cell->codebook == XB_TABLE ? p->tables[cell->table][*code & 15] : *code - cell->z2 * 0.5;
      }
    }
  }
  for (guint r = 0; r < n_rows && cell->depth && xb_is_trellis (cell->codebook); r++)
    for (guint col = begin; col < end; col++)
      v[r * stride + col] = trellis_value (p, cell, codes, stride, begin, r, col);
  for (guint r = 0; r < n_rows && cell->depth && cell->codebook == XB_EXL3; r++)
    for (guint col = begin; col < end; col++)
      v[r * stride + col] = exl3_value (cell, codes, stride, begin, r, col);
}

static float random_scale (const Case *c, GRand *rand)
{
  switch (c->scale_kind) {
  case XB_SCALE_GROUP_I8: return (float) g_rand_int_range (rand, -128, 128);
  case XB_SCALE_GROUP_ODD: case XB_SCALE_GROUP_SQUARE: return (float) g_rand_int_range (rand, 0, 16);
  case XB_SCALE_GROUP_E8M0: return (float) g_rand_int_range (rand, 112, 132);
  case XB_SCALE_GROUP_E4M3: return (float) g_rand_int_range (rand, 0, 127);
  case XB_SCALE_ROW_F32: case XB_SCALE_GROUP_F32: return (float) g_rand_double_range (rand, -0.1, 0.1);
  default: return xb_round_scale ((float) g_rand_double_range (rand, -0.1, 0.1));
  }
}

/* The number that a stored scale n stands for; `super` belongs to its place. */
static double scale_value (int scale_kind, double n, double super)
{
  int code = (int) n, exponent = code >> 3 & 15;
  switch (scale_kind) {
  case XB_SCALE_GROUP_I8: return n * super;
  case XB_SCALE_GROUP_ODD: return (2 * n + 1) * super;
  case XB_SCALE_GROUP_SQUARE: return (n + 1) * (n + 1) / 256 * super;
  case XB_SCALE_GROUP_E8M0: return ldexp (1, code - 128);
  case XB_SCALE_GROUP_E4M3: return ldexp (exponent ? 8 + code % 8 : code % 8, MAX (exponent, 1) - 10) * super;
  default: return n;
  }
}

static void pack (Packed *p, const Case *c, GRand *rand)
{
  guint bands = (c->rows + 15) / 16, padded = (c->cols + 31) / 32 * 32, n_groups = xb_layout_groups (&p->layout), supers = (c->cols + 255) / 256;
  g_autofree guint8 *codes = g_malloc (padded * 16);
  g_autofree double *v = g_new (double, padded * 16);
  g_autofree float *scale = g_new (float, n_groups * 16), *offset = g_new (float, n_groups * 16);
  g_autofree float *super = g_new (float, (supers + n_groups) * 16), *super_offset = g_new (float, supers * 16);
  for (guint band = 0; band < bands; band++) {
    guint stripe = 0;
    while (p->stripe_end[stripe] <= band * 16)
      stripe++;
    for (guint i = 0; i < n_groups * 16; i++) {
      scale[i] = random_scale (c, rand);
      offset[i] = c->has_offset == XB_OFFSET_ZERO ? (float) g_rand_int_range (rand, 0, 256) : random_scale (c, rand);
    }
    for (guint i = 0; i < (supers + n_groups) * 16; i++)
      super[i] = xb_round_scale ((float) g_rand_double_range (rand, 0, 0.002));
    for (guint i = 0; i < supers * 16; i++)
      super_offset[i] = xb_round_scale ((float) g_rand_double_range (rand, 0, 0.002));
    memset (codes, 0, padded * 16);
    for (guint i = 0; i < p->layout.n_panels; i++)
      fill_codes (p, &p->cells[stripe * p->layout.n_panels + i], c->is_extreme, MIN (16, c->rows - band * 16), i ? p->panel_end[i - 1] : 0, p->panel_end[i], padded,
                  codes, v, rand);
    guint panel = 0, group = 0;
    for (guint col = 0; col < c->cols; col++) {
      while (p->panel_end[panel] <= col)
        panel++;
      if (col && xb_layout_group_start (&p->layout, group + 1) <= col)
        group++;
      const xb_cell *cell = &p->cells[stripe * p->layout.n_panels + panel];
      for (guint r = 0; r < 16 && band * 16 + r < c->rows; r++) {
        guint of_super = c->scale_kind == XB_SCALE_GROUP_SQUARE ? group : c->scale_kind == XB_SCALE_GROUP_E4M3 ? r : col / 256 * 16 + r;
        double s = scale_value (c->scale_kind, (double) scale[group * 16 + r], (double) super[of_super]);
        double m = c->has_offset ? (double) offset[group * 16 + r] : 0;
        if (c->has_offset == XB_OFFSET_ZERO)
          m *= -s;
        else if (c->scale_kind == XB_SCALE_GROUP_I8)
          m *= (double) super_offset[col / 256 * 16 + r];
        p->weights[(gsize) (band * 16 + r) * c->cols + col] = cell->depth ? s * v[r * padded + col] + m : 0;
        p->terms[(gsize) (band * 16 + r) * c->cols + col] = fabs (s) * (cell->codebook == XB_EXL3 ? 4 : 256) + fabs (m);
      }
    }
    g_assert_null (xb_pack_band (p->blob, p->size, band, codes, scale, offset, super, super_offset));
  }
}

static void make (Packed *p, const Case *c, GRand *rand)
{
  xb_error error = NULL;
  make_layout (p, c, rand);
  p->size = xb_layout_bytes (&p->layout, &error);
  g_assert_null (error);
  p->blob = guarded_new (p->size);
  g_assert_null (xb_matrix_init (p->blob, p->size, &p->layout));
  p->weights = g_new0 (double, (gsize) c->rows * c->cols);
  p->terms = g_new0 (double, (gsize) c->rows * c->cols);
  pack (p, c, rand);
  p->matrix = xb_matrix_open (p->blob, p->size, &error);
  g_assert_cmpstr (error, ==, NULL);
}

static void clear (Packed *p)
{
  xb_matrix_free (p->matrix);
  guarded_free (p->blob, p->size);
  g_free (p->grid_values);
  g_free (p->weights);
  g_free (p->terms);
}

static void check_rows (const Packed *p, const Case *c)
{
  g_autofree float *rows = g_new (float, (gsize) c->rows * c->cols);
  xb_dequantize_rows (p->matrix, 0, c->rows, rows);
  for (gsize i = 0; i < (gsize) c->rows * c->cols; i++)
    g_assert_cmpfloat_with_epsilon ((double) rows[i], p->weights[i], 1e-6 * (1e-3 + p->terms[i]));
}

static void check_product (const Packed *p, const Case *c, GRand *rand)
{
  guint n = c->n_vectors, tiles = (c->cols + 31) / 32, ldy = c->rows + 3;
  g_autofree float *x = g_new (float, (gsize) n * c->cols), *y = g_new (float, (gsize) n * ldy), *exact = g_new (float, (gsize) n * ldy);
  guint8 *memory = guarded_new (xb_acts_bytes (c->cols, n));
  xb_acts acts;
  xb_acts_init (&acts, memory, c->cols, n);
  for (gsize i = 0; i < (gsize) n * c->cols; i++)
    x[i] = c->is_extreme ? (i % 7 ? 127.0f : -127.0f) : (float) g_rand_double_range (rand, -3, 3);
  for (guint i = 0; i < n; i++)
    xb_acts_quantize (&acts, i, x + (gsize) i * c->cols, c->bits);
  for (gsize i = 0; i < (gsize) n * ldy; i++)
    y[i] = exact[i] = -77.0f;
  xb_matmul (p->matrix, &acts, y, ldy, 0, c->rows);
  xb_matmul_f32 (p->matrix, x, c->cols, n, exact, ldy, 0, c->rows);
  for (guint i = 0; i < n; i++) {
    for (guint row = 0; row < c->rows; row++) {
      double want = 0, want_exact = 0, size = 1e-6, size_exact = 1e-6;
      for (guint col = 0; col < c->cols; col++) {
        double w = p->weights[(gsize) row * c->cols + col], q = acts.q[(gsize) i * acts.cols_padded + col] * (double) acts.scale[(gsize) i * tiles + col / 32];
        double e = w * (double) x[(gsize) i * c->cols + col];
        want += w * q;
        size += p->terms[(gsize) row * c->cols + col] * fabs (q);
        want_exact += e;
        size_exact += p->terms[(gsize) row * c->cols + col] * fabs ((double) x[(gsize) i * c->cols + col]);
        g_assert_cmpfloat (fabs (q - (double) x[(gsize) i * c->cols + col]), <=, (double) acts.scale[(gsize) i * tiles + col / 32] * 0.501);
      }
      g_assert_cmpfloat (fabs ((double) y[(gsize) i * ldy + row] - want), <=, 1e-6 * size);
      g_assert_cmpfloat (fabs ((double) exact[(gsize) i * ldy + row] - want_exact), <=, 2e-6 * size_exact);
    }
    for (guint row = c->rows; row < ldy; row++)
      g_assert_cmpfloat ((double) y[(gsize) i * ldy + row], ==, -77.0);
  }
  guarded_free (memory, xb_acts_bytes (c->cols, n));
}

/* All instruction sets agree with the scalar reference to rounding: the integers under the sums are the same. */
static void check_against_scalar (const Packed *p, const Case *c, GRand *rand)
{
  int set = selected_set;
  guint n = c->n_vectors;
  g_autofree float *x = g_new (float, c->cols), *y = g_new (float, (gsize) n * c->rows), *reference = g_new (float, (gsize) n * c->rows);
  guint8 *memory = guarded_new (xb_acts_bytes (c->cols, n)), *other = guarded_new (xb_acts_bytes (c->cols, n));
  xb_acts acts, scalar;
  xb_acts_init (&acts, memory, c->cols, n);
  xb_acts_init (&scalar, other, c->cols, n);
  for (guint i = 0; i < n; i++) {
    for (guint col = 0; col < c->cols; col++)
      x[col] = (float) g_rand_int_range (rand, -127, 128);
    x[0] = 127;
    xb_acts_quantize (&acts, i, x, 8);
    g_assert_true (select_set (XB_ISA_SCALAR));
    xb_acts_quantize (&scalar, i, x, 8);
    g_assert_true (select_set (set));
  }
  g_assert_cmpmem (acts.q, (gsize) n * acts.cols_padded, scalar.q, (gsize) n * acts.cols_padded);
  g_assert_cmpmem (acts.sum, (gsize) n * acts.cols_padded / 8, scalar.sum, (gsize) n * acts.cols_padded / 8);
  xb_matmul (p->matrix, &acts, y, c->rows, 0, c->rows);
  g_assert_true (select_set (XB_ISA_SCALAR));
  xb_matmul (p->matrix, &scalar, reference, c->rows, 0, c->rows);
  g_assert_true (select_set (set));
  for (guint i = 0; i < n; i++)
    for (guint row = 0; row < c->rows; row++) {
      double size = 1e-6;
      for (guint col = 0; col < c->cols; col++)
        size += p->terms[(gsize) row * c->cols + col] * fabs (acts.q[(gsize) i * acts.cols_padded + col] * (double) acts.scale[((gsize) i * acts.cols_padded + col) / 32]);
      g_assert_cmpfloat (fabs ((double) y[(gsize) i * c->rows + row] - (double) reference[(gsize) i * c->rows + row]), <=, 1e-6 * size);
    }
  guarded_free (memory, xb_acts_bytes (c->cols, n));
  guarded_free (other, xb_acts_bytes (c->cols, n));
}

static void run_case (const Case *c, GRand *rand)
{
  Packed p = { 0 };
  make (&p, c, rand);
  check_rows (&p, c);
  check_product (&p, c, rand);
  check_against_scalar (&p, c, rand);
  clear (&p);
}

/* With scales of 1 every product is an integer below 2^24, which f32 holds exactly: each instruction set must return it to the last bit. */
static void check_integers (int kind, guint cols, guint n, gboolean is_extreme, GRand *rand)
{
  enum { ROWS = 21 };
  Packed p = { 0 };
  Case c = { .rows = ROWS, .cols = cols, .group = least_group (kind), .scale_kind = cols % 2 ? XB_SCALE_ROW_F16 : XB_SCALE_GROUP_F16, .kind = kind, .is_extreme = is_extreme };
  guint padded = (cols + 31) / 32 * 32;
  make_layout (&p, &c, rand);
  for (guint i = 0; i < p.layout.n_stripes * p.layout.n_panels; i++)
    p.cells[i].z2 = 0; /* grids are not divided either */
  gsize size = xb_layout_bytes (&p.layout, NULL), bytes = xb_acts_bytes (cols, n);
  guint8 *blob = guarded_new (size), *memory = guarded_new (bytes);
  g_assert_null (xb_matrix_init (blob, size, &p.layout));
  g_autofree guint8 *codes = g_malloc0 ((gsize) 16 * padded), *unpacked = g_malloc ((gsize) 16 * padded);
  g_autofree double *v = g_new0 (double, (gsize) 32 * padded);
  g_autofree float *ones = g_new (float, (gsize) xb_layout_groups (&p.layout) * 16), *x = g_new0 (float, cols), *y = g_new (float, (gsize) n * ROWS);
  for (guint i = 0; i < xb_layout_groups (&p.layout) * 16; i++)
    ones[i] = 1;
  xb_matrix *matrix = NULL;
  for (guint32 band = 0; band < 2; band++) {
    memset (codes, 0, (gsize) 16 * padded);
    fill_codes (&p, &p.cells[0], is_extreme, MIN (16, ROWS - band * 16), 0, cols, padded, codes, v + (gsize) band * 16 * padded, rand);
    g_assert_null (xb_pack_band (blob, size, band, codes, ones, NULL, NULL, NULL));
    matrix = matrix ? matrix : xb_matrix_open (blob, size, NULL);
    g_assert_nonnull (matrix);
    xb_unpack_band (matrix, band, unpacked, ones, NULL);
    for (guint r = 0; r < MIN (16, ROWS - band * 16); r++)
      for (guint i = 0; i < cols; i++)
        g_assert_cmpuint (unpacked[r * padded + i], ==, codes[r * padded + i]);
  }
  xb_acts acts;
  xb_acts_init (&acts, memory, cols, n);
  for (guint i = 0; i < n; i++) {
    for (guint col = 0; col < cols; col++)
      x[col] = (float) (col % 32 == 0 || is_extreme ? (i % 2 ? -127 : 127) : g_rand_int_range (rand, -127, 128));
    xb_acts_quantize (&acts, i, x, 8); /* the peak of every 32 is 127: the scale is 1 */
  }
  xb_matmul (matrix, &acts, y, ROWS, 0, ROWS);
  for (guint i = 0; i < n; i++)
    for (guint r = 0; r < ROWS; r++) {
      gint64 want = 0;
      for (guint col = 0; col < cols; col++)
        want += (gint64) v[(gsize) r * padded + col] * (gint) acts.q[(gsize) i * padded + col];
      g_assert_cmpint ((gint64) y[(gsize) i * ROWS + r], ==, want);
    }
  xb_matrix_free (matrix);
  g_free (p.grid_values);
  guarded_free (blob, size);
  guarded_free (memory, bytes);
}

static void check_shapes (int kind, gboolean many, GRand *rand)
{
  static const guint groups[] = { 16, 32, 64, 128, 256 };
  gboolean may_offset = kind < TABLE1 || kind == MIXED;
  for (int scale_kind = 0; scale_kind < XB_N_SCALE_KINDS; scale_kind++)
    for (guint g = 0; g < (scale_kind < 3 ? 4 : 5); g++)
      for (int flags = 0; flags < 8; flags += scale_kind < 3 ? 1 : 3) {
        /* The rarer kinds of scales take the same way through a product: each codebook meets one of them. */
        if (is_exl3 (kind) && (g || (scale_kind != XB_SCALE_ROW_F16 && scale_kind != XB_SCALE_ROW_F32)))
          continue;
        if (!in_share () || (scale_kind > 2 && !is_exl3 (kind) && kind != MIXED && (kind + scale_kind) % 6 != 0))
          continue;
        Case c = { .rows = flags & 4 && flags & 1 ? 1 : (guint) g_rand_int_range (rand, 1, 40), .cols = (guint) g_rand_int_range (rand, 1, flags & 4 ? 40 : 400),
                   .group = MAX (groups[g], least_group (kind)), .n_vectors = many ? (guint) g_rand_int_range (rand, 2, 9) : 1, .scale_kind = scale_kind,
                   .has_offset = !may_offset || !(flags & 1) ? XB_OFFSET_NONE
                                 : flags & 2 || scale_kind > XB_SCALE_GROUP_I8 ? XB_OFFSET_ZERO
                                                                               : XB_OFFSET_STORED,
                   .is_extreme = kind != MIXED && flags & 2, .kind = kind, .bits = flags == 7 ? 4 : 8 };
        run_case (&c, rand);
      }
  Case blocks = { .rows = 33, .cols = 96, .group = 32, .n_vectors = 150, .scale_kind = is_exl3 (kind) ? XB_SCALE_ROW_F16 : XB_SCALE_GROUP_F16, .kind = kind, .bits = 8 };
  if (many && (kind == UNIFORM1 + 3 || kind == GRID0 || kind == EXL3 + 9))
    run_case (&blocks, rand); /* more vectors than are multiplied at once */
}

static void test_product (gconstpointer data)
{
  int code = GPOINTER_TO_INT (data), set = code % N_SETS, kind = code / N_SETS % N_KINDS;
  gboolean many = code / N_SETS / N_KINDS;
  if (!select_set (set))
    return;
  g_autoptr (GRand) rand = g_rand_new_with_seed (11 + (guint) kind);
  check_shapes (kind, many, rand);
  for (int is_extreme = 0; is_extreme < 2 && kind < EXL3; is_extreme++) /* all but EXL3's, which are no integers */
    for (guint cols = 1; cols <= 512; cols += cols < 70 ? 1 : 61)
      if (in_share ())
        check_integers (kind, cols, many ? 2 + cols % 3 : 1, is_extreme, rand);
}

/* Values too small for a scale of their own are 0, not noise; the sign and the size of the rest survive. */
static void test_tiny_activations (gconstpointer data)
{
  if (!select_set (GPOINTER_TO_INT (data)))
    return;
  float x[64] = { 1e-42f, -3e-45f };
  x[40] = -2;
  guint8 *memory = guarded_new (xb_acts_bytes (64, 1));
  xb_acts acts;
  xb_acts_init (&acts, memory, 64, 1);
  xb_acts_quantize (&acts, 0, x, 8);
  for (guint i = 0; i < 64; i++)
    g_assert_cmpint (acts.q[i], ==, i == 40 ? -127 : 0);
  xb_acts_quantize (&acts, 0, x, 4);
  g_assert_cmpint (acts.q[40], ==, -7);
  guarded_free (memory, xb_acts_bytes (64, 1));
}

/* A blob is refused or harmless wherever one of its bytes is changed. */
static void test_hostile (void)
{
  g_autoptr (GRand) rand = g_rand_new_with_seed (5);
  Case c = { .rows = 40, .cols = 200, .group = 32, .n_vectors = 1, .scale_kind = XB_SCALE_GROUP_F16, .kind = MIXED, .bits = 8 };
  Packed p = { 0 };
  make (&p, &c, rand);
  g_autofree float *rows = g_new (float, (gsize) c.rows * c.cols);
  guint refused = 0;
  for (gsize at = 0; at < MIN (p.size, 640); at++)
    for (int bit = 0; bit < 8; bit++) {
      p.blob[at] ^= (guint8) (1 << bit);
      xb_error error = NULL;
      xb_matrix *m = xb_matrix_open (p.blob, p.size, &error);
      g_assert_true ((m == NULL) == (error != NULL));
      if (m) {
        const xb_layout *l = xb_matrix_layout (m);
        if ((gsize) l->rows * l->cols <= (gsize) c.rows * c.cols)
          xb_dequantize_rows (m, 0, l->rows, rows);
      }
      refused += m == NULL;
      xb_matrix_free (m);
      p.blob[at] ^= (guint8) (1 << bit);
    }
  g_assert_cmpuint (refused, >, 500); /* most of the header and directory */
  for (gsize size = 0; size < p.size; size += 7) {
    xb_error error = NULL;
    g_assert_null (xb_matrix_open (p.blob, size, &error));
    g_assert_nonnull (error);
  }
  clear (&p);
}

int main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  for (int set = 0; set < N_SETS; set++) {
    for (int kind = 0; kind < N_KINDS; kind++)
      for (int many = 0; many < 2; many++) {
        g_autofree char *name = kind_name (kind), *path = g_strdup_printf ("/kernels/products/%s/%s/%s", set_name (set), name, many ? "many" : "one");
        g_test_add_data_func (path, GINT_TO_POINTER ((many * N_KINDS + kind) * N_SETS + set), test_product);
      }
    g_autofree char *tiny = g_strdup_printf ("/kernels/activations/tiny/%s", set_name (set));
    g_test_add_data_func (tiny, GINT_TO_POINTER (set), test_tiny_activations);
  }
  g_test_add_func ("/kernels/xbit/hostile-blobs", test_hostile);
  return g_test_run ();
}
