/* gguf_private.h: an open GGUF as its reader, the metadata getters and the writer share it. */
#ifndef ENG_GGUF_PRIVATE_H
#define ENG_GGUF_PRIVATE_H

#include "engine/checkpoint/gguf.h"

/* Of an array of strings every so many places are noted: a large vocabulary costs kilobytes, and a look-up a short walk. */
enum { ENG_STRING_STRIDE = 16 };

typedef struct {
  char *name;
  EngKvType type;
  EngKvType element;      /* of an array */
  guint64 count;          /* of an array */
  const guint8 *data;     /* value, or first element */
  const guint8 *raw;      /* type word and value as they stand in the file */
  gsize raw_bytes;
  char *string;           /* valid UTF-8 copy of a string value */
  guint64 *offsets;       /* array of strings: where the length word of every ENG_STRING_STRIDE-th begins, from data */
} EngKey;

typedef struct {
  guint8 *map;
  guint64 size;
  gboolean swapped; /* a big-endian file: a private mapping, whose metadata is turned round as it is read */
} EngShard;

struct EngGguf {
  gatomicrefcount refs;
  char *path;
  guint64 bytes;
  GArray *shards;         /* EngShard */
  GArray *keys;           /* EngKey */
  GArray *tensors;        /* EngTensor */
  GHashTable *key_index;  /* name -> index + 1 */
  GHashTable *tensor_index;
  GArray *owned;          /* what a reader of another format keeps open: its files, EngPacked of its tensors */
  GBytes *header;         /* the keys of one that was no GGUF */
};

/* Bytes of a number of this kind; 0 for strings and arrays. */
guint eng_kv_size (EngKvType type);

static inline guint32 eng_u32_at (const guint8 *p)
{
  return (guint32) p[0] | (guint32) p[1] << 8 | (guint32) p[2] << 16 | (guint32) p[3] << 24;
}

static inline guint64 eng_u64_at (const guint8 *p)
{
  return eng_u32_at (p) | (guint64) eng_u32_at (p + 4) << 32;
}

/* Type word and value of key i as they stand in the file. */
const guint8 *eng_gguf_raw_value (const EngGguf *gguf, guint i, gsize *size);

/* ---- for readers of other formats: a view made of keys, then tensors ---- */
/* The keys that were set on `writer`, as a view of `path` without tensors. */
EngGguf *eng_gguf_new_from_keys (const char *path, const EngGgufWriter *writer, guint64 file_bytes, GError **error);
/* Adds one; the name is copied. FALSE: there is one of that name. */
gboolean eng_gguf_add_tensor (EngGguf *gguf, const EngTensor *tensor);
/* Is freed with the view, the last one first. */
void eng_gguf_own (EngGguf *gguf, gpointer object, GDestroyNotify free);
/* Header of a GGUF file with these keys and no tensors. */
GBytes *eng_gguf_writer_keys (const EngGgufWriter *writer);

#endif
