/* test_allocate.c: the allocator against exhaustive search, and its promises over a sweep of budgets. */
#include "quantizer/allocate.h"
#include "quantizer/transform.h"

#include <math.h>

static void random_cells (QzCell *cells, guint n, guint64 seed, gboolean convex)
{
  for (guint c = 0; c < n; c++) {
    cells[c].unit_bytes = 64 * (1 + qz_random_next (&seed) % 5);
    double loss = exp (6 * qz_random_unit (&seed));
    for (guint d = 0; d <= QZ_MOST_DEPTH; d++) {
      cells[c].loss[d] = loss;
      loss *= convex ? 0.25 : 0.1 + 0.89 * qz_random_unit (&seed);
    }
  }
}

/* Least loss within `bytes`, by trying every combination. */
static double brute_force (const QzCell *cells, guint n, gint64 bytes)
{
  if (bytes < 0)
    return INFINITY;
  if (n == 0)
    return 0;
  double best = INFINITY;
  for (guint d = QZ_LEAST_DEPTH; d <= QZ_MOST_DEPTH; d++)
    best = MIN (best, cells[0].loss[d] + brute_force (cells + 1, n - 1, bytes - (gint64) d * cells[0].unit_bytes));
  return best;
}

/* Where the budget is that of a whole number of steps, nothing better exists; in between, at most one step is missing. */
static void test_brute_force (void)
{
  for (guint seed = 1; seed <= 20; seed++) {
    QzCell cells[4];
    QzAllocator a;
    guint8 depths[4];
    random_cells (cells, 4, seed, seed % 2);
    qz_allocator_init (&a, cells, 4);
    for (guint i = 0; i <= a.n_steps; i += 3) {
      double loss, best = brute_force (cells, 4, a.bytes_before[i]);
      guint64 used = qz_allocate (&a, a.bytes_before[i], depths, &loss);
      g_assert_cmpuint (used, ==, a.bytes_before[i]);
      g_assert_cmpfloat (fabs (loss - best), <=, 1e-5 * best);
    }
    for (guint64 bytes = qz_allocator_min_bytes (&a); bytes < qz_allocator_max_bytes (&a); bytes += 777) {
      double loss, best = brute_force (cells, 4, bytes);
      guint i = qz_allocator_steps_for (&a, bytes);
      qz_allocate (&a, bytes, depths, &loss);
      g_assert_cmpfloat (loss, >=, best * (1 - 1e-5));
      g_assert_cmpfloat (loss, <=, a.loss_before[i] * (1 + 1e-6));
    }
    qz_allocator_clear (&a);
  }
}

static void test_budget (void)
{
  enum { N = 500 };
  g_autofree QzCell *cells = g_new0 (QzCell, N);
  g_autofree guint8 *depths = g_malloc (N);
  QzAllocator a;
  double before = INFINITY;
  random_cells (cells, N, 42, FALSE);
  qz_allocator_init (&a, cells, N);
  guint64 least = qz_allocator_min_bytes (&a), most = qz_allocator_max_bytes (&a);
  for (guint64 bytes = least; bytes <= most + 5000; bytes += 1009) {
    double loss, sum = 0;
    guint64 used = qz_allocate (&a, bytes, depths, &loss), counted = 0;
    for (guint c = 0; c < N; c++) {
      g_assert_cmpuint (depths[c], >=, QZ_LEAST_DEPTH);
      g_assert_cmpuint (depths[c], <=, QZ_MOST_DEPTH);
      counted += (guint64) depths[c] * cells[c].unit_bytes;
      sum += cells[c].loss[depths[c]];
    }
    g_assert_cmpuint (used, ==, counted);
    g_assert_cmpuint (used, <=, bytes);
    /* Hulls may step over several depths, so that a little is left; never more than the largest step. */
    g_assert_cmpuint (MIN (bytes, most) - used, <=, 320 * 8);
    g_assert_cmpfloat (fabs (sum - loss), <=, 1e-4 * sum);
    g_assert_cmpfloat (a.loss_before[qz_allocator_steps_for (&a, bytes)], <=, before);
    before = a.loss_before[qz_allocator_steps_for (&a, bytes)];
  }
  qz_allocator_clear (&a);
}

/* A cell that holds only zeros takes nothing, however large the budget. */
static void test_zeros (void)
{
  QzCell cells[2] = { { .unit_bytes = 64 }, { .unit_bytes = 64, .loss = { 9, 4, 2, 1, .5, .25, .12, .06, .03 } } };
  QzAllocator a;
  guint8 depths[2];
  qz_allocator_init (&a, cells, 2);
  g_assert_cmpuint (qz_allocate (&a, 1 << 20, depths, NULL), ==, 8 * 64);
  g_assert_cmpuint (depths[0], ==, 0);
  g_assert_cmpuint (depths[1], ==, 8);
  qz_allocator_clear (&a);
}

int main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/allocate/equals-exhaustive-search", test_brute_force);
  g_test_add_func ("/allocate/never-exceeds-budget", test_budget);
  g_test_add_func ("/allocate/zeros-take-nothing", test_zeros);
  return g_test_run ();
}
