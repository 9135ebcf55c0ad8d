/* filters_sequence.c: the filters that work on lists, mappings and what can be iterated.
 * Reference: the Jinja documentation, "List of Builtin Filters". */
#include "engine/jinja/run.h"

#include <string.h>

static JinjaValue length (JinjaRun *run, JinjaValue self, const JinjaCall *call)
{
  switch (self.type) {
  case JINJA_UNDEFINED:
    return jinja_int (0);
  case JINJA_STRING:
    return jinja_int ((gint64) jinja_string_chars (self.string));
  case JINJA_LIST:
    if (self.list->kind != JINJA_KIND_GENERATOR)
      return jinja_int ((gint64) self.list->n);
    break;
  case JINJA_DICT:
    return jinja_int ((gint64) self.dict->n);
  case JINJA_LOOP:
    return jinja_int ((gint64) self.loop->items->n);
  default:
    break;
  }
  jinja_error (&run->work, "object of type '%s' has no len()", jinja_type_name (self));
}

static JinjaValue fallback (JinjaRun *run, JinjaValue self, const JinjaCall *call)
{
  if (self.type != JINJA_UNDEFINED && !(jinja_argument_bool (run, call, 1, FALSE) && !jinja_truth (self)))
    return self;
  return jinja_is_absent (call->args[0]) ? jinja_string (&run->work, "", 0, FALSE) : call->args[0];
}

static JinjaValue first (JinjaRun *run, JinjaValue self, const JinjaCall *call)
{
  if (self.type == JINJA_LIST && self.list->kind == JINJA_KIND_GENERATOR && self.list->taken < self.list->n)
    return self.list->items[self.list->taken++];
  const JinjaList *list = jinja_iterate (&run->work, self);
  return list->n > 0 ? list->items[0] : jinja_undefined (&run->work, "no first item, sequence was empty");
}

static JinjaValue last (JinjaRun *run, JinjaValue self, const JinjaCall *call)
{
  if (self.type == JINJA_LIST && self.list->kind == JINJA_KIND_GENERATOR)
    jinja_error (&run->work, "'generator' object is not reversible");
  const JinjaList *list = jinja_iterate (&run->work, self);
  return list->n > 0 ? list->items[list->n - 1] : jinja_undefined (&run->work, "no last item, sequence was empty");
}

static JinjaValue to_list (JinjaRun *run, JinjaValue self, const JinjaCall *call)
{
  const JinjaList *list = jinja_iterate (&run->work, self);
  JinjaValue copy = jinja_list_new (&run->work, JINJA_KIND_LIST, list->n);
  for (gsize i = 0; i < list->n; i++)
    jinja_list_add (&run->work, copy.list, list->items[i]);
  return copy;
}

static JinjaValue join (JinjaRun *run, JinjaValue self, const JinjaCall *call)
{
  JinjaWork *work = &run->work;
  JinjaList *list = jinja_iterate (work, self);
  if (!jinja_is_absent (call->args[1]) && call->args[1].type != JINJA_NONE) {
    JinjaList *picked = jinja_list_new (work, JINJA_KIND_LIST, list->n).list;
    for (gsize i = 0; i < list->n; i++)
      jinja_list_add (work, picked, jinja_path (run, list->items[i], call->args[1]));
    list = picked;
  }
  JinjaValue separator = jinja_is_absent (call->args[0]) ? jinja_string (work, "", 0, FALSE) : call->args[0];
  return jinja_join (run, list, jinja_to_string (work, separator), FALSE);
}

static JinjaValue reverse (JinjaRun *run, JinjaValue self, const JinjaCall *call)
{
  JinjaWork *work = &run->work;
  if (self.type == JINJA_STRING)
    return jinja_slice (run, self, jinja_none (), jinja_none (), jinja_int (-1));
  const JinjaList *list = jinja_iterate (work, self);
  JinjaValue reversed = jinja_list_new (work, JINJA_KIND_GENERATOR, list->n);
  for (gsize i = list->n; i > 0; i--)
    jinja_list_add (work, reversed.list, list->items[i - 1]);
  return reversed;
}

static JinjaValue pair_of (JinjaRun *run, JinjaValue a, JinjaValue b)
{
  JinjaValue pair = jinja_list_new (&run->work, JINJA_KIND_TUPLE, 2);
  jinja_list_add (&run->work, pair.list, a);
  jinja_list_add (&run->work, pair.list, b);
  return pair;
}

static JinjaValue items (JinjaRun *run, JinjaValue self, const JinjaCall *call)
{
  JinjaValue pairs = jinja_list_new (&run->work, JINJA_KIND_GENERATOR, 0);
  if (self.type == JINJA_UNDEFINED)
    return pairs;
  if (self.type != JINJA_DICT)
    jinja_error (&run->work, "can only get item pairs from a mapping");
  for (gsize i = 0; i < self.dict->n; i++)
    jinja_list_add (&run->work, pairs.list, pair_of (run, self.dict->pairs[i].key, self.dict->pairs[i].value));
  return pairs;
}

static JinjaValue sort_key (JinjaRun *run, JinjaValue item, JinjaValue path, gboolean case_sensitive)
{
  if (!jinja_is_absent (path) && path.type != JINJA_NONE)
    item = jinja_path (run, item, path);
  if (!case_sensitive && item.type == JINJA_STRING)
    item = jinja_change_case (&run->work, item.string, JINJA_CASE_LOWER);
  return item;
}

JinjaList *jinja_sorted (JinjaRun *run, const JinjaList *list, JinjaValue path, gboolean reversed, gboolean case_sensitive)
{
  JinjaWork *work = &run->work;
  gsize n = list->n;
  JinjaPair *from = jinja_new (&work->heap, JinjaPair, n), *to = jinja_new (&work->heap, JinjaPair, n);
  for (gsize i = 0; i < n; i++)
    from[i] = (JinjaPair){ sort_key (run, list->items[i], path, case_sensitive), list->items[i] };
  for (gsize width = 1; width < n; width *= 2) { /* merge sort: stable, and equal items keep their order when reversed too */
    for (gsize begin = 0; begin < n; begin += 2 * width) {
      gsize middle = MIN (begin + width, n), end = MIN (begin + 2 * width, n), a = begin, b = middle;
      for (gsize i = begin; i < end; i++) {
        jinja_spend (work, 1);
        int order = a < middle && b < end ? jinja_compare (work, from[b].key, from[a].key, "<") : 0;
        gboolean right = a >= middle || (b < end && (reversed ? order > 0 : order < 0));
        to[i] = from[right ? b++ : a++];
      }
    }
    JinjaPair *swap = from;
    from = to;
    to = swap;
  }
  JinjaList *sorted = jinja_list_new (work, JINJA_KIND_LIST, n).list;
  for (gsize i = 0; i < n; i++)
    jinja_list_add (work, sorted, from[i].value);
  return sorted;
}

static JinjaValue sort (JinjaRun *run, JinjaValue self, const JinjaCall *call)
{
  JinjaList *sorted = jinja_sorted (run, jinja_iterate (&run->work, self), call->args[2], jinja_argument_bool (run, call, 0, FALSE),
                                    jinja_argument_bool (run, call, 1, FALSE));
  return (JinjaValue){ .type = JINJA_LIST, .list = sorted };
}

static JinjaValue dictsort (JinjaRun *run, JinjaValue self, const JinjaCall *call)
{
  JinjaString *by = jinja_argument_string (run, call, 1, "key");
  gboolean value = jinja_string_is (by, "value");
  if (!value && !jinja_string_is (by, "key"))
    jinja_error (&run->work, "you can only sort by either \"key\" or \"value\"");
  if (self.type != JINJA_DICT)
    jinja_error (&run->work, "'%s' object has no attribute 'items'", jinja_type_name (self));
  const JinjaList *pairs = items (run, self, NULL).list;
  JinjaList *sorted = jinja_sorted (run, pairs, jinja_int (value), jinja_argument_bool (run, call, 2, FALSE), jinja_argument_bool (run, call, 0, FALSE));
  return (JinjaValue){ .type = JINJA_LIST, .list = sorted };
}

static JinjaValue unique (JinjaRun *run, JinjaValue self, const JinjaCall *call)
{
  JinjaWork *work = &run->work;
  const JinjaList *list = jinja_iterate (work, self);
  JinjaValue kept = jinja_list_new (work, JINJA_KIND_GENERATOR, 0);
  JinjaDict *seen = jinja_dict_new (work, JINJA_DICT).dict;
  for (gsize i = 0; i < list->n; i++) {
    JinjaValue key = sort_key (run, list->items[i], call->args[1], jinja_argument_bool (run, call, 0, FALSE));
    jinja_check_hashable (work, key);
    if (jinja_dict_find (work, seen, key) == NULL) {
      jinja_dict_set (work, seen, key, key);
      jinja_list_add (work, kept.list, list->items[i]);
    }
  }
  return kept;
}

static JinjaValue extreme (JinjaRun *run, JinjaValue self, const JinjaCall *call, gboolean largest)
{
  JinjaWork *work = &run->work;
  const JinjaList *list = jinja_iterate (work, self);
  gboolean case_sensitive = jinja_argument_bool (run, call, 0, FALSE);
  if (list->n == 0)
    return jinja_undefined (work, "no aggregated item, sequence was empty");
  JinjaValue best = list->items[0], best_key = sort_key (run, best, call->args[1], case_sensitive);
  for (gsize i = 1; i < list->n; i++) {
    JinjaValue key = sort_key (run, list->items[i], call->args[1], case_sensitive);
    int order = jinja_compare (work, key, best_key, largest ? ">" : "<");
    if (largest ? order > 0 : order < 0) {
      best = list->items[i];
      best_key = key;
    }
  }
  return best;
}

static JinjaValue largest (JinjaRun *run, JinjaValue self, const JinjaCall *call)
{
  return extreme (run, self, call, TRUE);
}

static JinjaValue smallest (JinjaRun *run, JinjaValue self, const JinjaCall *call)
{
  return extreme (run, self, call, FALSE);
}

static JinjaValue sum (JinjaRun *run, JinjaValue self, const JinjaCall *call)
{
  const JinjaList *list = jinja_iterate (&run->work, self);
  JinjaValue total = jinja_is_absent (call->args[1]) ? jinja_int (0) : call->args[1];
  gboolean path = !jinja_is_absent (call->args[0]) && call->args[0].type != JINJA_NONE;
  for (gsize i = 0; i < list->n; i++)
    total = jinja_binary (run, "+", total, path ? jinja_path (run, list->items[i], call->args[0]) : list->items[i]);
  return total;
}

/* n items to a row, the last one filled up; or n columns, the first ones an item longer. */
static JinjaValue group (JinjaRun *run, JinjaValue self, const JinjaCall *call, gboolean columns)
{
  JinjaWork *work = &run->work;
  const JinjaList *list = jinja_iterate (work, self);
  gint64 wanted = jinja_argument_int (run, call, 0, 1);
  gboolean fill = !jinja_is_absent (call->args[1]) && call->args[1].type != JINJA_NONE;
  if (wanted <= 0)
    jinja_error (work, "the number of items must be 1 or more");
  gsize count = (gsize) wanted, n_rows = columns ? count : list->n / count + (list->n % count != 0), at = 0;
  JinjaValue rows = jinja_list_new (work, JINJA_KIND_GENERATOR, 0);
  for (gsize i = 0; i < n_rows; i++) {
    JinjaValue row = jinja_list_new (work, JINJA_KIND_LIST, 0);
    gsize n = columns ? list->n / count + (i < list->n % count) : MIN (count, list->n - at);
    for (gsize j = 0; j < n; j++)
      jinja_list_add (work, row.list, list->items[at++]);
    for (gsize j = n; fill && !columns && j < count; j++)
      jinja_list_add (work, row.list, call->args[1]);
    if (columns && fill && i >= list->n % count && list->n % count != 0)
      jinja_list_add (work, row.list, call->args[1]);
    jinja_list_add (work, rows.list, row);
  }
  return rows;
}

static JinjaValue batch (JinjaRun *run, JinjaValue self, const JinjaCall *call)
{
  return group (run, self, call, FALSE);
}

static JinjaValue slice (JinjaRun *run, JinjaValue self, const JinjaCall *call)
{
  return group (run, self, call, TRUE);
}

static JinjaValue attribute (JinjaRun *run, JinjaValue self, const JinjaCall *call)
{
  const char *name = jinja_c_string (run, jinja_need_string (run, call->args[0], "the attribute's name"));
  if (self.type == JINJA_DICT && jinja_find_method (self, name) == NULL) /* attr() never looks at items */
    return jinja_undefined (&run->work, "'dict object' has no attribute '%.100s'", name);
  return jinja_attribute (run, self, name);
}

static const JinjaValue *find_named (const JinjaCall *call, const char *name)
{
  for (gsize i = 0; i < call->n_named; i++)
    if (jinja_string_is (call->named[i].key.string, name))
      return &call->named[i].value;
  return NULL;
}

/* What map and select work on: to them anything false is empty. */
static const JinjaList *items_or_none (JinjaWork *work, JinjaValue value)
{
  return jinja_truth (value) ? jinja_iterate (work, value) : jinja_list_new (work, JINJA_KIND_LIST, 0).list;
}

/* map('filter', arguments...) or map(attribute='a.b', default=x) */
static JinjaValue map (JinjaRun *run, JinjaValue self, const JinjaCall *call)
{
  JinjaWork *work = &run->work;
  const JinjaList *list = items_or_none (work, self);
  JinjaValue mapped = jinja_list_new (work, JINJA_KIND_GENERATOR, 0);
  const JinjaValue *path = call->n == 0 ? find_named (call, "attribute") : NULL, *other = find_named (call, "default");
  if (call->n == 0 && path == NULL)
    jinja_error (work, "map requires a filter argument");
  if (path != NULL && call->n_named > (other != NULL ? 2u : 1u))
    jinja_error (work, "filter map got an argument it does not know");
  const char *name = path == NULL ? jinja_c_string (run, jinja_need_string (run, call->args[0], "a filter's name")) : NULL;
  const JinjaBuiltin *filter = name != NULL ? jinja_find_filter (name) : NULL;
  JinjaCall rest = { call->args + 1, call->n - 1, call->named, call->n_named };
  for (gsize i = 0; i < list->n; i++) {
    JinjaValue item = path != NULL ? jinja_path (run, list->items[i], *path) : jinja_call_filter (run, name, filter, list->items[i], &rest);
    if (path != NULL && other != NULL && item.type == JINJA_UNDEFINED)
      item = *other;
    jinja_list_add (work, mapped.list, item);
  }
  return mapped;
}

/* select, reject, selectattr, rejectattr: the items (by an attribute of theirs) for which a test, or truth itself, says `wanted`. */
static JinjaValue choose (JinjaRun *run, JinjaValue self, const JinjaCall *call, gboolean wanted, gboolean by_attribute)
{
  JinjaWork *work = &run->work;
  const JinjaList *list = items_or_none (work, self);
  JinjaValue kept = jinja_list_new (work, JINJA_KIND_GENERATOR, 0);
  gsize skip = by_attribute;
  if (call->n < skip)
    jinja_error (work, "missing parameter for attribute name");
  const char *name = call->n > skip ? jinja_c_string (run, jinja_need_string (run, call->args[skip], "a test's name")) : NULL;
  const JinjaBuiltin *test = name != NULL ? jinja_find_test (name) : NULL;
  JinjaCall rest = { call->args + skip + 1, call->n > skip ? call->n - skip - 1 : 0, call->named, call->n_named };
  for (gsize i = 0; i < list->n; i++) {
    JinjaValue subject = by_attribute ? jinja_path (run, list->items[i], call->args[0]) : list->items[i];
    gboolean yes = name != NULL ? jinja_call_test (run, name, test, subject, &rest) : jinja_truth (subject);
    if (yes == wanted)
      jinja_list_add (work, kept.list, list->items[i]);
  }
  return kept;
}

static JinjaValue select_items (JinjaRun *run, JinjaValue self, const JinjaCall *call)
{
  return choose (run, self, call, TRUE, FALSE);
}

static JinjaValue reject_items (JinjaRun *run, JinjaValue self, const JinjaCall *call)
{
  return choose (run, self, call, FALSE, FALSE);
}

static JinjaValue select_by_attribute (JinjaRun *run, JinjaValue self, const JinjaCall *call)
{
  return choose (run, self, call, TRUE, TRUE);
}

static JinjaValue reject_by_attribute (JinjaRun *run, JinjaValue self, const JinjaCall *call)
{
  return choose (run, self, call, FALSE, TRUE);
}

const JinjaBuiltin jinja_sequence_filters[] = {
  { "length", "", length },
  { "count", "", length },
  { "default", "default_value boolean", fallback },
  { "d", "default_value boolean", fallback },
  { "first", "", first },
  { "last", "", last },
  { "list", "", to_list },
  { "join", "d attribute", join },
  { "reverse", "", reverse },
  { "items", "", items },
  { "sort", "reverse case_sensitive attribute", sort },
  { "dictsort", "case_sensitive by reverse", dictsort },
  { "unique", "case_sensitive attribute", unique },
  { "max", "case_sensitive attribute", largest },
  { "min", "case_sensitive attribute", smallest },
  { "sum", "attribute start", sum },
  { "batch", "!linecount fill_with", batch },
  { "slice", "!slices fill_with", slice },
  { "attr", "!name", attribute },
  { "map", NULL, map },
  { "select", NULL, select_items },
  { "reject", NULL, reject_items },
  { "selectattr", NULL, select_by_attribute },
  { "rejectattr", NULL, reject_by_attribute },
  { NULL, NULL, NULL }
};
