/* library.c: opening a library, its models, their names, and the signals. The import, the fit and the chats have files of their own. */
#include "app/library/library-private.h"

#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

G_DEFINE_FINAL_TYPE (ValiseLibrary, valise_library, G_TYPE_OBJECT)

#define BIN_US (G_GINT64_CONSTANT (3600) * G_USEC_PER_SEC) /* how long a deleted chat outlives the opening of the library by others */
#define MODEL_COLUMNS \
  "models.id, parent_id, name, kind, models.sha256, architecture, parameters, bytes, bpw, license, source, kl, context, file"

static guint signals[VALISE_N_SIGNALS];

static gboolean sweep (ValiseLibrary *library, GError **error);
static char *place_of (ValiseLibrary *library, const char *file);
static void sweep_objects (ValiseLibrary *library, GHashTable *known);
static gboolean find_same (ValiseLibrary *library, const char *sha256, const char *name, ValiseModel **model, GError **error);
static gboolean insert_model (ValiseLibrary *library, ValiseModelRow *row, const char *file, gboolean make_free, GError **error);
static gboolean move_object (ValiseLibrary *library, const char *temp_path, const char *sha256, GError **error);
static gboolean name_taken (const char *name, GError **error);
static ValiseModel *model_from_row (ValiseLibrary *library, sqlite3_stmt *statement);
static ValiseModel *model_from_file (const char *path, GError **error);

/* ---- the object ---- */

static void valise_library_finalize (GObject *object)
{
  ValiseLibrary *library = VALISE_LIBRARY (object);
  valise_store_close (library->store);
  g_free (library->home);
  G_OBJECT_CLASS (valise_library_parent_class)->finalize (object);
}

static void valise_library_class_init (ValiseLibraryClass *class)
{
  G_OBJECT_CLASS (class)->finalize = valise_library_finalize;
  signals[VALISE_SIGNAL_MODELS] = g_signal_new ("models-changed", VALISE_TYPE_LIBRARY, G_SIGNAL_RUN_LAST, 0, NULL, NULL, NULL, G_TYPE_NONE, 0);
  signals[VALISE_SIGNAL_CHATS] = g_signal_new ("chats-changed", VALISE_TYPE_LIBRARY, G_SIGNAL_RUN_LAST, 0, NULL, NULL, NULL, G_TYPE_NONE, 0);
}

static void valise_library_init (ValiseLibrary *library)
{
}

typedef struct {
  GWeakRef library; /* weak: a program without a main loop never dispatches, and must still be able to close the library */
  ValiseLibrarySignal signal;
} Emission;

static gboolean emit_now (gpointer data)
{
  Emission *emission = data;
  g_autoptr (ValiseLibrary) library = g_weak_ref_get (&emission->library);
  if (!library)
    return G_SOURCE_REMOVE;
  g_rec_mutex_lock (&library->store->lock);
  library->signal_sources[emission->signal] = 0;
  g_rec_mutex_unlock (&library->store->lock);
  g_signal_emit (library, signals[emission->signal], 0);
  return G_SOURCE_REMOVE;
}

static void emission_free (gpointer data)
{
  Emission *emission = data;
  g_weak_ref_clear (&emission->library);
  g_free (emission);
}

void valise_library_emit (ValiseLibrary *library, ValiseLibrarySignal signal)
{
  G_GNUC_UNUSED g_autoptr (GRecMutexLocker) locker = g_rec_mutex_locker_new (&library->store->lock);
  if (library->signal_sources[signal])
    return;
  Emission *emission = g_new0 (Emission, 1);
  g_weak_ref_init (&emission->library, library);
  emission->signal = signal;
  library->signal_sources[signal] = g_idle_add_full (G_PRIORITY_DEFAULT, emit_now, emission, emission_free);
}

/* ---- opening ---- */

ValiseLibrary *valise_library_open (const char *home, GError **error)
{
  const char *chosen = home ? home : g_getenv ("VALISE_HOME");
  g_autoptr (ValiseLibrary) library = g_object_new (VALISE_TYPE_LIBRARY, NULL);
  library->home = chosen && *chosen ? g_canonicalize_filename (chosen, NULL) : g_build_filename (g_get_user_data_dir (), "valise", NULL);
  static const char *const folders[] = { "objects", "cache", "analysis", "tmp" };
  for (guint i = 0; i < G_N_ELEMENTS (folders); i++) {
    g_autofree char *path = g_build_filename (library->home, folders[i], NULL);
    if (g_mkdir_with_parents (path, 0700) < 0) {
      valise_fail_errno (error, errno, "cannot create the folder", path);
      return NULL;
    }
  }
  g_autofree char *path = g_build_filename (library->home, "library.db", NULL);
  library->store = valise_store_open (path, error);
  if (!library->store || !sweep (library, error))
    return NULL;
  return g_steal_pointer (&library);
}

const char *valise_library_get_home (ValiseLibrary *library)
{
  return library->home;
}

/* ---- models ---- */

GPtrArray *valise_library_list_models (ValiseLibrary *library, GError **error)
{
  G_GNUC_UNUSED g_autoptr (GRecMutexLocker) locker = g_rec_mutex_locker_new (&library->store->lock);
  /* Checkpoints by name, each followed by its fits from large to small; fits whose checkpoint is gone at their own place. */
  g_autoptr (sqlite3_stmt) statement
    = valise_store_query (library->store, error,
                          "SELECT " MODEL_COLUMNS " FROM models JOIN objects USING (sha256)"
                          " ORDER BY coalesce ((SELECT p.name FROM models p WHERE p.id = models.parent_id), name) COLLATE NOCASE,"
                          " parent_id IS NOT NULL, bytes DESC, name COLLATE NOCASE",
                          "");
  g_autoptr (GPtrArray) models = g_ptr_array_new_with_free_func (g_object_unref);
  int stepped = -1;
  while (statement && (stepped = valise_store_step (library->store, statement, error)) > 0)
    g_ptr_array_add (models, model_from_row (library, statement));
  return stepped == 0 ? g_steal_pointer (&models) : NULL;
}

ValiseModel *valise_library_find_model (ValiseLibrary *library, const char *name_or_path, GError **error)
{
  {
    G_GNUC_UNUSED g_autoptr (GRecMutexLocker) locker = g_rec_mutex_locker_new (&library->store->lock);
    g_autoptr (sqlite3_stmt) statement
      = valise_store_query (library->store, error,
                            "SELECT " MODEL_COLUMNS " FROM models JOIN objects USING (sha256) WHERE name = ? COLLATE NOCASE", "s", name_or_path);
    int stepped = statement ? valise_store_step (library->store, statement, error) : -1;
    if (stepped < 0)
      return NULL;
    if (stepped > 0)
      return model_from_row (library, statement);
  }
  if (g_file_test (name_or_path, G_FILE_TEST_IS_REGULAR))
    return model_from_file (name_or_path, error);
  g_autofree char *config = g_build_filename (name_or_path, "config.json", NULL);
  if (g_file_test (name_or_path, G_FILE_TEST_IS_DIR) && g_file_test (config, G_FILE_TEST_IS_REGULAR))
    return model_from_file (config, error);
  if (g_file_test (name_or_path, G_FILE_TEST_IS_DIR))
    g_set_error (error, VALISE_ERROR, VALISE_ERROR_NOT_FOUND, "%s is a folder: import it first with \"valise import\", or name a .gguf in it",
                 name_or_path);
  else
    g_set_error (error, VALISE_ERROR, VALISE_ERROR_NOT_FOUND,
                 "there is no model named \"%s\" and no such file: \"valise list\" shows the names", name_or_path);
  return NULL;
}

gboolean valise_library_remove (ValiseLibrary *library, ValiseModel *model, guint64 *freed_bytes, GError **error)
{
  guint64 freed = 0;
  if (valise_model_get_id (model) == 0) {
    g_set_error (error, VALISE_ERROR, VALISE_ERROR_ARGUMENT, "%s is not in the library: only models that \"valise list\" shows can be removed",
                 valise_model_get_name (model));
    return FALSE;
  }
  g_auto (ValiseHomeLock) home = { 0 };
  if (!valise_home_lock (&home, library->home, error))
    return FALSE;
  G_GNUC_UNUSED g_autoptr (GRecMutexLocker) locker = g_rec_mutex_locker_new (&library->store->lock);
  ValiseStore *store = library->store;
  const char *sha256 = valise_model_get_sha256 (model);
  if (!valise_store_begin (store, TRUE, error))
    return FALSE;
  if (!valise_store_exec (store, error, "DELETE FROM models WHERE id = ?", "i", valise_model_get_id (model)) || sqlite3_changes (store->db) == 0) {
    valise_store_rollback (store);
    if (error && !*error)
      g_set_error (error, VALISE_ERROR, VALISE_ERROR_NOT_FOUND, "%s is no longer in the library", valise_model_get_name (model));
    return FALSE;
  }
  if (!valise_store_exec (store, error, "DELETE FROM objects WHERE sha256 = ?1 AND NOT EXISTS (SELECT 1 FROM models WHERE sha256 = ?1)", "s",
                          sha256)) {
    valise_store_rollback (store);
    return FALSE;
  }
  gboolean last = sqlite3_changes (store->db) > 0;
  if (!valise_store_commit (store, error))
    return FALSE;
  if (last) {
    g_autofree char *folder = g_build_filename (library->home, "objects", sha256, NULL);
    g_autofree char *objects = g_build_filename (library->home, "objects/", NULL);
    gboolean is_ours = g_str_has_prefix (valise_model_get_path (model), objects); /* else it stays where it is */
    if (is_ours)
      valise_remove_tree (g_file_test (folder, G_FILE_TEST_IS_DIR) ? folder : valise_model_get_path (model));
    freed = (is_ours ? valise_model_get_bytes (model) : 0) + valise_library_drop_derived (library, sha256);
  }
  if (freed_bytes)
    *freed_bytes = freed;
  valise_library_emit (library, VALISE_SIGNAL_MODELS);
  valise_library_emit (library, VALISE_SIGNAL_CHATS);
  return TRUE;
}

gboolean valise_library_rename (ValiseLibrary *library, ValiseModel *model, const char *name, GError **error)
{
  if (!valise_name_check (name, error))
    return FALSE;
  G_GNUC_UNUSED g_autoptr (GRecMutexLocker) locker = g_rec_mutex_locker_new (&library->store->lock);
  g_autoptr (GError) local = NULL;
  gboolean done = valise_store_begin (library->store, TRUE, &local)
                  && valise_store_exec (library->store, &local, "UPDATE models SET name = ? WHERE id = ?", "si", name, valise_model_get_id (model));
  gboolean taken = !done && sqlite3_extended_errcode (library->store->db) == SQLITE_CONSTRAINT_UNIQUE;
  gboolean gone = done && sqlite3_changes (library->store->db) == 0;
  if (done && !gone && valise_store_commit (library->store, &local)) {
    valise_library_emit (library, VALISE_SIGNAL_MODELS);
    return TRUE;
  }
  valise_store_rollback (library->store);
  if (taken)
    name_taken (name, error);
  else if (gone)
    g_set_error (error, VALISE_ERROR, VALISE_ERROR_NOT_FOUND, "%s is no longer in the library", valise_model_get_name (model));
  else
    g_propagate_error (error, g_steal_pointer (&local));
  return FALSE;
}

gboolean valise_name_check (const char *name, GError **error)
{
  gsize length = strlen (name);
  gboolean plain = length >= 1 && length <= 200 && g_utf8_validate (name, -1, NULL) && *name != '-' && *name != ' ' && name[length - 1] != ' '
                   && !strchr (name, '/') && !g_str_has_suffix (name, ".gguf");
  for (const char *p = name; plain && *p; p = g_utf8_next_char (p))
    plain = !g_unichar_iscntrl (g_utf8_get_char (p));
  if (plain)
    return TRUE;
  g_autofree char *shown = g_strescape (name, NULL);
  g_set_error (error, VALISE_ERROR, VALISE_ERROR_ARGUMENT,
               "\"%.100s\" cannot be a model's name: use 1 to 200 characters without a slash, a leading \"-\" or \".gguf\" at the end", shown);
  return FALSE;
}

char *valise_library_free_name (ValiseLibrary *library, const char *name, GError **error)
{
  for (guint n = 1;; n++) {
    g_autofree char *candidate = n == 1 ? g_strdup (name) : g_strdup_printf ("%s-%u", name, n);
    g_autoptr (sqlite3_stmt) statement
      = valise_store_query (library->store, error, "SELECT 1 FROM models WHERE name = ? COLLATE NOCASE", "s", candidate);
    int stepped = statement ? valise_store_step (library->store, statement, error) : -1;
    if (stepped <= 0)
      return stepped == 0 ? g_steal_pointer (&candidate) : NULL;
  }
}

/* temp_path NULL: `entry` is the whole path of what stays where it is. */
static ValiseModel *add (ValiseLibrary *library, const char *temp_path, const char *entry, ValiseModelRow *row, gboolean make_free, GError **error)
{
  ValiseStore *store = library->store;
  gboolean folder = temp_path && g_file_test (temp_path, G_FILE_TEST_IS_DIR);
  g_autofree char *file = !temp_path ? g_strdup (entry) : folder ? g_build_filename ("objects", row->sha256, entry, NULL) : g_strconcat ("objects/", row->sha256, ".gguf", NULL);
  if (folder && !valise_sync_path (temp_path, error))
    return NULL;
  /* With the home lock no sweep of another process sees the file before its row. */
  g_auto (ValiseHomeLock) home = { 0 };
  if (!valise_home_lock (&home, library->home, error))
    return NULL;
  G_GNUC_UNUSED g_autoptr (GRecMutexLocker) locker = g_rec_mutex_locker_new (&store->lock);
  g_autoptr (ValiseModel) model = NULL;
  if (!valise_store_begin (store, TRUE, error))
    return NULL;
  /* A copy of what was known by reference takes its place. */
  if ((temp_path && !valise_store_exec (store, error, "UPDATE objects SET file = ? WHERE sha256 = ?", "ss", file, row->sha256))
      || !find_same (library, row->sha256, make_free ? NULL : row->name, &model, error)
      || (!model && !insert_model (library, row, file, make_free, error)) || (temp_path && !move_object (library, temp_path, row->sha256, error))) {
    valise_store_rollback (store);
    return NULL;
  }
  /* Should this fail, only the next opening of the library knows whether the row got through: its sweep removes the file if not. */
  if (!valise_store_commit (store, error))
    return NULL;
  valise_library_emit (library, VALISE_SIGNAL_MODELS);
  if (model)
    return g_steal_pointer (&model);
  g_free (row->path);
  row->path = place_of (library, file);
  return valise_model_new (row);
}

ValiseModel *valise_library_add_object (ValiseLibrary *library, const char *temp_path, const char *entry, ValiseModelRow *row,
                                        gboolean make_free, GError **error)
{
  return add (library, temp_path, entry, row, make_free, error);
}

ValiseModel *valise_library_add_reference (ValiseLibrary *library, const char *path, ValiseModelRow *row, gboolean make_free, GError **error)
{
  return add (library, NULL, path, row, make_free, error);
}

/* ---- helpers ---- */

/* An object's file is told from the home on, but for those that stay elsewhere. */
static char *place_of (ValiseLibrary *library, const char *file)
{
  return g_path_is_absolute (file) ? g_strdup (file) : g_build_filename (library->home, file, NULL);
}

/* The same content under the same name (or under any, when name is NULL) is that model: an import or a fit may be repeated, also by
 * two processes at once. */
static gboolean find_same (ValiseLibrary *library, const char *sha256, const char *name, ValiseModel **model, GError **error)
{
  g_autoptr (sqlite3_stmt) statement
    = valise_store_query (library->store, error,
                          "SELECT " MODEL_COLUMNS " FROM models JOIN objects USING (sha256)"
                          " WHERE models.sha256 = ?1 AND (?2 IS NULL OR name = ?2 COLLATE NOCASE) ORDER BY models.id LIMIT 1",
                          "sn", sha256, name);
  int stepped = statement ? valise_store_step (library->store, statement, error) : -1;
  *model = stepped > 0 ? model_from_row (library, statement) : NULL;
  return stepped >= 0;
}

/* Gives the row its id and its name. */
static gboolean insert_model (ValiseLibrary *library, ValiseModelRow *row, const char *file, gboolean make_free, GError **error)
{
  ValiseStore *store = library->store;
  g_autoptr (GError) local = NULL;
  char *name = make_free ? valise_library_free_name (library, row->name, error) : g_strdup (row->name);
  if (!name)
    return FALSE;
  g_free (row->name);
  row->name = name;
  if (!valise_store_exec (store, error, "INSERT INTO objects (sha256, file, bytes) VALUES (?, ?, ?) ON CONFLICT (sha256) DO NOTHING", "ssi",
                          row->sha256, file, (gint64) row->bytes))
    return FALSE;
  /* The checkpoint may have been removed while it was fitted. */
  if (valise_store_exec (store, &local,
                         "INSERT INTO models (name, kind, parent_id, sha256, architecture, parameters, bpw, license, source, kl, context, created_us)"
                         " VALUES (?, ?, (SELECT id FROM models WHERE id = ?), ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                         "siissidssdii", row->name, (gint64) row->kind, row->parent, row->sha256, row->architecture, (gint64) row->parameters,
                         row->bpw, row->license, row->source, row->kl, (gint64) row->context, g_get_real_time ())) {
    row->id = sqlite3_last_insert_rowid (store->db);
    return TRUE;
  }
  if (sqlite3_extended_errcode (store->db) == SQLITE_CONSTRAINT_UNIQUE)
    name_taken (row->name, error);
  else
    g_propagate_error (error, g_steal_pointer (&local));
  return FALSE;
}

/* The same content twice: the new copy takes the older one's place, which heals that one, should it have been damaged. Folders cannot be
 * renamed over one another, but exchanged; the older then goes with the temporary. */
static gboolean move_object (ValiseLibrary *library, const char *temp_path, const char *sha256, GError **error)
{
  gboolean folder = g_file_test (temp_path, G_FILE_TEST_IS_DIR);
  g_autofree char *objects = g_build_filename (library->home, "objects", NULL);
  g_autofree char *place = g_strconcat (objects, "/", sha256, folder ? "" : ".gguf", NULL);
  unsigned int how = folder && g_file_test (place, G_FILE_TEST_IS_DIR) ? RENAME_EXCHANGE : 0;
  if (renameat2 (AT_FDCWD, temp_path, AT_FDCWD, place, how) < 0)
    return valise_fail_errno (error, errno, "cannot move the model to", place);
  return valise_sync_path (objects, error);
}

static gboolean name_taken (const char *name, GError **error)
{
  g_set_error (error, VALISE_ERROR, VALISE_ERROR_EXISTS, "there already is a model named \"%s\": choose another name, or remove it first", name);
  return FALSE;
}

/* What a crash may have left: temporaries of dead processes, objects without a row, what was made from models that are gone. */
static gboolean sweep (ValiseLibrary *library, GError **error)
{
  ValiseStore *store = library->store;
  g_auto (ValiseHomeLock) home = { 0 };
  if (!valise_home_lock (&home, library->home, error))
    return FALSE;
  valise_temp_sweep (library->home);
  g_autoptr (GHashTable) known = g_hash_table_new_full (g_str_hash, g_str_equal, g_free, NULL);
  g_autoptr (sqlite3_stmt) statement = valise_store_query (store, error, "SELECT sha256 FROM objects", "");
  int stepped = -1;
  while (statement && (stepped = valise_store_step (store, statement, error)) > 0)
    g_hash_table_add (known, g_strdup ((const char *) sqlite3_column_text (statement, 0)));
  if (stepped < 0)
    return FALSE;
  sweep_objects (library, known);
  if (!valise_library_sweep_derived (library, known, error))
    return FALSE;
  g_clear_pointer (&statement, sqlite3_finalize);
  statement = valise_store_query (store, error, "SELECT 1 FROM chats WHERE deleted_us < ?", "i", g_get_real_time () - BIN_US);
  stepped = statement ? valise_store_step (store, statement, error) : -1;
  g_clear_pointer (&statement, sqlite3_finalize);
  if (stepped <= 0)
    return stepped == 0;
  return valise_store_begin (store, FALSE, error)
         && valise_store_exec (store, error, "DELETE FROM chats WHERE deleted_us < ?", "i", g_get_real_time () - BIN_US)
         && valise_store_commit (store, error);
}

static void sweep_objects (ValiseLibrary *library, GHashTable *known)
{
  g_autofree char *folder = g_build_filename (library->home, "objects", NULL);
  g_autoptr (GDir) dir = g_dir_open (folder, 0, NULL);
  const char *name;
  while (dir && (name = g_dir_read_name (dir))) {
    g_autofree char *sha256 = g_str_has_suffix (name, ".gguf") ? g_strndup (name, strlen (name) - 5) : g_strdup (name);
    g_autofree char *path = g_build_filename (folder, name, NULL);
    if (!g_hash_table_contains (known, sha256))
      valise_remove_tree (path);
  }
}

static char *column_string (sqlite3_stmt *statement, int column)
{
  const char *text = (const char *) sqlite3_column_text (statement, column);
  return g_strdup (text ? text : "");
}

static ValiseModel *model_from_row (ValiseLibrary *library, sqlite3_stmt *statement)
{
  g_autofree char *file = column_string (statement, 13);
  ValiseModelRow row = {
    .id = sqlite3_column_int64 (statement, 0),
    .parent = sqlite3_column_int64 (statement, 1),
    .name = column_string (statement, 2),
    .kind = sqlite3_column_int (statement, 3) == 1 ? VALISE_MODEL_FIT : VALISE_MODEL_CHECKPOINT,
    .sha256 = column_string (statement, 4),
    .architecture = column_string (statement, 5),
    .parameters = (guint64) sqlite3_column_int64 (statement, 6),
    .bytes = (guint64) sqlite3_column_int64 (statement, 7),
    .bpw = sqlite3_column_double (statement, 8),
    .license = column_string (statement, 9),
    .source = column_string (statement, 10),
    .kl = sqlite3_column_type (statement, 11) == SQLITE_NULL ? NAN : sqlite3_column_double (statement, 11),
    .context = (guint) sqlite3_column_int (statement, 12),
    .path = place_of (library, file),
  };
  return valise_model_new (&row);
}

static ValiseModel *model_from_file (const char *path, GError **error)
{
  g_auto (ValiseModelRow) row = { .kl = NAN };
  g_autofree char *full = g_canonicalize_filename (path, NULL);
  if (!valise_model_row_read (&row, full, error))
    return NULL;
  row.name = g_path_get_basename (path);
  if (g_str_has_suffix (row.name, ".gguf"))
    row.name[strlen (row.name) - 5] = '\0';
  row.source = g_strdup (full);
  row.sha256 = g_strdup ("");
  return valise_model_new (&row);
}
