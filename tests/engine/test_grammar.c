/* test_grammar.c: what grammars allow: GBNF by cases, JSON Schemas by the jsonschema package's judgement (fixtures/schemas.json, made by
 * check_schemas.py --fixture); masks of tokens against trying every token; what is refused, and what must not grow. */
#include "engine/grammar/matcher.h"

#include <string.h>

#include "engine/error.h"
#include "engine/json_reader.h"
#include "engine/tokenizer/vocab.h"

static EngGrammar *grammar_of (const char *gbnf)
{
  g_autoptr (GError) error = NULL;
  EngGrammar *grammar = eng_grammar_new (gbnf, &error);
  g_assert_no_error (error);
  return grammar;
}

/* 1: allowed, 0: not, -1: the beginning of something that is. */
static int allows (EngGrammar *grammar, const char *text, gsize length)
{
  g_autoptr (EngMatcher) matcher = eng_matcher_new (grammar);
  for (gsize i = 0; i < length; i++)
    if (!eng_matcher_take (matcher, text + i, 1))
      return 0;
  return eng_matcher_may_end (matcher) ? 1 : -1;
}

static void test_allows (void)
{
  static const struct { const char *gbnf, *yes, *no, *beginnings; } cases[] = { /* texts divided by | */
    { "root ::= \"ab\"", "ab", "b|abc|ax", "|a" },
    { "root ::= \"a\" | \"bc\" # or\n", "a|bc", "b?|ab", "|b" },
    { "root ::= (\"a\" | \"b\")+ \"!\"?", "a|ab!|bbb", "!|a!a", "" },
    { "root ::= [a-c]{2,3}", "ab|abc", "abcd|d", "a" },
    { "root ::= [^a\\n]*", "|xyz|\xC3\xA9\xE4\xB8\x96", "a|x\n", "\xC3|\xE4\xB8" },
    { "root ::= \".\" . \".\"", ".x.|.\xF0\x9F\x91\x8B.|.\n.", "..x|.\x80", ".|.\xF0\x9F" },
    { "root ::= a{3} b{,2} c{1,}\na ::= \"x\"\nb ::= \"y\"\nc ::= \"z\"", "xxxz|xxxyzz|xxxyyz", "xxz|xxxyyy", "xxx|xxxyy" },
    { "root ::= \"\\x41\\u00e9\\U0001F44B\\t\\\"\\\\\"", "A\xC3\xA9\xF0\x9F\x91\x8B\t\"\\", "A\xC3\xA9x", "A" },
    { "root ::= [\\u4e00-\\u9fff]+ | [\\U00010000-\\U0010FFFF] | [\\u00a0-\\u07ff]", "\xE4\xB8\x96\xE7\x95\x8C|\xF0\x9F\x91\x8B|\xC3\xA9|\xDF\xBF", "a|\xE3\x80\x80|\xED\xA0\x80", "\xE4" },
    { "root ::= expr\nexpr ::= term ([-+] term)*\nterm ::= [0-9]+ | \"(\" expr \")\"", "1|1+2|(1-(2+3))|((7))", "+|1+)|()", "(|1+|((1)" },
    { "root ::= p\np ::= \"a\" p \"a\" | \"b\" p \"b\" | \"\"", "|aa|abba|abbbba", "c|abc", "a|ab|abb" },
    { "root ::= (\n  \"a\"\n  # within\n  \"b\"\n) |\n  \"c\"", "ab|c", "a c", "a" },
    { "root ::= \"a\" tail\ntail ::= \"a\" tail | \"\"", "a|aaaa", "b", "" },
    { "root ::= x? y\nx ::= [0-9]\ny ::= [0-9]", "1|12", "123", "" },
    { "root ::= [a-]+ [\\]\\-]", "a-]|--", "b", "a|-" },
  };
  for (gsize i = 0; i < G_N_ELEMENTS (cases); i++) {
    g_autoptr (EngGrammar) grammar = grammar_of (cases[i].gbnf);
    const char *lists[] = { cases[i].no, cases[i].yes, cases[i].beginnings };
    for (int k = 0; k < 3; k++) {
      g_auto (GStrv) texts = g_strsplit (lists[k], "|", -1);
      for (guint t = 0; texts[t] != NULL; t++) {
        if (texts[t][0] == '\0' && lists[k][0] == '\0' && k != 1)
          continue; /* an empty list */
        if (allows (grammar, texts[t], strlen (texts[t])) != (k == 2 ? -1 : k))
          g_error ("%s: '%s'", cases[i].gbnf, texts[t]);
      }
    }
  }
}

static void test_refuses (void)
{
  static const struct { const char *gbnf, *words; } cases[] = {
    { "", "no rule 'root'" }, { "a ::= \"x\"", "no rule 'root'" }, { "root ::= a", "'a' that it lacks" }, { "root ::= \"x", "line 1: a literal has no end" }, { "root ::= [a", "no end" },
    { "root ::= (\"a\"", "not closed" }, { "root ::= \"a\")", "was not opened" }, { "root = \"a\"", "::= is expected" }, { "root ::= \"a\"\nroot ::= \"b\"", "line 2: the rule root is there twice" },
    { "root ::= [b-a]", "no order" }, { "root ::= \"\\q\"", "\\q" }, { "root ::= \"\\x4\"", "2 hexadecimal digits" }, { "root ::= \"\\uD800\"", "no character" }, { "root ::= \"a\"{3,2}", "bounds" },
    { "root ::= \"a\"{5000}", "bounds" }, { "root ::= \"a\"{", "number of repetitions" }, { "root ::= *", "name of a rule" }, { "root ::= <[5]>", "tokens" }, { "root ::= !<think>", "tokens" },
    { "root ::= root \"a\" | \"b\"", "'root' can begin with itself" }, { "root ::= a\na ::= b\nb ::= \"\" a \"x\" | \"y\"", "can begin with itself" }, { "root ::= e root \"x\" | \"y\"\ne ::= \"z\" | \"\"", "can begin with itself" },
    { "root ::= (((\"a\"{4000}){4000}){4000}){4000}", "too large" }, { "root ::= (\"\"{4000}){4000}", "too large" }, { "\xFF", "not UTF-8" },
  };
  for (gsize i = 0; i < G_N_ELEMENTS (cases); i++) {
    g_autoptr (GError) error = NULL;
    g_assert_null (eng_grammar_new (cases[i].gbnf, &error));
    g_assert_nonnull (error);
    if (strstr (error->message, cases[i].words) == NULL || strchr (error->message, '\n') != NULL)
      g_error ("%s: %s", cases[i].gbnf, error->message);
  }
  g_autoptr (GString) deep = g_string_new ("root ::= ");
  for (guint i = 0; i < 100000; i++)
    g_string_append_c (deep, '(');
  g_assert_null (eng_grammar_new (deep->str, NULL));
}

/* ---- schemas -------------------------------------------------------------------------------------------------------------- */

static JsonNode *schemas;

static void load_fixture (void)
{
  g_autoptr (GError) error = NULL;
  g_autofree char *path = g_test_build_filename (G_TEST_DIST, "fixtures", "schemas.json", NULL), *text = NULL;
  gsize length;
  g_file_get_contents (path, &text, &length, &error);
  g_assert_no_error (error);
  schemas = eng_json_parse (text, length, &error);
  g_assert_no_error (error);
}

static void test_schemas (void)
{
  JsonArray *cases = json_object_get_array_member (json_node_get_object (schemas), "cases");
  for (guint i = 0; i < json_array_get_length (cases); i++) {
    JsonObject *one = json_array_get_object_element (cases, i);
    g_autofree char *shown = json_to_string (json_object_get_member (one, "schema"), FALSE);
    g_autoptr (GError) error = NULL;
    g_autoptr (EngGrammar) grammar = eng_grammar_new_from_schema (json_object_get_member (one, "schema"), "the schema", &error);
    if (grammar == NULL)
      g_error ("%s: %s", shown, error->message);
    for (int valid = 0; valid < 2; valid++) {
      JsonArray *texts = json_object_get_array_member (one, valid ? "valid" : "invalid");
      for (guint k = 0; k < json_array_get_length (texts); k++) {
        const char *text = json_array_get_string_element (texts, k);
        if ((allows (grammar, text, strlen (text)) == 1) != valid)
          g_error ("%s: %s", shown, text);
      }
    }
  }
}

static void test_refused_schemas (void)
{
  JsonArray *refused = json_object_get_array_member (json_node_get_object (schemas), "refused");
  for (guint i = 0; i < json_array_get_length (refused); i++) {
    g_autoptr (GError) error = NULL;
    g_autofree char *shown = json_to_string (json_array_get_element (refused, i), FALSE);
    if (eng_grammar_new_from_schema (json_array_get_element (refused, i), "the schema", &error) != NULL)
      g_error ("not refused: %s", shown);
    g_assert_true (g_str_has_prefix (error->message, "the schema at #") || g_str_has_prefix (error->message, "the grammar"));
  }
  /* Each reference beside another keyword is a schema of its own: two at each level are too many. */
  static const char doubling[] = "{\"properties\":{\"a\":{\"$ref\":\"#\",\"minProperties\":0},\"b\":{\"$ref\":\"#\",\"minProperties\":0}},\"type\":\"object\"}";
  g_autoptr (JsonNode) node = eng_json_parse (doubling, strlen (doubling), NULL);
  g_assert_null (eng_grammar_new_from_schema (node, "the schema", NULL));
}

/* Whatever is drawn from any JSON object is JSON. */
static void test_json_object (void)
{
  g_autoptr (EngGrammar) grammar = eng_grammar_new_json_object ();
  static const char *const yes[] = { "{}", "{ }", "{\"a\": [1, 2.5e3, {\"b\": null}], \"c\":\"\\u00e9\\n\"}" };
  static const char *const no[] = { "[]", "{\"a\"}", "{\"a\":01}", "{\"a\":1,}", "{\"a\":\"\n\"}", "{\"a\":\"\\u0000\"}", "{\"a\":\"\\ud800\"}", "{}{}" };
  for (gsize i = 0; i < G_N_ELEMENTS (yes); i++)
    g_assert_cmpint (allows (grammar, yes[i], strlen (yes[i])), ==, 1);
  for (gsize i = 0; i < G_N_ELEMENTS (no); i++)
    g_assert_cmpint (allows (grammar, no[i], strlen (no[i])), ==, 0);
}

/* ---- tokens --------------------------------------------------------------------------------------------------------------- */

/* Tokens of one to four bytes of an alphabet, some of parts of characters, and one that ends a turn. */
static EngTokenizer *tiny_tokenizer (guint n)
{
  g_autoptr (GRand) random = g_rand_new_with_seed (5);
  g_autoptr (GHashTable) texts = g_hash_table_new_full (g_str_hash, g_str_equal, g_free, NULL);
  g_autoptr (GString) json = g_string_new ("{\"added_tokens\":[{\"id\":0,\"content\":\"</s>\",\"special\":true}],\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false},"
                                           "\"model\":{\"type\":\"BPE\",\"merges\":[],\"vocab\":{");
  static const char *const letters[] = { "a", "b", "{", "}", "\\\"", ":", ",", "1", "0", "[", "]", "Ġ", "Ċ", "t", "r", "u", "e", "Ã", "©", "ä", "¸", "-", "." };
  for (guint i = 1; i < n;) {
    g_autoptr (GString) text = g_string_new (NULL);
    for (gint k = i < G_N_ELEMENTS (letters) ? 0 : g_rand_int_range (random, 0, 4); k >= 0; k--)
      g_string_append (text, letters[i < G_N_ELEMENTS (letters) ? i : (guint) g_rand_int_range (random, 0, G_N_ELEMENTS (letters))]);
    if (!g_hash_table_add (texts, g_strdup (text->str)))
      continue;
    g_string_append_printf (json, "%s\"%s\":%u", i > 1 ? "," : "", text->str, i);
    i++;
  }
  g_string_append (json, "}}}");
  g_autoptr (GError) error = NULL;
  g_autoptr (GBytes) bytes = g_bytes_new (json->str, json->len), config = g_bytes_new_static ("{\"eos_token\":\"</s>\"}", 20);
  EngVocabFiles files = { .folder = "folder", .tokenizer_json = bytes, .tokenizer_config = config };
  g_autoptr (EngVocab) vocab = eng_vocab_new_from_files (&files, 0, &error);
  EngTokenizer *t = vocab != NULL ? eng_tokenizer_new_from_vocab (vocab, &error) : NULL;
  g_assert_no_error (error);
  return t;
}

/* A way through a grammar by tokens drawn from its masks; each mask is held against trying every token from the start. */
static void check_masks (EngGrammar *grammar, const EngTokenizer *t, const EngTokenBytes *bytes, guint32 seed, guint steps)
{
  g_autoptr (GRand) random = g_rand_new_with_seed (seed);
  g_autoptr (EngMatcher) matcher = eng_matcher_new (grammar);
  g_autoptr (GString) text = g_string_new (NULL);
  for (guint step = 0; step < steps; step++) {
    const guint32 *mask = eng_matcher_mask (matcher, bytes);
    g_autoptr (GArray) allowed = g_array_new (FALSE, FALSE, sizeof (guint));
    g_autoptr (EngMatcher) other = eng_matcher_new (grammar);
    g_assert_true (eng_matcher_take (other, text->str, text->len));
    for (guint token = 0; token < eng_tokenizer_n_tokens (t); token++) {
      gsize n;
      const char *piece = eng_tokenizer_piece (t, (int) token, FALSE, &n);
      g_autoptr (EngMatcher) fresh = eng_matcher_new (grammar);
      gboolean fits = n > 0 && eng_matcher_take (fresh, text->str, text->len) && eng_matcher_take (fresh, piece, n);
      g_assert_cmpint (fits, ==, mask[token / 32] >> token % 32 & 1);
      if (fits)
        g_array_append_val (allowed, token);
    }
    g_assert_cmpint (allowed->len == 0, ==, eng_matcher_is_complete (matcher));
    if (allowed->len == 0)
      return;
    gsize n;
    const char *piece = eng_tokenizer_piece (t, (int) g_array_index (allowed, guint, (guint) g_rand_int_range (random, 0, (gint32) allowed->len)), FALSE, &n);
    g_string_append_len (text, piece, (gssize) n);
    g_assert_true (eng_matcher_take (matcher, piece, n));
    g_assert_cmpint (eng_matcher_may_end (matcher), ==, allows (grammar, text->str, text->len) == 1);
  }
}

static void test_masks (void)
{
  static const char schema_text[] = "{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"array\",\"items\":{\"type\":\"integer\"}},\"b\":{\"type\":\"string\",\"maxLength\":9},\"t\":{\"type\":\"boolean\"}}}";
  g_autoptr (EngTokenizer) t = tiny_tokenizer (300);
  g_autoptr (EngTokenBytes) bytes = eng_token_bytes_new (t, NULL);
  g_autoptr (JsonNode) schema = eng_json_parse (schema_text, strlen (schema_text), NULL);
  g_autoptr (EngGrammar) json = eng_grammar_new_from_schema (schema, "the schema", NULL), object = eng_grammar_new_json_object ();
  g_autoptr (EngGrammar) palindrome = grammar_of ("root ::= \"a\" root \"a\" | \"b\" root \"b\" | \":\""), any = grammar_of ("root ::= .{3,8}");
  EngGrammar *grammars[] = { json, object, palindrome, any };
  for (guint i = 0; i < G_N_ELEMENTS (grammars); i++)
    for (guint32 seed = 0; seed < 4; seed++)
      check_masks (grammars[i], t, bytes, seed, 12);
}

/* What is remembered is bounded: a grammar whose every text is a state of its own, and a mask of more ways than that. */
static void test_memory_is_bounded (void)
{
  g_autoptr (EngGrammar) palindrome = grammar_of ("root ::= \"a\" root \"a\" | \"b\" root \"b\" | \":\"");
  g_autoptr (EngMatcher) matcher = eng_matcher_new (palindrome);
  g_autoptr (GRand) random = g_rand_new_with_seed (2);
  g_autoptr (GString) text = g_string_new (NULL);
  for (guint i = 0; i < 40000; i++) {
    char byte = g_rand_boolean (random) ? 'a' : 'b';
    g_string_append_c (text, byte);
    g_assert_true (eng_matcher_take (matcher, &byte, 1));
  }
  g_assert_true (eng_matcher_take (matcher, ":", 1));
  for (gsize i = text->len; i > 0; i--) { /* after it was forgotten twice, the whole way back is still known */
    char wrong = text->str[i - 1] == 'a' ? 'b' : 'a';
    g_assert_false (eng_matcher_take (matcher, &wrong, 1));
    g_assert_true (eng_matcher_take (matcher, text->str + i - 1, 1));
  }
  g_assert_true (eng_matcher_is_complete (matcher));
  g_autoptr (GString) json = g_string_new ("{\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false},\"model\":{\"type\":\"BPE\",\"merges\":[],\"vocab\":{\"a\":0,\"b\":1");
  for (guint i = 2; i < 40000; i++) { /* sixteen letters each, all different: a state for every node of the trie */
    g_string_append_printf (json, ",\"");
    for (guint k = 0; k < 16; k++)
      g_string_append_c (json, (i * 40503u) >> k & 1 ? 'a' : 'b');
    g_string_append_printf (json, "\":%u", i);
  }
  g_string_append (json, "}}}");
  g_autoptr (EngMatcher) fresh = eng_matcher_new (palindrome);
  g_autoptr (GError) error = NULL;
  g_autoptr (GBytes) data = g_bytes_new (json->str, json->len);
  EngVocabFiles files = { .folder = "folder", .tokenizer_json = data };
  g_autoptr (EngVocab) vocab = eng_vocab_new_from_files (&files, 0, &error);
  g_assert_no_error (error);
  g_autoptr (EngTokenizer) t = eng_tokenizer_new_from_vocab (vocab, &error);
  g_assert_no_error (error);
  g_autoptr (EngTokenBytes) bytes = eng_token_bytes_new (t, NULL);
  const guint32 *mask = eng_matcher_mask (fresh, bytes);
  for (guint token = 0; token < eng_tokenizer_n_tokens (t); token++)
    g_assert_true (mask[token / 32] >> token % 32 & 1);
}

int main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  load_fixture ();
  g_test_add_func ("/grammar/allows", test_allows);
  g_test_add_func ("/grammar/refuses", test_refuses);
  g_test_add_func ("/grammar/json-object", test_json_object);
  g_test_add_func ("/grammar/masks-are-what-trying-says", test_masks);
  g_test_add_func ("/grammar/memory-is-bounded", test_memory_is_bounded);
  g_test_add_func ("/schema/judged-as-by-jsonschema", test_schemas);
  g_test_add_func ("/schema/refuses", test_refused_schemas);
  int result = g_test_run ();
  json_node_unref (schemas);
  return result;
}
