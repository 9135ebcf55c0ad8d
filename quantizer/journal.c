/* journal.c: a key, then records one behind the other, each with a checksum; a torn one at the end is written over. */
#include "quantizer/journal.h"

#include "engine/file_at.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct {
  guint64 matrix, size;
  double loss;
  guint8 checksum[32]; /* of the blob */
  guint8 header_sum[32]; /* of the above */
} Record;

typedef struct {
  Record record;
  guint64 offset; /* of the blob */
} Entry;

struct QzJournal {
  int fd;         /* -1: nothing is kept */
  guint64 end;
  GHashTable *entries; /* matrix -> Entry */
};

static void digest (const void *data, gsize size, guint8 out[32])
{
  g_autoptr (GChecksum) sum = g_checksum_new (G_CHECKSUM_SHA256);
  gsize length = 32;
  for (gsize at = 0; at < size; at += G_MAXINT / 2)
    g_checksum_update (sum, (const guchar *) data + at, MIN (size - at, G_MAXINT / 2));
  g_checksum_get_digest (sum, out, &length);
}

/* Finds the records that are whole; the place after them is where the next one goes. */
static void read_records (QzJournal *journal, guint64 file_bytes)
{
  Entry entry;
  guint8 sum[32];
  while (file_bytes - journal->end >= sizeof (Record) && eng_read_at (journal->fd, journal->end, &entry.record, sizeof (Record))) {
    digest (&entry.record, offsetof (Record, header_sum), sum);
    entry.offset = journal->end + sizeof (Record);
    if (memcmp (sum, entry.record.header_sum, 32) != 0 || entry.record.size > file_bytes - entry.offset)
      return;
    g_hash_table_insert (journal->entries, GUINT_TO_POINTER (entry.record.matrix + 1), g_memdup2 (&entry, sizeof entry));
    journal->end = entry.offset + entry.record.size;
  }
}

QzJournal *qz_journal_open (const char *prefix, const char *key)
{
  struct stat status, there;
  guint8 wanted[32], found[32];
  QzJournal *journal = g_new0 (QzJournal, 1);
  journal->entries = g_hash_table_new_full (NULL, NULL, NULL, g_free);
  g_autofree char *path = prefix != NULL ? g_strconcat (prefix, ".packed", NULL) : NULL;
  journal->fd = path != NULL ? open (path, O_RDWR | O_CREAT | O_CLOEXEC, 0600) : -1;
  if (journal->fd < 0)
    return journal;
  digest (key, strlen (key), wanted);
  gboolean is_ours = flock (journal->fd, LOCK_EX | LOCK_NB) == 0 && fstat (journal->fd, &status) == 0 && stat (path, &there) == 0
                     && status.st_ino == there.st_ino && status.st_dev == there.st_dev;
  if (is_ours && status.st_size >= 32 && eng_read_at (journal->fd, 0, found, 32) && memcmp (found, wanted, 32) == 0) {
    journal->end = 32;
    read_records (journal, status.st_size);
  } else if (is_ours && ftruncate (journal->fd, 0) == 0 && eng_write_at (journal->fd, 0, wanted, 32)) {
    journal->end = 32;
  } else {
    close (journal->fd);
    journal->fd = -1;
  }
  return journal;
}

void qz_journal_free (QzJournal *journal)
{
  if (journal == NULL)
    return;
  if (journal->fd >= 0)
    close (journal->fd);
  g_hash_table_unref (journal->entries);
  g_free (journal);
}

gboolean qz_journal_find (QzJournal *journal, guint matrix, void *blob, gsize size, double *loss)
{
  guint8 sum[32];
  const Entry *entry = g_hash_table_lookup (journal->entries, GUINT_TO_POINTER (matrix + 1));
  if (entry == NULL || entry->record.size != size || !eng_read_at (journal->fd, entry->offset, blob, size))
    return FALSE;
  digest (blob, size, sum);
  *loss = entry->record.loss;
  return memcmp (sum, entry->record.checksum, 32) == 0;
}

void qz_journal_add (QzJournal *journal, guint matrix, const void *blob, gsize size, double loss)
{
  Record record = { .matrix = matrix, .size = size, .loss = loss };
  if (journal->fd < 0)
    return;
  digest (blob, size, record.checksum);
  digest (&record, offsetof (Record, header_sum), record.header_sum);
  /* The blob first: a record that can be read is whole. */
  if (eng_write_at (journal->fd, journal->end + sizeof record, blob, size) && eng_write_at (journal->fd, journal->end, &record, sizeof record))
    journal->end += sizeof record + size;
  else if (ftruncate (journal->fd, (off_t) journal->end) < 0)
    g_debug ("the journal of packed matrices cannot be cut: %s", g_strerror (errno));
}
