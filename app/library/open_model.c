/* open_model.c: a model to compute with. What the engine can map as it is, is mapped; a quantized checkpoint is packed once into the
 * library's cache (the very same numbers) and that is mapped from then on. */
#include "app/library/library-private.h"
#include "engine/checkpoint/checkpoint.h"

#include <glib/gstdio.h>

static gboolean pack (ValiseLibrary *library, ValiseModel *model, EngGguf *gguf, const char *packed, EngProgress progress, gpointer data,
                      GCancellable *cancellable, GError **error);

EngModel *valise_library_open_model (ValiseLibrary *library, ValiseModel *model, EngProgress progress, gpointer data,
                                     GCancellable *cancellable, GError **error)
{
  const char *path = valise_model_get_path (model);
  if (valise_model_get_id (model) != 0 && !g_file_test (path, G_FILE_TEST_EXISTS)) {
    g_set_error (error, VALISE_ERROR, VALISE_ERROR_DAMAGED, "%s has lost its file %s: remove the model and import it again",
                 valise_model_get_name (model), path);
    return NULL;
  }
  g_autoptr (EngGguf) gguf = eng_checkpoint_open (path, error);
  if (!gguf)
    return NULL;
  if (valise_model_get_id (model) != 0 && eng_gguf_file_bytes (gguf) != valise_model_get_bytes (model)) {
    g_set_error (error, VALISE_ERROR, VALISE_ERROR_DAMAGED, "%s is not the file any more that %s was imported from: import it again", path,
                 valise_model_get_name (model));
    return NULL;
  }
  if (eng_gguf_is_computable (gguf))
    return eng_model_new (gguf, error);
  g_autofree char *key = valise_model_content_key (model, error);
  if (!key)
    return NULL;
  g_autofree char *packed = g_strconcat (library->home, "/cache/", key, ".xbit.gguf", NULL);
  if (g_file_test (packed, G_FILE_TEST_EXISTS)) {
    g_autoptr (GError) local = NULL;
    EngModel *opened = eng_model_open (packed, &local);
    if (opened)
      return opened;
    /* Damaged, or of another version of Valise: it can be made again, and the person is told why it takes a moment. */
    if (progress)
      progress (0, "the packed copy cannot be used any more, packing again", data);
    g_unlink (packed);
  }
  if (!pack (library, model, gguf, packed, progress, data, cancellable, error))
    return NULL;
  return eng_model_open (packed, error);
}

/* ---- helpers ---- */

static gboolean pack (ValiseLibrary *library, ValiseModel *model, EngGguf *gguf, const char *packed, EngProgress progress, gpointer data,
                      GCancellable *cancellable, GError **error)
{
  g_autofree char *cache = g_build_filename (library->home, "cache", NULL);
  /* Packed, the same numbers take about the same room. */
  if (!valise_check_space (cache, valise_model_get_bytes (model) + valise_model_get_bytes (model) / 4, "packing this model", error))
    return FALSE;
  g_autoptr (ValiseTemp) temp = valise_temp_new (library->home, error);
  if (!temp)
    return FALSE;
  g_autofree char *made = g_build_filename (temp->path, "packed.gguf", NULL);
  if (!eng_repack (gguf, made, progress, data, cancellable, error))
    return FALSE;
  return valise_library_keep_derived (library, model, made, packed, error);
}
