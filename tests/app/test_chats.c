/* test_chats.c: a chat is a tree: nothing is overwritten, everything is found again, what was deleted comes back. */
#include "app/library/library.h"
#include "app/library/store.h"
#include "tests/fixtures/scratch.h"

#include <string.h>

/* A library of its own for each test. */
static ValiseLibrary *fresh (void)
{
  static guint n;
  g_autoptr (GError) error = NULL;
  g_autofree char *name = g_strdup_printf ("chats-%u", n++), *home = scratch_path (name);
  ValiseLibrary *library = valise_library_open (home, &error);
  g_assert_no_error (error);
  return library;
}

static ValiseChat *chat_with (ValiseLibrary *library, const char *title)
{
  g_autoptr (GError) error = NULL;
  ValiseChat *chat = valise_library_create_chat (library, 0, &error);
  g_assert_no_error (error);
  g_free (chat->title);
  chat->title = g_strdup (title);
  g_assert_true (valise_library_update_chat (library, chat, &error));
  g_assert_no_error (error);
  return chat;
}

static gint64 add (ValiseLibrary *library, const ValiseChat *chat, gint64 parent, const char *role, const char *content)
{
  g_autoptr (GError) error = NULL;
  gint64 id = valise_library_add_message (library, chat->id, parent, role, content, &error);
  g_assert_no_error (error);
  g_assert_cmpint (id, >, 0);
  return id;
}

/* "question|answer|…" of the shown branch, with "2/3:" before what has siblings. */
static char *shown (ValiseLibrary *library, gint64 chat_id)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (GPtrArray) branch = valise_library_get_branch (library, chat_id, &error);
  g_assert_no_error (error);
  GString *text = g_string_new (NULL);
  gint64 parent = 0;
  for (guint i = 0; i < branch->len; i++) {
    const ValiseMessage *message = branch->pdata[i];
    g_assert_cmpint (message->chat_id, ==, chat_id);
    g_assert_cmpint (message->parent_id, ==, parent);
    parent = message->id;
    g_string_append (text, i > 0 ? "|" : "");
    if (message->n_siblings > 1)
      g_string_append_printf (text, "%u/%u:", message->sibling, message->n_siblings);
    g_string_append (text, message->content);
  }
  return g_string_free (text, FALSE);
}

static void expect_shown (ValiseLibrary *library, const ValiseChat *chat, const char *expected)
{
  g_autofree char *text = shown (library, chat->id);
  g_assert_cmpstr (text, ==, expected);
}

static void test_branches (void)
{
  g_autoptr (ValiseLibrary) library = fresh ();
  g_autoptr (ValiseChat) chat = chat_with (library, "tree"), other = chat_with (library, "other");
  g_autoptr (GError) error = NULL;
  expect_shown (library, chat, "");
  gint64 q1 = add (library, chat, 0, "user", "q1"), a1 = add (library, chat, q1, "assistant", "a1");
  gint64 q2 = add (library, chat, a1, "user", "q2");
  add (library, chat, q2, "assistant", "a2");
  expect_shown (library, chat, "q1|a1|q2|a2");
  /* Asking again: a second answer beside the first. */
  gint64 b1 = add (library, chat, q1, "assistant", "b1");
  expect_shown (library, chat, "q1|2/2:b1");
  /* Editing the first question: a second root. */
  gint64 r2 = add (library, chat, 0, "user", "r2");
  add (library, chat, r2, "assistant", "c1");
  expect_shown (library, chat, "2/2:r2|c1");
  /* Other chats' roots are nobody's siblings. */
  add (library, other, 0, "user", "elsewhere");
  expect_shown (library, chat, "2/2:r2|c1");
  /* Going back shows the newest of what is below. */
  g_assert_true (valise_library_select_sibling (library, r2, 1, &error));
  expect_shown (library, chat, "1/2:q1|2/2:b1");
  g_assert_true (valise_library_select_sibling (library, b1, 1, &error));
  expect_shown (library, chat, "1/2:q1|1/2:a1|q2|a2");
  g_assert_true (valise_library_select_sibling (library, a1, 2, &error));
  expect_shown (library, chat, "1/2:q1|2/2:b1");
  g_assert_no_error (error);
  /* What is not there is refused, and shows what was shown. */
  const guint absent[] = { 0, 3, G_MAXUINT };
  for (guint i = 0; i < G_N_ELEMENTS (absent); i++) {
    g_assert_false (valise_library_select_sibling (library, a1, absent[i], &error));
    g_assert_error (error, VALISE_ERROR, VALISE_ERROR_NOT_FOUND);
    g_clear_error (&error);
  }
  g_assert_false (valise_library_select_sibling (library, 99999, 1, &error));
  g_assert_error (error, VALISE_ERROR, VALISE_ERROR_NOT_FOUND);
  g_clear_error (&error);
  expect_shown (library, chat, "1/2:q1|2/2:b1");
  expect_shown (library, other, "elsewhere");
}

static void test_refused_messages (void)
{
  g_autoptr (ValiseLibrary) library = fresh ();
  g_autoptr (ValiseChat) chat = chat_with (library, "a"), other = chat_with (library, "b");
  g_autoptr (GError) error = NULL;
  gint64 mine = add (library, chat, 0, "user", "mine");
  g_assert_cmpint (valise_library_add_message (library, other->id, mine, "user", "x", &error), ==, 0);
  g_assert_error (error, VALISE_ERROR, VALISE_ERROR_NOT_FOUND);
  g_clear_error (&error);
  g_assert_cmpint (valise_library_add_message (library, 4711, 0, "user", "x", &error), ==, 0);
  g_assert_error (error, VALISE_ERROR, VALISE_ERROR_NOT_FOUND);
  g_clear_error (&error);
  g_assert_cmpint (valise_library_add_message (library, chat->id, mine, "emperor", "x", &error), ==, 0);
  g_assert_error (error, VALISE_ERROR, VALISE_ERROR_ARGUMENT);
  g_clear_error (&error);
  ValiseMessage gone = { .id = 4711 };
  g_assert_false (valise_library_update_message (library, &gone, &error));
  g_assert_error (error, VALISE_ERROR, VALISE_ERROR_NOT_FOUND);
  g_clear_error (&error);
  ValiseChat nobody = { .id = 4711 };
  g_assert_false (valise_library_update_chat (library, &nobody, &error));
  g_assert_error (error, VALISE_ERROR, VALISE_ERROR_NOT_FOUND);
  expect_shown (library, chat, "mine");
  expect_shown (library, other, "");
}

static void test_update (void)
{
  g_autoptr (ValiseLibrary) library = fresh ();
  g_autoptr (ValiseChat) chat = chat_with (library, "title");
  g_autoptr (GError) error = NULL;
  gint64 question = add (library, chat, 0, "user", "q"), answer = add (library, chat, question, "assistant", "");
  ValiseMessage message = { .id = answer, .content = (char *) "half an ans", .model_name = (char *) "tiny", .tokens_per_second = 12.5,
                            .finish_reason = (char *) "cancelled" };
  g_assert_true (valise_library_update_message (library, &message, &error));
  g_autoptr (GPtrArray) branch = valise_library_get_branch (library, chat->id, &error);
  const ValiseMessage *read = branch->pdata[1];
  g_assert_cmpstr (read->content, ==, "half an ans");
  g_assert_cmpstr (read->model_name, ==, "tiny");
  g_assert_cmpstr (read->finish_reason, ==, "cancelled");
  g_assert_cmpfloat (read->tokens_per_second, ==, 12.5);

  g_autoptr (ValiseChat) now = valise_library_get_chat (library, chat->id, &error);
  g_assert_cmpint (now->leaf_id, ==, answer);
  g_free (now->system_prompt);
  now->system_prompt = g_strdup ("be \"brief\"; DROP TABLE chats; --");
  now->pinned = TRUE;
  now->model_id = 12345; /* removed meanwhile: the chat stays, without a model */
  now->sampling = (EngSamplerOptions) { 0.25f, 7, 0.5f, 0.125f, 1.5f, 3, G_MAXUINT64 };
  g_assert_true (valise_library_update_chat (library, now, &error));
  g_assert_no_error (error);
  g_autoptr (ValiseChat) again = valise_library_get_chat (library, chat->id, &error);
  g_assert_cmpstr (again->title, ==, "title");
  g_assert_cmpstr (again->system_prompt, ==, now->system_prompt);
  g_assert_true (again->pinned);
  g_assert_cmpint (again->model_id, ==, 0);
  g_assert_cmpfloat (again->sampling.temperature, ==, 0.25f);
  g_assert_cmpint (again->sampling.top_k, ==, 7);
  g_assert_cmpfloat (again->sampling.top_p, ==, 0.5f);
  g_assert_cmpfloat (again->sampling.min_p, ==, 0.125f);
  g_assert_cmpfloat (again->sampling.repeat_penalty, ==, 1.5f);
  g_assert_cmpint (again->sampling.repeat_last_n, ==, 3);
  g_assert_cmpuint (again->sampling.seed, ==, G_MAXUINT64);
}

/* "a b c": the titles of what is listed. */
static void expect_listed (ValiseLibrary *library, const char *search, const char *expected)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (GPtrArray) chats = valise_library_list_chats (library, search, &error);
  g_assert_no_error (error);
  g_autoptr (GString) titles = g_string_new (NULL);
  for (guint i = 0; i < chats->len; i++)
    g_string_append_printf (titles, "%s%s", i > 0 ? " " : "", ((ValiseChat *) chats->pdata[i])->title);
  g_test_message ("search \"%s\"", search ? search : "(none)");
  g_assert_cmpstr (titles->str, ==, expected);
}

static void test_order_and_bin (void)
{
  g_autoptr (ValiseLibrary) library = fresh ();
  g_autoptr (GError) error = NULL;
  const char *titles[] = { "a", "b", "c", "d" };
  ValiseChat *chats[4];
  for (guint i = 0; i < 4; i++) {
    chats[i] = chat_with (library, titles[i]);
    chats[i]->updated_us = 1000 + i;
    g_assert_true (valise_library_update_chat (library, chats[i], &error));
  }
  expect_listed (library, NULL, "d c b a");
  expect_listed (library, "", "d c b a");
  chats[0]->pinned = TRUE;
  g_assert_true (valise_library_update_chat (library, chats[0], &error));
  expect_listed (library, NULL, "a d c b");
  add (library, chats[1], 0, "user", "anything"); /* is news */
  expect_listed (library, NULL, "a b d c");
  g_assert_true (valise_library_delete_chat (library, chats[1]->id, &error));
  expect_listed (library, NULL, "a d c");
  expect_listed (library, "anything", "");
  g_assert_null (valise_library_get_chat (library, chats[1]->id, &error));
  g_assert_error (error, VALISE_ERROR, VALISE_ERROR_NOT_FOUND);
  g_clear_error (&error);
  g_assert_true (valise_library_undelete_chat (library, chats[1]->id, &error));
  expect_listed (library, NULL, "a b d c");
  expect_shown (library, chats[1], "anything");
  g_assert_false (valise_library_delete_chat (library, 4711, &error));
  g_assert_error (error, VALISE_ERROR, VALISE_ERROR_NOT_FOUND);
  for (guint i = 0; i < 4; i++)
    valise_chat_free (chats[i]);
}

/* What was deleted longer ago goes for good at the next opening, with all its messages, also where they are thousands deep. */
static void test_bin_is_emptied (void)
{
  g_autoptr (GError) error = NULL;
  g_autofree char *home = scratch_path ("bin"), *path = g_build_filename (home, "library.db", NULL);
  gint64 deep, recent;
  {
    g_autoptr (ValiseLibrary) library = valise_library_open (home, &error);
    g_autoptr (ValiseChat) chat = chat_with (library, "deep"), young = chat_with (library, "young");
    gint64 parent = 0;
    for (guint i = 0; i < 2500; i++)
      parent = add (library, chat, parent, i % 2 ? "assistant" : "user", "needle");
    add (library, young, 0, "user", "needle");
    deep = chat->id;
    recent = young->id;
    g_assert_true (valise_library_delete_chat (library, deep, &error));
    g_assert_true (valise_library_delete_chat (library, recent, &error));
  }
  {
    g_autoptr (ValiseStore) store = valise_store_open (path, &error);
    g_assert_true (valise_store_exec (store, &error, "UPDATE chats SET deleted_us = 1 WHERE id = ?", "i", deep));
  }
  g_autoptr (ValiseLibrary) library = valise_library_open (home, &error);
  g_assert_no_error (error);
  g_assert_false (valise_library_undelete_chat (library, deep, &error));
  g_assert_error (error, VALISE_ERROR, VALISE_ERROR_NOT_FOUND);
  g_clear_error (&error);
  g_assert_true (valise_library_undelete_chat (library, recent, &error));
  expect_listed (library, "needle", "young");
}

static void test_search (void)
{
  g_autoptr (ValiseLibrary) library = fresh ();
  g_autoptr (ValiseChat) bread = chat_with (library, "bread"), stars = chat_with (library, "100%_stars"), words = chat_with (library, "words");
  gint64 q = add (library, bread, 0, "user", "How long does sourdough rise?");
  gint64 a = add (library, bread, q, "assistant", "Four to twelve hours.");
  add (library, stars, 0, "user", "Wie heißt der größte Stern? Crème brûlée. 東京 Привет");
  add (library, words, 0, "user", "C++ \"quoted\" NEAR(a b) col:umn ^start AND* OR -not (paren");
  expect_listed (library, "sourdough", "bread");
  expect_listed (library, "SOURD", "bread");
  expect_listed (library, "rise sourdough", "bread"); /* every word, in any order */
  expect_listed (library, "sourdough hours", "");     /* within one message */
  expect_listed (library, "creme brulee", "100%_stars");
  expect_listed (library, "größte", "100%_stars");
  expect_listed (library, "привет", "100%_stars");
  expect_listed (library, "東京", "100%_stars");
  expect_listed (library, "words", "words"); /* a title */
  expect_listed (library, "100%", "100%_stars");
  expect_listed (library, "0%_s", "100%_stars");
  expect_listed (library, "_", "100%_stars"); /* no wildcard */
  expect_listed (library, "%", "100%_stars");
  expect_listed (library, "  ", "words 100%_stars bread");
  expect_listed (library, "nowhere", "");
  /* Whatever is typed is text, never the search engine's syntax. */
  static const char *const syntax[] = { "\"", "\"quoted", "NEAR(a b)", "col:umn", "^start", "AND*", "AND", "OR", "-not", "(paren", "*", "a* OR", "C++", "'", ";", "{", "\\" };
  for (guint i = 0; i < G_N_ELEMENTS (syntax); i++) {
    g_autoptr (GError) error = NULL;
    g_autoptr (GPtrArray) found = valise_library_list_chats (library, syntax[i], &error);
    g_assert_no_error (error);
    g_assert_nonnull (found);
  }
  expect_listed (library, "NEAR(a b)", "words");
  expect_listed (library, "\"quoted\"", "words");
  /* A changed message is found by its new words only. */
  ValiseMessage message = { .id = a, .content = (char *) "Overnight." };
  g_assert_true (valise_library_update_message (library, &message, NULL));
  expect_listed (library, "twelve", "");
  expect_listed (library, "overn", "bread");
}

static void test_export (void)
{
  g_autoptr (ValiseLibrary) library = fresh ();
  g_autoptr (ValiseChat) chat = chat_with (library, "Bread");
  g_autoptr (GError) error = NULL;
  chat->leaf_id = 0;
  g_free (chat->system_prompt);
  chat->system_prompt = g_strdup ("Be brief.");
  g_assert_true (valise_library_update_chat (library, chat, &error));
  gint64 q = add (library, chat, 0, "user", "How \"long\"?\n```c\nint x;\n```");
  add (library, chat, q, "assistant", "not shown");
  ValiseMessage message = { .id = add (library, chat, q, "assistant", ""), .content = (char *) "Four hours.", .model_name = (char *) "tiny" };
  g_assert_true (valise_library_update_message (library, &message, &error));
  g_autofree char *markdown = valise_library_export_chat (library, chat->id, "markdown", &error);
  g_assert_cmpstr (markdown, ==, "# Bread\n\n## System\n\nBe brief.\n\n## You\n\nHow \"long\"?\n```c\nint x;\n```\n\n## tiny\n\nFour hours.\n");
  g_autofree char *json = valise_library_export_chat (library, chat->id, "json", &error);
  g_autoptr (JsonParser) parser = json_parser_new ();
  g_assert_true (json_parser_load_from_data (parser, json, -1, &error));
  JsonObject *object = json_node_get_object (json_parser_get_root (parser));
  g_assert_cmpstr (json_object_get_string_member (object, "title"), ==, "Bread");
  JsonArray *messages = json_object_get_array_member (object, "messages");
  g_assert_cmpuint (json_array_get_length (messages), ==, 3);
  const char *expected[][2] = { { "system", "Be brief." }, { "user", "How \"long\"?\n```c\nint x;\n```" }, { "assistant", "Four hours." } };
  for (guint i = 0; i < 3; i++) {
    JsonObject *one = json_array_get_object_element (messages, i);
    g_assert_cmpstr (json_object_get_string_member (one, "role"), ==, expected[i][0]);
    g_assert_cmpstr (json_object_get_string_member (one, "content"), ==, expected[i][1]);
  }
  g_assert_cmpstr (json_object_get_string_member (json_array_get_object_element (messages, 2), "model"), ==, "tiny");
  g_assert_null (valise_library_export_chat (library, chat->id, "pdf", &error));
  g_assert_error (error, VALISE_ERROR, VALISE_ERROR_ARGUMENT);
  g_clear_error (&error);
  g_assert_null (valise_library_export_chat (library, 4711, "json", &error));
  g_assert_error (error, VALISE_ERROR, VALISE_ERROR_NOT_FOUND);
}

/* ---- several at once ---- */

typedef struct {
  const char *home;
  gint64 chat;
} Writer;

static gpointer write_many (gpointer data)
{
  const Writer *writer = data;
  g_autoptr (GError) error = NULL;
  g_autoptr (ValiseLibrary) library = valise_library_open (writer->home, &error);
  g_assert_no_error (error);
  for (guint i = 0; i < 50; i++) {
    g_assert_cmpint (valise_library_add_message (library, writer->chat, 0, "user", "from one of many", &error), >, 0);
    g_assert_no_error (error);
  }
  return NULL;
}

/* Two windows on one library lose nothing of each other's. */
static void test_written_at_once (void)
{
  g_autofree char *home = scratch_path ("crowd");
  g_autoptr (ValiseLibrary) library = valise_library_open (home, NULL);
  g_autoptr (ValiseChat) chat = chat_with (library, "crowd");
  Writer writer = { home, chat->id };
  GThread *threads[4];
  for (guint i = 0; i < G_N_ELEMENTS (threads); i++)
    threads[i] = g_thread_new ("writer", write_many, &writer);
  for (guint i = 0; i < G_N_ELEMENTS (threads); i++)
    g_thread_join (threads[i]);
  g_autoptr (GPtrArray) branch = valise_library_get_branch (library, chat->id, NULL);
  g_assert_cmpuint (branch->len, ==, 1);
  g_assert_cmpuint (((ValiseMessage *) branch->pdata[0])->n_siblings, ==, 200);
}

static void count_one (ValiseLibrary *library, gpointer data)
{
  ++*(guint *) data;
}

/* Many changes are one signal, on the main context. */
static void test_signal (void)
{
  g_autoptr (ValiseLibrary) library = fresh ();
  guint emitted = 0;
  g_signal_connect (library, "chats-changed", G_CALLBACK (count_one), &emitted);
  g_autoptr (ValiseChat) chat = chat_with (library, "a");
  for (guint i = 0; i < 10; i++)
    add (library, chat, 0, "user", "x");
  g_assert_cmpuint (emitted, ==, 0);
  while (g_main_context_iteration (NULL, FALSE))
    ;
  g_assert_cmpuint (emitted, ==, 1);
}

int main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/chats/branches", test_branches);
  g_test_add_func ("/chats/refused-messages", test_refused_messages);
  g_test_add_func ("/chats/update", test_update);
  g_test_add_func ("/chats/order-and-bin", test_order_and_bin);
  g_test_add_func ("/chats/bin-is-emptied", test_bin_is_emptied);
  g_test_add_func ("/chats/search", test_search);
  g_test_add_func ("/chats/export", test_export);
  g_test_add_func ("/chats/written-at-once", test_written_at_once);
  g_test_add_func ("/chats/signal", test_signal);
  int status = g_test_run ();
  scratch_clean ();
  return status;
}
