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
/* Whether a file of this base name may be one of them. */
gboolean eng_checkpoint_is_file_name (const char *name);

/* How the weights were made, as far as the files say, and what Valise does with them. */
typedef struct {
  char *format;         /* "GGUF", "safetensors" */
  char *method;         /* "GPTQ", "bitsandbytes nf4"; of a GGUF the type that most weights have, "Q4_K"; of a fit "X-bit" */
  gboolean is_mixed;    /* other weights may be of other types */
  double bits;          /* a weight's, 0: not said */
  gint group;           /* weights to a scale, -1: one scale to a row, 0: not said */
  gboolean is_ordered;  /* columns stand in the order of their importance */
  char *calibration;    /* text or data its makers name, or NULL */
  char *kept;           /* "carried without loss into 4-bit cells" */
} EngCheckpointSource;
EngCheckpointSource *eng_checkpoint_describe (const EngGguf *gguf);
void eng_checkpoint_source_free (EngCheckpointSource *source);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (EngCheckpointSource, eng_checkpoint_source_free)

#endif
