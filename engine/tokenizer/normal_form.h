/* normal_form.h: Unicode's normal forms, UAX 15, by GLib's tables. */
#ifndef ENG_NORMAL_FORM_H
#define ENG_NORMAL_FORM_H

#include <glib.h>

/* Appends text[length] (any bytes) to out, decomposed (canonically, or by compatibility) and then, if wanted, composed again. */
void eng_normal_form (const char *text, gsize length, gboolean compatible, gboolean composed, GString *out);

#endif
