/* test_layer_ops.c: each operation of a layer against its definition in double precision, and its backward against the slopes of that. */
#include "quantizer/layer_ops.h"
#include "quantizer/transform.h"

#include <math.h>
#include <string.h>

/* An operation from inputs x [n_in] to outputs y [n_out], as its definition says. */
typedef void (*Definition) (const double *x, double *y, gconstpointer data);

static double normal (guint64 *state)
{
  double u = qz_random_unit (state) + 1e-12, v = qz_random_unit (state);
  return sqrt (-2 * log (u)) * cos (2 * G_PI * v);
}

static float *random_floats (guint64 *state, gsize n, double scale, double offset)
{
  float *x = g_new (float, n);
  for (gsize i = 0; i < n; i++)
    x[i] = offset + scale * normal (state);
  return x;
}

/* y [n_out] is what the operation gives for x [n_in]; d_x what its backward gives for d_y. The slope of d_y . y along each input is taken
 * symmetrically in double. */
static void check (const char *what, Definition definition, gconstpointer data, const float *x, guint n_in, const float *y, guint n_out, const float *d_y,
                   const float *d_x)
{
  const double step = 1e-5;
  g_autofree double *in = g_new (double, n_in), *out = g_new (double, n_out), *up = g_new (double, n_out), *down = g_new (double, n_out);
  double largest = 0, worst = 0, slopes = 0, off = 0;
  for (guint i = 0; i < n_in; i++)
    in[i] = x[i];
  definition (in, out, data);
  for (guint i = 0; i < n_out; i++) {
    largest = MAX (largest, fabs (out[i]));
    worst = MAX (worst, fabs (out[i] - y[i]));
  }
  for (guint i = 0; i < n_in; i++) {
    double slope = 0, kept = in[i];
    in[i] = kept + step;
    definition (in, up, data);
    in[i] = kept - step;
    definition (in, down, data);
    in[i] = kept;
    for (guint j = 0; j < n_out; j++)
      slope += d_y[j] * (up[j] - down[j]) / (2 * step);
    slopes = MAX (slopes, fabs (slope));
    off = MAX (off, fabs (slope - d_x[i]));
  }
  g_test_message ("%s: forward within %.1e of %.1e, backward within %.1e of %.1e", what, worst, largest, off, slopes);
  g_assert_cmpfloat (slopes, >, 0);
  if (worst > 1e-5 * largest || off > 1e-5 * slopes)
    g_test_fail_printf ("%s: forward off by %g of %g, backward by %g of %g", what, worst, largest, off, slopes);
}

/* ---- norms --------------------------------------------------------------------------------------------------------------- */

typedef struct {
  QzNorm norm;
  guint n, cols;
} NormCase;

static void norm_definition (const double *x, double *y, gconstpointer data)
{
  const NormCase *c = data;
  for (guint i = 0; i < c->n; i++, x += c->cols, y += c->cols) {
    double mean = 0, squares = 0;
    for (guint j = 0; j < c->cols && c->norm.centred; j++)
      mean += x[j] / c->cols;
    for (guint j = 0; j < c->cols; j++)
      squares += (x[j] - mean) * (x[j] - mean) / c->cols;
    for (guint j = 0; j < c->cols; j++)
      y[j] = (x[j] - mean) / sqrt (squares + c->norm.eps) * (c->norm.gain != NULL ? c->norm.gain[j] : 1) + (c->norm.bias != NULL ? c->norm.bias[j] : 0);
  }
}

static void test_norm (void)
{
  enum { N = 3, COLS = 37 };
  guint64 state = 1;
  g_autofree float *gain = random_floats (&state, COLS, 0.3, 1), *bias = random_floats (&state, COLS, 0.3, 0);
  g_autofree float *x = random_floats (&state, N * COLS, 1, 0.4), *d_y = random_floats (&state, N * COLS, 1, 0);
  float y[N * COLS];
  for (guint variant = 0; variant < 6; variant++) {
    gboolean centred = variant & 1;
    NormCase c = { { variant < 4 ? gain : NULL, centred && variant >= 2 ? bias : NULL, centred, 0.01f }, N, COLS };
    float d_x[N * COLS] = { 0 };
    qz_norm (&c.norm, x, N, COLS, y);
    qz_norm_backward (&c.norm, x, d_y, N, COLS, d_x);
    check (centred ? "layer norm" : "RMS norm", norm_definition, &c, x, N * COLS, y, N * COLS, d_y, d_x);
  }
}

typedef struct {
  EngTraits traits;
  const float *gain;
} HeadNormCase;

enum { HEADS = 3, HEAD_DIM = 8 };

static void head_norm_definition (const double *x, double *y, gconstpointer data)
{
  const HeadNormCase *c = data;
  guint cols = c->traits.qk_norm == ENG_QK_NORM_WIDTH ? HEADS * HEAD_DIM : HEAD_DIM;
  for (guint h = 0; h < HEADS * HEAD_DIM / cols; h++) {
    const float *gain = c->gain + (c->traits.qk_norm == ENG_QK_NORM_HEADS ? h * cols : 0);
    NormCase one = { { gain, NULL, c->traits.layer_norm, c->traits.norm_eps }, 1, cols };
    norm_definition (x + h * cols, y + h * cols, &one);
  }
}

static void test_head_norm (void)
{
  guint64 state = 2;
  g_autofree float *gain = random_floats (&state, HEADS * HEAD_DIM, 0.3, 1);
  g_autofree float *x = random_floats (&state, HEADS * HEAD_DIM, 1, 0.2), *d_y = random_floats (&state, HEADS * HEAD_DIM, 1, 0);
  for (EngQkNorm kind = ENG_QK_NORM_HEAD; kind <= ENG_QK_NORM_WIDTH; kind++)
    for (gboolean layer_norm = FALSE; layer_norm <= TRUE; layer_norm++) {
      HeadNormCase c = { { .head_dim = HEAD_DIM, .norm_eps = 1e-3f, .qk_norm = kind, .layer_norm = layer_norm }, gain };
      float y[HEADS * HEAD_DIM], d_x[HEADS * HEAD_DIM] = { 0 };
      qz_head_norm (&c.traits, gain, HEADS, x, y);
      qz_head_norm_backward (&c.traits, gain, HEADS, x, d_y, d_x);
      check ("norm of heads", head_norm_definition, &c, x, HEADS * HEAD_DIM, y, HEADS * HEAD_DIM, d_y, d_x);
    }
}

/* ---- rope ---------------------------------------------------------------------------------------------------------------- */

typedef struct {
  EngTraits traits;
  const float *cos_sin;
} RopeCase;

static void rope_definition (const double *x, double *y, gconstpointer data)
{
  const RopeCase *c = data;
  guint half = c->traits.n_rot / 2;
  memcpy (y, x, sizeof (double) * HEADS * HEAD_DIM);
  for (guint h = 0; h < HEADS; h++)
    for (guint i = 0; i < half; i++) {
      guint a = h * HEAD_DIM + (c->traits.rope_halves ? i : 2 * i), b = c->traits.rope_halves ? a + half : a + 1;
      y[a] = x[a] * c->cos_sin[2 * i] - x[b] * c->cos_sin[2 * i + 1];
      y[b] = x[a] * c->cos_sin[2 * i + 1] + x[b] * c->cos_sin[2 * i];
    }
}

static void test_rope (void)
{
  guint64 state = 3;
  g_autofree float *cos_sin = random_floats (&state, HEAD_DIM, 1, 0); /* a magnitude for each pair as well */
  g_autofree float *x = random_floats (&state, HEADS * HEAD_DIM, 1, 0), *d_y = random_floats (&state, HEADS * HEAD_DIM, 1, 0);
  for (guint variant = 0; variant < 4; variant++) {
    RopeCase c = { { .head_dim = HEAD_DIM, .n_rot = variant & 1 ? HEAD_DIM : HEAD_DIM - 4, .rope_halves = variant >= 2 }, cos_sin };
    g_autofree float *y = g_memdup2 (x, sizeof (float) * HEADS * HEAD_DIM), *d_x = g_memdup2 (d_y, sizeof (float) * HEADS * HEAD_DIM);
    qz_rope (&c.traits, cos_sin, HEADS, FALSE, y);
    qz_rope (&c.traits, cos_sin, HEADS, TRUE, d_x);
    check (c.traits.rope_halves ? "rope of halves" : "rope of pairs", rope_definition, &c, x, HEADS * HEAD_DIM, y, HEADS * HEAD_DIM, d_y, d_x);
  }
}

/* ---- attention ----------------------------------------------------------------------------------------------------------- */

/* x is q and k [n][head_dim] and v [n][value_dim]. */
static void attend_definition (const double *x, double *y, gconstpointer data)
{
  const QzAttend *a = data;
  guint n = a->n, hd = a->head_dim, vd = a->value_dim;
  const double *q = x, *k = q + n * hd, *v = k + n * hd;
  g_autofree double *p = g_new (double, n);
  memset (y, 0, sizeof (double) * n * vd);
  for (guint i = 0; i < n; i++) {
    guint first = i + 1 > a->window ? i + 1 - a->window : 0;
    double sum = a->sink != NULL ? exp (*a->sink) : 0;
    for (guint j = first; j <= i; j++) {
      double score = 0;
      for (guint d = 0; d < hd; d++)
        score += a->scale * q[i * hd + d] * k[j * hd + d];
      p[j] = exp ((a->soft_cap > 0 ? a->soft_cap * tanh (score / a->soft_cap) : score) - a->slope * (i - j));
      sum += p[j];
    }
    for (guint j = first; j <= i; j++)
      for (guint d = 0; d < vd; d++)
        y[i * vd + d] += p[j] / sum * v[j * vd + d];
  }
}

/* Longer than the blocks that attention goes by, in rows that lie apart. */
static void test_attend (void)
{
  const float sink = 0.8f;
  const QzAttend cases[] = { { 5, 8, 8, 5, 0.4f },          { 103, 4, 4, 103, 0.5f },       { 103, 4, 6, 9, 0.5f, 0, 0, &sink }, { 103, 4, 4, 99, 0.7f, 1.5f },
                             { 7, 6, 3, 1, 1, 2, 0, &sink }, { 40, 5, 4, 40, 0.6f, 0, 0.3f }, { 103, 3, 7, 50, 0.6f, 1.2f, 0.05f, &sink } };
  enum { LD = 11 };
  guint64 state = 4;
  for (guint c = 0; c < G_N_ELEMENTS (cases); c++) {
    const QzAttend *a = &cases[c];
    guint n = a->n, hd = a->head_dim, vd = a->value_dim, all = n * (2 * hd + vd);
    g_autofree float *x = random_floats (&state, all, 1, 0), *d_y = random_floats (&state, n * vd, 1, 0);
    g_autofree float *apart = g_new0 (float, 3 * n * LD), *d_apart = g_new0 (float, 3 * n * LD);
    g_autofree float *scratch = g_new (float, qz_attend_scratch (a)), *y = g_new (float, n * vd), *d_x = g_new (float, all);
    for (guint i = 0; i < 3 * n; i++)
      memcpy (apart + i * LD, i < 2 * n ? x + i * hd : x + 2 * n * hd + (i - 2 * n) * vd, sizeof (float) * (i < 2 * n ? hd : vd));
    qz_attend (a, apart, LD, apart + n * LD, LD, apart + 2 * n * LD, LD, scratch, y, vd);
    /* With keys for the latent vectors, what is said of them is d_q. */
    g_autofree float *d_latent = g_new (float, n * hd);
    QzAttendGradient to = { d_apart, d_apart + n * LD, d_apart + 2 * n * LD, LD, LD, LD, apart + n * LD, hd, LD, hd, d_latent };
    qz_attend_backward (a, apart, LD, apart + n * LD, LD, apart + 2 * n * LD, LD, d_y, vd, scratch, &to);
    for (guint i = 0; i < n; i++)
      g_assert_cmpmem (d_latent + i * hd, sizeof (float) * hd, d_apart + i * LD, sizeof (float) * hd);
    for (guint i = 0; i < 3 * n; i++)
      memcpy (i < 2 * n ? d_x + i * hd : d_x + 2 * n * hd + (i - 2 * n) * vd, d_apart + i * LD, sizeof (float) * (i < 2 * n ? hd : vd));
    check ("attention", attend_definition, a, x, all, y, n * vd, d_y, d_x);
  }
}

static void clamp_definition (const double *x, double *y, gconstpointer data)
{
  for (guint i = 0; i < 200; i++)
    y[i] = CLAMP (x[i], -0.75, 0.75);
}

static void test_clamp (void)
{
  enum { N = 200 };
  guint64 state = 8;
  g_autofree float *x = random_floats (&state, N, 1, 0), *d_x = random_floats (&state, N, 1, 0);
  g_autofree float *y = g_memdup2 (x, sizeof (float) * N), *d_y = g_memdup2 (d_x, sizeof (float) * N);
  qz_clamp (y, N, 0.75f);
  qz_clamp_backward (y, N, 0.75f, d_x);
  check ("clamp", clamp_definition, NULL, x, N, y, N, d_y, d_x);
}

/* ---- activations --------------------------------------------------------------------------------------------------------- */

typedef struct {
  EngActivation activation;
  gboolean gated;
  guint n;
} ActivationCase;

static void activation_definition (const double *x, double *y, gconstpointer data)
{
  const ActivationCase *c = data;
  for (guint i = 0; i < c->n; i++) {
    double z = x[i], up = c->gated ? x[c->n + i] : 1;
    switch (c->activation) {
    case ENG_ACTIVATION_SILU:
      y[i] = z / (1 + exp (-z)) * up;
      break;
    case ENG_ACTIVATION_GELU_TANH:
      y[i] = z * 0.5 * (1 + tanh (sqrt (2 / G_PI) * (z + 0.044715 * z * z * z))) * up;
      break;
    case ENG_ACTIVATION_GELU:
      y[i] = z * 0.5 * (1 + erf (z / G_SQRT2)) * up;
      break;
    case ENG_ACTIVATION_RELU_SQUARED:
      y[i] = z > 0 ? z * z * up : 0;
      break;
    case ENG_ACTIVATION_CLAMPED:
      y[i] = MIN (z, 7) / (1 + exp (-1.702 * MIN (z, 7))) * (c->gated ? CLAMP (up, -7, 7) + 1 : 1);
      break;
    }
  }
}

static void test_activation (void)
{
  enum { N = 300 };
  guint64 state = 5;
  g_autofree float *x = random_floats (&state, 2 * N, 3.5, 0), *d_y = random_floats (&state, N, 1, 0);
  for (EngActivation activation = ENG_ACTIVATION_SILU; activation <= ENG_ACTIVATION_CLAMPED; activation++)
    for (gboolean gated = FALSE; gated <= TRUE; gated++) {
      ActivationCase c = { activation, gated, N };
      float y[N], d_x[2 * N];
      qz_activate (activation, x, gated ? x + N : NULL, N, y);
      memcpy (d_x, d_y, sizeof y); /* d_gate may be d_out */
      qz_activate_backward (activation, x, gated ? x + N : NULL, d_x, N, d_x, d_x + N);
      check ("activation", activation_definition, &c, x, gated ? 2 * N : N, y, N, d_y, d_x);
    }
}

/* ---- routing ------------------------------------------------------------------------------------------------------------- */

typedef struct {
  EngTraits traits;
  const EngChoice *choices;
} RouteCase;

enum { EXPERTS = 6, USED = 3, GROUPS = 3 };

static void route_definition (const double *x, double *y, gconstpointer data)
{
  const RouteCase *c = data;
  double p[EXPERTS], sum = 0, chosen = 0;
  for (guint e = 0; e < EXPERTS; e++)
    sum += p[e] = exp (x[e]);
  for (guint e = 0; e < EXPERTS; e++)
    p[e] = c->traits.expert_score == ENG_EXPERT_SIGMOID ? 1 / (1 + exp (-x[e])) : p[e] / sum;
  for (guint i = 0; i < USED; i++)
    chosen += p[c->choices[i].expert];
  for (guint i = 0; i < USED; i++)
    y[i] = p[c->choices[i].expert] / (c->traits.expert_norm || c->traits.expert_score == ENG_EXPERT_SOFTMAX_CHOSEN ? chosen : 1)
           * (c->traits.expert_scale > 0 ? c->traits.expert_scale : 1);
}

/* Every set of the right size is tried: the chosen one has the largest sum of corrected worths among those that stay within the best groups. */
static void check_choices (const RouteCase *c, const float *scores, const float *correction)
{
  double worth[EXPERTS], total = 0, best_of[GROUPS];
  guint allowed[EXPERTS];
  for (guint e = 0; e < EXPERTS; e++)
    total += exp (scores[e]);
  for (guint e = 0; e < EXPERTS; e++) {
    worth[e] = c->traits.expert_score == ENG_EXPERT_SIGMOID  ? 1 / (1 + exp (-scores[e]))
               : c->traits.expert_score == ENG_EXPERT_SOFTMAX ? exp (scores[e]) / total
                                                              : scores[e];
    worth[e] += correction != NULL ? correction[e] : 0;
  }
  for (guint g = 0; g < GROUPS; g++) /* of two experts each */
    best_of[g] = correction != NULL ? worth[2 * g] + worth[2 * g + 1] : MAX (worth[2 * g], worth[2 * g + 1]);
  for (guint e = 0; e < EXPERTS; e++) {
    guint better = 0;
    for (guint g = 0; g < GROUPS; g++)
      better += best_of[g] > best_of[e / 2];
    allowed[e] = c->traits.n_expert_groups == 0 || better < c->traits.n_expert_groups_used;
  }
  for (guint i = 0; i < USED; i++) {
    guint better = 0;
    for (guint e = 0; e < EXPERTS; e++)
      better += allowed[e] && worth[e] > worth[c->choices[i].expert];
    g_assert_true (allowed[c->choices[i].expert]);
    g_assert_cmpuint (better, ==, i);
  }
}

static void test_route (void)
{
  guint64 state = 6;
  for (guint variant = 0; variant < 48; variant++) {
    RouteCase c = { .traits = { .n_experts = EXPERTS, .n_experts_used = USED, .expert_score = variant % 3, .expert_norm = variant / 3 & 1,
                                .expert_scale = variant / 3 & 2 ? 2.5f : 0, .n_expert_groups = variant / 3 & 4 ? GROUPS : 0, .n_expert_groups_used = 2 } };
    g_autofree float *scores = random_floats (&state, EXPERTS, 1, 0), *worths = g_memdup2 (scores, sizeof (float) * EXPERTS);
    g_autofree float *d_weight = random_floats (&state, USED, 1, 0), *correction = random_floats (&state, EXPERTS, 0.3, 0);
    EngChoice choices[USED];
    float weights[USED], d_scores[EXPERTS], spare[2 * EXPERTS];
    gboolean corrected = variant / 3 & 8;
    eng_route (&c.traits, corrected ? correction : NULL, worths, spare, choices);
    c.choices = choices;
    check_choices (&c, scores, corrected ? correction : NULL);
    for (guint i = 0; i < USED; i++)
      weights[i] = choices[i].weight;
    qz_route_backward (&c.traits, worths, choices, d_weight, d_scores);
    check ("routing", route_definition, &c, scores, EXPERTS, weights, USED, d_weight, d_scores);
  }
}

int main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/layer-ops/norm", test_norm);
  g_test_add_func ("/layer-ops/norm-of-heads", test_head_norm);
  g_test_add_func ("/layer-ops/rope", test_rope);
  g_test_add_func ("/layer-ops/attention", test_attend);
  g_test_add_func ("/layer-ops/clamp", test_clamp);
  g_test_add_func ("/layer-ops/activations", test_activation);
  g_test_add_func ("/layer-ops/routing", test_route);
  return g_test_run ();
}
