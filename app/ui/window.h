/* window.h: the main window: chats on the left; a chat, or the models, on the right; one after the other where it is narrow. */
#ifndef VALISE_WINDOW_H
#define VALISE_WINDOW_H

#include "app/ui/application.h"
#include "app/ui/chat_page.h"

G_BEGIN_DECLS

#define VALISE_TYPE_WINDOW (valise_window_get_type ())
G_DECLARE_FINAL_TYPE (ValiseWindow, valise_window, VALISE, WINDOW, AdwApplicationWindow)

ValiseWindow *valise_window_new (ValiseApplication *application);
ValiseChatPage *valise_window_get_chat_page (ValiseWindow *self);
void valise_window_show_chat (ValiseWindow *self, gint64 chat_id);
/* model NULL: the one chosen last. */
void valise_window_new_chat (ValiseWindow *self, ValiseModel *model);
void valise_window_show_models (ValiseWindow *self);
void valise_window_show_sidebar (ValiseWindow *self);
void valise_window_search (ValiseWindow *self);
/* A sentence in a toast. */
void valise_window_say (ValiseWindow *self, const char *sentence);
void valise_window_add_toast (ValiseWindow *self, AdwToast *toast);

/* window_actions.c */
void valise_window_add_actions (ValiseWindow *self);

G_END_DECLS
#endif
