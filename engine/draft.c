/* draft.c: guesses by lookup in what is already there, or by a smaller model. */
#include "engine/draft.h"
#include "engine/error.h"
#include "kernels/ops.h"

#include <math.h>
#include <string.h>

/* Tokens that must repeat for a lookup, at least and at most. */
enum { SHORTEST = 2, LONGEST = 4 };

static const float PROBABILITY = 0.4f; /* a model's guess of less is seldom worth checking */

struct EngDraft {
  EngSession *session; /* NULL: lookup */
  float probability;
  guint n_tokens, next; /* at most; the next time */
  guint64 guessed, accepted;
};

static EngDraft *new_draft (EngSession *session, guint n_tokens)
{
  EngDraft *draft = g_new0 (EngDraft, 1);
  draft->session = session;
  draft->n_tokens = n_tokens > 0 ? n_tokens : ENG_DRAFT_TOKENS;
  draft->next = (draft->n_tokens + 1) / 2;
  return draft;
}

EngDraft *eng_draft_new_lookup (guint n_tokens)
{
  return new_draft (NULL, n_tokens);
}

static gboolean same_vocabulary (const EngTokenizer *a, const EngTokenizer *b)
{
  guint n = eng_tokenizer_n_tokens (a);
  if (n != eng_tokenizer_n_tokens (b))
    return FALSE;
  for (guint i = 0; i < n; i++) {
    gsize n_a, n_b;
    const char *piece_a = eng_tokenizer_piece (a, (int)i, TRUE, &n_a), *piece_b = eng_tokenizer_piece (b, (int)i, TRUE, &n_b);
    if (n_a != n_b || (n_a > 0 && memcmp (piece_a, piece_b, n_a) != 0))
      return FALSE;
  }
  return TRUE;
}

EngDraft *eng_draft_new_model (EngModel *model, EngModel *target, EngWorkers *workers, const EngSessionOptions *options, guint n_tokens, float probability,
                               GError **error)
{
  if (!same_vocabulary (eng_model_tokenizer (model), eng_model_tokenizer (target))) {
    g_set_error (error, ENG_ERROR, ENG_ERROR_ARGUMENT, "%s has another vocabulary than %s, so it cannot guess its tokens: choose a smaller fit of the same model",
                 eng_gguf_path (eng_model_gguf (model)), eng_gguf_path (eng_model_gguf (target)));
    return NULL;
  }
  EngSession *session = eng_session_new (model, workers, options, error);
  if (session == NULL)
    return NULL;
  EngDraft *draft = new_draft (session, n_tokens);
  draft->probability = probability > 0 ? probability : PROBABILITY;
  return draft;
}

void eng_draft_free (EngDraft *draft)
{
  if (draft == NULL)
    return;
  eng_session_free (draft->session);
  g_free (draft);
}

guint eng_draft_n_tokens (const EngDraft *draft)
{
  return draft->n_tokens;
}

void eng_draft_counts (const EngDraft *draft, guint64 *guessed, guint64 *accepted)
{
  *guessed = draft->guessed;
  *accepted = draft->accepted;
}

/* ---- guessing ------------------------------------------------------------------------------------------------------------ */

/* What followed the latest earlier place where the last `length` tokens stood; 0 where they never did. */
static guint look_up (const gint32 *history, guint n, guint length, gint32 *guess, guint most)
{
  const gint32 *last = history + n - length;
  for (guint i = n - length; i-- > 0;)
    if (memcmp (history + i, last, length * sizeof *last) == 0) {
      guint found = MIN (most, n - (i + length));
      memcpy (guess, history + i + length, found * sizeof *guess);
      return found;
    }
  return 0;
}

/* A guess is never worth an error: there is none then, and whoever asked goes on alone. */
static guint ask_model (EngSession *session, float probability, const gint32 *history, guint n, gint32 *guess, guint most)
{
  guint n_vocab = eng_model_traits (eng_session_model (session))->n_vocab, found = 0;
  if (n + most > eng_session_n_ctx (session))
    return 0;
  guint held = eng_session_prepare (session, history, n - 1);
  if (!eng_session_eval (session, history + held, n - held, FALSE, NULL, NULL))
    return 0;
  while (found < most) {
    const float *logits = eng_session_logits (session);
    guint best = xb_argmax (logits, n_vocab);
    if (!(expf (logits[best] - xb_log_sum_exp (logits, n_vocab)) >= probability))
      break;
    guess[found++] = (gint32)best;
    if (found == most || !eng_session_eval (session, guess + found - 1, 1, FALSE, NULL, NULL))
      break;
  }
  return found;
}

guint eng_draft_guess (EngDraft *draft, const gint32 *history, guint n, gint32 *guess, guint most)
{
  guint found = 0;
  most = MIN (most, draft->next);
  if (draft->session != NULL)
    found = ask_model (draft->session, draft->probability, history, n, guess, most);
  for (guint length = MIN (LONGEST, n / 2); draft->session == NULL && found == 0 && length >= SHORTEST; length--)
    found = look_up (history, n, length, guess, most);
  draft->guessed += found;
  return found;
}

void eng_draft_accept (EngDraft *draft)
{
  draft->accepted++;
}

/* All true: twice as many the next time; else one more than were. */
void eng_draft_learn (EngDraft *draft, guint guessed, guint accepted)
{
  if (guessed == 0)
    return;
  draft->next = accepted == guessed ? MIN (draft->n_tokens, MAX (draft->next, 2 * guessed)) : MIN (draft->n_tokens, accepted + 1);
}
