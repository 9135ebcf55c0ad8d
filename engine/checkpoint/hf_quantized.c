/* hf_quantized.c: which method a module was quantized with, told by the arrays that are there, and its settings by config.json. */
#include "engine/checkpoint/hf_quantized.h"

#include "engine/checkpoint/hf_ints.h"
#include "engine/error.h"

#include <string.h>

static const char *const attachments[] = {
  "qweight", "qzeros", "scales", "g_idx", "weight_packed", "weight_scale", "weight_zero_point", "weight_shape", "weight_g_idx", "weight_global_scale",
  "input_scale", "input_global_scale", "input_zero_point", "output_scale", "k_scale", "v_scale", "weight_scale_inv", "SCB", "weight_format", "absmax",
  "quant_map", "nested_absmax", "nested_quant_map", "bitsandbytes__nf4", "bitsandbytes__fp4", "q_weight", "q_scale", "q_scale_max", "q_groups", "q_perm",
  "q_invperm", "q_group_map", "blocks", "trellis", "suh", "svh", "su", "sv", "mcg", "mul1",
};

gboolean hf_is_attachment (const char *part)
{
  for (guint i = 0; i < G_N_ELEMENTS (attachments); i++)
    if (strcmp (attachments[i], part) == 0)
      return TRUE;
  return FALSE;
}

EngPacked *hf_refuse (const Hf *hf, const char *module, const char *why, GError **error)
{
  g_set_error (error, ENG_ERROR, ENG_ERROR_UNSUPPORTED, "%s: tensor %s %s", hf->folder, module, why);
  return NULL;
}

static EngPacked *open_ints (const Hf *hf, const char *module, const HfInts *ints, guint *rows, guint *cols, GError **error)
{
  const char *why = NULL;
  *rows = ints->rows;
  *cols = ints->cols;
  EngPacked *packed = hf_ints_open (ints, &why);
  return packed ? packed : hf_refuse (hf, module, why, error);
}

static guint group_size (gint64 size, guint cols)
{
  return size < 1 || size > cols ? cols : (guint) size;
}

static gboolean is_matrix (const EngStTensor *t)
{
  return t && t->n_dims == 2 && t->dims[0] > 0 && t->dims[1] > 0 && t->dims[0] <= G_MAXINT32 / 64 && t->dims[1] <= G_MAXINT32 / 64;
}

/* ---- GPTQ and AWQ ---------------------------------------------------------------------------------------------------------------- */

static EngPacked *open_gptq (const Hf *hf, const char *module, guint *rows, guint *cols, GError **error)
{
  const EngStTensor *codes = hf_part (hf, module, "qweight"), *zeros = hf_part (hf, module, "qzeros"), *scales = hf_part (hf, module, "scales");
  gint64 bits = hf_int (hf->quantization, "bits", hf_int (hf->quantization, "w_bit", 4));
  const char *method = hf_string (hf->quantization, "quant_method", "gptq");
  gboolean is_awq = strcmp (method, "awq") == 0;
  if (!is_matrix (codes) || !scales || (is_awq ? bits != 4 : bits != 2 && bits != 3 && bits != 4 && bits != 8))
    return hf_refuse (hf, module, is_awq ? "is AWQ of another kind than 4 bits (GEMM); choose another file" : "is GPTQ of another kind than 2, 3, 4 or 8 bits; choose another file",
                      error);
  if (is_awq && g_ascii_strcasecmp (hf_string (hf->quantization, "version", "gemm"), "gemm") != 0)
    return hf_refuse (hf, module, "is AWQ in the order of another kernel than GEMM, which is not known to Valise; choose another file", error);
  HfInts ints = { .method = is_awq ? "AWQ" : "GPTQ", .bits = (guint) bits, .codes = codes, .zeros = zeros, .scales = scales, .scales_by_group = TRUE, .divisor = 1 };
  ints.cols = (guint) (is_awq ? codes->dims[0] : codes->dims[0] * 32 / (guint64) bits);
  ints.rows = (guint) (is_awq ? codes->dims[1] * 8 : codes->dims[1]);
  ints.group = group_size (hf_int (hf->quantization, "group_size", hf_int (hf->quantization, "q_group_size", 128)), ints.cols);
  ints.packing = is_awq ? HF_INTS_AWQ : HF_INTS_COLUMNS;
  ints.zeros_packing = zeros ? (is_awq ? HF_ZEROS_AWQ : HF_ZEROS_STREAM) : HF_ZEROS_NONE;
  ints.zero = 1 << (bits - 1);
  /* The first version of the format stores zero points less one. */
  ints.zero_more = strcmp (hf_string (hf->quantization, "checkpoint_format", "gptq"), "gptq_v2") == 0 ? 0 : 1;
  ints.group_of = is_awq ? NULL : hf_part (hf, module, "g_idx");
  return open_ints (hf, module, &ints, rows, cols, error);
}

/* ---- compressed-tensors ------------------------------------------------------------------------------------------------------------ */

/* The weights' settings: those of the group that is there; models whose layers differ have several, which must agree on bits and size. */
static JsonObject *weight_settings (const Hf *hf)
{
  JsonNode *groups = hf->quantization ? json_object_get_member (hf->quantization, "config_groups") : NULL;
  JsonObjectIter iter;
  const char *name;
  JsonNode *node;
  if (!groups || !JSON_NODE_HOLDS_OBJECT (groups))
    return NULL;
  json_object_iter_init (&iter, json_node_get_object (groups));
  while (json_object_iter_next (&iter, &name, &node)) {
    JsonNode *weights = JSON_NODE_HOLDS_OBJECT (node) ? json_object_get_member (json_node_get_object (node), "weights") : NULL;
    if (weights && JSON_NODE_HOLDS_OBJECT (weights))
      return json_node_get_object (weights);
  }
  return NULL;
}

static EngPacked *open_compressed (const Hf *hf, const char *module, guint *rows, guint *cols, GError **error)
{
  const EngStTensor *codes = hf_part (hf, module, "weight_packed"), *shape = hf_part (hf, module, "weight_shape");
  JsonObject *settings = weight_settings (hf);
  const EngStTensor *scales = hf_part (hf, module, "weight_scale");
  if (codes && codes->type == ENG_ST_U8)
    return scales && scales->type == ENG_ST_U8 ? hf_mxfp4_open (hf, module, rows, cols, error) : hf_nvfp4_open (hf, module, rows, cols, error);
  gint64 bits = hf_int (settings, "num_bits", 4), size[2] = { 0, 0 };
  if (!is_matrix (codes) || bits < 2 || bits > 8 || !shape || shape->bytes != 16 || shape->type != ENG_ST_I64)
    return hf_refuse (hf, module, "is packed by compressed-tensors in a way that Valise does not know; choose another file", error);
  memcpy (size, shape->data, sizeof size);
  if (size[0] < 1 || size[1] < 1 || size[0] > G_MAXINT32 / 64 || size[1] > G_MAXINT32 / 64)
    return hf_refuse (hf, module, "has an impossible shape; the files are damaged", error);
  HfInts ints = { .method = "compressed-tensors", .rows = (guint) size[0], .cols = (guint) size[1], .bits = (guint) bits, .codes = codes,
                  .scales = hf_part (hf, module, "weight_scale"), .zeros = hf_part (hf, module, "weight_zero_point"),
                  .group_of = hf_part (hf, module, "weight_g_idx"), .packing = HF_INTS_ROWS, .zero = 1 << (bits - 1), .divisor = 1 };
  ints.zeros_packing = ints.zeros ? HF_ZEROS_ROWS : HF_ZEROS_NONE;
  ints.group = group_size (hf_int (settings, "group_size", -1), ints.cols);
  return open_ints (hf, module, &ints, rows, cols, error);
}

/* int8 [rows][cols] with a scale per row or group: compressed-tensors, or bitsandbytes, whose scale is of 127. */
static EngPacked *open_bytes (const Hf *hf, const char *module, const EngStTensor *codes, guint *rows, guint *cols, GError **error)
{
  const EngStTensor *scb = hf_part (hf, module, "SCB"), *scales = scb ? scb : hf_part (hf, module, "weight_scale");
  if (!is_matrix (codes) || !scales)
    return hf_refuse (hf, module, "is stored as bytes without the scales that they need; the files are incomplete", error);
  HfInts ints = { .method = scb ? "bitsandbytes int8" : "compressed-tensors", .rows = (guint) codes->dims[0], .cols = (guint) codes->dims[1], .bits = 8, .codes = codes,
                  .scales = scales, .zeros = scb ? NULL : hf_part (hf, module, "weight_zero_point"), .packing = HF_INTS_BYTES, .zero = 128, .zero_more = 128,
                  .divisor = scb ? 127 : 1 };
  ints.zeros_packing = ints.zeros ? HF_ZEROS_BYTES : HF_ZEROS_NONE;
  ints.group = group_size (hf_int (weight_settings (hf), "group_size", -1), ints.cols);
  return open_ints (hf, module, &ints, rows, cols, error);
}

/* ---- BitNet ------------------------------------------------------------------------------------------------------------------------- */

static EngPacked *open_bitnet (const Hf *hf, const char *module, guint *rows, guint *cols, GError **error)
{
  const EngStTensor *codes = hf_part (hf, module, "weight");
  if (!is_matrix (codes) || codes->dims[0] > G_MAXINT32 / 256)
    return hf_refuse (hf, module, "is BitNet's of another shape than a matrix's; the files are damaged", error);
  HfInts ints = { .method = "BitNet", .rows = (guint) codes->dims[0] * 4, .cols = (guint) codes->dims[1], .bits = 2, .codes = codes,
                  .scales = hf_part (hf, module, "weight_scale"), .packing = HF_INTS_QUARTERS, .zero = 1, .divisor = 1, .one_scale = TRUE };
  ints.group = ints.cols;
  /* The older kind of module divides by its scale. */
  ints.divides = strcmp (hf_string (hf->quantization, "linear_class", "bitlinear"), "autobitlinear") != 0;
  return open_ints (hf, module, &ints, rows, cols, error);
}

/* ---- which ---------------------------------------------------------------------------------------------------------------------------- */

EngPacked *hf_quantized_open (const Hf *hf, const char *module, guint *rows, guint *cols, gboolean *handled, GError **error)
{
  const EngStTensor *weight = hf_part (hf, module, "weight");
  *handled = TRUE;
  if (hf_part (hf, module, "trellis"))
    return hf_exl3_open (hf, module, rows, cols, error);
  if (hf_part (hf, module, "blocks"))
    return hf_mxfp4_open (hf, module, rows, cols, error);
  if (hf_part (hf, module, "q_weight"))
    return hf_exl2_open (hf, module, rows, cols, error);
  if (hf_part (hf, module, "qweight"))
    return open_gptq (hf, module, rows, cols, error);
  if (hf_part (hf, module, "weight_packed"))
    return open_compressed (hf, module, rows, cols, error);
  if (weight && weight->type == ENG_ST_I8)
    return open_bytes (hf, module, weight, rows, cols, error);
  if (weight && g_strcmp0 (hf_string (hf->quantization, "quant_method", NULL), "bitnet") == 0 && hf_part (hf, module, "weight_scale"))
    return open_bitnet (hf, module, rows, cols, error);
  if (weight && weight->type == ENG_ST_U8)
    return hf_fp4_open (hf, module, rows, cols, error);
  if (weight && (hf_part (hf, module, "weight_scale_inv") || hf_part (hf, module, "weight_scale")))
    return hf_scaled_open (hf, module, rows, cols, error);
  *handled = FALSE;
  return NULL;
}

/* A data set, or what is said of it: a list of texts is only counted. */
static char *calibration_of (JsonObject *quantization)
{
  const char *dataset = hf_string (quantization, "dataset", hf_string (quantization, "calibration.dataset", NULL));
  gint64 rows = hf_int (quantization, "calibration.rows", 0), width = hf_int (quantization, "calibration.length", hf_int (quantization, "calibration.cols", 0));
  JsonArray *texts = hf_array (quantization, "dataset");
  GString *text = g_string_new (NULL);
  if (dataset)
    g_string_append_printf (text, "%.60s", dataset);
  else if (texts)
    g_string_append_printf (text, "%u texts of its makers", json_array_get_length (texts));
  if (rows > 0 && width > 0)
    g_string_append_printf (text, "%s%" G_GINT64_FORMAT " x %" G_GINT64_FORMAT " tokens", text->len ? ", " : "", rows, width);
  return g_string_free (text, text->len == 0);
}

void hf_write_method (const Hf *hf, EngGgufWriter *writer)
{
  if (!hf->quantization)
    return;
  const char *said = hf_string (hf->quantization, "quant_method", "quantized");
  JsonObject *of = weight_settings (hf) ? weight_settings (hf) : hf->quantization;
  double bits = hf_float (of, "num_bits", hf_float (of, "bits", hf_float (of, "w_bit", 0)));
  gint64 group = hf_int (of, "group_size", hf_int (of, "q_group_size", 0));
  if (group == 0 && g_strcmp0 (hf_string (of, "strategy", NULL), "channel") == 0)
    group = -1;
  g_autofree char *upper = g_ascii_strup (said, -1), *calibration = calibration_of (hf->quantization);
  GString *method = g_string_new (strcmp (said, "bitnet") == 0 ? "BitNet" : strchr (said, '-') || strcmp (said, "bitsandbytes") == 0 ? said : upper);
  if (hf_bool (hf->quantization, "load_in_4bit", FALSE)) {
    g_string_append_printf (method, " %s", hf_string (hf->quantization, "bnb_4bit_quant_type", "fp4"));
    bits = 4;
    group = group != 0 ? group : 64;
  } else if (hf_bool (hf->quantization, "load_in_8bit", FALSE) || strcmp (said, "fp8") == 0) {
    bits = 8;
  } else if (strcmp (said, "mxfp4") == 0) {
    bits = 4;
    group = 32;
  } else if (strcmp (said, "bitnet") == 0) {
    bits = bits > 0 ? bits : 1.58;
  }
  g_autofree char *name = g_string_free (method, FALSE);
  eng_gguf_writer_set_string (writer, "valise.source.method", name);
  if (bits > 0 && bits <= 64)
    eng_gguf_writer_set_f64 (writer, "valise.source.bits", bits);
  if (group == -1 || (group > 0 && group <= G_MAXINT32))
    eng_gguf_writer_set_f64 (writer, "valise.source.group", (double) group);
  /* EXL2 always sorts them. */
  eng_gguf_writer_set_bool (writer, "valise.source.ordered", hf_bool (hf->quantization, "desc_act", FALSE) || strcmp (said, "exl2") == 0);
  if (calibration)
    eng_gguf_writer_set_string (writer, "valise.source.calibration", calibration);
}
