/* test_store.c: the database under the library: every version leads to the newest, and a file that is none of ours is told apart. */
#include "app/library/library.h"
#include "app/library/store.h"
#include "tests/fixtures/scratch.h"

#include <glib/gstdio.h>
#include <string.h>

#define APPLICATION_ID 0x56414c53

static char *fresh_path (void)
{
  static guint n;
  g_autofree char *name = g_strdup_printf ("store-%u.db", n++);
  return scratch_path (name);
}

static gint64 number (sqlite3 *db, const char *sql)
{
  sqlite3_stmt *statement = NULL;
  g_assert_cmpint (sqlite3_prepare_v2 (db, sql, -1, &statement, NULL), ==, SQLITE_OK);
  g_assert_cmpint (sqlite3_step (statement), ==, SQLITE_ROW);
  gint64 value = sqlite3_column_int64 (statement, 0);
  sqlite3_finalize (statement);
  return value;
}

static char *text (sqlite3 *db, const char *sql)
{
  GString *all = g_string_new (NULL);
  sqlite3_stmt *statement = NULL;
  g_assert_cmpint (sqlite3_prepare_v2 (db, sql, -1, &statement, NULL), ==, SQLITE_OK);
  while (sqlite3_step (statement) == SQLITE_ROW)
    g_string_append_printf (all, "%s\n", (const char *) sqlite3_column_text (statement, 0));
  sqlite3_finalize (statement);
  return g_string_free (all, FALSE);
}

static void execute (sqlite3 *db, const char *sql)
{
  char *message = NULL;
  int code = sqlite3_exec (db, sql, NULL, NULL, &message);
  g_assert_cmpstr (message, ==, NULL);
  g_assert_cmpint (code, ==, SQLITE_OK);
}

static sqlite3 *raw (const char *path)
{
  sqlite3 *db;
  g_assert_cmpint (sqlite3_open (path, &db), ==, SQLITE_OK);
  return db;
}

static ValiseStore *opened (const char *path)
{
  g_autoptr (GError) error = NULL;
  ValiseStore *store = valise_store_open (path, &error);
  g_assert_no_error (error);
  g_assert_nonnull (store);
  return store;
}

#define SCHEMA "SELECT type || ' ' || name || ' ' || coalesce (sql, '') FROM sqlite_master ORDER BY type, name"

static void test_fresh (void)
{
  g_autofree char *path = fresh_path ();
  g_autoptr (ValiseStore) store = opened (path);
  g_assert_cmpint (number (store->db, "PRAGMA user_version"), ==, valise_store_newest_version ());
  g_assert_cmpint (number (store->db, "PRAGMA application_id"), ==, APPLICATION_ID);
  g_assert_cmpint (number (store->db, "PRAGMA foreign_keys"), ==, 1);
  g_autofree char *journal = text (store->db, "PRAGMA journal_mode"), *integrity = text (store->db, "PRAGMA integrity_check");
  g_assert_cmpstr (journal, ==, "wal\n");
  g_assert_cmpstr (integrity, ==, "ok\n");
  /* Keys are not only declared. */
  g_autoptr (GError) error = NULL;
  g_assert_false (valise_store_exec (store, &error, "INSERT INTO messages (chat_id, role, created_us) VALUES (12345, 'user', 0)", ""));
  g_assert_error (error, VALISE_ERROR, VALISE_ERROR_NOT_FOUND);
}

/* From each version there ever was: what the person had is there, and the schema is the one a new library has. */
static void test_migrations (void)
{
  g_autofree char *reference_path = fresh_path ();
  g_autoptr (ValiseStore) reference = opened (reference_path);
  g_autofree char *schema = text (reference->db, SCHEMA);
  guint newest = valise_store_newest_version ();
  g_assert_cmpuint (newest, >=, 1);
  g_assert_null (valise_store_migration (newest + 1));
  for (guint version = 0; version <= newest; version++) {
    g_autofree char *path = fresh_path ();
    sqlite3 *db = raw (path);
    for (guint n = 1; n <= version; n++)
      execute (db, valise_store_migration (n));
    if (version > 0) {
      g_autofree char *seal = g_strdup_printf ("PRAGMA user_version = %u; PRAGMA application_id = %d", version, APPLICATION_ID);
      execute (db, seal);
      execute (db, "INSERT INTO objects (sha256, file, bytes) VALUES (hex (zeroblob (32)), 'objects/x.gguf', 5);"
                   "INSERT INTO models (name, kind, sha256, architecture, parameters, bpw, context, created_us)"
                   " VALUES ('old', 0, hex (zeroblob (32)), 'llama', 1, 16, 512, 1);"
                   "INSERT INTO chats (title, created_us, updated_us, temperature, top_k, top_p, min_p, repeat_penalty, repeat_last_n, seed)"
                   " VALUES ('kept', 1, 1, 0.7, 40, 0.9, 0.05, 1, 64, 0);"
                   "INSERT INTO messages (chat_id, role, content, created_us) VALUES (1, 'user', 'remember me', 1)");
    }
    if (version == 1)
      execute (db, "INSERT INTO packed_files (file, source, bytes, mtime_ns) VALUES (hex (zeroblob (32)) || '.xbit.gguf', '/a.gguf', 5, 7)");
    sqlite3_close (db);
    g_autoptr (ValiseStore) store = opened (path);
    g_assert_cmpint (number (store->db, "SELECT count (*) FROM outside_files WHERE path = '/a.gguf' AND bytes = 5 AND mtime_ns = 7"), ==, version == 1);
    g_autofree char *now = text (store->db, SCHEMA);
    g_assert_cmpstr (now, ==, schema);
    g_assert_cmpint (number (store->db, "PRAGMA user_version"), ==, newest);
    g_assert_cmpint (number (store->db, "SELECT count (*) FROM chats"), ==, version > 0);
    g_assert_cmpint (number (store->db, "SELECT count (*) FROM models WHERE name = 'old'"), ==, version > 0);
    g_assert_cmpint (number (store->db, "SELECT count (*) FROM messages_text WHERE messages_text MATCH 'remember'"), ==, version > 0);
  }
}

/* A migration that cannot go through changes nothing. */
static void test_failed_migration (void)
{
  g_autofree char *path = fresh_path ();
  g_autoptr (GError) error = NULL;
  sqlite3 *db = raw (path);
  g_autofree char *seal = g_strdup_printf ("PRAGMA application_id = %d; CREATE TABLE messages (other)", APPLICATION_ID);
  execute (db, seal);
  g_assert_null (valise_store_open (path, &error));
  g_assert_nonnull (error);
  g_assert_cmpint (number (db, "PRAGMA user_version"), ==, 0);
  g_assert_cmpint (number (db, "SELECT count (*) FROM sqlite_master"), ==, 1);
  sqlite3_close (db);
}

static void test_newer (void)
{
  g_autofree char *path = fresh_path ();
  g_autoptr (GError) error = NULL;
  valise_store_close (opened (path));
  sqlite3 *db = raw (path);
  g_autofree char *newer = g_strdup_printf ("PRAGMA user_version = %u", valise_store_newest_version () + 1);
  execute (db, newer);
  g_assert_null (valise_store_open (path, &error));
  g_assert_error (error, VALISE_ERROR, VALISE_ERROR_STORE);
  g_assert_nonnull (strstr (error->message, "was written by a newer Valise"));
  g_assert_nonnull (strstr (error->message, "update Valise"));
  g_assert_nonnull (strstr (error->message, path));
  g_assert_cmpint (number (db, "PRAGMA user_version"), ==, valise_store_newest_version () + 1);
  sqlite3_close (db);
}

static void test_foreign (void)
{
  g_autofree char *path = fresh_path (), *words = fresh_path (), *folder = fresh_path ();
  g_autoptr (GError) error = NULL;
  sqlite3 *db = raw (path);
  execute (db, "CREATE TABLE bookmarks (url TEXT)");
  sqlite3_close (db);
  g_assert_null (valise_store_open (path, &error));
  g_assert_error (error, VALISE_ERROR, VALISE_ERROR_STORE);
  g_assert_nonnull (strstr (error->message, "is not a Valise library"));
  g_clear_error (&error);

  g_autofree char *poem = g_strnfill (8192, 'p');
  scratch_write (words, poem, 8192);
  g_assert_null (valise_store_open (words, &error));
  g_assert_error (error, VALISE_ERROR, VALISE_ERROR_DAMAGED);
  g_clear_error (&error);

  g_assert_cmpint (g_mkdir (folder, 0700), ==, 0);
  g_assert_null (valise_store_open (folder, &error));
  g_assert_error (error, VALISE_ERROR, VALISE_ERROR_STORE);
}

/* A library whose database has lost bytes either still serves or says what is wrong: it never takes the program down. */
static void test_damaged (void)
{
  g_autofree char *home = scratch_path ("damaged"), *path = g_build_filename (home, "library.db", NULL);
  {
    g_autoptr (ValiseLibrary) library = valise_library_open (home, NULL);
    for (guint i = 0; i < 20; i++) {
      g_autoptr (ValiseChat) chat = valise_library_create_chat (library, 0, NULL);
      for (guint j = 0; j < 10; j++)
        g_assert_cmpint (valise_library_add_message (library, chat->id, 0, "user", "some words to be found again", NULL), >, 0);
    }
  }
  g_autoptr (GBytes) good = scratch_read (path);
  gsize size = g_bytes_get_size (good);
  g_autoptr (GRand) random = g_rand_new_with_seed (5);
  guint told = 0;
  for (guint i = 0; i < 300; i++) {
    g_autofree guint8 *bad = g_memdup2 (g_bytes_get_data (good, NULL), size);
    gsize length = i % 3 == 0 ? (gsize) g_rand_int_range (random, 1, (gint32) size) : size;
    for (guint j = 0; i % 3 != 0 && j < 1 + i / 10; j++)
      bad[g_rand_int_range (random, 0, i % 2 ? 4096 : (gint32) size)] ^= (guint8) (1 << g_rand_int_range (random, 0, 8));
    scratch_write (path, bad, length);
    g_autofree char *wal = g_strconcat (path, "-wal", NULL), *shm = g_strconcat (path, "-shm", NULL);
    g_unlink (wal);
    g_unlink (shm);
    g_autoptr (GError) error = NULL;
    g_autoptr (ValiseLibrary) library = valise_library_open (home, &error);
    g_autoptr (GPtrArray) chats = library ? valise_library_list_chats (library, "words", &error) : NULL;
    g_autoptr (GPtrArray) branch = chats ? valise_library_get_branch (library, 1, &error) : NULL;
    if (branch)
      continue;
    told++;
    g_assert_nonnull (error);
    g_assert_true (error->domain == VALISE_ERROR);
    g_assert_nonnull (strstr (error->message, path));
  }
  g_assert_cmpuint (told, >, 50);
}

static void test_transactions (void)
{
  g_autofree char *path = fresh_path ();
  g_autoptr (ValiseStore) one = opened (path), two = opened (path);
  g_autoptr (GError) error = NULL;
  sqlite3_busy_timeout (two->db, 20);
  g_assert_true (valise_store_begin (one, TRUE, &error));
  g_assert_cmpint (number (one->db, "PRAGMA synchronous"), ==, 2);
  g_assert_true (valise_store_set_setting (one, "a", "1", &error));
  /* Readers are not held up, writers are told. */
  g_assert_null (valise_store_get_setting (two, "a"));
  g_assert_false (valise_store_begin (two, FALSE, &error));
  g_assert_error (error, VALISE_ERROR, VALISE_ERROR_BUSY);
  g_clear_error (&error);
  valise_store_rollback (one);
  g_assert_null (valise_store_get_setting (one, "a"));
  g_assert_true (valise_store_begin (two, FALSE, &error));
  g_assert_true (valise_store_set_setting (two, "a", "2", &error));
  g_assert_true (valise_store_end (two, TRUE, &error));
  g_autofree char *value = valise_store_get_setting (one, "a");
  g_assert_cmpstr (value, ==, "2");
  g_assert_true (valise_store_begin (two, FALSE, &error));
  g_assert_true (valise_store_set_setting (two, "a", "3", &error));
  g_assert_false (valise_store_end (two, FALSE, &error));
  g_autofree char *kept = valise_store_get_setting (one, "a");
  g_assert_cmpstr (kept, ==, "2");
}

static gpointer open_one (gpointer path)
{
  valise_store_close (opened (path));
  return NULL;
}

static void test_opened_at_once (void)
{
  for (guint round = 0; round < 5; round++) {
    g_autofree char *path = fresh_path ();
    GThread *threads[8];
    for (guint i = 0; i < G_N_ELEMENTS (threads); i++)
      threads[i] = g_thread_new ("open", open_one, path);
    for (guint i = 0; i < G_N_ELEMENTS (threads); i++)
      g_thread_join (threads[i]);
    g_autoptr (ValiseStore) store = opened (path);
    g_assert_cmpint (number (store->db, "PRAGMA user_version"), ==, valise_store_newest_version ());
  }
}

int main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/store/fresh", test_fresh);
  g_test_add_func ("/store/every-version-to-the-newest", test_migrations);
  g_test_add_func ("/store/failed-migration-changes-nothing", test_failed_migration);
  g_test_add_func ("/store/newer-is-refused", test_newer);
  g_test_add_func ("/store/foreign-is-refused", test_foreign);
  g_test_add_func ("/store/damaged-is-told", test_damaged);
  g_test_add_func ("/store/transactions", test_transactions);
  g_test_add_func ("/store/opened-at-once", test_opened_at_once);
  int status = g_test_run ();
  scratch_clean ();
  return status;
}
