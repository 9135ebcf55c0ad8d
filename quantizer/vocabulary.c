/* vocabulary.c: both ends of the stream, and what the rows of the embedding and the head weigh. */
#include "quantizer/observe_private.h"

#include "engine/error.h"
#include "engine/model.h"
#include "kernels/ops.h"
#include "quantizer/head.h"
#include "quantizer/rotation.h"

#include <string.h>

/* Of the vocabulary's weight, the least part that is shared evenly, so that no token's row is worthless; and the least of a control token of chats. */
static const double vocabulary_floor = 0.05, control_floor = 2e-4;

/* Rows first..first+n-1 of the stream before any norm: scaled rows of the embedding, and of the positions where these are learned. */
static gboolean embed_rows (const QzObserving *o, gsize first, gsize n, float *out, GError **error)
{
  const QzCalibration *c = o->calibration;
  const EngTraits *t = o->traits;
  const EngTensor *positions = t->learned_positions ? eng_gguf_find_tensor (o->source->gguf, "position_embd.weight") : NULL;
  g_autofree float *all_positions = NULL;
  if (t->learned_positions && (positions == NULL || positions->n_dims != 2 || positions->dims[0] != t->n_embd || positions->dims[1] < c->n_tokens)) {
    g_set_error (error, ENG_ERROR, ENG_ERROR_FORMAT, "%s has no tensor position_embd.weight of %u columns: download the model again",
                 eng_gguf_path (o->source->gguf), t->n_embd);
    return FALSE;
  }
  if (positions != NULL) {
    all_positions = g_new (float, positions->dims[0] * positions->dims[1]);
    if (!qz_source_read_vector (o->source, positions, all_positions, error))
      return FALSE;
  }
  for (gsize i = 0; i < n; i++, out += t->n_embd) {
    guint token = c->tokens[first + i];
    if (token >= t->n_vocab) {
      g_set_error (error, ENG_ERROR, ENG_ERROR_FORMAT, "the tokenizer of %s makes token %u, beyond the embedding's %u rows",
                   eng_gguf_path (o->source->gguf), token, t->n_vocab);
      return FALSE;
    }
    if (!qz_source_read_rows (o->source, 0, token, token + 1, out, error))
      return FALSE;
    if (t->embedding_scale > 0)
      xb_scale (out, t->embedding_scale, t->n_embd);
    if (all_positions != NULL)
      xb_add (out, all_positions + (first + i) % c->n_tokens * t->n_embd, t->n_embd);
  }
  eng_gguf_drop_tensor (o->source->gguf, o->source->matrices[0].tensor);
  return TRUE;
}

/* Whether the embedding is normed. */
static gboolean has_norm (const QzObserving *o)
{
  return eng_gguf_find_tensor (o->source->gguf, "token_embd_norm.weight") != NULL;
}

/* Rows of the stream, or its gradient, into the layers' coordinates, or back. */
static void turn (const QzObserving *o, gboolean back, gsize n, float *x)
{
  guint embd = o->traits->n_embd, rows;
  if (o->source->rotation == NULL)
    return;
  g_autofree float *turned = g_new (float, (gsize) o->batch_rows * embd);
  for (gsize row = 0; row < n; row += rows) {
    rows = MIN (o->batch_rows, n - row);
    qz_rotate_rows (o->workers, back, rows, embd, x + row * embd, o->source->rotation, turned);
    memcpy (x + row * embd, turned, sizeof (float) * rows * embd);
  }
}

void qz_observe_leave (QzObserving *o)
{
  turn (o, TRUE, o->n_all, o->x);
}

void qz_observe_return (QzObserving *o)
{
  turn (o, FALSE, o->n_back, o->dx);
}

gboolean qz_observe_embed (QzObserving *o, GError **error)
{
  QzNorm norm;
  g_autofree float *memory = NULL;
  if (!embed_rows (o, 0, o->n_all, o->x, error) || !qz_stream_norm_read (o->source, "token_embd_norm", &norm, &memory, error))
    return FALSE;
  if (has_norm (o))
    qz_norm (&norm, o->x, o->n_all, o->traits->n_embd, o->x);
  turn (o, FALSE, o->n_all, o->x);
  return TRUE;
}

/* dx of the stream becomes that of the embedding's rows. */
static gboolean embed_backward (QzObserving *o, GError **error)
{
  const EngTraits *t = o->traits;
  QzNorm norm;
  g_autofree float *memory = NULL, *x = NULL, *d_y = NULL;
  gsize floats = o->n_back * t->n_embd;
  turn (o, TRUE, o->n_back, o->dx);
  if (has_norm (o)) {
    x = g_new (float, floats);
    if (!embed_rows (o, 0, o->n_back, x, error) || !qz_stream_norm_read (o->source, "token_embd_norm", &norm, &memory, error))
      return FALSE;
    d_y = g_memdup2 (o->dx, sizeof (float) * floats);
    memset (o->dx, 0, sizeof (float) * floats);
    qz_norm_backward (&norm, x, d_y, o->n_back, t->n_embd, o->dx);
  }
  if (t->embedding_scale > 0)
    xb_scale (o->dx, t->embedding_scale, floats);
  return TRUE;
}

gboolean qz_observe_embed_slopes (QzObserving *o, float *slope, GError **error)
{
  guint embd = o->traits->n_embd;
  g_autofree float *row = g_new (float, embd);
  if (!embed_backward (o, error))
    return FALSE;
  for (gsize i = 0; i < o->n_back; i++) {
    guint token = o->calibration->tokens[i];
    if (!qz_source_read_rows (o->source, 0, token, token + 1, row, error))
      return FALSE;
    for (guint j = 0; j < embd; j++)
      slope[token] += row[j] * o->dx[i * embd + j];
  }
  return TRUE;
}

/* ---- the end of the stream ----------------------------------------------------------------------------------------------- */

static void norm_rows (QzObserving *o, const QzNorm *norm, gsize row, guint n, float *out)
{
  qz_norm (norm, o->x + row * o->traits->n_embd, n, o->traits->n_embd, out);
}

static gboolean way_back_begins (QzObserving *o, const QzNorm *norm, float *f, float *logits, GError **error)
{
  guint embd = o->traits->n_embd, n;
  g_autofree float *df = g_new (float, (gsize) o->head_rows * embd);
  memset (o->dx, 0, sizeof (float) * o->n_back * embd);
  for (gsize row = 0; row < o->n_back; row += n) {
    n = MIN (o->head_rows, o->n_back - row);
    QzLabels labels = { o->to->seed ^ (row << 20), o->to->labels != NULL ? o->to->labels + row : NULL, o->probability, o->head_fisher };
    norm_rows (o, norm, row, n, f);
    if (!qz_head_backward (o->source, o->workers, f, n, &labels, logits, df, error))
      return FALSE;
    qz_norm_backward (norm, o->x + row * embd, df, n, embd, o->dx + row * embd);
    if (!qz_observing_step (o, 0.5 + 0.1 * (row + n) / o->n_back, "Measuring what matters", error))
      return FALSE;
  }
  qz_observe_return (o);
  return TRUE;
}

gboolean qz_observe_head (QzObserving *o, GError **error)
{
  QzMoments *head_moments = &o->head_moments;
  const EngTraits *t = o->traits;
  guint embd = t->n_embd, n;
  QzNorm norm;
  g_autofree float *memory = NULL;
  g_autofree float *f = g_new (float, (gsize) MAX (o->batch_rows, o->head_rows) * embd);
  g_autofree float *logits = g_try_malloc_n ((gsize) o->head_rows * t->n_vocab, sizeof (float));
  if (logits == NULL) {
    g_set_error (error, ENG_ERROR, ENG_ERROR_MEMORY, "there is not enough memory for a vocabulary of %u tokens: close other programs and try again",
                 t->n_vocab);
    return FALSE;
  }
  if (!qz_stream_norm_read (o->source, "output_norm", &norm, &memory, error))
    return FALSE;
  qz_observe_leave (o);
  for (gsize row = 0; row < o->n_all; row += n) {
    n = qz_observing_batch (o, row);
    if (row >= o->n_learn) {
      norm_rows (o, &norm, row, n, o->out->held_hidden + (row - o->n_learn) * embd);
    } else {
      norm_rows (o, &norm, row, n, f);
      if (o->to->states != NULL && !o->to->states (o->to->data, row, n, f, error))
        return FALSE;
      qz_moments_add (head_moments, o->workers, f, embd, n);
    }
  }
  guint input = o->source->matrices[qz_source_head (o->source)].input;
  if (t->tied_head)
    qz_moments_scale (head_moments, 1.0 / o->n_learn);
  else if (!qz_observing_hand_over (o, input, o->source->inputs[input].first_factor, head_moments, o->n_learn, error))
    return FALSE;
  return way_back_begins (o, &norm, f, logits, error);
}

/* ---- what rows weigh ----------------------------------------------------------------------------------------------------- */

/* The probability of all tokens that the text does not show: that of those it shows once (Good 1953). */
static double unseen_share (const QzObserving *o)
{
  g_autofree guint *seen = g_new0 (guint, o->traits->n_vocab);
  guint once = 0;
  for (gsize i = 0; i < o->n_learn; i++)
    seen[o->calibration->tokens[i]]++;
  for (guint v = 0; v < o->traits->n_vocab; v++)
    once += seen[v] == 1;
  return MAX (vocabulary_floor, (double) once / o->n_learn);
}

/* How often each token is looked up: what the text shows, smoothed by what the model expects, and for the rest as often as there is to expect. Sums to 1. */
static void token_frequencies (const QzObserving *o, double unseen, double *frequency)
{
  guint n_vocab = o->traits->n_vocab;
  for (guint v = 0; v < n_vocab; v++)
    frequency[v] = 0.5 * o->probability[v] / o->n_back;
  for (gsize i = 0; i < o->n_learn; i++)
    frequency[o->calibration->tokens[i]] += 0.5 / o->n_learn;
  for (guint v = 0; v < n_vocab; v++)
    frequency[v] = (1 - unseen) * frequency[v] + unseen / n_vocab;
}

/* A chat is made of control tokens that no text holds, those that the template writes and that begin and end what is said: their rows get a weight of their own.
 * Others, of which some vocabularies have thousands in reserve, are as rare as they look. */
static void raise_control_tokens (const QzObserving *o, float *weight, double total)
{
  const EngGguf *gguf = o->source->gguf;
  const char *template = eng_gguf_chat_template (gguf);
  gsize n = eng_gguf_array_length (gguf, "tokenizer.ggml.token_type", NULL);
  gint64 bos = eng_gguf_get_int (gguf, "tokenizer.ggml.bos_token_id", -1), eos = eng_gguf_get_int (gguf, "tokenizer.ggml.eos_token_id", -1),
         eot = eng_gguf_get_int (gguf, "tokenizer.ggml.eot_token_id", -1);
  for (guint v = 0; v < MIN (n, o->traits->n_vocab); v++) {
    if (eng_gguf_array_int (gguf, "tokenizer.ggml.token_type", v) != 3)
      continue;
    gsize length = 0;
    const char *text = eng_gguf_array_string (gguf, "tokenizer.ggml.tokens", v, &length);
    g_autofree char *whole = text != NULL ? g_strndup (text, length) : NULL;
    if (v == bos || v == eos || v == eot || (template != NULL && whole != NULL && length > 0 && strstr (template, whole) != NULL))
      weight[v] = MAX (weight[v], control_floor * total);
  }
}

/* A row of a tied embedding errs twice: as a head row, weighted by p (1 - p) over E f f^T, and as a look-up, weighted by its frequency
 * over E g g^T. Both weights follow the token's frequency, so one sum of moments A E f f^T + E g g^T serves every row, with
 * A = sum_v E p_v (1 - p_v), and a row's weight is the mean of its two shares. */
gboolean qz_observe_vocabulary (QzObserving *o, GError **error)
{
  QzMoments *head_moments = &o->head_moments;
  guint n_vocab = o->traits->n_vocab, embd = o->traits->n_embd;
  gboolean tied = o->traits->tied_head;
  double total = 0, unseen = unseen_share (o);
  float **row_fisher = o->out->row_fisher;
  g_autofree double *frequency = g_new (double, n_vocab);
  token_frequencies (o, unseen, frequency);
  for (guint v = 0; v < n_vocab; v++)
    total += o->head_fisher[v] / o->n_back;
  for (guint v = 0; v < n_vocab; v++) {
    double share = total > 0 ? o->head_fisher[v] / o->n_back / total : 0;
    share = (1 - unseen) * share + unseen / n_vocab;
    row_fisher[0][v] = tied ? 0.5 * (share + frequency[v]) : frequency[v];
    if (!tied)
      row_fisher[qz_source_head (o->source)][v] = share * total;
  }
  raise_control_tokens (o, row_fisher[0], 1);
  if (!tied)
    raise_control_tokens (o, row_fisher[qz_source_head (o->source)], total);

  if (!embed_backward (o, error))
    return FALSE;
  QzMoments look_up;
  qz_moments_init (&look_up, embd, head_moments->block);
  qz_moments_add (&look_up, o->workers, o->dx, embd, o->n_back);
  if (tied) {
    qz_moments_scale (head_moments, total * o->n_back);
    for (gsize i = 0; i < qz_moments_floats (embd, look_up.block); i++)
      look_up.h[i] += head_moments->h[i];
  }
  gboolean ok = qz_observing_hand_over (o, 0, o->source->inputs[0].first_factor, &look_up, o->n_back, error);
  qz_moments_clear (&look_up);
  return ok;
}
