/* test_kv_cache.c: what a cache of 4 bits keeps of keys that have most of themselves in common, as large biases make them. */
#include "engine/kv_cache.h"

#include <math.h>
#include <string.h>

enum { DIM = 64, N = 70 };

/* The largest error of attention out of a cache of 4 bits, against doubles; known: the cache is told the bias. */
static double error_of (const float *bias, gboolean known, guint seed)
{
  g_autoptr (GRand) rand = g_rand_new_with_seed (seed);
  EngTraits traits = { .n_layers = 1, .n_heads = 1, .n_kv_heads = 1, .head_dim = DIM, .value_dim = DIM, .n_ctx_train = 128 };
  EngSessionOptions options = { .n_ctx = 96, .kv_bits = 4 };
  static float keys[N][DIM], values[N][DIM];
  float first_keys[DIM], q[DIM], turned[DIM], out[DIM];
  g_autoptr (GError) failure = NULL;
  EngKvPool pool;
  EngKvSequence sequence;
  g_assert_true (eng_kv_pool_init (&pool, &traits, &options, &failure));
  memcpy (first_keys, bias, sizeof first_keys);
  xb_hadamard (first_keys, DIM, pool.hadamard);
  pool.first_keys = known ? first_keys : NULL;
  eng_kv_sequence_init (&sequence, &pool, options.n_ctx);
  eng_kv_sequence_extend (&sequence, 0, N);
  for (guint t = 0; t < N; t++) {
    float key[DIM], value[DIM];
    for (guint i = 0; i < DIM; i++) {
      keys[t][i] = (float) g_rand_double_range (rand, -1, 1) + bias[i];
      values[t][i] = (float) g_rand_double_range (rand, -1, 1);
    }
    memcpy (key, keys[t], sizeof key);
    memcpy (value, values[t], sizeof value);
    eng_kv_store (&sequence, 0, 0, t, key, value);
  }
  for (guint i = 0; i < DIM; i++)
    turned[i] = q[i] = (float) g_rand_double_range (rand, -1, 1) * (fabsf (bias[i]) > 1 ? 0.02f : 1); /* a model's queries are small where its biases are large */
  xb_hadamard (turned, DIM, pool.hadamard);
  xb_attention attention = { .kv_end = N, .scale = 1 / sqrtf (DIM) };
  eng_kv_view (&sequence, 0, 0, &attention);
  xb_attend (&attention, turned, DIM, DIM, 1, 1, out, DIM, DIM);
  xb_hadamard (out, DIM, pool.hadamard);
  double exact[DIM] = { 0 }, scores[N], sum = 0, peak = -INFINITY, worst = 0;
  for (guint t = 0; t < N; t++) {
    scores[t] = 0;
    for (guint i = 0; i < DIM; i++)
      scores[t] += (double) q[i] * keys[t][i] / sqrt (DIM);
    peak = MAX (peak, scores[t]);
  }
  for (guint t = 0; t < N; t++)
    sum += scores[t] = exp (scores[t] - peak);
  for (guint t = 0; t < N; t++)
    for (guint i = 0; i < DIM; i++)
      exact[i] += scores[t] / sum * values[t][i];
  for (guint i = 0; i < DIM; i++)
    worst = MAX (worst, fabs (out[i] - exact[i]));
  eng_kv_sequence_clear (&sequence);
  eng_kv_pool_clear (&pool);
  return worst;
}

/* With what all keys have in common known, its size costs nothing; without, it does: the check can fail. */
static void test_biases (void)
{
  float none[DIM] = { 0 }, large[DIM] = { 0 };
  double plain = 0, known = 0, unknown = 0;
  large[31] = 90;
  large[63] = -70;
  for (guint seed = 1; seed <= 5; seed++) {
    plain += error_of (none, TRUE, seed);
    known += error_of (large, TRUE, seed);
    unknown += error_of (large, FALSE, seed);
  }
  g_test_message ("errors without biases %.4f, with them known %.4f, unknown %.4f", plain, known, unknown);
  g_assert_cmpfloat (known, <, plain * 1.5);
  g_assert_cmpfloat (unknown, >, known * 1.5);
}

int main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/kv-cache/large-biases-of-keys-cost-nothing", test_biases);
  return g_test_run ();
}
