/* rotation.c: a step is r C with C = (1 - a / 2)^-1 (1 + a / 2), a skew, by fixed-point iteration; what rounding leaves is taken away by one step of Newton's
 * towards the nearest orthogonal matrix. */
#include "quantizer/rotation.h"

#include "kernels/ops.h"
#include "quantizer/product.h"
#include "quantizer/transform.h"

#include <math.h>
#include <string.h>

enum { MOST_ITERATIONS = 24, AXES_GROUP = 64 };

static const double decay_mean = 0.9, decay_square = 0.95;
static const double longest = 0.8;    /* Frobenius norm of a / 2, which is at least how much of its error an iteration leaves */
static const double converged = 1e-7; /* per entry of a row */

/* out [n] = row i of an orthogonal matrix whose entries are all about as large, times a random sign. */
static void even_row (guint n, guint i, guint64 *state, float *out)
{
  guint power = n & -n, rest = n / power, a = i / power, b = i % power;
  float sign = qz_random_next (state) >> 63 ? -1 : 1;
  for (guint k = 0; k < rest; k++) {
    float *block = out + k * power;
    memset (block, 0, sizeof (float) * power);
    block[b] = sign * sqrt ((k == 0 ? 1.0 : 2.0) / rest) * cos (G_PI * (a + 0.5) * k / rest);
    xb_hadamard (block, power, power);
  }
}

void qz_rotation_init (guint n, guint64 seed, float *r)
{
  guint64 state = seed;
  for (guint i = 0; i < n; i++)
    even_row (n, i, &state, r + (gsize) i * n);
}

void qz_rotation_init_grouped (guint n, const guint32 *order, guint64 seed, float *r)
{
  guint64 state = seed;
  memset (r, 0, sizeof (float) * n * n);
  for (guint k = 0; k < n; k++) {
    guint begin = k / AXES_GROUP * AXES_GROUP;
    even_row (MIN (AXES_GROUP, n - begin), k - begin, &state, r + (gsize) order[k] * n + begin);
  }
}

void qz_rotate_rows (EngWorkers *workers, gboolean back, guint rows, guint n, const float *x, const float *r, float *out)
{
  qz_product_exact (workers, false, back, rows, n, n, x, n, r, n, 0, out, n);
}

/* slope becomes -a / 2 of the step, skew, of length 1 for each entry whose slopes agree; returns its Frobenius norm. */
static double take_slope (QzRotation *rotation, guint step, float *slope)
{
  guint n = rotation->n;
  double sum = 0, of_mean = 1 / (1 - pow (decay_mean, step + 1)), of_square = 1 / (1 - pow (decay_square, step + 1));
  for (guint i = 0; i < n; i++) {
    slope[(gsize) i * n + i] = 0;
    for (guint j = 0; j < i; j++) {
      gsize at = (gsize) i * n + j, mirrored = (gsize) j * n + i;
      double g = (double) slope[at] - slope[mirrored];
      rotation->mean[at] = decay_mean * rotation->mean[at] + (1 - decay_mean) * g;
      rotation->square[at] = decay_square * rotation->square[at] + (1 - decay_square) * g * g;
      double a = rotation->square[at] > 0 ? rotation->mean[at] * of_mean / sqrt (rotation->square[at] * of_square) : 0;
      slope[at] = -0.5 * a;
      slope[mirrored] = 0.5 * a;
      sum += 0.5 * a * a;
    }
  }
  return sqrt (sum);
}

/* y = r + (r + y) a / 2 until it does not move. */
static void cayley (EngWorkers *workers, guint n, const float *r, const float *half, float *y, float *spare, float *next)
{
  gsize all = (gsize) n * n;
  memcpy (y, r, sizeof (float) * all);
  for (guint i = 0; i < MOST_ITERATIONS; i++) {
    double moved = 0;
    for (gsize k = 0; k < all; k++)
      spare[k] = r[k] + y[k];
    memcpy (next, r, sizeof (float) * all);
    qz_product_exact (workers, false, false, n, n, n, spare, n, half, n, 1, next, n);
    for (gsize k = 0; k < all; k++)
      moved += (next[k] - y[k]) * (next[k] - y[k]);
    memcpy (y, next, sizeof (float) * all);
    if (moved < converged * converged * n)
      break;
  }
}

/* r = 3/2 r - 1/2 r r^T r. */
static void straighten (EngWorkers *workers, guint n, float *r, float *gram, float *spare)
{
  gsize all = (gsize) n * n;
  qz_product_exact (workers, true, false, n, n, n, r, n, r, n, 0, gram, n);
  qz_product_exact (workers, false, false, n, n, n, r, n, gram, n, 0, spare, n);
  for (gsize k = 0; k < all; k++)
    r[k] = 1.5f * r[k] - 0.5f * spare[k];
}

void qz_rotation_step (QzRotation *rotation, EngWorkers *workers, guint step, double turn, float *slope)
{
  guint n = rotation->n;
  gsize all = (gsize) n * n;
  double norm = take_slope (rotation, step, slope), entry = turn / sqrt (n);
  if (!(norm > 0) || !isfinite (norm))
    return;
  entry = MIN (entry, longest / norm);
  g_autofree float *memory = g_new (float, 3 * all);
  float *y = memory, *spare = y + all, *next = spare + all;
  for (gsize k = 0; k < all; k++)
    slope[k] *= entry;
  cayley (workers, n, rotation->r, slope, y, spare, next);
  straighten (workers, n, y, spare, next);
  memcpy (rotation->r, y, sizeof (float) * all);
}
