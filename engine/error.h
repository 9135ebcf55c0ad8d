/* error.h: the engine's error domain. Every error is one sentence a person can act on, naming the file and tensor or key. */
#ifndef ENG_ERROR_H
#define ENG_ERROR_H

#include <glib.h>

typedef enum {
  ENG_ERROR_FORMAT,      /* not a model file, damaged, or hostile */
  ENG_ERROR_UNSUPPORTED, /* well-formed, but something this engine does not know (named) */
  ENG_ERROR_TEMPLATE,    /* chat template: syntax, raise_exception, limits */
  ENG_ERROR_MEMORY,      /* does not fit the budget */
  ENG_ERROR_CANCELLED,
  ENG_ERROR_IO,
  ENG_ERROR_ARGUMENT,
  ENG_ERROR_BUSY         /* as many sessions as there may be */
} EngError;

#define ENG_ERROR (eng_error_quark ())
GQuark eng_error_quark (void);

#endif
