/* sampler.c: repetition penalty, top-k, top-p, min-p, temperature, then one draw. Candidates leave a heap in falling order, so
 * that only those that can be drawn are ever sorted. Random numbers: xoshiro256++ seeded by splitmix64 (Blackman & Vigna 2018). */
#include "engine/sampler.h"

#include <float.h>
#include <math.h>
#include <string.h>

enum { LANES = 16 }; /* the scans go in blocks that a compiler can turn into vectors */

typedef struct {
  float logit;
  gint32 token;
} Candidate;

struct EngSampler {
  EngSamplerOptions options;
  guint n_vocab;
  guint64 random[4];
  guint8 *seen;          /* one bit per token: already penalised in this call */
  Candidate *candidates; /* [n_vocab] those that may be drawn; while being cut, a heap with the largest logit on top */
  Candidate *chosen;     /* [n_vocab] those that left the heap, falling */
};

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
static double random_uniform (EngSampler *sampler)
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
  sampler->seen = g_new0 (guint8, n_vocab / 8 + 1);
  sampler->candidates = g_new (Candidate, n_vocab);
  sampler->chosen = g_new (Candidate, n_vocab);
  return sampler;
}

void eng_sampler_free (EngSampler *sampler)
{
  if (sampler == NULL)
    return;
  g_free (sampler->seen);
  g_free (sampler->candidates);
  g_free (sampler->chosen);
  g_free (sampler);
}

/* Keskar et al. 2019: a token seen lately loses, whatever the sign of its logit; once, however often it was seen. */
static void penalise (EngSampler *sampler, float *logits, const gint32 *recent, guint n_recent)
{
  float penalty = sampler->options.repeat_penalty;
  guint n = MIN (n_recent, (guint)MAX (sampler->options.repeat_last_n, 0));
  if (!(penalty > 0) || penalty == 1)
    return;
  recent += n_recent - n;
  for (guint i = 0; i < n; i++) {
    guint token = recent[i];
    if (token >= sampler->n_vocab || sampler->seen[token / 8] & 1 << token % 8)
      continue;
    sampler->seen[token / 8] |= 1 << token % 8;
    logits[token] = logits[token] > 0 ? logits[token] / penalty : logits[token] * penalty;
  }
  for (guint i = 0; i < n; i++)
    if ((guint)recent[i] < sampler->n_vocab)
      sampler->seen[recent[i] / 8] = 0;
}

/* Ties go to the smaller token, so that the order of a heap never shows. */
static gboolean comes_first (Candidate a, Candidate b)
{
  return a.logit > b.logit || (a.logit == b.logit && a.token < b.token);
}

static void sift_down (Candidate *heap, guint n, guint i)
{
  Candidate moving = heap[i];
  for (guint child; (child = 2 * i + 1) < n; i = child) {
    if (child + 1 < n && comes_first (heap[child + 1], heap[child]))
      child++;
    if (!comes_first (heap[child], moving))
      break;
    heap[i] = heap[child];
  }
  heap[i] = moving;
}

static Candidate heap_pop (Candidate *heap, guint *n)
{
  Candidate top = heap[0];
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

static void make_heap (Candidate *heap, guint n)
{
  for (guint i = n / 2; i-- > 0;)
    sift_down (heap, n, i);
}

/* Moves the best `limit` of candidates[n] to their front, falling. */
static guint keep_best (EngSampler *sampler, guint n, guint limit)
{
  guint kept = 0;
  make_heap (sampler->candidates, n);
  while (n > 0 && kept < limit)
    sampler->chosen[kept++] = heap_pop (sampler->candidates, &n);
  memcpy (sampler->candidates, sampler->chosen, kept * sizeof (Candidate));
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
  guint limit = o->top_k > 0 ? MIN ((guint)o->top_k, sampler->n_vocab) : sampler->n_vocab;
  guint room = MIN (sampler->n_vocab, limit + 1024), n = 0;
  /* Below e^-80 of the largest nothing can ever be drawn. */
  float floor = max - 80.0f * MAX (1.0f, o->temperature);
  for (guint begin = 0, end; begin < sampler->n_vocab; begin = end) {
    end = MIN (begin + LANES, sampler->n_vocab);
    if (!any_reaches (logits + begin, end - begin, floor))
      continue;
    for (guint i = begin; i < end; i++) {
      if (logits[i] < floor)
        continue;
      sampler->candidates[n++] = (Candidate){ logits[i], i };
      if (n == room && room > limit) {
        n = keep_best (sampler, n, limit);
        floor = nextafterf (sampler->candidates[n - 1].logit, INFINITY);
      }
    }
  }
  return n > limit ? keep_best (sampler, n, limit) : n;
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
    Candidate best = heap_pop (sampler->candidates, &n);
    if (kept > 0 && best.logit < floor)
      break;
    sampler->chosen[kept++] = best;
    running += exp ((double)best.logit - max);
    if (o->top_p < 1 && running >= o->top_p * sum)
      break;
  }
  memcpy (sampler->candidates, sampler->chosen, kept * sizeof (Candidate));
  return kept;
}

int eng_sampler_sample (EngSampler *sampler, float *logits, const gint32 *recent, guint n_recent)
{
  float max, temperature = sampler->options.temperature;
  penalise (sampler, logits, recent, n_recent);
  if (!clean_logits (logits, sampler->n_vocab, &max))
    return -1;
  if (!(temperature > 0) || sampler->options.top_k == 1)
    return first_of (logits, sampler->n_vocab, max);

  guint n = cut_tail (sampler, gather (sampler, logits, max), max);
  double sum = 0;
  for (guint i = 0; i < n; i++)
    sum += exp (((double)sampler->candidates[i].logit - max) / temperature);
  double left = random_uniform (sampler) * sum;
  for (guint i = 0; i < n; i++) {
    left -= exp (((double)sampler->candidates[i].logit - max) / temperature);
    if (left < 0)
      return sampler->candidates[i].token;
  }
  return sampler->candidates[n - 1].token;
}
