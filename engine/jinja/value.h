/* value.h: the values of a template, with Python's semantics, and text that remembers which of its bytes a person typed. */
#ifndef ENG_JINJA_VALUE_H
#define ENG_JINJA_VALUE_H

#include "engine/jinja/chat_template.h"
#include "engine/jinja/heap.h"

typedef enum {
  JINJA_UNDEFINED, JINJA_NONE, JINJA_BOOL, JINJA_INT, JINJA_FLOAT, JINJA_STRING, JINJA_LIST, JINJA_DICT, JINJA_NAMESPACE,
  JINJA_BUILTIN, JINJA_MACRO, JINJA_LOOP
} JinjaType;

/* Lists of every Python kind; they differ in how they print and in what may be done with them. */
typedef enum { JINJA_KIND_LIST, JINJA_KIND_TUPLE, JINJA_KIND_RANGE, JINJA_KIND_VIEW, JINJA_KIND_GENERATOR } JinjaListKind;

/* Bytes only ever appended to; strings are views of them, so a view of their end can grow in place. `spans`, in order and apart, are the
 * stretches that came from the context. */
typedef struct {
  char *data;
  gsize used, capacity;
  EngSpan *spans;
  gsize n_spans, spans_capacity;
} JinjaBytes;

typedef struct {
  JinjaBytes *bytes;
  const char *text; /* inside bytes->data; valid UTF-8 */
  gsize length;
  gsize n_chars;    /* code points, G_MAXSIZE until counted */
  gboolean is_safe; /* markupsafe's Markup: what is added to it is escaped for HTML */
} JinjaString;

typedef struct JinjaValue JinjaValue;
typedef struct JinjaList JinjaList;
typedef struct JinjaDict JinjaDict;
typedef struct JinjaBound JinjaBound;
typedef struct JinjaMacro JinjaMacro;
typedef struct JinjaLoop JinjaLoop;

struct JinjaValue {
  JinjaType type;
  union {
    const char *why;     /* UNDEFINED: what an error says, "'x' is undefined" */
    gboolean boolean;
    gint64 integer;
    double real;
    JinjaString *string;
    JinjaList *list;
    JinjaDict *dict;     /* DICT and NAMESPACE */
    JinjaBound *bound;   /* BUILTIN */
    JinjaMacro *macro;
    JinjaLoop *loop;
  };
};

struct JinjaList {
  JinjaListKind kind;
  JinjaValue *items;
  gsize n, capacity;
  gsize taken;           /* GENERATOR: how many were used up */
  const char *view_name; /* VIEW: "dict_items" */
  gint64 begin, end, step; /* RANGE, as it was asked for */
};

typedef struct { JinjaValue key, value; } JinjaPair;

struct JinjaDict {
  JinjaPair *pairs; /* in order of insertion */
  gsize n, capacity;
};

/* What bounds a rendering besides its memory. */
typedef struct {
  JinjaHeap heap;
  gint64 steps_left;
  gsize max_output; /* bytes of any one text */
  guint depth;      /* of nested evaluation */
  guint line;       /* of the node being evaluated */
} JinjaWork;

#define JINJA_MAX_DEPTH 800

/* Counts work; fails when there has been too much. */
void jinja_spend (JinjaWork *work, gsize steps);
/* An error in the line being evaluated. */
#define jinja_error(work, ...) jinja_fail (&(work)->heap, (work)->line, __VA_ARGS__)
void jinja_enter (JinjaWork *work); /* nesting; fails past JINJA_MAX_DEPTH */
#define jinja_leave(work) ((work)->depth--)

/* value.c */
JinjaValue jinja_undefined (JinjaWork *work, const char *format, ...) G_GNUC_PRINTF (2, 3);
JinjaValue jinja_bool (gboolean boolean);
JinjaValue jinja_int (gint64 integer);
JinjaValue jinja_float (double real);
JinjaValue jinja_none (void);
JinjaValue jinja_list_new (JinjaWork *work, JinjaListKind kind, gsize capacity);
void jinja_list_add (JinjaWork *work, JinjaList *list, JinjaValue item);
JinjaValue jinja_dict_new (JinjaWork *work, JinjaType type);
void jinja_dict_set (JinjaWork *work, JinjaDict *dict, JinjaValue key, JinjaValue value);
const JinjaValue *jinja_dict_find (JinjaWork *work, const JinjaDict *dict, JinjaValue key);
const JinjaValue *jinja_dict_find_name (JinjaWork *work, const JinjaDict *dict, const char *name);
void jinja_check_hashable (JinjaWork *work, JinjaValue key);
gboolean jinja_truth (JinjaValue value);
gboolean jinja_is_number (JinjaValue value); /* bool, int, float */
double jinja_to_double (JinjaValue value);
gboolean jinja_equal (JinjaWork *work, JinjaValue a, JinjaValue b);
int jinja_compare (JinjaWork *work, JinjaValue a, JinjaValue b, const char *operator); /* fails for what has no order */
const char *jinja_type_name (JinjaValue value); /* Python's */
/* The items one gets by iterating: characters of a string, keys of a dict. Fails for what cannot be iterated. */
JinjaList *jinja_iterate (JinjaWork *work, JinjaValue value);
gboolean jinja_is_iterable (JinjaValue value);

/* text.c */
typedef struct {
  JinjaWork *work;
  JinjaBytes *bytes;
} JinjaBuilder;

void jinja_builder_init (JinjaWork *work, JinjaBuilder *builder);
void jinja_builder_add (JinjaBuilder *builder, const char *text, gsize length, gboolean from_context);
void jinja_builder_add_text (JinjaBuilder *builder, const char *text);
void jinja_builder_add_string (JinjaBuilder *builder, const JinjaString *string);
JinjaValue jinja_builder_finish (JinjaBuilder *builder);
JinjaValue jinja_string (JinjaWork *work, const char *text, gsize length, gboolean from_context);
/* "&<>'" and '"' as HTML writes them, and safe from then on; what is safe already stays. */
JinjaValue jinja_escape (JinjaWork *work, JinjaString *string);
JinjaValue jinja_string_concat (JinjaWork *work, const JinjaString *a, const JinjaString *b);
/* bytes [begin, end) of a string, sharing them. */
JinjaValue jinja_string_slice (JinjaWork *work, const JinjaString *string, gsize begin, gsize end);
gsize jinja_string_chars (JinjaString *string);
/* Byte offset of the character with that number (0..n_chars). */
gsize jinja_string_offset (JinjaWork *work, JinjaString *string, gsize chars);
gboolean jinja_string_is (const JinjaString *string, const char *text);
/* Whether any of it came from the context, and whether the byte at `offset` did. */
gboolean jinja_string_from_context (const JinjaString *string);

/* Walks a string's characters with their origin. */
typedef struct {
  const char *at, *end, *begin;
  gsize base;             /* of the string in its bytes */
  const EngSpan *span, *span_end;
  const char *text;       /* the character */
  guint length;
  gunichar code;
  gboolean from_context;
} JinjaCursor;
void jinja_cursor_init (JinjaCursor *cursor, const JinjaString *string);
gboolean jinja_cursor_next (JinjaCursor *cursor);

/* print.c: Python's str() and repr(). */
void jinja_print (JinjaBuilder *builder, JinjaValue value);
void jinja_print_repr (JinjaBuilder *builder, JinjaValue value);
JinjaString *jinja_to_string (JinjaWork *work, JinjaValue value);
void jinja_format_float (double real, char *buffer, gsize size);

/* json.c */
JinjaValue jinja_from_json (JinjaWork *work, JsonNode *node);
JinjaValue jinja_from_context (JinjaWork *work, JsonObject *context);
JinjaValue jinja_to_json (JinjaWork *work, JinjaValue value, int indent, const char *item_separator, const char *key_separator,
                          gboolean ensure_ascii, gboolean sort_keys); /* indent -1: on one line */

#endif
