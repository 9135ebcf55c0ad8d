/* latent.c: attention whose keys and values are projections of one latent vector (DeepSeek-AI 2024, DeepSeek-V2, section 2.1), computed as it is
 * defined: each head's keys and values are made, with one turned part of the key behind those of all heads. The engine lets queries meet the
 * latent vector instead, which is the same. */
#include "quantizer/layer.h"

#include <string.h>

enum { TOKENS_PER_UNIT = 16 };

typedef struct {
  const QzLayerPass *pass;
  const QzLayerWeights *weights;
  guint n;
} Step;

static void run_tokens (const QzLayerPass *p, EngWork work, const QzLayerWeights *w, guint n)
{
  Step step = { p, w, n };
  eng_workers_run (p->workers, work, &step, (n + TOKENS_PER_UNIT - 1) / TOKENS_PER_UNIT, 1);
}

/* Columns of qkv before the latent vector. */
static guint first_columns (const QzLayerPass *p)
{
  return p->traits->latent_query > 0 ? p->traits->latent_query : p->q_rows;
}

/* latent_q and latent = norms of what the first products give; queries where these are whole. */
static void norm_work (gpointer data, guint begin, guint end, guint worker)
{
  const Step *s = data;
  const QzLayerPass *p = s->pass;
  const EngTraits *t = p->traits;
  for (gsize i = begin * TOKENS_PER_UNIT; i < MIN (end * TOKENS_PER_UNIT, s->n); i++) {
    const float *in = p->qkv + i * p->qkv_rows;
    if (t->latent_query > 0)
      qz_norm (&s->weights->q_a_norm, in, 1, t->latent_query, p->latent_q + i * t->latent_query);
    else
      memcpy (p->queries + i * p->q_rows, in, sizeof (float) * p->q_rows);
    qz_norm (&s->weights->kv_a_norm, in + first_columns (p), 1, t->latent, p->latent + i * t->latent);
  }
}

static void rope_one (const EngTraits *t, const float *angles, gboolean inverse, float *x)
{
  if (angles != NULL)
    qz_rope (t, angles, 1, inverse, x);
}

/* turned = each head's query, its last part turned; behind all of them each head's key, its last part that of all. */
static void turn_work (gpointer data, guint begin, guint end, guint worker)
{
  const Step *s = data;
  const QzLayerPass *p = s->pass;
  const EngTraits *t = p->traits;
  guint key = t->latent_key, whole = key + t->n_rot, pair = key + t->latent_value;
  for (gsize i = begin * TOKENS_PER_UNIT; i < MIN (end * TOKENS_PER_UNIT, s->n); i++) {
    const float *angles = qz_pass_angles (p, s->weights->layer, i), *kv = p->kv + i * t->n_heads * pair;
    const float *shared = p->qkv + i * p->qkv_rows + first_columns (p) + t->latent;
    float *q = p->turned + i * (p->q_rows + p->k_rows), *k = q + p->q_rows;
    memcpy (q, p->queries + i * p->q_rows, sizeof (float) * p->q_rows);
    for (guint h = 0; h < t->n_heads; h++) {
      rope_one (t, angles, FALSE, q + h * whole + key);
      memcpy (k + h * whole, kv + h * pair, sizeof (float) * key);
      memcpy (k + h * whole + key, shared, sizeof (float) * t->n_rot);
      rope_one (t, angles, FALSE, k + h * whole + key);
    }
  }
}

void qz_latent_expand (QzLayerPass *p, const QzLayerWeights *w, guint n)
{
  const EngTraits *t = p->traits;
  run_tokens (p, norm_work, w, n);
  if (t->latent_query > 0)
    qz_pass_multiply (p, n, p->q_rows, t->latent_query, p->latent_q, w->q_b, NULL, p->queries);
  qz_pass_multiply (p, n, t->n_heads * (t->latent_key + t->latent_value), t->latent, p->latent, w->kv_b, NULL, p->kv);
  run_tokens (p, turn_work, w, n);
}

/* d_queries and the keys' columns of d_kv; the shared part's gradient, summed over heads, goes to d_qkv. */
static void turn_backward_work (gpointer data, guint begin, guint end, guint worker)
{
  const Step *s = data;
  const QzLayerPass *p = s->pass;
  const EngTraits *t = p->traits;
  guint key = t->latent_key, whole = key + t->n_rot, pair = key + t->latent_value;
  for (gsize i = begin * TOKENS_PER_UNIT; i < MIN (end * TOKENS_PER_UNIT, s->n); i++) {
    const float *angles = qz_pass_angles (p, s->weights->layer, i);
    const float *d_q = p->d_turned + i * (p->q_rows + p->k_rows), *d_k = d_q + p->q_rows;
    float *d_queries = p->d_queries + i * p->q_rows, *d_kv = p->d_kv + i * t->n_heads * pair;
    float *d_shared = p->d_qkv + i * p->qkv_rows + first_columns (p) + t->latent;
    memcpy (d_queries, d_q, sizeof (float) * p->q_rows);
    memset (d_shared, 0, sizeof (float) * t->n_rot);
    for (guint h = 0; h < t->n_heads; h++) {
      rope_one (t, angles, TRUE, d_queries + h * whole + key);
      memcpy (d_kv + h * pair, d_k + h * whole, sizeof (float) * key);
      for (guint j = 0; j < t->n_rot; j++)
        d_shared[j] += d_k[h * whole + key + j];
    }
    rope_one (t, angles, TRUE, d_shared);
  }
}

/* Through the latent vectors' norms, to d_qkv. */
static void norm_backward_work (gpointer data, guint begin, guint end, guint worker)
{
  const Step *s = data;
  const QzLayerPass *p = s->pass;
  const EngTraits *t = p->traits;
  guint first = first_columns (p);
  for (gsize i = begin * TOKENS_PER_UNIT; i < MIN (end * TOKENS_PER_UNIT, s->n); i++) {
    const float *in = p->qkv + i * p->qkv_rows;
    float *d = p->d_qkv + i * p->qkv_rows;
    memset (d, 0, sizeof (float) * (first + t->latent));
    if (t->latent_query > 0)
      qz_norm_backward (&s->weights->q_a_norm, in, p->d_latent_q + i * t->latent_query, 1, t->latent_query, d);
    else
      memcpy (d, p->d_queries + i * p->q_rows, sizeof (float) * p->q_rows);
    qz_norm_backward (&s->weights->kv_a_norm, in + first, p->d_latent + i * t->latent, 1, t->latent, d + first);
  }
}

void qz_latent_backward (QzLayerPass *p, const QzLayerWeights *w, guint n)
{
  const EngTraits *t = p->traits;
  run_tokens (p, turn_backward_work, w, n);
  if (t->latent_query > 0)
    qz_pass_multiply_backward (p, n, p->q_rows, t->latent_query, p->d_queries, w->q_b, p->d_latent_q);
  qz_pass_multiply_backward (p, n, t->n_heads * (t->latent_key + t->latent_value), t->latent, p->d_kv, w->kv_b, p->d_latent);
  run_tokens (p, norm_backward_work, w, n);
}
