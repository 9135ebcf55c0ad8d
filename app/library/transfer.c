/* transfer.c: models out of the library (export) and their files held against their checksums (verify). */
#include "app/library/library-private.h"

#include <errno.h>
#include <glib/gstdio.h>
#include <math.h>
#include <string.h>
#include <unistd.h>

static char *target_path (ValiseModel *model, const char *path);
static gboolean check_checksum (ValiseModel *model, EngProgress progress, gpointer data, GCancellable *cancellable, GError **error);

gboolean valise_library_export (ValiseLibrary *library, ValiseModel *model, const char *path, EngProgress progress, gpointer data,
                                GCancellable *cancellable, GError **error)
{
  g_autoptr (GPtrArray) shards = valise_shards_of (valise_model_get_path (model), error);
  if (!shards)
    return FALSE;
  g_autofree char *target = target_path (model, path);
  g_autofree char *folder = g_path_get_dirname (target);
  if (!g_file_test (folder, G_FILE_TEST_IS_DIR)) {
    g_set_error (error, VALISE_ERROR, VALISE_ERROR_NOT_FOUND, "there is no folder %s: create it first", folder);
    return FALSE;
  }
  if (!valise_check_space (folder, valise_model_get_bytes (model), "this export", error))
    return FALSE;
  g_autoptr (GPtrArray) temporaries = g_ptr_array_new_with_free_func (g_free);
  g_autoptr (GPtrArray) targets = g_ptr_array_new_with_free_func (g_free);
  gsize stem = strlen (target) - (g_str_has_suffix (target, ".gguf") ? 5 : 0);
  gboolean done = TRUE;
  for (guint i = 0; i < shards->len && done; i++) {
    char *one = shards->len == 1 ? g_strdup (target) : g_strdup_printf ("%.*s-%05u-of-%05u.gguf", (int) stem, target, i + 1, shards->len);
    g_autofree char *random = g_uuid_string_random ();
    char *temporary = g_strdup_printf ("%s/.valise-%s", folder, random);
    g_ptr_array_add (targets, one);
    g_ptr_array_add (temporaries, temporary);
    ValiseSpan part = { progress, data, (double) i / shards->len, (double) (i + 1) / shards->len };
    if (g_file_test (one, G_FILE_TEST_EXISTS)) {
      g_set_error (error, VALISE_ERROR, VALISE_ERROR_EXISTS, "%s is there already: choose another name, or remove it first", one);
      done = FALSE;
    }
    done = done && valise_copy_file (shards->pdata[i], temporary, NULL, valise_span_report, &part, cancellable, error);
  }
  for (guint i = 0; i < shards->len && done; i++)
    if (g_rename (temporaries->pdata[i], targets->pdata[i]) < 0)
      done = valise_fail_errno (error, errno, "cannot create", targets->pdata[i]);
  done = done && valise_sync_path (folder, error);
  for (guint i = 0; i < temporaries->len && !done; i++)
    g_unlink (temporaries->pdata[i]);
  return done;
}

gboolean valise_library_verify (ValiseLibrary *library, ValiseModel *model, EngProgress progress, gpointer data, GCancellable *cancellable,
                                GError **error)
{
  if (valise_model_get_id (model) != 0 && !check_checksum (model, progress, data, cancellable, error))
    return FALSE;
  g_auto (ValiseModelRow) row = { .kl = NAN };
  if (!valise_model_row_read (&row, valise_model_get_path (model), error))
    return FALSE;
  g_autoptr (EngGguf) gguf = eng_gguf_open (valise_model_get_path (model), error);
  if (!gguf)
    return FALSE;
  if (!eng_gguf_is_computable (gguf))
    return TRUE;
  /* Packed matrices carry a structure of their own, which opening checks. */
  g_autoptr (EngModel) opened = eng_model_open (valise_model_get_path (model), error);
  return opened != NULL;
}

/* ---- helpers ---- */

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
