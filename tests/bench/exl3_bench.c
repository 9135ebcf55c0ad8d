/* exl3_bench.c: products of EXL3 cells beside those of the same matrix as F16: CPU time of one thread per weight and vector, the better of several.
 * VALISE_ISA chooses the set. */
#include "kernels/cpu.h"
#include "kernels/xbit.h"

#include <glib.h>
#include <stdio.h>
#include <time.h>

enum { SIDE = 2048, MOST = 64, ROUNDS = 5 };

static const guint vectors[] = { 1, 4, 16, MOST };

typedef struct {
  const guint16 *halves;   /* F16, or NULL: */
  const xb_matrix *matrix;
  const float *x;
  xb_acts acts[G_N_ELEMENTS (vectors)];
  float *y;
} Bench;

static double cpu_seconds (void)
{
  struct timespec t;
  clock_gettime (CLOCK_THREAD_CPUTIME_ID, &t);
  return (double) t.tv_sec + (double) t.tv_nsec * 1e-9;
}

static void print_row (const char *name, const Bench *b)
{
  printf ("%-16s", name);
  for (guint k = 0; k < G_N_ELEMENTS (vectors); k++) {
    double best = 1e9;
    for (guint round = 0; round < ROUNDS; round++) {
      double begin = cpu_seconds ();
      if (b->halves)
        xb_raw_matmul (XB_RAW_F16, b->halves, SIDE, b->x, SIDE, vectors[k], b->y, SIDE, 0, SIDE);
      else
        xb_matmul (b->matrix, &b->acts[k], b->y, SIDE, 0, SIDE);
      best = MIN (best, cpu_seconds () - begin);
    }
    printf (" %10.1f", best * 1e12 / SIDE / SIDE / vectors[k]);
  }
  printf ("\n");
}

static void bench_cells (Bench *b, guint depth, xb_exl3_function function)
{
  static const char *const names[] = { "3inst", "mcg", "mul1" };
  const guint32 side = SIDE;
  const xb_cell cell = { .depth = (guint8) depth, .codebook = XB_EXL3, .z2 = (guint16) function };
  const xb_layout layout = { .rows = SIDE, .cols = SIDE, .scale_kind = XB_SCALE_ROW_F16, .n_stripes = 1, .n_panels = 1, .stripe_end = &side, .panel_end = &side,
                             .cells = &cell };
  gsize size = xb_layout_bytes (&layout, NULL);
  guint8 *blob = g_aligned_alloc (size, 1, XB_ALIGN), codes[XB_TILE_ROWS * SIDE];
  float ones[XB_TILE_ROWS];
  xb_matrix_init (blob, size, &layout);
  for (guint i = 0; i < XB_TILE_ROWS; i++)
    ones[i] = 1;
  for (guint band = 0; band < SIDE / XB_TILE_ROWS; band++) {
    for (guint i = 0; i < XB_TILE_ROWS * SIDE; i++)
      codes[i] = (guint8) ((i + band) * 2654435761u >> (32 - depth));
    xb_pack_band (blob, size, band, codes, ones, NULL, NULL, NULL);
  }
  xb_matrix *matrix = xb_matrix_open (blob, size, NULL);
  g_autofree char *name = g_strdup_printf ("%u bits %s", depth, names[function]);
  b->matrix = matrix;
  print_row (name, b);
  xb_matrix_free (matrix);
  g_aligned_free (blob);
}

int main (void)
{
  const char *wrong = xb_cpu_init ();
  if (wrong) {
    fprintf (stderr, "exl3_bench: %s\n", wrong);
    return 1;
  }
  g_autofree float *x = g_new (float, MOST * SIDE), *y = g_new (float, MOST * SIDE);
  g_autofree guint16 *halves = g_new (guint16, SIDE * SIDE);
  Bench b = { .halves = halves, .x = x, .y = y };
  for (guint i = 0; i < SIDE * SIDE; i++)
    halves[i] = (guint16) (0x3000 | (i * 2654435761u >> 22));
  for (guint i = 0; i < MOST * SIDE; i++)
    x[i] = (float) (i % 13) - 6;
  for (guint k = 0; k < G_N_ELEMENTS (vectors); k++) {
    xb_acts_init (&b.acts[k], g_aligned_alloc (xb_acts_bytes (SIDE, vectors[k]), 1, XB_ALIGN), SIDE, vectors[k]);
    for (guint i = 0; i < vectors[k]; i++)
      xb_acts_quantize (&b.acts[k], i, x + i * SIDE, 8);
  }
  printf ("%s: ps per weight and vector with 1, 4, 16 and 64 vectors\n", xb_isa_name (xb_cpu_selected ()));
  print_row ("F16", &b);
  b.halves = NULL;
  for (guint depth = 1; depth <= XB_MAX_DEPTH; depth++)
    for (guint function = 0; function < XB_N_EXL3_FUNCTIONS; function++)
      bench_cells (&b, depth, (xb_exl3_function) function);
  for (guint k = 0; k < G_N_ELEMENTS (vectors); k++)
    g_aligned_free (b.acts[k].q);
  return 0;
}
