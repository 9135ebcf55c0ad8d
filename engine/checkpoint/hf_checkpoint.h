/* hf_checkpoint.h: a folder of safetensors opened as a view in GGUF's vocabulary. Internal to engine/checkpoint and its tests. */
#ifndef ENG_HF_CHECKPOINT_H
#define ENG_HF_CHECKPOINT_H

#include "engine/checkpoint/gguf.h"

/* vocabulary: a file whose tokenizer.* keys stand for the folder's own, or NULL. */
EngGguf *eng_hf_open (const char *folder, const EngGguf *vocabulary, GError **error);
/* As eng_checkpoint_files and eng_checkpoint_is_file_name. */
char **eng_hf_files (const char *folder, GError **error);
gboolean eng_hf_is_file_name (const char *name);

#endif
