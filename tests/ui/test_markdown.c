/* test_markdown.c: text that nobody vouches for, and text that comes in pieces: whatever its cut, it ends up as if it had come at once. */
#include "tests/ui/ui_case.h"

#include <string.h>

#include "app/ui/code_block.h"
#include "app/ui/markdown.h"
#include "app/ui/markdown_view.h"

/* ---- the tree ---- */

static const ValiseMarkdownBlock *block (GPtrArray *blocks, guint n)
{
  g_assert_cmpuint (n, <, blocks->len);
  return g_ptr_array_index (blocks, n);
}

static void check_paragraph (const char *markdown, const char *markup)
{
  g_autoptr (GPtrArray) blocks = valise_markdown_parse (markdown, strlen (markdown));
  g_assert_cmpuint (blocks->len, ==, 1);
  g_assert_cmpint (block (blocks, 0)->kind, ==, VALISE_MARKDOWN_PARAGRAPH);
  g_assert_cmpstr (block (blocks, 0)->text, ==, markup);
}

static void test_inline (void)
{
  check_paragraph ("**bold** and *italic*", "<b>bold</b> and <i>italic</i>");
  check_paragraph ("a < b && c > d", "a &lt; b &amp;&amp; c &gt; d");
  check_paragraph ("<script>alert(1)</script> x", "&lt;script&gt;alert(1)&lt;/script&gt; x");
  check_paragraph ("<b>not bold</b> x", "&lt;b&gt;not bold&lt;/b&gt; x");
  check_paragraph ("[here](https://gnome.org \"t\")", "<a href=\"https://gnome.org\" title=\"https://gnome.org\">here</a>");
  check_paragraph ("[here](javascript:alert(1))", "here");
  check_paragraph ("[here](file:///etc/passwd)", "here");
  check_paragraph ("![a picture](http://tracker.example/x.png)",
                   "<a href=\"http://tracker.example/x.png\" title=\"http://tracker.example/x.png\">a picture</a>");
  check_paragraph ("~~old~~ [&<](https://x.example/?a=1&b=\"2\")", "<s>old</s> <a href=\"https://x.example/?a=1&amp;b=&quot;2&quot;\" "
                                                                    "title=\"https://x.example/?a=1&amp;b=&quot;2&quot;\">&amp;&lt;</a>");
}

static void test_blocks (void)
{
  static const char text[] = "# One\n\ntwo\n\n| a | b |\n|--:|:-:|\n| 1 | 2 |\n| 3 |\n\n```py x\nprint (1)\n```\n\n3. x\n4. [x] y\n\n> z\n\n---\n";
  static const ValiseMarkdownKind kinds[] = { VALISE_MARKDOWN_HEADING, VALISE_MARKDOWN_PARAGRAPH, VALISE_MARKDOWN_TABLE, VALISE_MARKDOWN_CODE,
                                              VALISE_MARKDOWN_LIST, VALISE_MARKDOWN_QUOTE, VALISE_MARKDOWN_RULE };
  g_autoptr (GPtrArray) blocks = valise_markdown_parse (text, strlen (text));
  g_assert_cmpuint (blocks->len, ==, G_N_ELEMENTS (kinds));
  for (guint i = 0; i < blocks->len; i++)
    g_assert_cmpint (block (blocks, i)->kind, ==, kinds[i]);
  const ValiseMarkdownBlock *table = block (blocks, 2), *code = block (blocks, 3), *list = block (blocks, 4);
  g_assert_cmpuint (table->level, ==, 2);
  g_assert_cmpstr (table->info, ==, "rc");
  g_assert_cmpuint (table->cells->len, ==, 6);
  g_assert_cmpstr (g_ptr_array_index (table->cells, 5), ==, "");
  g_assert_cmpstr (code->text, ==, "print (1)");
  g_assert_cmpstr (code->info, ==, "py");
  g_assert_cmpstr (block (list->children, 0)->text, ==, "3.");
  g_assert_cmpstr (block (list->children, 1)->text, ==, "☑");
  g_assert_cmpuint (code->offset, ==, (gsize) (strstr (text, "```") - text));
}

static void test_hostile (void)
{
  GString *deep = g_string_new (NULL);
  for (guint i = 0; i < 20000; i++)
    g_string_append (deep, i % 2 ? "> " : "- ");
  g_string_append (deep, "x");
  GString *stars = g_string_new (NULL);
  for (guint i = 0; i < 20000; i++)
    g_string_append (stars, i % 2 ? "*" : "_");
  const char *texts[] = { deep->str, stars->str, "\xff\xfe broken \xc3", "[[[[[[[[[[[[[[[[[[[[[[[[[", "|||||\n|-|\n", "```", "\1\2\3" };
  for (gsize i = 0; i < G_N_ELEMENTS (texts); i++) {
    g_autoptr (GPtrArray) blocks = valise_markdown_parse (texts[i], strlen (texts[i]));
    for (guint b = 0; b < blocks->len; b++)
      if (block (blocks, b)->text && block (blocks, b)->kind == VALISE_MARKDOWN_PARAGRAPH) {
        g_autoptr (GError) error = NULL;
        pango_parse_markup (block (blocks, b)->text, -1, 0, NULL, NULL, NULL, &error);
        g_assert_no_error (error);
      }
  }
  g_string_free (deep, TRUE);
  g_string_free (stars, TRUE);
}

/* ---- the widgets ---- */

static void describe (GtkWidget *widget, GString *out)
{
  if (!gtk_widget_get_visible (widget))
    return;
  if (GTK_IS_LABEL (widget)) {
    g_string_append_printf (out, "[%s]", gtk_label_get_label (GTK_LABEL (widget)));
  } else if (GTK_IS_TEXT_VIEW (widget)) {
    GtkTextIter start, end;
    gtk_text_buffer_get_bounds (gtk_text_view_get_buffer (GTK_TEXT_VIEW (widget)), &start, &end);
    g_autofree char *code = gtk_text_buffer_get_text (gtk_text_view_get_buffer (GTK_TEXT_VIEW (widget)), &start, &end, FALSE);
    g_string_append_printf (out, "{%s}", code);
  } else {
    g_string_append_printf (out, "(%s", G_OBJECT_TYPE_NAME (widget));
    for (GtkWidget *child = gtk_widget_get_first_child (widget); child; child = gtk_widget_get_next_sibling (child))
      describe (child, out);
    g_string_append (out, ")");
  }
}

static char *description (GtkWidget *view)
{
  GString *out = g_string_new (NULL);
  describe (view, out);
  return g_string_free (out, FALSE);
}

static void test_pieces (UiCase *c)
{
  g_autofree char *path = g_build_filename (g_test_get_dir (G_TEST_DIST), "ui", "markdown.md", NULL), *text = NULL;
  g_assert_true (g_file_get_contents (path, &text, NULL, NULL));
  g_autoptr (GtkWidget) whole = g_object_ref_sink (valise_markdown_view_new ());
  valise_markdown_view_set_text (VALISE_MARKDOWN_VIEW (whole), text);
  g_autofree char *expected = description (whole);
  g_assert_nonnull (strstr (expected, "First things first"));
  for (gsize size = 1; size < 40; size = size * 2 + 1) {
    g_autoptr (GtkWidget) view = g_object_ref_sink (valise_markdown_view_new ());
    for (const char *at = text; *at;) {
      /* Whole characters, as the engine gives them, each drawn. */
      const char *end = at;
      for (gsize i = 0; i < size && *end; i++)
        end = g_utf8_next_char (end);
      g_autofree char *piece = g_strndup (at, (gsize) (end - at));
      valise_markdown_view_append (VALISE_MARKDOWN_VIEW (view), piece);
      valise_markdown_view_draw_now (VALISE_MARKDOWN_VIEW (view));
      at = end;
    }
    valise_markdown_view_finish (VALISE_MARKDOWN_VIEW (view));
    g_autofree char *got = description (view);
    g_assert_cmpstr (got, ==, expected);
    g_assert_cmpstr (valise_markdown_view_get_text (VALISE_MARKDOWN_VIEW (view)), ==, text);
  }
}

/* A table is as tall as its rows, and scrolls where it is too wide. */
static void test_table (UiCase *c)
{
  GtkWidget *view = g_object_ref_sink (valise_markdown_view_new ());
  int minimum, natural, least, one;
  valise_markdown_view_set_text (VALISE_MARKDOWN_VIEW (view), "| a few words here | and a few more of them there |\n|--|--|\n");
  gtk_widget_measure (view, GTK_ORIENTATION_VERTICAL, 400, &one, NULL, NULL, NULL);
  valise_markdown_view_set_text (VALISE_MARKDOWN_VIEW (view), "| a few words here | and a few more of them there |\n|--|--|\n|x|y|\n|x|y|\n");
  gtk_widget_measure (view, GTK_ORIENTATION_VERTICAL, 400, &minimum, &natural, NULL, NULL);
  gtk_widget_measure (view, GTK_ORIENTATION_HORIZONTAL, -1, &least, NULL, NULL, NULL);
  g_assert_cmpint (natural, >, one);
  g_assert_cmpint (natural, <=, 4 * one);
  g_assert_cmpint (least, <, 320);
  g_object_unref (view);
}

int main (int argc, char **argv)
{
  ui_init (&argc, &argv);
  g_test_add_func ("/ui/markdown/inline", test_inline);
  g_test_add_func ("/ui/markdown/blocks", test_blocks);
  g_test_add_func ("/ui/markdown/hostile", test_hostile);
  ui_add ("/ui/markdown/pieces-are-as-the-whole", NULL, test_pieces, NULL);
  ui_add ("/ui/markdown/tables", NULL, test_table, NULL);
  return ui_run ();
}
