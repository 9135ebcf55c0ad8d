/* access.c: a.b, a[b] and a[b:c:d]. What is not there is undefined; only asking something of the undefined is an error. */
#include "engine/jinja/run.h"

#include <string.h>

static const char *object_name (JinjaValue value)
{
  return value.type == JINJA_NONE ? "None" : jinja_type_name (value);
}

static JinjaValue missing (JinjaRun *run, JinjaValue value, const char *name)
{
  return jinja_undefined (&run->work, value.type == JINJA_NONE ? "'%s' has no attribute '%.100s'" : "'%s object' has no attribute '%.100s'",
                          object_name (value), name);
}

static JinjaValue loop_cycle (JinjaRun *run, JinjaValue self, const JinjaCall *call)
{
  if (call->n == 0)
    jinja_error (&run->work, "no items for cycling given");
  return call->args[self.loop->index % call->n];
}

static JinjaValue loop_changed (JinjaRun *run, JinjaValue self, const JinjaCall *call)
{
  JinjaValue now = jinja_list_new (&run->work, JINJA_KIND_TUPLE, call->n);
  for (gsize i = 0; i < call->n; i++)
    jinja_list_add (&run->work, now.list, call->args[i]);
  gboolean changed = !self.loop->has_changed || !jinja_equal (&run->work, now, self.loop->changed);
  self.loop->has_changed = TRUE;
  self.loop->changed = now;
  return jinja_bool (changed);
}

static JinjaValue loop_attribute (JinjaRun *run, JinjaValue value, const char *name)
{
  static const JinjaBuiltin cycle = { "cycle", NULL, loop_cycle }, changed = { "changed", NULL, loop_changed };
  JinjaLoop *loop = value.loop;
  gint64 index = (gint64) loop->index, n = (gint64) loop->items->n;
  struct { const char *name; gint64 value; } numbers[] = {
    { "index", index + 1 }, { "index0", index }, { "revindex", n - index }, { "revindex0", n - index - 1 }, { "length", n },
    { "depth", loop->depth + 1 }, { "depth0", loop->depth } };
  for (gsize i = 0; i < G_N_ELEMENTS (numbers); i++)
    if (g_str_equal (name, numbers[i].name))
      return jinja_int (numbers[i].value);
  if (g_str_equal (name, "first"))
    return jinja_bool (index == 0);
  if (g_str_equal (name, "last"))
    return jinja_bool (index == n - 1);
  if (g_str_equal (name, "previtem"))
    return index > 0 ? loop->items->items[index - 1] : jinja_undefined (&run->work, "there is no previous item");
  if (g_str_equal (name, "nextitem"))
    return index + 1 < n ? loop->items->items[index + 1] : jinja_undefined (&run->work, "there is no next item");
  if (g_str_equal (name, "cycle") || g_str_equal (name, "changed"))
    return jinja_bind (run, name[1] == 'y' ? &cycle : &changed, value);
  return missing (run, value, name);
}

JinjaValue jinja_attribute (JinjaRun *run, JinjaValue value, const char *name)
{
  if (value.type == JINJA_UNDEFINED)
    jinja_error (&run->work, "%s", value.why);
  if (value.type == JINJA_LOOP)
    return loop_attribute (run, value, name);
  const JinjaBuiltin *method = jinja_find_method (value, name);
  if (method != NULL)
    return jinja_bind (run, method, value);
  const JinjaValue *found = value.type == JINJA_DICT || value.type == JINJA_NAMESPACE ? jinja_dict_find_name (&run->work, value.dict, name)
                                                                                      : NULL;
  return found != NULL ? *found : missing (run, value, name);
}

static gboolean to_index (JinjaValue value, gint64 *index)
{
  if (value.type != JINJA_INT && value.type != JINJA_BOOL)
    return FALSE;
  *index = value.type == JINJA_INT ? value.integer : value.boolean;
  return TRUE;
}

JinjaValue jinja_item (JinjaRun *run, JinjaValue value, JinjaValue key)
{
  JinjaWork *work = &run->work;
  gint64 index;
  if (value.type == JINJA_UNDEFINED)
    jinja_error (work, "%s", value.why);
  gboolean hashable = key.type != JINJA_DICT && !(key.type == JINJA_LIST && key.list->kind == JINJA_KIND_LIST);
  if (value.type == JINJA_DICT && hashable) {
    const JinjaValue *found = jinja_dict_find (work, value.dict, key);
    if (found != NULL)
      return *found;
  }
  if (value.type == JINJA_LIST && value.list->kind <= JINJA_KIND_RANGE && to_index (key, &index)) {
    gint64 n = (gint64) value.list->n;
    index += index < 0 ? n : 0;
    if (index >= 0 && index < n)
      return value.list->items[index];
  }
  if (value.type == JINJA_STRING && to_index (key, &index)) {
    gint64 n = (gint64) jinja_string_chars (value.string);
    index += index < 0 ? n : 0;
    if (index >= 0 && index < n) {
      gsize begin = jinja_string_offset (work, value.string, (gsize) index);
      return jinja_string_slice (work, value.string, begin, (gsize) (g_utf8_next_char (value.string->text + begin) - value.string->text));
    }
  }
  if (key.type == JINJA_STRING)
    return jinja_attribute (run, value, jinja_c_string (run, key.string));
  JinjaBuilder text;
  jinja_builder_init (work, &text);
  jinja_print_repr (&text, key);
  return jinja_undefined (work, "'%s object' has no element %.*s", object_name (value), (int) MIN (text.bytes->used, 100), text.bytes->data);
}

/* Python's rule for slices: bounds count from the end when negative, and are clamped. */
static gint64 bound (JinjaRun *run, JinjaValue value, gint64 fallback, gint64 n, gboolean backwards)
{
  gint64 index;
  if (value.type == JINJA_NONE)
    return fallback;
  if (!to_index (value, &index))
    jinja_error (&run->work, "slice indices must be integers or None");
  if (index < 0)
    index = index < -n ? (backwards ? -1 : 0) : index + n;
  return MIN (MAX (index, backwards ? -1 : 0), backwards ? n - 1 : n);
}

JinjaValue jinja_slice (JinjaRun *run, JinjaValue value, JinjaValue start, JinjaValue stop, JinjaValue step_value)
{
  JinjaWork *work = &run->work;
  gint64 step = 1;
  if (value.type == JINJA_UNDEFINED)
    jinja_error (work, "%s", value.why);
  gboolean list = value.type == JINJA_LIST && value.list->kind <= JINJA_KIND_RANGE;
  if (!list && value.type != JINJA_STRING)
    jinja_error (work, value.type == JINJA_DICT ? "a '%s' object cannot be sliced" : "'%s' object is not subscriptable", jinja_type_name (value));
  if (step_value.type != JINJA_NONE && (!to_index (step_value, &step) || step == 0))
    jinja_error (work, step_value.type == JINJA_INT ? "slice step cannot be zero" : "slice indices must be integers or None");
  gint64 n = (gint64) (list ? value.list->n : jinja_string_chars (value.string));
  gint64 from = bound (run, start, step < 0 ? n - 1 : 0, n, step < 0), to = bound (run, stop, step < 0 ? -1 : n, n, step < 0);
  if (!list && step == 1) {
    gsize begin = jinja_string_offset (work, value.string, (gsize) from);
    return jinja_string_slice (work, value.string, begin, to > from ? jinja_string_offset (work, value.string, (gsize) to) : begin);
  }
  const JinjaList *items = list ? value.list : jinja_iterate (work, value);
  JinjaValue result = jinja_list_new (work, list ? value.list->kind : JINJA_KIND_LIST, 0);
  for (gint64 i = from; step > 0 ? i < to : i > to; i += step) {
    jinja_list_add (work, result.list, items->items[i]);
    if (step > 0 ? step >= to - i : step <= to - i) /* the next would be past the end, or overflow */
      break;
  }
  if (list && items->kind == JINJA_KIND_RANGE) {
    result.list->begin = items->begin + from * items->step;
    result.list->end = items->begin + to * items->step;
    result.list->step = items->step * step;
  }
  if (list)
    return result;
  JinjaValue empty = jinja_string (work, "", 0, FALSE);
  return jinja_join (run, result.list, empty.string, TRUE);
}

JinjaValue jinja_path (JinjaRun *run, JinjaValue value, JinjaValue path)
{
  if (path.type != JINJA_STRING)
    return jinja_item (run, value, path);
  const char *p = jinja_c_string (run, path.string);
  while (p != NULL) {
    const char *dot = strchr (p, '.');
    gsize n = dot != NULL ? (gsize) (dot - p) : strlen (p);
    guint64 index;
    char *part = jinja_copy (&run->work.heap, p, n);
    gboolean number = g_ascii_string_to_unsigned (part, 10, 0, G_MAXINT64, &index, NULL);
    value = jinja_item (run, value, number ? jinja_int ((gint64) index) : jinja_string (&run->work, part, n, FALSE));
    p = dot != NULL ? dot + 1 : NULL;
  }
  return value;
}
