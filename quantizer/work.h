/* work.h: what a long stage needs to go on after it was ended at any moment, in files side by side: PREFIX.state, which appears whole or not at
 * all, PREFIX.NAME of each store, and PREFIX.lock. A state is of the key it was saved with: of another work it is dropped. */
#ifndef QZ_WORK_H
#define QZ_WORK_H

#include "quantizer/store.h"

typedef struct QzWork QzWork;

typedef struct {
  const void *data;
  gsize size;
} QzSpan;

/* prefix NULL, or held by another process: nothing is kept, and stores are files without a name. */
QzWork *qz_work_open (const char *prefix, const char *key, GError **error);
void qz_work_free (QzWork *work);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (QzWork, qz_work_free)
/* The state there is, to be read until it is dropped or saved anew; NULL: none. */
const guint8 *qz_work_state (const QzWork *work, gsize *size);
void qz_work_drop_state (QzWork *work);
/* A store of this name, with what it held if there is a state. The caller frees it, before the work. */
QzStore *qz_work_store (QzWork *work, const char *name, GError **error);
/* Whether saving is worth its time by now: so seldom that it takes a twentieth of the whole. */
gboolean qz_work_is_due (const QzWork *work);
/* The spans one behind the other, once what the stores hold has reached the disk. */
gboolean qz_work_save (QzWork *work, const QzSpan *spans, guint n, GError **error);

/* The prefix of a file's name, if it is one of those; else NULL. Free with g_free. */
char *qz_work_prefix (const char *path);
/* Removes all of a work that was last touched before this time and that no process holds. */
gboolean qz_work_expire (const char *prefix, gint64 before_us);

#endif
