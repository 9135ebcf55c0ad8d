/* memory_plan.h: what a chat will need, computed from the header alone before anything is loaded. */
#ifndef ENG_MEMORY_PLAN_H
#define ENG_MEMORY_PLAN_H

#include "engine/session.h"

typedef struct {
  guint64 weights_bytes;  /* mapped file */
  guint64 kv_bytes;
  guint64 scratch_bytes;  /* activations, logits, tables */
  guint64 program_bytes;  /* the program that asks, vocabulary and libraries included */
  guint64 total_bytes;
} EngMemoryPlan;

/* program_base_bytes: resident size of the asking program without a model (a terminal, a window). weights_bytes 0: the file's. */
void eng_memory_plan (EngMemoryPlan *plan, const EngTraits *traits, guint64 weights_bytes, const EngSessionOptions *options,
                      guint n_threads, guint64 program_base_bytes);
/* VmHWM / VmRSS of this process, bytes; MemTotal, MemAvailable of the machine capped by the cgroup's limit. */
guint64 eng_memory_peak_rss (void);
guint64 eng_memory_rss (void);
void eng_memory_machine (guint64 *total_bytes, guint64 *available_bytes);

#endif
