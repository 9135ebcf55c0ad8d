/* charset.c: sets of code points as sorted ranges. Each Unicode category is the union of runs that are found once, by asking GLib for
 * every code point. */
#include "engine/tokenizer/charset.h"

#include <glib-object.h>
#include <string.h>

typedef struct { guint32 first; guint32 kind; } Run; /* up to the next one's first */

static GArray *runs_of (guint32 (*kind_of) (gunichar c))
{
  GArray *runs = g_array_new (FALSE, FALSE, sizeof (Run));
  for (guint32 c = 0; c <= ENG_LAST_CODE; c++) {
    Run run = { c, kind_of (c) };
    if (runs->len == 0 || g_array_index (runs, Run, runs->len - 1).kind != run.kind)
      g_array_append_val (runs, run);
  }
  Run end = { ENG_LAST_CODE + 1, G_MAXUINT32 };
  g_array_append_val (runs, end);
  return runs;
}

static guint32 category_of (gunichar c)
{
  return (guint32) g_unichar_type (c);
}

static guint32 script_of (gunichar c)
{
  return (guint32) g_unichar_get_script (c);
}

static const GArray *categories (void)
{
  static gsize once;
  if (g_once_init_enter (&once))
    g_once_init_leave (&once, (gsize) runs_of (category_of));
  return (const GArray *) once;
}

static const GArray *scripts (void)
{
  static gsize once;
  if (g_once_init_enter (&once))
    g_once_init_leave (&once, (gsize) runs_of (script_of));
  return (const GArray *) once;
}

GArray *eng_charset_new (void)
{
  return g_array_new (FALSE, FALSE, sizeof (EngRange));
}

void eng_charset_add (GArray *set, guint32 first, guint32 last)
{
  EngRange range = { first, last };
  g_array_append_val (set, range);
}

void eng_charset_add_set (GArray *set, const GArray *other)
{
  g_array_append_vals (set, other->data, other->len);
}

static gint compare_ranges (gconstpointer a, gconstpointer b)
{
  const EngRange *x = a, *y = b;
  return (x->first > y->first) - (x->first < y->first);
}

void eng_charset_tidy (GArray *set)
{
  guint kept = 0;
  g_array_sort (set, compare_ranges);
  EngRange *ranges = (EngRange *) (gpointer) set->data;
  for (guint i = 0; i < set->len; i++) {
    if (kept > 0 && ranges[i].first <= ranges[kept - 1].last + 1)
      ranges[kept - 1].last = MAX (ranges[kept - 1].last, ranges[i].last);
    else
      ranges[kept++] = ranges[i];
  }
  g_array_set_size (set, kept);
}

GArray *eng_charset_of_ascii (const char *pairs)
{
  GArray *set = eng_charset_new ();
  for (; *pairs != '\0'; pairs += 2)
    eng_charset_add (set, (guint8) pairs[0], (guint8) pairs[1]);
  eng_charset_tidy (set);
  return set;
}

GArray *eng_charset_complement (const GArray *set)
{
  GArray *result = eng_charset_new ();
  guint32 next = 0;
  for (guint i = 0; i < set->len; i++) {
    const EngRange *range = &g_array_index (set, EngRange, i);
    if (range->first > next)
      eng_charset_add (result, next, range->first - 1);
    next = range->last + 1;
  }
  if (next <= ENG_LAST_CODE)
    eng_charset_add (result, next, ENG_LAST_CODE);
  return result;
}

GArray *eng_charset_intersection (const GArray *a, const GArray *b)
{
  GArray *result = eng_charset_new ();
  for (guint i = 0, j = 0; i < a->len && j < b->len;) {
    const EngRange *x = &g_array_index (a, EngRange, i), *y = &g_array_index (b, EngRange, j);
    guint32 first = MAX (x->first, y->first), last = MIN (x->last, y->last);
    if (first <= last)
      eng_charset_add (result, first, last);
    if (x->last < y->last)
      i++;
    else
      j++;
  }
  return result;
}

gboolean eng_charset_has (const GArray *set, guint32 c)
{
  guint low = 0, high = set->len;
  while (low < high) {
    guint middle = (low + high) / 2;
    if (c > g_array_index (set, EngRange, middle).last)
      low = middle + 1;
    else
      high = middle;
  }
  return low < set->len && c >= g_array_index (set, EngRange, low).first;
}

/* ---- Unicode's sets ------------------------------------------------------------------------------------------------------- */

gboolean eng_is_space (guint32 c)
{
  if (c < 0x80)
    return c == ' ' || (c >= 9 && c <= 13);
  return c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F ||
         c == 0x205F || c == 0x3000;
}

GArray *eng_charset_space (void)
{
  GArray *set = eng_charset_new ();
  for (guint32 c = 0; c <= 0x3000; c++)
    if (eng_is_space (c))
      eng_charset_add (set, c, c);
  eng_charset_tidy (set);
  return set;
}

static GArray *of_runs (const GArray *runs, guint64 wanted, guint32 only)
{
  GArray *set = eng_charset_new ();
  for (guint i = 0; i + 1 < runs->len; i++) {
    const Run *run = &g_array_index (runs, Run, i);
    if (only != G_MAXUINT32 ? run->kind == only : (wanted >> run->kind & 1) != 0)
      eng_charset_add (set, run->first, run[1].first - 1);
  }
  eng_charset_tidy (set);
  return set;
}

/* Two letters each, in the order of GUnicodeType. */
static const char category_names[][3] = { "Cc", "Cf", "Cn", "Co", "Cs", "Ll", "Lm", "Lo", "Lt", "Lu", "Mc", "Me", "Mn", "Nd", "Nl",
                                          "No", "Pc", "Pd", "Pe", "Pf", "Pi", "Po", "Ps", "Sc", "Sk", "Sm", "So", "Zl", "Zp", "Zs" };

static guint64 category_mask (const char *name, gsize length)
{
  guint64 mask = 0;
  for (guint i = 0; i < G_N_ELEMENTS (category_names); i++)
    if (length >= 1 && length <= 2 && strncmp (category_names[i], name, length) == 0)
      mask |= G_GUINT64_CONSTANT (1) << i;
  return mask;
}

GArray *eng_charset_word (void)
{
  return of_runs (categories (), category_mask ("L", 1) | category_mask ("M", 1) | category_mask ("N", 1) | category_mask ("Pc", 2), G_MAXUINT32);
}

GArray *eng_charset_property (const char *name, gsize length)
{
  static const struct { const char *name, *category; } longer[] = {
    { "letter", "L" }, { "lowercase_letter", "Ll" }, { "uppercase_letter", "Lu" }, { "titlecase_letter", "Lt" }, { "modifier_letter", "Lm" },
    { "other_letter", "Lo" }, { "mark", "M" }, { "nonspacing_mark", "Mn" }, { "spacing_mark", "Mc" }, { "enclosing_mark", "Me" }, { "number", "N" },
    { "decimal_number", "Nd" }, { "letter_number", "Nl" }, { "other_number", "No" }, { "punctuation", "P" }, { "punct", "P" }, { "symbol", "S" },
    { "math_symbol", "Sm" }, { "currency_symbol", "Sc" }, { "separator", "Z" }, { "other", "C" }, { "control", "Cc" },
  };
  g_autofree char *lower = g_ascii_strdown (name, (gssize) length);
  guint64 mask = category_mask (name, length);
  for (guint i = 0; i < G_N_ELEMENTS (longer) && mask == 0; i++)
    if (g_str_equal (lower, longer[i].name))
      mask = category_mask (longer[i].category, strlen (longer[i].category));
  if (mask != 0)
    return of_runs (categories (), mask, G_MAXUINT32);
  for (char *p = lower; *p != '\0'; p++)
    *p = *p == '_' ? '-' : *p;
  g_autoptr (GEnumClass) class = g_type_class_ref (G_TYPE_UNICODE_SCRIPT);
  const GEnumValue *script = g_enum_get_value_by_nick (class, lower);
  return script != NULL ? of_runs (scripts (), 0, (guint32) script->value) : NULL;
}
