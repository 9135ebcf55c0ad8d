/* runner.h: a loaded model and its session on a worker thread of its own, for a main loop. Methods are called on the main thread and
 * return at once; signals arrive on the main context, text at most every 16 ms. One generation at a time. */
#ifndef VALISE_RUNNER_H
#define VALISE_RUNNER_H

#include "app/library/library.h"
#include "engine/generate.h"

G_BEGIN_DECLS

typedef enum { VALISE_RUNNER_EMPTY, VALISE_RUNNER_LOADING, VALISE_RUNNER_READY, VALISE_RUNNER_GENERATING } ValiseRunnerState;

#define VALISE_TYPE_RUNNER (valise_runner_get_type ())
G_DECLARE_FINAL_TYPE (ValiseRunner, valise_runner, VALISE, RUNNER, GObject)
/* Properties: "state" (int), "model" (ValiseModel). Signals: "loading" (double fraction, string what), "loaded" (), "text" (string),
 * "finished" (pointer to EngGenerateStats), "failed" (string: one sentence). */

ValiseRunner *valise_runner_new (ValiseLibrary *library);
/* Loads (or reloads, if model, context or kv differ). Cancels what is running. */
void valise_runner_load (ValiseRunner *runner, ValiseModel *model, guint context, int kv_bits);
/* Threads that compute from the next load on; 0: every processor this program may use. */
void valise_runner_set_threads (ValiseRunner *runner, guint threads);
void valise_runner_unload (ValiseRunner *runner);
ValiseRunnerState valise_runner_get_state (ValiseRunner *runner);
ValiseModel *valise_runner_get_model (ValiseRunner *runner); /* borrowed, NULL when empty */
/* messages: array of {role, content}; waits for the load if it is under way. sampling: ENG_SAMPLER_DEFAULTS (but for the seed) stand for what the model's makers
 * advise, where they do. */
void valise_runner_generate (ValiseRunner *runner, JsonArray *messages, const EngSamplerOptions *sampling, guint max_tokens);
/* That advice for the loaded model, else Valise's own. */
EngSamplerOptions valise_runner_get_advice (ValiseRunner *runner);
void valise_runner_stop (ValiseRunner *runner); /* within one token; "finished" follows with "cancelled" */
/* The engine's model, to be computed with by others as well (a reference), with the context and depth it was opened with; NULL when nothing is loaded. Whoever holds it on
 * holds its memory. */
EngModel *valise_runner_ref_engine (ValiseRunner *runner, guint *context, int *kv_bits);
/* The plan of what is loaded, context used and size (0 when nothing is loaded). */
gboolean valise_runner_get_plan (ValiseRunner *runner, EngMemoryPlan *plan, guint *context_used, guint *context_size);

G_END_DECLS
#endif
