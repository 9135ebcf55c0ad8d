/* tune.c: gradient steps over the calibration's sequences. What a row's growth does to the loss is the sum of g y over tokens, g the gradient at its output y,
 * so a step costs a pass there and a pass back and no product more. */
#include "quantizer/tune.h"

#include "kernels/ops.h"
#include "quantizer/head.h"
#include "quantizer/observe_private.h"

#include <math.h>
#include <string.h>

/* Adam (Kingma & Ba 2015); the rate, of a row's logarithm, rises over the first steps and falls along a cosine. What there is to make up for grows with the
 * square root of the divergence, and so does the rate. */
static const double rate_of_kl = 4.2e-3, most_rate = 4e-3, decay_mean = 0.9, decay_square = 0.99, least_step = 1e-16;
enum { WARM_STEPS = 8 };

typedef struct {
  const QzTuning *to;
  QzObserving o;
  QzObservation seen;
  QzSource *student;
  QzNorm norm;
  float *norm_memory;
  float *taught;   /* [n_all][n_embd] */
  float *final, *d_final, *scratch; /* of QZ_TUNE_HEAD_ROWS states */
  gsize n_rows;    /* of all matrices */
  float *memory;   /* [4][n_rows]: */
  float *slope, *log_growth, *mean, *square;
} Tuner;

static guint rows_of_step (const QzAnalysis *a)
{
  return MIN (QZ_TUNE_SEQUENCES, a->n_learned) * a->held_tokens;
}

static void allocate (Tuner *t, const QzCalibration *batch, EngWorkers *workers, GCancellable *cancellable)
{
  static const QzObserver nothing = { 0 };
  const QzSource *source = t->to->source;
  guint embd = source->traits.n_embd, n = batch->n_sequences * batch->n_tokens;
  for (guint m = 0; m < source->n_matrices; m++)
    t->n_rows += source->matrices[m].rows;
  t->memory = g_new0 (float, 4 * t->n_rows);
  t->slope = t->memory;
  t->log_growth = t->slope + t->n_rows;
  t->mean = t->log_growth + t->n_rows;
  t->square = t->mean + t->n_rows;
  t->seen = (QzObservation){ .n_matrices = source->n_matrices, .row_slope = g_new (float *, source->n_matrices) };
  float *slope = t->slope;
  for (guint m = 0; m < source->n_matrices; m++) {
    t->seen.row_slope[m] = slope;
    slope += source->matrices[m].rows;
  }
  t->taught = g_new (float, (gsize) n * embd);
  t->final = g_new (float, (gsize) QZ_TUNE_HEAD_ROWS * embd);
  t->d_final = g_new (float, (gsize) QZ_TUNE_HEAD_ROWS * embd);
  t->scratch = g_new (float, (gsize) 2 * QZ_TUNE_HEAD_ROWS * source->traits.n_vocab);
  t->o = (QzObserving){ .source = t->student, .traits = &t->student->traits, .calibration = batch, .to = &nothing, .workers = workers, .out = &t->seen,
                        .cancellable = cancellable, .batch_rows = n, .head_rows = QZ_TUNE_HEAD_ROWS, .widest = t->to->analysis->widest, .n_learn = n, .n_all = n,
                        .n_back = n };
  qz_observing_allocate (&t->o);
}

static void clear (Tuner *t)
{
  qz_observing_clear (&t->o);
  g_free (t->seen.row_slope);
  g_free (t->norm_memory);
  g_free (t->taught);
  g_free (t->final);
  g_free (t->d_final);
  g_free (t->scratch);
  g_free (t->memory);
  if (t->student != NULL)
    qz_source_free (t->student);
}

/* Rows of the packed matrices, before their pipeline. */
static gboolean read_packed (gpointer data, guint matrix, guint row0, guint row1, float *out, GError **error)
{
  const QzTuning *to = data;
  if (to->packed->matrices[matrix] == NULL)
    return qz_source_read_rows (to->source, matrix, row0, row1, out, error);
  const QzMatrix *m = &to->source->matrices[matrix];
  const float *growth = to->packed->growth[matrix];
  g_autofree float *stored = g_new (float, m->cols);
  xb_dequantize_rows (to->packed->matrices[matrix], row0, row1, out);
  for (guint r = row0; r < row1; r++, out += m->cols) {
    memcpy (stored, out, sizeof (float) * m->cols);
    xb_input_restore_row (to->analysis->transforms[m->input]->input, stored, out);
    xb_scale (out, growth[r], m->cols);
  }
  return TRUE;
}

/* The model with its packed matrices. */
static QzSource *student_new (const QzTuning *to, GError **error)
{
  QzSource *student = qz_source_new (to->source->gguf, error);
  if (student == NULL)
    return NULL;
  qz_analysis_apply_order (to->analysis, student);
  student->rows = read_packed;
  student->rows_data = (gpointer) to;
  return student;
}

/* ---- one step ------------------------------------------------------------------------------------------------------------ */

/* The tokens of a step and what the model makes of them; sequences in turn. */
static gboolean take_batch (Tuner *t, guint step, QzCalibration *batch, GError **error)
{
  const QzAnalysis *a = t->to->analysis;
  guint n_tokens = batch->n_tokens;
  for (guint i = 0; i < batch->n_sequences; i++) {
    guint sequence = (step * batch->n_sequences + i) % a->n_learned;
    memcpy (batch->tokens + i * n_tokens, a->learned + (gsize) sequence * n_tokens, sizeof (gint32) * n_tokens);
    if (!qz_analysis_read_states (a, t->o.workers, (gsize) sequence * n_tokens, n_tokens, t->taught + (gsize) i * n_tokens * a->n_embd, error))
      return FALSE;
  }
  return TRUE;
}

/* From the end of the stream to its gradient there. */
static gboolean turn_around (Tuner *t, GError **error)
{
  QzObserving *o = &t->o;
  guint embd = o->traits->n_embd, n;
  memset (o->dx, 0, sizeof (float) * o->n_all * embd);
  qz_observe_leave (o);
  for (gsize row = 0; row < o->n_all; row += n) {
    n = MIN (QZ_TUNE_HEAD_ROWS, o->n_all - row);
    qz_norm (&t->norm, o->x + row * embd, n, embd, t->final);
    if (!qz_head_distil (o->source, t->to->source, o->workers, t->final, t->taught + row * embd, n, t->scratch, t->seen.row_slope[qz_source_head (o->source)],
                         NULL, t->d_final, error))
      return FALSE;
    qz_norm_backward (&t->norm, o->x + row * embd, t->d_final, n, embd, o->dx + row * embd);
  }
  qz_observe_return (o);
  return TRUE;
}

static gboolean measure_slopes (Tuner *t, GError **error)
{
  QzObserving *o = &t->o;
  memset (t->slope, 0, sizeof (float) * t->n_rows);
  if (!qz_observe_embed (o, error))
    return FALSE;
  for (guint l = 0; l < o->traits->n_layers; l++)
    if (!qz_observe_forward (o, l, error))
      return FALSE;
  if (!turn_around (t, error))
    return FALSE;
  for (guint l = o->traits->n_layers; l-- > 0;)
    if (!qz_observe_backward (o, l, error))
      return FALSE;
  return qz_observe_embed_slopes (o, t->seen.row_slope[0], error);
}

/* Growth of all rows as the logarithms have it, but of matrices that are as the model's own. */
static void set_growth (Tuner *t)
{
  const float *log_growth = t->log_growth;
  for (guint m = 0; m < t->student->n_matrices; m++) {
    gboolean grows = t->to->packed->matrices[m] != NULL;
    for (guint r = 0; r < t->student->matrices[m].rows; r++, log_growth++)
      t->to->packed->growth[m][r] = grows ? expf (*log_growth) : 1;
  }
}

static void descend (Tuner *t, guint step)
{
  double warm = MIN (1, (step + 1.0) / WARM_STEPS), rate = MIN (most_rate, rate_of_kl * sqrt (t->to->expected_kl));
  double now = rate * warm * 0.5 * (1 + cos (G_PI * step / t->to->n_steps));
  double of_mean = 1 / (1 - pow (decay_mean, step + 1)), of_square = 1 / (1 - pow (decay_square, step + 1));
  for (gsize i = 0; i < t->n_rows; i++) {
    double g = t->slope[i] / t->o.n_all;
    t->mean[i] = decay_mean * t->mean[i] + (1 - decay_mean) * g;
    t->square[i] = decay_square * t->square[i] + (1 - decay_square) * g * g;
    t->log_growth[i] -= now * t->mean[i] * of_mean / (sqrt (t->square[i] * of_square) + least_step);
  }
  set_growth (t);
}

/* ---- ended and taken up again -------------------------------------------------------------------------------------------- */

/* The state: the next step, then log_growth, mean and square. */
static guint take_up (Tuner *t)
{
  gsize size = 0;
  const guint8 *state = t->to->work != NULL ? qz_work_state (t->to->work, &size) : NULL;
  gsize floats = sizeof (float) * 3 * t->n_rows;
  guint32 step = 0;
  if (state == NULL || size != sizeof step + floats)
    return 0;
  memcpy (&step, state, sizeof step);
  memcpy (t->log_growth, state + sizeof step, floats);
  qz_work_drop_state (t->to->work);
  set_growth (t);
  return MIN (step, t->to->n_steps);
}

static gboolean save_place (Tuner *t, guint32 step, GError **error)
{
  const QzSpan spans[] = { { &step, sizeof step }, { t->log_growth, sizeof (float) * 3 * t->n_rows } };
  return t->to->work == NULL || !qz_work_is_due (t->to->work) || qz_work_save (t->to->work, spans, G_N_ELEMENTS (spans), error);
}

/* ---- all together -------------------------------------------------------------------------------------------------------- */

static gboolean tune (Tuner *t, QzCalibration *batch, GError **error)
{
  const QzTuning *to = t->to;
  QzObserving *o = &t->o;
  g_autofree float *factors = NULL;
  o->kept = qz_store_new (error);
  if (o->kept == NULL || !qz_layer_weights_init (&o->weights, o->source, error) || !qz_observing_rope_factors (o, &factors, error)
      || !qz_stream_norm_read (o->source, "output_norm", &t->norm, &t->norm_memory, error))
    return FALSE;
  qz_layer_pass_init (&o->pass, o->traits, o->workers, factors, o->batch_rows, batch->n_tokens, TRUE);
  for (guint step = take_up (t); step < to->n_steps; step++) {
    if (!take_batch (t, step, batch, error) || !measure_slopes (t, error))
      return FALSE;
    descend (t, step);
    if (to->progress != NULL)
      to->progress (to->from + (to->to - to->from) * (step + 1) / to->n_steps, "Tuning the scales", to->data);
    if (!save_place (t, step + 1, error))
      return FALSE;
  }
  return TRUE;
}

gboolean qz_tune (const QzTuning *to, EngWorkers *workers, GCancellable *cancellable, GError **error)
{
  Tuner t = { .to = to };
  const QzAnalysis *a = to->analysis;
  QzCalibration batch = { .n_tokens = a->held_tokens, .n_sequences = rows_of_step (a) / a->held_tokens };
  g_autofree gint32 *tokens = g_new (gint32, rows_of_step (a));
  batch.tokens = tokens;
  t.student = student_new (to, error);
  if (t.student == NULL)
    return FALSE;
  allocate (&t, &batch, workers, cancellable);
  gboolean ok = tune (&t, &batch, error);
  clear (&t);
  return ok;
}
