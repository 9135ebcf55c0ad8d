/* batch.c: the thread that computes. Answers are admitted in the order in which they were asked for; each has a session of the pool while it is written. */
#include "engine/batch.h"

#include "engine/error.h"

#include <string.h>

struct EngTicket {
  gatomicrefcount refs;
  gint cancelled; /* atomic */
  GArray *prompt; /* of gint32 */
  EngAnswerOptions options;
  EngTextFunc text;
  EngDoneFunc done;
  gpointer data;
  EngBatchStats stats;
  EngSession *session; /* while it is written */
  EngAnswer *answer;
  guint fed;           /* tokens of the prompt that were computed */
  gint32 token;        /* drawn, and to be computed next */
};

struct EngBatch {
  EngModel *model;
  EngPool *pool;
  guint n_ctx, n_waiting;
  GThread *thread;
  GCancellable *quit;
  GMutex mutex;
  GCond cond;
  GQueue waiting;     /* of EngTicket; with the mutex */
  GPtrArray *writing; /* of EngTicket; the thread's */
  GArray *parts;      /* of EngPart; the thread's */
};

/* ---- tickets -------------------------------------------------------------------------------------------------------------- */

void eng_ticket_unref (EngTicket *ticket)
{
  if (ticket == NULL || !g_atomic_ref_count_dec (&ticket->refs))
    return;
  g_array_unref (ticket->prompt);
  g_free (ticket);
}

void eng_ticket_cancel (EngTicket *ticket)
{
  g_atomic_int_set (&ticket->cancelled, TRUE);
}

/* Its last words, then the end. */
static void end_ticket (EngTicket *ticket, const char *finish_reason, const GError *error)
{
  if (ticket->answer != NULL && error == NULL)
    eng_answer_end (ticket->answer);
  ticket->stats.generated_tokens = ticket->answer != NULL ? eng_answer_n_tokens (ticket->answer) : 0;
  ticket->stats.finish_reason = error == NULL ? finish_reason : NULL;
  g_clear_pointer (&ticket->answer, eng_answer_free);
  g_clear_pointer (&ticket->session, eng_session_free);
  ticket->done (&ticket->stats, error, ticket->data);
  eng_ticket_unref (ticket);
}

/* ---- the thread ----------------------------------------------------------------------------------------------------------- */

/* Waits for work; FALSE: to end. */
static gboolean take_waiting (EngBatch *b, GQueue *admitted)
{
  guint n_sessions = b->writing->len;
  g_mutex_lock (&b->mutex);
  while (n_sessions == 0 && g_queue_is_empty (&b->waiting) && !g_cancellable_is_cancelled (b->quit))
    g_cond_wait (&b->cond, &b->mutex);
  g_queue_init (admitted);
  for (EngTicket *ticket; (ticket = g_queue_pop_head (&b->waiting)) != NULL;)
    g_queue_push_tail (admitted, ticket);
  g_mutex_unlock (&b->mutex);
  return !g_cancellable_is_cancelled (b->quit);
}

static void put_back (EngBatch *b, EngTicket *ticket)
{
  g_mutex_lock (&b->mutex);
  g_queue_push_head (&b->waiting, ticket);
  g_mutex_unlock (&b->mutex);
}

/* FALSE: there is no session for it yet. */
static gboolean begin (EngBatch *b, EngTicket *ticket)
{
  g_autoptr (GError) failure = NULL;
  ticket->session = eng_pool_open (b->pool, b->n_ctx, &failure);
  if (g_error_matches (failure, ENG_ERROR, ENG_ERROR_BUSY))
    return FALSE;
  if (failure != NULL) {
    end_ticket (ticket, NULL, failure);
    return TRUE;
  }
  ticket->fed = eng_session_prepare (ticket->session, (const gint32 *) (gpointer) ticket->prompt->data, ticket->prompt->len - 1);
  ticket->stats.reused_tokens = ticket->fed;
  ticket->answer = eng_answer_new (b->model, &ticket->options, ticket->text, ticket->data);
  g_ptr_array_add (b->writing, ticket);
  return TRUE;
}

static void admit (EngBatch *b, GQueue *admitted)
{
  gboolean full = FALSE;
  g_autoptr (GPtrArray) left = g_ptr_array_new ();
  for (EngTicket *ticket; (ticket = g_queue_pop_head (admitted)) != NULL;) {
    if (g_atomic_int_get (&ticket->cancelled))
      end_ticket (ticket, "cancelled", NULL);
    else if (full || !begin (b, ticket)) {
      full = TRUE;
      g_ptr_array_add (left, ticket);
    }
  }
  for (guint i = left->len; i > 0; i--)
    put_back (b, g_ptr_array_index (left, i - 1));
}

static void drop_cancelled (EngBatch *b)
{
  for (guint i = b->writing->len; i > 0; i--) {
    EngTicket *ticket = g_ptr_array_index (b->writing, i - 1);
    if (g_atomic_int_get (&ticket->cancelled)) {
      g_ptr_array_remove_index (b->writing, i - 1);
      end_ticket (ticket, "cancelled", NULL);
    }
  }
}

/* A token of each answer that has begun; prompts share the rest. */
static void plan_pass (EngBatch *b)
{
  guint room = eng_pool_batch (b->pool);
  g_array_set_size (b->parts, 0);
  for (int prompts = 0; prompts < 2; prompts++)
    for (guint i = 0; i < b->writing->len && room > 0; i++) {
      EngTicket *ticket = g_ptr_array_index (b->writing, i);
      gboolean reading = ticket->fed < ticket->prompt->len;
      if (reading != prompts)
        continue;
      guint n = reading ? MIN (room, ticket->prompt->len - ticket->fed) : 1;
      gboolean whole = !reading || ticket->fed + n == ticket->prompt->len;
      EngPart part = { ticket->session, reading ? (const gint32 *) (gpointer) ticket->prompt->data + ticket->fed : &ticket->token, n,
                       whole ? ENG_LOGITS_LAST : ENG_LOGITS_NONE };
      g_array_append_val (b->parts, part);
      room -= n;
    }
}

/* What became of a ticket in the pass. FALSE: it is over. */
static gboolean go_on (EngTicket *ticket, const EngPart *part)
{
  g_autoptr (GError) failure = NULL;
  if (ticket->fed < ticket->prompt->len)
    ticket->fed += part->n;
  if (part->wanted == ENG_LOGITS_NONE || eng_answer_next (ticket->answer, ticket->session, &ticket->token, &failure))
    return TRUE;
  end_ticket (ticket, eng_answer_finish_reason (ticket->answer), failure);
  return FALSE;
}

static void run_pass (EngBatch *b)
{
  g_autoptr (GError) failure = NULL;
  plan_pass (b);
  gboolean ok = eng_pool_eval (b->pool, (const EngPart *) (gpointer) b->parts->data, b->parts->len, b->quit, &failure);
  for (guint i = b->writing->len; i > 0; i--) {
    EngTicket *ticket = g_ptr_array_index (b->writing, i - 1);
    const EngPart *part = NULL;
    for (guint k = 0; k < b->parts->len && part == NULL; k++)
      if (g_array_index (b->parts, EngPart, k).session == ticket->session)
        part = &g_array_index (b->parts, EngPart, k);
    if (part == NULL || (ok && go_on (ticket, part)))
      continue;
    g_ptr_array_remove_index (b->writing, i - 1);
    if (!ok)
      end_ticket (ticket, "cancelled", g_error_matches (failure, ENG_ERROR, ENG_ERROR_CANCELLED) ? NULL : failure);
  }
}

static gpointer work (gpointer data)
{
  EngBatch *b = data;
  GQueue admitted;
  while (take_waiting (b, &admitted)) {
    admit (b, &admitted);
    drop_cancelled (b);
    if (b->writing->len > 0)
      run_pass (b);
  }
  for (EngTicket *ticket; (ticket = g_queue_pop_head (&admitted)) != NULL;)
    end_ticket (ticket, "cancelled", NULL);
  for (guint i = 0; i < b->writing->len; i++)
    end_ticket (g_ptr_array_index (b->writing, i), "cancelled", NULL);
  g_ptr_array_set_size (b->writing, 0);
  return NULL;
}

/* ---- the public part ------------------------------------------------------------------------------------------------------ */

EngBatch *eng_batch_new (EngModel *model, EngWorkers *workers, const EngSessionOptions *options, guint n_waiting, GError **error)
{
  EngSessionOptions all = *options;
  all.n_sessions = MAX (options->n_sessions, 1);
  all.n_ctx = (options->n_ctx + 31) / 32 * 32 * all.n_sessions; /* a session's positions come in whole pages */
  g_autoptr (EngPool) pool = eng_pool_new (model, workers, &all, error);
  if (pool == NULL)
    return NULL;
  EngBatch *b = g_new0 (EngBatch, 1);
  b->model = eng_model_ref (model);
  b->pool = g_steal_pointer (&pool);
  b->n_ctx = options->n_ctx;
  b->n_waiting = n_waiting;
  b->quit = g_cancellable_new ();
  b->writing = g_ptr_array_new ();
  b->parts = g_array_new (FALSE, FALSE, sizeof (EngPart));
  g_mutex_init (&b->mutex);
  g_cond_init (&b->cond);
  g_queue_init (&b->waiting);
  b->thread = g_thread_new ("batch", work, b);
  return b;
}

void eng_batch_free (EngBatch *b)
{
  if (b == NULL)
    return;
  g_mutex_lock (&b->mutex);
  g_cancellable_cancel (b->quit);
  g_cond_signal (&b->cond);
  g_mutex_unlock (&b->mutex);
  g_thread_join (b->thread);
  eng_pool_unref (b->pool);
  eng_model_unref (b->model);
  g_object_unref (b->quit);
  g_ptr_array_unref (b->writing);
  g_array_unref (b->parts);
  g_mutex_clear (&b->mutex);
  g_cond_clear (&b->cond);
  g_free (b);
}

guint eng_batch_n_ctx (const EngBatch *b)
{
  return b->n_ctx;
}

EngTicket *eng_batch_ask (EngBatch *b, GArray *prompt, const EngAnswerOptions *options, EngTextFunc text, EngDoneFunc done, gpointer data, GError **error)
{
  if (prompt->len == 0) {
    g_set_error_literal (error, ENG_ERROR, ENG_ERROR_ARGUMENT, "the prompt is empty: say something");
    return NULL;
  }
  if (prompt->len >= b->n_ctx) {
    g_set_error (error, ENG_ERROR, ENG_ERROR_MEMORY, "the prompt takes %u tokens, but the context holds %u with the answer: shorten it or serve a longer context",
                 prompt->len, b->n_ctx);
    return NULL;
  }
  EngTicket *ticket = g_new0 (EngTicket, 1);
  g_atomic_ref_count_init (&ticket->refs);
  ticket->prompt = g_array_ref (prompt);
  ticket->options = *options;
  ticket->text = text;
  ticket->done = done;
  ticket->data = data;
  ticket->stats.prompt_tokens = prompt->len;
  g_mutex_lock (&b->mutex);
  gboolean full = g_queue_get_length (&b->waiting) >= b->n_waiting;
  if (!full) {
    g_atomic_ref_count_inc (&ticket->refs); /* the queue's */
    g_queue_push_tail (&b->waiting, ticket);
    g_cond_signal (&b->cond);
  }
  g_mutex_unlock (&b->mutex);
  if (!full)
    return ticket;
  eng_ticket_unref (ticket);
  g_set_error (error, ENG_ERROR, ENG_ERROR_BUSY, "%u answers wait already: ask again later", b->n_waiting);
  return NULL;
}
