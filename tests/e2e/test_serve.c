/* test_serve.c: the server as a client sees it: what is answered, whole and in a stream, several at once; what is refused, and in which words. */
#include "tests/fixtures/program.h"
#include "tests/fixtures/scratch.h"
#include "tests/fixtures/tiny_model.h"

#include <libsoup/soup.h>
#include <string.h>

static char *home;
static GSubprocess *server;
static char *base;

static char *start_server (GSubprocess **process, const char *option, const char *value)
{
  g_autoptr (GError) error = NULL;
  *process = program_start (home, G_SUBPROCESS_FLAGS_STDOUT_PIPE, "serve", "tiny", "--port", "0", "--context", "256", "--json", option, value, NULL);
  g_autoptr (GDataInputStream) out = g_data_input_stream_new (g_subprocess_get_stdout_pipe (*process));
  g_autofree char *line = g_data_input_stream_read_line (out, NULL, NULL, &error);
  g_assert_no_error (error);
  g_assert_nonnull (line);
  g_autoptr (JsonNode) node = json_from_string (line, NULL);
  g_assert_nonnull (node);
  return g_strdup (json_object_get_string_member (json_node_get_object (node), "url"));
}

typedef struct {
  guint status;
  char *text;
  JsonNode *json; /* or NULL */
} Reply;

static void reply_clear (Reply *reply)
{
  g_free (reply->text);
  g_clear_pointer (&reply->json, json_node_unref);
}

G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC (Reply, reply_clear)

static Reply ask_with (const char *url, const char *path, const char *body, const char *header, const char *value)
{
  g_autoptr (SoupSession) session = soup_session_new ();
  g_autofree char *whole = g_strconcat (url, path, NULL);
  g_autoptr (SoupMessage) message = soup_message_new (body != NULL ? "POST" : "GET", whole);
  g_autoptr (GError) error = NULL;
  if (body != NULL) {
    g_autoptr (GBytes) bytes = g_bytes_new (body, strlen (body));
    soup_message_set_request_body_from_bytes (message, "application/json", bytes);
  }
  if (header != NULL)
    soup_message_headers_replace (soup_message_get_request_headers (message), header, value);
  g_autoptr (GBytes) bytes = soup_session_send_and_read (session, message, NULL, &error);
  g_assert_no_error (error);
  Reply reply = { soup_message_get_status (message), g_strndup (g_bytes_get_data (bytes, NULL), g_bytes_get_size (bytes)), NULL };
  reply.json = json_from_string (reply.text, NULL);
  return reply;
}

static Reply ask (const char *path, const char *body)
{
  return ask_with (base, path, body, NULL, NULL);
}

static JsonObject *object_of (const Reply *reply)
{
  if (reply->status != 200 || reply->json == NULL)
    g_error ("%u: %s", reply->status, reply->text);
  return json_node_get_object (reply->json);
}

static JsonObject *choice_of (JsonObject *object)
{
  return json_array_get_object_element (json_object_get_array_member (object, "choices"), 0);
}

#define HELLO "\"messages\":[{\"role\":\"user\",\"content\":\"hello world\"}]"

static void test_models (void)
{
  g_auto (Reply) models = ask ("/models", NULL), one = ask ("/models/tiny", NULL), health = ask ("/health", NULL);
  JsonObject *model = json_array_get_object_element (json_object_get_array_member (object_of (&models), "data"), 0);
  g_assert_cmpstr (json_object_get_string_member (model, "id"), ==, "tiny");
  g_assert_cmpstr (json_object_get_string_member (object_of (&one), "id"), ==, "tiny");
  g_assert_cmpstr (json_object_get_string_member (object_of (&health), "status"), ==, "ok");
}

static char *content_of (const Reply *reply)
{
  return g_strdup (json_object_get_string_member (json_object_get_object_member (choice_of (object_of (reply)), "message"), "content"));
}

/* The same as the terminal says, and the same again in a stream. */
static void test_chat (void)
{
  static const char body[] = "{" HELLO ",\"temperature\":1,\"top_k\":40,\"seed\":7,\"max_tokens\":24%s}";
  g_autofree char *whole_body = g_strdup_printf (body, ""), *stream_body = g_strdup_printf (body, ",\"stream\":true,\"stream_options\":{\"include_usage\":true}");
  g_auto (Reply) whole = ask ("/chat/completions", whole_body), stream = ask ("/chat/completions", stream_body);
  g_autofree char *text = content_of (&whole);
  g_autoptr (ProgramRun) run = program_run (home, "chat", "tiny", "--prompt", "hello world", "--max-tokens", "24", "--seed", "7", "--temp", "1", "--context", "256", "--json", NULL);
  g_assert_cmpstr (json_object_get_string_member (program_object (run), "text"), ==, text);
  JsonObject *usage = json_object_get_object_member (object_of (&whole), "usage");
  g_assert_cmpint (json_object_get_int_member (usage, "prompt_tokens"), ==, json_object_get_int_member (program_object (run), "prompt_tokens"));
  g_assert_cmpint (json_object_get_int_member (usage, "completion_tokens"), ==, json_object_get_int_member (program_object (run), "generated_tokens"));
  g_assert_cmpuint (stream.status, ==, 200);
  g_assert_true (g_str_has_suffix (stream.text, "data: [DONE]\n\n"));
  g_auto (GStrv) events = g_strsplit (stream.text, "\n\n", -1);
  g_autoptr (GString) said = g_string_new (NULL);
  guint finished = 0, used = 0;
  for (guint i = 0; *events[i] != '\0' && strstr (events[i], "[DONE]") == NULL; i++) {
    g_assert_true (g_str_has_prefix (events[i], "data: "));
    g_autoptr (JsonNode) node = json_from_string (events[i] + 6, NULL);
    JsonObject *chunk = json_node_get_object (node);
    used += json_object_has_member (chunk, "usage");
    if (json_array_get_length (json_object_get_array_member (chunk, "choices")) == 0)
      continue;
    JsonObject *delta = json_object_get_object_member (choice_of (chunk), "delta");
    g_string_append (said, json_object_get_string_member_with_default (delta, "content", ""));
    finished += !json_object_get_null_member (choice_of (chunk), "finish_reason");
  }
  g_assert_cmpstr (said->str, ==, text);
  g_assert_cmpuint (finished, ==, 1);
  g_assert_cmpuint (used, ==, 1);
}

/* A follow-up turn costs its new tokens: all that was said before is known, however short. */
static void test_follow_up (void)
{
  g_auto (Reply) first = ask ("/chat/completions", "{\"messages\":[{\"role\":\"user\",\"content\":\"what is said first\"}],\"temperature\":0,\"max_tokens\":6}");
  g_autofree char *said = content_of (&first);
  gint64 known = json_object_get_int_member (json_object_get_object_member (object_of (&first), "usage"), "prompt_tokens");
  JsonObject *answer = json_object_new ();
  json_object_set_string_member (answer, "role", "assistant");
  json_object_set_string_member (answer, "content", said);
  g_autoptr (JsonNode) node = json_node_new (JSON_NODE_OBJECT);
  json_node_take_object (node, answer);
  g_autofree char *message = json_to_string (node, FALSE);
  g_autofree char *body = g_strdup_printf ("{\"messages\":[{\"role\":\"user\",\"content\":\"what is said first\"},%s,{\"role\":\"user\",\"content\":\"and then\"}],\"max_tokens\":4}", message);
  g_auto (Reply) next = ask ("/chat/completions", body);
  JsonObject *usage = json_object_get_object_member (object_of (&next), "usage");
  gint64 cached = json_object_get_int_member (json_object_get_object_member (usage, "prompt_tokens_details"), "cached_tokens");
  g_assert_cmpint (cached, >=, known);
  g_assert_cmpint (cached, <, json_object_get_int_member (usage, "prompt_tokens"));
}

static void test_schema (void)
{
  g_auto (Reply) reply = ask ("/chat/completions", "{" HELLO ",\"seed\":3,\"max_tokens\":100,\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"name\":\"x\",\"schema\":"
                                                   "{\"type\":\"object\",\"properties\":{\"n\":{\"type\":\"integer\",\"minimum\":2,\"maximum\":9}},\"required\":[\"n\"],\"additionalProperties\":false}}}}");
  g_autofree char *text = content_of (&reply);
  g_autoptr (JsonNode) node = json_from_string (text, NULL);
  g_assert_nonnull (node);
  gint64 n = json_object_get_int_member (json_node_get_object (node), "n");
  g_assert_true (n >= 2 && n <= 9);
}

/* A function that must be called is, even by a model of noise, with arguments that its parameters allow. */
static void test_must_call (void)
{
  static const char *const choices[] = { "\"required\"", "{\"type\":\"function\",\"function\":{\"name\":\"g\"}}" };
  for (guint i = 0; i < G_N_ELEMENTS (choices) * 2; i++) {
    g_autofree char *body = g_strdup_printf ("{" HELLO ",\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"parameters\":{\"type\":\"object\",\"properties\":{\"n\":{\"enum\":[1,2]}},"
                                             "\"required\":[\"n\"],\"additionalProperties\":false}}},{\"type\":\"function\",\"function\":{\"name\":\"g\",\"parameters\":{\"type\":\"object\",\"properties\":{\"ok\":"
                                             "{\"type\":\"boolean\"}},\"required\":[\"ok\"],\"additionalProperties\":false}}}],\"tool_choice\":%s,\"seed\":%u,\"temperature\":2}", choices[i % 2], i);
    g_auto (Reply) reply = ask ("/chat/completions", body);
    JsonObject *choice = choice_of (object_of (&reply)), *message = json_object_get_object_member (choice, "message");
    g_assert_cmpstr (json_object_get_string_member (choice, "finish_reason"), ==, "tool_calls");
    g_assert_true (json_object_get_null_member (message, "content"));
    JsonArray *calls = json_object_get_array_member (message, "tool_calls");
    g_assert_cmpuint (json_array_get_length (calls), ==, 1);
    JsonObject *function = json_object_get_object_member (json_array_get_object_element (calls, 0), "function");
    const char *name = json_object_get_string_member (function, "name");
    g_autoptr (JsonNode) arguments = json_from_string (json_object_get_string_member (function, "arguments"), NULL);
    JsonObject *values = json_node_get_object (arguments);
    g_assert_true (g_str_equal (name, "g") || (i % 2 == 0 && g_str_equal (name, "f")));
    if (g_str_equal (name, "f"))
      g_assert_true (json_object_get_int_member (values, "n") == 1 || json_object_get_int_member (values, "n") == 2);
    else
      g_assert_true (json_node_get_value_type (json_object_get_member (values, "ok")) == G_TYPE_BOOLEAN);
  }
}

static void test_tools (void)
{
  g_auto (Reply) reply = ask ("/chat/completions", "{" HELLO ",\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"parameters\":{}}}],\"seed\":3,\"max_tokens\":8}");
  object_of (&reply);
  g_auto (Reply) past = ask ("/chat/completions", "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"hello\"}]},{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[{\"id\":\"c\",\"type\":\"function\","
                                                  "\"function\":{\"name\":\"f\",\"arguments\":\"{\\\"a\\\": 1}\"}}]},{\"role\":\"tool\",\"tool_call_id\":\"c\",\"content\":\"2\"}],\"seed\":3,\"max_tokens\":4}");
  object_of (&past);
}

static void test_completions (void)
{
  g_auto (Reply) reply = ask ("/completions", "{\"prompt\":\"hello\",\"max_tokens\":5,\"seed\":1,\"temperature\":0}");
  g_assert_nonnull (json_object_get_string_member (choice_of (object_of (&reply)), "text"));
  g_auto (Reply) tokens = ask ("/tokenize", "{\"content\":\"hello world\"}");
  JsonArray *list = json_object_get_array_member (object_of (&tokens), "tokens");
  g_autoptr (JsonNode) node = json_node_init_array (json_node_alloc (), list);
  g_autofree char *numbers = json_to_string (node, FALSE), *back_body = g_strdup_printf ("{\"tokens\":%s}", numbers), *prompt = g_strdup_printf ("{\"prompt\":%s,\"max_tokens\":2}", numbers);
  g_auto (Reply) back = ask ("/detokenize", back_body), from_tokens = ask ("/completions", prompt);
  g_assert_cmpstr (json_object_get_string_member (object_of (&back), "content"), ==, "hello world");
  g_assert_cmpint (json_object_get_int_member (json_object_get_object_member (object_of (&from_tokens), "usage"), "prompt_tokens"), ==, json_array_get_length (list));
}

static gpointer ask_one (gpointer data)
{
  g_autofree char *body = g_strdup_printf ("{" HELLO ",\"seed\":%u,\"temperature\":1,\"max_tokens\":20}", GPOINTER_TO_UINT (data));
  g_auto (Reply) reply = ask ("/chat/completions", body);
  return content_of (&reply);
}

/* More at once than are computed at once: each says what it says alone. */
static void test_many (void)
{
  GThread *threads[7];
  for (guint i = 0; i < G_N_ELEMENTS (threads); i++)
    threads[i] = g_thread_new ("ask", ask_one, GUINT_TO_POINTER (i + 1));
  char *together[G_N_ELEMENTS (threads)];
  for (guint i = 0; i < G_N_ELEMENTS (threads); i++)
    together[i] = g_thread_join (threads[i]);
  for (guint i = 0; i < G_N_ELEMENTS (threads); i++) {
    g_autofree char *alone = ask_one (GUINT_TO_POINTER (i + 1));
    g_assert_cmpstr (together[i], ==, alone);
    g_free (together[i]);
  }
}

static void test_refuses (void)
{
  static const struct { const char *path, *body; guint status; const char *words; } cases[] = {
    { "/chat/completions", "{", 400, "the request is no JSON" }, { "/chat/completions", "[]", 400, "no object" }, { "/chat/completions", "{}", 400, "messages is missing or empty" },
    { "/chat/completions", "{\"messages\":[1]}", 400, "messages[0] has no role" }, { "/chat/completions", "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\"}]}]}", 400, "pictures" },
    { "/chat/completions", "{" HELLO ",\"temperature\":\"warm\"}", 400, "temperature is no number" }, { "/chat/completions", "{" HELLO ",\"top_p\":2}", 400, "top_p is not between 0 and 1" },
    { "/chat/completions", "{" HELLO ",\"n\":2}", 400, "n can be 1 only" }, { "/chat/completions", "{" HELLO ",\"logprobs\":true}", 400, "logprobs" }, { "/chat/completions", "{" HELLO ",\"stop\":7}", 400, "stop is neither" },
    { "/chat/completions", "{" HELLO ",\"response_format\":{\"type\":\"xml\"}}", 400, "response_format's type" }, { "/chat/completions", "{" HELLO ",\"grammar\":\"root ::= (\"}", 400, "the grammar's line 1" },
    { "/chat/completions", "{" HELLO ",\"json_schema\":{\"not\":{}}}", 400, "the schema at #: not cannot be obeyed" }, { "/chat/completions", "{" HELLO ",\"logit_bias\":{\"9999\":1}}", 400, "logit_bias names the token 9999" },
    { "/chat/completions", "{" HELLO ",\"tools\":[{}]}", 400, "tools[0] is no function" }, { "/chat/completions", "{" HELLO ",\"tool_choice\":\"required\"}", 400, "tools names no function" },
    { "/chat/completions", "{" HELLO ",\"tool_choice\":7}", 400, "neither auto, none, required" },
    { "/chat/completions", "{" HELLO ",\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\"}}],\"tool_choice\":{\"type\":\"function\",\"function\":{\"name\":\"h\"}}}", 400, "h is to be called" },
    { "/completions", "{\"prompt\":[\"a\",\"b\"]}", 400, "prompt[0]" }, { "/completions", "{\"prompt\":\"\"}", 400, "prompt is empty" }, { "/tokenize", "{}", 400, "content is no string" }, { "/nothing", "{}", 404, "nothing under this path" },
    { "/models", "{}", 405, "GET" }, { "/chat/completions", NULL, 405, "POST" },
  };
  for (gsize i = 0; i < G_N_ELEMENTS (cases); i++) {
    g_auto (Reply) reply = ask (cases[i].path, cases[i].body);
    JsonObject *object = reply.json != NULL ? json_node_get_object (reply.json) : NULL;
    const char *sentence = object != NULL && json_object_has_member (object, "error") ? json_object_get_string_member (json_object_get_object_member (object, "error"), "message") : "";
    if (reply.status != cases[i].status || strstr (sentence, cases[i].words) == NULL)
      g_error ("%s %s: %u %s", cases[i].path, cases[i].body, reply.status, reply.text);
  }
  g_autofree char *words = g_strnfill (3000, 'x'), *long_body = g_strdup_printf ("{\"messages\":[{\"role\":\"user\",\"content\":\"%s\"}]}", words);
  g_auto (Reply) too_long = ask ("/chat/completions", long_body);
  g_assert_cmpuint (too_long.status, ==, 400);
  g_assert_nonnull (strstr (too_long.text, "the context holds 256"));
  g_auto (Reply) foreign = ask_with (base, "/models", NULL, "Origin", "https://example.com"), local = ask_with (base, "/models", NULL, "Origin", "http://localhost:3000");
  g_assert_cmpuint (foreign.status, ==, 403);
  g_assert_cmpuint (local.status, ==, 200);
}

static void test_token (void)
{
  g_autoptr (GSubprocess) guarded = NULL;
  g_autofree char *url = start_server (&guarded, "--token", "sesame");
  g_auto (Reply) none = ask_with (url, "/models", NULL, NULL, NULL), wrong = ask_with (url, "/models", NULL, "Authorization", "Bearer sesam"), right = ask_with (url, "/models", NULL, "Authorization", "Bearer sesame");
  g_assert_cmpuint (none.status, ==, 401);
  g_assert_cmpuint (wrong.status, ==, 401);
  g_assert_cmpuint (right.status, ==, 200);
  g_subprocess_send_signal (guarded, SIGTERM);
  g_assert_true (g_subprocess_wait (guarded, NULL, NULL));
  g_assert_cmpint (g_subprocess_get_exit_status (guarded), ==, 130);
}

/* Whoever leaves frees the place: with one at a time, an endless answer that nobody hears any more does not hold up the next. */
static void test_disconnect (void)
{
  g_autoptr (GSubprocess) narrow = NULL;
  g_autofree char *url = start_server (&narrow, "--parallel", "1");
  g_autoptr (GUri) uri = g_uri_parse (url, G_URI_FLAGS_NONE, NULL);
  for (guint stream = 0; stream < 2; stream++) {
    /* As long as the context is, and wordless: no end token is likely. */
    g_autofree char *body = g_strdup_printf ("{" HELLO ",\"grammar\":\"root ::= [a-z]*\",\"temperature\":1,\"logit_bias\":{\"2\":-100,\"0\":-100},\"stream\":%s}", stream ? "true" : "false");
    g_autofree char *request = g_strdup_printf ("POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s", strlen (body), body);
    g_autoptr (GSocketClient) client = g_socket_client_new ();
    g_autoptr (GError) error = NULL;
    g_autoptr (GSocketConnection) connection = g_socket_client_connect_to_host (client, "127.0.0.1", (guint16) g_uri_get_port (uri), NULL, &error);
    g_assert_no_error (error);
    g_assert_true (g_output_stream_write_all (g_io_stream_get_output_stream (G_IO_STREAM (connection)), request, strlen (request), NULL, NULL, &error));
    g_usleep (20000);
    g_assert_true (g_io_stream_close (G_IO_STREAM (connection), NULL, &error));
  }
  g_auto (Reply) next = ask_with (url, "/chat/completions", "{" HELLO ",\"max_tokens\":3}", NULL, NULL);
  object_of (&next);
  g_subprocess_send_signal (narrow, SIGINT);
  g_assert_true (g_subprocess_wait (narrow, NULL, NULL));
  g_assert_cmpint (g_subprocess_get_exit_status (narrow), ==, 130);
}

/* OpenAI's own client, where it is installed: it checks the shape of every object. */
static void test_openai (void)
{
  g_autofree char *script = g_test_build_filename (G_TEST_DIST, "e2e", "serve_openai.py", NULL);
  g_autoptr (GError) error = NULL;
  const char *python = g_getenv ("VALISE_PYTHON") != NULL ? g_getenv ("VALISE_PYTHON") : "python3";
  g_autoptr (GSubprocess) run = g_subprocess_new (G_SUBPROCESS_FLAGS_NONE, &error, python, script, base, NULL);
  g_assert_no_error (error);
  g_assert_true (g_subprocess_wait (run, NULL, NULL));
  int status = g_subprocess_get_exit_status (run);
  if (status == 77)
    g_test_skip ("the Python package openai is not installed");
  else
    g_assert_cmpint (status, ==, 0);
}

int main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  home = scratch_path ("home");
  g_autofree char *path = scratch_path ("tiny.gguf");
  const TinyModel model = TINY_MODEL_DEFAULTS;
  tiny_model_write (&model, path);
  g_autoptr (ProgramRun) import = program_run (home, "import", path, "--json", NULL);
  program_object (import);
  base = start_server (&server, "--parallel", "4");
  g_test_add_func ("/serve/models", test_models);
  g_test_add_func ("/serve/chat-says-what-the-terminal-says", test_chat);
  g_test_add_func ("/serve/follow-up-costs-its-new-tokens", test_follow_up);
  g_test_add_func ("/serve/json-schema", test_schema);
  g_test_add_func ("/serve/tools", test_tools);
  g_test_add_func ("/serve/tools-that-must-be-called", test_must_call);
  g_test_add_func ("/serve/completions-and-tokens", test_completions);
  g_test_add_func ("/serve/many-at-once-say-what-each-says-alone", test_many);
  g_test_add_func ("/serve/refuses-with-a-sentence", test_refuses);
  g_test_add_func ("/serve/token", test_token);
  g_test_add_func ("/serve/who-leaves-frees-the-place", test_disconnect);
  g_test_add_func ("/serve/openai", test_openai);
  int status = g_test_run ();
  g_subprocess_send_signal (server, SIGTERM);
  g_subprocess_wait (server, NULL, NULL);
  g_object_unref (server);
  g_free (base);
  g_free (home);
  scratch_clean ();
  return status;
}
