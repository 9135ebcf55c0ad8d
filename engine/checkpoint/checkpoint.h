/* checkpoint.h: a model as its publisher ships it, whatever the format, opened as one view of keys and tensors in GGUF's vocabulary. */
#ifndef ENG_CHECKPOINT_H
#define ENG_CHECKPOINT_H

#include "engine/checkpoint/gguf.h"

/* A .gguf (the first of its shards), or a folder of safetensors with its config.json (or that file, or one of the safetensors in it). */
EngGguf *eng_checkpoint_open (const char *path, GError **error);
/* Whether a folder holds a checkpoint of safetensors or one that is refused by name (PyTorch's pickles). */
gboolean eng_checkpoint_is_folder (const char *folder);
/* The files of such a folder that make up the model: NULL-terminated base names, sorted; free with g_strfreev. NULL with an error where parts of it
 * are missing. */
char **eng_checkpoint_files (const char *folder, GError **error);
/* What a publisher's files say of how they were made: valise.source.format ("GGUF", "safetensors") and .method are keys of every view that is no
 * GGUF file. Of a GGUF the type most weights have. Free with g_free. */
char *eng_checkpoint_method (const EngGguf *gguf);

#endif
