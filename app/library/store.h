/* store.h: the SQLite file under the library: opening, migrating, and statements with their errors as sentences. One connection,
 * serialised by `lock` (recursive), which callers hold from a statement's preparation to its end. */
#ifndef VALISE_STORE_H
#define VALISE_STORE_H

#include <glib.h>
#include <sqlite3.h>

typedef struct {
  sqlite3 *db;
  GRecMutex lock;
  char *path;
} ValiseStore;

ValiseStore *valise_store_open (const char *path, GError **error);
void valise_store_close (ValiseStore *store);
/* The version this program's migrations lead to. */
guint valise_store_newest_version (void);
/* The text of migration number n (1-based), owned by the program. */
const char *valise_store_migration (guint n);

/* types: one letter per argument: i gint64, d double, s string, n string or NULL. */
sqlite3_stmt *valise_store_query (ValiseStore *store, GError **error, const char *sql, const char *types, ...);
/* 1: a row, 0: no more, -1: error. */
int valise_store_step (ValiseStore *store, sqlite3_stmt *statement, GError **error);
/* A statement that yields no rows. */
gboolean valise_store_exec (ValiseStore *store, GError **error, const char *sql, const char *types, ...);

/* A statement that changes row `id` of its table: FALSE, saying that this `what` is no longer in the library, when it changes none. */
gboolean valise_store_change (ValiseStore *store, const char *what, gint64 id, GError **error, const char *sql, const char *types, ...);

/* A write transaction. durable: on the disk when commit returns, not only ordered (see docs/library.md). */
gboolean valise_store_begin (ValiseStore *store, gboolean durable, GError **error);
gboolean valise_store_commit (ValiseStore *store, GError **error);
void valise_store_rollback (ValiseStore *store);
/* Commits when its statements were done, else takes all of them back and returns FALSE. */
gboolean valise_store_end (ValiseStore *store, gboolean done, GError **error);

/* Settings: NULL when absent; free with g_free. */
char *valise_store_get_setting (ValiseStore *store, const char *key);
gboolean valise_store_set_setting (ValiseStore *store, const char *key, const char *value, GError **error);

G_DEFINE_AUTOPTR_CLEANUP_FUNC (ValiseStore, valise_store_close)
G_DEFINE_AUTOPTR_CLEANUP_FUNC (sqlite3_stmt, sqlite3_finalize)

#endif
