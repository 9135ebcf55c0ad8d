/* messages.c: the tree of messages under a chat, and the branch of it that is shown. */
#include "app/library/library-private.h"

#include <string.h>

G_DEFINE_BOXED_TYPE (ValiseMessage, valise_message, valise_message_copy, valise_message_free)

static ValiseMessage *message_from_row (sqlite3_stmt *statement);
static gint64 newest_leaf (ValiseStore *store, gint64 id, GError **error);
static gboolean is_in_chat (ValiseStore *store, gint64 id, gint64 chat_id, GError **error);

ValiseMessage *valise_message_copy (const ValiseMessage *message)
{
  ValiseMessage *copy = g_new (ValiseMessage, 1);
  *copy = *message;
  copy->role = g_strdup (message->role);
  copy->content = g_strdup (message->content);
  copy->model_name = g_strdup (message->model_name);
  copy->finish_reason = g_strdup (message->finish_reason);
  return copy;
}

void valise_message_free (ValiseMessage *message)
{
  if (!message)
    return;
  g_free (message->role);
  g_free (message->content);
  g_free (message->model_name);
  g_free (message->finish_reason);
  g_free (message);
}

GPtrArray *valise_library_get_branch (ValiseLibrary *library, gint64 chat_id, GError **error)
{
  ValiseStore *store = library->store;
  G_GNUC_UNUSED g_autoptr (GRecMutexLocker) locker = g_rec_mutex_locker_new (&store->lock);
  /* Siblings are counted in the order of their ids: that is the order they were written in. */
  g_autoptr (sqlite3_stmt) statement = valise_store_query (
    store, error,
    "WITH RECURSIVE branch (id, parent_id, depth) AS ("
    "  SELECT m.id, m.parent_id, 0 FROM chats c JOIN messages m ON m.id = c.leaf_id WHERE c.id = ?1"
    "  UNION ALL SELECT m.id, m.parent_id, depth + 1 FROM branch b JOIN messages m ON m.id = b.parent_id)"
    " SELECT m.id, m.chat_id, coalesce (m.parent_id, 0), m.role, m.content, m.model_name, m.tokens_per_second, m.finish_reason, m.created_us,"
    " m.thought_seconds,"
    "  (SELECT count (*) FROM messages s WHERE s.chat_id = m.chat_id AND s.parent_id IS m.parent_id AND s.id <= m.id),"
    "  (SELECT count (*) FROM messages s WHERE s.chat_id = m.chat_id AND s.parent_id IS m.parent_id)"
    " FROM branch b JOIN messages m ON m.id = b.id ORDER BY b.depth DESC",
    "i", chat_id);
  g_autoptr (GPtrArray) branch = g_ptr_array_new_with_free_func ((GDestroyNotify) valise_message_free);
  int stepped = -1;
  while (statement && (stepped = valise_store_step (store, statement, error)) > 0)
    g_ptr_array_add (branch, message_from_row (statement));
  return stepped == 0 ? g_steal_pointer (&branch) : NULL;
}

gint64 valise_library_add_message (ValiseLibrary *library, gint64 chat_id, gint64 parent_id, const char *role, const char *content, GError **error)
{
  ValiseStore *store = library->store;
  G_GNUC_UNUSED g_autoptr (GRecMutexLocker) locker = g_rec_mutex_locker_new (&store->lock);
  if (!valise_store_begin (store, FALSE, error))
    return 0;
  gint64 now = g_get_real_time ();
  gint64 id = 0;
  if ((parent_id == 0 || is_in_chat (store, parent_id, chat_id, error))
      && valise_store_exec (store, error, "INSERT INTO messages (chat_id, parent_id, role, content, created_us) VALUES (?, nullif (?, 0), ?, ?, ?)",
                            "iissi", chat_id, parent_id, role, content ? content : "", now)) {
    id = sqlite3_last_insert_rowid (store->db);
    if (!valise_store_change (store, "chat", chat_id, error, "UPDATE chats SET leaf_id = ?, updated_us = ? WHERE id = ?", "iii", id, now, chat_id))
      id = 0;
  }
  if (!valise_store_end (store, id != 0, error))
    return 0;
  valise_library_emit (library, VALISE_SIGNAL_CHATS);
  return id;
}

gboolean valise_library_update_message (ValiseLibrary *library, const ValiseMessage *message, GError **error)
{
  ValiseStore *store = library->store;
  G_GNUC_UNUSED g_autoptr (GRecMutexLocker) locker = g_rec_mutex_locker_new (&store->lock);
  if (!valise_store_begin (store, FALSE, error))
    return FALSE;
  gboolean done
    = valise_store_change (store, "message", message->id, error,
                           "UPDATE messages SET content = ?, model_name = ?, tokens_per_second = ?, finish_reason = ?, thought_seconds = ? WHERE id = ?", "ssdsdi",
                           message->content ? message->content : "", message->model_name ? message->model_name : "",
                           message->tokens_per_second, message->finish_reason ? message->finish_reason : "", message->thought_seconds, message->id);
  return valise_store_end (store, done, error);
}

gboolean valise_library_select_sibling (ValiseLibrary *library, gint64 message_id, guint n, GError **error)
{
  ValiseStore *store = library->store;
  G_GNUC_UNUSED g_autoptr (GRecMutexLocker) locker = g_rec_mutex_locker_new (&store->lock);
  if (!valise_store_begin (store, FALSE, error))
    return FALSE;
  g_autoptr (sqlite3_stmt) statement
    = valise_store_query (store, error,
                          "SELECT s.id, s.chat_id FROM messages m JOIN messages s ON s.chat_id = m.chat_id AND s.parent_id IS m.parent_id"
                          " WHERE m.id = ? ORDER BY s.id LIMIT 1 OFFSET ?",
                          "ii", message_id, (gint64) n - 1);
  int stepped = statement && n >= 1 ? valise_store_step (store, statement, error) : (statement ? 0 : -1);
  gint64 sibling = stepped > 0 ? sqlite3_column_int64 (statement, 0) : 0;
  gint64 chat = stepped > 0 ? sqlite3_column_int64 (statement, 1) : 0;
  g_clear_pointer (&statement, sqlite3_finalize);
  if (stepped == 0)
    g_set_error (error, VALISE_ERROR, VALISE_ERROR_NOT_FOUND, "message %" G_GINT64_FORMAT " has no version number %u", message_id, n);
  gint64 leaf = stepped > 0 ? newest_leaf (store, sibling, error) : 0;
  if (leaf == 0 || !valise_store_exec (store, error, "UPDATE chats SET leaf_id = ? WHERE id = ?", "ii", leaf, chat)) {
    valise_store_rollback (store);
    return FALSE;
  }
  if (!valise_store_commit (store, error))
    return FALSE;
  valise_library_emit (library, VALISE_SIGNAL_CHATS);
  return TRUE;
}

const char *valise_message_answer (const char *content)
{
  if (!g_str_has_prefix (content, VALISE_REASONING_BEGIN))
    return content;
  const char *end = strstr (content, VALISE_REASONING_END);
  return end ? end + strlen (VALISE_REASONING_END) : content + strlen (content);
}

/* ---- helpers ---- */

static ValiseMessage *message_from_row (sqlite3_stmt *statement)
{
  ValiseMessage *message = g_new0 (ValiseMessage, 1);
  message->id = sqlite3_column_int64 (statement, 0);
  message->chat_id = sqlite3_column_int64 (statement, 1);
  message->parent_id = sqlite3_column_int64 (statement, 2);
  message->role = g_strdup ((const char *) sqlite3_column_text (statement, 3));
  message->content = g_strdup ((const char *) sqlite3_column_text (statement, 4));
  message->model_name = g_strdup ((const char *) sqlite3_column_text (statement, 5));
  message->tokens_per_second = sqlite3_column_double (statement, 6);
  message->finish_reason = g_strdup ((const char *) sqlite3_column_text (statement, 7));
  message->created_us = sqlite3_column_int64 (statement, 8);
  message->thought_seconds = sqlite3_column_double (statement, 9);
  message->sibling = (guint) sqlite3_column_int (statement, 10);
  message->n_siblings = (guint) sqlite3_column_int (statement, 11);
  return message;
}

/* The youngest of all descendants is a leaf: a child is always younger than its parent. */
static gint64 newest_leaf (ValiseStore *store, gint64 id, GError **error)
{
  g_autoptr (sqlite3_stmt) statement
    = valise_store_query (store, error,
                          "WITH RECURSIVE below (id) AS (SELECT ? UNION ALL SELECT m.id FROM below b JOIN messages m ON m.parent_id = b.id)"
                          " SELECT max (id) FROM below",
                          "i", id);
  int stepped = statement ? valise_store_step (store, statement, error) : -1;
  return stepped > 0 ? sqlite3_column_int64 (statement, 0) : 0;
}

static gboolean is_in_chat (ValiseStore *store, gint64 id, gint64 chat_id, GError **error)
{
  g_autoptr (sqlite3_stmt) statement = valise_store_query (store, error, "SELECT 1 FROM messages WHERE id = ? AND chat_id = ?", "ii", id, chat_id);
  int stepped = statement ? valise_store_step (store, statement, error) : -1;
  if (stepped == 0)
    g_set_error (error, VALISE_ERROR, VALISE_ERROR_NOT_FOUND, "message %" G_GINT64_FORMAT " is not in chat %" G_GINT64_FORMAT, id, chat_id);
  return stepped > 0;
}
