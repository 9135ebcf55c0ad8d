/* decoder.c: the graph. Each step is a function over units (tokens, heads or bands of 16 rows) run by the workers; a layer has four
 * products, q k v and gate up being one each, and for one token what lies between them runs on the caller alone. */
#include "engine/decoder.h"
#include "engine/activation.h"
#include "engine/error.h"
#include "engine/rope.h"

#include <math.h>
#include <string.h>
#include <sys/mman.h>

enum {
  MAX_PRODUCTS = 3,
  TOKEN_BLOCK = 16 /* tokens of a prompt whose attention is one call */
};

/* An input as one or more products take it: after the pipeline, quantized or f32. */
typedef struct {
  const xb_input *input;
  xb_acts acts;
  float *f32; /* the exact path, [n][cols] */
} Prepared;

typedef struct {
  const EngMatrix *matrix;
  Prepared *prepared; /* NULL: raw, takes x itself */
  const float *bias;  /* or NULL */
  float *y;           /* [n][ldy] */
  gsize ldy;
  gboolean is_logits;
  guint n_bands;
} Product;

struct EngDecoder {
  EngModel *model;
  const EngTraits *traits;
  EngWorkers *workers;
  EngScratchLayout layout;
  guint8 *memory;
  int activation_bits;
  float *hidden, *normed, *branch, *q, *attended, *k, *v, *gate, *up, *cos_sin, *cos_sin_local, *logits;
  float *many_logits; /* one row a token, mapped when all logits are first wanted */
  gsize many_logits_bytes;
  float *last_logits;    /* of the last pass that made any */
  double *rope_frequency, *rope_frequency_local; /* [n_rot / 2] radians per position */

  /* The step being run; set by the caller before the workers start, read by all. */
  EngKvCache *cache;
  const gint32 *tokens;
  guint n, n_past, layer;
  const float *x;        /* [n][ldx], cols of them inputs of the products */
  gsize ldx;
  float *added;          /* [n][n_embd] goes to the hidden state, or NULL; */
  const EngNorm *added_norm; /* normed by this first, or NULL; */
  gboolean add_late;     /* not before the norm but after it */
  const EngNorm *norm;   /* normed = norm (hidden), or NULL */
  gboolean activate;     /* the gate's activation before the products */
  guint cols;
  Product products[MAX_PRODUCTS];
  guint n_products;
  Prepared prepared[MAX_PRODUCTS];
  guint n_prepared;
};

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

void eng_scratch_layout (EngScratchLayout *l, const EngTraits *t, const EngSessionOptions *options, guint n_workers)
{
  gsize at = 0, f = sizeof (float), n = MIN (options->batch > 0 ? options->batch : ENG_DEFAULT_BATCH, MAX (options->n_ctx, 1));
  guint q_dim = t->n_heads * t->head_dim, kv_dim = t->n_kv_heads * t->head_dim;
  guint widest = MAX (MAX (t->n_embd, q_dim), t->n_ff);
  l->batch = n;
  l->q_stride = t->fused_qkv ? q_dim + 2 * kv_dim : q_dim;
  l->kv_stride = t->fused_qkv ? l->q_stride : kv_dim;
  l->ff_stride = t->fused_gate_up ? 2 * t->n_ff : t->n_ff;
  l->hidden = take (&at, n * t->n_embd * f);
  l->normed = take (&at, n * t->n_embd * f);
  l->branch = t->parallel ? take (&at, n * t->n_embd * f) : l->normed;
  gsize shared = at, attention, feed_forward;
  l->q = take (&at, n * l->q_stride * f);
  l->k = t->fused_qkv ? l->q + q_dim * f : take (&at, n * kv_dim * f);
  l->v = t->fused_qkv ? l->k + kv_dim * f : take (&at, n * kv_dim * f);
  l->attended = take (&at, n * l->q_stride * f);
  attention = at;
  at = shared;
  l->gate = take (&at, n * l->ff_stride * f);
  l->up = t->fused_gate_up ? l->gate + t->n_ff * f : t->ungated ? l->gate : take (&at, n * t->n_ff * f);
  feed_forward = at;
  at = MAX (attention, feed_forward);
  for (guint i = 0; i < G_N_ELEMENTS (l->prepared); i++)
    l->prepared[i] = take (&at, prepared_bytes (i == 0 ? widest : t->n_embd, n, options->activation_bits));
  l->cos_sin = take (&at, n * t->n_rot * f);
  l->cos_sin_local = t->rope_theta_local > 0 ? take (&at, n * t->n_rot * f) : l->cos_sin;
  l->row_bytes = (widest * f + 63) / 64 * 64;
  l->rows = take (&at, l->row_bytes * n_workers);
  l->logits = take (&at, t->n_vocab * f);
  l->bytes = at;
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
  d->hidden = (float *)(memory + layout.hidden);
  d->normed = (float *)(memory + layout.normed);
  d->branch = (float *)(memory + layout.branch);
  d->q = (float *)(memory + layout.q);
  d->attended = (float *)(memory + layout.attended);
  d->k = (float *)(memory + layout.k);
  d->v = (float *)(memory + layout.v);
  d->gate = (float *)(memory + layout.gate);
  d->up = (float *)(memory + layout.up);
  d->cos_sin = (float *)(memory + layout.cos_sin);
  d->cos_sin_local = (float *)(memory + layout.cos_sin_local);
  d->logits = d->last_logits = (float *)(memory + layout.logits);
  d->rope_frequency = g_new (double, d->traits->n_rot);
  d->rope_frequency_local = d->rope_frequency + d->traits->n_rot / 2;
  eng_rope_frequencies (d->rope_frequency, d->traits, eng_model_rope_factors (model, options->n_ctx), FALSE);
  eng_rope_frequencies (d->rope_frequency_local, d->traits, NULL, d->traits->rope_theta_local > 0);
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
static float *logits_for (EngDecoder *d, guint n, EngLogitsWanted wanted, GError **error)
{
  gsize bytes = (gsize)n * d->traits->n_vocab * sizeof (float);
  if (wanted != ENG_LOGITS_ALL || n == 1)
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

/* A row of the widest input that belongs to one worker. */
static float *worker_row (EngDecoder *d, guint worker)
{
  return (float *)(d->memory + d->layout.rows + worker * d->layout.row_bytes);
}

/* ---- embedding ----------------------------------------------------------------------------------------------------------- */

static void embed_tokens (gpointer data, guint begin, guint end, guint worker)
{
  EngDecoder *d = data;
  const EngMatrix *embedding = eng_model_embedding (d->model);
  const EngTraits *t = d->traits;
  float magnitude = t->rope_magnitude > 0 ? t->rope_magnitude : 1;
  for (guint i = begin; i < end; i++) {
    float *out = d->hidden + (gsize)i * t->n_embd;
    guint row = d->tokens[i];
    if (embedding->xbit == NULL) {
      gsize size = embedding->raw_type == XB_RAW_F32 ? 4 : 2;
      xb_raw_to_f32 (embedding->raw_type, (const guint8 *)embedding->raw + (gsize)row * t->n_embd * size, out, t->n_embd);
    } else if (embedding->input == NULL) {
      xb_dequantize_rows (embedding->xbit, row, row + 1, out);
    } else {
      float *stored = worker_row (d, worker);
      xb_dequantize_rows (embedding->xbit, row, row + 1, stored);
      xb_input_restore_row (embedding->input, stored, out);
    }
    if (t->embedding_scale > 0)
      xb_scale (out, t->embedding_scale, t->n_embd);
    eng_rope_position (d->cos_sin + (gsize)i * t->n_rot, d->rope_frequency, t->n_rot, d->n_past + i, magnitude);
    if (t->rope_theta_local > 0)
      eng_rope_position (d->cos_sin_local + (gsize)i * t->n_rot, d->rope_frequency_local, t->n_rot, d->n_past + i, 1);
  }
}

/* ---- inputs of products -------------------------------------------------------------------------------------------------- */

static void prepare_token (EngDecoder *d, guint i, guint worker)
{
  const float *x = d->x + (gsize)i * d->ldx;
  for (guint j = 0; j < d->n_prepared; j++) {
    Prepared *p = &d->prepared[j];
    if (d->activation_bits == 32) {
      xb_input_apply (p->input, x, p->f32 + (gsize)i * d->cols);
      continue;
    }
    float *turned = worker_row (d, worker);
    if (p->input != NULL)
      xb_input_apply (p->input, x, turned);
    xb_acts_quantize (&p->acts, i, p->input != NULL ? turned : x, d->activation_bits);
  }
}

static void apply_norm (const EngTraits *t, const EngNorm *norm, const float *x, float *out)
{
  if (t->layer_norm)
    xb_layer_norm (x, norm->gain, norm->bias, out, t->n_embd, t->norm_eps);
  else
    xb_rms_norm (x, norm->gain, out, t->n_embd, t->norm_eps);
}

static void add_to_hidden (EngDecoder *d, guint i)
{
  const EngTraits *t = d->traits;
  float *added = d->added + (gsize)i * t->n_embd;
  if (d->added_norm != NULL)
    apply_norm (t, d->added_norm, added, added);
  if (t->residual_scale > 0)
    xb_scale (added, t->residual_scale, t->n_embd);
  xb_add (d->hidden + (gsize)i * t->n_embd, added, t->n_embd);
}

/* Between two products, token by token: residual and norm, or activation, then the inputs of what follows. */
static void prepare_tokens (gpointer data, guint begin, guint end, guint worker)
{
  EngDecoder *d = data;
  const EngTraits *t = d->traits;
  for (guint i = begin; i < end; i++) {
    gsize at = (gsize)i * t->n_embd, ff = (gsize)i * d->layout.ff_stride;
    if (d->added != NULL && !d->add_late)
      add_to_hidden (d, i);
    if (d->norm != NULL)
      apply_norm (t, d->norm, d->hidden + at, d->normed + at);
    if (d->added != NULL && d->add_late)
      add_to_hidden (d, i);
    if (d->activate)
      eng_activate (t->activation, d->gate + ff, t->ungated ? NULL : d->up + ff, t->n_ff);
    prepare_token (d, i, worker);
  }
}

/* y is [n][ldy]; ldy 0: the matrix's rows. */
static Product *add_product (EngDecoder *d, const EngMatrix *matrix, const float *bias, float *y, gsize ldy)
{
  Product *product = &d->products[d->n_products++];
  *product = (Product){ .matrix = matrix,
                        .bias = bias,
                        .y = y,
                        .ldy = ldy > 0 ? ldy : matrix->rows,
                        .n_bands = (matrix->rows + XB_TILE_ROWS - 1) / XB_TILE_ROWS };
  if (matrix->xbit == NULL || (d->activation_bits == 32 && matrix->input == NULL))
    return product;
  guint j = 0;
  while (j < d->n_prepared && d->prepared[j].input != matrix->input)
    j++;
  if (j == d->n_prepared) {
    guint8 *memory = d->memory + d->layout.prepared[d->n_prepared++];
    d->prepared[j] = (Prepared){ .input = matrix->input, .f32 = (float *)memory };
    if (d->activation_bits != 32)
      xb_acts_init (&d->prepared[j].acts, memory, matrix->cols, d->n);
  }
  product->prepared = &d->prepared[j];
  return product;
}

/* ---- products ------------------------------------------------------------------------------------------------------------ */

static void multiply_rows (EngDecoder *d, const Product *product, guint row0, guint row1)
{
  const EngMatrix *m = product->matrix;
  const Prepared *p = product->prepared;
  guint n = d->n;
  if (m->xbit == NULL)
    xb_raw_matmul (m->raw_type, m->raw, m->cols, d->x, d->ldx, n, product->y, product->ldy, row0, row1);
  else if (d->activation_bits == 32)
    xb_matmul_f32 (m->xbit, p != NULL ? p->f32 : d->x, p != NULL ? m->cols : d->ldx, n, product->y, product->ldy, row0, row1);
  else if (n == 1)
    xb_matvec (m->xbit, &p->acts, product->y, row0, row1);
  else
    xb_matmul (m->xbit, &p->acts, product->y, product->ldy, row0, row1);
  for (guint i = 0; product->bias != NULL && i < n; i++)
    xb_add (product->y + i * product->ldy + row0, product->bias + row0, row1 - row0);
  const EngTraits *t = d->traits;
  for (guint i = 0; product->is_logits && (t->logit_scale > 0 || t->logit_soft_cap > 0) && i < n; i++)
    eng_cap (product->y + i * product->ldy + row0, t->logit_scale > 0 ? t->logit_scale : 1, t->logit_soft_cap, row1 - row0);
}

/* Units are the bands of all products, one after the other. */
static void multiply_bands (gpointer data, guint begin, guint end, guint worker)
{
  EngDecoder *d = data;
  guint first = 0;
  for (guint j = 0; j < d->n_products; j++) {
    const Product *product = &d->products[j];
    guint b = MAX (begin, first), e = MIN (end, first + product->n_bands);
    if (b < e)
      multiply_rows (d, product, (b - first) * XB_TILE_ROWS, MIN ((e - first) * XB_TILE_ROWS, product->matrix->rows));
    first += product->n_bands;
  }
}

/* ---- attention ----------------------------------------------------------------------------------------------------------- */

static void rope (const EngTraits *t, float *x, const float *cos_sin)
{
  if (t->rope_halves)
    xb_rope_halves (x, cos_sin, t->n_rot);
  else
    xb_rope_pairs (x, cos_sin, t->n_rot);
}

/* The norm of n_heads queries or keys. */
static void norm_heads (const EngTraits *t, float *x, guint n_heads, const float *gain)
{
  guint n = t->qk_norm == ENG_QK_NORM_WIDTH ? n_heads * t->head_dim : t->head_dim;
  for (float *end = x + (gsize)n_heads * t->head_dim; x < end; x += n) {
    if (t->layer_norm)
      xb_layer_norm (x, gain, NULL, x, n, t->norm_eps);
    else
      xb_rms_norm (x, gain, x, n, t->norm_eps);
    gain += t->qk_norm == ENG_QK_NORM_HEADS ? n : 0;
  }
}

static void store_tokens (gpointer data, guint begin, guint end, guint worker)
{
  EngDecoder *d = data;
  const EngTraits *t = d->traits;
  const EngLayer *layer = eng_model_layer (d->model, d->layer);
  gboolean turned = eng_traits_turned (t, d->layer);
  const float *all_cos_sin = eng_traits_windowed (t, d->layer) ? d->cos_sin_local : d->cos_sin;
  for (guint i = begin; i < end; i++) {
    const float *cos_sin = all_cos_sin + (gsize)i * t->n_rot;
    float *q = d->q + (gsize)i * d->layout.q_stride;
    float *k = d->k + (gsize)i * d->layout.kv_stride, *v = d->v + (gsize)i * d->layout.kv_stride;
    if (t->qk_norm != ENG_QK_NORM_NONE) {
      norm_heads (t, q, t->n_heads, layer->q_norm);
      norm_heads (t, k, t->n_kv_heads, layer->k_norm);
    }
    for (guint head = 0; head < t->n_heads; head++, q += t->head_dim) {
      if (turned)
        rope (t, q, cos_sin);
      if (d->cache->hadamard > 1)
        xb_hadamard (q, t->head_dim, d->cache->hadamard);
    }
    for (guint head = 0; head < t->n_kv_heads; head++, k += t->head_dim, v += t->head_dim) {
      if (turned)
        rope (t, k, cos_sin);
      eng_kv_cache_store (d->cache, d->layer, head, d->n_past + i, k, v);
    }
  }
}

/* Query heads first_head .. + n_heads - 1, which share one KV head, of tokens first .. first + n - 1, which see alike where they begin. */
static void attend_alike (EngDecoder *d, guint kv_head, guint first_head, guint n_heads, guint first, guint n, guint kv_begin)
{
  const EngTraits *t = d->traits;
  gsize stride = d->layout.q_stride, at = first * stride + (gsize)first_head * t->head_dim;
  xb_attention attention = { .kv_begin = kv_begin,
                             .kv_end = d->n_past + first + 1,
                             .scale = t->attention_scale > 0 ? t->attention_scale : 1 / sqrtf (t->head_dim),
                             .soft_cap = t->attention_soft_cap };
  eng_kv_cache_view (d->cache, d->layer, kv_head, &attention);
  xb_attend (&attention, d->q + at, t->head_dim, n_heads, stride, n, d->attended + at);
  for (guint i = 0; d->cache->hadamard > 1 && i < n; i++)
    xb_hadamard (d->attended + at + i * stride, (gsize)n_heads * t->head_dim, d->cache->hadamard);
}

/* Tokens whose window begins within the context go one by one. */
static void attend (EngDecoder *d, guint kv_head, guint first_head, guint n_heads, guint first, guint n)
{
  guint window = eng_traits_windowed (d->traits, d->layer) ? d->traits->window : G_MAXUINT, end = d->n_past + first + n;
  if (end <= window) {
    attend_alike (d, kv_head, first_head, n_heads, first, n, 0);
    return;
  }
  for (guint i = first; i < first + n; i++)
    attend_alike (d, kv_head, first_head, n_heads, i, 1, d->n_past + i + 1 - MIN (window, d->n_past + i + 1));
}

/* One token: units are query heads, those of a KV head in one call where one worker has them. */
static void attend_heads (gpointer data, guint begin, guint end, guint worker)
{
  EngDecoder *d = data;
  guint group = d->traits->n_heads / d->traits->n_kv_heads;
  for (guint head = begin, next; head < end; head = next) {
    next = MIN (end, (head / group + 1) * group);
    attend (d, head / group, head, next - head, 0, 1);
  }
}

/* Many tokens: units are blocks of TOKEN_BLOCK of them, KV head by KV head. */
static void attend_blocks (gpointer data, guint begin, guint end, guint worker)
{
  EngDecoder *d = data;
  guint group = d->traits->n_heads / d->traits->n_kv_heads, n_blocks = (d->n + TOKEN_BLOCK - 1) / TOKEN_BLOCK;
  for (guint unit = begin; unit < end; unit++) {
    guint kv_head = unit / n_blocks, first = unit % n_blocks * TOKEN_BLOCK;
    attend (d, kv_head, kv_head * group, group, first, MIN (TOKEN_BLOCK, d->n - first));
  }
}

/* ---- the pass ------------------------------------------------------------------------------------------------------------ */

typedef struct {
  EngObserver function;
  gpointer data;
} Observer;

/* Starts a step whose products read x [n][ldx]. */
static void begin_step (EngDecoder *d, const float *x, guint cols, gsize ldx)
{
  d->x = x;
  d->cols = cols;
  d->ldx = ldx;
  d->added = NULL;
  d->added_norm = d->norm = NULL;
  d->add_late = d->activate = FALSE;
  d->n_products = d->n_prepared = 0;
}

static void run_step (EngDecoder *d, const Observer *observer)
{
  guint n_bands = 0;
  eng_workers_run (d->workers, prepare_tokens, d, d->n, 1);
  for (guint j = 0; j < d->n_products; j++) {
    n_bands += d->products[j].n_bands;
    if (observer->function != NULL)
      observer->function (observer->data, d->products[j].matrix, d->x, d->ldx, d->n);
  }
  eng_workers_run (d->workers, multiply_bands, d, n_bands, 2);
}

/* Keeps the last token of the batch only: nothing after the last attention depends on the others. */
static void narrow_to_last (EngDecoder *d)
{
  gsize last = d->n - 1, embd = d->traits->n_embd, stride = d->layout.q_stride;
  if (last > 0) {
    memcpy (d->hidden, d->hidden + last * embd, embd * sizeof (float));
    memcpy (d->normed, d->normed + last * embd, embd * sizeof (float));
    memcpy (d->attended, d->attended + last * stride, stride * sizeof (float));
  }
  d->n = 1;
}

/* What the layer before has left in normed, to be added to the hidden state in this step. */
static void add_feed_forward (EngDecoder *d)
{
  if (d->layer == 0)
    return;
  d->added = d->normed;
  d->added_norm = d->traits->post_norm ? &eng_model_layer (d->model, d->layer - 1)->ffn_post_norm : NULL;
}

static void run_attention (EngDecoder *d, const EngLayer *layer, const Observer *observer)
{
  const EngTraits *t = d->traits;
  begin_step (d, t->no_pre_norm ? d->hidden : d->normed, t->n_embd, t->n_embd);
  d->norm = t->no_pre_norm ? NULL : &layer->attn_norm;
  add_feed_forward (d);
  if (t->fused_qkv) {
    add_product (d, &layer->attn_qkv, layer->qkv_bias, d->q, d->layout.q_stride);
  } else {
    add_product (d, &layer->attn_q, layer->q_bias, d->q, 0);
    add_product (d, &layer->attn_k, layer->k_bias, d->k, 0);
    add_product (d, &layer->attn_v, layer->v_bias, d->v, 0);
  }
  run_step (d, observer);
  eng_workers_run (d->workers, store_tokens, d, d->n, 1);
  if (d->n == 1)
    eng_workers_run (d->workers, attend_heads, d, t->n_heads, 1);
  else
    eng_workers_run (d->workers, attend_blocks, d, (d->n + TOKEN_BLOCK - 1) / TOKEN_BLOCK * t->n_kv_heads, 1);
}

static void run_feed_forward (EngDecoder *d, const EngLayer *layer, const Observer *observer)
{
  const EngTraits *t = d->traits;
  begin_step (d, d->attended, t->n_heads * t->head_dim, d->layout.q_stride);
  add_product (d, &layer->attn_output, layer->output_bias, d->branch, 0);
  run_step (d, observer);

  begin_step (d, t->no_pre_norm ? d->hidden : d->normed, t->n_embd, t->n_embd);
  d->added = d->branch;
  d->added_norm = t->post_norm ? &layer->attn_post_norm : NULL;
  d->add_late = t->parallel;
  d->norm = t->no_pre_norm || t->shared_norm ? NULL : &layer->ffn_norm;
  if (t->ungated || t->fused_gate_up) {
    add_product (d, &layer->ffn_up, layer->up_bias, d->gate, 0);
  } else {
    add_product (d, &layer->ffn_gate, layer->gate_bias, d->gate, 0);
    add_product (d, &layer->ffn_up, layer->up_bias, d->up, 0);
  }
  run_step (d, observer);

  begin_step (d, d->gate, t->n_ff, d->layout.ff_stride);
  d->activate = TRUE;
  add_product (d, &layer->ffn_down, layer->down_bias, d->normed, 0);
  run_step (d, observer);
}

/* With an observer the head's inputs of every token are shown, whatever is wanted. */
static void run_head (EngDecoder *d, EngLogitsWanted wanted, const Observer *observer)
{
  const EngTraits *t = d->traits;
  begin_step (d, d->normed, t->n_embd, t->n_embd);
  add_feed_forward (d);
  d->norm = eng_model_output_norm (d->model);
  eng_workers_run (d->workers, prepare_tokens, d, d->n, 1);
  if (observer->function != NULL)
    observer->function (observer->data, eng_model_head (d->model), d->normed, t->n_embd, d->n);
  if (wanted == ENG_LOGITS_NONE)
    return;
  if (wanted == ENG_LOGITS_LAST && d->n > 1) {
    memcpy (d->normed, d->normed + (gsize)(d->n - 1) * t->n_embd, t->n_embd * sizeof (float));
    d->n = 1;
  }
  begin_step (d, d->normed, t->n_embd, t->n_embd);
  add_product (d, eng_model_head (d->model), eng_model_head_bias (d->model), d->last_logits, 0)->is_logits = TRUE;
  run_step (d, &(Observer){ NULL, NULL });
}

gboolean eng_decoder_forward (EngDecoder *d, EngKvCache *cache, const gint32 *tokens, guint n, guint n_past, EngLogitsWanted wanted,
                              EngObserver observer, gpointer observer_data, GCancellable *cancellable, GError **error)
{
  const Observer seen = { observer, observer_data };
  float *logits = wanted == ENG_LOGITS_NONE ? d->last_logits : logits_for (d, n, wanted, error);
  if (logits == NULL)
    return FALSE;
  d->cache = cache;
  d->tokens = tokens;
  d->n = n;
  d->n_past = n_past;
  eng_workers_run (d->workers, embed_tokens, d, n, 1);
  for (d->layer = 0; d->layer < d->traits->n_layers; d->layer++) {
    const EngLayer *layer = eng_model_layer (d->model, d->layer);
    if (g_cancellable_is_cancelled (cancellable)) {
      g_set_error_literal (error, ENG_ERROR, ENG_ERROR_CANCELLED, "cancelled");
      return FALSE;
    }
    run_attention (d, layer, &seen);
    if (d->layer + 1 == d->traits->n_layers && observer == NULL) {
      if (wanted == ENG_LOGITS_NONE)
        return TRUE;
      if (wanted == ENG_LOGITS_LAST)
        narrow_to_last (d);
    }
    run_feed_forward (d, layer, &seen);
  }
  d->last_logits = logits;
  run_head (d, wanted, &seen);
  return TRUE;
}
