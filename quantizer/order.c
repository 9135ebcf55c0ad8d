/* order.c: one sort for channels and axes. */
#include "quantizer/order.h"

#include <stdlib.h>

typedef struct {
  double worth;
  guint32 number;
} Ranked;

static int compare (const void *a, const void *b)
{
  const Ranked *x = a, *y = b;
  if (x->worth != y->worth)
    return x->worth < y->worth ? 1 : -1;
  return x->number < y->number ? -1 : 1;
}

void qz_order_by_worth (const double *worth, guint n, guint block, guint32 *order)
{
  g_autofree Ranked *ranked = g_new (Ranked, n);
  for (guint i = 0; i < n; i++)
    ranked[i] = (Ranked){ worth[i], i };
  for (guint begin = 0; begin < n; begin += block)
    qsort (ranked + begin, MIN (block, n - begin), sizeof (Ranked), compare);
  for (guint i = 0; i < n; i++)
    order[i] = ranked[i].number;
}
