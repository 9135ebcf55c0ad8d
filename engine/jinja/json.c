/* json.c: JSON to values (every string of it is marked as the context's) and values to JSON, as Python's json.dumps writes it. */
#include "engine/jinja/value.h"

#include <math.h>
#include <string.h>

static JinjaValue context_string (JinjaWork *work, const char *text, gboolean from_context)
{
  const char *broken, *end;
  if (text == NULL)
    text = "";
  end = text + strlen (text);
  JinjaBuilder builder;
  jinja_builder_init (work, &builder);
  while (!g_utf8_validate (text, end - text, &broken)) { /* a caller's string may hold anything */
    jinja_builder_add (&builder, text, (gsize) (broken - text), from_context);
    jinja_builder_add (&builder, "\xEF\xBF\xBD", 3, from_context);
    text = broken + 1;
  }
  jinja_builder_add (&builder, text, (gsize) (end - text), from_context);
  return jinja_builder_finish (&builder);
}

static JinjaValue from_json (JinjaWork *work, JsonNode *node, gboolean from_context);

static JinjaValue object_from_json (JinjaWork *work, JsonObject *object, gboolean from_context)
{
  JinjaValue value = jinja_dict_new (work, JINJA_DICT);
  JsonObjectIter iter;
  const char *name;
  JsonNode *member;
  JinjaDict *dict = value.dict;
  json_object_iter_init_ordered (&iter, object);
  while (json_object_iter_next_ordered (&iter, &name, &member)) {
    dict->pairs = jinja_grow (&work->heap, dict->pairs, sizeof *dict->pairs, dict->n, &dict->capacity);
    JinjaValue key = context_string (work, name, TRUE), item = from_json (work, member, from_context);
    dict->pairs[dict->n++] = (JinjaPair){ key, item };
  }
  return value;
}

static JinjaValue from_json (JinjaWork *work, JsonNode *node, gboolean from_context)
{
  JinjaValue value = jinja_none ();
  jinja_enter (work);
  if (JSON_NODE_HOLDS_OBJECT (node)) {
    value = object_from_json (work, json_node_get_object (node), from_context);
  } else if (JSON_NODE_HOLDS_ARRAY (node)) {
    JsonArray *array = json_node_get_array (node);
    guint n = json_array_get_length (array);
    value = jinja_list_new (work, JINJA_KIND_LIST, n);
    for (guint i = 0; i < n; i++)
      jinja_list_add (work, value.list, from_json (work, json_array_get_element (array, i), from_context));
  } else if (JSON_NODE_HOLDS_VALUE (node)) {
    GType type = json_node_get_value_type (node);
    if (type == G_TYPE_STRING)
      value = context_string (work, json_node_get_string (node), from_context);
    else if (type == G_TYPE_BOOLEAN)
      value = jinja_bool (json_node_get_boolean (node));
    else if (type == G_TYPE_DOUBLE)
      value = jinja_float (json_node_get_double (node));
    else
      value = jinja_int (json_node_get_int (node));
  }
  jinja_leave (work);
  return value;
}

JinjaValue jinja_from_json (JinjaWork *work, JsonNode *node)
{
  return from_json (work, node, TRUE);
}

/* A role is a word that the application chose; published templates build control tokens around it, '<|' + role + '|>'. Anything but a
 * word is text like any other. */
static void trust_roles (JinjaValue messages)
{
  if (messages.type != JINJA_LIST)
    return;
  for (gsize i = 0; i < messages.list->n; i++) {
    JinjaValue message = messages.list->items[i];
    for (gsize j = 0; message.type == JINJA_DICT && j < message.dict->n; j++) {
      JinjaPair *pair = &message.dict->pairs[j];
      if (!jinja_string_is (pair->key.string, "role") || pair->value.type != JINJA_STRING)
        continue;
      JinjaString *role = pair->value.string;
      gboolean word = TRUE;
      for (gsize k = 0; k < role->length; k++)
        word = word && (g_ascii_isalpha (role->text[k]) || role->text[k] == '_');
      if (word)
        role->bytes->n_spans = 0;
    }
  }
}

JinjaValue jinja_from_context (JinjaWork *work, JsonObject *context)
{
  JinjaValue value = jinja_dict_new (work, JINJA_DICT);
  JsonObjectIter iter;
  const char *name;
  JsonNode *member;
  json_object_iter_init_ordered (&iter, context);
  while (json_object_iter_next_ordered (&iter, &name, &member)) {
    /* bos_token, eos_token and their like come from the model, not from a person. */
    gboolean from_context = !(g_str_has_suffix (name, "_token") && JSON_NODE_HOLDS_VALUE (member));
    JinjaValue item = from_json (work, member, from_context);
    if (g_str_equal (name, "messages"))
      trust_roles (item);
    jinja_dict_set (work, value.dict, context_string (work, name, TRUE), item);
  }
  return value;
}

typedef struct {
  JinjaBuilder builder;
  int indent;
  const char *item_separator, *key_separator;
  gboolean ensure_ascii, sort_keys;
} Writer;

static void write_string (Writer *w, const JinjaString *string)
{
  jinja_builder_add_text (&w->builder, "\"");
  JinjaCursor c;
  for (jinja_cursor_init (&c, string); jinja_cursor_next (&c);) {
    static const char letters[] = "\"\\\b\f\n\r\t", names[] = "\"\\bfnrt";
    const char *special = c.code != 0 && c.code < 0x80 ? strchr (letters, (int) c.code) : NULL;
    char escaped[16] = "";
    if (special != NULL)
      g_snprintf (escaped, sizeof escaped, "\\%c", names[special - letters]);
    else if (c.code < 0x20 || (w->ensure_ascii && c.code >= 0x7F && c.code < 0x10000 && c.code != 0x7F))
      g_snprintf (escaped, sizeof escaped, "\\u%04x", c.code);
    else if (w->ensure_ascii && c.code >= 0x10000)
      g_snprintf (escaped, sizeof escaped, "\\u%04x\\u%04x", 0xD7C0 + (c.code >> 10), 0xDC00 + (c.code & 0x3FF));
    if (escaped[0] != '\0')
      jinja_builder_add (&w->builder, escaped, strlen (escaped), c.from_context);
    else
      jinja_builder_add (&w->builder, c.text, c.length, c.from_context);
  }
  jinja_builder_add_text (&w->builder, "\"");
}

static void new_line (Writer *w, guint level)
{
  if (w->indent < 0)
    return;
  jinja_builder_add_text (&w->builder, "\n");
  for (gsize i = 0; i < (gsize) w->indent * level; i++)
    jinja_builder_add_text (&w->builder, " ");
}

static void write_value (Writer *w, JinjaValue value, guint level);

static void write_float (Writer *w, double real)
{
  char text[400];
  jinja_format_float (real, text, sizeof text);
  jinja_builder_add_text (&w->builder, isnan (real) ? "NaN" : isinf (real) ? (real > 0 ? "Infinity" : "-Infinity") : text);
}

static void write_key (Writer *w, JinjaValue key)
{
  JinjaWork *work = w->builder.work;
  if (key.type == JINJA_STRING) {
    write_string (w, key.string);
    return;
  }
  if (key.type != JINJA_NONE && !jinja_is_number (key))
    jinja_error (work, "keys must be str, int, float, bool or None, not %s", jinja_type_name (key));
  jinja_builder_add_text (&w->builder, "\"");
  write_value (w, key, 0);
  jinja_builder_add_text (&w->builder, "\"");
}

static JinjaPair *sorted_pairs (JinjaWork *work, const JinjaDict *dict)
{
  JinjaPair *pairs = jinja_new (&work->heap, JinjaPair, dict->n);
  for (gsize i = 0; i < dict->n; i++) {
    gsize at = i;
    jinja_spend (work, i);
    for (; at > 0 && jinja_compare (work, dict->pairs[i].key, pairs[at - 1].key, "<") < 0; at--)
      pairs[at] = pairs[at - 1];
    pairs[at] = dict->pairs[i];
  }
  return pairs;
}

static void write_dict (Writer *w, const JinjaDict *dict, guint level)
{
  const JinjaPair *pairs = w->sort_keys ? sorted_pairs (w->builder.work, dict) : dict->pairs;
  jinja_builder_add_text (&w->builder, "{");
  for (gsize i = 0; i < dict->n; i++) {
    if (i > 0)
      jinja_builder_add_text (&w->builder, w->item_separator);
    new_line (w, level + 1);
    write_key (w, pairs[i].key);
    jinja_builder_add_text (&w->builder, w->key_separator);
    write_value (w, pairs[i].value, level + 1);
  }
  if (dict->n > 0)
    new_line (w, level);
  jinja_builder_add_text (&w->builder, "}");
}

static void write_list (Writer *w, const JinjaList *list, guint level)
{
  jinja_builder_add_text (&w->builder, "[");
  for (gsize i = 0; i < list->n; i++) {
    if (i > 0)
      jinja_builder_add_text (&w->builder, w->item_separator);
    new_line (w, level + 1);
    write_value (w, list->items[i], level + 1);
  }
  if (list->n > 0)
    new_line (w, level);
  jinja_builder_add_text (&w->builder, "]");
}

static void write_value (Writer *w, JinjaValue value, guint level)
{
  JinjaWork *work = w->builder.work;
  jinja_enter (work);
  if (value.type == JINJA_STRING)
    write_string (w, value.string);
  else if (value.type == JINJA_NONE)
    jinja_builder_add_text (&w->builder, "null");
  else if (value.type == JINJA_BOOL)
    jinja_builder_add_text (&w->builder, value.boolean ? "true" : "false");
  else if (value.type == JINJA_INT)
    jinja_print (&w->builder, value);
  else if (value.type == JINJA_FLOAT)
    write_float (w, value.real);
  else if (value.type == JINJA_LIST && value.list->kind <= JINJA_KIND_TUPLE)
    write_list (w, value.list, level);
  else if (value.type == JINJA_DICT)
    write_dict (w, value.dict, level);
  else
    jinja_error (work, "Object of type %s is not JSON serializable", jinja_type_name (value));
  jinja_leave (work);
}

JinjaValue jinja_to_json (JinjaWork *work, JinjaValue value, int indent, const char *item_separator, const char *key_separator,
                          gboolean ensure_ascii, gboolean sort_keys)
{
  Writer w = { .indent = indent, .item_separator = item_separator != NULL ? item_separator : indent >= 0 ? "," : ", ",
               .key_separator = key_separator != NULL ? key_separator : ": ", .ensure_ascii = ensure_ascii, .sort_keys = sort_keys };
  jinja_builder_init (work, &w.builder);
  write_value (&w, value, 0);
  return jinja_builder_finish (&w.builder);
}
