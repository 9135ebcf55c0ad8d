/* conversation.h: one answer at a time being written into a chat: what was asked and what comes back is in the store at once and
 * while it grows, whichever chat is on the screen. */
#ifndef VALISE_CONVERSATION_H
#define VALISE_CONVERSATION_H

#include "app/library/runner.h"

G_BEGIN_DECLS

#define VALISE_TYPE_CONVERSATION (valise_conversation_get_type ())
G_DECLARE_FINAL_TYPE (ValiseConversation, valise_conversation, VALISE, CONVERSATION, GObject)
/* Property: "busy" (boolean). Signals, all about the message being written: "started" (), "text" (string piece),
 * "finished" (), "failed" (string: one sentence). */

ValiseConversation *valise_conversation_new (ValiseLibrary *library, ValiseRunner *runner);
ValiseRunner *valise_conversation_get_runner (ValiseConversation *self);

/* Stores the words of a person below parent_id (0: the chat's beginning) and asks for an answer. */
gboolean valise_conversation_send (ValiseConversation *self, gint64 chat_id, gint64 parent_id, const char *text, GError **error);
/* Asks for one more answer to that message. */
gboolean valise_conversation_answer (ValiseConversation *self, gint64 chat_id, gint64 user_message_id, GError **error);
void valise_conversation_stop (ValiseConversation *self);

gboolean valise_conversation_is_busy (ValiseConversation *self);
/* Of the message being written; 0 and NULL when there is none. */
gint64 valise_conversation_get_chat_id (ValiseConversation *self);
gint64 valise_conversation_get_message_id (ValiseConversation *self);
const char *valise_conversation_get_text (ValiseConversation *self);
/* Whether old turns were left out of the last answer's context. */
gboolean valise_conversation_was_shifted (ValiseConversation *self);
/* Stores what there is and waits until it is on disk; for the end of the program. */
void valise_conversation_flush (ValiseConversation *self);

G_END_DECLS
#endif
