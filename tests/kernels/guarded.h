/* guarded.h: memory for what is tested to read and write, with a page behind it that nobody may touch. */
#ifndef TEST_GUARDED_H
#define TEST_GUARDED_H

#include <glib.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* qemu-x86_64 7.2 reads 16 bytes for a scalar operand of an fma instruction: there (KERNELS_SLACK bytes) what follows may be read, not written. */
static inline gsize guard_slack (void)
{
  const char *bytes = getenv ("KERNELS_SLACK");
  return bytes ? (gsize) atoi (bytes) : 0;
}

static inline gsize guard_body (gsize size)
{
  gsize page = (gsize) sysconf (_SC_PAGESIZE);
  return (size + guard_slack () + page - 1) / page * page;
}

/* Memory whose end is the end of a page: reading or writing past the end ends the test. */
static inline guint8 *guarded_new (gsize size)
{
  gsize page = (gsize) sysconf (_SC_PAGESIZE), body = guard_body (size), slack = guard_slack ();
  guint8 *base = mmap (NULL, body + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  g_assert_true (base != MAP_FAILED);
  memset (base, 0xa5, body);
  memset (base + body - size - slack, 0, size);
  g_assert_cmpint (mprotect (base + body, page, PROT_NONE), ==, 0);
  return base + body - size - slack;
}

/* What lies before the memory (and in the slack) must be as it was. */
static inline void guarded_free (guint8 *memory, gsize size)
{
  gsize page = (gsize) sysconf (_SC_PAGESIZE), body = guard_body (size), slack = guard_slack ();
  guint8 *base = memory + size + slack - body;
  for (gsize i = 0; i < body; i++)
    if (i < body - size - slack || i >= body - slack)
      g_assert_cmpuint (base[i], ==, 0xa5);
  munmap (base, body + page);
}

#endif
