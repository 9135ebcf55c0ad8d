/* window.c: moves between the places, takes dropped files, remembers its size. */
#include "app/ui/window.h"

#include <glib/gi18n.h>

#include "app/ui/chat_sidebar.h"
#include "app/ui/models_page.h"

struct _ValiseWindow {
  AdwApplicationWindow parent;
  AdwToastOverlay *toasts;
  AdwLeaflet *leaflet;
  GtkStack *places;
  ValiseChatSidebar *sidebar;
  ValiseChatPage *chat_page;
  ValiseModelsPage *models_page;
};

G_DEFINE_TYPE (ValiseWindow, valise_window, ADW_TYPE_APPLICATION_WINDOW)

ValiseChatPage *valise_window_get_chat_page (ValiseWindow *self)
{
  return self->chat_page;
}

static void show_place (ValiseWindow *self, const char *name)
{
  gtk_stack_set_visible_child_name (self->places, name);
  adw_leaflet_set_visible_child_name (self->leaflet, "content");
}

static void on_chat_id (ValiseWindow *self)
{
  valise_chat_sidebar_select (self->sidebar, valise_chat_page_get_chat_id (self->chat_page));
}

void valise_window_show_chat (ValiseWindow *self, gint64 chat_id)
{
  if (chat_id != valise_chat_page_get_chat_id (self->chat_page))
    valise_chat_page_open (self->chat_page, chat_id);
  show_place (self, "chat");
}

void valise_window_new_chat (ValiseWindow *self, ValiseModel *model)
{
  show_place (self, "chat");
  valise_chat_page_new_chat (self->chat_page, model);
}

void valise_window_show_models (ValiseWindow *self)
{
  show_place (self, "models");
}

void valise_window_show_sidebar (ValiseWindow *self)
{
  /* Beside the chats there is always one of them; where it is narrow, the list itself is the way back. */
  gtk_stack_set_visible_child_name (self->places, "chat");
  if (adw_leaflet_get_folded (self->leaflet))
    adw_leaflet_set_visible_child_name (self->leaflet, "sidebar");
}

void valise_window_search (ValiseWindow *self)
{
  adw_leaflet_set_visible_child_name (self->leaflet, "sidebar");
  valise_chat_sidebar_search (self->sidebar);
}

void valise_window_add_toast (ValiseWindow *self, AdwToast *toast)
{
  adw_toast_overlay_add_toast (self->toasts, toast);
}

void valise_window_say (ValiseWindow *self, const char *sentence)
{
  g_autofree char *escaped = g_markup_escape_text (sentence, -1);
  valise_window_add_toast (self, adw_toast_new (escaped));
}

static void on_job_ended (ValiseWindow *self, ValiseJob *job)
{
  ValiseModel *model = valise_job_get_model (job);
  if (valise_job_get_state (job) == VALISE_JOB_FAILED) {
    valise_window_say (self, valise_job_get_error (job)->message);
    return;
  }
  if (valise_job_get_state (job) != VALISE_JOB_DONE || valise_job_get_kind (job) == VALISE_JOB_ANALYSE || !model)
    return;
  gboolean fit = valise_job_get_kind (job) == VALISE_JOB_FIT;
  g_autofree char *name = g_markup_escape_text (valise_model_get_name (model), -1);
  g_autofree char *said = g_strdup_printf (fit ? C_("toast", "%s is ready") : C_("toast", "%s was added"), name);
  AdwToast *toast = adw_toast_new (said);
  adw_toast_set_button_label (toast, fit ? C_("toast", "Chat") : C_("toast", "Fit to my RAM"));
  adw_toast_set_action_name (toast, fit ? "win.chat-with-model" : "win.fit-model");
  adw_toast_set_action_target (toast, "x", valise_model_get_id (model));
  valise_window_add_toast (self, toast);
}

static gboolean on_drop (GtkDropTarget *target, const GValue *value, double x, double y, ValiseWindow *self)
{
  GSList *files = g_value_get_boxed (value);
  for (GSList *link = files; link; link = link->next)
    valise_application_import (valise_app (), link->data);
  valise_window_show_models (self);
  return files != NULL;
}

static gboolean close_request (GtkWindow *window)
{
  GSettings *settings = valise_settings ();
  int width, height;
  gboolean maximized = gtk_window_is_maximized (window);
  gtk_window_get_default_size (window, &width, &height);
  g_settings_set_boolean (settings, "window-maximized", maximized);
  if (!maximized) {
    g_settings_set_int (settings, "window-width", MAX (width, 360));
    g_settings_set_int (settings, "window-height", MAX (height, 294));
  }
  valise_conversation_stop (valise_application_get_conversation (valise_app ()));
  return GTK_WINDOW_CLASS (valise_window_parent_class)->close_request (window);
}

static void valise_window_class_init (ValiseWindowClass *klass)
{
  GtkWidgetClass *widget_class = GTK_WIDGET_CLASS (klass);
  GTK_WINDOW_CLASS (klass)->close_request = close_request;
  g_type_ensure (VALISE_TYPE_CHAT_SIDEBAR);
  g_type_ensure (VALISE_TYPE_CHAT_PAGE);
  g_type_ensure (VALISE_TYPE_MODELS_PAGE);
  gtk_widget_class_set_template_from_resource (widget_class, VALISE_RESOURCES "ui/window.ui");
  gtk_widget_class_bind_template_child (widget_class, ValiseWindow, toasts);
  gtk_widget_class_bind_template_child (widget_class, ValiseWindow, leaflet);
  gtk_widget_class_bind_template_child (widget_class, ValiseWindow, places);
  gtk_widget_class_bind_template_child (widget_class, ValiseWindow, sidebar);
  gtk_widget_class_bind_template_child (widget_class, ValiseWindow, chat_page);
  gtk_widget_class_bind_template_child (widget_class, ValiseWindow, models_page);
  gtk_widget_class_bind_template_callback (widget_class, on_chat_id);
}

static void valise_window_init (ValiseWindow *self)
{
  gtk_widget_init_template (GTK_WIDGET (self));
  valise_window_add_actions (self);
  GtkDropTarget *drop = gtk_drop_target_new (GDK_TYPE_FILE_LIST, GDK_ACTION_COPY);
  g_signal_connect (drop, "drop", G_CALLBACK (on_drop), self);
  gtk_widget_add_controller (GTK_WIDGET (self), GTK_EVENT_CONTROLLER (drop));
  g_signal_connect_object (valise_app (), "job-ended", G_CALLBACK (on_job_ended), self, G_CONNECT_SWAPPED);
}

ValiseWindow *valise_window_new (ValiseApplication *application)
{
  GSettings *settings = valise_settings ();
  ValiseWindow *self = g_object_new (VALISE_TYPE_WINDOW, "application", application, "icon-name", VALISE_APP_ID, NULL);
  gtk_window_set_default_size (GTK_WINDOW (self), g_settings_get_int (settings, "window-width"), g_settings_get_int (settings, "window-height"));
  if (g_settings_get_boolean (settings, "window-maximized"))
    gtk_window_maximize (GTK_WINDOW (self));
  valise_chat_page_new_chat (self->chat_page, NULL);
  adw_leaflet_set_visible_child_name (self->leaflet, "content");
  return self;
}
