/* session_file.c: a session put aside and taken up again: its tokens and pages in a GGUF file of its own kind, which the writer makes whole or
 * not at all and the reader checks; here, whether it is of this model and says what was saved. */
#include "engine/error.h"
#include "engine/session_private.h"

#include <string.h>

#define ARCHITECTURE "valise-session"

enum { VERSION = 4, SAMPLE = 256 /* bytes of a tensor, at either end, that tell models apart */ };

static const char *const block_names[ENG_KV_KINDS] = { "blocks.whole", "blocks.windowed" };
static const char *const first_keys[ENG_KV_KINDS] = { "session.whole.first", "session.windowed.first" };

/* What the numbers in the pages depend on: every tensor's name, type and shape, and some of its bytes. Free with g_free. */
static char *identity_of (const EngModel *model)
{
  const EngGguf *gguf = eng_model_gguf (model);
  g_autoptr (GChecksum) sum = g_checksum_new (G_CHECKSUM_SHA256);
  for (guint i = 0; i < eng_gguf_n_tensors (gguf); i++) {
    const EngTensor *tensor = eng_gguf_tensor (gguf, i);
    gsize n = MIN (tensor->bytes, SAMPLE);
    g_checksum_update (sum, (const guchar *)tensor->name, strlen (tensor->name) + 1);
    g_checksum_update (sum, (const guchar *)&tensor->type, sizeof tensor->type);
    g_checksum_update (sum, (const guchar *)tensor->dims, sizeof tensor->dims);
    g_checksum_update (sum, tensor->data, n);
    g_checksum_update (sum, (const guchar *)tensor->data + tensor->bytes - n, n);
  }
  return g_strdup (g_checksum_get_string (sum));
}

/* ---- saving -------------------------------------------------------------------------------------------------------------- */

/* Of the note, the tokens and each block, in file order. */
static char *sum_of (const EngSession *session, const char *note)
{
  g_autoptr (GChecksum) sum = g_checksum_new (G_CHECKSUM_SHA256);
  g_checksum_update (sum, (const guchar *)note, (gssize)strlen (note));
  g_checksum_update (sum, (const guchar *)session->tokens, session->n_past * sizeof *session->tokens);
  for (guint kind = 0; kind < ENG_KV_KINDS; kind++)
    for (guint i = session->kv.first[kind]; i < session->kv.end[kind]; i++)
      g_checksum_update (sum, session->kv.blocks[kind][i], session->pool->kv.stores[kind].block_bytes);
  return g_strdup (g_checksum_get_string (sum));
}

static gboolean write_all (EngGgufWriter *writer, const EngSession *session, const guint *tensors, GError **error)
{
  if (!eng_gguf_writer_write (writer, tensors[ENG_KV_KINDS], 0, session->tokens, session->n_past * sizeof *session->tokens, error))
    return FALSE;
  for (guint kind = 0; kind < ENG_KV_KINDS; kind++) {
    gsize bytes = session->pool->kv.stores[kind].block_bytes, at = 0;
    for (guint i = session->kv.first[kind]; i < session->kv.end[kind]; i++, at += bytes)
      if (!eng_gguf_writer_write (writer, tensors[kind], at, session->kv.blocks[kind][i], bytes, error))
        return FALSE;
  }
  return TRUE;
}

gboolean eng_session_save (EngSession *session, const char *note, const char *path, GError **error)
{
  guint tensors[ENG_KV_KINDS + 1];
  guint64 n_tokens = session->n_past;
  note = note != NULL ? note : "";
  if (n_tokens == 0) {
    g_set_error_literal (error, ENG_ERROR, ENG_ERROR_ARGUMENT, "an empty session holds nothing to save");
    return FALSE;
  }
  /* What was guessed ahead lies behind the last token and is not the session's. */
  eng_session_forget_ahead (session);
  eng_kv_sequence_settle (&session->kv, session->n_held);
  g_autofree char *identity = identity_of (session->pool->model), *sum = sum_of (session, note);
  g_autoptr (EngGgufWriter) writer = eng_gguf_writer_new (64);
  eng_gguf_writer_set_string (writer, "general.architecture", ARCHITECTURE);
  eng_gguf_writer_set_u32 (writer, "session.version", VERSION);
  eng_gguf_writer_set_string (writer, "session.model", identity);
  eng_gguf_writer_set_string (writer, "session.sha256", sum);
  eng_gguf_writer_set_string (writer, "session.note", note);
  eng_gguf_writer_set_u32 (writer, "session.kv_bits", (guint32)session->pool->kv.bits);
  eng_gguf_writer_set_u32 (writer, "session.n_held", session->n_held);
  for (guint kind = 0; kind < ENG_KV_KINDS; kind++) {
    guint64 bytes = (session->kv.end[kind] - session->kv.first[kind]) * session->pool->kv.stores[kind].block_bytes;
    eng_gguf_writer_set_u32 (writer, first_keys[kind], session->kv.first[kind]);
    tensors[kind] = bytes > 0 ? eng_gguf_writer_add_tensor (writer, block_names[kind], ENG_TYPE_I8, 1, &bytes) : 0;
  }
  tensors[ENG_KV_KINDS] = eng_gguf_writer_add_tensor (writer, "tokens", ENG_TYPE_I32, 1, &n_tokens);
  return eng_gguf_writer_begin (writer, path, error) && write_all (writer, session, tensors, error) && eng_gguf_writer_finish (writer, error);
}

/* ---- restoring ----------------------------------------------------------------------------------------------------------- */

static gboolean refuse (const EngGguf *gguf, EngError code, const char *why, GError **error)
{
  g_set_error (error, ENG_ERROR, code, "%s %s", eng_gguf_path (gguf), why);
  return FALSE;
}

typedef struct {
  const EngTensor *tokens, *blocks[ENG_KV_KINDS]; /* NULL: none of this kind */
  guint n_past, n_held, first[ENG_KV_KINDS], end[ENG_KV_KINDS];
} Saved;

/* What is there is what a session of this model and these options would have. */
static gboolean read_saved (const EngSession *session, const EngGguf *gguf, Saved *saved, GError **error)
{
  const EngKvPool *pool = &session->pool->kv;
  saved->tokens = eng_gguf_find_tensor (gguf, "tokens");
  gint64 n_held = eng_gguf_get_int (gguf, "session.n_held", -1);
  if (saved->tokens == NULL || saved->tokens->type != ENG_TYPE_I32 || n_held < 0 || (guint64)n_held > saved->tokens->dims[0])
    return refuse (gguf, ENG_ERROR_FORMAT, "is no whole session: it is damaged", error);
  if (saved->tokens->dims[0] > session->n_ctx)
    return refuse (gguf, ENG_ERROR_MEMORY, "holds more tokens than this context: choose a longer one", error);
  saved->n_past = (guint)saved->tokens->dims[0];
  saved->n_held = (guint)n_held;
  for (guint kind = 0; kind < ENG_KV_KINDS; kind++) {
    const EngKvStore *store = &pool->stores[kind];
    const EngTensor *blocks = eng_gguf_find_tensor (gguf, block_names[kind]);
    guint end = store->n_layers > 0 ? (saved->n_held + ENG_KV_PAGE_TOKENS - 1) / ENG_KV_PAGE_TOKENS : 0;
    gint64 first = eng_gguf_get_int (gguf, first_keys[kind], -1);
    if (first < 0 || first > end || (first > 0 && kind == ENG_KV_WHOLE) || (blocks != NULL && blocks->type != ENG_TYPE_I8)
        || (blocks != NULL ? blocks->bytes : 0) != (end - (guint64)first) * store->block_bytes)
      return refuse (gguf, ENG_ERROR_FORMAT, "does not hold the pages that its tokens ask for: it is damaged", error);
    saved->blocks[kind] = blocks;
    saved->first[kind] = (guint)first;
    saved->end[kind] = end;
  }
  return TRUE;
}

static gboolean check_sum (const EngGguf *gguf, const Saved *saved, GError **error)
{
  g_autoptr (GChecksum) sum = g_checksum_new (G_CHECKSUM_SHA256);
  const char *note = eng_gguf_get_string (gguf, "session.note", "");
  g_checksum_update (sum, (const guchar *)note, (gssize)strlen (note));
  g_checksum_update (sum, saved->tokens->data, (gssize)saved->tokens->bytes);
  for (guint kind = 0; kind < ENG_KV_KINDS; kind++)
    if (saved->blocks[kind] != NULL)
      g_checksum_update (sum, saved->blocks[kind]->data, (gssize)saved->blocks[kind]->bytes);
  return strcmp (eng_gguf_get_string (gguf, "session.sha256", ""), g_checksum_get_string (sum)) == 0
         || refuse (gguf, ENG_ERROR_FORMAT, "does not have the checksum it was saved with: it is damaged", error);
}

static gboolean check_tokens (const EngSession *session, const EngGguf *gguf, const Saved *saved, GError **error)
{
  guint n_vocab = eng_model_traits (session->pool->model)->n_vocab;
  for (guint i = 0; i < saved->n_past; i++) {
    gint32 token;
    memcpy (&token, (const guint8 *)saved->tokens->data + i * sizeof token, sizeof token);
    if (token < 0 || (guint)token >= n_vocab)
      return refuse (gguf, ENG_ERROR_FORMAT, "holds a token outside the vocabulary: it is damaged", error);
  }
  return TRUE;
}

/* Pages that this session's windows need no more are left out. */
static gboolean take_over (EngSession *session, const Saved *saved, GError **error)
{
  EngKvPool *pool = &session->pool->kv;
  guint from[ENG_KV_KINDS], need[ENG_KV_KINDS];
  for (guint kind = 0; kind < ENG_KV_KINDS; kind++) {
    guint kept = kind == ENG_KV_WINDOWED && saved->n_held > pool->kept ? (saved->n_held - pool->kept) / ENG_KV_PAGE_TOKENS : 0;
    from[kind] = MAX (saved->first[kind], kept);
    need[kind] = saved->end[kind] - from[kind];
  }
  eng_session_truncate (session, 0);
  if (!eng_pool_make_room (session->pool, need, error))
    return FALSE;
  for (guint kind = 0; kind < ENG_KV_KINDS; kind++) {
    gsize bytes = pool->stores[kind].block_bytes;
    eng_kv_sequence_take (&session->kv, kind, from[kind], saved->end[kind]);
    for (guint i = from[kind]; i < saved->end[kind]; i++)
      memcpy ((void *)session->kv.blocks[kind][i], (const guint8 *)saved->blocks[kind]->data + (i - saved->first[kind]) * bytes, bytes);
  }
  memcpy (session->tokens, saved->tokens->data, saved->n_past * sizeof *session->tokens);
  eng_session_forget_ahead (session);
  session->n_past = saved->n_past;
  session->n_held = saved->n_held;
  if (!eng_kv_sequence_reaches (&session->kv, session->n_held)) {
    session->n_held = 0;
    eng_kv_sequence_settle (&session->kv, 0);
  }
  return TRUE;
}

gboolean eng_session_restore (EngSession *session, char **note, const char *path, GError **error)
{
  Saved saved;
  g_autoptr (GError) failure = NULL;
  g_autoptr (EngGguf) gguf = eng_gguf_open (path, &failure);
  if (g_error_matches (failure, ENG_ERROR, ENG_ERROR_FORMAT)) {
    g_set_error (error, ENG_ERROR, ENG_ERROR_FORMAT, "%s is no saved session, or a damaged one: name another file", path);
    return FALSE;
  }
  if (gguf == NULL) {
    g_propagate_error (error, g_steal_pointer (&failure));
    return FALSE;
  }
  if (strcmp (eng_gguf_get_string (gguf, "general.architecture", ""), ARCHITECTURE) != 0)
    return refuse (gguf, ENG_ERROR_FORMAT, "is no saved session", error);
  if (eng_gguf_get_int (gguf, "session.version", 0) != VERSION)
    return refuse (gguf, ENG_ERROR_UNSUPPORTED, "was saved by another version of Valise", error);
  g_autofree char *identity = identity_of (session->pool->model);
  if (strcmp (eng_gguf_get_string (gguf, "session.model", ""), identity) != 0)
    return refuse (gguf, ENG_ERROR_ARGUMENT, "was saved with another model: open it with that one", error);
  if (eng_gguf_get_int (gguf, "session.kv_bits", 0) != session->pool->kv.bits)
    return refuse (gguf, ENG_ERROR_ARGUMENT, "was saved with a KV cache of another depth: choose that one", error);
  if (!read_saved (session, gguf, &saved, error) || !check_sum (gguf, &saved, error) || !check_tokens (session, gguf, &saved, error)
      || !take_over (session, &saved, error))
    return FALSE;
  if (note != NULL)
    *note = g_strdup (eng_gguf_get_string (gguf, "session.note", ""));
  return TRUE;
}
