/* conversation.c: from a person's words to a stored, streamed answer. The store is written by one background thread, in order, so
 * that a slow disk never holds up the main loop. */
#include "app/ui/conversation.h"

#include <glib/gi18n.h>
#include <string.h>

#include "engine/error.h"

/* A killed process loses at most this much of an answer. */
#define STORE_INTERVAL_US (G_USEC_PER_SEC)
#define TITLE_CHARS 48

struct _ValiseConversation {
  GObject parent;
  ValiseLibrary *library;
  ValiseRunner *runner;
  GThreadPool *writer;
  ValiseMessage *message; /* being written */
  GString *text;
  gint64 stored_us;
  gint64 thought_us; /* when the reasoning that goes on began, 0: none does */
  gboolean ended; /* its last words are on the way to the disk */
  gboolean shifted;
};

enum { PROP_BUSY = 1, N_PROPS };
enum { STARTED, TEXT, FINISHED, FAILED, N_SIGNALS };
static GParamSpec *properties[N_PROPS];
static guint signals[N_SIGNALS];

G_DEFINE_TYPE (ValiseConversation, valise_conversation, G_TYPE_OBJECT)

/* ---- the store -------------------------------------------------------------------------------------------------------------------- */

typedef struct {
  ValiseMessage *message;
  ValiseConversation *ended; /* the last of its message: tell, once it is on disk */
  char *failure;             /* the sentence, when it ended so */
} Write;

static void write_free (gpointer data)
{
  Write *write = data;
  valise_message_free (write->message);
  g_clear_object (&write->ended);
  g_free (write->failure);
  g_free (write);
}

static gboolean tell_end (gpointer data)
{
  Write *write = data;
  ValiseConversation *self = write->ended;
  g_clear_pointer (&self->message, valise_message_free);
  g_object_notify_by_pspec (G_OBJECT (self), properties[PROP_BUSY]);
  if (write->failure)
    g_signal_emit (self, signals[FAILED], 0, write->failure);
  else
    g_signal_emit (self, signals[FINISHED], 0);
  return G_SOURCE_REMOVE;
}

static void write_message (gpointer data, gpointer library)
{
  Write *write = data;
  g_autoptr (GError) error = NULL;
  if (!valise_library_update_message (library, write->message, &error))
    g_warning ("the answer could not be stored: %s", error->message);
  if (write->ended)
    g_idle_add_full (G_PRIORITY_DEFAULT, tell_end, write, write_free);
  else
    write_free (write);
}

static void store (ValiseConversation *self, gboolean ended, const char *failure)
{
  g_free (self->message->content);
  self->message->content = g_strdup (self->text->str);
  self->stored_us = g_get_monotonic_time ();
  Write *write = g_new0 (Write, 1);
  write->message = valise_message_copy (self->message);
  write->ended = ended ? g_object_ref (self) : NULL;
  write->failure = g_strdup (failure);
  g_thread_pool_push (self->writer, write, NULL);
}

void valise_conversation_flush (ValiseConversation *self)
{
  if (self->message && !self->ended) {
    g_free (self->message->finish_reason);
    self->message->finish_reason = g_strdup ("cancelled");
    store (self, FALSE, NULL);
  }
  g_thread_pool_free (self->writer, FALSE, TRUE);
  self->writer = g_thread_pool_new (write_message, self->library, 1, FALSE, NULL);
}

static char *title_from (const char *text)
{
  g_autofree char *line = g_strdup (text);
  g_strdelimit (line, "\r\n\t", ' ');
  g_strstrip (line);
  if (g_utf8_strlen (line, -1) <= TITLE_CHARS)
    return g_steal_pointer (&line);
  g_autofree char *cut = g_utf8_substring (line, 0, TITLE_CHARS);
  char *space = strrchr (cut, ' ');
  if (space && space - cut > TITLE_CHARS / 2)
    *space = '\0';
  return g_strconcat (cut, "…", NULL);
}

/* ---- an answer from beginning to end ------------------------------------------------------------------------------------------- */

/* The time from a thought's first word to its last. */
static void measure_thought (ValiseConversation *self, gboolean ended)
{
  gint64 now = g_get_monotonic_time ();
  if (self->thought_us == 0 && self->message->thought_seconds == 0 && g_str_has_prefix (self->text->str, VALISE_REASONING_BEGIN))
    self->thought_us = now;
  if (self->thought_us == 0 || !(ended || *valise_message_answer (self->text->str)))
    return;
  self->message->thought_seconds = MAX ((double) (now - self->thought_us) / G_USEC_PER_SEC, 0.001);
  self->thought_us = 0;
}

static void end_answer (ValiseConversation *self, const char *reason, const char *failure)
{
  g_free (self->message->finish_reason);
  self->message->finish_reason = g_strdup (reason);
  self->ended = TRUE;
  measure_thought (self, TRUE);
  store (self, TRUE, failure);
}

static void on_text (ValiseConversation *self, const char *text)
{
  if (!self->message || self->ended)
    return;
  g_string_append (self->text, text);
  measure_thought (self, FALSE);
  if (g_get_monotonic_time () - self->stored_us > STORE_INTERVAL_US)
    store (self, FALSE, NULL);
  g_signal_emit (self, signals[TEXT], 0, text);
}

static void on_finished (ValiseConversation *self, EngGenerateStats *stats)
{
  if (!self->message || self->ended)
    return;
  if (stats->generate_us > 0)
    self->message->tokens_per_second = stats->generated_tokens * (double) G_USEC_PER_SEC / (double) stats->generate_us;
  self->shifted = stats->shifted;
  end_answer (self, stats->finish_reason ? stats->finish_reason : "stop", NULL);
}

static void on_failed (ValiseConversation *self, const char *sentence)
{
  if (self->message && !self->ended)
    end_answer (self, "cancelled", sentence);
}

static void add_turn (JsonArray *messages, const char *role, const char *content)
{
  JsonObject *turn = json_object_new ();
  json_object_set_string_member (turn, "role", role);
  json_object_set_string_member (turn, "content", content);
  json_array_add_object_element (messages, turn);
}

gboolean valise_conversation_answer (ValiseConversation *self, gint64 chat_id, gint64 user_message_id, GError **error)
{
  if (self->message) {
    g_set_error_literal (error, VALISE_ERROR, VALISE_ERROR_BUSY, _("An answer is being written; stop it first"));
    return FALSE;
  }
  ValiseModel *model = valise_runner_get_model (self->runner);
  if (!model) {
    g_set_error_literal (error, VALISE_ERROR, VALISE_ERROR_NOT_FOUND, _("No model is open; choose one above the chat"));
    return FALSE;
  }
  g_autoptr (ValiseChat) chat = valise_library_get_chat (self->library, chat_id, error);
  if (!chat)
    return FALSE;
  gint64 id = valise_library_add_message (self->library, chat_id, user_message_id, "assistant", "", error);
  if (!id)
    return FALSE;
  /* The new message is the leaf: its branch, without itself, is what the model reads. */
  g_autoptr (GPtrArray) branch = valise_library_get_branch (self->library, chat_id, error);
  if (!branch)
    return FALSE;
  g_autoptr (JsonArray) messages = json_array_new ();
  if (*chat->system_prompt)
    add_turn (messages, "system", chat->system_prompt);
  for (guint i = 0; i < branch->len; i++) {
    ValiseMessage *message = g_ptr_array_index (branch, i);
    if (message->id == id)
      self->message = valise_message_copy (message);
    else
      add_turn (messages, message->role, g_str_equal (message->role, "assistant") ? valise_message_answer (message->content) : message->content);
  }
  if (!self->message) {
    g_set_error_literal (error, VALISE_ERROR, VALISE_ERROR_STORE, _("The answer has no place in its chat; open the chat again"));
    return FALSE;
  }
  g_free (self->message->model_name);
  self->message->model_name = g_strdup (valise_model_get_name (model));
  g_string_truncate (self->text, 0);
  self->thought_us = 0;
  self->stored_us = g_get_monotonic_time ();
  self->shifted = self->ended = FALSE;
  EngSamplerOptions sampling = chat->sampling;
  /* Without a seed of the person's own, another answer is asked for each time. */
  if (sampling.seed == 0)
    sampling.seed = g_random_int () + 1u;
  g_object_notify_by_pspec (G_OBJECT (self), properties[PROP_BUSY]);
  g_signal_emit (self, signals[STARTED], 0);
  valise_runner_generate (self->runner, messages, &sampling, 0);
  return TRUE;
}

gboolean valise_conversation_send (ValiseConversation *self, gint64 chat_id, gint64 parent_id, const char *text, GError **error)
{
  if (self->message) {
    g_set_error_literal (error, VALISE_ERROR, VALISE_ERROR_BUSY, _("An answer is being written; stop it first"));
    return FALSE;
  }
  g_autoptr (ValiseChat) chat = valise_library_get_chat (self->library, chat_id, error);
  if (!chat)
    return FALSE;
  gint64 id = valise_library_add_message (self->library, chat_id, parent_id, "user", text, error);
  if (!id)
    return FALSE;
  if (!*chat->title) {
    g_free (chat->title);
    chat->title = title_from (text);
    chat->leaf_id = id;
    if (!valise_library_update_chat (self->library, chat, error))
      return FALSE;
  }
  return valise_conversation_answer (self, chat_id, id, error);
}

void valise_conversation_stop (ValiseConversation *self)
{
  if (self->message)
    valise_runner_stop (self->runner);
}

gboolean valise_conversation_is_busy (ValiseConversation *self)
{
  return self->message != NULL;
}

gint64 valise_conversation_get_chat_id (ValiseConversation *self)
{
  return self->message ? self->message->chat_id : 0;
}

gint64 valise_conversation_get_message_id (ValiseConversation *self)
{
  return self->message ? self->message->id : 0;
}

const char *valise_conversation_get_text (ValiseConversation *self)
{
  return self->message ? self->text->str : NULL;
}

gboolean valise_conversation_was_shifted (ValiseConversation *self)
{
  return self->shifted;
}

ValiseRunner *valise_conversation_get_runner (ValiseConversation *self)
{
  return self->runner;
}

static void get_property (GObject *object, guint id, GValue *value, GParamSpec *pspec)
{
  ValiseConversation *self = VALISE_CONVERSATION (object);
  if (id == PROP_BUSY)
    g_value_set_boolean (value, self->message != NULL);
  else
    G_OBJECT_WARN_INVALID_PROPERTY_ID (object, id, pspec);
}

static void finalize (GObject *object)
{
  ValiseConversation *self = VALISE_CONVERSATION (object);
  g_thread_pool_free (self->writer, FALSE, TRUE);
  g_clear_pointer (&self->message, valise_message_free);
  g_string_free (self->text, TRUE);
  g_object_unref (self->runner);
  g_object_unref (self->library);
  G_OBJECT_CLASS (valise_conversation_parent_class)->finalize (object);
}

static void valise_conversation_class_init (ValiseConversationClass *klass)
{
  GObjectClass *object_class = G_OBJECT_CLASS (klass);
  object_class->get_property = get_property;
  object_class->finalize = finalize;
  properties[PROP_BUSY] = g_param_spec_boolean ("busy", NULL, NULL, FALSE, G_PARAM_READABLE | G_PARAM_STATIC_STRINGS);
  g_object_class_install_properties (object_class, N_PROPS, properties);
  GType type = G_TYPE_FROM_CLASS (klass);
  signals[STARTED] = g_signal_new ("started", type, G_SIGNAL_RUN_LAST, 0, NULL, NULL, NULL, G_TYPE_NONE, 0);
  signals[TEXT] = g_signal_new ("text", type, G_SIGNAL_RUN_LAST, 0, NULL, NULL, NULL, G_TYPE_NONE, 1, G_TYPE_STRING);
  signals[FINISHED] = g_signal_new ("finished", type, G_SIGNAL_RUN_LAST, 0, NULL, NULL, NULL, G_TYPE_NONE, 0);
  signals[FAILED] = g_signal_new ("failed", type, G_SIGNAL_RUN_LAST, 0, NULL, NULL, NULL, G_TYPE_NONE, 1, G_TYPE_STRING);
}

static void valise_conversation_init (ValiseConversation *self)
{
  self->text = g_string_new (NULL);
}

ValiseConversation *valise_conversation_new (ValiseLibrary *library, ValiseRunner *runner)
{
  ValiseConversation *self = g_object_new (VALISE_TYPE_CONVERSATION, NULL);
  self->library = g_object_ref (library);
  self->runner = g_object_ref (runner);
  self->writer = g_thread_pool_new (write_message, library, 1, FALSE, NULL);
  g_signal_connect_object (runner, "text", G_CALLBACK (on_text), self, G_CONNECT_SWAPPED);
  g_signal_connect_object (runner, "finished", G_CALLBACK (on_finished), self, G_CONNECT_SWAPPED);
  g_signal_connect_object (runner, "failed", G_CALLBACK (on_failed), self, G_CONNECT_SWAPPED);
  return self;
}
