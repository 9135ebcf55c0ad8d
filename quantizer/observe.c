/* observe.c: the float model is read one half of a layer at a time; what the way back needs of each layer waits on disk.
 *
 * For a change dW of a matrix, the loss grows by about 1/2 E (g . dW x)^2, and with outputs taken as independent of each other and of
 * x by 1/2 sum_i E g_i^2 (dW_i H dW_i^T), H = E x x^T (Fisher; the Kronecker view of Martens and Grosse 2015). Both factors are averages
 * over tokens, the gradient g being that of the whole sequence's loss, so the sum is in nats per token. How g and x do depend on each other
 * is for whoever asks: gradients may be weighed token by token (loudness.h). */
#include "quantizer/observe_private.h"

#include "engine/error.h"
#include "engine/memory_plan.h"
#include "quantizer/product.h"

#include <math.h>
#include <string.h>

/* First products are kept on disk up to so many bytes; beyond, they are computed again. */
static const guint64 most_kept = G_GUINT64_CONSTANT (2) << 30;

/* ---- what the files share ------------------------------------------------------------------------------------------------ */

gboolean qz_observing_step (QzObserving *o, double fraction, const char *what, GError **error)
{
  const QzObserver *to = o->to;
  if (to->progress != NULL)
    to->progress (to->from + fraction * (to->to - to->from), what, to->progress_data);
  if (g_cancellable_is_cancelled (o->cancellable)) {
    g_set_error (error, ENG_ERROR, ENG_ERROR_CANCELLED, "it was cancelled; nothing was written");
    return FALSE;
  }
  return TRUE;
}

guint qz_observing_batch (const QzObserving *o, gsize row)
{
  return MIN (o->batch_rows, (row < o->n_learn ? o->n_learn : o->n_all) - row);
}

const float *qz_observing_middle (const QzObserving *o)
{
  return o->base != NULL ? o->base : o->x;
}

void qz_observing_route (const QzObserving *o, guint n, const float *in, float *worths, EngChoice *choices)
{
  const EngTraits *t = o->traits;
  g_autofree float *spare = g_new (float, 2 * t->n_experts);
  for (guint i = 0; o->weights.router_bias != NULL && i < n; i++)
    memcpy (worths + (gsize) i * t->n_experts, o->weights.router_bias, sizeof (float) * t->n_experts);
  qz_product (o->workers, false, true, n, t->n_experts, t->n_embd, in, t->n_embd, o->weights.router, t->n_embd, o->weights.router_bias != NULL, worths,
              t->n_experts);
  for (guint i = 0; i < n; i++)
    eng_route (t, o->weights.expert_correction, worths + (gsize) i * t->n_experts, spare, choices + (gsize) i * t->n_experts_used);
}

void qz_shared_weights (const QzObserving *o, guint n, const float *in, float *weight)
{
  guint embd = o->traits->n_embd;
  for (guint i = 0; i < n; i++) {
    float score = 0;
    for (guint j = 0; o->weights.shared_gate != NULL && j < embd; j++)
      score += o->weights.shared_gate[j] * in[(gsize) i * embd + j];
    weight[i] = o->weights.shared_gate != NULL ? 1 / (1 + expf (-score)) : 1;
  }
}

gboolean qz_observing_hand_over (QzObserving *o, guint input, guint factor, QzMoments *h, gsize count, GError **error)
{
  qz_moments_scale (h, count > 0 ? 1.0 / count : 0);
  return o->to->moments == NULL || o->to->moments (o->to->data, input, factor, h, error);
}

/* ---- what is kept -------------------------------------------------------------------------------------------------------- */

static guint64 kept_bytes (const QzObserving *o, guint n_kinds)
{
  guint64 bytes = 0;
  for (guint k = 0; k < n_kinds; k++)
    bytes += o->keep_cols[k] > 0 ? o->n_back * qz_spill_row_bytes (o->keep_cols[k]) : 0;
  return bytes;
}

static guint64 kept_at (const QzObserving *o, guint layer, QzKeep what, gsize row)
{
  return kept_bytes (o, QZ_N_KEEP) * layer + kept_bytes (o, what) + row * qz_spill_row_bytes (o->keep_cols[what]);
}

gboolean qz_observing_keep (QzObserving *o, guint layer, QzKeep what, gsize row, guint n, const float *x, GError **error)
{
  if (row >= o->n_back || o->keep_cols[what] == 0)
    return TRUE;
  return qz_spill (o->kept, kept_at (o, layer, what, row), o->workers, x, MIN (n, o->n_back - row), o->keep_cols[what], error);
}

gboolean qz_observing_kept (const QzObserving *o, guint layer, QzKeep what, gsize row, guint n, float *x, GError **error)
{
  return o->keep_cols[what] == 0 || qz_unspill (o->kept, kept_at (o, layer, what, row), o->workers, x, n, o->keep_cols[what], error);
}

static void choose_kept (QzObserving *o)
{
  const EngTraits *t = o->traits;
  o->keep_cols[QZ_KEEP_STREAM] = t->n_embd;
  o->keep_cols[QZ_KEEP_MIDDLE] = t->parallel ? 0 : t->n_embd;
  o->keep_cols[QZ_KEEP_ATTENDED] = o->keep_cols[QZ_KEEP_FED] = t->post_norm || o->out->row_slope != NULL ? t->n_embd : 0;
  o->keep_cols[QZ_KEEP_QKV] = qz_layer_qkv_rows (t);
  o->keep_cols[QZ_KEEP_GATE_UP] = t->n_experts > 0 ? 0 : (t->ungated ? 1 : 2) * t->n_ff;
  if (kept_bytes (o, QZ_N_KEEP) * t->n_layers > most_kept)
    o->keep_cols[QZ_KEEP_QKV] = o->keep_cols[QZ_KEEP_GATE_UP] = 0;
}

/* ---- memory -------------------------------------------------------------------------------------------------------------- */

static gboolean reads_base (const EngTraits *t)
{
  return t->parallel;
}

/* Refuses in time, rather than fail halfway. */
static gboolean check_memory (const QzObserving *o, const QzMemory *memory, GError **error)
{
  double outputs = 0;
  for (guint m = 0; o->to->gradients != NULL && m < o->source->n_matrices; m++) {
    guint rows = qz_source_expert_rows (o->source, m);
    if (m != 0 && m != qz_source_head (o->source))
      outputs = MAX (outputs, qz_moments_floats (rows, rows <= o->to->gradients_widest ? rows : CLAMP (o->to->gradients_block, 1, rows)));
  }
  guint64 total, available, here = eng_memory_rss ();
  eng_memory_machine (&total, &available);
  double need = (memory->bytes > here ? memory->bytes - here : 0) + 3 * sizeof (float) * outputs;
  if (need <= available)
    return TRUE;
  g_autofree char *needed = g_format_size (need), *there = g_format_size (available);
  g_set_error (error, ENG_ERROR, ENG_ERROR_MEMORY, "analysing %s takes %s of memory, and only %s are free: %s", eng_gguf_path (o->source->gguf), needed,
               there, need <= total ? "close other programs, or allow it less" : "choose a smaller model");
  return FALSE;
}

void qz_observing_allocate (QzObserving *o)
{
  const EngTraits *t = o->traits;
  gsize embd = t->n_embd, all = o->n_all * embd, back = o->n_back * embd;
  choose_kept (o);
  o->x = g_new (float, all);
  o->dx = g_new (float, back);
  o->gathered = g_new (float, (gsize) o->batch_rows * embd);
  if (reads_base (t)) {
    o->base = g_new (float, all);
    o->d_base = g_new (float, back);
  }
  if (t->n_experts > 0) {
    o->added = g_new (float, all);
    o->choices = g_new (EngChoice, o->n_all * t->n_experts_used);
    o->d_in = g_new (float, back);
    o->d_y = g_new (float, back);
    o->stream = g_new (float, back);
    o->worths = g_new (float, o->n_back * t->n_experts);
  }
  qz_moments_init (&o->head_moments, t->n_embd, qz_moments_block (t->n_embd, o->widest));
  o->probability = g_new0 (double, t->n_vocab);
  o->head_fisher = g_new0 (double, t->n_vocab);
}

void qz_observing_clear (QzObserving *o)
{
  float *const floats[] = { o->x, o->base, o->added, o->gathered, o->dx, o->d_base, o->d_in, o->d_y, o->stream, o->worths };
  qz_layer_pass_clear (&o->pass);
  qz_layer_weights_clear (&o->weights);
  for (guint i = 0; i < G_N_ELEMENTS (floats); i++)
    g_free (floats[i]);
  g_free (o->choices);
  g_free (o->probability);
  g_free (o->head_fisher);
  qz_store_free (o->kept);
  qz_moments_clear (&o->head_moments);
}

/* ---- all together -------------------------------------------------------------------------------------------------------- */

gboolean qz_observing_rope_factors (const QzObserving *o, float **factors, GError **error)
{
  const EngTraits *t = o->traits;
  const char *name = eng_gguf_find_tensor (o->source->gguf, "rope_freqs.weight") != NULL ? "rope_freqs.weight"
                     : o->calibration->n_tokens > t->rope_n_ctx                          ? "rope_factors_long.weight"
                                                                                         : "rope_factors_short.weight";
  const EngTensor *tensor = eng_gguf_find_tensor (o->source->gguf, name);
  *factors = NULL;
  if (tensor == NULL)
    return TRUE;
  if (tensor->dims[0] != t->n_rot / 2 || tensor->n_dims != 1) {
    g_set_error (error, ENG_ERROR, ENG_ERROR_FORMAT, "the tensor %s of %s has not a factor for each of %u pairs: download the model again", name,
                 eng_gguf_path (o->source->gguf), t->n_rot / 2);
    return FALSE;
  }
  *factors = g_new (float, t->n_rot / 2);
  if (!qz_source_read_vector (o->source, tensor, *factors, error))
    return FALSE;
  for (guint i = 0; i < t->n_rot / 2; i++)
    if (!((*factors)[i] > 0)) {
      g_set_error (error, ENG_ERROR, ENG_ERROR_FORMAT, "the tensor %s of %s holds a factor that is not positive: download the model again", name,
                   eng_gguf_path (o->source->gguf));
      return FALSE;
    }
  return TRUE;
}

/* ---- ended and taken up again -------------------------------------------------------------------------------------------- */

/* Where the pass is, between two layers, at the head of a state. */
typedef struct {
  guint32 is_way_back; /* the way there is behind, the vocabulary's logits as well */
  guint32 layer;       /* the next one; of the way back the one after it */
  guint64 caller_bytes;
} Place;

/* What has been computed up to a place, in order. */
static GArray *parts_of (QzObserving *o, gboolean is_way_back)
{
  const EngTraits *t = o->traits;
  gsize embd = t->n_embd;
  GArray *parts = g_array_new (FALSE, FALSE, sizeof (QzSpan));
  const QzSpan there[] = { { o->x, sizeof (float) * o->n_all * embd } };
  const QzSpan back[] = { { o->dx, sizeof (float) * o->n_back * embd },
                          { o->probability, sizeof (double) * t->n_vocab },
                          { o->head_fisher, sizeof (double) * t->n_vocab },
                          { o->head_moments.h, sizeof (float) * qz_moments_floats (embd, o->head_moments.block) },
                          { o->out->held_hidden, sizeof (float) * (o->n_all - o->n_learn) * embd } };
  if (!is_way_back)
    return g_array_append_vals (parts, there, G_N_ELEMENTS (there));
  g_array_append_vals (parts, back, G_N_ELEMENTS (back));
  for (guint m = 0; m < o->source->n_matrices; m++) {
    QzSpan fisher = { o->out->row_fisher[m], sizeof (float) * o->source->matrices[m].rows };
    g_array_append_val (parts, fisher);
  }
  return parts;
}

static gboolean save_place (QzObserving *o, gboolean is_way_back, guint layer, GError **error)
{
  QzWork *work = o->to->work;
  if (work == NULL || !qz_work_is_due (work))
    return TRUE;
  g_autoptr (GBytes) caller = o->to->save (o->to->data);
  g_autoptr (GArray) parts = parts_of (o, is_way_back);
  Place place = { is_way_back, layer, g_bytes_get_size (caller) };
  const QzSpan first[] = { { &place, sizeof place }, { g_bytes_get_data (caller, NULL), place.caller_bytes } };
  g_array_prepend_vals (parts, first, G_N_ELEMENTS (first));
  return qz_work_save (work, (const QzSpan *) (gpointer) parts->data, parts->len, error);
}

/* Takes up the state there is. Where there is none, or it is not of this pass, everything is yet to do. */
static void take_up (QzObserving *o, Place *place)
{
  gsize left = 0;
  const guint8 *at = o->to->work != NULL ? qz_work_state (o->to->work, &left) : NULL;
  *place = (Place){ 0 };
  if (at == NULL || left < sizeof *place)
    return;
  memcpy (place, at, sizeof *place);
  at += sizeof *place;
  left -= sizeof *place;
  g_autoptr (GArray) parts = parts_of (o, place->is_way_back);
  gsize bytes = 0;
  for (guint i = 0; i < parts->len; i++)
    bytes += g_array_index (parts, QzSpan, i).size;
  gboolean sound = place->layer <= o->traits->n_layers && place->caller_bytes <= left && bytes == left - place->caller_bytes;
  if (sound) {
    g_autoptr (GBytes) caller = g_bytes_new (at, place->caller_bytes);
    sound = o->to->restore (o->to->data, caller);
    at += place->caller_bytes;
  }
  for (guint i = 0; sound && i < parts->len; i++) {
    const QzSpan *part = &g_array_index (parts, QzSpan, i);
    memcpy ((void *) part->data, at, part->size);
    at += part->size;
  }
  if (!sound)
    *place = (Place){ 0 };
  qz_work_drop_state (o->to->work);
}

static gboolean way_there (QzObserving *o, guint from, const float *rope_factors, GError **error)
{
  guint n_layers = o->traits->n_layers;
  if (from == 0 && !qz_observe_embed (o, error))
    return FALSE;
  qz_layer_pass_init (&o->pass, o->traits, o->workers, rope_factors, o->batch_rows, o->calibration->n_tokens, FALSE);
  for (guint l = from; l < n_layers; l++)
    if (!qz_observe_forward (o, l, error) || !save_place (o, FALSE, l + 1, error))
      return FALSE;
  qz_layer_pass_clear (&o->pass);
  return qz_observe_head (o, error) && save_place (o, TRUE, n_layers, error);
}

static gboolean observe (QzObserving *o, GError **error)
{
  Place place;
  g_autofree float *factors = NULL;
  o->kept = o->to->work != NULL ? qz_work_store (o->to->work, "kept", error) : qz_store_new (error);
  if (o->kept == NULL || !qz_layer_weights_init (&o->weights, o->source, error) || !qz_observing_rope_factors (o, &factors, error))
    return FALSE;
  take_up (o, &place);
  guint next = place.is_way_back ? place.layer : o->traits->n_layers;
  if (!place.is_way_back && !way_there (o, place.layer, factors, error))
    return FALSE;
  qz_layer_pass_init (&o->pass, o->traits, o->workers, factors, MIN (o->batch_rows, o->n_back), o->calibration->n_tokens, TRUE);
  for (guint l = next; l-- > 0;)
    if (!qz_observe_backward (o, l, error) || !save_place (o, TRUE, l, error))
      return FALSE;
  return qz_observe_vocabulary (o, error);
}

void qz_observe_tokens (const QzCalibration *c, guint backward_tokens, QzTokens *tokens)
{
  *tokens = (QzTokens){ .n_tokens = c->n_tokens };
  tokens->n_all = (gsize) (c->n_sequences + c->n_held) * c->n_tokens;
  tokens->n_back = (gsize) MIN (c->n_sequences, backward_tokens > 0 ? MAX (1, backward_tokens / c->n_tokens) : G_MAXUINT) * c->n_tokens;
}

gboolean qz_observe (const QzSource *source, const QzCalibration *c, const QzObserver *observer, EngWorkers *workers, QzObservation *observation,
                     GCancellable *cancellable, GError **error)
{
  QzObserving o = { .source = source, .traits = &source->traits, .calibration = c, .to = observer, .workers = workers, .out = observation,
                    .cancellable = cancellable };
  QzTokens tokens;
  QzMemory memory;
  qz_observe_tokens (c, observer->backward_tokens, &tokens);
  if (observer->memory != NULL)
    memory = *observer->memory;
  else if (!qz_memory_choose (source, &tokens, eng_workers_count (workers), 0, &memory, error))
    return FALSE;
  o.widest = memory.widest;
  o.batch_rows = memory.batch_rows;
  o.head_rows = memory.head_rows;
  o.n_learn = (gsize) c->n_sequences * c->n_tokens;
  o.n_all = tokens.n_all;
  o.n_back = tokens.n_back;
  if (!check_memory (&o, &memory, error))
    return FALSE;
  *observation = (QzObservation){ .n_matrices = source->n_matrices, .row_fisher = g_new0 (float *, source->n_matrices) };
  observation->row_slope = observer->slopes ? g_new0 (float *, source->n_matrices) : NULL;
  for (guint m = 0; m < source->n_matrices; m++) {
    observation->row_fisher[m] = g_new0 (float, source->matrices[m].rows);
    if (observer->slopes)
      observation->row_slope[m] = g_new0 (float, source->matrices[m].rows);
  }
  observation->held_hidden = g_new (float, (o.n_all - o.n_learn) * source->traits.n_embd);
  qz_observing_allocate (&o);
  gboolean ok = observe (&o, error);
  qz_observing_clear (&o);
  if (!ok)
    qz_observation_clear (observation);
  return ok;
}

void qz_observation_clear (QzObservation *observation)
{
  for (guint m = 0; m < observation->n_matrices && observation->row_fisher != NULL; m++) {
    g_free (observation->row_fisher[m]);
    g_free (observation->row_slope != NULL ? observation->row_slope[m] : NULL);
  }
  g_free (observation->row_slope);
  g_free (observation->row_fisher);
  g_free (observation->held_hidden);
  *observation = (QzObservation){ 0 };
}
