/* preferences.c: bound to GSettings; sizes are read and written as everywhere else. */
#include "app/ui/preferences.h"

#include <glib/gi18n.h>
#include <gtksourceview/gtksource.h>

#include "app/ui/application.h"

static const int kv_bits[] = { 16, 8, 4 };

struct _ValisePreferences {
  AdwPreferencesWindow parent;
  AdwEntryRow *ram_row;
  GtkSpinButton *context_spin, *threads_spin, *port_spin;
  AdwActionRow *serve_row, *address_row;
  AdwPasswordEntryRow *token_row;
  GtkSwitch *serve_switch;
  GtkButton *copy_address_button;
  AdwComboRow *kv_row, *scheme_row;
  AdwActionRow *machine_row, *library_row;
  GtkSwitch *wrap_switch, *notify_switch;
  gboolean setting;
};

G_DEFINE_TYPE (ValisePreferences, valise_preferences, ADW_TYPE_PREFERENCES_WINDOW)

static void show_ram (ValisePreferences *self)
{
  guint64 limit = g_settings_get_uint64 (valise_settings (), "ram-limit");
  g_autofree char *text = limit ? valise_size_format (limit) : g_strdup ("");
  gtk_editable_set_text (GTK_EDITABLE (self->ram_row), text);
}

static void on_ram_apply (ValisePreferences *self)
{
  g_autoptr (GError) error = NULL;
  guint64 bytes = 0;
  const char *text = gtk_editable_get_text (GTK_EDITABLE (self->ram_row));
  gtk_widget_remove_css_class (GTK_WIDGET (self->ram_row), "error");
  if (*text && !valise_size_parse (text, &bytes, &error)) {
    g_autofree char *escaped = g_markup_escape_text (error->message, -1);
    gtk_widget_add_css_class (GTK_WIDGET (self->ram_row), "error");
    adw_preferences_window_add_toast (ADW_PREFERENCES_WINDOW (self), adw_toast_new (escaped));
    return;
  }
  g_settings_set_uint64 (valise_settings (), "ram-limit", bytes);
  show_ram (self);
}

static void on_kv (ValisePreferences *self)
{
  if (!self->setting)
    g_settings_set_int (valise_settings (), "kv-bits", kv_bits[MIN (adw_combo_row_get_selected (self->kv_row), 2)]);
}

static void on_scheme (ValisePreferences *self)
{
  guint selected = adw_combo_row_get_selected (self->scheme_row);
  const char *const *ids = gtk_source_style_scheme_manager_get_scheme_ids (gtk_source_style_scheme_manager_get_default ());
  if (!self->setting)
    g_settings_set_string (valise_settings (), "code-style", selected ? ids[selected - 1] : "");
}

static void show_serving (ValisePreferences *self)
{
  ValiseServing *serving = valise_application_get_serving (valise_app ());
  const char *url = valise_serving_get_url (serving);
  gboolean failed;
  g_autofree char *sentence = valise_serving_describe (serving, &failed), *escaped = g_markup_escape_text (sentence, -1);
  adw_action_row_set_subtitle (self->serve_row, escaped);
  adw_action_row_set_subtitle (self->address_row, url ? url : "");
  gtk_widget_set_visible (GTK_WIDGET (self->address_row), url != NULL);
  if (failed)
    gtk_widget_add_css_class (GTK_WIDGET (self->serve_row), "error");
  else
    gtk_widget_remove_css_class (GTK_WIDGET (self->serve_row), "error");
}

static void on_copy_address (ValisePreferences *self)
{
  const char *url = valise_serving_get_url (valise_application_get_serving (valise_app ()));
  if (!url)
    return;
  gdk_clipboard_set_text (gtk_widget_get_clipboard (GTK_WIDGET (self)), url);
  adw_preferences_window_add_toast (ADW_PREFERENCES_WINDOW (self), adw_toast_new (C_("preferences", "The address was copied")));
}

static void on_token_apply (ValisePreferences *self)
{
  g_settings_set_string (valise_settings (), "serve-token", gtk_editable_get_text (GTK_EDITABLE (self->token_row)));
}

static void on_open_library (ValisePreferences *self)
{
  g_autofree char *uri = g_filename_to_uri (valise_library_get_home (valise_application_get_library (valise_app ())), NULL, NULL);
  if (uri)
    gtk_show_uri (GTK_WINDOW (self), uri, GDK_CURRENT_TIME);
}

static void fill_schemes (ValisePreferences *self)
{
  GtkSourceStyleSchemeManager *manager = gtk_source_style_scheme_manager_get_default ();
  const char *const *ids = gtk_source_style_scheme_manager_get_scheme_ids (manager);
  g_autofree char *chosen = g_settings_get_string (valise_settings (), "code-style");
  g_autoptr (GtkStringList) names = gtk_string_list_new (NULL);
  guint selected = 0;
  gtk_string_list_append (names, C_("preferences", "Light or dark, as the system"));
  for (guint i = 0; ids && ids[i]; i++) {
    gtk_string_list_append (names, gtk_source_style_scheme_get_name (gtk_source_style_scheme_manager_get_scheme (manager, ids[i])));
    if (g_str_equal (ids[i], chosen))
      selected = i + 1;
  }
  adw_combo_row_set_model (self->scheme_row, G_LIST_MODEL (names));
  adw_combo_row_set_selected (self->scheme_row, selected);
}

static void show_machine (ValisePreferences *self)
{
  g_autoptr (JsonObject) hardware = valise_hardware_to_json ();
  JsonObject *cpu = json_object_get_object_member (hardware, "cpu"), *ram = json_object_get_object_member (hardware, "ram");
  g_autofree char *total = valise_size_format ((guint64) json_object_get_int_member (ram, "total_bytes"));
  g_autofree char *text = g_strdup_printf (C_("preferences", "%s · kernels for %s · %s of memory"),
                                           json_object_get_string_member_with_default (cpu, "model", ""),
                                           json_object_get_string_member_with_default (cpu, "selected", ""), total);
  g_autofree char *escaped = g_markup_escape_text (text, -1);
  g_autofree char *home = g_markup_escape_text (valise_library_get_home (valise_application_get_library (valise_app ())), -1);
  adw_action_row_set_subtitle (self->machine_row, escaped);
  adw_action_row_set_subtitle (self->library_row, home);
}

static void valise_preferences_class_init (ValisePreferencesClass *klass)
{
  GtkWidgetClass *widget_class = GTK_WIDGET_CLASS (klass);
  gtk_widget_class_set_template_from_resource (widget_class, VALISE_RESOURCES "ui/preferences.ui");
  gtk_widget_class_bind_template_child (widget_class, ValisePreferences, ram_row);
  gtk_widget_class_bind_template_child (widget_class, ValisePreferences, context_spin);
  gtk_widget_class_bind_template_child (widget_class, ValisePreferences, threads_spin);
  gtk_widget_class_bind_template_child (widget_class, ValisePreferences, port_spin);
  gtk_widget_class_bind_template_child (widget_class, ValisePreferences, serve_row);
  gtk_widget_class_bind_template_child (widget_class, ValisePreferences, address_row);
  gtk_widget_class_bind_template_child (widget_class, ValisePreferences, token_row);
  gtk_widget_class_bind_template_child (widget_class, ValisePreferences, serve_switch);
  gtk_widget_class_bind_template_child (widget_class, ValisePreferences, copy_address_button);
  gtk_widget_class_bind_template_child (widget_class, ValisePreferences, kv_row);
  gtk_widget_class_bind_template_child (widget_class, ValisePreferences, scheme_row);
  gtk_widget_class_bind_template_child (widget_class, ValisePreferences, machine_row);
  gtk_widget_class_bind_template_child (widget_class, ValisePreferences, library_row);
  gtk_widget_class_bind_template_child (widget_class, ValisePreferences, wrap_switch);
  gtk_widget_class_bind_template_child (widget_class, ValisePreferences, notify_switch);
  gtk_widget_class_bind_template_callback (widget_class, on_ram_apply);
  gtk_widget_class_bind_template_callback (widget_class, on_kv);
  gtk_widget_class_bind_template_callback (widget_class, on_scheme);
  gtk_widget_class_bind_template_callback (widget_class, on_open_library);
  gtk_widget_class_bind_template_callback (widget_class, on_copy_address);
  gtk_widget_class_bind_template_callback (widget_class, on_token_apply);
}

static void valise_preferences_init (ValisePreferences *self)
{
  GSettings *settings = valise_settings ();
  self->setting = TRUE;
  gtk_widget_init_template (GTK_WIDGET (self));
  g_settings_bind (settings, "context", gtk_spin_button_get_adjustment (self->context_spin), "value", G_SETTINGS_BIND_DEFAULT);
  g_settings_bind (settings, "threads", gtk_spin_button_get_adjustment (self->threads_spin), "value", G_SETTINGS_BIND_DEFAULT);
  g_settings_bind (settings, "code-wrap", self->wrap_switch, "active", G_SETTINGS_BIND_DEFAULT);
  g_settings_bind (settings, "notify-jobs", self->notify_switch, "active", G_SETTINGS_BIND_DEFAULT);
  int bits = g_settings_get_int (settings, "kv-bits");
  adw_combo_row_set_selected (self->kv_row, bits == 4 ? 2 : bits == 8 ? 1 : 0);
  g_settings_bind (settings, "serve", self->serve_switch, "active", G_SETTINGS_BIND_DEFAULT);
  g_settings_bind (settings, "serve-port", gtk_spin_button_get_adjustment (self->port_spin), "value", G_SETTINGS_BIND_DEFAULT);
  g_autofree char *token = g_settings_get_string (settings, "serve-token");
  gtk_editable_set_text (GTK_EDITABLE (self->token_row), token);
  g_signal_connect_object (valise_application_get_serving (valise_app ()), "changed", G_CALLBACK (show_serving), self, G_CONNECT_SWAPPED);
  g_signal_connect_object (settings, "changed::serve", G_CALLBACK (show_serving), self, G_CONNECT_SWAPPED | G_CONNECT_AFTER);
  show_serving (self);
  show_ram (self);
  fill_schemes (self);
  show_machine (self);
  self->setting = FALSE;
}

ValisePreferences *valise_preferences_new (GtkWindow *parent)
{
  return g_object_new (VALISE_TYPE_PREFERENCES, "transient-for", parent, "destroy-with-parent", TRUE, NULL);
}
