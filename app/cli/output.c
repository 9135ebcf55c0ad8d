/* output.c: options in, one object or one line out. */
#include "app/cli/cli.h"
#include "engine/error.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define PROGRESS_LINE_US (2 * G_USEC_PER_SEC) /* between lines where the terminal cannot rewrite one */
#define PROGRESS_REWRITE_US 100000

gboolean cli_json;

static const char *current; /* the command that runs */
static gboolean line_open;

gboolean cli_parse (const GOptionEntry *entries, int min, int max, int *argc, char ***argv)
{
  static const GOptionEntry common[]
    = { { "json", 0, 0, G_OPTION_ARG_NONE, &cli_json, "One JSON object on stdout", NULL }, { NULL } };
  const CliCommand *command = cli_find_command ((*argv)[0]);
  current = command->name;
  g_autofree char *program = g_strdup_printf ("valise %s", command->name);
  g_set_prgname (program);
  g_autoptr (GOptionContext) context = g_option_context_new (command->arguments);
  g_option_context_set_summary (context, command->summary);
  g_autofree char *example = g_strdup_printf ("Example:\n  valise %s %s", command->name, command->example);
  g_option_context_set_description (context, example);
  if (entries)
    g_option_context_add_main_entries (context, entries, NULL);
  g_option_context_add_main_entries (context, common, NULL);
  g_autoptr (GError) error = NULL;
  if (!g_option_context_parse (context, argc, argv, &error)) {
    cli_usage ("%s", error->message);
    return FALSE;
  }
  /* "--" ends the options and is no argument. */
  if (*argc > 1 && g_str_equal ((*argv)[1], "--")) {
    (*argv)++;
    (*argc)--;
  }
  if (*argc - 1 < min) {
    cli_usage ("%s is missing", command->arguments);
    return FALSE;
  }
  if (*argc - 1 > max) {
    cli_usage ("\"%s\" is one argument too many", (*argv)[max + 1]);
    return FALSE;
  }
  return TRUE;
}

static void print_line (const char *text)
{
  cli_progress_end ();
  g_autofree char *line = g_strdup (text);
  g_strdelimit (line, "\n\r", ' ');
  fprintf (stderr, "valise: %s\n", line);
}

int cli_usage (const char *format, ...)
{
  va_list arguments;
  va_start (arguments, format);
  g_autofree char *what = g_strdup_vprintf (format, arguments);
  va_end (arguments);
  g_autofree char *line = g_strdup_printf ("%s: see valise %s --help", what, current);
  print_line (line);
  return CLI_USAGE;
}

gboolean cli_check_text (const char *option, const char *text)
{
  return !text || g_utf8_validate (text, -1, NULL) || cli_usage ("%s is not UTF-8 text", option) == CLI_OK;
}

int cli_fail (const GError *error)
{
  print_line (error->message);
  return g_error_matches (error, ENG_ERROR, ENG_ERROR_CANCELLED) ? CLI_CANCELLED : CLI_FAILED;
}

static int print_node (JsonNode *node)
{
  g_autofree char *text = json_to_string (node, FALSE);
  json_node_unref (node);
  cli_progress_end ();
  printf ("%s\n", text);
  return CLI_OK;
}

int cli_flush (int status)
{
  if (fflush (stdout) == 0 && !ferror (stdout))
    return status;
  print_line ("stdout cannot be written: check where it goes");
  return CLI_FAILED;
}

int cli_print_object (JsonObject *object)
{
  JsonNode *node = json_node_new (JSON_NODE_OBJECT);
  json_node_take_object (node, object);
  return print_node (node);
}

int cli_print_array (JsonArray *array)
{
  JsonNode *node = json_node_new (JSON_NODE_ARRAY);
  json_node_take_array (node, array);
  return print_node (node);
}

void cli_say_pictures (const EngModel *model)
{
  if (eng_model_traits (model)->pictures)
    fprintf (stderr, "This model also sees pictures; Valise computes its text part only.\n");
}

double cli_rate (guint n, gint64 us)
{
  return us > 0 ? (double) n * G_USEC_PER_SEC / (double) us : 0;
}

/* " · about 3 min left", from how far it has come since the first report; "" as long as that says little. */
static char *time_left (gint64 now, double fraction)
{
  static gint64 begun_us;
  static double begun;
  if (begun_us == 0) {
    begun_us = now;
    begun = fraction;
  }
  double elapsed_s = (double) (now - begun_us) / G_USEC_PER_SEC, come = fraction - begun;
  if (come < 0.02 || fraction >= 1 || elapsed_s < 3)
    return g_strdup ("");
  double left_s = elapsed_s * (1 - fraction) / come;
  return left_s < 55 ? g_strdup_printf (", about %u s left", (guint) (left_s / 5 + 1) * 5)
         : left_s < 5400 ? g_strdup_printf (", about %.0f min left", left_s / 60) : g_strdup_printf (", about %.1f h left", left_s / 3600);
}

void cli_progress (double fraction, const char *what, gpointer data)
{
  static gint64 last_us;
  static char last_what[128];
  gboolean terminal = isatty (STDERR_FILENO);
  gint64 now = g_get_monotonic_time ();
  gboolean same = what && strncmp (what, last_what, sizeof last_what - 1) == 0;
  if (now - last_us < (terminal ? PROGRESS_REWRITE_US : PROGRESS_LINE_US) || (same && !terminal))
    return;
  last_us = now;
  g_strlcpy (last_what, what ? what : "", sizeof last_what);
  g_autofree char *left = time_left (now, fraction);
  fprintf (stderr, terminal ? "\r\033[K%3.0f%%  %.100s%s" : "%3.0f%%  %.100s%s\n", 100 * CLAMP (fraction, 0, 1), last_what, left);
  line_open = terminal;
}

void cli_progress_end (void)
{
  if (line_open)
    fprintf (stderr, "\r\033[K");
  line_open = FALSE;
}
