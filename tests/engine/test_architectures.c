/* test_architectures.c: each kind of decoder against the transformers package (tests/fixtures/make_decoders.py). */
#include "engine/error.h"
#include "engine/families.h"
#include "engine/memory_plan.h"
#include "engine/session.h"

#include <glib/gstdio.h>
#include <math.h>
#include <string.h>

typedef struct {
  guint n_prompt, n_steps, n_vocab;
  const gint32 *tokens;
  const float *logits;
  char *bytes;
} Answer;

/* Within the first context of the case of short factors. */
enum { N_CTX = 96, EVERY = 4 /* steps whose logits are in the fixture */ };

static EngWorkers *workers;

static char *fixture (const char *name, const char *suffix)
{
  g_autofree char *file = g_strconcat (name, suffix, NULL);
  return g_test_build_filename (G_TEST_DIST, "fixtures", "decoders", file, NULL);
}

static void read_answer (Answer *answer, const char *name)
{
  g_autofree char *path = fixture (name, ".bin");
  g_autoptr (GError) error = NULL;
  gsize size;
  g_file_get_contents (path, &answer->bytes, &size, &error);
  g_assert_no_error (error);
  memcpy (&answer->n_prompt, answer->bytes, 12);
  answer->tokens = (const gint32 *)(gpointer)(answer->bytes + 12);
  answer->logits = (const float *)(answer->tokens + answer->n_prompt + answer->n_steps);
  g_assert_cmpuint (size, ==, 12 + 4 * (answer->n_prompt + answer->n_steps + answer->n_steps / EVERY * answer->n_vocab));
}

static guint largest (const float *logits, guint n)
{
  guint best = 0;
  for (guint i = 1; i < n; i++)
    best = logits[i] > logits[best] ? i : best;
  return best;
}

static double worst_error (const float *a, const float *b, guint n)
{
  double worst = 0;
  for (guint i = 0; i < n; i++)
    worst = MAX (worst, fabs ((double)a[i] - b[i]));
  return worst;
}

static EngSession *open_session (const char *name, EngSessionOptions options)
{
  g_autofree char *path = fixture (name, ".gguf");
  g_autoptr (GError) error = NULL;
  g_autoptr (EngModel) model = eng_model_open (path, &error);
  g_assert_no_error (error);
  options.n_ctx = N_CTX;
  EngSession *session = eng_session_new (model, workers, &options, &error);
  g_assert_no_error (error);
  return session;
}

/* The prompt in batches, then each of our own choices: 64 greedy tokens identical and every logit within 0.001. */
static void check_greedy (const char *name, guint batch)
{
  Answer answer;
  read_answer (&answer, name);
  g_autoptr (EngSession) session = open_session (name, (EngSessionOptions){ .activation_bits = 32, .batch = batch });
  g_autoptr (GError) error = NULL;
  double worst = 0;
  g_assert_true (eng_session_eval (session, answer.tokens, answer.n_prompt, FALSE, NULL, &error));
  for (guint i = 0; i < answer.n_steps; i++) {
    const float *logits = eng_session_logits (session);
    gint32 token = (gint32)largest (logits, answer.n_vocab);
    if (i % EVERY == 0)
      worst = MAX (worst, worst_error (logits, answer.logits + (gsize)(i / EVERY) * answer.n_vocab, answer.n_vocab));
    if (token != answer.tokens[answer.n_prompt + i] || worst > 1e-3) {
      g_test_fail_printf ("%s, batches of %u: step %u chooses %d instead of %d, logits differ by up to %g", name, batch, i, token,
                          answer.tokens[answer.n_prompt + i], worst);
      break;
    }
    g_assert_true (eng_session_eval (session, &token, 1, FALSE, NULL, &error));
  }
  g_test_message ("%s, batches of %u: logits within %.2g", name, batch, worst);
  g_free (answer.bytes);
}

/* All logits of one batch, which is how a text is measured. */
static void check_all_at_once (const char *name)
{
  Answer answer;
  read_answer (&answer, name);
  g_autoptr (EngSession) session = open_session (name, (EngSessionOptions){ .activation_bits = 32 });
  g_assert_true (eng_session_eval (session, answer.tokens, answer.n_prompt + answer.n_steps, TRUE, NULL, NULL));
  double worst = 0;
  for (guint i = 0; i < answer.n_steps; i += EVERY)
    worst = MAX (worst, worst_error (eng_session_logits_at (session, answer.n_prompt - 1 + i),
                                     answer.logits + (gsize)(i / EVERY) * answer.n_vocab, answer.n_vocab));
  if (worst > 1e-3)
    g_test_fail_printf ("%s, all at once: logits differ by up to %g", name, worst);
  g_free (answer.bytes);
}

/* Layout and cache are what the plan says, from the header alone. */
static void check_plan (const char *name)
{
  g_autofree char *path = fixture (name, ".gguf");
  g_autoptr (EngGguf) gguf = eng_gguf_open (path, NULL);
  EngTraits traits;
  EngMemoryPlan plan;
  EngSessionOptions options = { .n_ctx = 256 };
  g_assert_true (eng_traits_read (&traits, gguf, NULL));
  eng_memory_plan (&plan, &traits, 0, &options, 2, 0);
  guint width = traits.latent > 0 ? traits.head_dim : traits.head_dim + traits.value_dim;
  guint64 kv = (guint64)traits.n_layers * traits.n_kv_heads * width * 256 * 2;
  g_assert_cmpuint (plan.kv_bytes, >=, kv);
  g_assert_cmpuint (plan.kv_bytes, <=, kv + kv / 4 + 8192);
}

static void test_family (gconstpointer data)
{
  check_greedy (data, 0);
  check_greedy (data, 7);
  check_all_at_once (data);
  check_plan (data);
}

/* Experts, or the heads' projections of a latent vector, stored as blocks and packed into one matrix each: what is left is the rounding of
 * Q8_0. */
static void check_packed (const char *file, const char *name)
{
  g_autofree char *source_path = g_test_build_filename (G_TEST_DIST, "fixtures", file, NULL);
  g_autofree char *folder = g_dir_make_tmp ("valise-experts-XXXXXX", NULL), *path = g_build_filename (folder, "packed.gguf", NULL);
  g_autoptr (GError) error = NULL;
  g_autoptr (EngGguf) source = eng_gguf_open (source_path, &error);
  g_assert_no_error (error);
  g_assert_false (eng_gguf_is_computable (source));
  eng_repack (source, path, NULL, NULL, NULL, &error);
  g_assert_no_error (error);
  g_autoptr (EngModel) model = eng_model_open (path, &error);
  g_assert_no_error (error);
  g_assert_nonnull (eng_model_layer (model, 1)->up_experts.xbit);
  g_assert_true (eng_model_traits (model)->latent == 0 || eng_model_layer (model, 1)->kv_b.xbit != NULL);
  Answer answer;
  read_answer (&answer, name);
  EngSessionOptions options = { .n_ctx = N_CTX, .activation_bits = 32 };
  for (int bits = 8; bits <= 32; bits += 24)
    for (guint batch = 1; batch <= 24; batch += 23) {
      options.activation_bits = bits;
      options.batch = batch;
      g_autoptr (EngSession) session = eng_session_new (model, workers, &options, &error);
      g_assert_true (eng_session_eval (session, answer.tokens, answer.n_prompt, FALSE, NULL, &error));
      g_assert_cmpfloat (worst_error (eng_session_logits (session), answer.logits, answer.n_vocab), <, 0.15);
    }
  g_free (answer.bytes);
  g_assert_cmpint (g_unlink (path), ==, 0);
  g_assert_cmpint (g_rmdir (folder), ==, 0);
}

static void test_packed (void)
{
  check_packed ("experts_q8_0.gguf", "mixtral");
  check_packed ("latent_q8_0.gguf", "deepseek2");
}

/* What sees pictures says so; the part that does the seeing is named for what it is. */
static void test_pictures (void)
{
  const char *const names[] = { "qwen2vl", "qwen3vl", "qwen2" };
  for (guint i = 0; i < G_N_ELEMENTS (names); i++) {
    g_autofree char *path = fixture (names[i], ".gguf");
    g_autoptr (EngGguf) gguf = eng_gguf_open (path, NULL);
    EngTraits traits;
    g_assert_true (eng_traits_read (&traits, gguf, NULL));
    g_assert_cmpint (traits.pictures, ==, i < 2);
  }
  g_autofree char *why = eng_family_refusal ("clip");
  g_assert_nonnull (strstr (why, "mmproj"));
}

/* No row of the table is only believed: each architecture has a model of the transformers package here. */
static void test_all_held (void)
{
  g_autofree char *folder = g_test_build_filename (G_TEST_DIST, "fixtures", "decoders", NULL);
  g_autoptr (GDir) dir = g_dir_open (folder, 0, NULL);
  g_autoptr (GHashTable) held = g_hash_table_new_full (g_str_hash, g_str_equal, g_free, NULL);
  for (const char *file; (file = g_dir_read_name (dir)) != NULL;) {
    g_autofree char *path = g_build_filename (folder, file, NULL);
    g_autoptr (EngGguf) gguf = g_str_has_suffix (file, ".gguf") ? eng_gguf_open (path, NULL) : NULL;
    if (gguf != NULL)
      g_hash_table_add (held, g_strdup (eng_gguf_get_string (gguf, "general.architecture", "")));
  }
  for (guint i = 0; eng_family_nth (i) != NULL; i++)
    if (!g_hash_table_contains (held, eng_family_nth (i)->name))
      g_test_fail_printf ("%s has no model to be held to", eng_family_nth (i)->name);
}

static void test_refusal (void)
{
  const struct {
    const char *name, *nearest, *kind;
  } cases[] = { { "qwen3next", "qwen3", "recurrent" }, { "gemma3n", "gemma3", "" }, { "mamba2", "llama", "recurrent" }, { "ernie5", "ernie4_5", "" } };
  for (guint i = 0; i < G_N_ELEMENTS (cases); i++) {
    g_autofree char *why = eng_family_refusal (cases[i].name);
    g_assert_null (eng_family_find (cases[i].name));
    g_assert_nonnull (strstr (why, cases[i].name));
    g_assert_true (g_str_has_suffix (why, cases[i].nearest));
    g_assert_nonnull (strstr (why, cases[i].kind));
  }
}

int main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  workers = eng_workers_new (2);
  g_test_add_func ("/architectures/packed-blocks-are-the-same", test_packed);
  g_test_add_func ("/architectures/pictures-are-said", test_pictures);
  g_test_add_func ("/architectures/every-one-is-held-to-a-model", test_all_held);
  g_test_add_func ("/architectures/unknown-ones-are-named-with-the-nearest", test_refusal);
  g_autofree char *folder = g_test_build_filename (G_TEST_DIST, "fixtures", "decoders", NULL);
  g_autoptr (GDir) dir = g_dir_open (folder, 0, NULL);
  g_autoptr (GPtrArray) names = g_ptr_array_new_with_free_func (g_free);
  for (const char *file; (file = g_dir_read_name (dir)) != NULL;)
    if (g_str_has_suffix (file, ".gguf")) {
      char *name = g_strndup (file, strlen (file) - strlen (".gguf"));
      g_autofree char *path = g_strconcat ("/architectures/", name, NULL);
      g_ptr_array_add (names, name);
      g_test_add_data_func (path, name, test_family);
    }
  g_assert_cmpuint (names->len, >=, 60);
  int result = g_test_run ();
  eng_workers_free (workers);
  return result;
}
