/* head.h: from the residual stream to the vocabulary and back, a stretch of the vocabulary at a time. */
#ifndef QZ_HEAD_H
#define QZ_HEAD_H

#include "quantizer/layer_ops.h"
#include "quantizer/source.h"

/* A norm of the whole stream: "output_norm", "token_embd_norm". What is missing of it is NULL; gain and bias are owned by `memory`, to be freed
 * with g_free. */
gboolean qz_stream_norm_read (const QzSource *source, const char *name, QzNorm *norm, float **memory, GError **error);

/* logits [n][n_vocab] of final hidden states f [n][n_embd] (after the output norm), biased, scaled and capped as the model has it. */
gboolean qz_head_logits (const QzSource *source, EngWorkers *workers, const float *f, guint n, float *logits, GError **error);

typedef struct {
  guint64 seed;          /* of what stands for labels of the model's own distribution, in each state: random signs of all tokens ... */
  const gint32 *labels;  /* ... unless these are given, [n] */
  double *probability;   /* [n_vocab] += sum of p_v */
  double *row_fisher;    /* [n_vocab] += the expectation, over such labels, of the squared gradient at the head's output v */
} QzLabels;

/* df [n][n_embd] = the gradient of the labels' log-loss at f; or, where none are given, one whose mean square over seeds is that of labels drawn from the model's own
 * distribution, the true Fisher information. logits [n][n_vocab] is scratch. */
gboolean qz_head_backward (const QzSource *source, EngWorkers *workers, const float *f, guint n, const QzLabels *labels, float *logits, float *df,
                           GError **error);

/* Final hidden states of two models for the same n tokens, f of the student and `taught` of the teacher, [n][n_embd]: kl [n] (or NULL) = their distributions'
 * divergence KL (teacher || student), df [n][n_embd] = its gradient at f, and slope [n_vocab] += the sum of g y of each row of the student's head
 * (observe.h). scratch [2][n][n_vocab]. */
gboolean qz_head_distil (const QzSource *student, const QzSource *teacher, EngWorkers *workers, const float *f, const float *taught, guint n, float *scratch,
                         float *slope, double *kl, float *df, GError **error);

#endif
