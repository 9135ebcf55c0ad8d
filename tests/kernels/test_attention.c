/* test_attention.c: attention over paged keys and values, on each instruction set this CPU has, against plain loops in double precision over
 * what the pages hold; one token and many, ragged ends, a sliding window, a soft cap, extreme scores. */
#include "kernels/cpu.h"
#include "kernels/ops.h"
#include "kernels/xbit.h"

#include <glib.h>
#include <math.h>
#include <string.h>

#include "sets.h"

enum { PAGE = 32, GUARD = 16 };

typedef struct {
  guint head_dim, n_q, n_tokens, window, end;
  int bits, value_bits;
  float soft_cap, spread;
  guint value_dim;     /* 0: head_dim */
  gboolean keys_only;  /* values are the beginnings of keys */
  const float *sinks, *slopes;
  gboolean referred;   /* keys are stored less a reference */
} Case;

static float *random_floats (GRand *rand, gsize n, float spread)
{
  float *x = g_new (float, n);
  for (gsize i = 0; i < n; i++)
    x[i] = (float)g_rand_double_range (rand, -spread, spread);
  return x;
}

/* Row h of a token that sees positions below end, by the definition; keys and values are [position][head_dim]. */
static void expected_row (const Case *c, guint h, const float *q, const float *keys, const float *values, guint end, double *out)
{
  guint begin = c->window > 0 && end > c->window ? end - c->window : 0, n = end - begin;
  g_autofree double *p = g_new (double, n);
  double max = c->sinks != NULL ? (double)c->sinks[h] : -INFINITY, sum = 0;
  for (guint t = 0; t < n; t++) {
    double s = 0;
    for (guint i = 0; i < c->head_dim; i++)
      s += (double)q[i] * keys[(gsize)(begin + t) * c->head_dim + i];
    s /= sqrt (c->head_dim);
    s -= c->slopes != NULL ? (double)c->slopes[h] * (end - 1 - begin - t) : 0;
    p[t] = c->soft_cap > 0 ? c->soft_cap * tanh (s / c->soft_cap) : s;
    max = MAX (max, p[t]);
  }
  for (guint t = 0; t < n; t++)
    sum += p[t] = exp (p[t] - max);
  sum += c->sinks != NULL ? exp ((double)c->sinks[h] - max) : 0;
  for (guint i = 0; i < c->value_dim; i++) {
    out[i] = 0;
    for (guint t = 0; t < n; t++)
      out[i] += p[t] / sum * values[(gsize)(begin + t) * c->head_dim + i];
  }
}

/* Puts x into its slot and takes it out again as the page holds it: within half a step of what went in. */
static void store_and_load (void *page, guint slot, float *x, const Case *c, int bits)
{
  float before[XB_MAX_KEY];
  memcpy (before, x, c->head_dim * sizeof (float));
  xb_kv_store (page, slot, x, PAGE, c->head_dim, bits);
  xb_kv_load (page, slot, x, PAGE, c->head_dim, bits);
  for (guint g = 0; g < c->head_dim; g += 32) {
    guint end = MIN (g + 32, c->head_dim);
    float low = before[g], high = before[g];
    for (guint i = g; i < end; i++) {
      low = MIN (low, before[i]);
      high = MAX (high, before[i]);
    }
    float peak = MAX (fabsf (low), fabsf (high)), step = MAX ((high - low) / (bits == 5 ? 31 : 15), peak / 15);
    for (guint i = g; i < end; i++)
      g_assert_cmpfloat (fabsf (x[i] - before[i]), <=, bits == 16 ? peak * 0.0005f : bits == 8 ? peak * 0.0045f : step * 0.8f);
  }
}

static void check_case (const Case *c, guint seed)
{
  g_autoptr (GRand) rand = g_rand_new_with_seed (seed);
  guint last = c->end + c->n_tokens - 1, n_blocks = (last + PAGE - 1) / PAGE, d = c->head_dim, dv = c->value_dim;
  gsize reference_at = MAX (xb_kv_page_bytes (PAGE, d, c->bits), xb_kv_page_bytes (PAGE, d, c->value_bits)), page_bytes = reference_at + d * 2, rows = (gsize)c->n_tokens * c->n_q, values_at = c->keys_only ? 0 : page_bytes;
  guint unseen = c->window > 0 && c->end > c->window ? (c->end - c->window) / PAGE : 0;
  /* Slots that were never stored hold NaN: nothing may read them into a result. */
  g_autofree guint8 *pool = g_malloc (page_bytes * n_blocks * 2);
  memset (pool, 0xff, page_bytes * n_blocks * 2);
  g_autofree const void **blocks = g_new (const void *, n_blocks);
  g_autofree float *keys = random_floats (rand, (gsize)last * d, 1), *apart = random_floats (rand, (gsize)last * d, 1);
  g_autofree float *first_keys = random_floats (rand, d, 1);
  g_autofree float *q = random_floats (rand, rows * d, c->spread), *out = g_new (float, rows * dv + GUARD);
  const float *values = c->keys_only ? keys : apart;
  for (gsize i = 0; seed % 3 == 0 && i < (gsize)last * d; i++) /* to one side of zero */
    apart[i] += (float)(i / 32 % 5);
  for (guint i = 0; i < n_blocks; i++)
    blocks[i] = pool + i * 2 * page_bytes;
  for (guint t = 0; t < last; t++) {
    guint8 *block = (guint8 *)blocks[t / PAGE];
    store_and_load (block, t % PAGE, keys + (gsize)t * d, c, c->bits);
    for (guint i = 0; c->referred && (t == 0 || t >= PAGE) && i < d; i++) {
      uint16_t half = xb_float_to_half ((float)((int)(t / PAGE * 7 + i) % 11 - 5) / 4);
      memcpy (block + reference_at + i * 2, &half, 2);
      keys[(gsize)t * d + i] += xb_half_to_float (half);
    }
    for (guint i = 0; c->referred && seed % 2 == 1 && t > 0 && t < PAGE && i < d; i++)
      keys[(gsize)t * d + i] += first_keys[i];
    if (!c->keys_only)
      store_and_load (block + page_bytes, t % PAGE, apart + (gsize)t * d, c, c->value_bits);
  }
  for (guint i = 0; i < unseen; i++)
    blocks[i] = NULL;
  for (gsize i = 0; i < rows * dv + GUARD; i++)
    out[i] = 12345;
  xb_attention a = { blocks, 0, values_at, c->referred ? reference_at : 0, PAGE, d, dv, d, c->bits, c->value_bits, c->end, c->window, 1 / sqrtf ((float)d), c->soft_cap, c->sinks,
                     c->referred && seed % 2 == 1 ? first_keys : NULL, c->slopes };
  xb_attend (&a, q, d, (gsize)c->n_q * d, c->n_q, c->n_tokens, out, dv, (gsize)c->n_q * dv);
  g_autofree double *expected = g_new (double, d);
  for (gsize row = 0; row < rows; row++) {
    expected_row (c, (guint)(row % c->n_q), q + row * d, keys, values, c->end + (guint)(row / c->n_q), expected);
    for (guint i = 0; i < dv; i++)
      if (!(fabs (out[row * dv + i] - expected[i]) < 2e-5 + 2e-6 * (double)c->spread))
        g_error ("head_dim %u, %u bits, %u heads, token %u of %u, window %u, end %u, value %u: %g instead of %g", d, (guint)c->bits, c->n_q,
                 (guint)(row / c->n_q), c->n_tokens, c->window, c->end, i, (double)out[row * dv + i], expected[i]);
  }
  for (guint i = 0; i < GUARD; i++)
    g_assert_cmpfloat (out[rows * dv + i], ==, 12345);
}

static void test_attention (gconstpointer data)
{
  if (!select_set (GPOINTER_TO_INT (data)))
    return;
  const guint dims[] = { 20, 32, 64, 80, 128, 256 }, heads[] = { 1, 3, 4, 8, 70 }, tokens[] = { 1, 2, 7, 16, 33 };
  const guint ends[] = { 1, 5, 31, 32, 33, 100 };
  const int depths[] = { 16, 8, 5, 4 };
  for (guint i = 0; i < 150; i++) {
    Case c = { dims[i % 6], heads[i / 2 % 5], tokens[i / 3 % 5], 0, ends[i / 5 % 6], depths[i / 2 % 4], depths[i / 3 % 4], 0, 2 };
    if (!in_share ())
      continue;
    c.n_tokens = MIN (c.n_tokens, 300 / c.n_q); /* more rows than are attended at once, not many times as many */
    c.value_dim = c.head_dim;
    if (c.head_dim % 32 != 0)
      c.bits = c.value_bits = 16;
    if (i % 7 == 0)
      c.window = 1 + c.end / 2;
    if (i % 11 == 0)
      c.soft_cap = 3;
    if (i % 13 == 0)
      c.spread = 300;
    check_case (&c, 1000 + i);
  }
}

/* Values that are the beginnings of their keys, as multi-head latent attention has them; sinks; slopes. */
static void test_variants (gconstpointer data)
{
  if (!select_set (GPOINTER_TO_INT (data)))
    return;
  const guint dims[][2] = { { 576, 512 }, { 96, 64 }, { 40, 24 } }, heads[] = { 1, 5, 16 }, tokens[] = { 1, 3, 20 }, ends[] = { 1, 33, 70 };
  const int depths[] = { 16, 8, 5, 4 };
  const float sinks[16] = { 0, 3, -2, 40, -40, 1 }, slopes[16] = { 0.5f, 0.25f, 0, 1, 0.01f };
  for (guint i = 0; i < 36; i++) {
    Case c = { dims[i % 3][0], heads[i / 3 % 3], tokens[i / 2 % 3], i % 5 == 0 ? 11 : 0, ends[i / 4 % 3], depths[i % 4], depths[i / 3 % 4], 0, 2 };
    if (!in_share ())
      continue;
    c.value_dim = dims[i % 3][1];
    c.keys_only = i % 2 == 0;
    c.referred = i % 5 < 2;
    c.sinks = i % 3 != 1 ? sinks : NULL;
    c.slopes = i % 3 != 0 ? slopes : NULL;
    if (c.head_dim % 32 != 0)
      c.bits = c.value_bits = 16;
    if (c.keys_only)
      c.value_bits = c.bits;
    check_case (&c, 2000 + i);
  }
}

int main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  for (int set = 0; set < N_SETS; set++) {
    g_autofree char *path = g_strdup_printf ("/attention/%s/equals-plain-loops", set_name (set));
    g_autofree char *variants = g_strdup_printf ("/attention/%s/latent-values-sinks-and-slopes", set_name (set));
    g_test_add_data_func (path, GINT_TO_POINTER (set), test_attention);
    g_test_add_data_func (variants, GINT_TO_POINTER (set), test_variants);
  }
  return g_test_run ();
}
