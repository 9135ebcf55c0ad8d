/* segments.c: a machine of a few states over the text; what may be the beginning of a mark waits for the rest of it. */
#include "engine/segments.h"

#include "engine/tool_calls.h"

#include <string.h>

typedef struct {
  const char *begin, *end; /* end NULL: with the text */
} Marks;

static const Marks thoughts[] = {
  { "<think>", "</think>" }, { "[THINK]", "[/THINK]" }, { "<|START_THINKING|>", "<|END_THINKING|>" }, { "<seed:think>", "</seed:think>" },
  { "<thinking>", "</thinking>" }, { "<|inner_prefix|>", "<|inner_suffix|>" }, { "◁think▷", "◁/think▷" }, { "<|channel>thought", "<channel|>" },
};

static const Marks calls[] = {
  { "<tool_call>", "</tool_call>" }, { "<tool_calls>", "</tool_calls>" }, { "[TOOL_CALLS]", NULL }, { "<|tool_call|>", NULL }, { "<|python_tag|>", NULL },
  { "<|START_ACTION|>", "<|END_ACTION|>" }, { "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>" }, { "<|tool_calls_section_begin|>", "<|tool_calls_section_end|>" },
  { "<minimax:tool_call>", "</minimax:tool_call>" }, { "<seed:tool_call>", "</seed:tool_call>" }, { "<TOOLCALL>", "</TOOLCALL>" },
  { "<|tools_prefix|>", "<|tools_suffix|>" }, { "<|tool_call_start|>", "<|tool_call_end|>" }, { "<function=", "</function>" },
  { "<｜DSML｜function_calls>", "</｜DSML｜function_calls>" }, { "<｜DSML｜tool_calls>", "</｜DSML｜tool_calls>" }, { "functools[", NULL },
  { "<|tool_call>", "<tool_call|>" },
};

/* Control tokens within the above, and around answers. */
static const char *const others[] = {
  "<|channel|>", "<|message|>", "<|start|>", "<|end|>", "<|constrain|>", "<|START_RESPONSE|>", "<|END_RESPONSE|>", "<|START_TEXT|>", "<|END_TEXT|>",
  "<｜tool▁call▁begin｜>", "<｜tool▁sep｜>", "<｜tool▁call▁end｜>", "<|tool_call_begin|>", "<|tool_call_argument_begin|>", "<|tool_call_end|>", "[ARGS]", "[CALL_ID]",
  "<|/tool_call|>", "｜DSML｜", "<tool_sep>", "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>", "<|\"|>",
};

/* They enclose an answer, and are not part of it. */
static const Marks wrappings[] = { { "<|START_RESPONSE|>", "<|END_RESPONSE|>" }, { "<|START_TEXT|>", "<|END_TEXT|>" }, { "<response>", "</response>" } };

enum { MAX_HEADER = 256 /* bytes of a channel's name and what else stands before a message */ };

typedef enum {
  STATE_TEXT,      /* nothing is divided off */
  STATE_START,     /* nothing but white space has come */
  STATE_REASONING, /* until `mark`'s end */
  STATE_ANSWER,
  STATE_CALL,      /* until `mark`'s end, or the text's */
  STATE_HEADER,    /* gpt-oss: until <|message|>: who speaks, to whom, in which channel */
  STATE_MESSAGE    /* until <|end|> or the next <|start|> */
} State;

struct EngSegments {
  State state;
  const Marks *mark;
  EngTextKind kind;    /* of a message */
  gboolean channels;   /* gpt-oss's form */
  gboolean wrapped;    /* a mark encloses the answer */
  gboolean thought;    /* reasoning came: white space behind it is not the answer's */
  gboolean began;      /* the segment has given something */
  JsonArray *tools;
  GString *waiting;    /* what may be the beginning of a mark, or is not enough */
  gsize n_judged;      /* bytes of it, in a call, that may be one's beginning */
  GString *space;      /* white space that is given only where more follows */
  GString *recipient;  /* of a message: the function's name; "" for none */
  GString *out;
  EngTextFunc text;
  gpointer data;
};

/* ---- marks ---------------------------------------------------------------------------------------------------------------- */

static gboolean same (const char *mark, const char *piece, gsize length)
{
  return strlen (mark) == length && memcmp (mark, piece, length) == 0;
}

gboolean eng_segments_opens_reasoning (const char *piece, gsize length)
{
  for (guint i = 0; i < G_N_ELEMENTS (thoughts); i++)
    if (same (thoughts[i].begin, piece, length))
      return TRUE;
  return FALSE;
}

gboolean eng_segments_is_mark (const char *piece, gsize length)
{
  for (guint i = 0; i < G_N_ELEMENTS (thoughts); i++)
    if (same (thoughts[i].begin, piece, length) || same (thoughts[i].end, piece, length))
      return TRUE;
  for (guint i = 0; i < G_N_ELEMENTS (calls); i++)
    if (same (calls[i].begin, piece, length) || (calls[i].end != NULL && same (calls[i].end, piece, length)))
      return TRUE;
  for (guint i = 0; i < G_N_ELEMENTS (others); i++)
    if (same (others[i], piece, length))
      return TRUE;
  return same ("<|channel>", piece, length);
}

/* The end of the prompt's last opening of reasoning, where nothing closes it; what follows it is white space. */
static const Marks *opened_by (const char *prompt)
{
  gsize n = strlen (prompt);
  while (n > 0 && g_ascii_isspace (prompt[n - 1]))
    n--;
  for (guint i = 0; i < G_N_ELEMENTS (thoughts); i++)
    if (n >= strlen (thoughts[i].begin) && memcmp (prompt + n - strlen (thoughts[i].begin), thoughts[i].begin, strlen (thoughts[i].begin)) == 0)
      return &thoughts[i];
  return NULL;
}

static gboolean closed_by (const char *prompt)
{
  gsize n = strlen (prompt);
  while (n > 0 && g_ascii_isspace (prompt[n - 1]))
    n--;
  for (guint i = 0; i < G_N_ELEMENTS (thoughts); i++)
    if (n >= strlen (thoughts[i].end) && memcmp (prompt + n - strlen (thoughts[i].end), thoughts[i].end, strlen (thoughts[i].end)) == 0)
      return TRUE;
  return FALSE;
}

void eng_segments_strip_reasoning (char *prompt)
{
  gsize n = strlen (prompt);
  for (gboolean again = TRUE; again;) {
    again = FALSE;
    while (n > 0 && g_ascii_isspace (prompt[n - 1]))
      n--;
    prompt[n] = '\0';
    for (guint i = 0; i < G_N_ELEMENTS (thoughts) && !again; i++) {
      const char *mark = g_str_has_suffix (prompt, thoughts[i].begin) ? thoughts[i].begin : g_str_has_suffix (prompt, thoughts[i].end) ? thoughts[i].end : NULL;
      again = mark != NULL;
      n -= again ? strlen (mark) : 0;
    }
  }
}

const char *eng_segments_after_reasoning (const char *text, const char *end)
{
  const char *after = text;
  for (guint i = 0; i < G_N_ELEMENTS (thoughts); i++)
    for (const char *at; (at = memmem (after, (gsize) (end - after), thoughts[i].end, strlen (thoughts[i].end))) != NULL;)
      after = at + strlen (thoughts[i].end);
  return after == text ? text : after + MIN (strspn (after, " \r\n"), (gsize) (end - after));
}

EngSegments *eng_segments_new (const char *prompt, JsonArray *tools, EngTextFunc text, gpointer data)
{
  EngSegments *s = g_new0 (EngSegments, 1);
  s->tools = tools != NULL && json_array_get_length (tools) > 0 ? json_array_ref (tools) : NULL;
  s->waiting = g_string_new (NULL);
  s->space = g_string_new (NULL);
  s->recipient = g_string_new (NULL);
  s->out = g_string_new (NULL);
  s->text = text;
  s->data = data;
  s->channels = prompt != NULL && strstr (prompt, "<|start|>") != NULL;
  s->mark = prompt != NULL ? opened_by (prompt) : NULL;
  s->state = s->mark != NULL ? STATE_REASONING : prompt != NULL && g_str_has_suffix (prompt, "<|start|>assistant") ? STATE_HEADER : prompt != NULL && closed_by (prompt) ? STATE_ANSWER : STATE_START;
  s->thought = s->state == STATE_ANSWER;
  return s;
}

void eng_segments_free (EngSegments *s)
{
  if (s == NULL)
    return;
  g_clear_pointer (&s->tools, json_array_unref);
  g_string_free (s->waiting, TRUE);
  g_string_free (s->space, TRUE);
  g_string_free (s->recipient, TRUE);
  g_string_free (s->out, TRUE);
  g_free (s);
}

void eng_segments_begin_answer (EngSegments *s)
{
  s->state = STATE_ANSWER;
}

void eng_segments_divide_nothing (EngSegments *s)
{
  s->state = STATE_TEXT;
}

gboolean eng_segments_before_answer (const EngSegments *s)
{
  return s->state == STATE_REASONING || s->state == STATE_HEADER || (s->state == STATE_MESSAGE && s->kind != ENG_TEXT_ANSWER);
}

gboolean eng_segments_in_reasoning (const EngSegments *s)
{
  return s->state == STATE_REASONING || (s->state == STATE_MESSAGE && s->kind == ENG_TEXT_REASONING);
}

gboolean eng_segments_at_start (const EngSegments *s)
{
  return s->state == STATE_START;
}

/* ---- giving --------------------------------------------------------------------------------------------------------------- */

/* White space at either end of a segment that was divided off is the template's, not the text's. */
static void give (EngSegments *s, EngTextKind kind, const char *text, gsize length, gboolean tidy)
{
  if (tidy && !s->began)
    for (; length > 0 && g_ascii_isspace (*text); length--)
      text++;
  gsize kept = length;
  while (tidy && kept > 0 && g_ascii_isspace (text[kept - 1]))
    kept--;
  if (kept > 0) {
    g_string_truncate (s->out, 0);
    g_string_append_len (s->out, s->space->str, (gssize) s->space->len);
    g_string_append_len (s->out, text, (gssize) kept);
    g_string_truncate (s->space, 0);
    s->began = TRUE;
    if (s->text != NULL)
      s->text (kind, s->out->str, s->data);
  }
  if (s->began)
    g_string_append_len (s->space, text + kept, (gssize) (length - kept));
}

static void enter (EngSegments *s, State state)
{
  s->state = state;
  s->began = FALSE;
  g_string_truncate (s->space, 0);
}

/* Gives the calls, where the text is some. */
static gboolean give_calls (EngSegments *s, const char *text, gsize length)
{
  g_autoptr (GPtrArray) found = g_ptr_array_new_with_free_func (g_free);
  gboolean ok = s->recipient->len > 0 ? eng_tool_calls_add (s->recipient->str, s->recipient->len, text, length, found)
                                      : eng_tool_calls_parse (text, length, s->tools, s->mark == NULL, found);
  for (guint i = 0; i < found->len && s->text != NULL; i++)
    s->text (ENG_TEXT_CALL, g_ptr_array_index (found, i), s->data);
  if (ok) {
    enter (s, STATE_ANSWER);
    s->thought = TRUE; /* as after reasoning: the ends of what is left are the template's */
  }
  return ok;
}

/* ---- the machine ---------------------------------------------------------------------------------------------------------- */

typedef struct {
  gsize at;         /* where the first mark stands; waiting's length: none does */
  gsize safe;       /* so much of waiting is no beginning of one */
  const char *mark;
} Search;

static void look_for (const EngSegments *s, const char *mark, Search *search)
{
  const char *text = s->waiting->str, *found = memmem (text, s->waiting->len, mark, strlen (mark));
  if (found != NULL && (gsize) (found - text) < search->at) {
    search->at = (gsize) (found - text);
    search->mark = mark;
  }
  for (gsize k = MIN (strlen (mark) - 1, s->waiting->len); k > 0; k--)
    if (memcmp (text + s->waiting->len - k, mark, k) == 0) {
      search->safe = MIN (search->safe, s->waiting->len - k);
      return;
    }
}

static Search begin_search (const EngSegments *s)
{
  return (Search) { s->waiting->len, s->waiting->len, NULL };
}

/* Gives and takes what comes before the mark, or is safe; TRUE: the mark was there and is taken. */
static gboolean advance (EngSegments *s, const Search *search, EngTextKind kind, gboolean tidy)
{
  gsize n = search->mark != NULL ? search->at : search->safe;
  give (s, kind, s->waiting->str, n, tidy);
  g_string_erase (s->waiting, 0, (gssize) (n + (search->mark != NULL ? strlen (search->mark) : 0)));
  return search->mark != NULL;
}

/* FALSE: it waits for more. */
static gboolean run_start (EngSegments *s, gboolean at_end)
{
  const char *text = s->waiting->str;
  gsize blank = strspn (text, " \t\r\n"), n = s->waiting->len - blank;
  for (guint i = 0; i < G_N_ELEMENTS (thoughts); i++) {
    gsize length = strlen (thoughts[i].begin);
    if (n >= length && memcmp (text + blank, thoughts[i].begin, length) == 0) {
      g_string_erase (s->waiting, 0, (gssize) (blank + length));
      s->mark = &thoughts[i];
      enter (s, STATE_REASONING);
      return TRUE;
    }
    if (n < length && memcmp (text + blank, thoughts[i].begin, n) == 0 && !at_end)
      return FALSE;
  }
  enter (s, STATE_ANSWER);
  if (s->tools != NULL && (text[blank] == '{' || text[blank] == '[')) { /* Llama 3 writes a call as nothing but JSON */
    s->mark = NULL;
    s->n_judged = 0;
    s->state = STATE_CALL;
  }
  return TRUE;
}

static gboolean run_reasoning (EngSegments *s)
{
  Search search = begin_search (s);
  look_for (s, s->mark->end, &search);
  if (!advance (s, &search, ENG_TEXT_REASONING, TRUE))
    return FALSE;
  s->thought = TRUE;
  enter (s, STATE_ANSWER);
  return TRUE;
}

/* What of the mark is a part of the call, and not only before it. */
static const char *part_of (const Marks *mark)
{
  return mark == NULL ? "" : g_str_equal (mark->begin, "functools[") ? "[" : g_str_equal (mark->begin, "<function=") ? mark->begin : "";
}

static gboolean run_answer (EngSegments *s)
{
  Search search = begin_search (s);
  for (guint i = 0; s->tools != NULL && i < G_N_ELEMENTS (calls); i++)
    look_for (s, calls[i].begin, &search);
  for (guint i = 0; i < G_N_ELEMENTS (wrappings); i++) {
    gboolean control = wrappings[i].begin[1] == '|';
    if (control || (s->thought && !s->began)) /* elsewhere <response> is a word */
      look_for (s, wrappings[i].begin, &search);
    if (control || s->wrapped)
      look_for (s, wrappings[i].end, &search);
  }
  if (s->channels)
    look_for (s, "<|channel|>", &search);
  gsize blank = strspn (s->waiting->str, " \t\r\n");
  if (search.mark != NULL && g_str_equal (search.mark, "<response>") && search.at > blank) { /* something stands before it */
    give (s, ENG_TEXT_ANSWER, s->waiting->str, search.at, TRUE);
    g_string_erase (s->waiting, 0, (gssize) search.at);
    return TRUE;
  }
  if (!advance (s, &search, ENG_TEXT_ANSWER, s->thought || s->tools != NULL))
    return FALSE;
  s->wrapped |= g_str_equal (search.mark, "<response>");
  if (g_str_equal (search.mark, "<|channel|>")) {
    g_string_prepend (s->waiting, search.mark);
    s->channels = TRUE;
    enter (s, STATE_HEADER);
    return TRUE;
  }
  for (guint i = 0; i < G_N_ELEMENTS (calls); i++)
    if (g_str_equal (search.mark, calls[i].begin)) {
      s->mark = &calls[i];
      g_string_truncate (s->recipient, 0);
      s->n_judged = 0;
      s->state = STATE_CALL; /* the white space before it waits: it may be none */
      g_string_prepend (s->waiting, part_of (s->mark));
    }
  return TRUE;
}

/* What was taken for a call is none: the text goes on behind its mark, where another may stand. */
static gboolean leave_call (EngSegments *s)
{
  const char *begin = s->mark != NULL ? s->mark->begin : "";
  s->state = STATE_ANSWER;
  g_string_erase (s->waiting, 0, (gssize) strlen (part_of (s->mark)));
  give (s, ENG_TEXT_ANSWER, begin, strlen (begin), FALSE);
  return TRUE;
}

/* A call waits for its end; a text that cannot become one does not. Long ones are judged as they grow by a share, so that all judging is linear. */
static gboolean run_call (EngSegments *s, gboolean at_end)
{
  Search search = begin_search (s);
  if (s->mark != NULL && s->mark->end != NULL)
    look_for (s, s->mark->end, &search);
  if (search.mark == NULL && !at_end) {
    if (s->waiting->len <= s->n_judged + s->n_judged / 16)
      return FALSE;
    s->n_judged = s->waiting->len;
    return !eng_tool_calls_may_begin (s->waiting->str, search.safe, s->tools, s->mark == NULL) && leave_call (s);
  }
  g_autofree char *body = g_strndup (s->waiting->str, search.at);
  if (!give_calls (s, body, strlen (body)))
    return leave_call (s);
  g_string_erase (s->waiting, 0, (gssize) (search.at + (search.mark != NULL ? strlen (search.mark) : 0)));
  return s->waiting->len > 0;
}

/* " to=functions.weather<|channel|>commentary <|constrain|>json" */
static gboolean run_header (EngSegments *s)
{
  const char *text = s->waiting->str, *end = strstr (text, "<|message|>"), *to = strstr (text, "to="), *channel = strstr (text, "<|channel|>");
  if ((end != NULL ? (gsize) (end - text) : s->waiting->len) > MAX_HEADER) { /* it is none */
    s->kind = ENG_TEXT_ANSWER;
    g_string_truncate (s->recipient, 0);
    enter (s, STATE_MESSAGE);
    return TRUE;
  }
  if (end == NULL)
    return FALSE;
  g_string_truncate (s->recipient, 0);
  if (to != NULL && to < end)
    g_string_append_len (s->recipient, to + 3, (gssize) strcspn (to + 3, " <"));
  const char *name = channel != NULL && channel < end ? channel + strlen ("<|channel|>") : "final";
  s->kind = s->recipient->len > 0 ? ENG_TEXT_CALL : g_str_has_prefix (name, "analysis") ? ENG_TEXT_REASONING : ENG_TEXT_ANSWER;
  g_string_erase (s->waiting, 0, end - text + (gssize) strlen ("<|message|>"));
  enter (s, STATE_MESSAGE);
  return TRUE;
}

static gboolean run_message (EngSegments *s, gboolean at_end)
{
  Search search = begin_search (s);
  look_for (s, "<|end|>", &search);
  look_for (s, "<|start|>", &search);
  if (s->kind == ENG_TEXT_CALL) {
    if (search.mark == NULL && !at_end)
      return FALSE;
    g_autofree char *body = g_strndup (s->waiting->str, search.at);
    g_string_erase (s->waiting, 0, (gssize) (search.at + (search.mark != NULL ? strlen (search.mark) : 0)));
    if (!give_calls (s, body, strlen (body)))
      give (s, ENG_TEXT_ANSWER, body, strlen (body), FALSE);
  } else if (!advance (s, &search, s->kind, s->kind == ENG_TEXT_REASONING)) {
    return FALSE;
  }
  enter (s, STATE_HEADER);
  return s->waiting->len > 0;
}

static gboolean run_text (EngSegments *s)
{
  give (s, ENG_TEXT_ANSWER, s->waiting->str, s->waiting->len, FALSE);
  g_string_truncate (s->waiting, 0);
  return FALSE;
}

static gboolean run (EngSegments *s, gboolean at_end)
{
  switch (s->state) {
  case STATE_TEXT:
    return run_text (s);
  case STATE_START:
    return run_start (s, at_end);
  case STATE_REASONING:
    return run_reasoning (s);
  case STATE_ANSWER:
    return run_answer (s);
  case STATE_CALL:
    return run_call (s, at_end);
  case STATE_HEADER:
    return run_header (s);
  default:
    return run_message (s, at_end);
  }
}

void eng_segments_push (EngSegments *s, const char *text)
{
  g_string_append (s->waiting, text);
  while (s->waiting->len > 0 && run (s, FALSE))
    ;
}

void eng_segments_end (EngSegments *s)
{
  while ((s->waiting->len > 0 || s->state == STATE_CALL) && run (s, TRUE))
    ;
  gboolean reasoning = eng_segments_in_reasoning (s);
  /* A header that was cut off is not the answer's; one without any mark is no header. */
  if (s->state != STATE_HEADER || (strstr (s->waiting->str, "<|") == NULL && !g_str_has_prefix ("assistant", s->waiting->str)))
    give (s, reasoning ? ENG_TEXT_REASONING : ENG_TEXT_ANSWER, s->waiting->str, s->waiting->len, FALSE);
  if (s->space->len > 0 && !reasoning && !s->thought && s->text != NULL)
    s->text (ENG_TEXT_ANSWER, s->space->str, s->data);
  g_string_truncate (s->waiting, 0);
  g_string_truncate (s->space, 0);
}
