/* test_calibration.c: the program's own text, and how sequences are taken from a text. */
#include "quantizer/calibration.h"
#include "tests/fixtures/tiny_model.h"

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

int main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/calibration/bundled", test_bundled);
  g_test_add_func ("/calibration/spread-over-the-text", test_spread);
  g_test_add_func ("/calibration/named-by-content", test_named);
  int status = g_test_run ();
  tiny_model_clean ();
  return status;
}
