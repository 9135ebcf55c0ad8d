/* draft.h: tokens guessed ahead of a session, so that one pass checks several (Leviathan et al. 2023; Saxena 2023). A guess is used only where it
 * is the very token that is appended next: the sampler draws from the model's own logits at each place, so that every token has the
 * distribution, and for a seed the value, that it would have without. */
#ifndef ENG_DRAFT_H
#define ENG_DRAFT_H

#include "engine/session.h"

enum { ENG_DRAFT_TOKENS = 8 };

typedef struct EngDraft EngDraft;
/* What followed the last time that the latest few tokens came: for texts that repeat what is before them. Costs nothing to guess. */
EngDraft *eng_draft_new_lookup (guint n_tokens);
/* The likeliest tokens of a smaller model, as long as each has at least this probability (0: 0.4); it has to know the same vocabulary as `target`,
 * else ENG_ERROR_ARGUMENT. options: of its own session. */
EngDraft *eng_draft_new_model (EngModel *model, EngModel *target, EngWorkers *workers, const EngSessionOptions *options, guint n_tokens, float probability,
                               GError **error);
void eng_draft_free (EngDraft *draft);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (EngDraft, eng_draft_free)

/* A draft measures what passes take and how many of its guesses come true, and guesses no more than pays, which may be nothing: then it is tried
 * again now and then. With this it guesses as much as it can, whatever that costs. */
void eng_draft_set_always (EngDraft *draft);
/* n_tokens: most that are guessed at a time. The plan counts their logits: EngSessionOptions.n_drafted. */
guint eng_draft_n_tokens (const EngDraft *draft);
/* Guesses computed, and those that came true. */
void eng_draft_counts (const EngDraft *draft, guint64 *guessed, guint64 *accepted);

/* For the session: guesses at most `most` tokens after history[n], those that are worth computing; is told of each that came true; and how long the
 * pass over n tokens took, the one that was given and those guessed behind it. */
guint eng_draft_guess (EngDraft *draft, const gint32 *history, guint n, gint32 *guess, guint most);
void eng_draft_accept (EngDraft *draft);
void eng_draft_took (EngDraft *draft, guint n, gint64 us);

#endif
