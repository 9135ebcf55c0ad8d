/* chat_model.c: the memory plan decides, before anything is loaded. */
#include "app/ui/chat_model.h"
#include "engine/checkpoint/checkpoint.h"

#include <glib/gi18n.h>

#include "engine/memory_plan.h"

#define LEAST_CONTEXT 256

typedef struct {
  ValiseApplication *application;
  ValiseModel *model;
  guint64 limit_bytes;
  guint context, threads;
  int kv_bits;
} Opening;

/* What the runner was given last, so that the same is not loaded twice. */
static struct {
  gint64 model_id;
  guint context, threads;
  int kv_bits;
} opened;

static void opening_free (gpointer data)
{
  Opening *opening = data;
  g_object_unref (opening->application);
  g_object_unref (opening->model);
  g_free (opening);
}

static guint64 total_bytes (const EngTraits *traits, guint64 weights_bytes, const EngSessionOptions *options, guint threads)
{
  EngMemoryPlan plan;
  eng_memory_plan (&plan, traits, weights_bytes, options, threads ? threads : eng_workers_default_count (), valise_program_base_bytes (TRUE));
  return plan.total_bytes;
}

static void choose_context (GTask *task, gpointer source, gpointer data, GCancellable *cancellable)
{
  Opening *opening = data;
  GError *error = NULL;
  EngTraits traits;
  EngSessionOptions options;
  guint64 bytes = valise_model_get_bytes (opening->model), needed;
  g_autoptr (EngGguf) gguf = eng_checkpoint_open (valise_model_get_path (opening->model), &error);
  if (!gguf || !eng_traits_read (&traits, gguf, &error)) {
    g_task_return_error (task, error);
    return;
  }
  /* A fit is opened as it was planned; the preferences speak for what was planned for nothing. */
  guint context = traits.n_ctx_planned ? traits.n_ctx_planned : MIN (opening->context, traits.n_ctx_train);
  if (traits.kv_bits_planned)
    opening->kv_bits = traits.kv_bits_planned;
  for (;;) {
    if (!valise_session_options (&traits, context, opening->kv_bits, &options, &error)) {
      g_task_return_error (task, error);
      return;
    }
    needed = total_bytes (&traits, bytes, &options, opening->threads);
    if (needed <= opening->limit_bytes || context <= LEAST_CONTEXT)
      break;
    context = MAX (context / 4 * 3, LEAST_CONTEXT);
  }
  if (needed > opening->limit_bytes) {
    g_autofree char *need = valise_size_format (needed), *limit = valise_size_format (opening->limit_bytes);
    g_task_return_new_error (task, VALISE_ERROR, VALISE_ERROR_TOO_SMALL,
                             _("%s needs %s of memory, and a chat may take %s: fit it to less, or raise the limit in the preferences"),
                             valise_model_get_name (opening->model), need, limit);
    return;
  }
  opening->context = context;
  g_task_return_boolean (task, TRUE);
}

static void on_context_chosen (GObject *source, GAsyncResult *result, gpointer data)
{
  g_autoptr (GTask) task = data;
  GError *error = NULL;
  Opening *opening = g_task_get_task_data (G_TASK (result));
  if (!g_task_propagate_boolean (G_TASK (result), &error)) {
    g_task_return_error (task, error);
    return;
  }
  /* Another model was chosen meanwhile: this one is not to be loaded after it. */
  if (g_task_return_error_if_cancelled (task))
    return;
  ValiseRunner *runner = valise_application_get_runner (opening->application);
  gint64 id = valise_model_get_id (opening->model);
  gboolean same = valise_runner_get_state (runner) != VALISE_RUNNER_EMPTY && opened.model_id == id
                  && opened.context == opening->context && opened.kv_bits == opening->kv_bits && opened.threads == opening->threads;
  if (!same) {
    opened.model_id = id;
    opened.context = opening->context;
    opened.kv_bits = opening->kv_bits;
    opened.threads = opening->threads;
    valise_runner_set_threads (runner, opening->threads);
    valise_runner_load (runner, opening->model, opening->context, opening->kv_bits);
  }
  g_task_return_boolean (task, TRUE);
}

void valise_chat_model_open (ValiseApplication *application, ValiseModel *model, GCancellable *cancellable, GAsyncReadyCallback callback,
                             gpointer data)
{
  GTask *task = g_task_new (application, cancellable, callback, data);
  Opening *opening = g_new0 (Opening, 1);
  opening->application = g_object_ref (application);
  opening->model = g_object_ref (model);
  opening->limit_bytes = valise_application_get_ram_limit (application);
  opening->context = g_settings_get_uint (valise_settings (), "context");
  opening->kv_bits = g_settings_get_int (valise_settings (), "kv-bits");
  opening->threads = g_settings_get_uint (valise_settings (), "threads");
  g_autoptr (GTask) chooser = g_task_new (application, cancellable, on_context_chosen, task);
  g_task_set_task_data (chooser, opening, opening_free);
  g_task_run_in_thread (chooser, choose_context);
}

gboolean valise_chat_model_open_finish (GAsyncResult *result, GError **error)
{
  return g_task_propagate_boolean (G_TASK (result), error);
}
