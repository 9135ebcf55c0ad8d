/* size.c: sizes as people write and read them: "96M" and "1.5G" are powers of ten, "900MiB" is binary. */
#include "app/library/library-private.h"

#include <math.h>
#include <string.h>

static const struct {
  const char *suffix;
  double factor;
} units[] = {
  { "", 1 },        { "B", 1 },       { "K", 1e3 },           { "KB", 1e3 },          { "M", 1e6 },
  { "MB", 1e6 },    { "G", 1e9 },     { "GB", 1e9 },          { "T", 1e12 },          { "TB", 1e12 },
  { "KIB", 0x1p10 }, { "MIB", 0x1p20 }, { "GIB", 0x1p30 }, { "TIB", 0x1p40 },
};

gboolean valise_size_parse (const char *text, guint64 *bytes, GError **error)
{
  const char *p = text;
  while (g_ascii_isspace (*p))
    p++;
  char *end = NULL;
  /* Only digits and a point: strtod alone would also take signs, exponents, hexadecimal and "inf". */
  gsize number = strspn (p, "0123456789.");
  g_autofree char *digits = g_strndup (p, number);
  double value = number > 0 ? g_ascii_strtod (digits, &end) : NAN;
  if (number > 0 && *end == '\0') {
    p += number;
    while (g_ascii_isspace (*p))
      p++;
    g_autofree char *suffix = g_strchomp (g_ascii_strup (p, -1));
    for (guint i = 0; i < G_N_ELEMENTS (units); i++) {
      if (!g_str_equal (suffix, units[i].suffix))
        continue;
      double total = floor (value * units[i].factor + 0.5);
      if (total < 1 || total >= 0x1p63)
        break;
      *bytes = (guint64) total;
      return TRUE;
    }
  }
  g_autofree char *shown = g_strescape (text, NULL);
  g_set_error (error, VALISE_ERROR, VALISE_ERROR_ARGUMENT, "\"%.100s\" is not a size: write it like 96M, 1.5G or 900MiB", shown);
  return FALSE;
}

char *valise_size_format (guint64 bytes)
{
  if (bytes < 1000)
    return g_strdup_printf ("%u B", (guint) bytes);
  if (bytes < 999950)
    return g_strdup_printf ("%.1f kB", bytes / 1e3);
  if (bytes < 999950000)
    return g_strdup_printf ("%.1f MB", bytes / 1e6);
  if (bytes < G_GUINT64_CONSTANT (999950000000))
    return g_strdup_printf ("%.2f GB", bytes / 1e9);
  return g_strdup_printf ("%.2f TB", bytes / 1e12);
}
