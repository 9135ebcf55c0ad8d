/* vocab_json.c: a vocabulary from a tokenizer.json of the tokenizers package, read event by event: the file has a million values. */
#include "engine/tokenizer/vocab_private.h"

#include "engine/error.h"
#include "engine/tokenizer/pretokenize.h"

#include <string.h>

enum { MAX_TOKENS = 1 << 24 };

typedef struct {
  EngVocab *vocab;
  EngJsonReader *json;
  GError **error;
  GArray *tokens;      /* of Entry, by number */
  GArray *added;       /* of Added */
  GArray *merges;      /* of EngText, two each */
  char *type, *unknown_text;
  char *post_processor;
  int unknown_id;
  gboolean listed, byte_fallback, refused;
} Reader;

typedef struct {
  EngText text; /* NULL: no token has this number */
  float score;
} Entry;

typedef struct {
  gint64 id;
  EngText text;
  gboolean special;
  guint8 flags;
} Added;

static gboolean refuse (Reader *r, int code, const char *what)
{
  r->refused = TRUE;
  return eng_vocab_refuse (r->vocab, r->error, code, "tokenizer.json %s", what);
}

/* What the reader itself says is wrong. */
static gboolean broken (Reader *r)
{
  if (!r->refused && r->json->error != NULL)
    refuse (r, ENG_ERROR_FORMAT, r->json->error->message);
  return r->refused ? FALSE : refuse (r, ENG_ERROR_FORMAT, "is not laid out as the tokenizers package writes it; get an undamaged file");
}

static EngText keep (Reader *r)
{
  const GString *s = r->json->string;
  return (EngText){ g_string_chunk_insert_len (r->vocab->text, s->str, (gssize) s->len), (guint32) s->len };
}

static gboolean put_token (Reader *r, gint64 id, EngText text, float score)
{
  if (id < 0 || id >= MAX_TOKENS)
    return refuse (r, ENG_ERROR_FORMAT, "has a token number that makes no sense; get an undamaged file");
  if (id >= r->tokens->len)
    g_array_set_size (r->tokens, (guint) id + 1);
  Entry *entry = &g_array_index (r->tokens, Entry, id);
  if (entry->text.text != NULL)
    return refuse (r, ENG_ERROR_FORMAT, "has two tokens with one number; get an undamaged file");
  *entry = (Entry){ text, score };
  return TRUE;
}

/* ---- the model ------------------------------------------------------------------------------------------------------------ */

/* {"text": number, ...} */
static gboolean read_numbered (Reader *r)
{
  EngJsonEvent event;
  while ((event = eng_json_next (r->json)) == ENG_JSON_KEY) {
    EngText text = keep (r);
    if (eng_json_next (r->json) != ENG_JSON_INT)
      return broken (r);
    if (!put_token (r, r->json->integer, text, 0))
      return FALSE;
  }
  return event == ENG_JSON_OBJECT_END || broken (r);
}

/* [["text", score], ...] */
static gboolean read_scored (Reader *r)
{
  EngJsonEvent event;
  r->listed = TRUE;
  for (gint64 id = 0; (event = eng_json_next (r->json)) == ENG_JSON_ARRAY; id++) {
    if (eng_json_next (r->json) != ENG_JSON_STRING)
      return broken (r);
    EngText text = keep (r);
    event = eng_json_next (r->json);
    if ((event != ENG_JSON_INT && event != ENG_JSON_NUMBER) || !put_token (r, id, text, (float) r->json->number) ||
        eng_json_next (r->json) != ENG_JSON_ARRAY_END)
      return broken (r);
  }
  return event == ENG_JSON_ARRAY_END || broken (r);
}

/* ["a b", ...], or [["a", "b"], ...] */
static gboolean read_merges (Reader *r)
{
  EngJsonEvent event;
  while ((event = eng_json_next (r->json)) != ENG_JSON_ARRAY_END) {
    EngText left, right;
    if (event == ENG_JSON_STRING) {
      left = keep (r);
      const char *space = memchr (left.text, ' ', left.length), *end = left.text + left.length;
      if (space == NULL || space == left.text || space + 1 == end || memchr (space + 1, ' ', (gsize) (end - space - 1)) != NULL)
        return refuse (r, ENG_ERROR_FORMAT, "has a merge that is not two parts with a space between; get an undamaged file");
      right = (EngText){ space + 1, (guint32) (end - space - 1) };
      left.length = (guint32) (space - left.text);
    } else {
      if (event != ENG_JSON_ARRAY || eng_json_next (r->json) != ENG_JSON_STRING)
        return broken (r);
      left = keep (r);
      if (eng_json_next (r->json) != ENG_JSON_STRING)
        return broken (r);
      right = keep (r);
      if (eng_json_next (r->json) != ENG_JSON_ARRAY_END)
        return broken (r);
    }
    g_array_append_val (r->merges, left);
    g_array_append_val (r->merges, right);
  }
  return TRUE;
}

static gboolean read_model (Reader *r)
{
  EngVocab *v = r->vocab;
  EngJsonEvent event;
  while ((event = eng_json_next (r->json)) == ENG_JSON_KEY) {
    g_autofree char *key = g_strdup (r->json->string->str);
    gboolean ok = TRUE, is_affix = g_str_equal (key, "continuing_subword_prefix") || g_str_equal (key, "end_of_word_suffix");
    event = eng_json_next (r->json);
    if (g_str_equal (key, "vocab") && event == ENG_JSON_OBJECT) {
      ok = read_numbered (r);
    } else if (g_str_equal (key, "vocab") && event == ENG_JSON_ARRAY) {
      ok = read_scored (r);
    } else if (g_str_equal (key, "merges") && event == ENG_JSON_ARRAY) {
      ok = read_merges (r);
    } else if (g_str_equal (key, "type") && event == ENG_JSON_STRING) {
      g_free (r->type);
      r->type = g_strdup (r->json->string->str);
    } else if (g_str_equal (key, "unk_token") && event == ENG_JSON_STRING) {
      g_free (r->unknown_text);
      r->unknown_text = g_strdup (r->json->string->str);
    } else if (g_str_equal (key, "unk_id") && event == ENG_JSON_INT) {
      r->unknown_id = (int) CLAMP (r->json->integer, -1, MAX_TOKENS);
    } else if (g_str_equal (key, "byte_fallback")) {
      r->byte_fallback = event == ENG_JSON_TRUE;
    } else if (g_str_equal (key, "fuse_unk")) {
      v->fuses_unknown = event == ENG_JSON_TRUE;
    } else if (g_str_equal (key, "ignore_merges")) {
      v->whole_words = event == ENG_JSON_TRUE;
    } else if (is_affix && event == ENG_JSON_STRING && *r->json->string->str != '\0' && !g_str_equal (r->json->string->str, "##")) {
      return refuse (r, ENG_ERROR_UNSUPPORTED, "marks the parts of a word, which is not known; choose another model");
    } else {
      ok = eng_json_skip (r->json, event);
    }
    if (!ok)
      return broken (r);
  }
  return event == ENG_JSON_OBJECT_END || broken (r);
}

/* ---- added tokens --------------------------------------------------------------------------------------------------------- */

static gboolean read_added_token (Reader *r)
{
  static const struct { const char *key; guint8 flag; } flags[] = {
    { "lstrip", ENG_ADDED_LSTRIP }, { "rstrip", ENG_ADDED_RSTRIP }, { "single_word", ENG_ADDED_SINGLE_WORD }, { "normalized", ENG_ADDED_NORMALIZED } };
  Added added = { -1, { NULL, 0 }, FALSE, 0 };
  EngJsonEvent event;
  while ((event = eng_json_next (r->json)) == ENG_JSON_KEY) {
    g_autofree char *key = g_strdup (r->json->string->str);
    event = eng_json_next (r->json);
    if (g_str_equal (key, "id") && event == ENG_JSON_INT)
      added.id = r->json->integer;
    else if (g_str_equal (key, "content") && event == ENG_JSON_STRING)
      added.text = keep (r);
    else if (g_str_equal (key, "special"))
      added.special = event == ENG_JSON_TRUE;
    for (gsize i = 0; i < G_N_ELEMENTS (flags); i++)
      if (g_str_equal (key, flags[i].key) && event == ENG_JSON_TRUE)
        added.flags |= flags[i].flag;
    if (!eng_json_skip (r->json, event))
      return broken (r);
  }
  if (event != ENG_JSON_OBJECT_END || added.id < 0 || added.id >= MAX_TOKENS || added.text.text == NULL)
    return broken (r);
  g_array_append_val (r->added, added);
  return TRUE;
}

static gboolean read_added_tokens (Reader *r)
{
  EngJsonEvent event;
  while ((event = eng_json_next (r->json)) == ENG_JSON_OBJECT)
    if (!read_added_token (r))
      return FALSE;
  return event == ENG_JSON_ARRAY_END || broken (r);
}

/* An added token may stand in the model's own list, with the same text, or behind it. */
static gboolean place_added_tokens (Reader *r)
{
  for (guint i = 0; i < r->added->len; i++) {
    const Added *added = &g_array_index (r->added, Added, i);
    if (added->id < r->tokens->len)
      g_array_index (r->tokens, Entry, added->id).text.text = NULL;
    if (!put_token (r, added->id, added->text, 0))
      return FALSE;
  }
  return TRUE;
}

/* ---- the whole ------------------------------------------------------------------------------------------------------------ */

/* The text of the value that `event` begins, as it stands. */
static char *take_raw (Reader *r, EngJsonEvent event)
{
  const char *begin = r->json->event_begin;
  return eng_json_skip (r->json, event) ? g_strndup (begin, (gsize) (r->json->at - begin)) : NULL;
}

static gboolean read_file (Reader *r)
{
  EngVocab *v = r->vocab;
  EngJsonEvent event = eng_json_next (r->json);
  gboolean has_model = FALSE;
  if (event != ENG_JSON_OBJECT)
    return broken (r);
  while ((event = eng_json_next (r->json)) == ENG_JSON_KEY) {
    g_autofree char *key = g_strdup (r->json->string->str);
    char **raw = g_str_equal (key, "normalizer") ? &v->normalizer_json : g_str_equal (key, "pre_tokenizer") ? &v->pre_json
               : g_str_equal (key, "post_processor") ? &r->post_processor : NULL;
    event = eng_json_next (r->json);
    gboolean ok = TRUE;
    if (raw != NULL && event != ENG_JSON_NULL) {
      g_free (*raw);
      *raw = take_raw (r, event);
      ok = *raw != NULL;
    } else if (g_str_equal (key, "added_tokens") && event == ENG_JSON_ARRAY) {
      ok = read_added_tokens (r);
    } else if (g_str_equal (key, "model") && event == ENG_JSON_OBJECT && !has_model) {
      ok = has_model = read_model (r);
    } else {
      ok = eng_json_skip (r->json, event);
    }
    if (!ok)
      return broken (r);
  }
  if (event != ENG_JSON_OBJECT_END || eng_json_next (r->json) != ENG_JSON_DONE)
    return broken (r);
  return has_model || refuse (r, ENG_ERROR_FORMAT, "has no model; get a complete file");
}

static gboolean decide_model (Reader *r)
{
  EngVocab *v = r->vocab;
  const char *type = r->type != NULL ? r->type : r->listed ? "Unigram" : r->merges->len > 0 ? "BPE" : "WordPiece";
  if (g_str_equal (type, "BPE") && !r->listed)
    v->model = ENG_VOCAB_BPE;
  else if (g_str_equal (type, "Unigram") && r->listed)
    v->model = ENG_VOCAB_UNIGRAM;
  else if (g_str_equal (type, "WordPiece") && !r->listed)
    v->model = ENG_VOCAB_WORDPIECE;
  else
    return refuse (r, ENG_ERROR_UNSUPPORTED, "is of a kind that is not known (BPE, Unigram and WordPiece are); choose another model");
  v->wide_sums = v->model == ENG_VOCAB_UNIGRAM;
  v->fuses_unknown |= v->model == ENG_VOCAB_UNIGRAM;
  if (v->pre_json == NULL)
    v->pre_json = g_strdup ("null");
  g_autoptr (GError) failure = NULL;
  g_autoptr (EngPretokenizer) pre = eng_pretokenizer_new_json (v->pre_json, &failure);
  if (pre == NULL)
    return eng_vocab_refuse (v, r->error, failure->code, "%s", failure->message);
  v->characters = v->model == ENG_VOCAB_BPE && eng_pretokenizer_traits (pre).characters;
  return TRUE;
}

static gboolean is_text (EngText text, const char *other)
{
  return other != NULL && strlen (other) == text.length && memcmp (text.text, other, text.length) == 0;
}

/* WordPiece marks what is inside a word; here, as in GGUF, a word's beginning is marked. */
static EngText mark_beginning (Reader *r, EngText text)
{
  if (text.length > 2 && memcmp (text.text, "##", 2) == 0)
    return (EngText){ text.text + 2, text.length - 2 };
  g_autofree char *marked = g_strdup_printf ("▁%.*s", (int) text.length, text.text);
  return (EngText){ g_string_chunk_insert (r->vocab->text, marked), (guint32) strlen (marked) };
}

static gboolean fill (Reader *r)
{
  EngVocab *v = r->vocab;
  guint n = v->n_tokens = r->tokens->len;
  if (n == 0)
    return refuse (r, ENG_ERROR_FORMAT, "has no tokens; get a complete file");
  v->tokens = g_new (EngText, n);
  v->types = g_malloc (n);
  v->scores = v->model == ENG_VOCAB_UNIGRAM ? g_new (float, n) : NULL;
  for (guint i = 0; i < n; i++) {
    const Entry *entry = &g_array_index (r->tokens, Entry, i);
    gboolean is_byte = r->byte_fallback && entry->text.text != NULL && entry->text.length == 6 && memcmp (entry->text.text, "<0x", 3) == 0;
    gboolean unknown = entry->text.text != NULL && ((int) i == r->unknown_id || is_text (entry->text, r->unknown_text));
    v->tokens[i] = entry->text.text != NULL ? entry->text : (EngText){ "", 0 };
    v->types[i] = entry->text.text == NULL ? ENG_TOKEN_TYPE_UNUSED : unknown ? ENG_TOKEN_TYPE_UNKNOWN : is_byte ? ENG_TOKEN_TYPE_BYTE : ENG_TOKEN_TYPE_NORMAL;
    if (unknown)
      v->ids[ENG_ID_UNKNOWN] = (int) i;
    if (v->scores != NULL)
      v->scores[i] = entry->score;
  }
  v->added = r->added->len > 0 ? g_new0 (guint8, n) : NULL;
  for (guint i = 0; i < r->added->len; i++) {
    const Added *added = &g_array_index (r->added, Added, i);
    if (v->types[added->id] != ENG_TOKEN_TYPE_UNKNOWN)
      v->types[added->id] = added->special ? ENG_TOKEN_TYPE_CONTROL : ENG_TOKEN_TYPE_USER_DEFINED;
    v->added[added->id] = added->flags & (v->normalizer_json != NULL ? 0xFF : (guint8) ~ENG_ADDED_NORMALIZED);
  }
  for (guint i = 0; v->model == ENG_VOCAB_WORDPIECE && i < n; i++)
    if (v->types[i] == ENG_TOKEN_TYPE_NORMAL)
      v->tokens[i] = mark_beginning (r, v->tokens[i]);
  v->n_merges = r->merges->len / 2;
  v->merges = (EngText *) (gpointer) g_array_steal (r->merges, NULL);
  return TRUE;
}

/* ---- what is put around a text -------------------------------------------------------------------------------------------- */

static int find_token (const EngVocab *v, const char *text)
{
  for (guint i = 0; i < v->n_tokens; i++)
    if (is_text (v->tokens[i], text))
      return (int) i;
  return -1;
}

/* The token that a template of the post-processor begins or ends with, or -1. */
static int edge_token (const EngVocab *v, JsonArray *single, gboolean last)
{
  guint n = json_array_get_length (single);
  JsonNode *edge = n > 0 ? json_array_get_element (single, last ? n - 1 : 0) : NULL;
  JsonNode *special = edge != NULL && JSON_NODE_HOLDS_OBJECT (edge) ? json_object_get_member (json_node_get_object (edge), "SpecialToken") : NULL;
  JsonNode *id = special != NULL && JSON_NODE_HOLDS_OBJECT (special) ? json_object_get_member (json_node_get_object (special), "id") : NULL;
  return id != NULL && JSON_NODE_HOLDS_VALUE (id) && json_node_get_value_type (id) == G_TYPE_STRING ? find_token (v, json_node_get_string (id)) : -1;
}

static void read_processor (EngVocab *v, JsonNode *node, guint depth)
{
  JsonObject *object = JSON_NODE_HOLDS_OBJECT (node) ? json_node_get_object (node) : NULL;
  JsonNode *list = object != NULL ? json_object_get_member (object, "processors") : NULL, *single = object != NULL ? json_object_get_member (object, "single") : NULL;
  if (list != NULL && JSON_NODE_HOLDS_ARRAY (list) && depth < 4)
    for (guint i = 0; i < json_array_get_length (json_node_get_array (list)); i++)
      read_processor (v, json_array_get_element (json_node_get_array (list), i), depth + 1);
  if (single == NULL || !JSON_NODE_HOLDS_ARRAY (single))
    return;
  int first = edge_token (v, json_node_get_array (single), FALSE), last = edge_token (v, json_node_get_array (single), TRUE);
  v->has_processor = TRUE;
  v->adds_bos = first >= 0;
  v->adds_eos = last >= 0;
  v->ids[ENG_ID_BOS] = first;
  v->ids[ENG_ID_EOS] = last;
}

gboolean eng_vocab_read_json (EngVocab *vocab, const char *json, gsize length, GError **error)
{
  EngJsonReader reader;
  eng_json_reader_init (&reader, json, length);
  Reader r = { .vocab = vocab, .json = &reader, .error = error, .tokens = g_array_new (FALSE, TRUE, sizeof (Entry)),
               .added = g_array_new (FALSE, FALSE, sizeof (Added)), .merges = g_array_new (FALSE, FALSE, sizeof (EngText)), .unknown_id = -1 };
  gboolean ok = read_file (&r) && decide_model (&r) && place_added_tokens (&r) && fill (&r);
  g_autoptr (JsonNode) processor = ok && r.post_processor != NULL ? eng_json_parse (r.post_processor, strlen (r.post_processor), NULL) : NULL;
  if (processor != NULL)
    read_processor (vocab, processor, 0);
  g_array_unref (r.tokens);
  g_array_unref (r.added);
  g_array_unref (r.merges);
  g_free (r.type);
  g_free (r.unknown_text);
  g_free (r.post_processor);
  eng_json_reader_clear (&reader);
  return ok;
}
