/* palette.c: drawn from the GNOME palette, checked for contrast in both styles. */
#include "app/ui/palette.h"

#include <math.h>

typedef struct {
  double red, green, blue, alpha;
} Color;

static gboolean is_dark (void)
{
  return adw_style_manager_get_dark (adw_style_manager_get_default ());
}

void valise_palette_set (cairo_t *cr, ValiseColor color, double alpha)
{
  static const Color colors[2][VALISE_COLOR_END] = {
    { { 0.11, 0.44, 0.85, 1 }, { 0.90, 0.38, 0.00, 1 }, { 0, 0, 0, 0.06 }, { 0, 0, 0, 0.12 },
      { 0.11, 0.44, 0.85, 1 }, { 0.15, 0.64, 0.41, 1 }, { 0.90, 0.65, 0.04, 1 }, { 0.57, 0.25, 0.67, 1 } },
    { { 0.47, 0.68, 0.93, 1 }, { 1.00, 0.64, 0.28, 1 }, { 1, 1, 1, 0.07 }, { 1, 1, 1, 0.15 },
      { 0.38, 0.63, 0.92, 1 }, { 0.34, 0.89, 0.54, 1 }, { 0.97, 0.89, 0.36, 1 }, { 0.75, 0.53, 0.90, 1 } } };
  const Color *c = &colors[is_dark ()][color];
  cairo_set_source_rgba (cr, c->red, c->green, c->blue, c->alpha * alpha);
}

void valise_palette_set_depth (cairo_t *cr, double depth, double alpha)
{
  static const Color stops[2][5] = {
    { { 0.83, 0.90, 0.98, 1 }, { 0.38, 0.63, 0.92, 1 }, { 0.20, 0.65, 0.55, 1 }, { 0.96, 0.74, 0.22, 1 }, { 0.75, 0.16, 0.10, 1 } },
    { { 0.14, 0.20, 0.31, 1 }, { 0.15, 0.38, 0.70, 1 }, { 0.20, 0.65, 0.58, 1 }, { 0.96, 0.74, 0.30, 1 }, { 0.93, 0.33, 0.23, 1 } } };
  double place = CLAMP ((depth - 1) / 7, 0, 1) * 4;
  int low = MIN ((int) place, 3);
  double part = place - low;
  const Color *a = &stops[is_dark ()][low], *b = a + 1;
  cairo_set_source_rgba (cr, a->red + (b->red - a->red) * part, a->green + (b->green - a->green) * part,
                         a->blue + (b->blue - a->blue) * part, alpha);
}

void valise_palette_rounded (cairo_t *cr, double x, double y, double width, double height, double radius)
{
  double r = MIN (radius, MIN (width, height) / 2);
  cairo_new_sub_path (cr);
  cairo_arc (cr, x + width - r, y + r, r, -G_PI / 2, 0);
  cairo_arc (cr, x + width - r, y + height - r, r, 0, G_PI / 2);
  cairo_arc (cr, x + r, y + height - r, r, G_PI / 2, G_PI);
  cairo_arc (cr, x + r, y + r, r, G_PI, 3 * G_PI / 2);
  cairo_close_path (cr);
}
