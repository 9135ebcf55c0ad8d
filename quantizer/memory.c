/* memory.c: sums of the largest things that are there at once. What is small beside them is in one margin. */
#include "quantizer/memory.h"

#include "engine/error.h"
#include "engine/memory_plan.h"
#include "quantizer/allocate.h"
#include "quantizer/layer.h"
#include "quantizer/loudness.h"
#include "quantizer/moments.h"
#include "quantizer/shape.h"
#include "quantizer/spin.h"
#include "quantizer/tune.h"

enum {
  WALK_ROWS = 4096,       /* of the vocabulary, at once (head.c) */
  ENCODE_ROWS = 256,      /* that a worker packs at once (fit.c) ... */
  ENCODE_COPIES = 6,      /* ... and how many times it holds them */
  SCORED_ROWS = 256,      /* states of the finished file whose logits are there at once (measure.c), and once more in the engine */
  TOKEN_BYTES = 160,      /* of the vocabulary in memory, text and merges included */
  LONG_SEARCH_BYTES = (QZ_PANEL_COLS + 1) * QZ_CHAIN_ROWS * XB_MOST_STATES, /* of words of 16 bits: decisions of a panel of 2 bits (trellis.c) */
  CELL_BYTES = 40 + QZ_MOST_DEPTH * (12 + 16), /* its curve and its steps */
};

static const double margin_bytes = 30e6, margin = 1.04;

static double largest_tensor (const QzSource *source)
{
  guint64 most = 0;
  for (guint m = 1; m < source->n_matrices; m++)
    if (source->matrices[m].role != QZ_ROLE_HEAD)
      most = MAX (most, source->matrices[m].tensor->bytes / MAX (1, source->matrices[m].rows / qz_source_expert_rows (source, m)));
  return most;
}

/* What stays from the first layer to the end of the fit: pipelines, pivots, noise and errors, weights of rows, curves, the vocabulary. */
static double kept_bytes (const QzSource *source)
{
  double bytes = (double) TOKEN_BYTES * source->traits.n_vocab + 2 * sizeof (double) * source->traits.n_vocab;
  for (guint i = 0; i < source->n_inputs; i++)
    bytes += (double) source->inputs[i].cols * (3 + sizeof (guint16) * QZ_ERROR_ROWS + sizeof (float) * (3 + source->inputs[i].n_experts));
  for (guint m = 0; m < source->n_matrices; m++)
    bytes += sizeof (float) * source->matrices[m].rows
             + (double) CELL_BYTES * source->matrices[m].rows * source->matrices[m].cols / (QZ_STRIPE_ROWS * QZ_PANEL_COLS);
  return bytes;
}

/* Moments of what a half's products multiply, and a block of them and its factor beside each other. */
static double moments_floats (const QzSource *source, guint widest)
{
  double most = 0;
  for (guint l = 0; l < source->traits.n_layers; l++) {
    const QzLayer *layer = &source->layers[l];
    const guint attention[] = { layer->attn_input, layer->output_input, layer->q_b_input, layer->latent_input, layer->k_b_input };
    double sum = 0, block = 0;
    for (guint i = 0; i < G_N_ELEMENTS (attention); i++)
      if (attention[i] != QZ_NONE) {
        guint cols = source->inputs[attention[i]].cols, size = qz_moments_block (cols, widest);
        sum += qz_moments_floats (cols, size);
        block = MAX (block, size);
      }
    most = MAX (most, sum + 1.5 * block * block);
    for (guint u = 0; u < layer->n_units; u++) {
      const QzUnit *unit = &source->units[layer->units[u]];
      guint embd = source->traits.n_embd, in = qz_moments_block (embd, widest), hidden = qz_moments_block (unit->n_ff, widest);
      double copies = unit->is_mixture ? 2 : 1; /* an expert's own beside those of all */
      block = MAX (in, hidden);
      most = MAX (most, copies * (qz_moments_floats (embd, in) + qz_moments_floats (unit->n_ff, hidden)) + 1.5 * block * block);
    }
  }
  return most;
}

static double observe_bytes (const QzSource *source, const QzTokens *tokens, guint n_workers, const QzMemory *m)
{
  const EngTraits *t = &source->traits;
  gboolean base = t->parallel, mixture = t->n_experts > 0;
  double embd = t->n_embd;
  double stream = embd * (tokens->n_all * (1.0 + base + mixture) + tokens->n_back * (1.0 + base + 3 * mixture))
                  + (mixture ? tokens->n_all * 2.0 * t->n_experts_used + (double) tokens->n_back * t->n_experts : 0);
  double head = (double) m->head_rows * t->n_vocab + WALK_ROWS * embd + 3 * embd * embd;
  double back = qz_layer_pass_floats (t, n_workers, m->batch_rows, tokens->n_tokens, TRUE);
  double there = qz_layer_pass_floats (t, n_workers, m->batch_rows, tokens->n_tokens, FALSE) + moments_floats (source, m->widest);
  /* A tied head's moments wait from one end of the way back to the other. */
  return sizeof (float) * (stream + embd * embd + qz_layer_weights_floats (source) + MAX (head, MAX (back, there))) + largest_tensor (source);
}

/* What a step of tuning has in memory beside the weights of half a layer; packed matrices are mapped. */
static double tune_bytes (const QzSource *source, const QzTokens *tokens, guint n_workers)
{
  const EngTraits *t = &source->traits;
  double rows = (double) QZ_TUNE_SEQUENCES * tokens->n_tokens, all_rows = 0;
  for (guint m = 0; m < source->n_matrices; m++)
    all_rows += source->matrices[m].rows;
  double stream = rows * t->n_embd * (4.0 + 2 * t->parallel + 4 * (t->n_experts > 0)) + rows * t->n_experts;
  double head = (2.0 * QZ_TUNE_HEAD_ROWS + 2.0 * n_workers) * t->n_vocab + WALK_ROWS * t->n_embd + 2.0 * QZ_TUNE_HEAD_ROWS * t->n_embd;
  double back = qz_layer_pass_floats (t, n_workers, (guint) rows, tokens->n_tokens, TRUE) + qz_layer_weights_floats (source);
  return sizeof (float) * (stream + 5 * all_rows + head + back);
}

/* The factor, a packed matrix at its largest, and what each worker has in hand; searched: what the search for codes takes beyond that of words of 12 bits. */
static double fit_bytes (const QzSource *source, guint n_workers, double searched)
{
  double most = 0;
  for (guint m = 0; m < source->n_matrices; m++) {
    const QzMatrix *matrix = &source->matrices[m];
    double cols = matrix->cols, packed = 1.1 * matrix->rows * cols * QZ_MOST_DEPTH / 8;
    gboolean streamed = m == 0 || matrix->role == QZ_ROLE_HEAD; /* its pages go as its rows are packed */
    double bytes = cols * cols * (sizeof (float) + 1) + packed + (double) n_workers * ENCODE_ROWS * cols * sizeof (float) * ENCODE_COPIES
                   + (streamed ? 0 : matrix->tensor->bytes) + (double) n_workers * searched;
    most = MAX (most, bytes);
  }
  double logits = sizeof (float) * (2.0 * SCORED_ROWS * source->traits.n_vocab + (double) WALK_ROWS * source->traits.n_embd);
  return MAX (most, logits);
}

static guint64 bytes_of (const QzSource *source, const QzTokens *tokens, guint n_workers, const QzMemory *m)
{
  double held = sizeof (float) * 1.5 * (tokens->n_all / 8.0) * source->traits.n_embd; /* states of the held-out text */
  double tuned = tokens->is_tuned ? tune_bytes (source, tokens, n_workers) : 0;
  double spun = tokens->is_rotated ? sizeof (float) * qz_spin_floats (source) : 0;
  return eng_memory_rss () + margin_bytes
         + margin * (kept_bytes (source) + held + spun + MAX (observe_bytes (source, tokens, n_workers, m), MAX (fit_bytes (source, n_workers, tokens->is_tuned ? LONG_SEARCH_BYTES : 0), tuned)));
}

gboolean qz_memory_choose (const QzSource *source, const QzTokens *tokens, guint n_workers, guint64 bytes, QzMemory *memory, GError **error)
{
  static const guint widest[] = { QZ_WIDEST, 8192, 4096, 2048, 1024 };
  static const struct { guint batch, head; } rows[] = { { 1024, 256 }, { 512, 128 }, { 256, 64 }, { 256, 16 } };
  guint64 total, available, allowed = bytes, least = G_MAXUINT64;
  eng_memory_machine (&total, &available);
  if (allowed == 0)
    allowed = total / 4 * 3;
  /* Whole moments are worth more than large batches, which only save time. */
  for (guint w = 0; w < G_N_ELEMENTS (widest); w++)
    for (guint r = 0; r < G_N_ELEMENTS (rows); r++) {
      *memory = (QzMemory){ MAX (1, rows[r].batch / tokens->n_tokens) * tokens->n_tokens, rows[r].head, widest[w], 0 };
      memory->bytes = bytes_of (source, tokens, n_workers, memory);
      least = MIN (least, memory->bytes);
      if (memory->bytes <= allowed)
        return TRUE;
    }
  /* Rounded up; and the program's own part differs by some pages from one start to the next. */
  g_autofree char *needed = g_strdup_printf ("%.0fM", least / 1e6 + 1.5), *there = g_format_size (allowed);
  g_set_error (error, ENG_ERROR, ENG_ERROR_MEMORY, "fitting %s takes at least %s of memory, more than %s: %s", eng_gguf_path (source->gguf), needed, there,
               bytes > 0 ? "allow it more" : "choose a smaller model");
  return FALSE;
}
