/* message_list.c: rows kept by message id; the adjustment tells whether the end is in view. */
#include "app/ui/message_list.h"

#include "app/ui/reading_column.h"
#include "app/ui/settings.h"

/* Rows made at once when a chat is opened; older ones follow while nothing else is to do. */
#define FIRST_ROWS 8
#define END_PIXELS 24

struct _ValiseMessageList {
  AdwBin parent;
  GtkScrolledWindow *scroller;
  GtkBox *box;
  GtkRevealer *end_revealer;
  GHashTable *rows;     /* id (gint64 *, in the row's message) -> row */
  GPtrArray *older;     /* messages above the first row, still without one */
  guint older_source;
  GdkFrameClock *clock; /* of the window, while realized */
  gboolean following, editable, resized;
  double from_end;      /* kept while rows appear above */
};

enum { EDIT, REGENERATE, SELECT_SIBLING, N_SIGNALS };
static guint signals[N_SIGNALS];

G_DEFINE_TYPE (ValiseMessageList, valise_message_list, ADW_TYPE_BIN)

static GtkAdjustment *adjustment (ValiseMessageList *self)
{
  return gtk_scrolled_window_get_vadjustment (self->scroller);
}

static double distance_to_end (GtkAdjustment *adj)
{
  return gtk_adjustment_get_upper (adj) - gtk_adjustment_get_page_size (adj) - gtk_adjustment_get_value (adj);
}

static void update_end_button (ValiseMessageList *self)
{
  gtk_revealer_set_reveal_child (self->end_revealer, !self->following);
  gtk_widget_set_can_target (GTK_WIDGET (self->end_revealer), !self->following);
}

static void on_scrolled (GtkAdjustment *adj, ValiseMessageList *self)
{
  self->from_end = distance_to_end (adj);
  self->following = self->from_end <= END_PIXELS;
  update_end_button (self);
}

/* The content or the window has another size. Told in the middle of the layout, when it is too late to move anything in it. */
static void on_resized (GtkAdjustment *adj, ValiseMessageList *self)
{
  self->resized = TRUE;
}

/* After the layout and before it is drawn: a move here is laid out once more in the same frame. */
static void on_layout (ValiseMessageList *self)
{
  if (!self->resized)
    return;
  self->resized = FALSE;
  GtkAdjustment *adj = adjustment (self);
  double end = gtk_adjustment_get_upper (adj) - gtk_adjustment_get_page_size (adj);
  if (self->following)
    gtk_adjustment_set_value (adj, end);
  else if (self->older)
    gtk_adjustment_set_value (adj, MAX (end - self->from_end, 0));
}

static void realize (GtkWidget *widget)
{
  ValiseMessageList *self = VALISE_MESSAGE_LIST (widget);
  GTK_WIDGET_CLASS (valise_message_list_parent_class)->realize (widget);
  self->clock = g_object_ref (gtk_widget_get_frame_clock (widget));
  g_signal_connect_object (self->clock, "layout", G_CALLBACK (on_layout), self, G_CONNECT_SWAPPED | G_CONNECT_AFTER);
}

static void unrealize (GtkWidget *widget)
{
  ValiseMessageList *self = VALISE_MESSAGE_LIST (widget);
  g_signal_handlers_disconnect_by_func (self->clock, on_layout, self);
  g_clear_object (&self->clock);
  GTK_WIDGET_CLASS (valise_message_list_parent_class)->unrealize (widget);
}

void valise_message_list_scroll_to_end (ValiseMessageList *self)
{
  GtkAdjustment *adj = adjustment (self);
  self->following = TRUE;
  gtk_adjustment_set_value (adj, gtk_adjustment_get_upper (adj) - gtk_adjustment_get_page_size (adj));
  update_end_button (self);
}

static void on_edit (ValiseMessageRow *row, ValiseMessageList *self)
{
  g_signal_emit (self, signals[EDIT], 0, valise_message_row_get_message (row)->id);
}

static void on_regenerate (ValiseMessageRow *row, ValiseMessageList *self)
{
  g_signal_emit (self, signals[REGENERATE], 0, valise_message_row_get_message (row)->id);
}

static void on_select_sibling (ValiseMessageRow *row, guint n, ValiseMessageList *self)
{
  g_signal_emit (self, signals[SELECT_SIBLING], 0, valise_message_row_get_message (row)->id, n);
}

static ValiseMessageRow *add_row (ValiseMessageList *self, const ValiseMessage *message, GtkWidget *after)
{
  GtkWidget *row = valise_message_row_new (message);
  valise_message_row_set_editable (VALISE_MESSAGE_ROW (row), self->editable);
  g_signal_connect (row, "edit", G_CALLBACK (on_edit), self);
  g_signal_connect (row, "regenerate", G_CALLBACK (on_regenerate), self);
  g_signal_connect (row, "select-sibling", G_CALLBACK (on_select_sibling), self);
  gtk_box_insert_child_after (self->box, row, after);
  gint64 *key = g_new (gint64, 1);
  *key = message->id;
  g_hash_table_insert (self->rows, key, row);
  return VALISE_MESSAGE_ROW (row);
}

static gboolean add_older (gpointer data)
{
  ValiseMessageList *self = data;
  add_row (self, g_ptr_array_index (self->older, self->older->len - 1), NULL);
  g_ptr_array_set_size (self->older, (int) self->older->len - 1);
  if (self->older->len)
    return G_SOURCE_CONTINUE;
  g_clear_pointer (&self->older, g_ptr_array_unref);
  self->older_source = 0;
  return G_SOURCE_REMOVE;
}

static void remove_rows (ValiseMessageList *self, GPtrArray *branch)
{
  g_autoptr (GHashTable) kept = g_hash_table_new (g_int64_hash, g_int64_equal);
  for (guint i = 0; i < branch->len; i++)
    g_hash_table_add (kept, &((ValiseMessage *) g_ptr_array_index (branch, i))->id);
  GHashTableIter iter;
  gpointer key, row;
  g_hash_table_iter_init (&iter, self->rows);
  while (g_hash_table_iter_next (&iter, &key, &row))
    if (!g_hash_table_contains (kept, key)) {
      gtk_box_remove (self->box, row);
      g_hash_table_iter_remove (&iter);
    }
}

void valise_message_list_set_branch (ValiseMessageList *self, GPtrArray *branch)
{
  g_clear_handle_id (&self->older_source, g_source_remove);
  g_clear_pointer (&self->older, g_ptr_array_unref);
  remove_rows (self, branch);
  gboolean fresh = g_hash_table_size (self->rows) == 0;
  guint first = fresh && branch->len > FIRST_ROWS ? branch->len - FIRST_ROWS : 0;
  GtkWidget *after = NULL;
  for (guint i = first; i < branch->len; i++) {
    const ValiseMessage *message = g_ptr_array_index (branch, i);
    ValiseMessageRow *row = valise_message_list_get_row (self, message->id);
    if (row)
      valise_message_row_set_message (row, message);
    else
      row = add_row (self, message, after);
    after = GTK_WIDGET (row);
  }
  if (fresh)
    valise_message_list_scroll_to_end (self);
  if (first) {
    self->older = g_ptr_array_new_with_free_func ((GDestroyNotify) valise_message_free);
    for (guint i = 0; i < first; i++)
      g_ptr_array_add (self->older, valise_message_copy (g_ptr_array_index (branch, i)));
    self->older_source = g_idle_add (add_older, self);
  }
}

ValiseMessageRow *valise_message_list_get_row (ValiseMessageList *self, gint64 message_id)
{
  return g_hash_table_lookup (self->rows, &message_id);
}

void valise_message_list_set_editable (ValiseMessageList *self, gboolean editable)
{
  GHashTableIter iter;
  gpointer row;
  self->editable = editable;
  g_hash_table_iter_init (&iter, self->rows);
  while (g_hash_table_iter_next (&iter, NULL, &row))
    valise_message_row_set_editable (row, editable);
}

static void dispose (GObject *object)
{
  ValiseMessageList *self = VALISE_MESSAGE_LIST (object);
  g_clear_handle_id (&self->older_source, g_source_remove);
  g_clear_pointer (&self->older, g_ptr_array_unref);
  g_clear_pointer (&self->rows, g_hash_table_unref);
  G_OBJECT_CLASS (valise_message_list_parent_class)->dispose (object);
}

static void valise_message_list_class_init (ValiseMessageListClass *klass)
{
  GtkWidgetClass *widget_class = GTK_WIDGET_CLASS (klass);
  G_OBJECT_CLASS (klass)->dispose = dispose;
  widget_class->realize = realize;
  widget_class->unrealize = unrealize;
  GType type = G_TYPE_FROM_CLASS (klass);
  signals[EDIT] = g_signal_new ("edit", type, G_SIGNAL_RUN_LAST, 0, NULL, NULL, NULL, G_TYPE_NONE, 1, G_TYPE_INT64);
  signals[REGENERATE] = g_signal_new ("regenerate", type, G_SIGNAL_RUN_LAST, 0, NULL, NULL, NULL, G_TYPE_NONE, 1, G_TYPE_INT64);
  signals[SELECT_SIBLING] = g_signal_new ("select-sibling", type, G_SIGNAL_RUN_LAST, 0, NULL, NULL, NULL, G_TYPE_NONE, 2, G_TYPE_INT64,
                                          G_TYPE_UINT);
  g_type_ensure (VALISE_TYPE_READING_COLUMN);
  gtk_widget_class_set_template_from_resource (widget_class, VALISE_RESOURCES "ui/message_list.ui");
  gtk_widget_class_bind_template_child (widget_class, ValiseMessageList, scroller);
  gtk_widget_class_bind_template_child (widget_class, ValiseMessageList, box);
  gtk_widget_class_bind_template_child (widget_class, ValiseMessageList, end_revealer);
  gtk_widget_class_bind_template_callback (widget_class, valise_message_list_scroll_to_end);
}

static void valise_message_list_init (ValiseMessageList *self)
{
  self->rows = g_hash_table_new_full (g_int64_hash, g_int64_equal, g_free, NULL);
  self->following = self->editable = TRUE;
  gtk_widget_init_template (GTK_WIDGET (self));
  g_signal_connect_object (adjustment (self), "value-changed", G_CALLBACK (on_scrolled), self, 0);
  g_signal_connect_object (adjustment (self), "changed", G_CALLBACK (on_resized), self, 0);
}
