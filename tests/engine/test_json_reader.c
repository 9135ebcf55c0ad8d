/* test_json_reader.c: what is JSON and what is not (RFC 8259), and the trees that come of it. */
#include "engine/json_reader.h"

#include <string.h>

static char *reprint (const char *text, GError **error)
{
  g_autoptr (JsonNode) node = eng_json_parse (text, strlen (text), error);
  return node != NULL ? json_to_string (node, FALSE) : NULL;
}

static void test_accepts (void)
{
  static const struct { const char *text, *want; } cases[] = {
    { "1", "1" }, { " [ ] ", "[]" }, { "{}", "{}" }, { "\xEF\xBB\xBF[1]", "[1]" }, { "[1,-0,9223372036854775807]", "[1,0,9223372036854775807]" },
    { "[1.5,1e2,-2E-1]", "[1.5,100.0,-0.20000000000000001]" }, { "9223372036854775808", "9.2233720368547758e+18" },
    { "[true,false,null]", "[true,false,null]" }, { "{\"a\":{\"b\":[{}]},\"c\":\"\"}", "{\"a\":{\"b\":[{}]},\"c\":\"\"}" },
    { "\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u00e9\\ud83d\\udc4b\"", "\"\\\"\\\\/\\b\\f\\n\\r\\té👋\"" }, { "\"\\ud83d x \\udc4b\"", "\"\xEF\xBF\xBD x \xEF\xBF\xBD\"" },
    { "{\"a\":1,\"a\":2}", "{\"a\":2}" }, { "\"é世\x7F\"", "\"é世\\u007f\"" },
  };
  for (gsize i = 0; i < G_N_ELEMENTS (cases); i++) {
    g_autoptr (GError) error = NULL;
    g_autofree char *got = reprint (cases[i].text, &error);
    g_assert_no_error (error);
    g_assert_cmpstr (got, ==, cases[i].want);
  }
}

static void test_refuses (void)
{
  static const char *const cases[] = {
    "", " ", "[", "]", "{", "[1", "[1,", "[1,]", "[,1]", "{\"a\"", "{\"a\":", "{\"a\":1", "{\"a\":1,}", "{a:1}", "{1:1}", "[1 2]", "1 2", "[1]]", "tru", "nul", "True", "'a'", "01", "-", "1.", ".5", "1e", "+1",
    "0x10", "NaN", "Infinity", "\"", "\"\\", "\"\\x\"", "\"\\u12\"", "\"\\u12g4\"", "\"a\nb\"", "\"\x01\"", "\"\xFF\"", "\"\xC3\"", "\"\xED\xA0\x80\"", "\"\\u0000\"", "{\"\\u0000\":1}", "// c\n1", "[1}", "{]", "\xC3\xA9",
  };
  for (gsize i = 0; i < G_N_ELEMENTS (cases); i++) {
    g_autoptr (GError) error = NULL;
    g_autofree char *got = reprint (cases[i], &error);
    if (got != NULL || error == NULL || !g_str_has_prefix (error->message, "is no JSON: "))
      g_error ("%s: %s", cases[i], got != NULL ? got : "no error");
  }
}

static void test_depth (void)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (GString) text = g_string_new (NULL);
  for (guint i = 0; i < ENG_JSON_MAX_DEPTH; i++)
    g_string_append (text, i % 2 == 0 ? "[" : "{\"a\":");
  g_string_append (text, "1");
  for (guint i = ENG_JSON_MAX_DEPTH; i > 0; i--)
    g_string_append_c (text, i % 2 == 1 ? ']' : '}');
  g_autofree char *got = reprint (text->str, &error);
  g_assert_no_error (error);
  g_assert_cmpstr (got, ==, text->str);
  g_string_prepend_c (text, '[');
  g_string_append_c (text, ']');
  g_assert_null (reprint (text->str, &error));
  g_assert_nonnull (error);
}

static void test_skips (void)
{
  static const char text[] = "{\"a\":{\"b\":[1,{\"c\":2}]},\"d\":[\"]\",\"}\"],\"e\":7}";
  EngJsonReader reader;
  eng_json_reader_init (&reader, text, strlen (text));
  g_assert_cmpint (eng_json_next (&reader), ==, ENG_JSON_OBJECT);
  for (guint i = 0; i < 2; i++) {
    g_assert_cmpint (eng_json_next (&reader), ==, ENG_JSON_KEY);
    g_assert_true (eng_json_skip (&reader, eng_json_next (&reader)));
  }
  g_assert_cmpint (eng_json_next (&reader), ==, ENG_JSON_KEY);
  g_assert_cmpstr (reader.string->str, ==, "e");
  g_assert_cmpint (eng_json_next (&reader), ==, ENG_JSON_INT);
  g_assert_cmpint (reader.integer, ==, 7);
  g_assert_cmpint (eng_json_next (&reader), ==, ENG_JSON_OBJECT_END);
  g_assert_cmpint (eng_json_next (&reader), ==, ENG_JSON_DONE);
  eng_json_reader_clear (&reader);
}

int main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/json/accepts", test_accepts);
  g_test_add_func ("/json/refuses", test_refuses);
  g_test_add_func ("/json/depth-is-bounded", test_depth);
  g_test_add_func ("/json/skips-values", test_skips);
  return g_test_run ();
}
