/* result_grid.h: a table of what was promised of a fit beside what was measured. */
#ifndef VALISE_RESULT_GRID_H
#define VALISE_RESULT_GRID_H

#include <gtk/gtk.h>

/* The headings, in row 0. */
void valise_result_grid_begin (GtkGrid *grid);
void valise_result_grid_add (GtkGrid *grid, int row, const char *name, const char *promised, const char *measured);

#endif
