/* test_tokenizer.c: tokens against the tokenizers and sentencepiece packages (fixtures/tokenizer.json, made by make_tokenizer.py),
 * any bytes, hostile vocabularies, and text that is streamed. The vocabularies are written as GGUF files of metadata alone. */
#include <json-glib/json-glib.h>
#include <string.h>
#include <glib/gstdio.h>

#include "engine/error.h"
#include "engine/tokenizer/pretokenize.h"
#include "engine/tokenizer/tokenizer.h"

static JsonParser *parser;
static JsonObject *fixture;

static void load_fixture (void)
{
  g_autoptr (GError) error = NULL;
  g_autofree char *path = g_test_build_filename (G_TEST_DIST, "fixtures", "tokenizer.json", NULL);
  parser = json_parser_new ();
  json_parser_load_from_file (parser, path, &error);
  g_assert_no_error (error);
  fixture = json_node_get_object (json_parser_get_root (parser));
}

/* ---- a GGUF file's metadata, as it lies in the file (all little endian) ---- */

typedef struct {
  GByteArray *pairs;
  guint64 n_pairs;
} Metadata;

enum { GGUF_U32 = 4, GGUF_I32 = 5, GGUF_F32 = 6, GGUF_BOOL = 7, GGUF_STRING = 8, GGUF_ARRAY = 9 };

static void put_u32 (GByteArray *out, guint32 value)
{
  value = GUINT32_TO_LE (value);
  g_byte_array_append (out, (const guint8 *) &value, sizeof value);
}

static void put_u64 (GByteArray *out, guint64 value)
{
  value = GUINT64_TO_LE (value);
  g_byte_array_append (out, (const guint8 *) &value, sizeof value);
}

static void put_text (GByteArray *out, const char *text)
{
  put_u64 (out, strlen (text));
  g_byte_array_append (out, (const guint8 *) text, (guint) strlen (text));
}

static void put_key (Metadata *m, const char *key, guint32 type)
{
  put_text (m->pairs, key);
  put_u32 (m->pairs, type);
  m->n_pairs++;
}

static void put_string (Metadata *m, const char *key, const char *value)
{
  put_key (m, key, GGUF_STRING);
  put_text (m->pairs, value);
}

static void put_number (Metadata *m, const char *key, guint32 value)
{
  put_key (m, key, GGUF_U32);
  put_u32 (m->pairs, value);
}

static void put_boolean (Metadata *m, const char *key, gboolean value)
{
  guint8 byte = value != FALSE;
  put_key (m, key, GGUF_BOOL);
  g_byte_array_append (m->pairs, &byte, 1);
}

static void put_strings (Metadata *m, const char *key, const char *const *values, gsize n)
{
  put_key (m, key, GGUF_ARRAY);
  put_u32 (m->pairs, GGUF_STRING);
  put_u64 (m->pairs, n);
  for (gsize i = 0; i < n; i++)
    put_text (m->pairs, values[i]);
}

static void put_integers (Metadata *m, const char *key, const gint32 *values, gsize n)
{
  put_key (m, key, GGUF_ARRAY);
  put_u32 (m->pairs, GGUF_I32);
  put_u64 (m->pairs, n);
  for (gsize i = 0; i < n; i++)
    put_u32 (m->pairs, (guint32) values[i]);
}

static void put_floats (Metadata *m, const char *key, const float *values, gsize n)
{
  put_key (m, key, GGUF_ARRAY);
  put_u32 (m->pairs, GGUF_F32);
  put_u64 (m->pairs, n);
  for (gsize i = 0; i < n; i++) {
    guint32 bits;
    memcpy (&bits, &values[i], sizeof bits);
    put_u32 (m->pairs, bits);
  }
}

static void metadata_init (Metadata *m)
{
  *m = (Metadata){ g_byte_array_new (), 0 };
}

/* Writes it to a file, opens that and makes a tokenizer. */
static EngTokenizer *open_metadata (Metadata *m, GError **error)
{
  g_autofree char *path = NULL;
  int fd = g_file_open_tmp ("valise-tokenizer-XXXXXX.gguf", &path, error);
  g_assert_cmpint (fd, >=, 0);
  g_close (fd, NULL);
  g_autoptr (GByteArray) file = g_byte_array_new ();
  g_byte_array_append (file, (const guint8 *) "GGUF", 4);
  put_u32 (file, 3);
  put_u64 (file, 0);
  put_u64 (file, m->n_pairs);
  g_byte_array_append (file, m->pairs->data, m->pairs->len);
  g_assert_true (g_file_set_contents (path, (const char *) file->data, file->len, error));
  g_byte_array_unref (m->pairs);
  g_autoptr (EngGguf) gguf = eng_gguf_open (path, error);
  EngTokenizer *t = gguf != NULL ? eng_tokenizer_new (gguf, error) : NULL;
  g_unlink (path);
  return t;
}

/* ---- the fixture's vocabularies ---- */

static const char **strings_of (JsonObject *object, const char *member, gsize *n)
{
  JsonArray *array = json_object_get_array_member (object, member);
  *n = json_array_get_length (array);
  const char **values = g_new (const char *, *n);
  for (guint i = 0; i < *n; i++)
    values[i] = json_array_get_string_element (array, i);
  return values;
}

static gint32 *integers_of (JsonArray *array, gsize *n)
{
  *n = json_array_get_length (array);
  gint32 *values = g_new (gint32, *n);
  for (guint i = 0; i < *n; i++)
    values[i] = (gint32) json_array_get_int_element (array, i);
  return values;
}

static void put_vocabulary (Metadata *m, JsonObject *from)
{
  gsize n, n_types;
  g_autofree const char **tokens = strings_of (from, "tokens", &n);
  g_autofree gint32 *types = integers_of (json_object_get_array_member (from, "types"), &n_types);
  put_strings (m, "tokenizer.ggml.tokens", tokens, n);
  put_integers (m, "tokenizer.ggml.token_type", types, n_types);
}

static EngTokenizer *tiny_bpe (const char *pre)
{
  g_autoptr (GError) error = NULL;
  Metadata m;
  gsize n;
  metadata_init (&m);
  put_string (&m, "tokenizer.ggml.model", "gpt2");
  put_string (&m, "tokenizer.ggml.pre", pre);
  put_vocabulary (&m, fixture);
  g_autofree const char **merges = strings_of (fixture, "merges", &n);
  put_strings (&m, "tokenizer.ggml.merges", merges, n);
  put_number (&m, "tokenizer.ggml.bos_token_id", 0);
  put_number (&m, "tokenizer.ggml.eos_token_id", 420);
  EngTokenizer *t = open_metadata (&m, &error);
  g_assert_no_error (error);
  return t;
}

static EngTokenizer *tiny_spm (void)
{
  g_autoptr (GError) error = NULL;
  JsonObject *spm = json_object_get_object_member (fixture, "spm");
  JsonArray *array = json_object_get_array_member (spm, "scores");
  guint n = json_array_get_length (array);
  g_autofree float *scores = g_new (float, n);
  for (guint i = 0; i < n; i++)
    scores[i] = (float) json_array_get_double_element (array, i);
  Metadata m;
  metadata_init (&m);
  put_string (&m, "tokenizer.ggml.model", "llama");
  put_vocabulary (&m, spm);
  put_floats (&m, "tokenizer.ggml.scores", scores, n);
  put_number (&m, "tokenizer.ggml.bos_token_id", 1);
  put_number (&m, "tokenizer.ggml.eos_token_id", 2);
  put_number (&m, "tokenizer.ggml.unknown_token_id", 0);
  EngTokenizer *t = open_metadata (&m, &error);
  g_assert_no_error (error);
  return t;
}

static GByteArray *text_of (JsonArray *texts, guint i)
{
  const char *hex = json_array_get_string_element (texts, i);
  GByteArray *text = g_byte_array_new ();
  g_byte_array_append (text, (const guint8 *) "", 0);
  for (; hex[0] != '\0'; hex += 2) {
    guint8 byte = (guint8) (g_ascii_xdigit_value (hex[0]) * 16 + g_ascii_xdigit_value (hex[1]));
    g_byte_array_append (text, &byte, 1);
  }
  return text;
}

static char *describe (const gint32 *ids, gsize n)
{
  GString *text = g_string_new (NULL);
  for (gsize i = 0; i < n; i++)
    g_string_append_printf (text, "%d ", ids[i]);
  return g_string_free (text, FALSE);
}

static GArray *encode (const EngTokenizer *t, const void *text, gsize length, EngTokenizeFlags flags)
{
  GArray *out = g_array_new (FALSE, FALSE, sizeof (gint32));
  eng_tokenizer_encode (t, text != NULL ? text : "", (gssize) length, flags, out);
  return out;
}

static void compare_ids (const EngTokenizer *t, JsonArray *texts, JsonArray *expected, EngTokenizeFlags flags)
{
  g_assert_cmpuint (json_array_get_length (texts), ==, json_array_get_length (expected));
  g_assert_cmpuint (json_array_get_length (texts), >, 80);
  for (guint i = 0; i < json_array_get_length (texts); i++) {
    gsize n;
    g_autoptr (GByteArray) text = text_of (texts, i);
    g_autofree gint32 *ids = integers_of (json_array_get_array_element (expected, i), &n);
    g_autoptr (GArray) out = encode (t, text->data, text->len, flags);
    if (out->len != n || (n > 0 && memcmp (out->data, ids, n * sizeof *ids) != 0)) {
      g_autofree char *want = describe (ids, n), *have = describe ((const gint32 *) (gpointer) out->data, out->len);
      g_test_message ("text %u '%.*s'\n  expected %s\n  got      %s", i, (int) text->len, (const char *) text->data, want, have);
      g_test_fail ();
    }
  }
}

/* ---- the promises ---- */

static void test_pieces (void)
{
  static const char *const names[] = { "gpt2",   "smollm", "llama-bpe",   "qwen2",          "qwen35",
                                       "gpt-4o", "tekken", "deepseek-v3", "deepseek-coder", "falcon" };
  JsonArray *texts = json_object_get_array_member (fixture, "texts");
  for (gsize k = 0; k < G_N_ELEMENTS (names); k++) {
    g_autoptr (EngPretokenizer) pre = eng_pretokenizer_new (names[k], NULL);
    EngCut cut;
    g_assert_nonnull (pre);
    JsonArray *expected = json_object_get_array_member (json_object_get_object_member (fixture, "pieces"), names[k]);
    for (guint i = 0; i < json_array_get_length (texts); i++) {
      g_autoptr (GByteArray) text = text_of (texts, i);
      JsonArray *lengths = json_array_get_array_element (expected, i);
      const char *p = (const char *) text->data, *end = p + text->len;
      eng_cut_init (&cut, pre, 0, eng_pretokenizer_n_stages (pre));
      for (guint j = 0; p < end; j++) {
        gboolean dropped;
        gsize n = eng_cut_next (&cut, p, end, &dropped);
        if (j >= json_array_get_length (lengths) || n != (gsize) json_array_get_int_element (lengths, j)) {
          g_test_message ("%s, text %u '%.*s': piece %u is %" G_GSIZE_FORMAT " bytes", names[k], i, (int) text->len, (const char *) text->data, j, n);
          g_test_fail ();
          break;
        }
        p += n;
      }
      eng_cut_clear (&cut);
    }
  }
}

static void test_bpe (void)
{
  static const char *const names[] = { "smollm", "llama-bpe" };
  JsonArray *texts = json_object_get_array_member (fixture, "texts");
  JsonObject *ids = json_object_get_object_member (fixture, "ids");
  for (gsize k = 0; k < G_N_ELEMENTS (names); k++) {
    g_autoptr (EngTokenizer) t = tiny_bpe (names[k]);
    compare_ids (t, texts, json_object_get_array_member (ids, names[k]), ENG_TOKENIZE_PLAIN);
  }
  g_autoptr (EngTokenizer) t = tiny_bpe ("smollm");
  compare_ids (t, texts, json_object_get_array_member (ids, "special"), ENG_TOKENIZE_SPECIAL);
}

static void test_spm (void)
{
  JsonObject *spm = json_object_get_object_member (fixture, "spm");
  g_autoptr (EngTokenizer) t = tiny_spm ();
  compare_ids (t, json_object_get_array_member (spm, "texts"), json_object_get_array_member (spm, "ids"), ENG_TOKENIZE_PLAIN);
  g_assert_true (eng_tokenizer_adds_bos (t));
}

static void test_starter (void)
{
  const char *path = g_getenv ("VALISE_STARTER_GGUF");
  if (path == NULL || !g_str_has_suffix (path, ".gguf")) {
    g_test_skip ("VALISE_STARTER_GGUF does not name the starter model's GGUF file");
    return;
  }
  g_autoptr (GError) error = NULL;
  g_autoptr (EngGguf) gguf = eng_gguf_open (path, &error);
  g_assert_no_error (error);
  g_autoptr (EngTokenizer) t = eng_tokenizer_new (gguf, &error);
  g_assert_no_error (error);
  compare_ids (t, json_object_get_array_member (fixture, "texts"), json_object_get_array_member (fixture, "starter"), ENG_TOKENIZE_PLAIN);
  g_assert_true (eng_tokenizer_is_end (t, 2));
  g_assert_true (eng_tokenizer_is_end (t, 0));
  g_assert_false (eng_tokenizer_is_end (t, 1));
  g_assert_false (eng_tokenizer_adds_bos (t));
}

static void assert_round_trip (const EngTokenizer *t, const guint8 *text, gsize length, gsize prefix)
{
  g_autoptr (GArray) out = encode (t, text, length, ENG_TOKENIZE_PLAIN);
  g_autoptr (GByteArray) back = g_byte_array_new ();
  for (guint i = 0; i < out->len; i++) {
    gsize n;
    gint32 token = g_array_index (out, gint32, i);
    g_assert_false (eng_tokenizer_is_control (t, token)); /* text never makes a control token */
    const char *piece = eng_tokenizer_piece (t, token, FALSE, &n);
    g_byte_array_append (back, (const guint8 *) piece, (guint) n);
  }
  g_assert_cmpmem (back->data + MIN (prefix, back->len), back->len - MIN (prefix, back->len), text, length);
}

static void test_any_bytes (void)
{
  g_autoptr (EngTokenizer) bpe = tiny_bpe ("smollm"), qwen = tiny_bpe ("qwen2"), spm = tiny_spm ();
  g_autoptr (GRand) random = g_rand_new_with_seed (3);
  for (guint i = 0; i < 3000; i++) {
    guint8 text[64];
    gsize n = (gsize) g_rand_int_range (random, 1, sizeof text);
    for (gsize j = 0; j < n; j++)
      text[j] = (guint8) (i % 3 == 0 ? g_rand_int_range (random, 0, 256) : "ab <|im_end>\n\xC3\xA9\xE4\xB8\xF0\x9F\xED\xA0"[g_rand_int_range (random, 0, 20)]);
    assert_round_trip (bpe, text, n, 0);
    assert_round_trip (qwen, text, n, 0);
    assert_round_trip (spm, text, n, 1);
  }
}

/* A piece of a megabyte merges in one go; quadratic work would take hours. */
static void test_long_pieces (void)
{
  g_autoptr (EngTokenizer) bpe = tiny_bpe ("llama-bpe"), spm = tiny_spm ();
  gsize n = 1 << 20;
  g_autofree guint8 *text = g_malloc (n);
  static const char *const patterns[] = { "a", " ", "\n", "th", "7", "<|im", "'", "\xE4\xB8\x96", "\xFF", " \n" };
  for (gsize k = 0; k < G_N_ELEMENTS (patterns); k++) {
    for (gsize i = 0; i < n; i++)
      text[i] = (guint8) patterns[k][i % strlen (patterns[k])];
    assert_round_trip (bpe, text, n, 0);
    assert_round_trip (spm, text, n, 1);
  }
}

static void test_special (void)
{
  g_autoptr (EngTokenizer) t = tiny_bpe ("smollm");
  gsize length;
  g_assert_cmpint (eng_tokenizer_bos (t), ==, 0);
  g_assert_cmpint (eng_tokenizer_eos (t), ==, 420);
  g_assert_true (eng_tokenizer_is_end (t, 420));  /* <|end|>: eos, and by its name */
  g_assert_true (eng_tokenizer_is_end (t, 421));  /* <|im_end|>, by its name */
  g_assert_false (eng_tokenizer_is_end (t, 423));
  g_assert_false (eng_tokenizer_is_end (t, -1));
  g_assert_false (eng_tokenizer_is_control (t, 1 << 30));
  eng_tokenizer_piece (t, 421, FALSE, &length);
  g_assert_cmpuint (length, ==, 0);
  const char *piece = eng_tokenizer_piece (t, 421, TRUE, &length);
  g_assert_cmpmem (piece, length, "<|im_end|>", 10);
  eng_tokenizer_piece (t, -5, TRUE, &length);
  g_assert_cmpuint (length, ==, 0);
}

static void test_streaming (void)
{
  g_autoptr (EngTokenizer) t = tiny_bpe ("smollm");
  static const struct { const char *bytes, *pushed[6], *flushed; } cases[] = {
    { "aé", { "a", "", "é" }, "" },
    { "\xF0\x9F\x91\x8B!", { "", "", "", "👋", "!" }, "" },
    { "\xF0\x9F", { "", "" }, "\xEF\xBF\xBD\xEF\xBF\xBD" },
    { "\xE4\xB8z", { "", "", "\xEF\xBF\xBD\xEF\xBF\xBDz" }, "" },
    { "\xFF\x80", { "\xEF\xBF\xBD", "\xEF\xBF\xBD" }, "" },
    { "\xED\xA0\x80", { "", "\xEF\xBF\xBD\xEF\xBF\xBD", "\xEF\xBF\xBD" }, "" }, /* a surrogate is no character */
    { "\xE0\x80", { "", "\xEF\xBF\xBD\xEF\xBF\xBD" }, "" },
  };
  for (gsize i = 0; i < G_N_ELEMENTS (cases); i++) {
    EngDetokenizer *d = eng_detokenizer_new (t);
    for (gsize j = 0; cases[i].bytes[j] != '\0'; j++) {
      g_autoptr (GArray) one = encode (t, cases[i].bytes + j, 1, ENG_TOKENIZE_PLAIN);
      g_assert_cmpuint (one->len, ==, 1);
      g_assert_cmpstr (eng_detokenizer_push (d, g_array_index (one, gint32, 0)), ==, cases[i].pushed[j]);
    }
    g_assert_cmpstr (eng_detokenizer_push (d, 421), ==, ""); /* a control token is no text */
    g_assert_cmpstr (eng_detokenizer_flush (d), ==, cases[i].flushed);
    eng_detokenizer_free (d);
  }
}

typedef enum {
  FINE, NO_MODEL, OTHER_MODEL, OTHER_PRE, NO_TOKENS, TOKENS_OF_NUMBERS, NO_TYPES, SHORT_TYPES, TYPES_OF_STRINGS, NO_MERGES, MERGES_OF_NUMBERS,
  UNKNOWN_PART, UNKNOWN_RESULT, NO_SPACE, EMPTY_PART, SAME_MERGE, SAME_TOKEN, FAR_BOS, TEXT_BOS, LONG_TOKEN, SPM_NO_SCORES, SPM_BAD_BYTE, N_FAULTS
} Fault;

static EngTokenizer *faulty (Fault fault, GError **error)
{
  static const gint32 types[] = { 1, 1, 1, 6 };
  g_autofree char *long_token = g_strnfill (5000, 'x');
  const char *tokens[] = { "a", "b", fault == SAME_TOKEN ? "a" : "ab", fault == LONG_TOKEN ? long_token : fault == SPM_BAD_BYTE ? "<0xZZ>" : "c" };
  const char *merges[] = { fault == UNKNOWN_PART ? "a z" : fault == UNKNOWN_RESULT ? "b a" : fault == NO_SPACE ? "ab" : fault == EMPTY_PART ? "a " : "a b", "a b" };
  gboolean spm = fault >= SPM_NO_SCORES;
  Metadata m;
  metadata_init (&m);
  if (fault != NO_MODEL)
    put_string (&m, "tokenizer.ggml.model", fault == OTHER_MODEL ? "wordpiece" : spm ? "llama" : "gpt2");
  put_string (&m, "tokenizer.ggml.pre", fault == OTHER_PRE ? "martian" : "gpt2");
  if (fault == TOKENS_OF_NUMBERS)
    put_integers (&m, "tokenizer.ggml.tokens", types, 4);
  else if (fault != NO_TOKENS)
    put_strings (&m, "tokenizer.ggml.tokens", tokens, 4);
  if (fault == TYPES_OF_STRINGS)
    put_strings (&m, "tokenizer.ggml.token_type", tokens, 4);
  else if (fault != NO_TYPES)
    put_integers (&m, "tokenizer.ggml.token_type", types, fault == SHORT_TYPES ? 3 : 4);
  if (fault == MERGES_OF_NUMBERS)
    put_integers (&m, "tokenizer.ggml.merges", types, 4);
  else if (fault != NO_MERGES)
    put_strings (&m, "tokenizer.ggml.merges", merges, fault == SAME_MERGE ? 2 : 1);
  if (fault == SPM_BAD_BYTE)
    put_floats (&m, "tokenizer.ggml.scores", (const float[]){ 0, 0, 0, 0 }, 4);
  if (fault == TEXT_BOS)
    put_string (&m, "tokenizer.ggml.bos_token_id", "a");
  else
    put_number (&m, "tokenizer.ggml.bos_token_id", fault == FAR_BOS ? 4 : 0);
  put_boolean (&m, "tokenizer.ggml.add_bos_token", TRUE);
  return open_metadata (&m, error);
}

static void test_hostile_vocabularies (void)
{
  static const char *const words[N_FAULTS] = {
    [NO_MODEL] = "tokenizer.ggml.model is missing", [OTHER_MODEL] = "'wordpiece'", [OTHER_PRE] = "'martian'", [NO_TOKENS] = "tokens is missing",
    [TOKENS_OF_NUMBERS] = "not an array of strings", [NO_TYPES] = "token_type is missing", [SHORT_TYPES] = "3 entries for 4 tokens",
    [TYPES_OF_STRINGS] = "not an array of numbers", [NO_MERGES] = "merges is missing", [MERGES_OF_NUMBERS] = "not an array of strings",
    [UNKNOWN_PART] = "merge 0 names a token", [UNKNOWN_RESULT] = "merge 0 names a token", [NO_SPACE] = "merge 0 is not two parts",
    [EMPTY_PART] = "merge 0 is not two parts", [SAME_MERGE] = "merge 1 is there twice", [SAME_TOKEN] = "tokens 0 and 2 have the same text",
    [FAR_BOS] = "bos_token_id is 4, outside", [TEXT_BOS] = "bos_token_id is not a number", [LONG_TOKEN] = "token 3 is 5000 bytes long",
    [SPM_NO_SCORES] = "scores is missing", [SPM_BAD_BYTE] = "token 3 is marked as a byte" };
  for (Fault fault = FINE; fault < N_FAULTS; fault++) {
    g_autoptr (GError) error = NULL;
    g_autoptr (EngTokenizer) t = faulty (fault, &error);
    if (fault == FINE) {
      g_assert_no_error (error);
      g_assert_true (eng_tokenizer_adds_bos (t));
      continue;
    }
    g_assert_null (t);
    gint code = fault == OTHER_MODEL || fault == OTHER_PRE ? ENG_ERROR_UNSUPPORTED : ENG_ERROR_FORMAT;
    g_assert_error (error, ENG_ERROR, code);
    if (strstr (error->message, words[fault]) == NULL || strstr (error->message, ".gguf: ") == NULL)
      g_error ("fault %d: %s", (int) fault, error->message);
  }
}

int main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  load_fixture ();
  g_test_add_func ("/tokenizer/cuts-as-published", test_pieces);
  g_test_add_func ("/tokenizer/agrees-with-tokenizers", test_bpe);
  g_test_add_func ("/tokenizer/agrees-with-sentencepiece", test_spm);
  g_test_add_func ("/tokenizer/agrees-on-the-starter", test_starter);
  g_test_add_func ("/tokenizer/any-bytes-come-back", test_any_bytes);
  g_test_add_func ("/tokenizer/long-pieces-are-no-harder", test_long_pieces);
  g_test_add_func ("/tokenizer/special-tokens", test_special);
  g_test_add_func ("/tokenizer/streams-whole-characters", test_streaming);
  g_test_add_func ("/tokenizer/refuses-hostile-vocabularies", test_hostile_vocabularies);
  int result = g_test_run ();
  g_object_unref (parser);
  return result;
}
