/* grammar_bench.c: how long a grammar takes for each token of an answer. Usage: grammar_bench VOCABULARY.gguf */
#include "engine/grammar/matcher.h"
#include "engine/json_reader.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

typedef struct { const char *name, *schema, *text; } Case;

static const Case cases[] = {
  { "any JSON object", NULL, "{\"name\": \"Ada Lovelace\", \"born\": 1815, \"works\": [\"Notes on the Analytical Engine\", \"Letters\"], \"address\": {\"city\": \"London\", \"street\": \"St James's Square\"}, "
                             "\"summary\": \"She wrote the first program, and saw that such a machine could do more than sums: compose music, say.\"}" },
  { "a schema of strings, numbers and a list",
    "{\"type\":\"object\",\"properties\":{\"name\":{\"type\":\"string\"},\"born\":{\"type\":\"integer\",\"minimum\":0},\"works\":{\"type\":\"array\",\"items\":{\"type\":\"string\"}},\"kind\":{\"enum\":[\"poet\",\"mathematician\"]}},"
    "\"required\":[\"name\",\"born\",\"works\",\"kind\"]}",
    "{\"name\": \"Ada Lovelace\", \"born\": 1815, \"works\": [\"Notes on the Analytical Engine\", \"Letters\"], \"kind\": \"mathematician\"}" },
  { "a string of at most 200 characters", "{\"type\":\"string\",\"maxLength\":200}", "\"She wrote the first program, and saw that such a machine could do more than sums: compose music, say.\"" },
};

/* Microseconds that this thread computed. */
static gint64 now_us (void)
{
  struct timespec now;
  clock_gettime (CLOCK_THREAD_CPUTIME_ID, &now);
  return now.tv_sec * G_USEC_PER_SEC + now.tv_nsec / 1000;
}

static int compare (const void *a, const void *b)
{
  return (*(const gint64 *) a > *(const gint64 *) b) - (*(const gint64 *) a < *(const gint64 *) b);
}

static void run (const Case *one, const EngTokenizer *tokenizer, const EngTokenBytes *bytes)
{
  g_autoptr (JsonNode) schema = one->schema != NULL ? eng_json_parse (one->schema, strlen (one->schema), NULL) : NULL;
  g_autoptr (EngGrammar) grammar = schema != NULL ? eng_grammar_new_from_schema (schema, "the schema", NULL) : eng_grammar_new_json_object ();
  g_autoptr (GArray) tokens = g_array_new (FALSE, FALSE, sizeof (gint32)), times = g_array_new (FALSE, FALSE, sizeof (gint64));
  g_autoptr (EngMatcher) matcher = eng_matcher_new (grammar);
  gint64 total = 0;
  eng_tokenizer_encode (tokenizer, one->text, -1, ENG_TOKENIZE_PLAIN, tokens);
  for (guint i = 0; i < tokens->len; i++) {
    gsize n;
    const char *piece = eng_tokenizer_piece (tokenizer, g_array_index (tokens, gint32, i), FALSE, &n);
    gint64 start = now_us ();
    const guint32 *mask = eng_matcher_mask (matcher, bytes);
    gint64 taken = now_us () - start;
    gint32 token = g_array_index (tokens, gint32, i);
    if (!(mask[token / 32] >> token % 32 & 1) || !eng_matcher_take (matcher, piece, n))
      g_error ("%s: token %u is not allowed", one->name, i);
    total += taken;
    g_array_append_val (times, taken);
  }
  qsort (times->data, times->len, sizeof (gint64), compare);
  printf ("%-42s %4u tokens: %7.1f us each on average, %lld in the middle, %lld at most\n", one->name, tokens->len, (double) total / tokens->len,
          (long long) g_array_index (times, gint64, times->len / 2), (long long) g_array_index (times, gint64, times->len - 1));
}

int main (int argc, char **argv)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (EngGguf) gguf = argc > 1 ? eng_gguf_open (argv[1], &error) : NULL;
  g_autoptr (EngTokenizer) tokenizer = gguf != NULL ? eng_tokenizer_new (gguf, &error) : NULL;
  if (tokenizer == NULL) {
    fprintf (stderr, "%s\n", error != NULL ? error->message : "name a GGUF file with a vocabulary");
    return 1;
  }
  gint64 start = now_us ();
  g_autoptr (EngTokenBytes) bytes = eng_token_bytes_new (tokenizer, NULL);
  printf ("%u tokens, sorted in %lld us\n", eng_tokenizer_n_tokens (tokenizer), (long long) (now_us () - start));
  for (gsize i = 0; i < G_N_ELEMENTS (cases); i++)
    run (&cases[i], tokenizer, bytes);
  return 0;
}
