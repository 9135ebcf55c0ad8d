/* evaluate.c: expressions. */
#include "engine/jinja/run.h"

#include <string.h>

static JinjaValue find_name (JinjaRun *run, const char *name, JinjaFrame *frame)
{
  for (; frame != NULL; frame = frame->parent) {
    jinja_spend (&run->work, 1);
    for (gsize i = 0; i < frame->n; i++)
      if (strcmp (frame->variables[i].name, name) == 0)
        return frame->variables[i].value;
  }
  const JinjaBuiltin *global = jinja_find_global (name);
  if (global != NULL)
    return jinja_bind (run, global, jinja_none ());
  return jinja_undefined (&run->work, "'%.100s' is undefined", name);
}

static JinjaValue evaluate_list (JinjaRun *run, const JinjaNode *node, JinjaFrame *frame)
{
  JinjaListKind kind = node->type == NODE_LIST ? JINJA_KIND_LIST : JINJA_KIND_TUPLE;
  JinjaValue list = jinja_list_new (&run->work, kind, node->items.n);
  for (gsize i = 0; i < node->items.n; i++)
    jinja_list_add (&run->work, list.list, jinja_evaluate (run, node->items.items[i], frame));
  return list;
}

static JinjaValue evaluate_dict (JinjaRun *run, const JinjaNode *node, JinjaFrame *frame)
{
  JinjaValue dict = jinja_dict_new (&run->work, JINJA_DICT);
  for (gsize i = 0; i + 1 < node->items.n; i += 2) {
    JinjaValue key = jinja_evaluate (run, node->items.items[i], frame);
    jinja_dict_set (&run->work, dict.dict, key, jinja_evaluate (run, node->items.items[i + 1], frame));
  }
  return dict;
}

static JinjaValue evaluate_or_none (JinjaRun *run, const JinjaNode *node, JinjaFrame *frame)
{
  return node != NULL ? jinja_evaluate (run, node, frame) : jinja_none ();
}

static JinjaValue evaluate_item (JinjaRun *run, const JinjaNode *node, JinjaFrame *frame)
{
  JinjaValue subject = jinja_evaluate (run, node->a, frame);
  if (node->b->type == NODE_SLICE) {
    JinjaValue start = evaluate_or_none (run, node->b->a, frame), stop = evaluate_or_none (run, node->b->b, frame);
    JinjaValue step = evaluate_or_none (run, node->b->c, frame);
    run->work.line = node->line;
    return jinja_slice (run, subject, start, stop, step);
  }
  JinjaValue key = jinja_evaluate (run, node->b, frame);
  run->work.line = node->line;
  return jinja_item (run, subject, key);
}

gboolean jinja_contains (JinjaRun *run, JinjaValue container, JinjaValue item)
{
  JinjaWork *work = &run->work;
  if (container.type == JINJA_STRING) {
    if (item.type != JINJA_STRING)
      jinja_error (work, "'in <string>' requires string as left operand, not %s", jinja_type_name (item));
    return jinja_find_text (work, container.string, item.string, 0) >= 0;
  }
  if (container.type == JINJA_DICT) {
    jinja_check_hashable (work, item);
    return jinja_dict_find (work, container.dict, item) != NULL;
  }
  if (!jinja_is_iterable (container))
    jinja_error (work, "argument of type '%s' is not iterable", jinja_type_name (container));
  const JinjaList *list = jinja_iterate (work, container);
  for (gsize i = 0; i < list->n; i++)
    if (jinja_equal (work, list->items[i], item))
      return TRUE;
  return FALSE;
}

static gboolean compare (JinjaRun *run, const char *operator, JinjaValue a, JinjaValue b)
{
  if (operator[0] == 'i' || operator[0] == 'n')
    return jinja_contains (run, b, a) == (operator[0] == 'i');
  if (operator[0] == '=' || operator[0] == '!')
    return jinja_equal (&run->work, a, b) == (operator[0] == '=');
  int order = jinja_compare (&run->work, a, b, operator);
  /* Nothing is less or greater than "not a number". */
  if ((a.type == JINJA_FLOAT && a.real != a.real) || (b.type == JINJA_FLOAT && b.real != b.real))
    return FALSE;
  gboolean or_equal = operator[1] == '=';
  return (operator[0] == '<' ? order < 0 : order > 0) || (or_equal && order == 0);
}

/* a < b < c: each operand is evaluated once, and none after the first that fails. */
static JinjaValue evaluate_compare (JinjaRun *run, const JinjaNode *node, JinjaFrame *frame)
{
  JinjaValue left = jinja_evaluate (run, node->a, frame);
  for (gsize i = 0; i < node->items.n; i++) {
    const JinjaNode *further = node->items.items[i];
    JinjaValue right = jinja_evaluate (run, further->a, frame);
    run->work.line = further->line;
    if (!compare (run, further->name, left, right))
      return jinja_bool (FALSE);
    left = right;
  }
  return jinja_bool (TRUE);
}

static JinjaValue evaluate_concat (JinjaRun *run, const JinjaNode *node, JinjaFrame *frame)
{
  JinjaBuilder builder;
  jinja_builder_init (&run->work, &builder);
  for (gsize i = 0; i < node->items.n; i++)
    jinja_print (&builder, jinja_evaluate (run, node->items.items[i], frame));
  return jinja_builder_finish (&builder);
}

static JinjaValue evaluate_conditional (JinjaRun *run, const JinjaNode *node, JinjaFrame *frame)
{
  if (jinja_truth (jinja_evaluate (run, node->a, frame)))
    return jinja_evaluate (run, node->b, frame);
  if (node->c != NULL)
    return jinja_evaluate (run, node->c, frame);
  return jinja_undefined (&run->work, "the inline if-expression on line %u evaluated to false and no else section was defined", node->line);
}

static JinjaValue evaluate_call (JinjaRun *run, const JinjaNode *node, JinjaFrame *frame)
{
  JinjaValue callee = jinja_evaluate (run, node->a, frame);
  JinjaCall call = jinja_arguments (run, node, frame);
  run->work.line = node->line;
  return jinja_call (run, callee, &call);
}

static JinjaValue evaluate_filter (JinjaRun *run, const JinjaNode *node, JinjaFrame *frame)
{
  JinjaValue subject = jinja_evaluate (run, node->a, frame);
  JinjaCall call = jinja_arguments (run, node, frame);
  run->work.line = node->line;
  if (node->type == NODE_FILTER)
    return jinja_call_filter (run, node->name, node->builtin, subject, &call);
  return jinja_bool (jinja_call_test (run, node->name, node->builtin, subject, &call));
}

static JinjaValue evaluate_node (JinjaRun *run, const JinjaNode *node, JinjaFrame *frame)
{
  JinjaValue a;
  switch (node->type) {
  case NODE_CONST:
    return node->value;
  case NODE_NAME:
    return find_name (run, node->name, frame);
  case NODE_LIST:
  case NODE_TUPLE:
    return evaluate_list (run, node, frame);
  case NODE_DICT:
    return evaluate_dict (run, node, frame);
  case NODE_ATTRIBUTE:
    a = jinja_evaluate (run, node->a, frame);
    run->work.line = node->line;
    return jinja_attribute (run, a, node->name);
  case NODE_ITEM:
    return evaluate_item (run, node, frame);
  case NODE_SLICE:
    jinja_error (&run->work, "a slice stands alone between [ and ]");
  case NODE_CALL:
    return evaluate_call (run, node, frame);
  case NODE_FILTER:
  case NODE_TEST:
    return evaluate_filter (run, node, frame);
  case NODE_NOT:
    return jinja_bool (!jinja_truth (jinja_evaluate (run, node->a, frame)));
  case NODE_NEGATIVE:
  case NODE_POSITIVE:
    return jinja_negative (run, jinja_evaluate (run, node->a, frame), node->type == NODE_NEGATIVE);
  case NODE_BINARY: {
    a = jinja_evaluate (run, node->a, frame);
    JinjaValue b = jinja_evaluate (run, node->b, frame);
    run->work.line = node->line;
    return jinja_binary (run, node->name, a, b);
  }
  case NODE_CONCAT:
    return evaluate_concat (run, node, frame);
  case NODE_COMPARE:
    return evaluate_compare (run, node, frame);
  case NODE_AND:
  case NODE_OR:
    a = jinja_evaluate (run, node->a, frame);
    return jinja_truth (a) == (node->type == NODE_OR) ? a : jinja_evaluate (run, node->b, frame);
  case NODE_CONDITIONAL:
    return evaluate_conditional (run, node, frame);
  case NODE_CAPTURED:
    return run->captured;
  default:
    g_assert_not_reached (); /* the parser makes no other expression */
  }
}

JinjaValue jinja_evaluate (JinjaRun *run, const JinjaNode *node, JinjaFrame *frame)
{
  jinja_enter (&run->work);
  run->work.line = node->line;
  JinjaValue value = evaluate_node (run, node, frame);
  jinja_leave (&run->work);
  return value;
}
