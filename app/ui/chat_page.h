/* chat_page.h: a chat: its model and memory above, its messages, and the place to write. */
#ifndef VALISE_CHAT_PAGE_H
#define VALISE_CHAT_PAGE_H

#include <adwaita.h>

#include "app/library/library.h"

G_BEGIN_DECLS

#define VALISE_TYPE_CHAT_PAGE (valise_chat_page_get_type ())
G_DECLARE_FINAL_TYPE (ValiseChatPage, valise_chat_page, VALISE, CHAT_PAGE, AdwBin)
/* Properties: "folded" (boolean: there is no room for the chat list beside it), "chat-id" (int64, 0: a new chat; notifies). */

void valise_chat_page_open (ValiseChatPage *self, gint64 chat_id);
/* An empty chat, in the store once the first message is sent. model NULL: the one chosen last. */
void valise_chat_page_new_chat (ValiseChatPage *self, ValiseModel *model);
void valise_chat_page_choose_model (ValiseChatPage *self);
/* The chat's settings or title have changed in the store. */
void valise_chat_page_reload (ValiseChatPage *self);
/* The last answer once more; the last question once more in other words. */
void valise_chat_page_regenerate (ValiseChatPage *self);
void valise_chat_page_edit (ValiseChatPage *self);
gint64 valise_chat_page_get_chat_id (ValiseChatPage *self);

G_END_DECLS
#endif
