/* vocab.h: a vocabulary as its publisher describes it, whichever files that was in: GGUF metadata, or the files of a checkpoint folder. What
 * a tokenizer is made of, and what an import writes into a GGUF file. Immutable after creation: any thread. */
#ifndef ENG_VOCAB_H
#define ENG_VOCAB_H

#include "engine/checkpoint/gguf.h"

typedef struct EngVocab EngVocab;

/* From tokenizer.ggml.* metadata, which stays mapped and must stay open. Every array is there, of the right kind and length. */
EngVocab *eng_vocab_new_from_gguf (const EngGguf *gguf, GError **error);

/* The files of a checkpoint folder that say something about text; NULL for one that is not there. One of the first two is needed. */
typedef struct {
  const char *folder;        /* for errors */
  GBytes *tokenizer_json;    /* tokenizer.json, of the tokenizers package: preferred */
  GBytes *tokenizer_model;   /* tokenizer.model of SentencePiece */
  GBytes *tokenizer_config;  /* tokenizer_config.json: special tokens, chat template */
  GBytes *generation_config; /* generation_config.json: further ends of a turn, how the model wants to be sampled */
  GBytes *chat_template;     /* chat_template.jinja: goes before the one in tokenizer_config.json */
} EngVocabFiles;
/* n_rows: rows of the model's embedding, which may be more than there are tokens (the others are filled with unused ones); 0: not known.
 * The files are not needed afterwards. */
EngVocab *eng_vocab_new_from_files (const EngVocabFiles *files, guint n_rows, GError **error);
void eng_vocab_free (EngVocab *vocab);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (EngVocab, eng_vocab_free)

guint eng_vocab_n_tokens (const EngVocab *vocab);
const char *eng_vocab_chat_template (const EngVocab *vocab); /* or NULL */
/* Sets tokenizer.ggml.*, tokenizer.chat_template and general.sampling.*; what GGUF has no key for stands under valise.tokenizer.*. */
void eng_vocab_write (const EngVocab *vocab, EngGgufWriter *writer);

#endif
