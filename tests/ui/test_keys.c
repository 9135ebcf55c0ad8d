/* test_keys.c: what can be done without a mouse, with real key strokes; and what a screen reader is told. */
#include "tests/ui/ui_case.h"

#include <gdk/x11/gdkx.h>
#include <string.h>

static ValiseConversation *conversation (UiCase *c)
{
  return valise_application_get_conversation (c->application);
}

static gint64 chat_id (UiCase *c)
{
  return valise_chat_page_get_chat_id (valise_window_get_chat_page (c->window));
}

static void add_quick (UiCase *c)
{
  g_autofree char *path = ui_write_liner (2);
  g_object_unref (ui_import (c, path, "Quick"));
}

/* ---- keys ---- */

static void on_struck (GPid pid, int status, gpointer done)
{
  g_assert_true (g_spawn_check_wait_status (status, NULL));
  *(gboolean *) done = TRUE;
}

/* xdotool COMMAND ARGUMENT, into the window that is in front. */
static void strike (UiCase *c, GtkWindow *window, const char *command, const char *argument)
{
  g_autoptr (GError) error = NULL;
  gboolean done = FALSE;
  GPid pid;
  g_autofree char *id = g_strdup_printf ("%lu", gdk_x11_surface_get_xid (gtk_native_get_surface (GTK_NATIVE (window))));
  char *argv[] = { (char *) "xdotool", (char *) "windowfocus", id, (char *) command, (char *) argument, NULL };
  g_assert_true (g_spawn_async (NULL, argv, NULL, G_SPAWN_SEARCH_PATH | G_SPAWN_DO_NOT_REAP_CHILD, NULL, NULL, &pid, &error));
  g_child_watch_add (pid, on_struck, &done);
  ui_wait (done);
}

static gboolean no_xdotool (void)
{
  g_autofree char *path = g_find_program_in_path ("xdotool");
  if (!path)
    g_test_skip ("xdotool is not installed");
  return !path;
}

static gboolean composer_says (UiCase *c, const char *text)
{
  GtkTextIter start, end;
  GtkTextBuffer *buffer = gtk_text_view_get_buffer (ui_find (c->window, "view"));
  gtk_text_buffer_get_bounds (buffer, &start, &end);
  g_autofree char *written = gtk_text_buffer_get_text (buffer, &start, &end, FALSE);
  return g_str_equal (written, text);
}

static void test_composer (UiCase *c)
{
  if (no_xdotool ())
    return;
  strike (c, GTK_WINDOW (c->window), "type", "one");
  strike (c, GTK_WINDOW (c->window), "key", "shift+Return");
  strike (c, GTK_WINDOW (c->window), "type", "two");
  ui_wait (composer_says (c, "one\ntwo"));
  g_assert_false (valise_conversation_is_busy (conversation (c)));
  strike (c, GTK_WINDOW (c->window), "key", "Return");
  ui_wait (ui_last_row (c) && !valise_conversation_is_busy (conversation (c)) && ui_shows (ui_last_row (c), "tokens/s"));
  ui_wait (composer_says (c, ""));
  g_autoptr (GPtrArray) messages = valise_library_get_branch (c->library, chat_id (c), NULL);
  g_assert_cmpstr (((ValiseMessage *) g_ptr_array_index (messages, 0))->content, ==, "one\ntwo");
  /* Ctrl+E takes it back into the composer, Escape leaves it as it was. */
  strike (c, GTK_WINDOW (c->window), "key", "ctrl+e");
  ui_wait (composer_says (c, "one\ntwo"));
  strike (c, GTK_WINDOW (c->window), "key", "Escape");
  ui_wait (composer_says (c, ""));
  strike (c, GTK_WINDOW (c->window), "key", "ctrl+r");
  ui_wait (ui_last_row (c) && !valise_conversation_is_busy (conversation (c)) && ui_shows (ui_last_row (c), "2/2"));
}

static void test_places (UiCase *c)
{
  if (no_xdotool ())
    return;
  ui_ask (c, "hello");
  gint64 id = chat_id (c);
  strike (c, GTK_WINDOW (c->window), "key", "ctrl+m");
  ui_wait (ui_find (c->window, "models_box"));
  strike (c, GTK_WINDOW (c->window), "key", "alt+Home");
  ui_wait (ui_find (c->window, "send_button"));
  strike (c, GTK_WINDOW (c->window), "key", "ctrl+n");
  ui_wait (chat_id (c) == 0);
  strike (c, GTK_WINDOW (c->window), "key", "ctrl+f");
  strike (c, GTK_WINDOW (c->window), "type", "jolt");
  ui_wait (g_str_equal (gtk_editable_get_text (ui_find (c->window, "search_entry")), "jolt"));
  /* From the entry down into what was found, and open it. */
  strike (c, GTK_WINDOW (c->window), "key", "Tab");
  strike (c, GTK_WINDOW (c->window), "key", "Return");
  ui_wait (chat_id (c) == id);
  strike (c, GTK_WINDOW (c->window), "key", "F2");
  ui_wait (ui_dialog (c));
  gtk_window_close (ui_dialog (c));
  strike (c, GTK_WINDOW (c->window), "key", "ctrl+comma");
  ui_wait (ui_dialog (c));
  ui_picture (ui_dialog (c), "preferences");
  strike (c, ui_dialog (c), "key", "Escape");
  ui_wait (!ui_dialog (c));
  strike (c, GTK_WINDOW (c->window), "key", "ctrl+d");
  ui_wait (chat_id (c) == 0);
}

/* ---- names ---- */

static gboolean has_words_of_its_own (GtkWidget *widget)
{
  g_autoptr (GPtrArray) labels = ui_find_all (widget, GTK_TYPE_LABEL);
  for (guint i = 0; i < labels->len; i++)
    if (*gtk_label_get_text (g_ptr_array_index (labels, i)))
      return TRUE;
  return FALSE;
}

/* Every control that shows only an icon, or takes an input, says what it is. */
static void check_names (gpointer root, const char *where)
{
  const GType types[] = { GTK_TYPE_BUTTON, GTK_TYPE_MENU_BUTTON, GTK_TYPE_SCALE, GTK_TYPE_ENTRY, GTK_TYPE_SPIN_BUTTON, GTK_TYPE_TEXT_VIEW,
                          GTK_TYPE_PROGRESS_BAR };
  guint n = 0;
  for (gsize t = 0; t < G_N_ELEMENTS (types); t++) {
    g_autoptr (GPtrArray) found = ui_find_all (root, types[t]);
    for (guint i = 0; i < found->len; i++, n++) {
      GtkWidget *widget = g_ptr_array_index (found, i), *parent = gtk_widget_get_parent (widget);
      /* What is inside GTK's and libadwaita's own widgets is theirs. */
      gboolean inner = GTK_IS_MENU_BUTTON (parent) || GTK_IS_SPIN_BUTTON (parent) || GTK_IS_WINDOW_CONTROLS (parent)
                       || g_str_has_prefix (G_OBJECT_TYPE_NAME (parent), "Adw") || !gtk_buildable_get_buildable_id (GTK_BUILDABLE (widget));
      gboolean named = gtk_test_accessible_has_property (GTK_ACCESSIBLE (widget), GTK_ACCESSIBLE_PROPERTY_LABEL)
                       || gtk_test_accessible_has_relation (GTK_ACCESSIBLE (widget), GTK_ACCESSIBLE_RELATION_LABELLED_BY);
      if (!inner && !named && !((GTK_IS_BUTTON (widget) || GTK_IS_MENU_BUTTON (widget)) && has_words_of_its_own (widget)))
        g_error ("%s: %s %s has no name", where, G_OBJECT_TYPE_NAME (widget), gtk_buildable_get_buildable_id (GTK_BUILDABLE (widget)));
    }
  }
  g_assert_cmpuint (n, >, 0);
}

static void test_names (UiCase *c)
{
  check_names (c->window, "an empty chat");
  ui_ask (c, "hello");
  check_names (c->window, "a chat");
  ui_activate (c, "win.show-models", NULL);
  check_names (c->window, "the models");
  ui_activate (c, "win.chat-settings", NULL);
  check_names (ui_dialog (c), "a chat's settings");
  gtk_window_close (ui_dialog (c));
  g_action_group_activate_action (G_ACTION_GROUP (c->application), "preferences", NULL);
  check_names (ui_dialog (c), "the preferences");
  gtk_window_close (ui_dialog (c));
  g_autoptr (ValiseModel) model = valise_library_find_model (c->library, "Quick", NULL);
  ui_activate (c, "win.fit-model", "x", valise_model_get_id (model));
  GtkWindow *wizard = ui_dialog (c);
  check_names (wizard, "the wizard's first step");
  ui_click (ui_find (wizard, "next_button"));
  ui_wait (gtk_widget_is_sensitive (ui_find (wizard, "next_button")));
  check_names (wizard, "the wizard's budget");
  gtk_window_close (wizard);
}

int main (int argc, char **argv)
{
  ui_init (&argc, &argv);
  ui_add ("/ui/keys/composer", add_quick, test_composer, NULL);
  ui_add ("/ui/keys/places", add_quick, test_places, NULL);
  ui_add ("/ui/names/every-control", add_quick, test_names, NULL);
  return ui_run ();
}
