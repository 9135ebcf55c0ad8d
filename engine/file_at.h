/* file_at.h: whole reads and writes at a place of a file, through interruptions. Any thread. */
#ifndef ENG_FILE_AT_H
#define ENG_FILE_AT_H

#include <glib.h>

/* FALSE with errno set; 0 where the file ends before. */
gboolean eng_read_at (int fd, guint64 offset, void *data, gsize size);
/* FALSE with errno set. */
gboolean eng_write_at (int fd, guint64 offset, const void *data, gsize size);

#endif
