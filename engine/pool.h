/* pool.h: one decoder and one pool of keys and values for several sessions: what a server runs on. A pass computes tokens of any of them
 * together (continuous batching, Yu et al. 2022, Orca), and sessions that begin alike hold the same pages.
 *
 *     EngSessionOptions options = { .n_ctx = 16384, .n_sessions = 4, .kv_bits = 8 };
 *     EngPool *pool = eng_pool_new (model, workers, &options, &error);
 *     EngSession *a = eng_pool_open (pool, 0, &error), *b = eng_pool_open (pool, 0, &error);
 *     guint held = eng_session_prepare (a, prompt, n_prompt);
 *     EngPart parts[] = { { a, prompt + held, n_prompt - held, ENG_LOGITS_LAST }, { b, &token, 1, ENG_LOGITS_LAST } };
 *     if (eng_pool_eval (pool, parts, 2, cancellable, &error))
 *       next = eng_sampler_sample (sampler_of_a, eng_session_logits (a), eng_session_tokens (a), eng_session_n_past (a));
 *
 * All calls on a pool and its sessions come from one thread at a time. eng_session_new is a pool of one session. */
#ifndef ENG_POOL_H
#define ENG_POOL_H

#include "engine/session.h"

typedef struct EngPool EngPool; /* reference counted: its sessions keep it */

/* options->n_ctx: positions of all sessions together; n_sessions: how many there may be at once; batch: most tokens of a pass. eng_memory_plan
 * with the same options says what it takes. */
EngPool *eng_pool_new (EngModel *model, EngWorkers *workers, const EngSessionOptions *options, GError **error);
EngPool *eng_pool_ref (EngPool *pool);
void eng_pool_unref (EngPool *pool);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (EngPool, eng_pool_unref)

/* A session of at most n_ctx tokens, 0: as many as the pool holds. Its positions are taken from the pool as it grows. NULL with
 * ENG_ERROR_BUSY when there are n_sessions already. */
EngSession *eng_pool_open (EngPool *pool, guint n_ctx, GError **error);
guint eng_pool_batch (const EngPool *pool);
/* Positions that sessions could still be given, in whole pages: what they share counts once, what ended sessions left behind counts as
 * free. */
guint eng_pool_n_free (const EngPool *pool);

/* What one session is given in a pass. */
typedef struct {
  EngSession *session;   /* each at most once in a pass */
  const gint32 *tokens;  /* [n], appended */
  guint n;               /* 1 or more */
  EngLogitsWanted wanted; /* NONE for all of a long prompt but its last piece */
} EngPart;

/* One pass over all parts, of at most eng_pool_batch tokens together. On success eng_session_logits of each is valid until the pool's next
 * pass. FALSE with ENG_ERROR_CANCELLED, or ENG_ERROR_MEMORY when the pool is full (end or truncate a session), or ENG_ERROR_ARGUMENT: every
 * session is then as before. */
gboolean eng_pool_eval (EngPool *pool, const EngPart *parts, guint n_parts, GCancellable *cancellable, GError **error);

#endif
