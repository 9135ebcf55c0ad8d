/* method.h: the well-known methods as settings of the one pipeline (QzMethod of fit.h). */
#ifndef QZ_METHOD_H
#define QZ_METHOD_H

#include "quantizer/fit.h"

/* What goes in front of each group of matrices that share an input. */
typedef enum {
  QZ_FRONT_NOTHING,
  QZ_FRONT_BY_MOMENT,  /* columns by falling second moment: act-order */
  QZ_FRONT_SCALES,     /* a diagonal searched for the depth asked for (awq.h) */
  QZ_FRONT_HADAMARD,   /* signs and the widest Hadamard */
  QZ_FRONT_FOLDED,     /* nothing where the weights are rotated (spin.h), signs and the widest Hadamard elsewhere */
  QZ_FRONT_BALANCED    /* a balancing diagonal, signs, a Hadamard of 64 */
} QzFront;

typedef struct {
  const char *name;
  QzFront front;
  gboolean compensates;     /* errors are carried into later columns; else every weight is rounded for itself */
  gboolean has_trellis;     /* else uniform steps, one f16 scale for 128 columns */
  gboolean orders_channels; /* hidden channels of feed-forward units by importance */
} QzMethodTraits;

const QzMethodTraits *qz_method_traits (QzMethod method);

#endif
