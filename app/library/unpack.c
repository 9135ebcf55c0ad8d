/* unpack.c: see unpack.h. The archive is read once, front to back; what it says of itself is counted before it is believed, and what
 * it really yields is counted again. Only formats that model files come in are enabled: no filter that would run another program. */
#include "app/library/unpack.h"
#include "app/library/library-private.h"
#include "engine/checkpoint/checkpoint.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <locale.h>
#include <string.h>
#include <unistd.h>

#define MAX_ENTRIES 10000
#define MAX_MODELS 1000                            /* shards of one model at most */
#define MAX_RATIO 100                              /* weights hardly compress: 100 times is no model */
#define FREE_RATIO_BYTES (G_GUINT64_CONSTANT (64) << 20) /* below this nobody is hurt */
#define MAX_METADATA (1 << 20)
#define READ_BLOCK (256 << 10)

typedef struct {
  struct archive *reader;
  const char *path, *folder;
  guint64 archive_bytes, declared, extracted, limit;
  guint entries;
  EngProgress progress;
  gpointer data;
  GCancellable *cancellable;
} Extraction;

static gboolean read_entries (Extraction *x, ValiseArchive *archive, GError **error);
static char *check_entry (Extraction *x, struct archive_entry *entry, GError **error);
static gboolean extract_model (Extraction *x, ValiseArchive *archive, const char *name, gint64 size, GError **error);
static gboolean extract_part (Extraction *x, ValiseArchive *archive, const char *name, gint64 size, GError **error);
static gboolean read_license (Extraction *x, ValiseArchive *archive, const char *name, GError **error);
static char *read_text (Extraction *x, GError **error);
static gboolean check_sums (Extraction *x, const ValiseArchive *archive, GError **error);
static gboolean unsafe (Extraction *x, GError **error, const char *format, ...) G_GNUC_PRINTF (3, 4);
static gboolean damaged (Extraction *x, GError **error);

void valise_archive_clear (ValiseArchive *archive)
{
  g_clear_pointer (&archive->files, g_ptr_array_unref);
  g_clear_pointer (&archive->names, g_ptr_array_unref);
  g_clear_pointer (&archive->parts, g_ptr_array_unref);
  g_clear_pointer (&archive->part_names, g_ptr_array_unref);
  g_clear_pointer (&archive->folders, g_ptr_array_unref);
  g_clear_pointer (&archive->folder_names, g_ptr_array_unref);
  g_clear_pointer (&archive->license, g_free);
  g_clear_pointer (&archive->checksums, g_free);
}

gboolean valise_archive_extract (ValiseArchive *archive, const char *path, const char *folder, EngProgress progress, gpointer data,
                                 GCancellable *cancellable, GError **error)
{
  GStatBuf info;
  if (g_stat (path, &info) < 0)
    return valise_fail_errno (error, errno, "cannot read", path);
  GPtrArray **const lists[] = { &archive->files, &archive->names, &archive->parts, &archive->part_names, &archive->folders, &archive->folder_names };
  for (guint i = 0; i < G_N_ELEMENTS (lists); i++)
    *lists[i] = g_ptr_array_new_with_free_func (g_free);
  Extraction x = { .reader = archive_read_new (), .path = path, .folder = folder, .archive_bytes = (guint64) info.st_size,
                   .progress = progress, .data = data, .cancellable = cancellable };
  x.limit = MAX (FREE_RATIO_BYTES, x.archive_bytes * MAX_RATIO);
  archive_read_support_format_zip (x.reader);
  archive_read_support_format_tar (x.reader);
  archive_read_support_filter_gzip (x.reader);
  archive_read_support_filter_bzip2 (x.reader);
  archive_read_support_filter_xz (x.reader);
  archive_read_support_filter_zstd (x.reader);
  /* Names in archives are UTF-8 whatever this process's language; the setting is this thread's alone. */
  locale_t utf8 = newlocale (LC_CTYPE_MASK, "C.UTF-8", (locale_t) 0);
  locale_t before = utf8 ? uselocale (utf8) : (locale_t) 0;
  gboolean done;
  if (archive_read_open_filename (x.reader, path, READ_BLOCK) != ARCHIVE_OK) {
    g_set_error (error, VALISE_ERROR, VALISE_ERROR_DAMAGED,
                 "%s is neither a GGUF file nor an archive (.whl, .zip, .tar) that can be read: check that the download is complete", path);
    done = FALSE;
  } else {
    done = read_entries (&x, archive, error) && check_sums (&x, archive, error);
  }
  archive_read_free (x.reader);
  if (utf8) {
    uselocale (before);
    freelocale (utf8);
  }
  return done;
}

char *valise_metadata_license (const char *metadata, gsize length)
{
  g_autofree char *text = g_strndup (metadata, length);
  g_autofree char *license = NULL, *classifier = NULL;
  g_auto (GStrv) lines = g_strsplit (text, "\n", -1);
  for (char **line = lines; *line && **line && !g_str_equal (*line, "\r"); line++) { /* the headers end at the first empty line */
    const char *value = strchr (*line, ':');
    if (!value || !g_utf8_validate (*line, -1, NULL))
      continue;
    g_autofree char *stripped = g_strstrip (g_strdup (value + 1));
    if (strlen (stripped) == 0 || strlen (stripped) > 200)
      continue;
    if (g_str_has_prefix (*line, "License-Expression:"))
      return g_steal_pointer (&stripped);
    if (g_str_has_prefix (*line, "License:") && !license)
      license = g_steal_pointer (&stripped);
    else if (g_str_has_prefix (*line, "Classifier: License ::") && !classifier)
      classifier = g_strdup (strrchr (stripped, ':') ? strrchr (stripped, ':') + 2 : stripped);
  }
  return license ? g_steal_pointer (&license) : g_steal_pointer (&classifier);
}

/* ---- helpers ---- */

static gboolean read_entries (Extraction *x, ValiseArchive *archive, GError **error)
{
  struct archive_entry *entry;
  int code;
  while ((code = archive_read_next_header (x->reader, &entry)) != ARCHIVE_EOF) {
    if (!valise_check_cancelled (x->cancellable, error))
      return FALSE;
    if (code == ARCHIVE_FATAL || code == ARCHIVE_FAILED)
      return damaged (x, error);
    g_autofree char *name = check_entry (x, entry, error);
    if (!name)
      return FALSE;
    if (archive_entry_filetype (entry) == AE_IFDIR)
      continue;
    g_autofree char *lower = g_ascii_strdown (name, -1), *base = g_path_get_basename (name);
    gint64 size = archive_entry_size_is_set (entry) ? archive_entry_size (entry) : -1;
    gboolean fine = TRUE;
    if (g_str_has_suffix (lower, ".gguf"))
      fine = extract_model (x, archive, name, size, error);
    else if (eng_checkpoint_is_file_name (base))
      fine = extract_part (x, archive, name, size, error);
    else if (g_str_has_suffix (name, ".dist-info/METADATA"))
      fine = read_license (x, archive, name, error);
    else if (g_str_equal (name, "SHA256SUMS") && !archive->checksums)
      fine = (archive->checksums = read_text (x, error)) != NULL;
    else if (archive_read_data_skip (x->reader) < ARCHIVE_WARN)
      fine = damaged (x, error);
    if (!fine)
      return FALSE;
  }
  if (x->entries == 0) {
    g_set_error (error, VALISE_ERROR, VALISE_ERROR_DAMAGED, "%s is empty or not an archive: check that the download is complete", x->path);
    return FALSE;
  }
  return TRUE;
}

/* The entry's name, or NULL with why the archive is refused. */
static char *check_entry (Extraction *x, struct archive_entry *entry, GError **error)
{
  const char *raw = archive_entry_pathname_utf8 (entry);
  if (!raw)
    raw = archive_entry_pathname (entry);
  if (!raw || *raw == '\0') {
    unsafe (x, error, "an entry has no readable name");
    return NULL;
  }
  g_autofree char *name = g_utf8_make_valid (raw, -1);
  g_autofree char *shown = g_strescape (name, NULL);
  if (++x->entries > MAX_ENTRIES) {
    unsafe (x, error, "it has more than %d entries", MAX_ENTRIES);
    return NULL;
  }
  /* A backslash and a drive letter are separators elsewhere; no honest model needs them. */
  gboolean escapes = *name == '/' || strchr (name, '\\') || (g_ascii_isalpha (name[0]) && name[1] == ':');
  g_auto (GStrv) parts = g_strsplit (name, "/", -1);
  for (char **part = parts; *part; part++)
    escapes = escapes || g_str_equal (*part, "..");
  if (escapes) {
    unsafe (x, error, "the entry \"%.200s\" points out of its folder", shown);
    return NULL;
  }
  if (archive_entry_hardlink (entry) || archive_entry_symlink (entry) || archive_entry_filetype (entry) == AE_IFLNK) {
    unsafe (x, error, "the entry \"%.200s\" is a link", shown);
    return NULL;
  }
  if (archive_entry_filetype (entry) != AE_IFREG && archive_entry_filetype (entry) != AE_IFDIR) {
    unsafe (x, error, "the entry \"%.200s\" is neither a file nor a folder", shown);
    return NULL;
  }
  if (archive_entry_is_encrypted (entry)) {
    g_set_error (error, VALISE_ERROR, VALISE_ERROR_UNSAFE, "%s: the entry \"%.200s\" is encrypted: unpack the archive yourself and import the .gguf",
                 x->path, shown);
    return NULL;
  }
  gint64 size = archive_entry_size_is_set (entry) ? archive_entry_size (entry) : 0;
  if (size < 0 || (guint64) size > x->limit - x->declared) {
    unsafe (x, error, "it claims to hold more than %d times its own size", MAX_RATIO);
    return NULL;
  }
  x->declared += (guint64) size;
  return g_steal_pointer (&name);
}

/* The entry's content as a new file. */
static gboolean extract_file (Extraction *x, const char *path, const char *name, gint64 size, GError **error)
{
  if (size > 0 && !valise_check_space (x->folder, (guint64) size, name, error))
    return FALSE;
  int out = g_open (path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
  if (out < 0)
    return valise_fail_errno (error, errno, "cannot create", path);
  g_autofree char *what = g_strdup_printf ("extracting %s", name);
  gboolean fine = TRUE;
  guint64 here = 0;
  for (;;) {
    const void *block;
    size_t n;
    la_int64_t offset;
    int code = archive_read_data_block (x->reader, &block, &n, &offset);
    if (code == ARCHIVE_EOF)
      break;
    if (code != ARCHIVE_OK) {
      fine = damaged (x, error);
    } else if (offset < 0 || (guint64) offset != here) { /* sparse entries: a hole costs nothing to claim */
      fine = unsafe (x, error, "the entry \"%.200s\" has holes", name);
    } else {
      x->extracted += n;
      here += n;
      if (x->extracted > x->limit)
        fine = unsafe (x, error, "it unpacks to more than %d times its own size", MAX_RATIO);
    }
    fine = fine && valise_write_all (out, block, n, path, error) && valise_check_cancelled (x->cancellable, error);
    if (!fine)
      break;
    if (x->progress)
      x->progress (MIN (1.0, (double) archive_filter_bytes (x->reader, -1) / (double) MAX (x->archive_bytes, 1)), what, x->data);
  }
  if (fine && size >= 0 && here != (guint64) size)
    fine = damaged (x, error);
  if (fine && fsync (out) < 0)
    fine = valise_fail_errno (error, errno, "cannot write", path);
  close (out);
  return fine;
}

static gboolean extract_model (Extraction *x, ValiseArchive *archive, const char *name, gint64 size, GError **error)
{
  if (archive->files->len >= MAX_MODELS)
    return unsafe (x, error, "it holds more than %d models", MAX_MODELS);
  char *path = g_strdup_printf ("%s/%05u.gguf", x->folder, archive->files->len);
  g_ptr_array_add (archive->files, path);
  g_ptr_array_add (archive->names, g_strdup (name));
  return extract_file (x, path, name, size, error);
}

/* Under its own name, which is one that checkpoints have, in the folder that stands for its own. */
static gboolean extract_part (Extraction *x, ValiseArchive *archive, const char *name, gint64 size, GError **error)
{
  g_autofree char *base = g_path_get_basename (name), *parent = g_path_get_dirname (name);
  const char *own = g_str_equal (parent, ".") ? "" : parent;
  guint i = 0;
  while (i < archive->folders->len && !g_str_equal (archive->folder_names->pdata[i], own))
    i++;
  if (i == MAX_MODELS)
    return unsafe (x, error, "it holds more than %d models", MAX_MODELS);
  if (i == archive->folders->len) {
    char *folder = g_strdup_printf ("%s/%05u", x->folder, i);
    g_ptr_array_add (archive->folders, folder);
    g_ptr_array_add (archive->folder_names, g_strdup (own));
    if (g_mkdir (folder, 0755) < 0)
      return valise_fail_errno (error, errno, "cannot create the folder", folder);
  }
  char *path = g_build_filename (archive->folders->pdata[i], base, NULL);
  g_ptr_array_add (archive->parts, path);
  g_ptr_array_add (archive->part_names, g_strdup (name));
  if (g_file_test (path, G_FILE_TEST_EXISTS))
    return unsafe (x, error, "the entry \"%.200s\" is there twice", name);
  return extract_file (x, path, name, size, error);
}

/* The entry's first MAX_METADATA bytes as a text. */
static char *read_text (Extraction *x, GError **error)
{
  g_autofree char *text = g_malloc (MAX_METADATA + 1);
  la_ssize_t n = archive_read_data (x->reader, text, MAX_METADATA);
  if (n < 0 || archive_read_data_skip (x->reader) < ARCHIVE_WARN) {
    damaged (x, error);
    return NULL;
  }
  x->extracted += (guint64) n;
  text[n] = '\0';
  return g_steal_pointer (&text);
}

static gboolean read_license (Extraction *x, ValiseArchive *archive, const char *name, GError **error)
{
  g_autofree char *text = read_text (x, error);
  if (text && !archive->license)
    archive->license = valise_metadata_license (text, strlen (text));
  return text != NULL;
}

/* What an archive's own list says of a model in it. */
static gboolean check_sums_of (Extraction *x, char **lines, const GPtrArray *files, const GPtrArray *names, GError **error)
{
  for (guint i = 0; i < files->len; i++)
    for (char **line = lines; *line; line++) {
      if (strlen (*line) <= 66 || strcmp (*line + 66, names->pdata[i]) != 0)
        continue;
      g_autoptr (GChecksum) sum = g_checksum_new (G_CHECKSUM_SHA256);
      if (!valise_hash_file (files->pdata[i], sum, NULL, NULL, x->cancellable, error))
        return FALSE;
      if (strncmp (*line, g_checksum_get_string (sum), 64) != 0) {
        g_set_error (error, VALISE_ERROR, VALISE_ERROR_DAMAGED, "%s is damaged: %s in it has another checksum than its SHA256SUMS says: get it again", x->path,
                     (const char *) names->pdata[i]);
        return FALSE;
      }
    }
  return TRUE;
}

static gboolean check_sums (Extraction *x, const ValiseArchive *archive, GError **error)
{
  g_auto (GStrv) lines = g_strsplit (archive->checksums ? archive->checksums : "", "\n", -1);
  return check_sums_of (x, lines, archive->files, archive->names, error) && check_sums_of (x, lines, archive->parts, archive->part_names, error);
}

static gboolean unsafe (Extraction *x, GError **error, const char *format, ...)
{
  va_list arguments;
  va_start (arguments, format);
  g_autofree char *why = g_strdup_vprintf (format, arguments);
  va_end (arguments);
  g_set_error (error, VALISE_ERROR, VALISE_ERROR_UNSAFE, "%s is not safe to unpack, %s: get the model from a source you trust", x->path, why);
  return FALSE;
}

static gboolean damaged (Extraction *x, GError **error)
{
  const char *said = archive_error_string (x->reader);
  g_autofree char *why = g_strdup (said ? said : "it ends too early");
  g_strchomp (why); /* some of libarchive's sentences end a line */
  g_set_error (error, VALISE_ERROR, VALISE_ERROR_DAMAGED, "%s is damaged (%s): download it again", x->path, why);
  return FALSE;
}
