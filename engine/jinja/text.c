/* text.c: strings as views of append-only bytes, each stretch of which is known to be the template's own or the context's. */
#include "engine/jinja/value.h"

#include <string.h>

static void add_span (JinjaWork *work, JinjaBytes *bytes, gsize begin, gsize end)
{
  if (begin == end)
    return;
  if (bytes->n_spans > 0 && bytes->spans[bytes->n_spans - 1].end == begin) {
    bytes->spans[bytes->n_spans - 1].end = end;
    return;
  }
  bytes->spans = jinja_grow (&work->heap, bytes->spans, sizeof (EngSpan), bytes->n_spans, &bytes->spans_capacity);
  bytes->spans[bytes->n_spans++] = (EngSpan){ begin, end };
}

/* The first span that ends after `at`. */
static const EngSpan *first_span (const JinjaBytes *bytes, gsize at)
{
  gsize low = 0, high = bytes->n_spans;
  while (low < high) {
    gsize middle = (low + high) / 2;
    if (bytes->spans[middle].end <= at)
      low = middle + 1;
    else
      high = middle;
  }
  return bytes->spans + low;
}

static gsize base_of (const JinjaString *string)
{
  return (gsize) (string->text - string->bytes->data);
}

static JinjaString *new_view (JinjaWork *work, JinjaBytes *bytes, gsize begin, gsize length)
{
  JinjaString *string = jinja_new (&work->heap, JinjaString, 1);
  string->bytes = bytes;
  string->text = bytes->data + begin;
  string->length = length;
  string->n_chars = G_MAXSIZE;
  string->is_safe = FALSE;
  return string;
}

static void check_length (JinjaWork *work, gsize used, gsize more)
{
  if (more > work->max_output || used > work->max_output - more)
    jinja_error (work, "the text becomes larger than %" G_GSIZE_FORMAT " MB; the template is broken or hostile, choose another",
                 work->max_output / 1000000);
  jinja_spend (work, more / 64);
}

void jinja_builder_init (JinjaWork *work, JinjaBuilder *builder)
{
  builder->work = work;
  builder->bytes = jinja_new (&work->heap, JinjaBytes, 1);
  builder->bytes->data = (char *) "";
}

void jinja_builder_add (JinjaBuilder *builder, const char *text, gsize length, gboolean from_context)
{
  JinjaBytes *bytes = builder->bytes;
  check_length (builder->work, bytes->used, length);
  if (bytes->used + length > bytes->capacity) {
    bytes->capacity = MAX (bytes->used + length, MAX (32, bytes->capacity * 2));
    char *larger = jinja_alloc (&builder->work->heap, bytes->capacity + 1);
    memcpy (larger, bytes->data, bytes->used);
    bytes->data = larger;
  }
  memcpy (bytes->data + bytes->used, text, length);
  if (from_context)
    add_span (builder->work, bytes, bytes->used, bytes->used + length);
  bytes->used += length;
}

void jinja_builder_add_text (JinjaBuilder *builder, const char *text)
{
  jinja_builder_add (builder, text, strlen (text), FALSE);
}

/* The origins of bytes [begin, begin + length) of `from`, which are at `at` in `to`. */
static void copy_spans (JinjaWork *work, JinjaBytes *to, gsize at, const JinjaBytes *from, gsize begin, gsize length)
{
  gsize end = begin + length, n = from->n_spans; /* `to` may be `from`, growing */
  for (gsize i = (gsize) (first_span (from, begin) - from->spans); i < n && from->spans[i].begin < end; i++) {
    gsize a = MAX (from->spans[i].begin, begin), b = MIN (from->spans[i].end, end);
    add_span (work, to, at + a - begin, at + b - begin);
  }
}

void jinja_builder_add_string (JinjaBuilder *builder, const JinjaString *string)
{
  gsize at = builder->bytes->used;
  jinja_builder_add (builder, string->text, string->length, FALSE);
  copy_spans (builder->work, builder->bytes, at, string->bytes, base_of (string), string->length);
}

JinjaValue jinja_builder_finish (JinjaBuilder *builder)
{
  return (JinjaValue){ .type = JINJA_STRING, .string = new_view (builder->work, builder->bytes, 0, builder->bytes->used) };
}

JinjaValue jinja_string (JinjaWork *work, const char *text, gsize length, gboolean from_context)
{
  JinjaBuilder builder;
  jinja_builder_init (work, &builder);
  jinja_builder_add (&builder, text, length, from_context);
  return jinja_builder_finish (&builder);
}

JinjaValue jinja_escape (JinjaWork *work, JinjaString *string)
{
  static const char letters[] = "&<>\"'";
  static const char *const names[] = { "&amp;", "&lt;", "&gt;", "&#34;", "&#39;" };
  JinjaBuilder builder;
  JinjaCursor c;
  if (string->is_safe)
    return (JinjaValue){ .type = JINJA_STRING, .string = string };
  jinja_builder_init (work, &builder);
  for (jinja_cursor_init (&c, string); jinja_cursor_next (&c);) {
    const char *letter = c.code != 0 && c.code < 0x80 ? strchr (letters, (int) c.code) : NULL;
    const char *text = letter != NULL ? names[letter - letters] : c.text;
    jinja_builder_add (&builder, text, letter != NULL ? strlen (text) : c.length, c.from_context);
  }
  JinjaValue escaped = jinja_builder_finish (&builder);
  escaped.string->is_safe = TRUE;
  return escaped;
}

JinjaValue jinja_string_concat (JinjaWork *work, const JinjaString *a, const JinjaString *b)
{
  JinjaBytes *bytes = a->bytes;
  if (a->length == 0 || b->length == 0) {
    const JinjaString *all = a->length == 0 ? b : a;
    return jinja_string_slice (work, all, 0, all->length);
  }
  if (base_of (a) + a->length != bytes->used || bytes->capacity - bytes->used < b->length || bytes->capacity == 0) {
    JinjaBuilder builder; /* with room to grow, so that text gathered piece by piece is not copied each time */
    jinja_builder_init (work, &builder);
    check_length (work, a->length, b->length);
    builder.bytes->capacity = 2 * (a->length + b->length);
    builder.bytes->data = jinja_alloc (&work->heap, builder.bytes->capacity + 1);
    jinja_builder_add_string (&builder, a);
    jinja_builder_add_string (&builder, b);
    return jinja_builder_finish (&builder);
  }
  check_length (work, a->length, b->length);
  gsize at = bytes->used, begin = base_of (a), b_begin = base_of (b);
  memcpy (bytes->data + at, b->text, b->length);
  bytes->used += b->length;
  copy_spans (work, bytes, at, b->bytes, b_begin, b->length);
  return (JinjaValue){ .type = JINJA_STRING, .string = new_view (work, bytes, begin, a->length + b->length) };
}

JinjaValue jinja_string_slice (JinjaWork *work, const JinjaString *string, gsize begin, gsize end)
{
  return (JinjaValue){ .type = JINJA_STRING, .string = new_view (work, string->bytes, base_of (string) + begin, end - begin) };
}

gsize jinja_string_chars (JinjaString *string)
{
  if (string->n_chars == G_MAXSIZE) {
    gsize n = 0;
    for (gsize i = 0; i < string->length; i++)
      n += ((guint8) string->text[i] & 0xC0) != 0x80;
    string->n_chars = n;
  }
  return string->n_chars;
}

gsize jinja_string_offset (JinjaWork *work, JinjaString *string, gsize chars)
{
  if (jinja_string_chars (string) == string->length)
    return chars;
  jinja_spend (work, chars / 16);
  const char *p = string->text;
  for (; chars > 0; chars--)
    p = g_utf8_next_char (p);
  return (gsize) (p - string->text);
}

gboolean jinja_string_is (const JinjaString *string, const char *text)
{
  return strncmp (string->text, text, string->length) == 0 && text[string->length] == '\0' &&
         memchr (string->text, '\0', string->length) == NULL;
}

gboolean jinja_string_from_context (const JinjaString *string)
{
  const EngSpan *span = first_span (string->bytes, base_of (string));
  return span < string->bytes->spans + string->bytes->n_spans && span->begin < base_of (string) + string->length;
}

void jinja_cursor_init (JinjaCursor *cursor, const JinjaString *string)
{
  *cursor = (JinjaCursor){ .at = string->text, .end = string->text + string->length, .begin = string->text, .base = base_of (string),
                           .span = first_span (string->bytes, base_of (string)),
                           .span_end = string->bytes->spans + string->bytes->n_spans };
}

gboolean jinja_cursor_next (JinjaCursor *cursor)
{
  if (cursor->at >= cursor->end)
    return FALSE;
  gsize at = cursor->base + (gsize) (cursor->at - cursor->begin);
  while (cursor->span < cursor->span_end && cursor->span->end <= at)
    cursor->span++;
  cursor->from_context = cursor->span < cursor->span_end && cursor->span->begin <= at;
  cursor->text = cursor->at;
  cursor->code = g_utf8_get_char (cursor->at);
  cursor->at = g_utf8_next_char (cursor->at);
  cursor->length = (guint) (cursor->at - cursor->text);
  return TRUE;
}
