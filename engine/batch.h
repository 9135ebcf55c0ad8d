/* batch.h: many answers at once out of one pool: a queue, and a thread that gives each pass a token of every answer that is being written and as
 * much of the prompts that wait as there is room for (continuous batching, Yu et al. 2022, Orca). */
#ifndef ENG_BATCH_H
#define ENG_BATCH_H

#include "engine/answer.h"
#include "engine/pool.h"

typedef struct {
  guint prompt_tokens, reused_tokens, generated_tokens;
  const char *finish_reason; /* "stop", "length", "cancelled"; NULL: failed */
} EngBatchStats;

/* Called once for each answer, after its last text; error NULL: none. */
typedef void (*EngDoneFunc) (const EngBatchStats *stats, const GError *error, gpointer data);

typedef struct EngBatch EngBatch;
typedef struct EngTicket EngTicket; /* an answer that was asked for; reference counted */

/* options->n_ctx: tokens of each answer with its prompt, options->n_sessions: answers at once, n_waiting: how many more may wait. */
EngBatch *eng_batch_new (EngModel *model, EngWorkers *workers, const EngSessionOptions *options, guint n_waiting, GError **error);
/* Ends every answer as cancelled and waits for the thread. */
void eng_batch_free (EngBatch *batch);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (EngBatch, eng_batch_free)
guint eng_batch_n_ctx (const EngBatch *batch);

/* Any thread. What options point to must stay until `done` was called; text and done are called on the batch's own thread. NULL with ENG_ERROR_BUSY when too many
 * wait, ENG_ERROR_MEMORY when the prompt leaves no room for an answer. */
EngTicket *eng_batch_ask (EngBatch *batch, GArray *prompt, const EngAnswerOptions *options, EngTextFunc text, EngDoneFunc done, gpointer data, GError **error);
/* Any thread, at any time: the answer ends soon, as cancelled, if it has not ended. */
void eng_ticket_cancel (EngTicket *ticket);
void eng_ticket_unref (EngTicket *ticket);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (EngTicket, eng_ticket_unref)

#endif
