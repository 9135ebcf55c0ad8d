/* fit_wizard.h: four steps from a checkpoint to a fit: model, budget, fitting, done. */
#ifndef VALISE_FIT_WIZARD_H
#define VALISE_FIT_WIZARD_H

#include "app/ui/window.h"

G_BEGIN_DECLS

#define VALISE_TYPE_FIT_WIZARD (valise_fit_wizard_get_type ())
G_DECLARE_FINAL_TYPE (ValiseFitWizard, valise_fit_wizard, VALISE, FIT_WIZARD, AdwWindow)

/* A fit under way goes on in the background when this is closed. A fit is fitted again from its checkpoint. */
ValiseFitWizard *valise_fit_wizard_new (ValiseWindow *window, ValiseModel *model);

G_END_DECLS
#endif
