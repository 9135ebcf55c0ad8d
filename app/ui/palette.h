/* palette.h: the colours of what we draw ourselves, one set for the light style and one for the dark. */
#ifndef VALISE_PALETTE_H
#define VALISE_PALETTE_H

#include <adwaita.h>

typedef enum {
  VALISE_COLOR_ACCENT, VALISE_COLOR_WARNING, VALISE_COLOR_SHADE, VALISE_COLOR_GRID,
  VALISE_COLOR_SERIES, /* and three more */
  VALISE_COLOR_END = VALISE_COLOR_SERIES + 4
} ValiseColor;

void valise_palette_set (cairo_t *cr, ValiseColor color, double alpha);
/* Depth 1 to 8 bits, from cold to warm. */
void valise_palette_set_depth (cairo_t *cr, double depth, double alpha);
void valise_palette_rounded (cairo_t *cr, double x, double y, double width, double height, double radius);

#endif
