/* model_details.c: rows of name and value that can be selected and copied. */
#include "app/ui/model_details.h"

#include <glib/gi18n.h>
#include <math.h>

static void add_row (AdwPreferencesGroup *group, const char *name, const char *value)
{
  if (!value || !*value)
    return;
  GtkWidget *row = adw_action_row_new ();
  g_autofree char *escaped = g_markup_escape_text (value, -1);
  adw_preferences_row_set_title (ADW_PREFERENCES_ROW (row), name);
  adw_action_row_set_subtitle (ADW_ACTION_ROW (row), escaped);
  adw_action_row_set_subtitle_lines (ADW_ACTION_ROW (row), 0);
  gtk_widget_add_css_class (row, "property");
  adw_preferences_group_add (group, row);
}

AdwWindow *valise_model_details_new (GtkWindow *parent, ValiseModel *model)
{
  GtkWidget *window = adw_window_new (), *box = gtk_box_new (GTK_ORIENTATION_VERTICAL, 0);
  GtkWidget *page = adw_preferences_page_new (), *group = adw_preferences_group_new (), *file = adw_preferences_group_new ();
  g_autofree char *size = valise_size_format (valise_model_get_bytes (model));
  g_autofree char *parameters = g_strdup_printf ("%'" G_GUINT64_FORMAT, valise_model_get_parameters (model));
  g_autofree char *bits = g_strdup_printf ("%.2f", valise_model_get_bpw (model));
  g_autofree char *context = g_strdup_printf (C_("details", "%u tokens"), valise_model_get_context (model));
  g_autofree char *kl = isnan (valise_model_get_kl (model)) ? NULL
                          : g_strdup_printf (C_("details", "%.4f nats a word from the original, measured"), valise_model_get_kl (model));
  add_row (ADW_PREFERENCES_GROUP (group), C_("details", "Architecture"), valise_model_get_architecture (model));
  add_row (ADW_PREFERENCES_GROUP (group), C_("details", "Licence"), valise_model_get_license (model));
  add_row (ADW_PREFERENCES_GROUP (group), C_("details", "Parameters"), parameters);
  add_row (ADW_PREFERENCES_GROUP (group), C_("details", "Bits per weight"), bits);
  add_row (ADW_PREFERENCES_GROUP (group), C_("details", "Context it was trained for"), context);
  add_row (ADW_PREFERENCES_GROUP (group), C_("details", "KL divergence"), kl);
  adw_preferences_group_set_title (ADW_PREFERENCES_GROUP (file), C_("details", "File"));
  add_row (ADW_PREFERENCES_GROUP (file), C_("details", "Size"), size);
  add_row (ADW_PREFERENCES_GROUP (file), C_("details", "Source"), valise_model_get_source (model));
  add_row (ADW_PREFERENCES_GROUP (file), C_("details", "Place"), valise_model_get_path (model));
  add_row (ADW_PREFERENCES_GROUP (file), "SHA-256", valise_model_get_sha256 (model));
  adw_preferences_page_add (ADW_PREFERENCES_PAGE (page), ADW_PREFERENCES_GROUP (group));
  adw_preferences_page_add (ADW_PREFERENCES_PAGE (page), ADW_PREFERENCES_GROUP (file));
  gtk_widget_set_vexpand (page, TRUE);
  gtk_box_append (GTK_BOX (box), adw_header_bar_new ());
  gtk_box_append (GTK_BOX (box), page);
  adw_window_set_content (ADW_WINDOW (window), box);
  gtk_window_set_title (GTK_WINDOW (window), valise_model_get_name (model));
  gtk_window_set_default_size (GTK_WINDOW (window), 480, 620);
  gtk_window_set_transient_for (GTK_WINDOW (window), parent);
  gtk_window_set_modal (GTK_WINDOW (window), TRUE);
  return ADW_WINDOW (window);
}
