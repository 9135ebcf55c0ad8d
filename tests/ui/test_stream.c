/* test_stream.c: how long the main loop is kept from anything else while an answer grows. The figures are printed, not judged: they are
 * of the machine, see docs/ui.md for the ones to reach. */
#include "tests/ui/ui_case.h"

#include <string.h>
#include <time.h>

#include "app/ui/message_row.h"

typedef struct {
  gint64 last_us, last_cpu_us;
  gint64 longest_us, longest_cpu_us, over; /* over: ticks more than a frame late */
  guint n;
} Meter;

static gint64 cpu_us (void)
{
  struct timespec time;
  clock_gettime (CLOCK_THREAD_CPUTIME_ID, &time);
  return time.tv_sec * G_USEC_PER_SEC + time.tv_nsec / 1000;
}

/* Asked for every millisecond: what is between two calls, less that, the main loop was not there for anyone. */
static gboolean on_tick (gpointer data)
{
  Meter *meter = data;
  gint64 now = g_get_monotonic_time (), cpu = cpu_us (), gap = now - meter->last_us - 1000;
  if (meter->n++) {
    meter->longest_us = MAX (meter->longest_us, gap);
    meter->longest_cpu_us = MAX (meter->longest_cpu_us, cpu - meter->last_cpu_us);
    meter->over += gap > 16000;
  }
  meter->last_us = now;
  meter->last_cpu_us = cpu;
  return G_SOURCE_CONTINUE;
}

static guint meter_start (Meter *meter)
{
  *meter = (Meter) { 0 };
  return g_timeout_add_full (G_PRIORITY_HIGH, 1, on_tick, meter, NULL);
}

static void meter_end (Meter *meter, guint source, const char *what)
{
  g_source_remove (source);
  g_assert_cmpuint (meter->n, >, 10);
  g_test_message ("%s: main loop blocked for %.1f ms at most (%.1f ms of its own work), %" G_GINT64_FORMAT " of %u ticks over 16 ms", what,
                  meter->longest_us / 1e3, meter->longest_cpu_us / 1e3, meter->over, meter->n);
  g_test_minimized_result (meter->longest_us / 1e3, "%s: longest stall, ms", what);
}

static void add_liner (UiCase *c)
{
  g_autofree char *path = ui_write_liner (160);
  g_object_unref (ui_import (c, path, "Liner"));
}

static void test_tokens (UiCase *c)
{
  Meter meter;
  ui_ask (c, "hello");
  guint source = meter_start (&meter);
  ui_ask (c, "hello");
  meter_end (&meter, source, "tokens of a model");
}

static void add_many (UiCase *c)
{
  add_liner (c);
  for (guint i = 0; i < 300; i++) {
    g_autoptr (GError) error = NULL;
    g_autoptr (ValiseChat) chat = valise_library_create_chat (c->library, 0, &error);
    g_assert_no_error (error);
    g_free (chat->title);
    chat->title = g_strdup_printf ("Chat number %u", i);
    g_assert_true (valise_library_update_chat (c->library, chat, &error));
  }
}

static void test_many_chats (UiCase *c)
{
  Meter meter;
  ui_ask (c, "hello");
  guint source = meter_start (&meter);
  ui_ask (c, "hello");
  meter_end (&meter, source, "a question among 300 chats");
  ui_picture (c->window, "many-chats");
}

static char *section (guint n)
{
  static const char *const words[] = { "of", "memory", "**bold**", "a", "`code`", "model", "*that*", "fits", "into", "what", "there", "is," };
  GString *text = g_string_new (NULL);
  g_string_append_printf (text, "## Part %u\n\n", n);
  for (guint i = 0; i < 400; i++)
    g_string_append_printf (text, "%s ", words[(i * i + n * 7 + i / 5) % G_N_ELEMENTS (words)]);
  g_string_append (text, "\n\n| Name | Size | Bits | Notes |\n|---|--:|:-:|---|\n");
  for (guint i = 0; i < 60; i++)
    g_string_append_printf (text, "| model-%u | %u MB | %u | some **words** on it |\n", i, 40 + i * 7, i % 8 + 1);
  g_string_append (text, "\n```c\n");
  for (guint i = 0; i < 150; i++)
    g_string_append_printf (text, "  if (x[%u] > 0 && y != NULL) /* a line of code */\n    total += f (x[%u], \"%u\");\n", i, i, i);
  g_string_append (text, "```\n\n");
  for (guint i = 0; i < 80; i++)
    g_string_append_printf (text, "%u. an item of a long list, with `code` and **bold** words\n   - and one below it\n", i + 1);
  g_string_append (text, "\n> a quotation\n\n");
  return g_string_free (text, FALSE);
}

/* Pieces of a few bytes, as tokens come, some 300 a second. */
static void stream (ValiseMessageRow *row, const char *text)
{
  gint64 start = g_get_monotonic_time ();
  gsize length = strlen (text), sent = 0;
  for (guint n = 0; sent < length; n++) {
    g_autofree char *piece = g_strndup (text + sent, MIN (12, length - sent));
    sent += strlen (piece);
    valise_message_row_append (row, piece);
    ui_wait (g_get_monotonic_time () - start >= n * (gint64) 3300);
  }
}

static void test_markdown (UiCase *c)
{
  Meter meter;
  ui_ask (c, "hello");
  ValiseMessageRow *row = ui_last_row (c);
  valise_message_row_set_streaming (row, TRUE);
  valise_message_row_set_text (row, "");
  static const char *const names[] = { "first", "second" };
  for (guint n = 0; n < G_N_ELEMENTS (names); n++) {
    g_autofree char *text = section (n + 1), *what = g_strdup_printf ("a long answer, %s %zu kB", names[n], strlen (text) / 1000);
    guint source = meter_start (&meter);
    stream (row, text);
    ui_settle (c->window);
    meter_end (&meter, source, what);
  }
  valise_message_row_set_streaming (row, FALSE);
  ui_picture (c->window, "chat-long");
  g_autofree char *shown = ui_row_text (row);
  g_assert_nonnull (strstr (shown, "Part 1"));
  g_assert_nonnull (strstr (shown, "model-59"));
  g_assert_nonnull (strstr (shown, "Part 2"));
}

int main (int argc, char **argv)
{
  ui_init (&argc, &argv);
  ui_add ("/ui/stream/tokens", add_liner, test_tokens, NULL);
  ui_add ("/ui/stream/many-chats", add_many, test_many_chats, NULL);
  ui_add ("/ui/stream/markdown", add_liner, test_markdown, NULL);
  return ui_run ();
}
