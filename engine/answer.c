/* answer.c: from logits to tokens, and from tokens to text. */
#include "engine/answer.h"

#include "engine/error.h"
#include "engine/grammar/constraint.h"

#include <string.h>

struct EngAnswer {
  EngModel *model;
  const EngTokenizer *tokenizer;
  EngSampler *sampler;
  EngConstraint *constraint; /* or NULL */
  EngDetokenizer *detokenizer;
  EngSegments *segments;
  gboolean calls;
  gint32 opener;       /* a token that opens reasoning, which the grammar lets pass at the start; -1: none */
  const char *const *stops;
  GString *held;       /* what may be the beginning of a stop */
  GString *ready;      /* what is given on */
  gboolean stopped;
  guint8 *breakers;
  guint max_tokens, n_tokens;
  const char *finish_reason;
  EngTextFunc text;
  gpointer data;
};

/* DRY's usual breakers: what ends a line, a label, a quotation or an emphasis. [n_vocab] */
static guint8 *dry_breakers (const EngTokenizer *tokenizer)
{
  guint n = eng_tokenizer_n_tokens (tokenizer);
  guint8 *breakers = g_new0 (guint8, n);
  for (guint i = 0; i < n; i++) {
    gsize length;
    const char *piece = eng_tokenizer_piece (tokenizer, (int)i, TRUE, &length);
    for (gsize j = 0; j < length; j++)
      breakers[i] |= strchr ("\n:\"*", piece[j]) != NULL && piece[j] != '\0';
  }
  return breakers;
}

/* The model's own token for the beginning of its reasoning, or -1. */
static gint32 find_opener (const EngTokenizer *tokenizer, const char *chat_template)
{
  for (guint i = 0; i < eng_tokenizer_n_tokens (tokenizer); i++) {
    gsize length;
    const char *piece = eng_tokenizer_piece (tokenizer, (int) i, TRUE, &length);
    if (eng_segments_opens_reasoning (piece, length) && memmem (chat_template, strlen (chat_template), piece, length) != NULL)
      return (gint32) i;
  }
  return -1;
}

/* ---- text out ------------------------------------------------------------------------------------------------------------- */

static void give (EngAnswer *a, EngTextKind kind, const char *text)
{
  if (*text != '\0' && a->text != NULL)
    a->text (kind, text, a->data);
}

/* The answer up to the first stop in it; what may become one is held. */
static void take_answer (EngAnswer *a, const char *text)
{
  g_string_append (a->held, text);
  gsize end = a->held->len, safe = end;
  for (const char *const *stop = a->stops; *stop != NULL; stop++) {
    const char *at = strstr (a->held->str, *stop);
    gsize n = strlen (*stop);
    if (at != NULL && (gsize) (at - a->held->str) < end)
      end = (gsize) (at - a->held->str);
    for (gsize k = MIN (n - 1, a->held->len); k > 0; k--)
      if (memcmp (a->held->str + a->held->len - k, *stop, k) == 0) {
        safe = MIN (safe, a->held->len - k);
        break;
      }
  }
  a->stopped = end < a->held->len;
  gsize n = a->stopped ? end : safe;
  while (!a->stopped && n > 0 && n < a->held->len && ((guint8) a->held->str[n] & 0xC0) == 0x80)
    n--;
  g_string_truncate (a->ready, 0);
  g_string_append_len (a->ready, a->held->str, (gssize) n);
  give (a, ENG_TEXT_ANSWER, a->ready->str);
  g_string_erase (a->held, 0, (gssize) (a->stopped ? a->held->len : n));
}

static void take_segment (EngTextKind kind, const char *text, gpointer data)
{
  EngAnswer *a = data;
  if (a->stopped)
    return;
  if (kind == ENG_TEXT_ANSWER && a->stops != NULL)
    take_answer (a, text);
  else
    give (a, kind, text);
}

static void push (EngAnswer *a, gint32 token)
{
  gsize length;
  const char *piece = eng_tokenizer_piece (a->tokenizer, token, TRUE, &length);
  if (eng_tokenizer_is_control (a->tokenizer, token) && eng_segments_is_mark (piece, length)) {
    g_autofree char *mark = g_strndup (piece, length);
    eng_segments_push (a->segments, mark);
  } else {
    eng_segments_push (a->segments, eng_detokenizer_push (a->detokenizer, token));
  }
}

/* ---- the answer ----------------------------------------------------------------------------------------------------------- */

EngAnswer *eng_answer_new (EngModel *model, const EngAnswerOptions *options, EngTextFunc text, gpointer data)
{
  EngAnswer *a = g_new0 (EngAnswer, 1);
  EngSamplerOptions sampling = options->sampling;
  a->model = eng_model_ref (model);
  a->tokenizer = eng_model_tokenizer (model);
  a->max_tokens = options->max_tokens;
  a->stops = options->stops != NULL && options->stops[0] != NULL ? options->stops : NULL;
  a->held = g_string_new (NULL);
  a->ready = g_string_new (NULL);
  a->text = text;
  a->data = data;
  a->opener = -1;
  a->calls = options->calls;
  if (sampling.dry_multiplier > 0 && sampling.dry_breakers == NULL)
    sampling.dry_breakers = a->breakers = dry_breakers (a->tokenizer);
  a->sampler = eng_sampler_new (&sampling, eng_model_traits (model)->n_vocab);
  a->detokenizer = eng_detokenizer_new (a->tokenizer);
  a->segments = eng_segments_new (options->prompt, options->tools, take_segment, a);
  if (options->raw)
    eng_segments_divide_nothing (a->segments);
  if (options->grammar != NULL) {
    a->constraint = eng_constraint_new (options->grammar, a->tokenizer, eng_model_token_bytes (model, options->calls));
    a->opener = find_opener (a->tokenizer, eng_gguf_chat_template (eng_model_gguf (model)));
  }
  return a;
}

void eng_answer_free (EngAnswer *a)
{
  if (a == NULL)
    return;
  eng_sampler_free (a->sampler);
  eng_constraint_free (a->constraint);
  eng_detokenizer_free (a->detokenizer);
  eng_segments_free (a->segments);
  g_string_free (a->held, TRUE);
  g_string_free (a->ready, TRUE);
  g_free (a->breakers);
  eng_model_unref (a->model);
  g_free (a);
}

static gboolean finish (EngAnswer *a, const char *reason)
{
  a->finish_reason = reason;
  return FALSE;
}

/* Only what obeys the grammar stays possible, and before the first token reasoning, where the model knows it. */
static gboolean limit (EngAnswer *a, float *logits, GError **error)
{
  gboolean may_think = a->n_tokens == 0 && a->opener >= 0 && eng_segments_at_start (a->segments);
  float kept = may_think ? logits[a->opener] : 0;
  if (!eng_constraint_limit (a->constraint, logits, eng_model_traits (a->model)->n_vocab, error))
    return FALSE;
  if (may_think)
    logits[a->opener] = kept;
  return TRUE;
}

gboolean eng_answer_next (EngAnswer *a, EngSession *session, gint32 *token, GError **error)
{
  float *logits = eng_session_logits (session);
  gboolean held = a->constraint != NULL && !(a->calls ? eng_segments_in_reasoning (a->segments) : eng_segments_before_answer (a->segments));
  if (held && !limit (a, logits, error))
    return FALSE;
  if (a->constraint != NULL && !held) /* no turn ends in the middle of its reasoning */
    eng_constraint_keep_open (a->constraint, logits, eng_model_traits (a->model)->n_vocab);
  *token = eng_sampler_sample (a->sampler, logits, eng_session_tokens (session), eng_session_n_past (session));
  if (*token < 0) {
    g_set_error (error, ENG_ERROR, ENG_ERROR_FORMAT, "%s computes no numbers any more: the file is damaged, download it again",
                 eng_gguf_path (eng_model_gguf (a->model)));
    return FALSE;
  }
  if (eng_tokenizer_is_end (a->tokenizer, *token))
    return finish (a, "stop");
  a->n_tokens++;
  push (a, *token);
  if (held && *token != a->opener)
    eng_constraint_take (a->constraint, *token);
  if (a->stopped || (held && eng_constraint_is_complete (a->constraint)))
    return finish (a, "stop");
  if ((a->max_tokens > 0 && a->n_tokens >= a->max_tokens) || eng_session_n_past (session) >= eng_session_n_ctx (session))
    return finish (a, "length");
  return TRUE;
}

void eng_answer_end (EngAnswer *a)
{
  eng_segments_push (a->segments, eng_detokenizer_flush (a->detokenizer));
  eng_segments_end (a->segments);
  if (!a->stopped)
    give (a, ENG_TEXT_ANSWER, a->held->str);
  g_string_truncate (a->held, 0);
}

guint eng_answer_n_tokens (const EngAnswer *a)
{
  return a->n_tokens;
}

const char *eng_answer_finish_reason (const EngAnswer *a)
{
  return a->finish_reason;
}
