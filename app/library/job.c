/* job.c: see job.h. A job's thread writes its progress under a lock; the main context is told at most every 50 ms. */
#include "app/library/job.h"
#include "app/library/library-private.h"

#define TELL_MS 50

struct _ValiseJob {
  GObject parent;
  /* Set once, before the thread starts. */
  ValiseJobKind kind;
  ValiseLibrary *library;
  char *source, *name, *calibration_path, *title;
  ValiseTarget target;
  GCancellable *cancellable;
  /* What the main context sees. */
  ValiseJobState state;
  double fraction;
  char *detail;
  ValiseModel *model;
  GError *error;
  ValisePlan plan;
  QzResult result;
  /* Shared. */
  GMutex mutex;
  double next_fraction;
  char *next_detail;
  guint tell_source;
};

enum { PROP_STATE = 1, PROP_FRACTION, PROP_DETAIL, PROP_TITLE, N_PROPS };
static GParamSpec *properties[N_PROPS];

G_DEFINE_FINAL_TYPE (ValiseJob, valise_job, G_TYPE_OBJECT)

static gpointer work (gpointer data);
static void report (double fraction, const char *what, gpointer data);

static void valise_job_get_property (GObject *object, guint id, GValue *value, GParamSpec *pspec)
{
  ValiseJob *job = VALISE_JOB (object);
  switch (id) {
  case PROP_STATE:
    g_value_set_int (value, job->state);
    break;
  case PROP_FRACTION:
    g_value_set_double (value, job->fraction);
    break;
  case PROP_DETAIL:
    g_value_set_string (value, job->detail);
    break;
  case PROP_TITLE:
    g_value_set_string (value, job->title);
    break;
  default:
    G_OBJECT_WARN_INVALID_PROPERTY_ID (object, id, pspec);
  }
}

static void valise_job_finalize (GObject *object)
{
  ValiseJob *job = VALISE_JOB (object);
  g_clear_object (&job->library);
  g_clear_object (&job->cancellable);
  g_clear_object (&job->model);
  g_clear_error (&job->error);
  g_free (job->source);
  g_free (job->name);
  g_free (job->calibration_path);
  g_free (job->title);
  g_free (job->detail);
  g_free (job->next_detail);
  g_mutex_clear (&job->mutex);
  G_OBJECT_CLASS (valise_job_parent_class)->finalize (object);
}

static void valise_job_class_init (ValiseJobClass *class)
{
  GObjectClass *object_class = G_OBJECT_CLASS (class);
  object_class->get_property = valise_job_get_property;
  object_class->finalize = valise_job_finalize;
  const GParamFlags flags = G_PARAM_READABLE | G_PARAM_STATIC_STRINGS;
  properties[PROP_STATE] = g_param_spec_int ("state", NULL, NULL, 0, VALISE_JOB_CANCELLED, VALISE_JOB_RUNNING, flags);
  properties[PROP_FRACTION] = g_param_spec_double ("fraction", NULL, NULL, 0, 1, 0, flags);
  properties[PROP_DETAIL] = g_param_spec_string ("detail", NULL, NULL, "", flags);
  properties[PROP_TITLE] = g_param_spec_string ("title", NULL, NULL, "", flags);
  g_object_class_install_properties (object_class, N_PROPS, properties);
}

static void valise_job_init (ValiseJob *job)
{
  g_mutex_init (&job->mutex);
  job->cancellable = g_cancellable_new ();
  job->detail = g_strdup ("");
  job->next_detail = g_strdup ("");
}

static ValiseJob *start (ValiseLibrary *library, ValiseJobKind kind, ValiseModel *model, const char *source, const char *name,
                         const ValiseTarget *target, const char *calibration_path)
{
  ValiseJob *job = g_object_new (VALISE_TYPE_JOB, NULL);
  job->kind = kind;
  job->library = g_object_ref (library);
  job->model = model ? g_object_ref (model) : NULL;
  job->source = g_strdup (source);
  job->name = g_strdup (name);
  job->calibration_path = g_strdup (calibration_path);
  job->target = target ? *target : (ValiseTarget) { 0 };
  job->title = model ? g_strdup (valise_model_get_name (model)) : g_path_get_basename (source);
  g_thread_unref (g_thread_new ("valise-job", work, g_object_ref (job)));
  return job;
}

ValiseJob *valise_job_import (ValiseLibrary *library, const char *source, const char *name)
{
  return start (library, VALISE_JOB_IMPORT, NULL, source, name, NULL, NULL);
}

ValiseJob *valise_job_analyse (ValiseLibrary *library, ValiseModel *model, const char *calibration_path)
{
  return start (library, VALISE_JOB_ANALYSE, model, NULL, NULL, NULL, calibration_path);
}

ValiseJob *valise_job_fit (ValiseLibrary *library, ValiseModel *model, const ValiseTarget *target, const char *output_name,
                           const char *calibration_path)
{
  return start (library, VALISE_JOB_FIT, model, NULL, output_name, target, calibration_path);
}

ValiseJobKind valise_job_get_kind (ValiseJob *job)
{
  return job->kind;
}

ValiseJobState valise_job_get_state (ValiseJob *job)
{
  return job->state;
}

double valise_job_get_fraction (ValiseJob *job)
{
  return job->fraction;
}

const char *valise_job_get_detail (ValiseJob *job)
{
  return job->detail;
}

const char *valise_job_get_title (ValiseJob *job)
{
  return job->title;
}

void valise_job_cancel (ValiseJob *job)
{
  g_cancellable_cancel (job->cancellable);
}

ValiseModel *valise_job_get_model (ValiseJob *job)
{
  return job->model;
}

const QzResult *valise_job_get_result (ValiseJob *job)
{
  return job->kind == VALISE_JOB_FIT && job->state == VALISE_JOB_DONE ? &job->result : NULL;
}

const ValisePlan *valise_job_get_plan (ValiseJob *job)
{
  return job->kind == VALISE_JOB_FIT && job->state == VALISE_JOB_DONE ? &job->plan : NULL;
}

const GError *valise_job_get_error (ValiseJob *job)
{
  return job->error;
}

/* ---- helpers ---- */

/* What the thread hands over when it ends; the main context takes it. */
typedef struct {
  ValiseJob *job;
  ValiseModel *model;
  GError *error;
  ValisePlan plan;
  QzResult result;
} Ending;

static void ending_free (gpointer data)
{
  Ending *ending = data;
  g_clear_object (&ending->model);
  g_clear_error (&ending->error);
  g_object_unref (ending->job);
  g_free (ending);
}

static gboolean finish (gpointer data)
{
  Ending *ending = data;
  ValiseJob *job = ending->job;
  g_mutex_lock (&job->mutex);
  g_clear_handle_id (&job->tell_source, g_source_remove);
  g_mutex_unlock (&job->mutex);
  if (ending->error) {
    job->state = g_error_matches (ending->error, ENG_ERROR, ENG_ERROR_CANCELLED) ? VALISE_JOB_CANCELLED : VALISE_JOB_FAILED;
    if (job->state == VALISE_JOB_FAILED)
      job->error = g_steal_pointer (&ending->error);
  } else {
    job->state = VALISE_JOB_DONE;
    job->fraction = 1;
    job->plan = ending->plan;
    job->result = ending->result;
    if (ending->model)
      g_set_object (&job->model, ending->model);
  }
  g_object_freeze_notify (G_OBJECT (job));
  g_object_notify_by_pspec (G_OBJECT (job), properties[PROP_FRACTION]);
  g_object_notify_by_pspec (G_OBJECT (job), properties[PROP_STATE]);
  g_object_thaw_notify (G_OBJECT (job));
  return G_SOURCE_REMOVE;
}

static gpointer work (gpointer data)
{
  ValiseJob *job = data;
  Ending *ending = g_new0 (Ending, 1);
  ending->job = job; /* the thread's reference */
  if (job->kind == VALISE_JOB_IMPORT)
    ending->model = valise_library_import (job->library, job->source, job->name, report, job, job->cancellable, &ending->error);
  else if (job->kind == VALISE_JOB_FIT)
    ending->model = valise_library_fit (job->library, job->model, &job->target, job->name, job->calibration_path, &ending->plan, &ending->result,
                                        report, job, job->cancellable, &ending->error);
  else
    valise_library_analyse (job->library, job->model, job->calibration_path, report, job, job->cancellable, &ending->error);
  g_idle_add_full (G_PRIORITY_DEFAULT, finish, ending, ending_free);
  return NULL;
}

static gboolean tell (gpointer data)
{
  ValiseJob *job = data;
  g_mutex_lock (&job->mutex);
  job->tell_source = 0;
  job->fraction = job->next_fraction;
  gboolean changed = !g_str_equal (job->detail, job->next_detail);
  if (changed) {
    g_free (job->detail);
    job->detail = g_strdup (job->next_detail);
  }
  g_mutex_unlock (&job->mutex);
  g_object_notify_by_pspec (G_OBJECT (job), properties[PROP_FRACTION]);
  if (changed)
    g_object_notify_by_pspec (G_OBJECT (job), properties[PROP_DETAIL]);
  return G_SOURCE_REMOVE;
}

static void report (double fraction, const char *what, gpointer data)
{
  ValiseJob *job = data;
  G_GNUC_UNUSED g_autoptr (GMutexLocker) locker = g_mutex_locker_new (&job->mutex);
  job->next_fraction = CLAMP (fraction, 0, 1);
  if (what && !g_str_equal (what, job->next_detail)) {
    g_free (job->next_detail);
    job->next_detail = g_strdup (what);
  }
  if (!job->tell_source)
    job->tell_source = g_timeout_add_full (G_PRIORITY_DEFAULT, TELL_MS, tell, g_object_ref (job), g_object_unref);
}
