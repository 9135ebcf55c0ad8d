/* test_layer.c: the float pass of a layer: its backward against finite differences, in both layouts of RoPE, with and without biases. */
#include "quantizer/layer.h"
#include "quantizer/transform.h"

#include <math.h>

enum { EMBD = 24, FF = 40, HEADS = 4, KV_HEADS = 2, HEAD_DIM = 8, SEQUENCES = 2, TOKENS = 5, N = SEQUENCES * TOKENS };

static float normal (guint64 *state)
{
  double u = qz_random_unit (state) + 1e-12, v = qz_random_unit (state);
  return sqrt (-2 * log (u)) * cos (2 * G_PI * v);
}

static float *random_floats (guint64 *state, gsize n, float scale, float offset)
{
  float *x = g_new (float, n);
  for (gsize i = 0; i < n; i++)
    x[i] = offset + scale * normal (state);
  return x;
}

typedef struct {
  EngTraits traits;
  QzLayerWeights weights;
  EngWorkers *workers;
  float *x, *direction; /* loss = direction . output */
} Case;

static void case_init (Case *c, gboolean halves, gboolean biases)
{
  guint64 state = 7;
  *c = (Case){ .traits = { .n_layers = 1, .n_embd = EMBD, .n_ff = FF, .n_heads = HEADS, .n_kv_heads = KV_HEADS, .head_dim = HEAD_DIM,
                           .n_rot = HEAD_DIM, .norm_eps = 1e-5f, .rope_theta = 100, .rope_scale = 1, .rope_halves = halves, .qkv_bias = biases } };
  guint q = HEADS * HEAD_DIM, kv = KV_HEADS * HEAD_DIM;
  c->weights = (QzLayerWeights){ .q = random_floats (&state, q * EMBD, 0.3f, 0),
                                 .k = random_floats (&state, kv * EMBD, 0.3f, 0),
                                 .v = random_floats (&state, kv * EMBD, 0.3f, 0),
                                 .output = random_floats (&state, EMBD * q, 0.3f, 0),
                                 .gate = random_floats (&state, FF * EMBD, 0.3f, 0),
                                 .up = random_floats (&state, FF * EMBD, 0.3f, 0),
                                 .down = random_floats (&state, EMBD * FF, 0.3f, 0),
                                 .attn_norm = random_floats (&state, EMBD, 0.2f, 1),
                                 .ffn_norm = random_floats (&state, EMBD, 0.2f, 1) };
  if (biases) {
    c->weights.q_bias = random_floats (&state, q, 0.3f, 0);
    c->weights.k_bias = random_floats (&state, kv, 0.3f, 0);
    c->weights.v_bias = random_floats (&state, kv, 0.3f, 0);
  }
  c->workers = eng_workers_new (2);
  c->x = random_floats (&state, N * EMBD, 1, 0);
  c->direction = random_floats (&state, N * EMBD, 1, 0);
}

static void case_clear (Case *c)
{
  float **all[] = { &c->weights.q, &c->weights.k, &c->weights.v, &c->weights.output, &c->weights.gate, &c->weights.up, &c->weights.down,
                    &c->weights.attn_norm, &c->weights.ffn_norm, &c->weights.q_bias, &c->weights.k_bias, &c->weights.v_bias, &c->x, &c->direction };
  for (guint i = 0; i < G_N_ELEMENTS (all); i++)
    g_clear_pointer (all[i], g_free);
  eng_workers_free (c->workers);
}

static double loss_of (Case *c)
{
  QzLayerPass pass;
  g_autofree float *x = g_memdup2 (c->x, sizeof (float) * N * EMBD);
  double loss = 0;
  qz_layer_pass_init (&pass, &c->traits, &c->weights, SEQUENCES, TOKENS, FALSE);
  qz_layer_forward (&c->traits, &c->weights, &pass, c->workers, x);
  for (guint i = 0; i < N * EMBD; i++)
    loss += (double) c->direction[i] * x[i];
  qz_layer_pass_clear (&pass);
  return loss;
}

static double slope (Case *c, float *parameter)
{
  const float step = 1e-2f;
  float kept = *parameter;
  *parameter = kept + step;
  double up = loss_of (c);
  *parameter = kept - step;
  double down = loss_of (c);
  *parameter = kept;
  return (up - down) / (2 * step);
}

static void assert_close (double measured, double expected, double scale)
{
  g_assert_cmpfloat (fabs (measured - expected), <=, 4e-3 * scale + 4e-3 * fabs (expected));
}

/* The gradient of a weight is the sum over tokens of g x: a check of each output gradient that the Fisher information is made of. */
static void check_weight (Case *c, float *weight, const float *g, const float *x, guint rows, guint cols)
{
  for (guint k = 0; k < 6; k++) {
    guint row = (k * 7 + 1) % rows, col = (k * 5 + 2) % cols;
    double sum = 0, scale = 0;
    for (guint i = 0; i < N; i++) {
      sum += g[i * rows + row] * x[i * cols + col];
      scale += fabs (g[i * rows + row] * x[i * cols + col]);
    }
    assert_close (slope (c, weight + row * cols + col), sum, scale);
  }
}

static void test_backward (gconstpointer data)
{
  guint variant = GPOINTER_TO_UINT (data);
  Case c;
  QzLayerPass pass;
  case_init (&c, variant & 1, variant & 2);
  qz_layer_pass_init (&pass, &c.traits, &c.weights, SEQUENCES, TOKENS, TRUE);
  g_autofree float *x = g_memdup2 (c.x, sizeof (float) * N * EMBD);
  g_autofree float *dx = g_memdup2 (c.direction, sizeof (float) * N * EMBD);
  qz_layer_forward (&c.traits, &c.weights, &pass, c.workers, x);
  qz_layer_backward (&c.traits, &c.weights, &pass, c.workers, c.x, dx);
  for (guint i = 0; i < N * EMBD; i += 11)
    assert_close (slope (&c, &c.x[i]), dx[i], 1);
  guint q = HEADS * HEAD_DIM, kv = KV_HEADS * HEAD_DIM;
  check_weight (&c, c.weights.q, pass.d_q, pass.attn_in, q, EMBD);
  check_weight (&c, c.weights.k, pass.d_k, pass.attn_in, kv, EMBD);
  check_weight (&c, c.weights.v, pass.d_v, pass.attn_in, kv, EMBD);
  check_weight (&c, c.weights.output, pass.d_middle, pass.attn_out, EMBD, q);
  check_weight (&c, c.weights.gate, pass.d_gate, pass.ffn_in, FF, EMBD);
  check_weight (&c, c.weights.up, pass.d_up, pass.ffn_in, FF, EMBD);
  check_weight (&c, c.weights.down, c.direction, pass.down_in, EMBD, FF);
  qz_layer_pass_clear (&pass);
  case_clear (&c);
}

/* What one sequence holds changes nothing in another, and no token sees a later one. */
static void test_causal (void)
{
  Case c;
  QzLayerPass pass;
  case_init (&c, FALSE, FALSE);
  qz_layer_pass_init (&pass, &c.traits, &c.weights, SEQUENCES, TOKENS, FALSE);
  g_autofree float *before = g_memdup2 (c.x, sizeof (float) * N * EMBD);
  g_autofree float *after = g_memdup2 (c.x, sizeof (float) * N * EMBD);
  guint changed = 3; /* of the first sequence */
  after[changed * EMBD] += 1;
  qz_layer_forward (&c.traits, &c.weights, &pass, c.workers, before);
  qz_layer_forward (&c.traits, &c.weights, &pass, c.workers, after);
  for (guint i = 0; i < N; i++)
    for (guint j = 0; j < EMBD; j++)
      if (i < changed || i >= TOKENS)
        g_assert_cmpfloat (before[i * EMBD + j], ==, after[i * EMBD + j]);
  g_assert_cmpfloat (before[4 * EMBD], !=, after[4 * EMBD]);
  qz_layer_pass_clear (&pass);
  case_clear (&c);
}

int main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_data_func ("/layer/backward-is-the-slope/pairs", GUINT_TO_POINTER (0), test_backward);
  g_test_add_data_func ("/layer/backward-is-the-slope/halves", GUINT_TO_POINTER (1), test_backward);
  g_test_add_data_func ("/layer/backward-is-the-slope/biases", GUINT_TO_POINTER (2), test_backward);
  g_test_add_func ("/layer/causal-and-apart", test_causal);
  return g_test_run ();
}
