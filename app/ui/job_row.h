/* job_row.h: an import, an analysis or a fit under way: how far, and a way to end it. */
#ifndef VALISE_JOB_ROW_H
#define VALISE_JOB_ROW_H

#include <adwaita.h>

#include "app/library/job.h"

G_BEGIN_DECLS

#define VALISE_TYPE_JOB_ROW (valise_job_row_get_type ())
G_DECLARE_FINAL_TYPE (ValiseJobRow, valise_job_row, VALISE, JOB_ROW, GtkListBoxRow)

GtkWidget *valise_job_row_new (ValiseJob *job);
/* "about 2 minutes left", or "" while that cannot be said. */
char *valise_time_left (gint64 started_us, double fraction);

G_END_DECLS
#endif
