/* call_form.c: a template's call of a function taken apart, and the grammar of such calls. */
#include "engine/call_form.h"

#include "engine/error.h"
#include "engine/generate.h"
#include "engine/json_reader.h"
#include "engine/segments.h"

#include <string.h>

#define NAME "valise_function"
#define KEY "\"valise_key\""
#define ARGUMENTS "{\"valise_key\": \"valise_value\"}"

/* ---- the form ------------------------------------------------------------------------------------------------------------- */

static JsonArray *conversation (gboolean call, gboolean text)
{
  g_autofree char *json = g_strdup_printf ("[{\"role\": \"user\", \"content\": \"Hello.\"}%s%s%s]",
                                           call ? ", {\"role\": \"assistant\", \"content\": \"\", \"tool_calls\": [{\"id\": \"call00001\", \"type\": \"function\", \"function\": {\"name\": \"" NAME "\", \"arguments\": " : "",
                                           !call ? "" : text ? "\"{\\\"valise_key\\\": \\\"valise_value\\\"}\"" : ARGUMENTS, call ? "}}]}" : "");
  g_autoptr (JsonNode) node = eng_json_parse (json, strlen (json), NULL);
  return json_array_ref (json_node_get_array (node));
}

/* What the template writes for a call behind the place where an answer begins, or NULL. */
static char *written_call (EngModel *model, JsonObject *variables, gboolean text, const char *prompt)
{
  g_autoptr (JsonArray) messages = conversation (TRUE, text);
  g_autofree char *whole = eng_generate_text (model, messages, variables, FALSE, NULL, NULL), *head = g_strdup (prompt);
  if (whole == NULL)
    return NULL;
  if (g_str_has_prefix (whole, head))
    return g_strdup (whole + strlen (head));
  eng_segments_strip_reasoning (head); /* the prompt opens reasoning, which past answers are written without */
  if (!g_str_has_prefix (whole, head))
    return NULL;
  const char *rest = whole + strlen (head);
  return g_strdup (rest + strspn (rest, " \r\n"));
}

static const char *skip (const char *p, const char *token)
{
  p += strspn (p, " \r\n\t");
  return g_str_has_prefix (p, token) ? p + strlen (token) : NULL;
}

/* Where the object that holds KEY begins and ends. */
static gboolean find_arguments (const char *rest, const char **begin, const char **end)
{
  const char *key = strstr (rest, KEY), *p = key;
  if (key == NULL)
    return FALSE;
  while (p > rest && g_ascii_isspace (p[-1]))
    p--;
  *begin = p - 1;
  p = skip (key + strlen (KEY), ":");
  p = p != NULL ? skip (p, "\"valise_value\"") : NULL;
  *end = p != NULL ? skip (p, "}") : NULL;
  return *end != NULL && *begin >= rest && **begin == '{';
}

typedef struct {
  guint n, others;
} Count;

static void count_call (EngTextKind kind, const char *text, gpointer data)
{
  Count *count = data;
  g_autoptr (JsonNode) expected = eng_json_parse ("{\"name\": \"" NAME "\", \"arguments\": " ARGUMENTS "}", strlen ("{\"name\": \"" NAME "\", \"arguments\": " ARGUMENTS "}"), NULL);
  g_autoptr (JsonNode) found = kind == ENG_TEXT_CALL ? eng_json_parse (text, strlen (text), NULL) : NULL;
  if (found != NULL && json_node_equal (found, expected))
    count->n++;
  else
    count->others++;
}

/* Whether an answer in this form is taken apart into the call and nothing else. */
static gboolean is_understood (const EngCallForm *form, const char *prompt)
{
  static const char tools_text[] = "[{\"type\": \"function\", \"function\": {\"name\": \"" NAME "\"}}]";
  g_autoptr (JsonNode) tools = eng_json_parse (tools_text, strlen (tools_text), NULL);
  Count count = { 0, 0 };
  g_autofree char *head = g_strdup (prompt), *text = g_strconcat (form->before, NAME, form->between, ARGUMENTS, form->after, NULL);
  eng_segments_strip_reasoning (head);
  g_autoptr (EngSegments) segments = eng_segments_new (head, json_node_get_array (tools), count_call, &count);
  eng_segments_push (segments, text);
  eng_segments_end (segments);
  return count.n == 1 && count.others == 0;
}

/* The brackets that are closed behind the arguments, whatever else the template puts between them (an id, marks). */
static char *closing_brackets (const char *rest)
{
  GString *brackets = g_string_new (NULL);
  gboolean in_string = FALSE;
  for (; *rest != '\0' && (in_string || *rest != '<'); rest++) {
    if (*rest == '"')
      in_string = !in_string;
    else if (!in_string && (*rest == '}' || *rest == ']'))
      g_string_append_c (brackets, *rest);
  }
  return g_string_free (brackets, FALSE);
}

/* Takes the text around name and arguments. FALSE: the template's form is another. */
static gboolean learn (EngCallForm *form, const char *rest, const char *prompt)
{
  const char *name = strstr (rest, NAME), *begin, *end;
  if (name == NULL || !find_arguments (rest, &begin, &end) || begin < name)
    return FALSE;
  const char *own_text = eng_segments_after_reasoning (rest, name);
  g_autofree char *brackets = closing_brackets (end);
  const char *const ends[] = { brackets, "" };
  for (guint i = 0; i < G_N_ELEMENTS (ends); i++) {
    EngCallForm tried = { g_strndup (own_text, (gsize) (name - own_text)), g_strndup (name + strlen (NAME), (gsize) (begin - name) - strlen (NAME)), g_strdup (ends[i]), TRUE, form->text };
    if (is_understood (&tried, prompt)) {
      *form = tried;
      return TRUE;
    }
    g_free (tried.before);
    g_free (tried.between);
    g_free (tried.after);
  }
  return FALSE;
}

EngCallForm *eng_call_form_new (EngModel *model, JsonObject *variables)
{
  EngCallForm *form = g_new0 (EngCallForm, 1);
  g_autoptr (JsonArray) question = conversation (FALSE, FALSE);
  g_autofree char *prompt = eng_generate_text (model, question, variables, TRUE, NULL, NULL);
  g_autofree char *from_object = prompt != NULL ? written_call (model, variables, FALSE, prompt) : NULL, *from_text = prompt != NULL ? written_call (model, variables, TRUE, prompt) : NULL;
  const char *begin, *end;
  form->text = (from_object == NULL || !find_arguments (from_object, &begin, &end)) && from_text != NULL && find_arguments (from_text, &begin, &end);
  const char *rest = form->text ? from_text : from_object;
  if (rest == NULL || !learn (form, rest, prompt)) {
    form->before = g_strdup ("<tool_call>\n{\"name\": \"");
    form->between = g_strdup ("\", \"arguments\": ");
    form->after = g_strdup ("}\n</tool_call>");
  }
  return form;
}

void eng_call_form_free (EngCallForm *form)
{
  if (form == NULL)
    return;
  g_free (form->before);
  g_free (form->between);
  g_free (form->after);
  g_free (form);
}

/* ---- the grammar ---------------------------------------------------------------------------------------------------------- */

static JsonObject *object_member (JsonObject *object, const char *name)
{
  JsonNode *node = json_object_get_member (object, name);
  return node != NULL && JSON_NODE_HOLDS_OBJECT (node) ? json_node_get_object (node) : NULL;
}

/* The rule of a function's arguments. */
static char *arguments_rule (GString *rules, guint *n_rules, JsonObject *function, const char *name, GError **error)
{
  g_autoptr (GError) failure = NULL;
  JsonObject *parameters = object_member (function, "parameters");
  JsonNode *strict = json_object_get_member (function, "strict");
  if (parameters == NULL || json_object_get_size (parameters) == 0)
    return g_strdup ("object");
  g_autoptr (JsonNode) schema = json_node_copy (json_object_get_member (function, "parameters"));
  if (!json_object_has_member (parameters, "type") && json_object_has_member (parameters, "properties")) {
    g_autofree char *text = json_to_string (schema, FALSE);
    json_node_unref (schema);
    schema = eng_json_parse (text, strlen (text), NULL);
    json_object_set_string_member (json_node_get_object (schema), "type", "object");
  }
  g_autofree char *whose = g_strdup_printf ("the parameters of %s", name);
  char *rule = eng_schema_append (rules, n_rules, schema, whose, &failure);
  if (rule != NULL)
    return rule;
  if (strict == NULL || !JSON_NODE_HOLDS_VALUE (strict) || !json_node_get_boolean (strict))
    return g_strdup ("object");
  g_propagate_error (error, g_steal_pointer (&failure));
  return NULL;
}

EngGrammar *eng_call_grammar_new (const EngCallForm *form, JsonArray *tools, const char *only, GError **error)
{
  g_autoptr (GString) choice = g_string_new (NULL), rules = eng_schema_begin ();
  g_autofree char *before = eng_gbnf_literal (form->before), *after = eng_gbnf_literal (form->after);
  guint n_rules = 0;
  for (guint i = 0; i < json_array_get_length (tools); i++) {
    JsonObject *function = object_member (json_array_get_object_element (tools, i), "function");
    const char *name = json_object_get_string_member (function, "name");
    if (only != NULL && !g_str_equal (name, only))
      continue;
    g_autofree char *rule = arguments_rule (rules, &n_rules, function, name, error), *middle = g_strconcat (name, form->between, NULL), *literal = eng_gbnf_literal (middle);
    if (rule == NULL)
      return NULL;
    g_string_append_printf (choice, "%s%s %s", choice->len > 0 ? " | " : "", literal, rule);
  }
  if (choice->len == 0) {
    g_set_error (error, ENG_ERROR, ENG_ERROR_ARGUMENT, "%s is to be called, and is no function of this request", only != NULL ? only : "a function");
    return NULL;
  }
  g_string_append_printf (rules, "root ::= \"\\n\"{0,2} %s (%s) %s\n", before, choice->str, after);
  return eng_grammar_new (rules->str, error);
}
