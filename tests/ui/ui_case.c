/* ui_case.c: see ui_case.h. */
#include "tests/ui/ui_case.h"

#include <glib/gi18n.h>
#include <glib/gstdio.h>
#include <gtksourceview/gtksource.h>
#include <locale.h>
#include <string.h>

#include "app/library/files.h"
#include "app/ui/markdown_view.h"
#include "app/ui/message_row.h"
#include "app/ui/resources.h"
#include "tests/fixtures/tiny_model.h"

#define WATCHDOG_US (300 * G_USEC_PER_SEC)

typedef struct {
  UiCase shared;
  UiBody prepare, body, check;
  gboolean ran;
} Case;

static GPtrArray *cases;

/* ---- a case from beginning to end ---- */

static void on_activate (GApplication *application, Case *c)
{
  if (c->ran)
    return;
  c->ran = TRUE;
  c->shared.application = VALISE_APPLICATION (application);
  c->shared.library = valise_application_get_library (c->shared.application);
  c->shared.window = VALISE_WINDOW (gtk_application_get_active_window (GTK_APPLICATION (application)));
  g_assert_nonnull (c->shared.window);
  g_object_add_weak_pointer (G_OBJECT (c->shared.window), (gpointer *) &c->shared.window);
  g_application_hold (application);
  c->body (&c->shared);
  g_application_release (application);
  if (c->shared.window) {
    gtk_window_close (GTK_WINDOW (c->shared.window));
    g_application_quit (application);
  }
}

static void with_library (Case *c, UiBody body)
{
  g_autoptr (GError) error = NULL;
  if (!body)
    return;
  c->shared.library = valise_library_open (NULL, &error);
  g_assert_no_error (error);
  body (&c->shared);
  g_clear_object (&c->shared.library);
}

static void reset_settings (void)
{
  g_autoptr (GSettingsSchema) schema = NULL;
  g_object_get (valise_settings (), "settings-schema", &schema, NULL);
  g_auto (GStrv) keys = g_settings_schema_list_keys (schema);
  for (guint i = 0; keys[i]; i++)
    g_settings_reset (valise_settings (), keys[i]);
  /* Nobody is there to show one. */
  g_settings_set_boolean (valise_settings (), "notify-jobs", FALSE);
}

static void run_case (gconstpointer data)
{
  Case *c = (Case *) data;
  g_autoptr (GError) error = NULL;
  const char *given = g_getenv ("VALISE_UI_HOME");
  c->shared.home = given ? g_strdup (given) : g_dir_make_tmp ("valise-ui-XXXXXX", &error);
  g_assert_no_error (error);
  g_setenv ("VALISE_HOME", c->shared.home, TRUE);
  reset_settings ();
  with_library (c, c->prepare);
  ValiseApplication *application = valise_application_new ();
  /* Not unique on the bus: the tests' programs may follow each other faster than its names do. */
  g_application_set_flags (G_APPLICATION (application), G_APPLICATION_HANDLES_OPEN | G_APPLICATION_NON_UNIQUE);
  g_signal_connect_after (application, "activate", G_CALLBACK (on_activate), c);
  char *argv[] = { (char *) "valise-gtk", NULL };
  g_assert_cmpint (g_application_run (G_APPLICATION (application), 1, argv), ==, 0);
  g_assert_true (c->ran);
  /* Work on other threads ends, and then nothing of the program is left but what is in the library. */
  g_object_add_weak_pointer (G_OBJECT (application), (gpointer *) &application);
  g_object_unref (application);
  ui_wait (!application);
  with_library (c, c->check);
  if (!given)
    valise_remove_tree (c->shared.home);
  g_clear_pointer (&c->shared.home, g_free);
}

void ui_add (const char *path, UiBody prepare, UiBody body, UiBody check)
{
  Case *c = g_new0 (Case, 1);
  c->prepare = prepare;
  c->body = body;
  c->check = check;
  g_ptr_array_add (cases, c);
  g_test_add_data_func (path, c, run_case);
}

void ui_init (int *argc, char ***argv)
{
  g_autoptr (GError) error = NULL;
  cases = g_ptr_array_new_with_free_func (g_free);
  g_test_init (argc, argv, NULL);
  if (g_getenv ("UI_LOCALE_DIR")) {
    setlocale (LC_ALL, "");
    bindtextdomain (GETTEXT_PACKAGE, g_getenv ("UI_LOCALE_DIR"));
    bind_textdomain_codeset (GETTEXT_PACKAGE, "UTF-8");
    textdomain (GETTEXT_PACKAGE);
  }
  g_assert_true (valise_settings_check (&error));
  valise_ui_register_resource ();
  gtk_init ();
  gtk_source_init ();
  g_object_set (gtk_settings_get_default (), "gtk-enable-animations", FALSE, "gtk-font-name", "Cantarell 11",
                "gtk-decoration-layout", ":close", NULL);
}

int ui_run (void)
{
  int status = g_test_run ();
  g_ptr_array_unref (cases);
  tiny_model_clean ();
  return status;
}

/* ---- the clock ---- */

static gboolean wake (gpointer data)
{
  return G_SOURCE_CONTINUE;
}

void ui_step (gint64 since, const char *condition, const char *file, int line)
{
  if (g_get_monotonic_time () - since > WATCHDOG_US)
    g_error ("%s:%d: waited in vain for %s", file, line, condition);
  guint waker = g_timeout_add (5, wake, NULL);
  g_main_context_iteration (NULL, TRUE);
  g_source_remove (waker);
}

void ui_run_for (guint milliseconds)
{
  gint64 end = g_get_monotonic_time () + milliseconds * G_GINT64_CONSTANT (1000);
  ui_wait (g_get_monotonic_time () >= end);
}

static void on_painted (GdkFrameClock *clock, guint *left)
{
  if (*left)
    --*left;
}

void ui_settle (gpointer widget)
{
  GdkFrameClock *clock = gtk_widget_get_frame_clock (widget);
  guint left = 3;
  g_assert_nonnull (clock);
  gulong handler = g_signal_connect (clock, "after-paint", G_CALLBACK (on_painted), &left);
  gint64 since = g_get_monotonic_time ();
  while (left) {
    gtk_widget_queue_draw (widget);
    ui_step (since, "a frame", __FILE__, __LINE__);
  }
  g_signal_handler_disconnect (clock, handler);
}

/* ---- eyes ---- */

typedef gboolean (*Match) (GtkWidget *widget, gconstpointer data);

/* In order, depth first; what is hidden is not there. */
static void collect (GtkWidget *root, Match match, gconstpointer data, GPtrArray *found)
{
  if (!gtk_widget_get_visible (root) || !gtk_widget_get_child_visible (root))
    return;
  if (match (root, data))
    g_ptr_array_add (found, root);
  for (GtkWidget *child = gtk_widget_get_first_child (root); child; child = gtk_widget_get_next_sibling (child))
    collect (child, match, data, found);
}

static gpointer first (gpointer root, Match match, gconstpointer data)
{
  g_autoptr (GPtrArray) found = g_ptr_array_new ();
  g_assert_nonnull (root);
  collect (root, match, data, found);
  return found->len ? g_ptr_array_index (found, 0) : NULL;
}

static gboolean has_id (GtkWidget *widget, gconstpointer id)
{
  return g_strcmp0 (gtk_buildable_get_buildable_id (GTK_BUILDABLE (widget)), id) == 0;
}

static gboolean has_type (GtkWidget *widget, gconstpointer type)
{
  return g_type_is_a (G_OBJECT_TYPE (widget), *(const GType *) type);
}

static gboolean is_word (const char *shown, const char *label)
{
  g_auto (GStrv) parts = g_strsplit (shown ? shown : "", "_", -1);
  g_autofree char *plain = g_strjoinv ("", parts);
  return g_strcmp0 (plain, label) == 0;
}

static gboolean has_label (GtkWidget *widget, gconstpointer label)
{
  if (GTK_IS_BUTTON (widget) && is_word (gtk_button_get_label (GTK_BUTTON (widget)), label))
    return TRUE;
  if (ADW_IS_PREFERENCES_ROW (widget) && is_word (adw_preferences_row_get_title (ADW_PREFERENCES_ROW (widget)), label))
    return TRUE;
  return (GTK_IS_BUTTON (widget) || GTK_IS_MENU_BUTTON (widget)) && is_word (gtk_widget_get_tooltip_text (widget), label);
}

static gboolean has_words (GtkWidget *widget, gconstpointer words)
{
  return GTK_IS_LABEL (widget) && strstr (gtk_label_get_text (GTK_LABEL (widget)), words);
}

gpointer ui_find (gpointer root, const char *id)
{
  return first (root, has_id, id);
}

gpointer ui_find_type (gpointer root, GType type)
{
  return first (root, has_type, &type);
}

gpointer ui_find_labelled (gpointer root, const char *label)
{
  return first (root, has_label, label);
}

GPtrArray *ui_find_all (gpointer root, GType type)
{
  GPtrArray *found = g_ptr_array_new ();
  collect (root, has_type, &type, found);
  return found;
}

gboolean ui_shows (gpointer root, const char *words)
{
  return first (root, has_words, words) != NULL;
}

GtkWindow *ui_dialog (UiCase *c)
{
  g_autoptr (GList) windows = gtk_window_list_toplevels ();
  for (GList *link = windows; link; link = link->next)
    if (GTK_IS_WINDOW (link->data) && link->data != (gpointer) c->window && gtk_widget_get_mapped (link->data))
      return link->data;
  return NULL;
}

gpointer ui_last_row (UiCase *c)
{
  g_autoptr (GPtrArray) rows = ui_find_all (c->window, VALISE_TYPE_MESSAGE_ROW);
  return rows->len ? g_ptr_array_index (rows, rows->len - 1) : NULL;
}

char *ui_row_text (gpointer row)
{
  gpointer markdown = ui_find_type (row, VALISE_TYPE_MARKDOWN_VIEW);
  if (!markdown)
    return g_strdup (gtk_label_get_text (ui_find (row, "plain_label")));
  g_autoptr (GPtrArray) labels = ui_find_all (markdown, GTK_TYPE_LABEL);
  GString *text = g_string_new (NULL);
  for (guint i = 0; i < labels->len; i++)
    g_string_append_printf (text, "%s\n", gtk_label_get_text (g_ptr_array_index (labels, i)));
  return g_string_free (text, FALSE);
}

/* ---- hands ---- */

void ui_click (gpointer button)
{
  g_assert_nonnull (button);
  g_assert_true (gtk_widget_get_mapped (button));
  g_assert_true (gtk_widget_is_sensitive (button));
  if (GTK_IS_BUTTON (button))
    g_signal_emit_by_name (button, "clicked");
  else
    g_assert_true (gtk_widget_activate (button));
}

void ui_type (UiCase *c, const char *text)
{
  GtkTextBuffer *buffer = gtk_text_view_get_buffer (ui_find (c->window, "view"));
  gtk_text_buffer_insert_interactive_at_cursor (buffer, text, -1, TRUE);
}

void ui_ask (UiCase *c, const char *text)
{
  ValiseConversation *conversation = valise_application_get_conversation (c->application);
  ui_type (c, text);
  ui_click (ui_find (c->window, "send_button"));
  ui_wait (valise_conversation_is_busy (conversation));
  ui_wait (!valise_conversation_is_busy (conversation));
}

void ui_activate (UiCase *c, const char *action, const char *format, ...)
{
  va_list args;
  va_start (args, format);
  GVariant *target = format ? g_variant_new_va (format, NULL, &args) : NULL;
  va_end (args);
  g_assert_true (gtk_widget_activate_action_variant (GTK_WIDGET (c->window), action, target));
}

void ui_picture (gpointer widget, const char *name)
{
  GtkNative *native = gtk_widget_get_native (widget);
  g_autofree char *folder = g_build_filename (g_test_get_dir (G_TEST_BUILT), "ui", NULL);
  g_autofree char *file = g_strconcat (name, ".png", NULL), *path = g_build_filename (folder, file, NULL);
  ui_settle (native);
  g_autoptr (GdkPaintable) paintable = gtk_widget_paintable_new (GTK_WIDGET (native));
  GtkSnapshot *snapshot = gtk_snapshot_new ();
  gdk_paintable_snapshot (paintable, snapshot, gdk_paintable_get_intrinsic_width (paintable), gdk_paintable_get_intrinsic_height (paintable));
  g_autoptr (GskRenderNode) node = gtk_snapshot_free_to_node (snapshot);
  g_assert_nonnull (node);
  g_autoptr (GdkTexture) texture = gsk_renderer_render_texture (gtk_native_get_renderer (native), node, NULL);
  g_assert_cmpint (g_mkdir_with_parents (folder, 0755), ==, 0);
  g_assert_true (gdk_texture_save_to_png (texture, path));
  g_test_message ("picture: %s", path);
}

/* ---- models ---- */

/* An embedding of plus and minus ones stands for each token, and the head looks for the embedding of the one before it in the line. */
static float embedding (guint token, guint place)
{
  guint32 hash = (token * 64 + place + 1) * 2654435761u;
  hash = (hash ^ hash >> 15) * 2246822519u;
  return (hash ^ hash >> 13) & 1 ? 1.0f : -1.0f;
}

static void liner_row (gpointer data, const char *name, guint row, float *out, guint cols)
{
  static const char line[] = UI_ANSWER_LINE;
  memset (out, 0, cols * sizeof *out);
  if (g_str_equal (name, "token_embd.weight"))
    for (guint i = 0; i < cols; i++)
      out[i] = embedding (row, i);
  if (!g_str_equal (name, "output.weight"))
    return;
  for (guint i = 0; line[i]; i++)
    if (row == 3u + (guint8) line[i]) {
      guint before = 3u + (guint8) line[i ? i - 1 : sizeof line - 2];
      for (guint j = 0; j < cols; j++)
        out[j] = embedding (before, j);
    }
}

char *ui_write_liner (guint layers)
{
  TinyModel model = TINY_MODEL_DEFAULTS;
  g_autofree char *name = g_strdup_printf ("liner-%u.gguf", layers);
  char *path = tiny_model_path (name);
  model.n_layers = layers;
  model.f16 = model.untied = TRUE;
  model.row = liner_row;
  if (!g_file_test (path, G_FILE_TEST_EXISTS))
    tiny_model_write (&model, path);
  return path;
}

ValiseModel *ui_import (UiCase *c, const char *path, const char *name)
{
  g_autoptr (GError) error = NULL;
  ValiseModel *model = valise_library_import (c->library, path, name, NULL, NULL, NULL, &error);
  g_assert_no_error (error);
  return model;
}
