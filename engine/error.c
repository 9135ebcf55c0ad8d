/* error.c: the engine's error domain. */
#include "engine/error.h"

G_DEFINE_QUARK (eng-error-quark, eng_error)
