/* workers.h: the engine's own threads. A pool of n workers (the caller is one of them) runs one function over a range of units,
 * split statically first, the rest stolen in small pieces; workers spin briefly, then sleep. Respects affinity and cgroup limits
 * when n is 0. One caller at a time. */
#ifndef ENG_WORKERS_H
#define ENG_WORKERS_H

#include <glib.h>

typedef struct EngWorkers EngWorkers;
/* Runs units begin..end-1; worker is 0..n-1 (for per-worker scratch). */
typedef void (*EngWork) (gpointer data, guint begin, guint end, guint worker);

/* n_threads 0: one per CPU this process may use (affinity, cgroup quota). */
EngWorkers *eng_workers_new (guint n_threads);
void eng_workers_free (EngWorkers *workers);
guint eng_workers_count (const EngWorkers *workers);
guint eng_workers_default_count (void);
/* Returns when every unit is done. grain: units taken at a time at least. */
void eng_workers_run (EngWorkers *workers, EngWork work, gpointer data, guint n_units, guint grain);

G_DEFINE_AUTOPTR_CLEANUP_FUNC (EngWorkers, eng_workers_free)
#endif
