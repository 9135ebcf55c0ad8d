/* matcher.h: how far a text has come in a grammar, and which tokens may follow. Steps are remembered, so that what a grammar asks for again and
 * again (the inside of a string) costs a look-up. One thread at a time. */
#ifndef ENG_MATCHER_H
#define ENG_MATCHER_H

#include "engine/grammar/grammar.h"
#include "engine/tokenizer/tokenizer.h"

/* What tokens are in bytes; made once for a vocabulary. Control tokens are left out, but those of which `marks` (may be NULL) says that they are text to a
 * grammar as well. Immutable: any thread. The tokenizer stays the caller's, and must stay. */
typedef struct EngTokenBytes EngTokenBytes;
typedef gboolean (*EngMarkFunc) (const char *piece, gsize length);
EngTokenBytes *eng_token_bytes_new (const EngTokenizer *tokenizer, EngMarkFunc marks);
/* A token's text to a grammar; *length 0: none. */
const char *eng_token_bytes_piece (const EngTokenBytes *bytes, gint32 token, gsize *length);
void eng_token_bytes_free (EngTokenBytes *bytes);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (EngTokenBytes, eng_token_bytes_free)

typedef struct EngMatcher EngMatcher;
EngMatcher *eng_matcher_new (EngGrammar *grammar);
void eng_matcher_free (EngMatcher *matcher);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (EngMatcher, eng_matcher_free)

/* Takes bytes. FALSE: the grammar does not allow them here, and the matcher stays where it was. */
gboolean eng_matcher_take (EngMatcher *matcher, const char *bytes, gsize length);
/* Whether the text may end here; and whether it has to. */
gboolean eng_matcher_may_end (const EngMatcher *matcher);
gboolean eng_matcher_is_complete (const EngMatcher *matcher);
/* Whether the grammar reads some text in more ways than are followed (thousands): what it allows may then be missing. */
gboolean eng_matcher_overflowed (const EngMatcher *matcher);
/* The tokens that may follow, a bit each: [(n_tokens + 31) / 32], valid until the next call. Bits of tokens that end a turn are not set: ask
 * eng_matcher_may_end. */
const guint32 *eng_matcher_mask (EngMatcher *matcher, const EngTokenBytes *bytes);

#endif
