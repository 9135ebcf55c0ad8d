/* test_quantized.c: checkpoints that other programs quantized. Each is packed here by the format's published packing, from codes and scales that the
 * test keeps; what they stand for is computed from those in double precision. Rows read are that, rounded once; a packed matrix holds it;
 * and a whole model answers as one of plain floats with the same weights does. */
#include "engine/checkpoint/checkpoint.h"
#include "engine/checkpoint/hf_checkpoint.h"
#include "engine/checkpoint/packed.h"
#include "engine/model.h"
#include "engine/session.h"
#include "tests/fixtures/quantized_folder.h"

#include <glib/gstdio.h>
#include <math.h>
#include <string.h>
#include <sys/resource.h>

static const QuantShape usual = { .embd = 128, .ff = 256, .heads = 4, .kv_heads = 4, .head_dim = 32, .vocab = 128 };

static char *folder, *plain_folder, *packed_path;
static EngWorkers *workers;

static void clear_folder (const char *path)
{
  g_autoptr (GDir) dir = g_dir_open (path, 0, NULL);
  for (const char *name; dir && (name = g_dir_read_name (dir));) {
    g_autofree char *file = g_build_filename (path, name, NULL);
    g_unlink (file);
  }
}

static EngGguf *open_with_letters (const char *path)
{
  g_autofree char *file = g_test_build_filename (G_TEST_DIST, "fixtures", "decoders", "llama.gguf", NULL);
  g_autoptr (GError) error = NULL;
  g_autoptr (EngGguf) vocabulary = eng_gguf_open (file, &error);
  g_assert_no_error (error);
  EngGguf *view = eng_hf_open (path, vocabulary, &error);
  g_assert_no_error (error);
  return view;
}

static xb_input *open_pipeline (EngGguf *packed, guint id)
{
  if (!id)
    return NULL;
  g_autofree char *name = g_strdup_printf ("xinput.%u", id - 1);
  const EngTensor *tensor = eng_gguf_find_tensor (packed, name);
  xb_input *pipeline = xb_input_open (tensor->data, tensor->bytes, NULL);
  g_assert_nonnull (pipeline);
  return pipeline;
}

/* All rows as the packed matrix and its pipelines hold them. */
static void read_packed (EngGguf *packed, const EngTensor *tensor, guint rows, guint cols, float *out)
{
  if (tensor->type != ENG_TYPE_I8) {
    eng_tensor_read_rows (tensor, 0, rows, out);
    return;
  }
  xb_matrix *matrix = xb_matrix_open (tensor->data, tensor->bytes, NULL);
  const xb_layout *layout = xb_matrix_layout (matrix);
  xb_input *input = open_pipeline (packed, layout->input_id), *output = open_pipeline (packed, layout->output_id);
  g_autofree float *stored = g_new (float, cols), *column = g_new (float, rows);
  xb_dequantize_rows (matrix, 0, rows, out);
  for (guint row = 0; input && row < rows; row++) {
    memcpy (stored, out + row * cols, cols * sizeof (float));
    xb_input_restore_row (input, stored, out + row * cols);
  }
  for (guint col = 0; output && col < cols; col++) {
    for (guint row = 0; row < rows; row++)
      column[row] = out[row * cols + col];
    xb_input_restore (output, column, 0, rows);
    for (guint row = 0; row < rows; row++)
      out[row * cols + col] = column[row];
  }
  xb_input_free (input);
  xb_input_free (output);
  xb_matrix_free (matrix);
}

/* Rows as they are read, and as they are packed. */
static void check_weights (const QuantFormat *f, EngGguf *view, EngGguf *packed, const char *name, const double *w)
{
  const EngTensor *tensor = eng_gguf_find_tensor (view, name);
  g_autofree char *xbit = g_strconcat (name, ".xbit", NULL);
  const EngTensor *made = eng_gguf_find_tensor (packed, xbit) ? eng_gguf_find_tensor (packed, xbit) : eng_gguf_find_tensor (packed, name);
  g_assert_nonnull (tensor);
  g_assert_nonnull (made);
  guint cols = (guint) tensor->dims[0], rows = (guint) tensor->dims[1];
  g_autofree float *read = g_new (float, rows * cols), *stored = g_new (float, rows * cols);
  double largest = 0;
  for (guint i = 0; i < rows * cols; i++)
    largest = MAX (largest, fabs (w[i]));
  eng_tensor_read_rows (tensor, 0, rows, read);
  read_packed (packed, made, rows, cols, stored);
  for (guint i = 0; i < rows * cols; i++) {
    if (quant_format_is_like (f, "EXL3-1") ? fabs ((double) read[i] - w[i]) > 1e-6 * largest : read[i] != (float) w[i])
      g_error ("%s: row %u column %u is read as %a instead of %a", name, i / cols, i % cols, (double) read[i], w[i]);
    if (fabs ((double) stored[i] - (double) (float) w[i]) > f->tolerance * largest)
      g_error ("%s: row %u column %u is packed as %a instead of %a", name, i / cols, i % cols, (double) stored[i], w[i]);
  }
  if (quant_format_is_like (f, "EXL3-1")) /* no more than is published, a scale to a row, and the directory */
    g_assert_cmpuint (made->bytes, <=, rows * cols * f->bits / 8 + rows * 4 + 320);
}

static EngSession *new_session (EngGguf *gguf, int activation_bits)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (EngModel) model = eng_model_new (gguf, &error);
  g_assert_no_error (error);
  EngSessionOptions options = { .n_ctx = 96, .activation_bits = activation_bits };
  EngSession *session = eng_session_new (model, workers, &options, &error);
  g_assert_no_error (error);
  return session;
}

static void greedy (EngGguf *gguf, guint n_vocab, gint32 *tokens, guint n)
{
  g_autoptr (EngSession) session = new_session (gguf, 32);
  gint32 token = 5;
  for (guint step = 0; step < n; step++) {
    g_assert_true (eng_session_eval (session, &token, 1, FALSE, NULL, NULL));
    const float *logits = eng_session_logits (session);
    token = 0;
    for (guint i = 1; i < n_vocab; i++)
      token = logits[i] > logits[token] ? (gint32) i : token;
    tokens[step] = token;
  }
}

/* The settings as the configuration has them, and a word on what packing does that agrees with how far the packed weights may be off. */
static void check_description (const QuantFormat *f, const EngGguf *view)
{
  static const struct {
    const char *name, *method; /* how both begin */
  } methods[] = { { "GPTQ", "GPTQ" }, { "AWQ", "AWQ" }, { "compressed", "compressed-tensors" }, { "bitsandbytes-int8", "bitsandbytes" }, { "bitsandbytes-nf4", "bitsandbytes nf4" },
                  { "FP8-rows", "compressed-tensors" }, { "FP8", "FP8" }, { "NVFP4", "compressed-tensors" }, { "EXL2", "EXL2" }, { "EXL3", "EXL3" },
                  { "MXFP4", "compressed-tensors" }, { "BitNet", "BitNet" } };
  g_autoptr (EngCheckpointSource) source = eng_checkpoint_describe (view);
  g_assert_cmpstr (source->format, ==, "safetensors");
  gboolean found = FALSE;
  for (guint i = 0; i < G_N_ELEMENTS (methods) && !found; i++)
    if ((found = g_str_has_prefix (f->name, methods[i].name)))
      g_assert_cmpstr (source->method, ==, methods[i].method);
  g_assert_true (found);
  if (quant_format_is_like (f, "GPTQ4") || quant_format_is_like (f, "AWQ") || quant_format_is_like (f, "compressed-int4")) {
    g_assert_cmpfloat (source->bits, ==, f->bits);
    g_assert_cmpint (source->group, ==, f->group > 0 ? (gint) f->group : -1);
  } else if (quant_format_is_like (f, "EXL3-1")) {
    g_assert_cmpfloat (source->bits, ==, f->bits);
  }
  g_assert_true (source->is_ordered == (strstr (f->name, "act-order") != NULL || quant_format_is_like (f, "EXL2")));
  g_assert_true ((strstr (source->kept, "rounded to F16") != NULL) == (f->tolerance > 1e-4));
  if (quant_format_is_like (f, "EXL3-1"))
    g_assert_nonnull (strstr (source->kept, "without loss into "));
  if (f->tolerance == 0)
    g_assert_nonnull (strstr (source->kept, "carried without loss into "));
  if (f->tolerance > 0 && f->tolerance < 1e-4 && strstr (source->kept, "within a step") == NULL)
    g_assert_nonnull (strstr (source->kept, "without loss"));
  g_autofree char *cells = g_strdup_printf ("into %u-bit cells", f->bits);
  if (f->tolerance == 0)
    g_assert_nonnull (strstr (source->kept, cells));
  g_test_message ("%s: %s, %s", f->name, source->method, source->kept);
}

static void test_calibration_is_named (void)
{
  static const struct {
    const char *config, *said;
  } cases[] = { { "{\"quant_method\":\"gptq\",\"bits\":4,\"group_size\":32,\"dataset\":\"c4\"}", "c4" },
                { "{\"quant_method\":\"gptq\",\"bits\":4,\"group_size\":32,\"dataset\":[\"a b\",\"c\"]}", "2 texts of its makers" },
                { "{\"quant_method\":\"gptq\",\"bits\":4,\"group_size\":32,\"calibration\":{\"rows\":115,\"length\":2048,\"dataset\":\"(default)\"}}", "(default), 115 x 2048 tokens" },
                { "{\"quant_method\":\"gptq\",\"bits\":4,\"group_size\":32,\"calibration\":{\"rows\":100,\"cols\":2048}}", "100 x 2048 tokens" },
                { "{\"quant_method\":\"gptq\",\"bits\":4,\"group_size\":32}", NULL } };
  for (guint i = 0; i < G_N_ELEMENTS (cases); i++) {
    QuantFormat f = quant_formats[0];
    f.config = cases[i].config;
    QuantOracle oracle;
    quant_oracle_init (&oracle);
    quant_folders_write (&f, &usual, folder, plain_folder, &oracle, NULL, NULL);
    g_autoptr (EngGguf) view = open_with_letters (folder);
    g_autoptr (EngCheckpointSource) source = eng_checkpoint_describe (view);
    g_assert_cmpstr (source->calibration, ==, cases[i].said);
    quant_oracle_clear (&oracle);
  }
}

static void test_format (gconstpointer data)
{
  const QuantFormat *f = data;
  g_autoptr (GError) error = NULL;
  QuantOracle oracle;
  quant_oracle_init (&oracle);
  quant_folders_write (f, &usual, folder, plain_folder, &oracle, NULL, NULL);
  g_autoptr (EngGguf) view = open_with_letters (folder), plain_view = open_with_letters (plain_folder);
  g_assert_false (eng_gguf_is_computable (view));
  check_description (f, view);
  g_assert_true (eng_repack (view, packed_path, NULL, NULL, NULL, &error));
  g_assert_no_error (error);
  g_autoptr (EngGguf) packed = eng_gguf_open (packed_path, &error);
  g_assert_no_error (error);
  for (guint i = 0; i < oracle.names->len; i++)
    check_weights (f, view, packed, oracle.names->pdata[i], oracle.weights->pdata[i]);
  gint32 want[48], got[48];
  g_autofree char *plain_path = NULL;
  if (!eng_gguf_is_computable (plain_view)) { /* experts that have to be put together */
    plain_path = g_strconcat (plain_folder, ".xbit.gguf", NULL);
    g_assert_true (eng_repack (plain_view, plain_path, NULL, NULL, NULL, &error));
  }
  g_autoptr (EngGguf) plain = plain_path ? eng_gguf_open (plain_path, &error) : eng_gguf_ref (plain_view);
  g_assert_no_error (error);
  greedy (plain, usual.vocab, want, 48);
  greedy (packed, usual.vocab, got, 48);
  if (plain_path)
    g_unlink (plain_path);
  g_assert_cmpmem (got, sizeof got, want, sizeof want);
  quant_oracle_clear (&oracle);
}

/* How far the logits after a few tokens at once are from others', relative to the largest. */
static double prompt_error (EngGguf *gguf, EngGguf *other, int bits, guint n_vocab)
{
  const gint32 prompt[] = { 5, 17, 3, 99, 42, 7, 11 };
  g_autoptr (EngSession) session = new_session (gguf, bits), exact = new_session (other, 32);
  g_assert_true (eng_session_eval (session, prompt, G_N_ELEMENTS (prompt), FALSE, NULL, NULL));
  g_assert_true (eng_session_eval (exact, prompt, G_N_ELEMENTS (prompt), FALSE, NULL, NULL));
  const float *got = eng_session_logits (session), *want = eng_session_logits (exact);
  double error = 0, largest = 0;
  for (guint i = 0; i < n_vocab; i++) {
    error = MAX (error, fabs ((double) got[i] - (double) want[i]));
    largest = MAX (largest, fabs ((double) want[i]));
  }
  return error / largest;
}

typedef struct {
  const char *format;
  QuantShape shape;
} Filled;

#define NARROW .embd = 144, .ff = 272, .heads = 3, .kv_heads = 1, .head_dim = 48, .vocab = 267
static const Filled filled[] = {
  { "EXL3-4-signs-as-bits", { NARROW, .packs_head = TRUE } }, { "EXL3-3-mul1", { NARROW, .packs_head = TRUE, .has_bias = TRUE } }, { "EXL3-3-experts", { NARROW, .packs_head = TRUE } },
  { "EXL3-2-mcg", { NARROW, .packs_head = TRUE, .ties = TRUE } }, { "EXL3-5", { NARROW, .packs_head = TRUE, .is_phi3 = TRUE } }, { "EXL3-2-experts-of-two-sizes", { NARROW } },
  { "EXL3-8", { .embd = 64, .ff = 96, .heads = 2, .kv_heads = 2, .head_dim = 32, .vocab = 300, .packs_head = TRUE } },
};

/* Widths that are no multiples of 128: EXL3 stores more, which means nothing. */
static void test_filled_up (gconstpointer data)
{
  const Filled *c = data;
  const QuantFormat *f = quant_format_find (c->format);
  g_autoptr (GError) error = NULL;
  QuantOracle oracle;
  quant_oracle_init (&oracle);
  quant_folders_write (f, &c->shape, folder, plain_folder, &oracle, NULL, NULL);
  quant_tokenizer_write (folder, c->shape.vocab);
  quant_tokenizer_write (plain_folder, c->shape.vocab);
  g_autoptr (EngGguf) view = eng_hf_open (folder, NULL, &error), plain_view = eng_hf_open (plain_folder, NULL, &error);
  g_assert_no_error (error);
  g_autofree char *plain_path = g_strconcat (plain_folder, ".xbit.gguf", NULL);
  g_assert_true (eng_repack (view, packed_path, NULL, NULL, NULL, &error));
  g_assert_true (eng_repack (plain_view, plain_path, NULL, NULL, NULL, &error));
  g_autoptr (EngGguf) packed = eng_gguf_open (packed_path, &error), plain = eng_gguf_open (plain_path, &error);
  g_assert_no_error (error);
  for (guint i = 0; i < oracle.names->len; i++) {
    const EngTensor *tensor = eng_gguf_find_tensor (view, oracle.names->pdata[i]);
    guint cols = (guint) tensor->dims[0], rows = (guint) tensor->dims[1];
    const double *w = oracle.weights->pdata[i];
    g_autofree float *read = g_new (float, rows * cols);
    double largest = 0;
    for (guint k = 0; k < rows * cols; k++)
      largest = MAX (largest, fabs (w[k]));
    eng_tensor_read_rows (tensor, 0, rows, read);
    for (guint k = 0; k < rows * cols; k++)
      g_assert_cmpfloat (fabs ((double) read[k] - w[k]), <=, 1e-6 * largest);
  }
  gint32 want[48], got[48];
  greedy (plain, c->shape.vocab, want, 48);
  greedy (packed, c->shape.vocab, got, 48);
  g_assert_cmpmem (got, sizeof got, want, sizeof want);
  double exact = prompt_error (packed, plain, 32, c->shape.vocab), rounded = prompt_error (packed, plain, 8, c->shape.vocab);
  g_test_message ("logits of a prompt: exactly %.2g, with A8 %.2g", exact, rounded);
  g_assert_cmpfloat (exact, <, (f->tolerance > 1e-4 ? 2e-3 : 2e-4));
  g_assert_cmpfloat (rounded, <, 0.2);
  g_unlink (plain_path);
  quant_oracle_clear (&oracle);
}

/* No more is left out than fills the last block. */
static void test_filled_too_far (void)
{
  const QuantShape shape = { NARROW };
  const QuantFormat *f = quant_format_find ("EXL3-3-mul1");
  g_autoptr (GError) error = NULL;
  g_autofree char *path = g_build_filename (folder, "config.json", NULL), *text = NULL;
  QuantOracle oracle;
  quant_oracle_init (&oracle);
  quant_folders_write (f, &shape, folder, plain_folder, &oracle, NULL, NULL);
  quant_oracle_clear (&oracle);
  quant_tokenizer_write (folder, shape.vocab);
  g_assert_true (g_file_get_contents (path, &text, NULL, NULL));
  g_autoptr (GString) config = g_string_new (text);
  g_assert_cmpuint (g_string_replace (config, "\"intermediate_size\":272", "\"intermediate_size\":200", 1), ==, 1);
  st_write (folder, "config.json", config->str, config->len);
  g_autoptr (EngGguf) view = eng_hf_open (folder, NULL, &error);
  g_assert_no_error (error);
  g_assert_true (eng_repack (view, packed_path, NULL, NULL, NULL, &error));
  g_assert_null (eng_model_open (packed_path, &error));
  g_assert_nonnull (strstr (error->message, "is larger than the model's metadata asks for"));
}

/* ---- files that are wrong somewhere -------------------------------------------------------------------------------------------------------------------- */

typedef struct {
  guint number, kind;
  gboolean found;
} Spoil;

enum { GONE, OTHER_TYPE, TURNED, FLAT, ONE_LESS, N_SPOILS };

/* Changes the number-th part of the first layer's q_proj so that the file as such stays sound. */
static void spoil_part (GString *header, gpointer data)
{
  Spoil *spoil = data;
  static const char *const types[][2] = { { "I32", "F32" }, { "F16", "BF16" }, { "BF16", "F16" }, { "U8", "I8" }, { "I8", "U8" }, { "F32", "I32" }, { "I16", "F16" },
                                          { "I64", "F64" }, { "F8_E4M3", "U8" }, { "F8_E5M2", "BOOL" } };
  const char *module = "\"model.layers.0.self_attn.q_proj.";
  char *at = header->str;
  for (guint i = 0; (at = strstr (at, module)) != NULL && i < spoil->number; i++)
    at++;
  spoil->found = at != NULL;
  if (!at)
    return;
  gssize begin = at - header->str, end = strchr (at, '}') - header->str;
  g_autofree char *entry = g_strndup (at, (gsize) (end - begin));
  char *type = strstr (entry, "\"dtype\":\"") + 9, *shape = strstr (entry, "\"shape\":[") + 9;
  g_autofree char *old_type = g_strndup (type, strcspn (type, "\"")), *old_shape = g_strndup (shape, strcspn (shape, "]")), *changed = NULL;
  guint64 a = 1, b = 1, c = 1;
  int n = sscanf (old_shape, "%" G_GUINT64_FORMAT ",%" G_GUINT64_FORMAT ",%" G_GUINT64_FORMAT, &a, &b, &c);
  g_autoptr (GString) out = g_string_new (entry);
  switch (spoil->kind) {
  case GONE: g_string_replace (out, "self_attn.q_proj", "self_attn.rotary_emb", 1); break;
  case OTHER_TYPE:
    for (guint i = 0; i < G_N_ELEMENTS (types); i++)
      if (strcmp (types[i][0], old_type) == 0) {
        g_autofree char *from = g_strdup_printf ("\"dtype\":\"%s\"", old_type), *to = g_strdup_printf ("\"dtype\":\"%s\"", types[i][1]);
        g_string_replace (out, from, to, 1);
        break;
      }
    break;
  case TURNED: changed = n == 1 ? g_strdup_printf ("1,%" G_GUINT64_FORMAT, a) : n == 2 ? g_strdup_printf ("%" G_GUINT64_FORMAT ",%" G_GUINT64_FORMAT, b, a)
                                  : g_strdup_printf ("%" G_GUINT64_FORMAT ",%" G_GUINT64_FORMAT ",%" G_GUINT64_FORMAT, c, b, a); break;
  case FLAT: changed = g_strdup_printf ("%" G_GUINT64_FORMAT, a * b * c); break;
  default: changed = g_strdup_printf ("%" G_GUINT64_FORMAT "%s", a * 2, strchr (old_shape, ',') ? strchr (old_shape, ',') : ""); break; /* no longer its size */
  }
  if (changed)
    g_string_replace (out, old_shape, changed, 1);
  g_string_erase (header, begin, end - begin);
  g_string_insert (header, begin, out->str);
}

static void assert_sentence (const GError *error)
{
  g_assert_nonnull (error);
  g_assert_null (strchr (error->message, '\n'));
  g_assert_true (g_utf8_validate (error->message, -1, NULL));
  g_assert_true (g_str_has_prefix (error->message, folder));
  g_assert_cmpuint (strlen (error->message), >, strlen (folder) + 20);
}

/* Each part of each format gone, of another type or of another shape: refused in one sentence, or still sound and readable. */
static void test_spoiled (gconstpointer data)
{
  const QuantFormat *f = data;
  g_autofree char *file = g_test_build_filename (G_TEST_DIST, "fixtures", "decoders", "llama.gguf", NULL);
  g_autoptr (EngGguf) vocabulary = eng_gguf_open (file, NULL);
  struct rusage before, after;
  guint refused = 0, tried = 0;
  getrusage (RUSAGE_SELF, &before);
  for (guint number = 0;; number++) {
    Spoil spoil = { .number = number };
    for (spoil.kind = 0; spoil.kind < N_SPOILS; spoil.kind++) {
      QuantOracle oracle;
      quant_oracle_init (&oracle);
      quant_folders_write (f, &usual, folder, plain_folder, &oracle, spoil_part, &spoil);
      quant_oracle_clear (&oracle);
      if (!spoil.found)
        break;
      g_autoptr (GError) error = NULL;
      g_autoptr (EngGguf) view = eng_hf_open (folder, vocabulary, &error);
      tried++;
      if (view && eng_repack (view, packed_path, NULL, NULL, NULL, &error))
        continue;
      assert_sentence (error);
      refused++;
    }
    if (!spoil.found)
      break;
  }
  getrusage (RUSAGE_SELF, &after);
  g_assert_cmpint (after.ru_maxrss - before.ru_maxrss, <, 256 << 10); /* KiB */
  g_assert_cmpuint (refused, >, tried / 3); /* the rest is sound all the same: a list that is not needed, a shape that is as good */
  g_test_message ("%u of %u refused", refused, tried);
}

int main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  folder = g_dir_make_tmp ("valise-quantized-XXXXXX", NULL);
  plain_folder = g_dir_make_tmp ("valise-plain-XXXXXX", NULL);
  packed_path = g_strconcat (folder, ".xbit.gguf", NULL);
  workers = eng_workers_new (1);
  for (gsize i = 0; i < quant_n_formats; i++) {
    g_autofree char *name = g_strconcat ("/quantized/", quant_formats[i].name, NULL);
    g_test_add_data_func (name, &quant_formats[i], test_format);
    /* Of a format's variants the first is spoiled. */
    if (i > 0 && quant_formats[i].pack == quant_formats[i - 1].pack)
      continue;
    g_autofree char *spoiled = g_strconcat ("/quantized/spoiled/", quant_formats[i].name, NULL);
    g_test_add_data_func (spoiled, &quant_formats[i], test_spoiled);
  }
  for (gsize i = 0; i < G_N_ELEMENTS (filled); i++) {
    g_autofree char *name = g_strdup_printf ("/quantized/filled-up/%s", filled[i].format);
    g_test_add_data_func (name, &filled[i], test_filled_up);
  }
  g_test_add_func ("/quantized/filled-up/too-far", test_filled_too_far);
  g_test_add_func ("/quantized/calibration-is-named", test_calibration_is_named);
  int result = g_test_run ();
  clear_folder (folder);
  clear_folder (plain_folder);
  g_rmdir (folder);
  g_rmdir (plain_folder);
  g_unlink (packed_path);
  eng_workers_free (workers);
  g_free (folder);
  g_free (plain_folder);
  g_free (packed_path);
  return result;
}
