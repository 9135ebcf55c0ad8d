/* reading_column.c: the width is given, so a label below is laid out once for each change, not once for each width it might have. */
#include "app/ui/reading_column.h"

#define LEAST_WIDTH 200
#define MOST_WIDTH 780

struct _ValiseReadingColumn {
  GtkWidget parent;
};

static void buildable_init (GtkBuildableIface *iface);

static GtkBuildableIface *parent_buildable;

G_DEFINE_TYPE_WITH_CODE (ValiseReadingColumn, valise_reading_column, GTK_TYPE_WIDGET, G_IMPLEMENT_INTERFACE (GTK_TYPE_BUILDABLE, buildable_init))

static GtkSizeRequestMode get_request_mode (GtkWidget *widget)
{
  return GTK_SIZE_REQUEST_HEIGHT_FOR_WIDTH;
}

static void measure (GtkWidget *widget, GtkOrientation orientation, int for_size, int *minimum, int *natural, int *min_baseline,
                     int *nat_baseline)
{
  GtkWidget *child = gtk_widget_get_first_child (widget);
  if (orientation == GTK_ORIENTATION_HORIZONTAL) {
    *minimum = LEAST_WIDTH;
    *natural = MOST_WIDTH;
    return;
  }
  /* Asked without a width, it is as tall as it is now. */
  int now = gtk_widget_get_width (widget), width = for_size >= 0 ? for_size : now ? now : MOST_WIDTH;
  if (child)
    gtk_widget_measure (child, orientation, MIN (width, MOST_WIDTH), minimum, natural, NULL, NULL);
}

static void size_allocate (GtkWidget *widget, int width, int height, int baseline)
{
  GtkWidget *child = gtk_widget_get_first_child (widget);
  int used = MIN (width, MOST_WIDTH);
  if (child)
    gtk_widget_size_allocate (child, &(GtkAllocation) { (width - used) / 2, 0, used, height }, -1);
}

static void dispose (GObject *object)
{
  GtkWidget *child = gtk_widget_get_first_child (GTK_WIDGET (object));
  if (child)
    gtk_widget_unparent (child);
  G_OBJECT_CLASS (valise_reading_column_parent_class)->dispose (object);
}

static void add_child (GtkBuildable *buildable, GtkBuilder *builder, GObject *child, const char *type)
{
  if (GTK_IS_WIDGET (child))
    gtk_widget_set_parent (GTK_WIDGET (child), GTK_WIDGET (buildable));
  else
    parent_buildable->add_child (buildable, builder, child, type);
}

static void buildable_init (GtkBuildableIface *iface)
{
  parent_buildable = g_type_interface_peek_parent (iface);
  iface->add_child = add_child;
}

static void valise_reading_column_class_init (ValiseReadingColumnClass *klass)
{
  GtkWidgetClass *widget_class = GTK_WIDGET_CLASS (klass);
  G_OBJECT_CLASS (klass)->dispose = dispose;
  widget_class->get_request_mode = get_request_mode;
  widget_class->measure = measure;
  widget_class->size_allocate = size_allocate;
}

static void valise_reading_column_init (ValiseReadingColumn *self)
{
}
