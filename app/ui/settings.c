/* settings.c: finds the settings schema before GSettings insists on it. */
#include "app/ui/settings.h"

gboolean valise_settings_check (GError **error)
{
  GSettingsSchemaSource *source = g_settings_schema_source_get_default ();
  g_autoptr (GSettingsSchema) schema = source ? g_settings_schema_source_lookup (source, VALISE_APP_ID, TRUE) : NULL;
  if (schema)
    return TRUE;
  g_set_error (error, G_IO_ERROR, G_IO_ERROR_NOT_FOUND,
               "the settings schema " VALISE_APP_ID " is not installed: run “meson install”, or set GSETTINGS_SCHEMA_DIR to the "
               "“data” folder of the build");
  return FALSE;
}

GSettings *valise_settings (void)
{
  static GSettings *settings;
  if (!settings)
    settings = g_settings_new (VALISE_APP_ID);
  return settings;
}
