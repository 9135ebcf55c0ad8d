/* import.c: a model into the library, from a .gguf, a folder or an archive: gathered in a temporary folder, checked, hashed, and only
 * then moved to its content address together with its row. */
#include "app/library/unpack.h"
#include "app/library/library-private.h"
#include "engine/checkpoint/checkpoint.h"

#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <math.h>
#include <string.h>
#include <unistd.h>

#define MAX_FOLDER_DEPTH 4
#define MAX_LISTED 5

/* What was found, before it is checked. */
typedef struct {
  GPtrArray *paths;    /* of char *: the model's files, in order */
  GPtrArray *names;    /* of char *: how the source calls them */
  gboolean temporary;  /* the paths are in our own folder already */
  gboolean is_folder;  /* a checkpoint of safetensors, whose files keep their names */
  char *license;       /* from around the model, or NULL */
  char *folder;        /* is_folder: where they lie ... */
  char *called;        /* ... and what that is called */
} Found;

static void found_clear (Found *found)
{
  g_clear_pointer (&found->paths, g_ptr_array_unref);
  g_clear_pointer (&found->names, g_ptr_array_unref);
  g_clear_pointer (&found->license, g_free);
  g_clear_pointer (&found->folder, g_free);
  g_clear_pointer (&found->called, g_free);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC (Found, found_clear)

static ValiseModel *take (ValiseLibrary *library, const char *source, const char *name, gboolean stays, EngProgress progress, gpointer data,
                          GCancellable *cancellable, GError **error);
static gboolean hash_all (Found *found, GChecksum *checksum, ValiseSpan *span, GCancellable *cancellable, GError **error);
static gboolean is_gguf (const char *path, gboolean *yes, GError **error);
static gboolean is_of_checkpoint (const char *path);
static gboolean list_checkpoint (Found *found, const char *folder, GError **error);
static gboolean find_checkpoint (Found *found, const ValiseArchive *archive, const char *source, GError **error);
static void gather (const char *folder, guint depth, GPtrArray *paths);
static gboolean choose (Found *found, const char *source, GError **error);
static gboolean place (Found *found, const ValiseTemp *temp, GChecksum *checksum, char **moved, char **entry, ValiseSpan *span,
                       GCancellable *cancellable, GError **error);
static char *name_from (const char *file, const char *model_path);
static void say_source (GError **error, const char *temporary, const char *source);

ValiseModel *valise_library_import (ValiseLibrary *library, const char *source, const char *name, EngProgress progress, gpointer data,
                                    GCancellable *cancellable, GError **error)
{
  return take (library, source, name, FALSE, progress, data, cancellable, error);
}

ValiseModel *valise_library_link (ValiseLibrary *library, const char *source, const char *name, EngProgress progress, gpointer data,
                                  GCancellable *cancellable, GError **error)
{
  return take (library, source, name, TRUE, progress, data, cancellable, error);
}

static ValiseModel *take (ValiseLibrary *library, const char *source, const char *name, gboolean stays, EngProgress progress, gpointer data,
                          GCancellable *cancellable, GError **error)
{
  g_auto (Found) found = { 0 };
  g_auto (ValiseModelRow) row = { .kl = NAN };
  g_autofree char *asked = g_canonicalize_filename (source, NULL), *kept_as = NULL, *full = valise_resolve_cache (asked, &kept_as, error);
  ValiseSpan first = { progress, data, 0.0, 0.5 }, second = { progress, data, 0.5, 1.0 };
  gboolean gguf = FALSE;

  if (!full || (name && !valise_name_check (name, error)))
    return NULL;
  g_autoptr (ValiseTemp) temp = valise_temp_new (library->home, error);
  if (!temp)
    return NULL;
  if (g_file_test (full, G_FILE_TEST_IS_DIR)) {
    found.paths = g_ptr_array_new_with_free_func (g_free);
    gather (full, 0, found.paths);
    second.begin = 0;
    if (found.paths->len == 0 && eng_checkpoint_is_folder (full) && !list_checkpoint (&found, full, error))
      return NULL;
  } else if (is_of_checkpoint (full)) {
    g_autofree char *folder = g_path_get_dirname (full);
    second.begin = 0;
    if (!list_checkpoint (&found, folder, error))
      return NULL;
  } else if (!is_gguf (full, &gguf, error)) {
    return NULL;
  } else if (gguf) {
    found.paths = valise_shards_of (full, error);
    second.begin = 0;
  } else if (stays) {
    g_set_error (error, VALISE_ERROR, VALISE_ERROR_ARGUMENT, "%s is an archive, which cannot be used where it lies: import it without --link", full);
    return NULL;
  } else {
    g_auto (ValiseArchive) archive = { 0 };
    if (!valise_archive_extract (&archive, full, temp->path, valise_span_report, &first, cancellable, error))
      return NULL;
    found.paths = g_steal_pointer (&archive.files);
    found.names = g_steal_pointer (&archive.names);
    found.license = g_steal_pointer (&archive.license);
    found.temporary = TRUE;
    if (found.paths->len == 0 && !find_checkpoint (&found, &archive, full, error))
      return NULL;
  }
  if (!found.paths || (!found.is_folder && !choose (&found, full, error)))
    return NULL;

  /* The header is checked where it lies, before gigabytes are copied. Shards are checked once they lie together. */
  g_autofree char *config = found.is_folder ? g_build_filename (found.folder, "config.json", NULL) : NULL;
  if ((config || found.paths->len == 1) && !valise_model_row_read (&row, config ? config : found.paths->pdata[0], error)) {
    say_source (error, !found.temporary ? NULL : found.is_folder ? found.folder : found.paths->pdata[0], full);
    return NULL;
  }
  g_autoptr (GChecksum) checksum = g_checksum_new (G_CHECKSUM_SHA256);
  g_autofree char *moved = NULL, *entry = NULL;
  if (!(stays ? hash_all (&found, checksum, &second, cancellable, error) : place (&found, temp, checksum, &moved, &entry, &second, cancellable, error)))
    return NULL;
  g_autofree char *opened = stays ? g_strdup (config ? config : found.paths->pdata[0]) : entry ? g_build_filename (moved, entry, NULL) : g_strdup (moved);
  /* Again, on our own copy: the source may have changed under our hands. */
  if (!valise_model_row_read (&row, opened, error)) {
    say_source (error, found.is_folder && moved ? moved : opened, full);
    return NULL;
  }
  row.sha256 = g_strdup (g_checksum_get_string (checksum));
  row.source = g_strdup (asked);
  if (*row.license == '\0' && found.license) {
    g_free (row.license);
    row.license = g_steal_pointer (&found.license);
  }
  g_autofree char *called = found.is_folder ? g_strconcat (found.called, ".gguf", NULL) : NULL;
  g_autofree char *cached = kept_as ? g_strconcat (kept_as, ".gguf", NULL) : NULL;
  row.name = name ? g_strdup (name) : name_from (cached ? cached : called ? called : found.names->pdata[0], opened);
  return stays ? valise_library_add_reference (library, opened, &row, name == NULL, error)
               : valise_library_add_object (library, moved, entry, &row, name == NULL, error);
}

void valise_span_report (double fraction, const char *what, gpointer data)
{
  const ValiseSpan *span = data;
  if (span->progress)
    span->progress (span->begin + (span->end - span->begin) * CLAMP (fraction, 0, 1), what, span->data);
}

/* ---- helpers ---- */

/* A file that means the folder it lies in. */
static gboolean is_of_checkpoint (const char *path)
{
  g_autofree char *name = g_path_get_basename (path);
  return g_str_equal (name, "config.json") || g_str_has_suffix (name, ".safetensors") || g_str_has_suffix (name, ".safetensors.index.json");
}

static gboolean list_checkpoint (Found *found, const char *folder, GError **error)
{
  g_auto (GStrv) names = eng_checkpoint_files (folder, error);
  if (!names)
    return FALSE;
  g_clear_pointer (&found->paths, g_ptr_array_unref);
  g_clear_pointer (&found->names, g_ptr_array_unref);
  found->paths = g_ptr_array_new_with_free_func (g_free);
  found->names = g_ptr_array_new_with_free_func (g_free);
  found->is_folder = TRUE;
  found->folder = g_strdup (folder);
  found->called = g_path_get_basename (folder);
  for (guint i = 0; names[i]; i++) {
    g_ptr_array_add (found->paths, g_build_filename (folder, names[i], NULL));
    g_ptr_array_add (found->names, g_strdup (names[i]));
  }
  return TRUE;
}

/* The one checkpoint of safetensors that an archive without a GGUF holds; there may be none. */
static gboolean find_checkpoint (Found *found, const ValiseArchive *archive, const char *source, GError **error)
{
  const char *folder = NULL, *name = NULL;
  g_autoptr (GString) list = g_string_new (NULL);
  guint n = 0;
  for (guint i = 0; i < archive->folders->len; i++) {
    if (!eng_checkpoint_is_folder (archive->folders->pdata[i]))
      continue;
    folder = archive->folders->pdata[i];
    name = archive->folder_names->pdata[i];
    if (n++ < MAX_LISTED)
      g_string_append_printf (list, "%s%s", n > 1 ? ", " : "", *name ? name : ".");
  }
  if (n > 1) {
    g_set_error (error, VALISE_ERROR, VALISE_ERROR_ARGUMENT, "%s holds %u models (%s): unpack it and import one of their folders", source, n, list->str);
    return FALSE;
  }
  if (n == 0)
    return TRUE;
  if (!list_checkpoint (found, folder, error)) {
    say_source (error, folder, source);
    return FALSE;
  }
  g_free (found->called);
  found->called = g_path_get_basename (*name ? name : source);
  char *end = *name ? NULL : strrchr (found->called, '.');
  if (end)
    *end = '\0';
  if (!*name && g_str_has_suffix (found->called, ".tar"))
    found->called[strlen (found->called) - 4] = '\0';
  return TRUE;
}

static gboolean is_gguf (const char *path, gboolean *yes, GError **error)
{
  char magic[4] = { 0 };
  int fd = g_open (path, O_RDONLY | O_CLOEXEC | O_NONBLOCK, 0); /* a FIFO must not hang us */
  if (fd < 0)
    return valise_fail_errno (error, errno, "cannot open", path);
  GStatBuf info;
  gboolean regular = fstat (fd, &info) == 0 && S_ISREG (info.st_mode);
  gssize n = regular ? read (fd, magic, sizeof magic) : 0;
  close (fd);
  if (!regular) {
    g_set_error (error, VALISE_ERROR, VALISE_ERROR_ARGUMENT, "%s is not a file: import a .gguf, a folder, or an archive (.whl, .zip, .tar)", path);
    return FALSE;
  }
  /* A damaged .gguf is to be told so by the GGUF reader, not by the one for archives. */
  *yes = (n == 4 && memcmp (magic, "GGUF", 4) == 0) || g_str_has_suffix (path, ".gguf");
  return TRUE;
}

static int compare_strings (gconstpointer a, gconstpointer b)
{
  return strcmp (*(const char *const *) a, *(const char *const *) b);
}

static void gather (const char *folder, guint depth, GPtrArray *paths)
{
  g_autoptr (GDir) dir = g_dir_open (folder, 0, NULL);
  const char *name;
  while (dir && (name = g_dir_read_name (dir))) {
    g_autofree char *path = g_build_filename (folder, name, NULL);
    if (g_file_test (path, G_FILE_TEST_IS_DIR)) {
      if (depth < MAX_FOLDER_DEPTH && *name != '.')
        gather (path, depth + 1, paths);
    } else if (g_str_has_suffix (name, ".gguf") && g_file_test (path, G_FILE_TEST_IS_REGULAR)) {
      g_ptr_array_add (paths, g_steal_pointer (&path));
    }
  }
  if (depth == 0)
    g_ptr_array_sort (paths, compare_strings);
}

/* One model: a single file, or all the shards of one, brought into their order. */
static gboolean choose (Found *found, const char *source, GError **error)
{
  if (!found->names) {
    found->names = g_ptr_array_new_with_free_func (g_free);
    for (guint i = 0; i < found->paths->len; i++)
      g_ptr_array_add (found->names, g_path_get_basename (found->paths->pdata[i]));
  }
  guint n = found->paths->len;
  if (n == 0) {
    g_set_error (error, VALISE_ERROR, VALISE_ERROR_NOT_FOUND, "there is no .gguf model in %s: look for a download of this model in the GGUF format",
                 source);
    return FALSE;
  }
  guint number, count;
  if (n == 1 && !valise_shard_name (found->names->pdata[0], &number, &count))
    return TRUE;
  g_autofree char **ordered_paths = g_new0 (char *, n), **ordered_names = g_new0 (char *, n);
  gboolean one = TRUE;
  gsize stem = strlen (found->names->pdata[0]) - MIN (strlen (found->names->pdata[0]), strlen ("-00001-of-00003.gguf"));
  for (guint i = 0; i < n && one; i++) {
    const char *shard = found->names->pdata[i];
    one = valise_shard_name (shard, &number, &count) && count == n && strncmp (shard, found->names->pdata[0], stem) == 0
          && !ordered_paths[number - 1];
    if (one) {
      ordered_paths[number - 1] = found->paths->pdata[i];
      ordered_names[number - 1] = found->names->pdata[i];
    }
  }
  if (one) {
    memcpy (found->paths->pdata, ordered_paths, n * sizeof (char *));
    memcpy (found->names->pdata, ordered_names, n * sizeof (char *));
    return TRUE;
  }
  g_autoptr (GString) list = g_string_new (NULL);
  for (guint i = 0; i < n && i < MAX_LISTED; i++)
    g_string_append_printf (list, "%s%s", i > 0 ? ", " : "", (const char *) found->names->pdata[i]);
  if (n > MAX_LISTED)
    g_string_append (list, ", ...");
  if (n == 1)
    g_set_error (error, VALISE_ERROR, VALISE_ERROR_NOT_FOUND, "%s holds only one part (%s) of a model in several: put all parts together", source,
                 list->str);
  else
    g_set_error (error, VALISE_ERROR, VALISE_ERROR_ARGUMENT, "%s holds %u models or parts (%s): import one .gguf of them by its path", source, n,
                 list->str);
  return FALSE;
}

/* What stays where it is, read once for its checksum. */
static gboolean hash_all (Found *found, GChecksum *checksum, ValiseSpan *span, GCancellable *cancellable, GError **error)
{
  for (guint i = 0; i < found->paths->len; i++) {
    ValiseSpan part = { valise_span_report, span, (double) i / found->paths->len, (double) (i + 1) / found->paths->len };
    if (!valise_hash_file (found->paths->pdata[i], checksum, valise_span_report, &part, cancellable, error))
      return FALSE;
  }
  return TRUE;
}

/* Into one file, or one folder of shards, inside the temporary; hashed on the way. */
static gboolean place (Found *found, const ValiseTemp *temp, GChecksum *checksum, char **moved, char **entry, ValiseSpan *span,
                       GCancellable *cancellable, GError **error)
{
  guint n = found->paths->len;
  guint64 total = 0;
  for (guint i = 0; i < n; i++) {
    GStatBuf info;
    if (g_stat (found->paths->pdata[i], &info) < 0)
      return valise_fail_errno (error, errno, "cannot read", found->paths->pdata[i]);
    total += (guint64) info.st_size;
  }
  if (!found->temporary && !valise_check_space (temp->path, total, "this import", error))
    return FALSE;
  *moved = g_build_filename (temp->path, n > 1 ? "shards" : "model.gguf", NULL);
  if (n > 1 && g_mkdir (*moved, 0755) < 0)
    return valise_fail_errno (error, errno, "cannot create the folder", *moved);
  for (guint i = 0; i < n; i++) {
    ValiseSpan part = { valise_span_report, span, (double) i / n, (double) (i + 1) / n };
    g_autofree char *shard = found->is_folder ? g_strdup (found->names->pdata[i]) : g_strdup_printf ("model-%05u-of-%05u.gguf", i + 1, n);
    g_autofree char *target = n > 1 ? g_build_filename (*moved, shard, NULL) : g_strdup (*moved);
    const char *path = found->paths->pdata[i];
    if (n > 1 && i == 0)
      *entry = g_strdup (found->is_folder ? "config.json" : shard);
    if (!found->temporary) {
      if (!valise_copy_file (path, target, checksum, valise_span_report, &part, cancellable, error))
        return FALSE;
    } else if (g_rename (path, target) < 0) {
      return valise_fail_errno (error, errno, "cannot move", path);
    } else if (!valise_hash_file (target, checksum, valise_span_report, &part, cancellable, error)) {
      return FALSE;
    }
  }
  return TRUE;
}

/* File names are what people know a model by ("SmolLM2-135M-Instruct.Q4_1"); general.name often holds a training run's. It is taken
 * where the file name says nothing. */
static char *name_from (const char *file, const char *model_path)
{
  g_autofree char *base = g_path_get_basename (file);
  guint number, count;
  gsize length = strlen (base);
  gsize tail = valise_shard_name (base, &number, &count) ? strlen ("-00001-of-00003.gguf") : strlen (".gguf");
  base[length - MIN (length, tail)] = '\0';
  g_autofree char *lower = g_ascii_strdown (base, -1);
  gboolean hash = strlen (base) >= 32 && strspn (lower, "0123456789abcdef") == strlen (base);
  gboolean says_nothing = *base == '\0' || hash || g_str_equal (lower, "model") || g_str_has_prefix (lower, "ggml-model")
                          || g_str_has_prefix (lower, "unsloth.");
  g_autofree char *name = NULL;
  g_autoptr (EngGguf) gguf = says_nothing ? eng_checkpoint_open (model_path, NULL) : NULL;
  name = g_strdup (gguf ? eng_gguf_get_string (gguf, "general.name", "model") : base);
  g_strdelimit (name, "/\\\n\r\t", '-');
  g_strstrip (name);
  while (*name == '-')
    memmove (name, name + 1, strlen (name));
  return valise_name_check (name, NULL) ? g_steal_pointer (&name) : g_strdup ("model");
}

/* People know the source, not our temporary. */
static void say_source (GError **error, const char *temporary, const char *source)
{
  if (!error || !*error || !temporary)
    return;
  g_auto (GStrv) parts = g_strsplit ((*error)->message, temporary, -1);
  g_free ((*error)->message);
  (*error)->message = g_strjoinv (source, parts);
}
