/* test_segments.c: answers taken apart, against what published chat templates made of the parts (fixtures/answers.json, made by make_answers.py), however
 * they are cut into pieces; and texts that only look like reasoning or calls. */
#include "engine/segments.h"

#include <string.h>

#include "engine/json_reader.h"

typedef struct {
  GString *texts[2]; /* by kind */
  GPtrArray *calls;
} Parts;

static void collect (EngTextKind kind, const char *text, gpointer data)
{
  Parts *parts = data;
  g_assert_true (*text != '\0' && g_utf8_validate (text, -1, NULL));
  if (kind == ENG_TEXT_CALL)
    g_ptr_array_add (parts->calls, g_strdup (text));
  else
    g_string_append (parts->texts[kind], text);
}

/* Pieces of `step` characters, or of chance where it is 0. */
static Parts take_apart (const char *prompt, JsonArray *tools, const char *text, guint step)
{
  Parts parts = { { g_string_new (NULL), g_string_new (NULL) }, g_ptr_array_new_with_free_func (g_free) };
  g_autoptr (EngSegments) segments = eng_segments_new (prompt, tools, collect, &parts);
  g_autoptr (GRand) random = g_rand_new_with_seed (step);
  while (*text != '\0') {
    const char *end = text;
    for (guint n = step > 0 ? step : (guint) g_rand_int_range (random, 1, 12); n > 0 && *end != '\0'; n--)
      end = g_utf8_next_char (end);
    g_autofree char *piece = g_strndup (text, (gsize) (end - text));
    eng_segments_push (segments, piece);
    text = end;
  }
  eng_segments_end (segments);
  return parts;
}

static void parts_clear (Parts *parts)
{
  g_string_free (parts->texts[0], TRUE);
  g_string_free (parts->texts[1], TRUE);
  g_ptr_array_unref (parts->calls);
}

static JsonNode *load_fixture (void)
{
  g_autoptr (GError) error = NULL;
  g_autofree char *path = g_test_build_filename (G_TEST_DIST, "fixtures", "answers.json", NULL), *text = NULL;
  gsize length;
  g_file_get_contents (path, &text, &length, &error);
  g_assert_no_error (error);
  JsonNode *node = eng_json_parse (text, length, &error);
  g_assert_no_error (error);
  return node;
}

static gboolean same_calls (JsonArray *expected, const GPtrArray *calls)
{
  gboolean same = json_array_get_length (expected) == calls->len;
  for (guint i = 0; i < calls->len && same; i++) {
    g_autoptr (JsonNode) call = eng_json_parse (g_ptr_array_index (calls, i), strlen (g_ptr_array_index (calls, i)), NULL);
    same = call != NULL && json_node_equal (call, json_array_get_element (expected, i));
  }
  return same;
}

static void test_templates (void)
{
  g_autoptr (JsonNode) fixture = load_fixture ();
  JsonArray *answers = json_object_get_array_member (json_node_get_object (fixture), "answers"), *tools = json_object_get_array_member (json_node_get_object (fixture), "tools");
  g_assert_cmpuint (json_array_get_length (answers), >, 250);
  for (guint i = 0; i < json_array_get_length (answers); i++) {
    JsonObject *one = json_array_get_object_element (answers, i);
    const char *text = json_object_get_string_member (one, "text");
    for (guint step = 0; step < 5; step++) {
      Parts parts = take_apart (json_object_get_string_member (one, "prompt"), tools, text, step == 4 ? 100000 : step);
      g_strstrip (parts.texts[ENG_TEXT_ANSWER]->str);
      if (strcmp (parts.texts[ENG_TEXT_ANSWER]->str, json_object_get_string_member (one, "answer")) != 0 ||
          strcmp (parts.texts[ENG_TEXT_REASONING]->str, json_object_get_string_member (one, "reasoning")) != 0 ||
          !same_calls (json_object_get_array_member (one, "calls"), parts.calls)) {
        g_printerr ("# %s, %s, in pieces of %u: %s\n#   answer '%s', reasoning '%s', %u calls%s%s\n", json_object_get_string_member (one, "template"),
                    json_object_get_string_member (one, "case"), step, text, parts.texts[0]->str, parts.texts[1]->str, parts.calls->len,
                    parts.calls->len > 0 ? ": " : "", parts.calls->len > 0 ? (char *) g_ptr_array_index (parts.calls, 0) : "");
        g_test_fail ();
        step = 5;
      }
      parts_clear (&parts);
    }
  }
}

static void test_plain (void)
{
  g_autoptr (JsonNode) fixture = load_fixture ();
  JsonArray *tools = json_object_get_array_member (json_node_get_object (fixture), "tools");
  static const struct { const char *prompt, *text; gboolean tools; const char *answer, *reasoning; } cases[] = {
    { NULL, "  Plain text, \n with its own spaces. \n\n", FALSE, "  Plain text, \n with its own spaces. \n\n", "" },
    { NULL, "Say <think> like this </think>.", FALSE, "Say <think> like this </think>.", "" },
    { NULL, "<thin", FALSE, "<thin", "" },
    { NULL, "<think>never ended", FALSE, "", "never ended" },
    { NULL, "<tool_call>\n{\"name\": \"weather\", \"arguments\": {}}\n</tool_call>", FALSE, "<tool_call>\n{\"name\": \"weather\", \"arguments\": {}}\n</tool_call>", "" },
    { NULL, "{\"name\": \"weather\", \"parameters\": {}}", FALSE, "{\"name\": \"weather\", \"parameters\": {}}", "" },
    { NULL, "{\"name\": \"Ada\", \"parameters\": {}}", TRUE, "{\"name\": \"Ada\", \"parameters\": {}}", "" },
    { NULL, "{\"temperature\": 3}", TRUE, "{\"temperature\": 3}", "" },
    { NULL, "[1, 2, 3] are numbers. \n", TRUE, "[1, 2, 3] are numbers. \n", "" },
    { NULL, "<tool_call>\n{\"name\": \"weather\", \"arguments\":\n</tool_call> and more", TRUE, "<tool_call>\n{\"name\": \"weather\", \"arguments\":\n</tool_call> and more", "" },
    { NULL, "The mark <tool_call> begins\none.", TRUE, "The mark <tool_call> begins\none.", "" },
    { NULL, "Two \n <tool_call> 1 + {1} </tool_call> \n\n <tool_call>", TRUE, "Two \n <tool_call> 1 + {1} </tool_call> \n\n <tool_call>", "" },
    { NULL, "a < b, and <tool", TRUE, "a < b, and <tool", "" },
    { "<|im_start|>assistant\n<think>\n\n</think>\n\n", "<think> is a word here.", FALSE, "<think> is a word here.", "" },
    { "<|start|>assistant", "<|channel|>final<|message|>Hello", FALSE, "Hello", "" },
    { NULL, "<think>Hm.</think><response>Yes.</response>", FALSE, "Yes.", "Hm." },
    { NULL, "<think>Hm.</think>In XML: <response>Yes.</response>", FALSE, "In XML: <response>Yes.</response>", "Hm." },
    { NULL, "Harmony writes <|channel|>final<|message|> so.", FALSE, "Harmony writes <|channel|>final<|message|> so.", "" },
    { "<|start|>assistant", "Hello", FALSE, "Hello", "" },
    { "<|start|>assistant", "<|channel|>fin", FALSE, "", "" },
    { NULL, "Open <function=f> with </function> and [TOOL_CALLS] with a list", TRUE, "Open <function=f> with </function> and [TOOL_CALLS] with a list", "" },
    { NULL, "functools[0] is the first, functools[name] another", TRUE, "functools[0] is the first, functools[name] another", "" },
  };
  for (gsize i = 0; i < G_N_ELEMENTS (cases); i++)
    for (guint step = 0; step < 4; step++) {
      Parts parts = take_apart (cases[i].prompt, cases[i].tools ? tools : NULL, cases[i].text, step);
      g_assert_cmpstr (parts.texts[ENG_TEXT_ANSWER]->str, ==, cases[i].answer);
      g_assert_cmpstr (parts.texts[ENG_TEXT_REASONING]->str, ==, cases[i].reasoning);
      g_assert_cmpuint (parts.calls->len, ==, 0);
      parts_clear (&parts);
    }
}

/* A mark of calls in prose holds nothing back but what may still become a call. */
static void test_stray_marks (void)
{
  g_autoptr (JsonNode) fixture = load_fixture ();
  JsonArray *tools = json_object_get_array_member (json_node_get_object (fixture), "tools");
  static const struct { const char *text, *shown; } cases[] = {
    { "The tag <tool_call> is short", "The tag <tool_call> is short" }, { "<tool_call>, a mark it is", "<tool_call>, a mark it is" }, { "<tool_call> begins one", "<tool_call> begins one" },
    { "<tool_call>{ this", "<tool_call>{ this" }, { "<tool_call>{\"name\": weather", "<tool_call>{\"name\": weather" }, { "<tool_call>\n[1, 2] and", "<tool_call>\n[1, 2] and" },
    { "<tool_call>{\"a\": 1, b", "<tool_call>{\"a\": 1, b" }, { "<function=x in C", "" /* a name may have spaces */ }, { "[TOOL_CALLS] is Mistral's", "[TOOL_CALLS] is Mistral's" },
    { "[Paris](https://example.org) is", "[Paris](https://example.org) is" }, { "[1, 2, 3] are", "[1, 2, 3] are" }, { "{x | x > 3} is", "{x | x > 3} is" },
    { "<|python_tag|>print (3 * 4)", "<|python_tag|>print (3 * 4)" }, { "functools[0] is", "functools[0] is" }, { "<｜tool▁calls▁begin｜> opens it", "<｜tool▁calls▁begin｜> opens it" },
    { "Both <tool_call> and <tool_calls> are marks", "Both <tool_call> and <tool_calls> are marks" }, { "<tool_call>call:weather was", "<tool_call>call:weather was" },
    /* What may become one waits. */
    { "So: <tool_call>", "So:" }, { "So: <tool_call>\n{", "So:" }, { "So: <tool_call>{\"name\": \"wea", "So:" }, { "<tool_call>{\"name\": \"weather\", \"arguments\": {\"n\": -1", "" },
    { "<tool_call>{\"name\": \"w\\u00", "" }, { "<tool_call>{\"ok\": tru", "" }, { "<tool_call>weath", "" }, { "<tool_call>weather\n<arg_k", "" },
    { "<tool_call>\n<function=weather>\n<parameter=city>\nA long text, { and more of it", "" }, { "<|tool_call_start|>[weather(city='Pa", "" }, { "{\"name\": \"wea", "" },
    { "[TOOL_CALLS]weather[ARGS]{\"city\": \"x", "" }, { "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>wea", "" }, { "<|tool_call>call:weather{city:<|\"|>Paris, France", "" },
  };
  for (gsize i = 0; i < G_N_ELEMENTS (cases); i++)
    for (guint step = 0; step < 3; step++) {
      Parts parts = { { g_string_new (NULL), g_string_new (NULL) }, g_ptr_array_new_with_free_func (g_free) };
      g_autoptr (EngSegments) segments = eng_segments_new (NULL, tools, collect, &parts);
      for (const char *at = cases[i].text, *end = at; *at != '\0'; at = end) {
        for (guint n = step == 2 ? 10000 : step + 1; n > 0 && *end != '\0'; n--)
          end = g_utf8_next_char (end);
        g_autofree char *piece = g_strndup (at, (gsize) (end - at));
        eng_segments_push (segments, piece);
      }
      g_assert_cmpstr (parts.texts[ENG_TEXT_ANSWER]->str, ==, cases[i].shown);
      g_assert_cmpuint (parts.calls->len, ==, 0);
      eng_segments_end (segments);
      g_assert_cmpstr (parts.texts[ENG_TEXT_ANSWER]->str, ==, cases[i].text);
      parts_clear (&parts);
    }
  /* One that comes behind a stray mark is a call, and a long one costs what it is long. */
  g_autofree char *words = g_strnfill (100000, 'x'), *text = g_strdup_printf ("A <tool_call> is: <tool_call>{\"name\": \"weather\", \"arguments\": {\"city\": \"%s\"}}</tool_call>", words);
  Parts parts = take_apart (NULL, tools, text, 3);
  g_assert_cmpstr (parts.texts[ENG_TEXT_ANSWER]->str, ==, "A <tool_call> is:");
  g_assert_cmpuint (parts.calls->len, ==, 1);
  parts_clear (&parts);
}

/* What is no answer to anybody is not divided. */
static void test_undivided (void)
{
  static const char text[] = " <think>a</think> <response>b</response> <|channel|>c<|message|> <tool_call>{\"name\": \"weather\", \"arguments\": {}}</tool_call> \n";
  Parts parts = { { g_string_new (NULL), g_string_new (NULL) }, g_ptr_array_new () };
  g_autoptr (EngSegments) segments = eng_segments_new (NULL, NULL, collect, &parts);
  eng_segments_divide_nothing (segments);
  for (const char *at = text; *at != '\0'; at++) {
    char piece[2] = { *at, '\0' };
    eng_segments_push (segments, piece);
    g_assert_cmpmem (parts.texts[0]->str, parts.texts[0]->len, text, (gsize) (at + 1 - text));
  }
  eng_segments_end (segments);
  g_assert_cmpstr (parts.texts[0]->str, ==, text);
  parts_clear (&parts);
}

/* What cannot be a mark is given at once: a stream does not wait. */
static void test_at_once (void)
{
  Parts parts = { { g_string_new (NULL), g_string_new (NULL) }, g_ptr_array_new () };
  g_autoptr (EngSegments) segments = eng_segments_new (NULL, NULL, collect, &parts);
  eng_segments_push (segments, "Hello");
  g_assert_cmpstr (parts.texts[0]->str, ==, "Hello");
  eng_segments_push (segments, " there ");
  g_assert_cmpstr (parts.texts[0]->str, ==, "Hello there ");
  g_assert_false (eng_segments_before_answer (segments));
  g_autoptr (EngSegments) thinking = eng_segments_new ("<think>\n", NULL, collect, &parts);
  g_assert_true (eng_segments_before_answer (thinking));
  eng_segments_push (thinking, "Hm");
  g_assert_cmpstr (parts.texts[1]->str, ==, "Hm");
  eng_segments_push (thinking, "</think>");
  g_assert_false (eng_segments_before_answer (thinking));
  parts_clear (&parts);
}

int main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/segments/what-templates-write-is-taken-apart", test_templates);
  g_test_add_func ("/segments/what-only-looks-like-it-stays-text", test_plain);
  g_test_add_func ("/segments/text-does-not-wait", test_at_once);
  g_test_add_func ("/segments/stray-marks-hold-nothing-back", test_stray_marks);
  g_test_add_func ("/segments/completions-are-not-divided", test_undivided);
  return g_test_run ();
}
