/* samples.c: a text that the model writes itself, to be observed on: half of the samples begin where any text does, half where a conversation does,
 * so that the model asks and answers in its own words (Xu et al. 2024, Magpie). */
#include "quantizer/samples.h"

#include "engine/pool.h"
#include "engine/sampler.h"
#include "quantizer/calibration.h"

#include <string.h>

enum { AT_ONCE = 16 };

#define MARK "\x01 here a person writes \x01"

/* What a conversation begins with, up to a person's first word; NULL: the model has no template, or one that says nothing before it. */
static char *chat_opening (EngModel *model)
{
  const EngChatTemplate *template = eng_model_template (model, NULL);
  if (template == NULL)
    return NULL;
  JsonObject *message = json_object_new ();
  JsonArray *messages = json_array_new ();
  json_object_set_string_member (message, "role", "user");
  json_object_set_string_member (message, "content", MARK);
  json_array_add_object_element (messages, message);
  g_autofree char *text = qz_calibration_chat (template, messages);
  char *mark = text != NULL ? strstr (text, MARK) : NULL;
  return mark != NULL && mark > text ? g_strndup (text, mark - text) : NULL;
}

/* Tokens of an opening, at least one. */
static GArray *opening_tokens (const EngTokenizer *tokenizer, const char *opening)
{
  GArray *tokens = g_array_new (FALSE, FALSE, sizeof (gint32));
  int bos = eng_tokenizer_bos (tokenizer), eos = eng_tokenizer_eos (tokenizer);
  gint32 first = bos >= 0 ? bos : MAX (eos, 0);
  if (opening == NULL || (bos >= 0 && eng_tokenizer_adds_bos (tokenizer)))
    g_array_append_val (tokens, first);
  if (opening != NULL)
    eng_tokenizer_encode (tokenizer, opening, -1, ENG_TOKENIZE_SPECIAL, tokens);
  return tokens;
}

typedef struct {
  EngPool *pool;
  EngSession *sessions[AT_ONCE];
  EngSampler *samplers[AT_ONCE];
  GArray *openings[2];
  guint n_tokens;
} Writer;

/* One sample of each session, side by side. */
static gboolean write_samples (Writer *w, const EngTokenizer *tokenizer, guint n, GString *text, GCancellable *cancellable, GError **error)
{
  gint32 next[AT_ONCE];
  EngPart parts[AT_ONCE];
  for (guint i = 0; i < n; i++) {
    GArray *opening = w->openings[i % 2];
    guint length = MIN (opening->len, w->n_tokens - 1);
    eng_session_truncate (w->sessions[i], 0);
    EngPart part = { w->sessions[i], (const gint32 *) (gpointer) opening->data, length, ENG_LOGITS_LAST };
    if (!eng_pool_eval (w->pool, &part, 1, cancellable, error))
      return FALSE;
    next[i] = MAX (0, eng_sampler_sample (w->samplers[i], eng_session_logits (w->sessions[i]), NULL, 0));
  }
  for (gboolean more = TRUE; more;) {
    guint n_parts = 0;
    for (guint i = 0; i < n; i++)
      if (eng_session_n_past (w->sessions[i]) < w->n_tokens)
        parts[n_parts++] = (EngPart){ w->sessions[i], &next[i], 1, ENG_LOGITS_LAST };
    more = n_parts > 0;
    if (more && !eng_pool_eval (w->pool, parts, n_parts, cancellable, error))
      return FALSE;
    for (guint k = 0; k < n_parts; k++) {
      guint i = (guint) (parts[k].tokens - next);
      next[i] = MAX (0, eng_sampler_sample (w->samplers[i], eng_session_logits (w->sessions[i]), NULL, 0));
    }
  }
  for (guint i = 0; i < n; i++) {
    const gint32 *tokens = eng_session_tokens (w->sessions[i]);
    for (guint k = i % 2 == 0 || eng_tokenizer_adds_bos (tokenizer) ? 1 : 0; k < w->n_tokens; k++) {
      gsize length;
      const char *piece = eng_tokenizer_piece (tokenizer, tokens[k], TRUE, &length);
      g_string_append_len (text, piece, length);
    }
    g_string_append_c (text, '\n');
  }
  return TRUE;
}

static gboolean writer_open (Writer *w, EngModel *model, EngWorkers *workers, guint64 seed, GError **error)
{
  const EngTraits *traits = eng_model_traits (model);
  w->n_tokens = MIN (QZ_SEQUENCE_TOKENS, traits->n_ctx_train > 0 ? traits->n_ctx_train : QZ_SEQUENCE_TOKENS);
  EngSessionOptions options = { .n_ctx = AT_ONCE * w->n_tokens, .n_sessions = AT_ONCE, .kv_bits = 16, .activation_bits = 32 };
  w->pool = eng_pool_new (model, workers, &options, error);
  for (guint i = 0; w->pool != NULL && i < AT_ONCE; i++) {
    EngSamplerOptions drawn = { .temperature = 1, .top_p = 1, .repeat_penalty = 1, .seed = seed * AT_ONCE + i + 1 };
    w->samplers[i] = eng_sampler_new (&drawn, traits->n_vocab);
    w->sessions[i] = eng_pool_open (w->pool, w->n_tokens, error);
    if (w->sessions[i] == NULL)
      return FALSE;
  }
  g_autofree char *chat = chat_opening (model);
  w->openings[0] = opening_tokens (eng_model_tokenizer (model), NULL);
  w->openings[1] = opening_tokens (eng_model_tokenizer (model), chat);
  return w->pool != NULL;
}

static void writer_close (Writer *w)
{
  for (guint i = 0; i < AT_ONCE; i++) {
    eng_session_free (w->sessions[i]);
    eng_sampler_free (w->samplers[i]);
  }
  g_clear_pointer (&w->openings[0], g_array_unref);
  g_clear_pointer (&w->openings[1], g_array_unref);
  g_clear_pointer (&w->pool, eng_pool_unref);
}

char *qz_calibration_samples (EngModel *model, EngWorkers *workers, const QzOptions *options, EngProgress progress, gpointer data,
                              GCancellable *cancellable, GError **error)
{
  Writer w = { 0 };
  g_autoptr (GString) text = g_string_new (NULL);
  gboolean ok = writer_open (&w, model, workers, options->seed, error);
  guint learned = qz_calibration_tokens (options), tokens = learned + learned / 8 + 2 * QZ_SEQUENCE_TOKENS;
  guint left = ok ? (tokens + w.n_tokens - 1) / w.n_tokens : 0, all = left;
  while (ok && left > 0) {
    guint n = MIN (left, AT_ONCE);
    if (progress != NULL)
      progress ((double) (all - left) / all, "The model writes a text to be observed on", data);
    ok = write_samples (&w, eng_model_tokenizer (model), n, text, cancellable, error);
    left -= n;
  }
  writer_close (&w);
  return ok ? g_utf8_make_valid (text->str, text->len) : NULL;
}
