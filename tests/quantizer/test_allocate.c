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

/* The same where each whole may stand for its cells. */
static double brute_force_wholes (const QzCell *cells, guint n, const QzWhole *wholes, guint n_wholes, gint64 bytes)
{
  if (n_wholes == 0)
    return brute_force (cells, n, bytes);
  const QzWhole *last = &wholes[n_wholes - 1];
  guint after = last->first_cell + last->n_cells, first = after < n ? after : last->first_cell;
  gboolean is_whole = first == last->first_cell;
  double best = INFINITY;
  for (gint64 part = 0; part <= bytes; part += 64)
    best = MIN (best, brute_force (cells + first, n - first, part) + brute_force_wholes (cells, first, wholes, n_wholes - is_whole, bytes - part));
  return is_whole ? MIN (best, last->loss + brute_force_wholes (cells, first, wholes, n_wholes - 1, bytes - (gint64) last->bytes)) : best;
}

/* Where the budget is that of a whole number of steps, nothing better exists; in between, at most one step is missing. */
static void test_brute_force (void)
{
  for (guint seed = 1; seed <= 20; seed++) {
    QzCell cells[4];
    QzAllocator a;
    guint8 depths[4];
    random_cells (cells, 4, seed, seed % 2);
    qz_allocator_init (&a, cells, 4, NULL, 0);
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
  qz_allocator_init (&a, cells, N, NULL, 0);
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
  qz_allocator_init (&a, cells, 2, NULL, 0);
  g_assert_cmpuint (qz_allocate (&a, 1 << 20, depths, NULL), ==, 8 * 64);
  g_assert_cmpuint (depths[0], ==, 0);
  g_assert_cmpuint (depths[1], ==, 8);
  qz_allocator_clear (&a);
}

/* With wholes of every size, those no larger than the least of their cells and those larger than the most among them: nothing better exists at the steps. */
static void test_wholes (void)
{
  enum { N = 4 };
  for (guint64 seed = 1; seed <= 40; seed++) {
    QzCell cells[N];
    QzAllocator a;
    guint8 depths[N];
    guint64 random = seed, most = 0;
    random_cells (cells, N, seed, seed % 2);
    for (guint c = 0; c < N; c++)
      most += 8 * cells[c].unit_bytes;
    QzWhole wholes[2] = { { 0, 1 + seed % 2, 0, 0 }, { 2, 2, 0, 0 } };
    for (guint w = 0; w < 2; w++) {
      wholes[w].bytes = 64 * (1 + qz_random_next (&random) % (most / 64));
      for (guint c = wholes[w].first_cell; seed % 3 > 0 && c < wholes[w].first_cell + wholes[w].n_cells; c++)
        wholes[w].loss += qz_random_unit (&random) * cells[c].loss[QZ_MOST_DEPTH];
    }
    qz_allocator_init (&a, cells, N, wholes + seed / 2 % 2, 2 - seed / 2 % 2);
    g_assert_cmpuint (qz_allocator_min_bytes (&a), ==, a.bytes_before[0]);
    for (guint i = 0; i <= a.n_steps; i++) {
      double loss, best = brute_force_wholes (cells, N, a.wholes, a.n_wholes, a.bytes_before[i]), sum = 0;
      guint64 counted = 0;
      g_assert_cmpuint (qz_allocate (&a, a.bytes_before[i], depths, &loss), ==, a.bytes_before[i]);
      g_assert_cmpfloat (fabs (loss - best), <=, 1e-5 * (best + a.loss_before[0]));
      for (guint c = 0; c < N; c++)
        if (depths[c] != QZ_IN_WHOLE) {
          counted += (guint64) depths[c] * cells[c].unit_bytes;
          sum += cells[c].loss[depths[c]];
        }
      for (guint w = 0; w < a.n_wholes; w++)
        if (depths[a.wholes[w].first_cell] == QZ_IN_WHOLE) {
          counted += a.wholes[w].bytes;
          sum += a.wholes[w].loss;
        }
      g_assert_cmpuint (counted, ==, a.bytes_before[i]);
      g_assert_cmpfloat (fabs (sum - loss), <=, 1e-5 * (sum + a.loss_before[0]));
      g_assert_true (i == 0 || (a.bytes_before[i] >= a.bytes_before[i - 1] && a.loss_before[i] <= a.loss_before[i - 1]));
    }
    for (guint64 bytes = qz_allocator_min_bytes (&a); bytes < qz_allocator_max_bytes (&a) + 999; bytes += 777) {
      double loss;
      guint64 used = qz_allocate (&a, bytes, depths, &loss);
      g_assert_cmpuint (used, <=, bytes);
      g_assert_cmpfloat (loss, <=, a.loss_before[qz_allocator_steps_for (&a, bytes)] * (1 + 1e-6));
      g_assert_true (bytes < qz_allocator_max_bytes (&a) || used == qz_allocator_max_bytes (&a));
    }
    qz_allocator_clear (&a);
  }
}

int main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/allocate/equals-exhaustive-search", test_brute_force);
  g_test_add_func ("/allocate/never-exceeds-budget", test_budget);
  g_test_add_func ("/allocate/wholes-where-they-save-most", test_wholes);
  g_test_add_func ("/allocate/zeros-take-nothing", test_zeros);
  return g_test_run ();
}
