/* thought_view.h: what a model thought before it answered: one line, which opens. Hidden while there is nothing. */
#ifndef VALISE_THOUGHT_VIEW_H
#define VALISE_THOUGHT_VIEW_H

#include <adwaita.h>

G_BEGIN_DECLS

#define VALISE_TYPE_THOUGHT_VIEW (valise_thought_view_get_type ())
G_DECLARE_FINAL_TYPE (ValiseThoughtView, valise_thought_view, VALISE, THOUGHT_VIEW, AdwBin)

void valise_thought_view_set_text (ValiseThoughtView *self, const char *text);
void valise_thought_view_append (ValiseThoughtView *self, const char *text, gsize length);
/* thinking: more is coming. seconds: how long it took, 0: not known. */
void valise_thought_view_set_state (ValiseThoughtView *self, gboolean thinking, double seconds);

G_END_DECLS
#endif
