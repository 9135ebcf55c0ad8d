/* blocks.h: a block of a ggml type taken apart into codes and scales: the one place that knows where its bits lie. Dequantizing puts
 * the parts together, repacking hands them on, so both hold the same numbers. Layouts: ggml-common.h of the ggml project. */
#ifndef ENG_BLOCKS_H
#define ENG_BLOCKS_H

#include "engine/checkpoint/grids.h"

enum { ENG_MAX_BLOCK = 256, ENG_MAX_GROUPS = 16 };

/* w = scale (code - zero) + offset, or scale * table[code], or scale * the grid's value / 2^shift. */
typedef struct {
  guint8 depth;        /* bits per code; of a grid those of xb_cell */
  guint16 zero2;       /* zero, in half steps */
  guint8 scale_kind;   /* xb_scale_kind */
  guint8 shift;
  guint16 group;       /* weights per scale */
  gboolean has_offset; /* offset = m, or with a super scale m * offset_multiplier */
  const gint8 *table;  /* [16] or NULL */
  EngGrid grid;
} EngBlockKind;

typedef struct {
  guint8 code[ENG_MAX_BLOCK];           /* of a grid as xb_pack_band takes them */
  gint16 multiplier[ENG_MAX_GROUPS];    /* where scale_kind is a product: the stored n */
  guint8 offset_multiplier[ENG_MAX_GROUPS];
  float d, m;
} EngBlock;

/* NULL for types that are no codes with scales (floats, integers) or are not known. */
const EngBlockKind *eng_block_kind (guint type);
/* Takes the block at `data` apart; `type` must have a kind. */
void eng_block_split (guint type, const guint8 *data, EngBlock *block);
/* The scale of a group, in f32 as ggml computes it. */
float eng_block_scale (const EngBlockKind *kind, const EngBlock *block, guint group);
/* The block's weights, in ggml's own order of operations. */
void eng_block_weights (const EngBlockKind *kind, const EngBlock *block, guint n, float *out);

#endif
