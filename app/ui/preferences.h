/* preferences.h: what holds for every chat. */
#ifndef VALISE_PREFERENCES_H
#define VALISE_PREFERENCES_H

#include <adwaita.h>

G_BEGIN_DECLS

#define VALISE_TYPE_PREFERENCES (valise_preferences_get_type ())
G_DECLARE_FINAL_TYPE (ValisePreferences, valise_preferences, VALISE, PREFERENCES, AdwPreferencesWindow)

ValisePreferences *valise_preferences_new (GtkWindow *parent);

G_END_DECLS
#endif
