/* vocab_tables.c: the flat hash tables of a vocabulary, text -> token and pair of tokens -> merge. They are at most half full; the seed is
 * random, so a crafted vocabulary cannot make them slow. */
#include "engine/tokenizer/tokenizer_private.h"

#include <string.h>

static guint64 mix (guint64 x)
{
  x ^= x >> 32;
  x *= G_GUINT64_CONSTANT (0xD6E8FEB86659FD93);
  x ^= x >> 32;
  x *= G_GUINT64_CONSTANT (0xD6E8FEB86659FD93);
  return x ^ x >> 32;
}

static guint64 hash_text (guint64 seed, const char *text, gsize length)
{
  guint64 h = seed ^ length;
  for (; length >= 8; text += 8, length -= 8) {
    guint64 word;
    memcpy (&word, text, 8);
    h = mix (h ^ word) + seed;
  }
  guint64 word = 0;
  memcpy (&word, text, length);
  return mix (h ^ word);
}

static guint32 *new_slots (gsize n, guint32 *mask)
{
  gsize size = 16;
  while (size < 2 * n)
    size *= 2;
  *mask = (guint32) (size - 1);
  guint32 *slots = g_new (guint32, size);
  memset (slots, 0xFF, size * sizeof *slots);
  return slots;
}

void eng_vocab_build_text_table (EngTokenizer *t)
{
  t->text_slots = new_slots (t->n_tokens, &t->text_mask);
}

gboolean eng_vocab_add_text (EngTokenizer *t, guint32 token, guint32 *other)
{
  gsize length, n;
  const char *text = eng_token_text (t, token, &length);
  guint32 slot = (guint32) hash_text (t->seed, text, length) & t->text_mask;
  for (; t->text_slots[slot] != ENG_NO_TOKEN; slot = (slot + 1) & t->text_mask) {
    const char *there = eng_token_text (t, t->text_slots[slot], &n);
    if (n == length && memcmp (there, text, n) == 0) {
      *other = t->text_slots[slot];
      return FALSE;
    }
  }
  t->text_slots[slot] = token;
  return TRUE;
}

guint32 eng_vocab_find_text (const EngTokenizer *t, const char *text, gsize length)
{
  gsize n;
  if (length == 0 || length > t->max_token_bytes)
    return ENG_NO_TOKEN;
  guint32 slot = (guint32) hash_text (t->seed, text, length) & t->text_mask;
  for (; t->text_slots[slot] != ENG_NO_TOKEN; slot = (slot + 1) & t->text_mask) {
    const char *there = eng_token_text (t, t->text_slots[slot], &n);
    if (n == length && memcmp (there, text, n) == 0)
      return t->text_slots[slot];
  }
  return ENG_NO_TOKEN;
}

static guint32 pair_slot (const EngTokenizer *t, guint32 left, guint32 right)
{
  return (guint32) mix (t->seed ^ ((guint64) left << 32 | right)) & t->pair_mask;
}

void eng_vocab_build_pair_table (EngTokenizer *t)
{
  t->pair_slots = new_slots (t->n_merges, &t->pair_mask);
}

gboolean eng_vocab_add_pair (EngTokenizer *t, guint32 rank)
{
  const EngMerge *merge = &t->merges[rank];
  guint32 slot = pair_slot (t, merge->left, merge->right);
  for (; t->pair_slots[slot] != ENG_NO_TOKEN; slot = (slot + 1) & t->pair_mask) {
    const EngMerge *there = &t->merges[t->pair_slots[slot]];
    if (there->left == merge->left && there->right == merge->right)
      return FALSE;
  }
  t->pair_slots[slot] = rank;
  return TRUE;
}

guint32 eng_vocab_find_pair (const EngTokenizer *t, guint32 left, guint32 right)
{
  guint32 slot = pair_slot (t, left, right);
  for (; t->pair_slots[slot] != ENG_NO_TOKEN; slot = (slot + 1) & t->pair_mask) {
    const EngMerge *there = &t->merges[t->pair_slots[slot]];
    if (there->left == left && there->right == right)
      return t->pair_slots[slot];
  }
  return ENG_NO_TOKEN;
}
