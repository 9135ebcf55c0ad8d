/* composer.h: where a person writes: Enter sends, Shift+Enter begins a new line, Stop while an answer is being written. */
#ifndef VALISE_COMPOSER_H
#define VALISE_COMPOSER_H

#include <adwaita.h>

G_BEGIN_DECLS

#define VALISE_TYPE_COMPOSER (valise_composer_get_type ())
G_DECLARE_FINAL_TYPE (ValiseComposer, valise_composer, VALISE, COMPOSER, AdwBin)
/* Signals: "send" (string), "stop" (), "edit-cancelled" (), "failed" (string: one sentence). */

void valise_composer_set_busy (ValiseComposer *self, gboolean busy);
/* Whether there is anything to send to. */
void valise_composer_set_ready (ValiseComposer *self, gboolean ready);
void valise_composer_set_text (ValiseComposer *self, const char *text);
/* Says that what is written replaces an earlier message; ends with "send" or "edit-cancelled". */
void valise_composer_set_editing (ValiseComposer *self, gboolean editing);

G_END_DECLS
#endif
