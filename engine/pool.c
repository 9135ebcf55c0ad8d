/* pool.c: who holds which pages, and a pass over several sessions. What a session leaves behind is remembered until its pages are needed. */
#include "engine/pool.h"
#include "engine/error.h"
#include "engine/session_private.h"

#include <string.h>



EngPool *eng_pool_new (EngModel *model, EngWorkers *workers, const EngSessionOptions *options, GError **error)
{
  EngSessionOptions o = *options;
  o.activation_bits = o.activation_bits == 0 ? 8 : o.activation_bits;
  o.kv_bits = o.kv_bits == 0 ? 16 : o.kv_bits;
  o.n_sessions = MAX (o.n_sessions, 1);
  if (o.n_ctx == 0 || o.n_ctx > 1 << 24) {
    g_set_error (error, ENG_ERROR, ENG_ERROR_ARGUMENT, "a context of %u tokens makes no sense: choose 1 to %d", o.n_ctx, 1 << 24);
    return NULL;
  }
  const EngTraits *traits = eng_model_traits (model);
  if (traits->learned_positions && o.n_ctx > traits->n_ctx_train && o.n_sessions <= 1) {
    g_set_error (error, ENG_ERROR, ENG_ERROR_ARGUMENT, "this model knows %u positions and no more: choose a context of so many tokens at most",
                 traits->n_ctx_train);
    return NULL;
  }
  if (o.n_sessions > MIN (o.n_ctx, 4096)) {
    g_set_error (error, ENG_ERROR, ENG_ERROR_ARGUMENT, "%u sessions cannot share %u tokens: choose fewer", o.n_sessions, o.n_ctx);
    return NULL;
  }
  g_autoptr (EngPool) pool = g_new0 (EngPool, 1);
  pool->references = 1;
  pool->model = eng_model_ref (model);
  pool->workers = workers;
  pool->options = o;
  pool->sessions = g_ptr_array_sized_new (o.n_sessions);
  pool->slices = g_new (EngSlice, o.n_sessions);
  if (!eng_kv_pool_init (&pool->kv, eng_model_traits (model), &o, error))
    return NULL;
  pool->decoder = eng_decoder_new (model, workers, &o, error);
  if (pool->decoder == NULL)
    return NULL;
  pool->kv.first_keys = eng_decoder_first_keys (pool->decoder, &pool->kv);
  return g_steal_pointer (&pool);
}

EngPool *eng_pool_ref (EngPool *pool)
{
  pool->references++;
  return pool;
}

static void forget (EngPool *pool)
{
  EngRemembered *oldest = g_queue_pop_tail (&pool->remembered);
  eng_kv_sequence_clear (&oldest->kv);
  g_free (oldest);
}

void eng_pool_unref (EngPool *pool)
{
  if (pool == NULL || --pool->references > 0)
    return;
  while (!g_queue_is_empty (&pool->remembered))
    forget (pool);
  eng_decoder_free (pool->decoder);
  eng_kv_pool_clear (&pool->kv);
  eng_model_unref (pool->model);
  g_ptr_array_unref (pool->sessions);
  g_free (pool->slices);
  g_free (pool);
}

EngSession *eng_pool_open (EngPool *pool, guint n_ctx, GError **error)
{
  const EngTraits *traits = eng_model_traits (pool->model);
  n_ctx = n_ctx > 0 ? MIN (n_ctx, pool->options.n_ctx) : pool->options.n_ctx;
  n_ctx = traits->learned_positions ? MIN (n_ctx, traits->n_ctx_train) : n_ctx;
  if (pool->sessions->len >= pool->options.n_sessions) {
    g_set_error (error, ENG_ERROR, ENG_ERROR_BUSY, "all %u sessions are taken: end one first", pool->options.n_sessions);
    return NULL;
  }
  EngSession *session = g_new0 (EngSession, 1);
  session->pool = eng_pool_ref (pool);
  session->n_ctx = n_ctx;
  session->tokens = g_new (gint32, n_ctx);
  eng_kv_sequence_init (&session->kv, &pool->kv, n_ctx);
  g_ptr_array_add (pool->sessions, session);
  return session;
}

void eng_pool_close (EngPool *pool, EngSession *session)
{
  g_ptr_array_remove_fast (pool->sessions, session);
  eng_pool_unref (pool);
}

guint eng_pool_batch (const EngPool *pool)
{
  return eng_decoder_batch (pool->decoder);
}

enum { SEEN = 1u << 31 };

static guint32 *references_of (const EngKvStore *store, const void *block)
{
  return &store->references[(gsize)((const guint8 *)block - store->memory) / store->block_bytes];
}

/* Blocks that sessions hold, each counted once. */
static guint n_held_blocks (const EngPool *pool, guint kind)
{
  const EngKvStore *store = &pool->kv.stores[kind];
  guint n = 0;
  for (guint pass = 0; pass < 2; pass++)
    for (guint i = 0; i < pool->sessions->len; i++) {
      const EngKvSequence *kv = &((const EngSession *)pool->sessions->pdata[i])->kv;
      for (guint j = kv->first[kind]; j < kv->end[kind]; j++) {
        guint32 *references = references_of (store, kv->blocks[kind][j]);
        n += pass == 0 && (*references & SEEN) == 0;
        *references = pass == 0 ? *references | SEEN : *references & ~(guint32)SEEN;
      }
    }
  return n;
}

guint eng_pool_n_free (const EngPool *pool)
{
  guint n_free = G_MAXUINT;
  for (guint kind = 0; kind < ENG_KV_KINDS; kind++)
    if (pool->kv.stores[kind].n_layers > 0 && (kind == ENG_KV_WHOLE || pool->kv.kept == G_MAXUINT))
      n_free = MIN (n_free, pool->kv.stores[kind].n_blocks - n_held_blocks (pool, kind));
  return n_free == G_MAXUINT ? pool->options.n_ctx : n_free * ENG_KV_PAGE_TOKENS;
}

/* ---- what is left behind ------------------------------------------------------------------------------------------------- */

void eng_pool_remember (EngPool *pool, EngSession *session)
{
  guint n = session->n_held;
  if (n > 0) {
    EngRemembered *kept = g_malloc (sizeof *kept + n * sizeof *kept->tokens);
    kept->n = n;
    memcpy (kept->tokens, session->tokens, n * sizeof *kept->tokens);
    eng_kv_sequence_init (&kept->kv, &pool->kv, n);
    eng_kv_sequence_share (&kept->kv, &session->kv, n);
    g_queue_push_head (&pool->remembered, kept);
    if (g_queue_get_length (&pool->remembered) > ENG_MAX_REMEMBERED)
      forget (pool);
  }
  session->n_past = session->n_held = 0;
  eng_kv_sequence_settle (&session->kv, 0);
}

/* ---- a pass -------------------------------------------------------------------------------------------------------------- */

static gboolean is_full (const EngPool *pool, GError **error)
{
  g_set_error (error, ENG_ERROR, ENG_ERROR_MEMORY, "the %u tokens that all sessions share are taken: end one, or choose a longer context", pool->options.n_ctx);
  return FALSE;
}

gboolean eng_pool_make_room (EngPool *pool, const guint need[ENG_KV_KINDS], GError **error)
{
  for (guint kind = 0; kind < ENG_KV_KINDS; kind++)
    while (need[kind] > eng_kv_pool_n_available (&pool->kv, kind)) {
      if (g_queue_is_empty (&pool->remembered))
        return is_full (pool, error);
      forget (pool);
    }
  return TRUE;
}

/* What is missing shrinks while others forget what they share with these. */
static gboolean make_room_for (EngPool *pool, const EngSlice *slices, guint n_slices, GError **error)
{
  for (guint kind = 0; kind < ENG_KV_KINDS; kind++)
    for (;;) {
      guint missing = 0;
      for (guint i = 0; i < n_slices; i++)
        missing += eng_kv_sequence_n_missing (slices[i].sequence, kind, slices[i].n_past, slices[i].n);
      if (missing <= eng_kv_pool_n_available (&pool->kv, kind))
        break;
      if (g_queue_is_empty (&pool->remembered))
        return is_full (pool, error);
      forget (pool);
    }
  return TRUE;
}

gboolean eng_pool_pass (EngPool *pool, EngSlice *slices, guint n_slices, EngObserver observer, gpointer observer_data,
                        GCancellable *cancellable, GError **error)
{
  if (!make_room_for (pool, slices, n_slices, error))
    return FALSE;
  for (guint i = 0; i < n_slices; i++)
    eng_kv_sequence_extend (slices[i].sequence, slices[i].n_past, slices[i].n);
  pool->n_passes++;
  gboolean done = eng_decoder_forward (pool->decoder, slices, n_slices, observer, observer_data, cancellable, error);
  for (guint i = 0; i < n_slices; i++)
    eng_kv_sequence_settle (slices[i].sequence, slices[i].n_past + (done ? slices[i].n : 0));
  return done;
}

static gboolean check_parts (const EngPool *pool, const EngPart *parts, guint n_parts, GError **error)
{
  gsize n = 0;
  for (guint i = 0; i < n_parts; i++) {
    gboolean again = FALSE;
    for (guint j = 0; j < i; j++)
      again |= parts[j].session == parts[i].session;
    if (parts[i].n == 0 || again || parts[i].session->pool != pool) {
      g_set_error_literal (error, ENG_ERROR, ENG_ERROR_ARGUMENT, "a pass takes each session of its pool at most once, with a token or more");
      return FALSE;
    }
    if (!eng_session_check (parts[i].session, parts[i].tokens, parts[i].n, error))
      return FALSE;
    n += parts[i].n;
  }
  if (n <= eng_pool_batch (pool))
    return TRUE;
  g_set_error (error, ENG_ERROR, ENG_ERROR_ARGUMENT, "%" G_GSIZE_FORMAT " tokens were given to one pass, but a batch is %u", n, eng_pool_batch (pool));
  return FALSE;
}

gboolean eng_pool_eval (EngPool *pool, const EngPart *parts, guint n_parts, GCancellable *cancellable, GError **error)
{
  EngSlice *all = pool->slices;
  if (!check_parts (pool, parts, n_parts, error))
    return FALSE;
  for (guint i = 0; i < n_parts; i++) {
    if (!eng_session_catch_up (parts[i].session, cancellable, error))
      return FALSE;
    all[i] = (EngSlice){ &parts[i].session->kv, parts[i].tokens, parts[i].n, parts[i].session->n_past, parts[i].wanted };
  }
  if (n_parts > 0 && !eng_pool_pass (pool, all, n_parts, NULL, NULL, cancellable, error))
    return FALSE;
  for (guint i = 0; i < n_parts; i++) {
    EngSession *session = parts[i].session;
    eng_session_append (session, parts[i].tokens, parts[i].n);
    session->first_logits_row = all[i].logits_row;
    session->logits_row = all[i].logits_row + (parts[i].wanted == ENG_LOGITS_ALL ? parts[i].n - 1 : 0);
  }
  return TRUE;
}
