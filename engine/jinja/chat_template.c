/* chat_template.c: a template parsed once, rendered as often as wanted, each time in a bounded heap of its own. */
#include "engine/jinja/chat_template.h"

#include <string.h>

#include "engine/error.h"
#include "engine/jinja/run.h"

/* Published templates are under 20 KB and take well under a million steps for a long conversation. */
#define MAX_SOURCE ((gsize) 1 << 20)
#define PARSE_MEMORY ((gsize) 256 << 20)
#define RENDER_MEMORY ((gsize) 64 << 20) /* and as much again for the context and what is made of it */
#define MAX_STEPS 4000000
#define MAX_OUTPUT ((gsize) 16 << 20)
#define PER_CONTEXT_BYTE 16

struct EngChatTemplate {
  JinjaWork work; /* holds the tree */
  JinjaNodes body;
};

static gsize json_bytes (JsonNode *node, guint depth);

EngChatTemplate *eng_chat_template_new (const char *source, GError **error)
{
  if (strlen (source) > MAX_SOURCE || !g_utf8_validate (source, -1, NULL)) {
    g_set_error_literal (error, ENG_ERROR, ENG_ERROR_TEMPLATE, strlen (source) > MAX_SOURCE
                           ? "the chat template is larger than 1 MB; it is broken or hostile, choose another"
                           : "the chat template is not UTF-8 text; choose another");
    return NULL;
  }
  EngChatTemplate *t = g_new0 (EngChatTemplate, 1);
  jinja_heap_init (&t->work.heap, PARSE_MEMORY);
  t->work.steps_left = MAX_STEPS;
  t->work.max_output = MAX_OUTPUT;
  if (setjmp (t->work.heap.jump) == 0) {
    jinja_parse (&t->work, source, &t->body);
    return t;
  }
  g_set_error_literal (error, ENG_ERROR, ENG_ERROR_TEMPLATE, t->work.heap.message);
  eng_chat_template_free (t);
  return NULL;
}

void eng_chat_template_free (EngChatTemplate *t)
{
  if (t == NULL)
    return;
  jinja_heap_clear (&t->work.heap);
  g_free (t);
}

static void render (JinjaRun *run, const EngChatTemplate *t, JsonObject *context, JinjaBuilder *out)
{
  jinja_builder_init (&run->work, out);
  run->out = out;
  JinjaDict *values = jinja_from_context (&run->work, context).dict;
  JinjaFrame *outermost = jinja_frame_new (run, NULL);
  for (gsize i = 0; i < values->n; i++)
    jinja_frame_set (run, outermost, jinja_c_string (run, values->pairs[i].key.string), values->pairs[i].value);
  jinja_execute (run, &t->body, jinja_frame_new (run, outermost));
}

char *eng_chat_template_render (const EngChatTemplate *t, JsonObject *context, GArray *literals, GError **error)
{
  JsonNode *node = json_node_new (JSON_NODE_OBJECT);
  json_node_set_object (node, context);
  gsize bytes = json_bytes (node, 0);
  json_node_unref (node);
  JinjaRun *run = g_new0 (JinjaRun, 1);
  JinjaBuilder *out = g_new0 (JinjaBuilder, 1);
  char *text = NULL;
  jinja_heap_init (&run->work.heap, RENDER_MEMORY + PER_CONTEXT_BYTE * bytes);
  run->work.max_output = MAX_OUTPUT + PER_CONTEXT_BYTE / 4 * bytes;
  run->work.steps_left = MAX_STEPS + (gint64) bytes;
  if (setjmp (run->work.heap.jump) == 0) {
    render (run, t, context, out);
    text = g_strndup (out->bytes->data, out->bytes->used);
    if (literals != NULL)
      g_array_append_vals (literals, out->bytes->spans, (guint) out->bytes->n_spans);
  } else {
    g_set_error_literal (error, ENG_ERROR, ENG_ERROR_TEMPLATE, run->work.heap.message);
  }
  jinja_heap_clear (&run->work.heap);
  g_free (out);
  g_free (run);
  return text;
}

/* About how much text a context holds: long conversations may use more than short ones. */
static gsize json_bytes (JsonNode *node, guint depth)
{
  gsize bytes = 32;
  if (depth > JINJA_MAX_DEPTH)
    return bytes;
  if (JSON_NODE_HOLDS_OBJECT (node)) {
    JsonObjectIter iter;
    const char *name;
    JsonNode *member;
    json_object_iter_init (&iter, json_node_get_object (node));
    while (json_object_iter_next (&iter, &name, &member))
      bytes += strlen (name) + json_bytes (member, depth + 1);
  } else if (JSON_NODE_HOLDS_ARRAY (node)) {
    JsonArray *array = json_node_get_array (node);
    for (guint i = 0; i < json_array_get_length (array); i++)
      bytes += json_bytes (json_array_get_element (array, i), depth + 1);
  } else if (JSON_NODE_HOLDS_VALUE (node) && json_node_get_value_type (node) == G_TYPE_STRING && json_node_get_string (node) != NULL) {
    bytes += strlen (json_node_get_string (node));
  }
  return bytes;
}
