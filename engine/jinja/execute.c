/* execute.c: statements. Each loop pass, macro call and block has a scope of its own; `if` has none, as in Python. */
#include "engine/jinja/run.h"

#include <string.h>

JinjaFrame *jinja_frame_new (JinjaRun *run, JinjaFrame *parent)
{
  JinjaFrame *frame = jinja_new (&run->work.heap, JinjaFrame, 1);
  frame->parent = parent;
  return frame;
}

void jinja_frame_set (JinjaRun *run, JinjaFrame *frame, const char *name, JinjaValue value)
{
  for (gsize i = 0; i < frame->n; i++) {
    if (strcmp (frame->variables[i].name, name) == 0) {
      frame->variables[i].value = value;
      return;
    }
  }
  frame->variables = jinja_grow (&run->work.heap, frame->variables, sizeof *frame->variables, frame->n, &frame->capacity);
  frame->variables[frame->n].name = name;
  frame->variables[frame->n++].value = value;
}

static void assign (JinjaRun *run, JinjaFrame *frame, const JinjaNode *target, JinjaValue value)
{
  run->work.line = target->line;
  if (target->type == NODE_NAME) {
    jinja_frame_set (run, frame, target->name, value);
  } else if (target->type == NODE_ATTRIBUTE) {
    JinjaValue space = jinja_evaluate (run, target->a, frame);
    if (space.type != JINJA_NAMESPACE)
      jinja_error (&run->work, "cannot assign attribute on non-namespace object");
    JinjaValue key = jinja_string (&run->work, target->name, strlen (target->name), FALSE);
    jinja_dict_set (&run->work, space.dict, key, value);
  } else {
    JinjaList *parts = jinja_iterate (&run->work, value);
    if (parts->n != target->items.n)
      jinja_error (&run->work, parts->n < target->items.n ? "not enough values to unpack (expected %" G_GSIZE_FORMAT ", got %" G_GSIZE_FORMAT ")"
                                                         : "too many values to unpack (expected %" G_GSIZE_FORMAT ", got %" G_GSIZE_FORMAT ")",
                   target->items.n, parts->n);
    for (gsize i = 0; i < parts->n; i++)
      assign (run, frame, target->items.items[i], parts->items[i]);
  }
}

JinjaValue jinja_execute_captured (JinjaRun *run, const JinjaNodes *body, JinjaFrame *frame)
{
  JinjaBuilder builder, *out = run->out;
  jinja_builder_init (&run->work, &builder);
  run->out = &builder;
  jinja_execute (run, body, frame);
  run->out = out;
  return jinja_builder_finish (&builder);
}

static JinjaList *keep_wanted (JinjaRun *run, const JinjaNode *node, JinjaFrame *frame, const JinjaList *items)
{
  JinjaList *wanted = jinja_list_new (&run->work, JINJA_KIND_LIST, 0).list;
  for (gsize i = 0; i < items->n; i++) {
    JinjaFrame *scope = jinja_frame_new (run, frame);
    assign (run, scope, node->a, items->items[i]);
    if (jinja_truth (jinja_evaluate (run, node->c, scope)))
      jinja_list_add (&run->work, wanted, items->items[i]);
  }
  return wanted;
}

void jinja_execute_loop (JinjaRun *run, const JinjaNode *node, JinjaFrame *frame, JinjaValue iterable, guint depth)
{
  JinjaList *items = jinja_iterate (&run->work, iterable);
  if (node->c != NULL)
    items = keep_wanted (run, node, frame, items);
  if (items->n == 0) {
    jinja_execute (run, &node->otherwise, jinja_frame_new (run, frame));
    return;
  }
  JinjaLoop *loop = jinja_new (&run->work.heap, JinjaLoop, 1);
  loop->node = node;
  loop->frame = frame;
  loop->items = items;
  loop->depth = depth;
  for (; loop->index < items->n; loop->index++) {
    JinjaFrame *scope = jinja_frame_new (run, frame);
    jinja_frame_set (run, scope, "loop", (JinjaValue){ .type = JINJA_LOOP, .loop = loop });
    assign (run, scope, node->a, items->items[loop->index]);
    jinja_spend (&run->work, 1);
    if (jinja_execute (run, &node->body, scope) == JINJA_FLOW_BREAK)
      break;
  }
}

static JinjaFlow execute_if (JinjaRun *run, const JinjaNode *node, JinjaFrame *frame)
{
  for (;;) {
    if (jinja_truth (jinja_evaluate (run, node->a, frame)))
      return jinja_execute (run, &node->body, frame);
    if (node->otherwise.n != 1 || node->otherwise.items[0]->type != NODE_IF)
      return jinja_execute (run, &node->otherwise, frame);
    node = node->otherwise.items[0];
  }
}

static void execute_set_block (JinjaRun *run, const JinjaNode *node, JinjaFrame *frame)
{
  JinjaValue text = jinja_execute_captured (run, &node->body, jinja_frame_new (run, frame));
  if (node->b != NULL) {
    run->captured = text;
    text = jinja_evaluate (run, node->b, frame);
  }
  assign (run, frame, node->a, text);
}

/* {% call(parameters) f(...) %}: its body is a macro, handed to f as `caller`. */
static void execute_call_block (JinjaRun *run, const JinjaNode *node, JinjaFrame *frame)
{
  JinjaMacro *caller = jinja_new (&run->work.heap, JinjaMacro, 1);
  caller->node = node;
  caller->frame = frame;
  JinjaValue callee = jinja_evaluate (run, node->a->a, frame);
  JinjaCall call = jinja_arguments (run, node->a, frame);
  JinjaPair *named = jinja_new (&run->work.heap, JinjaPair, call.n_named + 1);
  if (call.n_named > 0)
    memcpy (named, call.named, call.n_named * sizeof *named);
  named[call.n_named].key = jinja_string (&run->work, "caller", 6, FALSE);
  named[call.n_named++].value = (JinjaValue){ .type = JINJA_MACRO, .macro = caller };
  call.named = named;
  run->work.line = node->line;
  jinja_print (run->out, jinja_call (run, callee, &call));
}

static void execute_with (JinjaRun *run, const JinjaNode *node, JinjaFrame *frame)
{
  JinjaFrame *scope = jinja_frame_new (run, frame);
  for (gsize i = 0; i < node->items.n; i++)
    assign (run, scope, node->items.items[i], jinja_evaluate (run, node->named.items[i], frame));
  jinja_execute (run, &node->body, scope);
}

static JinjaFlow execute_node (JinjaRun *run, const JinjaNode *node, JinjaFrame *frame)
{
  switch (node->type) {
  case NODE_TEXT:
    jinja_builder_add_string (run->out, node->value.string);
    break;
  case NODE_OUTPUT: {
    JinjaValue value = jinja_evaluate (run, node->a, frame);
    run->work.line = node->line;
    jinja_print (run->out, value);
    break;
  }
  case NODE_FOR:
    jinja_execute_loop (run, node, frame, jinja_evaluate (run, node->b, frame), 0);
    break;
  case NODE_IF:
    return execute_if (run, node, frame);
  case NODE_SET:
    assign (run, frame, node->a, jinja_evaluate (run, node->b, frame));
    break;
  case NODE_SET_BLOCK:
    execute_set_block (run, node, frame);
    break;
  case NODE_MACRO: {
    JinjaMacro *macro = jinja_new (&run->work.heap, JinjaMacro, 1);
    macro->node = node;
    macro->frame = frame;
    jinja_frame_set (run, frame, node->name, (JinjaValue){ .type = JINJA_MACRO, .macro = macro });
    break;
  }
  case NODE_CALL_BLOCK:
    execute_call_block (run, node, frame);
    break;
  case NODE_FILTER_BLOCK:
    run->captured = jinja_execute_captured (run, &node->body, jinja_frame_new (run, frame));
    jinja_print (run->out, jinja_evaluate (run, node->a, frame));
    break;
  case NODE_WITH:
    execute_with (run, node, frame);
    break;
  case NODE_SCOPE:
    return jinja_execute (run, &node->body, jinja_frame_new (run, frame));
  case NODE_BREAK:
    return JINJA_FLOW_BREAK;
  case NODE_CONTINUE:
    return JINJA_FLOW_CONTINUE;
  default:
    g_assert_not_reached (); /* the parser makes no other statement */
  }
  return JINJA_FLOW_NEXT;
}

JinjaFlow jinja_execute (JinjaRun *run, const JinjaNodes *body, JinjaFrame *frame)
{
  JinjaFlow flow = JINJA_FLOW_NEXT;
  jinja_enter (&run->work);
  for (gsize i = 0; i < body->n && flow == JINJA_FLOW_NEXT; i++) {
    jinja_spend (&run->work, 1);
    run->work.line = body->items[i]->line;
    flow = execute_node (run, body->items[i], frame);
  }
  jinja_leave (&run->work);
  return flow;
}
