/* progress_text.c: the layers below know no languages; their few sentences are listed here for the translators. */
#include "app/ui/progress_text.h"

#include <glib/gi18n.h>

const char *valise_progress_text (const char *what)
{
  /* Translators: these are said while something goes on, beside a bar. */
  static const char *const known[] = {
    NC_ ("progress", "Reading the calibration text"), NC_ ("progress", "Measuring what matters"),
    NC_ ("progress", "Weighing each part of the model"), NC_ ("progress", "Analysed"), NC_ ("progress", "Packing the model"),
    NC_ ("progress", "Measuring the result"), NC_ ("progress", "copying"), NC_ ("progress", "reading"),
    NC_ ("progress", "the saved analysis cannot be used any more, analysing again"),
    NC_ ("progress", "the packed copy cannot be used any more, packing again") };
  for (gsize i = 0; what && i < G_N_ELEMENTS (known); i++)
    if (g_str_equal (what, known[i]))
      return g_dpgettext2 (GETTEXT_PACKAGE, "progress", what);
  return what;
}
