/* bundled.c: the calibration text that is part of the program (data/calibration), joined into one. */
#include "quantizer/calibration.h"

GResource *qz_calibration_text_get_resource (void);

const char *qz_calibration_bundled (gsize *length)
{
  static const char *const parts[] = { "articles", "chat", "english", "code", "languages" };
  static GString *text = NULL;
  if (g_once_init_enter (&text)) {
    GString *joined = g_string_new (NULL);
    for (guint i = 0; i < G_N_ELEMENTS (parts); i++) {
      g_autofree char *name = g_strdup_printf ("/valise/calibration/%s.txt", parts[i]);
      g_autoptr (GError) error = NULL;
      g_autoptr (GBytes) part = g_resource_lookup_data (qz_calibration_text_get_resource (), name, G_RESOURCE_LOOKUP_FLAGS_NONE, &error);
      if (part == NULL)
        g_error ("a part of the program is missing: %s", error->message);
      gsize size;
      const char *data = g_bytes_get_data (part, &size);
      g_string_append_len (joined, data, size);
    }
    g_once_init_leave (&text, joined);
  }
  *length = text->len;
  return text->str;
}
