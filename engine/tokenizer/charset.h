/* charset.h: sets of code points as sorted ranges, and Unicode's own: categories, scripts, white space. The categories are GLib's tables,
 * which its build generates from UnicodeData.txt. */
#ifndef ENG_CHARSET_H
#define ENG_CHARSET_H

#include <glib.h>

enum { ENG_LAST_CODE = 0x10FFFF };

typedef struct { guint32 first, last; } EngRange;

/* A GArray of EngRange, in order and apart from one another. The caller unrefs what is returned. */
GArray *eng_charset_new (void);
/* Ranges in any order, overlapping or not, until eng_charset_tidy. */
void eng_charset_add (GArray *set, guint32 first, guint32 last);
void eng_charset_add_set (GArray *set, const GArray *other);
void eng_charset_tidy (GArray *set);
GArray *eng_charset_complement (const GArray *set);
GArray *eng_charset_intersection (const GArray *a, const GArray *b);
gboolean eng_charset_has (const GArray *set, guint32 c);

/* Pairs of first and last: "09az". */
GArray *eng_charset_of_ascii (const char *pairs);

/* "L", "Lu", "Letter", "Han", "Alphabetic", ...; NULL for a name that is not known. */
GArray *eng_charset_property (const char *name, gsize length);
/* \s: the White_Space property. */
GArray *eng_charset_space (void);
gboolean eng_is_space (guint32 c);
/* \w: letters, marks, numbers and connecting punctuation. */
GArray *eng_charset_word (void);

#endif
