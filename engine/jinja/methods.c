/* methods.c: the methods of mappings and lists, and which of a value's methods a name means. What would change a value in place is
 * refused, as Jinja's immutable sandbox does. */
#include "engine/jinja/run.h"

static JinjaValue view (JinjaRun *run, JinjaValue self, const char *name, gboolean keys, gboolean values)
{
  JinjaWork *work = &run->work;
  JinjaValue list = jinja_list_new (work, JINJA_KIND_VIEW, self.dict->n);
  list.list->view_name = name;
  for (gsize i = 0; i < self.dict->n; i++) {
    JinjaValue item = keys ? self.dict->pairs[i].key : self.dict->pairs[i].value;
    if (keys && values) {
      item = jinja_list_new (work, JINJA_KIND_TUPLE, 2);
      jinja_list_add (work, item.list, self.dict->pairs[i].key);
      jinja_list_add (work, item.list, self.dict->pairs[i].value);
    }
    jinja_list_add (work, list.list, item);
  }
  return list;
}

static JinjaValue dict_items (JinjaRun *run, JinjaValue self, const JinjaCall *call)
{
  return view (run, self, "dict_items", TRUE, TRUE);
}

static JinjaValue dict_keys (JinjaRun *run, JinjaValue self, const JinjaCall *call)
{
  return view (run, self, "dict_keys", TRUE, FALSE);
}

static JinjaValue dict_values (JinjaRun *run, JinjaValue self, const JinjaCall *call)
{
  return view (run, self, "dict_values", FALSE, TRUE);
}

static JinjaValue dict_get (JinjaRun *run, JinjaValue self, const JinjaCall *call)
{
  jinja_check_hashable (&run->work, call->args[0]);
  const JinjaValue *found = jinja_dict_find (&run->work, self.dict, call->args[0]);
  return found != NULL ? *found : jinja_is_absent (call->args[1]) ? jinja_none () : call->args[1];
}

static JinjaValue dict_copy (JinjaRun *run, JinjaValue self, const JinjaCall *call)
{
  JinjaValue copy = jinja_dict_new (&run->work, JINJA_DICT);
  for (gsize i = 0; i < self.dict->n; i++)
    jinja_dict_set (&run->work, copy.dict, self.dict->pairs[i].key, self.dict->pairs[i].value);
  return copy;
}

static JinjaValue list_index (JinjaRun *run, JinjaValue self, const JinjaCall *call)
{
  for (gsize i = 0; i < self.list->n; i++)
    if (jinja_equal (&run->work, self.list->items[i], call->args[0]))
      return jinja_int ((gint64) i);
  jinja_error (&run->work, "the value is not in the list");
}

static JinjaValue list_count (JinjaRun *run, JinjaValue self, const JinjaCall *call)
{
  gint64 n = 0;
  for (gsize i = 0; i < self.list->n; i++)
    n += jinja_equal (&run->work, self.list->items[i], call->args[0]);
  return jinja_int (n);
}

static JinjaValue list_copy (JinjaRun *run, JinjaValue self, const JinjaCall *call)
{
  return jinja_slice (run, self, jinja_none (), jinja_none (), jinja_none ());
}

static JinjaValue unsafe (JinjaRun *run, JinjaValue self, const JinjaCall *call)
{
  jinja_error (&run->work, "a template may not change a '%s' in place; build a new one", jinja_type_name (self));
}

static const JinjaBuiltin dict_methods[] = {
  { "items", "", dict_items },
  { "keys", "", dict_keys },
  { "values", "", dict_values },
  { "get", "!key default", dict_get },
  { "copy", "", dict_copy },
  { "clear", NULL, unsafe },
  { "pop", NULL, unsafe },
  { "popitem", NULL, unsafe },
  { "setdefault", NULL, unsafe },
  { "update", NULL, unsafe },
  { NULL, NULL, NULL }
};

static const JinjaBuiltin list_methods[] = {
  { "index", "!value", list_index },
  { "count", "!value", list_count },
  { "copy", "", list_copy },
  { "append", NULL, unsafe },
  { "clear", NULL, unsafe },
  { "extend", NULL, unsafe },
  { "insert", NULL, unsafe },
  { "pop", NULL, unsafe },
  { "remove", NULL, unsafe },
  { "reverse", NULL, unsafe },
  { "sort", NULL, unsafe },
  { NULL, NULL, NULL }
};

static const JinjaBuiltin tuple_methods[] = {
  { "index", "!value", list_index },
  { "count", "!value", list_count },
  { NULL, NULL, NULL }
};

const JinjaBuiltin *jinja_find_method (JinjaValue value, const char *name)
{
  switch (value.type) {
  case JINJA_STRING:
    return jinja_find_in (jinja_string_methods, name);
  case JINJA_DICT:
    return jinja_find_in (dict_methods, name);
  case JINJA_LIST:
    if (value.list->kind == JINJA_KIND_LIST)
      return jinja_find_in (list_methods, name);
    return value.list->kind <= JINJA_KIND_RANGE ? jinja_find_in (tuple_methods, name) : NULL;
  default:
    return NULL;
  }
}
