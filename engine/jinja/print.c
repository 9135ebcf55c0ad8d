/* print.c: values as Python's str() and repr() write them. */
#include "engine/jinja/value.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

void jinja_format_float (double real, char *buffer, gsize size)
{
  if (isnan (real) || isinf (real)) {
    g_strlcpy (buffer, isnan (real) ? "nan" : real > 0 ? "inf" : "-inf", size);
    return;
  }
  char digits[40], *exponent_at;
  for (int precision = 0; precision < 17; precision++) { /* the fewest digits that read back as the same number */
    char format[8];
    g_snprintf (format, sizeof format, "%%.%de", precision);
    g_ascii_formatd (digits, sizeof digits, format, real);
    if (g_ascii_strtod (digits, NULL) == real)
      break;
  }
  exponent_at = strchr (digits, 'e');
  int exponent = atoi (exponent_at + 1), n_digits = (int) (exponent_at - digits) - (digits[0] == '-');
  n_digits = n_digits > 1 ? n_digits - 1 : 1; /* without the point */
  if (exponent < -4 || exponent >= 16) {
    *exponent_at = '\0';
    g_snprintf (buffer, size, "%se%c%02d", digits, exponent < 0 ? '-' : '+', abs (exponent));
    return;
  }
  char format[8];
  g_snprintf (format, sizeof format, "%%.%df", MAX (n_digits - 1 - exponent, 1));
  g_ascii_formatd (buffer, (int) size, format, real);
}

static void print_string_repr (JinjaBuilder *builder, const JinjaString *string)
{
  gboolean has_single = memchr (string->text, '\'', string->length) != NULL;
  char quote = has_single && memchr (string->text, '"', string->length) == NULL ? '"' : '\'';
  jinja_builder_add (builder, &quote, 1, FALSE);
  JinjaCursor c;
  for (jinja_cursor_init (&c, string); jinja_cursor_next (&c);) {
    char escaped[16] = "";
    if (c.code == (gunichar) quote || c.code == '\\')
      g_snprintf (escaped, sizeof escaped, "\\%c", (char) c.code);
    else if (c.code == '\n' || c.code == '\r' || c.code == '\t')
      g_strlcpy (escaped, c.code == '\n' ? "\\n" : c.code == '\r' ? "\\r" : "\\t", sizeof escaped);
    else if (c.code != ' ' && !g_unichar_isgraph (c.code))
      g_snprintf (escaped, sizeof escaped, c.code < 0x100 ? "\\x%02x" : c.code < 0x10000 ? "\\u%04x" : "\\U%08x", c.code);
    if (escaped[0] != '\0')
      jinja_builder_add (builder, escaped, strlen (escaped), c.from_context);
    else
      jinja_builder_add (builder, c.text, c.length, c.from_context);
  }
  jinja_builder_add (builder, &quote, 1, FALSE);
}

static void print_list (JinjaBuilder *builder, const JinjaList *list)
{
  if (list->kind == JINJA_KIND_RANGE) {
    char text[96];
    g_snprintf (text, sizeof text, list->step == 1 ? "range(%" G_GINT64_FORMAT ", %" G_GINT64_FORMAT ")"
                                                   : "range(%" G_GINT64_FORMAT ", %" G_GINT64_FORMAT ", %" G_GINT64_FORMAT ")",
                list->begin, list->end, list->step);
    jinja_builder_add_text (builder, text);
    return;
  }
  if (list->kind == JINJA_KIND_VIEW) {
    jinja_builder_add_text (builder, list->view_name);
    jinja_builder_add_text (builder, "(");
  }
  gboolean tuple = list->kind == JINJA_KIND_TUPLE;
  jinja_builder_add_text (builder, tuple ? "(" : "[");
  for (gsize i = 0; i < list->n; i++) {
    if (i > 0)
      jinja_builder_add_text (builder, ", ");
    jinja_print_repr (builder, list->items[i]);
  }
  jinja_builder_add_text (builder, tuple ? (list->n == 1 ? ",)" : ")") : list->kind == JINJA_KIND_VIEW ? "])" : "]");
}

static void print_dict (JinjaBuilder *builder, const JinjaDict *dict)
{
  jinja_builder_add_text (builder, "{");
  for (gsize i = 0; i < dict->n; i++) {
    if (i > 0)
      jinja_builder_add_text (builder, ", ");
    jinja_print_repr (builder, dict->pairs[i].key);
    jinja_builder_add_text (builder, ": ");
    jinja_print_repr (builder, dict->pairs[i].value);
  }
  jinja_builder_add_text (builder, "}");
}

void jinja_print_repr (JinjaBuilder *builder, JinjaValue value)
{
  if (value.type == JINJA_STRING)
    print_string_repr (builder, value.string);
  else if (value.type == JINJA_UNDEFINED)
    jinja_builder_add_text (builder, "Undefined");
  else
    jinja_print (builder, value);
}

void jinja_print (JinjaBuilder *builder, JinjaValue value)
{
  char text[400];
  jinja_enter (builder->work);
  switch (value.type) {
  case JINJA_UNDEFINED:
    break;
  case JINJA_NONE:
    jinja_builder_add_text (builder, "None");
    break;
  case JINJA_BOOL:
    jinja_builder_add_text (builder, value.boolean ? "True" : "False");
    break;
  case JINJA_INT:
    g_snprintf (text, sizeof text, "%" G_GINT64_FORMAT, value.integer);
    jinja_builder_add_text (builder, text);
    break;
  case JINJA_FLOAT:
    jinja_format_float (value.real, text, sizeof text);
    jinja_builder_add_text (builder, text);
    break;
  case JINJA_STRING:
    jinja_builder_add_string (builder, value.string);
    break;
  case JINJA_LIST:
    if (value.list->kind == JINJA_KIND_GENERATOR)
      jinja_error (builder->work, "a generator cannot be printed; make it a list first, with |list");
    print_list (builder, value.list);
    break;
  case JINJA_DICT:
    print_dict (builder, value.dict);
    break;
  case JINJA_NAMESPACE:
    jinja_builder_add_text (builder, "<Namespace ");
    print_dict (builder, value.dict);
    jinja_builder_add_text (builder, ">");
    break;
  default:
    jinja_error (builder->work, "a %s cannot be printed", jinja_type_name (value));
  }
  jinja_leave (builder->work);
}

JinjaString *jinja_to_string (JinjaWork *work, JinjaValue value)
{
  if (value.type == JINJA_STRING)
    return value.string;
  JinjaBuilder builder;
  jinja_builder_init (work, &builder);
  jinja_print (&builder, value);
  return jinja_builder_finish (&builder).string;
}
