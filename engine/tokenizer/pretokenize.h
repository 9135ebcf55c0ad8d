/* pretokenize.h: where text is cut before tokens are looked for: one pattern or several, each within the pieces of the one before. Immutable
 * after creation: any thread. */
#ifndef ENG_PRETOKENIZE_H
#define ENG_PRETOKENIZE_H

#include "engine/tokenizer/pattern.h"

enum { ENG_PRE_MAX_STAGES = 8 };

typedef enum { ENG_PREFIX_NEVER, ENG_PREFIX_FIRST, ENG_PREFIX_ALWAYS } EngPrefix;

typedef struct EngPretokenizer EngPretokenizer;

/* By the name in tokenizer.ggml.pre. ENG_ERROR_UNSUPPORTED: it is not known. */
EngPretokenizer *eng_pretokenizer_new (const char *name, GError **error);
/* By the "pre_tokenizer" of a tokenizer.json, an object's text or "null". */
EngPretokenizer *eng_pretokenizer_new_json (const char *json, GError **error);
void eng_pretokenizer_free (EngPretokenizer *pre);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (EngPretokenizer, eng_pretokenizer_free)

/* What goes with a name and is not in the metadata. */
typedef struct {
  gboolean whole_words; /* a piece that is a token is taken whole, whatever the merges say */
  gboolean adds_bos;    /* when the metadata is silent */
  gboolean characters;  /* tokens are written in characters, spaces as U+2581, not in the byte-level alphabet */
  gboolean by_rank;     /* there may be no merges: two tokens merge if the text of both is one, the lowest numbers first */
} EngPretokenizerTraits;
EngPretokenizerTraits eng_pretokenizer_traits (const EngPretokenizer *pre);
guint eng_pretokenizer_n_stages (const EngPretokenizer *pre);
/* A space is put in front of what begins with none, of the pieces that the first *stage stages cut (0: of the text): of all, or of what
 * stands at the very beginning. */
EngPrefix eng_pretokenizer_prefix (const EngPretokenizer *pre, guint *stage);
/* The name under which the same cuts are published with these traits (but for adds_bos), or NULL. Slow. */
const char *eng_pretokenizer_find_name (const EngPretokenizer *pre, const EngPretokenizerTraits *traits);

/* A walk over one text, from its beginning to its end, by the stages first..last - 1. */
typedef struct {
  const EngPretokenizer *pre;
  guint first, last;
  struct {
    const char *piece_end;
    gboolean dropped;
    EngPatternTrail trail;
  } stages[ENG_PRE_MAX_STAGES];
} EngCut;
void eng_cut_init (EngCut *cut, const EngPretokenizer *pre, guint first, guint last);
void eng_cut_clear (EngCut *cut);
/* Bytes of the piece that begins at text (text < end): at least 1. dropped: it is no part of the tokens. The next call begins where it
 * ends, with the same end. */
gsize eng_cut_next (EngCut *cut, const char *text, const char *end, gboolean *dropped);

#endif
