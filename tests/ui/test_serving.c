/* test_serving.c: the switch in the preferences, and what another program gets to see of it. */
#include "tests/ui/ui_case.h"

#include <libsoup/soup.h>
#include <string.h>

static void add_liner (UiCase *c)
{
  g_autofree char *path = ui_write_liner (2);
  g_object_unref (ui_import (c, path, "Liner"));
}

typedef struct {
  gboolean done;
  guint status; /* 0: nobody was there */
  char *text;
} Reply;

static void on_reply (GObject *session, GAsyncResult *result, gpointer data)
{
  Reply *reply = data;
  g_autoptr (GBytes) bytes = soup_session_send_and_read_finish (SOUP_SESSION (session), result, NULL);
  SoupMessage *message = soup_session_get_async_result_message (SOUP_SESSION (session), result);
  reply->status = bytes ? soup_message_get_status (message) : 0;
  reply->text = bytes ? g_strndup (g_bytes_get_data (bytes, NULL), g_bytes_get_size (bytes)) : g_strdup ("");
  reply->done = TRUE;
}

/* Asks as another program would. */
static guint ask (const char *url, const char *path, const char *body, const char *token, char **text)
{
  g_autoptr (SoupSession) session = soup_session_new ();
  g_autofree char *whole = g_strconcat (url, path, NULL), *bearer = g_strconcat ("Bearer ", token, NULL);
  g_autoptr (SoupMessage) message = soup_message_new (body ? "POST" : "GET", whole);
  Reply reply = { 0 };
  if (body) {
    g_autoptr (GBytes) bytes = g_bytes_new (body, strlen (body));
    soup_message_set_request_body_from_bytes (message, "application/json", bytes);
  }
  if (token)
    soup_message_headers_replace (soup_message_get_request_headers (message), "Authorization", bearer);
  soup_session_send_and_read_async (session, message, G_PRIORITY_DEFAULT, NULL, on_reply, &reply);
  ui_wait (reply.done);
  if (text)
    *text = g_steal_pointer (&reply.text);
  g_free (reply.text);
  return reply.status;
}

/* A port that was free a moment ago. */
static guint free_port (GSocketListener **taken)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (GSocketListener) service = g_socket_listener_new ();
  g_autoptr (GInetAddress) here = g_inet_address_new_loopback (G_SOCKET_FAMILY_IPV4);
  g_autoptr (GSocketAddress) any = g_inet_socket_address_new (here, 0), given = NULL;
  g_assert_true (g_socket_listener_add_address (service, any, G_SOCKET_TYPE_STREAM, G_SOCKET_PROTOCOL_TCP, NULL, &given, &error));
  g_assert_no_error (error);
  guint port = g_inet_socket_address_get_port (G_INET_SOCKET_ADDRESS (given));
  if (taken)
    *taken = g_steal_pointer (&service);
  else
    g_socket_listener_close (service);
  return port;
}

static GtkWindow *open_preferences (UiCase *c)
{
  g_action_group_activate_action (G_ACTION_GROUP (c->application), "preferences", NULL);
  ui_wait (ui_dialog (c));
  return ui_dialog (c);
}

static void on_text (GObject *clipboard, GAsyncResult *result, gpointer text)
{
  *(char **) text = gdk_clipboard_read_text_finish (GDK_CLIPBOARD (clipboard), result, NULL);
}

static void test_switch (UiCase *c)
{
  g_autofree char *url = NULL, *models = NULL, *answer = NULL, *copied = NULL;
  GtkWindow *preferences = open_preferences (c);
  gtk_spin_button_set_value (ui_find (preferences, "port_spin"), free_port (NULL));
  g_assert_null (ui_find (preferences, "address_row"));
  ui_click (ui_find (preferences, "serve_switch"));
  ui_wait (ui_shows (preferences, "As soon as a model is open"));
  gtk_window_close (preferences);
  ui_wait (!ui_dialog (c));
  ui_ask (c, "hello");
  preferences = open_preferences (c);
  ui_wait (ui_find (preferences, "address_row"));
  g_assert_true (ui_shows (preferences, "Liner, up to 4 answers at once"));
  url = g_strdup (adw_action_row_get_subtitle (ui_find (preferences, "address_row")));
  ui_picture (preferences, "preferences-serving");
  ui_click (ui_find (preferences, "copy_address_button"));
  gdk_clipboard_read_text_async (gtk_widget_get_clipboard (GTK_WIDGET (preferences)), NULL, on_text, &copied);
  ui_wait (copied);
  g_assert_cmpstr (copied, ==, url);
  g_assert_cmpuint (ask (url, "/models", NULL, NULL, &models), ==, 200);
  g_assert_nonnull (strstr (models, "Liner"));
  g_assert_cmpuint (ask (url, "/chat/completions", "{\"messages\":[{\"role\":\"user\",\"content\":\"hello\"}],\"max_tokens\":12}", NULL, &answer), ==, 200);
  g_assert_nonnull (strstr (answer, "Quick"));
  /* With a token those who do not send it are turned away. */
  GtkWidget *token = ui_find (preferences, "token_row");
  gtk_editable_set_text (GTK_EDITABLE (token), "sesame");
  g_signal_emit_by_name (token, "apply");
  ui_wait (valise_serving_get_url (valise_application_get_serving (c->application)));
  g_assert_cmpuint (ask (url, "/models", NULL, NULL, NULL), ==, 401);
  g_assert_cmpuint (ask (url, "/models", NULL, "sesame", NULL), ==, 200);
  /* Off is off, at once. */
  ui_click (ui_find (preferences, "serve_switch"));
  ui_wait (!ui_find (preferences, "address_row"));
  ui_wait (ask (url, "/models", NULL, "sesame", NULL) == 0);
  gtk_window_close (preferences);
}

static void test_taken (UiCase *c)
{
  g_autoptr (GSocketListener) taken = NULL;
  guint port = free_port (&taken);
  g_autofree char *sentence = g_strdup_printf ("port %u is taken by another program: choose another", port);
  ui_ask (c, "hello");
  g_settings_set_uint (valise_settings (), "serve-port", port);
  g_settings_set_boolean (valise_settings (), "serve", TRUE);
  GtkWindow *preferences = open_preferences (c);
  ui_wait (ui_shows (preferences, sentence));
  g_assert_null (ui_find (preferences, "address_row"));
  g_assert_true (gtk_widget_has_css_class (ui_find (preferences, "serve_row"), "error"));
  ui_picture (preferences, "preferences-port-taken");
  gtk_spin_button_set_value (ui_find (preferences, "port_spin"), free_port (NULL));
  ui_wait (ui_find (preferences, "address_row"));
  g_assert_false (gtk_widget_has_css_class (ui_find (preferences, "serve_row"), "error"));
  gtk_window_close (preferences);
}

/* While it is being asked the model is closed, and another opened: the answer ends, and the other one answers. */
static void test_other_model (UiCase *c)
{
  g_autofree char *path = ui_write_liner (3), *models = NULL;
  g_object_unref (ui_import (c, path, "Other"));
  g_settings_set_uint (valise_settings (), "serve-port", free_port (NULL));
  g_settings_set_boolean (valise_settings (), "serve", TRUE);
  ui_ask (c, "hello");
  ValiseServing *serving = valise_application_get_serving (c->application);
  ui_wait (valise_serving_get_url (serving));
  g_autofree char *url = g_strdup (valise_serving_get_url (serving));
  g_autoptr (ValiseModel) other = valise_library_find_model (c->library, "Other", NULL);
  valise_runner_load (valise_application_get_runner (c->application), other, 256, 16);
  g_assert_null (valise_serving_get_url (serving));
  ui_wait (valise_serving_get_url (serving));
  g_assert_cmpuint (ask (url, "/models", NULL, NULL, &models), ==, 200);
  g_assert_nonnull (strstr (models, "Other"));
  valise_runner_unload (valise_application_get_runner (c->application));
  g_assert_null (valise_serving_get_url (serving));
}

int main (int argc, char **argv)
{
  ui_init (&argc, &argv);
  ui_add ("/ui/serving/switch", add_liner, test_switch, NULL);
  ui_add ("/ui/serving/port-is-taken", add_liner, test_taken, NULL);
  ui_add ("/ui/serving/another-model", add_liner, test_other_model, NULL);
  return ui_run ();
}
