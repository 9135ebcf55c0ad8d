/* allocate.c: lower convex hulls, one sort, running sums. */
#include "quantizer/allocate.h"

#include <stdlib.h>

/* Depth a cell has before any step: the least, or none where there is nothing to represent. */
static guint8 first_depth (const QzCell *cell)
{
  return cell->loss[0] > 0 ? QZ_LEAST_DEPTH : 0;
}

/* The depths on the lower convex hull from first_depth on. Returns their number. */
static guint hull_of (const QzCell *cell, guint8 *hull)
{
  guint n = 0;
  for (guint depth = first_depth (cell); depth <= (cell->loss[0] > 0 ? QZ_MOST_DEPTH : 0); depth++) {
    if (n > 0 && cell->loss[depth] >= cell->loss[hull[n - 1]])
      continue;
    while (n >= 2) {
      double before = ((double) cell->loss[hull[n - 2]] - cell->loss[hull[n - 1]]) / (hull[n - 1] - hull[n - 2]);
      double after = ((double) cell->loss[hull[n - 1]] - cell->loss[depth]) / (depth - hull[n - 1]);
      if (before > after)
        break;
      n--;
    }
    hull[n++] = depth;
  }
  return n;
}

static int compare_steps (const void *a, const void *b)
{
  const QzStep *x = a, *y = b;
  if (x->slope != y->slope)
    return x->slope < y->slope ? 1 : -1;
  if (x->cell != y->cell)
    return x->cell < y->cell ? -1 : 1;
  return (int) x->from - y->from;
}

static guint64 step_bytes (const QzAllocator *allocator, const QzStep *step)
{
  return (guint64) (step->to - step->from) * allocator->cells[step->cell].unit_bytes;
}

void qz_allocator_init (QzAllocator *allocator, const QzCell *cells, guint n_cells)
{
  *allocator = (QzAllocator){ .n_cells = n_cells, .cells = cells };
  allocator->steps = g_new (QzStep, (gsize) n_cells * QZ_MOST_DEPTH);
  guint64 bytes = 0;
  double loss = 0;
  for (guint c = 0; c < n_cells; c++) {
    guint8 hull[QZ_MOST_DEPTH + 1];
    guint n = hull_of (&cells[c], hull);
    bytes += (guint64) hull[0] * cells[c].unit_bytes;
    loss += cells[c].loss[hull[0]];
    for (guint i = 1; i < n; i++) {
      double saved = (double) cells[c].loss[hull[i - 1]] - cells[c].loss[hull[i]];
      double step = (double) (hull[i] - hull[i - 1]) * cells[c].unit_bytes;
      allocator->steps[allocator->n_steps++] = (QzStep){ c, hull[i - 1], hull[i], saved / step };
    }
  }
  qsort (allocator->steps, allocator->n_steps, sizeof (QzStep), compare_steps);
  allocator->bytes_before = g_new (guint64, allocator->n_steps + 1);
  allocator->loss_before = g_new (double, allocator->n_steps + 1);
  for (guint i = 0; i <= allocator->n_steps; i++) {
    allocator->bytes_before[i] = bytes;
    allocator->loss_before[i] = loss;
    if (i == allocator->n_steps)
      break;
    const QzStep *step = &allocator->steps[i];
    bytes += step_bytes (allocator, step);
    loss -= (double) cells[step->cell].loss[step->from] - cells[step->cell].loss[step->to];
  }
}

void qz_allocator_clear (QzAllocator *allocator)
{
  g_free (allocator->steps);
  g_free (allocator->bytes_before);
  g_free (allocator->loss_before);
  *allocator = (QzAllocator){ 0 };
}

guint64 qz_allocator_min_bytes (const QzAllocator *allocator)
{
  return allocator->bytes_before[0];
}

guint64 qz_allocator_max_bytes (const QzAllocator *allocator)
{
  return allocator->bytes_before[allocator->n_steps];
}

guint qz_allocator_steps_for (const QzAllocator *allocator, guint64 bytes)
{
  guint low = 0, high = allocator->n_steps;
  while (low < high) {
    guint middle = low + (high - low + 1) / 2;
    if (allocator->bytes_before[middle] <= bytes)
      low = middle;
    else
      high = middle - 1;
  }
  return low;
}

void qz_allocator_depths (const QzAllocator *allocator, guint n_steps, guint8 *depths)
{
  for (guint c = 0; c < allocator->n_cells; c++)
    depths[c] = first_depth (&allocator->cells[c]);
  for (guint i = 0; i < n_steps; i++)
    depths[allocator->steps[i].cell] = allocator->steps[i].to;
}

guint64 qz_allocate (const QzAllocator *allocator, guint64 bytes, guint8 *depths, double *loss)
{
  guint n = qz_allocator_steps_for (allocator, bytes);
  guint64 used = allocator->bytes_before[n];
  double left = allocator->loss_before[n];
  qz_allocator_depths (allocator, n, depths);
  /* What is left over is smaller than the next step, but perhaps not than one after it. */
  for (guint i = n; i < allocator->n_steps; i++) {
    const QzStep *step = &allocator->steps[i];
    const QzCell *cell = &allocator->cells[step->cell];
    if (depths[step->cell] != step->from || used + step_bytes (allocator, step) > bytes)
      continue;
    used += step_bytes (allocator, step);
    left -= (double) cell->loss[step->from] - cell->loss[step->to];
    depths[step->cell] = step->to;
  }
  if (loss != NULL)
    *loss = left;
  return used;
}
