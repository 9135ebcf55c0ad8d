/* fuzz_xbit.c: any bytes as an X-bit matrix or an input pipeline: refused, or every weight can be read and multiplied. */
#include "kernels/xbit.h"
#include "tests/fuzz/fuzz.h"

#include <string.h>

enum { MAX_COLS = 1 << 16, MAX_ROWS = 256 };

static void use (const xb_matrix *matrix)
{
  const xb_layout *layout = xb_matrix_layout (matrix);
  guint rows = MIN (layout->rows, MAX_ROWS), cols = layout->cols;
  if (cols > MAX_COLS) /* depth-0 cells claim columns for nothing: sound, but too large to try each time */
    return;
  g_autofree float *row = g_new (float, cols), *y = g_new (float, rows);
  for (guint r = 0; r < rows; r++)
    xb_dequantize_rows (matrix, r, r + 1, row);
  for (guint i = 0; i < cols; i++)
    row[i] = (float) (i % 7) - 3;
  void *memory = g_aligned_alloc (xb_acts_bytes (cols, 1), 1, XB_ALIGN);
  xb_acts acts;
  xb_acts_init (&acts, memory, cols, 1);
  xb_acts_quantize (&acts, 0, row, 8);
  xb_matvec (matrix, &acts, y, 0, rows);
  xb_matmul_f32 (matrix, row, cols, 1, y, rows, 0, rows);
  g_aligned_free (memory);
}

static void use_input (const xb_input *input)
{
  guint cols = xb_input_get_layout (input)->cols;
  if (cols > MAX_COLS)
    return;
  g_autofree float *x = g_new0 (float, cols), *out = g_new (float, cols);
  xb_input_apply (input, x, out);
  xb_input_restore_row (input, x, out);
  if (!xb_input_get_layout (input)->permutation)
    xb_input_restore (input, x, 0, cols);
  xb_input_transform_row (input, x, out);
}

int LLVMFuzzerTestOneInput (const guint8 *data, gsize size)
{
  xb_error why = NULL;
  guint8 *copy = g_aligned_alloc (MAX (size, 1), 1, XB_ALIGN); /* of just this size, so that a sanitizer sees a step beyond */
  memcpy (copy, data, size);
  xb_matrix *matrix = xb_matrix_open (copy, size, &why);
  g_assert_true ((matrix == NULL) == (why != NULL));
  if (matrix)
    use (matrix);
  xb_matrix_free (matrix);
  xb_input *input = xb_input_open (copy, size, &why);
  g_assert_true ((input == NULL) == (why != NULL));
  if (input)
    use_input (input);
  xb_input_free (input);
  g_aligned_free (copy);
  return 0;
}

static GByteArray *input_seed (void)
{
  static const uint8_t signs[12] = { 0x5a, 1, 2, 3 };
  uint32_t permutation[96];
  uint16_t diagonal[96];
  for (uint32_t i = 0; i < 96; i++) {
    permutation[i] = i * 5 % 96;
    diagonal[i] = xb_float_to_half (0.5f + (float) i);
  }
  xb_input_layout layout = { .cols = 96, .block = 64, .permutation = permutation, .diagonal = diagonal, .signs = signs };
  gsize size = xb_input_bytes (&layout, NULL);
  guint8 *data = g_malloc0 (size);
  g_assert_cmpstr (xb_input_init (data, size, &layout), ==, NULL);
  return g_byte_array_new_take (data, size);
}

GByteArray *fuzz_seed (guint i)
{
  static const struct {
    guint group;
    xb_scale_kind scale_kind;
    gboolean has_offset;
    xb_cell cell[4];
  } seeds[] = {
    { 32, XB_SCALE_GROUP_F16, FALSE, { { 4, XB_UNIFORM, 15, 0 }, { 3, XB_UNIFORM, 7, 0 }, { 0, XB_UNIFORM, 0, 0 }, { 8, XB_UNIFORM, 255, 0 } } },
    { 32, XB_SCALE_GROUP_F16, TRUE, { { 4, XB_UNIFORM, 0, 0 }, { 4, XB_UNIFORM, 0, 0 }, { 5, XB_UNIFORM, 0, 0 }, { 1, XB_UNIFORM, 0, 0 } } },
    { 16, XB_SCALE_GROUP_I8, FALSE, { { 6, XB_UNIFORM, 64, 0 }, { 6, XB_UNIFORM, 64, 0 }, { 2, XB_UNIFORM, 3, 0 }, { 7, XB_UNIFORM, 127, 0 } } },
    { 64, XB_SCALE_ROW_F16, FALSE, { { 4, XB_TABLE, 0, 0 }, { 3, XB_TABLE, 0, 1 }, { 4, XB_UNIFORM, 16, 0 }, { 2, XB_TABLE, 0, 1 } } },
    { 0, XB_SCALE_ROW_F16, FALSE, { { 3, XB_EXL3, XB_EXL3_MUL1, 0 }, { 8, XB_EXL3, XB_EXL3_3INST, 0 }, { 4, XB_UNIFORM, 16, 0 }, { 1, XB_EXL3, XB_EXL3_MCG, 0 } } },
  };
  static const uint32_t stripe_end[] = { 16, 35 }, panel_end[] = { 64, 300 };
  static const int8_t tables[2][16] = { { -127, -60, -5, 0, 5, 60, 127 }, { -4, -1, 1, 4, -8, 8, 2, 3 } };
  if (i == G_N_ELEMENTS (seeds))
    return input_seed ();
  if (i > G_N_ELEMENTS (seeds))
    return NULL;
  xb_layout layout = { .rows = 35, .cols = 300, .group = seeds[i].group, .scale_kind = seeds[i].scale_kind, .has_offset = (uint8_t) seeds[i].has_offset,
                       .n_stripes = 2, .n_panels = 2, .n_tables = 2, .stripe_end = stripe_end, .panel_end = panel_end, .cells = seeds[i].cell,
                       .tables = tables };
  xb_error why = NULL;
  gsize size = xb_layout_bytes (&layout, &why);
  g_assert_cmpstr (why, ==, NULL);
  guint8 *data = g_malloc0 (size);
  g_assert_cmpstr (xb_matrix_init (data, size, &layout), ==, NULL);
  return g_byte_array_new_take (data, size);
}
