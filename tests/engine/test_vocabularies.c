/* test_vocabularies.c: published vocabularies with their cases, NAME.gguf beside NAME.gguf.inp and .out (llama.cpp's models folder), in
 * the folder that VALISE_VOCABULARIES names. */
#include "engine/error.h"
#include "engine/tokenizer/tokenizer.h"

#include <string.h>

#define SEPARATOR "\n__ggml_vocab_test__\n"

static char *read_file (const char *path)
{
  g_autoptr (GError) error = NULL;
  char *text = NULL;
  g_file_get_contents (path, &text, NULL, &error);
  g_assert_no_error (error);
  return text;
}

static char *ids_of (const GArray *tokens)
{
  GString *ids = g_string_new (NULL);
  for (guint i = 0; i < tokens->len; i++)
    g_string_append_printf (ids, "%s%d", i > 0 ? " " : "", g_array_index (tokens, gint32, i));
  return g_string_free (ids, FALSE);
}

static void test_vocabulary (gconstpointer data)
{
  const char *path = data;
  g_autofree char *inputs_path = g_strconcat (path, ".inp", NULL), *outputs_path = g_strconcat (path, ".out", NULL);
  g_autofree char *inputs = read_file (inputs_path), *outputs = read_file (outputs_path);
  g_autoptr (GError) error = NULL;
  g_autoptr (EngGguf) gguf = eng_gguf_open (path, &error);
  g_assert_no_error (error);
  g_autoptr (EngTokenizer) tokenizer = eng_tokenizer_new (gguf, &error);
  if (g_error_matches (error, ENG_ERROR, ENG_ERROR_UNSUPPORTED)) {
    g_test_skip (error->message); /* refused by name, which is the promise for a kind that is not known */
    return;
  }
  g_assert_no_error (error);
  g_auto (GStrv) cases = g_strsplit (inputs, SEPARATOR, -1), expected = g_strsplit (outputs, "\n", -1);
  g_autoptr (GArray) tokens = g_array_new (FALSE, FALSE, sizeof (gint32));
  g_assert_cmpuint (g_strv_length (cases), >, 20);
  for (guint i = 0; cases[i + 1] != NULL; i++) {
    g_array_set_size (tokens, 0);
    eng_tokenizer_encode (tokenizer, cases[i], -1, ENG_TOKENIZE_PLAIN, tokens);
    g_autofree char *ids = ids_of (tokens);
    if (!g_str_equal (ids, g_strstrip (expected[i]))) {
      g_autofree char *shown = g_strescape (cases[i], NULL);
      g_test_fail_printf ("%s: \"%s\" is\n%s, not\n%s", path, shown, ids, expected[i]);
    }
  }
}

int main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  const char *folder = g_getenv ("VALISE_VOCABULARIES");
  if (folder == NULL) {
    g_print ("1..0 # SKIP VALISE_VOCABULARIES does not name a folder of vocabularies with cases\n");
    return 0;
  }
  g_autoptr (GDir) dir = g_dir_open (folder, 0, NULL);
  g_assert_nonnull (dir);
  g_autoptr (GPtrArray) paths = g_ptr_array_new_with_free_func (g_free);
  for (const char *name; (name = g_dir_read_name (dir)) != NULL;)
    if (g_str_has_suffix (name, ".gguf.out")) {
      char *path = g_build_filename (folder, name, NULL);
      g_autofree char *test = g_strconcat ("/vocabularies/", name, NULL);
      path[strlen (path) - strlen (".out")] = test[strlen (test) - strlen (".gguf.out")] = '\0';
      g_ptr_array_add (paths, path);
      g_test_add_data_func (test, path, test_vocabulary);
    }
  return g_test_run ();
}
