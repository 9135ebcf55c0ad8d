/* curves.c: previews of any budget from the sorted steps of all cells. */
#include "quantizer/curves.h"

#include "engine/error.h"
#include "quantizer/codebook.h"
#include "quantizer/seal.h"

#include <math.h>
#include <string.h>

/* ---- making ------------------------------------------------------------------------------------------------------------- */

QzCurves *qz_curves_new (const QzSource *source, const QzShape *shapes, GError **error)
{
  g_autoptr (QzCurves) curves = g_new0 (QzCurves, 1);
  g_atomic_ref_count_init (&curves->references);
  curves->n_matrices = source->n_matrices;
  curves->matrices = g_new0 (QzCurvesMatrix, source->n_matrices);
  for (guint m = 0; m < source->n_matrices; m++) {
    QzCurvesMatrix *matrix = &curves->matrices[m];
    *matrix = (QzCurvesMatrix){ .name = g_strdup (source->matrices[m].name), .shape = shapes[m], .first_cell = curves->n_cells };
    matrix->kept = qz_kept_form (source, m);
    curves->n_cells += qz_shape_n_cells (&shapes[m]);
    curves->n_weights += (guint64) shapes[m].rows * shapes[m].cols;
    QzLayout layout;
    xb_error why = NULL;
    qz_layout_init (&layout, &shapes[m], 1, NULL);
    matrix->fixed_bytes = xb_layout_bytes (&layout.layout, &why);
    qz_layout_clear (&layout);
    if (matrix->fixed_bytes == 0) {
      g_set_error (error, ENG_ERROR, ENG_ERROR_UNSUPPORTED, "the tensor %s of %s cannot be packed: %s", matrix->name, eng_gguf_path (source->gguf), why);
      return NULL;
    }
  }
  curves->cells = g_new0 (QzCell, curves->n_cells);
  for (guint m = 0; m < curves->n_matrices; m++)
    for (guint c = 0; c < qz_shape_n_cells (&shapes[m]); c++)
      curves->cells[curves->matrices[m].first_cell + c].unit_bytes = qz_shape_unit_bytes (&shapes[m], c);
  return g_steal_pointer (&curves);
}

/* What a matrix that is kept loses: by the rounding of its input, beyond what it loses behind the pipeline. */
static double kept_loss (const QzCurvesMatrix *matrix)
{
  return MAX (0, matrix->kept_rounding - matrix->rounding);
}

void qz_curves_finish (QzCurves *curves)
{
  curves->wholes = g_new (QzWhole, curves->n_matrices);
  for (guint m = 0; m < curves->n_matrices; m++) {
    const QzCurvesMatrix *x = &curves->matrices[m];
    curves->rounding += x->rounding;
    if (x->kept.bytes > x->fixed_bytes)
      curves->wholes[curves->n_wholes++] = (QzWhole){ x->first_cell, qz_shape_n_cells (&x->shape), x->kept.bytes - x->fixed_bytes, kept_loss (x) };
  }
  qz_allocator_init (&curves->allocator, curves->cells, curves->n_cells, curves->wholes, curves->n_wholes);
}

QzCurves *qz_curves_ref (QzCurves *curves)
{
  g_atomic_ref_count_inc (&curves->references);
  return curves;
}

void qz_curves_unref (QzCurves *curves)
{
  if (curves == NULL || !g_atomic_ref_count_dec (&curves->references))
    return;
  for (guint m = 0; m < curves->n_matrices; m++)
    g_free (curves->matrices[m].name);
  g_free (curves->matrices);
  g_free (curves->cells);
  g_free (curves->wholes);
  qz_allocator_clear (&curves->allocator);
  g_free (curves);
}

/* Mean squared error grows with a matrix's place in the graph as it did on the models this was set with: the embedding's rows
 * forgive most, the down projections least. In nats per token for a whole matrix at depth 0, spread evenly over its cells. */
static double typical_loss (const QzSource *source, guint m)
{
  static const double by_role[] = { [QZ_ROLE_EMBEDDING] = 4.0, [QZ_ROLE_Q] = 6.0, [QZ_ROLE_K] = 5.0,  [QZ_ROLE_V] = 9.0, [QZ_ROLE_QKV] = 20.0,
                                    [QZ_ROLE_OUTPUT] = 9.0, [QZ_ROLE_GATE] = 12.0, [QZ_ROLE_UP] = 15.0, [QZ_ROLE_GATE_UP] = 27.0,
                                    [QZ_ROLE_DOWN] = 16.0, [QZ_ROLE_HEAD] = 4.0,
                                    [QZ_ROLE_Q_A] = 6.0,       [QZ_ROLE_KV_A] = 9.0, [QZ_ROLE_Q_B] = 6.0, [QZ_ROLE_KV_B] = 14.0, [QZ_ROLE_K_B] = 5.0,
                                    [QZ_ROLE_V_B] = 9.0 };
  QzRole role = source->matrices[m].role;
  gboolean in_layer = role != QZ_ROLE_EMBEDDING && role != QZ_ROLE_HEAD;
  return by_role[role] / (in_layer ? source->traits.n_layers : 1);
}

QzCurves *qz_curves_estimate (const EngGguf *gguf, GError **error)
{
  g_autoptr (QzSource) source = qz_source_new ((EngGguf *) gguf, error);
  if (source == NULL)
    return NULL;
  g_autofree QzShape *shapes = g_new (QzShape, source->n_matrices);
  for (guint m = 0; m < source->n_matrices; m++)
    shapes[m] = (QzShape){ source->matrices[m].rows, source->matrices[m].cols, XB_SCALE_ROW_F16, 0, QZ_CODES_TRELLIS };
  g_autoptr (QzCurves) curves = qz_curves_new (source, shapes, error);
  if (curves == NULL || !qz_seal_other_bytes (source, NULL, NULL, &curves->other_bytes, error))
    return NULL;
  curves->estimate = TRUE;
  for (guint m = 0; m < source->n_matrices; m++) {
    guint n = qz_shape_n_cells (&shapes[m]);
    for (guint c = 0; c < n; c++)
      for (guint depth = 0; depth <= QZ_MOST_DEPTH; depth++)
        curves->cells[curves->matrices[m].first_cell + c].loss[depth] = typical_loss (source, m) / n * qz_codebook (QZ_CODES_TRELLIS, depth)->unit_error;
  }
  qz_curves_finish (curves);
  return g_steal_pointer (&curves);
}

/* ---- asking ------------------------------------------------------------------------------------------------------------- */

/* Measured over predicted on text that nothing was learned from: 1.2 to 1.5 from 40 to 112 MB on SmolLM2-135M, 1.2 to 1.3 on Gemma 3 270M from 2.8 to 6.9 bits.
 * On text that was learned from it is less (docs/quantizer.md). */
double qz_curves_kl_of_loss (double loss)
{
  return 1.4 * loss;
}

/* The share of tokens whose likeliest successor survives falls with the typical change of a logit, the root of the divergence; the
 * constant fits llama.cpp's types and our own from 0.005 to 1 nat. */
double qz_expected_top1 (double kl)
{
  return exp (-0.68 * sqrt (kl));
}

/* Measured from 0.03 to 1 nat on SmolLM2-135M: 0.12 of it at the one end, 0.3 at the other. */
double qz_tuned_kl (double kl)
{
  return kl * (0.9 - 0.2 * MIN (kl, 1));
}

/* Trellises of 16 bits leave 0.91 to 0.95 of what those of 12 bits do, by depth; curves are of those. */
double qz_expected_kl (double preview_kl, QzQuality quality)
{
  return quality == QZ_QUALITY_BEST ? qz_tuned_kl (0.93 * preview_kl) : preview_kl;
}

static guint64 fixed_bytes (const QzCurves *curves)
{
  guint64 bytes = 0;
  for (guint m = 0; m < curves->n_matrices; m++)
    bytes += curves->matrices[m].fixed_bytes;
  return bytes;
}

gboolean qz_curves_is_estimate (const QzCurves *curves)
{
  return curves->estimate;
}

guint64 qz_curves_min_bytes (const QzCurves *curves)
{
  return curves->other_bytes + fixed_bytes (curves) + qz_allocator_min_bytes (&curves->allocator);
}

guint64 qz_curves_max_bytes (const QzCurves *curves)
{
  return curves->other_bytes + fixed_bytes (curves) + qz_allocator_max_bytes (&curves->allocator);
}

static guint steps_for (const QzCurves *curves, guint64 target_bytes)
{
  guint64 taken = curves->other_bytes + fixed_bytes (curves);
  return qz_allocator_steps_for (&curves->allocator, target_bytes > taken ? target_bytes - taken : 0);
}

void qz_curves_preview (const QzCurves *curves, guint64 target_bytes, QzPreview *preview)
{
  guint n = steps_for (curves, target_bytes);
  guint64 matrices = fixed_bytes (curves) + curves->allocator.bytes_before[n];
  double kl = qz_curves_kl_of_loss (curves->rounding + curves->allocator.loss_before[n]);
  *preview = (QzPreview){ .file_bytes = curves->other_bytes + matrices,
                          .bpw = 8.0 * matrices / curves->n_weights,
                          .expected_kl = kl,
                          .expected_top1 = qz_expected_top1 (kl) };
}

void qz_curves_preview_uniform (const QzCurves *curves, guint bits, QzPreview *preview)
{
  double loss;
  qz_curves_uniform (curves, bits, 0, NULL, &preview->file_bytes, &loss);
  preview->bpw = 8.0 * (preview->file_bytes - curves->other_bytes) / curves->n_weights;
  preview->expected_kl = qz_curves_kl_of_loss (loss);
  preview->expected_top1 = qz_expected_top1 (preview->expected_kl);
}

guint64 qz_curves_bytes_for_bpw (const QzCurves *curves, double bpw)
{
  double bytes = curves->other_bytes + bpw / 8 * curves->n_weights;
  return CLAMP (bytes, qz_curves_min_bytes (curves), qz_curves_max_bytes (curves));
}

guint qz_curves_n_matrices (const QzCurves *curves)
{
  return curves->n_matrices;
}

const char *qz_curves_matrix_name (const QzCurves *curves, guint m)
{
  return curves->matrices[m].name;
}

void qz_curves_depths (const QzCurves *curves, guint64 target_bytes, float *mean_depth)
{
  g_autofree guint8 *depths = g_malloc (curves->n_cells);
  qz_allocator_depths (&curves->allocator, steps_for (curves, target_bytes), depths);
  for (guint m = 0; m < curves->n_matrices; m++) {
    double bits = 0, size = 0;
    if (qz_curves_keeps (curves, m, depths)) {
      mean_depth[m] = curves->matrices[m].kept.depth;
      continue;
    }
    for (guint c = 0; c < qz_shape_n_cells (&curves->matrices[m].shape); c++) {
      const QzCell *cell = &curves->cells[curves->matrices[m].first_cell + c];
      bits += (double) depths[curves->matrices[m].first_cell + c] * cell->unit_bytes;
      size += cell->unit_bytes;
    }
    mean_depth[m] = bits / size;
  }
}

double qz_curves_rounding (const QzCurves *curves, const guint8 *depths)
{
  double loss = 0;
  for (guint m = 0; m < curves->n_matrices; m++)
    loss += curves->matrices[m].rounding + (qz_curves_keeps (curves, m, depths) ? kept_loss (&curves->matrices[m]) : 0);
  return loss;
}

gboolean qz_curves_keeps (const QzCurves *curves, guint matrix, const guint8 *depths)
{
  return depths[curves->matrices[matrix].first_cell] == QZ_IN_WHOLE;
}

QzPackedSize qz_curves_matrix_size (const QzCurves *curves, guint matrix, const guint8 *depths)
{
  const QzCurvesMatrix *m = &curves->matrices[matrix];
  QzPackedSize size = { .matrix = m->fixed_bytes };
  if (qz_curves_keeps (curves, matrix, depths))
    return m->kept.size;
  for (guint c = m->first_cell; c < m->first_cell + qz_shape_n_cells (&m->shape); c++)
    size.matrix += (guint64) depths[c] * curves->cells[c].unit_bytes;
  return size;
}

/* Cells of a matrix are one. */
static guint64 allocate_matrices (const QzCurves *curves, guint64 bytes, guint8 *depths, double *loss)
{
  g_autofree QzCell *whole = g_new0 (QzCell, curves->n_matrices);
  g_autofree guint8 *depth = g_malloc (curves->n_matrices);
  g_autofree QzWhole *wholes = g_new (QzWhole, curves->n_wholes);
  QzAllocator allocator;
  for (guint m = 0, w = 0; m < curves->n_matrices; m++) {
    if (w < curves->n_wholes && curves->wholes[w].first_cell == curves->matrices[m].first_cell) {
      wholes[w] = (QzWhole){ m, 1, curves->wholes[w].bytes, curves->wholes[w].loss };
      w++;
    }
    for (guint c = 0; c < qz_shape_n_cells (&curves->matrices[m].shape); c++) {
      const QzCell *cell = &curves->cells[curves->matrices[m].first_cell + c];
      whole[m].unit_bytes += cell->unit_bytes;
      for (guint d = 0; d <= QZ_MOST_DEPTH; d++)
        whole[m].loss[d] += cell->loss[d];
    }
  }
  qz_allocator_init (&allocator, whole, curves->n_matrices, wholes, curves->n_wholes);
  guint64 used = qz_allocate (&allocator, bytes, depth, loss);
  qz_allocator_clear (&allocator);
  for (guint m = 0; m < curves->n_matrices; m++)
    memset (depths + curves->matrices[m].first_cell, depth[m], qz_shape_n_cells (&curves->matrices[m].shape));
  return used;
}

/* A matrix that holds anything takes its bits in all of its cells. */
static guint64 least_for_matrices (const QzCurves *curves)
{
  guint64 bytes = 0;
  for (guint c = 0; c < curves->n_cells; c++)
    bytes += (guint64) QZ_LEAST_DEPTH * curves->cells[c].unit_bytes;
  return bytes;
}

gboolean qz_curves_allocate (const QzCurves *curves, QzAllocation allocation, guint64 file_bytes, guint64 extra_bytes, guint8 *depths, guint64 *used_bytes,
                             double *loss)
{
  guint64 taken = curves->other_bytes + extra_bytes + fixed_bytes (curves);
  gboolean by_matrix = allocation == QZ_ALLOCATE_MATRICES;
  if (file_bytes < taken + (by_matrix ? least_for_matrices (curves) : qz_allocator_min_bytes (&curves->allocator)))
    return FALSE;
  *used_bytes = taken + (by_matrix ? allocate_matrices (curves, file_bytes - taken, depths, loss)
                                   : qz_allocate (&curves->allocator, file_bytes - taken, depths, loss));
  *loss += curves->rounding;
  return TRUE;
}

void qz_curves_uniform (const QzCurves *curves, guint bits, guint64 extra_bytes, guint8 *depths, guint64 *used_bytes, double *loss)
{
  *used_bytes = curves->other_bytes + extra_bytes + fixed_bytes (curves);
  *loss = curves->rounding;
  for (guint c = 0; c < curves->n_cells; c++) {
    guint depth = curves->cells[c].loss[0] > 0 ? bits : 0;
    *used_bytes += (guint64) depth * curves->cells[c].unit_bytes;
    *loss += curves->cells[c].loss[depth];
    if (depths != NULL)
      depths[c] = depth;
  }
}

/* ---- in the analysis file ----------------------------------------------------------------------------------------------- */

GVariant *qz_curves_to_variant (const QzCurves *curves)
{
  GVariantBuilder matrices;
  g_variant_builder_init (&matrices, G_VARIANT_TYPE ("a(suuyyytdd)"));
  for (guint m = 0; m < curves->n_matrices; m++) {
    const QzCurvesMatrix *x = &curves->matrices[m];
    g_variant_builder_add (&matrices, "(suuyyytdd)", x->name, x->shape.rows, x->shape.cols, x->shape.scale_kind, x->shape.group, x->shape.codes, x->fixed_bytes,
                           x->rounding, x->kept_rounding);
  }
  g_autofree float *losses = g_new (float, (gsize) curves->n_cells * (QZ_MOST_DEPTH + 1));
  for (guint c = 0; c < curves->n_cells; c++)
    memcpy (losses + (gsize) c * (QZ_MOST_DEPTH + 1), curves->cells[c].loss, sizeof curves->cells[c].loss);
  return g_variant_new ("(t@a(suuyyytdd)@ay)", curves->other_bytes, g_variant_builder_end (&matrices),
                        g_variant_new_fixed_array (G_VARIANT_TYPE_BYTE, losses, (gsize) curves->n_cells * sizeof curves->cells[0].loss, 1));
}

static gboolean shape_is_sound (const QzShape *shape)
{
  gboolean grouped = shape->scale_kind == XB_SCALE_GROUP_F16 || shape->scale_kind == XB_SCALE_GROUP_I8;
  if (shape->codes != QZ_CODES_TRELLIS && shape->codes != QZ_CODES_UNIFORM)
    return FALSE; /* longer words are a fit's own choice */
  return grouped ? shape->group == 32 || shape->group == 64 || shape->group == 128 : shape->scale_kind == XB_SCALE_ROW_F16 && shape->group == 0;
}

QzCurves *qz_curves_from_variant (GVariant *variant, const QzSource *source, GError **error)
{
  guint64 other_bytes;
  g_autoptr (GVariant) matrices = NULL, bytes = NULL;
  g_variant_get (variant, "(t@a(suuyyytdd)@ay)", &other_bytes, &matrices, &bytes);
  gboolean sound = g_variant_n_children (matrices) == source->n_matrices;
  g_autofree QzShape *shapes = g_new0 (QzShape, source->n_matrices);
  g_autofree double *rounding = g_new0 (double, source->n_matrices), *kept_rounding = g_new0 (double, source->n_matrices);
  for (guint m = 0; sound && m < source->n_matrices; m++) {
    const char *name;
    g_autoptr (GVariant) row = g_variant_get_child_value (matrices, m);
    g_variant_get (row, "(&suuyyytdd)", &name, &shapes[m].rows, &shapes[m].cols, &shapes[m].scale_kind, &shapes[m].group, &shapes[m].codes, NULL, &rounding[m],
                   &kept_rounding[m]);
    const QzMatrix *matrix = &source->matrices[m];
    sound = g_str_equal (name, matrix->name) && shapes[m].rows == matrix->rows && shapes[m].cols == matrix->cols && shape_is_sound (&shapes[m])
            && isfinite (rounding[m]) && rounding[m] >= 0 && isfinite (kept_rounding[m]) && kept_rounding[m] >= 0;
  }
  g_autoptr (QzCurves) curves = sound ? qz_curves_new (source, shapes, error) : NULL;
  if (sound && curves == NULL)
    return NULL;
  gsize size = 0;
  const guint8 *data = g_variant_get_fixed_array (bytes, &size, 1);
  sound = sound && size == (gsize) curves->n_cells * sizeof curves->cells[0].loss;
  for (guint c = 0; sound && c < curves->n_cells; c++) {
    memcpy (curves->cells[c].loss, data + c * sizeof curves->cells[0].loss, sizeof curves->cells[0].loss);
    for (guint depth = 0; depth <= QZ_MOST_DEPTH; depth++)
      sound = sound && isfinite (curves->cells[c].loss[depth]) && curves->cells[c].loss[depth] >= 0;
  }
  if (!sound) {
    g_set_error (error, ENG_ERROR, ENG_ERROR_FORMAT, "the stored analysis does not belong to %s: analyse the model again", eng_gguf_path (source->gguf));
    return NULL;
  }
  curves->other_bytes = other_bytes;
  for (guint m = 0; m < curves->n_matrices; m++) {
    curves->matrices[m].rounding = rounding[m];
    curves->matrices[m].kept_rounding = kept_rounding[m];
  }
  qz_curves_finish (curves);
  return g_steal_pointer (&curves);
}
