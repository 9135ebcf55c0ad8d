/* store.c: see store.h. Migrations are numbered SQL files embedded in the program (data/migrations); PRAGMA user_version holds the last
 * one applied, and all that are missing run in one transaction, so that a library is of one version or of another, never between. */
#include "app/library/store.h"
#include "app/library/library-private.h"
#include "valise-migrations.h"

#define APPLICATION_ID 0x56414c53 /* "VALS": tells file(1), and us, whose database this is */
#define BUSY_TIMEOUT_MS 10000
#define CACHE_KIB 512

static gboolean store_fail (ValiseStore *store, GError **error);
static gboolean configure (ValiseStore *store, GError **error);
static gboolean migrate (ValiseStore *store, GError **error);
static gint64 read_pragma (ValiseStore *store, const char *sql, GError **error);
static gboolean run (ValiseStore *store, const char *sql, GError **error);
static gboolean exec_list (ValiseStore *store, GError **error, const char *sql, const char *types, va_list arguments);
static void bind_all (sqlite3_stmt *statement, const char *types, va_list arguments);

ValiseStore *valise_store_open (const char *path, GError **error)
{
  g_autoptr (ValiseStore) store = g_new0 (ValiseStore, 1);
  g_rec_mutex_init (&store->lock);
  store->path = g_strdup (path);
  if (sqlite3_open_v2 (path, &store->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_FULLMUTEX, NULL) != SQLITE_OK) {
    store_fail (store, error);
    return NULL;
  }
  if (!configure (store, error) || !migrate (store, error))
    return NULL;
  return g_steal_pointer (&store);
}

void valise_store_close (ValiseStore *store)
{
  if (!store)
    return;
  sqlite3_close (store->db);
  g_rec_mutex_clear (&store->lock);
  g_free (store->path);
  g_free (store);
}

guint valise_store_newest_version (void)
{
  guint n = 0;
  while (valise_store_migration (n + 1))
    n++;
  return n;
}

const char *valise_store_migration (guint n)
{
  GResource *resource = valise_migrations_get_resource ();
  g_auto (GStrv) names = g_resource_enumerate_children (resource, "/migrations", G_RESOURCE_LOOKUP_FLAGS_NONE, NULL);
  g_autofree char *prefix = g_strdup_printf ("%04u_", n);
  for (char **name = names; name && *name; name++) {
    if (!g_str_has_prefix (*name, prefix))
      continue;
    g_autofree char *path = g_strconcat ("/migrations/", *name, NULL);
    /* Resource data is in the program's read-only pages and ends in a NUL of its own. */
    g_autoptr (GBytes) bytes = g_resource_lookup_data (resource, path, G_RESOURCE_LOOKUP_FLAGS_NONE, NULL);
    return g_bytes_get_data (bytes, NULL);
  }
  return NULL;
}

sqlite3_stmt *valise_store_query (ValiseStore *store, GError **error, const char *sql, const char *types, ...)
{
  sqlite3_stmt *statement = NULL;
  if (sqlite3_prepare_v2 (store->db, sql, -1, &statement, NULL) != SQLITE_OK) {
    store_fail (store, error);
    return NULL;
  }
  va_list arguments;
  va_start (arguments, types);
  bind_all (statement, types, arguments);
  va_end (arguments);
  return statement;
}

int valise_store_step (ValiseStore *store, sqlite3_stmt *statement, GError **error)
{
  int code = sqlite3_step (statement);
  if (code == SQLITE_ROW)
    return 1;
  if (code == SQLITE_DONE)
    return 0;
  store_fail (store, error);
  return -1;
}

gboolean valise_store_exec (ValiseStore *store, GError **error, const char *sql, const char *types, ...)
{
  va_list arguments;
  va_start (arguments, types);
  gboolean done = exec_list (store, error, sql, types, arguments);
  va_end (arguments);
  return done;
}

gboolean valise_store_change (ValiseStore *store, const char *what, gint64 id, GError **error, const char *sql, const char *types, ...)
{
  va_list arguments;
  va_start (arguments, types);
  gboolean done = exec_list (store, error, sql, types, arguments);
  va_end (arguments);
  if (!done || sqlite3_changes (store->db) > 0)
    return done;
  g_set_error (error, VALISE_ERROR, VALISE_ERROR_NOT_FOUND, "%s %" G_GINT64_FORMAT " is no longer in the library", what, id);
  return FALSE;
}

gboolean valise_store_begin (ValiseStore *store, gboolean durable, GError **error)
{
  /* Immediate: the wait for another process's write happens here, not at some statement in the middle. */
  return run (store, durable ? "PRAGMA synchronous = FULL" : "PRAGMA synchronous = NORMAL", error)
         && run (store, "BEGIN IMMEDIATE", error);
}

gboolean valise_store_commit (ValiseStore *store, GError **error)
{
  if (run (store, "COMMIT", error))
    return TRUE;
  valise_store_rollback (store);
  return FALSE;
}

void valise_store_rollback (ValiseStore *store)
{
  /* After some errors SQLite has rolled back by itself, and says so: that is what we wanted. */
  if (!sqlite3_get_autocommit (store->db))
    sqlite3_exec (store->db, "ROLLBACK", NULL, NULL, NULL);
}

gboolean valise_store_end (ValiseStore *store, gboolean done, GError **error)
{
  if (done)
    return valise_store_commit (store, error);
  valise_store_rollback (store);
  return FALSE;
}

char *valise_store_get_setting (ValiseStore *store, const char *key)
{
  G_GNUC_UNUSED g_autoptr (GRecMutexLocker) locker = g_rec_mutex_locker_new (&store->lock);
  g_autoptr (sqlite3_stmt) statement = valise_store_query (store, NULL, "SELECT value FROM settings WHERE key = ?", "s", key);
  if (!statement || valise_store_step (store, statement, NULL) <= 0)
    return NULL;
  return g_strdup ((const char *) sqlite3_column_text (statement, 0));
}

gboolean valise_store_set_setting (ValiseStore *store, const char *key, const char *value, GError **error)
{
  G_GNUC_UNUSED g_autoptr (GRecMutexLocker) locker = g_rec_mutex_locker_new (&store->lock);
  return valise_store_exec (store, error, "INSERT INTO settings (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
                            "ss", key, value);
}

/* ---- helpers ---- */

static gboolean store_fail (ValiseStore *store, GError **error)
{
  int code = sqlite3_errcode (store->db);
  const char *what = sqlite3_errmsg (store->db);
  switch (code & 0xff) {
  case SQLITE_FULL:
    g_set_error (error, VALISE_ERROR, VALISE_ERROR_NO_SPACE, "no space left to write %s: free some space, or move the library with VALISE_HOME",
                 store->path);
    break;
  case SQLITE_BUSY:
  case SQLITE_LOCKED:
    g_set_error (error, VALISE_ERROR, VALISE_ERROR_BUSY, "another program keeps %s busy: close it, then try again", store->path);
    break;
  case SQLITE_NOTADB:
  case SQLITE_CORRUPT:
    g_set_error (error, VALISE_ERROR, VALISE_ERROR_DAMAGED,
                 "the library's database %s is damaged (%s): restore it from a backup, or move it away and import the models again", store->path,
                 what);
    break;
  case SQLITE_IOERR: /* a limit on the size of files, a quota, a failing disk: SQLite does not tell them apart */
    g_set_error (error, VALISE_ERROR, VALISE_ERROR_NO_SPACE, "the library's database %s cannot be written (%s): free some space, and check the disk",
                 store->path, what);
    break;
  case SQLITE_CONSTRAINT:
    if (sqlite3_extended_errcode (store->db) == SQLITE_CONSTRAINT_FOREIGNKEY)
      g_set_error (error, VALISE_ERROR, VALISE_ERROR_NOT_FOUND, "this refers to a chat or message that is no longer in the library: open it again");
    else
      g_set_error (error, VALISE_ERROR, VALISE_ERROR_ARGUMENT, "the library does not take this (%s): report it as a bug", what);
    break;
  default:
    g_set_error (error, VALISE_ERROR, VALISE_ERROR_STORE, "the library's database %s cannot be used (%s): check the folder and its permissions",
                 store->path, what);
  }
  return FALSE;
}

static gboolean configure (ValiseStore *store, GError **error)
{
  sqlite3_busy_timeout (store->db, BUSY_TIMEOUT_MS);
  sqlite3_extended_result_codes (store->db, 1);
  g_autofree char *cache = g_strdup_printf ("PRAGMA cache_size = -%d", CACHE_KIB);
  if (!run (store, cache, error) || !run (store, "PRAGMA foreign_keys = ON", error))
    return FALSE;
  /* Changing the journal's mode wants the file for itself for a moment; the timeout does not cover that step. */
  for (int attempt = 0;; attempt++) {
    g_autoptr (GError) local = NULL;
    if (run (store, "PRAGMA journal_mode = WAL", &local))
      return TRUE;
    if (!g_error_matches (local, VALISE_ERROR, VALISE_ERROR_BUSY) || attempt >= BUSY_TIMEOUT_MS / 20) {
      g_propagate_error (error, g_steal_pointer (&local));
      return FALSE;
    }
    g_usleep (20000);
  }
}

static gboolean migrate (ValiseStore *store, GError **error)
{
  g_autoptr (GError) local = NULL;
  guint newest = valise_store_newest_version ();
  gint64 version = read_pragma (store, "PRAGMA user_version", &local);
  gint64 owner = local ? 0 : read_pragma (store, "PRAGMA application_id", &local);
  gint64 tables = local ? 0 : read_pragma (store, "SELECT count (*) FROM sqlite_master", &local);
  if (local) {
    g_propagate_error (error, g_steal_pointer (&local));
    return FALSE;
  }
  if (owner != APPLICATION_ID && tables > 0) {
    g_set_error (error, VALISE_ERROR, VALISE_ERROR_STORE, "%s is not a Valise library: choose another folder with VALISE_HOME", store->path);
    return FALSE;
  }
  if (version > newest) {
    g_set_error (error, VALISE_ERROR, VALISE_ERROR_STORE,
                 "%s was written by a newer Valise (version %" G_GINT64_FORMAT " of the library; this program knows %u): update Valise",
                 store->path, version, newest);
    return FALSE;
  }
  if (version == newest)
    return TRUE;
  if (!valise_store_begin (store, TRUE, error))
    return FALSE;
  /* Another process may have migrated while we waited. */
  version = read_pragma (store, "PRAGMA user_version", &local);
  gboolean done = local == NULL;
  for (guint n = (guint) version + 1; done && n <= newest; n++)
    done = run (store, valise_store_migration (n), &local);
  g_autofree char *seal = g_strdup_printf ("PRAGMA user_version = %u; PRAGMA application_id = %d", newest, APPLICATION_ID);
  if (done && version <= newest && run (store, seal, &local) && valise_store_commit (store, &local))
    return TRUE;
  valise_store_rollback (store);
  if (!local) /* it was a newer one: say so */
    return migrate (store, error);
  g_propagate_error (error, g_steal_pointer (&local));
  return FALSE;
}

static gint64 read_pragma (ValiseStore *store, const char *sql, GError **error)
{
  g_autoptr (sqlite3_stmt) statement = valise_store_query (store, error, sql, "");
  if (!statement || valise_store_step (store, statement, error) <= 0)
    return 0;
  return sqlite3_column_int64 (statement, 0);
}

static gboolean run (ValiseStore *store, const char *sql, GError **error)
{
  if (sqlite3_exec (store->db, sql, NULL, NULL, NULL) == SQLITE_OK)
    return TRUE;
  return store_fail (store, error);
}

static gboolean exec_list (ValiseStore *store, GError **error, const char *sql, const char *types, va_list arguments)
{
  g_autoptr (sqlite3_stmt) statement = NULL;
  if (sqlite3_prepare_v2 (store->db, sql, -1, &statement, NULL) != SQLITE_OK)
    return store_fail (store, error);
  bind_all (statement, types, arguments);
  int stepped;
  while ((stepped = valise_store_step (store, statement, error)) > 0)
    ;
  return stepped == 0;
}

static void bind_all (sqlite3_stmt *statement, const char *types, va_list arguments)
{
  for (int i = 0; types[i]; i++) {
    if (types[i] == 'i')
      sqlite3_bind_int64 (statement, i + 1, va_arg (arguments, gint64));
    else if (types[i] == 'd')
      sqlite3_bind_double (statement, i + 1, va_arg (arguments, double));
    else
      sqlite3_bind_text (statement, i + 1, va_arg (arguments, const char *), -1, SQLITE_TRANSIENT);
  }
}
