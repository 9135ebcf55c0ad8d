/* matrix_map.c: a cell for each part of the map; runs of one depth are one rectangle. */
#include "app/ui/matrix_map.h"

#include <glib/gi18n.h>
#include <string.h>

#include "app/ui/palette.h"

enum { LEAST_WIDTH = 16, CELL_HEIGHT = 5, LEAST_HEIGHT = 14 };

struct _ValiseMatrixMap {
  GtkWidget parent;
  guint columns, rows;
  guint8 map[VALISE_REPORT_MAP_ROWS][VALISE_REPORT_MAP_COLUMNS];
};

G_DEFINE_TYPE (ValiseMatrixMap, valise_matrix_map, GTK_TYPE_WIDGET)

static void snapshot (GtkWidget *widget, GtkSnapshot *snap)
{
  ValiseMatrixMap *self = VALISE_MATRIX_MAP (widget);
  double width = gtk_widget_get_width (widget), height = gtk_widget_get_height (widget);
  if (self->columns == 0 || width <= 0 || height <= 0)
    return;
  graphene_rect_t bounds = GRAPHENE_RECT_INIT (0, 0, (float) width, (float) height);
  cairo_t *cr = gtk_snapshot_append_cairo (snap, &bounds);
  double cell_w = width / self->columns, cell_h = height / self->rows;
  valise_palette_rounded (cr, 0, 0, width, height, 3);
  cairo_clip (cr);
  cairo_set_antialias (cr, CAIRO_ANTIALIAS_NONE); /* neighbours touch without a seam */
  for (guint y = 0; y < self->rows; y++)
    for (guint x = 0, run; x < self->columns; x += run) {
      for (run = 1; x + run < self->columns && self->map[y][x + run] == self->map[y][x]; run++)
        ;
      if (self->map[y][x] == 0)
        valise_palette_set (cr, VALISE_COLOR_GRID, 1); /* a constant */
      else
        valise_palette_set_depth (cr, self->map[y][x], 1);
      cairo_rectangle (cr, x * cell_w, y * cell_h, run * cell_w, cell_h);
      cairo_fill (cr);
    }
  cairo_destroy (cr);
}

static void measure (GtkWidget *widget, GtkOrientation orientation, int for_size, int *minimum, int *natural, int *min_baseline, int *nat_baseline)
{
  ValiseMatrixMap *self = VALISE_MATRIX_MAP (widget);
  *minimum = *natural = orientation == GTK_ORIENTATION_HORIZONTAL ? LEAST_WIDTH : MAX ((int) self->rows * CELL_HEIGHT, LEAST_HEIGHT);
}

static void show (ValiseMatrixMap *self, const char *label)
{
  gtk_accessible_update_property (GTK_ACCESSIBLE (self), GTK_ACCESSIBLE_PROPERTY_LABEL, label, -1);
  gtk_widget_queue_resize (GTK_WIDGET (self));
}

void valise_matrix_map_set_matrix (ValiseMatrixMap *self, const ValiseReportMatrix *matrix)
{
  g_autofree char *label = g_strdup_printf (C_("matrix map", "%.2f bits on average, from %u to %u"), matrix->depth, matrix->least, matrix->most);
  self->columns = matrix->map_columns;
  self->rows = matrix->map_rows;
  memcpy (self->map, matrix->map, sizeof self->map);
  show (self, label);
}

void valise_matrix_map_set_depth (ValiseMatrixMap *self, guint depth)
{
  g_autofree char *label = g_strdup_printf (g_dngettext ("valise", "%u bit", "%u bits", depth), depth);
  self->columns = self->rows = 1;
  self->map[0][0] = (guint8) depth;
  show (self, label);
}

static void valise_matrix_map_class_init (ValiseMatrixMapClass *klass)
{
  GtkWidgetClass *widget_class = GTK_WIDGET_CLASS (klass);
  widget_class->snapshot = snapshot;
  widget_class->measure = measure;
  gtk_widget_class_set_accessible_role (widget_class, GTK_ACCESSIBLE_ROLE_IMG);
}

static void valise_matrix_map_init (ValiseMatrixMap *self)
{
}

GtkWidget *valise_matrix_map_new (void)
{
  return g_object_new (VALISE_TYPE_MATRIX_MAP, NULL);
}
