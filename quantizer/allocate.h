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

/* One step along a cell's hull. */
typedef struct {
  guint32 cell;
  guint8 from, to; /* depths */
  float slope;     /* loss saved per byte */
} QzStep;

typedef struct {
  guint n_cells, n_steps;
  const QzCell *cells;   /* borrowed */
  QzStep *steps;         /* by falling slope */
  guint64 *bytes_before; /* [n_steps + 1] bytes of the cells when that many steps are taken */
  double *loss_before;   /* [n_steps + 1] */
} QzAllocator;

/* cells must outlive the allocator. A cell whose loss is 0 throughout starts and stays at depth 0. */
void qz_allocator_init (QzAllocator *allocator, const QzCell *cells, guint n_cells);
void qz_allocator_clear (QzAllocator *allocator);

guint64 qz_allocator_min_bytes (const QzAllocator *allocator);
guint64 qz_allocator_max_bytes (const QzAllocator *allocator);
/* Number of whole steps that fit; 0 when not even the least does. */
guint qz_allocator_steps_for (const QzAllocator *allocator, guint64 bytes);
/* The depth of every cell after n steps. */
void qz_allocator_depths (const QzAllocator *allocator, guint n_steps, guint8 *depths);
/* The best depths within `bytes` (at least the least): the whole steps, then later ones that still fit. Returns the bytes used. */
guint64 qz_allocate (const QzAllocator *allocator, guint64 bytes, guint8 *depths, double *loss);

#endif
