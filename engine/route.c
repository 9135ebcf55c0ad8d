/* route.c: the best groups, the best experts of these, and their weights: shares of all experts, or of the chosen ones. */
#include "engine/route.h"

#include "kernels/ops.h"

#include <math.h>

/* Leaves scores of the best groups only: by their best expert, or, where scores are corrected, by the sum of their best two (DeepSeek-V2,
 * section 2.2.2; DeepSeek-V3, section 2.1.2). */
static void choose_groups (const EngTraits *t, gboolean corrected, float *scores, float *worth)
{
  guint size = t->n_experts / t->n_expert_groups;
  for (guint g = 0; g < t->n_expert_groups; g++) {
    float best = -INFINITY, second = -INFINITY;
    for (guint e = g * size; e < (g + 1) * size; e++) {
      second = MAX (second, MIN (best, scores[e]));
      best = MAX (best, scores[e]);
    }
    worth[g] = corrected && size > 1 ? best + second : best;
  }
  for (guint left = t->n_expert_groups; left > t->n_expert_groups_used; left--) {
    guint worst = 0;
    for (guint g = 1; g < t->n_expert_groups; g++)
      worst = worth[g] < worth[worst] ? g : worst;
    worth[worst] = INFINITY;
    for (guint e = worst * size; e < (worst + 1) * size; e++)
      scores[e] = -INFINITY;
  }
}

void eng_route (const EngTraits *t, const float *correction, float *scores, float *spare, EngChoice *choices)
{
  float sum = 0, *ranked = spare, *weights = spare + t->n_experts;
  if (t->expert_score == ENG_EXPERT_SIGMOID)
    for (guint e = 0; e < t->n_experts; e++)
      scores[e] = 1 / (1 + expf (-scores[e]));
  else if (t->expert_score == ENG_EXPERT_SOFTMAX)
    xb_softmax (scores, t->n_experts);
  for (guint e = 0; e < t->n_experts; e++)
    ranked[e] = scores[e] + (correction != NULL ? correction[e] : 0);
  if (t->n_expert_groups > 0)
    choose_groups (t, correction != NULL, ranked, weights);
  for (guint i = 0; i < t->n_experts_used; i++) {
    guint best = xb_argmax (ranked, t->n_experts);
    choices[i].expert = best;
    weights[i] = scores[best];
    ranked[best] = -INFINITY;
  }
  if (t->expert_score == ENG_EXPERT_SOFTMAX_CHOSEN)
    xb_softmax (weights, t->n_experts_used);
  for (guint i = 0; i < t->n_experts_used; i++)
    sum += weights[i];
  for (guint i = 0; i < t->n_experts_used; i++)
    choices[i].weight = weights[i] * (t->expert_norm && sum > 0 ? 1 / sum : 1) * (t->expert_scale > 0 ? t->expert_scale : 1);
}
