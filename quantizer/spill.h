/* spill.h: rows of activations kept on disk between the way there and the way back, in 16 bits and a scale for each row, so that a stream
 * of any loudness keeps its precision. */
#ifndef QZ_SPILL_H
#define QZ_SPILL_H

#include "engine/workers.h"
#include "quantizer/store.h"

/* Bytes of a row of `cols`. */
gsize qz_spill_row_bytes (guint cols);
/* x [n][cols] to, and from, the store at `offset`. */
gboolean qz_spill (QzStore *store, guint64 offset, EngWorkers *workers, const float *x, gsize n, guint cols, GError **error);
gboolean qz_unspill (const QzStore *store, guint64 offset, EngWorkers *workers, float *x, gsize n, guint cols, GError **error);

#endif
