/* model_details.c: rows of name and value that can be selected and copied. */
#include "app/ui/model_details.h"

#include <glib/gi18n.h>
#include <math.h>

#include "app/ui/fit_report.h"

/* Long values are broken anywhere, without hyphens that are not in them. */
static GtkWidget *value_label (const char *value)
{
  GtkWidget *label = gtk_label_new (value);
  g_autoptr (PangoAttrList) attributes = pango_attr_list_new ();
  pango_attr_list_insert (attributes, pango_attr_insert_hyphens_new (FALSE));
  gtk_label_set_attributes (GTK_LABEL (label), attributes);
  gtk_label_set_xalign (GTK_LABEL (label), 0);
  gtk_label_set_wrap (GTK_LABEL (label), TRUE);
  gtk_label_set_wrap_mode (GTK_LABEL (label), PANGO_WRAP_WORD_CHAR);
  gtk_label_set_selectable (GTK_LABEL (label), TRUE);
  return label;
}

static void add_row (AdwPreferencesGroup *group, const char *name, const char *value)
{
  if (!value || !*value)
    return;
  GtkWidget *row = adw_preferences_row_new (), *box = gtk_box_new (GTK_ORIENTATION_VERTICAL, 2);
  GtkWidget *title = gtk_label_new (name), *label = value_label (value);
  gtk_label_set_xalign (GTK_LABEL (title), 0);
  gtk_widget_add_css_class (title, "caption");
  gtk_widget_add_css_class (title, "dim-label");
  gtk_widget_add_css_class (box, "detail");
  gtk_accessible_update_relation (GTK_ACCESSIBLE (label), GTK_ACCESSIBLE_RELATION_LABELLED_BY, title, NULL, -1);
  gtk_box_append (GTK_BOX (box), title);
  gtk_box_append (GTK_BOX (box), label);
  adw_preferences_row_set_title (ADW_PREFERENCES_ROW (row), name);
  gtk_list_box_row_set_activatable (GTK_LIST_BOX_ROW (row), FALSE);
  gtk_list_box_row_set_child (GTK_LIST_BOX_ROW (row), box);
  adw_preferences_group_add (group, row);
}

static void show_report (GtkButton *button, ValiseModel *model)
{
  gtk_window_present (GTK_WINDOW (valise_fit_report_new (GTK_WINDOW (gtk_widget_get_root (GTK_WIDGET (button))), model)));
}

/* What a fit is made of has a window of its own. */
static GtkWidget *header_bar (ValiseModel *model)
{
  GtkWidget *bar = adw_header_bar_new ();
  if (valise_model_get_kind (model) == VALISE_MODEL_FIT) {
    GtkWidget *button = gtk_button_new_with_mnemonic (C_("details", "_Report"));
    g_signal_connect_object (button, "clicked", G_CALLBACK (show_report), model, 0);
    adw_header_bar_pack_start (ADW_HEADER_BAR (bar), button);
  }
  return bar;
}

AdwWindow *valise_model_details_new (GtkWindow *parent, ValiseModel *model)
{
  GtkWidget *window = adw_window_new (), *box = gtk_box_new (GTK_ORIENTATION_VERTICAL, 0);
  GtkWidget *page = adw_preferences_page_new (), *group = adw_preferences_group_new (), *file = adw_preferences_group_new ();
  g_autofree char *size = valise_size_format (valise_model_get_bytes (model));
  g_autofree char *parameters = g_strdup_printf (C_("details", "%.1f million"), (double) valise_model_get_parameters (model) / 1e6);
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
  add_row (ADW_PREFERENCES_GROUP (group), C_("details", "Pictures"),
           valise_model_sees_pictures (model) ? C_("details", "Not seen: Valise computes the text part of this model") : NULL);
  adw_preferences_group_set_title (ADW_PREFERENCES_GROUP (file), C_("details", "File"));
  add_row (ADW_PREFERENCES_GROUP (file), C_("details", "Size"), size);
  add_row (ADW_PREFERENCES_GROUP (file), C_("details", "Source"), valise_model_get_source (model));
  add_row (ADW_PREFERENCES_GROUP (file), C_("details", "Place"), valise_model_get_path (model));
  add_row (ADW_PREFERENCES_GROUP (file), "SHA-256", valise_model_get_sha256 (model));
  adw_preferences_page_add (ADW_PREFERENCES_PAGE (page), ADW_PREFERENCES_GROUP (group));
  adw_preferences_page_add (ADW_PREFERENCES_PAGE (page), ADW_PREFERENCES_GROUP (file));
  gtk_widget_set_vexpand (page, TRUE);
  gtk_box_append (GTK_BOX (box), header_bar (model));
  gtk_box_append (GTK_BOX (box), page);
  adw_window_set_content (ADW_WINDOW (window), box);
  gtk_window_set_title (GTK_WINDOW (window), valise_model_get_name (model));
  gtk_window_set_default_size (GTK_WINDOW (window), 480, 620);
  gtk_window_set_transient_for (GTK_WINDOW (window), parent);
  gtk_window_set_destroy_with_parent (GTK_WINDOW (window), TRUE);
  gtk_window_set_modal (GTK_WINDOW (window), TRUE);
  return ADW_WINDOW (window);
}
