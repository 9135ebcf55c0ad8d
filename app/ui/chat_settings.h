/* chat_settings.h: what a chat tells its model before the first turn, and how the answers' words are drawn. */
#ifndef VALISE_CHAT_SETTINGS_H
#define VALISE_CHAT_SETTINGS_H

#include "app/ui/window.h"

G_BEGIN_DECLS

#define VALISE_TYPE_CHAT_SETTINGS (valise_chat_settings_get_type ())
G_DECLARE_FINAL_TYPE (ValiseChatSettings, valise_chat_settings, VALISE, CHAT_SETTINGS, AdwPreferencesWindow)

/* Changes are stored when the dialog closes. */
ValiseChatSettings *valise_chat_settings_new (ValiseWindow *window, const ValiseChat *chat);

G_END_DECLS
#endif
