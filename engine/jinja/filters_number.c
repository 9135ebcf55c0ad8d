/* filters_number.c: int, float, round, abs, and text to numbers as Python reads it. */
#include "engine/jinja/run.h"

#include <errno.h>
#include <math.h>
#include <string.h>

/* The digits of a Python number, without white space around and single underscores between digits. NULL: it cannot be one. */
static char *plain_digits (JinjaRun *run, JinjaString *string)
{
  const JinjaString *trimmed = jinja_strip (run, string, NULL, TRUE, TRUE).string;
  char *digits = jinja_alloc (&run->work.heap, trimmed->length + 1);
  gsize n = 0;
  for (gsize i = 0; i < trimmed->length; i++) {
    char c = trimmed->text[i];
    if (c == '_') {
      if (i == 0 || i + 1 == trimmed->length || !g_ascii_isalnum (trimmed->text[i - 1]) || !g_ascii_isalnum (trimmed->text[i + 1]))
        return NULL;
    } else if (c == '\0') {
      return NULL;
    } else {
      digits[n++] = c;
    }
  }
  return n > 0 ? digits : NULL;
}

static gboolean read_int (JinjaRun *run, JinjaString *string, gint64 base, gint64 *value)
{
  const char *p = plain_digits (run, string);
  if (p == NULL)
    return FALSE;
  gboolean negative = *p == '-';
  p += negative || *p == '+';
  if (p[0] == '0' && p[1] != '\0') {
    char c = g_ascii_tolower (p[1]);
    gint64 prefix = c == 'x' ? 16 : c == 'o' ? 8 : c == 'b' ? 2 : 0;
    if (prefix != 0 && (base == prefix || base == 0)) {
      base = prefix;
      p += 2;
    }
  }
  char *end;
  errno = 0;
  if (!g_ascii_isalnum (*p))
    return FALSE;
  gint64 read = g_ascii_strtoll (p, &end, (guint) (base == 0 ? 10 : base));
  if (*end != '\0')
    return FALSE;
  if (errno == ERANGE)
    jinja_error (&run->work, "an integer becomes larger than 64 bits");
  *value = negative ? -read : read;
  return TRUE;
}

static gboolean read_float (JinjaRun *run, JinjaString *string, double *value)
{
  const char *p = plain_digits (run, string);
  char *end;
  if (p == NULL)
    return FALSE;
  const char *digits = p + (*p == '-' || *p == '+');
  gboolean word = g_ascii_strcasecmp (digits, "inf") == 0 || g_ascii_strcasecmp (digits, "infinity") == 0 || g_ascii_strcasecmp (digits, "nan") == 0;
  if (!word && strspn (digits, "0123456789.eE+-") != strlen (digits))
    return FALSE; /* C reads hexadecimal and more besides */
  *value = g_ascii_strtod (p, &end);
  return end != p && *end == '\0';
}

static gboolean float_to_int (double real, gint64 *value)
{
  if (!(fabs (real) < 9.2e18))
    return FALSE;
  *value = (gint64) real;
  return TRUE;
}

static JinjaValue to_int (JinjaRun *run, JinjaValue self, const JinjaCall *call)
{
  gint64 base = jinja_argument_int (run, call, 1, 10), value;
  double real;
  gboolean ok = FALSE, has_base = base == 0 || (base >= 2 && base <= 36);
  if (self.type == JINJA_UNDEFINED)
    jinja_error (&run->work, "%s", self.why);
  if (self.type == JINJA_STRING)
    ok = (has_base && read_int (run, self.string, base, &value)) || (read_float (run, self.string, &real) && float_to_int (real, &value));
  else if (jinja_is_number (self))
    ok = self.type == JINJA_FLOAT ? float_to_int (self.real, &value) : (value = self.type == JINJA_INT ? self.integer : self.boolean, TRUE);
  if (ok)
    return jinja_int (value);
  return jinja_is_absent (call->args[0]) ? jinja_int (0) : call->args[0];
}

static JinjaValue to_float (JinjaRun *run, JinjaValue self, const JinjaCall *call)
{
  double real;
  if (self.type == JINJA_UNDEFINED)
    jinja_error (&run->work, "%s", self.why);
  if (self.type == JINJA_STRING && read_float (run, self.string, &real))
    return jinja_float (real);
  if (jinja_is_number (self))
    return jinja_float (jinja_to_double (self));
  return jinja_is_absent (call->args[0]) ? jinja_float (0) : call->args[0];
}

static JinjaValue absolute (JinjaRun *run, JinjaValue self, const JinjaCall *call)
{
  if (self.type == JINJA_FLOAT)
    return jinja_float (fabs (self.real));
  JinjaValue positive = jinja_negative (run, self, FALSE);
  return positive.integer < 0 ? jinja_negative (run, positive, TRUE) : positive;
}

static JinjaValue round_number (JinjaRun *run, JinjaValue self, const JinjaCall *call)
{
  gint64 precision = jinja_argument_int (run, call, 0, 0);
  JinjaString *method = jinja_argument_string (run, call, 1, "common");
  if (self.type == JINJA_UNDEFINED)
    jinja_error (&run->work, "%s", self.why);
  if (!jinja_is_number (self))
    jinja_error (&run->work, "type %s cannot be rounded", jinja_type_name (self));
  double real = jinja_to_double (self), power = pow (10, (double) precision);
  if (jinja_string_is (method, "ceil"))
    return jinja_float (ceil (real * power) / power);
  if (jinja_string_is (method, "floor"))
    return jinja_float (floor (real * power) / power);
  if (!jinja_string_is (method, "common"))
    jinja_error (&run->work, "method must be common, ceil or floor");
  if (self.type != JINJA_FLOAT && precision >= 0)
    return jinja_negative (run, self, FALSE); /* round() leaves an int an int, and makes a bool one */
  if (!isfinite (real) || precision > 300)
    return self;
  double rounded;
  if (precision >= 0) {
    char text[700], shape[16]; /* decimal rounding of the exact value, half to even: what printing does */
    g_snprintf (shape, sizeof shape, "%%.%df", (int) precision);
    rounded = g_ascii_strtod (g_ascii_formatd (text, sizeof text, shape, real), NULL);
  } else {
    rounded = rint (real * power) / power;
  }
  return self.type == JINJA_FLOAT ? jinja_float (rounded) : jinja_int ((gint64) rounded);
}

const JinjaBuiltin jinja_number_filters[] = {
  { "int", "default base", to_int },
  { "float", "default", to_float },
  { "abs", "", absolute },
  { "round", "precision method", round_number },
  { NULL, NULL, NULL }
};
