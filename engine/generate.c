/* generate.c: a chat turn. The template's own literals may hold control tokens; what a person wrote never does. */
#include "engine/generate.h"
#include "engine/error.h"

#include <string.h>

/* ---- from messages to tokens --------------------------------------------------------------------------------------------- */

static void set_token_text (JsonObject *context, const char *name, const EngTokenizer *tokenizer, int token)
{
  gsize length = 0;
  const char *piece = token >= 0 ? eng_tokenizer_piece (tokenizer, token, TRUE, &length) : "";
  g_autofree char *text = g_strndup (piece, length);
  json_object_set_string_member (context, name, text);
}

char *eng_generate_text (EngModel *model, JsonArray *messages, JsonObject *variables, gboolean answer_follows, GArray *values, GError **error)
{
  const EngTokenizer *tokenizer = eng_model_tokenizer (model);
  const EngChatTemplate *chat_template = eng_model_template (model, error);
  if (chat_template == NULL)
    return NULL;
  g_autoptr (JsonObject) context = json_object_new ();
  g_autoptr (GList) names = variables != NULL ? json_object_get_members (variables) : NULL;
  for (GList *name = names; name != NULL; name = name->next)
    json_object_set_member (context, name->data, json_node_copy (json_object_get_member (variables, name->data)));
  json_object_set_array_member (context, "messages", json_array_ref (messages));
  json_object_set_boolean_member (context, "add_generation_prompt", answer_follows);
  set_token_text (context, "bos_token", tokenizer, eng_tokenizer_bos (tokenizer));
  set_token_text (context, "eos_token", tokenizer, eng_tokenizer_eos (tokenizer));
  return eng_chat_template_render (chat_template, context, values, error);
}

GArray *eng_generate_prompt (EngModel *model, JsonArray *messages, JsonObject *variables, char **prompt, GError **error)
{
  const EngTokenizer *tokenizer = eng_model_tokenizer (model);
  g_autoptr (GArray) values = g_array_new (FALSE, FALSE, sizeof (EngSpan));
  g_autofree char *text = eng_generate_text (model, messages, variables, TRUE, values, error);
  if (text == NULL)
    return NULL;
  GArray *tokens = g_array_new (FALSE, FALSE, sizeof (gint32));
  eng_tokenizer_encode_prompt (tokenizer, text, strlen (text), (const EngSpan *)(gpointer)values->data, values->len, tokens);
  gint32 bos = eng_tokenizer_bos (tokenizer);
  if (bos >= 0 && eng_tokenizer_adds_bos (tokenizer) && (tokens->len == 0 || g_array_index (tokens, gint32, 0) != bos))
    g_array_prepend_val (tokens, bos);
  if (prompt != NULL)
    *prompt = g_steal_pointer (&text);
  return tokens;
}

/* ---- making the conversation fit ----------------------------------------------------------------------------------------- */

static const char *role_of (JsonArray *messages, guint i)
{
  JsonNode *node = json_array_get_element (messages, i);
  return JSON_NODE_HOLDS_OBJECT (node) ? json_object_get_string_member_with_default (json_node_get_object (node), "role", "") : "";
}

/* The system messages at the head, then those from `from` on. */
static JsonArray *without_old_turns (JsonArray *messages, guint n_system, guint from)
{
  JsonArray *kept = json_array_new ();
  for (guint i = 0; i < json_array_get_length (messages); i++)
    if (i < n_system || i >= from)
      json_array_add_element (kept, json_node_copy (json_array_get_element (messages, i)));
  return kept;
}

/* Prompt tokens with room for `reserve` more where leaving out old turns can make it, and for one in any case. */
static GArray *fitting_prompt (EngSession *session, JsonArray *messages, guint reserve, gboolean *shifted, char **prompt, GError **error)
{
  guint n = json_array_get_length (messages), n_ctx = eng_session_n_ctx (session), n_system = 0;
  while (n_system < n && g_str_equal (role_of (messages, n_system), "system"))
    n_system++;
  for (guint from = n_system;;) {
    g_autoptr (JsonArray) kept = without_old_turns (messages, n_system, from);
    g_clear_pointer (prompt, g_free);
    g_autoptr (GArray) tokens = eng_generate_prompt (eng_session_model (session), kept, NULL, prompt, error);
    guint next = from + 1;
    if (tokens == NULL)
      return NULL;
    *shifted = from > n_system;
    if (tokens->len == 0) {
      g_set_error_literal (error, ENG_ERROR, ENG_ERROR_TEMPLATE, "the chat template made an empty prompt of these messages");
      return NULL;
    }
    while (next < n && !g_str_equal (role_of (messages, next), "user"))
      next++;
    if (tokens->len + (gsize)reserve <= n_ctx || (next >= n && tokens->len < n_ctx))
      return g_steal_pointer (&tokens);
    if (next >= n) {
      g_set_error (error, ENG_ERROR, ENG_ERROR_MEMORY,
                   "the message takes %u tokens, but the context holds %u: shorten it or choose a longer context", tokens->len,
                   n_ctx);
      return NULL;
    }
    from = next;
  }
}

/* ---- the turn ------------------------------------------------------------------------------------------------------------ */

/* Evaluates the prompt, but for what the session already holds of it. The last token is always evaluated: its logits are needed. */
static gboolean eval_prompt (EngSession *session, const GArray *prompt, EngGenerateStats *stats, GCancellable *cancellable,
                             GError **error)
{
  const gint32 *tokens = (const gint32 *)(gpointer)prompt->data;
  guint held = stats->shifted ? eng_session_prepare_shifted (session, tokens, prompt->len - 1) : eng_session_prepare (session, tokens, prompt->len - 1);
  stats->prompt_tokens = prompt->len;
  stats->reused_tokens = held;
  return eng_session_eval (session, tokens + held, prompt->len - held, FALSE, cancellable, error);
}

typedef struct {
  EngTextFunc function;
  gpointer data;
  EngGenerateStats *stats;
  gint64 start;
} Output;

static void emit (EngTextKind kind, const char *text, gpointer data)
{
  Output *output = data;
  if (output->stats->first_token_us == 0)
    output->stats->first_token_us = g_get_monotonic_time () - output->start;
  if (output->function != NULL)
    output->function (kind, text, output->data);
}

static gboolean generate (EngSession *session, EngAnswer *answer, EngGenerateStats *stats, GCancellable *cancellable, GError **error)
{
  for (;;) {
    gint32 token;
    g_autoptr (GError) failure = NULL;
    stats->finish_reason = "cancelled";
    if (g_cancellable_is_cancelled (cancellable))
      return TRUE;
    gboolean goes_on = eng_answer_next (answer, session, &token, &failure);
    stats->generated_tokens = eng_answer_n_tokens (answer);
    if (goes_on && eng_session_eval (session, &token, 1, FALSE, cancellable, &failure))
      continue;
    if (failure == NULL)
      stats->finish_reason = eng_answer_finish_reason (answer);
    if (failure == NULL || g_error_matches (failure, ENG_ERROR, ENG_ERROR_CANCELLED))
      return TRUE;
    g_propagate_error (error, g_steal_pointer (&failure));
    return FALSE;
  }
}

gboolean eng_generate_chat (EngSession *session, JsonArray *messages, const EngAnswerOptions *options, EngTextFunc text, gpointer data,
                            EngGenerateStats *stats, GCancellable *cancellable, GError **error)
{
  EngGenerateStats own;
  gint64 start = g_get_monotonic_time ();
  guint quarter = MAX (1, eng_session_n_ctx (session) / 4);
  stats = stats != NULL ? stats : &own;
  *stats = (EngGenerateStats){ 0 };
  g_autofree char *text_before = NULL;
  g_autoptr (GArray) prompt
      = fitting_prompt (session, messages, options->max_tokens > 0 ? MIN (options->max_tokens, quarter) : quarter, &stats->shifted, &text_before, error);
  if (prompt == NULL)
    return FALSE;

  g_autoptr (GError) failure = NULL;
  gboolean ok = eval_prompt (session, prompt, stats, cancellable, &failure);
  gint64 prompt_end = g_get_monotonic_time ();
  stats->prompt_us = prompt_end - start;
  if (!ok && g_error_matches (failure, ENG_ERROR, ENG_ERROR_CANCELLED)) {
    stats->finish_reason = "cancelled";
    return TRUE;
  }
  if (!ok) {
    g_propagate_error (error, g_steal_pointer (&failure));
    return FALSE;
  }
  Output output = { text, data, stats, start };
  EngAnswerOptions own_options = *options;
  own_options.prompt = text_before;
  g_autoptr (EngAnswer) answer = eng_answer_new (eng_session_model (session), &own_options, emit, &output);
  ok = generate (session, answer, stats, cancellable, error);
  eng_answer_end (answer);
  stats->generate_us = g_get_monotonic_time () - prompt_end;
  return ok;
}
