/* result_grid.c: names on the left, numbers on the right. */
#include "app/ui/result_grid.h"

#include <glib/gi18n.h>

static void add_cell (GtkGrid *grid, int column, int row, const char *text, const char *css_class)
{
  GtkWidget *label = gtk_label_new (text);
  gtk_label_set_xalign (GTK_LABEL (label), column == 0 ? 0 : 1);
  gtk_label_set_wrap (GTK_LABEL (label), TRUE);
  gtk_widget_set_hexpand (label, TRUE);
  gtk_widget_add_css_class (label, css_class);
  gtk_grid_attach (grid, label, column, row, 1, 1);
}

void valise_result_grid_begin (GtkGrid *grid)
{
  add_cell (grid, 1, 0, C_("fit result", "Promised"), "heading");
  add_cell (grid, 2, 0, C_("fit result", "Measured"), "heading");
}

void valise_result_grid_add (GtkGrid *grid, int row, const char *name, const char *promised, const char *measured)
{
  add_cell (grid, 0, row, name, "dim-label");
  add_cell (grid, 1, row, promised, "numeric");
  add_cell (grid, 2, row, measured, "numeric");
}
