/* packing.h: a tensor of a checkpoint as an X-bit matrix of the very same numbers, made some bands at a time. */
#ifndef ENG_PACKING_H
#define ENG_PACKING_H

#include "engine/checkpoint/packed.h"

typedef struct {
  const EngPacked *packed;
  EngPacked *owned;  /* or NULL: the tensor has it */
  xb_layout layout;  /* of the whole matrix; the numbers of its pipelines are the caller's to set */
} EngPacking;

/* Whether a tensor holds quantized numbers that become an X-bit matrix. */
gboolean eng_tensor_is_packable (const EngGguf *gguf, const EngTensor *tensor);
/* Whether it is the scale of such a matrix beside it, or what its makers scaled activations by: no tensor of its own any more. */
gboolean eng_tensor_is_folded (const EngGguf *gguf, const EngTensor *tensor);

/* Of a tensor that is packable; it must outlive the packing. FALSE: its shape is none of an X-bit matrix, and the error says why. Free with eng_packing_clear. */
gboolean eng_packing_open (EngPacking *packing, const EngGguf *gguf, const EngTensor *tensor, GError **error);
void eng_packing_clear (EngPacking *packing);
/* Makes a matrix of bands `band` and on, n_bands of them or as many as there are: directory, then bands, which have the bytes that they have in the whole
 * matrix. blob has room for the directory and so many bands. */
xb_error eng_packing_write (const EngPacking *packing, guint8 *blob, guint band, guint n_bands);

#endif
