/* wordpiece.c: a word as the longest token it begins with, then the longest that the rest begins with, and so on (Schuster and Nakajima
 * 2012; Devlin et al. 2019). Tokens at a word's beginning have a space in front. */
#include "engine/tokenizer/tokenizer_private.h"

#include <string.h>

enum { MAX_WORD_CHARACTERS = 100 };

static gboolean is_long (const char *text, gsize length)
{
  gsize n = 0;
  for (gsize i = 0; i < length; i++)
    n += ((guint8) text[i] & 0xC0) != 0x80;
  return n > MAX_WORD_CHARACTERS;
}

void eng_wordpiece_piece (const EngTokenizer *t, const char *text, gsize length, GArray *out)
{
  guint before = out->len;
  g_autofree char *word = g_malloc (length + 1);
  gboolean whole = !is_long (text, length);
  word[0] = ' ';
  memcpy (word + 1, text, length);
  for (gsize at = 0, n; whole && at < length + 1; at += n) {
    guint32 token = ENG_NO_TOKEN;
    gsize shortest = at == 0 ? 2 : 1;
    for (n = MIN (length + 1 - at, t->max_token_bytes); n >= shortest && token == ENG_NO_TOKEN; n--)
      if (at + n == length + 1 || ((guint8) word[at + n] & 0xC0) != 0x80)
        token = eng_vocab_find_text (t, word + at, n);
    n++;
    whole = token != ENG_NO_TOKEN;
    if (whole)
      g_array_append_val (out, token);
  }
  if (whole)
    return;
  g_array_set_size (out, before); /* a word with a part that is no token is unknown as a whole */
  if (t->unknown >= 0)
    g_array_append_val (out, t->unknown);
}
