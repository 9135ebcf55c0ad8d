/* curves.h: what is behind QzCurves (fit.h): the cells of every matrix, their curves, and the sorted steps between all budgets. */
#ifndef QZ_CURVES_H
#define QZ_CURVES_H

#include "quantizer/allocate.h"
#include "quantizer/fit.h"
#include "quantizer/kept.h"
#include "quantizer/shape.h"
#include "quantizer/source.h"

typedef struct {
  char *name;
  QzShape shape;
  guint64 fixed_bytes; /* stored bytes with every cell at depth 0 */
  guint first_cell;
  QzKept kept;         /* as the source has it, .bytes 0: it has no such form */
  double rounding;     /* loss by its input's rounding to 8 bits, behind the pipeline; */
  double kept_rounding; /* and as the source has it */
} QzCurvesMatrix;

struct QzCurves {
  gatomicrefcount references;
  gboolean estimate;
  guint n_matrices, n_cells;
  QzCurvesMatrix *matrices;
  QzCell *cells;
  QzWhole *wholes;     /* matrices that may be kept as they are */
  guint n_wholes;
  double rounding;     /* of all matrices behind their pipelines */
  guint64 other_bytes; /* of the file: header, metadata, norms, pipelines */
  guint64 n_weights;
  QzAllocator allocator;
};

/* An unfinished object: matrices with names and shapes, cells' unit_bytes; the caller fills the losses and other_bytes. NULL and an error
 * when a shape cannot be packed. */
QzCurves *qz_curves_new (const QzSource *source, const QzShape *shapes, GError **error);
/* Sorts, once cells' losses and the rounding of inputs are there. Nothing changes afterwards. */
void qz_curves_finish (QzCurves *curves);
/* From the second-order loss to what is measured: it is low by a steady factor. */
double qz_curves_kl_of_loss (double loss);
/* Loss by the rounding of all inputs, at these depths. */
double qz_curves_rounding (const QzCurves *curves, const guint8 *depths);
/* Whether a matrix is kept as its source has it, at these depths; and its stored bytes. */
gboolean qz_curves_keeps (const QzCurves *curves, guint matrix, const guint8 *depths);
QzPackedSize qz_curves_matrix_size (const QzCurves *curves, guint matrix, const guint8 *depths);
/* Depths of all cells for a file of at most `file_bytes`, of which `extra_bytes` are needed beyond other_bytes. FALSE if that is
 * less than the least. */
gboolean qz_curves_allocate (const QzCurves *curves, QzAllocation allocation, guint64 file_bytes, guint64 extra_bytes, guint8 *depths, guint64 *used_bytes,
                             double *loss);
/* The same depth for all cells in which there is anything. */
void qz_curves_uniform (const QzCurves *curves, guint bits, guint64 extra_bytes, guint8 *depths, guint64 *used_bytes, double *loss);

/* The table of cells for the analysis file, and back; NULL if it does not belong to `source`. */
GVariant *qz_curves_to_variant (const QzCurves *curves);
QzCurves *qz_curves_from_variant (GVariant *variant, const QzSource *source, GError **error);

#endif
