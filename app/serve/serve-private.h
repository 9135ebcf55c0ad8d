/* serve-private.h: a request on its way to an answer. */
#ifndef VALISE_SERVE_PRIVATE_H
#define VALISE_SERVE_PRIVATE_H

#include "app/serve/serve.h"

#include <libsoup/soup.h>

/* What was asked for, out of a body of JSON. What `answer` points to is the request's. */
typedef struct {
  gboolean chat;           /* chat/completions, else completions */
  gboolean stream, usage;  /* usage: told at the end of a stream as well */
  EngAnswerOptions answer;
  GArray *prompt;          /* of gint32 */
  char *text;              /* the prompt's */
  JsonArray *tools;
  GArray *biases;          /* of EngLogitBias */
  GPtrArray *stops;        /* of char *, then NULL */
} ValiseAsked;

/* NULL with one sentence for whoever asked. */
ValiseAsked *valise_asked_new (EngModel *model, JsonObject *body, gboolean chat, GError **error);
void valise_asked_free (ValiseAsked *asked);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (ValiseAsked, valise_asked_free)

/* A member of that type, or NULL when it is absent or null; FALSE with a sentence when it is something else. kind: "a string", ... */
gboolean valise_asked_string (JsonObject *body, const char *name, const char **value, GError **error);

/* An answer on its way to whoever asked: whole, or chunk by chunk. */
typedef struct ValiseReply ValiseReply;
/* Takes asked in any case, and pauses the message until there is something to send. */
gboolean valise_reply_start (EngBatch *batch, const char *model_name, SoupServerMessage *message, ValiseAsked *asked, GError **error);

void valise_send_json (SoupServerMessage *message, guint status, JsonObject *object); /* takes the object */
void valise_send_error (SoupServerMessage *message, guint status, const char *sentence);

#endif
