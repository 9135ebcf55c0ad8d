/* families.h: what a model family's decoder is like where its metadata does not say. Internal to the engine. */
#ifndef ENG_FAMILIES_H
#define ENG_FAMILIES_H

#include "engine/model.h"

typedef enum {
  ENG_FAMILY_ROPE_HALVES = 1 << 0,   /* NeoX layout; else pairs */
  ENG_FAMILY_LAYER_NORM = 1 << 1,    /* else RMS norm */
  ENG_FAMILY_PLAIN_NORM = 1 << 2,    /* without gains */
  ENG_FAMILY_NO_PRE_NORM = 1 << 3,   /* the residual stream enters a half of a layer as it is */
  ENG_FAMILY_POST_NORM = 1 << 4,     /* what a half of a layer adds is normed first */
  ENG_FAMILY_QKV_BIAS = 1 << 5,      /* required; biases that happen to be there are always used */
  ENG_FAMILY_QK_NORM = 1 << 6,       /* required */
  ENG_FAMILY_LATE_QK_NORM = 1 << 7,  /* where there is one, after rope */
  ENG_FAMILY_UNGATED = 1 << 8,
  ENG_FAMILY_PARALLEL = 1 << 9,      /* attention and feed-forward read the same stream; unless use_parallel_residual says no */
  ENG_FAMILY_SCALED_EMBEDDING = 1 << 10, /* by the root of its width */
  ENG_FAMILY_LOGIT_DIVISOR = 1 << 11,    /* logit_scale divides */
  ENG_FAMILY_FUSED_UP = 1 << 12,         /* ffn_up holds the gate's rows first */
  ENG_FAMILY_LOCAL_ROPE = 1 << 13,       /* windowed layers turn by freq_base_swa and without scaling */
  ENG_FAMILY_WINDOWS_TURN = 1 << 14,     /* where some layers have a window, the others have no rope */
  ENG_FAMILY_NO_ROPE = 1 << 15,
  ENG_FAMILY_FFN_NORM_AFTER = 1 << 16,   /* the feed-forward's norm is called post_attention_norm */
  ENG_FAMILY_YARN_UNROUNDED = 1 << 17,
  ENG_FAMILY_PICTURES = 1 << 18,         /* sees pictures as well */
  ENG_FAMILY_LATENT = 1 << 19,           /* multi-head latent attention */
  ENG_FAMILY_MOE = 1 << 20,              /* may have experts */
  ENG_FAMILY_SCALES_GIVEN = 1 << 22,     /* must say how it scales embedding and residuals */
  ENG_FAMILY_MOE_PLAIN = 1 << 21,        /* whose chosen weights need not sum to 1; else they do, unless expert_weights_norm says */
} EngFamilyFlags;

typedef struct {
  const char *name; /* general.architecture, and the prefix of its keys */
  guint flags;
  EngActivation activation;
  EngExpertScore expert_score; /* where expert_gating_func is not given */
  guint window;        /* where sliding_window is not given */
  guint window_period; /* every so many layers the last one sees everything; 1: none does; 0: a window is not known */
  float local_theta;   /* where freq_base_swa is not given; 0: as all layers */
  guint rope_period;   /* every so many layers the last one has no rope; 0: all have it */
  guint wide_layers;   /* the member with so many layers scales queries by n_embd / n_heads instead of head_dim */
  float alibi;         /* where max_alibi_bias is not given */
} EngFamily;

const EngFamily *eng_family_find (const char *name);
/* All of them, one after the other; NULL: there are no more. */
const EngFamily *eng_family_nth (guint i);
/* Why an architecture that eng_family_find does not know cannot be computed, and which is nearest: "…". Free with g_free. */
char *eng_family_refusal (const char *name);

#endif
