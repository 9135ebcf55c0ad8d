/* main.c: the `valise` command: finds the command that was asked for and runs it. */
#include "app/cli/cli.h"
#include "kernels/cpu.h"

#include <fcntl.h>
#include <locale.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const CliCommand commands[] = {
  { "hardware", "", "What this computer offers", "--json",
    cli_hardware },
  { "import", "SOURCE", "Add a model from a .gguf, a folder, or an archive (.whl, .zip, .tar)", "SmolLM2-135M-Instruct-Q4_1.gguf --name smol",
    cli_import },
  { "list", "", "The models in the library", "--json",
    cli_list },
  { "show", "NAME", "One model in full", "smol",
    cli_show },
  { "plan", "MODEL", "What a fit to a budget would need, and how good it would be", "smol --ram 200M --context 2048",
    cli_plan },
  { "fit", "MODEL", "Quantize a model to a budget", "smol --ram 200M --context 2048 -o small",
    cli_fit },
  { "chat", "MODEL", "Chat, or answer one prompt", "small --prompt \"Name three rivers.\"",
    cli_chat },
  { "serve", "MODEL", "A model for other programs of this computer, as OpenAI's API", "small --port 8080",
    cli_serve },
  { "eval", "MODEL", "Perplexity on a text, and divergence from a reference", "small --text book.txt --reference smol",
    cli_eval },
  { "bench", "MODEL", "Speed and memory", "small --prompt-tokens 256",
    cli_bench },
  { "tokenize", "MODEL", "The tokens of a text", "small --text \"Hello world\"",
    cli_tokenize },
  { "render", "[MODEL]", "The prompt a chat template makes of messages", "small --messages messages.json",
    cli_render },
  { "remove", "NAME", "Remove a model and its files", "small",
    cli_remove },
  { "export", "NAME [FILE]", "Copy a model's file out of the library", "small ~/Models",
    cli_export },
  { "verify", "NAME", "Hold a model's file against its checksum and structure", "small",
    cli_verify },
};

const CliCommand *cli_find_command (const char *name)
{
  for (guint i = 0; i < G_N_ELEMENTS (commands); i++)
    if (g_str_equal (name, commands[i].name))
      return &commands[i];
  return NULL;
}

static void print_help (FILE *file)
{
  fprintf (file, "Usage: valise COMMAND [OPTIONS]\n\n"
                 "Fits a language model into the RAM you choose, and chats with it on this computer.\n\n");
  for (guint i = 0; i < G_N_ELEMENTS (commands); i++) {
    g_autofree char *head = g_strdup_printf ("%s %s", commands[i].name, commands[i].arguments);
    fprintf (file, "  %-20s %s\n", head, commands[i].summary);
  }
  fprintf (file, "\nMODEL is a name in the library or the path of a .gguf file. Sizes read 96M, 1.5G (powers of ten) or 900MiB.\n"
                 "Every command takes --json (one object on stdout) and --help.\n"
                 "The library is in $VALISE_HOME, else in ~/.local/share/valise.\n"
                 "Exit status: 0 done, 1 failed, 2 not understood, 130 interrupted.\n");
}

/* A program started without stdin, stdout or stderr would open its files in their places, and print into them. These fail instead. */
static void hold_standard_files (void)
{
  for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
    if (fcntl (fd, F_GETFD) < 0 && open ("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY) != fd)
      _exit (CLI_FAILED);
}

int main (int argc, char **argv)
{
  hold_standard_files ();
  /* The budget is for the model: no arenas per thread, and freed blocks go back to the system. */
  mallopt (M_ARENA_MAX, 1);
  mallopt (M_MMAP_THRESHOLD, 256 << 10);
  mallopt (M_TRIM_THRESHOLD, 256 << 10);
  setlocale (LC_CTYPE, ""); /* names and messages; numbers stay as programs read them */
  /* A file larger than the person's limit is an error to report, not a reason to be killed. */
  signal (SIGXFSZ, SIG_IGN);
  g_set_prgname ("valise");

  if (argc < 2) {
    print_help (stderr);
    return CLI_USAGE;
  }
  char *explained[] = { argv[0], argc > 2 ? argv[2] : NULL, (char *) "--help", NULL };
  if (g_str_equal (argv[1], "help") && argc > 2) { /* "help COMMAND" is "COMMAND --help" */
    argv = explained;
    argc = 3;
  }
  if (g_str_equal (argv[1], "--help") || g_str_equal (argv[1], "-h") || g_str_equal (argv[1], "help")) {
    print_help (stdout);
    return cli_flush (CLI_OK);
  }
  if (g_str_equal (argv[1], "--version")) {
    printf ("valise " VALISE_VERSION "\n");
    return cli_flush (CLI_OK);
  }
  const CliCommand *command = cli_find_command (argv[1]);
  if (!command) {
    fprintf (stderr, "valise: there is no command \"%s\": see valise --help\n", argv[1]);
    return CLI_USAGE;
  }
  const char *isa = xb_cpu_init ();
  if (isa) {
    fprintf (stderr, "valise: %s\n", isa);
    return CLI_FAILED;
  }
  cli_interrupt_init ();
  return cli_flush (command->run (argc - 1, argv + 1));
}
