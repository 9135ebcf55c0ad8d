/* generate.h: a chat turn: messages through the template to tokens, prefix reuse, sampling, streaming text. Blocking: call it on a
 * worker thread. */
#ifndef ENG_GENERATE_H
#define ENG_GENERATE_H

#include "engine/answer.h"

typedef struct {
  guint prompt_tokens;     /* in the prompt */
  guint reused_tokens;     /* of them already in the session */
  guint generated_tokens;
  gint64 prompt_us, generate_us, first_token_us; /* first_token_us: from call to first text */
  const char *finish_reason; /* "stop", "length", "cancelled" */
  gboolean shifted;        /* old turns were left out to make room */
} EngGenerateStats;

/* Renders messages (array of {role, content}) with the model's template, encodes (text from messages is never a control token), evaluates
 * what the session does not hold yet, generates as options say until an end or cancel. When the
 * conversation does not fit, the oldest turns after the system message are left out. */
gboolean eng_generate_chat (EngSession *session, JsonArray *messages, const EngAnswerOptions *options, EngTextFunc text, gpointer data,
                            EngGenerateStats *stats, GCancellable *cancellable, GError **error);
/* The prompt's tokens, as eng_generate_chat would evaluate them. GArray of gint32. variables: further names for the template (tools, documents,
 * enable_thinking, ...), or NULL; *prompt, unless NULL: the text, to be freed with g_free. */
GArray *eng_generate_prompt (EngModel *model, JsonArray *messages, JsonObject *variables, char **prompt, GError **error);
/* What the template makes of messages: answer_follows: up to where an answer begins. values (may be NULL): filled with the EngSpan of what a person wrote. */
char *eng_generate_text (EngModel *model, JsonArray *messages, JsonObject *variables, gboolean answer_follows, GArray *values, GError **error);

#endif
