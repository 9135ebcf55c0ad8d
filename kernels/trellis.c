/* trellis.c: the values of a trellis's words, those of equal neighbours stored once. */
#include "kernels/trellis.h"

#include <string.h>

#include "kernels/table.h"

void xb_trellis_set (xb_trellis *t, uint32_t depth, const float *values)
{
  *t = (xb_trellis) { .depth = depth };
  for (uint32_t i = 0; i < XB_WORD_GROUPS; i++) {
    uint32_t same = 0;
    memcpy (t->values[t->n_groups], values + i * XB_WORD_GROUP, sizeof t->values[0]);
    while (memcmp (t->values[same], t->values[t->n_groups], sizeof t->values[0]) != 0)
      same++;
    t->group[i] = (uint8_t) same;
    t->n_groups += same == t->n_groups;
  }
}

void xb_trellis_init (xb_trellis *t, uint32_t depth, const int8_t (*tables)[16])
{
  float values[1 << XB_WORD_BITS];
  for (uint32_t word = 0; word < 1 << XB_WORD_BITS; word++)
    values[word] = (float) xb_trellis_word (depth, tables, word);
  xb_trellis_set (t, depth, values);
}

void xb_trellis_extend (const xb_trellis *trellis, uint16_t *cost, const float *x, const float *weight, uint32_t n, uint8_t *back)
{
  xb_table_get ()->ops.trellis_extend (trellis, cost, x, weight, n, back);
}
