/* sampler_logits.c: what a token loses or gains before any is cut: biases, penalties for what was said lately, DRY. */
#include "engine/sampler_private.h"

#include <math.h>

static gboolean mark (EngSampler *sampler, guint token)
{
  gboolean is_new = token < sampler->n_vocab && !(sampler->seen[token / 8] & 1 << token % 8);
  if (is_new)
    sampler->seen[token / 8] |= 1 << token % 8;
  return is_new;
}

static void forget (EngSampler *sampler, const gint32 *tokens, guint n)
{
  for (guint i = 0; i < n; i++)
    if ((guint)tokens[i] < sampler->n_vocab)
      sampler->seen[tokens[i] / 8] = 0;
}

/* Keskar et al. 2019: a token seen lately loses, whatever the sign of its logit; once, however often it was seen. Then frequency and
 * presence, which are subtracted. */
static void penalise (EngSampler *sampler, float *logits, const gint32 *recent, guint n)
{
  const EngSamplerOptions *o = &sampler->options;
  float penalty = o->repeat_penalty > 0 ? o->repeat_penalty : 1;
  if (penalty == 1 && o->frequency_penalty == 0 && o->presence_penalty == 0)
    return;
  for (guint i = 0; i < n; i++) {
    guint token = recent[i];
    if (token >= sampler->n_vocab)
      continue;
    if (mark (sampler, token)) {
      logits[token] = logits[token] > 0 ? logits[token] / penalty : logits[token] * penalty;
      logits[token] -= o->presence_penalty;
    }
    logits[token] -= o->frequency_penalty;
  }
  forget (sampler, recent, n);
}

static gboolean breaks (const EngSampler *sampler, gint32 token)
{
  return (guint)token >= sampler->n_vocab || (sampler->options.dry_breakers != NULL && sampler->options.dry_breakers[token] != 0);
}

/* repeats[k]: how many tokens before place k from the end, k included, are the same as the last ones: the Z function of the text read
 * backwards (Gusfield 1997, section 1.3), linear. last is the newest token. */
static void count_repeats (guint *repeats, const gint32 *last, guint n)
{
  guint left = 0, right = 0; /* the match that reaches furthest back, [left, right) */
  for (guint k = 1; k < n; k++) {
    guint length = k < right ? MIN (repeats[k - left], right - k) : 0;
    while (k + length < n && last[-(int)length] == last[-(int)(k + length)])
      length++;
    repeats[k] = length;
    if (k + length > right) {
      left = k;
      right = k + length;
    }
  }
}

/* A token that followed the longest earlier occurrence of the last n tokens would prolong it. */
static void discourage_repeats (EngSampler *sampler, float *logits, const gint32 *recent, guint n)
{
  const EngSamplerOptions *o = &sampler->options;
  const gint32 *last = recent + n - 1;
  guint limit = 0;
  while (limit < n && !breaks (sampler, last[-(int)limit]))
    limit++;
  if (n <= o->dry_allowed_length || limit < o->dry_allowed_length)
    return;
  count_repeats (sampler->repeats, last, n);
  for (guint k = 1; k < n; k++) {
    gint32 token = last[1 - (int)k];
    guint longest = 0;
    if (MIN (sampler->repeats[k], limit) < o->dry_allowed_length || breaks (sampler, token) || !mark (sampler, token))
      continue;
    for (guint j = k; j < n; j++)
      if (last[1 - (int)j] == token)
        longest = MAX (longest, MIN (sampler->repeats[j], limit));
    float loss = o->dry_multiplier * powf (o->dry_base, longest - o->dry_allowed_length);
    logits[token] -= MIN (loss, 1e30f);
  }
  forget (sampler, recent, n);
}

void eng_sampler_adjust (EngSampler *sampler, float *logits, const gint32 *recent, guint n_recent)
{
  const EngSamplerOptions *o = &sampler->options;
  guint n = MIN (n_recent, (guint)MAX (o->repeat_last_n, 0)), n_dry = MIN (n_recent, o->dry_last_n);
  for (guint i = 0; i < o->n_biases; i++)
    if ((guint)o->biases[i].token < sampler->n_vocab)
      logits[o->biases[i].token] += o->biases[i].bias;
  if (o->mirostat != 0)
    return;
  penalise (sampler, logits, recent + n_recent - n, n);
  if (o->dry_multiplier > 0 && n_dry > 1)
    discourage_repeats (sampler, logits, recent + n_recent - n_dry, n_dry);
}
