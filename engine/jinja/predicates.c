/* predicates.c: what may follow "is". Reference: the Jinja documentation, "List of Builtin Tests". */
#include "engine/jinja/run.h"

#include <math.h>
#include <string.h>

#define PREDICATE(name, expression)                                                     \
  static JinjaValue name (JinjaRun *run, JinjaValue self, const JinjaCall *call)        \
  {                                                                                     \
    return jinja_bool (expression);                                                     \
  }

static int order (JinjaRun *run, JinjaValue self, const JinjaCall *call, const char *operator)
{
  return jinja_compare (&run->work, self, call->args[0], operator);
}

static gboolean has_case (JinjaRun *run, JinjaValue self, gboolean upper)
{
  const JinjaString *string = jinja_to_string (&run->work, self);
  gboolean cased = FALSE;
  JinjaCursor c;
  for (jinja_cursor_init (&c, string); jinja_cursor_next (&c);) {
    if (upper ? g_unichar_islower (c.code) : g_unichar_isupper (c.code))
      return FALSE;
    cased = cased || g_unichar_islower (c.code) || g_unichar_isupper (c.code);
  }
  return cased;
}

static gboolean same_remainder (JinjaRun *run, JinjaValue self, JinjaValue divisor, gint64 remainder)
{
  JinjaValue rest = jinja_binary (run, "%", self, divisor);
  return jinja_equal (&run->work, rest, jinja_int (remainder));
}

static gboolean same (JinjaValue a, JinjaValue b)
{
  if (a.type != b.type)
    return FALSE;
  switch (a.type) {
  case JINJA_UNDEFINED:
  case JINJA_NONE:
    return a.type == JINJA_NONE;
  case JINJA_BOOL:
    return a.boolean == b.boolean;
  case JINJA_INT:
    return a.integer == b.integer;
  case JINJA_FLOAT:
    return a.real == b.real;
  default:
    return a.dict == b.dict; /* the same object */
  }
}

PREDICATE (is_defined, self.type != JINJA_UNDEFINED)
PREDICATE (is_undefined, self.type == JINJA_UNDEFINED)
PREDICATE (is_none, self.type == JINJA_NONE)
PREDICATE (is_boolean, self.type == JINJA_BOOL)
PREDICATE (is_true, self.type == JINJA_BOOL && self.boolean)
PREDICATE (is_false, self.type == JINJA_BOOL && !self.boolean)
PREDICATE (is_integer, self.type == JINJA_INT)
PREDICATE (is_float, self.type == JINJA_FLOAT)
PREDICATE (is_number, jinja_is_number (self))
PREDICATE (is_string, self.type == JINJA_STRING)
PREDICATE (is_mapping, self.type == JINJA_DICT)
PREDICATE (is_sequence, self.type == JINJA_STRING || self.type == JINJA_DICT || (self.type == JINJA_LIST && self.list->kind <= JINJA_KIND_RANGE))
PREDICATE (is_iterable, jinja_is_iterable (self))
PREDICATE (is_callable, self.type == JINJA_BUILTIN || self.type == JINJA_MACRO || self.type == JINJA_LOOP || self.type == JINJA_UNDEFINED)
PREDICATE (is_odd, same_remainder (run, self, jinja_int (2), 1))
PREDICATE (is_even, same_remainder (run, self, jinja_int (2), 0))
PREDICATE (is_divisible, same_remainder (run, self, call->args[0], 0))
PREDICATE (is_equal, jinja_equal (&run->work, self, call->args[0]))
PREDICATE (is_unequal, !jinja_equal (&run->work, self, call->args[0]))
PREDICATE (is_less, order (run, self, call, "<") < 0)
PREDICATE (is_at_most, order (run, self, call, "<=") <= 0)
PREDICATE (is_greater, order (run, self, call, ">") > 0)
PREDICATE (is_at_least, order (run, self, call, ">=") >= 0)
PREDICATE (is_in, jinja_contains (run, call->args[0], self))
PREDICATE (is_same, same (self, call->args[0]))
PREDICATE (is_upper, has_case (run, self, TRUE))
PREDICATE (is_lower, has_case (run, self, FALSE))
PREDICATE (is_filter, self.type == JINJA_STRING && jinja_find_filter (jinja_c_string (run, self.string)) != NULL)
PREDICATE (is_test, self.type == JINJA_STRING && jinja_find_test (jinja_c_string (run, self.string)) != NULL)
PREDICATE (is_escaped, FALSE)

static const JinjaBuiltin predicates[] = {
  { "defined", "", is_defined },
  { "undefined", "", is_undefined },
  { "none", "", is_none },
  { "boolean", "", is_boolean },
  { "true", "", is_true },
  { "false", "", is_false },
  { "integer", "", is_integer },
  { "float", "", is_float },
  { "number", "", is_number },
  { "string", "", is_string },
  { "mapping", "", is_mapping },
  { "sequence", "", is_sequence },
  { "iterable", "", is_iterable },
  { "callable", "", is_callable },
  { "odd", "", is_odd },
  { "even", "", is_even },
  { "divisibleby", "!num", is_divisible },
  { "eq", "!other", is_equal },
  { "equalto", "!other", is_equal },
  { "==", "!other", is_equal },
  { "ne", "!other", is_unequal },
  { "!=", "!other", is_unequal },
  { "lt", "!other", is_less },
  { "lessthan", "!other", is_less },
  { "<", "!other", is_less },
  { "le", "!other", is_at_most },
  { "<=", "!other", is_at_most },
  { "gt", "!other", is_greater },
  { "greaterthan", "!other", is_greater },
  { ">", "!other", is_greater },
  { "ge", "!other", is_at_least },
  { ">=", "!other", is_at_least },
  { "in", "!seq", is_in },
  { "sameas", "!other", is_same },
  { "upper", "", is_upper },
  { "lower", "", is_lower },
  { "filter", "", is_filter },
  { "test", "", is_test },
  { "escaped", "", is_escaped },
  { NULL, NULL, NULL }
};

const JinjaBuiltin *jinja_find_test (const char *name)
{
  return jinja_find_in (predicates, name);
}
