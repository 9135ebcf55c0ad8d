/* layer.c: the two halves of a layer. What lies between the products is shared out by tokens, attention by heads. */
#include "quantizer/layer.h"

#include "engine/rope.h"
#include "kernels/ops.h"
#include "quantizer/product.h"

#include <math.h>
#include <string.h>

/* ---- the pass's memory --------------------------------------------------------------------------------------------------- */

typedef struct {
  float **where;
  gsize floats;
  gboolean gradient;
} Part;

/* Sets the parts' places from `memory` on; returns the floats they take. */
static gsize place (const Part *parts, guint n, gboolean backward, float *memory)
{
  gsize at = 0;
  for (guint i = 0; i < n; i++) {
    if (parts[i].gradient && !backward)
      continue;
    if (memory != NULL)
      *parts[i].where = memory + at;
    at += (parts[i].floats + 15) / 16 * 16;
  }
  return at;
}

static gsize scratch_floats (const EngTraits *t, guint n_tokens)
{
  QzAttend attend = { .n = n_tokens };
  gsize row = (gsize) 2 * (t->n_heads + t->n_kv_heads) * t->head_dim;
  return (MAX (MAX (qz_attend_scratch (&attend), row), t->n_embd) + 15) / 16 * 16;
}

/* How many columns each of the attention's buffers has. */
static void set_rows (QzLayerPass *p, const EngTraits *t)
{
  guint key = t->latent > 0 ? t->latent_key + t->n_rot : t->head_dim, value = t->latent > 0 ? t->latent_value : t->value_dim;
  guint kv_heads = t->latent > 0 ? t->n_heads : t->n_kv_heads;
  p->q_rows = t->n_heads * key;
  p->k_rows = kv_heads * key;
  p->v_rows = kv_heads * value;
  p->out_rows = t->n_heads * value;
  p->qkv_rows = t->latent > 0 ? (t->latent_query > 0 ? t->latent_query : p->q_rows) + t->latent + t->n_rot : p->q_rows + p->k_rows + p->v_rows;
}

guint qz_layer_qkv_rows (const EngTraits *t)
{
  QzLayerPass rows;
  set_rows (&rows, t);
  return rows.qkv_rows;
}

static guint widest_ff (const EngTraits *t)
{
  return MAX (MAX (t->n_ff, t->n_ff_shared), t->n_ff_dense);
}

/* The halves are never alive together and lie in the same place. */
static gsize lay_out (QzLayerPass *p, const EngTraits *t, guint n_workers, guint max_rows, guint n_tokens, gboolean backward, float *memory)
{
  QzLayerPass rows;
  set_rows (&rows, t);
  gsize n = max_rows, qkv = n * rows.qkv_rows, qk = n * (rows.q_rows + rows.k_rows), out = n * rows.out_rows, queries = n * rows.q_rows;
  gsize embd = n * t->n_embd, ff = n * widest_ff (t), angles = (gsize) n_tokens * t->n_rot;
  gsize latent = n * t->latent, latent_q = n * t->latent_query, kv = n * t->n_heads * (t->latent_key + t->latent_value);
  const Part both[] = { { &p->in, embd, FALSE },     { &p->y, embd, FALSE },        { &p->d_in, embd, TRUE },
                        { &p->d_y, embd, TRUE },     { &p->cos_sin, angles, FALSE }, { &p->cos_sin_local, angles, FALSE },
                        { &p->slopes, t->alibi > 0 ? t->n_heads : 0, FALSE }, { &p->unnormed, t->sub_norm ? MAX (out, ff) : 0, FALSE },
                        { &p->scratch, n_workers * scratch_floats (t, n_tokens), FALSE } };
  const Part attention[] = { { &p->qkv, qkv, FALSE }, { &p->turned, qk, FALSE }, { &p->attended, out, FALSE },
                             { &p->d_qkv, qkv, TRUE }, { &p->d_attended, out, TRUE },
                             { &p->latent_q, latent_q, FALSE }, { &p->latent, latent, FALSE }, { &p->queries, t->latent > 0 ? queries : 0, FALSE },
                             { &p->kv, kv, FALSE }, { &p->d_latent_q, latent_q, TRUE }, { &p->d_latent, latent, TRUE },
                             { &p->d_turned, t->latent > 0 ? qk : 0, TRUE }, { &p->d_queries, t->latent > 0 ? queries : 0, TRUE },
                             { &p->d_kv, kv, TRUE }, { &p->d_meeting, latent * t->n_heads, TRUE } };
  const Part unit[] = { { &p->gate_up, t->ungated ? ff : 2 * ff, FALSE }, { &p->hidden, ff, FALSE },
                        { &p->d_gate_up, t->ungated ? ff : 2 * ff, TRUE }, { &p->d_hidden, ff, TRUE } };
  gsize at = place (both, G_N_ELEMENTS (both), backward, memory);
  float *halves = memory != NULL ? memory + at : NULL;
  return at + MAX (place (attention, G_N_ELEMENTS (attention), backward, halves), place (unit, G_N_ELEMENTS (unit), backward, halves));
}

gsize qz_layer_pass_floats (const EngTraits *t, guint n_workers, guint max_rows, guint n_tokens, gboolean backward)
{
  QzLayerPass unused;
  return lay_out (&unused, t, n_workers, max_rows, n_tokens, backward, NULL);
}

static void fill_angles (float *cos_sin, const EngTraits *t, const float *factors, gboolean local, guint n_tokens)
{
  g_autofree double *frequency = g_new (double, t->n_rot / 2 + 1);
  eng_rope_frequencies (frequency, t, factors, n_tokens, local);
  for (guint i = 0; i < n_tokens; i++)
    eng_rope_position (cos_sin + (gsize) i * t->n_rot, frequency, t->n_rot, i, !local && t->rope_magnitude > 0 ? t->rope_magnitude : 1);
}

/* By which a head's scores fall with each position (Press et al. 2021): a geometric row for the largest power of two among the heads, and
 * every other one of the next row for the others. */
static void fill_slopes (float *slopes, const EngTraits *t)
{
  guint whole = 1u << (g_bit_storage (t->n_heads) - 1);
  for (guint i = 0; i < t->n_heads; i++)
    slopes[i] = exp2 (-(double) t->alibi * (i < whole ? i + 1 : i - whole + 0.5) / whole);
}

void qz_layer_pass_init (QzLayerPass *p, const EngTraits *t, EngWorkers *workers, const float *rope_factors, guint max_rows, guint n_tokens,
                         gboolean backward)
{
  guint n_workers = eng_workers_count (workers);
  *p = (QzLayerPass){ .traits = t, .workers = workers, .max_rows = max_rows, .n_tokens = n_tokens, .scratch_floats = scratch_floats (t, n_tokens) };
  set_rows (p, t);
  p->memory = g_malloc_n (qz_layer_pass_floats (t, n_workers, max_rows, n_tokens, backward), sizeof (float));
  lay_out (p, t, n_workers, max_rows, n_tokens, backward, p->memory);
  fill_angles (p->cos_sin, t, rope_factors, FALSE, n_tokens);
  if (t->rope_theta_local > 0)
    fill_angles (p->cos_sin_local, t, NULL, TRUE, n_tokens);
  if (t->alibi > 0)
    fill_slopes (p->slopes, t);
}

void qz_layer_pass_clear (QzLayerPass *p)
{
  g_free (p->memory);
  *p = (QzLayerPass){ 0 };
}

/* ---- by tokens ----------------------------------------------------------------------------------------------------------- */

enum { TOKENS_PER_UNIT = 16 };

/* What a step over tokens needs; each uses some of it. */
typedef struct {
  const QzLayerPass *pass;
  const QzLayerWeights *weights;
  const QzNorm *norm;
  guint n, cols;
  const float *a, *b;
  float *out, *more;
} Step;

static void run_tokens (const QzLayerPass *pass, EngWork work, Step *step)
{
  eng_workers_run (pass->workers, work, step, (step->n + TOKENS_PER_UNIT - 1) / TOKENS_PER_UNIT, 1);
}

/* First token, and number of tokens, of units begin..end-1. */
static guint tokens_of (const Step *s, guint begin, guint end, guint *n)
{
  guint first = begin * TOKENS_PER_UNIT;
  *n = MIN (end * TOKENS_PER_UNIT, s->n) - first;
  return first;
}

/* ---- between the stream and the halves ----------------------------------------------------------------------------------- */

static void norm_work (gpointer data, guint begin, guint end, guint worker)
{
  const Step *s = data;
  guint n, first = tokens_of (s, begin, end, &n);
  gsize at = (gsize) first * s->cols;
  qz_norm (s->norm, s->a + at, n, s->cols, s->out + at);
}

void qz_half_norm (const QzLayerPass *pass, const QzNorm *norm, guint n, const float *x, float *out)
{
  guint embd = pass->traits->n_embd;
  if (pass->traits->no_pre_norm)
    memcpy (out, x, sizeof (float) * n * embd);
  else
    run_tokens (pass, norm_work, &(Step){ .pass = pass, .norm = norm, .n = n, .cols = embd, .a = x, .out = out });
}

static void norm_backward_work (gpointer data, guint begin, guint end, guint worker)
{
  const Step *s = data;
  guint n, first = tokens_of (s, begin, end, &n);
  gsize at = (gsize) first * s->cols;
  qz_norm_backward (s->norm, s->a + at, s->b + at, n, s->cols, s->out + at);
}

void qz_half_norm_backward (const QzLayerPass *pass, const QzNorm *norm, guint n, const float *x, const float *d_in, float *d_x)
{
  guint embd = pass->traits->n_embd;
  if (pass->traits->no_pre_norm)
    xb_add (d_x, d_in, (gsize) n * embd);
  else
    run_tokens (pass, norm_backward_work, &(Step){ .pass = pass, .norm = norm, .n = n, .cols = embd, .a = x, .b = d_in, .out = d_x });
}

static void branch_work (gpointer data, guint begin, guint end, guint worker)
{
  const Step *s = data;
  const EngTraits *t = s->pass->traits;
  guint n, first = tokens_of (s, begin, end, &n);
  float *row = s->pass->scratch + worker * s->pass->scratch_floats;
  for (guint i = first; i < first + n; i++) {
    const float *y = s->a + (gsize) i * s->cols;
    float *x = s->out + (gsize) i * s->cols, scale = t->residual_scale > 0 ? t->residual_scale : 1;
    if (t->post_norm) {
      qz_norm (s->norm, y, 1, s->cols, row);
      y = row;
    }
    for (guint j = 0; j < s->cols; j++)
      x[j] += scale * y[j];
  }
}

void qz_branch_add (const QzLayerPass *pass, const QzNorm *post_norm, guint n, const float *y, float *x)
{
  run_tokens (pass, branch_work, &(Step){ .pass = pass, .norm = post_norm, .n = n, .cols = pass->traits->n_embd, .a = y, .out = x });
}

static void branch_backward_work (gpointer data, guint begin, guint end, guint worker)
{
  const Step *s = data;
  const EngTraits *t = s->pass->traits;
  guint n, first = tokens_of (s, begin, end, &n);
  float *row = s->pass->scratch + worker * s->pass->scratch_floats;
  for (guint i = first; i < first + n; i++) {
    gsize at = (gsize) i * s->cols;
    float *d_y = s->out + at, scale = t->residual_scale > 0 ? t->residual_scale : 1;
    for (guint j = 0; j < s->cols; j++)
      d_y[j] = scale * s->b[at + j];
    if (t->post_norm) {
      memcpy (row, d_y, sizeof (float) * s->cols);
      memset (d_y, 0, sizeof (float) * s->cols);
      qz_norm_backward (s->norm, s->a + at, row, 1, s->cols, d_y);
    }
  }
}

void qz_branch_backward (const QzLayerPass *pass, const QzNorm *post_norm, guint n, const float *y, const float *d_x, float *d_y)
{
  run_tokens (pass, branch_backward_work, &(Step){ .pass = pass, .norm = post_norm, .n = n, .cols = pass->traits->n_embd, .a = y, .b = d_x, .out = d_y });
}

void qz_pass_multiply (const QzLayerPass *pass, guint n, guint rows, guint cols, const float *in, const float *w, const float *bias, float *out)
{
  for (guint i = 0; bias != NULL && i < n; i++)
    memcpy (out + (gsize) i * rows, bias, sizeof (float) * rows);
  qz_product (pass->workers, false, true, n, rows, cols, in, cols, w, cols, bias != NULL, out, rows);
}

void qz_pass_multiply_backward (const QzLayerPass *pass, guint n, guint rows, guint cols, const float *d_out, const float *w, float *d_in)
{
  qz_product (pass->workers, false, false, n, cols, rows, d_out, rows, w, cols, 0, d_in, cols);
}

/* ---- attention ----------------------------------------------------------------------------------------------------------- */

const float *qz_pass_angles (const QzLayerPass *p, guint layer, guint token)
{
  const EngTraits *t = p->traits;
  const float *table = t->rope_theta_local > 0 && eng_traits_windowed (t, layer) ? p->cos_sin_local : p->cos_sin;
  return eng_traits_turned (t, layer) ? table + (gsize) (token % p->n_tokens) * t->n_rot : NULL;
}

/* What queries are multiplied by at a token's position. */
static float temperature_of (const QzLayerPass *p, guint token)
{
  const EngTraits *t = p->traits;
  return t->temperature_scale > 0 ? 1 + t->temperature_scale * logf (1 + token % p->n_tokens / t->rope_n_ctx) : 1;
}

static void rope_both (const QzLayerPass *p, const float *angles, gboolean inverse, float *q)
{
  if (angles == NULL)
    return;
  qz_rope (p->traits, angles, p->traits->n_heads, inverse, q);
  qz_rope (p->traits, angles, p->traits->n_kv_heads, inverse, q + p->q_rows);
}

/* q and k of one token, k behind q: out = norm (in), out may be in. */
static void norm_both (const QzLayerPass *p, const QzLayerWeights *w, const float *in, float *out)
{
  if (p->traits->qk_norm == ENG_QK_NORM_NONE)
    return;
  qz_head_norm (p->traits, w->q_norm, p->traits->n_heads, in, out);
  qz_head_norm (p->traits, w->k_norm, p->traits->n_kv_heads, in + p->q_rows, out + p->q_rows);
}

/* turned = queries and keys of each token: clamped, normed, turned and scaled. */
static void turn_work (gpointer data, guint begin, guint end, guint worker)
{
  const Step *s = data;
  const QzLayerPass *p = s->pass;
  const EngTraits *t = p->traits;
  guint n, first = tokens_of (s, begin, end, &n);
  for (guint i = first; i < first + n; i++) {
    const float *angles = qz_pass_angles (p, s->weights->layer, i);
    float *in = p->qkv + (gsize) i * p->qkv_rows, *q = p->turned + (gsize) i * (p->q_rows + p->k_rows);
    if (t->qkv_clamp > 0)
      qz_clamp (in, p->qkv_rows, t->qkv_clamp);
    memcpy (q, in, sizeof (float) * (p->q_rows + p->k_rows));
    if (!t->late_qk_norm)
      norm_both (p, s->weights, q, q);
    rope_both (p, angles, FALSE, q);
    if (t->late_qk_norm)
      norm_both (p, s->weights, q, q);
    xb_scale (q, temperature_of (p, i), p->q_rows);
  }
}

/* d [q + k] becomes the gradient at the input x of the norm; spare [q + k]. */
static void norm_both_backward (const QzLayerPass *p, const QzLayerWeights *w, const float *x, float *spare, float *d)
{
  gsize row = sizeof (float) * (p->q_rows + p->k_rows);
  if (p->traits->qk_norm == ENG_QK_NORM_NONE)
    return;
  memcpy (spare, d, row);
  memset (d, 0, row);
  qz_head_norm_backward (p->traits, w->q_norm, p->traits->n_heads, x, spare, d);
  qz_head_norm_backward (p->traits, w->k_norm, p->traits->n_kv_heads, x + p->q_rows, spare + p->q_rows, d + p->q_rows);
}

/* The gradients of turned, which stand in the first columns of d_qkv, become those of the products. */
static void turn_backward_work (gpointer data, guint begin, guint end, guint worker)
{
  const Step *s = data;
  const QzLayerPass *p = s->pass;
  const EngTraits *t = p->traits;
  guint n, first = tokens_of (s, begin, end, &n), qk_rows = p->q_rows + p->k_rows;
  float *spare = p->scratch + worker * p->scratch_floats, *turned = spare + qk_rows;
  for (guint i = first; i < first + n; i++) {
    const float *in = p->qkv + (gsize) i * p->qkv_rows, *angles = qz_pass_angles (p, s->weights->layer, i);
    float *d = p->d_qkv + (gsize) i * p->qkv_rows;
    xb_scale (d, temperature_of (p, i), p->q_rows);
    if (t->late_qk_norm) {
      memcpy (turned, in, sizeof (float) * qk_rows);
      rope_both (p, angles, FALSE, turned);
      norm_both_backward (p, s->weights, turned, spare, d);
    }
    rope_both (p, angles, TRUE, d);
    if (!t->late_qk_norm)
      norm_both_backward (p, s->weights, in, spare, d);
    if (t->qkv_clamp > 0)
      qz_clamp_backward (in, p->qkv_rows, t->qkv_clamp, d);
  }
}

/* Queries, keys and values of all heads, each head's `step` behind the one before it and rows ld apart; and where their gradients are. */
typedef struct {
  guint n_kv_heads, head_dim, value_dim, v_step;
  const float *q, *k, *v;
  float *d_q, *d_k, *d_v;
  gsize ld_q, ld_v, ld_d_q, ld_d_v; /* keys lie in the rows of queries */
} Heads;

static Heads heads_of (const QzLayerPass *p)
{
  const EngTraits *t = p->traits;
  gsize ld = p->q_rows + p->k_rows;
  if (t->latent > 0) {
    guint pair = t->latent_key + t->latent_value;
    return (Heads){ t->n_heads, t->latent_key + t->n_rot, t->latent_value, pair, p->turned, p->turned + p->q_rows, p->kv + t->latent_key, p->d_turned,
                    p->d_turned + p->q_rows, p->d_kv + t->latent_key, ld, (gsize) t->n_heads * pair, ld, (gsize) t->n_heads * pair };
  }
  return (Heads){ t->n_kv_heads, t->head_dim, t->value_dim, t->value_dim, p->turned, p->turned + p->q_rows, p->qkv + ld, p->d_qkv, p->d_qkv + p->q_rows,
                  p->d_qkv + ld, ld, p->qkv_rows, p->qkv_rows, p->qkv_rows };
}

static QzAttend attend_of (const QzLayerPass *p, const QzLayerWeights *w, const Heads *h, guint head)
{
  const EngTraits *t = p->traits;
  return (QzAttend){ .n = p->n_tokens, .head_dim = h->head_dim, .value_dim = h->value_dim,
                     .window = eng_traits_windowed (t, w->layer) ? t->window : p->n_tokens,
                     .scale = t->attention_scale > 0 ? t->attention_scale : 1 / sqrtf (t->head_dim), .soft_cap = t->attention_soft_cap,
                     .slope = t->alibi > 0 ? p->slopes[head] : 0, .sink = w->sinks != NULL ? w->sinks + head : NULL };
}

/* One unit is one KV head of one sequence with the query heads that share it, whose gradients add up in one place. */
static void attend_work (gpointer data, guint begin, guint end, guint worker)
{
  const Step *s = data;
  const QzLayerPass *p = s->pass;
  Heads h = heads_of (p);
  guint group = p->traits->n_heads / h.n_kv_heads;
  for (guint unit = begin; unit < end; unit++) {
    gsize row = (gsize) (unit / h.n_kv_heads) * p->n_tokens;
    guint kv_head = unit % h.n_kv_heads;
    for (guint head = kv_head * group; head < (kv_head + 1) * group; head++) {
      QzAttend attend = attend_of (p, s->weights, &h, head);
      qz_attend (&attend, h.q + row * h.ld_q + head * h.head_dim, h.ld_q, h.k + row * h.ld_q + kv_head * h.head_dim, h.ld_q,
                 h.v + row * h.ld_v + kv_head * h.v_step, h.ld_v, p->scratch + worker * p->scratch_floats,
                 p->attended + row * p->out_rows + head * h.value_dim, p->out_rows);
    }
  }
}

static void clear_columns (float *x, gsize ld, guint n, guint cols)
{
  for (guint i = 0; i < n; i++)
    memset (x + i * ld, 0, sizeof (float) * cols);
}

static void attend_backward_work (gpointer data, guint begin, guint end, guint worker)
{
  const Step *s = data;
  const QzLayerPass *p = s->pass;
  const EngTraits *t = p->traits;
  Heads h = heads_of (p);
  guint group = t->n_heads / h.n_kv_heads;
  gsize meeting = (gsize) t->n_heads * t->latent;
  for (guint unit = begin; unit < end; unit++) {
    gsize row = (gsize) (unit / h.n_kv_heads) * p->n_tokens;
    guint kv_head = unit % h.n_kv_heads;
    QzAttendGradient to = { NULL, h.d_k + row * h.ld_d_q + kv_head * h.head_dim, h.d_v + row * h.ld_d_v + kv_head * h.v_step, h.ld_d_q, h.ld_d_q, h.ld_d_v };
    clear_columns (to.d_k, to.ld_k, p->n_tokens, h.head_dim);
    clear_columns (to.d_v, to.ld_v, p->n_tokens, h.value_dim);
    for (guint head = kv_head * group; head < (kv_head + 1) * group; head++) {
      QzAttend attend = attend_of (p, s->weights, &h, head);
      to.d_q = h.d_q + row * h.ld_d_q + head * h.head_dim;
      if (t->latent > 0) {
        to.latent = p->latent + row * t->latent;
        to.n_latent = to.ld_latent = t->latent;
        to.d_latent = p->d_meeting + row * meeting + head * t->latent;
        to.ld_d_latent = meeting;
      }
      qz_attend_backward (&attend, h.q + row * h.ld_q + head * h.head_dim, h.ld_q, h.k + row * h.ld_q + kv_head * h.head_dim, h.ld_q,
                          h.v + row * h.ld_v + kv_head * h.v_step, h.ld_v, p->d_attended + row * p->out_rows + head * h.value_dim, p->out_rows,
                          p->scratch + worker * p->scratch_floats, &to);
    }
  }
}

/* From qkv to turned, and whatever else attention reads. */
static void turn (QzLayerPass *p, const QzLayerWeights *w, guint n)
{
  if (p->traits->latent > 0)
    qz_latent_expand (p, w, n);
  else
    run_tokens (p, turn_work, &(Step){ .pass = p, .weights = w, .n = n });
}

static void attend (const QzLayerPass *p, EngWork work, Step *step)
{
  eng_workers_run (p->workers, work, step, step->n / p->n_tokens * heads_of (p).n_kv_heads, 1);
}

/* Where what a half's last product multiplies is normed: x [n][cols], and as it was before in unnormed. */
static void sub_norm (const QzLayerPass *p, const QzNorm *norm, guint n, guint cols, float *x)
{
  if (!p->traits->sub_norm)
    return;
  memcpy (p->unnormed, x, sizeof (float) * n * cols);
  run_tokens (p, norm_work, &(Step){ .pass = p, .norm = norm, .n = n, .cols = cols, .a = p->unnormed, .out = x });
}

/* d [n][cols] becomes the gradient at x, which is what was normed; unnormed is used. */
static void sub_norm_backward (const QzLayerPass *p, const QzNorm *norm, guint n, guint cols, const float *x, float *d)
{
  if (!p->traits->sub_norm)
    return;
  memcpy (p->unnormed, d, sizeof (float) * n * cols);
  memset (d, 0, sizeof (float) * n * cols);
  run_tokens (p, norm_backward_work, &(Step){ .pass = p, .norm = norm, .n = n, .cols = cols, .a = x, .b = p->unnormed, .out = d });
}

void qz_attention_products (QzLayerPass *p, const QzLayerWeights *w, guint n, const float *x)
{
  qz_half_norm (p, &w->attn_norm, n, x, p->in);
  qz_pass_multiply (p, n, p->qkv_rows, p->traits->n_embd, p->in, w->qkv, w->qkv_bias, p->qkv);
}

void qz_attention_finish (QzLayerPass *p, const QzLayerWeights *w, guint n)
{
  turn (p, w, n);
  attend (p, attend_work, &(Step){ .pass = p, .weights = w, .n = n });
  sub_norm (p, &w->attn_sub_norm, n, p->out_rows, p->attended);
  qz_pass_multiply (p, n, p->traits->n_embd, p->out_rows, p->attended, w->output, w->output_bias, p->y);
}

void qz_attention_backward (QzLayerPass *p, const QzLayerWeights *w, guint n, const float *x, float *d_x)
{
  Step step = { .pass = p, .weights = w, .n = n };
  qz_pass_multiply_backward (p, n, p->traits->n_embd, p->out_rows, p->d_y, w->output, p->d_attended);
  turn (p, w, n);
  if (p->traits->sub_norm || p->attends_again)
    attend (p, attend_work, &step);
  sub_norm_backward (p, &w->attn_sub_norm, n, p->out_rows, p->attended, p->d_attended);
  attend (p, attend_backward_work, &step);
  if (p->traits->latent > 0)
    qz_latent_backward (p, w, n);
  else
    run_tokens (p, turn_backward_work, &step);
  qz_pass_multiply_backward (p, n, p->qkv_rows, p->traits->n_embd, p->d_qkv, w->qkv, p->d_in);
  qz_half_norm_backward (p, &w->attn_norm, n, x, p->d_in, d_x);
}

/* ---- feed-forward -------------------------------------------------------------------------------------------------------- */

const QzNorm *qz_feed_forward_norm (const EngTraits *t, const QzLayerWeights *w)
{
  return t->shared_norm ? &w->attn_norm : &w->ffn_norm;
}

/* hidden = activation (gate) * up. */
static void activate_work (gpointer data, guint begin, guint end, guint worker)
{
  const Step *s = data;
  const QzLayerPass *p = s->pass;
  guint n, first = tokens_of (s, begin, end, &n), n_ff = s->weights->n_ff, ld = s->weights->n_gate_up;
  for (guint i = first; i < first + n; i++) {
    const float *gate = p->gate_up + (gsize) i * ld;
    qz_activate (p->traits->activation, gate, ld > n_ff ? gate + n_ff : NULL, n_ff, p->hidden + (gsize) i * n_ff);
  }
}

/* d_hidden weighted, and the weights' own gradients, where there are weights; then d_gate_up. */
static void activate_backward_work (gpointer data, guint begin, guint end, guint worker)
{
  const Step *s = data;
  const QzLayerPass *p = s->pass;
  guint n, first = tokens_of (s, begin, end, &n), n_ff = s->weights->n_ff, ld = s->weights->n_gate_up;
  for (guint i = first; i < first + n; i++) {
    const float *gate = p->gate_up + (gsize) i * ld, *up = ld > n_ff ? gate + n_ff : NULL;
    float *d = p->d_hidden + (gsize) i * n_ff, *d_gate = p->d_gate_up + (gsize) i * ld;
    if (s->a != NULL) {
      float *hidden = p->hidden + (gsize) i * n_ff, dot = 0;
      qz_activate (p->traits->activation, gate, up, n_ff, hidden);
      for (guint j = 0; j < n_ff; j++)
        dot += hidden[j] * d[j];
      for (guint j = 0; s->weights->down_bias != NULL && j < p->traits->n_embd; j++)
        dot += s->weights->down_bias[j] * p->d_y[(gsize) i * p->traits->n_embd + j];
      s->more[i] = dot;
      xb_scale (d, s->a[i], n_ff);
    }
    qz_activate_backward (p->traits->activation, gate, up, d, n_ff, d_gate, d_gate + n_ff);
  }
}

void qz_unit_products (QzLayerPass *p, const QzLayerWeights *w, guint n)
{
  qz_pass_multiply (p, n, w->n_gate_up, p->traits->n_embd, p->in, w->gate_up, w->gate_up_bias, p->gate_up);
}

void qz_unit_activate (QzLayerPass *p, const QzLayerWeights *w, guint n)
{
  run_tokens (p, activate_work, &(Step){ .pass = p, .weights = w, .n = n });
  sub_norm (p, &w->ffn_sub_norm, n, w->n_ff, p->hidden);
}

void qz_unit_finish (QzLayerPass *p, const QzLayerWeights *w, guint n)
{
  qz_unit_activate (p, w, n);
  qz_pass_multiply (p, n, p->traits->n_embd, w->n_ff, p->hidden, w->down, w->down_bias, p->y);
}

void qz_unit_backward (QzLayerPass *p, const QzLayerWeights *w, guint n, const float *expert_weights, float *d_expert_weights)
{
  qz_pass_multiply_backward (p, n, p->traits->n_embd, w->n_ff, p->d_y, w->down, p->d_hidden);
  if (p->traits->sub_norm)
    run_tokens (p, activate_work, &(Step){ .pass = p, .weights = w, .n = n });
  sub_norm_backward (p, &w->ffn_sub_norm, n, w->n_ff, p->hidden, p->d_hidden);
  run_tokens (p, activate_backward_work, &(Step){ .pass = p, .weights = w, .n = n, .a = expert_weights, .more = d_expert_weights });
  qz_pass_multiply_backward (p, n, w->n_gate_up, p->traits->n_embd, p->d_gate_up, w->gate_up, p->d_in);
}
