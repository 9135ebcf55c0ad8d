/* bundled.c: the calibration text that is part of the program (data/calibration): stretches of text joined into one, and conversations
 * written out as the model's own template would, control tokens and all, since a chat is made of little else. */
#include "quantizer/calibration.h"

#include <string.h>

static const char *const texts[] = { "articles", "prose", "web", "lessons", "code", "languages" };

GResource *qz_calibration_text_get_resource (void);

static void append_part (GString *text, const char *part)
{
  g_autofree char *name = g_strdup_printf ("/valise/calibration/%s.txt", part);
  g_autoptr (GError) error = NULL;
  g_autoptr (GBytes) bytes = g_resource_lookup_data (qz_calibration_text_get_resource (), name, G_RESOURCE_LOOKUP_FLAGS_NONE, &error);
  if (bytes == NULL)
    g_error ("a part of the program is missing: %s", error->message);
  gsize size;
  const char *data = g_bytes_get_data (bytes, &size);
  g_string_append_len (text, data, size);
}

static void add_message (JsonArray *messages, const char *role, const char *content, gsize length)
{
  JsonObject *message = json_object_new ();
  g_autofree char *text = g_strndup (content, length);
  json_object_set_string_member (message, "role", role);
  json_object_set_string_member (message, "content", g_strstrip (text));
  json_array_add_object_element (messages, message);
}

/* A conversation is lines that begin with "user: " or "assistant: ", each with what follows it. */
static JsonArray *parse_conversation (const char *text)
{
  static const char *const roles[] = { "user", "assistant" };
  JsonArray *messages = json_array_new ();
  const char *role = NULL, *content = text;
  for (const char *line = text; line != NULL && *line != '\0';) {
    for (guint i = 0; i < G_N_ELEMENTS (roles); i++) {
      gsize length = strlen (roles[i]);
      if (strncmp (line, roles[i], length) == 0 && strncmp (line + length, ": ", 2) == 0) {
        if (role != NULL)
          add_message (messages, role, content, line - content);
        role = roles[i];
        content = line + length + 2;
      }
    }
    const char *end = strchr (line, '\n');
    line = end != NULL ? end + 1 : NULL;
  }
  if (role != NULL)
    add_message (messages, role, content, strlen (content));
  return messages;
}

char *qz_calibration_chat (const EngChatTemplate *template, JsonArray *messages)
{
  g_autoptr (JsonObject) context = json_object_new ();
  json_object_set_array_member (context, "messages", messages);
  json_object_set_boolean_member (context, "add_generation_prompt", FALSE);
  json_object_set_string_member (context, "bos_token", "");
  json_object_set_string_member (context, "eos_token", "");
  return eng_chat_template_render (template, context, NULL, NULL);
}

char *qz_calibration_bundled (const EngGguf *gguf)
{
  GString *text = g_string_new (NULL);
  g_autoptr (GString) chats = g_string_new (NULL);
  for (guint i = 0; i < G_N_ELEMENTS (texts); i++)
    append_part (text, texts[i]);
  append_part (chats, "chat");
  /* A new conversation begins after an empty line; further turns follow without one. A model without a template, or with one that wants
   * something else, sees the conversations as plain text. */
  const char *source = eng_gguf_get_string (gguf, "tokenizer.chat_template", NULL);
  g_autoptr (EngChatTemplate) template = source != NULL ? eng_chat_template_new (source, NULL) : NULL;
  g_auto (GStrv) conversations = g_strsplit (chats->str, "\n\nuser: ", -1);
  for (guint i = 0; conversations[i] != NULL; i++) {
    g_autofree char *whole = g_strconcat (i > 0 ? "user: " : "", conversations[i], NULL);
    g_autofree char *rendered = template != NULL ? qz_calibration_chat (template, parse_conversation (whole)) : NULL;
    g_string_append_printf (text, "%s\n", rendered != NULL ? rendered : whole);
  }
  return g_string_free (text, FALSE);
}
