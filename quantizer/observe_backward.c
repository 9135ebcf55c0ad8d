/* observe_backward.c: the way back: gradients of the outputs of each layer's products, the last layer's first. */
#include "quantizer/observe_private.h"

#include "quantizer/product.h"

#include <math.h>
#include <string.h>

/* ---- what is learned about outputs --------------------------------------------------------------------------------------- */

/* Some rows of a matrix and where a batch's gradients at their outputs are, d [n][ld], and the outputs themselves: y [n][ld], bias or NULL. */
typedef struct {
  guint matrix, row0, rows;
  const float *d, *y, *bias;
  gsize ld;
  float *g; /* sums of g g^T, block after block; NULL when nobody asks */
} Output;

static guint block_rows (const QzObserver *to, guint rows)
{
  return rows <= to->gradients_widest ? rows : CLAMP (to->gradients_block, 1, rows);
}

/* y NULL: the pass does not compute it. */
static void add_output (QzObserving *o, GArray *outputs, guint matrix, guint row0, guint rows, const float *d, const float *y, const float *bias, gsize ld)
{
  Output output = { matrix, row0, rows, d, y, bias, ld, NULL };
  if (o->to->gradients != NULL)
    output.g = g_new0 (float, qz_moments_floats (rows, block_rows (o->to, rows)));
  g_array_append_val (outputs, output);
}

static GArray *outputs_new (void)
{
  return g_array_new (FALSE, FALSE, sizeof (Output));
}

/* Projections of each head lie one behind the other in d and y [n][ld], `step` apart. */
static void add_heads (QzObserving *o, GArray *outputs, guint matrix, guint rows, const float *d, const float *y, gsize step, gsize ld)
{
  for (guint h = 0; h < o->traits->n_heads; h++)
    add_output (o, outputs, matrix, h * rows, rows, d + h * step, y + h * step, NULL, ld);
}

static GArray *attention_outputs (QzObserving *o, guint l)
{
  const EngTraits *t = o->traits;
  const QzLayer *layer = &o->source->layers[l];
  const QzLayerWeights *w = &o->weights;
  const QzLayerPass *p = &o->pass;
  GArray *outputs = outputs_new ();
  guint col = 0, pair = t->latent_key + t->latent_value;
  for (guint i = 0; i < layer->n_qkv; i++) {
    guint rows = o->source->matrices[layer->qkv[i]].rows;
    add_output (o, outputs, layer->qkv[i], 0, rows, p->d_qkv + col, p->qkv + col, w->qkv_bias != NULL ? w->qkv_bias + col : NULL, p->qkv_rows);
    col += rows;
  }
  add_output (o, outputs, layer->output, 0, t->n_embd, p->d_y, p->y, w->output_bias, t->n_embd);
  if (layer->q_b != QZ_NONE)
    add_output (o, outputs, layer->q_b, 0, p->q_rows, p->d_queries, p->queries, NULL, p->q_rows);
  if (layer->kv_b != QZ_NONE)
    add_output (o, outputs, layer->kv_b, 0, t->n_heads * pair, p->d_kv, p->kv, NULL, (gsize) t->n_heads * pair);
  if (layer->k_b != QZ_NONE) {
    add_output (o, outputs, layer->k_b, 0, t->n_heads * t->latent, p->d_meeting, NULL, NULL, (gsize) t->n_heads * t->latent);
    add_heads (o, outputs, layer->v_b, t->latent_value, p->d_kv + t->latent_key, p->kv + t->latent_key, pair, (gsize) t->n_heads * pair);
  }
  return outputs;
}

static GArray *unit_outputs (QzObserving *o, guint number, guint expert)
{
  GArray *outputs = outputs_new ();
  const QzUnit *unit = &o->source->units[number];
  const QzLayerWeights *w = &o->weights;
  const QzLayerPass *p = &o->pass;
  const float *bias = w->gate_up_bias;
  guint up_rows = qz_source_expert_rows (o->source, unit->up), embd = o->traits->n_embd;
  gsize gate_rows = unit->gate != QZ_NONE ? unit->n_ff : 0, ld = gate_rows + up_rows;
  if (gate_rows > 0)
    add_output (o, outputs, unit->gate, expert * unit->n_ff, unit->n_ff, p->d_gate_up, p->gate_up, bias, ld);
  add_output (o, outputs, unit->up, expert * up_rows, up_rows, p->d_gate_up + gate_rows, p->gate_up + gate_rows,
              bias != NULL ? bias + gate_rows : NULL, ld);
  add_output (o, outputs, unit->down, expert * embd, embd, p->d_y, p->y, w->down_bias, embd);
  return outputs;
}

/* fisher[j] += sum over n rows of weight d[.][j]^2 / divisor; weights [n], or NULL: 1. */
static void add_squares (float *fisher, const float *d, gsize ld, const float *weights, guint n, guint cols, double divisor)
{
  g_autofree float *sum = g_new0 (float, cols);
  for (guint i = 0; i < n; i++) {
    float weight = weights != NULL ? weights[i] : 1;
    for (guint j = 0; j < cols; j++)
      sum[j] += weight * d[i * ld + j] * d[i * ld + j];
  }
  for (guint j = 0; j < cols; j++)
    fisher[j] += sum[j] / divisor;
}

/* slope[j] += sum over n rows of d[.][j] (y[.][j] - bias[j]). */
static void add_slopes (float *slope, const Output *output, guint n)
{
  for (guint i = 0; i < n; i++) {
    const float *d = output->d + i * output->ld, *y = output->y + i * output->ld;
    for (guint j = 0; j < output->rows; j++)
      slope[j] += d[j] * (output->bias != NULL ? y[j] - output->bias[j] : y[j]);
  }
}

/* What a matrix multiplies in the batch at hand, x [n][ld]; NULL: it is not there as it is. */
static const float *input_at (const QzObserving *o, guint matrix, gsize *ld)
{
  const EngTraits *t = o->traits;
  const QzMatrix *m = &o->source->matrices[matrix];
  const QzLayer *layer = &o->source->layers[m->layer];
  const QzUnit *unit = m->unit != QZ_NONE ? &o->source->units[m->unit] : NULL;
  const QzLayerPass *p = &o->pass;
  const struct {
    gboolean is;
    const float *x;
    gsize ld;
  } places[] = { { unit != NULL && unit->is_mixture, NULL, 0 },
                 { unit != NULL && m->input == unit->down_input, p->hidden, unit != NULL ? unit->n_ff : 0 },
                 { unit != NULL || m->input == layer->attn_input, p->in, t->n_embd },
                 { m->input == layer->output_input, t->sub_norm ? NULL : p->attended, p->out_rows },
                 { m->input == layer->q_b_input, p->latent_q, t->latent_query },
                 { m->input == layer->latent_input, p->latent, t->latent } };
  for (guint i = 0; i < G_N_ELEMENTS (places); i++)
    if (places[i].is) {
      *ld = places[i].ld;
      return places[i].x;
    }
  return NULL;
}

/* The gradients of a batch of n rows. */
static void add_gradients (QzObserving *o, GArray *outputs, guint n)
{
  g_autofree float *weights = o->to->loudness != NULL ? g_new (float, n) : NULL;
  guint weighed = QZ_NONE; /* the input that the weights are of */
  for (guint i = 0; i < outputs->len; i++) {
    Output *output = &g_array_index (outputs, Output, i);
    guint input = o->source->matrices[output->matrix].input;
    gsize ld = 0;
    const float *x = weights != NULL ? input_at (o, output->matrix, &ld) : NULL;
    if (x != NULL && weighed != input)
      o->to->loudness (o->to->data, input, n, x, ld, weights);
    weighed = x != NULL ? input : weighed;
    if (o->out->row_fisher != NULL)
      add_squares (o->out->row_fisher[output->matrix] + output->row0, output->d, output->ld, x != NULL ? weights : NULL, n, output->rows, o->n_back);
    if (o->out->row_slope != NULL && output->y != NULL)
      add_slopes (o->out->row_slope[output->matrix] + output->row0, output, n);
    if (output->g != NULL)
      qz_moments_add (&(QzMoments){ output->rows, block_rows (o->to, output->rows), output->g }, o->workers, output->d, output->ld, n);
  }
}

/* What a half's first products multiplied. */
static void read_again (QzObserving *o, const QzNorm *norm, guint n, const float *stream)
{
  if (o->to->loudness != NULL)
    qz_half_norm (&o->pass, norm, n, stream, o->pass.in);
}

/* Hands over, if all went well, and frees. */
static gboolean finish_outputs (QzObserving *o, GArray *outputs, gboolean ok, GError **error)
{
  for (guint i = 0; i < outputs->len; i++) {
    Output *output = &g_array_index (outputs, Output, i);
    QzMoments g = { output->rows, block_rows (o->to, output->rows), output->g };
    if (ok && output->g != NULL)
      qz_moments_scale (&g, 1.0 / o->n_back);
    for (guint b = 0; ok && output->g != NULL && b < qz_moments_n_blocks (&g); b++) {
      guint begin, size;
      float *block = qz_moments_at (&g, b, &begin, &size);
      ok = o->to->gradients (o->to->data, output->matrix, output->row0 + begin, size, block, error);
    }
    g_free (output->g);
  }
  g_array_unref (outputs);
  return ok;
}

static gboolean show_inputs (QzObserving *o, guint l, QzPlace place, gsize row, guint n, const QzNorm *norm, const float *x, const float *g, GError **error)
{
  return o->to->inputs == NULL || o->to->inputs (o->to->data, l, place, row, n, norm, x, g, error);
}

static gboolean report (QzObserving *o, guint l, double done, GError **error)
{
  return qz_observing_step (o, 1 - 0.4 * (l + 1 - done) / o->traits->n_layers, "Measuring what matters", error);
}

/* The gradient of the stream that the feed-forward half reads. */
static float *middle_gradient (const QzObserving *o)
{
  return o->d_base != NULL ? o->d_base : o->dx;
}

static QzKeep middle_kept (const QzObserving *o)
{
  return o->d_base != NULL ? QZ_KEEP_STREAM : QZ_KEEP_MIDDLE;
}

/* ---- a unit that every token goes through -------------------------------------------------------------------------------- */

static gboolean unit_batches (QzObserving *o, guint number, GArray *outputs, GError **error)
{
  const EngTraits *t = o->traits;
  const QzNorm *norm = qz_feed_forward_norm (t, &o->weights);
  QzLayerPass *p = &o->pass;
  guint embd = t->n_embd, l = o->source->units[number].layer, n;
  for (gsize row = 0; row < o->n_back; row += n) {
    n = MIN (o->batch_rows, o->n_back - row);
    if (!qz_observing_kept (o, l, middle_kept (o), row, n, o->gathered, error) || !qz_observing_kept (o, l, QZ_KEEP_FED, row, n, p->y, error))
      return FALSE;
    qz_branch_backward (p, &o->weights.ffn_post_norm, n, p->y, o->dx + row * embd, p->d_y);
    if (o->keep_cols[QZ_KEEP_GATE_UP] > 0) {
      if (!qz_observing_kept (o, l, QZ_KEEP_GATE_UP, row, n, p->gate_up, error))
        return FALSE;
    } else {
      qz_half_norm (p, norm, n, o->gathered, p->in);
      qz_unit_products (p, &o->weights, n);
    }
    qz_unit_backward (p, &o->weights, n, NULL, NULL);
    read_again (o, norm, n, o->gathered);
    if (o->to->loudness != NULL)
      qz_unit_activate (p, &o->weights, n);
    add_gradients (o, outputs, n);
    qz_half_norm_backward (p, norm, n, o->gathered, p->d_in, middle_gradient (o) + row * embd);
    if (!show_inputs (o, l, QZ_PLACE_FEED_FORWARD, row, n, norm, o->gathered, p->d_in, error))
      return FALSE;
    if (!report (o, l, 0.6 * (row + n) / o->n_back, error))
      return FALSE;
  }
  return TRUE;
}

static gboolean backward_unit (QzObserving *o, guint number, GError **error)
{
  if (!qz_layer_weights_read_unit (&o->weights, o->source, number, 0, o->workers, error))
    return FALSE;
  GArray *outputs = unit_outputs (o, number, 0);
  return finish_outputs (o, outputs, unit_batches (o, number, outputs, error), error);
}

/* ---- a mixture of experts ------------------------------------------------------------------------------------------------ */

/* d_y of the mixture's sum, its input's stream, and the choices of each row. */
static gboolean begin_mixture (QzObserving *o, guint l, GError **error)
{
  const EngTraits *t = o->traits;
  QzLayerPass *p = &o->pass;
  guint embd = t->n_embd, n;
  for (gsize row = 0; row < o->n_back; row += n) {
    float *stream = o->stream + row * embd, *worths = o->worths + row * t->n_experts;
    n = MIN (o->batch_rows, o->n_back - row);
    if (!qz_observing_kept (o, l, middle_kept (o), row, n, stream, error) || !qz_observing_kept (o, l, QZ_KEEP_FED, row, n, p->y, error))
      return FALSE;
    qz_branch_backward (p, &o->weights.ffn_post_norm, n, p->y, o->dx + row * embd, o->d_y + row * embd);
    qz_half_norm (p, qz_feed_forward_norm (t, &o->weights), n, stream, p->in);
    qz_observing_route (o, n, p->in, worths, o->choices + row * t->n_experts_used);
  }
  memset (o->d_in, 0, sizeof (float) * o->n_back * embd);
  return TRUE;
}

/* What a unit of a mixture computed, also its last product where somebody asks for it. */
static void unit_again (QzObserving *o, guint n)
{
  qz_unit_products (&o->pass, &o->weights, n);
  if (o->out->row_slope != NULL)
    qz_unit_finish (&o->pass, &o->weights, n);
}

/* One batch of rows of an expert: choice[i] is the place in o->choices of its i-th row. */
static void expert_batch (QzObserving *o, const gsize *choice, guint n, float *d_weight, GArray *outputs)
{
  const EngTraits *t = o->traits;
  QzLayerPass *p = &o->pass;
  guint embd = t->n_embd, used = t->n_experts_used;
  g_autofree float *weight = g_new (float, n);
  g_autofree float *d_of = g_new (float, n);
  for (guint i = 0; i < n; i++) {
    gsize row = choice[i] / used;
    weight[i] = o->choices[choice[i]].weight;
    memcpy (o->gathered + (gsize) i * embd, o->stream + row * embd, sizeof (float) * embd);
    memcpy (p->d_y + (gsize) i * embd, o->d_y + row * embd, sizeof (float) * embd);
  }
  qz_half_norm (p, qz_feed_forward_norm (t, &o->weights), n, o->gathered, p->in);
  unit_again (o, n);
  qz_unit_backward (p, &o->weights, n, weight, d_of);
  for (guint i = 0; i < n; i++) {
    float *d_in = o->d_in + choice[i] / used * embd;
    d_weight[choice[i]] = d_of[i];
    for (guint j = 0; j < embd; j++) {
      d_in[j] += p->d_in[(gsize) i * embd + j];
      p->d_y[(gsize) i * embd + j] *= weight[i]; /* now that of down's outputs */
    }
  }
  add_gradients (o, outputs, n);
}

static gboolean backward_expert (QzObserving *o, guint number, guint expert, float *d_weight, GError **error)
{
  guint used = o->traits->n_experts_used;
  g_autoptr (GArray) rows = g_array_new (FALSE, FALSE, sizeof (gsize));
  for (gsize at = 0; at < o->n_back * used; at++)
    if (o->choices[at].expert == expert)
      g_array_append_val (rows, at);
  if (rows->len > 0 && !qz_layer_weights_read_unit (&o->weights, o->source, number, expert, o->workers, error))
    return FALSE;
  GArray *outputs = unit_outputs (o, number, expert);
  for (guint at = 0; at < rows->len; at += o->batch_rows)
    expert_batch (o, &g_array_index (rows, gsize, at), MIN (o->batch_rows, rows->len - at), d_weight, outputs);
  return finish_outputs (o, outputs, TRUE, error);
}

/* d_in += what goes through the router, from the gradients of the choices' weights. */
static void backward_router (QzObserving *o, const float *d_weight)
{
  const EngTraits *t = o->traits;
  guint embd = t->n_embd, used = t->n_experts_used, n;
  g_autofree float *d_scores = g_new (float, (gsize) o->batch_rows * t->n_experts);
  for (gsize row = 0; row < o->n_back; row += n) {
    n = MIN (o->batch_rows, o->n_back - row);
    for (guint i = 0; i < n; i++)
      qz_route_backward (t, o->worths + (row + i) * t->n_experts, o->choices + (row + i) * used, d_weight + (row + i) * used,
                         d_scores + (gsize) i * t->n_experts);
    qz_product (o->workers, false, false, n, embd, t->n_experts, d_scores, t->n_experts, o->weights.router, embd, 1, o->d_in + row * embd, embd);
  }
}

/* The unit beside the experts. */
static gboolean backward_shared (QzObserving *o, guint number, GError **error)
{
  const EngTraits *t = o->traits;
  QzLayerPass *p = &o->pass;
  guint embd = t->n_embd, n;
  g_autofree float *weight = g_new (float, o->batch_rows), *d_weight = g_new (float, o->batch_rows);
  if (!qz_layer_weights_read_unit (&o->weights, o->source, number, 0, o->workers, error))
    return FALSE;
  GArray *outputs = unit_outputs (o, number, 0);
  for (gsize row = 0; row < o->n_back; row += n) {
    n = MIN (o->batch_rows, o->n_back - row);
    memcpy (p->d_y, o->d_y + row * embd, sizeof (float) * n * embd);
    qz_half_norm (p, qz_feed_forward_norm (t, &o->weights), n, o->stream + row * embd, p->in);
    qz_shared_weights (o, n, p->in, weight);
    unit_again (o, n);
    qz_unit_backward (p, &o->weights, n, weight, d_weight);
    for (guint i = 0; i < n; i++) {
      float *d_in = o->d_in + (row + i) * embd, slope = d_weight[i] * weight[i] * (1 - weight[i]);
      for (guint j = 0; j < embd; j++) {
        d_in[j] += p->d_in[(gsize) i * embd + j] + (o->weights.shared_gate != NULL ? slope * o->weights.shared_gate[j] : 0);
        p->d_y[(gsize) i * embd + j] *= weight[i];
      }
    }
    add_gradients (o, outputs, n);
  }
  return finish_outputs (o, outputs, TRUE, error);
}

static gboolean backward_mixture (QzObserving *o, guint l, GError **error)
{
  const QzLayer *layer = &o->source->layers[l];
  g_autofree float *d_weight = g_new0 (float, o->n_back * o->traits->n_experts_used);
  if (!begin_mixture (o, l, error))
    return FALSE;
  for (guint u = 0; u < layer->n_units; u++) {
    const QzUnit *unit = &o->source->units[layer->units[u]];
    if (!unit->is_mixture && !backward_shared (o, layer->units[u], error))
      return FALSE;
    for (guint e = 0; unit->is_mixture && e < unit->n_experts; e++)
      if (!backward_expert (o, layer->units[u], e, d_weight, error) || !report (o, l, 0.6 * (e + 1) / unit->n_experts, error))
        return FALSE;
  }
  backward_router (o, d_weight);
  const QzNorm *norm = qz_feed_forward_norm (o->traits, &o->weights);
  qz_half_norm_backward (&o->pass, norm, o->n_back, o->stream, o->d_in, middle_gradient (o));
  return show_inputs (o, l, QZ_PLACE_FEED_FORWARD, 0, o->n_back, norm, o->stream, o->d_in, error);
}

/* ---- attention ----------------------------------------------------------------------------------------------------------- */

static gboolean attention_batches (QzObserving *o, guint l, GArray *outputs, GError **error)
{
  QzLayerPass *p = &o->pass;
  guint embd = o->traits->n_embd, n;
  for (gsize row = 0; row < o->n_back; row += n) {
    float *dx = o->dx + row * embd;
    n = MIN (o->batch_rows, o->n_back - row);
    if (!qz_observing_kept (o, l, QZ_KEEP_STREAM, row, n, o->gathered, error) || !qz_observing_kept (o, l, QZ_KEEP_ATTENDED, row, n, p->y, error))
      return FALSE;
    qz_branch_backward (p, &o->weights.attn_post_norm, n, p->y, dx, p->d_y);
    for (gsize i = 0; o->d_base != NULL && i < (gsize) n * embd; i++)
      dx[i] += o->d_base[row * embd + i];
    if (o->keep_cols[QZ_KEEP_QKV] == 0)
      qz_attention_products (p, &o->weights, n, o->gathered);
    else if (!qz_observing_kept (o, l, QZ_KEEP_QKV, row, n, p->qkv, error))
      return FALSE;
    p->attends_again = o->to->inputs != NULL || o->to->loudness != NULL;
    qz_attention_backward (p, &o->weights, n, o->gathered, dx);
    read_again (o, &o->weights.attn_norm, n, o->gathered);
    add_gradients (o, outputs, n);
    if (!show_inputs (o, l, QZ_PLACE_ATTENTION, row, n, &o->weights.attn_norm, o->gathered, p->d_in, error)
        || !show_inputs (o, l, QZ_PLACE_HEADS, row, n, NULL, p->attended, p->d_attended, error))
      return FALSE;
    if (!report (o, l, 0.6 + 0.4 * (row + n) / o->n_back, error))
      return FALSE;
  }
  return TRUE;
}

static gboolean backward_attention (QzObserving *o, guint l, GError **error)
{
  if (!qz_layer_weights_read_attention (&o->weights, o->source, l, o->workers, error))
    return FALSE;
  GArray *outputs = attention_outputs (o, l);
  return finish_outputs (o, outputs, attention_batches (o, l, outputs, error), error);
}

/* dx: of the layer's output, replaced by that of its input. Through both halves where one reads what the other adds. */
gboolean qz_observe_backward (QzObserving *o, guint l, GError **error)
{
  if (!qz_layer_weights_read_vectors (&o->weights, o->source, l, error))
    return FALSE;
  if (o->d_base != NULL)
    memset (o->d_base, 0, sizeof (float) * o->n_back * o->traits->n_embd);
  return (eng_traits_has_experts (o->traits, l) ? backward_mixture (o, l, error) : backward_unit (o, o->source->layers[l].units[0], error)) && backward_attention (o, l, error);
}
