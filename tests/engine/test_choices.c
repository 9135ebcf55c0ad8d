/* test_choices.c: multiple choice by its definition, recomputed token by token in sessions of their own; and files that hold no questions. */
#include "engine/choices.h"
#include "engine/error.h"
#include "tests/fixtures/tiny_model.h"

#include <math.h>
#include <string.h>

static EngWorkers *workers;

static const struct {
  const char *question, *choices[4];
  guint answer;
} questions[] = {
  { "abc", { "x", "yy", "zzz" }, 0 },      { "q k p", { "jx", "jy" }, 1 },           { "gfg", { "aaaaaaaa", "b", "cc", "u" }, 1 },
  { "v", { "uvx", "xvu", "vux" }, 2 },     { "pqs", { "m k", "k m" }, 0 },           { "xyz xyz", { "z", "y", "x", "v" }, 3 },
  { "kk jj", { "bcf", "fcb", "cfb" }, 1 }, { "m", { "gj", "jgjg", "gjgjgj" }, 2 },   { "sss", { "a", "c" }, 1 },
  { "f f f", { "kq", "qk", "qq", "kk" }, 0 },
};

static EngModel *open_model (const char *name, guint n_layers)
{
  TinyModel tiny = TINY_MODEL_DEFAULTS;
  g_autofree char *path = tiny_model_path (name);
  g_autoptr (GError) error = NULL;
  tiny.n_layers = n_layers;
  tiny_model_write (&tiny, path);
  EngModel *model = eng_model_open (path, &error);
  g_assert_no_error (error);
  return model;
}

static double by_definition (EngModel *model, const char *question, const char *choice)
{
  g_autofree char *asked = g_strconcat (question, "\nAnswer:", NULL), *said = g_strconcat (" ", choice, NULL);
  g_autoptr (GArray) tokens = g_array_new (FALSE, FALSE, sizeof (gint32));
  EngSessionOptions options = { .n_ctx = 64, .kv_bits = 16, .activation_bits = 32 };
  g_autoptr (EngSession) session = eng_session_new (model, workers, &options, NULL);
  const EngTokenizer *tokenizer = eng_model_tokenizer (model);
  gint32 bos = eng_tokenizer_bos (tokenizer);
  double sum = 0;
  if (bos >= 0 && eng_tokenizer_adds_bos (tokenizer))
    g_array_append_val (tokens, bos);
  eng_tokenizer_encode (tokenizer, asked, -1, ENG_TOKENIZE_PLAIN, tokens);
  guint first = tokens->len;
  eng_tokenizer_encode (tokenizer, said, -1, ENG_TOKENIZE_PLAIN, tokens);
  for (guint i = 0; i + 1 < tokens->len; i++) {
    const gint32 *t = &g_array_index (tokens, gint32, i);
    g_assert_true (eng_session_eval (session, t, 1, FALSE, NULL, NULL));
    const float *logits = eng_session_logits (session);
    double all = 0;
    for (guint j = 0; j < TINY_VOCAB; j++)
      all += exp (logits[j]);
    if (i + 1 >= first)
      sum += logits[t[1]] - log (all);
  }
  return sum / strlen (said);
}

static gboolean is_right (EngModel *model, guint n)
{
  guint best = 0;
  for (guint c = 1; c < 4 && questions[n].choices[c]; c++)
    if (by_definition (model, questions[n].question, questions[n].choices[c]) > by_definition (model, questions[n].question, questions[n].choices[best]))
      best = c;
  return best == questions[n].answer;
}

static char *make_file (void)
{
  GString *text = g_string_new ("\n");
  for (guint i = 0; i < G_N_ELEMENTS (questions); i++) {
    g_string_append_printf (text, "{\"set\": \"x\", \"answer\": %u, \"question\": \"%s\", \"choices\": [", questions[i].answer, questions[i].question);
    for (guint c = 0; c < 4 && questions[i].choices[c]; c++)
      g_string_append_printf (text, "%s\"%s\"", c ? ", " : "", questions[i].choices[c]);
    g_string_append (text, i % 2 ? "]}\r\n" : "]}\n");
  }
  return g_string_free (text, FALSE);
}

static void test_definition (void)
{
  g_autoptr (EngModel) model = open_model ("model.gguf", 2);
  g_autoptr (EngModel) other = open_model ("other.gguf", 3);
  g_autoptr (GError) error = NULL;
  g_autofree char *text = make_file ();
  guint right = 0, reference = 0, gained = 0, lost = 0, n = G_N_ELEMENTS (questions), first = 0;
  for (guint i = 0; i < n; i++) {
    gboolean a = is_right (model, i), b = is_right (other, i);
    right += a;
    reference += b;
    gained += a && !b;
    lost += !a && b;
    first += i < 3 && a;
  }
  g_test_message ("%u and %u of %u right, %u gained, %u lost", right, reference, n, gained, lost);
  g_assert_cmpuint (gained + lost, >, 0);
  EngChoices r;
  g_assert_true (eng_evaluate_choices (model, other, workers, text, strlen (text), 0, 32, 16, &r, NULL, NULL, NULL, &error));
  g_assert_no_error (error);
  g_assert_cmpuint (r.questions, ==, n);
  g_assert_cmpfloat_with_epsilon (r.accuracy, (double) right / n, 1e-12);
  g_assert_cmpfloat_with_epsilon (r.reference_accuracy, (double) reference / n, 1e-12);
  g_assert_cmpuint (r.gained, ==, gained);
  g_assert_cmpuint (r.lost, ==, lost);
  double mean = ((double) gained - lost) / n, variance = 0;
  for (guint i = 0; i < n; i++) {
    double d = i < gained ? 1 : i < gained + lost ? -1 : 0;
    variance += (d - mean) * (d - mean) / n;
  }
  g_assert_cmpfloat_with_epsilon (r.change, mean, 1e-12);
  g_assert_cmpfloat_with_epsilon (r.high - r.change, 1.96 * sqrt (variance / n), 1e-9);
  g_assert_cmpfloat_with_epsilon (r.change - r.low, 1.96 * sqrt (variance / n), 1e-9);
  g_assert_true (eng_evaluate_choices (model, NULL, workers, text, strlen (text), 3, 32, 16, &r, NULL, NULL, NULL, &error));
  g_assert_cmpuint (r.questions, ==, 3);
  g_assert_cmpfloat_with_epsilon (r.accuracy, first / 3.0, 1e-12);
  g_assert_false (r.has_reference);
}

static void test_faulty (void)
{
  g_autoptr (EngModel) model = open_model ("faulty.gguf", 2);
  char *array = g_strdup ("\"a\"");
  for (guint i = 0; i < 70; i++) {
    char *longer = g_strconcat (array, ",\"a\"", NULL);
    g_free (array);
    array = longer;
  }
  g_autofree char *crowd = g_strdup_printf ("{\"question\":\"q\",\"answer\":0,\"choices\":[%s]}", array);
  g_free (array);
  g_autofree char *endless = g_strdup_printf ("{\"question\":\"%0*d\",\"answer\":0,\"choices\":[\"a\",\"b\"]}", 100000, 1);
  const struct {
    const char *text, *problem;
  } files[] = {
    { "", "no questions" },
    { " \n\n", "no questions" },
    { "hello", "line 1 is no question" },
    { "\n[1]", "line 2 is no question" },
    { "{\"question\":\"q\",\"answer\":0}", "line 1 is no question" },
    { "{\"question\":3,\"answer\":0,\"choices\":[\"a\",\"b\"]}", "line 1 is no question" },
    { "{\"question\":\"q\",\"answer\":2,\"choices\":[\"a\",\"b\"]}", "line 1 is no question" },
    { "{\"question\":\"q\",\"answer\":-1,\"choices\":[\"a\",\"b\"]}", "line 1 is no question" },
    { "{\"question\":\"q\",\"answer\":\"0\",\"choices\":[\"a\",\"b\"]}", "line 1 is no question" },
    { "{\"question\":\"q\",\"answer\":0,\"choices\":[\"a\"]}", "line 1 is no question" },
    { "{\"question\":\"q\",\"answer\":0,\"choices\":[\"a\",\"\"]}", "line 1 is no question" },
    { "{\"question\":\"q\",\"answer\":0,\"choices\":[\"a\",null]}", "line 1 is no question" },
    { "{\"question\":\"q\",\"answer\":0,\"choices\":[\"a\",[]]}", "line 1 is no question" },
    { "{\"question\":\"q\",\"answer\":0,\"choices\":{}}", "line 1 is no question" },
    { crowd, "line 1 is no question" },
    { endless, "tokens" },
  };
  for (guint i = 0; i < G_N_ELEMENTS (files); i++) {
    g_autoptr (GError) error = NULL;
    EngChoices r;
    g_assert_false (eng_evaluate_choices (model, NULL, workers, files[i].text, strlen (files[i].text), 0, 32, 16, &r, NULL, NULL, NULL, &error));
    g_assert_nonnull (error);
    if (!strstr (error->message, files[i].problem))
      g_error ("%u: %s", i, error->message);
  }
}

int main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  workers = eng_workers_new (2);
  g_test_add_func ("/choices/by-definition", test_definition);
  g_test_add_func ("/choices/faulty-files", test_faulty);
  int status = g_test_run ();
  eng_workers_free (workers);
  return status;
}
