/* depth_map.c: one column for each layer, one row for each kind of matrix; embedding and head as a band of their own. */
#include "app/ui/depth_map.h"

#include <glib/gi18n.h>
#include <math.h>

#include "app/ui/palette.h"

#define N_KINDS 7
#define LEFT 64.0
#define BAND 16.0
#define LEGEND 46.0
#define GAP 1.0

struct _ValiseDepthMap {
  GtkWidget parent;
  float *depths;
  guint n_matrices, n_layers;
  double fraction;
};

G_DEFINE_TYPE (ValiseDepthMap, valise_depth_map, GTK_TYPE_WIDGET)

static void draw_text (ValiseDepthMap *self, cairo_t *cr, const char *text, double x, double y, double align_x)
{
  g_autoptr (PangoLayout) layout = gtk_widget_create_pango_layout (GTK_WIDGET (self), text);
  PangoFontDescription *font = pango_font_description_copy (pango_context_get_font_description (gtk_widget_get_pango_context (GTK_WIDGET (self))));
  GdkRGBA color;
  int width, height;
  pango_font_description_set_size (font, pango_font_description_get_size (font) * 3 / 4);
  pango_layout_set_font_description (layout, font);
  pango_font_description_free (font);
  pango_layout_get_pixel_size (layout, &width, &height);
  gtk_style_context_get_color (gtk_widget_get_style_context (GTK_WIDGET (self)), &color);
  cairo_set_source_rgba (cr, color.red, color.green, color.blue, 0.7);
  cairo_move_to (cr, x - width * align_x, y - height / 2.0);
  pango_cairo_show_layout (cr, layout);
}

static void draw_cell (ValiseDepthMap *self, cairo_t *cr, guint matrix, double x, double y, double width, double height)
{
  gboolean done = matrix < self->fraction * self->n_matrices;
  valise_palette_rounded (cr, x + GAP / 2, y + GAP / 2, MAX (width - GAP, 1), MAX (height - GAP, 1), 2);
  valise_palette_set_depth (cr, self->depths[matrix], done ? 1 : 0.22);
  cairo_fill (cr);
}

static void draw_legend (ValiseDepthMap *self, cairo_t *cr, double width, double height)
{
  const double cell = MIN ((width - LEFT) / 10, 30);
  double y = height - 12;
  draw_text (self, cr, C_("depth map", "bits"), LEFT - 8, y + 4, 1);
  for (int depth = 1; depth <= 8; depth++) {
    g_autofree char *label = g_strdup_printf ("%d", depth);
    double x = LEFT + (depth - 1) * cell;
    valise_palette_set_depth (cr, depth, 1);
    cairo_rectangle (cr, x, y, cell, 8);
    cairo_fill (cr);
    draw_text (self, cr, label, x + cell / 2, y - 10, 0.5);
  }
}

static void snapshot (GtkWidget *widget, GtkSnapshot *snap)
{
  static const char *const kinds[N_KINDS] = { "q", "k", "v", "o", "gate", "up", "down" };
  ValiseDepthMap *self = VALISE_DEPTH_MAP (widget);
  double width = gtk_widget_get_width (widget), height = gtk_widget_get_height (widget);
  if (!self->depths || !self->n_layers || width <= LEFT)
    return;
  graphene_rect_t bounds = GRAPHENE_RECT_INIT (0, 0, (float) width, (float) height);
  cairo_t *cr = gtk_snapshot_append_cairo (snap, &bounds);
  gboolean head = self->n_matrices > self->n_layers * N_KINDS + 1;
  double top = BAND + 4, bottom = height - LEGEND - (head ? BAND + 4 : 0);
  double cell_w = (width - LEFT) / self->n_layers, cell_h = (bottom - top) / N_KINDS;
  draw_text (self, cr, C_("depth map", "words"), LEFT - 8, BAND / 2, 1);
  draw_cell (self, cr, 0, LEFT, 0, width - LEFT, BAND);
  for (guint kind = 0; kind < N_KINDS; kind++) {
    draw_text (self, cr, kinds[kind], LEFT - 8, top + (kind + 0.5) * cell_h, 1);
    for (guint layer = 0; layer < self->n_layers; layer++)
      draw_cell (self, cr, 1 + layer * N_KINDS + kind, LEFT + layer * cell_w, top + kind * cell_h, cell_w, cell_h);
  }
  if (head) {
    draw_text (self, cr, C_("depth map", "head"), LEFT - 8, bottom + 4 + BAND / 2, 1);
    draw_cell (self, cr, self->n_matrices - 1, LEFT, bottom + 4, width - LEFT, BAND);
  }
  draw_legend (self, cr, width, height);
  cairo_destroy (cr);
}

void valise_depth_map_set_target (ValiseDepthMap *self, QzCurves *curves, guint64 target_bytes)
{
  g_clear_pointer (&self->depths, g_free);
  self->n_matrices = self->n_layers = 0;
  if (curves) {
    self->n_matrices = qz_curves_n_matrices (curves);
    self->n_layers = self->n_matrices ? (self->n_matrices - 1) / N_KINDS : 0;
    self->depths = g_new0 (float, MAX (self->n_matrices, 1));
    qz_curves_depths (curves, target_bytes, self->depths);
  }
  gtk_widget_queue_draw (GTK_WIDGET (self));
}

void valise_depth_map_set_fraction (ValiseDepthMap *self, double fraction)
{
  self->fraction = fraction;
  gtk_widget_queue_draw (GTK_WIDGET (self));
}

static void measure (GtkWidget *widget, GtkOrientation orientation, int for_size, int *minimum, int *natural, int *min_baseline,
                     int *nat_baseline)
{
  *minimum = orientation == GTK_ORIENTATION_HORIZONTAL ? 200 : 190;
  *natural = orientation == GTK_ORIENTATION_HORIZONTAL ? 560 : 260;
}

static void finalize (GObject *object)
{
  g_free (VALISE_DEPTH_MAP (object)->depths);
  G_OBJECT_CLASS (valise_depth_map_parent_class)->finalize (object);
}

static void valise_depth_map_class_init (ValiseDepthMapClass *klass)
{
  GtkWidgetClass *widget_class = GTK_WIDGET_CLASS (klass);
  G_OBJECT_CLASS (klass)->finalize = finalize;
  widget_class->snapshot = snapshot;
  widget_class->measure = measure;
  gtk_widget_class_set_accessible_role (widget_class, GTK_ACCESSIBLE_ROLE_IMG);
}

static void valise_depth_map_init (ValiseDepthMap *self)
{
  gtk_accessible_update_property (GTK_ACCESSIBLE (self), GTK_ACCESSIBLE_PROPERTY_LABEL,
                                  C_("depth map", "Bits given to each matrix, layer by layer"), -1);
}
