/* message_list.h: the shown branch of a chat, newest below; follows what is being written only while its end is in view. */
#ifndef VALISE_MESSAGE_LIST_H
#define VALISE_MESSAGE_LIST_H

#include "app/ui/message_row.h"

G_BEGIN_DECLS

#define VALISE_TYPE_MESSAGE_LIST (valise_message_list_get_type ())
G_DECLARE_FINAL_TYPE (ValiseMessageList, valise_message_list, VALISE, MESSAGE_LIST, AdwBin)
/* Signals: "edit" (gint64 id), "regenerate" (gint64 id), "select-sibling" (gint64 id, uint n). */

/* Of ValiseMessage, root to leaf. Rows of messages that stay are kept; a long branch is built little by little, end first. */
void valise_message_list_set_branch (ValiseMessageList *self, GPtrArray *branch);
/* NULL when there is none. */
ValiseMessageRow *valise_message_list_get_row (ValiseMessageList *self, gint64 message_id);
void valise_message_list_set_editable (ValiseMessageList *self, gboolean editable);
void valise_message_list_scroll_to_end (ValiseMessageList *self);

G_END_DECLS
#endif
