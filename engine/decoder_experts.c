/* decoder_experts.c: a mixture of experts (Shazeer et al. 2017; Fedus et al. 2021). A router scores the experts for each token; the best few
 * compute it, each expert once for all tokens that chose it, and their results are summed by weight. */
#include "engine/decoder_private.h"
#include "kernels/ops.h"

#include <math.h>
#include <string.h>

/* The weight that a token gives an expert, 0 where it did not choose it. */
static float weight_of (const EngDecoder *d, guint token, guint expert)
{
  const EngChoice *choices = d->choices + (gsize)token * d->traits->n_experts_used;
  for (guint i = 0; i < d->traits->n_experts_used; i++)
    if (choices[i].expert == expert)
      return choices[i].weight;
  return 0;
}

static void add_weighted (float *out, const float *x, float weight, guint n)
{
  for (guint i = 0; i < n; i++)
    out[i] += weight * x[i];
}

/* The d->n rows of gathered through one expert, in place. */
static void run_expert (EngDecoder *d, const EngLayer *layer, guint expert, const EngWatch *watch)
{
  const EngTraits *t = d->traits;
  eng_step_begin (d, d->gathered, t->n_embd, t->n_embd);
  eng_step_add_expert (d, &layer->gate_experts, layer->gate_experts_bias, expert, t->n_experts, d->gate);
  eng_step_add_expert (d, &layer->up_experts, layer->up_experts_bias, expert, t->n_experts, d->up);
  eng_step_run (d, watch);
  eng_step_begin (d, d->gate, t->n_ff, t->n_ff);
  d->activate = TRUE;
  eng_step_add_expert (d, &layer->down_experts, layer->down_experts_bias, expert, t->n_experts, d->gathered);
  eng_step_run (d, watch);
}

/* The unit that every token goes through, each by a weight of its own, added to mixed. */
static void add_shared (EngDecoder *d, const EngLayer *layer, const EngWatch *watch)
{
  const EngTraits *t = d->traits;
  eng_step_begin (d, d->normed, t->n_embd, t->n_embd);
  eng_step_add (d, &layer->ffn_gate, NULL, d->gate, 0);
  eng_step_add (d, &layer->ffn_up, NULL, d->up, 0);
  eng_step_run (d, watch);
  eng_step_begin (d, d->gate, t->n_ff_shared, t->n_ff_shared);
  d->activate = TRUE;
  eng_step_add (d, &layer->ffn_down, NULL, d->gathered, 0);
  eng_step_run (d, watch);
  for (guint i = 0; i < d->n; i++) {
    gsize at = (gsize)i * t->n_embd;
    float score = 0;
    for (guint j = 0; layer->shared_gate != NULL && j < t->n_embd; j++)
      score += layer->shared_gate[j] * d->normed[at + j];
    add_weighted (d->mixed + at, d->gathered + at, layer->shared_gate != NULL ? 1 / (1 + expf (-score)) : 1, t->n_embd);
  }
}

/* The step that has begun prepares the feed-forward's input. */
void eng_decoder_run_experts (EngDecoder *d, const EngLayer *layer, const EngWatch *watch)
{
  const EngTraits *t = d->traits;
  guint n = d->n, embd = t->n_embd;
  eng_step_add (d, &layer->router, layer->router_bias, d->router, 0);
  eng_step_run (d, watch);
  for (guint i = 0; i < n; i++)
    eng_route (t, layer->expert_correction, d->router + (gsize)i * t->n_experts, d->router + (gsize)n * t->n_experts, d->choices + (gsize)i * t->n_experts_used);
  memset (d->mixed, 0, (gsize)n * embd * sizeof (float));
  for (guint e = 0; e < t->n_experts; e++) {
    d->n = 0;
    for (guint i = 0; i < n; i++)
      if (weight_of (d, i, e) != 0)
        memcpy (d->gathered + (gsize)d->n++ * embd, d->normed + (gsize)i * embd, embd * sizeof (float));
    if (d->n > 0)
      run_expert (d, layer, e, watch);
    const float *result = d->gathered;
    for (guint i = 0; i < n; i++) {
      float weight = weight_of (d, i, e);
      if (weight != 0) {
        add_weighted (d->mixed + (gsize)i * embd, result, weight, embd);
        result += embd;
      }
    }
  }
  d->n = n;
  if (t->n_ff_shared > 0)
    add_shared (d, layer, watch);
  memcpy (d->normed, d->mixed, (gsize)n * embd * sizeof (float));
}
