/* test_call_form.c: how a template writes a call is found out, and a model of noise that must call a function does, in that form. With VALISE_TEMPLATES, a folder of *.jinja, all of them. */
#include "engine/call_form.h"
#include "engine/generate.h"
#include "engine/json_reader.h"
#include "tests/fixtures/tiny_model.h"

#include <string.h>

#define TURNS "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.tool_calls %}{% for c in m.tool_calls %}"
#define REST "{% endfor %}{% else %}{{ m.content }}{% endif %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"

static EngModel *open_with (const char *source)
{
  g_autoptr (GError) error = NULL;
  g_autofree char *path = tiny_model_path ("calls.gguf");
  TinyModel tiny = TINY_MODEL_DEFAULTS;
  tiny.chat_template = source;
  tiny_model_write (&tiny, path);
  EngModel *model = eng_model_open (path, &error);
  g_assert_no_error (error);
  return model;
}

static JsonNode *tools (void)
{
  static const char text[] = "[{\"type\":\"function\",\"function\":{\"name\":\"weather\",\"description\":\"d\",\"parameters\":{\"type\":\"object\",\"properties\":{\"city\":{\"type\":\"string\",\"description\":\"c\",\"enum\":[\"Bern\",\"Rome\"]},\"days\":{\"description\":\"n\",\"type\":\"integer\",\"minimum\":1,"
                             "\"maximum\":5}},\"required\":[\"city\",\"days\"],\"additionalProperties\":false}}},{\"type\":\"function\",\"function\":{\"name\":\"now\",\"description\":\"d\",\"parameters\":{\"properties\":{}}}},"
                             "{\"type\":\"function\",\"function\":{\"name\":\"odd\",\"description\":\"d\",\"parameters\":{\"type\":\"object\",\"properties\":{},\"not\":{}}}}]";
  return eng_json_parse (text, strlen (text), NULL);
}

static const struct { const char *name, *source, *before, *between, *after; gboolean own, text; } cases[] = {
  { "hermes", TURNS "<tool_call>\n{\"name\": \"{{ c.function.name }}\", \"arguments\": {{ c.function.arguments | tojson }}}\n</tool_call>" REST,
    "<tool_call>\n{\"name\": \"", "\", \"arguments\": ", "}", TRUE, FALSE },
  { "bare", TURNS "{\"name\": \"{{ c.function.name }}\", \"parameters\": {{ c.function.arguments | tojson }}}" REST, "{\"name\": \"", "\", \"parameters\": ", "}", TRUE, FALSE },
  { "mistral with ids", TURNS "[TOOL_CALLS][{\"name\": \"{{ c.function.name }}\", \"arguments\": {{ c.function.arguments | tojson }}, \"id\": \"{{ c.id }}\"}]</s>" REST,
    "[TOOL_CALLS][{\"name\": \"", "\", \"arguments\": ", "}]", TRUE, FALSE },
  { "mistral with marks", TURNS "[TOOL_CALLS]{{ c.function.name }}[ARGS]{{ c.function.arguments | tojson }}" REST, "[TOOL_CALLS]", "[ARGS]", "", TRUE, FALSE },
  { "deepseek, text", TURNS "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>{{ c.function.name + '\n```json\n' + c.function.arguments + '\n```' }}<｜tool▁call▁end｜><｜tool▁calls▁end｜>" REST,
    "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>", "\n```json\n", "", TRUE, TRUE },
  { "printed", TURNS "<tool_call>{\"name\": \"{{ c.function.name }}\", \"arguments\": {{ c.function.arguments }}}</tool_call>" REST,
    "<tool_call>{\"name\": \"", "\", \"arguments\": ", "}", TRUE, TRUE },
  { "reasoning opened", "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.tool_calls %}<think>\n\n</think>\n\n<tool_call>\n{\"name\": \"{{ m.tool_calls[0].function.name }}\", \"arguments\": "
    "{{ m.tool_calls[0].function.arguments | tojson }}}\n</tool_call>{% else %}{{ m.content }}{% endif %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}",
    "<tool_call>\n{\"name\": \"", "\", \"arguments\": ", "}", TRUE, FALSE },
  { "tags", TURNS "<tool_call>\n<function={{ c.function.name }}>\n{% for k, v in c.function.arguments.items() %}<parameter={{ k }}>\n{{ v }}\n</parameter>\n{% endfor %}</function>\n</tool_call>" REST,
    "<tool_call>\n{\"name\": \"", "\", \"arguments\": ", "}\n</tool_call>", FALSE, FALSE },
  { "no calls", NULL, "<tool_call>\n{\"name\": \"", "\", \"arguments\": ", "}\n</tool_call>", FALSE, FALSE },
  { "raises", "{% for m in messages %}{% if m.tool_calls %}{{ raise_exception('no') }}{% endif %}{{ m.content }}{% endfor %}", "<tool_call>\n{\"name\": \"", "\", \"arguments\": ", "}\n</tool_call>", FALSE, FALSE },
};

static void test_forms (void)
{
  for (gsize i = 0; i < G_N_ELEMENTS (cases); i++) {
    g_autoptr (EngModel) model = open_with (cases[i].source);
    g_autoptr (EngCallForm) form = eng_call_form_new (model, NULL);
    g_test_message ("%s: '%s' '%s' '%s'", cases[i].name, form->before, form->between, form->after);
    g_assert_cmpstr (form->before, ==, cases[i].before);
    g_assert_cmpstr (form->between, ==, cases[i].between);
    g_assert_cmpstr (form->after, ==, cases[i].after);
    g_assert_cmpint (form->own, ==, cases[i].own);
    g_assert_cmpint (form->text, ==, cases[i].text);
  }
}

typedef struct {
  GString *answer;
  GPtrArray *calls;
} Said;

static void collect (EngTextKind kind, const char *text, gpointer data)
{
  Said *said = data;
  if (kind == ENG_TEXT_CALL)
    g_ptr_array_add (said->calls, g_strdup (text));
  else if (kind == ENG_TEXT_ANSWER)
    g_string_append (said->answer, text);
}

/* One answer of noise that must be a call. */
static JsonNode *make_call (EngSession *session, JsonArray *list, const char *only, guint64 seed)
{
  static const char question[] = "[{\"role\": \"user\", \"content\": \"hello\"}]";
  g_autoptr (GError) error = NULL;
  g_autoptr (JsonNode) messages = eng_json_parse (question, strlen (question), NULL);
  g_autoptr (EngCallForm) form = eng_call_form_new (eng_session_model (session), NULL);
  EngAnswerOptions options = { .sampling = ENG_SAMPLER_DEFAULTS, .tools = list, .calls = TRUE };
  Said said = { g_string_new (NULL), g_ptr_array_new_with_free_func (g_free) };
  EngGenerateStats stats;
  options.sampling.temperature = 2;
  options.sampling.seed = seed;
  options.grammar = eng_call_grammar_new (form, list, only, &error);
  g_assert_no_error (error);
  g_assert_true (eng_generate_chat (session, json_node_get_array (messages), &options, collect, &said, &stats, NULL, &error));
  g_assert_no_error (error);
  JsonNode *call = NULL;
  if (g_str_equal (stats.finish_reason, "stop")) {
    g_assert_cmpstr (said.answer->str, ==, "");
    g_assert_cmpuint (said.calls->len, ==, 1);
    call = eng_json_parse (said.calls->pdata[0], strlen (said.calls->pdata[0]), NULL);
  }
  eng_grammar_unref (options.grammar);
  g_string_free (said.answer, TRUE);
  g_ptr_array_unref (said.calls);
  return call;
}

static void test_noise (void)
{
  g_autoptr (EngWorkers) workers = eng_workers_new (1);
  g_autoptr (JsonNode) list = tools ();
  for (gsize i = 0; i < G_N_ELEMENTS (cases) - 1; i++) {
    g_autoptr (EngModel) model = open_with (cases[i].source);
    EngSessionOptions options = { .kv_bits = 16 };
    options.n_ctx = 512;
    g_autoptr (GError) error = NULL;
    g_autoptr (EngSession) session = eng_session_new (model, workers, &options, &error);
    g_assert_no_error (error);
    guint whole = 0;
    for (guint seed = 1; seed <= 6; seed++) {
      g_autoptr (JsonNode) call = make_call (session, json_node_get_array (list), seed % 2 ? "weather" : NULL, seed);
      if (call == NULL)
        continue;
      JsonObject *object = json_node_get_object (call), *arguments = json_object_get_object_member (object, "arguments");
      const char *name = json_object_get_string_member (object, "name");
      whole++;
      g_assert_true (seed % 2 ? g_str_equal (name, "weather") : g_strv_contains ((const char *const[]){ "weather", "now", "odd", NULL }, name));
      if (!g_str_equal (name, "weather"))
        continue;
      gint64 days = json_object_get_int_member (arguments, "days");
      g_assert_true (days >= 1 && days <= 5);
      g_assert_true (g_strv_contains ((const char *const[]){ "Bern", "Rome", NULL }, json_object_get_string_member (arguments, "city")));
    }
    if (g_str_equal (cases[i].name, "reasoning opened")) /* noise never ends its reasoning, and may not end its turn in it */
      g_assert_cmpuint (whole, ==, 0);
    else
      g_assert_cmpuint (whole, >=, 3);
  }
}

static void test_refuses (void)
{
  g_autoptr (JsonNode) list = tools ();
  EngCallForm form = { (char *) "", (char *) " ", (char *) "", FALSE, FALSE };
  g_autoptr (GError) unknown = NULL, strict = NULL;
  g_assert_null (eng_call_grammar_new (&form, json_node_get_array (list), "nothing", &unknown));
  g_assert_nonnull (strstr (unknown->message, "nothing is to be called"));
  json_object_set_boolean_member (json_object_get_object_member (json_array_get_object_element (json_node_get_array (list), 2), "function"), "strict", TRUE);
  g_assert_null (eng_call_grammar_new (&form, json_node_get_array (list), NULL, &strict));
  g_assert_nonnull (strstr (strict->message, "the parameters of odd at #: not cannot be obeyed"));
}

/* Of published templates most are understood; whatever they are, the form found is one that is taken apart again. */
static void test_published (void)
{
  const char *folder = g_getenv ("VALISE_TEMPLATES");
  g_autoptr (GDir) dir = folder != NULL ? g_dir_open (folder, 0, NULL) : NULL;
  if (dir == NULL) {
    g_test_skip ("VALISE_TEMPLATES names no folder of templates");
    return;
  }
  for (const char *name; (name = g_dir_read_name (dir)) != NULL;) {
    g_autofree char *path = g_build_filename (folder, name, NULL), *source = NULL;
    if (!g_file_get_contents (path, &source, NULL, NULL))
      continue;
    g_autoptr (EngModel) model = open_with (source);
    g_autoptr (JsonNode) list = tools ();
    g_autoptr (JsonObject) variables = json_object_new ();
    json_object_set_member (variables, "tools", json_node_ref (list));
    g_autoptr (EngCallForm) form = eng_call_form_new (model, variables);
    g_autofree char *before = g_strescape (form->before, NULL), *between = g_strescape (form->between, NULL);
    g_test_message ("%-55s %s %s  %s NAME %s {} %s", name, form->own ? "own   " : "common", form->text ? "text" : "    ", before, between, form->after);
  }
}

int main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/call-form/learned-from-the-template", test_forms);
  g_test_add_func ("/call-form/noise-calls", test_noise);
  g_test_add_func ("/call-form/refuses-with-a-sentence", test_refuses);
  g_test_add_func ("/call-form/published", test_published);
  int status = g_test_run ();
  tiny_model_clean ();
  return status;
}
