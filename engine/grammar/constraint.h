/* constraint.h: an answer held to a grammar while it is drawn: which tokens may come next, told of each that came. One thread at a time. */
#ifndef ENG_CONSTRAINT_H
#define ENG_CONSTRAINT_H

#include "engine/grammar/matcher.h"

typedef struct EngConstraint EngConstraint;
/* tokenizer and bytes stay the caller's, and must stay. */
EngConstraint *eng_constraint_new (EngGrammar *grammar, const EngTokenizer *tokenizer, const EngTokenBytes *bytes);
void eng_constraint_free (EngConstraint *constraint);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (EngConstraint, eng_constraint_free)

/* Makes what may not follow impossible in logits[n_vocab]; tokens that end a turn may follow where the text may end. FALSE when nothing may:
 * the vocabulary lacks what the grammar asks for. */
gboolean eng_constraint_limit (EngConstraint *constraint, float *logits, guint n_vocab, GError **error);
/* Makes the tokens that end a turn impossible: what is held has not come yet. */
void eng_constraint_keep_open (const EngConstraint *constraint, float *logits, guint n_vocab);
/* One that eng_constraint_limit left. */
void eng_constraint_take (EngConstraint *constraint, gint32 token);
/* Nothing but the end may follow. */
gboolean eng_constraint_is_complete (const EngConstraint *constraint);

#endif
