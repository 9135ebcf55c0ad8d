/* allocate.c: lower convex hulls, one sort, running sums. */
#include "quantizer/allocate.h"

#include <stdlib.h>
#include <string.h>

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

static guint64 cell_step_bytes (const QzAllocator *allocator, const QzStep *step)
{
  return (guint64) (step->to - step->from) * allocator->cells[step->cell].unit_bytes;
}

static double cell_step_loss (const QzAllocator *allocator, const QzStep *step)
{
  const float *loss = allocator->cells[step->cell].loss;
  return (double) loss[step->from] - loss[step->to];
}

/* ---- wholes -------------------------------------------------------------------------------------------------------------- */

/* The whole that a cell is of, or NULL. */
static const QzWhole *whole_of (const QzAllocator *allocator, guint cell)
{
  guint low = 0, high = allocator->n_wholes;
  while (low < high) {
    guint middle = (low + high) / 2;
    const QzWhole *whole = &allocator->wholes[middle];
    if (cell < whole->first_cell)
      high = middle;
    else if (cell - whole->first_cell >= whole->n_cells)
      low = middle + 1;
    else
      return whole;
  }
  return NULL;
}

/* What the cells of a whole take, and lose, at these depths; NULL: before any step. */
static void sum_cells (const QzAllocator *allocator, const QzWhole *whole, const guint8 *depths, guint64 *bytes, double *loss)
{
  *bytes = 0;
  *loss = 0;
  for (guint c = whole->first_cell; c < whole->first_cell + whole->n_cells; c++) {
    const QzCell *cell = &allocator->cells[c];
    guint8 depth = depths != NULL ? depths[c] : first_depth (cell);
    *bytes += (guint64) depth * cell->unit_bytes;
    *loss += cell->loss[depth];
  }
}

static void give_up_cells (const QzWhole *whole, guint8 *depths)
{
  memset (depths + whole->first_cell, QZ_IN_WHOLE, whole->n_cells);
}

static gboolean is_there_from_the_start (const QzAllocator *allocator, const QzWhole *whole)
{
  guint64 bytes;
  double loss;
  sum_cells (allocator, whole, NULL, &bytes, &loss);
  return whole->bytes <= bytes && whole->loss < loss;
}

/* steps [n]: those of the whole's cells, by falling slope. Where the line to the whole is steeper than the next of them, it is the hull; to one that is no
 * larger than its cells there is none. */
static void add_whole_step (QzAllocator *allocator, const QzWhole *whole, const QzStep *steps, guint n)
{
  guint64 bytes;
  double loss;
  sum_cells (allocator, whole, NULL, &bytes, &loss);
  for (guint i = 0; i <= n && loss > whole->loss && bytes < whole->bytes; i++) {
    double slope = (loss - whole->loss) / (whole->bytes - bytes);
    if (i == n || steps[i].slope <= slope) {
      allocator->steps[allocator->n_steps++] = (QzStep){ whole->first_cell, 0, QZ_IN_WHOLE, slope };
      return;
    }
    bytes += cell_step_bytes (allocator, &steps[i]);
    loss -= cell_step_loss (allocator, &steps[i]);
  }
}

/* ---- the hull of everything ---------------------------------------------------------------------------------------------- */

static void add_cell_steps (QzAllocator *allocator, guint c)
{
  const QzCell *cell = &allocator->cells[c];
  guint8 hull[QZ_MOST_DEPTH + 1];
  guint n = hull_of (cell, hull);
  for (guint i = 1; i < n; i++) {
    QzStep step = { c, hull[i - 1], hull[i], 0 };
    step.slope = cell_step_loss (allocator, &step) / cell_step_bytes (allocator, &step);
    allocator->steps[allocator->n_steps++] = step;
  }
}

static void add_steps (QzAllocator *allocator)
{
  const QzWhole *whole = allocator->wholes, *end = whole + allocator->n_wholes;
  guint first = 0; /* step of the whole's cells */
  for (guint c = 0; c < allocator->n_cells; c++) {
    if (whole < end && c == whole->first_cell)
      first = allocator->n_steps;
    add_cell_steps (allocator, c);
    if (whole < end && c + 1 == whole->first_cell + whole->n_cells) {
      qsort (allocator->steps + first, allocator->n_steps - first, sizeof (QzStep), compare_steps);
      add_whole_step (allocator, whole, allocator->steps + first, allocator->n_steps - first);
      whole++;
    }
  }
  qsort (allocator->steps, allocator->n_steps, sizeof (QzStep), compare_steps);
}

static void begin (const QzAllocator *allocator, guint8 *depths)
{
  for (guint c = 0; c < allocator->n_cells; c++)
    depths[c] = first_depth (&allocator->cells[c]);
  for (guint w = 0; w < allocator->n_wholes; w++)
    if (is_there_from_the_start (allocator, &allocator->wholes[w]))
      give_up_cells (&allocator->wholes[w], depths);
}

/* Takes a step if it still leads anywhere from these depths, and to at most `most` bytes. */
static void take_step (const QzAllocator *allocator, const QzStep *step, guint64 most, guint8 *depths, guint64 *bytes, double *loss)
{
  if (step->to == QZ_IN_WHOLE) {
    const QzWhole *whole = whole_of (allocator, step->cell);
    guint64 cells_bytes;
    double cells_loss;
    sum_cells (allocator, whole, depths, &cells_bytes, &cells_loss);
    if (*bytes - cells_bytes + whole->bytes > most)
      return;
    *bytes += whole->bytes - cells_bytes;
    *loss -= cells_loss - whole->loss;
    give_up_cells (whole, depths);
  } else if (depths[step->cell] == step->from && *bytes + cell_step_bytes (allocator, step) <= most) {
    *bytes += cell_step_bytes (allocator, step);
    *loss -= cell_step_loss (allocator, step);
    depths[step->cell] = step->to;
  }
}

void qz_allocator_init (QzAllocator *allocator, const QzCell *cells, guint n_cells, const QzWhole *wholes, guint n_wholes)
{
  *allocator = (QzAllocator){ .n_cells = n_cells, .n_wholes = n_wholes, .cells = cells, .wholes = wholes };
  allocator->steps = g_new (QzStep, (gsize) n_cells * QZ_MOST_DEPTH + n_wholes);
  add_steps (allocator);
  allocator->bytes_before = g_new (guint64, allocator->n_steps + 1);
  allocator->loss_before = g_new (double, allocator->n_steps + 1);
  g_autofree guint8 *depths = g_malloc (n_cells);
  guint64 bytes = 0;
  double loss = 0;
  begin (allocator, depths);
  for (guint c = 0; c < n_cells; c++)
    if (depths[c] != QZ_IN_WHOLE) {
      bytes += (guint64) depths[c] * cells[c].unit_bytes;
      loss += cells[c].loss[depths[c]];
    }
  for (guint w = 0; w < n_wholes; w++)
    if (depths[wholes[w].first_cell] == QZ_IN_WHOLE) {
      bytes += wholes[w].bytes;
      loss += wholes[w].loss;
    }
  for (guint i = 0; i <= allocator->n_steps; i++) {
    allocator->bytes_before[i] = bytes;
    allocator->loss_before[i] = MAX (loss, 0); /* sums of floats end near it */
    if (i < allocator->n_steps)
      take_step (allocator, &allocator->steps[i], G_MAXUINT64, depths, &bytes, &loss);
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
  guint64 bytes = 0;
  double loss = 0;
  begin (allocator, depths);
  for (guint i = 0; i < n_steps; i++)
    take_step (allocator, &allocator->steps[i], G_MAXUINT64, depths, &bytes, &loss);
}

guint64 qz_allocate (const QzAllocator *allocator, guint64 bytes, guint8 *depths, double *loss)
{
  guint n = qz_allocator_steps_for (allocator, bytes);
  guint64 used = allocator->bytes_before[n];
  double left = allocator->loss_before[n];
  qz_allocator_depths (allocator, n, depths);
  /* What is left over is smaller than the next step, but perhaps not than one after it. */
  for (guint i = n; i < allocator->n_steps; i++)
    take_step (allocator, &allocator->steps[i], bytes, depths, &used, &left);
  if (loss != NULL)
    *loss = MAX (left, 0);
  return used;
}
