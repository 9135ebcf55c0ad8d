/* session.h: a sequence of tokens and its KV cache; the forward pass. One thread at a time per session. Nothing is allocated per token. */
#ifndef ENG_SESSION_H
#define ENG_SESSION_H

#include "engine/model.h"
#include "engine/workers.h"

typedef struct {
  guint n_ctx;          /* positions of KV */
  guint batch;          /* most tokens per pass, 0: 512 */
  int kv_bits;          /* 16, 8, 4 */
  int activation_bits;  /* 8 (default when 0), 4, or 32: the exact f32 path */
} EngSessionOptions;

typedef struct EngSession EngSession;
EngSession *eng_session_new (EngModel *model, EngWorkers *workers, const EngSessionOptions *options, GError **error);
void eng_session_free (EngSession *session);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (EngSession, eng_session_free)

EngModel *eng_session_model (const EngSession *session);
EngWorkers *eng_session_workers (const EngSession *session);
guint eng_session_n_past (const EngSession *session);
guint eng_session_n_ctx (const EngSession *session);
const gint32 *eng_session_tokens (const EngSession *session);
/* Forget positions from n on. */
void eng_session_truncate (EngSession *session, guint n);
/* Appends tokens. Logits of the last token are kept (eng_session_logits); with all_logits of every one of these n (n <= batch).
 * Cancel is looked at between layers: FALSE with ENG_ERROR_CANCELLED, and the session is as before the call. */
gboolean eng_session_eval (EngSession *session, const gint32 *tokens, guint n, gboolean all_logits, GCancellable *cancellable, GError **error);
/* [n_vocab] of the last token; or of token i of the last eval when all_logits. Valid until the next eval. */
float *eng_session_logits (EngSession *session);
float *eng_session_logits_at (EngSession *session, guint i);

/* Observation, for the quantizer: called before each product with the n inputs x[n][cols] as the matrix's row-space sees them
 * (before its own input pipeline). Runs on the calling thread. */
typedef void (*EngObserver) (gpointer data, const EngMatrix *matrix, const float *x, gsize ldx, guint n);
void eng_session_set_observer (EngSession *session, EngObserver observer, gpointer data);

#endif
