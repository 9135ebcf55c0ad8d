/* test_workers.c: every unit runs once, whoever runs it; idle workers sleep. */
#include "engine/workers.h"

#include <sys/resource.h>

typedef struct {
  guint8 *runs; /* times each unit ran; atomic adds */
  guint n_workers;
  guint slow; /* this worker dawdles */
} Count;

static void count_units (gpointer data, guint begin, guint end, guint worker)
{
  Count *count = data;
  g_assert_cmpuint (worker, <, count->n_workers);
  for (guint i = begin; i < end; i++)
    __atomic_fetch_add (&count->runs[i], 1, __ATOMIC_RELAXED);
  if (worker == count->slow)
    g_usleep (50);
}

static void test_each_unit_once (void)
{
  guint thread_counts[] = { 1, 2, 3, 8 }, units[] = { 1, 2, 3, 7, 64, 1000 };
  for (guint t = 0; t < G_N_ELEMENTS (thread_counts); t++) {
    g_autoptr (EngWorkers) workers = eng_workers_new (thread_counts[t]);
    g_assert_cmpuint (eng_workers_count (workers), ==, thread_counts[t]);
    for (guint round = 0; round < 300; round++) {
      guint n = units[round % G_N_ELEMENTS (units)];
      g_autofree guint8 *runs = g_new0 (guint8, n);
      Count count = { runs, thread_counts[t], round % 16 };
      eng_workers_run (workers, count_units, &count, n, 1 + round % 5);
      for (guint i = 0; i < n; i++)
        g_assert_cmpuint (runs[i], ==, 1);
    }
  }
}

static void set_flag (gpointer data, guint begin, guint end, guint worker)
{
  *(guint *)data += end - begin;
}

static void test_no_units (void)
{
  g_autoptr (EngWorkers) workers = eng_workers_new (2);
  guint ran = 0;
  eng_workers_run (workers, set_flag, &ran, 0, 1);
  g_assert_cmpuint (ran, ==, 0);
}

static void add_range (gpointer data, guint begin, guint end, guint worker)
{
  guint64 sum = 0;
  for (guint64 i = begin; i < end; i++)
    sum += i;
  __atomic_fetch_add ((guint64 *)data, sum, __ATOMIC_RELAXED);
}

/* Many short jobs back to back: a worker that wakes late must not touch a job that is over. */
static void test_short_jobs (void)
{
  g_autoptr (EngWorkers) workers = eng_workers_new (4);
  for (guint64 n = 1; n < 20000; n++) {
    guint64 sum = 0, units = n % 61 + 1;
    eng_workers_run (workers, add_range, &sum, units, 1);
    g_assert_cmpuint (sum, ==, units * (units - 1) / 2);
    if (n % 4000 == 0)
      g_usleep (2000);
  }
}

static double cpu_seconds (void)
{
  struct rusage usage;
  getrusage (RUSAGE_SELF, &usage);
  return usage.ru_utime.tv_sec + usage.ru_stime.tv_sec + (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1e-6;
}

static void test_idle_sleeps (void)
{
  g_autoptr (EngWorkers) workers = eng_workers_new (4);
  guint64 sum = 0;
  eng_workers_run (workers, add_range, &sum, 100, 1);
  g_usleep (20000);
  double before = cpu_seconds ();
  g_usleep (200000);
  g_assert_cmpfloat (cpu_seconds () - before, <, 0.1);
}

static void test_default_count (void)
{
  g_assert_cmpuint (eng_workers_default_count (), >=, 1);
  g_assert_cmpuint (eng_workers_default_count (), <=, g_get_num_processors ());
}

int main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/workers/each-unit-runs-once", test_each_unit_once);
  g_test_add_func ("/workers/no-units-run-nothing", test_no_units);
  g_test_add_func ("/workers/short-jobs-do-not-mix", test_short_jobs);
  g_test_add_func ("/workers/idle-burns-no-cpu", test_idle_sleeps);
  g_test_add_func ("/workers/default-count-respects-the-machine", test_default_count);
  return g_test_run ();
}
