/* tokenizer_private.h: a vocabulary made ready to use: one block of bytes and flat tables, a few MB for any vocabulary. */
#ifndef ENG_TOKENIZER_PRIVATE_H
#define ENG_TOKENIZER_PRIVATE_H

#include "engine/tokenizer/normalize.h"
#include "engine/tokenizer/pretokenize.h"
#include "engine/tokenizer/tokenizer.h"
#include "engine/tokenizer/trie.h"
#include "engine/tokenizer/vocab_private.h"

#define ENG_NO_TOKEN G_MAXUINT32

enum { /* per token */
  ENG_TOKEN_CONTROL = 1,      /* never made from plain text, no text of its own */
  ENG_TOKEN_USER_DEFINED = 2, /* recognised in text */
  ENG_TOKEN_END = 4,          /* ends a turn */
  ENG_TOKEN_STRUCTURE = 8,    /* user-defined, but the chat template writes it: not recognised in a person's text */
  ENG_TOKEN_LSTRIP = 16, ENG_TOKEN_RSTRIP = 32, ENG_TOKEN_SINGLE_WORD = 64, ENG_TOKEN_NORMALIZED = 128 /* as ENG_ADDED_* */
};

typedef struct { guint32 left, right, result; } EngMerge; /* its index is its rank */

/* Control and user-defined tokens in byte order of the text that they are recognised by. */
typedef struct {
  GArray *list;      /* of EngSpecial */
  GByteArray *bytes;
  gboolean first[256]; /* one of them begins with this byte */
} EngSpecials;
typedef struct { guint32 token, offset, length; } EngSpecial;

struct EngTokenizer {
  EngVocabModel model;
  EngNormalizer *normalizer; /* or NULL */
  EngPretokenizer *pre;      /* or NULL: text is not cut */
  EngPrefix prefix;          /* a space in front of what so many first stages of `pre` cut a text into ... */
  guint prefix_stage;
  gboolean prefix_always;    /* ... even of what begins with one */
  gboolean characters, by_rank, whole_words, fuses_unknown, wide_sums, adds_bos;
  int bos, eos, unknown;
  guint n_tokens;
  guint max_token_bytes;
  char *bytes;              /* every token's text, as it appears in a document, one after the other */
  guint32 *offsets;         /* [n_tokens + 1] into bytes */
  guint8 *flags;            /* [n_tokens] */
  float *scores;            /* [n_tokens], SPM and unigram */
  float unknown_score;      /* unigram */
  guint32 byte_tokens[256]; /* the token of a single byte, or ENG_NO_TOKEN */
  gboolean has_all_bytes;
  guint64 seed;             /* of both hashes, so that a file cannot choose collisions */
  guint32 *text_slots;      /* [text_mask + 1] token numbers, open addressing */
  guint32 text_mask;
  EngMerge *merges;         /* [n_merges] in rank order, BPE only */
  guint32 n_merges;
  guint32 *pair_slots;      /* [pair_mask + 1] ranks */
  guint32 pair_mask;
  EngTrie *pieces;          /* unigram: what a text may be divided into */
  EngSpecials specials, normalized_specials; /* recognised in the text as it comes, and in the normalised one */
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

/* specials.c */
void eng_specials_build (EngTokenizer *t);
void eng_specials_clear (EngSpecials *specials);
/* The longest special token that text begins with, and how long; control and structure tokens only where they end by control_end. */
guint32 eng_specials_match (const EngTokenizer *t, const EngSpecials *specials, const char *text, const char *end, const char *control_end, gsize *length);

/* tokenizer_build.c: fills everything above. */
gboolean eng_tokenizer_build (EngTokenizer *t, const EngVocab *vocab, GError **error);

/* What one call of encode works with. */
typedef struct EngMergeScratch EngMergeScratch;
EngMergeScratch *eng_merge_scratch_new (void);
void eng_merge_scratch_free (EngMergeScratch *scratch);
/* merge.c, unigram.c, wordpiece.c: one piece of text to tokens. The scratch is reused from piece to piece. */
void eng_merge_piece (const EngTokenizer *t, EngMergeScratch *scratch, const char *text, gsize length, GArray *out);
void eng_unigram_piece (const EngTokenizer *t, GArray *scratch, const char *text, gsize length, GArray *out); /* scratch: of EngBestPiece */
void eng_wordpiece_piece (const EngTokenizer *t, const char *text, gsize length, GArray *out);
typedef struct {
  double score;
  guint32 begin, token; /* of the last piece of the best way that ends here; ENG_NO_TOKEN: a character the vocabulary lacks */
} EngBestPiece;
/* A character that no token stands for: its bytes' tokens if there is one for each byte, else the unknown one, once in a row if they are
 * fused (`unknown_before`: another one stands in front). TRUE: it was the unknown one. */
gboolean eng_emit_unknown (const EngTokenizer *t, const char *text, gsize length, gboolean unknown_before, GArray *out);

#endif
