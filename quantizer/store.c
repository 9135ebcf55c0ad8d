/* store.c: pread and pwrite on an unlinked file in the person's cache directory, or on a named one. */
#include "quantizer/store.h"

#include "engine/error.h"
#include "engine/file_at.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

struct QzStore {
  int fd;
  guint64 base;
  char *place; /* where to make room */
};

static QzStore *store_of (int fd, guint64 base, const char *place)
{
  QzStore *store = g_new (QzStore, 1);
  *store = (QzStore){ fd, base, g_strdup (place) };
  return store;
}

QzStore *qz_store_new (GError **error)
{
  const char *folder = g_get_user_cache_dir ();
  if (g_mkdir_with_parents (folder, 0700) != 0)
    folder = g_get_tmp_dir ();
  g_autofree char *name = g_build_filename (folder, "valise-analysis-XXXXXX", NULL);
  int fd = g_mkstemp_full (name, O_RDWR | O_CLOEXEC, 0600);
  if (fd < 0) {
    g_set_error (error, ENG_ERROR, ENG_ERROR_IO, "a temporary file in %s cannot be made (%s): free some space or allow writing there", folder,
                 g_strerror (errno));
    return NULL;
  }
  unlink (name);
  return store_of (fd, 0, folder);
}

QzStore *qz_store_keep (const char *path, gboolean goes_on, GError **error)
{
  g_autofree char *folder = g_path_get_dirname (path);
  int fd = open (path, O_RDWR | O_CREAT | O_CLOEXEC | (goes_on ? 0 : O_TRUNC), 0600);
  if (fd < 0) {
    g_set_error (error, ENG_ERROR, ENG_ERROR_IO, "the file %s cannot be written (%s): free some space or allow writing there", path, g_strerror (errno));
    return NULL;
  }
  return store_of (fd, 0, folder);
}

QzStore *qz_store_open (const char *path, guint64 base, GError **error)
{
  int fd = open (path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) {
    g_set_error (error, ENG_ERROR, ENG_ERROR_IO, "the analysis %s cannot be read: %s", path, g_strerror (errno));
    return NULL;
  }
  return store_of (fd, base, path);
}

void qz_store_free (QzStore *store)
{
  if (store == NULL)
    return;
  close (store->fd);
  g_free (store->place);
  g_free (store);
}

static gboolean write_failed (const QzStore *store, int reason, GError **error)
{
  g_set_error (error, ENG_ERROR, ENG_ERROR_IO, "the analysis cannot be kept in %s (%s): free some space", store->place, g_strerror (reason));
  return FALSE;
}

gboolean qz_store_sync (QzStore *store, GError **error)
{
  return fdatasync (store->fd) == 0 || write_failed (store, errno, error);
}

gboolean qz_store_write (QzStore *store, guint64 offset, const void *data, gsize size, GError **error)
{
  return eng_write_at (store->fd, store->base + offset, data, size) || write_failed (store, errno, error);
}

gboolean qz_store_read (const QzStore *store, guint64 offset, void *data, gsize size, GError **error)
{
  if (eng_read_at (store->fd, store->base + offset, data, size))
    return TRUE;
  g_set_error (error, ENG_ERROR, ENG_ERROR_IO, "the stored analysis cannot be read (%s): analyse the model again",
               errno != 0 ? g_strerror (errno) : "it is cut short");
  return FALSE;
}
