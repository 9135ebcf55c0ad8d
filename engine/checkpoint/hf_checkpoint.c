/* hf_checkpoint.c: a folder of safetensors as a view in GGUF's vocabulary: config.json's numbers as keys, each module at its place. */
#include "engine/checkpoint/hf_checkpoint.h"

#include "engine/checkpoint/checkpoint.h"
#include "engine/checkpoint/gguf_private.h"
#include "engine/checkpoint/hf.h"
#include "engine/error.h"
#include "engine/json_reader.h"
#include "engine/tokenizer/vocab.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MAX_JSON = 64 << 20, MAX_CONFIG = 4 << 20, MAX_SHARDS = 4096 };

/* ---- files --------------------------------------------------------------------------------------------------------------------- */

/* A regular file of at most `most` bytes; NULL without an error when there is none. */
static GBytes *read_file (const char *folder, const char *name, gsize most, GError **error)
{
  g_autofree char *path = g_build_filename (folder, name, NULL);
  int fd = open (path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  struct stat info;
  if (fd < 0 && errno == ENOENT)
    return NULL;
  g_autofree char *data = NULL;
  gsize done = 0;
  if (fd >= 0 && fstat (fd, &info) == 0 && S_ISREG (info.st_mode) && (guint64) info.st_size <= most) {
    data = g_malloc ((gsize) info.st_size + 1);
    for (gssize n; done < (gsize) info.st_size && (n = read (fd, data + done, (gsize) info.st_size - done)) > 0;)
      done += (gsize) n;
  }
  if (fd >= 0)
    close (fd);
  if (!data) {
    g_set_error (error, ENG_ERROR, ENG_ERROR_FORMAT, "%s cannot be read, is no ordinary file or is too large for what it is; download it again", path);
    return NULL;
  }
  return g_bytes_new_take (g_steal_pointer (&data), done);
}

static JsonNode *read_json (const char *folder, const char *name, gsize most, GError **error)
{
  g_autoptr (GBytes) bytes = read_file (folder, name, most, error);
  if (!bytes)
    return NULL;
  gsize size;
  const char *text = g_bytes_get_data (bytes, &size);
  JsonNode *node = eng_json_parse (text, size, error);
  if (!node)
    g_prefix_error (error, "%s/%s ", folder, name);
  else if (!JSON_NODE_HOLDS_OBJECT (node)) {
    g_set_error (error, ENG_ERROR, ENG_ERROR_FORMAT, "%s/%s is not laid out as such a file is; download it again", folder, name);
    g_clear_pointer (&node, json_node_unref);
  }
  return node;
}

static gboolean is_plain_name (const char *name)
{
  return *name && *name != '.' && !strchr (name, '/') && strlen (name) < 256 && g_str_has_suffix (name, ".safetensors");
}

static int compare_names (gconstpointer a, gconstpointer b)
{
  return strcmp (*(const char *const *) a, *(const char *const *) b);
}

static gboolean add_shards (const char *folder, const char *index, GPtrArray *names, GError **error)
{
  GError *local = NULL;
  g_autoptr (JsonNode) node = read_json (folder, index, MAX_JSON, &local);
  if (local) {
    g_propagate_error (error, local);
    return FALSE;
  }
  JsonNode *map = node ? json_object_get_member (json_node_get_object (node), "weight_map") : NULL;
  if (!map || !JSON_NODE_HOLDS_OBJECT (map)) {
    g_set_error (error, ENG_ERROR, ENG_ERROR_FORMAT, "%s/%s does not list the model's parts; download it again", folder, index);
    return FALSE;
  }
  g_autoptr (GHashTable) seen = g_hash_table_new_full (g_str_hash, g_str_equal, g_free, NULL);
  JsonObjectIter iter;
  const char *tensor;
  JsonNode *value;
  json_object_iter_init (&iter, json_node_get_object (map));
  while (json_object_iter_next (&iter, &tensor, &value)) {
    const char *name = JSON_NODE_HOLDS_VALUE (value) && json_node_get_value_type (value) == G_TYPE_STRING ? json_node_get_string (value) : "";
    if (!is_plain_name (name) || g_hash_table_size (seen) > MAX_SHARDS) {
      g_set_error (error, ENG_ERROR, ENG_ERROR_FORMAT, "%s/%s names a part that is no file of this folder; download it again", folder, index);
      return FALSE;
    }
    if (g_hash_table_add (seen, g_strdup (name)))
      g_ptr_array_add (names, g_strdup (name));
  }
  return TRUE;
}

static gboolean exists (const char *folder, const char *name)
{
  g_autofree char *path = g_build_filename (folder, name, NULL);
  return g_file_test (path, G_FILE_TEST_IS_REGULAR);
}

/* The first file of a kind that is refused. */
static char *find_pickle (const char *folder)
{
  g_autoptr (GDir) dir = g_dir_open (folder, 0, NULL);
  for (const char *name; dir && (name = g_dir_read_name (dir));)
    if ((g_str_has_suffix (name, ".bin") && strstr (name, "model")) || g_str_has_suffix (name, ".pt") || g_str_has_suffix (name, ".pth")
        || g_str_has_suffix (name, ".ckpt"))
      return g_strdup (name);
  return NULL;
}

/* Every .safetensors file of the folder, where no index says which. */
static void list_safetensors (const char *folder, GPtrArray *names)
{
  g_autoptr (GDir) dir = g_dir_open (folder, 0, NULL);
  for (const char *name; dir && (name = g_dir_read_name (dir));)
    if (is_plain_name (name) && !strstr (name, "consolidated") && names->len < MAX_SHARDS)
      g_ptr_array_add (names, g_strdup (name));
}

static GPtrArray *weight_files (const char *folder, GError **error)
{
  g_autoptr (GPtrArray) names = g_ptr_array_new_with_free_func (g_free);
  if (exists (folder, "model.safetensors.index.json")) {
    if (!add_shards (folder, "model.safetensors.index.json", names, error))
      return NULL;
  } else if (exists (folder, "model.safetensors")) {
    g_ptr_array_add (names, g_strdup ("model.safetensors"));
  } else {
    list_safetensors (folder, names);
  }
  if (names->len == 0) {
    g_autofree char *pickle = find_pickle (folder);
    if (pickle)
      g_set_error (error, ENG_ERROR, ENG_ERROR_UNSUPPORTED, "%s/%s is a PyTorch pickle, which is a program rather than data: opening it could run anything; "
                   "download the model as safetensors or GGUF", folder, pickle);
    else
      g_set_error (error, ENG_ERROR, ENG_ERROR_FORMAT, "%s holds a config.json but no .safetensors files with the model's weights; download them", folder);
    return NULL;
  }
  for (guint i = 0; i < names->len; i++)
    if (!exists (folder, names->pdata[i])) {
      g_set_error (error, ENG_ERROR, ENG_ERROR_FORMAT, "%s/%s is missing, one part of the model; download it as well", folder, (char *) names->pdata[i]);
      return NULL;
    }
  g_ptr_array_sort (names, compare_names);
  return g_steal_pointer (&names);
}

/* What belongs to a checkpoint beside its weights. */
static const char *const companions[] = { "config.json", "generation_config.json", "tokenizer.json", "tokenizer.model", "tokenizer_config.json",
                                          "special_tokens_map.json", "added_tokens.json", "chat_template.jinja", "chat_template.json", "quantize_config.json",
                                          "quantization_config.json", "quant_config.json", "model.safetensors.index.json", "LICENSE", "README.md" };

gboolean eng_hf_is_file_name (const char *name)
{
  for (guint i = 0; i < G_N_ELEMENTS (companions); i++)
    if (strcmp (name, companions[i]) == 0)
      return TRUE;
  return is_plain_name (name);
}

char **eng_hf_files (const char *folder, GError **error)
{
  GPtrArray *names = weight_files (folder, error);
  if (!names)
    return NULL;
  for (guint i = 0; i < G_N_ELEMENTS (companions); i++)
    if (exists (folder, companions[i]))
      g_ptr_array_add (names, g_strdup (companions[i]));
  g_ptr_array_sort (names, compare_names);
  g_ptr_array_add (names, NULL);
  return (char **) g_ptr_array_free (names, FALSE);
}

/* ---- tensors --------------------------------------------------------------------------------------------------------------------- */

/* What goes into one tensor of the view. */
typedef struct {
  char *name;
  HfPart part;
  gboolean is_norm;
  GPtrArray *modules; /* of char *, by index; NULL where one is missing */
} Output;

typedef struct {
  Hf hf;
  EngGguf *gguf;
  GPtrArray *outputs;
  GHashTable *by_name;
  gboolean pictures; /* the model sees some as well */
  GError **error;
} Build;

static gboolean fail (Build *b, EngError code, const char *module, const char *why)
{
  g_set_error (b->error, ENG_ERROR, code, "%s: tensor %s %s", b->hf.folder, module, why);
  return FALSE;
}

static void free_output (gpointer data)
{
  Output *output = data;
  g_free (output->name);
  g_ptr_array_unref (output->modules);
  g_free (output);
}

static gboolean note_module (Build *b, const char *module)
{
  HfPlace place;
  if (!hf_place (&b->hf, module, &place)) {
    g_autofree char *why = g_strdup_printf ("has no place in a %s model as Valise knows it, so the model would answer wrongly", b->hf.family->model_type);
    return fail (b, ENG_ERROR_UNSUPPORTED, module, why);
  }
  if (place.part == HF_IGNORED || (strcmp (place.name, "output") == 0 && hf_bool (b->hf.config, "tie_word_embeddings", FALSE) && hf_part (&b->hf, module, "weight")))
    return TRUE;
  if (place.index >= 4096)
    return fail (b, ENG_ERROR_FORMAT, module, "is the part of more experts than a model can have; the file is damaged");
  Output *output = g_hash_table_lookup (b->by_name, place.name);
  if (!output) {
    output = g_new0 (Output, 1);
    output->name = g_strdup (place.name);
    output->part = place.part;
    output->is_norm = place.is_norm;
    output->modules = g_ptr_array_new_with_free_func (g_free);
    g_ptr_array_add (b->outputs, output);
    g_hash_table_insert (b->by_name, output->name, output);
  }
  if (output->part != place.part)
    return fail (b, ENG_ERROR_FORMAT, module, "is there whole and in parts; the files do not belong together");
  if (output->modules->len <= place.index)
    g_ptr_array_set_size (output->modules, (gint) place.index + 1);
  if (!output->modules->pdata[place.index])
    output->modules->pdata[place.index] = g_strdup (module);
  else if (strcmp (output->modules->pdata[place.index], module) != 0)
    return fail (b, ENG_ERROR_FORMAT, module, "is there under two names; the files do not belong together");
  return TRUE;
}

static gboolean note_modules (Build *b)
{
  g_autoptr (GHashTable) seen = g_hash_table_new_full (g_str_hash, g_str_equal, g_free, NULL);
  for (guint i = 0; i < eng_safetensors_n (b->hf.st); i++) {
    const char *part, *tensor = eng_safetensors_tensor (b->hf.st, i)->name;
    if (hf_is_left_out (&b->hf, tensor))
      continue;
    g_autofree char *module = hf_split_name (tensor, &part);
    if (strcmp (part, "weight") != 0 && strcmp (part, "bias") != 0 && !hf_is_attachment (part))
      return fail (b, ENG_ERROR_UNSUPPORTED, tensor, "has no place in the decoder that Valise knows by this architecture's name, so the model would answer wrongly");
    if (g_hash_table_contains (seen, module))
      continue;
    if (!note_module (b, module))
      return FALSE;
    g_hash_table_add (seen, g_steal_pointer (&module));
  }
  return TRUE;
}

/* q, k and v of a fused matrix in one order: all queries, all keys, all values. NULL: they are already. */
static guint32 *qkv_order (const Hf *hf, guint rows)
{
  guint h = hf->n_heads, kv = hf->n_kv_heads, d = hf->head_dim;
  if (!(hf->family->flags & (HF_QKV_BY_HEAD | HF_QKV_BY_GROUP)) || rows != (h + 2 * kv) * d)
    return NULL;
  guint groups = hf->family->flags & HF_QKV_BY_HEAD ? h : kv, queries = h / groups;
  guint32 *order = g_new (guint32, rows), *next = order;
  for (guint part = 0; part < 3; part++) /* q, k, v */
    for (guint g = 0; g < groups; g++)
      for (guint i = 0; i < (part == 0 ? queries : 1) * d; i++)
        *next++ = (g * (queries + 2) + (part == 0 ? 0 : queries + part - 1)) * d + i;
  return order;
}

/* Numbers that the view owns, [n_rows][n]. */
static gboolean add_floats (Build *b, const char *name, guint n_dims, guint64 n, guint64 n_rows, float *data)
{
  EngTensor tensor = { .name = name, .type = ENG_TYPE_F32, .n_dims = n_dims, .dims = { n, n_rows, 1, 1 }, .data = (const guint8 *) data };
  tensor.bytes = n * n_rows * sizeof (float);
  eng_gguf_own (b->gguf, data, g_free);
  return eng_gguf_add_tensor (b->gguf, &tensor) || fail (b, ENG_ERROR_FORMAT, name, "is there twice; the files do not belong together");
}

/* A vector, or one of each module: converted to f32. */
static gboolean add_vector (Build *b, const char *name, const Output *output, const char *part)
{
  g_autoptr (GArray) values = g_array_new (FALSE, FALSE, sizeof (float));
  guint64 width = 0, n_rows = output->modules->len;
  for (guint i = 0; i < output->modules->len; i++) {
    const char *module = output->modules->pdata[i];
    const EngStTensor *from = module ? hf_part (&b->hf, module, part) : NULL;
    guint64 n = from ? from->dims[0] * from->dims[1] * from->dims[2] * from->dims[3] : 0;
    guint rows = 0, cols = 0;
    if (from && hf_part (&b->hf, module, "trellis") && strcmp (part, "bias") == 0)
      hf_shape (&b->hf, output->name, &rows, &cols);
    n = rows > 0 ? MIN (n, rows) : n; /* EXL3 fills up what it adds as well */
    if (!from || from->type == ENG_ST_OTHER || n == 0 || n > 1 << 24 || (i > 0 && n != width))
      return fail (b, ENG_ERROR_FORMAT, module ? module : name, "lacks a part, or has one that is no vector of numbers; the files are damaged");
    width = n;
    g_array_set_size (values, (guint) (n * (i + 1)));
    eng_st_read (from, 0, n, (float *) (gpointer) values->data + n * i);
    if (output->modules->len == 1 && from->n_dims == 2 && (output->part == HF_EXPERTS || output->is_norm)) { /* a row to each expert or head */
      width = from->dims[1];
      n_rows = from->dims[0];
    }
  }
  float *data = g_memdup2 (values->data, values->len * sizeof (float));
  if (output->is_norm && b->hf.family->flags & HF_GAINS_LESS_ONE && strcmp (part, "weight") == 0)
    for (guint i = 0; i < values->len; i++)
      data[i] += 1;
  g_autofree guint32 *order = output->part == HF_QKV ? qkv_order (&b->hf, values->len) : NULL;
  for (guint i = 0; order && i < values->len; i++)
    data[i] = g_array_index (values, float, order[i]);
  return add_floats (b, name, n_rows > 1 ? 2 : 1, width, n_rows, data);
}

static gboolean add_packed (Build *b, const char *name, EngPacked *packed, guint n_dims, guint64 cols, guint64 rows, guint64 experts, guint64 bytes)
{
  EngTensor tensor = { .name = name, .type = ENG_TYPE_PACKED, .n_dims = n_dims, .dims = { cols, rows, experts, 1 }, .bytes = bytes, .packed = packed };
  eng_gguf_own (b->gguf, packed, (GDestroyNotify) eng_packed_free);
  return eng_gguf_add_tensor (b->gguf, &tensor) || fail (b, ENG_ERROR_FORMAT, name, "is there twice; the files do not belong together");
}

/* A float array that the decoder can compute with where it lies. */
static gboolean can_stay (const EngStTensor *t, guint *type)
{
  *type = t->type == ENG_ST_F16 ? ENG_TYPE_F16 : t->type == ENG_ST_BF16 ? ENG_TYPE_BF16 : ENG_TYPE_F32;
  return (t->type == ENG_ST_F16 || t->type == ENG_ST_BF16 || t->type == ENG_ST_F32) && (guintptr) t->data % (t->type == ENG_ST_F32 ? 4 : 2) == 0;
}

/* All stored bytes of a module's arrays but its bias. */
static guint64 stored_bytes (const Build *b, const char *module)
{
  static const char *const parts[] = { "weight", "qweight", "qzeros", "scales", "g_idx", "weight_packed", "weight_scale", "weight_zero_point", "weight_g_idx",
                                       "weight_scale_inv", "weight.absmax", "weight.quant_map", "SCB", "q_weight", "q_scale", "q_scale_max", "q_groups",
                                       "q_perm", "q_invperm", "blocks", "trellis", "suh", "svh", "su", "sv" };
  guint64 bytes = 0;
  for (guint i = 0; i < G_N_ELEMENTS (parts); i++) {
    const EngStTensor *t = hf_part (&b->hf, module, parts[i]);
    bytes += t ? t->bytes : 0;
  }
  return bytes;
}

/* The matrix of a module that belongs to an output, and its shape; a plain array of floats is one as well. */
static EngPacked *open_matrix (Build *b, const Output *output, const char *module, guint *rows, guint *cols)
{
  gboolean handled = FALSE;
  hf_shape (&b->hf, output->name, rows, cols);
  EngPacked *packed = hf_quantized_open (&b->hf, module, rows, cols, &handled, b->error);
  if (handled)
    return packed;
  const EngStTensor *t = hf_part (&b->hf, module, "weight");
  guint64 n_rows = 1;
  for (guint i = 0; t && i + 1 < t->n_dims; i++)
    n_rows *= t->dims[i];
  if (!t || t->n_dims < 1 || t->type == ENG_ST_OTHER || t->bytes == 0 || n_rows > G_MAXINT32 || t->dims[t->n_dims - 1] > G_MAXINT32) {
    fail (b, ENG_ERROR_FORMAT, module, "lacks its weights, or they are no matrix of numbers; the files are damaged");
    return NULL;
  }
  *rows = (guint) n_rows;
  *cols = (guint) t->dims[t->n_dims - 1];
  return hf_floats_open (t);
}

static gboolean add_joined (Build *b, const char *name, GPtrArray *parts, guint part_rows, guint cols, guint32 *order, guint rows, guint experts,
                            guint64 bytes)
{
  const char *why = NULL;
  EngPacked *joined = hf_join (parts, part_rows, cols, order, rows, &why);
  if (!joined)
    return fail (b, ENG_ERROR_UNSUPPORTED, name, why);
  return add_packed (b, name, joined, experts > 1 ? 3 : 2, cols, rows / experts, experts, bytes);
}

static gboolean add_experts (Build *b, const Output *output, const char *name)
{
  GPtrArray *parts = g_ptr_array_new_with_free_func ((GDestroyNotify) eng_packed_free);
  guint rows = 0, cols = 0, n = output->modules->len;
  guint64 bytes = 0;
  for (guint i = 0; i < n; i++) {
    guint r = 0, c = 0;
    EngPacked *part = output->modules->pdata[i] ? open_matrix (b, output, output->modules->pdata[i], &r, &c) : NULL;
    if (part)
      g_ptr_array_add (parts, part);
    if (!part || (i > 0 && (r != rows || c != cols))) {
      g_ptr_array_unref (parts);
      return (b->error && *b->error) ? FALSE : fail (b, ENG_ERROR_FORMAT, name, "lacks an expert, or they differ in shape; the files are damaged");
    }
    rows = r;
    cols = c;
    bytes += stored_bytes (b, output->modules->pdata[i]);
  }
  if ((guint64) rows * n > G_MAXINT32) {
    g_ptr_array_unref (parts);
    return fail (b, ENG_ERROR_FORMAT, name, "has more rows than a matrix can have");
  }
  return add_joined (b, name, parts, rows, cols, NULL, rows * n, n, bytes);
}

/* [experts][rows][cols], or the other way round: TRUE where it is three numbers that a matrix can have. */
static gboolean is_of_experts (const EngStTensor *t)
{
  return t && t->n_dims == 3 && t->dims[0] > 0 && t->dims[0] <= 4096 && t->dims[1] > 1 && t->dims[1] <= G_MAXINT32 / 4096 && t->dims[2] > 1
         && t->dims[2] <= G_MAXINT32 / 4096 && t->bytes > 0 && t->type != ENG_ST_OTHER;
}

/* Whether experts in one tensor are stored [columns][rows]: gpt-oss' are unless they are quantized, others' where their shape says so. */
static gboolean is_turned (const Build *b, const EngStTensor *t, gboolean is_down)
{
  if (!is_of_experts (t))
    return FALSE;
  gboolean plain = t->dims[is_down ? 1 : 2] == b->hf.n_embd, turned = t->dims[is_down ? 2 : 1] == b->hf.n_embd;
  return turned && (!plain || b->hf.family->flags & HF_EXPERTS_TURNED);
}

/* The name of the other half of what is stored as gate and up together. */
static char *half_name (const Output *output, guint up, const char *ending)
{
  g_autoptr (GString) name = g_string_new (output->name);
  if (up)
    g_string_replace (name, "ffn_gate_exps", "ffn_up_exps", 1);
  return g_strconcat (name->str, ending, NULL);
}

/* Row i of gate (up = 0) or up (1) in n experts' rows of both: one behind the other, or in turns. */
static guint half_row (const Build *b, guint i, guint half, guint up)
{
  guint inside = b->hf.family->flags & HF_EXPERTS_MIXED ? i % half * 2 + up : up * half + i % half;
  return i / half * 2 * half + inside;
}

static gboolean add_gate_up (Build *b, const Output *output, const char *module)
{
  const EngStTensor *t = hf_part (&b->hf, module, "weight"), *blocks = hf_part (&b->hf, module, "blocks");
  guint64 n = t ? t->dims[0] : blocks ? blocks->dims[0] : 0;
  for (guint up = 0; up < 2; up++) {
    guint rows = 0, cols = 0;
    g_autofree char *name = half_name (output, up, ".weight");
    if (is_turned (b, t, FALSE)) {
      gboolean mixed = (b->hf.family->flags & HF_EXPERTS_MIXED) != 0;
      guint half = (guint) t->dims[2] / 2;
      if (!add_packed (b, name, hf_turned_open (t, mixed ? up : up * half, mixed ? 2 : 1, half), 3, t->dims[1], half, n, t->bytes / 2))
        return FALSE;
      continue;
    }
    EngPacked *packed = open_matrix (b, output, module, &rows, &cols);
    if (!packed)
      return FALSE;
    if (n < 1 || n > 4096 || rows % (2 * n) != 0) {
      eng_packed_free (packed);
      return fail (b, ENG_ERROR_FORMAT, module, "does not hold a gate and an up matrix to each expert; the files are damaged");
    }
    guint half = rows / 2 / (guint) n, wanted = rows / 2;
    guint32 *order = g_new (guint32, (gsize) wanted + 1);
    for (guint i = 0; i < wanted; i++)
      order[i] = half_row (b, i, half, up);
    GPtrArray *parts = g_ptr_array_new_with_free_func ((GDestroyNotify) eng_packed_free);
    g_ptr_array_add (parts, packed);
    if (!add_joined (b, name, parts, rows, cols, order, wanted, (guint) n, stored_bytes (b, module) / 2))
      return FALSE;
  }
  return TRUE;
}

static gboolean add_gate_up_bias (Build *b, const Output *output, const EngStTensor *t)
{
  if (t->n_dims != 2 || t->dims[0] < 1 || t->dims[0] > 4096 || t->dims[1] < 2 || t->dims[1] > 1 << 20 || t->dims[1] % 2 != 0 || t->type == ENG_ST_OTHER)
    return fail (b, ENG_ERROR_FORMAT, t->name, "is no two vectors to each expert; the files are damaged");
  guint n = (guint) t->dims[0], half = (guint) t->dims[1] / 2;
  g_autofree float *all = g_new (float, 2 * (gsize) n * half);
  eng_st_read (t, 0, 2 * (guint64) n * half, all);
  for (guint up = 0; up < 2; up++) {
    g_autofree char *name = half_name (output, up, ".bias");
    float *data = g_new (float, (gsize) n * half);
    for (guint i = 0; i < n * half; i++)
      data[i] = all[half_row (b, i, half, up)];
    if (!add_floats (b, name, 2, half, n, data))
      return FALSE;
  }
  return TRUE;
}

/* A matrix of a layer that stands the other way round, [columns][rows], or one of all experts that does. */
static gboolean add_turned (Build *b, const char *name, const EngStTensor *t)
{
  guint64 cols = t->dims[t->n_dims - 2], rows = t->dims[t->n_dims - 1], experts = t->n_dims == 3 ? t->dims[0] : 1;
  if (cols < 1 || rows < 1 || cols > G_MAXINT32 / 4096 || rows > G_MAXINT32 / 4096 || t->type == ENG_ST_OTHER)
    return fail (b, ENG_ERROR_FORMAT, t->name, "is no matrix of numbers; the files are damaged");
  return add_packed (b, name, hf_turned_open (t, 0, 1, (guint) rows), experts > 1 ? 3 : 2, cols, rows, experts, t->bytes);
}

/* Of which the decoder reads a row, or a head's or an expert's rows, alone. */
static gboolean is_taken_apart (const char *name)
{
  static const char *const names[] = { "token_embd", "position_embd", "attn_kv_b", "attn_k_b", "attn_v_b", "_exps" };
  for (guint i = 0; i < G_N_ELEMENTS (names); i++)
    if (g_str_has_suffix (name, names[i]))
      return TRUE;
  return FALSE;
}

static gboolean add_matrix (Build *b, const Output *output, const char *name)
{
  const char *module = output->modules->pdata[0];
  if (!module)
    return fail (b, ENG_ERROR_FORMAT, name, "is incomplete; the files are damaged");
  guint rows = 0, cols = 0, type = ENG_TYPE_F32;
  const EngStTensor *t = hf_part (&b->hf, module, "weight"), *blocks = hf_part (&b->hf, module, "blocks");
  if (output->part == HF_GATE_UP_EXPERTS)
    return add_gate_up (b, output, module);
  if ((output->part == HF_EXPERTS && is_turned (b, t, TRUE)) || (b->hf.family->flags & HF_TURNED && t && t->n_dims == 2 && g_str_has_prefix (name, "blk.")))
    return add_turned (b, name, t);
  EngPacked *packed = open_matrix (b, output, module, &rows, &cols);
  if (!packed)
    return FALSE;
  if (is_taken_apart (output->name))
    hf_keep_numbers (packed);
  guint32 *order = output->part == HF_QKV ? qkv_order (&b->hf, rows) : NULL;
  gboolean is_floats = t && !packed->layout && can_stay (t, &type) && strcmp (packed->class->method, "floats") == 0;
  guint64 experts = t && t->n_dims == 3 ? t->dims[0] : blocks && blocks->n_dims == 4 ? blocks->dims[0] : 1;
  if (is_floats && !order) {
    eng_packed_free (packed);
    EngTensor tensor = { .name = name, .type = type, .n_dims = experts > 1 ? 3 : 2, .dims = { cols, rows / experts, experts, 1 }, .bytes = t->bytes, .data = t->data };
    return eng_gguf_add_tensor (b->gguf, &tensor) || fail (b, ENG_ERROR_FORMAT, name, "is there twice; the files do not belong together");
  }
  guint64 bytes = stored_bytes (b, module);
  if (!order)
    return add_packed (b, name, packed, experts > 1 ? 3 : 2, cols, rows / experts, experts, bytes);
  GPtrArray *parts = g_ptr_array_new_with_free_func ((GDestroyNotify) eng_packed_free);
  g_ptr_array_add (parts, packed);
  return add_joined (b, name, parts, rows, cols, order, rows, 1, bytes);
}

static const EngStTensor *first_part (const Build *b, const Output *output, const char *part)
{
  return output->modules->pdata[0] ? hf_part (&b->hf, output->modules->pdata[0], part) : NULL;
}

static gboolean add_output (Build *b, const Output *output)
{
  g_autofree char *weight = g_strconcat (output->name, ".weight", NULL), *bias = g_strconcat (output->name, ".bias", NULL);
  const EngStTensor *w = first_part (b, output, "weight"), *v = first_part (b, output, "bias");
  if (output->part == HF_BIAS)
    return add_vector (b, bias, output, "weight");
  if (v && !(output->part == HF_GATE_UP_EXPERTS ? add_gate_up_bias (b, output, v) : add_vector (b, bias, output, "bias")))
    return FALSE;
  /* One row that is added up with the hidden state: a vector, however it is written. */
  if (w && (w->n_dims <= 1 || g_str_has_suffix (output->name, "ffn_gate_inp_shexp") || output->is_norm))
    return add_vector (b, weight, output, "weight");
  return output->part == HF_EXPERT ? add_experts (b, output, weight) : add_matrix (b, output, weight);
}

static gboolean add_rope_factors (Build *b)
{
  static const char *const names[] = { "rope_freqs.weight", "rope_factors_short.weight", "rope_factors_long.weight" };
  for (guint i = 0; i < G_N_ELEMENTS (names); i++) {
    guint n = 0;
    float *factors = hf_rope_factors (&b->hf, names[i], &n);
    if (!factors)
      continue;
    eng_gguf_own (b->gguf, factors, g_free);
    EngTensor tensor = { .name = names[i], .type = ENG_TYPE_F32, .n_dims = 1, .dims = { n, 1, 1, 1 }, .bytes = n * sizeof (float), .data = (guint8 *) factors };
    if (n > 0 && !eng_gguf_add_tensor (b->gguf, &tensor))
      return fail (b, ENG_ERROR_FORMAT, names[i], "is there twice; the files do not belong together");
  }
  return TRUE;
}

/* ---- opening ------------------------------------------------------------------------------------------------------------------------ */

static gboolean read_config (Build *b, JsonNode *root)
{
  JsonObject *config = json_node_get_object (root);
  const char *type = hf_string (config, "model_type", "");
  b->hf.quantization = json_object_has_member (config, "quantization_config") && JSON_NODE_HOLDS_OBJECT (json_object_get_member (config, "quantization_config"))
                         ? json_object_get_object_member (config, "quantization_config")
                         : NULL;
  JsonNode *text = json_object_get_member (config, "text_config"); /* a model that sees pictures as well */
  if (text && JSON_NODE_HOLDS_OBJECT (text)) {
    JsonNode *tied = json_object_get_member (config, "tie_word_embeddings");
    config = json_node_get_object (text);
    type = hf_string (config, "model_type", type);
    if (tied)
      json_object_set_member (config, "tie_word_embeddings", json_node_copy (tied));
    hf_add_defaults (config, type);
  }
  b->pictures = json_object_has_member (json_node_get_object (root), "vision_config");
  b->hf.config = config;
  b->hf.family = hf_family_find (type);
  if (b->hf.family)
    return TRUE;
  g_set_error (b->error, ENG_ERROR, ENG_ERROR_UNSUPPORTED, "%s holds a model of the type \"%.40s\", whose safetensors Valise does not know; look for a GGUF file of it",
               b->hf.folder, type);
  return FALSE;
}

/* The folder's own vocabulary, if it has one: weights can be looked at without. */
static gboolean write_vocabulary (Build *b, EngGgufWriter *writer)
{
  if (!exists (b->hf.folder, "tokenizer.json") && !exists (b->hf.folder, "tokenizer.model"))
    return TRUE;
  static const char *const names[] = { "tokenizer.json", "tokenizer.model", "tokenizer_config.json", "generation_config.json", "chat_template.jinja" };
  GBytes *files[G_N_ELEMENTS (names)] = { NULL };
  GError *local = NULL;
  for (guint i = 0; i < G_N_ELEMENTS (names) && !local; i++)
    files[i] = read_file (b->hf.folder, names[i], MAX_JSON, &local);
  EngVocabFiles beside = { b->hf.folder, files[0], files[1], files[2], files[3], files[4] };
  g_autoptr (EngVocab) vocab = NULL;
  if (!local)
    vocab = eng_vocab_new_from_files (&beside, (guint) CLAMP (hf_int (b->hf.config, "vocab_size", 0), 0, G_MAXINT32), &local);
  if (vocab)
    eng_vocab_write (vocab, writer);
  for (guint i = 0; i < G_N_ELEMENTS (files); i++)
    g_clear_pointer (&files[i], g_bytes_unref);
  if (local)
    g_propagate_error (b->error, local);
  return vocab != NULL;
}

static gboolean build (Build *b, GPtrArray *names, const EngGguf *vocabulary)
{
  g_autoptr (EngGgufWriter) writer = eng_gguf_writer_new (64);
  g_autoptr (GPtrArray) paths = g_ptr_array_new_with_free_func (g_free);
  for (guint i = 0; i < names->len; i++)
    g_ptr_array_add (paths, g_build_filename (b->hf.folder, names->pdata[i], NULL));
  g_ptr_array_add (paths, NULL);
  if (!hf_write_keys (&b->hf, writer, b->error))
    return FALSE;
  b->hf.st = eng_safetensors_open ((char **) paths->pdata, b->error);
  if (!b->hf.st)
    return FALSE;
  eng_gguf_writer_set_string (writer, "valise.source.format", "safetensors");
  if (b->pictures)
    eng_gguf_writer_set_bool (writer, "valise.pictures", TRUE);
  hf_write_method (&b->hf, writer);
  if (vocabulary)
    eng_gguf_writer_copy_keys (writer, vocabulary, "tokenizer.");
  else if (!write_vocabulary (b, writer)) {
    eng_safetensors_free (b->hf.st);
    return FALSE;
  }
  b->gguf = eng_gguf_new_from_keys (b->hf.folder, writer, eng_safetensors_bytes (b->hf.st), b->error);
  if (!b->gguf) {
    eng_safetensors_free (b->hf.st);
    return FALSE;
  }
  if (!eng_traits_read (&b->hf.traits, b->gguf, NULL)) /* whoever computes with the model is told why */
    b->hf.traits = (EngTraits) { 0 };
  eng_gguf_own (b->gguf, b->hf.st, (GDestroyNotify) eng_safetensors_free);
  if (!note_modules (b))
    return FALSE;
  if (g_hash_table_contains (b->by_name, "blk.0.ffn_gate")) /* EXL3 takes apart what a family has in one */
    b->hf.traits.fused_gate_up = FALSE;
  for (guint i = 0; i < b->outputs->len; i++)
    if (!add_output (b, b->outputs->pdata[i]))
      return FALSE;
  return add_rope_factors (b);
}

EngGguf *eng_hf_open (const char *folder, const EngGguf *vocabulary, GError **error)
{
  GError *local = NULL;
  g_autoptr (JsonNode) config = read_json (folder, "config.json", MAX_CONFIG, &local);
  if (!config) {
    if (!local)
      g_set_error (&local, ENG_ERROR, ENG_ERROR_FORMAT, "%s holds no config.json, without which its weights mean nothing; download it as well", folder);
    g_propagate_error (error, local);
    return NULL;
  }
  g_autoptr (GPtrArray) names = weight_files (folder, &local);
  Build b = { .hf.folder = folder, .error = &local };
  b.outputs = g_ptr_array_new_with_free_func (free_output);
  b.by_name = g_hash_table_new (g_str_hash, g_str_equal);
  gboolean ok = names && read_config (&b, config) && build (&b, names, vocabulary);
  g_ptr_array_unref (b.outputs);
  g_hash_table_unref (b.by_name);
  if (!ok) {
    g_clear_pointer (&b.gguf, eng_gguf_unref);
    g_propagate_error (error, local);
  }
  return b.gguf;
}
