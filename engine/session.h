/* session.h: a sequence of tokens with its keys and values; the forward pass. Nothing is allocated per token. A session of its own is one
 * thread's at a time; sessions of one pool (pool.h) are one thread's together. */
#ifndef ENG_SESSION_H
#define ENG_SESSION_H

#include "engine/model.h"
#include "engine/workers.h"

typedef struct {
  guint n_ctx;          /* positions of KV */
  guint batch;          /* most tokens per pass, 0: 512 */
  int kv_bits;          /* 16, 8, 4 */
  int activation_bits;  /* 8 (default when 0), 4, or 32: the exact f32 path */
  guint n_sessions;     /* of a pool: how many share it; 0: 1 */
  guint n_drafted;      /* tokens guessed ahead at most (draft.h), 0: none */
} EngSessionOptions;

typedef enum { ENG_LOGITS_NONE, ENG_LOGITS_LAST, ENG_LOGITS_ALL } EngLogitsWanted;

typedef struct EngSession EngSession;
EngSession *eng_session_new (EngModel *model, EngWorkers *workers, const EngSessionOptions *options, GError **error);
void eng_session_free (EngSession *session);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (EngSession, eng_session_free)

EngModel *eng_session_model (const EngSession *session);
EngWorkers *eng_session_workers (const EngSession *session);
guint eng_session_n_past (const EngSession *session);
guint eng_session_n_ctx (const EngSession *session);
const gint32 *eng_session_tokens (const EngSession *session);
/* Forget positions from n on. Where layers with a window have moved on too far to go back, what is left is computed again by the next eval. */
void eng_session_truncate (EngSession *session, guint n);
/* Makes the session hold the longest beginning of tokens[n] that is known without computing: its own, or that of a session of the same pool,
 * or of one that was there before (kept while its pages are not needed). Returns how many tokens that is: eval the others. */
guint eng_session_prepare (EngSession *session, const gint32 *tokens, guint n);
/* The same for a prompt that lacks a stretch of what the session holds, as when a conversation's oldest turns were left out to make room: with
 * keys of 16 bits what comes after it moves up, keys turned to their new positions, while values still remember the stretch. With fewer
 * bits it is computed again, from the text. */
guint eng_session_prepare_shifted (EngSession *session, const gint32 *tokens, guint n);
/* Appends tokens. Logits of the last token are kept (eng_session_logits); with all_logits of every one of these n (n <= batch).
 * Cancel is looked at between layers: FALSE with ENG_ERROR_CANCELLED, and the session is as before the call. */
gboolean eng_session_eval (EngSession *session, const gint32 *tokens, guint n, gboolean all_logits, GCancellable *cancellable, GError **error);
/* [n_vocab] of the last token; or of token i of the last eval when all_logits. Valid until the next eval. */
float *eng_session_logits (EngSession *session);
float *eng_session_logits_at (EngSession *session, guint i);

/* From now on the draft (draft.h), which is taken over, guesses what eng_session_eval is given next, one token at a time: a guess that comes
 * true has been computed together with the token before it. NULL: no more. */
struct EngDraft;
void eng_session_set_draft (EngSession *session, struct EngDraft *draft);

/* The session's tokens, keys and values to a file, which is there whole or not at all; and back from it: what the session held before is gone then. With them goes
 * a note, any text (or NULL), such as the conversation that the tokens are made of; restored, it is to be freed with g_free.
 * Refused where the file is of another model or KV depth, damaged, or too long for the context; the session is then as before, or, where its
 * pool is full, empty. */
gboolean eng_session_save (EngSession *session, const char *note, const char *path, GError **error);
gboolean eng_session_restore (EngSession *session, char **note, const char *path, GError **error);

/* Observation, for the quantizer: called before each product with the n inputs x[n][cols] as the matrix's row-space sees them
 * (before its own input pipeline). Runs on the calling thread. */
typedef void (*EngObserver) (gpointer data, const EngMatrix *matrix, const float *x, gsize ldx, guint n);
void eng_session_set_observer (EngSession *session, EngObserver observer, gpointer data);

#endif
