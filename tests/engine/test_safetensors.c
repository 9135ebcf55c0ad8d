/* test_safetensors.c: folders as transformers' save_pretrained writes them (tests/fixtures/make_safetensors.py) give the numbers and the answers of the
 * GGUF of the same model: single and in shards, as F32, F16 and BF16. */
#include "engine/checkpoint/hf_checkpoint.h"
#include "engine/checkpoint/safetensors.h"
#include "engine/model.h"
#include "engine/session.h"
#include "tests/fixtures/st_folder.h"

#include <glib/gstdio.h>
#include <json-glib/json-glib.h>
#include <math.h>
#include <string.h>

static char *folder, *packed;
static JsonObject *all;
static EngWorkers *workers;

static char *fixture (const char *name, const char *suffix)
{
  g_autofree char *file = g_strconcat (name, suffix, NULL);
  return g_test_build_filename (G_TEST_DIST, "fixtures", "decoders", file, NULL);
}

/* [n][rows][cols] -> [n][cols][rows] */
static float *turn (const float *x, gsize n, gsize rows, gsize cols)
{
  float *out = g_new (float, n * rows * cols);
  for (gsize i = 0; i < n; i++)
    for (gsize r = 0; r < rows; r++)
      for (gsize c = 0; c < cols; c++)
        out[(i * cols + c) * rows + r] = x[(i * rows + r) * cols + c];
  return out;
}

/* The rows of a GGUF tensor as [rows][width] floats; "NAME@8": a vector in rows of 8, "NAME^": each matrix the other way round. */
static const float *gguf_rows (GHashTable *cache, EngGguf *gguf, const char *name, guint *width)
{
  const char *at = strchr (name, '@'), *turned = strchr (name, '^'), *end = at ? at : turned;
  g_autofree char *plain = end ? g_strndup (name, (gsize) (end - name)) : g_strdup (name);
  const EngTensor *tensor = eng_gguf_find_tensor (gguf, plain);
  g_assert_nonnull (tensor);
  const char *key = turned ? name : plain;
  float *rows = g_hash_table_lookup (cache, key);
  if (!rows) {
    rows = g_new (float, tensor->dims[0] * eng_tensor_n_rows (tensor));
    eng_tensor_read_rows (tensor, 0, eng_tensor_n_rows (tensor), rows);
    if (turned) {
      g_autofree float *plain_rows = rows;
      rows = turn (plain_rows, tensor->dims[2], tensor->dims[1], tensor->dims[0]);
    }
    g_hash_table_insert (cache, g_strdup (key), rows);
  }
  *width = at ? (guint) atoi (at + 1) : (guint) tensor->dims[turned ? 1 : 0];
  return rows;
}

/* One tensor of the folder, from the fixture's rows. */
static float *make_tensor (GHashTable *cache, EngGguf *gguf, JsonArray *entry, gsize *n, guint64 dims[4], guint *n_dims)
{
  JsonArray *shape = json_array_get_array_element (entry, 1), *runs = json_array_get_array_element (entry, 3);
  *n = 1;
  *n_dims = json_array_get_length (shape);
  for (guint i = 0; i < *n_dims; i++)
    *n *= dims[i] = (guint64) json_array_get_int_element (shape, i);
  float *out = g_new (float, *n), *next = out;
  for (guint i = 0; i < json_array_get_length (runs); i++) {
    JsonArray *run = json_array_get_array_element (runs, i);
    guint width;
    const float *rows = gguf_rows (cache, gguf, json_array_get_string_element (run, 0), &width);
    for (gint64 k = 0; k < json_array_get_int_element (run, 2); k++, next += width)
      memcpy (next, rows + (json_array_get_int_element (run, 1) + k * json_array_get_int_element (run, 3)) * width, width * sizeof (float));
  }
  g_assert_true (next == out + *n);
  for (gsize i = 0; i < *n && json_array_get_boolean_element (entry, 2); i++)
    out[i] -= 1;
  if (json_array_get_boolean_element (entry, 4)) { /* the halves of a row take turns */
    g_autofree float *apart = out;
    out = turn (apart, *n / dims[*n_dims - 1], 2, dims[*n_dims - 1] / 2);
  }
  return out;
}

static void add_floats (StFile *st, const char *name, const char *dtype, guint n_dims, const guint64 *dims, const float *x, gsize n)
{
  g_autofree guint16 *halves = g_new (guint16, n);
  for (gsize i = 0; i < n && strcmp (dtype, "BF16") == 0; i++) {
    guint32 bits;
    memcpy (&bits, &x[i], 4);
    halves[i] = (guint16) (bits >> 16);
  }
  if (strcmp (dtype, "F16") == 0)
    xb_f32_to_f16 (x, halves, n);
  gboolean wide = strcmp (dtype, "F32") == 0;
  st_add (st, name, dtype, n_dims, dims, wide ? (const void *) x : halves, n * (wide ? 4 : 2));
}

static void clear_folder (void)
{
  g_autoptr (GDir) dir = g_dir_open (folder, 0, NULL);
  for (const char *name; (name = g_dir_read_name (dir));) {
    g_autofree char *path = g_build_filename (folder, name, NULL);
    g_unlink (path);
  }
}

/* In n_shards files with an index, or in one. */
static void write_folder (const char *name, EngGguf *gguf, const char *dtype, guint n_shards)
{
  JsonObject *one = json_object_get_object_member (all, name);
  JsonArray *tensors = json_object_get_array_member (one, "tensors");
  g_autoptr (GHashTable) cache = g_hash_table_new_full (g_str_hash, g_str_equal, g_free, g_free);
  g_autoptr (GString) index = g_string_new ("{\"metadata\":{},\"weight_map\":{");
  g_autofree StFile *shards = g_new (StFile, n_shards);
  clear_folder ();
  for (guint i = 0; i < n_shards; i++)
    st_init (&shards[i]);
  for (guint i = 0; i < json_array_get_length (tensors); i++) {
    JsonArray *entry = json_array_get_array_element (tensors, i);
    guint64 dims[4];
    guint n_dims;
    gsize n;
    g_autofree float *x = make_tensor (cache, gguf, entry, &n, dims, &n_dims);
    const char *tensor = json_array_get_string_element (entry, 0);
    /* Vectors are wider than the matrices in the fixtures, which hold f16 numbers. */
    add_floats (&shards[i % n_shards], tensor, n_dims == 1 ? "F32" : dtype, n_dims, dims, x, n);
    g_string_append_printf (index, "%s\"%s\":\"model-%u.safetensors\"", i ? "," : "", tensor, i % n_shards);
  }
  g_string_append (index, "}}");
  if (strstr (name, "vl")) { /* what sees pictures is left aside */
    const guint64 dims[] = { 2 };
    st_add (&shards[0], "model.visual.patch_embed.proj.bias", "F32", 1, dims, dims, 8);
  }
  for (guint i = 0; i < n_shards; i++) {
    g_autoptr (GByteArray) file = st_finish (&shards[i]);
    g_autofree char *shard = n_shards > 1 ? g_strdup_printf ("model-%u.safetensors", i) : g_strdup ("model.safetensors");
    st_write (folder, shard, file->data, file->len);
  }
  if (n_shards > 1)
    st_write (folder, "model.safetensors.index.json", index->str, index->len);
  JsonNode *node = json_object_get_member (one, "config");
  g_autofree char *config = json_to_string (node, FALSE);
  st_write (folder, "config.json", config, strlen (config));
}

/* 64 greedy tokens identical, logits within 0.001 of transformers'. */
static void check_answers (EngModel *model, const char *name)
{
  g_autofree char *path = fixture (name, ".bin"), *bytes = NULL;
  gsize size;
  guint head[3];
  g_assert_true (g_file_get_contents (path, &bytes, &size, NULL));
  memcpy (head, bytes, sizeof head);
  const gint32 *tokens = (const gint32 *) (gpointer) (bytes + sizeof head);
  const float *expected = (const float *) (tokens + head[0] + head[1]);
  g_autoptr (GError) error = NULL;
  EngSessionOptions options = { .n_ctx = 96, .activation_bits = 32 };
  g_autoptr (EngSession) session = eng_session_new (model, workers, &options, &error);
  g_assert_no_error (error);
  g_assert_true (eng_session_eval (session, tokens, head[0], FALSE, NULL, &error));
  for (guint step = 0; step < head[1]; step++) {
    const float *logits = eng_session_logits (session);
    gint32 best = 0;
    for (guint i = 1; i < head[2]; i++)
      best = logits[i] > logits[best] ? (gint32) i : best;
    for (guint i = 0; i < head[2] && step % 4 == 0; i++)
      g_assert_cmpfloat (fabs ((double) logits[i] - expected[step / 4 * head[2] + i]), <=, 1e-3);
    g_assert_cmpint (best, ==, tokens[head[0] + step]);
    g_assert_true (eng_session_eval (session, &best, 1, FALSE, NULL, &error));
  }
}

static void test_answers (gconstpointer data)
{
  const char *name = data;
  g_autofree char *path = fixture (name, ".gguf");
  g_autoptr (GError) error = NULL;
  g_autoptr (EngGguf) gguf = eng_gguf_open (path, &error);
  g_assert_no_error (error);
  write_folder (name, gguf, strlen (name) % 2 ? "F16" : "F32", strlen (name) % 3 ? 1 : 3);
  g_autoptr (EngGguf) view = eng_hf_open (folder, gguf, &error);
  g_assert_no_error (error);
  g_autoptr (EngGguf) made = NULL;
  if (!eng_gguf_is_computable (view)) {
    g_assert_true (eng_repack (view, packed, NULL, NULL, NULL, &error));
    made = eng_gguf_open (packed, &error);
    g_assert_no_error (error);
  }
  g_autoptr (EngModel) model = eng_model_new (made ? made : view, &error);
  g_assert_no_error (error);
  check_answers (model, name);
}

/* A configuration within another one is of a model that sees pictures, if that one says so; the mark goes with what is packed. */
static void test_pictures (void)
{
  g_autofree char *path = fixture ("llama", ".gguf"), *config_path = g_build_filename (folder, "config.json", NULL), *config = NULL;
  g_autoptr (GError) error = NULL;
  g_autoptr (EngGguf) gguf = eng_gguf_open (path, &error);
  write_folder ("llama", gguf, "F32", 1);
  g_assert_true (g_file_get_contents (config_path, &config, NULL, NULL));
  for (guint sees = 0; sees < 2; sees++) {
    g_autofree char *whole = g_strdup_printf ("{\"model_type\":\"llava\",%s\"text_config\":%s}", sees ? "\"vision_config\":{}," : "", config);
    EngTraits traits;
    g_assert_true (g_file_set_contents (config_path, whole, -1, NULL));
    g_autoptr (EngGguf) view = eng_hf_open (folder, gguf, &error);
    g_assert_no_error (error);
    g_assert_true (eng_traits_read (&traits, view, &error));
    g_assert_cmpint (traits.pictures, ==, sees);
  }
}

static void put_file (const char *name, const char *content)
{
  g_autofree char *path = g_build_filename (folder, name, NULL);
  g_assert_true (g_file_set_contents (path, content, -1, NULL));
}

/* gpt-oss' experts as they are published: MXFP4 in blocks of 16 bytes, gate and up taking turns, where the same model's floats stand the other way round. */
static void test_microscaled_experts (void)
{
  static const double values[16] = { 0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6 };
  static const char *const modules[] = { "model.layers.0.mlp.experts.gate_up_proj", "model.layers.0.mlp.experts.down_proj" };
  enum { EXPERTS = 3, EMBD = 64, FF = 32 };
  StFile st;
  st_init (&st);
  guint8 *bytes[2] = { g_new (guint8, EXPERTS * 2 * FF * EMBD / 2), g_new (guint8, EXPERTS * EMBD * FF / 2) };
  guint8 *scales[2] = { g_new (guint8, EXPERTS * 2 * FF * EMBD / 32), g_new (guint8, EXPERTS * EMBD * FF / 32) };
  for (guint part = 0; part < 2; part++) {
    guint rows = part ? EMBD : 2 * FF, cols = part ? FF : EMBD;
    for (guint i = 0; i < EXPERTS * rows * cols / 2; i++)
      bytes[part][i] = (guint8) g_test_rand_int_range (0, 256);
    for (guint i = 0; i < EXPERTS * rows * cols / 32; i++)
      scales[part][i] = (guint8) g_test_rand_int_range (100, 150);
    g_autofree char *blocks = g_strconcat (modules[part], "_blocks", NULL), *exponents = g_strconcat (modules[part], "_scales", NULL);
    st_add (&st, blocks, "U8", 4, (const guint64[]){ EXPERTS, rows, cols / 32, 16 }, bytes[part], EXPERTS * rows * cols / 2);
    st_add (&st, exponents, "U8", 3, (const guint64[]){ EXPERTS, rows, cols / 32 }, scales[part], EXPERTS * rows * cols / 32);
  }
  clear_folder ();
  g_autoptr (GByteArray) file = st_finish (&st);
  st_write (folder, "model.safetensors", file->data, file->len);
  put_file ("config.json", "{\"model_type\":\"gpt_oss\",\"hidden_size\":64,\"num_hidden_layers\":1,\"num_attention_heads\":4,\"intermediate_size\":32,"
                           "\"num_local_experts\":3,\"num_experts_per_tok\":2,\"quantization_config\":{\"quant_method\":\"mxfp4\"}}");
  g_autoptr (GError) error = NULL;
  g_autoptr (EngGguf) view = eng_hf_open (folder, NULL, &error);
  g_assert_no_error (error);
  g_assert_true (eng_repack (view, packed, NULL, NULL, NULL, &error));
  g_autoptr (EngGguf) made = eng_gguf_open (packed, &error);
  g_assert_no_error (error);
  static const char *const names[] = { "blk.0.ffn_gate_exps.weight", "blk.0.ffn_up_exps.weight", "blk.0.ffn_down_exps.weight" };
  for (guint which = 0; which < 3; which++) {
    const EngTensor *tensor = eng_gguf_find_tensor (view, names[which]);
    guint cols = which == 2 ? FF : EMBD, rows = which == 2 ? EMBD : FF, part = which == 2;
    g_assert_nonnull (tensor);
    g_assert_cmpuint (tensor->dims[0], ==, cols);
    g_assert_cmpuint (tensor->dims[1], ==, rows);
    g_assert_cmpuint (tensor->dims[2], ==, EXPERTS);
    g_autofree char *name = g_strconcat (names[which], ".xbit", NULL);
    g_assert_nonnull (eng_gguf_find_tensor (made, name));
    g_autofree float *read = g_new (float, EXPERTS * rows * cols);
    eng_tensor_read_rows (tensor, 0, EXPERTS * rows, read);
    for (guint row = 0; row < EXPERTS * rows; row++)
      for (guint col = 0; col < cols; col++) {
        guint stored = part ? row : row / FF * 2 * FF + row % FF * 2 + which, at = stored * cols + col;
        guint byte = bytes[part][at / 2], nibble = col % 2 ? byte >> 4 : byte & 15;
        g_assert_cmpfloat ((double) read[row * cols + col], ==, ldexp (values[nibble], scales[part][stored * (cols / 32) + col / 32] - 127));
      }
  }
  for (guint part = 0; part < 2; part++) {
    g_free (bytes[part]);
    g_free (scales[part]);
  }
}

/* The folder's own vocabulary comes along, filled up to the rows of the embedding; a damaged one is named. */
static void test_vocabulary (void)
{
  g_autofree char *path = fixture ("llama", ".gguf");
  g_autoptr (GError) error = NULL;
  g_autoptr (EngGguf) gguf = eng_gguf_open (path, &error);
  g_assert_no_error (error);
  write_folder ("llama", gguf, "F32", 1);
  put_file ("tokenizer.json", "{\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false},\"model\":{\"type\":\"BPE\",\"vocab\":"
                              "{\"a\":0,\"b\":1,\"ab\":2},\"merges\":[[\"a\",\"b\"]]}}");
  put_file ("tokenizer_config.json", "{\"eos_token\":\"b\",\"chat_template\":\"{{ messages }}\"}");
  put_file ("generation_config.json", "{\"temperature\":0.25,\"do_sample\":true}");
  g_autoptr (EngGguf) view = eng_hf_open (folder, NULL, &error);
  g_assert_no_error (error);
  g_autoptr (EngModel) model = eng_model_new (view, &error);
  g_assert_no_error (error);
  g_autoptr (GArray) tokens = g_array_new (FALSE, FALSE, sizeof (gint32));
  const EngTokenizer *tokenizer = eng_model_tokenizer (model);
  eng_tokenizer_encode (tokenizer, "abba", -1, ENG_TOKENIZE_PLAIN, tokens);
  g_assert_cmpmem (tokens->data, tokens->len * sizeof (gint32), ((const gint32[]){ 2, 1, 0 }), 3 * sizeof (gint32));
  g_assert_cmpuint (eng_tokenizer_n_tokens (tokenizer), ==, eng_model_traits (model)->n_vocab);
  g_assert_cmpint (eng_tokenizer_eos (tokenizer), ==, 1);
  g_assert_cmpstr (eng_gguf_chat_template (view), ==, "{{ messages }}");
  g_assert_cmpfloat (eng_gguf_get_float (view, "general.sampling.temp", 0), ==, 0.25);
  put_file ("tokenizer.json", "{\"model\":");
  g_assert_null (eng_hf_open (folder, NULL, &error));
  g_assert_nonnull (error);
  g_assert_true (g_str_has_prefix (error->message, folder) && strstr (error->message, "tokenizer.json") != NULL);
}

/* ---- files that are wrong somewhere ------------------------------------------------------------------------------------------------------------------ */

/* Headers, each with what its sentence must name. Every one is of a file with 64 bytes of data. */
static const struct {
  const char *header, *names;
} headers[] = {
  { "", "header" }, { "{", "header" }, { "[]", "header" }, { "null", "header" }, { "{}x", "header" }, { "{\"a\":1}", "header" }, { "{\"a\":[]}", "header" },
  { "{\"a\":{}}", "header" }, { "{\"a\":{\"dtype\":\"F32\"}}", "header" }, { "{\"a\":{\"dtype\":\"F32\",\"shape\":[4]}}", "header" },
  { "{\"a\":{\"dtype\":4,\"shape\":[4],\"data_offsets\":[0,16]}}", "header" },
  { "{\"a\":{\"dtype\":\"F31\",\"shape\":[4],\"data_offsets\":[0,16]}}", "unknown kind" },
  { "{\"a\":{\"dtype\":\"F32\",\"shape\":4,\"data_offsets\":[0,16]}}", "header" },
  { "{\"a\":{\"dtype\":\"F32\",\"shape\":[-4],\"data_offsets\":[0,16]}}", "header" },
  { "{\"a\":{\"dtype\":\"F32\",\"shape\":[4.5],\"data_offsets\":[0,16]}}", "header" },
  { "{\"a\":{\"dtype\":\"F32\",\"shape\":[\"4\"],\"data_offsets\":[0,16]}}", "header" },
  { "{\"a\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,4],\"data_offsets\":[0,16]}}", "5 dimensions" },
  { "{\"a\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1,1,4],\"data_offsets\":[0,16]}}", "header" },
  { "{\"a\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,12]}}", "another size" },
  { "{\"a\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[16,0]}}", "another size" },
  { "{\"a\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0]}}", "header" },
  { "{\"a\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,16,32]}}", "header" },
  { "{\"a\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[56,72]}}", "cut short" },
  { "{\"a\":{\"dtype\":\"F32\",\"shape\":[4611686018427387904],\"data_offsets\":[0,16]}}", "impossible size" },
  { "{\"a\":{\"dtype\":\"F32\",\"shape\":[2147483648,2147483648,4],\"data_offsets\":[0,16]}}", "impossible size" },
  { "{\"a\":{\"dtype\":\"F32\",\"shape\":[99999999999999999999],\"data_offsets\":[0,16]}}", "header" },
  { "{\"a\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[9223372036854775791,9223372036854775807]}}", "cut short" },
  { "{\"a\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,16]},\"b\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[12,28]}}", "overlap" },
  { "{\"a\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,16]},\"a\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[16,32]}}", "twice" },
  { "{\"\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,16]}}", "name" },
  { "{\"a\\u0000b\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,16]}}", "name" },
  { "{\"a\\nb\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,16]}}", "name" },
  { "{\"__metadata__\":{\"a\":\"b\"},\"a\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,16],\"more\":[[[]]]}}", NULL },
};

static void assert_sentence (const GError *error, const char *names)
{
  g_assert_nonnull (error);
  g_assert_true (g_str_has_prefix (error->message, folder));
  g_assert_null (strchr (error->message, '\n'));
  g_assert_true (g_utf8_validate (error->message, -1, NULL));
  if (names && !strstr (error->message, names))
    g_error ("“%s” says nothing of “%s”", error->message, names);
}

static void test_headers (void)
{
  g_autofree char *path = g_build_filename (folder, "model.safetensors", NULL);
  char *paths[] = { path, NULL };
  clear_folder ();
  for (gsize i = 0; i < G_N_ELEMENTS (headers); i++) {
    g_autoptr (GByteArray) file = g_byte_array_new ();
    guint8 zeros[64] = { 0 };
    guint64 length = strlen (headers[i].header);
    g_byte_array_append (file, (const guint8 *) &length, 8);
    g_byte_array_append (file, (const guint8 *) headers[i].header, (guint) length);
    g_byte_array_append (file, zeros, sizeof zeros);
    st_write (folder, "model.safetensors", file->data, file->len);
    g_autoptr (GError) error = NULL;
    EngSafetensors *st = eng_safetensors_open (paths, &error);
    g_assert_true ((st == NULL) == (headers[i].names != NULL));
    if (!st)
      assert_sentence (error, headers[i].names);
    eng_safetensors_free (st);
  }
}

/* Cut anywhere, any bit of the header turned, a header that claims gigabytes, brackets without end. */
static void test_damaged (void)
{
  g_autofree char *path = g_build_filename (folder, "model.safetensors", NULL);
  char *paths[] = { path, NULL };
  StFile one;
  const guint64 dims[] = { 4, 4 };
  float data[16] = { 1 };
  clear_folder ();
  st_init (&one);
  st_add (&one, "first.weight", "F32", 2, dims, data, sizeof data);
  st_add (&one, "second.weight", "F32", 2, dims, data, sizeof data);
  g_autoptr (GByteArray) good = st_finish (&one);
  guint refused = 0;
  for (guint n = 0; n < good->len; n++) {
    g_autoptr (GError) error = NULL;
    st_write (folder, "model.safetensors", good->data, n);
    g_assert_null (eng_safetensors_open (paths, &error));
    assert_sentence (error, NULL);
  }
  for (guint bit = 0; bit < (good->len - 128) * 8; bit++) {
    g_autoptr (GError) error = NULL;
    good->data[bit / 8] ^= (guint8) (1 << bit % 8);
    st_write (folder, "model.safetensors", good->data, good->len);
    EngSafetensors *st = eng_safetensors_open (paths, &error);
    g_assert_true ((st == NULL) == (error != NULL));
    if (!st)
      assert_sentence (error, NULL);
    for (guint i = 0; st && i < eng_safetensors_n (st); i++) {
      const EngStTensor *t = eng_safetensors_tensor (st, i);
      float number;
      if (t->bytes > 0 && t->type != ENG_ST_OTHER)
        eng_st_read (t, t->dims[0] * t->dims[1] - 1, 1, &number);
    }
    refused += st == NULL;
    eng_safetensors_free (st);
    good->data[bit / 8] ^= (guint8) (1 << bit % 8);
  }
  g_assert_cmpuint (refused, >, good->len);
  g_autofree char *deep = g_strnfill (1 << 20, '[');
  guint64 lengths[] = { 1 << 20, G_MAXUINT64, (guint64) 1 << 40, G_MAXINT64 };
  for (gsize i = 0; i < G_N_ELEMENTS (lengths); i++) {
    g_autoptr (GError) error = NULL;
    memcpy (deep, &lengths[i], 8);
    st_write (folder, "model.safetensors", deep, 1 << 20);
    g_assert_null (eng_safetensors_open (paths, &error));
    assert_sentence (error, NULL);
  }
}

/* config.json and the index, each with what is wrong. */
static void test_folders (void)
{
  static const struct {
    const char *file, *text, *names;
  } wrong[] = {
    { "config.json", "", "config.json" }, { "config.json", "{", "config.json" }, { "config.json", "[]", "config.json" }, { "config.json", "{}", "type" },
    { "config.json", "{\"model_type\":7}", "type" }, { "config.json", "{\"model_type\":\"bert\"}", "bert" }, { "config.json", "{\"model_type\":\"llama\"}", "hidden_size" },
    { "config.json", "{\"model_type\":\"llama\",\"hidden_size\":-1,\"num_attention_heads\":1,\"num_hidden_layers\":1}", "hidden_size" },
    { "config.json", "{\"model_type\":\"llama\",\"hidden_size\":1e300,\"num_attention_heads\":1,\"num_hidden_layers\":1}", "hidden_size" },
    { "config.json", "{\"model_type\":\"llama\",\"hidden_size\":64,\"num_attention_heads\":0,\"num_hidden_layers\":1}", "num_attention_heads" },
    { "config.json", "{\"model_type\":\"llama\",\"hidden_size\":64,\"num_attention_heads\":4,\"num_hidden_layers\":100000}", "num_hidden_layers" },
    { "config.json", "{\"model_type\":\"llama\",\"hidden_size\":64,\"num_attention_heads\":4,\"num_hidden_layers\":1,\"num_key_value_heads\":3}", "3 key and value heads" },
    { "config.json", "{\"model_type\":\"llama\",\"hidden_size\":64,\"num_attention_heads\":4,\"num_hidden_layers\":1,\"head_dim\":0}", "heads of 0" },
    { "config.json", "{\"model_type\":\"llama\",\"hidden_size\":64,\"num_attention_heads\":4,\"num_hidden_layers\":1,\"rope_scaling\":{\"type\":\"odd\"}}", "odd" },
    { "config.json", "{\"model_type\":\"llama\",\"text_config\":{\"model_type\":\"t5\"}}", "t5" },
    { "model.safetensors.index.json", "{", "index" }, { "model.safetensors.index.json", "{}", "parts" }, { "model.safetensors.index.json", "{\"weight_map\":[]}", "parts" },
    { "model.safetensors.index.json", "{\"weight_map\":{\"a\":1}}", "no file" }, { "model.safetensors.index.json", "{\"weight_map\":{\"a\":\"../a.safetensors\"}}", "no file" },
    { "model.safetensors.index.json", "{\"weight_map\":{\"a\":\"/etc/passwd\"}}", "no file" }, { "model.safetensors.index.json", "{\"weight_map\":{\"a\":\"b.safetensors\"}}", "b.safetensors is missing" },
    { "model.safetensors.index.json", "{\"weight_map\":{}}", "no .safetensors" },
    { "pytorch_model.bin", "", "pickle" }, { "model.pth", "", "pickle" },
  };
  g_autofree char *path = fixture ("llama", ".gguf");
  g_autoptr (EngGguf) gguf = eng_gguf_open (path, NULL);
  for (gsize i = 0; i < G_N_ELEMENTS (wrong); i++) {
    g_autoptr (GError) error = NULL;
    write_folder ("llama", gguf, "F16", 1);
    if (strstr (wrong[i].names, "pickle")) {
      g_autofree char *weights = g_build_filename (folder, "model.safetensors", NULL);
      g_unlink (weights);
    }
    st_write (folder, wrong[i].file, wrong[i].text, strlen (wrong[i].text));
    g_assert_null (eng_hf_open (folder, gguf, &error));
    assert_sentence (error, wrong[i].names);
  }
  /* A tensor that has no place, and one that is missing, are named. */
  for (guint kind = 0; kind < 2; kind++) {
    g_autoptr (GError) error = NULL;
    g_autofree char *file = g_build_filename (folder, "model.safetensors", NULL), *bytes = NULL;
    gsize size;
    write_folder ("llama", gguf, "F16", 1);
    g_assert_true (g_file_get_contents (file, &bytes, &size, NULL));
    char *at = memmem (bytes, size, "model.layers.1.mlp.up_proj.weight", 33);
    memcpy (at, kind ? "model.layers.1.mlp.rotary_emb.wei" : "model.layers.1.mlp.odd_proj.weight", 33);
    st_write (folder, "model.safetensors", bytes, size);
    g_autoptr (EngGguf) view = eng_hf_open (folder, gguf, &error);
    g_autoptr (EngModel) model = view ? eng_model_new (view, &error) : NULL;
    g_assert_null (model);
    assert_sentence (error, kind ? "ffn_up.weight" : "odd_proj");
  }
}

int main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  folder = g_dir_make_tmp ("valise-safetensors-XXXXXX", NULL);
  packed = g_strconcat (folder, ".xbit.gguf", NULL);
  workers = eng_workers_new (1);
  g_autofree char *path = g_test_build_filename (G_TEST_DIST, "fixtures", "safetensors.json", NULL);
  g_autoptr (JsonParser) parser = json_parser_new ();
  g_autoptr (GError) error = NULL;
  if (!json_parser_load_from_file (parser, path, &error))
    g_error ("%s", error->message);
  all = json_node_get_object (json_parser_get_root (parser));
  g_autoptr (GList) names = json_object_get_members (all);
  for (GList *name = names; name; name = name->next) {
    g_autofree char *test = g_strconcat ("/safetensors/same-answers-as-transformers/", name->data, NULL);
    g_test_add_data_func (test, name->data, test_answers);
  }
  g_test_add_func ("/safetensors/pictures-are-said", test_pictures);
  g_test_add_func ("/safetensors/microscaled-experts", test_microscaled_experts);
  g_test_add_func ("/safetensors/its-own-vocabulary", test_vocabulary);
  g_test_add_func ("/safetensors/headers-that-are-wrong", test_headers);
  g_test_add_func ("/safetensors/damaged-anywhere", test_damaged);
  g_test_add_func ("/safetensors/folders-that-are-wrong", test_folders);
  int result = g_test_run ();
  eng_workers_free (workers);
  clear_folder ();
  g_rmdir (folder);
  g_unlink (packed);
  g_free (folder);
  g_free (packed);
  return result;
}
