/* draft.c: guesses by lookup in what is already there, or by a smaller model; and how many of them are worth computing, from what passes have
 * taken and how many guesses came true. */
#include "engine/draft.h"
#include "engine/error.h"
#include "kernels/ops.h"

#include <math.h>
#include <string.h>

/* Tokens that must repeat for a lookup, at least and at most. */
enum { SHORTEST = 2, LONGEST = 4 };

/* Tokens that go by before a draft that does not pay is tried again, at first and at most. */
enum { SHORTEST_WAIT = 32, LONGEST_WAIT = 512, FIRST_TRIAL = 4 /* guesses */ };

static const float PROBABILITY = 0.4f; /* a model's guess of less is seldom worth checking */
static const double LATEST = 1 / 8.0;  /* share of the latest observation in what is remembered */
static const double PAYS = 1.05;       /* how much faster it has to look before it is done */

/* What a pass over n tokens takes, n > 1: a line through what has been seen, older passes counting less and less. */
typedef struct {
  double weight, n, nn, us, n_us;
} Line;

struct EngDraft {
  EngSession *session; /* NULL: lookup */
  float probability;
  gboolean always;
  guint n_tokens; /* at most */
  guint64 guessed, accepted;

  double plain_us, guess_us;  /* of a pass over one token, of a guess; 0: not known */
  Line passes;
  double chance[LONGEST + 1]; /* that a guess comes true, by the tokens that repeated; of a model's: [0] */
  guint wait, left;           /* tokens between trials while it does not pay, and to the next one */
  /* The latest guesses, computed or not, which the tokens to come will judge. */
  gint32 *latest;             /* [n_tokens] */
  guint n_latest, at, kind;   /* their number, the position of the first, their place in chance */
};

static EngDraft *new_draft (EngSession *session, guint n_tokens)
{
  EngDraft *draft = g_new0 (EngDraft, 1);
  draft->session = session;
  draft->n_tokens = n_tokens > 0 ? n_tokens : ENG_DRAFT_TOKENS;
  draft->latest = g_new (gint32, draft->n_tokens);
  draft->wait = draft->left = SHORTEST_WAIT;
  for (guint i = 0; i <= LONGEST; i++)
    draft->chance[i] = 0.75;
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
  g_free (draft->latest);
  g_free (draft);
}

void eng_draft_set_always (EngDraft *draft)
{
  draft->always = TRUE;
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

/* ---- whether it pays ------------------------------------------------------------------------------------------------------- */

/* One observation; a single one that is far off, because the machine did something else, counts as thrice the usual. */
static double remember (double known, double seen)
{
  return known > 0 ? known + LATEST * (MIN (seen, 3 * known) - known) : seen;
}

static double pass_us (const EngDraft *draft, guint n)
{
  const Line *l = &draft->passes;
  if (n == 1 || l->weight == 0)
    return draft->plain_us;
  /* As long as all passes were of one length, it is not known what more would take: hope for the best. */
  double spread = l->weight * l->nn - l->n * l->n, slope = spread > 1e-3 * l->weight * l->weight ? (l->weight * l->n_us - l->n * l->us) / spread : 0;
  return MAX (draft->plain_us, (l->us + MAX (slope, 0) * (n * l->weight - l->n)) / l->weight);
}

/* What tokens have come says how good the guesses were. */
static void judge (EngDraft *draft, const gint32 *history, guint n)
{
  guint came = n > draft->at ? MIN (n - draft->at, draft->n_latest) : 0;
  for (guint i = 0; i < came && n - draft->at <= draft->n_latest + 1; i++) {
    gboolean was_true = history[draft->at + i] == draft->latest[i];
    draft->chance[draft->kind] += LATEST * (was_true - draft->chance[draft->kind]);
    if (!was_true)
      break;
  }
  draft->n_latest = 0;
}

/* How many of `most` guesses give most tokens in a time. */
static guint worth (EngDraft *draft, double chance, guint most)
{
  double best = PAYS / draft->plain_us, tokens = 1, share = 1;
  guint n = 0;
  if (draft->always || most == 0)
    return most;
  if (draft->plain_us == 0)
    return 0;
  for (guint i = 1; i <= most; i++) {
    share *= chance;
    tokens += share;
    double rate = tokens / (pass_us (draft, i + 1) + i * draft->guess_us);
    if (rate > best) {
      best = rate;
      n = i;
    }
  }
  if (n > 0) {
    draft->wait = draft->left = SHORTEST_WAIT;
    return n;
  }
  if (--draft->left > 0)
    return 0;
  /* The machine, or the text, may have changed since. */
  draft->left = draft->wait = MIN (2 * draft->wait, LONGEST_WAIT);
  return MIN (most, FIRST_TRIAL);
}

guint eng_draft_guess (EngDraft *draft, const gint32 *history, guint n, gint32 *guess, guint most)
{
  guint found = 0, n_worth, length = 0;
  most = MIN (most, draft->n_tokens);
  judge (draft, history, n);
  if (draft->session != NULL) {
    n_worth = worth (draft, draft->chance[0], most);
    gint64 start = g_get_monotonic_time ();
    found = n_worth > 0 ? ask_model (draft->session, draft->probability, history, n, guess, n_worth) : 0;
    if (n_worth > 0)
      draft->guess_us = remember (draft->guess_us, (double)(g_get_monotonic_time () - start) / MAX (found, 1));
  } else {
    for (length = MIN (LONGEST, n / 2); found == 0 && length >= SHORTEST; length -= found == 0)
      found = look_up (history, n, length, guess, most);
    n_worth = worth (draft, draft->chance[found > 0 ? length : 0], found);
  }
  memcpy (draft->latest, guess, found * sizeof *guess);
  draft->n_latest = found;
  draft->at = n;
  draft->kind = draft->session != NULL ? 0 : length;
  found = MIN (found, n_worth);
  draft->guessed += found;
  return found;
}

void eng_draft_accept (EngDraft *draft)
{
  draft->accepted++;
}

void eng_draft_took (EngDraft *draft, guint n, gint64 us)
{
  Line *l = &draft->passes;
  double seen = MAX (us, 1);
  if (n == 1) {
    draft->plain_us = remember (draft->plain_us, seen);
    return;
  }
  seen = l->weight > 0 ? MIN (seen, 3 * pass_us (draft, n)) : seen;
  *l = (Line){ (1 - LATEST) * l->weight + 1,          (1 - LATEST) * l->n + n,          (1 - LATEST) * l->nn + (double)n * n,
               (1 - LATEST) * l->us + seen, (1 - LATEST) * l->n_us + n * seen };
}
