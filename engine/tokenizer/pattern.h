/* pattern.h: the regular expressions that tokenizers publish, compiled to a finite automaton over classes of characters, so that a text is
 * cut in linear time whatever it holds. Meaning: Oniguruma's, which the tokenizers package matches with: leftmost, and of several
 * matches the one that backtracking would find first. Immutable after creation: any thread. */
#ifndef ENG_PATTERN_H
#define ENG_PATTERN_H

#include <glib.h>

typedef struct EngPattern EngPattern;

/* Classes, properties, groups, alternatives, greedy and lazy repetition, (?i:...), possessive repetition of one class, and looking ahead
 * at one character. Back references, looking behind, longer look-aheads and what matches an empty text are refused by name. */
EngPattern *eng_pattern_new (const char *regex, GError **error);
/* What matches just this text, as a regular expression. */
char *eng_pattern_quote (const char *text);
/* Whether both match the same; TRUE may be missed where they say it differently. */
gboolean eng_pattern_equal (const EngPattern *a, const EngPattern *b);
void eng_pattern_free (EngPattern *pattern);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (EngPattern, eng_pattern_free)

/* What a search over one text remembers: the states that the last attempt went through. An attempt that comes into the same state at the
 * same place ends as that one did, which is what keeps a search linear where attempts look further than they match. { 0 } to begin. */
typedef struct {
  gboolean of_bytes;        /* set by the caller: the text is one of bytes, each matched as its character in the byte-level alphabet */
  const char *base, *limit; /* the stretch of text that states are known of ... */
  const char *end;          /* ... where the text ends there */
  const char *accept;       /* where that attempt's match ended, or NULL */
  guint16 *states;          /* [limit - base] */
  gsize capacity;
} EngPatternTrail;
void eng_pattern_trail_clear (EngPatternTrail *trail);

/* Bytes of the match at `text`, 0 when there is none. Any bytes: those that are no UTF-8 count as unassigned characters. */
gsize eng_pattern_match (const EngPattern *pattern, EngPatternTrail *trail, const char *text, const char *end);

#endif
