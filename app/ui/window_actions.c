/* window_actions.c: what menus, keys, rows and toasts can tell a window to do. */
#include "app/ui/window.h"

#include <glib/gi18n.h>

#include "app/ui/chat_settings.h"
#include "app/ui/fit_wizard.h"

static ValiseLibrary *library (void)
{
  return valise_application_get_library (valise_app ());
}

static gint64 shown_chat (ValiseWindow *self)
{
  return valise_chat_page_get_chat_id (valise_window_get_chat_page (self));
}

/* ---- places ------------------------------------------------------------------------------------------------------------------------------ */

static void new_chat (GSimpleAction *action, GVariant *parameter, gpointer data)
{
  valise_window_new_chat (data, NULL);
}

static void show_chat (GSimpleAction *action, GVariant *parameter, gpointer data)
{
  valise_window_show_chat (data, g_variant_get_int64 (parameter));
}

static void show_models (GSimpleAction *action, GVariant *parameter, gpointer data)
{
  valise_window_show_models (data);
}

static void back (GSimpleAction *action, GVariant *parameter, gpointer data)
{
  valise_window_show_sidebar (data);
}

static void search (GSimpleAction *action, GVariant *parameter, gpointer data)
{
  valise_window_search (data);
}

static void stop (GSimpleAction *action, GVariant *parameter, gpointer data)
{
  valise_conversation_stop (valise_application_get_conversation (valise_app ()));
}

static void regenerate (GSimpleAction *action, GVariant *parameter, gpointer data)
{
  valise_chat_page_regenerate (valise_window_get_chat_page (data));
}

static void edit (GSimpleAction *action, GVariant *parameter, gpointer data)
{
  valise_chat_page_edit (valise_window_get_chat_page (data));
}

static void choose_model (GSimpleAction *action, GVariant *parameter, gpointer data)
{
  valise_chat_page_choose_model (valise_window_get_chat_page (data));
}

static void chat_with_model (GSimpleAction *action, GVariant *parameter, gpointer data)
{
  g_autoptr (ValiseModel) model = valise_application_find_model (valise_app (), g_variant_get_int64 (parameter));
  if (!model)
    return;
  g_settings_set_int64 (valise_settings (), "last-model", valise_model_get_id (model));
  valise_window_new_chat (data, model);
}

static void fit_model (GSimpleAction *action, GVariant *parameter, gpointer data)
{
  g_autoptr (ValiseModel) model = valise_application_find_model (valise_app (), g_variant_get_int64 (parameter));
  if (model)
    gtk_window_present (GTK_WINDOW (valise_fit_wizard_new (data, model)));
}

/* ---- one chat -------------------------------------------------------------------------------------------------------------------------- */

typedef struct {
  ValiseWindow *window;
  ValiseChat *chat;
  GtkEditable *entry;
} Rename;

static void rename_free (gpointer data, GClosure *closure)
{
  Rename *rename = data;
  valise_chat_free (rename->chat);
  g_free (rename);
}

static void update_chat (ValiseWindow *self, const ValiseChat *chat)
{
  g_autoptr (GError) error = NULL;
  if (!valise_library_update_chat (library (), chat, &error))
    valise_window_say (self, error->message);
  if (chat->id == shown_chat (self))
    valise_chat_page_reload (valise_window_get_chat_page (self));
}

static void on_renamed (AdwMessageDialog *dialog, const char *response, gpointer data)
{
  Rename *rename = data;
  const char *title = gtk_editable_get_text (rename->entry);
  if (!g_str_equal (response, "rename") || !*title)
    return;
  g_free (rename->chat->title);
  rename->chat->title = g_strdup (title);
  update_chat (rename->window, rename->chat);
}

static void rename_chat (ValiseWindow *self, gint64 id)
{
  g_autoptr (GError) error = NULL;
  ValiseChat *chat = valise_library_get_chat (library (), id, &error);
  if (!chat) {
    valise_window_say (self, error->message);
    return;
  }
  GtkWidget *dialog = adw_message_dialog_new (GTK_WINDOW (self), C_("dialog", "Rename the chat"), NULL), *entry = gtk_entry_new ();
  adw_message_dialog_add_responses (ADW_MESSAGE_DIALOG (dialog), "cancel", C_("dialog", "_Cancel"), "rename", C_("dialog", "_Rename"), NULL);
  adw_message_dialog_set_response_appearance (ADW_MESSAGE_DIALOG (dialog), "rename", ADW_RESPONSE_SUGGESTED);
  adw_message_dialog_set_default_response (ADW_MESSAGE_DIALOG (dialog), "rename");
  adw_message_dialog_set_close_response (ADW_MESSAGE_DIALOG (dialog), "cancel");
  gtk_editable_set_text (GTK_EDITABLE (entry), chat->title);
  gtk_entry_set_activates_default (GTK_ENTRY (entry), TRUE);
  gtk_accessible_update_property (GTK_ACCESSIBLE (entry), GTK_ACCESSIBLE_PROPERTY_LABEL, C_("dialog", "Title"), -1);
  adw_message_dialog_set_extra_child (ADW_MESSAGE_DIALOG (dialog), entry);
  Rename *rename = g_new0 (Rename, 1);
  rename->window = self;
  rename->chat = chat;
  rename->entry = GTK_EDITABLE (entry);
  g_signal_connect_data (dialog, "response", G_CALLBACK (on_renamed), rename, rename_free, 0);
  gtk_window_present (GTK_WINDOW (dialog));
}

static void pin_chat (GSimpleAction *action, GVariant *parameter, gpointer data)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (ValiseChat) chat = valise_library_get_chat (library (), g_variant_get_int64 (parameter), &error);
  if (!chat) {
    valise_window_say (data, error->message);
    return;
  }
  chat->pinned = !chat->pinned;
  update_chat (data, chat);
}

static void delete_chat (ValiseWindow *self, gint64 id)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (ValiseChat) chat = valise_library_get_chat (library (), id, &error);
  ValiseConversation *conversation = valise_application_get_conversation (valise_app ());
  if (chat && valise_conversation_get_chat_id (conversation) == id)
    valise_conversation_stop (conversation);
  if (!chat || !valise_library_delete_chat (library (), id, &error)) {
    valise_window_say (self, error->message);
    return;
  }
  if (id == shown_chat (self))
    valise_chat_page_new_chat (valise_window_get_chat_page (self), NULL);
  g_autofree char *title = g_markup_escape_text (chat->title, -1);
  g_autofree char *said = g_strdup_printf (C_("toast", "“%s” deleted"), title);
  AdwToast *toast = adw_toast_new (said);
  adw_toast_set_button_label (toast, C_("toast", "Undo"));
  adw_toast_set_action_name (toast, "win.undelete-chat");
  adw_toast_set_action_target (toast, "x", id);
  valise_window_add_toast (self, toast);
}

static void undelete_chat (GSimpleAction *action, GVariant *parameter, gpointer data)
{
  g_autoptr (GError) error = NULL;
  gint64 id = g_variant_get_int64 (parameter);
  if (valise_library_undelete_chat (library (), id, &error))
    valise_window_show_chat (data, id);
  else
    valise_window_say (data, error->message);
}

/* ---- files -------------------------------------------------------------------------------------------------------------------------------- */

static GtkFileChooserNative *make_chooser (ValiseWindow *self, const char *title, GtkFileChooserAction what, const char *accept)
{
  GtkFileChooserNative *chooser = gtk_file_chooser_native_new (title, GTK_WINDOW (self), what, accept, NULL);
  gtk_native_dialog_set_modal (GTK_NATIVE_DIALOG (chooser), TRUE);
  /* One at a time; the window keeps it alive. */
  g_object_set_data_full (G_OBJECT (self), "file-chooser", chooser, g_object_unref);
  return chooser;
}

static void on_export_chosen (GtkNativeDialog *chooser, int response, ValiseWindow *self)
{
  g_autoptr (GError) error = NULL;
  if (response == GTK_RESPONSE_ACCEPT) {
    gint64 id = *(gint64 *) g_object_get_data (G_OBJECT (chooser), "chat");
    g_autoptr (GFile) file = gtk_file_chooser_get_file (GTK_FILE_CHOOSER (chooser));
    g_autofree char *name = g_file_get_basename (file);
    g_autofree char *text = valise_library_export_chat (library (), id, g_str_has_suffix (name, ".json") ? "json" : "markdown", &error);
    if (text && g_file_replace_contents (file, text, strlen (text), NULL, FALSE, G_FILE_CREATE_NONE, NULL, NULL, &error)) {
      g_autofree char *said = g_strdup_printf (C_("toast", "Saved as %s"), name);
      valise_window_say (self, said);
    }
  }
  if (error)
    valise_window_say (self, error->message);
  g_object_set_data (G_OBJECT (self), "file-chooser", NULL);
}

static void export_chat (ValiseWindow *self, gint64 id)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (ValiseChat) chat = valise_library_get_chat (library (), id, &error);
  if (!chat) {
    valise_window_say (self, error->message);
    return;
  }
  GtkFileChooserNative *chooser = make_chooser (self, C_("dialog", "Export the chat (.md or .json)"), GTK_FILE_CHOOSER_ACTION_SAVE,
                                                C_("dialog", "_Export"));
  g_autofree char *name = g_strconcat (*chat->title ? chat->title : "chat", ".md", NULL);
  gtk_file_chooser_set_current_name (GTK_FILE_CHOOSER (chooser), g_strdelimit (name, "/", '-'));
  gint64 *key = g_new (gint64, 1);
  *key = id;
  g_object_set_data_full (G_OBJECT (chooser), "chat", key, g_free);
  g_signal_connect (chooser, "response", G_CALLBACK (on_export_chosen), self);
  gtk_native_dialog_show (GTK_NATIVE_DIALOG (chooser));
}

static void on_import_chosen (GtkNativeDialog *chooser, int response, ValiseWindow *self)
{
  if (response == GTK_RESPONSE_ACCEPT) {
    g_autoptr (GListModel) files = gtk_file_chooser_get_files (GTK_FILE_CHOOSER (chooser));
    for (guint i = 0; i < g_list_model_get_n_items (files); i++) {
      g_autoptr (GFile) file = g_list_model_get_item (files, i);
      valise_application_import (valise_app (), file);
    }
    valise_window_show_models (self);
  }
  g_object_set_data (G_OBJECT (self), "file-chooser", NULL);
}

static void import_file (GSimpleAction *action, GVariant *parameter, gpointer data)
{
  static const char *const patterns[] = { "*.gguf", "*.whl", "*.zip", "*.tar", "*.tar.*", "*.tgz" };
  GtkFileChooserNative *chooser = make_chooser (data, C_("dialog", "Add a model"), GTK_FILE_CHOOSER_ACTION_OPEN, C_("dialog", "_Add"));
  g_autoptr (GtkFileFilter) models = gtk_file_filter_new (), all = gtk_file_filter_new ();
  gtk_file_filter_set_name (models, C_("dialog", "Models and archives"));
  for (gsize i = 0; i < G_N_ELEMENTS (patterns); i++)
    gtk_file_filter_add_pattern (models, patterns[i]);
  gtk_file_filter_set_name (all, C_("dialog", "All files"));
  gtk_file_filter_add_pattern (all, "*");
  gtk_file_chooser_add_filter (GTK_FILE_CHOOSER (chooser), models);
  gtk_file_chooser_add_filter (GTK_FILE_CHOOSER (chooser), all);
  gtk_file_chooser_set_select_multiple (GTK_FILE_CHOOSER (chooser), TRUE);
  g_signal_connect (chooser, "response", G_CALLBACK (on_import_chosen), data);
  gtk_native_dialog_show (GTK_NATIVE_DIALOG (chooser));
}

static void import_folder (GSimpleAction *action, GVariant *parameter, gpointer data)
{
  GtkFileChooserNative *chooser = make_chooser (data, C_("dialog", "Add a model's folder"), GTK_FILE_CHOOSER_ACTION_SELECT_FOLDER,
                                                C_("dialog", "_Add"));
  g_signal_connect (chooser, "response", G_CALLBACK (on_import_chosen), data);
  gtk_native_dialog_show (GTK_NATIVE_DIALOG (chooser));
}

/* ---- the table -------------------------------------------------------------------------------------------------------------------------- */

static void rename_action (GSimpleAction *action, GVariant *parameter, gpointer data)
{
  rename_chat (data, parameter ? g_variant_get_int64 (parameter) : shown_chat (data));
}

static void export_action (GSimpleAction *action, GVariant *parameter, gpointer data)
{
  export_chat (data, parameter ? g_variant_get_int64 (parameter) : shown_chat (data));
}

static void delete_action (GSimpleAction *action, GVariant *parameter, gpointer data)
{
  delete_chat (data, parameter ? g_variant_get_int64 (parameter) : shown_chat (data));
}

static void chat_settings (GSimpleAction *action, GVariant *parameter, gpointer data)
{
  ValiseWindow *self = data;
  g_autoptr (GError) error = NULL;
  g_autoptr (ValiseChat) chat = valise_library_get_chat (library (), shown_chat (self), &error);
  if (!chat) {
    valise_window_say (self, error->message);
    return;
  }
  gtk_window_present (GTK_WINDOW (valise_chat_settings_new (self, chat)));
}

static void on_chat_id (ValiseWindow *self)
{
  static const char *const needs_chat[] = { "chat-settings", "rename-shown-chat", "export-shown-chat", "delete-shown-chat", "regenerate", "edit" };
  for (gsize i = 0; i < G_N_ELEMENTS (needs_chat); i++)
    g_simple_action_set_enabled (G_SIMPLE_ACTION (g_action_map_lookup_action (G_ACTION_MAP (self), needs_chat[i])), shown_chat (self) != 0);
}

void valise_window_add_actions (ValiseWindow *self)
{
  static const GActionEntry entries[] = {
    { "new-chat", new_chat }, { "show-chat", show_chat, "x" }, { "show-models", show_models }, { "show-chats", back }, { "back", back },
    { "search", search }, { "stop", stop }, { "regenerate", regenerate }, { "edit", edit }, { "choose-model", choose_model }, { "chat-with-model", chat_with_model, "x" },
    { "fit-model", fit_model, "x" }, { "rename-chat", rename_action, "x" }, { "rename-shown-chat", rename_action },
    { "pin-chat", pin_chat, "x" }, { "export-chat", export_action, "x" }, { "export-shown-chat", export_action },
    { "delete-chat", delete_action, "x" }, { "delete-shown-chat", delete_action }, { "undelete-chat", undelete_chat, "x" },
    { "chat-settings", chat_settings }, { "import-file", import_file }, { "import-folder", import_folder } };
  g_action_map_add_action_entries (G_ACTION_MAP (self), entries, G_N_ELEMENTS (entries), self);
  g_signal_connect_object (valise_window_get_chat_page (self), "notify::chat-id", G_CALLBACK (on_chat_id), self, G_CONNECT_SWAPPED);
  on_chat_id (self);
}
