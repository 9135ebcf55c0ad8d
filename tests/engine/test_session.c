/* test_session.c: what a session does beyond going on: put aside and taken up again, moved up when old turns go, guessed ahead. */
#include "engine/draft.h"
#include "engine/error.h"
#include "engine/pool.h"
#include "engine/sampler.h"
#include "tests/fixtures/tiny_model.h"

#include <glib/gstdio.h>
#include <math.h>
#include <string.h>

enum { N_VOCAB = 128 };

static EngWorkers *workers;

static EngModel *open_model (const char *name)
{
  g_autofree char *file = g_strconcat (name, ".gguf", NULL), *path = g_test_build_filename (G_TEST_DIST, "fixtures", "decoders", file, NULL);
  g_autoptr (GError) error = NULL;
  EngModel *model = eng_model_open (path, &error);
  g_assert_no_error (error);
  return model;
}

static EngModel *tiny_model (void)
{
  TinyModel tiny = TINY_MODEL_DEFAULTS;
  g_autofree char *path = tiny_model_path ("session.gguf");
  tiny_model_write (&tiny, path);
  return eng_model_open (path, NULL);
}

static EngSession *open_session (EngModel *model, EngSessionOptions options)
{
  g_autoptr (GError) error = NULL;
  options.activation_bits = 32;
  EngSession *session = eng_session_new (model, workers, &options, &error);
  g_assert_no_error (error);
  return session;
}

static const gint32 *text (void)
{
  static gint32 tokens[512];
  for (guint i = 0; i < 512; i++)
    tokens[i] = (gint32)((i * i + 37 * i + 5) % 120);
  return tokens;
}

static void eval (EngSession *session, const gint32 *tokens, guint n)
{
  g_autoptr (GError) error = NULL;
  g_assert_true (eng_session_eval (session, tokens, n, FALSE, NULL, &error));
  g_assert_no_error (error);
}

static double furthest (const float *a, const float *b, guint n)
{
  double worst = 0;
  for (guint i = 0; i < n; i++)
    worst = MAX (worst, fabs ((double)a[i] - b[i]));
  return worst;
}

/* ---- put aside ----------------------------------------------------------------------------------------------------------- */

/* Restored, it goes on as if it had never been away: to the last bit. */
static void check_restored (EngModel *model, EngSessionOptions options, const char *path)
{
  guint n_vocab = eng_model_traits (model)->n_vocab;
  g_autoptr (EngSession) session = open_session (model, options), other = open_session (model, options);
  g_autoptr (GError) error = NULL;
  eval (session, text (), 150);
  g_assert_true (eng_session_save (session, "A note.\n[1, \"ü\"]", path, &error));
  g_assert_no_error (error);
  eval (other, text () + 200, 70);
  g_autofree char *note = NULL;
  g_assert_true (eng_session_restore (other, &note, path, &error));
  g_assert_no_error (error);
  g_assert_cmpstr (note, ==, "A note.\n[1, \"ü\"]");
  g_assert_cmpuint (eng_session_n_past (other), ==, 150);
  g_assert_cmpmem (eng_session_tokens (other), 150 * 4, text (), 150 * 4);
  for (guint i = 150; i < 170; i++) {
    eval (session, text () + i, 1);
    eval (other, text () + i, 1);
    g_assert_cmpmem (eng_session_logits (session), n_vocab * 4, eng_session_logits (other), n_vocab * 4);
  }
}

static void test_restore (void)
{
  g_autofree char *path = tiny_model_path ("saved.session");
  g_autoptr (EngModel) tiny = tiny_model ();
  const char *const names[] = { "gemma3", "mistral", "deepseek3" };
  for (int bits = 4; bits <= 16; bits *= 2)
    check_restored (tiny, (EngSessionOptions){ .n_ctx = 256, .kv_bits = bits }, path);
  for (guint i = 0; i < G_N_ELEMENTS (names); i++) {
    g_autoptr (EngModel) model = open_model (names[i]);
    check_restored (model, (EngSessionOptions){ .n_ctx = 512, .batch = 16 }, path);
  }
}

static void expect_refusal (EngSession *session, const char *path, int code, const char *word)
{
  g_autoptr (GError) error = NULL;
  g_assert_false (eng_session_restore (session, NULL, path, &error));
  g_assert_error (error, ENG_ERROR, code);
  g_assert_nonnull (strstr (error->message, word));
}

static void test_refusals (void)
{
  g_autofree char *path = tiny_model_path ("refused.session"), *model_path = tiny_model_path ("session.gguf"), *nowhere = tiny_model_path ("none/x.session");
  g_autoptr (EngModel) tiny = tiny_model (), llama = open_model ("llama"), qwen = open_model ("qwen2");
  g_autoptr (EngSession) session = open_session (llama, (EngSessionOptions){ .n_ctx = 256 }), another = open_session (qwen, (EngSessionOptions){ .n_ctx = 256 });
  g_autoptr (EngSession) shorter = open_session (llama, (EngSessionOptions){ .n_ctx = 64 });
  g_autoptr (EngSession) deep = open_session (tiny, (EngSessionOptions){ .n_ctx = 256 }), shallow = open_session (tiny, (EngSessionOptions){ .n_ctx = 256, .kv_bits = 8 });
  g_autoptr (GError) empty = NULL, missing = NULL;
  g_assert_false (eng_session_save (session, NULL, path, &empty));
  g_assert_error (empty, ENG_ERROR, ENG_ERROR_ARGUMENT);
  eval (session, text (), 100);
  g_assert_false (eng_session_save (session, NULL, nowhere, &missing));
  g_assert_true (eng_session_save (session, NULL, path, NULL));
  eval (another, text (), 5);
  expect_refusal (another, path, ENG_ERROR_ARGUMENT, "another model");
  g_assert_cmpuint (eng_session_n_past (another), ==, 5);
  expect_refusal (shorter, path, ENG_ERROR_MEMORY, "longer");
  expect_refusal (session, model_path, ENG_ERROR_FORMAT, "no saved session");
  expect_refusal (session, nowhere, ENG_ERROR_IO, "none");
  eval (deep, text (), 40);
  g_assert_true (eng_session_save (deep, NULL, path, NULL));
  expect_refusal (shallow, path, ENG_ERROR_ARGUMENT, "another depth");
  g_autoptr (GError) as_model = NULL;
  g_assert_null (eng_model_open (path, &as_model));
  g_assert_error (as_model, ENG_ERROR, ENG_ERROR_UNSUPPORTED);
}

/* A flipped bit anywhere, or an end cut off, is refused, or it lies where nothing is read. */
static void test_damage (void)
{
  g_autofree char *path = tiny_model_path ("whole.session"), *bad = tiny_model_path ("bad.session");
  g_autoptr (EngModel) model = open_model ("internlm2");
  g_autoptr (EngSession) session = open_session (model, (EngSessionOptions){ .n_ctx = 64 }), other = open_session (model, (EngSessionOptions){ .n_ctx = 64 });
  g_autofree char *bytes = NULL;
  gsize size;
  eval (session, text (), 40);
  g_assert_true (eng_session_save (session, "A note of some length.", path, NULL));
  g_assert_true (g_file_get_contents (path, &bytes, &size, NULL));
  eval (session, text () + 40, 1);
  guint refused = 0, taken = 0;
  for (gsize at = 0; at < size; at += at < 1000 ? 1 : 61) {
    bytes[at] ^= (char)(1 << at % 8);
    g_assert_true (g_file_set_contents (bad, bytes, (gssize)size, NULL));
    bytes[at] ^= (char)(1 << at % 8);
    g_autoptr (GError) error = NULL;
    if (!eng_session_restore (other, NULL, bad, &error)) {
      refused++;
      g_assert_nonnull (error);
      continue;
    }
    taken++;
    eval (other, text () + 40, 1);
    g_assert_cmpmem (eng_session_logits (session), N_VOCAB * 4, eng_session_logits (other), N_VOCAB * 4);
  }
  for (gsize length = 0; length < size; length += 997) {
    g_assert_true (g_file_set_contents (bad, bytes, (gssize)length, NULL));
    g_assert_false (eng_session_restore (other, NULL, bad, NULL));
  }
  g_test_message ("%u refused, %u of padding", refused, taken);
  g_assert_cmpuint (refused, >, 20 * taken);
}

/* ---- moved up ------------------------------------------------------------------------------------------------------------ */

/* With one layer keys and values depend on nothing but token and position: moved, they are those of a session that never held more. */
static void test_shift (gconstpointer name)
{
  g_autoptr (EngModel) model = open_model (name);
  g_autoptr (EngSession) session = open_session (model, (EngSessionOptions){ .n_ctx = 256 }), fresh = open_session (model, (EngSessionOptions){ .n_ctx = 256 });
  gint32 kept[256];
  memcpy (kept, text (), 20 * 4);
  memcpy (kept + 20, text () + 75, 85 * 4);
  eval (session, text (), 160);
  g_assert_cmpuint (eng_session_prepare_shifted (session, kept, 104), ==, 104);
  g_assert_cmpuint (eng_session_n_past (session), ==, 104);
  eval (session, kept + 104, 1);
  eval (fresh, kept, 105);
  double worst = furthest (eng_session_logits (session), eng_session_logits (fresh), N_VOCAB);
  g_test_message ("%s: moved keys and fresh ones differ by %.2g in the logits", (const char *)name, worst);
  g_assert_cmpfloat (worst, <, 4e-3);
}

/* Pages that others hold are copied first, and codes are not turned: what comes after the stretch is computed. */
static void test_shift_limits (void)
{
  g_autoptr (EngModel) model = open_model ("internlm2"), tiny = tiny_model ();
  gint32 kept[256];
  memcpy (kept, text (), 20 * 4);
  memcpy (kept + 20, text () + 75, 85 * 4);
  EngSessionOptions options = { .n_ctx = 512, .n_sessions = 2, .activation_bits = 32 };
  g_autoptr (EngPool) pool = eng_pool_new (model, workers, &options, NULL);
  g_autoptr (EngSession) a = eng_pool_open (pool, 0, NULL), b = eng_pool_open (pool, 0, NULL), alone = open_session (model, (EngSessionOptions){ .n_ctx = 256 });
  eval (a, text (), 160);
  g_assert_cmpuint (eng_session_prepare (b, text (), 160), ==, 160);
  g_assert_cmpuint (eng_session_prepare_shifted (b, kept, 104), ==, 104);
  eval (a, text () + 160, 1);
  eval (alone, text (), 161);
  g_autofree float *expected = g_memdup2 (eng_session_logits (alone), N_VOCAB * 4);
  g_assert_cmpfloat (furthest (eng_session_logits (a), expected, N_VOCAB), <, 1e-3);

  g_autoptr (EngSession) codes = open_session (tiny, (EngSessionOptions){ .n_ctx = 256, .kv_bits = 8 }), fresh = open_session (tiny, (EngSessionOptions){ .n_ctx = 256, .kv_bits = 8 });
  eval (codes, text (), 160);
  g_assert_cmpuint (eng_session_prepare_shifted (codes, kept, 104), ==, 20);
  eval (codes, kept + 20, 85);
  eval (fresh, kept, 105);
  g_assert_cmpfloat (furthest (eng_session_logits (codes), eng_session_logits (fresh), TINY_VOCAB), <, 1e-3);
}

/* ---- guessed ahead ------------------------------------------------------------------------------------------------------- */

static gint32 *read_answer (const char *name, guint *n_prompt, guint *n_steps)
{
  g_autofree char *file = g_strconcat (name, ".bin", NULL), *path = g_test_build_filename (G_TEST_DIST, "fixtures", "decoders", file, NULL);
  g_autofree char *bytes = NULL;
  g_assert_true (g_file_get_contents (path, &bytes, NULL, NULL));
  memcpy (n_prompt, bytes, 4);
  memcpy (n_steps, bytes + 4, 4);
  return g_memdup2 (bytes + 12, (*n_prompt + *n_steps) * 4);
}

static gint32 greedy (EngSession *session)
{
  const float *logits = eng_session_logits (session);
  gint32 best = 0;
  for (gint32 i = 1; i < N_VOCAB; i++)
    best = logits[i] > logits[best] ? i : best;
  return best;
}

static EngDraft *draft_of (EngModel *target, const char *kind)
{
  g_autoptr (GError) error = NULL;
  EngSessionOptions options = { .n_ctx = 96, .activation_bits = 32 };
  g_autoptr (EngModel) model = g_str_equal (kind, "lookup") ? NULL : open_model (kind);
  EngDraft *draft = model == NULL ? eng_draft_new_lookup (0) : eng_draft_new_model (model, target, workers, &options, 0, 1e-6f, &error);
  g_assert_no_error (error);
  eng_draft_set_always (draft);
  return draft;
}

/* 64 tokens as transformers chooses them, whoever guesses. */
static void test_greedy (void)
{
  const char *const cases[][2] = { { "llama", "lookup" }, { "llama", "llama" }, { "llama", "mistral" }, { "gemma3", "lookup" },
                                   { "gemma3", "gemma3" }, { "deepseek3", "lookup" }, { "gpt_oss", "gpt_oss" } };
  for (guint i = 0; i < G_N_ELEMENTS (cases); i++) {
    guint n_prompt, n_steps;
    g_autofree gint32 *tokens = read_answer (cases[i][0], &n_prompt, &n_steps);
    g_autoptr (EngModel) model = open_model (cases[i][0]);
    g_autoptr (EngSession) session = open_session (model, (EngSessionOptions){ .n_ctx = 96, .n_drafted = 8 });
    EngDraft *draft = draft_of (model, cases[i][1]);
    guint64 guessed, accepted;
    eng_session_set_draft (session, draft);
    eval (session, tokens, n_prompt);
    for (guint j = 0; j < n_steps; j++) {
      gint32 token = greedy (session);
      g_assert_cmpint (token, ==, tokens[n_prompt + j]);
      g_assert_cmpuint (eng_session_n_past (session), ==, n_prompt + j);
      eval (session, &token, 1);
    }
    eng_draft_counts (draft, &guessed, &accepted);
    g_test_message ("%s by %s: %u of %u guesses came true", cases[i][0], cases[i][1], (guint)accepted, (guint)guessed);
    g_assert_cmpuint (accepted, <=, guessed);
    if (g_str_equal (cases[i][0], cases[i][1]))
      g_assert_cmpuint (accepted, >, 40); /* of 64 tokens, each pass adding one of its own */
  }
}

/* Tokens after a prompt, drawn at temperature 1 with a seed. */
static void draw (EngSession *session, const gint32 *prompt, guint n_prompt, guint64 seed, gint32 *out, guint n)
{
  EngSamplerOptions options = { .temperature = 1, .top_p = 1, .repeat_penalty = 1, .seed = seed };
  g_autoptr (EngSampler) sampler = eng_sampler_new (&options, N_VOCAB);
  guint held = eng_session_prepare (session, prompt, n_prompt - 1);
  eval (session, prompt + held, n_prompt - held);
  for (guint i = 0; i < n; i++) {
    out[i] = eng_sampler_sample (sampler, eng_session_logits (session), eng_session_tokens (session), eng_session_n_past (session));
    eval (session, out + i, 1);
  }
}

/* The same seeds draw the same tokens with guesses and without. */
static void test_same_draws (void)
{
  g_autoptr (EngModel) model = open_model ("llama");
  g_autoptr (EngSession) plain = open_session (model, (EngSessionOptions){ .n_ctx = 96 }), guessing = open_session (model, (EngSessionOptions){ .n_ctx = 96 });
  gint32 prompt[30], a[40], b[40];
  for (guint i = 0; i < 30; i++)
    prompt[i] = text ()[i % 6];
  eng_session_set_draft (guessing, draft_of (model, "llama"));
  for (guint64 seed = 1; seed <= 20; seed++) {
    draw (plain, prompt, 30, seed, a, 40);
    draw (guessing, prompt, 30, seed, b, 40);
    g_assert_cmpmem (a, sizeof a, b, sizeof b);
  }
}

/* Pearson's test: what is drawn after a guess that came true has the model's own distribution. */
static void test_distribution (void)
{
  enum { DRAWS = 8000 };
  g_autoptr (EngModel) model = open_model ("llama");
  g_autoptr (EngSession) session = open_session (model, (EngSessionOptions){ .n_ctx = 96 }), exact = open_session (model, (EngSessionOptions){ .n_ctx = 96 });
  gint32 prompt[12];
  memcpy (prompt, text (), sizeof prompt);
  EngSessionOptions draft_options = { .n_ctx = 96, .activation_bits = 32 };
  EngDraft *draft = eng_draft_new_model (model, model, workers, &draft_options, 1, 1e-6f, NULL);
  eng_draft_set_always (draft);
  eng_session_set_draft (session, draft);
  eval (exact, prompt, 12);
  gint32 first = greedy (exact);
  eval (exact, &first, 1);
  gint32 second = greedy (exact);
  eval (exact, &second, 1);
  guint seen[N_VOCAB] = { 0 }, n = 0;
  EngSamplerOptions options = { .temperature = 1, .top_p = 1, .repeat_penalty = 1, .seed = 7 };
  g_autoptr (EngSampler) sampler = eng_sampler_new (&options, N_VOCAB);
  eval (session, prompt, 12);
  g_autofree float *logits = g_new (float, N_VOCAB);
  for (guint i = 0; i < DRAWS; i++) {
    eng_session_truncate (session, 12);
    eval (session, &first, 1);
    memcpy (logits, eng_session_logits (session), N_VOCAB * 4);
    gint32 token = eng_sampler_sample (sampler, logits, prompt, 12);
    eval (session, &token, 1);
    if (token != second)
      continue;
    memcpy (logits, eng_session_logits (session), N_VOCAB * 4);
    seen[eng_sampler_sample (sampler, logits, prompt, 12)]++;
    n++;
  }
  const float *wanted = eng_session_logits (exact);
  double sum = 0, chi2 = 0, rest = n;
  guint bins = 0, rest_seen = n;
  for (guint i = 0; i < N_VOCAB; i++)
    sum += exp (wanted[i]);
  for (guint i = 0; i < N_VOCAB; i++) {
    double expected = n * exp (wanted[i]) / sum;
    if (expected < 5)
      continue;
    chi2 += (seen[i] - expected) * (seen[i] - expected) / expected;
    rest -= expected;
    rest_seen -= seen[i];
    bins++;
  }
  chi2 += rest > 0 ? (rest_seen - rest) * (rest_seen - rest) / rest : 0;
  g_test_message ("%u draws after a guess, %u kinds: chi squared %.1f", n, bins + 1, chi2);
  guint64 guessed, accepted;
  eng_draft_counts (draft, &guessed, &accepted);
  g_assert_cmpuint (accepted, >=, n);
  g_assert_cmpuint (n, >, 300);
  g_assert_cmpuint (bins, >, 5);
  g_assert_cmpfloat (chi2, <, bins + 4 * sqrt (2.0 * bins)); /* four deviations */
}

/* Guesses computed for the last 200 of 600 tokens of a text, each pass over n tokens taking `first` for the first and `more` for each of the others. */
static guint64 guesses_of (const gint32 *words, gint64 first, gint64 more)
{
  g_autoptr (EngDraft) draft = eng_draft_new_lookup (8);
  guint64 before = 0, guessed, accepted;
  for (guint n = 8; n < 600;) {
    gint32 guess[8];
    guint found = eng_draft_guess (draft, words, n, guess, 8), came = 0;
    g_assert_cmpuint (found, <=, 8);
    while (came < found && words[n + came] == guess[came])
      came++;
    eng_draft_took (draft, 1 + found, first + more * found);
    n += 1 + came;
    eng_draft_counts (draft, &guessed, &accepted);
    before = n < 400 ? guessed : before;
  }
  return guessed - before;
}

/* A text that repeats, one that does not, and one that half does, on a machine where passes over several tokens are cheap, and one where they are not. */
static void test_pays (void)
{
  gint32 repeats[640], random[640], half[640];
  g_autoptr (GRand) rand = g_rand_new_with_seed (5);
  for (guint i = 0; i < 640; i++) {
    repeats[i] = (gint32)(i % 37);
    random[i] = g_rand_int_range (rand, 0, 6); /* pairs come again, what follows does not */
    half[i] = i % 37 < 18 ? (gint32)(i % 37) : g_rand_int_range (rand, 18, 24);
  }
  g_test_message ("guesses computed for 200 tokens: %u, %u; %u, %u; %u, %u", (guint)guesses_of (repeats, 1000, 100), (guint)guesses_of (repeats, 1000, 1100),
                  (guint)guesses_of (random, 1000, 100), (guint)guesses_of (random, 1000, 700), (guint)guesses_of (half, 1000, 100),
                  (guint)guesses_of (half, 1000, 1100));
  g_assert_cmpuint (guesses_of (repeats, 1000, 100), >=, 150);
  g_assert_cmpuint (guesses_of (half, 1000, 100), >=, 50);
  g_assert_cmpuint (guesses_of (repeats, 1000, 1100), <=, 10);
  g_assert_cmpuint (guesses_of (random, 1000, 700), <=, 20);
  g_assert_cmpuint (guesses_of (half, 1000, 1100), <=, 10);
}

static void test_vocabularies (void)
{
  g_autoptr (EngModel) model = open_model ("llama"), tiny = tiny_model ();
  g_autoptr (GError) error = NULL;
  EngSessionOptions options = { .n_ctx = 96 };
  g_assert_null (eng_draft_new_model (tiny, model, workers, &options, 0, 0, &error));
  g_assert_error (error, ENG_ERROR, ENG_ERROR_ARGUMENT);
  g_assert_nonnull (strstr (error->message, "vocabulary"));
}

int main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  workers = eng_workers_new (2);
  g_test_add_func ("/session/saved-goes-on-where-it-was", test_restore);
  g_test_add_func ("/session/what-is-not-its-own-is-refused", test_refusals);
  g_test_add_func ("/session/damage-is-noticed", test_damage);
  g_test_add_data_func ("/session/moves-up-pairs", "internlm2", test_shift);
  g_test_add_data_func ("/session/moves-up-halves", "exaone", test_shift);
  g_test_add_func ("/session/moves-what-it-may", test_shift_limits);
  g_test_add_func ("/draft/greedy-tokens-stay", test_greedy);
  g_test_add_func ("/draft/seeds-draw-the-same", test_same_draws);
  g_test_add_func ("/draft/distribution-stays", test_distribution);
  g_test_add_func ("/draft/guesses-as-much-as-pays", test_pays);
  g_test_add_func ("/draft/vocabulary-must-be-the-same", test_vocabularies);
  int result = g_test_run ();
  eng_workers_free (workers);
  tiny_model_clean ();
  return result;
}
