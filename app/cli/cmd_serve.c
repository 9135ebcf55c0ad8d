/* cmd_serve.c: a model for other programs of this computer, until it is interrupted. */
#include "app/cli/cli.h"
#include "app/serve/serve.h"

#include <stdio.h>

static gboolean quit (gpointer loop)
{
  g_main_loop_quit (loop);
  return G_SOURCE_REMOVE;
}

/* On the thread that waits for signals. */
static void interrupted (GCancellable *cancellable, gpointer loop)
{
  g_idle_add (quit, loop);
}

static int print_address (ValiseServer *server, const char *name, guint parallel)
{
  g_autofree char *url = g_strdup_printf ("http://127.0.0.1:%u/v1", valise_server_port (server));
  if (!cli_json) {
    printf ("%s is at %s: a context of %u tokens, %u answer%s at once. Ctrl+C ends it.\n", name, url, valise_server_n_ctx (server), parallel, parallel == 1 ? "" : "s");
    return CLI_OK;
  }
  JsonObject *object = json_object_new ();
  json_object_set_string_member (object, "model", name);
  json_object_set_string_member (object, "url", url);
  json_object_set_int_member (object, "port", valise_server_port (server));
  json_object_set_int_member (object, "context", valise_server_n_ctx (server));
  json_object_set_int_member (object, "parallel", parallel);
  return cli_print_object (object);
}

int cli_serve (int argc, char **argv)
{
  int port = 8080, context = 0, kv = 0, parallel = 4, threads = 0;
  g_autofree char *token = NULL;
  const GOptionEntry entries[] = {
    { "port", 'p', 0, G_OPTION_ARG_INT, &port, "Port on 127.0.0.1, 0: any that is free (else 8080)", "N" },
    { "token", 0, 0, G_OPTION_ARG_FILENAME, &token, "Whoever asks must send it (else nobody must; $VALISE_TOKEN does not show in lists of processes)", "TEXT" },
    { "parallel", 0, 0, G_OPTION_ARG_INT, &parallel, "Answers at once, each with a context of its own (else 4)", "N" },
    { "context", 'c', 0, G_OPTION_ARG_INT, &context, "Tokens of an answer and its prompt (else what the fit was planned for, or 4096)", "TOKENS" },
    { "kv", 0, 0, G_OPTION_ARG_INT, &kv, "Bits of the KV cache: 16, 8 or 4 (else what the fit was planned for, or 16)", "BITS" },
    { "threads", 't', 0, G_OPTION_ARG_INT, &threads, "Threads (else one per core)", "N" },
    { NULL },
  };
  if (!cli_parse (entries, 1, 1, &argc, &argv) || !cli_check_text ("--token", token))
    return CLI_USAGE;
  if (port < 0 || port > 65535 || parallel < 1 || parallel > 64 || context < 0 || threads < 0 || threads > 1024)
    return cli_usage ("a number is out of range: --port 0 to 65535, --parallel 1 to 64");
  if (kv != 0 && kv != 16 && kv != 8 && kv != 4)
    return cli_usage ("--kv %d is not 16, 8 or 4", kv);
  const char *asked = token ? token : g_getenv ("VALISE_TOKEN");
  g_autoptr (GError) error = NULL;
  g_autoptr (ValiseLibrary) library = valise_library_open (NULL, &error);
  g_autoptr (ValiseModel) row = library ? valise_library_find_model (library, argv[1], &error) : NULL;
  g_autoptr (EngModel) model = row ? valise_library_open_model (library, row, cli_progress, NULL, cli_cancellable (), &error) : NULL;
  cli_progress_end ();
  g_autoptr (EngWorkers) workers = model ? eng_workers_new ((guint) threads) : NULL;
  ValiseServeOptions options = { .port = (guint) port, .token = asked && *asked ? asked : NULL, .context = (guint) context, .kv_bits = kv, .parallel = (guint) parallel };
  options.name = row ? valise_model_get_name (row) : NULL;
  g_autoptr (ValiseServer) server = model ? valise_server_new (model, workers, &options, &error) : NULL;
  if (!server)
    return cli_fail (error);
  cli_say_pictures (model);
  print_address (server, options.name, options.parallel);
  fflush (stdout);
  g_autoptr (GMainLoop) loop = g_main_loop_new (NULL, FALSE);
  gulong connection = g_cancellable_connect (cli_cancellable (), G_CALLBACK (interrupted), loop, NULL);
  g_main_loop_run (loop);
  g_cancellable_disconnect (cli_cancellable (), connection);
  return CLI_CANCELLED;
}
