/* layer.c: the float forward and backward pass of one decoder layer, each step a plain function with its backward next to it.
 * Shapes are given in the first line of each; the weights' own gradients are never needed. */
#include "quantizer/layer.h"

#include "engine/error.h"
#include "kernels/dense.h"
#include "kernels/ops.h"
#include "quantizer/product.h"

#include <math.h>
#include <string.h>

/* ---- weights ------------------------------------------------------------------------------------------------------------ */

gboolean qz_layer_weights_init (QzLayerWeights *w, const QzSource *source, GError **error)
{
  const EngTraits *t = &source->traits;
  gsize embd = t->n_embd, q_rows = (gsize) t->n_heads * t->head_dim, kv_rows = (gsize) t->n_kv_heads * t->head_dim, ff = t->n_ff;
  gsize biases = t->qkv_bias ? q_rows + 2 * kv_rows : 0;
  gboolean factors = eng_gguf_find_tensor (source->gguf, "rope_freqs.weight") != NULL;
  gsize floats = 2 * q_rows * embd + 2 * kv_rows * embd + 3 * ff * embd + 2 * embd + biases + t->n_rot / 2;
  *w = (QzLayerWeights){ .memory = g_try_malloc_n (floats, sizeof (float)) };
  if (w->memory == NULL) {
    g_set_error (error, ENG_ERROR, ENG_ERROR_MEMORY, "there is not enough memory to hold one layer of %s: close other programs and try again",
                 eng_gguf_path (source->gguf));
    return FALSE;
  }
  float *p = w->memory;
  w->q = p, p += q_rows * embd;
  w->k = p, p += kv_rows * embd;
  w->v = p, p += kv_rows * embd;
  w->output = p, p += q_rows * embd;
  w->gate = p, p += ff * embd;
  w->up = p, p += ff * embd;
  w->down = p, p += ff * embd;
  w->attn_norm = p, p += embd;
  w->ffn_norm = p, p += embd;
  if (t->qkv_bias) {
    w->q_bias = p, p += q_rows;
    w->k_bias = p, p += kv_rows;
    w->v_bias = p, p += kv_rows;
  }
  if (factors) {
    w->rope_factors = p;
    return qz_source_read_vector (source, "rope_freqs.weight", t->n_rot / 2, w->rope_factors, error);
  }
  return TRUE;
}

gboolean qz_layer_weights_read (QzLayerWeights *w, const QzSource *source, guint layer, EngWorkers *workers, GError **error)
{
  const EngTraits *t = &source->traits;
  float *const matrices[QZ_LAYER_MATRICES] = { w->q, w->k, w->v, w->output, w->gate, w->up, w->down };
  for (guint i = 0; i < QZ_LAYER_MATRICES; i++) {
    guint m = qz_source_layer_matrix (layer, QZ_ROLE_Q) + i;
    if (!qz_source_read_matrix (source, m, workers, matrices[i], error))
      return FALSE;
    eng_gguf_drop_tensor (source->gguf, source->matrices[m].tensor);
  }
  const struct {
    const char *suffix;
    float *out;
    guint n;
  } vectors[] = {
    { "attn_norm.weight", w->attn_norm, t->n_embd },
    { "ffn_norm.weight", w->ffn_norm, t->n_embd },
    { "attn_q.bias", w->q_bias, t->n_heads * t->head_dim },
    { "attn_k.bias", w->k_bias, t->n_kv_heads * t->head_dim },
    { "attn_v.bias", w->v_bias, t->n_kv_heads * t->head_dim },
  };
  for (guint i = 0; i < G_N_ELEMENTS (vectors); i++) {
    if (vectors[i].out == NULL)
      continue;
    g_autofree char *name = g_strdup_printf ("blk.%u.%s", layer, vectors[i].suffix);
    if (!qz_source_read_vector (source, name, vectors[i].n, vectors[i].out, error))
      return FALSE;
  }
  return TRUE;
}

void qz_layer_weights_clear (QzLayerWeights *w)
{
  g_free (w->memory);
  *w = (QzLayerWeights){ 0 };
}

/* ---- the pass's memory -------------------------------------------------------------------------------------------------- */

/* RoPE's angles (Su et al. 2021): position / theta^(2i / n_rot), stretched by the model's own scale and factors. */
static void fill_cos_sin (float *cos_sin, const EngTraits *t, const float *factors, guint n_tokens)
{
  guint half = t->n_rot / 2;
  for (guint pos = 0; pos < n_tokens; pos++)
    for (guint i = 0; i < half; i++) {
      double angle = pos * (double) t->rope_scale * pow (t->rope_theta, -2.0 * i / t->n_rot) / (factors != NULL ? factors[i] : 1);
      cos_sin[(gsize) (pos * half + i) * 2] = cos (angle);
      cos_sin[(gsize) (pos * half + i) * 2 + 1] = sin (angle);
    }
}

void qz_layer_pass_init (QzLayerPass *pass, const EngTraits *t, const QzLayerWeights *weights, guint n_sequences, guint n_tokens, gboolean backward)
{
  gsize n = (gsize) n_sequences * n_tokens, q = n * t->n_heads * t->head_dim, kv = n * t->n_kv_heads * t->head_dim;
  gsize embd = n * t->n_embd, ff = n * t->n_ff, square = n * t->n_heads * n_tokens;
  *pass = (QzLayerPass){ .max_sequences = n_sequences, .n_sequences = n_sequences, .n_tokens = n_tokens, .n = n };
  struct {
    float **where;
    gsize floats;
    gboolean gradient;
  } parts[] = {
    { &pass->attn_in, embd, FALSE }, { &pass->q, q, FALSE },        { &pass->k, kv, FALSE },          { &pass->v, kv, FALSE },
    { &pass->probability, square, FALSE }, { &pass->attn_out, q, FALSE }, { &pass->middle, embd, FALSE }, { &pass->ffn_in, embd, FALSE },
    { &pass->gate, ff, FALSE },      { &pass->up, ff, FALSE },      { &pass->down_in, ff, FALSE },
    { &pass->cos_sin, (gsize) n_tokens * t->n_rot, FALSE },
    { &pass->d_q, q, TRUE },         { &pass->d_k, kv, TRUE },      { &pass->d_v, kv, TRUE },         { &pass->d_gate, ff, TRUE },
    { &pass->d_up, ff, TRUE },       { &pass->d_middle, embd, TRUE }, { &pass->d_attn_out, q, TRUE }, { &pass->d_in, embd, TRUE },
  };
  for (guint i = 0; i < G_N_ELEMENTS (parts); i++)
    if (backward || !parts[i].gradient)
      pass->memory_floats += parts[i].floats;
  pass->memory = g_malloc_n (pass->memory_floats, sizeof (float));
  gsize used = 0;
  for (guint i = 0; i < G_N_ELEMENTS (parts); i++)
    if (backward || !parts[i].gradient) {
      *parts[i].where = pass->memory + used;
      used += parts[i].floats;
    }
  fill_cos_sin (pass->cos_sin, t, weights->rope_factors, n_tokens);
}

void qz_layer_pass_resize (QzLayerPass *pass, guint n_sequences)
{
  g_assert (n_sequences <= pass->max_sequences);
  pass->n_sequences = n_sequences;
  pass->n = n_sequences * pass->n_tokens;
}

void qz_layer_pass_clear (QzLayerPass *pass)
{
  g_free (pass->memory);
  *pass = (QzLayerPass){ 0 };
}

/* ---- norm --------------------------------------------------------------------------------------------------------------- */

enum { TOKENS_PER_UNIT = 16 };

typedef struct {
  const float *x, *gain, *dy;
  float eps, *out;
  guint n, cols;
} Norm;

static void norm_forward_work (gpointer data, guint begin, guint end, guint worker)
{
  const Norm *norm = data;
  for (guint i = begin * TOKENS_PER_UNIT; i < MIN (end * TOKENS_PER_UNIT, norm->n); i++)
    xb_rms_norm (norm->x + (gsize) i * norm->cols, norm->gain, norm->out + (gsize) i * norm->cols, norm->cols, norm->eps);
}

void qz_norm_forward (EngWorkers *workers, const float *x, const float *gain, float eps, guint n, guint cols, float *y)
{
  Norm norm = { .x = x, .gain = gain, .eps = eps, .out = y, .n = n, .cols = cols };
  eng_workers_run (workers, norm_forward_work, &norm, (n + TOKENS_PER_UNIT - 1) / TOKENS_PER_UNIT, 1);
}

/* With r = 1 / rms: dx = r gain dy - x r^3 mean (x gain dy). */
static void norm_backward_work (gpointer data, guint begin, guint end, guint worker)
{
  const Norm *norm = data;
  for (guint i = begin * TOKENS_PER_UNIT; i < MIN (end * TOKENS_PER_UNIT, norm->n); i++) {
    const float *x = norm->x + (gsize) i * norm->cols, *dy = norm->dy + (gsize) i * norm->cols;
    float *dx = norm->out + (gsize) i * norm->cols;
    double squares = 0, dot = 0;
    for (guint j = 0; j < norm->cols; j++) {
      squares += x[j] * x[j];
      dot += x[j] * norm->gain[j] * dy[j];
    }
    double r = 1.0 / sqrt (squares / norm->cols + norm->eps);
    float a = r, b = r * r * r * dot / norm->cols;
    for (guint j = 0; j < norm->cols; j++)
      dx[j] += a * norm->gain[j] * dy[j] - b * x[j];
  }
}

void qz_norm_backward (EngWorkers *workers, const float *x, const float *gain, float eps, guint n, guint cols, const float *dy, float *dx)
{
  Norm norm = { .x = x, .gain = gain, .dy = dy, .eps = eps, .out = dx, .n = n, .cols = cols };
  eng_workers_run (workers, norm_backward_work, &norm, (n + TOKENS_PER_UNIT - 1) / TOKENS_PER_UNIT, 1);
}

/* ---- attention ---------------------------------------------------------------------------------------------------------- */

typedef struct {
  const EngTraits *traits;
  QzLayerPass *pass;
  float **scratch; /* [workers] n_tokens x n_tokens, backward only */
} Attention;

/* Biases, then RoPE in place on q [n][n_heads][head_dim] and k. The inverse turns a gradient back. */
static void rotate (const EngTraits *t, const QzLayerPass *pass, float *x, guint n_heads, guint token, gboolean inverse)
{
  const float *forward = pass->cos_sin + (gsize) (token % pass->n_tokens) * t->n_rot;
  float backward[1024];
  if (inverse) {
    for (guint i = 0; i < t->n_rot; i += 2) {
      backward[i] = forward[i];
      backward[i + 1] = -forward[i + 1];
    }
    forward = backward;
  }
  for (guint h = 0; h < n_heads; h++) {
    float *head = x + ((gsize) token * n_heads + h) * t->head_dim;
    if (t->rope_halves)
      xb_rope_halves (head, forward, t->n_rot);
    else
      xb_rope_pairs (head, forward, t->n_rot);
  }
}

typedef struct {
  const EngTraits *traits;
  const QzLayerWeights *weights;
  QzLayerPass *pass;
} Rotation;

static void add_bias (float *x, const float *bias, guint n)
{
  if (bias != NULL)
    xb_add (x, bias, n);
}

static void rotate_work (gpointer data, guint begin, guint end, guint worker)
{
  const Rotation *r = data;
  const EngTraits *t = r->traits;
  guint q_rows = t->n_heads * t->head_dim, kv_rows = t->n_kv_heads * t->head_dim;
  for (guint i = begin * TOKENS_PER_UNIT; i < MIN (end * TOKENS_PER_UNIT, r->pass->n); i++) {
    add_bias (r->pass->q + (gsize) i * q_rows, r->weights->q_bias, q_rows);
    add_bias (r->pass->k + (gsize) i * kv_rows, r->weights->k_bias, kv_rows);
    add_bias (r->pass->v + (gsize) i * kv_rows, r->weights->v_bias, kv_rows);
    rotate (t, r->pass, r->pass->q, t->n_heads, i, FALSE);
    rotate (t, r->pass, r->pass->k, t->n_kv_heads, i, FALSE);
  }
}

static void rotate_back_work (gpointer data, guint begin, guint end, guint worker)
{
  const Rotation *r = data;
  for (guint i = begin * TOKENS_PER_UNIT; i < MIN (end * TOKENS_PER_UNIT, r->pass->n); i++) {
    rotate (r->traits, r->pass, r->pass->d_q, r->traits->n_heads, i, TRUE);
    rotate (r->traits, r->pass, r->pass->d_k, r->traits->n_kv_heads, i, TRUE);
  }
}

/* One unit is one head of one sequence: P = softmax (scale Q K^T), causal; out = P V. */
static void attention_forward_work (gpointer data, guint begin, guint end, guint worker)
{
  const Attention *a = data;
  const EngTraits *t = a->traits;
  QzLayerPass *pass = a->pass;
  guint tokens = pass->n_tokens, hd = t->head_dim, group = t->n_heads / t->n_kv_heads;
  gsize ld_q = (gsize) t->n_heads * hd, ld_kv = (gsize) t->n_kv_heads * hd;
  float scale = 1.0f / sqrtf (hd);
  for (guint unit = begin; unit < end; unit++) {
    guint sequence = unit / t->n_heads, head = unit % t->n_heads;
    gsize row = (gsize) sequence * tokens;
    const float *q = pass->q + row * ld_q + head * hd, *k = pass->k + row * ld_kv + head / group * hd;
    const float *v = pass->v + row * ld_kv + head / group * hd;
    float *p = pass->probability + (gsize) unit * tokens * tokens;
    xb_gemm (false, true, 0, tokens, tokens, hd, q, ld_q, k, ld_kv, 0, p, tokens);
    for (guint i = 0; i < tokens; i++) {
      xb_scale (p + (gsize) i * tokens, scale, i + 1);
      xb_softmax (p + (gsize) i * tokens, i + 1);
      memset (p + (gsize) i * tokens + i + 1, 0, sizeof (float) * (tokens - i - 1));
    }
    xb_gemm (false, false, 0, tokens, hd, tokens, p, tokens, v, ld_kv, 0, pass->attn_out + row * ld_q + head * hd, ld_q);
  }
}

/* One unit is one KV head of one sequence, so that dK and dV of a group of query heads add up in one place.
 * dV = P^T dO, dP = dO V^T, dS = P (dP - rowsum (P dP)), dQ = scale dS K, dK = scale dS^T Q. */
static void attention_backward_work (gpointer data, guint begin, guint end, guint worker)
{
  const Attention *a = data;
  const EngTraits *t = a->traits;
  QzLayerPass *pass = a->pass;
  guint tokens = pass->n_tokens, hd = t->head_dim, group = t->n_heads / t->n_kv_heads;
  gsize ld_q = (gsize) t->n_heads * hd, ld_kv = (gsize) t->n_kv_heads * hd;
  float scale = 1.0f / sqrtf (hd), *ds = a->scratch[worker];
  for (guint unit = begin; unit < end; unit++) {
    guint sequence = unit / t->n_kv_heads, kv_head = unit % t->n_kv_heads;
    gsize row = (gsize) sequence * tokens;
    const float *k = pass->k + row * ld_kv + kv_head * hd, *v = pass->v + row * ld_kv + kv_head * hd;
    float *dk = pass->d_k + row * ld_kv + kv_head * hd, *dv = pass->d_v + row * ld_kv + kv_head * hd;
    for (guint g = 0; g < group; g++) {
      guint head = kv_head * group + g;
      const float *p = pass->probability + ((gsize) sequence * t->n_heads + head) * tokens * tokens;
      const float *q = pass->q + row * ld_q + head * hd, *d_out = pass->d_attn_out + row * ld_q + head * hd;
      float beta = g > 0;
      xb_gemm (true, false, 0, tokens, hd, tokens, p, tokens, d_out, ld_q, beta, dv, ld_kv);
      xb_gemm (false, true, 0, tokens, tokens, hd, d_out, ld_q, v, ld_kv, 0, ds, tokens);
      for (guint i = 0; i < tokens; i++) {
        const float *pi = p + (gsize) i * tokens;
        float *di = ds + (gsize) i * tokens, sum = 0;
        for (guint j = 0; j <= i; j++)
          sum += pi[j] * di[j];
        for (guint j = 0; j <= i; j++)
          di[j] = scale * pi[j] * (di[j] - sum);
        memset (di + i + 1, 0, sizeof (float) * (tokens - i - 1));
      }
      xb_gemm (false, false, 0, tokens, hd, tokens, ds, tokens, k, ld_kv, 0, pass->d_q + row * ld_q + head * hd, ld_q);
      xb_gemm (true, false, 0, tokens, hd, tokens, ds, tokens, q, ld_q, beta, dk, ld_kv);
    }
  }
}

/* ---- gated unit --------------------------------------------------------------------------------------------------------- */

typedef struct {
  QzLayerPass *pass;
  gsize n_ff;
} Gate;

static void gate_forward_work (gpointer data, guint begin, guint end, guint worker)
{
  const Gate *g = data;
  gsize from = (gsize) begin * TOKENS_PER_UNIT, to = MIN ((gsize) end * TOKENS_PER_UNIT, g->pass->n);
  xb_silu_mul (g->pass->gate + from * g->n_ff, g->pass->up + from * g->n_ff, g->pass->down_in + from * g->n_ff, (to - from) * g->n_ff);
}

/* d_gate holds d(down_in) on entry. silu' (z) = s + z s (1 - s), s the logistic of z. */
static void gate_backward_work (gpointer data, guint begin, guint end, guint worker)
{
  const Gate *g = data;
  gsize from = (gsize) begin * TOKENS_PER_UNIT * g->n_ff, to = MIN ((gsize) end * TOKENS_PER_UNIT, g->pass->n) * g->n_ff;
  for (gsize i = from; i < to; i++) {
    float z = g->pass->gate[i], s = 1.0f / (1.0f + expf (-z)), d = g->pass->d_gate[i];
    g->pass->d_up[i] = d * z * s;
    g->pass->d_gate[i] = d * g->pass->up[i] * (s + z * s * (1.0f - s));
  }
}

/* ---- the layer ---------------------------------------------------------------------------------------------------------- */

static void run_tokens (EngWorkers *workers, EngWork work, gpointer data, guint n)
{
  eng_workers_run (workers, work, data, (n + TOKENS_PER_UNIT - 1) / TOKENS_PER_UNIT, 1);
}

void qz_layer_forward (const EngTraits *t, const QzLayerWeights *w, QzLayerPass *pass, EngWorkers *workers, float *x)
{
  guint n = pass->n, embd = t->n_embd, ff = t->n_ff, q_rows = t->n_heads * t->head_dim, kv_rows = t->n_kv_heads * t->head_dim;
  Rotation rotation = { t, w, pass };
  Attention attention = { t, pass, NULL };
  Gate gate = { pass, ff };

  qz_norm_forward (workers, x, w->attn_norm, t->norm_eps, n, embd, pass->attn_in);
  qz_product (workers, false, true, n, q_rows, embd, pass->attn_in, embd, w->q, embd, 0, pass->q, q_rows);
  qz_product (workers, false, true, n, kv_rows, embd, pass->attn_in, embd, w->k, embd, 0, pass->k, kv_rows);
  qz_product (workers, false, true, n, kv_rows, embd, pass->attn_in, embd, w->v, embd, 0, pass->v, kv_rows);
  run_tokens (workers, rotate_work, &rotation, n);
  eng_workers_run (workers, attention_forward_work, &attention, pass->n_sequences * t->n_heads, 1);
  memcpy (pass->middle, x, sizeof (float) * n * embd);
  qz_product (workers, false, true, n, embd, q_rows, pass->attn_out, q_rows, w->output, q_rows, 1, pass->middle, embd);

  qz_norm_forward (workers, pass->middle, w->ffn_norm, t->norm_eps, n, embd, pass->ffn_in);
  qz_product (workers, false, true, n, ff, embd, pass->ffn_in, embd, w->gate, embd, 0, pass->gate, ff);
  qz_product (workers, false, true, n, ff, embd, pass->ffn_in, embd, w->up, embd, 0, pass->up, ff);
  run_tokens (workers, gate_forward_work, &gate, n);
  memcpy (x, pass->middle, sizeof (float) * n * embd);
  qz_product (workers, false, true, n, embd, ff, pass->down_in, ff, w->down, ff, 1, x, embd);
}

void qz_layer_backward (const EngTraits *t, const QzLayerWeights *w, QzLayerPass *pass, EngWorkers *workers, const float *x, float *dx)
{
  guint n = pass->n, embd = t->n_embd, ff = t->n_ff, q_rows = t->n_heads * t->head_dim, kv_rows = t->n_kv_heads * t->head_dim;
  Rotation rotation = { t, w, pass };
  Gate gate = { pass, ff };

  qz_product (workers, false, false, n, ff, embd, dx, embd, w->down, ff, 0, pass->d_gate, ff);
  run_tokens (workers, gate_backward_work, &gate, n);
  qz_product (workers, false, false, n, embd, ff, pass->d_gate, ff, w->gate, embd, 0, pass->d_in, embd);
  qz_product (workers, false, false, n, embd, ff, pass->d_up, ff, w->up, embd, 1, pass->d_in, embd);
  memcpy (pass->d_middle, dx, sizeof (float) * n * embd);
  qz_norm_backward (workers, pass->middle, w->ffn_norm, t->norm_eps, n, embd, pass->d_in, pass->d_middle);

  qz_product (workers, false, false, n, q_rows, embd, pass->d_middle, embd, w->output, q_rows, 0, pass->d_attn_out, q_rows);
  guint n_workers = eng_workers_count (workers);
  g_autofree float **scratch = g_new (float *, n_workers);
  g_autofree float *squares = g_new (float, (gsize) n_workers * pass->n_tokens * pass->n_tokens);
  for (guint i = 0; i < n_workers; i++)
    scratch[i] = squares + (gsize) i * pass->n_tokens * pass->n_tokens;
  Attention attention = { t, pass, scratch };
  eng_workers_run (workers, attention_backward_work, &attention, pass->n_sequences * t->n_kv_heads, 1);
  run_tokens (workers, rotate_back_work, &rotation, n);

  qz_product (workers, false, false, n, embd, q_rows, pass->d_q, q_rows, w->q, embd, 0, pass->d_in, embd);
  qz_product (workers, false, false, n, embd, kv_rows, pass->d_k, kv_rows, w->k, embd, 1, pass->d_in, embd);
  qz_product (workers, false, false, n, embd, kv_rows, pass->d_v, kv_rows, w->v, embd, 1, pass->d_in, embd);
  memcpy (dx, pass->d_middle, sizeof (float) * n * embd);
  qz_norm_backward (workers, x, w->attn_norm, t->norm_eps, n, embd, pass->d_in, dx);
}
