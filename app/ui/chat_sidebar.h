/* chat_sidebar.h: the chats, newest first, under the days they belong to; full-text search above them. */
#ifndef VALISE_CHAT_SIDEBAR_H
#define VALISE_CHAT_SIDEBAR_H

#include <adwaita.h>

#include "app/library/library.h"

G_BEGIN_DECLS

#define VALISE_TYPE_CHAT_SIDEBAR (valise_chat_sidebar_get_type ())
G_DECLARE_FINAL_TYPE (ValiseChatSidebar, valise_chat_sidebar, VALISE, CHAT_SIDEBAR, AdwBin)
/* Property: "folded". Opening is told through the action win.show-chat(x). */

void valise_chat_sidebar_select (ValiseChatSidebar *self, gint64 chat_id);
void valise_chat_sidebar_search (ValiseChatSidebar *self);

G_END_DECLS
#endif
