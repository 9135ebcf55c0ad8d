/* span.h: a stretch of a text. */
#ifndef ENG_SPAN_H
#define ENG_SPAN_H

#include <glib.h>

typedef struct { gsize begin, end; } EngSpan; /* bytes */

#endif
