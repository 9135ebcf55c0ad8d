/* runner.c: see runner.h. The worker takes one order at a time from a queue; what it has to say travels to the main context as notes.
 * Every load has a number, and notes of an older load than the last one asked for are not listened to. */
#include "app/library/runner.h"
#include "app/library/library-private.h"

#include "engine/sampler_preset.h"

#include <math.h>
#include <string.h>

#define TEXT_MS 16

typedef enum { ORDER_LOAD, ORDER_UNLOAD, ORDER_GENERATE, ORDER_QUIT } OrderKind;

typedef struct {
  OrderKind kind;
  guint load; /* the load this order belongs to */
  ValiseModel *model;
  guint context, threads;
  int kv_bits;
  JsonArray *messages;
  EngSamplerOptions sampling;
  guint max_tokens;
  GCancellable *cancellable;
} Order;

/* Outlives the runner when its thread still works: counted, one reference each. */
typedef struct {
  gatomicrefcount references;
  GWeakRef runner;
  ValiseLibrary *library;
  GAsyncQueue *orders;
  /* The worker's own. */
  EngModel *model;
  EngWorkers *workers;
  guint threads; /* asked for when the workers were made */
  EngSession *session;
  guint loaded; /* number of the load that succeeded last, 0: none */
  /* Shared. */
  GMutex mutex;
  GString *text; /* not yet told */
  guint text_source;
  gboolean reasoning; /* the text ends within some */
  EngModel *lent; /* model, from the moment it is ready; not a reference of its own */
  int kv_bits;
  EngMemoryPlan plan;
  guint context_used, context_size;
} Shared;

struct _ValiseRunner {
  GObject parent;
  Shared *shared;
  ValiseRunnerState state;
  ValiseModel *model;
  guint context, last_load, threads;
  int kv_bits;
  guint pending; /* generations ordered and not ended */
  GPtrArray *cancellables; /* of orders that have not ended */
};

enum { PROP_STATE = 1, PROP_MODEL, N_PROPS };
enum { LOADING, LOADED, TEXT, FINISHED, FAILED, N_SIGNALS };
static GParamSpec *properties[N_PROPS];
static guint signals[N_SIGNALS];

G_DEFINE_FINAL_TYPE (ValiseRunner, valise_runner, G_TYPE_OBJECT)

static gpointer work (gpointer data);
static void order_free (gpointer data);
static void shared_unref (Shared *shared);

static void set_state (ValiseRunner *runner, ValiseRunnerState state)
{
  if (runner->state == state)
    return;
  runner->state = state;
  g_object_notify_by_pspec (G_OBJECT (runner), properties[PROP_STATE]);
}

static void cancel_all (ValiseRunner *runner)
{
  for (guint i = 0; i < runner->cancellables->len; i++)
    g_cancellable_cancel (runner->cancellables->pdata[i]);
}

static void push (ValiseRunner *runner, Order *order)
{
  order->load = runner->last_load;
  order->cancellable = g_cancellable_new ();
  g_ptr_array_add (runner->cancellables, g_object_ref (order->cancellable));
  g_async_queue_push (runner->shared->orders, order);
}

/* ---- the object ---- */

static void valise_runner_get_property (GObject *object, guint id, GValue *value, GParamSpec *pspec)
{
  ValiseRunner *runner = VALISE_RUNNER (object);
  if (id == PROP_STATE)
    g_value_set_int (value, runner->state);
  else if (id == PROP_MODEL)
    g_value_set_object (value, runner->model);
  else
    G_OBJECT_WARN_INVALID_PROPERTY_ID (object, id, pspec);
}

static void valise_runner_dispose (GObject *object)
{
  ValiseRunner *runner = VALISE_RUNNER (object);
  if (runner->shared) {
    cancel_all (runner);
    Order *quit = g_new0 (Order, 1);
    quit->kind = ORDER_QUIT;
    g_async_queue_push (runner->shared->orders, quit);
    g_weak_ref_set (&runner->shared->runner, NULL);
    g_clear_pointer (&runner->shared, shared_unref);
  }
  g_clear_object (&runner->model);
  g_clear_pointer (&runner->cancellables, g_ptr_array_unref);
  G_OBJECT_CLASS (valise_runner_parent_class)->dispose (object);
}

static void valise_runner_class_init (ValiseRunnerClass *class)
{
  GObjectClass *object_class = G_OBJECT_CLASS (class);
  object_class->get_property = valise_runner_get_property;
  object_class->dispose = valise_runner_dispose;
  const GParamFlags flags = G_PARAM_READABLE | G_PARAM_STATIC_STRINGS;
  properties[PROP_STATE] = g_param_spec_int ("state", NULL, NULL, 0, VALISE_RUNNER_GENERATING, VALISE_RUNNER_EMPTY, flags);
  properties[PROP_MODEL] = g_param_spec_object ("model", NULL, NULL, VALISE_TYPE_MODEL, flags);
  g_object_class_install_properties (object_class, N_PROPS, properties);
  signals[LOADING] = g_signal_new ("loading", VALISE_TYPE_RUNNER, G_SIGNAL_RUN_LAST, 0, NULL, NULL, NULL, G_TYPE_NONE, 2, G_TYPE_DOUBLE,
                                   G_TYPE_STRING);
  signals[LOADED] = g_signal_new ("loaded", VALISE_TYPE_RUNNER, G_SIGNAL_RUN_LAST, 0, NULL, NULL, NULL, G_TYPE_NONE, 0);
  signals[TEXT] = g_signal_new ("text", VALISE_TYPE_RUNNER, G_SIGNAL_RUN_LAST, 0, NULL, NULL, NULL, G_TYPE_NONE, 1, G_TYPE_STRING);
  signals[FINISHED] = g_signal_new ("finished", VALISE_TYPE_RUNNER, G_SIGNAL_RUN_LAST, 0, NULL, NULL, NULL, G_TYPE_NONE, 1, G_TYPE_POINTER);
  signals[FAILED] = g_signal_new ("failed", VALISE_TYPE_RUNNER, G_SIGNAL_RUN_LAST, 0, NULL, NULL, NULL, G_TYPE_NONE, 1, G_TYPE_STRING);
}

static void valise_runner_init (ValiseRunner *runner)
{
  runner->cancellables = g_ptr_array_new_with_free_func (g_object_unref);
}

ValiseRunner *valise_runner_new (ValiseLibrary *library)
{
  ValiseRunner *runner = g_object_new (VALISE_TYPE_RUNNER, NULL);
  Shared *shared = g_new0 (Shared, 1);
  g_atomic_ref_count_init (&shared->references);
  g_weak_ref_init (&shared->runner, runner);
  g_mutex_init (&shared->mutex);
  shared->library = g_object_ref (library);
  shared->orders = g_async_queue_new_full (order_free);
  shared->text = g_string_new (NULL);
  runner->shared = shared;
  g_atomic_ref_count_inc (&shared->references);
  g_thread_unref (g_thread_new ("valise-runner", work, shared));
  return runner;
}

void valise_runner_load (ValiseRunner *runner, ValiseModel *model, guint context, int kv_bits)
{
  gboolean same = runner->model && runner->state != VALISE_RUNNER_EMPTY && runner->context == context && runner->kv_bits == kv_bits
                  && g_str_equal (valise_model_get_path (runner->model), valise_model_get_path (model));
  if (same && runner->state == VALISE_RUNNER_LOADING)
    return;
  cancel_all (runner);
  runner->last_load++;
  runner->context = context;
  runner->kv_bits = kv_bits;
  if (g_set_object (&runner->model, model))
    g_object_notify_by_pspec (G_OBJECT (runner), properties[PROP_MODEL]);
  Order *order = g_new0 (Order, 1);
  order->kind = ORDER_LOAD;
  order->model = g_object_ref (model);
  order->context = context;
  order->kv_bits = kv_bits;
  order->threads = runner->threads;
  push (runner, order);
  set_state (runner, VALISE_RUNNER_LOADING);
}

void valise_runner_set_threads (ValiseRunner *runner, guint threads)
{
  runner->threads = threads;
}

void valise_runner_unload (ValiseRunner *runner)
{
  cancel_all (runner);
  runner->last_load++;
  Order *order = g_new0 (Order, 1);
  order->kind = ORDER_UNLOAD;
  push (runner, order);
  if (runner->model) {
    g_clear_object (&runner->model);
    g_object_notify_by_pspec (G_OBJECT (runner), properties[PROP_MODEL]);
  }
  set_state (runner, VALISE_RUNNER_EMPTY);
}

ValiseRunnerState valise_runner_get_state (ValiseRunner *runner)
{
  return runner->state;
}

ValiseModel *valise_runner_get_model (ValiseRunner *runner)
{
  return runner->model;
}

void valise_runner_generate (ValiseRunner *runner, JsonArray *messages, const EngSamplerOptions *sampling, guint max_tokens)
{
  Order *order = g_new0 (Order, 1);
  order->kind = ORDER_GENERATE;
  order->messages = json_array_ref (messages);
  order->sampling = *sampling;
  order->max_tokens = max_tokens;
  push (runner, order);
  runner->pending++;
  if (runner->state == VALISE_RUNNER_READY)
    set_state (runner, VALISE_RUNNER_GENERATING);
}

void valise_runner_stop (ValiseRunner *runner)
{
  if (runner->pending > 0)
    cancel_all (runner);
}

EngModel *valise_runner_ref_engine (ValiseRunner *runner, guint *context, int *kv_bits)
{
  Shared *shared = runner->shared;
  G_GNUC_UNUSED g_autoptr (GMutexLocker) locker = g_mutex_locker_new (&shared->mutex);
  *context = shared->context_size;
  *kv_bits = shared->kv_bits;
  return shared->lent ? eng_model_ref (shared->lent) : NULL;
}

EngSamplerOptions valise_runner_get_advice (ValiseRunner *runner)
{
  Shared *shared = runner->shared;
  EngSamplerOptions advice = ENG_SAMPLER_DEFAULTS;
  G_GNUC_UNUSED g_autoptr (GMutexLocker) locker = g_mutex_locker_new (&shared->mutex);
  if (shared->lent)
    eng_sampler_preset (eng_model_gguf (shared->lent), &advice);
  return advice;
}

gboolean valise_runner_get_plan (ValiseRunner *runner, EngMemoryPlan *plan, guint *context_used, guint *context_size)
{
  Shared *shared = runner->shared;
  G_GNUC_UNUSED g_autoptr (GMutexLocker) locker = g_mutex_locker_new (&shared->mutex);
  *plan = shared->plan;
  if (context_used)
    *context_used = shared->context_used;
  if (context_size)
    *context_size = shared->context_size;
  return shared->context_size > 0;
}

/* ---- notes from the worker, read on the main context ---- */

typedef enum { NOTE_LOADING, NOTE_LOADED, NOTE_LOAD_ENDED, NOTE_FINISHED, NOTE_FAILED } NoteKind;

typedef struct {
  NoteKind kind;
  Shared *shared;
  guint load;
  double fraction;
  char *text;
  EngGenerateStats stats;
  GCancellable *cancellable; /* the order's, when it has ended */
} Note;

static void note_free (gpointer data)
{
  Note *note = data;
  g_clear_object (&note->cancellable);
  g_free (note->text);
  shared_unref (note->shared);
  g_free (note);
}

static void tell_text (ValiseRunner *runner, Shared *shared)
{
  g_mutex_lock (&shared->mutex);
  g_clear_handle_id (&shared->text_source, g_source_remove);
  g_autofree char *text = shared->text->len > 0 ? g_strdup (shared->text->str) : NULL;
  g_string_truncate (shared->text, 0);
  g_mutex_unlock (&shared->mutex);
  if (text)
    g_signal_emit (runner, signals[TEXT], 0, text);
}

static gboolean read_note (gpointer data)
{
  Note *note = data;
  g_autoptr (ValiseRunner) runner = g_weak_ref_get (&note->shared->runner);
  if (!runner || !runner->cancellables)
    return G_SOURCE_REMOVE;
  if (note->cancellable)
    g_ptr_array_remove_fast (runner->cancellables, note->cancellable);
  gboolean current = note->load == runner->last_load;
  gboolean generation = note->kind == NOTE_FINISHED || note->kind == NOTE_FAILED;
  if (generation)
    tell_text (runner, note->shared);
  if (generation && runner->pending > 0)
    runner->pending--;
  if (current && generation && runner->state == VALISE_RUNNER_GENERATING && runner->pending == 0)
    set_state (runner, VALISE_RUNNER_READY);
  switch (note->kind) {
  case NOTE_LOADING:
    if (current)
      g_signal_emit (runner, signals[LOADING], 0, note->fraction, note->text);
    break;
  case NOTE_LOADED:
    if (!current)
      break;
    set_state (runner, runner->pending > 0 ? VALISE_RUNNER_GENERATING : VALISE_RUNNER_READY);
    g_signal_emit (runner, signals[LOADED], 0);
    break;
  case NOTE_LOAD_ENDED: /* failed, or cancelled (no text) */
    if (!current)
      break;
    set_state (runner, VALISE_RUNNER_EMPTY);
    if (note->text)
      g_signal_emit (runner, signals[FAILED], 0, note->text);
    break;
  case NOTE_FINISHED:
    g_signal_emit (runner, signals[FINISHED], 0, &note->stats);
    break;
  case NOTE_FAILED:
    /* Without a sentence: the load before it failed, and has said so. */
    if (note->text)
      g_signal_emit (runner, signals[FAILED], 0, note->text);
    break;
  }
  return G_SOURCE_REMOVE;
}

static void send_note (Shared *shared, NoteKind kind, const Order *order, double fraction, const char *text, const EngGenerateStats *stats)
{
  Note *note = g_new0 (Note, 1);
  g_atomic_ref_count_inc (&shared->references);
  note->kind = kind;
  note->shared = shared;
  note->load = order->load;
  note->fraction = fraction;
  note->text = g_strdup (text);
  if (stats)
    note->stats = *stats;
  if (kind != NOTE_LOADING)
    note->cancellable = g_object_ref (order->cancellable);
  g_idle_add_full (G_PRIORITY_DEFAULT, read_note, note, note_free);
}

/* ---- the worker ---- */

typedef struct {
  Shared *shared;
  const Order *order;
  gint64 told_us;
} Loading;

static void report_loading (double fraction, const char *what, gpointer data)
{
  Loading *loading = data;
  gint64 now = g_get_monotonic_time ();
  if (now - loading->told_us < 50000)
    return;
  loading->told_us = now;
  send_note (loading->shared, NOTE_LOADING, loading->order, fraction, what, NULL);
}

static void unload (Shared *shared)
{
  g_mutex_lock (&shared->mutex);
  shared->lent = NULL;
  g_mutex_unlock (&shared->mutex);
  g_clear_pointer (&shared->session, eng_session_free);
  g_clear_pointer (&shared->model, eng_model_unref);
  shared->loaded = 0;
  G_GNUC_UNUSED g_autoptr (GMutexLocker) locker = g_mutex_locker_new (&shared->mutex);
  memset (&shared->plan, 0, sizeof shared->plan);
  shared->context_used = shared->context_size = 0;
}

static gboolean load (Shared *shared, const Order *order, GError **error)
{
  EngSessionOptions options;
  Loading loading = { shared, order, 0 };
  unload (shared); /* first: two models at once would break the promise of the plan */
  if (shared->workers && shared->threads != order->threads)
    g_clear_pointer (&shared->workers, eng_workers_free);
  if (!shared->workers)
    shared->workers = eng_workers_new (order->threads);
  shared->threads = order->threads;
  shared->model = valise_library_open_model (shared->library, order->model, report_loading, &loading, order->cancellable, error);
  if (!shared->model)
    return FALSE;
  const EngTraits *traits = eng_model_traits (shared->model);
  if (!valise_session_options (traits, order->context, order->kv_bits, &options, error))
    return FALSE;
  shared->session = eng_session_new (shared->model, shared->workers, &options, error);
  if (!shared->session)
    return FALSE;
  shared->loaded = order->load;
  G_GNUC_UNUSED g_autoptr (GMutexLocker) locker = g_mutex_locker_new (&shared->mutex);
  eng_memory_plan (&shared->plan, traits, 0, &options, eng_workers_count (shared->workers), valise_program_base_bytes (TRUE));
  shared->context_size = options.n_ctx;
  shared->kv_bits = options.kv_bits;
  shared->lent = shared->model;
  return TRUE;
}

static gboolean text_due (gpointer data)
{
  Shared *shared = data;
  g_autoptr (ValiseRunner) runner = g_weak_ref_get (&shared->runner);
  g_mutex_lock (&shared->mutex);
  shared->text_source = 0;
  g_mutex_unlock (&shared->mutex);
  if (runner)
    tell_text (runner, shared);
  return G_SOURCE_REMOVE;
}

/* Reasoning is kept in front of an answer as every family's would be written in the first of them: valise_message_answer leaves it out. */
static void take_text (EngTextKind kind, const char *text, gpointer data)
{
  Shared *shared = data;
  gboolean reasoning = kind == ENG_TEXT_REASONING;
  G_GNUC_UNUSED g_autoptr (GMutexLocker) locker = g_mutex_locker_new (&shared->mutex);
  if (reasoning != shared->reasoning)
    g_string_append (shared->text, reasoning ? VALISE_REASONING_BEGIN : VALISE_REASONING_END);
  shared->reasoning = reasoning;
  g_string_append (shared->text, text);
  shared->context_used = eng_session_n_past (shared->session);
  if (shared->text_source)
    return;
  g_atomic_ref_count_inc (&shared->references);
  shared->text_source = g_timeout_add_full (G_PRIORITY_DEFAULT, TEXT_MS, text_due, shared, (GDestroyNotify) shared_unref);
}

/* Values that nobody has changed. */
static gboolean is_unchanged (const EngSamplerOptions *o)
{
  const EngSamplerOptions own = ENG_SAMPLER_DEFAULTS;
  return fabsf (o->temperature - own.temperature) < 1e-4f && o->top_k == own.top_k && fabsf (o->top_p - own.top_p) < 1e-4f && fabsf (o->min_p - own.min_p) < 1e-4f
         && fabsf (o->repeat_penalty - own.repeat_penalty) < 1e-4f;
}

static void generate (Shared *shared, const Order *order)
{
  g_autoptr (GError) error = NULL;
  EngGenerateStats stats = { .finish_reason = "cancelled" };
  if (g_cancellable_is_cancelled (order->cancellable)) {
    send_note (shared, NOTE_FINISHED, order, 0, NULL, &stats);
    return;
  }
  if (!shared->session || shared->loaded != order->load) {
    send_note (shared, NOTE_FAILED, order, 0, order->load == 0 ? "no model is loaded: choose one first" : NULL, NULL);
    return;
  }
  EngAnswerOptions options = { .sampling = order->sampling, .max_tokens = order->max_tokens };
  if (is_unchanged (&options.sampling))
    eng_sampler_preset (eng_model_gguf (shared->model), &options.sampling);
  shared->reasoning = FALSE;
  gboolean done = eng_generate_chat (shared->session, order->messages, &options, take_text, shared, &stats, order->cancellable, &error);
  g_mutex_lock (&shared->mutex);
  shared->context_used = eng_session_n_past (shared->session);
  g_mutex_unlock (&shared->mutex);
  if (done)
    send_note (shared, NOTE_FINISHED, order, 0, NULL, &stats);
  else
    send_note (shared, NOTE_FAILED, order, 0, error->message, NULL);
}

static gpointer work (gpointer data)
{
  Shared *shared = data;
  for (gboolean quit = FALSE; !quit;) {
    Order *order = g_async_queue_pop (shared->orders);
    if (order->kind == ORDER_LOAD) {
      g_autoptr (GError) error = NULL;
      if (load (shared, order, &error)) {
        send_note (shared, NOTE_LOADED, order, 0, NULL, NULL);
      } else {
        unload (shared);
        gboolean cancelled = g_error_matches (error, ENG_ERROR, ENG_ERROR_CANCELLED);
        send_note (shared, NOTE_LOAD_ENDED, order, 0, cancelled ? NULL : error->message, NULL);
      }
    } else if (order->kind == ORDER_GENERATE) {
      generate (shared, order);
    } else {
      unload (shared);
      quit = order->kind == ORDER_QUIT;
      if (!quit)
        send_note (shared, NOTE_LOAD_ENDED, order, 0, NULL, NULL);
    }
    order_free (order);
  }
  g_clear_pointer (&shared->workers, eng_workers_free);
  shared_unref (shared);
  return NULL;
}

/* ---- helpers ---- */

static void order_free (gpointer data)
{
  Order *order = data;
  g_clear_object (&order->model);
  g_clear_object (&order->cancellable);
  g_clear_pointer (&order->messages, json_array_unref);
  g_free (order);
}

static void shared_unref (Shared *shared)
{
  if (!g_atomic_ref_count_dec (&shared->references))
    return;
  g_weak_ref_clear (&shared->runner);
  g_async_queue_unref (shared->orders);
  g_string_free (shared->text, TRUE);
  g_object_unref (shared->library);
  g_mutex_clear (&shared->mutex);
  g_free (shared);
}
