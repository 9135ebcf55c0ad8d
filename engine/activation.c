/* activation.c: SiLU (Elfwing et al. 2018), both forms of GELU (Hendrycks & Gimpel 2016), squared ReLU (So et al. 2021) and gpt-oss's own,
 * gated (Shazeer 2020) or not. */
#include "engine/activation.h"
#include "kernels/ops.h"

#include <math.h>

enum { PIECE = 256 };

static void exact_gelu (float *x, const float *up, gsize n)
{
  for (gsize i = 0; i < n; i++)
    x[i] = 0.5f * x[i] * (1 + erff (x[i] * (float)G_SQRT2 / 2)) * (up != NULL ? up[i] : 1);
}

static void squared_relu (float *x, const float *up, gsize n)
{
  for (gsize i = 0; i < n; i++)
    x[i] = x[i] > 0 ? x[i] * x[i] * (up != NULL ? up[i] : 1) : 0;
}

static void clamped (float *x, const float *up, gsize n)
{
  for (gsize i = 0; i < n; i++) {
    float gate = MIN (x[i], 7);
    x[i] = gate / (1 + expf (-1.702f * gate)) * (up != NULL ? CLAMP (up[i], -7, 7) + 1 : 1);
  }
}

/* The kernels know gated forms only: an ungated one is gated by ones, a piece at a time. */
void eng_activate (EngActivation activation, float *x, const float *up, gsize n)
{
  float ones[PIECE];
  if (activation == ENG_ACTIVATION_GELU) {
    exact_gelu (x, up, n);
    return;
  }
  if (activation == ENG_ACTIVATION_RELU_SQUARED) {
    squared_relu (x, up, n);
    return;
  }
  if (activation == ENG_ACTIVATION_CLAMPED) {
    clamped (x, up, n);
    return;
  }
  for (guint i = 0; up == NULL && i < PIECE; i++)
    ones[i] = 1;
  for (gsize at = 0, step; at < n; at += step) {
    step = up != NULL ? n : MIN (PIECE, n - at);
    if (activation == ENG_ACTIVATION_SILU)
      xb_silu_mul (x + at, up != NULL ? up : ones, x + at, step);
    else
      xb_gelu_mul (x + at, up != NULL ? up : ones, x + at, step);
  }
}

void eng_cap (float *x, float scale, float cap, gsize n)
{
  if (cap == 0) {
    xb_scale (x, scale, n);
    return;
  }
  for (gsize i = 0; i < n; i++)
    x[i] = cap * tanhf (x[i] * scale / cap);
}
