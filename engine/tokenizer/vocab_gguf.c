/* vocab_gguf.c: a vocabulary from GGUF metadata and into it. Keys: the GGUF specification, section "Tokenizer"; what it has no key for is
 * written as valise.tokenizer.*. */
#include "engine/tokenizer/vocab_private.h"

#include "engine/error.h"
#include "engine/tokenizer/pretokenize.h"

#include <string.h>

#define TOKENS "tokenizer.ggml.tokens"
#define TYPES "tokenizer.ggml.token_type"
#define SCORES "tokenizer.ggml.scores"
#define MERGES "tokenizer.ggml.merges"
#define CHARSMAP "tokenizer.ggml.precompiled_charsmap"
#define NORMALIZER "valise.tokenizer.normalizer"
#define PRETOKENIZER "valise.tokenizer.pre_tokenizer"
#define ADDED "valise.tokenizer.added"     /* pairs: token, ENG_ADDED_* */
#define ENDS "valise.tokenizer.ends"       /* tokens that end a turn, beyond those with a key */
#define FLAGS "valise.tokenizer.flags"     /* names of the booleans below that are set */

enum { MAX_TOKENS = 1 << 24 };

static const char *const id_keys[ENG_N_IDS] = {
  [ENG_ID_BOS] = "tokenizer.ggml.bos_token_id",       [ENG_ID_EOS] = "tokenizer.ggml.eos_token_id",
  [ENG_ID_EOT] = "tokenizer.ggml.eot_token_id",       [ENG_ID_EOM] = "tokenizer.ggml.eom_token_id",
  [ENG_ID_UNKNOWN] = "tokenizer.ggml.unknown_token_id", [ENG_ID_SEP] = "tokenizer.ggml.seperator_token_id", /* as it is published */
  [ENG_ID_PAD] = "tokenizer.ggml.padding_token_id",   [ENG_ID_CLS] = "tokenizer.ggml.cls_token_id",
  [ENG_ID_MASK] = "tokenizer.ggml.mask_token_id" };

static const struct { const char *name; gsize offset; } flags[] = {
  { "whole_words", G_STRUCT_OFFSET (EngVocab, whole_words) }, { "fuses_unknown", G_STRUCT_OFFSET (EngVocab, fuses_unknown) },
  { "wide_sums", G_STRUCT_OFFSET (EngVocab, wide_sums) } };

/* ---- reading -------------------------------------------------------------------------------------------------------------- */

typedef struct {
  EngVocab *vocab;
  const EngGguf *gguf;
  GError **error;
} Loader;

#define refuse(l, code, ...) eng_vocab_refuse ((l)->vocab, (l)->error, (code), __VA_ARGS__)

static gboolean check_array (Loader *l, const char *key, gboolean numbers, gsize expected)
{
  EngKvType kind = ENG_KV_ARRAY;
  gsize n = eng_gguf_array_length (l->gguf, key, &kind);
  if (!eng_gguf_has (l->gguf, key))
    return refuse (l, ENG_ERROR_FORMAT, "%s is missing, so text cannot become tokens; get a complete file", key);
  if (eng_gguf_kv_type (l->gguf, key) != ENG_KV_ARRAY ||
      (numbers ? kind == ENG_KV_STRING || kind == ENG_KV_ARRAY || kind == ENG_KV_BOOL : kind != ENG_KV_STRING))
    return refuse (l, ENG_ERROR_FORMAT, "%s is not an array of %s; get an undamaged file", key, numbers ? "numbers" : "strings");
  if (n > MAX_TOKENS)
    return refuse (l, ENG_ERROR_FORMAT, "%" G_GSIZE_FORMAT " entries in %s make no sense; get an undamaged file", n, key);
  if (expected > 0 && n != expected)
    return refuse (l, ENG_ERROR_FORMAT, "%s has %" G_GSIZE_FORMAT " entries for %" G_GSIZE_FORMAT " tokens; get an undamaged file", key, n, expected);
  return TRUE;
}

static EngText text_at (const EngGguf *gguf, const char *key, gsize i)
{
  gsize length = 0;
  const char *text = eng_gguf_array_string (gguf, key, i, &length);
  return (EngText){ text, (guint32) MIN (length, G_MAXUINT32) };
}

static gboolean load_tokens (Loader *l)
{
  EngVocab *v = l->vocab;
  if (!check_array (l, TOKENS, FALSE, 0))
    return FALSE;
  gsize n = eng_gguf_array_length (l->gguf, TOKENS, NULL);
  if (n == 0)
    return refuse (l, ENG_ERROR_FORMAT, "a vocabulary of no tokens makes no sense; get an undamaged file");
  gboolean scored = v->model == ENG_VOCAB_SPM || v->model == ENG_VOCAB_UNIGRAM;
  if (!check_array (l, TYPES, TRUE, n) || (scored && !check_array (l, SCORES, TRUE, n)))
    return FALSE;
  v->n_tokens = (guint) n;
  v->tokens = g_new (EngText, n);
  v->types = g_new (guint8, n);
  for (gsize i = 0; i < n; i++) {
    gint64 type = eng_gguf_array_int (l->gguf, TYPES, i);
    v->tokens[i] = text_at (l->gguf, TOKENS, i);
    v->types[i] = (guint8) CLAMP (type, 0, 255);
  }
  if (scored) {
    v->scores = g_new (float, n);
    for (gsize i = 0; i < n; i++)
      v->scores[i] = (float) eng_gguf_array_float (l->gguf, SCORES, i);
  }
  return TRUE;
}

static gboolean load_merges (Loader *l)
{
  EngVocab *v = l->vocab;
  if (v->by_rank && !eng_gguf_has (l->gguf, MERGES))
    return TRUE;
  v->by_rank = FALSE;
  if (!check_array (l, MERGES, FALSE, 0))
    return FALSE;
  v->n_merges = (guint) eng_gguf_array_length (l->gguf, MERGES, NULL);
  v->merges = g_new (EngText, 2 * (gsize) v->n_merges);
  for (guint i = 0; i < v->n_merges; i++) {
    EngText merge = text_at (l->gguf, MERGES, i);
    const char *end = merge.text + merge.length, *space = merge.length > 1 ? memchr (merge.text + 1, ' ', merge.length - 1) : NULL;
    if (space == NULL || space + 1 == end)
      return refuse (l, ENG_ERROR_FORMAT, "merge %u is not two parts with a space between; get an undamaged file", i);
    v->merges[2 * i] = (EngText){ merge.text, (guint32) (space - merge.text) };
    v->merges[2 * i + 1] = (EngText){ space + 1, (guint32) (end - space - 1) };
  }
  return TRUE;
}

static gboolean load_ids (Loader *l)
{
  for (guint i = 0; i < ENG_N_IDS; i++) {
    if (!eng_gguf_has (l->gguf, id_keys[i]))
      continue;
    gint64 value = eng_gguf_get_int (l->gguf, id_keys[i], G_MININT64);
    if (value == G_MININT64)
      return refuse (l, ENG_ERROR_FORMAT, "%s is not a number; get an undamaged file", id_keys[i]);
    if (value == -1 || value == G_MAXUINT32) /* converters write these for "none" */
      continue;
    if (value < 0 || value >= l->vocab->n_tokens)
      return refuse (l, ENG_ERROR_FORMAT, "%s is %" G_GINT64_FORMAT ", outside the vocabulary of %u tokens; get an undamaged file", id_keys[i],
                     value, l->vocab->n_tokens);
    l->vocab->ids[i] = (int) value;
  }
  return TRUE;
}

/* What goes with tokenizer.ggml.pre and is in no other key. */
static gboolean load_pre (Loader *l, const char *fallback)
{
  EngVocab *v = l->vocab;
  v->pre_json = g_strdup (eng_gguf_get_string (l->gguf, PRETOKENIZER, NULL));
  v->normalizer_json = g_strdup (eng_gguf_get_string (l->gguf, NORMALIZER, NULL));
  if (v->pre_json != NULL)
    return TRUE;
  const char *name = eng_gguf_get_string (l->gguf, "tokenizer.ggml.pre", fallback);
  g_autoptr (GError) failure = NULL;
  g_autoptr (EngPretokenizer) pre = eng_pretokenizer_new (name, &failure);
  if (pre == NULL)
    return refuse (l, failure->code, "%s", failure->message);
  EngPretokenizerTraits traits = eng_pretokenizer_traits (pre);
  v->pre_name = g_strdup (name);
  v->whole_words = traits.whole_words;
  v->characters = traits.characters;
  v->by_rank = traits.by_rank;
  v->adds_bos = traits.adds_bos;
  return TRUE;
}

static gboolean load_kind (Loader *l)
{
  EngVocab *v = l->vocab;
  const char *model = eng_gguf_get_string (l->gguf, "tokenizer.ggml.model", NULL);
  if (model == NULL)
    return refuse (l, ENG_ERROR_FORMAT, "tokenizer.ggml.model is missing, so text cannot become tokens; get a complete file");
  if (g_str_equal (model, "llama") && eng_gguf_has (l->gguf, PRETOKENIZER)) { /* written here: exact by its merges, scores are for others */
    v->model = ENG_VOCAB_BPE;
    v->characters = TRUE;
    return load_pre (l, NULL);
  }
  if (g_str_equal (model, "llama")) {
    v->model = ENG_VOCAB_SPM;
    v->adds_bos = v->space_prefix = v->fuses_unknown = TRUE;
    return TRUE;
  }
  if (g_str_equal (model, "t5")) {
    v->model = ENG_VOCAB_UNIGRAM;
    v->space_prefix = v->adds_eos = v->fuses_unknown = TRUE;
    return !eng_gguf_has (l->gguf, PRETOKENIZER) || load_pre (l, NULL);
  }
  if (g_str_equal (model, "bert")) {
    v->model = ENG_VOCAB_WORDPIECE;
    v->adds_bos = v->adds_eos = TRUE;
    return !eng_gguf_has (l->gguf, PRETOKENIZER) || load_pre (l, NULL);
  }
  v->model = ENG_VOCAB_BPE;
  if (!g_str_equal (model, "gpt2") && !g_str_equal (model, "gemma4"))
    return refuse (l, ENG_ERROR_UNSUPPORTED, "the tokenizer kind '%s' is not known (gpt2, gemma4, llama, t5 and bert are); choose another model", model);
  return load_pre (l, g_str_equal (model, "gpt2") ? "default" : "gemma4");
}

/* Phi 3's special tokens take the white space behind them along, which GGUF has no key for. */
static void load_phi3_strips (Loader *l)
{
  static const char *const others[] = { "<unk>", "<s>", "<|endoftext|>", NULL };
  EngVocab *v = l->vocab;
  if (v->model != ENG_VOCAB_SPM || !g_str_equal (eng_gguf_get_string (l->gguf, "general.architecture", ""), "phi3") || eng_gguf_has (l->gguf, ADDED))
    return;
  v->added = g_new0 (guint8, v->n_tokens);
  for (guint i = 0; i < v->n_tokens; i++) {
    g_autofree char *text = g_strndup (v->tokens[i].text, v->tokens[i].length);
    gboolean special = v->types[i] == ENG_TOKEN_TYPE_CONTROL || v->types[i] == ENG_TOKEN_TYPE_UNKNOWN || v->types[i] == ENG_TOKEN_TYPE_USER_DEFINED;
    if (special && !g_strv_contains (others, text))
      v->added[i] = ENG_ADDED_RSTRIP;
  }
}

/* An array of token numbers, checked; *n 0 when the key is not there. */
static gboolean check_numbers (Loader *l, const char *key, guint stride, gsize *n)
{
  *n = 0;
  if (!eng_gguf_has (l->gguf, key))
    return TRUE;
  if (!check_array (l, key, TRUE, 0))
    return FALSE;
  *n = eng_gguf_array_length (l->gguf, key, NULL) / stride * stride;
  for (gsize i = 0; i < *n; i += stride) {
    gint64 token = eng_gguf_array_int (l->gguf, key, i);
    if (token < 0 || token >= l->vocab->n_tokens)
      return refuse (l, ENG_ERROR_FORMAT, "%s names token %" G_GINT64_FORMAT ", outside the vocabulary; get an undamaged file", key, token);
  }
  return TRUE;
}

static gboolean load_own_keys (Loader *l)
{
  EngVocab *v = l->vocab;
  gsize n_added, n_ends;
  if (!check_numbers (l, ADDED, 2, &n_added) || !check_numbers (l, ENDS, 1, &n_ends))
    return FALSE;
  if (n_added > 0)
    v->added = g_new0 (guint8, v->n_tokens);
  for (gsize i = 0; i < n_added; i += 2)
    v->added[eng_gguf_array_int (l->gguf, ADDED, i)] = (guint8) eng_gguf_array_int (l->gguf, ADDED, i + 1);
  for (gsize i = 0; i < n_ends; i++) {
    int end = (int) eng_gguf_array_int (l->gguf, ENDS, i);
    g_array_append_val (v->ends, end);
  }
  EngKvType kind = ENG_KV_ARRAY;
  gsize n_flags = eng_gguf_array_length (l->gguf, FLAGS, &kind);
  if (n_flags > 0) /* then none holds that is not named */
    for (gsize k = 0; k < G_N_ELEMENTS (flags); k++)
      G_STRUCT_MEMBER (gboolean, v, flags[k].offset) = FALSE;
  for (gsize i = 0; i < n_flags && kind == ENG_KV_STRING; i++) {
    EngText name = text_at (l->gguf, FLAGS, i);
    for (gsize k = 0; k < G_N_ELEMENTS (flags); k++)
      if (strlen (flags[k].name) == name.length && memcmp (flags[k].name, name.text, name.length) == 0)
        G_STRUCT_MEMBER (gboolean, v, flags[k].offset) = TRUE;
  }
  return TRUE;
}

static gboolean load_charsmap (Loader *l)
{
  EngKvType kind = ENG_KV_ARRAY;
  gsize n = eng_gguf_array_length (l->gguf, CHARSMAP, &kind);
  if (n == 0)
    return TRUE;
  if (kind != ENG_KV_U8 && kind != ENG_KV_I8)
    return refuse (l, ENG_ERROR_FORMAT, "%s is not an array of bytes; get an undamaged file", CHARSMAP);
  guint8 *bytes = g_malloc (n);
  for (gsize i = 0; i < n; i++)
    bytes[i] = (guint8) eng_gguf_array_int (l->gguf, CHARSMAP, i);
  l->vocab->charsmap = g_bytes_new_take (bytes, n);
  return TRUE;
}

EngVocab *eng_vocab_new_from_gguf (const EngGguf *gguf, GError **error)
{
  g_autoptr (EngVocab) v = eng_vocab_new (eng_gguf_path (gguf));
  Loader l = { v, gguf, error };
  if (!load_kind (&l) || !load_tokens (&l) || !load_ids (&l) || (v->model == ENG_VOCAB_BPE && !load_merges (&l)) || !load_charsmap (&l) ||
      !load_own_keys (&l))
    return NULL;
  load_phi3_strips (&l);
  v->adds_bos = eng_gguf_get_bool (gguf, "tokenizer.ggml.add_bos_token", v->adds_bos);
  v->adds_eos = eng_gguf_get_bool (gguf, "tokenizer.ggml.add_eos_token", v->adds_eos);
  v->space_prefix = eng_gguf_get_bool (gguf, "tokenizer.ggml.add_space_prefix", v->space_prefix);
  v->trims_spaces = eng_gguf_get_bool (gguf, "tokenizer.ggml.remove_extra_whitespaces", FALSE);
  v->chat_template = g_strdup (eng_gguf_get_string (gguf, "tokenizer.chat_template", NULL));
  return g_steal_pointer (&v);
}

/* ---- writing -------------------------------------------------------------------------------------------------------------- */

static void write_texts (EngGgufWriter *writer, const char *key, const EngText *texts, gsize n)
{
  g_autofree const char **values = g_new (const char *, n);
  g_autofree gsize *lengths = g_new (gsize, n);
  for (gsize i = 0; i < n; i++) {
    values[i] = texts[i].text;
    lengths[i] = texts[i].length;
  }
  eng_gguf_writer_set_strings (writer, key, values, lengths, n);
}

/* Two parts, a space between them. */
static void write_merges (const EngVocab *v, EngGgufWriter *writer)
{
  g_autofree EngText *joined = g_new (EngText, v->n_merges);
  g_autoptr (GString) text = g_string_new (NULL);
  for (guint i = 0; i < v->n_merges; i++) {
    const EngText *parts = &v->merges[2 * i];
    joined[i].length = parts[0].length + 1 + parts[1].length;
    g_string_append_len (text, parts[0].text, parts[0].length);
    g_string_append_c (text, ' ');
    g_string_append_len (text, parts[1].text, parts[1].length);
  }
  gsize at = 0;
  for (guint i = 0; i < v->n_merges; at += joined[i++].length)
    joined[i].text = text->str + at;
  write_texts (writer, MERGES, joined, v->n_merges);
}

static void write_tokens (const EngVocab *v, EngGgufWriter *writer)
{
  g_autofree gint32 *types = g_new (gint32, v->n_tokens);
  g_autofree float *scores = NULL;
  write_texts (writer, TOKENS, v->tokens, v->n_tokens);
  for (guint i = 0; i < v->n_tokens; i++)
    types[i] = v->types[i];
  eng_gguf_writer_set_i32s (writer, TYPES, types, v->n_tokens);
  if (v->scores == NULL && v->model == ENG_VOCAB_BPE && v->characters) { /* programs that know scores only come near with these */
    scores = g_new (float, v->n_tokens);
    for (guint i = 0; i < v->n_tokens; i++)
      scores[i] = -(float) i;
  }
  if (v->scores != NULL || scores != NULL)
    eng_gguf_writer_set_f32s (writer, SCORES, v->scores != NULL ? v->scores : scores, v->n_tokens);
}

/* The cuts by their published name where there is one, and as they are where there is none. */
static void write_pre (const EngVocab *v, EngGgufWriter *writer)
{
  g_autoptr (EngPretokenizer) pre = v->pre_json != NULL ? eng_pretokenizer_new_json (v->pre_json, NULL) : NULL;
  EngPretokenizerTraits traits = { .whole_words = v->whole_words, .characters = v->characters, .by_rank = v->by_rank };
  const char *name = v->pre_name != NULL ? v->pre_name : pre != NULL && v->model == ENG_VOCAB_BPE && !v->characters ? eng_pretokenizer_find_name (pre, &traits) : NULL;
  eng_gguf_writer_set_string (writer, "tokenizer.ggml.pre", name != NULL ? name : v->pre_json != NULL && !v->characters ? "valise" : "default");
  if (name == NULL && v->pre_json != NULL)
    eng_gguf_writer_set_string (writer, PRETOKENIZER, v->pre_json);
  if (v->normalizer_json != NULL)
    eng_gguf_writer_set_string (writer, NORMALIZER, v->normalizer_json);
}

static void write_own_keys (const EngVocab *v, EngGgufWriter *writer)
{
  g_autoptr (GArray) added = g_array_new (FALSE, FALSE, sizeof (gint32));
  EngText names[G_N_ELEMENTS (flags)];
  guint n_names = 0;
  for (guint i = 0; v->added != NULL && i < v->n_tokens; i++)
    if (v->added[i] != 0) {
      gint32 pair[] = { (gint32) i, v->added[i] };
      g_array_append_vals (added, pair, 2);
    }
  if (added->len > 0)
    eng_gguf_writer_set_i32s (writer, ADDED, (const gint32 *) (gpointer) added->data, added->len);
  if (v->ends->len > 0)
    eng_gguf_writer_set_i32s (writer, ENDS, (const gint32 *) (gpointer) v->ends->data, v->ends->len);
  for (gsize i = 0; i < G_N_ELEMENTS (flags); i++)
    if (G_STRUCT_MEMBER (gboolean, v, flags[i].offset))
      names[n_names++] = (EngText){ flags[i].name, (guint32) strlen (flags[i].name) };
  if (n_names > 0)
    write_texts (writer, FLAGS, names, n_names);
}

void eng_vocab_write (const EngVocab *v, EngGgufWriter *writer)
{
  const char *model = v->model == ENG_VOCAB_UNIGRAM ? "t5" : v->model == ENG_VOCAB_WORDPIECE ? "bert" : v->model == ENG_VOCAB_SPM || v->characters ? "llama" : "gpt2";
  eng_gguf_writer_set_string (writer, "tokenizer.ggml.model", model);
  write_pre (v, writer);
  write_tokens (v, writer);
  if (v->n_merges > 0)
    write_merges (v, writer);
  for (guint i = 0; i < ENG_N_IDS; i++)
    if (v->ids[i] >= 0)
      eng_gguf_writer_set_u32 (writer, id_keys[i], (guint32) v->ids[i]);
  eng_gguf_writer_set_bool (writer, "tokenizer.ggml.add_bos_token", v->adds_bos);
  eng_gguf_writer_set_bool (writer, "tokenizer.ggml.add_eos_token", v->adds_eos);
  eng_gguf_writer_set_bool (writer, "tokenizer.ggml.add_space_prefix", v->space_prefix);
  if (v->trims_spaces)
    eng_gguf_writer_set_bool (writer, "tokenizer.ggml.remove_extra_whitespaces", TRUE);
  gsize size = 0;
  const guint8 *map = v->charsmap != NULL ? g_bytes_get_data (v->charsmap, &size) : NULL;
  if (size > 0)
    eng_gguf_writer_set_u8s (writer, CHARSMAP, map, size);
  write_own_keys (v, writer);
  if (v->chat_template != NULL)
    eng_gguf_writer_set_string (writer, "tokenizer.chat_template", v->chat_template);
  GHashTableIter iter;
  gpointer key, value;
  if (v->sampling != NULL)
    g_hash_table_iter_init (&iter, v->sampling);
  while (v->sampling != NULL && g_hash_table_iter_next (&iter, &key, &value)) {
    if (g_str_has_suffix (key, "top_k"))
      eng_gguf_writer_set_u32 (writer, key, (guint32) CLAMP (*(double *) value, 0, G_MAXINT32));
    else
      eng_gguf_writer_set_f32 (writer, key, (float) *(double *) value);
  }
}
