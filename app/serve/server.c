/* server.c: who may ask, and what for. Pages of other sites, which a browser would let ask here as well, are sent away. */
#include "app/serve/serve-private.h"

#include "engine/error.h"
#include "engine/json_reader.h"

#include <string.h>

enum { MAX_WAITING = 64, MAX_BODY = 32 << 20, BATCH = 256 };

struct ValiseServer {
  EngModel *model;
  EngBatch *batch;
  SoupServer *soup;
  char *name, *token;
  gint64 created;
};

/* ---- who asks ------------------------------------------------------------------------------------------------------------- */

static gboolean is_here (const char *host)
{
  static const char *const names[] = { "localhost", "127.0.0.1", "::1", "[::1]" };
  for (guint i = 0; host != NULL && i < G_N_ELEMENTS (names); i++)
    if (g_ascii_strcasecmp (host, names[i]) == 0)
      return TRUE;
  return FALSE;
}

static gboolean is_from_here (const char *origin)
{
  g_autoptr (GUri) uri = g_uri_parse (origin, G_URI_FLAGS_NONE, NULL);
  return uri != NULL && is_here (g_uri_get_host (uri));
}

static gboolean same_token (const char *a, const char *b)
{
  gsize n = strlen (a);
  guint8 difference = strlen (b) != n;
  for (gsize i = 0; i < n && difference == 0; i++)
    difference |= (guint8) (a[i] ^ b[i]);
  return difference == 0;
}

/* The status that turns whoever asks away, or 0. */
static guint turned_away (ValiseServer *s, SoupServerMessage *message, const char **sentence)
{
  SoupMessageHeaders *headers = soup_server_message_get_request_headers (message);
  const char *origin = soup_message_headers_get_one (headers, "Origin"), *given = soup_message_headers_get_one (headers, "Authorization");
  *sentence = "this server answers this computer alone: ask for 127.0.0.1 or localhost";
  if (!is_here (g_uri_get_host (soup_server_message_get_uri (message))) || (origin != NULL && !is_from_here (origin)))
    return SOUP_STATUS_FORBIDDEN;
  *sentence = "the token is missing or wrong: send it as Authorization: Bearer TOKEN";
  if (s->token != NULL && (given == NULL || g_ascii_strncasecmp (given, "Bearer ", 7) != 0 || !same_token (s->token, given + 7)))
    return SOUP_STATUS_UNAUTHORIZED;
  return 0;
}

/* ---- what is asked -------------------------------------------------------------------------------------------------------- */

static JsonObject *model_object (ValiseServer *s)
{
  JsonObject *object = json_object_new ();
  json_object_set_string_member (object, "id", s->name);
  json_object_set_string_member (object, "object", "model");
  json_object_set_int_member (object, "created", s->created);
  json_object_set_string_member (object, "owned_by", "valise");
  json_object_set_int_member (object, "context", eng_batch_n_ctx (s->batch));
  return object;
}

static void answer_models (ValiseServer *s, SoupServerMessage *message)
{
  JsonObject *object = json_object_new ();
  JsonArray *list = json_array_new ();
  json_array_add_object_element (list, model_object (s));
  json_object_set_string_member (object, "object", "list");
  json_object_set_array_member (object, "data", list);
  valise_send_json (message, SOUP_STATUS_OK, object);
}

static JsonNode *read_body (SoupServerMessage *message, GError **error)
{
  g_autoptr (GBytes) bytes = soup_message_body_flatten (soup_server_message_get_request_body (message));
  gsize length;
  const char *text = g_bytes_get_data (bytes, &length);
  g_autoptr (JsonNode) node = eng_json_parse (text != NULL ? text : "", length, error);
  if (node == NULL) {
    g_prefix_error (error, "the request ");
    return NULL;
  }
  if (!JSON_NODE_HOLDS_OBJECT (node)) {
    g_set_error_literal (error, VALISE_ERROR, VALISE_ERROR_ARGUMENT, "the request is no object of JSON");
    return NULL;
  }
  return g_steal_pointer (&node);
}

static guint status_of (const GError *error)
{
  return g_error_matches (error, ENG_ERROR, ENG_ERROR_BUSY) ? SOUP_STATUS_SERVICE_UNAVAILABLE : SOUP_STATUS_BAD_REQUEST;
}

static void answer_completions (ValiseServer *s, SoupServerMessage *message, JsonObject *body, gboolean chat)
{
  g_autoptr (GError) error = NULL;
  ValiseAsked *asked = valise_asked_new (s->model, body, chat, &error);
  if (asked == NULL || !valise_reply_start (s->batch, s->name, message, asked, &error))
    valise_send_error (message, status_of (error), error->message);
}

/* Text to tokens, and back. */
static void answer_tokenize (ValiseServer *s, SoupServerMessage *message, JsonObject *body)
{
  const EngTokenizer *tokenizer = eng_model_tokenizer (s->model);
  const char *text = NULL;
  if (!valise_asked_string (body, "content", &text, NULL) || text == NULL) {
    valise_send_error (message, SOUP_STATUS_BAD_REQUEST, "content is no string: it is the text to be made tokens of");
    return;
  }
  JsonNode *special = json_object_get_member (body, "parse_special");
  gboolean parse = special != NULL && JSON_NODE_HOLDS_VALUE (special) && json_node_get_boolean (special);
  g_autoptr (GArray) tokens = g_array_new (FALSE, FALSE, sizeof (gint32));
  eng_tokenizer_encode (tokenizer, text, -1, parse ? ENG_TOKENIZE_SPECIAL : ENG_TOKENIZE_PLAIN, tokens);
  JsonArray *list = json_array_new ();
  for (guint i = 0; i < tokens->len; i++)
    json_array_add_int_element (list, g_array_index (tokens, gint32, i));
  JsonObject *object = json_object_new ();
  json_object_set_array_member (object, "tokens", list);
  valise_send_json (message, SOUP_STATUS_OK, object);
}

static void answer_detokenize (ValiseServer *s, SoupServerMessage *message, JsonObject *body)
{
  JsonNode *node = json_object_get_member (body, "tokens");
  JsonArray *list = node != NULL && JSON_NODE_HOLDS_ARRAY (node) ? json_node_get_array (node) : NULL;
  g_autoptr (GString) text = g_string_new (NULL);
  EngDetokenizer *detokenizer = eng_detokenizer_new (eng_model_tokenizer (s->model));
  gboolean ok = list != NULL;
  for (guint i = 0; ok && i < json_array_get_length (list); i++) {
    JsonNode *one = json_array_get_element (list, i);
    gint64 token = JSON_NODE_HOLDS_VALUE (one) && json_node_get_value_type (one) == G_TYPE_INT64 ? json_node_get_int (one) : -1;
    ok = token >= 0 && token < eng_tokenizer_n_tokens (eng_model_tokenizer (s->model));
    if (ok)
      g_string_append (text, eng_detokenizer_push (detokenizer, (int) token));
  }
  g_string_append (text, eng_detokenizer_flush (detokenizer));
  eng_detokenizer_free (detokenizer);
  if (!ok) {
    valise_send_error (message, SOUP_STATUS_BAD_REQUEST, "tokens is no list of this model's tokens");
    return;
  }
  JsonObject *object = json_object_new ();
  json_object_set_string_member (object, "content", text->str);
  valise_send_json (message, SOUP_STATUS_OK, object);
}

typedef enum { PATH_HEALTH, PATH_MODELS, PATH_MODEL, PATH_CHAT, PATH_COMPLETIONS, PATH_TOKENIZE, PATH_DETOKENIZE, PATH_UNKNOWN } Path;

static Path path_of (ValiseServer *s, const char *path)
{
  static const char *const names[] = { "/health", "/models", NULL, "/chat/completions", "/completions", "/tokenize", "/detokenize" };
  path += g_str_has_prefix (path, "/v1/") ? strlen ("/v1") : 0;
  for (guint i = 0; i < G_N_ELEMENTS (names); i++)
    if (g_strcmp0 (path, names[i]) == 0)
      return (Path) i;
  return g_str_has_prefix (path, "/models/") && g_str_equal (path + strlen ("/models/"), s->name) ? PATH_MODEL : PATH_UNKNOWN;
}

static void answer (SoupServer *soup, SoupServerMessage *message, const char *path, GHashTable *query, gpointer data)
{
  ValiseServer *s = data;
  const char *sentence = "", *method = soup_server_message_get_method (message);
  guint status = 0;
  Path asked = path_of (s, path);
  gboolean reads = asked <= PATH_MODEL;
  if (asked == PATH_UNKNOWN) {
    status = SOUP_STATUS_NOT_FOUND;
    sentence = "there is nothing under this path: /v1/models, /v1/chat/completions, /v1/completions, /tokenize and /detokenize are known";
  } else if (!g_str_equal (method, reads ? "GET" : "POST")) {
    status = SOUP_STATUS_METHOD_NOT_ALLOWED;
    sentence = reads ? "ask this with GET" : "ask this with POST";
  }
  if (status != 0) {
    valise_send_error (message, status, sentence);
    return;
  }
  g_autoptr (GError) error = NULL;
  g_autoptr (JsonNode) body = reads ? NULL : read_body (message, &error);
  JsonObject *object = body != NULL ? json_node_get_object (body) : NULL;
  if (error != NULL) {
    valise_send_error (message, SOUP_STATUS_BAD_REQUEST, error->message);
    return;
  }
  if (asked == PATH_HEALTH) {
    object = json_object_new ();
    json_object_set_string_member (object, "status", "ok");
    valise_send_json (message, SOUP_STATUS_OK, object);
  } else if (asked == PATH_MODELS) {
    answer_models (s, message);
  } else if (asked == PATH_MODEL) {
    valise_send_json (message, SOUP_STATUS_OK, model_object (s));
  } else if (asked == PATH_TOKENIZE) {
    answer_tokenize (s, message, object);
  } else if (asked == PATH_DETOKENIZE) {
    answer_detokenize (s, message, object);
  } else {
    answer_completions (s, message, object, asked == PATH_CHAT);
  }
}

/* Before the body is read: whoever may not ask need not send it, and none is read that has no end. */
static void answer_early (SoupServer *soup, SoupServerMessage *message, const char *path, GHashTable *query, gpointer data)
{
  SoupMessageHeaders *headers = soup_server_message_get_request_headers (message);
  const char *sentence;
  guint status = turned_away (data, message, &sentence);
  if (status == 0 && soup_message_headers_get_encoding (headers) == SOUP_ENCODING_CHUNKED) {
    status = SOUP_STATUS_LENGTH_REQUIRED;
    sentence = "say with Content-Length how long the request is";
  } else if (status == 0 && soup_message_headers_get_content_length (headers) > MAX_BODY) {
    status = SOUP_STATUS_REQUEST_ENTITY_TOO_LARGE;
    sentence = "the request is larger than 32 MB";
  }
  if (status != 0)
    valise_send_error (message, status, sentence);
}

/* ---- the server ----------------------------------------------------------------------------------------------------------- */

ValiseServer *valise_server_new (EngModel *model, EngWorkers *workers, const ValiseServeOptions *options, GError **error)
{
  EngSessionOptions session;
  if (!valise_session_options (eng_model_traits (model), options->context, options->kv_bits, &session, error))
    return NULL;
  session.n_sessions = options->parallel;
  session.batch = BATCH;
  g_autoptr (ValiseServer) s = g_new0 (ValiseServer, 1);
  s->model = eng_model_ref (model);
  s->name = g_strdup (options->name);
  s->token = g_strdup (options->token);
  s->created = g_get_real_time () / G_USEC_PER_SEC;
  s->batch = eng_batch_new (model, workers, &session, MAX_WAITING, error);
  if (s->batch == NULL)
    return NULL;
  s->soup = soup_server_new ("server-header", "valise ", NULL);
  soup_server_add_handler (s->soup, NULL, answer, s, NULL);
  soup_server_add_early_handler (s->soup, NULL, answer_early, s, NULL);
  g_autoptr (GError) failure = NULL;
  if (!soup_server_listen_local (s->soup, options->port, SOUP_SERVER_LISTEN_IPV4_ONLY, &failure)) {
    if (failure->code == G_IO_ERROR_ADDRESS_IN_USE)
      g_set_error (error, VALISE_ERROR, VALISE_ERROR_BUSY, "port %u is taken by another program: choose another", options->port);
    else
      g_set_error (error, VALISE_ERROR, VALISE_ERROR_ARGUMENT, "port %u cannot be listened on, choose another: %s", options->port, failure->message);
    return NULL;
  }
  return g_steal_pointer (&s);
}

void valise_server_free (ValiseServer *s)
{
  if (s == NULL)
    return;
  g_clear_pointer (&s->batch, eng_batch_free);
  while (g_main_context_iteration (g_main_context_get_thread_default (), FALSE)) /* the ends that its thread has told are sent */
    ;
  if (s->soup != NULL)
    soup_server_disconnect (s->soup);
  g_clear_object (&s->soup);
  eng_model_unref (s->model);
  g_free (s->name);
  g_free (s->token);
  g_free (s);
}

guint valise_server_port (ValiseServer *s)
{
  GSList *uris = soup_server_get_uris (s->soup);
  guint port = uris != NULL ? (guint) g_uri_get_port (uris->data) : 0;
  g_slist_free_full (uris, (GDestroyNotify) g_uri_unref);
  return port;
}

guint valise_server_n_ctx (ValiseServer *s)
{
  return eng_batch_n_ctx (s->batch);
}
