/* tokenizer.c: text to tokens: special tokens are cut out first, what lies between is normalised, cut, and goes piece by piece through the
 * model. */
#include "engine/tokenizer/tokenizer_private.h"

#include <string.h>

#include "engine/tokenizer/charset.h"
#include "engine/tokenizer/utf8.h"

#define MAX_PIECE ((gsize) 1 << 28) /* symbols are numbered with 32 bits */

EngTokenizer *eng_tokenizer_new_from_vocab (const EngVocab *vocab, GError **error)
{
  EngTokenizer *t = g_new0 (EngTokenizer, 1);
  t->seed = (guint64) g_random_int () << 32 | g_random_int ();
  if (!eng_tokenizer_build (t, vocab, error))
    g_clear_pointer (&t, eng_tokenizer_free);
  return t;
}

EngTokenizer *eng_tokenizer_new (const EngGguf *gguf, GError **error)
{
  g_autoptr (EngVocab) vocab = eng_vocab_new_from_gguf (gguf, error);
  return vocab != NULL ? eng_tokenizer_new_from_vocab (vocab, error) : NULL;
}

void eng_tokenizer_free (EngTokenizer *t)
{
  if (t == NULL)
    return;
  eng_normalizer_free (t->normalizer);
  eng_pretokenizer_free (t->pre);
  g_free (t->bytes);
  g_free (t->offsets);
  g_free (t->flags);
  g_free (t->scores);
  g_free (t->text_slots);
  g_free (t->merges);
  g_free (t->pair_slots);
  eng_trie_free (t->pieces);
  eng_specials_clear (&t->specials);
  eng_specials_clear (&t->normalized_specials);
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

void eng_tokenizer_encode_whole (const EngTokenizer *t, const char *text, gssize length, GArray *out)
{
  gint32 bos = t->bos;
  if (bos >= 0 && t->adds_bos)
    g_array_append_val (out, bos);
  eng_tokenizer_encode (t, text, length, ENG_TOKENIZE_PLAIN, out);
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

/* ---- one call ------------------------------------------------------------------------------------------------------------- */

typedef struct {
  const EngTokenizer *t;
  EngMergeScratch *merge;
  GArray *best;             /* of EngBestPiece */
  GString *normal, *prefixed, *piece;
  const EngSpan *literals;  /* stretches without control tokens, in order */
  guint n_literals;
  const char *text;         /* what literals count from */
  gboolean first;           /* nothing was encoded yet */
  GArray *out;
} Encoder;

/* One piece by the model. */
static void encode_piece (Encoder *e, const char *text, gsize length)
{
  const EngTokenizer *t = e->t;
  if (t->model == ENG_VOCAB_UNIGRAM) {
    eng_unigram_piece (t, e->best, text, length, e->out);
    return;
  }
  if (t->model == ENG_VOCAB_WORDPIECE) {
    eng_wordpiece_piece (t, text, length, e->out);
    return;
  }
  guint32 whole = t->whole_words ? eng_vocab_find_text (t, text, length) : ENG_NO_TOKEN;
  if (whole != ENG_NO_TOKEN)
    g_array_append_val (e->out, whole);
  else
    eng_merge_piece (t, e->merge, text, length, e->out);
}

/* U+2581 is a space as any other where tokens are written in characters. */
static void encode_marked_piece (Encoder *e, const char *text, gsize length)
{
  const EngTokenizer *t = e->t;
  gboolean marks = t->model == ENG_VOCAB_SPM || t->model == ENG_VOCAB_UNIGRAM || t->characters;
  const char *end = text + length, *mark = marks ? memmem (text, length, "\xE2\x96\x81", 3) : NULL;
  if (mark == NULL) {
    encode_piece (e, text, length);
    return;
  }
  for (g_string_truncate (e->piece, 0); text < end; text = mark != NULL ? mark + 3 : end) {
    mark = memmem (text, (gsize) (end - text), "\xE2\x96\x81", 3);
    g_string_append_len (e->piece, text, (mark != NULL ? mark : end) - text);
    if (mark != NULL)
      g_string_append_c (e->piece, ' ');
  }
  encode_piece (e, e->piece->str, e->piece->len);
}

static gboolean wants_prefix (const Encoder *e, const char *text, const char *end, gboolean at_beginning)
{
  const EngTokenizer *t = e->t;
  guint32 c;
  if (t->prefix == ENG_PREFIX_NEVER || (t->prefix == ENG_PREFIX_FIRST && !at_beginning))
    return FALSE;
  eng_utf8_next (text, end, &c);
  gboolean begins_with_space = c == ' ' || (c == 0x2581 && (t->characters || t->model != ENG_VOCAB_BPE));
  return t->prefix_always || !begins_with_space;
}

static void encode_cut (Encoder *e, const char *text, const char *end, guint first, guint last, gboolean at_beginning);

/* What the first stages have cut out: a prefix comes here, the other stages then see it. */
static void encode_part (Encoder *e, const char *text, const char *end, gboolean at_beginning)
{
  const EngTokenizer *t = e->t;
  if (wants_prefix (e, text, end, at_beginning)) {
    g_string_assign (e->prefixed, " ");
    g_string_append_len (e->prefixed, text, end - text);
    text = e->prefixed->str;
    end = text + e->prefixed->len;
  }
  encode_cut (e, text, end, t->prefix_stage, t->pre != NULL ? eng_pretokenizer_n_stages (t->pre) : 0, FALSE);
}

static void encode_cut (Encoder *e, const char *text, const char *end, guint first, guint last, gboolean at_beginning)
{
  const EngTokenizer *t = e->t;
  gboolean parts = last == t->prefix_stage && first < last;
  EngCut cut;
  if (first < last)
    eng_cut_init (&cut, t->pre, first, last);
  for (const char *begin = text; text < end;) {
    gboolean dropped = FALSE;
    gsize n = MIN (first < last ? eng_cut_next (&cut, text, end, &dropped) : (gsize) (end - text), MAX_PIECE);
    if (!dropped && parts)
      encode_part (e, text, text + n, at_beginning && text == begin);
    else if (!dropped)
      encode_marked_piece (e, text, n);
    text += n;
  }
  if (first < last)
    eng_cut_clear (&cut);
}

/* Normalised text without special tokens. */
static void encode_plain (Encoder *e, const char *text, const char *end)
{
  if (text == end)
    return;
  gboolean at_beginning = e->first;
  e->first = FALSE;
  if (e->t->prefix_stage > 0)
    encode_cut (e, text, end, 0, e->t->prefix_stage, at_beginning);
  else
    encode_part (e, text, end, at_beginning);
}

static gboolean is_word_character (guint32 c)
{
  return c != ENG_UTF8_BROKEN && (g_unichar_isalnum (c) || g_unichar_ismark (c) || c == '_');
}

/* The character that ends at p. */
static guint32 character_before (const char *begin, const char *p)
{
  guint32 c = ' ';
  if (p == begin)
    return c;
  const char *start = p - 1;
  while (start > begin && p - start < 4 && ((guint8) *start & 0xC0) == 0x80)
    start--;
  eng_utf8_next (start, p, &c);
  return c;
}

static gboolean stands_alone (const char *begin, const char *text, gsize length, const char *end)
{
  guint32 after = ' ';
  if (text + length < end)
    eng_utf8_next (text + length, end, &after);
  return !is_word_character (character_before (begin, text)) && !is_word_character (after);
}

typedef void (*EncodeBetween) (Encoder *e, const char *text, const char *end);

/* Finds special tokens in text..end and hands on what lies between. control_end: where the next literal begins, moved on with the text. */
static void encode_specials (Encoder *e, const EngSpecials *specials, const char *text, const char *end, const char *control_end, EncodeBetween between)
{
  const EngTokenizer *t = e->t;
  const char *begin = text;
  guint literal = 0;
  for (const char *at = text; at < end;) {
    gsize length;
    while (literal < e->n_literals && e->text + e->literals[literal].end <= at)
      literal++;
    if (e->literals != NULL)
      control_end = literal < e->n_literals ? e->text + e->literals[literal].begin : end;
    guint32 special = specials->first[(guint8) *at] ? eng_specials_match (t, specials, at, end, control_end, &length) : ENG_NO_TOKEN;
    if (special == ENG_NO_TOKEN || ((t->flags[special] & ENG_TOKEN_SINGLE_WORD) && !stands_alone (begin, at, length, end))) {
      at++;
      continue;
    }
    const char *stop = at;
    guint32 c;
    while ((t->flags[special] & ENG_TOKEN_LSTRIP) && stop > text && eng_is_space (c = character_before (text, stop)))
      stop -= g_unichar_to_utf8 (c, NULL);
    between (e, text, stop);
    g_array_append_val (e->out, special);
    e->first = FALSE;
    for (at += length; (t->flags[special] & ENG_TOKEN_RSTRIP) && at < end;) {
      guint n = eng_utf8_next (at, end, &c);
      if (!eng_is_space (c))
        break;
      at += n;
    }
    text = at;
  }
  between (e, text, end);
}

/* Text as it comes, without special tokens but for those that are recognised in what it becomes. */
static void encode_raw (Encoder *e, const char *text, const char *end)
{
  const EngTokenizer *t = e->t;
  if (text == end)
    return;
  if (t->normalizer != NULL) {
    g_string_truncate (e->normal, 0);
    g_string_append_len (e->normal, text, end - text);
    eng_normalizer_apply (t->normalizer, e->normal);
  }
  const char *begin = t->normalizer != NULL ? e->normal->str : text, *stop = t->normalizer != NULL ? begin + e->normal->len : end;
  if (t->normalized_specials.list->len == 0) {
    encode_plain (e, begin, stop);
    return;
  }
  gboolean literal = FALSE; /* no control token where any of it is a literal */
  for (guint i = 0; i < e->n_literals; i++)
    literal |= e->text + e->literals[i].begin < end && e->text + e->literals[i].end > text;
  const EngSpan *literals = e->literals;
  e->literals = NULL;
  encode_specials (e, &t->normalized_specials, begin, stop, literal ? begin : stop, encode_plain);
  e->literals = literals;
}

void eng_tokenizer_encode_prompt (const EngTokenizer *t, const char *text, gsize length, const EngSpan *literals, guint n_literals, GArray *out)
{
  static const EngSpan nothing = { 0, 0 };
  Encoder e = { t, eng_merge_scratch_new (), g_array_new (FALSE, FALSE, sizeof (EngBestPiece)), g_string_new (NULL), g_string_new (NULL), g_string_new (NULL),
                n_literals > 0 ? literals : &nothing, n_literals, text, TRUE, out };
  encode_specials (&e, &t->specials, text, text + length, NULL, encode_raw);
  eng_merge_scratch_free (e.merge);
  g_array_unref (e.best);
  g_string_free (e.normal, TRUE);
  g_string_free (e.prefixed, TRUE);
  g_string_free (e.piece, TRUE);
}

void eng_tokenizer_encode (const EngTokenizer *t, const char *text, gssize length, EngTokenizeFlags flags, GArray *out)
{
  EngSpan all = { 0, length < 0 ? strlen (text) : (gsize) length };
  eng_tokenizer_encode_prompt (t, text, all.end, &all, (flags & ENG_TOKENIZE_SPECIAL) == 0, out);
}
