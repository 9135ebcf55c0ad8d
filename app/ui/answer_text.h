/* answer_text.h: an answer's text as it is shown, while it grows: calls of tools, in any form that models write them in, become a line that says what was asked for. */
#ifndef VALISE_ANSWER_TEXT_H
#define VALISE_ANSWER_TEXT_H

#include <glib.h>

G_BEGIN_DECLS

typedef struct _ValiseAnswerText ValiseAnswerText;

ValiseAnswerText *valise_answer_text_new (void);
void valise_answer_text_free (ValiseAnswerText *self);
/* What to show of more of the answer, in Markdown: what may become a call waits for the rest of it. Until the next call of either. */
const char *valise_answer_text_push (ValiseAnswerText *self, const char *text);
/* What waited. The next push begins another answer. */
const char *valise_answer_text_end (ValiseAnswerText *self);

G_END_DECLS
#endif
