/* tool_calls.c: a cursor over the text; what stands there says which form it is. Whoever comes to the end of the text and would read on notes it, so
 * that a beginning of calls is told from what can never become one. */
#include "engine/tool_calls.h"

#include "engine/json_reader.h"

#include <string.h>

enum { MAX_DEPTH = 64, MAX_NAME = 256 /* bytes */ };

typedef struct {
  const char *p, *end;
  JsonArray *tools;
  gboolean known;
  GPtrArray *calls;
  gboolean ran_out; /* with more text it might be a call */
} Cursor;

static gboolean has (Cursor *c, const char *mark)
{
  gsize n = strlen (mark), left = (gsize) (c->end - c->p);
  gboolean begun = memcmp (c->p, mark, MIN (n, left)) == 0;
  c->ran_out |= begun && left < n;
  return begun && left >= n;
}

static gboolean take (Cursor *c, const char *mark)
{
  gboolean there = has (c, mark);
  c->p += there ? strlen (mark) : 0;
  return there;
}

static void skip_space (Cursor *c)
{
  while (c->p < c->end && g_ascii_isspace (*c->p))
    c->p++;
}

static const char *find (Cursor *c, const char *mark)
{
  const char *at = memmem (c->p, (gsize) (c->end - c->p), mark, strlen (mark));
  c->ran_out |= at == NULL;
  return at;
}

/* The same for what stands behind a name. */
static const char *find_near (Cursor *c, const char *mark)
{
  gsize left = (gsize) (c->end - c->p);
  const char *at = memmem (c->p, MIN (left, MAX_NAME + strlen (mark)), mark, strlen (mark));
  c->ran_out |= at == NULL && left < MAX_NAME;
  return at;
}

/* ---- JSON ----------------------------------------------------------------------------------------------------------------- */

/* Where the value that p begins ends, or NULL; what is in it is not checked. */
static const char *value_end (const char *p, const char *end)
{
  gsize depth = 0;
  for (gboolean in_string = FALSE; p < end; p++) {
    if (in_string && *p == '\\' && p + 1 < end)
      p++;
    else if (*p == '"')
      in_string = !in_string;
    else if (!in_string && (*p == '{' || *p == '['))
      depth++;
    else if (!in_string && (*p == '}' || *p == ']'))
      depth -= depth > 0;
    if (depth == 0 && !in_string)
      return p + 1;
  }
  return NULL;
}

/* Whether this is a piece of a number, a word or an escape, of which a reader of JSON makes nothing as long as the rest is missing. */
static gboolean is_piece (const char *begin, const char *p)
{
  static const char *const words[] = { "true", "false", "null" };
  for (guint i = 0; i < G_N_ELEMENTS (words); i++)
    if (g_str_has_prefix (words[i], p))
      return TRUE;
  gboolean escape = p - begin >= 2 && p[-1] == 'u' && p[-2] == '\\';
  return p[strspn (p, escape ? "0123456789abcdefABCDEF" : "+-.0123456789eE")] == '\0' || p[strspn (p, " \t\r\n")] == '\0';
}

/* Whether p begins JSON that only lacks its end. */
static gboolean is_begun (const char *p, const char *end)
{
  EngJsonReader reader;
  eng_json_reader_init (&reader, p, (gsize) (end - p));
  while (eng_json_next (&reader) > ENG_JSON_DONE)
    ;
  gboolean begun = is_piece (p, reader.at); /* a cursor's text ends with a NUL */
  eng_json_reader_clear (&reader);
  return begun;
}

/* The object or array at p. */
static JsonNode *take_json (Cursor *c)
{
  gboolean opened = c->p < c->end && (*c->p == '{' || *c->p == '[');
  const char *end = opened ? value_end (c->p, c->end) : NULL;
  JsonNode *node = end != NULL ? eng_json_parse (c->p, (gsize) (end - c->p), NULL) : NULL;
  c->ran_out |= c->p == c->end || (opened && end == NULL && is_begun (c->p, c->end));
  if (node != NULL)
    c->p = end;
  return node;
}

static JsonObject *object_of (JsonNode *node)
{
  return node != NULL && JSON_NODE_HOLDS_OBJECT (node) ? json_node_get_object (node) : NULL;
}

static const char *string_of (JsonObject *object, const char *name)
{
  JsonNode *node = object != NULL ? json_object_get_member (object, name) : NULL;
  return node != NULL && JSON_NODE_HOLDS_VALUE (node) && json_node_get_value_type (node) == G_TYPE_STRING ? json_node_get_string (node) : NULL;
}

static JsonObject *function_of (JsonArray *tools, const char *name)
{
  for (guint i = 0; tools != NULL && i < json_array_get_length (tools); i++) {
    JsonObject *tool = object_of (json_array_get_element (tools, i)), *function = tool != NULL ? object_of (json_object_get_member (tool, "function")) : NULL;
    function = function != NULL ? function : tool;
    if (g_strcmp0 (string_of (function, "name"), name) == 0)
      return function;
  }
  return NULL;
}

/* ---- what is found -------------------------------------------------------------------------------------------------------- */

/* Takes the arguments. */
static gboolean add_call (Cursor *c, const char *name, JsonNode *arguments)
{
  gboolean ok = *name != '\0' && object_of (arguments) != NULL && g_utf8_validate (name, -1, NULL) && (!c->known || function_of (c->tools, name) != NULL);
  if (ok) {
    g_autoptr (JsonNode) node = json_node_new (JSON_NODE_OBJECT);
    JsonObject *call = json_object_new ();
    json_object_set_string_member (call, "name", name);
    json_object_set_member (call, "arguments", arguments);
    json_node_take_object (node, call);
    g_ptr_array_add (c->calls, json_to_string (node, FALSE));
  } else if (arguments != NULL) {
    json_node_unref (arguments);
  }
  return ok;
}

static JsonNode *no_arguments (void)
{
  JsonNode *node = json_node_new (JSON_NODE_OBJECT);
  json_node_take_object (node, json_object_new ());
  return node;
}

/* {"name", "arguments"} under any of their names; or {"NAME": {...}}. */
static gboolean add_object (Cursor *c, JsonObject *object)
{
  static const char *const names[] = { "name", "tool_name", "function" }, *const values[] = { "arguments", "parameters", "args", "kwargs" };
  const char *name = NULL;
  JsonNode *arguments = NULL;
  if (object == NULL)
    return FALSE;
  JsonObject *inner = json_object_has_member (object, "function") ? object_of (json_object_get_member (object, "function")) : NULL;
  if (inner != NULL)
    return add_object (c, inner);
  for (guint i = 0; i < G_N_ELEMENTS (names) && name == NULL; i++)
    name = string_of (object, names[i]);
  for (guint i = 0; i < G_N_ELEMENTS (values) && arguments == NULL; i++)
    arguments = json_object_get_member (object, values[i]);
  if (name == NULL && json_object_get_size (object) == 1) {
    g_autoptr (GList) members = json_object_get_members (object);
    return add_call (c, members->data, json_node_copy (json_object_get_member (object, members->data)));
  }
  if (name == NULL)
    return FALSE;
  if (arguments == NULL || JSON_NODE_HOLDS_NULL (arguments))
    return add_call (c, name, no_arguments ());
  const char *text = JSON_NODE_HOLDS_VALUE (arguments) && json_node_get_value_type (arguments) == G_TYPE_STRING ? json_node_get_string (arguments) : NULL;
  return add_call (c, name, text == NULL ? json_node_copy (arguments) : *text == '\0' ? no_arguments () : eng_json_parse (text, strlen (text), NULL));
}

static gboolean take_objects (Cursor *c)
{
  g_autoptr (JsonNode) node = take_json (c);
  if (node == NULL)
    return FALSE;
  if (JSON_NODE_HOLDS_OBJECT (node))
    return add_object (c, json_node_get_object (node));
  gboolean ok = TRUE;
  for (guint i = 0; i < json_array_get_length (json_node_get_array (node)) && ok; i++)
    ok = add_object (c, object_of (json_array_get_element (json_node_get_array (node), i)));
  return ok;
}

/* ---- tags ----------------------------------------------------------------------------------------------------------------- */

static gboolean is_text (JsonArray *tools, const char *name, const char *key)
{
  JsonObject *function = function_of (tools, name);
  JsonObject *parameters = function != NULL ? object_of (json_object_get_member (function, "parameters")) : NULL;
  JsonObject *properties = parameters != NULL ? object_of (json_object_get_member (parameters, "properties")) : NULL;
  JsonObject *property = properties != NULL ? object_of (json_object_get_member (properties, key)) : NULL;
  return g_strcmp0 (string_of (property, "type"), "string") == 0;
}

static JsonNode *take_literal (Cursor *c, guint depth);

/* A value as it stands between tags: a string where the tool wants one, else JSON where it is some. */
static void set_value (Cursor *c, JsonObject *arguments, const char *name, const char *key, const char *begin, const char *end)
{
  JsonNode *node = NULL;
  if (!is_text (c->tools, name, key)) {
    g_autofree char *text = g_strstrip (g_strndup (begin, (gsize) (end - begin)));
    node = eng_json_parse (text, strlen (text), NULL);
    if (node == NULL) { /* templates that write values by Python's str () */
      Cursor literal = { text, text + strlen (text) };
      node = take_literal (&literal, 0);
      if (node != NULL && literal.p != literal.end)
        g_clear_pointer (&node, json_node_unref);
    }
  }
  if (node != NULL) {
    json_object_set_member (arguments, key, node);
    return;
  }
  begin += begin < end && *begin == '\n';
  end -= end > begin && end[-1] == '\n';
  g_autofree char *text = g_strndup (begin, (gsize) (end - begin)), *valid = g_utf8_make_valid (text, -1);
  json_object_set_string_member (arguments, key, valid);
}

/* A name, or what stands for one, up to `mark`, which is passed; NULL: it is not there. */
static char *take_until (Cursor *c, const char *mark)
{
  const char *at = find_near (c, mark);
  if (at == NULL)
    return NULL;
  char *text = g_strstrip (g_strndup (c->p, (gsize) (at - c->p)));
  c->p = at + strlen (mark);
  return text;
}

typedef struct {
  const char *key_begin, *key_end, *value_begin, *value_end;
} Tags;

/* Pairs in tags, until something else stands there. */
static gboolean take_pairs (Cursor *c, const char *name, const Tags *tags, JsonObject *arguments)
{
  for (skip_space (c); take (c, tags->key_begin); skip_space (c)) {
    g_autofree char *key = take_until (c, tags->key_end);
    if (key == NULL || !g_utf8_validate (key, -1, NULL))
      return FALSE;
    if (*tags->value_begin != '\0') {
      skip_space (c);
      if (!take (c, tags->value_begin))
        return FALSE;
    }
    char *quote = strchr (key, '"'); /* of an attribute, further ones may follow */
    if (quote != NULL)
      *quote = '\0';
    const char *end = find (c, tags->value_end);
    if (end == NULL)
      return FALSE;
    set_value (c, arguments, name, key, c->p, end);
    c->p = end + strlen (tags->value_end);
  }
  return TRUE;
}

/* A call in tags; `end` is passed where it is. */
static gboolean take_tags (Cursor *c, const char *name, const Tags *tags, const char *end)
{
  g_autoptr (JsonNode) node = no_arguments ();
  if (!take_pairs (c, name, tags, json_node_get_object (node)))
    return FALSE;
  skip_space (c);
  take (c, end);
  return add_call (c, name, g_steal_pointer (&node));
}

/* ---- Python's calls ------------------------------------------------------------------------------------------------------- */

static JsonNode *take_python_string (Cursor *c)
{
  char quote = *c->p++;
  g_autoptr (GString) text = g_string_new (NULL);
  for (; c->p < c->end && *c->p != quote; c->p++) {
    static const char letters[] = "nrt", meant[] = "\n\r\t";
    if (*c->p != '\\' || c->p + 1 == c->end) {
      g_string_append_c (text, *c->p);
      continue;
    }
    const char *at = strchr (letters, *++c->p);
    g_string_append_c (text, at != NULL && *at != '\0' ? meant[at - letters] : *c->p);
  }
  c->ran_out |= c->p == c->end;
  if (c->p == c->end || !g_utf8_validate (text->str, (gssize) text->len, NULL))
    return NULL;
  c->p++;
  return json_node_init_string (json_node_alloc (), text->str);
}

/* Gemma 4's quotation mark is a token. */
static JsonNode *take_quoted (Cursor *c)
{
  static const char quote[] = "<|\"|>";
  const char *end = take (c, quote) ? find (c, quote) : NULL;
  g_autofree char *text = end != NULL ? g_strndup (c->p, (gsize) (end - c->p)) : NULL;
  if (text == NULL || !g_utf8_validate (text, -1, NULL))
    return NULL;
  c->p = end + strlen (quote);
  return json_node_init_string (json_node_alloc (), text);
}

static JsonNode *take_list (Cursor *c, guint depth)
{
  g_autoptr (JsonArray) array = json_array_new ();
  for (c->p++, skip_space (c); c->p < c->end && *c->p != ']'; skip_space (c)) {
    JsonNode *item = take_literal (c, depth);
    if (item == NULL)
      return NULL;
    json_array_add_element (array, item);
    skip_space (c);
    if (!take (c, ",") && !has (c, "]"))
      return NULL;
  }
  return take (c, "]") ? json_node_init_array (json_node_alloc (), array) : NULL;
}

static gboolean is_name (char byte)
{
  return g_ascii_isalnum (byte) || byte == '_' || byte == '-' || byte == '.' || byte == '/' || (guint8) byte >= 0x80;
}

static char *take_name (Cursor *c)
{
  const char *begin = c->p;
  while (c->p < c->end && is_name (*c->p))
    c->p++;
  c->ran_out |= c->p == c->end && c->p - begin <= MAX_NAME;
  return g_strndup (begin, (gsize) (c->p - begin));
}

static JsonNode *take_dict (Cursor *c, guint depth)
{
  g_autoptr (JsonObject) object = json_object_new ();
  for (c->p++, skip_space (c); c->p < c->end && *c->p != '}'; skip_space (c)) {
    g_autoptr (JsonNode) key = *c->p == '"' || *c->p == '\'' ? take_python_string (c) : has (c, "<|\"|>") ? take_quoted (c) : NULL;
    g_autofree char *bare = key == NULL ? take_name (c) : NULL;
    skip_space (c);
    JsonNode *item = (key != NULL || *bare != '\0') && (key != NULL || g_utf8_validate (bare, -1, NULL)) && take (c, ":") ? take_literal (c, depth) : NULL;
    if (item == NULL)
      return NULL;
    json_object_set_member (object, key != NULL ? json_node_get_string (key) : bare, item);
    skip_space (c);
    if (!take (c, ",") && !has (c, "}"))
      return NULL;
  }
  return take (c, "}") ? json_node_init_object (json_node_alloc (), object) : NULL;
}

static JsonNode *take_literal (Cursor *c, guint depth)
{
  static const struct { const char *python, *json; } words[] = { { "True", "true" }, { "true", "true" }, { "False", "false" }, { "false", "false" },
                                                                { "None", "null" }, { "null", "null" } };
  skip_space (c);
  c->ran_out |= c->p == c->end;
  if (c->p == c->end || depth > MAX_DEPTH)
    return NULL;
  if (*c->p == '"' || *c->p == '\'')
    return take_python_string (c);
  if (has (c, "<|\"|>"))
    return take_quoted (c);
  if (*c->p == '[')
    return take_list (c, depth + 1);
  if (*c->p == '{')
    return take_dict (c, depth + 1);
  for (guint i = 0; i < G_N_ELEMENTS (words); i++)
    if (take (c, words[i].python))
      return eng_json_parse (words[i].json, strlen (words[i].json), NULL);
  const char *begin = c->p;
  while (c->p < c->end && (g_ascii_isalnum (*c->p) || strchr ("+-.", *c->p) != NULL))
    c->p++;
  c->ran_out |= c->p == c->end;
  return eng_json_parse (begin, (gsize) (c->p - begin), NULL);
}

/* p is behind the opening parenthesis. */
static gboolean take_python_call (Cursor *c, const char *name)
{
  g_autoptr (JsonNode) node = no_arguments ();
  for (skip_space (c); c->p < c->end && *c->p != ')'; skip_space (c)) {
    g_autofree char *key = take_name (c);
    skip_space (c);
    JsonNode *value = *key != '\0' && take (c, "=") ? take_literal (c, 0) : NULL;
    if (value == NULL || !g_utf8_validate (key, -1, NULL)) {
      g_clear_pointer (&value, json_node_unref);
      return FALSE;
    }
    json_object_set_member (json_node_get_object (node), key, value);
    skip_space (c);
    if (!take (c, ",") && !has (c, ")"))
      return FALSE;
  }
  return take (c, ")") && add_call (c, name, g_steal_pointer (&node));
}

/* ---- a name and what it takes --------------------------------------------------------------------------------------------- */

/* "functions.weather:0" is weather. */
static char *bare_name (char *name)
{
  g_strstrip (name);
  char *number = strrchr (name, ':');
  if (number != NULL && number[1] != '\0' && strspn (number + 1, "0123456789") == strlen (number + 1))
    *number = '\0';
  if (g_str_has_prefix (name, "functions."))
    memmove (name, name + strlen ("functions."), strlen (name + strlen ("functions.")) + 1);
  return name;
}

static gboolean take_named (Cursor *c, const char *name)
{
  static const Tags glm = { "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>" };
  if (take (c, "("))
    return take_python_call (c, name);
  if (take (c, "[CALL_ID]")) {
    const char *at = find_near (c, "[ARGS]");
    c->p = at != NULL ? at : c->p;
  }
  gboolean marked = take (c, "[ARGS]");
  skip_space (c);
  if (has (c, "{"))
    return add_call (c, name, take_json (c));
  if (marked)
    return FALSE;
  /* A word alone is one without arguments only where it is a function's name. */
  gboolean alone = c->p == c->end || has (c, "</tool_call>");
  c->ran_out |= c->p == c->end;
  return (has (c, "<arg_key>") || (alone && function_of (c->tools, name) != NULL)) && take_tags (c, name, &glm, "");
}

/* What DeepSeek puts between its marks: "function<sep>name\n```json\n{...}\n```", or "name<sep>{...}". */
static gboolean take_deepseek (Cursor *c)
{
  static const char sep[] = "<｜tool▁sep｜>";
  g_autofree char *first = take_until (c, sep), *second = NULL;
  skip_space (c);
  if (first == NULL || has (c, "{"))
    return first != NULL && add_call (c, first, take_json (c));
  second = take_until (c, "\n");
  if (second == NULL)
    return FALSE;
  skip_space (c);
  take (c, "```json");
  skip_space (c);
  gboolean ok = add_call (c, second, take_json (c));
  skip_space (c);
  take (c, "```");
  return ok;
}

static gboolean take_call (Cursor *c)
{
  static const Tags parameters = { "<parameter=", ">", "", "</parameter>" }, attributes = { "<parameter name=\"", ">", "", "</parameter>" };
  g_autofree char *name = NULL;
  if (take (c, "<｜tool▁call▁begin｜>"))
    return take_deepseek (c);
  if (take (c, "<|tool_call_begin|>")) {
    name = take_until (c, "<|tool_call_argument_begin|>");
    skip_space (c);
    return name != NULL && add_call (c, bare_name (name), take_json (c));
  }
  if (take (c, "call:")) { /* Gemma 4 */
    name = take_name (c);
    return has (c, "{") && add_call (c, name, take_dict (c, 0));
  }
  if (take (c, "<function=")) {
    name = take_until (c, ">");
    skip_space (c);
    if (name != NULL && has (c, "{"))
      return add_call (c, name, take_json (c));
    return name != NULL && take_tags (c, name, &parameters, "</function>");
  }
  if (take (c, "<invoke name=\"")) {
    name = take_until (c, "\"");
    return name != NULL && take (c, ">") && take_tags (c, name, &attributes, "</invoke>");
  }
  if (has (c, "{"))
    return take_objects (c);
  if (has (c, "[")) {
    const char *begin = c->p++;
    skip_space (c);
    if (has (c, "{") || has (c, "]")) {
      c->p = begin;
      return take_objects (c);
    }
  }
  name = take_name (c);
  return *name != '\0' && take_named (c, bare_name (name));
}

/* ran_out: not NULL where the text may go on; whether it might then be calls though it is none yet. */
static gboolean parse (const char *text, gsize length, JsonArray *tools, gboolean known, GPtrArray *calls, gboolean *ran_out)
{
  /* What stands between calls and means nothing by itself. */
  static const char *const between[] = { ",", ";", "]", "</function>", "</tool_call>", "<tool_call>", "<|/tool_call|>", "[TOOL_CALLS]", "<｜tool▁call▁end｜>", "<|tool_call_end|>",
                                         "```json", "```", "<|eom_id|>" };
  static const char dsml[] = "｜DSML｜";
  g_autoptr (GString) plain = g_string_new_len (text, (gssize) length);
  g_string_replace (plain, dsml, "", 0);
  for (gsize k = ran_out != NULL ? MIN (strlen (dsml) - 1, plain->len) : 0; k > 0; k--) /* the beginning of one is none yet */
    if (k <= plain->len && memcmp (plain->str + plain->len - k, dsml, k) == 0)
      g_string_truncate (plain, plain->len - k);
  Cursor c = { plain->str, plain->str + plain->len, tools, known, calls };
  guint before = calls->len;
  gboolean ok = strlen (plain->str) == plain->len;
  while (ok) {
    gboolean again = FALSE;
    skip_space (&c);
    for (guint i = 0; i < G_N_ELEMENTS (between) && !again; i++)
      again = take (&c, between[i]);
    if (again)
      continue;
    if (c.p == c.end)
      break;
    ok = take_call (&c);
  }
  if (ran_out != NULL)
    *ran_out = ok || c.ran_out;
  if (!ok)
    g_ptr_array_set_size (calls, (gint) before);
  return ok && calls->len > before;
}

gboolean eng_tool_calls_parse (const char *text, gsize length, JsonArray *tools, gboolean known, GPtrArray *calls)
{
  return parse (text, length, tools, known, calls, NULL);
}

gboolean eng_tool_calls_may_begin (const char *text, gsize length, JsonArray *tools, gboolean known)
{
  g_autoptr (GPtrArray) calls = g_ptr_array_new_with_free_func (g_free);
  gboolean ran_out;
  return parse (text, length, tools, known, calls, &ran_out) || ran_out;
}

gboolean eng_tool_calls_add (const char *name, gsize name_length, const char *arguments, gsize length, GPtrArray *calls)
{
  Cursor c = { arguments, arguments + length, NULL, FALSE, calls };
  g_autofree char *text = g_strndup (name, name_length);
  skip_space (&c);
  return add_call (&c, bare_name (text), c.p == c.end ? no_arguments () : take_json (&c));
}
