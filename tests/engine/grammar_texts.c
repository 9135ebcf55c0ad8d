/* grammar_texts.c: what a grammar allows, for tests/fixtures/check_schemas.py. Usage: grammar-texts (--gbnf | --schema) FILE N SEED prints N
 * texts drawn at random, one a line in hexadecimal; with N 0 it reads such lines and answers each with 1 (allowed), 0, or "b" (a beginning). */
#include "engine/grammar/matcher.h"
#include "engine/json_reader.h"

#include <stdio.h>
#include <string.h>

/* Bytes until the text has to end, or may and chance has it so. Long ones are led to an end. */
static gboolean draw (EngGrammar *grammar, GRand *random, GString *text)
{
  enum { LONG = 300, TOO_LONG = 4000 };
  static const char closing[] = "\"}],:0";
  g_autoptr (EngMatcher) matcher = eng_matcher_new (grammar);
  g_string_truncate (text, 0);
  while (text->len < TOO_LONG) {
    if (eng_matcher_is_complete (matcher) || (eng_matcher_may_end (matcher) && g_rand_int_range (random, 0, 4) == 0))
      return TRUE;
    gint32 start = g_rand_int_range (random, 0, 256);
    gboolean found = FALSE, in_haste = text->len > LONG;
    for (guint i = 0; i < 256 + sizeof closing - 1 && !found; i++) {
      char byte = in_haste && i < sizeof closing - 1 ? closing[i] : (char) ((guint) start + i * 37);
      found = eng_matcher_take (matcher, &byte, 1);
      if (found)
        g_string_append_c (text, byte);
    }
    if (!found)
      return eng_matcher_may_end (matcher);
  }
  return FALSE;
}

int main (int argc, char **argv)
{
  g_autoptr (GError) error = NULL;
  g_autofree char *source = NULL;
  gsize length;
  if (argc < 5 || !g_file_get_contents (argv[2], &source, &length, &error)) {
    fprintf (stderr, "%s\n", error != NULL ? error->message : "name a file, a number and a seed");
    return 1;
  }
  g_autoptr (JsonNode) schema = g_str_equal (argv[1], "--schema") ? eng_json_parse (source, length, &error) : NULL;
  g_autoptr (EngGrammar) grammar = error != NULL ? NULL : schema != NULL ? eng_grammar_new_from_schema (schema, "the schema", &error) : eng_grammar_new (source, &error);
  if (grammar == NULL) {
    fprintf (stderr, "%s\n", error->message);
    return 2;
  }
  g_autoptr (GString) text = g_string_new (NULL);
  g_autoptr (GRand) random = g_rand_new_with_seed ((guint32) atoi (argv[4]));
  for (int n = atoi (argv[3]); n > 0; n--) {
    if (!draw (grammar, random, text))
      continue;
    for (gsize i = 0; i < text->len; i++)
      printf ("%02x", (guint8) text->str[i]);
    printf ("\n");
  }
  char *line = NULL;
  size_t capacity = 0;
  for (ssize_t n; atoi (argv[3]) == 0 && (n = getline (&line, &capacity, stdin)) > 0;) {
    g_autoptr (EngMatcher) matcher = eng_matcher_new (grammar);
    gboolean ok = TRUE;
    for (ssize_t i = 0; i + 1 < n && g_ascii_isxdigit (line[i]) && ok; i += 2) {
      char byte = (char) (g_ascii_xdigit_value (line[i]) * 16 + g_ascii_xdigit_value (line[i + 1]));
      ok = eng_matcher_take (matcher, &byte, 1);
    }
    puts (!ok ? "0" : eng_matcher_may_end (matcher) ? "1" : "b");
  }
  free (line);
  return 0;
}
