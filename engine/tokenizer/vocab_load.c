/* vocab_load.c: tokenizer.ggml.* metadata to a checked vocabulary. Everything a file can get wrong is found here, once, so that
 * encoding need not doubt its tables. Keys: the GGUF specification, section "Tokenizer". */
#include "engine/error.h"
#include "engine/tokenizer/tokenizer_private.h"
#include "engine/tokenizer/utf8.h"

#include <string.h>

#define TOKENS "tokenizer.ggml.tokens"
#define TYPES "tokenizer.ggml.token_type"
#define SCORES "tokenizer.ggml.scores"
#define MERGES "tokenizer.ggml.merges"

#define MAX_TOKENS (1u << 24)
#define MAX_TOKEN_BYTES 4096u  /* the longest of published vocabularies are under 1 KiB */
#define MAX_SPECIAL_BYTES 512u

enum { TYPE_NORMAL = 1, TYPE_UNKNOWN = 2, TYPE_CONTROL = 3, TYPE_USER_DEFINED = 4, TYPE_UNUSED = 5, TYPE_BYTE = 6 };

typedef struct {
  EngTokenizer *t;
  const EngGguf *gguf;
  GError **error;
  GByteArray *bytes;
  GByteArray *scratch;
  gint16 byte_of[0x144]; /* GPT-2's alphabet: printable character -> the byte it stands for, or -1 */
} Loader;

static gboolean G_GNUC_PRINTF (3, 4) refuse (Loader *l, EngError code, const char *format, ...)
{
  va_list arguments;
  va_start (arguments, format);
  g_autofree char *what = g_strdup_vprintf (format, arguments);
  va_end (arguments);
  g_set_error (l->error, ENG_ERROR, (int) code, "%s: %s", eng_gguf_path (l->gguf), what);
  return FALSE;
}

/* The bytes that GPT-2's byte-level alphabet prints as themselves; the other 68 are numbered from U+0100 on. */
static gboolean prints_as_itself (guint byte)
{
  return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

static void build_alphabet (Loader *l)
{
  memset (l->byte_of, 0xFF, sizeof l->byte_of);
  guint next = 0x100;
  for (guint byte = 0; byte < 256; byte++)
    l->byte_of[prints_as_itself (byte) ? byte : next++] = (gint16) byte;
}

/* Text in the byte-level alphabet to the bytes it stands for, in l->scratch. FALSE: it is not in that alphabet. */
static gboolean decode_alphabet (Loader *l, const char *text, gsize length)
{
  g_byte_array_set_size (l->scratch, 0);
  for (const char *p = text, *end = text + length; p < end;) {
    guint32 c;
    p += eng_utf8_next (p, end, &c);
    if (c >= G_N_ELEMENTS (l->byte_of) || l->byte_of[c] < 0)
      return FALSE;
    guint8 byte = (guint8) l->byte_of[c];
    g_byte_array_append (l->scratch, &byte, 1);
  }
  return TRUE;
}

/* SentencePiece writes a space as U+2581. */
static void decode_spaces (Loader *l, const char *text, gsize length)
{
  g_byte_array_set_size (l->scratch, 0);
  for (gsize i = 0; i < length;) {
    gboolean space = length - i >= 3 && memcmp (text + i, "\xE2\x96\x81", 3) == 0;
    g_byte_array_append (l->scratch, (const guint8 *) (space ? " " : text + i), 1);
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

static gboolean check_array (Loader *l, const char *key, gboolean numbers, gsize expected)
{
  EngKvType kind = ENG_KV_ARRAY;
  gsize n = eng_gguf_array_length (l->gguf, key, &kind);
  if (!eng_gguf_has (l->gguf, key))
    return refuse (l, ENG_ERROR_FORMAT, "%s is missing, so text cannot become tokens; get a complete file", key);
  if (eng_gguf_kv_type (l->gguf, key) != ENG_KV_ARRAY ||
      (numbers ? kind == ENG_KV_STRING || kind == ENG_KV_ARRAY || kind == ENG_KV_BOOL : kind != ENG_KV_STRING))
    return refuse (l, ENG_ERROR_FORMAT, "%s is not an array of %s; get an undamaged file", key, numbers ? "numbers" : "strings");
  if (expected > 0 && n != expected)
    return refuse (l, ENG_ERROR_FORMAT, "%s has %" G_GSIZE_FORMAT " entries for %" G_GSIZE_FORMAT " tokens; get an undamaged file", key,
                   n, expected);
  return TRUE;
}

static gboolean load_token (Loader *l, guint32 token)
{
  EngTokenizer *t = l->t;
  gsize length = 0;
  const char *text = eng_gguf_array_string (l->gguf, TOKENS, token, &length);
  gint64 type = eng_gguf_array_int (l->gguf, TYPES, token);
  if (type == TYPE_CONTROL || type == TYPE_UNKNOWN)
    t->flags[token] |= ENG_TOKEN_CONTROL;
  else if (type == TYPE_USER_DEFINED)
    t->flags[token] |= ENG_TOKEN_USER_DEFINED;
  gsize most = t->flags[token] != 0 ? MAX_SPECIAL_BYTES : MAX_TOKEN_BYTES;
  if (length > most)
    return refuse (l, ENG_ERROR_FORMAT, "token %u is %" G_GSIZE_FORMAT " bytes long, at most %" G_GSIZE_FORMAT
                   " make sense; get an undamaged file", token, length, most);
  int byte = t->model == ENG_VOCAB_SPM && type == TYPE_BYTE ? parse_byte_token (text, length) : -1;
  if (t->model == ENG_VOCAB_SPM && type == TYPE_BYTE && byte < 0)
    return refuse (l, ENG_ERROR_FORMAT, "token %u is marked as a byte but is not written <0x00> to <0xFF>; get an undamaged file", token);
  gboolean reachable = t->flags[token] == 0 && type != TYPE_UNUSED && byte < 0;
  if (byte >= 0) {
    guint8 single = (guint8) byte;
    g_byte_array_append (l->bytes, &single, 1);
    t->byte_tokens[byte] = token;
  } else if (t->model == ENG_VOCAB_SPM && !(t->flags[token] & ENG_TOKEN_CONTROL)) {
    decode_spaces (l, text, length);
    g_byte_array_append (l->bytes, l->scratch->data, l->scratch->len);
  } else if (t->model == ENG_VOCAB_BYTE_BPE && reachable && decode_alphabet (l, text, length)) {
    g_byte_array_append (l->bytes, l->scratch->data, l->scratch->len);
    if (l->scratch->len == 1)
      t->byte_tokens[l->scratch->data[0]] = token;
  } else { /* control and added tokens are stored as they are written */
    g_byte_array_append (l->bytes, (const guint8 *) text, (guint) length);
    reachable = FALSE;
  }
  t->offsets[token + 1] = l->bytes->len;
  t->bytes = (char *) l->bytes->data;
  length = t->offsets[token + 1] - t->offsets[token];
  t->max_token_bytes = MAX (t->max_token_bytes, (guint) length);
  guint32 other;
  if (reachable && length > 0 && !eng_vocab_add_text (t, token, &other))
    return refuse (l, ENG_ERROR_FORMAT, "tokens %u and %u have the same text; get an undamaged file", other, token);
  return TRUE;
}

static gboolean load_tokens (Loader *l)
{
  EngTokenizer *t = l->t;
  if (!check_array (l, TOKENS, FALSE, 0))
    return FALSE;
  gsize n = eng_gguf_array_length (l->gguf, TOKENS, NULL);
  if (n == 0 || n > MAX_TOKENS)
    return refuse (l, ENG_ERROR_FORMAT, "a vocabulary of %" G_GSIZE_FORMAT " tokens makes no sense; get an undamaged file", n);
  if (!check_array (l, TYPES, TRUE, n) || (t->model == ENG_VOCAB_SPM && !check_array (l, SCORES, TRUE, n)))
    return FALSE;
  t->n_tokens = (guint) n;
  t->offsets = g_new0 (guint32, n + 1);
  t->flags = g_new0 (guint8, n);
  memset (t->byte_tokens, 0xFF, sizeof t->byte_tokens);
  eng_vocab_build_text_table (t);
  for (guint32 token = 0; token < t->n_tokens; token++) {
    if (!load_token (l, token))
      return FALSE;
    if (l->bytes->len > G_MAXINT32)
      return refuse (l, ENG_ERROR_FORMAT, "the vocabulary's text is over 2 GiB; get an undamaged file");
  }
  if (t->model == ENG_VOCAB_SPM) {
    t->scores = g_new (float, n);
    for (gsize i = 0; i < n; i++)
      t->scores[i] = (float) eng_gguf_array_float (l->gguf, SCORES, i);
  }
  return TRUE;
}

/* A part of a merge, written in the alphabet, to its token. */
static guint32 find_part (Loader *l, const char *text, gsize length)
{
  return decode_alphabet (l, text, length) ? eng_vocab_find_text (l->t, (const char *) l->scratch->data, l->scratch->len)
                                           : ENG_NO_TOKEN;
}

static gboolean load_merge (Loader *l, guint32 rank)
{
  EngTokenizer *t = l->t;
  gsize length = 0;
  const char *text = eng_gguf_array_string (l->gguf, MERGES, rank, &length);
  const char *space = memchr (text, ' ', length);
  if (space == NULL || space == text || space + 1 == text + length)
    return refuse (l, ENG_ERROR_FORMAT, "merge %u is not two parts with a space between; get an undamaged file", rank);
  EngMerge *merge = &t->merges[rank];
  merge->left = find_part (l, text, (gsize) (space - text));
  merge->right = find_part (l, space + 1, length - (gsize) (space + 1 - text));
  if (merge->left != ENG_NO_TOKEN && merge->right != ENG_NO_TOKEN) {
    gsize n_left, n_right;
    const char *left = eng_token_text (t, merge->left, &n_left), *right = eng_token_text (t, merge->right, &n_right);
    g_byte_array_set_size (l->scratch, 0);
    g_byte_array_append (l->scratch, (const guint8 *) left, (guint) n_left);
    g_byte_array_append (l->scratch, (const guint8 *) right, (guint) n_right);
    merge->result = eng_vocab_find_text (t, (const char *) l->scratch->data, l->scratch->len);
  }
  /* The result is always longer than its parts, so merges cannot run in a circle. */
  if (merge->left == ENG_NO_TOKEN || merge->right == ENG_NO_TOKEN || merge->result == ENG_NO_TOKEN)
    return refuse (l, ENG_ERROR_FORMAT, "merge %u names a token that the vocabulary lacks; get an undamaged file", rank);
  if (!eng_vocab_add_pair (t, rank))
    return refuse (l, ENG_ERROR_FORMAT, "merge %u is there twice; get an undamaged file", rank);
  return TRUE;
}

static gboolean load_merges (Loader *l)
{
  EngTokenizer *t = l->t;
  if (!check_array (l, MERGES, FALSE, 0))
    return FALSE;
  gsize n = eng_gguf_array_length (l->gguf, MERGES, NULL);
  if (n > MAX_TOKENS)
    return refuse (l, ENG_ERROR_FORMAT, "%" G_GSIZE_FORMAT " merges make no sense; get an undamaged file", n);
  t->n_merges = (guint32) n;
  t->merges = g_new (EngMerge, n);
  for (gsize i = 0; i < n; i++)
    t->merges[i] = (EngMerge){ ENG_NO_TOKEN, ENG_NO_TOKEN, ENG_NO_TOKEN };
  eng_vocab_build_pair_table (t);
  for (guint32 rank = 0; rank < t->n_merges; rank++)
    if (!load_merge (l, rank))
      return FALSE;
  return TRUE;
}

static gboolean load_id (Loader *l, const char *key, int *id)
{
  *id = -1;
  if (!eng_gguf_has (l->gguf, key))
    return TRUE;
  gint64 value = eng_gguf_get_int (l->gguf, key, G_MININT64);
  if (value == G_MININT64)
    return refuse (l, ENG_ERROR_FORMAT, "%s is not a number; get an undamaged file", key);
  /* Converters write 2^32 - 1, or -1, for "none". */
  if (value == -1 || value == G_MAXUINT32)
    return TRUE;
  if (value < 0 || value >= l->t->n_tokens)
    return refuse (l, ENG_ERROR_FORMAT, "%s is %" G_GINT64_FORMAT ", outside the vocabulary of %u tokens; get an undamaged file", key,
                   value, l->t->n_tokens);
  *id = (int) value;
  return TRUE;
}

/* The names under which published models end a turn; several of them may be in use at once. */
static gboolean names_an_end (const char *text, gsize length)
{
  static const char *const names[] = { "<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<end_of_turn>", "<|end|>", "<|endoftext|>",
                                       "<|end_of_text|>", "<|return|>", "<|call|>", "<EOT>", "<|eot|>", "<end_of_utterance>",
                                       "<｜end▁of▁sentence｜>", "<|END_OF_TURN_TOKEN|>", "<turn|>", "[EOS]", "[EOT]" };
  for (gsize i = 0; i < G_N_ELEMENTS (names); i++)
    if (strlen (names[i]) == length && memcmp (names[i], text, length) == 0)
      return TRUE;
  return FALSE;
}

static gboolean load_ids (Loader *l)
{
  static const char *const end_keys[] = { "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id", "tokenizer.ggml.eos_token_id" };
  EngTokenizer *t = l->t;
  if (!load_id (l, "tokenizer.ggml.bos_token_id", &t->bos) || !load_id (l, "tokenizer.ggml.unknown_token_id", &t->unknown))
    return FALSE;
  for (gsize i = 0; i < G_N_ELEMENTS (end_keys); i++) { /* eos last: it is the one that stays */
    if (!load_id (l, end_keys[i], &t->eos))
      return FALSE;
    if (t->eos >= 0)
      t->flags[t->eos] |= ENG_TOKEN_END;
  }
  for (guint32 token = 0; token < t->n_tokens; token++) {
    gsize length;
    const char *text = eng_token_text (t, token, &length);
    if ((t->flags[token] & ENG_TOKEN_CONTROL) && names_an_end (text, length))
      t->flags[token] |= ENG_TOKEN_END;
  }
  return TRUE;
}

static gboolean load_kind (Loader *l)
{
  EngTokenizer *t = l->t;
  const char *model = eng_gguf_get_string (l->gguf, "tokenizer.ggml.model", NULL);
  if (model == NULL)
    return refuse (l, ENG_ERROR_FORMAT, "tokenizer.ggml.model is missing, so text cannot become tokens; get a complete file");
  if (g_str_equal (model, "llama")) {
    t->model = ENG_VOCAB_SPM;
    t->adds_bos = t->space_prefix = TRUE;
    return TRUE;
  }
  if (!g_str_equal (model, "gpt2"))
    return refuse (l, ENG_ERROR_UNSUPPORTED, "the tokenizer kind '%s' is not known (gpt2 and llama are); choose another model", model);
  const char *pre = eng_gguf_get_string (l->gguf, "tokenizer.ggml.pre", "default");
  const EngPretokenizerTraits *traits = eng_pretokenizer_find (pre);
  if (traits == NULL)
    return refuse (l, ENG_ERROR_UNSUPPORTED, "the pre-tokenizer '%s' is not known; choose another model", pre);
  t->model = ENG_VOCAB_BYTE_BPE;
  t->rules = traits->rules;
  t->whole_words = traits->whole_words;
  t->adds_bos = traits->adds_bos;
  return TRUE;
}

gboolean eng_vocab_load (EngTokenizer *t, const EngGguf *gguf, GError **error)
{
  Loader l = { .t = t, .gguf = gguf, .error = error };
  if (!load_kind (&l))
    return FALSE;
  l.bytes = g_byte_array_new ();
  l.scratch = g_byte_array_new ();
  build_alphabet (&l);
  gboolean ok = load_tokens (&l) && load_ids (&l) && (t->model == ENG_VOCAB_SPM || load_merges (&l));
  g_byte_array_unref (l.scratch);
  t->bytes = (char *) g_byte_array_free (l.bytes, FALSE);
  if (!ok)
    return FALSE;
  eng_vocab_build_specials (t);
  t->adds_bos = eng_gguf_get_bool (gguf, "tokenizer.ggml.add_bos_token", t->adds_bos) && t->bos >= 0;
  t->space_prefix = eng_gguf_get_bool (gguf, "tokenizer.ggml.add_space_prefix", t->space_prefix);
  return TRUE;
}
