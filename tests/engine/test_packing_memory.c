/* test_packing_memory.c: a quantized file is packed, mapped and computed with for the first time, by a program of its own, without a second copy of the
 * weights in memory. */
#include "engine/memory_plan.h"
#include "kernels/cpu.h"
#include "tests/fixtures/sanitized.h"

#include <glib/gstdio.h>
#include <stdio.h>
#include <string.h>

enum { SIDE = 1024, FF = 4096, VOCAB = 128, FILE_BYTES = 40000000, PIECE = 1 << 16 };

typedef struct {
  guint type;
  int halves[2];    /* where a block's scales are, or -1 */
  double most;      /* peak over the file's bytes ... */
  guint64 beside;   /* ... and bytes of tables, buffers and the session, which a larger file's would hardly exceed */
} Case;

static const Case cases[] = { { ENG_TYPE_Q4_K, { 0, 2 }, 1.15, 0 }, { ENG_TYPE_Q6_K, { 208, -1 }, 1.15, 0 }, { ENG_TYPE_IQ3_XXS, { 0, -1 }, 1.15, 0 },
                              { ENG_TYPE_IQ2_XXS, { 0, -1 }, 1.15, 0 }, { ENG_TYPE_Q2_K, { 80, 82 }, 1.25, 3000000 }, { ENG_TYPE_TQ1_0, { 52, -1 }, 1.25, 3000000 } };

static const struct {
  const char *name;
  guint rows, cols; /* 1 row: a norm */
} parts[] = { { "attn_norm", 1, SIDE }, { "ffn_norm", 1, SIDE }, { "attn_q", SIDE, SIDE }, { "attn_k", SIDE, SIDE }, { "attn_v", SIDE, SIDE },
              { "attn_output", SIDE, SIDE }, { "ffn_gate", FF, SIDE }, { "ffn_up", FF, SIDE }, { "ffn_down", SIDE, FF } };

static const char *self;
static char *folder;

static void declare (EngGgufWriter *writer, const char *name, guint type, guint rows, guint cols)
{
  const guint64 dims[2] = { cols, rows };
  eng_gguf_writer_add_tensor (writer, name, rows == 1 ? ENG_TYPE_F32 : type, rows == 1 ? 1 : 2, dims);
}

/* Random blocks with scales of 2^-10, the same ones again and again; norms of ones. */
static void write_tensor (EngGgufWriter *writer, guint number, guint rows, guint cols, const guint8 *blocks, guint block, guint block_bytes)
{
  g_autoptr (GError) error = NULL;
  g_autofree float *ones = g_new (float, cols);
  for (guint i = 0; i < cols; i++)
    ones[i] = 1;
  guint64 bytes = rows == 1 ? cols * sizeof (float) : (guint64) rows * cols / block * block_bytes, piece = (guint64) PIECE * block_bytes;
  for (guint64 at = 0; at < bytes; at += piece)
    g_assert_true (eng_gguf_writer_write (writer, number, at, rows == 1 ? (gconstpointer) ones : blocks, MIN (piece, bytes - at), &error));
}

static void write_model (const char *path, const Case *c)
{
  g_autoptr (GError) error = NULL;
  g_autofree char *letters = g_build_filename (g_getenv ("G_TEST_SRCDIR"), "fixtures", "decoders", "llama.gguf", NULL);
  g_autoptr (EngGguf) vocabulary = eng_gguf_open (letters, &error);
  g_assert_no_error (error);
  const EngTypeTraits *traits = eng_type_traits (c->type);
  guint64 layer_weights = 0;
  for (gsize i = 0; i < G_N_ELEMENTS (parts); i++)
    layer_weights += (guint64) parts[i].rows * parts[i].cols;
  guint layers = (guint) (FILE_BYTES / (layer_weights / traits->block * traits->block_bytes));
  const struct {
    const char *key;
    guint value;
  } keys[] = { { "llama.block_count", layers }, { "llama.embedding_length", SIDE }, { "llama.feed_forward_length", FF }, { "llama.attention.head_count", 16 },
               { "llama.attention.head_count_kv", 16 }, { "llama.context_length", 64 } };
  g_autoptr (EngGgufWriter) writer = eng_gguf_writer_new (32);
  eng_gguf_writer_set_string (writer, "general.architecture", "llama");
  for (gsize i = 0; i < G_N_ELEMENTS (keys); i++)
    eng_gguf_writer_set_u32 (writer, keys[i].key, keys[i].value);
  eng_gguf_writer_set_f32 (writer, "llama.attention.layer_norm_rms_epsilon", 1e-5f);
  eng_gguf_writer_copy_keys (writer, vocabulary, "tokenizer.");
  declare (writer, "token_embd.weight", c->type, VOCAB, SIDE);
  declare (writer, "output_norm.weight", c->type, 1, SIDE);
  for (guint layer = 0; layer < layers; layer++)
    for (gsize i = 0; i < G_N_ELEMENTS (parts); i++) {
      g_autofree char *name = g_strdup_printf ("blk.%u.%s.weight", layer, parts[i].name);
      declare (writer, name, c->type, parts[i].rows, parts[i].cols);
    }
  g_assert_true (eng_gguf_writer_begin (writer, path, &error));
  g_assert_no_error (error);
  g_autofree guint8 *blocks = g_malloc ((gsize) PIECE * traits->block_bytes);
  for (gsize i = 0; i < (gsize) PIECE * traits->block_bytes; i++)
    blocks[i] = (guint8) g_test_rand_int ();
  for (gsize i = 0; i < PIECE; i++)
    for (guint k = 0; k < 2 && c->halves[k] >= 0; k++)
      memcpy (blocks + i * traits->block_bytes + c->halves[k], (const guint8[2]) { 0x00, 0x14 }, 2);
  write_tensor (writer, 0, VOCAB, SIDE, blocks, traits->block, traits->block_bytes);
  write_tensor (writer, 1, 1, SIDE, blocks, traits->block, traits->block_bytes);
  for (guint i = 0; i < layers * G_N_ELEMENTS (parts); i++)
    write_tensor (writer, 2 + i, parts[i % G_N_ELEMENTS (parts)].rows, parts[i % G_N_ELEMENTS (parts)].cols, blocks, traits->block, traits->block_bytes);
  g_assert_true (eng_gguf_writer_finish (writer, &error));
}

/* What opening a model for the first time does, in this process; then a token, which reads every weight. Prints the resident size before and the peak. */
static int load_alone (const char *path, const char *packed)
{
  g_autoptr (GError) error = NULL;
  guint64 base = eng_memory_rss ();
  g_autoptr (EngGguf) source = eng_gguf_open (path, &error);
  if (!source || !eng_repack (source, packed, NULL, NULL, NULL, &error)) {
    g_printerr ("%s\n", error->message);
    return 1;
  }
  EngSessionOptions options = { .n_ctx = 32 };
  gint32 token = 7;
  g_autoptr (EngModel) model = eng_model_open (packed, &error);
  g_autoptr (EngWorkers) workers = eng_workers_new (1);
  g_autoptr (EngSession) session = model ? eng_session_new (model, workers, &options, &error) : NULL;
  if (!session || !eng_session_eval (session, &token, 1, FALSE, NULL, &error)) {
    g_printerr ("%s\n", error->message);
    return 1;
  }
  printf ("%" G_GUINT64_FORMAT " %" G_GUINT64_FORMAT "\n", base, eng_memory_peak_rss ());
  return 0;
}

static void test_first_loading (gconstpointer data)
{
  const Case *c = data;
  if (IS_SANITIZED) {
    g_test_skip ("a sanitizer takes memory of its own");
    return;
  }
  g_autofree char *path = g_build_filename (folder, "source.gguf", NULL), *packed = g_build_filename (folder, "packed.gguf", NULL), *answer = NULL;
  write_model (path, c);
  GStatBuf file;
  g_assert_cmpint (g_stat (path, &file), ==, 0);
  const char *argv[] = { self, "--load-alone", path, packed, NULL };
  int status;
  g_assert_true (g_spawn_sync (NULL, (char **) argv, NULL, G_SPAWN_DEFAULT, NULL, NULL, &answer, NULL, &status, NULL));
  g_assert_cmpint (status, ==, 0);
  char *end;
  guint64 base = g_ascii_strtoull (answer, &end, 10), peak = g_ascii_strtoull (end, NULL, 10);
  double ratio = (double) (peak - base) / (double) file.st_size;
  g_test_message ("%.1f MB: %.3f times the file beside the program's own %.1f MB", (double) file.st_size / 1e6, ratio, (double) base / 1e6);
  g_assert_cmpuint (peak - base, <=, (guint64) (c->most * (double) file.st_size) + c->beside);
  g_assert_cmpfloat (ratio, >=, 0.95); /* every weight was read */
  g_unlink (path);
  g_unlink (packed);
}

int main (int argc, char **argv)
{
  self = argv[0];
  if (argc == 4 && g_str_equal (argv[1], "--load-alone"))
    return xb_cpu_init () != NULL || load_alone (argv[2], argv[3]);
  g_test_init (&argc, &argv, NULL);
  folder = g_dir_make_tmp ("valise-packing-XXXXXX", NULL);
  for (gsize i = 0; i < G_N_ELEMENTS (cases); i++) {
    g_autofree char *name = g_strdup_printf ("/repack/first-loading-holds-the-weights-once/%s", eng_type_traits (cases[i].type)->name);
    g_test_add_data_func (name, &cases[i], test_first_loading);
  }
  int result = g_test_run ();
  g_rmdir (folder);
  g_free (folder);
  return result;
}
