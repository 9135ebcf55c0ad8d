/* answer.h: one answer while it is written: the sampler, the grammar that it must obey, and text out of tokens, reasoning and calls of functions apart. Whoever computes logits, for
 * one session or for many, asks it for each next token. One thread at a time. */
#ifndef ENG_ANSWER_H
#define ENG_ANSWER_H

#include "engine/grammar/grammar.h"
#include "engine/sampler.h"
#include "engine/segments.h"
#include "engine/session.h"

typedef struct {
  EngSamplerOptions sampling;
  guint max_tokens;    /* 0: to the end of the context */
  EngGrammar *grammar; /* what the answer must be, reasoning aside, or NULL: anything */
  gboolean calls;      /* the grammar is eng_call_grammar_new's (call_form.h): of marks as well, which a model may have control tokens for */
  const char *const *stops; /* texts before which the answer ends, up to NULL; or NULL */
  JsonArray *tools;    /* functions that may be called, as in OpenAI's requests, or NULL */
  const char *prompt;  /* what the tokens before say, as far as its end tells whether reasoning was opened; NULL: it was not */
  gboolean raw;        /* what goes on a text, not an answer to somebody: neither reasoning nor calls are told apart */
} EngAnswerOptions;

typedef struct EngAnswer EngAnswer;
/* What options point to stays the caller's, and must stay; the grammar is referenced. */
EngAnswer *eng_answer_new (EngModel *model, const EngAnswerOptions *options, EngTextFunc text, gpointer data);
void eng_answer_free (EngAnswer *answer);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (EngAnswer, eng_answer_free)

/* Draws the next token from the session's logits (which are overwritten) and gives on the text that it completes. TRUE: *token is to be
 * evaluated before the next call. FALSE: the answer is over, as eng_answer_finish_reason says, or the error is set. */
gboolean eng_answer_next (EngAnswer *answer, EngSession *session, gint32 *token, GError **error);
/* Gives on what was held back. Once, after the last token. */
void eng_answer_end (EngAnswer *answer);
guint eng_answer_n_tokens (const EngAnswer *answer);
/* "stop": the model, the grammar or one of the stops ended it, "length": max_tokens or the context did; NULL: it goes on. */
const char *eng_answer_finish_reason (const EngAnswer *answer);

#endif
