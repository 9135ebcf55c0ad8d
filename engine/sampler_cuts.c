/* sampler_cuts.c: cuts that look at the spread of the candidates: top-n-sigma, locally typical, XTC; temperature that follows their
 * entropy; and mirostat, which steers the surprise of what is drawn. */
#include "engine/sampler_private.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* The sum of exp (logit - that of the first) over falling candidates. */
static double total (const EngCandidate *c, guint n)
{
  double sum = 0;
  for (guint i = 0; i < n; i++)
    sum += exp ((double)c[i].logit - c[0].logit);
  return sum;
}

/* In nats, of falling candidates whose total is known. */
static double surprise (const EngCandidate *c, guint i, double sum)
{
  return log (sum) - ((double)c[i].logit - c[0].logit);
}

static double entropy (const EngCandidate *c, guint n, double sum)
{
  double h = 0;
  for (guint i = 0; i < n; i++)
    h += exp (-surprise (c, i, sum)) * surprise (c, i, sum);
  return h;
}

/* Tang et al. 2024, Top-nσ. The deviation is that of all logits but those that are impossible. */
guint eng_sampler_cut_sigma (EngSampler *sampler, guint n, const float *logits, float max)
{
  double sum = 0, squares = 0, mean;
  guint possible = 0, kept = 0;
  for (guint i = 0; i < sampler->n_vocab; i++)
    if (logits[i] > -INFINITY) {
      sum += logits[i];
      possible++;
    }
  mean = sum / MAX (possible, 1);
  for (guint i = 0; i < sampler->n_vocab; i++)
    if (logits[i] > -INFINITY)
      squares += (logits[i] - mean) * (logits[i] - mean);
  float floor = (float)(max - sampler->options.top_n_sigma * sqrt (squares / MAX (possible, 1)));
  for (guint i = 0; i < n; i++)
    if (sampler->candidates[i].logit >= floor)
      sampler->candidates[kept++] = sampler->candidates[i];
  return kept;
}

/* Meister et al. 2022: those whose surprise is nearest to the entropy come first, until they hold typical_p. Nearest to the entropy, they
 * lie on both sides of it, and falling candidates keep them together: the set grows at whichever end is nearer. */
guint eng_sampler_cut_typical (EngSampler *sampler, guint n, float *max)
{
  EngCandidate *c = sampler->candidates;
  n = eng_sampler_keep_best (sampler, n, n);
  double sum = total (c, n), h = entropy (c, n, sum), held = 0;
  guint end = 0;
  while (end < n && surprise (c, end, sum) <= h)
    end++;
  guint begin = end;
  while (held <= sampler->options.typical_p && (begin > 0 || end < n)) {
    gboolean upwards = end == n || (begin > 0 && h - surprise (c, begin - 1, sum) <= surprise (c, end, sum) - h);
    guint taken = upwards ? --begin : end++;
    held += exp (-surprise (c, taken, sum));
  }
  memmove (c, c + begin, (end - begin) * sizeof *c);
  *max = c[0].logit;
  return end - begin;
}

/* Exclude top choices: all that reach the threshold but the last of them. */
guint eng_sampler_cut_top (EngSampler *sampler, guint n)
{
  const EngSamplerOptions *o = &sampler->options;
  EngCandidate *c = sampler->candidates;
  guint above = 0;
  if (o->xtc_threshold > 0.5f || n < 2 || eng_sampler_uniform (sampler) > o->xtc_probability)
    return n;
  n = eng_sampler_keep_best (sampler, n, n);
  double sum = total (c, n);
  while (above < n && exp (-surprise (c, above, sum)) >= o->xtc_threshold)
    above++;
  if (above < 2)
    return n;
  memmove (c, c + above - 1, (n - above + 1) * sizeof *c);
  return n - above + 1;
}

float eng_sampler_temperature (const EngSampler *sampler, guint n)
{
  const EngSamplerOptions *o = &sampler->options;
  const EngCandidate *c = sampler->candidates;
  double sum = 0, h = 0;
  float max = -INFINITY;
  if (!(o->dynamic_range > 0) || n < 2)
    return o->temperature;
  for (guint i = 0; i < n; i++)
    max = MAX (max, c[i].logit);
  for (guint i = 0; i < n; i++)
    sum += exp ((double)c[i].logit - max);
  for (guint i = 0; i < n; i++) {
    double p = exp ((double)c[i].logit - max) / sum;
    h -= p > 0 ? p * log (p) : 0;
  }
  float low = MAX (0, o->temperature - o->dynamic_range), high = o->temperature + o->dynamic_range;
  return MAX (1e-3f, low + (high - low) * powf ((float)(h / log (n)), o->dynamic_exponent));
}

/* ---- mirostat (Basu et al. 2021) ----------------------------------------------------------------------------------------- */

/* How many candidates hold the surprise at mu, from the Zipf exponent of the first hundred. */
static guint mirostat_k (const EngSampler *sampler, guint n)
{
  const EngCandidate *c = sampler->candidates;
  double products = 0, squares = 0;
  for (guint i = 0; i < 99 && i + 1 < n; i++) {
    double t = log ((i + 2.0) / (i + 1.0));
    products += t * ((double)c[i].logit - c[i + 1].logit);
    squares += t * t;
  }
  double s = squares > 0 ? products / squares : 1, epsilon = s - 1;
  double k = pow (epsilon * pow (2, sampler->mirostat_mu) / (1 - pow (sampler->n_vocab, -epsilon)), 1 / s);
  return k >= 1 ? (guint)MIN (k, n) : 1;
}

/* Those whose surprise is at most mu. */
static guint mirostat_within (const EngSampler *sampler, guint n)
{
  double sum = total (sampler->candidates, n);
  guint kept = 0;
  while (kept < n && surprise (sampler->candidates, kept, sum) / G_LN2 <= sampler->mirostat_mu)
    kept++;
  return MAX (kept, 1);
}

int eng_sampler_mirostat (EngSampler *sampler, guint n)
{
  const EngSamplerOptions *o = &sampler->options;
  n = eng_sampler_keep_best (sampler, n, n);
  for (guint i = 0; i < n; i++)
    sampler->candidates[i].logit /= o->temperature;
  n = o->mirostat == 1 ? mirostat_k (sampler, n) : mirostat_within (sampler, n);
  guint drawn = eng_sampler_draw (sampler, n, 1);
  double bits = surprise (sampler->candidates, drawn, total (sampler->candidates, n)) / G_LN2;
  sampler->mirostat_mu -= o->mirostat_eta * (float)(bits - o->mirostat_tau);
  return sampler->candidates[drawn].token;
}
