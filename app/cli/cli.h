/* cli.h: what the commands of `valise` share: options, output, errors, progress, the interrupt key. */
#ifndef VALISE_CLI_H
#define VALISE_CLI_H

#include "app/library/library.h"

enum { CLI_OK = 0, CLI_FAILED = 1, CLI_USAGE = 2, CLI_CANCELLED = 130 /* as shells count SIGINT */ };

typedef struct {
  const char *name;
  const char *arguments; /* "MODEL [FILE]" for the help */
  const char *summary;   /* one line */
  const char *example;   /* what follows "valise NAME " in one that does something useful */
  int (*run) (int argc, char **argv);
} CliCommand;

/* Each reads its own arguments, argv[0] being the command's name, and returns the exit status. */
int cli_hardware (int argc, char **argv);
int cli_import (int argc, char **argv);
int cli_list (int argc, char **argv);
int cli_show (int argc, char **argv);
int cli_remove (int argc, char **argv);
int cli_export (int argc, char **argv);
int cli_verify (int argc, char **argv);
int cli_plan (int argc, char **argv);
int cli_fit (int argc, char **argv);
int cli_chat (int argc, char **argv);
int cli_serve (int argc, char **argv);
int cli_eval (int argc, char **argv);
int cli_bench (int argc, char **argv);
int cli_tokenize (int argc, char **argv);
int cli_render (int argc, char **argv);

const CliCommand *cli_find_command (const char *name);

/* Reads options and checks that min..max arguments are left (argv[1] ...). FALSE: a usage error was printed, return CLI_USAGE. --help
 * prints and exits. `--json` is every command's and ends up in cli_json. */
extern gboolean cli_json;
gboolean cli_parse (const GOptionEntry *entries, int min, int max, int *argc, char ***argv);
/* "valise: ...: see valise COMMAND --help". Returns CLI_USAGE. */
int cli_usage (const char *format, ...) G_GNUC_PRINTF (1, 2);
/* Locales differ, the engine speaks UTF-8 only. text may be NULL. FALSE: a usage error was printed. */
gboolean cli_check_text (const char *option, const char *text);
/* One line on stderr. Returns the exit status for this error. */
int cli_fail (const GError *error);

/* Takes the object or array: one line of JSON on stdout. Returns CLI_OK. */
int cli_print_object (JsonObject *object);
int cli_print_array (JsonArray *array);
/* The exit status, once everything printed has arrived: CLI_FAILED, with a line, when it could not. */
int cli_flush (int status);
double cli_rate (guint n, gint64 us);
/* A line on stderr where the model sees pictures as well. */
void cli_say_pictures (const EngModel *model);

/* For library calls: a line that rewrites itself on a terminal, else a line per stage; always stderr. */
void cli_progress (double fraction, const char *what, gpointer data);
void cli_progress_end (void);

/* The options of a command that samples, before them its own; free with g_free. Then: FALSE when a value is out of range, which was told; and, when the model
 * is open, what was asked for. */
GOptionEntry *cli_sampling_entries (const GOptionEntry *own);
gboolean cli_sampling_check (void);
void cli_sampling_read (const EngGguf *gguf, EngSamplerOptions *options);

/* SIGINT and SIGTERM cancel it. Call before any thread is made. */
void cli_interrupt_init (void);
GCancellable *cli_cancellable (void);
/* A new one, for the next thing to be interrupted; the one before stays as it is. */
void cli_interrupt_renew (void);

#endif
