/* fit_report.h: what a fit is made of: promised and measured, bytes and losses of its components, and the depths within every matrix. */
#ifndef VALISE_FIT_REPORT_H
#define VALISE_FIT_REPORT_H

#include <adwaita.h>

#include "app/library/library.h"

G_BEGIN_DECLS

#define VALISE_TYPE_FIT_REPORT (valise_fit_report_get_type ())
G_DECLARE_FINAL_TYPE (ValiseFitReport, valise_fit_report, VALISE, FIT_REPORT, AdwWindow)

ValiseFitReport *valise_fit_report_new (GtkWindow *parent, ValiseModel *model);

G_END_DECLS
#endif
