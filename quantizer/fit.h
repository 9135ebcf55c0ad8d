/* fit.h: from a checkpoint to an X-bit file of a given size: observe, transform, curves, allocate, encode, seal.
 * Blocking calls, each on any one thread; they use the workers given to them. Sizes are of the finished file, every byte counted. */
#ifndef QZ_FIT_H
#define QZ_FIT_H

#include "engine/model.h"
#include "engine/workers.h"

/* Stages report through EngProgress: fraction 0..1 of the whole call, what = one short sentence. */

/* ---- methods: the product's own, and the well-known ones, which are settings of the same encoder -------------------------- */
typedef enum {
  QZ_METHOD_XBIT,   /* balancing diagonal, Hadamard, error compensation, trellises, a depth for every cell */
  QZ_METHOD_RTN,    /* round to nearest */
  QZ_METHOD_GPTQ,   /* error compensation, columns by falling moment (Frantar et al. 2022) */
  QZ_METHOD_AWQ,    /* activation-aware scales, then round to nearest (Lin et al. 2024) */
  QZ_METHOD_QUAROT, /* random Hadamards folded into the weights, then error compensation (Ashkboos et al. 2024): takes a model that qz_fold_rotations made */
  QZ_METHOD_SPINQUANT, /* the same with rotations that are learned (Liu et al. 2024) */
  QZ_METHOD_HADAMARD, /* Hadamards in front of every product, behind the gain of its norm, then error compensation */
  QZ_N_METHODS
} QzMethod;

const char *qz_method_name (QzMethod method);
gboolean qz_method_from_name (const char *name, QzMethod *method);
gboolean qz_method_folds_rotations (QzMethod method);

/* How the bits of QZ_METHOD_XBIT are shared out; the others have one depth. All but the first are there to measure what it is worth. */
typedef enum {
  QZ_ALLOCATE_CELLS,    /* among all cells; with one depth (QzTarget.bits) among the rows of a trellis alone, which count by what they matter */
  QZ_ALLOCATE_MATRICES, /* among whole matrices */
  QZ_ALLOCATE_NONE      /* with one depth: all rows count alike as well */
} QzAllocation;

/* How much time a fit is worth. */
typedef enum {
  QZ_QUALITY_USUAL,
  QZ_QUALITY_BEST /* five to ten times as long: more text is observed, trellises have 16 bits of state instead of 12, and scales are tuned once all matrices are packed */
} QzQuality;

/* ---- curves: for each cell of each matrix, bytes against expected loss for each depth. Immutable: any thread. ------------ */
typedef struct QzCurves QzCurves; /* reference counted */

/* At once, from shapes alone: a coarse estimate (qz_curves_is_estimate). */
QzCurves *qz_curves_estimate (const EngGguf *source, GError **error);
QzCurves *qz_curves_ref (QzCurves *curves);
void qz_curves_unref (QzCurves *curves);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (QzCurves, qz_curves_unref)
gboolean qz_curves_is_estimate (const QzCurves *curves);
guint64 qz_curves_min_bytes (const QzCurves *curves); /* file size with the least everywhere */
guint64 qz_curves_max_bytes (const QzCurves *curves); /* with 8 bits everywhere */
/* A preview of the usual quality: binary search over the hull, no allocation, microseconds. */
typedef struct {
  guint64 file_bytes;       /* <= the target */
  double bpw;               /* stored bits of the matrices over their weights */
  double expected_kl;       /* nats per token */
  double expected_top1;     /* 0..1 */
} QzPreview;
void qz_curves_preview (const QzCurves *curves, guint64 target_bytes, QzPreview *preview);
/* What tuning leaves of a divergence: it makes up for the more, the more there is. */
double qz_tuned_kl (double kl);
/* What a fit of that quality leaves of it. */
double qz_expected_kl (double preview_kl, QzQuality quality);
/* The share of tokens whose likeliest successor stays the same at a divergence. */
double qz_expected_top1 (double expected_kl);
/* The same with one depth everywhere. */
void qz_curves_preview_uniform (const QzCurves *curves, guint bits, QzPreview *preview);
/* File size at which the matrices' mean bpw is `bpw`. */
guint64 qz_curves_bytes_for_bpw (const QzCurves *curves, double bpw);
/* For the heat map: mean depth of matrix `m` (0 embedding, then 7 per layer, then the head) at that target. */
guint qz_curves_n_matrices (const QzCurves *curves);
const char *qz_curves_matrix_name (const QzCurves *curves, guint m);
void qz_curves_depths (const QzCurves *curves, guint64 target_bytes, float *mean_depth);

/* ---- analysis: the observed second moments, sensitivities and the curves; saved beside the model ------------------------- */
typedef struct QzAnalysis QzAnalysis;

typedef struct {
  const char *calibration;      /* UTF-8 text; NULL: the bundled text */
  gsize calibration_length;
  QzQuality quality;
  guint tokens;                 /* of it used at most, 0: as the quality has it */
  guint backward_tokens;        /* of these, that gradients are measured on, 0: as the quality has it */
  guint64 seed;                 /* signs of the transform */
  QzMethod method;
  guint bits;                   /* that QZ_METHOD_AWQ searches its scales for, 0: 4 */
  guint64 memory_bytes;         /* that the process may hold, 0: as is best */
  const char *work;             /* files that begin so keep what is done, and the same analysis goes on from them whenever it was ended; NULL: none */
} QzOptions;

/* What analysis and fit of `source` hold in memory at most, the process as it is now included; ENG_ERROR_MEMORY, naming the least, when that is
 * more than the options allow. Beyond it, the finished file is mapped while it is measured: the system takes those pages back as it needs. */
gboolean qz_fit_memory (EngGguf *source, const QzOptions *options, guint n_threads, guint64 *bytes, GError **error);
/* Of a checkpoint most of whose weights are quantized already: their bits, scales included; else 0. A fit of it is measured against what it is
 * now, not against what it was made from. */
double qz_source_bits (const EngGguf *source);
/* Removes what was kept under this prefix: once its result is in its place, or nobody wants it any more. */
void qz_work_remove (const char *work);

/* The same model with its stream, and its heads' values, in coordinates in which activations of 4 bits lose less (spin.h), random ones of the seed or, for
 * QZ_METHOD_SPINQUANT, such as are learned on the calibration text:
 * writes `path`, whole or not at all, a GGUF of 2 bytes a weight, to be analysed and fitted in the source's place and removed then. */
gboolean qz_fold_rotations (EngGguf *source, const QzOptions *options, const char *path, EngWorkers *workers, EngProgress progress, gpointer data,
                             GCancellable *cancellable, GError **error);
QzAnalysis *qz_analyse (EngGguf *source, const QzOptions *options, EngWorkers *workers, EngProgress progress, gpointer data,
                        GCancellable *cancellable, GError **error);
void qz_analysis_free (QzAnalysis *analysis);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (QzAnalysis, qz_analysis_free)
QzCurves *qz_analysis_curves (const QzAnalysis *analysis); /* borrowed */
/* A file that appears whole or not at all; loading checks that it belongs to `source` and to this version. */
gboolean qz_analysis_save (const QzAnalysis *analysis, const char *path, GError **error);
QzAnalysis *qz_analysis_load (EngGguf *source, const char *path, GError **error);
/* The curves alone, without the moments (small). */
QzCurves *qz_curves_load (const EngGguf *source, const char *path, GError **error);

/* ---- fit --------------------------------------------------------------------------------------------------------------- */
typedef struct {
  guint64 file_bytes;
  double bpw, expected_kl;
  double kl_divergence;         /* measured against the source on held-out calibration text, KL(source || fit) */
  double top1_agreement;
  double seconds;
} QzResult;

/* What is to be made. */
typedef struct {
  guint64 bytes;                /* of the file at most */
  guint bits;                   /* instead: this depth everywhere, 1 to 8; 0: bytes say. Of every method but QZ_METHOD_XBIT it must be said */
  QzAllocation allocation;      /* QZ_ALLOCATE_NONE with bits alone, QZ_ALLOCATE_MATRICES without them */
  guint n_ctx;                  /* kept in the file: the session the budget was reckoned for (EngTraits); 0: not said */
  int kv_bits;
  const char *const *metadata;  /* extra string keys, NULL or pairs ending in NULL (valise.*, general.name) */
  QzQuality quality;            /* best: scales are tuned on all that the analysis learned from */
  const char *work;             /* as in QzOptions: matrices that are packed are kept there; or NULL */
} QzTarget;

/* Allocates for target->bytes, encodes, and seals `path` (whole or not at all). ENG_ERROR_MEMORY, naming the smallest possible size,
 * when the target is below it. */
gboolean qz_fit (EngGguf *source, const QzAnalysis *analysis, const QzTarget *target, const char *path, EngWorkers *workers,
                 QzResult *result, EngProgress progress, gpointer data, GCancellable *cancellable, GError **error);

#endif
