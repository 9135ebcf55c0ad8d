/* job.h: an import, an analysis or a fit as a thing to be watched: runs on a worker thread, tells the main context. */
#ifndef VALISE_JOB_H
#define VALISE_JOB_H

#include "app/library/library.h"

G_BEGIN_DECLS

typedef enum { VALISE_JOB_IMPORT, VALISE_JOB_ANALYSE, VALISE_JOB_FIT } ValiseJobKind;
typedef enum { VALISE_JOB_RUNNING, VALISE_JOB_DONE, VALISE_JOB_FAILED, VALISE_JOB_CANCELLED } ValiseJobState;

#define VALISE_TYPE_JOB (valise_job_get_type ())
G_DECLARE_FINAL_TYPE (ValiseJob, valise_job, VALISE, JOB, GObject)
/* Properties with notify on the main context: "state" (int), "fraction" (double), "detail" (string), "title" (string). */

/* Each starts at once. */
ValiseJob *valise_job_import (ValiseLibrary *library, const char *source, const char *name);
ValiseJob *valise_job_analyse (ValiseLibrary *library, ValiseModel *model, const char *calibration_path);
ValiseJob *valise_job_fit (ValiseLibrary *library, ValiseModel *model, const ValiseTarget *target, const char *output_name,
                           const char *calibration_path);
ValiseJobKind valise_job_get_kind (ValiseJob *job);
ValiseJobState valise_job_get_state (ValiseJob *job);
double valise_job_get_fraction (ValiseJob *job);
const char *valise_job_get_detail (ValiseJob *job);
const char *valise_job_get_title (ValiseJob *job);
void valise_job_cancel (ValiseJob *job);
ValiseModel *valise_job_get_model (ValiseJob *job);       /* what it works on, or made (import, fit) once done */
const QzResult *valise_job_get_result (ValiseJob *job);   /* fit, once done */
const ValisePlan *valise_job_get_plan (ValiseJob *job);   /* fit, once done */
const GError *valise_job_get_error (ValiseJob *job);      /* failed */

G_END_DECLS
#endif
