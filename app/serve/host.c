/* host.c: each start has a thread, which waits for the one before it to have given its port back. */
#include "app/serve/host.h"

typedef struct {
  gatomicrefcount refs;
  GWeakRef host;
  EngModel *model;
  guint threads;
  ValiseServeOptions options; /* its texts are copies */
  GThread *before;            /* the last run's thread, to be joined first; or NULL */
  GMainContext *context;
  GMainLoop *loop;
} Run;

struct _ValiseHost {
  GObject parent;
  Run *run;        /* what is served or about to be; NULL: nothing */
  GThread *thread; /* of the last run, still to be joined */
  char *url, *failure;
};

enum { PROP_URL = 1, PROP_FAILURE, N_PROPS };
static GParamSpec *properties[N_PROPS];

G_DEFINE_FINAL_TYPE (ValiseHost, valise_host, G_TYPE_OBJECT)

static void run_unref (gpointer data)
{
  Run *run = data;
  if (!g_atomic_ref_count_dec (&run->refs))
    return;
  g_weak_ref_clear (&run->host);
  g_clear_pointer (&run->model, eng_model_unref);
  g_free ((char *) run->options.name);
  g_free ((char *) run->options.token);
  g_main_loop_unref (run->loop);
  g_main_context_unref (run->context);
  g_free (run);
}

static Run *run_ref (Run *run)
{
  g_atomic_ref_count_inc (&run->refs);
  return run;
}

static void tell (ValiseHost *host, const char *url, const char *failure)
{
  g_autofree char *old_url = host->url, *old_failure = host->failure;
  host->url = g_strdup (url);
  host->failure = g_strdup (failure);
  if (g_strcmp0 (old_url, url) != 0)
    g_object_notify_by_pspec (G_OBJECT (host), properties[PROP_URL]);
  if (g_strcmp0 (old_failure, failure) != 0)
    g_object_notify_by_pspec (G_OBJECT (host), properties[PROP_FAILURE]);
}

/* ---- on the run's thread -------------------------------------------------------------------------------------------------- */

typedef struct {
  Run *run;
  char *url, *failure;
} News;

static void news_free (gpointer data)
{
  News *news = data;
  run_unref (news->run);
  g_free (news->url);
  g_free (news->failure);
  g_free (news);
}

static gboolean read_news (gpointer data)
{
  News *news = data;
  g_autoptr (ValiseHost) host = g_weak_ref_get (&news->run->host);
  if (host && host->run == news->run) /* not an older one's */
    tell (host, news->url, news->failure);
  return G_SOURCE_REMOVE;
}

static void send_news (Run *run, char *url, const char *failure)
{
  News *news = g_new0 (News, 1);
  news->run = run_ref (run);
  news->url = url;
  news->failure = g_strdup (failure);
  g_idle_add_full (G_PRIORITY_DEFAULT, read_news, news, news_free);
}

static gpointer serve (gpointer data)
{
  Run *run = data;
  g_autoptr (GError) error = NULL;
  if (run->before)
    g_thread_join (run->before);
  g_main_context_push_thread_default (run->context);
  EngWorkers *workers = eng_workers_new (run->threads);
  ValiseServer *server = valise_server_new (run->model, workers, &run->options, &error);
  if (server) {
    send_news (run, g_strdup_printf ("http://127.0.0.1:%u/v1", valise_server_port (server)), NULL);
    g_main_loop_run (run->loop);
  } else {
    send_news (run, NULL, error->message);
  }
  valise_server_free (server);
  eng_workers_free (workers);
  g_clear_pointer (&run->model, eng_model_unref);
  g_main_context_pop_thread_default (run->context);
  run_unref (run);
  return NULL;
}

static gboolean quit (gpointer loop)
{
  g_main_loop_quit (loop);
  return G_SOURCE_REMOVE;
}

/* ---- on the main thread --------------------------------------------------------------------------------------------------- */

static void end_run (ValiseHost *host)
{
  if (!host->run)
    return;
  g_autoptr (GSource) source = g_idle_source_new (); /* the loop is quit from within, also when it has not begun */
  g_source_set_callback (source, quit, g_main_loop_ref (host->run->loop), (GDestroyNotify) g_main_loop_unref);
  g_source_attach (source, host->run->context);
  g_clear_pointer (&host->run, run_unref);
}

void valise_host_start (ValiseHost *host, EngModel *model, guint threads, const ValiseServeOptions *options)
{
  end_run (host);
  Run *run = g_new0 (Run, 1);
  g_atomic_ref_count_init (&run->refs);
  g_weak_ref_init (&run->host, host);
  run->model = eng_model_ref (model);
  run->threads = threads;
  run->options = *options;
  run->options.name = g_strdup (options->name);
  run->options.token = g_strdup (options->token);
  run->before = g_steal_pointer (&host->thread);
  run->context = g_main_context_new ();
  run->loop = g_main_loop_new (run->context, FALSE);
  host->run = run_ref (run);
  tell (host, NULL, NULL);
  host->thread = g_thread_new ("serve", serve, run);
}

void valise_host_stop (ValiseHost *host)
{
  end_run (host);
  tell (host, NULL, NULL);
}

const char *valise_host_get_url (ValiseHost *host)
{
  return host->url;
}

const char *valise_host_get_failure (ValiseHost *host)
{
  return host->failure;
}

static void get_property (GObject *object, guint id, GValue *value, GParamSpec *pspec)
{
  ValiseHost *host = VALISE_HOST (object);
  if (id == PROP_URL)
    g_value_set_string (value, host->url);
  else if (id == PROP_FAILURE)
    g_value_set_string (value, host->failure);
  else
    G_OBJECT_WARN_INVALID_PROPERTY_ID (object, id, pspec);
}

/* Waits: nothing of a server outlives its host. */
static void finalize (GObject *object)
{
  ValiseHost *host = VALISE_HOST (object);
  end_run (host);
  g_clear_pointer (&host->thread, g_thread_join);
  g_free (host->url);
  g_free (host->failure);
  G_OBJECT_CLASS (valise_host_parent_class)->finalize (object);
}

static void valise_host_class_init (ValiseHostClass *class)
{
  GObjectClass *object_class = G_OBJECT_CLASS (class);
  const GParamFlags flags = G_PARAM_READABLE | G_PARAM_STATIC_STRINGS;
  object_class->get_property = get_property;
  object_class->finalize = finalize;
  properties[PROP_URL] = g_param_spec_string ("url", NULL, NULL, NULL, flags);
  properties[PROP_FAILURE] = g_param_spec_string ("failure", NULL, NULL, NULL, flags);
  g_object_class_install_properties (object_class, N_PROPS, properties);
}

static void valise_host_init (ValiseHost *host)
{
}

ValiseHost *valise_host_new (void)
{
  return g_object_new (VALISE_TYPE_HOST, NULL);
}
