/* kept.h: a matrix of a quantized checkpoint as its source has it: the same codes and scales as an X-bit matrix without a pipeline. A fit takes that form
 * where no other of as few bytes loses as little, so bits are never spent above the source's own. */
#ifndef QZ_KEPT_H
#define QZ_KEPT_H

#include "quantizer/source.h"

typedef struct {
  guint64 bytes; /* of the X-bit matrix; 0: there is no such form (floats, or codes behind a pipeline of their own) */
  double depth;  /* mean bits of its codes */
} QzKept;

QzKept qz_kept_form (const QzSource *source, guint matrix);
/* blob [qz_kept_form (...).bytes], 64-byte aligned. FALSE: it cannot be, and the error says why. */
gboolean qz_kept_pack (const QzSource *source, guint matrix, void *blob, GError **error);
/* Whether any of a unit's matrices has such a form: then its channels stay in their order, which is that of the codes. */
gboolean qz_kept_unit (const QzSource *source, guint unit);

#endif
