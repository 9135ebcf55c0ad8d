/* pretokenize.h: where text is cut before merging. Each published pattern is a small state machine here, one pass, linear time. */
#ifndef ENG_PRETOKENIZE_H
#define ENG_PRETOKENIZE_H

#include <glib.h>

typedef enum {
  ENG_PRE_GPT2,   /* words with a leading space, runs of digits, runs of signs */
  ENG_PRE_SMOLLM, /* every digit alone, then GPT-2's rules on what lies between */
  ENG_PRE_LLAMA3, /* digits in threes, line breaks apart, any sign may lead a word */
  ENG_PRE_QWEN2   /* as Llama 3, digits one by one */
} EngPretokenizer;

typedef struct {
  const char *name;
  EngPretokenizer rules;
  gboolean whole_words; /* a piece that is a token is taken whole, whatever the merges say */
  gboolean adds_bos;    /* when the metadata is silent */
} EngPretokenizerTraits;

/* By the name in tokenizer.ggml.pre; NULL for one that is not known. */
const EngPretokenizerTraits *eng_pretokenizer_find (const char *name);
/* Bytes of the piece that begins at text (text < end): at least 1. */
gsize eng_pretokenize (EngPretokenizer rules, const char *text, const char *end);

#endif
