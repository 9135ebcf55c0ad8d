/* decoder.c: the graph. Each step is a function over units (tokens, heads or bands of 16 rows) run by the workers; a layer has four
 * products, q k v and gate up being one each, and for one token what lies between them runs on the caller alone. */
#include "engine/decoder_private.h"
#include "engine/error.h"
#include "engine/rope.h"
#include "kernels/dense.h"

#include <math.h>
#include <string.h>
#include <sys/mman.h>

enum { TOKEN_BLOCK = 16 /* tokens of a prompt whose attention is one call */ };

/* ---- memory -------------------------------------------------------------------------------------------------------------- */

static gsize take (gsize *at, gsize bytes)
{
  gsize offset = *at;
  *at = (offset + bytes + 63) / 64 * 64;
  return offset;
}

static gsize prepared_bytes (guint cols, guint batch, int activation_bits)
{
  return activation_bits == 32 ? (gsize)cols * batch * sizeof (float) : xb_acts_bytes (cols, batch);
}

/* Room for a matrix that is filled up. */
static guint filled (guint cols)
{
  return (cols + ENG_MAX_FILLED - 1) / ENG_MAX_FILLED * ENG_MAX_FILLED;
}

guint eng_batch_of (const EngSessionOptions *options)
{
  return MIN (options->batch > 0 ? options->batch : ENG_DEFAULT_BATCH, MAX (options->n_ctx, 1));
}

void eng_scratch_layout (EngScratchLayout *l, const EngTraits *t, const EngSessionOptions *options, guint n_workers)
{
  gsize at = 0, f = sizeof (float), n = eng_batch_of (options);
  guint q_dim = t->n_heads * t->head_dim, k_dim = t->n_kv_heads * t->head_dim, v_dim = t->n_kv_heads * t->value_dim;
  guint attended_dim = t->n_heads * t->value_dim;
  guint ff = MAX (MAX (t->n_ff, t->n_ff_shared), t->n_ff_dense), widest = MAX (MAX (MAX (t->n_embd, attended_dim), ff), t->latent_query);
  l->batch = n;
  l->q_stride = t->fused_qkv ? q_dim + k_dim + v_dim : q_dim;
  l->k_stride = t->fused_qkv ? l->q_stride : k_dim;
  l->v_stride = t->fused_qkv ? l->q_stride : v_dim;
  l->ff_stride = t->fused_gate_up ? 2 * t->n_ff : t->n_ff;
  l->places = take (&at, n * sizeof (EngPlace));
  l->units = take (&at, n * sizeof (EngAttentionUnit));
  l->hidden = take (&at, n * t->n_embd * f);
  l->normed = take (&at, n * t->n_embd * f);
  l->branch = t->parallel ? take (&at, n * t->n_embd * f) : l->normed;
  gsize shared = at, attention, feed_forward;
  l->q = take (&at, n * l->q_stride * f);
  l->k = t->fused_qkv ? l->q + q_dim * f : take (&at, n * k_dim * f);
  l->v = t->fused_qkv ? l->k + k_dim * f : take (&at, n * v_dim * f);
  l->attended = take (&at, n * attended_dim * f);
  l->q_a = take (&at, n * t->latent_query * f);
  l->q_whole = t->latent > 0 ? take (&at, n * t->n_heads * (t->latent_key + t->n_rot) * f) : at;
  l->values = t->latent > 0 ? take (&at, n * t->n_heads * t->latent_value * f) : l->attended;
  attention = at;
  at = shared;
  l->gate = take (&at, n * MAX (l->ff_stride, ff) * f);
  l->up = t->fused_gate_up ? l->gate + t->n_ff * f : t->ungated ? l->gate : take (&at, n * ff * f);
  l->router = take (&at, t->n_experts * (n + 2) * f);
  l->choices = take (&at, t->n_experts_used * n * sizeof (EngChoice));
  l->gathered = t->n_experts > 0 ? take (&at, n * t->n_embd * f) : at;
  l->mixed = t->n_experts > 0 ? take (&at, n * t->n_embd * f) : at;
  feed_forward = at;
  at = MAX (attention, feed_forward);
  for (guint i = 0; i < G_N_ELEMENTS (l->prepared); i++)
    l->prepared[i] = take (&at, t->raw ? 0 : prepared_bytes (filled (i == 0 ? widest : t->n_embd), n, options->activation_bits));
  l->cos_sin = take (&at, n * t->n_rot * f);
  l->cos_sin_local = t->rope_theta_local > 0 ? take (&at, n * t->n_rot * f) : l->cos_sin;
  l->row_bytes = filled (MAX (widest, 2 * t->latent)) * f;
  l->rows = take (&at, l->row_bytes * n_workers);
  l->logit_rows = MAX (MAX (options->n_sessions, 1), options->n_drafted > 0 ? options->n_drafted + 1 : 1);
  l->logits = take (&at, (gsize)l->logit_rows * t->n_vocab * f);
  l->balance = options->kv_bits == 4 && t->qk_norm == ENG_QK_NORM_HEAD ? take (&at, (gsize)t->n_layers * t->head_dim * f) : 0;
  l->first_keys = options->kv_bits == 4 && t->qk_norm == ENG_QK_NORM_NONE && t->latent == 0 ? take (&at, (gsize)t->n_layers * k_dim * f) : 0;
  l->bytes = at;
}

/* [n_heads] by which a head's scores fall with each position (Press et al. 2021): a geometric row for the largest power of two among
 * the heads, and every other one of the next row for the others. */
static float *make_slopes (const EngTraits *t)
{
  guint whole = 1u << (g_bit_storage (t->n_heads) - 1);
  float *slopes = g_new (float, t->n_heads);
  for (guint i = 0; i < t->n_heads; i++)
    slopes[i] = exp2 (-(double)t->alibi * (i < whole ? i + 1 : i - whole + 0.5) / whole);
  return slopes;
}

/* The cache's codes err alike in every channel of a head, so a channel that is large in the keys and small in the queries pays for nothing. Scaled
 * by a, keys err by the mean of a^2 k^2, and scores by that times the sum of q^2 / a^2: least for a^2 = |q| / |k| (SmoothQuant's idea, Xiao et al.
 * 2023, section 4.1, between the two sides of a score). Where both are normed head by head the norms' gains say how large they are. Both of a pair that
 * rope turns have the same. */
static void fill_balance (const EngModel *model, float *balance)
{
  const EngTraits *t = eng_model_traits (model);
  for (guint l = 0; l < t->n_layers; l++) {
    const EngLayer *layer = eng_model_layer (model, l);
    float *scale = balance + (gsize)l * t->head_dim;
    double logs = 0;
    for (guint i = 0; i < t->head_dim; i++) {
      guint half = t->n_rot / 2, partner = i >= t->n_rot ? i : !t->rope_halves ? i ^ 1 : i < half ? i + half : i - half;
      double q = hypot (layer->q_norm[i], layer->q_norm[partner]), k = hypot (layer->k_norm[i], layer->k_norm[partner]);
      scale[i] = (float)sqrt (CLAMP ((q + 0.03) / (k + 0.03), 1 / 16.0, 16));
      logs += log (scale[i]) / t->head_dim;
    }
    for (guint i = 0; i < t->head_dim; i++)
      scale[i] *= (float)exp (-logs);
  }
}

EngDecoder *eng_decoder_new (EngModel *model, EngWorkers *workers, const EngSessionOptions *options, GError **error)
{
  int bits = options->activation_bits;
  if (bits != 8 && bits != 4 && bits != 32) {
    g_set_error (error, ENG_ERROR, ENG_ERROR_ARGUMENT, "activations of %d bits are not known: choose 8, 4 or 32", bits);
    return NULL;
  }
  EngScratchLayout layout;
  eng_scratch_layout (&layout, eng_model_traits (model), options, eng_workers_count (workers));
  guint8 *memory = mmap (NULL, layout.bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) {
    g_set_error (error, ENG_ERROR, ENG_ERROR_MEMORY,
                 "the system does not give the %" G_GSIZE_FORMAT " MB that computing needs: choose a smaller batch",
                 layout.bytes / 1000000);
    return NULL;
  }
  EngDecoder *d = g_new0 (EngDecoder, 1);
  d->model = eng_model_ref (model);
  d->traits = eng_model_traits (model);
  d->workers = workers;
  d->layout = layout;
  d->memory = memory;
  d->activation_bits = bits;
  d->places = (EngPlace *)(gpointer)(memory + layout.places);
  d->units = (EngAttentionUnit *)(gpointer)(memory + layout.units);
  d->hidden = (float *)(memory + layout.hidden);
  d->normed = (float *)(memory + layout.normed);
  d->branch = (float *)(memory + layout.branch);
  d->router = (float *)(memory + layout.router);
  d->gathered = (float *)(memory + layout.gathered);
  d->mixed = (float *)(memory + layout.mixed);
  d->choices = (EngChoice *)(memory + layout.choices);
  d->q = (float *)(memory + layout.q);
  d->attended = (float *)(memory + layout.attended);
  d->k = (float *)(memory + layout.k);
  d->v = (float *)(memory + layout.v);
  d->q_a = (float *)(memory + layout.q_a);
  d->q_whole = (float *)(memory + layout.q_whole);
  d->values = (float *)(memory + layout.values);
  d->gate = (float *)(memory + layout.gate);
  d->up = (float *)(memory + layout.up);
  d->cos_sin = (float *)(memory + layout.cos_sin);
  d->cos_sin_local = (float *)(memory + layout.cos_sin_local);
  d->logits = d->last_logits = (float *)(memory + layout.logits);
  d->slopes = make_slopes (d->traits);
  if (layout.balance > 0) {
    d->balance = (float *)(memory + layout.balance);
    fill_balance (model, d->balance);
  }
  d->rope_frequency = g_new (double, d->traits->n_rot);
  d->rope_frequency_local = d->rope_frequency + d->traits->n_rot / 2;
  eng_rope_frequencies (d->rope_frequency, d->traits, eng_model_rope_factors (model, options->n_ctx), options->n_ctx, FALSE);
  eng_rope_frequencies (d->rope_frequency_local, d->traits, NULL, options->n_ctx, d->traits->rope_theta_local > 0);
  return d;
}

static void unmap_many_logits (EngDecoder *d)
{
  if (d->many_logits != NULL)
    munmap (d->many_logits, d->many_logits_bytes);
  if (d->last_logits == d->many_logits)
    d->last_logits = d->logits;
  d->many_logits = NULL;
}

void eng_decoder_free (EngDecoder *decoder)
{
  if (decoder == NULL)
    return;
  unmap_many_logits (decoder);
  munmap (decoder->memory, decoder->layout.bytes);
  eng_model_unref (decoder->model);
  g_free (decoder->slopes);
  g_free (decoder->rope_frequency);
  g_free (decoder);
}

guint eng_decoder_batch (const EngDecoder *decoder)
{
  return decoder->layout.batch;
}

float *eng_decoder_logits (EngDecoder *decoder, guint row)
{
  return decoder->last_logits + (gsize)row * decoder->traits->n_vocab;
}

/* Where the logits of this pass go. */
static float *logits_for (EngDecoder *d, guint n, GError **error)
{
  gsize bytes = (gsize)n * d->traits->n_vocab * sizeof (float);
  if (n <= d->layout.logit_rows)
    return d->logits;
  if (d->many_logits != NULL && bytes <= d->many_logits_bytes)
    return d->many_logits;
  unmap_many_logits (d);
  void *memory = mmap (NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) {
    g_set_error (error, ENG_ERROR, ENG_ERROR_MEMORY,
                 "the system does not give the %" G_GSIZE_FORMAT " MB for the logits of %u tokens", bytes / 1000000, n);
    return NULL;
  }
  d->many_logits_bytes = bytes;
  return d->many_logits = memory;
}

/* ---- embedding ----------------------------------------------------------------------------------------------------------- */

void eng_matrix_row (const EngMatrix *matrix, guint row, float *out, float *stored)
{
  if (matrix->xbit == NULL) {
    gsize size = matrix->raw_type == XB_RAW_F32 ? 4 : 2;
    xb_raw_to_f32 (matrix->raw_type, (const guint8 *)matrix->raw + (gsize)row * matrix->cols * size, out, matrix->cols);
  } else if (matrix->input == NULL) {
    xb_dequantize_rows (matrix->xbit, row, row + 1, out);
  } else {
    xb_dequantize_rows (matrix->xbit, row, row + 1, stored);
    xb_input_restore_row (matrix->input, stored, out);
  }
}

static void embed_tokens (gpointer data, guint begin, guint end, guint worker)
{
  EngDecoder *d = data;
  const EngMatrix *embedding = eng_model_embedding (d->model), *positions = eng_model_positions (d->model);
  const EngNorm *norm = eng_model_embedding_norm (d->model);
  const EngTraits *t = d->traits;
  float magnitude = t->rope_magnitude > 0 ? t->rope_magnitude : 1;
  for (guint i = begin; i < end; i++) {
    float *out = d->hidden + (gsize)i * t->n_embd, *stored = eng_decoder_worker_row (d, worker);
    const EngSlice *slice = &d->slices[d->places[i].slice];
    guint position = d->places[i].position, row = slice->tokens[position - slice->n_past];
    eng_matrix_row (embedding, row, out, stored);
    if (t->embedding_scale > 0)
      xb_scale (out, t->embedding_scale, t->n_embd);
    if (positions != NULL) {
      eng_matrix_row (positions, position, d->normed + (gsize)i * t->n_embd, stored);
      xb_add (out, d->normed + (gsize)i * t->n_embd, t->n_embd);
    }
    if (norm != NULL)
      eng_decoder_apply_norm (t, norm, out, out, t->n_embd);
    eng_rope_position (d->cos_sin + (gsize)i * t->n_rot, d->rope_frequency, t->n_rot, position, magnitude);
    if (t->rope_theta_local > 0)
      eng_rope_position (d->cos_sin_local + (gsize)i * t->n_rot, d->rope_frequency_local, t->n_rot, position, 1);
  }
}

/* ---- the stream's coordinates -------------------------------------------------------------------------------------------- */

enum { TURNED_COLS = 64 /* of the result, by one worker */ };

typedef struct {
  EngDecoder *decoder;
  gboolean back;
} Turn;

/* normed = hidden R, or back hidden R^T, by stretches of its columns. */
static void turn_columns (gpointer data, guint begin, guint end, guint worker)
{
  const Turn *turn = data;
  EngDecoder *d = turn->decoder;
  gsize embd = d->traits->n_embd, from = (gsize)begin * TURNED_COLS, to = MIN ((gsize)end * TURNED_COLS, embd);
  const float *rotation = eng_model_rotation (d->model) + (turn->back ? from * embd : from);
  xb_gemm (false, turn->back, 0, d->n, to - from, embd, d->hidden, embd, rotation, embd, 0, d->normed + from, embd);
}

/* Where the model is rotated: the hidden states into the layers' coordinates, or back out of them. */
static void turn_stream (EngDecoder *d, gboolean back)
{
  guint embd = d->traits->n_embd;
  if (eng_model_rotation (d->model) == NULL || d->n == 0)
    return;
  eng_workers_run (d->workers, turn_columns, &(Turn){ d, back }, (embd + TURNED_COLS - 1) / TURNED_COLS, 1);
  memcpy (d->hidden, d->normed, (gsize)d->n * embd * sizeof (float));
}

/* ---- the pass ------------------------------------------------------------------------------------------------------------ */

/* Tokens of all slices one behind the other, and the stretches whose attention is one call. */
static void place_tokens (EngDecoder *d)
{
  d->n = d->n_units = 0;
  for (guint j = 0; j < d->n_slices; j++) {
    const EngSlice *slice = &d->slices[j];
    for (guint i = 0; i < slice->n; i++, d->n++) {
      if (i % TOKEN_BLOCK == 0)
        d->units[d->n_units++] = (EngAttentionUnit){ d->n, MIN (TOKEN_BLOCK, slice->n - i) };
      d->places[d->n] = (EngPlace){ j, slice->n_past + i };
    }
  }
}

static guint n_wanted (const EngSlice *slice)
{
  return slice->wanted == ENG_LOGITS_ALL ? slice->n : slice->wanted == ENG_LOGITS_LAST;
}

/* Keeps the tokens whose logits are wanted: nothing after the last attention depends on the others. */
static void narrow (EngDecoder *d)
{
  gsize embd = d->traits->n_embd, attended = (gsize)d->traits->n_heads * d->traits->value_dim;
  guint first = 0, n = 0;
  for (guint j = 0; j < d->n_slices; first += d->slices[j++].n) {
    EngSlice *slice = &d->slices[j];
    guint wanted = n_wanted (slice);
    gsize from = first + slice->n - wanted;
    slice->logits_row = n;
    if (from != n) {
      memmove (d->hidden + n * embd, d->hidden + from * embd, wanted * embd * sizeof (float));
      memmove (d->normed + n * embd, d->normed + from * embd, wanted * embd * sizeof (float));
      memmove (d->attended + n * attended, d->attended + from * attended, wanted * attended * sizeof (float));
    }
    n += wanted;
  }
  d->n = n;
}

/* What the layer before has left in normed, to be added to the hidden state in this step. */
static void add_feed_forward (EngDecoder *d)
{
  if (d->layer == 0)
    return;
  d->added = d->normed;
  d->added_norm = d->traits->post_norm ? &eng_model_layer (d->model, d->layer - 1)->ffn_post_norm : NULL;
}

static void run_attention (EngDecoder *d, const EngLayer *layer, const EngWatch *watch)
{
  const EngTraits *t = d->traits;
  eng_step_begin (d, t->no_pre_norm ? d->hidden : d->normed, t->n_embd, t->n_embd);
  d->norm = t->no_pre_norm ? NULL : &layer->attn_norm;
  add_feed_forward (d);
  eng_decoder_run_attention (d, layer, watch);
}

static void run_feed_forward (EngDecoder *d, const EngLayer *layer, const EngWatch *watch)
{
  const EngTraits *t = d->traits;
  eng_decoder_begin_output (d, layer);
  eng_step_add (d, &layer->attn_output, layer->output_bias, d->branch, 0);
  eng_step_run (d, watch);

  eng_step_begin (d, t->no_pre_norm ? d->hidden : d->normed, t->n_embd, t->n_embd);
  d->added = d->branch;
  d->added_norm = t->post_norm ? &layer->attn_post_norm : NULL;
  d->add_late = t->parallel;
  d->norm = t->no_pre_norm || t->shared_norm ? NULL : &layer->ffn_norm;
  if (eng_traits_has_experts (t, d->layer)) {
    eng_decoder_run_experts (d, layer, watch);
    return;
  }
  if (t->ungated || t->fused_gate_up) {
    eng_step_add (d, &layer->ffn_up, layer->up_bias, d->gate, 0);
  } else {
    eng_step_add (d, &layer->ffn_gate, layer->gate_bias, d->gate, 0);
    eng_step_add (d, &layer->ffn_up, layer->up_bias, d->up, 0);
  }
  eng_step_run (d, watch);

  guint ff = t->n_experts > 0 ? t->n_ff_dense : t->n_ff;
  eng_step_begin (d, d->gate, ff, t->fused_gate_up ? 2 * ff : ff);
  d->activate = TRUE;
  d->sub_norm = t->sub_norm ? &layer->ffn_sub_norm : NULL;
  eng_step_add (d, &layer->ffn_down, layer->down_bias, d->normed, 0);
  eng_step_run (d, watch);
}

/* With an observer the head's inputs of every token are shown, whatever is wanted. */
static void run_head (EngDecoder *d, const EngWatch *watch)
{
  const EngTraits *t = d->traits;
  eng_step_begin (d, d->normed, t->n_embd, t->n_embd);
  add_feed_forward (d);
  if (eng_model_rotation (d->model) != NULL) {
    eng_step_prepare (d);
    turn_stream (d, TRUE);
    eng_step_begin (d, d->normed, t->n_embd, t->n_embd);
  }
  d->norm = eng_model_output_norm (d->model);
  eng_step_prepare (d);
  if (watch->function != NULL) {
    watch->function (watch->data, eng_model_head (d->model), d->normed, t->n_embd, d->n);
    narrow (d);
  }
  if (d->n == 0)
    return;
  eng_step_begin (d, d->normed, t->n_embd, t->n_embd);
  eng_step_add (d, eng_model_head (d->model), eng_model_head_bias (d->model), d->last_logits, 0)->is_logits = TRUE;
  eng_step_run (d, &(EngWatch){ NULL, NULL });
}

gboolean eng_decoder_forward (EngDecoder *d, EngSlice *slices, guint n_slices, EngObserver observer, gpointer observer_data,
                              GCancellable *cancellable, GError **error)
{
  const EngWatch seen = { observer, observer_data };
  guint rows = 0;
  for (guint i = 0; i < n_slices; i++)
    rows += n_wanted (&slices[i]);
  float *logits = rows == 0 ? d->last_logits : logits_for (d, rows, error);
  if (logits == NULL)
    return FALSE;
  d->slices = slices;
  d->n_slices = n_slices;
  place_tokens (d);
  eng_workers_run (d->workers, embed_tokens, d, d->n, 1);
  turn_stream (d, FALSE);
  for (d->layer = 0; d->layer < d->traits->n_layers; d->layer++) {
    const EngLayer *layer = eng_model_layer (d->model, d->layer);
    if (g_cancellable_is_cancelled (cancellable)) {
      g_set_error_literal (error, ENG_ERROR, ENG_ERROR_CANCELLED, "cancelled");
      return FALSE;
    }
    run_attention (d, layer, &seen);
    if (d->layer + 1 == d->traits->n_layers && observer == NULL) {
      if (rows == 0)
        return TRUE;
      narrow (d);
    }
    run_feed_forward (d, layer, &seen);
  }
  d->last_logits = logits;
  run_head (d, &seen);
  return TRUE;
}
