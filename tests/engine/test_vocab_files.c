/* test_vocab_files.c: vocabularies from the files of a checkpoint folder, against the tokenizers and sentencepiece packages
 * (fixtures/vocab_files.json, made by make_vocab_files.py); the same after a way through a GGUF file; patterns and normal forms; files that
 * are cut off, damaged or hostile. */
#include <json-glib/json-glib.h>
#include <string.h>
#include <glib/gstdio.h>

#include "engine/error.h"
#include "engine/json_reader.h"
#include "engine/tokenizer/normal_form.h"
#include "engine/tokenizer/normalize.h"
#include "engine/tokenizer/pattern.h"
#include "engine/tokenizer/tokenizer.h"

static JsonNode *root;
static JsonObject *fixture;

static void load_fixture (void)
{
  g_autoptr (GError) error = NULL;
  g_autofree char *path = g_test_build_filename (G_TEST_DIST, "fixtures", "vocab_files.json", NULL);
  g_autofree char *text = NULL;
  gsize length;
  g_file_get_contents (path, &text, &length, &error);
  g_assert_no_error (error);
  root = eng_json_parse (text, length, &error);
  g_assert_no_error (error);
  fixture = json_node_get_object (root);
}

static GString *from_hex (const char *hex)
{
  GString *text = g_string_new (NULL);
  for (; *hex != '\0'; hex += 2)
    g_string_append_c (text, (char) (g_ascii_xdigit_value (hex[0]) * 16 + g_ascii_xdigit_value (hex[1])));
  return text;
}

/* ---- folders -------------------------------------------------------------------------------------------------------------- */

static GBytes *member_json (JsonObject *object, const char *name)
{
  JsonNode *node = json_object_get_member (object, name);
  if (node == NULL || JSON_NODE_HOLDS_NULL (node))
    return NULL;
  char *text = json_to_string (node, FALSE);
  return g_bytes_new_take (text, strlen (text));
}

static EngVocab *open_folder (JsonObject *folder, guint n_rows, GError **error)
{
  g_autoptr (GBytes) json = member_json (folder, "tokenizer.json"), config = member_json (folder, "tokenizer_config.json"), model = NULL;
  if (json_object_has_member (folder, "tokenizer.model")) {
    gsize length;
    guint8 *data = g_base64_decode (json_object_get_string_member (folder, "tokenizer.model"), &length);
    model = g_bytes_new_take (data, length);
  }
  EngVocabFiles files = { .folder = "folder", .tokenizer_json = json, .tokenizer_model = model, .tokenizer_config = config };
  return eng_vocab_new_from_files (&files, n_rows, error);
}

static void compare (const EngTokenizer *t, JsonObject *folder, const char *how)
{
  JsonArray *texts = json_object_get_array_member (json_object_has_member (folder, "texts") ? folder : fixture, "texts");
  JsonArray *expected = json_object_get_array_member (folder, "ids");
  EngTokenizeFlags flags = json_object_get_boolean_member (folder, "special") ? ENG_TOKENIZE_SPECIAL : ENG_TOKENIZE_PLAIN;
  g_autoptr (GArray) out = g_array_new (FALSE, FALSE, sizeof (gint32));
  for (guint i = 0; i < json_array_get_length (texts); i++) {
    g_autoptr (GString) text = from_hex (json_array_get_string_element (texts, i));
    g_autoptr (GString) got = g_string_new ("["), want = NULL;
    g_autofree char *json = NULL;
    g_array_set_size (out, 0);
    eng_tokenizer_encode (t, text->str, (gssize) text->len, flags, out);
    for (guint k = 0; k < out->len; k++)
      g_string_append_printf (got, "%s%d", k > 0 ? "," : "", g_array_index (out, gint32, k));
    g_string_append_c (got, ']');
    json = json_to_string (json_array_get_element (expected, i), FALSE);
    want = g_string_new (json);
    if (!g_string_equal (got, want)) {
      g_test_message ("%s, %s, '%s': %s, not %s", json_object_get_string_member (folder, "name"), how, text->str, got->str, want->str);
      g_test_fail ();
    }
  }
}

/* The metadata alone, as an import writes it. */
static EngTokenizer *through_gguf (const EngVocab *vocab)
{
  g_autoptr (GError) error = NULL;
  g_autofree char *folder = g_dir_make_tmp ("valise-vocab-XXXXXX", &error), *path = g_build_filename (folder, "v.gguf", NULL);
  g_autoptr (EngGgufWriter) writer = eng_gguf_writer_new (64);
  const guint64 dims[] = { 1 };
  const float zero = 0;
  eng_vocab_write (vocab, writer);
  guint tensor = eng_gguf_writer_add_tensor (writer, "x", ENG_TYPE_F32, 1, dims);
  g_assert_true (eng_gguf_writer_begin (writer, path, &error) && eng_gguf_writer_write (writer, tensor, 0, &zero, sizeof zero, &error));
  g_assert_true (eng_gguf_writer_finish (writer, &error));
  g_autoptr (EngGguf) gguf = eng_gguf_open (path, &error);
  g_assert_no_error (error);
  g_autoptr (EngVocab) again = eng_vocab_new_from_gguf (gguf, &error);
  g_assert_no_error (error);
  g_assert_cmpstr (eng_vocab_chat_template (again), ==, eng_vocab_chat_template (vocab));
  g_assert_cmpuint (eng_vocab_n_tokens (again), ==, eng_vocab_n_tokens (vocab));
  EngTokenizer *t = eng_tokenizer_new_from_vocab (again, &error);
  g_assert_no_error (error);
  g_unlink (path);
  g_rmdir (folder);
  return t;
}

static void test_folder (gconstpointer data)
{
  JsonObject *folder = (JsonObject *) data;
  g_autoptr (GError) error = NULL;
  g_autoptr (EngVocab) vocab = open_folder (folder, 0, &error);
  g_assert_no_error (error);
  g_autoptr (EngTokenizer) t = eng_tokenizer_new_from_vocab (vocab, &error);
  g_assert_no_error (error);
  compare (t, folder, "from its files");
  g_autoptr (EngTokenizer) again = through_gguf (vocab);
  compare (again, folder, "through GGUF");
  g_assert_cmpint (eng_tokenizer_bos (again), ==, eng_tokenizer_bos (t));
  g_assert_cmpint (eng_tokenizer_eos (again), ==, eng_tokenizer_eos (t));
  g_assert_true (eng_tokenizer_adds_bos (again) == eng_tokenizer_adds_bos (t));
}

static JsonObject *find_folder (const char *name)
{
  JsonArray *folders = json_object_get_array_member (fixture, "folders");
  for (guint i = 0; i < json_array_get_length (folders); i++)
    if (g_str_equal (json_object_get_string_member (json_array_get_object_element (folders, i), "name"), name))
      return json_array_get_object_element (folders, i);
  g_error ("no folder %s", name);
}

static void test_configuration (void)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (EngVocab) bytes = open_folder (find_folder ("bytes"), 500, &error), own = open_folder (find_folder ("own-pattern"), 0, &error);
  g_autoptr (EngVocab) model = open_folder (find_folder ("sentencepiece-bpe-identity"), 0, &error);
  g_assert_no_error (error);
  g_autoptr (EngTokenizer) t = eng_tokenizer_new_from_vocab (bytes, &error), from_processor = eng_tokenizer_new_from_vocab (own, &error);
  g_autoptr (EngTokenizer) from_model = eng_tokenizer_new_from_vocab (model, &error);
  g_assert_no_error (error);
  g_assert_cmpuint (eng_tokenizer_n_tokens (t), ==, 500); /* filled up to the embedding's rows */
  g_assert_cmpint (eng_tokenizer_bos (t), ==, 400);
  g_assert_cmpint (eng_tokenizer_eos (t), ==, 401);
  g_assert_true (eng_tokenizer_adds_bos (t));
  g_assert_true (eng_tokenizer_is_end (t, 401));
  g_assert_cmpstr (eng_vocab_chat_template (bytes), ==, "{{ messages }}");
  g_assert_cmpstr (eng_vocab_chat_template (own), ==, "D");
  g_assert_true (eng_tokenizer_adds_bos (from_processor));
  g_assert_cmpint (eng_tokenizer_bos (from_processor), ==, 340);
  g_assert_true (eng_tokenizer_adds_bos (from_model));
  g_assert_true (eng_tokenizer_is_control (from_model, (int) eng_tokenizer_n_tokens (from_model) - 1)); /* <tool>, that the configuration adds */
  g_autoptr (EngVocab) small = open_folder (find_folder ("bytes"), 100, &error);
  g_assert_null (small);
  g_assert_error (error, ENG_ERROR, ENG_ERROR_FORMAT);
}

/* Ends of a turn and wishes for sampling. */
static void test_generation_configuration (void)
{
  g_autoptr (GError) error = NULL;
  static const char generation[] = "{\"eos_token_id\": [5, 401], \"temperature\": 0.6, \"top_k\": 20, \"do_sample\": true}";
  g_autoptr (GBytes) json = member_json (find_folder ("bytes"), "tokenizer.json"), config = g_bytes_new_static (generation, strlen (generation));
  EngVocabFiles files = { .folder = "folder", .tokenizer_json = json, .generation_config = config };
  g_autoptr (EngVocab) vocab = eng_vocab_new_from_files (&files, 0, &error);
  g_assert_no_error (error);
  g_autoptr (EngTokenizer) t = through_gguf (vocab);
  g_assert_true (eng_tokenizer_is_end (t, 5));
  g_assert_true (eng_tokenizer_is_end (t, 401));
  g_assert_false (eng_tokenizer_is_end (t, 6));
}

/* ---- damaged ones --------------------------------------------------------------------------------------------------------- */

static gboolean opens (const char *json, gsize length)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (GBytes) bytes = g_bytes_new (json, length);
  EngVocabFiles files = { .folder = "folder", .tokenizer_json = bytes };
  g_autoptr (EngVocab) vocab = eng_vocab_new_from_files (&files, 0, &error);
  g_autoptr (EngTokenizer) t = vocab != NULL ? eng_tokenizer_new_from_vocab (vocab, &error) : NULL;
  g_assert_true ((t == NULL) == (error != NULL));
  if (error != NULL)
    g_assert_true (g_str_has_prefix (error->message, "folder: ") && strchr (error->message, '\n') == NULL);
  return t != NULL;
}

static void test_cut_off (void)
{
  g_autoptr (GBytes) json = member_json (find_folder ("wordpiece"), "tokenizer.json");
  gsize length;
  const char *text = g_bytes_get_data (json, &length);
  g_assert_true (opens (text, length));
  for (gsize n = 0; n < length; n++)
    g_assert_false (opens (text, n));
  gsize model_length;
  g_autofree guint8 *model = g_base64_decode (json_object_get_string_member (find_folder ("sentencepiece-unigram-identity"), "tokenizer.model"), &model_length);
  for (gsize n = 0; n < model_length; n++) {
    g_autoptr (GError) error = NULL;
    g_autoptr (GBytes) bytes = g_bytes_new (model, n);
    EngVocabFiles files = { .folder = "folder", .tokenizer_model = bytes };
    g_autoptr (EngVocab) vocab = eng_vocab_new_from_files (&files, 0, &error);
    g_assert_true ((vocab == NULL) == (error != NULL)); /* between two pieces it is a whole message of fewer */
  }
}

static void test_hostile_json (void)
{
#define MODEL(rest) "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"ab\":2}," rest "}}"
  static const struct { const char *json, *words; } cases[] = {
    { "", "ends early" }, { "[]", "laid out" }, { "{}", "no model" }, { "{\"model\":{}}", "no tokens" }, { "nonsense", "no JSON" },
    { MODEL ("\"merges\":[\"a\"]"), "two parts" }, { MODEL ("\"merges\":[[\"a\"]]"), "laid out" }, { MODEL ("\"merges\":[[\"a\",\"z\"]]"), "merge 0 names" },
    { MODEL ("\"merges\":[[\"a\",\"b\"],[\"a\",\"b\"]]"), "there twice" }, { MODEL ("\"merges\":[1]"), "laid out" },
    { MODEL ("\"merges\":[],\"end_of_word_suffix\":\"</w>\""), "parts of a word" },
    { "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":0},\"merges\":[]}}", "one number" },
    { "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":99999999999},\"merges\":[]}}", "makes no sense" },
    { "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":-1},\"merges\":[]}}", "makes no sense" },
    { "{\"model\":{\"type\":\"WordLevel\",\"vocab\":{\"a\":0}}}", "a kind that is not known" },
    { "{\"model\":{\"type\":\"Unigram\",\"vocab\":[[\"a\",1e999]]}}", "is no number" },
    { "{\"pre_tokenizer\":{\"type\":\"Martian\"}," "\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[]}}", "'Martian'" },
    { "{\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(\"},\"behavior\":\"Isolated\"},\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[]}}", "not closed" },
    { "{\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"a\"},\"behavior\":\"Nonsense\"},\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[]}}", "'Nonsense'" },
    { "{\"normalizer\":{\"type\":\"Martian\"},\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[]}}", "'Martian'" },
    { "{\"normalizer\":{\"type\":\"Precompiled\",\"precompiled_charsmap\":\"AAAA\"},\"model\":{\"type\":\"Unigram\",\"vocab\":[[\"a\",0]]}}", "damaged" },
    { "{\"added_tokens\":[{\"id\":0}],\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[]}}", "laid out" },
    { "{\"added_tokens\":[{\"id\":0,\"content\":7}],\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[]}}", "laid out" },
  };
  for (gsize i = 0; i < G_N_ELEMENTS (cases); i++) {
    g_autoptr (GError) error = NULL;
    g_autoptr (GBytes) bytes = g_bytes_new_static (cases[i].json, strlen (cases[i].json));
    EngVocabFiles files = { .folder = "folder", .tokenizer_json = bytes };
    g_autoptr (EngVocab) vocab = eng_vocab_new_from_files (&files, 0, &error);
    g_autoptr (EngTokenizer) t = vocab != NULL ? eng_tokenizer_new_from_vocab (vocab, &error) : NULL;
    g_assert_null (t);
    g_assert_nonnull (error);
    if (strstr (error->message, cases[i].words) == NULL)
      g_error ("%s: %s", cases[i].json, error->message);
  }
  g_autoptr (GString) deep = g_string_new ("{\"version\":");
  for (guint i = 0; i < 100000; i++)
    g_string_append_c (deep, '[');
  g_assert_false (opens (deep->str, deep->len));
}

/* ---- patterns ------------------------------------------------------------------------------------------------------------- */

static gsize next_piece (const EngPattern *pattern, EngPatternTrail *trail, const char *text, const char *end)
{
  gsize n = eng_pattern_match (pattern, trail, text, end);
  for (const char *p = text; n == 0;) {
    p = g_utf8_next_char (p);
    if (p >= end || eng_pattern_match (pattern, trail, p, end) > 0)
      return (gsize) (p - text);
  }
  return n;
}

static void test_patterns (void)
{
  JsonArray *patterns = json_object_get_array_member (fixture, "patterns"), *texts = json_object_get_array_member (fixture, "pattern_texts");
  for (guint i = 0; i < json_array_get_length (patterns); i++) {
    JsonObject *entry = json_array_get_object_element (patterns, i);
    const char *source = json_object_get_string_member (entry, "pattern");
    g_autoptr (GError) error = NULL;
    g_autoptr (EngPattern) pattern = eng_pattern_new (source, &error);
    g_assert_no_error (error);
    for (guint k = 0; k < json_array_get_length (texts); k++) {
      g_autoptr (GString) text = from_hex (json_array_get_string_element (texts, k)), got = g_string_new ("[");
      const char *p = text->str, *end = p + text->len;
      EngPatternTrail trail = { 0 };
      while (p < end) {
        gsize n = next_piece (pattern, &trail, p, end);
        g_string_append_printf (got, "%s%" G_GSIZE_FORMAT, p > text->str ? "," : "", n);
        p += n;
      }
      g_string_append_c (got, ']');
      eng_pattern_trail_clear (&trail);
      g_autofree char *want = json_to_string (json_array_get_element (json_object_get_array_member (entry, "pieces"), k), FALSE);
      if (!g_str_equal (got->str, want)) {
        g_test_message ("%s on '%s': %s, not %s", source, text->str, got->str, want);
        g_test_fail ();
      }
    }
  }
}

static void test_refused_patterns (void)
{
  JsonArray *refused = json_object_get_array_member (fixture, "refused");
  for (guint i = 0; i < json_array_get_length (refused); i++) {
    g_autoptr (GError) error = NULL;
    g_autoptr (EngPattern) pattern = eng_pattern_new (json_array_get_string_element (refused, i), &error);
    g_assert_null (pattern);
    g_assert_error (error, ENG_ERROR, ENG_ERROR_UNSUPPORTED);
  }
  g_autoptr (GString) large = g_string_new ("a");
  for (guint i = 0; i < 3; i++)
    g_string_append (large, "{1000}");
  g_assert_null (eng_pattern_new (large->str, NULL));
  g_assert_null (eng_pattern_new ("(){1000}{1000}{1000}{1000}", NULL));
}

/* A search that looked to the end of the text again from each place would take hours for a megabyte. */
static void test_patterns_are_linear (void)
{
  static const char *const patterns[] = { "\\s+$", "\\s*\\n|\\s", "(?:a|b)*c|[ab]", "\\s+(?!\\S)|\\s+", " *x| " };
  gsize n = 1 << 20;
  g_autofree char *text = g_malloc (n);
  for (gsize i = 0; i < G_N_ELEMENTS (patterns); i++) {
    g_autoptr (EngPattern) pattern = eng_pattern_new (patterns[i], NULL);
    EngPatternTrail trail = { 0 };
    gsize covered = 0;
    memset (text, strchr (patterns[i], 'c') != NULL ? 'a' : ' ', n);
    text[n - 1] = 'y';
    for (const char *p = text; p < text + n;) {
      gsize m = eng_pattern_match (pattern, &trail, p, text + n);
      covered += m;
      p += MAX (m, 1);
    }
    g_assert_cmpuint (covered, ==, i == 0 ? 0 : n - 1);
    eng_pattern_trail_clear (&trail);
  }
}

/* ---- normal forms --------------------------------------------------------------------------------------------------------- */

static void test_normal_forms (void)
{
  static const struct { const char *name; gboolean compatible, composed; } forms[] = {
    { "NFC", FALSE, TRUE }, { "NFD", FALSE, FALSE }, { "NFKC", TRUE, TRUE }, { "NFKD", TRUE, FALSE } };
  JsonArray *list = json_object_get_array_member (fixture, "forms");
  for (guint i = 0; i < json_array_get_length (list); i++) {
    JsonObject *entry = json_array_get_object_element (list, i);
    g_autoptr (GString) text = from_hex (json_object_get_string_member (entry, "text"));
    for (gsize k = 0; k < G_N_ELEMENTS (forms); k++) {
      g_autoptr (GString) want = from_hex (json_object_get_string_member (entry, forms[k].name)), got = g_string_new (NULL);
      eng_normal_form (text->str, text->len, forms[k].compatible, forms[k].composed, got);
      g_assert_cmpstr (got->str, ==, want->str);
    }
  }
  g_autoptr (GString) broken = g_string_new (NULL), marks = g_string_new ("a"), out = g_string_new (NULL);
  eng_normal_form ("\xFF" "e\xCC\x81\xC3", 5, FALSE, TRUE, broken);
  g_assert_cmpstr (broken->str, ==, "\xFF\xC3\xA9\xC3"); /* bytes that are no UTF-8 stay */
  for (guint i = 0; i < 1 << 18; i++) /* in canonical order the ones below come first: quadratic where it is sorted by exchange */
    g_string_append (marks, i % 2 == 0 ? "\xCC\x81" : "\xCC\xA3");
  eng_normal_form (marks->str, marks->len, FALSE, TRUE, out);
  g_assert_cmpuint (out->len, ==, marks->len + 3 - 1 - 2); /* a and the first mark below are one character */
  g_assert_true (g_str_has_prefix (out->str, "\xE1\xBA\xA1\xCC\xA3"));
}

static void test_normalizers (void)
{
  static const struct { const char *json, *text, *want; } cases[] = {
    { "null", "a b", "a b" },
    { "{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Prepend\",\"prepend\":\"▁\"},{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},\"content\":\"▁\"}]}", "a b", "▁a▁b" },
    { "{\"type\":\"Prepend\",\"prepend\":\"x\"}", "", "" },
    { "{\"type\":\"Replace\",\"pattern\":{\"Regex\":\" {2,}\"},\"content\":\" \"}", "a   b c", "a b c" },
    { "{\"type\":\"Strip\",\"strip_left\":true,\"strip_right\":false}", " \t a ", "a " },
    { "{\"type\":\"Strip\",\"strip_left\":true,\"strip_right\":true}", "\xC2\xA0 a b\n", "a b" },
    { "{\"type\":\"Lowercase\"}", "AÉΣİ", "aéσi̇" },
    { "{\"type\":\"BertNormalizer\",\"clean_text\":true,\"handle_chinese_chars\":true,\"strip_accents\":null,\"lowercase\":true}", "É\tx\x01世", "e x 世 " },
  };
  for (gsize i = 0; i < G_N_ELEMENTS (cases); i++) {
    g_autoptr (GError) error = NULL;
    g_autoptr (EngNormalizer) normalizer = eng_normalizer_new_json (cases[i].json, &error);
    g_assert_no_error (error);
    g_autoptr (GString) text = g_string_new (cases[i].text);
    eng_normalizer_apply (normalizer, text);
    g_assert_cmpstr (text->str, ==, cases[i].want);
  }
}

/* ---- prompts -------------------------------------------------------------------------------------------------------------- */

/* What the chat template writes is no structure in a person's text, control token or not. */
static void test_structure (void)
{
  static const char json[] = "{\"added_tokens\":[{\"id\":4,\"content\":\"<s>\",\"special\":true},{\"id\":5,\"content\":\"<think>\",\"special\":false},"
                             "{\"id\":6,\"content\":\"<td>\",\"special\":false}],\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false},"
                             "\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"<\":1,\"s\":2,\">\":3},\"merges\":[]}}";
  static const char chat_template[] = "<s>{{ messages }}<think>", prompt[] = "<s><think>a<s><think><td>a<think>";
  static const gint32 expected[] = { 4, 5, 0, 1, 2, 3, 1, 3, 6, 0, 5 };
  g_autoptr (GError) error = NULL;
  g_autoptr (GBytes) bytes = g_bytes_new_static (json, strlen (json)), template_bytes = g_bytes_new_static (chat_template, strlen (chat_template));
  EngVocabFiles files = { .folder = "folder", .tokenizer_json = bytes, .chat_template = template_bytes };
  g_autoptr (EngVocab) vocab = eng_vocab_new_from_files (&files, 0, &error);
  g_autoptr (EngTokenizer) t = vocab != NULL ? eng_tokenizer_new_from_vocab (vocab, &error) : NULL;
  g_assert_no_error (error);
  g_autoptr (GArray) out = g_array_new (FALSE, FALSE, sizeof (gint32));
  EngSpan literal = { 10, 26 }; /* a<s><think><td>a, of which the vocabulary lacks the letters of "think" */
  eng_tokenizer_encode_prompt (t, prompt, strlen (prompt), &literal, 1, out);
  g_assert_cmpmem (out->data, out->len * sizeof (gint32), expected, sizeof expected);
}

int main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  load_fixture ();
  JsonArray *folders = json_object_get_array_member (fixture, "folders");
  for (guint i = 0; i < json_array_get_length (folders); i++) {
    JsonObject *folder = json_array_get_object_element (folders, i);
    g_autofree char *name = g_strconcat ("/vocab-files/agrees/", json_object_get_string_member (folder, "name"), NULL);
    g_test_add_data_func (name, folder, test_folder);
  }
  g_test_add_func ("/vocab-files/configuration", test_configuration);
  g_test_add_func ("/vocab-files/generation-configuration", test_generation_configuration);
  g_test_add_func ("/vocab-files/cut-off-anywhere", test_cut_off);
  g_test_add_func ("/vocab-files/hostile-json", test_hostile_json);
  g_test_add_func ("/vocab-files/structure-is-the-template's", test_structure);
  g_test_add_func ("/pattern/cuts-as-oniguruma", test_patterns);
  g_test_add_func ("/pattern/refuses", test_refused_patterns);
  g_test_add_func ("/pattern/linear", test_patterns_are_linear);
  g_test_add_func ("/normal-form/as-unicode-says", test_normal_forms);
  g_test_add_func ("/normalizer/steps", test_normalizers);
  int result = g_test_run ();
  json_node_unref (root);
  return result;
}
