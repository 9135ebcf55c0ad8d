/* call.c: arguments to parameters, macros, and the look-up of filters and tests. */
#include "engine/jinja/run.h"

#include <string.h>

static JinjaValue absent (void)
{
  return (JinjaValue){ .type = JINJA_UNDEFINED, .why = NULL };
}

JinjaCall jinja_arguments (JinjaRun *run, const JinjaNode *node, JinjaFrame *frame)
{
  JinjaWork *work = &run->work;
  JinjaList *args = jinja_list_new (work, JINJA_KIND_LIST, node->items.n).list;
  JinjaDict *named = jinja_dict_new (work, JINJA_DICT).dict;
  for (gsize i = 0; i < node->items.n; i++)
    jinja_list_add (work, args, jinja_evaluate (run, node->items.items[i], frame));
  if (node->star != NULL) {
    const JinjaList *more = jinja_iterate (work, jinja_evaluate (run, node->star, frame));
    for (gsize i = 0; i < more->n; i++)
      jinja_list_add (work, args, more->items[i]);
  }
  for (gsize i = 0; i < node->named.n; i++) {
    const JinjaNode *argument = node->named.items[i];
    JinjaValue key = jinja_string (work, argument->name, strlen (argument->name), FALSE);
    if (jinja_dict_find (work, named, key) != NULL)
      jinja_error (work, "keyword argument repeated: %s", argument->name);
    jinja_dict_set (work, named, key, jinja_evaluate (run, argument->a, frame));
  }
  if (node->star_star != NULL) {
    JinjaValue more = jinja_evaluate (run, node->star_star, frame);
    if (more.type != JINJA_DICT)
      jinja_error (work, "argument after ** must be a mapping, not %s", jinja_type_name (more));
    for (gsize i = 0; i < more.dict->n; i++) {
      if (more.dict->pairs[i].key.type != JINJA_STRING)
        jinja_error (work, "keywords must be strings");
      jinja_dict_set (work, named, more.dict->pairs[i].key, more.dict->pairs[i].value);
    }
  }
  return (JinjaCall){ args->items, args->n, named->pairs, named->n };
}

/* Copies one name out of "!needed other"; returns what follows it. */
static const char *next_parameter (const char *parameters, char *name, gsize size, gboolean *needed)
{
  *needed = *parameters == '!';
  parameters += *needed;
  gsize n = strcspn (parameters, " ");
  g_strlcpy (name, parameters, MIN (n + 1, size));
  return parameters[n] == ' ' ? parameters + n + 1 : parameters + n;
}

#define MAX_PARAMETERS 8

JinjaValue jinja_call_builtin (JinjaRun *run, const JinjaBuiltin *builtin, JinjaValue self, const JinjaCall *call, const char *kind)
{
  if (builtin->parameters == NULL)
    return builtin->function (run, self, call);
  JinjaValue *bound = jinja_new (&run->work.heap, JinjaValue, MAX_PARAMETERS);
  gsize n = 0, n_used = 0;
  for (const char *p = builtin->parameters; *p != '\0'; n++) {
    char name[32];
    gboolean needed;
    p = next_parameter (p, name, sizeof name, &needed);
    bound[n] = n < call->n ? call->args[n] : absent ();
    for (gsize i = 0; i < call->n_named; i++) {
      if (!jinja_string_is (call->named[i].key.string, name))
        continue;
      if (n < call->n)
        jinja_error (&run->work, "%s%s got multiple values for argument '%s'", kind, builtin->name, name);
      bound[n] = call->named[i].value;
      n_used++;
    }
    if (needed && jinja_is_absent (bound[n]))
      jinja_error (&run->work, "%s%s needs the argument '%s'", kind, builtin->name, name);
  }
  if (call->n > n)
    jinja_error (&run->work, "%s%s takes at most %" G_GSIZE_FORMAT " arguments, %" G_GSIZE_FORMAT " were given", kind, builtin->name, n,
                 call->n);
  if (n_used < call->n_named)
    jinja_error (&run->work, "%s%s got an argument it does not know", kind, builtin->name);
  JinjaCall bound_call = { bound, n, NULL, 0 };
  return builtin->function (run, self, &bound_call);
}

JinjaValue jinja_bind (JinjaRun *run, const JinjaBuiltin *builtin, JinjaValue self)
{
  JinjaBound *bound = jinja_new (&run->work.heap, JinjaBound, 1);
  bound->builtin = builtin;
  bound->self = self;
  return (JinjaValue){ .type = JINJA_BUILTIN, .bound = bound };
}

/* The arguments a macro has no parameter for: `varargs` and `kwargs` where its body asks for them, else an error. */
static void bind_rest (JinjaRun *run, const JinjaNode *node, JinjaFrame *scope, const JinjaCall *call, const gboolean *used)
{
  JinjaWork *work = &run->work;
  const char *name = node->type == NODE_CALL_BLOCK ? "caller" : node->name;
  if (node->uses & JINJA_USES_VARARGS) {
    JinjaValue rest = jinja_list_new (work, JINJA_KIND_TUPLE, 0);
    for (gsize i = node->items.n; i < call->n; i++)
      jinja_list_add (work, rest.list, call->args[i]);
    jinja_frame_set (run, scope, "varargs", rest);
  } else if (call->n > node->items.n) {
    jinja_error (work, "macro '%s' takes not more than %" G_GSIZE_FORMAT " argument(s)", name, node->items.n);
  }
  JinjaValue kwargs = jinja_dict_new (work, JINJA_DICT);
  for (gsize i = 0; i < call->n_named; i++) {
    const JinjaString *key = call->named[i].key.string;
    if (used[i])
      continue;
    if ((node->uses & JINJA_USES_CALLER) && jinja_string_is (key, "caller"))
      jinja_frame_set (run, scope, "caller", call->named[i].value);
    else if (node->uses & JINJA_USES_KWARGS)
      jinja_dict_set (work, kwargs.dict, call->named[i].key, call->named[i].value);
    else
      jinja_error (work, "macro '%s' takes no keyword argument '%.*s'", name, (int) MIN (key->length, 100), key->text);
  }
  if (node->uses & JINJA_USES_KWARGS)
    jinja_frame_set (run, scope, "kwargs", kwargs);
}

static JinjaValue call_macro (JinjaRun *run, const JinjaMacro *macro, const JinjaCall *call)
{
  const JinjaNode *node = macro->node;
  JinjaFrame *scope = jinja_frame_new (run, macro->frame);
  gboolean *used = jinja_new (&run->work.heap, gboolean, call->n_named);
  JinjaValue *given = jinja_new (&run->work.heap, JinjaValue, node->items.n);
  for (gsize i = 0; i < node->items.n; i++) {
    const char *name = node->items.items[i]->name;
    given[i] = i < call->n ? call->args[i] : absent ();
    for (gsize j = 0; j < call->n_named; j++) {
      if (!jinja_string_is (call->named[j].key.string, name))
        continue;
      if (i < call->n)
        jinja_error (&run->work, "macro '%s' got multiple values for argument '%s'", node->name, name);
      given[i] = call->named[j].value;
      used[j] = TRUE;
    }
  }
  bind_rest (run, node, scope, call, used);
  for (gsize i = 0; i < node->items.n; i++) {
    const char *name = node->items.items[i]->name;
    if (jinja_is_absent (given[i]))
      given[i] = node->named.items[i] != NULL ? jinja_evaluate (run, node->named.items[i], scope)
                                              : jinja_undefined (&run->work, "parameter '%.100s' was not provided", name);
    jinja_frame_set (run, scope, name, given[i]);
  }
  return jinja_execute_captured (run, &node->body, scope);
}

static JinjaValue call_loop (JinjaRun *run, JinjaLoop *loop, const JinjaCall *call)
{
  if (!loop->node->recursive)
    jinja_error (&run->work, "the loop must have the 'recursive' marker to be called recursively");
  if (call->n != 1 || call->n_named > 0)
    jinja_error (&run->work, "loop() takes what to iterate over, and nothing else");
  JinjaBuilder builder, *out = run->out;
  jinja_builder_init (&run->work, &builder);
  run->out = &builder;
  jinja_execute_loop (run, loop->node, loop->frame, call->args[0], loop->depth + 1);
  run->out = out;
  return jinja_builder_finish (&builder);
}

JinjaValue jinja_call (JinjaRun *run, JinjaValue callee, const JinjaCall *call)
{
  JinjaValue result;
  jinja_enter (&run->work);
  switch (callee.type) {
  case JINJA_BUILTIN:
    result = jinja_call_builtin (run, callee.bound->builtin, callee.bound->self, call, "");
    break;
  case JINJA_MACRO:
    result = call_macro (run, callee.macro, call);
    break;
  case JINJA_LOOP:
    result = call_loop (run, callee.loop, call);
    break;
  case JINJA_UNDEFINED:
    jinja_error (&run->work, "%s", callee.why);
  default:
    jinja_error (&run->work, "'%s' object is not callable", jinja_type_name (callee));
  }
  jinja_leave (&run->work);
  return result;
}

JinjaValue jinja_call_filter (JinjaRun *run, const char *name, const JinjaBuiltin *filter, JinjaValue subject, const JinjaCall *call)
{
  if (filter == NULL)
    jinja_error (&run->work, "no filter named '%.100s'", name);
  return jinja_call_builtin (run, filter, subject, call, "filter ");
}

gboolean jinja_call_test (JinjaRun *run, const char *name, const JinjaBuiltin *test, JinjaValue subject, const JinjaCall *call)
{
  if (test == NULL)
    jinja_error (&run->work, "no test named '%.100s'", name);
  return jinja_truth (jinja_call_builtin (run, test, subject, call, "test "));
}

gint64 jinja_argument_int (JinjaRun *run, const JinjaCall *call, gsize i, gint64 fallback)
{
  JinjaValue value = call->args[i];
  if (jinja_is_absent (value) || (value.type == JINJA_NONE && fallback == -1))
    return fallback;
  if (value.type != JINJA_INT && value.type != JINJA_BOOL)
    jinja_error (&run->work, "'%s' object cannot be interpreted as an integer", jinja_type_name (value));
  return value.type == JINJA_INT ? value.integer : value.boolean;
}

gboolean jinja_argument_bool (JinjaRun *run, const JinjaCall *call, gsize i, gboolean fallback)
{
  return jinja_is_absent (call->args[i]) ? fallback : jinja_truth (call->args[i]);
}

JinjaString *jinja_argument_string (JinjaRun *run, const JinjaCall *call, gsize i, const char *fallback)
{
  if (jinja_is_absent (call->args[i]))
    return fallback != NULL ? jinja_string (&run->work, fallback, strlen (fallback), FALSE).string : NULL;
  return jinja_need_string (run, call->args[i], "an argument");
}

JinjaString *jinja_need_string (JinjaRun *run, JinjaValue value, const char *what)
{
  if (value.type == JINJA_UNDEFINED && value.why != NULL)
    jinja_error (&run->work, "%s", value.why);
  if (value.type != JINJA_STRING)
    jinja_error (&run->work, "expected str as %s, found %s", what, jinja_type_name (value));
  return value.string;
}

const char *jinja_c_string (JinjaRun *run, const JinjaString *string)
{
  return jinja_copy (&run->work.heap, string->text, string->length);
}

const JinjaBuiltin *jinja_find_in (const JinjaBuiltin *table, const char *name)
{
  for (; table->name != NULL; table++)
    if (strcmp (table->name, name) == 0)
      return table;
  return NULL;
}

const JinjaBuiltin *jinja_find_filter (const char *name)
{
  const JinjaBuiltin *tables[] = { jinja_text_filters, jinja_sequence_filters, jinja_number_filters }, *found = NULL;
  for (gsize i = 0; i < G_N_ELEMENTS (tables) && found == NULL; i++)
    found = jinja_find_in (tables[i], name);
  return found;
}
