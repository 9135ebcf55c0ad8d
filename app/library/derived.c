/* derived.c: what is made from a model and kept to be quick the next time: analyses and packed forms. Their names begin with the key of
 * the content they were made from, and they go with it. */
#include "app/library/library-private.h"
#include "quantizer/work.h"

#include <errno.h>
#include <glib/gstdio.h>
#include <string.h>
#include <sys/stat.h>

#define KEY_LENGTH 64
#define WORK_US (G_GINT64_CONSTANT (30) * 24 * 3600 * G_USEC_PER_SEC) /* so long what an ended analysis or fit has done waits to go on */

static const char *const folders[] = { "cache", "analysis" };

static gboolean note_outside (ValiseLibrary *library, const char *path, const char *key, GError **error);
static gint64 mtime_ns (const struct stat *info);

gboolean valise_library_note_derived (ValiseLibrary *library, ValiseModel *model, const char *place, GError **error)
{
  g_autofree char *name = g_path_get_basename (place), *key = g_strndup (name, KEY_LENGTH);
  return valise_model_get_id (model) != 0 || note_outside (library, valise_model_get_path (model), key, error);
}

gboolean valise_library_keep_derived (ValiseLibrary *library, ValiseModel *model, const char *made, const char *place, GError **error)
{
  g_autofree char *folder = g_path_get_dirname (place);
  /* With the home lock no sweep comes between the note and the file. */
  g_auto (ValiseHomeLock) home = { 0 };
  if (!valise_home_lock (&home, library->home, error) || !valise_library_note_derived (library, model, place, error))
    return FALSE;
  if (g_rename (made, place) < 0)
    return valise_fail_errno (error, errno, "cannot create", place);
  return valise_sync_path (folder, error);
}

guint64 valise_library_drop_derived (ValiseLibrary *library, const char *key)
{
  guint64 freed = 0;
  for (guint i = 0; i < G_N_ELEMENTS (folders); i++) {
    g_autofree char *folder = g_build_filename (library->home, folders[i], NULL);
    g_autoptr (GDir) dir = g_dir_open (folder, 0, NULL);
    for (const char *name; dir && (name = g_dir_read_name (dir));) {
      g_autofree char *path = g_build_filename (folder, name, NULL);
      GStatBuf info;
      if (g_str_has_prefix (name, key) && g_stat (path, &info) == 0 && g_unlink (path) == 0)
        freed += (guint64) info.st_size;
    }
  }
  return freed;
}

gboolean valise_library_sweep_derived (ValiseLibrary *library, GHashTable *known, GError **error)
{
  g_autoptr (GPtrArray) gone = g_ptr_array_new_with_free_func (g_free);
  g_autoptr (sqlite3_stmt) statement = valise_store_query (library->store, error, "SELECT key, path, bytes, mtime_ns FROM outside_files", "");
  int stepped = -1;
  while (statement && (stepped = valise_store_step (library->store, statement, error)) > 0) {
    struct stat info;
    char *key = g_strdup ((const char *) sqlite3_column_text (statement, 0));
    gboolean same = stat ((const char *) sqlite3_column_text (statement, 1), &info) == 0 && info.st_size == sqlite3_column_int64 (statement, 2)
                    && mtime_ns (&info) == sqlite3_column_int64 (statement, 3);
    if (same)
      g_hash_table_add (known, key);
    else
      g_ptr_array_add (gone, key);
  }
  g_clear_pointer (&statement, sqlite3_finalize);
  for (guint i = 0; i < gone->len && stepped == 0; i++)
    stepped = valise_store_exec (library->store, error, "DELETE FROM outside_files WHERE key = ?", "s", gone->pdata[i]) ? 0 : -1;
  if (stepped < 0)
    return FALSE;
  for (guint i = 0; i < G_N_ELEMENTS (folders); i++) {
    g_autofree char *folder = g_build_filename (library->home, folders[i], NULL);
    g_autoptr (GDir) dir = g_dir_open (folder, 0, NULL);
    for (const char *name; dir && (name = g_dir_read_name (dir));) {
      g_autofree char *key = g_strndup (name, KEY_LENGTH), *path = g_build_filename (folder, name, NULL), *work = qz_work_prefix (path);
      if (!g_hash_table_contains (known, key))
        valise_remove_tree (path);
      else if (work)
        qz_work_expire (work, g_get_real_time () - WORK_US);
    }
  }
  return TRUE;
}

/* ---- helpers ---- */

static gboolean note_outside (ValiseLibrary *library, const char *path, const char *key, GError **error)
{
  struct stat info;
  if (stat (path, &info) < 0)
    return valise_fail_errno (error, errno, "cannot read", path);
  G_GNUC_UNUSED g_autoptr (GRecMutexLocker) locker = g_rec_mutex_locker_new (&library->store->lock);
  return valise_store_exec (library->store, error, "INSERT OR REPLACE INTO outside_files (key, path, bytes, mtime_ns) VALUES (?, ?, ?, ?)", "ssii",
                            key, path, (gint64) info.st_size, mtime_ns (&info));
}

static gint64 mtime_ns (const struct stat *info)
{
  return info->st_mtim.tv_sec * G_GINT64_CONSTANT (1000000000) + info->st_mtim.tv_nsec;
}
