/* file_at.c: pread and pwrite until all is done. */
#include "engine/file_at.h"

#include <errno.h>
#include <unistd.h>

enum { MOST_AT_ONCE = 1 << 30 };

gboolean eng_read_at (int fd, guint64 offset, void *data, gsize size)
{
  for (guint8 *p = data; size > 0;) {
    gssize n = pread (fd, p, MIN (size, MOST_AT_ONCE), (off_t) offset);
    if (n < 0 && errno == EINTR)
      continue;
    if (n == 0)
      errno = 0;
    if (n <= 0)
      return FALSE;
    p += n;
    offset += (guint64) n;
    size -= (gsize) n;
  }
  return TRUE;
}

gboolean eng_write_at (int fd, guint64 offset, const void *data, gsize size)
{
  for (const guint8 *p = data; size > 0;) {
    gssize n = pwrite (fd, p, MIN (size, MOST_AT_ONCE), (off_t) offset);
    if (n < 0 && errno == EINTR)
      continue;
    if (n == 0)
      errno = ENOSPC;
    if (n <= 0)
      return FALSE;
    p += n;
    offset += (guint64) n;
    size -= (gsize) n;
  }
  return TRUE;
}
