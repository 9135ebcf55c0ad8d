/* store.h: a file without a name for what is too large to keep in memory, gone when closed whatever
 * happens; or a file that stays, or a part of one. */
#ifndef QZ_STORE_H
#define QZ_STORE_H

#include <gio/gio.h>

typedef struct QzStore QzStore;

QzStore *qz_store_new (GError **error);
/* Reads from `path` at `base` on; never writes. */
QzStore *qz_store_open (const char *path, guint64 base, GError **error);
/* The file `path` itself, which stays; empty at first unless `goes_on`. */
QzStore *qz_store_keep (const char *path, gboolean goes_on, GError **error);
void qz_store_free (QzStore *store);
/* What was written is on the disk. */
gboolean qz_store_sync (QzStore *store, GError **error);
/* Any thread, disjoint ranges. */
gboolean qz_store_write (QzStore *store, guint64 offset, const void *data, gsize size, GError **error);
gboolean qz_store_read (const QzStore *store, guint64 offset, void *data, gsize size, GError **error);

#endif
