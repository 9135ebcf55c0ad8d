/* answer_text.c: the engine's own search for calls, of whatever tools; within a block of code a call is code. */
#include "app/ui/answer_text.h"

#include <glib/gi18n.h>
#include <json-glib/json-glib.h>
#include <string.h>

#include "engine/segments.h"

enum { MAX_ARGUMENTS = 300 /* characters that are shown */ };

struct _ValiseAnswerText {
  EngSegments *segments; /* NULL: the next text begins an answer */
  GString *shown;        /* since the last push */
  GString *line;         /* the last of what has been shown, while it is short enough to open a block of code */
  gboolean in_code;
};

/* Where blocks of code begin and end: lines of three backticks or tildes and more. */
static void follow_code (ValiseAnswerText *self, const char *text)
{
  for (; *text; text++) {
    if (*text != '\n') {
      if (self->line->len < 16)
        g_string_append_c (self->line, *text);
      continue;
    }
    const char *line = self->line->str + strspn (self->line->str, " ");
    if (g_str_has_prefix (line, "```") || g_str_has_prefix (line, "~~~"))
      self->in_code = !self->in_code;
    g_string_truncate (self->line, 0);
  }
}

/* A span of code, whatever backticks are in it. */
static char *code_span (const char *text)
{
  gsize longest = 0, run = 0;
  for (const char *at = text; *at; at++) {
    run = *at == '`' ? run + 1 : 0;
    longest = MAX (longest, run);
  }
  g_autofree char *fence = g_strnfill (longest + 1, '`');
  const char *space = longest > 0 ? " " : "";
  return g_strdup_printf ("%s%s%s%s%s", fence, space, text, space, fence);
}

/* "city: Paris, days: 3" of {"city": "Paris", "days": 3}, in one line. */
static char *describe_arguments (JsonObject *arguments)
{
  g_autoptr (GString) text = g_string_new (NULL);
  g_autoptr (GList) names = json_object_get_members (arguments);
  for (GList *name = names; name; name = name->next) {
    JsonNode *value = json_object_get_member (arguments, name->data);
    g_autofree char *json = JSON_NODE_HOLDS_VALUE (value) && json_node_get_value_type (value) == G_TYPE_STRING ? json_node_dup_string (value) : json_to_string (value, FALSE);
    g_string_append_printf (text, "%s%s: %s", text->len > 0 ? ", " : "", (char *) name->data, json);
  }
  g_strdelimit (text->str, "\r\n\t", ' ');
  if (g_utf8_strlen (text->str, -1) > MAX_ARGUMENTS) {
    g_string_truncate (text, (gsize) (g_utf8_offset_to_pointer (text->str, MAX_ARGUMENTS) - text->str));
    g_string_append (text, "…");
  }
  return g_strdup (text->str);
}

/* NULL: the call is in no form that was expected. */
static char *describe_call (const char *json)
{
  g_autoptr (JsonNode) node = json_from_string (json, NULL);
  JsonObject *call = node && JSON_NODE_HOLDS_OBJECT (node) ? json_node_get_object (node) : NULL;
  const char *name = call ? json_object_get_string_member_with_default (call, "name", NULL) : NULL;
  JsonNode *arguments = call ? json_object_get_member (call, "arguments") : NULL;
  if (!name)
    return NULL;
  g_autofree char *tool = code_span (name);
  g_autofree char *said = arguments && JSON_NODE_HOLDS_OBJECT (arguments) ? describe_arguments (json_node_get_object (arguments)) : g_strdup ("");
  g_autofree char *with = code_span (said);
  /* Translators: a model called a tool. The first %s is the tool's name, the second what it was called with, as in "city: Paris". */
  return *said ? g_strdup_printf (C_("tool call", "Called the tool %s with %s"), tool, with) : g_strdup_printf (C_("tool call", "Called the tool %s"), tool);
}

/* The white space around a call is not given: it is the template's. */
static void take_call (ValiseAnswerText *self, const char *json)
{
  if (self->line->len > 0)
    follow_code (self, "\n");
  g_autofree char *line = self->in_code ? NULL : describe_call (json);
  g_string_append_printf (self->shown, line ? "\n\n%s\n\n" : "\n%s\n", line ? line : json);
}

static void take (EngTextKind kind, const char *text, gpointer data)
{
  ValiseAnswerText *self = data;
  if (kind == ENG_TEXT_CALL) {
    take_call (self, text);
    return;
  }
  g_string_append (self->shown, text);
  follow_code (self, text);
}

static void begin (ValiseAnswerText *self)
{
  g_autoptr (JsonArray) tools = json_array_new (); /* of whatever name: a call is known by its marks */
  json_array_add_object_element (tools, json_object_new ());
  self->segments = eng_segments_new (NULL, tools, take, self);
  eng_segments_begin_answer (self->segments);
  g_string_truncate (self->line, 0);
  self->in_code = FALSE;
}

ValiseAnswerText *valise_answer_text_new (void)
{
  ValiseAnswerText *self = g_new0 (ValiseAnswerText, 1);
  self->shown = g_string_new (NULL);
  self->line = g_string_new (NULL);
  return self;
}

void valise_answer_text_free (ValiseAnswerText *self)
{
  if (!self)
    return;
  eng_segments_free (self->segments);
  g_string_free (self->shown, TRUE);
  g_string_free (self->line, TRUE);
  g_free (self);
}

const char *valise_answer_text_push (ValiseAnswerText *self, const char *text)
{
  g_string_truncate (self->shown, 0);
  if (!self->segments)
    begin (self);
  eng_segments_push (self->segments, text);
  return self->shown->str;
}

const char *valise_answer_text_end (ValiseAnswerText *self)
{
  g_string_truncate (self->shown, 0);
  if (self->segments)
    eng_segments_end (self->segments);
  g_clear_pointer (&self->segments, eng_segments_free);
  return self->shown->str;
}
