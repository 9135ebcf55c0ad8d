/* rounding.c: second-order cost of rounded activations, token by token. */
#include "quantizer/rounding.h"

#include "quantizer/product.h"
#include "quantizer/rotation.h"

#include <math.h>
#include <string.h>

enum { GROUP = 32, MOST_CODE = 7, ROWS_PER_UNIT = 16 };

static const double share = 1.0 / (2 * 12 * MOST_CODE * MOST_CODE);

typedef struct {
  guint n, cols;
  const float *x, *g;       /* turned */
  float *d_x, *d_g;         /* derivatives of the cost */
  double *cost;             /* [n] */
} Rows;

static double group_cost (guint size, const float *x, const float *g, float *d_x, float *d_g)
{
  guint largest = 0;
  double sum = 0;
  for (guint j = 0; j < size; j++) {
    sum += g[j] * g[j];
    largest = fabsf (x[j]) > fabsf (x[largest]) ? j : largest;
  }
  double square = x[largest] * x[largest];
  memset (d_x, 0, sizeof (float) * size);
  d_x[largest] = 2 * share * x[largest] * sum;
  for (guint j = 0; j < size; j++)
    d_g[j] = 2 * share * square * g[j];
  return share * square * sum;
}

static void cost_work (gpointer data, guint begin, guint end, guint worker)
{
  const Rows *r = data;
  for (guint i = begin * ROWS_PER_UNIT; i < MIN (end * ROWS_PER_UNIT, r->n); i++) {
    r->cost[i] = 0;
    for (guint at = 0; at < r->cols; at += GROUP) {
      gsize from = (gsize) i * r->cols + at;
      r->cost[i] += group_cost (MIN (GROUP, r->cols - at), r->x + from, r->g + from, r->d_x + from, r->d_g + from);
    }
  }
}

double qz_rounding_cost (EngWorkers *workers, guint n, guint cols, guint axes, const float *r, float *x, float *g, float *scratch, float *slope)
{
  guint stretches = n * (cols / axes);
  float *turned_x = scratch, *turned_g = scratch + (gsize) n * cols;
  g_autofree double *cost = g_new (double, n);
  double sum = 0;
  qz_rotate_rows (workers, FALSE, stretches, axes, x, r, turned_x);
  qz_rotate_rows (workers, FALSE, stretches, axes, g, r, turned_g);
  Rows rows = { n, cols, turned_x, turned_g, x, g, cost };
  eng_workers_run (workers, cost_work, &rows, (n + ROWS_PER_UNIT - 1) / ROWS_PER_UNIT, 1);
  qz_product (workers, true, false, axes, axes, stretches, turned_x, axes, x, axes, 1, slope, axes);
  qz_product (workers, true, false, axes, axes, stretches, turned_g, axes, g, axes, 1, slope, axes);
  for (guint i = 0; i < n; i++)
    sum += cost[i];
  return sum;
}
