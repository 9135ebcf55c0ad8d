/* detokenizer.c: tokens to text as they come. A token may end inside a character; its bytes wait here for the rest. */
#include "engine/tokenizer/tokenizer.h"
#include "engine/tokenizer/utf8.h"

#include <string.h>

struct EngDetokenizer {
  const EngTokenizer *tokenizer;
  char waiting[4];
  gsize n_waiting;
  GString *input, *text;
};

EngDetokenizer *eng_detokenizer_new (const EngTokenizer *t)
{
  EngDetokenizer *d = g_new0 (EngDetokenizer, 1);
  d->tokenizer = t;
  d->input = g_string_new (NULL);
  d->text = g_string_new (NULL);
  return d;
}

void eng_detokenizer_free (EngDetokenizer *d)
{
  if (d == NULL)
    return;
  g_string_free (d->input, TRUE);
  g_string_free (d->text, TRUE);
  g_free (d);
}

/* Whether p..end, no whole character, is the beginning of one. Ranges of the second byte: Unicode, table 3-7. */
static gboolean may_continue (const char *p, const char *end)
{
  const guint8 *s = (const guint8 *) p;
  gsize have = (gsize) (end - p), need = s[0] >= 0xF0 && s[0] <= 0xF4 ? 4 : s[0] >= 0xE0 && s[0] < 0xF0 ? 3 : s[0] >= 0xC2 ? 2 : 0;
  if (s[0] > 0xF4 || have >= need)
    return FALSE;
  guint8 low = s[0] == 0xE0 ? 0xA0 : s[0] == 0xF0 ? 0x90 : 0x80, high = s[0] == 0xED ? 0x9F : s[0] == 0xF4 ? 0x8F : 0xBF;
  for (gsize i = 1; i < have; i++, low = 0x80, high = 0xBF)
    if (s[i] < low || s[i] > high)
      return FALSE;
  return TRUE;
}

/* Moves what is whole from input to text; what may yet become whole stays, unless this is the end. */
static const char *take (EngDetokenizer *d, gboolean at_end)
{
  g_string_truncate (d->text, 0);
  const char *p = d->input->str, *end = p + d->input->len;
  while (p < end) {
    guint32 c;
    guint n = eng_utf8_next (p, end, &c);
    if (c == ENG_UTF8_BROKEN && !at_end && may_continue (p, end))
      break;
    if (c == ENG_UTF8_BROKEN)
      g_string_append (d->text, "\xEF\xBF\xBD");
    else
      g_string_append_len (d->text, p, n);
    p += n;
  }
  d->n_waiting = (gsize) (end - p);
  memcpy (d->waiting, p, d->n_waiting);
  return d->text->str;
}

const char *eng_detokenizer_push (EngDetokenizer *d, int token)
{
  gsize length;
  const char *piece = eng_tokenizer_piece (d->tokenizer, token, FALSE, &length);
  g_string_truncate (d->input, 0);
  g_string_append_len (d->input, d->waiting, (gssize) d->n_waiting);
  g_string_append_len (d->input, piece, (gssize) length);
  return take (d, FALSE);
}

const char *eng_detokenizer_flush (EngDetokenizer *d)
{
  g_string_truncate (d->input, 0);
  g_string_append_len (d->input, d->waiting, (gssize) d->n_waiting);
  return take (d, TRUE);
}
