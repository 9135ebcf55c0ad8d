/* gguf_write.c: a GGUF v3 file that appears whole or not at all: a locked temporary beside the target, every byte written, fsync,
 * rename, fsync of the folder. */
#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "engine/checkpoint/gguf_private.h"
#include "engine/error.h"
#include "engine/file_at.h"

typedef struct {
  char *name;
  guint type, n_dims;
  guint64 dims[4], bytes, offset, written;
} Declared;

enum { HEADER_BYTES = 24 /* before the metadata: magic, version, numbers of tensors and keys */ };

struct EngGgufWriter {
  guint alignment;
  GHashTable *names;     /* keys already set -> where in `metadata` their kinds and values are */
  GByteArray *metadata;
  guint n_keys;
  GArray *tensors;       /* Declared */
  guint64 data_bytes, data_begin;
  char *path, *temporary;
  int fd;
};

static void clear_declared (Declared *declared)
{
  g_free (declared->name);
}

EngGgufWriter *eng_gguf_writer_new (guint alignment)
{
  EngGgufWriter *w = g_new0 (EngGgufWriter, 1);
  w->alignment = alignment;
  w->names = g_hash_table_new_full (g_str_hash, g_str_equal, g_free, NULL);
  w->metadata = g_byte_array_new ();
  w->tensors = g_array_new (FALSE, TRUE, sizeof (Declared));
  g_array_set_clear_func (w->tensors, (GDestroyNotify) clear_declared);
  w->fd = -1;
  eng_gguf_writer_set_u32 (w, "general.alignment", alignment);
  return w;
}

void eng_gguf_writer_free (EngGgufWriter *w)
{
  if (!w)
    return;
  if (w->fd >= 0)
    close (w->fd);
  if (w->temporary)
    g_unlink (w->temporary);
  g_hash_table_unref (w->names);
  g_byte_array_unref (w->metadata);
  g_array_unref (w->tensors);
  g_free (w->path);
  g_free (w->temporary);
  g_free (w);
}

static void put (GByteArray *out, const void *data, gsize size)
{
  g_byte_array_append (out, data, (guint) size);
}

static void put_u32 (GByteArray *out, guint32 v)
{
  v = GUINT32_TO_LE (v);
  put (out, &v, 4);
}

static void put_u64 (GByteArray *out, guint64 v)
{
  v = GUINT64_TO_LE (v);
  put (out, &v, 8);
}

static void put_string (GByteArray *out, const char *text)
{
  put_u64 (out, strlen (text));
  put (out, text, strlen (text));
}

/* Begins a key; FALSE when it has been set before (the first one stays). */
static gboolean begin_key (EngGgufWriter *w, const char *key)
{
  if (g_hash_table_contains (w->names, key))
    return FALSE;
  w->n_keys++;
  put_string (w->metadata, key);
  g_hash_table_insert (w->names, g_strdup (key), GSIZE_TO_POINTER (w->metadata->len));
  return TRUE;
}

void eng_gguf_writer_set_string (EngGgufWriter *w, const char *key, const char *value)
{
  if (begin_key (w, key)) {
    put_u32 (w->metadata, ENG_KV_STRING);
    put_string (w->metadata, value);
  }
}

void eng_gguf_writer_set_u32 (EngGgufWriter *w, const char *key, guint32 value)
{
  if (begin_key (w, key)) {
    put_u32 (w->metadata, ENG_KV_U32);
    put_u32 (w->metadata, value);
  }
}

void eng_gguf_writer_set_u64 (EngGgufWriter *w, const char *key, guint64 value)
{
  if (begin_key (w, key)) {
    put_u32 (w->metadata, ENG_KV_U64);
    put_u64 (w->metadata, value);
  }
}

void eng_gguf_writer_set_f32 (EngGgufWriter *w, const char *key, float value)
{
  guint32 bits;
  memcpy (&bits, &value, 4);
  if (begin_key (w, key)) {
    put_u32 (w->metadata, ENG_KV_F32);
    put_u32 (w->metadata, bits);
  }
}

void eng_gguf_writer_set_f64 (EngGgufWriter *w, const char *key, double value)
{
  guint64 bits;
  memcpy (&bits, &value, 8);
  if (begin_key (w, key)) {
    put_u32 (w->metadata, ENG_KV_F64);
    put_u64 (w->metadata, bits);
  }
}

void eng_gguf_writer_set_bool (EngGgufWriter *w, const char *key, gboolean value)
{
  if (begin_key (w, key)) {
    guint8 byte = value != 0;
    put_u32 (w->metadata, ENG_KV_BOOL);
    put (w->metadata, &byte, 1);
  }
}

/* Key, kind and length of an array; FALSE when it has been set before. */
static gboolean begin_array (EngGgufWriter *w, const char *key, EngKvType kind, gsize n)
{
  if (!begin_key (w, key))
    return FALSE;
  put_u32 (w->metadata, ENG_KV_ARRAY);
  put_u32 (w->metadata, kind);
  put_u64 (w->metadata, n);
  return TRUE;
}

void eng_gguf_writer_set_strings (EngGgufWriter *w, const char *key, const char *const *values, const gsize *lengths, gsize n)
{
  gboolean new = begin_array (w, key, ENG_KV_STRING, n);
  for (gsize i = 0; new && i < n; i++) {
    put_u64 (w->metadata, lengths[i]);
    put (w->metadata, values[i], lengths[i]);
  }
}

void eng_gguf_writer_set_i32s (EngGgufWriter *w, const char *key, const gint32 *values, gsize n)
{
  gboolean new = begin_array (w, key, ENG_KV_I32, n);
  for (gsize i = 0; new && i < n; i++)
    put_u32 (w->metadata, (guint32) values[i]);
}

void eng_gguf_writer_set_f32s (EngGgufWriter *w, const char *key, const float *values, gsize n)
{
  gboolean new = begin_array (w, key, ENG_KV_F32, n);
  for (gsize i = 0; new && i < n; i++) {
    guint32 bits;
    memcpy (&bits, &values[i], 4);
    put_u32 (w->metadata, bits);
  }
}

void eng_gguf_writer_set_u8s (EngGgufWriter *w, const char *key, const guint8 *values, gsize n)
{
  if (begin_array (w, key, ENG_KV_U8, n))
    put (w->metadata, values, n);
}

void eng_gguf_writer_copy_metadata (EngGgufWriter *w, const EngGguf *source)
{
  eng_gguf_writer_copy_keys (w, source, "");
}

void eng_gguf_writer_copy_keys (EngGgufWriter *w, const EngGguf *source, const char *prefix)
{
  for (guint i = 0; i < eng_gguf_n_keys (source); i++) {
    const char *key = eng_gguf_key (source, i);
    gsize size;
    const guint8 *raw = eng_gguf_raw_value (source, i, &size);
    if (g_str_has_prefix (key, prefix) && !g_str_has_prefix (key, "split.") && begin_key (w, key))
      put (w->metadata, raw, size);
  }
}

GBytes *eng_gguf_writer_keys (const EngGgufWriter *w)
{
  GByteArray *out = g_byte_array_new ();
  put (out, "GGUF", 4);
  put_u32 (out, 3);
  put_u64 (out, 0);
  put_u64 (out, w->n_keys);
  put (out, w->metadata->data, w->metadata->len);
  return g_byte_array_free_to_bytes (out);
}

static guint64 aligned (const EngGgufWriter *w, guint64 n)
{
  return (n + w->alignment - 1) / w->alignment * w->alignment;
}

guint eng_gguf_writer_add_tensor (EngGgufWriter *w, const char *name, guint type, guint n_dims, const guint64 *dims)
{
  const EngTypeTraits *traits = eng_type_traits (type);
  g_return_val_if_fail (traits && n_dims >= 1 && n_dims <= 4 && dims[0] % traits->block == 0 && w->fd < 0, 0);
  Declared declared = { .name = g_strdup (name), .type = type, .n_dims = n_dims, .bytes = traits->block_bytes };
  for (guint i = 0; i < n_dims; i++) {
    declared.dims[i] = dims[i];
    declared.bytes *= i == 0 ? dims[i] / traits->block : dims[i];
  }
  declared.offset = aligned (w, w->data_bytes);
  w->data_bytes = declared.offset + declared.bytes;
  g_array_append_val (w->tensors, declared);
  return w->tensors->len - 1;
}

static GByteArray *header (const EngGgufWriter *w)
{
  GByteArray *out = g_byte_array_new ();
  put (out, "GGUF", 4);
  put_u32 (out, 3);
  put_u64 (out, w->tensors->len);
  put_u64 (out, w->n_keys);
  put (out, w->metadata->data, w->metadata->len);
  for (guint i = 0; i < w->tensors->len; i++) {
    const Declared *t = &g_array_index (w->tensors, Declared, i);
    put_string (out, t->name);
    put_u32 (out, t->n_dims);
    for (guint d = 0; d < t->n_dims; d++)
      put_u64 (out, t->dims[d]);
    put_u32 (out, t->type);
    put_u64 (out, t->offset);
  }
  static const guint8 zeros[64];
  while (out->len % w->alignment)
    put (out, zeros, MIN (sizeof zeros, w->alignment - out->len % w->alignment));
  return out;
}

guint64 eng_gguf_writer_file_bytes (const EngGgufWriter *w)
{
  g_autoptr (GByteArray) out = header (w);
  return out->len + w->data_bytes;
}

static gboolean write_error (const EngGgufWriter *w, GError **error)
{
  int saved = errno;
  g_set_error (error, ENG_ERROR, ENG_ERROR_IO, "%s could not be written: %s%s", w->path, g_strerror (saved),
               saved == ENOSPC || saved == EDQUOT || saved == EFBIG ? "; free some space or choose another folder" : "");
  return FALSE;
}

static gboolean write_at (EngGgufWriter *w, guint64 offset, const void *data, gsize size, GError **error)
{
  return eng_write_at (w->fd, offset, data, size) || write_error (w, error);
}

static gboolean check_space (const EngGgufWriter *w, const char *folder, guint64 needed, GError **error)
{
  struct statvfs vfs;
  if (statvfs (folder, &vfs) < 0 || (guint64) vfs.f_bavail * vfs.f_frsize >= needed)
    return TRUE; /* a folder that is not there is named when the file is created */
  g_autofree char *need = g_format_size (needed), *have = g_format_size ((guint64) vfs.f_bavail * vfs.f_frsize);
  g_set_error (error, ENG_ERROR, ENG_ERROR_IO, "%s needs %s and only %s are free there; free some space or choose another folder", w->path, need, have);
  return FALSE;
}

/* Removes what killed writers of the same file left behind: the temporaries that nobody holds locked. */
static void sweep_dead (const char *folder, const char *name)
{
  g_autofree char *prefix = g_strdup_printf (".%s.valise-", name);
  g_autoptr (GDir) dir = g_dir_open (folder, 0, NULL);
  for (const char *entry; dir && (entry = g_dir_read_name (dir));) {
    if (!g_str_has_prefix (entry, prefix) || !g_str_has_suffix (entry, ".tmp"))
      continue;
    g_autofree char *path = g_build_filename (folder, entry, NULL);
    int fd = open (path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd >= 0 && flock (fd, LOCK_EX | LOCK_NB) == 0)
      g_unlink (path);
    if (fd >= 0)
      close (fd);
  }
}

/* Creates the temporary under a lock that ends with this process: one that can be locked is a dead writer's and is taken over. */
static gboolean create_temporary (EngGgufWriter *w, const char *path, GError **error)
{
  struct stat here, there;
  w->fd = open (path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
  if (w->fd < 0)
    return write_error (w, error);
  /* Between opening and locking its writer may have finished and renamed it. */
  gboolean is_ours = flock (w->fd, LOCK_EX | LOCK_NB) == 0 && fstat (w->fd, &here) == 0 && stat (path, &there) == 0 && here.st_ino == there.st_ino
                     && here.st_dev == there.st_dev;
  if (!is_ours) {
    g_set_error (error, ENG_ERROR, ENG_ERROR_IO, "%s is being written already; wait until that is done", w->path);
    return FALSE;
  }
  w->temporary = g_strdup (path);
  return ftruncate (w->fd, 0) == 0 || write_error (w, error);
}

gboolean eng_gguf_writer_begin (EngGgufWriter *w, const char *path, GError **error)
{
  g_return_val_if_fail (w->fd < 0 && !w->path, FALSE);
  w->path = g_strdup (path);
  g_autofree char *folder = g_path_get_dirname (path), *name = g_path_get_basename (path);
  g_autofree char *hidden = g_strdup_printf (".%s.valise-%d.tmp", name, (int) getpid ());
  g_autofree char *temporary = g_build_filename (folder, hidden, NULL);
  g_autoptr (GByteArray) out = header (w);
  w->data_begin = out->len;
  guint64 bytes = out->len + w->data_bytes;
  sweep_dead (folder, name);
  if (!check_space (w, folder, bytes, error) || !create_temporary (w, temporary, error))
    return FALSE;
  /* Take the room now rather than fail after minutes of work; not every file system can. */
  if (fallocate (w->fd, 0, 0, (off_t) bytes) < 0 && errno != EOPNOTSUPP && errno != ENOSYS)
    return write_error (w, error);
  return write_at (w, 0, out->data, out->len, error);
}

gboolean eng_gguf_writer_write (EngGgufWriter *w, guint i, guint64 offset, const void *data, gsize size, GError **error)
{
  g_return_val_if_fail (w->fd >= 0 && i < w->tensors->len, FALSE);
  Declared *t = &g_array_index (w->tensors, Declared, i);
  g_return_val_if_fail (offset <= t->bytes && size <= t->bytes - offset, FALSE);
  t->written += size;
  return write_at (w, w->data_begin + t->offset + offset, data, size, error);
}

gboolean eng_gguf_writer_rewrite (EngGgufWriter *w, guint i, const void *data, GError **error)
{
  g_return_val_if_fail (w->fd >= 0 && i < w->tensors->len, FALSE);
  const Declared *t = &g_array_index (w->tensors, Declared, i);
  g_return_val_if_fail (t->written == t->bytes, FALSE);
  return write_at (w, w->data_begin + t->offset, data, t->bytes, error);
}

/* The value of a key, `skip` bytes behind its kind. */
static gboolean replace (EngGgufWriter *w, const char *key, gsize skip, const void *data, gsize size, GError **error)
{
  gsize offset = GPOINTER_TO_SIZE (g_hash_table_lookup (w->names, key)) + 4 + skip;
  g_return_val_if_fail (g_hash_table_contains (w->names, key) && offset + size <= w->metadata->len, FALSE);
  memcpy (w->metadata->data + offset, data, size);
  return w->fd < 0 || write_at (w, HEADER_BYTES + offset, data, size, error);
}

gboolean eng_gguf_writer_replace_f64 (EngGgufWriter *w, const char *key, double value, GError **error)
{
  guint64 bits;
  memcpy (&bits, &value, 8);
  bits = GUINT64_TO_LE (bits);
  return replace (w, key, 0, &bits, 8, error);
}

gboolean eng_gguf_writer_replace_f32s (EngGgufWriter *w, const char *key, const float *values, gsize n, GError **error)
{
  g_autofree guint32 *bits = g_memdup2 (values, n * 4);
  for (gsize i = 0; i < n; i++)
    bits[i] = GUINT32_TO_LE (bits[i]);
  return replace (w, key, 12, bits, n * 4, error); /* behind the elements' kind and number */
}

const char *eng_gguf_writer_temporary (const EngGgufWriter *w)
{
  return w->temporary;
}

gboolean eng_gguf_writer_finish (EngGgufWriter *w, GError **error)
{
  g_return_val_if_fail (w->fd >= 0, FALSE);
  for (guint i = 0; i < w->tensors->len; i++) {
    const Declared *t = &g_array_index (w->tensors, Declared, i);
    if (t->written != t->bytes) {
      g_set_error (error, ENG_ERROR, ENG_ERROR_ARGUMENT, "%s: tensor %s was not written whole", w->path, t->name);
      return FALSE;
    }
  }
  if (ftruncate (w->fd, (off_t) (w->data_begin + w->data_bytes)) < 0 || fsync (w->fd) < 0)
    return write_error (w, error);
  int closed = close (w->fd);
  w->fd = -1;
  if (closed < 0 || g_rename (w->temporary, w->path) < 0)
    return write_error (w, error);
  g_clear_pointer (&w->temporary, g_free);
  g_autofree char *folder = g_path_get_dirname (w->path);
  int dir = open (folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  gboolean ok = dir >= 0 && fsync (dir) == 0;
  if (!ok)
    write_error (w, error);
  if (dir >= 0)
    close (dir);
  return ok;
}
