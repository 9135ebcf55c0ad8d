/* archive_export.c: a model in one archive for another machine: its files, a card that says what it is, and their checksums, which an import
 * holds it to. Weights do not compress; the archive is a wrapping. */
#include "app/library/library-private.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { BLOCK = 1 << 20 };

typedef struct {
  struct archive *writer;
  const char *target;
  EngProgress progress;
  gpointer data;
  GCancellable *cancellable;
  guint64 done, total;
} Writing;

static gboolean fail (Writing *w, GError **error)
{
  int code = archive_errno (w->writer);
  if (code == ENOSPC || code == EDQUOT || code == EFBIG || code == EIO)
    return valise_fail_errno (error, code, "cannot write", w->target);
  g_set_error (error, VALISE_ERROR, VALISE_ERROR_ARGUMENT, "%s cannot be written as an archive: %s", w->target, archive_error_string (w->writer));
  return FALSE;
}

static gboolean begin_entry (Writing *w, const char *name, guint64 size, GError **error)
{
  struct archive_entry *entry = archive_entry_new ();
  archive_entry_set_pathname (entry, name);
  archive_entry_set_size (entry, (la_int64_t) size);
  archive_entry_set_filetype (entry, AE_IFREG);
  archive_entry_set_perm (entry, 0644);
  archive_entry_set_mtime (entry, (time_t) (g_get_real_time () / G_USEC_PER_SEC), 0);
  int code = archive_write_header (w->writer, entry);
  archive_entry_free (entry);
  return code >= ARCHIVE_WARN || fail (w, error);
}

static gboolean add_text (Writing *w, const char *name, const char *text, GError **error)
{
  return begin_entry (w, name, strlen (text), error) && (archive_write_data (w->writer, text, strlen (text)) == (la_ssize_t) strlen (text) || fail (w, error));
}

/* Copies a file in, and its checksum to `sums`. */
static gboolean add_file (Writing *w, const char *path, const char *name, GString *sums, GError **error)
{
  g_autofree guint8 *block = g_malloc (BLOCK);
  g_autoptr (GChecksum) sum = g_checksum_new (G_CHECKSUM_SHA256);
  int in = g_open (path, O_RDONLY | O_CLOEXEC, 0);
  struct stat info;
  if (in < 0 || fstat (in, &info) < 0) {
    valise_fail_errno (error, errno, "cannot read", path);
    if (in >= 0)
      close (in);
    return FALSE;
  }
  gboolean fine = begin_entry (w, name, (guint64) info.st_size, error);
  gssize n = 0;
  while (fine && (n = read (in, block, BLOCK)) > 0) {
    g_checksum_update (sum, block, n);
    fine = (archive_write_data (w->writer, block, (gsize) n) == n || fail (w, error)) && valise_check_cancelled (w->cancellable, error);
    w->done += (guint64) n;
    if (w->progress)
      w->progress (MIN (1.0, (double) w->done / (double) MAX (w->total, 1)), name, w->data);
  }
  if (fine && n < 0)
    fine = valise_fail_errno (error, errno, "cannot read", path);
  close (in);
  g_string_append_printf (sums, "%s  %s\n", g_checksum_get_string (sum), name);
  return fine;
}

static char *card (ValiseModel *model)
{
  g_autoptr (EngCheckpointSource) source = valise_model_describe_weights (model, NULL);
  g_autofree char *weights = source ? valise_weights_text (source) : NULL, *bytes = valise_size_format (valise_model_get_bytes (model));
  GString *text = g_string_new (NULL);
  g_string_append_printf (text, "# %s\n\n", valise_model_get_name (model));
  g_string_append_printf (text, "| | |\n|---|---|\n| kind | %s |\n| architecture | %s |\n| parameters | %" G_GUINT64_FORMAT " |\n| size | %s, %.2f bits per weight |\n",
                          valise_model_get_kind (model) == VALISE_MODEL_FIT ? "a fit made by Valise" : "checkpoint", valise_model_get_architecture (model),
                          valise_model_get_parameters (model), bytes, valise_model_get_bpw (model));
  g_string_append_printf (text, "| weights | %s |\n| context | %u tokens |\n", weights ? weights : "unknown", valise_model_get_context (model));
  if (isfinite (valise_model_get_kl (model)))
    g_string_append_printf (text, "| KL divergence from its checkpoint | %.4f |\n", valise_model_get_kl (model));
  g_string_append_printf (text, "| licence | %s |\n\n`valise import` takes this archive as it is and holds it to SHA256SUMS.\n",
                          *valise_model_get_license (model) ? valise_model_get_license (model) : "not stated");
  return g_string_free (text, FALSE);
}

static gboolean write_entries (Writing *w, ValiseModel *model, GPtrArray *files, GError **error)
{
  g_autoptr (GString) sums = g_string_new (NULL);
  g_autofree char *text = card (model);
  const char *name = valise_model_get_name (model);
  gboolean is_folder = valise_is_checkpoint_folder (valise_model_get_path (model)); /* whose files keep their names */
  if (!add_text (w, "README.md", text, error))
    return FALSE;
  for (guint i = 0; i < files->len; i++) {
    g_autofree char *own = g_path_get_basename (files->pdata[i]);
    g_autofree char *entry = is_folder         ? g_build_filename (name, own, NULL)
                             : files->len == 1 ? g_strconcat (name, ".gguf", NULL)
                                               : g_strdup_printf ("%s-%05u-of-%05u.gguf", name, i + 1, files->len);
    if (!add_file (w, files->pdata[i], entry, sums, error))
      return FALSE;
  }
  return add_text (w, "SHA256SUMS", sums->str, error);
}

/* The kind of archive that a name asks for. */
static gboolean choose_kind (struct archive *writer, const char *path)
{
  if (g_str_has_suffix (path, ".zip"))
    return archive_write_set_format_zip (writer) == ARCHIVE_OK && archive_write_set_options (writer, "zip:compression=store") == ARCHIVE_OK;
  archive_write_set_format_pax_restricted (writer);
  if (g_str_has_suffix (path, ".tar.zst"))
    return archive_write_add_filter_zstd (writer) == ARCHIVE_OK;
  return g_str_has_suffix (path, ".tar");
}

gboolean valise_is_archive_name (const char *path)
{
  return g_str_has_suffix (path, ".zip") || g_str_has_suffix (path, ".tar.zst") || g_str_has_suffix (path, ".tar");
}

gboolean valise_library_export_archive (ValiseLibrary *library, ValiseModel *model, const char *path, EngProgress progress, gpointer data,
                                        GCancellable *cancellable, GError **error)
{
  g_autofree char *target = g_canonicalize_filename (path, NULL), *folder = g_path_get_dirname (target), *random = g_uuid_string_random ();
  g_autofree char *temporary = g_strdup_printf ("%s/.valise-%s", folder, random);
  g_autoptr (GPtrArray) files = valise_shards_of (valise_model_get_path (model), error);
  if (!files)
    return FALSE;
  if (g_file_test (target, G_FILE_TEST_EXISTS)) {
    g_set_error (error, VALISE_ERROR, VALISE_ERROR_EXISTS, "%s is there already: choose another name, or remove it first", target);
    return FALSE;
  }
  if (!valise_check_space (folder, valise_model_get_bytes (model), "this export", error))
    return FALSE;
  int fd = g_open (temporary, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
  if (fd < 0)
    return valise_fail_errno (error, errno, "cannot create", target);
  Writing w = { .writer = archive_write_new (), .target = target, .progress = progress, .data = data, .cancellable = cancellable,
                .total = valise_model_get_bytes (model) };
  gboolean fine = (choose_kind (w.writer, target) && archive_write_open_fd (w.writer, fd) == ARCHIVE_OK) || fail (&w, error);
  fine = fine && write_entries (&w, model, files, error) && (archive_write_close (w.writer) == ARCHIVE_OK || fail (&w, error));
  archive_write_free (w.writer);
  if (fine && (fsync (fd) < 0 || renameat2 (AT_FDCWD, temporary, AT_FDCWD, target, RENAME_NOREPLACE) < 0))
    fine = valise_fail_errno (error, errno, "cannot create", target);
  close (fd);
  if (!fine)
    g_unlink (temporary);
  return fine && valise_sync_path (folder, error);
}
