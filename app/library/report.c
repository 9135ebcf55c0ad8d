/* report.c: what a fit is made of, as one HTML page without scripts or anything from outside: read from the fit's own file. */
#include "app/library/library-private.h"

#include <math.h>
#include <string.h>

enum { MOST_DEPTH = 8, MAP_COLUMNS = 96, MAP_ROWS = 16, CELL_PX = 5 };

typedef struct {
  const char *name;  /* "blk.0.attn_q.weight" */
  char *part;        /* "attn_q": what all layers' matrices of this kind are counted as */
  guint rows, cols;
  guint64 bytes;
  double loss;       /* share of the whole, or NaN */
  double depth;      /* mean bits of a code */
  guint least, most; /* depths */
  guint map_columns, map_rows;
  guint8 map[MAP_ROWS][MAP_COLUMNS]; /* rounded mean depth: stripes from left to right, panels from top to bottom */
} Part;

static const char style[] =
  ":root{color-scheme:light dark;--ink:#1d1d20;--dim:#5e5c64;--page:#fafafa;--card:#fff;--line:#d8d6dc;--bar:#2a63b8;"
  "--d0:#eceaf0;--d1:#d6e4f7;--d2:#b3d0f0;--d3:#89b6e6;--d4:#5e99d9;--d5:#3a7bc4;--d6:#2560a6;--d7:#174683;--d8:#0b2c5c}"
  "@media(prefers-color-scheme:dark){:root{--ink:#f2f1f5;--dim:#b5b2bd;--page:#1e1e21;--card:#28282c;--line:#45444b;--bar:#7fb0ee;"
  "--d0:#34333a;--d1:#173050;--d2:#1c4270;--d3:#235792;--d4:#2f6fb5;--d5:#4a8ad0;--d6:#74a8e2;--d7:#a4c8f1;--d8:#d9e9fb}}"
  "*{box-sizing:border-box}body{margin:0;background:var(--page);color:var(--ink);font:16px/1.5 Cantarell,'Segoe UI',system-ui,sans-serif}"
  "main{max-width:64rem;margin:0 auto;padding:2rem 1rem 4rem}h1{font-size:1.75rem;line-height:1.2;margin:0;overflow-wrap:anywhere}h2{font-size:1.2rem;margin:2.5rem 0 .5rem}"
  "p{max-width:44rem}.dim{color:var(--dim)}dl{display:grid;grid-template-columns:repeat(auto-fit,minmax(10rem,1fr));gap:.75rem;margin:1.5rem 0}"
  "dl div{background:var(--card);border:1px solid var(--line);border-radius:12px;padding:.75rem 1rem}dt{color:var(--dim);font-size:.875rem}"
  "dd{margin:0;font-size:1.35rem;font-weight:600;overflow-wrap:anywhere}.wide{overflow-x:auto;background:var(--card);border:1px solid var(--line);border-radius:12px}"
  "table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}th,td{padding:.4rem .75rem;text-align:right;border-top:1px solid var(--line);white-space:nowrap}"
  "thead th{border-top:0;font-size:.875rem;color:var(--dim);font-weight:600;vertical-align:bottom}tbody th{font-weight:500}th:first-child{text-align:left}"
  ".bar{display:inline-block;vertical-align:middle;width:6rem;height:.6rem;margin-left:.5rem;border-radius:3px;background:var(--d0);overflow:hidden}"
  ".bar i{display:block;height:100%;background:var(--bar)}.map{text-align:left}svg{display:block}.legend{display:flex;flex-wrap:wrap;gap:.25rem 1rem;padding:0;list-style:none}"
  ".legend i{display:inline-block;width:1rem;height:1rem;border-radius:3px;margin-right:.4rem;vertical-align:-2px;border:1px solid var(--line)}";

static void part_free (gpointer data)
{
  g_free (((Part *) data)->part);
  g_free (data);
}

static char *part_name (const char *matrix)
{
  const char *begin = g_str_has_prefix (matrix, "blk.") ? strchr (matrix + 4, '.') : NULL;
  begin = begin ? begin + 1 : matrix;
  return g_strndup (begin, strlen (begin) - (g_str_has_suffix (begin, ".weight") ? strlen (".weight") : 0));
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
static void read_map (Part *part, const xb_layout *layout, double *at_depth)
{
  double sums[MAP_ROWS][MAP_COLUMNS] = { { 0 } }, counts[MAP_ROWS][MAP_COLUMNS] = { { 0 } }, bits = 0;
  part->map_columns = MIN (layout->n_stripes, MAP_COLUMNS);
  part->map_rows = MIN (layout->n_panels, MAP_ROWS);
  part->least = MOST_DEPTH;
  for (guint s = 0; s < layout->n_stripes; s++)
    for (guint p = 0; p < layout->n_panels; p++) {
      guint depth = MIN (layout->cells[(gsize) s * layout->n_panels + p].depth, MOST_DEPTH);
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
static GPtrArray *read_parts (const EngGguf *gguf, double *at_depth, GError **error)
{
  g_autoptr (GPtrArray) parts = g_ptr_array_new_with_free_func (part_free);
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
    Part *part = g_new0 (Part, 1);
    g_autofree char *name = g_strndup (tensor->name, strlen (tensor->name) - strlen (".xbit"));
    part->name = tensor->name;
    part->part = part_name (name);
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
  for (guint i = 0; i < parts->len; i++)
    ((Part *) parts->pdata[i])->loss = known && sum > 0 ? eng_gguf_array_float (gguf, "valise.fit.losses", i) / sum : NAN;
  return g_steal_pointer (&parts);
}

/* ---- the page ---- */

static void add (GString *page, const char *format, ...) G_GNUC_PRINTF (2, 3);
static void add (GString *page, const char *format, ...)
{
  va_list arguments;
  va_start (arguments, format);
  g_autofree char *text = g_markup_vprintf_escaped (format, arguments);
  va_end (arguments);
  g_string_append (page, text);
}

static void add_share (GString *page, double share)
{
  if (isnan (share))
    add (page, "<td>not recorded</td>");
  else
    add (page, "<td>%.1f %%<span class=\"bar\" aria-hidden=\"true\"><i style=\"width:%.1f%%\"></i></span></td>", 100 * share, 100 * share);
}

static void add_fact (GString *page, const char *name, const char *format, double value)
{
  g_autofree char *text = isnan (value) ? g_strdup ("not recorded") : NULL;
  add (page, "<div><dt>%s</dt><dd>", name);
  if (text)
    add (page, "%s", text);
  else
    g_string_append_printf (page, format, value);
  g_string_append (page, "</dd></div>\n");
}

static void add_parts (GString *page, const GPtrArray *parts, guint64 file_bytes)
{
  guint64 matrices = 0;
  g_string_append (page, "<h2>Where the bytes and the losses are</h2>\n<div class=\"wide\" tabindex=\"0\" role=\"region\" aria-label=\"Components\"><table>\n<thead><tr>"
                         "<th scope=\"col\">Component</th><th scope=\"col\">Size</th><th scope=\"col\">Bits per code</th><th scope=\"col\">Share of the file</th>"
                         "<th scope=\"col\">Share of the loss</th></tr></thead>\n<tbody>\n");
  g_autoptr (GHashTable) done = g_hash_table_new (g_str_hash, g_str_equal);
  for (guint i = 0; i < parts->len; i++) {
    const Part *first = parts->pdata[i];
    double loss = 0, bits = 0, weights = 0;
    guint64 bytes = 0;
    if (!g_hash_table_add (done, first->part))
      continue;
    for (guint k = i; k < parts->len; k++) {
      const Part *part = parts->pdata[k];
      if (!g_str_equal (part->part, first->part))
        continue;
      bytes += part->bytes;
      loss += part->loss;
      bits += part->depth * part->rows * part->cols;
      weights += (double) part->rows * part->cols;
    }
    g_autofree char *size = valise_size_format (bytes);
    matrices += bytes;
    add (page, "<tr><th scope=\"row\">%s</th><td>%s</td><td>%.2f</td>", part_title (first->part), size, bits / weights);
    add_share (page, (double) bytes / (double) file_bytes);
    add_share (page, loss);
    g_string_append (page, "</tr>\n");
  }
  g_autofree char *rest = valise_size_format (file_bytes - matrices);
  add (page, "<tr><th scope=\"row\">Vocabulary, norms, everything else</th><td>%s</td><td>exact</td>", rest);
  add_share (page, (double) (file_bytes - matrices) / (double) file_bytes);
  g_string_append (page, "<td>none</td></tr>\n</tbody></table></div>\n");
}

/* Cells of one depth are one path, runs of them one rectangle. */
static void add_map (GString *page, const Part *part)
{
  add (page, "<td class=\"map\"><svg role=\"img\" width=\"%u\" height=\"%u\" viewBox=\"0 0 %u %u\" shape-rendering=\"crispEdges\" "
             "aria-label=\"%.2f bits on average, from %u to %u\">",
       part->map_columns * CELL_PX, part->map_rows * CELL_PX, part->map_columns, part->map_rows, part->depth, part->least, part->most);
  for (guint depth = 0; depth <= MOST_DEPTH; depth++) {
    g_autoptr (GString) path = g_string_new (NULL);
    for (guint y = 0; y < part->map_rows; y++)
      for (guint x = 0, run; x < part->map_columns; x += run) {
        for (run = 1; x + run < part->map_columns && part->map[y][x + run] == part->map[y][x]; run++)
          ;
        if (part->map[y][x] == depth)
          g_string_append_printf (path, "M%u %uh%uv1h-%uz", x, y, run, run);
      }
    if (path->len)
      add (page, "<path style=\"fill:var(--d%u)\" d=\"%s\"/>", depth, path->str);
  }
  g_string_append (page, "</svg></td>");
}

static void add_maps (GString *page, const GPtrArray *parts, const double *at_depth)
{
  double weights = 0;
  for (guint d = 0; d <= MOST_DEPTH; d++)
    weights += at_depth[d];
  g_string_append (page, "<h2>Depth map</h2>\n<p>Bits of each weight's code, in every part of every matrix: stripes of outputs from left to right, panels of inputs from top "
                         "to bottom. Darker in the light theme, and lighter in the dark one, is more.</p>\n<ul class=\"legend\">");
  for (guint d = 0; d <= MOST_DEPTH; d++)
    if (at_depth[d] > 0)
      add (page, "<li><i style=\"background:var(--d%u)\"></i>%u bit%s, %.1f %% of the weights</li>", d, d, d == 1 ? "" : "s", 100 * at_depth[d] / weights);
  g_string_append (page, "</ul>\n<div class=\"wide\" tabindex=\"0\" role=\"region\" aria-label=\"Depth map\"><table>\n<thead><tr><th scope=\"col\">Matrix</th>"
                         "<th scope=\"col\">Outputs × inputs</th><th scope=\"col\">Bits</th><th scope=\"col\">Loss</th><th scope=\"col\" class=\"map\">Depths</th></tr></thead>\n<tbody>\n");
  for (guint i = 0; i < parts->len; i++) {
    const Part *part = parts->pdata[i];
    g_autofree char *name = g_strndup (part->name, strlen (part->name) - strlen (".xbit"));
    add (page, "<tr><th scope=\"row\">%s</th><td>%u × %u</td><td>%.2f</td>", name, part->rows, part->cols, part->depth);
    if (isnan (part->loss))
      g_string_append (page, "<td>not recorded</td>");
    else
      add (page, "<td>%.2f %%</td>", 100 * part->loss);
    add_map (page, part);
    g_string_append (page, "</tr>\n");
  }
  g_string_append (page, "</tbody></table></div>\n");
}

gboolean valise_model_write_report (ValiseModel *model, const char *path, GError **error)
{
  double at_depth[MOST_DEPTH + 1] = { 0 };
  g_autoptr (EngGguf) gguf = NULL;
  if (valise_model_get_kind (model) != VALISE_MODEL_FIT) {
    g_set_error (error, VALISE_ERROR, VALISE_ERROR_ARGUMENT, "%s is not a fit, so there is nothing to report: make one with \"valise fit\"", valise_model_get_name (model));
    return FALSE;
  }
  gguf = eng_gguf_open (valise_model_get_path (model), error);
  g_autoptr (GPtrArray) parts = gguf ? read_parts (gguf, at_depth, error) : NULL;
  if (!parts)
    return FALSE;
  double measured = eng_gguf_get_float (gguf, "valise.fit.measured_kl", NAN);
  g_autofree char *size = valise_size_format (valise_model_get_bytes (model));
  g_autoptr (GString) page = g_string_new ("<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">"
                                           "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n");
  add (page, "<title>%s: report of a fit</title>\n<style>", valise_model_get_name (model));
  g_string_append (page, style);
  add (page, "</style></head>\n<body><main>\n<h1>%s</h1>\n<p class=\"dim\">A fit of %s, calibrated on the text %s.</p>\n<dl>\n", valise_model_get_name (model),
       eng_gguf_get_string (gguf, "valise.source", valise_model_get_source (model)), eng_gguf_get_string (gguf, "valise.fit.calibration", "not recorded"));
  add (page, "<div><dt>File</dt><dd>%s</dd></div>\n", size);
  add_fact (page, "Bits per weight", "%.2f", eng_gguf_get_float (gguf, "valise.fit.bpw", NAN));
  add_fact (page, "KL divergence promised", "%.4f", eng_gguf_get_float (gguf, "valise.fit.expected_kl", NAN));
  add_fact (page, "KL divergence measured", "%.4f", isnan (measured) ? valise_model_get_kl (model) : measured);
  add_fact (page, "Next words unchanged", "%.1f %%", 100 * eng_gguf_get_float (gguf, "valise.fit.measured_top1", NAN));
  g_string_append (page, "</dl>\n<p>KL divergence says how far the fit's idea of the next word is from the original's, in nats per token: 0 is the same, and "
                         "below 0.05 the difference is hard to notice. Promised was what the allocation expected; measured is on text that was kept aside.</p>\n");
  add_parts (page, parts, valise_model_get_bytes (model));
  add_maps (page, parts, at_depth);
  g_string_append (page, "</main></body></html>\n");
  return g_file_set_contents_full (path, page->str, (gssize) page->len, G_FILE_SET_CONTENTS_CONSISTENT, 0644, error);
}
