/* analysis.c: observe, transform and factor each input as its moments arrive, then weigh the cells. */
#include "quantizer/analysis.h"

#include "engine/error.h"
#include "quantizer/awq.h"
#include "quantizer/calibration.h"
#include "quantizer/factor.h"
#include "quantizer/kept.h"
#include "quantizer/loudness.h"
#include "quantizer/method.h"
#include "quantizer/moments.h"
#include "quantizer/observe.h"
#include "quantizer/order.h"
#include "quantizer/seal.h"
#include "quantizer/sensitivity.h"
#include "quantizer/spill.h"
#include "quantizer/spin.h"

#include <stdlib.h>
#include <string.h>

/* Added to the moments' diagonal, of its mean: what the calibration text does not show may still come. */
static const double damping = 0.03;
static const double observe_share = 0.95; /* of the whole analysis's time */
static const double expert_floor = 0.05;  /* part of an expert's weight that all share */

QzAnalysis *qz_analysis_alloc (const QzSource *source)
{
  QzAnalysis *a = g_new0 (QzAnalysis, 1);
  a->n_inputs = source->n_inputs;
  a->n_factors = source->n_factors;
  a->n_matrices = source->n_matrices;
  a->n_embd = source->traits.n_embd;
  a->n_units = source->n_units;
  a->widest = QZ_WIDEST;
  a->order = g_new0 (guint32 *, a->n_units);
  a->order_lengths = g_new (guint, a->n_units);
  for (guint u = 0; u < a->n_units; u++)
    a->order_lengths[u] = source->units[u].n_experts * source->units[u].n_ff;
  a->factor_cols = g_new (guint, source->n_factors);
  for (guint i = 0; i < source->n_inputs; i++)
    for (guint f = 0; f <= source->inputs[i].n_experts; f++)
      a->factor_cols[source->inputs[i].first_factor + f] = source->inputs[i].cols;
  a->transforms = g_new0 (QzTransform *, source->n_inputs);
  a->pivots = g_new0 (float *, source->n_factors);
  a->offsets = g_new0 (guint64, source->n_factors);
  a->row_fisher = g_new0 (float *, source->n_matrices);
  return a;
}

void qz_analysis_free (QzAnalysis *a)
{
  if (a == NULL)
    return;
  for (guint i = 0; i < a->n_inputs; i++)
    qz_transform_free (a->transforms[i]);
  for (guint f = 0; f < a->n_factors; f++)
    g_free (a->pivots[f]);
  for (guint m = 0; m < a->n_matrices; m++)
    g_free (a->row_fisher[m]);
  for (guint u = 0; u < a->n_units; u++)
    g_free (a->order[u]);
  g_free (a->order);
  g_free (a->order_lengths);
  g_free (a->transforms);
  g_free (a->pivots);
  g_free (a->offsets);
  g_free (a->row_fisher);
  g_free (a->factor_cols);
  qz_store_free (a->factors);
  qz_curves_unref (a->curves);
  g_free (a->learned);
  g_free (a->held);
  g_free (a->held_hidden);
  g_free (a->fingerprint);
  g_free (a->calibration);
  g_free (a);
}

QzCurves *qz_analysis_curves (const QzAnalysis *analysis)
{
  return analysis->curves;
}

char *qz_fingerprint (const EngGguf *gguf)
{
  enum { SAMPLES = 64, SAMPLE_BYTES = 64 };
  g_autoptr (GChecksum) sum = g_checksum_new (G_CHECKSUM_SHA256);
  for (guint i = 0; i < eng_gguf_n_tensors (gguf); i++) {
    const EngTensor *t = eng_gguf_tensor (gguf, i);
    g_checksum_update (sum, (const guchar *) t->name, strlen (t->name) + 1);
    g_checksum_update (sum, (const guchar *) &t->type, sizeof t->type);
    g_checksum_update (sum, (const guchar *) t->dims, sizeof t->dims);
    for (guint s = 0; t->packed != NULL && s < 2; s++) {
      g_autofree float *row = g_new (float, t->dims[0]);
      eng_tensor_read_rows (t, s * (eng_tensor_n_rows (t) - 1), 1, row);
      g_checksum_update (sum, (const guchar *) row, (gssize) (t->dims[0] * sizeof (float)));
    }
    for (guint s = 0; t->packed == NULL && s < SAMPLES; s++) {
      guint64 offset = t->bytes / SAMPLES * s;
      g_checksum_update (sum, t->data + offset, MIN (SAMPLE_BYTES, t->bytes - offset));
    }
    eng_gguf_drop_tensor ((EngGguf *) gguf, t); /* the system maps more around each sample */
  }
  return g_strdup (g_checksum_get_string (sum));
}

/* ---- factors ------------------------------------------------------------------------------------------------------------ */

static guint64 block_bytes (guint64 size)
{
  return size * (size - 1) / 2 * sizeof (guint16);
}

static QzMoments factor_blocks (const QzAnalysis *a, guint factor)
{
  guint cols = a->factor_cols[factor];
  return (QzMoments){ cols, qz_moments_block (cols, a->widest), NULL };
}

guint64 qz_analysis_factor_bytes (const QzAnalysis *a, guint factor)
{
  QzMoments blocks = factor_blocks (a, factor);
  guint64 bytes = 0;
  for (guint i = 0; a->pivots[factor] != NULL && i < qz_moments_n_blocks (&blocks); i++)
    bytes += block_bytes (MIN (blocks.block, blocks.n - i * blocks.block));
  return bytes;
}

/* f [size][size], at the end of the store. */
static gboolean append_block (QzAnalysis *a, const float *f, guint size, GError **error)
{
  g_autofree guint16 *halves = g_malloc (MAX (1, block_bytes (size)));
  guint16 *p = halves;
  for (guint i = 0; i < size; i++) {
    xb_f32_to_f16 (f + (gsize) i * size + i + 1, p, size - i - 1);
    p += size - i - 1;
  }
  if (!qz_store_write (a->factors, a->factor_end, halves, block_bytes (size), error))
    return FALSE;
  a->factor_end += block_bytes (size);
  return TRUE;
}

gboolean qz_analysis_read_factor (const QzAnalysis *a, guint factor, float *f, GError **error)
{
  QzMoments blocks = factor_blocks (a, factor);
  guint cols = blocks.n;
  guint64 offset = a->offsets[factor];
  memset (f, 0, sizeof (float) * cols * cols);
  for (guint begin = 0; begin < cols; begin += blocks.block) {
    guint size = MIN (blocks.block, cols - begin);
    g_autofree guint16 *halves = g_malloc (MAX (1, block_bytes (size)));
    if (!qz_store_read (a->factors, offset, halves, block_bytes (size), error))
      return FALSE;
    offset += block_bytes (size);
    const guint16 *p = halves;
    for (guint i = begin; i < begin + size; i++) {
      float *row = f + (gsize) i * cols + i;
      row[0] = 1;
      xb_raw_to_f32 (XB_RAW_F16, p, row + 1, begin + size - i - 1);
      p += begin + size - i - 1;
    }
  }
  return TRUE;
}

guint qz_analysis_factor_of (const QzSource *source, float *const *pivots, guint matrix, guint row0, guint rows)
{
  const QzMatrix *m = &source->matrices[matrix];
  guint first = source->inputs[m->input].first_factor, of_expert = qz_source_expert_rows (source, matrix), expert = row0 / of_expert;
  gboolean own = m->unit != QZ_NONE && source->units[m->unit].is_mixture && (row0 + rows - 1) / of_expert == expert && pivots[first + 1 + expert] != NULL;
  return own ? first + 1 + expert : first;
}

gboolean qz_analysis_apply_order (const QzAnalysis *a, QzSource *source)
{
  for (guint u = 0; u < a->n_units; u++)
    for (guint e = 0; e < source->units[u].n_experts; e++)
      if (!qz_source_set_order (source, u, e, a->order[u] + (gsize) e * source->units[u].n_ff))
        return FALSE;
  return TRUE;
}

/* ---- the analysis ------------------------------------------------------------------------------------------------------- */

typedef struct {
  QzSource *source;
  QzAnalysis *analysis;
  EngWorkers *workers;
  guint bits;    /* that scales are searched for */
  float **noise; /* [n_inputs] of sensitivity.h, or NULL: not seen yet */
  guint16 **errors; /* [n_inputs][QZ_ERROR_ROWS][cols] of loudness.h; as noise */
  GError *error; /* of an order, which cannot fail */
} Learner;

enum { SAMPLED_ROWS = 4 /* every so many say enough */, MOST_HADAMARD = 4096 };

/* squares [cols] += w^2 of the columns of some rows row0..row1-1. */
static gboolean add_column_squares (const QzSource *source, guint m, guint row0, guint row1, double *squares, guint *count, GError **error)
{
  guint cols = source->matrices[m].cols;
  g_autofree float *row = g_new (float, cols);
  for (guint r = row0; r < row1; r += SAMPLED_ROWS, ++*count) {
    if (!qz_source_read_rows (source, m, r, r + 1, row, error))
      return FALSE;
    for (guint j = 0; j < cols; j++)
      squares[j] += row[j] * row[j];
  }
  eng_gguf_drop_tensor (source->gguf, source->matrices[m].tensor);
  return TRUE;
}

/* Mean square of each column of the matrices that share an input. */
static gboolean column_squares (const QzSource *source, guint input, double *squares, GError **error)
{
  guint cols = source->inputs[input].cols, count = 0;
  memset (squares, 0, sizeof (double) * cols);
  for (guint m = 0; m < source->n_matrices; m++)
    if (source->matrices[m].input == input && !add_column_squares (source, m, 0, source->matrices[m].rows, squares, &count, error))
      return FALSE;
  for (guint j = 0; j < cols; j++)
    squares[j] /= count;
  return TRUE;
}

/* Hidden channels by falling importance, so that cells of all three matrices hold channels of a kind and bits can follow them. */
static void order_channels (gpointer data, guint number, guint expert, const double *moments)
{
  Learner *l = data;
  const QzUnit *unit = &l->source->units[number];
  if (qz_kept_unit (l->source, number))
    return;
  guint n = unit->n_ff, embd = l->source->traits.n_embd, count = 0;
  g_autofree double *squares = g_new0 (double, n);
  g_autofree guint32 *order = g_new (guint32, n);
  if (!add_column_squares (l->source, unit->down, expert * embd, (expert + 1) * embd, squares, &count, l->error == NULL ? &l->error : NULL))
    return;
  for (guint j = 0; j < n; j++)
    squares[j] *= moments[j];
  qz_order_by_worth (squares, n, n, order);
  qz_source_set_order (l->source, number, expert, order);
}

static QzTransform *balanced (const Learner *l, guint input, const QzMoments *h, GError **error)
{
  guint cols = h->n;
  g_autofree double *moments = g_new (double, cols);
  g_autofree double *squares = g_new (double, cols);
  g_autofree float *diagonal = g_new (float, cols);
  if (!column_squares (l->source, input, squares, error))
    return NULL;
  qz_moments_diagonal (h, moments);
  qz_transform_balance (cols, moments, squares, diagonal);
  return qz_transform_new (cols, l->analysis->seed, diagonal, error);
}

/* Within the blocks that are factored together. */
static QzTransform *ordered_by_moment (const QzMoments *h, GError **error)
{
  g_autofree double *moments = g_new (double, h->n);
  g_autofree guint32 *permutation = g_new (guint32, h->n);
  qz_moments_diagonal (h, moments);
  qz_order_by_worth (moments, h->n, h->block, permutation);
  return qz_transform_plain (h->n, permutation, NULL, error);
}

static QzTransform *scaled (const Learner *l, guint input, QzMoments *h, GError **error)
{
  g_autofree float *diagonal = g_new (float, h->n);
  return qz_awq_scales (l->source, input, h, l->bits, l->workers, diagonal, error) ? qz_transform_plain (h->n, NULL, diagonal, error) : NULL;
}

/* Whether what this input's matrices multiply is in learned coordinates already. */
static gboolean is_folded (const QzSource *source, guint input)
{
  for (guint l = 0; l < source->traits.n_layers; l++) {
    const QzLayer *layer = &source->layers[l];
    if (input == layer->attn_input || input == layer->ffn_input || (input == layer->output_input && qz_rotates_heads (&source->traits)))
      return TRUE;
  }
  return FALSE;
}

/* Blocks of moments need not be whole numbers of wide Hadamards. */
static QzTransform *rotated (const Learner *l, const QzMoments *h, GError **error)
{
  guint block = QZ_HADAMARD_BLOCK;
  while (h->block == h->n && 2 * block <= MIN (h->n, MOST_HADAMARD))
    block *= 2;
  return qz_transform_hadamard (h->n, block, l->analysis->seed, NULL, error);
}

/* From an input's moments over all tokens: what goes in front of its matrices. */
static gboolean learn_transform (Learner *l, guint input, QzMoments *h, GError **error)
{
  QzTransform *transform = NULL;
  switch (qz_method_traits (l->analysis->method)->front) {
  case QZ_FRONT_NOTHING:
    transform = qz_transform_plain (h->n, NULL, NULL, error);
    break;
  case QZ_FRONT_BY_MOMENT:
    transform = ordered_by_moment (h, error);
    break;
  case QZ_FRONT_SCALES:
    transform = scaled (l, input, h, error);
    break;
  case QZ_FRONT_FOLDED:
    transform = is_folded (l->source, input) ? qz_transform_plain (h->n, NULL, NULL, error) : rotated (l, h, error);
    break;
  case QZ_FRONT_HADAMARD:
    transform = rotated (l, h, error);
    break;
  case QZ_FRONT_BALANCED:
    transform = balanced (l, input, h, error);
    break;
  }
  l->analysis->transforms[input] = transform;
  return transform != NULL;
}

/* Channels of a group of 32 share a step (xb_acts), 1/127 of the largest: of so many like ones its mean square is 5.5 times theirs, of one that is louder than
 * all others its own. An even error within a step has a twelfth of the step's square; of the loss that outputs taken as independent have by such errors, which
 * they share, 0.6 (without a pipeline) to 1 (behind one) was measured. */
static void learn_noise (const QzMoments *h, float *noise)
{
  enum { GROUP = 32, MOST_CODE = 127 };
  static const double largest_square = 5.5, shared = 0.75;
  g_autofree double *squares = g_new (double, h->n);
  qz_moments_diagonal (h, squares);
  for (guint at = 0; at < h->n; at += GROUP) {
    guint size = MIN (GROUP, h->n - at);
    double mean = 0, most = 0;
    for (guint j = at; j < at + size; j++) {
      mean += squares[j] / size;
      most = MAX (most, squares[j]);
    }
    for (guint j = at; j < at + size; j++)
      noise[j] = shared * MAX (largest_square * mean, most) / (12.0 * MOST_CODE * MOST_CODE);
  }
}

static void weigh_tokens (gpointer data, guint input, guint n, const float *x, gsize ld, float *weights)
{
  const Learner *l = data;
  const QzInput *in = &l->source->inputs[input];
  qz_loudness_weigh (l->workers, in->cols, l->errors[input], l->analysis->pivots[in->first_factor], n, x, ld, weights);
}

static gboolean learn_moments (gpointer data, guint input, guint factor, QzMoments *h, GError **error)
{
  Learner *l = data;
  QzAnalysis *a = l->analysis;
  if (l->error != NULL) {
    g_propagate_error (error, g_steal_pointer (&l->error));
    return FALSE;
  }
  gboolean first = a->transforms[input] == NULL; /* of all tokens */
  if (first) {
    if (!learn_transform (l, input, h, error))
      return FALSE;
    l->noise[input] = g_new (float, 2 * h->n);
    l->errors[input] = g_new (guint16, (gsize) QZ_ERROR_ROWS * h->n);
    learn_noise (h, l->noise[input] + h->n);
  }
  a->pivots[factor] = g_new (float, h->n);
  a->offsets[factor] = a->factor_end;
  for (guint i = 0; i < qz_moments_n_blocks (h); i++) {
    guint begin, size;
    float *block = qz_moments_at (h, i, &begin, &size);
    qz_transform_moments (a->transforms[input], l->workers, begin, size, block);
  }
  if (first)
    learn_noise (h, l->noise[input]);
  for (guint i = 0; i < qz_moments_n_blocks (h); i++) {
    guint begin, size;
    float *block = qz_moments_at (h, i, &begin, &size);
    if (!qz_factor (l->workers, block, size, damping, a->pivots[factor] + begin)) {
      g_set_error (error, ENG_ERROR, ENG_ERROR_FORMAT,
                   "the model of %s computes no usable numbers on the calibration text (input %u): the file is damaged, download it again",
                   eng_gguf_path (l->source->gguf), input);
      return FALSE;
    }
    if (first)
      qz_loudness_learn (a->transforms[input], a->seed + input, begin, size, block, l->errors[input]);
    if (!append_block (a, block, size, error))
      return FALSE;
  }
  if (first)
    qz_loudness_finish (a->transforms[input], l->errors[input]);
  return TRUE;
}

/* As it is now; an expert that no token went to has kept its own. */
static guint32 *take_order (const QzSource *source, guint number)
{
  const QzUnit *unit = &source->units[number];
  gsize n = (gsize) unit->n_experts * unit->n_ff;
  guint32 *order = g_new (guint32, n);
  for (gsize i = 0; i < n; i++)
    order[i] = unit->order != NULL ? unit->order[i] : i % unit->n_ff;
  return order;
}

/* Experts that few tokens went to weigh a part of what all do: other texts may find them. */
static void raise_experts (const QzSource *source, float **row_fisher)
{
  for (guint m = 0; m < source->n_matrices; m++) {
    if (source->matrices[m].unit == QZ_NONE || !source->units[source->matrices[m].unit].is_mixture)
      continue;
    guint rows = source->matrices[m].rows, of_expert = qz_source_expert_rows (source, m), n = rows / of_expert;
    for (guint i = 0; i < of_expert; i++) {
      double sum = 0;
      for (guint r = i; r < rows; r += of_expert)
        sum += row_fisher[m][r];
      for (guint r = i; r < rows; r += of_expert)
        row_fisher[m][r] = (1 - expert_floor) * row_fisher[m][r] + expert_floor * sum / n;
    }
  }
}

gboolean qz_analysis_read_states (const QzAnalysis *a, EngWorkers *workers, gsize row, gsize n, float *x, GError **error)
{
  return qz_unspill (a->factors, a->states_offset + row * qz_spill_row_bytes (a->n_embd), workers, x, n, a->n_embd, error);
}

/* States come before the factor of a tied head, and take their room at once. */
static gboolean learn_states (gpointer data, gsize row, guint n, const float *f, GError **error)
{
  Learner *l = data;
  QzAnalysis *a = l->analysis;
  guint64 row_bytes = qz_spill_row_bytes (a->n_embd);
  if (row == 0) {
    a->states_offset = a->factor_end;
    a->factor_end += row_bytes * a->n_learned * a->held_tokens;
  }
  return qz_spill (a->factors, a->states_offset + row * row_bytes, l->workers, f, n, a->n_embd, error);
}

static void keep_text (QzAnalysis *a, const QzCalibration *c)
{
  gsize learned = (gsize) c->n_sequences * c->n_tokens;
  a->n_learned = c->n_sequences;
  a->learned = g_memdup2 (c->tokens, sizeof (gint32) * learned);
  a->held_sequences = c->n_held;
  a->held_tokens = c->n_tokens;
  a->held = g_memdup2 (c->tokens + learned, sizeof (gint32) * c->n_held * c->n_tokens);
}

static void keep_held_out (QzAnalysis *a, const QzCalibration *c, const QzObservation *o)
{
  gsize tokens = (gsize) c->n_held * c->n_tokens;
  a->held_hidden = g_new (guint16, tokens * a->n_embd);
  xb_f32_to_f16 (o->held_hidden, a->held_hidden, tokens * a->n_embd);
}

/* ---- what a state holds (work.h) ----------------------------------------------------------------------------------------- */

/* Pipelines of inputs, the lists below, places of factors and states. What was not seen yet is empty. */
#define LEARNED_TYPE "(aayaayaayaayaayattt)"

/* n entries, NULL or of counts[i] times `each` bytes. */
typedef struct {
  void **entries;
  guint n;
  const guint *counts;
  gsize each;
} List;

enum { NOISE, ERRORS, PIVOTS, ORDERS, N_LISTS };

typedef struct {
  List lists[N_LISTS];
  guint *input_cols;
  guint32 **orders; /* [n_units] of hidden channels */
} Learned;

static void learned_begin (Learned *learned, const Learner *l)
{
  const QzAnalysis *a = l->analysis;
  learned->input_cols = g_new (guint, a->n_inputs);
  learned->orders = g_new0 (guint32 *, a->n_units);
  for (guint i = 0; i < a->n_inputs; i++)
    learned->input_cols[i] = l->source->inputs[i].cols;
  learned->lists[NOISE] = (List){ (void **) l->noise, a->n_inputs, learned->input_cols, 2 * sizeof (float) };
  learned->lists[ERRORS] = (List){ (void **) l->errors, a->n_inputs, learned->input_cols, QZ_ERROR_ROWS * sizeof (guint16) };
  learned->lists[PIVOTS] = (List){ (void **) a->pivots, a->n_factors, a->factor_cols, sizeof (float) };
  learned->lists[ORDERS] = (List){ (void **) learned->orders, a->n_units, a->order_lengths, sizeof (guint32) };
}

static void learned_end (Learned *learned)
{
  g_free (learned->input_cols);
  g_free (learned->orders);
}

static GVariant *bytes_of (const void *data, gsize size)
{
  return g_variant_new_fixed_array (G_VARIANT_TYPE_BYTE, data, data != NULL ? size : 0, 1);
}

static GBytes *save_learned (gpointer data)
{
  Learner *l = data;
  const QzAnalysis *a = l->analysis;
  Learned learned;
  GVariantBuilder all;
  learned_begin (&learned, l);
  for (guint u = 0; u < a->n_units; u++)
    learned.orders[u] = l->source->units[u].order;
  g_variant_builder_init (&all, G_VARIANT_TYPE (LEARNED_TYPE));
  g_variant_builder_open (&all, G_VARIANT_TYPE ("aay"));
  for (guint i = 0; i < a->n_inputs; i++)
    g_variant_builder_add_value (&all, a->transforms[i] != NULL ? bytes_of (a->transforms[i]->blob, a->transforms[i]->bytes) : bytes_of (NULL, 0));
  g_variant_builder_close (&all);
  for (guint k = 0; k < N_LISTS; k++) {
    const List *list = &learned.lists[k];
    g_variant_builder_open (&all, G_VARIANT_TYPE ("aay"));
    for (guint i = 0; i < list->n; i++)
      g_variant_builder_add_value (&all, bytes_of (list->entries[i], list->counts[i] * list->each));
    g_variant_builder_close (&all);
  }
  g_variant_builder_add_value (&all, g_variant_new_fixed_array (G_VARIANT_TYPE_UINT64, a->offsets, a->n_factors, sizeof (guint64)));
  g_variant_builder_add (&all, "t", a->factor_end);
  g_variant_builder_add (&all, "t", a->states_offset);
  learned_end (&learned);
  g_autoptr (GVariant) saved = g_variant_ref_sink (g_variant_builder_end (&all));
  return g_variant_get_data_as_bytes (saved);
}

/* FALSE where an entry is neither empty nor of its size. */
static gboolean restore_list (GVariant *saved, const List *list)
{
  gboolean ok = g_variant_n_children (saved) == list->n;
  for (guint i = 0; ok && i < list->n; i++) {
    gsize size = 0;
    g_autoptr (GVariant) element = g_variant_get_child_value (saved, i);
    const void *bytes = g_variant_get_fixed_array (element, &size, 1);
    ok = size == 0 || size == list->counts[i] * list->each;
    list->entries[i] = ok && size > 0 ? g_memdup2 (bytes, size) : NULL;
  }
  return ok;
}

static gboolean restore_transforms (Learner *l, GVariant *saved)
{
  QzAnalysis *a = l->analysis;
  gboolean ok = g_variant_n_children (saved) == a->n_inputs;
  for (guint i = 0; ok && i < a->n_inputs; i++) {
    gsize size = 0;
    g_autoptr (GVariant) element = g_variant_get_child_value (saved, i);
    const void *bytes = g_variant_get_fixed_array (element, &size, 1);
    a->transforms[i] = size > 0 ? qz_transform_new_from_bytes (l->source->inputs[i].cols, bytes, size) : NULL;
    gboolean seen = a->transforms[i] != NULL;
    ok = seen == (size > 0) && seen == (l->noise[i] != NULL) && seen == (l->errors[i] != NULL);
  }
  return ok;
}

static gboolean restore_orders (Learner *l, guint32 *const *orders)
{
  gboolean ok = TRUE;
  for (guint u = 0; u < l->analysis->n_units; u++) {
    const QzUnit *unit = &l->source->units[u];
    for (guint e = 0; ok && orders[u] != NULL && e < unit->n_experts; e++)
      ok = qz_source_set_order (l->source, u, e, orders[u] + (gsize) e * unit->n_ff);
  }
  return ok;
}

static gboolean restore_learned (gpointer data, GBytes *bytes)
{
  Learner *l = data;
  QzAnalysis *a = l->analysis;
  Learned learned;
  g_autoptr (GVariant) saved = g_variant_ref_sink (g_variant_new_from_bytes (G_VARIANT_TYPE (LEARNED_TYPE), bytes, FALSE));
  g_autoptr (GVariant) transforms = g_variant_get_child_value (saved, 0), offsets = g_variant_get_child_value (saved, 1 + N_LISTS);
  gsize n = 0;
  const guint64 *places = g_variant_get_fixed_array (offsets, &n, sizeof (guint64));
  gboolean ok = g_variant_is_normal_form (saved) && n == a->n_factors;
  learned_begin (&learned, l);
  for (guint k = 0; ok && k < N_LISTS; k++) {
    g_autoptr (GVariant) list = g_variant_get_child_value (saved, 1 + k);
    ok = restore_list (list, &learned.lists[k]);
  }
  ok = ok && restore_transforms (l, transforms) && restore_orders (l, learned.orders);
  if (ok) {
    memcpy (a->offsets, places, sizeof (guint64) * n);
    g_variant_get_child (saved, 2 + N_LISTS, "t", &a->factor_end);
    g_variant_get_child (saved, 3 + N_LISTS, "t", &a->states_offset);
  }
  /* Orders are the source's now; the rest stays only where all is well. */
  for (guint k = 0; k < N_LISTS; k++)
    for (guint i = 0; (!ok || k == ORDERS) && i < learned.lists[k].n; i++)
      g_clear_pointer (&learned.lists[k].entries[i], g_free);
  for (guint i = 0; !ok && i < a->n_inputs; i++)
    g_clear_pointer (&a->transforms[i], qz_transform_free);
  learned_end (&learned);
  return ok;
}

/* Everything that what is computed depends on. */
static char *work_key (const QzAnalysis *a, const QzCalibration *c, const QzTokens *tokens, const QzMemory *memory, guint bits)
{
  enum { WORK_VERSION = 9 };
  g_autoptr (GChecksum) sum = g_checksum_new (G_CHECKSUM_SHA256);
  g_autofree char *rest = g_strdup_printf ("%d %s %s %" G_GUINT64_FORMAT " %s %u %u %u %u %" G_GSIZE_FORMAT " %u %u %u", WORK_VERSION, a->fingerprint, a->calibration,
                                           a->seed, qz_method_name (a->method), bits, c->n_tokens, c->n_sequences, c->n_held, tokens->n_back, memory->batch_rows, memory->head_rows,
                                           memory->widest);
  g_checksum_update (sum, (const guchar *) c->tokens, sizeof (gint32) * tokens->n_all);
  g_checksum_update (sum, (const guchar *) rest, -1);
  return g_strdup (g_checksum_get_string (sum));
}

/* ---- all together -------------------------------------------------------------------------------------------------------- */

/* Progress comes before each matrix is weighed: the pages of those before are not needed any more. */
typedef struct {
  const QzSource *source;
  EngProgress progress;
  gpointer data;
} Weighing;

static void weighing (double fraction, const char *what, gpointer data)
{
  const Weighing *w = data;
  for (guint m = 0; m < w->source->n_matrices; m++)
    eng_gguf_drop_tensor (w->source->gguf, w->source->matrices[m].tensor);
  if (w->progress != NULL)
    w->progress (fraction, what, w->data);
}

gboolean qz_fit_memory (EngGguf *gguf, const QzOptions *options, guint n_threads, guint64 *bytes, GError **error)
{
  g_autoptr (QzSource) source = qz_source_new (gguf, error);
  QzMemory memory;
  if (source == NULL)
    return FALSE;
  gsize learned = qz_calibration_tokens (options), back = qz_calibration_backward_tokens (options);
  QzTokens tokens = { QZ_SEQUENCE_TOKENS, learned + learned / 8 + QZ_SEQUENCE_TOKENS, MIN (back, learned),
                      options->quality == QZ_QUALITY_BEST, qz_method_folds_rotations (options->method) };
  if (!qz_memory_choose (source, &tokens, n_threads > 0 ? n_threads : eng_workers_default_count (), options->memory_bytes, &memory, error))
    return FALSE;
  *bytes = memory.bytes;
  return TRUE;
}

QzAnalysis *qz_analyse (EngGguf *gguf, const QzOptions *options, EngWorkers *workers, EngProgress progress, gpointer data, GCancellable *cancellable,
                        GError **error)
{
  static const QzOptions defaults = { 0 };
  if (options == NULL)
    options = &defaults;
  g_autoptr (QzSource) source = qz_source_new (gguf, error);
  if (source == NULL)
    return NULL;
  if (qz_method_folds_rotations (options->method) != (source->rotation != NULL)) {
    g_set_error (error, ENG_ERROR, ENG_ERROR_ARGUMENT, source->rotation != NULL ? "%s is rotated: only quarot and spinquant can be made of it"
                 : "%s is not rotated: fold rotations into it first", eng_gguf_path (gguf));
    return NULL;
  }
  g_autoptr (QzCalibration) calibration = qz_calibration_new (source, options, error);
  if (calibration == NULL)
    return NULL;
  g_autoptr (QzAnalysis) a = qz_analysis_alloc (source);
  a->seed = options->seed;
  a->method = options->method;
  a->calibration = g_strdup (calibration->id);
  a->fingerprint = qz_fingerprint (gguf);
  keep_text (a, calibration);
  QzTokens tokens;
  QzMemory memory;
  guint backward_tokens = qz_calibration_backward_tokens (options);
  qz_observe_tokens (calibration, backward_tokens, &tokens);
  tokens.is_tuned = options->quality == QZ_QUALITY_BEST;
  if (!qz_memory_choose (source, &tokens, eng_workers_count (workers), options->memory_bytes, &memory, error))
    return NULL;
  a->widest = memory.widest;
  g_autofree char *key = work_key (a, calibration, &tokens, &memory, options->bits);
  g_autoptr (QzWork) work = qz_work_open (options->work, key, error);
  a->factors = work != NULL ? qz_work_store (work, "factors", error) : NULL;
  if (a->factors == NULL)
    return NULL;

  g_autoptr (GPtrArray) noise = g_ptr_array_new_with_free_func (g_free);
  g_autoptr (GPtrArray) errors = g_ptr_array_new_with_free_func (g_free);
  g_ptr_array_set_size (noise, (int) source->n_inputs);
  g_ptr_array_set_size (errors, (int) source->n_inputs);
  Learner learner = { source, a, workers, options->bits > 0 ? options->bits : 4, (float **) noise->pdata, (guint16 **) errors->pdata, NULL };
  QzObservation observation;
  QzObserver observer = { .seed = options->seed, .backward_tokens = backward_tokens, .memory = &memory, .moments = learn_moments, .loudness = weigh_tokens,
                          .order = qz_method_traits (a->method)->orders_channels ? order_channels : NULL, .states = learn_states, .work = work,
                          .save = save_learned, .restore = restore_learned, .data = &learner,
                          .progress = progress, .progress_data = data, .from = 0, .to = observe_share };
  gboolean ok = qz_observe (source, calibration, &observer, workers, &observation, cancellable, error);
  g_clear_error (&learner.error);
  if (!ok)
    return NULL;
  for (guint u = 0; u < a->n_units; u++)
    a->order[u] = take_order (source, u);
  for (guint m = 0; m < a->n_matrices; m++)
    a->row_fisher[m] = g_steal_pointer (&observation.row_fisher[m]);
  raise_experts (source, a->row_fisher);
  keep_held_out (a, calibration, &observation);
  qz_observation_clear (&observation);

  QzSensitivities s = { source, a, learner.noise };
  Weighing w = { source, progress, data };
  a->curves = qz_sensitivity_curves (&s, workers, weighing, &w, observe_share, 1, cancellable, error);
  QzPromise promise = { .calibration = a->calibration };
  if (a->curves == NULL || !qz_seal_other_bytes (source, a->transforms, &promise, &a->curves->other_bytes, error))
    return NULL;
  qz_curves_finish (a->curves);
  if (progress != NULL)
    progress (1, "Analysed", data);
  return g_steal_pointer (&a);
}
