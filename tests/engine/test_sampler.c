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

/* Which of n <= 8 tokens are drawn at all, as bits. */
static guint drawn_set (EngSamplerOptions options, const float *logits, guint n, const gint32 *recent, guint n_recent)
{
  g_autoptr (EngSampler) sampler = eng_sampler_new (&options, n);
  guint set = 0;
  for (guint i = 0; i < 2000; i++) {
    float copy[8];
    memcpy (copy, logits, n * sizeof (float));
    set |= 1u << eng_sampler_sample (sampler, copy, recent, n_recent);
  }
  return set;
}

static void test_frequency (void)
{
  const gint32 recent[] = { 0, 9999, 0 };
  const float logits[] = { 3, 2.5f };
  g_assert_cmpuint (drawn_set ((EngSamplerOptions){ 0, 0, 1, 0, 1, 64, 1, .frequency_penalty = 0.2f }, logits, 2, recent, 3), ==, 1);
  g_assert_cmpuint (drawn_set ((EngSamplerOptions){ 0, 0, 1, 0, 1, 64, 1, .frequency_penalty = 0.3f }, logits, 2, recent, 3), ==, 2);
  g_assert_cmpuint (drawn_set ((EngSamplerOptions){ 0, 0, 1, 0, 1, 1, 1, .frequency_penalty = 0.3f }, logits, 2, recent, 3), ==, 1);
  g_assert_cmpuint (drawn_set ((EngSamplerOptions){ 0, 0, 1, 0, 1, 64, 1, .presence_penalty = 0.4f }, logits, 2, recent, 3), ==, 1);
  g_assert_cmpuint (drawn_set ((EngSamplerOptions){ 0, 0, 1, 0, 1, 64, 1, .presence_penalty = 0.6f }, logits, 2, recent, 3), ==, 2);
}

/* After "0 1 2 3 0 1 2" a 3 would make the repetition four long: three are there, two are allowed, so it loses 1.75. */
static void test_dry (void)
{
  const gint32 recent[] = { 4, 0, 1, 2, 3, 0, 1, 2 };
  const guint8 breakers[8] = { 0, 1 };
  const float clear[8] = { 0, 0, 0, 2, 0, 0.2f }, close[8] = { 0, 0, 0, 2, 0, 0.3f };
  EngSamplerOptions o = { 0, 0, 1, 0, 1, 64, 1, .dry_multiplier = 1 };
  g_assert_cmpuint (drawn_set (o, clear, 8, recent, 8), ==, 1 << 3);
  g_assert_cmpuint (drawn_set (o, close, 8, recent, 8), ==, 1 << 5);
  o.dry_last_n = 6;
  g_assert_cmpuint (drawn_set (o, close, 8, recent, 8), ==, 1 << 3);
  o.dry_last_n = 0;
  o.dry_allowed_length = 4;
  g_assert_cmpuint (drawn_set (o, close, 8, recent, 8), ==, 1 << 3);
  o.dry_allowed_length = 0;
  o.dry_breakers = breakers;
  g_assert_cmpuint (drawn_set (o, close, 8, recent, 8), ==, 1 << 3);
  /* The longest of several counts, and a run repeats itself: "5 5 5 5" has three before a fifth. */
  const gint32 run[] = { 5, 5, 5, 5 };
  const float behind[8] = { 0.3f, 0, 0, 0, 0, 2 }, ahead[8] = { 0.2f, 0, 0, 0, 0, 2 };
  o.dry_breakers = NULL;
  g_assert_cmpuint (drawn_set (o, behind, 8, run, 4), ==, 1);
  g_assert_cmpuint (drawn_set (o, ahead, 8, run, 4), ==, 1 << 5);
}

/* Logits 0 to 7 deviate by 2.29 from their mean: 7 - 2.29 lets 5, 6 and 7 through. */
static void test_sigma (void)
{
  const float logits[] = { 0, 1, 2, 3, 4, 5, 6, 7 };
  g_assert_cmpuint (drawn_set ((EngSamplerOptions){ 4, 0, 1, 0, 1, 64, 1, .top_n_sigma = 1 }, logits, 8, NULL, 0), ==, 0xE0);
  g_assert_cmpuint (drawn_set ((EngSamplerOptions){ 4, 0, 1, 0, 1, 64, 1, .top_n_sigma = 0.1f }, logits, 8, NULL, 0), ==, 0x80);
}

/* Halves: the entropy is 1.75 bits, so the quarter is the most typical, then the half, then the eighths. */
static void test_typical (void)
{
  const float ln2 = (float)G_LN2, logits[] = { -ln2, -2 * ln2, -3 * ln2, -3 * ln2 };
  g_assert_cmpuint (drawn_set ((EngSamplerOptions){ 1, 0, 1, 0, 1, 64, 1, .typical_p = 0.2f }, logits, 4, NULL, 0), ==, 2);
  g_assert_cmpuint (drawn_set ((EngSamplerOptions){ 1, 0, 1, 0, 1, 64, 1, .typical_p = 0.5f }, logits, 4, NULL, 0), ==, 3);
  g_assert_cmpuint (drawn_set ((EngSamplerOptions){ 1, 0, 1, 0, 1, 64, 1, .typical_p = 0.8f }, logits, 4, NULL, 0), ==, 7);
  g_assert_cmpuint (drawn_set ((EngSamplerOptions){ 1, 0, 1, 0, 1, 64, 1, .typical_p = 1 }, logits, 4, NULL, 0), ==, 15);
  /* What is cut first is gone for min-p too: the half, which would bar the eighths, is not there to bar the quarter. */
  g_assert_cmpuint (drawn_set ((EngSamplerOptions){ 1, 0, 1, 0.9f, 1, 64, 1, .typical_p = 0.2f }, logits, 4, NULL, 0), ==, 2);
}

static void test_xtc (void)
{
  const float logits[] = { logf (0.4f), logf (0.3f), logf (0.2f), logf (0.1f) };
  EngSamplerOptions o = { 1, 0, 1, 0, 1, 64, 1, .xtc_probability = 1, .xtc_threshold = 0.15f };
  g_assert_cmpuint (drawn_set (o, logits, 4, NULL, 0), ==, 12);
  o.xtc_threshold = 0.35f;
  g_assert_cmpuint (drawn_set (o, logits, 4, NULL, 0), ==, 15);
  o.xtc_threshold = 0.15f;
  o.xtc_probability = 0.5f;
  g_assert_cmpuint (drawn_set (o, logits, 4, NULL, 0), ==, 15);
}

/* Two candidates of probabilities 0.9 and 0.1: temperature is 0.1 + 1.8 x the square of their share of the most entropy. */
static void test_dynamic (void)
{
  EngSamplerOptions options = { 1, 0, 1, 0, 1, 64, 5, .dynamic_range = 0.9f, .dynamic_exponent = 2 };
  g_autoptr (EngSampler) sampler = eng_sampler_new (&options, 2);
  double h = -(0.9 * log (0.9) + 0.1 * log (0.1)) / G_LN2, temperature = 0.1 + 1.8 * h * h, share = 1 / (1 + pow (9, 1 / temperature));
  guint second = 0;
  for (guint i = 0; i < 4000; i++) {
    float logits[] = { logf (0.9f), logf (0.1f) };
    second += eng_sampler_sample (sampler, logits, NULL, 0) == 1;
  }
  g_assert_cmpfloat (fabs (second / 4000.0 - share), <, 4 * sqrt (share * (1 - share) / 4000));
}

/* Version 2 on logits that fall by 0.01 a rank, nearly flat: a surprise of tau bits is one in 2^tau. Version 1 takes the law of Zipf for
 * granted, so it gets it: the k likeliest of exponent 1.1. */
static double mirostat_mean_rank (int version, float tau)
{
  EngSamplerOptions options = { 1, 0, 1, 0, 1, 64, 9, .mirostat = version, .mirostat_tau = tau, .mirostat_eta = 0.01f };
  g_autoptr (EngSampler) sampler = eng_sampler_new (&options, N);
  double sum = 0;
  for (guint draw = 0; draw < 2500; draw++) {
    float logits[N];
    fill (logits, 0.01f);
    for (guint i = 0; version == 1 && i < N; i++)
      logits[i] = -1.1f * logf (rank_of (i) + 1);
    guint rank = rank_of (eng_sampler_sample (sampler, logits, NULL, 0));
    sum += draw >= 1000 ? rank : 0;
  }
  return sum / 1500;
}

/* The mean rank among the k likeliest under the law of Zipf, where their entropy is tau bits. */
static double zipf_mean_rank (double tau)
{
  double sum = 0, weighted = 0, logs = 0;
  for (guint k = 1; k <= N; k++) {
    double p = pow (k, -1.1);
    sum += p;
    weighted += p * (k - 1);
    logs += p * 1.1 * log (k);
    if ((log (sum) + logs / sum) / G_LN2 >= tau)
      return weighted / sum;
  }
  return N;
}

static void test_mirostat (void)
{
  const double flat2 = mirostat_mean_rank (2, 2), flat5 = mirostat_mean_rank (2, 5), zipf2 = mirostat_mean_rank (1, 2),
               zipf5 = mirostat_mean_rank (1, 5);
  g_test_message ("mean ranks %.1f and %.1f; %.1f and %.1f, by the law %.1f and %.1f", flat2, flat5, zipf2, zipf5, zipf_mean_rank (2),
                  zipf_mean_rank (5));
  g_assert_cmpfloat (fabs (flat2 - 1.5), <, 0.5);
  g_assert_cmpfloat (fabs (flat5 - 15.5), <, 3);
  g_assert_cmpfloat (fabs (zipf2 / zipf_mean_rank (2) - 1), <, 0.4);
  g_assert_cmpfloat (fabs (zipf5 / zipf_mean_rank (5) - 1), <, 0.4);
}

static void test_bias (void)
{
  const EngLogitBias never[] = { { 1, -INFINITY }, { 99, 5 } }, always[] = { { 2, 100 } };
  const float logits[] = { 0, 9, 0 };
  g_assert_cmpuint (drawn_set ((EngSamplerOptions){ 1, 0, 1, 0, 1, 64, 1, .biases = never, .n_biases = 2 }, logits, 3, NULL, 0), ==, 5);
  g_assert_cmpuint (drawn_set ((EngSamplerOptions){ 1, 0, 1, 0, 1, 64, 1, .biases = always, .n_biases = 1 }, logits, 3, NULL, 0), ==, 4);
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
  g_test_add_func ("/sampler/frequency-and-presence", test_frequency);
  g_test_add_func ("/sampler/dry-ends-repetitions", test_dry);
  g_test_add_func ("/sampler/top-n-sigma", test_sigma);
  g_test_add_func ("/sampler/typical-keeps-what-surprises-as-expected", test_typical);
  g_test_add_func ("/sampler/xtc-leaves-the-least-of-the-likely", test_xtc);
  g_test_add_func ("/sampler/temperature-follows-entropy", test_dynamic);
  g_test_add_func ("/sampler/mirostat-keeps-to-its-surprise", test_mirostat);
  g_test_add_func ("/sampler/bias-is-added", test_bias);
  g_test_add_func ("/sampler/damaged-logits-are-never-drawn", test_damaged);
  return g_test_run ();
}
