/* test_methods.c: the well-known methods keep their papers' order on a small model whose activations have outlying channels, as those of language
 * models do. */
#include "engine/error.h"
#include "engine/evaluate.h"
#include "quantizer/fit.h"
#include "tests/fixtures/tiny_model.h"

#include <math.h>
#include <string.h>

enum { SEEDS = 3 };

static char *some_text (gsize length)
{
  static const char *const words[] = { "hello ", "world ", "the ", "theld in", "llo", "or wo", "rld, ", "\n", "he said; ", "in the world ", "q", "zxy", "(7)", "A B " };
  GString *text = g_string_new (NULL);
  guint64 state = 5;
  while (text->len < length) {
    state = state * G_GUINT64_CONSTANT (6364136223846793005) + G_GUINT64_CONSTANT (1442695040888963407);
    g_string_append (text, words[(state >> 33) % G_N_ELEMENTS (words)]);
  }
  return g_string_free (text, FALSE);
}

typedef struct {
  EngGguf *gguf;
  EngModel *reference;
  EngWorkers *workers;
  char *path, *text, *other_text;
} Case;

static void case_init (Case *c)
{
  g_autoptr (GError) error = NULL;
  TinyModel model = TINY_MODEL_DEFAULTS;
  model.n_embd = 128;
  model.n_ff = 192;
  model.row = tiny_outlying_row;
  c->path = tiny_model_path ("outlying.gguf");
  tiny_model_write (&model, c->path);
  c->gguf = eng_gguf_open (c->path, &error);
  g_assert_no_error (error);
  c->reference = eng_model_open (c->path, &error);
  g_assert_no_error (error);
  c->workers = eng_workers_new (2);
  c->text = some_text (12000);
  c->other_text = some_text (3000);
}

static void case_clear (Case *c)
{
  eng_model_unref (c->reference);
  eng_gguf_unref (c->gguf);
  eng_workers_free (c->workers);
  g_free (c->path);
  g_free (c->text);
  g_free (c->other_text);
}

/* Mean divergence in a regime, of a fit with this depth everywhere. */
static void divergence (Case *c, QzMethod method, guint bits, guint64 seed, double *weights_only, double *all_four)
{
  g_autoptr (GError) error = NULL;
  g_autofree char *out = tiny_model_path ("method.gguf");
  QzOptions options = { .calibration = c->text, .calibration_length = strlen (c->text), .tokens = 2048, .seed = seed, .method = method, .bits = bits };
  QzResult result;
  EngEvaluation evaluation;
  g_autoptr (EngGguf) gguf = eng_gguf_ref (c->gguf);
  if (qz_method_folds_rotations (method)) {
    g_autofree char *rotated = tiny_model_path ("rotated.gguf");
    g_assert_true (qz_fold_rotations (c->gguf, &options, rotated, c->workers, NULL, NULL, NULL, &error));
    eng_gguf_unref (gguf);
    gguf = eng_gguf_open (rotated, &error);
    g_assert_no_error (error);
  }
  g_autoptr (QzAnalysis) analysis = qz_analyse (gguf, &options, c->workers, NULL, NULL, NULL, &error);
  g_assert_no_error (error);
  g_assert_true (qz_fit (gguf, analysis, &(QzTarget) { .bits = bits }, out, c->workers, &result, NULL, NULL, NULL, &error));
  g_assert_no_error (error);
  EngModel *fit = eng_model_open (out, &error);
  g_assert_no_error (error);
  g_assert_true (eng_evaluate (fit, c->reference, c->workers, c->other_text, strlen (c->other_text), 64, 0, 32, 16, &evaluation, NULL, NULL, NULL, &error));
  *weights_only = evaluation.kl_mean;
  g_assert_true (eng_evaluate (fit, c->reference, c->workers, c->other_text, strlen (c->other_text), 64, 0, 4, 4, &evaluation, NULL, NULL, NULL, &error));
  *all_four = evaluation.kl_mean;
  g_test_message ("%s, %u bits, seed %u: %.4f with exact activations, %.4f with W%uA4KV4, expected %.4f", qz_method_name (method), bits, (guint) seed, *weights_only,
                  *all_four, bits, result.expected_kl);
  eng_model_unref (fit);
}

static void test_order (void)
{
  static const QzMethod order[] = { QZ_METHOD_RTN, QZ_METHOD_GPTQ, QZ_METHOD_QUAROT, QZ_METHOD_SPINQUANT };
  double all_four[G_N_ELEMENTS (order)] = { 0 };
  Case c;
  case_init (&c);
  for (guint bits = 3; bits <= 4; bits++) {
    double before[2] = { INFINITY, INFINITY };
    for (guint k = 0; k < G_N_ELEMENTS (order); k++) {
      double mean[2] = { 0, 0 };
      guint seeds = order[k] == QZ_METHOD_RTN ? 1 : SEEDS; /* nothing is drawn */
      for (guint seed = 0; seed < seeds; seed++) {
        double one[2];
        divergence (&c, order[k], bits, seed, &one[0], &one[1]);
        mean[0] += one[0] / seeds;
        mean[1] += one[1] / seeds;
      }
      all_four[k] += mean[1];
      if (order[k] == QZ_METHOD_SPINQUANT)
        continue;
      g_assert_cmpfloat (mean[0], <, 0.8 * before[0]);
      g_assert_cmpfloat (mean[1], <, 0.8 * before[1]);
      memcpy (before, mean, sizeof before);
    }
  }
  /* Rotations are learned for rounded activations, and promise nothing of exact ones; what they gain is less than what seeds differ by, so both depths count. */
  g_test_message ("four bits for activations and cache: quarot %.4f, spinquant %.4f", all_four[2] / 2, all_four[3] / 2);
  g_assert_cmpfloat (all_four[3], <, 0.85 * all_four[2]);
  case_clear (&c);
}

/* Its scales are for weights (the paper's regime is W4A16): they spare rounded activations nothing, whose share of the loss both have. A cache of 4 bits that
 * lost more of plain rounding's keys once made the second ratio 0.53; with one that loses next to nothing it is 0.81. */
static void test_awq (void)
{
  Case c;
  double rounded[2], scaled[2];
  case_init (&c);
  divergence (&c, QZ_METHOD_RTN, 4, 0, &rounded[0], &rounded[1]);
  divergence (&c, QZ_METHOD_AWQ, 4, 0, &scaled[0], &scaled[1]);
  g_assert_cmpfloat (scaled[0], <, 0.8 * rounded[0]);
  g_assert_cmpfloat (scaled[1], <, 0.9 * rounded[1]);
  case_clear (&c);
}

int main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/methods/papers-order", test_order);
  g_test_add_func ("/methods/activation-aware-scales-beat-rounding", test_awq);
  int status = g_test_run ();
  tiny_model_clean ();
  return status;
}
