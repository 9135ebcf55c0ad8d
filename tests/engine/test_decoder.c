/* test_decoder.c: the forward pass against an oracle in f64, and the promises of a session. */
#include "engine/error.h"
#include "engine/session.h"
#include "tests/fixtures/tiny_model.h"

#include <math.h>
#include <string.h>

enum { N_TOKENS = 12 };

static EngWorkers *workers;

static gint32 token_at (guint i)
{
  return (37 * i + 5) % TINY_VOCAB;
}

static EngModel *open_model (const TinyModel *tiny, const char *name)
{
  g_autofree char *path = tiny_model_path (name);
  g_autoptr (GError) error = NULL;
  tiny_model_write (tiny, path);
  EngModel *model = eng_model_open (path, &error);
  g_assert_no_error (error);
  return model;
}

static EngSession *open_session (EngModel *model, EngSessionOptions options)
{
  g_autoptr (GError) error = NULL;
  options.n_ctx = options.n_ctx > 0 ? options.n_ctx : 128;
  options.kv_bits = options.kv_bits > 0 ? options.kv_bits : 16;
  EngSession *session = eng_session_new (model, workers, &options, &error);
  g_assert_no_error (error);
  return session;
}

static void eval (EngSession *session, guint n, gboolean all_logits)
{
  g_autoptr (GError) error = NULL;
  g_autofree gint32 *tokens = g_new (gint32, n);
  for (guint i = 0; i < n; i++)
    tokens[i] = token_at (eng_session_n_past (session) + i);
  g_assert_true (eng_session_eval (session, tokens, n, all_logits, NULL, &error));
  g_assert_no_error (error);
}

/* Root of the mean squared difference. */
static double distance (const float *a, const float *b, gsize n)
{
  double sum = 0;
  for (gsize i = 0; i < n; i++)
    sum += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
  return sqrt (sum / n);
}

/* Logits of all N_TOKENS of a fresh session. */
static float *all_logits (EngModel *model, EngSessionOptions options)
{
  g_autoptr (EngSession) session = open_session (model, options);
  eval (session, N_TOKENS, TRUE);
  return g_memdup2 (eng_session_logits_at (session, 0), sizeof (float) * N_TOKENS * TINY_VOCAB);
}

/* ---- the graph ----------------------------------------------------------------------------------------------------------- */

static float *read_oracle (void)
{
  g_autofree char *path = g_test_build_filename (G_TEST_DIST, "fixtures", "tiny_llama_logits.bin", NULL);
  g_autoptr (GError) error = NULL;
  char *bytes;
  gsize size;
  g_file_get_contents (path, &bytes, &size, &error);
  g_assert_no_error (error);
  g_assert_cmpuint (size, ==, sizeof (float) * N_TOKENS * TINY_VOCAB);
  return (float *)(gpointer)bytes;
}

/* The logits spread by 2.3; what is left is f32 against f64 and the f16 of the KV cache. */
static void test_oracle (void)
{
  g_autofree float *oracle = read_oracle ();
  TinyModel tiny = TINY_MODEL_DEFAULTS;
  g_autoptr (EngModel) f32 = open_model (&tiny, "f32.gguf");
  g_autofree float *logits = all_logits (f32, (EngSessionOptions){ 0 });
  for (guint i = 0; i < N_TOKENS; i++)
    g_assert_cmpfloat (distance (oracle + i * TINY_VOCAB, logits + i * TINY_VOCAB, TINY_VOCAB), <, 0.005);

  tiny.f16 = TRUE;
  g_autoptr (EngModel) f16 = open_model (&tiny, "f16.gguf");
  g_autofree float *logits16 = all_logits (f16, (EngSessionOptions){ 0 });
  g_assert_cmpfloat (distance (oracle, logits16, N_TOKENS * TINY_VOCAB), <, 0.02);
}

static void test_untied (void)
{
  TinyModel tiny = TINY_MODEL_DEFAULTS;
  tiny.untied = TRUE;
  g_autoptr (EngModel) model = open_model (&tiny, "untied.gguf");
  g_assert_false (eng_model_traits (model)->tied_head);
  g_assert_cmpuint (eng_model_n_matrices (model), ==, 2 * 7 + 2);
  g_autofree float *oracle = read_oracle (), *logits = all_logits (model, (EngSessionOptions){ 0 });
  g_assert_cmpfloat (distance (oracle, logits, N_TOKENS * TINY_VOCAB), >, 1);
}

/* Rows of a packed model as it means them, for a raw model of the same numbers. */
static void dequantized_row (gpointer data, const char *name, guint row, float *out, guint cols)
{
  for (guint i = 0; i < eng_model_n_matrices (data); i++) {
    const EngMatrix *matrix = eng_model_matrix (data, i);
    if (!g_str_equal (matrix->name, name))
      continue;
    g_autofree float *stored = g_new (float, cols);
    g_assert_cmpuint (cols, ==, matrix->cols);
    xb_dequantize_rows (matrix->xbit, row, row + 1, stored);
    if (matrix->input != NULL)
      xb_input_restore_row (matrix->input, stored, out);
    else
      memcpy (out, stored, cols * sizeof (float));
    return;
  }
  g_assert_not_reached ();
}

static void test_packed (void)
{
  guint depths[] = { 1, 3, 4, 8 }, blocks[] = { 0, 32 };
  for (guint i = 0; i < G_N_ELEMENTS (depths); i++)
    for (guint j = 0; j < G_N_ELEMENTS (blocks); j++) {
      TinyModel tiny = TINY_MODEL_DEFAULTS;
      tiny.depth = depths[i];
      tiny.hadamard = blocks[j];
      g_autoptr (EngModel) packed = open_model (&tiny, "packed.gguf");
      g_assert_nonnull (eng_model_matrix (packed, 0)->xbit);
      g_assert_true (eng_model_layer (packed, 0)->attn_q.input == eng_model_layer (packed, 1)->ffn_up.input);
      TinyModel raw = TINY_MODEL_DEFAULTS;
      raw.row = dequantized_row;
      raw.data = packed;
      g_autoptr (EngModel) dequantized = open_model (&raw, "dequantized.gguf");
      g_autofree float *expected = all_logits (dequantized, (EngSessionOptions){ 0 });
      g_autofree float *exact = all_logits (packed, (EngSessionOptions){ .activation_bits = 32 });
      g_autofree float *a8 = all_logits (packed, (EngSessionOptions){ .activation_bits = 8 });
      g_autofree float *a4 = all_logits (packed, (EngSessionOptions){ .activation_bits = 4 });
      g_assert_cmpfloat (distance (expected, exact, N_TOKENS * TINY_VOCAB), <, 0.005);
      g_assert_cmpfloat (distance (expected, a8, N_TOKENS * TINY_VOCAB), <, 0.1);
      g_assert_cmpfloat (distance (expected, a4, N_TOKENS * TINY_VOCAB), <, 2);
    }
}

/* ---- sessions ------------------------------------------------------------------------------------------------------------ */

static void test_split (void)
{
  for (guint depth = 0; depth <= 4; depth += 4) {
    TinyModel tiny = TINY_MODEL_DEFAULTS;
    tiny.depth = depth;
    tiny.hadamard = 32;
    g_autoptr (EngModel) model = open_model (&tiny, "split.gguf");
    g_autofree float *together = all_logits (model, (EngSessionOptions){ 0 });
    guint batches[] = { 1, 5, 12 };
    for (guint i = 0; i < G_N_ELEMENTS (batches); i++) {
      g_autoptr (EngSession) session = open_session (model, (EngSessionOptions){ .batch = batches[i] });
      eval (session, N_TOKENS, FALSE);
      g_assert_cmpuint (eng_session_n_past (session), ==, N_TOKENS);
      g_assert_cmpfloat (distance (together + (N_TOKENS - 1) * TINY_VOCAB, eng_session_logits (session), TINY_VOCAB), <, 1e-3);
    }
    g_autoptr (EngSession) single = open_session (model, (EngSessionOptions){ 0 });
    for (guint i = 0; i < N_TOKENS; i++) {
      eval (single, 1, i % 2);
      g_assert_cmpfloat (distance (together + i * TINY_VOCAB, eng_session_logits (single), TINY_VOCAB), <, 1e-3);
    }
  }
}

/* Beyond one page of the cache, and across its border. */
static void test_truncate (void)
{
  TinyModel tiny = TINY_MODEL_DEFAULTS;
  tiny.depth = 4;
  g_autoptr (EngModel) model = open_model (&tiny, "truncate.gguf");
  for (int bits = 4; bits <= 16; bits *= 2) {
    g_autoptr (EngSession) session = open_session (model, (EngSessionOptions){ .kv_bits = bits });
    g_autoptr (EngSession) fresh = open_session (model, (EngSessionOptions){ .kv_bits = bits });
    gint32 others[60];
    for (guint i = 0; i < 60; i++)
      others[i] = i + 1;
    eval (fresh, 33, FALSE);
    eval (fresh, 20, FALSE);
    eval (session, 33, FALSE);
    g_assert_true (eng_session_eval (session, others, 60, FALSE, NULL, NULL));
    eng_session_truncate (session, 33);
    g_assert_cmpuint (eng_session_n_past (session), ==, 33);
    eval (session, 20, FALSE);
    g_assert_cmpmem (eng_session_logits (session), TINY_VOCAB * 4, eng_session_logits (fresh), TINY_VOCAB * 4);
    g_assert_cmpint (eng_session_tokens (session)[40], ==, token_at (40));
  }
}

static void cancel_in_first_layer (gpointer data, const EngMatrix *matrix, const float *x, gsize ldx, guint n)
{
  if (g_str_has_prefix (matrix->name, "blk.0.ffn_down"))
    g_cancellable_cancel (data);
}

static void test_cancel (void)
{
  TinyModel tiny = TINY_MODEL_DEFAULTS;
  g_autoptr (EngModel) model = open_model (&tiny, "cancel.gguf");
  g_autoptr (EngSession) session = open_session (model, (EngSessionOptions){ 0 });
  g_autoptr (EngSession) undisturbed = open_session (model, (EngSessionOptions){ 0 });
  g_autoptr (GCancellable) cancellable = g_cancellable_new ();
  g_autoptr (GError) error = NULL;
  gint32 others[] = { 9, 8, 7 };
  eval (session, 10, FALSE);
  eval (undisturbed, 10, FALSE);
  eng_session_set_observer (session, cancel_in_first_layer, cancellable);
  g_assert_false (eng_session_eval (session, others, 3, FALSE, cancellable, &error));
  g_assert_error (error, ENG_ERROR, ENG_ERROR_CANCELLED);
  eng_session_set_observer (session, NULL, NULL);
  g_assert_cmpuint (eng_session_n_past (session), ==, 10);
  g_assert_cmpmem (eng_session_logits (session), TINY_VOCAB * 4, eng_session_logits (undisturbed), TINY_VOCAB * 4);
  eval (session, 3, FALSE);
  eval (undisturbed, 3, FALSE);
  g_assert_cmpmem (eng_session_logits (session), TINY_VOCAB * 4, eng_session_logits (undisturbed), TINY_VOCAB * 4);
}

static void test_kv_bits (void)
{
  TinyModel tiny = TINY_MODEL_DEFAULTS;
  g_autoptr (EngModel) model = open_model (&tiny, "kv.gguf");
  g_autofree float *kv16 = all_logits (model, (EngSessionOptions){ .kv_bits = 16 });
  g_autofree float *kv8 = all_logits (model, (EngSessionOptions){ .kv_bits = 8 });
  g_autofree float *kv4 = all_logits (model, (EngSessionOptions){ .kv_bits = 4 });
  double error8 = distance (kv16, kv8, N_TOKENS * TINY_VOCAB), error4 = distance (kv16, kv4, N_TOKENS * TINY_VOCAB);
  g_assert_cmpfloat (error8, <, 0.05);
  g_assert_cmpfloat (error4, <, 0.8);
  g_assert_cmpfloat (error8, >, 0);
  g_assert_cmpfloat (error4, >, error8);
}

static void test_threads (void)
{
  TinyModel tiny = TINY_MODEL_DEFAULTS;
  tiny.depth = 5;
  tiny.hadamard = 32;
  g_autoptr (EngModel) model = open_model (&tiny, "threads.gguf");
  g_autofree float *two = all_logits (model, (EngSessionOptions){ 0 });
  EngWorkers *before = workers;
  guint counts[] = { 1, 3, 7 };
  for (guint i = 0; i < G_N_ELEMENTS (counts); i++) {
    workers = eng_workers_new (counts[i]);
    g_autofree float *others = all_logits (model, (EngSessionOptions){ 0 });
    eng_workers_free (workers);
    g_assert_cmpmem (two, 4 * N_TOKENS * TINY_VOCAB, others, 4 * N_TOKENS * TINY_VOCAB);
  }
  workers = before;
}

typedef struct {
  GString *seen;
  guint n;
} Seen;

static void note_matrix (gpointer data, const EngMatrix *matrix, const float *x, gsize ldx, guint n)
{
  Seen *seen = data;
  g_assert_cmpuint (ldx, ==, matrix->cols);
  g_assert_cmpuint (n, ==, seen->n);
  for (gsize i = 0; i < ldx * n; i++)
    g_assert_true (isfinite (x[i]));
  const char *dot = strchr (matrix->name + (g_str_has_prefix (matrix->name, "blk.") ? 4 : 0), '.');
  g_string_append_printf (seen->seen, "%s ", dot + 1);
}

static void test_observer (void)
{
  TinyModel tiny = TINY_MODEL_DEFAULTS;
  g_autoptr (EngModel) model = open_model (&tiny, "observer.gguf");
  g_autoptr (EngSession) session = open_session (model, (EngSessionOptions){ 0 });
  g_autoptr (GString) text = g_string_new (NULL);
  Seen seen = { text, 6 };
  const char *layer = "attn_q.weight attn_k.weight attn_v.weight attn_output.weight ffn_gate.weight ffn_up.weight ffn_down.weight ";
  g_autofree char *expected = g_strconcat (layer, layer, "weight ", NULL);
  eng_session_set_observer (session, note_matrix, &seen);
  eval (session, 6, FALSE);
  g_assert_cmpstr (text->str, ==, expected);
}

static void expect_refusal (EngModel *model, EngSessionOptions options, const char *word)
{
  g_autoptr (GError) error = NULL;
  g_assert_null (eng_session_new (model, workers, &options, &error));
  g_assert_nonnull (error);
  g_assert_nonnull (strstr (error->message, word));
}

static void test_refusals (void)
{
  TinyModel tiny = TINY_MODEL_DEFAULTS;
  g_autoptr (EngModel) model = open_model (&tiny, "refusals.gguf");
  expect_refusal (model, (EngSessionOptions){ .n_ctx = 0 }, "context");
  expect_refusal (model, (EngSessionOptions){ .n_ctx = 1u << 30 }, "context");
  expect_refusal (model, (EngSessionOptions){ .n_ctx = 64, .kv_bits = 5 }, "5 bits");
  expect_refusal (model, (EngSessionOptions){ .n_ctx = 64, .activation_bits = 7 }, "7 bits");

  g_autoptr (EngSession) session = open_session (model, (EngSessionOptions){ .n_ctx = 10, .batch = 4 });
  gint32 bad[] = { 1, TINY_VOCAB, -1 }, good[11] = { 0 };
  g_autoptr (GError) outside = NULL, negative = NULL, many = NULL, wide = NULL;
  g_assert_false (eng_session_eval (session, bad, 2, FALSE, NULL, &outside));
  g_assert_error (outside, ENG_ERROR, ENG_ERROR_ARGUMENT);
  g_assert_false (eng_session_eval (session, bad + 2, 1, FALSE, NULL, &negative));
  g_assert_error (negative, ENG_ERROR, ENG_ERROR_ARGUMENT);
  g_assert_false (eng_session_eval (session, good, 11, FALSE, NULL, &many));
  g_assert_error (many, ENG_ERROR, ENG_ERROR_MEMORY);
  g_assert_false (eng_session_eval (session, good, 5, TRUE, NULL, &wide));
  g_assert_error (wide, ENG_ERROR, ENG_ERROR_ARGUMENT);
  g_assert_cmpuint (eng_session_n_past (session), ==, 0);
  g_assert_true (eng_session_eval (session, good, 10, FALSE, NULL, NULL));
  g_assert_true (eng_session_eval (session, good, 0, FALSE, NULL, NULL));
}

int main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  workers = eng_workers_new (2);
  g_test_add_func ("/decoder/matches-the-f64-oracle", test_oracle);
  g_test_add_func ("/decoder/untied-head-is-used", test_untied);
  g_test_add_func ("/decoder/packed-equals-its-dequantized-weights", test_packed);
  g_test_add_func ("/session/batches-split-anyhow", test_split);
  g_test_add_func ("/session/truncated-equals-fresh", test_truncate);
  g_test_add_func ("/session/cancel-leaves-it-as-before", test_cancel);
  g_test_add_func ("/session/smaller-kv-stays-close", test_kv_bits);
  g_test_add_func ("/session/threads-do-not-show", test_threads);
  g_test_add_func ("/session/observer-sees-every-product", test_observer);
  g_test_add_func ("/session/refuses-what-it-cannot-do", test_refusals);
  int result = g_test_run ();
  eng_workers_free (workers);
  tiny_model_clean ();
  return result;
}
