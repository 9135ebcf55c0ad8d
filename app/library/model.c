/* model.c: the snapshot of a model's row, and reading what a row says from the file itself. */
#include "app/library/library-private.h"

#include "engine/checkpoint/checkpoint.h"

#include <math.h>
#include <string.h>
#include <sys/stat.h>

struct _ValiseModel {
  GObject parent;
  ValiseModelRow row;
};

G_DEFINE_FINAL_TYPE (ValiseModel, valise_model, G_TYPE_OBJECT)

#define KEY_SAMPLE (64 << 10) /* bytes looked at from each end of a file outside the library */

static void replace_string (char **place, const char *text);
static gboolean check_types (const EngGguf *gguf, GError **error);
static double count_bpw (const EngGguf *gguf, guint64 parameters);

static void valise_model_finalize (GObject *object)
{
  valise_model_row_clear (&VALISE_MODEL (object)->row);
  G_OBJECT_CLASS (valise_model_parent_class)->finalize (object);
}

static void valise_model_class_init (ValiseModelClass *class)
{
  G_OBJECT_CLASS (class)->finalize = valise_model_finalize;
}

static void valise_model_init (ValiseModel *model)
{
}

ValiseModel *valise_model_new (ValiseModelRow *row)
{
  ValiseModel *model = g_object_new (VALISE_TYPE_MODEL, NULL);
  model->row = *row;
  memset (row, 0, sizeof *row);
  return model;
}

void valise_model_row_clear (ValiseModelRow *row)
{
  g_free (row->name);
  g_free (row->architecture);
  g_free (row->license);
  g_free (row->source);
  g_free (row->path);
  g_free (row->sha256);
  memset (row, 0, sizeof *row);
}

gint64 valise_model_get_id (ValiseModel *model)
{
  return model->row.id;
}

const char *valise_model_get_name (ValiseModel *model)
{
  return model->row.name;
}

ValiseModelKind valise_model_get_kind (ValiseModel *model)
{
  return model->row.kind;
}

const char *valise_model_get_architecture (ValiseModel *model)
{
  return model->row.architecture;
}

guint64 valise_model_get_parameters (ValiseModel *model)
{
  return model->row.parameters;
}

guint64 valise_model_get_bytes (ValiseModel *model)
{
  return model->row.bytes;
}

double valise_model_get_bpw (ValiseModel *model)
{
  return model->row.bpw;
}

const char *valise_model_get_license (ValiseModel *model)
{
  return model->row.license;
}

const char *valise_model_get_source (ValiseModel *model)
{
  return model->row.source;
}

const char *valise_model_get_path (ValiseModel *model)
{
  return model->row.path;
}

const char *valise_model_get_sha256 (ValiseModel *model)
{
  return model->row.sha256;
}

gint64 valise_model_get_parent (ValiseModel *model)
{
  return model->row.parent;
}

double valise_model_get_kl (ValiseModel *model)
{
  return model->row.kl;
}

gboolean valise_model_sees_pictures (ValiseModel *model)
{
  EngTraits traits;
  g_autoptr (EngGguf) gguf = eng_checkpoint_open (valise_model_get_path (model), NULL);
  return gguf && eng_traits_read (&traits, gguf, NULL) && traits.pictures;
}

guint valise_model_get_context (ValiseModel *model)
{
  return model->row.context;
}

void valise_json_set_number (JsonObject *object, const char *name, double value)
{
  if (isfinite (value))
    json_object_set_double_member (object, name, value);
  else
    json_object_set_null_member (object, name);
}

JsonObject *valise_model_to_json (ValiseModel *model)
{
  const ValiseModelRow *row = &model->row;
  JsonObject *object = json_object_new ();
  json_object_set_string_member (object, "name", row->name);
  json_object_set_string_member (object, "kind", row->kind == VALISE_MODEL_FIT ? "fit" : "checkpoint");
  json_object_set_string_member (object, "architecture", row->architecture);
  json_object_set_int_member (object, "parameters", (gint64) row->parameters);
  json_object_set_int_member (object, "bytes", (gint64) row->bytes);
  json_object_set_double_member (object, "bpw", row->bpw);
  json_object_set_string_member (object, "license", row->license);
  json_object_set_string_member (object, "source", row->source);
  json_object_set_string_member (object, "path", row->path);
  json_object_set_string_member (object, "sha256", row->sha256);
  json_object_set_int_member (object, "context", row->context);
  valise_json_set_number (object, "kl_divergence", row->kl);
  return object;
}

EngCheckpointSource *valise_model_describe_weights (ValiseModel *model, GError **error)
{
  g_autoptr (EngGguf) gguf = eng_checkpoint_open (model->row.path, error);
  return gguf ? eng_checkpoint_describe (gguf) : NULL;
}

char *valise_weights_text (const EngCheckpointSource *weights)
{
  GString *text = g_string_new (NULL);
  g_string_append_printf (text, "%s, %s%s", weights->format, weights->is_mixed ? "mostly " : "", weights->method);
  if (weights->bits > 0 && (!weights->is_mixed || weights->group != 0)) /* F16 says it */
    g_string_append_printf (text, weights->bits == (int) weights->bits ? ", %.0f bits" : ", %.2f bits", weights->bits);
  if (weights->group > 0)
    g_string_append_printf (text, ", groups of %d", weights->group);
  else if (weights->group < 0)
    g_string_append (text, ", one scale to a row");
  if (weights->is_ordered)
    g_string_append (text, ", columns in the order of importance");
  if (weights->calibration)
    g_string_append_printf (text, ", calibrated on %s", weights->calibration);
  return g_string_free (text, FALSE);
}

JsonObject *valise_weights_to_json (const EngCheckpointSource *weights)
{
  JsonObject *object = json_object_new ();
  json_object_set_string_member (object, "format", weights->format);
  json_object_set_string_member (object, "method", weights->method);
  valise_json_set_number (object, "bits", weights->bits > 0 ? weights->bits : NAN);
  valise_json_set_number (object, "group", weights->group != 0 ? weights->group : NAN);
  json_object_set_boolean_member (object, "ordered", weights->is_ordered);
  json_object_set_string_member (object, "calibration", weights->calibration);
  json_object_set_string_member (object, "kept", weights->kept);
  return object;
}

gboolean valise_model_row_read (ValiseModelRow *row, const char *path, GError **error)
{
  g_autoptr (EngGguf) gguf = eng_checkpoint_open (path, error);
  EngTraits traits;
  if (!gguf || !eng_traits_read (&traits, gguf, error) || !check_types (gguf, error))
    return FALSE;
  /* A model without a usable vocabulary would only fail later, in a chat. */
  g_autoptr (EngTokenizer) tokenizer = eng_tokenizer_new (gguf, error);
  if (!tokenizer)
    return FALSE;
  replace_string (&row->path, path);
  replace_string (&row->architecture, traits.architecture);
  replace_string (&row->license, eng_gguf_get_string (gguf, "general.license", ""));
  row->kind = eng_gguf_has (gguf, "valise.version") ? VALISE_MODEL_FIT : VALISE_MODEL_CHECKPOINT;
  row->parameters = traits.n_parameters;
  row->bytes = eng_gguf_file_bytes (gguf);
  row->bpw = count_bpw (gguf, traits.n_parameters);
  row->kl = eng_gguf_get_float (gguf, "valise.kl_divergence", NAN);
  row->context = traits.n_ctx_train;
  return TRUE;
}

char *valise_model_content_key (ValiseModel *model, GError **error)
{
  if (model->row.id != 0)
    return g_strdup (model->row.sha256);
  g_autoptr (GPtrArray) shards = valise_shards_of (model->row.path, error);
  g_autoptr (GChecksum) checksum = g_checksum_new (G_CHECKSUM_SHA256);
  for (guint i = 0; shards && i < shards->len; i++) {
    const char *path = shards->pdata[i];
    struct stat info;
    g_autoptr (GFile) file = g_file_new_for_path (path);
    g_autoptr (GFileInputStream) stream = g_file_read (file, NULL, error);
    if (!stream || stat (path, &info) < 0)
      return NULL;
    g_autofree char *real = g_canonicalize_filename (path, NULL);
    gint64 state[3] = { info.st_size, info.st_mtim.tv_sec, info.st_mtim.tv_nsec };
    g_checksum_update (checksum, (const guchar *) real, -1);
    g_checksum_update (checksum, (const guchar *) state, sizeof state);
    g_autofree guint8 *sample = g_malloc (KEY_SAMPLE);
    for (int end = 0; end < 2; end++) {
      gsize n;
      goffset from = end ? MAX (0, info.st_size - KEY_SAMPLE) : 0;
      if (!g_seekable_seek (G_SEEKABLE (stream), from, G_SEEK_SET, NULL, error)
          || !g_input_stream_read_all (G_INPUT_STREAM (stream), sample, KEY_SAMPLE, &n, NULL, error))
        return NULL;
      g_checksum_update (checksum, sample, (gssize) n);
    }
  }
  return shards ? g_strdup (g_checksum_get_string (checksum)) : NULL;
}

/* ---- helpers ---- */

static void replace_string (char **place, const char *text)
{
  g_free (*place);
  *place = g_strdup (text);
}

static gboolean check_types (const EngGguf *gguf, GError **error)
{
  for (guint i = 0; i < eng_gguf_n_tensors (gguf); i++) {
    const EngTensor *tensor = eng_gguf_tensor (gguf, i);
    if (tensor->type == ENG_TYPE_I8 || eng_tensor_is_readable (tensor))
      continue;
    g_set_error (error, ENG_ERROR, ENG_ERROR_UNSUPPORTED,
                 "%s: tensor %s has the type %s, which this Valise cannot read: use a file of F16, Q8_0 or Q4_K weights", eng_gguf_path (gguf),
                 tensor->name, eng_tensor_type_name (tensor));
    return FALSE;
  }
  return TRUE;
}

/* All stored bits of the matrices over their weights. What is not a matrix (norms, biases) is one-dimensional and stored as floats. */
static double count_bpw (const EngGguf *gguf, guint64 parameters)
{
  guint64 bytes = 0, vectors = 0;
  for (guint i = 0; i < eng_gguf_n_tensors (gguf); i++) {
    const EngTensor *tensor = eng_gguf_tensor (gguf, i);
    if (tensor->n_dims <= 1 && tensor->type != ENG_TYPE_I8)
      vectors += tensor->dims[0];
    else
      bytes += tensor->bytes;
  }
  return parameters > vectors ? 8.0 * (double) bytes / (double) (parameters - vectors) : 0;
}
