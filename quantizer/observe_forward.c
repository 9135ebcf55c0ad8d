/* observe_forward.c: the way there: each half of a layer over all sequences, so that its weights are read once; an expert's over all tokens
 * that go to it. The held-out sequences go along for their final states but teach nothing. */
#include "quantizer/observe_private.h"

#include <math.h>
#include <string.h>

/* Of nothing where nobody asks for them. */
static void init_moments (const QzObserving *o, QzMoments *h, guint input)
{
  guint cols = o->source->inputs[input].cols;
  *h = (QzMoments){ 0 };
  if (o->to->moments != NULL)
    qz_moments_init (h, cols, qz_moments_block (cols, o->widest));
}

/* ---- attention ----------------------------------------------------------------------------------------------------------- */

/* Inputs of attention's products and where a batch's are: x [rows][ld]. */
typedef struct {
  guint input;
  const float *x;
  gsize ld;
  guint per_token; /* rows */
  QzMoments h;
} Input;

enum { MOST_INPUTS = 5 };

/* In the order in which they are handed over. */
static guint attention_inputs (const QzObserving *o, guint l, Input *inputs)
{
  const EngTraits *t = o->traits;
  const QzLayer *layer = &o->source->layers[l];
  const QzLayerPass *p = &o->pass;
  const Input all[MOST_INPUTS] = {
    { layer->attn_input, p->in, t->n_embd, 1 },
    { layer->output_input, p->attended, p->out_rows, 1 },
    { layer->q_b_input, p->latent_q, t->latent_query, 1 },
    { layer->latent_input, p->latent, t->latent, 1 },
    { layer->k_b_input, p->queries, t->latent_key + t->n_rot, t->n_heads }, /* each head's query, but for its turned part */
  };
  guint n = 0;
  for (guint i = 0; i < MOST_INPUTS; i++)
    if (all[i].input != QZ_NONE)
      inputs[n++] = all[i];
  return n;
}

static gboolean attention_batches (QzObserving *o, guint l, Input *inputs, guint n_inputs, GError **error)
{
  QzLayerPass *p = &o->pass;
  guint embd = o->traits->n_embd, n;
  for (gsize row = 0; row < o->n_all; row += n) {
    float *x = o->x + row * embd;
    n = qz_observing_batch (o, row);
    if (!qz_observing_keep (o, l, QZ_KEEP_STREAM, row, n, x, error))
      return FALSE;
    qz_attention_products (p, &o->weights, n, x);
    if (!qz_observing_keep (o, l, QZ_KEEP_QKV, row, n, p->qkv, error))
      return FALSE;
    qz_attention_finish (p, &o->weights, n);
    if (!qz_observing_keep (o, l, QZ_KEEP_ATTENDED, row, n, p->y, error))
      return FALSE;
    for (guint i = 0; row < o->n_learn && i < n_inputs; i++)
      qz_moments_add (&inputs[i].h, o->workers, inputs[i].x, inputs[i].ld, n * inputs[i].per_token);
    if (o->base != NULL)
      memcpy (o->base + row * embd, x, sizeof (float) * n * embd);
    qz_branch_add (p, &o->weights.attn_post_norm, n, p->y, x);
    if (!qz_observing_step (o, 0.5 * (l + 0.4 * (row + n) / o->n_all) / o->traits->n_layers, "Reading the calibration text", error))
      return FALSE;
  }
  return TRUE;
}

static gboolean forward_attention (QzObserving *o, guint l, GError **error)
{
  Input inputs[MOST_INPUTS];
  guint n = attention_inputs (o, l, inputs);
  if (!qz_layer_weights_read_attention (&o->weights, o->source, l, o->workers, error))
    return FALSE;
  for (guint i = 0; i < n; i++)
    init_moments (o, &inputs[i].h, inputs[i].input);
  gboolean ok = attention_batches (o, l, inputs, n, error);
  for (guint i = 0; i < n; i++) {
    ok = ok && qz_observing_hand_over (o, inputs[i].input, o->source->inputs[inputs[i].input].first_factor, &inputs[i].h,
                                       o->n_learn * inputs[i].per_token, error);
    qz_moments_clear (&inputs[i].h);
  }
  return ok;
}

/* ---- the order of hidden channels ---------------------------------------------------------------------------------------- */

static void permute_columns (float *x, guint n, guint ld, guint n_ff, const guint32 *order)
{
  g_autofree float *row = g_new (float, n_ff);
  for (guint i = 0; i < n; i++, x += ld) {
    memcpy (row, x, sizeof (float) * n_ff);
    for (guint j = 0; j < n_ff; j++)
      x[j] = row[order[j]];
  }
}

/* Asks for the order of a unit's channels on seeing the first batch that was computed, and puts that batch, and the weights, into it. */
static gboolean settle_order (QzObserving *o, guint number, guint expert, guint n, GError **error)
{
  const QzUnit *unit = &o->source->units[number];
  QzLayerPass *p = &o->pass;
  guint n_ff = unit->n_ff, ld = o->weights.n_gate_up;
  if (o->to->order == NULL)
    return TRUE;
  g_autofree double *moments = g_new0 (double, n_ff);
  for (guint i = 0; i < n; i++)
    for (guint j = 0; j < n_ff; j++)
      moments[j] += p->hidden[(gsize) i * n_ff + j] * p->hidden[(gsize) i * n_ff + j] / n;
  o->to->order (o->to->data, number, expert, moments);
  if (unit->order == NULL)
    return TRUE;
  const guint32 *order = unit->order + (gsize) expert * n_ff;
  permute_columns (p->hidden, n, n_ff, n_ff, order);
  for (guint at = 0; at < ld; at += n_ff)
    permute_columns (p->gate_up + at, n, ld, n_ff, order);
  return qz_layer_weights_read_unit (&o->weights, o->source, number, expert, o->workers, error);
}

/* ---- a unit that every token goes through -------------------------------------------------------------------------------- */

static void add_weighted (float *out, const float *x, float weight, guint n)
{
  for (guint j = 0; j < n; j++)
    out[j] += weight * x[j];
}

static gboolean unit_batches (QzObserving *o, guint number, QzMoments *in, QzMoments *hidden, GError **error)
{
  const QzUnit *unit = &o->source->units[number];
  QzLayerPass *p = &o->pass;
  guint embd = o->traits->n_embd, l = unit->layer, n;
  gboolean beside = eng_traits_has_experts (o->traits, l);
  g_autofree float *weight = g_new (float, o->batch_rows);
  for (gsize row = 0; row < o->n_all; row += n) {
    const float *stream = qz_observing_middle (o) + row * embd;
    n = qz_observing_batch (o, row);
    qz_half_norm (p, qz_feed_forward_norm (o->traits, &o->weights), n, stream, p->in);
    qz_unit_products (p, &o->weights, n);
    qz_unit_finish (p, &o->weights, n);
    if (row == 0 && !settle_order (o, number, 0, n, error))
      return FALSE;
    if (row < o->n_learn && in != NULL)
      qz_moments_add (in, o->workers, p->in, embd, n);
    if (row < o->n_learn)
      qz_moments_add (hidden, o->workers, p->hidden, unit->n_ff, n);
    if (beside) {
      qz_shared_weights (o, n, p->in, weight);
      for (guint i = 0; i < n; i++)
        add_weighted (o->added + (row + i) * embd, p->y + (gsize) i * embd, weight[i], embd);
    } else {
      if (!qz_observing_keep (o, l, QZ_KEEP_MIDDLE, row, n, stream, error) || !qz_observing_keep (o, l, QZ_KEEP_GATE_UP, row, n, p->gate_up, error)
          || !qz_observing_keep (o, l, QZ_KEEP_FED, row, n, p->y, error))
        return FALSE;
      qz_branch_add (p, &o->weights.ffn_post_norm, n, p->y, o->x + row * embd);
    }
    if (!qz_observing_step (o, 0.5 * (l + 0.4 + 0.6 * (row + n) / o->n_all) / o->traits->n_layers, "Reading the calibration text", error))
      return FALSE;
  }
  return TRUE;
}

/* handed_over: the moments of the unit's input are known already. */
static gboolean forward_unit (QzObserving *o, guint number, gboolean handed_over, GError **error)
{
  const QzUnit *unit = &o->source->units[number];
  QzMoments in = { 0 }, hidden;
  if (!qz_layer_weights_read_unit (&o->weights, o->source, number, 0, o->workers, error))
    return FALSE;
  if (!handed_over)
    init_moments (o, &in, unit->input);
  init_moments (o, &hidden, unit->down_input);
  gboolean ok = unit_batches (o, number, handed_over ? NULL : &in, &hidden, error)
                && (handed_over || qz_observing_hand_over (o, unit->input, o->source->inputs[unit->input].first_factor, &in, o->n_learn, error));
  qz_moments_clear (&in);
  ok = ok && qz_observing_hand_over (o, unit->down_input, o->source->inputs[unit->down_input].first_factor, &hidden, o->n_learn, error);
  qz_moments_clear (&hidden);
  return ok;
}

/* ---- a mixture of experts ------------------------------------------------------------------------------------------------ */

/* choices of all rows; moments of the input over all of them, unless `in` is NULL. */
static gboolean route_rows (QzObserving *o, guint l, QzMoments *in, GError **error)
{
  const EngTraits *t = o->traits;
  QzLayerPass *p = &o->pass;
  guint embd = t->n_embd, n;
  g_autofree float *scores = g_new (float, (gsize) o->batch_rows * t->n_experts);
  for (gsize row = 0; row < o->n_all; row += n) {
    const float *stream = qz_observing_middle (o) + row * embd;
    n = qz_observing_batch (o, row);
    if (!qz_observing_keep (o, l, QZ_KEEP_MIDDLE, row, n, stream, error))
      return FALSE;
    qz_half_norm (p, qz_feed_forward_norm (t, &o->weights), n, stream, p->in);
    qz_observing_route (o, n, p->in, scores, o->choices + row * t->n_experts_used);
    if (in != NULL && row < o->n_learn)
      qz_moments_add (in, o->workers, p->in, embd, n);
  }
  return TRUE;
}

typedef struct {
  guint32 row;
  float weight;
} Routed;

/* The rows that go to an expert, in order; *n_learn of them are learned from. */
static GArray *rows_of (const QzObserving *o, guint expert, guint *n_learn)
{
  guint used = o->traits->n_experts_used;
  GArray *rows = g_array_new (FALSE, FALSE, sizeof (Routed));
  *n_learn = 0;
  for (gsize row = 0; row < o->n_all; row++)
    for (guint i = 0; i < used; i++)
      if (o->choices[row * used + i].expert == expert) {
        Routed routed = { row, o->choices[row * used + i].weight };
        g_array_append_val (rows, routed);
        *n_learn += row < o->n_learn;
      }
  return rows;
}

/* own_in, own_hidden: the expert's own moments, or NULL; hidden: of all experts. */
static gboolean expert_batches (QzObserving *o, guint number, guint expert, const GArray *rows, guint n_learn, QzMoments *own_in, QzMoments *own_hidden,
                                QzMoments *hidden, GError **error)
{
  const QzUnit *unit = &o->source->units[number];
  QzLayerPass *p = &o->pass;
  guint embd = o->traits->n_embd, n;
  const Routed *routed = (const Routed *) (gpointer) rows->data;
  for (guint at = 0; at < rows->len; at += n) {
    n = MIN (o->batch_rows, (at < n_learn ? n_learn : rows->len) - at);
    for (guint i = 0; i < n; i++)
      memcpy (o->gathered + (gsize) i * embd, qz_observing_middle (o) + (gsize) routed[at + i].row * embd, sizeof (float) * embd);
    qz_half_norm (p, qz_feed_forward_norm (o->traits, &o->weights), n, o->gathered, p->in);
    qz_unit_products (p, &o->weights, n);
    qz_unit_finish (p, &o->weights, n);
    if (at == 0 && n_learn > 0 && !settle_order (o, number, expert, n, error))
      return FALSE;
    if (at < n_learn) {
      qz_moments_add (hidden, o->workers, p->hidden, unit->n_ff, n);
      if (own_in != NULL)
        qz_moments_add (own_in, o->workers, p->in, embd, n);
      if (own_hidden != NULL)
        qz_moments_add (own_hidden, o->workers, p->hidden, unit->n_ff, n);
    }
    for (guint i = 0; i < n; i++)
      add_weighted (o->added + (gsize) routed[at + i].row * embd, p->y + (gsize) i * embd, routed[at + i].weight, embd);
  }
  return TRUE;
}

static gsize moments_bytes (const QzMoments *h)
{
  return qz_moments_floats (h->n, h->block) * sizeof (float);
}

/* An expert's own moments of its hidden channels wait in the store for those of all experts: counts[expert] tokens, 0: none of its own. */
static gboolean forward_expert (QzObserving *o, guint number, guint expert, QzMoments *hidden, QzStore *store, guint *counts, gsize *total, GError **error)
{
  const QzUnit *unit = &o->source->units[number];
  const QzInput *input = &o->source->inputs[unit->input];
  QzMoments own_in = { 0 }, own_hidden = { 0 };
  guint n_learn;
  g_autoptr (GArray) rows = rows_of (o, expert, &n_learn);
  gboolean has_in = n_learn >= input->cols, has_hidden = n_learn >= unit->n_ff;
  if (rows->len == 0)
    return TRUE;
  if (!qz_layer_weights_read_unit (&o->weights, o->source, number, expert, o->workers, error))
    return FALSE;
  if (has_in)
    init_moments (o, &own_in, unit->input);
  if (has_hidden)
    init_moments (o, &own_hidden, unit->down_input);
  gboolean ok = expert_batches (o, number, expert, rows, n_learn, has_in ? &own_in : NULL, has_hidden ? &own_hidden : NULL, hidden, error)
                && (!has_in || qz_observing_hand_over (o, unit->input, input->first_factor + 1 + expert, &own_in, n_learn, error))
                && (!has_hidden || qz_store_write (store, moments_bytes (&own_hidden) * expert, own_hidden.h, moments_bytes (&own_hidden), error));
  counts[expert] = has_hidden ? n_learn : 0;
  *total += n_learn;
  qz_moments_clear (&own_in);
  qz_moments_clear (&own_hidden);
  return ok;
}

static gboolean forward_experts (QzObserving *o, guint number, QzMoments *hidden, QzStore *store, GError **error)
{
  const QzUnit *unit = &o->source->units[number];
  guint first = o->source->inputs[unit->down_input].first_factor;
  g_autofree guint *counts = g_new0 (guint, unit->n_experts);
  gsize total = 0;
  for (guint e = 0; e < unit->n_experts; e++)
    if (!forward_expert (o, number, e, hidden, store, counts, &total, error)
        || !qz_observing_step (o, 0.5 * (unit->layer + 0.4 + 0.6 * (e + 1) / unit->n_experts) / o->traits->n_layers, "Reading the calibration text", error))
      return FALSE;
  if (!qz_observing_hand_over (o, unit->down_input, first, hidden, total, error))
    return FALSE;
  for (guint e = 0; e < unit->n_experts; e++)
    if (counts[e] > 0 && (!qz_store_read (store, moments_bytes (hidden) * e, hidden->h, moments_bytes (hidden), error)
                          || !qz_observing_hand_over (o, unit->down_input, first + 1 + e, hidden, counts[e], error)))
      return FALSE;
  return TRUE;
}

static gboolean forward_mixture (QzObserving *o, guint number, gboolean handed_over, GError **error)
{
  const QzUnit *unit = &o->source->units[number];
  QzMoments in = { 0 }, hidden;
  memset (o->added, 0, sizeof (float) * o->n_all * o->traits->n_embd);
  if (!handed_over)
    init_moments (o, &in, unit->input);
  gboolean ok = route_rows (o, unit->layer, handed_over ? NULL : &in, error)
                && (handed_over || qz_observing_hand_over (o, unit->input, o->source->inputs[unit->input].first_factor, &in, o->n_learn, error));
  qz_moments_clear (&in);
  QzStore *store = ok ? qz_store_new (error) : NULL;
  if (store == NULL)
    return FALSE;
  init_moments (o, &hidden, unit->down_input);
  ok = forward_experts (o, number, &hidden, store, error);
  qz_moments_clear (&hidden);
  qz_store_free (store);
  return ok;
}

/* ---- a layer ------------------------------------------------------------------------------------------------------------- */

gboolean qz_observe_forward (QzObserving *o, guint l, GError **error)
{
  const QzLayer *layer = &o->source->layers[l];
  gboolean handed_over = layer->ffn_input == layer->attn_input;
  if (!qz_layer_weights_read_vectors (&o->weights, o->source, l, error) || !forward_attention (o, l, error))
    return FALSE;
  for (guint u = 0; u < layer->n_units; u++) {
    guint number = layer->units[u];
    if (!(o->source->units[number].is_mixture ? forward_mixture (o, number, handed_over, error) : forward_unit (o, number, handed_over, error)))
      return FALSE;
    handed_over = TRUE;
  }
  if (!eng_traits_has_experts (o->traits, l))
    return TRUE;
  if (!qz_observing_keep (o, l, QZ_KEEP_FED, 0, o->n_back, o->added, error))
    return FALSE;
  qz_branch_add (&o->pass, &o->weights.ffn_post_norm, o->n_all, o->added, o->x);
  return TRUE;
}
