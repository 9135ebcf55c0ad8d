/* fit_wizard.c: moves through the steps, starts the job and follows it; the budget is a widget of its own. */
#include "app/ui/fit_wizard.h"

#include <glib/gi18n.h>
#include <math.h>

#include "app/ui/depth_map.h"
#include "app/ui/fit_budget.h"
#include "app/ui/job_row.h"
#include "app/ui/progress_text.h"
#include "app/ui/result_grid.h"

typedef enum { STEP_MODEL, STEP_BUDGET, STEP_FITTING, STEP_DONE, N_STEPS } Step;

struct _ValiseFitWizard {
  AdwWindow parent;
  GtkButton *back_button, *next_button, *chat_button;
  AdwWindowTitle *title;
  GtkStack *stack;
  AdwStatusPage *model_page, *done_page;
  GtkListBox *facts_list;
  GtkLabel *quantized_label, *detail_label, *time_label;
  ValiseFitBudget *budget;
  GtkProgressBar *progress;
  ValiseDepthMap *depth_map;
  GtkGrid *result_grid;

  Step step;
  ValiseModel *model;
  ValiseJob *job;
  gint64 started_us;
};

G_DEFINE_TYPE (ValiseFitWizard, valise_fit_wizard, ADW_TYPE_WINDOW)

static void update (ValiseFitWizard *self)
{
  static const char *const names[N_STEPS] = { "model", "budget", "fitting", "done" };
  const char *titles[N_STEPS] = { C_("fit step", "Model"), C_("fit step", "Budget"), C_("fit step", "Fitting"), C_("fit step", "Done") };
  g_autofree char *subtitle = g_strdup_printf (C_("fit step", "%d of %d · %s"), self->step + 1, N_STEPS, titles[self->step]);
  gboolean ready = FALSE;
  g_object_get (self->budget, "ready", &ready, NULL);
  gtk_stack_set_visible_child_name (self->stack, names[self->step]);
  adw_window_title_set_subtitle (self->title, subtitle);
  gtk_widget_set_visible (GTK_WIDGET (self->back_button), self->step == STEP_BUDGET || self->step == STEP_FITTING);
  gtk_button_set_label (self->back_button, self->step == STEP_FITTING ? C_("fit", "_Cancel") : C_("fit", "_Back"));
  gtk_button_set_label (self->next_button, self->step == STEP_BUDGET ? C_("fit", "_Fit") : self->step == STEP_DONE ? C_("fit", "_Close")
                                                                                                               : C_("fit", "_Next"));
  gtk_widget_set_visible (GTK_WIDGET (self->next_button), self->step != STEP_FITTING);
  /* At the end it is the chat that is suggested. */
  if (self->step == STEP_DONE)
    gtk_widget_remove_css_class (GTK_WIDGET (self->next_button), "suggested-action");
  else
    gtk_widget_add_css_class (GTK_WIDGET (self->next_button), "suggested-action");
  gtk_widget_set_sensitive (GTK_WIDGET (self->next_button), self->step != STEP_BUDGET || ready);
}

static void go (ValiseFitWizard *self, Step step)
{
  self->step = step;
  update (self);
}

/* ---- done ------------------------------------------------------------------------------------------------------------------------------------ */

static void show_result (ValiseFitWizard *self)
{
  const QzResult *result = valise_job_get_result (self->job);
  const ValisePlan *plan = valise_job_get_plan (self->job);
  GtkWidget *child;
  while ((child = gtk_widget_get_first_child (GTK_WIDGET (self->result_grid))))
    gtk_grid_remove (self->result_grid, child);
  adw_status_page_set_title (self->done_page, valise_model_get_name (valise_job_get_model (self->job)));
  guint seconds = (guint) MAX (round (result->seconds), 1);
  g_autofree char *took = g_strdup_printf (g_dngettext ("valise", "Fitted in %u second.", "Fitted in %u seconds.", seconds), seconds);
  adw_status_page_set_description (self->done_page, took);
  g_autofree char *size_promised = valise_size_format (plan->file_target_bytes), *size = valise_size_format (result->file_bytes);
  g_autofree char *bits_promised = g_strdup_printf ("%.2f", plan->bpw), *bits = g_strdup_printf ("%.2f", result->bpw);
  g_autofree char *kl_promised = g_strdup_printf ("%.3f", result->expected_kl), *kl = g_strdup_printf ("%.3f", result->kl_divergence);
  g_autofree char *same_promised = g_strdup_printf ("%.0f%%", 100 * plan->expected_top1);
  g_autofree char *same = g_strdup_printf ("%.0f%%", 100 * result->top1_agreement);
  g_autofree char *ram = valise_size_format (plan->memory.total_bytes);
  guint64 around = plan->memory.total_bytes - plan->memory.weights_bytes;
  g_autofree char *ram_measured = valise_size_format (around + result->file_bytes);
  valise_result_grid_begin (self->result_grid);
  valise_result_grid_add (self->result_grid, 1, C_("fit result", "File"), size_promised, size);
  valise_result_grid_add (self->result_grid, 2, C_("fit result", "Memory in a chat"), ram, ram_measured);
  valise_result_grid_add (self->result_grid, 3, C_("fit result", "Bits per weight"), bits_promised, bits);
  valise_result_grid_add (self->result_grid, 4, C_("fit result", "KL divergence"), kl_promised, kl);
  valise_result_grid_add (self->result_grid, 5, C_("fit result", "Words unchanged"), same_promised, same);
  go (self, STEP_DONE);
}

/* ---- fitting -------------------------------------------------------------------------------------------------------------------------------- */

static void on_job (ValiseFitWizard *self)
{
  double fraction = valise_job_get_fraction (self->job);
  g_autofree char *left = valise_time_left (self->started_us, fraction);
  g_autofree char *time = g_strdup_printf (*left ? "%.0f%% · %s" : "%.0f%%", 100 * fraction, left);
  ValiseJobState state = valise_job_get_state (self->job);
  gtk_progress_bar_set_fraction (self->progress, fraction);
  gtk_label_set_text (self->detail_label, valise_progress_text (valise_job_get_detail (self->job)));
  gtk_label_set_text (self->time_label, time);
  valise_depth_map_set_fraction (self->depth_map, fraction);
  if (state == VALISE_JOB_RUNNING)
    return;
  g_signal_handlers_disconnect_by_func (self->job, on_job, self);
  if (state == VALISE_JOB_DONE) {
    show_result (self);
    return;
  }
  if (state == VALISE_JOB_FAILED)
    valise_window_say (VALISE_WINDOW (gtk_window_get_transient_for (GTK_WINDOW (self))), valise_job_get_error (self->job)->message);
  g_clear_object (&self->job);
  go (self, STEP_BUDGET);
}

static void start (ValiseFitWizard *self)
{
  ValiseApplication *application = valise_app ();
  g_clear_object (&self->job);
  self->started_us = g_get_monotonic_time ();
  self->job = valise_job_fit (valise_application_get_library (application), self->model, valise_fit_budget_get_target (self->budget), NULL,
                              valise_fit_budget_get_calibration (self->budget));
  valise_application_add_job (application, self->job);
  valise_depth_map_set_target (self->depth_map, valise_fit_budget_get_curves (self->budget),
                               valise_fit_budget_get_plan (self->budget)->file_target_bytes);
  go (self, STEP_FITTING);
  g_signal_connect_object (self->job, "notify", G_CALLBACK (on_job), self, G_CONNECT_SWAPPED);
  on_job (self);
}

/* ---- buttons -------------------------------------------------------------------------------------------------------------------------------- */

static void on_next_clicked (ValiseFitWizard *self)
{
  if (self->step == STEP_MODEL)
    go (self, STEP_BUDGET);
  else if (self->step == STEP_BUDGET)
    start (self);
  else
    gtk_window_close (GTK_WINDOW (self));
}

static void on_back_clicked (ValiseFitWizard *self)
{
  if (self->step == STEP_BUDGET)
    go (self, STEP_MODEL);
  else if (self->job)
    valise_job_cancel (self->job);
}

static void on_chat_clicked (ValiseFitWizard *self)
{
  GtkWindow *window = gtk_window_get_transient_for (GTK_WINDOW (self));
  gtk_widget_activate_action (GTK_WIDGET (window), "win.chat-with-model", "x", valise_model_get_id (valise_job_get_model (self->job)));
  gtk_window_close (GTK_WINDOW (self));
}

/* ---- the model -------------------------------------------------------------------------------------------------------------------------------- */

static void add_fact (ValiseFitWizard *self, const char *name, const char *value)
{
  if (!value || !*value)
    return;
  GtkWidget *row = adw_action_row_new (), *label = gtk_label_new (value);
  adw_preferences_row_set_title (ADW_PREFERENCES_ROW (row), name);
  gtk_label_set_ellipsize (GTK_LABEL (label), PANGO_ELLIPSIZE_END);
  gtk_widget_add_css_class (label, "dim-label");
  adw_action_row_add_suffix (ADW_ACTION_ROW (row), label);
  gtk_list_box_append (self->facts_list, row);
}

static void show_model (ValiseFitWizard *self)
{
  ValiseModel *model = self->model;
  double bits = valise_model_get_bpw (model);
  g_autofree char *size = valise_size_format (valise_model_get_bytes (model));
  g_autofree char *parameters = g_strdup_printf (C_("fit", "%.1f million"), (double) valise_model_get_parameters (model) / 1e6);
  g_autofree char *kept = g_strdup_printf ("%.1f", bits), *context = g_strdup_printf (C_("fit", "%u tokens"), valise_model_get_context (model));
  adw_status_page_set_title (self->model_page, valise_model_get_name (model));
  add_fact (self, C_("fit", "Architecture"), valise_model_get_architecture (model));
  add_fact (self, C_("fit", "Licence"), valise_model_get_license (model));
  add_fact (self, C_("fit", "Parameters"), parameters);
  add_fact (self, C_("fit", "File"), size);
  add_fact (self, C_("fit", "Bits per weight"), kept);
  add_fact (self, C_("fit", "Longest context"), context);
  if (bits > 0 && bits < 15) {
    g_autofree char *said = g_strdup_printf (C_("fit", "Its publisher has packed this model to %.1f bits already. What that lost cannot come back: "
                                                       "the fit is compared with this file. If there is a version with 16 bits, it fits better."), bits);
    gtk_label_set_text (self->quantized_label, said);
    gtk_widget_set_visible (GTK_WIDGET (self->quantized_label), TRUE);
  }
}

static void dispose (GObject *object)
{
  ValiseFitWizard *self = VALISE_FIT_WIZARD (object);
  g_clear_object (&self->model);
  g_clear_object (&self->job);
  G_OBJECT_CLASS (valise_fit_wizard_parent_class)->dispose (object);
}

static void valise_fit_wizard_class_init (ValiseFitWizardClass *klass)
{
  GtkWidgetClass *widget_class = GTK_WIDGET_CLASS (klass);
  G_OBJECT_CLASS (klass)->dispose = dispose;
  g_type_ensure (VALISE_TYPE_FIT_BUDGET);
  g_type_ensure (VALISE_TYPE_DEPTH_MAP);
  gtk_widget_class_set_template_from_resource (widget_class, VALISE_RESOURCES "ui/fit_wizard.ui");
  gtk_widget_class_bind_template_child (widget_class, ValiseFitWizard, back_button);
  gtk_widget_class_bind_template_child (widget_class, ValiseFitWizard, next_button);
  gtk_widget_class_bind_template_child (widget_class, ValiseFitWizard, chat_button);
  gtk_widget_class_bind_template_child (widget_class, ValiseFitWizard, title);
  gtk_widget_class_bind_template_child (widget_class, ValiseFitWizard, stack);
  gtk_widget_class_bind_template_child (widget_class, ValiseFitWizard, model_page);
  gtk_widget_class_bind_template_child (widget_class, ValiseFitWizard, done_page);
  gtk_widget_class_bind_template_child (widget_class, ValiseFitWizard, facts_list);
  gtk_widget_class_bind_template_child (widget_class, ValiseFitWizard, quantized_label);
  gtk_widget_class_bind_template_child (widget_class, ValiseFitWizard, detail_label);
  gtk_widget_class_bind_template_child (widget_class, ValiseFitWizard, time_label);
  gtk_widget_class_bind_template_child (widget_class, ValiseFitWizard, budget);
  gtk_widget_class_bind_template_child (widget_class, ValiseFitWizard, progress);
  gtk_widget_class_bind_template_child (widget_class, ValiseFitWizard, depth_map);
  gtk_widget_class_bind_template_child (widget_class, ValiseFitWizard, result_grid);
  gtk_widget_class_bind_template_callback (widget_class, on_next_clicked);
  gtk_widget_class_bind_template_callback (widget_class, on_back_clicked);
  gtk_widget_class_bind_template_callback (widget_class, on_chat_clicked);
  gtk_widget_class_bind_template_callback (widget_class, update);
}

static void valise_fit_wizard_init (ValiseFitWizard *self)
{
  gtk_widget_init_template (GTK_WIDGET (self));
}

ValiseFitWizard *valise_fit_wizard_new (ValiseWindow *window, ValiseModel *model)
{
  ValiseFitWizard *self = g_object_new (VALISE_TYPE_FIT_WIZARD, "transient-for", window, "destroy-with-parent", TRUE, NULL);
  g_autoptr (ValiseModel) parent = valise_application_find_model (valise_app (), valise_model_get_parent (model));
  self->model = g_object_ref (parent ? parent : model);
  g_autofree char *title = g_strdup_printf (C_("fit", "Fit %s"), valise_model_get_name (self->model));
  adw_window_title_set_title (self->title, title);
  show_model (self);
  valise_fit_budget_set_model (self->budget, self->model);
  go (self, STEP_MODEL);
  return self;
}
