/* kernels_bench.c: every product on every instruction set of this CPU, all threads: GB/s with one vector beside the machine's read bandwidth, the
 * time of 2, 4 and 8 against it, GMAC/s with many, against the scalar reference; GFLOP/s of the dense product on one thread.
 * kernels_bench [ROWS COLS GROUP THREADS [NAME]], NAME being part of the names of those to be measured; VALISE_ISA leaves one set. */
#include <glib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/workers.h"
#include "kernels/cpu.h"
#include "kernels/dense.h"
#include "kernels/xbit.h"

enum { ROUNDS = 7 };

typedef void (*Work) (gpointer data);

/* Seconds, and the best of several. */
static double time_of (Work work, gpointer data)
{
  gint64 begin = g_get_monotonic_time ();
  work (data);
  return (double) (g_get_monotonic_time () - begin) * 1e-6;
}

static double best_time (Work work, gpointer data)
{
  double best = 1e9;
  for (int i = 0; i < ROUNDS; i++)
    best = MIN (best, time_of (work, data));
  return best;
}

/* All threads begin together, each on its share; the pool is started before the time is taken. */
typedef struct {
  const guint64 *words;
  gsize n;
  guint64 sum;
} Read;

static void read_share (gpointer data, guint begin, guint end, guint worker)
{
  Read *r = data;
  guint64 sum[8] = { 0 };
  for (gsize i = r->n / 256 * begin; i + 8 <= r->n / 256 * end; i += 8)
    for (int j = 0; j < 8; j++)
      sum[j] += r->words[i + (gsize) j];
  for (int j = 0; j < 8; j++)
    __atomic_fetch_add (&r->sum, sum[j], __ATOMIC_RELAXED);
}

static EngWorkers *workers;

static void read_words (gpointer data)
{
  eng_workers_run (workers, read_share, data, 256, 1);
}

static double read_bandwidth (void)
{
  Read r = { .n = (256 << 20) / 8 };
  guint64 *words = g_new (guint64, r.n);
  memset (words, 1, r.n * 8);
  r.words = words;
  double rate = (double) r.n * 8 / best_time (read_words, &r) * 1e-9;
  g_free (words);
  return r.sum ? rate : 0;
}

typedef struct {
  xb_matrix **matrices;
  guint n_matrices, rows;
  xb_acts acts;
  float *y;
} Product;

static void multiply_share (gpointer data, guint begin, guint end, guint worker)
{
  Product *p = data;
  guint bands = (p->rows + 15) / 16;
  while (begin < end) {
    guint matrix = begin / bands, last = MIN (end, (matrix + 1) * bands);
    xb_matmul (p->matrices[matrix], &p->acts, p->y, p->rows, begin % bands * 16, MIN (p->rows, (last - matrix * bands) * 16));
    begin = last;
  }
}

static void multiply (gpointer data)
{
  Product *p = data;
  eng_workers_run (workers, multiply_share, p, p->n_matrices * ((p->rows + 15) / 16), 8);
}

typedef struct {
  const char *name;
  int codebook, depth, dim, index_bits, sign_bits, function;
} Function;

static const Function functions[] = {
  { "1 bit", XB_UNIFORM, 1 }, { "2 bits", XB_UNIFORM, 2 }, { "3 bits", XB_UNIFORM, 3 }, { "4 bits", XB_UNIFORM, 4 }, { "5 bits", XB_UNIFORM, 5 },
  { "6 bits", XB_UNIFORM, 6 }, { "7 bits", XB_UNIFORM, 7 }, { "8 bits", XB_UNIFORM, 8 }, { "table of 2", XB_TABLE, 1 }, { "table of 4", XB_TABLE, 2 },
  { "table of 8", XB_TABLE, 3 }, { "table of 16", XB_TABLE, 4 }, { "trellis 1", XB_TRELLIS, 1 }, { "trellis 2", XB_TRELLIS, 2 }, { "trellis 3", XB_TRELLIS, 3 },
  { "trellis 4", XB_TRELLIS, 4 }, { "trellis 5", XB_TRELLIS, 5 }, { "trellis 6", XB_TRELLIS, 6 }, { "trellis16 2", XB_TRELLIS16, 2 }, { "trellis16 3", XB_TRELLIS16, 3 },
  { "trellis16 4", XB_TRELLIS16, 4 }, { "trellis16 5", XB_TRELLIS16, 5 }, { "grid 8 x 256", XB_GRID, 2, 8, 8, 7 }, { "grid 4 x 512", XB_GRID, 4, 4, 9, 8 },
  { "exl3 1", XB_EXL3, 1 }, { "exl3 2", XB_EXL3, 2 }, { "exl3 3", XB_EXL3, 3 }, { "exl3 4", XB_EXL3, 4 }, { "exl3 5", XB_EXL3, 5 }, { "exl3 6", XB_EXL3, 6 },
  { "exl3 7", XB_EXL3, 7 }, { "exl3 8", XB_EXL3, 8 }, { "exl3 4 mcg", XB_EXL3, 4, .function = XB_EXL3_MCG }, { "exl3 4 mul1", XB_EXL3, 4, .function = XB_EXL3_MUL1 },
};

typedef struct {
  double weights, bytes; /* of all matrices */
  double few[4], many;   /* seconds for all of them with 1, 2, 4 and 8 vectors, and for the first with MANY */
} Result;

enum { MANY = 128 };
static const guint vectors_of[] = { 1, 2, 4, 8, MANY };

static Result bench_function (const Function *f, guint rows, guint cols, guint group, gsize total)
{
  guint32 stripe_end = rows, panel_end = cols;
  gint8 tables[3][16] = { { -128, -90, -70, -50, -35, -20, -10, -3, 3, 10, 20, 35, 50, 70, 90, 127 } };
  g_autofree gint8 *values = g_new0 (gint8, 8 << 12);
  xb_grid grid = { .dim = (guint8) f->dim, .index_bits = (guint8) f->index_bits, .sign_bits = (guint8) f->sign_bits };
  xb_cell cell = { .depth = (guint8) f->depth, .codebook = (guint8) f->codebook, .z2 = (guint16) (f->codebook == XB_UNIFORM ? (1 << f->depth) - 1 : f->function) };
  xb_layout layout = { .rows = rows, .cols = cols, .group = group, .scale_kind = f->codebook == XB_EXL3 ? XB_SCALE_ROW_F16 : XB_SCALE_GROUP_F16, .n_stripes = 1, .n_panels = 1, .n_tables = 3,
                       .stripe_end = &stripe_end, .panel_end = &panel_end, .cells = &cell, .tables = (const gint8 (*)[16]) tables,
                       .n_grids = f->codebook == XB_GRID, .grid_bytes = f->codebook == XB_GRID ? 8 << 12 : 0, .grids = &grid, .grid_values = values };
  gsize size = xb_layout_bytes (&layout, NULL);
  guint n = (guint) MAX (1, total / size);
  guint8 *blobs = g_aligned_alloc (n, size, 64);
  g_autofree xb_matrix **matrices = g_new (xb_matrix *, n);
  for (guint i = 0; i < n; i++) {
    guint8 *blob = blobs + i * size;
    xb_matrix_init (blob, size, &layout);
    for (gsize j = xb_layout_directory_bytes (&layout); j < size; j++)
      blob[j] = (guint8) (j * 2654435761u >> 24) & 0x3f; /* any codes; scales stay small */
    matrices[i] = xb_matrix_open (blob, size, NULL);
  }
  Product p[G_N_ELEMENTS (vectors_of)];
  double time[G_N_ELEMENTS (vectors_of)];
  g_autofree float *x = g_new (float, cols);
  for (guint c = 0; c < cols; c++)
    x[c] = (float) (c % 13) - 6;
  for (guint k = 0; k < G_N_ELEMENTS (vectors_of); k++) {
    guint vectors = vectors_of[k];
    p[k] = (Product) { .matrices = matrices, .n_matrices = vectors == MANY ? 1 : n, .rows = rows, .y = g_new (float, (gsize) rows * vectors) };
    xb_acts_init (&p[k].acts, g_aligned_alloc (xb_acts_bytes (cols, vectors), 1, 64), cols, vectors);
    for (guint i = 0; i < vectors; i++)
      xb_acts_quantize (&p[k].acts, i, x, 8);
    time[k] = 1e9;
  }
  for (int round = 0; round < ROUNDS; round++) /* in turn, so that what else the machine does falls on all of them */
    for (guint k = 0; k < G_N_ELEMENTS (vectors_of); k++)
      time[k] = MIN (time[k], time_of (multiply, &p[k]));
  for (guint k = 0; k < G_N_ELEMENTS (vectors_of); k++) {
    g_aligned_free (p[k].acts.q);
    g_free (p[k].y);
  }
  for (guint i = 0; i < n; i++)
    xb_matrix_free (matrices[i]);
  g_aligned_free (blobs);
  return (Result) { (double) rows * cols * n, (double) size * n, { time[0], time[1], time[2], time[3] }, time[4] };
}

static void bench_set (xb_isa isa, guint rows, guint cols, guint group, const char *name, Result *scalar)
{
  if (!xb_cpu_select (isa)) {
    printf ("\n%s: %s\n", xb_isa_name (isa), xb_isa_built (isa) ? "not on this CPU" : "not in this build");
    return;
  }
  printf ("\n%-12s %10s %9s %14s %10s %22s %10s %10s\n", xb_isa_name (isa), "one: GB/s", "of read", "ps per weight", "x scalar", "2, 4, 8 vectors: x one",
          "GMAC/s", "x scalar");
  for (guint i = 0; i < G_N_ELEMENTS (functions); i++) {
    gboolean is_scalar = isa == XB_ISA_SCALAR;
    if (!strstr (functions[i].name, name))
      continue;
    double bandwidth = is_scalar ? 0 : read_bandwidth (); /* beside each function: other programs take their share of the memory */
    Result r = bench_function (&functions[i], is_scalar ? 64 : rows, cols, group, is_scalar ? 0 : 192 << 20);
    if (is_scalar)
      scalar[i] = r;
    double one = r.few[0] / r.weights, many = (is_scalar ? r.weights : (double) rows * cols) * MANY / r.many;
    double scalar_one = scalar[i].few[0] / scalar[i].weights, scalar_many = scalar[i].weights * MANY / scalar[i].many;
    char share[16] = "-";
    if (!is_scalar)
      g_snprintf (share, sizeof share, "%.0f%%", 100 * r.bytes / r.few[0] * 1e-9 / bandwidth);
    printf ("%-12s %10.2f %9s %14.2f %10.1f %8.2f %6.2f %6.2f %10.1f %10.1f\n", functions[i].name, r.bytes / r.few[0] * 1e-9, share, one * 1e12, scalar_one / one,
            r.few[1] / r.few[0], r.few[2] / r.few[0], r.few[3] / r.few[0], many * 1e-9, many / scalar_many);
  }
}

typedef struct {
  gboolean ta, tb, rounded;
  guint m, n, k;
  float *a, *b, *c;
} Dense;

static void dense (gpointer data)
{
  Dense *d = data;
  (d->rounded ? xb_gemm_bf16 : xb_gemm) (d->ta, d->tb, 0, d->m, d->n, d->k, d->a, d->ta ? d->m : d->k, d->b, d->tb ? d->k : d->n, 0, d->c, d->n);
}

static void bench_dense (guint m, guint n, guint k)
{
  Dense d = { .m = m, .n = n, .k = k, .a = g_new0 (float, (gsize) m * k), .b = g_new0 (float, (gsize) n * k), .c = g_new0 (float, (gsize) m * n) };
  for (int t = 0; t < 8; t++) {
    d.ta = t & 1;
    d.tb = t >> 1 & 1;
    d.rounded = t >> 2;
    printf ("gemm %u x %u x %u %s%s%s   %6.1f GFLOP/s\n", m, n, k, d.ta ? "T" : "N", d.tb ? "T" : "N", d.rounded ? " bf16" : "     ",
            2.0 * m * n * k / best_time (dense, &d) * 1e-9);
  }
  g_free (d.a);
  g_free (d.b);
  g_free (d.c);
}

int main (int argc, char **argv)
{
  guint rows = argc > 1 ? (guint) atoi (argv[1]) : 4096, cols = argc > 2 ? (guint) atoi (argv[2]) : 4096, group = argc > 3 ? (guint) atoi (argv[3]) : 64;
  const char *wrong = xb_cpu_init (), *forced = g_getenv ("VALISE_ISA");
  if (wrong) {
    fprintf (stderr, "kernels_bench: %s\n", wrong);
    return 1;
  }
  xb_isa chosen = xb_cpu_selected ();
  workers = eng_workers_new (argc > 4 ? (guint) atoi (argv[4]) : 0);
  printf ("%s, %u threads, read %.1f GB/s; matrices of %u x %u, groups of %u, %u vectors in the products with many\n", xb_cpu_model (), eng_workers_count (workers),
          read_bandwidth (), rows, cols, group, MANY);
  Result scalar[G_N_ELEMENTS (functions)];
  for (int isa = 0; isa < XB_N_ISAS; isa++)
    if (isa == XB_ISA_SCALAR || forced == NULL || *forced == 0 || isa == (int) chosen)
      bench_set ((xb_isa) isa, rows, cols, group, argc > 5 ? argv[5] : "", scalar);
  xb_cpu_select (chosen);
  if (argc > 5)
    return 0;
  printf ("\n");
  bench_dense (512, 576, 1536);
  bench_dense (1536, 1536, 4096);
  eng_workers_free (workers);
  return 0;
}
