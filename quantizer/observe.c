/* observe.c: the float model is read one layer at a time; a layer's input is kept in half precision for the way back.
 *
 * For a change dW of a matrix, the loss grows by about 1/2 E (g . dW x)^2, and with outputs taken as independent of each other and of
 * x by 1/2 sum_i E g_i^2 (dW_i H dW_i^T), H = E x x^T (Fisher; the Kronecker view of Martens and Grosse 2015). Both factors are averages
 * over tokens, the gradient g being that of the whole sequence's loss, so the sum is in nats per token. */
#include "quantizer/observe.h"

#include "engine/error.h"
#include "engine/memory_plan.h"
#include "kernels/xbit.h"
#include "quantizer/head.h"
#include "quantizer/layer.h"
#include "quantizer/product.h"

#include <string.h>

enum { BATCH_TOKENS = 1024, HEAD_TOKENS = 256 };

/* Of the vocabulary's weight, the part shared evenly so that no token's row is worthless; and the least of a control token. */
static const double vocabulary_floor = 0.05, control_floor = 2e-4;

typedef struct {
  const QzSource *source;
  const EngTraits *traits;
  const QzCalibration *calibration;
  const QzObserver *to;
  EngWorkers *workers;
  QzObservation *out;
  GCancellable *cancellable;

  guint tokens_per_sequence, batch_sequences, n_backward; /* sequences */
  gsize n_rows;             /* of the residual stream: all sequences' tokens */
  float *x;                 /* [n_rows][n_embd] */
  guint16 *kept;            /* [n_layers][n_backward tokens][n_embd] f16, layers' inputs */
  float *dx;                /* [n_backward tokens][n_embd] */
  float *h[QZ_LAYER_INPUTS];
  float *g[QZ_LAYER_MATRICES]; /* sums of g g^T, block after block; NULL when nobody asks */
  double *probability, *head_fisher; /* [n_vocab] sums over the backward tokens */
  QzLayerWeights weights;
  QzLayerPass pass;         /* its memory serves every layer */
} Observer;

static gboolean step (Observer *o, double fraction, const char *what, GError **error)
{
  const QzObserver *to = o->to;
  if (to->progress != NULL)
    to->progress (to->from + fraction * (to->to - to->from), what, to->progress_data);
  if (g_cancellable_is_cancelled (o->cancellable)) {
    g_set_error (error, ENG_ERROR, ENG_ERROR_CANCELLED, "the analysis was cancelled; nothing was written");
    return FALSE;
  }
  return TRUE;
}

static void scale_upper (float *h, guint n, double scale)
{
  for (guint i = 0; i < n; i++)
    for (guint j = i; j < n; j++)
      h[(gsize) i * n + j] *= scale;
}

/* x = rows of the embedding. */
static gboolean embed (Observer *o, GError **error)
{
  const QzCalibration *c = o->calibration;
  for (gsize i = 0; i < o->n_rows; i++) {
    guint token = c->tokens[i];
    if (token >= o->traits->n_vocab) {
      g_set_error (error, ENG_ERROR, ENG_ERROR_FORMAT, "the tokenizer of %s makes token %u, beyond the embedding's %u rows",
                   eng_gguf_path (o->source->gguf), token, o->traits->n_vocab);
      return FALSE;
    }
    if (!qz_source_read_rows (o->source, 0, token, token + 1, o->x + i * o->traits->n_embd, error))
      return FALSE;
  }
  return TRUE;
}

/* ---- forward ------------------------------------------------------------------------------------------------------------ */

static gsize kept_rows (const Observer *o)
{
  return (gsize) o->n_backward * o->tokens_per_sequence;
}

static void add_moments (Observer *o, const QzLayerPass *pass)
{
  const EngTraits *t = o->traits;
  guint q_rows = t->n_heads * t->head_dim;
  qz_product_gram (o->workers, t->n_embd, pass->n, pass->attn_in, t->n_embd, o->h[0], t->n_embd);
  qz_product_gram (o->workers, q_rows, pass->n, pass->attn_out, q_rows, o->h[1], q_rows);
  qz_product_gram (o->workers, t->n_embd, pass->n, pass->ffn_in, t->n_embd, o->h[2], t->n_embd);
  qz_product_gram (o->workers, t->n_ff, pass->n, pass->down_in, t->n_ff, o->h[3], t->n_ff);
}

static gboolean forward_layer (Observer *o, guint layer, GError **error)
{
  const QzCalibration *c = o->calibration;
  guint embd = o->traits->n_embd, all = c->n_sequences + c->n_held;
  if (!qz_layer_weights_read (&o->weights, o->source, layer, o->workers, error))
    return FALSE;
  xb_f32_to_f16 (o->x, o->kept + kept_rows (o) * embd * layer, kept_rows (o) * embd);
  for (guint i = 0; i < QZ_LAYER_INPUTS; i++) {
    guint cols = o->source->input_cols[qz_source_layer_input (layer) + i];
    memset (o->h[i], 0, sizeof (float) * cols * cols);
  }
  /* The held-out sequences go along for their final states but teach nothing. */
  for (guint s = 0; s < all;) {
    gboolean learn = s < c->n_sequences;
    guint n = MIN (o->batch_sequences, (learn ? c->n_sequences : all) - s);
    qz_layer_pass_resize (&o->pass, n);
    qz_layer_forward (o->traits, &o->weights, &o->pass, o->workers, o->x + (gsize) s * c->n_tokens * embd);
    if (learn)
      add_moments (o, &o->pass);
    s += n;
    if (!step (o, 0.5 * (layer + (double) s / all) / o->traits->n_layers, "Reading the calibration text", error))
      return FALSE;
  }
  for (guint i = 0; i < QZ_LAYER_INPUTS; i++) {
    guint input = qz_source_layer_input (layer) + i, cols = o->source->input_cols[input];
    scale_upper (o->h[i], cols, 1.0 / ((double) c->n_sequences * c->n_tokens));
    if (!o->to->moments (o->to->data, input, o->h[i], error))
      return FALSE;
  }
  return TRUE;
}

/* ---- head --------------------------------------------------------------------------------------------------------------- */

/* Final norm; moments of the head's input left in h[0]; gradient at the end of the last layer in dx. */
static gboolean run_head (Observer *o, GError **error)
{
  const EngTraits *t = o->traits;
  const QzCalibration *c = o->calibration;
  guint embd = t->n_embd;
  gsize learn = (gsize) c->n_sequences * c->n_tokens, held = (gsize) c->n_held * c->n_tokens;
  g_autofree float *gain = g_new (float, embd);
  g_autofree float *f = g_new (float, o->n_rows * embd);
  g_autofree float *logits = g_try_malloc_n ((gsize) HEAD_TOKENS * t->n_vocab, sizeof (float));
  g_autofree float *df = g_new (float, (gsize) HEAD_TOKENS * embd);
  if (logits == NULL) {
    g_set_error (error, ENG_ERROR, ENG_ERROR_MEMORY, "there is not enough memory for a vocabulary of %u tokens: close other programs and try again",
                 t->n_vocab);
    return FALSE;
  }
  if (!qz_source_read_vector (o->source, "output_norm.weight", embd, gain, error))
    return FALSE;
  qz_norm_forward (o->workers, o->x, gain, t->norm_eps, o->n_rows, embd, f);
  o->out->held_hidden = g_memdup2 (f + learn * embd, held * embd * sizeof (float));
  memset (o->h[0], 0, sizeof (float) * embd * embd);
  qz_product_gram (o->workers, embd, learn, f, embd, o->h[0], embd);
  scale_upper (o->h[0], embd, 1.0 / learn);

  memset (o->dx, 0, sizeof (float) * kept_rows (o) * embd);
  for (gsize i = 0; i < kept_rows (o); i += HEAD_TOKENS) {
    guint n = MIN (HEAD_TOKENS, kept_rows (o) - i);
    if (!qz_head_backward (o->source, o->workers, f + i * embd, n, o->to->seed ^ (i << 20), logits, df, o->probability, o->head_fisher, error))
      return FALSE;
    qz_norm_backward (o->workers, o->x + i * embd, gain, t->norm_eps, n, embd, df, o->dx + i * embd);
    if (!step (o, 0.5 + 0.1 * (i + n) / kept_rows (o), "Measuring what matters", error))
      return FALSE;
  }
  return TRUE;
}

/* ---- backward ----------------------------------------------------------------------------------------------------------- */

/* fisher[j] += sum over n rows of g[.][j]^2 / divisor. */
static void add_squares (float *fisher, const float *g, guint n, guint cols, double divisor)
{
  g_autofree float *sum = g_new0 (float, cols);
  for (guint i = 0; i < n; i++)
    for (guint j = 0; j < cols; j++)
      sum[j] += g[(gsize) i * cols + j] * g[(gsize) i * cols + j];
  for (guint j = 0; j < cols; j++)
    fisher[j] += sum[j] / divisor;
}

/* Rows that a matrix's gradients are correlated in together. */
static guint block_rows (const Observer *o, guint rows)
{
  return rows <= o->to->gradients_widest ? rows : MAX (1, o->to->gradients_block);
}

/* Floats of all blocks of a matrix, the last one as large as the others. */
static gsize block_floats (const Observer *o, guint rows)
{
  guint block = block_rows (o, rows);
  return (gsize) (rows + block - 1) / block * block * block;
}

/* g += sum over the pass's rows of x x^T, x [n][rows], block by block. */
static void add_products (Observer *o, float *g, const float *x, guint n, guint rows)
{
  guint block = block_rows (o, rows);
  for (guint row0 = 0; row0 < rows; row0 += block, g += (gsize) block * block)
    qz_product_gram (o->workers, MIN (block, rows - row0), n, x + row0, rows, g, MIN (block, rows - row0));
}

static void add_fisher (Observer *o, guint layer, const QzLayerPass *pass, const float *d_out)
{
  const float *const gradients[QZ_LAYER_MATRICES] = { pass->d_q, pass->d_k, pass->d_v, pass->d_middle, pass->d_gate, pass->d_up, d_out };
  for (guint i = 0; i < QZ_LAYER_MATRICES; i++) {
    guint m = qz_source_layer_matrix (layer, QZ_ROLE_Q) + i;
    add_squares (o->out->row_fisher[m], gradients[i], pass->n, o->source->matrices[m].rows, kept_rows (o));
    if (o->to->gradients != NULL)
      add_products (o, o->g[i], gradients[i], pass->n, o->source->matrices[m].rows);
  }
}

static gboolean hand_over_gradients (Observer *o, guint layer, GError **error)
{
  for (guint i = 0; i < QZ_LAYER_MATRICES; i++) {
    guint m = qz_source_layer_matrix (layer, QZ_ROLE_Q) + i, rows = o->source->matrices[m].rows, block = block_rows (o, rows);
    float *g = o->g[i];
    for (guint row0 = 0; row0 < rows; row0 += block, g += (gsize) block * block) {
      guint n = MIN (block, rows - row0);
      scale_upper (g, n, 1.0 / kept_rows (o));
      if (!o->to->gradients (o->to->data, m, row0, n, g, error))
        return FALSE;
    }
  }
  return TRUE;
}

static gboolean backward_layer (Observer *o, guint layer, GError **error)
{
  guint embd = o->traits->n_embd, tokens = o->tokens_per_sequence;
  for (guint i = 0; o->to->gradients != NULL && i < QZ_LAYER_MATRICES; i++)
    memset (o->g[i], 0, sizeof (float) * block_floats (o, o->source->matrices[qz_source_layer_matrix (layer, QZ_ROLE_Q) + i].rows));
  if (!qz_layer_weights_read (&o->weights, o->source, layer, o->workers, error))
    return FALSE;
  for (guint s = 0; s < o->n_backward;) {
    guint n = MIN (o->batch_sequences, o->n_backward - s);
    gsize row = (gsize) s * tokens, floats = (gsize) n * tokens * embd;
    qz_layer_pass_resize (&o->pass, n);
    g_autofree float *in = g_new (float, floats);
    g_autofree float *x = g_new (float, floats);
    g_autofree float *d_out = g_memdup2 (o->dx + row * embd, sizeof (float) * floats);
    xb_raw_to_f32 (XB_RAW_F16, o->kept + (kept_rows (o) * layer + row) * embd, in, floats);
    memcpy (x, in, sizeof (float) * floats);
    qz_layer_forward (o->traits, &o->weights, &o->pass, o->workers, x);
    qz_layer_backward (o->traits, &o->weights, &o->pass, o->workers, in, o->dx + row * embd);
    add_fisher (o, layer, &o->pass, d_out);
    s += n;
    if (!step (o, 1 - 0.4 * (layer + 1 - (double) s / o->n_backward) / o->traits->n_layers, "Measuring what matters", error))
      return FALSE;
  }
  return o->to->gradients == NULL || hand_over_gradients (o, layer, error);
}

/* ---- vocabulary --------------------------------------------------------------------------------------------------------- */

/* How often each token is looked up: what the text shows, smoothed by what the model expects, and a floor for the rest. Sums to 1. */
static void token_frequencies (const Observer *o, double *frequency)
{
  guint n_vocab = o->traits->n_vocab;
  gsize learn = (gsize) o->calibration->n_sequences * o->calibration->n_tokens;
  for (guint v = 0; v < n_vocab; v++)
    frequency[v] = 0.5 * o->probability[v] / kept_rows (o);
  for (gsize i = 0; i < learn; i++)
    frequency[o->calibration->tokens[i]] += 0.5 / learn;
  for (guint v = 0; v < n_vocab; v++)
    frequency[v] = (1 - vocabulary_floor) * frequency[v] + vocabulary_floor / n_vocab;
}

/* A chat is made of control tokens that no text holds: their rows get a weight of their own. */
static void raise_control_tokens (const Observer *o, float *weight, double total)
{
  gsize n = eng_gguf_array_length (o->source->gguf, "tokenizer.ggml.token_type", NULL);
  for (guint v = 0; v < MIN (n, o->traits->n_vocab); v++)
    if (eng_gguf_array_int (o->source->gguf, "tokenizer.ggml.token_type", v) == 3)
      weight[v] = MAX (weight[v], control_floor * total);
}

/* A row of a tied embedding errs twice: as a head row, weighted by p (1 - p) over E f f^T, and as a look-up, weighted by its frequency
 * over E g g^T. Both weights follow the token's frequency, so one sum of moments A E f f^T + E g g^T serves every row, with
 * A = sum_v E p_v (1 - p_v), and a row's weight is the mean of its two shares. */
static gboolean finish_vocabulary (Observer *o, float *head_moments, GError **error)
{
  guint n_vocab = o->traits->n_vocab, embd = o->traits->n_embd;
  gboolean tied = o->traits->tied_head;
  guint head = qz_source_head (o->source);
  g_autofree double *frequency = g_new (double, n_vocab);
  double total = 0;
  token_frequencies (o, frequency);
  for (guint v = 0; v < n_vocab; v++)
    total += o->head_fisher[v] / kept_rows (o);
  float *look_up = o->h[1];
  memset (look_up, 0, sizeof (float) * embd * embd);
  qz_product_gram (o->workers, embd, kept_rows (o), o->dx, embd, look_up, embd);
  scale_upper (look_up, embd, 1.0 / kept_rows (o));

  for (guint v = 0; v < n_vocab; v++) {
    double share = total > 0 ? o->head_fisher[v] / kept_rows (o) / total : 0;
    share = (1 - vocabulary_floor) * share + vocabulary_floor / n_vocab;
    o->out->row_fisher[0][v] = tied ? 0.5 * (share + frequency[v]) : frequency[v];
    if (!tied)
      o->out->row_fisher[head][v] = share * total;
  }
  raise_control_tokens (o, o->out->row_fisher[0], 1);
  if (!tied) {
    raise_control_tokens (o, o->out->row_fisher[head], total);
    if (!o->to->moments (o->to->data, o->source->matrices[head].input, head_moments, error))
      return FALSE;
  } else {
    for (gsize i = 0; i < (gsize) embd * embd; i++)
      look_up[i] += total * head_moments[i];
  }
  return o->to->moments (o->to->data, 0, look_up, error);
}

/* ---- all together ------------------------------------------------------------------------------------------------------- */

static gboolean observe (Observer *o, GError **error)
{
  guint n_layers = o->traits->n_layers, embd = o->traits->n_embd;
  if (!qz_layer_weights_init (&o->weights, o->source, error) || !embed (o, error))
    return FALSE;
  qz_layer_pass_init (&o->pass, o->traits, &o->weights, o->batch_sequences, o->tokens_per_sequence, FALSE);
  for (guint l = 0; l < n_layers; l++)
    if (!forward_layer (o, l, error))
      return FALSE;
  qz_layer_pass_clear (&o->pass);
  if (!run_head (o, error))
    return FALSE;
  qz_layer_pass_init (&o->pass, o->traits, &o->weights, MIN (o->batch_sequences, o->n_backward), o->tokens_per_sequence, TRUE);
  g_autofree float *head_moments = g_memdup2 (o->h[0], sizeof (float) * embd * embd);
  for (guint l = n_layers; l-- > 0;)
    if (!backward_layer (o, l, error))
      return FALSE;
  return finish_vocabulary (o, head_moments, error);
}

/* Refuses in time, rather than fail halfway: the largest things that are in memory at once. */
static gboolean check_memory (const Observer *o, GError **error)
{
  const EngTraits *t = o->traits;
  double q_rows = (double) t->n_heads * t->head_dim, embd = t->n_embd, ff = t->n_ff, batch = (double) o->batch_sequences * o->tokens_per_sequence;
  double widest = MAX (MAX (embd, q_rows), ff), total, available;
  double squares = 2 * embd * embd + q_rows * q_rows + ff * ff + 3 * widest * widest; /* moments, and copies while one is factored */
  double layer = 4 * embd * q_rows + 3 * embd * ff;
  double pass = batch * (6 * q_rows + 8 * embd + 5 * ff + (double) t->n_heads * o->tokens_per_sequence);
  double tokens = (double) o->n_rows * 2 * embd + (double) kept_rows (o) * embd * (1 + t->n_layers / 2.0);
  double head = (double) HEAD_TOKENS * t->n_vocab + 4096 * embd;
  double gradients = 0;
  for (guint i = 0; o->to->gradients != NULL && i < QZ_LAYER_MATRICES; i++)
    gradients += block_floats (o, o->source->matrices[qz_source_layer_matrix (0, QZ_ROLE_Q) + i].rows);
  double need = sizeof (float) * (squares + layer + pass + tokens + head + gradients);
  guint64 total_bytes, available_bytes;
  eng_memory_machine (&total_bytes, &available_bytes);
  total = total_bytes;
  available = available_bytes;
  if (need <= available)
    return TRUE;
  g_autofree char *needed = g_format_size (need), *there = g_format_size (available);
  g_set_error (error, ENG_ERROR, ENG_ERROR_MEMORY, "analysing %s takes %s of memory, and only %s are free: %s", eng_gguf_path (o->source->gguf), needed,
               there, need <= total ? "close other programs and try again" : "choose a smaller model");
  return FALSE;
}

gboolean qz_observe (const QzSource *source, const QzCalibration *calibration, const QzObserver *observer, EngWorkers *workers,
                     QzObservation *observation, GCancellable *cancellable, GError **error)
{
  const EngTraits *t = &source->traits;
  Observer o = { .source = source, .traits = t, .calibration = calibration, .to = observer, .workers = workers, .out = observation,
                 .cancellable = cancellable };
  guint backward_tokens = observer->backward_tokens > 0 ? observer->backward_tokens : QZ_BACKWARD_TOKENS;
  o.tokens_per_sequence = calibration->n_tokens;
  o.batch_sequences = MAX (1, BATCH_TOKENS / calibration->n_tokens);
  o.n_backward = MIN (calibration->n_sequences, MAX (1, backward_tokens / calibration->n_tokens));
  o.n_rows = (gsize) (calibration->n_sequences + calibration->n_held) * calibration->n_tokens;
  if (!check_memory (&o, error))
    return FALSE;
  *observation = (QzObservation){ .n_matrices = source->n_matrices, .row_fisher = g_new0 (float *, source->n_matrices) };
  for (guint m = 0; m < source->n_matrices; m++)
    observation->row_fisher[m] = g_new0 (float, source->matrices[m].rows);
  o.x = g_new (float, o.n_rows * t->n_embd);
  o.kept = g_new (guint16, (gsize) t->n_layers * kept_rows (&o) * t->n_embd);
  o.dx = g_new (float, kept_rows (&o) * t->n_embd);
  o.probability = g_new0 (double, t->n_vocab);
  o.head_fisher = g_new0 (double, t->n_vocab);
  guint q_rows = t->n_heads * t->head_dim;
  const guint cols[QZ_LAYER_INPUTS] = { t->n_embd, MAX (q_rows, t->n_embd), t->n_embd, t->n_ff };
  for (guint i = 0; i < QZ_LAYER_INPUTS; i++)
    o.h[i] = g_new (float, (gsize) cols[i] * cols[i]);
  for (guint i = 0; observer->gradients != NULL && i < QZ_LAYER_MATRICES; i++)
    o.g[i] = g_new (float, block_floats (&o, source->matrices[qz_source_layer_matrix (0, QZ_ROLE_Q) + i].rows));

  gboolean ok = observe (&o, error);

  qz_layer_pass_clear (&o.pass);
  qz_layer_weights_clear (&o.weights);
  for (guint i = 0; i < QZ_LAYER_INPUTS; i++)
    g_free (o.h[i]);
  for (guint i = 0; i < QZ_LAYER_MATRICES; i++)
    g_free (o.g[i]);
  g_free (o.x);
  g_free (o.kept);
  g_free (o.dx);
  g_free (o.probability);
  g_free (o.head_fisher);
  if (!ok)
    qz_observation_clear (observation);
  return ok;
}

void qz_observation_clear (QzObservation *observation)
{
  for (guint m = 0; m < observation->n_matrices && observation->row_fisher != NULL; m++)
    g_free (observation->row_fisher[m]);
  g_free (observation->row_fisher);
  g_free (observation->held_hidden);
  *observation = (QzObservation){ 0 };
}
