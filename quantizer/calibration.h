/* calibration.h: the text a model is observed on, cut into sequences of tokens: some to learn from, some held out to measure with. */
#ifndef QZ_CALIBRATION_H
#define QZ_CALIBRATION_H

#include "quantizer/fit.h"
#include "quantizer/source.h"

typedef struct {
  guint n_tokens;    /* per sequence */
  guint n_sequences; /* to learn from; they come first */
  guint n_held;      /* held out */
  gint32 *tokens;    /* [n_sequences + n_held][n_tokens] */
  char *id;          /* "bundled" or "own", and the beginning of the text's SHA-256 */
} QzCalibration;

enum { QZ_SEQUENCE_TOKENS = 256 };
/* How many tokens are learned from at most, and how many of them make the way back. */
guint qz_calibration_tokens (const QzOptions *options);
guint qz_calibration_backward_tokens (const QzOptions *options);

/* The text is spread over: sequences are taken from all of it, evenly. Refuses what is not UTF-8 or too short, in one sentence. */
QzCalibration *qz_calibration_new (const QzSource *source, const QzOptions *options, GError **error);
void qz_calibration_free (QzCalibration *calibration);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (QzCalibration, qz_calibration_free)

/* A conversation in the template's form, without its special tokens' texts; NULL if the template will not have it. Takes messages over. Free with g_free. */
char *qz_calibration_chat (const EngChatTemplate *template, JsonArray *messages);
/* The text built into the program, its conversations in the form of the model's own template. Free with g_free. */
char *qz_calibration_bundled (const EngGguf *gguf);

#endif
