/* model_row.h: a checkpoint or a fit, with Chat and a menu: details, verify, export, rename, remove. */
#ifndef VALISE_MODEL_ROW_H
#define VALISE_MODEL_ROW_H

#include <adwaita.h>

#include "app/library/library.h"

G_BEGIN_DECLS

#define VALISE_TYPE_MODEL_ROW (valise_model_row_get_type ())
G_DECLARE_FINAL_TYPE (ValiseModelRow, valise_model_row, VALISE, MODEL_ROW, AdwActionRow)

GtkWidget *valise_model_row_new (ValiseModel *model);

G_END_DECLS
#endif
