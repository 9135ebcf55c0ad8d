/* fit_plot.c: a snapshot drawn with cairo; the curve is sampled once, the dot moves with the slider. */
#include "app/ui/fit_plot.h"

#include <glib/gi18n.h>
#include <math.h>

#include "app/ui/palette.h"

#define N_SAMPLES 96
#define LEFT 58.0
#define RIGHT 18.0
#define TOP 16.0
#define BOTTOM 30.0
#define LEAST_KL 1e-4

struct _ValiseFitPlot {
  GtkWidget parent;
  QzCurves *curves;
  double bytes[N_SAMPLES], kl[N_SAMPLES]; /* of the finished file; KL divergence a word */
  double x_min, x_max, y_min, y_max;      /* bytes; log10 KL */
  double dot_bytes, dot_kl, limit_bytes;
  gboolean has_dot;
  QzQuality quality;
};

G_DEFINE_TYPE (ValiseFitPlot, valise_fit_plot, GTK_TYPE_WIDGET)

static double log_kl (double kl)
{
  return log10 (MAX (kl, LEAST_KL));
}

static double place_x (ValiseFitPlot *self, double width, double bytes)
{
  return LEFT + (width - LEFT - RIGHT) * CLAMP ((bytes - self->x_min) / (self->x_max - self->x_min), 0, 1);
}

static double place_y (ValiseFitPlot *self, double height, double kl)
{
  return TOP + (height - TOP - BOTTOM) * CLAMP ((self->y_max - log_kl (kl)) / (self->y_max - self->y_min), 0, 1);
}

static void draw_text (ValiseFitPlot *self, cairo_t *cr, const char *text, double x, double y, double align_x, double align_y, double alpha)
{
  g_autoptr (PangoLayout) layout = gtk_widget_create_pango_layout (GTK_WIDGET (self), text);
  PangoFontDescription *font = pango_font_description_copy (pango_context_get_font_description (gtk_widget_get_pango_context (GTK_WIDGET (self))));
  GdkRGBA color;
  int width, height;
  pango_font_description_set_size (font, pango_font_description_get_size (font) * 4 / 5);
  pango_layout_set_font_description (layout, font);
  pango_font_description_free (font);
  pango_layout_get_pixel_size (layout, &width, &height);
  gtk_style_context_get_color (gtk_widget_get_style_context (GTK_WIDGET (self)), &color);
  cairo_set_source_rgba (cr, color.red, color.green, color.blue, alpha);
  cairo_move_to (cr, x - width * align_x, y - height * align_y);
  pango_cairo_show_layout (cr, layout);
}

/* Decades of loss, and four sizes. */
static void draw_axes (ValiseFitPlot *self, cairo_t *cr, double width, double height)
{
  cairo_set_line_width (cr, 1);
  for (int decade = (int) ceil (self->y_min); decade <= (int) floor (self->y_max); decade++) {
    double y = floor (place_y (self, height, pow (10, decade))) + 0.5;
    g_autofree char *label = g_strdup_printf ("%g", pow (10, decade));
    valise_palette_set (cr, VALISE_COLOR_GRID, 1);
    cairo_move_to (cr, LEFT, y);
    cairo_line_to (cr, width - RIGHT, y);
    cairo_stroke (cr);
    draw_text (self, cr, label, LEFT - 8, y, 1, 0.5, 0.7);
  }
  guint n_labels = width > 480 ? 4 : 2;
  for (guint i = 0; i <= n_labels; i++) {
    double bytes = self->x_min + (self->x_max - self->x_min) * i / n_labels;
    g_autofree char *label = valise_size_format ((guint64) bytes);
    draw_text (self, cr, label, place_x (self, width, bytes), height - 4, (double) i / n_labels, 1, 0.7);
  }
}

static void draw_limit (ValiseFitPlot *self, cairo_t *cr, double width, double height)
{
  double x = place_x (self, width, self->limit_bytes);
  if (!self->has_dot || self->limit_bytes >= self->x_max)
    return;
  valise_palette_set (cr, VALISE_COLOR_SHADE, 1);
  cairo_rectangle (cr, x, TOP, width - RIGHT - x, height - TOP - BOTTOM);
  cairo_fill (cr);
  if (width - RIGHT - x > 110)
    draw_text (self, cr, C_("plot", "does not fit"), width - RIGHT - 6, TOP + 4, 1, 0, 0.55);
}

static void trace_curve (ValiseFitPlot *self, cairo_t *cr, double width, double height)
{
  for (guint i = 0; i < N_SAMPLES; i++)
    cairo_line_to (cr, place_x (self, width, self->bytes[i]), place_y (self, height, qz_expected_kl (self->kl[i], self->quality)));
}

static void draw_curve (ValiseFitPlot *self, cairo_t *cr, double width, double height)
{
  cairo_save (cr);
  cairo_new_path (cr);
  trace_curve (self, cr, width, height);
  cairo_line_to (cr, place_x (self, width, self->bytes[N_SAMPLES - 1]), height - BOTTOM);
  cairo_line_to (cr, place_x (self, width, self->bytes[0]), height - BOTTOM);
  cairo_close_path (cr);
  valise_palette_set (cr, VALISE_COLOR_ACCENT, 0.10);
  cairo_fill (cr);
  cairo_new_path (cr);
  trace_curve (self, cr, width, height);
  cairo_set_line_width (cr, 2.5);
  cairo_set_line_join (cr, CAIRO_LINE_JOIN_ROUND);
  valise_palette_set (cr, VALISE_COLOR_ACCENT, 1);
  cairo_stroke (cr);
  cairo_restore (cr);
}

static void draw_ghosts (ValiseFitPlot *self, cairo_t *cr, double width, double height)
{
  static const int depths[] = { 2, 3, 4, 6, 8 };
  for (gsize i = 0; i < G_N_ELEMENTS (depths); i++) {
    QzPreview preview;
    guint64 bytes = qz_curves_bytes_for_bpw (self->curves, depths[i]);
    qz_curves_preview (self->curves, bytes, &preview);
    if (fabs (preview.bpw - depths[i]) > 0.5) /* there is no such fit: of a quantized model none has more bits than it */
      continue;
    double x = place_x (self, width, (double) bytes), y = place_y (self, height, qz_expected_kl (preview.expected_kl, self->quality));
    g_autofree char *label = g_strdup_printf (C_("plot", "%d bits"), depths[i]);
    cairo_arc (cr, x, y, 3.5, 0, 2 * G_PI);
    valise_palette_set (cr, VALISE_COLOR_ACCENT, 0.55);
    cairo_fill (cr);
    /* Above the curve, which falls; as far to the right as there is room. */
    gboolean room = x < width - RIGHT - 48;
    draw_text (self, cr, label, room ? x + 6 : width - 4, y - (room ? 5 : 9), room ? 0 : 1, 1, 0.6);
  }
}

static void draw_dot (ValiseFitPlot *self, cairo_t *cr, double width, double height)
{
  double x = place_x (self, width, self->dot_bytes), y = place_y (self, height, self->dot_kl);
  const double dashes[] = { 3, 3 };
  if (!self->has_dot)
    return;
  cairo_save (cr);
  cairo_set_dash (cr, dashes, 2, 0);
  cairo_set_line_width (cr, 1);
  valise_palette_set (cr, VALISE_COLOR_ACCENT, 0.7);
  cairo_move_to (cr, x, y);
  cairo_line_to (cr, x, height - BOTTOM);
  cairo_stroke (cr);
  cairo_restore (cr);
  cairo_arc (cr, x, y, 8, 0, 2 * G_PI);
  valise_palette_set (cr, VALISE_COLOR_ACCENT, 1);
  cairo_fill (cr);
  cairo_arc (cr, x, y, 3.5, 0, 2 * G_PI);
  cairo_set_source_rgb (cr, 1, 1, 1);
  cairo_fill (cr);
}

static void snapshot (GtkWidget *widget, GtkSnapshot *snap)
{
  ValiseFitPlot *self = VALISE_FIT_PLOT (widget);
  double width = gtk_widget_get_width (widget), height = gtk_widget_get_height (widget);
  if (!self->curves || width <= LEFT + RIGHT || height <= TOP + BOTTOM)
    return;
  graphene_rect_t bounds = GRAPHENE_RECT_INIT (0, 0, (float) width, (float) height);
  cairo_t *cr = gtk_snapshot_append_cairo (snap, &bounds);
  draw_axes (self, cr, width, height);
  draw_curve (self, cr, width, height);
  draw_limit (self, cr, width, height);
  draw_ghosts (self, cr, width, height);
  draw_dot (self, cr, width, height);
  cairo_destroy (cr);
}

void valise_fit_plot_set_curves (ValiseFitPlot *self, QzCurves *curves)
{
  g_clear_pointer (&self->curves, qz_curves_unref);
  self->curves = curves ? qz_curves_ref (curves) : NULL;
  gtk_widget_queue_draw (GTK_WIDGET (self));
  if (!curves)
    return;
  self->x_min = (double) qz_curves_min_bytes (curves);
  self->x_max = MAX ((double) qz_curves_max_bytes (curves), self->x_min + 1);
  self->y_min = HUGE_VAL;
  self->y_max = -HUGE_VAL;
  for (guint i = 0; i < N_SAMPLES; i++) {
    QzPreview preview;
    double bytes = self->x_min + (self->x_max - self->x_min) * i / (N_SAMPLES - 1);
    qz_curves_preview (curves, (guint64) bytes, &preview);
    self->bytes[i] = bytes;
    self->kl[i] = preview.expected_kl;
    self->y_min = MIN (self->y_min, log_kl (preview.expected_kl));
    self->y_max = MAX (self->y_max, log_kl (preview.expected_kl));
  }
  self->y_min -= 0.15;
  self->y_max = MAX (self->y_max + 0.15, self->y_min + 1);
}

void valise_fit_plot_set_plan (ValiseFitPlot *self, const ValisePlan *plan, guint64 limit_bytes, QzQuality quality)
{
  self->quality = quality;
  self->has_dot = plan != NULL;
  if (plan) {
    self->dot_bytes = (double) plan->memory.weights_bytes;
    self->dot_kl = plan->expected_kl;
    self->limit_bytes = (double) limit_bytes;
  }
  gtk_widget_queue_draw (GTK_WIDGET (self));
}

static void measure (GtkWidget *widget, GtkOrientation orientation, int for_size, int *minimum, int *natural, int *min_baseline,
                     int *nat_baseline)
{
  *minimum = orientation == GTK_ORIENTATION_HORIZONTAL ? 240 : 180;
  *natural = orientation == GTK_ORIENTATION_HORIZONTAL ? 560 : 220;
}

static void dispose (GObject *object)
{
  g_clear_pointer (&VALISE_FIT_PLOT (object)->curves, qz_curves_unref);
  G_OBJECT_CLASS (valise_fit_plot_parent_class)->dispose (object);
}

static void valise_fit_plot_class_init (ValiseFitPlotClass *klass)
{
  GtkWidgetClass *widget_class = GTK_WIDGET_CLASS (klass);
  G_OBJECT_CLASS (klass)->dispose = dispose;
  widget_class->snapshot = snapshot;
  widget_class->measure = measure;
  gtk_widget_class_set_accessible_role (widget_class, GTK_ACCESSIBLE_ROLE_IMG);
}

static void valise_fit_plot_init (ValiseFitPlot *self)
{
  g_signal_connect_object (adw_style_manager_get_default (), "notify::dark", G_CALLBACK (gtk_widget_queue_draw), self, G_CONNECT_SWAPPED);
}
