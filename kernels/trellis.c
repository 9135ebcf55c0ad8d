/* trellis.c: the values of a trellis's words, those of equal neighbours stored once. */
#include "kernels/trellis.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "kernels/table.h"

void xb_trellis_set (xb_trellis *t, uint32_t word_bits, uint32_t depth, const float *values)
{
  *t = (xb_trellis) { .word_bits = word_bits, .depth = depth };
  for (uint32_t i = 0; i < (1u << word_bits) / XB_WORD_GROUP; i++) {
    uint32_t same = 0;
    int16_t group[XB_WORD_GROUP];
    for (uint32_t k = 0; k < XB_WORD_GROUP; k++)
      group[k] = (int16_t) lrintf (values[i * XB_WORD_GROUP + k] * XB_VALUE_ONE);
    while (same < t->n_groups && memcmp (t->values + same * XB_WORD_GROUP, group, sizeof group) != 0)
      same++;
    assert (same < XB_VALUE_GROUPS);
    t->place[i] = (uint16_t) (same * XB_WORD_GROUP);
    if (same == t->n_groups)
      memcpy (t->values + t->n_groups++ * XB_WORD_GROUP, group, sizeof group);
  }
}

void xb_trellis_init (xb_trellis *t, uint32_t word_bits, uint32_t depth, const int8_t (*tables)[16])
{
  float values[1 << XB_MOST_WORD_BITS];
  for (uint32_t word = 0; word < 1u << word_bits; word++)
    values[word] = (float) xb_trellis_word (word_bits, depth, tables, word);
  xb_trellis_set (t, word_bits, depth, values);
}

xb_trellis_count xb_trellis_counting (const xb_trellis *t, float x, float weight)
{
  const float most = 0.75f * (float) xb_trellis_most_cost (t), per_miss = weight / (XB_VALUE_ONE * XB_VALUE_ONE);
  const float miss = most < per_miss * (INT16_MAX * (float) INT16_MAX) ? sqrtf (most / per_miss) : INT16_MAX;
  xb_trellis_count count = { .x = (int16_t) lrintf (x * XB_VALUE_ONE), .most_miss = (uint16_t) fmaxf (1, miss) };
  count.beyond = weight > 0 ? (uint16_t) (xb_trellis_most_cost (t) / 2) : 0; /* misses are below 2^15 */
  while (count.most_miss << (count.shift + 1) <= UINT16_MAX)
    count.shift++;
  count.factor = (uint16_t) fminf (UINT16_MAX, sqrtf (per_miss) * (256.0f * 65536 / (float) (1u << count.shift)));
  return count;
}

void xb_trellis_extend (const xb_trellis *trellis, uint16_t *cost, const float *x, const float *weight, uint32_t n, uint8_t *back)
{
  xb_table_get ()->ops.trellis_extend (trellis, cost, x, weight, n, back);
}
