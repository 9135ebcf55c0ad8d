/* main.c: the `valise` command: finds the command that was asked for and runs it. */
#include "app/cli/cli.h"
#include "kernels/cpu.h"

#include <locale.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

static const CliCommand commands[] = {
  { "hardware", "", "What this computer offers", cli_hardware },
  { "import", "SOURCE", "Add a model from a .gguf, a folder, or an archive (.whl, .zip, .tar)", cli_import },
  { "list", "", "The models in the library", cli_list },
  { "show", "NAME", "One model in full", cli_show },
  { "plan", "MODEL", "What a fit to a budget would need, and how good it would be", cli_plan },
  { "fit", "MODEL", "Quantize a model to a budget", cli_fit },
  { "chat", "MODEL", "Chat, or answer one prompt", cli_chat },
  { "eval", "MODEL", "Perplexity on a text, and divergence from a reference", cli_eval },
  { "bench", "MODEL", "Speed and memory", cli_bench },
  { "tokenize", "MODEL", "The tokens of a text", cli_tokenize },
  { "render", "[MODEL]", "The prompt a chat template makes of messages", cli_render },
  { "remove", "NAME", "Remove a model and its files", cli_remove },
  { "export", "NAME [FILE]", "Copy a model's file out of the library", cli_export },
  { "verify", "NAME", "Hold a model's file against its checksum and structure", cli_verify },
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
                 "The library is in $VALISE_HOME, else in ~/.local/share/valise.\n");
}

int main (int argc, char **argv)
{
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
  if (g_str_equal (argv[1], "--help") || g_str_equal (argv[1], "-h") || g_str_equal (argv[1], "help")) {
    print_help (stdout);
    return cli_flush (CLI_OK);
  }
  if (g_str_equal (argv[1], "--version")) {
    printf ("valise " VALISE_VERSION "\n");
    return CLI_OK;
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
