/* families.c: one row a family. Everything that differs and that metadata or the tensors' presence says is read from there. */
#include "engine/families.h"

#include <string.h>

#define HALVES ENG_FAMILY_ROPE_HALVES
#define QWEN2 (HALVES | ENG_FAMILY_QKV_BIAS)
#define QWEN3 (HALVES | ENG_FAMILY_QK_NORM)
#define GEMMA (HALVES | ENG_FAMILY_SCALED_EMBEDDING)
#define NEOX (HALVES | ENG_FAMILY_LAYER_NORM | ENG_FAMILY_UNGATED)
#define GPT (ENG_FAMILY_LAYER_NORM | ENG_FAMILY_UNGATED | ENG_FAMILY_NO_ROPE)
#define MOE ENG_FAMILY_MOE
#define MOE_PLAIN (ENG_FAMILY_MOE | ENG_FAMILY_MOE_PLAIN)
#define SILU ENG_ACTIVATION_SILU
#define GELU ENG_ACTIVATION_GELU
#define GELU_TANH ENG_ACTIVATION_GELU_TANH
#define RELU_SQUARED ENG_ACTIVATION_RELU_SQUARED

static const EngFamily families[] = {
  { "llama", MOE, .window_period = 1 },
  { "mistral3", MOE },
  { "qwen2", QWEN2 },
  { "qwen3", QWEN3 },
  { "qwen2moe", QWEN2 | MOE_PLAIN },
  { "qwen3moe", QWEN3 | MOE },
  { "qwen2vl", QWEN2 | ENG_FAMILY_PICTURES },
  { "qwen3vl", QWEN3 | ENG_FAMILY_PICTURES },
  { "qwen3vlmoe", QWEN3 | MOE | ENG_FAMILY_PICTURES },
  { "gemma", GEMMA, GELU_TANH },
  { "gemma2", GEMMA | ENG_FAMILY_POST_NORM, GELU_TANH, .window = 4096, .window_period = 2, .wide_layers = 46 },
  { "gemma3", GEMMA | ENG_FAMILY_POST_NORM | ENG_FAMILY_QK_NORM | ENG_FAMILY_LOCAL_ROPE, GELU_TANH, .window_period = 6, .local_theta = 10000,
    .wide_layers = 62 },
  { "phi2", NEOX | ENG_FAMILY_PARALLEL, GELU_TANH },
  { "phi3", HALVES | ENG_FAMILY_FUSED_UP, .window_period = 1 },
  { "gpt-oss", QWEN2 | MOE | ENG_FAMILY_FFN_NORM_AFTER | ENG_FAMILY_YARN_UNROUNDED, ENG_ACTIVATION_CLAMPED, ENG_EXPERT_SOFTMAX_CHOSEN, .window_period = 2 },
  { "deepseek2", ENG_FAMILY_LATENT | MOE_PLAIN },
  { "granite", ENG_FAMILY_LOGIT_DIVISOR },
  { "granitemoe", ENG_FAMILY_LOGIT_DIVISOR | MOE },
  { "minicpm", ENG_FAMILY_LOGIT_DIVISOR | ENG_FAMILY_SCALES_GIVEN },
  { "olmo", ENG_FAMILY_LAYER_NORM | ENG_FAMILY_PLAIN_NORM },
  { "olmo2", HALVES | ENG_FAMILY_NO_PRE_NORM | ENG_FAMILY_POST_NORM | ENG_FAMILY_QK_NORM | ENG_FAMILY_LOCAL_ROPE, .window_period = 4 },
  { "olmoe", QWEN3 | MOE_PLAIN },
  { "smollm3", 0, .rope_period = 4 },
  { "stablelm", HALVES | ENG_FAMILY_LAYER_NORM },
  { "gptneox", NEOX | ENG_FAMILY_PARALLEL, GELU },
  { "falcon", NEOX | ENG_FAMILY_PARALLEL, GELU },
  { "starcoder", GPT, GELU_TANH },
  { "starcoder2", NEOX, GELU_TANH, .window_period = 1 },
  { "command-r", ENG_FAMILY_LAYER_NORM | ENG_FAMILY_PARALLEL },
  { "cohere2", ENG_FAMILY_LAYER_NORM | ENG_FAMILY_PARALLEL | ENG_FAMILY_WINDOWS_TURN, .window_period = 4 },
  { "chatglm", ENG_FAMILY_FUSED_UP | ENG_FAMILY_QKV_BIAS },
  { "glm4", ENG_FAMILY_POST_NORM | ENG_FAMILY_FUSED_UP },
  { "glm4moe", QWEN2 | MOE | ENG_FAMILY_FFN_NORM_AFTER, SILU, ENG_EXPERT_SIGMOID },
  { "dots1", QWEN3 | MOE, SILU, ENG_EXPERT_SIGMOID },
  { "bitnet", HALVES },
  { "bitnet-b1.58", HALVES, RELU_SQUARED },
  { "exaone", HALVES },
  { "exaone4", HALVES | ENG_FAMILY_NO_PRE_NORM | ENG_FAMILY_POST_NORM | ENG_FAMILY_QK_NORM | ENG_FAMILY_WINDOWS_TURN, .window_period = 4 },
  { "ernie4_5", 0 },
  { "ernie4_5-moe", MOE },
  { "hunyuan-dense", QWEN3 | ENG_FAMILY_LATE_QK_NORM },
  { "hunyuan-moe", QWEN3 | ENG_FAMILY_LATE_QK_NORM | MOE },
  { "seed_oss", QWEN2 | ENG_FAMILY_FFN_NORM_AFTER },
  { "internlm2", 0 },
  { "orion", HALVES | ENG_FAMILY_LAYER_NORM },
  { "xverse", 0 },
  { "arcee", ENG_FAMILY_UNGATED, RELU_SQUARED },
  { "nemotron", NEOX, RELU_SQUARED },
  { "gpt2", GPT, GELU_TANH },
  { "bloom", GPT, GELU_TANH, .alibi = 8 },
  { "mpt", GPT, GELU },
};

/* Those that keep a state from token to token instead of, or beside, keys and values. */
static const char *const recurrent[] = { "mamba", "rwkv", "arwkv", "jamba", "falcon-h1", "granitehybrid", "nemotron_h", "plamo2",
                                         "lfm2", "qwen3next", "qwen35", "kimi-linear", "minimax-01", "bailingmoe3" };

const EngFamily *eng_family_find (const char *name)
{
  for (guint i = 0; i < G_N_ELEMENTS (families); i++)
    if (strcmp (families[i].name, name) == 0)
      return &families[i];
  return NULL;
}

const EngFamily *eng_family_nth (guint i)
{
  return i < G_N_ELEMENTS (families) ? &families[i] : NULL;
}

/* Bytes at the start that two names share; ties go to the row that stands first. */
static const char *nearest (const char *name)
{
  gsize best = 0;
  const char *found = families[0].name;
  for (guint i = 0; i < G_N_ELEMENTS (families); i++) {
    gsize n = 0;
    while (name[n] != '\0' && g_ascii_tolower (name[n]) == families[i].name[n])
      n++;
    if (n > best && n >= 3) {
      best = n;
      found = families[i].name;
    }
  }
  return found;
}

char *eng_family_refusal (const char *name)
{
  g_autofree char *shown = g_utf8_substring (name, 0, MIN (g_utf8_strlen (name, -1), 40));
  const char *kind = "";
  if (strcmp (name, "clip") == 0)
    return g_strdup ("holds the part of a model that sees pictures (mmproj), which answers nothing by itself: open the model's own file, whose text part Valise computes");
  for (guint i = 0; i < G_N_ELEMENTS (recurrent); i++)
    if (g_str_has_prefix (name, recurrent[i]))
      kind = ", a recurrent or hybrid decoder";
  return g_strdup_printf ("is of architecture \"%s\"%s, which Valise cannot compute; the nearest it knows is %s", shown, kind, nearest (name));
}
