/* pretokenize.h: where text is cut before merging. Each published pattern is a small state machine here, one pass, linear time. */
#ifndef ENG_PRETOKENIZE_H
#define ENG_PRETOKENIZE_H

#include <glib.h>

typedef enum {
  ENG_PRE_GPT2,   /* words with a leading space, runs of digits, runs of signs */
  ENG_PRE_SMOLLM, /* every digit alone, then GPT-2's rules on what lies between */
  ENG_PRE_LLAMA3, /* digits in threes, line breaks apart, any sign may lead a word */
  ENG_PRE_QWEN2,  /* as Llama 3, digits one by one */
  ENG_PRE_QWEN35, /* as Qwen2, combining marks are letters */
  ENG_PRE_GPT4O,  /* words end where a capital follows a small letter, contractions stay with them */
  ENG_PRE_TEKKEN, /* the same without contractions, digits one by one */
  ENG_PRE_DEEPSEEK_LLM,
  ENG_PRE_DEEPSEEK_CODER,
  ENG_PRE_DEEPSEEK3,
  ENG_PRE_FALCON
} EngPretokenizer;

enum { ENG_PRE_MAX_STAGES = 6 };

/* A walk over one text: { rules } to begin with. */
typedef struct {
  EngPretokenizer rules;
  const char *stage_end[ENG_PRE_MAX_STAGES]; /* where the piece of each pass ends */
} EngCut;

typedef struct {
  const char *name;
  EngPretokenizer rules;
  gboolean whole_words; /* a piece that is a token is taken whole, whatever the merges say */
  gboolean adds_bos;    /* when the metadata is silent */
} EngPretokenizerTraits;

/* By the name in tokenizer.ggml.pre; NULL for one that is not known. */
const EngPretokenizerTraits *eng_pretokenizer_find (const char *name);
/* Bytes of the piece that begins at text (text < end): at least 1. The next call begins where it ends. */
gsize eng_pretokenize (EngCut *cut, const char *text, const char *end);

#endif
