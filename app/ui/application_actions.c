/* application_actions.c: what the whole program can be told to do, and the keys for it. */
#include "app/ui/application.h"

#include <glib/gi18n.h>

#include "app/ui/preferences.h"

static void show_preferences (GSimpleAction *action, GVariant *parameter, gpointer data)
{
  GtkWindow *window = gtk_application_get_active_window (GTK_APPLICATION (data));
  gtk_window_present (GTK_WINDOW (valise_preferences_new (window)));
}

static void show_about (GSimpleAction *action, GVariant *parameter, gpointer data)
{
  GtkWindow *window = gtk_application_get_active_window (GTK_APPLICATION (data));
  adw_show_about_window (window, "application-name", "Valise", "application-icon", VALISE_APP_ID, "version", VALISE_VERSION,
                         "developer-name", _("The Valise authors"), "license-type", GTK_LICENSE_MIT_X11, "website",
                         "https://github.com/valise-app/valise", "issue-url", "https://github.com/valise-app/valise/issues", "comments",
                         _("Fits language models to the memory you give them, and chats with them on this computer alone."),
                         /* Translators: your names, one a line. */
                         "translator-credits", _("translator-credits"), NULL);
}

static void quit (GSimpleAction *action, GVariant *parameter, gpointer data)
{
  g_application_quit (G_APPLICATION (data));
}

void valise_application_add_actions (ValiseApplication *self)
{
  static const GActionEntry entries[] = { { "preferences", show_preferences }, { "about", show_about }, { "quit", quit } };
  static const struct { const char *action, *keys[3]; } accels[] = {
    { "app.quit", { "<Control>q" } }, { "app.preferences", { "<Control>comma" } }, { "window.close", { "<Control>w" } },
    { "win.new-chat", { "<Control>n" } }, { "win.search", { "<Control>f" } }, { "win.show-models", { "<Control>m" } },
    { "win.show-chats", { "<Alt>Home" } }, { "win.import-file", { "<Control>o" } }, { "win.stop", { "<Control>period" } },
    { "win.chat-settings", { "<Control><Shift>comma" } }, { "win.choose-model", { "<Control>l" } },
    { "win.regenerate", { "<Control>r" } }, { "win.edit", { "<Control>e" } }, { "win.rename-shown-chat", { "F2" } },
    { "win.export-shown-chat", { "<Control>s" } }, { "win.delete-shown-chat", { "<Control>d" } } };
  g_action_map_add_action_entries (G_ACTION_MAP (self), entries, G_N_ELEMENTS (entries), self);
  for (gsize i = 0; i < G_N_ELEMENTS (accels); i++)
    gtk_application_set_accels_for_action (GTK_APPLICATION (self), accels[i].action, (const char *const *) accels[i].keys);
}
