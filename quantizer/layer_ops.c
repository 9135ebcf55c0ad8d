/* layer_ops.c: see layer_ops.h. Formulas of gradients stand above the functions that compute them. */
#include "quantizer/layer_ops.h"

#include "engine/activation.h"
#include "kernels/dense.h"
#include "kernels/ops.h"

#include <math.h>
#include <string.h>

/* ---- norms --------------------------------------------------------------------------------------------------------------- */

void qz_norm (const QzNorm *norm, const float *x, guint n, guint cols, float *y)
{
  for (guint i = 0; i < n; i++, x += cols, y += cols)
    if (norm->centred)
      xb_layer_norm (x, norm->gain, norm->bias, y, cols, norm->eps);
    else
      xb_rms_norm (x, norm->gain, y, cols, norm->eps);
}

/* With z the input, less its mean where centred, r = 1 / rms (z) and g = gain d_y: d_x = r (g - z r^2 mean (z g)), less its mean where
 * centred. */
void qz_norm_backward (const QzNorm *norm, const float *x, const float *d_y, guint n, guint cols, float *d_x)
{
  const float *gain = norm->gain;
  for (guint i = 0; i < n; i++, x += cols, d_y += cols, d_x += cols) {
    double sum = 0, squares = 0, dot = 0, g_sum = 0;
    for (guint j = 0; norm->centred && j < cols; j++)
      sum += x[j];
    float mean = sum / cols;
    for (guint j = 0; j < cols; j++) {
      float z = x[j] - mean, g = gain != NULL ? gain[j] * d_y[j] : d_y[j];
      squares += z * z;
      dot += z * g;
      g_sum += g;
    }
    double r = 1.0 / sqrt (squares / cols + norm->eps);
    float a = r, b = r * r * r * dot / cols, c = norm->centred ? r * g_sum / cols : 0;
    for (guint j = 0; j < cols; j++)
      d_x[j] += a * (gain != NULL ? gain[j] * d_y[j] : d_y[j]) - b * (x[j] - mean) - c;
  }
}

/* Columns normed together, and how far the gain moves from one of them to the next. */
static guint head_norm_cols (const EngTraits *t, guint n_heads, guint *step)
{
  guint cols = t->qk_norm == ENG_QK_NORM_WIDTH ? n_heads * t->head_dim : t->head_dim;
  *step = t->qk_norm == ENG_QK_NORM_HEADS ? cols : 0;
  return cols;
}

void qz_head_norm (const EngTraits *t, const float *gain, guint n_heads, const float *x, float *y)
{
  guint step, cols = head_norm_cols (t, n_heads, &step);
  for (guint at = 0; at < n_heads * t->head_dim; at += cols, gain += step)
    qz_norm (&(QzNorm){ gain, NULL, t->layer_norm, t->norm_eps }, x + at, 1, cols, y + at);
}

void qz_head_norm_backward (const EngTraits *t, const float *gain, guint n_heads, const float *x, const float *d_y, float *d_x)
{
  guint step, cols = head_norm_cols (t, n_heads, &step);
  for (guint at = 0; at < n_heads * t->head_dim; at += cols, gain += step)
    qz_norm_backward (&(QzNorm){ gain, NULL, t->layer_norm, t->norm_eps }, x + at, d_y + at, 1, cols, d_x + at);
}

/* ---- rope ---------------------------------------------------------------------------------------------------------------- */

void qz_rope (const EngTraits *t, const float *cos_sin, guint n_heads, gboolean inverse, float *x)
{
  float turned_back[1024]; /* n_rot <= head_dim <= 512 */
  if (inverse) {
    for (guint i = 0; i < t->n_rot; i += 2) {
      turned_back[i] = cos_sin[i];
      turned_back[i + 1] = -cos_sin[i + 1];
    }
    cos_sin = turned_back;
  }
  for (guint h = 0; h < n_heads; h++, x += t->head_dim)
    if (t->rope_halves)
      xb_rope_halves (x, cos_sin, t->n_rot);
    else
      xb_rope_pairs (x, cos_sin, t->n_rot);
}

/* ---- clamp --------------------------------------------------------------------------------------------------------------- */

void qz_clamp (float *x, gsize n, float limit)
{
  for (gsize i = 0; i < n; i++)
    x[i] = CLAMP (x[i], -limit, limit);
}

void qz_clamp_backward (const float *x, gsize n, float limit, float *d_x)
{
  for (gsize i = 0; i < n; i++)
    if (fabsf (x[i]) >= limit)
      d_x[i] = 0;
}

/* ---- attention ----------------------------------------------------------------------------------------------------------- */

/* Tokens whose scores are computed together; they see nothing after the last of them, nor before the first one's window. */
enum { ATTEND_ROWS = 96 };

typedef struct {
  guint row0, rows, key0, keys;
} Block;

static Block block_at (const QzAttend *a, guint row0)
{
  guint rows = MIN (ATTEND_ROWS, a->n - row0), key0 = row0 + 1 > a->window ? row0 + 1 - a->window : 0;
  return (Block){ row0, rows, key0, row0 + rows - key0 };
}

gsize qz_attend_scratch (const QzAttend *a)
{
  return (gsize) 3 * ATTEND_ROWS * a->n;
}

/* p [rows][keys] = probabilities of a block, zero for what a token does not see; capped likewise: scores over the cap, where there is one. */
static void block_probabilities (const QzAttend *a, const Block *b, const float *q, gsize ld_q, const float *k, gsize ld_k, float *p, float *capped)
{
  xb_gemm (false, true, 0, b->rows, b->keys, a->head_dim, q + b->row0 * ld_q, ld_q, k + b->key0 * ld_k, ld_k, 0, p, b->keys);
  for (guint i = 0; i < b->rows; i++) {
    float *row = p + (gsize) i * b->keys;
    guint end = b->row0 + i + 1 - b->key0, begin = end > a->window ? end - a->window : 0;
    if (a->soft_cap > 0) {
      for (guint j = begin; j < end; j++) {
        float c = tanhf (row[j] * a->scale / a->soft_cap);
        row[j] = a->soft_cap * c;
        if (capped != NULL)
          capped[(gsize) i * b->keys + j] = c;
      }
    } else {
      xb_scale (row + begin, a->scale, end - begin);
    }
    for (guint j = begin; a->slope > 0 && j < end; j++)
      row[j] -= a->slope * (end - 1 - j);
    float log_sum = xb_softmax (row + begin, end - begin);
    if (a->sink != NULL) /* takes its share of what the softmax has given to the others */
      xb_scale (row + begin, 1 / (1 + expf (*a->sink - log_sum)), end - begin);
    memset (row, 0, sizeof (float) * begin);
    memset (row + end, 0, sizeof (float) * (b->keys - end));
  }
}

void qz_attend (const QzAttend *a, const float *q, gsize ld_q, const float *k, gsize ld_k, const float *v, gsize ld_v, float *scratch, float *out,
                gsize ld_out)
{
  for (guint row0 = 0; row0 < a->n; row0 += ATTEND_ROWS) {
    Block b = block_at (a, row0);
    block_probabilities (a, &b, q, ld_q, k, ld_k, scratch, NULL);
    xb_gemm (false, false, 0, b.rows, a->value_dim, b.keys, scratch, b.keys, v + b.key0 * ld_v, ld_v, 0, out + row0 * ld_out, ld_out);
  }
}

/* With P the probabilities (whose rows sum to less than 1 where there is a sink), S the scores and c = S / cap: dV = P^T dO, dP = dO V^T, dS = P (dP - rowsum (P dP)), and through scale and cap
 * dS scale (1 - c^2) = dZ; dQ = dZ K, dK = dZ^T Q. */
void qz_attend_backward (const QzAttend *a, const float *q, gsize ld_q, const float *k, gsize ld_k, const float *v, gsize ld_v, const float *d_out,
                         gsize ld_out, float *scratch, const QzAttendGradient *to)
{
  float *p = scratch, *d = p + (gsize) ATTEND_ROWS * a->n, *capped = a->soft_cap > 0 ? d + (gsize) ATTEND_ROWS * a->n : NULL;
  for (guint row0 = 0; row0 < a->n; row0 += ATTEND_ROWS) {
    Block b = block_at (a, row0);
    block_probabilities (a, &b, q, ld_q, k, ld_k, p, capped);
    xb_gemm (true, false, 0, b.keys, a->value_dim, b.rows, p, b.keys, d_out + row0 * ld_out, ld_out, 1, to->d_v + b.key0 * to->ld_v, to->ld_v);
    xb_gemm (false, true, 0, b.rows, b.keys, a->value_dim, d_out + row0 * ld_out, ld_out, v + b.key0 * ld_v, ld_v, 0, d, b.keys);
    for (guint i = 0; i < b.rows; i++) {
      const float *pi = p + (gsize) i * b.keys, *ci = capped != NULL ? capped + (gsize) i * b.keys : NULL;
      float *di = d + (gsize) i * b.keys, sum = 0;
      guint end = row0 + i + 1 - b.key0, begin = end > a->window ? end - a->window : 0;
      for (guint j = begin; j < end; j++)
        sum += pi[j] * di[j];
      for (guint j = begin; j < end; j++)
        di[j] = a->scale * pi[j] * (di[j] - sum) * (ci != NULL ? 1 - ci[j] * ci[j] : 1);
      memset (di, 0, sizeof (float) * begin);
      memset (di + end, 0, sizeof (float) * (b.keys - end));
    }
    xb_gemm (false, false, 0, b.rows, a->head_dim, b.keys, d, b.keys, k + b.key0 * ld_k, ld_k, 0, to->d_q + row0 * to->ld_q, to->ld_q);
    xb_gemm (true, false, 0, b.keys, a->head_dim, b.rows, d, b.keys, q + row0 * ld_q, ld_q, 1, to->d_k + b.key0 * to->ld_k, to->ld_k);
    if (to->latent != NULL)
      xb_gemm (false, false, 0, b.rows, to->n_latent, b.keys, d, b.keys, to->latent + b.key0 * to->ld_latent, to->ld_latent, 0,
               to->d_latent + row0 * to->ld_d_latent, to->ld_d_latent);
  }
}

/* ---- activations --------------------------------------------------------------------------------------------------------- */

void qz_activate (EngActivation activation, const float *gate, const float *up, gsize n, float *out)
{
  memcpy (out, gate, sizeof (float) * n);
  eng_activate (activation, out, up, n);
}

/* With s the logistic of z: silu' = s + z s (1 - s). */
static void silu_backward (const float *gate, const float *up, const float *d_out, gsize n, float *d_gate, float *d_up)
{
  for (gsize i = 0; i < n; i++) {
    float z = gate[i], s = 1 / (1 + expf (-z)), d = d_out[i];
    if (up != NULL)
      d_up[i] = d * z * s;
    d_gate[i] = d * (up != NULL ? up[i] : 1) * (s + z * s * (1 - s));
  }
}

/* gelu = z F (z), F either 1/2 (1 + tanh u), u = root (2 / pi) (z + 0.044715 z^3), or the normal distribution's; gelu' = F + z F'. */
static void gelu_backward (gboolean exact, const float *gate, const float *up, const float *d_out, gsize n, float *d_gate, float *d_up)
{
  const float c = sqrtf (2 / (float) G_PI);
  for (gsize i = 0; i < n; i++) {
    float z = gate[i], d = d_out[i], share, slope;
    if (exact) {
      share = 0.5f * (1 + erff (z * (float) G_SQRT2 / 2));
      slope = expf (-0.5f * z * z) * 0.5f * c;
    } else {
      float t = tanhf (c * (z + 0.044715f * z * z * z));
      share = 0.5f * (1 + t);
      slope = 0.5f * (1 - t * t) * c * (1 + 3 * 0.044715f * z * z);
    }
    if (up != NULL)
      d_up[i] = d * z * share;
    d_gate[i] = d * (up != NULL ? up[i] : 1) * (share + z * slope);
  }
}

static void squared_relu_backward (const float *gate, const float *up, const float *d_out, gsize n, float *d_gate, float *d_up)
{
  for (gsize i = 0; i < n; i++) {
    float z = MAX (gate[i], 0), d = d_out[i];
    if (up != NULL)
      d_up[i] = d * z * z;
    d_gate[i] = 2 * d * z * (up != NULL ? up[i] : 1);
  }
}

/* gpt-oss's: g s (1.702 g) (u + 1) with g and u held within 7, s the logistic. */
static void clamped_backward (const float *gate, const float *up, const float *d_out, gsize n, float *d_gate, float *d_up)
{
  for (gsize i = 0; i < n; i++) {
    float g = MIN (gate[i], 7), s = 1 / (1 + expf (-1.702f * g)), d = d_out[i], factor = up != NULL ? CLAMP (up[i], -7, 7) + 1 : 1;
    if (up != NULL)
      d_up[i] = fabsf (up[i]) < 7 ? d * g * s : 0;
    d_gate[i] = gate[i] < 7 ? d * factor * (s + 1.702f * g * s * (1 - s)) : 0;
  }
}

void qz_activate_backward (EngActivation activation, const float *gate, const float *up, const float *d_out, gsize n, float *d_gate, float *d_up)
{
  switch (activation) {
  case ENG_ACTIVATION_SILU:
    silu_backward (gate, up, d_out, n, d_gate, d_up);
    break;
  case ENG_ACTIVATION_RELU_SQUARED:
    squared_relu_backward (gate, up, d_out, n, d_gate, d_up);
    break;
  case ENG_ACTIVATION_CLAMPED:
    clamped_backward (gate, up, d_out, n, d_gate, d_up);
    break;
  case ENG_ACTIVATION_GELU_TANH:
  case ENG_ACTIVATION_GELU:
    gelu_backward (activation == ENG_ACTIVATION_GELU, gate, up, d_out, n, d_gate, d_up);
    break;
  }
}

/* ---- routing ------------------------------------------------------------------------------------------------------------- */

/* w_i = c p_i / sum of the chosen p: d_p_i = c / sum (d_w_i - sum_j d_w_j p_j / sum); without that norm d_p_i = c d_w_i. Then d_score =
 * p (d_p - sum p d_p) of a softmax, over all or over the chosen ones, p (1 - p) d_p of logistic scores. */
void qz_route_backward (const EngTraits *t, const float *worths, const EngChoice *choices, const float *d_weight, float *d_scores)
{
  gboolean of_chosen = t->expert_score == ENG_EXPERT_SOFTMAX_CHOSEN, normed = t->expert_norm && !of_chosen;
  float sum = 0, dot = 0, total = 0, scale = t->expert_scale > 0 ? t->expert_scale : 1;
  for (guint i = 0; i < t->n_experts_used; i++) {
    sum += worths[choices[i].expert];
    dot += d_weight[i] * worths[choices[i].expert];
  }
  memset (d_scores, 0, sizeof (float) * t->n_experts);
  for (guint i = 0; i < t->n_experts_used; i++) {
    float p = of_chosen ? choices[i].weight / scale : worths[choices[i].expert];
    float d = (normed && sum > 0 ? 1 / sum : 1) * scale * (d_weight[i] - (normed && sum > 0 ? dot / sum : 0));
    d_scores[choices[i].expert] = p * d;
    total += p * d;
  }
  for (guint i = 0; of_chosen && i < t->n_experts_used; i++)
    d_scores[choices[i].expert] -= choices[i].weight / scale * total;
  for (guint e = 0; !of_chosen && e < t->n_experts; e++)
    d_scores[e] = t->expert_score == ENG_EXPERT_SIGMOID ? d_scores[e] * (1 - worths[e]) : d_scores[e] - worths[e] * total;
}
