/* schema_merge.c: references, two schemas as one, and whether two exclude each other. */
#include "engine/grammar/schema_private.h"

#include <string.h>

enum { MAX_REFERENCES = 32 };

/* ---- values --------------------------------------------------------------------------------------------------------------- */

static gboolean is_number (JsonNode *node)
{
  return JSON_NODE_HOLDS_VALUE (node) && (json_node_get_value_type (node) == G_TYPE_INT64 || json_node_get_value_type (node) == G_TYPE_DOUBLE);
}

/* 1 and 1.0 are one value. */
gboolean eng_json_equal (JsonNode *a, JsonNode *b)
{
  return is_number (a) && is_number (b) ? json_node_get_double (a) == json_node_get_double (b) : json_node_equal (a, b);
}

/* ---- references ----------------------------------------------------------------------------------------------------------- */

JsonNode *eng_schema_resolve (EngSchema *s, const char *reference)
{
  if (*reference != '#')
    return NULL;
  g_autofree char *pointer = g_uri_unescape_string (reference + 1, NULL);
  if (pointer == NULL || (*pointer != '\0' && *pointer != '/'))
    return NULL;
  g_auto (GStrv) parts = g_strsplit (pointer, "/", -1);
  JsonNode *node = s->root;
  for (guint i = 1; node != NULL && *pointer != '\0' && parts[i] != NULL; i++) {
    g_autoptr (GString) name = g_string_new (parts[i]);
    g_string_replace (name, "~1", "/", 0);
    g_string_replace (name, "~0", "~", 0);
    guint64 index;
    if (JSON_NODE_HOLDS_OBJECT (node))
      node = json_object_get_member (json_node_get_object (node), name->str);
    else if (JSON_NODE_HOLDS_ARRAY (node) && json_array_get_length (json_node_get_array (node)) > 0 &&
             g_ascii_string_to_unsigned (name->str, 10, 0, json_array_get_length (json_node_get_array (node)) - 1, &index, NULL))
      node = json_array_get_element (json_node_get_array (node), (guint) index);
    else
      node = NULL;
  }
  return node;
}

/* Keywords that say nothing of a value. */
static gboolean is_annotation (const char *keyword)
{
  static const char *const names[] = { "title", "description", "default", "examples", "example", "deprecated", "readOnly", "writeOnly", "$comment", "$schema", "$id", "$defs", "definitions",
                                       "discriminator", NULL };
  return g_strv_contains (names, keyword);
}

JsonNode *eng_schema_without (EngSchema *s, JsonObject *schema, const char *keyword)
{
  JsonObject *rest = json_object_new ();
  g_autoptr (GList) members = json_object_get_members (schema);
  for (GList *member = members; member != NULL; member = member->next)
    if (!g_str_equal (member->data, keyword))
      json_object_set_member (rest, member->data, json_node_copy (json_object_get_member (schema, member->data)));
  JsonNode *node = json_node_init_object (json_node_alloc (), rest);
  json_object_unref (rest);
  g_ptr_array_add (s->merged, node);
  return node;
}

gboolean eng_schema_says_more (JsonObject *schema, const char *keyword)
{
  gboolean more = FALSE;
  g_autoptr (GList) members = json_object_get_members (schema);
  for (GList *member = members; member != NULL; member = member->next)
    more |= !g_str_equal (member->data, keyword) && !is_annotation (member->data);
  return more;
}

/* The schema that a chain of references ends in, together with what stands beside them. */
static JsonNode *flatten (EngSchema *s, JsonNode *node, const char *path, guint depth)
{
  JsonObject *schema = JSON_NODE_HOLDS_OBJECT (node) ? json_node_get_object (node) : NULL;
  JsonNode *reference = schema != NULL ? json_object_get_member (schema, "$ref") : NULL;
  if (reference == NULL)
    return node;
  gboolean named = JSON_NODE_HOLDS_VALUE (reference) && json_node_get_value_type (reference) == G_TYPE_STRING;
  JsonNode *target = named && depth < MAX_REFERENCES ? eng_schema_resolve (s, json_node_get_string (reference)) : NULL;
  if (target == NULL) {
    eng_schema_refuse (s, path, depth < MAX_REFERENCES ? "a $ref names nothing in this schema" : "a $ref leads to itself");
    return NULL;
  }
  target = flatten (s, target, path, depth + 1);
  return target != NULL && eng_schema_says_more (schema, "$ref") ? eng_schema_merge (s, target, eng_schema_without (s, schema, "$ref"), path) : target;
}

/* ---- merging -------------------------------------------------------------------------------------------------------------- */

static gboolean has_string (JsonArray *array, const char *text)
{
  for (guint i = 0; i < json_array_get_length (array); i++) {
    JsonNode *node = json_array_get_element (array, i);
    if (JSON_NODE_HOLDS_VALUE (node) && json_node_get_value_type (node) == G_TYPE_STRING && g_str_equal (json_node_get_string (node), text))
      return TRUE;
  }
  return FALSE;
}

/* Names of both lists. */
static JsonNode *merge_required (JsonNode *a, JsonNode *b)
{
  JsonArray *both = json_array_new ();
  JsonNode *lists[] = { a, b };
  for (guint k = 0; k < G_N_ELEMENTS (lists); k++)
    for (guint i = 0; JSON_NODE_HOLDS_ARRAY (lists[k]) && i < json_array_get_length (json_node_get_array (lists[k])); i++) {
      JsonNode *name = json_array_get_element (json_node_get_array (lists[k]), i);
      if (k == 0 || !JSON_NODE_HOLDS_VALUE (name) || json_node_get_value_type (name) != G_TYPE_STRING || !has_string (both, json_node_get_string (name)))
        json_array_add_element (both, json_node_copy (name));
    }
  JsonNode *node = json_node_init_array (json_node_alloc (), both);
  json_array_unref (both);
  return node;
}

/* Properties of both; one that both have is both together. */
static JsonNode *merge_properties (EngSchema *s, JsonNode *a, JsonNode *b, const char *path)
{
  if (!JSON_NODE_HOLDS_OBJECT (a) || !JSON_NODE_HOLDS_OBJECT (b)) {
    eng_schema_refuse (s, path, "properties are no object");
    return NULL;
  }
  JsonObject *both = json_object_new ();
  JsonNode *lists[] = { a, b };
  gboolean ok = TRUE;
  for (guint k = 0; k < G_N_ELEMENTS (lists); k++) {
    JsonObject *list = json_node_get_object (lists[k]);
    g_autoptr (GList) names = json_object_get_members (list);
    for (GList *name = names; ok && name != NULL; name = name->next) {
      JsonNode *there = json_object_get_member (both, name->data), *one = json_object_get_member (list, name->data);
      JsonNode *merged = there != NULL ? eng_schema_merge (s, there, one, path) : one;
      ok = merged != NULL;
      if (ok)
        json_object_set_member (both, name->data, json_node_copy (merged));
    }
  }
  JsonNode *node = ok ? json_node_init_object (json_node_alloc (), both) : NULL;
  json_object_unref (both);
  return node;
}

static JsonNode *larger (JsonNode *a, JsonNode *b, gboolean smaller)
{
  gboolean first = (json_node_get_double (a) >= json_node_get_double (b)) != smaller;
  return json_node_copy (first ? a : b);
}

/* Types of both; an integer is a number. */
static JsonNode *merge_types (JsonNode *a, JsonNode *b)
{
  static const char *const names[] = { "object", "array", "string", "integer", "number", "boolean", "null" };
  JsonArray *both = json_array_new ();
  for (gsize i = 0; i < G_N_ELEMENTS (names); i++) {
    JsonNode *lists[] = { a, b };
    gboolean in_all = TRUE;
    for (guint k = 0; k < G_N_ELEMENTS (lists); k++) {
      JsonArray *list = JSON_NODE_HOLDS_ARRAY (lists[k]) ? json_array_ref (json_node_get_array (lists[k])) : json_array_new ();
      if (!JSON_NODE_HOLDS_ARRAY (lists[k]))
        json_array_add_element (list, json_node_copy (lists[k]));
      in_all &= has_string (list, names[i]) || (i == 3 && has_string (list, "number"));
      json_array_unref (list);
    }
    if (in_all)
      json_array_add_string_element (both, names[i]);
  }
  JsonNode *node = json_array_get_length (both) > 0 ? json_node_init_array (json_node_alloc (), both) : NULL;
  json_array_unref (both);
  return node;
}

/* One keyword of both: NULL when what they demand together cannot be said in one. */
static JsonNode *merge_keyword (EngSchema *s, const char *keyword, JsonNode *a, JsonNode *b, const char *path)
{
  static const char *const lower[] = { "minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties", NULL };
  static const char *const upper[] = { "maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties", NULL };
  JsonNode *types = NULL;
  if (is_annotation (keyword) || eng_json_equal (a, b))
    return json_node_copy (a);
  if (g_str_equal (keyword, "required"))
    return merge_required (a, b);
  if (g_str_equal (keyword, "properties"))
    return merge_properties (s, a, b, path);
  if ((g_strv_contains (lower, keyword) || g_strv_contains (upper, keyword)) && is_number (a) && is_number (b))
    return larger (a, b, g_strv_contains (upper, keyword));
  if (g_str_equal (keyword, "type") && (types = merge_types (a, b)) != NULL)
    return types;
  eng_schema_refuse (s, path, "%s of two schemas that hold at once cannot be obeyed", keyword);
  return NULL;
}

/* additionalProperties and items speak of what stands beside them: FALSE where the other schema would add to that. */
static gboolean stand_apart (JsonObject *a, JsonObject *b)
{
  JsonNode *others = json_object_get_member (a, "additionalProperties"), *named = json_object_get_member (a, "properties"), *more = json_object_get_member (b, "properties");
  gboolean open = others == NULL || (JSON_NODE_HOLDS_VALUE (others) && json_node_get_value_type (others) == G_TYPE_BOOLEAN && json_node_get_boolean (others));
  if (json_object_has_member (a, "items") && json_object_has_member (b, "prefixItems") && !json_object_has_member (a, "prefixItems"))
    return FALSE;
  if (open || more == NULL || !JSON_NODE_HOLDS_OBJECT (more))
    return TRUE;
  gboolean apart = TRUE;
  g_autoptr (GList) names = json_object_get_members (json_node_get_object (more));
  for (GList *name = names; name != NULL; name = name->next)
    apart &= named != NULL && JSON_NODE_HOLDS_OBJECT (named) && json_object_has_member (json_node_get_object (named), name->data);
  return apart;
}

static gboolean is_true (JsonNode *node)
{
  return JSON_NODE_HOLDS_VALUE (node) && json_node_get_value_type (node) == G_TYPE_BOOLEAN && json_node_get_boolean (node);
}

JsonNode *eng_schema_merge (EngSchema *s, JsonNode *a, JsonNode *b, const char *path)
{
  JsonNode *one = flatten (s, a, path, 0), *other = one != NULL ? flatten (s, b, path, 0) : NULL;
  if (other == NULL)
    return NULL;
  if (!JSON_NODE_HOLDS_OBJECT (one) || !JSON_NODE_HOLDS_OBJECT (other)) /* true adds nothing; false, and what is no schema, is left to be refused */
    return is_true (one) || !JSON_NODE_HOLDS_OBJECT (other) ? (is_true (other) ? one : other) : one;
  JsonObject *parts[] = { json_node_get_object (one), json_node_get_object (other) };
  if (!stand_apart (parts[0], parts[1]) || !stand_apart (parts[1], parts[0])) {
    eng_schema_refuse (s, path, "schemas that hold at once exclude each other's properties or items");
    return NULL;
  }
  JsonObject *both = json_object_new ();
  gboolean ok = TRUE;
  for (guint k = 0; k < G_N_ELEMENTS (parts); k++) {
    g_autoptr (GList) members = json_object_get_members (parts[k]);
    for (GList *member = members; ok && member != NULL; member = member->next) {
      JsonNode *there = json_object_get_member (both, member->data), *value = json_object_get_member (parts[k], member->data);
      JsonNode *merged = there != NULL ? merge_keyword (s, member->data, there, value, path) : json_node_copy (value);
      ok = merged != NULL;
      if (ok)
        json_object_set_member (both, member->data, merged);
    }
  }
  JsonNode *node = json_node_init_object (json_node_alloc (), both);
  json_object_unref (both);
  g_ptr_array_add (s->merged, node);
  return ok ? node : NULL;
}

/* ---- schemas that exclude each other -------------------------------------------------------------------------------------- */

/* The values that a schema lists, as a new array, or NULL. */
static JsonArray *values_of (JsonObject *schema)
{
  JsonNode *list = json_object_get_member (schema, "enum"), *constant = json_object_get_member (schema, "const");
  if (constant == NULL)
    return list != NULL && JSON_NODE_HOLDS_ARRAY (list) ? json_array_ref (json_node_get_array (list)) : NULL;
  JsonArray *values = json_array_new ();
  json_array_add_element (values, json_node_copy (constant));
  return values;
}

static gboolean values_disjoint (JsonObject *a, JsonObject *b)
{
  g_autoptr (JsonArray) x = values_of (a), y = values_of (b);
  if (x == NULL || y == NULL)
    return FALSE;
  for (guint i = 0; i < json_array_get_length (x); i++)
    for (guint k = 0; k < json_array_get_length (y); k++)
      if (eng_json_equal (json_array_get_element (x, i), json_array_get_element (y, k)))
        return FALSE;
  return TRUE;
}

/* A bit for each type, integers counting as numbers; 0: any. */
static guint type_bits (JsonObject *schema)
{
  static const char *const names[] = { "object", "array", "string", "number", "boolean", "null" };
  JsonNode *type = json_object_get_member (schema, "type");
  guint bits = 0, n = type != NULL && JSON_NODE_HOLDS_ARRAY (type) ? json_array_get_length (json_node_get_array (type)) : type != NULL;
  for (guint i = 0; i < n; i++) {
    JsonNode *one = JSON_NODE_HOLDS_ARRAY (type) ? json_array_get_element (json_node_get_array (type), i) : type;
    const char *name = JSON_NODE_HOLDS_VALUE (one) && json_node_get_value_type (one) == G_TYPE_STRING ? json_node_get_string (one) : "";
    for (guint k = 0; k < G_N_ELEMENTS (names); k++)
      bits |= g_str_equal (name, names[k]) || (k == 3 && g_str_equal (name, "integer")) ? 1u << k : 0;
  }
  return bits;
}

static gboolean is_required (JsonObject *schema, const char *name)
{
  JsonNode *required = json_object_get_member (schema, "required");
  return required != NULL && JSON_NODE_HOLDS_ARRAY (required) && has_string (json_node_get_array (required), name);
}

/* A property that both require, of which they list other values. */
static gboolean properties_disjoint (EngSchema *s, JsonObject *a, JsonObject *b, const char *path)
{
  JsonNode *x = json_object_get_member (a, "properties"), *y = json_object_get_member (b, "properties");
  if (x == NULL || y == NULL || !JSON_NODE_HOLDS_OBJECT (x) || !JSON_NODE_HOLDS_OBJECT (y))
    return FALSE;
  gboolean disjoint = FALSE;
  g_autoptr (GList) names = json_object_get_members (json_node_get_object (x));
  for (GList *name = names; name != NULL && !disjoint; name = name->next) {
    JsonNode *other = json_object_get_member (json_node_get_object (y), name->data);
    JsonNode *p = flatten (s, json_object_get_member (json_node_get_object (x), name->data), path, 0), *q = p != NULL && other != NULL ? flatten (s, other, path, 0) : NULL;
    disjoint = p != NULL && q != NULL && is_required (a, name->data) && is_required (b, name->data) && JSON_NODE_HOLDS_OBJECT (p) && JSON_NODE_HOLDS_OBJECT (q) &&
               values_disjoint (json_node_get_object (p), json_node_get_object (q));
  }
  return disjoint;
}

gboolean eng_schema_disjoint (EngSchema *s, JsonNode *a, JsonNode *b, const char *path)
{
  JsonNode *one = flatten (s, a, path, 0), *other = flatten (s, b, path, 0);
  if (one == NULL || other == NULL || !JSON_NODE_HOLDS_OBJECT (one) || !JSON_NODE_HOLDS_OBJECT (other))
    return FALSE;
  JsonObject *x = json_node_get_object (one), *y = json_node_get_object (other);
  guint types_x = type_bits (x), types_y = type_bits (y);
  if (types_x != 0 && types_y != 0 && (types_x & types_y) == 0)
    return TRUE;
  gboolean objects = types_x == 1 && types_y == 1;
  return values_disjoint (x, y) || (objects && properties_disjoint (s, x, y, path));
}
