/* hf.h: a folder of safetensors with a config.json, as the transformers package writes it, told in GGUF's vocabulary: what its reader, the
 * tables of names and keys and the readers of quantized matrices share. Internal to engine/checkpoint. */
#ifndef ENG_HF_H
#define ENG_HF_H

#include "engine/checkpoint/packed.h"
#include "engine/checkpoint/safetensors.h"

#include <json-glib/json-glib.h>

typedef enum {
  HF_HALVES = 1 << 0,       /* rope turns halves of a head, where a GGUF of the same architecture turns neighbours */
  HF_LAYER_NORM = 1 << 1,
  HF_SANDWICH = 1 << 2,     /* post_attention_layernorm is the norm after attention, not the one before the feed-forward unit */
  HF_GAINS_LESS_ONE = 1 << 3,
  HF_QKV_BY_HEAD = 1 << 4,  /* fused q, k, v: head by head (GPT-NeoX) */
  HF_QKV_BY_GROUP = 1 << 5, /* ... or key head by key head with its queries (Falcon) */
  HF_WINDOW = 1 << 6,       /* sliding_window counts unless use_sliding_window denies it */
  HF_LOGITS_SCALING = 1 << 7,
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
  guint n_layers, n_heads, n_kv_heads, head_dim;
} Hf;

/* ---- hf_config.c ---- */
const HfFamily *hf_family_find (const char *model_type);
/* Integers, floats and texts of an object; nested names are apart by a dot ("rope_scaling.factor"). */
gint64 hf_int (JsonObject *object, const char *name, gint64 fallback);
double hf_float (JsonObject *object, const char *name, double fallback);
gboolean hf_bool (JsonObject *object, const char *name, gboolean fallback);
const char *hf_string (JsonObject *object, const char *name, const char *fallback);
JsonArray *hf_array (JsonObject *object, const char *name);
/* Fills the shape of `hf` and writes the keys that eng_traits_read asks for. */
gboolean hf_write_keys (Hf *hf, EngGgufWriter *writer, GError **error);
/* [n_rot / 2] factors of rope that GGUF keeps as a tensor, NULL when there are none: "rope_freqs.weight" or longrope's two. Free with g_free. */
float *hf_rope_factors (const Hf *hf, const char *tensor, guint *n);

/* ---- hf_names.c ---- */
typedef enum { HF_PLAIN, HF_EXPERT, HF_GATE_UP_EXPERTS, HF_HEAD_NORM, HF_QKV, HF_IGNORED } HfPart;
typedef struct {
  HfPart part;
  char name[64];  /* GGUF's, without ".weight" or ".bias"; of HF_GATE_UP_EXPERTS the gate's */
  guint index;    /* of the expert or head */
  gboolean is_norm;
} HfPlace;
/* Where a module ("model.layers.0.mlp.up_proj") belongs; FALSE: nowhere that is known. */
gboolean hf_place (const Hf *hf, const char *module, HfPlace *place);

/* ---- quantized matrices ---- */
/* The matrix of a module that is not just an array of floats under MODULE.weight; *handled is FALSE where it is one. rows and cols are given. */
EngPacked *hf_quantized_open (const Hf *hf, const char *module, guint *rows, guint *cols, gboolean *handled, GError **error);
/* Its makers' method, "GPTQ 4 bit, groups of 128, in the order of activations", or NULL. Free with g_free. */
char *hf_method (const Hf *hf);
/* Whether a tensor's last part ("qzeros") belongs to a quantized matrix and is no weight by itself. */
gboolean hf_is_attachment (const char *part);

/* A float matrix: rows of `tensor` (its dims but the last flattened). */
EngPacked *hf_floats_open (const EngStTensor *tensor);
/* Rows of several matrices of equal width one behind the other; order (n_rows, may be NULL; taken over) picks from all of them. Takes the parts over.
 * NULL with the parts freed when they do not fit together: *why says so. */
EngPacked *hf_join (GPtrArray *parts, guint part_rows, guint cols, guint32 *order, guint n_rows, const char **why);

#endif
