/* store.h: a file without a name for what is too large to keep in memory, gone when closed whatever happens; or a part of a named file. */
#ifndef QZ_STORE_H
#define QZ_STORE_H

#include <gio/gio.h>

typedef struct QzStore QzStore;

QzStore *qz_store_new (GError **error);
/* Reads from `path` at `base` on; never writes. */
QzStore *qz_store_open (const char *path, guint64 base, GError **error);
void qz_store_free (QzStore *store);
/* Any thread, disjoint ranges. */
gboolean qz_store_write (QzStore *store, guint64 offset, const void *data, gsize size, GError **error);
gboolean qz_store_read (const QzStore *store, guint64 offset, void *data, gsize size, GError **error);

#endif
