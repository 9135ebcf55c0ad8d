/* tokenizer_build.c: a vocabulary to the tables of a tokenizer. Everything that a vocabulary can get wrong is found here, once, so that
 * encoding need not doubt its tables. */
#include "engine/tokenizer/tokenizer_private.h"

#include "engine/error.h"
#include "engine/tokenizer/byte_alphabet.h"
#include "engine/tokenizer/utf8.h"

#include <math.h>
#include <string.h>

#define MAX_TOKEN_BYTES 4096u  /* the longest of published vocabularies are under 1 KiB */
#define MAX_SPECIAL_BYTES 512u

typedef struct {
  EngTokenizer *t;
  const EngVocab *vocab;
  GError **error;
  GByteArray *bytes;
  GByteArray *scratch;
  gint16 byte_of[ENG_BYTE_ALPHABET_END]; /* the byte that a character stands for, or -1 */
} Builder;

#define refuse(b, code, ...) eng_vocab_refuse ((b)->vocab, (b)->error, (code), __VA_ARGS__)

static void build_alphabet (Builder *b)
{
  memset (b->byte_of, 0xFF, sizeof b->byte_of);
  for (guint byte = 0; byte < 256; byte++)
    b->byte_of[eng_byte_character ((guint8) byte)] = (gint16) byte;
}

/* Text in the byte-level alphabet to the bytes it stands for, in b->scratch. FALSE: it is not in that alphabet. */
static gboolean decode_alphabet (Builder *b, const char *text, gsize length)
{
  g_byte_array_set_size (b->scratch, 0);
  for (const char *p = text, *end = text + length; p < end;) {
    guint32 c;
    p += eng_utf8_next (p, end, &c);
    if (c >= G_N_ELEMENTS (b->byte_of) || b->byte_of[c] < 0)
      return FALSE;
    guint8 byte = (guint8) b->byte_of[c];
    g_byte_array_append (b->scratch, &byte, 1);
  }
  return TRUE;
}

/* SentencePiece writes a space as U+2581. */
static void decode_spaces (Builder *b, const char *text, gsize length)
{
  g_byte_array_set_size (b->scratch, 0);
  for (gsize i = 0; i < length;) {
    gboolean space = length - i >= 3 && memcmp (text + i, "\xE2\x96\x81", 3) == 0;
    g_byte_array_append (b->scratch, (const guint8 *) (space ? " " : text + i), 1);
    i += space ? 3 : 1;
  }
}

/* "<0x0A>" -> 10, or -1. */
static int parse_byte_token (const char *text, gsize length)
{
  if (length != 6 || memcmp (text, "<0x", 3) != 0 || text[5] != '>')
    return -1;
  int high = g_ascii_xdigit_value (text[3]), low = g_ascii_xdigit_value (text[4]);
  return high < 0 || low < 0 ? -1 : high * 16 + low;
}

/* ---- tokens --------------------------------------------------------------------------------------------------------------- */

static guint8 flags_of (const EngVocab *v, guint32 token)
{
  guint8 flags = 0, added = v->added != NULL ? v->added[token] : 0;
  if (v->types[token] == ENG_TOKEN_TYPE_CONTROL || v->types[token] == ENG_TOKEN_TYPE_UNKNOWN)
    flags |= ENG_TOKEN_CONTROL;
  else if (v->types[token] == ENG_TOKEN_TYPE_USER_DEFINED)
    flags |= ENG_TOKEN_USER_DEFINED;
  flags |= (guint8) ((added & ENG_ADDED_LSTRIP ? ENG_TOKEN_LSTRIP : 0) | (added & ENG_ADDED_RSTRIP ? ENG_TOKEN_RSTRIP : 0) |
                     (added & ENG_ADDED_SINGLE_WORD ? ENG_TOKEN_SINGLE_WORD : 0) | (added & ENG_ADDED_NORMALIZED ? ENG_TOKEN_NORMALIZED : 0));
  return flags;
}

/* The token's own bytes to the end of b->bytes. FALSE in *reachable: plain text never becomes this token through the model. */
static gboolean add_bytes (Builder *b, guint32 token, gboolean *reachable)
{
  EngTokenizer *t = b->t;
  const char *text = b->vocab->tokens[token].text;
  gsize length = b->vocab->tokens[token].length;
  gboolean byte_level = t->model == ENG_VOCAB_BPE && !t->characters, is_byte = b->vocab->types[token] == ENG_TOKEN_TYPE_BYTE && !byte_level;
  int byte = is_byte ? parse_byte_token (text, length) : -1;
  if (is_byte && byte < 0)
    return refuse (b, ENG_ERROR_FORMAT, "token %u is marked as a byte but is not written <0x00> to <0xFF>; get an undamaged file", token);
  *reachable = (t->flags[token] & (ENG_TOKEN_CONTROL | ENG_TOKEN_USER_DEFINED)) == 0 && b->vocab->types[token] != ENG_TOKEN_TYPE_UNUSED && byte < 0;
  if (byte >= 0) {
    guint8 single = (guint8) byte;
    g_byte_array_append (b->bytes, &single, 1);
    t->byte_tokens[byte] = token;
  } else if (!byte_level && !(t->flags[token] & ENG_TOKEN_CONTROL)) {
    decode_spaces (b, text, length);
    g_byte_array_append (b->bytes, b->scratch->data, b->scratch->len);
  } else if (byte_level && *reachable && decode_alphabet (b, text, length)) {
    g_byte_array_append (b->bytes, b->scratch->data, b->scratch->len);
    if (b->scratch->len == 1)
      t->byte_tokens[b->scratch->data[0]] = token;
  } else { /* control and added tokens are stored as they are written */
    g_byte_array_append (b->bytes, (const guint8 *) text, (guint) length);
    *reachable = FALSE;
  }
  return TRUE;
}

static gboolean add_token (Builder *b, guint32 token)
{
  EngTokenizer *t = b->t;
  gboolean reachable = FALSE;
  guint32 other, length = b->vocab->tokens[token].length;
  t->flags[token] = flags_of (b->vocab, token);
  guint32 most = t->flags[token] != 0 ? MAX_SPECIAL_BYTES : MAX_TOKEN_BYTES;
  if (length > most)
    return refuse (b, ENG_ERROR_FORMAT, "token %u is %u bytes long, at most %u make sense; get an undamaged file", token, length, most);
  if (!add_bytes (b, token, &reachable))
    return FALSE;
  t->offsets[token + 1] = b->bytes->len;
  t->bytes = (char *) b->bytes->data;
  length = t->offsets[token + 1] - t->offsets[token];
  t->max_token_bytes = MAX (t->max_token_bytes, length);
  if (reachable && length > 0 && !eng_vocab_add_text (t, token, &other))
    return refuse (b, ENG_ERROR_FORMAT, "tokens %u and %u have the same text; get an undamaged file", other, token);
  return TRUE;
}

static gboolean build_tokens (Builder *b)
{
  EngTokenizer *t = b->t;
  gsize n = t->n_tokens = b->vocab->n_tokens;
  t->offsets = g_new0 (guint32, n + 1);
  t->flags = g_new0 (guint8, n);
  memset (t->byte_tokens, 0xFF, sizeof t->byte_tokens);
  eng_vocab_build_text_table (t);
  for (guint32 token = 0; token < t->n_tokens; token++) {
    if (!add_token (b, token))
      return FALSE;
    if (b->bytes->len > G_MAXINT32)
      return refuse (b, ENG_ERROR_FORMAT, "the vocabulary's text is over 2 GiB; get an undamaged file");
  }
  t->has_all_bytes = TRUE;
  for (guint byte = 0; byte < 256; byte++)
    t->has_all_bytes &= t->byte_tokens[byte] != ENG_NO_TOKEN;
  t->scores = b->vocab->scores != NULL ? g_memdup2 (b->vocab->scores, n * sizeof (float)) : NULL;
  return TRUE;
}

/* ---- merges --------------------------------------------------------------------------------------------------------------- */

/* A part of a merge, as it is written, to its token. */
static guint32 find_part (Builder *b, EngText part)
{
  if (b->t->characters)
    decode_spaces (b, part.text, part.length);
  else if (!decode_alphabet (b, part.text, part.length))
    return ENG_NO_TOKEN;
  return eng_vocab_find_text (b->t, (const char *) b->scratch->data, b->scratch->len);
}

static gboolean add_merge (Builder *b, guint32 rank)
{
  EngTokenizer *t = b->t;
  EngMerge *merge = &t->merges[rank];
  merge->left = find_part (b, b->vocab->merges[2 * rank]);
  merge->right = find_part (b, b->vocab->merges[2 * rank + 1]);
  if (merge->left != ENG_NO_TOKEN && merge->right != ENG_NO_TOKEN) {
    gsize n_left, n_right;
    const char *left = eng_token_text (t, merge->left, &n_left), *right = eng_token_text (t, merge->right, &n_right);
    g_byte_array_set_size (b->scratch, 0);
    g_byte_array_append (b->scratch, (const guint8 *) left, (guint) n_left);
    g_byte_array_append (b->scratch, (const guint8 *) right, (guint) n_right);
    merge->result = eng_vocab_find_text (t, (const char *) b->scratch->data, b->scratch->len);
  }
  /* The result is always longer than its parts, so merges cannot run in a circle. */
  if (merge->left == ENG_NO_TOKEN || merge->right == ENG_NO_TOKEN || merge->result == ENG_NO_TOKEN)
    return refuse (b, ENG_ERROR_FORMAT, "merge %u names a token that the vocabulary lacks; get an undamaged file", rank);
  if (!eng_vocab_add_pair (t, rank))
    return refuse (b, ENG_ERROR_FORMAT, "merge %u is there twice; get an undamaged file", rank);
  return TRUE;
}

static gboolean build_merges (Builder *b)
{
  EngTokenizer *t = b->t;
  t->n_merges = b->vocab->n_merges;
  t->merges = g_new (EngMerge, t->n_merges);
  for (guint32 i = 0; i < t->n_merges; i++)
    t->merges[i] = (EngMerge){ ENG_NO_TOKEN, ENG_NO_TOKEN, ENG_NO_TOKEN };
  eng_vocab_build_pair_table (t);
  for (guint32 rank = 0; rank < t->n_merges; rank++)
    if (!add_merge (b, rank))
      return FALSE;
  return TRUE;
}

/* ---- unigram -------------------------------------------------------------------------------------------------------------- */

/* SentencePiece's: a character without a piece costs ten more than the least likely piece. */
static void build_pieces (EngTokenizer *t)
{
  enum { UNKNOWN_PENALTY = 10 };
  g_autofree const char **texts = g_new (const char *, t->n_tokens);
  g_autofree guint32 *lengths = g_new (guint32, t->n_tokens), *tokens = g_new (guint32, t->n_tokens);
  guint32 n = 0;
  float least = 0;
  for (guint32 token = 0; token < t->n_tokens; token++) {
    gsize length;
    const char *text = eng_token_text (t, token, &length);
    if (length == 0 || eng_vocab_find_text (t, text, length) != token)
      continue;
    texts[n] = text;
    lengths[n] = (guint32) length;
    tokens[n++] = token;
    least = n == 1 ? t->scores[token] : MIN (least, t->scores[token]);
  }
  t->pieces = eng_trie_new (texts, lengths, tokens, n);
  t->unknown_score = least - UNKNOWN_PENALTY;
}

static gboolean check_scores (Builder *b)
{
  for (guint32 token = 0; token < b->t->n_tokens; token++)
    if (!isfinite (b->t->scores[token]))
      return refuse (b, ENG_ERROR_FORMAT, "the score of token %u is no number; get an undamaged file", token);
  return TRUE;
}

/* ---- special tokens ------------------------------------------------------------------------------------------------------- */

/* The names under which published models end a turn; several of them may be in use at once. */
static gboolean names_an_end (const char *text, gsize length)
{
  static const char *const names[] = { "<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<end_of_turn>", "<|end|>", "<|endoftext|>",
                                       "<|end_of_text|>", "<|return|>", "<|call|>", "<EOT>", "<|eot|>", "<end_of_utterance>",
                                       "<｜end▁of▁sentence｜>", "<|END_OF_TURN_TOKEN|>", "<turn|>", "[EOS]", "[EOT]", "[|endofturn|]", "<|role_end|>" };
  for (gsize i = 0; i < G_N_ELEMENTS (names); i++)
    if (strlen (names[i]) == length && memcmp (names[i], text, length) == 0)
      return TRUE;
  return FALSE;
}

/* The control token with this text, or ENG_NO_TOKEN. */
static guint32 find_control (const EngTokenizer *t, const char *name)
{
  for (guint32 token = 0; token < t->n_tokens; token++) {
    gsize length;
    const char *text = eng_token_text (t, token, &length);
    if ((t->flags[token] & ENG_TOKEN_CONTROL) && length == strlen (name) && memcmp (text, name, length) == 0)
      return token;
  }
  return ENG_NO_TOKEN;
}

static void mark_ends (Builder *b)
{
  static const EngTokenId ids[] = { ENG_ID_EOT, ENG_ID_EOM, ENG_ID_EOS };
  EngTokenizer *t = b->t;
  for (guint32 token = 0; token < t->n_tokens; token++) {
    gsize length;
    const char *text = eng_token_text (t, token, &length);
    if ((t->flags[token] & ENG_TOKEN_CONTROL) && names_an_end (text, length))
      t->flags[token] |= ENG_TOKEN_END;
  }
  guint32 end = find_control (t, "<|end|>");
  if (end != ENG_NO_TOKEN && find_control (t, "<|return|>") != ENG_NO_TOKEN && find_control (t, "<|call|>") != ENG_NO_TOKEN)
    t->flags[end] &= (guint8) ~ENG_TOKEN_END; /* there it ends one of a turn's messages */
  for (gsize i = 0; i < G_N_ELEMENTS (ids); i++)
    if (b->vocab->ids[ids[i]] >= 0)
      t->flags[b->vocab->ids[ids[i]]] |= ENG_TOKEN_END;
  for (guint i = 0; i < b->vocab->ends->len; i++)
    t->flags[g_array_index (b->vocab->ends, int, i)] |= ENG_TOKEN_END;
}

/* Words between marks that the chat template itself writes are structure. White space, which it writes too, is not. */
static void mark_structure (Builder *b)
{
  EngTokenizer *t = b->t;
  const char *source = b->vocab->chat_template;
  for (guint32 token = 0; source != NULL && token < t->n_tokens; token++) {
    gsize length;
    const char *text = eng_token_text (t, token, &length);
    gboolean marked = length > 2 && (*text == '<' || *text == '[') && (text[length - 1] == '>' || text[length - 1] == ']');
    if ((t->flags[token] & ENG_TOKEN_USER_DEFINED) && marked && memmem (source, strlen (source), text, length) != NULL)
      t->flags[token] |= ENG_TOKEN_STRUCTURE;
  }
}

/* ---- the whole ------------------------------------------------------------------------------------------------------------ */

static gboolean build_pipeline (Builder *b)
{
  EngTokenizer *t = b->t;
  const EngVocab *v = b->vocab;
  g_autoptr (GError) failure = NULL;
  if (v->pre_json != NULL)
    t->pre = eng_pretokenizer_new_json (v->pre_json, &failure);
  else if (v->pre_name != NULL)
    t->pre = eng_pretokenizer_new (v->pre_name, &failure);
  else if (v->model == ENG_VOCAB_WORDPIECE)
    t->pre = eng_pretokenizer_new_json ("{\"type\":\"BertPreTokenizer\"}", &failure);
  if (failure == NULL && v->normalizer_json != NULL)
    t->normalizer = eng_normalizer_new_json (v->normalizer_json, &failure);
  else if (failure == NULL && v->model == ENG_VOCAB_WORDPIECE)
    t->normalizer = eng_normalizer_new_json ("{\"type\":\"BertNormalizer\"}", &failure);
  else if (failure == NULL && (v->charsmap != NULL || v->trims_spaces))
    t->normalizer = eng_normalizer_new_sentencepiece (v->charsmap, v->trims_spaces, &failure);
  if (failure != NULL)
    return refuse (b, failure->code, "%s", failure->message);
  if (v->pre_json != NULL)
    t->prefix = eng_pretokenizer_prefix (t->pre, &t->prefix_stage);
  else
    t->prefix = v->space_prefix ? ENG_PREFIX_ALWAYS : ENG_PREFIX_NEVER;
  t->prefix_always = v->pre_json == NULL;
  return TRUE;
}

gboolean eng_tokenizer_build (EngTokenizer *t, const EngVocab *v, GError **error)
{
  Builder b = { .t = t, .vocab = v, .error = error, .bytes = g_byte_array_new (), .scratch = g_byte_array_new () };
  t->model = v->model;
  t->characters = v->characters;
  t->by_rank = v->by_rank;
  t->whole_words = v->whole_words;
  t->fuses_unknown = v->fuses_unknown;
  t->wide_sums = v->wide_sums;
  t->bos = v->ids[ENG_ID_BOS];
  t->eos = v->ids[ENG_ID_EOS];
  t->unknown = v->ids[ENG_ID_UNKNOWN];
  t->adds_bos = v->adds_bos && t->bos >= 0;
  build_alphabet (&b);
  gboolean ok = build_pipeline (&b) && build_tokens (&b) && (t->model != ENG_VOCAB_BPE || t->by_rank || build_merges (&b)) &&
                (t->scores == NULL || check_scores (&b));
  g_byte_array_unref (b.scratch);
  t->bytes = (char *) g_byte_array_free (b.bytes, FALSE);
  if (!ok)
    return FALSE;
  if (t->model == ENG_VOCAB_UNIGRAM)
    build_pieces (t);
  mark_ends (&b);
  mark_structure (&b);
  eng_specials_build (t);
  return TRUE;
}
