/* models_page.c: a boxed list for each checkpoint, its fits below it, and the way to one more. */
#include "app/ui/models_page.h"

#include <glib/gi18n.h>

#include "app/ui/application.h"
#include "app/ui/job_row.h"
#include "app/ui/model_row.h"

struct _ValiseModelsPage {
  AdwBin parent;
  GtkStack *stack;
  AdwPreferencesGroup *jobs_group;
  GtkListBox *jobs_list;
  GtkBox *models_box;
  guint n_models;
  gboolean folded;
};

enum { PROP_FOLDED = 1, N_PROPS };
static GParamSpec *properties[N_PROPS];

G_DEFINE_TYPE (ValiseModelsPage, valise_models_page, ADW_TYPE_BIN)

static GtkWidget *make_job_row (gpointer job, gpointer data)
{
  return valise_job_row_new (job);
}

static void update_stack (ValiseModelsPage *self)
{
  guint n_jobs = g_list_model_get_n_items (valise_application_get_jobs (valise_app ()));
  gtk_widget_set_visible (GTK_WIDGET (self->jobs_group), n_jobs > 0);
  gtk_stack_set_visible_child_name (self->stack, n_jobs + self->n_models ? "list" : "empty");
}

static GtkWidget *make_list (ValiseModel *head)
{
  GtkWidget *list = gtk_list_box_new ();
  gtk_list_box_set_selection_mode (GTK_LIST_BOX (list), GTK_SELECTION_NONE);
  gtk_widget_add_css_class (list, "boxed-list");
  gtk_list_box_append (GTK_LIST_BOX (list), valise_model_row_new (head));
  gtk_accessible_update_property (GTK_ACCESSIBLE (list), GTK_ACCESSIBLE_PROPERTY_LABEL, valise_model_get_name (head), -1);
  return list;
}

static GtkWidget *make_fit_button (ValiseModel *checkpoint)
{
  GtkWidget *row = adw_action_row_new (), *icon = gtk_image_new_from_icon_name ("list-add-symbolic");
  adw_preferences_row_set_title (ADW_PREFERENCES_ROW (row), C_("models", "_Fit to my RAM…"));
  adw_preferences_row_set_use_underline (ADW_PREFERENCES_ROW (row), TRUE);
  adw_action_row_add_prefix (ADW_ACTION_ROW (row), icon);
  gtk_list_box_row_set_activatable (GTK_LIST_BOX_ROW (row), TRUE);
  gtk_actionable_set_action_name (GTK_ACTIONABLE (row), "win.fit-model");
  gtk_actionable_set_action_target (GTK_ACTIONABLE (row), "x", valise_model_get_id (checkpoint));
  gtk_widget_add_css_class (row, "fit-row");
  return row;
}

static void refresh (ValiseModelsPage *self)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (GPtrArray) models = valise_library_list_models (valise_application_get_library (valise_app ()), &error);
  if (!models) {
    g_warning ("the models cannot be listed: %s", error->message);
    return;
  }
  GtkWidget *child;
  while ((child = gtk_widget_get_first_child (GTK_WIDGET (self->models_box))))
    gtk_box_remove (self->models_box, child);
  g_autoptr (GHashTable) lists = g_hash_table_new (NULL, NULL);
  for (guint i = 0; i < models->len; i++) {
    ValiseModel *model = g_ptr_array_index (models, i);
    GtkListBox *parent = valise_model_get_parent (model)
                           ? g_hash_table_lookup (lists, GSIZE_TO_POINTER ((gsize) valise_model_get_parent (model))) : NULL;
    if (parent) {
      gtk_list_box_append (parent, valise_model_row_new (model));
      continue;
    }
    /* A checkpoint, or a fit whose checkpoint is gone. */
    GtkWidget *list = make_list (model);
    gtk_box_append (self->models_box, list);
    g_hash_table_insert (lists, GSIZE_TO_POINTER ((gsize) valise_model_get_id (model)), list);
  }
  for (guint i = 0; i < models->len; i++) {
    ValiseModel *model = g_ptr_array_index (models, i);
    if (valise_model_get_kind (model) == VALISE_MODEL_CHECKPOINT)
      gtk_list_box_append (g_hash_table_lookup (lists, GSIZE_TO_POINTER ((gsize) valise_model_get_id (model))), make_fit_button (model));
  }
  self->n_models = models->len;
  update_stack (self);
}

static void get_property (GObject *object, guint id, GValue *value, GParamSpec *pspec)
{
  if (id == PROP_FOLDED)
    g_value_set_boolean (value, VALISE_MODELS_PAGE (object)->folded);
  else
    G_OBJECT_WARN_INVALID_PROPERTY_ID (object, id, pspec);
}

static void set_property (GObject *object, guint id, const GValue *value, GParamSpec *pspec)
{
  if (id == PROP_FOLDED)
    VALISE_MODELS_PAGE (object)->folded = g_value_get_boolean (value);
  else
    G_OBJECT_WARN_INVALID_PROPERTY_ID (object, id, pspec);
}

static void valise_models_page_class_init (ValiseModelsPageClass *klass)
{
  GObjectClass *object_class = G_OBJECT_CLASS (klass);
  GtkWidgetClass *widget_class = GTK_WIDGET_CLASS (klass);
  object_class->get_property = get_property;
  object_class->set_property = set_property;
  properties[PROP_FOLDED] = g_param_spec_boolean ("folded", NULL, NULL, FALSE, G_PARAM_READWRITE | G_PARAM_STATIC_STRINGS);
  g_object_class_install_properties (object_class, N_PROPS, properties);
  gtk_widget_class_set_template_from_resource (widget_class, VALISE_RESOURCES "ui/models_page.ui");
  gtk_widget_class_bind_template_child (widget_class, ValiseModelsPage, stack);
  gtk_widget_class_bind_template_child (widget_class, ValiseModelsPage, jobs_group);
  gtk_widget_class_bind_template_child (widget_class, ValiseModelsPage, jobs_list);
  gtk_widget_class_bind_template_child (widget_class, ValiseModelsPage, models_box);
}

static void valise_models_page_init (ValiseModelsPage *self)
{
  gtk_widget_init_template (GTK_WIDGET (self));
  GListModel *jobs = valise_application_get_jobs (valise_app ());
  gtk_list_box_bind_model (self->jobs_list, jobs, make_job_row, NULL, NULL);
  g_signal_connect_object (jobs, "items-changed", G_CALLBACK (update_stack), self, G_CONNECT_SWAPPED);
  g_signal_connect_object (valise_application_get_library (valise_app ()), "models-changed", G_CALLBACK (refresh), self, G_CONNECT_SWAPPED);
  refresh (self);
}
