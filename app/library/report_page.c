/* report_page.c: a fit's report as one HTML page without scripts or anything from outside. */
#include "app/library/report.h"

#include <math.h>
#include <string.h>

enum { CELL_PX = 5 };

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

static void add_parts (GString *page, const ValiseReport *report)
{
  g_string_append (page, "<h2>Where the bytes and the losses are</h2>\n<div class=\"wide\" tabindex=\"0\" role=\"region\" aria-label=\"Components\"><table>\n<thead><tr>"
                         "<th scope=\"col\">Component</th><th scope=\"col\">Size</th><th scope=\"col\">Bits per code</th><th scope=\"col\">Share of the file</th>"
                         "<th scope=\"col\">Share of the loss</th></tr></thead>\n<tbody>\n");
  for (guint i = 0; i < report->parts->len; i++) {
    const ValiseReportPart *part = &g_array_index (report->parts, ValiseReportPart, i);
    g_autofree char *size = valise_size_format (part->bytes);
    add (page, "<tr><th scope=\"row\">%s</th><td>%s</td><td>%.2f</td>", part->title, size, part->depth);
    add_share (page, (double) part->bytes / (double) report->file_bytes);
    add_share (page, part->loss);
    g_string_append (page, "</tr>\n");
  }
  g_autofree char *rest = valise_size_format (report->other_bytes);
  add (page, "<tr><th scope=\"row\">Vocabulary, norms, everything else</th><td>%s</td><td>exact</td>", rest);
  add_share (page, (double) report->other_bytes / (double) report->file_bytes);
  g_string_append (page, "<td>none</td></tr>\n</tbody></table></div>\n");
}

/* Cells of one depth are one path, runs of them one rectangle. */
static void add_map (GString *page, const ValiseReportMatrix *part)
{
  add (page, "<td class=\"map\"><svg role=\"img\" width=\"%u\" height=\"%u\" viewBox=\"0 0 %u %u\" shape-rendering=\"crispEdges\" "
             "aria-label=\"%.2f bits on average, from %u to %u\">",
       part->map_columns * CELL_PX, part->map_rows * CELL_PX, part->map_columns, part->map_rows, part->depth, part->least, part->most);
  for (guint depth = 0; depth <= VALISE_REPORT_MOST_DEPTH; depth++) {
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

static void add_maps (GString *page, const ValiseReport *report)
{
  g_string_append (page, "<h2>Depth map</h2>\n<p>Bits of each weight's code, in every part of every matrix: stripes of outputs from left to right, panels of inputs from top "
                         "to bottom. Darker in the light theme, and lighter in the dark one, is more.</p>\n<ul class=\"legend\">");
  for (guint d = 0; d <= VALISE_REPORT_MOST_DEPTH; d++)
    if (report->at_depth[d] > 0)
      add (page, "<li><i style=\"background:var(--d%u)\"></i>%u bit%s, %.1f %% of the weights</li>", d, d, d == 1 ? "" : "s", 100 * report->at_depth[d]);
  g_string_append (page, "</ul>\n");
  if (report->n_kept > 0)
    add (page, "<p>%u of %u matrices are as the original has them, which is quantized already, and lose nothing.</p>\n", report->n_kept, report->matrices->len);
  g_string_append (page, "<div class=\"wide\" tabindex=\"0\" role=\"region\" aria-label=\"Depth map\"><table>\n<thead><tr><th scope=\"col\">Matrix</th>"
                         "<th scope=\"col\">Outputs × inputs</th><th scope=\"col\">Bits</th><th scope=\"col\">Loss</th><th scope=\"col\" class=\"map\">Depths</th></tr></thead>\n<tbody>\n");
  for (guint i = 0; i < report->matrices->len; i++) {
    const ValiseReportMatrix *part = report->matrices->pdata[i];
    add (page, "<tr><th scope=\"row\">%s</th><td>%u × %u</td><td>%.2f</td>", part->name, part->rows, part->cols, part->depth);
    if (part->kept)
      g_string_append (page, "<td>none: as it was</td>");
    else if (isnan (part->loss))
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
  g_autoptr (ValiseReport) report = valise_report_read (model, error);
  if (!report)
    return FALSE;
  g_autofree char *size = valise_size_format (report->file_bytes);
  g_autoptr (GString) page = g_string_new ("<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">"
                                           "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n");
  add (page, "<title>%s: report of a fit</title>\n<style>", valise_model_get_name (model));
  g_string_append (page, style);
  add (page, "</style></head>\n<body><main>\n<h1>%s</h1>\n<p class=\"dim\">A fit of %s, calibrated on the text %s.</p>\n<dl>\n", valise_model_get_name (model),
       report->source ? report->source : "a model", report->calibration ? report->calibration : "not recorded");
  add (page, "<div><dt>File</dt><dd>%s</dd></div>\n", size);
  add_fact (page, "Bits per weight", "%.2f", report->bpw);
  add_fact (page, "KL divergence promised", "%.4f", report->expected_kl);
  add_fact (page, "KL divergence measured", "%.4f", report->measured_kl);
  add_fact (page, "Next words unchanged", "%.1f %%", 100 * report->measured_top1);
  g_string_append (page, "</dl>\n<p>KL divergence says how far the fit's idea of the next word is from the original's, in nats per token: 0 is the same, and "
                         "below 0.05 the difference is hard to notice. Promised was what the allocation expected; measured is on text that was kept aside.</p>\n");
  add_parts (page, report);
  add_maps (page, report);
  g_string_append (page, "</main></body></html>\n");
  return g_file_set_contents_full (path, page->str, (gssize) page->len, G_FILE_SET_CONTENTS_CONSISTENT, 0644, error);
}
