/* model_row.c: slow work (verify, export, remove) runs on a thread; the row turns its spinner meanwhile. */
#include "app/ui/model_row.h"

#include <glib/gi18n.h>
#include <math.h>

#include "app/ui/application.h"
#include "app/ui/model_button.h"
#include "app/ui/model_details.h"
#include "app/ui/window.h"

struct _ValiseModelRow {
  AdwActionRow parent;
  GtkImage *icon;
  GtkSpinner *spinner;
  GtkButton *chat_button;
  ValiseModel *model;
  GtkFileChooserNative *chooser;
  GCancellable *cancellable;
};

G_DEFINE_TYPE (ValiseModelRow, valise_model_row, ADW_TYPE_ACTION_ROW)

/* What a thread is to do with the model, and what is said when it has worked. */
typedef struct {
  ValiseLibrary *library;
  ValiseModel *model;
  char *path; /* export */
  gboolean (*run) (GTask *task, gpointer work, GError **error);
  guint64 freed_bytes;
} Work;

static void say (ValiseModelRow *self, const char *sentence)
{
  GtkWindow *window = gtk_application_get_active_window (GTK_APPLICATION (valise_app ()));
  for (; window && !VALISE_IS_WINDOW (window); window = gtk_window_get_transient_for (window))
    ;
  if (window)
    valise_window_say (VALISE_WINDOW (window), sentence);
}

static char *describe (ValiseModel *model)
{
  g_autofree char *size = valise_model_describe (model);
  const char *license = valise_model_get_license (model);
  if (valise_model_get_kind (model) == VALISE_MODEL_FIT) {
    if (isnan (valise_model_get_kl (model)))
      return g_steal_pointer (&size);
    /* Translators: size and bits, then how far the fit's words differ from the original's (KL divergence). */
    return g_strdup_printf (C_("model", "%s · KL %.3f"), size, valise_model_get_kl (model));
  }
  double millions = (double) valise_model_get_parameters (model) / 1e6;
  g_autofree char *parameters = millions >= 1000 ? g_strdup_printf (C_("model", "%.1f billion parameters"), millions / 1000)
                                : g_strdup_printf (C_("model", "%.*f million parameters"), millions < 1 ? 2 : 0, millions);
  return g_strdup_printf ("%s%s%s · %s · %s", license && *license ? license : "", license && *license ? " · " : "",
                          valise_model_get_architecture (model), parameters, size);
}

/* ---- slow work -------------------------------------------------------------------------------------------------------------------------- */

static void work_free (gpointer data)
{
  Work *work = data;
  g_object_unref (work->library);
  g_object_unref (work->model);
  g_free (work->path);
  g_free (work);
}

static gboolean run_verify (GTask *task, gpointer data, GError **error)
{
  Work *work = data;
  return valise_library_verify (work->library, work->model, NULL, NULL, g_task_get_cancellable (task), error);
}

static gboolean run_export (GTask *task, gpointer data, GError **error)
{
  Work *work = data;
  return valise_library_export (work->library, work->model, work->path, NULL, NULL, g_task_get_cancellable (task), error);
}

static gboolean run_remove (GTask *task, gpointer data, GError **error)
{
  Work *work = data;
  return valise_library_remove (work->library, work->model, &work->freed_bytes, error);
}

static void run_work (GTask *task, gpointer source, gpointer data, GCancellable *cancellable)
{
  GError *error = NULL;
  if (((Work *) data)->run (task, data, &error))
    g_task_return_boolean (task, TRUE);
  else
    g_task_return_error (task, error);
}

static void on_work_done (GObject *source, GAsyncResult *result, gpointer data)
{
  ValiseModelRow *self = VALISE_MODEL_ROW (source);
  Work *work = g_task_get_task_data (G_TASK (result));
  const char *name = valise_model_get_name (work->model);
  g_autoptr (GError) error = NULL;
  g_autofree char *said = NULL;
  gtk_spinner_stop (self->spinner);
  gtk_widget_set_visible (GTK_WIDGET (self->spinner), FALSE);
  if (!g_task_propagate_boolean (G_TASK (result), &error)) {
    if (!g_error_matches (error, G_IO_ERROR, G_IO_ERROR_CANCELLED))
      say (self, error->message);
    return;
  }
  if (work->run == run_verify) {
    said = g_strdup_printf (C_("toast", "%s is whole and unchanged"), name);
  } else if (work->run == run_export) {
    said = g_strdup_printf (C_("toast", "%s was exported"), name);
  } else {
    g_autofree char *freed = valise_size_format (work->freed_bytes);
    said = g_strdup_printf (C_("toast", "%s was removed: %s are free again"), name, freed);
  }
  say (self, said);
}

static void start_work (ValiseModelRow *self, gboolean (*run) (GTask *, gpointer, GError **), const char *path)
{
  g_autoptr (GTask) task = g_task_new (self, self->cancellable, on_work_done, NULL);
  Work *work = g_new0 (Work, 1);
  work->library = g_object_ref (valise_application_get_library (valise_app ()));
  work->model = g_object_ref (self->model);
  work->path = g_strdup (path);
  work->run = run;
  g_task_set_task_data (task, work, work_free);
  gtk_widget_set_visible (GTK_WIDGET (self->spinner), TRUE);
  gtk_spinner_start (self->spinner);
  g_task_run_in_thread (task, run_work);
}

/* ---- actions ------------------------------------------------------------------------------------------------------------------------------ */

static void show_details (GtkWidget *widget, const char *action, GVariant *parameter)
{
  ValiseModelRow *self = VALISE_MODEL_ROW (widget);
  gtk_window_present (GTK_WINDOW (valise_model_details_new (GTK_WINDOW (gtk_widget_get_root (widget)), self->model)));
}

static void verify (GtkWidget *widget, const char *action, GVariant *parameter)
{
  start_work (VALISE_MODEL_ROW (widget), run_verify, NULL);
}

static void on_export_chosen (ValiseModelRow *self, int response)
{
  g_autoptr (GFile) file = response == GTK_RESPONSE_ACCEPT ? gtk_file_chooser_get_file (GTK_FILE_CHOOSER (self->chooser)) : NULL;
  g_autofree char *path = file ? g_file_get_path (file) : NULL;
  if (path)
    start_work (self, run_export, path);
  g_clear_object (&self->chooser);
}

static void export (GtkWidget *widget, const char *action, GVariant *parameter)
{
  ValiseModelRow *self = VALISE_MODEL_ROW (widget);
  g_autofree char *name = g_strconcat (valise_model_get_name (self->model), ".gguf", NULL);
  g_clear_object (&self->chooser);
  self->chooser = gtk_file_chooser_native_new (C_("dialog", "Export GGUF"), GTK_WINDOW (gtk_widget_get_root (widget)),
                                               GTK_FILE_CHOOSER_ACTION_SAVE, C_("dialog", "_Export"), NULL);
  gtk_native_dialog_set_modal (GTK_NATIVE_DIALOG (self->chooser), TRUE);
  gtk_file_chooser_set_current_name (GTK_FILE_CHOOSER (self->chooser), g_strdelimit (name, "/", '-'));
  g_signal_connect_object (self->chooser, "response", G_CALLBACK (on_export_chosen), self, G_CONNECT_SWAPPED);
  gtk_native_dialog_show (GTK_NATIVE_DIALOG (self->chooser));
}

static void on_remove_answered (AdwMessageDialog *dialog, const char *response, ValiseModelRow *self)
{
  if (!g_str_equal (response, "remove"))
    return;
  ValiseRunner *runner = valise_application_get_runner (valise_app ());
  ValiseModel *loaded = valise_runner_get_model (runner);
  if (loaded && valise_model_get_id (loaded) == valise_model_get_id (self->model))
    valise_runner_unload (runner);
  start_work (self, run_remove, NULL);
}

static void ask_remove (GtkWidget *widget, const char *action, GVariant *parameter)
{
  ValiseModelRow *self = VALISE_MODEL_ROW (widget);
  g_autofree char *size = valise_size_format (valise_model_get_bytes (self->model));
  gboolean fit = valise_model_get_kind (self->model) == VALISE_MODEL_FIT;
  GtkWidget *dialog = adw_message_dialog_new (GTK_WINDOW (gtk_widget_get_root (widget)), NULL, NULL);
  adw_message_dialog_format_heading (ADW_MESSAGE_DIALOG (dialog), C_("dialog", "Remove %s?"), valise_model_get_name (self->model));
  adw_message_dialog_format_body (ADW_MESSAGE_DIALOG (dialog),
                                  fit ? C_("dialog", "This frees %s. It can be made again from its original.")
                                      : C_("dialog", "This frees at least %s. Its fits and its chats stay."), size);
  adw_message_dialog_add_responses (ADW_MESSAGE_DIALOG (dialog), "cancel", C_("dialog", "_Cancel"), "remove", C_("dialog", "_Remove"), NULL);
  adw_message_dialog_set_response_appearance (ADW_MESSAGE_DIALOG (dialog), "remove", ADW_RESPONSE_DESTRUCTIVE);
  adw_message_dialog_set_close_response (ADW_MESSAGE_DIALOG (dialog), "cancel");
  g_signal_connect_object (dialog, "response", G_CALLBACK (on_remove_answered), self, 0);
  gtk_window_present (GTK_WINDOW (dialog));
}

static void on_rename_answered (AdwMessageDialog *dialog, const char *response, ValiseModelRow *self)
{
  g_autoptr (GError) error = NULL;
  const char *name = gtk_editable_get_text (GTK_EDITABLE (adw_message_dialog_get_extra_child (dialog)));
  if (g_str_equal (response, "rename") && *name
      && !valise_library_rename (valise_application_get_library (valise_app ()), self->model, name, &error))
    say (self, error->message);
}

static void ask_rename (GtkWidget *widget, const char *action, GVariant *parameter)
{
  ValiseModelRow *self = VALISE_MODEL_ROW (widget);
  GtkWidget *dialog = adw_message_dialog_new (GTK_WINDOW (gtk_widget_get_root (widget)), C_("dialog", "Rename the model"), NULL);
  GtkWidget *entry = gtk_entry_new ();
  adw_message_dialog_add_responses (ADW_MESSAGE_DIALOG (dialog), "cancel", C_("dialog", "_Cancel"), "rename", C_("dialog", "_Rename"), NULL);
  adw_message_dialog_set_response_appearance (ADW_MESSAGE_DIALOG (dialog), "rename", ADW_RESPONSE_SUGGESTED);
  adw_message_dialog_set_default_response (ADW_MESSAGE_DIALOG (dialog), "rename");
  adw_message_dialog_set_close_response (ADW_MESSAGE_DIALOG (dialog), "cancel");
  gtk_editable_set_text (GTK_EDITABLE (entry), valise_model_get_name (self->model));
  gtk_entry_set_activates_default (GTK_ENTRY (entry), TRUE);
  gtk_accessible_update_property (GTK_ACCESSIBLE (entry), GTK_ACCESSIBLE_PROPERTY_LABEL, C_("dialog", "Name"), -1);
  adw_message_dialog_set_extra_child (ADW_MESSAGE_DIALOG (dialog), entry);
  g_signal_connect_object (dialog, "response", G_CALLBACK (on_rename_answered), self, 0);
  gtk_window_present (GTK_WINDOW (dialog));
}

static void dispose (GObject *object)
{
  ValiseModelRow *self = VALISE_MODEL_ROW (object);
  g_clear_object (&self->chooser);
  g_clear_object (&self->model);
  g_clear_object (&self->cancellable);
  G_OBJECT_CLASS (valise_model_row_parent_class)->dispose (object);
}

static void valise_model_row_class_init (ValiseModelRowClass *klass)
{
  GtkWidgetClass *widget_class = GTK_WIDGET_CLASS (klass);
  G_OBJECT_CLASS (klass)->dispose = dispose;
  gtk_widget_class_set_template_from_resource (widget_class, VALISE_RESOURCES "ui/model_row.ui");
  gtk_widget_class_bind_template_child (widget_class, ValiseModelRow, icon);
  gtk_widget_class_bind_template_child (widget_class, ValiseModelRow, spinner);
  gtk_widget_class_bind_template_child (widget_class, ValiseModelRow, chat_button);
  gtk_widget_class_install_action (widget_class, "model.details", NULL, show_details);
  gtk_widget_class_install_action (widget_class, "model.verify", NULL, verify);
  gtk_widget_class_install_action (widget_class, "model.export", NULL, export);
  gtk_widget_class_install_action (widget_class, "model.rename", NULL, ask_rename);
  gtk_widget_class_install_action (widget_class, "model.remove", NULL, ask_remove);
}

static void valise_model_row_init (ValiseModelRow *self)
{
  self->cancellable = g_cancellable_new ();
  gtk_widget_init_template (GTK_WIDGET (self));
}

GtkWidget *valise_model_row_new (ValiseModel *model)
{
  ValiseModelRow *self = g_object_new (VALISE_TYPE_MODEL_ROW, NULL);
  gboolean fit = valise_model_get_kind (model) == VALISE_MODEL_FIT;
  g_autofree char *title = g_markup_escape_text (valise_model_get_name (model), -1), *plain = describe (model);
  g_autofree char *subtitle = g_markup_escape_text (plain, -1);
  self->model = g_object_ref (model);
  adw_preferences_row_set_title (ADW_PREFERENCES_ROW (self), title);
  adw_action_row_set_subtitle (ADW_ACTION_ROW (self), subtitle);
  gtk_image_set_from_icon_name (self->icon, fit ? VALISE_APP_ID "-symbolic" : "package-x-generic-symbolic");
  gtk_actionable_set_action_target (GTK_ACTIONABLE (self->chat_button), "x", valise_model_get_id (model));
  return GTK_WIDGET (self);
}
