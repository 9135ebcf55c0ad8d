/* ggml_encode.h: floats as ggml's standard block types, which any program that reads GGUF knows. Scales are fitted by least squares over several
 * candidate grids; what is written is what ggml's own dequantization reads. */
#ifndef QZ_GGML_ENCODE_H
#define QZ_GGML_ENCODE_H

#include "engine/checkpoint/gguf.h"

/* Whether a type can be written: F32 F16 BF16 Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q2_K Q3_K Q4_K Q5_K Q6_K IQ4_NL IQ4_XS. */
gboolean qz_ggml_can_encode (guint type);
/* n finite weights (a multiple of the type's block) to n / block * block_bytes bytes. Any thread. */
void qz_ggml_encode (guint type, const float *x, gsize n, guint8 *out);

#endif
