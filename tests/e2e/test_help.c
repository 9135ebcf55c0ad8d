/* test_help.c: docs/cli.md and the program's own help name the same commands and options. */
#include "tests/fixtures/program.h"
#include "tests/fixtures/scratch.h"

#include <string.h>

static char *document (void)
{
  g_autofree char *path = g_test_build_filename (G_TEST_DIST, "..", "docs", "cli.md", NULL);
  g_autoptr (GError) error = NULL;
  char *text;
  g_file_get_contents (path, &text, NULL, &error);
  g_assert_no_error (error);
  return text;
}

/* What "## valise NAME" stands over, up to the next heading of that rank; the names go to `names`. */
static GHashTable *sections (GPtrArray *names)
{
  g_autofree char *text = document ();
  GHashTable *all = g_hash_table_new_full (g_str_hash, g_str_equal, g_free, g_free);
  g_auto (GStrv) parts = g_strsplit (text, "\n## ", -1);
  for (char **part = parts + 1; *part; part++) {
    if (!g_str_has_prefix (*part, "valise "))
      continue;
    const char *name = *part + strlen ("valise ");
    char *key = g_strndup (name, strcspn (name, "\n "));
    g_ptr_array_add (names, key);
    g_hash_table_insert (all, key, g_strdup (strchr (*part, '\n')));
  }
  return all;
}

/* "--long" words of a text, as a set. */
static GHashTable *options_of (const char *text)
{
  GHashTable *options = g_hash_table_new_full (g_str_hash, g_str_equal, g_free, NULL);
  for (const char *p = text; (p = strstr (p, "--"));) {
    gsize n = 2 + strspn (p + 2, "abcdefghijklmnopqrstuvwxyz-");
    if (n > 2 && (p == text || strchr (" `\n[(", p[-1])))
      g_hash_table_add (options, g_strndup (p, n));
    p += n;
  }
  return options;
}

static void test_commands (void)
{
  g_autofree char *home = scratch_path ("home");
  g_autoptr (GPtrArray) names = g_ptr_array_new ();
  g_autoptr (GHashTable) documented = sections (names);
  g_assert_cmpuint (names->len, >=, 14);
  g_autoptr (ProgramRun) all = program_run (home, "--help", NULL);
  g_assert_cmpint (all->status, ==, 0);
  guint listed = 0;
  g_auto (GStrv) lines = g_strsplit (all->out, "\n", -1);
  for (char **line = lines; *line; line++) {
    if (!g_str_has_prefix (*line, "  ") || (*line)[2] == ' ')
      continue;
    g_autofree char *name = g_strndup (*line + 2, strcspn (*line + 2, " "));
    g_test_message ("%s is listed", name);
    g_assert_true (g_hash_table_contains (documented, name));
    listed++;
  }
  g_assert_cmpuint (listed, ==, names->len);
  for (guint i = 0; i < names->len; i++) {
    const char *name = names->pdata[i], *section = g_hash_table_lookup (documented, name);
    g_autoptr (ProgramRun) help = program_run (home, name, "--help", NULL), same = program_run (home, "help", name, NULL);
    g_test_message ("%s: %s", name, help->err);
    g_assert_cmpint (help->status, ==, 0);
    g_assert_cmpstr (help->err, ==, "");
    g_assert_cmpstr (same->out, ==, help->out);
    g_assert_nonnull (strstr (help->out, "Example:\n  valise "));
    g_autoptr (GHashTable) has = options_of (help->out), told = options_of (section);
    g_hash_table_remove (has, "--help");
    GHashTableIter iter;
    gpointer option;
    /* --json is every command's and told of once, at the top. */
    for (g_hash_table_iter_init (&iter, has); g_hash_table_iter_next (&iter, &option, NULL);) {
      g_test_message ("%s %s", name, (char *) option);
      g_assert_true (g_str_equal (option, "--json") || g_hash_table_contains (told, option));
    }
    for (g_hash_table_iter_init (&iter, told); g_hash_table_iter_next (&iter, &option, NULL);) {
      g_test_message ("%s documents %s", name, (char *) option);
      g_assert_true (g_hash_table_contains (has, option));
    }
  }
}

static void test_version (void)
{
  g_autofree char *home = scratch_path ("home");
  g_autoptr (ProgramRun) run = program_run (home, "--version", NULL), nothing = program_run (home, "help", "nonsense", NULL);
  g_assert_cmpint (run->status, ==, 0);
  g_assert_cmpstr (run->out, ==, "valise " VALISE_VERSION "\n");
  program_expect_failure (nothing, 2, "there is no command \"nonsense\"");
  g_assert_false (g_file_test (home, G_FILE_TEST_EXISTS)); /* asking for help makes no library */
}

int main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/help/agrees-with-its-page", test_commands);
  g_test_add_func ("/help/version", test_version);
  int status = g_test_run ();
  scratch_clean ();
  return status;
}
