/* gguf_private.h: what the writer asks of the reader. */
#ifndef ENG_GGUF_PRIVATE_H
#define ENG_GGUF_PRIVATE_H

#include "engine/checkpoint/gguf.h"

/* Type word and value of key i as they stand in the file. */
const guint8 *eng_gguf_raw_value (const EngGguf *gguf, guint i, gsize *size);

#endif
