/* tokenizer_private.h: the vocabulary in memory: one block of bytes and flat tables, a few MB for any vocabulary. */
#ifndef ENG_TOKENIZER_PRIVATE_H
#define ENG_TOKENIZER_PRIVATE_H

#include "engine/tokenizer/pretokenize.h"
#include "engine/tokenizer/tokenizer.h"

#define ENG_NO_TOKEN G_MAXUINT32

typedef enum { ENG_VOCAB_BYTE_BPE, ENG_VOCAB_SPM } EngVocabModel;

enum { /* per token */
  ENG_TOKEN_CONTROL = 1,      /* never made from plain text, no text of its own */
  ENG_TOKEN_USER_DEFINED = 2, /* always recognised in text */
  ENG_TOKEN_END = 4           /* ends a turn */
};

typedef struct { guint32 left, right, result; } EngMerge; /* its index is its rank */

struct EngTokenizer {
  EngVocabModel model;
  EngPretokenizer rules;
  gboolean whole_words, adds_bos, space_prefix;
  int bos, eos, unknown;
  guint n_tokens;
  guint max_token_bytes;
  char *bytes;              /* every token's text, as it appears in a document, one after the other */
  guint32 *offsets;         /* [n_tokens + 1] into bytes */
  guint8 *flags;            /* [n_tokens] */
  float *scores;            /* [n_tokens], SPM only */
  guint32 byte_tokens[256]; /* the token of a single byte, or ENG_NO_TOKEN */
  guint64 seed;             /* of both hashes, so that a file cannot choose collisions */
  guint32 *text_slots;      /* [text_mask + 1] token numbers, open addressing */
  guint32 text_mask;
  EngMerge *merges;         /* [n_merges] in rank order, BPE only */
  guint32 n_merges;
  guint32 *pair_slots;      /* [pair_mask + 1] ranks */
  guint32 pair_mask;
  guint32 *specials;        /* control and user-defined tokens in byte order of their text */
  guint32 n_specials;
  gboolean special_first[256]; /* a special token begins with this byte */
};

static inline const char *eng_token_text (const EngTokenizer *t, guint32 token, gsize *length)
{
  *length = t->offsets[token + 1] - t->offsets[token];
  return t->bytes + t->offsets[token];
}

/* vocab_tables.c */
void eng_vocab_build_text_table (EngTokenizer *t);
/* FALSE when the text is there already; *other is then its token. */
gboolean eng_vocab_add_text (EngTokenizer *t, guint32 token, guint32 *other);
guint32 eng_vocab_find_text (const EngTokenizer *t, const char *text, gsize length);
void eng_vocab_build_pair_table (EngTokenizer *t);
gboolean eng_vocab_add_pair (EngTokenizer *t, guint32 rank);
guint32 eng_vocab_find_pair (const EngTokenizer *t, guint32 left, guint32 right); /* rank, or ENG_NO_TOKEN */
void eng_vocab_build_specials (EngTokenizer *t);
/* The longest special token that text begins with. */
guint32 eng_vocab_match_special (const EngTokenizer *t, const char *text, const char *end, gboolean control);

/* vocab_load.c: fills everything above from the metadata. */
gboolean eng_vocab_load (EngTokenizer *t, const EngGguf *gguf, GError **error);

/* merge.c: one piece of text to tokens. The scratch is reused from piece to piece. */
typedef struct EngMergeScratch EngMergeScratch;
EngMergeScratch *eng_merge_scratch_new (void);
void eng_merge_scratch_free (EngMergeScratch *scratch);
void eng_merge_piece (const EngTokenizer *t, EngMergeScratch *scratch, const char *text, gsize length, GArray *out);

#endif
