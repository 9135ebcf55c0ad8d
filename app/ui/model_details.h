/* model_details.h: everything the library knows of a model. */
#ifndef VALISE_MODEL_DETAILS_H
#define VALISE_MODEL_DETAILS_H

#include <adwaita.h>

#include "app/library/library.h"

AdwWindow *valise_model_details_new (GtkWindow *parent, ValiseModel *model);

#endif
