/* fit_plot.h: what is lost against what it weighs: the model's curve, fixed depths on it, the budget, and where that ends. */
#ifndef VALISE_FIT_PLOT_H
#define VALISE_FIT_PLOT_H

#include <adwaita.h>

#include "app/library/library.h"

G_BEGIN_DECLS

#define VALISE_TYPE_FIT_PLOT (valise_fit_plot_get_type ())
G_DECLARE_FINAL_TYPE (ValiseFitPlot, valise_fit_plot, VALISE, FIT_PLOT, GtkWidget)

void valise_fit_plot_set_curves (ValiseFitPlot *self, QzCurves *curves);
/* plan: the dot. limit_bytes: the largest file the budget leaves room for. quality: whose losses the curve shows. */
void valise_fit_plot_set_plan (ValiseFitPlot *self, const ValisePlan *plan, guint64 limit_bytes, QzQuality quality);

G_END_DECLS
#endif
