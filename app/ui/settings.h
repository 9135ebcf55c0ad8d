/* settings.h: the names every file of the window shares, and the one GSettings object. */
#ifndef VALISE_UI_SETTINGS_H
#define VALISE_UI_SETTINGS_H

#include <gio/gio.h>

#define VALISE_APP_ID "io.github.valise_app.Valise"
#define VALISE_RESOURCES "/io/github/valise_app/Valise/"

/* FALSE, with what to do, when the schema is not installed (GSettings itself would abort). Call before valise_settings. */
gboolean valise_settings_check (GError **error);
GSettings *valise_settings (void);

#endif
