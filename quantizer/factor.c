/* factor.c: blocked Cholesky in reverse order (the last column first), the trailing updates as float products over the workers. */
#include "quantizer/factor.h"

#include "kernels/dense.h"

#include <math.h>
#include <string.h>

enum { BLOCK = 64 };

typedef struct {
  guint n, k0, k1;
  float *a;       /* [n][n], lower triangle */
  float *inverse; /* [BLOCK][BLOCK] of the diagonal block's factor */
  float *panel, *minus; /* [n][BLOCK] */
} Cholesky;

/* Lower factor of the diagonal block in place, in double; its inverse beside it. FALSE if it is not positive definite. */
static gboolean factor_diagonal (Cholesky *c)
{
  guint size = c->k1 - c->k0;
  double l[BLOCK][BLOCK], inverse[BLOCK][BLOCK];
  for (guint i = 0; i < size; i++)
    for (guint j = 0; j <= i; j++) {
      double sum = c->a[(gsize) (c->k0 + i) * c->n + c->k0 + j];
      for (guint k = 0; k < j; k++)
        sum -= l[i][k] * l[j][k];
      if (i == j) {
        if (!(sum > 0) || !isfinite (sum))
          return FALSE;
        l[i][i] = sqrt (sum);
      } else {
        l[i][j] = sum / l[j][j];
      }
    }
  for (guint j = 0; j < size; j++)
    for (guint i = j; i < size; i++) {
      double sum = i == j;
      for (guint k = j; k < i; k++)
        sum -= l[i][k] * inverse[k][j];
      inverse[i][j] = sum / l[i][i];
    }
  for (guint i = 0; i < size; i++)
    for (guint j = 0; j < size; j++) {
      if (j <= i)
        c->a[(gsize) (c->k0 + i) * c->n + c->k0 + j] = l[i][j];
      c->inverse[i * BLOCK + j] = j <= i ? inverse[i][j] : 0;
    }
  return TRUE;
}

/* Rows below the block: P = A L^-T, kept once as it is and once negated (the products only add). */
static void panel_work (gpointer data, guint begin, guint end, guint worker)
{
  const Cholesky *c = data;
  guint row0 = c->k1 + begin * BLOCK, row1 = MIN (c->k1 + end * BLOCK, c->n), size = c->k1 - c->k0;
  xb_gemm (false, true, row0, row1, size, size, c->a + c->k0, c->n, c->inverse, BLOCK, 0, c->panel, BLOCK);
  for (guint i = row0; i < row1; i++)
    for (guint j = 0; j < size; j++) {
      float value = c->panel[(gsize) i * BLOCK + j];
      c->a[(gsize) i * c->n + c->k0 + j] = value;
      c->minus[(gsize) i * BLOCK + j] = -value;
    }
}

/* A -= P P^T, on and left of the diagonal. */
static void trailing_work (gpointer data, guint begin, guint end, guint worker)
{
  const Cholesky *c = data;
  for (guint unit = begin; unit < end; unit++) {
    guint row0 = c->k1 + unit * BLOCK, row1 = MIN (row0 + BLOCK, c->n);
    xb_gemm (false, true, row0, row1, row1 - c->k1, c->k1 - c->k0, c->minus, BLOCK, c->panel + (gsize) c->k1 * BLOCK, BLOCK, 1, c->a + c->k1, c->n);
  }
}

static gboolean cholesky (EngWorkers *workers, float *a, guint n)
{
  g_autofree float *panel = g_new (float, (gsize) n * BLOCK);
  g_autofree float *minus = g_new (float, (gsize) n * BLOCK);
  float inverse[BLOCK * BLOCK];
  Cholesky c = { .n = n, .a = a, .inverse = inverse, .panel = panel, .minus = minus };
  for (c.k0 = 0; c.k0 < n; c.k0 += BLOCK) {
    c.k1 = MIN (c.k0 + BLOCK, n);
    if (!factor_diagonal (&c))
      return FALSE;
    guint units = (n - c.k1 + BLOCK - 1) / BLOCK;
    eng_workers_run (workers, panel_work, &c, units, 1);
    eng_workers_run (workers, trailing_work, &c, units, 1);
  }
  return TRUE;
}

gboolean qz_factor (EngWorkers *workers, float *h, guint n, double damping, float *pivots)
{
  double trace = 0;
  for (guint i = 0; i < n; i++)
    trace += h[(gsize) i * n + i];
  if (!isfinite (trace))
    return FALSE;
  if (trace <= 0) {
    memset (h, 0, sizeof (float) * n * n);
    for (guint i = 0; i < n; i++) {
      h[(gsize) i * n + i] = 1;
      pivots[i] = 0;
    }
    return TRUE;
  }
  g_autofree float *a = g_new (float, (gsize) n * n);
  for (guint attempt = 0;; attempt++, damping *= 10) {
    if (attempt == 8)
      return FALSE;
    /* Both orders reversed: a lower factor of this is an upper factor of h. */
    for (guint i = 0; i < n; i++) {
      const float *row = h + (gsize) (n - 1 - i) * n;
      for (guint j = 0; j <= i; j++)
        a[(gsize) i * n + j] = row[n - 1 - j];
      a[(gsize) i * n + i] += damping * trace / n;
    }
    if (cholesky (workers, a, n))
      break;
  }
  memset (h, 0, sizeof (float) * n * n);
  for (guint j = 0; j < n; j++) {
    float pivot = a[(gsize) j * n + j];
    pivots[n - 1 - j] = pivot * pivot;
    for (guint i = j; i < n; i++)
      h[(gsize) (n - 1 - i) * n + n - 1 - j] = a[(gsize) i * n + j] / pivot;
  }
  return TRUE;
}

/* Stretch by stretch: what is solved of a row goes into all that comes behind it. */
void qz_factor_solve (const float *f, guint n, guint cols, float *e)
{
  g_autofree float *negative = g_new (float, (gsize) n * BLOCK);
  for (guint at = 0; at < cols; at += BLOCK) {
    guint size = MIN (BLOCK, cols - at), after = at + size;
    for (guint i = 0; i < n; i++) {
      float *row = e + (gsize) i * cols;
      for (guint k = at; k < after; k++) {
        const float *column = f + (gsize) k * cols;
        for (guint j = k + 1; j < after; j++)
          row[j] -= row[k] * column[j];
      }
      for (guint k = 0; k < size; k++)
        negative[(gsize) i * BLOCK + k] = -row[at + k];
    }
    if (after < cols)
      xb_gemm (false, false, 0, n, cols - after, size, negative, BLOCK, f + (gsize) at * cols + after, cols, 1, e + after, cols);
  }
}
