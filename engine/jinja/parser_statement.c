/* parser_statement.c: text, {{ }} and {% %}, up to the end of the template. */
#include "engine/jinja/syntax.h"

#include <string.h>

static void parse_body (JinjaParser *p, JinjaNodes *body, const char *const *ends, const char *opener, guint line);
static JinjaNode *parse_statement (JinjaParser *p);

void jinja_parse (JinjaWork *work, const char *source, JinjaNodes *body)
{
  gsize n_tokens;
  JinjaParser parser = { .work = work, .token = jinja_lex (work, source, &n_tokens) };
  parse_body (&parser, body, NULL, NULL, 0);
}

static void expect_block_end (JinjaParser *p)
{
  if (p->token->type != TOKEN_BLOCK_END)
    jinja_expected (p, "'%}'");
  jinja_advance (p);
}

/* Statements up to {% one of ends: the parser is then at that name. Without ends: to the end of the template. */
static void parse_body (JinjaParser *p, JinjaNodes *body, const char *const *ends, const char *opener, guint line)
{
  jinja_enter (p->work);
  for (;;) {
    JinjaNode *node;
    if (p->token->type == TOKEN_DATA) {
      node = jinja_node (p, NODE_TEXT);
      node->value = p->token->value;
      jinja_advance (p);
    } else if (p->token->type == TOKEN_VARIABLE_BEGIN) {
      node = jinja_node (p, NODE_OUTPUT);
      jinja_advance (p);
      node->a = jinja_parse_tuple (p, TRUE);
      if (p->token->type != TOKEN_VARIABLE_END)
        jinja_expected (p, "'}}'");
      jinja_advance (p);
    } else if (p->token->type == TOKEN_BLOCK_BEGIN) {
      jinja_advance (p);
      if (p->token->type != TOKEN_NAME)
        jinja_expected (p, "a tag's name");
      if (ends != NULL && g_strv_contains (ends, p->token->text))
        break;
      node = parse_statement (p);
    } else if (ends == NULL) {
      break;
    } else {
      jinja_fail (&p->work->heap, p->token->line, "expected {%% %s %%} for the '%s' of line %u, found the end of the template", ends[0],
                  opener, line);
    }
    jinja_nodes_add (p->work, body, node);
  }
  jinja_leave (p->work);
}

/* The body of a tag after its %}, over {% end %}. */
static void parse_block (JinjaParser *p, JinjaNodes *body, const char *end, const char *opener, guint line)
{
  const char *const ends[] = { end, NULL };
  expect_block_end (p);
  parse_body (p, body, ends, opener, line);
  jinja_advance (p);
  expect_block_end (p);
}

/* What can be assigned to: a name, names in a tuple, or with `attributes` a namespace's attribute. */
static JinjaNode *parse_target (JinjaParser *p, gboolean attributes)
{
  JinjaNode *first = NULL, *tuple = NULL;
  jinja_enter (p->work);
  do {
    JinjaNode *node;
    if (tuple != NULL && (jinja_at_operator (p, "=") || jinja_at_name (p, "in")))
      break;
    if (jinja_skip_operator (p, "(")) {
      node = parse_target (p, attributes);
      jinja_expect_operator (p, ")");
    } else {
      node = jinja_node (p, NODE_NAME);
      node->name = jinja_expect_name (p, "a name to assign to");
      if (attributes && jinja_skip_operator (p, ".")) {
        JinjaNode *attribute = jinja_node (p, NODE_ATTRIBUTE);
        attribute->a = node;
        attribute->name = jinja_expect_name (p, "an attribute's name");
        node = attribute;
      }
    }
    if (tuple != NULL)
      jinja_nodes_add (p->work, &tuple->items, node);
    else
      first = node;
    if (tuple == NULL && jinja_at_operator (p, ",")) {
      tuple = jinja_node (p, NODE_TUPLE);
      jinja_nodes_add (p->work, &tuple->items, first);
    }
  } while (jinja_skip_operator (p, ","));
  jinja_leave (p->work);
  return tuple != NULL ? tuple : first;
}

static void parse_for (JinjaParser *p, JinjaNode *node)
{
  static const char *const ends[] = { "endfor", "else", NULL };
  node->type = NODE_FOR;
  node->a = parse_target (p, FALSE);
  if (!jinja_skip_name (p, "in"))
    jinja_expected (p, "'in'");
  node->b = jinja_parse_tuple (p, FALSE);
  if (jinja_skip_name (p, "if"))
    node->c = jinja_parse_expression (p);
  node->recursive = jinja_skip_name (p, "recursive");
  expect_block_end (p);
  p->loops++;
  parse_body (p, &node->body, ends, "for", node->line);
  p->loops--;
  if (jinja_skip_name (p, "else")) {
    parse_block (p, &node->otherwise, "endfor", "for", node->line);
  } else {
    jinja_advance (p);
    expect_block_end (p);
  }
}

static void parse_if (JinjaParser *p, JinjaNode *node)
{
  static const char *const ends[] = { "endif", "elif", "else", NULL };
  for (;;) { /* an elif is an if in the else of the one before */
    node->type = NODE_IF;
    node->a = jinja_parse_tuple (p, FALSE);
    expect_block_end (p);
    parse_body (p, &node->body, ends, "if", node->line);
    if (!jinja_at_name (p, "elif"))
      break;
    JinjaNode *next = jinja_node (p, NODE_IF);
    jinja_advance (p);
    jinja_nodes_add (p->work, &node->otherwise, next);
    node = next;
  }
  if (jinja_skip_name (p, "else")) {
    parse_block (p, &node->otherwise, "endif", "if", node->line);
  } else {
    jinja_advance (p);
    expect_block_end (p);
  }
}

static void parse_set (JinjaParser *p, JinjaNode *node)
{
  node->type = NODE_SET;
  node->a = parse_target (p, TRUE);
  if (jinja_skip_operator (p, "=")) {
    node->b = jinja_parse_tuple (p, TRUE);
    expect_block_end (p);
    return;
  }
  node->type = NODE_SET_BLOCK;
  if (jinja_skip_operator (p, "|"))
    node->b = jinja_parse_filter_chain (p);
  parse_block (p, &node->body, "endset", "set", node->line);
}

/* The body of a macro: what it mentions counts for it alone, and it cannot leave a loop around it. */
static void parse_macro_body (JinjaParser *p, JinjaNode *node, const char *end, const char *opener)
{
  guint uses = p->uses, loops = p->loops;
  p->uses = p->loops = 0;
  parse_block (p, &node->body, end, opener, node->line);
  node->uses = p->uses;
  p->uses = uses;
  p->loops = loops;
}

/* (a, b=1): names into items, the nodes of defaults or NULL into named. */
static void parse_parameters (JinjaParser *p, JinjaNode *node)
{
  jinja_expect_operator (p, "(");
  while (!jinja_at_operator (p, ")")) {
    JinjaNode *parameter = jinja_node (p, NODE_NAME), *value = NULL;
    parameter->name = jinja_expect_name (p, "a parameter's name");
    if (jinja_skip_operator (p, "="))
      value = jinja_parse_expression (p);
    else if (node->named.n > 0 && node->named.items[node->named.n - 1] != NULL)
      jinja_expected (p, "'=': every parameter after one with a default needs one");
    jinja_nodes_add (p->work, &node->items, parameter);
    jinja_nodes_add (p->work, &node->named, value);
    if (!jinja_at_operator (p, ")"))
      jinja_expect_operator (p, ",");
  }
  jinja_advance (p);
}

static void parse_macro (JinjaParser *p, JinjaNode *node)
{
  node->type = NODE_MACRO;
  node->name = jinja_expect_name (p, "the macro's name");
  parse_parameters (p, node);
  parse_macro_body (p, node, "endmacro", "macro");
}

static void parse_call (JinjaParser *p, JinjaNode *node)
{
  node->type = NODE_CALL_BLOCK;
  node->name = "caller";
  if (jinja_at_operator (p, "("))
    parse_parameters (p, node);
  node->a = jinja_parse_primary_postfix (p);
  if (node->a->type != NODE_CALL)
    jinja_fail (&p->work->heap, node->line, "expected a call after 'call'");
  parse_macro_body (p, node, "endcall", "call");
}

static void parse_with (JinjaParser *p, JinjaNode *node)
{
  node->type = NODE_WITH;
  while (p->token->type != TOKEN_BLOCK_END) {
    jinja_nodes_add (p->work, &node->items, parse_target (p, FALSE));
    jinja_expect_operator (p, "=");
    jinja_nodes_add (p->work, &node->named, jinja_parse_expression (p));
    if (p->token->type != TOKEN_BLOCK_END)
      jinja_expect_operator (p, ",");
  }
  parse_block (p, &node->body, "endwith", "with", node->line);
}

static JinjaNode *parse_statement (JinjaParser *p)
{
  JinjaNode *node = jinja_node (p, NODE_SCOPE);
  const char *tag = jinja_expect_name (p, "a tag's name");
  if (g_str_equal (tag, "for")) {
    parse_for (p, node);
  } else if (g_str_equal (tag, "if")) {
    parse_if (p, node);
  } else if (g_str_equal (tag, "set")) {
    parse_set (p, node);
  } else if (g_str_equal (tag, "macro")) {
    parse_macro (p, node);
  } else if (g_str_equal (tag, "call")) {
    parse_call (p, node);
  } else if (g_str_equal (tag, "with")) {
    parse_with (p, node);
  } else if (g_str_equal (tag, "filter")) {
    node->type = NODE_FILTER_BLOCK;
    node->a = jinja_parse_filter_chain (p);
    parse_block (p, &node->body, "endfilter", "filter", node->line);
  } else if (g_str_equal (tag, "generation")) {
    parse_block (p, &node->body, "endgeneration", "generation", node->line); /* marks the assistant's text for training */
  } else if (g_str_equal (tag, "break") || g_str_equal (tag, "continue")) {
    node->type = tag[0] == 'b' ? NODE_BREAK : NODE_CONTINUE;
    if (p->loops == 0)
      jinja_fail (&p->work->heap, node->line, "'%s' outside a loop", tag);
    expect_block_end (p);
  } else {
    jinja_fail (&p->work->heap, node->line, "unknown tag '%s'", tag);
  }
  return node;
}
