/* trellis.c: the values of a trellis's words, those of equal neighbours stored once. */
#include "kernels/trellis.h"

#include <assert.h>
#include <string.h>

#include "kernels/table.h"

void xb_trellis_set (xb_trellis *t, uint32_t word_bits, uint32_t depth, const float *values)
{
  *t = (xb_trellis) { .word_bits = word_bits, .depth = depth };
  for (uint32_t i = 0; i < (1u << word_bits) / XB_WORD_GROUP; i++) {
    uint32_t same = 0;
    while (same < t->n_groups && memcmp (t->values[same], values + i * XB_WORD_GROUP, sizeof t->values[0]) != 0)
      same++;
    assert (same < XB_VALUE_GROUPS);
    t->group[i] = (uint8_t) same;
    if (same == t->n_groups)
      memcpy (t->values[t->n_groups++], values + i * XB_WORD_GROUP, sizeof t->values[0]);
  }
}

void xb_trellis_init (xb_trellis *t, uint32_t word_bits, uint32_t depth, const int8_t (*tables)[16])
{
  float values[1 << XB_MOST_WORD_BITS];
  for (uint32_t word = 0; word < 1u << word_bits; word++)
    values[word] = (float) xb_trellis_word (word_bits, depth, tables, word);
  xb_trellis_set (t, word_bits, depth, values);
}

void xb_trellis_extend (const xb_trellis *trellis, uint16_t *cost, const float *x, const float *weight, uint32_t n, uint8_t *back)
{
  xb_table_get ()->ops.trellis_extend (trellis, cost, x, weight, n, back);
}
