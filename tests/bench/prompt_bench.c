/* prompt_bench.c: what a prompt costs beside its products and its attention, each alone.
 *     prompt_bench MODEL [prompt tokens 512] [threads 0] [rounds 3] [kv bits 16]
 */
#include "engine/session_private.h"
#include "engine/decoder_private.h"
#include "kernels/cpu.h"
#include "tests/bench/arguments.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { BLOCK = 16 /* tokens whose attention is one call */ };

static void stop_if (const GError *error)
{
  if (error == NULL)
    return;
  fprintf (stderr, "prompt_bench: %s\n", error->message);
  exit (1);
}

static double seconds_since (gint64 start)
{
  return (g_get_monotonic_time () - start) / 1e6;
}

/* ---- products ------------------------------------------------------------------------------------------------------------ */

/* The matrices that take one input, as the decoder runs them. */
static void multiply (EngDecoder *d, const float *x, const EngMatrix *const *matrices, guint n_matrices, float *y)
{
  eng_step_begin (d, x, matrices[0]->cols, matrices[0]->cols);
  for (guint i = 0; i < n_matrices; i++)
    eng_step_add (d, matrices[i], NULL, y, 0);
  eng_step_run (d, &(EngWatch) { NULL, NULL });
}

/* Every product of a prompt of n tokens, its inputs' rounding included; the last layer's feed-forward and the head for one token, as in a pass. */
static double products_alone (EngPool *pool, guint n, float *x, float *y)
{
  EngDecoder *d = pool->decoder;
  guint n_layers = d->traits->n_layers, batch = eng_decoder_batch (d);
  gint64 start = g_get_monotonic_time ();
  for (guint at = 0; at < n; at += batch)
    for (guint l = 0; l < n_layers; l++) {
      const EngLayer *layer = eng_model_layer (d->model, l);
      const EngMatrix *qkv[] = { &layer->attn_q, &layer->attn_k, &layer->attn_v }, *fused[] = { &layer->attn_qkv };
      const EngMatrix *output[] = { &layer->attn_output }, *gate_up[] = { &layer->ffn_gate, &layer->ffn_up }, *up[] = { &layer->ffn_up }, *down[] = { &layer->ffn_down };
      d->n = MIN (batch, n - at);
      multiply (d, x, d->traits->fused_qkv ? fused : qkv, d->traits->fused_qkv ? 1 : 3, y);
      if (l + 1 == n_layers && at + batch < n)
        continue;
      d->n = l + 1 == n_layers ? 1 : d->n;
      multiply (d, x, output, 1, y);
      gboolean single = d->traits->ungated || d->traits->fused_gate_up;
      multiply (d, x, single ? up : gate_up, single ? 1 : 2, y);
      multiply (d, x, down, 1, y);
    }
  const EngMatrix *head[] = { eng_model_head (d->model) };
  d->n = 1;
  multiply (d, x, head, 1, y);
  return seconds_since (start);
}

/* ---- attention ----------------------------------------------------------------------------------------------------------- */

typedef struct {
  const EngTraits *traits;
  const EngKvSequence *sequence;
  const float *q;
  float *out;
  guint n, n_blocks;
} Attending;

/* Units are stretches of tokens, KV head by KV head, layer by layer. */
static void attend (gpointer data, guint begin, guint end, guint worker)
{
  Attending *a = data;
  const EngTraits *t = a->traits;
  guint group = t->n_heads / t->n_kv_heads;
  for (guint i = begin; i < end; i++) {
    guint block = i % a->n_blocks, head = i / a->n_blocks % t->n_kv_heads, layer = i / a->n_blocks / t->n_kv_heads;
    xb_attention attention = { .kv_end = block * BLOCK + 1, .scale = 1 / sqrtf ((float)t->head_dim) };
    eng_kv_view (a->sequence, layer, head, &attention);
    xb_attend (&attention, a->q, t->head_dim, (gsize)group * t->head_dim, group, MIN (BLOCK, a->n - block * BLOCK),
               a->out + (gsize)worker * BLOCK * group * t->value_dim, t->value_dim, (gsize)group * t->value_dim);
  }
}

static double attention_alone (EngSession *session, guint n, const float *q, float *out)
{
  const EngTraits *t = session->pool->decoder->traits;
  Attending a = { t, &session->kv, q, out, n, (n + BLOCK - 1) / BLOCK };
  gint64 start = g_get_monotonic_time ();
  eng_workers_run (session->pool->workers, attend, &a, a.n_blocks * t->n_kv_heads * t->n_layers, 1);
  return seconds_since (start);
}

int main (int argc, char **argv)
{
  guint n = argument (argc, argv, 2, 512), rounds = MAX (argument (argc, argv, 4, 3), 1);
  EngSessionOptions options = { .n_ctx = n, .kv_bits = (int)argument (argc, argv, 5, 16) };
  g_autoptr (GError) error = NULL;
  const char *problem = argc < 2 ? "give a model file" : xb_cpu_init ();
  if (problem != NULL) {
    fprintf (stderr, "prompt_bench: %s\n", problem);
    return 2;
  }
  g_autoptr (EngModel) model = eng_model_open (argv[1], &error);
  stop_if (error);
  const EngTraits *t = eng_model_traits (model);
  if (t->n_experts > 0 || t->latent > 0) {
    fprintf (stderr, "prompt_bench: models with experts or a latent vector are not measured\n");
    return 2;
  }
  g_autoptr (EngWorkers) workers = eng_workers_new (argument (argc, argv, 3, 0));
  g_autoptr (EngSession) session = eng_session_new (model, workers, &options, &error);
  stop_if (error);
  if (session->pool->kv.kept < n) {
    fprintf (stderr, "prompt_bench: windowed layers forget within %u tokens: choose fewer\n", n);
    return 2;
  }
  guint widest = MAX (MAX (t->n_ff, t->n_embd), t->n_heads * t->head_dim), rows = MAX (2 * widest, t->n_heads * t->head_dim + 2 * t->n_kv_heads * t->head_dim);
  gsize y_size = MAX ((gsize)rows * n, (gsize)t->n_vocab);
  g_autofree float *x = g_new (float, (gsize)widest * n), *y = g_new (float, MAX (y_size, (gsize)BLOCK * t->n_heads * t->value_dim * eng_workers_count (workers)));
  for (gsize i = 0; i < (gsize)widest * n; i++)
    x[i] = sinf ((float)i);
  g_autofree gint32 *tokens = g_new (gint32, n);
  for (guint i = 0; i < n; i++)
    tokens[i] = (gint32)((i * 7919u + 11) % t->n_vocab);
  double whole = INFINITY, products = INFINITY, attention = INFINITY;
  for (guint i = 0; i < rounds; i++) {
    eng_session_truncate (session, 0);
    gint64 start = g_get_monotonic_time ();
    eng_session_eval (session, tokens, n, FALSE, NULL, &error);
    stop_if (error);
    whole = MIN (whole, seconds_since (start));
    attention = MIN (attention, attention_alone (session, n, x, y));
    products = MIN (products, products_alone (session->pool, n, x, y));
  }
  printf ("prompt of %u: %.1f ms; products alone %.1f, attention alone %.1f: ratio %.3f (best of %u, %u threads, %s)\n", n, whole * 1e3, products * 1e3, attention * 1e3,
          whole / (products + attention), rounds, eng_workers_count (workers), xb_isa_name (xb_cpu_selected ()));
  return 0;
}
