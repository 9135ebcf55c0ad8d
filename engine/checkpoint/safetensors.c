/* safetensors.c: a header of JSON that says where each array lies, then the arrays. */
#include "engine/checkpoint/safetensors.h"

#include "engine/error.h"
#include "engine/json_reader.h"
#include "kernels/xbit.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MAX_HEADER = 100 << 20, MAX_TENSORS = 1 << 20, MAX_NAME = 1024 };

static const struct {
  const char *name;
  guint bits;
} types[] = {
  [ENG_ST_F64] = { "F64", 64 }, [ENG_ST_F32] = { "F32", 32 }, [ENG_ST_F16] = { "F16", 16 }, [ENG_ST_BF16] = { "BF16", 16 },
  [ENG_ST_F8_E4M3] = { "F8_E4M3", 8 }, [ENG_ST_F8_E5M2] = { "F8_E5M2", 8 }, [ENG_ST_I64] = { "I64", 64 }, [ENG_ST_I32] = { "I32", 32 },
  [ENG_ST_I16] = { "I16", 16 }, [ENG_ST_I8] = { "I8", 8 }, [ENG_ST_U8] = { "U8", 8 }, [ENG_ST_BOOL] = { "BOOL", 8 },
};

/* Others are known by their size alone. */
static const struct {
  const char *name;
  guint bits;
} more[] = { { "U16", 16 }, { "U32", 32 }, { "U64", 64 }, { "F8_E8M0", 8 }, { "F4", 4 }, { "F6_E2M3", 6 }, { "F6_E3M2", 6 }, { "C64", 64 } };

typedef struct {
  guint8 *map;
  guint64 size;
} Mapped;

struct EngSafetensors {
  GArray *files;       /* Mapped */
  GArray *tensors;     /* EngStTensor */
  GHashTable *index;   /* name -> number + 1 */
  GStringChunk *names;
  guint64 bytes;
};

typedef struct {
  EngSafetensors *st;
  const char *path;
  EngJsonReader json;
  guint64 begin, end;  /* of the arrays, in the file */
  const guint8 *map;
  GError **error;
} Header;

static gboolean fail (Header *h, EngError code, const char *format, ...) G_GNUC_PRINTF (3, 4);

static gboolean fail (Header *h, EngError code, const char *format, ...)
{
  va_list args;
  va_start (args, format);
  g_autofree char *what = g_strdup_vprintf (format, args);
  va_end (args);
  if (h->error && !*h->error)
    g_set_error (h->error, ENG_ERROR, code, "%s: %s", h->path, what);
  return FALSE;
}

static gboolean odd (Header *h)
{
  return fail (h, ENG_ERROR_FORMAT, "its header %s; the file is damaged, download it again",
               h->json.error ? h->json.error->message : "is not laid out as safetensors are");
}

static gboolean next_is (Header *h, EngJsonEvent wanted)
{
  return eng_json_next (&h->json) == wanted || odd (h);
}

/* [n, n, ...] of at most `most` numbers that are not negative. */
static gboolean read_counts (Header *h, guint most, guint64 *out, guint *n)
{
  if (!next_is (h, ENG_JSON_ARRAY))
    return FALSE;
  for (*n = 0;; (*n)++) {
    EngJsonEvent event = eng_json_next (&h->json);
    if (event == ENG_JSON_ARRAY_END)
      return TRUE;
    if (event != ENG_JSON_INT || h->json.integer < 0 || *n == most)
      return odd (h);
    out[*n] = (guint64) h->json.integer;
  }
}

static gboolean find_type (const char *name, EngStType *type, guint *bits)
{
  for (guint i = 0; i < G_N_ELEMENTS (types); i++)
    if (strcmp (types[i].name, name) == 0) {
      *type = i;
      *bits = types[i].bits;
      return TRUE;
    }
  *type = ENG_ST_OTHER;
  for (guint i = 0; i < G_N_ELEMENTS (more); i++)
    if (strcmp (more[i].name, name) == 0) {
      *bits = more[i].bits;
      return TRUE;
    }
  return FALSE;
}

/* {"dtype": ..., "shape": [...], "data_offsets": [begin, end]} */
static gboolean read_tensor (Header *h, EngStTensor *t)
{
  guint64 shape[8], offsets[2] = { 1, 0 }, count = 1;
  guint n_shape = 0, n_offsets = 0, bits = 0;
  if (!next_is (h, ENG_JSON_OBJECT))
    return FALSE;
  for (;;) {
    EngJsonEvent event = eng_json_next (&h->json);
    if (event == ENG_JSON_OBJECT_END)
      break;
    if (event != ENG_JSON_KEY)
      return odd (h);
    if (strcmp (h->json.string->str, "dtype") == 0) {
      if (!next_is (h, ENG_JSON_STRING))
        return FALSE;
      if (!find_type (h->json.string->str, &t->type, &bits))
        return fail (h, ENG_ERROR_UNSUPPORTED, "tensor %s holds numbers of an unknown kind; update Valise or choose another file", t->name);
    } else if (strcmp (h->json.string->str, "shape") == 0) {
      if (!read_counts (h, G_N_ELEMENTS (shape), shape, &n_shape))
        return FALSE;
    } else if (strcmp (h->json.string->str, "data_offsets") == 0) {
      if (!read_counts (h, 2, offsets, &n_offsets))
        return FALSE;
    } else if (!eng_json_skip (&h->json, eng_json_next (&h->json))) {
      return odd (h);
    }
  }
  if (bits == 0 || n_offsets != 2)
    return odd (h);
  if (n_shape > 4)
    return fail (h, ENG_ERROR_UNSUPPORTED, "tensor %s has %u dimensions, and 4 at most are known", t->name, n_shape);
  t->n_dims = n_shape;
  for (guint i = 0; i < 4; i++) {
    t->dims[i] = i < n_shape ? shape[i] : 1;
    if (t->dims[i] > 0 && count > (guint64) G_MAXINT64 / 64 / t->dims[i])
      return fail (h, ENG_ERROR_FORMAT, "tensor %s has an impossible size; the file is damaged", t->name);
    count *= t->dims[i];
  }
  t->bytes = (count * bits + 7) / 8;
  if (offsets[1] < offsets[0] || offsets[1] - offsets[0] != t->bytes)
    return fail (h, ENG_ERROR_FORMAT, "tensor %s has another size than its shape; the file is damaged", t->name);
  if (offsets[1] > h->end - h->begin)
    return fail (h, ENG_ERROR_FORMAT, "the file is cut short: tensor %s ends at byte %" G_GUINT64_FORMAT " and the file at %" G_GUINT64_FORMAT
                 "; download it again", t->name, h->begin + MIN (offsets[1], G_MAXINT64), h->end);
  t->data = h->map + h->begin + offsets[0];
  return TRUE;
}

static gboolean read_entry (Header *h)
{
  EngSafetensors *st = h->st;
  if (strcmp (h->json.string->str, "__metadata__") == 0)
    return eng_json_skip (&h->json, eng_json_next (&h->json)) || odd (h);
  gboolean clean = h->json.string->len > 0 && h->json.string->len <= MAX_NAME && strlen (h->json.string->str) == h->json.string->len;
  for (const char *p = h->json.string->str; clean && *p; p++)
    clean = (guint8) *p >= ' ' && *p != 127;
  if (!clean)
    return fail (h, ENG_ERROR_FORMAT, "the name of a tensor is empty, too long or not text; the file is damaged");
  EngStTensor t = { .name = g_string_chunk_insert (st->names, h->json.string->str) };
  if (g_hash_table_contains (st->index, t.name))
    return fail (h, ENG_ERROR_FORMAT, "tensor %s is there twice; the files do not belong together or are damaged", t.name);
  if (st->tensors->len >= MAX_TENSORS)
    return fail (h, ENG_ERROR_FORMAT, "it holds more tensors than a model can have; the file is damaged");
  if (!read_tensor (h, &t))
    return FALSE;
  g_array_append_val (st->tensors, t);
  g_hash_table_insert (st->index, (gpointer) t.name, GUINT_TO_POINTER (st->tensors->len));
  return TRUE;
}

static int by_place (gconstpointer a, gconstpointer b)
{
  const EngStTensor *const *x = a, *const *y = b;
  return (*x)->data < (*y)->data ? -1 : (*x)->data > (*y)->data;
}

static gboolean check_overlaps (Header *h, guint first)
{
  g_autoptr (GPtrArray) order = g_ptr_array_new ();
  for (guint i = first; i < h->st->tensors->len; i++)
    if (g_array_index (h->st->tensors, EngStTensor, i).bytes > 0)
      g_ptr_array_add (order, &g_array_index (h->st->tensors, EngStTensor, i));
  g_ptr_array_sort (order, by_place);
  for (guint i = 1; i < order->len; i++) {
    const EngStTensor *before = order->pdata[i - 1], *t = order->pdata[i];
    if (before->data + before->bytes > t->data)
      return fail (h, ENG_ERROR_FORMAT, "tensors %s and %s overlap; the file is damaged", before->name, t->name);
  }
  return TRUE;
}

static gboolean read_header (Header *h, guint64 size)
{
  guint64 length;
  memcpy (&length, h->map, 8);
  length = GUINT64_FROM_LE (length);
  if (length > MIN (size - 8, MAX_HEADER))
    return fail (h, ENG_ERROR_FORMAT, "this is no safetensors file, or it is cut short; download it again");
  h->begin = 8 + length;
  h->end = size;
  guint first = h->st->tensors->len;
  eng_json_reader_init (&h->json, (const char *) h->map + 8, length);
  gboolean ok = next_is (h, ENG_JSON_OBJECT);
  while (ok) {
    EngJsonEvent event = eng_json_next (&h->json);
    if (event == ENG_JSON_OBJECT_END)
      break;
    ok = (event == ENG_JSON_KEY || odd (h)) && read_entry (h);
  }
  ok = ok && next_is (h, ENG_JSON_DONE);
  eng_json_reader_clear (&h->json);
  return ok && check_overlaps (h, first);
}

static gboolean add_file (EngSafetensors *st, const char *path, GError **error)
{
  Header h = { .st = st, .path = path, .error = error };
  int fd = open (path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  struct stat info;
  if (fd < 0 || fstat (fd, &info) < 0) {
    fail (&h, ENG_ERROR_IO, "it could not be opened: %s", g_strerror (errno));
    if (fd >= 0)
      close (fd);
    return FALSE;
  }
  Mapped file = { .size = (guint64) info.st_size };
  if (!S_ISREG (info.st_mode) || file.size < 8) {
    close (fd);
    return fail (&h, ENG_ERROR_FORMAT, "this is no safetensors file: it is %s", S_ISREG (info.st_mode) ? "shorter than a header" : "no ordinary file");
  }
  file.map = mmap (NULL, file.size, PROT_READ, MAP_SHARED, fd, 0);
  int saved = errno;
  close (fd);
  if (file.map == MAP_FAILED)
    return fail (&h, ENG_ERROR_IO, "it could not be mapped: %s", g_strerror (saved));
  g_array_append_val (st->files, file);
  st->bytes += file.size;
  h.map = file.map;
  if (file.size > 23 && memcmp (file.map, "version https://git-lfs", 23) == 0)
    return fail (&h, ENG_ERROR_FORMAT, "this is only a Git LFS pointer to the model; download the file itself");
  return read_header (&h, file.size);
}

static guint hash_name (gconstpointer name)
{
  static gsize seed;
  if (g_once_init_enter (&seed))
    g_once_init_leave (&seed, (gsize) g_random_int () | 1);
  guint64 hash = seed;
  for (const guint8 *p = name; *p; p++)
    hash = (hash ^ *p) * G_GUINT64_CONSTANT (0x100000001b3);
  return (guint) (hash ^ hash >> 32);
}

EngSafetensors *eng_safetensors_open (char **paths, GError **error)
{
  EngSafetensors *st = g_new0 (EngSafetensors, 1);
  st->files = g_array_new (FALSE, FALSE, sizeof (Mapped));
  st->tensors = g_array_new (FALSE, FALSE, sizeof (EngStTensor));
  st->index = g_hash_table_new (hash_name, g_str_equal);
  st->names = g_string_chunk_new (4096);
  for (guint i = 0; paths[i]; i++)
    if (!add_file (st, paths[i], error)) {
      eng_safetensors_free (st);
      return NULL;
    }
  return st;
}

void eng_safetensors_free (EngSafetensors *st)
{
  if (!st)
    return;
  for (guint i = 0; i < st->files->len; i++)
    munmap (g_array_index (st->files, Mapped, i).map, g_array_index (st->files, Mapped, i).size);
  g_array_unref (st->files);
  g_array_unref (st->tensors);
  g_hash_table_unref (st->index);
  g_string_chunk_free (st->names);
  g_free (st);
}

guint eng_safetensors_n (const EngSafetensors *st)
{
  return st->tensors->len;
}

const EngStTensor *eng_safetensors_tensor (const EngSafetensors *st, guint i)
{
  return &g_array_index (st->tensors, EngStTensor, i);
}

const EngStTensor *eng_safetensors_find (const EngSafetensors *st, const char *name)
{
  guint i = GPOINTER_TO_UINT (g_hash_table_lookup (st->index, name));
  return i ? &g_array_index (st->tensors, EngStTensor, i - 1) : NULL;
}

guint64 eng_safetensors_bytes (const EngSafetensors *st)
{
  return st->bytes;
}

const char *eng_st_type_name (EngStType type)
{
  return type < G_N_ELEMENTS (types) ? types[type].name : "numbers of another kind";
}

/* E4M3 as machine learning has it: no infinity, all ones is no number. E5M2 is the upper byte of an f16. */
static float from_e4m3 (guint8 byte)
{
  guint32 bits = (byte & 127u) << 20;
  float f;
  memcpy (&f, &bits, 4);
  f = (byte & 127) == 127 ? NAN : f * 0x1p120f;
  return byte & 128 ? -f : f;
}

void eng_st_read (const EngStTensor *t, guint64 first, guint64 n, float *out)
{
  const guint8 *p = t->data + first * (types[t->type].bits / 8);
  for (guint64 i = 0; i < n; i++) {
    guint16 half;
    guint32 word;
    gint16 i16;
    gint32 i32;
    gint64 i64;
    double f64;
    switch (t->type) {
    case ENG_ST_F64: memcpy (&f64, p + i * 8, 8); out[i] = (float) f64; break;
    case ENG_ST_F32: memcpy (&out[i], p + i * 4, 4); break;
    case ENG_ST_F16: memcpy (&half, p + i * 2, 2); out[i] = xb_half_to_float (half); break;
    case ENG_ST_BF16: memcpy (&half, p + i * 2, 2); word = (guint32) half << 16; memcpy (&out[i], &word, 4); break;
    case ENG_ST_F8_E4M3: out[i] = from_e4m3 (p[i]); break;
    case ENG_ST_F8_E5M2: out[i] = xb_half_to_float ((guint16) (p[i] << 8)); break;
    case ENG_ST_I64: memcpy (&i64, p + i * 8, 8); out[i] = (float) i64; break;
    case ENG_ST_I32: memcpy (&i32, p + i * 4, 4); out[i] = (float) i32; break;
    case ENG_ST_I16: memcpy (&i16, p + i * 2, 2); out[i] = i16; break;
    case ENG_ST_I8: out[i] = (gint8) p[i]; break;
    default: out[i] = p[i]; break;
    }
  }
}

float eng_st_scalar (const EngStTensor *t, float fallback)
{
  if (!t || t->type == ENG_ST_OTHER || t->bytes * 8 != types[t->type].bits)
    return fallback;
  eng_st_read (t, 0, 1, &fallback);
  return fallback;
}

void eng_st_drop (const EngStTensor *t)
{
  guintptr page = (guintptr) sysconf (_SC_PAGESIZE), begin = ((guintptr) t->data + page - 1) / page * page;
  guintptr end = ((guintptr) t->data + t->bytes) / page * page;
  if (end > begin)
    madvise ((void *) begin, end - begin, MADV_DONTNEED);
}
