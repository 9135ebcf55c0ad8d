/* blocks.h: a block of a ggml type taken apart into codes and scales: the one place that knows where its bits lie. Dequantizing puts
 * the parts together, repacking hands them on, so both hold the same numbers. Layouts: ggml-common.h of the ggml project. */
#ifndef ENG_BLOCKS_H
#define ENG_BLOCKS_H

#include <glib.h>

enum { ENG_MAX_BLOCK = 256, ENG_MAX_GROUPS = 16 };

/* w = scale (code - zero) + offset, or scale * table[code]. */
typedef struct {
  guint8 depth;        /* bits per code */
  guint8 zero;
  guint16 group;       /* weights per scale */
  gboolean has_offset;
  gboolean has_super;  /* scale = d * multiplier, offset = m * offset_multiplier; else scale = d, offset = m */
  const gint8 *table;  /* [16] or NULL */
} EngBlockKind;

typedef struct {
  guint8 code[ENG_MAX_BLOCK];
  gint8 multiplier[ENG_MAX_GROUPS], offset_multiplier[ENG_MAX_GROUPS]; /* with has_super */
  float d, m;
} EngBlock;

/* NULL for types that are no codes with scales (floats, integers) or are not known. */
const EngBlockKind *eng_block_kind (guint type);
/* Takes the block at `data` apart; `type` must have a kind. */
void eng_block_split (guint type, const guint8 *data, EngBlock *block);

#endif
