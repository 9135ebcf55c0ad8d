/* format.c: '%s' % x, and the plain forms of '{}'.format(x). What is filled in keeps its origin. */
#include "engine/jinja/run.h"

#include <math.h>
#include <string.h>

typedef struct {
  gboolean left, zeros, plus;
  gint64 width, precision; /* precision -1: none */
} Spec;

static void pad (JinjaBuilder *out, const JinjaString *text, const Spec *spec, gboolean number)
{
  gint64 missing = spec->width - (gint64) jinja_string_chars ((JinjaString *) text);
  gboolean zeros = spec->zeros && number && !spec->left;
  gboolean sign = zeros && text->length > 0 && (text->text[0] == '-' || text->text[0] == '+');
  if (sign)
    jinja_builder_add (out, text->text, 1, FALSE);
  for (gint64 i = 0; i < missing && !spec->left; i++)
    jinja_builder_add_text (out, zeros ? "0" : " ");
  jinja_builder_add_string (out, jinja_string_slice (out->work, text, sign, text->length).string);
  for (gint64 i = 0; i < missing && spec->left; i++)
    jinja_builder_add_text (out, " ");
}

static void convert_number (JinjaRun *run, JinjaBuilder *out, char conversion, const Spec *spec, JinjaValue value)
{
  char text[400], format[16];
  if (!jinja_is_number (value))
    jinja_error (&run->work, "%%%c format: a real number is required, not %s", conversion, jinja_type_name (value));
  if (strchr ("di", conversion) != NULL && value.type == JINJA_FLOAT) {
    if (!(fabs (value.real) < 9e18))
      jinja_error (&run->work, "cannot convert this float to an integer");
    value = jinja_int ((gint64) value.real);
  }
  gint64 integer = value.type == JINJA_INT ? value.integer : value.type == JINJA_BOOL ? value.boolean : 0;
  if (strchr ("di", conversion) != NULL) {
    g_snprintf (text, sizeof text, spec->plus ? "%+" G_GINT64_FORMAT : "%" G_GINT64_FORMAT, integer);
  } else if (strchr ("xXo", conversion) != NULL) {
    if (value.type == JINJA_FLOAT || integer < 0)
      jinja_error (&run->work, "%%%c format: a non-negative integer is required", conversion);
    g_snprintf (text, sizeof text, conversion == 'x' ? "%" G_GINT64_MODIFIER "x" : conversion == 'X' ? "%" G_GINT64_MODIFIER "X" : "%" G_GINT64_MODIFIER "o",
                (guint64) integer);
  } else {
    g_snprintf (format, sizeof format, "%%%s.%d%c", spec->plus ? "+" : "", (int) (spec->precision < 0 ? 6 : MIN (spec->precision, 50)), conversion);
    g_ascii_formatd (text, sizeof text, format, jinja_to_double (value));
  }
  pad (out, jinja_string (&run->work, text, strlen (text), FALSE).string, spec, TRUE);
}

static gint64 read_number (const char **p, const char *end)
{
  gint64 value = 0;
  for (; *p < end && g_ascii_isdigit (**p); (*p)++)
    value = MIN (value * 10 + (**p - '0'), 100000);
  return value;
}

static void convert (JinjaRun *run, JinjaBuilder *out, char conversion, const Spec *spec, JinjaValue value)
{
  if (conversion == 's' || conversion == 'r') {
    JinjaBuilder text;
    jinja_builder_init (&run->work, &text);
    if (conversion == 's')
      jinja_print (&text, value);
    else
      jinja_print_repr (&text, value);
    JinjaString *string = jinja_builder_finish (&text).string;
    if (spec->precision >= 0 && spec->precision < (gint64) jinja_string_chars (string))
      string = jinja_string_slice (&run->work, string, 0, jinja_string_offset (&run->work, string, (gsize) spec->precision)).string;
    pad (out, string, spec, FALSE);
  } else if (conversion != '\0' && strchr ("dixXofFeEgG", conversion) != NULL) {
    convert_number (run, out, conversion, spec, value);
  } else {
    jinja_error (&run->work, "unsupported format character '%c'", g_ascii_isprint (conversion) ? conversion : '?');
  }
}

JinjaValue jinja_percent_format (JinjaRun *run, JinjaString *format, JinjaValue arguments)
{
  JinjaWork *work = &run->work;
  gboolean tuple = arguments.type == JINJA_LIST && arguments.list->kind == JINJA_KIND_TUPLE, by_name = FALSE;
  gsize n = tuple ? arguments.list->n : 1, used = 0;
  JinjaBuilder out;
  jinja_builder_init (work, &out);
  for (const char *p = format->text, *end = p + format->length; p < end;) {
    const char *percent = memchr (p, '%', (gsize) (end - p));
    const char *stop = percent != NULL ? percent : end;
    jinja_builder_add_string (&out, jinja_string_slice (work, format, (gsize) (p - format->text), (gsize) (stop - format->text)).string);
    if (percent == NULL)
      break;
    p = percent + 1;
    JinjaValue value = { 0 };
    Spec spec = { .precision = -1 };
    gboolean named = p < end && *p == '(';
    if (named) {
      const char *close = memchr (p, ')', (gsize) (end - p));
      if (close == NULL || arguments.type != JINJA_DICT)
        jinja_error (work, close == NULL ? "incomplete format key" : "format requires a mapping");
      JinjaValue key = jinja_string_slice (work, format, (gsize) (p + 1 - format->text), (gsize) (close - format->text));
      const JinjaValue *found = jinja_dict_find (work, arguments.dict, key);
      if (found == NULL)
        jinja_error (work, "the format names a key that is not there");
      value = *found;
      by_name = TRUE;
      p = close + 1;
    }
    for (; p < end && strchr ("-0+ #", *p) != NULL; p++) {
      spec.left = spec.left || *p == '-';
      spec.zeros = spec.zeros || *p == '0';
      spec.plus = spec.plus || *p == '+';
    }
    spec.width = read_number (&p, end);
    if (p < end && *p == '.') {
      p++;
      spec.precision = read_number (&p, end);
    }
    if (p >= end)
      jinja_error (work, "incomplete format");
    if (*p == '%') {
      jinja_builder_add_text (&out, "%");
    } else {
      if (!named && used >= n)
        jinja_error (work, "not enough arguments for format string");
      if (!named)
        value = tuple ? arguments.list->items[used++] : (used++, arguments);
      convert (run, &out, *p, &spec, value);
    }
    p++;
  }
  /* Python lets whatever has items go unused, but for tuples and text. */
  gboolean has_items = arguments.type == JINJA_DICT || arguments.type == JINJA_LIST || arguments.type == JINJA_UNDEFINED;
  if (!by_name && used < n && (tuple || !has_items))
    jinja_error (work, "not all arguments converted during string formatting");
  return jinja_builder_finish (&out);
}

/* One {field}: the next argument, or one by number or name. */
static JinjaValue find_field (JinjaRun *run, const char *field, const JinjaCall *call, gsize *next)
{
  gsize n = strcspn (field, ".[");
  char *first = jinja_copy (&run->work.heap, field, n);
  JinjaValue value = { 0 };
  guint64 index = n == 0 ? (*next)++ : 0;
  if (n == 0 || g_ascii_string_to_unsigned (first, 10, 0, G_MAXINT32, &index, NULL)) {
    if (index >= call->n)
      jinja_error (&run->work, "replacement index %" G_GUINT64_FORMAT " out of range for positional args", index);
    value = call->args[index];
  } else {
    for (gsize i = 0; i < call->n_named; i++)
      if (jinja_string_is (call->named[i].key.string, first))
        value = call->named[i].value;
    if (jinja_is_absent (value))
      jinja_error (&run->work, "the format names '%.100s', which was not given", first);
  }
  if (field[n] != '\0')
    jinja_error (&run->work, "only plain fields are supported in a format, found {%.100s}", field);
  return value;
}

JinjaValue jinja_brace_format (JinjaRun *run, JinjaString *format, const JinjaCall *call)
{
  JinjaWork *work = &run->work;
  gsize next = 0;
  JinjaBuilder out;
  jinja_builder_init (work, &out);
  for (gsize at = 0; at < format->length;) {
    const char *p = format->text + at;
    gsize n = 0, left = format->length - at;
    jinja_spend (work, 1);
    while (n < left && p[n] != '{' && p[n] != '}')
      n++;
    jinja_builder_add_string (&out, jinja_string_slice (work, format, at, at + n).string);
    at += n;
    if (n == left)
      break;
    if (n + 1 < left && p[n + 1] == p[n]) { /* {{ and }} */
      jinja_builder_add_string (&out, jinja_string_slice (work, format, at, at + 1).string);
      at += 2;
      continue;
    }
    const char *close = p[n] == '{' ? memchr (p + n, '}', left - n) : NULL;
    if (close == NULL)
      jinja_error (work, "single '%c' encountered in format string", p[n]);
    char *field = jinja_copy (&work->heap, p + n + 1, (gsize) (close - p) - n - 1);
    if (strpbrk (field, ":!{") != NULL)
      jinja_error (work, "only plain fields are supported in a format, found {%.100s}", field);
    jinja_print (&out, find_field (run, field, call, &next));
    at = (gsize) (close + 1 - format->text);
  }
  return jinja_builder_finish (&out);
}
