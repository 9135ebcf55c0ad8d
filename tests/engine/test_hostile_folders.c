/* test_hostile_folders.c: a sound folder of safetensors, and some hundreds of others that differ from it in one thing: each is refused with one sentence,
 * within a second and 256 MB. (GGUF files: test_gguf_hostile.c; quantized tensors: test_quantized.c; archives: tests/app/test_import.c.) */
#include "engine/checkpoint/hf_checkpoint.h"
#include "engine/error.h"
#include "engine/model.h"
#include "tests/fixtures/sanitized.h"
#include "tests/fixtures/st_folder.h"

#include <glib/gstdio.h>
#include <string.h>
#include <sys/resource.h>

static const char good_config[]
  = "{\"model_type\":\"llama\",\"hidden_size\":32,\"intermediate_size\":48,\"num_attention_heads\":4,\"num_key_value_heads\":2,\"num_hidden_layers\":1,"
    "\"vocab_size\":16,\"max_position_embeddings\":64,\"rms_norm_eps\":1e-05,\"rope_theta\":10000.0,\"hidden_act\":\"silu\",\"tie_word_embeddings\":false}";
static const char good_tokenizer[]
  = "{\"added_tokens\":[{\"id\":0,\"content\":\"<s>\",\"special\":true}],\"normalizer\":{\"type\":\"NFC\"},\"pre_tokenizer\":{\"type\":\"ByteLevel\","
    "\"add_prefix_space\":false,\"use_regex\":true},\"decoder\":{\"type\":\"ByteLevel\"},\"model\":{\"type\":\"BPE\",\"vocab\":{\"<s>\":0,\"a\":1,\"b\":2,"
    "\"c\":3,\"ab\":4,\"abc\":5,\"d\":6,\"e\":7,\"f\":8,\"g\":9,\"h\":10,\"i\":11,\"j\":12,\"k\":13,\"l\":14,\"m\":15},\"merges\":[\"a b\",\"ab c\"]}}";

static char *folder;
static GByteArray *good_weights;
static struct rusage at_first;

/* ---- one folder ----------------------------------------------------------------------------------------------------------------------- */

static void make_weights (void)
{
  static const struct {
    const char *name;
    guint n_dims;
    guint64 dims[2];
  } tensors[] = {
    { "model.embed_tokens.weight", 2, { 16, 32 } }, { "model.norm.weight", 1, { 32 } }, { "lm_head.weight", 2, { 16, 32 } },
    { "model.layers.0.input_layernorm.weight", 1, { 32 } }, { "model.layers.0.post_attention_layernorm.weight", 1, { 32 } },
    { "model.layers.0.self_attn.q_proj.weight", 2, { 32, 32 } }, { "model.layers.0.self_attn.k_proj.weight", 2, { 16, 32 } },
    { "model.layers.0.self_attn.v_proj.weight", 2, { 16, 32 } }, { "model.layers.0.self_attn.o_proj.weight", 2, { 32, 32 } },
    { "model.layers.0.mlp.gate_proj.weight", 2, { 48, 32 } }, { "model.layers.0.mlp.up_proj.weight", 2, { 48, 32 } },
    { "model.layers.0.mlp.down_proj.weight", 2, { 32, 48 } },
  };
  float x[48 * 32];
  StFile st;
  for (guint i = 0; i < G_N_ELEMENTS (x); i++)
    x[i] = (float) (i * 37 % 101) / 500 - 0.1f;
  st_init (&st);
  for (guint i = 0; i < G_N_ELEMENTS (tensors); i++)
    st_add (&st, tensors[i].name, "F32", tensors[i].n_dims, tensors[i].dims, x, 4 * tensors[i].dims[0] * MAX (tensors[i].dims[1], 1));
  good_weights = st_finish (&st);
}

static void put (const char *name, const char *text)
{
  st_write (folder, name, text, strlen (text));
}

static void restore (void)
{
  g_autofree char *index = g_build_filename (folder, "model.safetensors.index.json", NULL);
  g_unlink (index);
  put ("config.json", good_config);
  put ("tokenizer.json", good_tokenizer);
  st_write (folder, "model.safetensors", good_weights->data, good_weights->len);
}

static double seconds (const struct rusage *u)
{
  return (double) (u->ru_utime.tv_sec + u->ru_stime.tv_sec) + 1e-6 * (double) (u->ru_utime.tv_usec + u->ru_stime.tv_usec);
}

static gboolean opens (GError **error)
{
  g_autoptr (EngGguf) view = eng_hf_open (folder, NULL, error);
  g_autoptr (EngModel) model = view ? eng_model_new (view, error) : NULL;
  return model != NULL;
}

/* The folder as it is now is refused with one sentence, which is about it. */
static void expect_refused (const char *what)
{
  struct rusage before, after;
  g_autoptr (GError) error = NULL;
  getrusage (RUSAGE_SELF, &before);
  if (opens (&error))
    g_error ("%s: taken for a sound folder", what);
  getrusage (RUSAGE_SELF, &after);
  g_assert_true (error->domain == ENG_ERROR);
  if (!strstr (error->message, folder) || strchr (error->message, '\n') || !g_utf8_validate (error->message, -1, NULL)
      || strlen (error->message) < strlen (folder) + 20 || strlen (error->message) > strlen (folder) + 600)
    g_error ("%s: “%s” is no sentence about the folder", what, error->message);
  if (!IS_SANITIZED) {
    if (seconds (&after) - seconds (&before) >= 1)
      g_error ("%s: took %g s", what, seconds (&after) - seconds (&before));
    if (after.ru_maxrss - at_first.ru_maxrss >= 256 << 10)
      g_error ("%s: took %ld KiB", what, after.ru_maxrss - at_first.ru_maxrss);
  }
}

/* Each is the sound text with one passage replaced. */
typedef struct {
  const char *name, *from, *to;
} Change;

static char *changed (const char *text, const Change *change)
{
  const char *at = strstr (text, change->from);
  g_assert_nonnull (at);
  return g_strdup_printf ("%.*s%s%s", (int) (at - text), text, change->to, at + strlen (change->from));
}

static void check_changes (const char *file, const char *text, const Change *changes, gsize n)
{
  for (gsize i = 0; i < n; i++) {
    g_autofree char *other = changed (text, &changes[i]);
    restore ();
    put (file, other);
    expect_refused (changes[i].name);
  }
}

/* Cut short at every `step`-th byte. */
static void check_cuts (const char *file, const char *text, gsize step)
{
  restore ();
  for (gsize n = 0; n < strlen (text); n += step) {
    g_autofree char *what = g_strdup_printf ("%s cut to %" G_GSIZE_FORMAT " bytes", file, n);
    st_write (folder, file, text, n);
    expect_refused (what);
  }
}

static void test_good (void)
{
  g_autoptr (GError) error = NULL;
  restore ();
  g_assert_true (opens (&error));
  g_assert_no_error (error);
}

/* ---- safetensors ------------------------------------------------------------------------------------------------------------------------ */

static void write_weights (guint64 length, const char *header, gsize header_size)
{
  guint64 good_length;
  g_autoptr (GByteArray) out = g_byte_array_new ();
  memcpy (&good_length, good_weights->data, 8);
  g_byte_array_append (out, (const guint8 *) &length, 8);
  g_byte_array_append (out, (const guint8 *) header, (guint) header_size);
  g_byte_array_append (out, good_weights->data + 8 + good_length, good_weights->len - 8 - (guint) good_length);
  st_write (folder, "model.safetensors", out->data, out->len);
}

static void test_safetensors_header (void)
{
#define EMBED "\"model.embed_tokens.weight\":{\"dtype\":\"F32\",\"shape\":[16,32],\"data_offsets\":[0,2048]}"
#define WITH(type, shape, offsets) "\"model.embed_tokens.weight\":{\"dtype\":" type ",\"shape\":" shape ",\"data_offsets\":" offsets "}"
  static const Change changes[] = {
    { "a negative dimension", EMBED, WITH ("\"F32\"", "[-16,32]", "[0,2048]") },
    { "a dimension that is no integer", EMBED, WITH ("\"F32\"", "[16.5,32]", "[0,2048]") },
    { "a dimension that is text", EMBED, WITH ("\"F32\"", "[\"16\",32]", "[0,2048]") },
    { "a dimension beyond 64 bits", EMBED, WITH ("\"F32\"", "[18446744073709551632,32]", "[0,2048]") },
    { "a product beyond 64 bits", EMBED, WITH ("\"F32\"", "[4294967296,4294967296,4294967296]", "[0,2048]") },
    { "a product that wraps to its size", EMBED, WITH ("\"F32\"", "[4611686018427387920,32]", "[0,2048]") },
    { "a dimension of zero", EMBED, WITH ("\"F32\"", "[0,32]", "[0,0]") },
    { "no dimensions", EMBED, WITH ("\"F32\"", "[]", "[0,4]") },
    { "one dimension too few", EMBED, WITH ("\"F32\"", "[512]", "[0,2048]") },
    { "one dimension too many", EMBED, WITH ("\"F32\"", "[2,8,32]", "[0,2048]") },
    { "five dimensions", EMBED, WITH ("\"F32\"", "[1,1,1,16,32]", "[0,2048]") },
    { "nine dimensions", EMBED, WITH ("\"F32\"", "[1,1,1,1,1,1,1,16,32]", "[0,2048]") },
    { "the shape turned", EMBED, WITH ("\"F32\"", "[32,16]", "[0,2048]") },
    { "a shape that is a number", EMBED, WITH ("\"F32\"", "512", "[0,2048]") },
    { "a shape that is nothing", EMBED, WITH ("\"F32\"", "null", "[0,2048]") },
    { "a nested shape", EMBED, WITH ("\"F32\"", "[[16,32]]", "[0,2048]") },
    { "a larger shape than its bytes", EMBED, WITH ("\"F32\"", "[17,32]", "[0,2048]") },
    { "a smaller shape than its bytes", EMBED, WITH ("\"F32\"", "[15,32]", "[0,2048]") },
    { "an unknown type", EMBED, WITH ("\"F37\"", "[16,32]", "[0,2048]") },
    { "a type in small letters", EMBED, WITH ("\"f32\"", "[16,32]", "[0,2048]") },
    { "an empty type", EMBED, WITH ("\"\"", "[16,32]", "[0,2048]") },
    { "a type that is a number", EMBED, WITH ("32", "[16,32]", "[0,2048]") },
    { "a type of another width", EMBED, WITH ("\"F64\"", "[16,32]", "[0,2048]") },
    { "a type that nothing computes with", EMBED, WITH ("\"U32\"", "[16,32]", "[0,2048]") },
    { "offsets the other way round", EMBED, WITH ("\"F32\"", "[16,32]", "[2048,0]") },
    { "a negative offset", EMBED, WITH ("\"F32\"", "[16,32]", "[-2048,0]") },
    { "an offset beyond the end", EMBED, WITH ("\"F32\"", "[16,32]", "[1048576,1050624]") },
    { "offsets near 2^63", EMBED, WITH ("\"F32\"", "[16,32]", "[9223372036854773759,9223372036854775807]") },
    { "offsets beyond 64 bits", EMBED, WITH ("\"F32\"", "[16,32]", "[18446744073709551616,18446744073709553664]") },
    { "offsets that overlap the next tensor", EMBED, WITH ("\"F32\"", "[16,32]", "[64,2112]") },
    { "one offset", EMBED, WITH ("\"F32\"", "[16,32]", "[0]") },
    { "three offsets", EMBED, WITH ("\"F32\"", "[16,32]", "[0,2048,4096]") },
    { "offsets that are text", EMBED, WITH ("\"F32\"", "[16,32]", "[\"0\",\"2048\"]") },
    { "offsets that are nothing", EMBED, WITH ("\"F32\"", "[16,32]", "null") },
    { "no type", EMBED, "\"model.embed_tokens.weight\":{\"shape\":[16,32],\"data_offsets\":[0,2048]}" },
    { "no shape", EMBED, "\"model.embed_tokens.weight\":{\"dtype\":\"F32\",\"data_offsets\":[0,2048]}" },
    { "no offsets", EMBED, "\"model.embed_tokens.weight\":{\"dtype\":\"F32\",\"shape\":[16,32]}" },
    { "nothing about a tensor", EMBED, "\"model.embed_tokens.weight\":{}" },
    { "a tensor that is a list", EMBED, "\"model.embed_tokens.weight\":[\"F32\",[16,32],[0,2048]]" },
    { "a tensor that is null", EMBED, "\"model.embed_tokens.weight\":null" },
    { "a tensor twice", EMBED, EMBED "," EMBED },
    { "a tensor without a name", "model.embed_tokens.weight", "" },
    { "a name of control characters", "model.embed_tokens.weight", "model\\u0000embed\\u0001" },
    { "a name with an escape that is none", "model.embed_tokens.weight", "model\\x" },
    { "a name with half a surrogate", "model.embed_tokens.weight", "model\\ud800" },
    { "a name that is no UTF-8", "model.embed_tokens.weight", "model\xff\xfe" },
    { "a tensor that has no place", "model.norm.weight", "model.abnorm.weight" },
    { "a layer beyond the last", "model.layers.0.mlp.up_proj.weight", "model.layers.4294967296.mlp.up_proj.weight" },
    { "a layer of a negative number", "model.layers.0.mlp.up_proj.weight", "model.layers.-1.mlp.up_proj.weight" },
    { "a layer that is no number", "model.layers.0.mlp.up_proj.weight", "model.layers.x.mlp.up_proj.weight" },
    { "a missing norm", "model.norm.weight", "model.layers.0.self_attn.rotary_emb.inv_freq" },
    { "a comma too many", "},\"model.norm", "},,\"model.norm" },
    { "a comma too few", "},\"model.norm", "}\"model.norm" },
    { "a bracket too many", "},\"model.norm", "}},\"model.norm" },
    { "no colon", "\"dtype\":", "\"dtype\" " },
  };
  guint64 length;
  memcpy (&length, good_weights->data, 8);
  g_autofree char *header = g_strndup ((const char *) good_weights->data + 8, length);
  for (guint i = 0; i < G_N_ELEMENTS (changes); i++) {
    g_autofree char *other = changed (header, &changes[i]);
    restore ();
    write_weights (strlen (other), other, strlen (other));
    expect_refused (changes[i].name);
  }
}

static void test_safetensors_file (void)
{
  static const guint64 lengths[] = { 0, 1, 2, 7, 1 << 20, (100 << 20) + 1, G_MAXUINT32, G_MAXINT64, G_MAXUINT64 - 7, G_MAXUINT64 };
  static const char *const others[] = { "", "{", "{}", "[]", "null", "\"\"", "{\"a\":", "{}{}", "PK\x03\x04", "\x80\x02}q", "<html>", "version https://git-lfs.github.com/spec/v1\n" };
  guint64 length;
  memcpy (&length, good_weights->data, 8);
  g_autofree char *header = g_strndup ((const char *) good_weights->data + 8, length);
  restore ();
  for (guint i = 0; i < G_N_ELEMENTS (lengths); i++) {
    g_autofree char *what = g_strdup_printf ("a header of %" G_GUINT64_FORMAT " bytes", lengths[i]);
    write_weights (lengths[i], header, length);
    expect_refused (what);
  }
  for (gint64 off = -3; off <= 3; off++) { /* spaces may end a header, and so it is longer or shorter by what is no space */
    g_autofree char *what = g_strdup_printf ("a header that is %" G_GINT64_FORMAT " bytes off", off), *plain = g_strchomp (g_strdup (header));
    if (off == 0)
      continue;
    write_weights ((guint64) ((gint64) strlen (plain) + off), plain, strlen (plain));
    expect_refused (what);
  }
  for (guint i = 0; i < G_N_ELEMENTS (others); i++) {
    write_weights (strlen (others[i]), others[i], strlen (others[i]));
    expect_refused (others[i]);
    put ("model.safetensors", others[i]);
    expect_refused (others[i]);
  }
  g_autofree char *deep = g_strnfill (100000, '[');
  write_weights (100000, deep, 100000);
  expect_refused ("a header that nests without end");
  for (guint n = 0; n < good_weights->len; n += n < 16 || (n > length && n < length + 16) ? 1 : 97) {
    g_autofree char *what = g_strdup_printf ("weights cut to %u bytes", n);
    st_write (folder, "model.safetensors", good_weights->data, n);
    expect_refused (what);
  }
}

static void test_index (void)
{
  static const char *const indices[] = {
    "", "{", "[]", "null", "{}", "{\"weight_map\":null}", "{\"weight_map\":[]}", "{\"weight_map\":{}}", "{\"weight_map\":\"model.safetensors\"}",
    "{\"weight_map\":{\"a\":null}}", "{\"weight_map\":{\"a\":1}}", "{\"weight_map\":{\"a\":[\"model.safetensors\"]}}", "{\"weight_map\":{\"a\":\"\"}}",
    "{\"weight_map\":{\"a\":\"../model.safetensors\"}}", "{\"weight_map\":{\"a\":\"/etc/passwd\"}}", "{\"weight_map\":{\"a\":\".model.safetensors\"}}",
    "{\"weight_map\":{\"a\":\"sub/model.safetensors\"}}", "{\"weight_map\":{\"a\":\"config.json\"}}", "{\"weight_map\":{\"a\":\"absent.safetensors\"}}",
    "{\"weight_map\":{\"a\":\"model.safetensors\",\"b\":\"absent.safetensors\"}}", "{\"weight_map\":{\"a\":\"model.safetensors\"}", "\xff\xfe{\"weight_map\":{}}",
  };
  restore ();
  for (guint i = 0; i < G_N_ELEMENTS (indices); i++) {
    put ("model.safetensors.index.json", indices[i]);
    expect_refused (indices[i]);
  }
}

/* ---- config.json ------------------------------------------------------------------------------------------------------------------------ */

static void test_config (void)
{
  static const char *const keys[] = { "\"hidden_size\":32", "\"intermediate_size\":48", "\"num_attention_heads\":4", "\"num_hidden_layers\":1" };
  static const char *const values[] = { "-1", "0", "2147483647", "9223372036854775807", "18446744073709551617", "1e300", "-1e300", "\"text\"", "{\"a\":1}", "" };
  static const Change changes[] = {
    { "an unknown kind of model", "\"llama\"", "\"no-such-model\"" },
    { "no kind of model", "\"model_type\":\"llama\",", "" },
    { "a kind that is a number", "\"llama\"", "7" },
    { "a kind that is a list", "\"llama\"", "[\"llama\"]" },
    { "a kind that is empty", "\"llama\"", "\"\"" },
    { "one layer too many", "\"num_hidden_layers\":1", "\"num_hidden_layers\":2" },
    { "no width", "\"hidden_size\":32,", "" },
    { "no heads", "\"num_attention_heads\":4,", "" },
    { "no layers", "\"num_hidden_layers\":1,", "" },
    { "another width than the weights'", "\"hidden_size\":32", "\"hidden_size\":64" },
    { "another inner width than the weights'", "\"intermediate_size\":48", "\"intermediate_size\":64" },
    { "heads that do not divide the width", "\"num_attention_heads\":4", "\"num_attention_heads\":3" },
    { "more key heads than heads", "\"num_key_value_heads\":2", "\"num_key_value_heads\":8" },
    { "key heads that do not divide the heads", "\"num_key_value_heads\":2", "\"num_key_value_heads\":3" },
    { "a negative number of key heads", "\"num_key_value_heads\":2", "\"num_key_value_heads\":-2" },
    { "another activation", "\"silu\"", "\"relu\"" },
    { "an unknown way to stretch rope", "\"rope_theta\":10000.0", "\"rope_theta\":10000.0,\"rope_scaling\":{\"rope_type\":\"nonsense\",\"factor\":2}" },
    { "a list", "{\"model_type\"", "[{\"model_type\"" },
    { "bytes that are no text", "llama", "ll\xff\xfe" "a" },
    { "a comma too many", ",\"vocab_size\"", ",,\"vocab_size\"" },
    { "a number with a leading zero", ":32,", ":032," },
    { "a number that is none", ":32,", ":NaN," },
    { "text after the end", "false}", "false}}" },
  };
  check_changes ("config.json", good_config, changes, G_N_ELEMENTS (changes));
  for (guint k = 0; k < G_N_ELEMENTS (keys); k++)
    for (guint v = 0; v < G_N_ELEMENTS (values); v++) {
      g_autofree char *key = g_strndup (keys[k], strcspn (keys[k], ":") + 1), *to = g_strconcat (key, values[v], NULL);
      check_changes ("config.json", good_config, &(Change){ to, keys[k], to }, 1);
    }
  g_autofree char *deep = g_strnfill (1 << 20, '['), *wide = g_strnfill ((4 << 20) + 1, ' ');
  put ("config.json", deep);
  expect_refused ("a config.json that nests without end");
  put ("config.json", wide);
  expect_refused ("a config.json that is too large");
  check_cuts ("config.json", good_config, 3);
}

/* ---- tokenizer.json --------------------------------------------------------------------------------------------------------------------- */

static void test_tokenizer (void)
{
  static const Change changes[] = {
    { "an unknown model", "\"BPE\"", "\"Nonsense\"" },
    { "no model", "\"model\":{", "\"mdel\":{" },
    { "a vocabulary that is null", "{\"<s>\":0", "null,\"x\":{\"<s>\":0" },
    { "a number that is text", "\"a\":1,", "\"a\":\"1\"," },
    { "a number that is no integer", "\"a\":1,", "\"a\":1.5," },
    { "a negative number", "\"a\":1,", "\"a\":-1," },
    { "a huge number", "\"a\":1,", "\"a\":4294967297," },
    { "a number beyond 64 bits", "\"a\":1,", "\"a\":18446744073709551617," },
    { "a number that another token has", "\"a\":1,", "\"a\":2," },
    { "merges that are text", "[\"a b\",\"ab c\"]", "\"a b\"" },
    { "merges that are numbers", "[\"a b\",\"ab c\"]", "[1,2]" },
    { "a merge of one", "\"a b\"", "\"ab\"" },
    { "a merge of three in a list", "\"a b\"", "[\"a\",\"b\",\"c\"]" },
    { "a merge of tokens that are not there", "\"a b\"", "\"x y\"" },
    { "a merge whose result is not there", "\"a b\"", "\"b a\"" },
    { "an added token without a number", "\"id\":0,", "" },
    { "an added token of a negative number", "\"id\":0,", "\"id\":-1," },
    { "an added token of a huge number", "\"id\":0,", "\"id\":1073741824," },
    { "an added token without text", "\"content\":\"<s>\",", "" },
    { "an unknown normalizer", "\"NFC\"", "\"Nonsense\"" },
    { "an unknown pre-tokenizer", "\"pre_tokenizer\":{\"type\":\"ByteLevel\"", "\"pre_tokenizer\":{\"type\":\"Nonsense\"" },
    { "a pattern that is none", "\"pre_tokenizer\":{\"type\":\"ByteLevel\",", "\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"((\"},\"behavior\":\"Isolated\"," },
    { "a list", "{\"added_tokens\"", "[{\"added_tokens\"" },
    { "a comma too many", ",\"merges\"", ",,\"merges\"" },
    { "more tokens than the model has", "\"m\":15}", "\"m\":15,\"n\":16}" },
  };
  check_changes ("tokenizer.json", good_tokenizer, changes, G_N_ELEMENTS (changes));
  check_cuts ("tokenizer.json", good_tokenizer, 5);
}

int main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  folder = g_dir_make_tmp ("valise-hostile-XXXXXX", NULL);
  make_weights ();
  test_good (); /* whatever a sound folder takes is taken */
  getrusage (RUSAGE_SELF, &at_first);
  g_test_add_func ("/hostile/sound-folder-is-read", test_good);
  g_test_add_func ("/hostile/safetensors/header", test_safetensors_header);
  g_test_add_func ("/hostile/safetensors/file", test_safetensors_file);
  g_test_add_func ("/hostile/index", test_index);
  g_test_add_func ("/hostile/config", test_config);
  g_test_add_func ("/hostile/tokenizer", test_tokenizer);
  int result = g_test_run ();
  static const char *const files[] = { "config.json", "tokenizer.json", "model.safetensors", "model.safetensors.index.json" };
  for (guint i = 0; i < G_N_ELEMENTS (files); i++) {
    g_autofree char *path = g_build_filename (folder, files[i], NULL);
    g_unlink (path);
  }
  g_rmdir (folder);
  g_byte_array_unref (good_weights);
  g_free (folder);
  return result;
}
