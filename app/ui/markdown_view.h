/* markdown_view.h: an answer as native widgets, growing while it is written: only the last block is parsed and drawn again. */
#ifndef VALISE_MARKDOWN_VIEW_H
#define VALISE_MARKDOWN_VIEW_H

#include <gtk/gtk.h>

G_BEGIN_DECLS

#define VALISE_TYPE_MARKDOWN_VIEW (valise_markdown_view_get_type ())
G_DECLARE_FINAL_TYPE (ValiseMarkdownView, valise_markdown_view, VALISE, MARKDOWN_VIEW, GtkBox)

GtkWidget *valise_markdown_view_new (void);
void valise_markdown_view_set_text (ValiseMarkdownView *self, const char *text);
/* More text. Drawing it is put off where it takes long, so that the main loop stays free; finish draws what is left. */
void valise_markdown_view_append (ValiseMarkdownView *self, const char *text);
void valise_markdown_view_draw_now (ValiseMarkdownView *self);
void valise_markdown_view_finish (ValiseMarkdownView *self);
const char *valise_markdown_view_get_text (ValiseMarkdownView *self);

G_END_DECLS
#endif
