/* fit_budget.c: the curves are read once on a thread; every move of a slider is a binary search in them. */
#include "app/ui/fit_budget.h"
#include "engine/checkpoint/checkpoint.h"

#include <glib/gi18n.h>
#include <math.h>

#include "app/ui/application.h"
#include "app/ui/fit_plot.h"
#include "app/ui/progress_text.h"
#include "engine/memory_plan.h"
#include "engine/workers.h"
#include "kernels/cpu.h"

#define LEAST_CONTEXT_LOG2 8
#define USUAL_CONTEXT_LOG2 12
/* More than any model needs: asks for the largest plan. */
#define EVERYTHING (G_GUINT64_CONSTANT (1) << 50)

struct _ValiseFitBudget {
  AdwBin parent;
  GtkLabel *machine_label, *context_label, *expected_label, *memory_label, *error_label;
  GtkAdjustment *ram_adjustment, *context_adjustment;
  GtkScale *ram_scale, *context_scale;
  GtkEntry *ram_entry;
  ValiseFitPlot *plot;
  GtkBox *estimate_box, *result_box;
  GtkButton *analyse_button, *calibration_button, *calibration_clear_button;
  GtkProgressBar *analyse_bar;
  AdwComboRow *kv_row;
  GtkSwitch *quality_switch;
  AdwActionRow *calibration_row;

  ValiseModel *model;
  QzCurves *curves;
  EngTraits traits;
  ValiseTarget target;
  ValisePlan plan;
  ValiseJob *analysis;
  char *calibration;
  GtkFileChooserNative *chooser;
  GCancellable *cancellable;
  gboolean ready, setting, placed;
};

enum { PROP_READY = 1, N_PROPS };
static GParamSpec *properties[N_PROPS];

G_DEFINE_TYPE (ValiseFitBudget, valise_fit_budget, ADW_TYPE_BIN)

static void read_curves (ValiseFitBudget *self);

/* ---- the plan ------------------------------------------------------------------------------------------------------------------------------ */

static void set_ready (ValiseFitBudget *self, gboolean ready)
{
  if (self->ready == ready)
    return;
  self->ready = ready;
  g_object_notify_by_pspec (G_OBJECT (self), properties[PROP_READY]);
}

static void show_error (ValiseFitBudget *self, const char *sentence)
{
  gtk_label_set_text (self->error_label, sentence ? sentence : "");
  gtk_widget_set_visible (GTK_WIDGET (self->error_label), sentence != NULL);
  gtk_widget_set_visible (GTK_WIDGET (self->result_box), sentence == NULL);
  if (sentence)
    valise_fit_plot_set_plan (self->plot, NULL, 0, self->target.quality);
  set_ready (self, sentence == NULL && self->curves);
}

static guint chosen_context (ValiseFitBudget *self)
{
  guint context = 1u << (guint) gtk_adjustment_get_value (self->context_adjustment);
  return MIN (context, MAX (self->traits.n_ctx_train, 1));
}

/* What the slider can mean with this context: from the smallest fit to 8 bits everywhere, as far as the computer goes. */
static void set_range (ValiseFitBudget *self)
{
  ValiseTarget target = self->target;
  ValisePlan plan;
  guint64 total, available;
  target.ram_bytes = EVERYTHING;
  if (!valise_plan_with_curves (self->curves, &self->traits, &target, &plan, NULL))
    return;
  eng_memory_machine (&total, &available);
  double smallest = (double) plan.smallest_ram_bytes, largest = (double) MIN (plan.memory.total_bytes, MAX (total, plan.smallest_ram_bytes));
  double value = gtk_adjustment_get_value (self->ram_adjustment), step = pow (10, floor (log10 (MAX (largest - smallest, 10) / 100)));
  if (!self->placed)
    value = smallest + (largest - smallest) * 0.45;
  self->placed = TRUE;
  self->setting = TRUE;
  gtk_adjustment_configure (self->ram_adjustment, CLAMP (value, smallest, largest), smallest, MAX (largest, smallest + 1), step, step * 10, 0);
  self->setting = FALSE;
}

static void say_plan (ValiseFitBudget *self)
{
  const ValisePlan *plan = &self->plan;
  const EngMemoryPlan *memory = &plan->memory;
  g_autofree char *weights = valise_size_format (memory->weights_bytes), *kv = valise_size_format (memory->kv_bytes);
  g_autofree char *scratch = valise_size_format (memory->scratch_bytes), *program = valise_size_format (memory->program_bytes);
  g_autofree char *total = valise_size_format (memory->total_bytes), *budget = valise_size_format (self->target.ram_bytes);
  g_autofree char *parts = g_strdup_printf (C_("fit", "weights %s at %.1f bits · conversation %s · scratch %s · program %s · total %s of %s"),
                                            weights, plan->bpw, kv, scratch, program, total, budget);
  g_autofree char *unchanged = g_strdup_printf (C_("fit", "%.0f%% of next words unchanged"), 100 * plan->expected_top1);
  g_autofree char *speed = g_strdup_printf (C_("fit", "about %.*f tokens/s here"), plan->expected_tokens_per_second < 10 ? 1 : 0,
                                            plan->expected_tokens_per_second);
  gboolean fast = isfinite (plan->expected_tokens_per_second) && plan->expected_tokens_per_second > 0;
  g_autofree char *expected = g_strdup_printf ("%s%s%s", unchanged, fast ? " · " : "", fast ? speed : "");
  gtk_label_set_text (self->memory_label, parts);
  gtk_label_set_text (self->expected_label, expected);
  gtk_accessible_update_property (GTK_ACCESSIBLE (self->plot), GTK_ACCESSIBLE_PROPERTY_LABEL, expected, -1);
  gtk_widget_set_visible (GTK_WIDGET (self->estimate_box), plan->is_estimate && !self->analysis);
}

static void plan_now (ValiseFitBudget *self)
{
  g_autoptr (GError) error = NULL;
  if (!valise_plan_with_curves (self->curves, &self->traits, &self->target, &self->plan, &error)) {
    show_error (self, error->message);
    return;
  }
  show_error (self, NULL);
  say_plan (self);
  valise_fit_plot_set_plan (self->plot, &self->plan, self->plan.file_target_bytes, self->target.quality);
}

/* Context, KV bits or quality changed: what around the weights is needed is another. */
static void replan (ValiseFitBudget *self)
{
  static const int kv_bits[] = { 16, 8, 4 };
  if (!self->curves || self->setting)
    return;
  self->target.context = chosen_context (self);
  self->target.kv_bits = kv_bits[MIN (adw_combo_row_get_selected (self->kv_row), 2)];
  self->target.quality = gtk_switch_get_active (self->quality_switch) ? QZ_QUALITY_BEST : QZ_QUALITY_USUAL;
  self->target.threads = g_settings_get_uint (valise_settings (), "threads");
  if (!self->target.threads)
    self->target.threads = eng_workers_default_count ();
  self->target.program_base_bytes = valise_program_base_bytes (TRUE);
  g_autofree char *context = g_strdup_printf (C_("fit", "%u tokens"), self->target.context);
  gtk_label_set_text (self->context_label, context);
  set_range (self);
  self->target.ram_bytes = (guint64) gtk_adjustment_get_value (self->ram_adjustment);
  g_autofree char *ram = valise_size_format (self->target.ram_bytes);
  gtk_editable_set_text (GTK_EDITABLE (self->ram_entry), ram);
  plan_now (self);
}

static void on_ram_scale (ValiseFitBudget *self)
{
  if (!self->curves || self->setting)
    return;
  self->target.ram_bytes = (guint64) gtk_adjustment_get_value (self->ram_adjustment);
  g_autofree char *text = valise_size_format (self->target.ram_bytes);
  gtk_editable_set_text (GTK_EDITABLE (self->ram_entry), text);
  plan_now (self);
}

static void on_ram_entry (ValiseFitBudget *self)
{
  g_autoptr (GError) error = NULL;
  guint64 bytes;
  g_autofree char *shown = valise_size_format (self->target.ram_bytes);
  const char *text = gtk_editable_get_text (GTK_EDITABLE (self->ram_entry));
  if (!self->curves || g_str_equal (text, shown))
    return;
  if (!valise_size_parse (text, &bytes, &error)) {
    show_error (self, error->message);
    return;
  }
  /* Said as written, even beyond the slider: then the plan says what is the smallest. */
  self->target.ram_bytes = bytes;
  self->setting = TRUE;
  gtk_adjustment_set_value (self->ram_adjustment, (double) bytes);
  self->setting = FALSE;
  plan_now (self);
}

/* ---- the curves ---------------------------------------------------------------------------------------------------------------------------- */

typedef struct {
  ValiseLibrary *library;
  ValiseModel *model;
  EngTraits traits;
} Reading;

static void reading_free (gpointer data)
{
  Reading *reading = data;
  g_object_unref (reading->library);
  g_object_unref (reading->model);
  g_free (reading);
}

static void read_on_thread (GTask *task, gpointer source, gpointer data, GCancellable *cancellable)
{
  Reading *reading = data;
  GError *error = NULL;
  g_autoptr (EngGguf) gguf = eng_checkpoint_open (valise_model_get_path (reading->model), &error);
  QzCurves *curves = gguf && eng_traits_read (&reading->traits, gguf, &error)
                       ? valise_library_get_curves (reading->library, reading->model, &error) : NULL;
  if (curves)
    g_task_return_pointer (task, curves, (GDestroyNotify) qz_curves_unref);
  else
    g_task_return_error (task, error);
}

static void on_curves_read (GObject *source, GAsyncResult *result, gpointer data)
{
  ValiseFitBudget *self = VALISE_FIT_BUDGET (source);
  Reading *reading = g_task_get_task_data (G_TASK (result));
  g_autoptr (GError) error = NULL;
  QzCurves *curves = g_task_propagate_pointer (G_TASK (result), &error);
  if (!curves) {
    if (!g_error_matches (error, G_IO_ERROR, G_IO_ERROR_CANCELLED))
      show_error (self, error->message);
    return;
  }
  g_clear_pointer (&self->curves, qz_curves_unref);
  self->curves = curves;
  self->traits = reading->traits;
  double most = floor (log2 (MAX (self->traits.n_ctx_train, 1u << LEAST_CONTEXT_LOG2)));
  self->setting = TRUE;
  gtk_adjustment_set_upper (self->context_adjustment, most);
  if (!self->placed)
    gtk_adjustment_set_value (self->context_adjustment, MIN (most, USUAL_CONTEXT_LOG2));
  self->setting = FALSE;
  valise_fit_plot_set_curves (self->plot, curves);
  replan (self);
}

static void read_curves (ValiseFitBudget *self)
{
  g_autoptr (GTask) task = g_task_new (self, self->cancellable, on_curves_read, NULL);
  Reading *reading = g_new0 (Reading, 1);
  reading->library = g_object_ref (valise_application_get_library (valise_app ()));
  reading->model = g_object_ref (self->model);
  g_task_set_task_data (task, reading, reading_free);
  g_task_run_in_thread (task, read_on_thread);
}

/* ---- the analysis ---------------------------------------------------------------------------------------------------------------------------- */

static void on_analysis (ValiseFitBudget *self)
{
  ValiseJobState state = valise_job_get_state (self->analysis);
  gtk_progress_bar_set_fraction (self->analyse_bar, valise_job_get_fraction (self->analysis));
  gtk_progress_bar_set_text (self->analyse_bar, valise_progress_text (valise_job_get_detail (self->analysis)));
  if (state == VALISE_JOB_RUNNING)
    return;
  if (state == VALISE_JOB_FAILED)
    show_error (self, valise_job_get_error (self->analysis)->message);
  g_signal_handlers_disconnect_by_func (self->analysis, on_analysis, self);
  g_clear_object (&self->analysis);
  gtk_widget_set_visible (GTK_WIDGET (self->analyse_bar), FALSE);
  if (state == VALISE_JOB_DONE)
    read_curves (self);
  else
    gtk_widget_set_visible (GTK_WIDGET (self->estimate_box), TRUE);
}

static void on_analyse_clicked (ValiseFitBudget *self)
{
  self->analysis = valise_job_analyse (valise_application_get_library (valise_app ()), self->model, self->calibration);
  valise_application_add_job (valise_app (), self->analysis);
  g_signal_connect_object (self->analysis, "notify", G_CALLBACK (on_analysis), self, G_CONNECT_SWAPPED);
  gtk_widget_set_visible (GTK_WIDGET (self->estimate_box), FALSE);
  gtk_widget_set_visible (GTK_WIDGET (self->analyse_bar), TRUE);
}

/* ---- the calibration text -------------------------------------------------------------------------------------------------------------------- */

static void set_calibration (ValiseFitBudget *self, const char *path)
{
  g_free (self->calibration);
  self->calibration = g_strdup (path);
  g_autofree char *escaped = path ? g_markup_escape_text (path, -1) : NULL;
  adw_action_row_set_subtitle (self->calibration_row, path ? escaped : C_("fit", "Bundled: prose, chat, code and two dozen languages"));
  gtk_widget_set_visible (GTK_WIDGET (self->calibration_clear_button), path != NULL);
}

static void on_calibration_chosen (ValiseFitBudget *self, int response)
{
  g_autoptr (GFile) file = response == GTK_RESPONSE_ACCEPT ? gtk_file_chooser_get_file (GTK_FILE_CHOOSER (self->chooser)) : NULL;
  g_autofree char *path = file ? g_file_get_path (file) : NULL;
  if (path)
    set_calibration (self, path);
  g_clear_object (&self->chooser);
}

static void on_calibration_clicked (ValiseFitBudget *self)
{
  g_clear_object (&self->chooser);
  self->chooser = gtk_file_chooser_native_new (C_("fit", "Calibration text"), GTK_WINDOW (gtk_widget_get_root (GTK_WIDGET (self))),
                                               GTK_FILE_CHOOSER_ACTION_OPEN, C_("fit", "_Choose"), NULL);
  gtk_native_dialog_set_modal (GTK_NATIVE_DIALOG (self->chooser), TRUE);
  g_signal_connect_object (self->chooser, "response", G_CALLBACK (on_calibration_chosen), self, G_CONNECT_SWAPPED);
  gtk_native_dialog_show (GTK_NATIVE_DIALOG (self->chooser));
}

static void on_calibration_clear (ValiseFitBudget *self)
{
  set_calibration (self, NULL);
}

/* ---- the widget -------------------------------------------------------------------------------------------------------------------------------- */

const ValiseTarget *valise_fit_budget_get_target (ValiseFitBudget *self)
{
  return &self->target;
}

const ValisePlan *valise_fit_budget_get_plan (ValiseFitBudget *self)
{
  return &self->plan;
}

QzCurves *valise_fit_budget_get_curves (ValiseFitBudget *self)
{
  return self->curves;
}

const char *valise_fit_budget_get_calibration (ValiseFitBudget *self)
{
  return self->calibration;
}

void valise_fit_budget_set_model (ValiseFitBudget *self, ValiseModel *model)
{
  g_set_object (&self->model, model);
  read_curves (self);
}

static void say_machine (ValiseFitBudget *self)
{
  guint64 total, available;
  eng_memory_machine (&total, &available);
  g_autofree char *all = valise_size_format (total), *left = valise_size_format (available);
  guint n = eng_workers_default_count ();
  g_autofree char *threads = g_strdup_printf (g_dngettext ("valise", "%u processor", "%u processors", n), n);
  g_autofree char *text = g_strdup_printf (C_("fit", "This computer: %s of memory, %s free, %s, %s"), all, left, threads,
                                           xb_isa_name (xb_cpu_selected ()));
  gtk_label_set_text (self->machine_label, text);
}

static void get_property (GObject *object, guint id, GValue *value, GParamSpec *pspec)
{
  if (id == PROP_READY)
    g_value_set_boolean (value, VALISE_FIT_BUDGET (object)->ready);
  else
    G_OBJECT_WARN_INVALID_PROPERTY_ID (object, id, pspec);
}

static void dispose (GObject *object)
{
  ValiseFitBudget *self = VALISE_FIT_BUDGET (object);
  g_cancellable_cancel (self->cancellable);
  g_clear_object (&self->cancellable);
  g_clear_object (&self->chooser);
  g_clear_object (&self->analysis);
  g_clear_object (&self->model);
  g_clear_pointer (&self->curves, qz_curves_unref);
  g_clear_pointer (&self->calibration, g_free);
  G_OBJECT_CLASS (valise_fit_budget_parent_class)->dispose (object);
}

static void valise_fit_budget_class_init (ValiseFitBudgetClass *klass)
{
  GObjectClass *object_class = G_OBJECT_CLASS (klass);
  GtkWidgetClass *widget_class = GTK_WIDGET_CLASS (klass);
  object_class->get_property = get_property;
  object_class->dispose = dispose;
  properties[PROP_READY] = g_param_spec_boolean ("ready", NULL, NULL, FALSE, G_PARAM_READABLE | G_PARAM_STATIC_STRINGS);
  g_object_class_install_properties (object_class, N_PROPS, properties);
  g_type_ensure (VALISE_TYPE_FIT_PLOT);
  gtk_widget_class_set_template_from_resource (widget_class, VALISE_RESOURCES "ui/fit_budget.ui");
  gtk_widget_class_bind_template_child (widget_class, ValiseFitBudget, machine_label);
  gtk_widget_class_bind_template_child (widget_class, ValiseFitBudget, context_label);
  gtk_widget_class_bind_template_child (widget_class, ValiseFitBudget, expected_label);
  gtk_widget_class_bind_template_child (widget_class, ValiseFitBudget, memory_label);
  gtk_widget_class_bind_template_child (widget_class, ValiseFitBudget, error_label);
  gtk_widget_class_bind_template_child (widget_class, ValiseFitBudget, ram_adjustment);
  gtk_widget_class_bind_template_child (widget_class, ValiseFitBudget, context_adjustment);
  gtk_widget_class_bind_template_child (widget_class, ValiseFitBudget, ram_scale);
  gtk_widget_class_bind_template_child (widget_class, ValiseFitBudget, context_scale);
  gtk_widget_class_bind_template_child (widget_class, ValiseFitBudget, ram_entry);
  gtk_widget_class_bind_template_child (widget_class, ValiseFitBudget, plot);
  gtk_widget_class_bind_template_child (widget_class, ValiseFitBudget, estimate_box);
  gtk_widget_class_bind_template_child (widget_class, ValiseFitBudget, result_box);
  gtk_widget_class_bind_template_child (widget_class, ValiseFitBudget, analyse_button);
  gtk_widget_class_bind_template_child (widget_class, ValiseFitBudget, analyse_bar);
  gtk_widget_class_bind_template_child (widget_class, ValiseFitBudget, calibration_button);
  gtk_widget_class_bind_template_child (widget_class, ValiseFitBudget, calibration_clear_button);
  gtk_widget_class_bind_template_child (widget_class, ValiseFitBudget, kv_row);
  gtk_widget_class_bind_template_child (widget_class, ValiseFitBudget, quality_switch);
  gtk_widget_class_bind_template_child (widget_class, ValiseFitBudget, calibration_row);
  gtk_widget_class_bind_template_callback (widget_class, on_ram_scale);
  gtk_widget_class_bind_template_callback (widget_class, on_ram_entry);
  gtk_widget_class_bind_template_callback (widget_class, replan);
  gtk_widget_class_bind_template_callback (widget_class, on_analyse_clicked);
  gtk_widget_class_bind_template_callback (widget_class, on_calibration_clicked);
  gtk_widget_class_bind_template_callback (widget_class, on_calibration_clear);
}

static void valise_fit_budget_init (ValiseFitBudget *self)
{
  self->cancellable = g_cancellable_new ();
  gtk_widget_init_template (GTK_WIDGET (self));
  GtkEventController *focus = gtk_event_controller_focus_new ();
  g_signal_connect_object (focus, "leave", G_CALLBACK (on_ram_entry), self, G_CONNECT_SWAPPED);
  gtk_widget_add_controller (GTK_WIDGET (self->ram_entry), focus);
  say_machine (self);
}
