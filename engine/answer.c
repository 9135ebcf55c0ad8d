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

EngAnswer *eng_answer_new (EngModel *model, const EngAnswerOptions *options, EngTextFunc text, gpointer data)
{
  EngAnswer *a = g_new0 (EngAnswer, 1);
  EngSamplerOptions sampling = options->sampling;
  a->model = eng_model_ref (model);
  a->tokenizer = eng_model_tokenizer (model);
  a->max_tokens = options->max_tokens;
  a->text = text;
  a->data = data;
  if (sampling.dry_multiplier > 0 && sampling.dry_breakers == NULL)
    sampling.dry_breakers = a->breakers = dry_breakers (a->tokenizer);
  a->sampler = eng_sampler_new (&sampling, eng_model_traits (model)->n_vocab);
  a->detokenizer = eng_detokenizer_new (a->tokenizer);
  if (options->grammar != NULL)
    a->constraint = eng_constraint_new (options->grammar, a->tokenizer, eng_model_token_bytes (model));
  return a;
}

void eng_answer_free (EngAnswer *a)
{
  if (a == NULL)
    return;
  eng_sampler_free (a->sampler);
  eng_constraint_free (a->constraint);
  eng_detokenizer_free (a->detokenizer);
  g_free (a->breakers);
  eng_model_unref (a->model);
  g_free (a);
}

static void give (EngAnswer *a, const char *text)
{
  if (*text != '\0' && a->text != NULL)
    a->text (text, a->data);
}

static gboolean finish (EngAnswer *a, const char *reason)
{
  a->finish_reason = reason;
  return FALSE;
}

gboolean eng_answer_next (EngAnswer *a, EngSession *session, gint32 *token, GError **error)
{
  float *logits = eng_session_logits (session);
  if (a->constraint != NULL && !eng_constraint_limit (a->constraint, logits, eng_model_traits (a->model)->n_vocab, error))
    return FALSE;
  *token = eng_sampler_sample (a->sampler, logits, eng_session_tokens (session), eng_session_n_past (session));
  if (*token < 0) {
    g_set_error (error, ENG_ERROR, ENG_ERROR_FORMAT, "%s computes no numbers any more: the file is damaged, download it again",
                 eng_gguf_path (eng_model_gguf (a->model)));
    return FALSE;
  }
  if (eng_tokenizer_is_end (a->tokenizer, *token))
    return finish (a, "stop");
  a->n_tokens++;
  give (a, eng_detokenizer_push (a->detokenizer, *token));
  if (a->constraint != NULL)
    eng_constraint_take (a->constraint, *token);
  if (a->constraint != NULL && eng_constraint_is_complete (a->constraint))
    return finish (a, "stop");
  if ((a->max_tokens > 0 && a->n_tokens >= a->max_tokens) || eng_session_n_past (session) >= eng_session_n_ctx (session))
    return finish (a, "length");
  return TRUE;
}

void eng_answer_end (EngAnswer *a)
{
  give (a, eng_detokenizer_flush (a->detokenizer));
}

guint eng_answer_n_tokens (const EngAnswer *a)
{
  return a->n_tokens;
}

const char *eng_answer_finish_reason (const EngAnswer *a)
{
  return a->finish_reason;
}
