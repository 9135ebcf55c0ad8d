/* host.h: a server on a thread of its own, for a program whose main loop draws: started and stopped there, and told from there. Methods are for the main thread and return at once. */
#ifndef VALISE_HOST_H
#define VALISE_HOST_H

#include "app/serve/serve.h"

G_BEGIN_DECLS

#define VALISE_TYPE_HOST (valise_host_get_type ())
G_DECLARE_FINAL_TYPE (ValiseHost, valise_host, VALISE, HOST, GObject)
/* Properties: "url" (string, NULL: nothing is served), "failure" (string: one sentence why not, or NULL). */

ValiseHost *valise_host_new (void);
/* Serves the model from now on, whatever was served before. threads: as eng_workers_new has them. */
void valise_host_start (ValiseHost *host, EngModel *model, guint threads, const ValiseServeOptions *options);
/* Answers that are being written end. */
void valise_host_stop (ValiseHost *host);
const char *valise_host_get_url (ValiseHost *host);
const char *valise_host_get_failure (ValiseHost *host);

G_END_DECLS
#endif
