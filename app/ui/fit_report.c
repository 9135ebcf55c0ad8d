/* fit_report.c: the report is read on a thread; one page sums up, the other lists every matrix. */
#include "app/ui/fit_report.h"

#include <glib/gi18n.h>
#include <math.h>

#include "app/library/report.h"
#include "app/ui/matrix_map.h"
#include "app/ui/result_grid.h"
#include "app/ui/settings.h"

struct _ValiseFitReport {
  AdwWindow parent;
  GtkStack *waiting; /* a spinner, the report, or why there is none */
  AdwPreferencesPage *summary;
  GtkFlowBox *legend;
  GtkListView *list;
  AdwStatusPage *failure;
  ValiseReport *report;
  GCancellable *cancellable;
};

G_DEFINE_TYPE (ValiseFitReport, valise_fit_report, ADW_TYPE_WINDOW)

/* ---- words --------------------------------------------------------------------------------------------------------------------------------- */

/* The library knows no languages; its names of components are listed here for the translators. */
static const char *component_title (const char *title)
{
  static const char *const known[] = {
    NC_ ("component", "Token embedding"), NC_ ("component", "Output head"), NC_ ("component", "Attention, queries"), NC_ ("component", "Attention, keys"),
    NC_ ("component", "Attention, values"), NC_ ("component", "Attention, queries, keys and values"), NC_ ("component", "Attention, output"),
    NC_ ("component", "Feed-forward, gate"), NC_ ("component", "Feed-forward, up"), NC_ ("component", "Feed-forward, down"), NC_ ("component", "Experts, gate"),
    NC_ ("component", "Experts, up"), NC_ ("component", "Experts, down") };
  for (gsize i = 0; i < G_N_ELEMENTS (known); i++)
    if (g_str_equal (title, known[i]))
      return g_dpgettext2 (GETTEXT_PACKAGE, "component", title);
  return title;
}

/* Of a number that is not recorded: a dash. */
static char *number (double value, int digits, const char *unit)
{
  return isnan (value) ? g_strdup ("–") : g_strdup_printf ("%.*f%s", digits, value, unit);
}

/* ---- the summary --------------------------------------------------------------------------------------------------------------------------- */

static void add_promises (ValiseFitReport *self)
{
  const ValiseReport *report = self->report;
  AdwPreferencesGroup *group = ADW_PREFERENCES_GROUP (adw_preferences_group_new ());
  GtkGrid *grid = GTK_GRID (gtk_grid_new ());
  g_autofree char *size = valise_size_format (report->file_bytes), *bits = number (report->bpw, 2, ""), *promised = number (report->expected_kl, 4, "");
  g_autofree char *measured = number (report->measured_kl, 4, ""), *same = number (100 * report->measured_top1, 1, "%");
  g_autofree char *made_of = g_strdup_printf (C_("fit report", "%s: a fit of %s, calibrated on the text %s"),
                                              gtk_window_get_title (GTK_WINDOW (self)), report->source ? report->source : "–",
                                              report->calibration ? report->calibration : "–");
  g_autofree char *escaped = g_markup_escape_text (made_of, -1);
  adw_preferences_group_set_title (group, C_("fit report", "Promised and measured"));
  adw_preferences_group_set_description (group, escaped);
  gtk_grid_set_row_spacing (grid, 6);
  gtk_grid_set_column_spacing (grid, 12);
  gtk_widget_add_css_class (GTK_WIDGET (grid), "card");
  gtk_widget_add_css_class (GTK_WIDGET (grid), "result-card");
  valise_result_grid_begin (grid);
  valise_result_grid_add (grid, 1, C_("fit result", "KL divergence"), promised, measured);
  valise_result_grid_add (grid, 2, C_("fit result", "Words unchanged"), "–", same);
  valise_result_grid_add (grid, 3, C_("fit result", "Bits per weight"), "–", bits);
  valise_result_grid_add (grid, 4, C_("fit result", "File"), "–", size);
  adw_preferences_group_add (group, GTK_WIDGET (grid));
  adw_preferences_page_add (self->summary, group);
}

/* A name, a bar and the share in numbers: a line of a component's two. */
static void add_share (GtkGrid *grid, int row, const char *name, double share)
{
  GtkWidget *caption = gtk_label_new (name), *bar = gtk_level_bar_new_for_interval (0, 1);
  g_autofree char *text = number (100 * share, 1, "%"), *said = g_strdup_printf ("%s: %s", name, text);
  GtkWidget *value = gtk_label_new (text);
  gtk_level_bar_remove_offset_value (GTK_LEVEL_BAR (bar), GTK_LEVEL_BAR_OFFSET_LOW); /* much is not better than little */
  gtk_level_bar_remove_offset_value (GTK_LEVEL_BAR (bar), GTK_LEVEL_BAR_OFFSET_HIGH);
  gtk_level_bar_remove_offset_value (GTK_LEVEL_BAR (bar), GTK_LEVEL_BAR_OFFSET_FULL);
  gtk_level_bar_set_value (GTK_LEVEL_BAR (bar), isnan (share) ? 0 : CLAMP (share, 0, 1));
  gtk_widget_set_size_request (bar, 88, -1);
  gtk_widget_set_valign (bar, GTK_ALIGN_CENTER);
  gtk_label_set_xalign (GTK_LABEL (caption), 1);
  gtk_label_set_xalign (GTK_LABEL (value), 1);
  gtk_label_set_width_chars (GTK_LABEL (value), 6);
  gtk_widget_add_css_class (caption, "caption");
  gtk_widget_add_css_class (caption, "dim-label");
  gtk_widget_add_css_class (value, "caption");
  gtk_widget_add_css_class (value, "numeric");
  gtk_accessible_update_property (GTK_ACCESSIBLE (bar), GTK_ACCESSIBLE_PROPERTY_LABEL, said, -1);
  gtk_grid_attach (grid, caption, 0, row, 1, 1);
  gtk_grid_attach (grid, bar, 1, row, 1, 1);
  gtk_grid_attach (grid, value, 2, row, 1, 1);
}

static void add_component (AdwPreferencesGroup *group, const char *title, const char *subtitle, double bytes, double loss)
{
  GtkWidget *row = adw_action_row_new (), *grid = gtk_grid_new ();
  g_autofree char *escaped = g_markup_escape_text (title, -1);
  adw_preferences_row_set_title (ADW_PREFERENCES_ROW (row), escaped);
  adw_action_row_set_subtitle (ADW_ACTION_ROW (row), subtitle);
  gtk_grid_set_column_spacing (GTK_GRID (grid), 6);
  gtk_widget_set_valign (grid, GTK_ALIGN_CENTER);
  add_share (GTK_GRID (grid), 0, C_("fit report", "Bytes"), bytes);
  add_share (GTK_GRID (grid), 1, C_("fit report", "Loss"), loss);
  adw_action_row_add_suffix (ADW_ACTION_ROW (row), grid);
  adw_preferences_group_add (group, row);
}

static void add_components (ValiseFitReport *self)
{
  const ValiseReport *report = self->report;
  AdwPreferencesGroup *group = ADW_PREFERENCES_GROUP (adw_preferences_group_new ());
  adw_preferences_group_set_title (group, C_("fit report", "Where the bytes and the losses are"));
  adw_preferences_group_set_description (group, C_("fit report", "Shares of the file, and of what rounding is expected to lose"));
  for (guint i = 0; i < report->parts->len; i++) {
    const ValiseReportPart *part = &g_array_index (report->parts, ValiseReportPart, i);
    g_autofree char *size = valise_size_format (part->bytes), *subtitle = g_strdup_printf (C_("fit report", "%s · %.2f bits"), size, part->depth);
    add_component (group, component_title (part->title), subtitle, (double) part->bytes / (double) report->file_bytes, part->loss);
  }
  g_autofree char *size = valise_size_format (report->other_bytes), *subtitle = g_strdup_printf (C_("fit report", "%s · exact"), size);
  add_component (group, C_("component", "Vocabulary, norms, everything else"), subtitle, (double) report->other_bytes / (double) report->file_bytes, 0);
  adw_preferences_page_add (self->summary, group);
}

/* ---- every matrix -------------------------------------------------------------------------------------------------------------------------- */

static void add_legend (ValiseFitReport *self)
{
  for (guint depth = 0; depth <= VALISE_REPORT_MOST_DEPTH; depth++) {
    if (self->report->at_depth[depth] <= 0)
      continue;
    GtkWidget *box = gtk_box_new (GTK_ORIENTATION_HORIZONTAL, 6), *sample = valise_matrix_map_new ();
    g_autofree char *bits = g_strdup_printf (g_dngettext ("valise", "%u bit", "%u bits", depth), depth);
    /* Translators: a depth such as "3 bits", then how many of all weights have it. */
    g_autofree char *text = g_strdup_printf (C_("fit report", "%s: %.1f%% of the weights"), bits, 100 * self->report->at_depth[depth]);
    GtkWidget *label = gtk_label_new (text);
    valise_matrix_map_set_depth (VALISE_MATRIX_MAP (sample), depth);
    gtk_widget_set_valign (sample, GTK_ALIGN_CENTER);
    gtk_widget_add_css_class (label, "caption");
    gtk_box_append (GTK_BOX (box), sample);
    gtk_box_append (GTK_BOX (box), label);
    gtk_flow_box_append (self->legend, box);
  }
  for (GtkWidget *child = gtk_widget_get_first_child (GTK_WIDGET (self->legend)); child; child = gtk_widget_get_next_sibling (child))
    gtk_widget_set_focusable (child, FALSE);
}

static void on_setup (GtkSignalListItemFactory *factory, GtkListItem *item, ValiseFitReport *self)
{
  GtkWidget *box = gtk_box_new (GTK_ORIENTATION_VERTICAL, 3), *name = gtk_label_new (NULL), *facts = gtk_label_new (NULL);
  gtk_label_set_xalign (GTK_LABEL (name), 0);
  gtk_label_set_xalign (GTK_LABEL (facts), 0);
  gtk_label_set_ellipsize (GTK_LABEL (name), PANGO_ELLIPSIZE_MIDDLE);
  gtk_label_set_wrap (GTK_LABEL (facts), TRUE);
  gtk_widget_add_css_class (facts, "caption");
  gtk_widget_add_css_class (facts, "dim-label");
  gtk_widget_add_css_class (facts, "numeric");
  gtk_widget_add_css_class (box, "detail");
  gtk_box_append (GTK_BOX (box), name);
  gtk_box_append (GTK_BOX (box), facts);
  gtk_box_append (GTK_BOX (box), valise_matrix_map_new ());
  gtk_list_item_set_child (item, box);
  gtk_list_item_set_activatable (item, FALSE);
}

static void on_bind (GtkSignalListItemFactory *factory, GtkListItem *item, ValiseFitReport *self)
{
  const ValiseReportMatrix *matrix = g_ptr_array_index (self->report->matrices, gtk_list_item_get_position (item));
  GtkWidget *name = gtk_widget_get_first_child (gtk_list_item_get_child (item)), *facts = gtk_widget_get_next_sibling (name);
  g_autofree char *loss = number (100 * matrix->loss, 2, "%");
  /* Translators: outputs × inputs of a matrix, its mean depth, its share of the loss such as "0.42%". */
  const char *encoded = C_("fit report", "%u × %u · %.2f bits · %s of the loss");
  /* Translators: the same of a matrix that the model, quantized already, had in so few bits: it loses nothing. */
  const char *kept = C_("fit report", "%u × %u · %.2f bits · as the original has it");
  g_autofree char *text = matrix->kept ? g_strdup_printf (kept, matrix->rows, matrix->cols, matrix->depth)
                                       : g_strdup_printf (encoded, matrix->rows, matrix->cols, matrix->depth, loss);
  gtk_label_set_text (GTK_LABEL (name), matrix->name);
  gtk_label_set_text (GTK_LABEL (facts), text);
  valise_matrix_map_set_matrix (VALISE_MATRIX_MAP (gtk_widget_get_next_sibling (facts)), matrix);
}

static void fill_list (ValiseFitReport *self)
{
  GtkStringList *names = gtk_string_list_new (NULL);
  GtkListItemFactory *factory = gtk_signal_list_item_factory_new ();
  for (guint i = 0; i < self->report->matrices->len; i++)
    gtk_string_list_append (names, ((ValiseReportMatrix *) self->report->matrices->pdata[i])->name);
  g_signal_connect_object (factory, "setup", G_CALLBACK (on_setup), self, 0);
  g_signal_connect_object (factory, "bind", G_CALLBACK (on_bind), self, 0);
  gtk_list_view_set_factory (self->list, factory);
  g_object_unref (factory);
  g_autoptr (GtkNoSelection) model = gtk_no_selection_new (G_LIST_MODEL (names));
  gtk_list_view_set_model (self->list, GTK_SELECTION_MODEL (model));
}

/* ---- reading ------------------------------------------------------------------------------------------------------------------------------- */

static void read_on_thread (GTask *task, gpointer source, gpointer model, GCancellable *cancellable)
{
  GError *error = NULL;
  ValiseReport *report = valise_report_read (model, &error);
  if (report)
    g_task_return_pointer (task, report, (GDestroyNotify) valise_report_free);
  else
    g_task_return_error (task, error);
}

static void on_read (GObject *source, GAsyncResult *result, gpointer data)
{
  ValiseFitReport *self = VALISE_FIT_REPORT (source);
  g_autoptr (GError) error = NULL;
  self->report = g_task_propagate_pointer (G_TASK (result), &error);
  if (g_error_matches (error, G_IO_ERROR, G_IO_ERROR_CANCELLED))
    return;
  if (!self->report) {
    adw_status_page_set_description (self->failure, error->message);
    gtk_stack_set_visible_child_name (self->waiting, "failure");
    return;
  }
  add_promises (self);
  add_components (self);
  add_legend (self);
  fill_list (self);
  gtk_stack_set_visible_child_name (self->waiting, "report");
}

/* ---- the window ---------------------------------------------------------------------------------------------------------------------------- */

static void dispose (GObject *object)
{
  ValiseFitReport *self = VALISE_FIT_REPORT (object);
  g_cancellable_cancel (self->cancellable);
  g_clear_object (&self->cancellable);
  G_OBJECT_CLASS (valise_fit_report_parent_class)->dispose (object);
}

static void finalize (GObject *object)
{
  valise_report_free (VALISE_FIT_REPORT (object)->report);
  G_OBJECT_CLASS (valise_fit_report_parent_class)->finalize (object);
}

static void valise_fit_report_class_init (ValiseFitReportClass *klass)
{
  GtkWidgetClass *widget_class = GTK_WIDGET_CLASS (klass);
  G_OBJECT_CLASS (klass)->dispose = dispose;
  G_OBJECT_CLASS (klass)->finalize = finalize;
  gtk_widget_class_set_template_from_resource (widget_class, VALISE_RESOURCES "ui/fit_report.ui");
  gtk_widget_class_bind_template_child (widget_class, ValiseFitReport, waiting);
  gtk_widget_class_bind_template_child (widget_class, ValiseFitReport, summary);
  gtk_widget_class_bind_template_child (widget_class, ValiseFitReport, legend);
  gtk_widget_class_bind_template_child (widget_class, ValiseFitReport, list);
  gtk_widget_class_bind_template_child (widget_class, ValiseFitReport, failure);
}

static void valise_fit_report_init (ValiseFitReport *self)
{
  self->cancellable = g_cancellable_new ();
  gtk_widget_init_template (GTK_WIDGET (self));
}

ValiseFitReport *valise_fit_report_new (GtkWindow *parent, ValiseModel *model)
{
  ValiseFitReport *self = g_object_new (VALISE_TYPE_FIT_REPORT, "transient-for", parent, "destroy-with-parent", TRUE, NULL);
  g_autoptr (GTask) task = g_task_new (self, self->cancellable, on_read, NULL);
  gtk_window_set_title (GTK_WINDOW (self), valise_model_get_name (model));
  g_task_set_task_data (task, g_object_ref (model), g_object_unref);
  g_task_run_in_thread (task, read_on_thread);
  return self;
}
