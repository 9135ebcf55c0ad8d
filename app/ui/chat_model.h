/* chat_model.h: opens a model for chatting with the longest context, up to the one asked for, that the RAM limit allows. */
#ifndef VALISE_CHAT_MODEL_H
#define VALISE_CHAT_MODEL_H

#include "app/ui/application.h"

G_BEGIN_DECLS

/* Reads the header on a thread, then hands the model to the runner (which loads on its own). Does nothing when the runner has it so. */
void valise_chat_model_open (ValiseApplication *application, ValiseModel *model, GCancellable *cancellable, GAsyncReadyCallback callback,
                             gpointer data);
gboolean valise_chat_model_open_finish (GAsyncResult *result, GError **error);

G_END_DECLS
#endif
