/* test_layout.c: the bytes of an X-bit matrix are what the layout says: blobs packed by numpy (tests/fixtures/xbit_matrices.py) are packed alike
 * here, byte for byte, and mean the same weights. */
#include <glib.h>
#include <math.h>
#include <string.h>

#include "kernels/xbit.h"

/* The next n bytes of the fixture. */
static const guint8 *take (const guint8 **at, gsize *left, gsize n)
{
  g_assert_cmpuint (n, <=, *left);
  const guint8 *begin = *at;
  *at += n;
  *left -= n;
  return begin;
}

static float *take_floats (const guint8 **at, gsize *left, gsize n)
{
  return g_memdup2 (take (at, left, n * sizeof (float)), n * sizeof (float));
}

/* Rows of a packed matrix multiplied by powers of two, which no rounding touches; or refused, and as they were. */
static guint check_scaled (guint8 *packed, gsize size, const xb_layout *l, const float *weights)
{
  g_autofree float *factor = g_new (float, l->rows), *rows = g_new (float, (gsize) l->rows * l->cols);
  g_autofree guint8 *before = g_memdup2 (packed, size);
  gboolean can_be = l->scale_kind <= XB_SCALE_GROUP_I8 && !l->has_offset;
  for (guint r = 0; r < l->rows; r++)
    factor[r] = r % 3 == 0 ? 0.5f : r % 3 == 1 ? 1 : 2;
  g_assert_nonnull (xb_scale_rows (packed, size, 0, l->rows + 1, factor));
  g_assert_true ((xb_scale_rows (packed, size, 0, l->rows, factor) == NULL) == can_be);
  if (!can_be) {
    g_assert_cmpmem (packed, size, before, size);
    return 0;
  }
  xb_matrix *matrix = xb_matrix_open (packed, size, NULL);
  xb_dequantize_rows (matrix, 0, l->rows, rows);
  for (gsize i = 0; i < (gsize) l->rows * l->cols; i++)
    g_assert_cmpfloat (fabsf (rows[i] - weights[i] * factor[i / l->cols]), <=, 2e-6f * fabsf (weights[i]) + 2e-7f);
  xb_matrix_free (matrix);
  return 1;
}

/* 1 where its rows could be scaled. */
static guint check_matrix (const guint8 **at, gsize *left)
{
  guint64 size;
  memcpy (&size, take (at, left, 8), 8);
  guint8 *blob = g_aligned_alloc (size, 1, 64), *packed = g_aligned_alloc (size, 1, 64);
  memcpy (blob, take (at, left, size), size);
  xb_error error = NULL;
  xb_matrix *matrix = xb_matrix_open (blob, size, &error);
  g_assert_cmpstr (error, ==, NULL);
  const xb_layout *l = xb_matrix_layout (matrix);
  gsize bands = (l->rows + 15) / 16, padded = (l->cols + 31) / 32 * 32, n_groups = xb_layout_groups (l), supers = (l->cols + 255) / 256;
  const guint8 *codes = take (at, left, bands * 16 * padded);
  g_autofree float *scale = take_floats (at, left, bands * n_groups * 16), *offset = take_floats (at, left, bands * n_groups * 16);
  g_autofree float *super = take_floats (at, left, bands * supers * 16), *super_offset = take_floats (at, left, bands * supers * 16);
  g_autofree float *weights = take_floats (at, left, (gsize) l->rows * l->cols);

  g_assert_cmpuint (xb_layout_bytes (l, NULL), ==, size);
  g_assert_null (xb_matrix_init (packed, size, l));
  for (gsize band = 0; band < bands; band++)
    g_assert_null (xb_pack_band (packed, size, (guint32) band, codes + band * 16 * padded, scale + band * n_groups * 16, offset + band * n_groups * 16,
                                 super + band * supers * 16, super_offset + band * supers * 16));
  g_assert_cmpmem (packed, size, blob, size);

  g_autofree guint8 *unpacked = g_malloc (16 * padded);
  g_autofree float *s = g_new (float, n_groups * 16), *m = g_new (float, n_groups * 16);
  for (gsize band = 0; band < bands; band++) {
    xb_unpack_band (matrix, (guint32) band, unpacked, s, m);
    g_assert_cmpmem (unpacked, 16 * padded, codes + band * 16 * padded, 16 * padded);
  }
  g_autofree float *rows = g_new (float, (gsize) l->rows * l->cols);
  xb_dequantize_rows (matrix, 0, l->rows, rows);
  for (gsize i = 0; i < (gsize) l->rows * l->cols; i++)
    g_assert_cmpfloat (fabsf (rows[i] - weights[i]), <=, 1e-6f * fabsf (weights[i]) + 1e-7f);
  /* One row alone is the row among all. */
  xb_dequantize_rows (matrix, l->rows - 1, l->rows, rows);
  for (gsize c = 0; c < l->cols; c++)
    g_assert_cmpfloat (fabsf (rows[c] - weights[(gsize) (l->rows - 1) * l->cols + c]), <=, 1e-6f * fabsf (weights[(gsize) (l->rows - 1) * l->cols + c]) + 1e-7f);
  guint scaled = check_scaled (packed, size, l, weights);
  xb_matrix_free (matrix);
  g_aligned_free (blob);
  g_aligned_free (packed);
  return scaled;
}

static void test_numpy (void)
{
  g_autofree char *path = g_test_build_filename (G_TEST_DIST, "fixtures", "xbit_matrices.bin", NULL), *data = NULL;
  gsize left = 0;
  g_autoptr (GError) error = NULL;
  g_file_get_contents (path, &data, &left, &error);
  g_assert_no_error (error);
  const guint8 *at = (const guint8 *) data;
  guint count = 0, scaled = 0;
  for (; left; count++)
    scaled += check_matrix (&at, &left);
  g_assert_cmpuint (count, ==, 5);
  g_assert_cmpuint (scaled, >=, 2);
}

/* A scale is stored as the nearest f16, ties to even, overflow to infinity. */
static void test_round_scale (void)
{
  g_assert_cmpfloat (xb_round_scale (1.0f), ==, 1.0f);
  g_assert_cmpfloat (xb_round_scale (1.0f + 0x1p-11f), ==, 1.0f);
  g_assert_cmpfloat (xb_round_scale (1.0f + 0x1.8p-10f), ==, 1.0f + 0x1p-9f);
  g_assert_cmpfloat (xb_round_scale (-0x1.8p-24f), ==, -0x1p-23f);
  g_assert_cmpfloat (xb_round_scale (65504.0f), ==, 65504.0f);
}

int main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/kernels/layout/bytes-are-numpys", test_numpy);
  g_test_add_func ("/kernels/layout/scales-round-to-f16", test_round_scale);
  return g_test_run ();
}
