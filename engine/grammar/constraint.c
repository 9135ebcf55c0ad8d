/* constraint.c: a matcher's masks laid over logits. */
#include "engine/grammar/constraint.h"

#include "engine/error.h"

#include <math.h>

struct EngConstraint {
  EngMatcher *matcher;
  const EngTokenizer *tokenizer;
  const EngTokenBytes *bytes;
  guint32 *ends; /* a bit for each token that ends a turn */
};

EngConstraint *eng_constraint_new (EngGrammar *grammar, const EngTokenizer *tokenizer, const EngTokenBytes *bytes)
{
  EngConstraint *c = g_new0 (EngConstraint, 1);
  c->matcher = eng_matcher_new (grammar);
  c->tokenizer = tokenizer;
  c->bytes = bytes;
  guint n = eng_tokenizer_n_tokens (tokenizer);
  c->ends = g_new0 (guint32, n / 32 + 1);
  for (guint i = 0; i < n; i++)
    if (eng_tokenizer_is_end (tokenizer, (int) i))
      c->ends[i / 32] |= 1u << i % 32;
  return c;
}

void eng_constraint_free (EngConstraint *c)
{
  if (c == NULL)
    return;
  eng_matcher_free (c->matcher);
  g_free (c->ends);
  g_free (c);
}

gboolean eng_constraint_limit (EngConstraint *c, float *logits, guint n_vocab, GError **error)
{
  const guint32 *mask = eng_matcher_mask (c->matcher, c->bytes);
  guint n = MIN (n_vocab, eng_tokenizer_n_tokens (c->tokenizer));
  gboolean may_end = eng_matcher_may_end (c->matcher), any = FALSE;
  for (guint i = 0; i < n_vocab; i++) {
    guint32 word = i < n ? mask[i / 32] | (may_end ? c->ends[i / 32] : 0) : 0;
    if (word >> i % 32 & 1)
      any = TRUE;
    else
      logits[i] = -INFINITY;
  }
  if (any)
    return TRUE;
  g_set_error_literal (error, ENG_ERROR, ENG_ERROR_UNSUPPORTED, eng_matcher_overflowed (c->matcher)
                         ? "the grammar can be read in too many ways at once: write its repetitions so that each text has one reading"
                         : "the grammar asks for text that this model's vocabulary has no tokens for");
  return FALSE;
}

void eng_constraint_keep_open (const EngConstraint *c, float *logits, guint n_vocab)
{
  for (guint i = 0; i < MIN (n_vocab, eng_tokenizer_n_tokens (c->tokenizer)); i++)
    if (c->ends[i / 32] >> i % 32 & 1)
      logits[i] = -INFINITY;
}

void eng_constraint_take (EngConstraint *c, gint32 token)
{
  gsize length;
  const char *piece = eng_token_bytes_piece (c->bytes, token, &length);
  eng_matcher_take (c->matcher, piece, length);
}

gboolean eng_constraint_is_complete (const EngConstraint *c)
{
  return eng_matcher_is_complete (c->matcher);
}
