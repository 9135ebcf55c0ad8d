/* activation.h: between the two halves of a feed-forward unit. For the engine, and the quantizer's float pass. */
#ifndef ENG_ACTIVATION_H
#define ENG_ACTIVATION_H

#include "engine/model.h"

/* x = activation (x) * up; up NULL: activation (x). Any thread. */
void eng_activate (EngActivation activation, float *x, const float *up, gsize n);
/* x = cap tanh (x * scale / cap); cap 0: x * scale. */
void eng_cap (float *x, float scale, float cap, gsize n);

#endif
