/* test_german.c: the window in German: the translation that was built is found and shown, and still has room where it is narrow. */
#include "tests/ui/ui_case.h"

static void add_quick (UiCase *c)
{
  g_autofree char *path = ui_write_liner (2);
  g_object_unref (ui_import (c, path, "Quick"));
}

static void test_first_run (UiCase *c)
{
  g_assert_true (ui_shows (c->window, "Willkommen bei Valise"));
  g_assert_nonnull (ui_find_labelled (c->window, "Datei öffnen …"));
  ui_picture (c->window, "german-first-run");
}

static void test_pages (UiCase *c)
{
  g_assert_true (ui_shows (c->window, "Was beschäftigt Sie?"));
  ui_ask (c, "Guten Tag");
  g_assert_true (ui_shows (c->window, "Kontext ist voll"));
  ui_activate (c, "win.show-models", NULL);
  g_assert_nonnull (ui_find_labelled (c->window, "An meinen Speicher anpassen …"));
  g_autoptr (ValiseModel) model = valise_library_find_model (c->library, "Quick", NULL);
  ui_activate (c, "win.fit-model", "x", valise_model_get_id (model));
  GtkWindow *wizard = ui_dialog (c);
  g_assert_true (ui_shows (wizard, "1 von 4 · Modell"));
  ui_click (ui_find (wizard, "next_button"));
  ui_wait (gtk_widget_is_sensitive (ui_find (wizard, "next_button")));
  g_assert_true (ui_shows (wizard, "der nächsten Wörter unverändert"));
  ui_picture (wizard, "german-fit");
  gtk_window_close (wizard);
  gtk_window_set_default_size (GTK_WINDOW (c->window), 360, 640);
  ui_run_for (300);
  g_assert_cmpint (gtk_widget_get_width (GTK_WIDGET (c->window)), <=, 360);
  ui_picture (c->window, "german-narrow-models");
  ui_activate (c, "win.new-chat", NULL);
  ui_ask (c, "Guten Tag");
  ui_run_for (300);
  g_assert_cmpint (gtk_widget_get_width (GTK_WIDGET (c->window)), <=, 360);
  ui_picture (c->window, "german-narrow-chat");
}

int main (int argc, char **argv)
{
  g_assert_nonnull (g_getenv ("UI_LOCALE_DIR"));
  ui_init (&argc, &argv);
  ui_add ("/ui/german/first-run", NULL, test_first_run, NULL);
  ui_add ("/ui/german/pages", add_quick, test_pages, NULL);
  return ui_run ();
}
