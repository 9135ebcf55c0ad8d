/* fit_budget.h: the wizard's second step: memory and context by slider, and what they give, at once. */
#ifndef VALISE_FIT_BUDGET_H
#define VALISE_FIT_BUDGET_H

#include <adwaita.h>

#include "app/library/library.h"

G_BEGIN_DECLS

#define VALISE_TYPE_FIT_BUDGET (valise_fit_budget_get_type ())
G_DECLARE_FINAL_TYPE (ValiseFitBudget, valise_fit_budget, VALISE, FIT_BUDGET, AdwBin)
/* Property: "ready" (boolean): the plan can be fitted. */

void valise_fit_budget_set_model (ValiseFitBudget *self, ValiseModel *model);
/* What is asked for, what it gives, and the curves it was read from (NULL while they are being read); borrowed. */
const ValiseTarget *valise_fit_budget_get_target (ValiseFitBudget *self);
const ValisePlan *valise_fit_budget_get_plan (ValiseFitBudget *self);
QzCurves *valise_fit_budget_get_curves (ValiseFitBudget *self);
/* NULL: the bundled text. */
const char *valise_fit_budget_get_calibration (ValiseFitBudget *self);

G_END_DECLS
#endif
