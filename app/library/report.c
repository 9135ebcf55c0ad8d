/* report.c: read from the fit's own file. */
#include "app/library/report.h"
#include "app/library/library-private.h"

#include <math.h>
#include <string.h>

static void matrix_free (gpointer data)
{
  g_free (((ValiseReportMatrix *) data)->name);
  g_free (data);
}

/* "attn_q" of "blk.0.attn_q.weight". */
static const char *part_name (const char *matrix)
{
  const char *begin = g_str_has_prefix (matrix, "blk.") ? strchr (matrix + 4, '.') : NULL;
  begin = begin ? begin + 1 : matrix;
  g_autofree char *name = g_strndup (begin, strlen (begin) - (g_str_has_suffix (begin, ".weight") ? strlen (".weight") : 0));
  return g_intern_string (name);
}

static const char *part_title (const char *part)
{
  static const char *const titles[][2]
    = { { "token_embd", "Token embedding" }, { "output", "Output head" }, { "attn_q", "Attention, queries" }, { "attn_k", "Attention, keys" },
        { "attn_v", "Attention, values" }, { "attn_qkv", "Attention, queries, keys and values" }, { "attn_output", "Attention, output" },
        { "ffn_gate", "Feed-forward, gate" }, { "ffn_up", "Feed-forward, up" }, { "ffn_down", "Feed-forward, down" }, { "ffn_gate_exps", "Experts, gate" },
        { "ffn_up_exps", "Experts, up" }, { "ffn_down_exps", "Experts, down" } };
  for (guint i = 0; i < G_N_ELEMENTS (titles); i++)
    if (g_str_equal (part, titles[i][0]))
      return titles[i][1];
  return part;
}

/* Weights at each depth are added to `at_depth`. */
static void read_map (ValiseReportMatrix *part, const xb_layout *layout, double *at_depth)
{
  double sums[VALISE_REPORT_MAP_ROWS][VALISE_REPORT_MAP_COLUMNS] = { { 0 } }, counts[VALISE_REPORT_MAP_ROWS][VALISE_REPORT_MAP_COLUMNS] = { { 0 } }, bits = 0;
  part->map_columns = MIN (layout->n_stripes, VALISE_REPORT_MAP_COLUMNS);
  part->map_rows = MIN (layout->n_panels, VALISE_REPORT_MAP_ROWS);
  part->least = VALISE_REPORT_MOST_DEPTH;
  for (guint s = 0; s < layout->n_stripes; s++)
    for (guint p = 0; p < layout->n_panels; p++) {
      guint depth = MIN (layout->cells[(gsize) s * layout->n_panels + p].depth, VALISE_REPORT_MOST_DEPTH);
      double weights = (double) (layout->stripe_end[s] - (s ? layout->stripe_end[s - 1] : 0)) * (layout->panel_end[p] - (p ? layout->panel_end[p - 1] : 0));
      guint x = (guint) ((guint64) s * part->map_columns / layout->n_stripes), y = (guint) ((guint64) p * part->map_rows / layout->n_panels);
      sums[y][x] += weights * depth;
      counts[y][x] += weights;
      at_depth[depth] += weights;
      bits += weights * depth;
      part->least = MIN (part->least, depth);
      part->most = MAX (part->most, depth);
    }
  part->depth = bits / ((double) layout->rows * layout->cols);
  for (guint y = 0; y < part->map_rows; y++)
    for (guint x = 0; x < part->map_columns; x++)
      part->map[y][x] = counts[y][x] > 0 ? (guint8) lround (sums[y][x] / counts[y][x]) : 0;
}

/* The packed matrices, in the order of the file. */
static GPtrArray *read_matrices (const EngGguf *gguf, double *at_depth, GError **error)
{
  g_autoptr (GPtrArray) parts = g_ptr_array_new_with_free_func (matrix_free);
  double sum = 0;
  for (guint i = 0; i < eng_gguf_n_tensors (gguf); i++) {
    const EngTensor *tensor = eng_gguf_tensor (gguf, i);
    xb_error why = NULL;
    if (!g_str_has_suffix (tensor->name, ".xbit"))
      continue;
    xb_matrix *matrix = xb_matrix_open (tensor->data, tensor->bytes, &why);
    if (!matrix) {
      g_set_error (error, VALISE_ERROR, VALISE_ERROR_DAMAGED, "the tensor %s of %s is damaged (%s): make the fit again", tensor->name, eng_gguf_path (gguf), why);
      return NULL;
    }
    const xb_layout *layout = xb_matrix_layout (matrix);
    ValiseReportMatrix *part = g_new0 (ValiseReportMatrix, 1);
    g_autofree char *name = g_strndup (tensor->name, strlen (tensor->name) - strlen (".xbit"));
    part->part = part_name (name);
    part->name = g_steal_pointer (&name);
    part->rows = layout->rows;
    part->cols = layout->cols;
    part->bytes = tensor->bytes;
    read_map (part, layout, at_depth);
    xb_matrix_free (matrix);
    g_ptr_array_add (parts, part);
  }
  gboolean known = eng_gguf_array_length (gguf, "valise.fit.losses", NULL) == parts->len;
  for (guint i = 0; known && i < parts->len; i++)
    sum += eng_gguf_array_float (gguf, "valise.fit.losses", i);
  gboolean told = eng_gguf_array_length (gguf, "valise.fit.kept", NULL) == parts->len;
  for (guint i = 0; told && i < parts->len; i++)
    ((ValiseReportMatrix *) parts->pdata[i])->kept = eng_gguf_array_int (gguf, "valise.fit.kept", i) != 0;
  for (guint i = 0; i < parts->len; i++)
    ((ValiseReportMatrix *) parts->pdata[i])->loss = !known ? NAN : sum > 0 ? eng_gguf_array_float (gguf, "valise.fit.losses", i) / sum : 0;
  return g_steal_pointer (&parts);
}

/* Matrices of a kind together, in the order in which the kinds first come. */
static GArray *sum_parts (const GPtrArray *matrices)
{
  GArray *parts = g_array_new (FALSE, TRUE, sizeof (ValiseReportPart));
  g_autoptr (GHashTable) done = g_hash_table_new (g_str_hash, g_str_equal);
  for (guint i = 0; i < matrices->len; i++) {
    const ValiseReportMatrix *first = matrices->pdata[i];
    ValiseReportPart part = { .title = part_title (first->part) };
    double bits = 0, weights = 0;
    if (!g_hash_table_add (done, (gpointer) first->part))
      continue;
    for (guint k = i; k < matrices->len; k++) {
      const ValiseReportMatrix *matrix = matrices->pdata[k];
      if (!g_str_equal (matrix->part, first->part))
        continue;
      part.bytes += matrix->bytes;
      part.loss += matrix->loss;
      bits += matrix->depth * matrix->rows * matrix->cols;
      weights += (double) matrix->rows * matrix->cols;
    }
    part.depth = bits / weights;
    g_array_append_val (parts, part);
  }
  return parts;
}

ValiseReport *valise_report_read (ValiseModel *model, GError **error)
{
  double sum = 0;
  if (valise_model_get_kind (model) != VALISE_MODEL_FIT) {
    g_set_error (error, VALISE_ERROR, VALISE_ERROR_ARGUMENT, "%s is not a fit, so there is nothing to report: make one with \"valise fit\"", valise_model_get_name (model));
    return NULL;
  }
  g_autoptr (EngGguf) gguf = eng_gguf_open (valise_model_get_path (model), error);
  g_autoptr (ValiseReport) report = g_new0 (ValiseReport, 1);
  report->matrices = gguf ? read_matrices (gguf, report->at_depth, error) : NULL;
  if (!report->matrices)
    return NULL;
  report->parts = sum_parts (report->matrices);
  for (guint i = 0; i < report->matrices->len; i++)
    report->n_kept += ((ValiseReportMatrix *) report->matrices->pdata[i])->kept;
  report->source = g_strdup (eng_gguf_get_string (gguf, "valise.source", valise_model_get_source (model)));
  report->calibration = g_strdup (eng_gguf_get_string (gguf, "valise.fit.calibration", NULL));
  report->file_bytes = report->other_bytes = valise_model_get_bytes (model);
  for (guint i = 0; i < report->parts->len; i++)
    report->other_bytes -= MIN (g_array_index (report->parts, ValiseReportPart, i).bytes, report->other_bytes);
  report->bpw = eng_gguf_get_float (gguf, "valise.fit.bpw", NAN);
  report->expected_kl = eng_gguf_get_float (gguf, "valise.fit.expected_kl", NAN);
  report->measured_kl = eng_gguf_get_float (gguf, "valise.fit.measured_kl", valise_model_get_kl (model));
  report->measured_top1 = eng_gguf_get_float (gguf, "valise.fit.measured_top1", NAN);
  for (guint d = 0; d <= VALISE_REPORT_MOST_DEPTH; d++)
    sum += report->at_depth[d];
  for (guint d = 0; d <= VALISE_REPORT_MOST_DEPTH && sum > 0; d++)
    report->at_depth[d] /= sum;
  return g_steal_pointer (&report);
}

void valise_report_free (ValiseReport *report)
{
  if (!report)
    return;
  g_clear_pointer (&report->matrices, g_ptr_array_unref);
  g_clear_pointer (&report->parts, g_array_unref);
  g_free (report->calibration);
  g_free (report->source);
  g_free (report);
}
