/* checkpoint.c: which reader a path is for. */
#include "engine/checkpoint/checkpoint.h"

#include "engine/checkpoint/hf_checkpoint.h"
#include "engine/error.h"

#include <string.h>

gboolean eng_checkpoint_is_folder (const char *folder)
{
  g_autofree char *config = g_build_filename (folder, "config.json", NULL);
  return g_file_test (config, G_FILE_TEST_IS_REGULAR);
}

EngGguf *eng_checkpoint_open (const char *path, GError **error)
{
  if (g_file_test (path, G_FILE_TEST_IS_DIR))
    return eng_hf_open (path, NULL, error);
  g_autofree char *name = g_path_get_basename (path), *folder = g_path_get_dirname (path);
  if (g_str_has_suffix (name, ".safetensors") || strcmp (name, "config.json") == 0 || g_str_has_suffix (name, ".safetensors.index.json"))
    return eng_hf_open (folder, NULL, error);
  if (g_str_has_suffix (name, ".pt") || g_str_has_suffix (name, ".pth") || g_str_has_suffix (name, ".ckpt") || g_str_has_prefix (name, "pytorch_model")) {
    g_set_error (error, ENG_ERROR, ENG_ERROR_UNSUPPORTED, "%s is a PyTorch pickle, which is a program rather than data: opening it could run anything; "
                 "download the model as safetensors or GGUF", path);
    return NULL;
  }
  return eng_gguf_open (path, error);
}

char **eng_checkpoint_files (const char *folder, GError **error)
{
  return eng_hf_files (folder, error);
}

/* The type that most weights have, with the groups that its name stands for. */
char *eng_checkpoint_method (const EngGguf *gguf)
{
  const char *said = eng_gguf_get_string (gguf, "valise.source.method", NULL);
  if (said)
    return g_strdup (said);
  guint64 best = 0;
  const char *name = NULL;
  g_autoptr (GHashTable) weights = g_hash_table_new_full (g_str_hash, g_str_equal, NULL, g_free);
  for (guint i = 0; i < eng_gguf_n_tensors (gguf); i++) {
    const EngTensor *tensor = eng_gguf_tensor (gguf, i);
    const char *type = eng_tensor_type_name (tensor);
    guint64 *sum = g_hash_table_lookup (weights, type);
    if (!sum)
      g_hash_table_insert (weights, (gpointer) type, sum = g_new0 (guint64, 1));
    *sum += tensor->dims[0] * eng_tensor_n_rows (tensor);
    if (*sum > best) {
      best = *sum;
      name = type;
    }
  }
  return g_strdup (name ? name : "nothing");
}
