/* sampler.c: top-k, top-p and min-p, and the draw. Candidates leave a heap in falling order, so
 * that only those that can be drawn are ever sorted. Random numbers: xoshiro256++ seeded by splitmix64 (Blackman & Vigna 2018). */
#include "engine/sampler_private.h"

#include <float.h>
#include <math.h>
#include <string.h>

enum { LANES = 16 }; /* the scans go in blocks that a compiler can turn into vectors */

static guint64 splitmix64 (guint64 *state)
{
  guint64 z = *state += 0x9e3779b97f4a7c15u;
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
  z = (z ^ z >> 27) * 0x94d049bb133111ebu;
  return z ^ z >> 31;
}

static guint64 rotate_left (guint64 x, int k)
{
  return x << k | x >> (64 - k);
}

/* Uniform in [0, 1), 53 bits. */
double eng_sampler_uniform (EngSampler *sampler)
{
  guint64 *s = sampler->random;
  guint64 result = rotate_left (s[0] + s[3], 23) + s[0], t = s[1] << 17;
  s[2] ^= s[0];
  s[3] ^= s[1];
  s[1] ^= s[2];
  s[0] ^= s[3];
  s[2] ^= t;
  s[3] = rotate_left (s[3], 45);
  return (double)(result >> 11) * 0x1p-53;
}

EngSampler *eng_sampler_new (const EngSamplerOptions *options, guint n_vocab)
{
  EngSampler *sampler = g_new0 (EngSampler, 1);
  guint64 seed = options->seed;
  sampler->options = *options;
  sampler->n_vocab = n_vocab;
  for (int i = 0; i < 4; i++)
    sampler->random[i] = splitmix64 (&seed);
  EngSamplerOptions *o = &sampler->options;
  o->dry_base = o->dry_base > 0 ? o->dry_base : 1.75f;
  o->dry_allowed_length = o->dry_allowed_length > 0 ? o->dry_allowed_length : 2;
  o->dry_last_n = o->dry_last_n > 0 ? MIN (o->dry_last_n, 65536) : 64;
  o->dynamic_exponent = o->dynamic_exponent > 0 ? o->dynamic_exponent : 1;
  o->mirostat_tau = o->mirostat_tau > 0 ? o->mirostat_tau : 5;
  o->mirostat_eta = o->mirostat_eta > 0 ? o->mirostat_eta : 0.1f;
  sampler->mirostat_mu = 2 * o->mirostat_tau;
  if (o->dry_multiplier > 0)
    sampler->repeats = g_new (guint, o->dry_last_n);
  sampler->seen = g_new0 (guint8, n_vocab / 8 + 1);
  sampler->candidates = g_new (EngCandidate, n_vocab);
  sampler->chosen = g_new (EngCandidate, n_vocab);
  return sampler;
}

void eng_sampler_free (EngSampler *sampler)
{
  if (sampler == NULL)
    return;
  g_free (sampler->seen);
  g_free (sampler->repeats);
  g_free (sampler->candidates);
  g_free (sampler->chosen);
  g_free (sampler);
}

/* Ties go to the smaller token, so that the order of a heap never shows. */
static gboolean comes_first (EngCandidate a, EngCandidate b)
{
  return a.logit > b.logit || (a.logit == b.logit && a.token < b.token);
}

static void sift_down (EngCandidate *heap, guint n, guint i)
{
  EngCandidate moving = heap[i];
  for (guint child; (child = 2 * i + 1) < n; i = child) {
    if (child + 1 < n && comes_first (heap[child + 1], heap[child]))
      child++;
    if (!comes_first (heap[child], moving))
      break;
    heap[i] = heap[child];
  }
  heap[i] = moving;
}

static EngCandidate heap_pop (EngCandidate *heap, guint *n)
{
  EngCandidate top = heap[0];
  heap[0] = heap[--*n];
  if (*n > 0)
    sift_down (heap, *n, 0);
  return top;
}

/* The largest finite logit (infinities are cut to the finite range, NaN counts as impossible); FALSE if there is none. */
static gboolean clean_logits (float *logits, guint n, float *max)
{
  float best[LANES], most = -INFINITY;
  guint whole = n / LANES * LANES;
  for (guint j = 0; j < LANES; j++)
    best[j] = -INFINITY;
  for (guint i = 0; i < n; i += LANES) {
    guint lanes = i < whole ? LANES : n - whole;
    for (guint j = 0; j < lanes; j++) {
      float x = logits[i + j];
      x = x < FLT_MAX ? x : x == x ? FLT_MAX : -INFINITY;
      logits[i + j] = x;
      best[j] = x > best[j] ? x : best[j];
    }
  }
  for (guint j = 0; j < LANES; j++)
    most = MAX (most, best[j]);
  *max = most;
  return most > -INFINITY;
}

static int first_of (const float *logits, guint n, float value)
{
  for (guint i = 0; i < n; i++)
    if (logits[i] == value)
      return i;
  return -1;
}

static void make_heap (EngCandidate *heap, guint n)
{
  for (guint i = n / 2; i-- > 0;)
    sift_down (heap, n, i);
}

/* Moves the best `limit` of candidates[n] to their front, falling. */
guint eng_sampler_keep_best (EngSampler *sampler, guint n, guint limit)
{
  guint kept = 0;
  make_heap (sampler->candidates, n);
  while (n > 0 && kept < limit)
    sampler->chosen[kept++] = heap_pop (sampler->candidates, &n);
  memcpy (sampler->candidates, sampler->chosen, kept * sizeof (EngCandidate));
  return kept;
}

static gboolean any_reaches (const float *logits, guint n, float floor)
{
  int any = 0;
  for (guint i = 0; i < n; i++)
    any |= logits[i] >= floor;
  return any;
}

/* Top-k: fills `candidates`, returns their number. A full buffer is cut to its best, whose last then bars the way to most. */
static guint gather (EngSampler *sampler, const float *logits, float max)
{
  const EngSamplerOptions *o = &sampler->options;
  guint limit = o->top_k > 0 && o->mirostat == 0 ? MIN ((guint)o->top_k, sampler->n_vocab) : sampler->n_vocab;
  guint room = MIN (sampler->n_vocab, limit + 1024), n = 0;
  /* Below e^-80 of the largest nothing can ever be drawn. */
  float floor = max - 80.0f * MAX (1.0f, o->temperature + MAX (o->dynamic_range, 0));
  for (guint begin = 0, end; begin < sampler->n_vocab; begin = end) {
    end = MIN (begin + LANES, sampler->n_vocab);
    if (!any_reaches (logits + begin, end - begin, floor))
      continue;
    for (guint i = begin; i < end; i++) {
      if (logits[i] < floor)
        continue;
      sampler->candidates[n++] = (EngCandidate){ logits[i], i };
      if (n == room && room > limit) {
        n = eng_sampler_keep_best (sampler, n, limit);
        floor = nextafterf (sampler->candidates[n - 1].logit, INFINITY);
      }
    }
  }
  return n > limit ? eng_sampler_keep_best (sampler, n, limit) : n;
}

/* Top-p, then min-p, on the probabilities of the candidates at temperature 1. */
static guint cut_tail (EngSampler *sampler, guint n, float max)
{
  const EngSamplerOptions *o = &sampler->options;
  double sum = 0, running = 0;
  float floor = o->min_p > 0 ? max + logf (MIN (o->min_p, 1.0f)) : -INFINITY;
  guint kept = 0;
  if (!(o->top_p < 1) && !(o->min_p > 0))
    return n;
  for (guint i = 0; i < n; i++)
    sum += exp ((double)sampler->candidates[i].logit - max);
  make_heap (sampler->candidates, n);
  while (n > 0) {
    EngCandidate best = heap_pop (sampler->candidates, &n);
    if (kept > 0 && best.logit < floor)
      break;
    sampler->chosen[kept++] = best;
    running += exp ((double)best.logit - max);
    if (o->top_p < 1 && running >= o->top_p * sum)
      break;
  }
  memcpy (sampler->candidates, sampler->chosen, kept * sizeof (EngCandidate));
  return kept;
}

/* One of n candidates at this temperature, by its place. */
guint eng_sampler_draw (EngSampler *sampler, guint n, float temperature)
{
  const EngCandidate *c = sampler->candidates;
  double sum = 0;
  float max = -INFINITY;
  for (guint i = 0; i < n; i++)
    max = MAX (max, c[i].logit);
  for (guint i = 0; i < n; i++)
    sum += exp (((double)c[i].logit - max) / temperature);
  double left = eng_sampler_uniform (sampler) * sum;
  for (guint i = 0; i < n; i++) {
    left -= exp (((double)c[i].logit - max) / temperature);
    if (left < 0)
      return i;
  }
  return n - 1;
}

int eng_sampler_sample (EngSampler *sampler, float *logits, const gint32 *recent, guint n_recent)
{
  const EngSamplerOptions *o = &sampler->options;
  float max;
  eng_sampler_adjust (sampler, logits, recent, n_recent);
  if (!clean_logits (logits, sampler->n_vocab, &max))
    return -1;
  if (!(o->temperature > 0) || (o->top_k == 1 && o->mirostat == 0))
    return first_of (logits, sampler->n_vocab, max);
  guint n = gather (sampler, logits, max);
  if (o->mirostat != 0)
    return eng_sampler_mirostat (sampler, n);
  if (o->top_n_sigma > 0)
    n = eng_sampler_cut_sigma (sampler, n, logits, max);
  if (o->typical_p > 0 && o->typical_p < 1)
    n = eng_sampler_cut_typical (sampler, n, &max);
  n = cut_tail (sampler, n, max);
  if (o->xtc_probability > 0)
    n = eng_sampler_cut_top (sampler, n);
  return sampler->candidates[eng_sampler_draw (sampler, n, eng_sampler_temperature (sampler, n))].token;
}
