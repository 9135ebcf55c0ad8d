/* fuzz.h: what a fuzz target offers. With clang and -Dfuzzers=true libFuzzer drives it; else fuzz_replay.c does, the same way every time. */
#ifndef VALISE_FUZZ_H
#define VALISE_FUZZ_H

#include <glib.h>

/* Takes any bytes; must neither crash nor read outside of them. Returns 0. */
int LLVMFuzzerTestOneInput (const guint8 *data, gsize size);
/* Sound input number i to mutate, NULL after the last. */
GByteArray *fuzz_seed (guint i);

#endif
