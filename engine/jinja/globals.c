/* globals.c: range, dict, namespace, raise_exception and strftime_now. */
#include "engine/jinja/run.h"

#include <locale.h>
#include <string.h>
#include <time.h>

#define MAX_RANGE 100000 /* as Jinja's sandbox has it */

static JinjaValue range (JinjaRun *run, JinjaValue self, const JinjaCall *call)
{
  JinjaWork *work = &run->work;
  gint64 a = jinja_argument_int (run, call, 0, 0), b, step = jinja_argument_int (run, call, 2, 1);
  if (jinja_is_absent (call->args[1])) {
    b = a;
    a = 0;
  } else {
    b = jinja_argument_int (run, call, 1, 0);
  }
  if (step == 0)
    jinja_error (work, "range() arg 3 must not be zero");
  /* Counted in 128 bits, so that no end is too far apart. */
  __int128 n = step > 0 ? ((__int128) b - a + step - 1) / step : ((__int128) a - b - step - 1) / -(__int128) step;
  if (n > MAX_RANGE)
    jinja_error (work, "range too big: the largest is %d", MAX_RANGE);
  JinjaValue list = jinja_list_new (work, JINJA_KIND_RANGE, n > 0 ? (gsize) n : 0);
  list.list->begin = a;
  list.list->end = b;
  list.list->step = step;
  for (gint64 i = 0; i < (gint64) n; i++)
    jinja_list_add (work, list.list, jinja_int (a + i * step));
  return list;
}

/* dict(mapping or pairs, name=value, ...) */
static JinjaValue new_mapping (JinjaRun *run, const JinjaCall *call, JinjaType type)
{
  JinjaWork *work = &run->work;
  JinjaValue dict = jinja_dict_new (work, type);
  if (call->n > 1)
    jinja_error (work, "%s expected at most 1 argument, got %" G_GSIZE_FORMAT, type == JINJA_DICT ? "dict" : "namespace", call->n);
  if (call->n == 1 && call->args[0].type == JINJA_DICT) {
    for (gsize i = 0; i < call->args[0].dict->n; i++)
      jinja_dict_set (work, dict.dict, call->args[0].dict->pairs[i].key, call->args[0].dict->pairs[i].value);
  } else if (call->n == 1) {
    const JinjaList *pairs = jinja_iterate (work, call->args[0]);
    for (gsize i = 0; i < pairs->n; i++) {
      const JinjaList *pair = jinja_iterate (work, pairs->items[i]);
      if (pair->n != 2)
        jinja_error (work, "dictionary update sequence element #%" G_GSIZE_FORMAT " has length %" G_GSIZE_FORMAT "; 2 is required", i, pair->n);
      jinja_dict_set (work, dict.dict, pair->items[0], pair->items[1]);
    }
  }
  for (gsize i = 0; i < call->n_named; i++)
    jinja_dict_set (work, dict.dict, call->named[i].key, call->named[i].value);
  return dict;
}

static JinjaValue dict (JinjaRun *run, JinjaValue self, const JinjaCall *call)
{
  return new_mapping (run, call, JINJA_DICT);
}

static JinjaValue namespace (JinjaRun *run, JinjaValue self, const JinjaCall *call)
{
  return new_mapping (run, call, JINJA_NAMESPACE);
}

static JinjaValue raise_exception (JinjaRun *run, JinjaValue self, const JinjaCall *call)
{
  const JinjaString *message = jinja_to_string (&run->work, call->args[0]);
  jinja_fail (&run->work.heap, 0, "%.*s", (int) MIN (message->length, 1000), message->text);
}

static JinjaValue strftime_now (JinjaRun *run, JinjaValue self, const JinjaCall *call)
{
  const JinjaString *format = jinja_need_string (run, call->args[0], "the date's format");
  char text[2048] = "";
  time_t now = time (NULL);
  struct tm parts;
  if (format->length > 256)
    jinja_error (&run->work, "the date's format is longer than 256 bytes");
  const char *c_format = jinja_c_string (run, format);
  /* A model reads English month names, whatever the person's locale. */
  locale_t english = newlocale (LC_ALL_MASK, "C", (locale_t) 0);
  gboolean ok = english != (locale_t) 0 && localtime_r (&now, &parts) != NULL;
  gsize n = ok ? strftime_l (text, sizeof text, c_format, &parts, english) : 0;
  if (english != (locale_t) 0)
    freelocale (english);
  return jinja_string (&run->work, text, n, jinja_string_from_context (format));
}

static const JinjaBuiltin globals[] = {
  { "range", "!start stop step", range },
  { "dict", NULL, dict },
  { "namespace", NULL, namespace },
  { "raise_exception", "!message", raise_exception },
  { "strftime_now", "!format", strftime_now },
  { NULL, NULL, NULL }
};

const JinjaBuiltin *jinja_find_global (const char *name)
{
  return jinja_find_in (globals, name);
}
