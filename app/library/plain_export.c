/* plain_export.c: a model out of the library as a GGUF file of standard types, for llama.cpp, Ollama, LM Studio and whatever else reads GGUF. */
#include "app/library/library-private.h"
#include "engine/checkpoint/checkpoint.h"
#include "quantizer/plain.h"

/* The model that a fit was made of: its own numbers are rounded once already. */
static ValiseModel *checkpoint_of (ValiseLibrary *library, ValiseModel *model, GError **error)
{
  if (valise_model_get_parent (model) == 0)
    return g_object_ref (model);
  g_autoptr (GPtrArray) models = valise_library_list_models (library, error);
  if (!models)
    return NULL;
  for (guint i = 0; i < models->len; i++)
    if (valise_model_get_id (models->pdata[i]) == valise_model_get_parent (model))
      return g_object_ref (models->pdata[i]);
  g_set_error (error, VALISE_ERROR, VALISE_ERROR_NOT_FOUND, "the model that %s was made of is no longer in the library: import it again, and export that",
               valise_model_get_name (model));
  return NULL;
}

gboolean valise_library_export_plain (ValiseLibrary *library, ValiseModel *model, const char *path, guint64 bytes, EngProgress progress, gpointer data,
                                      GCancellable *cancellable, GError **error)
{
  if (g_file_test (path, G_FILE_TEST_EXISTS)) {
    g_set_error (error, VALISE_ERROR, VALISE_ERROR_EXISTS, "%s is there already: choose another name, or remove it first", path);
    return FALSE;
  }
  g_autoptr (ValiseModel) checkpoint = checkpoint_of (library, model, error);
  g_autoptr (EngGguf) gguf = checkpoint ? eng_checkpoint_open (valise_model_get_path (checkpoint), error) : NULL;
  if (!gguf)
    return FALSE;
  g_autoptr (QzCurves) curves = valise_library_get_curves (library, checkpoint, error);
  if (!curves)
    return FALSE;
  g_autoptr (EngWorkers) workers = eng_workers_new (0);
  return qz_plain_export (gguf, path, curves, bytes ? bytes : valise_model_get_bytes (model), workers, progress, data, cancellable, error);
}
