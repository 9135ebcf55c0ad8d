/* cmd_chat.c: one prompt and its answer, or a conversation on the terminal (or through pipes: one line, one turn). */
#include "app/cli/cli.h"
#include "engine/draft.h"
#include "engine/error.h"
#include "engine/generate.h"
#include "engine/json_reader.h"

#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define MAX_PROMPT_BYTES (16 << 20)

typedef struct {
  EngSession *session;
  EngDraft *draft; /* the session's, or NULL */
  JsonArray *messages;
  EngAnswerOptions options;
  char *system;
  const char *kept; /* the file that holds it from one run to the next, or NULL */
} Conversation;

static int answer_once (Conversation *talk, const char *prompt);
static int converse (Conversation *talk);
static char *read_all (GError **error);

/* Who guesses ahead. */
static EngDraft *open_draft (ValiseLibrary *library, const char *name, EngModel *target, EngWorkers *workers, const EngSessionOptions *options, GError **error)
{
  EngSessionOptions own = { .n_ctx = options->n_ctx, .kv_bits = options->kv_bits };
  if (g_str_equal (name, "ngram"))
    return eng_draft_new_lookup (0);
  g_autoptr (ValiseModel) row = valise_library_find_model (library, name, error);
  g_autoptr (EngModel) model = row ? valise_library_open_model (library, row, cli_progress, NULL, cli_cancellable (), error) : NULL;
  cli_progress_end ();
  return model ? eng_draft_new_model (model, target, workers, &own, 0, 0, error) : NULL;
}

static void add_message (Conversation *talk, const char *role, const char *content)
{
  JsonObject *message = json_object_new ();
  json_object_set_string_member (message, "role", role);
  json_object_set_string_member (message, "content", content);
  json_array_add_object_element (talk->messages, message);
}

static void start_over (Conversation *talk)
{
  g_clear_pointer (&talk->messages, json_array_unref);
  talk->messages = json_array_new ();
  if (talk->system && *talk->system)
    add_message (talk, "system", talk->system);
}

/* What answers must be: a file of GBNF or one of JSON Schema, whichever is named. */
static EngGrammar *read_grammar (const char *gbnf, const char *schema, GError **error)
{
  const char *path = gbnf ? gbnf : schema;
  g_autofree char *text = NULL, *name = g_filename_display_name (path);
  gsize length;
  if (!g_file_get_contents (path, &text, &length, error))
    return NULL;
  if (strlen (text) != length) {
    g_set_error (error, ENG_ERROR, ENG_ERROR_FORMAT, "%s is no text: it holds a NUL", name);
    return NULL;
  }
  g_autoptr (JsonNode) node = gbnf ? NULL : eng_json_parse (text, length, error);
  EngGrammar *grammar = gbnf ? eng_grammar_new (text, error) : node ? eng_grammar_new_from_schema (node, "the schema", error) : NULL;
  if (!grammar)
    g_prefix_error (error, node || gbnf ? "%s: " : "%s ", name);
  return grammar;
}

/* ---- kept from one run to the next ---- */

/* Messages and tokens of the file, where there is one. */
static gboolean take_up (Conversation *talk, GError **error)
{
  g_autofree char *text = NULL;
  if (!talk->kept || !g_file_test (talk->kept, G_FILE_TEST_EXISTS))
    return TRUE;
  if (!eng_session_restore (talk->session, &text, talk->kept, error))
    return FALSE;
  g_autoptr (JsonNode) node = eng_json_parse (text, strlen (text), NULL);
  if (!node || !JSON_NODE_HOLDS_ARRAY (node)) {
    g_set_error (error, ENG_ERROR, ENG_ERROR_FORMAT, "%s holds no conversation: it was saved by another program", talk->kept);
    return FALSE;
  }
  if (talk->system) {
    g_set_error (error, ENG_ERROR, ENG_ERROR_ARGUMENT, "%s holds a conversation that has begun already: leave out --system, or name another file", talk->kept);
    return FALSE;
  }
  json_array_unref (talk->messages);
  talk->messages = json_array_ref (json_node_get_array (node));
  return TRUE;
}

/* What was said so far; nothing was said: nothing is kept. */
static gboolean put_aside (Conversation *talk, GError **error)
{
  if (!talk->kept || eng_session_n_past (talk->session) == 0)
    return TRUE;
  g_autoptr (JsonNode) node = json_node_init_array (json_node_alloc (), talk->messages);
  g_autofree char *text = json_to_string (node, FALSE);
  return eng_session_save (talk->session, text, talk->kept, error);
}

int cli_chat (int argc, char **argv)
{
  g_autofree char *prompt = NULL, *system = NULL, *seed = NULL, *draft = NULL, *gbnf = NULL, *schema = NULL, *kept = NULL;
  int max_tokens = 0, context = 0, kv = 0, threads = 0;
  const GOptionEntry entries[] = {
    { "prompt", 'p', 0, G_OPTION_ARG_FILENAME, &prompt, "Answer this and exit (else a conversation)", "TEXT" },
    { "system", 0, 0, G_OPTION_ARG_FILENAME, &system, "What the model is told to be", "TEXT" },
    { "max-tokens", 'n', 0, G_OPTION_ARG_INT, &max_tokens, "Tokens of an answer at most (else to the end of the context)", "N" },
    { "seed", 0, 0, G_OPTION_ARG_FILENAME, &seed, "The same seed, the same answer (else a new one each time)", "N" },
    { "grammar", 0, 0, G_OPTION_ARG_FILENAME, &gbnf, "Answers are what this grammar (GBNF) allows", "FILE" },
    { "json-schema", 0, 0, G_OPTION_ARG_FILENAME, &schema, "Answers are JSON that is valid under this schema", "FILE" },
    { "session", 0, 0, G_OPTION_ARG_FILENAME, &kept, "Go on with the conversation that this file holds, and keep it there", "FILE" },
    { "context", 'c', 0, G_OPTION_ARG_INT, &context, "Tokens of context (else what the fit was planned for, or 4096)", "TOKENS" },
    { "kv", 0, 0, G_OPTION_ARG_INT, &kv, "Bits of the KV cache: 16, 8 or 4 (else what the fit was planned for, or 16)", "BITS" },
    { "draft", 0, 0, G_OPTION_ARG_FILENAME, &draft, "Guess ahead with a smaller fit of the model, or from what is there: ngram", "MODEL" },
    { "threads", 't', 0, G_OPTION_ARG_INT, &threads, "Threads (else one per core)", "N" },
    { NULL },
  };
  g_autofree GOptionEntry *all = cli_sampling_entries (entries);
  if (!cli_parse (all, 1, 1, &argc, &argv) || !cli_check_text ("--prompt", prompt) || !cli_check_text ("--system", system))
    return CLI_USAGE;
  if (max_tokens < 0 || context < 0 || threads < 0 || threads > 1024)
    return cli_usage ("a number of tokens or threads cannot be negative or that large");
  if (!cli_sampling_check ())
    return CLI_USAGE;
  if (gbnf && schema)
    return cli_usage ("--grammar and --json-schema cannot both be obeyed");
  if (kv != 0 && kv != 16 && kv != 8 && kv != 4)
    return cli_usage ("--kv %d is not 16, 8 or 4", kv);
  guint64 seed_value = ((guint64) g_random_int () << 32) | g_random_int ();
  if (seed && !g_ascii_string_to_unsigned (seed, 10, 0, G_MAXUINT64, &seed_value, NULL))
    return cli_usage ("--seed %s is not a whole number", seed);

  g_autoptr (GError) error = NULL;
  g_autoptr (EngGrammar) grammar = gbnf || schema ? read_grammar (gbnf, schema, &error) : NULL;
  g_autofree char *piped = NULL;
  if (error)
    return cli_fail (error);
  if (!prompt && cli_json) {
    /* One object is one answer: all of stdin is its prompt. */
    piped = read_all (&error);
    if (!piped)
      return cli_fail (error);
  }
  EngSessionOptions options;
  g_autoptr (ValiseLibrary) library = valise_library_open (NULL, &error);
  g_autoptr (ValiseModel) row = library ? valise_library_find_model (library, argv[1], &error) : NULL;
  g_autoptr (EngModel) model = row ? valise_library_open_model (library, row, cli_progress, NULL, cli_cancellable (), &error) : NULL;
  if (!model || !valise_session_options (eng_model_traits (model), (guint) context, kv, &options, &error))
    return cli_fail (error);
  cli_progress_end ();
  cli_say_pictures (model);
  g_autoptr (EngWorkers) workers = eng_workers_new ((guint) threads);
  EngSamplerOptions sampling;
  cli_sampling_read (eng_model_gguf (model), &sampling);
  sampling.seed = seed_value;
  options.n_drafted = draft ? ENG_DRAFT_TOKENS : 0;
  g_autoptr (EngSession) session = eng_session_new (model, workers, &options, &error);
  g_autoptr (EngDraft) guesser = session && draft ? open_draft (library, draft, model, workers, &options, &error) : NULL;
  if (!session || (draft && !guesser))
    return cli_fail (error);
  Conversation talk = { session, guesser, NULL, { sampling, (guint) max_tokens, grammar }, g_steal_pointer (&system), kept };
  eng_session_set_draft (session, g_steal_pointer (&guesser));
  start_over (&talk);
  int status;
  if (!take_up (&talk, &error)) {
    status = cli_fail (error);
  } else if (prompt || piped) {
    status = answer_once (&talk, prompt ? prompt : piped);
  } else {
    if (isatty (STDIN_FILENO))
      fprintf (stderr, "%s, a context of %u tokens. /help shows what else can be typed; Ctrl+C stops an answer, Ctrl+D leaves.\n",
               valise_model_get_name (row), options.n_ctx);
    status = converse (&talk);
  }
  if (!error && !put_aside (&talk, &error))
    status = cli_fail (error);
  json_array_unref (talk.messages);
  g_free (talk.system);
  return status;
}

/* ---- one answer ---- */

typedef struct {
  GString *text, *reasoning;
  gboolean shown, dim; /* on stdout as it comes; dim: reasoning is on the terminal now */
} Written;

static Written written_new (gboolean shown)
{
  return (Written) { g_string_new (NULL), g_string_new (NULL), shown, FALSE };
}

static void written_clear (Written *written)
{
  g_string_free (written->text, TRUE);
  g_string_free (written->reasoning, TRUE);
}

G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC (Written, written_clear)

/* A terminal shows reasoning too, dim and apart; a pipe gets the answer alone. */
static void take_text (EngTextKind kind, const char *text, gpointer data)
{
  Written *written = data;
  gboolean reasoning = kind == ENG_TEXT_REASONING;
  g_string_append (reasoning ? written->reasoning : written->text, text);
  if (!written->shown || (reasoning && !isatty (STDOUT_FILENO)))
    return;
  if (reasoning != written->dim)
    fputs (reasoning ? "\033[2m" : "\033[0m\n\n", stdout);
  written->dim = reasoning;
  fputs (text, stdout);
  fflush (stdout);
}

/* After the last text. */
static void end_text (Written *written)
{
  if (written->dim)
    fputs ("\033[0m", stdout);
  written->dim = FALSE;
}

static void add_answer (Conversation *talk, const Written *written)
{
  add_message (talk, "assistant", written->text->str);
  if (written->reasoning->len > 0) /* a template that shows it again knows it by this name */
    json_object_set_string_member (json_array_get_object_element (talk->messages, json_array_get_length (talk->messages) - 1), "reasoning_content", written->reasoning->str);
}

static int answer_once (Conversation *talk, const char *prompt)
{
  g_autoptr (GError) error = NULL;
  g_auto (Written) written = written_new (!cli_json);
  EngGenerateStats stats = { 0 };
  add_message (talk, "user", prompt);
  gboolean done = eng_generate_chat (talk->session, talk->messages, &talk->options, take_text, &written, &stats, cli_cancellable (), &error);
  end_text (&written);
  if (!done) {
    json_array_remove_element (talk->messages, json_array_get_length (talk->messages) - 1);
    return cli_fail (error);
  }
  add_answer (talk, &written);
  int status = g_str_equal (stats.finish_reason, "cancelled") ? CLI_CANCELLED : CLI_OK;
  if (!cli_json) {
    printf ("\n");
    return status;
  }
  JsonObject *object = json_object_new ();
  json_object_set_string_member (object, "text", written.text->str);
  json_object_set_string_member (object, "reasoning", written.reasoning->str);
  json_object_set_int_member (object, "prompt_tokens", stats.prompt_tokens);
  json_object_set_int_member (object, "reused_tokens", stats.reused_tokens);
  json_object_set_int_member (object, "generated_tokens", stats.generated_tokens);
  valise_json_set_number (object, "prompt_tokens_per_second", cli_rate (stats.prompt_tokens - stats.reused_tokens, stats.prompt_us));
  valise_json_set_number (object, "generated_tokens_per_second", cli_rate (stats.generated_tokens, stats.generate_us));
  json_object_set_int_member (object, "peak_rss_bytes", (gint64) eng_memory_peak_rss ());
  json_object_set_string_member (object, "finish_reason", stats.finish_reason);
  if (talk->draft) {
    guint64 guessed, accepted;
    eng_draft_counts (talk->draft, &guessed, &accepted);
    json_object_set_int_member (object, "guessed_tokens", (gint64) guessed);
    json_object_set_int_member (object, "accepted_tokens", (gint64) accepted);
  }
  cli_print_object (object);
  return status;
}

/* ---- a conversation ---- */

/* Waits for input or the interrupt key. FALSE: interrupted. */
static gboolean wait_for_input (void)
{
  struct pollfd waiting[2] = { { .fd = STDIN_FILENO, .events = POLLIN }, { .fd = g_cancellable_get_fd (cli_cancellable ()), .events = POLLIN } };
  while (poll (waiting, 2, -1) < 0)
    ;
  g_cancellable_release_fd (cli_cancellable ());
  return !g_cancellable_is_cancelled (cli_cancellable ());
}

/* One line without its end; NULL at the end of input or when interrupted. */
static char *read_line (GString *buffer)
{
  for (;;) {
    char *end = memchr (buffer->str, '\n', buffer->len);
    if (end) {
      char *line = g_strndup (buffer->str, (gsize) (end - buffer->str));
      g_string_erase (buffer, 0, end - buffer->str + 1);
      return line;
    }
    char block[4096];
    gssize n = wait_for_input () ? read (STDIN_FILENO, block, sizeof block) : -1;
    if (n > 0 && buffer->len < MAX_PROMPT_BYTES) {
      g_string_append_len (buffer, block, n);
      continue;
    }
    if (n != 0 || buffer->len == 0)
      return NULL;
    char *last = g_strndup (buffer->str, buffer->len);
    g_string_truncate (buffer, 0);
    return last;
  }
}

static gboolean obey (Conversation *talk, const char *line, gboolean *leave)
{
  if (g_str_equal (line, "/quit") || g_str_equal (line, "/exit") || g_str_equal (line, "/bye")) {
    *leave = TRUE;
  } else if (g_str_equal (line, "/clear") || g_str_equal (line, "/new")) {
    start_over (talk);
    fprintf (stderr, "A new conversation.\n");
  } else if (g_str_has_prefix (line, "/system")) {
    g_free (talk->system);
    talk->system = g_strstrip (g_strdup (line + strlen ("/system")));
    start_over (talk);
    fprintf (stderr, "A new conversation with that system prompt.\n");
  } else if (g_str_equal (line, "/help") || g_str_equal (line, "/?")) {
    fprintf (stderr, "/clear  start over\n/system TEXT  start over with this system prompt\n/memory  what is used\n/quit  leave\n");
  } else if (g_str_equal (line, "/memory")) {
    g_autofree char *rss = valise_size_format (eng_memory_rss ()), *peak = valise_size_format (eng_memory_peak_rss ());
    fprintf (stderr, "%s in use, %s at most; %u of %u tokens of context.\n", rss, peak, eng_session_n_past (talk->session),
             eng_session_n_ctx (talk->session));
  } else {
    return FALSE;
  }
  return TRUE;
}

static int take_turn (Conversation *talk, const char *line)
{
  g_autoptr (GError) error = NULL;
  g_auto (Written) written = written_new (TRUE);
  EngGenerateStats stats = { 0 };
  add_message (talk, "user", line);
  gboolean done = eng_generate_chat (talk->session, talk->messages, &talk->options, take_text, &written, &stats, cli_cancellable (), &error);
  end_text (&written);
  if (written.text->len > 0 || done)
    printf ("\n");
  fflush (stdout);
  if (!done) {
    /* The conversation goes on without the message that could not be answered. */
    cli_fail (error);
    json_array_remove_element (talk->messages, json_array_get_length (talk->messages) - 1);
    return CLI_FAILED;
  }
  add_answer (talk, &written);
  if (isatty (STDERR_FILENO) && isatty (STDIN_FILENO))
    fprintf (stderr, "[%u tokens, %.1f per second%s%s]\n", stats.generated_tokens, cli_rate (stats.generated_tokens, stats.generate_us),
             g_str_equal (stats.finish_reason, "cancelled") ? ", stopped" : g_str_equal (stats.finish_reason, "length") ? ", out of room" : "",
             stats.shifted ? ", the oldest turns were left out" : "");
  return CLI_OK;
}

static int converse (Conversation *talk)
{
  g_autoptr (GString) buffer = g_string_new (NULL);
  gboolean terminal = isatty (STDIN_FILENO), leave = FALSE;
  int status = CLI_OK;
  while (!leave) {
    if (terminal)
      fprintf (stderr, "> ");
    g_autofree char *line = read_line (buffer);
    if (!line)
      break;
    g_strchomp (line);
    if (*line == '\0' || obey (talk, line, &leave))
      continue;
    if (!g_utf8_validate (line, -1, NULL)) {
      fprintf (stderr, "valise: this line is not UTF-8 text: type it again\n");
      status = CLI_FAILED;
      continue;
    }
    int turn = take_turn (talk, line);
    status = turn != CLI_OK ? turn : status;
    if (terminal && g_cancellable_is_cancelled (cli_cancellable ()))
      cli_interrupt_renew (); /* the key stopped the answer, not the program */
    else if (g_cancellable_is_cancelled (cli_cancellable ()))
      break;
  }
  if (g_cancellable_is_cancelled (cli_cancellable ()))
    status = CLI_CANCELLED;
  if (terminal)
    fprintf (stderr, "\n");
  return terminal && status == CLI_FAILED ? CLI_OK : status;
}

/* ---- helpers ---- */

static char *read_all (GError **error)
{
  g_autoptr (GString) text = g_string_new (NULL);
  char block[4096];
  gssize n = 0;
  while (wait_for_input () && (n = read (STDIN_FILENO, block, sizeof block)) > 0 && text->len < MAX_PROMPT_BYTES)
    g_string_append_len (text, block, n);
  while (text->len > 0 && g_ascii_isspace (text->str[text->len - 1]))
    g_string_truncate (text, text->len - 1);
  if (g_cancellable_is_cancelled (cli_cancellable ()))
    g_set_error (error, ENG_ERROR, ENG_ERROR_CANCELLED, "cancelled before a prompt was read");
  else if (n < 0 || text->len == 0 || text->len >= MAX_PROMPT_BYTES || !g_utf8_validate (text->str, (gssize) text->len, NULL))
    g_set_error (error, VALISE_ERROR, VALISE_ERROR_ARGUMENT, "there is no prompt: give one with --prompt, or UTF-8 text on stdin");
  else
    return g_strdup (text->str);
  return NULL;
}
