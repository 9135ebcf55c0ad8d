/* chat_settings.c: presets are only sets of values; values that match none are "My own". The first is what the model's makers advise, else the engine's own;
 * a chat keeps it as the engine's own, so that with another model it is that one's. */
#include "app/ui/chat_settings.h"

#include <math.h>

enum { TEMPERATURE, TOP_K, TOP_P, MIN_P, REPEAT_PENALTY, N_VALUES };
#define N_PRESETS 4

enum { RECOMMENDED };

static const double presets[N_PRESETS][N_VALUES] = {
  [RECOMMENDED] = { 0 }, /* the model's */
  { 0.2, 20, 0.90, 0.10, 1.0 },
  { 1.1, 100, 0.98, 0.03, 1.05 },
  { 0.0, 0, 1.00, 0.00, 1.0 },
};

struct _ValiseChatSettings {
  AdwPreferencesWindow parent;
  GtkTextView *system_view;
  AdwComboRow *preset_row;
  GtkSpinButton *temperature_spin, *top_k_spin, *top_p_spin, *min_p_spin, *repeat_penalty_spin, *seed_spin;
  ValiseWindow *window; /* the parent window: lives longer */
  ValiseChat *chat;
  double advised[N_VALUES];
  gboolean setting;
};

G_DEFINE_TYPE (ValiseChatSettings, valise_chat_settings, ADW_TYPE_PREFERENCES_WINDOW)

static GtkSpinButton *spin (ValiseChatSettings *self, guint value)
{
  GtkSpinButton *spins[N_VALUES] = { self->temperature_spin, self->top_k_spin, self->top_p_spin, self->min_p_spin,
                                     self->repeat_penalty_spin };
  return spins[value];
}

static const double *preset_values (ValiseChatSettings *self, guint preset)
{
  return preset == RECOMMENDED ? self->advised : presets[preset];
}

static void get_values (const EngSamplerOptions *o, double *values)
{
  values[TEMPERATURE] = o->temperature;
  values[TOP_K] = o->top_k;
  values[TOP_P] = o->top_p;
  values[MIN_P] = o->min_p;
  values[REPEAT_PENALTY] = o->repeat_penalty;
}

static gboolean shows (ValiseChatSettings *self, const double *values)
{
  for (guint i = 0; i < N_VALUES; i++)
    if (fabs (gtk_spin_button_get_value (spin (self, i)) - values[i]) >= 5e-3)
      return FALSE;
  return TRUE;
}

static void on_preset (ValiseChatSettings *self)
{
  guint preset = adw_combo_row_get_selected (self->preset_row);
  if (self->setting || preset >= N_PRESETS)
    return;
  self->setting = TRUE;
  for (guint i = 0; i < N_VALUES; i++)
    gtk_spin_button_set_value (spin (self, i), preset_values (self, preset)[i]);
  self->setting = FALSE;
}

static void on_value (ValiseChatSettings *self)
{
  if (self->setting)
    return;
  guint match = N_PRESETS;
  for (guint preset = N_PRESETS; preset-- > 0;)
    if (shows (self, preset_values (self, preset)))
      match = preset;
  self->setting = TRUE;
  adw_combo_row_set_selected (self->preset_row, match);
  self->setting = FALSE;
}

static gboolean close_request (GtkWindow *window)
{
  ValiseChatSettings *self = VALISE_CHAT_SETTINGS (window);
  g_autoptr (GError) error = NULL;
  GtkTextIter start, end;
  GtkTextBuffer *buffer = gtk_text_view_get_buffer (self->system_view);
  gtk_text_buffer_get_bounds (buffer, &start, &end);
  /* The chat may have gone on meanwhile: only what this dialog is about is changed. */
  ValiseLibrary *library = valise_application_get_library (valise_app ());
  g_autoptr (ValiseChat) chat = valise_library_get_chat (library, self->chat->id, &error);
  if (chat) {
    g_free (chat->system_prompt);
    chat->system_prompt = g_strstrip (gtk_text_buffer_get_text (buffer, &start, &end, FALSE));
    if (shows (self, self->advised)) {
      chat->sampling = (EngSamplerOptions) ENG_SAMPLER_DEFAULTS;
    } else {
      chat->sampling.temperature = (float) gtk_spin_button_get_value (self->temperature_spin);
      chat->sampling.top_k = gtk_spin_button_get_value_as_int (self->top_k_spin);
      chat->sampling.top_p = (float) gtk_spin_button_get_value (self->top_p_spin);
      chat->sampling.min_p = (float) gtk_spin_button_get_value (self->min_p_spin);
      chat->sampling.repeat_penalty = (float) gtk_spin_button_get_value (self->repeat_penalty_spin);
    }
    chat->sampling.seed = (guint64) gtk_spin_button_get_value (self->seed_spin);
  }
  if (!chat || !valise_library_update_chat (library, chat, &error))
    valise_window_say (self->window, error->message);
  return GTK_WINDOW_CLASS (valise_chat_settings_parent_class)->close_request (window);
}

static void finalize (GObject *object)
{
  g_clear_pointer (&VALISE_CHAT_SETTINGS (object)->chat, valise_chat_free);
  G_OBJECT_CLASS (valise_chat_settings_parent_class)->finalize (object);
}

static void valise_chat_settings_class_init (ValiseChatSettingsClass *klass)
{
  GtkWidgetClass *widget_class = GTK_WIDGET_CLASS (klass);
  G_OBJECT_CLASS (klass)->finalize = finalize;
  GTK_WINDOW_CLASS (klass)->close_request = close_request;
  gtk_widget_class_set_template_from_resource (widget_class, VALISE_RESOURCES "ui/chat_settings.ui");
  gtk_widget_class_bind_template_child (widget_class, ValiseChatSettings, system_view);
  gtk_widget_class_bind_template_child (widget_class, ValiseChatSettings, preset_row);
  gtk_widget_class_bind_template_child (widget_class, ValiseChatSettings, temperature_spin);
  gtk_widget_class_bind_template_child (widget_class, ValiseChatSettings, top_k_spin);
  gtk_widget_class_bind_template_child (widget_class, ValiseChatSettings, top_p_spin);
  gtk_widget_class_bind_template_child (widget_class, ValiseChatSettings, min_p_spin);
  gtk_widget_class_bind_template_child (widget_class, ValiseChatSettings, repeat_penalty_spin);
  gtk_widget_class_bind_template_child (widget_class, ValiseChatSettings, seed_spin);
  gtk_widget_class_bind_template_callback (widget_class, on_preset);
  gtk_widget_class_bind_template_callback (widget_class, on_value);
}

static void valise_chat_settings_init (ValiseChatSettings *self)
{
  self->setting = TRUE;
  gtk_widget_init_template (GTK_WIDGET (self));
}

ValiseChatSettings *valise_chat_settings_new (ValiseWindow *window, const ValiseChat *chat)
{
  ValiseChatSettings *self = g_object_new (VALISE_TYPE_CHAT_SETTINGS, "transient-for", window, "destroy-with-parent", TRUE, NULL);
  const EngSamplerOptions own = ENG_SAMPLER_DEFAULTS, advice = valise_runner_get_advice (valise_application_get_runner (valise_app ()));
  double values[N_VALUES], unchanged[N_VALUES];
  get_values (&advice, self->advised);
  get_values (&chat->sampling, values);
  get_values (&own, unchanged);
  gboolean same = TRUE;
  for (guint i = 0; i < N_VALUES; i++)
    same = same && fabs (values[i] - unchanged[i]) < 1e-4;
  self->window = window;
  self->chat = valise_chat_copy (chat);
  gtk_text_buffer_set_text (gtk_text_view_get_buffer (self->system_view), chat->system_prompt, -1);
  for (guint i = 0; i < N_VALUES; i++)
    gtk_spin_button_set_value (spin (self, i), same ? self->advised[i] : values[i]);
  gtk_spin_button_set_value (self->seed_spin, (double) chat->sampling.seed);
  self->setting = FALSE;
  on_value (self);
  return self;
}
