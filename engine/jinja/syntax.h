/* syntax.h: tokens and the tree of a template. A tree never changes once parsed: any thread may walk it. */
#ifndef ENG_JINJA_SYNTAX_H
#define ENG_JINJA_SYNTAX_H

#include "engine/jinja/value.h"

typedef enum {
  TOKEN_END, TOKEN_DATA, TOKEN_VARIABLE_BEGIN, TOKEN_VARIABLE_END, TOKEN_BLOCK_BEGIN, TOKEN_BLOCK_END, TOKEN_NAME, TOKEN_STRING,
  TOKEN_INT, TOKEN_FLOAT, TOKEN_OPERATOR
} JinjaTokenType;

typedef struct {
  JinjaTokenType type;
  guint line;
  const char *text;   /* NAME: NUL-terminated; OPERATOR: "==" and so on; else for messages */
  JinjaValue value;   /* DATA, STRING, INT, FLOAT */
} JinjaToken;

/* The whole source to tokens, ended by TOKEN_END. White space control is done here. */
JinjaToken *jinja_lex (JinjaWork *work, const char *source, gsize *n_tokens);

typedef enum {
  /* expressions */
  NODE_CONST, NODE_NAME, NODE_LIST, NODE_TUPLE, NODE_DICT, NODE_ATTRIBUTE, NODE_ITEM, NODE_SLICE, NODE_CALL, NODE_FILTER, NODE_TEST,
  NODE_NOT, NODE_NEGATIVE, NODE_POSITIVE, NODE_BINARY, NODE_CONCAT, NODE_COMPARE, NODE_AND, NODE_OR, NODE_CONDITIONAL, NODE_CAPTURED,
  /* statements */
  NODE_TEXT, NODE_OUTPUT, NODE_FOR, NODE_IF, NODE_SET, NODE_SET_BLOCK, NODE_MACRO, NODE_CALL_BLOCK, NODE_FILTER_BLOCK, NODE_WITH,
  NODE_SCOPE, NODE_BREAK, NODE_CONTINUE
} JinjaNodeType;

typedef struct JinjaNode JinjaNode;

typedef struct {
  JinjaNode **items;
  gsize n, capacity;
} JinjaNodes;

struct JinjaNode {
  JinjaNodeType type;
  guint line;
  const char *name;   /* NAME, ATTRIBUTE, FILTER, TEST, MACRO; BINARY and COMPARE: the operator; a keyword argument's */
  JinjaValue value;   /* CONST, TEXT */
  JinjaNode *a, *b, *c; /* operands, in the order they are written */
  JinjaNodes items;   /* elements; positional arguments; parameters; DICT: key, value, key, ... ; COMPARE: further operands, named */
  JinjaNodes named;   /* keyword arguments (the value's node, with `name`); defaults of parameters, NULL where none */
  JinjaNodes body, otherwise;
  JinjaNode *star, *star_star; /* *args, **kwargs */
  gboolean recursive; /* FOR */
  guint uses;         /* MACRO, CALL_BLOCK: which of the special names its body mentions */
  const struct JinjaBuiltin *builtin; /* FILTER, TEST: NULL for one that is not known, an error only when it is reached */
};

enum { JINJA_USES_VARARGS = 1, JINJA_USES_KWARGS = 2, JINJA_USES_CALLER = 4 };

void jinja_nodes_add (JinjaWork *work, JinjaNodes *nodes, JinjaNode *node);

typedef struct {
  JinjaWork *work;
  const JinjaToken *token; /* the current one */
  guint uses;              /* special names seen in the macro being read */
  guint loops;             /* loops one stands in */
} JinjaParser;

/* parser_statement.c */
void jinja_parse (JinjaWork *work, const char *source, JinjaNodes *body);

/* parser_expression.c */
JinjaNode *jinja_node (JinjaParser *p, JinjaNodeType type);
JinjaNode *jinja_parse_expression (JinjaParser *p);
JinjaNode *jinja_parse_without_condition (JinjaParser *p); /* an expression that leaves "if" alone */
JinjaNode *jinja_parse_tuple (JinjaParser *p, gboolean with_condition); /* "a, b" is a tuple, "a" is a */
JinjaNode *jinja_parse_primary_postfix (JinjaParser *p);
JinjaNode *jinja_parse_filters (JinjaParser *p, JinjaNode *subject); /* from "|" or, at the first, from a name on */
JinjaNode *jinja_parse_filter_chain (JinjaParser *p);
void jinja_advance (JinjaParser *p);
gboolean jinja_at_operator (const JinjaParser *p, const char *operator);
gboolean jinja_at_name (const JinjaParser *p, const char *name);
gboolean jinja_skip_operator (JinjaParser *p, const char *operator);
gboolean jinja_skip_name (JinjaParser *p, const char *name);
void jinja_expect_operator (JinjaParser *p, const char *operator);
const char *jinja_expect_name (JinjaParser *p, const char *what);
void jinja_expected (JinjaParser *p, const char *what) G_GNUC_NORETURN;

#endif
