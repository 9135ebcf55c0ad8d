/* seal.h: the finished file: everything of the source that is not a matrix, the matrices packed, and what was promised. */
#ifndef QZ_SEAL_H
#define QZ_SEAL_H

#include "quantizer/fit.h"
#include "quantizer/kept.h"
#include "quantizer/shape.h"
#include "quantizer/source.h"
#include "quantizer/transform.h"

/* What a fit says about itself. */
typedef struct {
  QzTarget target;
  double expected_kl, bpw;
  const char *calibration;      /* its id */
} QzPromise;

typedef struct QzSeal QzSeal;

/* Declares the file. sizes [n_matrices]: of the packed matrices. transforms [n_inputs]. */
QzSeal *qz_seal_new (const QzSource *source, QzTransform *const *transforms, const QzPackedSize *sizes, const QzPromise *promise, GError **error);
void qz_seal_free (QzSeal *seal); /* an unfinished file disappears */
G_DEFINE_AUTOPTR_CLEANUP_FUNC (QzSeal, qz_seal_free)
guint64 qz_seal_file_bytes (const QzSeal *seal);
/* Creates the temporary and writes everything but the matrices. */
gboolean qz_seal_begin (QzSeal *seal, const char *path, GError **error);
/* What a matrix calls its pipeline (xb_layout's input_id, output_id) where it has one of its own. */
guint qz_seal_pipeline_id (const QzSeal *seal, guint matrix, QzSide side);
gboolean qz_seal_write_pipeline (QzSeal *seal, guint matrix, QzSide side, const void *blob, GError **error);
gboolean qz_seal_write_matrix (QzSeal *seal, guint matrix, const void *blob, gsize size, GError **error);
/* The same matrix with other scales. */
gboolean qz_seal_rewrite_matrix (QzSeal *seal, guint matrix, const void *blob, GError **error);
/* What came of it: known only when everything is written, it takes the place that the file has for it. loss [n_matrices]: nats that each one's
 * rounding costs by the second-order estimate, uncorrected. */
gboolean qz_seal_set_outcome (QzSeal *seal, double measured_kl, double measured_top1, const float *loss, GError **error);
/* Where the file is until it appears. */
const char *qz_seal_unfinished (const QzSeal *seal);
/* The file appears. */
gboolean qz_seal_finish (QzSeal *seal, GError **error);

/* Bytes of a file beyond its matrices. transforms NULL: sizes of pipelines with a diagonal. promise NULL: one without extra keys. */
gboolean qz_seal_other_bytes (const QzSource *source, QzTransform *const *transforms, const QzPromise *promise, guint64 *bytes, GError **error);

#endif
