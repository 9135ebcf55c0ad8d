/* analysis.c: observe, transform and factor each input as its moments arrive, then weigh the cells. */
#include "quantizer/analysis.h"

#include "engine/error.h"
#include "quantizer/calibration.h"
#include "quantizer/factor.h"
#include "quantizer/observe.h"
#include "quantizer/seal.h"
#include "quantizer/sensitivity.h"

#include <stdlib.h>
#include <string.h>

/* Added to the moments' diagonal, of its mean: what the calibration text does not show may still come. */
static const double damping = 0.03;
static const double observe_share = 0.95; /* of the whole analysis's time */

QzAnalysis *qz_analysis_alloc (const QzSource *source)
{
  QzAnalysis *a = g_new0 (QzAnalysis, 1);
  a->n_inputs = source->n_inputs;
  a->n_matrices = source->n_matrices;
  a->n_embd = source->traits.n_embd;
  a->n_layers = source->traits.n_layers;
  a->ffn_order = g_new0 (guint32 *, a->n_layers);
  a->input_cols = g_memdup2 (source->input_cols, sizeof (guint) * source->n_inputs);
  a->transforms = g_new0 (QzTransform *, source->n_inputs);
  a->pivots = g_new0 (float *, source->n_inputs);
  a->row_fisher = g_new0 (float *, source->n_matrices);
  return a;
}

void qz_analysis_free (QzAnalysis *a)
{
  if (a == NULL)
    return;
  for (guint i = 0; i < a->n_inputs; i++) {
    qz_transform_free (a->transforms[i]);
    g_free (a->pivots[i]);
  }
  for (guint m = 0; m < a->n_matrices; m++)
    g_free (a->row_fisher[m]);
  for (guint l = 0; l < a->n_layers; l++)
    g_free (a->ffn_order[l]);
  g_free (a->ffn_order);
  g_free (a->transforms);
  g_free (a->pivots);
  g_free (a->row_fisher);
  g_free (a->input_cols);
  qz_store_free (a->factors);
  qz_curves_unref (a->curves);
  g_free (a->held);
  g_free (a->held_hidden);
  g_free (a->fingerprint);
  g_free (a->calibration);
  g_free (a);
}

QzCurves *qz_analysis_curves (const QzAnalysis *analysis)
{
  return analysis->curves;
}

char *qz_fingerprint (const EngGguf *gguf)
{
  enum { SAMPLES = 64, SAMPLE_BYTES = 64 };
  g_autoptr (GChecksum) sum = g_checksum_new (G_CHECKSUM_SHA256);
  for (guint i = 0; i < eng_gguf_n_tensors (gguf); i++) {
    const EngTensor *t = eng_gguf_tensor (gguf, i);
    g_checksum_update (sum, (const guchar *) t->name, strlen (t->name) + 1);
    g_checksum_update (sum, (const guchar *) &t->type, sizeof t->type);
    g_checksum_update (sum, (const guchar *) t->dims, sizeof t->dims);
    for (guint s = 0; t->packed != NULL && s < 2; s++) {
      g_autofree float *row = g_new (float, t->dims[0]);
      eng_tensor_read_rows (t, s * (eng_tensor_n_rows (t) - 1), 1, row);
      g_checksum_update (sum, (const guchar *) row, (gssize) (t->dims[0] * sizeof (float)));
    }
    for (guint s = 0; t->packed == NULL && s < SAMPLES; s++) {
      guint64 offset = t->bytes / SAMPLES * s;
      g_checksum_update (sum, t->data + offset, MIN (SAMPLE_BYTES, t->bytes - offset));
    }
  }
  return g_strdup (g_checksum_get_string (sum));
}

/* ---- factors ------------------------------------------------------------------------------------------------------------ */

guint64 qz_analysis_factor_bytes (const QzAnalysis *a, guint input)
{
  guint64 cols = a->input_cols[input];
  return cols * (cols - 1) / 2 * sizeof (guint16);
}

guint64 qz_analysis_factor_offset (const QzAnalysis *a, guint input)
{
  guint64 offset = 0;
  for (guint i = 0; i < input; i++)
    offset += qz_analysis_factor_bytes (a, i);
  return offset;
}

gboolean qz_analysis_write_factor (QzAnalysis *a, guint input, const float *f, GError **error)
{
  guint cols = a->input_cols[input];
  g_autofree guint16 *halves = g_malloc (qz_analysis_factor_bytes (a, input));
  guint16 *p = halves;
  for (guint i = 0; i < cols; i++) {
    xb_f32_to_f16 (f + (gsize) i * cols + i + 1, p, cols - i - 1);
    p += cols - i - 1;
  }
  return qz_store_write (a->factors, qz_analysis_factor_offset (a, input), halves, qz_analysis_factor_bytes (a, input), error);
}

gboolean qz_analysis_read_factor (const QzAnalysis *a, guint input, float *f, GError **error)
{
  guint cols = a->input_cols[input];
  g_autofree guint16 *halves = g_malloc (qz_analysis_factor_bytes (a, input));
  if (!qz_store_read (a->factors, qz_analysis_factor_offset (a, input), halves, qz_analysis_factor_bytes (a, input), error))
    return FALSE;
  const guint16 *p = halves;
  for (guint i = 0; i < cols; i++) {
    float *row = f + (gsize) i * cols;
    memset (row, 0, sizeof (float) * i);
    row[i] = 1;
    xb_raw_to_f32 (XB_RAW_F16, p, row + i + 1, cols - i - 1);
    p += cols - i - 1;
  }
  return TRUE;
}

/* ---- the analysis ------------------------------------------------------------------------------------------------------- */

typedef struct {
  QzSource *source;
  QzAnalysis *analysis;
  EngWorkers *workers;
} Learner;

/* Mean square of each column of the matrices that share an input. */
static gboolean column_squares (const Learner *l, guint input, double *squares, GError **error)
{
  const QzSource *source = l->source;
  guint cols = source->input_cols[input], rows = 0;
  memset (squares, 0, sizeof (double) * cols);
  for (guint m = 0; m < source->n_matrices; m++) {
    if (source->matrices[m].input != input)
      continue;
    /* Every fourth row says enough. */
    g_autofree float *row = g_new (float, cols);
    for (guint r = 0; r < source->matrices[m].rows; r += 4, rows++) {
      if (!qz_source_read_rows (source, m, r, r + 1, row, error))
        return FALSE;
      for (guint j = 0; j < cols; j++)
        squares[j] += row[j] * row[j];
    }
  }
  for (guint j = 0; j < cols; j++)
    squares[j] /= rows;
  return TRUE;
}

typedef struct {
  double importance;
  guint32 channel;
} Channel;

static int compare_channels (const void *a, const void *b)
{
  const Channel *x = a, *y = b;
  if (x->importance != y->importance)
    return x->importance < y->importance ? 1 : -1;
  return x->channel < y->channel ? -1 : 1;
}

/* Hidden channels by falling importance, so that cells of all three matrices hold channels of a kind and bits can follow them. The moments
 * and squares, and everything read from now on, are in that order. */
static void order_channels (Learner *l, guint layer, float *h, guint n, double *squares)
{
  g_autofree Channel *channels = g_new (Channel, n);
  g_autofree guint32 *order = g_new (guint32, n);
  g_autofree double *squares_before = g_memdup2 (squares, sizeof (double) * n);
  g_autofree float *before = g_memdup2 (h, sizeof (float) * n * n);
  for (guint j = 0; j < n; j++)
    channels[j] = (Channel){ h[(gsize) j * n + j] * squares[j], j };
  qsort (channels, n, sizeof (Channel), compare_channels);
  for (guint j = 0; j < n; j++) {
    order[j] = channels[j].channel;
    squares[j] = squares_before[order[j]];
  }
  for (guint i = 0; i < n; i++)
    for (guint j = i; j < n; j++)
      h[(gsize) i * n + j] = before[(gsize) MIN (order[i], order[j]) * n + MAX (order[i], order[j])];
  qz_source_set_ffn_order (l->source, layer, order);
  l->analysis->ffn_order[layer] = g_steal_pointer (&order);
}

static gboolean learn_input (gpointer data, guint input, float *h, GError **error)
{
  Learner *l = data;
  QzAnalysis *a = l->analysis;
  guint cols = a->input_cols[input];
  g_autofree double *moments = g_new (double, cols);
  g_autofree double *squares = g_new (double, cols);
  g_autofree float *diagonal = g_new (float, cols);
  if (!column_squares (l, input, squares, error))
    return FALSE;
  if (input > 0 && input <= a->n_layers * QZ_LAYER_INPUTS && (input - 1) % QZ_LAYER_INPUTS == QZ_LAYER_INPUTS - 1)
    order_channels (l, (input - 1) / QZ_LAYER_INPUTS, h, cols, squares);
  for (guint j = 0; j < cols; j++)
    moments[j] = h[(gsize) j * cols + j];
  qz_transform_balance (cols, moments, squares, diagonal);
  a->transforms[input] = qz_transform_new (cols, a->seed, diagonal, error);
  if (a->transforms[input] == NULL)
    return FALSE;
  qz_transform_moments (a->transforms[input], l->workers, h);
  a->pivots[input] = g_new (float, cols);
  if (!qz_factor (l->workers, h, cols, damping, a->pivots[input])) {
    g_set_error (error, ENG_ERROR, ENG_ERROR_FORMAT,
                 "the model of %s computes no usable numbers on the calibration text (input %u): the file is damaged, download it again",
                 eng_gguf_path (l->source->gguf), input);
    return FALSE;
  }
  return qz_analysis_write_factor (a, input, h, error);
}

static void keep_held_out (QzAnalysis *a, const QzCalibration *c, const QzObservation *o)
{
  gsize tokens = (gsize) c->n_held * c->n_tokens;
  a->held_sequences = c->n_held;
  a->held_tokens = c->n_tokens;
  a->held = g_memdup2 (c->tokens + (gsize) c->n_sequences * c->n_tokens, sizeof (gint32) * tokens);
  a->held_hidden = g_new (guint16, tokens * a->n_embd);
  xb_f32_to_f16 (o->held_hidden, a->held_hidden, tokens * a->n_embd);
}

QzAnalysis *qz_analyse (EngGguf *gguf, const QzOptions *options, EngWorkers *workers, EngProgress progress, gpointer data, GCancellable *cancellable,
                        GError **error)
{
  static const QzOptions defaults = { 0 };
  if (options == NULL)
    options = &defaults;
  g_autoptr (QzSource) source = qz_source_new (gguf, error);
  if (source == NULL)
    return NULL;
  g_autoptr (QzCalibration) calibration = qz_calibration_new (source, options, error);
  if (calibration == NULL)
    return NULL;
  g_autoptr (QzAnalysis) a = qz_analysis_alloc (source);
  a->seed = options->seed;
  a->calibration = g_strdup (calibration->id);
  a->fingerprint = qz_fingerprint (gguf);
  a->factors = qz_store_new (error);
  if (a->factors == NULL)
    return NULL;

  Learner learner = { source, a, workers };
  QzObservation observation;
  QzObserver observer = { .seed = options->seed, .backward_tokens = options->backward_tokens, .moments = learn_input, .data = &learner,
                          .progress = progress, .progress_data = data, .from = 0, .to = observe_share };
  if (!qz_observe (source, calibration, &observer, workers, &observation, cancellable, error))
    return NULL;
  for (guint m = 0; m < a->n_matrices; m++)
    a->row_fisher[m] = g_steal_pointer (&observation.row_fisher[m]);
  keep_held_out (a, calibration, &observation);
  qz_observation_clear (&observation);

  QzSensitivities s = { source, a->transforms, a->pivots, a->row_fisher };
  a->curves = qz_sensitivity_curves (&s, workers, progress, data, observe_share, 1, cancellable, error);
  QzPromise promise = { .calibration = a->calibration };
  if (a->curves == NULL || !qz_seal_other_bytes (source, a->transforms, &promise, &a->curves->other_bytes, error))
    return NULL;
  qz_curves_finish (a->curves);
  if (progress != NULL)
    progress (1, "Analysed", data);
  return g_steal_pointer (&a);
}
