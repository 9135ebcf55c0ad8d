/* test_sampler.c: what may be drawn, how often, and that a seed decides. */
#include "engine/sampler.h"

#include <math.h>
#include <string.h>

enum { N = 3000 };

/* Distinct values in no order: token i has rank (i * 1777) mod N, the logit falls with the rank. */
static guint rank_of (guint token)
{
  return token * 1777 % N;
}

static void fill (float *logits, float slope)
{
  for (guint i = 0; i < N; i++)
    logits[i] = 5 - slope * rank_of (i);
}

static guint draw_worst_rank (EngSamplerOptions options, float slope, guint draws)
{
  g_autoptr (EngSampler) sampler = eng_sampler_new (&options, N);
  float logits[N];
  guint worst = 0;
  for (guint i = 0; i < draws; i++) {
    fill (logits, slope);
    int token = eng_sampler_sample (sampler, logits, NULL, 0);
    g_assert_cmpint (token, >=, 0);
    worst = MAX (worst, rank_of (token));
  }
  return worst;
}

static void test_greedy (void)
{
  g_assert_cmpuint (draw_worst_rank ((EngSamplerOptions){ 0, 40, 0.95f, 0.05f, 1, 64, 1 }, 0.001f, 5), ==, 0);
  g_assert_cmpuint (draw_worst_rank ((EngSamplerOptions){ NAN, 40, 0.95f, 0.05f, 1, 64, 1 }, 0.001f, 5), ==, 0);
  g_assert_cmpuint (draw_worst_rank ((EngSamplerOptions){ 1, 1, 1, 0, 1, 64, 1 }, 0.001f, 5), ==, 0);
}

static void test_top_k (void)
{
  guint worst = draw_worst_rank ((EngSamplerOptions){ 1, 40, 1, 0, 1, 64, 7 }, 0, 3000);
  g_assert_cmpuint (worst, >, 0);
  worst = draw_worst_rank ((EngSamplerOptions){ 1, 40, 1, 0, 1, 64, 7 }, 0.001f, 3000);
  g_assert_cmpuint (worst, ==, 39);
  worst = draw_worst_rank ((EngSamplerOptions){ 1, 2500, 1, 0, 1, 64, 7 }, 1e-5f, 3000);
  g_assert_cmpuint (worst, <, 2500);
  g_assert_cmpuint (worst, >, 2400);
}

/* p falls by e^-0.1 a rank: cumulative 1 - e^-0.1n reaches 0.9 at rank 23.03, so 24 candidates survive. */
static void test_top_p (void)
{
  g_assert_cmpuint (draw_worst_rank ((EngSamplerOptions){ 1, 0, 0.9f, 0, 1, 64, 3 }, 0.1f, 3000), ==, 23);
  g_assert_cmpuint (draw_worst_rank ((EngSamplerOptions){ 1, 0, 0, 0, 1, 64, 3 }, 0.1f, 100), ==, 0);
}

/* e^-0.1n >= 0.2 up to n = 16.09. Temperature comes after the cut and does not move it. */
static void test_min_p (void)
{
  g_assert_cmpuint (draw_worst_rank ((EngSamplerOptions){ 1, 0, 1, 0.2f, 1, 64, 3 }, 0.1f, 3000), ==, 16);
  g_assert_cmpuint (draw_worst_rank ((EngSamplerOptions){ 3, 0, 1, 0.2f, 1, 64, 3 }, 0.1f, 3000), ==, 16);
}

/* Pearson's chi square of 40,000 draws from 8 tokens: 7 degrees of freedom, 0.001 quantile 24.3. */
static void test_distribution (void)
{
  EngSamplerOptions options = { 0.5f, 0, 1, 0, 1, 64, 11 };
  g_autoptr (EngSampler) sampler = eng_sampler_new (&options, 8);
  double expected[8], sum = 0, chi = 0;
  guint counts[8] = { 0 };
  for (guint i = 0; i < 8; i++)
    sum += expected[i] = exp (0.2 * i / 0.5);
  for (guint draw = 0; draw < 40000; draw++) {
    float logits[8];
    for (guint i = 0; i < 8; i++)
      logits[i] = 0.2f * i;
    counts[eng_sampler_sample (sampler, logits, NULL, 0)]++;
  }
  for (guint i = 0; i < 8; i++) {
    double mean = 40000 * expected[i] / sum;
    chi += (counts[i] - mean) * (counts[i] - mean) / mean;
  }
  g_assert_cmpfloat (chi, <, 24.3);
}

static void test_seed (void)
{
  int drawn[3][50];
  for (guint run = 0; run < 3; run++) {
    EngSamplerOptions options = { 1, 0, 1, 0, 1, 64, run < 2 ? 42 : 43 };
    g_autoptr (EngSampler) sampler = eng_sampler_new (&options, N);
    for (guint i = 0; i < 50; i++) {
      float logits[N];
      fill (logits, 0.001f);
      drawn[run][i] = eng_sampler_sample (sampler, logits, NULL, 0);
    }
  }
  g_assert_cmpmem (drawn[0], sizeof drawn[0], drawn[1], sizeof drawn[1]);
  g_assert_cmpint (memcmp (drawn[0], drawn[2], sizeof drawn[0]), !=, 0);
}

static void test_penalty (void)
{
  EngSamplerOptions options = { 0, 0, 1, 0, 2, 3, 1 };
  g_autoptr (EngSampler) sampler = eng_sampler_new (&options, 4);
  /* Token 0 leads but was seen (twice: penalised once); token 3 is outside the window. */
  gint32 recent[] = { 3, 0, 9999, 0 };
  float logits[] = { 3, 1.6f, -1, 1.4f };
  g_assert_cmpint (eng_sampler_sample (sampler, logits, recent, 4), ==, 1);
  float mild[] = { 3, 1.4f, -1, 1 };
  g_assert_cmpint (eng_sampler_sample (sampler, mild, recent, 4), ==, 0);
  /* Negative logits fall as well. */
  float negative[] = { -1, -1.5f, -9, -9 };
  g_assert_cmpint (eng_sampler_sample (sampler, negative, recent, 4), ==, 1);
}

static void test_damaged (void)
{
  EngSamplerOptions kinds[] = { { 0, 40, 0.95f, 0.05f, 1, 64, 1 }, { 1, 40, 0.95f, 0.05f, 1.1f, 64, 1 }, { 1, 0, 1, 0, 1, 64, 1 } };
  for (guint k = 0; k < G_N_ELEMENTS (kinds); k++) {
    g_autoptr (EngSampler) sampler = eng_sampler_new (&kinds[k], 4);
    float some[] = { NAN, 1, NAN, -INFINITY }, none[] = { NAN, NAN, -INFINITY, NAN }, infinite[] = { 1, 2, INFINITY, NAN };
    g_assert_cmpint (eng_sampler_sample (sampler, some, NULL, 0), ==, 1);
    g_assert_cmpint (eng_sampler_sample (sampler, none, NULL, 0), ==, -1);
    g_assert_cmpint (eng_sampler_sample (sampler, infinite, NULL, 0), ==, 2);
  }
}

int main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/sampler/greedy-takes-the-best", test_greedy);
  g_test_add_func ("/sampler/top-k-keeps-k", test_top_k);
  g_test_add_func ("/sampler/top-p-keeps-the-smallest-set", test_top_p);
  g_test_add_func ("/sampler/min-p-keeps-what-is-likely-enough", test_min_p);
  g_test_add_func ("/sampler/draws-follow-the-probabilities", test_distribution);
  g_test_add_func ("/sampler/seed-decides", test_seed);
  g_test_add_func ("/sampler/penalty-counts-a-token-once", test_penalty);
  g_test_add_func ("/sampler/damaged-logits-are-never-drawn", test_damaged);
  return g_test_run ();
}
