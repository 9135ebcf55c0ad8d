/* vocab_tables.c: the flat hash tables of a vocabulary, text -> token and pair of tokens -> merge, and the sorted list of
 * special tokens. Tables are at most half full; the seed is random, so a crafted vocabulary cannot make them slow. */
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

static gint compare_text (gconstpointer a, gconstpointer b, gpointer data)
{
  const EngTokenizer *t = data;
  gsize n_a, n_b;
  const char *text_a = eng_token_text (t, *(const guint32 *) a, &n_a), *text_b = eng_token_text (t, *(const guint32 *) b, &n_b);
  int order = memcmp (text_a, text_b, MIN (n_a, n_b));
  return order != 0 ? order : (n_a > n_b) - (n_a < n_b);
}

void eng_vocab_build_specials (EngTokenizer *t)
{
  GArray *list = g_array_new (FALSE, FALSE, sizeof (guint32));
  for (guint32 token = 0; token < t->n_tokens; token++) {
    if ((t->flags[token] & (ENG_TOKEN_CONTROL | ENG_TOKEN_USER_DEFINED)) && t->offsets[token + 1] > t->offsets[token]) {
      g_array_append_val (list, token);
      t->special_first[(guint8) t->bytes[t->offsets[token]]] = TRUE;
    }
  }
  g_array_sort_with_data (list, compare_text, t);
  t->n_specials = list->len;
  t->specials = (guint32 *) (gpointer) g_array_free (list, FALSE);
}

/* First of specials[low, high), all alike in their first `depth` bytes, whose next byte is at least `byte`. */
static guint32 lower_bound (const EngTokenizer *t, guint32 low, guint32 high, gsize depth, guint byte)
{
  while (low < high) {
    guint32 middle = low + (high - low) / 2;
    gsize length;
    const char *text = eng_token_text (t, t->specials[middle], &length);
    if (length <= depth || (guint8) text[depth] < byte)
      low = middle + 1;
    else
      high = middle;
  }
  return low;
}

guint32 eng_vocab_match_special (const EngTokenizer *t, const char *text, const char *end, gboolean control)
{
  guint32 found = ENG_NO_TOKEN, low = 0, high = t->n_specials;
  if (!t->special_first[(guint8) *text])
    return found;
  for (gsize depth = 0; text + depth < end && low < high; depth++) {
    guint byte = (guint8) text[depth];
    low = lower_bound (t, low, high, depth, byte);
    high = lower_bound (t, low, high, depth, byte + 1);
    /* The shortest of those left comes first: it may end right here. Of equal texts the lowest token number counts. */
    for (guint32 i = low; i < high; i++) {
      gsize length;
      eng_token_text (t, t->specials[i], &length);
      if (length != depth + 1)
        break;
      if (control || !(t->flags[t->specials[i]] & ENG_TOKEN_CONTROL)) {
        found = t->specials[i];
        break;
      }
    }
  }
  return found;
}
