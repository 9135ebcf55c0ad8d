/* moments.c: Gram products block by block. */
#include "quantizer/moments.h"

#include "quantizer/product.h"

enum { ALIGN = 128 /* columns: a cell's, and a whole number of the transform's blocks */ };

guint qz_moments_block (guint n, guint widest)
{
  if (n <= widest)
    return n;
  guint pieces = (n + widest - 1) / widest, even = (n + pieces - 1) / pieces;
  return MIN (n, (even + ALIGN - 1) / ALIGN * ALIGN);
}

guint qz_moments_n_blocks (const QzMoments *m)
{
  return m->n > 0 ? (m->n + m->block - 1) / m->block : 0;
}

gsize qz_moments_floats (guint n, guint block)
{
  if (n == 0)
    return 0;
  gsize whole = n / block, rest = n % block;
  return whole * block * block + rest * rest;
}

void qz_moments_init (QzMoments *m, guint n, guint block)
{
  *m = (QzMoments){ n, block, g_new0 (float, qz_moments_floats (n, block)) };
}

void qz_moments_clear (QzMoments *m)
{
  g_clear_pointer (&m->h, g_free);
}

float *qz_moments_at (const QzMoments *m, guint i, guint *begin, guint *size)
{
  *begin = i * m->block;
  *size = MIN (m->block, m->n - *begin);
  return m->h + (gsize) i * m->block * m->block;
}

void qz_moments_add (QzMoments *m, EngWorkers *workers, const float *x, gsize ldx, guint rows)
{
  for (guint i = 0; i < qz_moments_n_blocks (m); i++) {
    guint begin, size;
    float *h = qz_moments_at (m, i, &begin, &size);
    qz_product_gram (workers, size, rows, x + begin, ldx, h, size);
  }
}

void qz_moments_scale (QzMoments *m, double factor)
{
  for (guint i = 0; i < qz_moments_n_blocks (m); i++) {
    guint begin, size;
    float *h = qz_moments_at (m, i, &begin, &size);
    for (guint r = 0; r < size; r++)
      for (guint c = r; c < size; c++)
        h[(gsize) r * size + c] *= factor;
  }
}

void qz_moments_diagonal (const QzMoments *m, double *diagonal)
{
  for (guint i = 0; i < qz_moments_n_blocks (m); i++) {
    guint begin, size;
    const float *h = qz_moments_at (m, i, &begin, &size);
    for (guint j = 0; j < size; j++)
      diagonal[begin + j] = h[(gsize) j * size + j];
  }
}
