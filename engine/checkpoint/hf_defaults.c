/* hf_defaults.c: what config.json may leave out. A configuration inside of another one (a model that sees pictures) is saved without what is as in
 * transformers' class of that type (configuration_*.py); a model's own configuration is saved whole. */
#include "engine/checkpoint/hf.h"

#include "engine/json_reader.h"

#include <string.h>

static const struct {
  const char *model_type, *members;
} defaults[] = {
  { "llama", "{\"hidden_size\":4096,\"num_hidden_layers\":32,\"num_attention_heads\":32,\"intermediate_size\":11008,\"max_position_embeddings\":2048,"
             "\"vocab_size\":32000,\"rms_norm_eps\":1e-6}" },
  { "mistral", "{\"hidden_size\":4096,\"num_hidden_layers\":32,\"num_attention_heads\":32,\"num_key_value_heads\":8,\"intermediate_size\":14336,"
               "\"max_position_embeddings\":131072,\"vocab_size\":32000,\"rms_norm_eps\":1e-6,\"sliding_window\":4096}" },
  { "ministral3", "{\"hidden_size\":4096,\"num_hidden_layers\":34,\"num_attention_heads\":32,\"num_key_value_heads\":8,\"head_dim\":128,"
                  "\"intermediate_size\":14336,\"max_position_embeddings\":262144,\"vocab_size\":131072,\"rms_norm_eps\":1e-5,\"rope_parameters\":{"
                  "\"rope_type\":\"yarn\",\"rope_theta\":1e6,\"factor\":16.0,\"original_max_position_embeddings\":16384,\"beta_fast\":32.0,\"beta_slow\":1.0,"
                  "\"mscale\":1.0,\"mscale_all_dim\":1.0,\"llama_4_scaling_beta\":0.1}}" },
  { "qwen2", "{\"hidden_size\":4096,\"num_hidden_layers\":32,\"num_attention_heads\":32,\"num_key_value_heads\":32,\"intermediate_size\":22016,"
             "\"max_position_embeddings\":32768,\"vocab_size\":151936,\"rms_norm_eps\":1e-6,\"use_sliding_window\":false}" },
  { "qwen3", "{\"hidden_size\":4096,\"num_hidden_layers\":32,\"num_attention_heads\":32,\"num_key_value_heads\":32,\"head_dim\":128,"
             "\"intermediate_size\":22016,\"max_position_embeddings\":32768,\"vocab_size\":151936,\"rms_norm_eps\":1e-6,\"use_sliding_window\":false}" },
  { "qwen2_vl_text", "{\"hidden_size\":8192,\"num_hidden_layers\":80,\"num_attention_heads\":64,\"num_key_value_heads\":8,\"intermediate_size\":29568,"
                     "\"max_position_embeddings\":32768,\"vocab_size\":152064,\"rms_norm_eps\":1e-5,\"rope_theta\":1e6,\"use_sliding_window\":false}" },
  { "qwen2_5_vl_text", "{\"hidden_size\":8192,\"num_hidden_layers\":80,\"num_attention_heads\":64,\"num_key_value_heads\":8,\"intermediate_size\":29568,"
                       "\"max_position_embeddings\":32768,\"vocab_size\":152064,\"rms_norm_eps\":1e-5,\"rope_theta\":1e6,\"use_sliding_window\":false}" },
  { "qwen3_vl_text", "{\"hidden_size\":4096,\"num_hidden_layers\":32,\"num_attention_heads\":32,\"num_key_value_heads\":32,\"head_dim\":128,"
                     "\"intermediate_size\":22016,\"max_position_embeddings\":128000,\"vocab_size\":151936,\"rms_norm_eps\":1e-6,\"rope_theta\":5e5}" },
  { "qwen3_vl_moe_text", "{\"hidden_size\":2048,\"num_hidden_layers\":24,\"num_attention_heads\":16,\"num_key_value_heads\":16,\"head_dim\":128,"
                         "\"moe_intermediate_size\":1408,\"num_local_experts\":60,\"num_experts_per_tok\":4,\"intermediate_size\":5632,"
                         "\"max_position_embeddings\":128000,\"vocab_size\":151936,\"rms_norm_eps\":1e-6,\"rope_theta\":5e5}" },
  { "gemma", "{\"hidden_size\":3072,\"num_hidden_layers\":28,\"num_attention_heads\":16,\"head_dim\":256,\"intermediate_size\":24576,"
             "\"max_position_embeddings\":8192,\"vocab_size\":256000,\"rms_norm_eps\":1e-6,\"tie_word_embeddings\":true}" },
  { "gemma2", "{\"hidden_size\":2304,\"num_hidden_layers\":26,\"num_attention_heads\":8,\"num_key_value_heads\":4,\"head_dim\":256,"
              "\"intermediate_size\":9216,\"max_position_embeddings\":8192,\"vocab_size\":256000,\"rms_norm_eps\":1e-6,\"tie_word_embeddings\":true,"
              "\"sliding_window\":4096,\"attn_logit_softcapping\":50.0,\"final_logit_softcapping\":30.0,\"query_pre_attn_scalar\":256}" },
  { "gemma3_text", "{\"hidden_size\":2304,\"num_hidden_layers\":26,\"num_attention_heads\":8,\"num_key_value_heads\":4,\"head_dim\":256,"
                   "\"intermediate_size\":9216,\"max_position_embeddings\":131072,\"vocab_size\":262208,\"rms_norm_eps\":1e-6,\"tie_word_embeddings\":true,"
                   "\"sliding_window\":4096,\"sliding_window_pattern\":6,\"query_pre_attn_scalar\":256,\"rope_theta\":1e6,\"rope_local_base_freq\":1e4}" },
  { "cohere", "{\"hidden_size\":8192,\"num_hidden_layers\":40,\"num_attention_heads\":64,\"intermediate_size\":22528,\"max_position_embeddings\":8192,"
              "\"vocab_size\":256000,\"layer_norm_eps\":1e-5,\"tie_word_embeddings\":true,\"logit_scale\":0.0625,\"rope_theta\":5e5}" },
  { "cohere2", "{\"hidden_size\":8192,\"num_hidden_layers\":40,\"num_attention_heads\":64,\"intermediate_size\":22528,\"max_position_embeddings\":8192,"
               "\"vocab_size\":256000,\"layer_norm_eps\":1e-5,\"tie_word_embeddings\":true,\"logit_scale\":0.0625,\"sliding_window\":4096,"
               "\"sliding_window_pattern\":4}" },
  { "granite", "{\"hidden_size\":4096,\"num_hidden_layers\":32,\"num_attention_heads\":32,\"intermediate_size\":11008,\"max_position_embeddings\":2048,"
               "\"vocab_size\":32000,\"rms_norm_eps\":1e-6,\"attention_multiplier\":1.0}" },
  { "gpt_oss", "{\"hidden_size\":2880,\"num_hidden_layers\":36,\"num_attention_heads\":64,\"num_key_value_heads\":8,\"head_dim\":64,"
               "\"intermediate_size\":2880,\"max_position_embeddings\":131072,\"vocab_size\":201088,\"rms_norm_eps\":1e-5,\"sliding_window\":128,"
               "\"num_local_experts\":128,\"num_experts_per_tok\":4,\"rope_parameters\":{\"rope_type\":\"yarn\",\"factor\":32.0,\"beta_fast\":32.0,"
               "\"beta_slow\":1.0,\"original_max_position_embeddings\":4096,\"rope_theta\":150000.0}}" },
};

void hf_add_defaults (JsonObject *config, const char *model_type)
{
  for (guint i = 0; i < G_N_ELEMENTS (defaults); i++) {
    if (strcmp (defaults[i].model_type, model_type) != 0)
      continue;
    g_autoptr (JsonNode) node = eng_json_parse (defaults[i].members, strlen (defaults[i].members), NULL);
    JsonObjectIter iter;
    const char *name;
    JsonNode *value;
    json_object_iter_init (&iter, json_node_get_object (node));
    while (json_object_iter_next (&iter, &name, &value))
      if (!json_object_has_member (config, name) && !(strcmp (name, "rope_parameters") == 0 && json_object_has_member (config, "rope_scaling")))
        json_object_set_member (config, name, json_node_copy (value));
  }
}
