/* markdown_view.c: reconciles the tree of blocks with the tree of widgets: a widget is kept as long as its block's kind is the same,
 * and touched only where the block's content differs. */
#include "app/ui/markdown_view.h"

#include <string.h>

#include "app/ui/code_block.h"
#include "app/ui/markdown.h"

/* A table's cell is broken only when it is wider, and then into lines of this many characters. */
#define CELL_CHARS 36
/* A paragraph is no narrower. */
#define LEAST_CHARS 20
/* Each widget made for a block remembers the kind it was made for. */
#define KIND_KEY "valise-markdown-kind"
/* A frame at 60 Hz is 16.7 ms; drawing an answer may take a quarter of the time at most. */
#define MAX_SHARE 4

struct _ValiseMarkdownView {
  GtkBox parent;
  GString *text;
  gsize settled;        /* everything before this byte is drawn for good */
  guint n_settled;      /* by so many child widgets */
  gint64 next_draw_us;
  guint draw_source;
};

G_DEFINE_TYPE (ValiseMarkdownView, valise_markdown_view, GTK_TYPE_BOX)

static void reconcile (GtkBox *box, GPtrArray *blocks, guint skip);

static GtkWidget *text_label (void)
{
  GtkWidget *label = gtk_label_new (NULL);
  gtk_label_set_wrap (GTK_LABEL (label), TRUE);
  gtk_label_set_wrap_mode (GTK_LABEL (label), PANGO_WRAP_WORD_CHAR);
  gtk_label_set_xalign (GTK_LABEL (label), 0);
  /* Its least width is asked for at every change; without this it would be found by breaking the text at every letter. */
  gtk_label_set_width_chars (GTK_LABEL (label), LEAST_CHARS);
  gtk_label_set_selectable (GTK_LABEL (label), TRUE);
  return label;
}

static void set_markup (GtkWidget *label, const char *markup)
{
  if (g_strcmp0 (gtk_label_get_label (GTK_LABEL (label)), markup) != 0)
    gtk_label_set_markup (GTK_LABEL (label), markup);
}

static GtkWidget *make_table (void)
{
  GtkWidget *scroller = gtk_scrolled_window_new ();
  gtk_scrolled_window_set_policy (GTK_SCROLLED_WINDOW (scroller), GTK_POLICY_AUTOMATIC, GTK_POLICY_NEVER);
  gtk_scrolled_window_set_propagate_natural_height (GTK_SCROLLED_WINDOW (scroller), TRUE);
  gtk_scrolled_window_set_propagate_natural_width (GTK_SCROLLED_WINDOW (scroller), TRUE);
  gtk_widget_set_halign (scroller, GTK_ALIGN_START);
  GtkWidget *grid = gtk_grid_new ();
  gtk_widget_add_css_class (grid, "markdown-table");
  gtk_scrolled_window_set_child (GTK_SCROLLED_WINDOW (scroller), grid);
  return scroller;
}

static GtkWidget *make_item (void)
{
  GtkWidget *box = gtk_box_new (GTK_ORIENTATION_HORIZONTAL, 8);
  GtkWidget *marker = gtk_label_new (NULL);
  gtk_widget_set_valign (marker, GTK_ALIGN_START);
  gtk_label_set_xalign (GTK_LABEL (marker), 1);
  gtk_label_set_width_chars (GTK_LABEL (marker), 2);
  gtk_widget_add_css_class (marker, "list-marker");
  gtk_box_append (GTK_BOX (box), marker);
  GtkWidget *content = gtk_box_new (GTK_ORIENTATION_VERTICAL, 4);
  gtk_widget_set_hexpand (content, TRUE);
  gtk_box_append (GTK_BOX (box), content);
  return box;
}

static GtkWidget *make_widget (const ValiseMarkdownBlock *block)
{
  GtkWidget *widget = NULL;
  switch (block->kind) {
  case VALISE_MARKDOWN_PARAGRAPH:
  case VALISE_MARKDOWN_HEADING:
    widget = text_label ();
    break;
  case VALISE_MARKDOWN_CODE:
    widget = valise_code_block_new ();
    break;
  case VALISE_MARKDOWN_LIST:
    widget = gtk_box_new (GTK_ORIENTATION_VERTICAL, 4);
    break;
  case VALISE_MARKDOWN_ITEM:
    widget = make_item ();
    break;
  case VALISE_MARKDOWN_QUOTE:
    widget = gtk_box_new (GTK_ORIENTATION_VERTICAL, 6);
    gtk_widget_add_css_class (widget, "quote");
    break;
  case VALISE_MARKDOWN_TABLE:
    widget = make_table ();
    break;
  case VALISE_MARKDOWN_RULE:
    widget = gtk_separator_new (GTK_ORIENTATION_HORIZONTAL);
    gtk_widget_add_css_class (widget, "rule");
    break;
  }
  g_object_set_data (G_OBJECT (widget), KIND_KEY, GUINT_TO_POINTER (block->kind + 1));
  return widget;
}

static void update_heading (GtkWidget *label, const ValiseMarkdownBlock *block)
{
  static const char *const classes[] = { "heading-1", "heading-2", "heading-3" };
  for (guint i = 0; i < G_N_ELEMENTS (classes); i++)
    gtk_widget_remove_css_class (label, classes[i]);
  gtk_widget_add_css_class (label, classes[CLAMP (block->level, 1, 3) - 1]);
  set_markup (label, block->text);
}

/* A cell that may be broken at any width would make the table as tall as its narrowest form. */
static void set_cell (GtkWidget *label, const char *markup)
{
  set_markup (label, markup);
  gboolean long_text = g_utf8_strlen (gtk_label_get_text (GTK_LABEL (label)), -1) > CELL_CHARS;
  gtk_label_set_wrap (GTK_LABEL (label), long_text);
  gtk_label_set_width_chars (GTK_LABEL (label), long_text ? CELL_CHARS : -1);
  gtk_label_set_max_width_chars (GTK_LABEL (label), long_text ? CELL_CHARS : -1);
}

static void update_table (GtkWidget *scroller, const ValiseMarkdownBlock *block)
{
  GtkWidget *child = gtk_scrolled_window_get_child (GTK_SCROLLED_WINDOW (scroller));
  GtkGrid *grid = GTK_GRID (GTK_IS_VIEWPORT (child) ? gtk_viewport_get_child (GTK_VIEWPORT (child)) : child);
  guint n_columns = MAX (block->level, 1);
  for (guint i = 0; i < block->cells->len; i++) {
    int column = (int) (i % n_columns), row = (int) (i / n_columns);
    GtkWidget *label = gtk_grid_get_child_at (grid, column, row);
    if (!label) {
      label = text_label ();
      gtk_widget_add_css_class (label, row == 0 ? "table-header" : "table-cell");
      gtk_grid_attach (grid, label, column, row, 1, 1);
    }
    char align = block->info[column];
    gtk_label_set_xalign (GTK_LABEL (label), align == 'r' ? 1.0f : align == 'c' ? 0.5f : 0.0f);
    set_cell (label, g_ptr_array_index (block->cells, i));
  }
  /* A table under way may lose columns or rows again. */
  for (guint row = 0; gtk_grid_get_child_at (grid, 0, (int) row); row++)
    for (guint column = 0;; column++) {
      GtkWidget *label = gtk_grid_get_child_at (grid, (int) column, (int) row);
      if (!label)
        break;
      gtk_widget_set_visible (label, column < n_columns && row * n_columns + column < block->cells->len);
    }
}

static void update_widget (GtkWidget *widget, const ValiseMarkdownBlock *block)
{
  switch (block->kind) {
  case VALISE_MARKDOWN_PARAGRAPH:
    set_markup (widget, block->text);
    break;
  case VALISE_MARKDOWN_HEADING:
    update_heading (widget, block);
    break;
  case VALISE_MARKDOWN_CODE:
    valise_code_block_set_code (VALISE_CODE_BLOCK (widget), block->text, block->info);
    break;
  case VALISE_MARKDOWN_LIST:
  case VALISE_MARKDOWN_QUOTE:
    reconcile (GTK_BOX (widget), block->children, 0);
    break;
  case VALISE_MARKDOWN_ITEM:
    gtk_label_set_text (GTK_LABEL (gtk_widget_get_first_child (widget)), block->text);
    reconcile (GTK_BOX (gtk_widget_get_last_child (widget)), block->children, 0);
    break;
  case VALISE_MARKDOWN_TABLE:
    update_table (widget, block);
    break;
  case VALISE_MARKDOWN_RULE:
    break;
  }
}

/* Makes the children of the box, after the first `skip`, show these blocks. */
static void reconcile (GtkBox *box, GPtrArray *blocks, guint skip)
{
  GtkWidget *previous = NULL, *child = gtk_widget_get_first_child (GTK_WIDGET (box));
  for (guint i = 0; i < skip && child; i++) {
    previous = child;
    child = gtk_widget_get_next_sibling (child);
  }
  for (guint i = 0; i < blocks->len; i++) {
    const ValiseMarkdownBlock *block = g_ptr_array_index (blocks, i);
    if (child && GPOINTER_TO_UINT (g_object_get_data (G_OBJECT (child), KIND_KEY)) != block->kind + 1u) {
      GtkWidget *old = child;
      child = gtk_widget_get_next_sibling (child);
      gtk_box_remove (box, old);
      GtkWidget *made = make_widget (block);
      gtk_box_insert_child_after (box, made, previous);
      child = made;
    } else if (!child) {
      child = make_widget (block);
      gtk_box_insert_child_after (box, child, previous);
    }
    update_widget (child, block);
    previous = child;
    child = gtk_widget_get_next_sibling (child);
  }
  while (child) {
    GtkWidget *next = gtk_widget_get_next_sibling (child);
    gtk_box_remove (box, child);
    child = next;
  }
}

/* More lines can only change the last block of a document; more letters also decide whether a line begun is one more row of the table
 * before it. */
static void settle (ValiseMarkdownView *self, GPtrArray *blocks)
{
  const char *text = self->text->str + self->settled;
  if (!blocks->len)
    return;
  guint open = blocks->len - 1;
  if (open && !strchr (text + ((ValiseMarkdownBlock *) g_ptr_array_index (blocks, open))->offset, '\n'))
    open--;
  self->settled += ((ValiseMarkdownBlock *) g_ptr_array_index (blocks, open))->offset;
  self->n_settled += open;
}

static void draw (ValiseMarkdownView *self)
{
  gint64 start_us = g_get_monotonic_time ();
  g_autoptr (GPtrArray) blocks = valise_markdown_parse (self->text->str + self->settled, self->text->len - self->settled);
  reconcile (GTK_BOX (self), blocks, self->n_settled);
  settle (self, blocks);
  gint64 now_us = g_get_monotonic_time ();
  self->next_draw_us = now_us + (now_us - start_us) * (MAX_SHARE - 1);
}

static gboolean draw_later (gpointer data)
{
  ValiseMarkdownView *self = data;
  self->draw_source = 0;
  draw (self);
  return G_SOURCE_REMOVE;
}

void valise_markdown_view_append (ValiseMarkdownView *self, const char *text)
{
  g_string_append (self->text, text);
  if (self->draw_source)
    return;
  gint64 wait_us = self->next_draw_us - g_get_monotonic_time ();
  if (wait_us <= 0)
    draw (self);
  else
    self->draw_source = g_timeout_add ((guint) (wait_us / 1000 + 1), draw_later, self);
}

void valise_markdown_view_draw_now (ValiseMarkdownView *self)
{
  if (!self->draw_source)
    return;
  g_clear_handle_id (&self->draw_source, g_source_remove);
  draw (self);
}

void valise_markdown_view_finish (ValiseMarkdownView *self)
{
  /* What a link refers to may have been named long after it, or before what is still open. */
  if (strstr (self->text->str, "]: ")) {
    g_clear_handle_id (&self->draw_source, g_source_remove);
    self->settled = self->n_settled = 0;
    draw (self);
  }
  valise_markdown_view_draw_now (self);
}

void valise_markdown_view_set_text (ValiseMarkdownView *self, const char *text)
{
  if (g_strcmp0 (self->text->str, text) == 0)
    return;
  g_clear_handle_id (&self->draw_source, g_source_remove);
  g_string_assign (self->text, text ? text : "");
  self->settled = 0;
  self->n_settled = 0;
  draw (self);
}

const char *valise_markdown_view_get_text (ValiseMarkdownView *self)
{
  return self->text->str;
}

static void valise_markdown_view_dispose (GObject *object)
{
  g_clear_handle_id (&VALISE_MARKDOWN_VIEW (object)->draw_source, g_source_remove);
  G_OBJECT_CLASS (valise_markdown_view_parent_class)->dispose (object);
}

static void valise_markdown_view_finalize (GObject *object)
{
  g_string_free (VALISE_MARKDOWN_VIEW (object)->text, TRUE);
  G_OBJECT_CLASS (valise_markdown_view_parent_class)->finalize (object);
}

static void valise_markdown_view_class_init (ValiseMarkdownViewClass *klass)
{
  G_OBJECT_CLASS (klass)->dispose = valise_markdown_view_dispose;
  G_OBJECT_CLASS (klass)->finalize = valise_markdown_view_finalize;
}

static void valise_markdown_view_init (ValiseMarkdownView *self)
{
  self->text = g_string_new (NULL);
  gtk_orientable_set_orientation (GTK_ORIENTABLE (self), GTK_ORIENTATION_VERTICAL);
  gtk_box_set_spacing (GTK_BOX (self), 10);
  gtk_widget_add_css_class (GTK_WIDGET (self), "markdown");
}

GtkWidget *valise_markdown_view_new (void)
{
  return g_object_new (VALISE_TYPE_MARKDOWN_VIEW, NULL);
}
