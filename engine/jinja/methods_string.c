/* methods_string.c: the methods of Python's str that templates use. Positions count code points. */
#include "engine/jinja/run.h"

#include <string.h>

static JinjaValue upper (JinjaRun *run, JinjaValue self, const JinjaCall *call)
{
  return jinja_change_case (&run->work, self.string, JINJA_CASE_UPPER);
}

static JinjaValue lower (JinjaRun *run, JinjaValue self, const JinjaCall *call)
{
  return jinja_change_case (&run->work, self.string, JINJA_CASE_LOWER);
}

static JinjaValue title (JinjaRun *run, JinjaValue self, const JinjaCall *call)
{
  return jinja_change_case (&run->work, self.string, JINJA_CASE_TITLE);
}

static JinjaValue capitalize (JinjaRun *run, JinjaValue self, const JinjaCall *call)
{
  return jinja_change_case (&run->work, self.string, JINJA_CASE_CAPITAL);
}

static JinjaValue swapcase (JinjaRun *run, JinjaValue self, const JinjaCall *call)
{
  return jinja_change_case (&run->work, self.string, JINJA_CASE_SWAP);
}

static const JinjaString *strip_chars (JinjaRun *run, const JinjaCall *call)
{
  return call->args[0].type == JINJA_NONE ? NULL : jinja_argument_string (run, call, 0, NULL);
}

static JinjaValue strip (JinjaRun *run, JinjaValue self, const JinjaCall *call)
{
  return jinja_strip (run, self.string, strip_chars (run, call), TRUE, TRUE);
}

static JinjaValue lstrip (JinjaRun *run, JinjaValue self, const JinjaCall *call)
{
  return jinja_strip (run, self.string, strip_chars (run, call), TRUE, FALSE);
}

static JinjaValue rstrip (JinjaRun *run, JinjaValue self, const JinjaCall *call)
{
  return jinja_strip (run, self.string, strip_chars (run, call), FALSE, TRUE);
}

static JinjaValue replace (JinjaRun *run, JinjaValue self, const JinjaCall *call)
{
  return jinja_replace (run, self.string, jinja_need_string (run, call->args[0], "what to replace"),
                        jinja_need_string (run, call->args[1], "the replacement"), jinja_argument_int (run, call, 2, -1));
}

static gboolean has_affix (JinjaRun *run, const JinjaString *string, JinjaValue affix, gboolean at_end)
{
  if (affix.type == JINJA_LIST && affix.list->kind == JINJA_KIND_TUPLE) {
    for (gsize i = 0; i < affix.list->n; i++)
      if (has_affix (run, string, (JinjaValue){ .type = JINJA_STRING, .string = jinja_need_string (run, affix.list->items[i], "an affix") }, at_end))
        return TRUE;
    return FALSE;
  }
  const JinjaString *part = jinja_need_string (run, affix, at_end ? "the suffix" : "the prefix");
  return part->length <= string->length &&
         memcmp (string->text + (at_end ? string->length - part->length : 0), part->text, part->length) == 0;
}

static JinjaValue startswith (JinjaRun *run, JinjaValue self, const JinjaCall *call)
{
  return jinja_bool (has_affix (run, self.string, call->args[0], FALSE));
}

static JinjaValue endswith (JinjaRun *run, JinjaValue self, const JinjaCall *call)
{
  return jinja_bool (has_affix (run, self.string, call->args[0], TRUE));
}

static JinjaValue removeprefix (JinjaRun *run, JinjaValue self, const JinjaCall *call)
{
  const JinjaString *prefix = jinja_need_string (run, call->args[0], "the prefix");
  return has_affix (run, self.string, call->args[0], FALSE) ? jinja_string_slice (&run->work, self.string, prefix->length, self.string->length) : self;
}

static JinjaValue removesuffix (JinjaRun *run, JinjaValue self, const JinjaCall *call)
{
  const JinjaString *suffix = jinja_need_string (run, call->args[0], "the suffix");
  return has_affix (run, self.string, call->args[0], TRUE) ? jinja_string_slice (&run->work, self.string, 0, self.string->length - suffix->length) : self;
}

static gint64 chars_before (const JinjaString *string, gsize offset)
{
  return g_utf8_pointer_to_offset (string->text, string->text + offset);
}

/* Byte offset of the last occurrence that ends at or before `end`, or -1. */
static gssize find_last (JinjaRun *run, const JinjaString *string, const JinjaString *needle, gsize end)
{
  if (needle->length > end)
    return -1;
  for (gsize at = end - needle->length;; at--) {
    jinja_spend (&run->work, at % 16 == 0);
    if (memcmp (string->text + at, needle->text, needle->length) == 0 && ((guint8) string->text[at] & 0xC0) != 0x80)
      return (gssize) at;
    if (at == 0)
      return -1;
  }
}

static gint64 find_position (JinjaRun *run, JinjaValue self, const JinjaCall *call, gboolean last)
{
  const JinjaString *needle = jinja_need_string (run, call->args[0], "what to find");
  gssize at = last && needle->length > 0 ? find_last (run, self.string, needle, self.string->length)
              : last ? (gssize) self.string->length : jinja_find_text (&run->work, self.string, needle, 0);
  return at < 0 ? -1 : chars_before (self.string, (gsize) at);
}

static JinjaValue find (JinjaRun *run, JinjaValue self, const JinjaCall *call)
{
  return jinja_int (find_position (run, self, call, FALSE));
}

static JinjaValue rfind (JinjaRun *run, JinjaValue self, const JinjaCall *call)
{
  return jinja_int (find_position (run, self, call, TRUE));
}

static JinjaValue need_position (JinjaRun *run, gint64 position)
{
  if (position < 0)
    jinja_error (&run->work, "substring not found");
  return jinja_int (position);
}

static JinjaValue text_index (JinjaRun *run, JinjaValue self, const JinjaCall *call)
{
  return need_position (run, find_position (run, self, call, FALSE));
}

static JinjaValue rindex_text (JinjaRun *run, JinjaValue self, const JinjaCall *call)
{
  return need_position (run, find_position (run, self, call, TRUE));
}

static JinjaValue count (JinjaRun *run, JinjaValue self, const JinjaCall *call)
{
  const JinjaString *needle = jinja_need_string (run, call->args[0], "what to count");
  gint64 n = 0;
  if (needle->length == 0)
    return jinja_int ((gint64) jinja_string_chars (self.string) + 1);
  for (gssize at = 0; (at = jinja_find_text (&run->work, self.string, needle, (gsize) at)) >= 0; at += (gssize) needle->length) {
    jinja_spend (&run->work, 1);
    n++;
  }
  return jinja_int (n);
}

static void add_part (JinjaRun *run, JinjaList *parts, const JinjaString *string, gsize begin, gsize end)
{
  jinja_list_add (&run->work, parts, jinja_string_slice (&run->work, string, begin, end));
}

/* split() without a separator: words between white space; `most` splits, -1 for all. */
static JinjaValue split_words (JinjaRun *run, const JinjaString *string, gint64 most)
{
  JinjaValue parts = jinja_list_new (&run->work, JINJA_KIND_LIST, 0);
  const char *p = string->text, *end = p + string->length;
  for (;;) {
    while (p < end && jinja_is_space (g_utf8_get_char (p)))
      p = g_utf8_next_char (p);
    if (p == end)
      return parts;
    const char *word = p;
    gboolean rest = most >= 0 && (gint64) parts.list->n >= most;
    while (p < end && (rest || !jinja_is_space (g_utf8_get_char (p))))
      p = g_utf8_next_char (p);
    add_part (run, parts.list, string, (gsize) (word - string->text), (gsize) (p - string->text));
  }
}

/* The last `most` words, and before them all that is left, without the white space after it. */
static JinjaValue rsplit_words (JinjaRun *run, const JinjaString *string, gint64 most)
{
  JinjaValue all = split_words (run, string, -1), parts = jinja_list_new (&run->work, JINJA_KIND_LIST, 0);
  gsize n = all.list->n;
  if (most < 0 || (gsize) most >= n)
    return all;
  const JinjaString *last = all.list->items[n - (gsize) most - 1].string;
  add_part (run, parts.list, string, 0, (gsize) (last->text + last->length - string->text));
  for (gsize i = n - (gsize) most; i < n; i++)
    jinja_list_add (&run->work, parts.list, all.list->items[i]);
  return parts;
}

static const JinjaString *need_separator (JinjaRun *run, JinjaValue value)
{
  const JinjaString *separator = jinja_need_string (run, value, "the separator");
  if (separator->length == 0)
    jinja_error (&run->work, "empty separator");
  return separator;
}

static JinjaValue split (JinjaRun *run, JinjaValue self, const JinjaCall *call)
{
  gint64 most = jinja_argument_int (run, call, 1, -1);
  if (jinja_is_absent (call->args[0]) || call->args[0].type == JINJA_NONE)
    return split_words (run, self.string, most);
  const JinjaString *separator = need_separator (run, call->args[0]);
  JinjaValue parts = jinja_list_new (&run->work, JINJA_KIND_LIST, 0);
  gsize from = 0;
  gssize at;
  while ((most < 0 || (gint64) parts.list->n < most) && (at = jinja_find_text (&run->work, self.string, separator, from)) >= 0) {
    add_part (run, parts.list, self.string, from, (gsize) at);
    from = (gsize) at + separator->length;
  }
  add_part (run, parts.list, self.string, from, self.string->length);
  return parts;
}

static JinjaValue rsplit (JinjaRun *run, JinjaValue self, const JinjaCall *call)
{
  gint64 most = jinja_argument_int (run, call, 1, -1);
  if (jinja_is_absent (call->args[0]) || call->args[0].type == JINJA_NONE)
    return rsplit_words (run, self.string, most);
  const JinjaString *separator = need_separator (run, call->args[0]);
  JinjaValue reversed = jinja_list_new (&run->work, JINJA_KIND_LIST, 0), parts = jinja_list_new (&run->work, JINJA_KIND_LIST, 0);
  gsize end = self.string->length;
  gssize at;
  while ((most < 0 || (gint64) reversed.list->n < most) && (at = find_last (run, self.string, separator, end)) >= 0) {
    add_part (run, reversed.list, self.string, (gsize) at + separator->length, end);
    end = (gsize) at;
  }
  add_part (run, reversed.list, self.string, 0, end);
  for (gsize i = reversed.list->n; i > 0; i--)
    jinja_list_add (&run->work, parts.list, reversed.list->items[i - 1]);
  return parts;
}

static JinjaValue splitlines (JinjaRun *run, JinjaValue self, const JinjaCall *call)
{
  return jinja_split_lines (run, self.string, jinja_argument_bool (run, call, 0, FALSE));
}

static JinjaValue three (JinjaRun *run, const JinjaString *string, gssize at, gsize length, gboolean last)
{
  JinjaValue parts = jinja_list_new (&run->work, JINJA_KIND_TUPLE, 3);
  gsize n = string->length, begin = at >= 0 ? (gsize) at : last ? 0 : n, end = at >= 0 ? begin + length : begin;
  add_part (run, parts.list, string, 0, begin);
  add_part (run, parts.list, string, begin, end);
  add_part (run, parts.list, string, end, n);
  return parts;
}

static JinjaValue partition (JinjaRun *run, JinjaValue self, const JinjaCall *call)
{
  const JinjaString *separator = need_separator (run, call->args[0]);
  return three (run, self.string, jinja_find_text (&run->work, self.string, separator, 0), separator->length, FALSE);
}

static JinjaValue rpartition (JinjaRun *run, JinjaValue self, const JinjaCall *call)
{
  const JinjaString *separator = need_separator (run, call->args[0]);
  return three (run, self.string, find_last (run, self.string, separator, self.string->length), separator->length, TRUE);
}

static JinjaValue join (JinjaRun *run, JinjaValue self, const JinjaCall *call)
{
  return jinja_join (run, jinja_iterate (&run->work, call->args[0]), self.string, TRUE);
}

static JinjaValue pad (JinjaRun *run, JinjaValue self, const JinjaCall *call, gboolean left, const char *with)
{
  JinjaBuilder builder;
  const JinjaString *fill = with != NULL ? jinja_string (&run->work, with, 1, FALSE).string : jinja_argument_string (run, call, 1, " ");
  gint64 missing = jinja_argument_int (run, call, 0, 0) - (gint64) jinja_string_chars (self.string);
  if (jinja_string_chars ((JinjaString *) fill) != 1)
    jinja_error (&run->work, "the fill character must be exactly one character long");
  gsize sign = with != NULL && self.string->length > 0 && strchr ("+-", self.string->text[0]) != NULL;
  jinja_builder_init (&run->work, &builder);
  jinja_builder_add_string (&builder, jinja_string_slice (&run->work, self.string, 0, left ? sign : self.string->length).string);
  for (gint64 i = 0; i < missing; i++)
    jinja_builder_add_string (&builder, fill);
  if (left)
    jinja_builder_add_string (&builder, jinja_string_slice (&run->work, self.string, sign, self.string->length).string);
  return jinja_builder_finish (&builder);
}

static JinjaValue center (JinjaRun *run, JinjaValue self, const JinjaCall *call)
{
  JinjaString *fill = jinja_argument_string (run, call, 1, " ");
  if (jinja_string_chars (fill) != 1)
    jinja_error (&run->work, "the fill character must be exactly one character long");
  return jinja_center (run, self.string, jinja_argument_int (run, call, 0, 0), fill);
}

static JinjaValue format (JinjaRun *run, JinjaValue self, const JinjaCall *call)
{
  return jinja_brace_format (run, self.string, call);
}

static JinjaValue ljust (JinjaRun *run, JinjaValue self, const JinjaCall *call)
{
  return pad (run, self, call, FALSE, NULL);
}

static JinjaValue rjust (JinjaRun *run, JinjaValue self, const JinjaCall *call)
{
  return pad (run, self, call, TRUE, NULL);
}

static JinjaValue zfill (JinjaRun *run, JinjaValue self, const JinjaCall *call)
{
  return pad (run, self, call, TRUE, "0");
}

static gboolean is_decimal (gunichar c)
{
  return g_unichar_type (c) == G_UNICODE_DECIMAL_NUMBER;
}

static gboolean is_letter_or_number (gunichar c)
{
  return g_unichar_isalnum (c);
}

static gboolean is_letter (gunichar c)
{
  return g_unichar_isalpha (c);
}

static JinjaValue all_are (const JinjaString *string, gboolean (*is) (gunichar))
{
  JinjaCursor c;
  for (jinja_cursor_init (&c, string); jinja_cursor_next (&c);)
    if (!is (c.code))
      return jinja_bool (FALSE);
  return jinja_bool (string->length > 0);
}

static JinjaValue isdigit_all (JinjaRun *run, JinjaValue self, const JinjaCall *call)
{
  return all_are (self.string, is_decimal);
}

static JinjaValue isalpha_all (JinjaRun *run, JinjaValue self, const JinjaCall *call)
{
  return all_are (self.string, is_letter);
}

static JinjaValue isalnum_all (JinjaRun *run, JinjaValue self, const JinjaCall *call)
{
  return all_are (self.string, is_letter_or_number);
}

static JinjaValue isspace_all (JinjaRun *run, JinjaValue self, const JinjaCall *call)
{
  return all_are (self.string, jinja_is_space);
}

static JinjaValue isupper_all (JinjaRun *run, JinjaValue self, const JinjaCall *call)
{
  return jinja_bool (jinja_call_test (run, "upper", jinja_find_test ("upper"), self, call));
}

static JinjaValue islower_all (JinjaRun *run, JinjaValue self, const JinjaCall *call)
{
  return jinja_bool (jinja_call_test (run, "lower", jinja_find_test ("lower"), self, call));
}

const JinjaBuiltin jinja_string_methods[] = {
  { "upper", "", upper },
  { "lower", "", lower },
  { "title", "", title },
  { "capitalize", "", capitalize },
  { "swapcase", "", swapcase },
  { "strip", "chars", strip },
  { "lstrip", "chars", lstrip },
  { "rstrip", "chars", rstrip },
  { "replace", "!old !new count", replace },
  { "startswith", "!prefix", startswith },
  { "endswith", "!suffix", endswith },
  { "removeprefix", "!prefix", removeprefix },
  { "removesuffix", "!suffix", removesuffix },
  { "find", "!sub", find },
  { "rfind", "!sub", rfind },
  { "index", "!sub", text_index },
  { "rindex", "!sub", rindex_text },
  { "count", "!sub", count },
  { "split", "sep maxsplit", split },
  { "rsplit", "sep maxsplit", rsplit },
  { "splitlines", "keepends", splitlines },
  { "partition", "!sep", partition },
  { "rpartition", "!sep", rpartition },
  { "join", "!iterable", join },
  { "center", "!width fillchar", center },
  { "format", NULL, format },
  { "ljust", "!width fillchar", ljust },
  { "rjust", "!width fillchar", rjust },
  { "zfill", "!width", zfill },
  { "isdigit", "", isdigit_all },
  { "isdecimal", "", isdigit_all },
  { "isnumeric", "", isdigit_all },
  { "isalpha", "", isalpha_all },
  { "isalnum", "", isalnum_all },
  { "isspace", "", isspace_all },
  { "isupper", "", isupper_all },
  { "islower", "", islower_all },
  { NULL, NULL, NULL }
};
