/* chats.c: the rows of chats: their order, their search, their bin. */
#include "app/library/library-private.h"

#include <string.h>

G_DEFINE_BOXED_TYPE (ValiseChat, valise_chat, valise_chat_copy, valise_chat_free)

#define CHAT_COLUMNS \
  "id, title, coalesce (model_id, 0), system_prompt, pinned, coalesce (leaf_id, 0), created_us, updated_us," \
  " temperature, top_k, top_p, min_p, repeat_penalty, repeat_last_n, seed"

static ValiseChat *chat_from_row (sqlite3_stmt *statement);
static char *match_expression (const char *search);
static char *like_expression (const char *search);

ValiseChat *valise_chat_copy (const ValiseChat *chat)
{
  ValiseChat *copy = g_new (ValiseChat, 1);
  *copy = *chat;
  copy->title = g_strdup (chat->title);
  copy->system_prompt = g_strdup (chat->system_prompt);
  return copy;
}

void valise_chat_free (ValiseChat *chat)
{
  if (!chat)
    return;
  g_free (chat->title);
  g_free (chat->system_prompt);
  g_free (chat);
}

ValiseChat *valise_library_create_chat (ValiseLibrary *library, gint64 model_id, GError **error)
{
  const EngSamplerOptions sampling = ENG_SAMPLER_DEFAULTS;
  ValiseStore *store = library->store;
  G_GNUC_UNUSED g_autoptr (GRecMutexLocker) locker = g_rec_mutex_locker_new (&store->lock);
  gint64 now = g_get_real_time ();
  if (!valise_store_begin (store, FALSE, error))
    return NULL;
  gboolean done = valise_store_exec (store, error,
                                     "INSERT INTO chats (model_id, created_us, updated_us, temperature, top_k, top_p, min_p, repeat_penalty,"
                                     " repeat_last_n, seed) VALUES ((SELECT id FROM models WHERE id = ?), ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                                     "iiididddii", model_id, now, now, (double) sampling.temperature, (gint64) sampling.top_k,
                                     (double) sampling.top_p, (double) sampling.min_p, (double) sampling.repeat_penalty,
                                     (gint64) sampling.repeat_last_n, (gint64) sampling.seed);
  gint64 id = sqlite3_last_insert_rowid (store->db);
  if (!valise_store_end (store, done, error))
    return NULL;
  valise_library_emit (library, VALISE_SIGNAL_CHATS);
  return valise_library_get_chat (library, id, error);
}

ValiseChat *valise_library_get_chat (ValiseLibrary *library, gint64 id, GError **error)
{
  G_GNUC_UNUSED g_autoptr (GRecMutexLocker) locker = g_rec_mutex_locker_new (&library->store->lock);
  g_autoptr (sqlite3_stmt) statement
    = valise_store_query (library->store, error, "SELECT " CHAT_COLUMNS " FROM chats WHERE id = ? AND deleted_us IS NULL", "i", id);
  int stepped = statement ? valise_store_step (library->store, statement, error) : -1;
  if (stepped == 0)
    g_set_error (error, VALISE_ERROR, VALISE_ERROR_NOT_FOUND, "chat %" G_GINT64_FORMAT " is no longer in the library", id);
  return stepped > 0 ? chat_from_row (statement) : NULL;
}

GPtrArray *valise_library_list_chats (ValiseLibrary *library, const char *search, GError **error)
{
  G_GNUC_UNUSED g_autoptr (GRecMutexLocker) locker = g_rec_mutex_locker_new (&library->store->lock);
  g_autofree char *match = search ? match_expression (search) : NULL;
  g_autofree char *like = search ? like_expression (search) : NULL;
  g_autoptr (sqlite3_stmt) statement = NULL;
  if (!match && !like)
    statement = valise_store_query (library->store, error,
                                    "SELECT " CHAT_COLUMNS " FROM chats WHERE deleted_us IS NULL ORDER BY pinned DESC, updated_us DESC, id DESC", "");
  else
    statement = valise_store_query (library->store, error,
                                    "SELECT " CHAT_COLUMNS " FROM chats WHERE deleted_us IS NULL AND (title LIKE ?1 ESCAPE '\\' OR id IN"
                                    " (SELECT chat_id FROM messages JOIN messages_text ON messages.id = messages_text.rowid"
                                    "  WHERE ?2 IS NOT NULL AND messages_text MATCH coalesce (?2, '\"\"')))"
                                    " ORDER BY pinned DESC, updated_us DESC, id DESC",
                                    "sn", like, match);
  g_autoptr (GPtrArray) chats = g_ptr_array_new_with_free_func ((GDestroyNotify) valise_chat_free);
  int stepped = -1;
  while (statement && (stepped = valise_store_step (library->store, statement, error)) > 0)
    g_ptr_array_add (chats, chat_from_row (statement));
  return stepped == 0 ? g_steal_pointer (&chats) : NULL;
}

gboolean valise_library_update_chat (ValiseLibrary *library, const ValiseChat *chat, GError **error)
{
  ValiseStore *store = library->store;
  const EngSamplerOptions *sampling = &chat->sampling;
  G_GNUC_UNUSED g_autoptr (GRecMutexLocker) locker = g_rec_mutex_locker_new (&store->lock);
  if (!valise_store_begin (store, FALSE, error))
    return FALSE;
  gboolean done = valise_store_change (store, "chat", chat->id, error,
                                       "UPDATE chats SET title = ?, model_id = (SELECT id FROM models WHERE id = ?), system_prompt = ?, pinned = ?,"
                                       " leaf_id = nullif (?, 0), updated_us = ?, temperature = ?, top_k = ?, top_p = ?, min_p = ?,"
                                       " repeat_penalty = ?, repeat_last_n = ?, seed = ? WHERE id = ?",
                                       "sisiiididddiii", chat->title ? chat->title : "", chat->model_id,
                                       chat->system_prompt ? chat->system_prompt : "", (gint64) (chat->pinned != FALSE), chat->leaf_id,
                                       chat->updated_us, (double) sampling->temperature, (gint64) sampling->top_k, (double) sampling->top_p,
                                       (double) sampling->min_p, (double) sampling->repeat_penalty, (gint64) sampling->repeat_last_n,
                                       (gint64) sampling->seed, chat->id);
  if (!valise_store_end (store, done, error))
    return FALSE;
  valise_library_emit (library, VALISE_SIGNAL_CHATS);
  return TRUE;
}

static gboolean set_deleted (ValiseLibrary *library, gint64 id, gint64 deleted_us, GError **error)
{
  ValiseStore *store = library->store;
  G_GNUC_UNUSED g_autoptr (GRecMutexLocker) locker = g_rec_mutex_locker_new (&store->lock);
  if (!valise_store_begin (store, FALSE, error))
    return FALSE;
  gboolean done = valise_store_change (store, "chat", id, error, "UPDATE chats SET deleted_us = nullif (?, 0) WHERE id = ?", "ii", deleted_us, id);
  if (!valise_store_end (store, done, error))
    return FALSE;
  valise_library_emit (library, VALISE_SIGNAL_CHATS);
  return TRUE;
}

gboolean valise_library_delete_chat (ValiseLibrary *library, gint64 id, GError **error)
{
  return set_deleted (library, id, g_get_real_time (), error);
}

gboolean valise_library_undelete_chat (ValiseLibrary *library, gint64 id, GError **error)
{
  return set_deleted (library, id, 0, error);
}

/* ---- helpers ---- */

static ValiseChat *chat_from_row (sqlite3_stmt *statement)
{
  ValiseChat *chat = g_new0 (ValiseChat, 1);
  chat->id = sqlite3_column_int64 (statement, 0);
  chat->title = g_strdup ((const char *) sqlite3_column_text (statement, 1));
  chat->model_id = sqlite3_column_int64 (statement, 2);
  chat->system_prompt = g_strdup ((const char *) sqlite3_column_text (statement, 3));
  chat->pinned = sqlite3_column_int (statement, 4) != 0;
  chat->leaf_id = sqlite3_column_int64 (statement, 5);
  chat->created_us = sqlite3_column_int64 (statement, 6);
  chat->updated_us = sqlite3_column_int64 (statement, 7);
  chat->sampling.temperature = (float) sqlite3_column_double (statement, 8);
  chat->sampling.top_k = sqlite3_column_int (statement, 9);
  chat->sampling.top_p = (float) sqlite3_column_double (statement, 10);
  chat->sampling.min_p = (float) sqlite3_column_double (statement, 11);
  chat->sampling.repeat_penalty = (float) sqlite3_column_double (statement, 12);
  chat->sampling.repeat_last_n = sqlite3_column_int (statement, 13);
  chat->sampling.seed = (guint64) sqlite3_column_int64 (statement, 14);
  return chat;
}

/* Every word, each as the beginning of one: quoted, so that nothing a person types is FTS5 syntax. NULL when there is no word. */
static char *match_expression (const char *search)
{
  g_autoptr (GString) match = g_string_new (NULL);
  const char *p = search;
  while (*p) {
    while (*p && !g_unichar_isalnum (g_utf8_get_char (p)))
      p = g_utf8_next_char (p);
    const char *begin = p;
    while (*p && g_unichar_isalnum (g_utf8_get_char (p)))
      p = g_utf8_next_char (p);
    if (p > begin)
      g_string_append_printf (match, "%s\"%.*s\"*", match->len > 0 ? " " : "", (int) (p - begin), begin);
  }
  return match->len > 0 ? g_string_free (g_steal_pointer (&match), FALSE) : NULL;
}

/* NULL when nothing but spaces is looked for. */
static char *like_expression (const char *search)
{
  g_autofree char *text = g_strstrip (g_strdup (search));
  if (*text == '\0')
    return NULL;
  GString *like = g_string_new ("%");
  for (const char *p = text; *p; p++) {
    if (strchr ("\\%_", *p))
      g_string_append_c (like, '\\');
    g_string_append_c (like, *p);
  }
  g_string_append_c (like, '%');
  return g_string_free (like, FALSE);
}
