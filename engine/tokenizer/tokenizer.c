/* tokenizer.c: text to tokens: special tokens are cut out first, the rest goes piece by piece through the merges. */
#include "engine/tokenizer/tokenizer.h"

#include <string.h>

#include "engine/tokenizer/tokenizer_private.h"

#define MAX_PIECE ((gsize) 1 << 28) /* symbols are numbered with 32 bits */

EngTokenizer *eng_tokenizer_new (const EngGguf *gguf, GError **error)
{
  EngTokenizer *t = g_new0 (EngTokenizer, 1);
  t->seed = (guint64) g_random_int () << 32 | g_random_int ();
  if (!eng_vocab_load (t, gguf, error))
    g_clear_pointer (&t, eng_tokenizer_free);
  return t;
}

void eng_tokenizer_free (EngTokenizer *t)
{
  if (t == NULL)
    return;
  g_free (t->bytes);
  g_free (t->offsets);
  g_free (t->flags);
  g_free (t->scores);
  g_free (t->text_slots);
  g_free (t->merges);
  g_free (t->pair_slots);
  g_free (t->specials);
  g_free (t);
}

guint eng_tokenizer_n_tokens (const EngTokenizer *t)
{
  return t->n_tokens;
}

int eng_tokenizer_bos (const EngTokenizer *t)
{
  return t->bos;
}

int eng_tokenizer_eos (const EngTokenizer *t)
{
  return t->eos;
}

gboolean eng_tokenizer_adds_bos (const EngTokenizer *t)
{
  return t->adds_bos;
}

static gboolean has_flag (const EngTokenizer *t, int token, guint flag)
{
  return token >= 0 && (guint) token < t->n_tokens && (t->flags[token] & flag) != 0;
}

gboolean eng_tokenizer_is_end (const EngTokenizer *t, int token)
{
  return has_flag (t, token, ENG_TOKEN_END);
}

gboolean eng_tokenizer_is_control (const EngTokenizer *t, int token)
{
  return has_flag (t, token, ENG_TOKEN_CONTROL);
}

const char *eng_tokenizer_piece (const EngTokenizer *t, int token, gboolean special, gsize *length)
{
  *length = 0;
  if (token < 0 || (guint) token >= t->n_tokens || (!special && (t->flags[token] & ENG_TOKEN_CONTROL)))
    return "";
  return eng_token_text (t, (guint32) token, length);
}

/* Text without special tokens, by byte-level BPE. */
static void encode_bpe (const EngTokenizer *t, EngMergeScratch *scratch, const char *text, const char *end, GArray *out)
{
  EngCut cut = { t->rules, { NULL } };
  while (text < end) {
    gsize n = MIN (eng_pretokenize (&cut, text, end), MAX_PIECE);
    guint32 whole = t->whole_words ? eng_vocab_find_text (t, text, n) : ENG_NO_TOKEN;
    if (whole != ENG_NO_TOKEN)
      g_array_append_val (out, whole);
    else
      eng_merge_piece (t, scratch, text, n, out);
    text += n;
  }
}

/* Text without special tokens, by SentencePiece: one piece, in which U+2581 is a space as any other. */
static void encode_spm (const EngTokenizer *t, EngMergeScratch *scratch, const char *text, const char *end, gboolean prefix, GArray *out)
{
  g_autoptr (GString) piece = g_string_sized_new ((gsize) (end - text) + 2);
  if (prefix)
    g_string_append_c (piece, ' ');
  while (text < end) {
    const char *mark = memmem (text, (gsize) (end - text), "\xE2\x96\x81", 3);
    g_string_append_len (piece, text, (mark != NULL ? mark : end) - text);
    if (mark != NULL)
      g_string_append_c (piece, ' ');
    text = mark != NULL ? mark + 3 : end;
  }
  for (gsize at = 0; at < piece->len; at += MAX_PIECE)
    eng_merge_piece (t, scratch, piece->str + at, MIN (piece->len - at, MAX_PIECE), out);
}

void eng_tokenizer_encode (const EngTokenizer *t, const char *text, gssize length, EngTokenizeFlags flags, GArray *out)
{
  const char *end = text + (length < 0 ? strlen (text) : (gsize) length);
  EngMergeScratch *scratch = eng_merge_scratch_new ();
  gboolean prefix = t->space_prefix; /* wanted at the start and after a special token */
  while (text < end) {
    guint32 special = ENG_NO_TOKEN;
    const char *stop = text;
    for (; stop < end; stop++)
      if (t->special_first[(guint8) *stop] &&
          (special = eng_vocab_match_special (t, stop, end, (flags & ENG_TOKENIZE_SPECIAL) != 0)) != ENG_NO_TOKEN)
        break;
    if (stop > text && t->model == ENG_VOCAB_SPM)
      encode_spm (t, scratch, text, stop, prefix, out);
    else if (stop > text)
      encode_bpe (t, scratch, text, stop, out);
    prefix = FALSE;
    if (special != ENG_NO_TOKEN) {
      gsize n;
      eng_token_text (t, special, &n);
      g_array_append_val (out, special);
      stop += n;
      prefix = t->space_prefix;
    }
    text = stop;
  }
  eng_merge_scratch_free (scratch);
}
