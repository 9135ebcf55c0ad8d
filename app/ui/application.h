/* application.h: the program: one library, one runner, the jobs under way, and the windows on them. */
#ifndef VALISE_APPLICATION_H
#define VALISE_APPLICATION_H

#include <adwaita.h>

#include "app/library/job.h"
#include "app/ui/conversation.h"
#include "app/ui/serving.h"
#include "app/ui/settings.h"

G_BEGIN_DECLS

#define VALISE_TYPE_APPLICATION (valise_application_get_type ())
G_DECLARE_FINAL_TYPE (ValiseApplication, valise_application, VALISE, APPLICATION, AdwApplication)
/* Signals: "job-ended" (ValiseJob). */

ValiseApplication *valise_application_new (void);
/* The running one. */
ValiseApplication *valise_app (void);

ValiseLibrary *valise_application_get_library (ValiseApplication *self);
ValiseRunner *valise_application_get_runner (ValiseApplication *self);
ValiseConversation *valise_application_get_conversation (ValiseApplication *self);
ValiseServing *valise_application_get_serving (ValiseApplication *self);
/* Jobs that run or whose end has not been dismissed; borrowed. */
GListModel *valise_application_get_jobs (ValiseApplication *self);
/* Takes a reference; the job lives on when every window is closed. */
void valise_application_add_job (ValiseApplication *self, ValiseJob *job);
void valise_application_dismiss_job (ValiseApplication *self, ValiseJob *job);
void valise_application_import (ValiseApplication *self, GFile *file);
/* Bytes a chat may take: what the person set, else four fifths of the free memory. */
guint64 valise_application_get_ram_limit (ValiseApplication *self);
/* By id; NULL when it is gone. */
ValiseModel *valise_application_find_model (ValiseApplication *self, gint64 id);

/* application_actions.c */
void valise_application_add_actions (ValiseApplication *self);

G_END_DECLS
#endif
