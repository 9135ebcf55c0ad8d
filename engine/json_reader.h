/* json_reader.h: JSON (RFC 8259) read strictly, event by event or as a tree. For text that anybody may have written: nesting is bounded, and
 * an error says at which byte. */
#ifndef ENG_JSON_READER_H
#define ENG_JSON_READER_H

#include <json-glib/json-glib.h>

enum { ENG_JSON_MAX_DEPTH = 128 };

typedef enum {
  ENG_JSON_ERROR, /* the error is set; so is each event after it */
  ENG_JSON_DONE,  /* the whole text was read */
  ENG_JSON_OBJECT, ENG_JSON_OBJECT_END, ENG_JSON_ARRAY, ENG_JSON_ARRAY_END,
  ENG_JSON_KEY, ENG_JSON_STRING, /* `string` */
  ENG_JSON_INT,    /* `integer`, and `number` as well */
  ENG_JSON_NUMBER, /* `number` */
  ENG_JSON_TRUE, ENG_JSON_FALSE, ENG_JSON_NULL
} EngJsonEvent;

typedef struct {
  const char *text, *at, *end;
  const char *event_begin; /* where the last event's own text begins; `at` is where it ends */
  guint depth;
  guint8 closing[ENG_JSON_MAX_DEPTH];
  guint8 expects;
  GString *string; /* decoded; may hold NUL */
  gint64 integer;
  double number;
  GError *error;
} EngJsonReader;

/* text stays the caller's, and must stay. */
void eng_json_reader_init (EngJsonReader *reader, const char *text, gsize length);
void eng_json_reader_clear (EngJsonReader *reader);
EngJsonEvent eng_json_next (EngJsonReader *reader);
/* Passes over the value that `event` begins. FALSE: an error is in it. */
gboolean eng_json_skip (EngJsonReader *reader, EngJsonEvent event);

/* A text as a tree. ENG_ERROR_FORMAT with a part of a sentence ("is no JSON: ... at byte 7"); strings with a NUL are refused. */
JsonNode *eng_json_parse (const char *text, gsize length, GError **error);

#endif
