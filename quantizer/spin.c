/* spin.c: what products multiply, and the gradients there, are taken once on the way back through the model and wait on disk; each step takes some rows of
 * some layers. */
#include "quantizer/spin.h"

#include "engine/error.h"
#include "quantizer/analysis.h"
#include "quantizer/observe.h"
#include "quantizer/order.h"
#include "quantizer/rotation.h"
#include "quantizer/rounding.h"
#include "quantizer/spill.h"

#include <math.h>
#include <string.h>

enum { USUAL_STEPS = 192, USUAL_TOKENS = 2048, STEP_ROWS = 128, WARM_STEPS = 4, LAYERS_APART = 4 /* those of a step */ };
/* How far an axis turns in a step at most, in radians; it falls along a cosine. */
static const double turn_by_width = 2.5; /* times 1 / axes */
static const double observing_share = 0.3, learning_share = 0.97; /* of the whole time, up to the end of each */

typedef struct {
  const QzSpin *to;
  const EngTraits *traits;
  EngWorkers *workers;
  guint n_tokens;           /* of a sequence */
  guint step_rows;          /* of each place, that a step learns from; they divide n_rows */
  gsize n_rows;             /* of all that are learned from */
  QzStore *seen;            /* of each layer and place (observe.h) the inputs [n_rows][cols], then the gradients */
  float *rows;              /* [4][n_tokens][cols of the wider] */
  guint n_heads_rotations;
  QzRotation stream, *heads;
  gsize n_learned;          /* floats of what is learned: rotations, then moments of slopes */
  float *learned;
  float *stream_slope, *heads_slope; /* behind it */
} Spinner;

gboolean qz_rotates_heads (const EngTraits *t)
{
  return t->latent == 0 && !t->sub_norm && t->qkv_clamp <= 0;
}

void qz_rotations_init (QzRotations *r, const EngTraits *t, guint64 seed)
{
  gsize dim = (gsize) t->value_dim * t->value_dim;
  r->stream = g_new (float, (gsize) t->n_embd * t->n_embd);
  qz_rotation_init (t->n_embd, seed, r->stream);
  r->heads = qz_rotates_heads (t) ? g_new (float, t->n_layers * dim) : NULL;
  for (guint l = 0; r->heads != NULL && l < t->n_layers; l++)
    qz_rotation_init (t->value_dim, seed + 1 + l, r->heads + l * dim);
}

void qz_rotations_clear (QzRotations *r)
{
  g_free (r->stream);
  g_free (r->heads);
  *r = (QzRotations){ 0 };
}

guint qz_spin_steps (const QzSpin *spin)
{
  return spin->n_steps > 0 ? spin->n_steps : USUAL_STEPS;
}

static gsize heads_floats (const EngTraits *t)
{
  return qz_rotates_heads (t) ? (gsize) t->n_layers * t->value_dim * t->value_dim : 0;
}

static guint cols_of (const EngTraits *t, QzPlace place)
{
  return place == QZ_PLACE_HEADS ? t->n_heads * t->value_dim : t->n_embd;
}

static guint widest (const EngTraits *t)
{
  return MAX (cols_of (t, QZ_PLACE_ATTENTION), cols_of (t, QZ_PLACE_HEADS));
}

double qz_spin_floats (const QzSource *source)
{
  const EngTraits *t = &source->traits;
  return 7.0 * t->n_embd * t->n_embd + 4.0 * heads_floats (t) + 4.0 * QZ_SEQUENCE_TOKENS * widest (t);
}

/* What is learned lies in one piece: both rotations, then their slopes' moments; slopes behind. */
static void allocate (Spinner *s, const QzRotations *begun)
{
  const EngTraits *t = s->traits;
  gsize stream = (gsize) t->n_embd * t->n_embd, heads = heads_floats (t), dim = (gsize) t->value_dim * t->value_dim;
  s->n_learned = 3 * (stream + heads);
  s->learned = g_new0 (float, 4 * (stream + heads));
  float *r2 = s->learned + stream, *mean1 = r2 + heads, *mean2 = mean1 + stream, *square1 = mean2 + heads, *square2 = square1 + stream;
  s->stream_slope = square2 + heads;
  s->heads_slope = s->stream_slope + stream;
  memcpy (s->learned, begun->stream, sizeof (float) * stream);
  if (heads > 0)
    memcpy (r2, begun->heads, sizeof (float) * heads);
  s->stream = (QzRotation){ t->n_embd, s->learned, mean1, square1 };
  s->n_heads_rotations = heads > 0 ? t->n_layers : 0;
  s->heads = g_new (QzRotation, t->n_layers);
  for (guint l = 0; l < s->n_heads_rotations; l++)
    s->heads[l] = (QzRotation){ t->value_dim, r2 + l * dim, mean2 + l * dim, square2 + l * dim };
  s->rows = g_new (float, (gsize) 4 * s->n_tokens * widest (t));
}

static void clear (Spinner *s)
{
  qz_store_free (s->seen);
  g_free (s->rows);
  g_free (s->heads);
  g_free (s->learned);
}

/* ---- what is learned from ------------------------------------------------------------------------------------------------ */

static guint64 place_bytes (const Spinner *s, QzPlace place)
{
  return 2 * s->n_rows * qz_spill_row_bytes (cols_of (s->traits, place));
}

/* Where row `row` of the inputs is; of the gradients, n_rows later. */
static guint64 seen_at (const Spinner *s, guint layer, QzPlace place, gsize row)
{
  guint64 at = 0, layer_bytes = 0;
  for (guint p = 0; p < QZ_N_PLACES; p++) {
    at += p < place ? place_bytes (s, p) : 0;
    layer_bytes += place_bytes (s, p);
  }
  return layer * layer_bytes + at + row * qz_spill_row_bytes (cols_of (s->traits, place));
}

/* Inputs as they are rounded, before the norm's gain, which goes into the weights; so the gradient is times the gain. */
static gboolean keep_inputs (gpointer data, guint layer, QzPlace place, gsize row, guint n_all, const QzNorm *norm, const float *x, const float *g, GError **error)
{
  Spinner *s = data;
  guint cols = cols_of (s->traits, place), n;
  float *inputs = s->rows, *gradients = s->rows + (gsize) s->n_tokens * widest (s->traits);
  for (guint at = 0; at < n_all; at += n) {
    n = MIN (s->n_tokens, n_all - at);
    gsize from = (gsize) at * cols, floats = (gsize) n * cols;
    memcpy (inputs, x + from, sizeof (float) * floats);
    memcpy (gradients, g + from, sizeof (float) * floats);
    if (norm != NULL) {
      QzNorm bare = *norm;
      bare.gain = NULL;
      qz_norm (&bare, x + from, n, cols, inputs);
      for (gsize i = 0; norm->gain != NULL && i < floats; i++)
        gradients[i] *= norm->gain[i % cols];
    }
    guint64 to = seen_at (s, layer, place, row + at);
    if (!qz_spill (s->seen, to, s->workers, inputs, n, cols, error)
        || !qz_spill (s->seen, to + place_bytes (s, place) / 2, s->workers, gradients, n, cols, error))
      return FALSE;
  }
  return TRUE;
}

/* The text once there and back. Nobody looks at what it says of held-out text. */
static gboolean observe (Spinner *s, GCancellable *cancellable, GError **error)
{
  const QzSpin *to = s->to;
  QzCalibration text = { .n_tokens = s->n_tokens, .n_sequences = s->n_rows / s->n_tokens, .n_held = 1, .tokens = to->calibration->tokens };
  QzObserver observer = { .seed = to->seed, .memory = to->memory, .inputs = keep_inputs, .data = s, .progress = to->progress, .progress_data = to->data,
                          .from = 0, .to = observing_share * to->to };
  QzObservation observation;
  if (!qz_observe (to->source, &text, &observer, s->workers, &observation, cancellable, error))
    return FALSE;
  qz_observation_clear (&observation);
  return TRUE;
}

/* ---- where it begins ----------------------------------------------------------------------------------------------------- */

/* squares [n_embd] += of what is at one place of a layer: of the inputs, or of the gradients. */
static gboolean add_squares (Spinner *s, guint layer, QzPlace place, gboolean gradients, double *squares, GError **error)
{
  guint embd = s->traits->n_embd, n = s->step_rows;
  for (gsize row = 0; row < s->n_rows; row += n) {
    if (!qz_unspill (s->seen, seen_at (s, layer, place, row) + gradients * place_bytes (s, place) / 2, s->workers, s->rows, n, embd, error))
      return FALSE;
    for (gsize i = 0; i < (gsize) n * embd; i++)
      squares[i % embd] += s->rows[i] * s->rows[i];
  }
  return TRUE;
}

/* A group's step follows its loudest axis, so axes that are loud for what they matter begin in groups of their own: by falling E x^2 / E g^2. */
static gboolean begin_grouped (Spinner *s, GError **error)
{
  guint embd = s->traits->n_embd;
  g_autofree double *loud = g_new0 (double, embd), *matters = g_new0 (double, embd);
  g_autofree guint32 *order = g_new (guint32, embd);
  for (guint l = 0; l < s->traits->n_layers; l++)
    for (QzPlace place = QZ_PLACE_ATTENTION; place <= QZ_PLACE_FEED_FORWARD; place++)
      if (!add_squares (s, l, place, FALSE, loud, error) || !add_squares (s, l, place, TRUE, matters, error))
        return FALSE;
  for (guint j = 0; j < embd; j++)
    loud[j] = matters[j] > 0 ? loud[j] / matters[j] : loud[j] > 0 ? INFINITY : 0;
  qz_order_by_worth (loud, embd, embd, order);
  qz_rotation_init_grouped (embd, order, s->to->seed, s->stream.r);
  return TRUE;
}

/* ---- one step ------------------------------------------------------------------------------------------------------------ */

/* *cost += of a place of a layer, over a step's rows. */
static gboolean add_cost (Spinner *s, guint layer, QzPlace place, gsize row, const QzRotation *rotation, float *slope, double *cost, GError **error)
{
  guint cols = cols_of (s->traits, place), n = s->step_rows;
  gsize floats = (gsize) n * widest (s->traits);
  float *x = s->rows, *g = x + floats, *scratch = g + floats;
  guint64 at = seen_at (s, layer, place, row);
  if (!qz_unspill (s->seen, at, s->workers, x, n, cols, error) || !qz_unspill (s->seen, at + place_bytes (s, place) / 2, s->workers, g, n, cols, error))
    return FALSE;
  *cost += qz_rounding_cost (s->workers, n, cols, rotation->n, rotation->r, x, g, scratch, slope);
  return TRUE;
}

/* How far apart a step's layers are: after so many steps all had their turn. */
static guint apart (const Spinner *s)
{
  return MIN (LAYERS_APART, s->traits->n_layers);
}

static gboolean measure_slopes (Spinner *s, guint step, double *cost, GError **error)
{
  gsize row = (gsize) (step / apart (s)) * s->step_rows % s->n_rows, dim = (gsize) s->traits->value_dim * s->traits->value_dim;
  *cost = 0;
  memset (s->stream_slope, 0, sizeof (float) * s->n_learned / 3);
  for (guint l = step % apart (s); l < s->traits->n_layers; l += apart (s))
    if (!add_cost (s, l, QZ_PLACE_ATTENTION, row, &s->stream, s->stream_slope, cost, error)
        || !add_cost (s, l, QZ_PLACE_FEED_FORWARD, row, &s->stream, s->stream_slope, cost, error)
        || (s->n_heads_rotations > 0 && !add_cost (s, l, QZ_PLACE_HEADS, row, &s->heads[l], s->heads_slope + l * dim, cost, error)))
      return FALSE;
  *cost /= s->step_rows;
  return TRUE;
}

static void descend (Spinner *s, guint step, guint n_steps)
{
  double turn = turn_by_width * MIN (1, (step + 1.0) / WARM_STEPS) * 0.5 * (1 + cos (G_PI * step / n_steps));
  gsize dim = (gsize) s->traits->value_dim * s->traits->value_dim;
  qz_rotation_step (&s->stream, s->workers, step, turn / s->traits->n_embd, s->stream_slope);
  for (guint l = step % apart (s); l < s->n_heads_rotations; l += apart (s))
    qz_rotation_step (&s->heads[l], s->workers, step / apart (s), turn / s->traits->value_dim, s->heads_slope + l * dim);
}

/* ---- ended and taken up again -------------------------------------------------------------------------------------------- */

/* The state: the next step, then what is learned. */
static guint take_up (Spinner *s)
{
  gsize size = 0;
  guint32 step = 0;
  const guint8 *state = s->to->work != NULL ? qz_work_state (s->to->work, &size) : NULL;
  if (state == NULL || size != sizeof step + sizeof (float) * s->n_learned)
    return 0;
  memcpy (&step, state, sizeof step);
  memcpy (s->learned, state + sizeof step, sizeof (float) * s->n_learned);
  qz_work_drop_state (s->to->work);
  return MIN (step, qz_spin_steps (s->to));
}

static gboolean save_place (Spinner *s, guint32 step, GError **error)
{
  const QzSpan spans[] = { { &step, sizeof step }, { s->learned, sizeof (float) * s->n_learned } };
  return s->to->work == NULL || !qz_work_is_due (s->to->work) || qz_work_save (s->to->work, spans, G_N_ELEMENTS (spans), error);
}

/* ---- all together -------------------------------------------------------------------------------------------------------- */

static gboolean learn (Spinner *s, double *costs, GCancellable *cancellable, GError **error)
{
  guint n_steps = qz_spin_steps (s->to);
  s->seen = qz_store_new (error);
  if (s->seen == NULL || !observe (s, cancellable, error))
    return FALSE;
  guint step = take_up (s);
  if (step == 0 && !begin_grouped (s, error))
    return FALSE;
  for (; step < n_steps; step++) {
    double cost;
    if (g_cancellable_is_cancelled (cancellable)) {
      g_set_error (error, ENG_ERROR, ENG_ERROR_CANCELLED, "it was cancelled; nothing was written");
      return FALSE;
    }
    if (!measure_slopes (s, step, &cost, error))
      return FALSE;
    descend (s, step, n_steps);
    if (costs != NULL)
      costs[step] = cost;
    if (s->to->progress != NULL)
      s->to->progress (s->to->to * (observing_share + (1 - observing_share) * (step + 1) / n_steps), "Learning the rotations", s->to->data);
    if (!save_place (s, step + 1, error))
      return FALSE;
  }
  return TRUE;
}

gboolean qz_spin (const QzSpin *to, QzRotations *rotations, double *costs, EngWorkers *workers, GCancellable *cancellable, GError **error)
{
  const QzCalibration *c = to->calibration;
  guint n_sequences = MIN (c->n_sequences, MAX (1, USUAL_TOKENS / c->n_tokens));
  Spinner s = { .to = to, .traits = &to->source->traits, .workers = workers, .n_tokens = c->n_tokens, .step_rows = c->n_tokens,
                .n_rows = (gsize) n_sequences * c->n_tokens };
  while (s.step_rows > STEP_ROWS && s.step_rows % 2 == 0)
    s.step_rows /= 2;
  for (guint step = 0; costs != NULL && step < qz_spin_steps (to); step++)
    costs[step] = 0;
  allocate (&s, rotations);
  gboolean ok = learn (&s, costs, cancellable, error);
  if (ok) {
    gsize stream = (gsize) s.stream.n * s.stream.n;
    memcpy (rotations->stream, s.learned, sizeof (float) * stream);
    if (rotations->heads != NULL)
      memcpy (rotations->heads, s.learned + stream, sizeof (float) * heads_floats (s.traits));
  }
  clear (&s);
  return ok;
}

gboolean qz_fold_rotations (EngGguf *gguf, const QzOptions *options, const char *path, EngWorkers *workers, EngProgress progress, gpointer data,
                             GCancellable *cancellable, GError **error)
{
  g_autoptr (QzSource) source = qz_source_new (gguf, error);
  if (source == NULL || !qz_rotate_check (source, error))
    return FALSE;
  /* Also where nothing is learned: a text that will not do, or too little memory, is said before the rotated model is written. */
  g_autoptr (QzCalibration) calibration = qz_calibration_new (source, options, error);
  if (calibration == NULL)
    return FALSE;
  QzTokens tokens;
  QzMemory memory;
  qz_observe_tokens (calibration, qz_calibration_backward_tokens (options), &tokens);
  tokens.is_rotated = options->method == QZ_METHOD_SPINQUANT;
  if (!qz_memory_choose (source, &tokens, eng_workers_count (workers), options->memory_bytes, &memory, error))
    return FALSE;
  g_autofree char *fingerprint = qz_fingerprint (gguf), *prefix = options->work != NULL ? g_strconcat (options->work, ".rotations", NULL) : NULL;
  g_autofree char *key = g_strdup_printf ("rotations 1 %s %s %" G_GUINT64_FORMAT " %u %u %u %u", fingerprint, calibration->id, options->seed,
                                          calibration->n_sequences, calibration->n_tokens, memory.batch_rows, memory.head_rows);
  g_autoptr (QzWork) work = qz_work_open (prefix, key, error);
  if (work == NULL)
    return FALSE;
  QzSpin spin = { .source = source, .calibration = calibration, .seed = options->seed, .memory = &memory, .work = work, .progress = progress, .data = data,
                  .to = learning_share };
  QzRotations rotations;
  qz_rotations_init (&rotations, &source->traits, options->seed);
  gboolean ok = (options->method != QZ_METHOD_SPINQUANT || qz_spin (&spin, &rotations, NULL, workers, cancellable, error))
                && qz_rotate_write (source, &rotations, ENG_TYPE_F16, path, workers, cancellable, error);
  qz_rotations_clear (&rotations);
  if (ok && prefix != NULL)
    qz_work_remove (prefix);
  return ok;
}
