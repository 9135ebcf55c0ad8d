/* loss_probe.c: loss_probe MODEL.gguf [BPW ...]: what the quantizer expects to lose against what is lost. The model is analysed; then a forward pass over some of
 * the text it learned from reads weights that are spoilt by as much as packing them at that size is expected to spoil them, all of them or those of one role, and
 * their divergence from the model is held against the loss of those cells by the curves. Second order is right where the ratio is 1.
 *
 * An error e of a row is white in what compensation leaves of it, e F (quantizer/factor.h), with the variance that the curves have for the row's cells; what a
 * code of few bits makes of a weight is also a little smaller than the weight. */
#include "kernels/ops.h"
#include "quantizer/analysis.h"
#include "quantizer/factor.h"
#include "quantizer/head.h"
#include "quantizer/measure.h"
#include "quantizer/observe_private.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>


enum { SEQUENCES = 6, STATES = 128 /* whose logits are in memory at once */, ALL = G_MAXUINT };

static const char *const role_names[] = { [QZ_ROLE_EMBEDDING] = "embedding", [QZ_ROLE_Q] = "q", [QZ_ROLE_K] = "k", [QZ_ROLE_V] = "v", [QZ_ROLE_QKV] = "q, k and v",
                                          [QZ_ROLE_Q_A] = "q a", [QZ_ROLE_KV_A] = "kv a", [QZ_ROLE_Q_B] = "q b", [QZ_ROLE_KV_B] = "kv b", [QZ_ROLE_K_B] = "k b",
                                          [QZ_ROLE_V_B] = "v b", [QZ_ROLE_OUTPUT] = "output", [QZ_ROLE_GATE] = "gate", [QZ_ROLE_UP] = "up",
                                          [QZ_ROLE_GATE_UP] = "gate and up", [QZ_ROLE_DOWN] = "down", [QZ_ROLE_HEAD] = "head" };

static void check (GError *error)
{
  if (error == NULL)
    return;
  fprintf (stderr, "loss_probe: %s\n", error->message);
  exit (1);
}

/* ---- spoilt weights ------------------------------------------------------------------------------------------------------ */

typedef struct {
  const QzAnalysis *analysis;
  const QzSource *source;
  const guint8 *depths;
  guint role; /* or ALL */
  GMutex lock;
  guint of;   /* the factor that is there; QZ_NONE: none */
  float *factor;
} Spoiler;

static gboolean is_spoilt (const Spoiler *s, guint matrix)
{
  return (s->role == ALL || s->source->matrices[matrix].role == s->role) && !qz_curves_keeps (s->analysis->curves, matrix, s->depths);
}

static const float *factor_of (Spoiler *s, guint number, GError **error)
{
  g_mutex_lock (&s->lock);
  if (s->of != number) {
    gsize cols = s->analysis->factor_cols[number];
    g_free (s->factor);
    s->factor = g_new (float, cols * cols);
    s->of = qz_analysis_read_factor (s->analysis, number, s->factor, error) ? number : QZ_NONE;
  }
  const float *factor = s->of == number ? s->factor : NULL;
  g_mutex_unlock (&s->lock);
  return factor;
}

/* A row's errors before compensation: w and out [cols]. */
static void draw_row (const Spoiler *s, guint matrix, guint r, const float *pivots, const float *w, float *out)
{
  const QzCurvesMatrix *m = &s->analysis->curves->matrices[matrix];
  guint cols = m->shape.cols, n_panels = qz_shape_n_panels (&m->shape), group = m->shape.group > 0 ? m->shape.group : cols;
  guint64 state = s->analysis->seed + ((guint64) matrix << 32) + r;
  state = qz_random_next (&state);
  for (guint begin = 0; begin < cols; begin += group) {
    guint end = MIN (begin + group, cols), panel = n_panels > 1 ? begin / QZ_PANEL_COLS : 0;
    guint c = m->first_cell + r / QZ_STRIPE_ROWS * n_panels + panel;
    const QzCell *cell = &s->analysis->curves->cells[c];
    double share = cell->loss[0] > 0 ? MIN (1, cell->loss[s->depths[c]] / cell->loss[0]) : 0, energy = 0, weight = 0;
    for (guint j = begin; j < end; j++) {
      energy += (double) pivots[j] * w[j] * w[j];
      weight += pivots[j];
    }
    float spread = weight > 0 ? sqrt (12 * share * (1 - share) * energy / weight) : 0;
    for (guint j = begin; j < end; j++)
      out[j] = spread * (float) (qz_random_unit (&state) - 0.5) - share * w[j];
  }
}

static gboolean read_spoilt (gpointer data, guint matrix, guint row0, guint row1, float *rows, GError **error)
{
  Spoiler *s = data;
  if (!qz_source_read_rows (s->source, matrix, row0, row1, rows, error))
    return FALSE;
  const QzAnalysis *a = s->analysis;
  const QzMatrix *m = &s->source->matrices[matrix];
  if (!is_spoilt (s, matrix))
    return TRUE;
  guint n = row1 - row0, number = qz_analysis_factor_of (s->source, a->pivots, matrix, row0, n);
  const float *factor = factor_of (s, number, error);
  if (factor == NULL)
    return FALSE;
  g_autofree float *errors = g_new (float, (gsize) n * m->cols), *scratch = g_new (float, m->cols);
  const QzTransform *transform = a->transforms[m->input];
  qz_transform_rows (transform, rows, n, scratch);
  for (guint i = 0; i < n; i++)
    draw_row (s, matrix, row0 + i, a->pivots[number], rows + (gsize) i * m->cols, errors + (gsize) i * m->cols);
  qz_factor_solve (factor, n, m->cols, errors);
  for (guint i = 0; i < n; i++) {
    float *row = rows + (gsize) i * m->cols, *e = errors + (gsize) i * m->cols;
    xb_add (e, row, m->cols);
    xb_input_restore_row (transform->input, e, row);
  }
  return TRUE;
}

/* What the curves have for the cells that are spoilt. */
static double expected_loss (const Spoiler *s)
{
  const QzCurves *curves = s->analysis->curves;
  double loss = 0;
  for (guint m = 0; m < curves->n_matrices; m++)
    for (guint c = 0; is_spoilt (s, m) && c < qz_shape_n_cells (&curves->matrices[m].shape); c++)
      loss += curves->cells[curves->matrices[m].first_cell + c].loss[s->depths[curves->matrices[m].first_cell + c]];
  return loss;
}

/* ---- the pass ------------------------------------------------------------------------------------------------------------ */

static void forward (QzObserving *o, guint n_tokens, GError **error)
{
  g_autofree float *factors = NULL;
  if (!qz_layer_weights_init (&o->weights, o->source, error) || !qz_observing_rope_factors (o, &factors, error) || !qz_observe_embed (o, error))
    return;
  qz_layer_pass_init (&o->pass, o->traits, o->workers, factors, o->batch_rows, n_tokens, FALSE);
  for (guint l = 0; l < o->traits->n_layers; l++)
    if (!qz_observe_forward (o, l, error))
      return;
  qz_observe_leave (o);
}

/* Over the second half of each sequence. */
static double compare (const QzObserving *o, const QzSource *source, const QzAnalysis *a, GError **error)
{
  guint embd = a->n_embd, n_vocab = source->traits.n_vocab, begin = a->held_tokens / 2, n;
  QzNorm norm;
  g_autofree float *memory = NULL, *f = g_new (float, STATES * embd), *taught = g_new (float, STATES * embd);
  g_autofree float *p = g_new (float, (gsize) STATES * n_vocab), *q = g_new (float, (gsize) STATES * n_vocab);
  double sum = 0;
  gsize count = 0;
  if (!qz_stream_norm_read (o->source, "output_norm", &norm, &memory, error))
    return 0;
  for (gsize row = 0; row < o->n_all; row += n) {
    guint in_sequence = row % a->held_tokens;
    n = MIN (STATES, (in_sequence < begin ? begin : a->held_tokens) - in_sequence);
    if (in_sequence < begin)
      continue;
    qz_norm (&norm, o->x + row * embd, n, embd, f);
    if (!qz_analysis_read_states (a, o->workers, row, n, taught, error) || !qz_head_logits (source, o->workers, taught, n, p, error)
        || !qz_head_logits (o->source, o->workers, f, n, q, error))
      return 0;
    for (guint i = 0; i < n; i++, count++)
      sum += qz_divergence (p + (gsize) i * n_vocab, q + (gsize) i * n_vocab, n_vocab);
  }
  return sum / count;
}

/* Mean KL (source || spoilt source), in nats per token. */
static double measure (const QzSource *source, Spoiler *spoiler, EngWorkers *workers)
{
  static const QzObserver nothing = { 0 };
  const QzAnalysis *a = spoiler->analysis;
  g_autoptr (GError) error = NULL;
  g_autoptr (QzSource) student = qz_source_new (source->gguf, &error);
  check (error);
  qz_analysis_apply_order (a, student);
  student->rows = read_spoilt;
  student->rows_data = spoiler;
  QzCalibration text = { .n_tokens = a->held_tokens, .n_sequences = MIN (SEQUENCES, a->n_learned), .tokens = a->learned };
  QzObservation seen = { 0 };
  guint n = text.n_sequences * text.n_tokens;
  QzObserving o = { .source = student, .traits = &student->traits, .calibration = &text, .to = &nothing, .workers = workers, .out = &seen, .batch_rows = n,
                    .head_rows = 1, .widest = a->widest, .n_learn = n, .n_all = n };
  qz_observing_allocate (&o);
  forward (&o, text.n_tokens, &error);
  check (error);
  double kl = compare (&o, source, a, &error);
  check (error);
  qz_observing_clear (&o);
  return kl;
}

static void probe (const QzSource *source, const QzAnalysis *a, double bpw, EngWorkers *workers)
{
  guint64 bytes;
  double loss;
  g_autofree guint8 *depths = g_malloc (a->curves->n_cells);
  if (!qz_curves_allocate (a->curves, QZ_ALLOCATE_CELLS, qz_curves_bytes_for_bpw (a->curves, bpw), 0, depths, &bytes, &loss))
    return;
  Spoiler spoiler = { .analysis = a, .source = source, .depths = depths, .of = QZ_NONE };
  g_mutex_init (&spoiler.lock);
  for (guint role = 0; role <= G_N_ELEMENTS (role_names); role++) {
    spoiler.role = role < G_N_ELEMENTS (role_names) ? role : ALL;
    double expected = expected_loss (&spoiler);
    if (expected == 0)
      continue;
    double measured = measure (source, &spoiler, workers);
    printf ("%4.2f bpw %-12s expected %.5f measured %.5f ratio %.2f\n", bpw, spoiler.role != ALL ? role_names[role] : "all", expected, measured, measured / expected);
    fflush (stdout);
  }
  g_free (spoiler.factor);
  g_mutex_clear (&spoiler.lock);
}

int main (int argc, char **argv)
{
  g_autoptr (GError) error = NULL;
  if (argc < 2) {
    fprintf (stderr, "Usage: loss_probe MODEL.gguf [BPW ...]\n");
    return 2;
  }
  EngWorkers *workers = eng_workers_new (0);
  g_autoptr (EngGguf) gguf = eng_gguf_open (argv[1], &error);
  check (error);
  QzAnalysis *analysis = qz_analyse (gguf, NULL, workers, NULL, NULL, NULL, &error);
  check (error);
  QzSource *source = qz_source_new (gguf, &error);
  check (error);
  qz_analysis_apply_order (analysis, source);
  for (int i = 2; i < argc; i++)
    probe (source, analysis, g_ascii_strtod (argv[i], NULL), workers);
  if (argc == 2)
    probe (source, analysis, 4, workers);
  qz_source_free (source);
  qz_analysis_free (analysis);
  eng_workers_free (workers);
  return 0;
}
