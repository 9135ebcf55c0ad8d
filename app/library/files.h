/* files.h: files that appear whole or not at all, below the library's home: the lock, temporaries, copies and their checksums. */
#ifndef VALISE_FILES_H
#define VALISE_FILES_H

#include <gio/gio.h>

#include "engine/model.h"

/* Held for the short steps that several processes must not do at once. Waits. */
typedef struct {
  int fd;
} ValiseHomeLock;
gboolean valise_home_lock (ValiseHomeLock *lock, const char *home, GError **error);
void valise_home_unlock (ValiseHomeLock *lock);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC (ValiseHomeLock, valise_home_unlock)

/* A folder <home>/tmp/<random> of one operation, gone when freed, or swept once the process is dead. */
typedef struct {
  char *path;
  int fd; /* of the lock that says the owner is alive */
} ValiseTemp;
ValiseTemp *valise_temp_new (const char *home, GError **error);
void valise_temp_free (ValiseTemp *temp);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (ValiseTemp, valise_temp_free)
/* Removes the folders whose owner is dead. Call with the home lock held. */
void valise_temp_sweep (const char *home);

void valise_remove_tree (const char *path);
gboolean valise_sync_path (const char *path, GError **error); /* a file or a folder */
/* FALSE, naming both figures, when `bytes` will not fit where `folder` is. */
gboolean valise_check_space (const char *folder, guint64 bytes, const char *what, GError **error);
gboolean valise_write_all (int fd, const void *data, gsize size, const char *path, GError **error);

/* Copies a file (sharing its blocks where the file system can), feeds the checksum (may be NULL) and syncs. */
gboolean valise_copy_file (const char *source, const char *target, GChecksum *checksum, EngProgress progress, gpointer data,
                           GCancellable *cancellable, GError **error);
/* The same into an open file that `target` only names. */
gboolean valise_copy_into (const char *source, int out, const char *target, GChecksum *checksum, EngProgress progress, gpointer data,
                           GCancellable *cancellable, GError **error);
gboolean valise_hash_file (const char *path, GChecksum *checksum, EngProgress progress, gpointer data, GCancellable *cancellable,
                           GError **error);

/* The files of a model that opens at `path`: itself, or all its shards in order ("x-00001-of-00003.gguf"). NULL with an error when one
 * is missing. */
GPtrArray *valise_shards_of (const char *path, GError **error);
/* Whether `path` is the config.json that stands for a folder of safetensors: its files keep their names. */
gboolean valise_is_checkpoint_folder (const char *path);
/* Whether a file's name is that of a shard; number and count are 1-based. */
gboolean valise_shard_name (const char *name, guint *number, guint *count);

#endif
