/* message_row.c: a person's words in a bubble on the right, an answer over the whole width; the tools below either. */
#include "app/ui/message_row.h"

#include <glib/gi18n.h>

#include "app/ui/markdown_view.h"
#include "app/ui/settings.h"

struct _ValiseMessageRow {
  AdwBin parent;
  GtkLabel *author_label, *status_label, *plain_label, *sibling_label, *note_label;
  GtkBox *bubble, *status_box, *tools, *sibling_box;
  GtkSpinner *spinner;
  ValiseMarkdownView *markdown;
  GtkButton *copy_button, *regenerate_button, *edit_button, *previous_button, *next_button;
  ValiseMessage *message;
  gboolean streaming, editable;
  guint restore_source;
};

enum { EDIT, REGENERATE, SELECT_SIBLING, N_SIGNALS };
static guint signals[N_SIGNALS];

G_DEFINE_TYPE (ValiseMessageRow, valise_message_row, ADW_TYPE_BIN)

static gboolean is_answer (ValiseMessageRow *self)
{
  return g_str_equal (self->message->role, "assistant");
}

static char *note (ValiseMessageRow *self)
{
  GString *text = g_string_new (NULL);
  if (!is_answer (self) || self->streaming)
    return g_string_free (text, FALSE);
  if (self->message->tokens_per_second > 0)
    g_string_append_printf (text, C_("speed of an answer", "%.*f tokens/s"), self->message->tokens_per_second < 10,
                            self->message->tokens_per_second);
  const char *reason = NULL;
  if (g_strcmp0 (self->message->finish_reason, "cancelled") == 0)
    reason = C_("why an answer ended", "stopped");
  else if (g_strcmp0 (self->message->finish_reason, "length") == 0)
    reason = C_("why an answer ended", "context is full");
  else if (g_strcmp0 (self->message->finish_reason, "") == 0)
    reason = C_("why an answer ended", "interrupted");
  if (reason)
    g_string_append_printf (text, "%s%s", text->len ? " · " : "", reason);
  return g_string_free (text, FALSE);
}

static void update (ValiseMessageRow *self)
{
  gboolean answer = is_answer (self), idle = self->editable && !self->streaming;
  guint sibling = self->message->sibling, n_siblings = self->message->n_siblings;
  gtk_widget_set_visible (GTK_WIDGET (self->author_label), answer);
  gtk_label_set_text (self->author_label, self->message->model_name && *self->message->model_name
                                            ? self->message->model_name : C_("author of a message", "Answer"));
  gtk_widget_set_visible (GTK_WIDGET (self->markdown), answer);
  gtk_widget_set_visible (GTK_WIDGET (self->plain_label), !answer);
  gtk_widget_set_visible (GTK_WIDGET (self->regenerate_button), answer);
  gtk_widget_set_visible (GTK_WIDGET (self->edit_button), !answer);
  gtk_widget_set_sensitive (GTK_WIDGET (self->regenerate_button), idle);
  gtk_widget_set_sensitive (GTK_WIDGET (self->edit_button), idle);
  gtk_widget_set_visible (GTK_WIDGET (self->sibling_box), n_siblings > 1);
  gtk_widget_set_sensitive (GTK_WIDGET (self->previous_button), idle && sibling > 1);
  gtk_widget_set_sensitive (GTK_WIDGET (self->next_button), idle && sibling < n_siblings);
  /* Translators: which version of a message is shown, of how many, as in "2/3". */
  g_autofree char *place = g_strdup_printf (C_("version of a message", "%u/%u"), sibling, n_siblings);
  gtk_label_set_text (self->sibling_label, place);
  g_autofree char *said = note (self);
  gtk_label_set_text (self->note_label, said);
  gtk_widget_set_visible (GTK_WIDGET (self->note_label), *said);
  gtk_widget_set_visible (GTK_WIDGET (self->tools), !self->streaming);
  /* While an answer grows a screen reader is told of it as a whole, not of every word. */
  gtk_accessible_update_state (GTK_ACCESSIBLE (self), GTK_ACCESSIBLE_STATE_BUSY, self->streaming, -1);
  gtk_accessible_update_property (GTK_ACCESSIBLE (self), GTK_ACCESSIBLE_PROPERTY_LABEL,
                                  answer ? C_("author of a message", "Answer") : C_("author of a message", "You"), -1);
}

const ValiseMessage *valise_message_row_get_message (ValiseMessageRow *self)
{
  return self->message;
}

void valise_message_row_set_message (ValiseMessageRow *self, const ValiseMessage *message)
{
  if (self->streaming)
    valise_message_row_set_streaming (self, FALSE);
  gboolean same = self->message && g_strcmp0 (self->message->content, message->content) == 0;
  g_clear_pointer (&self->message, valise_message_free);
  self->message = valise_message_copy (message);
  if (!same)
    valise_message_row_set_text (self, message->content);
  update (self);
}

void valise_message_row_set_text (ValiseMessageRow *self, const char *text)
{
  if (is_answer (self))
    valise_markdown_view_set_text (self->markdown, text);
  else
    gtk_label_set_text (self->plain_label, text);
  if (*text)
    valise_message_row_set_status (self, NULL);
}

void valise_message_row_append (ValiseMessageRow *self, const char *text)
{
  valise_message_row_set_status (self, NULL);
  valise_markdown_view_append (self->markdown, text);
}

void valise_message_row_set_streaming (ValiseMessageRow *self, gboolean streaming)
{
  self->streaming = streaming;
  if (!streaming) {
    valise_markdown_view_finish (self->markdown);
    valise_message_row_set_status (self, NULL);
    g_free (self->message->content);
    self->message->content = g_strdup (valise_markdown_view_get_text (self->markdown));
  }
  update (self);
}

void valise_message_row_set_status (ValiseMessageRow *self, const char *status)
{
  if (!status && !gtk_widget_get_visible (GTK_WIDGET (self->status_box)))
    return;
  gtk_widget_set_visible (GTK_WIDGET (self->status_box), status != NULL);
  gtk_spinner_set_spinning (self->spinner, status != NULL);
  gtk_label_set_text (self->status_label, status ? status : "");
}

void valise_message_row_set_editable (ValiseMessageRow *self, gboolean editable)
{
  self->editable = editable;
  update (self);
}

static gboolean restore_copy_icon (gpointer data)
{
  ValiseMessageRow *self = data;
  self->restore_source = 0;
  gtk_button_set_icon_name (self->copy_button, "edit-copy-symbolic");
  return G_SOURCE_REMOVE;
}

static void on_copy_clicked (ValiseMessageRow *self)
{
  gdk_clipboard_set_text (gtk_widget_get_clipboard (GTK_WIDGET (self)), self->message->content);
  gtk_button_set_icon_name (self->copy_button, "object-select-symbolic");
  g_clear_handle_id (&self->restore_source, g_source_remove);
  self->restore_source = g_timeout_add (1500, restore_copy_icon, self);
}

static void on_regenerate_clicked (ValiseMessageRow *self)
{
  g_signal_emit (self, signals[REGENERATE], 0);
}

static void on_edit_clicked (ValiseMessageRow *self)
{
  g_signal_emit (self, signals[EDIT], 0);
}

static void on_previous_clicked (ValiseMessageRow *self)
{
  g_signal_emit (self, signals[SELECT_SIBLING], 0, self->message->sibling - 1);
}

static void on_next_clicked (ValiseMessageRow *self)
{
  g_signal_emit (self, signals[SELECT_SIBLING], 0, self->message->sibling + 1);
}

static void dispose (GObject *object)
{
  g_clear_handle_id (&VALISE_MESSAGE_ROW (object)->restore_source, g_source_remove);
  G_OBJECT_CLASS (valise_message_row_parent_class)->dispose (object);
}

static void finalize (GObject *object)
{
  g_clear_pointer (&VALISE_MESSAGE_ROW (object)->message, valise_message_free);
  G_OBJECT_CLASS (valise_message_row_parent_class)->finalize (object);
}

static void valise_message_row_class_init (ValiseMessageRowClass *klass)
{
  GtkWidgetClass *widget_class = GTK_WIDGET_CLASS (klass);
  G_OBJECT_CLASS (klass)->dispose = dispose;
  G_OBJECT_CLASS (klass)->finalize = finalize;
  GType type = G_TYPE_FROM_CLASS (klass);
  signals[EDIT] = g_signal_new ("edit", type, G_SIGNAL_RUN_LAST, 0, NULL, NULL, NULL, G_TYPE_NONE, 0);
  signals[REGENERATE] = g_signal_new ("regenerate", type, G_SIGNAL_RUN_LAST, 0, NULL, NULL, NULL, G_TYPE_NONE, 0);
  signals[SELECT_SIBLING] = g_signal_new ("select-sibling", type, G_SIGNAL_RUN_LAST, 0, NULL, NULL, NULL, G_TYPE_NONE, 1, G_TYPE_UINT);
  g_type_ensure (VALISE_TYPE_MARKDOWN_VIEW);
  gtk_widget_class_set_template_from_resource (widget_class, VALISE_RESOURCES "ui/message_row.ui");
  gtk_widget_class_bind_template_child (widget_class, ValiseMessageRow, author_label);
  gtk_widget_class_bind_template_child (widget_class, ValiseMessageRow, status_label);
  gtk_widget_class_bind_template_child (widget_class, ValiseMessageRow, plain_label);
  gtk_widget_class_bind_template_child (widget_class, ValiseMessageRow, sibling_label);
  gtk_widget_class_bind_template_child (widget_class, ValiseMessageRow, note_label);
  gtk_widget_class_bind_template_child (widget_class, ValiseMessageRow, bubble);
  gtk_widget_class_bind_template_child (widget_class, ValiseMessageRow, status_box);
  gtk_widget_class_bind_template_child (widget_class, ValiseMessageRow, tools);
  gtk_widget_class_bind_template_child (widget_class, ValiseMessageRow, sibling_box);
  gtk_widget_class_bind_template_child (widget_class, ValiseMessageRow, spinner);
  gtk_widget_class_bind_template_child (widget_class, ValiseMessageRow, markdown);
  gtk_widget_class_bind_template_child (widget_class, ValiseMessageRow, copy_button);
  gtk_widget_class_bind_template_child (widget_class, ValiseMessageRow, regenerate_button);
  gtk_widget_class_bind_template_child (widget_class, ValiseMessageRow, edit_button);
  gtk_widget_class_bind_template_child (widget_class, ValiseMessageRow, previous_button);
  gtk_widget_class_bind_template_child (widget_class, ValiseMessageRow, next_button);
  gtk_widget_class_bind_template_callback (widget_class, on_copy_clicked);
  gtk_widget_class_bind_template_callback (widget_class, on_regenerate_clicked);
  gtk_widget_class_bind_template_callback (widget_class, on_edit_clicked);
  gtk_widget_class_bind_template_callback (widget_class, on_previous_clicked);
  gtk_widget_class_bind_template_callback (widget_class, on_next_clicked);
}

static void valise_message_row_init (ValiseMessageRow *self)
{
  self->editable = TRUE;
  gtk_widget_init_template (GTK_WIDGET (self));
}

GtkWidget *valise_message_row_new (const ValiseMessage *message)
{
  ValiseMessageRow *self = g_object_new (VALISE_TYPE_MESSAGE_ROW, NULL);
  valise_message_row_set_message (self, message);
  if (!is_answer (self)) {
    gtk_widget_add_css_class (GTK_WIDGET (self->bubble), "user-bubble");
    gtk_widget_set_halign (GTK_WIDGET (self->bubble), GTK_ALIGN_END);
    gtk_widget_set_halign (GTK_WIDGET (self->tools), GTK_ALIGN_END);
    gtk_widget_set_margin_start (GTK_WIDGET (self), 48);
  }
  return GTK_WIDGET (self);
}
