/* files.c: see files.h. A temporary belongs to a living process as long as that process holds its lock file: kernel locks end with the
 * process however it dies, and unlike process numbers they mean the same inside and outside a sandbox. */
#include "app/library/files.h"
#include "app/library/library-private.h"
#include "engine/checkpoint/checkpoint.h"

#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define COPY_BLOCK (1 << 20)
#define SPACE_MARGIN (G_GUINT64_CONSTANT (16) << 20) /* for the database and its log */

static gboolean pump (int in, const char *in_path, int out, const char *out_path, guint64 total, GChecksum *checksum, EngProgress progress,
                      gpointer data, GCancellable *cancellable, GError **error);

gboolean valise_home_lock (ValiseHomeLock *lock, const char *home, GError **error)
{
  g_autofree char *path = g_build_filename (home, "lock", NULL);
  lock->fd = g_open (path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (lock->fd < 0)
    return valise_fail_errno (error, errno, "cannot open", path);
  while (flock (lock->fd, LOCK_EX) < 0) {
    if (errno == EINTR)
      continue;
    int code = errno;
    valise_home_unlock (lock);
    return valise_fail_errno (error, code, "cannot lock", path);
  }
  return TRUE;
}

void valise_home_unlock (ValiseHomeLock *lock)
{
  if (lock->fd > 0)
    close (lock->fd);
  lock->fd = 0;
}

ValiseTemp *valise_temp_new (const char *home, GError **error)
{
  /* Under the home lock, so that no sweep sees the folder before its lock is held. */
  g_auto (ValiseHomeLock) lock = { 0 };
  if (!valise_home_lock (&lock, home, error))
    return NULL;
  g_autofree char *name = g_uuid_string_random ();
  g_autoptr (ValiseTemp) temp = g_new0 (ValiseTemp, 1);
  temp->path = g_build_filename (home, "tmp", name, NULL);
  if (g_mkdir_with_parents (temp->path, 0700) < 0) {
    valise_fail_errno (error, errno, "cannot create the folder", temp->path);
    return NULL;
  }
  g_autofree char *owner = g_build_filename (temp->path, ".owner", NULL);
  temp->fd = g_open (owner, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (temp->fd < 0 || flock (temp->fd, LOCK_EX | LOCK_NB) < 0) {
    valise_fail_errno (error, errno, "cannot lock", owner);
    return NULL;
  }
  return g_steal_pointer (&temp);
}

void valise_temp_free (ValiseTemp *temp)
{
  if (!temp)
    return;
  valise_remove_tree (temp->path);
  if (temp->fd > 0)
    close (temp->fd);
  g_free (temp->path);
  g_free (temp);
}

void valise_temp_sweep (const char *home)
{
  g_autofree char *folder = g_build_filename (home, "tmp", NULL);
  g_autoptr (GDir) dir = g_dir_open (folder, 0, NULL);
  const char *name;
  while (dir && (name = g_dir_read_name (dir))) {
    g_autofree char *path = g_build_filename (folder, name, NULL);
    g_autofree char *owner = g_build_filename (path, ".owner", NULL);
    int fd = g_open (owner, O_RDWR | O_CLOEXEC, 0);
    gboolean dead = fd >= 0 ? flock (fd, LOCK_EX | LOCK_NB) == 0 : errno == ENOENT || errno == ENOTDIR;
    if (dead) /* any other error says nothing about the owner */
      valise_remove_tree (path);
    if (fd >= 0)
      close (fd);
  }
}

void valise_remove_tree (const char *path)
{
  struct stat info;
  if (lstat (path, &info) < 0)
    return;
  if (!S_ISDIR (info.st_mode)) {
    unlink (path);
    return;
  }
  g_autoptr (GDir) dir = g_dir_open (path, 0, NULL);
  const char *name;
  while (dir && (name = g_dir_read_name (dir))) {
    g_autofree char *child = g_build_filename (path, name, NULL);
    valise_remove_tree (child);
  }
  rmdir (path);
}

gboolean valise_sync_path (const char *path, GError **error)
{
  int fd = g_open (path, O_RDONLY | O_CLOEXEC, 0);
  if (fd < 0)
    return valise_fail_errno (error, errno, "cannot open", path);
  int code = fsync (fd) < 0 ? errno : 0;
  close (fd);
  return code == 0 || valise_fail_errno (error, code, "cannot write", path);
}

gboolean valise_check_space (const char *folder, guint64 bytes, const char *what, GError **error)
{
  struct statvfs info;
  if (statvfs (folder, &info) < 0)
    return valise_fail_errno (error, errno, "cannot look at the file system of", folder);
  guint64 available = (guint64) info.f_bavail * info.f_frsize;
  if (bytes <= available && available - bytes >= SPACE_MARGIN)
    return TRUE;
  g_autofree char *needed = valise_size_format (bytes + SPACE_MARGIN), *have = valise_size_format (available);
  g_set_error (error, VALISE_ERROR, VALISE_ERROR_NO_SPACE,
               "%s needs %s, and %s has %s free: free some space, or move the library with VALISE_HOME", what, needed, folder, have);
  return FALSE;
}

gboolean valise_write_all (int fd, const void *data, gsize size, const char *path, GError **error)
{
  const char *p = data;
  while (size > 0) {
    gssize n = write (fd, p, size);
    if (n < 0 && errno == EINTR)
      continue;
    if (n < 0)
      return valise_fail_errno (error, errno, "cannot write", path);
    p += n;
    size -= (gsize) n;
  }
  return TRUE;
}

gboolean valise_copy_file (const char *source, const char *target, GChecksum *checksum, EngProgress progress, gpointer data,
                           GCancellable *cancellable, GError **error)
{
  int out = g_open (target, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
  if (out < 0)
    return valise_fail_errno (error, errno, "cannot create", target);
  gboolean done = valise_copy_into (source, out, target, checksum, progress, data, cancellable, error);
  close (out);
  if (!done)
    unlink (target);
  return done;
}

gboolean valise_copy_into (const char *source, int out, const char *target, GChecksum *checksum, EngProgress progress, gpointer data,
                           GCancellable *cancellable, GError **error)
{
  struct stat info;
  gboolean done = FALSE;
  int in = g_open (source, O_RDONLY | O_CLOEXEC, 0);
  if (in < 0)
    return valise_fail_errno (error, errno, "cannot open", source);
  if (fstat (in, &info) < 0)
    valise_fail_errno (error, errno, "cannot read", source);
  else if (ioctl (out, FICLONE, in) == 0) /* shared blocks, copied when either is written; then only read for the checksum */
    done = pump (out, target, -1, NULL, (guint64) info.st_size, checksum, progress, data, cancellable, error);
  else
    done = pump (in, source, out, target, (guint64) info.st_size, checksum, progress, data, cancellable, error);
  close (in);
  return done && (fsync (out) == 0 || valise_fail_errno (error, errno, "cannot write", target));
}

gboolean valise_hash_file (const char *path, GChecksum *checksum, EngProgress progress, gpointer data, GCancellable *cancellable,
                           GError **error)
{
  struct stat info;
  int in = g_open (path, O_RDONLY | O_CLOEXEC, 0);
  if (in < 0 || fstat (in, &info) < 0) {
    int code = errno;
    if (in >= 0)
      close (in);
    return valise_fail_errno (error, code, "cannot read", path);
  }
  gboolean done = pump (in, path, -1, NULL, (guint64) info.st_size, checksum, progress, data, cancellable, error);
  close (in);
  return done;
}

gboolean valise_shard_name (const char *name, guint *number, guint *count)
{
  /* "…-00001-of-00003.gguf" */
  gsize length = strlen (name);
  const gsize tail = strlen ("-00001-of-00003.gguf");
  if (length < tail)
    return FALSE;
  const char *p = name + length - tail;
  for (gsize i = 0; i < tail; i++) {
    gboolean digit = (i >= 1 && i <= 5) || (i >= 10 && i <= 14);
    if (digit ? !g_ascii_isdigit (p[i]) : p[i] != "-00001-of-00003.gguf"[i])
      return FALSE;
  }
  *number = (guint) g_ascii_strtoull (p + 1, NULL, 10);
  *count = (guint) g_ascii_strtoull (p + 10, NULL, 10);
  return *number >= 1 && *number <= *count;
}

gboolean valise_is_checkpoint_folder (const char *path)
{
  g_autofree char *name = g_path_get_basename (path);
  return g_str_equal (name, "config.json");
}

GPtrArray *valise_shards_of (const char *path, GError **error)
{
  g_autoptr (GPtrArray) shards = g_ptr_array_new_with_free_func (g_free);
  guint number, count;
  if (valise_is_checkpoint_folder (path)) {
    g_autofree char *folder = g_path_get_dirname (path);
    g_auto (GStrv) names = eng_checkpoint_files (folder, error);
    for (guint i = 0; names && names[i]; i++)
      g_ptr_array_add (shards, g_build_filename (folder, names[i], NULL));
    return names ? g_steal_pointer (&shards) : NULL;
  }
  if (!valise_shard_name (path, &number, &count)) {
    g_ptr_array_add (shards, g_strdup (path));
    return g_steal_pointer (&shards);
  }
  gsize stem = strlen (path) - strlen ("-00001-of-00003.gguf");
  for (guint i = 1; i <= count; i++) {
    char *shard = g_strdup_printf ("%.*s-%05u-of-%05u.gguf", (int) stem, path, i, count);
    g_ptr_array_add (shards, shard);
    if (g_file_test (shard, G_FILE_TEST_EXISTS))
      continue;
    g_set_error (error, VALISE_ERROR, VALISE_ERROR_NOT_FOUND, "%s is missing: part %u of %u of this model, put all parts in one folder", shard,
                 i, count);
    return NULL;
  }
  return g_steal_pointer (&shards);
}

/* ---- helpers ---- */

/* Reads `in` from its start to its end: into the checksum, and into `out` unless that is -1. */
static gboolean pump (int in, const char *in_path, int out, const char *out_path, guint64 total, GChecksum *checksum, EngProgress progress,
                      gpointer data, GCancellable *cancellable, GError **error)
{
  g_autofree guint8 *block = g_malloc (COPY_BLOCK);
  guint64 done = 0;
  posix_fadvise (in, 0, 0, POSIX_FADV_SEQUENTIAL);
  for (;;) {
    if (!valise_check_cancelled (cancellable, error))
      return FALSE;
    gssize n = pread (in, block, COPY_BLOCK, (off_t) done);
    if (n < 0 && errno == EINTR)
      continue;
    if (n < 0)
      return valise_fail_errno (error, errno, "cannot read", in_path);
    if (n == 0)
      return TRUE;
    if (checksum)
      g_checksum_update (checksum, block, n);
    if (out >= 0 && !valise_write_all (out, block, (gsize) n, out_path, error))
      return FALSE;
    done += (guint64) n;
    if (progress)
      progress (total > 0 ? MIN (1.0, (double) done / (double) total) : 1.0, out >= 0 ? "copying" : "reading", data);
  }
}
