/* code_block.c: a GtkSourceView that takes its colours from the settings and the system's light or dark style. */
#include "app/ui/code_block.h"

#include <glib/gi18n.h>
#include <gtksourceview/gtksource.h>

#include "app/ui/settings.h"

struct _ValiseCodeBlock {
  AdwBin parent;
  GtkLabel *language_label;
  GtkButton *copy_button;
  GtkSourceView *view;
  GtkSourceBuffer *buffer;
  GtkScrolledWindow *scroller;
  char *code, *language;
  guint restore_source; /* the tick on the button gives way to the copy icon again */
};

G_DEFINE_TYPE (ValiseCodeBlock, valise_code_block, ADW_TYPE_BIN)

static void update_style (ValiseCodeBlock *self)
{
  g_autofree char *chosen = g_settings_get_string (valise_settings (), "code-style");
  GtkSourceStyleSchemeManager *schemes = gtk_source_style_scheme_manager_get_default ();
  GtkSourceStyleScheme *scheme = *chosen ? gtk_source_style_scheme_manager_get_scheme (schemes, chosen) : NULL;
  if (!scheme) {
    gboolean dark = adw_style_manager_get_dark (adw_style_manager_get_default ());
    scheme = gtk_source_style_scheme_manager_get_scheme (schemes, dark ? "Adwaita-dark" : "Adwaita");
  }
  gtk_source_buffer_set_style_scheme (self->buffer, scheme);
}

static void update_wrap (ValiseCodeBlock *self)
{
  gboolean wrap = g_settings_get_boolean (valise_settings (), "code-wrap");
  gtk_text_view_set_wrap_mode (GTK_TEXT_VIEW (self->view), wrap ? GTK_WRAP_WORD_CHAR : GTK_WRAP_NONE);
  gtk_scrolled_window_set_policy (self->scroller, wrap ? GTK_POLICY_NEVER : GTK_POLICY_AUTOMATIC, GTK_POLICY_NEVER);
}

/* Answers name languages as people do; GtkSourceView has ids of its own. */
static GtkSourceLanguage *find_language (const char *name)
{
  static const struct { const char *name, *id; } aliases[] = {
    { "py", "python3" }, { "python", "python3" }, { "js", "js" }, { "javascript", "js" }, { "ts", "typescript" }, { "c++", "cpp" },
    { "bash", "sh" }, { "shell", "sh" }, { "zsh", "sh" }, { "console", "sh" }, { "yml", "yaml" }, { "rs", "rust" }, { "rb", "ruby" },
    { "golang", "go" }, { "md", "markdown" }, { "c#", "c-sharp" }, { "cs", "c-sharp" }, { "make", "makefile" }, { "tex", "latex" },
    { "kt", "kotlin" }, { "hs", "haskell" }, { "ps1", "powershell" }, { "patch", "diff" }, { "docker", "dockerfile" } };
  if (!*name)
    return NULL;
  GtkSourceLanguageManager *languages = gtk_source_language_manager_get_default ();
  g_autofree char *lower = g_ascii_strdown (name, -1);
  for (gsize i = 0; i < G_N_ELEMENTS (aliases); i++)
    if (g_str_equal (lower, aliases[i].name))
      return gtk_source_language_manager_get_language (languages, aliases[i].id);
  GtkSourceLanguage *language = gtk_source_language_manager_get_language (languages, lower);
  if (language)
    return language;
  g_autofree char *file_name = g_strconcat ("x.", lower, NULL);
  return gtk_source_language_manager_guess_language (languages, file_name, NULL);
}

static void set_language (ValiseCodeBlock *self, const char *name)
{
  if (g_strcmp0 (self->language, name) == 0)
    return;
  g_free (self->language);
  self->language = g_strdup (name);
  GtkSourceLanguage *language = find_language (name);
  gtk_source_buffer_set_language (self->buffer, language);
  gtk_label_set_text (self->language_label, language ? gtk_source_language_get_name (language)
                                                     : *name ? name : C_("code without a named language", "Text"));
}

void valise_code_block_set_code (ValiseCodeBlock *self, const char *code, const char *language)
{
  set_language (self, language ? language : "");
  GtkTextBuffer *buffer = GTK_TEXT_BUFFER (self->buffer);
  if (self->code && g_str_has_prefix (code, self->code)) {
    GtkTextIter end;
    gtk_text_buffer_get_end_iter (buffer, &end);
    if (code[strlen (self->code)])
      gtk_text_buffer_insert (buffer, &end, code + strlen (self->code), -1);
  } else {
    gtk_text_buffer_set_text (buffer, code, -1);
  }
  g_free (self->code);
  self->code = g_strdup (code);
}

static gboolean restore_copy_icon (gpointer data)
{
  ValiseCodeBlock *self = data;
  self->restore_source = 0;
  gtk_button_set_icon_name (self->copy_button, "edit-copy-symbolic");
  return G_SOURCE_REMOVE;
}

static void on_copy_clicked (ValiseCodeBlock *self)
{
  gdk_clipboard_set_text (gtk_widget_get_clipboard (GTK_WIDGET (self)), self->code ? self->code : "");
  gtk_button_set_icon_name (self->copy_button, "object-select-symbolic");
  g_clear_handle_id (&self->restore_source, g_source_remove);
  self->restore_source = g_timeout_add (1500, restore_copy_icon, self);
}

static void valise_code_block_dispose (GObject *object)
{
  ValiseCodeBlock *self = VALISE_CODE_BLOCK (object);
  g_clear_handle_id (&self->restore_source, g_source_remove);
  G_OBJECT_CLASS (valise_code_block_parent_class)->dispose (object);
}

static void valise_code_block_finalize (GObject *object)
{
  ValiseCodeBlock *self = VALISE_CODE_BLOCK (object);
  g_free (self->code);
  g_free (self->language);
  G_OBJECT_CLASS (valise_code_block_parent_class)->finalize (object);
}

static void valise_code_block_class_init (ValiseCodeBlockClass *klass)
{
  GtkWidgetClass *widget_class = GTK_WIDGET_CLASS (klass);
  G_OBJECT_CLASS (klass)->dispose = valise_code_block_dispose;
  G_OBJECT_CLASS (klass)->finalize = valise_code_block_finalize;
  g_type_ensure (GTK_SOURCE_TYPE_VIEW);
  g_type_ensure (GTK_SOURCE_TYPE_BUFFER);
  gtk_widget_class_set_template_from_resource (widget_class, VALISE_RESOURCES "ui/code_block.ui");
  gtk_widget_class_bind_template_child (widget_class, ValiseCodeBlock, language_label);
  gtk_widget_class_bind_template_child (widget_class, ValiseCodeBlock, copy_button);
  gtk_widget_class_bind_template_child (widget_class, ValiseCodeBlock, view);
  gtk_widget_class_bind_template_child (widget_class, ValiseCodeBlock, buffer);
  gtk_widget_class_bind_template_child (widget_class, ValiseCodeBlock, scroller);
  gtk_widget_class_bind_template_callback (widget_class, on_copy_clicked);
}

static void valise_code_block_init (ValiseCodeBlock *self)
{
  gtk_widget_init_template (GTK_WIDGET (self));
  g_signal_connect_object (adw_style_manager_get_default (), "notify::dark", G_CALLBACK (update_style), self, G_CONNECT_SWAPPED);
  g_signal_connect_object (valise_settings (), "changed::code-style", G_CALLBACK (update_style), self, G_CONNECT_SWAPPED);
  g_signal_connect_object (valise_settings (), "changed::code-wrap", G_CALLBACK (update_wrap), self, G_CONNECT_SWAPPED);
  update_style (self);
  update_wrap (self);
}

GtkWidget *valise_code_block_new (void)
{
  return g_object_new (VALISE_TYPE_CODE_BLOCK, NULL);
}
