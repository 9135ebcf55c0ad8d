/* chat_sidebar.c: follows the chats of the library; the selection stays with the chat. */
#include "app/ui/chat_sidebar.h"

#include <glib/gi18n.h>

#include "app/ui/application.h"

struct _ValiseChatSidebar {
  AdwBin parent;
  GtkToggleButton *search_toggle;
  GtkSearchBar *search_bar;
  GtkSearchEntry *search_entry;
  GtkStack *stack;
  GtkListBox *list;
  GtkSpinner *jobs_spinner;
  gint64 selected;
  gboolean folded;
};

enum { PROP_FOLDED = 1, N_PROPS };
static GParamSpec *properties[N_PROPS];

G_DEFINE_TYPE (ValiseChatSidebar, valise_chat_sidebar, ADW_TYPE_BIN)

static ValiseChat *row_chat (GtkListBoxRow *row)
{
  return g_object_get_data (G_OBJECT (row), "chat");
}

/* The day a chat belongs to, in words. */
static char *group_name (const ValiseChat *chat)
{
  if (chat->pinned)
    return g_strdup (C_("group of chats", "Pinned"));
  g_autoptr (GDateTime) now = g_date_time_new_now_local ();
  g_autoptr (GDateTime) then = g_date_time_new_from_unix_local (chat->updated_us / G_USEC_PER_SEC);
  GDate today, day;
  g_date_clear (&today, 1);
  g_date_clear (&day, 1);
  g_date_set_dmy (&today, (GDateDay) g_date_time_get_day_of_month (now), g_date_time_get_month (now), (GDateYear) g_date_time_get_year (now));
  g_date_set_dmy (&day, (GDateDay) g_date_time_get_day_of_month (then), g_date_time_get_month (then),
                  (GDateYear) g_date_time_get_year (then));
  int days = g_date_days_between (&day, &today);
  if (days <= 0)
    return g_strdup (C_("group of chats", "Today"));
  if (days == 1)
    return g_strdup (C_("group of chats", "Yesterday"));
  if (days < 7)
    return g_strdup (C_("group of chats", "Last seven days"));
  /* Translators: a month and a year, for g_date_time_format. */
  return g_date_time_format (then, C_("group of chats", "%B %Y"));
}

static void set_header (GtkListBoxRow *row, GtkListBoxRow *before, gpointer data)
{
  g_autofree char *name = group_name (row_chat (row)), *previous = before ? group_name (row_chat (before)) : NULL;
  if (g_strcmp0 (name, previous) == 0) {
    gtk_list_box_row_set_header (row, NULL);
    return;
  }
  GtkWidget *label = gtk_label_new (name);
  gtk_label_set_xalign (GTK_LABEL (label), 0);
  gtk_widget_add_css_class (label, "caption-heading");
  gtk_widget_add_css_class (label, "dim-label");
  gtk_widget_add_css_class (label, "group-header");
  gtk_list_box_row_set_header (row, label);
}

static void add_item (GMenu *menu, const char *label, const char *action, gint64 id)
{
  g_autoptr (GMenuItem) item = g_menu_item_new (label, NULL);
  g_menu_item_set_action_and_target_value (item, action, g_variant_new_int64 (id));
  g_menu_append_item (menu, item);
}

static GMenuModel *row_menu (const ValiseChat *chat)
{
  GMenu *menu = g_menu_new ();
  g_autoptr (GMenu) first = g_menu_new (), last = g_menu_new ();
  add_item (first, chat->pinned ? C_("chat menu", "_Unpin") : C_("chat menu", "_Pin"), "win.pin-chat", chat->id);
  add_item (first, C_("chat menu", "_Rename…"), "win.rename-chat", chat->id);
  add_item (first, C_("chat menu", "_Export…"), "win.export-chat", chat->id);
  add_item (last, C_("chat menu", "_Delete"), "win.delete-chat", chat->id);
  g_menu_append_section (menu, NULL, G_MENU_MODEL (first));
  g_menu_append_section (menu, NULL, G_MENU_MODEL (last));
  return G_MENU_MODEL (menu);
}

static void on_secondary_click (GtkGestureClick *gesture, int n, double x, double y, GtkMenuButton *button)
{
  gtk_menu_button_popup (button);
}

static GtkWidget *make_row (const ValiseChat *chat)
{
  GtkWidget *row = gtk_list_box_row_new (), *box = gtk_box_new (GTK_ORIENTATION_HORIZONTAL, 4);
  const char *title = *chat->title ? chat->title : C_("chat without a title", "New chat");
  GtkWidget *label = gtk_label_new (title), *button = gtk_menu_button_new ();
  gtk_label_set_xalign (GTK_LABEL (label), 0);
  gtk_label_set_ellipsize (GTK_LABEL (label), PANGO_ELLIPSIZE_END);
  /* The list is as wide as its place, whatever the chats are called. */
  gtk_label_set_max_width_chars (GTK_LABEL (label), 1);
  gtk_widget_set_hexpand (label, TRUE);
  gtk_widget_set_tooltip_text (label, title);
  gtk_menu_button_set_icon_name (GTK_MENU_BUTTON (button), "view-more-symbolic");
  g_autoptr (GMenuModel) menu = row_menu (chat);
  gtk_menu_button_set_menu_model (GTK_MENU_BUTTON (button), menu);
  gtk_widget_set_tooltip_text (button, C_("sidebar", "This chat"));
  gtk_accessible_update_property (GTK_ACCESSIBLE (button), GTK_ACCESSIBLE_PROPERTY_LABEL, C_("sidebar", "This chat"), -1);
  gtk_widget_add_css_class (button, "flat");
  gtk_widget_add_css_class (button, "row-menu");
  gtk_widget_set_valign (button, GTK_ALIGN_CENTER);
  gtk_box_append (GTK_BOX (box), label);
  gtk_box_append (GTK_BOX (box), button);
  gtk_list_box_row_set_child (GTK_LIST_BOX_ROW (row), box);
  GtkGesture *click = gtk_gesture_click_new ();
  gtk_gesture_single_set_button (GTK_GESTURE_SINGLE (click), GDK_BUTTON_SECONDARY);
  g_signal_connect (click, "pressed", G_CALLBACK (on_secondary_click), button);
  gtk_widget_add_controller (row, GTK_EVENT_CONTROLLER (click));
  gtk_accessible_update_property (GTK_ACCESSIBLE (row), GTK_ACCESSIBLE_PROPERTY_LABEL, title, -1);
  g_object_set_data_full (G_OBJECT (row), "chat", valise_chat_copy (chat), (GDestroyNotify) valise_chat_free);
  return row;
}

/* A row says a chat's title and whether it is pinned, through its menu. */
static gboolean says (GtkListBoxRow *row, const ValiseChat *chat)
{
  return g_str_equal (row_chat (row)->title, chat->title) && row_chat (row)->pinned == chat->pinned;
}

/* Rows of chats that stay are kept: with many chats, making all of them anew for each question would be felt. */
static void show (ValiseChatSidebar *self, GPtrArray *chats)
{
  g_autoptr (GHashTable) kept = g_hash_table_new (g_int64_hash, g_int64_equal);
  g_autoptr (GPtrArray) gone = g_ptr_array_new ();
  for (guint i = 0; i < chats->len; i++)
    g_hash_table_insert (kept, &((ValiseChat *) g_ptr_array_index (chats, i))->id, NULL);
  GtkListBoxRow *row;
  for (int i = 0; (row = gtk_list_box_get_row_at_index (self->list, i)); i++)
    if (g_hash_table_contains (kept, &row_chat (row)->id))
      g_hash_table_insert (kept, &row_chat (row)->id, row);
    else
      g_ptr_array_add (gone, row);
  for (guint i = 0; i < gone->len; i++)
    gtk_list_box_remove (self->list, g_ptr_array_index (gone, i));
  for (guint i = 0; i < chats->len; i++) {
    const ValiseChat *chat = g_ptr_array_index (chats, i);
    row = g_hash_table_lookup (kept, &chat->id);
    gboolean same = row && says (row, chat);
    if (!same || gtk_list_box_row_get_index (row) != (int) i) {
      GtkWidget *widget = g_object_ref_sink (same ? GTK_WIDGET (row) : make_row (chat));
      if (row)
        gtk_list_box_remove (self->list, GTK_WIDGET (row));
      gtk_list_box_insert (self->list, widget, (int) i);
      row = GTK_LIST_BOX_ROW (widget);
      g_object_unref (widget);
    }
    g_object_set_data_full (G_OBJECT (row), "chat", valise_chat_copy (chat), (GDestroyNotify) valise_chat_free);
  }
  gtk_list_box_invalidate_headers (self->list);
}

static void refresh (ValiseChatSidebar *self)
{
  g_autoptr (GError) error = NULL;
  const char *search = gtk_editable_get_text (GTK_EDITABLE (self->search_entry));
  g_autoptr (GPtrArray) chats = valise_library_list_chats (valise_application_get_library (valise_app ()), *search ? search : NULL, &error);
  if (!chats) {
    g_warning ("the chats cannot be listed: %s", error->message);
    return;
  }
  show (self, chats);
  gtk_stack_set_visible_child_name (self->stack, chats->len ? "list" : *search ? "not-found" : "empty");
  valise_chat_sidebar_select (self, self->selected);
}

void valise_chat_sidebar_select (ValiseChatSidebar *self, gint64 chat_id)
{
  self->selected = chat_id;
  GtkListBoxRow *row;
  for (int i = 0; (row = gtk_list_box_get_row_at_index (self->list, i)); i++)
    if (row_chat (row)->id == chat_id) {
      gtk_list_box_select_row (self->list, row);
      return;
    }
  gtk_list_box_unselect_all (self->list);
}

void valise_chat_sidebar_search (ValiseChatSidebar *self)
{
  gtk_search_bar_set_search_mode (self->search_bar, TRUE);
  gtk_widget_grab_focus (GTK_WIDGET (self->search_entry));
}

static void on_row_activated (GtkListBox *list, GtkListBoxRow *row, ValiseChatSidebar *self)
{
  gtk_widget_activate_action (GTK_WIDGET (self), "win.show-chat", "x", row_chat (row)->id);
}

static void on_jobs_changed (ValiseChatSidebar *self)
{
  GListModel *jobs = valise_application_get_jobs (valise_app ());
  gboolean running = FALSE;
  for (guint i = 0; i < g_list_model_get_n_items (jobs); i++) {
    g_autoptr (ValiseJob) job = g_list_model_get_item (jobs, i);
    running |= valise_job_get_state (job) == VALISE_JOB_RUNNING;
  }
  gtk_spinner_set_spinning (self->jobs_spinner, running);
}

static void get_property (GObject *object, guint id, GValue *value, GParamSpec *pspec)
{
  if (id == PROP_FOLDED)
    g_value_set_boolean (value, VALISE_CHAT_SIDEBAR (object)->folded);
  else
    G_OBJECT_WARN_INVALID_PROPERTY_ID (object, id, pspec);
}

static void set_property (GObject *object, guint id, const GValue *value, GParamSpec *pspec)
{
  if (id == PROP_FOLDED)
    VALISE_CHAT_SIDEBAR (object)->folded = g_value_get_boolean (value);
  else
    G_OBJECT_WARN_INVALID_PROPERTY_ID (object, id, pspec);
}

static void valise_chat_sidebar_class_init (ValiseChatSidebarClass *klass)
{
  GObjectClass *object_class = G_OBJECT_CLASS (klass);
  GtkWidgetClass *widget_class = GTK_WIDGET_CLASS (klass);
  object_class->get_property = get_property;
  object_class->set_property = set_property;
  properties[PROP_FOLDED] = g_param_spec_boolean ("folded", NULL, NULL, FALSE, G_PARAM_READWRITE | G_PARAM_STATIC_STRINGS);
  g_object_class_install_properties (object_class, N_PROPS, properties);
  gtk_widget_class_set_template_from_resource (widget_class, VALISE_RESOURCES "ui/chat_sidebar.ui");
  gtk_widget_class_bind_template_child (widget_class, ValiseChatSidebar, search_toggle);
  gtk_widget_class_bind_template_child (widget_class, ValiseChatSidebar, search_bar);
  gtk_widget_class_bind_template_child (widget_class, ValiseChatSidebar, search_entry);
  gtk_widget_class_bind_template_child (widget_class, ValiseChatSidebar, stack);
  gtk_widget_class_bind_template_child (widget_class, ValiseChatSidebar, list);
  gtk_widget_class_bind_template_child (widget_class, ValiseChatSidebar, jobs_spinner);
  gtk_widget_class_bind_template_callback (widget_class, refresh);
  gtk_widget_class_bind_template_callback (widget_class, on_row_activated);
}

static void valise_chat_sidebar_init (ValiseChatSidebar *self)
{
  gtk_widget_init_template (GTK_WIDGET (self));
  gtk_search_bar_connect_entry (self->search_bar, GTK_EDITABLE (self->search_entry));
  gtk_list_box_set_header_func (self->list, set_header, NULL, NULL);
  g_signal_connect_object (valise_application_get_library (valise_app ()), "chats-changed", G_CALLBACK (refresh), self, G_CONNECT_SWAPPED);
  g_signal_connect_object (valise_application_get_jobs (valise_app ()), "items-changed", G_CALLBACK (on_jobs_changed), self,
                           G_CONNECT_SWAPPED);
  refresh (self);
}
