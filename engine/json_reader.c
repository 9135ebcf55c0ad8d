/* json_reader.c: JSON as a sequence of events, without recursion, from text that is not trusted. */
#include "engine/json_reader.h"

#include "engine/error.h"
#include "engine/tokenizer/utf8.h"

#include <errno.h>
#include <string.h>

typedef enum { VALUE, VALUE_OR_END, KEY, KEY_OR_END, COMMA_OR_END, NOTHING } Expects;

void eng_json_reader_init (EngJsonReader *reader, const char *text, gsize length)
{
  *reader = (EngJsonReader){ .text = text, .at = text, .end = text + length, .string = g_string_new (NULL) };
  if (length >= 3 && memcmp (text, "\xEF\xBB\xBF", 3) == 0) /* a byte order mark */
    reader->at += 3;
}

void eng_json_reader_clear (EngJsonReader *reader)
{
  g_string_free (reader->string, TRUE);
  g_clear_error (&reader->error);
}

static EngJsonEvent fail (EngJsonReader *reader, const char *what)
{
  if (reader->error == NULL)
    g_set_error (&reader->error, ENG_ERROR, ENG_ERROR_FORMAT, "is no JSON: %s at byte %" G_GSIZE_FORMAT, what, (gsize) (reader->at - reader->text) + 1);
  return ENG_JSON_ERROR;
}

static void skip_space (EngJsonReader *reader)
{
  while (reader->at < reader->end && (*reader->at == ' ' || *reader->at == '\n' || *reader->at == '\t' || *reader->at == '\r'))
    reader->at++;
}

/* ---- strings -------------------------------------------------------------------------------------------------------------- */

/* Four hexadecimal digits at p, or -1. */
static int read_unit (const EngJsonReader *reader, const char *p)
{
  int unit = 0;
  if (reader->end - p < 4)
    return -1;
  for (guint i = 0; i < 4; i++) {
    int digit = g_ascii_xdigit_value (p[i]);
    if (digit < 0)
      return -1;
    unit = unit * 16 + digit;
  }
  return unit;
}

/* at is behind "\u". A surrogate without its other half becomes U+FFFD. */
static gboolean read_unicode_escape (EngJsonReader *reader)
{
  int unit = read_unit (reader, reader->at);
  if (unit < 0)
    return FALSE;
  reader->at += 4;
  gunichar c = (gunichar) unit;
  if (unit >= 0xD800 && unit < 0xE000) {
    int low = unit < 0xDC00 && reader->end - reader->at >= 6 && reader->at[0] == '\\' && reader->at[1] == 'u' ? read_unit (reader, reader->at + 2) : -1;
    gboolean pair = low >= 0xDC00 && low < 0xE000;
    c = pair ? 0x10000 + (((gunichar) unit - 0xD800) << 10) + ((gunichar) low - 0xDC00) : 0xFFFD;
    reader->at += pair ? 6 : 0;
  }
  g_string_append_unichar (reader->string, c);
  return TRUE;
}

/* at is behind the opening quote. */
static gboolean read_string (EngJsonReader *reader)
{
  static const char letters[] = "\"\\/bfnrt", meant[] = "\"\\/\b\f\n\r\t";
  g_string_truncate (reader->string, 0);
  while (reader->at < reader->end) {
    const char *begin = reader->at;
    while (reader->at < reader->end && (guint8) *reader->at >= 0x20 && *reader->at != '"' && *reader->at != '\\') {
      guint32 c;
      reader->at += eng_utf8_next (reader->at, reader->end, &c);
      if (c == ENG_UTF8_BROKEN) {
        reader->at--;
        fail (reader, "bytes that are no UTF-8");
        return FALSE;
      }
    }
    g_string_append_len (reader->string, begin, reader->at - begin);
    if (reader->at == reader->end)
      break;
    char c = *reader->at++;
    if (c == '"')
      return TRUE;
    if (c != '\\') {
      fail (reader, "a control character in a string");
      return FALSE;
    }
    c = reader->at < reader->end ? *reader->at++ : '\0';
    const char *at = c != '\0' ? strchr (letters, c) : NULL;
    if (at != NULL) {
      g_string_append_c (reader->string, meant[at - letters]);
    } else if (c != 'u' || !read_unicode_escape (reader)) {
      fail (reader, "a broken escape in a string");
      return FALSE;
    }
  }
  fail (reader, "a string without an end");
  return FALSE;
}

/* ---- values --------------------------------------------------------------------------------------------------------------- */

static EngJsonEvent read_number (EngJsonReader *reader)
{
  const char *begin = reader->at, *p = begin;
  gboolean whole = TRUE;
  p += p < reader->end && *p == '-';
  const char *digits = p;
  while (p < reader->end && g_ascii_isdigit (*p))
    p++;
  if (p == digits || (*digits == '0' && p - digits > 1))
    return fail (reader, "something that is no value");
  if (p < reader->end && *p == '.') {
    whole = FALSE;
    for (digits = ++p; p < reader->end && g_ascii_isdigit (*p); p++)
      ;
    if (p == digits)
      return fail (reader, "a broken number");
  }
  if (p < reader->end && (*p == 'e' || *p == 'E')) {
    whole = FALSE;
    p++;
    p += p < reader->end && (*p == '+' || *p == '-');
    for (digits = p; p < reader->end && g_ascii_isdigit (*p); p++)
      ;
    if (p == digits)
      return fail (reader, "a broken number");
  }
  if (p - begin > 1000)
    return fail (reader, "a number of more than a thousand digits");
  g_string_truncate (reader->string, 0);
  g_string_append_len (reader->string, begin, p - begin);
  reader->at = p;
  reader->number = g_ascii_strtod (reader->string->str, NULL);
  errno = 0;
  reader->integer = whole ? g_ascii_strtoll (reader->string->str, NULL, 10) : 0;
  return whole && errno == 0 ? ENG_JSON_INT : ENG_JSON_NUMBER;
}

static gboolean take_word (EngJsonReader *reader, const char *word)
{
  gsize n = strlen (word);
  if ((gsize) (reader->end - reader->at) < n || memcmp (reader->at, word, n) != 0)
    return FALSE;
  reader->at += n;
  return TRUE;
}

static EngJsonEvent open_value (EngJsonReader *reader, char opening)
{
  if (reader->depth == ENG_JSON_MAX_DEPTH)
    return fail (reader, "values nested too deeply");
  reader->at++;
  reader->closing[reader->depth++] = opening == '{' ? '}' : ']';
  reader->expects = opening == '{' ? KEY_OR_END : VALUE_OR_END;
  return opening == '{' ? ENG_JSON_OBJECT : ENG_JSON_ARRAY;
}

static EngJsonEvent close_value (EngJsonReader *reader)
{
  char closing = (char) reader->closing[--reader->depth];
  reader->at++;
  reader->expects = reader->depth > 0 ? COMMA_OR_END : NOTHING;
  return closing == '}' ? ENG_JSON_OBJECT_END : ENG_JSON_ARRAY_END;
}

static EngJsonEvent read_value (EngJsonReader *reader)
{
  char c = *reader->at;
  if (c == '{' || c == '[')
    return open_value (reader, c);
  reader->expects = reader->depth > 0 ? COMMA_OR_END : NOTHING;
  if (c == '"') {
    reader->at++;
    return read_string (reader) ? ENG_JSON_STRING : ENG_JSON_ERROR;
  }
  return take_word (reader, "true") ? ENG_JSON_TRUE : take_word (reader, "false") ? ENG_JSON_FALSE : take_word (reader, "null") ? ENG_JSON_NULL
                                                                                                                        : read_number (reader);
}

static EngJsonEvent read_key (EngJsonReader *reader)
{
  if (*reader->at != '"')
    return fail (reader, "something that is no name");
  reader->at++;
  if (!read_string (reader))
    return ENG_JSON_ERROR;
  const char *key_end = reader->at;
  skip_space (reader);
  if (reader->at == reader->end || *reader->at != ':') {
    reader->at = key_end;
    return fail (reader, "a name without a colon");
  }
  reader->at++;
  reader->expects = VALUE;
  return ENG_JSON_KEY;
}

EngJsonEvent eng_json_next (EngJsonReader *reader)
{
  if (reader->error != NULL)
    return ENG_JSON_ERROR;
  skip_space (reader);
  if (reader->expects == COMMA_OR_END && reader->at < reader->end && *reader->at == ',') {
    reader->at++;
    skip_space (reader);
    reader->expects = reader->closing[reader->depth - 1] == '}' ? KEY : VALUE;
  }
  reader->event_begin = reader->at;
  if (reader->at == reader->end)
    return reader->expects == NOTHING ? ENG_JSON_DONE : fail (reader, "the text ends early");
  gboolean may_close = reader->expects == KEY_OR_END || reader->expects == VALUE_OR_END || reader->expects == COMMA_OR_END;
  if (may_close && (guint8) *reader->at == reader->closing[reader->depth - 1])
    return close_value (reader);
  if (reader->expects == NOTHING || reader->expects == COMMA_OR_END)
    return fail (reader, reader->expects == NOTHING ? "more than one value" : "a comma is missing");
  return reader->expects == KEY || reader->expects == KEY_OR_END ? read_key (reader) : read_value (reader);
}

gboolean eng_json_skip (EngJsonReader *reader, EngJsonEvent event)
{
  if (event != ENG_JSON_OBJECT && event != ENG_JSON_ARRAY)
    return event != ENG_JSON_ERROR;
  for (guint depth = reader->depth; reader->depth >= depth;)
    if (eng_json_next (reader) == ENG_JSON_ERROR)
      return FALSE;
  return TRUE;
}

/* ---- trees ---------------------------------------------------------------------------------------------------------------- */

static JsonNode *leaf (EngJsonReader *reader, EngJsonEvent event)
{
  JsonNode *node = json_node_alloc ();
  switch (event) {
  case ENG_JSON_STRING:
    return json_node_init_string (node, reader->string->str);
  case ENG_JSON_INT:
    return json_node_init_int (node, reader->integer);
  case ENG_JSON_NUMBER:
    return json_node_init_double (node, reader->number);
  case ENG_JSON_TRUE:
  case ENG_JSON_FALSE:
    return json_node_init_boolean (node, event == ENG_JSON_TRUE);
  default:
    return json_node_init_null (node);
  }
}

static void put (JsonNode *parent, const char *key, JsonNode *child)
{
  if (JSON_NODE_HOLDS_OBJECT (parent))
    json_object_set_member (json_node_get_object (parent), key, child);
  else
    json_array_add_element (json_node_get_array (parent), child);
}

JsonNode *eng_json_parse (const char *text, gsize length, GError **error)
{
  EngJsonReader reader;
  JsonNode *open[ENG_JSON_MAX_DEPTH + 1], *root = NULL;
  char *keys[ENG_JSON_MAX_DEPTH + 1] = { NULL }; /* under which open[i] stands, and at the end the next value */
  guint n = 0;
  EngJsonEvent event;
  eng_json_reader_init (&reader, text, length);
  while ((event = eng_json_next (&reader)) > ENG_JSON_DONE) {
    if ((event == ENG_JSON_KEY || event == ENG_JSON_STRING) && strlen (reader.string->str) != reader.string->len) {
      fail (&reader, "a string with a NUL character");
      break;
    }
    JsonNode *node = NULL;
    if (event == ENG_JSON_KEY) {
      g_free (keys[n]);
      keys[n] = g_strdup (reader.string->str);
    } else if (event == ENG_JSON_OBJECT || event == ENG_JSON_ARRAY) {
      open[n] = event == ENG_JSON_OBJECT ? json_node_init_object (json_node_alloc (), NULL) : json_node_init_array (json_node_alloc (), NULL);
      if (event == ENG_JSON_OBJECT)
        json_node_take_object (open[n], json_object_new ());
      else
        json_node_take_array (open[n], json_array_new ());
      n++;
    } else if (event == ENG_JSON_OBJECT_END || event == ENG_JSON_ARRAY_END) {
      g_clear_pointer (&keys[n], g_free);
      node = open[--n];
    } else {
      node = leaf (&reader, event);
    }
    if (node != NULL && n > 0)
      put (open[n - 1], keys[n], node);
    else if (node != NULL)
      root = node;
  }
  for (guint i = 0; i <= ENG_JSON_MAX_DEPTH; i++)
    g_free (keys[i]);
  if (reader.error != NULL) {
    while (n > 0)
      json_node_unref (open[--n]);
    g_clear_pointer (&root, json_node_unref);
    g_propagate_error (error, g_steal_pointer (&reader.error));
  }
  eng_json_reader_clear (&reader);
  return root;
}
