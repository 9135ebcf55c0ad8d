/* application.c: opens the library, keeps the jobs, takes files from the command line, and tells when a job has ended. */
#include "app/ui/application.h"

#include <glib/gi18n.h>

#include "app/ui/window.h"
#include "engine/memory_plan.h"

struct _ValiseApplication {
  AdwApplication parent;
  ValiseLibrary *library;
  ValiseRunner *runner;
  ValiseConversation *conversation;
  ValiseServing *serving;
  GListStore *jobs;
  int status;
};

enum { JOB_ENDED, N_SIGNALS };
static guint signals[N_SIGNALS];

G_DEFINE_TYPE (ValiseApplication, valise_application, ADW_TYPE_APPLICATION)

ValiseApplication *valise_app (void)
{
  return VALISE_APPLICATION (g_application_get_default ());
}

ValiseLibrary *valise_application_get_library (ValiseApplication *self)
{
  return self->library;
}

ValiseRunner *valise_application_get_runner (ValiseApplication *self)
{
  return self->runner;
}

ValiseConversation *valise_application_get_conversation (ValiseApplication *self)
{
  return self->conversation;
}

ValiseServing *valise_application_get_serving (ValiseApplication *self)
{
  return self->serving;
}

GListModel *valise_application_get_jobs (ValiseApplication *self)
{
  return G_LIST_MODEL (self->jobs);
}

guint64 valise_application_get_ram_limit (ValiseApplication *self)
{
  guint64 limit = g_settings_get_uint64 (valise_settings (), "ram-limit");
  if (limit)
    return limit;
  guint64 total, available;
  eng_memory_machine (&total, &available);
  /* What this program holds already is free for the next model. */
  return (available + eng_memory_rss ()) / 5 * 4;
}

ValiseModel *valise_application_find_model (ValiseApplication *self, gint64 id)
{
  g_autoptr (GPtrArray) models = id ? valise_library_list_models (self->library, NULL) : NULL;
  for (guint i = 0; models && i < models->len; i++)
    if (valise_model_get_id (g_ptr_array_index (models, i)) == id)
      return g_object_ref (g_ptr_array_index (models, i));
  return NULL;
}

/* ---- jobs ---------------------------------------------------------------------------------------------------------------------------- */

static void notify_end (ValiseApplication *self, ValiseJob *job)
{
  GtkWindow *window = gtk_application_get_active_window (GTK_APPLICATION (self));
  if (!g_settings_get_boolean (valise_settings (), "notify-jobs") || (window && gtk_window_is_active (window)))
    return;
  gboolean done = valise_job_get_state (job) == VALISE_JOB_DONE;
  g_autofree char *title = NULL;
  if (valise_job_get_kind (job) == VALISE_JOB_IMPORT)
    title = g_strdup_printf (done ? C_("notification", "%s was added") : C_("notification", "%s could not be added"),
                             valise_job_get_title (job));
  else
    title = g_strdup_printf (done ? C_("notification", "%s is ready") : C_("notification", "%s could not be fitted"),
                             valise_job_get_title (job));
  g_autoptr (GNotification) notification = g_notification_new (title);
  if (!done && valise_job_get_error (job))
    g_notification_set_body (notification, valise_job_get_error (job)->message);
  g_application_send_notification (G_APPLICATION (self), NULL, notification);
}

static void on_job_state (ValiseJob *job, GParamSpec *pspec, ValiseApplication *self)
{
  ValiseJobState state = valise_job_get_state (job);
  if (state == VALISE_JOB_RUNNING)
    return;
  g_signal_handlers_disconnect_by_func (job, on_job_state, self);
  if (state == VALISE_JOB_DONE || state == VALISE_JOB_FAILED)
    notify_end (self, job);
  g_signal_emit (self, signals[JOB_ENDED], 0, job);
  /* A failure stays until it has been read. */
  if (state != VALISE_JOB_FAILED)
    valise_application_dismiss_job (self, job);
  g_application_release (G_APPLICATION (self));
}

void valise_application_add_job (ValiseApplication *self, ValiseJob *job)
{
  g_list_store_insert (self->jobs, 0, job);
  g_application_hold (G_APPLICATION (self));
  g_signal_connect (job, "notify::state", G_CALLBACK (on_job_state), self);
}

void valise_application_dismiss_job (ValiseApplication *self, ValiseJob *job)
{
  guint position;
  if (g_list_store_find (self->jobs, job, &position))
    g_list_store_remove (self->jobs, position);
}

void valise_application_import (ValiseApplication *self, GFile *file)
{
  g_autofree char *path = g_file_get_path (file);
  if (path) {
    g_autoptr (ValiseJob) job = valise_job_import (self->library, path, NULL);
    valise_application_add_job (self, job);
    return;
  }
  g_autofree char *uri = g_file_get_uri (file);
  ValiseWindow *window = VALISE_WINDOW (gtk_application_get_active_window (GTK_APPLICATION (self)));
  g_autofree char *sentence = g_strdup_printf (_("%s is not on this computer; save it in a folder first"), uri);
  if (window)
    valise_window_say (window, sentence);
}

/* ---- the life of the program ------------------------------------------------------------------------------------------------------ */

static gboolean open_library (ValiseApplication *self)
{
  g_autoptr (GError) error = NULL;
  if (self->library)
    return TRUE;
  self->library = valise_library_open (NULL, &error);
  if (!self->library) {
    GtkWidget *dialog = adw_message_dialog_new (NULL, _("The library cannot be opened"), error->message);
    adw_message_dialog_add_response (ADW_MESSAGE_DIALOG (dialog), "close", _("_Close"));
    gtk_window_set_application (GTK_WINDOW (dialog), GTK_APPLICATION (self));
    gtk_window_present (GTK_WINDOW (dialog));
    g_printerr ("valise-gtk: %s\n", error->message);
    self->status = 1;
    return FALSE;
  }
  self->runner = valise_runner_new (self->library);
  self->conversation = valise_conversation_new (self->library, self->runner);
  self->serving = valise_serving_new (self->runner);
  return TRUE;
}

static void activate (GApplication *application)
{
  ValiseApplication *self = VALISE_APPLICATION (application);
  if (!open_library (self))
    return;
  GtkWindow *window = gtk_application_get_active_window (GTK_APPLICATION (self));
  if (!window)
    window = GTK_WINDOW (valise_window_new (self));
  gtk_window_present (window);
}

static void open_files (GApplication *application, GFile **files, int n_files, const char *hint)
{
  ValiseApplication *self = VALISE_APPLICATION (application);
  activate (application);
  if (!self->library)
    return;
  for (int i = 0; i < n_files; i++)
    valise_application_import (self, files[i]);
  ValiseWindow *window = VALISE_WINDOW (gtk_application_get_active_window (GTK_APPLICATION (self)));
  if (n_files > 0 && window)
    valise_window_show_models (window);
}

static void startup (GApplication *application)
{
  G_APPLICATION_CLASS (valise_application_parent_class)->startup (application);
  valise_application_add_actions (VALISE_APPLICATION (application));
  gtk_window_set_default_icon_name (VALISE_APP_ID);
}

static void shutdown (GApplication *application)
{
  ValiseApplication *self = VALISE_APPLICATION (application);
  for (guint i = 0; i < g_list_model_get_n_items (G_LIST_MODEL (self->jobs)); i++) {
    g_autoptr (ValiseJob) job = g_list_model_get_item (G_LIST_MODEL (self->jobs), i);
    g_signal_handlers_disconnect_by_func (job, on_job_state, self);
    if (valise_job_get_state (job) == VALISE_JOB_RUNNING)
      valise_job_cancel (job);
  }
  if (self->conversation)
    valise_conversation_flush (self->conversation);
  G_APPLICATION_CLASS (valise_application_parent_class)->shutdown (application);
}

static void finalize (GObject *object)
{
  ValiseApplication *self = VALISE_APPLICATION (object);
  g_clear_object (&self->serving);
  g_clear_object (&self->conversation);
  g_clear_object (&self->runner);
  g_clear_object (&self->library);
  g_clear_object (&self->jobs);
  G_OBJECT_CLASS (valise_application_parent_class)->finalize (object);
}

static void valise_application_class_init (ValiseApplicationClass *klass)
{
  GApplicationClass *application_class = G_APPLICATION_CLASS (klass);
  G_OBJECT_CLASS (klass)->finalize = finalize;
  application_class->startup = startup;
  application_class->activate = activate;
  application_class->open = open_files;
  application_class->shutdown = shutdown;
  signals[JOB_ENDED] = g_signal_new ("job-ended", G_TYPE_FROM_CLASS (klass), G_SIGNAL_RUN_LAST, 0, NULL, NULL, NULL, G_TYPE_NONE, 1,
                                     VALISE_TYPE_JOB);
}

static void valise_application_init (ValiseApplication *self)
{
  self->jobs = g_list_store_new (VALISE_TYPE_JOB);
}

ValiseApplication *valise_application_new (void)
{
  return g_object_new (VALISE_TYPE_APPLICATION, "application-id", VALISE_APP_ID, "flags", G_APPLICATION_HANDLES_OPEN,
                       "resource-base-path", "/io/github/valise_app/Valise", NULL);
}
