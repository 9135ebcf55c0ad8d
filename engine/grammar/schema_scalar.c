/* schema_scalar.c: strings with a length, a pattern or a format, and numbers with bounds, as GBNF. */
#include "engine/grammar/schema_private.h"

#include "engine/tokenizer/pattern_private.h"

#include <math.h>
#include <string.h>

enum { MAX_LENGTH = 4096, MAX_DIGITS = 18, MAX_PATTERN_CODE = 2000 };

/* ---- strings -------------------------------------------------------------------------------------------------------------- */

/* Dates that exist in every year. */
#define DATE                                                                                                                                  \
  "([0-9]{3} [1-9] | [0-9]{2} [1-9] \"0\" | [0-9] [1-9] \"00\" | [1-9] \"000\") \"-\" ((\"0\" [13578] | \"1\" [02]) \"-\" (\"0\" [1-9] | [12] [0-9] | \"3\" [01])" \
  " | (\"0\" [469] | \"11\") \"-\" (\"0\" [1-9] | [12] [0-9] | \"30\") | \"02-\" (\"0\" [1-9] | \"1\" [0-9] | \"2\" [0-8]))"
#define TIME "([01] [0-9] | \"2\" [0-3]) \":\" [0-5] [0-9] \":\" [0-5] [0-9] (\".\" [0-9]{1,6})? (\"Z\" | [-+] ([01] [0-9] | \"2\" [0-3]) \":\" [0-5] [0-9])"

static const struct { const char *name, *expression; } formats[] = {
  { "date", DATE }, { "time", TIME }, { "date-time", DATE " \"T\" " TIME }, { "uuid", "hex{8} \"-\" hex{4} \"-\" hex{4} \"-\" hex{4} \"-\" hex{12}" } };

/* A character of a set, as it stands in a JSON string; "" when there is none. */
static char *set_expression (const GArray *set)
{
  static const struct { guint32 code; const char *escape; } escapes[] = { { '"', "\\\"" }, { '\\', "\\\\" }, { '\b', "\\b" }, { '\f', "\\f" }, { '\n', "\\n" }, { '\r', "\\r" }, { '\t', "\\t" } };
  g_autoptr (GString) plain = g_string_new (NULL), choice = g_string_new (NULL);
  for (guint i = 0; i < set->len; i++) {
    const EngRange *range = &g_array_index (set, EngRange, i);
    static const EngRange allowed[] = { { 0x20, '"' - 1 }, { '"' + 1, '\\' - 1 }, { '\\' + 1, 0x7E }, { 0x80, 0xD7FF }, { 0xE000, ENG_LAST_CODE } };
    for (gsize k = 0; k < G_N_ELEMENTS (allowed); k++) {
      guint32 first = MAX (range->first, allowed[k].first), last = MIN (range->last, allowed[k].last);
      if (first <= last)
        g_string_append_printf (plain, "\\U%08X-\\U%08X", first, last);
    }
  }
  if (plain->len > 0)
    g_string_append_printf (choice, "[%s]", plain->str);
  for (gsize k = 0; k < G_N_ELEMENTS (escapes); k++)
    if (eng_charset_has (set, escapes[k].code)) {
      g_autofree char *literal = eng_gbnf_literal (escapes[k].escape);
      g_string_append_printf (choice, "%s%s", choice->len > 0 ? " | " : "", literal);
    }
  return g_strdup (choice->str);
}

/* The pattern without the marks for its two ends. FALSE: they stand where they do not mean the whole. */
static gboolean take_ends (const char *pattern, char **inner, gboolean *from_begin, gboolean *to_end)
{
  gsize n = strlen (pattern), backslashes = 0;
  *from_begin = *pattern == '^';
  while (n > 1 + backslashes && pattern[n - 2 - backslashes] == '\\')
    backslashes++;
  *to_end = n > (gsize) *from_begin && pattern[n - 1] == '$' && backslashes % 2 == 0;
  *inner = g_strndup (pattern + *from_begin, n - (gsize) *from_begin - (gsize) *to_end);
  int depth = 0;
  gboolean in_class = FALSE, divided = FALSE;
  for (const char *p = *inner; *p != '\0'; p++) {
    if (*p == '\\' && p[1] != '\0') {
      p++;
    } else if (in_class) {
      in_class = *p != ']';
    } else {
      in_class = *p == '[';
      depth += (*p == '(') - (*p == ')');
      divided |= *p == '|' && depth == 0;
    }
  }
  return !divided || (!*from_begin && !*to_end);
}

/* A rule for each instruction: what may follow once a text has come there. */
static char *pattern_expression (EngSchema *s, const char *pattern, const char *path)
{
  g_autofree char *inner = NULL;
  gboolean from_begin, to_end;
  EngProgram program;
  g_autoptr (GError) failure = NULL;
  if (!take_ends (pattern, &inner, &from_begin, &to_end))
    return eng_schema_refuse (s, path, "the pattern %s has alternatives of which not all reach to both ends: put them in parentheses", pattern);
  if (!eng_program_compile (&program, inner, TRUE, &failure))
    return eng_schema_refuse (s, path, "%s", failure->message);
  guint first = s->n_rules, n = program.code->len;
  gboolean ok = n <= MAX_PATTERN_CODE;
  s->n_rules += ok ? n : 0;
  for (guint i = 0; i < n && ok; i++) {
    const EngInstruction *instruction = &g_array_index (program.code, EngInstruction, i);
    g_autofree char *set = NULL;
    g_string_append_printf (s->rules, "r%u ::= ", first + i);
    switch (instruction->op) {
    case ENG_OP_SET:
      set = set_expression (g_ptr_array_index (program.sets, instruction->a));
      ok = *set != '\0';
      g_string_append_printf (s->rules, "(%s) r%u\n", ok ? set : "\"\"", first + i + 1);
      break;
    case ENG_OP_SPLIT:
      g_string_append_printf (s->rules, "r%u | r%u\n", first + instruction->a, first + instruction->b);
      break;
    case ENG_OP_JUMP:
      g_string_append_printf (s->rules, "r%u\n", first + instruction->a);
      break;
    case ENG_OP_MATCH:
      g_string_append_printf (s->rules, "%s\n", to_end ? "\"\"" : "char*");
      break;
    default:
      ok = FALSE;
      g_string_append (s->rules, "\"\"\n");
      break;
    }
  }
  eng_program_clear (&program);
  if (!ok)
    return eng_schema_refuse (s, path, "the pattern %s is too large, looks ahead, or asks for what a string cannot hold", pattern);
  return g_strdup_printf ("\"\\\"\" %s r%u \"\\\"\"", from_begin ? "" : "char*", first);
}

static const char *text_member (JsonObject *schema, const char *name)
{
  JsonNode *node = json_object_get_member (schema, name);
  return node != NULL && JSON_NODE_HOLDS_VALUE (node) && json_node_get_value_type (node) == G_TYPE_STRING ? json_node_get_string (node) : NULL;
}

char *eng_schema_string (EngSchema *s, JsonObject *schema, const char *path)
{
  const char *pattern = text_member (schema, "pattern"), *format = text_member (schema, "format"), *expression = NULL;
  JsonNode *shortest = json_object_get_member (schema, "minLength"), *longest = json_object_get_member (schema, "maxLength");
  gint64 bounds[] = { 0, -1 };
  JsonNode *nodes[] = { shortest, longest };
  for (gsize i = 0; format != NULL && i < G_N_ELEMENTS (formats); i++)
    if (g_str_equal (formats[i].name, format))
      expression = formats[i].expression;
  for (guint i = 0; i < G_N_ELEMENTS (nodes); i++) {
    if (nodes[i] == NULL)
      continue;
    bounds[i] = JSON_NODE_HOLDS_VALUE (nodes[i]) && json_node_get_value_type (nodes[i]) == G_TYPE_INT64 ? json_node_get_int (nodes[i]) : -1;
    if (bounds[i] < 0 || (i == 0 && bounds[i] > MAX_LENGTH))
      return eng_schema_refuse (s, path, "a length is no number from 0 to %d", MAX_LENGTH);
  }
  if ((pattern != NULL) + (expression != NULL) + (shortest != NULL || longest != NULL) > 1)
    return eng_schema_refuse (s, path, "only one of pattern, format and length can be obeyed at once");
  if (pattern != NULL)
    return pattern_expression (s, pattern, path);
  if (expression != NULL)
    return g_strdup_printf ("\"\\\"\" %s \"\\\"\"", expression);
  if (shortest == NULL && longest == NULL)
    return g_strdup ("string");
  if (bounds[1] >= 0 && bounds[1] < bounds[0])
    return eng_schema_refuse (s, path, "no length is allowed");
  if (bounds[1] > MAX_LENGTH) /* shorter ones are allowed as well */
    bounds[1] = MAX_LENGTH;
  return bounds[1] < 0 ? g_strdup_printf ("\"\\\"\" char{%d,} \"\\\"\"", (int) bounds[0])
                       : g_strdup_printf ("\"\\\"\" char{%d,%d} \"\\\"\"", (int) bounds[0], (int) bounds[1]);
}

/* ---- numbers -------------------------------------------------------------------------------------------------------------- */

/* Numerals of the same length from low to high. */
static void digits_range (GString *out, const char *low, const char *high)
{
  gsize common = 0, n = strlen (low);
  while (common < n && low[common] == high[common])
    common++;
  if (common > 0)
    g_string_append_printf (out, "\"%.*s\" ", (int) common, low);
  low += common;
  high += common;
  n -= common;
  if (n == 0)
    return;
  if (n == 1) {
    g_string_append_printf (out, "[%c-%c]", *low, *high);
    return;
  }
  gboolean from_zeros = strspn (low + 1, "0") == n - 1, to_nines = strspn (high + 1, "9") == n - 1;
  char first = (char) (*low + !from_zeros), last = (char) (*high - !to_nines);
  g_string_append (out, "(");
  if (!from_zeros) { /* from low to the end of its first digit */
    g_autofree char *nines = g_strnfill (n - 1, '9');
    g_string_append_printf (out, "\"%c\" ", *low);
    digits_range (out, low + 1, nines);
  }
  if (first <= last)
    g_string_append_printf (out, "%s[%c-%c] [0-9]{%d}", from_zeros ? "" : " | ", first, last, (int) n - 1);
  if (!to_nines) {
    g_autofree char *zeros = g_strnfill (n - 1, '0');
    g_string_append_printf (out, "%s\"%c\" ", from_zeros && first > last ? "" : " | ", *high);
    digits_range (out, zeros, high + 1);
  }
  g_string_append (out, ")");
}

/* Numerals of the integers from low to high, 0 <= low <= high < 10^18. */
static char *integers_range (gint64 low, gint64 high)
{
  g_autoptr (GString) out = g_string_new ("(");
  while (low <= high) { /* length by length */
    g_autofree char *first = g_strdup_printf ("%" G_GINT64_FORMAT, low);
    gint64 longest = 9;
    for (gsize i = 1; i < strlen (first); i++)
      longest = longest * 10 + 9;
    gint64 last = MIN (longest, high);
    g_autofree char *end = g_strdup_printf ("%" G_GINT64_FORMAT, last);
    if (out->len > 1)
      g_string_append (out, " | ");
    digits_range (out, first, end);
    low = last + 1;
  }
  g_string_append_c (out, ')');
  return g_string_free (g_steal_pointer (&out), FALSE);
}

/* Numerals, without a sign, of what is from low to high: integers, or with a fraction; open ends leave out low or high themselves. */
static char *magnitudes (gint64 low, gint64 high, gboolean integer, gboolean open_low, gboolean open_high)
{
  if (integer)
    return integers_range (low, high);
  g_autoptr (GString) out = g_string_new (NULL);
  if (!open_high) {
    g_autofree char *whole = g_strdup_printf ("\"%" G_GINT64_FORMAT "\" (\".\" \"0\"{1,15})?", high);
    g_string_append (out, whole);
  }
  if (low < high && open_low)
    g_string_append_printf (out, "%s\"%" G_GINT64_FORMAT "\" \".\" \"0\"{0,8} [1-9] [0-9]{0,6}", out->len > 0 ? " | " : "", low);
  if (low + open_low < high) {
    g_autofree char *wholes = integers_range (low + open_low, high - 1);
    g_string_append_printf (out, "%s%s fraction?", out->len > 0 ? " | " : "", wholes);
  }
  return g_strdup_printf ("(%s)", out->str);
}

/* A bound as a whole number, rounded inwards; FALSE: it is none that can be obeyed. */
static gboolean read_bound (JsonObject *schema, const char *name, gboolean integer, gboolean upper, gboolean exclusive, gboolean *has, gint64 *bound, gboolean *open)
{
  JsonNode *node = json_object_get_member (schema, name);
  if (node == NULL)
    return TRUE;
  double value = JSON_NODE_HOLDS_VALUE (node) && (json_node_get_value_type (node) == G_TYPE_INT64 || json_node_get_value_type (node) == G_TYPE_DOUBLE) ? json_node_get_double (node) : NAN;
  double whole = upper ? floor (value) : ceil (value);
  if (!(fabs (value) < 9e17) || (whole != value && !integer))
    return FALSE;
  gint64 found = json_node_get_value_type (node) == G_TYPE_INT64 ? json_node_get_int (node) : (gint64) whole;
  gboolean excluded = exclusive && whole == value;
  if (integer && excluded)
    found += upper ? -1 : 1;
  if (!*has || (upper ? found < *bound : found > *bound)) {
    *bound = found;
    *open = excluded && !integer;
  } else if (found == *bound) {
    *open |= excluded && !integer;
  }
  *has = TRUE;
  return TRUE;
}

char *eng_schema_number (EngSchema *s, JsonObject *schema, gboolean integer, const char *path)
{
  gint64 most = 1, low = 0, high = 0;
  for (guint i = 0; i < (integer ? 15 : 14); i++)
    most *= 10;
  gboolean has_low = FALSE, has_high = FALSE, open_low = FALSE, open_high = FALSE;
  JsonNode *multiple = json_object_get_member (schema, "multipleOf");
  if (multiple != NULL && !(integer && JSON_NODE_HOLDS_VALUE (multiple) && json_node_get_double (multiple) == 1))
    return eng_schema_refuse (s, path, "multipleOf cannot be obeyed while text is written");
  if (!read_bound (schema, "minimum", integer, FALSE, FALSE, &has_low, &low, &open_low) || !read_bound (schema, "maximum", integer, TRUE, FALSE, &has_high, &high, &open_high) ||
      !read_bound (schema, "exclusiveMinimum", integer, FALSE, TRUE, &has_low, &low, &open_low) ||
      !read_bound (schema, "exclusiveMaximum", integer, TRUE, TRUE, &has_high, &high, &open_high))
    return eng_schema_refuse (s, path, "a bound is not a whole number of at most 17 digits");
  if (!has_low && !has_high)
    return g_strdup (integer ? "integer" : "number");
  low = has_low ? low : MIN (-most, high - most);
  high = has_high ? high : MAX (most, low + most);
  if (low > high || (low == high && (open_low || open_high)))
    return eng_schema_refuse (s, path, "no number is allowed");
  gint64 nearest = high < 0 ? -high : integer ? 1 : 0; /* to zero, of what is below it */
  g_autofree char *positive = high > 0 || (high == 0 && !open_high) ? magnitudes (MAX (low, 0), high, integer, open_low && low >= 0, open_high) : NULL;
  g_autofree char *negative = low < 0 ? magnitudes (nearest, -low, integer, high < 0 ? open_high : !integer, open_low) : NULL;
  if (positive != NULL && negative != NULL)
    return g_strdup_printf ("%s | \"-\" %s", positive, negative);
  return positive != NULL ? g_steal_pointer (&positive) : g_strdup_printf ("\"-\" %s", negative);
}
