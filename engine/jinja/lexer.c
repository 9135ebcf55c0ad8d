/* lexer.c: source to tokens, with trim_blocks and lstrip_blocks on, as chat templates are written for.
 * Reference: the Jinja documentation, "Whitespace Control" and "Literals". */
#include "engine/jinja/syntax.h"

#include <stdlib.h>
#include <string.h>

typedef struct {
  JinjaWork *work;
  const char *at, *end;
  guint line;
  JinjaToken *tokens;
  gsize n, capacity;
  gboolean line_start; /* what was read last ended a line */
  char open[JINJA_MAX_DEPTH]; /* the closing brackets that are due */
  guint n_open;
} Lexer;

static const char *const operators[] = { "//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[", "]", "(", ")",
                                         "{", "}", ">", "<", "=", ".", ":", "|", ",", ";" };

static JinjaToken *add (Lexer *l, JinjaTokenType type, const char *text)
{
  jinja_spend (l->work, 1);
  l->tokens = jinja_grow (&l->work->heap, l->tokens, sizeof *l->tokens, l->n, &l->capacity);
  JinjaToken *token = &l->tokens[l->n++];
  *token = (JinjaToken){ .type = type, .line = l->line, .text = text };
  return token;
}

/* A constant is shared by every rendering: nothing may grow it, and its length is known beforehand. */
static JinjaValue freeze (JinjaValue value)
{
  value.string->bytes->capacity = 0;
  jinja_string_chars (value.string);
  return value;
}

static gboolean space_at (const char *p)
{
  gunichar c = g_utf8_get_char (p);
  return (c >= 9 && c <= 13) || (c >= 0x1C && c <= 0x20) || c == 0x85 || (c > 0x7F && g_unichar_isspace (c));
}

static const char *skip_space (const char *p, const char *end)
{
  while (p < end && space_at (p))
    p = g_utf8_next_char (p);
  return p;
}

static const char *strip_end (const char *begin, const char *end)
{
  while (end > begin) {
    const char *before = g_utf8_prev_char (end);
    if (!space_at (before))
      break;
    end = before;
  }
  return end;
}

static void move_to (Lexer *l, const char *to)
{
  for (; l->at < to; l->at++)
    l->line += *l->at == '\n';
}

static gboolean looking_at (const Lexer *l, const char *text)
{
  gsize n = strlen (text);
  return (gsize) (l->end - l->at) >= n && memcmp (l->at, text, n) == 0;
}

/* Where the text before a tag ends: "-" eats all white space, lstrip_blocks what stands alone before the tag on its line. */
static const char *data_end (const Lexer *l, const char *begin, const char *tag, char sign, gboolean block)
{
  if (sign == '-')
    return strip_end (begin, tag);
  if (!block || sign == '+')
    return tag;
  const char *line = tag;
  while (line > begin && line[-1] != '\n')
    line--;
  if ((line == begin && !l->line_start) || skip_space (line, tag) != tag)
    return tag;
  return line;
}

static void add_data (Lexer *l, const char *begin, const char *end)
{
  if (end > begin)
    add (l, TOKEN_DATA, "text")->value = freeze (jinja_string (l->work, begin, (gsize) (end - begin), FALSE));
}

/* At the sign before a closing delimiter: over it, the delimiter and the white space it eats. FALSE: no such end here. */
static gboolean skip_close (Lexer *l, const char *close, gboolean trims)
{
  const char *p = l->at;
  gboolean strip = *p == '-' && (gsize) (l->end - p) > 2 && memcmp (p + 1, close, 2) == 0;
  gboolean keep = trims && *p == '+' && (gsize) (l->end - p) > 2 && memcmp (p + 1, close, 2) == 0;
  if (!strip && !keep && !looking_at (l, close))
    return FALSE;
  p += strip || keep ? 3 : 2;
  if (strip)
    p = skip_space (p, l->end);
  else if (trims && !keep && p < l->end && *p == '\n')
    p++;
  move_to (l, p);
  l->line_start = p[-1] == '\n';
  return TRUE;
}

static void lex_comment (Lexer *l)
{
  guint line = l->line;
  const char *close = l->at;
  while ((close = memmem (close, (gsize) (l->end - close), "#}", 2)) == NULL)
    jinja_fail (&l->work->heap, line, "expected '#}' to end this comment");
  if (close > l->at && (close[-1] == '-' || close[-1] == '+'))
    close--;
  move_to (l, close);
  skip_close (l, "#}", TRUE);
}

/* After "{% raw": everything up to {% endraw %} is text. FALSE when the tag is no raw after all. */
static gboolean lex_raw (Lexer *l, const char *after_sign)
{
  const char *p = skip_space (after_sign, l->end);
  if (l->end - p < 3 || memcmp (p, "raw", 3) != 0)
    return FALSE;
  p = skip_space (p + 3, l->end);
  if ((l->end - p < 2 || memcmp (p, "%}", 2) != 0) && (l->end - p < 3 || memcmp (p, "-%}", 3) != 0))
    return FALSE;
  const char *begin = *p == '-' ? skip_space (p + 3, l->end) : p + 2;
  guint line = l->line;
  move_to (l, begin);
  l->line_start = begin[-1] == '\n';
  for (const char *tag = begin; (tag = memmem (tag, (gsize) (l->end - tag), "{%", 2)) != NULL; tag += 2) {
    jinja_spend (l->work, 1);
    char sign = tag + 2 < l->end ? tag[2] : '\0';
    const char *q = skip_space (tag + 2 + (sign == '-' || sign == '+'), l->end);
    if (l->end - q < 6 || memcmp (q, "endraw", 6) != 0)
      continue;
    q = skip_space (q + 6, l->end);
    Lexer close = *l;
    close.at = q;
    if (!skip_close (&close, "%}", TRUE))
      continue;
    add_data (l, begin, data_end (l, begin, tag, sign, TRUE));
    move_to (l, close.at);
    l->line_start = close.line_start;
    return TRUE;
  }
  jinja_fail (&l->work->heap, line, "expected {%% endraw %%} after this {%% raw %%}");
}

static guint hex_digits (Lexer *l, const char *p, guint n)
{
  guint value = 0;
  for (guint i = 0; i < n; i++) {
    int digit = p + i < l->end ? g_ascii_xdigit_value (p[i]) : -1;
    if (digit < 0)
      jinja_fail (&l->work->heap, l->line, "expected %u hexadecimal digits in this string's escape", n);
    value = value * 16 + (guint) digit;
  }
  return value;
}

static void add_code (Lexer *l, JinjaBuilder *builder, guint code)
{
  char utf8[6];
  if (code > 0x10FFFF || (code & 0xFFFFF800u) == 0xD800)
    jinja_fail (&l->work->heap, l->line, "U+%04X in this string is no character", code);
  jinja_builder_add (builder, utf8, (gsize) g_unichar_to_utf8 (code, utf8), FALSE);
}

/* One escape, at the character after the backslash; returns its length. Python's, an unknown one stands for itself. */
static gsize lex_escape (Lexer *l, JinjaBuilder *builder, const char *p)
{
  static const char letters[] = "\\'\"abfnrtv", meanings[] = "\\'\"\a\b\f\n\r\t\v";
  const char *letter = *p != '\0' ? strchr (letters, *p) : NULL;
  if (letter != NULL) {
    jinja_builder_add (builder, &meanings[letter - letters], 1, FALSE);
    return 1;
  }
  if (*p == '\n')
    return 1;
  if (*p == 'x' || *p == 'u' || *p == 'U') {
    guint n = *p == 'x' ? 2 : *p == 'u' ? 4 : 8;
    add_code (l, builder, hex_digits (l, p + 1, n));
    return 1 + n;
  }
  if (*p >= '0' && *p <= '7') {
    guint value = 0, n = 0;
    for (; n < 3 && p + n < l->end && p[n] >= '0' && p[n] <= '7'; n++)
      value = value * 8 + (guint) (p[n] - '0');
    add_code (l, builder, value);
    return n;
  }
  if (*p == 'N')
    jinja_fail (&l->work->heap, l->line, "the escape \\N{...} is not supported; write the character itself");
  jinja_builder_add_text (builder, "\\");
  return 0;
}

static void lex_string (Lexer *l)
{
  JinjaBuilder builder;
  jinja_builder_init (l->work, &builder);
  JinjaToken *token = add (l, TOKEN_STRING, "a string");
  char quote = *l->at;
  const char *p = l->at + 1;
  while (p < l->end && *p != quote) {
    const char *plain = p;
    while (p < l->end && *p != quote && *p != '\\')
      p++;
    jinja_builder_add (&builder, plain, (gsize) (p - plain), FALSE);
    if (p < l->end && *p == '\\') {
      if (++p == l->end)
        break;
      p += lex_escape (l, &builder, p);
    }
  }
  if (p >= l->end)
    jinja_fail (&l->work->heap, token->line, "expected %c to end this string", quote);
  token->value = freeze (jinja_builder_finish (&builder));
  move_to (l, p + 1);
}

static void lex_number (Lexer *l)
{
  char digits[64];
  gsize n = 0;
  gboolean after_point = l->n > 0 && l->tokens[l->n - 1].type == TOKEN_OPERATOR && l->tokens[l->n - 1].text[0] == '.'; /* a.0.1 */
  const char *p = l->at;
  int base = 10;
  gboolean real = FALSE;
  if (*p == '0' && p + 2 < l->end && strchr ("xXoObB", p[1]) != NULL) {
    base = g_ascii_tolower (p[1]) == 'x' ? 16 : g_ascii_tolower (p[1]) == 'o' ? 8 : 2;
    p += 2;
  }
  for (; p < l->end && n < sizeof digits - 1; p++) {
    gboolean exponent = base == 10 && (*p == 'e' || *p == 'E') && p + 1 < l->end &&
                        (g_ascii_isdigit (p[1]) || (strchr ("+-", p[1]) != NULL && p + 2 < l->end && g_ascii_isdigit (p[2])));
    gboolean point = base == 10 && *p == '.' && !real && !after_point && p + 1 < l->end && g_ascii_isdigit (p[1]);
    gboolean sign = (*p == '+' || *p == '-') && n > 0 && (digits[n - 1] == 'e' || digits[n - 1] == 'E') && base == 10;
    if (exponent || point)
      real = TRUE;
    else if (!sign && !(*p == '_' && n > 0) && !(base == 16 ? g_ascii_isxdigit (*p) : g_ascii_isdigit (*p)))
      break;
    if (*p != '_')
      digits[n++] = *p;
  }
  digits[n] = '\0';
  guint64 value = 0;
  if (n == 0 || n == sizeof digits - 1 || (!real && !g_ascii_string_to_unsigned (digits, (guint) base, 0, G_MAXINT64, &value, NULL)))
    jinja_fail (&l->work->heap, l->line, "this number cannot be read or is too large");
  JinjaToken *token = add (l, real ? TOKEN_FLOAT : TOKEN_INT, "a number");
  token->value = real ? jinja_float (g_ascii_strtod (digits, NULL)) : jinja_int ((gint64) value);
  move_to (l, p);
}

static gboolean name_char (const char *p, gboolean first)
{
  gunichar c = g_utf8_get_char (p);
  return c == '_' || (c < 0x80 ? g_ascii_isalpha ((char) c) || (!first && g_ascii_isdigit ((char) c)) : g_unichar_isalnum (c));
}

static void lex_name (Lexer *l)
{
  const char *p = l->at;
  while (p < l->end && name_char (p, FALSE))
    p = g_utf8_next_char (p);
  add (l, TOKEN_NAME, jinja_copy (&l->work->heap, l->at, (gsize) (p - l->at)));
  move_to (l, p);
}

static void lex_operator (Lexer *l)
{
  for (gsize i = 0; i < G_N_ELEMENTS (operators); i++) {
    if (!looking_at (l, operators[i]))
      continue;
    char c = *l->at;
    if (strchr ("([{", c) != NULL) {
      if (l->n_open == G_N_ELEMENTS (l->open))
        jinja_fail (&l->work->heap, l->line, "nested deeper than %d", JINJA_MAX_DEPTH);
      l->open[l->n_open++] = c == '(' ? ')' : c == '[' ? ']' : '}';
    } else if (strchr (")]}", c) != NULL) {
      if (l->n_open == 0)
        jinja_fail (&l->work->heap, l->line, "unexpected '%c'", c);
      if (l->open[--l->n_open] != c)
        jinja_fail (&l->work->heap, l->line, "expected '%c', found '%c'", l->open[l->n_open], c);
    }
    add (l, TOKEN_OPERATOR, operators[i]);
    move_to (l, l->at + strlen (operators[i]));
    return;
  }
  gunichar c = g_utf8_get_char (l->at);
  char utf8[7] = "";
  utf8[g_unichar_to_utf8 (c, utf8)] = '\0';
  jinja_fail (&l->work->heap, l->line, "unexpected character '%s'", utf8);
}

/* Inside {{ }} or {% %}. */
static void lex_code (Lexer *l, gboolean block)
{
  const char *close = block ? "%}" : "}}";
  guint line = l->line;
  for (;;) {
    move_to (l, skip_space (l->at, l->end));
    if (l->at >= l->end)
      jinja_fail (&l->work->heap, line, "expected '%s' to end what begins here", close);
    guint close_line = l->line;
    if (l->n_open == 0 && skip_close (l, close, block)) {
      add (l, block ? TOKEN_BLOCK_END : TOKEN_VARIABLE_END, close)->line = close_line;
      return;
    }
    if (*l->at == '\'' || *l->at == '"')
      lex_string (l);
    else if (g_ascii_isdigit (*l->at))
      lex_number (l);
    else if (name_char (l->at, TRUE))
      lex_name (l);
    else
      lex_operator (l);
  }
}

/* The next "{{", "{%" or "{#". */
static const char *find_tag (const char *p, const char *end)
{
  while ((p = memchr (p, '{', (gsize) (end - p))) != NULL && p + 1 < end) {
    if (p[1] == '{' || p[1] == '%' || p[1] == '#')
      return p;
    p++;
  }
  return NULL;
}

/* Line ends of every system become \n, and the last one goes, as Jinja reads a source. */
static const char *normalize (JinjaWork *work, const char *source, gsize *length)
{
  gsize n = strlen (source), used = 0;
  char *text = jinja_alloc (&work->heap, n + 1);
  for (gsize i = 0; i < n; i++) {
    if (source[i] == '\r' && source[i + 1] == '\n')
      continue;
    text[used++] = source[i] == '\r' ? '\n' : source[i];
  }
  *length = used > 0 && text[used - 1] == '\n' ? used - 1 : used;
  return text;
}

JinjaToken *jinja_lex (JinjaWork *work, const char *source, gsize *n_tokens)
{
  Lexer l = { .work = work, .line = 1, .line_start = TRUE };
  gsize length;
  l.at = normalize (work, source, &length);
  l.end = l.at + length;
  while (l.at < l.end) {
    const char *begin = l.at, *tag = find_tag (begin, l.end);
    if (tag == NULL) {
      add_data (&l, begin, l.end);
      move_to (&l, l.end);
      break;
    }
    char sign = tag + 2 < l.end && (tag[2] == '-' || tag[2] == '+') ? tag[2] : '\0';
    if (sign == '+' && tag[1] == '{')
      sign = '\0'; /* {{+ is a plus sign */
    add_data (&l, begin, data_end (&l, begin, tag, sign, tag[1] != '{'));
    move_to (&l, tag);
    const char *inside = tag + (sign != '\0' ? 3 : 2);
    if (tag[1] == '#') {
      move_to (&l, tag + 2);
      lex_comment (&l);
    } else if (tag[1] != '%' || !lex_raw (&l, inside)) {
      add (&l, tag[1] == '%' ? TOKEN_BLOCK_BEGIN : TOKEN_VARIABLE_BEGIN, tag[1] == '%' ? "{%" : "{{");
      move_to (&l, inside);
      lex_code (&l, tag[1] == '%');
    }
  }
  add (&l, TOKEN_END, "the end of the template");
  *n_tokens = l.n;
  return l.tokens;
}
