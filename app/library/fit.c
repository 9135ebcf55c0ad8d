/* fit.c: the analysis of a checkpoint, kept beside the library, and the fit of it to a budget. */
#include "app/library/library-private.h"
#include "engine/checkpoint/checkpoint.h"
#include "quantizer/samples.h"

#include <glib/gstdio.h>
#include <math.h>
#include <string.h>

#define SAMPLES_SHARE 0.4 /* of the time of an analysis on the model's own samples, that they take */
#define ROTATIONS_SHARE 0.8 /* of what is left, that learning rotations takes */
#define BUNDLED "bundled" /* stands for the calibration text that comes with Valise; the analysis file knows its version */

static char *analysis_path (ValiseLibrary *library, ValiseModel *model, const char *calibration_path, QzQuality quality, char **text, gsize *length,
                            GError **error);
static QzAnalysis *get_analysis (ValiseLibrary *library, ValiseModel *model, EngGguf **gguf, EngWorkers *workers, const char *calibration_path,
                                 const ValiseTarget *target, const char *folder, char **path, EngProgress progress, gpointer data, GCancellable *cancellable, GError **error);
static gboolean save_analysis (ValiseLibrary *library, ValiseModel *model, const QzAnalysis *analysis, const char *path, GError **error);
static char *default_name (ValiseModel *model, const ValisePlan *plan);
static gboolean is_self (const char *calibration_path);
static char *write_samples (ValiseLibrary *library, ValiseModel *model, EngWorkers *workers, const QzOptions *options, ValiseSpan *span,
                            GCancellable *cancellable, GError **error);
static gboolean is_path (const char *output);
static gboolean check_output (ValiseLibrary *library, ValiseModel *model, const char *output, GError **error);

char *valise_library_find_analysis (ValiseLibrary *library, const char *key)
{
  g_autofree char *folder = g_build_filename (library->home, "analysis", NULL);
  g_autofree char *bundled = g_strconcat (folder, "/", key, "-" BUNDLED ".analysis", NULL);
  if (g_file_test (bundled, G_FILE_TEST_EXISTS))
    return g_steal_pointer (&bundled);
  g_autoptr (GDir) dir = g_dir_open (folder, 0, NULL);
  g_autofree char *newest = NULL;
  gint64 newest_time = G_MININT64;
  const char *name;
  while (dir && (name = g_dir_read_name (dir))) {
    g_autofree char *path = g_build_filename (folder, name, NULL);
    GStatBuf info;
    if (!g_str_has_prefix (name, key) || !g_str_has_suffix (name, ".analysis") || g_stat (path, &info) < 0 || info.st_mtime <= newest_time)
      continue;
    newest_time = info.st_mtime;
    g_free (newest);
    newest = g_steal_pointer (&path);
  }
  return g_steal_pointer (&newest);
}

gboolean valise_library_analyse (ValiseLibrary *library, ValiseModel *model, const char *calibration_path, EngProgress progress, gpointer data,
                                 GCancellable *cancellable, GError **error)
{
  g_autoptr (EngGguf) gguf = eng_checkpoint_open (valise_model_get_path (model), error);
  if (!gguf)
    return FALSE;
  const ValiseTarget usual = { 0 };
  g_autoptr (EngWorkers) workers = eng_workers_new (0);
  g_autofree char *path = NULL;
  g_autoptr (QzAnalysis) analysis = get_analysis (library, model, &gguf, workers, calibration_path, &usual, NULL, &path, progress, data, cancellable, error);
  return analysis != NULL;
}

ValiseModel *valise_library_fit (ValiseLibrary *library, ValiseModel *model, const ValiseTarget *target, const char *output,
                                 const char *calibration_path, ValisePlan *plan, QzResult *result, EngProgress progress, gpointer data,
                                 GCancellable *cancellable, GError **error)
{
  ValisePlan own_plan;
  QzResult own_result;
  EngTraits traits;
  ValiseSpan first = { progress, data, 0, 0.5 }, second = { progress, data, 0.5, 1 };
  plan = plan ? plan : &own_plan;
  result = result ? result : &own_result;
  gint64 begin_us = g_get_monotonic_time ();

  if (!check_output (library, model, output, error))
    return NULL;
  /* A first plan from what is known now: a budget that can never be met is refused before minutes are spent. */
  if (!valise_library_plan (library, model, target, plan, error))
    return NULL;
  const ValisePlan first_plan = *plan;
  g_autoptr (EngGguf) gguf = eng_checkpoint_open (valise_model_get_path (model), error);
  if (!gguf || !eng_traits_read (&traits, gguf, error))
    return NULL;
  g_autoptr (EngWorkers) workers = eng_workers_new (target->threads);
  g_autofree char *kept = NULL;
  g_autoptr (ValiseTemp) temp = valise_temp_new (library->home, error);
  if (!temp)
    return NULL;
  g_autoptr (QzAnalysis) analysis
    = get_analysis (library, model, &gguf, workers, calibration_path, target, temp->path, &kept, valise_span_report, &first, cancellable, error);
  if (!analysis || !valise_plan_with_curves (qz_analysis_curves (analysis), &traits, target, plan, error))
    return NULL;
  plan->fit_memory_bytes = first_plan.fit_memory_bytes;
  plan->source_bits = first_plan.source_bits;

  g_autofree char *name = output && !is_path (output) ? g_strdup (output) : default_name (model, plan);
  g_autofree char *file = is_path (output) ? g_canonicalize_filename (output, NULL) : g_build_filename (temp->path, "fit.gguf", NULL);
  g_autofree char *folder = g_path_get_dirname (file);
  if (!valise_check_space (folder, plan->memory.weights_bytes, "this fit", error))
    return NULL;
  /* The licence goes with the file, also where the checkpoint's own metadata had none. */
  const char *metadata[] = { "general.name", name, "valise.source", valise_model_get_name (model),
                             "valise.fit.method", qz_method_name (target->method),
                             *valise_model_get_license (model) ? "general.license" : NULL, valise_model_get_license (model), NULL };
  EngSessionOptions session;
  if (!valise_session_options (&traits, target->context, target->kv_bits, &session, error))
    return NULL;
  g_autofree char *work = g_strconcat (kept, ".fit", NULL);
  QzTarget wanted = { .bytes = plan->file_target_bytes, .bits = target->bits, .allocation = target->allocation, .quality = target->quality,
                      .metadata = metadata, .work = work };
  if (target->ram_bytes || target->context) { /* a budget holds for the chat it was reckoned for, so that is what the fit is opened with */
    wanted.n_ctx = session.n_ctx;
    wanted.kv_bits = session.kv_bits;
  }
  if (!qz_fit (gguf, analysis, &wanted, file, workers, result, valise_span_report, &second, cancellable, error))
    return NULL;
  result->seconds = (double) (g_get_monotonic_time () - begin_us) / G_USEC_PER_SEC;
  /* The plan was exact to a few cells; from here on it says what was made. */
  plan->memory.total_bytes += result->file_bytes - plan->memory.weights_bytes;
  plan->memory.weights_bytes = result->file_bytes;
  plan->bpw = result->bpw;
  if (target->bits || target->allocation != QZ_ALLOCATE_CELLS)
    plan->expected_kl = result->expected_kl;
  if (is_path (output)) {
    qz_work_remove (work);
    return valise_library_find_model (library, file, error);
  }

  g_auto (ValiseModelRow) row = { .kl = NAN };
  g_autoptr (GChecksum) checksum = g_checksum_new (G_CHECKSUM_SHA256);
  if (!valise_model_row_read (&row, file, error) || !valise_hash_file (file, checksum, NULL, NULL, cancellable, error))
    return NULL;
  row.kind = VALISE_MODEL_FIT;
  row.kl = result->kl_divergence;
  row.parent = valise_model_get_id (model);
  row.sha256 = g_strdup (g_checksum_get_string (checksum));
  row.source = g_strdup (valise_model_get_name (model));
  row.name = g_steal_pointer (&name);
  ValiseModel *made = valise_library_add_object (library, file, NULL, &row, output == NULL, error);
  if (made)
    qz_work_remove (work);
  return made;
}

/* ---- helpers ---- */

/* Where the analysis with this calibration text is kept; reads the text (NULL: the bundled one). */
static char *analysis_path (ValiseLibrary *library, ValiseModel *model, const char *calibration_path, QzQuality quality, char **text, gsize *length,
                            GError **error)
{
  const char *end = quality == QZ_QUALITY_BEST ? "-best.analysis" : ".analysis";
  g_autofree char *key = valise_model_content_key (model, error);
  if (!key)
    return NULL;
  if (!calibration_path || is_self (calibration_path))
    return g_strconcat (library->home, "/analysis/", key, calibration_path ? "-" VALISE_CALIBRATION_SELF : "-" BUNDLED, end, NULL);
  if (!g_file_get_contents (calibration_path, text, length, NULL)) {
    g_set_error (error, VALISE_ERROR, VALISE_ERROR_NOT_FOUND, "the calibration text %s cannot be read: name a text file", calibration_path);
    return NULL;
  }
  if (!g_utf8_validate (*text, (gssize) *length, NULL)) {
    g_set_error (error, VALISE_ERROR, VALISE_ERROR_ARGUMENT, "the calibration text %s is not UTF-8 text: convert it first", calibration_path);
    return NULL;
  }
  g_autofree char *hash = g_compute_checksum_for_data (G_CHECKSUM_SHA256, (const guchar *) *text, *length);
  return g_strdup_printf ("%s/analysis/%s-%.16s%s", library->home, key, hash, end);
}

/* The model in other coordinates, in a file of its own within folder, takes its place. */
static gboolean fold_rotations (EngGguf **gguf, const QzOptions *options, const char *folder, EngWorkers *workers, ValiseSpan *span, GCancellable *cancellable,
                                GError **error)
{
  g_autofree char *path = g_build_filename (folder, "rotated.gguf", NULL);
  if (!qz_fold_rotations (*gguf, options, path, workers, valise_span_report, span, cancellable, error))
    return FALSE;
  EngGguf *rotated = eng_gguf_open (path, error);
  if (!rotated)
    return FALSE;
  eng_gguf_unref (*gguf);
  *gguf = rotated;
  return TRUE;
}

/* *path: where it is kept. *gguf: of a method that folds rotations, the rotated model, in folder. */
static QzAnalysis *get_analysis (ValiseLibrary *library, ValiseModel *model, EngGguf **gguf, EngWorkers *workers, const char *calibration_path,
                                 const ValiseTarget *target, const char *folder, char **path, EngProgress progress, gpointer data, GCancellable *cancellable, GError **error)
{
  g_autofree char *text = NULL;
  QzOptions options = { .memory_bytes = target->memory_bytes, .seed = target->seed, .method = target->method, .bits = target->bits,
                        .quality = target->quality };
  g_autofree char *usual = analysis_path (library, model, calibration_path, target->quality, &text, &options.calibration_length, error);
  if (!usual)
    return NULL;
  /* Only what any later size is fitted from is kept; other methods and seeds are for comparing. */
  gboolean keep = target->method == QZ_METHOD_XBIT && target->seed == 0;
  *path = keep ? g_strdup (usual) : g_strconcat (usual, ".", qz_method_name (target->method), NULL);
  options.calibration = text;
  options.work = *path;
  if (keep && g_file_test (*path, G_FILE_TEST_EXISTS)) {
    g_autoptr (GError) local = NULL;
    QzAnalysis *saved = qz_analysis_load (*gguf, *path, &local);
    if (saved)
      return saved;
    if (progress)
      progress (0, "the saved analysis cannot be used any more, analysing again", data);
  }
  if (!valise_library_note_derived (library, model, *path, error))
    return NULL;
  double begin = is_self (calibration_path) ? SAMPLES_SHARE : 0;
  gboolean rotates = qz_method_folds_rotations (target->method);
  double middle = rotates ? begin + (1 - begin) * ROTATIONS_SHARE : begin;
  ValiseSpan samples = { progress, data, 0, begin }, rotations = { progress, data, begin, middle }, rest = { progress, data, middle, 1 };
  if (is_self (calibration_path)) {
    text = write_samples (library, model, workers, &options, &samples, cancellable, error);
    if (!text)
      return NULL;
    options.calibration = text;
    options.calibration_length = strlen (text);
  }
  if (rotates && !fold_rotations (gguf, &options, folder, workers, &rotations, cancellable, error))
    return NULL;
  g_autoptr (QzAnalysis) analysis = qz_analyse (*gguf, &options, workers, valise_span_report, &rest, cancellable, error);
  if (!analysis || (keep && !save_analysis (library, model, analysis, *path, error)))
    return NULL;
  qz_work_remove (*path);
  return g_steal_pointer (&analysis);
}

static gboolean save_analysis (ValiseLibrary *library, ValiseModel *model, const QzAnalysis *analysis, const char *path, GError **error)
{
  g_autoptr (ValiseTemp) temp = valise_temp_new (library->home, error);
  if (!temp)
    return FALSE;
  g_autofree char *made = g_build_filename (temp->path, "analysis", NULL);
  return qz_analysis_save (analysis, made, error) && valise_library_keep_derived (library, model, made, path, error);
}

static gboolean is_self (const char *calibration_path)
{
  return g_strcmp0 (calibration_path, VALISE_CALIBRATION_SELF) == 0;
}

static char *write_samples (ValiseLibrary *library, ValiseModel *model, EngWorkers *workers, const QzOptions *options, ValiseSpan *span,
                            GCancellable *cancellable, GError **error)
{
  g_autoptr (EngModel) opened = valise_library_open_model (library, model, NULL, NULL, cancellable, error);
  return opened ? qz_calibration_samples (opened, workers, options, valise_span_report, span, cancellable, error) : NULL;
}

/* "SmolLM2-135M-Instruct-96M": what it is and how large. */
static char *default_name (ValiseModel *model, const ValisePlan *plan)
{
  return g_strdup_printf ("%s-%.0fM", valise_model_get_name (model), (double) plan->memory.weights_bytes / 1e6);
}

static gboolean is_path (const char *output)
{
  return output && g_str_has_suffix (output, ".gguf");
}

/* Now, not after minutes of work. */
static gboolean check_output (ValiseLibrary *library, ValiseModel *model, const char *output, GError **error)
{
  if (!output)
    return TRUE;
  if (is_path (output)) {
    g_autofree char *full = g_canonicalize_filename (output, NULL);
    g_autofree char *folder = g_path_get_dirname (full);
    if (!g_file_test (folder, G_FILE_TEST_IS_DIR))
      g_set_error (error, VALISE_ERROR, VALISE_ERROR_NOT_FOUND, "there is no folder %s: create it first", folder);
    else if (g_str_equal (full, valise_model_get_path (model)))
      g_set_error (error, VALISE_ERROR, VALISE_ERROR_ARGUMENT, "%s is the model that is to be fitted: give the fit another name", output);
    else
      return TRUE;
    return FALSE;
  }
  if (!valise_name_check (output, error))
    return FALSE;
  G_GNUC_UNUSED g_autoptr (GRecMutexLocker) locker = g_rec_mutex_locker_new (&library->store->lock);
  g_autofree char *name = valise_library_free_name (library, output, error);
  if (name && !g_str_equal (name, output))
    g_set_error (error, VALISE_ERROR, VALISE_ERROR_EXISTS, "there already is a model named \"%s\": choose another name, or remove it first", output);
  return name && g_str_equal (name, output);
}
