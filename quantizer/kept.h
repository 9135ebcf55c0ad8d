/* kept.h: a matrix of a quantized checkpoint as its source has it: the same codes and scales as an X-bit matrix, with its own pipelines if any. A fit takes that
 * form where no other of as few bytes loses as little, so bits are never spent above the source's own. */
#ifndef QZ_KEPT_H
#define QZ_KEPT_H

#include "quantizer/source.h"

/* Where a matrix has a pipeline. */
typedef enum { QZ_SIDE_INPUT, QZ_SIDE_OUTPUT, QZ_N_SIDES } QzSide;

/* Bytes of a packed matrix, and of pipelines that are its own, 0: none; and whether it is kept as its source has it. */
typedef struct {
  guint64 matrix, pipelines[QZ_N_SIDES];
  gboolean kept;
} QzPackedSize;

typedef struct {
  QzPackedSize size;
  guint64 bytes; /* of a file at most; 0: there is no such form */
  double depth;  /* mean bits of its codes */
} QzKept;

QzKept qz_kept_form (const QzSource *source, guint matrix);
/* blob [size.matrix], 64-byte aligned; ids of its pipelines, 0 where it has none. FALSE: it cannot be, and the error says why. */
gboolean qz_kept_pack (const QzSource *source, guint matrix, const guint ids[QZ_N_SIDES], void *blob, GError **error);
/* blob [size.pipelines[side]] */
gboolean qz_kept_pipeline (const QzSource *source, guint matrix, QzSide side, void *blob, GError **error);
/* Whether any of a unit's matrices has such a form: then its channels stay in their order, which is that of the codes. */
gboolean qz_kept_unit (const QzSource *source, guint unit);

#endif
