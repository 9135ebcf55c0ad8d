/* session_shift.c: old turns left out without computing the later ones again: their keys are turned back to where they now stand. */
#include "engine/rope.h"
#include "engine/session_private.h"

#include <string.h>

enum { WORTH_MOVING = 32 /* tokens that are moved rather than computed again */ };

typedef struct {
  EngSession *session;
  guint from, to, n;
  float *cos_sin, *cos_sin_local; /* [n_rot / 2][2] of the way back */
} Move;

static void turn_back (const Move *move, const EngTraits *t, guint layer, float *key)
{
  const float *cos_sin = eng_traits_windowed (t, layer) && t->rope_theta_local > 0 ? move->cos_sin_local : move->cos_sin;
  if (!eng_traits_turned (t, layer))
    return;
  if (t->rope_halves)
    xb_rope_halves (key + t->latent, cos_sin, t->n_rot);
  else
    xb_rope_pairs (key + t->latent, cos_sin, t->n_rot);
}

/* Units are layers. Positions ascend, and what is written lies before what is read. */
static void move_layers (gpointer data, guint begin, guint end, guint worker)
{
  const Move *move = data;
  const EngTraits *t = eng_model_traits (move->session->pool->model);
  EngKvSequence *kv = &move->session->kv;
  float key[XB_MAX_KEY], value[XB_MAX_KEY];
  for (guint layer = begin; layer < end; layer++)
    for (guint head = 0; head < t->n_kv_heads; head++)
      for (guint i = 0; i < move->n; i++) {
        eng_kv_load (kv, layer, head, move->from + i, key, value);
        turn_back (move, t, layer, key);
        eng_kv_store (kv, layer, head, move->to + i, key, t->latent > 0 ? NULL : value);
      }
}

static float *way_back (const EngTraits *t, const float *factors, guint n_ctx, guint distance, gboolean local)
{
  g_autofree double *frequency = g_new (double, t->n_rot);
  float *cos_sin = g_new (float, t->n_rot);
  eng_rope_frequencies (frequency, t, local ? NULL : factors, n_ctx, local);
  eng_rope_position (cos_sin, frequency, t->n_rot, distance, 1);
  for (guint i = 0; i < t->n_rot / 2; i++)
    cos_sin[2 * i + 1] = -cos_sin[2 * i + 1];
  return cos_sin;
}

/* Moves positions from .. from + n - 1 to `to`, which lies before. */
static gboolean move_up (EngSession *session, guint from, guint to, guint n)
{
  EngPool *pool = session->pool;
  const EngTraits *t = eng_model_traits (pool->model);
  guint need[ENG_KV_KINDS];
  for (guint kind = 0; kind < ENG_KV_KINDS; kind++)
    need[kind] = eng_kv_sequence_n_missing (&session->kv, kind, to, n);
  if (!eng_pool_make_room (pool, need, NULL))
    return FALSE;
  eng_kv_sequence_extend (&session->kv, to, n);
  const float *factors = eng_model_rope_factors (pool->model, pool->options.n_ctx);
  g_autofree float *cos_sin = way_back (t, factors, pool->options.n_ctx, from - to, FALSE);
  g_autofree float *local = way_back (t, factors, pool->options.n_ctx, from - to, t->rope_theta_local > 0);
  Move move = { session, from, to, n, cos_sin, local };
  eng_workers_run (pool->workers, move_layers, &move, t->n_layers, 1);
  return TRUE;
}

/* Keys can be turned in place where they are not rounded to codes, and where a position shows in nothing else. */
static gboolean can_move (const EngSession *session)
{
  const EngTraits *t = eng_model_traits (session->pool->model);
  return session->pool->kv.bits == 16 && !t->learned_positions && session->kv.first[ENG_KV_WHOLE] == 0 && session->kv.first[ENG_KV_WINDOWED] == 0;
}

guint eng_session_prepare_shifted (EngSession *session, const gint32 *tokens, guint n)
{
  const gint32 *held = session->tokens;
  guint n_held = session->n_held, kept = 0, from = 0, most = 0;
  n = MIN (n, session->n_ctx);
  while (kept < n && kept < n_held && held[kept] == tokens[kept])
    kept++;
  for (guint i = kept + 1; can_move (session) && i < n_held; i++) {
    guint same = 0;
    while (i + same < n_held && kept + same < n && held[i + same] == tokens[kept + same])
      same++;
    if (same > most) {
      most = same;
      from = i;
    }
  }
  if (most < WORTH_MOVING || !move_up (session, from, kept, most))
    return eng_session_prepare (session, tokens, n);
  eng_session_forget_ahead (session);
  session->n_past = session->n_held = kept + most;
  eng_kv_sequence_settle (&session->kv, session->n_held);
  memcpy (session->tokens, tokens, session->n_held * sizeof *tokens);
  return session->n_held;
}
