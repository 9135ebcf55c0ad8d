/* value.c: constructing, comparing and testing values as Python does. */
#include "engine/jinja/value.h"

#include <math.h>
#include <string.h>

void jinja_spend (JinjaWork *work, gsize steps)
{
  if (steps > (gsize) G_MAXINT32 || (work->steps_left -= (gint64) steps) < 0)
    jinja_error (work, "the template does not come to an end; it is broken or hostile, choose another");
}

void jinja_enter (JinjaWork *work)
{
  jinja_spend (work, 1);
  if (++work->depth > JINJA_MAX_DEPTH)
    jinja_error (work, "nested deeper than %d", JINJA_MAX_DEPTH);
}

JinjaValue jinja_undefined (JinjaWork *work, const char *format, ...)
{
  char buffer[256];
  va_list arguments;
  va_start (arguments, format);
  g_vsnprintf (buffer, sizeof buffer, format, arguments);
  va_end (arguments);
  return (JinjaValue){ .type = JINJA_UNDEFINED, .why = jinja_copy (&work->heap, buffer, strlen (buffer)) };
}

JinjaValue jinja_none (void)
{
  return (JinjaValue){ .type = JINJA_NONE };
}

JinjaValue jinja_bool (gboolean boolean)
{
  return (JinjaValue){ .type = JINJA_BOOL, .boolean = boolean != FALSE };
}

JinjaValue jinja_int (gint64 integer)
{
  return (JinjaValue){ .type = JINJA_INT, .integer = integer };
}

JinjaValue jinja_float (double real)
{
  return (JinjaValue){ .type = JINJA_FLOAT, .real = real };
}

JinjaValue jinja_list_new (JinjaWork *work, JinjaListKind kind, gsize capacity)
{
  JinjaList *list = jinja_new (&work->heap, JinjaList, 1);
  list->kind = kind;
  list->capacity = capacity;
  list->items = jinja_new (&work->heap, JinjaValue, capacity);
  return (JinjaValue){ .type = JINJA_LIST, .list = list };
}

void jinja_list_add (JinjaWork *work, JinjaList *list, JinjaValue item)
{
  jinja_spend (work, 1);
  list->items = jinja_grow (&work->heap, list->items, sizeof item, list->n, &list->capacity);
  list->items[list->n++] = item;
}

JinjaValue jinja_dict_new (JinjaWork *work, JinjaType type)
{
  return (JinjaValue){ .type = type, .dict = jinja_new (&work->heap, JinjaDict, 1) };
}

void jinja_check_hashable (JinjaWork *work, JinjaValue key)
{
  if (key.type == JINJA_DICT || (key.type == JINJA_LIST && key.list->kind == JINJA_KIND_LIST))
    jinja_error (work, "unhashable type: '%s'", jinja_type_name (key));
}

const JinjaValue *jinja_dict_find (JinjaWork *work, const JinjaDict *dict, JinjaValue key)
{
  jinja_spend (work, dict->n / 8);
  for (gsize i = 0; i < dict->n; i++) {
    const JinjaValue *k = &dict->pairs[i].key;
    if (key.type == JINJA_STRING ? k->type == JINJA_STRING && k->string->length == key.string->length &&
                                     memcmp (k->string->text, key.string->text, key.string->length) == 0
                                 : jinja_equal (work, *k, key))
      return &dict->pairs[i].value;
  }
  return NULL;
}

const JinjaValue *jinja_dict_find_name (JinjaWork *work, const JinjaDict *dict, const char *name)
{
  jinja_spend (work, dict->n / 8);
  for (gsize i = 0; i < dict->n; i++)
    if (dict->pairs[i].key.type == JINJA_STRING && jinja_string_is (dict->pairs[i].key.string, name))
      return &dict->pairs[i].value;
  return NULL;
}

void jinja_dict_set (JinjaWork *work, JinjaDict *dict, JinjaValue key, JinjaValue value)
{
  jinja_check_hashable (work, key);
  JinjaValue *there = (JinjaValue *) jinja_dict_find (work, dict, key);
  if (there != NULL) {
    *there = value;
    return;
  }
  dict->pairs = jinja_grow (&work->heap, dict->pairs, sizeof *dict->pairs, dict->n, &dict->capacity);
  dict->pairs[dict->n++] = (JinjaPair){ key, value };
}

gboolean jinja_truth (JinjaValue value)
{
  switch (value.type) {
  case JINJA_UNDEFINED:
  case JINJA_NONE:
    return FALSE;
  case JINJA_BOOL:
    return value.boolean;
  case JINJA_INT:
    return value.integer != 0;
  case JINJA_FLOAT:
    return value.real != 0;
  case JINJA_STRING:
    return value.string->length > 0;
  case JINJA_LIST:
    return value.list->kind == JINJA_KIND_GENERATOR || value.list->n > 0;
  case JINJA_DICT:
    return value.dict->n > 0;
  default:
    return TRUE;
  }
}

gboolean jinja_is_number (JinjaValue value)
{
  return value.type == JINJA_BOOL || value.type == JINJA_INT || value.type == JINJA_FLOAT;
}

double jinja_to_double (JinjaValue value)
{
  return value.type == JINJA_FLOAT ? value.real : value.type == JINJA_INT ? (double) value.integer : value.boolean;
}

static gint64 to_integer (JinjaValue value)
{
  return value.type == JINJA_INT ? value.integer : value.boolean;
}

static int compare_numbers (JinjaValue a, JinjaValue b)
{
  if (a.type != JINJA_FLOAT && b.type != JINJA_FLOAT) {
    gint64 x = to_integer (a), y = to_integer (b);
    return (x > y) - (x < y);
  }
  double x = jinja_to_double (a), y = jinja_to_double (b);
  return (x > y) - (x < y);
}

static int compare_strings (const JinjaString *a, const JinjaString *b)
{
  int order = memcmp (a->text, b->text, MIN (a->length, b->length)); /* UTF-8 keeps the order of code points */
  return order != 0 ? order : (a->length > b->length) - (a->length < b->length);
}

static gboolean equal_dicts (JinjaWork *work, const JinjaDict *a, const JinjaDict *b)
{
  if (a->n != b->n)
    return FALSE;
  for (gsize i = 0; i < a->n; i++) {
    const JinjaValue *other = jinja_dict_find (work, b, a->pairs[i].key);
    if (other == NULL || !jinja_equal (work, a->pairs[i].value, *other))
      return FALSE;
  }
  return TRUE;
}

gboolean jinja_equal (JinjaWork *work, JinjaValue a, JinjaValue b)
{
  if (jinja_is_number (a) && jinja_is_number (b))
    return !(a.type == JINJA_FLOAT && isnan (a.real)) && !(b.type == JINJA_FLOAT && isnan (b.real)) && compare_numbers (a, b) == 0;
  if (a.type != b.type)
    return FALSE;
  gboolean equal = TRUE;
  jinja_enter (work);
  switch (a.type) {
  case JINJA_UNDEFINED:
  case JINJA_NONE:
    break;
  case JINJA_STRING:
    jinja_spend (work, MIN (a.string->length, b.string->length) / 64);
    equal = a.string->length == b.string->length && memcmp (a.string->text, b.string->text, a.string->length) == 0;
    break;
  case JINJA_LIST:
    equal = a.list == b.list || (a.list->kind == b.list->kind && a.list->kind != JINJA_KIND_GENERATOR && a.list->n == b.list->n);
    for (gsize i = 0; equal && a.list != b.list && i < a.list->n; i++)
      equal = jinja_equal (work, a.list->items[i], b.list->items[i]);
    break;
  case JINJA_DICT:
    equal = a.dict == b.dict || equal_dicts (work, a.dict, b.dict);
    break;
  case JINJA_BUILTIN:
    equal = a.bound == b.bound;
    break;
  default:
    equal = a.dict == b.dict; /* by identity */
    break;
  }
  jinja_leave (work);
  return equal;
}

int jinja_compare (JinjaWork *work, JinjaValue a, JinjaValue b, const char *operator)
{
  if (jinja_is_number (a) && jinja_is_number (b))
    return compare_numbers (a, b);
  if (a.type == JINJA_STRING && b.type == JINJA_STRING) {
    jinja_spend (work, MIN (a.string->length, b.string->length) / 64);
    return compare_strings (a.string, b.string);
  }
  if (a.type == JINJA_LIST && b.type == JINJA_LIST && a.list->kind == b.list->kind && a.list->kind <= JINJA_KIND_TUPLE) {
    jinja_enter (work);
    int order = 0;
    gsize i = 0, n = MIN (a.list->n, b.list->n);
    while (i < n && jinja_equal (work, a.list->items[i], b.list->items[i]))
      i++;
    order = i < n ? jinja_compare (work, a.list->items[i], b.list->items[i], operator) : (a.list->n > b.list->n) - (a.list->n < b.list->n);
    jinja_leave (work);
    return order;
  }
  if (a.type == JINJA_UNDEFINED || b.type == JINJA_UNDEFINED)
    jinja_error (work, "%s", a.type == JINJA_UNDEFINED ? a.why : b.why);
  jinja_error (work, "'%s' not supported between instances of '%s' and '%s'", operator, jinja_type_name (a), jinja_type_name (b));
}

const char *jinja_type_name (JinjaValue value)
{
  static const char *const list_names[] = { "list", "tuple", "range", "dict_items", "generator" };
  switch (value.type) {
  case JINJA_UNDEFINED:
    return "Undefined";
  case JINJA_NONE:
    return "NoneType";
  case JINJA_BOOL:
    return "bool";
  case JINJA_INT:
    return "int";
  case JINJA_FLOAT:
    return "float";
  case JINJA_STRING:
    return "str";
  case JINJA_LIST:
    return value.list->kind == JINJA_KIND_VIEW ? value.list->view_name : list_names[value.list->kind];
  case JINJA_DICT:
    return "dict";
  case JINJA_NAMESPACE:
    return "Namespace";
  case JINJA_MACRO:
    return "Macro";
  case JINJA_LOOP:
    return "LoopContext";
  case JINJA_BUILTIN:
  default:
    return "function";
  }
}

gboolean jinja_is_iterable (JinjaValue value)
{
  return value.type == JINJA_UNDEFINED || value.type == JINJA_STRING || value.type == JINJA_LIST || value.type == JINJA_DICT ||
         value.type == JINJA_LOOP;
}

static JinjaList *characters (JinjaWork *work, JinjaString *string)
{
  JinjaList *list = jinja_list_new (work, JINJA_KIND_LIST, jinja_string_chars (string)).list;
  for (gsize at = 0; at < string->length;) {
    gsize next = at + (gsize) (g_utf8_next_char (string->text + at) - (string->text + at));
    jinja_list_add (work, list, jinja_string_slice (work, string, at, next));
    at = next;
  }
  return list;
}

JinjaList *jinja_iterate (JinjaWork *work, JinjaValue value)
{
  switch (value.type) {
  case JINJA_UNDEFINED:
    return jinja_list_new (work, JINJA_KIND_LIST, 0).list;
  case JINJA_STRING:
    return characters (work, value.string);
  case JINJA_LIST: {
    if (value.list->kind != JINJA_KIND_GENERATOR)
      return value.list;
    JinjaList *rest = jinja_list_new (work, JINJA_KIND_LIST, 0).list; /* a generator gives its items once */
    rest->items = value.list->items + value.list->taken;
    rest->n = rest->capacity = value.list->n - value.list->taken;
    value.list->taken = value.list->n;
    return rest;
  }
  case JINJA_DICT: {
    JinjaList *keys = jinja_list_new (work, JINJA_KIND_LIST, value.dict->n).list;
    for (gsize i = 0; i < value.dict->n; i++)
      jinja_list_add (work, keys, value.dict->pairs[i].key);
    return keys;
  }
  default:
    jinja_error (work, "'%s' object is not iterable", jinja_type_name (value));
  }
}
