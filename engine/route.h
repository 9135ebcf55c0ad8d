/* route.h: which experts a token goes to, and with what weight (Shazeer et al. 2017; groups: DeepSeek-V2, section 2.2.2; corrections: DeepSeek-V3,
 * section 2.1.2). Pure functions, any thread. */
#ifndef ENG_ROUTE_H
#define ENG_ROUTE_H

#include "engine/model.h"

/* An expert that a token goes to. */
typedef struct {
  guint32 expert;
  float weight;
} EngChoice;

/* From a router's scores [n_experts] of one token, which become worths as traits.expert_score says, its n_experts_used choices, the best first.
 * correction [n_experts] is added to the worths to choose by, not to weigh by, or NULL; spare [2][n_experts]. */
void eng_route (const EngTraits *traits, const float *correction, float *scores, float *spare, EngChoice *choices);

#endif
