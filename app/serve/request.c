/* request.c: bodies of chat/completions and completions, as OpenAI's API has them, and with llama.cpp's names for further ways to sample. */
#include "app/serve/serve-private.h"

#include "engine/call_form.h"
#include "engine/error.h"
#include "engine/generate.h"
#include "engine/json_reader.h"
#include "engine/sampler_preset.h"

#include <math.h>
#include <string.h>

enum { MAX_STOPS = 16, MAX_BIASES = 1024 };

static gboolean refuse (GError **error, const char *format, ...) G_GNUC_PRINTF (2, 3);

static gboolean refuse (GError **error, const char *format, ...)
{
  va_list arguments;
  va_start (arguments, format);
  g_autofree char *sentence = g_strdup_vprintf (format, arguments);
  va_end (arguments);
  g_set_error_literal (error, VALISE_ERROR, VALISE_ERROR_ARGUMENT, sentence);
  return FALSE;
}

/* ---- members -------------------------------------------------------------------------------------------------------------- */

static JsonNode *member (JsonObject *object, const char *name)
{
  JsonNode *node = json_object_get_member (object, name);
  return node == NULL || JSON_NODE_HOLDS_NULL (node) ? NULL : node;
}

static gboolean holds (JsonNode *node, GType type)
{
  return node != NULL && JSON_NODE_HOLDS_VALUE (node) && json_node_get_value_type (node) == type;
}

static gboolean get_number (JsonObject *body, const char *name, double low, double high, double *value, GError **error)
{
  JsonNode *node = member (body, name);
  if (node == NULL)
    return TRUE;
  if (!holds (node, G_TYPE_INT64) && !holds (node, G_TYPE_DOUBLE))
    return refuse (error, "%s is no number", name);
  *value = json_node_get_double (node);
  if (!(*value >= low && *value <= high))
    return refuse (error, "%s is not between %g and %g", name, low, high);
  return TRUE;
}

static gboolean get_bool (JsonObject *body, const char *name, gboolean *value, GError **error)
{
  JsonNode *node = member (body, name);
  if (node != NULL && !holds (node, G_TYPE_BOOLEAN))
    return refuse (error, "%s is neither true nor false", name);
  *value = node != NULL && json_node_get_boolean (node);
  return TRUE;
}

gboolean valise_asked_string (JsonObject *body, const char *name, const char **value, GError **error)
{
  JsonNode *node = member (body, name);
  *value = holds (node, G_TYPE_STRING) ? json_node_get_string (node) : NULL;
  return node == NULL || *value != NULL || refuse (error, "%s is no string", name);
}

static gboolean get_object (JsonObject *body, const char *name, JsonObject **value, GError **error)
{
  JsonNode *node = member (body, name);
  *value = node != NULL && JSON_NODE_HOLDS_OBJECT (node) ? json_node_get_object (node) : NULL;
  return node == NULL || *value != NULL || refuse (error, "%s is no object", name);
}

static gboolean get_array (JsonObject *body, const char *name, JsonArray **value, GError **error)
{
  JsonNode *node = member (body, name);
  *value = node != NULL && JSON_NODE_HOLDS_ARRAY (node) ? json_node_get_array (node) : NULL;
  return node == NULL || *value != NULL || refuse (error, "%s is no list", name);
}

/* ---- sampling ------------------------------------------------------------------------------------------------------------- */

static gboolean read_sampling (EngModel *model, JsonObject *body, EngSamplerOptions *o, GError **error)
{
  const struct { const char *name; double low, high; float *value; } floats[] = {
    { "temperature", 0, 100, &o->temperature }, { "top_p", 0, 1, &o->top_p }, { "min_p", 0, 1, &o->min_p }, { "repeat_penalty", 0.01, 100, &o->repeat_penalty },
    { "repetition_penalty", 0.01, 100, &o->repeat_penalty }, { "presence_penalty", -100, 100, &o->presence_penalty }, { "frequency_penalty", -100, 100, &o->frequency_penalty },
    { "dry_multiplier", 0, 100, &o->dry_multiplier }, { "dry_base", 0, 100, &o->dry_base }, { "top_n_sigma", -1, 1000, &o->top_n_sigma }, { "typical_p", 0, 1, &o->typical_p },
    { "xtc_probability", 0, 1, &o->xtc_probability }, { "xtc_threshold", 0, 1, &o->xtc_threshold }, { "dynatemp_range", 0, 100, &o->dynamic_range },
    { "dynatemp_exponent", 0, 100, &o->dynamic_exponent }, { "mirostat_tau", 0, 100, &o->mirostat_tau }, { "mirostat_eta", 0, 1, &o->mirostat_eta } };
  double top_k, last_n, mirostat, allowed = 0, seed = -1;
  *o = (EngSamplerOptions) ENG_SAMPLER_DEFAULTS;
  o->xtc_threshold = 0.1f;
  eng_sampler_preset (eng_model_gguf (model), o);
  top_k = o->top_k;
  last_n = o->repeat_last_n;
  mirostat = o->mirostat;
  for (gsize i = 0; i < G_N_ELEMENTS (floats); i++) {
    double value = *floats[i].value;
    if (!get_number (body, floats[i].name, floats[i].low, floats[i].high, &value, error))
      return FALSE;
    *floats[i].value = (float) value;
  }
  if (!get_number (body, "top_k", -1, 1e9, &top_k, error) || !get_number (body, "repeat_last_n", 0, 1e9, &last_n, error) || !get_number (body, "mirostat", 0, 2, &mirostat, error) ||
      !get_number (body, "dry_allowed_length", 0, 1e6, &allowed, error) || !get_number (body, "seed", -1, 9007199254740992.0, &seed, error))
    return FALSE;
  o->top_k = MAX ((int) top_k, 0);
  o->repeat_last_n = (int) last_n;
  o->mirostat = (int) mirostat;
  o->dry_allowed_length = (guint) allowed;
  o->seed = seed >= 0 ? (guint64) seed : ((guint64) g_random_int () << 32) | g_random_int ();
  return TRUE;
}

static gboolean read_biases (ValiseAsked *asked, guint n_vocab, JsonObject *body, GError **error)
{
  JsonObject *biases;
  if (!get_object (body, "logit_bias", &biases, error))
    return FALSE;
  g_autoptr (GList) names = biases != NULL ? json_object_get_members (biases) : NULL;
  for (GList *name = names; name != NULL; name = name->next) {
    guint64 token;
    double value = 0;
    if (!g_ascii_string_to_unsigned (name->data, 10, 0, n_vocab - 1, &token, NULL) || asked->biases->len == MAX_BIASES)
      return refuse (error, "logit_bias names the token %s, of which there is none, or more than %d of them", (char *) name->data, MAX_BIASES);
    if (!get_number (biases, name->data, -100, 100, &value, error))
      return FALSE;
    EngLogitBias bias = { (gint32) token, value == -100 ? -INFINITY : (float) value };
    g_array_append_val (asked->biases, bias);
  }
  asked->answer.sampling.biases = (const EngLogitBias *) (gpointer) asked->biases->data;
  asked->answer.sampling.n_biases = asked->biases->len;
  return TRUE;
}

static gboolean read_stops (ValiseAsked *asked, JsonObject *body, GError **error)
{
  JsonNode *node = member (body, "stop");
  gboolean list = node != NULL && JSON_NODE_HOLDS_ARRAY (node);
  guint n = list ? json_array_get_length (json_node_get_array (node)) : node != NULL;
  if (n > MAX_STOPS)
    return refuse (error, "stop lists more than %d texts", MAX_STOPS);
  for (guint i = 0; i < n; i++) {
    JsonNode *one = list ? json_array_get_element (json_node_get_array (node), i) : node;
    if (!holds (one, G_TYPE_STRING) || *json_node_get_string (one) == '\0')
      return refuse (error, "stop is neither a string nor a list of strings that are not empty");
    g_ptr_array_add (asked->stops, g_strdup (json_node_get_string (one)));
  }
  g_ptr_array_add (asked->stops, NULL);
  asked->answer.stops = (const char *const *) asked->stops->pdata;
  return TRUE;
}

/* ---- the form of the answer ----------------------------------------------------------------------------------------------- */

static gboolean read_form (ValiseAsked *asked, JsonObject *body, GError **error)
{
  JsonObject *format, *described = NULL;
  const char *type = NULL, *gbnf;
  if (!get_object (body, "response_format", &format, error) || (format != NULL && !valise_asked_string (format, "type", &type, error)) ||
      !valise_asked_string (body, "grammar", &gbnf, error))
    return FALSE;
  JsonNode *schema = member (body, "json_schema");
  if (format != NULL && g_strcmp0 (type, "json_schema") == 0) {
    if (!get_object (format, "json_schema", &described, error))
      return FALSE;
    schema = described != NULL ? member (described, "schema") : member (format, "schema");
    if (schema == NULL)
      return refuse (error, "response_format asks for a json_schema and holds none");
  } else if (format != NULL && g_strcmp0 (type, "json_object") == 0) {
    asked->answer.grammar = eng_grammar_new_json_object ();
  } else if (format != NULL && g_strcmp0 (type, "text") != 0) {
    return refuse (error, "response_format's type is not text, json_object or json_schema");
  }
  if ((schema != NULL) + (gbnf != NULL) + (asked->answer.grammar != NULL) > 1)
    return refuse (error, "only one of response_format, json_schema and grammar can be obeyed");
  if (schema != NULL || gbnf != NULL) {
    asked->answer.grammar = schema != NULL ? eng_grammar_new_from_schema (schema, "the schema", error) : eng_grammar_new (gbnf, error);
    return asked->answer.grammar != NULL;
  }
  return TRUE;
}

/* tool_choice: whether a function may be called, must be, and which one, or NULL. */
typedef struct {
  gboolean may, must;
  const char *only;
} Choice;

static gboolean read_choice (JsonObject *body, Choice *choice, GError **error)
{
  JsonNode *node = member (body, "tool_choice");
  const char *word = holds (node, G_TYPE_STRING) ? json_node_get_string (node) : NULL;
  JsonObject *function = NULL;
  *choice = (Choice){ .may = TRUE };
  if (node == NULL || g_strcmp0 (word, "auto") == 0)
    return TRUE;
  choice->may = g_strcmp0 (word, "none") != 0;
  choice->must = choice->may;
  if (!choice->may || g_strcmp0 (word, "required") == 0)
    return TRUE;
  if (!JSON_NODE_HOLDS_OBJECT (node) || !get_object (json_node_get_object (node), "function", &function, NULL) || function == NULL ||
      !valise_asked_string (function, "name", &choice->only, NULL) || choice->only == NULL)
    return refuse (error, "tool_choice is neither auto, none, required nor a function with a name");
  return TRUE;
}

/* The template may want past calls' arguments as text; and a call that must be made is a form of the answer. */
static gboolean read_calls (ValiseAsked *asked, EngModel *model, JsonObject *variables, const Choice *choice, gboolean *text, GError **error)
{
  g_autoptr (EngCallForm) form = eng_call_form_new (model, variables);
  *text = form->text;
  if (!choice->must)
    return TRUE;
  if (asked->tools == NULL)
    return refuse (error, "tool_choice asks for a call, and tools names no function");
  asked->answer.grammar = eng_call_grammar_new (form, asked->tools, choice->only, error);
  asked->answer.calls = TRUE;
  return asked->answer.grammar != NULL;
}

static gboolean read_tools (ValiseAsked *asked, JsonObject *body, JsonObject *variables, Choice *choice, GError **error)
{
  JsonArray *tools;
  if (!get_array (body, "tools", &tools, error))
    return FALSE;
  for (guint i = 0; tools != NULL && i < json_array_get_length (tools); i++) {
    JsonNode *tool = json_array_get_element (tools, i);
    JsonObject *function = NULL;
    const char *name = NULL;
    if (!JSON_NODE_HOLDS_OBJECT (tool) || !get_object (json_node_get_object (tool), "function", &function, NULL) || function == NULL ||
        !valise_asked_string (function, "name", &name, NULL) || name == NULL)
      return refuse (error, "tools[%u] is no function with a name", i);
  }
  if (!read_choice (body, choice, error))
    return FALSE;
  if (tools == NULL || json_array_get_length (tools) == 0 || !choice->may)
    return TRUE;
  if (asked->answer.grammar != NULL)
    return refuse (error, "an answer in a form cannot call tools: leave one of them out");
  asked->tools = json_array_ref (tools);
  asked->answer.tools = tools;
  json_object_set_array_member (variables, "tools", json_array_ref (tools));
  return TRUE;
}

/* ---- the prompt ----------------------------------------------------------------------------------------------------------- */

/* A content's text: a string, or the texts of its parts. */
static gboolean read_content (JsonObject *message, guint i, GError **error)
{
  JsonNode *content = member (message, "content");
  if (content == NULL || holds (content, G_TYPE_STRING)) {
    if (content == NULL)
      json_object_set_string_member (message, "content", "");
    return TRUE;
  }
  if (!JSON_NODE_HOLDS_ARRAY (content))
    return refuse (error, "messages[%u].content is neither a string nor a list of parts", i);
  g_autoptr (GString) text = g_string_new (NULL);
  for (guint k = 0; k < json_array_get_length (json_node_get_array (content)); k++) {
    JsonNode *part = json_array_get_element (json_node_get_array (content), k);
    JsonNode *words = JSON_NODE_HOLDS_OBJECT (part) ? member (json_node_get_object (part), "text") : NULL;
    if (!holds (words, G_TYPE_STRING))
      return refuse (error, "messages[%u].content[%u] is no text: pictures and sound are not understood", i, k);
    g_string_append (text, json_node_get_string (words));
  }
  json_object_set_string_member (message, "content", text->str);
  return TRUE;
}

static JsonArray *calls_of (JsonArray *messages, guint i)
{
  JsonArray *calls = NULL;
  get_array (json_array_get_object_element (messages, i), "tool_calls", &calls, NULL);
  return calls;
}

static gboolean has_calls (JsonArray *messages)
{
  for (guint i = 0; i < json_array_get_length (messages); i++)
    if (calls_of (messages, i) != NULL)
      return TRUE;
  return FALSE;
}

static void open_calls (JsonArray *calls)
{
  for (guint i = 0; i < json_array_get_length (calls); i++) {
    JsonNode *call = json_array_get_element (calls, i);
    JsonObject *function = NULL;
    const char *text = NULL;
    if (!JSON_NODE_HOLDS_OBJECT (call) || !get_object (json_node_get_object (call), "function", &function, NULL) || function == NULL ||
        !valise_asked_string (function, "arguments", &text, NULL) || text == NULL)
      continue;
    JsonNode *arguments = eng_json_parse (text, strlen (text), NULL);
    if (arguments != NULL)
      json_object_set_member (function, "arguments", arguments);
  }
}

/* Calls' arguments are strings of JSON to a client and, for most templates, objects. */
static void open_arguments (JsonArray *messages)
{
  for (guint i = 0; i < json_array_get_length (messages); i++)
    if (calls_of (messages, i) != NULL)
      open_calls (calls_of (messages, i));
}

static JsonArray *read_messages (JsonObject *body, GError **error)
{
  JsonArray *given;
  if (!get_array (body, "messages", &given, error))
    return NULL;
  if (given == NULL || json_array_get_length (given) == 0) {
    refuse (error, "messages is missing or empty");
    return NULL;
  }
  g_autoptr (JsonArray) messages = json_array_new ();
  for (guint i = 0; i < json_array_get_length (given); i++) {
    JsonNode *node = json_array_get_element (given, i);
    const char *role = NULL;
    if (!JSON_NODE_HOLDS_OBJECT (node) || !valise_asked_string (json_node_get_object (node), "role", &role, NULL) || role == NULL) {
      refuse (error, "messages[%u] has no role", i);
      return NULL;
    }
    g_autofree char *text = json_to_string (node, FALSE);
    JsonNode *copy = eng_json_parse (text, strlen (text), error);
    if (copy == NULL)
      return NULL;
    json_array_add_element (messages, copy);
    JsonObject *message = json_node_get_object (copy);
    if (!read_content (message, i, error))
      return NULL;
    if (g_str_equal (role, "developer"))
      json_object_set_string_member (message, "role", "system");
  }
  return g_steal_pointer (&messages);
}

static gboolean read_chat (ValiseAsked *asked, EngModel *model, JsonObject *body, GError **error)
{
  JsonObject *further;
  g_autoptr (JsonObject) variables = json_object_new ();
  g_autoptr (JsonArray) messages = read_messages (body, error);
  gboolean text = FALSE;
  Choice choice;
  if (messages == NULL || !read_tools (asked, body, variables, &choice, error) || !get_object (body, "chat_template_kwargs", &further, error))
    return FALSE;
  g_autoptr (GList) names = further != NULL ? json_object_get_members (further) : NULL;
  for (GList *name = names; name != NULL; name = name->next)
    json_object_set_member (variables, name->data, json_node_copy (json_object_get_member (further, name->data)));
  gboolean called = has_calls (messages);
  if ((called || choice.must) && !read_calls (asked, model, variables, &choice, &text, error))
    return FALSE;
  if (called && !text)
    open_arguments (messages);
  asked->prompt = eng_generate_prompt (model, messages, variables, &asked->text, error);
  asked->answer.prompt = asked->text;
  return asked->prompt != NULL;
}

/* completions: text as it is, or tokens. */
static gboolean read_prompt (ValiseAsked *asked, EngModel *model, JsonObject *body, GError **error)
{
  const EngTokenizer *tokenizer = eng_model_tokenizer (model);
  JsonNode *node = member (body, "prompt");
  JsonArray *list = node != NULL && JSON_NODE_HOLDS_ARRAY (node) ? json_node_get_array (node) : NULL;
  gint32 bos = eng_tokenizer_bos (tokenizer);
  asked->prompt = g_array_new (FALSE, FALSE, sizeof (gint32));
  if (list != NULL && json_array_get_length (list) == 1 && holds (json_array_get_element (list, 0), G_TYPE_STRING)) {
    node = json_array_get_element (list, 0);
    list = NULL;
  }
  for (guint i = 0; list != NULL && i < json_array_get_length (list); i++) {
    JsonNode *one = json_array_get_element (list, i);
    gint64 token = holds (one, G_TYPE_INT64) ? json_node_get_int (one) : -1;
    gint32 id = (gint32) token;
    if (token < 0 || token >= eng_tokenizer_n_tokens (tokenizer))
      return refuse (error, "prompt[%u] is no token of this model; several prompts at once are not answered", i);
    g_array_append_val (asked->prompt, id);
  }
  if (list != NULL)
    return TRUE;
  if (!holds (node, G_TYPE_STRING))
    return refuse (error, "prompt is neither a string nor a list of tokens");
  if (bos >= 0 && eng_tokenizer_adds_bos (tokenizer))
    g_array_append_val (asked->prompt, bos);
  eng_tokenizer_encode (tokenizer, json_node_get_string (node), -1, ENG_TOKENIZE_SPECIAL, asked->prompt);
  return TRUE;
}

/* ---- the whole ------------------------------------------------------------------------------------------------------------ */

static gboolean read_rest (ValiseAsked *asked, EngModel *model, JsonObject *body, GError **error)
{
  double max_tokens = 0, n = 1;
  gboolean logprobs = FALSE;
  JsonObject *stream_options;
  JsonNode *likely = member (body, "logprobs");
  if (!get_number (body, "max_tokens", 1, 1e9, &max_tokens, error) || !get_number (body, "max_completion_tokens", 1, 1e9, &max_tokens, error) || !get_number (body, "n", 1, 1e9, &n, error) ||
      !get_bool (body, "stream", &asked->stream, error) || !get_object (body, "stream_options", &stream_options, error) ||
      (stream_options != NULL && !get_bool (stream_options, "include_usage", &asked->usage, error)))
    return FALSE;
  logprobs = likely != NULL && !(holds (likely, G_TYPE_BOOLEAN) && !json_node_get_boolean (likely)) && !(holds (likely, G_TYPE_INT64) && json_node_get_int (likely) == 0);
  if (n != 1)
    return refuse (error, "n can be 1 only: ask again for another answer");
  if (logprobs)
    return refuse (error, "logprobs are not told by this server");
  asked->answer.max_tokens = (guint) max_tokens;
  return read_sampling (model, body, &asked->answer.sampling, error) && read_biases (asked, eng_model_traits (model)->n_vocab, body, error) && read_stops (asked, body, error) &&
         read_form (asked, body, error);
}

ValiseAsked *valise_asked_new (EngModel *model, JsonObject *body, gboolean chat, GError **error)
{
  g_autoptr (ValiseAsked) asked = g_new0 (ValiseAsked, 1);
  asked->chat = chat;
  asked->answer.raw = !chat;
  asked->biases = g_array_new (FALSE, FALSE, sizeof (EngLogitBias));
  asked->stops = g_ptr_array_new_with_free_func (g_free);
  if (!read_rest (asked, model, body, error) || !(chat ? read_chat (asked, model, body, error) : read_prompt (asked, model, body, error)))
    return NULL;
  return g_steal_pointer (&asked);
}

void valise_asked_free (ValiseAsked *asked)
{
  if (asked == NULL)
    return;
  g_clear_pointer (&asked->answer.grammar, eng_grammar_unref);
  g_clear_pointer (&asked->prompt, g_array_unref);
  g_clear_pointer (&asked->tools, json_array_unref);
  g_free (asked->text);
  g_array_unref (asked->biases);
  g_ptr_array_unref (asked->stops);
  g_free (asked);
}
