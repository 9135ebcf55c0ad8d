/* allocate.h: bits for cells. Each cell has a curve of loss against depth; the best use of a budget takes the steps of all curves'
 * lower convex hulls in the order of loss saved per byte (the Lagrangian solution; Shoham and Gersho 1988), so every budget is a
 * prefix of one sorted list. */
#ifndef QZ_ALLOCATE_H
#define QZ_ALLOCATE_H

#include <glib.h>

enum { QZ_LEAST_DEPTH = 1, QZ_MOST_DEPTH = 8 };

typedef struct {
  guint32 unit_bytes;             /* of one bit of depth */
  float loss[QZ_MOST_DEPTH + 1];  /* at each depth, 0 included */
} QzCell;

/* Neighbouring cells that may be given up together for one whole: a matrix as a quantized source has it. */
typedef struct {
  guint32 first_cell, n_cells;
  guint64 bytes; /* of the whole */
  double loss;
} QzWhole;

/* The depth of cells that are given up. */
enum { QZ_IN_WHOLE = QZ_MOST_DEPTH + 1 };

/* One step along a cell's hull; or, `to` being QZ_IN_WHOLE, the step of all cells of the whole that begins with this one. */
typedef struct {
  guint32 cell;
  guint8 from, to; /* depths */
  float slope;     /* loss saved per byte */
} QzStep;

typedef struct {
  guint n_cells, n_wholes, n_steps;
  const QzCell *cells;   /* borrowed */
  const QzWhole *wholes; /* borrowed, by cells */
  QzStep *steps;         /* by falling slope */
  guint64 *bytes_before; /* [n_steps + 1] bytes of the cells when that many steps are taken */
  double *loss_before;   /* [n_steps + 1] */
} QzAllocator;

/* cells and wholes must outlive the allocator. A cell whose loss is 0 throughout starts and stays at depth 0. Of a whole the hull is that of its cells' steps
 * and the whole: where it saves more loss per byte than their next step. A whole that is better than the least of its cells, and no larger, is there from the start; nothing is
 * spent on a matrix beyond its whole. */
void qz_allocator_init (QzAllocator *allocator, const QzCell *cells, guint n_cells, const QzWhole *wholes, guint n_wholes);
void qz_allocator_clear (QzAllocator *allocator);

guint64 qz_allocator_min_bytes (const QzAllocator *allocator);
guint64 qz_allocator_max_bytes (const QzAllocator *allocator);
/* Number of whole steps that fit; 0 when not even the least does. */
guint qz_allocator_steps_for (const QzAllocator *allocator, guint64 bytes);
/* The depth of every cell after n steps. */
void qz_allocator_depths (const QzAllocator *allocator, guint n_steps, guint8 *depths);
/* The best depths within `bytes` (at least the least): the steps that fit, then later ones that still do. Returns the bytes used. */
guint64 qz_allocate (const QzAllocator *allocator, guint64 bytes, guint8 *depths, double *loss);

#endif
