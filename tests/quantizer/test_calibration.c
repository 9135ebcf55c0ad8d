/* test_calibration.c: the program's own text, and how sequences are taken from a text. */
#include "quantizer/calibration.h"
#include "quantizer/samples.h"
#include "tests/fixtures/tiny_model.h"

#include "engine/session.h"

#include <math.h>
#include <string.h>

static QzSource *open_tiny (const TinyModel *model)
{
  g_autofree char *path = tiny_model_path ("calibration.gguf");
  g_autoptr (GError) error = NULL;
  tiny_model_write (model, path);
  g_autoptr (EngGguf) gguf = eng_gguf_open (path, &error);
  g_assert_no_error (error);
  QzSource *source = qz_source_new (gguf, &error);
  g_assert_no_error (error);
  return source;
}

/* Enough of it for the default, in UTF-8, and its conversations as the template writes them, or as text where there is no template. */
static void test_bundled (void)
{
  TinyModel model = TINY_MODEL_DEFAULTS;
  g_autoptr (QzSource) source = open_tiny (&model);
  g_autofree char *text = qz_calibration_bundled (source->gguf);
  g_assert_true (g_utf8_validate (text, -1, NULL));
  g_assert_cmpuint (strlen (text), >, 50000);
  g_assert_nonnull (strstr (text, "<|im_start|>user\nHi! Can you help me plan"));
  g_assert_nonnull (strstr (text, "I can't check prices or availability, so please compare a few before you book.<|im_end|>"));
  g_assert_null (strstr (text, "\nassistant: "));

  model.leave_out = "tokenizer.chat_template";
  g_autoptr (QzSource) plain = open_tiny (&model);
  g_autofree char *plain_text = qz_calibration_bundled (plain->gguf);
  g_assert_nonnull (strstr (plain_text, "user: Hi! Can you help me plan"));
  model.leave_out = NULL;
  model.chat_template = "{{ raise_exception('no') }}";
  g_autoptr (QzSource) refusing = open_tiny (&model);
  g_autofree char *refused = qz_calibration_bundled (refusing->gguf);
  g_assert_cmpstr (refused, ==, plain_text);
}

/* Sequences lie all over the text, those learned from and those held out, and any first part of the former as well. */
static void test_spread (void)
{
  TinyModel model = TINY_MODEL_DEFAULTS;
  g_autoptr (QzSource) source = open_tiny (&model);
  g_autoptr (GError) error = NULL;
  GString *text = g_string_new (NULL);
  /* The tokenizer of the tiny model spells: the letter tells the place. */
  for (guint i = 0; i < 26; i++)
    for (guint k = 0; k < 2000; k++)
      g_string_append_c (text, 'A' + i);
  QzOptions options = { .calibration = text->str, .calibration_length = text->len, .tokens = 16384 };
  g_autoptr (QzCalibration) c = qz_calibration_new (source, &options, &error);
  g_assert_no_error (error);
  g_assert_cmpuint (c->n_sequences * c->n_tokens, >=, 15000);
  g_assert_cmpuint (c->n_held * c->n_tokens, >=, 1024);
  gint32 least = G_MAXINT, most = 0, quarter_least = G_MAXINT, quarter_most = 0;
  for (guint s = 0; s < c->n_sequences; s++) {
    gint32 token = c->tokens[s * c->n_tokens];
    least = MIN (least, token);
    most = MAX (most, token);
    if (s < c->n_sequences / 4) {
      quarter_least = MIN (quarter_least, token);
      quarter_most = MAX (quarter_most, token);
    }
  }
  g_assert_cmpint (most - least, >=, 24);
  g_assert_cmpint (quarter_most - quarter_least, >=, 20);
  for (guint a = 0; a < c->n_sequences + c->n_held; a++)
    for (guint i = 0; i < c->n_tokens; i++)
      g_assert_true (c->tokens[a * c->n_tokens + i] >= 0 && c->tokens[a * c->n_tokens + i] < TINY_VOCAB);
  g_string_free (text, TRUE);
}

/* A person's own text is the same calibration each time it is read, and another text another. */
static void test_named (void)
{
  TinyModel model = TINY_MODEL_DEFAULTS;
  g_autoptr (QzSource) source = open_tiny (&model);
  g_autofree char *text = g_strnfill (4000, 'x'), *other = g_strnfill (4000, 'y');
  QzOptions options = { .calibration = text, .calibration_length = 4000 }, changed = { .calibration = other, .calibration_length = 4000 };
  g_autoptr (QzCalibration) a = qz_calibration_new (source, &options, NULL);
  g_autoptr (QzCalibration) b = qz_calibration_new (source, &options, NULL);
  g_autoptr (QzCalibration) c = qz_calibration_new (source, &changed, NULL);
  g_assert_cmpstr (a->id, ==, b->id);
  g_assert_cmpstr (a->id, !=, c->id);
  g_assert_true (g_str_has_prefix (a->id, "own "));
}

static char *samples (EngModel *model, guint64 seed, guint tokens)
{
  QzOptions options = { .seed = seed, .tokens = tokens };
  g_autoptr (GError) error = NULL;
  EngWorkers *workers = eng_workers_new (2);
  char *text = qz_calibration_samples (model, workers, &options, NULL, NULL, NULL, &error);
  eng_workers_free (workers);
  g_assert_no_error (error);
  return text;
}

static guint count (const char *text, const char *what)
{
  guint n = 0;
  for (const char *at = strstr (text, what); at != NULL; at = strstr (at + 1, what))
    n++;
  return n;
}

/* What the tiny model draws at temperature 1 comes as often as it says: its head, with all else 0, gives token t the logit bias[t] of a norm that is constant. */
static void skewed_row (gpointer data, const char *name, guint row, float *out, guint cols)
{
  memset (out, 0, sizeof (float) * cols);
  if (g_str_equal (name, "token_embd.weight"))
    out[0] = 1;
  /* The first channel of the stream alone is there: its normed value is the root of 64. */
  if (g_str_equal (name, "output.weight") && row >= 100 && row < 104)
    out[0] = row == 100 ? 2 : row == 101 ? 1.9f : 0;
}

static void test_samples (void)
{
  TinyModel model = TINY_MODEL_DEFAULTS;
  g_autoptr (GError) error = NULL;
  g_autofree char *path = tiny_model_path ("writer.gguf");
  tiny_model_write (&model, path);
  g_autoptr (EngModel) writer = eng_model_open (path, &error);
  g_assert_no_error (error);
  g_autofree char *text = samples (writer, 3, 3000), *same = samples (writer, 3, 3000), *other = samples (writer, 4, 3000);
  g_assert_cmpstr (text, ==, same);
  g_assert_cmpstr (text, !=, other);
  g_assert_true (g_utf8_validate (text, -1, NULL));
  g_autoptr (GArray) tokens = g_array_new (FALSE, FALSE, sizeof (gint32));
  eng_tokenizer_encode (eng_model_tokenizer (writer), text, -1, ENG_TOKENIZE_SPECIAL, tokens);
  g_assert_cmpuint (tokens->len, >, 2000);
  g_assert_cmpuint (count (text, "<|im_start|>user\n"), >=, 4); /* every second sample of 128 or 256 tokens */
}

/* Drawn as the model says, at temperature 1: of two tokens that nearly all of the probability is shared by, each comes as often as it should. */
static void test_samples_follow_the_model (void)
{
  TinyModel model = TINY_MODEL_DEFAULTS;
  g_autoptr (GError) error = NULL;
  g_autofree char *path = tiny_model_path ("skewed.gguf");
  model.untied = TRUE;
  model.row = skewed_row;
  tiny_model_write (&model, path);
  g_autoptr (EngModel) writer = eng_model_open (path, &error);
  g_assert_no_error (error);
  gint32 first = 0;
  EngWorkers *workers = eng_workers_new (1);
  EngSessionOptions options = { .n_ctx = 8, .activation_bits = 32 };
  g_autoptr (EngSession) session = eng_session_new (writer, workers, &options, &error);
  g_assert_no_error (error);
  g_assert_true (eng_session_eval (session, &first, 1, FALSE, NULL, &error));
  const float *logits = eng_session_logits (session);
  double share = 1 / (1 + exp (logits[101] - logits[100]) + exp (logits[0] - logits[100]) * (TINY_VOCAB - 2));
  g_autofree char *text = samples (writer, 5, 14108); /* 16,384 with those held out */
  gsize length[2];
  g_autofree char *piece = g_strndup (eng_tokenizer_piece (eng_model_tokenizer (writer), 100, TRUE, &length[0]), 1);
  guint n = count (text, piece), all = 16384;
  g_test_message ("token 100: %u of %u, expected a share of %.3f", n, all, share);
  g_assert_cmpfloat (share, >, 0.3);
  g_assert_cmpfloat (share, <, 0.8);
  g_assert_cmpfloat (fabs ((double) n / all - share), <, 0.02);
  eng_workers_free (workers);
}

int main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/calibration/bundled", test_bundled);
  g_test_add_func ("/calibration/spread-over-the-text", test_spread);
  g_test_add_func ("/calibration/named-by-content", test_named);
  g_test_add_func ("/calibration/samples-of-the-model", test_samples);
  g_test_add_func ("/calibration/samples-follow-the-model", test_samples_follow_the_model);
  int status = g_test_run ();
  tiny_model_clean ();
  return status;
}
