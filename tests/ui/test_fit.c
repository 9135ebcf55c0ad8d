/* test_fit.c: the wizard: the slider answers at once, the fit runs and shows how far it is, keeps its promise, and can be left alone. */
#include "tests/ui/ui_case.h"

#include <string.h>

#include "app/ui/fit_budget.h"
#include "app/ui/job_row.h"
#include "tests/fixtures/tiny_model.h"

static void add_tiny (UiCase *c)
{
  TinyModel tiny = TINY_MODEL_DEFAULTS;
  g_autofree char *path = tiny_model_path ("tiny.gguf");
  tiny_model_write (&tiny, path);
  g_object_unref (ui_import (c, path, "Tiny"));
}

static GtkWindow *open_wizard (UiCase *c)
{
  g_autoptr (ValiseModel) model = valise_library_find_model (c->library, "Tiny", NULL);
  ui_activate (c, "win.fit-model", "x", valise_model_get_id (model));
  ui_wait (ui_dialog (c));
  GtkWindow *wizard = ui_dialog (c);
  g_assert_true (ui_shows (wizard, "1 of 4"));
  return wizard;
}

static GtkWindow *open_budget (UiCase *c)
{
  GtkWindow *wizard = open_wizard (c);
  ui_click (ui_find (wizard, "next_button"));
  g_assert_true (ui_shows (wizard, "2 of 4"));
  ui_wait (gtk_widget_is_sensitive (ui_find (wizard, "next_button")));
  return wizard;
}

static void test_model (UiCase *c)
{
  GtkWindow *wizard = open_wizard (c);
  g_assert_true (ui_shows (wizard, "llama"));
  g_assert_true (ui_shows (wizard, "256 tokens"));
  g_assert_null (ui_find (wizard, "back_button"));
  ui_click (ui_find (wizard, "next_button"));
  ui_click (ui_find (wizard, "back_button"));
  g_assert_true (ui_shows (wizard, "1 of 4"));
  gtk_window_close (wizard);
}

/* Each move is planned when the signal returns. */
static void test_slider (UiCase *c)
{
  GtkWindow *wizard = open_budget (c);
  ValiseFitBudget *budget = ui_find (wizard, "budget");
  GtkAdjustment *ram = gtk_range_get_adjustment (ui_find (wizard, "ram_scale"));
  double low = gtk_adjustment_get_lower (ram), high = gtk_adjustment_get_upper (ram), kl = 1e9;
  guint64 weights = 0;
  g_assert_true (ui_shows (wizard, "This is an estimate"));
  for (int i = 0; i <= 4; i++) {
    gtk_adjustment_set_value (ram, low + (high - low) * i / 4);
    const ValisePlan *plan = valise_fit_budget_get_plan (budget);
    g_assert_cmpuint (plan->memory.total_bytes, <=, (guint64) gtk_adjustment_get_value (ram));
    g_assert_cmpuint (plan->memory.weights_bytes, >=, weights);
    g_assert_cmpfloat (plan->expected_kl, <=, kl);
    weights = plan->memory.weights_bytes;
    kl = plan->expected_kl;
    g_autofree char *shown = valise_size_format (plan->memory.total_bytes);
    g_assert_true (ui_shows (ui_find (wizard, "memory_label"), shown));
  }
  ui_picture (wizard, "fit-budget-tiny");
  /* A cache of fewer bits leaves more of the budget to the weights. */
  guint64 kv = valise_fit_budget_get_plan (budget)->memory.kv_bytes;
  adw_expander_row_set_expanded (ui_find_type (wizard, ADW_TYPE_EXPANDER_ROW), TRUE);
  adw_combo_row_set_selected (ui_find (wizard, "kv_row"), 2);
  g_assert_cmpuint (valise_fit_budget_get_plan (budget)->memory.kv_bytes, <, kv);
  g_assert_cmpint (valise_fit_budget_get_target (budget)->quality, ==, QZ_QUALITY_USUAL);
  gtk_switch_set_active (ui_find (wizard, "quality_switch"), TRUE);
  g_assert_cmpint (valise_fit_budget_get_target (budget)->quality, ==, QZ_QUALITY_BEST);
  ui_picture (wizard, "fit-advanced");
  gtk_switch_set_active (ui_find (wizard, "quality_switch"), FALSE);
  /* Written by hand, in any of the forms a size has; too small is said, with the smallest. */
  gtk_editable_set_text (ui_find (wizard, "ram_entry"), "1M");
  g_signal_emit_by_name (ui_find (wizard, "ram_entry"), "activate");
  g_assert_true (ui_shows (wizard, "the smallest possible is"));
  g_assert_false (gtk_widget_is_sensitive (ui_find (wizard, "next_button")));
  ui_picture (wizard, "fit-too-small");
  gtk_editable_set_text (ui_find (wizard, "ram_entry"), "300MiB");
  g_signal_emit_by_name (ui_find (wizard, "ram_entry"), "activate");
  g_assert_true (gtk_widget_is_sensitive (ui_find (wizard, "next_button")));
  g_assert_cmpuint (valise_fit_budget_get_target (budget)->ram_bytes, ==, 300u << 20);
  gtk_window_close (wizard);
}

static void test_fit (UiCase *c)
{
  GtkWindow *wizard = open_budget (c);
  double last = 0;
  gboolean moved = FALSE, pictured = FALSE;
  ui_click (ui_find (wizard, "next_button"));
  g_assert_true (ui_shows (wizard, "3 of 4"));
  g_assert_cmpuint (g_list_model_get_n_items (valise_application_get_jobs (c->application)), ==, 1);
  while (!ui_find (wizard, "chat_button")) {
    gpointer bar = ui_find (wizard, "progress");
    double fraction = bar ? gtk_progress_bar_get_fraction (bar) : 1;
    g_assert_cmpfloat (fraction, >=, last);
    moved |= fraction > 0 && fraction < 1;
    last = fraction;
    if (moved && !pictured)
      ui_picture (wizard, "fit-fitting-tiny");
    pictured |= moved;
    ui_run_for (5);
  }
  g_assert_true (moved);
  g_assert_true (ui_shows (wizard, "4 of 4"));
  g_assert_true (ui_shows (wizard, "Promised"));
  g_assert_true (ui_shows (wizard, "Measured"));
  ui_picture (wizard, "fit-done-tiny");
  ui_click (ui_find (wizard, "chat_button"));
  ui_wait (!ui_dialog (c));
  ui_ask (c, "hello");
  g_autoptr (GPtrArray) models = valise_library_list_models (c->library, NULL);
  g_assert_cmpuint (models->len, ==, 2);
  g_assert_cmpint (valise_model_get_kind (g_ptr_array_index (models, 1)), ==, VALISE_MODEL_FIT);
}

static void test_cancel (UiCase *c)
{
  GtkWindow *wizard = open_budget (c);
  ui_click (ui_find (wizard, "next_button"));
  ui_click (ui_find (wizard, "back_button"));
  ui_wait (ui_shows (wizard, "2 of 4"));
  ui_wait (g_list_model_get_n_items (valise_application_get_jobs (c->application)) == 0);
  g_autoptr (GPtrArray) models = valise_library_list_models (c->library, NULL);
  g_assert_cmpuint (models->len, ==, 1);
  gtk_window_close (wizard);
}

static void start_fit (UiCase *c)
{
  GtkWindow *wizard = open_budget (c);
  ui_click (ui_find (wizard, "next_button"));
}

/* The wizard and the window go; the fit stays, and the program with it until it is done. */
static void test_close (UiCase *c)
{
  start_fit (c);
  gtk_window_close (ui_dialog (c));
  ui_activate (c, "win.show-models", NULL);
  g_assert_nonnull (ui_find_type (c->window, VALISE_TYPE_JOB_ROW));
  gtk_window_close (GTK_WINDOW (c->window));
  g_assert_null (c->window);
}

/* The window first: the wizard goes with it, and finds nobody to tell when the fit ends. */
static void test_close_under_wizard (UiCase *c)
{
  start_fit (c);
  gtk_window_close (GTK_WINDOW (c->window));
  g_assert_null (c->window);
  g_assert_null (ui_dialog (c));
}

static void check_fitted (UiCase *c)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (GPtrArray) models = valise_library_list_models (c->library, NULL);
  g_assert_cmpuint (models->len, ==, 2);
  g_assert_true (valise_library_verify (c->library, g_ptr_array_index (models, 1), NULL, NULL, NULL, &error));
  g_assert_no_error (error);
}

/* Quit means quit: nothing half done is left. */
static void test_quit (UiCase *c)
{
  start_fit (c);
  g_application_quit (G_APPLICATION (c->application));
}

static void check_not_fitted (UiCase *c)
{
  g_autoptr (GPtrArray) models = valise_library_list_models (c->library, NULL);
  g_assert_cmpuint (models->len, ==, 1);
}

int main (int argc, char **argv)
{
  ui_init (&argc, &argv);
  ui_add ("/ui/fit/model", add_tiny, test_model, NULL);
  ui_add ("/ui/fit/slider-answers-at-once", add_tiny, test_slider, NULL);
  ui_add ("/ui/fit/promise-and-result", add_tiny, test_fit, NULL);
  ui_add ("/ui/fit/cancel", add_tiny, test_cancel, NULL);
  ui_add ("/ui/fit/goes-on-without-a-window", add_tiny, test_close, check_fitted);
  ui_add ("/ui/fit/goes-on-when-its-wizard-goes-with-the-window", add_tiny, test_close_under_wizard, check_fitted);
  ui_add ("/ui/fit/quit-leaves-nothing", add_tiny, test_quit, check_not_fitted);
  return ui_run ();
}
