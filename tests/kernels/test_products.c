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

typedef struct {
  guint rows, cols, group, n_vectors;
  int scale_kind;
  gboolean has_offset, is_extreme;
  int depth;              /* -1: every cell another */
  int codebook;
} Case;

/* A matrix packed from numbers the test keeps. */
typedef struct {
  xb_layout layout;
  guint32 stripe_end[8], panel_end[8];
  xb_cell cells[64];
  gint8 tables[2][16];
  guint8 *blob;
  gsize size;
  double *weights;        /* [rows][cols], from codes and scales, never from the blob */
  double *terms;          /* [rows][cols] size of the terms a weight is made of: a product's rounding is relative to these */
  xb_matrix *matrix;
} Packed;

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
  gboolean mixed = c->depth < 0;
  p->layout = (xb_layout) {
    .rows = c->rows, .cols = c->cols, .group = c->group, .scale_kind = (guint8) c->scale_kind, .has_offset = (guint8) c->has_offset,
    .stripe_end = p->stripe_end, .panel_end = p->panel_end, .cells = p->cells, .tables = (const gint8 (*)[16]) p->tables, .n_tables = 2,
  };
  p->layout.n_stripes = split (p->stripe_end, c->rows, 16, mixed ? 3 : 1);
  p->layout.n_panels = split (p->panel_end, c->cols, MAX (c->group, 32), mixed ? 3 : 1);
  for (guint i = 0; i < p->layout.n_stripes * p->layout.n_panels; i++) {
    int depth = mixed ? g_rand_int_range (rand, 0, 9) : c->depth;
    int codebook = c->has_offset || depth > 4 || depth == 0 ? XB_UNIFORM : mixed ? g_rand_int_range (rand, 0, 2) : c->codebook;
    p->cells[i] = (xb_cell) { .depth = (guint8) depth, .codebook = (guint8) codebook, .table = i % 2,
                              .z2 = (guint16) (c->has_offset || codebook == XB_TABLE ? 0 : (1u << depth) - (g_rand_boolean (rand) ? 1 : 0)) };
  }
  for (guint i = 0; i < 32; i++)
    p->tables[i / 16][i % 16] = (gint8) (c->is_extreme ? (i % 2 ? 127 : -128) : g_rand_int_range (rand, -128, 128));
}

static float random_scale (const Case *c, GRand *rand)
{
  if (c->scale_kind == XB_SCALE_GROUP_I8)
    return (float) g_rand_int_range (rand, -128, 128);
  return xb_round_scale ((float) g_rand_double_range (rand, -0.1, 0.1));
}

static void pack (Packed *p, const Case *c, GRand *rand)
{
  guint bands = (c->rows + 15) / 16, padded = (c->cols + 31) / 32 * 32, n_groups = xb_layout_groups (&p->layout), supers = (c->cols + 255) / 256;
  g_autofree guint8 *codes = g_malloc (padded * 16);
  g_autofree float *scale = g_new (float, n_groups * 16), *offset = g_new (float, n_groups * 16);
  g_autofree float *super = g_new (float, supers * 16), *super_offset = g_new (float, supers * 16);
  for (guint band = 0; band < bands; band++) {
    guint stripe = 0;
    while (p->stripe_end[stripe] <= band * 16)
      stripe++;
    for (guint i = 0; i < n_groups * 16; i++) {
      scale[i] = random_scale (c, rand);
      offset[i] = random_scale (c, rand);
    }
    for (guint i = 0; i < supers * 16; i++) {
      super[i] = xb_round_scale ((float) g_rand_double_range (rand, 0, 0.002));
      super_offset[i] = xb_round_scale ((float) g_rand_double_range (rand, 0, 0.002));
    }
    memset (codes, 0, padded * 16);
    guint panel = 0, group = 0;
    for (guint col = 0; col < c->cols; col++) {
      while (p->panel_end[panel] <= col)
        panel++;
      if (col && xb_layout_group_start (&p->layout, group + 1) <= col)
        group++;
      const xb_cell *cell = &p->cells[stripe * p->layout.n_panels + panel];
      for (guint r = 0; r < 16 && band * 16 + r < c->rows; r++) {
        guint top = (1u << cell->depth) - 1, u = c->is_extreme ? top : (guint) g_rand_int_range (rand, 0, (gint) top + 1);
        codes[r * padded + col] = (guint8) u;
        double s = scale[group * 16 + r], m = c->has_offset ? (double) offset[group * 16 + r] : 0;
        if (c->scale_kind == XB_SCALE_GROUP_I8) {
          s *= (double) super[col / 256 * 16 + r];
          m *= (double) super_offset[col / 256 * 16 + r];
        }
        double v = cell->codebook == XB_TABLE ? p->tables[cell->table][u] : u - cell->z2 * 0.5;
        p->weights[(gsize) (band * 16 + r) * c->cols + col] = cell->depth ? s * v + m : 0;
        p->terms[(gsize) (band * 16 + r) * c->cols + col] = fabs (s) * 256 + fabs (m);
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
  g_free (p->weights);
  g_free (p->terms);
}

static void check_rows (const Packed *p, const Case *c)
{
  g_autofree float *rows = g_new (float, (gsize) c->rows * c->cols);
  xb_dequantize_rows (p->matrix, 0, c->rows, rows);
  for (gsize i = 0; i < (gsize) c->rows * c->cols; i++)
    g_assert_cmpfloat_with_epsilon ((double) rows[i], p->weights[i], 1e-6 * (1 + fabs (p->weights[i])));
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
    xb_acts_quantize (&acts, i, x + (gsize) i * c->cols, 8);
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

static void test_isa (gconstpointer data)
{
  int set = GPOINTER_TO_INT (data);
  if (!select_set (set))
    return;
  g_autoptr (GRand) rand = g_rand_new_with_seed (11);
  static const guint groups[] = { 16, 32, 64, 128 };
  for (int depth = -1; depth <= 8; depth++)
    for (int codebook = 0; codebook < 2; codebook++)
      for (int kind = 0; kind < 3; kind++)
        for (guint g = 0; g < 4; g++)
          for (int flags = 0; flags < 4; flags++) {
            if (depth == 0 || (codebook && depth > 4) || !in_share ())
              continue;
            Case c = { .rows = (guint) g_rand_int_range (rand, 1, 70), .cols = (guint) g_rand_int_range (rand, 1, 600), .group = groups[g],
                       .n_vectors = flags & 2 ? 1 : (guint) g_rand_int_range (rand, 2, 9), .scale_kind = kind, .has_offset = codebook == 0 && flags & 1,
                       .is_extreme = depth > 0 && flags == 2, .depth = depth, .codebook = codebook };
            run_case (&c, rand);
          }
  Case many = { .rows = 33, .cols = 96, .group = 32, .n_vectors = 150, .scale_kind = XB_SCALE_GROUP_F16, .depth = 4 };
  run_case (&many, rand);
}

/* With scales of 1 every product is an integer below 2^24, which f32 holds exactly: each instruction set must return it to the last bit. */
static void check_integers (int depth, int codebook, guint cols, guint n, gboolean is_extreme, GRand *rand)
{
  enum { ROWS = 21 };
  guint32 stripe_end = ROWS, panel_end = cols;
  guint padded = (cols + 31) / 32 * 32;
  gint8 tables[1][16];
  xb_cell cell = { .depth = (guint8) depth, .codebook = (guint8) codebook };
  xb_layout l = { .rows = ROWS, .cols = cols, .group = 16, .scale_kind = cols % 2 ? XB_SCALE_ROW_F16 : XB_SCALE_GROUP_F16, .n_stripes = 1, .n_panels = 1, .n_tables = 1,
                  .stripe_end = &stripe_end, .panel_end = &panel_end, .cells = &cell, .tables = (const gint8 (*)[16]) tables };
  for (guint i = 0; i < 16; i++)
    tables[0][i] = (gint8) (is_extreme ? -128 : g_rand_int_range (rand, -128, 128));
  gsize size = xb_layout_bytes (&l, NULL), bytes = xb_acts_bytes (cols, n);
  guint8 *blob = guarded_new (size), *memory = guarded_new (bytes);
  g_assert_null (xb_matrix_init (blob, size, &l));
  g_autofree guint8 *codes = g_malloc0 ((gsize) 32 * padded);
  g_autofree float *ones = g_new (float, (gsize) xb_layout_groups (&l) * 16), *x = g_new0 (float, cols), *y = g_new (float, (gsize) n * ROWS);
  for (guint i = 0; i < xb_layout_groups (&l) * 16; i++)
    ones[i] = 1;
  for (guint r = 0; r < ROWS; r++)
    for (guint c = 0; c < cols; c++)
      codes[r * padded + c] = (guint8) (is_extreme ? (1 << depth) - 1 : g_rand_int_range (rand, 0, 1 << depth));
  for (guint32 band = 0; band < 2; band++)
    g_assert_null (xb_pack_band (blob, size, band, codes + (gsize) band * 16 * padded, ones, NULL, NULL, NULL));
  xb_matrix *matrix = xb_matrix_open (blob, size, NULL);
  g_assert_nonnull (matrix);
  xb_acts acts;
  xb_acts_init (&acts, memory, cols, n);
  for (guint i = 0; i < n; i++) {
    for (guint c = 0; c < cols; c++)
      x[c] = (float) (c % 32 == 0 || is_extreme ? (i % 2 ? -127 : 127) : g_rand_int_range (rand, -127, 128));
    xb_acts_quantize (&acts, i, x, 8); /* the peak of every 32 is 127: the scale is 1 */
  }
  xb_matmul (matrix, &acts, y, ROWS, 0, ROWS);
  for (guint i = 0; i < n; i++)
    for (guint r = 0; r < ROWS; r++) {
      gint64 want = 0;
      for (guint c = 0; c < cols; c++)
        want += (codebook == XB_TABLE ? tables[0][codes[r * padded + c]] : (gint) codes[r * padded + c]) * (gint) acts.q[(gsize) i * padded + c];
      g_assert_cmpint ((gint64) y[(gsize) i * ROWS + r], ==, want);
    }
  xb_matrix_free (matrix);
  guarded_free (blob, size);
  guarded_free (memory, bytes);
}

static void test_integers (gconstpointer data)
{
  int set = GPOINTER_TO_INT (data);
  if (!select_set (set))
    return;
  g_autoptr (GRand) rand = g_rand_new_with_seed (3);
  for (int depth = 1; depth <= 8; depth++)
    for (int codebook = 0; codebook < (depth <= 4 ? 2 : 1); codebook++)
      for (int is_extreme = 0; is_extreme < 2; is_extreme++)
        for (guint cols = 1; cols <= 512; cols += cols < 70 ? 1 : 61) {
          if (!in_share ())
            continue;
          check_integers (depth, codebook, cols, 1, is_extreme, rand);
          check_integers (depth, codebook, cols, 3, is_extreme, rand);
        }
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
  Case c = { .rows = 40, .cols = 200, .group = 32, .n_vectors = 1, .scale_kind = XB_SCALE_GROUP_F16, .depth = -1 };
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
    g_autofree char *path = g_strdup_printf ("/kernels/products/%s", set_name (set));
    g_test_add_data_func (path, GINT_TO_POINTER (set), test_isa);
    g_autofree char *integers = g_strdup_printf ("/kernels/integers/%s", set_name (set));
    g_test_add_data_func (integers, GINT_TO_POINTER (set), test_integers);
    g_autofree char *tiny = g_strdup_printf ("/kernels/activations/tiny/%s", set_name (set));
    g_test_add_data_func (tiny, GINT_TO_POINTER (set), test_tiny_activations);
  }
  g_test_add_func ("/kernels/xbit/hostile-blobs", test_hostile);
  return g_test_run ();
}
