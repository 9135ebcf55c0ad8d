/* gguf_read.c: a GGUF file mapped and validated: after open every pointer handed out lies inside the mapping. */
#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/checkpoint/gguf_private.h"
#include "engine/checkpoint/packed.h"
#include "engine/error.h"

enum { MAX_NAME = 1024, MAX_NESTING = 4, MAX_SHARDS = 1024, MAX_KEYS = 1 << 16, MAX_TENSORS = 1 << 20, MAX_TEXT = 16 << 20 };

typedef struct {
  gpointer object;
  GDestroyNotify free;
} Owned;

/* A bounded read position; the first failure is kept in *error. */
typedef struct {
  const char *path;
  guint8 *data;
  guint64 size, pos;
  gboolean swapped;
  GError **error;
} Cursor;

static gboolean fail (const Cursor *c, EngError code, const char *format, ...) G_GNUC_PRINTF (3, 4);

static gboolean fail (const Cursor *c, EngError code, const char *format, ...)
{
  va_list args;
  va_start (args, format);
  g_autofree char *what = g_strdup_vprintf (format, args);
  va_end (args);
  g_set_error (c->error, ENG_ERROR, code, "%s: %s", c->path, what);
  return FALSE;
}

static gboolean cut_short (const Cursor *c, guint64 needed)
{
  return fail (c, ENG_ERROR_FORMAT, "the file is cut short: it needs at least %" G_GUINT64_FORMAT " bytes and has %" G_GUINT64_FORMAT
               "; download it again", needed, c->size);
}

static gboolean take (Cursor *c, guint64 n, const guint8 **out)
{
  if (n > c->size - c->pos)
    return cut_short (c, c->pos + MIN (n, G_MAXUINT64 - c->pos));
  *out = c->data + c->pos;
  c->pos += n;
  return TRUE;
}

/* `count` numbers of `size` bytes each; a big-endian file's are little-endian in the mapping from here on. */
static gboolean take_numbers (Cursor *c, guint size, guint64 count, const guint8 **out)
{
  guint64 at = c->pos;
  if (!take (c, count * size, out))
    return FALSE;
  for (guint64 i = 0; c->swapped && i < count; i++)
    for (guint k = 0; k < size / 2; k++) {
      guint8 *p = c->data + at + i * size, byte = p[k];
      p[k] = p[size - 1 - k];
      p[size - 1 - k] = byte;
    }
  return TRUE;
}

static gboolean take_u32 (Cursor *c, guint32 *out)
{
  const guint8 *p = NULL;
  if (!take_numbers (c, 4, 1, &p))
    return FALSE;
  *out = eng_u32_at (p);
  return TRUE;
}

static gboolean take_u64 (Cursor *c, guint64 *out)
{
  const guint8 *p = NULL;
  if (!take_numbers (c, 8, 1, &p))
    return FALSE;
  *out = eng_u64_at (p);
  return TRUE;
}

static gboolean take_string (Cursor *c, const guint8 **text, guint64 *length)
{
  return take_u64 (c, length) && take (c, *length, text);
}

static gboolean take_name (Cursor *c, const char *what, char **name)
{
  const guint8 *text = NULL;
  guint64 length = 0;
  if (!take_string (c, &text, &length))
    return FALSE;
  gboolean is_clean = length > 0 && length <= MAX_NAME && g_utf8_validate_len ((const char *) text, length, NULL);
  for (guint64 i = 0; is_clean && i < length; i++)
    is_clean = text[i] >= ' ' && text[i] != 127;
  if (!is_clean)
    return fail (c, ENG_ERROR_FORMAT, "the name of a %s is empty, too long or not text; the file is damaged", what);
  *name = g_strndup ((const char *) text, length);
  return TRUE;
}

/* Walks an array from its element type word; fills key when it is not nested. */
static gboolean read_array (Cursor *c, EngKey *key, const char *name, int depth)
{
  guint32 element;
  guint64 count;
  if (!take_u32 (c, &element) || !take_u64 (c, &count))
    return FALSE;
  if (element > ENG_KV_F64)
    return fail (c, ENG_ERROR_FORMAT, "key %s holds an array of unknown kind %u; the file is damaged or newer than this program", name, element);
  if (depth > MAX_NESTING)
    return fail (c, ENG_ERROR_FORMAT, "key %s nests arrays too deeply; the file is damaged", name);
  guint least = element == ENG_KV_STRING ? 8 : element == ENG_KV_ARRAY ? 12 : eng_kv_size (element);
  if (count > (c->size - c->pos) / least)
    return fail (c, ENG_ERROR_FORMAT, "key %s claims %" G_GUINT64_FORMAT " array elements, more than the file can hold; the file is damaged",
                 name, count);
  const guint8 *begin = c->data + c->pos;
  if (key) {
    key->element = element;
    key->count = count;
    key->data = begin;
  }
  if (element == ENG_KV_STRING) {
    if (key)
      key->offsets = g_new (guint64, count / ENG_STRING_STRIDE + 1);
    for (guint64 i = 0; i < count; i++) {
      const guint8 *text = NULL;
      guint64 length = 0;
      if (key && i % ENG_STRING_STRIDE == 0)
        key->offsets[i / ENG_STRING_STRIDE] = (guint64) (c->data + c->pos - begin);
      if (!take_string (c, &text, &length))
        return FALSE;
    }
    return TRUE;
  }
  if (element == ENG_KV_ARRAY) {
    for (guint64 i = 0; i < count; i++)
      if (!read_array (c, NULL, name, depth + 1))
        return FALSE;
    return TRUE;
  }
  const guint8 *skipped = NULL;
  return take_numbers (c, eng_kv_size (element), count, &skipped);
}

static gboolean read_key (Cursor *c, EngKey *key)
{
  guint32 type;
  if (!take_name (c, "key", &key->name))
    return FALSE;
  key->raw = c->data + c->pos;
  if (!take_u32 (c, &type))
    return FALSE;
  if (type > ENG_KV_F64)
    return fail (c, ENG_ERROR_FORMAT, "key %s is of unknown kind %u; the file is damaged or newer than this program", key->name, type);
  key->type = type;
  if (type == ENG_KV_ARRAY)
    return read_array (c, key, key->name, 0);
  if (type == ENG_KV_STRING) {
    const guint8 *text = NULL;
    guint64 length = 0;
    if (!take_string (c, &text, &length))
      return FALSE;
    if (length > MAX_TEXT)
      return fail (c, ENG_ERROR_FORMAT, "key %s holds a text of %" G_GUINT64_FORMAT " bytes; the file is damaged", key->name, length);
    key->data = text;
    key->string = g_utf8_make_valid ((const char *) text, (gssize) length);
    return TRUE;
  }
  return take_numbers (c, eng_kv_size (type), 1, &key->data);
}

static gboolean read_tensor (Cursor *c, EngTensor *tensor, char **name)
{
  guint32 n_dims, type;
  guint64 offset;
  if (!take_name (c, "tensor", name) || !take_u32 (c, &n_dims))
    return FALSE;
  tensor->name = *name;
  if (n_dims < 1 || n_dims > 4)
    return fail (c, ENG_ERROR_FORMAT, "tensor %s has %u dimensions, 1 to 4 are possible; the file is damaged", *name, n_dims);
  tensor->n_dims = n_dims;
  guint64 count = 1;
  for (guint i = 0; i < 4; i++) {
    tensor->dims[i] = 1;
    if (i < n_dims && !take_u64 (c, &tensor->dims[i]))
      return FALSE;
    if (tensor->dims[i] == 0 || tensor->dims[i] > (guint64) G_MAXINT64 / count)
      return fail (c, ENG_ERROR_FORMAT, "tensor %s has an impossible size; the file is damaged", *name);
    count *= tensor->dims[i];
  }
  if (!take_u32 (c, &type) || !take_u64 (c, &offset))
    return FALSE;
  tensor->type = type;
  const EngTypeTraits *traits = eng_type_traits (type);
  if (!traits)
    return fail (c, ENG_ERROR_UNSUPPORTED, "tensor %s is of type %u, which this program does not know; update Valise or choose another file",
                 *name, type);
  if (tensor->dims[0] % traits->block != 0)
    return fail (c, ENG_ERROR_FORMAT, "tensor %s has rows of %" G_GUINT64_FORMAT " weights, no multiple of the %u of a %s block; the file is damaged",
                 *name, tensor->dims[0], traits->block, traits->name);
  count /= traits->block;
  if (count > (guint64) G_MAXINT64 / traits->block_bytes)
    return fail (c, ENG_ERROR_FORMAT, "tensor %s has an impossible size; the file is damaged", *name);
  tensor->bytes = count * traits->block_bytes;
  tensor->swapped = c->swapped;
  tensor->data = GSIZE_TO_POINTER (offset); /* an offset until place_tensors has checked it */
  return TRUE;
}

static int by_offset (const void *a, const void *b, void *data)
{
  const GArray *tensors = data;
  guint64 x = GPOINTER_TO_SIZE (g_array_index (tensors, EngTensor, *(const guint *) a).data);
  guint64 y = GPOINTER_TO_SIZE (g_array_index (tensors, EngTensor, *(const guint *) b).data);
  return x < y ? -1 : x > y;
}

/* Turns the offsets of the tensors from `first` on into pointers, refusing those misaligned, overlapping or outside the file. */
static gboolean place_tensors (Cursor *c, GArray *tensors, guint first, guint64 alignment)
{
  guint64 begin = (c->pos + alignment - 1) / alignment * alignment;
  guint n = tensors->len - first;
  g_autofree guint *order = g_new (guint, n + 1);
  for (guint i = 0; i < n; i++)
    order[i] = first + i;
  g_qsort_with_data (order, (gint) n, sizeof *order, by_offset, tensors);
  guint64 end = 0;
  const char *previous = NULL;
  for (guint i = 0; i < n; i++) {
    EngTensor *tensor = &g_array_index (tensors, EngTensor, order[i]);
    guint64 offset = GPOINTER_TO_SIZE (tensor->data);
    if (offset % alignment != 0)
      return fail (c, ENG_ERROR_FORMAT, "tensor %s is not aligned to %" G_GUINT64_FORMAT " bytes; the file is damaged", tensor->name, alignment);
    if (offset < end)
      return fail (c, ENG_ERROR_FORMAT, "tensors %s and %s overlap; the file is damaged", previous, tensor->name);
    if (begin > c->size || offset > c->size - begin || tensor->bytes > c->size - begin - offset)
      return fail (c, ENG_ERROR_FORMAT, "the file is cut short: tensor %s ends at byte %" G_GUINT64_FORMAT " and the file at %" G_GUINT64_FORMAT
                   "; download it again", tensor->name, begin + MIN (offset, G_MAXINT64) + tensor->bytes, c->size);
    end = offset + tensor->bytes;
    previous = tensor->name;
    tensor->data = c->data + begin + offset;
  }
  return TRUE;
}

/* The magic reads the same in both kinds; a version of a few thousand millions is a small one turned round. */
static gboolean is_big_endian (int fd)
{
  guint8 head[8] = { 0 };
  return pread (fd, head, sizeof head, 0) == sizeof head && memcmp (head, "GGUF", 4) == 0 && head[4] == 0 && head[5] == 0 && head[6] == 0 && head[7] != 0;
}

static gboolean map_file (EngGguf *gguf, const char *path, EngShard *shard, GError **error)
{
  int fd = open (path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a pipe by that name must not make us wait */
  struct stat st;
  if (fd < 0 || fstat (fd, &st) < 0) {
    g_set_error (error, ENG_ERROR, ENG_ERROR_IO, "%s could not be opened: %s", path, g_strerror (errno));
    if (fd >= 0)
      close (fd);
    return FALSE;
  }
  if (!S_ISREG (st.st_mode) || st.st_size < 24) {
    g_set_error (error, ENG_ERROR, ENG_ERROR_FORMAT, "%s is not a GGUF model file: %s", path,
                 S_ISREG (st.st_mode) ? "it is shorter than a header" : "it is not an ordinary file");
    close (fd);
    return FALSE;
  }
  shard->size = (guint64) st.st_size;
  shard->swapped = is_big_endian (fd);
  shard->map = shard->swapped ? mmap (NULL, shard->size, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0)
                              : mmap (NULL, shard->size, PROT_READ, MAP_SHARED, fd, 0);
  int saved = errno;
  close (fd);
  if (shard->map == MAP_FAILED) {
    shard->map = NULL;
    g_set_error (error, ENG_ERROR, ENG_ERROR_IO, "%s could not be mapped: %s", path, g_strerror (saved));
    return FALSE;
  }
  g_array_append_val (gguf->shards, *shard);
  gguf->bytes += shard->size;
  return TRUE;
}

static gboolean read_header (Cursor *c, guint64 *n_tensors, guint64 *n_keys)
{
  guint32 magic = 0, version = 0;
  const guint8 *start = NULL;
  if (!take (c, 4, &start) || !take_u32 (c, &version))
    return FALSE;
  magic = eng_u32_at (start);
  if (memcmp (c->data, "version https://git-lfs", 23) == 0)
    return fail (c, ENG_ERROR_FORMAT, "this is only a Git LFS pointer to the model; download the file itself");
  if (magic != 0x46554747)
    return fail (c, ENG_ERROR_FORMAT, "this is not a GGUF model file; choose a file that ends in .gguf");
  if (version < 2 || version > 3)
    return fail (c, ENG_ERROR_UNSUPPORTED, "this GGUF file is of version %u, and versions 2 and 3 can be read; download a newer file", version);
  if (!take_u64 (c, n_tensors) || !take_u64 (c, n_keys))
    return FALSE;
  guint64 left = c->size - c->pos;
  if (*n_tensors > MIN (left / 33, MAX_TENSORS) || *n_keys > MIN (left / 14, MAX_KEYS))
    return fail (c, ENG_ERROR_FORMAT, "the header claims %" G_GUINT64_FORMAT " tensors and %" G_GUINT64_FORMAT
                 " keys, more than it can hold; the file is damaged", *n_tensors, *n_keys);
  return TRUE;
}

static void clear_key (EngKey *key)
{
  g_free (key->name);
  g_free (key->string);
  g_free (key->offsets);
}

/* Reads one file's header. Metadata of later shards is walked and dropped. */
static gboolean read_file (EngGguf *gguf, Cursor c, gboolean is_first)
{
  guint64 n_tensors = 0, n_keys = 0, alignment = 32;
  if (!read_header (&c, &n_tensors, &n_keys))
    return FALSE;
  for (guint64 i = 0; i < n_keys; i++) {
    EngKey key = { 0 };
    gboolean ok = read_key (&c, &key);
    key.raw_bytes = (gsize) (c.data + c.pos - key.raw);
    if (ok && strcmp (key.name, "general.alignment") == 0) {
      alignment = key.type == ENG_KV_U32 ? eng_u32_at (key.data) : 0;
      ok = alignment >= 8 && alignment <= 1 << 24 && (alignment & (alignment - 1)) == 0;
      if (!ok)
        fail (&c, ENG_ERROR_FORMAT, "general.alignment is no power of two from 8 on; the file is damaged");
    }
    if (ok && is_first && g_hash_table_contains (gguf->key_index, key.name))
      ok = fail (&c, ENG_ERROR_FORMAT, "key %s appears twice; the file is damaged", key.name);
    if (!ok || !is_first) {
      clear_key (&key);
      if (!ok)
        return FALSE;
      continue;
    }
    g_array_append_val (gguf->keys, key);
    g_hash_table_insert (gguf->key_index, key.name, GUINT_TO_POINTER (gguf->keys->len));
  }
  guint first = gguf->tensors->len;
  for (guint64 i = 0; i < n_tensors; i++) {
    EngTensor tensor = { 0 };
    char *name = NULL;
    gboolean ok = read_tensor (&c, &tensor, &name);
    if (ok && g_hash_table_contains (gguf->tensor_index, name))
      ok = fail (&c, ENG_ERROR_FORMAT, "tensor %s appears twice; the file is damaged", name);
    if (!ok) {
      g_free (name);
      return FALSE;
    }
    g_array_append_val (gguf->tensors, tensor);
    g_hash_table_insert (gguf->tensor_index, name, GUINT_TO_POINTER (gguf->tensors->len));
  }
  return place_tensors (&c, gguf->tensors, first, alignment);
}

static gboolean read_shard (EngGguf *gguf, const char *path, gboolean is_first, GError **error)
{
  EngShard shard = { 0 };
  return map_file (gguf, path, &shard, error)
         && read_file (gguf, (Cursor) { .path = path, .data = shard.map, .size = shard.size, .swapped = shard.swapped, .error = error }, is_first);
}

/* "name-00001-of-00003.gguf": reads the other parts, which must lie beside the first. */
static gboolean read_other_shards (EngGguf *gguf, GError **error)
{
  gint64 count = eng_gguf_get_int (gguf, "split.count", 1);
  if (count <= 1)
    return TRUE;
  g_autofree char *ending = g_strdup_printf ("-00001-of-%05" G_GINT64_FORMAT ".gguf", count);
  if (count > MAX_SHARDS || !g_str_has_suffix (gguf->path, ending)) {
    g_set_error (error, ENG_ERROR, ENG_ERROR_FORMAT, "%s is one part of %" G_GINT64_FORMAT "; open the part whose name ends in -00001-of-%05"
                 G_GINT64_FORMAT ".gguf", gguf->path, count, count);
    return FALSE;
  }
  g_autofree char *stem = g_strndup (gguf->path, strlen (gguf->path) - strlen (ending));
  for (gint64 i = 2; i <= count; i++) {
    g_autofree char *path = g_strdup_printf ("%s-%05" G_GINT64_FORMAT "-of-%05" G_GINT64_FORMAT ".gguf", stem, i, count);
    if (!read_shard (gguf, path, FALSE, error))
      return FALSE;
  }
  gint64 total = eng_gguf_get_int (gguf, "split.tensors.count", gguf->tensors->len);
  if (total == gguf->tensors->len)
    return TRUE;
  g_set_error (error, ENG_ERROR, ENG_ERROR_FORMAT, "%s: the parts hold %u tensors instead of %" G_GINT64_FORMAT "; download them again",
               gguf->path, gguf->tensors->len, total);
  return FALSE;
}

/* FNV-1a from a start that no file can know: names made to collide would otherwise cost quadratic time. */
static guint hash_name (gconstpointer name)
{
  static gsize seed;
  if (g_once_init_enter (&seed))
    g_once_init_leave (&seed, (gsize) g_random_int () << 32 | g_random_int () | 1);
  guint64 hash = seed;
  for (const guint8 *p = name; *p; p++)
    hash = (hash ^ *p) * G_GUINT64_CONSTANT (0x100000001b3);
  return (guint) (hash ^ hash >> 32);
}

static EngGguf *new_view (const char *path)
{
  EngGguf *gguf = g_new0 (EngGguf, 1);
  g_atomic_ref_count_init (&gguf->refs);
  gguf->path = g_strdup (path);
  gguf->shards = g_array_new (FALSE, TRUE, sizeof (EngShard));
  gguf->keys = g_array_new (FALSE, TRUE, sizeof (EngKey));
  g_array_set_clear_func (gguf->keys, (GDestroyNotify) clear_key);
  gguf->tensors = g_array_new (FALSE, TRUE, sizeof (EngTensor));
  gguf->key_index = g_hash_table_new (hash_name, g_str_equal);
  gguf->tensor_index = g_hash_table_new_full (hash_name, g_str_equal, g_free, NULL);
  gguf->owned = g_array_new (FALSE, FALSE, sizeof (Owned));
  return gguf;
}

EngGguf *eng_gguf_open (const char *path, GError **error)
{
  g_autoptr (EngGguf) gguf = new_view (path);
  if (!read_shard (gguf, path, TRUE, error) || !read_other_shards (gguf, error))
    return NULL;
  return g_steal_pointer (&gguf);
}

EngGguf *eng_gguf_new_from_keys (const char *path, const EngGgufWriter *writer, guint64 file_bytes, GError **error)
{
  g_autoptr (EngGguf) gguf = new_view (path);
  gsize size;
  gguf->header = eng_gguf_writer_keys (writer);
  gguf->bytes = file_bytes;
  guint8 *data = (guint8 *) g_bytes_get_data (gguf->header, &size);
  if (!read_file (gguf, (Cursor) { .path = path, .data = data, .size = size, .error = error }, TRUE))
    return NULL;
  return g_steal_pointer (&gguf);
}

gboolean eng_gguf_add_tensor (EngGguf *gguf, const EngTensor *tensor)
{
  if (g_hash_table_contains (gguf->tensor_index, tensor->name))
    return FALSE;
  EngTensor added = *tensor;
  char *name = g_strdup (tensor->name);
  added.name = name;
  g_array_append_val (gguf->tensors, added);
  g_hash_table_insert (gguf->tensor_index, name, GUINT_TO_POINTER (gguf->tensors->len));
  return TRUE;
}

void eng_gguf_own (EngGguf *gguf, gpointer object, GDestroyNotify free)
{
  Owned owned = { object, free };
  g_array_append_val (gguf->owned, owned);
}

EngGguf *eng_gguf_ref (EngGguf *gguf)
{
  g_atomic_ref_count_inc (&gguf->refs);
  return gguf;
}

void eng_gguf_unref (EngGguf *gguf)
{
  if (!gguf || !g_atomic_ref_count_dec (&gguf->refs))
    return;
  for (guint i = 0; i < gguf->shards->len; i++) {
    EngShard *shard = &g_array_index (gguf->shards, EngShard, i);
    munmap (shard->map, shard->size);
  }
  for (guint i = gguf->owned->len; i-- > 0;)
    g_array_index (gguf->owned, Owned, i).free (g_array_index (gguf->owned, Owned, i).object);
  g_array_unref (gguf->owned);
  g_hash_table_unref (gguf->key_index);
  g_hash_table_unref (gguf->tensor_index);
  g_array_unref (gguf->shards);
  g_array_unref (gguf->keys);
  g_array_unref (gguf->tensors);
  if (gguf->header)
    g_bytes_unref (gguf->header);
  g_free (gguf->path);
  g_free (gguf);
}

const char *eng_gguf_path (const EngGguf *gguf)
{
  return gguf->path;
}

guint64 eng_gguf_file_bytes (const EngGguf *gguf)
{
  return gguf->bytes;
}

guint eng_gguf_n_tensors (const EngGguf *gguf)
{
  return gguf->tensors->len;
}

const EngTensor *eng_gguf_tensor (const EngGguf *gguf, guint i)
{
  g_return_val_if_fail (i < gguf->tensors->len, NULL);
  return &g_array_index (gguf->tensors, EngTensor, i);
}

const EngTensor *eng_gguf_find_tensor (const EngGguf *gguf, const char *name)
{
  guint i = GPOINTER_TO_UINT (g_hash_table_lookup (gguf->tensor_index, name));
  return i ? &g_array_index (gguf->tensors, EngTensor, i - 1) : NULL;
}

void eng_gguf_drop_tensor (EngGguf *gguf, const EngTensor *tensor)
{
  eng_gguf_drop_rows (gguf, tensor, 0, eng_tensor_n_rows (tensor));
}

void eng_gguf_drop_rows (EngGguf *gguf, const EngTensor *tensor, guint64 row0, guint64 n)
{
  if (tensor->packed) {
    if (tensor->packed->class->drop)
      tensor->packed->class->drop (tensor->packed);
    return;
  }
  guint64 row_bytes = tensor->bytes / MAX (1, eng_tensor_n_rows (tensor));
  guintptr page = (guintptr) sysconf (_SC_PAGESIZE);
  guintptr begin = ((guintptr) tensor->data + row0 * row_bytes + page - 1) / page * page;
  guintptr end = ((guintptr) tensor->data + (row0 + n) * row_bytes) / page * page;
  if (end > begin)
    madvise ((void *) begin, end - begin, MADV_DONTNEED);
}
