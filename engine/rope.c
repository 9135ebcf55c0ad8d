/* rope.c: plain, linearly scaled, dynamic NTK (bloc97 2023), YaRN, and with a factor for each pair (Llama 3's and longrope's). */
#include "engine/rope.h"

#include <math.h>

/* The pair that turns `turns` times over the trained context (Peng et al. 2023, YaRN, section 3.2). */
static double pair_turning (const EngTraits *t, double turns)
{
  return t->n_rot * log (t->rope_n_ctx / (turns * 2 * G_PI)) / (2 * log (t->rope_theta));
}

/* Share of the unscaled frequency in a pair's: 1 for those that turn fast, 0 for those that turn slowly. */
static double yarn_share (const EngTraits *t, guint pair)
{
  double low = pair_turning (t, t->yarn_fast), high = pair_turning (t, t->yarn_slow);
  low = MAX (0, t->yarn_unrounded ? low : floor (low));
  high = MIN (t->n_rot - 1, t->yarn_unrounded ? high : ceil (high));
  double ramp = (pair - low) / MAX (0.001, high - low);
  return (1 - CLAMP (ramp, 0, 1)) * t->yarn_mix;
}

/* Beyond the trained context theta is stretched, so that the slowest pair turns as if the factor scaled positions, and the fastest as ever. */
static double stretched_theta (const EngTraits *t, guint n_ctx)
{
  if (t->rope_ntk == 0 || n_ctx <= t->n_ctx_train || t->n_rot <= 2)
    return t->rope_theta;
  return t->rope_theta * pow (t->rope_ntk * n_ctx / t->n_ctx_train - (t->rope_ntk - 1), (double)t->n_rot / (t->n_rot - 2));
}

void eng_rope_frequencies (double *frequency, const EngTraits *t, const float *factors, guint n_ctx, gboolean local)
{
  double theta = local ? t->rope_theta_local : stretched_theta (t, n_ctx);
  for (guint i = 0; i < t->n_rot / 2; i++) {
    double plain = pow (theta, -2.0 * i / t->n_rot);
    double share = !local && t->yarn_mix > 0 ? yarn_share (t, i) : 0;
    if (!local && factors != NULL)
      plain /= factors[i];
    frequency[i] = local ? plain : plain * (t->rope_scale * (1 - share) + share);
  }
}

void eng_rope_position (float *cos_sin, const double *frequency, guint n_rot, guint position, float magnitude)
{
  for (guint i = 0; i < n_rot / 2; i++) {
    double angle = position * frequency[i];
    cos_sin[2 * i] = cos (angle) * magnitude;
    cos_sin[2 * i + 1] = sin (angle) * magnitude;
  }
}
