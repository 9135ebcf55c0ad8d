/* memory.h: what an analysis and a fit hold in memory at once, counted before they begin, and how they are cut so that it stays within what the
 * person allows. */
#ifndef QZ_MEMORY_H
#define QZ_MEMORY_H

#include "quantizer/source.h"

/* The tokens a model is observed on. */
typedef struct {
  guint n_tokens;         /* of a sequence */
  gsize n_all, n_back;    /* of all sequences, held-out ones included; of those that make the way back */
  gboolean is_tuned;      /* the fit is tuned on them (tune.h) */
  gboolean is_rotated;    /* rotations are learned on them (spin.h) */
} QzTokens;

typedef struct {
  guint batch_rows;       /* of the stream computed at once: a whole number of sequences */
  guint head_rows;        /* whose logits are in memory at once */
  guint widest;           /* columns whose moments are one block (moments.h) */
  guint64 bytes;          /* that the process holds at most, what it holds now included; the fit's own mapped file is not, see fit.h */
} QzMemory;

enum { QZ_WIDEST = 16384 };

/* bytes 0: as is best, unless three quarters of the machine's memory are less than that; else the best that fits. ENG_ERROR_MEMORY, naming the
 * least, when nothing does. Does not look at how much is free. */
gboolean qz_memory_choose (const QzSource *source, const QzTokens *tokens, guint n_workers, guint64 bytes, QzMemory *memory, GError **error);

#endif
