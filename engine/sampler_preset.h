/* sampler_preset.h: how a model's makers mean it to be sampled. */
#ifndef ENG_SAMPLER_PRESET_H
#define ENG_SAMPLER_PRESET_H

#include "engine/checkpoint/gguf.h"
#include "engine/sampler.h"

/* Sets what the file says (general.sampling.*, from generation_config.json) and leaves the rest. TRUE: it says something. */
gboolean eng_sampler_preset (const EngGguf *gguf, EngSamplerOptions *options);

#endif
