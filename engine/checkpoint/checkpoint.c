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

gboolean eng_checkpoint_is_file_name (const char *name)
{
  return eng_hf_is_file_name (name);
}
