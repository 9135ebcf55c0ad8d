/* families.c: one row a family. Everything that differs and that metadata or the tensors' presence says is read from there. */
#include "engine/families.h"

#include <string.h>

#define HALVES ENG_FAMILY_ROPE_HALVES
#define GEMMA (HALVES | ENG_FAMILY_GELU_TANH | ENG_FAMILY_SCALED_EMBEDDING)
#define NEOX (HALVES | ENG_FAMILY_LAYER_NORM | ENG_FAMILY_UNGATED)

static const EngFamily families[] = {
  { "llama", ENG_FAMILY_EXPERTS, .window_period = 1 },
  { "qwen2", HALVES | ENG_FAMILY_QKV_BIAS },
  { "qwen3", HALVES | ENG_FAMILY_QK_NORM },
  { "qwen2moe", HALVES | ENG_FAMILY_QKV_BIAS | ENG_FAMILY_EXPERTS_PLAIN },
  { "qwen3moe", HALVES | ENG_FAMILY_QK_NORM | ENG_FAMILY_EXPERTS },
  { "gemma", GEMMA },
  { "gemma2", GEMMA | ENG_FAMILY_POST_NORM, .window = 4096, .window_period = 2, .wide_layers = 46 },
  { "gemma3", GEMMA | ENG_FAMILY_POST_NORM | ENG_FAMILY_QK_NORM | ENG_FAMILY_LOCAL_ROPE, .window_period = 6, .local_theta = 10000, .wide_layers = 62 },
  { "phi2", NEOX | ENG_FAMILY_GELU_TANH | ENG_FAMILY_PARALLEL },
  { "phi3", HALVES | ENG_FAMILY_FUSED_UP, .window_period = 1 },
  { "granite", ENG_FAMILY_LOGIT_DIVISOR },
  { "granitemoe", ENG_FAMILY_LOGIT_DIVISOR | ENG_FAMILY_EXPERTS },
  { "olmo2", HALVES | ENG_FAMILY_NO_PRE_NORM | ENG_FAMILY_POST_NORM | ENG_FAMILY_QK_NORM | ENG_FAMILY_LOCAL_ROPE, .window_period = 4 },
  { "olmoe", HALVES | ENG_FAMILY_QK_NORM | ENG_FAMILY_EXPERTS_PLAIN },
  { "smollm3", 0, .rope_period = 4 },
  { "stablelm", HALVES | ENG_FAMILY_LAYER_NORM },
  { "gptneox", NEOX | ENG_FAMILY_GELU | ENG_FAMILY_PARALLEL },
  { "falcon", NEOX | ENG_FAMILY_GELU | ENG_FAMILY_PARALLEL },
  { "starcoder2", NEOX | ENG_FAMILY_GELU_TANH, .window_period = 1 },
  { "command-r", ENG_FAMILY_LAYER_NORM | ENG_FAMILY_PARALLEL },
  { "glm4", ENG_FAMILY_POST_NORM | ENG_FAMILY_FUSED_UP },
};

/* Those that keep a state from token to token instead of, or beside, keys and values. */
static const char *const recurrent[] = { "mamba", "rwkv", "arwkv", "jamba", "falcon-h1", "granitehybrid", "nemotron_h", "plamo2",
                                         "lfm2", "qwen3next", "qwen35", "kimi-linear" };

const EngFamily *eng_family_find (const char *name)
{
  for (guint i = 0; i < G_N_ELEMENTS (families); i++)
    if (strcmp (families[i].name, name) == 0)
      return &families[i];
  return NULL;
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
  for (guint i = 0; i < G_N_ELEMENTS (recurrent); i++)
    if (g_str_has_prefix (name, recurrent[i]))
      kind = ", a recurrent or hybrid decoder";
  return g_strdup_printf ("is of architecture \"%s\"%s, which Valise cannot compute; the nearest it knows is %s", shown, kind, nearest (name));
}
