/* work.c: the state is a header with a checksum and then the spans; written beside the old one, synchronised, and renamed over it. */
#include "quantizer/work.h"

#include "engine/error.h"
#include "quantizer/fit.h"

#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MOST_STORES = 4, SHARE = 20 /* of the time, at most one part is spent on saving */ };

typedef struct {
  char magic[8];
  guint64 bytes;
  guint8 key[32], checksum[32];
} Header;

static const char magic[8] = { 'V', 'A', 'L', 'I', 'S', 'W', 'R', 'K' };
static const char *const suffixes[] = { "state", "state.new", "kept", "factors", "packed", "lock" };

struct QzWork {
  char *prefix; /* NULL: nothing is kept */
  guint8 key[32];
  int lock;
  void *map;    /* the state's file */
  gsize map_bytes;
  gint64 saved_us, took_us;
  guint n_stores;
  QzStore *stores[MOST_STORES];
};

static char *path_of (const char *prefix, const char *name)
{
  return g_strconcat (prefix, ".", name, NULL);
}

void qz_work_remove (const char *prefix)
{
  for (guint i = 0; i < G_N_ELEMENTS (suffixes); i++) {
    g_autofree char *path = path_of (prefix, suffixes[i]);
    g_unlink (path);
  }
}

char *qz_work_prefix (const char *path)
{
  for (guint i = 0; i < G_N_ELEMENTS (suffixes); i++) {
    g_autofree char *end = g_strconcat (".", suffixes[i], NULL);
    if (g_str_has_suffix (path, end))
      return g_strndup (path, strlen (path) - strlen (end));
  }
  return NULL;
}

gboolean qz_work_expire (const char *prefix, gint64 before_us)
{
  struct stat status;
  g_autofree char *lock_path = path_of (prefix, "lock");
  for (guint i = 0; i < G_N_ELEMENTS (suffixes); i++) {
    g_autofree char *path = path_of (prefix, suffixes[i]);
    if (stat (path, &status) == 0 && status.st_mtime >= before_us / G_USEC_PER_SEC)
      return FALSE;
  }
  int lock = open (lock_path, O_RDWR | O_CLOEXEC);
  gboolean held = lock >= 0 && flock (lock, LOCK_EX | LOCK_NB) != 0;
  if (!held)
    qz_work_remove (prefix);
  if (lock >= 0)
    close (lock);
  return !held;
}

/* FALSE when another process holds it, or it cannot be made. */
static gboolean take_lock (QzWork *work, const char *prefix)
{
  struct stat here, there;
  g_autofree char *path = path_of (prefix, "lock");
  work->lock = open (path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  /* Between opening and locking its holder may have removed it. */
  return work->lock >= 0 && flock (work->lock, LOCK_EX | LOCK_NB) == 0 && fstat (work->lock, &here) == 0 && stat (path, &there) == 0
         && here.st_ino == there.st_ino && here.st_dev == there.st_dev;
}

static void digest (const QzSpan *spans, guint n, guint8 out[32])
{
  g_autoptr (GChecksum) sum = g_checksum_new (G_CHECKSUM_SHA256);
  gsize length = 32;
  for (guint i = 0; i < n; i++)
    for (gsize at = 0; at < spans[i].size; at += G_MAXINT / 2) /* its lengths are signed */
      g_checksum_update (sum, (const guchar *) spans[i].data + at, MIN (spans[i].size - at, G_MAXINT / 2));
  g_checksum_get_digest (sum, out, &length);
}

/* Maps the state if there is one of this key that is whole. */
static void find_state (QzWork *work)
{
  struct stat status;
  guint8 checksum[32];
  g_autofree char *path = path_of (work->prefix, "state");
  int fd = open (path, O_RDONLY | O_CLOEXEC);
  if (fd < 0)
    return;
  if (fstat (fd, &status) == 0 && (gsize) status.st_size > sizeof (Header)) {
    work->map_bytes = status.st_size;
    work->map = mmap (NULL, work->map_bytes, PROT_READ, MAP_PRIVATE, fd, 0);
    if (work->map == MAP_FAILED)
      work->map = NULL;
  }
  close (fd);
  if (work->map == NULL)
    return;
  const Header *header = work->map;
  QzSpan rest = { header + 1, work->map_bytes - sizeof (Header) };
  gboolean sound = memcmp (header->magic, magic, sizeof magic) == 0 && header->bytes == rest.size && memcmp (header->key, work->key, 32) == 0;
  if (sound)
    digest (&rest, 1, checksum);
  if (!sound || memcmp (checksum, header->checksum, 32) != 0)
    qz_work_drop_state (work);
}

QzWork *qz_work_open (const char *prefix, const char *key, GError **error)
{
  QzWork *work = g_new0 (QzWork, 1);
  work->lock = -1;
  work->saved_us = g_get_monotonic_time ();
  if (prefix == NULL || !take_lock (work, prefix))
    return work;
  work->prefix = g_strdup (prefix);
  digest (&(QzSpan){ key, strlen (key) }, 1, work->key);
  find_state (work);
  return work;
}

void qz_work_free (QzWork *work)
{
  if (work == NULL)
    return;
  if (work->map != NULL)
    munmap (work->map, work->map_bytes);
  if (work->lock >= 0)
    close (work->lock);
  g_free (work->prefix);
  g_free (work);
}

const guint8 *qz_work_state (const QzWork *work, gsize *size)
{
  *size = work->map != NULL ? work->map_bytes - sizeof (Header) : 0;
  return work->map != NULL ? (const guint8 *) work->map + sizeof (Header) : NULL;
}

void qz_work_drop_state (QzWork *work)
{
  if (work->map != NULL)
    munmap (work->map, work->map_bytes);
  work->map = NULL;
}

QzStore *qz_work_store (QzWork *work, const char *name, GError **error)
{
  if (work->prefix == NULL)
    return qz_store_new (error);
  g_autofree char *path = path_of (work->prefix, name);
  QzStore *store = qz_store_keep (path, work->map != NULL, error);
  g_return_val_if_fail (work->n_stores < MOST_STORES, store);
  if (store != NULL)
    work->stores[work->n_stores++] = store;
  return store;
}

gboolean qz_work_is_due (const QzWork *work)
{
  return work->prefix != NULL && g_get_monotonic_time () - work->saved_us >= SHARE * work->took_us;
}

static gboolean save_failed (const char *path, GError **error)
{
  g_set_error (error, ENG_ERROR, ENG_ERROR_IO, "what is done so far cannot be kept in %s (%s): free some space", path, g_strerror (errno));
  return FALSE;
}

static gboolean write_spans (const char *path, const QzSpan *spans, guint n, GError **error)
{
  int fd = open (path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  gboolean ok = fd >= 0;
  for (guint i = 0; ok && i < n; i++)
    for (gsize at = 0; ok && at < spans[i].size;) {
      gssize done = write (fd, (const guint8 *) spans[i].data + at, spans[i].size - at);
      if (done == 0)
        errno = ENOSPC;
      ok = done > 0 || (done < 0 && errno == EINTR);
      at += MAX (done, 0);
    }
  ok = ok && fsync (fd) == 0;
  if (!ok)
    save_failed (path, error);
  if (fd >= 0)
    close (fd);
  return ok;
}

gboolean qz_work_save (QzWork *work, const QzSpan *spans, guint n, GError **error)
{
  gint64 begun = g_get_monotonic_time ();
  if (work->prefix == NULL)
    return TRUE;
  g_autofree char *path = path_of (work->prefix, "state"), *made = path_of (work->prefix, "state.new");
  g_autofree QzSpan *all = g_new (QzSpan, n + 1);
  Header header = { .bytes = 0 };
  memcpy (header.magic, magic, sizeof magic);
  memcpy (header.key, work->key, 32);
  all[0] = (QzSpan){ &header, sizeof header };
  for (guint i = 0; i < n; i++) {
    all[i + 1] = spans[i];
    header.bytes += spans[i].size;
  }
  digest (spans, n, header.checksum);
  for (guint i = 0; i < work->n_stores; i++)
    if (!qz_store_sync (work->stores[i], error))
      return FALSE;
  if (!write_spans (made, all, n + 1, error))
    return FALSE;
  if (g_rename (made, path) != 0)
    return save_failed (path, error);
  work->saved_us = g_get_monotonic_time ();
  work->took_us = work->saved_us - begun;
  return TRUE;
}
