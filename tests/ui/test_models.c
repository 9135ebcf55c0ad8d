/* test_models.c: files become models; models are looked at, verified, renamed, exported to no harm, and removed. */
#include "tests/ui/ui_case.h"

#include <glib/gstdio.h>
#include <string.h>

#include "app/ui/fit_report.h"
#include "app/ui/job_row.h"
#include "app/ui/matrix_map.h"
#include "app/ui/model_row.h"

static gpointer row_of (UiCase *c, const char *name)
{
  g_autoptr (GPtrArray) rows = ui_find_all (c->window, VALISE_TYPE_MODEL_ROW);
  for (guint i = 0; i < rows->len; i++)
    if (ui_shows (g_ptr_array_index (rows, i), name))
      return g_ptr_array_index (rows, i);
  return NULL;
}

static void import (UiCase *c, const char *path)
{
  g_autoptr (GFile) file = g_file_new_for_path (path);
  valise_application_import (c->application, file);
}

static void add_liner (UiCase *c)
{
  g_autofree char *path = ui_write_liner (2);
  g_object_unref (ui_import (c, path, "Liner"));
}

static void test_import (UiCase *c)
{
  g_autofree char *path = ui_write_liner (2);
  ui_activate (c, "win.show-models", NULL);
  g_assert_true (ui_shows (c->window, "No models yet"));
  ui_picture (c->window, "models-empty");
  import (c, path);
  g_assert_cmpuint (g_list_model_get_n_items (valise_application_get_jobs (c->application)), ==, 1);
  ui_wait (row_of (c, "liner-2"));
  ui_wait (g_list_model_get_n_items (valise_application_get_jobs (c->application)) == 0);
  g_assert_true (ui_shows (c->window, "liner-2 was added"));
  g_assert_true (ui_shows (row_of (c, "liner-2"), "llama"));
  ui_picture (c->window, "models-added");
  /* The toast leads on to the fit. */
  ui_click (ui_find_labelled (c->window, "Fit to my RAM"));
  ui_wait (ui_dialog (c));
  g_assert_true (ui_shows (ui_dialog (c), "Fit liner-2"));
  gtk_window_close (ui_dialog (c));
}

static void test_import_fails (UiCase *c)
{
  g_autofree char *path = g_build_filename (c->home, "broken.gguf", NULL);
  g_assert_true (g_file_set_contents (path, "GGUF? No.", -1, NULL));
  ui_activate (c, "win.show-models", NULL);
  import (c, path);
  /* The sentence stays until it has been read. */
  ui_wait (ui_find_labelled (c->window, "Dismiss"));
  gpointer row = ui_find_type (c->window, VALISE_TYPE_JOB_ROW);
  g_assert_true (ui_shows (row, "broken.gguf"));
  ui_picture (c->window, "import-failed");
  ui_click (ui_find_labelled (c->window, "Dismiss"));
  ui_wait (ui_shows (c->window, "No models yet"));
}

static void test_details (UiCase *c)
{
  ui_activate (c, "win.show-models", NULL);
  gtk_widget_activate_action (row_of (c, "Liner"), "model.details", NULL);
  ui_wait (ui_dialog (c));
  GtkWindow *dialog = ui_dialog (c);
  g_autoptr (ValiseModel) model = valise_library_find_model (c->library, "Liner", NULL);
  g_assert_true (ui_shows (dialog, valise_model_get_sha256 (model)));
  g_assert_true (ui_shows (dialog, valise_model_get_path (model)));
  g_assert_true (ui_shows (dialog, "256 tokens"));
  ui_picture (dialog, "details-tiny");
  gtk_window_close (dialog);
}

/* A fit as it is made by the command, of a short text. */
static void add_fit (UiCase *c)
{
  const ValiseTarget target = { .bpw = 4 };
  g_autoptr (GError) error = NULL;
  g_autofree char *path = ui_write_liner (2), *text = g_build_filename (c->home, "words.txt", NULL);
  g_autoptr (GString) words = g_string_new (NULL);
  g_autoptr (ValiseModel) liner = ui_import (c, path, "Liner");
  for (guint i = 0; i < 3000; i++)
    g_string_append_printf (words, "%u quick jolts, ", i * i % 97);
  g_assert_true (g_file_set_contents (text, words->str, -1, NULL));
  g_autoptr (ValiseModel) fit = valise_library_fit (c->library, liner, &target, "Small", text, NULL, NULL, NULL, NULL, NULL, &error);
  g_assert_no_error (error);
  g_assert_nonnull (fit);
}

/* From a fit's details: promised and measured, each component, and the depths within every matrix. */
static void test_report (UiCase *c)
{
  ui_activate (c, "win.show-models", NULL);
  gtk_widget_activate_action (row_of (c, "Liner"), "model.details", NULL);
  ui_wait (ui_dialog (c));
  GtkWindow *plain = ui_dialog (c);
  g_assert_null (ui_find_labelled (plain, "Report"));
  gtk_window_close (plain);
  ui_wait (!ui_dialog (c));
  gtk_widget_activate_action (row_of (c, "Small"), "model.details", NULL);
  ui_wait (ui_dialog (c));
  GtkWindow *details = ui_dialog (c), *report = NULL;
  ui_click (ui_find_labelled (details, "Report"));
  g_autoptr (GList) windows = gtk_window_list_toplevels ();
  for (GList *item = windows; item; item = item->next)
    report = VALISE_IS_FIT_REPORT (item->data) ? item->data : report;
  g_assert_nonnull (report);
  ui_wait (ui_shows (report, "Promised and measured"));
  g_autoptr (ValiseModel) model = valise_library_find_model (c->library, "Small", NULL);
  g_autofree char *kl = g_strdup_printf ("%.4f", valise_model_get_kl (model)), *size = valise_size_format (valise_model_get_bytes (model));
  g_assert_true (ui_shows (report, "Small: a fit of Liner"));
  g_assert_true (ui_shows (report, kl));
  g_assert_true (ui_shows (report, size));
  g_assert_true (ui_shows (report, "Token embedding"));
  g_assert_true (ui_shows (report, "Feed-forward, down"));
  g_assert_true (ui_shows (report, "Vocabulary, norms, everything else"));
  g_autoptr (GPtrArray) bars = ui_find_all (report, GTK_TYPE_LEVEL_BAR);
  double bytes = 0, loss = 0;
  for (guint i = 0; i < bars->len; i++)
    *(i % 2 ? &loss : &bytes) += gtk_level_bar_get_value (bars->pdata[i]);
  g_assert_cmpfloat_with_epsilon (bytes, 1, 1e-6);
  g_assert_cmpfloat_with_epsilon (loss, 1, 1e-3);
  ui_picture (report, "report");
  adw_view_stack_set_visible_child_name (ui_find (report, "pages"), "depths");
  ui_wait (ui_shows (report, "token_embd.weight"));
  g_assert_true (ui_shows (report, "of the weights"));
  g_assert_nonnull (ui_find_type (report, VALISE_TYPE_MATRIX_MAP));
  ui_picture (report, "report-depths");
  gtk_window_close (report);
  gtk_window_close (details);
}

static void flip_a_bit (const char *path)
{
  g_autofree char *data = NULL;
  gsize size;
  g_assert_true (g_file_get_contents (path, &data, &size, NULL));
  data[size - 100] ^= 4;
  /* In place: what is verified is the very file. */
  g_assert_cmpint (g_chmod (path, 0600), ==, 0);
  FILE *file = g_fopen (path, "r+b");
  g_assert_nonnull (file);
  g_assert_cmpuint (fwrite (data, 1, size, file), ==, size);
  fclose (file);
}

static void test_verify (UiCase *c)
{
  ui_activate (c, "win.show-models", NULL);
  gtk_widget_activate_action (row_of (c, "Liner"), "model.verify", NULL);
  ui_wait (ui_shows (c->window, "Liner is whole and unchanged"));
  g_autoptr (ValiseModel) model = valise_library_find_model (c->library, "Liner", NULL);
  flip_a_bit (valise_model_get_path (model));
  gtk_widget_activate_action (row_of (c, "Liner"), "model.verify", NULL);
  /* In the place of the first toast, once that has gone. */
  ui_wait (ui_shows (c->window, "import it again"));
}

static void test_rename (UiCase *c)
{
  ui_activate (c, "win.show-models", NULL);
  gtk_widget_activate_action (row_of (c, "Liner"), "model.rename", NULL);
  ui_wait (ui_dialog (c));
  AdwMessageDialog *dialog = ADW_MESSAGE_DIALOG (ui_dialog (c));
  gtk_editable_set_text (GTK_EDITABLE (adw_message_dialog_get_extra_child (dialog)), "Poet");
  adw_message_dialog_response (dialog, "rename");
  gtk_window_close (GTK_WINDOW (dialog));
  ui_wait (row_of (c, "Poet"));
  g_assert_null (row_of (c, "Liner"));
}

static void test_remove (UiCase *c)
{
  g_autoptr (ValiseModel) model = valise_library_find_model (c->library, "Liner", NULL);
  /* In use, and removed all the same. */
  ui_ask (c, "hello");
  ui_activate (c, "win.show-models", NULL);
  gtk_widget_activate_action (row_of (c, "Liner"), "model.remove", NULL);
  ui_wait (ui_dialog (c));
  g_assert_true (ui_shows (ui_dialog (c), "Remove Liner?"));
  g_assert_true (ui_shows (ui_dialog (c), "frees"));
  ui_picture (ui_dialog (c), "remove");
  adw_message_dialog_response (ADW_MESSAGE_DIALOG (ui_dialog (c)), "remove");
  gtk_window_close (ui_dialog (c));
  ui_wait (ui_shows (c->window, "No models yet"));
  ui_wait (ui_shows (c->window, "are free again"));
  g_assert_false (g_file_test (valise_model_get_path (model), G_FILE_TEST_EXISTS));
  /* What was said with it stays. */
  g_autoptr (GPtrArray) chats = valise_library_list_chats (c->library, NULL, NULL);
  g_assert_cmpuint (chats->len, ==, 1);
}

static void test_chat (UiCase *c)
{
  ui_activate (c, "win.show-models", NULL);
  ui_click (ui_find_labelled (row_of (c, "Liner"), "Chat"));
  ui_wait (ui_shows (c->window, "What is on your mind?"));
  ui_ask (c, "hello");
}

int main (int argc, char **argv)
{
  ui_init (&argc, &argv);
  ui_add ("/ui/models/import", NULL, test_import, NULL);
  ui_add ("/ui/models/failed-import-stays", NULL, test_import_fails, NULL);
  ui_add ("/ui/models/details", add_liner, test_details, NULL);
  ui_add ("/ui/models/report", add_fit, test_report, NULL);
  ui_add ("/ui/models/verify", add_liner, test_verify, NULL);
  ui_add ("/ui/models/rename", add_liner, test_rename, NULL);
  ui_add ("/ui/models/remove", add_liner, test_remove, NULL);
  ui_add ("/ui/models/chat", add_liner, test_chat, NULL);
  return ui_run ();
}
