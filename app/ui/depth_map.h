/* depth_map.h: the mean depth of every matrix as a heat map, layer by layer, filling in as a fit goes on. */
#ifndef VALISE_DEPTH_MAP_H
#define VALISE_DEPTH_MAP_H

#include <adwaita.h>

#include "quantizer/fit.h"

G_BEGIN_DECLS

#define VALISE_TYPE_DEPTH_MAP (valise_depth_map_get_type ())
G_DECLARE_FINAL_TYPE (ValiseDepthMap, valise_depth_map, VALISE, DEPTH_MAP, GtkWidget)

/* curves NULL: nothing to show. */
void valise_depth_map_set_target (ValiseDepthMap *self, QzCurves *curves, guint64 target_bytes);
/* How much of it is drawn in full, 0 to 1. */
void valise_depth_map_set_fraction (ValiseDepthMap *self, double fraction);

G_END_DECLS
#endif
