/* message_row.c: a person's words in a bubble on the right, an answer over the whole width; the tools below either. */
#include "app/ui/message_row.h"

#include <glib/gi18n.h>

#include "app/ui/answer_text.h"
#include "app/ui/markdown_view.h"
#include "app/ui/settings.h"
#include "app/ui/thought_view.h"

#include <string.h>

struct _ValiseMessageRow {
  AdwBin parent;
  GtkLabel *author_label, *status_label, *plain_label, *sibling_label, *note_label;
  GtkBox *bubble, *status_box, *tools, *sibling_box;
  GtkSpinner *spinner;
  ValiseThoughtView *thought;
  ValiseMarkdownView *markdown;
  ValiseAnswerText *answer_text; /* from the answer to what markdown shows */
  GString *content;  /* of an answer, thoughts included */
  gsize shown;       /* so much of it has been given to thought and markdown */
  gint64 thought_us; /* when the first of a thought that is being written came, 0: none is */
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

/* How much of the text's end may be the beginning of the mark. */
static gsize held_back (const GString *text, const char *mark)
{
  for (gsize n = MIN (strlen (mark) - 1, text->len); n > 0; n--)
    if (memcmp (text->str + text->len - n, mark, n) == 0)
      return n;
  return 0;
}

/* Where in the content the thought begins and ends, and the answer begins; what may become a mark is neither's yet. */
static void divide (ValiseMessageRow *self, gsize *begin, gsize *end, gsize *answer)
{
  const char *text = self->content->str;
  gsize length = self->content->len;
  *begin = *end = *answer = 0;
  if (self->streaming && length < strlen (VALISE_REASONING_BEGIN) && g_str_has_prefix (VALISE_REASONING_BEGIN, text))
    *answer = length;
  if (!g_str_has_prefix (text, VALISE_REASONING_BEGIN))
    return;
  *begin = strlen (VALISE_REASONING_BEGIN);
  const char *mark = strstr (text + *begin, VALISE_REASONING_END);
  *end = mark ? (gsize) (mark - text) : length - (self->streaming ? MIN (held_back (self->content, VALISE_REASONING_END), length - *begin) : 0);
  *answer = mark ? *end + strlen (VALISE_REASONING_END) : length;
}

static void show_thought_state (ValiseMessageRow *self, gboolean thinking)
{
  gint64 now = g_get_monotonic_time ();
  if (thinking && self->thought_us == 0)
    self->thought_us = now;
  double took = self->thought_us > 0 ? MAX ((double) (now - self->thought_us) / G_USEC_PER_SEC, 0.001) : self->message->thought_seconds;
  valise_thought_view_set_state (self->thought, thinking, self->message->thought_seconds > 0 ? self->message->thought_seconds : took);
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
  else if (is_answer (self))
    show_thought_state (self, FALSE);
  update (self);
}

static void show_content (ValiseMessageRow *self)
{
  gsize begin, end, answer;
  divide (self, &begin, &end, &answer);
  g_autofree char *thought = g_strndup (self->content->str + begin, end - begin);
  valise_thought_view_set_text (self->thought, thought);
  valise_answer_text_end (self->answer_text);
  g_autoptr (GString) shown = g_string_new (valise_answer_text_push (self->answer_text, self->content->str + answer));
  if (!self->streaming)
    g_string_append (shown, valise_answer_text_end (self->answer_text));
  valise_markdown_view_set_text (self->markdown, shown->str);
  self->shown = answer < self->content->len || end == 0 ? self->content->len : end;
  if (end == 0 && answer > 0) /* it may yet become a mark */
    self->shown = 0;
  if (end > 0)
    show_thought_state (self, self->streaming && answer == self->content->len);
}

void valise_message_row_set_text (ValiseMessageRow *self, const char *text)
{
  if (is_answer (self)) {
    g_string_assign (self->content, text);
    show_content (self);
  } else
    gtk_label_set_text (self->plain_label, text);
  if (*text)
    valise_message_row_set_status (self, NULL);
}

void valise_message_row_append (ValiseMessageRow *self, const char *text)
{
  gsize begin, end, answer;
  valise_message_row_set_status (self, NULL);
  g_string_append (self->content, text);
  divide (self, &begin, &end, &answer);
  if (end > 0 && self->shown < end) {
    gsize from = MAX (self->shown, begin);
    valise_thought_view_append (self->thought, self->content->str + from, end - from);
    self->shown = end;
  }
  if (end > 0 && self->shown <= end)
    show_thought_state (self, answer == self->content->len);
  if (answer < self->content->len) {
    valise_markdown_view_append (self->markdown, valise_answer_text_push (self->answer_text, self->content->str + MAX (self->shown, answer)));
    self->shown = self->content->len;
  }
}

void valise_message_row_set_streaming (ValiseMessageRow *self, gboolean streaming)
{
  self->streaming = streaming;
  if (!streaming) {
    valise_markdown_view_append (self->markdown, valise_answer_text_end (self->answer_text));
    valise_markdown_view_finish (self->markdown);
    valise_message_row_set_status (self, NULL);
    g_free (self->message->content);
    self->message->content = g_strdup (self->content->str);
    if (self->shown < self->content->len)
      show_content (self);
    else if (g_str_has_prefix (self->content->str, VALISE_REASONING_BEGIN))
      show_thought_state (self, FALSE);
    self->thought_us = 0;
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
  gdk_clipboard_set_text (gtk_widget_get_clipboard (GTK_WIDGET (self)), is_answer (self) ? valise_message_answer (self->message->content) : self->message->content);
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
  g_string_free (VALISE_MESSAGE_ROW (object)->content, TRUE);
  valise_answer_text_free (VALISE_MESSAGE_ROW (object)->answer_text);
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
  g_type_ensure (VALISE_TYPE_THOUGHT_VIEW);
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
  gtk_widget_class_bind_template_child (widget_class, ValiseMessageRow, thought);
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
  self->content = g_string_new (NULL);
  self->answer_text = valise_answer_text_new ();
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
