/* session.c: a sequence: the tokens so far, the pages of its keys and values, and what it can begin with. */
#include "engine/session.h"
#include "engine/error.h"
#include "engine/session_private.h"

#include <string.h>

enum { WORTH_SWAPPING = 32, /* tokens that another's beginning must have more than one's own */
       WORTH_KEEPING = 32 /* tokens that are remembered when they go: a page */ };

EngSession *eng_session_new (EngModel *model, EngWorkers *workers, const EngSessionOptions *options, GError **error)
{
  g_autoptr (EngPool) pool = eng_pool_new (model, workers, options, error);
  return pool != NULL ? eng_pool_open (pool, 0, error) : NULL;
}

void eng_session_free (EngSession *session)
{
  if (session == NULL)
    return;
  eng_draft_free (session->draft);
  if (session->n_held >= WORTH_KEEPING && session->pool->options.n_sessions > 1)
    eng_pool_remember (session->pool, session);
  eng_kv_sequence_clear (&session->kv);
  g_free (session->tokens);
  eng_pool_close (session->pool, session);
  g_free (session);
}

EngModel *eng_session_model (const EngSession *session)
{
  return session->pool->model;
}

EngWorkers *eng_session_workers (const EngSession *session)
{
  return session->pool->workers;
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

float *eng_session_logits (EngSession *session)
{
  return eng_decoder_logits (session->pool->decoder, session->logits_row);
}

float *eng_session_logits_at (EngSession *session, guint i)
{
  return eng_decoder_logits (session->pool->decoder, session->first_logits_row + i);
}

void eng_session_set_observer (EngSession *session, EngObserver observer, gpointer data)
{
  session->observer = observer;
  session->observer_data = data;
}

void eng_session_set_draft (EngSession *session, EngDraft *draft)
{
  eng_draft_free (session->draft);
  session->draft = draft;
}

/* ---- going back ---------------------------------------------------------------------------------------------------------- */

/* Keys and values of the first n tokens at most are there. */
static void hold (EngSession *session, guint n)
{
  eng_session_forget_ahead (session);
  session->n_held = MIN (session->n_held, n);
  if (!eng_kv_sequence_reaches (&session->kv, session->n_held))
    session->n_held = 0;
  eng_kv_sequence_settle (&session->kv, session->n_held);
}

void eng_session_truncate (EngSession *session, guint n)
{
  session->n_past = MIN (session->n_past, n);
  if (session->n_past < session->n_held)
    hold (session, session->n_past);
}

/* ---- going on ------------------------------------------------------------------------------------------------------------ */

gboolean eng_session_check (const EngSession *session, const gint32 *tokens, guint n, GError **error)
{
  guint n_vocab = eng_model_traits (session->pool->model)->n_vocab;
  if (n > session->n_ctx - session->n_past) {
    g_set_error (error, ENG_ERROR, ENG_ERROR_MEMORY, "%u tokens do not fit after the %u that the context of %u holds", n,
                 session->n_past, session->n_ctx);
    return FALSE;
  }
  for (guint i = 0; i < n; i++)
    if (tokens[i] < 0 || (guint)tokens[i] >= n_vocab) {
      g_set_error (error, ENG_ERROR, ENG_ERROR_ARGUMENT, "token %d is outside the vocabulary of %u", tokens[i], n_vocab);
      return FALSE;
    }
  return TRUE;
}

void eng_session_append (EngSession *session, const gint32 *tokens, guint n)
{
  memcpy (session->tokens + session->n_past, tokens, n * sizeof *tokens);
  session->n_past += n;
  session->n_held = session->n_past;
  eng_session_forget_ahead (session);
}

/* Passes over tokens[n] at position n_past, a batch each. */
static gboolean run (EngSession *session, const gint32 *tokens, guint n, guint n_past, EngLogitsWanted wanted, GCancellable *cancellable,
                     GError **error)
{
  guint batch = eng_pool_batch (session->pool);
  for (guint done = 0, step; done < n; done += step) {
    step = MIN (n - done, batch);
    EngSlice slice = { &session->kv, tokens + done, step, n_past + done,
                       wanted == ENG_LOGITS_ALL ? ENG_LOGITS_ALL : done + step == n ? wanted : ENG_LOGITS_NONE };
    if (!eng_pool_pass (session->pool, &slice, 1, session->observer, session->observer_data, cancellable, error)) {
      hold (session, n_past);
      return FALSE;
    }
  }
  return TRUE;
}

gboolean eng_session_catch_up (EngSession *session, GCancellable *cancellable, GError **error)
{
  guint from = session->n_held, n = session->n_past - from;
  if (n > 0 && !run (session, session->tokens + from, n, from, ENG_LOGITS_NONE, cancellable, error))
    return FALSE;
  session->n_held = session->n_past;
  return TRUE;
}

/* The token was guessed, and computed with the one before it. */
static gboolean was_ahead (EngSession *session, gint32 token)
{
  if (session->n_ahead == 0 || session->ahead_pass != session->pool->n_passes || session->tokens[session->n_past] != token)
    return FALSE;
  eng_draft_accept (session->draft);
  session->n_ahead--;
  session->n_held = ++session->n_past;
  session->logits_row++;
  return TRUE;
}

/* The token, and what is guessed to follow it, in one pass. */
static gboolean run_ahead (EngSession *session, gint32 token, GCancellable *cancellable, GError **error)
{
  guint past = session->n_past, most = MIN (eng_draft_n_tokens (session->draft), eng_pool_batch (session->pool) - 1);
  gint32 *tokens = session->tokens + past;
  eng_session_forget_ahead (session);
  tokens[0] = token;
  guint guessed = eng_draft_guess (session->draft, session->tokens, past + 1, tokens + 1, MIN (most, session->n_ctx - past - 1));
  gint64 start = g_get_monotonic_time ();
  if (!run (session, tokens, 1 + guessed, past, guessed > 0 ? ENG_LOGITS_ALL : ENG_LOGITS_LAST, cancellable, error))
    return FALSE;
  eng_draft_took (session->draft, 1 + guessed, g_get_monotonic_time () - start);
  session->n_held = session->n_past = past + 1;
  session->n_ahead = guessed;
  session->ahead_pass = session->pool->n_passes;
  session->first_logits_row = session->logits_row = 0;
  return TRUE;
}

gboolean eng_session_eval (EngSession *session, const gint32 *tokens, guint n, gboolean all_logits, GCancellable *cancellable,
                           GError **error)
{
  guint batch = eng_pool_batch (session->pool);
  if (!eng_session_check (session, tokens, n, error))
    return FALSE;
  if (all_logits && n > batch) {
    g_set_error (error, ENG_ERROR, ENG_ERROR_ARGUMENT, "logits of %u tokens were asked for, but a batch is %u", n, batch);
    return FALSE;
  }
  gboolean drafts = n == 1 && !all_logits && session->draft != NULL && session->observer == NULL;
  if (drafts && was_ahead (session, tokens[0]))
    return TRUE;
  if (!eng_session_catch_up (session, cancellable, error))
    return FALSE;
  if (drafts)
    return run_ahead (session, tokens[0], cancellable, error);
  if (!run (session, tokens, n, session->n_past, all_logits ? ENG_LOGITS_ALL : ENG_LOGITS_LAST, cancellable, error))
    return FALSE;
  if (n > 0) {
    eng_session_append (session, tokens, n);
    session->first_logits_row = 0;
    session->logits_row = all_logits ? n - 1 : 0;
  }
  return TRUE;
}

/* ---- beginning ----------------------------------------------------------------------------------------------------------- */

static guint common (const gint32 *a, guint n_a, const gint32 *b, guint n_b)
{
  guint n = 0;
  while (n < n_a && n < n_b && a[n] == b[n])
    n++;
  return n;
}

/* The sequence of the pool, other than the session's own, that holds most of the beginning of tokens. */
static const EngKvSequence *best_of_others (EngSession *session, const gint32 *tokens, guint n, guint *most)
{
  const EngPool *pool = session->pool;
  const EngKvSequence *best = NULL;
  *most = 0;
  for (guint i = 0; i < pool->sessions->len; i++) {
    const EngSession *other = pool->sessions->pdata[i];
    guint shared = common (other->tokens, other->n_held, tokens, n);
    if (other != session && shared > *most && eng_kv_sequence_reaches (&other->kv, shared)) {
      *most = shared;
      best = &other->kv;
    }
  }
  for (const GList *item = pool->remembered.head; item != NULL; item = item->next) {
    const EngRemembered *other = item->data;
    guint shared = common (other->tokens, other->n, tokens, n);
    if (shared > *most && eng_kv_sequence_reaches (&other->kv, shared)) {
      *most = shared;
      best = &other->kv;
    }
  }
  return best;
}

guint eng_session_prepare (EngSession *session, const gint32 *tokens, guint n)
{
  eng_session_forget_ahead (session);
  n = MIN (n, session->n_ctx);
  guint own = common (session->tokens, session->n_held, tokens, n), others;
  const EngKvSequence *best = best_of_others (session, tokens, n, &others);
  own = eng_kv_sequence_reaches (&session->kv, own) ? own : 0;
  gboolean swaps = others >= own + WORTH_SWAPPING;
  if (session->n_held >= own + WORTH_KEEPING) {
    /* Whoever held most holds it still: remembered as the latest, after the others. */
    EngKvSequence beginning = { 0 };
    guint kept = swaps ? others : own;
    eng_kv_sequence_init (&beginning, &session->pool->kv, session->n_ctx);
    eng_kv_sequence_share (&beginning, swaps ? best : &session->kv, kept);
    eng_pool_remember (session->pool, session);
    eng_kv_sequence_clear (&session->kv);
    session->kv = beginning;
    session->n_held = kept;
  } else if (swaps) {
    eng_kv_sequence_settle (&session->kv, 0);
    eng_kv_sequence_share (&session->kv, best, others);
    session->n_held = others;
  } else {
    session->n_held = own;
    eng_kv_sequence_settle (&session->kv, own);
  }
  session->n_past = session->n_held;
  memcpy (session->tokens, tokens, session->n_held * sizeof *tokens);
  return session->n_past;
}
