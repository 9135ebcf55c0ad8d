/* markdown.c: walks cmark-gfm's tree and turns it into blocks with Pango markup. Text comes from a model and is never trusted:
 * HTML is shown as it is written, images are not fetched, and links lead only to the web and to mail. */
#include "app/ui/markdown.h"

#include <cmark-gfm-core-extensions.h>
#include <string.h>

/* Deeper nesting than this is shown as plain text, so that hostile text cannot exhaust the stack or the layout. */
#define MAX_DEPTH 12

static void block_free (gpointer data)
{
  ValiseMarkdownBlock *block = data;
  g_free (block->text);
  g_free (block->info);
  g_clear_pointer (&block->children, g_ptr_array_unref);
  g_clear_pointer (&block->cells, g_ptr_array_unref);
  g_free (block);
}

static ValiseMarkdownBlock *block_new (ValiseMarkdownKind kind)
{
  ValiseMarkdownBlock *block = g_new0 (ValiseMarkdownBlock, 1);
  block->kind = kind;
  return block;
}

static gboolean is_node (cmark_node *node, const char *name)
{
  return g_str_equal (cmark_node_get_type_string (node), name);
}

static void append_escaped (GString *out, const char *text)
{
  g_autofree char *escaped = g_markup_escape_text (text ? text : "", -1);
  g_string_append (out, escaped);
}

static gboolean is_safe_link (const char *url)
{
  return url && (g_str_has_prefix (url, "https://") || g_str_has_prefix (url, "http://") || g_str_has_prefix (url, "mailto:"));
}

static void append_inlines (GString *out, cmark_node *parent, guint depth);

static void append_wrapped (GString *out, const char *open, cmark_node *node, const char *close, guint depth)
{
  g_string_append (out, open);
  append_inlines (out, node, depth + 1);
  g_string_append (out, close);
}

static void append_link (GString *out, cmark_node *node, guint depth)
{
  const char *url = cmark_node_get_url (node);
  if (!is_safe_link (url)) {
    append_inlines (out, node, depth + 1);
    return;
  }
  g_autofree char *escaped = g_markup_escape_text (url, -1);
  /* The tooltip is where the link leads, whatever the answer calls it. */
  g_string_append_printf (out, "<a href=\"%s\" title=\"%s\">", escaped, escaped);
  append_inlines (out, node, depth + 1);
  g_string_append (out, "</a>");
}

static void append_inline (GString *out, cmark_node *node, guint depth)
{
  if (depth > MAX_DEPTH * 2)
    return;
  switch ((int) cmark_node_get_type (node)) {
  case CMARK_NODE_TEXT:
    append_escaped (out, cmark_node_get_literal (node));
    return;
  case CMARK_NODE_SOFTBREAK:
    g_string_append_c (out, ' ');
    return;
  case CMARK_NODE_LINEBREAK:
    g_string_append_c (out, '\n');
    return;
  case CMARK_NODE_CODE:
    g_string_append (out, "<span font_family=\"monospace\" background=\"#88888830\">");
    append_escaped (out, cmark_node_get_literal (node));
    g_string_append (out, "</span>");
    return;
  case CMARK_NODE_HTML_INLINE:
    append_escaped (out, cmark_node_get_literal (node));
    return;
  default:
    break;
  }
  if (is_node (node, "emph"))
    append_wrapped (out, "<i>", node, "</i>", depth);
  else if (is_node (node, "strong"))
    append_wrapped (out, "<b>", node, "</b>", depth);
  else if (is_node (node, "strikethrough"))
    append_wrapped (out, "<s>", node, "</s>", depth);
  else if (is_node (node, "link") || is_node (node, "image"))
    append_link (out, node, depth);
  else if (cmark_node_get_literal (node))
    append_escaped (out, cmark_node_get_literal (node));
  else
    append_inlines (out, node, depth + 1);
}

static void append_inlines (GString *out, cmark_node *parent, guint depth)
{
  for (cmark_node *node = cmark_node_first_child (parent); node; node = cmark_node_next (node))
    append_inline (out, node, depth);
}

static char *inlines (cmark_node *parent)
{
  GString *out = g_string_new (NULL);
  append_inlines (out, parent, 0);
  return g_string_free (out, FALSE);
}

/* All the text below a node, for what is nested too deeply to lay out. */
static char *flatten (cmark_node *root)
{
  GString *out = g_string_new (NULL);
  cmark_iter *iter = cmark_iter_new (root);
  for (cmark_event_type event; (event = cmark_iter_next (iter)) != CMARK_EVENT_DONE;)
    if (event == CMARK_EVENT_ENTER && cmark_node_get_literal (cmark_iter_get_node (iter))) {
      append_escaped (out, cmark_node_get_literal (cmark_iter_get_node (iter)));
      g_string_append_c (out, ' ');
    }
  cmark_iter_free (iter);
  return g_string_free (out, FALSE);
}

static GPtrArray *convert_children (cmark_node *parent, guint depth);

static ValiseMarkdownBlock *convert_table (cmark_node *node)
{
  ValiseMarkdownBlock *block = block_new (VALISE_MARKDOWN_TABLE);
  block->level = cmark_gfm_extensions_get_table_columns (node);
  const guint8 *aligns = cmark_gfm_extensions_get_table_alignments (node);
  block->info = g_malloc0 (block->level + 1);
  for (guint i = 0; i < block->level; i++)
    block->info[i] = aligns && aligns[i] ? (char) aligns[i] : 'l';
  block->cells = g_ptr_array_new_with_free_func (g_free);
  for (cmark_node *row = cmark_node_first_child (node); row; row = cmark_node_next (row)) {
    guint n = 0;
    for (cmark_node *cell = cmark_node_first_child (row); cell && n < block->level; cell = cmark_node_next (cell), n++)
      g_ptr_array_add (block->cells, inlines (cell));
    for (; n < block->level; n++)
      g_ptr_array_add (block->cells, g_strdup (""));
  }
  return block;
}

static ValiseMarkdownBlock *convert_list (cmark_node *node, guint depth)
{
  ValiseMarkdownBlock *block = block_new (VALISE_MARKDOWN_LIST);
  gboolean ordered = cmark_node_get_list_type (node) == CMARK_ORDERED_LIST;
  int number = cmark_node_get_list_start (node);
  block->children = g_ptr_array_new_with_free_func (block_free);
  for (cmark_node *item = cmark_node_first_child (node); item; item = cmark_node_next (item)) {
    ValiseMarkdownBlock *child = block_new (VALISE_MARKDOWN_ITEM);
    if (is_node (item, "tasklist"))
      child->text = g_strdup (cmark_gfm_extensions_get_tasklist_item_checked (item) ? "☑" : "☐");
    else
      child->text = ordered ? g_strdup_printf ("%d.", number++) : g_strdup ("•");
    child->children = convert_children (item, depth + 1);
    g_ptr_array_add (block->children, child);
  }
  return block;
}

static ValiseMarkdownBlock *convert (cmark_node *node, guint depth)
{
  ValiseMarkdownBlock *block;
  if (depth > MAX_DEPTH) {
    block = block_new (VALISE_MARKDOWN_PARAGRAPH);
    block->text = flatten (node);
    return block;
  }
  switch ((int) cmark_node_get_type (node)) {
  case CMARK_NODE_HEADING:
    block = block_new (VALISE_MARKDOWN_HEADING);
    block->level = (guint) cmark_node_get_heading_level (node);
    block->text = inlines (node);
    return block;
  case CMARK_NODE_CODE_BLOCK: {
    block = block_new (VALISE_MARKDOWN_CODE);
    block->text = g_strdup (cmark_node_get_literal (node));
    g_auto (GStrv) words = g_strsplit (cmark_node_get_fence_info (node) ? cmark_node_get_fence_info (node) : "", " ", 2);
    block->info = g_strdup (words[0] ? words[0] : "");
    gsize length = strlen (block->text);
    if (length && block->text[length - 1] == '\n')
      block->text[length - 1] = '\0';
    return block;
  }
  case CMARK_NODE_LIST:
    return convert_list (node, depth);
  case CMARK_NODE_BLOCK_QUOTE:
    block = block_new (VALISE_MARKDOWN_QUOTE);
    block->children = convert_children (node, depth + 1);
    return block;
  case CMARK_NODE_THEMATIC_BREAK:
    return block_new (VALISE_MARKDOWN_RULE);
  case CMARK_NODE_HTML_BLOCK: {
    block = block_new (VALISE_MARKDOWN_PARAGRAPH);
    g_autofree char *literal = g_strchomp (g_strdup (cmark_node_get_literal (node)));
    block->text = g_markup_escape_text (literal, -1);
    return block;
  }
  default:
    if (is_node (node, "table"))
      return convert_table (node);
    block = block_new (VALISE_MARKDOWN_PARAGRAPH);
    block->text = inlines (node);
    return block;
  }
}

static GPtrArray *convert_children (cmark_node *parent, guint depth)
{
  GPtrArray *blocks = g_ptr_array_new_with_free_func (block_free);
  for (cmark_node *node = cmark_node_first_child (parent); node; node = cmark_node_next (node))
    g_ptr_array_add (blocks, convert (node, depth));
  return blocks;
}

/* cmark counts lines; the view wants bytes. */
static void set_offsets (GPtrArray *blocks, cmark_node *document, const char *text, gsize length)
{
  gsize offset = 0;
  int line = 1;
  cmark_node *node = cmark_node_first_child (document);
  for (guint i = 0; i < blocks->len && node; i++, node = cmark_node_next (node)) {
    for (int start = cmark_node_get_start_line (node); line < start; line++) {
      const char *newline = memchr (text + offset, '\n', length - offset);
      if (!newline)
        break;
      offset = (gsize) (newline - text) + 1;
    }
    ((ValiseMarkdownBlock *) g_ptr_array_index (blocks, i))->offset = offset;
  }
}

GPtrArray *valise_markdown_parse (const char *text, gsize length)
{
  static const char *const extensions[] = { "table", "strikethrough", "autolink", "tasklist" };
  cmark_gfm_core_extensions_ensure_registered ();
  cmark_parser *parser = cmark_parser_new (CMARK_OPT_DEFAULT | CMARK_OPT_VALIDATE_UTF8);
  for (gsize i = 0; i < G_N_ELEMENTS (extensions); i++) {
    cmark_syntax_extension *extension = cmark_find_syntax_extension (extensions[i]);
    if (extension)
      cmark_parser_attach_syntax_extension (parser, extension);
  }
  cmark_parser_feed (parser, text, length);
  cmark_node *document = cmark_parser_finish (parser);
  GPtrArray *blocks = convert_children (document, 0);
  set_offsets (blocks, document, text, length);
  cmark_node_free (document);
  cmark_parser_free (parser);
  return blocks;
}
