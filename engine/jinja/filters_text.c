/* filters_text.c: the filters that work on text. Reference: the Jinja documentation, "List of Builtin Filters"; tojson: transformers. */
#include "engine/jinja/run.h"

#include <string.h>

static JinjaValue change_case (JinjaRun *run, JinjaValue self, JinjaCasing casing)
{
  return jinja_change_case (&run->work, jinja_to_string (&run->work, self), casing);
}

static JinjaValue upper (JinjaRun *run, JinjaValue self, const JinjaCall *call)
{
  return change_case (run, self, JINJA_CASE_UPPER);
}

static JinjaValue lower (JinjaRun *run, JinjaValue self, const JinjaCall *call)
{
  return change_case (run, self, JINJA_CASE_LOWER);
}

static JinjaValue capitalize (JinjaRun *run, JinjaValue self, const JinjaCall *call)
{
  return change_case (run, self, JINJA_CASE_CAPITAL);
}

/* Words begin after white space, hyphens and opening brackets only: not after an apostrophe, as str.title() has it. */
static JinjaValue title (JinjaRun *run, JinjaValue self, const JinjaCall *call)
{
  JinjaWork *work = &run->work;
  JinjaString *string = jinja_to_string (work, self);
  JinjaBuilder builder;
  jinja_builder_init (work, &builder);
  for (gsize at = 0; at < string->length;) {
    gsize end = at;
    gboolean ends = FALSE;
    while (end < string->length && !ends) {
      gunichar c = g_utf8_get_char (string->text + end);
      ends = jinja_is_space (c) || (c < 0x80 && strchr ("-({[<", (int) c) != NULL);
      end = (gsize) (g_utf8_next_char (string->text + end) - string->text);
    }
    const JinjaString *word = jinja_string_slice (work, string, at, end).string;
    jinja_builder_add_string (&builder, jinja_change_case (work, word, JINJA_CASE_CAPITAL).string);
    at = end;
  }
  return jinja_builder_finish (&builder);
}

static JinjaValue trim (JinjaRun *run, JinjaValue self, const JinjaCall *call)
{
  const JinjaString *chars = call->args[0].type == JINJA_NONE ? NULL : jinja_argument_string (run, call, 0, NULL);
  return jinja_strip (run, jinja_to_string (&run->work, self), chars, TRUE, TRUE);
}

static JinjaValue replace (JinjaRun *run, JinjaValue self, const JinjaCall *call)
{
  JinjaWork *work = &run->work;
  return jinja_replace (run, jinja_to_string (work, self), jinja_to_string (work, call->args[0]), jinja_to_string (work, call->args[1]),
                        jinja_argument_int (run, call, 2, -1));
}

static JinjaValue to_string (JinjaRun *run, JinjaValue self, const JinjaCall *call)
{
  return (JinjaValue){ .type = JINJA_STRING, .string = jinja_to_string (&run->work, self) };
}

static JinjaValue safe (JinjaRun *run, JinjaValue self, const JinjaCall *call)
{
  JinjaString *string = jinja_to_string (&run->work, self);
  JinjaValue marked = jinja_string_slice (&run->work, string, 0, string->length);
  marked.string->is_safe = TRUE;
  return marked;
}

static JinjaValue escape (JinjaRun *run, JinjaValue self, const JinjaCall *call)
{
  return jinja_escape (&run->work, jinja_to_string (&run->work, self));
}

/* Escapes what is safe as well. */
static JinjaValue forceescape (JinjaRun *run, JinjaValue self, const JinjaCall *call)
{
  JinjaString *string = jinja_to_string (&run->work, self);
  return jinja_escape (&run->work, jinja_string_slice (&run->work, string, 0, string->length).string);
}

static JinjaString *spaces (JinjaRun *run, gint64 n)
{
  JinjaBuilder builder;
  jinja_builder_init (&run->work, &builder);
  for (gint64 i = 0; i < n; i++)
    jinja_builder_add_text (&builder, " ");
  return jinja_builder_finish (&builder).string;
}

static JinjaValue indent (JinjaRun *run, JinjaValue self, const JinjaCall *call)
{
  JinjaWork *work = &run->work;
  const JinjaString *margin = call->args[0].type == JINJA_STRING ? call->args[0].string : spaces (run, jinja_argument_int (run, call, 0, 4));
  gboolean first = jinja_argument_bool (run, call, 1, FALSE), blank = jinja_argument_bool (run, call, 2, FALSE);
  JinjaBuilder builder;
  jinja_builder_init (work, &builder);
  jinja_builder_add_string (&builder, jinja_need_string (run, self, "what to indent"));
  jinja_builder_add_text (&builder, "\n"); /* so that an end of line at the end is a line of its own */
  const JinjaList *lines = jinja_split_lines (run, jinja_builder_finish (&builder).string, FALSE).list;
  jinja_builder_init (work, &builder);
  for (gsize i = 0; i < lines->n; i++) {
    if (i > 0)
      jinja_builder_add_text (&builder, "\n");
    if (i == 0 ? first : blank || lines->items[i].string->length > 0)
      jinja_builder_add_string (&builder, margin);
    jinja_builder_add_string (&builder, lines->items[i].string);
  }
  return jinja_builder_finish (&builder);
}

static JinjaValue center (JinjaRun *run, JinjaValue self, const JinjaCall *call)
{
  const JinjaString *space = jinja_string (&run->work, " ", 1, FALSE).string;
  return jinja_center (run, jinja_to_string (&run->work, self), jinja_argument_int (run, call, 0, 80), space);
}

static JinjaValue wordcount (JinjaRun *run, JinjaValue self, const JinjaCall *call)
{
  gint64 n = 0;
  gboolean in_word = FALSE;
  JinjaCursor c;
  for (jinja_cursor_init (&c, jinja_to_string (&run->work, self)); jinja_cursor_next (&c);) {
    gboolean word = c.code == '_' || g_unichar_isalnum (c.code);
    n += word && !in_word;
    in_word = word;
  }
  return jinja_int (n);
}

static JinjaValue truncate_text (JinjaRun *run, JinjaValue self, const JinjaCall *call)
{
  JinjaWork *work = &run->work;
  JinjaString *string = jinja_need_string (run, self, "what to truncate"), *end = jinja_argument_string (run, call, 2, "...");
  gint64 length = jinja_argument_int (run, call, 0, 255), leeway = jinja_argument_int (run, call, 3, 5);
  gint64 keep = length - (gint64) jinja_string_chars (end);
  if (keep < 0 || leeway < 0)
    jinja_error (work, "expected length >= %" G_GSIZE_FORMAT " and leeway >= 0", jinja_string_chars (end));
  if ((gint64) jinja_string_chars (string) <= length + leeway)
    return (JinjaValue){ .type = JINJA_STRING, .string = string };
  gsize stop = jinja_string_offset (work, string, (gsize) keep), space = stop;
  while (space > 0 && string->text[space - 1] != ' ')
    space--;
  if (!jinja_argument_bool (run, call, 1, FALSE) && space > 0)
    stop = space - 1;
  JinjaBuilder builder;
  jinja_builder_init (work, &builder);
  jinja_builder_add_string (&builder, jinja_string_slice (work, string, 0, stop).string);
  jinja_builder_add_string (&builder, end);
  return jinja_builder_finish (&builder);
}

static JinjaValue format (JinjaRun *run, JinjaValue self, const JinjaCall *call)
{
  if (call->n > 0 && call->n_named > 0)
    jinja_error (&run->work, "can't handle positional and keyword arguments at the same time");
  JinjaValue arguments = call->n_named > 0 ? jinja_dict_new (&run->work, JINJA_DICT) : jinja_list_new (&run->work, JINJA_KIND_TUPLE, call->n);
  for (gsize i = 0; i < call->n_named; i++)
    jinja_dict_set (&run->work, arguments.dict, call->named[i].key, call->named[i].value);
  for (gsize i = 0; i < call->n; i++)
    jinja_list_add (&run->work, arguments.list, call->args[i]);
  return jinja_percent_format (run, jinja_to_string (&run->work, self), arguments);
}

/* transformers' own: (ensure_ascii=False, indent=None, separators=None, sort_keys=False), no HTML escapes. */
static JinjaValue tojson (JinjaRun *run, JinjaValue self, const JinjaCall *call)
{
  JinjaWork *work = &run->work;
  const char *separators[2] = { NULL, NULL };
  JinjaValue pair = call->args[2];
  if (!jinja_is_absent (pair) && pair.type != JINJA_NONE) {
    const JinjaList *parts = jinja_iterate (work, pair);
    if (parts->n != 2)
      jinja_error (work, "tojson's separators are two");
    for (gsize i = 0; i < 2; i++)
      separators[i] = jinja_c_string (run, jinja_need_string (run, parts->items[i], "a separator"));
  }
  gint64 width = jinja_argument_int (run, call, 1, -1);
  return jinja_to_json (work, self, (int) CLAMP (width, -1, 1000), separators[0], separators[1], jinja_argument_bool (run, call, 0, FALSE),
                        jinja_argument_bool (run, call, 3, FALSE));
}

const JinjaBuiltin jinja_text_filters[] = {
  { "upper", "", upper },
  { "lower", "", lower },
  { "capitalize", "", capitalize },
  { "title", "", title },
  { "trim", "chars", trim },
  { "replace", "!old !new count", replace },
  { "string", "", to_string },
  { "safe", "", safe },
  { "escape", "", escape },
  { "e", "", escape },
  { "forceescape", "", forceescape },
  { "indent", "width first blank", indent },
  { "center", "width", center },
  { "wordcount", "", wordcount },
  { "truncate", "length killwords end leeway", truncate_text },
  { "format", NULL, format },
  { "tojson", "ensure_ascii indent separators sort_keys", tojson },
  { NULL, NULL, NULL }
};
