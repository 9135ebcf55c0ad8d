/* screenshots.c: pictures of every page with a real model, for the documentation and for looking at. Run by hand, see docs/ui.md: the
 * library at $VALISE_UI_HOME holds a checkpoint and at least one fit of it. */
#include "tests/ui/ui_case.h"

#include <string.h>

#include "app/ui/memory_meter.h"
#include "app/ui/message_row.h"
#include "app/ui/model_button.h"

static ValiseConversation *conversation (UiCase *c)
{
  return valise_application_get_conversation (c->application);
}

static ValiseModel *pick (UiCase *c, ValiseModelKind kind)
{
  g_autoptr (GPtrArray) models = valise_library_list_models (c->library, NULL);
  for (guint i = 0; i < models->len; i++)
    if (valise_model_get_kind (g_ptr_array_index (models, i)) == kind)
      return g_object_ref (g_ptr_array_index (models, i));
  g_error ("%s holds no such model", c->home);
}

static void resize (UiCase *c, int width, int height)
{
  gtk_window_set_default_size (GTK_WINDOW (c->window), width, height);
  ui_run_for (400);
  g_test_message ("%d x %d of %d", gtk_widget_get_width (GTK_WIDGET (c->window)), gtk_widget_get_height (GTK_WIDGET (c->window)), width);
}

static void close_dialog (UiCase *c)
{
  gtk_window_close (ui_dialog (c));
  ui_wait (!ui_dialog (c));
}

static void add_chat (UiCase *c, const char *question, const char *answer, gint64 model_id)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (ValiseChat) chat = valise_library_create_chat (c->library, model_id, &error);
  gint64 asked = valise_library_add_message (c->library, chat->id, 0, "user", question, &error);
  chat->leaf_id = valise_library_add_message (c->library, chat->id, asked, "assistant", answer, &error);
  ValiseMessage *message = &(ValiseMessage) { .id = chat->leaf_id, .chat_id = chat->id, .parent_id = asked, .role = (char *) "assistant",
                                              .content = (char *) answer, .model_name = (char *) "SmolLM2 135M", .tokens_per_second = 61,
                                              .finish_reason = (char *) "stop" };
  valise_library_update_message (c->library, message, &error);
  g_free (chat->title);
  chat->title = g_strdup (question);
  valise_library_update_chat (c->library, chat, &error);
  g_assert_no_error (error);
}

static void chats (UiCase *c)
{
  g_autoptr (ValiseModel) fit = pick (c, VALISE_MODEL_FIT);
  gint64 id = valise_model_get_id (fit);
  add_chat (c, "Tax letter", "Dear Sir or Madam, …", id);
  add_chat (c, "Regex help", "`^[a-z]+$` matches one or more small letters.", id);
  g_autofree char *path = g_build_filename (g_test_get_dir (G_TEST_DIST), "ui", "markdown.md", NULL);
  g_autofree char *markdown = NULL;
  g_assert_true (g_file_get_contents (path, &markdown, NULL, NULL));
  add_chat (c, "Show me what Markdown can do", markdown, id);
  ui_activate (c, "win.chat-with-model", "x", id);
  ui_wait (valise_runner_get_state (valise_application_get_runner (c->application)) == VALISE_RUNNER_READY);
  ui_picture (c->window, "chat-empty");
  /* The likeliest words, so that the picture is the same each time. */
  g_autoptr (ValiseChat) chat = valise_library_create_chat (c->library, id, NULL);
  chat->sampling.temperature = 0;
  g_assert_true (valise_library_update_chat (c->library, chat, NULL));
  ui_activate (c, "win.show-chat", "x", chat->id);
  ui_type (c, "Write a Python function that reverses a string, with an example.");
  ui_click (ui_find (c->window, "send_button"));
  ui_wait (valise_conversation_get_text (conversation (c)) && strlen (valise_conversation_get_text (conversation (c))) > 200);
  ui_picture (c->window, "chat-streaming");
  ui_wait (!valise_conversation_is_busy (conversation (c)));
  resize (c, 960, 600);
  ui_picture (c->window, "chat-answered");
  resize (c, 1040, 720);
  gpointer meter = ui_find_type (ui_find_type (c->window, VALISE_TYPE_MEMORY_METER), GTK_TYPE_MENU_BUTTON);
  gtk_menu_button_popup (meter);
  ui_wait (gtk_widget_get_mapped (GTK_WIDGET (gtk_menu_button_get_popover (meter))));
  ui_picture (gtk_menu_button_get_popover (meter), "memory-meter");
  gtk_menu_button_popdown (meter);
  gpointer button = ui_find_type (ui_find_type (c->window, VALISE_TYPE_MODEL_BUTTON), GTK_TYPE_MENU_BUTTON);
  ui_activate (c, "win.choose-model", NULL);
  ui_wait (gtk_widget_get_mapped (GTK_WIDGET (gtk_menu_button_get_popover (button))));
  ui_picture (gtk_menu_button_get_popover (button), "model-menu");
  gtk_menu_button_popdown (button);
}

static void markdown (UiCase *c)
{
  g_autoptr (GPtrArray) found = valise_library_list_chats (c->library, "Markdown", NULL);
  ui_activate (c, "win.show-chat", "x", ((ValiseChat *) g_ptr_array_index (found, 0))->id);
  resize (c, 1040, 1150);
  ui_run_for (300);
  ui_picture (c->window, "chat-markdown");
  resize (c, 360, 720);
  ui_picture (c->window, "chat-narrow");
  ui_activate (c, "win.back", NULL);
  ui_picture (c->window, "sidebar-narrow");
  ui_activate (c, "win.show-models", NULL);
  ui_picture (c->window, "models-narrow");
  resize (c, 1040, 720);
  ui_activate (c, "win.show-chat", "x", ((ValiseChat *) g_ptr_array_index (found, 0))->id);
  adw_style_manager_set_color_scheme (adw_style_manager_get_default (), ADW_COLOR_SCHEME_FORCE_DARK);
  ui_run_for (300);
  ui_picture (c->window, "chat-dark");
  ui_activate (c, "win.search", NULL);
  gtk_editable_set_text (ui_find (c->window, "search_entry"), "small letters");
  ui_run_for (400);
  ui_picture (c->window, "search-dark");
  gtk_editable_set_text (ui_find (c->window, "search_entry"), "");
  adw_style_manager_set_color_scheme (adw_style_manager_get_default (), ADW_COLOR_SCHEME_DEFAULT);
}

static void dialogs (UiCase *c)
{
  ui_activate (c, "win.show-models", NULL);
  ui_picture (c->window, "models");
  gtk_widget_activate_action (ui_find_labelled (c->window, "SmolLM2 135M"), "model.details", NULL);
  ui_picture (ui_dialog (c), "details");
  close_dialog (c);
  ui_activate (c, "win.chat-settings", NULL);
  ui_picture (ui_dialog (c), "chat-settings");
  close_dialog (c);
  g_action_group_activate_action (G_ACTION_GROUP (c->application), "preferences", NULL);
  ui_picture (ui_dialog (c), "preferences");
  close_dialog (c);
  ui_activate (c, "win.show-help-overlay", NULL);
  ui_wait (ui_dialog (c));
  ui_picture (ui_dialog (c), "shortcuts");
  close_dialog (c);
  ui_activate (c, "win.rename-shown-chat", NULL);
  ui_picture (ui_dialog (c), "rename");
  close_dialog (c);
}

static void wizard (UiCase *c)
{
  g_autoptr (ValiseModel) checkpoint = pick (c, VALISE_MODEL_CHECKPOINT);
  ui_activate (c, "win.fit-model", "x", valise_model_get_id (checkpoint));
  ui_wait (ui_dialog (c));
  GtkWidget *window = GTK_WIDGET (ui_dialog (c));
  ui_picture (window, "fit-1-model");
  ui_click (ui_find (window, "next_button"));
  ui_wait (gtk_widget_is_sensitive (ui_find (window, "next_button")));
  ui_picture (window, "fit-2-budget");
  adw_style_manager_set_color_scheme (adw_style_manager_get_default (), ADW_COLOR_SCHEME_FORCE_DARK);
  ui_run_for (100);
  ui_picture (window, "fit-2-budget-dark");
  adw_style_manager_set_color_scheme (adw_style_manager_get_default (), ADW_COLOR_SCHEME_DEFAULT);
  gtk_window_set_default_size (GTK_WINDOW (window), 360, 720);
  ui_run_for (400);
  ui_picture (window, "fit-2-budget-narrow");
  gtk_window_set_default_size (GTK_WINDOW (window), 680, 720);
  ui_click (ui_find (window, "next_button"));
  ui_wait (gtk_progress_bar_get_fraction (ui_find (window, "progress")) > 0.7);
  ui_picture (window, "fit-3-fitting");
  ui_picture (c->window, "models-fitting");
  ui_wait (ui_find (window, "chat_button"));
  ui_picture (window, "fit-4-done");
  ui_click (ui_find (window, "chat_button"));
  ui_run_for (300);
  ui_picture (c->window, "chat-after-fit");
}

static void all (UiCase *c)
{
  chats (c);
  markdown (c);
  dialogs (c);
  wizard (c);
}

int main (int argc, char **argv)
{
  ui_init (&argc, &argv);
  if (g_getenv ("VALISE_UI_HOME"))
    ui_add ("/ui/pictures", NULL, all, NULL);
  return ui_run ();
}
