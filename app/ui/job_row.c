/* job_row.c: follows the job's properties; a failed job stays, with its sentence, until it is dismissed. */
#include "app/ui/job_row.h"

#include <glib/gi18n.h>

#include "app/ui/application.h"
#include "app/ui/progress_text.h"

struct _ValiseJobRow {
  GtkListBoxRow parent;
  GtkLabel *title_label, *detail_label;
  GtkProgressBar *progress;
  GtkButton *cancel_button;
  ValiseJob *job;
  gint64 started_us;
};

G_DEFINE_TYPE (ValiseJobRow, valise_job_row, GTK_TYPE_LIST_BOX_ROW)

char *valise_time_left (gint64 started_us, double fraction)
{
  double elapsed_s = (double) (g_get_monotonic_time () - started_us) / G_USEC_PER_SEC;
  if (fraction < 0.02 || fraction >= 1 || elapsed_s < 3)
    return g_strdup ("");
  double left_s = elapsed_s * (1 - fraction) / fraction;
  if (left_s < 55)
    return g_strdup_printf (C_("time", "about %u seconds left"), (guint) (left_s / 5 + 1) * 5);
  guint minutes = (guint) (left_s / 60 + 0.5);
  return g_strdup_printf (g_dngettext ("valise", "about %u minute left", "about %u minutes left", MAX (minutes, 1)), MAX (minutes, 1));
}

static char *title (ValiseJob *job)
{
  switch (valise_job_get_kind (job)) {
  case VALISE_JOB_IMPORT:
    return g_strdup_printf (C_("job", "Adding %s"), valise_job_get_title (job));
  case VALISE_JOB_ANALYSE:
    return g_strdup_printf (C_("job", "Analysing %s"), valise_job_get_title (job));
  case VALISE_JOB_FIT:
    break;
  }
  return g_strdup_printf (C_("job", "Fitting %s"), valise_job_get_title (job));
}

static void update (ValiseJobRow *self)
{
  gboolean failed = valise_job_get_state (self->job) == VALISE_JOB_FAILED;
  const char *tip = failed ? C_("job", "Dismiss") : C_("job", "Cancel");
  double fraction = valise_job_get_fraction (self->job);
  gtk_progress_bar_set_fraction (self->progress, fraction);
  gtk_widget_set_visible (GTK_WIDGET (self->progress), !failed);
  gtk_widget_set_tooltip_text (GTK_WIDGET (self->cancel_button), tip);
  gtk_accessible_update_property (GTK_ACCESSIBLE (self->cancel_button), GTK_ACCESSIBLE_PROPERTY_LABEL, tip, -1);
  if (failed) {
    gtk_label_set_text (self->detail_label, valise_job_get_error (self->job)->message);
    gtk_widget_add_css_class (GTK_WIDGET (self->detail_label), "error");
    gtk_widget_remove_css_class (GTK_WIDGET (self->detail_label), "dim-label");
    return;
  }
  g_autofree char *left = valise_time_left (self->started_us, fraction);
  g_autofree char *said = g_strdup_printf (C_("job", "%.0f%% · %s%s%s"), 100 * fraction,
                                           valise_progress_text (valise_job_get_detail (self->job)), *left ? " · " : "", left);
  gtk_label_set_text (self->detail_label, said);
}

static void on_cancel_clicked (ValiseJobRow *self)
{
  if (valise_job_get_state (self->job) == VALISE_JOB_FAILED)
    valise_application_dismiss_job (valise_app (), self->job);
  else
    valise_job_cancel (self->job);
}

static void dispose (GObject *object)
{
  g_clear_object (&VALISE_JOB_ROW (object)->job);
  G_OBJECT_CLASS (valise_job_row_parent_class)->dispose (object);
}

static void valise_job_row_class_init (ValiseJobRowClass *klass)
{
  GtkWidgetClass *widget_class = GTK_WIDGET_CLASS (klass);
  G_OBJECT_CLASS (klass)->dispose = dispose;
  gtk_widget_class_set_template_from_resource (widget_class, VALISE_RESOURCES "ui/job_row.ui");
  gtk_widget_class_bind_template_child (widget_class, ValiseJobRow, title_label);
  gtk_widget_class_bind_template_child (widget_class, ValiseJobRow, detail_label);
  gtk_widget_class_bind_template_child (widget_class, ValiseJobRow, progress);
  gtk_widget_class_bind_template_child (widget_class, ValiseJobRow, cancel_button);
  gtk_widget_class_bind_template_callback (widget_class, on_cancel_clicked);
}

static void valise_job_row_init (ValiseJobRow *self)
{
  self->started_us = g_get_monotonic_time ();
  gtk_widget_init_template (GTK_WIDGET (self));
}

GtkWidget *valise_job_row_new (ValiseJob *job)
{
  ValiseJobRow *self = g_object_new (VALISE_TYPE_JOB_ROW, NULL);
  g_autofree char *text = title (job);
  self->job = g_object_ref (job);
  gtk_label_set_text (self->title_label, text);
  g_signal_connect_object (job, "notify", G_CALLBACK (update), self, G_CONNECT_SWAPPED);
  update (self);
  return GTK_WIDGET (self);
}
