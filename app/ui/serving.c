/* serving.c: follows the settings and the runner. While another model is being opened nothing is served, so that no two are in memory. */
#include "app/ui/serving.h"

#include <glib/gi18n.h>

#include "app/ui/settings.h"

enum { PARALLEL = 4 };

struct _ValiseServing {
  GObject parent;
  ValiseRunner *runner;
  ValiseHost *host;
  char *served; /* what is served and how, to tell whether that has changed; NULL: nothing */
};

enum { CHANGED, N_SIGNALS };
static guint signals[N_SIGNALS];

G_DEFINE_TYPE (ValiseServing, valise_serving, G_TYPE_OBJECT)

static EngModel *open_model (ValiseServing *self, guint *context, int *kv_bits)
{
  ValiseRunnerState state = valise_runner_get_state (self->runner);
  gboolean on = g_settings_get_boolean (valise_settings (), "serve");
  return on && (state == VALISE_RUNNER_READY || state == VALISE_RUNNER_GENERATING) ? valise_runner_ref_engine (self->runner, context, kv_bits) : NULL;
}

static void update (ValiseServing *self)
{
  GSettings *settings = valise_settings ();
  guint context = 0, port = g_settings_get_uint (settings, "serve-port");
  int kv_bits = 0;
  g_autofree char *token = g_settings_get_string (settings, "serve-token");
  g_autoptr (EngModel) model = open_model (self, &context, &kv_bits);
  ValiseModel *row = valise_runner_get_model (self->runner);
  g_autofree char *wanted = model && row ? g_strdup_printf ("%p %u %d %u %s", (void *) model, context, kv_bits, port, token) : NULL;
  if (g_strcmp0 (wanted, self->served) == 0)
    return;
  g_free (self->served);
  self->served = g_strdup (wanted);
  if (wanted) {
    const ValiseServeOptions options = { .name = valise_model_get_name (row), .port = port, .token = *token ? token : NULL, .context = context, .kv_bits = kv_bits, .parallel = PARALLEL };
    valise_host_start (self->host, model, g_settings_get_uint (settings, "threads"), &options);
  } else {
    valise_host_stop (self->host);
  }
  g_signal_emit (self, signals[CHANGED], 0);
}

static void tell (ValiseServing *self)
{
  g_signal_emit (self, signals[CHANGED], 0);
}

const char *valise_serving_get_url (ValiseServing *self)
{
  return valise_host_get_url (self->host);
}

char *valise_serving_describe (ValiseServing *self, gboolean *failed)
{
  ValiseModel *model = valise_runner_get_model (self->runner);
  *failed = FALSE;
  if (!g_settings_get_boolean (valise_settings (), "serve"))
    return g_strdup (C_("serving", "Editors and other programs can ask the open model, in the words of OpenAI's API"));
  if (valise_host_get_failure (self->host)) {
    *failed = TRUE;
    return g_strdup (valise_host_get_failure (self->host));
  }
  if (!self->served || !model)
    return g_strdup (C_("serving", "As soon as a model is open in a chat"));
  if (!valise_serving_get_url (self))
    return g_strdup (C_("serving", "Starting…"));
  return g_strdup_printf (C_("serving", "%s, up to %u answers at once"), valise_model_get_name (model), PARALLEL);
}

static void dispose (GObject *object)
{
  ValiseServing *self = VALISE_SERVING (object);
  g_clear_object (&self->host);
  g_clear_object (&self->runner);
  g_clear_pointer (&self->served, g_free);
  G_OBJECT_CLASS (valise_serving_parent_class)->dispose (object);
}

static void valise_serving_class_init (ValiseServingClass *klass)
{
  G_OBJECT_CLASS (klass)->dispose = dispose;
  signals[CHANGED] = g_signal_new ("changed", G_TYPE_FROM_CLASS (klass), G_SIGNAL_RUN_LAST, 0, NULL, NULL, NULL, G_TYPE_NONE, 0);
}

static void valise_serving_init (ValiseServing *self)
{
  self->host = valise_host_new ();
}

ValiseServing *valise_serving_new (ValiseRunner *runner)
{
  ValiseServing *self = g_object_new (VALISE_TYPE_SERVING, NULL);
  self->runner = g_object_ref (runner);
  g_signal_connect_object (runner, "notify::state", G_CALLBACK (update), self, G_CONNECT_SWAPPED);
  g_signal_connect_object (runner, "loaded", G_CALLBACK (update), self, G_CONNECT_SWAPPED);
  g_signal_connect_object (valise_settings (), "changed::serve", G_CALLBACK (update), self, G_CONNECT_SWAPPED);
  g_signal_connect_object (valise_settings (), "changed::serve-port", G_CALLBACK (update), self, G_CONNECT_SWAPPED);
  g_signal_connect_object (valise_settings (), "changed::serve-token", G_CALLBACK (update), self, G_CONNECT_SWAPPED);
  g_signal_connect_object (self->host, "notify", G_CALLBACK (tell), self, G_CONNECT_SWAPPED);
  update (self);
  return self;
}
