/* test_model.c: files that are wrong in one place each are refused with a sentence that names it. */
#include "engine/error.h"
#include "engine/model.h"
#include "tests/fixtures/tiny_model.h"

#include <string.h>

/* The error must name the file and every word of `words` (space separated). */
static void expect_error (const TinyModel *tiny, EngError code, const char *words)
{
  g_autofree char *path = tiny_model_path ("hostile.gguf");
  g_autoptr (GError) error = NULL;
  tiny_model_write (tiny, path);
  g_autoptr (EngModel) model = eng_model_open (path, &error);
  g_assert_null (model);
  g_assert_error (error, ENG_ERROR, (gint)code);
  g_assert_nonnull (strstr (error->message, "hostile.gguf"));
  g_assert_null (strchr (error->message, '\n'));
  g_auto (GStrv) list = g_strsplit (words, " ", -1);
  for (char **word = list; *word != NULL; word++)
    if (strstr (error->message, *word) == NULL)
      g_error ("\"%s\" does not name %s", error->message, *word);
}

static const char *const tensors[]
    = { "token_embd.weight",     "output_norm.weight",  "blk.0.attn_norm.weight",   "blk.1.attn_q.weight",
        "blk.0.attn_k.weight",   "blk.1.attn_v.weight", "blk.1.attn_output.weight", "blk.0.ffn_norm.weight",
        "blk.0.ffn_gate.weight", "blk.1.ffn_up.weight", "blk.1.ffn_down.weight" };

static void test_missing_tensor (void)
{
  for (guint i = 0; i < G_N_ELEMENTS (tensors); i++) {
    TinyModel tiny = TINY_MODEL_DEFAULTS;
    tiny.leave_out = tensors[i];
    expect_error (&tiny, ENG_ERROR_FORMAT, tensors[i]);
  }
}

static void test_wrong_shape (void)
{
  for (guint i = 0; i < G_N_ELEMENTS (tensors); i++) {
    TinyModel tiny = TINY_MODEL_DEFAULTS;
    tiny.reshape = tensors[i];
    expect_error (&tiny, ENG_ERROR_FORMAT, tensors[i]);
  }
}

static void test_missing_key (void)
{
  const char *keys[] = { "general.architecture", "llama.block_count", "llama.embedding_length", "llama.feed_forward_length",
                         "llama.attention.head_count" };
  for (guint i = 0; i < G_N_ELEMENTS (keys); i++) {
    TinyModel tiny = TINY_MODEL_DEFAULTS;
    tiny.leave_out = keys[i];
    expect_error (&tiny, ENG_ERROR_FORMAT, keys[i]);
  }
}

static void test_unknown (void)
{
  TinyModel mamba = TINY_MODEL_DEFAULTS, xpos = TINY_MODEL_DEFAULTS, newer = TINY_MODEL_DEFAULTS;
  mamba.architecture = "mamba";
  expect_error (&mamba, ENG_ERROR_UNSUPPORTED, "\"mamba\" llama");
  xpos.rope_scaling = "xpos";
  expect_error (&xpos, ENG_ERROR_UNSUPPORTED, "\"xpos\" rope");
  newer.version = ENG_FILE_VERSION + 1;
  expect_error (&newer, ENG_ERROR_UNSUPPORTED, "newer Valise");
}

static void test_inconsistent (void)
{
  TinyModel heads = TINY_MODEL_DEFAULTS, none = TINY_MODEL_DEFAULTS, layers = TINY_MODEL_DEFAULTS, wide = TINY_MODEL_DEFAULTS;
  heads.n_kv_heads = 3;
  expect_error (&heads, ENG_ERROR_FORMAT, "4 3 heads");
  none.n_kv_heads = 0;
  expect_error (&none, ENG_ERROR_FORMAT, "damaged");
  wide.head_dim = 608;
  expect_error (&wide, ENG_ERROR_FORMAT, "llama.attention.key_length 608");
  layers.leave_out = "blk.1.attn_q.weight";
  layers.n_layers = 2;
  expect_error (&layers, ENG_ERROR_FORMAT, "blk.1.attn_q.weight missing");
}

static void test_packed (void)
{
  TinyModel shape = TINY_MODEL_DEFAULTS, input = TINY_MODEL_DEFAULTS;
  shape.depth = input.depth = 4;
  shape.reshape = "blk.0.attn_q.weight.xbit";
  expect_error (&shape, ENG_ERROR_FORMAT, "blk.0.attn_q.weight.xbit");
  input.hadamard = 32;
  input.leave_out = "xinput.0";
  expect_error (&input, ENG_ERROR_FORMAT, "xinput.0 missing");
}

/* Every byte of a packed model's first matrix header and directory flipped in turn: refused, or opened; never a crash. */
static void test_flipped (void)
{
  TinyModel tiny = TINY_MODEL_DEFAULTS;
  tiny.depth = 3;
  tiny.hadamard = 32;
  g_autofree char *path = tiny_model_path ("flipped.gguf"), *bytes = NULL;
  gsize size;
  tiny_model_write (&tiny, path);
  {
    g_autoptr (EngModel) model = eng_model_open (path, NULL);
    g_assert_nonnull (model);
  }
  g_assert_true (g_file_get_contents (path, &bytes, &size, NULL));
  guint opened = 0, refused = 0;
  for (gsize at = 0; at < size; at += at < 512 ? 1 : 997) {
    bytes[at] ^= 0x55;
    g_assert_true (g_file_set_contents_full (path, bytes, size, G_FILE_SET_CONTENTS_NONE, 0600, NULL));
    bytes[at] ^= 0x55;
    g_autoptr (GError) error = NULL;
    g_autoptr (EngModel) model = eng_model_open (path, &error);
    g_assert_true ((model == NULL) == (error != NULL));
    *(model != NULL ? &opened : &refused) += 1;
  }
  g_assert_cmpuint (refused, >, 100);
  g_test_message ("%u opened, %u refused", opened, refused);
}

static void test_traits (void)
{
  TinyModel tiny = TINY_MODEL_DEFAULTS;
  tiny.rope_scaling = "linear";
  g_autofree char *path = tiny_model_path ("traits.gguf");
  tiny_model_write (&tiny, path);
  g_autoptr (EngModel) model = eng_model_open (path, NULL);
  const EngTraits *t = eng_model_traits (model);
  g_assert_cmpstr (t->architecture, ==, "llama");
  g_assert_cmpuint (t->n_layers, ==, 2);
  g_assert_cmpuint (t->n_vocab, ==, TINY_VOCAB);
  g_assert_cmpuint (t->head_dim, ==, 32);
  g_assert_true (t->tied_head);
  g_assert_false (t->rope_halves);
  g_assert_cmpuint (t->n_parameters, ==, 272 * 64 + 2 * (2 * 64 * 128 + 2 * 64 * 64 + 3 * 64 * 96 + 2 * 64) + 64);
  g_assert_cmpuint (t->file_bytes, ==, eng_gguf_file_bytes (eng_model_gguf (model)));
}

int main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/model/traits-are-read", test_traits);
  g_test_add_func ("/model/missing-tensor-is-named", test_missing_tensor);
  g_test_add_func ("/model/wrong-shape-is-named", test_wrong_shape);
  g_test_add_func ("/model/missing-key-is-named", test_missing_key);
  g_test_add_func ("/model/unknown-things-are-named", test_unknown);
  g_test_add_func ("/model/inconsistent-counts-are-refused", test_inconsistent);
  g_test_add_func ("/model/packed-tensors-are-checked", test_packed);
  g_test_add_func ("/model/flipped-bytes-never-crash", test_flipped);
  int result = g_test_run ();
  tiny_model_clean ();
  return result;
}
