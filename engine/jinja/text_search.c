/* text_search.c: finding, replacing, stripping and joining text. */
#include "engine/jinja/run.h"

#include <string.h>

gboolean jinja_is_space (gunichar c)
{
  return (c >= 9 && c <= 13) || (c >= 0x1C && c <= 0x20) || c == 0x85 || (c > 0x7F && g_unichar_isspace (c));
}

gssize jinja_find_text (JinjaWork *work, const JinjaString *string, const JinjaString *needle, gsize from)
{
  if (from > string->length)
    return -1;
  const char *found = needle->length == 0 ? string->text + from
                                          : memmem (string->text + from, string->length - from, needle->text, needle->length);
  jinja_spend (work, (found != NULL ? (gsize) (found - string->text) - from : string->length - from) / 64);
  return found != NULL ? found - string->text : -1;
}

JinjaValue jinja_replace (JinjaRun *run, const JinjaString *string, const JinjaString *old, const JinjaString *with, gint64 most)
{
  JinjaWork *work = &run->work;
  JinjaBuilder builder;
  jinja_builder_init (work, &builder);
  gsize from = 0;
  for (gint64 n = 0; most < 0 || n < most; n++) {
    jinja_spend (work, 1);
    /* An empty text is found before every character and at the end. */
    gsize search = from;
    if (old->length == 0 && n > 0) {
      if (from >= string->length)
        break;
      search = (gsize) (g_utf8_next_char (string->text + from) - string->text);
    }
    gssize at = jinja_find_text (work, string, old, search);
    if (at < 0)
      break;
    jinja_builder_add_string (&builder, jinja_string_slice (work, string, from, (gsize) at).string);
    jinja_builder_add_string (&builder, with);
    from = (gsize) at + old->length;
  }
  jinja_builder_add_string (&builder, jinja_string_slice (work, string, from, string->length).string);
  return jinja_builder_finish (&builder);
}

static gboolean stripped (const JinjaString *chars, const char *p)
{
  gunichar c = g_utf8_get_char (p);
  return chars == NULL ? jinja_is_space (c) : memmem (chars->text, chars->length, p, (gsize) (g_utf8_next_char (p) - p)) != NULL;
}

JinjaValue jinja_strip (JinjaRun *run, const JinjaString *string, const JinjaString *chars, gboolean left, gboolean right)
{
  const char *begin = string->text, *end = begin + string->length;
  while (left && begin < end && stripped (chars, begin))
    begin = g_utf8_next_char (begin);
  while (right && end > begin && stripped (chars, g_utf8_prev_char (end)))
    end = g_utf8_prev_char (end);
  jinja_spend (&run->work, string->length / 64);
  return jinja_string_slice (&run->work, string, (gsize) (begin - string->text), (gsize) (end - string->text));
}

JinjaValue jinja_join (JinjaRun *run, JinjaList *items, const JinjaString *separator, gboolean only_strings)
{
  JinjaBuilder builder;
  jinja_builder_init (&run->work, &builder);
  for (gsize i = 0; i < items->n; i++) {
    jinja_spend (&run->work, 1);
    if (only_strings && items->items[i].type != JINJA_STRING)
      jinja_error (&run->work, "sequence item %" G_GSIZE_FORMAT ": expected str instance, %s found", i, jinja_type_name (items->items[i]));
    if (i > 0)
      jinja_builder_add_string (&builder, separator);
    jinja_print (&builder, items->items[i]);
  }
  return jinja_builder_finish (&builder);
}

/* Length in bytes of the end of line at p, 0 where there is none: those of Python's splitlines(). */
static gsize line_end (const char *p, const char *end)
{
  gsize left = (gsize) (end - p);
  const guint8 *s = (const guint8 *) p;
  if (s[0] == '\r' && left > 1 && s[1] == '\n')
    return 2;
  if ((s[0] >= '\n' && s[0] <= '\r') || (s[0] >= 0x1C && s[0] <= 0x1E))
    return 1;
  if (left > 1 && s[0] == 0xC2 && s[1] == 0x85)
    return 2;
  return left > 2 && s[0] == 0xE2 && s[1] == 0x80 && (s[2] == 0xA8 || s[2] == 0xA9) ? 3 : 0;
}

JinjaValue jinja_split_lines (JinjaRun *run, const JinjaString *string, gboolean keep_ends)
{
  JinjaValue lines = jinja_list_new (&run->work, JINJA_KIND_LIST, 0);
  const char *text = string->text, *end = text + string->length;
  jinja_spend (&run->work, string->length / 64);
  for (const char *line = text; line < end;) {
    const char *p = line;
    while (p < end && line_end (p, end) == 0)
      p++;
    const char *next = p < end ? p + line_end (p, end) : p;
    jinja_list_add (&run->work, lines.list,
                    jinja_string_slice (&run->work, string, (gsize) (line - text), (gsize) ((keep_ends ? next : p) - text)));
    line = next;
  }
  return lines;
}

JinjaValue jinja_center (JinjaRun *run, JinjaString *string, gint64 width, const JinjaString *fill)
{
  gint64 n = (gint64) jinja_string_chars (string), missing = width > n ? width - n : 0, left = missing / 2 + (missing & width & 1);
  JinjaBuilder builder;
  jinja_builder_init (&run->work, &builder);
  for (gint64 i = 0; i <= missing; i++) {
    jinja_spend (&run->work, 1);
    jinja_builder_add_string (&builder, i == left ? string : fill);
  }
  return jinja_builder_finish (&builder);
}
