/* normal_form.c: decomposition, canonical order, composition, each in one pass over an array of characters. (g_utf8_normalize takes
 * quadratic time for a long run of marks.) */
#include "engine/tokenizer/normal_form.h"

#include "engine/tokenizer/utf8.h"

#include <stdlib.h>

typedef struct {
  guint32 c;     /* from BYTE on: a byte that is no UTF-8 */
  guint32 order; /* canonical combining class, and in a run of marks the place among those of its class */
} Character;

enum { BYTE = 0x200000, FIRST_MARK = 0x300, MAX_DECOMPOSITION = 18 };

/* Below the first combining mark everything is composed, and below U+0080 decomposed as well. */
static gboolean is_plain (const char *text, const char *end, guint32 limit)
{
  while (text < end) {
    guint32 c;
    text += eng_utf8_next (text, end, &c);
    if (c >= limit)
      return FALSE;
  }
  return TRUE;
}

static void decompose (GArray *out, guint32 c, gboolean compatible)
{
  gunichar parts[MAX_DECOMPOSITION];
  gsize n = g_unichar_fully_decompose (c, compatible, parts, G_N_ELEMENTS (parts));
  for (gsize i = 0; i < n; i++) {
    Character character = { parts[i], (guint32) g_unichar_combining_class (parts[i]) };
    g_array_append_val (out, character);
  }
}

static int compare_order (const void *a, const void *b)
{
  const Character *x = a, *y = b;
  return (x->order > y->order) - (x->order < y->order);
}

/* Marks in a run by their class, those of one class as they stood. */
static void sort_marks (Character *characters, gsize n)
{
  for (gsize i = 0, begin = 0; i <= n; i++) {
    if (i < n && characters[i].order != 0)
      continue;
    gboolean sorted = TRUE;
    for (gsize k = begin + 1; k < i; k++)
      sorted &= characters[k - 1].order <= characters[k].order;
    if (!sorted) {
      g_autofree Character *run = g_memdup2 (characters + begin, (i - begin) * sizeof *run);
      for (gsize k = 0; k < i - begin; k++)
        run[k].order = run[k].order << 24 | (guint32) MIN (k, 0xFFFFFF);
      qsort (run, i - begin, sizeof *run, compare_order);
      for (gsize k = 0; k < i - begin; k++) {
        characters[begin + k] = run[k];
        characters[begin + k].order >>= 24;
      }
    }
    begin = i + 1;
  }
}

static gsize compose (Character *characters, gsize n)
{
  gsize kept = 0, starter = G_MAXSIZE;
  guint32 last = 0; /* class of what was kept after the starter */
  for (gsize i = 0; i < n; i++) {
    Character next = characters[i];
    gunichar both;
    gboolean adjacent = starter != G_MAXSIZE && kept == starter + 1;
    if (starter != G_MAXSIZE && (adjacent || last < next.order) && next.c < BYTE && characters[starter].c < BYTE &&
        g_unichar_compose (characters[starter].c, next.c, &both)) {
      characters[starter].c = both;
      continue;
    }
    if (next.order == 0)
      starter = kept;
    last = next.order;
    characters[kept++] = next;
  }
  return kept;
}

void eng_normal_form (const char *text, gsize length, gboolean compatible, gboolean composed, GString *out)
{
  const char *end = text + length;
  if (is_plain (text, end, composed && !compatible ? FIRST_MARK : 0x80)) {
    g_string_append_len (out, text, (gssize) length);
    return;
  }
  g_autoptr (GArray) characters = g_array_sized_new (FALSE, FALSE, sizeof (Character), (guint) length);
  while (text < end) {
    guint32 c;
    guint n = eng_utf8_next (text, end, &c);
    if (c == ENG_UTF8_BROKEN) {
      Character byte = { BYTE + (guint8) *text, 0 };
      g_array_append_val (characters, byte);
    } else {
      decompose (characters, c, compatible);
    }
    text += n;
  }
  Character *list = (Character *) (gpointer) characters->data;
  gsize n = characters->len;
  sort_marks (list, n);
  if (composed)
    n = compose (list, n);
  for (gsize i = 0; i < n; i++) {
    if (list[i].c >= BYTE)
      g_string_append_c (out, (char) (list[i].c - BYTE));
    else
      g_string_append_unichar (out, list[i].c);
  }
}
