/* workers.c: the engine's threads. Each worker owns a range of units that it eats from the front; whoever runs dry steals from
 * the back of another's. A run ends when every unit is done, so a worker that was asleep or descheduled delays nobody. */
#include "engine/workers.h"
#include "engine/cgroup.h"

#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define SPIN_US 150 /* how long an idle worker spins before it sleeps: longer than the gaps inside a token */
#define STACK_BYTES (2 * 1024 * 1024) /* address space; what is touched is far less */

/* A range of units, begin in the low half, end in the high half of one word: taken from with a compare and swap. */
typedef struct {
  _Alignas(64) _Atomic guint64 range;
} WorkerRange;

struct EngWorkers {
  guint n;
  guint n_started;
  pthread_t *threads;
  WorkerRange *ranges;

  /* The job. Written before the ranges are published, read only by whoever has taken a piece of one. */
  EngWork work;
  gpointer data;
  guint grain;

  _Alignas(64) _Atomic guint32 generation; /* futex: counts jobs */
  _Atomic guint32 sleepers;
  _Atomic guint32 quit;
  _Alignas(64) _Atomic guint32 remaining; /* futex: units of this job not yet done */
  _Atomic guint32 caller_sleeps;
};

typedef struct {
  EngWorkers *workers;
  guint index;
} WorkerStart;

static void relax (void)
{
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause ();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

static void futex_wait (_Atomic guint32 *word, guint32 value)
{
  syscall (SYS_futex, word, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
}

static void futex_wake (_Atomic guint32 *word, int n)
{
  syscall (SYS_futex, word, FUTEX_WAKE_PRIVATE, n, NULL, NULL, 0);
}

static guint64 range_pack (guint begin, guint end)
{
  return (guint64)begin | (guint64)end << 32;
}

/* Takes half of what is left (at least `grain`) from the front, or from the back when stealing. */
static gboolean range_take (WorkerRange *range, guint grain, gboolean steal, guint *begin, guint *end)
{
  guint64 old = atomic_load_explicit (&range->range, memory_order_relaxed);
  for (;;) {
    guint b = (guint32)old, e = old >> 32;
    if (b >= e)
      return FALSE;
    guint n = MIN (e - b, MAX (grain, (e - b + 1) / 2));
    guint64 new = steal ? range_pack (b, e - n) : range_pack (b + n, e);
    if (atomic_compare_exchange_weak_explicit (&range->range, &old, new, memory_order_acq_rel, memory_order_relaxed)) {
      *begin = steal ? e - n : b;
      *end = *begin + n;
      return TRUE;
    }
  }
}

/* Runs pieces until there are none left anywhere. Having taken a piece proves that the job's fields are this job's. */
static void work_until_dry (EngWorkers *workers, guint index)
{
  for (guint i = 0; i < workers->n; i++) {
    WorkerRange *range = &workers->ranges[(index + i) % workers->n];
    guint begin, end;
    /* The grain read here may be an old job's; it only steers the size of the piece. */
    while (range_take (range, __atomic_load_n (&workers->grain, __ATOMIC_RELAXED), i > 0, &begin, &end)) {
      workers->work (workers->data, begin, end, index);
      guint32 n = end - begin;
      if (atomic_fetch_sub (&workers->remaining, n) == n && atomic_load (&workers->caller_sleeps))
        futex_wake (&workers->remaining, 1);
    }
  }
}

static gboolean spin_until_changed (_Atomic guint32 *word, guint32 value)
{
  gint64 deadline = 0;
  for (guint i = 0;; i++) {
    if (atomic_load_explicit (word, memory_order_acquire) != value)
      return TRUE;
    relax ();
    if (i % 256 == 255) {
      gint64 now = g_get_monotonic_time ();
      if (deadline == 0)
        deadline = now + SPIN_US;
      else if (now > deadline)
        return FALSE;
    }
  }
}

static void *worker_main (void *pointer)
{
  WorkerStart start = *(WorkerStart *)pointer;
  EngWorkers *workers = start.workers;
  free (pointer);
  guint32 seen = 0;
  for (;;) {
    if (!spin_until_changed (&workers->generation, seen)) {
      atomic_fetch_add (&workers->sleepers, 1);
      while (atomic_load (&workers->generation) == seen)
        futex_wait (&workers->generation, seen);
      atomic_fetch_sub (&workers->sleepers, 1);
    }
    seen = atomic_load_explicit (&workers->generation, memory_order_acquire);
    if (atomic_load (&workers->quit))
      return NULL;
    work_until_dry (workers, start.index);
  }
}

static gboolean start_thread (EngWorkers *workers, guint index)
{
  WorkerStart *start = malloc (sizeof *start);
  pthread_attr_t attributes;
  gboolean ok = FALSE;
  if (start == NULL)
    return FALSE;
  *start = (WorkerStart){ workers, index };
  if (pthread_attr_init (&attributes) == 0) {
    pthread_attr_setstacksize (&attributes, STACK_BYTES);
    ok = pthread_create (&workers->threads[index], &attributes, worker_main, start) == 0;
    pthread_attr_destroy (&attributes);
  }
  if (!ok)
    free (start);
  return ok;
}

EngWorkers *eng_workers_new (guint n_threads)
{
  guint n = CLAMP (n_threads != 0 ? n_threads : eng_workers_default_count (), 1, 1024);
  EngWorkers *workers = NULL;
  if (posix_memalign ((void **)&workers, 64, sizeof *workers) != 0)
    g_error ("out of memory for the worker threads");
  memset (workers, 0, sizeof *workers);
  workers->threads = g_new0 (pthread_t, n);
  if (posix_memalign ((void **)&workers->ranges, 64, n * sizeof *workers->ranges) != 0)
    g_error ("out of memory for the worker threads");
  memset (workers->ranges, 0, n * sizeof *workers->ranges);

  /* Signals belong to the program's own threads. */
  sigset_t all, before;
  sigfillset (&all);
  pthread_sigmask (SIG_SETMASK, &all, &before);
  /* Where the system allows fewer threads, the units of those that could not start are stolen by the others. */
  workers->n = n;
  workers->n_started = 1;
  while (workers->n_started < n && start_thread (workers, workers->n_started))
    workers->n_started++;
  pthread_sigmask (SIG_SETMASK, &before, NULL);
  return workers;
}

void eng_workers_free (EngWorkers *workers)
{
  if (workers == NULL)
    return;
  atomic_store (&workers->quit, 1);
  atomic_fetch_add (&workers->generation, 1);
  futex_wake (&workers->generation, G_MAXINT);
  for (guint i = 1; i < workers->n_started; i++)
    pthread_join (workers->threads[i], NULL);
  g_free (workers->threads);
  free (workers->ranges);
  free (workers);
}

guint eng_workers_count (const EngWorkers *workers)
{
  return workers->n;
}

static void wait_for_the_others (EngWorkers *workers)
{
  for (;;) {
    guint32 left = atomic_load_explicit (&workers->remaining, memory_order_acquire);
    if (left == 0)
      return;
    if (spin_until_changed (&workers->remaining, left))
      continue;
    atomic_store (&workers->caller_sleeps, 1);
    left = atomic_load (&workers->remaining);
    if (left != 0)
      futex_wait (&workers->remaining, left);
    atomic_store (&workers->caller_sleeps, 0);
  }
}

void eng_workers_run (EngWorkers *workers, EngWork work, gpointer data, guint n_units, guint grain)
{
  grain = MAX (grain, 1);
  if (n_units == 0)
    return;
  if (workers->n_started == 1 || n_units <= grain) {
    work (data, 0, n_units, 0);
    return;
  }
  workers->work = work;
  workers->data = data;
  __atomic_store_n (&workers->grain, grain, __ATOMIC_RELAXED);
  atomic_store (&workers->remaining, n_units);
  for (guint i = 0; i < workers->n; i++) {
    guint begin = (guint64)n_units * i / workers->n, end = (guint64)n_units * (i + 1) / workers->n;
    atomic_store_explicit (&workers->ranges[i].range, range_pack (begin, end), memory_order_release);
  }
  atomic_fetch_add (&workers->generation, 1);
  if (atomic_load (&workers->sleepers) > 0)
    futex_wake (&workers->generation, G_MAXINT);
  work_until_dry (workers, 0);
  wait_for_the_others (workers);
}

guint eng_workers_default_count (void)
{
  cpu_set_t set;
  guint n = sched_getaffinity (0, sizeof set, &set) == 0 ? CPU_COUNT (&set) : g_get_num_processors ();
  guint quota = eng_cgroup_cpus ();
  return MAX (1, quota > 0 ? MIN (n, quota) : n);
}
