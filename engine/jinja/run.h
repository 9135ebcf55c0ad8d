/* run.h: a rendering: scopes, calls, and the tables of filters, tests, methods and globals. */
#ifndef ENG_JINJA_RUN_H
#define ENG_JINJA_RUN_H

#include "engine/jinja/syntax.h"

typedef struct JinjaFrame JinjaFrame;
struct JinjaFrame { /* one scope */
  JinjaFrame *parent;
  struct { const char *name; JinjaValue value; } *variables;
  gsize n, capacity;
};

typedef struct {
  JinjaWork work;      /* first: a run is a JinjaWork */
  JinjaFrame *context; /* outermost scope: what the caller gave */
  JinjaBuilder *out;   /* where output goes now */
  JinjaValue captured; /* text that a {% filter %} or {% set %} block works on */
  guint loop_depth;
} JinjaRun;

/* Arguments. Bound: exactly one per parameter, jinja_is_absent where none was given. Raw: as they came. */
typedef struct {
  JinjaValue *args;
  gsize n;
  JinjaPair *named; /* keys are strings */
  gsize n_named;
} JinjaCall;

typedef JinjaValue (*JinjaFunction) (JinjaRun *run, JinjaValue self, const JinjaCall *call);

typedef struct JinjaBuiltin {
  const char *name;
  const char *parameters; /* "!needed other": bound; NULL: raw */
  JinjaFunction function;
} JinjaBuiltin;

struct JinjaBound {
  const JinjaBuiltin *builtin;
  JinjaValue self;
};

struct JinjaMacro {
  const JinjaNode *node;
  JinjaFrame *frame;  /* where it was defined */
};

struct JinjaLoop {
  const JinjaNode *node;
  JinjaFrame *frame;  /* around the loop */
  JinjaList *items;
  gsize index;
  guint depth;        /* 0 for the outermost of a recursive loop */
  gboolean has_changed;
  JinjaValue changed; /* what loop.changed() saw last */
};

typedef enum { JINJA_FLOW_NEXT, JINJA_FLOW_BREAK, JINJA_FLOW_CONTINUE } JinjaFlow;

static inline gboolean jinja_is_absent (JinjaValue value)
{
  return value.type == JINJA_UNDEFINED && value.why == NULL;
}

/* execute.c */
JinjaFlow jinja_execute (JinjaRun *run, const JinjaNodes *body, JinjaFrame *frame);
JinjaFrame *jinja_frame_new (JinjaRun *run, JinjaFrame *parent);
void jinja_frame_set (JinjaRun *run, JinjaFrame *frame, const char *name, JinjaValue value);
JinjaValue jinja_execute_captured (JinjaRun *run, const JinjaNodes *body, JinjaFrame *frame);
void jinja_execute_loop (JinjaRun *run, const JinjaNode *node, JinjaFrame *frame, JinjaValue iterable, guint depth);

/* evaluate.c */
JinjaValue jinja_evaluate (JinjaRun *run, const JinjaNode *node, JinjaFrame *frame);
gboolean jinja_contains (JinjaRun *run, JinjaValue container, JinjaValue item);

/* access.c */
JinjaValue jinja_attribute (JinjaRun *run, JinjaValue value, const char *name);
JinjaValue jinja_item (JinjaRun *run, JinjaValue value, JinjaValue key);
JinjaValue jinja_slice (JinjaRun *run, JinjaValue value, JinjaValue start, JinjaValue stop, JinjaValue step); /* none: left out */
JinjaValue jinja_path (JinjaRun *run, JinjaValue value, JinjaValue path); /* "a.b.0", or a number */

/* arithmetic.c */
JinjaValue jinja_binary (JinjaRun *run, const char *operator, JinjaValue a, JinjaValue b);
JinjaValue jinja_negative (JinjaRun *run, JinjaValue a, gboolean negate);
JinjaValue jinja_percent_format (JinjaRun *run, JinjaString *format, JinjaValue arguments);
JinjaValue jinja_brace_format (JinjaRun *run, JinjaString *format, const JinjaCall *call);

/* call.c */
JinjaCall jinja_arguments (JinjaRun *run, const JinjaNode *node, JinjaFrame *frame);
JinjaValue jinja_call (JinjaRun *run, JinjaValue callee, const JinjaCall *call);
JinjaValue jinja_call_builtin (JinjaRun *run, const JinjaBuiltin *builtin, JinjaValue self, const JinjaCall *call, const char *kind);
JinjaValue jinja_bind (JinjaRun *run, const JinjaBuiltin *builtin, JinjaValue self);
/* Filter or test by name, as map() and select() call them. */
JinjaValue jinja_call_filter (JinjaRun *run, const char *name, const JinjaBuiltin *filter, JinjaValue subject, const JinjaCall *call);
gboolean jinja_call_test (JinjaRun *run, const char *name, const JinjaBuiltin *test, JinjaValue subject, const JinjaCall *call);
/* Reading a bound argument: its value, the fallback when absent, an error naming the parameter when of another kind. */
gint64 jinja_argument_int (JinjaRun *run, const JinjaCall *call, gsize i, gint64 fallback);
gboolean jinja_argument_bool (JinjaRun *run, const JinjaCall *call, gsize i, gboolean fallback);
JinjaString *jinja_argument_string (JinjaRun *run, const JinjaCall *call, gsize i, const char *fallback);
JinjaString *jinja_need_string (JinjaRun *run, JinjaValue value, const char *what);
const char *jinja_c_string (JinjaRun *run, const JinjaString *string); /* NUL-terminated */

/* the tables */
const JinjaBuiltin *jinja_find_in (const JinjaBuiltin *table, const char *name); /* ends with a NULL name */
const JinjaBuiltin *jinja_find_filter (const char *name);
const JinjaBuiltin *jinja_find_test (const char *name);
const JinjaBuiltin *jinja_find_global (const char *name);
const JinjaBuiltin *jinja_find_method (JinjaValue value, const char *name);
extern const JinjaBuiltin jinja_text_filters[], jinja_sequence_filters[], jinja_number_filters[], jinja_string_methods[];

/* casing.c, shared by filters and methods */
typedef enum { JINJA_CASE_UPPER, JINJA_CASE_LOWER, JINJA_CASE_TITLE, JINJA_CASE_CAPITAL, JINJA_CASE_SWAP } JinjaCasing;
JinjaValue jinja_change_case (JinjaWork *work, const JinjaString *string, JinjaCasing casing);
/* text_search.c */
gssize jinja_find_text (JinjaWork *work, const JinjaString *string, const JinjaString *needle, gsize from); /* byte offset or -1 */
JinjaValue jinja_replace (JinjaRun *run, const JinjaString *string, const JinjaString *old, const JinjaString *with, gint64 most);
JinjaValue jinja_strip (JinjaRun *run, const JinjaString *string, const JinjaString *chars, gboolean left, gboolean right);
gboolean jinja_is_space (gunichar c);
JinjaValue jinja_split_lines (JinjaRun *run, const JinjaString *string, gboolean keep_ends);
JinjaValue jinja_center (JinjaRun *run, JinjaString *string, gint64 width, const JinjaString *fill);
JinjaValue jinja_join (JinjaRun *run, JinjaList *items, const JinjaString *separator, gboolean only_strings);
/* sequence.c: a stable sort; `path` may be absent */
JinjaList *jinja_sorted (JinjaRun *run, const JinjaList *list, JinjaValue path, gboolean reverse, gboolean case_sensitive);

#endif
