/* composer.c: the text view, its keys, and the button that sends or stops. */
#include "app/ui/composer.h"

#include <glib/gi18n.h>

#include "app/ui/settings.h"

/* More than this is no message but a book; it would not fit any context either. */
#define MAX_ATTACHMENT (1024 * 1024)

struct _ValiseComposer {
  AdwBin parent;
  GtkTextView *view;
  GtkLabel *placeholder;
  GtkButton *send_button, *attach_button;
  GtkRevealer *edit_revealer;
  GtkFileChooserNative *chooser;
  GCancellable *cancellable;
  gboolean busy, ready;
};

enum { SEND, STOP, EDIT_CANCELLED, FAILED, N_SIGNALS };
static guint signals[N_SIGNALS];

G_DEFINE_TYPE (ValiseComposer, valise_composer, ADW_TYPE_BIN)

static char *get_text (ValiseComposer *self)
{
  GtkTextIter start, end;
  gtk_text_buffer_get_bounds (gtk_text_view_get_buffer (self->view), &start, &end);
  return g_strstrip (gtk_text_buffer_get_text (gtk_text_view_get_buffer (self->view), &start, &end, FALSE));
}

static void update (ValiseComposer *self)
{
  g_autofree char *text = get_text (self);
  const char *tip = self->busy ? C_("composer", "Stop the answer") : C_("composer", "Send");
  gtk_widget_set_visible (GTK_WIDGET (self->placeholder), gtk_text_buffer_get_char_count (gtk_text_view_get_buffer (self->view)) == 0);
  gtk_widget_set_sensitive (GTK_WIDGET (self->send_button), self->busy || (self->ready && *text));
  gtk_button_set_icon_name (self->send_button, self->busy ? "media-playback-stop-symbolic" : "valise-send-symbolic");
  gtk_widget_set_tooltip_text (GTK_WIDGET (self->send_button), tip);
  gtk_accessible_update_property (GTK_ACCESSIBLE (self->send_button), GTK_ACCESSIBLE_PROPERTY_LABEL, tip, -1);
}

static void send (ValiseComposer *self)
{
  g_autofree char *text = get_text (self);
  if (!*text || !self->ready || self->busy)
    return;
  gtk_revealer_set_reveal_child (self->edit_revealer, FALSE);
  gtk_text_buffer_set_text (gtk_text_view_get_buffer (self->view), "", -1);
  g_signal_emit (self, signals[SEND], 0, text);
}

static void on_send_clicked (ValiseComposer *self)
{
  if (self->busy)
    g_signal_emit (self, signals[STOP], 0);
  else
    send (self);
}

static void on_cancel_clicked (ValiseComposer *self)
{
  gtk_revealer_set_reveal_child (self->edit_revealer, FALSE);
  gtk_text_buffer_set_text (gtk_text_view_get_buffer (self->view), "", -1);
  g_signal_emit (self, signals[EDIT_CANCELLED], 0);
}

static gboolean on_key (GtkEventControllerKey *controller, guint key, guint code, GdkModifierType state, ValiseComposer *self)
{
  if (key == GDK_KEY_Escape && gtk_revealer_get_reveal_child (self->edit_revealer)) {
    on_cancel_clicked (self);
    return GDK_EVENT_STOP;
  }
  if ((key != GDK_KEY_Return && key != GDK_KEY_KP_Enter) || (state & (GDK_SHIFT_MASK | GDK_CONTROL_MASK | GDK_ALT_MASK)))
    return GDK_EVENT_PROPAGATE;
  /* An input method may still want this key, to accept what it composes. */
  GdkEvent *event = gtk_event_controller_get_current_event (GTK_EVENT_CONTROLLER (controller));
  if (gtk_text_view_im_context_filter_keypress (self->view, event))
    return GDK_EVENT_STOP;
  send (self);
  return GDK_EVENT_STOP;
}

/* ---- a text file in the message ------------------------------------------------------------------------------------------------ */

static void on_file_loaded (GObject *source, GAsyncResult *result, gpointer data)
{
  g_autoptr (ValiseComposer) self = data;
  g_autoptr (GError) error = NULL;
  g_autofree char *contents = NULL, *name = g_file_get_basename (G_FILE (source));
  gsize length;
  if (!g_file_load_contents_finish (G_FILE (source), result, &contents, &length, NULL, &error)) {
    g_signal_emit (self, signals[FAILED], 0, error->message);
    return;
  }
  if (length > MAX_ATTACHMENT || !g_utf8_validate (contents, (gssize) length, NULL)) {
    g_autofree char *sentence = g_strdup_printf (_("%s is not a text of less than 1 MB; only texts can be inserted"), name);
    g_signal_emit (self, signals[FAILED], 0, sentence);
    return;
  }
  g_autofree char *block = g_strdup_printf ("%s:\n```\n%s%s```\n", name, contents, g_str_has_suffix (contents, "\n") ? "" : "\n");
  gtk_text_buffer_insert_at_cursor (gtk_text_view_get_buffer (self->view), block, -1);
  gtk_widget_grab_focus (GTK_WIDGET (self->view));
}

static void on_file_chosen (ValiseComposer *self, int response)
{
  if (response == GTK_RESPONSE_ACCEPT) {
    g_autoptr (GFile) file = gtk_file_chooser_get_file (GTK_FILE_CHOOSER (self->chooser));
    g_file_load_contents_async (file, self->cancellable, on_file_loaded, g_object_ref (self));
  }
  g_clear_object (&self->chooser);
}

static void on_attach_clicked (ValiseComposer *self)
{
  g_clear_object (&self->chooser);
  self->chooser = gtk_file_chooser_native_new (C_("composer", "Insert a text file"), GTK_WINDOW (gtk_widget_get_root (GTK_WIDGET (self))),
                                               GTK_FILE_CHOOSER_ACTION_OPEN, C_("composer", "_Insert"), NULL);
  gtk_native_dialog_set_modal (GTK_NATIVE_DIALOG (self->chooser), TRUE);
  g_signal_connect_object (self->chooser, "response", G_CALLBACK (on_file_chosen), self, G_CONNECT_SWAPPED);
  gtk_native_dialog_show (GTK_NATIVE_DIALOG (self->chooser));
}

/* ---- the widget -------------------------------------------------------------------------------------------------------------------- */

void valise_composer_set_busy (ValiseComposer *self, gboolean busy)
{
  self->busy = busy;
  update (self);
}

void valise_composer_set_ready (ValiseComposer *self, gboolean ready)
{
  self->ready = ready;
  update (self);
}

void valise_composer_set_text (ValiseComposer *self, const char *text)
{
  gtk_text_buffer_set_text (gtk_text_view_get_buffer (self->view), text, -1);
}

void valise_composer_set_editing (ValiseComposer *self, gboolean editing)
{
  gtk_revealer_set_reveal_child (self->edit_revealer, editing);
}

static gboolean grab_focus (GtkWidget *widget)
{
  return gtk_widget_grab_focus (GTK_WIDGET (VALISE_COMPOSER (widget)->view));
}

static void dispose (GObject *object)
{
  ValiseComposer *self = VALISE_COMPOSER (object);
  g_cancellable_cancel (self->cancellable);
  g_clear_object (&self->cancellable);
  g_clear_object (&self->chooser);
  G_OBJECT_CLASS (valise_composer_parent_class)->dispose (object);
}

static void valise_composer_class_init (ValiseComposerClass *klass)
{
  GtkWidgetClass *widget_class = GTK_WIDGET_CLASS (klass);
  G_OBJECT_CLASS (klass)->dispose = dispose;
  widget_class->grab_focus = grab_focus;
  GType type = G_TYPE_FROM_CLASS (klass);
  signals[SEND] = g_signal_new ("send", type, G_SIGNAL_RUN_LAST, 0, NULL, NULL, NULL, G_TYPE_NONE, 1, G_TYPE_STRING);
  signals[STOP] = g_signal_new ("stop", type, G_SIGNAL_RUN_LAST, 0, NULL, NULL, NULL, G_TYPE_NONE, 0);
  signals[EDIT_CANCELLED] = g_signal_new ("edit-cancelled", type, G_SIGNAL_RUN_LAST, 0, NULL, NULL, NULL, G_TYPE_NONE, 0);
  signals[FAILED] = g_signal_new ("failed", type, G_SIGNAL_RUN_LAST, 0, NULL, NULL, NULL, G_TYPE_NONE, 1, G_TYPE_STRING);
  gtk_widget_class_set_template_from_resource (widget_class, VALISE_RESOURCES "ui/composer.ui");
  gtk_widget_class_bind_template_child (widget_class, ValiseComposer, view);
  gtk_widget_class_bind_template_child (widget_class, ValiseComposer, placeholder);
  gtk_widget_class_bind_template_child (widget_class, ValiseComposer, send_button);
  gtk_widget_class_bind_template_child (widget_class, ValiseComposer, attach_button);
  gtk_widget_class_bind_template_child (widget_class, ValiseComposer, edit_revealer);
  gtk_widget_class_bind_template_callback (widget_class, on_send_clicked);
  gtk_widget_class_bind_template_callback (widget_class, on_cancel_clicked);
  gtk_widget_class_bind_template_callback (widget_class, on_attach_clicked);
}

static void valise_composer_init (ValiseComposer *self)
{
  self->cancellable = g_cancellable_new ();
  gtk_widget_init_template (GTK_WIDGET (self));
  GtkEventController *keys = gtk_event_controller_key_new ();
  gtk_event_controller_set_propagation_phase (keys, GTK_PHASE_CAPTURE);
  g_signal_connect (keys, "key-pressed", G_CALLBACK (on_key), self);
  gtk_widget_add_controller (GTK_WIDGET (self->view), keys);
  g_signal_connect_object (gtk_text_view_get_buffer (self->view), "changed", G_CALLBACK (update), self, G_CONNECT_SWAPPED);
  update (self);
}
