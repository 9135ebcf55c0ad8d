/* thought_view.c: the text is drawn only while it is open: thoughts are long, and few are read. */
#include "app/ui/thought_view.h"

#include <glib/gi18n.h>

#include "app/ui/markdown_view.h"
#include "app/ui/settings.h"

struct _ValiseThoughtView {
  AdwBin parent;
  GtkExpander *expander;
  ValiseMarkdownView *markdown;
  GString *text;
};

G_DEFINE_TYPE (ValiseThoughtView, valise_thought_view, ADW_TYPE_BIN)

static void show_text (ValiseThoughtView *self)
{
  valise_markdown_view_set_text (self->markdown, gtk_expander_get_expanded (self->expander) ? self->text->str : "");
}

void valise_thought_view_set_text (ValiseThoughtView *self, const char *text)
{
  g_string_assign (self->text, text);
  gtk_widget_set_visible (GTK_WIDGET (self), self->text->len > 0);
  show_text (self);
}

void valise_thought_view_append (ValiseThoughtView *self, const char *text, gsize length)
{
  gsize before = self->text->len;
  g_string_append_len (self->text, text, (gssize) length);
  gtk_widget_set_visible (GTK_WIDGET (self), self->text->len > 0);
  if (gtk_expander_get_expanded (self->expander))
    valise_markdown_view_append (self->markdown, self->text->str + before);
}

void valise_thought_view_set_state (ValiseThoughtView *self, gboolean thinking, double seconds)
{
  g_autofree char *took = g_strdup_printf (C_("thoughts", "Thought for %.0f s"), MAX (seconds, 1));
  gtk_expander_set_label (self->expander, thinking ? C_("thoughts", "Thinking…") : seconds > 0 ? took : C_("thoughts", "Thought"));
}

static void finalize (GObject *object)
{
  g_string_free (VALISE_THOUGHT_VIEW (object)->text, TRUE);
  G_OBJECT_CLASS (valise_thought_view_parent_class)->finalize (object);
}

static void valise_thought_view_class_init (ValiseThoughtViewClass *klass)
{
  GtkWidgetClass *widget_class = GTK_WIDGET_CLASS (klass);
  G_OBJECT_CLASS (klass)->finalize = finalize;
  g_type_ensure (VALISE_TYPE_MARKDOWN_VIEW);
  gtk_widget_class_set_template_from_resource (widget_class, VALISE_RESOURCES "ui/thought_view.ui");
  gtk_widget_class_bind_template_child (widget_class, ValiseThoughtView, expander);
  gtk_widget_class_bind_template_child (widget_class, ValiseThoughtView, markdown);
  gtk_widget_class_bind_template_callback (widget_class, show_text);
}

static void valise_thought_view_init (ValiseThoughtView *self)
{
  self->text = g_string_new (NULL);
  gtk_widget_init_template (GTK_WIDGET (self));
  valise_thought_view_set_state (self, FALSE, 0);
}
