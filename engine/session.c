/* session.c: a sequence: the tokens so far, their KV cache, and the decoder that extends them. */
#include "engine/session.h"
#include "engine/decoder.h"
#include "engine/error.h"

#include <string.h>

struct EngSession {
  EngModel *model;
  EngWorkers *workers;
  EngDecoder *decoder;
  EngKvCache cache;
  guint n_ctx, n_past;
  guint logits_row; /* of the last token */
  gint32 *tokens;   /* [n_ctx] */
  EngObserver observer;
  gpointer observer_data;
};

EngSession *eng_session_new (EngModel *model, EngWorkers *workers, const EngSessionOptions *options, GError **error)
{
  EngSessionOptions o = *options;
  o.activation_bits = o.activation_bits == 0 ? 8 : o.activation_bits;
  o.kv_bits = o.kv_bits == 0 ? 16 : o.kv_bits;
  if (o.n_ctx == 0 || o.n_ctx > 1 << 24) {
    g_set_error (error, ENG_ERROR, ENG_ERROR_ARGUMENT, "a context of %u tokens makes no sense: choose 1 to %d", o.n_ctx, 1 << 24);
    return NULL;
  }
  g_autoptr (EngSession) session = g_new0 (EngSession, 1);
  session->model = eng_model_ref (model);
  session->workers = workers;
  session->n_ctx = o.n_ctx;
  if (!eng_kv_cache_init (&session->cache, eng_model_traits (model), o.n_ctx, o.kv_bits, error))
    return NULL;
  session->decoder = eng_decoder_new (model, workers, &o, error);
  if (session->decoder == NULL)
    return NULL;
  session->tokens = g_new (gint32, o.n_ctx);
  return g_steal_pointer (&session);
}

void eng_session_free (EngSession *session)
{
  if (session == NULL)
    return;
  eng_decoder_free (session->decoder);
  eng_kv_cache_clear (&session->cache);
  eng_model_unref (session->model);
  g_free (session->tokens);
  g_free (session);
}

EngModel *eng_session_model (const EngSession *session)
{
  return session->model;
}

EngWorkers *eng_session_workers (const EngSession *session)
{
  return session->workers;
}

guint eng_session_n_past (const EngSession *session)
{
  return session->n_past;
}

guint eng_session_n_ctx (const EngSession *session)
{
  return session->n_ctx;
}

const gint32 *eng_session_tokens (const EngSession *session)
{
  return session->tokens;
}

void eng_session_truncate (EngSession *session, guint n)
{
  session->n_past = MIN (session->n_past, n);
}

static gboolean check_tokens (const EngSession *session, const gint32 *tokens, guint n, gboolean all_logits, GError **error)
{
  guint n_vocab = eng_model_traits (session->model)->n_vocab;
  if (n > session->n_ctx - session->n_past) {
    g_set_error (error, ENG_ERROR, ENG_ERROR_MEMORY, "%u tokens do not fit after the %u that the context of %u holds", n,
                 session->n_past, session->n_ctx);
    return FALSE;
  }
  if (all_logits && n > eng_decoder_batch (session->decoder)) {
    g_set_error (error, ENG_ERROR, ENG_ERROR_ARGUMENT, "logits of %u tokens were asked for, but a batch is %u", n,
                 eng_decoder_batch (session->decoder));
    return FALSE;
  }
  for (guint i = 0; i < n; i++)
    if (tokens[i] < 0 || (guint)tokens[i] >= n_vocab) {
      g_set_error (error, ENG_ERROR, ENG_ERROR_ARGUMENT, "token %d is outside the vocabulary of %u", tokens[i], n_vocab);
      return FALSE;
    }
  return TRUE;
}

gboolean eng_session_eval (EngSession *session, const gint32 *tokens, guint n, gboolean all_logits, GCancellable *cancellable,
                           GError **error)
{
  if (!check_tokens (session, tokens, n, all_logits, error))
    return FALSE;
  eng_kv_cache_extend (&session->cache, session->n_past + n);
  for (guint done = 0, step; done < n; done += step) {
    step = MIN (n - done, eng_decoder_batch (session->decoder));
    EngLogitsWanted wanted = all_logits ? ENG_LOGITS_ALL : done + step == n ? ENG_LOGITS_LAST : ENG_LOGITS_NONE;
    if (!eng_decoder_forward (session->decoder, &session->cache, tokens + done, step, session->n_past + done, wanted,
                              session->observer, session->observer_data, cancellable, error))
      return FALSE;
  }
  if (n > 0) {
    memcpy (session->tokens + session->n_past, tokens, n * sizeof *tokens);
    session->n_past += n;
    session->logits_row = all_logits ? n - 1 : 0;
  }
  return TRUE;
}

float *eng_session_logits (EngSession *session)
{
  return eng_decoder_logits (session->decoder, session->logits_row);
}

float *eng_session_logits_at (EngSession *session, guint i)
{
  return eng_decoder_logits (session->decoder, i);
}

void eng_session_set_observer (EngSession *session, EngObserver observer, gpointer data)
{
  session->observer = observer;
  session->observer_data = data;
}
