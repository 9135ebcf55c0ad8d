/* fuzz_checkpoint.c: any bytes as a file of safetensors with a model of one format in it ($FUZZ_FORMAT, a constant of the build): refused with a sentence,
 * or every row of every matrix can be read, and every band packed. Of the format "config" the bytes are config.json instead. */
#include "engine/checkpoint/checkpoint.h"
#include "engine/checkpoint/hf_checkpoint.h"
#include "engine/checkpoint/packing.h"
#include "engine/model.h"
#include "tests/fixtures/st_folder.h"
#include "tests/fuzz/fuzz.h"

#include <glib/gstdio.h>
#include <stdlib.h>
#include <string.h>

enum { COLS = 128, ROWS = 128, MOST = 1 << 22 };

static char *folder;

#define MODULE "model.layers.0.self_attn.q_proj."

typedef struct {
  const char *name, *quantization;                       /* quantization_config */
  gboolean (*add_modules) (StFile *st, guint variant);   /* FALSE: there is no such variant */
} Format;
static const Format *format (void);

static void write_config (const char *quantization)
{
  g_autofree char *config = g_strdup_printf ("{\"model_type\":\"llama\",\"hidden_size\":128,\"intermediate_size\":128,\"num_attention_heads\":4,\"num_hidden_layers\":1,"
                                             "\"vocab_size\":16%s%s}", quantization ? ",\"quantization_config\":" : "", quantization ? quantization : "");
  st_write (folder, "config.json", config, strlen (config));
}

/* As a first loading does, but for the file. */
static void pack (const EngPacked *packed)
{
  EngPacking packing = { .packed = packed, .layout = *packed->layout };
  xb_error why = NULL;
  gsize size = xb_layout_bytes (&packing.layout, &why);
  if (size == 0 || size > MOST)
    return;
  g_autofree guint8 *blob = g_malloc (size);
  g_assert_null (eng_packing_write (&packing, blob, 0, (packing.layout.rows + XB_TILE_ROWS - 1) / XB_TILE_ROWS));
}

static void read_all (EngGguf *view)
{
  g_autoptr (EngCheckpointSource) source = eng_checkpoint_describe (view);
  g_assert_nonnull (source->kept);
  for (guint i = 0; i < eng_gguf_n_tensors (view); i++) {
    const EngTensor *t = eng_gguf_tensor (view, i);
    guint64 rows = eng_tensor_n_rows (t);
    if (t->dims[0] > MOST || rows > MOST || t->dims[0] * rows > MOST || !eng_tensor_is_readable (t))
      continue;
    g_autofree float *out = g_new (float, t->dims[0] * rows + 1);
    eng_tensor_read_rows (t, 0, rows, out);
    if (t->packed && t->packed->layout)
      pack (t->packed);
  }
}

static void remove_folder (void)
{
  static const char *const names[] = { "config.json", "model.safetensors" };
  for (guint i = 0; i < G_N_ELEMENTS (names); i++) {
    g_autofree char *path = g_build_filename (folder, names[i], NULL);
    g_unlink (path);
  }
  g_rmdir (folder);
}

int LLVMFuzzerTestOneInput (const guint8 *data, gsize size)
{
  g_autoptr (GError) error = NULL;
  gboolean is_config = strcmp (format ()->name, "config") == 0;
  if (!folder) {
    folder = g_dir_make_tmp ("valise-fuzz-XXXXXX", NULL);
    atexit (remove_folder);
    g_autoptr (GByteArray) sound = is_config ? fuzz_seed (G_MAXUINT) : NULL;
    if (is_config)
      st_write (folder, "model.safetensors", sound->data, sound->len);
    else
      write_config (format ()->quantization);
  }
  st_write (folder, is_config ? "config.json" : "model.safetensors", data, size);
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

#define ADD(part, dtype, n_dims, d0, d1, d2, bytes) add (st, MODULE part, dtype, n_dims, d0, d1, d2, bytes)

static gboolean add_floats (StFile *st, guint variant)
{
  static const struct {
    const char *type;
    guint width;
  } types[] = { { "F32", 4 }, { "F16", 2 }, { "BF16", 2 }, { "F64", 8 }, { "F8_E4M3", 1 }, { "F8_E5M2", 1 }, { "I32", 4 } };
  if (variant >= G_N_ELEMENTS (types))
    return FALSE;
  ADD ("weight", types[variant].type, 2, ROWS, COLS, 0, ROWS * COLS * types[variant].width);
  return TRUE;
}

static gboolean add_gptq (StFile *st, guint variant)
{
  ADD ("qweight", "I32", 2, COLS / 8, ROWS, 0, COLS * ROWS / 2);
  ADD ("qzeros", "I32", 2, COLS / 32, ROWS / 8, 0, COLS / 32 * ROWS / 2);
  ADD ("scales", "F16", 2, COLS / 32, ROWS, 0, COLS / 32 * ROWS * 2);
  if (variant == 1) {
    const guint64 dims[1] = { COLS };
    gint32 group_of[COLS];
    for (gint32 k = 0; k < COLS; k++)
      group_of[k] = k * 37 % COLS / 32;
    st_add (st, MODULE "g_idx", "I32", 1, dims, group_of, sizeof group_of);
  }
  return variant < 2;
}

static gboolean add_awq (StFile *st, guint variant)
{
  ADD ("qweight", "I32", 2, COLS, ROWS / 8, 0, COLS * ROWS / 2);
  ADD ("qzeros", "I32", 2, COLS / 32, ROWS / 8, 0, COLS / 32 * ROWS / 2);
  ADD ("scales", "F16", 2, COLS / 32, ROWS, 0, COLS / 32 * ROWS * 2);
  return variant == 0;
}

static gboolean add_compressed (StFile *st, guint variant)
{
  const gint64 shape[2] = { ROWS, COLS };
  const guint64 two[1] = { 2 };
  switch (variant) {
  case 0: case 1: /* without and with zero points */
    ADD ("weight_packed", "I32", 2, ROWS, COLS / 8, 0, ROWS * COLS / 2);
    ADD ("weight_scale", "BF16", 2, ROWS, COLS / 32, 0, ROWS * (COLS / 32) * 2);
    st_add (st, MODULE "weight_shape", "I64", 1, two, shape, sizeof shape);
    if (variant == 1)
      ADD ("weight_zero_point", "I32", 2, ROWS / 8, COLS / 32, 0, ROWS / 8 * (COLS / 32) * 4);
    return TRUE;
  case 2: /* bytes */
    ADD ("weight", "I8", 2, ROWS, COLS, 0, ROWS * COLS);
    ADD ("weight_scale", "F32", 2, ROWS, 1, 0, ROWS * 4);
    return TRUE;
  case 3: /* NVFP4 */
    ADD ("weight_packed", "U8", 2, ROWS, COLS / 2, 0, ROWS * COLS / 2);
    ADD ("weight_scale", "F8_E4M3", 2, ROWS, COLS / 16, 0, ROWS * COLS / 16);
    ADD ("weight_global_scale", "F32", 1, 1, 0, 0, 4);
    return TRUE;
  case 4: /* MXFP4 */
    ADD ("weight_packed", "U8", 2, ROWS, COLS / 2, 0, ROWS * COLS / 2);
    ADD ("weight_scale", "U8", 2, ROWS, COLS / 32, 0, ROWS * COLS / 32);
    return TRUE;
  default:
    return FALSE;
  }
}

static gboolean add_exl2 (StFile *st, guint variant)
{
  const guint64 dims[1] = { 4 }, width[1] = { COLS };
  const gint16 groups[4] = { 4, 0, 3, 8 };
  gint32 order[COLS];
  for (gint32 k = 0; k < COLS; k++)
    order[k] = k * 37 % COLS;
  ADD ("q_weight", "I32", 2, 8 + 6, ROWS, 0, 14 * ROWS * 4);
  ADD ("q_scale", "I32", 2, 2, ROWS / 8, 0, ROWS);
  ADD ("q_scale_max", "F16", 1, 2, 0, 0, 4);
  st_add (st, MODULE "q_groups", "I16", 1, dims, groups, sizeof groups);
  st_add (st, variant ? MODULE "q_perm" : MODULE "q_invperm", "I32", 1, width, order, sizeof order);
  return variant < 2;
}

static gboolean add_exl3 (StFile *st, guint variant)
{
  const guint bits = variant == 0 ? 2 : variant == 1 ? 1 : 8;
  ADD ("trellis", "I16", 3, COLS / 16, ROWS / 16, 16 * bits, COLS / 16 * (ROWS / 16) * 32 * bits);
  if (variant == 1) {
    ADD ("su", "I16", 1, COLS / 16, 0, 0, COLS / 8);
    ADD ("sv", "I16", 1, ROWS / 16, 0, 0, ROWS / 8);
    ADD ("mcg", "I32", 1, 1, 0, 0, 4);
  } else {
    ADD ("suh", "F16", 1, COLS, 0, 0, COLS * 2);
    ADD ("svh", "F16", 1, ROWS, 0, 0, ROWS * 2);
  }
  return variant < 3;
}

static gboolean add_bitsandbytes (StFile *st, guint variant)
{
  static const char state[] = "{\"blocksize\":64,\"shape\":[128,128],\"nested_blocksize\":256,\"nested_offset\":0.05}";
  const guint64 n[1] = { strlen (state) };
  if (variant == 2) { /* int8 */
    ADD ("weight", "I8", 2, ROWS, COLS, 0, ROWS * COLS);
    ADD ("SCB", "F32", 1, ROWS, 0, 0, ROWS * 4);
    return TRUE;
  }
  ADD ("weight", "U8", 2, ROWS * COLS / 2, 1, 0, ROWS * COLS / 2);
  ADD ("weight.absmax", variant ? "U8" : "F32", 1, ROWS * COLS / 64, 0, 0, variant ? ROWS * COLS / 64 : ROWS * COLS / 16);
  ADD ("weight.quant_map", "F32", 1, 16, 0, 0, 64);
  if (variant == 1) { /* scales quantized as well */
    ADD ("weight.nested_absmax", "F32", 1, 1, 0, 0, 4);
    ADD ("weight.nested_quant_map", "F32", 1, 256, 0, 0, 1024);
  }
  st_add (st, MODULE "weight.quant_state.bitsandbytes__nf4", "U8", 1, n, state, strlen (state));
  return variant < 2;
}

static gboolean add_fp8 (StFile *st, guint variant)
{
  ADD ("weight", variant == 2 ? "F8_E5M2" : "F8_E4M3", 2, ROWS, COLS, 0, ROWS * COLS);
  if (variant == 1)
    ADD ("weight_scale", "F32", 2, ROWS, 1, 0, ROWS * 4);
  else
    ADD ("weight_scale_inv", "F32", 2, 2, 2, 0, 16);
  return variant < 3;
}

static gboolean add_bitnet (StFile *st, guint variant)
{
  ADD ("weight", "U8", 2, ROWS / 4, COLS, 0, ROWS / 4 * COLS);
  ADD ("weight_scale", "BF16", 1, 1, 0, 0, 2);
  return variant == 0;
}

static const Format formats[] = {
  { "safetensors", NULL, add_floats },
  { "gptq", "{\"quant_method\":\"gptq\",\"bits\":4,\"group_size\":32,\"desc_act\":true}", add_gptq },
  { "awq", "{\"quant_method\":\"awq\",\"bits\":4,\"group_size\":32,\"version\":\"gemm\"}", add_awq },
  { "compressed", "{\"quant_method\":\"compressed-tensors\",\"config_groups\":{\"group_0\":{\"weights\":{\"num_bits\":4,\"group_size\":32}}}}", add_compressed },
  { "exl2", "{\"quant_method\":\"exl2\",\"bits\":3.5}", add_exl2 },
  { "exl3", "{\"quant_method\":\"exl3\",\"bits\":2.0}", add_exl3 },
  { "bitsandbytes", "{\"quant_method\":\"bitsandbytes\",\"load_in_4bit\":true}", add_bitsandbytes },
  { "fp8", "{\"quant_method\":\"fp8\",\"weight_block_size\":[64,64]}", add_fp8 },
  { "bitnet", "{\"quant_method\":\"bitnet\"}", add_bitnet },
  { "config", NULL, add_gptq },
};

static const Format *format (void)
{
  for (guint i = 0; i < G_N_ELEMENTS (formats); i++)
    if (strcmp (formats[i].name, FUZZ_FORMAT) == 0)
      return &formats[i];
  g_error ("there is no format %s", FUZZ_FORMAT);
}

/* A configuration of each method that has one. */
static GByteArray *config_seed (guint i)
{
  if (i >= G_N_ELEMENTS (formats) || !formats[i].quantization)
    return NULL;
  g_autofree char *config = g_strdup_printf ("{\"model_type\":\"llama\",\"hidden_size\":128,\"intermediate_size\":128,\"num_attention_heads\":4,\"num_hidden_layers\":1,"
                                             "\"vocab_size\":16,\"rms_norm_eps\":1e-5,\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8.0,\"low_freq_factor\":1.0,"
                                             "\"high_freq_factor\":4.0,\"original_max_position_embeddings\":64},\"quantization_config\":%s}", formats[i].quantization);
  return g_byte_array_append (g_byte_array_new (), (const guint8 *) config, (guint) strlen (config));
}

/* A module of each way to store one; of the format "config" the file itself is number G_MAXUINT. */
GByteArray *fuzz_seed (guint i)
{
  StFile st;
  if (strcmp (format ()->name, "config") == 0 && i != G_MAXUINT)
    return config_seed (i + 1);
  st_init (&st);
  add (&st, "model.embed_tokens.weight", "F16", 2, 16, COLS, 0, 16 * COLS * 2);
  gboolean there = format ()->add_modules (&st, i == G_MAXUINT ? 0 : i);
  GByteArray *seed = st_finish (&st);
  if (there)
    return seed;
  g_byte_array_unref (seed);
  return NULL;
}
