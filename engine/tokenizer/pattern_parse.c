/* pattern_parse.c: a regular expression, as tokenizer.json writes it, to a program. Recursive descent over a tree that is kept as
 * numbered nodes; nesting, repetition and size are bounded, since a pattern comes from a file. */
#include "engine/tokenizer/pattern_private.h"

#include "engine/error.h"

#include <string.h>

enum { MAX_DEPTH = 64, MAX_REPEAT = 1024, MAX_CODE = 1 << 14, MAX_NODES = 1 << 12, MAX_EMITTED = 1 << 16, NONE = -1, ENDLESS = -1 };

typedef enum { NODE_EMPTY, NODE_SET, NODE_LOOK, NODE_CAT, NODE_ALT, NODE_REPEAT } NodeKind;

typedef struct {
  NodeKind kind;
  int a, b;          /* children; SET, LOOK: a is the set */
  int min, max;      /* REPEAT; max ENDLESS: without bound */
  gboolean lazy;
  gboolean takes_end; /* LOOK */
} Node;

typedef struct {
  const char *regex, *p;
  GArray *nodes;
  GPtrArray *sets;
  gboolean any_case, ascii;
  int depth;
  guint emitted; /* nodes made into code, those within repetitions again each time */
  GError **error;
} Parser;

static int parse_alternatives (Parser *s);
static GArray *parse_class (Parser *s);

/* ---- helpers -------------------------------------------------------------------------------------------------------------- */

static int refuse (Parser *s, const char *what)
{
  if (s->error != NULL && *s->error == NULL)
    g_set_error (s->error, ENG_ERROR, ENG_ERROR_UNSUPPORTED, "the pattern \"%s\" cannot be used: %s at character %ld", s->regex, what,
                 g_utf8_pointer_to_offset (s->regex, s->p) + 1);
  return NONE;
}

static int add_node (Parser *s, Node node)
{
  if (s->nodes->len >= MAX_NODES)
    return refuse (s, "it is too long");
  g_array_append_val (s->nodes, node);
  return (int) s->nodes->len - 1;
}

static Node *node_at (Parser *s, int i)
{
  return &g_array_index (s->nodes, Node, i);
}

/* Takes the set. */
static int add_set (Parser *s, GArray *set)
{
  g_ptr_array_add (s->sets, set);
  return add_node (s, (Node){ NODE_SET, (int) s->sets->len - 1 });
}

static int add_look (Parser *s, GArray *set, gboolean takes_end)
{
  g_ptr_array_add (s->sets, set);
  return add_node (s, (Node){ NODE_LOOK, (int) s->sets->len - 1, .takes_end = takes_end });
}

static int join (Parser *s, NodeKind kind, int a, int b)
{
  return a == NONE || b == NONE ? NONE : add_node (s, (Node){ kind, a, b });
}

static GArray *set_of (Parser *s, int node)
{
  return g_ptr_array_index (s->sets, node_at (s, node)->a);
}

static gboolean take (Parser *s, const char *text)
{
  gboolean here = g_str_has_prefix (s->p, text);
  s->p += here ? strlen (text) : 0;
  return here;
}

/* The character with its other cases, where case does not count: long s and Kelvin's sign too. */
static void add_character (Parser *s, GArray *set, guint32 c)
{
  eng_charset_add (set, c, c);
  if (!s->any_case)
    return;
  guint32 lower = g_unichar_tolower (c), upper = g_unichar_toupper (c);
  eng_charset_add (set, lower, lower);
  eng_charset_add (set, upper, upper);
  if (lower == 's')
    eng_charset_add (set, 0x17F, 0x17F);
  if (lower == 'k')
    eng_charset_add (set, 0x212A, 0x212A);
}

/* ---- escapes -------------------------------------------------------------------------------------------------------------- */

/* Hexadecimal digits at p: exactly n of them, or between braces. */
static gboolean parse_hex (Parser *s, guint n, guint32 *code)
{
  gboolean braced = take (s, "{");
  guint digits = 0;
  *code = 0;
  for (; digits < (braced ? 8 : n) && g_ascii_isxdigit (*s->p); digits++)
    *code = *code << 4 | (guint32) g_ascii_xdigit_value (*s->p++);
  if (digits == 0 || (!braced && digits != n) || (braced && !take (s, "}")) || *code > ENG_LAST_CODE) {
    refuse (s, "a character's number is wrong");
    return FALSE;
  }
  return TRUE;
}

/* p is behind \p or \P. */
static GArray *parse_property (Parser *s, gboolean negative)
{
  const char *name = s->p + 1, *end = *s->p == '{' ? strchr (name, '}') : NULL;
  if (end == NULL) {
    refuse (s, "a property is not in braces");
    return NULL;
  }
  s->p = end + 1;
  if (name < end && *name == '^') {
    negative = !negative;
    name++;
  }
  GArray *set = eng_charset_property (name, (gsize) (end - name));
  if (set == NULL) {
    refuse (s, "a property is not known");
    return NULL;
  }
  if (!negative)
    return set;
  GArray *others = eng_charset_complement (set);
  g_array_unref (set);
  return others;
}

/* A set that an escape stands for (\s, \p{L}, ...), or NULL with *code a character; p is behind the backslash. FALSE: refused. */
static gboolean parse_escape (Parser *s, GArray **set, guint32 *code)
{
  static const char letters[] = "ntrfvae0", meant[] = "\n\t\r\f\v\a\033";
  char c = *s->p;
  *set = NULL;
  if (c == '\0') {
    refuse (s, "a backslash stands at its end");
    return FALSE;
  }
  if ((guint8) c >= 0x80 || !g_ascii_isalnum (c)) {
    *code = g_utf8_get_char (s->p);
    s->p = g_utf8_next_char (s->p);
    return TRUE;
  }
  s->p++;
  switch (c) {
  case 'p':
  case 'P':
    *set = parse_property (s, c == 'P');
    return *set != NULL;
  case 's':
  case 'S':
    *set = eng_charset_space ();
    break;
  case 'd':
  case 'D':
    *set = s->ascii ? eng_charset_of_ascii ("09") : eng_charset_property ("Nd", 2);
    break;
  case 'w':
  case 'W':
    *set = s->ascii ? eng_charset_of_ascii ("09AZ__az") : eng_charset_word ();
    break;
  case 'x':
    return parse_hex (s, 2, code);
  case 'u':
    return parse_hex (s, 4, code);
  default: {
    const char *at = strchr (letters, c);
    if (at == NULL) {
      s->p--;
      refuse (s, "an escape is not known");
      return FALSE;
    }
    *code = (guint8) meant[at - letters];
    return TRUE;
  }
  }
  if (g_ascii_isupper (c)) {
    GArray *others = eng_charset_complement (*set);
    g_array_unref (*set);
    *set = others;
  }
  return TRUE;
}

/* ---- [...] ---------------------------------------------------------------------------------------------------------------- */

/* One character, range, escape or class inside brackets. */
static gboolean parse_class_item (Parser *s, GArray *into)
{
  GArray *set = NULL;
  guint32 first = 0, last;
  if (*s->p == '[' && s->p[1] != ':') {
    set = parse_class (s);
    if (set == NULL)
      return FALSE;
  } else if (*s->p == '[') {
    refuse (s, "a class in brackets and colons is not known");
    return FALSE;
  } else if (*s->p == '\\') {
    s->p++;
    if (!parse_escape (s, &set, &first))
      return FALSE;
  } else {
    first = g_utf8_get_char (s->p);
    s->p = g_utf8_next_char (s->p);
  }
  if (set != NULL) {
    eng_charset_add_set (into, set);
    g_array_unref (set);
    return TRUE;
  }
  if (*s->p != '-' || s->p[1] == ']' || s->p[1] == '\0') {
    add_character (s, into, first);
    return TRUE;
  }
  s->p++;
  if (*s->p == '\\') {
    s->p++;
    if (!parse_escape (s, &set, &last))
      return FALSE;
  } else {
    last = g_utf8_get_char (s->p);
    s->p = g_utf8_next_char (s->p);
  }
  if (set != NULL || last < first) {
    g_clear_pointer (&set, g_array_unref);
    refuse (s, "a range of characters has no order");
    return FALSE;
  }
  if (s->any_case && last - first < 0x400)
    for (guint32 c = first; c <= last; c++)
      add_character (s, into, c);
  eng_charset_add (into, first, last);
  return TRUE;
}

/* p is at the opening bracket. NULL: refused. */
static GArray *parse_class (Parser *s)
{
  if (++s->depth > MAX_DEPTH) {
    refuse (s, "it is nested too deeply");
    return NULL;
  }
  s->p++;
  gboolean negative = take (s, "^");
  GArray *set = eng_charset_new (), *both = NULL;
  gboolean ok = TRUE;
  for (gboolean first = TRUE; ok && (*s->p != ']' || first); first = FALSE) {
    if (*s->p == '\0') {
      refuse (s, "a bracket is not closed");
      ok = FALSE;
    } else if (take (s, "&&")) { /* of what stood before, only what stands behind as well */
      eng_charset_tidy (set);
      GArray *so_far = both == NULL ? g_array_ref (set) : eng_charset_intersection (both, set);
      g_clear_pointer (&both, g_array_unref);
      both = so_far;
      g_array_unref (set);
      set = eng_charset_new ();
    } else {
      ok = parse_class_item (s, set);
    }
  }
  s->depth--;
  eng_charset_tidy (set);
  if (ok && both != NULL) {
    GArray *common = eng_charset_intersection (both, set);
    g_array_unref (set);
    set = common;
  }
  g_clear_pointer (&both, g_array_unref);
  if (ok && negative) {
    GArray *others = eng_charset_complement (set);
    g_array_unref (set);
    set = others;
  }
  if (ok)
    s->p++;
  else
    g_clear_pointer (&set, g_array_unref);
  return set;
}

/* ---- groups and repetition ------------------------------------------------------------------------------------------------ */

/* What a look-ahead looks at, as one set, and whether the end of the text will do. NULL: it is more than one character. */
static GArray *single_character (Parser *s, int node, gboolean *takes_end)
{
  const Node *n = node_at (s, node);
  if (n->kind == NODE_SET || n->kind == NODE_LOOK) {
    *takes_end |= n->kind == NODE_LOOK && n->takes_end;
    return g_array_ref (set_of (s, node));
  }
  if (n->kind != NODE_ALT)
    return NULL;
  int right = n->b;
  GArray *a = single_character (s, n->a, takes_end), *b = a != NULL ? single_character (s, right, takes_end) : NULL;
  if (b == NULL) {
    g_clear_pointer (&a, g_array_unref);
    return NULL;
  }
  GArray *both = eng_charset_new ();
  eng_charset_add_set (both, a);
  eng_charset_add_set (both, b);
  eng_charset_tidy (both);
  g_array_unref (a);
  g_array_unref (b);
  return both;
}

/* p is behind "(?=" or "(?!". */
static int parse_look (Parser *s, gboolean negative)
{
  gboolean takes_end = FALSE;
  int body = parse_alternatives (s);
  if (body == NONE)
    return NONE;
  GArray *set = single_character (s, body, &takes_end);
  if (set == NULL)
    return refuse (s, "it looks ahead by more than one character");
  if (!negative)
    return add_look (s, set, takes_end);
  GArray *others = eng_charset_complement (set);
  g_array_unref (set);
  return add_look (s, others, !takes_end);
}

/* p is behind "(". */
static int parse_group (Parser *s)
{
  gboolean any_case = s->any_case;
  int node;
  if (++s->depth > MAX_DEPTH)
    return refuse (s, "it is nested too deeply");
  if (take (s, "?=")) {
    node = parse_look (s, FALSE);
  } else if (take (s, "?!")) {
    node = parse_look (s, TRUE);
  } else if (take (s, "?:") || *s->p != '?') {
    node = parse_alternatives (s);
  } else if (take (s, "?i:")) {
    s->any_case = TRUE;
    node = parse_alternatives (s);
  } else if (take (s, "?i)")) { /* to the end of the group around it */
    s->any_case = TRUE;
    s->depth--;
    return add_node (s, (Node){ NODE_EMPTY });
  } else {
    node = refuse (s, "a group of this kind is not known");
  }
  s->depth--;
  s->any_case = any_case;
  if (node != NONE && !take (s, ")"))
    return refuse (s, "a parenthesis is not closed");
  return node;
}

static int parse_atom (Parser *s)
{
  GArray *set = NULL;
  guint32 c;
  if (take (s, "("))
    return parse_group (s);
  if (*s->p == '[')
    return (set = parse_class (s)) != NULL ? add_set (s, set) : NONE;
  if (take (s, ".")) {
    g_autoptr (GArray) line_break = eng_charset_new ();
    eng_charset_add (line_break, '\n', '\n');
    return add_set (s, eng_charset_complement (line_break));
  }
  if (take (s, "$")) {
    set = eng_charset_new ();
    eng_charset_add (set, '\n', '\n');
    return add_look (s, set, TRUE);
  }
  if (take (s, "\\z"))
    return add_look (s, eng_charset_new (), TRUE);
  if (strchr ("*+?^{", *s->p) != NULL && !(*s->p == '{' && !g_ascii_isdigit (s->p[1])))
    return refuse (s, *s->p == '^' ? "it asks for the beginning of a line" : "a repetition has nothing to repeat");
  if (*s->p == '\\') {
    s->p++;
    if (!parse_escape (s, &set, &c))
      return NONE;
    if (set != NULL)
      return add_set (s, set);
  } else {
    c = g_utf8_get_char (s->p);
    s->p = g_utf8_next_char (s->p);
  }
  set = eng_charset_new ();
  add_character (s, set, c);
  eng_charset_tidy (set);
  return add_set (s, set);
}

/* {n}, {n,}, {,m} or {n,m}. FALSE: it is none, and stands for itself. */
static gboolean parse_bounds (Parser *s, int *min, int *max)
{
  char *end;
  if (*s->p != '{')
    return FALSE;
  const char *p = s->p + 1;
  gboolean has_min = g_ascii_isdigit (*p);
  if (!has_min && !(*p == ',' && g_ascii_isdigit (p[1])))
    return FALSE;
  guint64 low = has_min ? g_ascii_strtoull (p, &end, 10) : 0, high = low;
  p = has_min ? end : p;
  if (*p == ',') {
    p++;
    high = G_MAXUINT64;
    if (g_ascii_isdigit (*p)) {
      high = g_ascii_strtoull (p, &end, 10);
      p = end;
    }
  }
  if (*p != '}')
    return FALSE;
  s->p = p + 1;
  *min = (int) MIN (low, MAX_REPEAT + 1);
  *max = high == G_MAXUINT64 ? ENDLESS : (int) MIN (high, MAX_REPEAT + 1);
  return TRUE;
}

/* One class repeated without giving any back: it may only end where no further one follows. */
static int possessive (Parser *s, int atom, int min, int max)
{
  if (node_at (s, atom)->kind != NODE_SET)
    return refuse (s, "a possessive repetition is of more than one class");
  GArray *others = eng_charset_complement (set_of (s, atom));
  int look = add_look (s, others, TRUE);
  if (max == ENDLESS)
    return join (s, NODE_CAT, add_node (s, (Node){ NODE_REPEAT, atom, .min = min, .max = max }), look);
  return join (s, NODE_ALT, atom, look); /* X?+ */
}

static int parse_repeated (Parser *s)
{
  int node = parse_atom (s);
  while (node != NONE) {
    int min = 0, max = ENDLESS;
    gboolean counted = FALSE;
    if (take (s, "*"))
      ;
    else if (take (s, "+"))
      min = 1;
    else if (take (s, "?"))
      max = 1;
    else if (!(counted = parse_bounds (s, &min, &max)))
      return node;
    if (min > MAX_REPEAT || max > MAX_REPEAT || (max != ENDLESS && max < min))
      return refuse (s, "a repetition's bounds are too large or in no order");
    if (!counted && take (s, "+"))
      node = possessive (s, node, min, max);
    else
      node = add_node (s, (Node){ NODE_REPEAT, node, .min = min, .max = max, .lazy = take (s, "?") });
  }
  return NONE;
}

static int parse_sequence (Parser *s)
{
  int node = NONE;
  while (*s->p != '\0' && *s->p != '|' && *s->p != ')') {
    int next = parse_repeated (s);
    if (next == NONE)
      return NONE;
    node = node == NONE ? next : join (s, NODE_CAT, node, next);
    if (node == NONE)
      return NONE;
  }
  return node == NONE ? add_node (s, (Node){ NODE_EMPTY }) : node;
}

static int parse_alternatives (Parser *s)
{
  int node = parse_sequence (s);
  while (node != NONE && take (s, "|"))
    node = join (s, NODE_ALT, node, parse_sequence (s));
  return node;
}

/* ---- to code -------------------------------------------------------------------------------------------------------------- */

static guint32 emit (EngProgram *program, EngOp op, guint32 a, guint32 b)
{
  EngInstruction instruction = { op, a, b };
  g_array_append_val (program->code, instruction);
  return program->code->len - 1;
}

static EngInstruction *at (EngProgram *program, guint32 i)
{
  return &g_array_index (program->code, EngInstruction, i);
}

/* The way that is preferred goes on right behind the split, the other one where the code now ends. */
static void end_split (EngProgram *program, guint32 split, gboolean lazy)
{
  guint32 here = program->code->len;
  at (program, split)->a = lazy ? here : split + 1;
  at (program, split)->b = lazy ? split + 1 : here;
}

/* FALSE: too much code. The tree is as deep as a sequence is long, so sequences go down on their left in a loop. */
static gboolean emit_node (EngProgram *program, Parser *s, int i)
{
  const Node *node = node_at (s, i);
  guint32 split, jump;
  if (program->code->len > MAX_CODE || ++s->emitted > MAX_EMITTED)
    return FALSE;
  switch (node->kind) {
  case NODE_SET:
    emit (program, ENG_OP_SET, (guint32) node->a, 0);
    return TRUE;
  case NODE_LOOK:
    emit (program, ENG_OP_LOOK, (guint32) node->a, (guint32) node->takes_end);
    return TRUE;
  case NODE_CAT: {
    g_autoptr (GArray) rights = g_array_new (FALSE, FALSE, sizeof (int));
    for (; node_at (s, i)->kind == NODE_CAT; i = node_at (s, i)->a)
      g_array_append_val (rights, node_at (s, i)->b);
    gboolean ok = emit_node (program, s, i);
    for (guint k = rights->len; ok && k > 0; k--)
      ok = emit_node (program, s, g_array_index (rights, int, k - 1));
    return ok;
  }
  case NODE_ALT: {
    g_autoptr (GArray) ways = g_array_new (FALSE, FALSE, sizeof (int)), jumps = g_array_new (FALSE, FALSE, sizeof (guint32));
    for (; node_at (s, i)->kind == NODE_ALT; i = node_at (s, i)->a)
      g_array_append_val (ways, node_at (s, i)->b);
    g_array_append_val (ways, i);
    gboolean ok = TRUE;
    for (guint k = ways->len; ok && k > 0; k--) { /* the first is innermost */
      split = k > 1 ? emit (program, ENG_OP_SPLIT, 0, 0) : 0;
      ok = emit_node (program, s, g_array_index (ways, int, k - 1));
      if (k == 1)
        break;
      jump = emit (program, ENG_OP_JUMP, 0, 0);
      g_array_append_val (jumps, jump);
      end_split (program, split, FALSE);
    }
    for (guint k = 0; k < jumps->len; k++)
      at (program, g_array_index (jumps, guint32, k))->a = program->code->len;
    return ok;
  }
  case NODE_REPEAT:
    for (int k = 0; k < node->min; k++)
      if (!emit_node (program, s, node->a))
        return FALSE;
    if (node->max == ENDLESS) {
      split = emit (program, ENG_OP_SPLIT, 0, 0);
      if (!emit_node (program, s, node->a))
        return FALSE;
      emit (program, ENG_OP_JUMP, split, 0);
      end_split (program, split, node->lazy);
      return TRUE;
    }
    for (int k = node->min; k < node->max; k++) { /* (X(X(X)?)?)? as X? X? X?: once one is missing the next ones are too */
      split = emit (program, ENG_OP_SPLIT, 0, 0);
      if (!emit_node (program, s, node->a))
        return FALSE;
      end_split (program, split, node->lazy);
    }
    return TRUE;
  default:
    return TRUE;
  }
}

gboolean eng_program_compile (EngProgram *program, const char *regex, gboolean ascii, GError **error)
{
  GError *failure = NULL;
  *program = (EngProgram){ g_array_new (FALSE, FALSE, sizeof (EngInstruction)), g_ptr_array_new_with_free_func ((GDestroyNotify) g_array_unref) };
  Parser s = { .regex = regex, .p = regex, .nodes = g_array_new (FALSE, FALSE, sizeof (Node)), .sets = program->sets, .ascii = ascii, .error = &failure };
  int root = parse_alternatives (&s);
  if (root != NONE && *s.p != '\0')
    refuse (&s, "a parenthesis was not opened");
  if (failure == NULL && !emit_node (program, &s, root))
    refuse (&s, "it is too large");
  emit (program, ENG_OP_MATCH, 0, 0);
  g_array_unref (s.nodes);
  if (failure == NULL)
    return TRUE;
  g_propagate_error (error, failure);
  eng_program_clear (program);
  return FALSE;
}

void eng_program_clear (EngProgram *program)
{
  g_clear_pointer (&program->code, g_array_unref);
  g_clear_pointer (&program->sets, g_ptr_array_unref);
}
