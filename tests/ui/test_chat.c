/* test_chat.c: a person writes, reads, stops, asks again, edits, moves between versions, and tidies up. */
#include "tests/ui/ui_case.h"
#include "tests/fixtures/tiny_model.h"

#include <string.h>

#include "app/ui/chat_sidebar.h"
#include "app/ui/answer_text.h"
#include "app/ui/message_row.h"

static ValiseConversation *conversation (UiCase *c)
{
  return valise_application_get_conversation (c->application);
}

static gint64 chat_id (UiCase *c)
{
  return valise_chat_page_get_chat_id (valise_window_get_chat_page (c->window));
}

static ValiseChat *shown_chat (UiCase *c)
{
  g_autoptr (GError) error = NULL;
  ValiseChat *chat = valise_library_get_chat (c->library, chat_id (c), &error);
  g_assert_no_error (error);
  return chat;
}

static GPtrArray *branch (UiCase *c)
{
  g_autoptr (GError) error = NULL;
  GPtrArray *messages = valise_library_get_branch (c->library, chat_id (c), &error);
  g_assert_no_error (error);
  return messages;
}

static const ValiseMessage *message (GPtrArray *messages, guint n)
{
  g_assert_cmpuint (n, <, messages->len);
  return g_ptr_array_index (messages, n);
}

static void add_quick (UiCase *c)
{
  g_autofree char *path = ui_write_liner (2);
  g_object_unref (ui_import (c, path, "Quick"));
}

static void add_slow (UiCase *c)
{
  g_autofree char *path = ui_write_liner (160);
  g_object_unref (ui_import (c, path, "Slow"));
}

static void add_both (UiCase *c)
{
  add_quick (c);
  add_slow (c);
}

/* ---- writing and reading ---- */

static void test_send (UiCase *c)
{
  g_assert_true (ui_shows (c->window, "What is on your mind?"));
  gpointer send = ui_find (c->window, "send_button");
  g_assert_false (gtk_widget_is_sensitive (send));
  ui_type (c, "   \n ");
  g_assert_false (gtk_widget_is_sensitive (send));
  ui_ask (c, "Trip to Lisbon");
  g_autoptr (GPtrArray) messages = branch (c);
  g_assert_cmpuint (messages->len, ==, 2);
  g_assert_cmpstr (message (messages, 0)->content, ==, "Trip to Lisbon");
  g_assert_cmpstr (message (messages, 1)->model_name, ==, "Quick");
  g_assert_true (g_str_has_prefix (message (messages, 1)->content, UI_ANSWER_LINE UI_ANSWER_LINE UI_ANSWER_LINE));
  g_autofree char *shown = ui_row_text (ui_last_row (c));
  g_assert_nonnull (strstr (shown, "Quick\302\240jolt"));
  g_assert_true (ui_shows (ui_find_type (c->window, VALISE_TYPE_CHAT_SIDEBAR), "Trip to Lisbon"));
  g_assert_true (ui_shows (ui_last_row (c), "tokens/s"));
  ui_picture (c->window, "answered");
}

/* What has arrived is on the screen before the rest does. */
static void test_stream (UiCase *c)
{
  guint steps = 0;
  gsize length = 0;
  ui_type (c, "hello");
  ui_click (ui_find (c->window, "send_button"));
  ui_wait (valise_conversation_is_busy (conversation (c)));
  while (valise_conversation_is_busy (conversation (c))) {
    g_autofree char *shown = ui_last_row (c) ? ui_row_text (ui_last_row (c)) : g_strdup ("");
    steps += strlen (shown) > length;
    length = MAX (length, strlen (shown));
    ui_run_for (10);
  }
  g_assert_cmpuint (steps, >, 1);
}

static guint tokens_past (UiCase *c)
{
  EngMemoryPlan plan;
  guint used, size;
  g_assert_true (valise_runner_get_plan (valise_application_get_runner (c->application), &plan, &used, &size));
  return used;
}

static gboolean begun (UiCase *c)
{
  const char *text = valise_conversation_get_text (conversation (c));
  return text && strlen (text) > 20;
}

static void begin_answer (UiCase *c)
{
  ui_type (c, "hello");
  ui_click (ui_find (c->window, "send_button"));
  ui_wait (begun (c));
}

static void test_stop (UiCase *c)
{
  begin_answer (c);
  ui_click (ui_find (c->window, "send_button"));
  guint at_click = tokens_past (c);
  ui_wait (!valise_conversation_is_busy (conversation (c)));
  /* The token under way when the button was pressed, and one that may not have been counted yet. */
  g_assert_cmpuint (tokens_past (c), <=, at_click + 2);
  g_assert_true (ui_shows (ui_last_row (c), "stopped"));
  g_autoptr (GPtrArray) messages = branch (c);
  g_assert_cmpstr (message (messages, 1)->finish_reason, ==, "cancelled");
  g_autofree char *shown = ui_row_text (ui_last_row (c));
  g_assert_nonnull (strstr (shown, "Quick"));
  /* And it can go on. */
  begin_answer (c);
  ui_activate (c, "win.stop", NULL);
  ui_wait (!valise_conversation_is_busy (conversation (c)));
}

/* ---- versions ---- */

static void wait_answer (UiCase *c)
{
  ui_wait (valise_conversation_is_busy (conversation (c)));
  ui_wait (!valise_conversation_is_busy (conversation (c)));
}

static void test_versions (UiCase *c)
{
  ui_ask (c, "one");
  ui_click (ui_find (ui_last_row (c), "regenerate_button"));
  wait_answer (c);
  g_assert_true (ui_shows (ui_last_row (c), "2/2"));
  g_autoptr (GPtrArray) again = branch (c);
  ui_click (ui_find (ui_last_row (c), "previous_button"));
  ui_wait (ui_shows (ui_last_row (c), "1/2"));
  g_autoptr (GPtrArray) before = branch (c);
  g_assert_cmpint (message (before, 1)->id, !=, message (again, 1)->id);
  g_assert_cmpint (message (before, 0)->id, ==, message (again, 0)->id);
  ui_click (ui_find (ui_last_row (c), "next_button"));
  ui_wait (ui_shows (ui_last_row (c), "2/2"));
  /* An edited question is a version of its own, with an answer of its own. */
  g_autoptr (GPtrArray) rows = ui_find_all (c->window, VALISE_TYPE_MESSAGE_ROW);
  gpointer question = g_ptr_array_index (rows, 0);
  ui_click (ui_find (question, "edit_button"));
  g_assert_true (ui_shows (c->window, "Sending keeps the old version"));
  gtk_text_buffer_set_text (gtk_text_view_get_buffer (ui_find (c->window, "view")), "two", -1);
  ui_click (ui_find (c->window, "send_button"));
  wait_answer (c);
  g_autoptr (GPtrArray) edited = branch (c);
  g_assert_cmpuint (edited->len, ==, 2);
  g_assert_cmpstr (message (edited, 0)->content, ==, "two");
  g_assert_cmpuint (message (edited, 0)->sibling, ==, 2);
  g_autoptr (GPtrArray) new_rows = ui_find_all (c->window, VALISE_TYPE_MESSAGE_ROW);
  ui_picture (c->window, "versions");
  ui_click (ui_find (g_ptr_array_index (new_rows, 0), "previous_button"));
  ui_wait (ui_shows (c->window, "one"));
  g_autoptr (GPtrArray) back = branch (c);
  g_assert_cmpint (message (back, 1)->id, ==, message (again, 1)->id);
}

static void test_edit_cancelled (UiCase *c)
{
  ui_ask (c, "one");
  g_autoptr (GPtrArray) rows = ui_find_all (c->window, VALISE_TYPE_MESSAGE_ROW);
  ui_click (ui_find (g_ptr_array_index (rows, 0), "edit_button"));
  ui_click (ui_find_labelled (c->window, "Cancel"));
  ui_ask (c, "two");
  g_autoptr (GPtrArray) messages = branch (c);
  g_assert_cmpuint (messages->len, ==, 4);
}

/* ---- the list of chats ---- */

static guint n_chats (UiCase *c)
{
  g_autoptr (GPtrArray) rows = ui_find_all (ui_find_type (c->window, VALISE_TYPE_CHAT_SIDEBAR), GTK_TYPE_LIST_BOX_ROW);
  return rows->len;
}

static void test_tidy (UiCase *c)
{
  gpointer sidebar = ui_find_type (c->window, VALISE_TYPE_CHAT_SIDEBAR);
  ui_ask (c, "apples");
  gint64 apples = chat_id (c);
  g_autoptr (GPtrArray) alone = ui_find_all (sidebar, GTK_TYPE_LIST_BOX_ROW);
  ui_activate (c, "win.new-chat", NULL);
  g_assert_cmpint (chat_id (c), ==, 0);
  ui_ask (c, "pears");
  ui_wait (n_chats (c) == 2);
  g_autoptr (GPtrArray) both = ui_find_all (sidebar, GTK_TYPE_LIST_BOX_ROW);
  g_assert_true (ui_shows (g_ptr_array_index (both, 0), "pears"));
  g_assert_true (g_ptr_array_index (both, 1) == g_ptr_array_index (alone, 0));
  /* rename */
  ui_activate (c, "win.rename-chat", "x", apples);
  ui_wait (ui_dialog (c));
  gtk_editable_set_text (GTK_EDITABLE (adw_message_dialog_get_extra_child (ADW_MESSAGE_DIALOG (ui_dialog (c)))), "Fruit & nuts");
  adw_message_dialog_response (ADW_MESSAGE_DIALOG (ui_dialog (c)), "rename");
  gtk_window_close (ui_dialog (c));
  ui_wait (ui_shows (sidebar, "Fruit & nuts"));
  /* pin */
  g_assert_false (ui_shows (sidebar, "Pinned"));
  ui_activate (c, "win.pin-chat", "x", apples);
  ui_wait (ui_shows (sidebar, "Pinned"));
  g_autoptr (GPtrArray) rows = ui_find_all (sidebar, GTK_TYPE_LIST_BOX_ROW);
  g_assert_true (ui_shows (g_ptr_array_index (rows, 0), "Fruit & nuts"));
  ui_picture (c->window, "pinned");
  /* search, through every message */
  ui_activate (c, "win.search", NULL);
  gtk_editable_set_text (ui_find (sidebar, "search_entry"), "pears");
  ui_wait (n_chats (c) == 1);
  g_assert_false (ui_shows (sidebar, "Fruit & nuts"));
  gtk_editable_set_text (ui_find (sidebar, "search_entry"), "nowhere at all");
  ui_wait (ui_shows (sidebar, "Nothing found"));
  gtk_editable_set_text (ui_find (sidebar, "search_entry"), "");
  ui_wait (n_chats (c) == 2);
  /* delete, and back */
  gint64 pears = chat_id (c);
  ui_activate (c, "win.delete-chat", "x", pears);
  ui_wait (n_chats (c) == 1);
  g_assert_cmpint (chat_id (c), ==, 0);
  ui_click (ui_find_labelled (c->window, "Undo"));
  ui_wait (n_chats (c) == 2);
  ui_wait (chat_id (c) == pears);
  g_autoptr (GPtrArray) messages = branch (c);
  g_assert_cmpuint (messages->len, ==, 2);
}

static void test_settings (UiCase *c)
{
  ui_ask (c, "hello");
  g_autoptr (GPtrArray) plain = branch (c);
  ui_activate (c, "win.chat-settings", NULL);
  ui_wait (ui_dialog (c));
  GtkWindow *dialog = ui_dialog (c);
  gtk_text_buffer_set_text (gtk_text_view_get_buffer (ui_find (dialog, "system_view")), "Be brief.", -1);
  adw_combo_row_set_selected (ui_find (dialog, "preset_row"), 1);
  ui_picture (dialog, "chat-settings");
  gtk_window_close (dialog);
  ui_wait (!ui_dialog (c));
  g_autoptr (ValiseChat) chat = shown_chat (c);
  g_assert_cmpstr (chat->system_prompt, ==, "Be brief.");
  g_assert_cmpfloat_with_epsilon (chat->sampling.temperature, 0.2, 1e-6);
  /* The model reads it: what it says until the context is full is shorter by that much. */
  ui_click (ui_find (ui_last_row (c), "regenerate_button"));
  wait_answer (c);
  g_autoptr (GPtrArray) told = branch (c);
  g_assert_cmpuint (message (told, 1)->n_siblings, ==, 2);
  g_assert_cmpuint (strlen (message (told, 1)->content) + strlen ("Be brief."), <, strlen (message (plain, 1)->content));
}

/* Noise, but of makers who advise to take the likeliest. */
static void add_advised (UiCase *c)
{
  TinyModel tiny = TINY_MODEL_DEFAULTS;
  g_autofree char *path = tiny_model_path ("advised.gguf");
  tiny.temperature = 0.01f;
  tiny.top_k = 1; /* between two that are as likely, a temperature alone would choose now one and now the other */
  tiny_model_write (&tiny, path);
  g_object_unref (ui_import (c, path, "Advised"));
}

/* A chat that leaves its sampling alone takes the makers' advice, and is shown it. */
static void test_advice (UiCase *c)
{
  ui_ask (c, "hello");
  ui_click (ui_find (ui_last_row (c), "regenerate_button"));
  wait_answer (c);
  g_autoptr (GPtrArray) told = branch (c);
  g_assert_cmpuint (message (told, 1)->n_siblings, ==, 2);
  g_autofree char *again = g_strdup (message (told, 1)->content);
  g_autoptr (ValiseChat) before = shown_chat (c);
  before->leaf_id = message (told, 1)->id - 1; /* the first answer */
  g_assert_true (valise_library_update_chat (c->library, before, NULL));
  g_autoptr (GPtrArray) first = branch (c);
  g_assert_cmpint (message (first, 1)->id, !=, message (told, 1)->id);
  g_assert_cmpstr (message (first, 1)->content, ==, again);
  ui_activate (c, "win.chat-settings", NULL);
  ui_wait (ui_dialog (c));
  GtkWindow *dialog = ui_dialog (c);
  g_object_set (ui_find_type (dialog, ADW_TYPE_EXPANDER_ROW), "expanded", TRUE, NULL);
  ui_wait (ui_find (dialog, "temperature_spin"));
  ui_picture (dialog, "chat-settings-advised");
  g_assert_cmpfloat_with_epsilon (gtk_spin_button_get_value (ui_find (dialog, "temperature_spin")), 0.01, 1e-6);
  g_assert_cmpint (gtk_spin_button_get_value_as_int (ui_find (dialog, "top_k_spin")), ==, 1);
  g_assert_cmpuint (adw_combo_row_get_selected (ui_find (dialog, "preset_row")), ==, 0);
  gtk_window_close (dialog);
  ui_wait (!ui_dialog (c));
  g_autoptr (ValiseChat) chat = shown_chat (c);
  g_assert_cmpfloat_with_epsilon (chat->sampling.temperature, 0.7, 1e-6);
}

static void choose (UiCase *c, const char *name)
{
  ui_activate (c, "win.choose-model", NULL);
  g_autoptr (GPtrArray) popovers = ui_find_all (c->window, GTK_TYPE_POPOVER);
  for (guint i = 0; i < popovers->len; i++) {
    gpointer popover = g_ptr_array_index (popovers, i);
    g_autoptr (GPtrArray) rows = ui_find_all (popover, GTK_TYPE_LIST_BOX_ROW);
    for (guint j = 0; j < rows->len; j++)
      if (ui_shows (g_ptr_array_index (rows, j), name)) {
        ui_picture (popover, "model-menu");
        ui_click (g_ptr_array_index (rows, j));
        return;
      }
  }
  g_error ("the menu has no %s", name);
}

static void test_switch (UiCase *c)
{
  choose (c, "Quick");
  ui_ask (c, "hello");
  choose (c, "Slow");
  ui_ask (c, "and you?");
  g_autoptr (GPtrArray) messages = branch (c);
  g_assert_cmpuint (messages->len, ==, 4);
  g_assert_cmpstr (message (messages, 1)->model_name, ==, "Quick");
  g_assert_cmpstr (message (messages, 3)->model_name, ==, "Slow");
  /* The first answer alone fills the context: the person is told, once. */
  g_assert_true (ui_shows (c->window, "no longer reads its oldest turns"));
  ui_click (ui_find (c->window, "note_close_button"));
  ui_ask (c, "and now?");
  g_assert_false (gtk_revealer_get_reveal_child (ui_find (c->window, "note_revealer")));
  /* The chat comes back with the model it was left with. */
  gint64 id = chat_id (c);
  ui_activate (c, "win.new-chat", NULL);
  choose (c, "Quick");
  ui_activate (c, "win.show-chat", "x", id);
  g_autoptr (ValiseChat) chat = shown_chat (c);
  g_autoptr (ValiseModel) model = valise_application_find_model (c->application, chat->model_id);
  g_assert_cmpstr (valise_model_get_name (model), ==, "Slow");
}

/* ---- leaving ---- */

static void test_elsewhere (UiCase *c)
{
  begin_answer (c);
  gint64 busy = chat_id (c);
  ui_activate (c, "win.new-chat", NULL);
  g_assert_true (ui_shows (c->window, "being written in another chat"));
  ui_type (c, "wait for me");
  g_assert_false (gtk_widget_is_sensitive (ui_find (c->window, "send_button")));
  ui_picture (c->window, "busy-elsewhere");
  ui_activate (c, "win.show-chat", "x", busy);
  g_autofree char *shown = ui_row_text (ui_last_row (c));
  g_assert_nonnull (strstr (shown, "Quick"));
  ui_wait (!valise_conversation_is_busy (conversation (c)));
  g_autoptr (GPtrArray) messages = branch (c);
  g_assert_cmpstr (message (messages, 1)->finish_reason, ==, "length");
}

static gint64 left_chat;

static void test_close (UiCase *c)
{
  begin_answer (c);
  left_chat = chat_id (c);
  gtk_window_close (GTK_WINDOW (c->window));
  g_assert_null (c->window);
}

static void test_quit (UiCase *c)
{
  begin_answer (c);
  left_chat = chat_id (c);
  g_application_quit (G_APPLICATION (c->application));
}

static void check_left (UiCase *c)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (GPtrArray) messages = valise_library_get_branch (c->library, left_chat, &error);
  g_assert_no_error (error);
  g_assert_cmpuint (messages->len, ==, 2);
  g_assert_cmpstr (message (messages, 1)->finish_reason, ==, "cancelled");
  g_assert_true (g_str_has_prefix (message (messages, 1)->content, UI_ANSWER_LINE));
}

/* ---- the first time ---- */

/* ---- thoughts ---- */

static void on_clipboard (GObject *clipboard, GAsyncResult *result, gpointer text)
{
  *(char **) text = gdk_clipboard_read_text_finish (GDK_CLIPBOARD (clipboard), result, NULL);
}

static void add_thought (UiCase *c)
{
  add_quick (c);
  g_autoptr (ValiseChat) chat = valise_library_create_chat (c->library, 0, NULL);
  gint64 question = valise_library_add_message (c->library, chat->id, 0, "user", "Why?", NULL);
  valise_library_add_message (c->library, chat->id, question, "assistant", "", NULL);
  g_autoptr (GPtrArray) branch = valise_library_get_branch (c->library, chat->id, NULL);
  ValiseMessage *answer = g_ptr_array_index (branch, 1);
  g_free (answer->content);
  answer->content = g_strdup ("<think>\nFirst the **reasons**.\n</think>\n\nBecause.");
  answer->thought_seconds = 7.2;
  g_assert_true (valise_library_update_message (c->library, answer, NULL));
}

/* A stored thought is one line that opens; it is no part of what is copied. */
static void test_thought (UiCase *c)
{
  g_autoptr (GPtrArray) chats = valise_library_list_chats (c->library, NULL, NULL);
  ui_activate (c, "win.show-chat", "x", ((ValiseChat *) g_ptr_array_index (chats, 0))->id);
  ui_wait (ui_last_row (c) && ui_shows (ui_last_row (c), "Thought for 7 s"));
  gpointer row = ui_last_row (c);
  g_autofree char *text = ui_row_text (row), *copied = NULL;
  g_assert_cmpstr (text, ==, "Because.\n");
  g_assert_false (ui_shows (row, "First the"));
  ui_picture (c->window, "thought-closed");
  gtk_expander_set_expanded (ui_find_type (row, GTK_TYPE_EXPANDER), TRUE);
  ui_wait (ui_shows (row, "First the reasons."));
  ui_picture (c->window, "thought-open");
  ui_click (ui_find (row, "copy_button"));
  gdk_clipboard_read_text_async (gtk_widget_get_clipboard (GTK_WIDGET (c->window)), NULL, on_clipboard, &copied);
  ui_wait (copied);
  g_assert_cmpstr (copied, ==, "Because.");
}

/* While it is written, however the text is cut into pieces, also within the marks. */
static void test_thought_grows (UiCase *c)
{
  static const char whole[] = "<think>\nOne, two </thin or so.\n</think>\n\nThree <think> four.";
  ValiseMessage message = { .id = 1, .role = (char *) "assistant", .content = (char *) "", .finish_reason = (char *) "", .sibling = 1, .n_siblings = 1 };
  for (guint step = 1; step < 12; step++) {
    GtkWidget *row = valise_message_row_new (&message), *window = gtk_window_new ();
    gtk_window_set_child (GTK_WINDOW (window), row);
    gtk_window_present (GTK_WINDOW (window));
    valise_message_row_set_streaming (VALISE_MESSAGE_ROW (row), TRUE);
    for (gsize at = 0; at < strlen (whole); at += step) {
      g_autofree char *piece = g_strndup (whole + at, step);
      valise_message_row_append (VALISE_MESSAGE_ROW (row), piece);
      if (at + step == 12)
        g_assert_true (ui_shows (row, "Thinking…"));
    }
    g_assert_true (ui_shows (row, "Thought for 1 s"));
    valise_message_row_set_streaming (VALISE_MESSAGE_ROW (row), FALSE);
    g_autofree char *text = ui_row_text (row);
    g_assert_cmpstr (text, ==, "Three <think> four.\n");
    gtk_expander_set_expanded (ui_find_type (row, GTK_TYPE_EXPANDER), TRUE);
    ui_wait (ui_shows (row, "One, two </thin or so."));
    g_assert_cmpstr (valise_message_row_get_message (VALISE_MESSAGE_ROW (row))->content, ==, whole);
    gtk_window_destroy (GTK_WINDOW (window));
  }
}

static void test_first_run (UiCase *c)
{
  g_assert_true (ui_shows (c->window, "Welcome to Valise"));
  g_assert_null (ui_find (c->window, "send_button"));
  ui_picture (c->window, "first-run");
  g_autofree char *path = ui_write_liner (2);
  g_autoptr (GFile) file = g_file_new_for_path (path);
  valise_application_import (c->application, file);
  ui_wait (ui_shows (c->window, "What is on your mind?"));
  ui_ask (c, "hello");
  g_autoptr (GPtrArray) messages = branch (c);
  g_assert_cmpstr (message (messages, 1)->model_name, ==, "liner-2");
}

/* ---- calls of tools ---- */

static const struct {
  const char *written, *shown;
} calls[] = {
  { "I will look.\n<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Paris\", \"days\": 3}}\n</tool_call>",
    "I will look.\nCalled the tool weather with city: Paris, days: 3\n" },
  { "[TOOL_CALLS]now[ARGS]{}", "Called the tool now\n" },
  { "<tool_call>{\"name\": \"run\", \"arguments\": {\"code\": \"a `b`\\n*c*\"}}</tool_call>\n<tool_call>{\"name\": \"stop\", \"arguments\": {}}</tool_call>",
    "Called the tool run with code: a `b` *c*\nCalled the tool stop\n" },
  { "<think>\nHm.\n</think>\n\n<function=weather>\n<parameter=city>\nBonn\n</parameter>\n</function>", "Called the tool weather with city: Bonn\n" },
  { "{\"name\": \"weather\", \"arguments\": {}} is JSON, <tool_call> a mark.", "{\"name\": \"weather\", \"arguments\": {}} is JSON, <tool_call> a mark.\n" },
};

/* However the text is cut into pieces, and as it is kept. */
static void test_calls (UiCase *c)
{
  for (guint i = 0; i < G_N_ELEMENTS (calls); i++)
    for (guint step = 1; step < 40; step += 6) {
      ValiseMessage message = { .id = 1, .role = (char *) "assistant", .content = (char *) "", .finish_reason = (char *) "", .sibling = 1, .n_siblings = 1 };
      GtkWidget *row = g_object_ref_sink (valise_message_row_new (&message));
      valise_message_row_set_streaming (VALISE_MESSAGE_ROW (row), TRUE);
      for (gsize at = 0; at < strlen (calls[i].written); at += step) {
        g_autofree char *piece = g_strndup (calls[i].written + at, step);
        valise_message_row_append (VALISE_MESSAGE_ROW (row), piece);
      }
      valise_message_row_set_streaming (VALISE_MESSAGE_ROW (row), FALSE);
      g_autofree char *grown = ui_row_text (row);
      g_assert_cmpstr (grown, ==, calls[i].shown);
      g_assert_cmpstr (valise_message_row_get_message (VALISE_MESSAGE_ROW (row))->content, ==, calls[i].written);
      valise_message_row_set_text (VALISE_MESSAGE_ROW (row), "");
      valise_message_row_set_text (VALISE_MESSAGE_ROW (row), calls[i].written);
      g_autofree char *kept = ui_row_text (row);
      g_assert_cmpstr (kept, ==, calls[i].shown);
      g_object_unref (row);
    }
}

/* In a block of code a call is code. */
static void test_calls_in_code (UiCase *c)
{
  ValiseAnswerText *text = valise_answer_text_new ();
  g_autoptr (GString) shown = g_string_new (valise_answer_text_push (text, "So:\n\n```\n<tool_call>{\"name\": \"now\", \"arguments\": {}}</tool_call>\n```\nand\n<tool_call>{\"name\": \"now\"}</tool_call>"));
  g_string_append (shown, valise_answer_text_end (text));
  g_assert_cmpstr (shown->str, ==, "So:\n\n```\n{\"name\":\"now\",\"arguments\":{}}\n```\nand\n\nCalled the tool `now`\n\n");
  valise_answer_text_free (text);
}

static void add_call (UiCase *c)
{
  add_quick (c);
  g_autoptr (ValiseChat) chat = valise_library_create_chat (c->library, 0, NULL);
  gint64 question = valise_library_add_message (c->library, chat->id, 0, "user", "What is the weather in Paris?", NULL);
  valise_library_add_message (c->library, chat->id, question, "assistant", calls[0].written, NULL);
}

/* In a chat it is a line of its own. */
static void test_call_shown (UiCase *c)
{
  g_autoptr (GPtrArray) chats = valise_library_list_chats (c->library, NULL, NULL);
  ui_activate (c, "win.show-chat", "x", ((ValiseChat *) g_ptr_array_index (chats, 0))->id);
  ui_wait (ui_last_row (c) && ui_shows (ui_last_row (c), "Called the tool weather with city: Paris, days: 3"));
  ui_picture (c->window, "tool-call");
}

int main (int argc, char **argv)
{
  ui_init (&argc, &argv);
  ui_add ("/ui/chat/send", add_quick, test_send, NULL);
  ui_add ("/ui/chat/text-grows-as-it-comes", add_slow, test_stream, NULL);
  ui_add ("/ui/chat/stop-within-a-token", add_slow, test_stop, NULL);
  ui_add ("/ui/chat/versions-are-kept", add_quick, test_versions, NULL);
  ui_add ("/ui/chat/edit-cancelled", add_quick, test_edit_cancelled, NULL);
  ui_add ("/ui/chat/rename-pin-search-delete-undo", add_quick, test_tidy, NULL);
  ui_add ("/ui/chat/instructions-and-sampling", add_quick, test_settings, NULL);
  ui_add ("/ui/chat/makers-advice-is-taken", add_advised, test_advice, NULL);
  ui_add ("/ui/chat/switch-model", add_both, test_switch, NULL);
  ui_add ("/ui/chat/answer-goes-on-elsewhere", add_slow, test_elsewhere, NULL);
  ui_add ("/ui/chat/closed-while-writing", add_slow, test_close, check_left);
  ui_add ("/ui/chat/quit-while-writing", add_slow, test_quit, check_left);
  ui_add ("/ui/chat/thoughts-open", add_thought, test_thought, NULL);
  ui_add ("/ui/chat/calls-of-tools-are-lines", add_quick, test_calls, NULL);
  ui_add ("/ui/chat/calls-of-tools-in-code", add_quick, test_calls_in_code, NULL);
  ui_add ("/ui/chat/calls-of-tools-in-a-chat", add_call, test_call_shown, NULL);
  ui_add ("/ui/chat/thoughts-grow", add_quick, test_thought_grows, NULL);
  ui_add ("/ui/chat/first-run", NULL, test_first_run, NULL);
  return ui_run ();
}
