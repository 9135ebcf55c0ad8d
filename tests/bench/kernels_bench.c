/* kernels_bench.c: GB/s of each depth's product with one vector beside this machine's read bandwidth, GMAC/s with many vectors, GFLOP/s of the
 * dense product; one thread. kernels_bench [ROWS COLS GROUP] ; VALISE_ISA chooses the instruction set. */
#include <glib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cpu.h"
#include "kernels/dense.h"
#include "kernels/xbit.h"

enum { ROUNDS = 7 };

typedef void (*Work) (gpointer data);

/* Best of several, seconds. */
static double best_time (Work work, gpointer data)
{
  double best = 1e9;
  for (int i = 0; i < ROUNDS; i++) {
    gint64 begin = g_get_monotonic_time ();
    work (data);
    best = MIN (best, (double) (g_get_monotonic_time () - begin) * 1e-6);
  }
  return best;
}

typedef struct {
  const guint64 *words;
  gsize n;
  guint64 sum;
} Read;

static void read_words (gpointer data)
{
  Read *r = data;
  guint64 sum[8] = { 0 };
  for (gsize i = 0; i + 8 <= r->n; i += 8)
    for (int j = 0; j < 8; j++)
      sum[j] += r->words[i + (gsize) j];
  for (int j = 0; j < 8; j++)
    r->sum += sum[j];
}

typedef struct {
  xb_matrix **matrices;
  guint n_matrices, rows;
  xb_acts acts;
  float *y;
} Product;

static void multiply (gpointer data)
{
  Product *p = data;
  for (guint i = 0; i < p->n_matrices; i++)
    xb_matmul (p->matrices[i], &p->acts, p->y, p->rows, 0, p->rows);
}

static void bench_depth (int depth, xb_codebook codebook, guint rows, guint cols, guint group, double bandwidth)
{
  guint32 stripe_end = rows, panel_end = cols;
  gint8 tables[1][16] = { { -128, -90, -70, -50, -35, -20, -10, -3, 3, 10, 20, 35, 50, 70, 90, 127 } };
  xb_cell cell = { .depth = (guint8) depth, .codebook = (guint8) codebook, .z2 = (guint16) (codebook == XB_TABLE ? 0 : (1 << depth) - 1) };
  xb_layout layout = { .rows = rows, .cols = cols, .group = group, .scale_kind = XB_SCALE_GROUP_F16, .n_stripes = 1, .n_panels = 1, .n_tables = 1,
                       .stripe_end = &stripe_end, .panel_end = &panel_end, .cells = &cell, .tables = (const gint8 (*)[16]) tables };
  gsize size = xb_layout_bytes (&layout, NULL);
  guint n = (guint) MAX (1, (256 << 20) / size);
  guint8 *blobs = g_aligned_alloc (n, size, 64);
  g_autofree xb_matrix **matrices = g_new (xb_matrix *, n);
  for (guint i = 0; i < n; i++) {
    guint8 *blob = blobs + i * size;
    xb_matrix_init (blob, size, &layout);
    gsize bands = (gsize) ((rows + 15) / 16) * (size / ((rows + 15) / 16) / 64 * 64);
    for (gsize j = size - bands; j < size; j++)
      blob[j] = (guint8) (j * 2654435761u >> 24) & 0x3f; /* any codes; scales stay small */
    matrices[i] = xb_matrix_open (blob, size, NULL);
  }
  double time[2];
  for (int many = 0; many < 2; many++) {
    guint vectors = many ? 256 : 1;
    Product p = { .matrices = matrices, .n_matrices = many ? 1 : n, .rows = rows };
    guint8 *memory = g_aligned_alloc (xb_acts_bytes (cols, vectors), 1, 64);
    g_autofree float *x = g_new (float, cols);
    p.y = g_new (float, (gsize) rows * vectors);
    xb_acts_init (&p.acts, memory, cols, vectors);
    for (guint c = 0; c < cols; c++)
      x[c] = (float) (c % 13) - 6;
    for (guint i = 0; i < vectors; i++)
      xb_acts_quantize (&p.acts, i, x, 8);
    time[many] = best_time (multiply, &p);
    g_free (p.y);
    g_aligned_free (memory);
  }
  double rate = (double) size * n / time[0] * 1e-9;
  printf ("%-8s %d bits   %6.2f GB/s, %3.0f%% of read, %6.3f ns per 1000 weights   %7.1f GMAC/s with 256 vectors\n", codebook == XB_TABLE ? "table" : "uniform",
          depth, rate, 100 * rate / bandwidth, time[0] / n / rows / cols * 1e12, (double) rows * cols * 256 / time[1] * 1e-9);
  for (guint i = 0; i < n; i++)
    xb_matrix_free (matrices[i]);
  g_aligned_free (blobs);
}

typedef struct {
  gboolean ta, tb;
  guint m, n, k;
  float *a, *b, *c;
} Dense;

static void dense (gpointer data)
{
  Dense *d = data;
  xb_gemm (d->ta, d->tb, 0, d->m, d->n, d->k, d->a, d->ta ? d->m : d->k, d->b, d->tb ? d->k : d->n, 0, d->c, d->n);
}

static void bench_dense (guint m, guint n, guint k)
{
  Dense d = { .m = m, .n = n, .k = k, .a = g_new0 (float, (gsize) m * k), .b = g_new0 (float, (gsize) n * k), .c = g_new0 (float, (gsize) m * n) };
  for (int t = 0; t < 4; t++) {
    d.ta = t & 1;
    d.tb = t >> 1;
    printf ("gemm %u x %u x %u %s%s   %6.1f GFLOP/s\n", m, n, k, d.ta ? "T" : "N", d.tb ? "T" : "N", 2.0 * m * n * k / best_time (dense, &d) * 1e-9);
  }
  g_free (d.a);
  g_free (d.b);
  g_free (d.c);
}

int main (int argc, char **argv)
{
  guint rows = argc > 1 ? (guint) atoi (argv[1]) : 4096, cols = argc > 2 ? (guint) atoi (argv[2]) : 4096, group = argc > 3 ? (guint) atoi (argv[3]) : 64;
  const char *wrong = xb_cpu_init ();
  if (wrong) {
    fprintf (stderr, "kernels_bench: %s\n", wrong);
    return 1;
  }
  Read r = { .n = (512 << 20) / 8 };
  guint64 *words = g_new (guint64, r.n);
  memset (words, 1, r.n * 8);
  r.words = words;
  double bandwidth = (double) r.n * 8 / best_time (read_words, &r) * 1e-9;
  g_free (words);
  printf ("%s, %s, one thread, read %.1f GB/s; matrices of %u x %u, groups of %u\n", xb_cpu_model (), xb_isa_name (xb_cpu_selected ()), bandwidth, rows, cols, group);
  for (int depth = 1; depth <= 8; depth++)
    bench_depth (depth, XB_UNIFORM, rows, cols, group, bandwidth);
  for (int depth = 1; depth <= 4; depth++)
    bench_depth (depth, XB_TABLE, rows, cols, group, bandwidth);
  bench_dense (512, 576, 1536);
  bench_dense (1536, 1536, 4096);
  return r.sum == 0;
}
