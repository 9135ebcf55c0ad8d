/* order.h: which comes first. */
#ifndef QZ_ORDER_H
#define QZ_ORDER_H

#include <glib.h>

/* order [n] = 0 to n - 1 by falling worth [n], the lesser number first where two are worth the same, within each block of so many (n: all together). */
void qz_order_by_worth (const double *worth, guint n, guint block, guint32 *order);

#endif
