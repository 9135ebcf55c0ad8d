/* transfer.c: models out of the library (export) and their files held against their checksums (verify). */
#include "app/library/library-private.h"
#include "engine/checkpoint/checkpoint.h"

#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* A file on its way to `target`. It has no name before it is whole, so that nothing is left of it however the program ends; only where
 * the file system cannot do that has it a temporary one. */
typedef struct {
  int fd;
  char *target, *temporary;
} Outgoing;

static void outgoing_clear (gpointer data);
static gboolean exists_already (const char *path, GError **error);
static gboolean outgoing_copy (Outgoing *file, const char *folder, const char *source, ValiseSpan *span, GCancellable *cancellable, GError **error);
static gboolean outgoing_place (Outgoing *file, GError **error);
static char *target_path (ValiseModel *model, const char *path);
static gboolean check_checksum (ValiseModel *model, EngProgress progress, gpointer data, GCancellable *cancellable, GError **error);

gboolean valise_library_export (ValiseLibrary *library, ValiseModel *model, const char *path, EngProgress progress, gpointer data,
                                GCancellable *cancellable, GError **error)
{
  g_autoptr (GPtrArray) shards = valise_shards_of (valise_model_get_path (model), error);
  if (!shards)
    return FALSE;
  g_autofree char *target = target_path (model, path);
  gboolean is_folder = valise_is_checkpoint_folder (valise_model_get_path (model)); /* its files go into a folder of the name */
  if (is_folder && g_str_has_suffix (target, ".gguf"))
    target[strlen (target) - 5] = '\0';
  if (is_folder && g_file_test (target, G_FILE_TEST_EXISTS))
    return exists_already (target, error);
  g_autofree char *folder = is_folder ? g_strdup (target) : g_path_get_dirname (target);
  if (is_folder && g_mkdir (folder, 0755) < 0)
    return valise_fail_errno (error, errno, "cannot create the folder", folder);
  if (!g_file_test (folder, G_FILE_TEST_IS_DIR)) {
    g_set_error (error, VALISE_ERROR, VALISE_ERROR_NOT_FOUND, "there is no folder %s: create it first", folder);
    return FALSE;
  }
  if (!valise_check_space (folder, valise_model_get_bytes (model), "this export", error))
    return FALSE;
  g_autoptr (GArray) files = g_array_new (FALSE, TRUE, sizeof (Outgoing));
  g_array_set_clear_func (files, outgoing_clear);
  gsize stem = strlen (target) - (g_str_has_suffix (target, ".gguf") ? 5 : 0);
  for (guint i = 0; i < shards->len; i++) {
    Outgoing file = { .fd = -1 };
    g_autofree char *own = g_path_get_basename (shards->pdata[i]);
    file.target = is_folder          ? g_build_filename (target, own, NULL)
                  : shards->len == 1 ? g_strdup (target)
                                     : g_strdup_printf ("%.*s-%05u-of-%05u.gguf", (int) stem, target, i + 1, shards->len);
    g_array_append_val (files, file);
    ValiseSpan part = { progress, data, (double) i / shards->len, (double) (i + 1) / shards->len };
    if (!outgoing_copy (&g_array_index (files, Outgoing, i), folder, shards->pdata[i], &part, cancellable, error))
      return FALSE;
  }
  for (guint i = 0; i < files->len; i++) {
    if (outgoing_place (&g_array_index (files, Outgoing, i), error))
      continue;
    while (i-- > 0)
      g_unlink (g_array_index (files, Outgoing, i).target);
    return FALSE;
  }
  return valise_sync_path (folder, error);
}

gboolean valise_library_verify (ValiseLibrary *library, ValiseModel *model, EngProgress progress, gpointer data, GCancellable *cancellable,
                                GError **error)
{
  if (valise_model_get_id (model) != 0 && !check_checksum (model, progress, data, cancellable, error))
    return FALSE;
  g_auto (ValiseModelRow) row = { .kl = NAN };
  if (!valise_model_row_read (&row, valise_model_get_path (model), error))
    return FALSE;
  g_autoptr (EngGguf) gguf = eng_checkpoint_open (valise_model_get_path (model), error);
  if (!gguf)
    return FALSE;
  if (!eng_gguf_is_computable (gguf))
    return TRUE;
  /* Packed matrices carry a structure of their own, which opening checks. */
  g_autoptr (EngModel) opened = eng_model_new (gguf, error);
  return opened != NULL;
}

/* ---- helpers ---- */

static void outgoing_clear (gpointer data)
{
  Outgoing *file = data;
  if (file->fd >= 0)
    close (file->fd);
  if (file->temporary)
    g_unlink (file->temporary);
  g_free (file->temporary);
  g_free (file->target);
}

static gboolean exists_already (const char *path, GError **error)
{
  g_set_error (error, VALISE_ERROR, VALISE_ERROR_EXISTS, "%s is there already: choose another name, or remove it first", path);
  return FALSE;
}

static gboolean outgoing_copy (Outgoing *file, const char *folder, const char *source, ValiseSpan *span, GCancellable *cancellable, GError **error)
{
  if (g_file_test (file->target, G_FILE_TEST_EXISTS)) /* told before minutes of copying; placing looks again */
    return exists_already (file->target, error);
  file->fd = g_open (folder, O_TMPFILE | O_RDWR | O_CLOEXEC, 0644);
  if (file->fd < 0) {
    g_autofree char *random = g_uuid_string_random ();
    file->temporary = g_strdup_printf ("%s/.valise-%s", folder, random);
    file->fd = g_open (file->temporary, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
  }
  if (file->fd < 0)
    return valise_fail_errno (error, errno, "cannot create", file->target);
  return valise_copy_into (source, file->fd, file->target, NULL, valise_span_report, span, cancellable, error);
}

static gboolean outgoing_place (Outgoing *file, GError **error)
{
  g_autofree char *handle = g_strdup_printf ("/proc/self/fd/%d", file->fd);
  int placed = file->temporary ? renameat2 (AT_FDCWD, file->temporary, AT_FDCWD, file->target, RENAME_NOREPLACE)
                               : linkat (AT_FDCWD, handle, AT_FDCWD, file->target, AT_SYMLINK_FOLLOW);
  if (placed < 0)
    return errno == EEXIST ? exists_already (file->target, error) : valise_fail_errno (error, errno, "cannot create", file->target);
  g_clear_pointer (&file->temporary, g_free);
  return TRUE;
}

/* A folder stands for a file of the model's name in it. */
static char *target_path (ValiseModel *model, const char *path)
{
  g_autofree char *full = g_canonicalize_filename (path, NULL);
  if (!g_file_test (full, G_FILE_TEST_IS_DIR))
    return g_steal_pointer (&full);
  return g_strconcat (full, "/", valise_model_get_name (model), ".gguf", NULL);
}

static gboolean check_checksum (ValiseModel *model, EngProgress progress, gpointer data, GCancellable *cancellable, GError **error)
{
  g_autoptr (GPtrArray) shards = valise_shards_of (valise_model_get_path (model), error);
  g_autoptr (GChecksum) checksum = g_checksum_new (G_CHECKSUM_SHA256);
  for (guint i = 0; shards && i < shards->len; i++) {
    ValiseSpan part = { progress, data, (double) i / shards->len, (double) (i + 1) / shards->len };
    if (!valise_hash_file (shards->pdata[i], checksum, valise_span_report, &part, cancellable, error))
      return FALSE;
  }
  if (!shards)
    return FALSE;
  const char *found = g_checksum_get_string (checksum);
  if (g_str_equal (found, valise_model_get_sha256 (model)))
    return TRUE;
  g_set_error (error, VALISE_ERROR, VALISE_ERROR_DAMAGED,
               "%s is damaged: %s has the checksum %.16s..., it was stored with %.16s...: remove the model and %s it again",
               valise_model_get_name (model), valise_model_get_path (model), found, valise_model_get_sha256 (model),
               valise_model_get_kind (model) == VALISE_MODEL_FIT ? "fit" : "import");
  return FALSE;
}
