/* plain.h: a checkpoint as a GGUF file of standard types, for any program that reads GGUF: each matrix gets the type that brings the most for its
 * bytes, within a size. */
#ifndef QZ_PLAIN_H
#define QZ_PLAIN_H

#include "quantizer/fit.h"

/* Writes `path`, whole or not at all, of at most `bytes` bytes, and as near to it as the types allow. Of each matrix the relative error of every type is
 * measured on its own rows; what the curves say that a matrix matters, times that, is made as small as the size allows. Norms, biases and routers stay in
 * f32. Rows are put where programs that know GGUF alone expect them (rope). source: as eng_checkpoint_open gives it, no fit; curves: of it, an estimate will
 * do. ENG_ERROR_MEMORY, naming the least, when the size is below it. */
gboolean qz_plain_export (EngGguf *source, const char *path, const QzCurves *curves, guint64 bytes, EngWorkers *workers, EngProgress progress,
                          gpointer data, GCancellable *cancellable, GError **error);

#endif
