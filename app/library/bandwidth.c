/* bandwidth.c: how fast this machine reads memory: decoding is bound by it. Measured in under 100 ms by the first few programs that ask;
 * the best is kept in the library's settings for this CPU and number of threads, because a busy moment must not count for ever. */
#include "app/library/library-private.h"
#include "kernels/cpu.h"

#include <string.h>
#include <sys/mman.h>

#define BUFFER_BYTES ((gsize) 64 << 20) /* beyond the caches of most machines, as a model is */
#define PIECE_BYTES ((gsize) 256 << 10)
#define MEASURE_US 60000
#define MEASUREMENTS 5
/* Share of the read bandwidth that a decode step of a small model turned into tokens (docs/library.md has the figures). */
#define DECODE_SHARE 0.5

static gint64 bytes_per_second; /* atomic through its mutex */
static GMutex mutex;

typedef struct {
  const guint8 *buffer;
  guint64 sums[64];
} Reading;

static void read_pieces (gpointer data, guint begin, guint end, guint worker)
{
  Reading *reading = data;
  guint64 a = 0, b = 0, c = 0, d = 0;
  const guint64 *p = (const guint64 *) (reading->buffer + begin * PIECE_BYTES);
  for (gsize i = 0; i < (end - begin) * PIECE_BYTES / sizeof *p; i += 4) {
    a += p[i];
    b += p[i + 1];
    c += p[i + 2];
    d += p[i + 3];
  }
  reading->sums[worker % G_N_ELEMENTS (reading->sums)] += a + b + c + d;
}

static double measure (void)
{
  guint8 *buffer = mmap (NULL, BUFFER_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (buffer == MAP_FAILED)
    return 0;
  madvise (buffer, BUFFER_BYTES, MADV_HUGEPAGE);
  memset (buffer, 1, BUFFER_BYTES);
  g_autoptr (EngWorkers) workers = eng_workers_new (0);
  Reading reading = { .buffer = buffer };
  double best = 0;
  gint64 begin = g_get_monotonic_time (), before = begin, now;
  do {
    eng_workers_run (workers, read_pieces, &reading, BUFFER_BYTES / PIECE_BYTES, 4);
    now = g_get_monotonic_time ();
    best = MAX (best, (double) BUFFER_BYTES * G_USEC_PER_SEC / (double) MAX (now - before, 1));
    before = now;
  } while (now - begin < MEASURE_US);
  munmap (buffer, BUFFER_BYTES);
  return best;
}

void valise_bandwidth_prepare (ValiseLibrary *library)
{
  G_GNUC_UNUSED g_autoptr (GMutexLocker) locker = g_mutex_locker_new (&mutex);
  if (bytes_per_second > 0)
    return;
  g_autofree char *key = g_strdup_printf ("read-bandwidth:%s:%u", xb_cpu_model (), eng_workers_default_count ());
  g_autofree char *value = library ? valise_store_get_setting (library->store, key) : NULL;
  char *count = NULL; /* "BYTES MEASUREMENTS" */
  gint64 known = value ? g_ascii_strtoll (value, &count, 10) : 0;
  guint64 measurements = count ? g_ascii_strtoull (count, NULL, 10) : 0;
  gboolean settled = known > 0 && measurements >= MEASUREMENTS;
  bytes_per_second = settled ? known : MAX (known, (gint64) measure ());
  if (settled)
    return;
  g_autofree char *text = g_strdup_printf ("%" G_GINT64_FORMAT " %" G_GUINT64_FORMAT, bytes_per_second, measurements + 1);
  g_autoptr (GError) error = NULL;
  /* A figure for show: when it cannot be kept it is measured again the next time. */
  if (library && !valise_store_set_setting (library->store, key, text, &error))
    g_info ("%s", error->message);
}

double valise_bandwidth_get (void)
{
  valise_bandwidth_prepare (NULL);
  G_GNUC_UNUSED g_autoptr (GMutexLocker) locker = g_mutex_locker_new (&mutex);
  return (double) bytes_per_second * DECODE_SHARE;
}
