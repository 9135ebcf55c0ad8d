/* cmd_text.c: tokenize and render: what the model really reads. Neither touches the weights. */
#include "app/cli/cli.h"
#include "engine/model.h"
#include "engine/checkpoint/checkpoint.h"

#include <stdio.h>
#include <string.h>

static EngGguf *open_gguf (const char *name, GError **error)
{
  g_autoptr (ValiseLibrary) library = valise_library_open (NULL, error);
  g_autoptr (ValiseModel) row = library ? valise_library_find_model (library, name, error) : NULL;
  return row ? eng_checkpoint_open (valise_model_get_path (row), error) : NULL;
}

/* ---- tokenize ---- */

/* Text for between quotes on one line; other than g_strescape, letters of every script stay as they are. */
static char *quotable (const char *text)
{
  GString *out = g_string_new (NULL);
  for (const char *p = text; *p; p++) {
    if (*p == '\n')
      g_string_append (out, "\\n");
    else if (*p == '"' || *p == '\\')
      g_string_append_printf (out, "\\%c", *p);
    else if ((guchar) *p < 0x20 || *p == 0x7f)
      g_string_append_printf (out, "\\x%02x", (guchar) *p);
    else
      g_string_append_c (out, *p);
  }
  return g_string_free (out, FALSE);
}

int cli_tokenize (int argc, char **argv)
{
  g_autofree char *text = NULL;
  gboolean special = FALSE;
  const GOptionEntry entries[] = {
    { "text", 0, 0, G_OPTION_ARG_FILENAME, &text, "The text", "TEXT" },
    { "special", 0, 0, G_OPTION_ARG_NONE, &special, "Recognise control tokens in the text", NULL },
    { NULL },
  };
  if (!cli_parse (entries, 1, 1, &argc, &argv))
    return CLI_USAGE;
  if (!text)
    return cli_usage ("--text TEXT is missing");
  if (!cli_check_text ("--text", text))
    return CLI_USAGE;
  g_autoptr (GError) error = NULL;
  g_autoptr (EngGguf) gguf = open_gguf (argv[1], &error);
  g_autoptr (EngTokenizer) tokenizer = gguf ? eng_tokenizer_new (gguf, &error) : NULL;
  if (!tokenizer)
    return cli_fail (error);
  g_autoptr (GArray) tokens = g_array_new (FALSE, FALSE, sizeof (gint32));
  eng_tokenizer_encode (tokenizer, text, -1, special ? ENG_TOKENIZE_SPECIAL : ENG_TOKENIZE_PLAIN, tokens);
  JsonArray *array = json_array_new ();
  for (guint i = 0; i < tokens->len; i++) {
    gint32 id = g_array_index (tokens, gint32, i);
    gsize length;
    const char *piece = eng_tokenizer_piece (tokenizer, id, TRUE, &length);
    g_autofree char *shown = g_utf8_make_valid (piece, (gssize) length); /* a token may be a part of a character */
    if (!cli_json) {
      g_autofree char *escaped = quotable (shown);
      printf ("%7d  \"%s\"\n", id, escaped);
      continue;
    }
    JsonObject *token = json_object_new ();
    json_object_set_int_member (token, "id", id);
    json_object_set_string_member (token, "text", shown);
    json_array_add_object_element (array, token);
  }
  if (!cli_json) {
    json_array_unref (array);
    return CLI_OK;
  }
  JsonObject *object = json_object_new ();
  json_object_set_array_member (object, "tokens", array);
  return cli_print_object (object);
}

/* ---- render ---- */

/* What the file's metadata says of a token, for a context that does not. */
static void fill_token (JsonObject *context, const char *name, const EngGguf *gguf, const char *key)
{
  gint64 id = eng_gguf_get_int (gguf, key, -1);
  EngKvType kind;
  gsize n = eng_gguf_array_length (gguf, "tokenizer.ggml.tokens", &kind), length;
  if (json_object_has_member (context, name) || id < 0 || (guint64) id >= n || kind != ENG_KV_STRING)
    return;
  const char *bytes = eng_gguf_array_string (gguf, "tokenizer.ggml.tokens", (gsize) id, &length);
  g_autofree char *text = g_utf8_make_valid (bytes, (gssize) length);
  json_object_set_string_member (context, name, text);
}

/* A list of messages, or an object that is the template's whole context. */
static JsonObject *read_context (const char *path, gboolean generation, GError **error)
{
  g_autoptr (JsonParser) parser = json_parser_new ();
  g_autoptr (GError) local = NULL;
  JsonNode *root = json_parser_load_from_file (parser, path, &local) ? json_parser_get_root (parser) : NULL;
  if (root && JSON_NODE_HOLDS_OBJECT (root))
    return json_node_dup_object (root);
  if (root && JSON_NODE_HOLDS_ARRAY (root)) {
    JsonObject *context = json_object_new ();
    json_object_set_array_member (context, "messages", json_node_dup_array (root));
    json_object_set_boolean_member (context, "add_generation_prompt", generation);
    return context;
  }
  g_set_error (error, VALISE_ERROR, VALISE_ERROR_ARGUMENT, "%s does not hold a JSON list of messages or an object (%s): see docs/cli.md for an example",
               path, local ? local->message : "it holds something else");
  return NULL;
}

int cli_render (int argc, char **argv)
{
  g_autofree char *template_path = NULL, *messages_path = NULL;
  gboolean no_generation = FALSE;
  const GOptionEntry entries[] = {
    { "template", 0, 0, G_OPTION_ARG_FILENAME, &template_path, "A Jinja template (instead of, or with the tokens of, a model)", "FILE" },
    { "messages", 0, 0, G_OPTION_ARG_FILENAME, &messages_path, "A JSON list of messages, or the template's context as an object", "FILE.json" },
    { "no-generation-prompt", 0, 0, G_OPTION_ARG_NONE, &no_generation, "With a list: without the opening of the answer", NULL },
    { NULL },
  };
  if (!cli_parse (entries, 0, 1, &argc, &argv))
    return CLI_USAGE;
  if (!messages_path)
    return cli_usage ("--messages FILE.json is missing");
  if (argc < 2 && !template_path)
    return cli_usage ("name a MODEL or a --template FILE");
  g_autoptr (GError) error = NULL;
  g_autoptr (EngGguf) gguf = argc > 1 ? open_gguf (argv[1], &error) : NULL;
  if (argc > 1 && !gguf)
    return cli_fail (error);
  g_autofree char *source = NULL;
  if (template_path && !g_file_get_contents (template_path, &source, NULL, NULL)) {
    g_set_error (&error, VALISE_ERROR, VALISE_ERROR_NOT_FOUND, "the template %s cannot be read: name a text file", template_path);
    return cli_fail (error);
  }
  g_autoptr (JsonObject) context = read_context (messages_path, !no_generation, &error);
  if (!context)
    return cli_fail (error);
  if (gguf) {
    fill_token (context, "bos_token", gguf, "tokenizer.ggml.bos_token_id");
    fill_token (context, "eos_token", gguf, "tokenizer.ggml.eos_token_id");
    fill_token (context, "unk_token", gguf, "tokenizer.ggml.unknown_token_id");
    fill_token (context, "pad_token", gguf, "tokenizer.ggml.padding_token_id");
  }
  g_autoptr (EngChatTemplate) chat_template = eng_chat_template_new (source ? source : eng_gguf_chat_template (gguf), &error);
  g_autofree char *prompt = chat_template ? eng_chat_template_render (chat_template, context, NULL, &error) : NULL;
  if (!prompt)
    return cli_fail (error);
  if (!cli_json) {
    fputs (prompt, stdout); /* exactly: no line end of ours */
    return CLI_OK;
  }
  JsonObject *object = json_object_new ();
  json_object_set_string_member (object, "prompt", prompt);
  return cli_print_object (object);
}
