/* main.c: valise-gtk. */
#include <glib/gi18n.h>
#include <gtksourceview/gtksource.h>
#include <locale.h>

#include "app/ui/application.h"
#include "app/ui/resources.h"

int main (int argc, char **argv)
{
  g_autoptr (GError) error = NULL;
  setlocale (LC_ALL, "");
  bindtextdomain ("valise", VALISE_LOCALE_DIR);
  bind_textdomain_codeset ("valise", "UTF-8");
  textdomain ("valise");
  if (!valise_settings_check (&error)) {
    g_printerr ("valise-gtk: %s\n", error->message);
    return 1;
  }
  /* A budget counts this program too. Text drawn by the processor takes 110 MB less than through OpenGL without a graphics card
   * (docs/ui.md); who has memory to spare may name another renderer. */
  g_setenv ("GSK_RENDERER", "cairo", FALSE);
  valise_ui_register_resource ();
  gtk_source_init ();
  g_autoptr (ValiseApplication) application = valise_application_new ();
  return g_application_run (G_APPLICATION (application), argc, argv);
}
