/* test_repack.c: an X-bit file made from a quantized GGUF holds the very same numbers, metadata and untouched tensors. */
#include "engine/checkpoint/checkpoint.h"
#include "engine/error.h"
#include "engine/model.h"
#include "engine/session.h"

#include <glib/gstdio.h>
#include <string.h>

static const guint packed_types[] = { ENG_TYPE_Q4_0, ENG_TYPE_Q4_1, ENG_TYPE_Q5_0, ENG_TYPE_Q5_1, ENG_TYPE_Q8_0, ENG_TYPE_Q2_K, ENG_TYPE_Q3_K,
                                      ENG_TYPE_Q4_K, ENG_TYPE_Q5_K, ENG_TYPE_Q6_K, ENG_TYPE_IQ4_NL, ENG_TYPE_IQ4_XS, ENG_TYPE_IQ2_XXS, ENG_TYPE_IQ2_XS,
                                      ENG_TYPE_IQ2_S, ENG_TYPE_IQ3_XXS, ENG_TYPE_IQ3_S, ENG_TYPE_IQ1_S, ENG_TYPE_IQ1_M, ENG_TYPE_TQ1_0, ENG_TYPE_TQ2_0,
                                      ENG_TYPE_MXFP4, ENG_TYPE_NVFP4, ENG_TYPE_Q1_0, ENG_TYPE_Q2_0 };

static char *folder;

static char *path_of (const char *name)
{
  return g_build_filename (folder, name, NULL);
}

/* Random bytes are random codes and scales; a random f16 may be infinite or no number, which is made finite at the places of the
 * scales by clearing one exponent bit in every byte that could be the upper half. */
static const struct {
  guint type;
  int upper[2];
} halves[] = { { ENG_TYPE_Q4_0, { 1, 1 } }, { ENG_TYPE_Q4_1, { 1, 3 } }, { ENG_TYPE_Q5_0, { 1, 1 } }, { ENG_TYPE_Q5_1, { 1, 3 } },
                 { ENG_TYPE_Q8_0, { 1, 1 } }, { ENG_TYPE_Q2_K, { 81, 83 } }, { ENG_TYPE_Q3_K, { 109, 109 } }, { ENG_TYPE_Q4_K, { 1, 3 } },
                 { ENG_TYPE_Q5_K, { 1, 3 } }, { ENG_TYPE_Q6_K, { 209, 209 } }, { ENG_TYPE_IQ4_NL, { 1, 1 } }, { ENG_TYPE_IQ4_XS, { 1, 1 } },
                 { ENG_TYPE_IQ2_XXS, { 1, 1 } }, { ENG_TYPE_IQ2_XS, { 1, 1 } }, { ENG_TYPE_IQ2_S, { 1, 1 } }, { ENG_TYPE_IQ3_XXS, { 1, 1 } },
                 { ENG_TYPE_IQ3_S, { 1, 1 } }, { ENG_TYPE_IQ1_S, { 1, 1 } }, { ENG_TYPE_IQ1_M, { 55, 55 } }, { ENG_TYPE_TQ1_0, { 53, 53 } },
                 { ENG_TYPE_TQ2_0, { 65, 65 } }, { ENG_TYPE_MXFP4, { 0, 0 } }, { ENG_TYPE_Q1_0, { 1, 1 } }, { ENG_TYPE_Q2_0, { 1, 1 } } };

static guint8 *random_blocks (guint type, guint64 bytes)
{
  guint8 *data = g_malloc (bytes);
  for (guint64 i = 0; i < bytes; i++)
    data[i] = (guint8) g_test_rand_int ();
  for (gsize h = 0; h < G_N_ELEMENTS (halves); h++)
    if (halves[h].type == type)
      for (guint64 at = 0; at < bytes; at += eng_type_traits (type)->block_bytes)
        for (int k = 0; k < 2; k++)
          data[at + (guint64) halves[h].upper[k]] &= type == ENG_TYPE_MXFP4 ? 0x7f : 0xbf;
  return data;
}

static guint64 tensor_bytes (guint type, const guint64 *dims, guint n_dims)
{
  const EngTypeTraits *traits = eng_type_traits (type);
  guint64 bytes = dims[0] / traits->block * traits->block_bytes;
  for (guint i = 1; i < n_dims; i++)
    bytes *= dims[i];
  return bytes;
}

static void write_file (const char *path, guint type, guint64 cols, guint64 rows)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (EngGgufWriter) writer = eng_gguf_writer_new (32);
  eng_gguf_writer_set_string (writer, "general.architecture", "llama");
  eng_gguf_writer_set_u32 (writer, "llama.block_count", 7);
  const struct {
    const char *name;
    guint type, n_dims;
    guint64 dims[2];
  } tensors[] = { { "blk.0.attn_norm.weight", ENG_TYPE_F32, 1, { 96 } }, { "blk.0.attn_q.weight", type, 2, { cols, rows } },
                  { "rope_freqs.weight", ENG_TYPE_F16, 1, { 32 } },      { "output.weight", ENG_TYPE_BF16, 2, { 33, 5 } } };
  for (gsize i = 0; i < G_N_ELEMENTS (tensors); i++)
    eng_gguf_writer_add_tensor (writer, tensors[i].name, tensors[i].type, tensors[i].n_dims, tensors[i].dims);
  g_assert_true (eng_gguf_writer_begin (writer, path, &error));
  for (guint i = 0; i < G_N_ELEMENTS (tensors); i++) {
    guint64 bytes = tensor_bytes (tensors[i].type, tensors[i].dims, tensors[i].n_dims);
    g_autofree guint8 *data = random_blocks (tensors[i].type, bytes);
    g_assert_true (eng_gguf_writer_write (writer, i, 0, data, bytes, &error));
  }
  g_assert_true (eng_gguf_writer_finish (writer, &error));
  g_assert_no_error (error);
}

/* Compares row by row, so that a whole model can be held to its source. */
static void assert_same_numbers (const EngTensor *source, const EngTensor *packed)
{
  xb_error why = NULL;
  guint cols = (guint) source->dims[0], rows = (guint) source->dims[1];
  g_assert_cmpuint ((guintptr) packed->data % XB_ALIGN, ==, 0);
  xb_matrix *matrix = xb_matrix_open (packed->data, packed->bytes, &why);
  g_assert_cmpstr (why, ==, NULL);
  g_autofree float *expected = g_new (float, cols), *got = g_new (float, cols);
  for (guint row = 0; row < rows; row++) {
    eng_type_dequantize (source->type, source->data + source->bytes / rows * row, expected, cols);
    xb_dequantize_rows (matrix, row, row + 1, got);
    for (guint i = 0; i < cols; i++)
      if (got[i] != expected[i])
        g_error ("%s: row %u column %u is %a instead of %a", source->name, row, i, (double) got[i], (double) expected[i]);
  }
  xb_matrix_free (matrix);
}

static void assert_same_file (EngGguf *source, EngGguf *packed)
{
  g_assert_cmpuint (eng_gguf_n_tensors (source), ==, eng_gguf_n_tensors (packed));
  for (guint i = 0; i < eng_gguf_n_tensors (source); i++) {
    const EngTensor *from = eng_gguf_tensor (source, i);
    g_autofree char *name = g_strconcat (from->name, ".xbit", NULL);
    const EngTensor *to = eng_gguf_find_tensor (packed, name);
    if (to) {
      assert_same_numbers (from, to);
      continue;
    }
    to = eng_gguf_find_tensor (packed, from->name);
    g_assert_nonnull (to);
    g_assert_cmpuint (to->type, ==, from->type);
    g_assert_cmpmem (to->data, to->bytes, from->data, from->bytes);
  }
}

static void test_same_numbers (gconstpointer data)
{
  guint type = GPOINTER_TO_UINT (data);
  static const guint64 shapes[][2] = { { 256, 16 }, { 512, 37 }, { 768, 1 }, { 96, 1040 }, { 32, 1 }, { 256, 1100 } };
  for (gsize i = 0; i < G_N_ELEMENTS (shapes); i++) {
    if (shapes[i][0] % eng_type_traits (type)->block)
      continue;
    g_autoptr (GError) error = NULL;
    g_autofree char *from = path_of ("source.gguf"), *to = path_of ("packed.gguf");
    write_file (from, type, shapes[i][0], shapes[i][1]);
    g_autoptr (EngGguf) source = eng_gguf_open (from, &error);
    g_assert_no_error (error);
    g_assert_false (eng_gguf_is_computable (source));
    g_assert_true (eng_repack (source, to, NULL, NULL, NULL, &error));
    g_assert_no_error (error);
    g_autoptr (EngGguf) packed = eng_gguf_open (to, &error);
    g_assert_no_error (error);
    g_assert_true (eng_gguf_is_computable (packed));
    g_assert_nonnull (eng_gguf_find_tensor (packed, "blk.0.attn_q.weight.xbit"));
    g_assert_cmpint (eng_gguf_get_int (packed, "valise.version", 0), ==, ENG_FILE_VERSION);
    g_assert_cmpint (eng_gguf_get_int (packed, "general.alignment", 0), ==, XB_ALIGN);
    g_assert_cmpint (eng_gguf_get_int (packed, "llama.block_count", 0), ==, 7);
    assert_same_file (source, packed);
  }
}

typedef struct {
  double last;
  guint calls;
  GCancellable *stop;
} Watch;

static void watch (double fraction, const char *what, gpointer data)
{
  Watch *w = data;
  g_assert_nonnull (what);
  g_assert_cmpfloat (fraction, >=, w->last);
  g_assert_cmpfloat (fraction, <=, 1);
  w->last = fraction;
  w->calls++;
  if (w->stop)
    g_cancellable_cancel (w->stop);
}

static void test_progress_reaches_the_end (void)
{
  g_autoptr (GError) error = NULL;
  g_autofree char *from = path_of ("source.gguf"), *to = path_of ("packed.gguf");
  write_file (from, ENG_TYPE_Q4_0, 64, 3000);
  g_autoptr (EngGguf) source = eng_gguf_open (from, &error);
  Watch w = { 0 };
  g_assert_true (eng_repack (source, to, watch, &w, NULL, &error));
  g_assert_cmpfloat (w.last, ==, 1);
  g_assert_cmpuint (w.calls, >, eng_gguf_n_tensors (source));
}

static void assert_nothing_left (const char *path)
{
  g_autofree char *name = g_path_get_basename (path), *hidden = g_strdup_printf (".%s.", name);
  g_autoptr (GDir) dir = g_dir_open (folder, 0, NULL);
  for (const char *entry; (entry = g_dir_read_name (dir));)
    g_assert_false (g_str_equal (entry, name) || g_str_has_prefix (entry, hidden));
}

static void test_cancel_leaves_nothing (void)
{
  g_autoptr (GError) error = NULL;
  g_autofree char *from = path_of ("source.gguf"), *to = path_of ("cancelled.gguf");
  write_file (from, ENG_TYPE_Q4_0, 64, 3000);
  g_autoptr (EngGguf) source = eng_gguf_open (from, &error);
  g_autoptr (GCancellable) stop = g_cancellable_new ();
  Watch w = { .stop = stop };
  g_assert_false (eng_repack (source, to, watch, &w, stop, &error));
  g_assert_error (error, ENG_ERROR, ENG_ERROR_CANCELLED);
  g_assert_cmpuint (w.calls, ==, 1);
  assert_nothing_left (to);
}

static void test_unknown_type_is_named (void)
{
  g_autoptr (GError) error = NULL;
  g_autofree char *from = path_of ("source.gguf"), *to = path_of ("unsupported.gguf");
  write_file (from, 15, 256, 4);
  g_autoptr (EngGguf) source = eng_gguf_open (from, &error);
  g_assert_no_error (error);
  g_assert_false (eng_gguf_is_computable (source));
  g_assert_false (eng_repack (source, to, NULL, NULL, NULL, &error));
  g_assert_error (error, ENG_ERROR, ENG_ERROR_UNSUPPORTED);
  g_assert_nonnull (strstr (error->message, "blk.0.attn_q.weight"));
  g_assert_nonnull (strstr (error->message, "Q8_K"));
  g_assert_nonnull (strstr (error->message, from));
  assert_nothing_left (to);
}

/* Integers and doubles have no product of their own: they become floats, each rounded once. */
static void test_numbers_become_floats (gconstpointer data)
{
  guint type = GPOINTER_TO_UINT (data);
  g_autoptr (GError) error = NULL;
  g_autofree char *from = path_of ("source.gguf"), *to = path_of ("packed.gguf");
  write_file (from, type, 24, 9);
  g_autoptr (EngGguf) source = eng_gguf_open (from, &error);
  g_assert_no_error (error);
  g_assert_false (eng_gguf_is_computable (source));
  g_assert_true (eng_repack (source, to, NULL, NULL, NULL, &error));
  g_autoptr (EngGguf) packed = eng_gguf_open (to, &error);
  g_assert_no_error (error);
  g_assert_true (eng_gguf_is_computable (packed));
  const EngTensor *tensor = eng_gguf_find_tensor (packed, "blk.0.attn_q.weight"), *of = eng_gguf_find_tensor (source, "blk.0.attn_q.weight");
  g_assert_cmpuint (tensor->type, ==, ENG_TYPE_F32);
  for (guint i = 0; i < 24 * 9; i++) {
    gint64 integer = 0;
    double real;
    memcpy (&integer, of->data + i * of->bytes / 216, of->bytes / 216);
    memcpy (&real, &integer, sizeof real);
    int unused = 64 - (int) (8 * (of->bytes / 216));
    float want = type == ENG_TYPE_F64 ? (float) real : (float) ((gint64) ((guint64) integer << unused) >> unused), got;
    memcpy (&got, tensor->data + i * sizeof got, sizeof got);
    g_assert_true (got == want || (want != want && got != got));
  }
}

/* A scale of the whole matrix, as NVFP4's second one is stored, goes into those of its rows; the tensor is gone then. */
static void test_second_scale (void)
{
  g_autoptr (GError) error = NULL;
  g_autofree char *from = path_of ("source.gguf"), *to = path_of ("packed.gguf");
  g_autoptr (EngGgufWriter) writer = eng_gguf_writer_new (32);
  const guint64 shape[] = { 128, 20 }, one[] = { 1 };
  g_autofree guint8 *blocks = random_blocks (ENG_TYPE_NVFP4, 128 / 64 * 36 * 20);
  const float factor = 0.0123f, unused = 3;
  eng_gguf_writer_add_tensor (writer, "blk.0.attn_q.weight", ENG_TYPE_NVFP4, 2, shape);
  eng_gguf_writer_add_tensor (writer, "blk.0.attn_q.scale", ENG_TYPE_F32, 1, one);
  eng_gguf_writer_add_tensor (writer, "blk.0.attn_q.input_scale", ENG_TYPE_F32, 1, one);
  g_assert_true (eng_gguf_writer_begin (writer, from, &error));
  g_assert_true (eng_gguf_writer_write (writer, 0, 0, blocks, 128 / 64 * 36 * 20, &error));
  g_assert_true (eng_gguf_writer_write (writer, 1, 0, &factor, 4, &error));
  g_assert_true (eng_gguf_writer_write (writer, 2, 0, &unused, 4, &error));
  g_assert_true (eng_gguf_writer_finish (writer, &error));
  g_autoptr (EngGguf) source = eng_gguf_open (from, &error);
  g_assert_true (eng_repack (source, to, NULL, NULL, NULL, &error));
  g_assert_no_error (error);
  g_autoptr (EngGguf) packed = eng_gguf_open (to, &error);
  g_assert_cmpuint (eng_gguf_n_tensors (packed), ==, 1);
  const EngTensor *tensor = eng_gguf_tensor (packed, 0);
  xb_matrix *matrix = xb_matrix_open (tensor->data, tensor->bytes, NULL);
  float plain[128], got[128];
  for (guint row = 0; row < 20; row++) {
    eng_tensor_read_rows (eng_gguf_tensor (source, 0), row, 1, plain);
    xb_dequantize_rows (matrix, row, row + 1, got);
    for (guint i = 0; i < 128; i++)
      g_assert_cmpfloat (ABS (got[i] - plain[i] * factor), <=, 2.5e-7f * ABS (plain[i] * factor));
  }
  xb_matrix_free (matrix);
}

/* One file, and what the gguf package makes of it for big-endian machines: the same keys and numbers, read and packed. */
static void test_big_endian (void)
{
  g_autoptr (GError) error = NULL;
  g_autofree char *little_path = g_build_filename (g_getenv ("G_TEST_SRCDIR"), "fixtures", "little_endian.gguf", NULL);
  g_autofree char *big_path = g_build_filename (g_getenv ("G_TEST_SRCDIR"), "fixtures", "big_endian.gguf", NULL), *to = path_of ("packed.gguf");
  g_autoptr (EngGguf) little = eng_gguf_open (little_path, &error), big = eng_gguf_open (big_path, &error);
  g_assert_no_error (error);
  g_assert_false (eng_gguf_is_computable (big));
  g_assert_cmpuint (eng_gguf_n_keys (big), ==, eng_gguf_n_keys (little));
  g_assert_cmpint (eng_gguf_get_int (big, "llama.block_count", 0), ==, 258);
  g_assert_cmpint (eng_gguf_get_int (big, "a.u64", 0), ==, G_GINT64_CONSTANT (0x0102030405060708));
  g_assert_cmpint (eng_gguf_get_int (big, "a.i16", 0), ==, -2);
  g_assert_cmpfloat (eng_gguf_get_float (big, "a.f32", 0), ==, 1.25);
  g_assert_cmpfloat (eng_gguf_get_float (big, "a.f64", 0), ==, -1e300);
  g_assert_true (eng_gguf_get_bool (big, "a.bool", FALSE));
  gsize length = 0;
  const char *word = eng_gguf_array_string (big, "a.words", 2, &length);
  g_assert_cmpmem (word, length, "trois", 5);
  g_assert_cmpint (eng_gguf_array_int (big, "a.numbers", 2), ==, 70000);
  g_assert_true (eng_repack (big, to, NULL, NULL, NULL, &error));
  g_assert_no_error (error);
  g_autoptr (EngGguf) packed = eng_gguf_open (to, &error);
  g_assert_true (eng_gguf_is_computable (packed));
  for (guint i = 0; i < eng_gguf_n_tensors (little); i++) {
    const EngTensor *from = eng_gguf_tensor (little, i), *turned = eng_gguf_tensor (big, i);
    g_autofree char *name = g_strconcat (from->name, ".xbit", NULL);
    const EngTensor *matrix = eng_gguf_find_tensor (packed, name);
    float want[512], got[512];
    eng_tensor_read_rows (from, 0, 2, want);
    eng_tensor_read_rows (turned, 0, 2, got);
    g_assert_cmpmem (got, sizeof got, want, sizeof want);
    if (matrix) {
      assert_same_numbers (from, matrix);
      continue;
    }
    matrix = eng_gguf_find_tensor (packed, from->name);
    g_assert_cmpmem (matrix->data, matrix->bytes, from->data, from->bytes);
  }
}

/* Blocks of weights that a model can compute with: scales of 2^-10, or small powers of two. */
static guint8 *small_blocks (guint type, guint64 bytes)
{
  guint8 *data = random_blocks (type, bytes);
  guint block = eng_type_traits (type)->block_bytes;
  for (guint64 at = 0; at < bytes; at += block)
    if (type == ENG_TYPE_MXFP4) {
      data[at] = (guint8) (116 + data[at] % 5);
    } else if (type == ENG_TYPE_NVFP4) {
      for (int i = 0; i < 4; i++)
        data[at + i] &= 31;
    } else if (type == ENG_TYPE_IQ1_M) {
      static const guint8 nibbles[4] = { 0x00, 0x00, 0x40, 0x10 };
      for (int i = 0; i < 4; i++)
        data[at + 49 + 2 * i] = (guint8) ((data[at + 49 + 2 * i] & 15) | nibbles[i]);
    } else {
      for (gsize h = 0; h < G_N_ELEMENTS (halves); h++)
        for (int k = 0; k < 2 && halves[h].type == type; k++) {
          data[at + (guint64) halves[h].upper[k] - 1] = 0;
          data[at + (guint64) halves[h].upper[k]] = 0x14;
        }
    }
  return data;
}

enum { SIDE = 256, STEPS = 24 };

static const struct {
  const char *name;
  guint rows, cols; /* 1 row: a norm */
} parts[] = { { "token_embd", 128, SIDE }, { "output_norm", 1, SIDE }, { "blk.0.attn_norm", 1, SIDE }, { "blk.0.ffn_norm", 1, SIDE }, { "blk.0.attn_q", SIDE, SIDE },
              { "blk.0.attn_k", SIDE, SIDE }, { "blk.0.attn_v", SIDE, SIDE }, { "blk.0.attn_output", SIDE, SIDE }, { "blk.0.ffn_gate", 2 * SIDE, SIDE },
              { "blk.0.ffn_up", 2 * SIDE, SIDE }, { "blk.0.ffn_down", SIDE, 2 * SIDE }, { "output", 128, SIDE } };

/* A model of one layer with matrices of the type, or of floats that are the same weights (whose exactness gguf-dequantize holds to ggml's). */
static void write_model (const char *path, guint type, GPtrArray *blocks, gboolean as_floats)
{
  g_autoptr (GError) error = NULL;
  g_autofree char *letters = g_build_filename (g_getenv ("G_TEST_SRCDIR"), "fixtures", "decoders", "llama.gguf", NULL);
  g_autoptr (EngGguf) vocabulary = eng_gguf_open (letters, &error);
  g_autoptr (EngGgufWriter) writer = eng_gguf_writer_new (32);
  static const struct {
    const char *key;
    guint value;
  } keys[] = { { "llama.block_count", 1 }, { "llama.embedding_length", SIDE }, { "llama.feed_forward_length", 2 * SIDE }, { "llama.attention.head_count", 4 },
               { "llama.attention.head_count_kv", 4 }, { "llama.context_length", 64 } };
  g_assert_no_error (error);
  eng_gguf_writer_set_string (writer, "general.architecture", "llama");
  for (gsize i = 0; i < G_N_ELEMENTS (keys); i++)
    eng_gguf_writer_set_u32 (writer, keys[i].key, keys[i].value);
  eng_gguf_writer_set_f32 (writer, "llama.attention.layer_norm_rms_epsilon", 1e-5f);
  eng_gguf_writer_copy_keys (writer, vocabulary, "tokenizer.");
  for (gsize i = 0; i < G_N_ELEMENTS (parts); i++) {
    g_autofree char *name = g_strconcat (parts[i].name, ".weight", NULL);
    const guint64 dims[2] = { parts[i].cols, parts[i].rows };
    eng_gguf_writer_add_tensor (writer, name, as_floats || parts[i].rows == 1 ? ENG_TYPE_F32 : type, parts[i].rows == 1 ? 1 : 2, dims);
  }
  g_assert_true (eng_gguf_writer_begin (writer, path, &error));
  for (guint i = 0; i < G_N_ELEMENTS (parts); i++) {
    guint64 dims[2] = { parts[i].cols, parts[i].rows }, n = dims[0] * dims[1];
    g_autofree float *floats = g_new (float, n);
    if (parts[i].rows == 1)
      for (guint64 k = 0; k < n; k++)
        floats[k] = 1 + (float) (k % 7) / 16;
    else
      eng_type_dequantize (type, blocks->pdata[i], floats, n);
    gboolean plain = as_floats || parts[i].rows == 1;
    g_assert_true (eng_gguf_writer_write (writer, i, 0, plain ? (gconstpointer) floats : blocks->pdata[i], plain ? n * 4 : tensor_bytes (type, dims, 2), &error));
  }
  g_assert_true (eng_gguf_writer_finish (writer, &error));
}

static void greedy (const char *path, EngWorkers *workers, gint32 tokens[STEPS])
{
  g_autoptr (GError) error = NULL;
  g_autoptr (EngModel) model = eng_model_open (path, &error);
  g_assert_no_error (error);
  EngSessionOptions options = { .n_ctx = 48, .activation_bits = 32 };
  g_autoptr (EngSession) session = eng_session_new (model, workers, &options, &error);
  g_assert_no_error (error);
  gint32 token = 7;
  for (guint step = 0; step < STEPS; step++) {
    g_assert_true (eng_session_eval (session, &token, 1, FALSE, NULL, &error));
    const float *logits = eng_session_logits (session);
    token = 0;
    for (gint32 i = 1; i < 128; i++)
      token = logits[i] > logits[token] ? i : token;
    tokens[step] = token;
  }
}

/* The type is named with its bits and groups, and that nothing is lost. */
static void check_description (const EngGguf *source, const EngGguf *floats, guint type)
{
  const EngTypeTraits *traits = eng_type_traits (type);
  g_autoptr (EngCheckpointSource) made = eng_checkpoint_describe (source), plain = eng_checkpoint_describe (floats);
  g_assert_cmpstr (made->format, ==, "GGUF");
  g_assert_cmpstr (made->method, ==, traits->name);
  g_assert_cmpfloat (made->bits, ==, traits->block_bytes * 8.0 / traits->block);
  g_assert_cmpint (made->group, >=, 16);
  g_assert_cmpint ((gint) traits->block % made->group, ==, 0);
  g_assert_true (g_str_has_prefix (made->kept, "carried without loss into "));
  g_assert_cmpstr (plain->method, ==, "F32");
  g_assert_cmpstr (plain->kept, ==, "computed with as F32");
}

static void test_same_answers (gconstpointer data)
{
  guint type = GPOINTER_TO_UINT (data);
  g_autoptr (GPtrArray) blocks = g_ptr_array_new_with_free_func (g_free);
  g_autofree char *from = path_of ("source.gguf"), *to = path_of ("packed.gguf"), *plain = path_of ("starter.gguf");
  g_autoptr (GError) error = NULL;
  for (gsize i = 0; i < G_N_ELEMENTS (parts); i++) {
    const guint64 dims[2] = { parts[i].cols, parts[i].rows };
    g_ptr_array_add (blocks, small_blocks (type, tensor_bytes (type, dims, 2)));
  }
  write_model (from, type, blocks, FALSE);
  write_model (plain, type, blocks, TRUE);
  g_autoptr (EngGguf) source = eng_gguf_open (from, &error), floats = eng_gguf_open (plain, &error);
  check_description (source, floats, type);
  g_assert_true (eng_repack (source, to, NULL, NULL, NULL, &error));
  g_assert_no_error (error);
  gint32 want[STEPS], got[STEPS];
  EngWorkers *workers = eng_workers_new (1);
  greedy (plain, workers, want);
  greedy (to, workers, got);
  eng_workers_free (workers);
  g_assert_cmpmem (got, sizeof got, want, sizeof want);
}

static void test_starter (void)
{
  const char *starter = g_getenv ("VALISE_STARTER_GGUF");
  if (!starter || !g_str_has_suffix (starter, ".gguf")) {
    g_test_skip ("VALISE_STARTER_GGUF names no .gguf file");
    return;
  }
  g_autoptr (GError) error = NULL;
  g_autofree char *to = path_of ("starter.gguf");
  g_autoptr (EngGguf) source = eng_gguf_open (starter, &error);
  g_assert_no_error (error);
  g_assert_true (eng_repack (source, to, NULL, NULL, NULL, &error));
  g_autoptr (EngGguf) packed = eng_gguf_open (to, &error);
  g_assert_no_error (error);
  assert_same_file (source, packed);
  g_test_message ("%" G_GUINT64_FORMAT " bytes became %" G_GUINT64_FORMAT, eng_gguf_file_bytes (source), eng_gguf_file_bytes (packed));
}

int main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  folder = g_dir_make_tmp ("valise-repack-XXXXXX", NULL);
  for (gsize i = 0; i < G_N_ELEMENTS (packed_types); i++) {
    g_autofree char *name = g_strdup_printf ("/repack/same-numbers/%s", eng_type_traits (packed_types[i])->name);
    g_test_add_data_func (name, GUINT_TO_POINTER (packed_types[i]), test_same_numbers);
    g_autofree char *answers = g_strdup_printf ("/repack/same-answers/%s", eng_type_traits (packed_types[i])->name);
    g_test_add_data_func (answers, GUINT_TO_POINTER (packed_types[i]), test_same_answers);
  }
  static const guint numbers[] = { ENG_TYPE_I8, ENG_TYPE_I16, ENG_TYPE_I32, ENG_TYPE_I64, ENG_TYPE_F64 };
  for (gsize i = 0; i < G_N_ELEMENTS (numbers); i++) {
    g_autofree char *name = g_strdup_printf ("/repack/numbers-become-floats/%s", eng_type_traits (numbers[i])->name);
    g_test_add_data_func (name, GUINT_TO_POINTER (numbers[i]), test_numbers_become_floats);
  }
  g_test_add_func ("/repack/second-scale-of-nvfp4", test_second_scale);
  g_test_add_func ("/repack/big-endian", test_big_endian);
  g_test_add_func ("/repack/progress-reaches-the-end", test_progress_reaches_the_end);
  g_test_add_func ("/repack/cancel-leaves-nothing", test_cancel_leaves_nothing);
  g_test_add_func ("/repack/unknown-type-is-named", test_unknown_type_is_named);
  g_test_add_func ("/repack/starter-same-numbers", test_starter);
  int result = g_test_run ();
  for (const char *const *name = (const char *const[]) { "source.gguf", "packed.gguf", "starter.gguf", NULL }; *name; name++) {
    g_autofree char *path = path_of (*name);
    g_unlink (path);
  }
  g_rmdir (folder);
  g_free (folder);
  return result;
}
