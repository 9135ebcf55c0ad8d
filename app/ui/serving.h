/* serving.h: the server as the preferences have it: on or off, a port, a token; of the model that is open, whichever that is. */
#ifndef VALISE_SERVING_H
#define VALISE_SERVING_H

#include "app/library/runner.h"
#include "app/serve/host.h"

G_BEGIN_DECLS

#define VALISE_TYPE_SERVING (valise_serving_get_type ())
G_DECLARE_FINAL_TYPE (ValiseServing, valise_serving, VALISE, SERVING, GObject)
/* Signal: "changed" (). */

ValiseServing *valise_serving_new (ValiseRunner *runner);
/* NULL: nothing is served. */
const char *valise_serving_get_url (ValiseServing *self);
/* One sentence for a person; *failed: it says why nothing is served although it should be. Free with g_free. */
char *valise_serving_describe (ValiseServing *self, gboolean *failed);

G_END_DECLS
#endif
