/* vocab_private.h: the parts of a vocabulary, for those who read, write and use them. */
#ifndef ENG_VOCAB_PRIVATE_H
#define ENG_VOCAB_PRIVATE_H

#include "engine/json_reader.h"
#include "engine/tokenizer/vocab.h"

typedef enum {
  ENG_VOCAB_BPE,       /* pairs that merge, by rank */
  ENG_VOCAB_SPM,       /* SentencePiece's BPE: what merges best has the highest score */
  ENG_VOCAB_UNIGRAM,   /* the likeliest way to divide a text */
  ENG_VOCAB_WORDPIECE  /* the longest token, word by word */
} EngVocabModel;

/* GGUF's numbers. */
typedef enum {
  ENG_TOKEN_TYPE_NORMAL = 1, ENG_TOKEN_TYPE_UNKNOWN = 2, ENG_TOKEN_TYPE_CONTROL = 3, ENG_TOKEN_TYPE_USER_DEFINED = 4, ENG_TOKEN_TYPE_UNUSED = 5,
  ENG_TOKEN_TYPE_BYTE = 6
} EngTokenType;

/* How a special token is recognised in a text. */
enum {
  ENG_ADDED_LSTRIP = 1,      /* with the white space before it */
  ENG_ADDED_RSTRIP = 2,      /* with the white space after it */
  ENG_ADDED_SINGLE_WORD = 4, /* not beside letters or digits */
  ENG_ADDED_NORMALIZED = 8   /* in the normalised text */
};

typedef enum { ENG_ID_BOS, ENG_ID_EOS, ENG_ID_EOT, ENG_ID_EOM, ENG_ID_UNKNOWN, ENG_ID_SEP, ENG_ID_PAD, ENG_ID_CLS, ENG_ID_MASK, ENG_N_IDS } EngTokenId;

typedef struct {
  const char *text;
  guint32 length;
} EngText;

struct EngVocab {
  char *source; /* the file or folder, for errors */
  EngVocabModel model;
  guint n_tokens;
  EngText *tokens;     /* [n_tokens] as they are written: in the byte-level alphabet, or in characters with U+2581 for a space and, in
                          WordPiece, for a word's beginning */
  guint8 *types;       /* [n_tokens] EngTokenType */
  guint8 *added;       /* [n_tokens] ENG_ADDED_*, or NULL: none */
  float *scores;       /* [n_tokens], SPM and unigram */
  guint n_merges;
  EngText *merges;     /* [2 * n_merges] left and right, in order of rank */
  int ids[ENG_N_IDS];  /* -1: none */
  GArray *ends;        /* of int: more tokens that end a turn */
  char *pre_name, *pre_json; /* one of them, or neither: text is not cut */
  char *normalizer_json;     /* or NULL */
  GBytes *charsmap;          /* SentencePiece's normalisation, or NULL */
  char *chat_template;
  gboolean adds_bos, adds_eos, space_prefix, trims_spaces;
  gboolean has_processor; /* tokenizer.json says what is put around a text */
  gboolean whole_words;  /* a piece that is a token is taken whole, whatever the merges say */
  gboolean characters;   /* BPE: tokens are written in characters */
  gboolean by_rank;      /* BPE: the numbers of the results are the ranks */
  gboolean fuses_unknown;
  gboolean wide_sums;    /* unigram: scores are added in double precision */
  GHashTable *sampling;  /* general.sampling.* key -> double *; or NULL */
  GStringChunk *text;    /* of tokens and merges that do not lie in a mapping */
};

EngVocab *eng_vocab_new (const char *source);
/* Further tokens are unused ones. */
void eng_vocab_resize (EngVocab *vocab, guint n);
/* "SOURCE: ..." Returns FALSE. */
gboolean eng_vocab_refuse (const EngVocab *vocab, GError **error, int code, const char *format, ...) G_GNUC_PRINTF (4, 5);

/* vocab_json.c */
gboolean eng_vocab_read_json (EngVocab *vocab, const char *json, gsize length, GError **error);
/* vocab_sentencepiece.c */
gboolean eng_vocab_read_sentencepiece (EngVocab *vocab, const guint8 *data, gsize length, GError **error);

#endif
