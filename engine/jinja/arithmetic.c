/* arithmetic.c: + - * / // % ** with Python's semantics: floor division, true division to float, text and list arithmetic. Integers have
 * 64 bits; a result that does not fit is an error, not a wrong number. */
#include "engine/jinja/run.h"

#include <math.h>
#include <string.h>

static void G_GNUC_NORETURN unsupported (JinjaRun *run, const char *operator, JinjaValue a, JinjaValue b)
{
  if (a.type == JINJA_UNDEFINED || b.type == JINJA_UNDEFINED)
    jinja_error (&run->work, "%s", a.type == JINJA_UNDEFINED ? a.why : b.why);
  if (operator[0] == '+' && a.type == JINJA_STRING)
    jinja_error (&run->work, "can only concatenate str (not \"%s\") to str", jinja_type_name (b));
  jinja_error (&run->work, "unsupported operand type(s) for %s: '%s' and '%s'", operator, jinja_type_name (a), jinja_type_name (b));
}

static void G_GNUC_NORETURN too_large (JinjaRun *run)
{
  jinja_error (&run->work, "an integer becomes larger than 64 bits");
}

static gint64 floor_divide (gint64 a, gint64 b)
{
  return a / b - (a % b != 0 && (a % b < 0) != (b < 0));
}

static JinjaValue integer_power (JinjaRun *run, gint64 base, gint64 exponent)
{
  gint64 result = 1;
  if (exponent < 0)
    return jinja_float (pow ((double) base, (double) exponent));
  if (base == 0 || base == 1 || base == -1)
    return jinja_int (exponent == 0 || base == 1 ? 1 : base == 0 ? 0 : exponent % 2 == 0 ? 1 : -1);
  for (; exponent > 0; exponent--) /* overflows within 63 steps */
    if (__builtin_mul_overflow (result, base, &result))
      too_large (run);
  return jinja_int (result);
}

static JinjaValue integers (JinjaRun *run, const char *operator, gint64 a, gint64 b)
{
  gint64 result = 0;
  gboolean overflow = FALSE;
  if (strchr ("/%", operator[0]) != NULL && b == 0)
    jinja_error (&run->work, operator[0] == '/' && operator[1] == '\0' ? "division by zero" : "integer division or modulo by zero");
  if (strcmp (operator, "/") == 0)
    return jinja_float ((double) a / (double) b);
  if (strcmp (operator, "**") == 0)
    return integer_power (run, a, b);
  if (strcmp (operator, "+") == 0)
    overflow = __builtin_add_overflow (a, b, &result);
  else if (strcmp (operator, "-") == 0)
    overflow = __builtin_sub_overflow (a, b, &result);
  else if (strcmp (operator, "*") == 0)
    overflow = __builtin_mul_overflow (a, b, &result);
  else if (b == -1) /* the one quotient that can overflow */
    overflow = strcmp (operator, "//") == 0 && __builtin_sub_overflow (0, a, &result);
  else
    result = operator[0] == '/' ? floor_divide (a, b) : a - floor_divide (a, b) * b;
  if (overflow)
    too_large (run);
  return jinja_int (result);
}

static JinjaValue reals (JinjaRun *run, const char *operator, double a, double b)
{
  if (strchr ("/%", operator[0]) != NULL && b == 0)
    jinja_error (&run->work, operator[0] == '%' ? "float modulo by zero" : operator[1] == '/' ? "float floor division by zero" : "float division by zero");
  if (strcmp (operator, "+") == 0)
    return jinja_float (a + b);
  if (strcmp (operator, "-") == 0)
    return jinja_float (a - b);
  if (strcmp (operator, "*") == 0)
    return jinja_float (a * b);
  if (strcmp (operator, "/") == 0)
    return jinja_float (a / b);
  if (strcmp (operator, "**") == 0)
    return jinja_float (pow (a, b));
  double rest = fmod (a, b);
  if (rest != 0 && (rest < 0) != (b < 0))
    rest += b;
  return jinja_float (operator[0] == '%' ? rest : floor ((a - rest) / b + 0.5));
}

static JinjaValue repeat (JinjaRun *run, JinjaValue sequence, gint64 times)
{
  JinjaWork *work = &run->work;
  times = MAX (times, 0);
  if (sequence.type == JINJA_LIST) {
    JinjaValue result = jinja_list_new (work, sequence.list->kind, 0);
    for (gint64 i = 0; i < times && sequence.list->n > 0; i++)
      for (gsize j = 0; j < sequence.list->n; j++)
        jinja_list_add (work, result.list, sequence.list->items[j]);
    return result;
  }
  JinjaBuilder builder;
  jinja_builder_init (work, &builder);
  for (gint64 i = 0; i < times && sequence.string->length > 0; i++) {
    jinja_spend (work, 1);
    jinja_builder_add_string (&builder, sequence.string);
  }
  return jinja_builder_finish (&builder);
}

static JinjaValue join_lists (JinjaRun *run, JinjaValue a, JinjaValue b)
{
  JinjaValue result = jinja_list_new (&run->work, a.list->kind, a.list->n + b.list->n);
  for (gsize i = 0; i < a.list->n; i++)
    jinja_list_add (&run->work, result.list, a.list->items[i]);
  for (gsize i = 0; i < b.list->n; i++)
    jinja_list_add (&run->work, result.list, b.list->items[i]);
  return result;
}

static gboolean is_sequence (JinjaValue value)
{
  return value.type == JINJA_STRING || (value.type == JINJA_LIST && value.list->kind <= JINJA_KIND_TUPLE);
}

static gboolean is_integer (JinjaValue value)
{
  return value.type == JINJA_INT || value.type == JINJA_BOOL;
}

static gint64 integer_of (JinjaValue value)
{
  return value.type == JINJA_INT ? value.integer : value.boolean;
}

static JinjaValue add_strings (JinjaWork *work, JinjaString *a, JinjaString *b)
{
  if (!a->is_safe && !b->is_safe)
    return jinja_string_concat (work, a, b);
  JinjaValue sum = jinja_string_concat (work, jinja_escape (work, a).string, jinja_escape (work, b).string);
  sum.string->is_safe = TRUE;
  return sum;
}

JinjaValue jinja_binary (JinjaRun *run, const char *operator, JinjaValue a, JinjaValue b)
{
  if (is_integer (a) && is_integer (b))
    return integers (run, operator, integer_of (a), integer_of (b));
  if (jinja_is_number (a) && jinja_is_number (b))
    return reals (run, operator, jinja_to_double (a), jinja_to_double (b));
  if (strcmp (operator, "+") == 0 && a.type == JINJA_STRING && b.type == JINJA_STRING)
    return add_strings (&run->work, a.string, b.string);
  if (strcmp (operator, "+") == 0 && is_sequence (a) && a.type == JINJA_LIST && b.type == JINJA_LIST && b.list->kind == a.list->kind)
    return join_lists (run, a, b);
  if (strcmp (operator, "*") == 0 && is_sequence (a) && is_integer (b))
    return repeat (run, a, integer_of (b));
  if (strcmp (operator, "*") == 0 && is_integer (a) && is_sequence (b))
    return repeat (run, b, integer_of (a));
  if (strcmp (operator, "%") == 0 && a.type == JINJA_STRING)
    return jinja_percent_format (run, a.string, b);
  unsupported (run, operator, a, b);
}

JinjaValue jinja_negative (JinjaRun *run, JinjaValue a, gboolean negate)
{
  if (a.type == JINJA_UNDEFINED)
    jinja_error (&run->work, "%s", a.why);
  if (!jinja_is_number (a))
    jinja_error (&run->work, "bad operand type for unary %c: '%s'", negate ? '-' : '+', jinja_type_name (a));
  if (a.type == JINJA_FLOAT)
    return jinja_float (negate ? -a.real : a.real);
  if (negate && integer_of (a) == G_MININT64)
    too_large (run);
  return jinja_int (negate ? -integer_of (a) : integer_of (a));
}
