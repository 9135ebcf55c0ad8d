/* fit.c: allocate for the size asked for, encode matrix by matrix, seal, measure. */
#include "quantizer/fit.h"

#include "engine/error.h"
#include "quantizer/analysis.h"
#include "quantizer/encode.h"
#include "quantizer/journal.h"
#include "quantizer/measure.h"
#include "quantizer/method.h"
#include "quantizer/seal.h"
#include "quantizer/tune.h"

#include <string.h>

/* Rows encoded together: few enough to share out, many enough for the products in a tall matrix. */
enum { FEW_ROWS = QZ_STRIPE_ROWS, MANY_ROWS = 4 * QZ_STRIPE_ROWS, TALL = 4096 };

static const double encode_share = 0.85; /* of the whole fit's time, where it is not tuned, ... */
static const double tune_step_share = 1.0 / 110; /* ... and of that of packing with long words what one step of tuning takes */

typedef struct {
  const QzSource *source;
  const QzAnalysis *analysis;
  const guint8 *depths; /* of all cells */
  QzSeal *seal;
  QzJournal *journal;
  EngWorkers *workers;
  EngProgress progress;
  gpointer data;
  GCancellable *cancellable;
  double encode_end, tune_end; /* of the progress */
  gboolean long_words;  /* of trellises: 16 bits */
  gboolean rows_alike;  /* QZ_ALLOCATE_NONE */
  float *loss;          /* [n_matrices] */
  float *factor;        /* [cols][cols] of the input whose matrices are being encoded: */
  guint loaded;         /* this one of its factors, or QZ_NONE */
} Fit;

typedef struct {
  const Fit *fit;
  guint matrix, rows_per_unit, n_units;
  guint factor;              /* the units that are compensated by it are encoded */
  QzEncoder encoder;
  QzEncodeScratch **scratch; /* [workers] */
  float **rows;              /* [workers][rows_per_unit][cols] */
  float **transformed;       /* [workers][cols] */
  double **loss;             /* [workers][rows_per_unit] */
  double *unit_loss;         /* [n_units] */
  guint8 *blob;
  gsize size;
  GMutex lock;
  GError *error;
} MatrixJob;

static void fail_job (MatrixJob *job, GError *error)
{
  g_mutex_lock (&job->lock);
  if (job->error == NULL)
    job->error = g_steal_pointer (&error);
  g_mutex_unlock (&job->lock);
  g_clear_error (&error);
}

static guint factor_of_unit (const MatrixJob *job, guint unit)
{
  const Fit *fit = job->fit;
  guint row0 = unit * job->rows_per_unit, n = MIN (job->rows_per_unit, fit->source->matrices[job->matrix].rows - row0);
  return qz_analysis_factor_of (fit->source, fit->analysis->pivots, job->matrix, row0, n);
}

static void encode_unit (MatrixJob *job, guint unit, guint worker)
{
  const Fit *fit = job->fit;
  const QzMatrix *m = &fit->source->matrices[job->matrix];
  guint row0 = unit * job->rows_per_unit, n = MIN (job->rows_per_unit, m->rows - row0);
  GError *error = NULL;
  if (!qz_source_read_rows (fit->source, job->matrix, row0, row0 + n, job->rows[worker], &error)) {
    fail_job (job, error);
    return;
  }
  eng_gguf_drop_rows (fit->source->gguf, m->tensor, row0, n);
  qz_transform_rows (fit->analysis->transforms[m->input], job->rows[worker], n, job->transformed[worker]);
  xb_error why = qz_encode_rows (&job->encoder, job->scratch[worker], row0, n, job->rows[worker], job->blob, job->size, job->loss[worker]);
  if (why != NULL) {
    fail_job (job, g_error_new (ENG_ERROR, ENG_ERROR_UNSUPPORTED, "the tensor %s cannot be packed: %s", m->name, why));
    return;
  }
  double sum = 0;
  for (guint i = 0; i < n; i++)
    sum += 0.5 * fit->analysis->row_fisher[job->matrix][row0 + i] * job->loss[worker][i];
  job->unit_loss[unit] = sum;
}

static void encode_work (gpointer data, guint begin, guint end, guint worker)
{
  MatrixJob *job = data;
  for (guint unit = begin; unit < end; unit++)
    if (!g_cancellable_is_cancelled (job->fit->cancellable) && factor_of_unit (job, unit) == job->factor)
      encode_unit (job, unit, worker);
}

/* Every unit once, factor by factor. */
static gboolean encode_units (Fit *fit, MatrixJob *job, GError **error)
{
  const QzInput *input = &fit->source->inputs[fit->source->matrices[job->matrix].input];
  for (job->factor = input->first_factor; job->factor <= input->first_factor + input->n_experts; job->factor++) {
    gboolean used = FALSE;
    for (guint unit = 0; unit < job->n_units && !used; unit++)
      used = factor_of_unit (job, unit) == job->factor;
    if (!used)
      continue;
    if (fit->loaded != job->factor && !qz_analysis_read_factor (fit->analysis, job->factor, fit->factor, error))
      return FALSE;
    fit->loaded = job->factor;
    job->encoder.pivots = fit->analysis->pivots[job->factor];
    eng_workers_run (fit->workers, encode_work, job, job->n_units, 1);
    if (job->error != NULL) {
      g_propagate_error (error, g_steal_pointer (&job->error));
      return FALSE;
    }
    if (g_cancellable_is_cancelled (fit->cancellable)) {
      g_set_error (error, ENG_ERROR, ENG_ERROR_CANCELLED, "the fit was cancelled; nothing was written");
      return FALSE;
    }
  }
  return TRUE;
}

/* Packs one matrix into job->blob; *loss: by the second-order estimate. */
static gboolean encode_matrix (Fit *fit, MatrixJob *job, double *loss, GError **error)
{
  const QzMatrix *m = &fit->source->matrices[job->matrix];
  guint n_workers = eng_workers_count (fit->workers);
  gboolean is_mixture = m->unit != QZ_NONE && fit->source->units[m->unit].is_mixture;
  job->rows_per_unit = m->rows >= TALL && !is_mixture ? MANY_ROWS : FEW_ROWS;
  job->n_units = (m->rows + job->rows_per_unit - 1) / job->rows_per_unit;
  g_autofree double *unit_loss = g_new0 (double, job->n_units);
  job->unit_loss = unit_loss;
  job->scratch = g_new0 (QzEncodeScratch *, n_workers);
  job->rows = g_new0 (float *, n_workers);
  job->transformed = g_new0 (float *, n_workers);
  job->loss = g_new0 (double *, n_workers);
  for (guint i = 0; i < n_workers; i++) {
    job->scratch[i] = qz_encode_scratch_new (&job->encoder, job->rows_per_unit);
    job->rows[i] = g_new (float, (gsize) job->rows_per_unit * m->cols);
    job->transformed[i] = g_new (float, m->cols);
    job->loss[i] = g_new (double, job->rows_per_unit);
  }
  g_mutex_init (&job->lock);
  gboolean ok = encode_units (fit, job, error);
  g_mutex_clear (&job->lock);
  for (guint i = 0; i < n_workers; i++) {
    qz_encode_scratch_free (job->scratch[i]);
    g_free (job->rows[i]);
    g_free (job->transformed[i]);
    g_free (job->loss[i]);
  }
  g_free (job->scratch);
  g_free (job->rows);
  g_free (job->transformed);
  g_free (job->loss);
  *loss = 0;
  for (guint i = 0; i < job->n_units; i++)
    *loss += unit_loss[i];
  return ok;
}

/* As the source has it: exactly. */
static gboolean keep_matrix (Fit *fit, guint m, GError **error)
{
  const QzPackedSize *size = &fit->analysis->curves->matrices[m].kept.size;
  const guint ids[] = { qz_seal_pipeline_id (fit->seal, m, QZ_SIDE_INPUT), qz_seal_pipeline_id (fit->seal, m, QZ_SIDE_OUTPUT) };
  guint8 *blob = g_aligned_alloc (1, size->matrix, XB_ALIGN);
  gboolean ok = qz_kept_pack (fit->source, m, ids, blob, error) && qz_seal_write_matrix (fit->seal, m, blob, size->matrix, error);
  g_aligned_free (blob);
  for (QzSide side = 0; ok && side < QZ_N_SIDES; side++) {
    g_autofree guint8 *pipeline = size->pipelines[side] > 0 ? g_malloc (size->pipelines[side]) : NULL;
    ok = pipeline == NULL || (qz_kept_pipeline (fit->source, m, side, pipeline, error) && qz_seal_write_pipeline (fit->seal, m, side, pipeline, error));
  }
  eng_gguf_drop_tensor (fit->source->gguf, fit->source->matrices[m].tensor);
  return ok;
}

static gboolean pack_matrix (Fit *fit, guint m, GError **error)
{
  const QzAnalysis *a = fit->analysis;
  const QzCurvesMatrix *matrix = &a->curves->matrices[m];
  QzLayout layout;
  QzShape shape = matrix->shape;
  if (fit->long_words && shape.codes == QZ_CODES_TRELLIS)
    shape.codes = QZ_CODES_TRELLIS16;
  qz_layout_init (&layout, &shape, fit->source->matrices[m].input + 1, fit->depths + matrix->first_cell);
  xb_error why = NULL;
  double loss = 0;
  gsize size = xb_layout_bytes (&layout.layout, &why);
  MatrixJob job = { .fit = fit, .matrix = m, .size = size,
                    .encoder = { .layout = &layout.layout, .factor = fit->factor, .importance = fit->rows_alike ? NULL : a->row_fisher[m],
                                 .plain = !qz_method_traits (a->method)->compensates } };
  job.blob = g_aligned_alloc (1, MAX (size, XB_ALIGN), XB_ALIGN);
  gboolean ok = qz_journal_find (fit->journal, m, job.blob, size, &loss);
  if (!ok) {
    why = xb_matrix_init (job.blob, size, &layout.layout);
    ok = why == NULL && encode_matrix (fit, &job, &loss, error);
    if (ok)
      qz_journal_add (fit->journal, m, job.blob, size, loss);
  }
  ok = ok && qz_seal_write_matrix (fit->seal, m, job.blob, size, error);
  fit->loss[m] = loss;
  if (why != NULL)
    g_set_error (error, ENG_ERROR, ENG_ERROR_UNSUPPORTED, "the tensor %s cannot be packed: %s", matrix->name, why);
  g_aligned_free (job.blob);
  qz_layout_clear (&layout);
  eng_gguf_drop_tensor (fit->source->gguf, fit->source->matrices[m].tensor);
  return ok;
}

/* Matrices in the order of their inputs, so that each factor is read once. */
static gboolean encode_all (Fit *fit, GError **error)
{
  const QzAnalysis *a = fit->analysis;
  guint64 done = 0;
  for (guint input = 0; input < a->n_inputs; input++) {
    guint cols = fit->source->inputs[input].cols;
    g_autofree float *factor = g_new (float, (gsize) cols * cols);
    fit->factor = factor;
    fit->loaded = QZ_NONE;
    for (guint m = 0; m < a->n_matrices; m++) {
      if (fit->source->matrices[m].input != input)
        continue;
      if (!(qz_curves_keeps (a->curves, m, fit->depths) ? keep_matrix : pack_matrix) (fit, m, error))
        return FALSE;
      done += (guint64) a->curves->matrices[m].shape.rows * cols;
      if (fit->progress != NULL)
        fit->progress (fit->encode_end * done / a->curves->n_weights, "Packing the model", fit->data);
    }
  }
  return TRUE;
}

/* ---- tuning -------------------------------------------------------------------------------------------------------------- */

/* A packed matrix as it lies in the unfinished file; NULL: it is not there. */
static const EngTensor *find_packed (const Fit *fit, const EngGguf *made, guint m)
{
  g_autofree char *name = g_strdup_printf ("%s.xbit", fit->source->matrices[m].name);
  return eng_gguf_find_tensor (made, name);
}

/* All of them but those that are as the source has them. */
static gboolean open_packed (const Fit *fit, EngGguf *made, QzPacked *packed, GError **error)
{
  const QzSource *source = fit->source;
  *packed = (QzPacked){ g_new0 (xb_matrix *, source->n_matrices), g_new0 (float *, source->n_matrices) };
  for (guint m = 0; m < source->n_matrices; m++) {
    packed->growth[m] = g_new (float, source->matrices[m].rows);
    for (guint r = 0; r < source->matrices[m].rows; r++)
      packed->growth[m][r] = 1;
    if (qz_curves_keeps (fit->analysis->curves, m, fit->depths))
      continue;
    const EngTensor *tensor = find_packed (fit, made, m);
    xb_error why = "there is none";
    packed->matrices[m] = tensor != NULL ? xb_matrix_open (tensor->data, tensor->bytes, &why) : NULL;
    if (packed->matrices[m] == NULL) {
      g_set_error (error, ENG_ERROR, ENG_ERROR_FORMAT, "the packed tensor %s of %s cannot be read: %s", source->matrices[m].name,
                   eng_gguf_path (made), why);
      return FALSE;
    }
  }
  return TRUE;
}

static void close_packed (const Fit *fit, QzPacked *packed)
{
  for (guint m = 0; m < fit->source->n_matrices; m++) {
    xb_matrix_free (packed->matrices[m]);
    g_free (packed->growth[m]);
  }
  g_free (packed->matrices);
  g_free (packed->growth);
}

static gboolean rewrite_scales (Fit *fit, EngGguf *made, const QzPacked *packed, GError **error)
{
  for (guint m = 0; m < fit->source->n_matrices; m++) {
    if (packed->matrices[m] == NULL)
      continue;
    const EngTensor *tensor = find_packed (fit, made, m);
    void *blob = g_aligned_alloc (1, tensor->bytes, XB_ALIGN);
    memcpy (blob, tensor->data, tensor->bytes);
    xb_error why = xb_scale_rows (blob, tensor->bytes, 0, fit->source->matrices[m].rows, packed->growth[m]);
    if (why != NULL)
      g_set_error (error, ENG_ERROR, ENG_ERROR_UNSUPPORTED, "the tensor %s cannot be tuned: %s", fit->source->matrices[m].name, why);
    gboolean ok = why == NULL && qz_seal_rewrite_matrix (fit->seal, m, blob, error);
    g_aligned_free (blob);
    eng_gguf_drop_tensor (made, tensor);
    if (!ok)
      return FALSE;
  }
  return TRUE;
}

static gboolean tune_all (Fit *fit, const QzTarget *target, guint n_steps, double expected_kl, const char *key, GError **error)
{
  QzPacked packed;
  g_autoptr (EngGguf) made = eng_gguf_open (qz_seal_unfinished (fit->seal), error);
  if (made == NULL)
    return FALSE;
  g_autofree char *tuned_key = g_strdup_printf ("tune 1 %u %s", n_steps, key);
  g_autoptr (QzWork) work = qz_work_open (target->work, tuned_key, error);
  QzTuning tuning = { fit->source, fit->analysis, &packed, n_steps, expected_kl, work, fit->progress, fit->data, fit->encode_end, fit->tune_end };
  gboolean ok = open_packed (fit, made, &packed, error) && work != NULL
                && qz_tune (&tuning, fit->workers, fit->cancellable, error) && rewrite_scales (fit, made, &packed, error);
  close_packed (fit, &packed);
  return ok;
}

static gboolean refuse_size (const QzCurves *curves, guint64 extra_bytes, guint64 target_bytes, GError **error)
{
  guint64 least = qz_curves_min_bytes (curves) + extra_bytes;
  g_autofree char *wanted = g_format_size (target_bytes);
  /* Rounded up, so that the size named is one that works. */
  g_set_error (error, ENG_ERROR, ENG_ERROR_MEMORY, "%s is too small for this model: the smallest possible fit takes %.1f MB (%" G_GUINT64_FORMAT
               " bytes)", wanted, (least + 99999) / 100000 / 10.0, least);
  return FALSE;
}

/* Bytes of the packed matrices once the depths are known. */
static QzPackedSize *packed_sizes (const QzCurves *curves, const guint8 *depths)
{
  QzPackedSize *sizes = g_new (QzPackedSize, curves->n_matrices);
  for (guint m = 0; m < curves->n_matrices; m++)
    sizes[m] = qz_curves_matrix_size (curves, m, depths);
  return sizes;
}

static void add_bytes (GChecksum *sum, const void *data, gsize size)
{
  g_checksum_update (sum, data, (gssize) size);
}

/* Everything that the bytes of a packed matrix depend on. */
static char *journal_key (const QzAnalysis *a, gboolean long_words, gboolean rows_alike, const guint8 *depths)
{
  enum { SEARCH_VERSION = 4 }; /* of what encoding chooses */
  g_autoptr (GChecksum) sum = g_checksum_new (G_CHECKSUM_SHA256);
  g_autofree char *version = g_strdup_printf (VALISE_VERSION " %d %s %s %" G_GUINT64_FORMAT " %u %u %d", SEARCH_VERSION, qz_method_name (a->method), a->fingerprint,
                                              a->seed, a->widest, xb_word_bits (long_words ? XB_TRELLIS16 : XB_TRELLIS), rows_alike);
  add_bytes (sum, version, strlen (version));
  for (guint m = 0; m < a->n_matrices; m++) {
    add_bytes (sum, a->row_fisher[m], sizeof (float) * a->curves->matrices[m].shape.rows);
    add_bytes (sum, &a->curves->matrices[m].shape.scale_kind, 1);
    add_bytes (sum, &a->curves->matrices[m].shape.group, 1);
  }
  for (guint f = 0; f < a->n_factors; f++)
    if (a->pivots[f] != NULL)
      add_bytes (sum, a->pivots[f], sizeof (float) * a->factor_cols[f]);
  for (guint u = 0; u < a->n_units; u++)
    add_bytes (sum, a->order[u], sizeof (guint32) * a->order_lengths[u]);
  add_bytes (sum, depths, a->curves->n_cells);
  return g_strdup (g_checksum_get_string (sum));
}

gboolean qz_fit (EngGguf *gguf, const QzAnalysis *a, const QzTarget *target, const char *path, EngWorkers *workers,
                 QzResult *result, EngProgress progress, gpointer data, GCancellable *cancellable, GError **error)
{
  gint64 started = g_get_monotonic_time ();
  g_autoptr (QzSource) source = qz_source_new (gguf, error);
  if (source == NULL)
    return FALSE;
  g_autofree char *fingerprint = qz_fingerprint (gguf);
  if (!g_str_equal (fingerprint, a->fingerprint)) {
    g_set_error (error, ENG_ERROR, ENG_ERROR_ARGUMENT, "the analysis is not of %s: analyse it first", eng_gguf_path (gguf));
    return FALSE;
  }
  if (target->bits > QZ_MOST_DEPTH || (target->bits == 0 && a->method != QZ_METHOD_XBIT)) {
    g_set_error (error, ENG_ERROR, ENG_ERROR_ARGUMENT, "%s has one depth for all weights: say which, 1 to 8 bits", qz_method_name (a->method));
    return FALSE;
  }
  qz_analysis_apply_order (a, source);
  const QzCurves *curves = a->curves;
  gboolean is_best = target->quality == QZ_QUALITY_BEST;
  QzPromise promise = { .target = *target, .calibration = a->calibration };
  guint64 other_bytes, used_bytes;
  double loss;
  if (!qz_seal_other_bytes (source, a->transforms, &promise, &other_bytes, error))
    return FALSE;
  guint64 extra_bytes = other_bytes - curves->other_bytes;
  g_autofree guint8 *depths = g_malloc (curves->n_cells);
  if (target->bits > 0) {
    qz_curves_uniform (curves, target->bits, extra_bytes, depths, &used_bytes, &loss);
    promise.target.bytes = used_bytes;
  } else if (!qz_curves_allocate (curves, target->allocation, target->bytes, extra_bytes, depths, &used_bytes, &loss)) {
    return refuse_size (curves, extra_bytes, target->bytes, error);
  }

  g_autofree QzPackedSize *sizes = packed_sizes (curves, depths);
  promise.expected_kl = qz_expected_kl (qz_curves_kl_of_loss (loss), target->quality);
  promise.bpw = 8.0 * (used_bytes - other_bytes) / curves->n_weights;
  g_autoptr (QzSeal) seal = qz_seal_new (source, a->transforms, sizes, &promise, error);
  if (seal == NULL || !qz_seal_begin (seal, path, error))
    return FALSE;
  g_autofree char *key = journal_key (a, is_best, target->allocation == QZ_ALLOCATE_NONE, depths);
  g_autoptr (QzJournal) journal = qz_journal_open (target->work, key);
  g_autofree float *matrix_loss = g_new0 (float, curves->n_matrices);
  Fit fit = { .source = source, .analysis = a, .depths = depths, .seal = seal, .journal = journal, .workers = workers, .progress = progress, .data = data,
              .cancellable = cancellable, .loss = matrix_loss, .long_words = is_best,
              .rows_alike = target->allocation == QZ_ALLOCATE_NONE };
  guint n_steps = is_best ? MAX (1, a->n_learned / QZ_TUNE_SEQUENCES) : 0;
  fit.encode_end = encode_share / (1 + tune_step_share * n_steps);
  fit.tune_end = fit.encode_end * (1 + tune_step_share * n_steps);
  if (!encode_all (&fit, error))
    return FALSE;
  /* What was really rounded away says more than the curves did. */
  loss = qz_curves_rounding (curves, depths);
  for (guint m = 0; m < curves->n_matrices; m++)
    loss += matrix_loss[m];
  double expected_kl = qz_curves_kl_of_loss (loss);
  *result = (QzResult){ .file_bytes = qz_seal_file_bytes (seal), .bpw = promise.bpw, .expected_kl = is_best ? qz_tuned_kl (expected_kl) : expected_kl };
  if ((n_steps > 0 && !tune_all (&fit, target, n_steps, qz_curves_kl_of_loss (loss), key, error))
      || !qz_measure (source, a, qz_seal_unfinished (seal), workers, &result->kl_divergence, &result->top1_agreement, progress, data, fit.tune_end, 1,
                   cancellable, error)
      || !qz_seal_set_outcome (seal, result->kl_divergence, result->top1_agreement, matrix_loss, error) || !qz_seal_finish (seal, error))
    return FALSE;
  result->seconds = (g_get_monotonic_time () - started) * 1e-6;
  return TRUE;
}
