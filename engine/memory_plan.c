/* memory_plan.c: the sum of what a chat maps and allocates, from the very functions that lay it out. */
#include "engine/memory_plan.h"
#include "engine/cgroup.h"
#include "engine/decoder.h"
#include "engine/session_private.h"

#include <string.h>

/* Measured over the vocabularies of six families (docs/architecture.md): the tokenizer's tables take 26 bytes a token and 18 to 27 a merge, the index of
 * metadata half a byte of each, and the sampler 16 bytes a token. The rest is tensors' places, the template, and code that only a chat touches. */
#define VOCABULARY_BYTES_PER_TOKEN 44
#define VOCABULARY_BYTES_PER_MERGE 28
#define MODEL_BYTES (1920 * 1024)
#define STACK_BYTES_PER_THREAD (64 * 1024)

void eng_memory_plan (EngMemoryPlan *plan, const EngTraits *traits, guint64 weights_bytes, const EngSessionOptions *options,
                      guint n_threads, guint64 program_base_bytes)
{
  EngScratchLayout scratch;
  EngSessionOptions o = *options;
  EngTraits t = *traits;
  t.raw = t.raw && weights_bytes == 0; /* a fit of them is packed */
  o.activation_bits = o.activation_bits == 0 ? 8 : o.activation_bits;
  o.kv_bits = o.kv_bits == 0 ? 16 : o.kv_bits;
  n_threads = n_threads > 0 ? n_threads : eng_workers_default_count ();
  eng_scratch_layout (&scratch, &t, &o, n_threads);
  plan->weights_bytes = weights_bytes > 0 ? weights_bytes : traits->file_bytes;
  plan->kv_bytes = eng_kv_pool_bytes (traits, &o);
  plan->scratch_bytes = scratch.bytes + (guint64)(MAX (o.n_sessions, 1) + ENG_MAX_REMEMBERED) * o.n_ctx * sizeof (gint32);
  plan->program_bytes = program_base_bytes + MODEL_BYTES + (guint64)traits->n_vocab * VOCABULARY_BYTES_PER_TOKEN
                        + (guint64)traits->n_merges * VOCABULARY_BYTES_PER_MERGE
                        + (guint64)n_threads * STACK_BYTES_PER_THREAD;
  plan->total_bytes = plan->weights_bytes + plan->kv_bytes + plan->scratch_bytes + plan->program_bytes;
}

/* ---- measuring ----------------------------------------------------------------------------------------------------------- */

/* A line "Name:  123 kB" of a file under /proc, in bytes; 0 if absent. */
static guint64 proc_bytes (const char *path, const char *name)
{
  g_autofree char *text = NULL;
  if (!g_file_get_contents (path, &text, NULL, NULL))
    return 0;
  for (const char *line = text; line != NULL; line = strchr (line, '\n')) {
    line += *line == '\n';
    if (g_str_has_prefix (line, name) && line[strlen (name)] == ':')
      return g_ascii_strtoull (line + strlen (name) + 1, NULL, 10) * 1024;
  }
  return 0;
}

guint64 eng_memory_peak_rss (void)
{
  return proc_bytes ("/proc/self/status", "VmHWM");
}

guint64 eng_memory_rss (void)
{
  return proc_bytes ("/proc/self/status", "VmRSS");
}

void eng_memory_machine (guint64 *total_bytes, guint64 *available_bytes)
{
  guint64 limit, left;
  *total_bytes = proc_bytes ("/proc/meminfo", "MemTotal");
  *available_bytes = proc_bytes ("/proc/meminfo", "MemAvailable");
  if (eng_cgroup_memory (&limit, &left)) {
    *total_bytes = MIN (*total_bytes, limit);
    *available_bytes = MIN (*available_bytes, left);
  }
}
