/* test_plain.c: blocks of ggml's standard types and files of them: what is read back is what was meant, within the error that the type allows, within
 * the size asked for, and of a model whose rows stood otherwise the same answers. Blocks are read by eng_type_dequantize, which `gguf-dequantize` holds
 * to ggml's own numbers. */
#include "engine/error.h"
#include "engine/session.h"
#include "quantizer/ggml_encode.h"
#include "quantizer/plain.h"
#include "tests/fixtures/tiny_model.h"

#include <glib/gstdio.h>
#include <math.h>
#include <string.h>

/* error, heavy: what ggml's own quantization leaves of N numbers, about normal, and of their cubes, root of mean squares over theirs
 * (tests/fixtures/ggml_encode.py); of the floats, half a step of their last bit. */
static const struct {
  guint type, high, low;
  double error, heavy;
} types[] = {
  { ENG_TYPE_Q8_0, 127, 127, 0.00529, 0.00872 }, { ENG_TYPE_Q6_K, 0, 0, 0.01754, 0.02431 },   { ENG_TYPE_Q5_K, 0, 0, 0.03530, 0.04985 },
  { ENG_TYPE_Q5_1, 31, 0, 0.03718, 0.05345 },    { ENG_TYPE_Q5_0, 15, 16, 0.04191, 0.06098 }, { ENG_TYPE_Q4_K, 0, 0, 0.07046, 0.08906 },
  { ENG_TYPE_Q4_1, 15, 0, 0.07732, 0.10930 },    { ENG_TYPE_Q4_0, 7, 8, 0.08534, 0.11143 },   { ENG_TYPE_Q3_K, 0, 0, 0.14917, 0.15093 },
  { ENG_TYPE_Q2_K, 0, 0, 0.29197, 0.40102 },     { ENG_TYPE_IQ4_NL, 0, 0, 0.07532, 0.09286 }, { ENG_TYPE_IQ4_XS, 0, 0, 0.07590, 0.09414 },
  { ENG_TYPE_F16, 0, 0, 0.0005, 0.0005 },        { ENG_TYPE_BF16, 0, 0, 0.004, 0.004 },
};

enum { N = 8192 };

static double relative_error (guint type, const float *x, guint n)
{
  const EngTypeTraits *t = eng_type_traits (type);
  g_autofree guint8 *blocks = g_malloc (n / t->block * t->block_bytes);
  g_autofree float *y = g_new (float, n);
  double e = 0, all = 0;
  qz_ggml_encode (type, x, n, blocks);
  eng_type_dequantize (type, blocks, y, n);
  for (guint i = 0; i < n; i++) {
    g_assert_true (isfinite (y[i]));
    e += ((double) x[i] - y[i]) * ((double) x[i] - y[i]);
    all += (double) x[i] * x[i];
  }
  return all > 0 ? sqrt (e / all) : sqrt (e);
}

/* As in the script: sums of twelve uniform numbers, less their mean. */
static void numbers (gboolean cubed, float *x)
{
  guint64 state = 5;
  for (guint i = 0; i < N; i++) {
    guint64 sum = 0;
    for (guint k = 0; k < 12; k++) {
      state = state * G_GUINT64_CONSTANT (6364136223846793005) + G_GUINT64_CONSTANT (1442695040888963407);
      sum += state >> 40;
    }
    double one = (double) sum * 0x1p-24 - 6;
    x[i] = (float) (cubed ? one * one * one : one);
  }
}

static void test_errors (void)
{
  g_autofree float *x = g_new (float, N);
  for (guint cubed = 0; cubed < 2; cubed++) {
    numbers (cubed, x);
    for (guint i = 0; i < G_N_ELEMENTS (types); i++) {
      g_assert_true (qz_ggml_can_encode (types[i].type));
      double error = relative_error (types[i].type, x, N), theirs = cubed ? types[i].heavy : types[i].error;
      g_test_message ("%s: %.5f, ggml's own %.5f", eng_type_traits (types[i].type)->name, error, theirs);
      g_assert_cmpfloat (error, <, theirs * 1.02);
    }
  }
}

/* Numbers that lie on a type's grid come back as they are. */
static void test_grids (void)
{
  for (guint i = 0; i < G_N_ELEMENTS (types); i++) {
    float x[32];
    guint8 block[64];
    float y[32];
    if (types[i].high == 0)
      continue;
    int low = -(int) types[i].low, n = (int) types[i].high - low + 1;
    for (int k = 0; k < 32; k++)
      x[k] = 0x1p-9f * (float) (k == 0 ? low : k == 1 ? (int) types[i].high : low + k * 7 % n);
    qz_ggml_encode (types[i].type, x, 32, block);
    eng_type_dequantize (types[i].type, block, y, 32);
    for (guint k = 0; k < 32; k++)
      g_assert_cmpfloat (fabsf (x[k] - y[k]), <=, 2e-3f * fabsf (x[0] - x[1]) / (float) n);
  }
}

/* Nothing, one number for all, one among zeros, the largest and the smallest. */
static void test_extremes (void)
{
  static const float sizes[] = { 0, 1, -1, 1e-3f, 30000, -60000, 1e-7f, 1e-30f };
  for (guint i = 0; i < G_N_ELEMENTS (types); i++)
    for (guint k = 0; k < G_N_ELEMENTS (sizes); k++)
      for (guint kind = 0; kind < 2; kind++) {
        float x[256] = { sizes[k] };
        for (guint n = 0; kind == 0 && n < 256; n++)
          x[n] = sizes[k];
        double error = relative_error (types[i].type, x, 256);
        if (fabsf (sizes[k]) >= 1e-3f)
          g_assert_cmpfloat (error, <, 0.1);
      }
}

/* ---- files ------------------------------------------------------------------------------------------------------------------------------ */

static guint64 size_of (const char *path)
{
  GStatBuf info;
  g_assert_cmpint (g_stat (path, &info), ==, 0);
  return (guint64) info.st_size;
}

static double distance (const EngGguf *a, const EngGguf *b)
{
  double sum = 0;
  g_assert_cmpuint (eng_gguf_n_tensors (a), ==, eng_gguf_n_tensors (b));
  for (guint i = 0; i < eng_gguf_n_tensors (a); i++) {
    const EngTensor *t = eng_gguf_tensor (a, i), *u = eng_gguf_find_tensor (b, t->name);
    guint64 n = t->dims[0] * eng_tensor_n_rows (t);
    g_assert_nonnull (u);
    g_assert_cmpmem (t->dims, sizeof t->dims, u->dims, sizeof u->dims);
    g_autofree float *x = g_new (float, n), *y = g_new (float, n);
    eng_tensor_read_rows (t, 0, eng_tensor_n_rows (t), x);
    eng_tensor_read_rows (u, 0, eng_tensor_n_rows (u), y);
    double e = 0, all = 0;
    for (guint64 k = 0; k < n; k++) {
      e += ((double) x[k] - y[k]) * ((double) x[k] - y[k]);
      all += (double) x[k] * x[k];
    }
    if (eng_tensor_n_rows (t) == 1)
      g_assert_cmpfloat (e, ==, 0);
    sum += e / all;
  }
  return sum;
}

/* No larger than asked for; more bytes never err more; too few are refused with the least. */
static void test_sizes (void)
{
  TinyModel tiny = TINY_MODEL_DEFAULTS;
  tiny.n_embd = 256;
  tiny.n_ff = 288; /* of rows that K types cannot take */
  tiny.n_heads = 8;
  tiny.f16 = TRUE;
  g_autofree char *from = tiny_model_path ("from.gguf"), *to = tiny_model_path ("to.gguf");
  tiny_model_write (&tiny, from);
  g_autoptr (GError) error = NULL;
  g_autoptr (EngGguf) source = eng_gguf_open (from, &error);
  g_assert_no_error (error);
  g_autoptr (EngWorkers) workers = eng_workers_new (2);
  g_autoptr (QzCurves) curves = qz_curves_estimate (source, &error);
  g_assert_no_error (error);
  g_assert_false (qz_plain_export (source, to, curves, 1000, workers, NULL, NULL, NULL, &error));
  g_assert_error (error, ENG_ERROR, ENG_ERROR_MEMORY);
  guint64 least = g_ascii_strtoull (strstr (error->message, "at least ") + 9, NULL, 10), last_size = 0;
  g_clear_error (&error);
  g_assert_false (g_file_test (to, G_FILE_TEST_EXISTS));
  double last = INFINITY;
  for (guint64 size = least; size < size_of (from) * 5 / 4; size = size * 5 / 4) {
    g_assert_true (qz_plain_export (source, to, curves, size, workers, NULL, NULL, NULL, &error));
    g_autoptr (EngGguf) made = eng_gguf_open (to, &error);
    g_assert_no_error (error);
    double loss = distance (source, made);
    g_test_message ("%" G_GUINT64_FORMAT " of %" G_GUINT64_FORMAT " bytes: %.6f", size_of (to), size, loss);
    g_assert_cmpuint (size_of (to), <=, size);
    g_assert_cmpuint (size_of (to), >=, last_size);
    g_assert_cmpfloat (loss, <, last * 1.05);
    last_size = size_of (to);
    last = loss;
    g_assert_cmpstr (eng_gguf_get_string (made, "general.architecture", NULL), ==, "llama");
    g_assert_cmpuint (eng_gguf_array_length (made, "tokenizer.ggml.tokens", NULL), >, 0);
    g_unlink (to);
  }
  g_assert_cmpfloat (last, <, 1e-6);
}

static void eval (const char *path, float *logits, guint n)
{
  static const gint32 tokens[] = { 3, 17, 5, 40, 8, 21, 33, 2 };
  g_autoptr (GError) error = NULL;
  g_autoptr (EngGguf) gguf = eng_gguf_open (path, &error);
  g_autoptr (EngModel) model = gguf ? eng_model_new (gguf, &error) : NULL;
  g_assert_no_error (error);
  g_autoptr (EngWorkers) workers = eng_workers_new (1);
  EngSessionOptions options = { .n_ctx = 64, .activation_bits = 32 };
  g_autoptr (EngSession) session = eng_session_new (model, workers, &options, &error);
  g_assert_no_error (error);
  g_assert_true (eng_session_eval (session, tokens, G_N_ELEMENTS (tokens), FALSE, NULL, &error));
  memcpy (logits, eng_session_logits (session), n * sizeof *logits);
}

/* A model that turns halves of a head answers as its file for programs that turn neighbours does. */
static void test_rope (void)
{
  TinyModel tiny = TINY_MODEL_DEFAULTS;
  tiny.f16 = TRUE;
  g_autofree char *from = tiny_model_path ("plain.gguf"), *turned = tiny_model_path ("halves.gguf"), *to = tiny_model_path ("neighbours.gguf");
  tiny_model_write (&tiny, from);
  g_autoptr (GError) error = NULL;
  g_autoptr (EngGguf) source = eng_gguf_open (from, &error);
  g_autoptr (EngGgufWriter) writer = eng_gguf_writer_new (64);
  eng_gguf_writer_set_bool (writer, "valise.rope.halves", TRUE);
  eng_gguf_writer_copy_metadata (writer, source);
  for (guint i = 0; i < eng_gguf_n_tensors (source); i++) {
    const EngTensor *t = eng_gguf_tensor (source, i);
    eng_gguf_writer_add_tensor (writer, t->name, t->type, t->n_dims, t->dims);
  }
  g_assert_true (eng_gguf_writer_begin (writer, turned, &error));
  for (guint i = 0; i < eng_gguf_n_tensors (source); i++)
    g_assert_true (eng_gguf_writer_write (writer, i, 0, eng_gguf_tensor (source, i)->data, eng_gguf_tensor (source, i)->bytes, &error));
  g_assert_true (eng_gguf_writer_finish (writer, &error));
  g_autoptr (EngGguf) halves = eng_gguf_open (turned, &error);
  g_assert_no_error (error);
  g_autoptr (EngWorkers) workers = eng_workers_new (1);
  g_autoptr (QzCurves) curves = qz_curves_estimate (halves, &error);
  g_assert_no_error (error);
  g_assert_true (qz_plain_export (halves, to, curves, 1 << 24, workers, NULL, NULL, NULL, &error));
  g_autoptr (EngGguf) made = eng_gguf_open (to, &error);
  g_assert_false (eng_gguf_has (made, "valise.rope.halves"));
  float a[32], b[32], c[32];
  double apart = 0;
  eval (turned, a, 32);
  eval (to, b, 32);
  eval (from, c, 32);
  for (guint i = 0; i < 32; i++) {
    g_assert_cmpfloat (fabsf (a[i] - b[i]), <=, 1e-4f);
    apart += fabs ((double) a[i] - c[i]);
  }
  g_assert_cmpfloat (apart, >, 1e-3); /* it matters at all */
}

int main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/quantizer/ggml-encode/errs-no-more-than-ggml-does", test_errors);
  g_test_add_func ("/quantizer/ggml-encode/numbers-on-the-grid-stay", test_grids);
  g_test_add_func ("/quantizer/ggml-encode/extremes", test_extremes);
  g_test_add_func ("/quantizer/plain/within-the-size", test_sizes);
  g_test_add_func ("/quantizer/plain/rows-where-others-expect-them", test_rope);
  int result = g_test_run ();
  tiny_model_clean ();
  return result;
}
