/* pattern.c: a program made into a finite automaton beforehand. A state is the list of places where threads wait, the preferred ones
 * first; the character that comes decides which look-aheads hold, whether there is a match before it, and the next state. Characters that
 * all sets treat alike are one class. */
#include "engine/tokenizer/pattern_private.h"

#include "engine/error.h"
#include "engine/tokenizer/byte_alphabet.h"
#include "engine/tokenizer/utf8.h"

#include <string.h>

enum { PAGE = 256, N_PAGES = (ENG_LAST_CODE + 1) / PAGE, MAX_CLASSES = 255, MAX_CELLS = 1 << 20, DEAD = 0, START = 1, ACCEPTS = 0x8000, STATE = 0x7FFF };

struct EngPattern {
  guint8 *pages;     /* [n_pages][PAGE] class of a character */
  guint16 page_of[N_PAGES];
  guint n_pages, n_states;
  guint n_classes;   /* the last one is the end of the text */
  guint16 *next;     /* [n_states][n_classes] state, and ACCEPTS when the text so far is a match */
};

/* ---- classes of characters ------------------------------------------------------------------------------------------------ */

static gint compare_codes (gconstpointer a, gconstpointer b)
{
  guint32 x = *(const guint32 *) a, y = *(const guint32 *) b;
  return (x > y) - (x < y);
}

/* Where membership in any of the sets may change. */
static GArray *borders_of (const EngProgram *program)
{
  GArray *borders = g_array_new (FALSE, FALSE, sizeof (guint32));
  guint32 first = 0, end = ENG_LAST_CODE + 1;
  g_array_append_val (borders, first);
  for (guint i = 0; i < program->sets->len; i++) {
    const GArray *set = g_ptr_array_index (program->sets, i);
    for (guint j = 0; j < set->len; j++) {
      const EngRange *range = &g_array_index (set, EngRange, j);
      guint32 after = range->last + 1;
      g_array_append_val (borders, range->first);
      g_array_append_val (borders, after);
    }
  }
  g_array_append_val (borders, end);
  g_array_sort (borders, compare_codes);
  return borders;
}

/* Which sets hold c, one byte each. */
static GBytes *membership (const EngProgram *program, guint32 c)
{
  guint n = program->sets->len;
  guint8 *in = g_malloc (MAX (n, 1));
  for (guint i = 0; i < n; i++)
    in[i] = (guint8) eng_charset_has (g_ptr_array_index (program->sets, i), c);
  return g_bytes_new_take (in, n);
}

typedef struct {
  GPtrArray *members;   /* [class] GBytes, which sets hold its characters */
  GHashTable *numbers;  /* GBytes -> class + 1 */
  GByteArray *pages;
  GHashTable *page_numbers; /* GBytes -> page + 1 */
  guint16 uniform[MAX_CLASSES]; /* page + 1 of nothing but one class */
} Classes;

static guint class_of (Classes *classes, const EngProgram *program, guint32 c)
{
  GBytes *in = membership (program, c);
  guint number = GPOINTER_TO_UINT (g_hash_table_lookup (classes->numbers, in));
  if (number > 0) {
    g_bytes_unref (in);
    return number - 1;
  }
  g_ptr_array_add (classes->members, in);
  g_hash_table_insert (classes->numbers, in, GUINT_TO_POINTER (classes->members->len));
  return classes->members->len - 1;
}

static guint16 add_page (Classes *classes, const guint8 *page)
{
  GBytes *bytes = g_bytes_new (page, PAGE);
  guint number = GPOINTER_TO_UINT (g_hash_table_lookup (classes->page_numbers, bytes));
  if (number == 0) {
    g_byte_array_append (classes->pages, page, PAGE);
    number = classes->pages->len / PAGE;
    g_hash_table_insert (classes->page_numbers, g_bytes_ref (bytes), GUINT_TO_POINTER (number));
  }
  g_bytes_unref (bytes);
  return (guint16) (number - 1);
}

/* Most pages are of one class. */
static guint16 uniform_page (Classes *classes, guint class)
{
  if (classes->uniform[class] == 0) {
    guint8 page[PAGE];
    memset (page, (int) class, sizeof page);
    classes->uniform[class] = (guint16) (add_page (classes, page) + 1);
  }
  return (guint16) (classes->uniform[class] - 1);
}

/* FALSE: more classes than a byte can number. */
static gboolean build_classes (EngPattern *pattern, Classes *classes, const EngProgram *program)
{
  g_autoptr (GArray) borders = borders_of (program);
  guint8 page[PAGE];
  for (guint i = 0; i + 1 < borders->len; i++) {
    guint32 c = g_array_index (borders, guint32, i), end = g_array_index (borders, guint32, i + 1);
    if (c == end)
      continue;
    guint class = class_of (classes, program, c);
    if (class >= MAX_CLASSES)
      return FALSE;
    while (c < end) {
      if (c % PAGE == 0 && end - c >= PAGE) {
        pattern->page_of[c / PAGE] = uniform_page (classes, class);
        c += PAGE;
        continue;
      }
      page[c % PAGE] = (guint8) class;
      if (c % PAGE == PAGE - 1)
        pattern->page_of[c / PAGE] = add_page (classes, page);
      c++;
    }
  }
  pattern->n_classes = classes->members->len + 1;
  return TRUE;
}

/* ---- the automaton -------------------------------------------------------------------------------------------------------- */

typedef struct {
  const EngProgram *program;
  const Classes *classes;
  GPtrArray *states;    /* [state] GBytes: the places where its threads wait, guint32 each */
  GHashTable *numbers;  /* GBytes -> state */
  GArray *next;
  GArray *waiting;      /* of the state that is being made */
  guint32 *seen, *queued, generation; /* [code] last step in which a thread came by, or was put into waiting */
  GArray *stack;
} Builder;

static guint state_of (Builder *b)
{
  if (b->waiting->len == 0)
    return DEAD;
  GBytes *places = g_bytes_new (b->waiting->data, b->waiting->len * sizeof (guint32));
  guint number = GPOINTER_TO_UINT (g_hash_table_lookup (b->numbers, places));
  if (number > 0) {
    g_bytes_unref (places);
    return number;
  }
  g_ptr_array_add (b->states, places);
  g_hash_table_insert (b->numbers, places, GUINT_TO_POINTER (b->states->len - 1));
  return b->states->len - 1;
}

/* class n_classes - 1 is the end of the text. */
static gboolean holds (const Builder *b, guint32 set, guint class)
{
  if (class >= b->classes->members->len)
    return FALSE;
  return ((const guint8 *) g_bytes_get_data (g_ptr_array_index (b->classes->members, class), NULL))[set] != 0;
}

/* What a state becomes by a character of a class. */
static guint16 step (Builder *b, guint state, guint class)
{
  gsize size;
  const guint32 *places = g_bytes_get_data (g_ptr_array_index (b->states, state), &size);
  gboolean at_end = class >= b->classes->members->len, accepts = FALSE;
  b->generation++;
  g_array_set_size (b->waiting, 0);
  g_array_set_size (b->stack, 0);
  for (gsize i = size / sizeof *places; i > 0; i--)
    g_array_append_val (b->stack, places[i - 1]);
  while (b->stack->len > 0) {
    guint32 at = g_array_index (b->stack, guint32, b->stack->len - 1), onwards = at + 1;
    g_array_set_size (b->stack, b->stack->len - 1);
    if (b->seen[at] == b->generation)
      continue;
    b->seen[at] = b->generation;
    const EngInstruction *instruction = &g_array_index (b->program->code, EngInstruction, at);
    if (instruction->op == ENG_OP_MATCH) { /* those of less preference have lost */
      accepts = TRUE;
      break;
    }
    switch (instruction->op) {
    case ENG_OP_SET:
      if (holds (b, instruction->a, class) && b->queued[onwards] != b->generation) {
        b->queued[onwards] = b->generation;
        g_array_append_val (b->waiting, onwards);
      }
      break;
    case ENG_OP_LOOK:
      if (at_end ? instruction->b != 0 : holds (b, instruction->a, class))
        g_array_append_val (b->stack, onwards);
      break;
    case ENG_OP_SPLIT:
      g_array_append_val (b->stack, instruction->b);
      g_array_append_val (b->stack, instruction->a);
      break;
    default:
      g_array_append_val (b->stack, instruction->a);
      break;
    }
  }
  return (guint16) (state_of (b) | (accepts ? ACCEPTS : 0));
}

/* FALSE: too many states. */
static gboolean build_states (EngPattern *pattern, const Classes *classes, const EngProgram *program)
{
  guint n_code = program->code->len;
  Builder b = { program, classes, g_ptr_array_new (), g_hash_table_new_full (g_bytes_hash, g_bytes_equal, (GDestroyNotify) g_bytes_unref, NULL),
                g_array_new (FALSE, FALSE, sizeof (guint16)), g_array_new (FALSE, FALSE, sizeof (guint32)), g_new0 (guint32, n_code + 1),
                g_new0 (guint32, n_code + 1), 0, g_array_new (FALSE, FALSE, sizeof (guint32)) };
  guint32 beginning = 0;
  gboolean fits = TRUE;
  g_ptr_array_add (b.states, NULL); /* DEAD */
  g_array_set_size (b.next, pattern->n_classes);
  memset (b.next->data, 0, pattern->n_classes * sizeof (guint16));
  g_array_append_val (b.waiting, beginning);
  state_of (&b); /* START */
  for (guint state = START; fits && state < b.states->len; state++) {
    for (guint class = 0; class < pattern->n_classes; class++) {
      guint16 next = step (&b, state, class);
      g_array_append_val (b.next, next);
    }
    fits = b.states->len < STATE && b.states->len * pattern->n_classes <= MAX_CELLS;
  }
  g_array_unref (b.waiting);
  g_array_unref (b.stack);
  g_free (b.seen);
  g_free (b.queued);
  pattern->n_states = b.states->len;
  g_hash_table_unref (b.numbers);
  g_ptr_array_unref (b.states);
  pattern->next = (guint16 *) (gpointer) g_array_free (b.next, FALSE);
  return fits;
}

static gboolean matches_nothing (const EngPattern *pattern)
{
  for (guint class = 0; class < pattern->n_classes; class++)
    if ((pattern->next[START * pattern->n_classes + class] & ACCEPTS) != 0)
      return TRUE;
  return FALSE;
}

EngPattern *eng_pattern_new (const char *regex, GError **error)
{
  EngProgram program;
  if (!eng_program_compile (&program, regex, FALSE, error))
    return NULL;
  EngPattern *pattern = g_new0 (EngPattern, 1);
  Classes classes = { g_ptr_array_new_with_free_func ((GDestroyNotify) g_bytes_unref), g_hash_table_new (g_bytes_hash, g_bytes_equal), g_byte_array_new (),
                      g_hash_table_new_full (g_bytes_hash, g_bytes_equal, (GDestroyNotify) g_bytes_unref, NULL), { 0 } };
  gboolean fits = build_classes (pattern, &classes, &program) && build_states (pattern, &classes, &program);
  g_hash_table_unref (classes.numbers);
  g_hash_table_unref (classes.page_numbers);
  g_ptr_array_unref (classes.members);
  pattern->n_pages = classes.pages->len / PAGE;
  pattern->pages = g_byte_array_free (classes.pages, FALSE);
  eng_program_clear (&program);
  if (fits && !matches_nothing (pattern))
    return pattern;
  g_set_error (error, ENG_ERROR, ENG_ERROR_UNSUPPORTED, "the pattern \"%s\" cannot be used: %s", regex,
               fits ? "it matches where there is nothing" : "it is too large");
  eng_pattern_free (pattern);
  return NULL;
}

char *eng_pattern_quote (const char *text)
{
  GString *regex = g_string_new (NULL);
  for (; *text != '\0'; text++) {
    if ((guint8) *text < 0x80 && !g_ascii_isalnum (*text))
      g_string_append_c (regex, '\\');
    g_string_append_c (regex, *text);
  }
  return g_string_free (regex, FALSE);
}

gboolean eng_pattern_equal (const EngPattern *a, const EngPattern *b)
{
  return a->n_classes == b->n_classes && a->n_states == b->n_states && a->n_pages == b->n_pages &&
         memcmp (a->page_of, b->page_of, sizeof a->page_of) == 0 && memcmp (a->pages, b->pages, (gsize) a->n_pages * PAGE) == 0 &&
         memcmp (a->next, b->next, (gsize) a->n_states * a->n_classes * sizeof *a->next) == 0;
}

void eng_pattern_free (EngPattern *pattern)
{
  if (pattern == NULL)
    return;
  g_free (pattern->pages);
  g_free (pattern->next);
  g_free (pattern);
}

/* ---- matching ------------------------------------------------------------------------------------------------------------- */

void eng_pattern_trail_clear (EngPatternTrail *trail)
{
  g_free (trail->states);
  *trail = (EngPatternTrail){ .of_bytes = trail->of_bytes };
}

/* A short stretch is walked again sooner than kept: the trail begins anew, so that it does not grow with the text. */
static void begin_trail (EngPatternTrail *trail, const char *text, const char *end)
{
  enum { SHORT = 64 };
  if (trail->base != NULL && trail->end == end && text >= trail->base && text + SHORT < trail->limit)
    return;
  trail->base = trail->limit = text;
  trail->end = end;
  trail->accept = NULL;
}

static void remember (EngPatternTrail *trail, const char *at, guint16 state)
{
  gsize i = (gsize) (at - trail->base);
  if (i >= trail->capacity) {
    trail->capacity = MAX (64, 2 * (i + 1));
    trail->states = g_renew (guint16, trail->states, trail->capacity);
  }
  for (; trail->limit <= at; trail->limit++)
    trail->states[trail->limit - trail->base] = DEAD; /* bytes inside a character, or passed over */
  trail->states[i] = state;
}

gsize eng_pattern_match (const EngPattern *pattern, EngPatternTrail *trail, const char *text, const char *end)
{
  guint state = START;
  const char *accept = NULL, *p = text;
  begin_trail (trail, text, end);
  for (;;) {
    if (p < trail->limit && trail->states[p - trail->base] == state) { /* as the last time */
      accept = trail->accept != NULL && trail->accept >= p ? trail->accept : accept;
      break;
    }
    remember (trail, p, (guint16) state);
    guint32 c = 0;
    guint n = 0, class = pattern->n_classes - 1;
    if (p < end) {
      n = trail->of_bytes ? 1 : eng_utf8_next (p, end, &c);
      c = trail->of_bytes ? eng_byte_character ((guint8) *p) : c == ENG_UTF8_BROKEN ? ENG_LAST_CODE : c;
      class = pattern->pages[pattern->page_of[c / PAGE] * PAGE + c % PAGE];
    }
    guint next = pattern->next[state * pattern->n_classes + class];
    if ((next & ACCEPTS) != 0)
      accept = p;
    state = next & STATE;
    p += n;
    if (state == DEAD)
      break;
  }
  trail->accept = accept;
  if (state == DEAD)
    trail->limit = MIN (trail->limit, p); /* what an earlier attempt left further on belongs to another way */
  return accept != NULL ? (gsize) (accept - text) : 0;
}
