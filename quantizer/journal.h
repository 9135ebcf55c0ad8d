/* journal.h: packed matrices that are done, in a file beside the work (work.h), so that a fit that was ended goes on after them. What cannot be
 * kept is packed again: a journal never fails a fit. */
#ifndef QZ_JOURNAL_H
#define QZ_JOURNAL_H

#include <gio/gio.h>

typedef struct QzJournal QzJournal;

/* prefix NULL, or held by another process: keeps nothing. key: what the matrices depend on; those of another are dropped. */
QzJournal *qz_journal_open (const char *prefix, const char *key);
void qz_journal_free (QzJournal *journal);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (QzJournal, qz_journal_free)
/* FALSE, with the blob as it was or half-written, when there is no such matrix of this size or it is damaged. */
gboolean qz_journal_find (QzJournal *journal, guint matrix, void *blob, gsize size, double *loss);
void qz_journal_add (QzJournal *journal, guint matrix, const void *blob, gsize size, double loss);

#endif
