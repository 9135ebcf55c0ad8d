/* encode_texts.c: texts to tokens for tests/fixtures/check_tokenizers.py: each line of stdin is a text in hexadecimal, each line of stdout
 * its tokens. The first argument is a GGUF file or a checkpoint folder; with a second one, special tokens are recognised. */
#include "engine/tokenizer/tokenizer.h"

#include <stdio.h>
#include <string.h>

static GBytes *read_file (const char *folder, const char *name)
{
  g_autofree char *path = g_build_filename (folder, name, NULL);
  char *content = NULL;
  gsize length = 0;
  return g_file_get_contents (path, &content, &length, NULL) ? g_bytes_new_take (content, length) : NULL;
}

static EngTokenizer *open_folder (const char *folder, GError **error)
{
  EngVocabFiles files = { folder, read_file (folder, "tokenizer.json"), read_file (folder, "tokenizer.model"), read_file (folder, "tokenizer_config.json"),
                          read_file (folder, "generation_config.json"), read_file (folder, "chat_template.jinja") };
  g_autoptr (EngVocab) vocab = eng_vocab_new_from_files (&files, 0, error);
  return vocab != NULL ? eng_tokenizer_new_from_vocab (vocab, error) : NULL;
}

int main (int argc, char **argv)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (EngTokenizer) tokenizer = NULL;
  if (argc > 1 && g_file_test (argv[1], G_FILE_TEST_IS_DIR)) {
    tokenizer = open_folder (argv[1], &error);
  } else if (argc > 1) {
    g_autoptr (EngGguf) gguf = eng_gguf_open (argv[1], &error);
    tokenizer = gguf != NULL ? eng_tokenizer_new (gguf, &error) : NULL;
  }
  if (tokenizer == NULL) {
    fprintf (stderr, "%s\n", error != NULL ? error->message : "name a GGUF file or a folder");
    return 1;
  }
  g_autoptr (GArray) out = g_array_new (FALSE, FALSE, sizeof (gint32));
  g_autoptr (GByteArray) text = g_byte_array_new ();
  char *line = NULL;
  size_t capacity = 0;
  for (ssize_t n; (n = getline (&line, &capacity, stdin)) > 0;) {
    g_array_set_size (out, 0);
    g_byte_array_set_size (text, 0);
    for (ssize_t i = 0; i + 1 < n && g_ascii_isxdigit (line[i]); i += 2) {
      guint8 byte = (guint8) (g_ascii_xdigit_value (line[i]) * 16 + g_ascii_xdigit_value (line[i + 1]));
      g_byte_array_append (text, &byte, 1);
    }
    eng_tokenizer_encode (tokenizer, (const char *) text->data, text->len, argc > 2 ? ENG_TOKENIZE_SPECIAL : ENG_TOKENIZE_PLAIN, out);
    for (guint i = 0; i < out->len; i++)
      printf ("%s%d", i > 0 ? " " : "", g_array_index (out, gint32, i));
    printf ("\n");
  }
  free (line);
  return 0;
}
