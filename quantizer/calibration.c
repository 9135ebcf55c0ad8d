/* calibration.c: tokenizes the calibration text and spreads sequences evenly over it; every ninth is held out. */
#include "quantizer/calibration.h"

#include "engine/error.h"

#include <string.h>

enum {
  MOST_BYTES = 4 * 1024 * 1024, /* of a person's text: more is not looked at */
  LEAST_SEQUENCES = 4,
  LEAST_SEQUENCE_TOKENS = 32,
  HELD_EVERY = 9,
};

/* Gradients need fewer tokens than the moments, which must span all columns. */
enum { USUAL_TOKENS = 12288, USUAL_BACKWARD_TOKENS = 4096, BEST_TOKENS = 32768, BEST_BACKWARD_TOKENS = 8192 };

guint qz_calibration_tokens (const QzOptions *options)
{
  return options->tokens > 0 ? options->tokens : options->quality == QZ_QUALITY_BEST ? BEST_TOKENS : USUAL_TOKENS;
}

guint qz_calibration_backward_tokens (const QzOptions *options)
{
  return options->backward_tokens > 0 ? options->backward_tokens : options->quality == QZ_QUALITY_BEST ? BEST_BACKWARD_TOKENS : USUAL_BACKWARD_TOKENS;
}

void qz_calibration_free (QzCalibration *calibration)
{
  if (calibration == NULL)
    return;
  g_free (calibration->tokens);
  g_free (calibration->id);
  g_free (calibration);
}

static gboolean check_text (const char *text, gsize *length, GError **error)
{
  const char *end;
  if (*length > MOST_BYTES) {
    const char *cut = g_utf8_find_prev_char (text, text + MOST_BYTES);
    *length = cut != NULL ? (gsize) (cut - text) : 0;
  }
  if (!g_utf8_validate_len (text, *length, &end)) {
    g_set_error (error, ENG_ERROR, ENG_ERROR_ARGUMENT, "the calibration text is not UTF-8 at byte %" G_GSIZE_FORMAT ": save it as UTF-8 text",
                 (gsize) (end - text));
    return FALSE;
  }
  return TRUE;
}

/* Copies sequence number `from` of the text to place `to`, with the model's beginning token first where it asks for one. */
static void take_sequence (QzCalibration *c, const EngTokenizer *tokenizer, const gint32 *tokens, gsize start, guint to)
{
  gint32 *out = c->tokens + (gsize) to * c->n_tokens;
  memcpy (out, tokens + start, sizeof (gint32) * c->n_tokens);
  if (eng_tokenizer_adds_bos (tokenizer) && eng_tokenizer_bos (tokenizer) >= 0)
    out[0] = eng_tokenizer_bos (tokenizer);
}

static guint common_divisor (guint a, guint b)
{
  return b == 0 ? a : common_divisor (b, a % b);
}

QzCalibration *qz_calibration_new (const QzSource *source, const QzOptions *options, GError **error)
{
  gsize length = options->calibration_length;
  const char *text = options->calibration;
  g_autofree char *bundled = text == NULL ? qz_calibration_bundled (source->gguf) : NULL;
  if (bundled != NULL) {
    text = bundled;
    length = strlen (text);
  }
  if (!check_text (text, &length, error))
    return NULL;
  EngTokenizer *tokenizer = eng_tokenizer_new (source->gguf, error);
  if (tokenizer == NULL)
    return NULL;
  g_autoptr (GArray) all = g_array_new (FALSE, FALSE, sizeof (gint32));
  eng_tokenizer_encode (tokenizer, text, length, ENG_TOKENIZE_SPECIAL, all);

  g_autoptr (QzCalibration) c = g_new0 (QzCalibration, 1);
  guint wanted = qz_calibration_tokens (options);
  guint most = source->traits.n_ctx_train > 0 ? source->traits.n_ctx_train : QZ_SEQUENCE_TOKENS;
  c->n_tokens = MIN (QZ_SEQUENCE_TOKENS, most);
  while (c->n_tokens > LEAST_SEQUENCE_TOKENS && MIN (all->len, wanted) / c->n_tokens < 2 * LEAST_SEQUENCES)
    c->n_tokens /= 2;
  guint have = all->len / c->n_tokens;
  if (have < LEAST_SEQUENCES) {
    eng_tokenizer_free (tokenizer);
    g_set_error (error, ENG_ERROR, ENG_ERROR_ARGUMENT,
                 "the calibration text has only %u tokens: give at least %u, about a page, or leave it out to use the text that comes with Valise",
                 all->len, LEAST_SEQUENCES * LEAST_SEQUENCE_TOKENS);
    return NULL;
  }
  guint use = MIN (have, MAX (LEAST_SEQUENCES, (wanted + wanted / (HELD_EVERY - 1)) / c->n_tokens));
  c->n_held = MAX (1, use / HELD_EVERY);
  c->n_sequences = use - c->n_held;
  c->tokens = g_new (gint32, (gsize) use * c->n_tokens);
  /* The n-th of the text's sequences goes to the place that a stride near the golden ratio gives it, so that whatever part of the
   * places is used, from the first on, comes from all over the text. */
  guint n = c->n_sequences, stride = n * 0.618 + 1, learned = 0, held = 0;
  while (common_divisor (stride, n) != 1)
    stride++;
  for (guint i = 0; i < use; i++) {
    gsize start = (gsize) ((guint64) i * (all->len - c->n_tokens) / (use - 1));
    gboolean hold = (i % HELD_EVERY == HELD_EVERY / 2 && held < c->n_held) || learned == n;
    guint place = hold ? n + held++ : (guint) ((guint64) learned++ * stride % n);
    take_sequence (c, tokenizer, (const gint32 *) (gpointer) all->data, start, place);
  }
  eng_tokenizer_free (tokenizer);
  g_autofree char *sum = g_compute_checksum_for_data (G_CHECKSUM_SHA256, (const guchar *) text, length);
  c->id = bundled != NULL ? g_strdup_printf ("bundled %.16s", sum) : g_strdup_printf ("own %.16s", sum);
  return g_steal_pointer (&c);
}
