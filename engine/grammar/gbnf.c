/* gbnf.c: GBNF to a tree of rules, by recursive descent. */
#include "engine/grammar/grammar_private.h"

#include "engine/error.h"
#include "engine/tokenizer/charset.h"

#include <string.h>

enum { MAX_SOURCE = 1 << 20, MAX_DEPTH = 100, MAX_NODES = 1 << 17, MAX_RULES = 8192, MAX_REPEAT = 4096 };

typedef struct {
  const char *source, *p;
  EngGrammarTree tree;
  int depth;
  GError **error;
} Parser;

static int parse_choice (Parser *s, gboolean nested);

static int refuse (Parser *s, const char *format, ...) G_GNUC_PRINTF (2, 3);

static int refuse (Parser *s, const char *format, ...)
{
  guint line = 1;
  for (const char *q = s->source; q < s->p; q++)
    line += *q == '\n';
  va_list arguments;
  va_start (arguments, format);
  g_autofree char *what = g_strdup_vprintf (format, arguments);
  va_end (arguments);
  if (s->error != NULL && *s->error == NULL)
    g_set_error (s->error, ENG_ERROR, ENG_ERROR_FORMAT, "the grammar's line %u: %s", line, what);
  return ENG_NODE_NONE;
}

static int add (Parser *s, EngGrammarNode node)
{
  if (s->tree.nodes->len >= MAX_NODES)
    return refuse (s, "there is too much of it");
  g_array_append_val (s->tree.nodes, node);
  return (int) s->tree.nodes->len - 1;
}

static int join (Parser *s, EngNodeKind kind, int a, int b)
{
  return a == ENG_NODE_NONE || b == ENG_NODE_NONE ? ENG_NODE_NONE : add (s, (EngGrammarNode){ kind, a, b });
}

/* Takes the set. */
static int add_set (Parser *s, GArray *set)
{
  eng_charset_tidy (set);
  g_ptr_array_add (s->tree.sets, set);
  return add (s, (EngGrammarNode){ ENG_NODE_SET, (int) s->tree.sets->len - 1 });
}

/* ---- white space ---------------------------------------------------------------------------------------------------------- */

/* Spaces and comments; with lines, line ends too. */
static void skip_space (Parser *s, gboolean lines)
{
  for (;;) {
    if (*s->p == '#') {
      s->p += strcspn (s->p, "\r\n");
    } else if (*s->p == ' ' || *s->p == '\t' || (lines && (*s->p == '\n' || *s->p == '\r'))) {
      s->p++;
    } else {
      return;
    }
  }
}

static gboolean is_name (char c)
{
  return g_ascii_isalnum (c) || c == '-' || c == '_';
}

/* The number of the rule that p names; it may not be there yet. */
static int parse_name (Parser *s)
{
  const char *begin = s->p;
  while (is_name (*s->p))
    s->p++;
  if (s->p == begin)
    return refuse (s, "the name of a rule is expected");
  g_autofree char *name = g_strndup (begin, (gsize) (s->p - begin));
  guint number = GPOINTER_TO_UINT (g_hash_table_lookup (s->tree.numbers, name));
  if (number == 0 && s->tree.names->len == MAX_RULES)
    return refuse (s, "there are more than %d rules", MAX_RULES);
  if (number == 0) {
    int none = ENG_NODE_NONE;
    number = s->tree.names->len + 1;
    g_array_append_val (s->tree.bodies, none);
    g_hash_table_insert (s->tree.numbers, name, GUINT_TO_POINTER (number));
    g_ptr_array_add (s->tree.names, g_steal_pointer (&name));
  }
  return (int) number - 1;
}

/* ---- characters ----------------------------------------------------------------------------------------------------------- */

/* A character of a literal or class. FALSE: refused. */
static gboolean parse_character (Parser *s, guint32 *code)
{
  static const char letters[] = "nrt\\\"[]'-", meant[] = "\n\r\t\\\"[]'-";
  if (*s->p != '\\') {
    *code = g_utf8_get_char (s->p);
    s->p = g_utf8_next_char (s->p);
    return TRUE;
  }
  char c = s->p[1];
  guint digits = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
  if (digits == 0) {
    const char *at = c != '\0' ? strchr (letters, c) : NULL;
    if (at == NULL) {
      refuse (s, "the escape \\%c is not known", c);
      return FALSE;
    }
    *code = (guint8) meant[at - letters];
    s->p += 2;
    return TRUE;
  }
  s->p += 2;
  *code = 0;
  for (guint i = 0; i < digits; i++, s->p++) {
    int digit = g_ascii_xdigit_value (*s->p);
    if (digit < 0) {
      refuse (s, "an escape is not followed by %u hexadecimal digits", digits);
      return FALSE;
    }
    *code = *code << 4 | (guint32) digit;
  }
  if (*code > ENG_LAST_CODE || (*code & 0xFFFFF800u) == 0xD800) {
    refuse (s, "there is no character of that number");
    return FALSE;
  }
  return TRUE;
}

/* p is behind the opening quote. */
static int parse_literal (Parser *s)
{
  int node = add (s, (EngGrammarNode){ ENG_NODE_EMPTY });
  while (node != ENG_NODE_NONE && *s->p != '"') {
    guint32 c;
    if (*s->p == '\0' || *s->p == '\n')
      return refuse (s, "a literal has no end");
    if (!parse_character (s, &c))
      return ENG_NODE_NONE;
    GArray *set = eng_charset_new ();
    eng_charset_add (set, c, c);
    node = join (s, ENG_NODE_SEQUENCE, node, add_set (s, set));
  }
  s->p++;
  return node;
}

/* p is behind the opening bracket. */
static int parse_class (Parser *s)
{
  g_autoptr (GArray) set = eng_charset_new ();
  gboolean negative = *s->p == '^';
  s->p += negative;
  while (*s->p != ']') {
    guint32 first, last;
    if (*s->p == '\0' || *s->p == '\n')
      return refuse (s, "a class of characters has no end");
    if (!parse_character (s, &first))
      return ENG_NODE_NONE;
    last = first;
    if (*s->p == '-' && s->p[1] != ']') {
      s->p++;
      if (*s->p == '\0' || !parse_character (s, &last))
        return refuse (s, "a range of characters has no end");
    }
    if (last < first)
      return refuse (s, "a range of characters has no order");
    eng_charset_add (set, first, last);
  }
  s->p++;
  eng_charset_tidy (set);
  return add_set (s, negative ? eng_charset_complement (set) : g_array_ref (set));
}

/* ---- sequences and choices ------------------------------------------------------------------------------------------------ */

static int parse_group (Parser *s)
{
  s->p++;
  if (++s->depth > MAX_DEPTH)
    return refuse (s, "groups are nested too deeply");
  int node = parse_choice (s, TRUE);
  s->depth--;
  if (node == ENG_NODE_NONE)
    return node;
  if (*s->p != ')')
    return refuse (s, "a group is not closed");
  s->p++;
  return node;
}

static int parse_atom (Parser *s)
{
  switch (*s->p) {
  case '"':
    s->p++;
    return parse_literal (s);
  case '[':
    s->p++;
    return parse_class (s);
  case '(':
    return parse_group (s);
  case '.': {
    g_autoptr (GArray) none = eng_charset_new ();
    s->p++;
    return add_set (s, eng_charset_complement (none));
  }
  case '<':
  case '!':
    return refuse (s, "tokens cannot be asked for, only text");
  default: {
    int rule = parse_name (s);
    return rule == ENG_NODE_NONE ? rule : add (s, (EngGrammarNode){ ENG_NODE_RULE, rule });
  }
  }
}

static gboolean parse_number (Parser *s, int *value)
{
  if (!g_ascii_isdigit (*s->p)) {
    refuse (s, "the number of repetitions is expected");
    return FALSE;
  }
  for (*value = 0; g_ascii_isdigit (*s->p); s->p++)
    *value = MIN (*value * 10 + (*s->p - '0'), MAX_REPEAT + 1);
  return TRUE;
}

/* {m}, {m,}, {,n} or {m,n}; p is behind the brace. */
static gboolean parse_bounds (Parser *s, int *min, int *max)
{
  *min = 0;
  skip_space (s, FALSE);
  if (*s->p != ',' && !parse_number (s, min))
    return FALSE;
  *max = *min;
  skip_space (s, FALSE);
  if (*s->p == ',') {
    s->p++;
    skip_space (s, FALSE);
    *max = ENG_REPEAT_ENDLESS;
    if (*s->p != '}' && !parse_number (s, max))
      return FALSE;
    skip_space (s, FALSE);
  }
  if (*s->p != '}' || *min > MAX_REPEAT || *max > MAX_REPEAT || (*max != ENG_REPEAT_ENDLESS && *max < *min)) {
    refuse (s, "the bounds of a repetition are wrong, or larger than %d", MAX_REPEAT);
    return FALSE;
  }
  s->p++;
  return TRUE;
}

static int parse_repeated (Parser *s, gboolean nested)
{
  int node = parse_atom (s);
  for (guint n = 0; node != ENG_NODE_NONE; n++) {
    int min = 0, max = ENG_REPEAT_ENDLESS;
    skip_space (s, nested);
    if (*s->p == '{') {
      s->p++;
      if (!parse_bounds (s, &min, &max))
        return ENG_NODE_NONE;
    } else if (*s->p == '*' || *s->p == '+' || *s->p == '?') {
      min = *s->p == '+';
      max = *s->p == '?' ? 1 : ENG_REPEAT_ENDLESS;
      s->p++;
    } else {
      return node;
    }
    if (n > 8)
      return refuse (s, "too many repetitions follow one another");
    node = add (s, (EngGrammarNode){ ENG_NODE_REPEAT, node, ENG_NODE_NONE, min, max });
  }
  return node;
}

static gboolean at_end (const Parser *s, gboolean nested)
{
  return *s->p == '\0' || *s->p == '|' || *s->p == ')' || (!nested && (*s->p == '\n' || *s->p == '\r'));
}

static int parse_sequence (Parser *s, gboolean nested)
{
  int node = add (s, (EngGrammarNode){ ENG_NODE_EMPTY });
  skip_space (s, nested);
  while (node != ENG_NODE_NONE && !at_end (s, nested)) {
    node = join (s, ENG_NODE_SEQUENCE, node, parse_repeated (s, nested));
    skip_space (s, nested);
  }
  return node;
}

static int parse_choice (Parser *s, gboolean nested)
{
  int node = parse_sequence (s, nested);
  while (node != ENG_NODE_NONE && *s->p == '|') {
    s->p++;
    skip_space (s, TRUE);
    node = join (s, ENG_NODE_CHOICE, node, parse_sequence (s, nested));
  }
  return node;
}

static gboolean parse_rule (Parser *s)
{
  int rule = parse_name (s);
  if (rule == ENG_NODE_NONE)
    return FALSE;
  skip_space (s, FALSE);
  if (!g_str_has_prefix (s->p, "::=")) {
    refuse (s, "::= is expected behind the name of a rule");
    return FALSE;
  }
  s->p += 3;
  skip_space (s, TRUE);
  int body = parse_choice (s, FALSE);
  if (body == ENG_NODE_NONE)
    return FALSE;
  if (*s->p == ')') {
    refuse (s, "a group is closed that was not opened");
    return FALSE;
  }
  if (g_array_index (s->tree.bodies, int, rule) != ENG_NODE_NONE) {
    refuse (s, "the rule %s is there twice", (char *) g_ptr_array_index (s->tree.names, (guint) rule));
    return FALSE;
  }
  g_array_index (s->tree.bodies, int, rule) = body;
  return TRUE;
}

EngGrammar *eng_grammar_new (const char *gbnf, GError **error)
{
  if (strlen (gbnf) > MAX_SOURCE || !g_utf8_validate (gbnf, -1, NULL)) {
    g_set_error (error, ENG_ERROR, ENG_ERROR_FORMAT, strlen (gbnf) > MAX_SOURCE ? "the grammar is larger than 1 MB" : "the grammar is not UTF-8 text");
    return NULL;
  }
  GError *failure = NULL;
  EngGrammar *grammar = NULL;
  Parser s = { .source = gbnf, .p = gbnf, .error = &failure };
  s.tree = (EngGrammarTree){ g_array_new (FALSE, FALSE, sizeof (EngGrammarNode)), g_ptr_array_new_with_free_func ((GDestroyNotify) g_array_unref),
                             g_ptr_array_new_with_free_func (g_free), g_array_new (FALSE, FALSE, sizeof (int)), g_hash_table_new (g_str_hash, g_str_equal) };
  for (skip_space (&s, TRUE); failure == NULL && *s.p != '\0'; skip_space (&s, TRUE))
    parse_rule (&s);
  guint root = GPOINTER_TO_UINT (g_hash_table_lookup (s.tree.numbers, "root"));
  for (guint i = 0; failure == NULL && i < s.tree.bodies->len; i++)
    if (g_array_index (s.tree.bodies, int, i) == ENG_NODE_NONE)
      g_set_error (&failure, ENG_ERROR, ENG_ERROR_FORMAT, "the grammar names a rule '%s' that it lacks", (char *) g_ptr_array_index (s.tree.names, i));
  if (failure == NULL && root == 0)
    g_set_error_literal (&failure, ENG_ERROR, ENG_ERROR_FORMAT, "the grammar has no rule 'root', which is the whole answer");
  if (failure == NULL)
    grammar = eng_grammar_compile (&s.tree, root - 1, &failure);
  g_array_unref (s.tree.nodes);
  g_ptr_array_unref (s.tree.sets);
  g_hash_table_unref (s.tree.numbers);
  g_ptr_array_unref (s.tree.names);
  g_array_unref (s.tree.bodies);
  if (failure != NULL)
    g_propagate_error (error, failure);
  return grammar;
}
