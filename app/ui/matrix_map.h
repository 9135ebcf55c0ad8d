/* matrix_map.h: the depths within one matrix: stripes of outputs from left to right, panels of inputs from top to bottom. */
#ifndef VALISE_MATRIX_MAP_H
#define VALISE_MATRIX_MAP_H

#include <adwaita.h>

#include "app/library/report.h"

G_BEGIN_DECLS

#define VALISE_TYPE_MATRIX_MAP (valise_matrix_map_get_type ())
G_DECLARE_FINAL_TYPE (ValiseMatrixMap, valise_matrix_map, VALISE, MATRIX_MAP, GtkWidget)

GtkWidget *valise_matrix_map_new (void);
/* Copies what it draws; its label for screen readers says the same in words. */
void valise_matrix_map_set_matrix (ValiseMatrixMap *self, const ValiseReportMatrix *matrix);
/* A sample of one depth, for a legend. */
void valise_matrix_map_set_depth (ValiseMatrixMap *self, guint depth);

G_END_DECLS
#endif
