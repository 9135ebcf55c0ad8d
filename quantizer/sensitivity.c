/* sensitivity.c: curves from two measurements. The energy of a cell, 1/2 sum of row's Fisher x column's pivot x w^2, is exact; the part
 * of it that survives as error at each depth is measured by rounding a sample of the matrix's rows, each weight for itself, and the shape that comes out best is
 * proved by encoding them. */
#include "quantizer/sensitivity.h"

#include "engine/error.h"
#include "quantizer/codebook.h"
#include "quantizer/encode.h"
#include "quantizer/method.h"

#include <math.h>
#include <string.h>

enum { SAMPLE_ROWS = 48, PROVED_ROWS = 32, ENERGY_COLS = QZ_HADAMARD_BLOCK, CHAIN_EVERY = 64, CHAIN_SAMPLE = 16 /* of so many columns a chain of so many */, FIRST_TYPICAL = 3, LAST_TYPICAL = 6, PROVED = 3 };

static const struct {
  guint8 kind, group;
} kinds[] = { { XB_SCALE_GROUP_F16, 128 }, { XB_SCALE_ROW_F16, 0 }, { XB_SCALE_GROUP_I8, 128 }, { XB_SCALE_GROUP_I8, 64 } };
enum { N_KINDS = G_N_ELEMENTS (kinds), N_UNIFORM_KINDS = 1 };

typedef struct {
  const QzSensitivities *s;
  guint matrix, n_blocks;
  double *energy; /* [n_stripes][n_blocks] */
  double *rounding; /* [n_stripes][2] loss by the noise of the input, behind the pipeline and without one */
  GError *error;
  GMutex lock;
} Energies;

/* Loss of n rows by their input's noise. */
static double rows_rounding (guint n, guint cols, const float *w, const float *noise, const float *fisher)
{
  double loss = 0;
  for (guint r = 0; r < n; r++, w += cols) {
    float sum = 0;
    for (guint j = 0; j < cols; j++)
      sum += noise[j] * w[j] * w[j];
    loss += 0.5 * fisher[r] * sum;
  }
  return loss;
}

/* One unit is a stripe. */
static void energy_work (gpointer data, guint begin, guint end, guint worker)
{
  Energies *e = data;
  const QzMatrix *m = &e->s->source->matrices[e->matrix];
  const float *fisher = e->s->analysis->row_fisher[e->matrix];
  g_autofree float *rows = g_new (float, (gsize) QZ_STRIPE_ROWS * m->cols);
  g_autofree float *scratch = g_new (float, m->cols);
  for (guint stripe = begin; stripe < end; stripe++) {
    guint row0 = stripe * QZ_STRIPE_ROWS, row1 = MIN (row0 + QZ_STRIPE_ROWS, m->rows);
    GError *error = NULL;
    if (!qz_source_read_rows (e->s->source, e->matrix, row0, row1, rows, &error)) {
      g_mutex_lock (&e->lock);
      if (e->error == NULL)
        e->error = g_steal_pointer (&error);
      g_mutex_unlock (&e->lock);
      g_clear_error (&error);
      return;
    }
    const float *noise = e->s->noise[m->input];
    e->rounding[2 * stripe + 1] = rows_rounding (row1 - row0, m->cols, rows, noise + m->cols, fisher + row0);
    qz_transform_rows (e->s->analysis->transforms[m->input], rows, row1 - row0, scratch);
    e->rounding[2 * stripe] = rows_rounding (row1 - row0, m->cols, rows, noise, fisher + row0);
    const QzAnalysis *a = e->s->analysis;
    const float *pivots = a->pivots[qz_analysis_factor_of (e->s->source, a->pivots, e->matrix, row0, row1 - row0)];
    double *energy = e->energy + (gsize) stripe * e->n_blocks;
    memset (energy, 0, sizeof (double) * e->n_blocks);
    for (guint r = row0; r < row1; r++) {
      const float *w = rows + (gsize) (r - row0) * m->cols;
      for (guint block = 0; block < e->n_blocks; block++) {
        float sum = 0;
        for (guint j = block * ENERGY_COLS; j < MIN ((block + 1) * ENERGY_COLS, m->cols); j++)
          sum += pivots[j] * w[j] * w[j];
        energy[block] += 0.5 * fisher[r] * sum;
      }
    }
  }
}

/* Bands of 16 rows spread over the matrix, as a trellis takes them, transformed, a row to a lane: out [cols][n]; and their Fisher weights. */
static gboolean sample_rows (const QzSensitivities *s, guint matrix, guint n, float *out, float *fisher, GError **error)
{
  const QzMatrix *m = &s->source->matrices[matrix];
  g_autofree float *row = g_new (float, m->cols);
  g_autofree float *scratch = g_new (float, m->cols);
  for (guint i = 0; i < n; i++) {
    guint bands = n / QZ_CHAIN_ROWS, all = m->rows / QZ_CHAIN_ROWS, band = i / QZ_CHAIN_ROWS;
    guint r = n < SAMPLE_ROWS ? i : (guint) ((guint64) (2 * band + 1) * all / (2 * bands)) * QZ_CHAIN_ROWS + i % QZ_CHAIN_ROWS;
    if (!qz_source_read_rows (s->source, matrix, r, r + 1, row, error))
      return FALSE;
    qz_transform_rows (s->analysis->transforms[m->input], row, 1, scratch);
    fisher[i] = s->analysis->row_fisher[matrix][r];
    for (guint j = 0; j < m->cols; j++)
      out[(gsize) j * n + i] = row[j];
  }
  return TRUE;
}

typedef struct {
  const QzMatrix *m;
  const QzMethodTraits *method;
  const float *pivots, *sample, *fisher; /* sample [cols][n] */
  guint n;
  double error[N_KINDS][QZ_MOST_DEPTH + 1]; /* relative to the energy */
} Sample;

static QzCodes codes_of (const Sample *s)
{
  return s->method->has_trellis ? QZ_CODES_TRELLIS : QZ_CODES_UNIFORM;
}

/* Row i and column j of the sample, missed by so much. */
static void add_error (const Sample *s, guint i, guint j, float missed, double *sum, double *energy)
{
  float w = s->sample[(gsize) j * s->n + i], importance = s->fisher[i] * s->pivots[j];
  *sum += importance * missed * missed;
  *energy += importance * w * w;
}

/* The first columns of a group, as a chain. */
static void sample_chain (const Sample *s, QzChain *chain, const QzTrellis *trellis, guint j, guint n_cols, const float *scale, double *sum, double *energy)
{
  guint8 codes[CHAIN_SAMPLE * QZ_CHAIN_ROWS];
  float values[CHAIN_SAMPLE * QZ_CHAIN_ROWS];
  for (guint r0 = 0; r0 < s->n; r0 += QZ_CHAIN_ROWS) {
    const float *x = s->sample + (gsize) j * s->n + r0;
    QzSegment segment = { .n_rows = MIN (QZ_CHAIN_ROWS, s->n - r0), .n_cols = n_cols, .ld = s->n, .weight = x, .target = (float *) x, .scale = scale + r0,
                          .importance = s->fisher + r0, .pivots = s->pivots + j };
    qz_chain_begin (chain, trellis, 0);
    qz_chain_encode (chain, &segment, codes, values);
    for (guint k = 0; k < n_cols; k++)
      for (guint r = 0; r < segment.n_rows; r++)
        add_error (s, r0 + r, j + k, x[k * s->n + r] - values[k * QZ_CHAIN_ROWS + r], sum, energy);
  }
}

/* Trellises are searched at every other depth only. */
static gboolean is_sampled (const Sample *s, guint depth)
{
  return qz_codebook (codes_of (s), depth)->trellis == NULL || depth % 2 == 0;
}

/* Those between: a depth's error is to its codebook's as those of its neighbours are. */
static void fill_errors (const Sample *s, double error[QZ_MOST_DEPTH + 1])
{
  for (guint depth = 1; depth <= QZ_MOST_DEPTH; depth++)
    if (!is_sampled (s, depth)) {
      guint above = depth + 1, below = depth > 1 ? depth - 1 : above;
      double ratio = sqrt (error[above] / qz_codebook (codes_of (s), above)->unit_error * error[below] / qz_codebook (codes_of (s), below)->unit_error);
      error[depth] = ratio * qz_codebook (codes_of (s), depth)->unit_error;
    }
}

/* One unit is a kind of scale and a depth. */
static void sample_work (gpointer data, guint begin, guint end, guint worker)
{
  Sample *s = data;
  guint n = s->n, cols = s->m->cols;
  g_autofree float *scratch = g_new (float, 7 * n);
  g_autofree guint8 *codes = g_malloc (n);
  float *scale = scratch + 5 * n, *values = scratch + 6 * n;
  QzChain *chain = qz_chain_new (CHAIN_SAMPLE);
  for (guint unit = begin; unit < end; unit++) {
    guint kind = unit / QZ_MOST_DEPTH, depth = 1 + unit % QZ_MOST_DEPTH;
    guint group = kinds[kind].group > 0 ? kinds[kind].group : cols;
    const QzCodebook *book = qz_codebook (codes_of (s), depth);
    if (!is_sampled (s, depth))
      continue;
    double sum = 0, energy = 0;
    for (guint j0 = 0; j0 < cols; j0 += group) {
      guint j1 = MIN (j0 + group, cols);
      qz_codebook_search (book, n, j1 - j0, s->sample + (gsize) j0 * n, n, s->pivots + j0, NULL, scale, scratch);
      if (book->trellis != NULL) {
        for (guint j = j0; j < j1; j += CHAIN_EVERY)
          sample_chain (s, chain, book->trellis, j, MIN (CHAIN_SAMPLE, j1 - j), scale, &sum, &energy);
        continue;
      }
      for (guint j = j0; j < j1; j++) {
        const float *x = s->sample + (gsize) j * n;
        qz_codebook_quantize (book, n, x, scale, codes, values);
        for (guint i = 0; i < n; i++)
          add_error (s, i, j, x[i] - values[i], &sum, &energy);
      }
    }
    s->error[kind][depth] = energy > 0 ? sum / energy : 0;
  }
  qz_chain_free (chain);
}

/* ---- proving a shape ------------------------------------------------------------------------------------------------------ */

typedef struct {
  const Sample *sample;
  const float *factor;
  const QzShape *shape; /* of the whole matrix */
  double *loss, *energy; /* [bands] */
} Proof;

/* One unit is a band of 16 rows. */
static void prove_work (gpointer data, guint begin, guint end, guint worker)
{
  const Proof *p = data;
  const Sample *s = p->sample;
  guint cols = p->shape->cols;
  g_autofree float *rows = g_new (float, (gsize) QZ_CHAIN_ROWS * cols);
  for (guint band = begin; band < end; band++) {
    guint r0 = band * QZ_CHAIN_ROWS, n = MIN (QZ_CHAIN_ROWS, s->n - r0);
    QzShape shape = *p->shape;
    shape.rows = n;
    g_autofree guint8 *depths = g_malloc (qz_shape_n_cells (&shape));
    memset (depths, PROVED, qz_shape_n_cells (&shape));
    QzLayout layout;
    xb_error why = NULL;
    qz_layout_init (&layout, &shape, 1, depths);
    gsize size = xb_layout_bytes (&layout.layout, &why);
    guint8 *blob = g_aligned_alloc (1, MAX (size, XB_ALIGN), XB_ALIGN);
    double loss[QZ_CHAIN_ROWS] = { 0 };
    for (guint r = 0; r < n; r++)
      for (guint j = 0; j < cols; j++) {
        float w = s->sample[(gsize) j * s->n + r0 + r];
        rows[(gsize) r * cols + j] = w;
        p->energy[band] += (double) s->fisher[r0 + r] * s->pivots[j] * w * w;
      }
    QzEncoder encoder = { .layout = &layout.layout, .factor = p->factor, .pivots = s->pivots, .importance = s->fisher + r0,
                          .plain = !s->method->compensates };
    QzEncodeScratch *scratch = qz_encode_scratch_new (&encoder, n);
    if (xb_matrix_init (blob, size, &layout.layout) == NULL && qz_encode_rows (&encoder, scratch, 0, n, rows, blob, size, loss) == NULL)
      for (guint r = 0; r < n; r++)
        p->loss[band] += s->fisher[r0 + r] * loss[r];
    qz_encode_scratch_free (scratch);
    g_aligned_free (blob);
    qz_layout_clear (&layout);
  }
}

/* How many times as much as by rounding each weight for itself, at least 1, the sample loses when it is encoded. Where a row has one scale and some columns are far
 * larger than the rest, their errors are all at the end of the codes' range, and what each leaves to the next adds up. */
static double proved_excess (const Sample *s, const float *factor, const QzShape *shape, double error, EngWorkers *workers)
{
  guint bands = (MIN (s->n, PROVED_ROWS) + QZ_CHAIN_ROWS - 1) / QZ_CHAIN_ROWS;
  g_autofree double *sums = g_new0 (double, 2 * bands);
  Proof proof = { s, factor, shape, sums, sums + bands };
  eng_workers_run (workers, prove_work, &proof, bands, 1);
  double loss = 0, energy = 0;
  for (guint band = 0; band < bands; band++) {
    loss += proof.loss[band];
    energy += proof.energy[band];
  }
  return energy > 0 && error > 0 ? MAX (1, loss / energy / error) : 1;
}

/* ---- one matrix ----------------------------------------------------------------------------------------------------------- */

/* Energy of a cell, from those of its blocks. */
static double cell_energy (const QzShape *shape, guint cell, const double *energy, guint n_blocks)
{
  guint n_panels = qz_shape_n_panels (shape), stripe = cell / n_panels, panel = cell % n_panels;
  guint per_panel = QZ_PANEL_COLS / ENERGY_COLS;
  guint block0 = n_panels == 1 ? 0 : panel * per_panel, block1 = n_panels == 1 ? n_blocks : MIN (block0 + per_panel, n_blocks);
  double sum = 0;
  for (guint block = block0; block < block1; block++)
    sum += energy[(gsize) stripe * n_blocks + block];
  return sum;
}

/* Where bits are shared out well, the loss at a given size goes with the geometric mean of the cells' error per weight, times 4 for each
 * bit the scales take from the weights: the log of that, over the typical depths. */
static double shape_cost (const QzShape *shape, const double *energy, guint n_blocks, double error)
{
  double sum = 0, weights = 0;
  for (guint c = 0; c < qz_shape_n_cells (shape); c++) {
    double n = qz_shape_unit_bytes (shape, c), e = cell_energy (shape, c, energy, n_blocks);
    sum += n * log (e / n + 1e-30);
    weights += n;
  }
  return sum / weights + log (error + 1e-30) + 2 * G_LN2 * qz_shape_scale_bits (shape);
}

typedef struct {
  double *energy;
  double error[QZ_MOST_DEPTH + 1];
  double rounding, kept_rounding; /* of inputs */
  guint n_blocks;
} Measured;

static guint n_kinds_of (const Sample *s)
{
  return s->method->has_trellis ? N_KINDS : N_UNIFORM_KINDS;
}

static QzShape shape_of (const Sample *s, guint kind)
{
  return (QzShape){ s->m->rows, s->m->cols, kinds[kind].kind, kinds[kind].group, codes_of (s) };
}

/* The kind of scales that costs least and was proved; sample->error of it is what it was proved to be. */
static guint best_kind (Sample *sample, const float *factor, const Measured *measured, EngWorkers *workers)
{
  double cost[N_KINDS];
  gboolean proved[N_KINDS] = { FALSE };
  for (guint k = 0; k < n_kinds_of (sample); k++) {
    QzShape shape = shape_of (sample, k);
    double typical = 1;
    for (guint depth = FIRST_TYPICAL; depth <= LAST_TYPICAL; depth++)
      typical *= pow (sample->error[k][depth], 1.0 / (LAST_TYPICAL + 1 - FIRST_TYPICAL));
    cost[k] = shape_cost (&shape, measured->energy, measured->n_blocks, typical);
  }
  for (;;) {
    guint best = 0;
    for (guint k = 1; k < n_kinds_of (sample); k++)
      if (cost[k] < cost[best])
        best = k;
    if (proved[best])
      return best;
    QzShape shape = shape_of (sample, best);
    double excess = proved_excess (sample, factor, &shape, sample->error[best][PROVED], workers);
    cost[best] += log (excess);
    for (guint depth = 1; depth <= QZ_MOST_DEPTH; depth++)
      sample->error[best][depth] *= excess;
    proved[best] = TRUE;
  }
}

/* factor [cols][cols] of the matrix's input. */
static gboolean measure_matrix (const QzSensitivities *s, guint matrix, const float *factor, EngWorkers *workers, QzShape *shape, Measured *out, GError **error)
{
  const QzMatrix *m = &s->source->matrices[matrix];
  guint n_stripes = (m->rows + QZ_STRIPE_ROWS - 1) / QZ_STRIPE_ROWS, n = MIN (SAMPLE_ROWS, m->rows);
  out->n_blocks = (m->cols + ENERGY_COLS - 1) / ENERGY_COLS;
  out->energy = g_new0 (double, (gsize) n_stripes * out->n_blocks);
  g_autofree double *rounding = g_new0 (double, 2 * n_stripes);
  Energies energies = { .s = s, .matrix = matrix, .n_blocks = out->n_blocks, .energy = out->energy, .rounding = rounding };
  g_mutex_init (&energies.lock);
  eng_workers_run (workers, energy_work, &energies, n_stripes, 1);
  g_mutex_clear (&energies.lock);
  if (energies.error != NULL) {
    g_propagate_error (error, energies.error);
    return FALSE;
  }
  for (guint stripe = 0; stripe < n_stripes; stripe++) {
    out->rounding += rounding[2 * stripe];
    out->kept_rounding += rounding[2 * stripe + 1];
  }
  g_autofree float *rows = g_new (float, (gsize) n * m->cols);
  g_autofree float *fisher = g_new (float, n);
  if (!sample_rows (s, matrix, n, rows, fisher, error))
    return FALSE;
  Sample sample = { .m = m, .method = qz_method_traits (s->analysis->method), .pivots = s->analysis->pivots[s->source->inputs[m->input].first_factor],
                    .sample = rows, .fisher = fisher, .n = n };
  eng_workers_run (workers, sample_work, &sample, n_kinds_of (&sample) * QZ_MOST_DEPTH, 1);
  for (guint k = 0; k < n_kinds_of (&sample); k++)
    fill_errors (&sample, sample.error[k]);
  guint best = best_kind (&sample, factor, out, workers);
  *shape = shape_of (&sample, best);
  memcpy (out->error, sample.error[best], sizeof out->error);
  out->error[0] = 1;
  return TRUE;
}

QzCurves *qz_sensitivity_curves (const QzSensitivities *s, EngWorkers *workers, EngProgress progress, gpointer data, double from, double to,
                                 GCancellable *cancellable, GError **error)
{
  guint n = s->source->n_matrices;
  g_autofree QzShape *shapes = g_new0 (QzShape, n);
  g_autofree Measured *measured = g_new0 (Measured, n);
  guint input = QZ_NONE; /* whose factor is there */
  g_autofree float *factor = NULL;
  gboolean ok = TRUE;
  for (guint m = 0; ok && m < n; m++) {
    if (progress != NULL)
      progress (from + (to - from) * m / n, "Weighing each part of the model", data);
    if (s->source->matrices[m].input != input) {
      input = s->source->matrices[m].input;
      gsize cols = s->source->inputs[input].cols;
      g_free (factor);
      factor = g_new (float, cols * cols);
      ok = qz_analysis_read_factor (s->analysis, s->source->inputs[input].first_factor, factor, error);
    }
    ok = ok && measure_matrix (s, m, factor, workers, &shapes[m], &measured[m], error);
    if (ok && g_cancellable_is_cancelled (cancellable)) {
      g_set_error (error, ENG_ERROR, ENG_ERROR_CANCELLED, "the analysis was cancelled; nothing was written");
      ok = FALSE;
    }
  }
  QzCurves *curves = ok ? qz_curves_new (s->source, shapes, error) : NULL;
  for (guint m = 0; curves != NULL && m < n; m++) {
    curves->matrices[m].rounding = measured[m].rounding;
    curves->matrices[m].kept_rounding = measured[m].kept_rounding;
    for (guint c = 0; c < qz_shape_n_cells (&shapes[m]); c++) {
      double energy = cell_energy (&shapes[m], c, measured[m].energy, measured[m].n_blocks);
      for (guint depth = 0; depth <= QZ_MOST_DEPTH; depth++)
        curves->cells[curves->matrices[m].first_cell + c].loss[depth] = energy * measured[m].error[depth];
    }
  }
  for (guint m = 0; m < n; m++)
    g_free (measured[m].energy);
  return curves;
}
