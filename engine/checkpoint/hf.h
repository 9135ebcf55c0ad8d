/* hf.h: a folder of safetensors with a config.json, as the transformers package writes it, told in GGUF's vocabulary: what its reader, the
 * tables of names and keys and the readers of quantized matrices share. Internal to engine/checkpoint. */
#ifndef ENG_HF_H
#define ENG_HF_H

#include "engine/checkpoint/packed.h"
#include "engine/checkpoint/safetensors.h"
#include "engine/model.h"

#include <json-glib/json-glib.h>

typedef enum {
  HF_HALVES = 1 << 0,       /* rope turns halves of a head, where a GGUF of the same architecture turns neighbours */
  HF_LAYER_NORM = 1 << 1,
  HF_SANDWICH = 1 << 2,     /* post_attention_layernorm is the norm after attention, not the one before the feed-forward unit */
  HF_GAINS_LESS_ONE = 1 << 3,
  HF_QKV_BY_HEAD = 1 << 4,  /* fused q, k, v: head by head (GPT-NeoX) */
  HF_QKV_BY_GROUP = 1 << 5, /* ... or key head by key head with its queries (Falcon) */
  HF_WINDOW = 1 << 6,       /* sliding_window counts unless use_sliding_window denies it */
  HF_TURNED = 1 << 7,       /* matrices of a layer stand the other way round, [columns][rows] (GPT-2) */
  HF_EXPERTS_TURNED = 1 << 8, /* ... only the experts' in one tensor, */
  HF_EXPERTS_MIXED = 1 << 9,  /* in which rows of gate and up take turns (gpt-oss) */
  HF_SIGMOID = 1 << 10,     /* scores experts one by one */
} HfFlags;

typedef struct {
  const char *model_type, *architecture;
  guint flags;
} HfFamily;

typedef struct {
  const char *folder;
  JsonObject *config;        /* of the text model */
  JsonObject *quantization;  /* its quantization_config, or NULL */
  const HfFamily *family;
  EngSafetensors *st;
  guint n_embd, n_layers, n_heads, n_kv_heads, head_dim;
  EngTraits traits;          /* as the keys have them; all zero where they make no model */
} Hf;

/* ---- hf_config.c ---- */
const HfFamily *hf_family_find (const char *model_type);
/* Integers, floats and texts of an object; nested names are apart by a dot ("rope_scaling.factor"). */
gint64 hf_int (JsonObject *object, const char *name, gint64 fallback);
double hf_float (JsonObject *object, const char *name, double fallback);
gboolean hf_bool (JsonObject *object, const char *name, gboolean fallback);
const char *hf_string (JsonObject *object, const char *name, const char *fallback);
JsonArray *hf_array (JsonObject *object, const char *name);
/* Of a number or a list of equal ones under the first of `names` (ends with NULL) that is there; NAN: none is. */
double hf_number (JsonObject *object, const char *const *names);
/* Fills the shape of `hf` and writes the keys that eng_traits_read asks for. */
gboolean hf_write_keys (Hf *hf, EngGgufWriter *writer, GError **error);
/* KEY under the architecture's name. */
void hf_set_int (EngGgufWriter *writer, const Hf *hf, const char *key, gint64 value);
void hf_set_float (EngGgufWriter *writer, const Hf *hf, const char *key, double value);
void hf_set_string (EngGgufWriter *writer, const Hf *hf, const char *key, const char *value);

/* ---- hf_defaults.c ---- */
/* Gives a configuration inside of another one (text_config) what it leaves out because transformers' class of that type has it so. */
void hf_add_defaults (JsonObject *config, const char *model_type);

/* ---- hf_rope.c ---- */
/* How many numbers of a head are turned. */
guint hf_n_rot (const Hf *hf);
gboolean hf_write_rope (const Hf *hf, EngGgufWriter *writer, GError **error);
/* [n_rot / 2] factors of rope that GGUF keeps as a tensor, NULL when there are none: "rope_freqs.weight" or longrope's two. Free with g_free. */
float *hf_rope_factors (const Hf *hf, const char *tensor, guint *n);

/* ---- hf_names.c ---- */
typedef enum {
  HF_PLAIN,
  HF_EXPERT,
  HF_EXPERTS,         /* all of them in one tensor */
  HF_GATE_UP_EXPERTS, /* the same, gate and up together */
  HF_HEAD_NORM,
  HF_QKV,
  HF_BIAS,            /* a bias that is a parameter by itself */
  HF_IGNORED
} HfPart;
typedef struct {
  HfPart part;
  char name[64];  /* GGUF's, without ".weight" or ".bias"; of HF_GATE_UP_EXPERTS the gate's */
  guint index;    /* of the expert or head */
  gboolean is_norm;
} HfPlace;
/* Where a module ("model.layers.0.mlp.up_proj") belongs; FALSE: nowhere that is known. */
gboolean hf_place (const Hf *hf, const char *module, HfPlace *place);
/* What no decoder needs, by a tensor's full name: constants that were saved along, and the parts that see pictures. */
gboolean hf_is_left_out (const Hf *hf, const char *tensor);
/* "a.b.weight" -> module "a.b" and part "weight". Free with g_free. */
char *hf_split_name (const char *tensor, const char **part);
/* A part of a module: MODULE.part, or as experts in one tensor have it: MODULE_part, and MODULE alone for "weight". NULL if absent. */
const EngStTensor *hf_part (const Hf *hf, const char *module, const char *part);

/* ---- hf_shape.c ---- */
/* Rows and columns that the model asks of a matrix (of experts: of each), by GGUF's name without ".weight"; 0: not known. */
void hf_shape (const Hf *hf, const char *name, guint *rows, guint *cols);

/* ---- quantized matrices ---- */
/* The matrix of a module that is not just an array of floats under MODULE.weight; *handled is FALSE where it is one. rows and cols are what the model asks
 * for (0: not known), and then what is there: EXL3 fills both up to whole tiles, and an X-bit layout of it is larger than that. */
EngPacked *hf_quantized_open (const Hf *hf, const char *module, guint *rows, guint *cols, gboolean *handled, GError **error);
/* How its makers quantized it, as far as they say: valise.source.method, .bits, .group (-1: one scale to a row), .ordered and .calibration. */
void hf_write_method (const Hf *hf, EngGgufWriter *writer);
/* Whether a tensor's last part ("qzeros") belongs to a quantized matrix and is no weight by itself. */
gboolean hf_is_attachment (const char *part);

/* A float matrix: rows of `tensor` (its dims but the last flattened). */
EngPacked *hf_floats_open (const EngStTensor *tensor);
/* Of [experts][cols][all rows] the rows first, first + step, ..., so many of each expert: a matrix of experts * rows rows. */
EngPacked *hf_turned_open (const EngStTensor *tensor, guint first, guint step, guint rows);
/* From now on `packed` is kept as F16: for matrices whose rows are taken apart, where a pipeline behind mixes them. */
void hf_keep_numbers (EngPacked *packed);
/* Rows of several matrices of equal width one behind the other; order (n_rows, may be NULL; taken over) picks from all of them. Takes the parts over.
 * NULL with the parts freed when they do not fit together: *why says so. Experts with pipelines
 * on either side keep them, each its own, where they are alike otherwise; else what has a pipeline behind it is kept as F16. */
EngPacked *hf_join (GPtrArray *parts, guint part_rows, guint cols, guint32 *order, guint n_rows, const char **why);

#endif
