/* chat_export.c: the shown branch of a chat as Markdown to read, or as JSON to keep (the whole tree would surprise a reader). */
#include "app/library/library-private.h"

#include <string.h>

static char *to_markdown (const ValiseChat *chat, GPtrArray *branch);
static char *to_json (const ValiseChat *chat, GPtrArray *branch);

char *valise_library_export_chat (ValiseLibrary *library, gint64 chat_id, const char *format, GError **error)
{
  if (!g_str_equal (format, "markdown") && !g_str_equal (format, "json")) {
    g_set_error (error, VALISE_ERROR, VALISE_ERROR_ARGUMENT, "a chat is exported as \"markdown\" or \"json\", not as \"%s\"", format);
    return NULL;
  }
  g_autoptr (ValiseChat) chat = valise_library_get_chat (library, chat_id, error);
  g_autoptr (GPtrArray) branch = chat ? valise_library_get_branch (library, chat_id, error) : NULL;
  if (!branch)
    return NULL;
  return g_str_equal (format, "markdown") ? to_markdown (chat, branch) : to_json (chat, branch);
}

/* ---- helpers ---- */

static char *to_markdown (const ValiseChat *chat, GPtrArray *branch)
{
  GString *text = g_string_new (NULL);
  g_string_append_printf (text, "# %s\n", *chat->title ? chat->title : "Chat");
  if (*chat->system_prompt)
    g_string_append_printf (text, "\n## System\n\n%s\n", chat->system_prompt);
  for (guint i = 0; i < branch->len; i++) {
    const ValiseMessage *message = branch->pdata[i];
    const char *who = g_str_equal (message->role, "user") ? "You" : *message->model_name ? message->model_name : "Assistant";
    g_string_append_printf (text, "\n## %s\n\n%s\n", who, message->content);
  }
  return g_string_free (text, FALSE);
}

static char *to_json (const ValiseChat *chat, GPtrArray *branch)
{
  JsonArray *messages = json_array_new ();
  if (*chat->system_prompt) {
    JsonObject *object = json_object_new ();
    json_object_set_string_member (object, "role", "system");
    json_object_set_string_member (object, "content", chat->system_prompt);
    json_array_add_object_element (messages, object);
  }
  for (guint i = 0; i < branch->len; i++) {
    const ValiseMessage *message = branch->pdata[i];
    JsonObject *object = json_object_new ();
    json_object_set_string_member (object, "role", message->role);
    json_object_set_string_member (object, "content", message->content);
    if (*message->model_name)
      json_object_set_string_member (object, "model", message->model_name);
    json_object_set_int_member (object, "created_us", message->created_us);
    json_array_add_object_element (messages, object);
  }
  JsonObject *object = json_object_new ();
  json_object_set_string_member (object, "title", chat->title);
  json_object_set_int_member (object, "created_us", chat->created_us);
  json_object_set_array_member (object, "messages", messages);
  g_autoptr (JsonNode) node = json_node_init_object (json_node_alloc (), object);
  json_object_unref (object);
  return json_to_string (node, TRUE);
}
