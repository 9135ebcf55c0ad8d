/* tokenizer_files.h: what the files of a vocabulary, sound or not, are held to. */
#ifndef VALISE_FUZZ_TOKENIZER_FILES_H
#define VALISE_FUZZ_TOKENIZER_FILES_H

#include "engine/tokenizer/tokenizer.h"

/* They are refused with a sentence, or a text can be encoded into tokens that there are. */
static inline void check_tokenizer_files (const EngVocabFiles *files)
{
  static const char text[] = "<s>The quick 12345 fo\xCC\x81x\n  jumps \xE4\xB8\x96\xFF [PAD] ab";
  g_autoptr (GError) error = NULL;
  g_autoptr (EngVocab) vocab = eng_vocab_new_from_files (files, 0, &error);
  g_assert_true ((vocab == NULL) == (error != NULL));
  g_autoptr (EngTokenizer) tokenizer = vocab != NULL ? eng_tokenizer_new_from_vocab (vocab, &error) : NULL;
  g_assert_true ((tokenizer == NULL) == (error != NULL));
  if (tokenizer != NULL) {
    g_autoptr (GArray) out = g_array_new (FALSE, FALSE, sizeof (gint32));
    eng_tokenizer_encode (tokenizer, text, -1, ENG_TOKENIZE_SPECIAL, out);
    for (guint i = 0; i < out->len; i++)
      g_assert_cmpuint ((guint) g_array_index (out, gint32, i), <, eng_tokenizer_n_tokens (tokenizer));
  }
}

#endif
