/* families.h: what a model family's decoder is like where its metadata does not say. Internal to the engine. */
#ifndef ENG_FAMILIES_H
#define ENG_FAMILIES_H

#include <glib.h>

typedef enum {
  ENG_FAMILY_ROPE_HALVES = 1 << 0,   /* NeoX layout; else pairs */
  ENG_FAMILY_LAYER_NORM = 1 << 1,    /* else RMS norm */
  ENG_FAMILY_NO_PRE_NORM = 1 << 2,   /* the residual stream enters a half of a layer as it is */
  ENG_FAMILY_POST_NORM = 1 << 3,     /* what a half of a layer adds is normed first */
  ENG_FAMILY_QKV_BIAS = 1 << 4,      /* required; biases that happen to be there are always used */
  ENG_FAMILY_QK_NORM = 1 << 5,       /* required */
  ENG_FAMILY_GELU = 1 << 6,          /* the exact form; else SiLU */
  ENG_FAMILY_GELU_TANH = 1 << 7,
  ENG_FAMILY_UNGATED = 1 << 8,
  ENG_FAMILY_PARALLEL = 1 << 9,      /* attention and feed-forward read the same stream; unless use_parallel_residual says no */
  ENG_FAMILY_SCALED_EMBEDDING = 1 << 10, /* by the root of its width */
  ENG_FAMILY_LOGIT_DIVISOR = 1 << 11,    /* logit_scale divides */
  ENG_FAMILY_FUSED_UP = 1 << 12,         /* ffn_up holds the gate's rows first */
  ENG_FAMILY_EXPERTS = 1 << 14,          /* may have experts, whose chosen weights sum to 1 ... */
  ENG_FAMILY_EXPERTS_PLAIN = 1 << 15,    /* ... or, the softmax of all, to less */
  ENG_FAMILY_LOCAL_ROPE = 1 << 13,       /* windowed layers turn by freq_base_swa and without scaling */
} EngFamilyFlags;

typedef struct {
  const char *name; /* general.architecture, and the prefix of its keys */
  guint flags;
  guint window;        /* where sliding_window is not given */
  guint window_period; /* every so many layers the last one sees everything; 1: none does; 0: a window is not known */
  float local_theta;   /* where freq_base_swa is not given; 0: as all layers */
  guint rope_period;   /* every so many layers the last one has no rope; 0: all have it */
  guint wide_layers;   /* the member with so many layers scales queries by n_embd / n_heads instead of head_dim */
} EngFamily;

const EngFamily *eng_family_find (const char *name);
/* Why an architecture that eng_family_find does not know cannot be computed, and which is nearest: "…". Free with g_free. */
char *eng_family_refusal (const char *name);

#endif
