/* test_packing_memory.c: a quantized file is packed, mapped and computed with for the first time, by a program of its own, without a second copy of the
 * weights in memory. */
#include "engine/checkpoint/hf_checkpoint.h"
#include "engine/memory_plan.h"
#include "kernels/cpu.h"
#include "tests/fixtures/sanitized.h"
#include "tests/fixtures/st_folder.h"

#include <glib/gstdio.h>
#include <stdio.h>
#include <string.h>

enum { SIDE = 1024, FF = 4096, VOCAB = 128, FILE_BYTES = 40000000, PIECE = 1 << 16 };

typedef struct {
  guint type;       /* ENG_TYPE_PACKED: a folder of EXL3, 4 bits */
  int halves[2];    /* where a block's scales are, or -1 */
  double most;      /* peak over the file's bytes ... */
  guint64 beside;   /* ... and bytes of tables, buffers and the session, which a larger file's would hardly exceed */
} Case;

static const Case cases[] = { { ENG_TYPE_Q4_K, { 0, 2 }, 1.15, 0 }, { ENG_TYPE_Q6_K, { 208, -1 }, 1.15, 0 }, { ENG_TYPE_IQ3_XXS, { 0, -1 }, 1.15, 0 },
                              { ENG_TYPE_IQ2_XXS, { 0, -1 }, 1.15, 0 }, { ENG_TYPE_Q2_K, { 80, 82 }, 1.25, 3000000 }, { ENG_TYPE_TQ1_0, { 52, -1 }, 1.25, 3000000 },
                              { ENG_TYPE_PACKED, { -1, -1 }, 1.15, 0 } };

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

static void add_tensor (StFile *st, char *name, const char *type, guint n_dims, guint64 d0, guint64 d1, guint64 d2, const void *data, gsize bytes)
{
  const guint64 dims[3] = { d0, d1, d2 };
  st_add (st, name, type, n_dims, dims, data, bytes);
  g_free (name);
}

/* Random tiles, the same ones again and again, between diagonals of 2^-5 and 1. */
static void write_folder (const char *path)
{
  static const char *const theirs[] = { "input_layernorm", "post_attention_layernorm", "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
                                        "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj" };
  enum { LAYERS = 5 };
  StFile st;
  st_init (&st);
  g_autofree guint8 *tiles = g_malloc ((gsize) SIDE * FF / 2);
  for (gsize i = 0; i < (gsize) SIDE * FF / 2; i++)
    tiles[i] = (guint8) g_test_rand_int ();
  g_autofree guint16 *halves = g_new (guint16, 2 * FF); /* the first 2^-5, the second 1 */
  for (guint i = 0; i < 2 * FF; i++)
    halves[i] = i < FF ? 0x2800 : 0x3c00;
  g_autofree guint16 *rows = g_memdup2 (tiles, VOCAB * SIDE * 2);
  for (guint i = 0; i < VOCAB * SIDE; i++)
    rows[i] &= 0x3bff; /* below 1 */
  add_tensor (&st, g_strdup ("model.embed_tokens.weight"), "F16", 2, VOCAB, SIDE, 0, rows, VOCAB * SIDE * 2);
  add_tensor (&st, g_strdup ("model.norm.weight"), "F16", 1, SIDE, 0, 0, halves + FF, SIDE * 2);
  for (guint layer = 0; layer < LAYERS; layer++)
    for (gsize i = 0; i < G_N_ELEMENTS (parts); i++) {
      guint r = parts[i].rows, c = parts[i].cols;
      g_autofree char *module = g_strdup_printf ("model.layers.%u.%s.", layer, theirs[i]);
      if (r == 1) {
        add_tensor (&st, g_strconcat (module, "weight", NULL), "F16", 1, c, 0, 0, halves + FF, c * 2);
        continue;
      }
      add_tensor (&st, g_strconcat (module, "trellis", NULL), "I16", 3, c / 16, r / 16, 64, tiles, (gsize) r * c / 2);
      add_tensor (&st, g_strconcat (module, "suh", NULL), "F16", 1, c, 0, 0, halves, c * 2);
      add_tensor (&st, g_strconcat (module, "svh", NULL), "F16", 1, r, 0, 0, halves + FF, r * 2);
    }
  g_autofree char *config = g_strdup_printf ("{\"model_type\":\"llama\",\"hidden_size\":%d,\"intermediate_size\":%d,\"num_attention_heads\":16,\"num_key_value_heads\":16,"
                                             "\"num_hidden_layers\":%d,\"vocab_size\":%d,\"max_position_embeddings\":64,\"rms_norm_eps\":1e-5,\"tie_word_embeddings\":true,"
                                             "\"quantization_config\":{\"quant_method\":\"exl3\",\"bits\":4.0}}", SIDE, FF, LAYERS, VOCAB);
  g_autoptr (GByteArray) file = st_finish (&st);
  g_assert_cmpint (g_mkdir (path, 0700), ==, 0);
  st_write (path, "model.safetensors", file->data, file->len);
  st_write (path, "config.json", config, strlen (config));
}

static EngGguf *open_vocabulary (GError **error)
{
  g_autofree char *letters = g_build_filename (g_getenv ("G_TEST_SRCDIR"), "fixtures", "decoders", "llama.gguf", NULL);
  return eng_gguf_open (letters, error);
}

static void write_model (const char *path, const Case *c)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (EngGguf) vocabulary = open_vocabulary (&error);
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
  g_autoptr (EngGguf) vocabulary = open_vocabulary (&error);
  g_autoptr (EngGguf) source = !vocabulary ? NULL : g_file_test (path, G_FILE_TEST_IS_DIR) ? eng_hf_open (path, vocabulary, &error) : eng_gguf_open (path, &error);
  if (!source || !eng_repack (source, packed, NULL, NULL, NULL, &error)) {
    g_printerr ("%s\n", error->message);
    return 1;
  }
  g_clear_pointer (&source, eng_gguf_unref); /* as whoever opens a model is done with it before the first token */
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
  g_autofree char *weights = g_build_filename (path, "model.safetensors", NULL), *config = g_build_filename (path, "config.json", NULL);
  gboolean is_folder = c->type == ENG_TYPE_PACKED;
  GStatBuf file;
  if (is_folder)
    write_folder (path);
  else
    write_model (path, c);
  g_assert_cmpint (g_stat (is_folder ? weights : path, &file), ==, 0);
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
  if (is_folder) {
    g_unlink (weights);
    g_unlink (config);
    g_rmdir (path);
  } else {
    g_unlink (path);
  }
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
    g_autofree char *name = g_strdup_printf ("/repack/first-loading-holds-the-weights-once/%s",
                                            cases[i].type == ENG_TYPE_PACKED ? "EXL3" : eng_type_traits (cases[i].type)->name);
    g_test_add_data_func (name, &cases[i], test_first_loading);
  }
  int result = g_test_run ();
  g_rmdir (folder);
  g_free (folder);
  return result;
}
