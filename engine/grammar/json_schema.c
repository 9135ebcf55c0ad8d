/* json_schema.c: a JSON Schema (draft 2020-12) to GBNF whose every text is valid. What the schema leaves open is narrowed where that
 * makes a shorter grammar: properties stand in the order in which they are named, further ones only where none is named. */
#include "engine/grammar/schema_private.h"

#include "engine/error.h"

#include <string.h>

enum { MAX_DEPTH = 64, MAX_ITEMS = 4096, MAX_RULES = 8000 };

static char *value_rule (EngSchema *s, JsonNode *node, const char *path);

/* Rules that every schema may use. */
static const char basics[] =
  "ws ::= (\" \" | \"\\n\" [ \\t]{0,20})?\n"
  "hex ::= [0-9a-fA-F]\n"
  "char ::= [^\"\\\\\\x00-\\x1F\\x7F] | \"\\\\\" ([\"\\\\/bfnrt] | \"u\" code)\n"
  "code ::= [1-9a-cefA-CEF] hex{3} | [dD] [0-7] hex{2} | \"0\" ([1-9a-fA-F] hex{2} | \"0\" ([1-9a-fA-F] hex | \"0\" [1-9a-fA-F]))\n"
  "string ::= \"\\\"\" char* \"\\\"\"\n"
  "fraction ::= \".\" [0-9]{1,15}\n"
  "number ::= \"-\"? (\"0\" | [1-9] [0-9]{0,14}) fraction? ([eE] [-+]? [0-9]{1,2})?\n"
  "integer ::= \"-\"? (\"0\" | [1-9] [0-9]{0,14})\n"
  "boolean ::= \"true\" | \"false\"\n"
  "null ::= \"null\"\n"
  "object ::= \"{\" ws (string \":\" ws value (\",\" ws string \":\" ws value)*)? ws \"}\"\n"
  "array ::= \"[\" ws (value (\",\" ws value)*)? ws \"]\"\n"
  "value ::= object | array | string | number | boolean | null\n";

/* ---- helpers -------------------------------------------------------------------------------------------------------------- */

char *eng_schema_refuse (EngSchema *s, const char *path, const char *format, ...)
{
  va_list arguments;
  va_start (arguments, format);
  g_autofree char *what = g_strdup_vprintf (format, arguments);
  va_end (arguments);
  if (s->error != NULL && *s->error == NULL)
    g_set_error (s->error, ENG_ERROR, ENG_ERROR_UNSUPPORTED, "%s at #%s: %s", s->name, path, what);
  return NULL;
}

char *eng_schema_rule (EngSchema *s, char *expression)
{
  if (expression == NULL)
    return NULL;
  char *name = g_strdup_printf ("r%u", s->n_rules++);
  g_string_append_printf (s->rules, "%s ::= %s\n", name, expression);
  g_free (expression);
  return name;
}

char *eng_gbnf_literal (const char *text)
{
  GString *literal = g_string_new ("\"");
  for (; *text != '\0'; text++) {
    if (*text == '"' || *text == '\\')
      g_string_append_printf (literal, "\\%c", *text);
    else if ((guint8) *text < 0x20 || *text == 0x7F)
      g_string_append_printf (literal, "\\x%02X", (guint8) *text);
    else
      g_string_append_c (literal, *text);
  }
  g_string_append_c (literal, '"');
  return g_string_free (literal, FALSE);
}

/* A value's JSON text as a literal. */
static char *json_literal (JsonNode *node)
{
  g_autofree char *text = json_to_string (node, FALSE);
  return eng_gbnf_literal (text);
}

/* A value as it may be written, with white space between its parts. */
static char *json_expression (JsonNode *node)
{
  gboolean is_object = JSON_NODE_HOLDS_OBJECT (node);
  if (!is_object && !JSON_NODE_HOLDS_ARRAY (node))
    return json_literal (node);
  GString *expression = g_string_new (is_object ? "\"{\" ws" : "\"[\" ws");
  g_autoptr (GList) names = is_object ? json_object_get_members (json_node_get_object (node)) : NULL;
  guint n = is_object ? g_list_length (names) : json_array_get_length (json_node_get_array (node));
  for (guint i = 0; i < n; i++) {
    const char *name = is_object ? g_list_nth_data (names, i) : NULL;
    JsonNode *item = is_object ? json_object_get_member (json_node_get_object (node), name) : json_array_get_element (json_node_get_array (node), i);
    g_autofree char *value = json_expression (item);
    g_autoptr (JsonNode) key = is_object ? json_node_init_string (json_node_alloc (), name) : NULL;
    g_autofree char *literal = key != NULL ? json_literal (key) : NULL;
    g_string_append_printf (expression, "%s %s%s%s", i > 0 ? " \",\" ws" : "", literal != NULL ? literal : "", literal != NULL ? " \":\" ws " : "", value);
  }
  g_string_append (expression, is_object ? " ws \"}\"" : " ws \"]\"");
  return g_string_free (expression, FALSE);
}

static char *step (const char *path, const char *name)
{
  g_autoptr (GString) escaped = g_string_new (name);
  g_string_replace (escaped, "~", "~0", 0);
  g_string_replace (escaped, "/", "~1", 0);
  return g_strconcat (path, "/", escaped->str, NULL);
}

static char *step_index (const char *path, const char *name, guint i)
{
  return g_strdup_printf ("%s/%s/%u", path, name, i);
}

static JsonArray *array_member (JsonObject *schema, const char *name)
{
  JsonNode *node = json_object_get_member (schema, name);
  return node != NULL && JSON_NODE_HOLDS_ARRAY (node) ? json_node_get_array (node) : NULL;
}

static gboolean is_string (JsonNode *node)
{
  return node != NULL && JSON_NODE_HOLDS_VALUE (node) && json_node_get_value_type (node) == G_TYPE_STRING;
}

/* A count such as minItems; FALSE: refused. */
static gboolean count_member (EngSchema *s, JsonObject *schema, const char *name, gint64 fallback, gint64 *count, const char *path)
{
  JsonNode *node = json_object_get_member (schema, name);
  *count = fallback;
  if (node == NULL)
    return TRUE;
  gint64 value = JSON_NODE_HOLDS_VALUE (node) && json_node_get_value_type (node) == G_TYPE_INT64 ? json_node_get_int (node) : -1;
  *count = value;
  if (value < 0 || value > MAX_ITEMS)
    eng_schema_refuse (s, path, "%s is no number from 0 to %d", name, MAX_ITEMS);
  return value >= 0 && value <= MAX_ITEMS;
}

/* ---- objects -------------------------------------------------------------------------------------------------------------- */

typedef struct {
  char *pair; /* "key": value, as an expression */
  gboolean required;
} Property;

static void clear_property (gpointer data)
{
  g_free (((Property *) data)->pair);
}

static gboolean add_property (EngSchema *s, GArray *properties, const char *key, JsonNode *value, gboolean required, const char *path)
{
  g_autofree char *rule = value != NULL ? value_rule (s, value, path) : g_strdup ("value");
  if (rule == NULL)
    return FALSE;
  g_autoptr (JsonNode) name = json_node_init_string (json_node_alloc (), key);
  g_autofree char *literal = json_literal (name);
  Property property = { g_strdup_printf ("%s \":\" ws %s", literal, rule), required };
  g_array_append_val (properties, property);
  return TRUE;
}

static gboolean requires (JsonObject *schema, const char *key)
{
  JsonArray *required = array_member (schema, "required");
  for (guint i = 0; required != NULL && i < json_array_get_length (required); i++)
    if (is_string (json_array_get_element (required, i)) && g_str_equal (json_array_get_string_element (required, i), key))
      return TRUE;
  return FALSE;
}

/* Those that are named, in order; then those that are required all the same. */
static gboolean collect_properties (EngSchema *s, JsonObject *schema, GArray *properties, JsonNode *others, const char *path)
{
  JsonNode *node = json_object_get_member (schema, "properties");
  JsonObject *named = node != NULL && JSON_NODE_HOLDS_OBJECT (node) ? json_node_get_object (node) : NULL;
  g_autoptr (GList) keys = named != NULL ? json_object_get_members (named) : NULL;
  g_autofree char *below = step (path, "properties");
  for (GList *key = keys; key != NULL; key = key->next) {
    g_autofree char *place = step (below, key->data);
    JsonNode *value = json_object_get_member (named, key->data);
    gboolean required = requires (schema, key->data);
    if (!required && JSON_NODE_HOLDS_VALUE (value) && json_node_get_value_type (value) == G_TYPE_BOOLEAN && !json_node_get_boolean (value))
      continue; /* never there */
    if (!add_property (s, properties, key->data, value, required, place))
      return FALSE;
  }
  JsonArray *required = array_member (schema, "required");
  for (guint i = 0; required != NULL && i < json_array_get_length (required); i++) {
    if (!is_string (json_array_get_element (required, i)))
      return eng_schema_refuse (s, path, "required holds something that is no name") != NULL;
    const char *key = json_array_get_string_element (required, i);
    g_autofree char *place = step (path, "additionalProperties");
    if (named != NULL && json_object_has_member (named, key))
      continue;
    if (others != NULL && JSON_NODE_HOLDS_VALUE (others) && !json_node_get_boolean (others))
      return eng_schema_refuse (s, path, "'%s' is required but not allowed", key) != NULL;
    if (!add_property (s, properties, key, others, TRUE, place))
      return FALSE;
  }
  return TRUE;
}

/* Properties in order with commas between those that are there: a rule for what may follow each, with and without one before. */
static char *properties_expression (EngSchema *s, const GArray *properties)
{
  g_autofree char *after = g_strdup ("ws \"}\""), *first = g_strdup ("ws \"}\"");
  for (guint i = properties->len; i > 0; i--) {
    const Property *property = &g_array_index (properties, Property, i - 1);
    char *next_after = property->required ? g_strdup_printf ("\",\" ws %s %s", property->pair, after)
                                          : g_strdup_printf ("(\",\" ws %s)? %s", property->pair, after);
    char *next_first = property->required ? g_strdup_printf ("%s %s", property->pair, after)
                                          : g_strdup_printf ("%s %s | %s", property->pair, after, first);
    g_free (after);
    g_free (first);
    after = eng_schema_rule (s, next_after);
    first = eng_schema_rule (s, next_first);
  }
  return g_strdup_printf ("\"{\" ws %s", first);
}

static char *object_expression (EngSchema *s, JsonObject *schema, const char *path)
{
  JsonNode *others = json_object_get_member (schema, "additionalProperties");
  gint64 min, max;
  if (!count_member (s, schema, "minProperties", 0, &min, path) || !count_member (s, schema, "maxProperties", MAX_ITEMS, &max, path))
    return NULL;
  g_autoptr (GArray) properties = g_array_new (FALSE, FALSE, sizeof (Property));
  g_array_set_clear_func (properties, clear_property);
  if (!collect_properties (s, schema, properties, others, path))
    return NULL;
  gint64 n_required = 0;
  for (guint i = 0; i < properties->len; i++)
    n_required += g_array_index (properties, Property, i).required;
  gboolean closed = others != NULL && JSON_NODE_HOLDS_VALUE (others) && !json_node_get_boolean (others);
  if (properties->len > 0 || closed) {
    if (min > n_required || max < properties->len)
      return eng_schema_refuse (s, path, "a number of properties besides their names cannot be obeyed");
    return properties_expression (s, properties);
  }
  if (min > 1) /* names could be the same */
    return eng_schema_refuse (s, path, "minProperties above 1 cannot be obeyed");
  g_autofree char *below = step (path, "additionalProperties"), *value = others != NULL ? value_rule (s, others, below) : g_strdup ("value");
  if (value == NULL)
    return NULL;
  if (max == 0)
    return g_strdup ("\"{\" ws \"}\"");
  g_autofree char *pair = g_strdup_printf ("string \":\" ws %s", value), *more = NULL;
  more = max == MAX_ITEMS ? g_strdup_printf ("(\",\" ws %s)*", pair) : g_strdup_printf ("(\",\" ws %s){0,%d}", pair, (int) max - 1);
  return g_strdup_printf ("\"{\" ws (%s %s)%s ws \"}\"", pair, more, min > 0 ? "" : "?");
}

/* ---- arrays --------------------------------------------------------------------------------------------------------------- */

/* Those at fixed places, then others: what may follow each place, from the last one on. */
static char *array_expression (EngSchema *s, JsonObject *schema, const char *path)
{
  JsonArray *fixed = array_member (schema, "prefixItems");
  JsonNode *others = json_object_get_member (schema, "items");
  guint n_fixed = fixed != NULL ? json_array_get_length (fixed) : 0;
  gint64 min, max;
  if (!count_member (s, schema, "minItems", 0, &min, path) || !count_member (s, schema, "maxItems", MAX_ITEMS, &max, path))
    return NULL;
  gboolean endless = !json_object_has_member (schema, "maxItems");
  if (others != NULL && JSON_NODE_HOLDS_VALUE (others) && !json_node_get_boolean (others)) {
    max = MIN (max, n_fixed);
    endless = FALSE;
    others = NULL;
  }
  if (max < min)
    return eng_schema_refuse (s, path, "no number of items is allowed");
  n_fixed = (guint) MIN (n_fixed, max);
  g_autofree char *below = step (path, "items"), *other = others != NULL ? value_rule (s, others, below) : g_strdup ("value"), *rest = NULL;
  if (other == NULL)
    return NULL;
  gint64 rest_min = MAX (min - n_fixed, 0), rest_max = max - n_fixed;
  if (n_fixed == 0) { /* the first one has no comma before it */
    if (max == 0)
      return g_strdup ("\"[\" ws \"]\"");
    gint64 more_min = MAX (min - 1, 0);
    g_autofree char *bound = endless ? g_strdup_printf ("{%d,}", (int) more_min) : g_strdup_printf ("{%d,%d}", (int) more_min, (int) max - 1);
    return g_strdup_printf ("\"[\" ws (%s (\",\" ws %s)%s)%s ws \"]\"", other, other, bound, min > 0 ? "" : "?");
  }
  rest = endless ? g_strdup_printf ("(\",\" ws %s){%d,}", other, (int) rest_min)
                 : rest_max > 0 ? g_strdup_printf ("(\",\" ws %s){%d,%d}", other, (int) rest_min, (int) rest_max) : g_strdup ("\"\"");
  for (guint i = n_fixed; i > 0; i--) {
    g_autofree char *place = step_index (path, "prefixItems", i - 1), *item = value_rule (s, json_array_get_element (fixed, i - 1), place);
    if (item == NULL)
      return NULL;
    char *longer = g_strdup_printf (i > 1 ? "(\",\" ws %s %s)%s" : "(%s %s)%s", item, rest, i > min ? "?" : "");
    g_free (rest);
    rest = eng_schema_rule (s, longer);
  }
  return g_strdup_printf ("\"[\" ws %s ws \"]\"", rest);
}

/* ---- one schema ----------------------------------------------------------------------------------------------------------- */

static const char *const value_types[] = { "object", "array", "string", "number", "integer", "boolean", "null" };

/* A bit for each of value_types; 0: refused. */
static guint types_of (EngSchema *s, JsonObject *schema, const char *path)
{
  JsonNode *node = json_object_get_member (schema, "type");
  guint n = node != NULL && JSON_NODE_HOLDS_ARRAY (node) ? json_array_get_length (json_node_get_array (node)) : 1, types = 0;
  static const struct { const char *keyword; guint types; } implied[] = {
    { "properties", 1 }, { "required", 1 }, { "additionalProperties", 1 }, { "minProperties", 1 }, { "maxProperties", 1 }, { "items", 2 }, { "prefixItems", 2 },
    { "minItems", 2 }, { "maxItems", 2 }, { "pattern", 4 }, { "minLength", 4 }, { "maxLength", 4 }, { "minimum", 8 }, { "maximum", 8 },
    { "exclusiveMinimum", 8 }, { "exclusiveMaximum", 8 }, { "multipleOf", 8 } };
  if (node == NULL) {
    for (gsize i = 0; i < G_N_ELEMENTS (implied); i++)
      types |= json_object_has_member (schema, implied[i].keyword) ? implied[i].types : 0;
    if (json_object_has_member (schema, "format") && types == 0)
      types = 4;
    return types != 0 ? types : 0x7F & ~0x10u;
  }
  for (guint i = 0; i < n; i++) {
    JsonNode *one = JSON_NODE_HOLDS_ARRAY (node) ? json_array_get_element (json_node_get_array (node), i) : node;
    guint bit = 0;
    for (guint k = 0; k < G_N_ELEMENTS (value_types); k++)
      if (is_string (one) && g_str_equal (json_node_get_string (one), value_types[k]))
        bit = 1u << k;
    if (bit == 0) {
      eng_schema_refuse (s, path, "the type is none of JSON's");
      return 0;
    }
    types |= bit;
  }
  return (types & 8) != 0 ? types & ~0x10u : types;
}

static char *type_expression (EngSchema *s, JsonObject *schema, guint type, const char *path)
{
  switch (type) {
  case 0:
    return object_expression (s, schema, path);
  case 1:
    return array_expression (s, schema, path);
  case 2:
    return eng_schema_string (s, schema, path);
  case 3:
  case 4:
    return eng_schema_number (s, schema, type == 4, path);
  default:
    return g_strdup (value_types[type]);
  }
}

static gboolean of_type (JsonNode *value, guint types)
{
  if (JSON_NODE_HOLDS_OBJECT (value) || JSON_NODE_HOLDS_ARRAY (value))
    return (types & (JSON_NODE_HOLDS_OBJECT (value) ? 1 : 2)) != 0;
  if (JSON_NODE_HOLDS_NULL (value))
    return (types & 0x40) != 0;
  GType kind = json_node_get_value_type (value);
  return (types & (kind == G_TYPE_STRING ? 4 : kind == G_TYPE_BOOLEAN ? 0x20 : kind == G_TYPE_INT64 ? 0x18 : 8)) != 0;
}

/* enum and const: values as they are. */
static char *values_expression (EngSchema *s, JsonObject *schema, const char *path)
{
  static const char *const unchecked[] = { "pattern", "minLength", "maxLength", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf",
                                           "properties", "required", "items", "prefixItems", "minItems", "maxItems" };
  JsonNode *constant = json_object_get_member (schema, "const");
  JsonArray *values = array_member (schema, "enum");
  guint types = json_object_has_member (schema, "type") ? types_of (s, schema, path) : 0x7F;
  g_autoptr (GString) choice = g_string_new (NULL);
  if (types == 0)
    return NULL;
  for (gsize i = 0; i < G_N_ELEMENTS (unchecked); i++)
    if (json_object_has_member (schema, unchecked[i]))
      return eng_schema_refuse (s, path, "%s beside values that are listed cannot be obeyed", unchecked[i]);
  for (guint i = 0; i < (values != NULL ? json_array_get_length (values) : 1); i++) {
    JsonNode *value = values != NULL ? json_array_get_element (values, i) : constant;
    g_autofree char *literal = json_expression (value);
    if (of_type (value, types) && (values == NULL || constant == NULL || eng_json_equal (value, constant)))
      g_string_append_printf (choice, "%s%s", choice->len > 0 ? " | " : "", literal);
  }
  return choice->len > 0 ? g_strdup (choice->str) : eng_schema_refuse (s, path, "none of the values that are listed is allowed");
}

/* The alternatives of anyOf or oneOf, each together with what stands beside. */
static char *choice_expression (EngSchema *s, JsonNode *node, const char *keyword, const char *path)
{
  JsonObject *schema = json_node_get_object (node);
  JsonArray *choices = array_member (schema, keyword);
  g_autoptr (GString) choice = g_string_new (NULL);
  if (choices == NULL || json_array_get_length (choices) == 0)
    return eng_schema_refuse (s, path, "%s is no list of schemas", keyword);
  JsonNode *beside = eng_schema_without (s, schema, keyword);
  for (guint i = 0; i < json_array_get_length (choices); i++) {
    g_autofree char *place = step_index (path, keyword, i);
    for (guint k = 0; g_str_equal (keyword, "oneOf") && k < i; k++)
      if (!eng_schema_disjoint (s, json_array_get_element (choices, k), json_array_get_element (choices, i), place))
        return eng_schema_refuse (s, place, "oneOf's schemas may hold at once: use anyOf, or give each a constant of its own");
    JsonNode *merged = json_array_get_element (choices, i);
    if (eng_schema_says_more (schema, keyword))
      merged = eng_schema_merge (s, beside, merged, place);
    g_autofree char *rule = merged != NULL ? value_rule (s, merged, place) : NULL;
    if (rule == NULL)
      return NULL;
    g_string_append_printf (choice, "%s%s", i > 0 ? " | " : "", rule);
  }
  return g_strdup (choice->str);
}

static char *all_of_expression (EngSchema *s, JsonNode *node, const char *path)
{
  JsonObject *schema = json_node_get_object (node);
  JsonArray *parts = array_member (schema, "allOf");
  if (parts == NULL)
    return eng_schema_refuse (s, path, "allOf is no list of schemas");
  JsonNode *merged = eng_schema_without (s, schema, "allOf");
  for (guint i = 0; merged != NULL && i < json_array_get_length (parts); i++) {
    g_autofree char *place = step_index (path, "allOf", i);
    merged = eng_schema_merge (s, merged, json_array_get_element (parts, i), place);
  }
  return merged != NULL ? value_rule (s, merged, path) : NULL;
}

static char *reference_expression (EngSchema *s, JsonObject *schema, const char *path)
{
  JsonNode *reference = json_object_get_member (schema, "$ref");
  const char *target = is_string (reference) ? json_node_get_string (reference) : "";
  if (eng_schema_says_more (schema, "$ref")) { /* both count */
    JsonNode *resolved = eng_schema_resolve (s, target);
    JsonNode *merged = resolved != NULL ? eng_schema_merge (s, resolved, eng_schema_without (s, schema, "$ref"), path)
                                        : (JsonNode *) eng_schema_refuse (s, path, "$ref '%s' names nothing in this schema", target);
    return merged != NULL ? value_rule (s, merged, path) : NULL;
  }
  const char *known = g_hash_table_lookup (s->references, target);
  if (known != NULL)
    return g_strdup (known);
  JsonNode *resolved = eng_schema_resolve (s, target);
  if (resolved == NULL)
    return eng_schema_refuse (s, path, "$ref '%s' names nothing in this schema", target);
  char *name = g_strdup_printf ("r%u", s->n_rules++); /* before it is made: it may refer to itself */
  g_hash_table_insert (s->references, g_strdup (target), name);
  g_autofree char *body = value_rule (s, resolved, target[0] == '#' ? target + 1 : target);
  if (body == NULL)
    return NULL;
  g_string_append_printf (s->rules, "%s ::= %s\n", name, body);
  return g_strdup (name);
}

static char *object_schema (EngSchema *s, JsonNode *node, const char *path)
{
  static const char *const refused[] = { "not", "if", "then", "else", "dependentSchemas", "dependentRequired", "dependencies", "patternProperties", "propertyNames", "contains",
                                         "minContains", "maxContains", "unevaluatedItems", "additionalItems", "$dynamicRef", "$recursiveRef", "contentSchema" };
  JsonObject *schema = json_node_get_object (node);
  for (gsize i = 0; i < G_N_ELEMENTS (refused); i++)
    if (json_object_has_member (schema, refused[i]))
      return eng_schema_refuse (s, path, "%s cannot be obeyed while text is written", refused[i]);
  JsonNode *unique = json_object_get_member (schema, "uniqueItems");
  if (unique != NULL && JSON_NODE_HOLDS_VALUE (unique) && json_node_get_boolean (unique))
    return eng_schema_refuse (s, path, "uniqueItems cannot be obeyed while text is written");
  if (json_object_has_member (schema, "$ref"))
    return reference_expression (s, schema, path);
  if (json_object_has_member (schema, "allOf"))
    return all_of_expression (s, node, path);
  if (json_object_has_member (schema, "anyOf"))
    return choice_expression (s, node, "anyOf", path);
  if (json_object_has_member (schema, "oneOf"))
    return choice_expression (s, node, "oneOf", path);
  if (json_object_has_member (schema, "enum") || json_object_has_member (schema, "const"))
    return values_expression (s, schema, path);
  guint types = types_of (s, schema, path);
  g_autoptr (GString) choice = g_string_new (NULL);
  for (guint type = 0; type < G_N_ELEMENTS (value_types) && types != 0; type++) {
    if ((types >> type & 1) == 0)
      continue;
    g_autofree char *rule = eng_schema_rule (s, type_expression (s, schema, type, path));
    if (rule == NULL)
      return NULL;
    g_string_append_printf (choice, "%s%s", choice->len > 0 ? " | " : "", rule);
  }
  return types != 0 ? g_strdup (choice->str) : NULL;
}

static char *value_rule (EngSchema *s, JsonNode *node, const char *path)
{
  char *expression = NULL;
  if (++s->depth > MAX_DEPTH)
    eng_schema_refuse (s, path, "schemas are nested too deeply");
  else if (s->n_rules > MAX_RULES)
    eng_schema_refuse (s, path, "there is too much of it, or it refers to itself beside other keywords");
  else if (JSON_NODE_HOLDS_OBJECT (node))
    expression = object_schema (s, node, path);
  else if (!JSON_NODE_HOLDS_VALUE (node) || json_node_get_value_type (node) != G_TYPE_BOOLEAN)
    eng_schema_refuse (s, path, "this is no schema");
  else if (!json_node_get_boolean (node))
    eng_schema_refuse (s, path, "nothing is allowed here");
  else
    expression = g_strdup ("value");
  s->depth--;
  return eng_schema_rule (s, expression);
}

GString *eng_schema_begin (void)
{
  return g_string_new (basics);
}

char *eng_schema_append (GString *rules, guint *n_rules, JsonNode *schema, const char *name, GError **error)
{
  GError *failure = NULL;
  EngSchema s = { .root = schema, .name = name, .rules = rules, .references = g_hash_table_new_full (g_str_hash, g_str_equal, g_free, g_free),
                  .merged = g_ptr_array_new_with_free_func ((GDestroyNotify) json_node_unref), .n_rules = *n_rules, .error = &failure };
  gsize length = rules->len;
  char *root = value_rule (&s, schema, "");
  *n_rules = s.n_rules;
  if (root == NULL)
    g_string_truncate (rules, length);
  g_hash_table_unref (s.references);
  g_ptr_array_unref (s.merged);
  if (failure != NULL)
    g_propagate_error (error, failure);
  return root;
}

char *eng_schema_to_gbnf (JsonNode *schema, const char *name, GError **error)
{
  guint n_rules = 0;
  GString *rules = eng_schema_begin ();
  g_autofree char *root = eng_schema_append (rules, &n_rules, schema, name, error);
  if (root != NULL)
    g_string_append_printf (rules, "root ::= %s\n", root);
  return g_string_free (rules, root == NULL);
}

EngGrammar *eng_grammar_new_from_schema (JsonNode *schema, const char *name, GError **error)
{
  g_autofree char *gbnf = eng_schema_to_gbnf (schema, name, error);
  return gbnf != NULL ? eng_grammar_new (gbnf, error) : NULL;
}

EngGrammar *eng_grammar_new_json_object (void)
{
  g_autofree char *gbnf = g_strconcat (basics, "root ::= object\n", NULL);
  return eng_grammar_new (gbnf, NULL);
}
