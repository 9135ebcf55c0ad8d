/* normalize.h: what is done to a text before it is cut: Unicode's normal forms (UAX 15), SentencePiece's map of characters, replacements.
 * Linear in the text, whatever it holds. Immutable after creation: any thread. */
#ifndef ENG_NORMALIZE_H
#define ENG_NORMALIZE_H

#include <glib.h>

typedef struct EngNormalizer EngNormalizer;

/* By the "normalizer" of a tokenizer.json, an object's text or "null". */
EngNormalizer *eng_normalizer_new_json (const char *json, GError **error);
/* SentencePiece's: its map of characters, or NULL; and whether spaces at both ends go and those between words are one each. */
EngNormalizer *eng_normalizer_new_sentencepiece (GBytes *charsmap, gboolean trims_spaces, GError **error);
void eng_normalizer_free (EngNormalizer *normalizer);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (EngNormalizer, eng_normalizer_free)

/* Puts the normalised text in place of what is in `text`. Any bytes: those that are no UTF-8 stay. */
void eng_normalizer_apply (const EngNormalizer *normalizer, GString *text);

#endif
