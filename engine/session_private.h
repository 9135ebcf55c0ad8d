/* session_private.h: what a session and its pool know of each other. */
#ifndef ENG_SESSION_PRIVATE_H
#define ENG_SESSION_PRIVATE_H

#include "engine/decoder.h"
#include "engine/draft.h"
#include "engine/kv_cache.h"
#include "engine/pool.h"

enum { ENG_MAX_REMEMBERED = 8 };

struct EngSession {
  EngPool *pool;
  EngKvSequence kv;
  guint n_ctx, n_past;
  guint n_held;     /* of the n_past tokens, those whose keys and values are there: the others are computed before what comes next */
  guint logits_row; /* of the last token */
  guint first_logits_row;
  gint32 *tokens;   /* [n_ctx] */
  EngObserver observer;
  gpointer observer_data;
  EngDraft *draft;  /* or NULL */
  guint n_ahead;    /* guesses of the last pass that may still come true: they stand in tokens and pages behind n_past ... */
  guint64 ahead_pass; /* ... as long as this was the pool's last pass */
};

/* What a sequence held that nobody goes on with. */
typedef struct {
  EngKvSequence kv;
  guint n;
  gint32 tokens[];
} EngRemembered;

struct EngPool {
  int references;
  EngModel *model;
  EngWorkers *workers;
  EngDecoder *decoder;
  EngSessionOptions options;
  EngKvPool kv;
  GPtrArray *sessions; /* EngSession *, not owned */
  guint64 n_passes;
  EngSlice *slices;    /* [n_sessions] of the pass */
  GQueue remembered;   /* EngRemembered *, the latest first */
};

static inline void eng_session_forget_ahead (EngSession *session)
{
  session->n_ahead = 0;
}

void eng_pool_close (EngPool *pool, EngSession *session);
/* Keeps what the session holds, for whoever begins alike. The session is empty then. */
void eng_pool_remember (EngPool *pool, EngSession *session);
/* One pass; makes room by forgetting. The sequences of slices are extended first, and settled where it succeeds. */
gboolean eng_pool_pass (EngPool *pool, EngSlice *slices, guint n_slices, EngObserver observer, gpointer observer_data,
                        GCancellable *cancellable, GError **error);
/* Forgets until there are so many blocks of each kind. */
gboolean eng_pool_make_room (EngPool *pool, const guint need[ENG_KV_KINDS], GError **error);
/* Computes the tokens of the session that are not held. */
gboolean eng_session_catch_up (EngSession *session, GCancellable *cancellable, GError **error);
/* Whether n tokens could be appended, for their number and their values. */
gboolean eng_session_check (const EngSession *session, const gint32 *tokens, guint n, GError **error);
/* tokens[n] have been computed after what the session held. */
void eng_session_append (EngSession *session, const gint32 *tokens, guint n);

#endif
