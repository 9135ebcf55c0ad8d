/* test_safetensors.c: folders as transformers' save_pretrained writes them (tests/fixtures/make_safetensors.py) give the numbers and the answers of the
 * GGUF of the same model: single and in shards, as F32, F16 and BF16. */
#include "engine/checkpoint/hf_checkpoint.h"
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

/* The rows of a GGUF tensor as [rows][width] floats; "NAME@8": a vector in rows of 8. */
static const float *gguf_rows (GHashTable *cache, EngGguf *gguf, const char *name, guint *width)
{
  const char *at = strchr (name, '@');
  g_autofree char *plain = at ? g_strndup (name, (gsize) (at - name)) : g_strdup (name);
  const EngTensor *tensor = eng_gguf_find_tensor (gguf, plain);
  g_assert_nonnull (tensor);
  float *rows = g_hash_table_lookup (cache, plain);
  if (!rows) {
    rows = g_new (float, tensor->dims[0] * eng_tensor_n_rows (tensor));
    eng_tensor_read_rows (tensor, 0, eng_tensor_n_rows (tensor), rows);
    g_hash_table_insert (cache, g_strdup (plain), rows);
  }
  *width = at ? (guint) atoi (at + 1) : (guint) tensor->dims[0];
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
  int result = g_test_run ();
  eng_workers_free (workers);
  clear_folder ();
  g_rmdir (folder);
  g_unlink (packed);
  g_free (folder);
  g_free (packed);
  return result;
}
