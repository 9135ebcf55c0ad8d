/* reply.c: an answer's text and end come from the batch's thread and are sent on the main context, where everything else of a reply happens. */
#include "app/serve/serve-private.h"

#include "engine/error.h"
#include "engine/json_reader.h"

#include <string.h>
#include <sys/socket.h>

struct ValiseReply {
  gatomicrefcount refs;
  GMainContext *context;
  SoupServerMessage *message;
  ValiseAsked *asked;
  EngTicket *ticket;
  GSource *watch;       /* of the client's end of the connection */
  char *id, *model_name;
  gint64 created;
  GString *texts[2];    /* what is to be sent whole, by kind */
  JsonArray *calls;
  guint n_calls;
  gboolean gone;        /* nobody listens any more */
};

/* ---- sending -------------------------------------------------------------------------------------------------------------- */

static char *take_json (JsonObject *object)
{
  g_autoptr (JsonNode) node = json_node_new (JSON_NODE_OBJECT);
  json_node_take_object (node, object);
  return json_to_string (node, FALSE);
}

void valise_send_json (SoupServerMessage *message, guint status, JsonObject *object)
{
  char *text = take_json (object);
  soup_server_message_set_status (message, status, NULL);
  soup_server_message_set_response (message, "application/json", SOUP_MEMORY_TAKE, text, strlen (text));
}

static JsonObject *error_object (guint status, const char *sentence)
{
  JsonObject *object = json_object_new (), *error = json_object_new ();
  g_autofree char *line = g_strdup (sentence);
  g_strdelimit (line, "\r\n", ' ');
  json_object_set_string_member (error, "message", line);
  json_object_set_string_member (error, "type", status >= 500 ? "server_error" : status == 401 ? "authentication_error" : "invalid_request_error");
  json_object_set_null_member (error, "param");
  json_object_set_null_member (error, "code");
  json_object_set_object_member (object, "error", error);
  return object;
}

void valise_send_error (SoupServerMessage *message, guint status, const char *sentence)
{
  valise_send_json (message, status, error_object (status, sentence));
}

static void send_event (ValiseReply *reply, const char *data)
{
  g_autofree char *line = g_strdup_printf ("data: %s\n\n", data);
  if (reply->gone)
    return;
  SoupMessageBody *body = soup_server_message_get_response_body (reply->message);
  soup_message_body_append (body, SOUP_MEMORY_COPY, line, strlen (line));
  soup_server_message_unpause (reply->message);
}

/* ---- OpenAI's objects ----------------------------------------------------------------------------------------------------- */

static JsonObject *head (const ValiseReply *reply)
{
  JsonObject *object = json_object_new ();
  json_object_set_string_member (object, "id", reply->id);
  json_object_set_string_member (object, "object", !reply->asked->chat ? "text_completion" : reply->asked->stream ? "chat.completion.chunk" : "chat.completion");
  json_object_set_int_member (object, "created", reply->created);
  json_object_set_string_member (object, "model", reply->model_name);
  return object;
}

/* Takes part: a message, a delta, or NULL with the text of a completion. */
static JsonObject *with_choice (ValiseReply *reply, JsonObject *part, const char *text, const char *finish_reason)
{
  JsonObject *object = head (reply), *choice = json_object_new ();
  JsonArray *choices = json_array_new ();
  json_object_set_int_member (choice, "index", 0);
  if (part != NULL)
    json_object_set_object_member (choice, reply->asked->stream ? "delta" : "message", part);
  else
    json_object_set_string_member (choice, "text", text);
  json_object_set_null_member (choice, "logprobs");
  if (finish_reason != NULL)
    json_object_set_string_member (choice, "finish_reason", finish_reason);
  else
    json_object_set_null_member (choice, "finish_reason");
  json_array_add_object_element (choices, choice);
  json_object_set_array_member (object, "choices", choices);
  return object;
}

static void send_chunk (ValiseReply *reply, JsonObject *delta, const char *text, const char *finish_reason)
{
  g_autofree char *data = take_json (with_choice (reply, delta, text, finish_reason));
  send_event (reply, data);
}

static JsonObject *usage_of (const EngBatchStats *stats)
{
  JsonObject *usage = json_object_new (), *details = json_object_new ();
  json_object_set_int_member (usage, "prompt_tokens", stats->prompt_tokens);
  json_object_set_int_member (usage, "completion_tokens", stats->generated_tokens);
  json_object_set_int_member (usage, "total_tokens", stats->prompt_tokens + stats->generated_tokens);
  json_object_set_int_member (details, "cached_tokens", stats->reused_tokens);
  json_object_set_object_member (usage, "prompt_tokens_details", details);
  return usage;
}

/* {"name", "arguments": {}} as a client has it: arguments are text. */
static JsonObject *call_object (ValiseReply *reply, const char *text)
{
  g_autoptr (JsonNode) node = eng_json_parse (text, strlen (text), NULL);
  JsonObject *call = json_object_new (), *function = json_object_new ();
  g_autofree char *arguments = json_to_string (json_object_get_member (json_node_get_object (node), "arguments"), FALSE);
  g_autofree char *id = g_strdup_printf ("call_%08x%08x", g_random_int (), g_random_int ());
  json_object_set_string_member (function, "name", json_object_get_string_member (json_node_get_object (node), "name"));
  json_object_set_string_member (function, "arguments", arguments);
  if (reply->asked->stream)
    json_object_set_int_member (call, "index", reply->n_calls);
  json_object_set_string_member (call, "id", id);
  json_object_set_string_member (call, "type", "function");
  json_object_set_object_member (call, "function", function);
  reply->n_calls++;
  return call;
}

/* ---- on the main context -------------------------------------------------------------------------------------------------- */

static void stop_watching (ValiseReply *reply)
{
  if (reply->watch == NULL)
    return;
  g_source_destroy (reply->watch);
  g_clear_pointer (&reply->watch, g_source_unref);
}

static void reply_unref (ValiseReply *reply)
{
  if (!g_atomic_ref_count_dec (&reply->refs))
    return;
  stop_watching (reply);
  valise_asked_free (reply->asked);
  eng_ticket_unref (reply->ticket);
  g_object_unref (reply->message);
  g_main_context_unref (reply->context);
  g_string_free (reply->texts[0], TRUE);
  g_string_free (reply->texts[1], TRUE);
  json_array_unref (reply->calls);
  g_free (reply->id);
  g_free (reply->model_name);
  g_free (reply);
}

typedef struct {
  ValiseReply *reply;
  EngTextKind kind;
  char *text;
  gboolean ended;
  EngBatchStats stats;
  GError *error;
} Event;

static void event_free (gpointer data)
{
  Event *event = data;
  reply_unref (event->reply);
  g_clear_error (&event->error);
  g_free (event->text);
  g_free (event);
}

static void take_part (ValiseReply *reply, EngTextKind kind, const char *text)
{
  JsonObject *delta = NULL;
  if (!reply->asked->stream) {
    if (kind == ENG_TEXT_CALL)
      json_array_add_object_element (reply->calls, call_object (reply, text));
    else
      g_string_append (reply->texts[kind], text);
    return;
  }
  if (!reply->asked->chat) {
    send_chunk (reply, NULL, text, NULL);
    return;
  }
  delta = json_object_new ();
  if (kind == ENG_TEXT_CALL) {
    JsonArray *calls = json_array_new ();
    json_array_add_object_element (calls, call_object (reply, text));
    json_object_set_array_member (delta, "tool_calls", calls);
  } else {
    json_object_set_string_member (delta, kind == ENG_TEXT_REASONING ? "reasoning_content" : "content", text);
  }
  send_chunk (reply, delta, NULL, NULL);
}

static void send_whole (ValiseReply *reply, const EngBatchStats *stats, const char *finish_reason)
{
  JsonObject *message = reply->asked->chat ? json_object_new () : NULL, *object;
  if (message != NULL) {
    json_object_set_string_member (message, "role", "assistant");
    if (reply->n_calls > 0 && reply->texts[ENG_TEXT_ANSWER]->len == 0)
      json_object_set_null_member (message, "content");
    else
      json_object_set_string_member (message, "content", reply->texts[ENG_TEXT_ANSWER]->str);
    if (reply->texts[ENG_TEXT_REASONING]->len > 0)
      json_object_set_string_member (message, "reasoning_content", reply->texts[ENG_TEXT_REASONING]->str);
    if (reply->n_calls > 0)
      json_object_set_array_member (message, "tool_calls", json_array_ref (reply->calls));
  }
  object = with_choice (reply, message, reply->texts[ENG_TEXT_ANSWER]->str, finish_reason);
  json_object_set_object_member (object, "usage", usage_of (stats));
  valise_send_json (reply->message, SOUP_STATUS_OK, object);
  soup_server_message_unpause (reply->message);
}

static void take_end (ValiseReply *reply, const EngBatchStats *stats, const GError *error)
{
  const char *finish_reason = reply->n_calls > 0 && g_strcmp0 (stats->finish_reason, "stop") == 0 ? "tool_calls" : stats->finish_reason;
  gboolean stopped = error == NULL && g_strcmp0 (finish_reason, "cancelled") == 0; /* the server goes, or nobody listens */
  const char *sentence = error != NULL ? error->message : "the server was stopped";
  stop_watching (reply);
  if (reply->gone)
    return;
  if (!reply->asked->stream && (error != NULL || stopped)) {
    valise_send_error (reply->message, stopped ? SOUP_STATUS_SERVICE_UNAVAILABLE : SOUP_STATUS_INTERNAL_SERVER_ERROR, sentence);
    soup_server_message_unpause (reply->message);
  } else if (!reply->asked->stream) {
    send_whole (reply, stats, finish_reason);
  } else {
    if (error != NULL || stopped) {
      g_autofree char *data = take_json (error_object (500, sentence));
      send_event (reply, data);
    } else {
      send_chunk (reply, reply->asked->chat ? json_object_new () : NULL, "", finish_reason);
    }
    if (reply->asked->usage && error == NULL) {
      JsonObject *object = head (reply);
      json_object_set_array_member (object, "choices", json_array_new ());
      json_object_set_object_member (object, "usage", usage_of (stats));
      g_autofree char *data = take_json (object);
      send_event (reply, data);
    }
    send_event (reply, "[DONE]");
    soup_message_body_complete (soup_server_message_get_response_body (reply->message));
    soup_server_message_unpause (reply->message);
  }
}

static gboolean take_event (gpointer data)
{
  Event *event = data;
  if (event->ended) {
    take_end (event->reply, &event->stats, event->error);
    g_signal_handlers_disconnect_by_data (event->reply->message, event->reply);
    reply_unref (event->reply); /* the event's own is left */
  } else if (!event->reply->gone) {
    take_part (event->reply, event->kind, event->text);
  }
  return G_SOURCE_REMOVE;
}

static void nobody_listens (ValiseReply *reply)
{
  reply->gone = TRUE;
  if (reply->ticket != NULL)
    eng_ticket_cancel (reply->ticket);
}

/* The socket can be read while the message waits: either the client has gone, or it sends what nobody has asked for. */
static gboolean look_at_client (GSocket *socket, GIOCondition condition, gpointer data)
{
  ValiseReply *reply = data;
  char byte;
  gssize n = recv (g_socket_get_fd (socket), &byte, 1, MSG_PEEK | MSG_DONTWAIT);
  if (n == 0 || (condition & (G_IO_HUP | G_IO_ERR)) != 0)
    nobody_listens (reply);
  if (reply->gone && !reply->asked->stream)
    soup_server_message_unpause (reply->message); /* it fails to send, and is done with */
  return G_SOURCE_REMOVE;
}

static void on_finished (SoupServerMessage *message, gpointer data)
{
  nobody_listens (data);
}

/* ---- on the batch's thread ------------------------------------------------------------------------------------------------ */

static void post (Event *event)
{
  g_atomic_ref_count_inc (&event->reply->refs);
  g_autoptr (GSource) source = g_idle_source_new ();
  g_source_set_priority (source, G_PRIORITY_DEFAULT);
  g_source_set_callback (source, take_event, event, event_free);
  g_source_attach (source, event->reply->context);
}

static void on_text (EngTextKind kind, const char *text, gpointer data)
{
  Event *event = g_new0 (Event, 1);
  event->reply = data;
  event->kind = kind;
  event->text = g_strdup (text);
  post (event);
}

static void on_done (const EngBatchStats *stats, const GError *error, gpointer data)
{
  Event *event = g_new0 (Event, 1);
  event->reply = data;
  event->ended = TRUE;
  event->stats = *stats;
  event->error = error != NULL ? g_error_copy (error) : NULL;
  post (event);
}

/* ---- the beginning -------------------------------------------------------------------------------------------------------- */

static void start_stream (ValiseReply *reply)
{
  SoupMessageHeaders *headers = soup_server_message_get_response_headers (reply->message);
  soup_server_message_set_status (reply->message, SOUP_STATUS_OK, NULL);
  soup_message_headers_set_encoding (headers, SOUP_ENCODING_CHUNKED);
  soup_message_headers_set_content_type (headers, "text/event-stream", NULL);
  soup_message_headers_replace (headers, "Cache-Control", "no-cache");
  soup_message_body_set_accumulate (soup_server_message_get_response_body (reply->message), FALSE);
  if (!reply->asked->chat)
    return;
  JsonObject *delta = json_object_new ();
  json_object_set_string_member (delta, "role", "assistant");
  json_object_set_string_member (delta, "content", "");
  send_chunk (reply, delta, NULL, NULL);
}

gboolean valise_reply_start (EngBatch *batch, const char *model_name, SoupServerMessage *message, ValiseAsked *asked, GError **error)
{
  ValiseReply *reply = g_new0 (ValiseReply, 1);
  g_atomic_ref_count_init (&reply->refs);
  reply->context = g_main_context_ref_thread_default ();
  reply->message = g_object_ref (message);
  reply->asked = asked;
  reply->id = g_strdup_printf ("%s-%08x%08x%08x", asked->chat ? "chatcmpl" : "cmpl", g_random_int (), g_random_int (), g_random_int ());
  reply->model_name = g_strdup (model_name);
  reply->created = g_get_real_time () / G_USEC_PER_SEC;
  reply->texts[0] = g_string_new (NULL);
  reply->texts[1] = g_string_new (NULL);
  reply->calls = json_array_new ();
  reply->ticket = eng_batch_ask (batch, asked->prompt, &asked->answer, on_text, on_done, reply, error);
  if (reply->ticket == NULL) {
    reply_unref (reply);
    return FALSE;
  }
  soup_server_message_pause (message);
  GSocket *socket = soup_server_message_get_socket (message);
  if (socket != NULL) {
    reply->watch = g_socket_create_source (socket, G_IO_IN | G_IO_HUP | G_IO_ERR, NULL);
    g_source_set_callback (reply->watch, G_SOURCE_FUNC (look_at_client), reply, NULL);
    g_source_attach (reply->watch, reply->context);
  }
  g_signal_connect (message, "finished", G_CALLBACK (on_finished), reply);
  if (asked->stream)
    start_stream (reply);
  return TRUE;
}
