/* decoder_attention.c: from the normed hidden state to what the heads have gathered: projections, norms and rope of queries and keys, the
 * cache, attention; plain or with a latent vector that all heads share (DeepSeek-AI 2024, DeepSeek-V2, section 2.1). */
#include "engine/decoder_private.h"
#include "engine/rope.h"

#include <math.h>
#include <string.h>

static void rope (const EngTraits *t, float *x, const float *cos_sin)
{
  if (t->rope_halves)
    xb_rope_halves (x, cos_sin, t->n_rot);
  else
    xb_rope_pairs (x, cos_sin, t->n_rot);
}

/* The norm of n_heads queries or keys. */
static void norm_heads (const EngTraits *t, float *x, guint n_heads, const float *gain)
{
  guint n = t->qk_norm == ENG_QK_NORM_WIDTH ? n_heads * t->head_dim : t->head_dim;
  for (float *end = x + (gsize)n_heads * t->head_dim; x < end; x += n) {
    if (t->layer_norm)
      xb_layer_norm (x, gain, NULL, x, n, t->norm_eps);
    else
      xb_rms_norm (x, gain, x, n, t->norm_eps);
    gain += t->qk_norm == ENG_QK_NORM_HEADS ? n : 0;
  }
}

const float *eng_decoder_first_keys (EngDecoder *d, const EngKvPool *pool)
{
  const EngTraits *t = d->traits;
  guint n = t->n_kv_heads * t->head_dim;
  float *keys = (float *)(d->memory + d->layout.first_keys), cos_sin[2][XB_MAX_KEY];
  gboolean any = FALSE;
  if (d->layout.first_keys == 0)
    return NULL;
  eng_rope_position (cos_sin[0], d->rope_frequency, t->n_rot, ENG_KV_PAGE_TOKENS / 2, t->rope_magnitude > 0 ? t->rope_magnitude : 1);
  eng_rope_position (cos_sin[1], t->rope_theta_local > 0 ? d->rope_frequency_local : d->rope_frequency, t->n_rot, ENG_KV_PAGE_TOKENS / 2,
                     t->rope_theta_local > 0 || t->rope_magnitude <= 0 ? 1 : t->rope_magnitude);
  for (guint l = 0; l < t->n_layers; l++) {
    const EngLayer *layer = eng_model_layer (d->model, l);
    const float *bias = layer->k_bias != NULL ? layer->k_bias : layer->qkv_bias != NULL ? layer->qkv_bias + (gsize)t->n_heads * t->head_dim : NULL;
    if (bias == NULL)
      continue;
    float *key = keys + (gsize)l * n; /* of layers without one, zeros */
    any = TRUE;
    memcpy (key, bias, n * sizeof (float));
    for (guint head = 0; head < t->n_kv_heads; head++) {
      if (eng_traits_turned (t, l))
        rope (t, key + head * t->head_dim, cos_sin[eng_traits_windowed (t, l) ? 1 : 0]);
      xb_hadamard (key + head * t->head_dim, t->head_dim, pool->hadamard);
    }
  }
  return any ? keys : NULL;
}

static void clamp (float *x, guint n, float limit)
{
  for (guint i = 0; i < n; i++)
    x[i] = CLAMP (x[i], -limit, limit);
}

/* Norms, rope and scale of a token's queries and keys, before they meet. */
static void turn_token (EngDecoder *d, const EngLayer *layer, guint i, float *q, float *k)
{
  const EngTraits *t = d->traits;
  gboolean turned = eng_traits_turned (t, d->layer);
  const float *cos_sin = (eng_traits_windowed (t, d->layer) ? d->cos_sin_local : d->cos_sin) + (gsize)i * t->n_rot;
  guint at = t->latent; /* what is turned lies behind the latent vector */
  for (guint late = 0; late < 2; late++) {
    if (t->qk_norm != ENG_QK_NORM_NONE && late == (guint)t->late_qk_norm) {
      norm_heads (t, q, t->n_heads, layer->q_norm);
      norm_heads (t, k, t->n_kv_heads, layer->k_norm);
    }
    for (guint head = 0; late == 0 && turned && head < t->n_heads; head++)
      rope (t, q + head * t->head_dim + at, cos_sin);
    for (guint head = 0; late == 0 && turned && head < t->n_kv_heads; head++)
      rope (t, k + head * t->head_dim + at, cos_sin);
  }
}

static void balance_token (const EngDecoder *d, float *q, float *k)
{
  const EngTraits *t = d->traits;
  const float *scale = d->balance + (gsize)d->layer * t->head_dim;
  for (guint i = 0; i < t->n_heads * t->head_dim; i++)
    q[i] /= scale[i % t->head_dim];
  for (guint i = 0; i < t->n_kv_heads * t->head_dim; i++)
    k[i] *= scale[i % t->head_dim];
}

/* Units are tokens: queries and keys as they will meet. */
static void turn_tokens (gpointer data, guint begin, guint end, guint worker)
{
  EngDecoder *d = data;
  const EngTraits *t = d->traits;
  const EngLayer *layer = eng_model_layer (d->model, d->layer);
  for (guint i = begin; i < end; i++) {
    guint hadamard = d->slices[d->places[i].slice].sequence->pool->hadamard, position = d->places[i].position;
    float *q = d->q + (gsize)i * d->layout.q_stride;
    float *k = d->k + (gsize)i * d->layout.k_stride, *v = d->v + (gsize)i * d->layout.v_stride;
    if (t->qkv_clamp > 0) {
      clamp (q, t->n_heads * t->head_dim, t->qkv_clamp);
      clamp (k, t->n_kv_heads * t->head_dim, t->qkv_clamp);
      clamp (v, t->n_kv_heads * t->value_dim, t->qkv_clamp);
    }
    turn_token (d, layer, i, q, k);
    if (t->temperature_scale > 0)
      xb_scale (q, 1 + t->temperature_scale * logf (1 + position / t->rope_n_ctx), (gsize)t->n_heads * t->head_dim);
    if (d->balance != NULL)
      balance_token (d, q, k);
    for (guint head = 0; hadamard > 1 && head < t->n_heads; head++)
      xb_hadamard (q + head * t->head_dim, t->head_dim, hadamard);
  }
}

/* Units are KV heads: a head's keys go to the cache one after the other. */
static void store_heads (gpointer data, guint begin, guint end, guint worker)
{
  EngDecoder *d = data;
  const EngTraits *t = d->traits;
  for (guint i = 0; i < d->n; i++) {
    EngKvSequence *sequence = d->slices[d->places[i].slice].sequence;
    float *k = d->k + (gsize)i * d->layout.k_stride, *v = d->v + (gsize)i * d->layout.v_stride;
    for (guint head = begin; head < end; head++)
      eng_kv_store (sequence, d->layer, head, d->places[i].position, k + head * t->head_dim, t->latent > 0 ? NULL : v + head * t->value_dim);
  }
}

/* ---- heads and positions ------------------------------------------------------------------------------------------------- */

/* Query heads first_head .. + n_heads - 1, which share one KV head, of tokens first .. first + n - 1, which are one sequence's. */
static void attend (EngDecoder *d, guint kv_head, guint first_head, guint n_heads, guint first, guint n)
{
  const EngTraits *t = d->traits;
  const EngLayer *layer = eng_model_layer (d->model, d->layer);
  const EngKvSequence *sequence = d->slices[d->places[first].slice].sequence;
  gsize stride = d->layout.q_stride, out_stride = (gsize)t->n_heads * t->value_dim;
  float *out = d->attended + first * out_stride + (gsize)first_head * t->value_dim;
  xb_attention attention = { .kv_end = d->places[first].position + 1,
                             .scale = t->attention_scale > 0 ? t->attention_scale : 1 / sqrtf (t->head_dim),
                             .soft_cap = t->attention_soft_cap,
                             .sinks = layer->sinks != NULL ? layer->sinks + first_head : NULL,
                             .slopes = t->alibi > 0 ? d->slopes + first_head : NULL };
  eng_kv_view (sequence, d->layer, kv_head, &attention);
  xb_attend (&attention, d->q + first * stride + (gsize)first_head * t->head_dim, t->head_dim, stride, n_heads, n, out, t->value_dim, out_stride);
  for (guint i = 0; sequence->pool->hadamard > 1 && i < n; i++)
    xb_hadamard (out + i * out_stride, (gsize)n_heads * t->value_dim, sequence->pool->hadamard);
}

/* One token: units are query heads, those of a KV head in one call where one worker has them. */
static void attend_heads (gpointer data, guint begin, guint end, guint worker)
{
  EngDecoder *d = data;
  guint group = d->traits->n_heads / d->traits->n_kv_heads;
  for (guint head = begin, next; head < end; head = next) {
    next = MIN (end, (head / group + 1) * group);
    attend (d, head / group, head, next - head, 0, 1);
  }
}

/* Many tokens: units are stretches of them, KV head by KV head. */
static void attend_stretches (gpointer data, guint begin, guint end, guint worker)
{
  EngDecoder *d = data;
  guint group = d->traits->n_heads / d->traits->n_kv_heads;
  for (guint i = begin; i < end; i++) {
    const EngAttentionUnit *unit = &d->units[i % d->n_units];
    guint kv_head = i / d->n_units;
    attend (d, kv_head, kv_head * group, group, unit->first, unit->n);
  }
}

/* ---- the latent vector --------------------------------------------------------------------------------------------------- */

static void norm_latents (gpointer data, guint begin, guint end, guint worker)
{
  EngDecoder *d = data;
  const EngTraits *t = d->traits;
  const EngLayer *layer = eng_model_layer (d->model, d->layer);
  for (guint i = begin; i < end; i++) {
    float *q_a = d->q_a + (gsize)i * t->latent_query, *k = d->k + (gsize)i * d->layout.k_stride;
    if (t->latent_query > 0)
      xb_rms_norm (q_a, layer->q_a_norm, q_a, t->latent_query, t->norm_eps);
    xb_rms_norm (k, layer->kv_a_norm, k, t->latent, t->norm_eps);
  }
}

/* y[rows] = rows row0 .. of the matrix times x, exactly, for all tokens. x is small: a head's part. */
static void multiply_part (EngDecoder *d, const EngMatrix *m, guint row0, guint rows, const float *x, gsize ldx, float *y, gsize ldy, guint worker)
{
  if (m->xbit == NULL) {
    const guint8 *raw = (const guint8 *)m->raw + (gsize)row0 * m->cols * (m->raw_type == XB_RAW_F32 ? 4 : 2);
    xb_raw_matmul (m->raw_type, raw, m->cols, x, ldx, d->n, y, ldy, 0, rows);
    return;
  }
  if (m->input == NULL) {
    xb_matmul_f32 (m->xbit, x, ldx, d->n, y - row0, ldy, row0, row0 + rows);
    return;
  }
  float *turned = eng_decoder_worker_row (d, worker);
  for (guint i = 0; i < d->n; i++) {
    xb_input_apply (m->input, x + i * ldx, turned);
    xb_matmul_f32 (m->xbit, turned, m->cols, 1, y + i * ldy - row0, ldy, row0, row0 + rows);
  }
}

/* y[cols] = the transpose of rows row0 .. of the matrix times x, exactly, for all tokens. */
static void multiply_transposed (EngDecoder *d, const EngMatrix *m, guint row0, guint rows, const float *x, gsize ldx, float *y, gsize ldy, guint worker)
{
  float *weights = eng_decoder_worker_row (d, worker), *stored = weights + m->cols;
  for (guint i = 0; i < d->n; i++)
    memset (y + i * ldy, 0, m->cols * sizeof (float));
  for (guint r = 0; r < rows; r++) {
    eng_matrix_row (m, row0 + r, weights, stored);
    for (guint i = 0; i < d->n; i++) {
      float share = x[i * ldx + r], *out = y + i * ldy;
      for (guint c = 0; c < m->cols; c++)
        out[c] += share * weights[c];
    }
  }
}

/* Units are heads: a query's part that is not turned meets the latent vector through the keys' projection; the turned part goes behind. */
static void project_queries (gpointer data, guint begin, guint end, guint worker)
{
  EngDecoder *d = data;
  const EngTraits *t = d->traits;
  const EngLayer *layer = eng_model_layer (d->model, d->layer);
  guint whole = t->latent_key + t->n_rot, pair = t->latent_key + t->latent_value;
  gsize stride = d->layout.q_stride, whole_stride = (gsize)t->n_heads * whole;
  for (guint head = begin; head < end; head++) {
    const float *x = d->q_whole + (gsize)head * whole;
    float *y = d->q + (gsize)head * t->head_dim;
    if (layer->kv_b.name != NULL)
      multiply_transposed (d, &layer->kv_b, head * pair, t->latent_key, x, whole_stride, y, stride, worker);
    else
      multiply_part (d, &layer->k_b, head * t->latent, t->latent, x, whole_stride, y, stride, worker);
    for (guint i = 0; i < d->n; i++)
      memcpy (y + i * stride + t->latent, x + i * whole_stride + t->latent_key, t->n_rot * sizeof (float));
  }
}

static void project_values (gpointer data, guint begin, guint end, guint worker)
{
  EngDecoder *d = data;
  const EngTraits *t = d->traits;
  const EngLayer *layer = eng_model_layer (d->model, d->layer);
  gboolean pairs = layer->kv_b.name != NULL;
  guint pair = t->latent_key + t->latent_value;
  gsize attended = (gsize)t->n_heads * t->latent, values = (gsize)t->n_heads * t->latent_value;
  for (guint head = begin; head < end; head++)
    multiply_part (d, pairs ? &layer->kv_b : &layer->v_b, pairs ? head * pair + t->latent_key : head * t->latent_value, t->latent_value,
                   d->attended + (gsize)head * t->latent, attended, d->values + (gsize)head * t->latent_value, values, worker);
}

static void run_latent_products (EngDecoder *d, const EngLayer *layer, const EngWatch *watch)
{
  const EngTraits *t = d->traits;
  if (t->latent_query > 0)
    eng_step_add (d, &layer->q_a, NULL, d->q_a, 0);
  else
    eng_step_add (d, &layer->attn_q, layer->q_bias, d->q_whole, 0);
  eng_step_add (d, &layer->kv_a, NULL, d->k, 0);
  eng_step_run (d, watch);
  eng_workers_run (d->workers, norm_latents, d, d->n, 1);
  if (t->latent_query > 0) {
    eng_step_begin (d, d->q_a, t->latent_query, t->latent_query);
    eng_step_add (d, &layer->q_b, NULL, d->q_whole, 0);
    eng_step_run (d, watch);
  }
  eng_workers_run (d->workers, project_queries, d, t->n_heads, 1);
}

/* ---- for the pass -------------------------------------------------------------------------------------------------------- */

void eng_decoder_run_attention (EngDecoder *d, const EngLayer *layer, const EngWatch *watch)
{
  const EngTraits *t = d->traits;
  if (t->latent > 0) {
    run_latent_products (d, layer, watch);
  } else if (t->fused_qkv) {
    eng_step_add (d, &layer->attn_qkv, layer->qkv_bias, d->q, d->layout.q_stride);
    eng_step_run (d, watch);
  } else {
    eng_step_add (d, &layer->attn_q, layer->q_bias, d->q, 0);
    eng_step_add (d, &layer->attn_k, layer->k_bias, d->k, 0);
    eng_step_add (d, &layer->attn_v, layer->v_bias, d->v, 0);
    eng_step_run (d, watch);
  }
  eng_workers_run (d->workers, turn_tokens, d, d->n, 1);
  if (d->n == 1)
    store_heads (d, 0, t->n_kv_heads, 0);
  else
    eng_workers_run (d->workers, store_heads, d, t->n_kv_heads, 1);
  if (d->n == 1)
    eng_workers_run (d->workers, attend_heads, d, t->n_heads, 1);
  else
    eng_workers_run (d->workers, attend_stretches, d, d->n_units * t->n_kv_heads, 1);
}

void eng_decoder_begin_output (EngDecoder *d, const EngLayer *layer)
{
  const EngTraits *t = d->traits;
  guint width = t->n_heads * (t->latent > 0 ? t->latent_value : t->value_dim);
  if (t->latent > 0)
    eng_workers_run (d->workers, project_values, d, t->n_heads, 1);
  eng_step_begin (d, t->latent > 0 ? d->values : d->attended, width, width);
  d->sub_norm = t->sub_norm ? &layer->attn_sub_norm : NULL;
}
