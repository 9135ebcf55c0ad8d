/* choices.c: multiple choice. A question is evaluated once, its choices one after the other behind it. */
#include "engine/choices.h"

#include "engine/error.h"
#include "engine/evaluate.h"
#include "kernels/ops.h"

#include <json-glib/json-glib.h>
#include <math.h>
#include <string.h>

enum { BATCH = 128, MOST_CHOICES = 64 };

typedef struct {
  char *question;
  char **choices;
  guint n_choices, answer, line;
} Question;

static void question_clear (gpointer data)
{
  Question *q = data;
  g_free (q->question);
  g_strfreev (q->choices);
}

/* ---- the file ---- */

static gboolean read_members (JsonObject *object, Question *q)
{
  JsonNode *question = json_object_get_member (object, "question"), *choices = json_object_get_member (object, "choices"),
           *answer = json_object_get_member (object, "answer");
  if (!question || json_node_get_value_type (question) != G_TYPE_STRING || !choices || !JSON_NODE_HOLDS_ARRAY (choices) || !answer
      || json_node_get_value_type (answer) != G_TYPE_INT64)
    return FALSE;
  JsonArray *array = json_node_get_array (choices);
  gint64 place = json_node_get_int (answer);
  q->n_choices = json_array_get_length (array);
  if (q->n_choices < 2 || q->n_choices > MOST_CHOICES || place < 0 || place >= q->n_choices)
    return FALSE;
  q->answer = (guint) place;
  q->question = json_node_dup_string (question);
  q->choices = g_new0 (char *, q->n_choices + 1);
  for (guint i = 0; i < q->n_choices; i++) {
    JsonNode *choice = json_array_get_element (array, i);
    if (json_node_get_value_type (choice) != G_TYPE_STRING || !*json_node_get_string (choice))
      return FALSE;
    q->choices[i] = json_node_dup_string (choice);
  }
  return TRUE;
}

static gboolean read_question (const char *line, gsize length, guint number, GArray *questions, GError **error)
{
  g_autoptr (JsonParser) parser = json_parser_new ();
  Question q = { .line = number };
  JsonNode *root = json_parser_load_from_data (parser, line, (gssize) length, NULL) ? json_parser_get_root (parser) : NULL;
  if (root && JSON_NODE_HOLDS_OBJECT (root) && read_members (json_node_get_object (root), &q)) {
    g_array_append_val (questions, q);
    return TRUE;
  }
  question_clear (&q);
  g_set_error (error, ENG_ERROR, ENG_ERROR_FORMAT,
               "line %u is no question: a JSON object with \"question\", \"choices\" (2 to %d texts) and \"answer\" (the place of the right one, from 0) is expected", number,
               MOST_CHOICES);
  return FALSE;
}

static GArray *read_questions (const char *text, gsize length, guint most, GError **error)
{
  g_autoptr (GArray) questions = g_array_new (FALSE, FALSE, sizeof (Question));
  g_array_set_clear_func (questions, question_clear);
  const char *end = text + length;
  guint number = 0;
  while (text < end && (most == 0 || questions->len < most)) {
    const char *stop = memchr (text, '\n', (gsize) (end - text));
    gsize n = (gsize) ((stop ? stop : end) - text), blank = 0;
    number++;
    while (blank < n && g_ascii_isspace (text[blank]))
      blank++;
    if (blank < n && !read_question (text, n, number, questions, error))
      return NULL;
    text += n + (stop != NULL);
  }
  if (questions->len == 0) {
    g_set_error_literal (error, ENG_ERROR, ENG_ERROR_ARGUMENT, "the file holds no questions: name one with a JSON object on each line");
    return NULL;
  }
  return g_steal_pointer (&questions);
}

/* ---- one question ---- */

/* A question with one of its choices. */
typedef struct {
  GArray *tokens;
  guint first; /* of the choice's own: those before it the question has without it as well */
} Said;

static void said_clear (gpointer data)
{
  g_array_unref (((Said *) data)->tokens);
}

typedef struct {
  EngSession *session;
  EngWorkers *workers;
  const gint32 *next;
  guint n_vocab;
  double scores[BATCH]; /* log-probability of next[i] by row i */
  GArray *said;         /* Said, choice by choice */
} Asker;

static void score_rows (gpointer data, guint begin, guint end, guint worker)
{
  Asker *a = data;
  for (guint row = begin; row < end; row++) {
    const float *x = eng_session_logits_at (a->session, row);
    a->scores[row] = x[a->next[row]] - eng_log_sum_exp (x, a->n_vocab, xb_argmax (x, a->n_vocab));
  }
}

/* Log-probability of the choice's tokens: all but the last one are evaluated from where the session and they part. */
static gboolean score_choice (Asker *a, const Said *said, double *score, GCancellable *cancellable, GError **error)
{
  const gint32 *tokens = (const gint32 *) (gpointer) said->tokens->data;
  guint n = said->tokens->len, first = said->first, past = 0;
  while (past < eng_session_n_past (a->session) && past + 1 < first && eng_session_tokens (a->session)[past] == tokens[past])
    past++;
  eng_session_truncate (a->session, past);
  if (past + 1 < first && !eng_session_eval (a->session, tokens + past, first - 1 - past, FALSE, cancellable, error))
    return FALSE;
  *score = 0;
  for (guint at = first - 1, some; at < n - 1; at += some) {
    some = MIN (n - 1 - at, BATCH);
    if (!eng_session_eval (a->session, tokens + at, some, TRUE, cancellable, error))
      return FALSE;
    a->next = tokens + at + 1;
    eng_workers_run (a->workers, score_rows, a, some, 1);
    for (guint i = 0; i < some; i++)
      *score += a->scores[i];
  }
  return TRUE;
}

/* said: the question's choices. */
static gboolean answer (Asker *a, const Question *q, const Said *said, gboolean *right, GCancellable *cancellable, GError **error)
{
  double best = -G_MAXDOUBLE;
  guint chosen = 0;
  for (guint c = 0; c < q->n_choices; c++) {
    double score;
    if (!score_choice (a, &said[c], &score, cancellable, error))
      return FALSE;
    if (!isfinite (score)) {
      g_set_error_literal (error, ENG_ERROR, ENG_ERROR_FORMAT, "the model computes no numbers: its file is damaged, download it again");
      return FALSE;
    }
    score /= 1.0 + (double) strlen (q->choices[c]);
    if (score > best) {
      best = score;
      chosen = c;
    }
  }
  *right = chosen == q->answer;
  return TRUE;
}

/* ---- all together ---- */

static gboolean tokenize (Asker *a, EngModel *model, const Question *q, guint *longest, GError **error)
{
  const EngTokenizer *tokenizer = eng_model_tokenizer (model);
  guint trained = eng_model_traits (model)->n_ctx_train;
  g_autofree char *asked = g_strconcat (q->question, "\nAnswer:", NULL);
  g_autoptr (GArray) bare = g_array_new (FALSE, FALSE, sizeof (gint32));
  eng_tokenizer_encode_whole (tokenizer, asked, -1, bare);
  for (guint c = 0; c < q->n_choices; c++) {
    g_autofree char *whole = g_strconcat (asked, " ", q->choices[c], NULL);
    Said said = { .tokens = g_array_new (FALSE, FALSE, sizeof (gint32)) };
    eng_tokenizer_encode_whole (tokenizer, whole, -1, said.tokens);
    while (said.first < bare->len && said.first + 1 < said.tokens->len
           && g_array_index (bare, gint32, said.first) == g_array_index (said.tokens, gint32, said.first))
      said.first++;
    g_array_append_val (a->said, said);
    *longest = MAX (*longest, said.tokens->len);
    if (said.first == 0) {
      g_set_error (error, ENG_ERROR, ENG_ERROR_ARGUMENT, "the question of line %u has no token before its choices: there is nothing to predict them from", q->line);
      return FALSE;
    }
    if (trained > 0 && said.tokens->len > trained) {
      g_set_error (error, ENG_ERROR, ENG_ERROR_ARGUMENT, "the question of line %u has %u tokens with its choice, and the model reads %u: take it out", q->line,
                   said.tokens->len, trained);
      return FALSE;
    }
  }
  return TRUE;
}

static gboolean asker_open (Asker *a, EngModel *model, EngWorkers *workers, const GArray *questions, int activation_bits, int kv_bits, GError **error)
{
  EngSessionOptions options = { .n_ctx = 1, .batch = BATCH, .kv_bits = kv_bits, .activation_bits = activation_bits };
  *a = (Asker) { .workers = workers, .n_vocab = eng_model_traits (model)->n_vocab, .said = g_array_new (FALSE, FALSE, sizeof (Said)) };
  g_array_set_clear_func (a->said, said_clear);
  for (guint i = 0; i < questions->len; i++)
    if (!tokenize (a, model, &g_array_index (questions, Question, i), &options.n_ctx, error))
      return FALSE;
  a->session = eng_session_new (model, workers, &options, error);
  return a->session != NULL;
}

static void asker_close (Asker *a)
{
  g_clear_pointer (&a->session, eng_session_free);
  g_clear_pointer (&a->said, g_array_unref);
}

/* Of pairs that differ, the interval of the mean of +1, -1 and 0: normal, which is what thousands of questions are for. */
static void compare (EngChoices *r)
{
  double n = r->questions, differ = r->gained + r->lost;
  r->change = ((double) r->gained - r->lost) / n;
  double half = 1.96 * sqrt (MAX (0, differ / n - r->change * r->change) / n);
  r->low = r->change - half;
  r->high = r->change + half;
}

gboolean eng_evaluate_choices (EngModel *model, EngModel *reference, EngWorkers *workers, const char *text, gsize length, guint questions, int activation_bits,
                               int kv_bits, EngChoices *result, EngProgress progress, gpointer data, GCancellable *cancellable, GError **error)
{
  g_autoptr (GArray) all = read_questions (text, length, questions, error);
  Asker askers[2] = { { 0 } };
  if (all == NULL)
    return FALSE;
  guint right[2] = { 0 };
  gboolean ok = asker_open (&askers[0], model, workers, all, activation_bits, kv_bits, error)
                && (reference == NULL || asker_open (&askers[1], reference, workers, all, 32, 16, error));
  *result = (EngChoices) { .questions = all->len, .has_reference = reference != NULL };
  for (guint i = 0, first = 0; ok && i < all->len; first += g_array_index (all, Question, i++).n_choices) {
    gboolean is_right[2] = { FALSE };
    if (progress != NULL)
      progress ((double) i / all->len, "Answering", data);
    for (guint k = 0; ok && k < (reference != NULL ? 2u : 1u); k++) {
      ok = answer (&askers[k], &g_array_index (all, Question, i), &g_array_index (askers[k].said, Said, first), &is_right[k], cancellable, error);
      right[k] += is_right[k];
    }
    result->gained += is_right[0] && !is_right[1];
    result->lost += !is_right[0] && is_right[1];
  }
  asker_close (&askers[0]);
  asker_close (&askers[1]);
  if (!ok)
    return FALSE;
  result->accuracy = (double) right[0] / all->len;
  result->reference_accuracy = (double) right[1] / all->len;
  compare (result);
  if (progress != NULL)
    progress (1, "Answering", data);
  return TRUE;
}
