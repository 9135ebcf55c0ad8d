/* model_button.c: the list is read anew whenever the menu opens. */
#include "app/ui/model_button.h"

#include <glib/gi18n.h>
#include <math.h>

#include "app/ui/application.h"

struct _ValiseModelButton {
  AdwBin parent;
  GtkMenuButton *button;
  GtkLabel *name_label, *detail_label;
  GtkPopover *popover;
  GtkListBox *list;
  ValiseModel *model;
};

enum { CHOSEN, N_SIGNALS };
static guint signals[N_SIGNALS];

G_DEFINE_TYPE (ValiseModelButton, valise_model_button, ADW_TYPE_BIN)

char *valise_model_describe (ValiseModel *model)
{
  g_autofree char *size = valise_size_format (valise_model_get_bytes (model));
  if (!(valise_model_get_bpw (model) > 0))
    return g_steal_pointer (&size);
  /* Translators: a file's size and how many bits it keeps for each weight. */
  return g_strdup_printf (C_("model", "%s · %.1f bits"), size, valise_model_get_bpw (model));
}

static GtkWidget *make_row (ValiseModelButton *self, ValiseModel *model)
{
  gboolean chosen = self->model && valise_model_get_id (self->model) == valise_model_get_id (model);
  GtkWidget *box = gtk_box_new (GTK_ORIENTATION_HORIZONTAL, 12), *labels = gtk_box_new (GTK_ORIENTATION_VERTICAL, 0);
  GtkWidget *name = gtk_label_new (valise_model_get_name (model));
  g_autofree char *said = valise_model_describe (model);
  g_autofree char *text = valise_model_get_kind (model) == VALISE_MODEL_FIT
                            ? g_strdup (said) : g_strdup_printf (C_("model", "%s · not fitted"), said);
  GtkWidget *detail = gtk_label_new (text), *tick = gtk_image_new_from_icon_name ("object-select-symbolic");
  gtk_label_set_xalign (GTK_LABEL (name), 0);
  gtk_label_set_ellipsize (GTK_LABEL (name), PANGO_ELLIPSIZE_MIDDLE);
  gtk_label_set_max_width_chars (GTK_LABEL (name), 32);
  gtk_label_set_xalign (GTK_LABEL (detail), 0);
  gtk_widget_add_css_class (detail, "caption");
  gtk_widget_add_css_class (detail, "dim-label");
  gtk_widget_set_hexpand (labels, TRUE);
  gtk_widget_set_opacity (tick, chosen ? 1 : 0);
  gtk_box_append (GTK_BOX (labels), name);
  gtk_box_append (GTK_BOX (labels), detail);
  gtk_box_append (GTK_BOX (box), labels);
  gtk_box_append (GTK_BOX (box), tick);
  GtkWidget *row = gtk_list_box_row_new ();
  gtk_list_box_row_set_child (GTK_LIST_BOX_ROW (row), box);
  gtk_accessible_update_property (GTK_ACCESSIBLE (row), GTK_ACCESSIBLE_PROPERTY_LABEL, valise_model_get_name (model), -1);
  g_object_set_data_full (G_OBJECT (row), "model", g_object_ref (model), g_object_unref);
  return row;
}

static void on_show (ValiseModelButton *self)
{
  GtkWidget *row;
  while ((row = GTK_WIDGET (gtk_list_box_get_row_at_index (self->list, 0))))
    gtk_list_box_remove (self->list, row);
  g_autoptr (GError) error = NULL;
  g_autoptr (GPtrArray) models = valise_library_list_models (valise_application_get_library (valise_app ()), &error);
  if (!models)
    g_warning ("the models cannot be listed: %s", error->message);
  for (guint i = 0; models && i < models->len; i++)
    gtk_list_box_append (self->list, make_row (self, g_ptr_array_index (models, i)));
}

static void on_row_activated (GtkListBox *list, GtkListBoxRow *row, ValiseModelButton *self)
{
  gtk_popover_popdown (self->popover);
  g_signal_emit (self, signals[CHOSEN], 0, g_object_get_data (G_OBJECT (row), "model"));
}

static void on_manage_clicked (ValiseModelButton *self)
{
  gtk_popover_popdown (self->popover);
}

void valise_model_button_popup (ValiseModelButton *self)
{
  gtk_menu_button_popup (self->button);
}

void valise_model_button_set_model (ValiseModelButton *self, ValiseModel *model)
{
  g_set_object (&self->model, model);
  g_autofree char *detail = model ? valise_model_describe (model) : NULL;
  gtk_label_set_text (self->name_label, model ? valise_model_get_name (model) : C_("chat", "Choose a model"));
  gtk_label_set_text (self->detail_label, detail ? detail : "");
  gtk_widget_set_visible (GTK_WIDGET (self->detail_label), detail != NULL);
}

static void dispose (GObject *object)
{
  g_clear_object (&VALISE_MODEL_BUTTON (object)->model);
  G_OBJECT_CLASS (valise_model_button_parent_class)->dispose (object);
}

static void valise_model_button_class_init (ValiseModelButtonClass *klass)
{
  GtkWidgetClass *widget_class = GTK_WIDGET_CLASS (klass);
  G_OBJECT_CLASS (klass)->dispose = dispose;
  signals[CHOSEN] = g_signal_new ("chosen", G_TYPE_FROM_CLASS (klass), G_SIGNAL_RUN_LAST, 0, NULL, NULL, NULL, G_TYPE_NONE, 1,
                                  VALISE_TYPE_MODEL);
  gtk_widget_class_set_template_from_resource (widget_class, VALISE_RESOURCES "ui/model_button.ui");
  gtk_widget_class_bind_template_child (widget_class, ValiseModelButton, button);
  gtk_widget_class_bind_template_child (widget_class, ValiseModelButton, name_label);
  gtk_widget_class_bind_template_child (widget_class, ValiseModelButton, detail_label);
  gtk_widget_class_bind_template_child (widget_class, ValiseModelButton, popover);
  gtk_widget_class_bind_template_child (widget_class, ValiseModelButton, list);
  gtk_widget_class_bind_template_callback (widget_class, on_show);
  gtk_widget_class_bind_template_callback (widget_class, on_row_activated);
  gtk_widget_class_bind_template_callback (widget_class, on_manage_clicked);
}

static void valise_model_button_init (ValiseModelButton *self)
{
  gtk_widget_init_template (GTK_WIDGET (self));
  valise_model_button_set_model (self, NULL);
}
