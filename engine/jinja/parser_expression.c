/* parser_expression.c: expressions, by recursive descent. Grammar and precedence: the Jinja documentation, "Expressions". */
#include "engine/jinja/run.h"
#include "engine/jinja/syntax.h"

#include <string.h>

static JinjaNode *parse_or (JinjaParser *p);
static JinjaNode *parse_unary (JinjaParser *p, gboolean with_filters);
static JinjaNode *parse_primary (JinjaParser *p);
static JinjaNode *parse_postfix (JinjaParser *p, JinjaNode *node);

void jinja_nodes_add (JinjaWork *work, JinjaNodes *nodes, JinjaNode *node)
{
  nodes->items = jinja_grow (&work->heap, nodes->items, sizeof *nodes->items, nodes->n, &nodes->capacity);
  nodes->items[nodes->n++] = node;
}

JinjaNode *jinja_node (JinjaParser *p, JinjaNodeType type)
{
  JinjaNode *node = jinja_new (&p->work->heap, JinjaNode, 1);
  node->type = type;
  node->line = p->token->line;
  return node;
}

void jinja_expected (JinjaParser *p, const char *what)
{
  static const char *const quoted[] = { [TOKEN_VARIABLE_BEGIN] = "", [TOKEN_VARIABLE_END] = "", [TOKEN_BLOCK_BEGIN] = "",
                                        [TOKEN_BLOCK_END] = "", [TOKEN_NAME] = "", [TOKEN_OPERATOR] = "" };
  const char *mark = p->token->type < G_N_ELEMENTS (quoted) && quoted[p->token->type] != NULL ? "'" : "";
  jinja_fail (&p->work->heap, p->token->line, "expected %s, found %s%s%s", what, mark, p->token->text, mark);
}

void jinja_advance (JinjaParser *p)
{
  if (p->token->type != TOKEN_END)
    p->token++;
  p->work->line = p->token->line;
}

gboolean jinja_at_operator (const JinjaParser *p, const char *operator)
{
  return p->token->type == TOKEN_OPERATOR && strcmp (p->token->text, operator) == 0;
}

gboolean jinja_at_name (const JinjaParser *p, const char *name)
{
  return p->token->type == TOKEN_NAME && strcmp (p->token->text, name) == 0;
}

gboolean jinja_skip_operator (JinjaParser *p, const char *operator)
{
  gboolean at = jinja_at_operator (p, operator);
  if (at)
    jinja_advance (p);
  return at;
}

gboolean jinja_skip_name (JinjaParser *p, const char *name)
{
  gboolean at = jinja_at_name (p, name);
  if (at)
    jinja_advance (p);
  return at;
}

void jinja_expect_operator (JinjaParser *p, const char *operator)
{
  char what[8];
  g_snprintf (what, sizeof what, "'%s'", operator);
  if (!jinja_skip_operator (p, operator))
    jinja_expected (p, what);
}

const char *jinja_expect_name (JinjaParser *p, const char *what)
{
  if (p->token->type != TOKEN_NAME)
    jinja_expected (p, what);
  const char *name = p->token->text;
  jinja_advance (p);
  return name;
}

static JinjaNode *binary (JinjaParser *p, JinjaNodeType type, JinjaNode *a, const char *operator)
{
  JinjaNode *node = jinja_node (p, type);
  node->a = a;
  node->name = operator;
  return node;
}

JinjaNode *jinja_parse_expression (JinjaParser *p)
{
  jinja_enter (p->work);
  JinjaNode *node = parse_or (p);
  while (jinja_at_name (p, "if")) {
    JinjaNode *condition = jinja_node (p, NODE_CONDITIONAL);
    jinja_advance (p);
    condition->a = parse_or (p);
    condition->b = node;
    condition->c = jinja_skip_name (p, "else") ? jinja_parse_expression (p) : NULL;
    node = condition;
  }
  jinja_leave (p->work);
  return node;
}

JinjaNode *jinja_parse_without_condition (JinjaParser *p)
{
  return parse_or (p);
}

static gboolean at_tuple_end (const JinjaParser *p)
{
  return p->token->type == TOKEN_VARIABLE_END || p->token->type == TOKEN_BLOCK_END || jinja_at_operator (p, ")") ||
         jinja_at_operator (p, "=") || jinja_at_name (p, "in") || jinja_at_name (p, "recursive");
}

JinjaNode *jinja_parse_tuple (JinjaParser *p, gboolean with_condition)
{
  JinjaNode *first = with_condition ? jinja_parse_expression (p) : parse_or (p);
  if (!jinja_at_operator (p, ","))
    return first;
  JinjaNode *tuple = jinja_node (p, NODE_TUPLE);
  jinja_nodes_add (p->work, &tuple->items, first);
  while (jinja_skip_operator (p, ",") && !at_tuple_end (p))
    jinja_nodes_add (p->work, &tuple->items, with_condition ? jinja_parse_expression (p) : parse_or (p));
  return tuple;
}

static JinjaNode *parse_not (JinjaParser *p);
static JinjaNode *parse_compare (JinjaParser *p);

static JinjaNode *parse_and (JinjaParser *p)
{
  JinjaNode *node = parse_not (p);
  while (jinja_at_name (p, "and")) {
    node = binary (p, NODE_AND, node, "and");
    jinja_advance (p);
    node->b = parse_not (p);
  }
  return node;
}

static JinjaNode *parse_or (JinjaParser *p)
{
  jinja_enter (p->work);
  JinjaNode *node = parse_and (p);
  while (jinja_at_name (p, "or")) {
    node = binary (p, NODE_OR, node, "or");
    jinja_advance (p);
    node->b = parse_and (p);
  }
  jinja_leave (p->work);
  return node;
}

static JinjaNode *parse_not (JinjaParser *p)
{
  if (!jinja_at_name (p, "not"))
    return parse_compare (p);
  JinjaNode *node = jinja_node (p, NODE_NOT);
  jinja_enter (p->work);
  jinja_advance (p);
  node->a = parse_not (p);
  jinja_leave (p->work);
  return node;
}

static JinjaNode *parse_power (JinjaParser *p)
{
  JinjaNode *node = parse_unary (p, TRUE);
  while (jinja_at_operator (p, "**")) {
    node = binary (p, NODE_BINARY, node, "**");
    jinja_advance (p);
    node->b = parse_unary (p, TRUE);
  }
  return node;
}

static JinjaNode *parse_product (JinjaParser *p)
{
  JinjaNode *node = parse_power (p);
  while (jinja_at_operator (p, "*") || jinja_at_operator (p, "/") || jinja_at_operator (p, "//") || jinja_at_operator (p, "%")) {
    node = binary (p, NODE_BINARY, node, p->token->text);
    jinja_advance (p);
    node->b = parse_power (p);
  }
  return node;
}

static JinjaNode *parse_concat (JinjaParser *p)
{
  JinjaNode *first = parse_product (p);
  if (!jinja_at_operator (p, "~"))
    return first;
  JinjaNode *node = jinja_node (p, NODE_CONCAT);
  jinja_nodes_add (p->work, &node->items, first);
  while (jinja_skip_operator (p, "~"))
    jinja_nodes_add (p->work, &node->items, parse_product (p));
  return node;
}

static JinjaNode *parse_sum (JinjaParser *p)
{
  JinjaNode *node = parse_concat (p);
  while (jinja_at_operator (p, "+") || jinja_at_operator (p, "-")) {
    node = binary (p, NODE_BINARY, node, p->token->text);
    jinja_advance (p);
    node->b = parse_concat (p);
  }
  return node;
}

/* The comparison one stands at, or NULL. "not in" is two names. */
static const char *comparison (const JinjaParser *p)
{
  static const char *const names[] = { "==", "!=", "<=", ">=", "<", ">" };
  for (gsize i = 0; i < G_N_ELEMENTS (names); i++)
    if (jinja_at_operator (p, names[i]))
      return names[i];
  if (jinja_at_name (p, "in"))
    return "in";
  return jinja_at_name (p, "not") && p->token[1].type == TOKEN_NAME && strcmp (p->token[1].text, "in") == 0 ? "not in" : NULL;
}

static JinjaNode *parse_compare (JinjaParser *p)
{
  JinjaNode *first = parse_sum (p), *node = NULL;
  for (const char *operator; (operator = comparison (p)) != NULL;) {
    if (node == NULL)
      node = binary (p, NODE_COMPARE, first, NULL);
    JinjaNode *further = jinja_node (p, NODE_COMPARE); /* carries the operator and its right side */
    jinja_advance (p);
    if (operator[0] == 'n')
      jinja_advance (p);
    further->name = operator;
    further->a = parse_sum (p);
    jinja_nodes_add (p->work, &node->items, further);
  }
  return node != NULL ? node : first;
}

static JinjaNode *parse_unary (JinjaParser *p, gboolean with_filters)
{
  JinjaNode *node;
  jinja_enter (p->work);
  if (jinja_at_operator (p, "-") || jinja_at_operator (p, "+")) {
    node = jinja_node (p, jinja_at_operator (p, "-") ? NODE_NEGATIVE : NODE_POSITIVE);
    jinja_advance (p);
    node->a = parse_unary (p, FALSE);
  } else {
    node = parse_primary (p);
  }
  node = parse_postfix (p, node);
  if (with_filters)
    node = jinja_parse_filters (p, node);
  jinja_leave (p->work);
  return node;
}

static JinjaNode *parse_list (JinjaParser *p)
{
  JinjaNode *node = jinja_node (p, NODE_LIST);
  jinja_advance (p);
  while (!jinja_at_operator (p, "]")) {
    jinja_nodes_add (p->work, &node->items, jinja_parse_expression (p));
    if (!jinja_at_operator (p, "]"))
      jinja_expect_operator (p, ",");
  }
  jinja_advance (p);
  return node;
}

static JinjaNode *parse_dict (JinjaParser *p)
{
  JinjaNode *node = jinja_node (p, NODE_DICT);
  jinja_advance (p);
  while (!jinja_at_operator (p, "}")) {
    jinja_nodes_add (p->work, &node->items, jinja_parse_expression (p));
    jinja_expect_operator (p, ":");
    jinja_nodes_add (p->work, &node->items, jinja_parse_expression (p));
    if (!jinja_at_operator (p, "}"))
      jinja_expect_operator (p, ",");
  }
  jinja_advance (p);
  return node;
}

static JinjaNode *parse_parentheses (JinjaParser *p)
{
  jinja_advance (p);
  JinjaNode *node;
  if (jinja_at_operator (p, ")"))
    node = jinja_node (p, NODE_TUPLE);
  else
    node = jinja_parse_tuple (p, TRUE);
  jinja_expect_operator (p, ")");
  return node;
}

static JinjaNode *constant (JinjaParser *p, JinjaValue value)
{
  JinjaNode *node = jinja_node (p, NODE_CONST);
  node->value = value;
  jinja_advance (p);
  return node;
}

static JinjaNode *parse_name (JinjaParser *p)
{
  const char *name = p->token->text;
  if (g_str_equal (name, "true") || g_str_equal (name, "True") || g_str_equal (name, "false") || g_str_equal (name, "False"))
    return constant (p, jinja_bool (name[0] == 't' || name[0] == 'T'));
  if (g_str_equal (name, "none") || g_str_equal (name, "None"))
    return constant (p, jinja_none ());
  p->uses |= g_str_equal (name, "varargs") ? JINJA_USES_VARARGS : g_str_equal (name, "kwargs") ? JINJA_USES_KWARGS
             : g_str_equal (name, "caller") ? JINJA_USES_CALLER : 0;
  JinjaNode *node = jinja_node (p, NODE_NAME);
  node->name = name;
  jinja_advance (p);
  return node;
}

static JinjaNode *parse_primary (JinjaParser *p)
{
  JinjaNode *node;
  switch (p->token->type) {
  case TOKEN_NAME:
    return parse_name (p);
  case TOKEN_STRING: /* 'a' 'b' is one string */
    node = constant (p, p->token->value);
    while (p->token->type == TOKEN_STRING) {
      node->value = jinja_string_concat (p->work, node->value.string, p->token->value.string);
      node->value.string->bytes->capacity = 0; /* shared from now on: nothing may grow it */
      jinja_string_chars (node->value.string);
      jinja_advance (p);
    }
    return node;
  case TOKEN_INT:
  case TOKEN_FLOAT:
    return constant (p, p->token->value);
  default:
    break;
  }
  if (jinja_at_operator (p, "("))
    return parse_parentheses (p);
  if (jinja_at_operator (p, "["))
    return parse_list (p);
  if (jinja_at_operator (p, "{"))
    return parse_dict (p);
  jinja_expected (p, "an expression");
}

/* After "(": arguments, into the node. */
static void parse_arguments (JinjaParser *p, JinjaNode *call)
{
  jinja_expect_operator (p, "(");
  while (!jinja_at_operator (p, ")")) {
    gboolean keyword = p->token->type == TOKEN_NAME && p->token[1].type == TOKEN_OPERATOR && strcmp (p->token[1].text, "=") == 0;
    if (jinja_skip_operator (p, "*")) {
      call->star = jinja_parse_expression (p);
    } else if (jinja_skip_operator (p, "**")) {
      call->star_star = jinja_parse_expression (p);
    } else if (keyword) {
      JinjaNode *argument = jinja_node (p, NODE_CONST); /* carries the name and the value's node */
      argument->name = jinja_expect_name (p, "a name");
      jinja_advance (p);
      argument->a = jinja_parse_expression (p);
      jinja_nodes_add (p->work, &call->named, argument);
    } else if (call->named.n > 0 || call->star_star != NULL) {
      jinja_expected (p, "a keyword argument");
    } else {
      jinja_nodes_add (p->work, &call->items, jinja_parse_expression (p));
    }
    if (!jinja_at_operator (p, ")"))
      jinja_expect_operator (p, ",");
  }
  jinja_advance (p);
}

static JinjaNode *parse_slice_part (JinjaParser *p)
{
  return jinja_at_operator (p, ":") || jinja_at_operator (p, "]") || jinja_at_operator (p, ",") ? NULL : jinja_parse_expression (p);
}

/* What stands between [ and ]: one index or slice, or several as a tuple. */
static JinjaNode *parse_subscript (JinjaParser *p)
{
  JinjaNode *node = jinja_node (p, NODE_SLICE);
  JinjaNode *start = parse_slice_part (p);
  if (!jinja_at_operator (p, ":")) {
    if (start == NULL)
      jinja_expected (p, "an index");
    return start;
  }
  jinja_advance (p);
  node->a = start;
  node->b = parse_slice_part (p);
  if (jinja_skip_operator (p, ":"))
    node->c = parse_slice_part (p);
  return node;
}

static JinjaNode *parse_item (JinjaParser *p, JinjaNode *subject)
{
  JinjaNode *node = binary (p, NODE_ITEM, subject, NULL);
  jinja_advance (p);
  node->b = parse_subscript (p);
  if (jinja_at_operator (p, ",")) {
    JinjaNode *tuple = jinja_node (p, NODE_TUPLE);
    jinja_nodes_add (p->work, &tuple->items, node->b);
    while (jinja_skip_operator (p, ","))
      jinja_nodes_add (p->work, &tuple->items, parse_subscript (p));
    node->b = tuple;
  }
  jinja_expect_operator (p, "]");
  return node;
}

static JinjaNode *parse_attribute (JinjaParser *p, JinjaNode *subject)
{
  JinjaNode *node = binary (p, NODE_ATTRIBUTE, subject, NULL);
  jinja_advance (p);
  if (p->token->type == TOKEN_INT) {
    node->type = NODE_ITEM;
    node->b = constant (p, p->token->value);
  } else {
    node->name = jinja_expect_name (p, "an attribute's name");
  }
  return node;
}

static JinjaNode *parse_postfix (JinjaParser *p, JinjaNode *node)
{
  for (;;) {
    if (jinja_at_operator (p, ".")) {
      node = parse_attribute (p, node);
    } else if (jinja_at_operator (p, "[")) {
      node = parse_item (p, node);
    } else if (jinja_at_operator (p, "(")) {
      node = binary (p, NODE_CALL, node, NULL);
      parse_arguments (p, node);
    } else {
      return node;
    }
  }
}

JinjaNode *jinja_parse_primary_postfix (JinjaParser *p)
{
  return parse_postfix (p, parse_primary (p));
}

static const char *dotted_name (JinjaParser *p, const char *what)
{
  const char *name = jinja_expect_name (p, what);
  while (jinja_skip_operator (p, ".")) {
    char joined[128];
    g_snprintf (joined, sizeof joined, "%s.%s", name, jinja_expect_name (p, what));
    name = jinja_copy (&p->work->heap, joined, strlen (joined));
  }
  return name;
}

static JinjaNode *parse_filter (JinjaParser *p, JinjaNode *subject)
{
  JinjaNode *node = binary (p, NODE_FILTER, subject, NULL);
  node->name = dotted_name (p, "a filter's name");
  node->builtin = jinja_find_filter (node->name);
  if (jinja_at_operator (p, "("))
    parse_arguments (p, node);
  return node;
}

static JinjaNode *parse_test (JinjaParser *p, JinjaNode *subject)
{
  JinjaNode *node = binary (p, NODE_TEST, subject, NULL), *negated = NULL;
  jinja_advance (p);
  if (jinja_at_name (p, "not")) {
    negated = jinja_node (p, NODE_NOT);
    jinja_advance (p);
    negated->a = node;
  }
  node->name = dotted_name (p, "a test's name");
  node->builtin = jinja_find_test (node->name);
  gboolean operand = p->token->type == TOKEN_STRING || p->token->type == TOKEN_INT || p->token->type == TOKEN_FLOAT ||
                     jinja_at_operator (p, "[") || jinja_at_operator (p, "{") ||
                     (p->token->type == TOKEN_NAME && !jinja_at_name (p, "else") && !jinja_at_name (p, "or") && !jinja_at_name (p, "and"));
  if (jinja_at_operator (p, "(")) {
    parse_arguments (p, node);
  } else if (operand) {
    if (jinja_at_name (p, "is"))
      jinja_fail (&p->work->heap, p->token->line, "tests cannot be chained with 'is'; write 'and' between them");
    jinja_nodes_add (p->work, &node->items, jinja_parse_primary_postfix (p));
  }
  return negated != NULL ? negated : node;
}

JinjaNode *jinja_parse_filters (JinjaParser *p, JinjaNode *subject)
{
  for (;;) {
    if (jinja_skip_operator (p, "|")) {
      subject = parse_filter (p, subject);
    } else if (jinja_at_name (p, "is")) {
      subject = parse_test (p, subject);
    } else if (jinja_at_operator (p, "(")) {
      subject = binary (p, NODE_CALL, subject, NULL);
      parse_arguments (p, subject);
    } else {
      return subject;
    }
  }
}

JinjaNode *jinja_parse_filter_chain (JinjaParser *p)
{
  JinjaNode *node = parse_filter (p, jinja_node (p, NODE_CAPTURED));
  while (jinja_skip_operator (p, "|"))
    node = parse_filter (p, node);
  return node;
}
