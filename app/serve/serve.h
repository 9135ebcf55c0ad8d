/* serve.h: an OpenAI-compatible endpoint on the loopback: one model, a queue, several answers at once. Everything but the computing happens on the main
 * context of the thread that made it. */
#ifndef VALISE_SERVE_H
#define VALISE_SERVE_H

#include "app/library/library.h"
#include "engine/batch.h"

typedef struct {
  const char *name;    /* what the model is called */
  guint port;          /* 0: any that is free */
  const char *token;   /* asked for as a bearer token; NULL: nobody is asked */
  guint context;       /* tokens of an answer with its prompt; 0: as valise_session_options has it */
  int kv_bits;         /* 0: the same */
  guint parallel;      /* answers at once */
} ValiseServeOptions;

typedef struct ValiseServer ValiseServer;
ValiseServer *valise_server_new (EngModel *model, EngWorkers *workers, const ValiseServeOptions *options, GError **error);
/* Ends every answer. */
void valise_server_free (ValiseServer *server);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (ValiseServer, valise_server_free)
guint valise_server_port (ValiseServer *server);
guint valise_server_n_ctx (ValiseServer *server);

#endif
