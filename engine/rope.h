/* rope.h: how far each pair of a head turns per position. For the engine, and the quantizer's float pass. */
#ifndef ENG_ROPE_H
#define ENG_ROPE_H

#include "engine/model.h"

/* frequency [n_rot / 2], radians per position, in a context of n_ctx; local: of windowed layers with a rope of their own. factors [n_rot / 2]
 * or NULL. */
void eng_rope_frequencies (double *frequency, const EngTraits *traits, const float *factors, guint n_ctx, gboolean local);
/* cos_sin [n_rot / 2][2] of one position. */
void eng_rope_position (float *cos_sin, const double *frequency, guint n_rot, guint position, float magnitude);

#endif
