/* interrupt.c: SIGINT and SIGTERM as a GCancellable. A thread of its own waits for them, so that cancelling is ordinary code and not a
 * signal handler's. */
#include "app/cli/cli.h"

#include <pthread.h>
#include <signal.h>

static GMutex mutex;
static GCancellable *cancellable;

static gpointer wait_for_signals (gpointer data)
{
  sigset_t *signals = data;
  int number;
  while (sigwait (signals, &number) == 0) {
    g_mutex_lock (&mutex);
    g_autoptr (GCancellable) target = g_object_ref (cancellable);
    g_mutex_unlock (&mutex);
    g_cancellable_cancel (target);
  }
  return NULL;
}

void cli_interrupt_init (void)
{
  static sigset_t signals;
  sigemptyset (&signals);
  sigaddset (&signals, SIGINT);
  sigaddset (&signals, SIGTERM);
  pthread_sigmask (SIG_BLOCK, &signals, NULL); /* inherited by every thread made from now on */
  cancellable = g_cancellable_new ();
  g_thread_unref (g_thread_new ("interrupt", wait_for_signals, &signals));
}

GCancellable *cli_cancellable (void)
{
  return cancellable;
}

void cli_interrupt_renew (void)
{
  g_mutex_lock (&mutex);
  g_object_unref (cancellable);
  cancellable = g_cancellable_new ();
  g_mutex_unlock (&mutex);
}
