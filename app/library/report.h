/* report.h: what a fit says of itself, read from its own file: promised and measured, bytes and losses of its components, the depths within each matrix. */
#ifndef VALISE_REPORT_H
#define VALISE_REPORT_H

#include "app/library/library.h"

G_BEGIN_DECLS

enum { VALISE_REPORT_MOST_DEPTH = 8, VALISE_REPORT_MAP_COLUMNS = 96, VALISE_REPORT_MAP_ROWS = 16 };

typedef struct {
  char *name;        /* "blk.0.attn_q.weight" */
  const char *part;  /* "attn_q": what all layers' matrices of this kind are counted as */
  guint rows, cols;
  guint64 bytes;
  gboolean kept;     /* as the model has it, which was quantized already */
  double loss;       /* share of the whole, or NaN: not recorded */
  double depth;      /* mean bits of a code */
  guint least, most; /* depths */
  guint map_columns, map_rows;
  guint8 map[VALISE_REPORT_MAP_ROWS][VALISE_REPORT_MAP_COLUMNS]; /* rounded mean depth: stripes from left to right, panels from top to bottom */
} ValiseReportMatrix;

/* All matrices of a kind. */
typedef struct {
  const char *title; /* "Attention, queries": English; one that is not known by a name has the file's */
  guint64 bytes;
  double depth, loss;
} ValiseReportPart;

typedef struct {
  char *calibration, *source; /* or NULL: not recorded */
  guint64 file_bytes, other_bytes; /* other: of what is no packed matrix */
  double bpw, expected_kl, measured_kl, measured_top1; /* NaN: not recorded */
  double at_depth[VALISE_REPORT_MOST_DEPTH + 1];       /* share of the weights */
  guint n_kept;        /* of the matrices */
  GPtrArray *matrices; /* of ValiseReportMatrix, in the order of the file */
  GArray *parts;       /* of ValiseReportPart */
} ValiseReport;

/* Slow with large models. NULL with an error when the model is no fit or damaged. */
ValiseReport *valise_report_read (ValiseModel *model, GError **error);
void valise_report_free (ValiseReport *report);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (ValiseReport, valise_report_free)

G_END_DECLS
#endif
