/* fuzz_safetensors.c: any bytes as a file of safetensors with a quantized model in it: refused with a sentence, or every array and every row of every
 * matrix can be read and packed. */
#include "engine/checkpoint/hf_checkpoint.h"
#include "engine/checkpoint/packed.h"
#include "engine/checkpoint/safetensors.h"
#include "engine/model.h"
#include "tests/fixtures/st_folder.h"
#include "tests/fuzz/fuzz.h"

#include <glib/gstdio.h>
#include <string.h>

enum { COLS = 128, ROWS = 128, MOST = 1 << 22 };

static char *folder;

static void make_folder (void)
{
  static const char config[] = "{\"model_type\":\"llama\",\"hidden_size\":128,\"intermediate_size\":128,\"num_attention_heads\":4,\"num_hidden_layers\":1,\"vocab_size\":16,"
                               "\"quantization_config\":{\"quant_method\":\"gptq\",\"bits\":4,\"group_size\":32}}";
  folder = g_dir_make_tmp ("valise-fuzz-XXXXXX", NULL);
  st_write (folder, "config.json", config, strlen (config));
}

static void read_all (EngGguf *view)
{
  for (guint i = 0; i < eng_gguf_n_tensors (view); i++) {
    const EngTensor *t = eng_gguf_tensor (view, i);
    guint64 rows = eng_tensor_n_rows (t);
    if (t->dims[0] > MOST || rows > MOST || t->dims[0] * rows > MOST || !eng_tensor_is_readable (t))
      continue;
    g_autofree float *out = g_new (float, t->dims[0] * rows + 1);
    eng_tensor_read_rows (t, 0, rows, out);
  }
}

int LLVMFuzzerTestOneInput (const guint8 *data, gsize size)
{
  g_autoptr (GError) error = NULL;
  if (!folder)
    make_folder ();
  st_write (folder, "model.safetensors", data, size);
  g_autoptr (EngGguf) view = eng_hf_open (folder, NULL, &error);
  g_assert_true ((view == NULL) == (error != NULL));
  if (error)
    g_assert_true (g_str_has_prefix (error->message, folder) && !strchr (error->message, '\n'));
  else
    read_all (view);
  return 0;
}

static void add (StFile *st, const char *name, const char *dtype, guint n_dims, guint64 d0, guint64 d1, guint64 d2, gsize bytes)
{
  const guint64 dims[3] = { d0, d1, d2 };
  g_autofree guint8 *data = g_malloc (bytes);
  for (gsize i = 0; i < bytes; i++)
    data[i] = (guint8) (i * 37 + bytes);
  st_add (st, name, dtype, n_dims, dims, data, bytes);
}

/* A module of each way to store one. */
GByteArray *fuzz_seed (guint i)
{
#define M "model.layers.0.self_attn.q_proj."
  StFile st;
  st_init (&st);
  add (&st, "model.embed_tokens.weight", "F16", 2, 16, COLS, 0, 16 * COLS * 2);
  switch (i) {
  case 0: /* GPTQ */
    add (&st, M "qweight", "I32", 2, COLS / 8, ROWS, 0, COLS * ROWS / 2);
    add (&st, M "qzeros", "I32", 2, COLS / 32, ROWS / 8, 0, COLS / 32 * ROWS / 2);
    add (&st, M "scales", "F16", 2, COLS / 32, ROWS, 0, COLS / 32 * ROWS * 2);
    break;
  case 1: { /* EXL2 */
    const guint64 dims[2] = { 4, 1 }, width[1] = { COLS };
    const gint16 groups[4] = { 4, 0, 3, 8 };
    gint32 order[COLS];
    for (gint32 k = 0; k < COLS; k++)
      order[k] = k * 37 % COLS;
    add (&st, M "q_weight", "I32", 2, 8 + 6, ROWS, 0, 14 * ROWS * 4);
    add (&st, M "q_scale", "I32", 2, 2, ROWS / 8, 0, ROWS);
    add (&st, M "q_scale_max", "F16", 1, 2, 0, 0, 4);
    st_add (&st, M "q_groups", "I16", 1, dims, groups, sizeof groups);
    st_add (&st, M "q_invperm", "I32", 1, width, order, sizeof order);
    break;
  }
  case 2: /* EXL3 */
    add (&st, M "trellis", "I16", 3, COLS / 16, ROWS / 16, 32, COLS / 16 * (ROWS / 16) * 64);
    add (&st, M "suh", "F16", 1, COLS, 0, 0, COLS * 2);
    add (&st, M "svh", "F16", 1, ROWS, 0, 0, ROWS * 2);
    break;
  case 3: /* FP8 */
    add (&st, M "weight", "F8_E4M3", 2, ROWS, COLS, 0, ROWS * COLS);
    add (&st, M "weight_scale_inv", "F32", 2, 1, 1, 0, 4);
    break;
  case 4: { /* bitsandbytes */
    static const char state[] = "{\"blocksize\":64,\"shape\":[128,128]}";
    const guint64 n[1] = { strlen (state) };
    add (&st, M "weight", "U8", 2, ROWS * COLS / 2, 1, 0, ROWS * COLS / 2);
    add (&st, M "weight.absmax", "F32", 1, ROWS * COLS / 64, 0, 0, ROWS * COLS / 16);
    add (&st, M "weight.quant_map", "F32", 1, 16, 0, 0, 64);
    st_add (&st, M "weight.quant_state.bitsandbytes__nf4", "U8", 1, n, state, strlen (state));
    break;
  }
  default:
    g_byte_array_unref (st_finish (&st));
    return NULL;
  }
  return st_finish (&st);
}
