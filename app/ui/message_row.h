/* message_row.h: one message of a chat with what can be done to it. */
#ifndef VALISE_MESSAGE_ROW_H
#define VALISE_MESSAGE_ROW_H

#include <adwaita.h>

#include "app/library/library.h"

G_BEGIN_DECLS

#define VALISE_TYPE_MESSAGE_ROW (valise_message_row_get_type ())
G_DECLARE_FINAL_TYPE (ValiseMessageRow, valise_message_row, VALISE, MESSAGE_ROW, AdwBin)
/* Signals: "edit" (), "regenerate" (), "select-sibling" (uint n). */

GtkWidget *valise_message_row_new (const ValiseMessage *message);
const ValiseMessage *valise_message_row_get_message (ValiseMessageRow *self);
/* The stored state of the same message again: siblings, speed, why it ended. Keeps the widgets of text that has not changed. */
void valise_message_row_set_message (ValiseMessageRow *self, const ValiseMessage *message);
/* While it is being written. */
void valise_message_row_set_streaming (ValiseMessageRow *self, gboolean streaming);
void valise_message_row_set_text (ValiseMessageRow *self, const char *text);
void valise_message_row_append (ValiseMessageRow *self, const char *text);
/* Said in place of the text while there is none: loading, reading. */
void valise_message_row_set_status (ValiseMessageRow *self, const char *status);
/* Whether the chat can take a change: not while an answer is being written. */
void valise_message_row_set_editable (ValiseMessageRow *self, gboolean editable);

G_END_DECLS
#endif
