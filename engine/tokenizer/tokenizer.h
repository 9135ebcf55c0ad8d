/* tokenizer.h: text to tokens and back. Immutable after creation: any thread. */
#ifndef ENG_TOKENIZER_H
#define ENG_TOKENIZER_H

#include "engine/span.h"
#include "engine/tokenizer/vocab.h"

typedef struct EngTokenizer EngTokenizer;

/* From a file's metadata. */
EngTokenizer *eng_tokenizer_new (const EngGguf *gguf, GError **error);
/* Checks that tokens, types and merges are consistent. The vocabulary is not needed afterwards. */
EngTokenizer *eng_tokenizer_new_from_vocab (const EngVocab *vocab, GError **error);
void eng_tokenizer_free (EngTokenizer *tokenizer);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (EngTokenizer, eng_tokenizer_free)

guint eng_tokenizer_n_tokens (const EngTokenizer *t);
int eng_tokenizer_bos (const EngTokenizer *t); /* -1: none */
int eng_tokenizer_eos (const EngTokenizer *t);
gboolean eng_tokenizer_adds_bos (const EngTokenizer *t); /* the metadata's wish */
gboolean eng_tokenizer_is_end (const EngTokenizer *t, int token); /* eos, eot, <|im_end|>, ... */
gboolean eng_tokenizer_is_control (const EngTokenizer *t, int token);

typedef enum { ENG_TOKENIZE_PLAIN = 0, ENG_TOKENIZE_SPECIAL = 1 /* recognise control tokens in the text */ } EngTokenizeFlags;

/* Appends the tokens of text[length] (any bytes; invalid UTF-8 becomes byte tokens) to `out` (GArray of gint32). No BOS is added. Control
 * tokens, and others that the chat template writes (<think>, <tool_call>), are recognised with ENG_TOKENIZE_SPECIAL only. */
void eng_tokenizer_encode (const EngTokenizer *t, const char *text, gssize length, EngTokenizeFlags flags, GArray *out);
/* The same, plain, of a text that stands alone: BOS in front if the metadata asks for it. */
void eng_tokenizer_encode_whole (const EngTokenizer *t, const char *text, gssize length, GArray *out);
/* The same of a prompt: those tokens are recognised outside of the literals (in order, apart), and for the rest the text is one. */
void eng_tokenizer_encode_prompt (const EngTokenizer *t, const char *text, gsize length, const EngSpan *literals, guint n_literals, GArray *out);
/* Bytes of one token as text (not NUL-terminated; may be part of a character). Control tokens give "" unless `special`. */
const char *eng_tokenizer_piece (const EngTokenizer *t, int token, gboolean special, gsize *length);

/* Streaming detokenizer: push tokens, take whole UTF-8 characters. */
typedef struct EngDetokenizer EngDetokenizer;
EngDetokenizer *eng_detokenizer_new (const EngTokenizer *t);
void eng_detokenizer_free (EngDetokenizer *d);
/* Newly complete text, valid until the next call; "" if none. */
const char *eng_detokenizer_push (EngDetokenizer *d, int token);
/* What is left at the end, broken characters as U+FFFD. */
const char *eng_detokenizer_flush (EngDetokenizer *d);

#endif
