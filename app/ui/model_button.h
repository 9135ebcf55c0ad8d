/* model_button.h: the model of this chat, and the menu to take another. */
#ifndef VALISE_MODEL_BUTTON_H
#define VALISE_MODEL_BUTTON_H

#include <adwaita.h>

#include "app/library/library.h"

G_BEGIN_DECLS

#define VALISE_TYPE_MODEL_BUTTON (valise_model_button_get_type ())
G_DECLARE_FINAL_TYPE (ValiseModelButton, valise_model_button, VALISE, MODEL_BUTTON, AdwBin)
/* Signal: "chosen" (ValiseModel). */

void valise_model_button_set_model (ValiseModelButton *self, ValiseModel *model);
void valise_model_button_popup (ValiseModelButton *self);
/* "96.0 MB · 3.1 bits", for wherever a model is named. */
char *valise_model_describe (ValiseModel *model);

G_END_DECLS
#endif
