/* vocab.c: a vocabulary from the files of a checkpoint folder: tokenizer.json or tokenizer.model, and what tokenizer_config.json,
 * generation_config.json and chat_template.jinja add to it. */
#include "engine/tokenizer/vocab_private.h"

#include "engine/error.h"

#include <string.h>

EngVocab *eng_vocab_new (const char *source)
{
  EngVocab *v = g_new0 (EngVocab, 1);
  v->source = g_strdup (source);
  v->text = g_string_chunk_new (1 << 16);
  v->ends = g_array_new (FALSE, FALSE, sizeof (int));
  for (guint i = 0; i < ENG_N_IDS; i++)
    v->ids[i] = -1;
  return v;
}

void eng_vocab_free (EngVocab *v)
{
  if (v == NULL)
    return;
  g_free (v->source);
  g_free (v->tokens);
  g_free (v->types);
  g_free (v->added);
  g_free (v->scores);
  g_free (v->merges);
  g_array_unref (v->ends);
  g_free (v->pre_name);
  g_free (v->pre_json);
  g_free (v->normalizer_json);
  g_clear_pointer (&v->charsmap, g_bytes_unref);
  g_free (v->chat_template);
  g_clear_pointer (&v->sampling, g_hash_table_unref);
  g_string_chunk_free (v->text);
  g_free (v);
}

gboolean eng_vocab_refuse (const EngVocab *v, GError **error, int code, const char *format, ...)
{
  va_list arguments;
  va_start (arguments, format);
  g_autofree char *what = g_strdup_vprintf (format, arguments);
  va_end (arguments);
  g_set_error (error, ENG_ERROR, code, "%s: %s", v->source, what);
  return FALSE;
}

guint eng_vocab_n_tokens (const EngVocab *v)
{
  return v->n_tokens;
}

const char *eng_vocab_chat_template (const EngVocab *v)
{
  return v->chat_template;
}

/* ---- the files of a folder ------------------------------------------------------------------------------------------------ */

static JsonObject *parse_object (const EngVocab *v, GBytes *bytes, const char *name, JsonNode **root, GError **error)
{
  gsize length;
  const char *text = g_bytes_get_data (bytes, &length);
  g_autoptr (GError) failure = NULL;
  *root = eng_json_parse (text != NULL ? text : "", length, &failure);
  if (*root != NULL && JSON_NODE_HOLDS_OBJECT (*root))
    return json_node_get_object (*root);
  eng_vocab_refuse (v, error, ENG_ERROR_FORMAT, "%s %s", name, failure != NULL ? failure->message : "is no JSON object");
  return NULL;
}

static JsonNode *member (JsonObject *object, const char *name, GType type)
{
  JsonNode *node = json_object_get_member (object, name);
  return node != NULL && JSON_NODE_HOLDS_VALUE (node) && json_node_get_value_type (node) == type ? node : NULL;
}

/* A token's text, which stands there or in an object's "content". */
static const char *token_text (JsonObject *config, const char *name)
{
  JsonNode *node = json_object_get_member (config, name);
  if (node != NULL && JSON_NODE_HOLDS_OBJECT (node))
    node = member (json_node_get_object (node), "content", G_TYPE_STRING);
  return node != NULL && JSON_NODE_HOLDS_VALUE (node) && json_node_get_value_type (node) == G_TYPE_STRING ? json_node_get_string (node) : NULL;
}

static int find_token (const EngVocab *v, const char *text)
{
  for (guint i = 0; text != NULL && i < v->n_tokens; i++)
    if (v->tokens[i].length == strlen (text) && memcmp (v->tokens[i].text, text, v->tokens[i].length) == 0)
      return (int) i;
  return -1;
}

/* The template of that name in a list of {"name", "template"}, or the first. */
static const char *listed_template (JsonArray *list)
{
  const char *first = NULL;
  for (guint i = 0; i < json_array_get_length (list); i++) {
    JsonNode *entry = json_array_get_element (list, i);
    JsonObject *object = JSON_NODE_HOLDS_OBJECT (entry) ? json_node_get_object (entry) : NULL;
    JsonNode *name = object != NULL ? member (object, "name", G_TYPE_STRING) : NULL, *text = object != NULL ? member (object, "template", G_TYPE_STRING) : NULL;
    if (text != NULL && name != NULL && g_str_equal (json_node_get_string (name), "default"))
      return json_node_get_string (text);
    first = text != NULL && first == NULL ? json_node_get_string (text) : first;
  }
  return first;
}

/* Tokens that tokenizer_config.json adds to a tokenizer.model, or describes anew. */
static gboolean read_added_decoder (EngVocab *v, JsonObject *config, GError **error)
{
  static const struct { const char *key; guint8 flag; } flags[] = {
    { "lstrip", ENG_ADDED_LSTRIP }, { "rstrip", ENG_ADDED_RSTRIP }, { "single_word", ENG_ADDED_SINGLE_WORD } };
  enum { MAX_ADDED = 1 << 20 };
  JsonNode *node = json_object_get_member (config, "added_tokens_decoder");
  JsonObjectIter iter;
  const char *key;
  JsonNode *value;
  if (node == NULL || !JSON_NODE_HOLDS_OBJECT (node))
    return TRUE;
  json_object_iter_init (&iter, json_node_get_object (node));
  while (json_object_iter_next (&iter, &key, &value)) {
    guint64 id;
    JsonObject *token = JSON_NODE_HOLDS_OBJECT (value) ? json_node_get_object (value) : NULL;
    JsonNode *content = token != NULL ? member (token, "content", G_TYPE_STRING) : NULL, *special = token != NULL ? member (token, "special", G_TYPE_BOOLEAN) : NULL;
    if (content == NULL || !g_ascii_string_to_unsigned (key, 10, 0, v->n_tokens + MAX_ADDED, &id, NULL))
      return eng_vocab_refuse (v, error, ENG_ERROR_FORMAT, "tokenizer_config.json describes a token '%s' that makes no sense; get an undamaged file", key);
    eng_vocab_resize (v, MAX (v->n_tokens, (guint) id + 1));
    if (v->added == NULL)
      v->added = g_new0 (guint8, v->n_tokens);
    const char *text = json_node_get_string (content);
    v->tokens[id] = (EngText){ g_string_chunk_insert (v->text, text), (guint32) strlen (text) };
    if (v->types[id] != ENG_TOKEN_TYPE_UNKNOWN)
      v->types[id] = special != NULL && json_node_get_boolean (special) ? ENG_TOKEN_TYPE_CONTROL : ENG_TOKEN_TYPE_USER_DEFINED;
    v->added[id] = 0;
    for (gsize i = 0; i < G_N_ELEMENTS (flags); i++) {
      JsonNode *flag = member (token, flags[i].key, G_TYPE_BOOLEAN);
      v->added[id] |= flag != NULL && json_node_get_boolean (flag) ? flags[i].flag : 0;
    }
  }
  return TRUE;
}

static void read_config (EngVocab *v, JsonObject *config, gboolean decides_bos)
{
  static const struct { const char *key; EngTokenId id; } tokens[] = {
    { "bos_token", ENG_ID_BOS }, { "eos_token", ENG_ID_EOS }, { "unk_token", ENG_ID_UNKNOWN }, { "sep_token", ENG_ID_SEP },
    { "pad_token", ENG_ID_PAD }, { "cls_token", ENG_ID_CLS }, { "mask_token", ENG_ID_MASK } };
  for (gsize i = 0; i < G_N_ELEMENTS (tokens); i++) {
    int token = find_token (v, token_text (config, tokens[i].key));
    v->ids[tokens[i].id] = token >= 0 ? token : v->ids[tokens[i].id];
  }
  JsonNode *adds_bos = member (config, "add_bos_token", G_TYPE_BOOLEAN), *adds_eos = member (config, "add_eos_token", G_TYPE_BOOLEAN);
  if (decides_bos && adds_bos != NULL)
    v->adds_bos = json_node_get_boolean (adds_bos);
  if (decides_bos && adds_eos != NULL)
    v->adds_eos = json_node_get_boolean (adds_eos);
  JsonNode *chat_template = json_object_get_member (config, "chat_template");
  const char *text = chat_template == NULL ? NULL : JSON_NODE_HOLDS_ARRAY (chat_template) ? listed_template (json_node_get_array (chat_template))
                   : (chat_template = member (config, "chat_template", G_TYPE_STRING)) != NULL ? json_node_get_string (chat_template) : NULL;
  if (v->chat_template == NULL && text != NULL)
    v->chat_template = g_strdup (text);
}

static void add_end (EngVocab *v, JsonNode *node)
{
  gint64 token = JSON_NODE_HOLDS_VALUE (node) && json_node_get_value_type (node) == G_TYPE_INT64 ? json_node_get_int (node) : -1;
  int end = (int) token;
  if (token >= 0 && token < v->n_tokens)
    g_array_append_val (v->ends, end);
}

/* How the makers mean the model to be sampled, unless they mean it not to be. */
static void read_generation (EngVocab *v, JsonObject *config)
{
  static const struct { const char *key, *gguf; } values[] = {
    { "temperature", "general.sampling.temp" }, { "top_k", "general.sampling.top_k" }, { "top_p", "general.sampling.top_p" },
    { "min_p", "general.sampling.min_p" }, { "repetition_penalty", "general.sampling.penalty_repeat" } };
  JsonNode *ends = json_object_get_member (config, "eos_token_id"), *samples = member (config, "do_sample", G_TYPE_BOOLEAN);
  if (ends != NULL && JSON_NODE_HOLDS_ARRAY (ends))
    for (guint i = 0; i < json_array_get_length (json_node_get_array (ends)); i++)
      add_end (v, json_array_get_element (json_node_get_array (ends), i));
  else if (ends != NULL)
    add_end (v, ends);
  if (samples != NULL && !json_node_get_boolean (samples))
    return;
  for (gsize i = 0; i < G_N_ELEMENTS (values); i++) {
    JsonNode *node = json_object_get_member (config, values[i].key);
    if (node == NULL || !JSON_NODE_HOLDS_VALUE (node) || (json_node_get_value_type (node) != G_TYPE_INT64 && json_node_get_value_type (node) != G_TYPE_DOUBLE))
      continue;
    if (v->sampling == NULL)
      v->sampling = g_hash_table_new_full (g_str_hash, g_str_equal, NULL, g_free);
    double value = json_node_get_double (node);
    g_hash_table_insert (v->sampling, (gpointer) values[i].gguf, g_memdup2 (&value, sizeof value));
  }
}

static gboolean read_vocabulary (EngVocab *v, const EngVocabFiles *files, GError **error)
{
  gsize length;
  if (files->tokenizer_json != NULL) {
    const char *json = g_bytes_get_data (files->tokenizer_json, &length);
    return eng_vocab_read_json (v, json != NULL ? json : "", length, error);
  }
  if (files->tokenizer_model == NULL)
    return eng_vocab_refuse (v, error, ENG_ERROR_FORMAT, "there is neither a tokenizer.json nor a tokenizer.model, so text cannot become tokens; get the whole folder");
  const guint8 *model = g_bytes_get_data (files->tokenizer_model, &length);
  return eng_vocab_read_sentencepiece (v, model, length, error);
}

EngVocab *eng_vocab_new_from_files (const EngVocabFiles *files, guint n_rows, GError **error)
{
  g_autoptr (EngVocab) v = eng_vocab_new (files->folder);
  g_autoptr (JsonNode) config_root = NULL, generation_root = NULL;
  JsonObject *config = NULL, *generation = NULL;
  gsize length;
  if (!read_vocabulary (v, files, error))
    return NULL;
  const char *text = files->chat_template != NULL ? g_bytes_get_data (files->chat_template, &length) : NULL;
  if (text != NULL)
    v->chat_template = g_strndup (text, length);
  if (files->tokenizer_config != NULL && (config = parse_object (v, files->tokenizer_config, "tokenizer_config.json", &config_root, error)) == NULL)
    return NULL;
  if (files->generation_config != NULL && (generation = parse_object (v, files->generation_config, "generation_config.json", &generation_root, error)) == NULL)
    return NULL;
  if (config != NULL && files->tokenizer_json == NULL && !read_added_decoder (v, config, error))
    return NULL;
  if (config != NULL)
    read_config (v, config, files->tokenizer_json == NULL || !v->has_processor);
  if (n_rows > 0 && v->n_tokens > n_rows) {
    eng_vocab_refuse (v, error, ENG_ERROR_FORMAT, "the vocabulary has %u tokens, but the model's embedding has %u rows; get matching files", v->n_tokens, n_rows);
    return NULL;
  }
  eng_vocab_resize (v, MAX (v->n_tokens, n_rows));
  if (generation != NULL)
    read_generation (v, generation);
  return g_steal_pointer (&v);
}

void eng_vocab_resize (EngVocab *v, guint n)
{
  if (n <= v->n_tokens)
    return;
  v->tokens = g_renew (EngText, v->tokens, n);
  v->types = g_renew (guint8, v->types, n);
  v->scores = v->scores != NULL ? g_renew (float, v->scores, n) : NULL;
  v->added = v->added != NULL ? g_renew (guint8, v->added, n) : NULL;
  for (guint i = v->n_tokens; i < n; i++) {
    g_autofree char *name = g_strdup_printf ("[PAD%u]", i);
    v->tokens[i] = (EngText){ g_string_chunk_insert (v->text, name), (guint32) strlen (name) };
    v->types[i] = ENG_TOKEN_TYPE_UNUSED;
    if (v->scores != NULL)
      v->scores[i] = 0;
    if (v->added != NULL)
      v->added[i] = 0;
  }
  v->n_tokens = n;
}
